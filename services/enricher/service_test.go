package enricher

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/honeloop/hone/pkg/auth"
	"github.com/honeloop/hone/pkg/clickhouse"
	"github.com/honeloop/hone/pkg/embedded"
	"github.com/honeloop/hone/pkg/embedded/embeddedtest"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/stream/streamtest"
	"github.com/honeloop/hone/pkg/telemetry"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	policyv1 "github.com/honeloop/hone/proto/gen/go/hone/policy/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"
	trailv1 "github.com/honeloop/hone/proto/gen/go/hone/trail/v1"

	"github.com/honeloop/hone/services/enricher/internal/trail/trailtest"
)

func TestMain(m *testing.M) {
	embedded.Main()
	os.Exit(embeddedtest.Run(m))
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func record(t *testing.T, e *eventv1.Event) stage.Record {
	t.Helper()
	value, err := proto.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return stage.Record{Topic: stream.TopicEvents, Key: stream.SessionKey(e.ProjectId, e.SessionId), Value: value,
		Headers: []stage.Header{{Key: "traceparent", Value: []byte("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")}}}
}

func event(id, session string, second int, payload proto.Message) *eventv1.Event {
	at := timestamppb.New(time.Date(2026, 11, 24, 9, 30, second, 0, time.UTC))
	e := &eventv1.Event{EventId: id, ProjectId: "p", SessionId: session, InteractionId: "i-1", OccurredAt: at, ReceivedAt: at, Source: "http"}
	switch m := payload.(type) {
	case *eventv1.Interaction:
		e.Type, e.Payload = "interaction", &eventv1.Event_Interaction{Interaction: m}
	case *eventv1.Feedback:
		e.Type, e.Payload = "feedback", &eventv1.Event_Feedback{Feedback: m}
	}
	return e
}

// TestService runs the whole service on a broker and a ClickHouse.
func TestService(t *testing.T) {
	broker := streamtest.StartBroker(t)
	cfg := DefaultConfig()
	cfg.Kafka = broker.Config()
	cfg.ClickHouse = trailtest.Config(t)
	cfg.Server.GRPCAddr, cfg.Server.AdminAddr = freeAddr(t), freeAddr(t)
	cfg.Server.KeysFile = filepath.Join(t.TempDir(), "keys.yaml")
	key, secret, err := auth.Mint("p", auth.Secret)
	if err != nil {
		t.Fatal(err)
	}
	otherKey, otherSecret, err := auth.Mint("other", auth.Secret)
	if err != nil {
		t.Fatal(err)
	}
	if err := auth.WriteKeys(cfg.Server.KeysFile, []auth.Key{key, otherKey}); err != nil {
		t.Fatal(err)
	}
	service, err := New(t.Context(), cfg, telemetry.Discard())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- service.Run(ctx) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	}()

	conn, err := grpc.NewClient(cfg.Server.GRPCAddr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	trails := trailv1.NewTrailServiceClient(conn)
	get := func(secret, session string) (*trailv1.Trail, error) {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+secret)
		res, err := trails.GetSession(ctx, &trailv1.GetSessionRequest{SessionId: session}, grpc.WaitForReady(true))
		return res.GetTrail(), err
	}

	// One send before the service takes part makes sure that it is ready.
	broker.Write(t, record(t, event("e-0", "warm", 0, &eventv1.Interaction{Query: "Hi", Output: "Hello."})))
	eventually(t, 30*time.Second, func() error { _, err := get(secret, "warm"); return err })
	if err := service.Ready(t.Context()); err != nil {
		t.Errorf("Ready: %v", err)
	}

	bad := record(t, event("e-bad", "s-1", 0, &eventv1.Feedback{Thumb: "sideways"}))
	broker.Write(t,
		record(t, event("f-1", "s-1", 5, &eventv1.Feedback{Thumb: "down", Comment: "It changed in May."})),
		bad,
		record(t, event("e-1", "s-1", 2, &eventv1.Interaction{Query: "Can I return worn shoes?", Output: "Yes.", Model: "m"})),
	)
	sent := time.Now()
	var got *trailv1.Trail
	eventually(t, 10*time.Second, func() (err error) {
		if got, err = get(secret, "s-1"); err != nil {
			return err
		}
		if len(got.Signals) != 1 || got.Signals[0].Waiting || len(got.Events) != 2 {
			return fmt.Errorf("trail has %d events and signals %v", len(got.Events), got.Signals)
		}
		return nil
	})
	t.Logf("read %s after the write", time.Since(sent).Round(time.Millisecond))
	if got.Events[0].EventId != "e-1" || got.Events[1].EventId != "f-1" {
		t.Errorf("events %v, want the interaction first", got.Events)
	}
	if !got.StartedAt.AsTime().Equal(got.Events[0].OccurredAt.AsTime()) || !got.LastAt.AsTime().Equal(got.Events[1].OccurredAt.AsTime()) {
		t.Errorf("session from %v to %v", got.StartedAt.AsTime(), got.LastAt.AsTime())
	}

	signals := broker.Read(t, stream.TopicSignals, 1)
	sig := &signalv1.Signal{}
	if err := proto.Unmarshal(signals[0].Value, sig); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(sig, got.Signals[0]) || sig.Interaction.GetQuery() != "Can I return worn shoes?" {
		t.Errorf("published %v, want what the trail shows: %v", sig, got.Signals[0])
	}
	if !slices.ContainsFunc(signals[0].Headers, func(h stage.Header) bool { return h.Key == "traceparent" }) {
		t.Errorf("headers %v, want the trace to go on", signals[0].Headers)
	}
	dead := broker.Read(t, stream.TopicDeadLetter, 1)
	if string(dead[0].Value) != string(bad.Value) {
		t.Error("the dead letter has other bytes than the bad record")
	}

	// The router's decisions are part of the trail.
	decision := &policyv1.Decision{DecisionId: "dc_1", ProjectId: "p", SessionId: "s-1", SignalId: sig.SignalId, DecidedAt: timestamppb.Now()}
	insertDecision(t, cfg.ClickHouse, decision)
	if got, err := get(secret, "s-1"); err != nil || len(got.Decisions) != 1 || !proto.Equal(got.Decisions[0], decision) {
		t.Errorf("decisions %v, %v; want %v", got.GetDecisions(), err, decision)
	}

	if _, err := get(otherSecret, "s-1"); status.Code(err) != codes.NotFound || !strings.Contains(err.Error(), `"s-1"`) {
		t.Errorf("another project gets %v, want NotFound that names the session", err)
	}
	if _, err := get(secret, ""); status.Code(err) != codes.InvalidArgument {
		t.Errorf("no session id: %v, want InvalidArgument", err)
	}
	if _, err := get("hs_nobody", "s-1"); status.Code(err) != codes.Unauthenticated {
		t.Errorf("unknown key: %v, want Unauthenticated", err)
	}
}

func insertDecision(t *testing.T, cfg clickhouse.Config, d *policyv1.Decision) {
	t.Helper()
	conn, err := clickhouse.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	payload, err := proto.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	err = conn.Exec(t.Context(), "INSERT INTO decisions_log (project_id, session_id, signal_id, decision_id, payload) VALUES (?, ?, ?, ?, ?)",
		d.ProjectId, d.SessionId, d.SignalId, d.DecisionId, string(payload))
	if err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, within time.Duration, check func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %s: %v", within, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func TestConfigNamesWhatIsWrong(t *testing.T) {
	cfg := DefaultConfig()
	cfg.CacheBytes, cfg.MaxBatch, cfg.MaxSessionEvents = -1, 0, 0
	cfg.ClickHouse.Database = "a;b"
	err := cfg.Validate()
	for _, key := range []string{"kafka.brokers", "cache_bytes", "max_batch", "max_session_events", "clickhouse.database"} {
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("error %v does not name %s", err, key)
		}
	}
}
