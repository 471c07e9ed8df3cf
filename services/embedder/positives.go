package embedder

import (
	"context"
	"fmt"

	recallv1 "github.com/honeloop/hone/proto/gen/go/hone/recall/v1"

	"github.com/honeloop/hone/pkg/vector"
)

const (
	maxAnswer = 1000 // code points of an answer that is kept
	// Of positive signals, so many for each wanted are looked at: some are not
	// sure enough, or have the same answer.
	sparePositives = 5
	// How sure it must be that people approved, and of all evidence about the
	// answer how probably they did not.
	minApproved        = 0.7
	maxDissatisfaction = 0.3
)

// positives are the answers to questions of the cases that people approved,
// nearest first. A withdrawn or erased signal has no case, so it is not found.
func (a *api) positives(ctx context.Context, project string, q question, caseIDs []string) ([]*recallv1.PositiveExample, error) {
	if q.positives == 0 || len(caseIDs) == 0 {
		return nil, nil
	}
	filter := vector.In("case_id", caseIDs...)
	filter.And = []*vector.Filter{vector.In("polarity", positive)}
	found, err := a.index.Near(ctx, vector.Exchanges, project, vector.NearQuery{
		Vector: q.vector, Limit: sparePositives * q.positives, MinSimilarity: -1, Filter: filter,
	})
	if err != nil {
		return nil, fmt.Errorf("search approved answers: %w", err)
	}
	var out []*recallv1.PositiveExample
	seen := map[string]bool{}
	for _, m := range found {
		e, err := decodeExchange(m.Object)
		if err != nil {
			return nil, err
		}
		s := e.GetPublished().GetSignal()
		answer := s.GetInteraction().GetOutput()
		if len(out) == q.positives || answer == "" || seen[answer] || memberCase(e) == "" || s.GetPolarity() != positive ||
			s.GetConfidence() < minApproved || s.GetDissatisfaction() > maxDissatisfaction {
			continue
		}
		seen[answer] = true
		out = append(out, &recallv1.PositiveExample{
			CaseId: memberCase(e), SignalId: s.GetSignalId(), Query: s.GetInteraction().GetQuery(), Answer: answer, Similarity: m.Similarity,
		})
	}
	return out, nil
}
