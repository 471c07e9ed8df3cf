package stream

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"syscall"
	"time"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/honeloop/hone/pkg/stage"
)

const (
	// maxNeighbors bounds the records that are tried beside one that fails.
	maxNeighbors = 8
	// maxRemembered bounds the records that are kept for that after they are done.
	maxRemembered = 16
)

// poison is the cause of a dead letter that failed while others succeeded.
type poison struct{ error }

func (e poison) Unwrap() error  { return e.error }
func (e poison) Reason() string { return "poison" }

// tookTooLong is that a call of Process outlived ProcessTimeout. Where a record's
// neighbors do not, it may be the record's fault, though the error is a context's.
type tookTooLong struct{ error }

func (e tookTooLong) Unwrap() error { return e.error }

func tooSlow(err error) bool {
	_, ok := errors.AsType[tookTooLong](err)
	return ok
}

// suspect counts failures in a row that may be the records' fault.
type suspect struct {
	failures int
	since    time.Time
}

func (s *suspect) failed() {
	if s.failures == 0 {
		s.since = time.Now()
	}
	s.failures++
}

func (s *suspect) clear() { *s = suspect{} }

// worldly says whether an error is about what a stage depends on: such errors
// are no record's fault, however often they come.
func worldly(err error) bool {
	for _, target := range []error{
		ErrUnavailable, ErrOverloaded, ErrClosed, context.Canceled, context.DeadlineExceeded,
		io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, net.ErrClosed,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	if _, ok := errors.AsType[net.Error](err); ok {
		return true
	}
	if _, ok := errors.AsType[syscall.Errno](err); ok {
		return true
	}
	switch status.Code(err) {
	case codes.Canceled, codes.DeadlineExceeded, codes.Unavailable, codes.ResourceExhausted, codes.Aborted,
		codes.Unauthenticated, codes.PermissionDenied:
		return true
	}
	return false
}

// remember keeps some records that are done, to be tried again beside one that
// fails.
func (p *partition) remember(in []stage.Record, dead map[int]error) {
	for i := max(0, len(in)-maxRemembered); i < len(in); i++ {
		if dead[i] == nil {
			p.good = append(p.good, in[i])
		}
	}
	if n := len(p.good) - maxRemembered; n > 0 {
		p.good = p.good[:copy(p.good, p.good[n:])]
	}
}

// neighborsSucceed tries, each alone, records near one that failed: some that
// were done before, and some that come next and have another key, whose order
// to it does not count. It throws away what they cause: a stage is idempotent,
// and those that come next will come again. Where most of them succeed, and most
// of those of the record's own project if there are any, the failure is the
// record's and not the world's.
func (p *partition) neighborsSucceed(stop, work context.Context, rec stage.Record) bool {
	p.waitFor(maxNeighbors)
	project := projectOf(rec.Key)
	var near, others []stage.Record
	add := func(n stage.Record) {
		if bytes.Equal(projectOf(n.Key), project) {
			near = append(near, n)
		} else {
			others = append(others, n)
		}
	}
	for _, next := range p.waiting {
		if next.Offset > rec.Offset && (rec.Key == nil || !bytes.Equal(next.Key, rec.Key)) {
			add(next)
		}
	}
	near, others = near[:min(len(near), maxNeighbors/2)], others[:min(len(others), maxNeighbors/2)]
	for _, done := range slices.Backward(p.good) {
		add(done)
	}
	near = near[:min(len(near), maxNeighbors*3/4)]
	ours := len(near)
	near = append(near, others[:min(len(others), maxNeighbors-ours)]...)
	defer func(sc trace.SpanContext) { p.span = sc }(p.span)
	succeeded, oursSucceeded := 0, 0
	for i, n := range near {
		if stop.Err() != nil || succeeded+len(near)-i <= len(near)/2 { // each may take ProcessTimeout
			return false
		}
		_, _, err := p.attempt(work, []stage.Record{n})
		switch {
		case err == nil:
			succeeded++
			if i < ours {
				oursSucceeded++
			}
		case worldly(err) && !tooSlow(err):
			return false
		}
	}
	return succeeded > len(near)/2 && (ours == 0 || oursSucceeded > ours/2)
}

// projectOf is the first part of a SessionKey, or the whole of another key.
func projectOf(key []byte) []byte {
	project, _, _ := bytes.Cut(key, []byte("/"))
	return project
}
