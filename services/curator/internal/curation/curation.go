// Package curation is the control state: who decided what about a review.
//
// The state is the fold of hone.curation. All records of a project have the
// same key, so they are in one partition and in one order. The first decision
// on a review in that order stands, whoever reads it.
package curation

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/honeloop/hone/pkg/clickhouse"
	"github.com/honeloop/hone/pkg/ids"
	curationv1 "github.com/honeloop/hone/proto/gen/go/hone/curation/v1"
)

// The verdicts.
const (
	Approve = "approve"
	Correct = "correct"
	Dismiss = "dismiss"
)

// State is the state of a review that got a verdict.
func State(verdict string) string {
	return map[string]string{Approve: "approved", Correct: "corrected", Dismiss: "dismissed"}[verdict]
}

// Key is the record key of everything on hone.curation.
func Key(project string) []byte { return []byte(project) }

// NewDecision makes the record of a reviewer's request on a review as it
// stands. The id depends on the request alone, not on when it was sent nor on
// the review's revision, so a retry has the same one.
func NewDecision(project, reviewer string, req *curationv1.DecideReviewRequest, review *curationv1.Review, now time.Time) *curationv1.CurationEvent {
	at := timestamppb.New(now)
	return &curationv1.CurationEvent{
		CurationId: ids.Derive("cu", project, req.GetReviewId(), req.GetVerdict(), req.GetAnswer(),
			req.GetClarification(), req.GetNote(), reviewer),
		ProjectId:  project,
		OccurredAt: at,
		Payload: &curationv1.CurationEvent_ReviewDecided{ReviewDecided: &curationv1.ReviewDecided{
			ReviewId:      req.GetReviewId(),
			SignalId:      review.GetSignal().GetSignalId(),
			CaseId:        review.GetCaseId(),
			Verdict:       req.GetVerdict(),
			Answer:        answer(req, review),
			Clarification: req.GetClarification(),
			Note:          req.GetNote(),
			Reviewer:      reviewer,
			DecidedAt:     at,
		}},
	}
}

func answer(req *curationv1.DecideReviewRequest, review *curationv1.Review) string {
	switch req.GetVerdict() {
	case Correct:
		return req.GetAnswer()
	case Approve:
		if c := review.GetSignal().GetCorrection(); c != "" {
			return c
		}
		return review.GetSignal().GetInteraction().GetOutput()
	}
	return ""
}

// Parse reads a value of hone.curation. An error means that the value can
// never count, for no reader of the log: the fold and the stage agree on what
// a decision is by calling this.
func Parse(value []byte) (*curationv1.CurationEvent, error) {
	event := &curationv1.CurationEvent{}
	if err := proto.Unmarshal(value, event); err != nil {
		return nil, fmt.Errorf("parse curation event: %w", err)
	}
	var errs []error
	if event.GetCurationId() == "" {
		errs = append(errs, errors.New("curation_id: missing"))
	}
	if event.GetProjectId() == "" {
		errs = append(errs, errors.New("project_id: missing"))
	}
	if event.GetPayload() == nil {
		errs = append(errs, errors.New("payload: missing or newer than this build"))
	}
	if d := event.GetReviewDecided(); d != nil {
		if d.GetReviewId() == "" {
			errs = append(errs, errors.New("review_decided.review_id: missing"))
		}
		if State(d.GetVerdict()) == "" {
			errs = append(errs, fmt.Errorf("review_decided.verdict: %q, want approve, correct or dismiss", d.GetVerdict()))
		}
		if err := clickhouse.CheckTime(d.GetDecidedAt().AsTime()); err != nil {
			errs = append(errs, fmt.Errorf("review_decided.decided_at: %w", err))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("parse curation event: %w", err)
	}
	return event, nil
}
