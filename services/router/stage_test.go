package router

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/cloudevents/sdk-go/v2/event"
	"github.com/santhosh-tekuri/jsonschema/v6"
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
	"github.com/honeloop/hone/pkg/ids"
	"github.com/honeloop/hone/pkg/repotest"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/stream/streamtest"
	"github.com/honeloop/hone/pkg/telemetry"
	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	policyv1 "github.com/honeloop/hone/proto/gen/go/hone/policy/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"
)

func TestMain(m *testing.M) {
	embedded.Main()
	os.Exit(embeddedtest.Run(m))
}

// database is a migrated database of the test's own.
func database(t testing.TB) clickhouse.Config {
	t.Helper()
	cfg := clickhouse.DefaultConfig()
	cfg.Addr = []string{embeddedtest.ClickHouse(t).Addr}
	cfg.Database = ids.Derive("router", t.Name())
	if err := clickhouse.Migrate(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func open(t testing.TB, cfg clickhouse.Config) driver.Conn {
	t.Helper()
	conn, err := clickhouse.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return conn
}

// bench is a stage on a real ClickHouse.
type bench struct {
	*router
	conn driver.Conn
}

func newBench(t testing.TB) *bench {
	t.Helper()
	conn := open(t, database(t))
	clock := time.Date(2026, 11, 24, 10, 0, 0, 0, time.UTC)
	r, err := newRouter(&store{conn: conn}, newPolicies(defaultPolicy(t), nil), func() time.Time { clock = clock.Add(time.Second); return clock }, telemetry.Discard())
	if err != nil {
		t.Fatal(err)
	}
	return &bench{r, conn}
}

func input(css ...*casesv1.CaseSignal) []stage.Record {
	var out []stage.Record
	for _, cs := range css {
		out = append(out, stage.Record{
			Topic: stream.TopicCases, Key: stream.SessionKey(cs.GetSignal().GetProjectId(), cs.GetSignal().GetSessionId()),
			Value: encode(cs), Headers: []stage.Header{{Key: "traceparent", Value: []byte("00-1-2-01")}},
		})
	}
	return out
}

// routes processes and returns what came out, as "topic type revision".
func (b *bench) routes(t *testing.T, css ...*casesv1.CaseSignal) []string {
	t.Helper()
	out, err := b.Process(t.Context(), input(css...))
	if err != nil {
		t.Fatal(err)
	}
	return summary(t, out)
}

func summary(t *testing.T, recs []stage.Record) []string {
	t.Helper()
	var out []string
	for _, rec := range recs {
		e, data := parse(t, rec)
		out = append(out, fmt.Sprintf("%s %s %v", strings.TrimPrefix(rec.Topic, "hone.route."), e.Type(), data["signal_revision"]))
	}
	return out
}

// parse checks an event against the CloudEvents SDK and our JSON Schema.
func parse(t *testing.T, rec stage.Record) (event.Event, map[string]any) {
	t.Helper()
	var e event.Event
	if err := json.Unmarshal(rec.Value, &e); err != nil {
		t.Fatalf("%v: %s", err, rec.Value)
	}
	if err := e.Validate(); err != nil {
		t.Errorf("%v: %s", err, rec.Value)
	}
	if i := slices.IndexFunc(rec.Headers, func(h stage.Header) bool { return h.Key == "content-type" }); i < 0 ||
		string(rec.Headers[i].Value) != "application/cloudevents+json" {
		t.Errorf("headers %v, want content-type application/cloudevents+json", rec.Headers)
	}
	compiler := jsonschema.NewCompiler()
	compiler.AssertFormat()
	schema, err := compiler.Compile(filepath.Join(repotest.Root(t), "deploy", "schemas", e.Type()+".json"))
	if err != nil {
		t.Fatal(err)
	}
	doc, err := jsonschema.UnmarshalJSON(strings.NewReader(string(rec.Value)))
	if err != nil {
		t.Fatal(err)
	}
	if err := schema.Validate(doc); err != nil {
		t.Errorf("%v: %s", err, rec.Value)
	}
	var data map[string]any
	if err := json.Unmarshal(e.Data(), &data); err != nil {
		t.Fatal(err)
	}
	return e, data
}

// count runs a query that gives one number.
func (b *bench) count(t *testing.T, query string) uint64 {
	t.Helper()
	var n uint64
	if err := b.conn.QueryRow(t.Context(), query).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestEveryColumnIsExplained(t *testing.T) {
	b := newBench(t)
	if n := b.count(t, `SELECT count() FROM system.columns WHERE database = currentDatabase() AND comment = ''
		AND table IN ('cases_log', 'decisions_log', 'cases', 'decisions')`); n != 0 {
		t.Errorf("%d columns have no comment", n)
	}
}

// complaint is a thumb-down with category, comment and correction.
func complaint(revision uint32) *casesv1.CaseSignal {
	at := time.Date(2026, 11, 24, 9, 30, 0, 0, time.UTC)
	return &casesv1.CaseSignal{
		Signal: &signalv1.Signal{
			SignalId: "sg_1", ProjectId: "default", SessionId: "s/1", InteractionId: "i-1", UserId: "u-1", Kind: "explicit",
			Revision: revision, Polarity: "negative", Rating: ptr(-1.0), Category: "factually_incorrect",
			Categories: []string{"factually_incorrect"}, Severity: "medium", Confidence: 1, UserRole: "customer", Environment: "production",
			Comment: "The policy changed in <May> & June.", Correction: "Only unworn shoes, within 30 days.",
			Evidence:   []*signalv1.Evidence{{EventId: "e-2", Kind: "thumb", Detail: "thumb down"}},
			OccurredAt: timestamppb.New(at.Add(time.Duration(revision) * time.Minute)), SessionStartedAt: timestamppb.New(at),
			Interaction: &eventv1.Interaction{Query: "Can I return worn shoes?", Output: "Yes, within 60 days.", Model: "m-large", ModelVersion: "2026-10-01"},
		},
		Case: &casesv1.Case{
			CaseId: "cs_1", ProjectId: "default", Title: "Can I return worn shoes?", State: "new", Negatives: 1, Users: 1, Sessions: 1,
			Categories: map[string]uint32{"factually_incorrect": 1}, Severity: "medium", Version: uint64(revision),
			FirstSeen: timestamppb.New(at), LastSeen: timestamppb.New(at),
		},
		Similarity: 1, Founded: true,
	}
}

func with(cs *casesv1.CaseSignal, change func(*casesv1.CaseSignal)) *casesv1.CaseSignal {
	change(cs)
	return cs
}

// positive is what a thumb that was flipped leaves.
func positive(cs *casesv1.CaseSignal) {
	cs.Signal.Polarity, cs.Signal.Rating = "positive", ptr(1.0)
	cs.Signal.Category, cs.Signal.Categories, cs.Signal.Comment, cs.Signal.Correction = "", nil, "", ""
}

func gone(cs *casesv1.CaseSignal) { cs.Signal.Withdrawn = true }

func tone(cs *casesv1.CaseSignal) {
	cs.Signal.Category, cs.Signal.Categories, cs.Signal.Correction = "wrong_tone", []string{"wrong_tone"}, ""
}

func wantStrings(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\ngot  %q\nwant %q", what, got, want)
	}
}

func TestDecisionIsStoredAndPublishedReadably(t *testing.T) {
	b := newBench(t)
	out, err := b.Process(t.Context(), input(complaint(1)))
	if err != nil {
		t.Fatal(err)
	}
	wantStrings(t, "events", summary(t, out), "fine-tune hone.route.v1 1", "human-review hone.route.v1 1")

	e, data := parse(t, out[1])
	if e.Subject() != "sg_1" || e.Extensions()["honeproject"] != "default" || e.Extensions()["honesession"] != "s/1" {
		t.Errorf("attributes of %s", out[1].Value)
	}
	if string(out[1].Key) != "default/s/1" || !slices.ContainsFunc(out[1].Headers, func(h stage.Header) bool { return h.Key == "traceparent" }) {
		t.Errorf("key %q, headers %v", out[1].Key, out[1].Headers)
	}
	if data["rule"] != "knowledge-gap-corrected" || data["case_id"] != "cs_1" || data["policy_version"] != b.policies.own.Version() {
		t.Errorf("data %v", data)
	}
	if links := fmt.Sprint(data["links"]); links != "map[case:/v1/cases/cs_1 trail:/v1/sessions/s%2F1]" {
		t.Errorf("links %s", links)
	}
	if signal := data["signal"].(map[string]any); signal["correction"] != "Only unworn shoes, within 30 days." || signal["interaction"] == nil {
		t.Errorf("signal %v", signal)
	}
	if !strings.Contains(string(out[1].Value), "in <May> & June") {
		t.Errorf("text is escaped: %s", out[1].Value)
	}

	var role, kind, model, version, environment, rule, reason string
	var routes []string
	var started, decided time.Time
	if err := b.conn.QueryRow(t.Context(), `SELECT user_role, kind, model, model_version, environment, rule, reason, routes, session_started_at, decided_at
		FROM decisions WHERE project_id = 'default' AND NOT superseded`).
		Scan(&role, &kind, &model, &version, &environment, &rule, &reason, &routes, &started, &decided); err != nil {
		t.Fatal(err)
	}
	if role != "customer" || kind != "explicit" || model != "m-large" || version != "2026-10-01" || environment != "production" ||
		rule != "knowledge-gap-corrected" || reason != data["reason"] || len(routes) != 2 || started.IsZero() || !decided.Equal(e.Time()) {
		t.Error("row", role, kind, model, version, environment, rule, reason, routes, started, decided, e.Time())
	}
	if n := b.count(t, "SELECT count() FROM cases WHERE case_id = 'cs_1' AND category = 'factually_incorrect' AND negatives = 1 AND approved_at IS NULL"); n != 1 {
		t.Errorf("%d rows of the case, want 1", n)
	}
	h, err := b.store.explain(t.Context(), "default", "sg_1")
	if err != nil || len(h) != 1 {
		t.Fatalf("explain: %v, %v", h, err)
	}
	var facts map[string]map[string]any
	if err := json.Unmarshal([]byte(strings.Replace(h[0].Facts, `,"similarity":1`, "", 1)), &facts); err != nil || facts["case"]["negatives"] != 1.0 {
		t.Errorf("facts %s: %v", h[0].Facts, err)
	}
	if last := h[0].Rules[len(h[0].Rules)-1]; last.Rule != rule || last.Result != "matched" || h[0].Rules[0].Result != "not matched" {
		t.Errorf("rules %v", h[0].Rules)
	}
}

func TestRedeliveryPublishesTheStoredDecision(t *testing.T) {
	b := newBench(t)
	first, err := b.Process(t.Context(), input(complaint(1)))
	if err != nil {
		t.Fatal(err)
	}
	again, err := b.Process(t.Context(), input(complaint(1)))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(first, again) {
		t.Errorf("first %v\nthen  %v", first, again)
	}

	// The case grew, and the policy is another one: what is decided stays decided.
	b.policies.own = compile(t, one("true"))
	moved := with(complaint(1), func(cs *casesv1.CaseSignal) { cs.Case.Negatives, cs.Case.Positives = 9, 9 })
	out, err := b.Process(t.Context(), input(moved, moved))
	if err != nil {
		t.Fatal(err)
	}
	wantStrings(t, "events", summary(t, out), summary(t, first)...)
	for i := range out {
		got, gotData := parse(t, out[i])
		want, wantData := parse(t, first[i])
		if got.ID() != want.ID() || !got.Time().Equal(want.Time()) || gotData["reason"] != wantData["reason"] || gotData["decision_id"] != wantData["decision_id"] {
			t.Errorf("got %s\nwant %s", out[i].Value, first[i].Value)
		}
	}
	if n := b.count(t, "SELECT count() FROM decisions"); n != 1 {
		t.Errorf("%d decisions, want 1", n)
	}
}

func TestNewerRevisionSupersedes(t *testing.T) {
	b := newBench(t)
	wantStrings(t, "revision 1", b.routes(t, complaint(1)), "fine-tune hone.route.v1 1", "human-review hone.route.v1 1")
	// The tone was wrong, not the facts: one route is new, the others go.
	wantStrings(t, "revision 2", b.routes(t, with(complaint(2), tone)),
		"prompt-patch hone.route.v1 2", "fine-tune hone.route.withdrawn.v1 2", "human-review hone.route.withdrawn.v1 2")
	wantStrings(t, "revision 1 again", b.routes(t, complaint(1)))
	wantStrings(t, "revision 4", b.routes(t, with(complaint(4), positive)), "prompt-patch hone.route.withdrawn.v1 4")
	wantStrings(t, "revision 3, late", b.routes(t, complaint(3)))
	wantStrings(t, "revision 5", b.routes(t, with(complaint(5), gone)))

	if n := b.count(t, "SELECT count() FROM decisions"); n != 4 {
		t.Errorf("%d decisions, want 4", n)
	}
	if n := b.count(t, "SELECT count() FROM decisions WHERE NOT superseded AND signal_revision = 5 AND rule = 'withdrawn' AND empty(routes)"); n != 1 {
		t.Errorf("%d decisions hold, want revision 5", n)
	}
	if n := b.count(t, "SELECT sum(superseded_by) FROM decisions"); n != 2+4+5 {
		t.Errorf("superseded_by sums to %d, want 11", n)
	}
	h, err := b.store.explain(t.Context(), "default", "sg_1")
	if err != nil || len(h) != 4 || !h[0].Superseded || h[0].SupersededBy != 2 || h[3].Superseded {
		t.Errorf("explain: %v, %v", h, err)
	}
}

// TestCrashBetweenStoreAndPublish drops what Process returned, as a crash does.
func TestCrashBetweenStoreAndPublish(t *testing.T) {
	chain := []*casesv1.CaseSignal{complaint(1), with(complaint(2), tone), with(complaint(3), positive)}
	b := newBench(t)
	wantStrings(t, "the batch", b.routes(t, chain...), // lost
		"fine-tune hone.route.v1 1", "human-review hone.route.v1 1",
		"prompt-patch hone.route.v1 2", "fine-tune hone.route.withdrawn.v1 2", "human-review hone.route.withdrawn.v1 2",
		"prompt-patch hone.route.withdrawn.v1 3")
	// Any part of it may have been published, so all that must not stand is withdrawn.
	lost := []string{"prompt-patch hone.route.withdrawn.v1 3", "fine-tune hone.route.withdrawn.v1 2", "human-review hone.route.withdrawn.v1 2"}
	wantStrings(t, "the batch again", b.routes(t, chain...), lost...)
	wantStrings(t, "one by one", slices.Concat(b.routes(t, chain[0]), b.routes(t, chain[1]), b.routes(t, chain[2])), lost...)

	// A route that came back is not withdrawn.
	wantStrings(t, "revision 4", b.routes(t, complaint(4)), "fine-tune hone.route.v1 4", "human-review hone.route.v1 4")
	wantStrings(t, "revision 4 again", b.routes(t, complaint(4)),
		"fine-tune hone.route.v1 4", "human-review hone.route.v1 4", "prompt-patch hone.route.withdrawn.v1 3")
}

// TestCrashInsideAnInsert leaves the rows of one partition out, as an insert
// that was cut off does.
func TestCrashInsideAnInsert(t *testing.T) {
	b := newBench(t)
	b.routes(t, complaint(1))
	december := with(complaint(2), func(cs *casesv1.CaseSignal) {
		positive(cs)
		cs.Signal.OccurredAt = timestamppb.New(time.Date(2026, 12, 1, 0, 0, 0, 0, time.UTC))
	})
	d, _, err := b.decide(december, b.policies.own, &counts{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.store.save(t.Context(), nil, map[signalKey]history{{}: {d}}); err != nil {
		t.Fatal(err)
	}
	if n := b.count(t, "SELECT count() FROM decisions WHERE superseded"); n != 0 {
		t.Fatalf("%d superseded, want the fault", n)
	}
	wantStrings(t, "again", b.routes(t, december), "fine-tune hone.route.withdrawn.v1 2", "human-review hone.route.withdrawn.v1 2")
	if n := b.count(t, "SELECT count() FROM decisions WHERE superseded AND superseded_by = 2"); n != 1 {
		t.Errorf("%d superseded, want 1", n)
	}
}

func TestCaseSnapshotsConverge(t *testing.T) {
	snapshot := func(version uint64, negatives uint32, answer string) *casesv1.CaseSignal {
		return &casesv1.CaseSignal{Case: &casesv1.Case{CaseId: "cs_1", ProjectId: "default", State: "new", Version: version, Negatives: negatives, ApprovedAnswer: answer,
			FirstSeen: timestamppb.New(time.Unix(1_800_000_000-int64(version)*1e7, 0))}}
	}
	snapshots := []*casesv1.CaseSignal{snapshot(1, 1, ""), snapshot(2, 5, ""), snapshot(3, 4, ""), snapshot(4, 4, "within 30 days")}
	b := newBench(t)
	for _, order := range [][]int{{3}, {0, 1}, {2, 1, 0}, {1}, {3, 2}, {0}} {
		var css []*casesv1.CaseSignal
		for _, i := range order {
			css = append(css, snapshots[i])
		}
		wantStrings(t, "a case alone causes no event", b.routes(t, css...))
	}
	if n := b.count(t, "SELECT count() FROM cases WHERE negatives = 4 AND has_approved_answer AND approved_answer = 'within 30 days'"); n != 1 {
		t.Errorf("%d rows of version 4, want 1", n)
	}
	if n := b.count(t, "SELECT count() FROM cases"); n != 1 {
		t.Errorf("%d cases, want 1", n)
	}
	b.routes(t, with(snapshot(5, 0, ""), func(cs *casesv1.CaseSignal) { cs.Case.State = "withdrawn" }))
	if n := b.count(t, "SELECT count() FROM cases"); n != 0 {
		t.Errorf("%d cases after all was withdrawn, want 0", n)
	}
}

func TestWithoutVersionTheLatestTimeDecides(t *testing.T) {
	seen := timestamppb.New(time.UnixMilli(1000))
	if v := caseVersion(&casesv1.Case{LastSeen: seen}); v != 1000 {
		t.Errorf("got %d, want 1000", v)
	}
	if v := caseVersion(&casesv1.Case{LastSeen: seen, ApprovedAt: timestamppb.New(time.UnixMilli(2000))}); v != 2000 {
		t.Errorf("got %d, want 2000", v)
	}
}

func TestBadRecordsAreNamedAndTheOthersCount(t *testing.T) {
	bad := map[string]func(*casesv1.CaseSignal){
		"signal.signal_id is missing":  func(cs *casesv1.CaseSignal) { cs.Signal.SignalId = "" },
		"signal.project_id is missing": func(cs *casesv1.CaseSignal) { cs.Signal.ProjectId = "" },
		"signal.session_id is missing": func(cs *casesv1.CaseSignal) { cs.Signal.SessionId = "" },
		"signal.revision is missing":   func(cs *casesv1.CaseSignal) { cs.Signal.Revision = 0 },
		"signal.occurred_at: time 1883": func(cs *casesv1.CaseSignal) {
			cs.Signal.OccurredAt = timestamppb.New(time.Date(1883, 1, 1, 0, 0, 0, 0, time.UTC))
		},
		"case.case_id is missing":                                  func(cs *casesv1.CaseSignal) { cs.Case.CaseId = "" },
		`case belongs to project "other", its signal to "default"`: func(cs *casesv1.CaseSignal) { cs.Case.ProjectId = "other" },
		"case.first_seen: time 2500": func(cs *casesv1.CaseSignal) {
			cs.Case.FirstSeen = timestamppb.New(time.Date(2500, 1, 1, 0, 0, 0, 0, time.UTC))
		},
		"CaseSignal has neither signal nor case": func(cs *casesv1.CaseSignal) { proto.Reset(cs) },
	}
	var in []stage.Record
	var want []string
	for message, change := range bad {
		in = append(in, input(with(complaint(1), change))...)
		want = append(want, message)
	}
	in = append(in, stage.Record{Value: []byte("no protobuf")})
	want = append(want, "decode CaseSignal")
	in = append(in, input(complaint(1))...)

	out, err := newBench(t).Process(t.Context(), in)
	failed, ok := stage.AsBatchError(err)
	if !ok || len(failed.Indexes()) != len(want) {
		t.Fatalf("got %v, want %d failures", err, len(want))
	}
	for i, message := range want {
		if failed.Cause(i) == nil || !strings.Contains(failed.Cause(i).Error(), message) {
			t.Errorf("input %d: got %v, want %s", i, failed.Cause(i), message)
		}
	}
	if len(out) != 2 {
		t.Errorf("%d events of the good record, want 2", len(out))
	}
}

// many are complaints of n users on one case, a minute apart.
func many(first, n int, change func(*casesv1.CaseSignal)) []*casesv1.CaseSignal {
	var out []*casesv1.CaseSignal
	for i := first; i < first+n; i++ {
		cs := complaint(uint32(i + 1))
		cs.Signal.SignalId, cs.Signal.Revision, cs.Signal.SessionId = fmt.Sprint("sg_", i), 1, fmt.Sprint("s-", i)
		cs.Signal.UserId = fmt.Sprint("u-", i%2)
		if change != nil {
			change(cs)
		}
		out = append(out, cs)
	}
	return out
}

// TestLimitsHoldOverBatchesAndReplays gives a rule with a limit its signals in
// pieces, and again.
func TestLimitsHoldOverBatchesAndReplays(t *testing.T) {
	b := newBench(t)
	b.policies.own = compile(t, strings.Replace(one("true"), "    routes", "    limit: {count: 5, per: day}\n    routes", 1)+
		"  - {name: more, when: 'true', routes: [human-review], priority: low, reason: The day is full.}\n")
	var first []string
	for _, part := range [][]*casesv1.CaseSignal{many(0, 3, nil), many(3, 4, nil), many(7, 2, nil)} {
		first = append(first, b.routes(t, part...)...)
	}
	want := slices.Concat(slices.Repeat([]string{"product hone.route.v1 1"}, 5), slices.Repeat([]string{"human-review hone.route.v1 1"}, 4))
	wantStrings(t, "first", first, want...)
	wantStrings(t, "again", b.routes(t, many(0, 9, nil)...), want...)
	// A newer revision of one that the rule took is not counted twice, and keeps its place.
	newer := many(2, 1, func(cs *casesv1.CaseSignal) { cs.Signal.Revision = 2 })
	wantStrings(t, "revision 2", b.routes(t, newer...), "product hone.route.v1 2")
	next := many(9, 1, func(cs *casesv1.CaseSignal) {
		cs.Signal.OccurredAt = timestamppb.New(time.Date(2026, 11, 25, 0, 0, 0, 0, time.UTC))
	})
	wantStrings(t, "the next day", b.routes(t, next...), "product hone.route.v1 1")
	h, err := b.store.explain(t.Context(), "default", "sg_7")
	if err != nil || len(h) != 1 || h[0].Rules[0].Result != overLimit || h[0].Rules[0].GetTaken() != 5 || h[0].Priority != PriorityLow {
		t.Errorf("explain: %v, %v", h, err)
	}
	if n := b.count(t, "SELECT count() FROM decisions WHERE rule = 'more' AND priority = 'low'"); n != 4 {
		t.Errorf("%d decisions of the next rule, want 4", n)
	}
}

// TestCountsAreThoseOfTheDecisionsBefore checks the facts that are counted, in
// one batch and over several.
func TestCountsAreThoseOfTheDecisionsBefore(t *testing.T) {
	counted := func(b *bench, signal string) string {
		t.Helper()
		h, err := b.store.explain(t.Context(), "default", signal)
		if err != nil || len(h) == 0 {
			t.Fatalf("%v, %v", h, err)
		}
		var f Facts
		if err := json.Unmarshal([]byte(h[len(h)-1].Facts), &f); err != nil {
			t.Fatal(err)
		}
		return fmt.Sprint(f.Case.Negatives24h, f.Case.Negatives7d, f.User.Negatives24h, f.User.Negatives7d, f.User.Signals7d, f.Session.Negatives)
	}
	old := many(100, 2, func(cs *casesv1.CaseSignal) {
		cs.Signal.OccurredAt = timestamppb.New(cs.Signal.OccurredAt.AsTime().AddDate(0, 0, -3))
	})
	old[0].Signal.Polarity = "positive"
	for name, size := range map[string]int{"one batch": 10, "batches of one": 1} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			for part := range slices.Chunk(append(slices.Clone(old), many(0, 4, nil)...), size) {
				b.routes(t, part...)
			}
			for signal, want := range map[string]string{"sg_100": "0 0 0 0 1 0", "sg_101": "1 1 1 1 1 1", "sg_0": "1 2 1 1 2 1", "sg_3": "4 5 2 3 3 1"} {
				if got := counted(b, signal); got != want {
					t.Errorf("%s counts %s, want %s", signal, got, want)
				}
			}
			// A newer revision does not count beside the older one.
			b.routes(t, many(3, 1, func(cs *casesv1.CaseSignal) { cs.Signal.Revision = 2 })...)
			if got := counted(b, "sg_3"); got != "4 5 2 3 3 1" {
				t.Errorf("revision 2 counts %s", got)
			}
		})
	}
}

func TestAlertsOpenOnceAndAreResolved(t *testing.T) {
	b := newBench(t)
	b.policies.own = compile(t, strings.Replace(one("signal.polarity == 'negative'"), "[product]", "[alert, product]", 1))
	alert := func(css ...*casesv1.CaseSignal) (out []string, ids []string) {
		t.Helper()
		recs, err := b.Process(t.Context(), input(css...))
		if err != nil {
			t.Fatal(err)
		}
		for _, rec := range recs {
			if rec.Topic != stream.TopicAlerts {
				continue
			}
			e, data := parse(t, rec)
			out, ids = append(out, fmt.Sprint(data["state"], " ", data["name"])), append(ids, e.ID())
		}
		return out, ids
	}
	got, first := alert(complaint(1))
	wantStrings(t, "alerts", got, "open a")
	got, again := alert(complaint(1))
	wantStrings(t, "again", got, "open a")
	got, changed := alert(complaint(2))
	wantStrings(t, "revision 2", got, "open a")
	if !slices.Equal(first, again) || !slices.Equal(first, changed) {
		t.Errorf("ids %v, %v, %v; want the same, so that people hear once", first, again, changed)
	}
	got, _ = alert(with(complaint(3), positive))
	wantStrings(t, "revision 3", got, "resolved a")
}

func TestStoreAwayIsAnErrorForAll(t *testing.T) {
	b := newBench(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	out, err := b.Process(ctx, input(complaint(1)))
	if _, isBatch := stage.AsBatchError(err); err == nil || isBatch || out != nil {
		t.Errorf("got %v, %v; want a plain error", out, err)
	}
}

func TestLargeEventsSayWhatIsOmitted(t *testing.T) {
	long := strings.Repeat("long ", 200_000) // 1,000,000 bytes
	tests := []struct {
		name   string
		change func(*casesv1.CaseSignal)
		want   []any
	}{
		{"retrieved", func(cs *casesv1.CaseSignal) {
			cs.Signal.Interaction.Retrieved = []*eventv1.Retrieved{{Text: long}}
			cs.Signal.Interaction.SystemContext = "short"
		}, []any{"signal.interaction.retrieved"}},
		{"system context", func(cs *casesv1.CaseSignal) { cs.Signal.Interaction.SystemContext = long }, []any{"signal.interaction.system_context"}},
		{"output", func(cs *casesv1.CaseSignal) { cs.Signal.Interaction.Output = long }, []any{"signal.evidence", "case", "signal.interaction"}},
		{"quotes that JSON escapes", func(cs *casesv1.CaseSignal) { cs.Signal.Comment = strings.Repeat("\x01", 200_000) },
			[]any{"signal.evidence", "case", "signal.interaction", "signal.categories", "signal.comment"}},
	}
	b := newBench(t)
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cs := with(complaint(1), tt.change)
			cs.Signal.SignalId = fmt.Sprint("sg_", i)
			before := proto.CloneOf(cs)
			out, err := b.Process(t.Context(), input(cs))
			if err != nil || len(out) != 2 {
				t.Fatalf("%d events, %v", len(out), err)
			}
			_, data := parse(t, out[0])
			if omitted, _ := data["omitted"].([]any); !slices.Equal(omitted, tt.want) || len(out[0].Value) > maxEvent {
				t.Errorf("%d bytes, omitted %v, want %v", len(out[0].Value), omitted, tt.want)
			}
			if !proto.Equal(cs, before) {
				t.Error("the input changed")
			}
		})
	}
}

