package stream_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
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

// onProduce calls fn for every produce request. fn answers each partition with
// an error code, or 0 to let the broker handle the request.
func onProduce(b *streamtest.Broker, fn func(topic string, partition int32) int16) {
	b.Cluster.ControlKey(int16(kmsg.Produce), func(req kmsg.Request) (kmsg.Response, error, bool) {
		b.Cluster.KeepControl()
		r := req.(*kmsg.ProduceRequest)
		res := r.ResponseKind().(*kmsg.ProduceResponse)
		failed := false
		for _, t := range r.Topics {
			rt := kmsg.NewProduceResponseTopic()
			rt.Topic = t.Topic
			for _, p := range t.Partitions {
				rp := kmsg.NewProduceResponseTopicPartition()
				rp.Partition = p.Partition
				rp.ErrorCode = fn(t.Topic, p.Partition)
				failed = failed || rp.ErrorCode != 0
				rt.Partitions = append(rt.Partitions, rp)
			}
			res.Topics = append(res.Topics, rt)
		}
		return res, nil, failed
	})
}

// keyOf finds a key that goes to a partition.
func keyOf(partition, partitions int) []byte {
	for i := 0; ; i++ {
		if key := fmt.Appendf(nil, "key-%d", i); stream.Partition(key, partitions) == partition {
			return key
		}
	}
}

func TestPartitionIsThatOfOtherClients(t *testing.T) {
	for i := range 1000 {
		key := []byte(strings.Repeat("x", i%9) + fmt.Sprint(i))
		want := kafka.Murmur2Balancer{}.Balance(kafka.Message{Key: key}, 0, 1, 2, 3, 4, 5, 6)
		if got := stream.Partition(key, 7); got != want {
			t.Fatalf("Partition(%q) = %d, want %d", key, got, want)
		}
	}
}

func TestPublishWritesAllThatRecordsHave(t *testing.T) {
	b := streamtest.StartBroker(t)
	at := time.UnixMilli(1_700_000_000_123)
	want := stage.Record{Topic: stream.TopicEvents, Key: []byte("k"), Value: []byte("v"), Time: at,
		Headers: []stage.Header{{Key: "traceparent", Value: []byte("00-x")}, {Key: "empty"}}}
	b.Write(t, want, stage.Record{Topic: stream.TopicEvents, Key: []byte("k")})
	got := b.Read(t, stream.TopicEvents, 2)
	if string(got[0].Key) != "k" || string(got[0].Value) != "v" || !got[0].Time.Equal(at) ||
		len(got[0].Headers) != 2 || got[0].Headers[0].Key != "traceparent" || string(got[0].Headers[0].Value) != "00-x" {
		t.Errorf("got %+v, want %+v", got[0], want)
	}
	if got[1].Value != nil {
		t.Errorf("value %q, want nil", got[1].Value)
	}
	if age := time.Since(got[1].Time); age < 0 || age > time.Minute {
		t.Errorf("a record without a time got %s, want about now", got[1].Time)
	}
}

