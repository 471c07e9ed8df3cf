package router

import (
	"errors"
	"fmt"

	"github.com/honeloop/hone/pkg/clickhouse"
	"github.com/honeloop/hone/pkg/server"
	"github.com/honeloop/hone/pkg/stream"
)

// Config of the router.
type Config struct {
	Server     server.Config     `yaml:"server" envPrefix:"SERVER_"`
	Kafka      stream.Config     `yaml:"kafka" envPrefix:"KAFKA_"`
	ClickHouse clickhouse.Config `yaml:"clickhouse" envPrefix:"CLICKHOUSE_"`
	// File of the policy; the default policy where it is empty.
	PolicyFile string `yaml:"policy_file" env:"POLICY_FILE"`
}

// DefaultConfig is for one machine; Kafka's brokers are missing.
func DefaultConfig() Config {
	return Config{
		Server:     server.DefaultConfig(9095, 9195),
		Kafka:      stream.DefaultConfig(),
		ClickHouse: clickhouse.DefaultConfig(),
	}
}

// Validate joins all that is wrong, each with its key.
func (c Config) Validate() error {
	return errors.Join(
		prefix("server", c.Server.Validate()),
		prefix("kafka", c.Kafka.Validate()),
		prefix("clickhouse", c.ClickHouse.Validate()),
	)
}

func prefix(section string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", section, err)
}
