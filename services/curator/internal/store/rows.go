package store

import "time"

// Origin is where a row comes from: columns that all tables of content share.
type Origin struct {
	ProjectID        string
	SignalID         string
	SessionID        string
	InteractionID    string
	UserID           string
	CaseID           string
	DecisionID       string
	Reason           string
	Kind             string
	Polarity         string
	Category         string
	Severity         string
	UserRole         string
	Environment      string
	Model            string
	ModelVersion     string
	PromptVersion    string
	SessionStartedAt time.Time
	OccurredAt       time.Time
}

// Review is a row of reviews_log.
type Review struct {
	Origin
	ReviewID  string
	Revision  uint32
	Priority  string
	CaseTitle string
	CreatedAt time.Time
	Payload   string // curation.v1.Review
}

// Withdrawal is a row of review_withdrawals_log.
type Withdrawal struct {
	ProjectID   string
	ReviewID    string
	Revision    uint32
	Reason      string
	WithdrawnAt time.Time
}

// Decision is a row of review_decisions_log.
type Decision struct {
	ProjectID     string
	ReviewID      string
	Priority      uint64
	CurationID    string
	SignalID      string
	CaseID        string
	Verdict       string
	Answer        string
	Clarification string
	Note          string
	Reviewer      string
	DecidedAt     time.Time
	Payload       string // curation.v1.ReviewDecided
}

// DatasetRow is a row of dataset_rows_log.
type DatasetRow struct {
	Origin
	RowID         string
	Version       uint64
	Withdrawn     bool
	Source        string
	ReviewID      string
	SystemContext string
	Query         string
	Chosen        string
	Rejected      string
	Payload       string // curation.v1.DatasetRow
}

// Patch is a row of patches_log.
type Patch struct {
	Origin
	PatchID   string
	Version   uint64
	Withdrawn bool
	State     string
	Text      string
	CreatedAt time.Time
	Payload   string // curation.v1.Patch
}

// Issue is a row of product_issues_log.
type Issue struct {
	Origin
	IssueID   string
	Version   uint64
	Withdrawn bool
	Title     string
	Query     string
	Output    string
	Comment   string
	CreatedAt time.Time
}

// Batch is what one batch of records caused.
type Batch struct {
	Reviews     []Review
	Withdrawals []Withdrawal
	Decisions   []Decision
	DatasetRows []DatasetRow
	Patches     []Patch
	Issues      []Issue
}