func TestPublishSharesRequests(t *testing.T) {
	b := streamtest.StartBroker(t, streamtest.Partitions(1), streamtest.InProcess())
	var requests atomic.Int32
	onProduce(b, func(string, int32) int16 {
		requests.Add(1)
		time.Sleep(2 * time.Millisecond) // so that callers gather
		return 0
	})
	pub := newPublisher(t, b.Config())
	const callers, each = 50, 20
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			for i := range each {
				if err := pub.Publish(context.Background(), event(fmt.Sprint("c", c), i)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if n := requests.Load(); n > callers*each/4 {
		t.Errorf("%d requests for %d records of %d callers, want at least 4 records in one", n, callers*each, callers)
	}
	next := map[string]int{}
	for _, rec := range b.Read(t, stream.TopicEvents, callers*each) {
		key := string(rec.Key)
		if want := string(event(key, next[key]).Value); string(rec.Value) != want {
			t.Fatalf("got %s, want %s", rec.Value, want)
		}
		next[key]++
	}
}

func TestPublishErrorsReachTheirCallersOnly(t *testing.T) {
	b := streamtest.StartBroker(t, streamtest.Partitions(2), streamtest.InProcess())
	onProduce(b, func(_ string, partition int32) int16 {
		if partition == 1 {
			return kerr.InvalidRecord.Code
		}
		return 0
	})
	pub := newPublisher(t, b.Config())
	good, bad := keyOf(0, 2), keyOf(1, 2)
	var wg sync.WaitGroup
	for i := range 20 {
		key, want := good, false
		if i%2 == 1 {
			key, want = bad, true
		}
		wg.Go(func() {
			if err := pub.Publish(context.Background(), stage.Record{Topic: stream.TopicEvents, Key: key}); (err != nil) != want {
				t.Errorf("key %s: %v, want an error: %v", key, err, want)
			}
		})
	}
	wg.Wait()

	err := pub.Publish(context.Background(),
		stage.Record{Topic: stream.TopicEvents, Key: good},
		stage.Record{Topic: stream.TopicEvents, Key: bad},
		stage.Record{Topic: stream.TopicEvents, Key: good})
	failed, ok := errors.AsType[*stream.PublishError](err)
	if !ok || len(failed.Errs) != 1 || failed.Errs[1] == nil {
		t.Errorf("got %v, want a PublishError of record 1", err)
	}
	if errors.Is(err, stream.ErrUnavailable) {
		t.Errorf("%v is ErrUnavailable, want a refusal", err)
	}
}

func TestPublishRetriesWhatMayPass(t *testing.T) {
	b := streamtest.StartBroker(t, streamtest.Partitions(1), streamtest.InProcess())
	var requests atomic.Int32
	onProduce(b, func(string, int32) int16 {
		if requests.Add(1) <= 3 {
			return kerr.NotLeaderForPartition.Code
		}
		return 0
	})
	if err := newPublisher(t, b.Config()).Publish(context.Background(), event("a", 0)); err != nil {
		t.Fatal(err)
	}
	if n := len(b.All(t, stream.TopicEvents)); n != 1 {
		t.Errorf("%d records, want 1", n)
	}
}

func TestPublishRefusesWhatIsTooLarge(t *testing.T) {
	b := streamtest.StartBroker(t)
	cfg := b.Config()
	cfg.MaxRecordBytes = 100
	err := newPublisher(t, cfg).Publish(context.Background(), event("a", 0),
		stage.Record{Topic: stream.TopicEvents, Value: make([]byte, 101)})
	tooLarge, ok := errors.AsType[*stream.TooLargeError](err)
	if !ok || tooLarge.Size != 101 || tooLarge.Limit != 100 {
		t.Errorf("got %v, want a TooLargeError of 101 bytes over 100", err)
	}
	if n := len(b.All(t, stream.TopicEvents)); n != 0 {
		t.Errorf("%d records written, want none", n)
	}
}

func TestPublishSplitsWhatTheBrokerFindsTooLarge(t *testing.T) {
	b := streamtest.StartBroker(t, streamtest.Partitions(1))
	b.CreateTopic(t, "small", 1, map[string]string{"max.message.bytes": "1000"})
	pub := newPublisher(t, b.Config())
	// Random enough not to compress.
	value := func(n int) []byte {
		v := make([]byte, n)
		for i := range v {
			v[i] = byte(i*i*7 + i>>3*13)
		}
		return v
	}
	var wg sync.WaitGroup
	for i := range 20 {
		n, want := 300, false
		if i == 10 {
			n, want = 3000, true
		}
		wg.Go(func() {
			err := pub.Publish(context.Background(), stage.Record{Topic: "small", Value: bytes.Clone(value(n))})
			if _, ok := errors.AsType[*stream.TooLargeError](err); ok != want {
				t.Errorf("%d bytes: %v, want a TooLargeError: %v", n, err, want)
			}
		})
	}
	wg.Wait()
	if n := len(b.All(t, "small")); n != 19 {
		t.Errorf("%d records, want 19", n)
	}
}

func TestPublishFailsFastWithoutBroker(t *testing.T) {
	t.Run("never there", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		cfg := stream.DefaultConfig()
		cfg.Brokers = []string{l.Addr().String()}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		failsFast(t, newPublisher(t, cfg))
	})
	t.Run("gone", func(t *testing.T) {
		b := streamtest.StartBroker(t, streamtest.Persistent())
		pub := newPublisher(t, b.Config())
		if err := pub.Publish(context.Background(), event("a", 0)); err != nil {
			t.Fatal(err)
		}
		b.Stop(t)
		failsFast(t, pub)
		b.Start(t)
		eventually(t, "publishing works again", func() bool {
			return pub.Publish(context.Background(), event("a", 1)) == nil
		})
	})
}

func failsFast(t *testing.T, pub *stream.Publisher) {
	t.Helper()
	for range 5 {
		start := time.Now()
		err := pub.Publish(context.Background(), event("a", 0))
		if !errors.Is(err, stream.ErrUnavailable) {
			t.Fatalf("got %v, want ErrUnavailable", err)
		}
		if d := time.Since(start); d > 500*time.Millisecond {
			t.Errorf("failed after %s, want milliseconds", d)
		}
	}
}

func TestPublishHasADeadline(t *testing.T) {
	b := streamtest.StartBroker(t, streamtest.InProcess())
	release := make(chan struct{})
	defer close(release)
	b.Cluster.ControlKey(int16(kmsg.Produce), func(kmsg.Request) (kmsg.Response, error, bool) {
		b.Cluster.SleepControl(func() { <-release })
		return nil, nil, false
	})
	cfg := b.Config()
	cfg.PublishTimeout = 200 * time.Millisecond
	cfg.MaxInFlightBytes = cfg.MaxBatchBytes
	pub := newPublisher(t, cfg)
	start := time.Now()
	var wg sync.WaitGroup
	var overloaded, unavailable atomic.Int32
	for i := range 4 { // more than the bytes in flight allow
		wg.Go(func() {
			ctx := context.Background()
			if i >= 2 {
				time.Sleep(20 * time.Millisecond)
				short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
				defer cancel()
				ctx = short
			}
			err := pub.Publish(ctx, stage.Record{Topic: stream.TopicEvents, Key: []byte("a"), Value: make([]byte, 400_000)})
			switch {
			case errors.Is(err, stream.ErrOverloaded):
				overloaded.Add(1)
			case errors.Is(err, stream.ErrUnavailable):
				unavailable.Add(1)
			default:
				t.Errorf("got %v, want ErrUnavailable or ErrOverloaded", err)
			}
		})
	}
	wg.Wait()
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("took %s, want about %s", d, cfg.PublishTimeout)
	}
	if overloaded.Load() == 0 || unavailable.Load() == 0 {
		t.Errorf("%d overloaded, %d unavailable, want both", overloaded.Load(), unavailable.Load())
	}
}

