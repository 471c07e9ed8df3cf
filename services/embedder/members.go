package embedder

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	curationv1 "github.com/honeloop/hone/proto/gen/go/hone/curation/v1"

	"github.com/honeloop/hone/pkg/ids"
	"github.com/honeloop/hone/pkg/vector"
)

// placed is a signal in a case, with its vector.
type placed struct {
	signalID, caseID, query string
	negative                bool
	categories              []string
	vector                  []float32
}

func placedOf(e *casesv1.Exchange, v []float32) placed {
	s := e.GetPublished().GetSignal()
	return placed{
		signalID: s.GetSignalId(), caseID: memberCase(e), query: s.GetInteraction().GetQuery(),
		negative: s.GetPolarity() == negative, categories: s.GetCategories(), vector: v,
	}
}

// readMembersOf reads signals that exist, in the order of their ids.
func readMembersOf(ctx context.Context, ix index, project string, signalIDs []string) ([]placed, error) {
	objects, err := ix.Get(ctx, vector.Exchanges, project, uuids(project, signalIDs), true)
	if err != nil {
		return nil, fmt.Errorf("read exchanges: %w", err)
	}
	var out []placed
	for _, o := range objects {
		e, err := decodeExchange(o)
		if err != nil {
			return nil, err
		}
		out = append(out, placedOf(e, o.Vector))
	}
	slices.SortFunc(out, func(a, b placed) int { return cmp.Compare(a.signalID, b.signalID) })
	return out, nil
}

// medoid is the most typical negative member: the one nearest to the mean of
// all negative ones. Nil where there is none.
func medoid(members []placed) *placed {
	mean := meanOf(members)
	var best *placed
	var top float64
	for i, m := range members {
		if !m.negative || len(m.vector) == 0 {
			continue
		}
		if near := similarity(m.vector, mean); best == nil || near > top || near == top && m.signalID < best.signalID {
			best, top = &members[i], near
		}
	}
	return best
}

// meanOf is the mean of the negative members' vectors; nil where there is none.
func meanOf(members []placed) []float32 {
	var mean []float32
	for _, m := range members {
		if !m.negative {
			continue
		}
		if mean == nil {
			mean = make([]float32, len(m.vector))
		}
		for i, x := range m.vector {
			mean[i] += x
		}
	}
	return mean
}

func splitEvent(project, curationID, caseID string, signalIDs []string, anchor, title, note, by string) *curationv1.CurationEvent_CaseSplit {
	return &curationv1.CurationEvent_CaseSplit{CaseSplit: &curationv1.CaseSplit{
		CaseId: caseID, NewCaseId: ids.Derive("cs", project, curationID), SignalIds: signalIDs,
		Anchor: anchor, Title: title, Note: note, By: by,
	}}
}
