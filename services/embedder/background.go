package embedder

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/honeloop/hone/pkg/vector"
	"github.com/honeloop/hone/services/embedder/internal/relevance"
)

const (
	maxBackgrounds = 32                     // of projects; about 3 MB each
	renewEvery     = 100 * time.Millisecond // one query of one project
	renewPause     = time.Second            // after Weaviate failed
	renewTimeout   = time.Second
	renewWithin    = 10 * time.Minute // of the last Recall of a project
)

// backgrounds are samples of what was asked in each project, in memory alone.
// nil has none.
type backgrounds struct {
	mu   sync.Mutex
	of   map[string]*projectBackground
	turn int
}

type projectBackground struct {
	*relevance.Background
	project string
	used    time.Time
}

func newBackgrounds(on bool) *backgrounds {
	if !on {
		return nil
	}
	return &backgrounds{of: map[string]*projectBackground{}}
}

// get makes room for a new project by forgetting the one that asked longest ago.
func (b *backgrounds) get(now time.Time, project string) *relevance.Background {
	if b == nil {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	p := b.of[project]
	if p == nil {
		if len(b.of) == maxBackgrounds {
			var last *projectBackground
			for _, o := range b.of {
				if last == nil || o.used.Before(last.used) {
					last = o
				}
			}
			delete(b.of, last.project)
		}
		p = &projectBackground{Background: relevance.NewBackground(relevance.BackgroundSize), project: project}
		b.of[project] = p
	}
	p.used = now
	return p.Background
}

// next is a project that asks, each in turn; nil for none.
func (b *backgrounds) next(now time.Time) *projectBackground {
	b.mu.Lock()
	defer b.mu.Unlock()
	var asking []*projectBackground
	for _, p := range b.of {
		if now.Sub(p.used) < renewWithin {
			asking = append(asking, p)
		}
	}
	if len(asking) == 0 {
		return nil
	}
	slices.SortFunc(asking, func(a, b *projectBackground) int { return strings.Compare(a.project, b.project) })
	b.turn++
	return asking[b.turn%len(asking)]
}

// rank orders the cases near a query by what was asked before, and remembers it.
func (a *api) rank(project string, q question, neighbors []relevance.Neighbor) (known float64, ranked []relevance.Ranked) {
	now := time.Now()
	b := a.backgrounds.get(now, project)
	known, ranked = relevance.Rank(neighbors, b.Around(q.vector, neighbors), a.weights)
	b.Add(now, q.vector, neighbors)
	return known, ranked
}

// renewBackgrounds keeps the backgrounds true to the cases, until ctx ends.
func (a *api) renewBackgrounds(ctx context.Context) {
	if a.backgrounds == nil {
		return
	}
	pause := renewEvery
	for {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		pause = renewEvery
		if err := a.renewOne(ctx); err != nil {
			pause = renewPause
		}
	}
}

// renewOne asks again for what is near the query that was measured longest ago.
func (a *api) renewOne(ctx context.Context) error {
	b := a.backgrounds.next(time.Now())
	if b == nil {
		return nil
	}
	query := b.Stalest()
	if query == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, renewTimeout)
	defer cancel()
	exchanges, err := a.index.NearValues(ctx, vector.Exchanges, b.project, vector.NearQuery{
		Vector: query.Vector(), Limit: relevance.MaxNeighbors, MinSimilarity: -1,
	}, "case_id")
	if err != nil {
		return err
	}
	b.Renew(query, neighborsOf(exchanges))
	return nil
}
