package collector

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/honeloop/hone/pkg/auth"
	"github.com/honeloop/hone/pkg/stage"
	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	collectorv1 "github.com/honeloop/hone/proto/gen/go/hone/collector/v1"
	curationv1 "github.com/honeloop/hone/proto/gen/go/hone/curation/v1"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	policyv1 "github.com/honeloop/hone/proto/gen/go/hone/policy/v1"
	recallv1 "github.com/honeloop/hone/proto/gen/go/hone/recall/v1"
	trailv1 "github.com/honeloop/hone/proto/gen/go/hone/trail/v1"
	"github.com/honeloop/hone/services/collector/internal/apierr"
)

// upstream is a gRPC server with a little of every service, which checks keys
// as the real ones do.
type upstream struct {
	trailv1.UnimplementedTrailServiceServer
	recallv1.UnimplementedRecallServiceServer
	casesv1.UnimplementedCaseServiceServer
	curationv1.UnimplementedReviewServiceServer
	curationv1.UnimplementedDatasetServiceServer
	policyv1.UnimplementedPolicyServiceServer
}

func (upstream) GetSession(ctx context.Context, in *trailv1.GetSessionRequest) (*trailv1.GetSessionResponse, error) {
	project, err := auth.Project(ctx)
	if err != nil {
		return nil, err
	}
	if in.GetSessionId() == "none" {
		return nil, status.Error(codes.NotFound, "there is no such session")
	}
	return &trailv1.GetSessionResponse{Trail: &trailv1.Trail{ProjectId: project, SessionId: in.GetSessionId(),
		Events: []*eventv1.Event{{EventId: "e", Type: "behavior"}}}}, nil
}

func (upstream) Recall(ctx context.Context, in *recallv1.RecallRequest) (*recallv1.RecallResponse, error) {
	switch in.GetQuery() {
	case "":
		return nil, (&apierr.Error{Code: codes.InvalidArgument, Field: "query", Message: "is missing"}).GRPC()
	case "slow":
		<-ctx.Done()
		return nil, ctx.Err()
	case "starting":
		return nil, (&apierr.Error{Code: codes.Unavailable, Message: "the index is being built", RetryAfter: 7 * time.Second}).GRPC()
	}
	if err := grpc.SetTrailer(ctx, metadata.Pairs("x-trailer", "t")); err != nil {
		return nil, err
	}
	return &recallv1.RecallResponse{PromptBlock: strings.Repeat(in.GetQuery(), int(in.GetK()))}, nil
}

func (upstream) ListCases(_ context.Context, in *casesv1.ListCasesRequest) (*casesv1.ListCasesResponse, error) {
	var out casesv1.ListCasesResponse
	for range in.GetLimit() {
		out.Cases = append(out.Cases, &casesv1.Case{State: in.GetState()})
	}
	return &out, nil
}

func (upstream) DecideReview(_ context.Context, in *curationv1.DecideReviewRequest) (*curationv1.DecideReviewResponse, error) {
	return &curationv1.DecideReviewResponse{Review: &curationv1.Review{ReviewId: in.GetReviewId(), State: in.GetVerdict()}}, nil
}

func (upstream) ExportDataset(in *curationv1.ExportDatasetRequest, out grpc.ServerStreamingServer[httpbody.HttpBody]) error {
	if in.GetFormat() == "xml" {
		return status.Error(codes.InvalidArgument, "no such format")
	}
	if in.GetFormat() == "none" {
		return nil
	}
	for range 3 {
		if err := out.Send(&httpbody.HttpBody{ContentType: "application/x-ndjson", Data: []byte("{}\n")}); err != nil {
			return err
		}
	}
	if in.GetFormat() == "broken" {
		return status.Error(codes.Internal, "the store has gone")
	}
	return nil
}

func startUpstream(t *testing.T, f *fixture) (addr string) {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.UnaryInterceptor(f.keys.UnaryInterceptor()), grpc.StreamInterceptor(f.keys.StreamInterceptor()))
	trailv1.RegisterTrailServiceServer(s, upstream{})
	recallv1.RegisterRecallServiceServer(s, upstream{})
	casesv1.RegisterCaseServiceServer(s, upstream{})
	curationv1.RegisterReviewServiceServer(s, upstream{})
	curationv1.RegisterDatasetServiceServer(s, upstream{})
	go s.Serve(lis)
	t.Cleanup(s.Stop)
	return lis.Addr().String()
}

