package router

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
)

// Facts are what a policy's conditions see. NewFacts takes them from one
// CaseSignal; what must be counted in the decisions before, Counts adds. A
// decision keeps them as it saw them. The JSON names are the names in a
// condition.
//
// User text (query, output, comment, correction) is no fact: decisions are
// kept for long, and a condition needs to know only whether it is there.
type Facts struct {
	Signal      SignalFacts      `json:"signal"`
	Interaction InteractionFacts `json:"interaction"`
	Session     SessionFacts     `json:"session"`
	Case        CaseFacts        `json:"case"`
	User        UserFacts        `json:"user"`
	// Cosine similarity to the case's founder, in [-1, 1]; 0 without a case.
	Similarity float64 `json:"similarity"`
}

// SignalFacts are about the feedback.
type SignalFacts struct {
	Kind       string   `json:"kind"`
	Polarity   string   `json:"polarity"`
	Category   string   `json:"category"`
	Categories []string `json:"categories"`
	Severity   string   `json:"severity"`
	Confidence float64  `json:"confidence"`
	// Findings are the kinds of its evidence, such as "thumb" or "regenerated".
	Findings []string `json:"findings"`
	// Dissatisfaction is how likely it is that the answer did not satisfy, in
	// [0, 1], by all evidence on the interaction; 0 where it is not known.
	Dissatisfaction float64 `json:"dissatisfaction"`
	// Rating is in [-1, 1], and 0 where has_rating is false.
	Rating        float64 `json:"rating"`
	HasRating     bool    `json:"has_rating"`
	HasComment    bool    `json:"has_comment"`
	HasCorrection bool    `json:"has_correction"`
	HasEdits      bool    `json:"has_edits"`
	Revision      int64   `json:"revision"`
}

// InteractionFacts are about the turn that the feedback is on, and about what
// produced it.
type InteractionFacts struct {
	// Known is false where feedback came without its interaction.
	Known          bool              `json:"known"`
	Model          string            `json:"model"`
	ModelVersion   string            `json:"model_version"`
	PromptVersion  string            `json:"prompt_version"`
	Environment    string            `json:"environment"`
	UserRole       string            `json:"user_role"`
	Tags           map[string]string `json:"tags"`
	Language       string            `json:"language"`
	FinishReason   string            `json:"finish_reason"`
	LatencyMS      int64             `json:"latency_ms"`
	InputTokens    int64             `json:"input_tokens"`
	OutputTokens   int64             `json:"output_tokens"`
	HasRetrieved   bool              `json:"has_retrieved"`
	HasTools       bool              `json:"has_tools"`
	HasToolError   bool              `json:"has_tool_error"`
	HasSystem      bool              `json:"has_system_context"`
	AppliedPatches []string          `json:"applied_patches"`
	// Turn is the position in the session, from 0.
	Turn int64 `json:"turn"`
}

// SessionFacts are about the conversation.
type SessionFacts struct {
	ID string `json:"id"`
	// AgeSeconds is from the session's start to the signal.
	AgeSeconds float64 `json:"age_seconds"`
	// Negative signals in it that were decided on so far, this one too.
	Negatives int64 `json:"negatives"`
}

// UserFacts are about who gave the feedback. Who it is, is no fact.
type UserFacts struct {
	// Known is false where feedback came without a user's id; then the counts
	// are 0.
	Known bool `json:"known"`
	// Negative signals of the user in the 24 hours and 7 days up to this one,
	// this one too; and signals of any polarity.
	Negatives24h int64 `json:"negatives_24h"`
	Negatives7d  int64 `json:"negatives_7d"`
	Signals7d    int64 `json:"signals_7d"`
}

// CaseFacts are about the known problem. Without a case, id is empty and the
// counts are 0.
type CaseFacts struct {
	ID        string `json:"id"`
	State     string `json:"state"`
	Severity  string `json:"severity"`
	Negatives int64  `json:"negatives"`
	Positives int64  `json:"positives"`
	// Users and Sessions are distinct ones.
	Users             int64            `json:"users"`
	Sessions          int64            `json:"sessions"`
	Categories        map[string]int64 `json:"categories"`
	ModelVersions     map[string]int64 `json:"model_versions"`
	HasApprovedAnswer bool             `json:"has_approved_answer"`
	// Founded is true where this signal founded the case.
	Founded bool `json:"founded"`
	// AgeDays is from the case's first signal to this one.
	AgeDays float64 `json:"age_days"`
	// NegativeShare is negatives in negatives and positives; 0 without either.
	NegativeShare float64 `json:"negative_share"`
	// Negative signals of the case in the 24 hours and 7 days up to this one,
	// this one too.
	Negatives24h int64 `json:"negatives_24h"`
	Negatives7d  int64 `json:"negatives_7d"`
}

