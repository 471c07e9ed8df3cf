package collector

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	collectorlogs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	logsv1 "go.opentelemetry.io/proto/otlp/logs/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	grpcgzip "google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/services/collector/internal/otlp"
)

func attr(key, value string) *commonv1.KeyValue {
	return &commonv1.KeyValue{Key: key, Value: &commonv1.AnyValue{Value: &commonv1.AnyValue_StringValue{StringValue: value}}}
}

// exportOf has a model call of a session, and a plain span.
func exportOf(session string) *collectortrace.ExportTraceServiceRequest {
	trace := bytes.Repeat([]byte{7}, 16)
	return &collectortrace.ExportTraceServiceRequest{ResourceSpans: []*tracev1.ResourceSpans{{ScopeSpans: []*tracev1.ScopeSpans{{Spans: []*tracev1.Span{
		{
			TraceId: trace, SpanId: bytes.Repeat([]byte{1}, 8), Name: "chat", StartTimeUnixNano: 1760000000000000000, EndTimeUnixNano: 1760000001000000000,
			Attributes: []*commonv1.KeyValue{attr("gen_ai.operation.name", "chat"), attr("gen_ai.request.model", "m"), attr("gen_ai.response.id", "r1"), attr("session.id", session),
				attr("gen_ai.input.messages", `[{"role":"user","parts":[{"type":"text","content":"q"}]}]`), attr("gen_ai.output.messages", `[{"role":"assistant","parts":[{"type":"text","content":"a"}]}]`)},
		},
		{TraceId: trace, SpanId: bytes.Repeat([]byte{2}, 8), Name: "GET /"},
	}}}}}}
}

func marshal(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func zipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, err := w.Write(b)
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func (f *fixture) export(path string, body []byte, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodPost, path, bytes.NewReader(body))
	r.Header.Set("Authorization", "Bearer "+f.secret)
	r.Header.Set("Content-Type", "application/x-protobuf")
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	f.handler.ServeHTTP(w, r)
	return w
}

func TestOTLPOverHTTPPublishesBeforeItAnswers(t *testing.T) {
	const asJSON = `{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"07070707070707070707070707070707","spanId":"0101010101010101","name":"chat","startTimeUnixNano":"1760000000000000000","endTimeUnixNano":1760000001000000000,
		"attributes":[{"key":"gen_ai.request.model","value":{"stringValue":"m"}},{"key":"gen_ai.response.id","value":{"stringValue":"r1"}},{"key":"session.id","value":{"stringValue":"s"}},
		{"key":"gen_ai.input.messages","value":{"stringValue":"[{\"role\":\"user\",\"content\":\"q\"}]"}},{"key":"gen_ai.output.messages","value":{"stringValue":"a"}}]}]}]}]}`
	whole := marshal(t, exportOf("s"))
	for _, tt := range []struct {
		name   string
		body   []byte
		header []string
		media  string
	}{
		{"protobuf", whole, nil, "application/x-protobuf"},
		{"protobuf in gzip", zipped(t, whole), []string{"Content-Encoding", "gzip"}, "application/x-protobuf"},
		{"protobuf in zstd", []byte(packed(t, "zstd", whole)), []string{"Content-Encoding", "zstd"}, "application/x-protobuf"},
		{"JSON", []byte(asJSON), []string{"Content-Type", "application/json; charset=utf-8"}, "application/json"},
		{"JSON in gzip", zipped(t, []byte(asJSON)), []string{"Content-Type", "application/json", "Content-Encoding", "gzip"}, "application/json"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFixture(t, nil)
			w := f.export("/v1/traces", tt.body, tt.header...)
			if w.Code != http.StatusOK || w.Header().Get("Content-Type") != tt.media {
				t.Fatalf("got %d %v %s", w.Code, w.Header(), w.Body)
			}
			answer := new(collectortrace.ExportTraceServiceResponse)
			err := proto.Unmarshal(w.Body.Bytes(), answer)
			if tt.media == "application/json" {
				err = protojson.Unmarshal(w.Body.Bytes(), answer)
			}
			if err != nil || answer.PartialSuccess != nil {
				t.Errorf("got %v, %v, want whole success: plain spans are not rejected", answer, err)
			}
			got := f.memory.events(t)
			if len(got) != 1 || got[0].Source != "otlp" || got[0].ProjectId != "p" || got[0].SessionId != "s" || got[0].InteractionId != "r1" ||
				got[0].GetInteraction().Query != "q" || got[0].GetInteraction().Output != "a" || got[0].ReceivedAt == nil {
				t.Errorf("got %v", got)
			}
			if again := f.export("/v1/traces", tt.body, tt.header...); again.Code != http.StatusOK || f.memory.events(t)[1].EventId != got[0].EventId {
				t.Error("sending it again makes another event")
			}
		})
	}
}

