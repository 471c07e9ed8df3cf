package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"

	collectorv1 "github.com/honeloop/hone/proto/gen/go/hone/collector/v1"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
)

// Ways to send a session.
const (
	viaHTTP     = "http"
	viaGRPC     = "grpc"
	viaOTLP     = "otlp" // over HTTP, in protobuf
	viaOTLPGRPC = "otlp grpc"
)

// protocol is how a session is sent, by its seed. Those that are sent together
// are sent one way.
func (l load) protocol(session int) string {
	switch x := l.random(session/mixedSessions, 3).IntN(10); {
	case x < 4:
		return viaHTTP
	case x < 7:
		return viaGRPC
	case x < 9:
		return viaOTLP
	}
	return viaOTLPGRPC
}

// spans says whether a session's interactions are sent as spans. What users say
// has no place in OTLP, and comes over HTTP.
func (l load) spans(session int) bool {
	via := l.protocol(session)
	return via == viaOTLP || via == viaOTLPGRPC
}

// part is how many of events, at most n, go into one request, and how.
func (l load) part(via string, events []*eventv1.Event, n int) (string, int) {
	if via != viaOTLP && via != viaOTLPGRPC {
		return via, n
	}
	feedback := events[0].GetFeedback() != nil
	for i, e := range events[:n] {
		if (e.GetFeedback() != nil) != feedback {
			n = i
			break
		}
	}
	if feedback {
		return viaHTTP, n
	}
	return via, n
}

// errRefused means that the collector will never take an event, which is a
// finding: all events of a load are good.
var errRefused = errors.New("a good event was refused")

// offer sends events once. It returns which of them were accepted, nil where
// none was, and how long the collector wants to be left alone. An error is for
// good.
func (p *producer) offer(ctx context.Context, via string, events []*eventv1.Event) (accepted []bool, wait time.Duration, err error) {
	switch via {
	case viaHTTP:
		return p.http(ctx, events)
	case viaGRPC:
		return p.grpc(ctx, events)
	case viaOTLP:
		return p.otlp(ctx, events)
	}
	return p.otlpGRPC(ctx, events)
}

func (p *producer) http(ctx context.Context, events []*eventv1.Event) ([]bool, time.Duration, error) {
	body, err := encode(events)
	if err != nil {
		return nil, 0, err
	}
	text, wait, err := p.post(ctx, viaHTTP, "/v1/events", "application/json", body, http.StatusAccepted)
	if err != nil || text == nil {
		return nil, wait, err
	}
	var answer struct{ Results []result }
	if err := json.Unmarshal(text, &answer); err != nil || len(answer.Results) != len(events) {
		return nil, 0, fmt.Errorf("a 202 that nobody understands, for %d events: %w: %s", len(events), err, text)
	}
	accepted, err := taken(answer.Results)
	return accepted, 0, err
}

// result is the answer about one event.
type result struct {
	Error *struct{ Code, Message string }
}

func taken(results []result) ([]bool, error) {
	accepted := make([]bool, len(results))
	for i, r := range results {
		if r.Error == nil {
			accepted[i] = true
			continue
		}
		if r.Error.Code != "unavailable" && r.Error.Code != "resource_exhausted" {
			return nil, fmt.Errorf("%w: %s: %s", errRefused, r.Error.Code, r.Error.Message)
		}
	}
	return accepted, nil
}

func encode(events []*eventv1.Event) ([]byte, error) {
	b := []byte(`{"events":[`)
	for i, e := range events {
		if i > 0 {
			b = append(b, ',')
		}
		var err error
		if b, err = (protojson.MarshalOptions{UseProtoNames: true}).MarshalAppend(b, e); err != nil {
			return nil, err
		}
	}
	return append(b, `]}`...), nil
}

// post returns the body of an answer with status good, or nil and how long to
// wait. An error is for good.
func (p *producer) post(ctx context.Context, via, path, media string, body []byte, good int) (text []byte, wait time.Duration, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.url+path, bytes.NewReader(body))
	if err != nil {
		return nil, 0, err
	}
	req.Header.Set("Authorization", "Bearer "+p.key)
	req.Header.Set("Content-Type", media)
	began := time.Now()
	resp, err := p.client.Do(req)
	if err != nil {
		p.note(via, "no connection, or no answer", 0)
		return nil, 0, nil
	}
	defer resp.Body.Close()
	if text, err = io.ReadAll(resp.Body); err != nil {
		p.note(via, "half an answer", 0)
		return nil, 0, nil
	}
	p.note(via, strconv.Itoa(resp.StatusCode), time.Since(began))
	switch resp.StatusCode {
	case good:
		if text == nil {
			text = []byte{}
		}
		return text, 0, nil
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		after, _ := strconv.Atoi(resp.Header.Get("Retry-After")) // 0 where there is none
		return nil, time.Duration(after) * time.Second, nil
	}
	return nil, 0, fmt.Errorf("%w: %s: %s", errRefused, resp.Status, text)
}

