package router

import (
	"errors"
	"time"

	"github.com/honeloop/hone/pkg/clickhouse"
	"github.com/honeloop/hone/pkg/config"
	"github.com/honeloop/hone/pkg/server"
	"github.com/honeloop/hone/pkg/stream"
)

// Config of the router.
type Config struct {
	Server     server.Config     `yaml:"server" envPrefix:"SERVER_"`
	Kafka      stream.Config     `yaml:"kafka" envPrefix:"KAFKA_"`
	ClickHouse clickhouse.Config `yaml:"clickhouse" envPrefix:"CLICKHOUSE_"`
	// File of the policy for projects that published none; the default policy
	// where it is empty.
	PolicyFile string `yaml:"policy_file" env:"POLICY_FILE"`
	// Longest wait of a policy's publication, for the log and until it is read back.
	PublishTimeout time.Duration `yaml:"publish_timeout" env:"PUBLISH_TIMEOUT"`
}

// DefaultConfig is for one machine; Kafka's brokers are missing.
func DefaultConfig() Config {
	return Config{
		Server:         server.DefaultConfig(9095, 9195),
		Kafka:          stream.DefaultConfig(),
		ClickHouse:     clickhouse.DefaultConfig(),
		PublishTimeout: 4 * time.Second, // the gateway waits 5 s
	}
}

// Validate joins all that is wrong, each with its key.
func (c Config) Validate() error {
	errs := []error{
		config.In("server", c.Server.Validate()),
		config.In("kafka", c.Kafka.Validate()),
		config.In("clickhouse", c.ClickHouse.Validate()),
	}
	if c.PublishTimeout <= 0 {
		errs = append(errs, errors.New("publish_timeout: want more than 0"))
	}
	return errors.Join(errs...)
}
