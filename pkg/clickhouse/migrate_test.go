package clickhouse

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/honeloop/hone/pkg/embedded/embeddedtest"
)

// written is rows of a table as the version that brought it wrote them: an old
// revision, then a newer one, which want finds in the view.
type written struct {
	version     int64
	table, view string
	columns     string
	rows        []string
	want        string
}

var firstRows = []written{
	{1, "events_log", "events", "project_id, session_id, event_id, type, user_id, occurred_at, session_started_at, query, revision, payload",
		[]string{
			"'p', 's', 'e', 'interaction', 'u', '2026-03-02 10:00:00', '2026-03-02 10:00:00', 'Can I?', 1, 'x'",
			"'p', 's', 'e', 'interaction', 'u', '2026-03-02 10:00:00', '2026-03-02 09:00:00', 'Can I?', 2, 'x'",
		}, "SELECT (query, toString(session_started_at)) = ('Can I?', '2026-03-02 09:00:00.000') FROM events"},
	{1, "signals_log", "signals", "project_id, session_id, signal_id, revision, kind, polarity, category, evidence, occurred_at, payload",
		[]string{
			"'p', 's', 'sg', 1, 'explicit', 'negative', 'outdated', ['thumb down'], '2026-03-02 10:00:09', 'x'",
			"'p', 's', 'sg', 2, 'explicit', 'positive', '', ['thumb up'], '2026-03-02 10:00:19', 'x'",
		}, "SELECT (polarity, evidence) = ('positive', ['thumb up']) FROM signals"},
	{2, "cases_log", "cases", "project_id, case_id, version, title, state, negatives, payload",
		[]string{"'p', 'c', 1, 'Can I?', 'new', 1, 'x'", "'p', 'c', 2, 'Can I?', 'solved', 2, 'x'"},
		"SELECT (state, negatives) = ('solved', 2) FROM cases"},
	{2, "decisions_log", "decisions", "project_id, session_id, signal_id, decision_id, superseded_by, rule, routes, occurred_at, payload",
		[]string{
			"'p', 's', 'sg', 'd', 0, 'r', ['product'], '2026-03-02 10:00:09', 'x'",
			"'p', 's', 'sg', 'd', 2, 'r', ['product'], '2026-03-02 10:00:09', 'x'",
		}, "SELECT (superseded, routes) = (true, ['product']) FROM decisions"},
	{3, "reviews_log", "reviews", "project_id, review_id, revision, signal_id, payload",
		[]string{"'p', 'rv', 1, 'old', 'x'", "'p', 'rv', 2, 'sg', 'x'"}, "SELECT (state, signal_id) = ('open', 'sg') FROM reviews"},
	{3, "dataset_rows_log", "dataset_rows", "project_id, signal_id, row_id, version, query, chosen, payload",
		[]string{"'p', 'sg', 'dr', 2, 'Can I?', 'No.', 'x'", "'p', 'sg', 'dr', 4, 'Can I?', 'Yes.', 'x'"},
		"SELECT chosen = 'Yes.' FROM dataset_rows"},
	{3, "patches_log", "patches", "project_id, patch_id, version, text, payload",
		[]string{"'p', 'pt', 2, 'Say no.', 'x'", "'p', 'pt', 4, 'Say yes.', 'x'"}, "SELECT text = 'Say yes.' FROM patches"},
	{11, "originals_log", "originals", "project_id, session_id, placeholder, original_id, type, key_id, ciphertext, occurred_at",
		[]string{
			"'p', 's', '<EMAIL_0001>', '00', 'email', 'k', 'x', '2026-03-02 10:00:00'",
			"'p', 's', '<EMAIL_0001>', '00', 'email', 'k', 'x', '2026-03-02 11:00:00'",
		}, "SELECT toString(occurred_at) = '2026-03-02 11:00:00.000' FROM originals"},
	{3, "product_issues_log", "product_issues", "project_id, issue_id, version, title",
		[]string{"'p', 'pi', 2, 'Old'", "'p', 'pi', 4, 'New'"}, "SELECT title = 'New' FROM product_issues"},
}

// TestMigrateKeepsWhatEachEarlierVersionWrote begins with each version, fills
// it, goes up to the newest, and finds the rows in the views.
func TestMigrateKeepsWhatEachEarlierVersionWrote(t *testing.T) {
	versions, err := schemaVersions()
	if err != nil {
		t.Fatal(err)
	}
	for _, from := range versions {
		t.Run(fmt.Sprintf("from_%d", from), func(t *testing.T) {
			cfg := DefaultConfig()
			cfg.Addr = []string{embeddedtest.ClickHouse(t).Addr}
			cfg.Database = strings.ReplaceAll(t.Name(), "/", "_")
			if err := migrateTo(t.Context(), cfg, from); err != nil {
				t.Fatal(err)
			}
			conn, err := Open(cfg)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			filled := slices.DeleteFunc(slices.Clone(firstRows), func(w written) bool { return w.version > from })
			for _, r := range filled {
				for _, row := range r.rows { // each in a part of its own
					if err := conn.Exec(t.Context(), fmt.Sprintf("INSERT INTO %s (%s) VALUES (%s)", r.table, r.columns, row)); err != nil {
						t.Fatalf("%s: %v", r.table, err)
					}
				}
			}
			if err := Migrate(t.Context(), cfg); err != nil {
				t.Fatal(err)
			}
			for _, r := range filled {
				var n uint64
				if err := conn.QueryRow(t.Context(), "SELECT count() FROM "+r.view).Scan(&n); err != nil || n != 1 {
					t.Errorf("%d rows in %s, %v; want 1", n, r.view, err)
					continue
				}
				var found bool
				if err := conn.QueryRow(t.Context(), r.want).Scan(&found); err != nil || !found {
					t.Errorf("%s: %v, %v", r.want, found, err)
				}
			}
		})
	}
}