// newGatewayFixture has one server for all upstreams but the router, which is
// down.
func newGatewayFixture(t *testing.T) *fixture {
	keys := newFixture(t, nil)
	addr := startUpstream(t, keys)
	f := newFixture(t, func(c *Config) {
		c.Upstreams = Upstreams{Trail: addr, Embedder: addr, Curator: addr, Router: "127.0.0.1:1"}
		c.GatewayTimeout = 300 * time.Millisecond
		c.MaxBody, c.MaxBodies = 1<<20, 1<<20
	})
	f.secret, f.publishable = keys.secret, keys.publishable
	return f
}

func TestRESTReachesTheOwner(t *testing.T) {
	f := newGatewayFixture(t)
	long := strings.Repeat("x", 2<<20)
	tests := map[string]struct {
		method, path, body string
		status             int
		want               string // the whole body, or for errors a part
		field              string
	}{
		"trail":                {"GET", "/v1/sessions/s-1", "", 200, `{"trail":{"project_id":"p","session_id":"s-1","events":[{"event_id":"e","type":"behavior"}]}}`, ""},
		"slashes in a session": {"GET", "/v1/sessions/a//b/../c%2Fd%20e", "", 200, `{"trail":{"project_id":"p","session_id":"a//b/../c/d e","events":[{"event_id":"e","type":"behavior"}]}}`, ""},
		"not found":            {"GET", "/v1/sessions/none", "", 404, "there is no such session", ""},
		"body":                 {"POST", "/v1/recall", `{"query":"q","k":2}`, 200, `{"prompt_block":"qq","guidance":[],"positives":[]}`, ""},
		"query":                {"GET", "/v1/cases?limit=2&state=new", "", 200, `{"cases":[{"state":"new"},{"state":"new"}]}`, ""},
		"nothing":              {"GET", "/v1/cases", "", 200, `{"cases":[]}`, ""},
		"verb":                 {"POST", "/v1/reviews/r-1:decide", `{"verdict":"approve"}`, 200, `{"review":{"review_id":"r-1","state":"approve"}}`, ""},
		"id twice":             {"POST", "/v1/reviews/r-1:decide", `{"review_id":"r-1","verdict":"approve"}`, 200, `{"review":{"review_id":"r-1","state":"approve"}}`, ""},
		"two ids":              {"POST", "/v1/reviews/r-1:decide", `{"review_id":"r-2"}`, 400, "differs from the path", "review_id"},
		"owner's field":        {"POST", "/v1/recall", ``, 400, "is missing", "query"},
		"unknown field":        {"POST", "/v1/recall", `{"querry":"q"}`, 400, `did you mean \"query\"?`, "querry"},
		"wrong type":           {"POST", "/v1/recall", `{"k":"2"}`, 400, "want a whole number", "k"},
		"broken":               {"POST", "/v1/recall", `{"k":`, 400, "ends too early", "k"},
		"too large":            {"POST", "/v1/recall", `{"query":"` + long + `"}`, 413, "at most 1048576 bytes", ""},
		"unknown parameter":    {"GET", "/v1/cases?limt=2", "", 400, `did you mean \"limit\"?`, "limt"},
		"wrong parameter":      {"GET", "/v1/cases?limit=many", "", 400, "want a whole number", "limit"},
		"negative parameter":   {"GET", "/v1/cases?limit=-1", "", 400, "want a whole number from 0", "limit"},
		"parameter twice":      {"GET", "/v1/cases?limit=1&limit=2", "", 400, "want a whole number", "limit"},
		"parameter and body":   {"POST", "/v1/recall?k=2", `{}`, 400, "send it in the body", "k"},
		"broken query":         {"GET", "/v1/cases?limit=%zz", "", 400, "query is broken", ""},
		"body with GET":        {"GET", "/v1/cases", `{}`, 400, "want no body", ""},
		"no such path":         {"GET", "/v1/nothing", "", 404, "no such path", ""},
		"wrong method":         {"GET", "/v1/recall", "", 405, "only POST", ""},
		"wrong method of verb": {"GET", "/v1/reviews/r-1:decide", "", 405, "only POST", ""},
		"null in a query":      {"GET", "/v1/cases?limit=null", "", 400, "want a whole number", "limit"},
		"not written":          {"GET", "/v1/cases/c-1", "", 501, "GetCase not implemented", ""},
		"takes too long":       {"POST", "/v1/recall", `{"query":"slow"}`, 504, "the embedder took too long", ""},
		"owner asks to wait":   {"POST", "/v1/recall", `{"query":"starting"}`, 503, "being built", ""},
		"owner is down":        {"GET", "/v1/policies/current", "", 503, "the router cannot be reached", ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			a := f.do(test.method, test.path, strings.NewReader(test.body))
			if time.Since(start) > 3*time.Second {
				t.Errorf("took %s", time.Since(start))
			}
			if a.status != test.status {
				t.Fatalf("got %d %s, want %d", a.status, a.raw, test.status)
			}
			if test.status == 200 {
				if a.raw != test.want {
					t.Errorf("got %s, want %s", a.raw, test.want)
				}
				return
			}
			if a.Error == nil || a.Error.Field != test.field || !strings.Contains(a.raw, test.want) {
				t.Errorf("got %s, want field %q and %q", a.raw, test.field, test.want)
			}
			if test.status == 503 && a.header.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
			if test.status == 405 && a.header.Get("Allow") != "POST" {
				t.Errorf("Allow is %q", a.header.Get("Allow"))
			}
		})
	}
	f.do("GET", "/v1/sessions/s", nil, "Authorization", "").wantError(t, 401, "unauthenticated", "", "")
	f.do("GET", "/v1/sessions/s", nil, "Authorization", "Bearer "+f.publishable).wantError(t, 403, "permission_denied", "", "")
}

