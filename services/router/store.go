package router

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/honeloop/hone/pkg/clickhouse"
	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	policyv1 "github.com/honeloop/hone/proto/gen/go/hone/policy/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"
)

// store reads and writes decisions and cases in ClickHouse.
type store struct {
	conn driver.Conn
}

// decisionRow is a row of decisions_log.
type decisionRow struct {
	ProjectID        string    `ch:"project_id"`
	SessionID        string    `ch:"session_id"`
	SignalID         string    `ch:"signal_id"`
	DecisionID       string    `ch:"decision_id"`
	SignalRevision   uint32    `ch:"signal_revision"`
	SupersededBy     uint32    `ch:"superseded_by"`
	InteractionID    string    `ch:"interaction_id"`
	UserID           string    `ch:"user_id"`
	UserRole         string    `ch:"user_role"`
	Environment      string    `ch:"environment"`
	Model            string    `ch:"model"`
	ModelVersion     string    `ch:"model_version"`
	PromptVersion    string    `ch:"prompt_version"`
	Kind             string    `ch:"kind"`
	Polarity         string    `ch:"polarity"`
	Category         string    `ch:"category"`
	Severity         string    `ch:"severity"`
	CaseID           string    `ch:"case_id"`
	PolicyVersion    string    `ch:"policy_version"`
	Rule             string    `ch:"rule"`
	Routes           []string  `ch:"routes"`
	Priority         string    `ch:"priority"`
	HoldUntil        uint32    `ch:"hold_until"`
	Reason           string    `ch:"reason"`
	RuleErrors       []string  `ch:"rule_errors"`
	SessionStartedAt time.Time `ch:"session_started_at"`
	OccurredAt       time.Time `ch:"occurred_at"`
	DecidedAt        time.Time `ch:"decided_at"`
	Payload          string    `ch:"payload"`
}

func decisionsTable() clickhouse.Table[*decisionRow] {
	type r = *decisionRow
	return clickhouse.Table[r]{Name: "decisions_log", Columns: []clickhouse.Column[r]{
		clickhouse.Col("project_id", func(d r) string { return d.ProjectID }),
		clickhouse.Col("session_id", func(d r) string { return d.SessionID }),
		clickhouse.Col("signal_id", func(d r) string { return d.SignalID }),
		clickhouse.Col("decision_id", func(d r) string { return d.DecisionID }),
		clickhouse.Col("signal_revision", func(d r) uint32 { return d.SignalRevision }),
		clickhouse.Col("superseded_by", func(d r) uint32 { return d.SupersededBy }),
		clickhouse.Col("interaction_id", func(d r) string { return d.InteractionID }),
		clickhouse.Col("user_id", func(d r) string { return d.UserID }),
		clickhouse.Col("user_role", func(d r) string { return d.UserRole }),
		clickhouse.Col("environment", func(d r) string { return d.Environment }),
		clickhouse.Col("model", func(d r) string { return d.Model }),
		clickhouse.Col("model_version", func(d r) string { return d.ModelVersion }),
		clickhouse.Col("prompt_version", func(d r) string { return d.PromptVersion }),
		clickhouse.Col("kind", func(d r) string { return d.Kind }),
		clickhouse.Col("polarity", func(d r) string { return d.Polarity }),
		clickhouse.Col("category", func(d r) string { return d.Category }),
		clickhouse.Col("severity", func(d r) string { return d.Severity }),
		clickhouse.Col("case_id", func(d r) string { return d.CaseID }),
		clickhouse.Col("policy_version", func(d r) string { return d.PolicyVersion }),
		clickhouse.Col("rule", func(d r) string { return d.Rule }),
		clickhouse.Col("routes", func(d r) []string { return d.Routes }),
		clickhouse.Col("priority", func(d r) string { return d.Priority }),
		clickhouse.Col("hold_until", func(d r) uint32 { return d.HoldUntil }),
		clickhouse.Col("reason", func(d r) string { return d.Reason }),
		clickhouse.Col("rule_errors", func(d r) []string { return d.RuleErrors }),
		clickhouse.Col("session_started_at", func(d r) time.Time { return d.SessionStartedAt }),
		clickhouse.Col("occurred_at", func(d r) time.Time { return d.OccurredAt }),
		clickhouse.Col("decided_at", func(d r) time.Time { return d.DecidedAt }),
		clickhouse.Col("payload", func(d r) string { return d.Payload }),
	}}
}

