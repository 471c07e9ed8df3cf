package router

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/honeloop/hone/pkg/clickhouse"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	policyv1 "github.com/honeloop/hone/proto/gen/go/hone/policy/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"
)

// holding holds until a case has three negative signals.
const holding = "version: 1\nrules:\n  - {name: a, when: 'signal.polarity == \"negative\"', hold: 3, routes: [product], priority: low, reason: Wait.}\n"

// inTrail writes signals as the enricher does.
func (b *bench) inTrail(t testing.TB, css ...*casesv1.CaseSignal) {
	t.Helper()
	type s = *signalv1.Signal
	table := clickhouse.Table[s]{Name: "signals_log", Columns: []clickhouse.Column[s]{
		clickhouse.Col("project_id", s.GetProjectId), clickhouse.Col("session_id", s.GetSessionId), clickhouse.Col("signal_id", s.GetSignalId),
		clickhouse.Col("revision", s.GetRevision), clickhouse.Col("payload", func(m s) string { return string(encode(m)) }),
	}}
	var rows []s
	for _, cs := range css {
		rows = append(rows, cs.Signal)
	}
	if err := table.Insert(t.Context(), b.conn, rows); err != nil {
		t.Fatal(err)
	}
}

// split parts what Process returned into events and releases.
func split(recs []stage.Record) (events, releases []stage.Record) {
	for _, rec := range recs {
		if rec.Topic == stream.TopicCases {
			releases = append(releases, rec)
		} else {
			events = append(events, rec)
		}
	}
	return events, releases
}

func (b *bench) process(t *testing.T, recs ...stage.Record) (events []string, releases []stage.Record) {
	t.Helper()
	out, err := b.Process(t.Context(), recs)
	if err != nil {
		t.Fatal(err)
	}
	e, releases := split(out)
	return summary(t, e), releases
}

// growing are signals of one case, each with the case as it was with it.
func growing(n int) []*casesv1.CaseSignal {
	css := many(0, n, nil)
	for i, cs := range css {
		cs.Case.Negatives, cs.Case.Version = uint32(i+1), uint64(i+1)
	}
	return css
}

func TestHeldSignalsAreReleasedOnce(t *testing.T) {
	b := newBench(t)
	b.policies.own = compile(t, holding)
	css := growing(4)
	b.inTrail(t, css...)
	events, releases := b.process(t, input(css[:2]...)...)
	wantStrings(t, "two of three", events)
	if len(releases) != 0 {
		t.Errorf("%d releases, want none yet", len(releases))
	}
	list, err := b.store.held(t.Context(), "default", "cs_1", 10)
	if err != nil || len(list) != 2 || list[0].HoldUntil != 3 || !slices.Equal(list[0].HeldRoutes, []string{RouteProduct}) ||
		!strings.Contains(list[0].Reason, "held until its case has 3 negative signals; it had 1") {
		t.Errorf("held: %v, %v", list, err)
	}

	events, releases = b.process(t, input(css[2])...)
	wantStrings(t, "the third", events, "product hone.route.v1 1")
	if len(releases) != 2 || string(releases[0].Key) == string(releases[1].Key) {
		t.Fatalf("releases %v, want those of the two", releases)
	}
	// A crash before they are published, and the third comes again.
	events, again := b.process(t, input(css[2])...)
	wantStrings(t, "the third again", events, "product hone.route.v1 1")
	if len(again) != 2 {
		t.Fatalf("%d releases, want 2", len(again))
	}
	events, _ = b.process(t, releases...)
	wantStrings(t, "the releases", events, "product hone.route.v1 1", "product hone.route.v1 1")

	// All of it again, in any order, says the same with the same ids.
	ids := func(recs []stage.Record) (out []string) {
		t.Helper()
		processed, err := b.Process(t.Context(), recs)
		if err != nil {
			t.Fatal(err)
		}
		events, more := split(processed)
		if len(more) != 0 {
			t.Errorf("released again: %v", more)
		}
		for _, rec := range events {
			e, _ := parse(t, rec)
			out = append(out, e.ID())
		}
		slices.Sort(out)
		return out
	}
	first := ids(again)
	if second := ids(append(slices.Clone(releases), again...)); !slices.Equal(first, second) || len(first) != 2 {
		t.Errorf("ids %v, then %v", first, second)
	}
	if third := ids(input(css[:2]...)); !slices.Equal(first, third) {
		t.Errorf("ids %v, then by the signals %v", first, third)
	}
	if n := b.count(t, "SELECT count() FROM decisions WHERE NOT superseded AND has(routes, 'product') AND priority = 'low' AND hold_until = 0"); n != 3 {
		t.Errorf("%d routed decisions, want 3", n)
	}
	events, _ = b.process(t, input(css[3])...)
	wantStrings(t, "the fourth", events, "product hone.route.v1 1")

	// It was held and let go: the backtest knows, of this policy and of another.
	if r := b.backtest(t, b.policies.own); r.Signals != 4 || r.Changed != 0 || r.OtherRule != 0 {
		t.Errorf("backtest on itself: %v", r)
	}
	later := compile(t, strings.Replace(holding, "hold: 3", "hold: 4", 1))
	if r := b.backtest(t, later); r.Signals != 4 || r.Changed != 0 || len(r.Notes) != 1 {
		t.Errorf("backtest of a longer hold: %v", r)
	}
	later = compile(t, strings.Replace(holding, "hold: 3", "hold: 5", 1))
	if r := b.backtest(t, later); r.Changed != 4 || !slices.Equal(r.Changes[0].After, []string{held}) {
		t.Errorf("backtest of a hold that never ends: %v", r)
	}

	// What was let go is taken back as anything else.
	flipped := proto.CloneOf(css[0])
	flipped.Signal.Revision = 9
	positive(flipped)
	events, _ = b.process(t, input(flipped)...)
	wantStrings(t, "flipped", events, "product hone.route.withdrawn.v1 9")
	events, _ = b.process(t, releases...)
	if len(events) != 1 {
		t.Errorf("releases after the flip: %v, want the other one's alone", events)
	}
}

