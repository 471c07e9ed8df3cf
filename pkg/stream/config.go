// Package stream runs pipeline stages on Kafka and publishes to it.
package stream

import (
	"errors"
	"fmt"
	"time"
)

// Config says how to reach Kafka and what publishing may cost.
type Config struct {
	// Brokers are host:port addresses. One that answers is enough.
	Brokers     []string      `yaml:"brokers" env:"BROKERS"`
	SASL        SASL          `yaml:"sasl" envPrefix:"SASL_"`
	TLS         TLS           `yaml:"tls" envPrefix:"TLS_"`
	ClientID    string        `yaml:"client_id" env:"CLIENT_ID"`
	DialTimeout time.Duration `yaml:"dial_timeout" env:"DIAL_TIMEOUT"`
	// PublishTimeout bounds one Publish, waiting and retries included.
	PublishTimeout time.Duration `yaml:"publish_timeout" env:"PUBLISH_TIMEOUT"`
	// StallAfter is how long Kafka may leave a request unanswered before those who
	// wait for its partition are told, and others not let in until it answers.
	StallAfter time.Duration `yaml:"stall_after" env:"STALL_AFTER"`
	// MaxRecordBytes bounds key, value and headers of one record, uncompressed.
	MaxRecordBytes int `yaml:"max_record_bytes" env:"MAX_RECORD_BYTES"`
	// MaxBatchBytes bounds the records of one produce request, uncompressed. It
	// stays under the broker's message.max.bytes (1,048,588 unless changed).
	MaxBatchBytes int `yaml:"max_batch_bytes" env:"MAX_BATCH_BYTES"`
	// MaxInFlightBytes bounds the records that wait or are being produced.
	MaxInFlightBytes int `yaml:"max_in_flight_bytes" env:"MAX_IN_FLIGHT_BYTES"`
	// Retention is how long topics that are not kept for ever keep a record.
	// It counts when the topic is created.
	Retention time.Duration `yaml:"retention" env:"RETENTION"`
}

// DefaultConfig has no brokers.
func DefaultConfig() Config {
	return Config{
		ClientID:         "hone",
		DialTimeout:      2 * time.Second,
		PublishTimeout:   3 * time.Second,
		StallAfter:       time.Second,
		MaxRecordBytes:   1_000_000,
		MaxBatchBytes:    1_000_000,
		MaxInFlightBytes: 64 << 20,
		Retention:        7 * 24 * time.Hour,
	}
}

// Validate joins all that is wrong with c.
func (c Config) Validate() error {
	var errs []error
	fail := func(key, format string, args ...any) {
		errs = append(errs, fmt.Errorf(key+": "+format, args...))
	}
	if len(c.Brokers) == 0 {
		fail("brokers", "name at least one host:port")
	}
	for i, b := range c.Brokers {
		if b == "" {
			fail(fmt.Sprintf("brokers[%d]", i), "is empty")
		}
	}
	c.validateSecurity(fail)
	if c.DialTimeout <= 0 {
		fail("dial_timeout", "must be positive, is %s", c.DialTimeout)
	}
	if c.PublishTimeout <= 0 {
		fail("publish_timeout", "must be positive, is %s", c.PublishTimeout)
	}
	if c.StallAfter <= 0 {
		fail("stall_after", "must be positive, is %s", c.StallAfter)
	}
	if c.MaxRecordBytes < 1 || c.MaxRecordBytes > c.MaxBatchBytes {
		fail("max_record_bytes", "must be between 1 and max_batch_bytes (%d), is %d", c.MaxBatchBytes, c.MaxRecordBytes)
	}
	if c.MaxBatchBytes < 1 || c.MaxBatchBytes > c.MaxInFlightBytes {
		fail("max_batch_bytes", "must be between 1 and max_in_flight_bytes (%d), is %d", c.MaxInFlightBytes, c.MaxBatchBytes)
	}
	if c.Retention < time.Minute {
		fail("retention", "must be at least 1m, is %s", c.Retention)
	}
	return errors.Join(errs...)
}
