// Package relevance says how likely a query is about each case near it.
//
// It is two questions. Is the query about a known problem at all? That is a
// logistic function of the best similarity or, where enough was asked before, of
// what the queries around it are near to (Background). And if so, about which?
// Each case is supported by its exchanges near the query, and has a share by its
// support. A case's relevance is the product, so that the relevances of all cases
// and the probability of "none of them" add up to 1. The weights of a vector space
// are fitted on real questions; `make eval-recall` shows what they are worth.
package relevance

import (
	"cmp"
	_ "embed"
	"encoding/json"
	"fmt"
	"math"
	"slices"
)

// MaxNeighbors is how many exchanges near a query are worth looking at.
const MaxNeighbors = 50

const (
	// Exchanges of a case that count: many repetitions make a case frequent, not
	// more similar.
	maxSupporters = 5
	// Sharpness of the sum over a case's exchanges: with 10, five equal ones
	// count as one that is 0.16 nearer.
	supportSharpness = 10
	// From this similarity to an exchange on, what is around a query counts less.
	nearlySame = 0.95
)

// Neighbor is an exchange near the query, or the case itself.
type Neighbor struct {
	Case string
	// Cosine.
	Similarity float64
}

// Ranked is a case near the query.
type Ranked struct {
	Case string
	// Of its nearest exchange.
	Similarity float64
	// Probability that the query is about this case.
	Relevance float64
}

// Weights belong to a vector space.
type Weights struct {
	// Log odds that the problem is known: Bias + Slope * best similarity.
	Bias  float64 `json:"bias"`
	Slope float64 `json:"slope"`
	// How much more support makes a case more likely than another.
	Sharpness float64 `json:"sharpness"`
	// The same by the queries around it.
	Around AroundWeights `json:"around"`
}

// AroundWeights judge by Surroundings. Zero does not.
type AroundWeights struct {
	// Log odds that the problem is known: Bias + Contrast * mean contrast +
	// Similarity * best similarity + Crowd * mean similarity around. An unknown
	// problem that nobody asked about before has known ones around it; the best
	// similarity alone still tells it from them.
	Bias       float64 `json:"bias"`
	Contrast   float64 `json:"contrast"`
	Similarity float64 `json:"similarity"`
	Crowd      float64 `json:"crowd"`
	// A query with a crowd as small as Far is a stranger to the background, and
	// judged by the best similarity alone; from Near on by its surroundings
	// alone; in between by some of both.
	Far  float64 `json:"far"`
	Near float64 `json:"near"`
}

//go:embed weights.json
var weightsFile []byte

// fallback has the weights of models that were not measured.
const fallback = "all-MiniLM-L6-v2/int8"

// WeightsOf are those of an embedding model, by its Model(). Models that were not
// measured get MiniLM's, and no surroundings, which depend more on the model.
func WeightsOf(model string) (Weights, error) {
	var all map[string]Weights
	if err := json.Unmarshal(weightsFile, &all); err != nil {
		return Weights{}, fmt.Errorf("read weights of relevance: %w", err)
	}
	if w, ok := all[model]; ok {
		return w, nil
	}
	w := all[fallback]
	w.Around = AroundWeights{}
	return w, nil
}

// Rank orders the cases among the neighbors, most relevant first, and says how
// likely the query is about any of them. The order of neighbors does not matter.
func Rank(neighbors []Neighbor, around Surroundings, w Weights) (known float64, cases []Ranked) {
	if len(neighbors) == 0 {
		return 0, nil
	}
	cases, sums := supported(neighbors)
	known = probability(cases[0].Similarity, around, w)
	var total float64
	top := slices.Max(sums)
	for i := range cases {
		cases[i].Relevance = math.Pow(sums[i]/top, w.Sharpness/supportSharpness)
		total += cases[i].Relevance
	}
	for i := range cases {
		cases[i].Relevance *= known / total
	}
	slices.SortStableFunc(cases, func(a, b Ranked) int { return cmp.Compare(b.Relevance, a.Relevance) })
	return known, cases
}

// supported are the cases among the neighbors, nearest first, each with the sum
// over its exchanges.
func supported(neighbors []Neighbor) (cases []Ranked, sums []float64) {
	neighbors = slices.Clone(neighbors)
	slices.SortFunc(neighbors, func(a, b Neighbor) int {
		return cmp.Or(cmp.Compare(b.Similarity, a.Similarity), cmp.Compare(a.Case, b.Case))
	})
	at := map[string]int{}
	var supporters []int
	var last []float64
	for _, n := range neighbors {
		i, ok := at[n.Case]
		if !ok {
			i = len(cases)
			at[n.Case] = i
			cases = append(cases, Ranked{Case: n.Case, Similarity: n.Similarity})
			sums, supporters, last = append(sums, 0), append(supporters, 0), append(last, math.Inf(1))
		}
		// The same question asked again has the same similarity: it counts once.
		if supporters[i] == maxSupporters || last[i]-n.Similarity < 1e-6 {
			continue
		}
		last[i] = n.Similarity
		supporters[i]++
		sums[i] += math.Exp(supportSharpness * n.Similarity)
	}
	return cases, sums
}

// probability that a query is about anything known. The same question as a known
// one is, whatever is asked around it.
func probability(best float64, around Surroundings, w Weights) float64 {
	odds := w.Bias + w.Slope*best
	if a := w.Around; a != (AroundWeights{}) {
		share := around.Weight * ramp(around.Crowd, a.Far, a.Near) * ramp(best, 1, nearlySame)
		odds += share * (a.Bias + a.Contrast*around.Contrast + a.Similarity*best + a.Crowd*around.Crowd - odds)
	}
	return sigmoid(odds)
}

// ramp goes from 0 at one value to 1 at another.
func ramp(x, from, to float64) float64 { return max(0, min(1, (x-from)/(to-from))) }

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
