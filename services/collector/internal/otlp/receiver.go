package otlp

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	collectorlogs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"

	"github.com/honeloop/hone/pkg/auth"
	"github.com/honeloop/hone/pkg/events"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	"github.com/honeloop/hone/services/collector/internal/apierr"
)

// retryAfter is what callers are told to wait for when there is too much to do.
const retryAfter = time.Second

// Options are what a Receiver needs of the collector.
type Options struct {
	// Take checks events and makes them durable. It returns one error for each
	// event, nil for those that are durable; one that is Unavailable or
	// ResourceExhausted may work later.
	Take func(context.Context, auth.Key, []*eventv1.Event) []*apierr.Error
	// Authenticate finds the key of an HTTP request.
	Authenticate func(*http.Request) (auth.Key, *apierr.Error)
	// ReadBody reads the body of an HTTP request and unpacks it. release always is
	// called.
	ReadBody func(http.ResponseWriter, *http.Request) (body []byte, release func(), failed *apierr.Error)
	// Enter takes a place among the requests in flight, and Leave gives it back.
	Enter func() bool
	Leave func()
	// What an event may be.
	Limits events.Limits
	// Bytes of a message over gRPC.
	MaxBody int
	// Bytes of all bodies in memory.
	Bodies *semaphore.Weighted
	// Where the receiver counts.
	Meter metric.Meter
}

// Receiver answers OTLP exports. It is an http.Handler for TracesPath and
// LogsPath, and Register adds the gRPC services.
type Receiver struct {
	opts     Options
	elements *semaphore.Weighted // messages of all bodies in memory
	records  metric.Int64Counter
}

// New makes a receiver.
func New(opts Options) (*Receiver, error) {
	records, err := opts.Meter.Int64Counter("hone.collector.otlp.records",
		metric.WithDescription("Spans and log records by signal (traces, logs), by what they became (interaction, feedback, step, ignored, rejected) and, where ignored or rejected, why."))
	if err != nil {
		return nil, fmt.Errorf("create OTLP receiver: %w", err)
	}
	return &Receiver{opts: opts, elements: semaphore.NewWeighted(maxAllElements), records: records}, nil
}

// signal is one of OTLP's signals.
type signal struct {
	name    string
	request func() proto.Message
	maps    func(*mapper, proto.Message)
	answer  func(rejected int64, message string) proto.Message
}

func traceSignal() signal {
	return signal{
		name:    "traces",
		request: func() proto.Message { return new(collectortrace.ExportTraceServiceRequest) },
		maps: func(m *mapper, req proto.Message) {
			if req, ok := req.(*collectortrace.ExportTraceServiceRequest); ok {
				m.traces(req)
			}
		},
		answer: func(rejected int64, message string) proto.Message {
			out := new(collectortrace.ExportTraceServiceResponse)
			if rejected > 0 {
				out.PartialSuccess = &collectortrace.ExportTracePartialSuccess{RejectedSpans: rejected, ErrorMessage: message}
			}
			return out
		},
	}
}

func logSignal() signal {
	return signal{
		name:    "logs",
		request: func() proto.Message { return new(collectorlogs.ExportLogsServiceRequest) },
		maps: func(m *mapper, req proto.Message) {
			if req, ok := req.(*collectorlogs.ExportLogsServiceRequest); ok {
				m.logs(req)
			}
		},
		answer: func(rejected int64, message string) proto.Message {
			out := new(collectorlogs.ExportLogsServiceResponse)
			if rejected > 0 {
				out.PartialSuccess = &collectorlogs.ExportLogsPartialSuccess{RejectedLogRecords: rejected, ErrorMessage: message}
			}
			return out
		},
	}
}

// export reads a body, maps it and makes its events durable. Nil and an answer
// mean that all events are durable but those that the answer counts as rejected.
// Unavailable and ResourceExhausted mean that the same request should be sent
// again; what of it is durable already counts once all the same.
func (r *Receiver) export(ctx context.Context, key auth.Key, sig signal, body []byte, json bool) (proto.Message, *apierr.Error) {
	req := sig.request()
	elements, err := 0, error(nil)
	if json {
		elements, err = countJSON(body)
	} else {
		elements, err = countProto(body, req.ProtoReflect().Descriptor())
	}
	if err == nil {
		if !r.elements.TryAcquire(int64(elements)) {
			return nil, errTooMany()
		}
		defer r.elements.Release(int64(elements))
		if json {
			err = decodeJSON(body, req)
		} else {
			err = decodeProto(body, req)
		}
	}
	if err != nil {
		r.count(ctx, sig, outcome{rejected, "broken"}, 1)
		out := apierr.Errorf(codes.InvalidArgument, "%s", err)
		if errors.Is(err, errTooManyElements) {
			out = out.WithStatus(http.StatusRequestEntityTooLarge)
		}
		return nil, out
	}
	m := newMapper(key.ProjectID, r.opts.Limits)
	sig.maps(m, req)
	mistakes := len(m.rejected)
	for n := 0; n < len(m.events); n += r.opts.Limits.Batch {
		part := m.events[n:min(n+r.opts.Limits.Batch, len(m.events))]
		for i, e := range r.opts.Take(ctx, key, part) {
			switch {
			case e == nil:
			case e.Code == codes.Unavailable || e.Code == codes.ResourceExhausted:
				return nil, e
			default:
				why := e.Message
				if e.Field != "" {
					why = e.Field + ": " + why
				}
				for _, record := range m.records[n+i] {
					m.reject(record, why)
				}
			}
		}
	}
	for record, o := range m.outcomes {
		if _, ok := m.rejected[record]; !ok {
			r.count(ctx, sig, o, 1)
		}
	}
	r.count(ctx, sig, outcome{rejected, "convention"}, mistakes)
	r.count(ctx, sig, outcome{rejected, "event"}, len(m.rejected)-mistakes)
	return sig.answer(int64(len(m.rejected)), m.why(sig)), nil
}

// why is the reason for the first record that was rejected.
func (m *mapper) why(sig signal) string {
	if len(m.rejected) == 0 {
		return ""
	}
	numbers := make([]int, 0, len(m.rejected))
	for n := range m.rejected {
		numbers = append(numbers, n)
	}
	first := slices.Min(numbers)
	return fmt.Sprintf("%d of the %s in the request rejected; the first is number %d (from 0, in the request's order): %s", len(m.rejected), sig.name, first, m.rejected[first])
}

func (r *Receiver) count(ctx context.Context, sig signal, o outcome, n int) {
	if n > 0 {
		r.records.Add(ctx, int64(n), metric.WithAttributes(
			attribute.String("signal", sig.name), attribute.String("outcome", o.what), attribute.String("reason", o.reason)))
	}
}

func errTooMany() *apierr.Error {
	return apierr.Unavailable("too many requests at a time: try again later", retryAfter)
}
