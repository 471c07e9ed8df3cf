package enricher

import (
	"errors"
	"time"

	"github.com/honeloop/hone/pkg/clickhouse"
	"github.com/honeloop/hone/pkg/config"
	"github.com/honeloop/hone/pkg/embedding"
	"github.com/honeloop/hone/pkg/server"
	"github.com/honeloop/hone/pkg/stream"

	"github.com/honeloop/hone/services/enricher/internal/originals"
)

// Config of the enricher.
type Config struct {
	Server     server.Config     `yaml:"server" envPrefix:"SERVER_"`
	Kafka      stream.Config     `yaml:"kafka" envPrefix:"KAFKA_"`
	ClickHouse clickhouse.Config `yaml:"clickhouse" envPrefix:"CLICKHOUSE_"`
	// The model that says whether a question is asked again in other words. The
	// hashed one costs little, and needs no files.
	Embedding embedding.Config `yaml:"embedding" envPrefix:"EMBEDDING_"`
	// Memory for the trails of open sessions, in bytes, about. Other trails are
	// read from ClickHouse when an event of theirs comes.
	CacheBytes int `yaml:"cache_bytes" env:"CACHE_BYTES"`
	// Most events of one session; more go to the dead letter.
	MaxSessionEvents int `yaml:"max_session_events" env:"MAX_SESSION_EVENTS"`
	// How often the store is looked at for feedback that waits and sessions that
	// ended; 0 is never.
	TimersEvery time.Duration `yaml:"timers_every" env:"TIMERS_EVERY"`
	// Most records of one batch: of one partition, written with one insert.
	MaxBatch int `yaml:"max_batch" env:"MAX_BATCH"`
	// A secret that the numbers of placeholders come from, the same for all
	// enrichers. Without one, who reads a placeholder can try out what it stands for.
	PrivacyKey string `yaml:"privacy_key" env:"PRIVACY_KEY"`
	// What originals are encrypted with, for projects with privacy.keep_originals:
	// 32 random bytes in base64 or hex, the same for all enrichers.
	OriginalsKey string `yaml:"originals_key" env:"ORIGINALS_KEY"`
	// Keys that were used before, to read what they encrypted.
	OriginalsOldKeys []string `yaml:"originals_old_keys" env:"ORIGINALS_OLD_KEYS"`
	// What is done about alerts.
	Alerts AlertsConfig `yaml:"alerts" envPrefix:"ALERTS_"`
}

// DefaultConfig is for one machine; Kafka's brokers are missing.
func DefaultConfig() Config {
	model := embedding.DefaultConfig()
	model.Provider = embedding.ProviderHash
	return Config{
		Embedding:        model,
		Server:           server.DefaultConfig(9091, 9191),
		Kafka:            stream.DefaultConfig(),
		ClickHouse:       clickhouse.DefaultConfig(),
		CacheBytes:       64 << 20,
		MaxSessionEvents: 50_000,
		TimersEvery:      time.Minute,
		MaxBatch:         2000,
		Alerts:           DefaultAlertsConfig(),
	}
}

// Validate joins all that is wrong, each with its key.
func (c Config) Validate() error {
	errs := []error{
		config.In("server", c.Server.Validate()),
		config.In("kafka", c.Kafka.Validate()),
		config.In("clickhouse", c.ClickHouse.Validate()),
		config.In("alerts", c.Alerts.Validate()),
		config.In("embedding", c.Embedding.Validate()),
	}
	if c.CacheBytes < 0 {
		errs = append(errs, errors.New("cache_bytes: want at least 0"))
	}
	if c.MaxSessionEvents < 1 {
		errs = append(errs, errors.New("max_session_events: want at least 1"))
	}
	if c.TimersEvery < 0 || c.TimersEvery > 0 && c.TimersEvery < time.Second {
		errs = append(errs, errors.New("timers_every: want 0 or at least 1s"))
	}
	if c.MaxBatch < 1 {
		errs = append(errs, errors.New("max_batch: want at least 1"))
	}
	if n := len(c.PrivacyKey); n > 0 && n < 16 {
		errs = append(errs, errors.New("privacy_key: want at least 16 characters, drawn at random"))
	}
	_, err := originals.NewKeys(c.OriginalsKey, c.OriginalsOldKeys)
	return errors.Join(append(errs, err)...)
}
