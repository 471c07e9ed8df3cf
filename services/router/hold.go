package router

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/ext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/honeloop/hone/pkg/ids"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	policyv1 "github.com/honeloop/hone/proto/gen/go/hone/policy/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"
)

// A held signal and the signal that makes its case large enough may be in two
// partitions, with two routers. Each stores what it has and then looks for what
// the other may have stored, so that one of them finds both. It does not
// let the signal go itself: it appends a Release under the held signal's key,
// and the owner of that partition decides, in order with the signal's
// revisions. A release is a decision of its own, once: a Release that comes
// again publishes it again.

func releaseKey(cs *casesv1.CaseSignal) signalKey {
	return signalKey{cs.GetCase().GetProjectId(), cs.GetRelease().GetSessionId(), cs.GetRelease().GetSignalId()}
}

// release lets a held signal go, if it is still held.
func (b *batch) release(cs *casesv1.CaseSignal, out *output) error {
	k := releaseKey(cs)
	h, s := b.histories[k], b.heldSignals[k]
	if len(h) == 0 || s == nil {
		b.results["stale"]++ // erased in the meantime
		return nil
	}
	last := h[len(h)-1]
	input := &casesv1.CaseSignal{Signal: s, Case: cs.Case}
	switch {
	case s.GetRevision() != last.SignalRevision || s.GetWithdrawn():
		b.results["stale"]++ // a newer revision is on its way, and decided by itself
	case last.ReleasedFrom == cs.GetRelease().GetDecisionId():
		if b.done[last.DecisionId] {
			break
		}
		if err := out.again(h, input); err != nil {
			return err
		}
		b.publish(last, out)
		b.results["repeated"]++
	case last.HoldUntil == 0 || last.DecisionId != cs.GetRelease().GetDecisionId():
		b.results["stale"]++
	default:
		d := last.released(cs.Case, b.now())
		if err := out.next(h, d, input); err != nil {
			return err
		}
		b.publish(d, out)
		b.results["released"]++
		h = append(h, d)
		h.repair()
		b.histories[k] = h
	}
	return nil
}

// released is the decision that lets a held signal go.
func (s *saved) released(c *casesv1.Case, now time.Time) *saved {
	d := proto.CloneOf(s.Decision)
	d.DecisionId = ids.Derive("dc", s.DecisionId, "released")
	d.ReleasedFrom, d.HoldUntil = s.DecisionId, 0
	d.Routes, d.HeldRoutes = s.HeldRoutes, nil
	d.Reason += fmt.Sprintf(" It has %d by now.", c.GetNegatives())
	d.DecidedAt = timestamppb.New(now.UTC().Truncate(time.Millisecond))
	row := *s.row
	row.DecisionID, row.Routes, row.HoldUntil, row.Reason, row.DecidedAt = d.DecisionId, d.Routes, 0, d.Reason, d.DecidedAt.AsTime()
	return &saved{Decision: d, row: &row, changed: true}
}

// maxReleases bounds the releases that one batch appends. A case has 10,000
// members at most; what is above waits for the next signal of its case.
const maxReleases = 20_000

