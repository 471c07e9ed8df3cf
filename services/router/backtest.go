package router

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	policyv1 "github.com/honeloop/hone/proto/gen/go/hone/policy/v1"
)

// Limits of a backtest.
const (
	maxBacktest   = 1_000_000 // decisions
	progressEvery = 2000      // decisions
	maxChanges    = 50
	maxExamples   = 3
	maxRuleNames  = 500 // names in a report that come from other policies
	// Bytes that ClickHouse sorts in memory, and then on disk.
	backtestSort = 256 << 20
)

// What stands for no route in reports.
const (
	nothing = "nothing"
	held    = "held"
)

// defaultMinutes is what a signal on a route costs people, roughly.
func defaultMinutes() map[string]float64 {
	return map[string]float64{RouteHumanReview: 4, RouteProduct: 10, RoutePromptPatch: 2, RouteFineTune: 0.5, RouteAlert: 5}
}

// recorded is a decision of the past.
type recorded struct {
	*policyv1.Decision
	facts *Facts
	// cut is whether facts were too long to be kept.
	cut bool
	// uncounted is whether the decision is from before facts were counted.
	uncounted bool
}

func newRecorded(d *policyv1.Decision) (*recorded, error) {
	r := &recorded{Decision: d}
	if d.Facts == "" {
		return r, nil // withdrawn
	}
	var stored struct {
		Facts
		User    *UserFacts `json:"user"`
		Omitted []string   `json:"omitted"`
	}
	if err := json.Unmarshal([]byte(d.Facts), &stored); err != nil {
		return nil, fmt.Errorf("read the facts of decision %s: %w", d.DecisionId, err)
	}
	r.facts = &stored.Facts
	if stored.User != nil {
		r.facts.User = *stored.User
	}
	r.cut, r.uncounted = len(stored.Omitted) > 0, stored.User == nil
	return r, nil
}

// replay decides the past anew. What a decision under the same policy saw of
// its limits is taken as it was recorded, so the policy that decided decides the
// same again. Under another policy limits are counted anew, in the order of
// the signals' time.
type replay struct {
	policy *Policy
	taken  map[limitKey]map[string]bool // signals
	// reached is the most negative signals that each case had.
	reached map[string]int64
	// waiting are current decisions whose signals the policy holds.
	waiting []waiting
}

type waiting struct {
	*recorded
	verdict Verdict
}

func newReplay(policy *Policy) *replay {
	return &replay{policy: policy, taken: map[limitKey]map[string]bool{}, reached: map[string]int64{}}
}

// add replays the next decision, and reports on it where it is current.
func (r *replay) add(d *recorded, to *report) {
	r.compare(d, r.decide(d), to)
}

// compare reports on a decision and what was decided in its place.
func (r *replay) compare(d *recorded, v Verdict, to *report) {
	r.reached[d.CaseId] = max(r.reached[d.CaseId], d.facts.Case.Negatives)
	switch {
	case d.Superseded:
	case v.HoldUntil == 0:
		to.add(d, v)
	case d.PolicyVersion == r.policy.Version():
		// It is known whether the signal was let go.
		if d.ReleasedFrom != "" {
			v.let()
		}
		to.add(d, v)
	default:
		r.waiting = append(r.waiting, waiting{d, v})
	}
}

// finish lets those signals go whose case became large enough, and reports on
// all that were held.
func (r *replay) finish(to *report) {
	for _, w := range r.waiting {
		to.heldAnew++
		if r.reached[w.CaseId] >= int64(w.verdict.HoldUntil) {
			w.verdict.let()
		}
		to.add(w.recorded, w.verdict)
	}
}

// let lets a held signal go.
func (v *Verdict) let() { v.Routes, v.HeldRoutes, v.HoldUntil = v.HeldRoutes, nil, 0 }

func (r *replay) decide(d *recorded) Verdict {
	period := func(rule string) limitKey {
		return limitKey{d.ProjectId, rule, r.policy.limitOf(rule).start(d.GetOccurredAt().AsTime())}
	}
	v := r.policy.Decide(d.facts, Situation{ProjectID: d.ProjectId, SignalID: d.SignalId, Taken: func(rule string) int64 {
		if d.PolicyVersion == r.policy.Version() {
			for _, res := range d.Rules {
				if res.Rule == rule && res.Taken != nil {
					return int64(res.GetTaken())
				}
			}
		}
		seen := r.taken[period(rule)]
		n := int64(len(seen))
		if seen[d.SignalId] {
			n-- // by an earlier revision
		}
		return n
	}})
	if r.policy.limitOf(v.Rule).count > 0 {
		k := period(v.Rule)
		if r.taken[k] == nil {
			r.taken[k] = map[string]bool{}
		}
		r.taken[k][d.SignalId] = true
	}
	return v
}

