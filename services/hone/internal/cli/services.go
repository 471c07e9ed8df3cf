package cli

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/honeloop/hone/pkg/config"
	"github.com/honeloop/hone/pkg/telemetry"
	"github.com/honeloop/hone/services/collector"
	"github.com/honeloop/hone/services/curator"
	"github.com/honeloop/hone/services/embedder"
	"github.com/honeloop/hone/services/enricher"
	"github.com/honeloop/hone/services/hone/internal/migrate"
	"github.com/honeloop/hone/services/router"
)

// newServiceCommands run one service each, against any Kafka, ClickHouse and
// Weaviate.
func newServiceCommands() []*cobra.Command {
	return []*cobra.Command{
		serviceCommand("collector", "Take events, and pass calls on to the other services", collector.DefaultConfig,
			func(ctx context.Context, c *collector.Config, tel *telemetry.Telemetry) (runner, error) {
				return collector.New(ctx, *c, tel)
			}),
		serviceCommand("enricher", "Join events to their session's trail and derive signals", enricher.DefaultConfig,
			func(ctx context.Context, c *enricher.Config, tel *telemetry.Telemetry) (runner, error) {
				return enricher.New(ctx, *c, tel)
			}),
		serviceCommand("embedder", "Embed exchanges, find their case, and answer recalls", embedder.DefaultConfig,
			func(ctx context.Context, c *embedder.Config, tel *telemetry.Telemetry) (runner, error) {
				return embedder.New(ctx, *c, tel)
			}),
		serviceCommand("router", "Decide by policy what is done with each signal", router.DefaultConfig,
			func(ctx context.Context, c *router.Config, tel *telemetry.Telemetry) (runner, error) {
				return router.New(ctx, *c, tel)
			}),
		serviceCommand("curator", "Keep reviews, datasets and patches", curator.DefaultConfig,
			func(ctx context.Context, c *curator.Config, tel *telemetry.Telemetry) (runner, error) {
				return curator.New(ctx, *c, tel)
			}),
	}
}

type runner interface {
	Run(ctx context.Context) error
}

// configOf is a pointer to a config that can validate itself.
type configOf[C any] interface {
	*C
	config.Validator
}

func serviceCommand[C any, P configOf[C]](name, short string, defaults func() C, create func(context.Context, P, *telemetry.Telemetry) (runner, error)) *cobra.Command {
	var file, level string
	cmd := &cobra.Command{
		Use:   name,
		Short: short,
		Long: short + `.

It is configured by the section "` + name + `" of a YAML file, and by environment variables
that begin with ` + envPrefix(name) + ` and go before the file.`,
		Example: "  hone " + name + " --config hone.yaml\n  " + envPrefix(name) + "KAFKA_BROKERS=kafka-1:9092,kafka-2:9092 hone " + name,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg := defaults()
			if err := config.Load(P(&cfg), file, name, envPrefix(name)); err != nil {
				return err
			}
			var l slog.Level
			if err := l.UnmarshalText([]byte(level)); err != nil {
				return fmt.Errorf("--log-level: %w", err)
			}
			tel, err := telemetry.New(os.Stderr, l)
			if err != nil {
				return err
			}
			svc, err := create(cmd.Context(), P(&cfg), tel.Named(name))
			if err != nil {
				return err
			}
			defer tel.Close()
			return svc.Run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&file, "config", os.Getenv("HONE_CONFIG"), "configuration file (HONE_CONFIG)")
	cmd.Flags().StringVar(&level, "log-level", "info", "debug, info, warn or error; user text is logged at debug alone")
	return cmd
}

func envPrefix(section string) string { return "HONE_" + strings.ToUpper(section) + "_" }

func newMigrateCommand() *cobra.Command {
	var file string
	var wait time.Duration
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Create and update topics, tables and collections",
		Long: `Create and update topics, tables and collections. Run it before the services of a new
version; they wait for it. It may be run again. 'hone up' does it by itself.`,
		Example: "  hone migrate --config hone.yaml\n  HONE_MIGRATE_KAFKA_BROKERS=kafka:9092 HONE_MIGRATE_PARTITIONS=24 hone migrate",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg := migrate.DefaultConfig()
			if err := config.Load(&cfg, file, "migrate", envPrefix("migrate")); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), wait)
			defer cancel()
			if err := migrate.Run(ctx, cfg); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "topics, tables and collections are up to date")
			return nil
		},
	}
	cmd.Flags().StringVar(&file, "config", os.Getenv("HONE_CONFIG"), "configuration file (HONE_CONFIG)")
	cmd.Flags().DurationVar(&wait, "timeout", 2*time.Minute, "longest time to wait for the parts")
	return cmd
}
