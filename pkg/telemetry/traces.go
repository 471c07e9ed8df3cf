package telemetry

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// traces exports the spans of all services of a process. nil exports none.
type traces struct {
	processor sdktrace.SpanProcessor
}

// newTraces reads OpenTelemetry's environment variables. It is nil where no
// endpoint is set.
func newTraces(log *slog.Logger) (*traces, error) {
	if !tracesWanted() {
		return nil, nil
	}
	exporter, err := newExporter(log)
	if err != nil {
		return nil, err
	}
	// Bounded by OTEL_BSP_MAX_QUEUE_SIZE, 2,048 spans; beyond it spans are dropped.
	return &traces{processor: sdktrace.NewBatchSpanProcessor(exporter)}, nil
}

func tracesWanted() bool {
	if strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") || os.Getenv("OTEL_TRACES_EXPORTER") == "none" {
		return false
	}
	return os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") != "" || os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") != ""
}

func newExporter(log *slog.Logger) (sdktrace.SpanExporter, error) {
	protocol := os.Getenv("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
	if protocol == "" {
		protocol = os.Getenv("OTEL_EXPORTER_OTLP_PROTOCOL")
	}
	// The exporters connect when there is something to send.
	ctx := context.Background()
	var exporter sdktrace.SpanExporter
	var err error
	switch protocol {
	case "", "http/protobuf":
		exporter, err = otlptracehttp.New(ctx)
	case "grpc":
		exporter, err = otlptracegrpc.New(ctx)
	default:
		return nil, fmt.Errorf(`OTEL_EXPORTER_OTLP_PROTOCOL %q: want "http/protobuf" or "grpc"`, protocol)
	}
	if err != nil {
		return nil, err
	}
	return &reporting{SpanExporter: exporter, log: log}, nil
}

// provider makes tracers of one service.
func (t *traces) provider(service string) trace.TracerProvider {
	if t == nil {
		return noop.NewTracerProvider()
	}
	name := "hone-" + strings.TrimPrefix(service, "hone-")
	if service == "hone" {
		name = service
	}
	// OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES go before ours. Sampling is
	// OTEL_TRACES_SAMPLER's; the default takes all that have no parent.
	return sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(t.processor), sdktrace.WithResource(merged(
		attribute.String("service.name", name), attribute.String("service.version", version()))))
}

func merged(attrs ...attribute.KeyValue) *resource.Resource {
	ours := resource.NewSchemaless(attrs...)
	// Merging fails for schemas that differ; these have none.
	if r, err := resource.Merge(ours, resource.Environment()); err == nil {
		return r
	}
	return ours
}

// version is that of the module, or of the commit, that was built.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return "devel"
}

// reporting says in the log, at most once a minute, that spans are lost.
type reporting struct {
	sdktrace.SpanExporter
	log *slog.Logger

	mu       sync.Mutex
	reported time.Time
	lost     int
}

func (r *reporting) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	err := r.SpanExporter.ExportSpans(ctx, spans)
	if err == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lost += len(spans)
	if time.Since(r.reported) > time.Minute {
		r.log.Warn("cannot send traces", "spans_lost", r.lost, "error", err)
		r.reported, r.lost = time.Now(), 0
	}
	return nil // said here; the SDK would write it to standard error
}
