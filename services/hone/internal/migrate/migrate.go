// Package migrate creates and updates what the services need to be there:
// topics, tables and collections (DECISIONS 6).
package migrate

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sync/errgroup"

	"github.com/honeloop/hone/pkg/clickhouse"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/vector"
)

// Config says where things are and how topics are made.
type Config struct {
	Kafka      stream.Config     `yaml:"kafka" envPrefix:"KAFKA_"`
	ClickHouse clickhouse.Config `yaml:"clickhouse" envPrefix:"CLICKHOUSE_"`
	Weaviate   vector.Config     `yaml:"weaviate" envPrefix:"WEAVIATE_"`
	// Of topics that are made. It bounds how many processes share a stage.
	Partitions  int `yaml:"partitions" env:"PARTITIONS"`
	Replication int `yaml:"replication" env:"REPLICATION"`
}

// DefaultConfig is for parts on this machine.
func DefaultConfig() Config {
	return Config{Kafka: stream.DefaultConfig(), ClickHouse: clickhouse.DefaultConfig(), Weaviate: vector.DefaultConfig(), Partitions: 12, Replication: 1}
}

// Validate joins all that is wrong.
func (c *Config) Validate() error {
	var errs []error
	for key, err := range map[string]error{"kafka": c.Kafka.Validate(), "clickhouse": c.ClickHouse.Validate(), "weaviate": c.Weaviate.Validate()} {
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", key, err))
		}
	}
	if c.Partitions < 1 {
		errs = append(errs, errors.New("partitions: want at least 1"))
	}
	if c.Replication < 1 {
		errs = append(errs, errors.New("replication: want at least 1"))
	}
	return errors.Join(errs...)
}

// Run brings everything up to date. It may be called again.
func Run(ctx context.Context, c Config) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return stream.EnsureTopics(ctx, c.Kafka, c.Partitions, c.Replication) })
	g.Go(func() error { return clickhouse.Migrate(ctx, c.ClickHouse) })
	g.Go(func() (err error) {
		client, err := vector.Open(c.Weaviate)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, client.Close()) }()
		return client.EnsureSchema(ctx)
	})
	return g.Wait()
}
