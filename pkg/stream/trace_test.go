package stream_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/stream/streamtest"
	"github.com/honeloop/hone/pkg/telemetry"
)

// traceparent is of the n-th trace.
func traceparent(n int) string {
	return fmt.Sprintf("00-%032x-%016x-01", n, n)
}

func traced(rec stage.Record, n int) stage.Record {
	rec.Headers = []stage.Header{{Key: "traceparent", Value: []byte(traceparent(n))}, {Key: "tracestate", Value: fmt.Appendf(nil, "vendor=%d", n)}}
	return rec
}

func headerOf(rec stage.Record, key string) string {
	for _, h := range rec.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}

// plain makes an output of each input, without headers.
func plain(_ context.Context, in []stage.Record) ([]stage.Record, error) {
	out := make([]stage.Record, len(in))
	for i, rec := range in {
		out[i] = stage.Record{Topic: stream.TopicSignals, Key: rec.Key, Value: rec.Value}
	}
	return out, nil
}

// runTraced processes the records as one batch and returns the spans.
func runTraced(t *testing.T, b *streamtest.Broker, st stage.Stage, tracing bool, recs ...stage.Record) tracetest.SpanStubs {
	t.Helper()
	exporter := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))
	tel := telemetry.Discard()
	if tracing {
		tel.Tracer = provider.Tracer("test")
	}
	b.Write(t, recs...)
	pub := newPublisher(t, b.Config())
	r, err := stream.NewRunner(runnerConfig(stream.TopicEvents), b.Config(), st, pub, tel)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- r.Run(ctx) }()
	eventually(t, "commit", func() bool { return committed(t, b, stream.TopicEvents, 0) == int64(len(recs)) })
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	return exporter.GetSpans()
}

func TestTraceGoesOnThroughABatchOfOneTrace(t *testing.T) {
	b := streamtest.StartBroker(t, streamtest.Partitions(1))
	var inside atomic.Value
	spans := runTraced(t, b, stage.Func(func(ctx context.Context, in []stage.Record) ([]stage.Record, error) {
		inside.Store(trace.SpanContextFromContext(ctx).SpanID().String())
		return plain(ctx, in)
	}), true, traced(event("a", 0), 7), traced(event("b", 0), 7))
	if len(spans) != 1 {
		t.Fatalf("%d spans, want 1", len(spans))
	}
	s := spans[0]
	if s.Name != "process hone.events" || s.SpanKind != trace.SpanKindConsumer || len(s.Links) != 0 ||
		s.Parent.TraceID().String() != traceparent(7)[3:35] || s.Parent.SpanID().String() != traceparent(7)[36:52] {
		t.Errorf("span %s of %s below %s with %d links, want a child of the records' span", s.Name, s.SpanKind, s.Parent.SpanID(), len(s.Links))
	}
	if inside.Load() != s.SpanContext.SpanID().String() {
		t.Errorf("the stage ran in span %v, want %s", inside.Load(), s.SpanContext.SpanID())
	}
	attributes := fmt.Sprint(s.Attributes)
	for _, want := range []string{"hone.events", "hone-test", "messaging.batch.message_count"} {
		if !strings.Contains(attributes, want) {
			t.Errorf("attributes %s lack %s", attributes, want)
		}
	}
	for _, rec := range b.Read(t, stream.TopicSignals, 2) {
		want := fmt.Sprintf("00-%s-%s-01", s.SpanContext.TraceID(), s.SpanContext.SpanID())
		if got := headerOf(rec, "traceparent"); got != want {
			t.Errorf("output has %s, want the batch's span, %s", got, want)
		}
		if got := headerOf(rec, "tracestate"); got != "vendor=7" {
			t.Errorf("output has tracestate %q, want vendor=7", got)
		}
	}
}