func TestOTLPAnswersPartialSuccessForGenAIThatIsRejected(t *testing.T) {
	f := newFixture(t, nil)
	bad, good := exportOf("no spaces in ids"), exportOf("s")
	good.ResourceSpans[0].ScopeSpans[0].Spans[0].SpanId = bytes.Repeat([]byte{3}, 8)
	bad.ResourceSpans = append(bad.ResourceSpans, good.ResourceSpans...)
	w := f.export("/v1/traces", marshal(t, bad))
	answer := new(collectortrace.ExportTraceServiceResponse)
	if err := proto.Unmarshal(w.Body.Bytes(), answer); err != nil || w.Code != http.StatusOK {
		t.Fatalf("got %d, %v", w.Code, err)
	}
	if p := answer.GetPartialSuccess(); p.GetRejectedSpans() != 1 || !strings.Contains(p.GetErrorMessage(), "session_id") {
		t.Errorf("got %v", answer)
	}
	logs := &collectorlogs.ExportLogsServiceRequest{ResourceLogs: []*logsv1.ResourceLogs{{ScopeLogs: []*logsv1.ScopeLogs{{LogRecords: []*logsv1.LogRecord{
		{EventName: "gen_ai.evaluation.result", Attributes: []*commonv1.KeyValue{attr("gen_ai.evaluation.name", "x"), attr("gen_ai.evaluation.score.label", "pass"), attr("gen_ai.response.id", "r1"), attr("gen_ai.conversation.id", "s")}},
		{EventName: "gen_ai.evaluation.result"},
		{EventName: "http.request"},
	}}}}}}
	w = f.export("/v1/logs", marshal(t, logs))
	logAnswer := new(collectorlogs.ExportLogsServiceResponse)
	if err := proto.Unmarshal(w.Body.Bytes(), logAnswer); err != nil || w.Code != http.StatusOK {
		t.Fatalf("got %d, %v", w.Code, err)
	}
	if p := logAnswer.GetPartialSuccess(); p.GetRejectedLogRecords() != 1 || p.GetErrorMessage() == "" {
		t.Errorf("got %v", logAnswer)
	}
	if got := f.memory.events(t); len(got) != 2 || got[0].SessionId != "s" || got[1].GetFeedback().GetThumb() != "up" {
		t.Errorf("got %v", got)
	}
}

func TestOTLPRefusesWhatItCannotRead(t *testing.T) {
	f := newFixture(t, func(cfg *Config) { cfg.MaxBody = 64 << 10 })
	bomb := zipped(t, make([]byte, 1<<20))
	for _, tt := range []struct {
		name   string
		body   []byte
		header []string
		want   int
	}{
		{"not protobuf", []byte("hello"), nil, 400},
		{"protobuf cut short", marshal(t, exportOf("s"))[:50], nil, 400},
		{"not JSON", []byte("{"), []string{"Content-Type", "application/json"}, 400},
		{"no body as JSON", nil, []string{"Content-Type", "application/json"}, 400},
		{"ids in base64", []byte(`{"resourceSpans":[{"scopeSpans":[{"spans":[{"spanId":"AQEBAQEBAQE="}]}]}]}`), []string{"Content-Type", "application/json"}, 400},
		{"text", []byte("a"), []string{"Content-Type", "text/plain"}, 415},
		{"brotli", []byte("a"), []string{"Content-Encoding", "br"}, 415},
		{"not zstd", []byte("a"), []string{"Content-Encoding", "zstd"}, 400},
		{"a bomb of zstd", []byte(packed(t, "zstd", make([]byte, 1<<20))), []string{"Content-Encoding", "zstd"}, 413},
		{"not gzip", []byte("hello, hello, hello"), []string{"Content-Encoding", "gzip"}, 400},
		{"gzip cut short", zipped(t, marshal(t, exportOf("s")))[:40], []string{"Content-Encoding", "gzip"}, 400},
		{"a bomb", bomb, []string{"Content-Encoding", "gzip"}, 413},
		{"too large", make([]byte, 65<<10), nil, 413},
		{"no key", nil, []string{"Authorization", ""}, 401},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := f.export("/v1/traces", tt.body, tt.header...)
			st := new(statuspb.Status)
			err := proto.Unmarshal(w.Body.Bytes(), st)
			if w.Header().Get("Content-Type") == "application/json" {
				err = protojson.Unmarshal(w.Body.Bytes(), st)
			}
			if w.Code != tt.want || err != nil || st.Code == 0 || st.Message == "" {
				t.Errorf("got %d %s (%v), want %d with a status", w.Code, w.Body, err, tt.want)
			}
		})
	}
	if r := httptest.NewRequest(http.MethodGet, "/v1/traces", nil); true {
		w := httptest.NewRecorder()
		f.handler.ServeHTTP(w, r)
		if w.Code != http.StatusMethodNotAllowed || w.Header().Get("Allow") == "" {
			t.Errorf("GET: got %d", w.Code)
		}
	}
	if got := f.memory.events(t); len(got) != 0 {
		t.Errorf("got %v", got)
	}
	if w := f.export("/v1/traces", nil); w.Code != http.StatusOK {
		t.Errorf("an empty export: got %d", w.Code)
	}
}

