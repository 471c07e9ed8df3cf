package store

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/honeloop/hone/pkg/clickhouse"
)

// Store is the curator's part of ClickHouse. It is safe for concurrent use.
type Store struct{ conn driver.Conn }

// New makes a store on an open pool.
func New(conn driver.Conn) *Store { return &Store{conn} }

// Write inserts a batch. nil means that all of it is stored; after an error
// some may be: write the same batch again, which has the same effect once.
func (s *Store) Write(ctx context.Context, b *Batch) error {
	return errors.Join(
		reviews().Insert(ctx, s.conn, b.Reviews),
		withdrawals().Insert(ctx, s.conn, b.Withdrawals),
		decisions().Insert(ctx, s.conn, b.Decisions),
		datasetRows().Insert(ctx, s.conn, b.DatasetRows),
		patches().Insert(ctx, s.conn, b.Patches),
		issues().Insert(ctx, s.conn, b.Issues),
	)
}

func originColumns[T any](get func(T) Origin) []clickhouse.Column[T] {
	text := func(name string, of func(Origin) string) clickhouse.Column[T] {
		return clickhouse.Col(name, func(r T) string { return of(get(r)) })
	}
	at := func(name string, of func(Origin) time.Time) clickhouse.Column[T] {
		return clickhouse.Col(name, func(r T) time.Time { return of(get(r)) })
	}
	return []clickhouse.Column[T]{
		text("project_id", func(o Origin) string { return o.ProjectID }),
		text("signal_id", func(o Origin) string { return o.SignalID }),
		text("session_id", func(o Origin) string { return o.SessionID }),
		text("interaction_id", func(o Origin) string { return o.InteractionID }),
		text("user_id", func(o Origin) string { return o.UserID }),
		text("case_id", func(o Origin) string { return o.CaseID }),
		text("decision_id", func(o Origin) string { return o.DecisionID }),
		text("reason", func(o Origin) string { return o.Reason }),
		text("kind", func(o Origin) string { return o.Kind }),
		text("polarity", func(o Origin) string { return o.Polarity }),
		text("category", func(o Origin) string { return o.Category }),
		text("severity", func(o Origin) string { return o.Severity }),
		text("user_role", func(o Origin) string { return o.UserRole }),
		text("environment", func(o Origin) string { return o.Environment }),
		text("model", func(o Origin) string { return o.Model }),
		text("model_version", func(o Origin) string { return o.ModelVersion }),
		text("prompt_version", func(o Origin) string { return o.PromptVersion }),
		at("session_started_at", func(o Origin) time.Time { return o.SessionStartedAt }),
		at("occurred_at", func(o Origin) time.Time { return o.OccurredAt }),
	}
}

func reviews() clickhouse.Table[Review] {
	type row = Review
	return clickhouse.Table[row]{Name: "reviews_log", Columns: slices.Concat(
		originColumns(func(r row) Origin { return r.Origin }),
		[]clickhouse.Column[row]{
			clickhouse.Col("review_id", func(r row) string { return r.ReviewID }),
			clickhouse.Col("revision", func(r row) uint32 { return r.Revision }),
			clickhouse.Col("priority", func(r row) string { return r.Priority }),
			clickhouse.Col("case_title", func(r row) string { return r.CaseTitle }),
			clickhouse.Col("created_at", func(r row) time.Time { return r.CreatedAt }),
			clickhouse.Col("payload", func(r row) string { return r.Payload }),
		})}
}

func withdrawals() clickhouse.Table[Withdrawal] {
	type row = Withdrawal
	return clickhouse.Table[row]{Name: "review_withdrawals_log", Columns: []clickhouse.Column[row]{
		clickhouse.Col("project_id", func(r row) string { return r.ProjectID }),
		clickhouse.Col("review_id", func(r row) string { return r.ReviewID }),
		clickhouse.Col("revision", func(r row) uint32 { return r.Revision }),
		clickhouse.Col("reason", func(r row) string { return r.Reason }),
		clickhouse.Col("withdrawn_at", func(r row) time.Time { return r.WithdrawnAt }),
	}}
}