func TestExportIsWholeOrAnError(t *testing.T) {
	f := newGatewayFixture(t)
	server := httptest.NewServer(f.handler)
	defer server.Close()
	get := func(query string) (*answerOf, error) {
		req, err := http.NewRequest(http.MethodGet, server.URL+"/v1/datasets/export?"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+f.secret)
		resp, err := server.Client().Do(req)
		if err != nil {
			return nil, err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		return parse(resp.StatusCode, resp.Header, body), err
	}
	if a, err := get("format=sft"); err != nil || a.status != 200 || a.raw != "{}\n{}\n{}\n" || a.header.Get("Content-Type") != "application/x-ndjson" {
		t.Errorf("got %+v, %v", a, err)
	}
	if a, err := get("format=none"); err != nil || a.status != 200 || a.raw != "" {
		t.Errorf("nothing to export: got %+v, %v", a, err)
	}
	if a, err := get("format=xml"); err != nil {
		t.Error(err)
	} else {
		a.wantError(t, 400, "invalid_argument", "", "no such format")
	}
	if _, err := get("format=broken"); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("a broken export ended with %v, want an unexpected end", err)
	}
}

// serveGRPC runs the collector's own gRPC server.
func serveGRPC(t *testing.T, f *fixture) *grpc.ClientConn {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go f.server.GRPC().Serve(lis)
	t.Cleanup(f.server.GRPC().Stop)
	conn, err := grpc.NewClient(lis.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

func withKey(t *testing.T, key string) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	t.Cleanup(cancel)
	return metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+key)
}

// newProxyFixture has a gRPC server that passes calls on to an upstream.
func newProxyFixture(t *testing.T) (*fixture, *grpc.ClientConn) {
	f := newFixture(t, nil)
	addr := startUpstream(t, f)
	cfg := f.cfg
	cfg.Upstreams = Upstreams{Trail: addr, Embedder: addr, Curator: addr, Router: "127.0.0.1:1"}
	s, err := newService(cfg, f.keys, f.memory, f.memory, f.tel)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.gateway.Close() })
	g := &fixture{Service: s, memory: f.memory, keys: f.keys, secret: f.secret, publishable: f.publishable}
	return g, serveGRPC(t, g)
}

func TestGRPCOfOtherServicesIsPassedOn(t *testing.T) {
	f, conn := newProxyFixture(t)
	ctx := withKey(t, f.secret)
	var trailer metadata.MD
	out, err := recallv1.NewRecallServiceClient(conn).Recall(ctx, &recallv1.RecallRequest{Query: "q", K: 3}, grpc.Trailer(&trailer))
	if err != nil || out.GetPromptBlock() != "qqq" || len(trailer.Get("x-trailer")) != 1 {
		t.Errorf("got %v, %v, trailer %v", out, err, trailer)
	}
	session, err := trailv1.NewTrailServiceClient(conn).GetSession(ctx, &trailv1.GetSessionRequest{SessionId: "s"})
	if err != nil || session.GetTrail().GetProjectId() != "p" {
		t.Errorf("the key was not passed on: %v, %v", session, err)
	}
	for name, want := range map[string]struct {
		call func() error
		code codes.Code
		text string
	}{
		"the owner's error": {func() error {
			_, err := trailv1.NewTrailServiceClient(conn).GetSession(ctx, &trailv1.GetSessionRequest{SessionId: "none"})
			return err
		}, codes.NotFound, "there is no such session"},
		"the owner is down": {func() error {
			_, err := policyv1.NewPolicyServiceClient(conn).GetPolicy(ctx, &policyv1.GetPolicyRequest{})
			return err
		}, codes.Unavailable, "the router cannot be reached"},
		"nobody's service": {func() error {
			return conn.Invoke(ctx, "/other.v1.Service/Method", &recallv1.RecallRequest{}, &recallv1.RecallResponse{})
		}, codes.Unimplemented, "there is no method"},
		"no key": {func() error {
			_, err := recallv1.NewRecallServiceClient(conn).Recall(t.Context(), &recallv1.RecallRequest{Query: "q"})
			return err
		}, codes.Unauthenticated, "key is missing"},
		"publishable key": {func() error {
			_, err := recallv1.NewRecallServiceClient(conn).Recall(withKey(t, f.publishable), &recallv1.RecallRequest{Query: "q"})
			return err
		}, codes.PermissionDenied, "only send events"},
	} {
		if err := want.call(); status.Code(err) != want.code || !strings.Contains(err.Error(), want.text) {
			t.Errorf("%s: got %v, want %s with %q", name, err, want.code, want.text)
		}
	}
	stream, err := curationv1.NewDatasetServiceClient(conn).ExportDataset(ctx, &curationv1.ExportDatasetRequest{Format: "broken"})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if part, err := stream.Recv(); err != nil || string(part.GetData()) != "{}\n" {
			t.Fatalf("got %v, %v", part, err)
		}
	}
	if _, err := stream.Recv(); status.Code(err) != codes.Internal {
		t.Errorf("the stream ended with %v", err)
	}
}

