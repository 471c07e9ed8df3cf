package embedder

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	recallv1 "github.com/honeloop/hone/proto/gen/go/hone/recall/v1"
	trailv1 "github.com/honeloop/hone/proto/gen/go/hone/trail/v1"

	"github.com/honeloop/hone/pkg/telemetry"
)

// trails is an enricher that has sessions of the owners of keys.
type trails struct {
	trailv1.UnimplementedTrailServiceServer
	sessions map[string][]string // queries by "Bearer key/session"
	wait     atomic.Int64        // nanoseconds
	calls    atomic.Int64
}

func (s *trails) GetSession(ctx context.Context, req *trailv1.GetSessionRequest) (*trailv1.GetSessionResponse, error) {
	s.calls.Add(1)
	select {
	case <-time.After(time.Duration(s.wait.Load())):
	case <-ctx.Done():
	}
	md, _ := metadata.FromIncomingContext(ctx)
	var key string
	for _, v := range md.Get("authorization") {
		key = v
	}
	queries, ok := s.sessions[key+"/"+req.GetSessionId()]
	if !ok || !req.GetNewestInteractions() {
		return nil, status.Error(codes.NotFound, "no such session")
	}
	t := &trailv1.Trail{}
	for _, q := range queries[max(0, len(queries)-int(req.GetPageSize())):] {
		t.Events = append(t.Events, &eventv1.Event{Payload: &eventv1.Event_Interaction{Interaction: &eventv1.Interaction{Query: q}}})
	}
	return &trailv1.GetSessionResponse{Trail: t}, nil
}

// serve gives the address of the trails.
func (s *trails) serve(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	trailv1.RegisterTrailServiceServer(server, s)
	go func() { _ = server.Serve(l) }() // until it is stopped
	t.Cleanup(server.Stop)
	return l.Addr().String()
}

func TestASessionGivesAFewWordsTheirContext(t *testing.T) {
	h := newHarness(t)
	h.send(signal("s1", negative, "0"), signal("s2", negative, "120"))
	enricher := &trails{sessions: map[string][]string{
		"Bearer mine/talk":   {"240 is too old to count", "0 is a whole question", "0 again?"},
		"Bearer mine/same":   {"0 is a whole question", "120 more"},
		"Bearer mine/silent": {"", ""},
		"Bearer other/talk":  {"0 is somebody else's question"},
	}}
	conn, err := grpc.NewClient(enricher.serve(t), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	sessions, err := newSessionReader(conn, 5*time.Second, telemetry.Discard().Meter)
	if err != nil {
		t.Fatal(err)
	}
	a := h.api()
	a.sessions = sessions
	ask := func(key string, req *recallv1.RecallRequest) (*recallv1.RecallResponse, string) {
		t.Helper()
		req.K = 1
		ctx := metadata.NewIncomingContext(as("p"), metadata.Pairs("authorization", "Bearer "+key))
		r, err := a.Recall(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		return r, recalled(r)
	}
	for _, tt := range []struct {
		name, key string
		req       *recallv1.RecallRequest
		want      string
		context   string
		calls     int64
	}{
		{"the newest whole question and what follows", "mine", &recallv1.RecallRequest{Query: "120 more", SessionId: "talk"}, "0 1.00", "0 is a whole question\n0 again?", 1},
		{"the query itself is in the trail", "mine", &recallv1.RecallRequest{Query: "120 more", SessionId: "same"}, "0 1.00", "0 is a whole question", 1},
		{"a long query stands alone", "mine", &recallv1.RecallRequest{Query: "120 is a whole question", SessionId: "talk"}, "120 1.00", "", 0},
		{"the caller's context goes first", "mine", &recallv1.RecallRequest{Query: "0 more", Context: "120", SessionId: "talk"}, "120 1.00", "", 0},
		{"no session", "mine", &recallv1.RecallRequest{Query: "120 more"}, "120 1.00", "", 0},
		{"a new session", "mine", &recallv1.RecallRequest{Query: "120 more", SessionId: "none"}, "120 1.00", "", 1},
		{"a session without words", "mine", &recallv1.RecallRequest{Query: "120 more", SessionId: "silent"}, "120 1.00", "", 1},
		{"another project's session", "foreign", &recallv1.RecallRequest{Query: "120 more", SessionId: "talk"}, "120 1.00", "", 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := enricher.calls.Load()
			if r, got := ask(tt.key, tt.req); got != tt.want || r.GetSessionContext() != tt.context || enricher.calls.Load()-before != tt.calls {
				t.Errorf("%s with %q after %d calls, want %s with %q after %d", got, r.GetSessionContext(), enricher.calls.Load()-before, tt.want, tt.context, tt.calls)
			}
		})
	}

	// A trail that hangs costs its own time, a few times, and then nothing.
	enricher.wait.Store(int64(time.Minute))
	sessions.timeout = 20 * time.Millisecond
	before := enricher.calls.Load()
	for range 20 {
		if _, got := ask("mine", &recallv1.RecallRequest{Query: "120 more", SessionId: "talk"}); got != "120 1.00" {
			t.Errorf("while the trail hangs: %s", got)
		}
	}
	if n := enricher.calls.Load() - before; n > breakerFailures+2 { // it tries once a second
		t.Errorf("the trail was asked %d times", n)
	}
}
