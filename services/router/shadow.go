package router

import (
	"context"
	"errors"
	"fmt"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/honeloop/hone/pkg/clickhouse"
	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	curationv1 "github.com/honeloop/hone/proto/gen/go/hone/curation/v1"
	policyv1 "github.com/honeloop/hone/proto/gen/go/hone/policy/v1"
)

// shadow is a policy that runs, or ran, beside the live one. It sees the same
// facts; what it decides is written beside the decisions, and goes nowhere.
type shadow struct {
	info   *policyv1.Shadow
	policy *Policy // nil where this build cannot compile it
}

// runs says whether the shadow decides signals at a time.
func (s *shadow) runs(at time.Time) bool {
	return s != nil && s.policy != nil && s.info.Running && !at.Before(s.info.GetStartedAt().AsTime()) && at.Before(s.info.GetEndsAt().AsTime())
}

// shadowOf is the latest shadow of a project, or nil.
func (p *policies) shadowOf(project string) *shadow {
	p.mu.RLock()
	defer p.mu.RUnlock()
	return p.shadows[project]
}

// shadowsOf are the shadows of a batch's projects.
func (p *policies) shadowsOf(news []*casesv1.CaseSignal) map[string]*shadow {
	out := map[string]*shadow{}
	for _, cs := range news {
		project := cs.Signal.GetProjectId()
		if _, ok := out[project]; !ok {
			out[project] = p.shadowOf(project)
		}
	}
	return out
}

// setShadow starts or ends a shadow, by an event of the log.
func (p *policies) setShadow(event *curationv1.CurationEvent, sh *curationv1.PolicyShadowed) {
	project := event.GetProjectId()
	var next *shadow
	if sh.GetYaml() == "" {
		if last := p.shadowOf(project); last != nil && last.info.GetShadowId() == sh.GetShadowId() && last.info.Running {
			info := proto.CloneOf(last.info)
			info.Running, info.EndsAt = false, event.GetOccurredAt()
			next = &shadow{info, last.policy}
		}
	} else {
		policy, err := CompilePolicy("policy", []byte(sh.GetYaml()))
		if err != nil {
			p.refused(project, 0, fmt.Errorf("shadow %s: %w", sh.GetShadowId(), err))
		}
		next = &shadow{&policyv1.Shadow{ShadowId: sh.GetShadowId(), PolicyVersion: sh.GetPolicyVersion(), Author: sh.GetAuthor(), Note: sh.GetNote(),
			StartedAt: sh.GetStartedAt(), EndsAt: sh.GetEndsAt(), Running: true}, policy}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if next != nil {
		p.shadows[project] = next
	}
	for _, w := range p.heard[event.GetCurationId()] {
		close(w)
	}
	delete(p.heard, event.GetCurationId())
}

// hear is closed when the event was read back. Ask before it is appended.
func (p *policies) hear(curationID string) (heard <-chan struct{}, cancel func()) {
	w := make(chan struct{})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.heard[curationID] = append(p.heard[curationID], w)
	return w, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.heard, curationID) // whoever waits for the same event has the same wait
	}
}

// shadowRow is a row of shadow_decisions_log.
type shadowRow struct {
	*policyv1.Decision
	shadowID string
}

func shadowsTable() clickhouse.Table[*shadowRow] {
	type r = *shadowRow
	return clickhouse.Table[r]{Name: "shadow_decisions_log", Columns: []clickhouse.Column[r]{
		clickhouse.Col("project_id", func(d r) string { return d.ProjectId }),
		clickhouse.Col("shadow_id", func(d r) string { return d.shadowID }),
		clickhouse.Col("session_id", func(d r) string { return d.SessionId }),
		clickhouse.Col("signal_id", func(d r) string { return d.SignalId }),
		clickhouse.Col("signal_revision", func(d r) uint32 { return d.SignalRevision }),
		clickhouse.Col("policy_version", func(d r) string { return d.PolicyVersion }),
		clickhouse.Col("rule", func(d r) string { return d.Rule }),
		clickhouse.Col("routes", func(d r) []string { return d.Routes }),
		clickhouse.Col("priority", func(d r) string { return d.Priority }),
		clickhouse.Col("hold_until", func(d r) uint32 { return d.HoldUntil }),
		clickhouse.Col("occurred_at", func(d r) time.Time { return d.GetOccurredAt().AsTime() }),
		clickhouse.Col("decided_at", func(d r) time.Time { return d.GetDecidedAt().AsTime() }),
		clickhouse.Col("payload", func(d r) string { return string(encode(d.Decision)) }),
	}}
}

