package stream_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/stream/streamtest"
	"github.com/honeloop/hone/pkg/telemetry"
)

// forward sends every input on to hone.signals as it is.
func forward(_ context.Context, in []stage.Record) ([]stage.Record, error) {
	out := make([]stage.Record, len(in))
	for i, rec := range in {
		out[i] = stage.Record{Topic: stream.TopicSignals, Key: rec.Key, Value: rec.Value, Headers: rec.Headers}
	}
	return out, nil
}

func TestRunnerKeepsOrderPerKey(t *testing.T) {
	b := streamtest.StartBroker(t)
	cfg := runnerConfig(stream.TopicEvents)
	cfg.MaxBatch = 7
	r, _ := startRunner(t, cfg, b.Config(), stage.Func(forward))
	const keys, each = 10, 50
	for n := range each {
		var recs []stage.Record
		for k := range keys {
			recs = append(recs, event(string(rune('a'+k)), n))
		}
		b.Write(t, recs...)
	}
	next := map[string]int{}
	for _, rec := range b.Read(t, stream.TopicSignals, keys*each) {
		key := string(rec.Key)
		if want := string(event(key, next[key]).Value); string(rec.Value) != want {
			t.Fatalf("got %s, want %s", rec.Value, want)
		}
		next[key]++
	}
	if err := r.Ready(context.Background()); err != nil {
		t.Errorf("Ready: %v", err)
	}
}

// committed is the offset that the group has committed, -1 where there is none.
func committed(t testing.TB, b *streamtest.Broker, topic string, partition int) int64 {
	t.Helper()
	client := &kafka.Client{Addr: kafka.TCP(b.Config().Brokers...), Transport: &kafka.Transport{}}
	defer client.Transport.(*kafka.Transport).CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	res, err := client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: "hone-test", Topics: map[string][]int{topic: {partition}}})
	if err != nil {
		t.Fatal(err)
	}
	if len(res.Topics[topic]) == 0 {
		return -1 // there is no such group yet
	}
	return res.Topics[topic][0].CommittedOffset
}

func TestRunnerRepeatsUntilItSucceeds(t *testing.T) {
	tests := map[string]func(attempt int32) error{
		"plain error": func(int32) error { return errors.New("store is away") },
		"panic":       func(int32) error { panic("nil map") },
		"context":     func(int32) error { return context.DeadlineExceeded },
		"batch error whose cause is a context's": func(int32) error {
			var e *stage.BatchError
			return e.Fail(0, fmt.Errorf("insert: %w", context.Canceled)).ErrorOrNil()
		},
		"batch error about no input": func(int32) error {
			var e *stage.BatchError
			return e.Fail(99, errors.New("bad")).ErrorOrNil()
		},
	}
	for name, fail := range tests {
		t.Run(name, func(t *testing.T) {
			b := streamtest.StartBroker(t, streamtest.Partitions(1))
			b.Write(t, event("a", 0), event("a", 1))
			var attempts atomic.Int32
			startRunner(t, runnerConfig(stream.TopicEvents), b.Config(), stage.Func(func(ctx context.Context, in []stage.Record) ([]stage.Record, error) {
				if n := attempts.Add(1); n <= 3 {
					return nil, fail(n)
				}
				return forward(ctx, in)
			}))
			b.Read(t, stream.TopicSignals, 2)
			eventually(t, "commit", func() bool { return committed(t, b, stream.TopicEvents, 0) == 2 })
			if n := attempts.Load(); n != 4 {
				t.Errorf("%d attempts, want 4", n)
			}
			if n := len(b.All(t, stream.TopicDeadLetter)); n != 0 {
				t.Errorf("%d dead letters, want none", n)
			}
			if n := len(b.All(t, stream.TopicSignals)); n != 2 {
				t.Errorf("%d records out, want 2", n)
			}
		})
	}
}

