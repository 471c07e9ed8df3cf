package server

import (
	"net/http"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp"
	"go.opentelemetry.io/otel/metric/noop"
	"google.golang.org/grpc"

	"github.com/honeloop/hone/pkg/telemetry"
)

// traceOptions leave metrics out: ours have other names.
func traceOptions(tel *telemetry.Telemetry) []otelgrpc.Option {
	return []otelgrpc.Option{otelgrpc.WithTracerProvider(tel.TracerProvider()), otelgrpc.WithPropagators(tel.Propagator()),
		otelgrpc.WithMeterProvider(noop.NewMeterProvider())}
}

func traceServer(tel *telemetry.Telemetry) []grpc.ServerOption {
	if !tel.Tracing() {
		return nil
	}
	return []grpc.ServerOption{grpc.StatsHandler(otelgrpc.NewServerHandler(traceOptions(tel)...))}
}

// TraceClient makes a span of each call of a client, where traces are exported.
func TraceClient(tel *telemetry.Telemetry) []grpc.DialOption {
	if !tel.Tracing() {
		return nil
	}
	return []grpc.DialOption{grpc.WithStatsHandler(otelgrpc.NewClientHandler(traceOptions(tel)...))}
}

// TraceHTTP makes a span of each request, where traces are exported. A span is
// named by method alone, since paths hold ids.
func TraceHTTP(h http.Handler, tel *telemetry.Telemetry) http.Handler {
	if !tel.Tracing() {
		return h
	}
	return otelhttp.NewHandler(h, "", otelhttp.WithTracerProvider(tel.TracerProvider()), otelhttp.WithPropagators(tel.Propagator()),
		otelhttp.WithMeterProvider(noop.NewMeterProvider()),
		otelhttp.WithSpanNameFormatter(func(_ string, r *http.Request) string { return r.Method }),
		otelhttp.WithFilter(func(r *http.Request) bool { return r.URL.Path != "/healthz" && r.URL.Path != "/readyz" }))
}
