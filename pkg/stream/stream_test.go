package stream_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/telemetry"
)

func TestMain(m *testing.M) {
	// Benchmarks share a broker that lives as long as the process.
	goleak.VerifyTestMain(settling{m}, goleak.Cleanup(func(code int) { os.Exit(code) }))
}

// settling lets the last fetches end, which a broker that lives on answers
// within their 500 ms. An in-process one cuts them.
type settling struct{ *testing.M }

func (s settling) Run() int {
	code := s.M.Run()
	time.Sleep(time.Second)
	return code
}

func newPublisher(t testing.TB, cfg stream.Config) *stream.Publisher {
	t.Helper()
	pub, err := stream.NewPublisher(cfg, telemetry.Discard())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pub.Close(); err != nil {
			t.Error(err)
		}
	})
	return pub
}

// startRunner runs a stage until the test ends or stop is called.
func startRunner(t testing.TB, cfg stream.RunnerConfig, kafka stream.Config, st stage.Stage) (r *stream.Runner, stop func()) {
	t.Helper()
	pub := newPublisher(t, kafka)
	r, err := stream.NewRunner(cfg, kafka, st, pub, telemetry.Discard())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		select {
		case err := <-done:
			if err != nil {
				t.Errorf("Run: %v", err)
			}
		case <-time.After(20 * time.Second):
			t.Error("Run did not end within 20 s")
		}
	}
	t.Cleanup(stop)
	return r, stop
}

func runnerConfig(topics ...string) stream.RunnerConfig {
	cfg := stream.DefaultRunnerConfig("hone-test", topics...)
	cfg.RetryMin, cfg.RetryMax = 5*time.Millisecond, 50*time.Millisecond
	return cfg
}

func event(key string, n int) stage.Record {
	return stage.Record{Topic: stream.TopicEvents, Key: []byte(key), Value: fmt.Appendf(nil, "%s-%d", key, n)}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if ok() {
			return
		}
	}
	t.Fatalf("not within 20 s: %s", what)
}
