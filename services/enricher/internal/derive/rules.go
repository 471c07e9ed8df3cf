package derive

import (
	"fmt"

	"github.com/honeloop/hone/pkg/events"
	"github.com/honeloop/hone/pkg/projects"
)

// Rules are what signals are read by, beside the trail: a project's settings,
// the trained model, and the readers of reactions. They are safe for concurrent
// use, and do not change.
type Rules struct {
	settings projects.Signals
	taxonomy *events.Taxonomy
	readers  []Reader
	refusals *phraseBook
	model    *Model
}

// NewRules makes rules. meaning may be nil: then words alone say what is asked
// again. More readers may be given beside the built-in ones; their findings count
// if their kind has a confidence in the settings.
func NewRules(settings projects.Signals, meaning Similarity, more ...Reader) (*Rules, error) {
	r := &Rules{settings: settings, refusals: newPhraseBook(refusals())}
	var err error
	if r.taxonomy, err = events.NewTaxonomy(settings.Categories); err != nil {
		return nil, fmt.Errorf("read categories: %w", err)
	}
	if r.model, err = TrainedModel(); err != nil {
		return nil, err
	}
	r.readers = append([]Reader{readBehaviors(&r.settings), readNext(&r.settings, meaning)}, more...)
	return r, nil
}

// weight is what a finding of a kind adds to the log odds when it is sure.
func (r *Rules) weight(kind string) float64 {
	if w, ok := r.settings.Weights[kind]; ok {
		return w
	}
	return r.model.Weights[kind]
}

// probability is that of dissatisfaction, with the project's weights.
func (r *Rules) probability(features map[string]float64) float64 {
	z := r.model.logOdds(features)
	for _, kind := range FindingKinds() { // in order, see Model
		z += (r.weight(kind) - r.model.Weights[kind]) * features[kind]
	}
	return logistic(z)
}
