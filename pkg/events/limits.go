package events

import (
	"errors"
	"fmt"
	"time"
)

// Limits bound what an event may be.
type Limits struct {
	// Events of one request.
	Batch int `yaml:"batch" env:"BATCH"`
	// Bytes of one event, as protobuf. Kafka takes records of about 1 MB, and a
	// signal carries up to three events: two interactions and a feedback.
	EventBytes int `yaml:"event_bytes" env:"EVENT_BYTES"`
	// Bytes of an id.
	IDBytes int `yaml:"id_bytes" env:"ID_BYTES"`
	// Bytes of a label: a role, an environment, a model, a category, a tag.
	LabelBytes int `yaml:"label_bytes" env:"LABEL_BYTES"`
	// Bytes of a text: a query, an output, a comment.
	TextBytes int `yaml:"text_bytes" env:"TEXT_BYTES"`
	// Elements of one list and entries of one map.
	Items int `yaml:"items" env:"ITEMS"`
	// How far occurred_at may lie in the future.
	ClockSkew time.Duration `yaml:"clock_skew" env:"CLOCK_SKEW"`
}

// DefaultLimits fit a Kafka with its default limits.
func DefaultLimits() Limits {
	return Limits{
		Batch:      1000,
		EventBytes: 300_000,
		IDBytes:    256,
		LabelBytes: 256,
		TextBytes:  200_000,
		Items:      256,
		ClockSkew:  5 * time.Minute,
	}
}

// Validate joins all that is wrong.
func (l Limits) Validate() error {
	var errs []error
	for _, f := range []struct {
		name string
		n    int
	}{
		{"batch", l.Batch}, {"event_bytes", l.EventBytes}, {"id_bytes", l.IDBytes},
		{"label_bytes", l.LabelBytes}, {"text_bytes", l.TextBytes}, {"items", l.Items},
	} {
		if f.n <= 0 {
			errs = append(errs, fmt.Errorf("%s: want more than 0", f.name))
		}
	}
	if l.ClockSkew < 0 {
		errs = append(errs, errors.New("clock_skew: want at least 0"))
	}
	return errors.Join(errs...)
}
