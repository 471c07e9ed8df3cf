package relevance

import (
	"math"
	"math/rand/v2"
	"testing"
)

var weights = Weights{Bias: -5, Slope: 10, Sharpness: 20}

func TestNothingNearIsUnknown(t *testing.T) {
	if known, cases := Rank(nil, Surroundings{}, weights); known != 0 || len(cases) != 0 {
		t.Errorf("%v, %v", known, cases)
	}
}

func TestRelevancesShareTheProbabilityThatItIsKnown(t *testing.T) {
	known, cases := Rank([]Neighbor{{"a", 0.8}, {"b", 0.7}, {"a", 0.5}, {"c", 0.1}}, Surroundings{}, weights)
	if math.Abs(known-sigmoid(3)) > 1e-12 {
		t.Errorf("known %v", known)
	}
	var sum float64
	for i, c := range cases {
		sum += c.Relevance
		if want := []string{"a", "b", "c"}[i]; c.Case != want {
			t.Errorf("place %d: %s, want %s", i, c.Case, want)
		}
	}
	if math.Abs(sum-known) > 1e-12 || cases[0].Similarity != 0.8 {
		t.Errorf("sum %v of %v", sum, cases)
	}
}

func TestSupport(t *testing.T) {
	tests := []struct {
		name      string
		neighbors []Neighbor
		first     string
	}{
		{"several near ones beat a slightly nearer one", []Neighbor{{"a", 0.70}, {"b", 0.69}, {"b", 0.68}, {"b", 0.67}}, "b"},
		{"but not a much nearer one", []Neighbor{{"a", 0.90}, {"b", 0.69}, {"b", 0.68}, {"b", 0.67}}, "a"},
		{"the same question counts once", []Neighbor{{"a", 0.70}, {"b", 0.69}, {"b", 0.69}, {"b", 0.69}, {"b", 0.69}}, "a"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if _, cases := Rank(tt.neighbors, Surroundings{}, weights); cases[0].Case != tt.first {
				t.Errorf("%v", cases)
			}
		})
	}
	var many []Neighbor
	for i := range 40 {
		many = append(many, Neighbor{"frequent", 0.60 - float64(i)*1e-4})
	}
	if _, cases := Rank(append(many, Neighbor{"rare", 0.80}), Surroundings{}, weights); cases[0].Case != "rare" {
		t.Errorf("a frequent case beats a much nearer one: %v", cases)
	}
}

func TestTheOrderOfNeighborsDoesNotMatter(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var neighbors []Neighbor
	for range 50 {
		neighbors = append(neighbors, Neighbor{string(rune('a' + r.IntN(9))), float64(r.IntN(100)) / 100})
	}
	known, want := Rank(neighbors, Surroundings{}, weights)
	r.Shuffle(len(neighbors), func(i, j int) { neighbors[i], neighbors[j] = neighbors[j], neighbors[i] })
	again, got := Rank(neighbors, Surroundings{}, weights)
	if known != again || len(got) != len(want) {
		t.Fatalf("%v and %v", want, got)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Errorf("place %d: %v, want %v", i, got[i], want[i])
		}
	}
}

func TestWeightsOfAnyModel(t *testing.T) {
	for _, model := range []string{fallback, "hash-ngram-512-v1", "text-embedding-3-small"} {
		if w, err := WeightsOf(model); err != nil || w.Slope <= 0 || w.Sharpness <= 0 {
			t.Errorf("%s: %+v, %v", model, w, err)
		}
	}
}
