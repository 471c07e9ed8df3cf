package enrich

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/honeloop/hone/pkg/embedding"
	"github.com/honeloop/hone/pkg/projects"

	"github.com/honeloop/hone/services/enricher/internal/derive"
)

// Meaning compares texts by an embedding model. It is safe for concurrent use.
type Meaning struct {
	embedder embedding.Embedder
	failure  atomic.Pointer[error]
}

// NewMeaning compares by embedder, which should cache.
func NewMeaning(embedder embedding.Embedder) *Meaning { return &Meaning{embedder: embedder} }

// Similarity is a derive.Similarity. After a failure, which Err tells, it is 0,
// and what was derived with it must not be used.
func (m *Meaning) Similarity(a, b string) float64 {
	vectors, err := m.embedder.Embed(context.Background(), []string{a, b})
	if err != nil {
		err = fmt.Errorf("embed with %s: %w", m.embedder.Model(), err)
		m.failure.Store(&err)
		return 0
	}
	return max(0, embedding.Similarity(vectors[0], vectors[1]))
}

// Err is the failure since it was asked last, if any.
func (m *Meaning) Err() error {
	if m == nil {
		return nil
	}
	if err := m.failure.Swap(nil); err != nil {
		return *err
	}
	return nil
}

// maxRules bounds the rules that are kept: one for each project with settings of
// its own. Beyond it they are made anew.
const maxRules = 1000

// ProjectRules makes the rules of projects out of their settings, anew when they
// change. What it returns is safe for concurrent use.
func ProjectRules(settings *projects.Projects, meaning *Meaning) func(project string) (*derive.Rules, error) {
	var mu sync.Mutex
	rules := map[*projects.Settings]*derive.Rules{}
	return func(project string) (*derive.Rules, error) {
		s := settings.Settings(project)
		mu.Lock()
		defer mu.Unlock()
		if r := rules[s]; r != nil {
			return r, nil
		}
		if len(rules) >= maxRules {
			clear(rules)
		}
		var similar derive.Similarity
		if meaning != nil {
			similar = meaning.Similarity
		}
		r, err := derive.NewRules(s.Signals, similar)
		if err != nil {
			return nil, err
		}
		rules[s] = r
		return r, nil
	}
}