// report collects differences.
type report struct {
	*policyv1.BacktestReport
	minutes                          map[string]float64
	routes, rules, decidedBy, review map[string]*policyv1.BacktestCount
	changes                          map[string]*policyv1.BacktestChange
	uncounted, heldAnew              uint32
}

func newReport(version string, since, until time.Time, minutes map[string]float64) *report {
	r := &report{
		BacktestReport: &policyv1.BacktestReport{PolicyVersion: version, Since: timestamppb.New(since), Until: timestamppb.New(until)},
		minutes:        defaultMinutes(),
		routes:         map[string]*policyv1.BacktestCount{}, rules: map[string]*policyv1.BacktestCount{},
		decidedBy: map[string]*policyv1.BacktestCount{}, review: map[string]*policyv1.BacktestCount{},
		changes: map[string]*policyv1.BacktestChange{},
	}
	maps.Copy(r.minutes, minutes)
	return r
}

func counter(m map[string]*policyv1.BacktestCount, name string) *policyv1.BacktestCount {
	if m[name] == nil {
		m[name] = &policyv1.BacktestCount{Name: name}
	}
	return m[name]
}

// add compares a current decision with what would be decided.
func (r *report) add(d *recorded, v Verdict) {
	r.Signals++
	if d.uncounted {
		r.uncounted++
	}
	before, after := ways(d.Routes, d.HoldUntil), ways(v.Routes, v.HoldUntil)
	day := d.GetOccurredAt().AsTime().UTC().Format(time.DateOnly)
	for _, route := range before {
		counter(r.routes, route).Before++
		if route == RouteHumanReview {
			counter(r.review, day).Before++
		}
	}
	for _, route := range after {
		counter(r.routes, route).After++
		if route == RouteHumanReview {
			counter(r.review, day).After++
		}
	}
	rule := d.Rule
	if r.rules[rule] == nil && len(r.rules) >= maxRuleNames {
		rule = "other rules"
	}
	counter(r.rules, rule).Before++
	counter(r.rules, v.Rule).After++
	counter(r.decidedBy, d.PolicyVersion).Before++

	// Before there were priorities, everything had the normal one.
	was := d.Priority
	if was == "" && len(d.Routes) > 0 {
		was = PriorityNormal
	}
	switch {
	case !slices.Equal(before, after) || was != v.Priority:
		r.Changed++
		r.change(d, v, before, after, was)
	case d.Rule != v.Rule:
		r.OtherRule++
	}
}

func (r *report) change(d *recorded, v Verdict, before, after []string, was string) {
	c := &policyv1.BacktestChange{Before: before, After: after}
	if was != v.Priority && was != "" && v.Priority != "" {
		c.PriorityBefore, c.PriorityAfter = was, v.Priority
	}
	key := fmt.Sprint(before, after, c.PriorityBefore, c.PriorityAfter)
	if r.changes[key] == nil {
		r.changes[key] = c
	}
	c = r.changes[key]
	c.Signals++
	if len(c.Examples) < maxExamples {
		c.Examples = append(c.Examples, &policyv1.BacktestExample{SignalId: d.SignalId, SessionId: d.SessionId, CaseId: d.CaseId,
			RuleBefore: d.Rule, RuleAfter: v.Rule, ReasonAfter: v.Reason})
	}
}

// ways are where a signal goes, in order of names.
func ways(routes []string, holdUntil uint32) []string {
	switch {
	case holdUntil > 0:
		return []string{held}
	case len(routes) == 0:
		return []string{nothing}
	}
	return slices.Sorted(slices.Values(routes))
}

// finish orders what was collected, so that equal histories give equal reports.
func (r *report) finish(policy *Policy) *policyv1.BacktestReport {
	for _, route := range append(allRoutes(), held, nothing) {
		if c := r.routes[route]; c != nil {
			r.Routes = append(r.Routes, c)
		}
	}
	for i := range policy.rules {
		r.Rules = append(r.Rules, counter(r.rules, policy.rules[i].name))
		delete(r.rules, policy.rules[i].name)
	}
	byName := func(m map[string]*policyv1.BacktestCount) (out []*policyv1.BacktestCount) {
		for _, name := range slices.Sorted(maps.Keys(m)) {
			out = append(out, m[name])
		}
		return out
	}
	r.Rules = append(r.Rules, byName(r.rules)...)
	r.DecidedBy, r.Reviews = byName(r.decidedBy), byName(r.review)
	keys := slices.SortedFunc(maps.Keys(r.changes), func(a, b string) int {
		return cmp.Or(cmp.Compare(r.changes[b].Signals, r.changes[a].Signals), strings.Compare(a, b))
	})
	for _, k := range keys[:min(len(keys), maxChanges)] {
		r.Changes = append(r.Changes, r.changes[k])
	}
	r.Cost = &policyv1.BacktestCost{Minutes: r.minutes}
	for _, c := range r.Routes {
		r.Cost.HoursBefore += float64(c.Before) * r.minutes[c.Name] / 60
		r.Cost.HoursAfter += float64(c.After) * r.minutes[c.Name] / 60
	}
	r.note(policy, len(keys))
	return r.BacktestReport
}

