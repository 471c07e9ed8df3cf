package projects

import (
	"errors"
	"fmt"
)

// Cases says what makes a case, and what the periodic pass does to cases.
type Cases struct {
	// A signal whose confidence is less has no case.
	MinConfidence float64 `yaml:"min_confidence"`
	// Whether the pass merges doubles and splits mixtures.
	MergeDoubles  bool `yaml:"merge_doubles"`
	SplitMixtures bool `yaml:"split_mixtures"`
	// Whether a model may write titles and summaries, where the embedder has
	// one: it is sent texts of users.
	ModelTitles bool `yaml:"model_titles"`
}

// DefaultCases leave out weak guesses, and let the pass work.
func DefaultCases() Cases {
	return Cases{MinConfidence: 0.5, MergeDoubles: true, SplitMixtures: true, ModelTitles: true}
}

// Validate joins all that is wrong.
func (c Cases) Validate() error {
	var errs []error
	if !(c.MinConfidence >= 0 && c.MinConfidence <= 1) {
		errs = append(errs, fmt.Errorf("min_confidence: %g, want 0 to 1", c.MinConfidence))
	}
	return errors.Join(errs...)
}
