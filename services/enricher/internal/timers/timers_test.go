package timers

import (
	"context"
	"os"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/honeloop/hone/pkg/embedded"
	"github.com/honeloop/hone/pkg/embedded/embeddedtest"
	"github.com/honeloop/hone/pkg/projects"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/telemetry"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"

	"github.com/honeloop/hone/services/enricher/internal/derive"
	"github.com/honeloop/hone/services/enricher/internal/enrich"
	"github.com/honeloop/hone/services/enricher/internal/trail"
	"github.com/honeloop/hone/services/enricher/internal/trail/trailtest"
)

func TestMain(m *testing.M) {
	embedded.Main()
	os.Exit(embeddedtest.Run(m))
}

// TestTimePasses lets the stage and the timers work on one store: what waits goes
// on without, a session that rests ends, each once, and a second enricher that
// looks at the same time appends the same.
func TestTimePasses(t *testing.T) {
	conn := trailtest.Conn(t)
	store := trail.NewStore(conn)
	st, err := enrich.New(store, enrich.Options{CacheBytes: 1 << 20, MaxSessionEvents: 100, Rules: enrich.ProjectRules(projects.Defaults(), nil)}, telemetry.Discard().Meter)
	if err != nil {
		t.Fatal(err)
	}
	var appended []stage.Record
	publish := func(_ context.Context, records ...stage.Record) error {
		appended = append(appended, records...)
		return nil
	}
	tel := telemetry.Discard()
	first, err := New(conn, projects.Defaults(), publish, tel.Log, tel.Meter)
	if err != nil {
		t.Fatal(err)
	}
	second, err := New(conn, projects.Defaults(), publish, tel.Log, tel.Meter)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	var offset int64
	take := func(records ...stage.Record) (out []stage.Record) {
		t.Helper()
		for i := range records {
			records[i].Offset = offset
			offset++
		}
		out, err := st.Process(t.Context(), records)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	send := func(id, session, interaction string, ago time.Duration, payload any) {
		t.Helper()
		// What happened is long past, as in an import: arrival counts.
		e := &eventv1.Event{EventId: id, ProjectId: "p", SessionId: session, InteractionId: interaction, Source: "import",
			OccurredAt: timestamppb.New(now.Add(-1000*time.Hour - ago)), ReceivedAt: timestamppb.New(now.Add(-ago))}
		switch x := payload.(type) {
		case *eventv1.Interaction:
			e.Type, e.Payload = "interaction", &eventv1.Event_Interaction{Interaction: x}
		case *eventv1.Feedback:
			e.Type, e.Payload = "feedback", &eventv1.Event_Feedback{Feedback: x}
		}
		value, err := proto.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		take(stage.Record{Key: stream.SessionKey("p", session), Value: value})
	}
	answer := &eventv1.Interaction{Query: "q", Output: "a"}
	send("f-1", "waits", "i-1", 25*time.Hour, &eventv1.Feedback{Thumb: "down"})
	send("f-2", "waits-still", "i-1", time.Hour, &eventv1.Feedback{Thumb: "down"})
	send("e-1", "rests", "i-1", 31*time.Minute, answer)
	send("e-2", "goes-on", "i-1", 29*time.Minute, answer)

	look := func(timers *Timers, at time.Time) []string {
		t.Helper()
		appended = nil
		if err := timers.Look(t.Context(), at); err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, r := range appended {
			e := &eventv1.Event{}
			if err := proto.Unmarshal(r.Value, e); err != nil {
				t.Fatal(err)
			}
			if string(r.Key) != string(stream.SessionKey(e.ProjectId, e.SessionId)) || r.Topic != stream.TopicEvents {
				t.Errorf("record for %s under %s", r.Topic, r.Key)
			}
			out = append(out, e.SessionId+" "+e.GetTimer().Kind+" "+e.GetTimer().Subject)
		}
		return out
	}
	same := func(what string, got []string, want ...string) {
		t.Helper()
		if len(got) != len(want) {
			t.Fatalf("%s: %q, want %q", what, got, want)
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("%s: %q, want %q", what, got, want)
			}
		}
	}
	// The first look goes a day back: the end of session "waits" is too old.
	same("first look", look(first, now), "waits wait_expired i-1", "waits-still session_ended f-2", "rests session_ended e-1")
	records := appended
	same("another enricher", look(second, now), "waits wait_expired i-1", "waits-still session_ended f-2", "rests session_ended e-1")
	if published := take(append(records, appended...)...); len(published) != 2 {
		t.Errorf("%d signals published, want the one that waited and the one of no reaction", len(published))
	}
	trails, err := store.Load(t.Context(), []trail.Key{{Project: "p", Session: "waits"}, {Project: "p", Session: "rests"}})
	if err != nil {
		t.Fatal(err)
	}
	if s := trails[trail.Key{Project: "p", Session: "waits"}].Signals(); len(s) != 1 || s[0].Waiting || !derive.HasEvidence(s[0], derive.TimerWaitExpired) {
		t.Errorf("after its wait: %v", s)
	}
	if s := trails[trail.Key{Project: "p", Session: "rests"}].Signals(); len(s) != 1 || !derive.HasEvidence(s[0], derive.NoReaction) {
		t.Errorf("after its end: %v", s)
	}
	same("second look", look(first, now.Add(time.Second)))
	same("third look", look(second, now.Add(2*time.Minute)), "goes-on session_ended e-2")
}
