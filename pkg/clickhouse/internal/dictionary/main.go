// Dictionary writes the data dictionary of deploy/queries/README.md, from the
// comments in the schema: it migrates an embedded ClickHouse and reads them
// back. Run it with `make dictionary`.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/honeloop/hone/pkg/clickhouse"
	"github.com/honeloop/hone/pkg/embedded"
)

const (
	begin = "<!-- dictionary: `make dictionary` writes what follows -->\n"
	end   = "<!-- end of the dictionary -->\n"
)

func main() {
	embedded.Main()
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: dictionary README.md")
		os.Exit(2)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	if err := run(ctx, os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "dictionary:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, path string) (err error) {
	page, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, rest, found := strings.Cut(string(page), begin)
	_, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		return fmt.Errorf("%s: want the lines %q and %q", path, begin, end)
	}
	dir, err := os.MkdirTemp("", "hone-dictionary-")
	if err != nil {
		return err
	}
	server, err := embedded.StartClickHouse(ctx, embedded.ClickHouseOptions{Dir: filepath.Join(dir, "clickhouse")})
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	defer func() { err = errors.Join(err, server.Stop(context.WithoutCancel(ctx)), os.RemoveAll(dir)) }()
	cfg := clickhouse.DefaultConfig()
	cfg.Addr = []string{server.Addr}
	if err := clickhouse.Migrate(ctx, cfg); err != nil {
		return err
	}
	conn, err := clickhouse.Open(cfg)
	if err != nil {
		return err
	}
	defer conn.Close()
	text, err := dictionary(ctx, conn)
	if err != nil {
		return err
	}
	return os.WriteFile(path, []byte(before+begin+text+end+after), 0o600)
}

// dictionary is a table of columns for each view, by name.
func dictionary(ctx context.Context, conn driver.Conn) (string, error) {
	rows, err := conn.Query(ctx, `SELECT table, t.comment, c.name, type, c.comment FROM system.columns AS c
		INNER JOIN system.tables AS t ON t.database = c.database AND t.name = c.table
		WHERE c.database = currentDatabase() AND t.engine = 'View' ORDER BY table, position`)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	var b strings.Builder
	var last string
	for rows.Next() {
		var view, about, name, kind, comment string
		if err := rows.Scan(&view, &about, &name, &kind, &comment); err != nil {
			return "", err
		}
		if view != last {
			fmt.Fprintf(&b, "\n### %s\n\n%s\n\n| column | type | |\n| --- | --- | --- |\n", view, about)
			last = view
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name, kind, strings.ReplaceAll(comment, "|", "\\|"))
	}
	return b.String() + "\n", rows.Err()
}