// shadow decides a signal by the project's shadow, where one runs.
func (b *batch) shadow(live *saved, facts *Facts) {
	sh := b.shadows[live.ProjectId]
	if !sh.runs(live.GetDecidedAt().AsTime()) {
		return
	}
	period := func(rule string) limitKey {
		return limitKey{live.ProjectId, rule, sh.policy.limitOf(rule).start(live.GetOccurredAt().AsTime())}
	}
	v := sh.policy.Decide(facts, Situation{ProjectID: live.ProjectId, SignalID: live.SignalId, Taken: func(rule string) int64 {
		seen := b.known.shadowTaken[period(rule)]
		n := int64(len(seen))
		if seen[live.SignalId] {
			n--
		}
		return n
	}})
	if sh.policy.limitOf(v.Rule).count > 0 {
		k := period(v.Rule)
		if b.known.shadowTaken[k] == nil {
			b.known.shadowTaken[k] = map[string]bool{}
		}
		b.known.shadowTaken[k][live.SignalId] = true
	}
	d := &policyv1.Decision{
		DecisionId: live.DecisionId, ProjectId: live.ProjectId, SessionId: live.SessionId, SignalId: live.SignalId, SignalRevision: live.SignalRevision,
		CaseId: live.CaseId, PolicyVersion: sh.policy.Version(), Rule: v.Rule, Routes: v.Routes, Priority: v.Priority, Reason: v.Reason,
		HoldUntil: v.HoldUntil, HeldRoutes: v.HeldRoutes, DecidedAt: live.DecidedAt, OccurredAt: live.OccurredAt,
	}
	for _, res := range v.Results {
		d.Rules = append(d.Rules, res.proto())
	}
	b.shadowRows = append(b.shadowRows, &shadowRow{d, sh.info.GetShadowId()})
}

// shadowTaken reads the signals that the limited rules of running shadows took
// in the periods of new revisions.
func (s *store) shadowTaken(ctx context.Context, news []*casesv1.CaseSignal, shadows map[string]*shadow, now time.Time, into map[limitKey]map[string]bool) error {
	type span struct {
		shadow   *shadow
		from, to time.Time
	}
	spans := map[limitKey]*span{} // by project and rule
	for _, cs := range news {
		project, at := cs.Signal.GetProjectId(), cs.Signal.GetOccurredAt().AsTime()
		sh := shadows[project]
		if !sh.runs(now) {
			continue
		}
		for i := range sh.policy.rules {
			r := &sh.policy.rules[i]
			if r.limit.count == 0 {
				continue
			}
			from := r.limit.start(at)
			to := from.Add(periodOf(r.limit))
			k := limitKey{project: project, rule: r.name}
			if spans[k] == nil {
				spans[k] = &span{sh, from, to}
			}
			if from.Before(spans[k].from) {
				spans[k].from = from
			}
			if to.After(spans[k].to) {
				spans[k].to = to
			}
		}
	}
	for k, sp := range spans {
		rows, err := s.conn.Query(ctx, `SELECT DISTINCT signal_id, occurred_at FROM shadow_decisions_log
			WHERE project_id = ? AND shadow_id = ? AND rule = ? AND occurred_at >= ? AND occurred_at < ?`,
			k.project, sp.shadow.info.GetShadowId(), k.rule, sp.from, sp.to)
		if err != nil {
			return fmt.Errorf("count limits of a shadow: %w", err)
		}
		for rows.Next() {
			var signal string
			var at time.Time
			if err := rows.Scan(&signal, &at); err != nil {
				return fmt.Errorf("count limits of a shadow: %w", errors.Join(err, rows.Close()))
			}
			period := limitKey{k.project, k.rule, sp.shadow.policy.limitOf(k.rule).start(at)}
			if into[period] == nil {
				into[period] = map[string]bool{}
			}
			into[period][signal] = true
		}
		if err := errors.Join(rows.Err(), rows.Close()); err != nil {
			return fmt.Errorf("count limits of a shadow: %w", err)
		}
	}
	return nil
}

