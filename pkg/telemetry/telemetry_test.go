package telemetry_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	collectorv1 "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/honeloop/hone/pkg/telemetry"
)

// receiver is where traces are sent to.
type receiver struct {
	collectorv1.UnimplementedTraceServiceServer
	mu   sync.Mutex
	got  map[string]string // service of each span
	seen []string          // service.version
}

func (r *receiver) Export(_ context.Context, req *collectorv1.ExportTraceServiceRequest) (*collectorv1.ExportTraceServiceResponse, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, rs := range req.ResourceSpans {
		attrs := map[string]string{}
		for _, a := range rs.Resource.Attributes {
			attrs[a.Key] = a.Value.GetStringValue()
		}
		for _, ss := range rs.ScopeSpans {
			for _, s := range ss.Spans {
				r.got[s.Name] = attrs["service.name"]
				r.seen = append(r.seen, attrs["service.version"])
			}
		}
	}
	return &collectorv1.ExportTraceServiceResponse{}, nil
}

func (r *receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	var export collectorv1.ExportTraceServiceRequest
	if err != nil || req.URL.Path != "/v1/traces" || proto.Unmarshal(body, &export) != nil {
		http.Error(w, "not a trace", http.StatusBadRequest)
		return
	}
	_, _ = r.Export(req.Context(), &export) // it has no error
}

func TestTracesAreExported(t *testing.T) {
	for _, protocol := range []string{"", "http/protobuf", "grpc"} {
		t.Run(protocol, func(t *testing.T) {
			r := &receiver{got: map[string]string{}}
			var endpoint string
			if protocol == "grpc" {
				lis, err := net.Listen("tcp", "127.0.0.1:0")
				if err != nil {
					t.Fatal(err)
				}
				s := grpc.NewServer()
				collectorv1.RegisterTraceServiceServer(s, r)
				go func() { _ = s.Serve(lis) }() // ends with Stop
				t.Cleanup(s.Stop)
				endpoint = "http://" + lis.Addr().String()
			} else {
				s := httptest.NewServer(r)
				t.Cleanup(s.Close)
				endpoint = s.URL
			}
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
			t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
			tel, err := telemetry.New(io.Discard, slog.LevelInfo)
			if err != nil {
				t.Fatal(err)
			}
			if !tel.Tracing() {
				t.Fatal("no traces although an endpoint is set")
			}
			for _, service := range []string{"collector", "enricher"} {
				_, span := tel.Named(service).Tracer.Start(t.Context(), "work of "+service)
				span.End()
			}
			tel.Close()
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.got["work of collector"] != "hone-collector" || r.got["work of enricher"] != "hone-enricher" || len(r.seen) != 2 || r.seen[0] == "" {
				t.Errorf("received %v, versions %v", r.got, r.seen)
			}
		})
	}
}

func TestNoTracesUnlessAsked(t *testing.T) {
	for name, env := range map[string]map[string]string{
		"no endpoint": {},
		"disabled":    {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_SDK_DISABLED": "true"},
		"none":        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_TRACES_EXPORTER": "none"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "")
			for k, v := range env {
				t.Setenv(k, v)
			}
			tel := telemetry.Discard()
			if tel.Tracing() {
				t.Error("traces are exported")
			}
			_, span := tel.Tracer.Start(t.Context(), "x")
			if span.IsRecording() {
				t.Error("a span records")
			}
			tel.Close()
		})
	}
}

func TestUnknownProtocolIsSaid(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")
	if _, err := telemetry.New(io.Discard, slog.LevelInfo); err == nil || !strings.Contains(err.Error(), "http/json") {
		t.Errorf("error %v, want one that names the protocol", err)
	}
}

func TestLostTracesAreLogged(t *testing.T) {
	gone := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(gone.Close)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", gone.URL)
	var log bytes.Buffer
	tel, err := telemetry.New(&log, slog.LevelInfo)
	if err != nil {
		t.Fatal(err)
	}
	_, span := tel.Tracer.Start(t.Context(), "x")
	span.End()
	tel.Close()
	if !strings.Contains(log.String(), `"spans_lost":1`) {
		t.Errorf("logged %q", log.String())
	}
}

func TestLogLinesNameTheSpan(t *testing.T) {
	r := httptest.NewServer(&receiver{got: map[string]string{}})
	t.Cleanup(r.Close)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", r.URL)
	var log bytes.Buffer
	tel, err := telemetry.New(&log, slog.LevelInfo)
	if err != nil {
		t.Fatal(err)
	}
	ctx, span := tel.Tracer.Start(t.Context(), "x")
	tel.Named("router").Log.With("a", 1).InfoContext(ctx, "inside")
	tel.Log.InfoContext(t.Context(), "outside")
	span.End()
	tel.Close()
	dec := json.NewDecoder(&log)
	var inside, outside map[string]any
	if err := dec.Decode(&inside); err != nil {
		t.Fatal(err)
	}
	if err := dec.Decode(&outside); err != nil {
		t.Fatal(err)
	}
	sc := span.SpanContext()
	if inside["trace_id"] != sc.TraceID().String() || inside["span_id"] != sc.SpanID().String() || inside["service"] != "router" {
		t.Errorf("inside a span: %v", inside)
	}
	if _, ok := outside["trace_id"]; ok {
		t.Errorf("outside of one: %v", outside)
	}
}

func TestProcessMetrics(t *testing.T) {
	families, err := telemetry.Discard().Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, f := range families {
		names[f.GetName()] = true
	}
	for _, want := range []string{"go_goroutines", "process_cpu_seconds_total"} {
		if !names[want] {
			t.Errorf("no metric %s", want)
		}
	}
}