// TestService runs the whole of it: Kafka in, Kafka out, gRPC.
func TestService(t *testing.T) {
	broker := streamtest.StartBroker(t)
	key, secret, err := auth.Mint("default", auth.Secret)
	if err != nil {
		t.Fatal(err)
	}
	otherKey, otherSecret, err := auth.Mint("other", auth.Secret)
	if err != nil {
		t.Fatal(err)
	}
	cfg := DefaultConfig()
	cfg.Server.GRPCAddr, cfg.Server.AdminAddr = freeAddr(t), freeAddr(t)
	cfg.Server.KeysFile = filepath.Join(t.TempDir(), "keys.yaml")
	if err := auth.WriteKeys(cfg.Server.KeysFile, []auth.Key{key, otherKey}); err != nil {
		t.Fatal(err)
	}
	cfg.Kafka, cfg.ClickHouse = broker.Config(), database(t)
	s, err := New(t.Context(), cfg, telemetry.Discard())
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	defer func() {
		stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()

	broker.Write(t, input(complaint(1))...)
	wantStrings(t, "events", summary(t, broker.Read(t, stream.TopicRouteHumanReview, 1)), "human-review hone.route.v1 1")
	broker.Write(t, input(complaint(1), with(complaint(2), positive))...)
	wantStrings(t, "events", summary(t, broker.Read(t, stream.TopicRouteHumanReview, 3)),
		"human-review hone.route.v1 1", "human-review hone.route.v1 1", "human-review hone.route.withdrawn.v1 2")
	if err := s.Ready(t.Context()); err != nil {
		t.Errorf("not ready: %v", err)
	}

	conn, err := grpc.NewClient(cfg.Server.GRPCAddr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	client := policyv1.NewPolicyServiceClient(conn)
	as := func(secret string) context.Context {
		return metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+secret)
	}
	policy, err := client.GetPolicy(as(secret), &policyv1.GetPolicyRequest{})
	if err != nil || !strings.HasPrefix(policy.PolicyVersion, "pv_") || !strings.Contains(policy.Yaml, "rules:") {
		t.Errorf("policy %v, %v", policy, err)
	}
	got, err := client.Explain(as(secret), &policyv1.ExplainRequest{SignalId: "sg_1"})
	if err != nil || len(got.Decisions) != 2 || got.Decisions[0].SignalRevision != 2 || !got.Decisions[1].Superseded ||
		got.Decisions[1].PolicyVersion != policy.PolicyVersion {
		t.Errorf("explain %v, %v", got, err)
	}
	for _, tt := range []struct {
		secret, signal string
		want           codes.Code
	}{
		{otherSecret, "sg_1", codes.NotFound}, {secret, "sg_2", codes.NotFound}, {secret, "", codes.InvalidArgument}, {"hs_x", "sg_1", codes.Unauthenticated},
	} {
		if _, err := client.Explain(as(tt.secret), &policyv1.ExplainRequest{SignalId: tt.signal}); status.Code(err) != tt.want {
			t.Errorf("explain %q: %v, want %v", tt.signal, err, tt.want)
		}
	}
}

func TestNewRefusesABadPolicyFile(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Kafka.Brokers = []string{"127.0.0.1:1"}
	cfg.PolicyFile = filepath.Join(t.TempDir(), "mine.yaml")
	if err := os.WriteFile(cfg.PolicyFile, []byte("version: 1\nruls: []\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := New(t.Context(), cfg, telemetry.Discard())
	if perr, ok := errors.AsType[*PolicyErrors](err); !ok || perr.Errors[0].Line != 2 {
		t.Errorf("got %v, want the policy's error", err)
	}
	cfg.PolicyFile = "missing.yaml"
	if _, err := New(t.Context(), cfg, telemetry.Discard()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want not exist", err)
	}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	return lis.Addr().String()
}

// TestAnyCrashesEndInOneState reads a partition in random batches with crashes
// after the store, in the middle of publishing and before the commit, and
// compares what a reader of the route topics ends up with.
func TestAnyCrashesEndInOneState(t *testing.T) {
	b := newBench(t)
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 0))
		log, want := randomLog(r, fmt.Sprintf("s-%d", seed))
		held := map[string]uint32{} // route and signal -> revision
		read := func(recs []stage.Record) {
			for _, rec := range recs {
				var e struct {
					Type, Subject string
					Data          RouteData
				}
				if err := json.Unmarshal(rec.Value, &e); err != nil {
					t.Fatal(err)
				}
				if k := rec.Topic + " " + e.Subject; e.Type == EventRouted {
					held[k] = e.Data.SignalRevision
				} else {
					delete(held, k)
				}
			}
		}
		for committed, crashes := 0, 0; committed < len(log); {
			end := min(len(log), committed+1+r.IntN(6))
			out, err := b.Process(t.Context(), input(log[committed:end]...))
			if err != nil {
				t.Fatal(err)
			}
			if crashes < 6 && r.IntN(2) == 0 {
				crashes++
				read(out[:r.IntN(len(out)+1)])
				continue
			}
			read(out)
			committed = end
		}
		if !maps.Equal(held, want) {
			t.Errorf("seed %d: held %v, want %v", seed, held, want)
		}
		stands := fmt.Sprintf("SELECT toUInt64(sum(length(routes))) FROM decisions WHERE session_id = 's-%d' AND NOT superseded", seed)
		if n := b.count(t, stands); n != uint64(len(want)) {
			t.Errorf("seed %d: %d routes stand in decisions, want %d", seed, n, len(want))
		}
	}
}