func TestOTLPIsRetryableWhileKafkaIsAway(t *testing.T) {
	f := newFixture(t, nil)
	f.memory.do = func(context.Context, []stage.Record) error { return errors.New("away") }
	w := f.export("/v1/traces", marshal(t, exportOf("s")))
	if w.Code != http.StatusServiceUnavailable || w.Header().Get("Retry-After") == "" {
		t.Errorf("got %d, Retry-After %q", w.Code, w.Header().Get("Retry-After"))
	}
	conn := serveGRPC(t, f)
	_, err := collectortrace.NewTraceServiceClient(conn).Export(withKey(t, f.secret), exportOf("s"))
	retry := false
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok && info.GetRetryDelay().AsDuration() > 0 {
			retry = true
		}
	}
	if status.Code(err) != codes.Unavailable || !retry {
		t.Errorf("got %v", err)
	}
}

// An exporter never sends again what is rejected in a partial success.
func TestOTLPIsRetryableBeyondAKeysRate(t *testing.T) {
	f := newFixture(t, func(cfg *Config) {
		cfg.Limits.Batch = 1
		cfg.Rate = RateConfig{Secret: 1, Publishable: 1, Burst: time.Second}
	})
	now := time.Now()
	f.handler.intake.now = func() time.Time { return now }
	if w := f.export("/v1/traces", marshal(t, exportOf("s"))); w.Code != http.StatusOK {
		t.Fatalf("got %d", w.Code)
	}
	if w := f.export("/v1/traces", marshal(t, exportOf("s"))); w.Code != http.StatusTooManyRequests || w.Header().Get("Retry-After") != "1" {
		t.Errorf("got %d, Retry-After %q", w.Code, w.Header().Get("Retry-After"))
	}
	_, err := collectortrace.NewTraceServiceClient(serveGRPC(t, f)).Export(withKey(t, f.secret), exportOf("s"))
	if st := status.Convert(err); st.Code() != codes.ResourceExhausted || len(st.Details()) != 1 {
		t.Errorf("gRPC: %v", err)
	}
	now = now.Add(time.Second)
	if w := f.export("/v1/traces", marshal(t, exportOf("s"))); w.Code != http.StatusOK {
		t.Errorf("after the wait: got %d", w.Code)
	}
}

func TestOTLPOverGRPC(t *testing.T) {
	f := newFixture(t, func(cfg *Config) { cfg.MaxBody = 64 << 10 })
	conn := serveGRPC(t, f)
	traces, logs := collectortrace.NewTraceServiceClient(conn), collectorlogs.NewLogsServiceClient(conn)
	for _, key := range []string{f.secret, f.publishable} {
		if answer, err := traces.Export(withKey(t, key), exportOf("s"), grpc.UseCompressor(grpcgzip.Name)); err != nil || answer.GetPartialSuccess() != nil {
			t.Errorf("got %v, %v", answer, err)
		}
	}
	if answer, err := logs.Export(withKey(t, f.secret), &collectorlogs.ExportLogsServiceRequest{ResourceLogs: []*logsv1.ResourceLogs{{ScopeLogs: []*logsv1.ScopeLogs{{
		LogRecords: []*logsv1.LogRecord{{EventName: "gen_ai.evaluation.result"}},
	}}}}}); err != nil || answer.GetPartialSuccess().GetRejectedLogRecords() != 1 {
		t.Errorf("got %v, %v", answer, err)
	}
	if got := f.memory.events(t); len(got) != 2 || got[0].EventId != got[1].EventId || got[0].GetInteraction().Query != "q" || got[0].Source != "otlp" {
		t.Errorf("got %v", got)
	}
	if _, err := traces.Export(t.Context(), exportOf("s")); status.Code(err) != codes.Unauthenticated {
		t.Errorf("without a key: %v", err)
	}
	large := exportOf("s")
	large.ResourceSpans[0].ScopeSpans[0].Spans[1].Name = strings.Repeat("x", 64<<10)
	if _, err := traces.Export(withKey(t, f.secret), large); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a large message: %v", err)
	}
	// Bytes that are no message, sent as the body of one.
	raw := &collectortrace.ExportTraceServiceRequest{}
	raw.ProtoReflect().SetUnknown([]byte{0x0a, 0x02, 0xff, 0xff})
	if _, err := traces.Export(withKey(t, f.secret), raw); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a broken message: %v", err)
	}
}

