package collector

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/honeloop/hone/pkg/auth"
	"github.com/honeloop/hone/pkg/events"
	"github.com/honeloop/hone/pkg/jsonpb"
	"github.com/honeloop/hone/pkg/spool"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/services/collector/internal/apierr"
)

// Publisher makes records durable.
//
// Publish returns nil once all records are. A *stream.PublishError names those
// that may not be; after any other error none counts as written. It is safe for
// concurrent use.
type Publisher interface {
	Publish(ctx context.Context, recs ...stage.Record) error
}

// retryAfter is what callers are told to wait for when Kafka or the collector
// has too much to do or is away.
const retryAfter = time.Second

// reasonRate is why an event is refused whose key sends too much.
const reasonRate = "rate_limited"

// spoolFullRetryAfter is the same for when Kafka has been away for so long that
// the spool is full.
const spoolFullRetryAfter = 5 * time.Second

// intake takes events in: it checks, completes and publishes them. HTTP and gRPC
// share it.
type intake struct {
	publisher Publisher
	limits    events.Limits
	timeout   time.Duration // 0 where the publisher's own is as short
	inFlight  chan struct{}
	limiter   *limiter
	metrics   *metrics
	now       func() time.Time
}

// enter takes a place among the requests in flight. Call leave after true.
func (in *intake) enter() bool {
	select {
	case in.inFlight <- struct{}{}:
		return true
	default:
		return false
	}
}

func (in *intake) leave() { <-in.inFlight }

func errTooMany() *apierr.Error {
	return apierr.Unavailable("too many requests at a time: try again later", retryAfter)
}

// result is what became of one event: an id where it is durable, else the error.
type result struct {
	id  string
	err *apierr.Error
}

// take makes the valid events of a request durable. results has one for each of
// req.Events. Each event ends as accepted or refused, and is counted.
func (in *intake) take(ctx context.Context, key auth.Key, source string, req *events.Request) (results []result, accepted int) {
	results = make([]result, len(req.Events))
	recs := make([]stage.Record, 0, len(req.Events))
	places := make([]int, 0, len(req.Events)) // of recs in req.Events
	now := in.now()
	wait := in.limiter.wait(&key, len(req.Events), now)
	for i, e := range req.Events {
		ferr := req.Errors[i]
		if ferr == nil && wait > 0 {
			in.metrics.refused(ctx, reasonRate, 1)
			results[i].err = errRate(wait)
			continue
		}
		var value []byte
		if ferr == nil && e.Source != "" && key.Kind != auth.Secret {
			ferr = &jsonpb.FieldError{Field: "source", Reason: events.NotAllowed, Message: "the collector sets this: leave it out"}
		}
		if ferr == nil {
			value, ferr = events.Accept(e, key.ProjectID, source, now, in.limits)
		}
		if ferr != nil {
			in.metrics.refused(ctx, string(ferr.Reason), 1)
			results[i].err = apierr.FromField(req.Path(i, ferr))
			continue
		}
		results[i].id = e.EventId
		// Kafka's retention goes by the time of the record. With occurred_at an
		// import of old history would be deleted before it is read.
		recs = append(recs, stage.Record{
			Topic: stream.TopicEvents,
			Key:   stream.SessionKey(key.ProjectID, e.SessionId),
			Value: value,
			Time:  now,
		})
		places = append(places, i)
	}
	if len(recs) == 0 {
		return results, 0
	}
	if in.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, in.timeout)
		defer cancel()
	}
	err := in.publisher.Publish(ctx, recs...)
	if err == nil {
		in.metrics.accepted(ctx, len(recs))
		return results, len(recs)
	}
	partly, isPartly := errors.AsType[*stream.PublishError](err)
	for n, i := range places {
		cause := err
		if isPartly {
			if cause = partly.Errs[n]; cause == nil {
				accepted++
				continue
			}
		}
		results[i] = result{err: in.unpublished(ctx, req, i, cause)}
	}
	in.metrics.accepted(ctx, accepted)
	return results, accepted
}

// unpublished is the answer for an event that is not known to be in Kafka.
func (in *intake) unpublished(ctx context.Context, req *events.Request, i int, cause error) *apierr.Error {
	if large, ok := errors.AsType[*stream.TooLargeError](cause); ok {
		in.metrics.refused(ctx, string(events.TooLarge), 1)
		ferr := &jsonpb.FieldError{Reason: events.TooLarge, Message: fmt.Sprintf("the event has %d bytes, more than Kafka takes", large.Size)}
		return apierr.FromField(req.Path(i, ferr))
	}
	in.metrics.publishFailed(cause)
	e := apierr.Unavailable("the event could not be made durable: send it again, with the same event_id if it has one", retryAfter)
	reason := "unavailable"
	if errors.Is(cause, spool.ErrFull) {
		reason = "spool_full"
		e.RetryAfter = spoolFullRetryAfter
	} else if known, ok := errors.AsType[*stream.UnavailableError](cause); ok {
		e.RetryAfter = known.RetryAfter
	}
	in.metrics.refused(ctx, reason, 1)
	if req.Batch {
		e.Field = fmt.Sprintf("events[%d]", i)
	}
	return e
}

// whole is the one error of a request of which nothing was accepted.
func whole(req *events.Request, results []result) *apierr.Error {
	worst := results[0].err
	for _, r := range results {
		if retryable(r.err) {
			worst = r.err // the rest of the request may be good the next time
			break
		}
	}
	if len(results) == 1 {
		return worst
	}
	e := *worst
	e.Message = fmt.Sprintf("none of the %d events was accepted; the first reason: %s", len(req.Events), worst.Message)
	return &e
}

// retryable says whether the same event may be accepted later.
func retryable(e *apierr.Error) bool {
	return e.Code == codes.Unavailable || e.Code == codes.ResourceExhausted
}