func TestRunnerTimesOutAProcess(t *testing.T) {
	b := streamtest.StartBroker(t, streamtest.Partitions(1))
	b.Write(t, event("a", 0))
	cfg := runnerConfig(stream.TopicEvents)
	cfg.ProcessTimeout = 50 * time.Millisecond
	var attempts atomic.Int32
	startRunner(t, cfg, b.Config(), stage.Func(func(ctx context.Context, in []stage.Record) ([]stage.Record, error) {
		if attempts.Add(1) == 1 {
			<-ctx.Done()
			// What a careless stage makes of it.
			var e *stage.BatchError
			return nil, e.Fail(0, errors.New("insert failed")).ErrorOrNil()
		}
		return forward(ctx, in)
	}))
	b.Read(t, stream.TopicSignals, 1)
	if n := len(b.All(t, stream.TopicDeadLetter)); n != 0 {
		t.Errorf("%d dead letters, want none", n)
	}
}

func TestRunnerSendsDeadLetters(t *testing.T) {
	b := streamtest.StartBroker(t, streamtest.Partitions(1))
	bad := stage.Record{Topic: stream.TopicEvents, Key: []byte("a"), Value: []byte{0xff, 0, 'x'},
		Headers: []stage.Header{{Key: "traceparent", Value: []byte("00-1")}}}
	b.Write(t, event("a", 0), bad, event("a", 2))
	before := time.Now()
	startRunner(t, runnerConfig(stream.TopicEvents), b.Config(), stage.Func(func(ctx context.Context, in []stage.Record) ([]stage.Record, error) {
		var e *stage.BatchError
		var rest []stage.Record
		for i, rec := range in {
			if rec.Value[0] == 0xff {
				e = e.Fail(i, errors.New("not an event"))
			} else {
				rest = append(rest, rec)
			}
		}
		out, err := forward(ctx, rest)
		return out, errors.Join(err, e.ErrorOrNil())
	}))
	out := b.Read(t, stream.TopicSignals, 2)
	if string(out[0].Value) != "a-0" || string(out[1].Value) != "a-2" {
		t.Errorf("out %s, %s, want a-0, a-2", out[0].Value, out[1].Value)
	}
	rec := b.Read(t, stream.TopicDeadLetter, 1)[0]
	got, err := stream.ParseDeadLetter(rec)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(rec.Value, bad.Value) || !bytes.Equal(rec.Key, bad.Key) {
		t.Errorf("dead letter %q %q, want the original bytes", rec.Key, rec.Value)
	}
	if got.Record.Topic != stream.TopicEvents || got.Record.Partition != 0 || got.Record.Offset != 1 ||
		got.Stage != "test" || got.Attempts != 1 || got.Cause != "not an event" ||
		len(got.Record.Headers) != 1 || got.Record.Headers[0].Key != "traceparent" || string(got.Record.Headers[0].Value) != "00-1" {
		t.Errorf("got %+v", got)
	}
	if got.FailedAt.Before(before.Add(-time.Second)) || got.FailedAt.After(time.Now().Add(time.Second)) {
		t.Errorf("failed at %s, want about now", got.FailedAt)
	}
	eventually(t, "commit", func() bool { return committed(t, b, stream.TopicEvents, 0) == 3 })
}

func TestRunnerIsolatesAnOutputThatIsTooLarge(t *testing.T) {
	b := streamtest.StartBroker(t, streamtest.Partitions(1))
	for i := range 9 {
		b.Write(t, event("a", i))
	}
	startRunner(t, runnerConfig(stream.TopicEvents), b.Config(), stage.Func(func(ctx context.Context, in []stage.Record) ([]stage.Record, error) {
		out, err := forward(ctx, in)
		for i := range out {
			if string(out[i].Value) == "a-5" {
				out[i].Value = make([]byte, 2_000_000)
			}
		}
		return out, err
	}))
	if n := len(b.Read(t, stream.TopicSignals, 8)); n != 8 {
		t.Errorf("%d records out, want 8", n)
	}
	got, err := stream.ParseDeadLetter(b.Read(t, stream.TopicDeadLetter, 1)[0])
	if err != nil {
		t.Fatal(err)
	}
	if string(got.Record.Value) != "a-5" || !strings.Contains(got.Cause, "2000001 bytes") {
		t.Errorf("dead letter of %s because %s, want a-5 and its size", got.Record.Value, got.Cause)
	}
}

