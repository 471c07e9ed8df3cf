package cli

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/honeloop/hone/services/hone/internal/bench"
	"github.com/honeloop/hone/services/hone/internal/endpoints"
)

func newBenchCommand(g *global) *cobra.Command {
	cmd := &cobra.Command{Use: "bench", Short: "Measure Hone on this machine"}
	o := bench.Options{}
	var queries string
	imports := &cobra.Command{
		Use:   "import",
		Short: "Events per second end to end, and the time from accepted to recallable",
		Long: `Start a Hone of its own in a temporary directory, send events as fast as they are taken until
all of them are judged and decided, then at a steady rate, and ask Recall about some of
the feedback until it is known. A yardstick moves the same events the shortest way from a
producer through Kafka into ClickHouse in the same run.`,
		Example: "  hone bench import\n  hone bench import --events 100000 --rate 500 --duration 2m --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if o.Queries, err = bench.ReadQueries(queries); err != nil {
				return err
			}
			var report bench.Report
			err = onFreshHone(cmd, func(e endpoints.Endpoints, conn *grpc.ClientConn) (err error) {
				report, err = bench.Import(cmd.Context(), e, conn, o, cmd.ErrOrStderr())
				return err
			})
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
	cmd.AddCommand(imports, newBenchRecallCommand(g), newBenchEraseCommand(g))
	return cmd
}

func newBenchRecallCommand(g *global) *cobra.Command {
	o := bench.RecallOptions{}
	var queries string
	cmd := &cobra.Command{
		Use:   "recall",
		Short: "How long Recall takes, beside a bare embedding and a bare search",
		Long: `Start a Hone of its own in a temporary directory, fill Weaviate with cases and exchanges
around real questions, and ask other questions by gRPC and by HTTP. The yardstick is
an embedding and one search of the exchanges, in the same run, taking turns.`,
		Example: "  hone bench recall\n  hone bench recall --exchanges 1000000 --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if o.Queries, err = bench.ReadQueries(queries); err != nil {
				return err
			}
			var report bench.RecallReport
			err = onFreshHone(cmd, func(e endpoints.Endpoints, conn *grpc.ClientConn) (err error) {
				report, err = bench.Recall(cmd.Context(), e, conn, o, cmd.ErrOrStderr())
				return err
			})
			if err != nil {
				return err
			}
			if g.json {
				return printJSON(cmd.OutOrStdout(), report)
			}
			p := newPainter(cmd.OutOrStdout())
			p.printf("\n%d exchanges in %d cases, loaded at %.0f per second; Weaviate has %.0f MB resident\n\n",
				report.Exchanges, report.Cases, report.LoadedPerSecond, report.WeaviateMB)
			var rows [][]string
			for _, r := range report.Rows {
				rows = append(rows, []string{fmt.Sprint(r.Clients), r.What, fmt.Sprintf("%.1f", r.P50Millis), fmt.Sprintf("%.1f", r.P99Millis),
					fmt.Sprintf("%.0f", r.PerSecond), fmt.Sprintf("%.2f", r.P50Ratio), fmt.Sprintf("%.2f", r.P99Ratio),
					fmt.Sprintf("%.1f", r.CPUMillis), fmt.Sprintf("%.2f", r.CPURatio), fmt.Sprint(r.Failed)})
			}
			return table(cmd.OutOrStdout(), []string{"clients", "what", "p50 ms", "p99 ms", "per second", "p50 of bare", "p99 of bare", "CPU ms", "CPU of bare", "gave up"}, rows)
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.Exchanges, "exchanges", 10_000, "exchanges that are stored")
	f.IntVar(&o.Requests, "requests", 2000, "requests of each kind, for each number of clients")
	f.IntSliceVar(&o.Clients, "clients", []int{1, 8, 32}, "numbers of clients")
	f.Uint64Var(&o.Seed, "seed", 1, "seed of the vectors and of the choice of questions")
	f.StringVar(&queries, "queries", filepath.Join("..", "shared", "data", "banking77", "train.csv"), "CSV file whose first column has users' questions")
	return cmd
}

func newBenchEraseCommand(g *global) *cobra.Command {
	o := bench.EraseOptions{}
	var queries string
	cmd := &cobra.Command{
		Use:   "erase",
		Short: "How long it takes to erase a user, and whether the receipt is true",
		Long: `Start a Hone of its own in a temporary directory, fill ClickHouse with a history of many users,
send one user's events and as many of others through the whole pipeline, and erase that user
over the API. The yardsticks are a scan of the largest table and bare deletes from it, in the
same run. It fails where anything of the user is left or the receipt says otherwise.`,
		Example: "  hone bench erase\n  hone bench erase --events 10000000 --json",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if o.Queries, err = bench.ReadQueries(queries); err != nil {
				return err
			}
			var report bench.EraseReport
			err = onFreshHone(cmd, func(e endpoints.Endpoints, conn *grpc.ClientConn) (err error) {
				report, err = bench.Erase(cmd.Context(), e, conn, o, cmd.ErrOrStderr())
				return err
			})
			if err != nil {
				return err
			}
			if g.json {
				err = printJSON(cmd.OutOrStdout(), report)
			} else {
				err = printEraseReport(newPainter(cmd.OutOrStdout()), report)
			}
			if err == nil && len(report.Wrong) > 0 {
				err = errors.New("the receipt is not true: " + strings.Join(report.Wrong, "; "))
			}
			return err
		},
	}
	f := cmd.Flags()
	f.IntVar(&o.Events, "events", 1_000_000, "events of others that are stored")
	f.IntVar(&o.Own, "own", 1000, "events of the user who is erased")
	f.StringVar(&queries, "queries", filepath.Join("..", "shared", "data", "banking77", "train.csv"), "CSV file whose first column has users' questions")
	return cmd
}

func printEraseReport(p *painter, r bench.EraseReport) error {
	p.printf("\n%s\na user with %d events was erased in %.1f s\n\n", r.Filled, r.Own, r.Seconds)
	times := func(what string, all []bench.EraseTime) error {
		var rows [][]string
		for _, t := range all {
			rows = append(rows, []string{fmt.Sprintf("%.2f", t.Seconds), t.What})
		}
		return table(p.w, []string{"seconds", what}, rows)
	}
	if err := times("waited", r.Steps); err != nil {
		return err
	}
	p.printf("\nthe rows were out of the files %.1f s after the receipt\n\n", r.PurgedSeconds)
	if err := times("yardstick", r.Yardsticks); err != nil {
		return err
	}
	p.printf("\n")
	var rows [][]string
	for _, s := range r.Places {
		rows = append(rows, []string{s.Place, fmt.Sprint(s.Removed), fmt.Sprint(s.Left), fmt.Sprint(s.Before), fmt.Sprint(s.After), fmt.Sprint(s.Words)})
	}
	return table(p.w, []string{"place", "receipt: removed", "left", "found: before", "after", "their words after"}, rows)
}

// onFreshHone starts a Hone in a temporary directory, and stops and removes it
// after f.
func onFreshHone(cmd *cobra.Command, f func(e endpoints.Endpoints, conn *grpc.ClientConn) error) (err error) {
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
	defer func() { err = errors.Join(err, conn.Close()) }()
	return f(h.Endpoints, conn)
}
