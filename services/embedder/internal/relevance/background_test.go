package relevance

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/honeloop/hone/pkg/embedding"
)

// town makes queries about three problems, of which the first two have a case
// with five exchanges each, and all three have much in common.
type town struct {
	random    *rand.Rand
	centers   [3][]float32
	exchanges [][]float32 // five of each case
}

func newTown() *town {
	t := &town{random: rand.New(rand.NewPCG(4, 2))}
	for i := range t.centers {
		v := make([]float32, 24)
		v[0], v[1+i] = 1, 1
		t.centers[i] = v
	}
	for i := range 10 {
		t.exchanges = append(t.exchanges, t.query(i/5))
	}
	return t
}

func (t *town) query(problem int) []float32 {
	v := make([]float32, 24)
	for i, x := range t.centers[problem] {
		v[i] = x + float32(t.random.NormFloat64())*0.3
	}
	embedding.Normalize(v)
	return v
}

func (t *town) neighbors(v []float32) (out []Neighbor) {
	for i, e := range t.exchanges {
		out = append(out, Neighbor{fmt.Sprint("case ", i/5), embedding.Similarity(v, e)})
	}
	return out
}

// fill asks n queries, about each problem in turn.
func (t *town) fill(b *Background, n int) {
	for i := range n {
		v := t.query(i % 3)
		b.Add(time.Time{}, v, t.neighbors(v))
	}
}

func TestQueriesAroundTellUnknownFromKnown(t *testing.T) {
	town, b := newTown(), NewBackground(300)
	town.fill(b, 300)
	var contrasts, best [2][]float64 // of known, of unknown
	for i := range 200 {
		v := town.query(i%2 + 1) // the second case's, or the unknown one
		n := town.neighbors(v)
		s := b.Around(v, n)
		if s.Weight != 1 || s.Crowd < 0.2 {
			t.Fatalf("surroundings %+v", s)
		}
		contrasts[i%2] = append(contrasts[i%2], s.Contrast)
		nearest := math.Inf(-1)
		for _, o := range n {
			nearest = max(nearest, o.Similarity)
		}
		best[i%2] = append(best[i%2], nearest)
	}
	alone, with := auroc(best[0], best[1]), auroc(contrasts[0], contrasts[1])
	if with < 0.97 || with < alone+0.03 {
		t.Errorf("AUROC %.3f, by similarity alone %.3f", with, alone)
	}
}

func TestABackgroundThatKnowsTooLittleSaysNothing(t *testing.T) {
	town, b := newTown(), NewBackground(300)
	v := town.query(0)
	n := town.neighbors(v)
	var none *Background
	none.Add(time.Time{}, v, n)
	if got := none.Around(v, n); got != (Surroundings{}) {
		t.Errorf("none: %+v", got)
	}
	town.fill(b, 150)
	if got := b.Around(v, n); got != (Surroundings{}) {
		t.Errorf("half full: %+v", got)
	}
	town.fill(b, 75)
	if got := b.Around(v, n); math.Abs(got.Weight-0.5) > 1e-9 {
		t.Errorf("three quarters full: %+v", got)
	}
	if got := b.Around(v, nil); got != (Surroundings{}) {
		t.Errorf("without neighbors: %+v", got)
	}
	if got := b.Around(v, append(n, Neighbor{"just founded", 0.999})); got != (Surroundings{}) {
		t.Errorf("a case that it has not met: %+v", got)
	}
	away := make([]float32, 24)
	away[0] = -1
	if got := b.Around(away, n); got != (Surroundings{}) {
		t.Errorf("nothing near at all: %+v", got)
	}
}

