package embedder

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"google.golang.org/protobuf/proto"

	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	curationv1 "github.com/honeloop/hone/proto/gen/go/hone/curation/v1"

	"github.com/honeloop/hone/pkg/ids"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/vector"
)

// curation is the stage that gives a case the answer that a reviewer approved.
//
// The first decision on a review counts; of different reviews on one case the
// latest does. The review's own record is written last, so a crash before it
// repeats the event, to the same end.
type curation struct {
	store    *store
	model    string // of the embedder
	outcomes metric.Int64Counter
}

// Process implements stage.Stage.
func (c *curation) Process(ctx context.Context, in []stage.Record) ([]stage.Record, error) {
	var failed *stage.BatchError
	var out []stage.Record
	for i, r := range in {
		event, err := decodeCuration(r.Value)
		if err != nil {
			failed = failed.Fail(i, err)
			continue
		}
		outcome, changed, err := c.apply(ctx, event)
		if err != nil {
			return nil, fmt.Errorf("apply curation %s: %w", event.GetCurationId(), err)
		}
		c.outcomes.Add(ctx, 1, metric.WithAttributes(attribute.String("outcome", outcome)))
		if changed == nil {
			continue
		}
		record, err := caseRecord(&casesv1.CaseSignal{Case: changed}, stream.SessionKey(changed.GetProjectId(), changed.GetCaseId()), r)
		if err != nil {
			return nil, err
		}
		out = append(out, record)
	}
	return out, failed.ErrorOrNil()
}

func decodeCuration(value []byte) (*curationv1.CurationEvent, error) {
	var e curationv1.CurationEvent
	if err := proto.Unmarshal(value, &e); err != nil {
		return nil, fmt.Errorf("decode curation event: %w", err)
	}
	if e.GetProjectId() == "" {
		return nil, errors.New("curation event without project_id")
	}
	d := e.GetReviewDecided()
	if d == nil {
		return &e, nil // of a kind that is not for cases
	}
	if d.GetReviewId() == "" {
		return nil, errors.New("review decision without review_id")
	}
	switch d.GetVerdict() {
	case "dismiss":
	case "approve", "correct":
		if d.GetAnswer() == "" && d.GetClarification() == "" {
			return nil, fmt.Errorf("verdict %q without answer and clarification", d.GetVerdict())
		}
	default:
		return nil, fmt.Errorf("verdict %q, want approve, correct or dismiss", d.GetVerdict())
	}
	return &e, nil
}

// apply does one event. The case is nil where it did not change.
func (c *curation) apply(ctx context.Context, event *curationv1.CurationEvent) (outcome string, changed *casesv1.Case, err error) {
	d, project := event.GetReviewDecided(), event.GetProjectId()
	if d == nil {
		return "other", nil, nil
	}
	unlock, err := c.store.locks.lock(ctx, project)
	if err != nil {
		return "", nil, err
	}
	defer unlock()

	data, err := encode(event)
	if err != nil {
		return "", nil, fmt.Errorf("encode curation event: %w", err)
	}
	reviewID := ids.UUID(project, d.GetReviewId())
	stored, err := c.store.index.Get(ctx, vector.Answers, project, []string{reviewID}, false)
	if err != nil {
		return "", nil, fmt.Errorf("read review: %w", err)
	}
	before, seen := stored[reviewID]
	if seen && !bytes.Equal(before.Payload, data) {
		return "review_already_decided", nil, nil
	}

	outcome = "dismissed"
	if d.GetVerdict() != "dismiss" {
		if outcome, changed, err = c.answer(ctx, event, data); err != nil {
			return "", nil, err
		}
	}
	if !seen {
		if err := c.store.index.Upsert(ctx, vector.Answers, project, []vector.Object{answerObject(reviewID, d, data)}); err != nil {
			return "", nil, fmt.Errorf("write review: %w", err)
		}
	}
	return outcome, changed, nil
}

// answer makes the event its case's answer, unless the case has a later one.
func (c *curation) answer(ctx context.Context, event *curationv1.CurationEvent, data []byte) (string, *casesv1.Case, error) {
	d, project := event.GetReviewDecided(), event.GetProjectId()
	if d.GetCaseId() == "" {
		return "no_case", nil, nil
	}
	cases, err := c.store.take(ctx, project, []string{d.GetCaseId()})
	if err != nil {
		return "", nil, err
	}
	state := cases[d.GetCaseId()]
	if state == nil {
		return "unknown_case", nil, nil
	}
	if olderThan(event, state.answer) {
		c.store.put(cases)
		return "older_review", nil, nil
	}
	// The same event again writes nothing, and says the same again.
	if !proto.Equal(event, state.answer) || state.shown != d.GetReviewId() {
		id := ids.UUID(project, d.GetCaseId())
		if err := c.store.index.Upsert(ctx, vector.Answers, project, []vector.Object{answerObject(id, d, data)}); err != nil {
			return "", nil, fmt.Errorf("write answer: %w", err)
		}
		state.answer = event
		state.touch()
		if err := c.store.writeCases(ctx, project, cases, c.model); err != nil {
			return "", nil, err
		}
	}
	snapshot := state.snapshot()
	c.store.put(cases)
	return "answered", snapshot, nil
}

func olderThan(e, than *curationv1.CurationEvent) bool {
	return than != nil && cmp.Or(
		e.GetOccurredAt().AsTime().Compare(than.GetOccurredAt().AsTime()),
		cmp.Compare(e.GetCurationId(), than.GetCurationId()),
	) < 0
}

func answerObject(id string, d *curationv1.ReviewDecided, data []byte) vector.Object {
	return vector.Object{ID: id, Payload: data, Properties: map[string]any{
		"case_id": d.GetCaseId(), "review_id": d.GetReviewId(),
	}}
}
