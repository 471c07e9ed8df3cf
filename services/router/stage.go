package router

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/honeloop/hone/pkg/clickhouse"
	"github.com/honeloop/hone/pkg/ids"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/telemetry"
	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	policyv1 "github.com/honeloop/hone/proto/gen/go/hone/policy/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"
)

// router is the stage on hone.cases. A revision of a signal is decided once;
// the decision is stored before it is published. So:
//
//   - A revision that is stored is published again as it is stored, for the
//     last attempt may have ended between store and publish. That covers all
//     that the signal's earlier revisions left to be withdrawn.
//   - A revision older than the newest stored one has no effect.
//   - A newer one supersedes it, and takes back the routes it does not share.
//   - A held one is let go by a record on hone.cases, under its own key, so that
//     the owner of its partition does it in order with its revisions. See hold.go.
type router struct {
	store    *store
	policies *policies
	now      func() time.Time
	tel      *telemetry.Telemetry
	signals  metric.Int64Counter
	errors   metric.Int64Counter
	omitted  metric.Int64Counter
}

func newRouter(st *store, policies *policies, now func() time.Time, tel *telemetry.Telemetry) (*router, error) {
	r := &router{store: st, policies: policies, now: now, tel: tel}
	var errs [3]error
	r.signals, errs[0] = tel.Meter.Int64Counter("hone.router.signals",
		metric.WithDescription("Signals by result: decided, released (held before), repeated (published again as stored) or stale (older than the stored revision, no effect)."))
	r.errors, errs[1] = tel.Meter.Int64Counter("hone.router.rule_errors",
		metric.WithDescription("Conditions that could not be evaluated, by rule."))
	r.omitted, errs[2] = tel.Meter.Int64Counter("hone.router.omitted_fields",
		metric.WithDescription("Fields left out of events that would be too large for Kafka, by field. The events name them."))
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("create metrics: %w", err)
	}
	return r, nil
}

// Process implements stage.Stage.
func (r *router) Process(ctx context.Context, in []stage.Record) ([]stage.Record, error) {
	var failed *stage.BatchError
	values := make([]*casesv1.CaseSignal, len(in))
	keys, released := map[signalKey]bool{}, map[signalKey]bool{}
	for i, rec := range in {
		cs, err := decode(rec.Value)
		if err != nil {
			failed = failed.Fail(i, err)
			continue
		}
		values[i] = cs
		switch {
		case cs.Signal != nil:
			keys[keyOf(cs.Signal)] = true
		case cs.Release != nil:
			keys[releaseKey(cs)] = true
			released[releaseKey(cs)] = true
		}
	}
	histories, err := r.store.load(ctx, keys)
	if err != nil {
		return nil, err
	}

	var news []*casesv1.CaseSignal
	for _, cs := range values {
		if s := cs.GetSignal(); s != nil && s.Revision > histories[keyOf(s)].newest() {
			news = append(news, cs)
		}
	}
	policies := r.policies.ofAll(news)
	known, err := r.store.counts(ctx, news, policies)
	if err != nil {
		return nil, err
	}
	shadows := r.policies.shadowsOf(news)
	if err := r.store.shadowTaken(ctx, news, shadows, r.now(), known.shadowTaken); err != nil {
		return nil, err
	}
	heldSignals, err := r.store.heldSignals(ctx, released)
	if err != nil {
		return nil, err
	}
	b := batch{router: r, heldSignals: heldSignals, shadows: shadows, histories: histories, policies: policies, known: known, cases: map[caseKey]*casesv1.Case{}, done: map[string]bool{},
		results: map[string]int64{}, ruleErrors: map[string]int64{}, omissions: map[string]int64{}}
	for i, cs := range values {
		if cs == nil {
			continue
		}
		if err := b.add(cs, &output{headers: eventHeaders(in[i])}); err != nil {
			failed = failed.Fail(i, err)
		}
	}
	// Before the decisions, as a revision that has one is not decided again.
	if err := shadowsTable().Insert(ctx, r.store.conn, b.shadowRows); err != nil {
		return nil, err
	}
	if err := r.store.save(ctx, b.cases, histories); err != nil {
		return nil, err
	}
	// Whoever stores the last of a signal that is held, and a case that is large
	// enough, finds the other.
	releases, err := r.store.releasable(ctx, b.cases)
	if err != nil {
		return nil, err
	}
	b.out = append(b.out, releases...)
	b.count(ctx)
	return b.out, failed.ErrorOrNil()
}