func TestPublishAfterClose(t *testing.T) {
	b := streamtest.StartBroker(t)
	pub, err := stream.NewPublisher(b.Config(), telemetry.Discard())
	if err != nil {
		t.Fatal(err)
	}
	if err := pub.Publish(context.Background(), event("a", 0)); err != nil {
		t.Fatal(err)
	}
	if err := pub.Close(); err != nil {
		t.Fatal(err)
	}
	if err := pub.Publish(context.Background(), event("a", 1)); !errors.Is(err, stream.ErrClosed) {
		t.Errorf("got %v, want ErrClosed", err)
	}
}

func TestPublishMoreThanMayBeInFlight(t *testing.T) {
	b := streamtest.StartBroker(t)
	cfg := b.Config()
	cfg.MaxRecordBytes, cfg.MaxBatchBytes, cfg.MaxInFlightBytes = 1000, 2000, 4000
	var recs []stage.Record
	for i := range 100 {
		recs = append(recs, stage.Record{Topic: stream.TopicEvents, Key: []byte("a"), Value: fmt.Appendf(nil, "%0900d", i)})
	}
	if err := newPublisher(t, cfg).Publish(context.Background(), recs...); err != nil {
		t.Fatal(err)
	}
	for i, rec := range b.Read(t, stream.TopicEvents, len(recs)) {
		if !bytes.Equal(rec.Value, recs[i].Value) {
			t.Fatalf("record %d is %s", i, rec.Value)
		}
	}
}

func TestPublishOfManyPartsSaysWhatFailed(t *testing.T) {
	b := streamtest.StartBroker(t, streamtest.Partitions(1), streamtest.InProcess())
	var requests atomic.Int32
	onProduce(b, func(string, int32) int16 {
		if requests.Add(1) > 3 {
			return kerr.InvalidRecord.Code
		}
		return 0
	})
	cfg := b.Config()
	cfg.MaxRecordBytes, cfg.MaxBatchBytes, cfg.MaxInFlightBytes = 1000, 1000, 2000
	recs := make([]stage.Record, 10)
	for i := range recs {
		recs[i] = stage.Record{Topic: stream.TopicEvents, Value: make([]byte, 900)}
	}
	err := newPublisher(t, cfg).Publish(context.Background(), recs...)
	failed, ok := errors.AsType[*stream.PublishError](err)
	if !ok || !errors.Is(err, stream.ErrRefused) || errors.Is(err, stream.ErrUnavailable) {
		t.Fatalf("got %v, want a PublishError that is ErrRefused", err)
	}
	for i := range recs {
		if (failed.Errs[i] != nil) != (i >= 3) {
			t.Errorf("record %d: %v", i, failed.Errs[i])
		}
	}
}
