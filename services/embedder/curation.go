package embedder

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"google.golang.org/protobuf/proto"

	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	curationv1 "github.com/honeloop/hone/proto/gen/go/hone/curation/v1"

	"github.com/honeloop/hone/pkg/embedding"
	"github.com/honeloop/hone/pkg/ids"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/vector"
)

// curation is the stage that does to cases what people and the periodic pass
// decided: answers, names, states, merges and splits.
//
// All events of a project are in one order, which decides. The first decision
// on a review counts; of different reviews on one case the latest does. The
// event's own record is completed last, so a crash before it repeats the event,
// to the same end.
type curation struct {
	store    *store
	embedder embedding.Embedder
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
		for _, one := range changed {
			record, err := caseRecord(&casesv1.CaseSignal{Case: one}, stream.SessionKey(one.GetProjectId(), one.GetCaseId()), r)
			if err != nil {
				return nil, err
			}
			out = append(out, record)
		}
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
	switch p := e.GetPayload().(type) {
	case *curationv1.CurationEvent_ReviewDecided:
		return &e, checkReview(p.ReviewDecided)
	case *curationv1.CurationEvent_CaseChanged, *curationv1.CurationEvent_CaseMerged, *curationv1.CurationEvent_CaseSplit,
		*curationv1.CurationEvent_CaseSummarized, *curationv1.CurationEvent_CaseEditUndone:
		if e.GetCurationId() == "" {
			return nil, errors.New("curation event without curation_id")
		}
		if editedCase(&e) == "" {
			return nil, errors.New("change of a case without case_id")
		}
		if s := saidState(&e); s != nil && !slices.Contains(saidStates(), *s) {
			return nil, fmt.Errorf("state %q, want one of %v", *s, saidStates())
		}
	}
	return &e, nil // or of a kind that is not for cases
}

func saidState(e *curationv1.CurationEvent) *string {
	if c := e.GetCaseChanged(); c != nil {
		return c.State
	}
	return nil
}

func checkReview(d *curationv1.ReviewDecided) error {
	if d.GetReviewId() == "" {
		return errors.New("review decision without review_id")
	}
	switch d.GetVerdict() {
	case "dismiss":
	case "approve", "correct":
		if d.GetAnswer() == "" && d.GetClarification() == "" {
			return fmt.Errorf("verdict %q without answer and clarification", d.GetVerdict())
		}
	default:
		return fmt.Errorf("verdict %q, want approve, correct or dismiss", d.GetVerdict())
	}
	return nil
}

// apply does one event, and gives the cases as they then stand; none where
// nothing changed.
func (c *curation) apply(ctx context.Context, event *curationv1.CurationEvent) (outcome string, changed []*casesv1.Case, err error) {
	if event.GetReviewDecided() == nil && editedCase(event) == "" {
		return "other", nil, nil
	}
	unlock, err := c.store.locks.lock(ctx, event.GetProjectId())
	if err != nil {
		return "", nil, err
	}
	defer unlock()
	if event.GetReviewDecided() == nil {
		if outcome, changed, err = c.edit(ctx, event); err != nil {
			return "", nil, err
		}
		if event.GetCaseMerged() != nil || event.GetCaseEditUndone() != nil {
			err = c.store.movePatches(ctx, event.GetProjectId(), changed)
		}
		return outcome, changed, err
	}
	return c.review(ctx, event)
}

// review does a reviewer's decision.
func (c *curation) review(ctx context.Context, event *curationv1.CurationEvent) (outcome string, changed []*casesv1.Case, err error) {
	d, project := event.GetReviewDecided(), event.GetProjectId()
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
		if outcome, changed, err = c.answer(ctx, event); err != nil {
			return "", nil, err
		}
	}
	if !seen {
		object := vector.Object{ID: reviewID, Payload: data, Properties: map[string]any{
			"case_id": d.GetCaseId(), "review_id": d.GetReviewId(), "kind": "review",
		}}
		if err := c.store.index.Upsert(ctx, vector.Answers, project, []vector.Object{object}); err != nil {
			return "", nil, fmt.Errorf("write review: %w", err)
		}
	}
	return outcome, changed, nil
}

// answer makes the event its case's answer, unless the case has a later one.
func (c *curation) answer(ctx context.Context, event *curationv1.CurationEvent) (string, []*casesv1.Case, error) {
	d, project := event.GetReviewDecided(), event.GetProjectId()
	if d.GetCaseId() == "" {
		return "no_case", nil, nil
	}
	cases := map[string]*caseState{}
	state, err := c.follow(ctx, project, d.GetCaseId(), cases)
	if err != nil {
		return "", nil, err
	}
	if state == nil {
		return "unknown_case", nil, nil
	}
	if olderThan(event, state.curated.GetAnswer()) {
		c.store.put(cases)
		return "older_review", nil, nil
	}
	if !proto.Equal(event, state.curated.GetAnswer()) {
		said := curatedOf(state)
		setAnswer(said, event)
		said.LastEdit = event.GetCurationId()
		if err := c.store.writeCurated(ctx, project, said); err != nil {
			return "", nil, err
		}
		state.curated = said
	}
	// The same event again writes nothing, and says the same again.
	if state.shown != state.curated.GetLastEdit() {
		state.touch()
		if err := c.store.writeCases(ctx, project, cases, c.embedder.Model()); err != nil {
			return "", nil, err
		}
	}
	snapshot := state.snapshot()
	c.store.put(cases)
	return "answered", []*casesv1.Case{snapshot}, nil
}

// setAnswer makes an event's answer that of a case, which is solved with it.
func setAnswer(said *casesv1.CaseCuration, event *curationv1.CurationEvent) {
	said.Answer, said.State = event, stateSolved
	said.SolvedAt = cmp.Or(event.GetReviewDecided().GetDecidedAt(), event.GetOccurredAt())
}

func olderThan(e, than *curationv1.CurationEvent) bool {
	return than != nil && cmp.Or(
		e.GetOccurredAt().AsTime().Compare(than.GetOccurredAt().AsTime()),
		cmp.Compare(e.GetCurationId(), than.GetCurationId()),
	) < 0
}

// curatedOf is a copy of what was said about a case, to be changed.
func curatedOf(c *caseState) *casesv1.CaseCuration {
	if c.curated == nil {
		return &casesv1.CaseCuration{CaseId: c.id}
	}
	return proto.CloneOf(c.curated)
}

// follow takes a case, and those that it was merged into, and gives the last
// one; nil where there is none.
func (c *curation) follow(ctx context.Context, project, id string, cases map[string]*caseState) (*caseState, error) {
	for {
		state := cases[id]
		if state == nil {
			taken, err := c.store.take(ctx, project, []string{id})
			if err != nil || taken[id] == nil {
				return nil, err
			}
			state = taken[id]
			cases[id] = state
		}
		if state.mergedInto() == "" {
			return state, nil
		}
		id = state.mergedInto()
	}
}
