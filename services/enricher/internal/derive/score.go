package derive

import (
	_ "embed" // the weights
	"encoding/json"
	"fmt"
	"math"
)

// Features of the model beside the kinds of findings. Those of explicit feedback
// are set by decision, since ratings are what it is trained on.
const (
	FeatureRefusal = "refusal"       // the answer says that it is none
	FeatureLength  = "length"        // of the answer: log2(1 + bytes/100), at least 2: nothing shorter was seen
	FeatureRating  = "rating"        // -1 (best) to 1 (worst)
	FeatureFault   = "fault"         // somebody says what is wrong
	FeatureComment = "comment"       // somebody comments, without a rating
	FeatureBeaten  = "not_preferred" // another answer was preferred; -1: this one was
)

// Model is a logistic model of dissatisfaction.
type Model struct {
	// Intercept is the log odds where no feature is there.
	Intercept float64            `json:"intercept"`
	Weights   map[string]float64 `json:"weights"`
	// Seen is for how many examples a feature was there when it was trained; the
	// weight of one that was not seen is the one it began with.
	Seen map[string]int `json:"seen"`
	// Trained says on what.
	Trained string `json:"trained"`
}

//go:embed weights.json
var weights []byte

// TrainedModel is the one in weights.json.
func TrainedModel() (*Model, error) {
	m := &Model{}
	if err := json.Unmarshal(weights, m); err != nil {
		return nil, fmt.Errorf("read weights.json: %w", err)
	}
	return m, nil
}

// Probability is that of dissatisfaction.
func (m *Model) Probability(features map[string]float64) float64 {
	return logistic(m.logOdds(features))
}

func logistic(z float64) float64 { return 1 / (1 + math.Exp(-z)) }

func (m *Model) logOdds(features map[string]float64) float64 {
	z := m.Intercept
	// In a fixed order, so that the same features give the same sum.
	for _, name := range Features() {
		z += m.Weights[name] * features[name]
	}
	return z
}

// Features are the names of all, in order.
func Features() []string {
	return append(FindingKinds(), FeatureRefusal, FeatureLength,
		FeatureRating, FeatureFault, FeatureComment, FeatureBeaten)
}

// FindingKinds are the kinds of findings, in order.
func FindingKinds() []string {
	return []string{
		Reasked, Corrected, Rejected, Clarification, Approved, Regenerated, Stopped, Copied, CopiedPart, CopiedAndLeft,
		EditedPrompt, Left, NoReaction, GaveUp, AskedForHuman,
	}
}

// context sets the features of a reaction that are no findings.
func (r *Rules) context(x *Reaction, features map[string]float64) {
	answer := x.Answer.GetInteraction()
	if len(r.refusals.find(plain(cutTo(answer.GetOutput(), saidBytes)))) > 0 {
		features[FeatureRefusal] = 1
	}
	features[FeatureLength] = max(2, math.Log2(1+float64(len(answer.GetOutput()))/100))
}