// The exporters are those that services use; nothing of them is replaced.
func TestTheGoSDKsExportersAreUnderstood(t *testing.T) {
	f := newFixture(t, nil)
	conn := serveGRPC(t, f)
	web := httptest.NewServer(f.handler)
	t.Cleanup(web.Close)
	headers := map[string]string{"Authorization": "Bearer " + f.secret}
	for _, tt := range []struct {
		name   string
		client otlptrace.Client
	}{
		{"HTTP", otlptracehttp.NewClient(otlptracehttp.WithEndpointURL(web.URL+otlp.TracesPath), otlptracehttp.WithHeaders(headers), otlptracehttp.WithCompression(otlptracehttp.GzipCompression))},
		{"gRPC", otlptracegrpc.NewClient(otlptracegrpc.WithGRPCConn(conn), otlptracegrpc.WithHeaders(headers), otlptracegrpc.WithCompressor("gzip"))},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := len(f.memory.events(t))
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			exporter, err := otlptrace.New(ctx, tt.client)
			if err != nil {
				t.Fatal(err)
			}
			provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter),
				sdktrace.WithResource(resource.NewSchemaless(attribute.String("service.name", "shop"), attribute.String("deployment.environment.name", "prod"))))
			tracer := provider.Tracer("test")
			rctx, root := tracer.Start(ctx, "POST /chat")
			_, search := tracer.Start(rctx, "search")
			search.SetAttributes(attribute.String("openinference.span.kind", "RETRIEVER"), attribute.String("retrieval.documents.0.document.id", "d1"), attribute.Float64("retrieval.documents.0.document.score", 0.5))
			search.End()
			_, chat := tracer.Start(rctx, "chat m")
			chat.SetAttributes(attribute.String("gen_ai.operation.name", "chat"), attribute.String("gen_ai.request.model", "m"), attribute.String("gen_ai.conversation.id", "c"),
				attribute.StringSlice("gen_ai.response.finish_reasons", []string{"stop"}), attribute.Int("gen_ai.usage.input_tokens", 3),
				attribute.String("gen_ai.input.messages", `[{"role":"user","parts":[{"type":"text","content":"q"}]}]`))
			chat.End()
			root.End()
			if err := provider.Shutdown(ctx); err != nil {
				t.Fatalf("the exporter: %v", err)
			}
			got := f.memory.events(t)[before:]
			if len(got) != 1 {
				t.Fatalf("got %v", got)
			}
			e, x := got[0], got[0].GetInteraction()
			if e.SessionId != "c" || e.Environment != "prod" || e.Tags["service.name"] != "shop" || e.InteractionId != chat.SpanContext().SpanID().String() ||
				x.Query != "q" || x.FinishReason != "stop" || x.InputTokens != 3 || len(x.Retrieved) != 1 || x.Retrieved[0].Source != "d1" {
				t.Errorf("got %v", e)
			}
		})
	}
}

func TestOTLPFromABrowser(t *testing.T) {
	f := newFixture(t, nil)
	r := httptest.NewRequest(http.MethodOptions, "/v1/traces", nil)
	r.Header.Set("Origin", "https://shop.example")
	w := httptest.NewRecorder()
	f.handler.ServeHTTP(w, r)
	if w.Code != http.StatusNoContent || w.Header().Get("Access-Control-Allow-Origin") != "https://shop.example" {
		t.Errorf("preflight: got %d %v", w.Code, w.Header())
	}
	for origin, want := range map[string]int{"https://shop.example": 200, "https://other.example": 403} {
		w := f.export("/v1/traces", marshal(t, exportOf("s")), "Authorization", "Bearer "+f.publishable, "Origin", origin)
		if w.Code != want {
			body, _ := io.ReadAll(w.Body)
			t.Errorf("%s: got %d %s", origin, w.Code, body)
		}
	}
}
