package signals

import (
	"cmp"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/honeloop/hone/services/enricher/internal/derive"
)

// Example is an interaction that somebody rated.
type Example struct {
	Person       string
	Features     map[string]float64
	Dissatisfied bool
}

// satisfiedFrom is the rating from which on an answer satisfied.
const satisfiedFrom = 4

// Examples are the rated interactions of sessions.
func Examples(sessions []Session, rules *derive.Rules) []Example {
	var out []Example
	for _, s := range sessions {
		trail := derive.NewSession(rules)
		trail.Add(s.Events...)
		for _, e := range s.Events {
			if stars, rated := s.Stars[e.InteractionId]; rated && e.GetInteraction() != nil {
				out = append(out, Example{s.Person, trail.Features(e.InteractionId), stars < satisfiedFrom})
			}
		}
	}
	return out
}

// prior is the weight that a feature begins with, by what is known of it from
// research and common sense. The fewer examples, the more it counts.
var prior = map[string]float64{
	derive.Reasked: 1.5, derive.Corrected: 3.2, derive.Rejected: 3.5, derive.Clarification: 1, derive.Approved: -1.5,
	derive.Regenerated: 1.5, derive.Stopped: 1,
	derive.Copied: -0.5, derive.CopiedPart: -0.4, derive.CopiedAndLeft: -0.7, derive.EditedPrompt: 1, derive.Left: 0.3, derive.GaveUp: 3, derive.AskedForHuman: 3,
}

// decided are the weights of explicit feedback: ratings are what the model is
// trained on, so they cannot be trained.
var decided = map[string]float64{
	derive.FeatureRating: 4, derive.FeatureFault: 2, derive.FeatureComment: 1, derive.FeatureBeaten: 0.7,
}

// spread is how far a weight may lie from its prior, as a standard deviation.
const spread = 0.7

// trained are the features whose weights are learnt.
func trained() []string {
	return slices.DeleteFunc(derive.Features(), func(name string) bool { _, ok := decided[name]; return ok })
}

// Train fits a logistic model by Newton's method: the most probable weights,
// given the examples and the prior.
func Train(examples []Example) *derive.Model {
	names := trained()
	n := len(names) + 1 // the last one is the intercept
	w := make([]float64, n)
	for i, name := range names {
		w[i] = prior[name]
	}
	row := func(e Example) []float64 {
		x := make([]float64, n)
		for i, name := range names {
			x[i] = e.Features[name]
		}
		x[n-1] = 1
		return x
	}
	for range 30 {
		gradient := make([]float64, n)
		hessian := make([][]float64, n)
		for i := range hessian {
			hessian[i] = make([]float64, n)
			hessian[i][i] = 1e-6
			if i < n-1 {
				hessian[i][i] += 1 / (spread * spread)
				gradient[i] = (prior[names[i]] - w[i]) / (spread * spread)
			}
		}
		for _, e := range examples {
			x := row(e)
			z := 0.0
			for i := range x {
				z += w[i] * x[i]
			}
			p, y := 1/(1+math.Exp(-z)), 0.0
			if e.Dissatisfied {
				y = 1
			}
			for i := range x {
				gradient[i] += (y - p) * x[i]
				for j := range x {
					hessian[i][j] += p * (1 - p) * x[i] * x[j]
				}
			}
		}
		step := solve(hessian, gradient)
		largest := 0.0
		for i := range w {
			w[i] += step[i]
			largest = max(largest, math.Abs(step[i]))
		}
		if largest < 1e-9 {
			break
		}
	}
	m := &derive.Model{Intercept: rounded(w[n-1]), Weights: map[string]float64{}, Seen: map[string]int{}}
	for i, name := range names {
		m.Weights[name] = rounded(w[i])
		for _, e := range examples {
			if e.Features[name] != 0 {
				m.Seen[name]++
			}
		}
	}
	for name, w := range decided {
		m.Weights[name] = w
	}
	return m
}

func rounded(x float64) float64 { return math.Round(x*1e4) / 1e4 }

// solve is x of a x = b, for a symmetric and positive definite.
func solve(a [][]float64, b []float64) []float64 {
	n := len(b)
	for i := range n {
		for j := i + 1; j < n; j++ {
			f := a[j][i] / a[i][i]
			for k := i; k < n; k++ {
				a[j][k] -= f * a[i][k]
			}
			b[j] -= f * b[i]
		}
	}
	x := make([]float64, n)
	for i := n - 1; i >= 0; i-- {
		x[i] = b[i]
		for k := i + 1; k < n; k++ {
			x[i] -= a[i][k] * x[k]
		}
		x[i] /= a[i][i]
	}
	return x
}

