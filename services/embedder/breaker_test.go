package embedder

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/honeloop/hone/pkg/vector"
)

func TestBreaker(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b breaker
		calls := 0
		call := func(ctx context.Context, result error) error {
			return b.do(ctx, ctx, func() error { calls++; return result })
		}
		away := fmt.Errorf("search: %w", vector.ErrUnavailable)
		ctx := t.Context()
		gone, cancel := context.WithCancel(ctx)
		cancel()

		for range 2 * breakerFailures { // says nothing of the index
			_ = call(gone, away)
			_ = call(ctx, errors.New("a refused query"))
			_ = b.do(ctx, gone, func() error { return away }) // other work took the time
		}
		_, _, _ = call(ctx, away), call(ctx, away), call(ctx, nil) // not in a row
		_, _ = call(ctx, away), call(ctx, context.DeadlineExceeded)
		if before := calls; call(ctx, away) == nil || calls != before+1 {
			t.Fatal("it opened too early")
		}
		before := calls
		for range 10 {
			if err := call(ctx, nil); !errors.Is(err, vector.ErrUnavailable) || calls != before {
				t.Fatalf("it is not open: %v", err)
			}
		}
		time.Sleep(breakerPause)
		if err := b.do(ctx, ctx, func() error { return errors.Join(away, call(ctx, nil)) }); !errors.Is(err, errOpen) || calls != before {
			t.Errorf("a second call came through beside the trial: %v", err)
		}
		if call(ctx, nil) == nil {
			t.Error("it closed after a trial that failed")
		}
		time.Sleep(breakerPause)
		for range 2 {
			if call(ctx, nil) != nil {
				t.Error("it did not close after a trial that worked")
			}
		}
	})
}