// releasable makes the releases of held signals whose case, as it is stored,
// has what they wait for.
func (s *store) releasable(ctx context.Context, cases map[caseKey]*casesv1.Case) ([]stage.Record, error) {
	if len(cases) == 0 {
		return nil, nil
	}
	wanted, err := ext.NewTable("wanted", ext.Column("project_id", "String"), ext.Column("case_id", "String"))
	if err != nil {
		return nil, fmt.Errorf("look for held signals: %w", err)
	}
	for _, k := range slices.SortedFunc(maps.Keys(cases), func(a, b caseKey) int { return strings.Compare(a.id, b.id) }) {
		if err := wanted.Append(k.project, k.id); err != nil {
			return nil, fmt.Errorf("look for held signals: %w", err)
		}
	}
	rows, err := s.conn.Query(ch.Context(ctx, ch.WithExternalTable(wanted)), `SELECT d.session_id, d.signal_id, d.decision_id, d.signal_revision, c.payload
		FROM (SELECT toString(project_id) AS project_id, case_id, session_id, signal_id, decision_id, signal_revision, hold_until FROM decisions_log FINAL
			WHERE (project_id, case_id) IN (SELECT project_id, case_id FROM wanted) AND superseded_by = 0 AND hold_until > 0
			SETTINGS do_not_merge_across_partitions_select_final = 1) AS d
		INNER JOIN (SELECT toString(project_id) AS project_id, case_id, negatives, payload FROM cases_log FINAL
			WHERE (project_id, case_id) IN (SELECT project_id, case_id FROM wanted)) AS c
			ON d.project_id = c.project_id AND d.case_id = c.case_id
		WHERE c.negatives >= d.hold_until ORDER BY d.decision_id LIMIT `+fmt.Sprint(maxReleases))
	if err != nil {
		return nil, fmt.Errorf("look for held signals: %w", err)
	}
	defer rows.Close()
	var out []stage.Record
	for rows.Next() {
		r, c, payload := &casesv1.Release{}, &casesv1.Case{}, ""
		if err := rows.Scan(&r.SessionId, &r.SignalId, &r.DecisionId, &r.SignalRevision, &payload); err != nil {
			return nil, fmt.Errorf("look for held signals: %w", err)
		}
		if err := proto.Unmarshal([]byte(payload), c); err != nil {
			return nil, fmt.Errorf("read case of held signal %s: %w", r.SignalId, err)
		}
		out = append(out, stage.Record{Topic: stream.TopicCases, Key: stream.SessionKey(c.GetProjectId(), r.SessionId),
			Value: encode(&casesv1.CaseSignal{Case: c, Release: r})})
	}
	return out, rows.Err()
}

// heldSignals reads signals from the trail, by their newest revision.
func (s *store) heldSignals(ctx context.Context, keys map[signalKey]bool) (map[signalKey]*signalv1.Signal, error) {
	out := map[signalKey]*signalv1.Signal{}
	if len(keys) == 0 {
		return out, nil
	}
	tuples := make([]ch.GroupSet, 0, len(keys))
	for k := range keys {
		tuples = append(tuples, ch.GroupSet{Value: []any{k.project, k.session, k.signal}})
	}
	ctx = ch.Context(ctx, ch.WithSettings(ch.Settings{"max_query_size": maxQuery}))
	rows, err := s.conn.Query(ctx, "SELECT payload FROM signals_log FINAL WHERE (project_id, session_id, signal_id) IN (?)", tuples)
	if err != nil {
		return nil, fmt.Errorf("read held signals: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var payload string
		sig := &signalv1.Signal{}
		if err := rows.Scan(&payload); err != nil {
			return nil, fmt.Errorf("read held signals: %w", err)
		}
		if err := proto.Unmarshal([]byte(payload), sig); err != nil {
			return nil, fmt.Errorf("read held signals: %w", err)
		}
		out[keyOf(sig)] = sig
	}
	return out, rows.Err()
}

// held reads the decisions that hold signals now, oldest first.
func (s *store) held(ctx context.Context, project, caseID string, limit int) ([]*policyv1.Decision, error) {
	rows, err := s.conn.Query(ctx, `SELECT payload FROM decisions_log FINAL WHERE project_id = ? AND (? = '' OR case_id = ?)
		AND superseded_by = 0 AND hold_until > 0 ORDER BY decided_at, decision_id LIMIT ?
		SETTINGS do_not_merge_across_partitions_select_final = 1`, project, caseID, caseID, limit)
	if err != nil {
		return nil, fmt.Errorf("read held signals: %w", err)
	}
	defer rows.Close()
	var out []*policyv1.Decision
	for rows.Next() {
		var payload string
		d := &policyv1.Decision{}
		if err := rows.Scan(&payload); err != nil {
			return nil, fmt.Errorf("read held signals: %w", err)
		}
		if err := proto.Unmarshal([]byte(payload), d); err != nil {
			return nil, fmt.Errorf("read held signals: %w", err)
		}
		out = append(out, d)
	}
	return out, rows.Err()
}