func TestTraceOfABatchOfManyTraces(t *testing.T) {
	b := streamtest.StartBroker(t, streamtest.Partitions(1))
	spans := runTraced(t, b, stage.Func(func(ctx context.Context, in []stage.Record) ([]stage.Record, error) {
		out, err := plain(ctx, in)
		for i := range out {
			switch string(in[i].Key) {
			case "c":
				out[i].Headers = []stage.Header{{Key: "traceparent", Value: []byte(traceparent(99))}}
			case "d":
				out[i].Key = []byte("other")
			}
		}
		return out, err
	}), true, traced(event("a", 0), 1), traced(event("b", 0), 2), traced(event("c", 0), 3), traced(event("d", 0), 2), event("e", 0))
	if len(spans) != 1 {
		t.Fatalf("%d spans, want 1", len(spans))
	}
	s := spans[0]
	var links []string
	for _, l := range s.Links {
		links = append(links, l.SpanContext.TraceID().String()[31:])
	}
	if s.Parent.IsValid() || fmt.Sprint(links) != "[1 2 3]" {
		t.Errorf("parent %s, links %v, want none and one to each trace", s.Parent.SpanID(), links)
	}
	batch := fmt.Sprintf("00-%s-%s-01", s.SpanContext.TraceID(), s.SpanContext.SpanID())
	want := map[string]string{"a": traceparent(1), "b": traceparent(2), "c": traceparent(99), "other": batch, "e": batch}
	for _, rec := range b.Read(t, stream.TopicSignals, 5) {
		if got := headerOf(rec, "traceparent"); got != want[string(rec.Key)] {
			t.Errorf("output of %s has %s, want %s", rec.Key, got, want[string(rec.Key)])
		}
	}
}

func TestTraceGoesOnWithoutTracing(t *testing.T) {
	b := streamtest.StartBroker(t, streamtest.Partitions(1))
	runTraced(t, b, stage.Func(plain), false, traced(event("a", 0), 1), traced(event("b", 0), 2), event("c", 0))
	want := map[string]string{"a": traceparent(1), "b": traceparent(2), "c": ""}
	for _, rec := range b.Read(t, stream.TopicSignals, 3) {
		if got := headerOf(rec, "traceparent"); got != want[string(rec.Key)] {
			t.Errorf("output of %s has %q, want %q", rec.Key, got, want[string(rec.Key)])
		}
	}
}

func TestTraceTellsOfFailure(t *testing.T) {
	b := streamtest.StartBroker(t, streamtest.Partitions(1))
	failed := false
	spans := runTraced(t, b, stage.Func(func(ctx context.Context, in []stage.Record) ([]stage.Record, error) {
		if !failed {
			failed = true
			return nil, errors.New("store is away")
		}
		return plain(ctx, in)
	}), true, traced(event("a", 0), 1))
	if len(spans) != 2 || spans[0].Status.Code != codes.Error || spans[1].Status.Code != codes.Unset {
		t.Errorf("got %d spans, want one that failed and one that did not", len(spans))
	}
}

func TestPublishInjectsTheTrace(t *testing.T) {
	b := streamtest.StartBroker(t, streamtest.Partitions(1))
	provider := sdktrace.NewTracerProvider()
	ctx, span := provider.Tracer("test").Start(context.Background(), "request")
	defer span.End()
	cfg := b.Config()
	cfg.MaxRecordBytes = 200
	full := stage.Record{Topic: stream.TopicEvents, Value: make([]byte, 200)} // has no room
	recs := []stage.Record{event("a", 0), traced(event("a", 1), 5), full}
	if err := newPublisher(t, cfg).Publish(ctx, recs...); err != nil {
		t.Fatal(err)
	}
	if len(recs[0].Headers) != 0 {
		t.Error("the caller's record was changed")
	}
	own := fmt.Sprintf("00-%s-%s-01", span.SpanContext().TraceID(), span.SpanContext().SpanID())
	for i, want := range []string{own, traceparent(5), ""} {
		if got := headerOf(b.Read(t, stream.TopicEvents, 3)[i], "traceparent"); got != want {
			t.Errorf("record %d has %q, want %q", i, got, want)
		}
	}
}
