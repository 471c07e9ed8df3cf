package stream_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/stream/streamtest"
)

func poisonConfig() stream.RunnerConfig {
	cfg := runnerConfig(stream.TopicEvents)
	cfg.RetryMax = 20 * time.Millisecond
	cfg.PoisonAttempts, cfg.PoisonAfter = 3, 100*time.Millisecond
	cfg.StuckAfter = 200 * time.Millisecond
	return cfg
}

// failing forwards, unless a record of the batch fails.
func failing(fail func(rec stage.Record) error) stage.Stage {
	return stage.Func(func(ctx context.Context, in []stage.Record) ([]stage.Record, error) {
		for _, rec := range in {
			if err := fail(rec); err != nil {
				return nil, err
			}
		}
		return forward(ctx, in)
	})
}

func values(recs []stage.Record) (out []string) {
	for _, rec := range recs {
		out = append(out, string(rec.Value))
	}
	return out
}

func TestRunnerIsolatesPoison(t *testing.T) {
	tests := map[string]struct {
		fail    func() error
		want    string
		timeout time.Duration
	}{
		"an error":       {func() error { return errors.New("index out of range") }, "index out of range", time.Minute},
		"a panic":        {func() error { panic("nil map") }, "nil map", time.Minute},
		"takes for ever": {func() error { time.Sleep(150 * time.Millisecond); return context.DeadlineExceeded }, "not done after 100ms", 100 * time.Millisecond},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := streamtest.StartBroker(t, streamtest.Partitions(1))
			var recs []stage.Record
			var want []string
			bad := []string{"k0-0", "k6-20", "k0-21"} // the first one, and two in a row
			for i := range 50 {
				rec := event(fmt.Sprint("k", i%7), i)
				recs = append(recs, rec)
				if !slices.Contains(bad, string(rec.Value)) {
					want = append(want, string(rec.Value))
				}
			}
			b.Write(t, recs...)
			began := time.Now()
			cfg := poisonConfig()
			cfg.ProcessTimeout = tt.timeout
			startRunner(t, cfg, b.Config(), failing(func(rec stage.Record) error {
				if slices.Contains(bad, string(rec.Value)) {
					return tt.fail()
				}
				return nil
			}))
			letters := b.Read(t, stream.TopicDeadLetter, len(bad))
			for i, rec := range letters {
				letter, err := stream.ParseDeadLetter(rec)
				if err != nil {
					t.Fatal(err)
				}
				if string(letter.Record.Value) != bad[i] || letter.Attempts < 3 || !strings.Contains(letter.Cause, tt.want) ||
					!strings.Contains(letter.Cause, "neighbors succeeded") {
					t.Errorf("dead letter of %s after %d attempts: %s, want %s: %s", letter.Record.Value, letter.Attempts, letter.Cause, bad[i], tt.want)
				}
			}
			if d := time.Since(began); d < time.Duration(len(bad))*100*time.Millisecond {
				t.Errorf("dead letters after %s, want at least 100 ms for each", d)
			}
			eventually(t, "commit", func() bool { return committed(t, b, stream.TopicEvents, 0) == 50 })
			if got := values(b.All(t, stream.TopicSignals)); !slices.Equal(got, want) {
				t.Errorf("out %v, want each of the others once and in order", got)
			}
		})
	}
}

