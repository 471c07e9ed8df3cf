package enricher

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/honeloop/hone/pkg/alerts"
	"github.com/honeloop/hone/pkg/auth"
	"github.com/honeloop/hone/pkg/clickhouse"
	"github.com/honeloop/hone/pkg/repotest"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/stream/streamtest"
	"github.com/honeloop/hone/pkg/telemetry"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"
	trendsv1 "github.com/honeloop/hone/proto/gen/go/hone/trends/v1"

	"github.com/honeloop/hone/services/enricher/internal/alerting"
	"github.com/honeloop/hone/services/enricher/internal/trail/trailtest"
)

// TestAlerts runs two enrichers, one after the other, over a trend that goes
// wrong and an alert of the router.
func TestAlerts(t *testing.T) {
	var posts, refused atomic.Int64
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/bad") {
			refused.Add(1)
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		posts.Add(1)
	}))
	defer hook.Close()
	t.Setenv("HONE_TEST_SECRET", "a secret")
	file := filepath.Join(t.TempDir(), "projects.yaml")
	yaml := fmt.Sprintf(`
projects:
  p:
    alerts:
      webhooks: [{url: "%[1]s/good", secret_env: HONE_TEST_SECRET}]
      watch: [{name: unhappy, metric: dissatisfaction, above: 0.3, min_count: 10}]
  q:
    alerts:
      webhooks: [{url: "%[1]s/bad", secret_env: HONE_TEST_SECRET}]
`, hook.URL)
	if err := os.WriteFile(file, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	broker := streamtest.StartBroker(t)
	cfg := DefaultConfig()
	cfg.Kafka = broker.Config()
	cfg.ClickHouse = trailtest.Config(t)
	cfg.Server.ProjectsFile = file
	cfg.Server.KeysFile = filepath.Join(t.TempDir(), "keys.yaml")
	cfg.Alerts.Interval = time.Second
	cfg.Alerts.RetryFor = 2 * time.Second
	if err := auth.WriteKeys(cfg.Server.KeysFile, nil); err != nil {
		t.Fatal(err)
	}
	conn, err := clickhouse.Open(cfg.ClickHouse)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var events []*eventv1.Event
	var signals []*signalv1.Signal
	for i := range 40 {
		at := timestamppb.New(time.Now().Add(-time.Duration(i+1) * time.Second))
		e := &eventv1.Event{EventId: "e", ProjectId: "p", SessionId: fmt.Sprint("s", i), InteractionId: "i", Type: "interaction", OccurredAt: at,
			Payload: &eventv1.Event_Interaction{Interaction: &eventv1.Interaction{}}}
		events = append(events, e)
		signals = append(signals, opinion(e, []string{"positive", "negative"}[i%2]))
	}
	save(t, conn, events, signals)

	run := func() (stop func()) {
		cfg.Server.GRPCAddr, cfg.Server.AdminAddr = freeAddr(t), freeAddr(t)
		service, err := New(t.Context(), cfg, telemetry.Discard())
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- service.Run(ctx) }()
		return func() {
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run: %v", err)
			}
		}
	}
	store := alerting.NewStore(conn)
	list := func(project string) []*trendsv1.Alert {
		t.Helper()
		out, err := store.List(t.Context(), project, "", 10)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}

	stop := run()
	routed := &alerts.Alert{ProjectID: "q", AlertID: alerts.ID("q", "sg"), Name: "unsafe", State: alerts.Open, Summary: "Unsafe.", At: time.Now(),
		Policy: &alerts.Policy{PolicyVersion: "pv", Rule: "unsafe", Reason: "It is.", DecisionID: "dc", SignalID: "sg", SignalRevision: 1, SessionID: "s"}}
	rec, err := routed.Record()
	if err != nil {
		t.Fatal(err)
	}
	broker.Write(t, rec)
	eventually(t, 30*time.Second, func() error {
		for _, project := range []string{"p", "q"} {
			if l := list(project); len(l) != 1 || len(l[0].Deliveries) != 1 {
				return fmt.Errorf("project %s has %v", project, l)
			}
		}
		return nil
	})
	stop()
	first, failing := list("p")[0], list("q")[0]
	if first.Name != "unhappy" || first.State != alerts.Open || first.Source != "trend" || !first.Deliveries[0].Delivered || first.Deliveries[0].Url != hook.URL+"/good" {
		t.Errorf("alert %v", first)
	}
	if failing.Source != "policy" || failing.Deliveries[0].Delivered || failing.Deliveries[0].Attempts < 2 || refused.Load() < 2 {
		t.Errorf("alert that nobody took: %v", failing)
	}
	dead := broker.Read(t, stream.TopicDeadLetter, 1)
	if string(dead[0].Value) != string(rec.Value) {
		t.Error("the dead letter is not the alert")
	}

	// Another enricher finds it open, and what comes again is not posted again.
	published := broker.All(t, stream.TopicAlerts)
	for _, r := range published {
		if string(r.Key) == "p" {
			broker.Write(t, stage.Record{Topic: r.Topic, Key: r.Key, Value: r.Value, Headers: r.Headers})
		}
	}
	stop = run()
	// Everything that was bad is withdrawn, so that the next alert is its end.
	for _, s := range signals {
		s.Revision, s.Withdrawn = 2, s.Polarity == "negative"
	}
	save(t, conn, nil, signals)
	eventually(t, 30*time.Second, func() error {
		if l := list("p"); len(l) != 1 || l[0].State != alerts.Resolved || len(l[0].Deliveries) != 2 {
			return fmt.Errorf("alerts %v", l)
		}
		return nil
	})
	stop()
	if posts.Load() != 2 {
		t.Errorf("posted %d times, want once open and once resolved", posts.Load())
	}
	if open, err := store.List(t.Context(), "p", "open", 10); err != nil || len(open) != 0 {
		t.Errorf("open alerts %v, %v", open, err)
	}

	compiler := jsonschema.NewCompiler()
	schema, err := compiler.Compile(filepath.Join(repotest.Root(t), "deploy", "schemas", alerts.EventType+".json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range broker.All(t, stream.TopicAlerts) {
		doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(r.Value)))
		if err != nil {
			t.Fatal(err)
		}
		if err := schema.Validate(doc); err != nil {
			t.Errorf("%s: %v", r.Value, err)
		}
	}
}