// decode reads a record and checks what later steps rely on.
func decode(value []byte) (*casesv1.CaseSignal, error) {
	cs := &casesv1.CaseSignal{}
	if err := proto.Unmarshal(value, cs); err != nil {
		return nil, fmt.Errorf("decode CaseSignal: %w", err)
	}
	s, c := cs.Signal, cs.Case
	if s == nil && c == nil {
		return nil, errors.New("CaseSignal has neither signal nor case")
	}
	var errs []error
	require := func(name, value string) {
		if value == "" {
			errs = append(errs, fmt.Errorf("%s is missing", name))
		}
	}
	stored := func(name string, t *timestamppb.Timestamp) {
		if t == nil {
			return
		}
		if err := errors.Join(t.CheckValid(), clickhouse.CheckTime(t.AsTime())); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	if s != nil {
		require("signal.signal_id", s.SignalId)
		require("signal.project_id", s.ProjectId)
		require("signal.session_id", s.SessionId)
		if s.Revision == 0 {
			errs = append(errs, errors.New("signal.revision is missing"))
		}
		stored("signal.occurred_at", s.OccurredAt)
		stored("signal.session_started_at", s.SessionStartedAt)
	}
	if c != nil {
		require("case.case_id", c.CaseId)
		require("case.project_id", c.ProjectId)
		if s != nil && c.ProjectId != s.ProjectId {
			errs = append(errs, fmt.Errorf("case belongs to project %q, its signal to %q", c.ProjectId, s.ProjectId))
		}
		stored("case.first_seen", c.FirstSeen)
		stored("case.last_seen", c.LastSeen)
		stored("case.approved_at", c.ApprovedAt)
	}
	if r := cs.Release; r != nil {
		require("release.signal_id", r.SignalId)
		require("release.session_id", r.SessionId)
		require("release.decision_id", r.DecisionId)
		if c == nil || s != nil {
			errs = append(errs, errors.New("a release wants a case and no signal"))
		}
	}
	return cs, errors.Join(errs...)
}

func keyOf(s *signalv1.Signal) signalKey { return signalKey{s.ProjectId, s.SessionId, s.SignalId} }

// batch is the work of one Process.
type batch struct {
	*router
	histories map[signalKey]history
	policies  map[string]*Policy
	known     *counts
	// shadows by project, and what they decided.
	shadows    map[string]*shadow
	shadowRows []*shadowRow
	// heldSignals are those that are to be let go, as the trail has them.
	heldSignals map[signalKey]*signalv1.Signal
	cases       map[caseKey]*casesv1.Case
	out         []stage.Record
	// done are the decisions whose events are in out.
	done map[string]bool

	results    map[string]int64
	ruleErrors map[string]int64
	omissions  map[string]int64
}

// add handles one input. After an error it has changed nothing.
func (b *batch) add(cs *casesv1.CaseSignal, out *output) error {
	s := cs.Signal
	if cs.Release != nil {
		return b.release(cs, out)
	}
	if s == nil {
		b.snapshot(cs.Case)
		return nil
	}
	h := b.histories[keyOf(s)]
	newest := h.newest()
	switch {
	case s.Revision < newest:
		b.results["stale"]++
	case s.Revision == newest:
		d := h[len(h)-1]
		if b.done[d.DecisionId] {
			break // came twice in this batch
		}
		if err := out.again(h, cs); err != nil {
			return err
		}
		b.publish(d, out)
		b.results["repeated"]++
		h.repair()
	default:
		policy := b.policies[s.ProjectId]
		var last *saved
		if len(h) > 0 {
			last = h[len(h)-1]
			b.known.count(last, -1)
		}
		d, facts, err := b.decide(cs, policy, b.known, h)
		if err == nil {
			err = out.next(h, d, cs)
		}
		if err != nil {
			if last != nil {
				b.known.count(last, 1)
			}
			return err
		}
		b.known.count(d, 1)
		b.known.take(d, h, policy)
		if facts != nil {
			b.shadow(d, facts)
		}
		b.publish(d, out)
		b.results["decided"]++
		for _, res := range d.Rules {
			if res.Error != "" {
				b.ruleErrors[res.Rule]++
			}
		}
		h = append(h, d)
		h.repair()
		b.histories[keyOf(s)] = h
	}
	b.snapshot(cs.Case)
	return nil
}

func (b *batch) publish(d *saved, out *output) {
	b.done[d.DecisionId] = true
	b.out = append(b.out, out.records...)
	for _, field := range out.omitted {
		b.omissions[field]++
	}
}

// snapshot keeps the newest snapshot of each case.
func (b *batch) snapshot(c *casesv1.Case) {
	if c == nil {
		return
	}
	k := caseKey{c.ProjectId, c.CaseId}
	if old := b.cases[k]; old == nil || caseVersion(c) >= caseVersion(old) {
		b.cases[k] = c
	}
}

// count adds the batch to the metrics.
func (b *batch) count(ctx context.Context) {
	for result, n := range b.results {
		b.signals.Add(ctx, n, metric.WithAttributes(attribute.String("result", result)))
	}
	for field, n := range b.omissions {
		b.omitted.Add(ctx, n, metric.WithAttributes(attribute.String("field", field)))
	}
	for rule, n := range b.ruleErrors {
		b.errors.Add(ctx, n, metric.WithAttributes(attribute.String("rule", rule)))
		b.tel.Log.WarnContext(ctx, "a rule's condition could not be evaluated, so the rule was passed over; the decisions say why",
			"rule", rule, "signals", n)
	}
}

// decide applies a policy to a revision that has no decision yet. The facts are
// nil where the signal is withdrawn.
func (r *router) decide(cs *casesv1.CaseSignal, policy *Policy, known *counts, h history) (*saved, *Facts, error) {
	s := cs.Signal
	d := &policyv1.Decision{
		DecisionId:     ids.Derive("dc", s.ProjectId, s.SignalId, fmt.Sprint(s.Revision), policy.Version()),
		ProjectId:      s.ProjectId,
		SignalId:       s.SignalId,
		SignalRevision: s.Revision,
		SessionId:      s.SessionId,
		InteractionId:  s.InteractionId,
		CaseId:         cs.GetCase().GetCaseId(),
		PolicyVersion:  policy.Version(),
		// The store keeps milliseconds, and what is published again must be the same.
		DecidedAt:  timestamppb.New(r.now().UTC().Truncate(time.Millisecond)),
		OccurredAt: s.OccurredAt,
	}
	if s.Withdrawn {
		d.Rule, d.Reason = RuleWithdrawn, "The feedback was withdrawn, so nothing is done with it."
		return newSaved(d, s), nil, nil
	}
	facts := NewFacts(cs)
	known.fill(facts, s, d.CaseId)
	v := policy.Decide(facts, known.situation(s, h, policy))
	d.HoldUntil, d.HeldRoutes = v.HoldUntil, v.HeldRoutes
	d.Rule, d.Routes, d.Priority, d.Reason = v.Rule, v.Routes, v.Priority, v.Reason
	for _, res := range v.Results {
		d.Rules = append(d.Rules, res.proto())
	}
	var err error
	if d.Facts, err = facts.JSON(); err != nil {
		return nil, nil, err
	}
	return newSaved(d, s), facts, nil
}

// newest is the newest revision; 0 where there is none.
func (h history) newest() uint32 {
	if len(h) == 0 {
		return 0
	}
	return h[len(h)-1].SignalRevision
}

// repair marks every decision but the last as superseded by the next one.
func (h history) repair() {
	for i := range len(h) - 1 {
		h[i].supersede(h[i+1].SignalRevision)
	}
}

// next adds the events of a decision that follows those of h.
func (o *output) next(h history, d *saved, cs *casesv1.CaseSignal) error {
	if err := o.routed(d, cs); err != nil || len(h) == 0 {
		return err
	}
	last := h[len(h)-1]
	for _, route := range last.Routes {
		if slices.Contains(d.Routes, route) && d.place(route) == last.place(route) {
			continue
		}
		if err := o.withdrawn(last, d, route); err != nil {
			return err
		}
	}
	return nil
}

// again adds the events of the last decision of h, and of all that was ever
// withdrawn and did not come back: which of these were published before is not
// known.
func (o *output) again(h history, cs *casesv1.CaseSignal) error {
	last := h[len(h)-1]
	if err := o.routed(last, cs); err != nil {
		return err
	}
	var held []string
	for _, route := range last.Routes {
		held = append(held, last.place(route))
	}
	for i := len(h) - 2; i >= 0; i-- {
		for _, route := range h[i].Routes {
			if slices.Contains(held, h[i].place(route)) {
				continue
			}
			held = append(held, h[i].place(route))
			if err := o.withdrawn(h[i], h[i+1], route); err != nil {
				return err
			}
		}
	}
	return nil
}