// reportShadow compares what a shadow decided with the decisions that are
// current.
func (s *store) reportShadow(ctx context.Context, project string, sh *shadow, r *report, progress func(done, total uint32) error) error {
	const pairs = `FROM (SELECT session_id, signal_id, signal_revision, payload FROM shadow_decisions_log FINAL WHERE project_id = ? AND shadow_id = ?) AS s
		INNER JOIN (SELECT session_id, signal_id, signal_revision, payload, occurred_at, decision_id FROM decisions_log FINAL
			WHERE project_id = ? AND superseded_by = 0 AND decided_at >= ?) AS d
			ON s.session_id = d.session_id AND s.signal_id = d.signal_id AND s.signal_revision = d.signal_revision`
	args := []any{project, sh.info.GetShadowId(), project, sh.info.GetStartedAt().AsTime()}
	var total uint64
	if err := s.conn.QueryRow(ctx, "SELECT count() "+pairs, args...).Scan(&total); err != nil {
		return fmt.Errorf("count decisions of a shadow: %w", err)
	}
	if total > maxBacktest {
		return &tooLongError{total}
	}
	ctx = ch.Context(ctx, ch.WithSettings(ch.Settings{"max_bytes_before_external_sort": backtestSort}))
	rows, err := s.conn.Query(ctx, "SELECT d.payload, s.payload "+pairs+" ORDER BY d.occurred_at, d.decision_id", args...)
	if err != nil {
		return fmt.Errorf("read decisions of a shadow: %w", err)
	}
	defer rows.Close()
	again := newReplay(sh.policy)
	var live, shadowed []byte
	for done := uint32(0); rows.Next(); done++ {
		if done%progressEvery == 0 {
			if err := progress(done, uint32(total)); err != nil {
				return err
			}
		}
		d, v := &policyv1.Decision{}, &policyv1.Decision{}
		if err := rows.Scan(&live, &shadowed); err != nil {
			return fmt.Errorf("read decisions of a shadow: %w", err)
		}
		if err := errors.Join(proto.Unmarshal(live, d), proto.Unmarshal(shadowed, v)); err != nil {
			return fmt.Errorf("read decisions of a shadow: %w", err)
		}
		rec, err := newRecorded(d)
		if err != nil {
			return err
		}
		if rec.facts == nil {
			r.Withdrawn++
			continue
		}
		again.compare(rec, Verdict{Rule: v.Rule, Routes: v.Routes, Priority: v.Priority, Reason: v.Reason, HoldUntil: v.HoldUntil, HeldRoutes: v.HeldRoutes}, r)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read decisions of a shadow: %w", err)
	}
	again.finish(r)
	return nil
}

// at is the shadow as callers see it at a time.
func (s *shadow) at(now time.Time) *policyv1.Shadow {
	info := proto.CloneOf(s.info)
	info.Running = s.runs(now)
	return info
}

// span is the time that the shadow has covered.
func (s *shadow) span(now time.Time) (since, until time.Time) {
	since, until = s.info.GetStartedAt().AsTime(), s.info.GetEndsAt().AsTime()
	if now.Before(until) {
		until = now
	}
	return since, until
}

func newShadowed(project string, req *policyv1.StartShadowRequest, policy *Policy, id string, now, ends time.Time) *curationv1.PolicyShadowed {
	return &curationv1.PolicyShadowed{ShadowId: id, PolicyVersion: policy.Version(), Yaml: req.GetYaml(), Author: req.GetAuthor(), Note: req.GetNote(),
		StartedAt: timestamppb.New(now), EndsAt: timestamppb.New(ends)}
}
