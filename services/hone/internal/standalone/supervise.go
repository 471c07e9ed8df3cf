package standalone

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// part is a child process.
type part interface {
	Done() <-chan struct{}
	Err() error
	Stop(ctx context.Context) error
}

const (
	shortestWait = 200 * time.Millisecond
	longestWait  = 10 * time.Second
	// A child that lived this long starts its waits anew.
	restartCalm  = time.Minute
	startTimeout = time.Minute
)

// supervised is a child process that is started again when it dies.
type supervised struct {
	name     string
	progress *printer
	cancel   context.CancelFunc
	done     chan struct{}

	mu   sync.Mutex
	part part
}

func newSupervised(name string, progress *printer) *supervised {
	return &supervised{name: name, progress: progress}
}

// start starts the child and watches over it until stop.
func (s *supervised) start(ctx context.Context, start func(context.Context) (part, error)) error {
	p, err := start(ctx)
	if err != nil {
		return err
	}
	watching, cancel := context.WithCancel(context.Background())
	s.part, s.cancel, s.done = p, cancel, make(chan struct{})
	go func() {
		defer close(s.done)
		s.watch(watching, start)
	}()
	return nil
}

func (s *supervised) watch(ctx context.Context, start func(context.Context) (part, error)) {
	wait := shortestWait
	began := time.Now()
	for {
		select {
		case <-s.part.Done():
		case <-ctx.Done():
			return
		}
		cause := s.part.Err()
		if time.Since(began) > restartCalm {
			wait = shortestWait
		}
		s.progress.warnf("%s died (%v), starting it again", s.name, cause)
		for {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
				return
			}
			wait = min(2*wait, longestWait)
			began = time.Now()
			p, err := s.again(ctx, start)
			if err == nil {
				s.mu.Lock()
				s.part = p // also where stop came meanwhile, which then ends this one
				s.mu.Unlock()
			}
			if ctx.Err() != nil {
				return
			}
			if err == nil {
				s.progress.warnf("%s ready again after %s", s.name, time.Since(began).Round(10*time.Millisecond))
				break
			}
			s.progress.warnf("%s does not start, trying again: %v", s.name, err)
		}
	}
}

func (s *supervised) again(ctx context.Context, start func(context.Context) (part, error)) (part, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	return start(ctx)
}

// stop ends the watch and the child.
func (s *supervised) stop(ctx context.Context) error {
	if s.cancel == nil {
		return nil // it never started
	}
	s.cancel()
	select {
	case <-s.done:
	case <-ctx.Done():
		return fmt.Errorf("stop %s: %w", s.name, ctx.Err())
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.part.Stop(ctx); err != nil {
		return fmt.Errorf("stop %s: %w", s.name, err)
	}
	return nil
}
