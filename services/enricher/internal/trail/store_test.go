package trail_test

import (
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/honeloop/hone/pkg/embedded"
	"github.com/honeloop/hone/pkg/embedded/embeddedtest"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"

	"github.com/honeloop/hone/services/enricher/internal/trail"
	"github.com/honeloop/hone/services/enricher/internal/trail/trailtest"
)

func TestMain(m *testing.M) {
	embedded.Main()
	os.Exit(embeddedtest.Run(m))
}

func ask(t *testing.T, conn driver.Conn, query string) string {
	t.Helper()
	var out string
	if err := conn.QueryRow(t.Context(), "SELECT toString(("+query+"))").Scan(&out); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return out
}

func do(t *testing.T, conn driver.Conn, statement string) {
	t.Helper()
	if err := conn.Exec(t.Context(), statement); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func at(day int) *timestamppb.Timestamp {
	return timestamppb.New(time.Now().AddDate(0, 0, day).Truncate(time.Millisecond))
}

func TestRowsGoAfterTheRetentionOfTheirProject(t *testing.T) {
	conn := trailtest.Conn(t)
	store := trail.NewStore(conn)
	store.RetentionDays = func(project string) int { return map[string]int{"short": 30}[project] }
	var events []trail.EventRow
	var signals []*signalv1.Signal
	for _, project := range []string{"short", "ever"} {
		for _, day := range []int{-400, -40, -2} {
			session := fmt.Sprint("s", day)
			e := &eventv1.Event{
				ProjectId: project, SessionId: session, EventId: "e", Type: "interaction", OccurredAt: at(day), ReceivedAt: at(0),
				Payload: &eventv1.Event_Interaction{Interaction: &eventv1.Interaction{Query: "?"}},
			}
			events = append(events, trail.EventRow{Event: e, SessionStartedAt: e.OccurredAt.AsTime()})
			signals = append(signals, &signalv1.Signal{ProjectId: project, SessionId: session, SignalId: "sg", Revision: 1, OccurredAt: at(day), SessionStartedAt: at(day)})
		}
	}
	if err := store.SaveEvents(t.Context(), events); err != nil {
		t.Fatal(err)
	}
	if err := store.SaveSignals(t.Context(), signals); err != nil {
		t.Fatal(err)
	}
	left := func(want string) {
		t.Helper()
		for _, table := range []string{"events_log", "signals_log"} {
			do(t, conn, "OPTIMIZE TABLE "+table+" FINAL")
			got := ask(t, conn, "SELECT groupArray((project_id, session_id)) FROM (SELECT * FROM "+table+" ORDER BY project_id, session_id)")
			if got != want {
				t.Errorf("%s holds %s, want %s", table, got, want)
			}
		}
	}
	left("[('ever','s-2'),('ever','s-40'),('ever','s-400'),('short','s-2')]")

	// What the README of pkg/clickhouse says for rows written before the setting.
	for _, table := range []string{"events_log", "signals_log"} {
		do(t, conn, "ALTER TABLE "+table+" UPDATE expires_on = toDate(occurred_at) + 91 WHERE project_id = 'ever' SETTINGS mutations_sync = 1")
	}
	left("[('ever','s-2'),('ever','s-40'),('short','s-2')]")
}

// TestATrailWhoseBeginningExpiredKeepsItsStart pins that the rest is not
// written again and again with a later start.
func TestATrailWhoseBeginningExpiredKeepsItsStart(t *testing.T) {
	conn := trailtest.Conn(t)
	store := trail.NewStore(conn)
	started := at(-40).AsTime()
	e := &eventv1.Event{ProjectId: "p", SessionId: "s", EventId: "late", Type: "behavior", OccurredAt: at(-2), ReceivedAt: at(-2)}
	if err := store.SaveEvents(t.Context(), []trail.EventRow{{Event: e, SessionStartedAt: started}}); err != nil {
		t.Fatal(err)
	}
	key := trail.Key{Project: "p", Session: "s"}
	trails, err := store.Load(t.Context(), []trail.Key{key})
	if err != nil {
		t.Fatal(err)
	}
	if due := trails[key].DueRows(); len(due) != 0 {
		t.Errorf("%d rows to write, want none", len(due))
	}
}

func TestSignalsInColumns(t *testing.T) {
	conn := trailtest.Conn(t)
	dissatisfaction := 0.75
	s := &signalv1.Signal{
		ProjectId: "p", SessionId: "s", SignalId: "sg", Revision: 1, Kind: "explicit", OccurredAt: at(0), SessionStartedAt: at(0),
		Dissatisfaction: &dissatisfaction, Rated: &signalv1.Rated{Scale: "stars", Value: 2, Min: 1, Max: 5},
		Categories: []string{"outdated", "odd"}, UnknownCategories: []string{"odd"},
		Evidence: []*signalv1.Evidence{{Kind: "stars", Detail: "2 stars"}, {Kind: "category", Detail: "outdated"}},
		Interaction: &eventv1.Interaction{
			Retrieved: []*eventv1.Retrieved{{Source: "faq/12"}}, Tools: []*eventv1.ToolCall{{Name: "search", Error: "timeout"}},
			InputTokens: 31, OutputTokens: 12, FinishReason: "stop", AlternativeTo: "i-0",
		},
	}
	store := trail.NewStore(conn)
	if err := store.SaveSignals(t.Context(), []*signalv1.Signal{s}); err != nil {
		t.Fatal(err)
	}
	e := &eventv1.Event{
		ProjectId: "p", SessionId: "s", EventId: "e", Type: "interaction", OccurredAt: at(0), ReceivedAt: at(0),
		Payload: &eventv1.Event_Interaction{Interaction: s.Interaction},
	}
	if err := store.SaveEvents(t.Context(), []trail.EventRow{{Event: e, SessionStartedAt: e.OccurredAt.AsTime()}}); err != nil {
		t.Fatal(err)
	}
	got := ask(t, conn, `SELECT (dissatisfaction, rating_scale, rating_value, unknown_categories, evidence_kinds, retrieved_sources, tools,
		input_tokens, output_tokens, finish_reason, alternative_to, expires_on) FROM signals`)
	want := `(0.75,'stars',2,['odd'],['stars','category'],['faq/12'],['search'],31,12,'stop','i-0','2149-06-06')`
	if got != want {
		t.Errorf("signals: got %s\nwant %s", got, want)
	}
	if got := ask(t, conn, "SELECT (retrieved_sources, tools, tool_errors, expires_on) FROM events"); got != "(['faq/12'],['search'],1,'2149-06-06')" {
		t.Errorf("events: got %s", got)
	}
}
