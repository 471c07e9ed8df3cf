package projects

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/honeloop/hone/pkg/events"
)

// Signals says how signals are read from what people say and do.
type Signals struct {
	// Categories that a project adds to the built-in ones, or changes, by name.
	Categories map[string]events.Category `yaml:"categories"`
	// Findings is how sure each implicit finding is, from 0 (never found) to 1.
	// What is found in words is scaled by how clear the words are.
	Findings map[string]float64 `yaml:"findings"`
	// Weights replace the trained weight of a finding: what it adds to the log
	// odds of dissatisfaction when it is sure.
	Weights map[string]float64 `yaml:"weights"`
	// A next message is the same question again where it shares this part of the
	// words with the one before, or where the meanings are this much alike. The
	// latter depends on the embedding model of the enricher.
	ReaskedWords   float64 `yaml:"reasked_words"`
	ReaskedMeaning float64 `yaml:"reasked_meaning"`
	// A copy of at least this part of an answer is of the whole.
	CopiedWhole float64 `yaml:"copied_whole"`
	// How many answers must have failed one after the other before somebody who
	// leaves has given up.
	GaveUpAfter int `yaml:"gave_up_after"`
	// An implicit signal is negative from this dissatisfaction on, and positive up
	// to that, if its findings point there.
	NegativeFrom float64 `yaml:"negative_from"`
	PositiveTo   float64 `yaml:"positive_to"`
	// How long feedback waits for its interaction, and how long a session rests
	// before it has ended. 0 is for ever.
	WaitFor     time.Duration `yaml:"wait_for"`
	SessionEnds time.Duration `yaml:"session_ends_after"`
}

// DefaultSignals are the measured and the decided ones; see the enricher's
// README.
func DefaultSignals() Signals {
	return Signals{
		Findings: map[string]float64{
			"reasked": 0.8, "corrected": 0.8, "rejected": 0.9, "clarification": 0.6, "approved": 0.8,
			"regenerated": 0.7, "stopped": 0.6, "copied": 0.5, "copied_part": 0.4, "copied_and_left": 0.6,
			"edited_prompt": 0.6, "left": 0.3, "no_reaction": 0.2, "gave_up": 0.7, "asked_for_human": 0.9,
		},
		ReaskedWords:   0.6,
		ReaskedMeaning: 0.85,
		CopiedWhole:    0.8,
		GaveUpAfter:    2,
		NegativeFrom:   0.5,
		PositiveTo:     0.05,
		WaitFor:        24 * time.Hour,
		SessionEnds:    30 * time.Minute,
	}
}

// Validate joins all that is wrong, each with its key.
func (s Signals) Validate() error {
	var errs []error
	if _, err := events.NewTaxonomy(s.Categories); err != nil {
		errs = append(errs, fmt.Errorf("categories: %w", err))
	}
	known := DefaultSignals().Findings
	for _, kind := range slices.Sorted(maps.Keys(s.Findings)) {
		if _, ok := known[kind]; !ok {
			errs = append(errs, fmt.Errorf("findings: %s: unknown; want one of %q", kind, slices.Sorted(maps.Keys(known))))
		}
	}
	for _, kind := range slices.Sorted(maps.Keys(s.Weights)) {
		if _, ok := known[kind]; !ok {
			errs = append(errs, fmt.Errorf("weights: %s: unknown; want one of %q", kind, slices.Sorted(maps.Keys(known))))
		}
		if w := s.Weights[kind]; math.IsNaN(w) || math.Abs(w) > 20 {
			errs = append(errs, fmt.Errorf("weights: %s: want -20 to 20", kind))
		}
	}
	shares := map[string]float64{
		"reasked_words": s.ReaskedWords, "reasked_meaning": s.ReaskedMeaning, "copied_whole": s.CopiedWhole,
		"negative_from": s.NegativeFrom, "positive_to": s.PositiveTo,
	}
	for kind, x := range s.Findings {
		shares["findings: "+kind] = x
	}
	for _, key := range slices.Sorted(maps.Keys(shares)) {
		if x := shares[key]; math.IsNaN(x) || x < 0 || x > 1 {
			errs = append(errs, fmt.Errorf("%s: want 0 to 1", key))
		}
	}
	if s.PositiveTo >= s.NegativeFrom {
		errs = append(errs, errors.New("positive_to: want less than negative_from"))
	}
	if s.GaveUpAfter < 1 || s.GaveUpAfter > 3 {
		errs = append(errs, errors.New("gave_up_after: want 1 to 3"))
	}
	for key, d := range map[string]time.Duration{"wait_for": s.WaitFor, "session_ends_after": s.SessionEnds} {
		if d < 0 || d > 0 && d < time.Second {
			errs = append(errs, fmt.Errorf("%s: want 0 or at least 1s", key))
		}
	}
	return errors.Join(errs...)
}
