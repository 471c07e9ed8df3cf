// Package benchfill fills a ClickHouse with made-up history for benchmarks, and
// says what queries cost there.
package benchfill

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

//go:embed fill.sql
var fillSQL string

//go:embed after.sql
var afterSQL string

const (
	// Months that a history covers.
	Months = 12
	// MinEvents is one session a month.
	MinEvents = 8 * Months

	// Most events of one INSERT.
	chunk = 400_000
	// A query that takes longer fails.
	timeout = 10 * time.Minute
)

// Client asks over HTTP, as `hone sql` does.
type Client struct {
	// URL is the base URL of ClickHouse.
	URL string
}

// Cost is what ClickHouse says of a query.
type Cost struct {
	Took        time.Duration
	Rows, Bytes uint64 // read
	Memory      uint64 // peak; 0 where it does not say
}

// Ask runs one statement and gives its answer.
func (c Client) Ask(ctx context.Context, query string, params map[string]string) (string, Cost, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	values := url.Values{"database": {"hone"}, "wait_end_of_query": {"1"}}
	for name, value := range params {
		values.Set("param_"+name, value)
	}
	began := time.Now()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.URL+"/?"+values.Encode(), strings.NewReader(query))
	if err != nil {
		return "", Cost{}, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", Cost{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "", Cost{}, err
	}
	if resp.StatusCode != http.StatusOK {
		return "", Cost{}, fmt.Errorf("ClickHouse: %s", body)
	}
	var summary struct {
		ReadRows    uint64 `json:"read_rows,string"`
		ReadBytes   uint64 `json:"read_bytes,string"`
		MemoryUsage uint64 `json:"memory_usage,string"`
	}
	if err := json.Unmarshal([]byte(resp.Header.Get("X-ClickHouse-Summary")), &summary); err != nil {
		return "", Cost{}, fmt.Errorf("read summary: %w", err)
	}
	return string(body), Cost{time.Since(began), summary.ReadRows, summary.ReadBytes, summary.MemoryUsage}, nil
}

func (c Client) statements(ctx context.Context, sql string, params map[string]string) error {
	for statement := range strings.SplitSeq(sql, ";\n") {
		if strings.TrimSpace(statement) == "" {
			continue
		}
		if _, _, err := c.Ask(ctx, statement, params); err != nil {
			return fmt.Errorf("%w in\n%.300s", err, statement)
		}
	}
	return nil
}

// Fill writes events of project default, and what followed from them, into an
// empty ClickHouse: as many a month, the newest month being that of a time. It
// shows its progress on w, and says what it wrote.
func (c Client) Fill(ctx context.Context, events int, newest time.Time, w io.Writer) (string, error) {
	began := time.Now()
	perMonth := events / Months / 8 * 8 // whole sessions
	newest = newest.UTC()
	var past []string
	for m := range Months {
		month := time.Date(newest.Year(), newest.Month(), 1, 0, 0, 0, 0, time.UTC).AddDate(0, m+1-Months, 0)
		if month.AddDate(0, 1, 0).Before(began) {
			past = append(past, month.Format("200601"))
		}
		for done := 0; done < perMonth; done += chunk {
			err := c.statements(ctx, fillSQL, map[string]string{
				"month": month.Format(time.DateOnly), "first": strconv.Itoa(m*perMonth + done), "events": strconv.Itoa(min(chunk, perMonth-done)),
			})
			if err != nil {
				return "", fmt.Errorf("fill: %w", err)
			}
		}
		fmt.Fprintf(w, "\r%d of %d events", (m+1)*perMonth, Months*perMonth)
	}
	fmt.Fprintln(w)
	if err := c.statements(ctx, afterSQL, nil); err != nil {
		return "", fmt.Errorf("fill: %w", err)
	}
	// ClickHouse merges a past month into one part after a day.
	for _, partition := range past {
		for _, table := range []string{"events_log", "decisions_log"} {
			if _, _, err := c.Ask(ctx, "OPTIMIZE TABLE "+table+" PARTITION "+partition+" FINAL", nil); err != nil {
				return "", fmt.Errorf("merge: %w", err)
			}
		}
	}
	size, _, err := c.Ask(ctx, `SELECT formatReadableQuantity(sumIf(rows, table = 'events_log')) || ' events of ' ||
		toString(round(sumIf(data_uncompressed_bytes, table = 'events_log') / sumIf(rows, table = 'events_log'))) || ' bytes each, ' ||
		formatReadableQuantity(sumIf(rows, table = 'signals_log')) || ' signals; ' || formatReadableSize(sum(bytes_on_disk)) || ' on disk'
		FROM system.parts WHERE active AND database = 'hone' FORMAT TSVRaw`, nil)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("filled in %s: %s", time.Since(began).Round(time.Second), strings.TrimSpace(size)), nil
}
