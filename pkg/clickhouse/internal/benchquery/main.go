// Benchquery times the sample queries of deploy/queries on an embedded
// ClickHouse with as many events as wanted, beside a plain scan. Run it with
// `make bench-query`.
package main

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
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
	"github.com/honeloop/hone/pkg/embedded"
)

//go:embed fill.sql
var fillSQL string

//go:embed after.sql
var afterSQL string

// What is not a flag.
const (
	months = 12
	// Most events of one INSERT.
	chunk = 400_000
	// A query that takes longer fails.
	timeout = 10 * time.Minute
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
	if events < 8*months || runs < 1 {
		return fmt.Errorf("want at least %d events and one run", 8*months)
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
	c := client{"http://" + server.HTTPAddr + "/?"}
	if err := c.fill(ctx, events); err != nil {
		return err
	}
	return c.measure(ctx, runs, queries)
}

// client asks over HTTP, as `hone sql` does.
type client struct{ url string }

// cost is what ClickHouse says of a query.
type cost struct {
	took        time.Duration
	rows, bytes uint64
	memory      uint64 // peak; 0 where it does not say
}

func (c client) ask(ctx context.Context, query string, params map[string]string) (string, cost, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	values := url.Values{"database": {"hone"}, "wait_end_of_query": {"1"}}
	for name, value := range params {
		values.Set("param_"+name, value)
	}
	began := time.Now()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+values.Encode(), strings.NewReader(query))
	if err != nil {
		return "", cost{}, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", cost{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", cost{}, err
	}
	if resp.StatusCode != http.StatusOK {
		return "", cost{}, fmt.Errorf("ClickHouse: %s", body)
	}
	var summary struct {
		ReadRows    uint64 `json:"read_rows,string"`
		ReadBytes   uint64 `json:"read_bytes,string"`
		MemoryUsage uint64 `json:"memory_usage,string"`
	}
	if err := json.Unmarshal([]byte(resp.Header.Get("X-ClickHouse-Summary")), &summary); err != nil {
		return "", cost{}, fmt.Errorf("read summary: %w", err)
	}
	return string(body), cost{time.Since(began), summary.ReadRows, summary.ReadBytes, summary.MemoryUsage}, nil
}

func (c client) statements(ctx context.Context, sql string, params map[string]string) error {
	for statement := range strings.SplitSeq(sql, ";\n") {
		if strings.TrimSpace(statement) == "" {
			continue
		}
		if _, _, err := c.ask(ctx, statement, params); err != nil {
			return fmt.Errorf("%w in\n%.300s", err, statement)
		}
	}
	return nil
}

// fill writes the data, unless they are there.
func (c client) fill(ctx context.Context, events int) error {
	have, _, err := c.ask(ctx, "SELECT count() FROM events_log", nil)
	if err != nil {
		return err
	}
	if have != "0\n" {
		fmt.Printf("%s events are there already\n", strings.TrimSpace(have))
		return nil
	}
	began := time.Now()
	perMonth := events / months / 8 * 8 // whole sessions
	now := time.Now().UTC()
	var past []string
	for m := range months {
		month := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC).AddDate(0, m+1-months, 0)
		if m < months-1 {
			past = append(past, month.Format("200601"))
		}
		for done := 0; done < perMonth; done += chunk {
			err := c.statements(ctx, fillSQL, map[string]string{
				"month": month.Format(time.DateOnly), "first": strconv.Itoa(m*perMonth + done), "events": strconv.Itoa(min(chunk, perMonth-done)),
			})
			if err != nil {
				return fmt.Errorf("fill: %w", err)
			}
		}
		fmt.Fprintf(os.Stderr, "\r%d of %d events", (m+1)*perMonth, months*perMonth)
	}
	fmt.Fprintln(os.Stderr)
	if err := c.statements(ctx, afterSQL, nil); err != nil {
		return fmt.Errorf("fill: %w", err)
	}
	// ClickHouse merges a past month into one part after a day.
	for _, partition := range past {
		for _, table := range []string{"events_log", "decisions_log"} {
			if _, _, err := c.ask(ctx, "OPTIMIZE TABLE "+table+" PARTITION "+partition+" FINAL", nil); err != nil {
				return fmt.Errorf("merge: %w", err)
			}
		}
	}
	size, _, err := c.ask(ctx, `SELECT formatReadableQuantity(sumIf(rows, table = 'events_log')) || ' events of ' ||
		toString(round(sumIf(data_uncompressed_bytes, table = 'events_log') / sumIf(rows, table = 'events_log'))) || ' bytes each, ' ||
		formatReadableQuantity(sumIf(rows, table = 'signals_log')) || ' signals; ' || formatReadableSize(sum(bytes_on_disk)) || ' on disk'
		FROM system.parts WHERE active AND database = 'hone' FORMAT TSVRaw`, nil)
	if err != nil {
		return err
	}
	fmt.Printf("filled in %s: %s", time.Since(began).Round(time.Second), size)
	return nil
}

func (c client) measure(ctx context.Context, runs int, folder string) error {
	files, err := filepath.Glob(filepath.Join(folder, "*.sql"))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("no queries in %s: %w", folder, errors.Join(err, os.ErrNotExist))
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "query\tdays\tmedian\tp99\trows read\tMB read\tpeak MB\t")
	report := func(name, query, days string, params map[string]string) error {
		var took []time.Duration
		var last cost
		for i := range runs + 1 {
			_, cost, err := c.ask(ctx, query, params)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			if i > 0 {
				took = append(took, cost.took)
			}
			last = cost
		}
		slices.Sort(took)
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%.1f\t%.0f\t\n", name, days, took[len(took)/2].Round(time.Millisecond/10),
			took[(len(took)*99-1)/100].Round(time.Millisecond/10), last.rows, float64(last.bytes)/1e6, float64(last.memory)/1e6)
		return nil
	}
	for _, scan := range scans {
		if err := report(scan.name, scan.query, "all", nil); err != nil {
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
			if err := report(strings.TrimSuffix(filepath.Base(file), ".sql"), string(query), days, params); err != nil {
				return err
			}
		}
	}
	return w.Flush()
}