func TestGRPCSendEvents(t *testing.T) {
	f, conn := newProxyFixture(t)
	client := collectorv1.NewCollectorServiceClient(conn)
	event := func(stars uint32) *eventv1.Event {
		return &eventv1.Event{Type: "feedback", SessionId: "s", InteractionId: "i", Payload: &eventv1.Event_Feedback{Feedback: &eventv1.Feedback{Stars: &stars}}}
	}
	out, err := client.SendEvents(withKey(t, f.publishable), &collectorv1.SendEventsRequest{Events: []*eventv1.Event{event(5), event(6)}})
	if err != nil {
		t.Fatal(err)
	}
	if out.GetAccepted() != 1 || out.GetRejected() != 1 || out.GetResults()[0].GetEventId() == "" || out.GetResults()[0].GetError() != nil ||
		out.GetResults()[1].GetError().GetField() != "events[1].feedback.stars" || out.GetResults()[1].GetError().GetCode() != "invalid_argument" {
		t.Errorf("got %v", out)
	}
	stored := f.memory.events(t)
	if len(stored) != 1 || stored[0].GetSource() != "grpc" || stored[0].GetProjectId() != "p" {
		t.Errorf("published %v", stored)
	}
	for name, in := range map[string]*collectorv1.SendEventsRequest{
		"none": {}, "too many": {Events: make([]*eventv1.Event, 1001)},
	} {
		for i := range in.Events {
			in.Events[i] = event(5)
		}
		if _, err := client.SendEvents(withKey(t, f.secret), in); status.Code(err) != codes.InvalidArgument || apierr.FromStatus(err).Field != "events" {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := client.SendEvents(t.Context(), &collectorv1.SendEventsRequest{Events: []*eventv1.Event{event(5)}}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("without a key: %v", err)
	}
}

func TestGRPCSendEventsWithoutKafka(t *testing.T) {
	f, conn := newProxyFixture(t)
	f.memory.do = func(context.Context, []stage.Record) error { return errors.New("gone") }
	stars := uint32(5)
	_, err := collectorv1.NewCollectorServiceClient(conn).SendEvents(withKey(t, f.secret), &collectorv1.SendEventsRequest{Events: []*eventv1.Event{
		{Type: "feedback", SessionId: "s", InteractionId: "i", Payload: &eventv1.Event_Feedback{Feedback: &eventv1.Feedback{Stars: &stars}}}}})
	if e := apierr.FromStatus(err); e.Code != codes.Unavailable || e.RetryAfter != time.Second {
		t.Errorf("got %v", err)
	}
}

// Every operation of the OpenAPI document is served.
func TestEveryDocumentedPathIsServed(t *testing.T) {
	f := newFixture(t, nil)
	var doc struct {
		Paths map[string]map[string]any
	}
	if err := json.Unmarshal(f.handler.openAPI, &doc); err != nil {
		t.Fatal(err)
	}
	if len(doc.Paths) < 14 {
		t.Errorf("only %d paths", len(doc.Paths))
	}
	for path, operations := range doc.Paths {
		for method := range operations {
			a := f.do(strings.ToUpper(method), regexp.MustCompile(`\{[a-z_]+\}`).ReplaceAllString(path, "x"), nil)
			if a.status == http.StatusNotFound || a.status == http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d", method, path, a.status)
			}
		}
	}
}
