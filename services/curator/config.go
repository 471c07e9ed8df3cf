package curator

import (
	"errors"
	"fmt"
	"time"

	"github.com/honeloop/hone/pkg/clickhouse"
	"github.com/honeloop/hone/pkg/config"
	"github.com/honeloop/hone/pkg/server"
	"github.com/honeloop/hone/pkg/stream"
)

// Config of the curator.
type Config struct {
	Server     server.Config     `yaml:"server" envPrefix:"SERVER_"`
	Kafka      stream.Config     `yaml:"kafka" envPrefix:"KAFKA_"`
	ClickHouse clickhouse.Config `yaml:"clickhouse" envPrefix:"CLICKHOUSE_"`
	// Longest wait of a reviewer's decision, for the log and until it is read back.
	DecideTimeout time.Duration `yaml:"decide_timeout" env:"DECIDE_TIMEOUT"`
	// Decisions being made at a time; more are refused.
	MaxDeciding int `yaml:"max_deciding" env:"MAX_DECIDING"`
	// Newest decisions kept in memory, about 300 bytes each. Older ones are read
	// from ClickHouse. It must be more than the stage on hone.curation can lag.
	MaxDecisions int `yaml:"max_decisions" env:"MAX_DECISIONS"`
	// Exports at a time; more are refused. Each holds a connection to ClickHouse.
	MaxExports int `yaml:"max_exports" env:"MAX_EXPORTS"`
}

// DefaultConfig is for one machine; Kafka's brokers are missing.
func DefaultConfig() Config {
	return Config{
		Server:        server.DefaultConfig(9096, 9196),
		Kafka:         stream.DefaultConfig(),
		ClickHouse:    clickhouse.DefaultConfig(),
		DecideTimeout: 10 * time.Second,
		MaxDeciding:   256,
		MaxDecisions:  200_000,
		MaxExports:    4,
	}
}

// Validate joins all that is wrong, each with its key.
func (c Config) Validate() error {
	errs := []error{
		config.In("server", c.Server.Validate()),
		config.In("kafka", c.Kafka.Validate()),
		config.In("clickhouse", c.ClickHouse.Validate()),
	}
	if c.DecideTimeout <= 0 {
		errs = append(errs, errors.New("decide_timeout: want more than 0"))
	}
	if c.MaxDeciding < 1 {
		errs = append(errs, errors.New("max_deciding: want at least 1"))
	}
	if c.MaxDecisions < 1 {
		errs = append(errs, errors.New("max_decisions: want at least 1"))
	}
	if c.MaxExports < 1 || c.MaxExports >= c.ClickHouse.MaxConns {
		errs = append(errs, fmt.Errorf("max_exports: want at least 1 and less than clickhouse.max_conns (%d)", c.ClickHouse.MaxConns))
	}
	return errors.Join(errs...)
}
