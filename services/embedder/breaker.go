package embedder

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/honeloop/hone/pkg/vector"
)

const (
	breakerFailures = 3           // in a row
	breakerPause    = time.Second // between trials
	breakerSlow     = 500 * time.Millisecond
)

// errOpen says that the index is not asked because it did not answer lately.
var errOpen = fmt.Errorf("%w: it did not answer lately, and is asked again within %s", vector.ErrUnavailable, breakerPause)

// breaker keeps callers from waiting for an index that does not answer: after
// some failures in a row one call at a time tries it, once in a while, and the
// others fail at once. The zero value is closed.
type breaker struct {
	mu       sync.Mutex
	failures int
	retry    time.Time // of an open one
}

// do calls f, which works under ctx, unless the breaker is open. caller is the
// context of who waits: what ended because it ended says nothing of the index.
// Nor does a deadline of which other work had left less than breakerSlow.
func (b *breaker) do(caller, ctx context.Context, f func() error) error {
	if !b.enter() {
		return errOpen
	}
	start := time.Now()
	err := f()
	late := ctx.Err() != nil && time.Since(start) < breakerSlow
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case err == nil:
		b.failures = 0
	case caller.Err() == nil && !late && (errors.Is(err, vector.ErrUnavailable) || errors.Is(err, context.DeadlineExceeded)):
		b.failures++
		b.retry = time.Now().Add(breakerPause)
	}
	return err
}

func (b *breaker) enter() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.failures < breakerFailures {
		return true
	}
	if time.Now().Before(b.retry) {
		return false
	}
	b.retry = time.Now().Add(breakerPause) // one at a time
	return true
}