// NewFacts takes the facts from a CaseSignal whose signal is set.
func NewFacts(cs *casesv1.CaseSignal) *Facts {
	s, in, c := cs.GetSignal(), cs.GetSignal().GetInteraction(), cs.GetCase()
	f := &Facts{
		Signal: SignalFacts{
			Kind:          s.GetKind(),
			Polarity:      s.GetPolarity(),
			Category:      s.GetCategory(),
			Categories:    append([]string{}, s.GetCategories()...),
			Severity:      s.GetSeverity(),
			Confidence:    finite(s.GetConfidence()),
			Findings:      []string{},
			Rating:        finite(s.GetRating()),
			HasRating:     s.Rating != nil,
			HasComment:    s.GetComment() != "",
			HasCorrection: s.GetCorrection() != "",
			HasEdits:      len(s.GetEdits()) > 0,
			Revision:      int64(s.GetRevision()),

			Dissatisfaction: finite(s.GetDissatisfaction()),
		},
		Interaction: InteractionFacts{
			Known:          in != nil,
			Model:          in.GetModel(),
			ModelVersion:   in.GetModelVersion(),
			PromptVersion:  in.GetPromptVersion(),
			Environment:    s.GetEnvironment(),
			UserRole:       s.GetUserRole(),
			Tags:           map[string]string{},
			Language:       in.GetLanguage(),
			FinishReason:   in.GetFinishReason(),
			LatencyMS:      int64(in.GetLatencyMs()),
			InputTokens:    int64(in.GetInputTokens()),
			OutputTokens:   int64(in.GetOutputTokens()),
			HasRetrieved:   len(in.GetRetrieved()) > 0,
			HasTools:       len(in.GetTools()) > 0,
			HasSystem:      in.GetSystemContext() != "",
			AppliedPatches: append([]string{}, in.GetAppliedPatches()...),
			Turn:           int64(s.GetTurn()),
		},
		Session: SessionFacts{
			ID:         s.GetSessionId(),
			AgeSeconds: between(s.GetSessionStartedAt(), s.GetOccurredAt()).Seconds(),
		},
		Case: CaseFacts{
			ID:                c.GetCaseId(),
			State:             c.GetState(),
			Severity:          c.GetSeverity(),
			Negatives:         int64(c.GetNegatives()),
			Positives:         int64(c.GetPositives()),
			Users:             int64(c.GetUsers()),
			Sessions:          int64(c.GetSessions()),
			Categories:        map[string]int64{},
			ModelVersions:     map[string]int64{},
			HasApprovedAnswer: c.GetApprovedAnswer() != "",
			Founded:           cs.GetFounded(),
			AgeDays:           between(c.GetFirstSeen(), s.GetOccurredAt()).Hours() / 24,
		},
		User:       UserFacts{Known: s.GetUserId() != ""},
		Similarity: finite(cs.GetSimilarity()),
	}
	for _, e := range s.GetEvidence() {
		if !slices.Contains(f.Signal.Findings, e.GetKind()) {
			f.Signal.Findings = append(f.Signal.Findings, e.GetKind())
		}
	}
	if n := f.Case.Negatives + f.Case.Positives; n > 0 {
		f.Case.NegativeShare = float64(f.Case.Negatives) / float64(n)
	}
	for k, v := range s.GetTags() {
		f.Interaction.Tags[k] = v
	}
	for _, t := range in.GetTools() {
		f.Interaction.HasToolError = f.Interaction.HasToolError || t.GetError() != ""
	}
	for k, v := range c.GetCategories() {
		f.Case.Categories[k] = int64(v)
	}
	for k, v := range c.GetModelVersions() {
		f.Case.ModelVersions[k] = int64(v)
	}
	return f
}

// maxFacts bounds the facts as they are stored, in bytes.
const maxFacts = 16 << 10

// storedFacts is the JSON shape of facts in a decision.
type storedFacts struct {
	*Facts
	// Omitted names facts that the conditions saw but that were too long to be
	// stored with the decision.
	Omitted []string `json:"omitted,omitempty"`
}

// JSON is the facts as a decision keeps them: at most maxFacts bytes. The
// longest kinds of facts go first where that is not enough, and "omitted" names
// what went.
func (f *Facts) JSON() (string, error) {
	kept := *f
	out := storedFacts{Facts: &kept}
	drops := []struct {
		name string
		drop func()
	}{
		{"interaction.tags", func() { kept.Interaction.Tags = nil }},
		{"case.categories", func() { kept.Case.Categories = nil }},
		{"case.model_versions", func() { kept.Case.ModelVersions = nil }},
		{"interaction.applied_patches", func() { kept.Interaction.AppliedPatches = nil }},
		{"signal.categories", func() { kept.Signal.Categories = nil }},
		{"signal.findings", func() { kept.Signal.Findings = nil }},
		{"interaction", func() { kept.Interaction = InteractionFacts{} }},
		{"signal", func() { kept.Signal = SignalFacts{} }},
		{"case", func() { kept.Case = CaseFacts{} }},
		{"session", func() { kept.Session = SessionFacts{} }},
	}
	for {
		data, err := json.Marshal(out)
		if err != nil {
			return "", fmt.Errorf("encode facts: %w", err)
		}
		if len(data) <= maxFacts || len(drops) == 0 {
			return string(data), nil
		}
		drops[0].drop()
		out.Omitted = append(out.Omitted, drops[0].name)
		drops = drops[1:]
	}
}

// between is the time from a to b, never negative, and 0 where one is missing.
func between(a, b *timestamppb.Timestamp) time.Duration {
	if a == nil || b == nil {
		return 0
	}
	return max(0, b.AsTime().Sub(a.AsTime()))
}

// finite is v, or 0 where v is no number: JSON has neither NaN nor infinity.
func finite(v float64) float64 {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return 0
	}
	return v
}
