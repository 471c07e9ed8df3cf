package stream

import (
	"bytes"
	"context"
	"slices"
	"strconv"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/honeloop/hone/pkg/stage"
)

// Headers of W3C trace context.
const (
	headerTraceparent = "traceparent"
	headerTracestate  = "tracestate"

	// maxLinks bounds the traces that a batch's span names.
	maxLinks = 128
)

// headers are a record's, as OpenTelemetry reads and writes them.
type headers struct{ rec *stage.Record }

func (h headers) Get(key string) string { return string(header(h.rec, key)) }

func (h headers) Set(key, value string) {
	// Others may hold the headers, too.
	h.rec.Headers = append(slices.Clip(h.rec.Headers), stage.Header{Key: key, Value: []byte(value)})
}

func (h headers) Keys() []string {
	var keys []string
	for _, header := range h.rec.Headers {
		keys = append(keys, header.Key)
	}
	return keys
}

// header is nil where the record has none.
func header(rec *stage.Record, key string) []byte {
	for i := range rec.Headers {
		if rec.Headers[i].Key == key {
			return rec.Headers[i].Value
		}
	}
	return nil
}

// withTrace gives those records that have no trace the one of ctx. It changes
// no record of the caller, and leaves one as it is that would become too large.
func (p *Publisher) withTrace(ctx context.Context, recs []stage.Record) []stage.Record {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return recs
	}
	recs = slices.Clone(recs)
	for i := range recs {
		if header(&recs[i], headerTraceparent) != nil {
			continue
		}
		traced := recs[i]
		propagation.TraceContext{}.Inject(ctx, headers{&traced})
		if recordSize(&traced) <= p.maxRecord(traced.Topic) {
			recs[i] = traced
		}
	}
	return recs
}

// oneTrace says whether all records are of the same span, and of none else.
func oneTrace(recs []stage.Record) bool {
	first := header(&recs[0], headerTraceparent)
	for i := range recs[1:] {
		if !bytes.Equal(header(&recs[1+i], headerTraceparent), first) {
			return false
		}
	}
	return first != nil
}

// start begins the span of one attempt at a batch. It is a child of the records'
// span where they have the same one; else it begins a trace, and links to theirs.
func (p *partition) start(work context.Context, in []stage.Record) (context.Context, trace.Span) {
	one := oneTrace(in)
	ctx := work
	if one {
		ctx = propagation.TraceContext{}.Extract(work, headers{&in[0]})
	}
	ctx, span := p.r.tracer.Start(ctx, "process "+p.id.topic, trace.WithSpanKind(trace.SpanKindConsumer))
	if !span.IsRecording() {
		return ctx, span
	}
	span.SetAttributes(
		attribute.String("messaging.system", "kafka"),
		attribute.String("messaging.operation.type", "process"),
		attribute.String("messaging.destination.name", p.id.topic),
		attribute.String("messaging.destination.partition.id", strconv.Itoa(p.id.id)),
		attribute.String("messaging.consumer.group.name", p.r.cfg.Group),
		attribute.Int("messaging.batch.message_count", len(in)),
		attribute.Int64("messaging.kafka.offset", in[0].Offset),
		attribute.String("hone.stage", p.r.cfg.Stage),
	)
	if one {
		return ctx, span
	}
	type spanID struct {
		trace trace.TraceID
		span  trace.SpanID
	}
	linked := map[spanID]bool{}
	for i := range in {
		if len(linked) == maxLinks {
			break
		}
		sc := trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), headers{&in[i]}))
		if id := (spanID{sc.TraceID(), sc.SpanID()}); sc.IsValid() && !linked[id] {
			linked[id] = true
			span.AddLink(trace.Link{SpanContext: sc})
		}
	}
	return ctx, span
}

// end ends a batch's span.
func end(span trace.Span, dead map[int]error, err error) {
	if err != nil {
		span.RecordError(err)
		span.SetStatus(codes.Error, "the batch failed")
	}
	if len(dead) > 0 {
		span.SetAttributes(attribute.Int("hone.dead_letters", len(dead)))
	}
	span.End()
}

// handOn gives outputs without a trace, where the inputs are of several, that of
// the last input with the same key. The publisher gives what is left the batch's.
func handOn(in, out []stage.Record) {
	if len(out) == 0 || oneTrace(in) {
		return
	}
	var byKey map[string]int
	for i := range out {
		if header(&out[i], headerTraceparent) != nil {
			continue
		}
		if byKey == nil {
			byKey = map[string]int{}
			for j := range in {
				if header(&in[j], headerTraceparent) != nil {
					byKey[string(in[j].Key)] = j
				}
			}
		}
		if len(byKey) == 0 {
			return
		}
		j, ok := byKey[string(out[i].Key)]
		if !ok {
			continue
		}
		for _, key := range []string{headerTraceparent, headerTracestate} {
			if value := header(&in[j], key); value != nil {
				headers{&out[i]}.Set(key, string(value))
			}
		}
	}
}
