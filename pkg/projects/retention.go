package projects

import "fmt"

// Retention says how long a project's trail is kept.
type Retention struct {
	// Days after which events, and the signals read from them, are deleted from
	// ClickHouse; 0 keeps them for ever.
	Days int `yaml:"days"`
}

// maxRetentionDays is a hundred years, more than the tables can say.
const maxRetentionDays = 36500

// Validate says what is wrong.
func (r Retention) Validate() error {
	if r.Days < 0 || r.Days > maxRetentionDays {
		return fmt.Errorf("days: %d, want 0 (for ever) to %d", r.Days, maxRetentionDays)
	}
	return nil
}
