package standalone

import (
	"context"
	"fmt"
	"time"
)

// service is what the five services have in common.
type service interface {
	Run(ctx context.Context) error
	Ready(ctx context.Context) error
}

// running is a service that runs in this process.
type running struct {
	name   string
	svc    service
	cancel context.CancelFunc
	done   chan struct{}
	err    error // valid once done is closed
}

// run runs a service until it is canceled. A service that ends before is
// reported, since the others cannot do without it.
func (h *Hone) run(name string, svc service) *running {
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{name: name, svc: svc, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(r.done)
		r.err = svc.Run(ctx)
		if ctx.Err() != nil {
			return
		}
		select {
		case h.failed <- fmt.Errorf("%s ended by itself: %w", name, r.err):
		default:
		}
	}()
	return r
}

func (r *running) awaitReady(ctx context.Context) error {
	for {
		err := r.ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-r.done:
			return fmt.Errorf("it ended: %w", r.err)
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (r *running) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return r.svc.Ready(ctx)
}

func (r *running) wait(ctx context.Context) error {
	select {
	case <-r.done:
		if r.err != nil {
			return fmt.Errorf("stop %s: %w", r.name, r.err)
		}
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop %s: %w", r.name, ctx.Err())
	}
}
