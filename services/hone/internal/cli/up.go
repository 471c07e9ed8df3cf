package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/honeloop/hone/services/hone/internal/endpoints"
	"github.com/honeloop/hone/services/hone/internal/standalone"
)

func newUpCommand(g *global) *cobra.Command {
	var ports string
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start all of Hone on this machine",
		Long: `Start all of Hone on this machine: an embedded broker, ClickHouse and Weaviate as child
processes, and the five services. Data, logs and keys are kept in --dir; start it
again and all is there. For one machine: nothing is replicated.

The embedding model is that of HONE_EMBEDDER_EMBEDDING_PROVIDER (minilm, hash or openai)
and the variables beside it; 'hone reindex' changes the model of a --dir that has data.`,
		Example: `  hone up
  hone up --dir /var/lib/hone
  hone up --dir "$(mktemp -d)" --ports auto --json`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			start := time.Now()
			h, err := startHone(cmd.Context(), g.dir, ports, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if g.json {
				err = printJSON(cmd.OutOrStdout(), h.Endpoints)
			} else {
				printScreen(newPainter(cmd.OutOrStdout()), g.dir, h, time.Since(start))
			}
			return errors.Join(err, waitAndStop(cmd.Context(), h, cmd.ErrOrStderr()))
		},
	}
	cmd.Flags().StringVar(&ports, "ports", "default", `"default", or "auto" for any that are free`)
	return cmd
}

// startHone starts a standalone Hone.
func startHone(ctx context.Context, dir, ports string, progress io.Writer) (*standalone.Hone, error) {
	o := standalone.Options{Dir: dir, Progress: progress}
	switch ports {
	case "default":
		o.Ports = standalone.DefaultPorts()
	case "auto":
	default:
		return nil, fmt.Errorf(`--ports %q: want "default" or "auto"`, ports)
	}
	return standalone.Start(ctx, o)
}

// waitAndStop waits for the end of ctx, or of a service, and stops.
func waitAndStop(ctx context.Context, h *standalone.Hone, progress io.Writer) error {
	err := h.Wait(ctx)
	fmt.Fprintln(progress, "stopping")
	start := time.Now()
	if err = errors.Join(err, h.Stop()); err == nil {
		fmt.Fprintf(progress, "stopped after %s\n", time.Since(start).Round(10*time.Millisecond))
	}
	return err
}

func printScreen(p *painter, dir string, h *standalone.Hone, took time.Duration) {
	e := h.Endpoints
	p.printf("\n%s  %s\n\n", p.bold("Hone is up"), p.dim(fmt.Sprintf("after %s, data in %s", took.Round(10*time.Millisecond), dir)))
	p.printf("  events, recall   %s   gRPC %s\n", e.HTTP, e.GRPC)
	p.printf("  Kafka            %s\n", e.Kafka)
	p.printf("  ClickHouse       %s   native %s\n", e.ClickHouseHTTP, e.ClickHouse)
	p.printf("  Weaviate         %s\n", e.Weaviate)
	if h.NewKeys {
		p.printf("\n  Keys of the new project \"default\", shown this once:\n")
		p.printf("  secret           %s\n", e.SecretKey)
		p.printf("  publishable      %s   %s\n", e.PublishableKey, p.dim("may only send events"))
	}
	p.printf("\n  %s\n\n", p.dim("Scripts find all this in "+dir+"/"+endpoints.FileName+". Ctrl-C stops."))
}
