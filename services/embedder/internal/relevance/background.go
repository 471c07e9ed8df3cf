package relevance

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"time"
)

// BackgroundSize is how many queries a Background keeps. The weights were fitted
// at this size: with more of them, each has nearer ones around it.
const BackgroundSize = 1000

const (
	// Queries around one that are looked at.
	crowd = 16
	// Once full, one query at most is replaced in this time, so that the sample
	// spans hours however much is asked.
	replaceEvery = 10 * time.Second
	// From this similarity on, a query and an exchange are the same.
	same = 0.9999
	// Cases that a query of the background remembers.
	maxSupports = 20
	// Changes after which what follows from all queries is worked out anew.
	maxChanges = 16
)

// Background is a sample of what was asked in a project, known or not. An
// unknown problem of the same domain may have words in common with a known one,
// but the queries around it are of that unknown problem, too, and on average
// they are further from all cases than those around a known one.
//
// It holds vectors and the names of cases, no text. It is safe for concurrent
// use, and nil is an empty one.
type Background struct {
	size     int
	mu       sync.RWMutex
	asked    []*Query
	keys     map[key]bool // of asked
	oldest   int          // is replaced next
	stalest  int          // is measured anew next
	replaced time.Time
	changes  int
	hubs     map[string]float64 // by case: mean of its largest supports
}

// key tells the vectors of different texts apart: the same text has the same vector.
type key [4]float32

func keyOf(v []float32) (k key) {
	copy(k[:], v)
	return k
}

// NewBackground keeps size queries, mostly BackgroundSize. Half full it begins to
// count, and full it counts wholly.
func NewBackground(size int) *Background { return &Background{size: size, keys: map[key]bool{}} }

// Query is one of a Background.
type Query struct {
	vector   []float32
	supports []support      // of the cases near it
	near     [crowd]float64 // similarity to the nearest other queries, nearest first
	contrast float64        // how much nearer to its best case than either is to others
}

// Vector is where the query is.
func (q *Query) Vector() []float32 { return q.vector }

// support is what a case's exchanges near a query say for it.
type support struct {
	name  string
	value float64 // like a cosine
}

// Surroundings are what is said by the queries around one. Zero says nothing.
type Surroundings struct {
	// Mean contrast of the nearest queries.
	Contrast float64
	// Mean similarity to them.
	Crowd float64
	// From 0 to 1: whether enough was asked, and the best case is one that the
	// background has met.
	Weight float64
}

// Around looks at the queries around v, whose neighbors are exchanges near it.
func (b *Background) Around(v []float32, neighbors []Neighbor) Surroundings {
	if b == nil || len(neighbors) == 0 {
		return Surroundings{}
	}
	best := slices.MaxFunc(neighbors, func(a, b Neighbor) int { return cmp.Compare(a.Similarity, b.Similarity) })
	b.mu.RLock()
	defer b.mu.RUnlock()
	if 2*len(b.asked) <= b.size {
		return Surroundings{}
	}
	if _, met := b.hubs[best.Case]; !met {
		return Surroundings{}
	}
	var near [crowd]float64
	var nearest [crowd]*Query
	for _, q := range b.asked {
		s := similarity(v, q.vector)
		if s >= same {
			continue // itself
		}
		if i := insert(&near, s); i < crowd {
			copy(nearest[i+1:], nearest[i:])
			nearest[i] = q
		}
	}
	if nearest[crowd-1] == nil {
		return Surroundings{} // nothing is near at all
	}
	var out Surroundings
	var total float64
	for i, q := range nearest {
		share := math.Exp(supportSharpness * (near[i] - near[0]))
		out.Contrast += share * q.contrast
		total += share
	}
	out.Contrast /= total
	out.Crowd = mean(near[:])
	out.Weight = ramp(float64(len(b.asked)), float64(b.size)/2, float64(b.size))
	return out
}