func TestAHeldSignalThatChangedIsNotReleased(t *testing.T) {
	b := newBench(t)
	b.policies.own = compile(t, holding)
	css := growing(3)
	b.inTrail(t, css...)
	b.process(t, input(css[0])...)
	taken := proto.CloneOf(css[0])
	taken.Signal.Revision, taken.Signal.Withdrawn = 2, true
	_, releases := b.process(t, input(css[1], css[2])...)
	if len(releases) != 2 {
		t.Fatalf("%d releases, want 2", len(releases))
	}
	b.inTrail(t, taken) // the router has not seen it yet
	events, _ := b.process(t, releases...)
	wantStrings(t, "releases", events, "product hone.route.v1 1")
	events, _ = b.process(t, input(taken)...)
	wantStrings(t, "withdrawn", events)
	if n := b.count(t, "SELECT count() FROM decisions WHERE NOT superseded AND hold_until > 0"); n != 0 {
		t.Errorf("%d held, want none", n)
	}
}

// TestWhoStoresLastReleases decides a signal after its case is large enough,
// with a case from before, as another partition's router may.
func TestWhoStoresLastReleases(t *testing.T) {
	b := newBench(t)
	b.policies.own = compile(t, holding)
	css := growing(3)
	b.inTrail(t, css...)
	events, releases := b.process(t, input(css[2])...)
	if len(events) != 1 || len(releases) != 0 {
		t.Fatalf("%v, %v", events, releases)
	}
	events, releases = b.process(t, input(css[0])...)
	if len(events) != 0 || len(releases) != 1 {
		t.Errorf("%v, %d releases; want one", events, len(releases))
	}
}

func TestWithoutACaseNothingIsHeld(t *testing.T) {
	v := compile(t, holding).Decide(NewFacts(&casesv1.CaseSignal{Signal: &signalv1.Signal{Polarity: "negative"}}), Situation{})
	if v.Rule != RuleDefault || v.Results[0].PassedOver != noCase {
		t.Errorf("got %+v, want the rule passed over", v)
	}
}

// TestHeldSignalsAreReleasedThroughKafka has a restart between hold and release.
func TestHeldSignalsAreReleasedThroughKafka(t *testing.T) {
	s := newStack(t, "default")
	b := &bench{conn: open(t, s.cfg.ClickHouse)}
	css := growing(5)
	b.inTrail(t, css...)
	client, stop := s.start(t)
	if _, err := client.PublishPolicy(s.as(t, "default"), &policyv1.PublishPolicyRequest{Yaml: holding}); err != nil {
		t.Fatal(err)
	}
	s.broker.Write(t, input(css[:2]...)...)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		resp, err := client.ListHeld(s.as(t, "default"), &policyv1.ListHeldRequest{})
		if err == nil && len(resp.Decisions) == 2 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(resp, err)
		}
	}
	stop()
	client, _ = s.start(t)
	s.broker.Write(t, input(css[2])...)
	subjects := map[string]int{}
	for _, rec := range s.broker.Read(t, stream.TopicRouteProduct, 3) {
		e, _ := parse(t, rec)
		subjects[e.Subject()]++
	}
	if fmt.Sprint(subjects) != "map[sg_0:1 sg_1:1 sg_2:1]" {
		t.Errorf("released %v, want each once", subjects)
	}
	if resp, err := client.ListHeld(s.as(t, "default"), &policyv1.ListHeldRequest{CaseId: "cs_1"}); err != nil || len(resp.Decisions) != 0 {
		t.Errorf("still held: %v, %v", resp, err)
	}
}
