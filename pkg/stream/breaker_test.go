package stream_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/stream/streamtest"
)

// atOnce is more than an answer that waits for nothing takes on a busy machine.
const atOnce = 250 * time.Millisecond

// failsAtOnce expects answers that wait for nothing and say when to try again.
func failsAtOnce(t *testing.T, pub *stream.Publisher) {
	t.Helper()
	for i := range 20 {
		start := time.Now()
		err := pub.Publish(context.Background(), event("a", 1000+i))
		d := time.Since(start)
		again, ok := errors.AsType[*stream.UnavailableError](err)
		if !ok || !errors.Is(err, stream.ErrUnavailable) || again.RetryAfter <= 0 {
			t.Fatalf("got %v, want an UnavailableError that says when to try again", err)
		}
		if d > atOnce {
			t.Errorf("failed after %s, want at once", d)
		}
	}
}

// A black hole takes connections and says nothing.
func TestPublishToABlackHole(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer l.Close()
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			defer conn.Close()
		}
	})
	cfg := stream.DefaultConfig()
	cfg.Brokers = []string{l.Addr().String()}
	cfg.StallAfter = 300 * time.Millisecond
	pub := newPublisher(t, cfg)
	start := time.Now()
	if err := pub.Publish(context.Background(), event("a", 0)); !errors.Is(err, stream.ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	if d := time.Since(start); d > cfg.StallAfter+atOnce {
		t.Errorf("the first answer took %s, want about %s", d, cfg.StallAfter)
	}
	failsAtOnce(t, pub)
}

func TestPublishWhileTheBrokerHangs(t *testing.T) {
	b := streamtest.StartBroker(t, streamtest.Partitions(1), streamtest.Pausable())
	cfg := b.Config()
	cfg.StallAfter = 300 * time.Millisecond
	pub := newPublisher(t, cfg)
	if err := pub.Publish(context.Background(), event("a", 0)); err != nil {
		t.Fatal(err)
	}
	b.Pause(t)
	var wg sync.WaitGroup
	for i := range 20 { // the first is sent, the others wait for it
		wg.Go(func() {
			start := time.Now()
			err := pub.Publish(context.Background(), event(fmt.Sprint("k", i), 0))
			if !errors.Is(err, stream.ErrUnavailable) {
				t.Errorf("got %v, want ErrUnavailable", err)
			}
			if d := time.Since(start); d > cfg.StallAfter+atOnce {
				t.Errorf("an answer took %s, want at most about %s", d, cfg.StallAfter)
			}
		})
	}
	wg.Wait()
	failsAtOnce(t, pub)
	b.Resume(t)
	start := time.Now()
	eventually(t, "publishing works again", func() bool {
		return pub.Publish(context.Background(), event("a", 2000)) == nil
	})
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("it took %s to find the broker back, want about a second", d)
	}
	for _, rec := range b.All(t, stream.TopicEvents) {
		if n := string(rec.Value); len(n) > 3 && n[:3] == "a-1" {
			t.Errorf("%s was written, though it was refused at once", n)
		}
	}
}

func TestPublishWhileTheBrokerIsGone(t *testing.T) {
	b := streamtest.StartBroker(t, streamtest.Persistent())
	pub := newPublisher(t, b.Config())
	var mu sync.Mutex
	acked := map[string]bool{}
	var slowest time.Duration
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for c := range 16 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				rec := event(fmt.Sprint("c", c), i)
				start := time.Now()
				err := pub.Publish(context.Background(), rec)
				d := time.Since(start)
				mu.Lock()
				slowest = max(slowest, d)
				if err == nil {
					acked[string(rec.Value)] = true
				} else if !errors.Is(err, stream.ErrUnavailable) {
					t.Errorf("got %v, want ErrUnavailable", err)
				}
				mu.Unlock()
				time.Sleep(time.Millisecond)
			}
		})
	}
	time.Sleep(200 * time.Millisecond)
	b.Stop(t)
	time.Sleep(300 * time.Millisecond)
	failsAtOnce(t, pub)
	cancel()
	wg.Wait()
	t.Logf("the slowest of all answers took %s", slowest)
	if slowest > 500*time.Millisecond {
		t.Errorf("an answer took %s, want milliseconds", slowest)
	}
	b.Start(t)
	eventually(t, "publishing works again", func() bool {
		return pub.Publish(context.Background(), event("a", 0)) == nil
	})
	written := map[string]bool{}
	for _, rec := range b.All(t, stream.TopicEvents) {
		written[string(rec.Value)] = true
	}
	for value := range acked {
		if !written[value] {
			t.Errorf("%s was acknowledged and is not there", value)
		}
	}
}

// A partition that is slow, and not gone, is let to itself until it answers.
func TestPublishToASlowPartition(t *testing.T) {
	b := streamtest.StartBroker(t, streamtest.Partitions(2), streamtest.InProcess())
	slow, fast := keyOf(0, 2), keyOf(1, 2)
	release := make(chan struct{})
	onProduce(b, func(_ string, partition int32) int16 {
		if partition == 0 {
			b.Cluster.SleepControl(func() { <-release })
		}
		return 0
	})
	cfg := b.Config()
	cfg.StallAfter = 100 * time.Millisecond
	pub := newPublisher(t, cfg)
	publish := func(key []byte) error {
		return pub.Publish(context.Background(), stage.Record{Topic: stream.TopicEvents, Key: key})
	}
	if err := publish(slow); !errors.Is(err, stream.ErrUnavailable) {
		t.Errorf("slow: got %v, want ErrUnavailable", err)
	}
	if _, ok := errors.AsType[*stream.UnavailableError](publish(slow)); !ok {
		t.Error("slow: the second one was let in")
	}
	close(release)
	eventually(t, "the slow partition is up", func() bool { return publish(slow) == nil })
	if err := publish(fast); err != nil {
		t.Errorf("fast: %v", err)
	}
}