func TestRunnerIsolatesAnOutputThatTheBrokerRefuses(t *testing.T) {
	b := streamtest.StartBroker(t, streamtest.Partitions(1), streamtest.InProcess())
	b.Write(t, event("a", 0), event("a", 1), event("a", 2))
	var letters atomic.Int32
	onProduce(b, func(topic string, _ int32) int16 {
		switch topic {
		case "hone.refusing":
			return kerr.InvalidTimestamp.Code
		case stream.TopicDeadLetter:
			if letters.Add(1) <= 3 {
				return kerr.PolicyViolation.Code // an operator can lift it
			}
		}
		return 0
	})
	b.CreateTopic(t, "hone.refusing", 1, nil)
	startRunner(t, runnerConfig(stream.TopicEvents), b.Config(), stage.Func(func(ctx context.Context, in []stage.Record) ([]stage.Record, error) {
		out, err := forward(ctx, in)
		for i := range out {
			if string(out[i].Value) == "a-1" {
				out[i].Topic = "hone.refusing"
			}
		}
		return out, err
	}))
	eventually(t, "commit", func() bool { return committed(t, b, stream.TopicEvents, 0) == 3 })
	got := b.All(t, stream.TopicDeadLetter)
	if len(got) != 1 || string(got[0].Value) != "a-1" {
		t.Errorf("dead letters %v, want a-1", got)
	}
}

func TestRunnerCommitsNothingBeforeItIsPublished(t *testing.T) {
	b := streamtest.StartBroker(t, streamtest.Partitions(1), streamtest.InProcess())
	b.Write(t, event("a", 0), event("a", 1))
	var refuse atomic.Bool
	var refused atomic.Int32
	refuse.Store(true)
	onProduce(b, func(topic string, _ int32) int16 {
		if topic == stream.TopicSignals && refuse.Load() {
			refused.Add(1)
			return kerr.NotEnoughReplicas.Code
		}
		return 0
	})
	startRunner(t, runnerConfig(stream.TopicEvents), b.Config(), stage.Func(forward))
	eventually(t, "refusals", func() bool { return refused.Load() >= 5 })
	if at := committed(t, b, stream.TopicEvents, 0); at > 0 {
		t.Fatalf("committed %d before anything was published", at)
	}
	refuse.Store(false)
	eventually(t, "commit", func() bool { return committed(t, b, stream.TopicEvents, 0) == 2 })
	b.Read(t, stream.TopicSignals, 2)
}

func TestRunnerResumesWithoutLoss(t *testing.T) {
	b := streamtest.StartBroker(t)
	const total = 3000
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; i < total; i += 100 {
			var recs []stage.Record
			for j := range 100 {
				recs = append(recs, event(fmt.Sprint("k", j), i+j))
			}
			b.Write(t, recs...)
		}
	}()
	cfg := runnerConfig(stream.TopicEvents)
	cfg.MaxBatch = 20
	for range 4 {
		_, stop := startRunner(t, cfg, b.Config(), stage.Func(forward))
		time.Sleep(150 * time.Millisecond)
		stop()
	}
	<-done
	startRunner(t, cfg, b.Config(), stage.Func(forward))
	seen := map[string]int{}
	eventually(t, "all records", func() bool {
		clear(seen)
		for _, rec := range b.All(t, stream.TopicSignals) {
			seen[string(rec.Value)]++
		}
		return len(seen) == total
	})
	for value, n := range seen {
		if n != 1 {
			t.Errorf("%s came %d times, want 1: the runner stopped in order", value, n)
		}
	}
}