// What a record depends on may fail for as long as it likes.
func TestRunnerNeverBlamesARecordForTheWorld(t *testing.T) {
	only := func(value string, err error) func(stage.Record) error {
		return func(rec stage.Record) error {
			if string(rec.Value) == value {
				return err
			}
			return nil
		}
	}
	tests := map[string]func(stage.Record) error{
		"everything fails":    func(stage.Record) error { return errors.New("store is away") },
		"everything hangs":    func(stage.Record) error { time.Sleep(60 * time.Millisecond); return context.DeadlineExceeded },
		"everything panics":   func(stage.Record) error { panic("store is away") },
		"kafka":               only("k2/s5-5", fmt.Errorf("wait: %w", stream.ErrUnavailable)),
		"a context":           only("k2/s5-5", fmt.Errorf("insert: %w", context.DeadlineExceeded)),
		"the network":         only("k2/s5-5", &net.OpError{Op: "read", Err: errors.New("reset")}),
		"a broken connection": only("k2/s5-5", fmt.Errorf("insert: %w", io.ErrUnexpectedEOF)),
		"gRPC":                only("k2/s5-5", fmt.Errorf("search: %w", status.Error(codes.Unavailable, "away"))),
		"most neighbors, too": func(rec stage.Record) error { return map[bool]error{true: errors.New("away")}[rec.Key[1]%3 != 0] },
		"one project's store": func(rec stage.Record) error {
			return map[bool]error{true: errors.New("tenant is away")}[rec.Key[1] == '0']
		},
		"a part of the world": func(rec stage.Record) error {
			return map[bool]error{true: errors.New("shard is away")}[rec.Key[1] != '0']
		},
		"a joined world error": only("k2/s5-5", errors.Join(errors.New("no result"), context.Canceled)),
	}
	for name, fail := range tests {
		t.Run(name, func(t *testing.T) {
			b := streamtest.StartBroker(t, streamtest.Partitions(1))
			var recs []stage.Record
			for i := range 20 {
				recs = append(recs, event(fmt.Sprintf("k%d/s%d", i%3, i), i))
			}
			b.Write(t, recs...)
			var healed atomic.Bool
			cfg := poisonConfig()
			if name == "everything hangs" {
				cfg.ProcessTimeout = 50 * time.Millisecond
			}
			r, _ := startRunner(t, cfg, b.Config(), failing(func(rec stage.Record) error {
				if healed.Load() {
					return nil
				}
				return fail(rec)
			}))
			eventually(t, "Ready says stuck", func() bool {
				err := r.Ready(context.Background())
				return err != nil && strings.Contains(err.Error(), "is stuck at offset")
			})
			time.Sleep(500 * time.Millisecond)
			healed.Store(true)
			eventually(t, "commit", func() bool { return committed(t, b, stream.TopicEvents, 0) == 20 })
			if letters := b.All(t, stream.TopicDeadLetter); len(letters) != 0 {
				t.Errorf("dead letters %v, want none", values(letters))
			}
			if got := values(b.All(t, stream.TopicSignals)); !slices.Equal(got, values(recs)) {
				t.Errorf("out %v, want all, once and in order", got)
			}
		})
	}
}

// Without another record there is no telling whose fault it is.
func TestRunnerWaitsForANeighbor(t *testing.T) {
	b := streamtest.StartBroker(t, streamtest.Partitions(1))
	b.Write(t, event("a", 0), event("a", 1)) // one key: a-1 must not come first
	r, _ := startRunner(t, poisonConfig(), b.Config(), failing(func(rec stage.Record) error {
		if string(rec.Value) == "a-0" {
			return errors.New("index out of range")
		}
		return nil
	}))
	eventually(t, "Ready says stuck", func() bool { return r.Ready(context.Background()) != nil && committed(t, b, stream.TopicEvents, 0) < 1 })
	time.Sleep(500 * time.Millisecond)
	if letters := b.All(t, stream.TopicDeadLetter); len(letters) != 0 {
		t.Fatalf("dead letters %v, want none yet", values(letters))
	}
	b.Write(t, event("b", 0))
	eventually(t, "commit", func() bool { return committed(t, b, stream.TopicEvents, 0) == 3 })
	if got := values(b.All(t, stream.TopicDeadLetter)); !slices.Equal(got, []string{"a-0"}) {
		t.Errorf("dead letters %v, want a-0", got)
	}
	if got := values(b.All(t, stream.TopicSignals)); !slices.Equal(got, []string{"a-1", "b-0"}) {
		t.Errorf("out %v, want a-1, b-0", got)
	}
}
