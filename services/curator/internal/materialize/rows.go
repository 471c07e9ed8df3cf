// Package materialize turns records into rows of ClickHouse.
package materialize

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/honeloop/hone/pkg/ids"
	curationv1 "github.com/honeloop/hone/proto/gen/go/hone/curation/v1"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"
	"github.com/honeloop/hone/services/curator/internal/curation"
	"github.com/honeloop/hone/services/curator/internal/dataset"
	"github.com/honeloop/hone/services/curator/internal/routed"
	"github.com/honeloop/hone/services/curator/internal/store"
)

// Sources of dataset rows.
const (
	SourceCorrection = "user-correction"
	SourceEdit       = "user-edit"
	SourcePreference = "preference"
	SourceReview     = dataset.ReviewSource
)

// ReviewID is the id of the review of a signal.
func ReviewID(project, signal string) string { return ids.Derive("rv", project, signal) }

// rowID is the id of the row that a signal itself gives. It does not depend on
// the source: a later revision may have another one, and replaces the row.
func rowID(project, signal string) string { return ids.Derive("dr", project, signal) }

func reviewRowID(project, review string) string { return ids.Derive("dr", project, "review", review) }

func patchID(project, signal string) string { return ids.Derive("pt", project, signal) }

func issueID(project, signal string) string { return ids.Derive("pi", project, signal) }

// version orders what the router said about a signal: a later revision wins,
// and with the same revision a withdrawal does.
func version(e *routed.Event) uint64 {
	v := 2 * uint64(e.Revision)
	if e.Withdrawn {
		v++
	}
	return v
}

// priority orders decisions of reviewers: the first in the log is the highest.
func priority(offset int64) uint64 { return math.MaxUint64 - uint64(offset) }

// origin of a row. Where a time is missing it is the router's.
func origin(e *routed.Event) store.Origin {
	o := store.Origin{ProjectID: e.ProjectID, SignalID: e.SignalID, CaseID: e.CaseID, DecisionID: e.DecisionID,
		Reason: e.Reason, OccurredAt: e.Time, SessionStartedAt: e.Time}
	if e.Signal != nil {
		fillOrigin(&o, e.Signal)
	}
	return o
}

func fillOrigin(o *store.Origin, s *signalv1.Signal) {
	i := s.GetInteraction()
	o.SessionID, o.InteractionID, o.UserID = s.GetSessionId(), s.GetInteractionId(), s.GetUserId()
	o.Kind, o.Polarity, o.Category, o.Severity = s.GetKind(), s.GetPolarity(), s.GetCategory(), s.GetSeverity()
	o.UserRole, o.Environment = s.GetUserRole(), s.GetEnvironment()
	o.Model, o.ModelVersion, o.PromptVersion = i.GetModel(), i.GetModelVersion(), i.GetPromptVersion()
	if t := s.GetOccurredAt(); t != nil {
		o.OccurredAt, o.SessionStartedAt = t.AsTime(), t.AsTime()
	}
	if t := s.GetSessionStartedAt(); t != nil {
		o.SessionStartedAt = t.AsTime()
	}
}

// bytes of a message that is made here, which marshals.
func payload(m proto.Message) (string, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return "", fmt.Errorf("marshal %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
	}
	return string(b), nil
}

// addReview opens a review, or takes it out of the queue.
func addReview(b *store.Batch, e *routed.Event) error {
	id := ReviewID(e.ProjectID, e.SignalID)
	if e.Withdrawn {
		b.Withdrawals = append(b.Withdrawals, store.Withdrawal{ProjectID: e.ProjectID, ReviewID: id,
			Revision: e.Revision, Reason: e.Reason, WithdrawnAt: e.Time})
		return nil
	}
	p, err := payload(&curationv1.Review{ReviewId: id, ProjectId: e.ProjectID, CaseId: e.CaseID,
		CaseTitle: e.Case.GetTitle(), DecisionId: e.DecisionID, Reason: e.Reason, Signal: e.Signal, State: "open",
		CreatedAt: timestamppb.New(e.Time), Omitted: e.Omitted, Priority: e.Priority})
	if err != nil {
		return err
	}
	b.Reviews = append(b.Reviews, store.Review{Origin: origin(e), ReviewID: id, Revision: e.Revision,
		Priority: e.Priority, CaseTitle: e.Case.GetTitle(), CreatedAt: e.Time, Payload: p})
	return nil
}

