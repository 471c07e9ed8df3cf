package materialize

import (
	"context"
	"errors"
	"fmt"

	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	curationv1 "github.com/honeloop/hone/proto/gen/go/hone/curation/v1"
	"github.com/honeloop/hone/services/curator/internal/curation"
	"github.com/honeloop/hone/services/curator/internal/routed"
	"github.com/honeloop/hone/services/curator/internal/store"
)

// Writer makes a batch durable. nil means that all of it is stored. After an
// error some may be, and the same batch is written again.
type Writer func(ctx context.Context, b *store.Batch) error

// NoTarget is told, once a batch is written, how many signals on the fine-tune
// route, or answers of reviewers, gave no example, by reason.
type NoTarget func(ctx context.Context, byReason map[string]int)

// Routes is the stage on the hone.route.* topics. It only writes rows whose
// ids and versions depend on the record, so that records may come again and in
// any order.
type Routes struct {
	Write    Writer
	NoTarget NoTarget
}

// Process implements stage.Stage.
func (r *Routes) Process(ctx context.Context, in []stage.Record) ([]stage.Record, error) {
	var failed *stage.BatchError
	batch, noTarget := &store.Batch{}, map[string]int{}
	for i, rec := range in {
		if err := addRouted(batch, noTarget, rec); err != nil {
			failed = failed.Fail(i, err)
		}
	}
	if err := r.Write(ctx, batch); err != nil {
		return nil, fmt.Errorf("write routed signals: %w", err)
	}
	r.NoTarget(ctx, noTarget)
	return nil, failed.ErrorOrNil()
}

func addRouted(b *store.Batch, noTarget map[string]int, rec stage.Record) error {
	event, err := routed.Parse(rec.Value)
	if err != nil {
		return err
	}
	switch rec.Topic {
	case stream.TopicRouteHumanReview:
		return addReview(b, event)
	case stream.TopicRouteFineTune:
		why, err := addDatasetRow(b, event)
		if why != "" {
			noTarget[why]++
		}
		return err
	case stream.TopicRoutePromptPatch:
		return addPatch(b, event)
	case stream.TopicRouteProduct:
		addIssue(b, event)
		return nil
	}
	return fmt.Errorf("topic %s is no route", rec.Topic)
}

// ReviewReader finds reviews by id, each with its signal. Those that do not
// exist are missing in the answer.
type ReviewReader func(ctx context.Context, project string, reviewIDs []string) (map[string]*store.ReviewItem, error)

// Decisions is the stage on hone.curation. The priority of what it writes is
// the record's place in the log, so the first decision on a review stands.
type Decisions struct {
	Write    Writer
	Reviews  ReviewReader
	NoTarget NoTarget
}

var errNoReview = errors.New("the review is not in reviews_log: replay when it is")

// Process implements stage.Stage.
func (s *Decisions) Process(ctx context.Context, in []stage.Record) ([]stage.Record, error) {
	var failed *stage.BatchError
	events := make([]*curationv1.CurationEvent, len(in))
	wanted := map[string][]string{} // review ids by project
	for i, rec := range in {
		event, err := curation.Parse(rec.Value)
		if err != nil {
			failed = failed.Fail(i, err)
			continue
		}
		if event.GetReviewDecided() == nil {
			continue // of a kind that is not for the curator
		}
		events[i] = event
		wanted[event.GetProjectId()] = append(wanted[event.GetProjectId()], event.GetReviewDecided().GetReviewId())
	}
	found := map[string]map[string]*store.ReviewItem{}
	for project, reviewIDs := range wanted {
		var err error
		if found[project], err = s.Reviews(ctx, project, reviewIDs); err != nil {
			return nil, fmt.Errorf("read decided reviews: %w", err)
		}
	}
	batch, noTarget := &store.Batch{}, map[string]int{}
	for i, event := range events {
		if event == nil {
			continue
		}
		review := found[event.GetProjectId()][event.GetReviewDecided().GetReviewId()]
		if review == nil {
			failed = failed.Fail(i, errNoReview)
			continue
		}
		why, err := addDecision(batch, in[i].Offset, event, review)
		if err != nil {
			failed = failed.Fail(i, err)
		}
		if why != "" {
			noTarget[why]++
		}
	}
	if err := s.Write(ctx, batch); err != nil {
		return nil, fmt.Errorf("write decisions: %w", err)
	}
	s.NoTarget(ctx, noTarget)
	return nil, failed.ErrorOrNil()
}