func TestABackgroundIsBoundedAndChangesSlowly(t *testing.T) {
	town, b := newTown(), NewBackground(20)
	v := town.query(0)
	for range 5 {
		b.Add(time.Time{}, v, town.neighbors(v))
	}
	if len(b.asked) != 1 {
		t.Errorf("the same query counts %d times", len(b.asked))
	}
	town.fill(b, 50)
	first, now := b.asked[0], time.Unix(1000, 0)
	if len(b.asked) != 20 || &first.vector[0] != &v[0] {
		t.Fatalf("%d queries", len(b.asked))
	}
	for range 3 {
		w := town.query(1)
		b.Add(now, w, town.neighbors(w))
	}
	if b.asked[0] == first || b.oldest != 1 || len(b.asked) != 20 || len(b.keys) != 20 {
		t.Errorf("oldest %d, %d queries, %d keys", b.oldest, len(b.asked), len(b.keys))
	}
	b.Add(now.Add(replaceEvery), v, town.neighbors(v))
	if b.oldest != 2 {
		t.Errorf("oldest %d after a while", b.oldest)
	}
}

func TestRenewedQueriesSeeNewCases(t *testing.T) {
	town, b := newTown(), NewBackground(300)
	town.fill(b, 300)
	v := town.query(2)
	before := b.Around(v, town.neighbors(v))
	for range 5 {
		town.exchanges = append(town.exchanges, town.query(2))
	}
	seen := map[*Query]bool{}
	for range 300 {
		q := b.Stalest()
		seen[q] = true
		b.Renew(q, town.neighbors(q.Vector()))
	}
	after := b.Around(v, town.neighbors(v))
	if len(seen) != 300 || after.Weight != 1 || after.Contrast < before.Contrast+0.05 {
		t.Errorf("%d renewed; before %+v, after %+v", len(seen), before, after)
	}
	if q := NewBackground(3).Stalest(); q != nil {
		t.Errorf("of an empty one: %v", q)
	}
}

// A query of the background that somebody complained about has its own exchange
// beside it, which says nothing of others.
func TestAQueryIsNoSupportOfItself(t *testing.T) {
	if got := supportsOf([]Neighbor{{"a", 1}, {"b", 0.5}}); len(got) != 1 || got[0].name != "b" || math.Abs(got[0].value-0.5) > 1e-9 {
		t.Errorf("%v", got)
	}
}

func TestWhenSurroundingsCount(t *testing.T) {
	w := Weights{Bias: -5, Slope: 10, Sharpness: 20, Around: AroundWeights{Bias: 1, Contrast: 20, Far: 0.2, Near: 0.4}}
	tests := []struct {
		name   string
		best   float64
		around Surroundings
		odds   float64
	}{
		{"nothing asked", 0.8, Surroundings{}, 3},
		{"enough asked", 0.8, Surroundings{Contrast: -0.2, Crowd: 0.5, Weight: 1}, -3},
		{"less asked", 0.8, Surroundings{Contrast: -0.2, Crowd: 0.5, Weight: 0.5}, 0},
		{"a stranger", 0.3, Surroundings{Contrast: 0.2, Crowd: 0.1, Weight: 1}, -2},
		{"almost a stranger", 0.3, Surroundings{Contrast: 0.2, Crowd: 0.3, Weight: 1}, 1.5},
		{"the same question as a known one", 1, Surroundings{Contrast: -0.2, Crowd: 0.5, Weight: 1}, 5},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			known, _ := Rank([]Neighbor{{"a", tt.best}}, tt.around, w)
			if math.Abs(known-sigmoid(tt.odds)) > 1e-9 {
				t.Errorf("known %v, want %v", known, sigmoid(tt.odds))
			}
			w := w
			w.Around = AroundWeights{}
			if known, _ := Rank([]Neighbor{{"a", tt.best}}, tt.around, w); math.Abs(known-sigmoid(w.Bias+w.Slope*tt.best)) > 1e-9 {
				t.Errorf("a model that was not measured: %v", known)
			}
		})
	}
}

func BenchmarkAround(b *testing.B) {
	random := rand.New(rand.NewPCG(1, 2))
	vector := func() []float32 {
		v := make([]float32, 384)
		for i := range v {
			v[i] = float32(random.NormFloat64() + 1)
		}
		embedding.Normalize(v)
		return v
	}
	n := []Neighbor{{"a", 0.5}}
	bg := NewBackground(BackgroundSize)
	for range BackgroundSize {
		bg.Add(time.Time{}, vector(), n)
	}
	v := vector()
	for b.Loop() {
		bg.Around(v, n)
	}
}