func (p *producer) grpc(ctx context.Context, events []*eventv1.Event) ([]bool, time.Duration, error) {
	var resp *collectorv1.SendEventsResponse
	wait, err := p.call(ctx, viaGRPC, func(ctx context.Context) (err error) {
		resp, err = collectorv1.NewCollectorServiceClient(p.conn).SendEvents(ctx, &collectorv1.SendEventsRequest{Events: events})
		return err
	})
	if err != nil || resp == nil {
		return nil, wait, err
	}
	if len(resp.Results) != len(events) {
		return nil, 0, fmt.Errorf("an answer over gRPC that nobody understands, for %d events: %v", len(events), resp)
	}
	results := make([]result, len(events))
	for i, r := range resp.Results {
		if e := r.GetError(); e != nil {
			results[i].Error = &struct{ Code, Message string }{e.Code, e.Message}
		}
	}
	accepted, err := taken(results)
	return accepted, 0, err
}

// call does one call over gRPC. Where it may succeed later it returns how long to
// wait, and no error.
func (p *producer) call(ctx context.Context, via string, do func(context.Context) error) (wait time.Duration, err error) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+p.key), sendTimeout)
	defer cancel()
	err = do(ctx)
	answered := time.Since(began)
	code := status.Code(err)
	if code == codes.DeadlineExceeded {
		answered = 0 // there was none
	}
	p.note(via, code.String(), answered)
	return later(err)
}

// later says how long to wait after an answer that means that the same call may
// succeed; other errors stay.
func later(err error) (wait time.Duration, failed error) {
	s := status.Convert(err)
	switch s.Code() {
	case codes.Unavailable, codes.ResourceExhausted, codes.DeadlineExceeded:
	case codes.OK:
		return 0, nil
	default:
		return 0, fmt.Errorf("%w: %w", errRefused, err)
	}
	for _, d := range s.Details() {
		if retry, ok := d.(*errdetails.RetryInfo); ok {
			wait = retry.GetRetryDelay().AsDuration()
		}
	}
	return wait, nil
}

// dial connects as a client does that wants to be back soon after an outage.
func dial(addr string) (*grpc.ClientConn, error) {
	return grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 2, Jitter: 0.2, MaxDelay: time.Second}, MinConnectTimeout: 5 * time.Second}))
}

func (p *producer) otlp(ctx context.Context, events []*eventv1.Event) ([]bool, time.Duration, error) {
	req, err := export(events)
	if err != nil {
		return nil, 0, err
	}
	body, err := proto.Marshal(req)
	if err != nil {
		return nil, 0, err
	}
	text, wait, err := p.post(ctx, viaOTLP, "/v1/traces", "application/x-protobuf", body, http.StatusOK)
	if err != nil || text == nil {
		return nil, wait, err
	}
	var answer collectortrace.ExportTraceServiceResponse
	if err := proto.Unmarshal(text, &answer); err != nil {
		return nil, 0, fmt.Errorf("a 200 that nobody understands: %w", err)
	}
	return exported(&answer, len(events))
}

func (p *producer) otlpGRPC(ctx context.Context, events []*eventv1.Event) ([]bool, time.Duration, error) {
	req, err := export(events)
	if err != nil {
		return nil, 0, err
	}
	var answer *collectortrace.ExportTraceServiceResponse
	wait, err := p.call(ctx, viaOTLPGRPC, func(ctx context.Context) (err error) {
		answer, err = collectortrace.NewTraceServiceClient(p.conn).Export(ctx, req)
		return err
	})
	if err != nil || answer == nil {
		return nil, wait, err
	}
	return exported(answer, len(events))
}

// exported is what an answer to n good interactions must say: that all are safe.
func exported(answer *collectortrace.ExportTraceServiceResponse, n int) ([]bool, time.Duration, error) {
	if part := answer.GetPartialSuccess(); part.GetRejectedSpans() > 0 {
		return nil, 0, fmt.Errorf("%w: %s", errRefused, part.GetErrorMessage())
	}
	accepted := make([]bool, n)
	for i := range accepted {
		accepted[i] = true
	}
	return accepted, 0, nil
}

