package enrich

import (
	"context"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/honeloop/hone/pkg/projects"
	"github.com/honeloop/hone/pkg/telemetry"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"

	"github.com/honeloop/hone/services/enricher/internal/trail"
	"github.com/honeloop/hone/services/enricher/internal/trail/trailtest"
)

// erasedUsers knows users of any project.
type erasedUsers map[string]bool

func (erasedUsers) Learn(context.Context, string) error { return nil }
func (u erasedUsers) Any(string) bool                   { return len(u) > 0 }
func (u erasedUsers) Is(_, _, user string) bool         { return u[user] }

// TestErasedUsersAreTakenOut pins what the stage does about an erased user: the
// signals that rest on the user's turns are withdrawn without content, those of
// others stay, and what comes later is refused, also after a restart.
func TestErasedUsersAreTakenOut(t *testing.T) {
	erased := erasedUsers{}
	store := trailtest.NewMemory()
	newRig := func(offset int64) *rig {
		r := &rig{t: t, offset: offset, published: map[string]*signalv1.Signal{}}
		var err error
		if r.stage, err = New(store, Options{CacheBytes: 1 << 20, MaxSessionEvents: 1000, Rules: ProjectRules(projects.Defaults(), nil), Erased: erased}, telemetry.Discard().Meter); err != nil {
			t.Fatal(err)
		}
		return r
	}
	by := func(user, interaction string, e *eventv1.Event) *eventv1.Event {
		e.UserId, e.InteractionId = user, interaction
		return e
	}
	down := func() *eventv1.Feedback { return &eventv1.Feedback{Thumb: "down", Comment: "wrong"} }
	r := newRig(0)
	process := func(events ...*eventv1.Event) []*signalv1.Signal {
		t.Helper()
		out, err := r.stage.Process(t.Context(), r.records(events))
		if err != nil {
			t.Fatal(err)
		}
		r.offset += int64(len(events))
		var signals []*signalv1.Signal
		for _, rec := range out {
			s := &signalv1.Signal{}
			if err := proto.Unmarshal(rec.Value, s); err != nil {
				t.Fatal(err)
			}
			signals = append(signals, s)
		}
		return signals
	}
	mine := by("ada", "i-1", asked("e-1", 1))
	process(mine, by("ada", "i-1", said("f-1", 2, down())), by("bob", "i-1", said("f-2", 3, down())),
		by("bob", "i-2", asked("e-2", 4)), by("bob", "i-2", said("f-3", 5, down())))

	erased["ada"] = true
	timer := &eventv1.Event{EventId: "t-1", ProjectId: mine.ProjectId, SessionId: mine.SessionId, Type: "timer", OccurredAt: mine.OccurredAt, ReceivedAt: mine.ReceivedAt,
		Payload: &eventv1.Event_Timer{Timer: &eventv1.Timer{Kind: TimerErased, Subject: "er-1"}}}
	check := func(signals []*signalv1.Signal) {
		t.Helper()
		var gone, stay int
		for _, s := range signals {
			switch {
			case s.Erased:
				gone++
				if !s.Withdrawn || s.UserId != "" || s.Comment != "" || s.Interaction != nil || len(s.Evidence) > 0 {
					t.Errorf("an erased signal has content: %v", s)
				}
			case s.InteractionId == "i-2":
				stay++
			case !s.Withdrawn:
				t.Errorf("a signal on an erased turn holds: %v", s)
			}
		}
		if gone < 2 || stay == 0 {
			t.Errorf("%d signals were erased and %d stay, want those on i-1 erased and those on i-2 to stay", gone, stay)
		}
	}
	check(process(timer))
	r = newRig(r.offset)
	check(process(timer)) // again, by another process: the store still has the events
	if out := process(by("ada", "i-2", said("f-9", 9, down()))); len(out) > 0 {
		t.Errorf("a late event caused %v", out)
	}
	key := trail.Key{Project: mine.ProjectId, Session: mine.SessionId}
	trails, err := store.Load(t.Context(), []trail.Key{key})
	if err != nil {
		t.Fatal(err)
	}
	if trails[key].Has("f-9") || trails[key].Has("t-1") || !slices.ContainsFunc(trails[key].Events(), func(e *eventv1.Event) bool { return e.EventId == "f-3" }) {
		t.Error("the store has the late event or the timer, or lacks what another person said")
	}
}
