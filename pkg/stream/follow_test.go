package stream_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/stream/streamtest"
)

func TestFollowReadsAllThenWhatComes(t *testing.T) {
	b := streamtest.StartBroker(t, streamtest.Persistent())
	const old = 200
	for i := range old {
		b.Write(t, event(fmt.Sprint("k", i%7), i))
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var seen, atCaughtUp, caughtUp atomic.Int32
	next := map[string]int{}
	done := make(chan error)
	go func() {
		done <- stream.Follow(ctx, b.Config(), stream.TopicEvents, stream.FromStart(), func(_ context.Context, rec stage.Record) error {
			key := string(rec.Key)
			var n int
			if _, err := fmt.Sscanf(string(rec.Value), key+"-%d", &n); err != nil || n < next[key] {
				return fmt.Errorf("%s after %d: %v", rec.Value, next[key], err)
			}
			next[key] = n + 1
			seen.Add(1)
			return nil
		}, func() { caughtUp.Add(1); atCaughtUp.Store(seen.Load()) })
	}()
	eventually(t, "caught up", func() bool { return caughtUp.Load() == 1 })
	if n := atCaughtUp.Load(); n != old {
		t.Errorf("caught up after %d records, want %d", n, old)
	}
	b.Write(t, event("k1", 1000))
	eventually(t, "the new record", func() bool { return seen.Load() == old+1 })

	// A broker that was away only delays.
	b.Stop(t)
	time.Sleep(100 * time.Millisecond)
	b.Start(t)
	b.Write(t, event("k1", 1001))
	eventually(t, "the record after the restart", func() bool { return seen.Load() == old+2 })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := caughtUp.Load(); n != 1 {
		t.Errorf("caughtUp called %d times, want once", n)
	}
}

func TestFollowFromOffsets(t *testing.T) {
	b := streamtest.StartBroker(t, streamtest.Partitions(1))
	for i := range 10 {
		b.Write(t, event("a", i))
	}
	for _, from := range []int64{0, 7, 10} {
		ctx, cancel := context.WithCancel(context.Background())
		var got []string
		err := stream.Follow(ctx, b.Config(), stream.TopicEvents, stream.FromOffsets(map[int]int64{0: from}),
			func(_ context.Context, rec stage.Record) error { got = append(got, string(rec.Value)); return nil }, cancel)
		if err != nil || len(got) != int(10-from) || len(got) > 0 && got[0] != fmt.Sprint("a-", from) {
			t.Errorf("from %d: got %v, %v", from, got, err)
		}
	}
}

func TestFollowEndsWithItsError(t *testing.T) {
	b := streamtest.StartBroker(t, streamtest.Partitions(1))
	b.Write(t, event("a", 0))
	want := errors.New("cannot fold")
	err := stream.Follow(context.Background(), b.Config(), stream.TopicEvents, stream.FromStart(),
		func(context.Context, stage.Record) error { return want }, nil)
	if !errors.Is(err, want) || !strings.Contains(err.Error(), "offset 0") {
		t.Errorf("got %v, want %v at its offset", err, want)
	}
}

func TestTail(t *testing.T) {
	b := streamtest.StartBroker(t, streamtest.Partitions(1))
	for i := range 10 {
		b.Write(t, event("a", i))
	}
	tail := func(topic string, last int) (got []string) {
		t.Helper()
		err := stream.Tail(context.Background(), b.Config(), topic, last, false, func(_ context.Context, rec stage.Record) error {
			got = append(got, string(rec.Value))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if got := tail(stream.TopicEvents, 3); fmt.Sprint(got) != "[a-7 a-8 a-9]" {
		t.Errorf("last 3: %v", got)
	}
	if got := tail(stream.TopicEvents, 99); len(got) != 10 {
		t.Errorf("last 99: %d records, want 10", len(got))
	}
	if got := tail(stream.TopicSignals, 3); len(got) != 0 {
		t.Errorf("an empty topic has %v", got)
	}
}

func TestTailMergesPartitionsByTime(t *testing.T) {
	b := streamtest.StartBroker(t, streamtest.Partitions(3))
	start := time.UnixMilli(1_700_000_000_000)
	for i := range 30 {
		rec := event(fmt.Sprint("k", i), i)
		rec.Time = start.Add(time.Duration(i) * time.Second)
		b.Write(t, rec)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var got []string
	err := stream.Tail(ctx, b.Config(), stream.TopicEvents, 3, true, func(_ context.Context, rec stage.Record) error {
		got = append(got, string(rec.Key))
		switch len(got) {
		case 3:
			b.Write(t, event("new", 0))
		case 4:
			cancel()
		}
		return nil
	})
	if err != nil || fmt.Sprint(got) != "[k27 k28 k29 new]" {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestEnsureTopicsWaitsForTheBroker(t *testing.T) {
	b := streamtest.StartBroker(t, streamtest.Persistent())
	b.Stop(t)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	done := make(chan error)
	go func() { done <- stream.EnsureTopics(ctx, b.Config(), 3, 1) }()
	time.Sleep(300 * time.Millisecond)
	cfg := b.Config()
	b.Start(t)
	if err := <-done; err != nil {
		t.Error(err)
	}
	b.Stop(t)
	short, cancelShort := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancelShort()
	if err := stream.EnsureTopics(short, cfg, 3, 1); !errors.Is(err, stream.ErrUnavailable) || !strings.Contains(err.Error(), "refused") {
		t.Errorf("got %v, want ErrUnavailable and why", err)
	}
	b.Start(t)
}

func TestEnsureTopics(t *testing.T) {
	b := streamtest.StartBroker(t, streamtest.Partitions(5))
	// Again, with another count: what is there stays.
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := stream.EnsureTopics(ctx, b.Config(), 7, 1); err != nil {
		t.Fatal(err)
	}
	transport := &kafka.Transport{}
	defer transport.CloseIdleConnections()
	client := &kafka.Client{Addr: kafka.TCP(b.Config().Brokers...), Transport: transport}
	tests := map[string]struct {
		partitions int
		retention  string
	}{
		stream.TopicEvents:                {5, "604800000"},
		stream.RouteTopic("human-review"): {5, "604800000"},
		stream.TopicCuration:              {1, "-1"},
		stream.TopicPatches:               {1, "-1"},
		stream.TopicDeadLetter:            {1, "604800000"},
	}
	for topic, want := range tests {
		meta, err := client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
		if err != nil {
			t.Fatal(err)
		}
		if n := len(meta.Topics[0].Partitions); n != want.partitions {
			t.Errorf("%s has %d partitions, want %d", topic, n, want.partitions)
		}
		res, err := client.DescribeConfigs(ctx, &kafka.DescribeConfigsRequest{Resources: []kafka.DescribeConfigRequestResource{{
			ResourceType: kafka.ResourceTypeTopic, ResourceName: topic, ConfigNames: []string{"retention.ms"}}}})
		if err != nil {
			t.Fatal(err)
		}
		if got := res.Resources[0].ConfigEntries[0].ConfigValue; got != want.retention {
			t.Errorf("%s keeps records %s ms, want %s", topic, got, want.retention)
		}
	}
	if err := stream.EnsureTopics(ctx, b.Config(), 0, 1); err == nil {
		t.Error("0 partitions: no error")
	}
}

func TestParseDeadLetterRefusesOthers(t *testing.T) {
	header := func(kv ...string) (hs []stage.Header) {
		for i := 0; i < len(kv); i += 2 {
			hs = append(hs, stage.Header{Key: kv[i], Value: []byte(kv[i+1])})
		}
		return hs
	}
	tests := map[string][]stage.Header{
		"no headers":    nil,
		"other headers": header("a", "", "b", "", "c", "", "d", "", "e", "", "f", "", "g", ""),
		"bad offset": header("hone-topic", "t", "hone-partition", "0", "hone-offset", "x", "hone-stage", "s",
			"hone-attempts", "1", "hone-cause", "c", "hone-failed-at", "2026-01-01T00:00:00Z"),
	}
	for name, headers := range tests {
		if _, err := stream.ParseDeadLetter(stage.Record{Headers: headers}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestConfigNamesWhatIsWrong(t *testing.T) {
	cfg := stream.Config{}
	err := cfg.Validate()
	for _, key := range []string{"brokers", "dial_timeout", "publish_timeout", "max_record_bytes", "retention"} {
		if err == nil || !strings.Contains(err.Error(), key+":") {
			t.Errorf("%v does not name %s", err, key)
		}
	}
}
