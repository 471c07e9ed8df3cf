// Package telemetry carries a service's logger, meter and tracer.
package telemetry

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/propagation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/trace"
)

// Telemetry is handed to every service and never nil.
type Telemetry struct {
	Log    *slog.Logger
	Meter  metric.Meter
	Tracer trace.Tracer
	// Registry holds the process's metrics for /metrics.
	Registry *prometheus.Registry

	base    *slog.Logger // without a service's name
	meters  metric.MeterProvider
	traces  *traces
	tracers trace.TracerProvider // of this service
}

// New makes the telemetry of a process that logs JSON lines to w. It exports
// traces where the environment names an OTLP endpoint; Close sends the last.
func New(w io.Writer, level slog.Level) (*Telemetry, error) {
	base := slog.New(withTrace{slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})})
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	exporter, err := otelprom.New(otelprom.WithRegisterer(registry))
	if err != nil {
		return nil, fmt.Errorf("create metrics exporter: %w", err)
	}
	traces, err := newTraces(base)
	if err != nil {
		return nil, fmt.Errorf("create trace exporter: %w", err)
	}
	t := &Telemetry{
		base:     base,
		Registry: registry,
		meters:   sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter)),
		traces:   traces,
	}
	return t.Named("hone"), nil
}

// Discard is telemetry for tests that look at none of it.
func Discard() *Telemetry {
	t, err := New(io.Discard, slog.LevelError)
	if err != nil {
		panic(err) // only a wrong OTEL_ variable can make it fail
	}
	return t
}

// Named is the telemetry of one service of the process: the same sinks under
// the service's name.
func (t *Telemetry) Named(service string) *Telemetry {
	named := *t
	named.Log = t.base.With("service", service)
	named.Meter = t.meters.Meter("github.com/honeloop/hone/" + service)
	named.tracers = t.traces.provider(service)
	named.Tracer = named.tracers.Tracer("github.com/honeloop/hone/" + service)
	return &named
}

// Tracing says whether traces are exported. Where they are not, instruments may
// leave themselves out.
func (t *Telemetry) Tracing() bool { return t.traces != nil }

// TracerProvider makes tracers for libraries.
func (t *Telemetry) TracerProvider() trace.TracerProvider { return t.tracers }

// Propagator is how a trace goes from process to process: W3C traceparent.
func (t *Telemetry) Propagator() propagation.TextMapPropagator { return propagation.TraceContext{} }

// closeTimeout bounds Close.
const closeTimeout = 2 * time.Second

// Close sends the traces that wait, for at most 2 s. What cannot be sent is
// logged. It is called once, when the services have stopped.
func (t *Telemetry) Close() {
	if t.traces == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	if err := t.traces.processor.Shutdown(ctx); err != nil {
		t.Log.Warn("cannot send the last traces", "error", err)
	}
}

// withTrace adds the ids of the span in a record's context.
type withTrace struct{ slog.Handler }

func (h withTrace) Handle(ctx context.Context, r slog.Record) error {
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		r.AddAttrs(slog.String("trace_id", span.TraceID().String()), slog.String("span_id", span.SpanID().String()))
	}
	return h.Handler.Handle(ctx, r)
}

func (h withTrace) WithAttrs(attrs []slog.Attr) slog.Handler {
	return withTrace{h.Handler.WithAttrs(attrs)}
}

func (h withTrace) WithGroup(name string) slog.Handler { return withTrace{h.Handler.WithGroup(name)} }
