package enricher

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/honeloop/hone/pkg/clickhouse"
	"github.com/honeloop/hone/pkg/projects"
	"github.com/honeloop/hone/pkg/repotest"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"

	"github.com/honeloop/hone/services/enricher/internal/derive"
	"github.com/honeloop/hone/services/enricher/internal/trail"
	"github.com/honeloop/hone/services/enricher/internal/trail/trailtest"
)

// TestSampleQueries runs each query of deploy/queries over a little of
// everything, and wants an answer.
func TestSampleQueries(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(repotest.Root(t), "deploy", "queries", "*.sql"))
	if err != nil || len(files) < 5 {
		t.Fatalf("found %d queries, %v; want at least 5", len(files), err)
	}
	conn, err := clickhouse.Open(trailtest.Config(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()

	asked := event("e-1", "s-1", 0, &eventv1.Interaction{Query: "Can I?", Output: "Yes.", Model: "m", ModelVersion: "1"})
	said := event("f-1", "s-1", 30, &eventv1.Feedback{Thumb: "down", Categories: []string{"outdated"}, Comment: "It changed."})
	asked.UserRole, asked.Environment = "customer", "production"
	events := []*eventv1.Event{asked, said}
	store := trail.NewStore(conn)
	rows := []trail.EventRow{{Event: asked, SessionStartedAt: asked.OccurredAt.AsTime()}, {Event: said, SessionStartedAt: asked.OccurredAt.AsTime()}}
	if err := store.SaveEvents(t.Context(), rows); err != nil {
		t.Fatal(err)
	}
	rules, err := derive.NewRules(projects.DefaultSignals(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := store.SaveSignals(t.Context(), derive.Derive(events, rules)); err != nil {
		t.Fatal(err)
	}
	for _, insert := range []string{
		`INSERT INTO cases_log (project_id, case_id, title, state, severity, negatives) VALUES ('p', 'c-1', 'Can I?', 'new', 'high', 1)`,
		`INSERT INTO decisions_log (project_id, session_id, signal_id, decision_id, case_id, polarity, rule, routes, decided_at)
			VALUES ('p', 's-1', 'sg', 'dc', 'c-1', 'negative', 'r', ['human-review', 'product'], now())`,
	} {
		if err := conn.Exec(t.Context(), insert); err != nil {
			t.Fatal(err)
		}
	}

	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			query, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			rows, err := conn.Query(t.Context(), string(query))
			if err != nil {
				t.Fatal(err)
			}
			defer rows.Close()
			n := 0
			for rows.Next() {
				n++
			}
			if err := rows.Err(); err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				t.Error("no answer")
			}
		})
	}
}

// TestViewsFilterByMonth pins that a filter on the time of a view reads only
// the months that it is about.
func TestViewsFilterByMonth(t *testing.T) {
	conn, err := clickhouse.Open(trailtest.Config(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var rows []trail.EventRow
	for month := range 6 {
		e := event("e", "s", 0, &eventv1.Interaction{Query: "?"})
		at := time.Date(2026, time.Month(1+month), 15, 0, 0, 0, 0, time.UTC)
		e.OccurredAt = timestamppb.New(at)
		rows = append(rows, trail.EventRow{Event: e, SessionStartedAt: at})
	}
	if err := trail.NewStore(conn).SaveEvents(t.Context(), rows); err != nil {
		t.Fatal(err)
	}
	var parts uint64
	err = conn.QueryRow(t.Context(), `SELECT toUInt64(extract(arrayStringConcat(groupArray(explain), ' '), 'Parts: (\\d+)/6'))
		FROM (EXPLAIN indexes = 1 SELECT count() FROM events WHERE occurred_at >= '2026-06-01')`).Scan(&parts)
	if err != nil || parts != 1 {
		t.Errorf("reads %d of 6 months, %v; want 1", parts, err)
	}
}