func casesTable() clickhouse.Table[*casesv1.Case] {
	type c = *casesv1.Case
	return clickhouse.Table[c]{Name: "cases_log", Columns: []clickhouse.Column[c]{
		clickhouse.Col("project_id", c.GetProjectId),
		clickhouse.Col("case_id", c.GetCaseId),
		clickhouse.Col("version", caseVersion),
		clickhouse.Col("title", c.GetTitle),
		clickhouse.Col("summary", c.GetSummary),
		clickhouse.Col("state", c.GetState),
		clickhouse.Col("assignee", c.GetAssignee),
		clickhouse.Col("merged_into", c.GetMergedInto),
		clickhouse.Col("severity", c.GetSeverity),
		clickhouse.Col("category", mainCategory),
		clickhouse.Col("categories", func(k c) map[string]uint32 { return notNil(k.GetCategories()) }),
		clickhouse.Col("model_versions", func(k c) map[string]uint32 { return notNil(k.GetModelVersions()) }),
		clickhouse.Col("negatives", c.GetNegatives),
		clickhouse.Col("positives", c.GetPositives),
		clickhouse.Col("users", c.GetUsers),
		clickhouse.Col("sessions", c.GetSessions),
		clickhouse.Col("trend", c.GetTrend),
		clickhouse.Col("complaints", c.GetComplaints),
		clickhouse.Col("examples", c.GetExamples),
		clickhouse.Col("has_approved_answer", func(k c) bool { return k.GetApprovedAnswer() != "" }),
		clickhouse.Col("approved_answer", c.GetApprovedAnswer),
		clickhouse.Col("clarification", c.GetClarification),
		clickhouse.Col("approved_by", c.GetApprovedBy),
		clickhouse.Col("approved_at", func(k c) *time.Time {
			if k.GetApprovedAt() == nil {
				return nil
			}
			t := k.GetApprovedAt().AsTime()
			return &t
		}),
		clickhouse.Col("review_id", c.GetReviewId),
		clickhouse.Col("first_seen", func(k c) time.Time { return k.GetFirstSeen().AsTime() }),
		clickhouse.Col("last_seen", func(k c) time.Time { return k.GetLastSeen().AsTime() }),
		clickhouse.Col("payload", func(k c) string { return string(encode(k)) }),
	}}
}

// caseVersion orders the snapshots of a case. Partitions run side by side and
// records come again, so arrival is no order.
func caseVersion(c *casesv1.Case) uint64 {
	if c.GetVersion() > 0 {
		return c.GetVersion()
	}
	var newest int64
	for _, t := range []*timestamppb.Timestamp{c.GetLastSeen(), c.GetApprovedAt()} {
		if t != nil {
			newest = max(newest, t.AsTime().UnixMilli())
		}
	}
	return uint64(newest)
}

// mainCategory is the most frequent one; of equals, the first by name.
func mainCategory(c *casesv1.Case) string {
	var best string
	for _, name := range slices.Sorted(maps.Keys(c.GetCategories())) {
		if c.GetCategories()[name] > c.GetCategories()[best] {
			best = name
		}
	}
	return best
}

func notNil[K comparable, V any](m map[K]V) map[K]V {
	if m == nil {
		return map[K]V{}
	}
	return m
}

// encode marshals deterministically. Marshalling messages that were unmarshalled
// or made of valid strings cannot fail.
func encode(m proto.Message) []byte {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(fmt.Sprintf("encode %T: %v", m, err))
	}
	return data
}

// saved is a decision as it is, or is to be, in the store.
type saved struct {
	*policyv1.Decision
	row *decisionRow
	// changed is true where the store does not have it like this.
	changed bool
}

func newSaved(d *policyv1.Decision, s *signalv1.Signal) *saved {
	in := s.GetInteraction()
	row := &decisionRow{
		ProjectID: d.ProjectId, SessionID: d.SessionId, SignalID: d.SignalId, DecisionID: d.DecisionId,
		SignalRevision: d.SignalRevision, InteractionID: d.InteractionId, UserID: s.GetUserId(),
		UserRole: s.GetUserRole(), Environment: s.GetEnvironment(),
		Model: in.GetModel(), ModelVersion: in.GetModelVersion(), PromptVersion: in.GetPromptVersion(),
		Kind: s.GetKind(), Polarity: s.GetPolarity(), Category: s.GetCategory(), Severity: s.GetSeverity(),
		CaseID: d.CaseId, PolicyVersion: d.PolicyVersion, Rule: d.Rule, Routes: d.Routes, Priority: d.Priority, HoldUntil: d.HoldUntil, Reason: d.Reason,
		SessionStartedAt: s.GetSessionStartedAt().AsTime(), OccurredAt: d.GetOccurredAt().AsTime(),
		DecidedAt: d.GetDecidedAt().AsTime(),
	}
	for _, r := range d.Rules {
		if r.Error != "" {
			row.RuleErrors = append(row.RuleErrors, r.Rule)
		}
	}
	return &saved{Decision: d, row: row, changed: true}
}