// Add takes in a query with the exchanges near it, if there is room or one is
// old enough to go.
func (b *Background) Add(now time.Time, v []float32, neighbors []Neighbor) {
	if b == nil {
		return
	}
	b.mu.RLock()
	wanted := b.wants(now, v)
	b.mu.RUnlock()
	if !wanted {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.wants(now, v) {
		return
	}
	full := len(b.asked) == b.size
	added := &Query{vector: v, supports: supportsOf(neighbors)}
	for i, q := range b.asked {
		if full && i == b.oldest {
			continue
		}
		s := similarity(v, q.vector)
		insert(&added.near, s)
		insert(&q.near, s)
	}
	b.keys[keyOf(v)] = true
	if full {
		delete(b.keys, keyOf(b.asked[b.oldest].vector))
		b.asked[b.oldest] = added
		b.oldest = (b.oldest + 1) % b.size
		b.replaced = now
	} else {
		b.asked = append(b.asked, added)
	}
	b.changed(added)
}

func (b *Background) wants(now time.Time, v []float32) bool {
	return !b.keys[keyOf(v)] && (len(b.asked) < b.size || now.Sub(b.replaced) >= replaceEvery)
}

// Stalest is the query that was measured longest ago; nil for none.
func (b *Background) Stalest() *Query {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.asked) == 0 {
		return nil
	}
	b.stalest = (b.stalest + 1) % len(b.asked)
	return b.asked[b.stalest]
}

// Renew replaces what is known near a query: cases come, grow and go.
func (b *Background) Renew(query *Query, neighbors []Neighbor) {
	b.mu.Lock()
	defer b.mu.Unlock()
	query.supports = supportsOf(neighbors)
	query.near = [crowd]float64{}
	for _, q := range b.asked {
		if q != query {
			insert(&query.near, similarity(query.vector, q.vector))
		}
	}
	b.changed(query)
}

// changed works out anew what follows from a query, and now and then what
// follows from all of them.
func (b *Background) changed(query *Query) {
	query.measure(b.hubs)
	if b.changes++; b.changes < maxChanges {
		return
	}
	b.changes = 0
	largest := map[string]*[crowd]float64{}
	for _, q := range b.asked {
		for _, s := range q.supports {
			if largest[s.name] == nil {
				largest[s.name] = &[crowd]float64{}
			}
			insert(largest[s.name], s.value)
		}
	}
	b.hubs = make(map[string]float64, len(largest))
	for name, values := range largest {
		b.hubs[name] = mean(values[:])
	}
	for _, q := range b.asked {
		q.measure(b.hubs)
	}
}

func (q *Query) measure(hubs map[string]float64) {
	best := 0.0
	for i, s := range q.supports {
		hub, met := hubs[s.name]
		if !met {
			hub = s.value
		}
		if value := 2*s.value - hub; i == 0 || value > best {
			best = value
		}
	}
	q.contrast = best - mean(q.near[:])
}

// supportsOf leaves out exchanges that are the query itself: every complaint
// was once a query.
func supportsOf(neighbors []Neighbor) []support {
	neighbors = slices.DeleteFunc(slices.Clone(neighbors), func(n Neighbor) bool { return n.Similarity >= same })
	cases, sums := supported(neighbors)
	var out []support
	for i, c := range cases {
		out = append(out, support{name: c.Case, value: math.Log(sums[i]) / supportSharpness})
	}
	slices.SortFunc(out, func(a, b support) int {
		return cmp.Or(cmp.Compare(b.value, a.value), cmp.Compare(a.name, b.name))
	})
	return slices.Clip(out[:min(len(out), maxSupports)])
}

// insert puts a value into its place among the largest, and says where; crowd
// is nowhere.
func insert(largest *[crowd]float64, value float64) int {
	if value <= largest[crowd-1] {
		return crowd
	}
	i := crowd - 1
	for ; i > 0 && largest[i-1] < value; i-- {
		largest[i] = largest[i-1]
	}
	largest[i] = value
	return i
}

// mean counts only values above 0: lists that are not full end with zeros.
func mean(values []float64) float64 {
	var sum, n float64
	for _, v := range values {
		if v > 0 {
			sum += v
			n++
		}
	}
	return sum / max(n, 1)
}

// similarity is embedding.Similarity with four sums that do not wait for each
// other, since it is worked out a thousand times for each query.
func similarity(a, b []float32) float64 {
	var s0, s1, s2, s3 float32
	i := 0
	for ; i+4 <= min(len(a), len(b)); i += 4 {
		x, y := a[i:i+4:i+4], b[i:i+4:i+4]
		s0 += x[0] * y[0]
		s1 += x[1] * y[1]
		s2 += x[2] * y[2]
		s3 += x[3] * y[3]
	}
	for ; i < min(len(a), len(b)); i++ {
		s0 += a[i] * b[i]
	}
	return float64(s0 + s1 + s2 + s3)
}