func (r *report) note(policy *Policy, changes int) {
	note := func(format string, args ...any) { r.Notes = append(r.Notes, fmt.Sprintf(format, args...)) }
	if r.Signals == 0 {
		note("There are no decisions in this time: nothing to compare with.")
	}
	if changes > maxChanges {
		note("%d kinds of change; the %d most frequent are listed.", changes, maxChanges)
	}
	if r.LeftOut > 0 {
		note("%d signals are left out, since their facts were too long to be kept.", r.LeftOut)
	}
	var counted, limited []string
	for i := range policy.rules {
		if policy.rules[i].counted {
			counted = append(counted, policy.rules[i].name)
		}
		if policy.rules[i].limit.count > 0 {
			limited = append(limited, policy.rules[i].name)
		}
	}
	if len(counted) > 0 && r.uncounted > 0 {
		note("Of %d signals the counts of users, sessions and cases were not recorded; for these they are 0 in %s.", r.uncounted, strings.Join(counted, ", "))
	}
	other := len(r.decidedBy)
	if r.decidedBy[policy.Version()] != nil {
		other--
	}
	if r.heldAnew > 0 {
		note("Of the signals that would be held (%d), those whose case had the number in this time count as let go.", r.heldAnew)
	}
	if len(limited) > 0 && other > 0 {
		note("The limits of %s are counted anew from the beginning of the time, in the order of the signals' time.", strings.Join(limited, ", "))
	}
}

// backtest replays the decisions of a project. progress hears how far it is.
func (s *store) backtest(ctx context.Context, project string, policy *Policy, r *report, progress func(done, total uint32) error) error {
	since, until := r.Since.AsTime(), r.Until.AsTime()
	const where = "project_id = ? AND occurred_at >= ? AND occurred_at < ?"
	var total uint64
	// The log counts rows that are not merged yet, so this may be a little more.
	if err := s.conn.QueryRow(ctx, "SELECT count() FROM decisions_log WHERE "+where, project, since, until).Scan(&total); err != nil {
		return fmt.Errorf("count decisions: %w", err)
	}
	if total > maxBacktest {
		return &tooLongError{total}
	}
	ctx = ch.Context(ctx, ch.WithSettings(ch.Settings{"max_bytes_before_external_sort": backtestSort}))
	rows, err := s.conn.Query(ctx, "SELECT payload FROM decisions_log FINAL WHERE "+where+
		" ORDER BY occurred_at, decision_id SETTINGS do_not_merge_across_partitions_select_final = 1", project, since, until)
	if err != nil {
		return fmt.Errorf("read decisions: %w", err)
	}
	defer rows.Close()
	again := newReplay(policy)
	var payload []byte
	for done := uint32(0); rows.Next(); done++ {
		if done%progressEvery == 0 {
			if err := progress(done, max(done, uint32(total))); err != nil {
				return err
			}
		}
		d := &policyv1.Decision{}
		if err := rows.Scan(&payload); err != nil {
			return fmt.Errorf("read decisions: %w", err)
		}
		if err := proto.Unmarshal(payload, d); err != nil {
			return fmt.Errorf("read decisions: %w", err)
		}
		rec, err := newRecorded(d)
		if err != nil {
			return err
		}
		switch {
		case rec.facts == nil:
			if !d.Superseded {
				r.Withdrawn++
			}
		case rec.cut:
			if !d.Superseded {
				r.LeftOut++
			}
		default:
			again.add(rec, r)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read decisions: %w", err)
	}
	again.finish(r)
	return nil
}

// tooLongError says that a time has too many decisions.
type tooLongError struct{ decisions uint64 }

func (e *tooLongError) Error() string {
	return fmt.Sprintf("since: %d decisions in this time, more than the %d allowed: choose a shorter one", e.decisions, maxBacktest)
}