// supersede notes the revision that replaced the decision.
func (s *saved) supersede(by uint32) {
	if s.SupersededBy == by {
		return
	}
	s.Superseded, s.SupersededBy, s.row.SupersededBy = true, by, by
	s.changed = true
}

// signalKey names a signal.
type signalKey struct{ project, session, signal string }

// history is the decisions on a signal, by revision.
type history []*saved

// load reads the decisions on the signals in one query.
func (s *store) load(ctx context.Context, keys map[signalKey]bool) (map[signalKey]history, error) {
	out := make(map[signalKey]history, len(keys))
	if len(keys) == 0 {
		return out, nil
	}
	tuples := make([]ch.GroupSet, 0, len(keys))
	for k := range keys {
		tuples = append(tuples, ch.GroupSet{Value: []any{k.project, k.session, k.signal}})
	}
	err := s.query(ctx, out, "(project_id, session_id, signal_id) IN (?)", tuples)
	return out, err
}

// explain reads the decisions on one signal.
func (s *store) explain(ctx context.Context, project, signal string) (history, error) {
	out := map[signalKey]history{}
	if err := s.query(ctx, out, "project_id = ? AND signal_id = ?", project, signal); err != nil {
		return nil, err
	}
	for _, h := range out {
		return h, nil // a signal is in one session
	}
	return nil, nil
}

// maxHistory bounds the decisions that are read of a signal, newest first. It
// is as many as a batch can make, so that a batch that comes again finds all
// that it may not have published.
const maxHistory = 500

// maxQuery bounds the text of a query in bytes. A batch has at most 500
// signals, and the ids of each some kilobytes.
const maxQuery = 8 << 20

func (s *store) query(ctx context.Context, out map[signalKey]history, where string, args ...any) error {
	var columns []string
	for _, c := range decisionsTable().Columns {
		columns = append(columns, c.Name)
	}
	// A batch's signals make a long query; the default is 256 KiB.
	ctx = ch.Context(ctx, ch.WithSettings(ch.Settings{"max_query_size": maxQuery}))
	sql := "SELECT " + strings.Join(columns, ", ") + " FROM decisions_log FINAL WHERE " + where +
		" ORDER BY signal_revision DESC, decided_at DESC" +
		fmt.Sprintf(" LIMIT %d BY project_id, session_id, signal_id", maxHistory) +
		" SETTINGS do_not_merge_across_partitions_select_final = 1"
	rows, err := s.conn.Query(ctx, sql, args...)
	if err != nil {
		return fmt.Errorf("read decisions: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		row := &decisionRow{}
		if err := rows.ScanStruct(row); err != nil {
			return fmt.Errorf("read decisions: %w", err)
		}
		d := &policyv1.Decision{}
		if err := proto.Unmarshal([]byte(row.Payload), d); err != nil {
			return fmt.Errorf("read decision %s: %w", row.DecisionID, err)
		}
		k := signalKey{row.ProjectID, row.SessionID, row.SignalID}
		out[k] = append(out[k], &saved{Decision: d, row: row})
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read decisions: %w", err)
	}
	for _, h := range out {
		slices.Reverse(h)
		// A release follows what it releases, whatever the clocks said.
		slices.SortStableFunc(h, func(a, b *saved) int {
			return cmp.Or(cmp.Compare(a.SignalRevision, b.SignalRevision), strings.Compare(a.ReleasedFrom, b.ReleasedFrom))
		})
	}
	return nil
}

// caseKey names a case.
type caseKey struct{ project, id string }

// save writes snapshots of cases, and those decisions that are not stored as
// they are.
func (s *store) save(ctx context.Context, cases map[caseKey]*casesv1.Case, histories map[signalKey]history) error {
	var rows []*decisionRow
	for _, h := range histories {
		for _, d := range h {
			if d.changed {
				d.row.Payload = string(encode(d.Decision))
				rows = append(rows, d.row)
			}
		}
	}
	slices.SortFunc(rows, func(a, b *decisionRow) int { return strings.Compare(a.DecisionID, b.DecisionID) })
	// Neither needs the other, and each waits for the disk.
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return casesTable().Insert(gctx, s.conn, slices.Collect(maps.Values(cases))) })
	g.Go(func() error { return decisionsTable().Insert(gctx, s.conn, rows) })
	return g.Wait()
}
