package enrich

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/honeloop/hone/pkg/embedding"
	"github.com/honeloop/hone/pkg/projects"
	"github.com/honeloop/hone/pkg/repotest"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/telemetry"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"

	"github.com/honeloop/hone/services/enricher/internal/derive"
	"github.com/honeloop/hone/services/enricher/internal/signals"
	"github.com/honeloop/hone/services/enricher/internal/trail"
	"github.com/honeloop/hone/services/enricher/internal/trail/trailtest"
)

var orders = flag.Int("orders", 30, "random orders of TestRealSessionsConverge")

// realSessions are 50 sessions of each data set, with what people said about the
// answers, a wait that ended, and a session that did.
func realSessions(t *testing.T) [][]*eventv1.Event {
	t.Helper()
	iflm, err := signals.IFLM(filepath.Dir(repotest.SharedData(t, "iflm/query_logs_table.csv")))
	if err != nil {
		t.Fatal(err)
	}
	trees, err := signals.OpenAssistant(repotest.SharedData(t, "open-assistant/en_100_tree.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	if len(iflm) < 50 || len(trees) < 50 {
		t.Fatalf("%d and %d sessions, want at least 50", len(iflm), len(trees))
	}
	// Those with the most turns: most can go wrong in them.
	longest := func(s []signals.Session) []signals.Session {
		slices.SortStableFunc(s, func(a, b signals.Session) int { return len(b.Events) - len(a.Events) })
		return s[:50]
	}
	var out [][]*eventv1.Event
	for _, s := range slices.Concat(longest(iflm), longest(trees)) {
		events := s.Events
		for i, e := range s.Events {
			stars, rated := s.Stars[e.InteractionId]
			if !rated || e.GetInteraction() == nil {
				continue
			}
			f := &eventv1.Feedback{Stars: proto.Uint32(uint32(stars))}
			if stars < 4 {
				f.Categories, f.Correction = []string{"incomplete"}, e.GetInteraction().Output+" And more."
			}
			for n, f := range []*eventv1.Feedback{f, {Thumb: "up"}, {Retract: true}}[:1+i%3] {
				said := &eventv1.Event{EventId: fmt.Sprintf("f-%s-%d", e.EventId, n), ProjectId: "p", SessionId: e.SessionId, InteractionId: e.InteractionId,
					Type: "feedback", Source: "import", OccurredAt: timestamppb.New(e.OccurredAt.AsTime().Add(time.Duration(n+1) * time.Second)), ReceivedAt: e.ReceivedAt,
					Payload: &eventv1.Event_Feedback{Feedback: f}}
				events = append(events, said)
			}
			if i%4 == 0 {
				events = append(events, &eventv1.Event{EventId: "b-" + e.EventId, ProjectId: "p", SessionId: e.SessionId, InteractionId: e.InteractionId,
					Type: "behavior", Source: "import", OccurredAt: e.OccurredAt, ReceivedAt: e.ReceivedAt,
					Payload: &eventv1.Event_Behavior{Behavior: &eventv1.Behavior{Kind: "regenerated"}}})
				events = append(events, &eventv1.Event{EventId: "t-" + e.EventId, ProjectId: "p", SessionId: e.SessionId, InteractionId: e.InteractionId,
					Type: "timer", Source: "enricher", OccurredAt: e.OccurredAt, ReceivedAt: e.ReceivedAt,
					Payload: &eventv1.Event_Timer{Timer: &eventv1.Timer{Kind: derive.TimerWaitExpired, Subject: e.InteractionId}}})
			}
		}
		out = append(out, events)
	}
	return out
}

func realRules(t testing.TB) (func(string) (*derive.Rules, error), *Meaning) {
	t.Helper()
	model, err := embedding.NewCached(embedding.NewHash(), 32<<20, telemetry.Discard())
	if err != nil {
		t.Fatal(err)
	}
	meaning := NewMeaning(model)
	return ProjectRules(projects.Defaults(), meaning), meaning
}

// state is what a session came to, for comparison.
func state(signals []*signalv1.Signal) (string, error) {
	var b strings.Builder
	for _, s := range signals {
		if s.Withdrawn {
			continue
		}
		s = proto.CloneOf(s)
		s.Revision = 0
		data, err := proto.MarshalOptions{Deterministic: true}.Marshal(s)
		if err != nil {
			return "", err
		}
		b.Write(data)
	}
	return b.String(), nil
}

// converge plays the sessions to a stage in a random order, with duplicates, in
// batches of random size, with restarts and batches that come again, and compares
// what is stored, and what was published, with what the whole trails give.
func converge(t *testing.T, store Store, sessions [][]*eventv1.Event, want map[trail.Key]string, seed uint64) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 42))
	rules, meaning := realRules(t)
	opts := Options{CacheBytes: 1 << 22, MaxSessionEvents: 1000, Rules: rules, Meaning: meaning}
	newStage := func() *Stage {
		st, err := New(store, opts, telemetry.Discard().Meter)
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	var log []stage.Record
	for _, events := range sessions {
		for _, e := range events {
			value, err := proto.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			rec := stage.Record{Key: stream.SessionKey(e.ProjectId, e.SessionId), Value: value}
			for range 1 + r.IntN(6)/4 + r.IntN(20)/19 {
				log = append(log, rec)
			}
		}
	}
	r.Shuffle(len(log), func(i, j int) { log[i], log[j] = log[j], log[i] })
	for i := range log {
		log[i].Offset = int64(i)
	}
	published := map[trail.Key]map[string]*signalv1.Signal{}
	st := newStage()
	most := []int{1, 20, 200, len(log)}[r.IntN(4)]
	for at := 0; at < len(log); {
		end := min(len(log), at+1+r.IntN(most))
		out, err := st.Process(t.Context(), log[at:end])
		if err != nil {
			t.Fatal(err)
		}
		switch r.IntN(10) {
		case 0: // crashes before it publishes: the batch comes again
			st = newStage()
			continue
		case 1: // stops after it
			st = newStage()
		}
		for _, rec := range out {
			s := &signalv1.Signal{}
			if err := proto.Unmarshal(rec.Value, s); err != nil {
				t.Fatal(err)
			}
			key := trail.Key{Project: s.ProjectId, Session: s.SessionId}
			if published[key] == nil {
				published[key] = map[string]*signalv1.Signal{}
			}
			if old := published[key][s.SignalId]; old.GetRevision() < s.Revision {
				published[key][s.SignalId] = s
			}
		}
		at = end
	}
	var keys []trail.Key
	for key := range want {
		keys = append(keys, key)
	}
	trails, err := store.Load(context.WithoutCancel(t.Context()), keys)
	if err != nil {
		t.Fatal(err)
	}
	for key, trail := range trails {
		stored, err := state(trail.Signals())
		if err != nil {
			t.Fatal(err)
		}
		var sent []*signalv1.Signal
		for _, s := range trail.Signals() {
			if p := published[key][s.SignalId]; p != nil {
				sent = append(sent, p)
			} else if !s.Withdrawn { // what never held was never sent
				t.Errorf("order %d, session %s: %v was not published", seed, key.Session, s)
			}
		}
		slices.SortFunc(sent, derive.Compare)
		seen, err := state(sent)
		if err != nil {
			t.Fatal(err)
		}
		if stored != want[key] || seen != want[key] {
			t.Fatalf("order %d, session %s: stored as it should be: %t, published: %t\n%v", seed, key.Session, stored == want[key], seen == want[key], trail.Signals())
		}
		for _, row := range trail.DueRows() {
			t.Fatalf("order %d, session %s: the row of event %s names a wrong start", seed, key.Session, row.Event.EventId)
		}
	}
}