// Prediction is what a model said of an example that it was not trained on.
type Prediction struct {
	Example
	Probability float64
	// Fold is the part that it is in.
	Fold int
}

// folds is the number of parts of the cross-validation.
const folds = 10

// CrossValidate predicts each example by a model that was trained without its
// person.
func CrossValidate(examples []Example) []Prediction {
	fold := func(e Example) int {
		h := fnv.New32a()
		_, _ = h.Write([]byte(e.Person)) // it never fails
		return int(h.Sum32() % folds)
	}
	var out []Prediction
	for f := range folds {
		var train []Example
		for _, e := range examples {
			if fold(e) != f {
				train = append(train, e)
			}
		}
		m := Train(train)
		for _, e := range examples {
			if fold(e) == f {
				out = append(out, Prediction{e, m.Probability(e.Features), f})
			}
		}
	}
	return out
}

// AUC is how often a dissatisfied one has the higher score than a satisfied one
// of the same fold; 0.5 is chance. Across folds scores do not compare: a fold
// with many dissatisfied leaves few to the model that predicts it.
func AUC(all []Prediction) float64 {
	byFold := make([][]Prediction, folds)
	for _, x := range all {
		byFold[x.Fold] = append(byFold[x.Fold], x)
	}
	var right, pairs float64
	for _, p := range byFold {
		slices.SortFunc(p, func(a, b Prediction) int { return cmp.Compare(a.Probability, b.Probability) })
		var ranks, positives, negatives float64
		for i := 0; i < len(p); {
			j := i
			for j < len(p) && p[j].Probability == p[i].Probability {
				j++
			}
			rank := float64(i+j+1) / 2 // the mean of those that are equal
			for ; i < j; i++ {
				if p[i].Dissatisfied {
					ranks += rank
					positives++
				} else {
					negatives++
				}
			}
		}
		right += ranks - positives*(positives+1)/2
		pairs += positives * negatives
	}
	return right / pairs
}

// AUCInterval is the middle 95 % of the AUC over draws of persons.
func AUCInterval(p []Prediction) (low, high float64) {
	persons := map[string][]Prediction{}
	for _, x := range p {
		persons[x.Person] = append(persons[x.Person], x)
	}
	var names []string
	for name := range persons {
		names = append(names, name)
	}
	slices.Sort(names)
	r := rand.New(rand.NewPCG(1, 2))
	var aucs []float64
	for range 1000 {
		var draw []Prediction
		for range names {
			draw = append(draw, persons[names[r.IntN(len(names))]]...)
		}
		if auc := AUC(draw); !math.IsNaN(auc) {
			aucs = append(aucs, auc)
		}
	}
	slices.Sort(aucs)
	return aucs[len(aucs)/40], aucs[len(aucs)*39/40]
}

// Brier is the mean squared error.
func Brier(p []Prediction) float64 {
	sum := 0.0
	for _, x := range p {
		y := 0.0
		if x.Dissatisfied {
			y = 1
		}
		sum += (x.Probability - y) * (x.Probability - y)
	}
	return sum / float64(len(p))
}

// Bin is a part of a reliability curve: predictions next to each other.
type Bin struct {
	N, Dissatisfied int
	Predicted       float64 // mean
}

// Rate is the part that was dissatisfied.
func (b Bin) Rate() float64 { return float64(b.Dissatisfied) / float64(b.N) }

// Reliability cuts predictions, by their size, into n bins of about one size.
func Reliability(p []Prediction, n int) []Bin {
	p = slices.SortedStableFunc(slices.Values(p), func(a, b Prediction) int { return cmp.Compare(a.Probability, b.Probability) })
	out := make([]Bin, n)
	for i, x := range p {
		b := &out[i*n/len(p)]
		b.N++
		b.Predicted += x.Probability
		if x.Dissatisfied {
			b.Dissatisfied++
		}
	}
	for i := range out {
		out[i].Predicted /= float64(out[i].N)
	}
	return out
}

// ECE is the expected calibration error of a reliability curve.
func ECE(bins []Bin) float64 {
	n, sum := 0, 0.0
	for _, b := range bins {
		n += b.N
		sum += float64(b.N) * math.Abs(b.Predicted-b.Rate())
	}
	return sum / float64(n)
}
