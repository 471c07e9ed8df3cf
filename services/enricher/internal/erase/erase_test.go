package erase

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/honeloop/hone/pkg/embedded"
	"github.com/honeloop/hone/pkg/embedded/embeddedtest"
	"github.com/honeloop/hone/pkg/ids"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/telemetry"
	erasurev1 "github.com/honeloop/hone/proto/gen/go/hone/erasure/v1"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"

	"github.com/honeloop/hone/services/enricher/internal/trail"
	"github.com/honeloop/hone/services/enricher/internal/trail/trailtest"
)

func TestMain(m *testing.M) {
	embedded.Main()
	os.Exit(embeddedtest.Run(m))
}

// rig is a store with what two people did: ada alone in s-1 and with bob in s-2,
// bob alone in s-3, in cases that ada's questions are the titles of.
type rig struct {
	t        *testing.T
	conn     driver.Conn
	subjects *Subjects
	eraser   *Eraser
	timers   []string // sessions that got one
}

// titles are many, as a user's may be.
const titles = 30

func newRig(t *testing.T) *rig {
	r := &rig{t: t, conn: trailtest.Conn(t)}
	r.subjects = NewSubjects(r.conn, "a key for the test")
	r.eraser = New(r.conn, r.subjects, func(_ context.Context, recs ...stage.Record) error {
		for _, rec := range recs {
			r.timers = append(r.timers, strings.TrimPrefix(string(rec.Key), "shop/"))
		}
		return nil
	}, func(context.Context, string, ...string) error { return nil }, telemetry.Discard().Log)
	r.eraser.settle = 0
	store := trail.NewStore(r.conn)
	var rows []trail.EventRow
	var signals []*signalv1.Signal
	now := timestamppb.Now()
	for i, of := range [][2]string{{"s-1", "ada"}, {"s-1", ""}, {"s-2", "ada"}, {"s-2", "bob"}, {"s-3", "bob"}} {
		e := &eventv1.Event{ProjectId: "shop", SessionId: of[0], EventId: fmt.Sprint("e-", i), UserId: of[1], Type: "interaction", OccurredAt: now, ReceivedAt: now,
			Payload: &eventv1.Event_Interaction{Interaction: &eventv1.Interaction{Query: fmt.Sprint("What does ", of[1], " ask?")}}}
		rows = append(rows, trail.EventRow{Event: e, SessionStartedAt: now.AsTime()})
		signals = append(signals, &signalv1.Signal{ProjectId: "shop", SessionId: of[0], SignalId: fmt.Sprint("sg-", i), UserId: of[1], Revision: 1, OccurredAt: now, SessionStartedAt: now})
	}
	for i := range titles {
		e := &eventv1.Event{ProjectId: "shop", SessionId: "s-1", EventId: fmt.Sprint("q-", i), UserId: "ada", Type: "interaction", OccurredAt: now, ReceivedAt: now,
			Payload: &eventv1.Event_Interaction{Interaction: &eventv1.Interaction{Query: title(i)}}}
		rows = append(rows, trail.EventRow{Event: e, SessionStartedAt: now.AsTime()})
		signals = append(signals, &signalv1.Signal{ProjectId: "shop", SessionId: "s-1", SignalId: fmt.Sprint("founder-", i), UserId: "ada", Revision: 1, OccurredAt: now, SessionStartedAt: now})
		caseID := ids.Derive("cs", "shop", fmt.Sprint("founder-", i))
		for _, whose := range []string{"ada", "bob"} {
			signal := map[string]string{"ada": fmt.Sprint("founder-", i), "bob": fmt.Sprint("joined-", i)}[whose]
			r.do("INSERT INTO reviews_log (project_id, review_id, revision, signal_id, session_id, user_id, case_id, case_title, payload) VALUES ('shop', ?, 1, ?, 's-3', ?, ?, ?, ?)",
				"rv-"+signal, signal, whose, caseID, title(i), "<"+title(i)+">")
			r.do("INSERT INTO product_issues_log (project_id, issue_id, version, signal_id, session_id, user_id, case_id, title, query) VALUES ('shop', ?, 2, ?, 's-3', ?, ?, ?, ?)",
				"pi-"+signal, signal, whose, caseID, title(i), map[string]string{"ada": title(i), "bob": "What does bob ask?"}[whose])
		}
	}
	for _, session := range []string{"s-1", "s-2", "s-3"} {
		r.do("INSERT INTO originals_log (project_id, session_id, placeholder, original_id, ciphertext) VALUES ('shop', ?, '<EMAIL_1>', 'n', 'x')", session)
	}
	if err := store.SaveEvents(t.Context(), rows); err != nil {
		t.Fatal(err)
	}
	if err := store.SaveSignals(t.Context(), signals); err != nil {
		t.Fatal(err)
	}
	return r
}

