// Package telemetry carries a service's logger, meter and tracer.
package telemetry

import (
	"fmt"
	"io"
	"log/slog"

	"github.com/prometheus/client_golang/prometheus"
	otelprom "go.opentelemetry.io/otel/exporters/prometheus"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
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
	tracers trace.TracerProvider
}

// New makes the telemetry of a process that logs JSON lines to w.
func New(w io.Writer, level slog.Level) (*Telemetry, error) {
	registry := prometheus.NewRegistry()
	exporter, err := otelprom.New(otelprom.WithRegisterer(registry))
	if err != nil {
		return nil, fmt.Errorf("create metrics exporter: %w", err)
	}
	t := &Telemetry{
		base:     slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: level})),
		Registry: registry,
		meters:   sdkmetric.NewMeterProvider(sdkmetric.WithReader(exporter)),
		tracers:  noop.NewTracerProvider(),
	}
	return t.Named("hone"), nil
}

// Discard is telemetry for tests that look at none of it.
func Discard() *Telemetry {
	t, err := New(io.Discard, slog.LevelError)
	if err != nil {
		panic(err) // the options above cannot fail
	}
	return t
}

// Named is the telemetry of one service of the process: the same sinks under
// the service's name.
func (t *Telemetry) Named(service string) *Telemetry {
	named := *t
	named.Log = t.base.With("service", service)
	named.Meter = t.meters.Meter("github.com/honeloop/hone/" + service)
	named.Tracer = t.tracers.Tracer("github.com/honeloop/hone/" + service)
	return &named
}
