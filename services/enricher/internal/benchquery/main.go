// Benchquery times the sample queries of deploy/queries, and trends, on an
// embedded ClickHouse with as many events as wanted, beside a plain scan. Run it
// with `make bench-query`.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/honeloop/hone/pkg/clickhouse"
	"github.com/honeloop/hone/pkg/clickhouse/benchfill"
	"github.com/honeloop/hone/pkg/embedded"

	"github.com/honeloop/hone/services/enricher/internal/trends"
)

// scans are the yardsticks: what it costs to read columns without FINAL.
var scans = []struct{ name, query string }{
	{"plain scan: type", "SELECT countIf(type = 'interaction') FROM events_log"},
	{"plain scan: ids, type, time", "SELECT count() FROM events_log WHERE NOT ignore(session_id, interaction_id, type, occurred_at)"},
}

func main() {
	embedded.Main()
	events := flag.Int("events", 1_000_000, "events to fill in")
	runs := flag.Int("runs", 10, "runs of each query, after one that warms up")
	queries := flag.String("queries", "../deploy/queries", "folder of the queries")
	dir := flag.String("dir", "", "folder of the data; kept, and used again as it is (default: a temporary one)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *events, *runs, *queries, *dir); err != nil {
		fmt.Fprintln(os.Stderr, "bench-query:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, events, runs int, queries, dir string) (err error) {
	if events < benchfill.MinEvents || runs < 1 {
		return fmt.Errorf("want at least %d events and one run", benchfill.MinEvents)
	}
	files, err := filepath.Glob(filepath.Join(queries, "*.sql"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("no queries in %s: %w", queries, errors.Join(err, os.ErrNotExist))
	}
	if dir == "" {
		if dir, err = os.MkdirTemp("", "hone-bench-query-"); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	}
	server, err := embedded.StartClickHouse(ctx, embedded.ClickHouseOptions{Dir: filepath.Join(dir, "clickhouse")})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Stop(context.WithoutCancel(ctx))) }()
	cfg := clickhouse.DefaultConfig()
	cfg.Addr = []string{server.Addr}
	if err := clickhouse.Migrate(ctx, cfg); err != nil {
		return err
	}
	c := benchfill.Client{URL: "http://" + server.HTTPAddr}
	if err := fill(ctx, c, events); err != nil {
		return err
	}
	conn, err := clickhouse.Open(cfg)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	return measure(ctx, c, trends.NewStore(conn), runs, files)
}

// fill writes the data, unless they are there.
func fill(ctx context.Context, c benchfill.Client, events int) error {
	have, _, err := c.Ask(ctx, "SELECT count() FROM events_log", nil)
	if err != nil {
		return err
	}
	if have != "0\n" {
		fmt.Printf("%s events are there already\n", strings.TrimSpace(have))
		return nil
	}
	filled, err := c.Fill(ctx, events, time.Now(), os.Stderr)
	if err != nil {
		return err
	}
	fmt.Println(filled)
	return nil
}

func measure(ctx context.Context, c benchfill.Client, store *trends.Store, runs int, files []string) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "query\tdays\tmedian\tp99\trows read\tMB read\tpeak MB\t")
	report := func(name, days string, ask func() (benchfill.Cost, error)) error {
		var took []time.Duration
		var last benchfill.Cost
		for i := range runs + 1 {
			cost, err := ask()
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if i > 0 {
				took = append(took, cost.Took)
			}
			last = cost
		}
		slices.Sort(took)
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%.1f\t%.0f\t\n", name, days, took[len(took)/2].Round(time.Millisecond/10),
			took[(len(took)*99-1)/100].Round(time.Millisecond/10), last.Rows, float64(last.Bytes)/1e6, float64(last.Memory)/1e6)
		return nil
	}
	text := func(query string, params map[string]string) func() (benchfill.Cost, error) {
		return func() (benchfill.Cost, error) {
			_, cost, err := c.Ask(ctx, query, params)
			return cost, err
		}
	}
	for _, scan := range scans {
		if err := report(scan.name, "all", text(scan.query, nil)); err != nil {
			return err
		}
	}
	for _, file := range files {
		query, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		for _, days := range []string{"30", "400"} {
			params := map[string]string{}
			for _, p := range clickhouse.Parameters(string(query)) {
				params[p.Name] = p.Default
			}
			if params["days"] == "" && days != "400" {
				continue // asks about all time anyway
			}
			params["days"] = days
			if err := report(strings.TrimSuffix(filepath.Base(file), ".sql"), days, text(string(query), params)); err != nil {
				return err
			}
		}
	}
	for _, days := range []int{7, 90, 400} {
		for _, t := range trendQuestions(store, days) {
			if err := report(t.name, strconv.Itoa(days), func() (benchfill.Cost, error) { return costOf(ctx, t.ask) }); err != nil {
				return err
			}
		}
	}
	return w.Flush()
}