func decisions() clickhouse.Table[Decision] {
	type row = Decision
	return clickhouse.Table[row]{Name: "review_decisions_log", Columns: []clickhouse.Column[row]{
		clickhouse.Col("project_id", func(r row) string { return r.ProjectID }),
		clickhouse.Col("review_id", func(r row) string { return r.ReviewID }),
		clickhouse.Col("priority", func(r row) uint64 { return r.Priority }),
		clickhouse.Col("curation_id", func(r row) string { return r.CurationID }),
		clickhouse.Col("signal_id", func(r row) string { return r.SignalID }),
		clickhouse.Col("case_id", func(r row) string { return r.CaseID }),
		clickhouse.Col("verdict", func(r row) string { return r.Verdict }),
		clickhouse.Col("answer", func(r row) string { return r.Answer }),
		clickhouse.Col("clarification", func(r row) string { return r.Clarification }),
		clickhouse.Col("note", func(r row) string { return r.Note }),
		clickhouse.Col("reviewer", func(r row) string { return r.Reviewer }),
		clickhouse.Col("decided_at", func(r row) time.Time { return r.DecidedAt }),
		clickhouse.Col("payload", func(r row) string { return r.Payload }),
	}}
}

func datasetRows() clickhouse.Table[DatasetRow] {
	type row = DatasetRow
	return clickhouse.Table[row]{Name: "dataset_rows_log", Columns: slices.Concat(
		originColumns(func(r row) Origin { return r.Origin }),
		[]clickhouse.Column[row]{
			clickhouse.Col("row_id", func(r row) string { return r.RowID }),
			clickhouse.Col("version", func(r row) uint64 { return r.Version }),
			clickhouse.Col("withdrawn", func(r row) bool { return r.Withdrawn }),
			clickhouse.Col("source", func(r row) string { return r.Source }),
			clickhouse.Col("review_id", func(r row) string { return r.ReviewID }),
			clickhouse.Col("system_context", func(r row) string { return r.SystemContext }),
			clickhouse.Col("query", func(r row) string { return r.Query }),
			clickhouse.Col("chosen", func(r row) string { return r.Chosen }),
			clickhouse.Col("rejected", func(r row) string { return r.Rejected }),
			clickhouse.Col("payload", func(r row) string { return r.Payload }),
		})}
}

func patches() clickhouse.Table[Patch] {
	type row = Patch
	return clickhouse.Table[row]{Name: "patches_log", Columns: slices.Concat(
		originColumns(func(r row) Origin { return r.Origin }),
		[]clickhouse.Column[row]{
			clickhouse.Col("patch_id", func(r row) string { return r.PatchID }),
			clickhouse.Col("version", func(r row) uint64 { return r.Version }),
			clickhouse.Col("withdrawn", func(r row) bool { return r.Withdrawn }),
			clickhouse.Col("state", func(r row) string { return r.State }),
			clickhouse.Col("text", func(r row) string { return r.Text }),
			clickhouse.Col("created_at", func(r row) time.Time { return r.CreatedAt }),
			clickhouse.Col("payload", func(r row) string { return r.Payload }),
		})}
}

func issues() clickhouse.Table[Issue] {
	type row = Issue
	return clickhouse.Table[row]{Name: "product_issues_log", Columns: slices.Concat(
		originColumns(func(r row) Origin { return r.Origin }),
		[]clickhouse.Column[row]{
			clickhouse.Col("issue_id", func(r row) string { return r.IssueID }),
			clickhouse.Col("version", func(r row) uint64 { return r.Version }),
			clickhouse.Col("withdrawn", func(r row) bool { return r.Withdrawn }),
			clickhouse.Col("title", func(r row) string { return r.Title }),
			clickhouse.Col("query", func(r row) string { return r.Query }),
			clickhouse.Col("output", func(r row) string { return r.Output }),
			clickhouse.Col("comment", func(r row) string { return r.Comment }),
			clickhouse.Col("created_at", func(r row) time.Time { return r.CreatedAt }),
		})}
}