// addDatasetRow makes an example of what the user said is better. Where the
// user said nothing, the row is withdrawn, as an earlier revision may have had
// one, and noTarget says why.
func addDatasetRow(b *store.Batch, e *routed.Event) (noTarget string, err error) {
	row := store.DatasetRow{Origin: origin(e), RowID: rowID(e.ProjectID, e.SignalID), Version: version(e), Withdrawn: e.Withdrawn}
	if !e.Withdrawn {
		var t target
		if t, noTarget = findTarget(e.Signal, e.Omitted); noTarget != "" {
			row.Withdrawn = true
		} else if err := fillRow(&row, e.Signal.GetInteraction(), t); err != nil {
			return "", err
		}
	}
	b.DatasetRows = append(b.DatasetRows, row)
	return noTarget, nil
}

// target is what to learn instead of the output.
type target struct{ source, chosen string }

// Why a signal gives no example.
const (
	NoInteraction = "no_interaction"
	NoCorrection  = "no_correction"
	BadEdits      = "edits_do_not_apply"
	TooLarge      = "too_large"
	NoAnswer      = "no_answer"
)

// incomplete says whether a part that an example needs did not come along.
func incomplete(omitted []string) bool {
	for _, part := range []string{"signal.interaction", "signal.interaction.system_context", "signal.preferred", "signal.edits", "signal.correction"} {
		if slices.Contains(omitted, part) {
			return true
		}
	}
	return false
}

func findTarget(s *signalv1.Signal, omitted []string) (t target, noTarget string) {
	if incomplete(omitted) {
		return target{}, TooLarge
	}
	if s.GetInteraction() == nil {
		return target{}, NoInteraction
	}
	if out := s.GetPreferred().GetOutput(); s.GetKind() == "preference" && out != "" {
		return target{SourcePreference, out}, ""
	}
	if s.GetCorrection() != "" {
		return target{SourceCorrection, s.GetCorrection()}, ""
	}
	edited, changed, err := applyEdits(s.GetInteraction().GetOutput(), s.GetEdits())
	if err != nil {
		return target{}, BadEdits
	}
	if !changed || edited == "" {
		return target{}, NoCorrection
	}
	return target{SourceEdit, edited}, ""
}

func fillRow(row *store.DatasetRow, i *eventv1.Interaction, t target) error {
	row.Source, row.Chosen = t.source, t.chosen
	row.SystemContext, row.Query = i.GetSystemContext(), i.GetQuery()
	if i.GetOutput() != t.chosen {
		row.Rejected = i.GetOutput()
	}
	var err error
	row.Payload, err = payload(&curationv1.DatasetRow{RowId: row.RowID, ProjectId: row.ProjectID, SignalId: row.SignalID,
		CaseId: row.CaseID, Source: row.Source, SystemContext: row.SystemContext, Query: row.Query, Chosen: row.Chosen,
		Rejected: row.Rejected, OccurredAt: timestamppb.New(row.OccurredAt)})
	return err
}

// addPatch makes a candidate out of the words that are there.
func addPatch(b *store.Batch, e *routed.Event) error {
	row := store.Patch{Origin: origin(e), PatchID: patchID(e.ProjectID, e.SignalID), Version: version(e),
		Withdrawn: e.Withdrawn, CreatedAt: e.Time, State: "candidate"}
	if !e.Withdrawn {
		row.Text = patchText(e)
		var err error
		row.Payload, err = payload(&curationv1.Patch{PatchId: row.PatchID, ProjectId: row.ProjectID, CaseId: row.CaseID,
			SignalId: row.SignalID, State: row.State, Text: row.Text, CreatedAt: timestamppb.New(row.CreatedAt)})
		if err != nil {
			return err
		}
	}
	b.Patches = append(b.Patches, row)
	return nil
}

