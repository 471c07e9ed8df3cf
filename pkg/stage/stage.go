// Package stage defines the one interface that a pipeline step implements.
package stage

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Record is one Kafka record, read or to be written. A stage owns none of the
// bytes of its inputs: it must not change them, nor keep them after Process.
type Record struct {
	Topic     string
	Partition int   // of an input
	Offset    int64 // of an input
	Key       []byte
	Value     []byte
	Headers   []Header
	Time      time.Time
}

// Header is a Kafka record header.
type Header struct {
	Key   string
	Value []byte
}

// Stage is one step of the pipeline.
//
// Process handles a batch of one partition, in order. nil means that every
// input's effect is durable or is in out. A *BatchError names the inputs that
// can never succeed; they go to the dead letter, and out holds what the rest
// caused. Any other error means that nothing counts: the batch, a part of it, or
// one that holds it, will be offered again, so a stage is idempotent. Where one
// input goes on failing, others are offered beside it, to see whether they fail
// too: inputs that were done, and later ones with other keys.
//
// The runner calls Process from one goroutine per partition, so partitions run
// at the same time. It publishes out with acks=all, in order, and only then
// commits. A stage never commits, publishes, retries, counts or logs per event.
type Stage interface {
	Process(ctx context.Context, in []Record) (out []Record, err error)
}

// Func is a Stage made of a function.
type Func func(ctx context.Context, in []Record) ([]Record, error)

// Process calls f.
func (f Func) Process(ctx context.Context, in []Record) ([]Record, error) { return f(ctx, in) }

// BatchError names the inputs of a batch that can never succeed, by index, and
// why. The others succeeded.
type BatchError struct {
	causes map[int]error
}

// Fail adds an input. It returns e, or a new BatchError where e is nil.
func (e *BatchError) Fail(index int, cause error) *BatchError {
	if e == nil {
		e = &BatchError{causes: map[int]error{}}
	}
	if e.causes[index] == nil {
		e.causes[index] = cause
	}
	return e
}

// ErrorOrNil is e as an error, nil where no input failed.
func (e *BatchError) ErrorOrNil() error {
	if e == nil || len(e.causes) == 0 {
		return nil
	}
	return e
}

// Indexes are the failed inputs, ascending.
func (e *BatchError) Indexes() []int {
	out := make([]int, 0, len(e.causes))
	for i := range e.causes {
		out = append(out, i)
	}
	slices.Sort(out)
	return out
}

// Cause is why an input failed; nil where it did not.
func (e *BatchError) Cause(index int) error { return e.causes[index] }

func (e *BatchError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d inputs can never succeed:", len(e.causes))
	for _, i := range e.Indexes() {
		fmt.Fprintf(&b, " [%d] %v;", i, e.causes[i])
	}
	return strings.TrimSuffix(b.String(), ";")
}

// AsBatchError finds a BatchError that err is or wraps. One that is joined with
// another error does not count: the other says that nothing does.
func AsBatchError(err error) (*BatchError, bool) {
	for err != nil {
		if e, ok := err.(*BatchError); ok { //nolint:errorlint // the loop unwraps
			return e, true
		}
		switch w := err.(type) { //nolint:errorlint // the loop unwraps
		case interface{ Unwrap() error }:
			err = w.Unwrap()
		case interface{ Unwrap() []error }:
			if len(w.Unwrap()) != 1 {
				return nil, false
			}
			err = w.Unwrap()[0]
		default:
			return nil, false
		}
	}
	return nil, false
}
