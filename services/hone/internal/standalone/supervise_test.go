package standalone

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// fakePart is a child that dies when it is told to.
type fakePart struct {
	done    chan struct{}
	stopped bool
}

func (p *fakePart) Done() <-chan struct{} { return p.done }
func (p *fakePart) Err() error            { return errors.New("killed by the test") }
func (p *fakePart) Stop(context.Context) error {
	p.stopped = true
	return nil
}

func TestADeadChildIsStartedAgainWithBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var screen, log strings.Builder
		var mu sync.Mutex
		var starts []time.Time
		var parts []*fakePart
		s := newSupervised("clickhouse", &printer{w: &screen, log: slog.New(slog.NewTextHandler(&log, nil))})
		start := func(context.Context) (part, error) {
			mu.Lock()
			defer mu.Unlock()
			starts = append(starts, time.Now())
			if n := len(starts); n == 2 || n == 3 {
				return nil, errors.New("port is taken")
			}
			p := &fakePart{done: make(chan struct{})}
			parts = append(parts, p)
			return p, nil
		}
		if err := s.start(t.Context(), start); err != nil {
			t.Fatal(err)
		}
		close(parts[0].done)
		time.Sleep(time.Minute)
		synctest.Wait()

		mu.Lock()
		defer mu.Unlock()
		if len(starts) != 4 {
			t.Fatalf("%d starts, want 4: one, two that fail, one that does not", len(starts))
		}
		if first, second := starts[2].Sub(starts[1]), starts[3].Sub(starts[2]); second <= first {
			t.Errorf("waits of %s, then %s: want growing ones", first, second)
		}
		for _, want := range []string{"clickhouse died (killed by the test)", "port is taken", "clickhouse ready again"} {
			if !strings.Contains(screen.String(), want) {
				t.Errorf("the screen does not say %q:\n%s", want, screen.String())
			}
			if !strings.Contains(log.String(), want) {
				t.Errorf("the log does not say %q:\n%s", want, log.String())
			}
		}
		if err := s.stop(t.Context()); err != nil || !parts[1].stopped {
			t.Errorf("stop: %v, child stopped %t", err, parts[1].stopped)
		}
	})
}

func TestAStopDuringTheBackOffEndsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &fakePart{done: make(chan struct{})}
		s := newSupervised("weaviate", &printer{})
		fails := false
		if err := s.start(t.Context(), func(context.Context) (part, error) {
			if fails {
				return nil, errors.New("no")
			}
			return p, nil
		}); err != nil {
			t.Fatal(err)
		}
		fails = true
		close(p.done)
		time.Sleep(30 * time.Second)
		begin := time.Now()
		if err := s.stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(begin); took > 0 {
			t.Errorf("stop took %s", took)
		}
	})
}

func TestAChildThatComesBackWhileStoppingIsStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := &fakePart{done: make(chan struct{})}, &fakePart{done: make(chan struct{})}
		s := newSupervised("weaviate", &printer{})
		again := false
		if err := s.start(t.Context(), func(ctx context.Context) (part, error) {
			if !again {
				again = true
				return first, nil
			}
			<-ctx.Done() // it was up just when stop came
			return second, nil
		}); err != nil {
			t.Fatal(err)
		}
		close(first.done)
		time.Sleep(time.Second)
		if err := s.stop(t.Context()); err != nil || !second.stopped {
			t.Errorf("stop: %v, child stopped %t", err, second.stopped)
		}
	})
}