// randomLog is a partition with the revisions of some signals, and what must
// hold at its end.
func randomLog(r *rand.Rand, session string) (log []*casesv1.CaseSignal, want map[string]uint32) {
	kinds := []struct {
		change func(*casesv1.CaseSignal)
		routes []string
	}{
		{func(*casesv1.CaseSignal) {}, []string{RouteFineTune, RouteHumanReview}},
		{tone, []string{RoutePromptPatch}},
		{positive, nil},
		{gone, nil},
		{func(cs *casesv1.CaseSignal) { cs.Signal.Categories = []string{"bug"} }, []string{RouteProduct}},
	}
	want = map[string]uint32{}
	latest := map[string][]string{}
	revisions := map[string]uint32{}
	for range 20 {
		id := fmt.Sprintf("%s-%d", session, r.IntN(4))
		if n := revisions[id]; n == 0 || r.IntN(4) > 0 {
			revisions[id]++ // else a repetition
		}
		kind := kinds[r.IntN(len(kinds))]
		cs := with(complaint(revisions[id]), kind.change)
		cs.Signal.SignalId, cs.Signal.SessionId = id, session
		if i := slices.IndexFunc(log, func(old *casesv1.CaseSignal) bool {
			return old.Signal.SignalId == id && old.Signal.Revision == cs.Signal.Revision
		}); i >= 0 {
			cs = log[i]
		} else {
			latest[id] = kind.routes
		}
		log = append(log, cs)
	}
	for id, routes := range latest {
		for _, route := range routes {
			want[stream.RouteTopic(route)+" "+id] = revisions[id]
		}
	}
	return log, want
}

func BenchmarkProcess(b *testing.B) {
	bench := newBench(b)
	n := 0
	for b.Loop() {
		var css []*casesv1.CaseSignal
		for range 500 {
			cs := complaint(1)
			cs.Signal.SignalId = fmt.Sprint("sg_", n)
			cs.Case.CaseId = fmt.Sprint("cs_", n%100)
			css = append(css, cs)
			n++
		}
		if _, err := bench.Process(b.Context(), input(css...)); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "signals/s")
}