func title(i int) string { return fmt.Sprintf("May I return shoes number %d?", i) }

func (r *rig) do(query string, args ...any) {
	r.t.Helper()
	if err := r.conn.Exec(r.t.Context(), query, args...); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) count(query string) int {
	r.t.Helper()
	var n uint64
	if err := r.conn.QueryRow(r.t.Context(), "SELECT toUInt64(("+query+"))").Scan(&n); err != nil {
		r.t.Fatalf("%s: %v", query, err)
	}
	return int(n)
}

// erase carries one out, and returns its receipt.
func (r *rig) erase(kind, subject string) *erasurev1.Erasure {
	r.t.Helper()
	one, err := r.eraser.Start(r.t.Context(), "shop", kind, subject)
	if err != nil {
		r.t.Fatal(err)
	}
	if err := r.eraser.work(r.t.Context(), map[string]bool{}); err != nil {
		r.t.Fatal(err)
	}
	receipt, err := r.eraser.Get(r.t.Context(), "shop", one.ErasureId)
	if err != nil || receipt.GetState() != stateDone {
		r.t.Fatalf("the receipt is %v (%v), want it done", receipt, err)
	}
	for _, p := range receipt.Removed {
		if p.Left > 0 {
			r.t.Errorf("%d rows of %s are left", p.Left, p.Place)
		}
	}
	return receipt
}

func removedFrom(receipt *erasurev1.Erasure, place string) uint64 {
	for _, p := range receipt.Removed {
		if p.Place == place {
			return p.Count
		}
	}
	return 0
}

func TestAUserIsErased(t *testing.T) {
	r := newRig(t)
	receipt := r.erase(User, "ada")
	for place, want := range map[string]uint64{"events_log": 3 + titles, "signals_log": 2 + titles, "reviews_log": titles, "product_issues_log": titles, "originals_log": 2} {
		if got := removedFrom(receipt, place); got != want {
			t.Errorf("%d of %s were removed, want %d", got, place, want)
		}
	}
	for query, want := range map[string]int{
		"SELECT count() FROM events_log": 2, "SELECT count() FROM originals_log WHERE session_id = 's-3'": 1, "SELECT count() FROM originals_log": 1,
		// Others' rows stay, without ada's words, and as long as they were.
		"SELECT count() FROM reviews_log": titles, "SELECT count() FROM product_issues_log": titles,
		"SELECT count() FROM reviews_log WHERE position(concat(case_title, payload), 'shoes') > 0":           0,
		"SELECT count() FROM product_issues_log WHERE position(concat(title, query), 'shoes') > 0":           0,
		"SELECT countIf(length(payload) = length(case_title) + 2 AND payload LIKE '<***%') FROM reviews_log": titles,
		"SELECT count() FROM product_issues_log WHERE query = 'What does bob ask?' AND title LIKE '***%***'": titles,
	} {
		if got := r.count(query); got != want {
			t.Errorf("%s gives %d, want %d", query, got, want)
		}
	}
	slices.Sort(r.timers)
	if !slices.Equal(r.timers, []string{"s-1", "s-2"}) {
		t.Errorf("sessions %v were gone through, want s-1 and s-2", r.timers)
	}
	// What comes late.
	for of, want := range map[[2]string]bool{{"s-9", "ada"}: true, {"s-1", ""}: true, {"s-2", "bob"}: false, {"s-2", ""}: false, {"s-9", "bob"}: false} {
		if got := r.subjects.Is("shop", of[0], of[1]); got != want {
			t.Errorf("a late event of session %q and user %q is refused: %t, want %t", of[0], of[1], got, want)
		}
	}
	if r.subjects.Is("other", "s-9", "ada") {
		t.Error("a user of the same name in another project is refused")
	}
}

