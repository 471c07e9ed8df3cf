package router

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	policyv1 "github.com/honeloop/hone/proto/gen/go/hone/policy/v1"
)

// backtest of a policy over all that the bench decided.
func (b *bench) backtest(t testing.TB, policy *Policy) *policyv1.BacktestReport {
	t.Helper()
	r := newReport(policy.Version(), time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC), nil)
	if err := b.store.backtest(t.Context(), "default", policy, r, func(_, _ uint32) error { return nil }); err != nil {
		t.Fatal(err)
	}
	return r.finish(policy)
}

// manyKinds is signals of many kinds, some with several revisions, in batches of
// a few.
func manyKinds(n int) []*casesv1.CaseSignal {
	kinds := []func(*casesv1.CaseSignal){
		func(*casesv1.CaseSignal) {}, tone, positive, gone,
		func(cs *casesv1.CaseSignal) {
			cs.Signal.Categories, cs.Case.Negatives, cs.Case.Positives = []string{"bug"}, 3, 7
		},
		func(cs *casesv1.CaseSignal) {
			cs.Signal.Kind, cs.Signal.Confidence, cs.Signal.Correction = "implicit", 0.51234567, ""
		},
	}
	var out []*casesv1.CaseSignal
	for i := range n {
		cs := many(i, 1, kinds[i*7%len(kinds)])[0]
		cs.Signal.OccurredAt = timestamppb.New(cs.Signal.OccurredAt.AsTime().Add(time.Duration(i) * 17 * time.Minute))
		cs.Signal.Tags = map[string]string{"plan": "pro", "n": fmt.Sprint(i)}
		cs.Similarity = 1 / float64(i+3)
		out = append(out, cs)
		if i%3 == 0 {
			again := proto.CloneOf(cs)
			again.Signal.Revision = 2
			kinds[i%len(kinds)](again)
			out = append(out, again)
		}
	}
	return out
}

// stateful is a policy with all that depends on more than one signal.
func stateful(t *testing.T) *Policy {
	return compile(t, `
version: 1
rules:
  - {name: sampled, when: 'signal.category == "wrong_tone"', sample: 0.5, routes: [prompt-patch], reason: r}
  - {name: few, when: 'user.negatives_7d > 2 && signal.polarity == "negative"', limit: {count: 3, per: day}, routes: [alert, human-review], priority: high, reason: r}
  - {name: share, when: 'case.negative_share > 0.25 && similarity > 0.01', limit: {count: 5, per: hour}, routes: [human-review], reason: r}
  - {name: wait, when: 'signal.severity == "medium"', hold: 4, routes: [human-review], reason: r}
  - {name: tagged, when: 'interaction.tags[?"plan"].orValue("") == "pro" && signal.confidence < 0.6', routes: [product], reason: r}
default: {routes: [fine-tune], reason: r}
`)
}

func TestTheLivePolicyBacktestedOnItselfChangesNothing(t *testing.T) {
	for name, policy := range map[string]*Policy{"default": defaultPolicy(t), "stateful": stateful(t)} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			b.policies.own = policy
			log := manyKinds(120)
			for part := range slices.Chunk(log, 7) {
				b.routes(t, part...)
			}
			first := b.backtest(t, policy)
			if first.Signals < 80 || first.Withdrawn == 0 || first.Changed != 0 || first.OtherRule != 0 || len(first.Changes) != 0 || first.LeftOut != 0 {
				t.Errorf("report %v", first)
			}
			for _, c := range slices.Concat(first.Routes, first.Rules, first.Reviews) {
				if c.Before != c.After {
					t.Errorf("%v", c)
				}
			}
			if first.Cost.HoursBefore != first.Cost.HoursAfter || first.Cost.HoursBefore == 0 {
				t.Errorf("cost %v", first.Cost)
			}
			// A replay in other batches changes nothing, nor does the backtest.
			rows := b.count(t, "SELECT count() FROM decisions")
			for part := range slices.Chunk(log, 50) {
				b.routes(t, part...)
			}
			if again := b.backtest(t, policy); !proto.Equal(first, again) {
				t.Errorf("after a replay:\n%v\nbefore:\n%v", again, first)
			}
			if n := b.count(t, "SELECT count() FROM decisions"); n != rows {
				t.Errorf("%d decisions, want the %d before", n, rows)
			}
		})
	}
}

func TestBacktestSaysWhatWouldChange(t *testing.T) {
	b := newBench(t)
	b.policies.own = compile(t, routeAll("product"))
	b.routes(t, many(0, 6, nil)...)
	b.routes(t, many(6, 2, tone)...)
	next := compile(t, `
version: 1
rules:
  - {name: tone, when: 'signal.category == "wrong_tone"', routes: [product], reason: The same.}
  - {name: few, when: 'true', limit: {count: 2, per: week}, routes: [human-review], priority: high, reason: Look.}
  - {name: unused, when: 'user.negatives_7d > 100', routes: [fine-tune], reason: Never.}
`)
	r := b.backtest(t, next)
	if r.Signals != 8 || r.Changed != 6 || r.OtherRule != 2 {
		t.Errorf("%d signals, %d changed, %d by another rule; want 8, 6, 2", r.Signals, r.Changed, r.OtherRule)
	}
	counts := func(list []*policyv1.BacktestCount) (out []string) {
		for _, c := range list {
			out = append(out, fmt.Sprint(c.Name, " ", c.Before, " ", c.After))
		}
		return out
	}
	wantStrings(t, "routes", counts(r.Routes), "human-review 0 2", "product 8 2", "nothing 0 4")
	wantStrings(t, "rules", counts(r.Rules), "tone 0 2", "few 0 2", "unused 0 0", "a 8 0", "default 0 4")
	wantStrings(t, "reviews", counts(r.Reviews), "2026-11-24 0 2")
	if len(r.Changes) != 2 || r.Changes[0].Signals != 4 || len(r.Changes[0].Examples) != 3 || !slices.Equal(r.Changes[1].After, []string{RouteHumanReview}) ||
		r.Changes[1].PriorityAfter != PriorityHigh || r.Changes[1].Examples[0].RuleAfter != "few" {
		t.Errorf("changes %v", r.Changes)
	}
	if got := fmt.Sprintf("%.3f %.3f", r.Cost.HoursBefore, r.Cost.HoursAfter); got != "1.333 0.467" {
		t.Errorf("hours %s", got)
	}
	if len(r.Notes) != 1 || !strings.Contains(r.Notes[0], "limits of few are counted anew") {
		t.Errorf("notes %q", r.Notes)
	}
}

