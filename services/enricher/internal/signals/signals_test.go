package signals

import (
	"math"
	"path/filepath"
	"testing"

	"github.com/honeloop/hone/pkg/embedding"
	"github.com/honeloop/hone/pkg/projects"
	"github.com/honeloop/hone/pkg/repotest"

	"github.com/honeloop/hone/services/enricher/internal/derive"
	"github.com/honeloop/hone/services/enricher/internal/enrich"
	"github.com/honeloop/hone/services/enricher/internal/trends/stats"
)

func examples(t *testing.T) []Example {
	t.Helper()
	sessions, err := IFLM(filepath.Dir(repotest.SharedData(t, "iflm/query_logs_table.csv")))
	if err != nil {
		t.Fatal(err)
	}
	rules, err := derive.NewRules(projects.DefaultSignals(), enrich.NewMeaning(embedding.NewHash()).Similarity)
	if err != nil {
		t.Fatal(err)
	}
	return Examples(sessions, rules)
}

// TestTheWeightsAreThoseOfTheCommand fails when what is found changed and nobody
// trained again: run the command in train with -write.
func TestTheWeightsAreThoseOfTheCommand(t *testing.T) {
	have, err := derive.TrainedModel()
	if err != nil {
		t.Fatal(err)
	}
	want := Train(examples(t))
	if math.Abs(have.Intercept-want.Intercept) > 1e-3 {
		t.Errorf("intercept %g, trained %g", have.Intercept, want.Intercept)
	}
	for _, name := range derive.Features() {
		if math.Abs(have.Weights[name]-want.Weights[name]) > 1e-3 || have.Seen[name] != want.Seen[name] {
			t.Errorf("%s: weight %g seen %d, trained %g seen %d", name, have.Weights[name], have.Seen[name], want.Weights[name], want.Seen[name])
		}
	}
}

func TestNobodyIsInBothHalves(t *testing.T) {
	all := examples(t)
	predicted := CrossValidate(all)
	if len(predicted) != len(all) {
		t.Errorf("%d predictions for %d examples", len(predicted), len(all))
	}
	// One person's labels must not move their own predictions.
	person := all[0].Person
	for i := range all {
		if all[i].Person == person {
			all[i].Dissatisfied = !all[i].Dissatisfied
		}
	}
	before, after := of(predicted, person), of(CrossValidate(all), person)
	for i := range before {
		if before[i].Probability != after[i].Probability {
			t.Fatalf("prediction %d of a person moved from %g to %g with their own labels", i, before[i].Probability, after[i].Probability)
		}
	}
}

func of(p []Prediction, person string) (out []Prediction) {
	for _, x := range p {
		if x.Person == person {
			out = append(out, x)
		}
	}
	return out
}

func TestMeasures(t *testing.T) {
	p := func(y bool, probability float64) Prediction {
		return Prediction{Example: Example{Dissatisfied: y}, Probability: probability}
	}
	if auc := AUC([]Prediction{p(true, 0.9), p(false, 0.1), p(true, 0.5), p(false, 0.5)}); auc != 0.875 {
		t.Errorf("AUC %g, want 0.875: one of four pairs is even", auc)
	}
	if b := Brier([]Prediction{p(true, 0.5), p(false, 0)}); b != 0.125 {
		t.Errorf("Brier %g, want 0.125", b)
	}
	bins := Reliability([]Prediction{p(true, 0.9), p(false, 0.2), p(false, 0), p(true, 0.7)}, 2)
	if ece := ECE(bins); bins[0].Rate() != 0 || bins[1].Rate() != 1 || math.Abs(ece-0.15) > 1e-12 {
		t.Errorf("bins %+v, ECE %g", bins, ece)
	}
	if i := stats.Wilson(0, 10); i.Low > 1e-9 || math.Abs(i.High-0.2775) > 1e-3 {
		t.Errorf("Wilson of 0 in 10: %g to %g", i.Low, i.High)
	}
}
