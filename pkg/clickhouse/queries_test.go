package clickhouse_test

import (
	"flag"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/honeloop/hone/pkg/clickhouse"
	"github.com/honeloop/hone/pkg/embedded/embeddedtest"
	"github.com/honeloop/hone/pkg/repotest"
)

var update = flag.Bool("update", false, "write testdata/answers anew; check each number by hand against testdata/shop.sql")

// TestSampleQueries asks each query of deploy/queries about the small shop of
// testdata/shop.sql, whose answers were worked out by hand.
func TestSampleQueries(t *testing.T) {
	cfg := config(t)
	if err := clickhouse.Migrate(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	conn, err := clickhouse.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	shop, err := os.ReadFile("testdata/shop.sql")
	if err != nil {
		t.Fatal(err)
	}
	for statement := range strings.SplitSeq(string(shop), ";\n") {
		if strings.TrimSpace(statement) == "" {
			continue
		}
		if err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%v in\n%s", err, statement)
		}
	}
	files, err := filepath.Glob(filepath.Join(repotest.Root(t), "deploy", "queries", "*.sql"))
	if err != nil || len(files) < 20 {
		t.Fatalf("found %d queries, %v; want at least 20", len(files), err)
	}
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".sql")
		t.Run(name, func(t *testing.T) {
			query, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := answer(t, cfg.Database, string(query))
			golden := filepath.Join("testdata", "answers", name+".tsv")
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatalf("no known answer: %v", err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

var used = regexp.MustCompile(`\{(\w+):(\w+)\}`)

// answer asks over HTTP, as `hone sql` does, with the parameters that the file
// declares.
func answer(t *testing.T, database, query string) string {
	t.Helper()
	if !strings.HasPrefix(query, "-- ") || !strings.HasSuffix(strings.SplitN(query, "\n", 2)[0], "?") {
		t.Error("does not begin with its question")
	}
	values := url.Values{"database": {database}, "default_format": {"TSVWithNames"}}
	declared := map[string]string{}
	for _, p := range clickhouse.Parameters(query) {
		declared[p.Name] = p.Type
		value := p.Default
		switch p.Name {
		case "project":
			value = "shop"
		case "days":
			value = "3650" // the shop's days stay in 2026
		}
		values.Set("param_"+p.Name, value)
		if !strings.Contains(query[strings.Index(query, "\nSELECT"):], "{"+p.Name+":"+p.Type+"}") {
			t.Errorf("parameter %s is declared and not used", p.Name)
		}
	}
	for _, m := range used.FindAllStringSubmatch(query, -1) {
		if declared[m[1]] != m[2] {
			t.Errorf("parameter %s is not declared so", m[0])
		}
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost,
		"http://"+embeddedtest.ClickHouse(t).HTTPAddr+"/?"+values.Encode(), strings.NewReader(query))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s %v: %s", resp.Status, err, body)
	}
	return string(body)
}