func TestRunnerStopsWithTheBatchInHand(t *testing.T) {
	tests := []struct {
		name      string
		obedient  bool // ends with its context
		takes     time.Duration
		committed int64
	}{
		{"that is done in time", false, 300 * time.Millisecond, 1},
		{"that is cut", true, time.Hour, -1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b := streamtest.StartBroker(t, streamtest.Partitions(1))
			b.Write(t, event("a", 0), event("a", 1))
			cfg := runnerConfig(stream.TopicEvents)
			cfg.MaxBatch = 1
			cfg.DrainTimeout = time.Second
			started := make(chan struct{})
			var once sync.Once
			_, stop := startRunner(t, cfg, b.Config(), stage.Func(func(ctx context.Context, in []stage.Record) ([]stage.Record, error) {
				once.Do(func() { close(started) })
				select {
				case <-time.After(tt.takes):
					return forward(ctx, in)
				case <-ctx.Done():
					var e *stage.BatchError
					return nil, e.Fail(0, ctx.Err()).ErrorOrNil()
				}
			}))
			<-started
			began := time.Now()
			stop()
			if d := time.Since(began); d > 3*time.Second {
				t.Errorf("stopped after %s, want about %s", d, min(tt.takes, cfg.DrainTimeout))
			}
			if at := committed(t, b, stream.TopicEvents, 0); at != tt.committed {
				t.Errorf("committed %d, want %d", at, tt.committed)
			}
			if n := len(b.All(t, stream.TopicDeadLetter)); n != 0 {
				t.Errorf("%d dead letters, want none", n)
			}
		})
	}
}

func TestRunnersShareAGroup(t *testing.T) {
	b := streamtest.StartBroker(t, streamtest.Partitions(4))
	const total = 2000
	var mu sync.Mutex
	seen := map[string]int{}
	count := func() int { mu.Lock(); defer mu.Unlock(); return len(seen) }
	slow := stage.Func(func(_ context.Context, in []stage.Record) ([]stage.Record, error) {
		time.Sleep(2 * time.Millisecond)
		mu.Lock()
		defer mu.Unlock()
		for _, rec := range in {
			seen[string(rec.Value)]++
		}
		return nil, nil
	})
	cfg := runnerConfig(stream.TopicEvents)
	cfg.MaxBatch = 10
	first, _ := startRunner(t, cfg, b.Config(), slow)
	go func() {
		for i := 0; i < total; i += 50 {
			var recs []stage.Record
			for j := range 50 {
				recs = append(recs, event(fmt.Sprint("k", j), i+j))
			}
			b.Write(t, recs...)
			time.Sleep(20 * time.Millisecond)
		}
	}()
	eventually(t, "first records", func() bool { return count() > 100 })
	second, stopSecond := startRunner(t, cfg, b.Config(), slow)
	eventually(t, "both are ready", func() bool {
		return first.Ready(context.Background()) == nil && second.Ready(context.Background()) == nil
	})
	eventually(t, "more records", func() bool { return count() > total/2 })
	stopSecond()
	eventually(t, "all records", func() bool { return count() == total })
	eventually(t, "all commits", func() bool {
		var sum int64
		for p := range 4 {
			sum += committed(t, b, stream.TopicEvents, p)
		}
		return sum == total
	})
	mu.Lock()
	defer mu.Unlock()
	for value, n := range seen {
		if n != 1 {
			t.Errorf("%s was processed %d times, want 1: both drained before they gave partitions up", value, n)
		}
	}
}