// export is interactions as spans by the conventions of OpenTelemetry: one for
// the model call, with one for each search and tool below it.
func export(events []*eventv1.Event) (*collectortrace.ExportTraceServiceRequest, error) {
	var spans []*tracev1.Span
	for _, e := range events {
		more, err := spansOf(e)
		if err != nil {
			return nil, err
		}
		spans = append(spans, more...)
	}
	resource := &tracev1.ResourceSpans{ScopeSpans: []*tracev1.ScopeSpans{{Spans: spans}}}
	return &collectortrace.ExportTraceServiceRequest{ResourceSpans: []*tracev1.ResourceSpans{resource}}, nil
}

func spansOf(e *eventv1.Event) ([]*tracev1.Span, error) {
	var failed error
	text := func(v any) string {
		b, err := json.Marshal(v)
		failed = errors.Join(failed, err)
		return string(b)
	}
	type part struct {
		Type    string `json:"type"`
		Content string `json:"content"`
	}
	message := func(role, s string) string {
		return text([]struct {
			Role  string `json:"role"`
			Parts []part `json:"parts"`
		}{{role, []part{{"text", s}}}})
	}
	x := e.GetInteraction()
	// A span that is sent again has the same ids.
	trace := make([]byte, 16)
	copy(trace, e.SessionId)
	end := uint64(e.OccurredAt.AsTime().UnixNano())
	span := func(number byte, name string, took uint32, attributes ...*commonv1.KeyValue) *tracev1.Span {
		id := make([]byte, 8)
		id[0] = number
		copy(id[1:], e.InteractionId)
		return &tracev1.Span{TraceId: trace, SpanId: id, Name: name, StartTimeUnixNano: end - uint64(took)*1e6, EndTimeUnixNano: end, Attributes: attributes}
	}
	call := span(1, "chat", x.LatencyMs,
		str("gen_ai.operation.name", "chat"), str("gen_ai.conversation.id", e.SessionId), str("gen_ai.response.id", e.InteractionId),
		str("user.id", e.UserId), str("enduser.role", e.UserRole), str("deployment.environment.name", e.Environment),
		str("gen_ai.request.model", x.Model), str("gen_ai.response.model", x.ModelVersion), str("gen_ai.prompt.version", x.PromptVersion),
		str("gen_ai.system_instructions", text([]part{{"text", x.SystemContext}})),
		str("gen_ai.input.messages", message("user", x.Query)), str("gen_ai.output.messages", message("assistant", x.Output)),
		num("gen_ai.usage.input_tokens", x.InputTokens), num("gen_ai.usage.output_tokens", x.OutputTokens), str("gen_ai.response.finish_reasons", text([]string{x.FinishReason})))
	out := []*tracev1.Span{call}
	for _, r := range x.Retrieved {
		out = append(out, span(2, "search", 0, str("gen_ai.operation.name", "retrieval"),
			str("gen_ai.retrieval.documents", text([]map[string]any{{"id": r.Source, "content": r.Text, "score": r.GetScore()}}))))
	}
	for _, t := range x.Tools {
		out = append(out, span(3, t.Name, t.LatencyMs, str("gen_ai.operation.name", "execute_tool"), str("gen_ai.tool.name", t.Name),
			str("gen_ai.tool.call.arguments", t.Arguments), str("gen_ai.tool.call.result", t.Result)))
	}
	for _, s := range out[1:] {
		s.ParentSpanId = call.SpanId
	}
	return out, failed
}

func str(key, value string) *commonv1.KeyValue {
	return &commonv1.KeyValue{Key: key, Value: &commonv1.AnyValue{Value: &commonv1.AnyValue_StringValue{StringValue: value}}}
}

func num(key string, value uint32) *commonv1.KeyValue {
	return &commonv1.KeyValue{Key: key, Value: &commonv1.AnyValue{Value: &commonv1.AnyValue_IntValue{IntValue: int64(value)}}}
}

// spoken is an interaction as far as spans tell it, without what the receiver
// makes up, such as tags and the event's id.
func spoken(e *eventv1.Event) *eventv1.Event {
	e = proto.CloneOf(e)
	e.EventId, e.Tags = "", nil
	if x := e.GetInteraction(); x != nil {
		x.Language = ""
	}
	return e
}