func TestBacktestOfDecisionsFromBefore(t *testing.T) {
	d := &policyv1.Decision{DecisionId: "dc_1", SignalId: "sg_1", Rule: "a", Routes: []string{RouteProduct}, OccurredAt: timestamppb.Now(),
		Facts: `{"signal":{"polarity":"negative","categories":[]},"case":{"negatives":4}}`}
	rec, err := newRecorded(d)
	if err != nil || !rec.uncounted || rec.cut || rec.facts.Case.Negatives != 4 {
		t.Fatalf("%+v, %v", rec, err)
	}
	policy := compile(t, one("user.negatives_7d > 3"))
	r := newReport("pv", time.Unix(0, 0), time.Now(), nil)
	newReplay(policy).add(rec, r)
	if out := r.finish(policy); out.Changed != 1 || len(out.Notes) != 1 || !strings.Contains(out.Notes[0], "not recorded; for these they are 0 in a") {
		t.Errorf("report %v", out)
	}
	d.Facts = `{"user":{},"omitted":["interaction.tags"]}`
	if rec, err := newRecorded(d); err != nil || !rec.cut {
		t.Errorf("%+v, %v", rec, err)
	}
}

func TestBacktestOverTheAPI(t *testing.T) {
	s := newStack(t, "default", "other")
	client, _ := s.start(t)
	s.broker.Write(t, input(many(0, 5, nil)...)...)
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if _, err := client.Explain(s.as(t, "default"), &policyv1.ExplainRequest{SignalId: "sg_4"}); err == nil {
			break
		} else if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
	run := func(project string, req *policyv1.BacktestRequest) (*policyv1.BacktestReport, error) {
		stream, err := client.Backtest(s.as(t, project), req)
		if err != nil {
			return nil, err
		}
		var report *policyv1.BacktestReport
		for {
			body, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return report, nil
			}
			if err != nil {
				return nil, err
			}
			line := &policyv1.BacktestResponse{}
			if !json.Valid(body.Data) || protojson.Unmarshal(body.Data, line) != nil {
				t.Fatalf("line %s", body.Data)
			}
			report = line.Report
		}
	}
	all := &policyv1.BacktestRequest{Since: timestamppb.New(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)), Until: timestamppb.New(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC))}
	if r, err := run("default", all); err != nil || r.GetSignals() != 5 || r.GetChanged() != 0 {
		t.Errorf("the policy in force: %v, %v", r, err)
	}
	if r, err := run("other", all); err != nil || r == nil || r.GetSignals() != 0 {
		t.Errorf("another project: %v, %v", r, err)
	}
	next := proto.CloneOf(all)
	next.Yaml, next.Minutes = routeAll("product"), map[string]float64{"product": 60}
	if r, err := run("default", next); err != nil || r.GetChanged() != 5 || r.GetCost().GetHoursAfter() != 5 {
		t.Errorf("a new policy: %v, %v", r, err)
	}
	for name, change := range map[string]func(*policyv1.BacktestRequest){
		"yaml":    func(r *policyv1.BacktestRequest) { r.Yaml = "nope" },
		"since":   func(r *policyv1.BacktestRequest) { r.Since = r.Until },
		"minutes": func(r *policyv1.BacktestRequest) { r.Minutes = map[string]float64{"revue": 1} },
	} {
		req := proto.CloneOf(all)
		change(req)
		if _, err := run("default", req); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// BenchmarkBacktest runs the default policy, with one rule changed, over
// 100,000 stored decisions.
func BenchmarkBacktest(b *testing.B) {
	const signals = 100_000
	bench := newBench(b)
	for first := 0; first < signals; first += 500 {
		css := many(first, 500, nil)
		for i, cs := range css {
			cs.Signal.Tags = map[string]string{"plan": "pro", "channel": "web"}
			cs.Case.CaseId = fmt.Sprint("cs_", (first+i)%2000)
			cs.Signal.OccurredAt = timestamppb.New(time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(first+i) * 20 * time.Second))
			if i%2 == 0 {
				tone(cs)
			}
		}
		if _, err := bench.Process(b.Context(), input(css...)); err != nil {
			b.Fatal(err)
		}
	}
	policy, err := CompilePolicy("new.yaml", []byte(strings.Replace(string(defaultPolicyYAML), "routes: [prompt-patch]", "routes: [human-review]", 1)))
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if r := bench.backtest(b, policy); r.Signals != signals || r.Changed == 0 {
			b.Fatal(r)
		}
	}
	b.ReportMetric(float64(signals)*float64(b.N)/b.Elapsed().Seconds(), "signals/s")
}