// A runner that was thrown out of its group while it worked must not commit.
func TestRunnerDoesNotCommitWhatItLost(t *testing.T) {
	b := streamtest.StartBroker(t, streamtest.Partitions(1), streamtest.InProcess())
	b.Write(t, event("a", 0), event("a", 1))
	var heartbeats, commits atomic.Int32
	var lost atomic.Bool
	// The group has gone on without this member: heartbeats and commits of its
	// generation are refused from the first batch on.
	refuse := func(key kmsg.Key, count *atomic.Int32, answer func(kmsg.Request) kmsg.Response) {
		b.Cluster.ControlKey(int16(key), func(req kmsg.Request) (kmsg.Response, error, bool) {
			b.Cluster.KeepControl()
			if !lost.Load() {
				return nil, nil, false
			}
			count.Add(1)
			return answer(req), nil, true
		})
	}
	refuse(kmsg.Heartbeat, &heartbeats, func(req kmsg.Request) kmsg.Response {
		res := req.ResponseKind().(*kmsg.HeartbeatResponse)
		res.ErrorCode = kerr.IllegalGeneration.Code
		return res
	})
	refuse(kmsg.OffsetCommit, &commits, func(req kmsg.Request) kmsg.Response {
		r := req.(*kmsg.OffsetCommitRequest)
		if r.Generation < 0 {
			t.Errorf("commit outside of a generation")
		}
		res := req.ResponseKind().(*kmsg.OffsetCommitResponse)
		for _, topic := range r.Topics {
			rt := kmsg.NewOffsetCommitResponseTopic()
			rt.Topic = topic.Topic
			for _, p := range topic.Partitions {
				rp := kmsg.NewOffsetCommitResponseTopicPartition()
				rp.Partition = p.Partition
				rp.ErrorCode = kerr.IllegalGeneration.Code
				rt.Partitions = append(rt.Partitions, rp)
			}
			res.Topics = append(res.Topics, rt)
		}
		return res
	})
	var batches atomic.Int32
	startRunner(t, runnerConfig(stream.TopicEvents), b.Config(), stage.Func(func(ctx context.Context, in []stage.Record) ([]stage.Record, error) {
		if batches.Add(1) == 1 {
			lost.Store(true)
			time.Sleep(50 * time.Millisecond)
		}
		return forward(ctx, in)
	}))
	eventually(t, "refused commit", func() bool { return commits.Load() > 0 })
	if at := committed(t, b, stream.TopicEvents, 0); at > 0 {
		t.Errorf("committed %d, want nothing", at)
	}
	lost.Store(false)
	eventually(t, "commit by the next generation", func() bool { return committed(t, b, stream.TopicEvents, 0) == 2 })
	if n := batches.Load(); n < 2 {
		t.Errorf("%d batches, want the first one again", n)
	}
}

func TestRunnerOutlivesItsBroker(t *testing.T) {
	b := streamtest.StartBroker(t, streamtest.Persistent())
	r, _ := startRunner(t, runnerConfig(stream.TopicEvents), b.Config(), stage.Func(forward))
	b.Write(t, event("a", 0))
	b.Read(t, stream.TopicSignals, 1)
	b.Stop(t)
	eventually(t, "not ready", func() bool { return r.Ready(context.Background()) != nil })
	b.Start(t)
	b.Write(t, event("a", 1))
	b.Read(t, stream.TopicSignals, 2)
	eventually(t, "ready", func() bool { return r.Ready(context.Background()) == nil })
}

func TestRunnerReadiness(t *testing.T) {
	b := streamtest.StartBroker(t, streamtest.Partitions(1))
	cfg := runnerConfig("hone.later")
	cfg.StuckAfter = 100 * time.Millisecond
	var broken atomic.Bool
	broken.Store(true)
	r, stop := startRunner(t, cfg, b.Config(), stage.Func(func(context.Context, []stage.Record) ([]stage.Record, error) {
		if broken.Load() {
			return nil, errors.New("store is away")
		}
		return nil, nil
	}))
	waitFor := func(what string) {
		t.Helper()
		eventually(t, "Ready says "+what, func() bool {
			err := r.Ready(context.Background())
			return err != nil && strings.Contains(err.Error(), what) || err == nil && what == "ready"
		})
	}
	waitFor("waiting for topics")
	b.CreateTopic(t, "hone.later", 1, nil)
	waitFor("ready")
	b.Write(t, stage.Record{Topic: "hone.later", Value: []byte("x")})
	waitFor("stuck at offset 0")
	broken.Store(false)
	waitFor("ready")
	stop()
	waitFor("stopped")
}

