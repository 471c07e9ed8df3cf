package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/honeloop/hone/services/hone/internal/bench"
)

func newBenchCommand(g *global) *cobra.Command {
	cmd := &cobra.Command{Use: "bench", Short: "Measure Hone on this machine"}
	o := bench.Options{}
	var queries string
	imports := &cobra.Command{
		Use:   "import",
		Short: "Events per second end to end, and the time from accepted to recallable",
		Long: `Start a Hone of its own in a temporary directory, send events as fast as they are taken until
all of them are judged and decided, then at a steady rate, and ask Recall about each
feedback until it is known. A yardstick moves the same events the shortest way from a
producer through Kafka into ClickHouse in the same run.`,
		Example: "  hone bench import\n  hone bench import --events 100000 --rate 500 --duration 2m --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if o.Queries, err = bench.ReadQueries(queries); err != nil {
				return err
			}
			dir, err := os.MkdirTemp("", "hone-bench-")
			if err != nil {
				return fmt.Errorf("create directory: %w", err)
			}
			defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
			h, err := startHone(cmd.Context(), dir, "auto", cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			defer func() { err = errors.Join(err, h.Stop()) }()
			conn, err := dial(h.Endpoints)
			if err != nil {
				return err
			}
			defer conn.Close()
			report, err := bench.Import(cmd.Context(), h.Endpoints, conn, o, cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			if g.json {
				return printJSON(cmd.OutOrStdout(), report)
			}
			p := newPainter(cmd.OutOrStdout())
			p.printf("\n%d events, one in ten a feedback\n", report.Events)
			p.printf("  accepted                     %9.0f events/s\n", report.AcceptedPerSecond)
			p.printf("  judged, embedded and decided %9.0f events/s\n", report.EndToEndPerSecond)
			p.printf("  yardstick                    %9.0f events/s   %s\n", report.YardstickPerSec, p.dim(report.YardstickName))
			p.printf("  ratio                        %9.2f\n\n", report.Ratio)
			p.printf("accepted to recallable at %d events/s, %s, %d missed\n", report.Rate, count(report.Samples, "sample"), report.Missed)
			p.printf("  p50 %.0f ms   p99 %.0f ms   max %.0f ms\n", report.P50Millis, report.P99Millis, report.MaxMillis)
			return nil
		},
	}
	f := imports.Flags()
	f.IntVar(&o.Events, "events", 20_000, "events of the first part")
	f.IntVar(&o.Rate, "rate", 200, "events per second of the second part")
	f.DurationVar(&o.Duration, "duration", time.Minute, "of the second part")
	f.Uint64Var(&o.Seed, "seed", 1, "seed of the choice of questions")
	f.StringVar(&queries, "queries", filepath.Join("..", "shared", "data", "banking77", "train.csv"), "CSV file whose first column has users' questions")
	cmd.AddCommand(imports)
	return cmd
}