func whole(t *testing.T, sessions [][]*eventv1.Event) map[trail.Key]string {
	t.Helper()
	rules, _ := realRules(t)
	want := map[trail.Key]string{}
	kinds := map[string]int{}
	for _, events := range sessions {
		r, err := rules("p")
		if err != nil {
			t.Fatal(err)
		}
		derived := derive.Derive(events, r)
		for _, s := range derived {
			kinds[s.Kind]++
		}
		s, err := state(derived)
		if err != nil {
			t.Fatal(err)
		}
		want[trail.Key{Project: "p", Session: events[0].SessionId}] = s
	}
	for _, kind := range []string{derive.KindExplicit, derive.KindImplicit, derive.KindPreference} {
		if kinds[kind] < 20 {
			t.Fatalf("%d signals of kind %s: too few to say much", kinds[kind], kind)
		}
	}
	return want
}

// TestRealSessionsConverge is the acceptance of convergence; `make
// test-convergence` runs it with 1,000 orders.
func TestRealSessionsConverge(t *testing.T) {
	sessions := realSessions(t)
	want := whole(t, sessions)
	for seed := range uint64(*orders) {
		converge(t, trailtest.NewMemory(), sessions, want, seed)
	}
}

// TestRealSessionsConvergeInClickHouse does it with the real store.
func TestRealSessionsConvergeInClickHouse(t *testing.T) {
	sessions := realSessions(t)
	want := whole(t, sessions)
	for seed := range uint64(2) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			converge(t, trail.NewStore(trailtest.Conn(t)), sessions, want, 1000+seed*3)
		})
	}
}