// Longest part of a patch's text, in code points.
const maxPatchPart = 500

func patchText(e *routed.Event) string {
	subject := e.Case.GetTitle()
	if subject == "" {
		subject = e.Signal.GetInteraction().GetQuery()
	}
	var lines []string
	add := func(label, text string) {
		if text = strings.Join(strings.Fields(text), " "); text != "" {
			lines = append(lines, label+shorten(text, maxPatchPart))
		}
	}
	add("When asked about: ", subject)
	add("Known problem: ", strings.ReplaceAll(e.Signal.GetCategory(), "_", " "))
	add("What a user said: ", e.Signal.GetComment())
	add("A better answer: ", e.Signal.GetCorrection())
	return strings.Join(lines, "\n")
}

func shorten(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}

func addIssue(b *store.Batch, e *routed.Event) {
	row := store.Issue{Origin: origin(e), IssueID: issueID(e.ProjectID, e.SignalID), Version: version(e),
		Withdrawn: e.Withdrawn, CreatedAt: e.Time}
	if !e.Withdrawn {
		i := e.Signal.GetInteraction()
		row.Title, row.Query, row.Output, row.Comment = e.Case.GetTitle(), i.GetQuery(), i.GetOutput(), e.Signal.GetComment()
		if row.Title == "" {
			row.Title = shorten(i.GetQuery(), 120)
		}
	}
	b.Issues = append(b.Issues, row)
}

// addDecision writes a reviewer's decision and the example that it gives. Each
// decision on a review writes both, with the priority of its place in the log:
// so the first one stands in both tables, without reading what is there. Where
// the decision is an answer that gives no example, noTarget says why.
func addDecision(b *store.Batch, offset int64, event *curationv1.CurationEvent, review *store.ReviewItem) (noTarget string, err error) {
	d := event.GetReviewDecided()
	at := d.GetDecidedAt().AsTime()
	p, err := payload(d)
	if err != nil {
		return "", err
	}
	b.Decisions = append(b.Decisions, store.Decision{ProjectID: event.GetProjectId(), ReviewID: d.GetReviewId(),
		Priority: priority(offset), CurationID: event.GetCurationId(), SignalID: d.GetSignalId(), CaseID: d.GetCaseId(),
		Verdict: d.GetVerdict(), Answer: d.GetAnswer(), Clarification: d.GetClarification(), Note: d.GetNote(),
		Reviewer: d.GetReviewer(), DecidedAt: at, Payload: p})

	signal := review.Review.GetSignal()
	o := store.Origin{ProjectID: event.GetProjectId(), SignalID: signal.GetSignalId(), CaseID: review.Review.GetCaseId(),
		DecisionID: review.Review.GetDecisionId(), Reason: review.Review.GetReason(), OccurredAt: at, SessionStartedAt: at}
	fillOrigin(&o, signal)
	row := store.DatasetRow{Origin: o, RowID: reviewRowID(event.GetProjectId(), d.GetReviewId()), Version: priority(offset),
		ReviewID: d.GetReviewId()}
	switch {
	case d.GetVerdict() == curation.Dismiss:
		row.Withdrawn = true
	case incomplete(review.Review.GetOmitted()):
		row.Withdrawn, noTarget = true, TooLarge
	case signal.GetInteraction() == nil:
		row.Withdrawn, noTarget = true, NoInteraction
	case d.GetAnswer() == "":
		row.Withdrawn, noTarget = true, NoAnswer
	default:
		if err := fillRow(&row, signal.GetInteraction(), target{SourceReview, d.GetAnswer()}); err != nil {
			return "", err
		}
	}
	b.DatasetRows = append(b.DatasetRows, row)
	return noTarget, nil
}
