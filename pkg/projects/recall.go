package projects

import "fmt"

// Recall says what Recall answers.
type Recall struct {
	// Probability that a query is about a known problem below which nothing is
	// returned, where the request says nothing.
	MinRelevance float64 `yaml:"min_relevance"`
	// Answers to similar questions that people approved, which come with the
	// guidance; 0 for none.
	Positives int `yaml:"positives"`
}

// maxPositives keeps examples from filling a prompt.
const maxPositives = 5

// DefaultRecall finds nearly all known problems, and stays quiet about other
// subjects. See `make eval-recall`.
func DefaultRecall() Recall { return Recall{MinRelevance: 0.75} }

// Validate says what is wrong.
func (r Recall) Validate() error {
	if !(r.MinRelevance >= 0 && r.MinRelevance <= 1) {
		return fmt.Errorf("min_relevance: %g, want 0 to 1", r.MinRelevance)
	}
	if r.Positives < 0 || r.Positives > maxPositives {
		return fmt.Errorf("positives: %d, want 0 to %d", r.Positives, maxPositives)
	}
	return nil
}