func TestRunnerStartsWithoutBroker(t *testing.T) {
	b := streamtest.StartBroker(t, streamtest.Persistent())
	b.Stop(t)
	r, stop := startRunner(t, runnerConfig(stream.TopicEvents), b.Config(), stage.Func(forward))
	eventually(t, "not ready", func() bool {
		err := r.Ready(context.Background())
		return err != nil && errors.Is(err, stream.ErrUnavailable)
	})
	began := time.Now()
	stop()
	if d := time.Since(began); d > 3*time.Second {
		t.Errorf("stopped after %s, want at once", d)
	}
	b.Start(t)
}

func TestRunnerSkipsWhatKafkaDeleted(t *testing.T) {
	b := streamtest.StartBroker(t, streamtest.Partitions(1))
	cfg := runnerConfig(stream.TopicEvents)
	_, stop := startRunner(t, cfg, b.Config(), stage.Func(forward))
	b.Write(t, event("a", 0))
	eventually(t, "commit", func() bool { return committed(t, b, stream.TopicEvents, 0) == 1 })
	stop()
	b.Write(t, event("a", 1), event("a", 2), event("a", 3))
	b.DeleteRecords(t, stream.TopicEvents, 0, 3)
	startRunner(t, cfg, b.Config(), stage.Func(forward))
	out := b.Read(t, stream.TopicSignals, 2)
	if string(out[1].Value) != "a-3" {
		t.Errorf("got %s, want a-3", out[1].Value)
	}
}

func TestRunnerCounts(t *testing.T) {
	b := streamtest.StartBroker(t, streamtest.Partitions(1))
	b.Write(t, event("a", 0), event("a", 1), event("a", 2))
	tel := telemetry.Discard()
	pub := newPublisher(t, b.Config())
	failed := false
	r, err := stream.NewRunner(runnerConfig(stream.TopicEvents), b.Config(), stage.Func(func(ctx context.Context, in []stage.Record) ([]stage.Record, error) {
		if !failed {
			failed = true
			return nil, errors.New("store is away")
		}
		var e *stage.BatchError
		out, _ := forward(ctx, in[1:])
		return out, e.Fail(0, unreadable{}).ErrorOrNil()
	}), pub, tel)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	eventually(t, "commit", func() bool { return committed(t, b, stream.TopicEvents, 0) == 3 })

	families, err := tel.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				if l.GetName() == "reason" || l.GetName() == "step" {
					name += " " + l.GetValue()
				}
			}
			switch {
			case m.GetCounter() != nil:
				got[name] += m.GetCounter().GetValue()
			case m.GetHistogram() != nil:
				got[name] += float64(m.GetHistogram().GetSampleCount())
			default:
				got[name] += m.GetGauge().GetValue()
			}
		}
	}
	want := map[string]float64{
		"hone_stage_records_in_total":              3,
		"hone_stage_records_out_total":             2,
		"hone_stage_batches_total":                 1,
		"hone_stage_retries_total process":         1,
		"hone_stage_dead_letters_total unreadable": 1,
		"hone_stage_lag":                           0,
		"hone_stage_process_duration_seconds":      2,
	}
	for name, n := range want {
		if v, ok := got[name]; !ok || v != n {
			t.Errorf("%s is %v (there: %v), want %v", name, v, ok, n)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
}

type unreadable struct{}

func (unreadable) Error() string  { return "not an event" }
func (unreadable) Reason() string { return "unreadable" }
