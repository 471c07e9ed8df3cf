package clickhouse_test

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/honeloop/hone/pkg/clickhouse"
	"github.com/honeloop/hone/pkg/embedded"
	"github.com/honeloop/hone/pkg/embedded/embeddedtest"
)

func TestMain(m *testing.M) {
	embedded.Main()
	os.Exit(embeddedtest.Run(m))
}

func config(t *testing.T) clickhouse.Config {
	t.Helper()
	cfg := clickhouse.DefaultConfig()
	cfg.Addr = []string{embeddedtest.ClickHouse(t).Addr}
	cfg.Database = t.Name()
	return cfg
}

func TestMigrateMakesEverythingInItsDatabaseAndCommentsIt(t *testing.T) {
	cfg := config(t)
	for range 2 { // the second one finds nothing to do
		if err := clickhouse.Migrate(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := clickhouse.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var names, bare []string
	err = conn.QueryRow(t.Context(), `SELECT groupArray(name) FROM system.tables WHERE database = currentDatabase() AND name != 'goose_db_version'`).Scan(&names)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"events_log", "events", "signals_log", "signals", "cases_log", "cases", "decisions_log", "decisions"} {
		if !slices.Contains(names, want) {
			t.Errorf("tables and views %q are without %s", names, want)
		}
	}
	err = conn.QueryRow(t.Context(), `SELECT arrayConcat(
		(SELECT groupArray(table || '.' || name) FROM system.columns WHERE database = currentDatabase() AND table != 'goose_db_version' AND comment = ''),
		(SELECT groupArray(name) FROM system.tables WHERE database = currentDatabase() AND name != 'goose_db_version' AND comment = ''))`).Scan(&bare)
	if err != nil {
		t.Fatal(err)
	}
	if len(bare) > 0 {
		t.Errorf("without a comment: %q", bare)
	}
}

func TestWaitForSchemaWaitsUntilItIsMigrated(t *testing.T) {
	cfg := config(t)
	createDatabase(t, cfg)
	conn, err := clickhouse.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if err := clickhouse.WaitForSchema(ctx, conn); err == nil || !strings.Contains(err.Error(), "goose_db_version") {
		t.Fatalf("before the migration: %v, want an error that says what is missing", err)
	}
	done := make(chan error, 1)
	go func() { done <- clickhouse.WaitForSchema(t.Context(), conn) }()
	if err := clickhouse.Migrate(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-done:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("still waiting after the migration")
	}
	if err := conn.Exec(t.Context(), "TRUNCATE TABLE goose_db_version"); err != nil {
		t.Fatal(err)
	}
	if err := clickhouse.CheckSchema(t.Context(), conn); err == nil || !strings.Contains(err.Error(), "hone migrate") {
		t.Errorf("an older schema: %v, want an error that says what to do", err)
	}
}

// createDatabase makes the database alone. The embedded server does not survive
// a client that asks for one that is not there.
func createDatabase(t *testing.T, cfg clickhouse.Config) {
	t.Helper()
	name := cfg.Database
	cfg.Database = "default"
	conn, err := clickhouse.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.Exec(t.Context(), "CREATE DATABASE "+name); err != nil {
		t.Fatal(err)
	}
}

type row struct {
	id    string
	at    time.Time
	score *float64
	tags  map[string]string
	words []string
	ok    bool
	raw   []byte
}

func rows() clickhouse.Table[row] {
	return clickhouse.Table[row]{Name: "t", Columns: []clickhouse.Column[row]{
		clickhouse.Col("id", func(r row) string { return r.id }),
		clickhouse.Col("at", func(r row) time.Time { return r.at }),
		clickhouse.Col("score", func(r row) *float64 { return r.score }),
		clickhouse.Col("tags", func(r row) map[string]string { return r.tags }),
		clickhouse.Col("words", func(r row) []string { return r.words }),
		clickhouse.Col("ok", func(r row) bool { return r.ok }),
		clickhouse.Col("raw", func(r row) []byte { return r.raw }),
	}}
}

func TestInsert(t *testing.T) {
	cfg := config(t)
	cfg.MaxConns = 2
	if err := clickhouse.Migrate(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	conn, err := clickhouse.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	err = conn.Exec(t.Context(), `CREATE TABLE t (id LowCardinality(String), at DateTime64(3, 'UTC'), score Nullable(Float64),
		tags Map(LowCardinality(String), String), words Array(LowCardinality(String)), ok Bool, raw String) ENGINE = MergeTree ORDER BY id`)
	if err != nil {
		t.Fatal(err)
	}
	good := row{id: "a", at: time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC), score: new(float64), tags: map[string]string{"k": "v"},
		words: []string{"x", "y"}, ok: true, raw: []byte{0xff, 0}}
	empty := row{id: "b", at: time.Unix(0, 0)}
	if err := rows().Insert(t.Context(), conn, nil); err != nil {
		t.Errorf("no rows: %v", err)
	}
	wrong := rows()
	wrong.Columns[1] = clickhouse.Col("at", func(r row) bool { return r.ok })
	for range 2 * cfg.MaxConns { // each would hold a connection for good
		if err := wrong.Insert(t.Context(), conn, []row{good}); err == nil || !strings.Contains(err.Error(), "column at") {
			t.Fatalf("a value of the wrong type: %v, want an error that names the column", err)
		}
	}
	if err := rows().Insert(t.Context(), conn, []row{good, empty}); err != nil {
		t.Fatal(err)
	}
	var got string
	err = conn.QueryRow(t.Context(), "SELECT toString(groupArray((id, at, score, tags, words, ok, hex(raw)))) FROM (SELECT * FROM t ORDER BY id)").Scan(&got)
	if err != nil {
		t.Fatal(err)
	}
	want := `[('a','2026-01-02 03:04:05.006',0,{'k':'v'},['x','y'],true,'FF00'),('b','1970-01-01 00:00:00.000',NULL,{},[],false,'')]`
	if got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestCheckTime(t *testing.T) {
	for at, ok := range map[time.Time]bool{
		time.Unix(0, 0): true, time.Unix(-1, 0): false, time.Now(): true,
		time.Date(2199, 12, 31, 23, 0, 0, 0, time.UTC): true, time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC): false,
	} {
		if err := clickhouse.CheckTime(at); (err == nil) != ok {
			t.Errorf("CheckTime(%s) = %v", at, err)
		}
	}
}

func TestConfigNamesWhatIsWrong(t *testing.T) {
	if err := clickhouse.DefaultConfig().Validate(); err != nil {
		t.Errorf("defaults: %v", err)
	}
	err := clickhouse.Config{Database: "hone; DROP"}.Validate()
	for _, key := range []string{"addr", "database", "username", "dial_timeout", "read_timeout", "max_conns"} {
		if !strings.Contains(fmt.Sprint(err), key+":") {
			t.Errorf("error %v does not name %s", err, key)
		}
	}
}