// TestAnErasureIsFewMutations pins that their number does not grow with what a
// user asked: each one goes through every part of its table.
func TestAnErasureIsFewMutations(t *testing.T) {
	r := newRig(t)
	r.erase(User, "ada")
	rows, err := r.conn.Query(t.Context(), `SELECT table, count(), groupArray(substring(command, 1, 300)) FROM system.mutations
		WHERE database = currentDatabase() AND command LIKE '%UPDATE%' GROUP BY table`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	seen := 0
	for rows.Next() {
		var table string
		var n uint64
		var commands []string
		if err := rows.Scan(&table, &n, &commands); err != nil {
			t.Fatal(err)
		}
		if seen++; n > 2 {
			t.Errorf("%d mutations of %s, want a mask and a delete at most:\n%s", n, table, strings.Join(commands, "\n"))
		}
	}
	if err := rows.Err(); err != nil || seen < 4 { // erasures_log, too
		t.Errorf("mutations of %d tables (%v), so that it shows nothing", seen, err)
	}
}

// TestErasedRowsLeaveTheFiles pins that one erasure neither waits for the files of
// another nor keeps them from being written.
func TestErasedRowsLeaveTheFiles(t *testing.T) {
	r := newRig(t)
	r.erase(User, "ada")
	r.erase(User, "bob")
	const hidden = "SELECT count() FROM system.parts WHERE database = currentDatabase() AND active AND has_lightweight_delete"
	for deadline := time.Now().Add(time.Minute); r.count(hidden) > 0; time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a minute later, deleted rows are still in the files")
		}
	}
}

func TestASessionIsErased(t *testing.T) {
	r := newRig(t)
	receipt := r.erase(Session, "s-2")
	if n := removedFrom(receipt, "events_log"); n != 2 {
		t.Errorf("%d events were removed, want both of the session", n)
	}
	for query, want := range map[string]int{
		"SELECT count() FROM events_log WHERE session_id = 's-2'": 0, "SELECT count() FROM signals_log WHERE session_id = 's-2'": 0,
		"SELECT count() FROM originals_log WHERE session_id = 's-2'": 0, "SELECT count() FROM originals_log": 2,
		"SELECT count() FROM events_log WHERE user_id = 'ada'": 1 + titles, "SELECT count() FROM events_log WHERE user_id = 'bob'": 1,
		"SELECT count() FROM reviews_log WHERE position(case_title, 'shoes') > 0": 2 * titles,
	} {
		if got := r.count(query); got != want {
			t.Errorf("%s gives %d, want %d", query, got, want)
		}
	}
	for of, want := range map[[2]string]bool{{"s-2", "bob"}: true, {"s-2", ""}: true, {"s-3", "bob"}: false, {"s-1", "ada"}: false} {
		if got := r.subjects.Is("shop", of[0], of[1]); got != want {
			t.Errorf("a late event of session %q and user %q is refused: %t, want %t", of[0], of[1], got, want)
		}
	}
}

// TestAnInterruptedErasureIsGoneOnWith pins that the one who takes over counts
// what was removed before.
func TestAnInterruptedErasureIsGoneOnWith(t *testing.T) {
	r := newRig(t)
	first := true
	r.eraser.passed = func(_ context.Context, group string, _ ...string) error {
		if first && group == "hone-router" {
			first = false
			return context.DeadlineExceeded
		}
		return nil
	}
	one, err := r.eraser.Start(t.Context(), "shop", User, "ada")
	if err != nil {
		t.Fatal(err)
	}
	mine := map[string]bool{}
	if err := r.eraser.work(t.Context(), mine); err == nil {
		t.Fatal("no error of a stage that does not come")
	}
	if err := r.eraser.work(t.Context(), map[string]bool{}); err != nil {
		t.Fatal(err)
	}
	if got, err := r.eraser.Get(t.Context(), "shop", one.ErasureId); err != nil || got.State != stateRunning {
		t.Errorf("another enricher took it at once: %v (%v)", got, err)
	}
	if err := r.eraser.work(t.Context(), mine); err != nil {
		t.Fatal(err)
	}
	again := r.erase(User, "ada")
	if n := removedFrom(again, "events_log"); n != 3+titles {
		t.Errorf("the receipt of an erasure that is repeated says %d events, want those of the first time", n)
	}
	payload, err := proto.Marshal(again)
	if err != nil || strings.Contains(string(payload), "ada") {
		t.Errorf("the receipt names the user (%v)", err)
	}
}
