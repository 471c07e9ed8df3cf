package enrich

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
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
	"github.com/honeloop/hone/pkg/projects"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/telemetry"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"

	"github.com/honeloop/hone/services/enricher/internal/derive"
	"github.com/honeloop/hone/services/enricher/internal/derive/derivetest"
	"github.com/honeloop/hone/services/enricher/internal/trail"
	"github.com/honeloop/hone/services/enricher/internal/trail/trailtest"
)

func TestMain(m *testing.M) {
	embedded.Main()
	os.Exit(embeddedtest.Run(m))
}

// flaky is a store that fails after a write, when told to: the outcome that a
// crash or a lost answer leaves.
type flaky struct {
	*trail.Store
	events, signals bool
	loads           int
}

var errLost = errors.New("the answer was lost")

func (f *flaky) Load(ctx context.Context, keys []trail.Key) (map[trail.Key]*trail.Trail, error) {
	f.loads++
	return f.Store.Load(ctx, keys)
}

func (f *flaky) SaveEvents(ctx context.Context, rows []trail.EventRow) error {
	if err := f.Store.SaveEvents(ctx, rows); err != nil || !f.events {
		return err
	}
	f.events = false
	return errLost
}

func (f *flaky) SaveSignals(ctx context.Context, signals []*signalv1.Signal) error {
	if err := f.Store.SaveSignals(ctx, signals); err != nil || !f.signals {
		return err
	}
	f.signals = false
	return errLost
}

// rig runs a stage the way the runner does, and keeps what later stages would.
type rig struct {
	t         *testing.T
	conn      driver.Conn
	store     *flaky
	stage     *Stage
	offset    int64
	published map[string]*signalv1.Signal // newest revision by id
	sent      []string                    // of the last batch
}

func newRig(t *testing.T) *rig {
	t.Helper()
	conn := trailtest.Conn(t)
	r := &rig{t: t, conn: conn, store: &flaky{Store: trail.NewStore(conn)}, published: map[string]*signalv1.Signal{}}
	r.restart()
	return r
}

func (r *rig) restart() {
	r.t.Helper()
	st, err := New(r.store, Options{CacheBytes: 1 << 20, MaxSessionEvents: 1000, Rules: ProjectRules(projects.Defaults(), nil)}, telemetry.Discard().Meter)
	if err != nil {
		r.t.Fatal(err)
	}
	r.stage = st
}

func (r *rig) records(events []*eventv1.Event) []stage.Record {
	r.t.Helper()
	var recs []stage.Record
	for i, e := range events {
		value, err := proto.Marshal(e)
		if err != nil {
			r.t.Fatal(err)
		}
		recs = append(recs, stage.Record{
			Topic: stream.TopicEvents, Offset: r.offset + int64(i), Key: stream.SessionKey(e.ProjectId, e.SessionId), Value: value,
		})
	}
	return recs
}

// attempt processes a batch and does not publish.
func (r *rig) attempt(events ...*eventv1.Event) ([]stage.Record, error) {
	r.t.Helper()
	return r.stage.Process(r.t.Context(), r.records(events))
}

// process does what the runner does: process, publish, commit.
func (r *rig) process(events ...*eventv1.Event) {
	r.t.Helper()
	out, err := r.attempt(events...)
	if err != nil {
		r.t.Fatal(err)
	}
	r.offset += int64(len(events))
	r.sent = nil
	for _, rec := range out {
		sig := &signalv1.Signal{}
		if err := proto.Unmarshal(rec.Value, sig); err != nil {
			r.t.Fatal(err)
		}
		if rec.Topic != stream.TopicSignals || string(rec.Key) != sig.ProjectId+"/"+sig.SessionId {
			r.t.Fatalf("record for topic %s with key %s", rec.Topic, rec.Key)
		}
		r.sent = append(r.sent, describe(sig))
		if old := r.published[sig.SignalId]; old.GetRevision() < sig.Revision {
			r.published[sig.SignalId] = sig
		} else if old.GetRevision() == sig.Revision && !proto.Equal(old, sig) {
			r.t.Fatalf("revision %d was published as %v, then as %v", sig.Revision, old, sig)
		}
	}
}

func describe(s *signalv1.Signal) string {
	out := fmt.Sprintf("%s %s %s", s.Kind, s.InteractionId, s.Polarity)
	if s.Withdrawn {
		out += " withdrawn"
	}
	if s.Waiting {
		out += " waiting"
	}
	return out
}

// stored are the signals of a session in the store.
func (r *rig) stored(key trail.Key) []*signalv1.Signal {
	r.t.Helper()
	trails, err := r.store.Store.Load(r.t.Context(), []trail.Key{key})
	if err != nil {
		r.t.Fatal(err)
	}
	return trails[key].Signals()
}

func (r *rig) wantSent(want ...string) {
	r.t.Helper()
	if !slices.Equal(r.sent, want) {
		r.t.Fatalf("published %q, want %q", r.sent, want)
	}
}

func (r *rig) count(query string) uint64 {
	r.t.Helper()
	var n uint64
	if err := r.conn.QueryRow(r.t.Context(), query).Scan(&n); err != nil {
		r.t.Fatalf("%s: %v", query, err)
	}
	return n
}

var start = time.Date(2026, 11, 24, 9, 30, 0, 0, time.UTC)

func event(id string, second int) *eventv1.Event {
	at := timestamppb.New(start.Add(time.Duration(second) * time.Second))
	return &eventv1.Event{EventId: id, ProjectId: "p", SessionId: "s-1", InteractionId: "i-1", OccurredAt: at, ReceivedAt: at, Source: "http"}
}

func asked(id string, second int) *eventv1.Event {
	e := event(id, second)
	e.Type, e.Payload = "interaction", &eventv1.Event_Interaction{Interaction: &eventv1.Interaction{Query: "Can I?", Output: "Yes."}}
	return e
}

func said(id string, second int, f *eventv1.Feedback) *eventv1.Event {
	e := event(id, second)
	e.Type, e.Payload = "feedback", &eventv1.Event_Feedback{Feedback: f}
	return e
}

func thumb(id string, second int, thumb string) *eventv1.Event {
	return said(id, second, &eventv1.Feedback{Thumb: thumb})
}

var session = trail.Key{Project: "p", Session: "s-1"}

func TestEarlyDoubledAndFlippedFeedbackIsOneSignal(t *testing.T) {
	r := newRig(t)
	r.process(thumb("f-1", 3, "down"))
	r.wantSent()
	if got := r.stored(session); len(got) != 1 || describe(got[0]) != "explicit i-1 negative waiting" {
		t.Fatalf("stored %v, want one that waits", got)
	}
	r.process(thumb("f-1", 3, "down"))
	r.wantSent()
	r.process(asked("e-1", 0))
	r.wantSent("explicit i-1 negative")
	r.process(thumb("f-2", 9, "up"))
	r.wantSent("explicit i-1 positive")
	if n := r.count("SELECT count() FROM signals WHERE polarity = 'positive' AND NOT waiting"); n != 1 {
		t.Errorf("%d positive signals in the view, want 1", n)
	}
	if n := r.count("SELECT count() FROM signals"); n != 1 {
		t.Errorf("%d signals in the view, want 1", n)
	}
	if n := r.count("SELECT count() FROM events"); n != 3 {
		t.Errorf("%d events in the view, want 3", n)
	}
	// e-1 came late and moved the start of the session back.
	if n := r.count("SELECT uniqExact(session_started_at) FROM events"); n != 1 {
		t.Errorf("%d starts of one session, want 1", n)
	}
}

func TestOnlyTheLastWordOfAWaitIsPublished(t *testing.T) {
	r := newRig(t)
	r.process(thumb("f-1", 3, "down"))
	r.process(thumb("f-2", 4, "up"))
	r.wantSent()
	r.process(asked("e-1", 0))
	r.wantSent("explicit i-1 positive")
}

func TestRetractedFeedbackIsWithdrawn(t *testing.T) {
	r := newRig(t)
	r.process(asked("e-1", 0), thumb("f-1", 3, "down"))
	r.wantSent("explicit i-1 negative")
	r.process(said("f-2", 4, &eventv1.Feedback{Retract: true}))
	r.wantSent("explicit i-1 negative withdrawn")
	if n := r.count("SELECT count() FROM signals"); n != 0 {
		t.Errorf("%d signals in the view, want none", n)
	}
	r.process(thumb("f-3", 5, "down"))
	r.wantSent("explicit i-1 negative")
}

func TestFeedbackRetractedWhileItWaitsIsNeverPublished(t *testing.T) {
	r := newRig(t)
	r.process(thumb("f-1", 3, "down"))
	r.process(said("f-2", 4, &eventv1.Feedback{Retract: true}))
	r.wantSent()
	r.process(asked("e-1", 0))
	r.wantSent()
}

func TestACrashBeforePublishingPublishesAgain(t *testing.T) {
	tests := []struct {
		name  string
		crash func(*rig)
	}{
		{"after the events were stored", func(r *rig) { r.store.events = true }},
		{"after the signals were stored", func(r *rig) { r.store.signals = true }},
		{"before the publisher had them", func(*rig) {}},
	}
	for i, tt := range tests {
		for _, restart := range []bool{true, false} {
			t.Run(fmt.Sprintf("%d_%v", i, restart), func(t *testing.T) {
				t.Log(tt.name)
				r := newRig(t)
				tt.crash(r)
				batch := []*eventv1.Event{asked("e-1", 0), thumb("f-1", 3, "down")}
				if _, err := r.attempt(batch...); err != nil && !errors.Is(err, errLost) {
					t.Fatal(err)
				}
				if restart {
					r.restart()
				}
				r.process(batch...)
				r.wantSent("explicit i-1 negative")
				if n := r.count("SELECT count() FROM events"); n != 2 {
					t.Errorf("%d events, want 2", n)
				}
				r.process(thumb("f-2", 4, "up"))
				r.wantSent("explicit i-1 positive")
			})
		}
	}
}

func TestBadRecordsAreNamedAndTheRestCounts(t *testing.T) {
	r := newRig(t)
	recs := r.records([]*eventv1.Event{
		asked("e-1", 0), thumb("f-1", 1, "sideways"), thumb("f-2", 2, "down"), thumb("", 3, "down"), asked("e-9", 4), thumb("f-3", 5, "up"),
		{EventId: "e-5", ProjectId: "p", SessionId: "s-1", InteractionId: "i-1", Type: "feedback", OccurredAt: timestamppb.New(start)},
		thumb("f-old", -60*60*24*365*60, "down"),
	})
	recs[4].Key = stream.SessionKey("p", "another")
	recs[5].Value = []byte("{}")
	out, err := r.stage.Process(t.Context(), recs)
	failed, ok := stage.AsBatchError(err)
	if !ok || !slices.Equal(failed.Indexes(), []int{1, 3, 4, 5, 6, 7}) {
		t.Fatalf("error %v, want one that names inputs 1, 3, 4, 5, 6 and 7", err)
	}
	for i, want := range map[int]string{1: "thumb", 3: "event_id", 4: "record key", 5: "decode", 6: "feedback", 7: "1970"} {
		if got := failed.Cause(i).Error(); !strings.Contains(got, want) {
			t.Errorf("input %d: %q, want it to name %q", i, got, want)
		}
	}
	if len(out) != 1 {
		t.Errorf("%d records out, want the signal of the rest", len(out))
	}
}

func TestASessionOverItsLimitIsRefused(t *testing.T) {
	r := newRig(t)
	st, err := New(r.store, Options{CacheBytes: 1 << 20, MaxSessionEvents: 2, Rules: ProjectRules(projects.Defaults(), nil)}, telemetry.Discard().Meter)
	if err != nil {
		t.Fatal(err)
	}
	r.stage = st
	_, err = r.attempt(asked("e-1", 0), thumb("f-1", 1, "down"), thumb("f-2", 2, "up"), thumb("f-1", 1, "down"))
	failed, ok := stage.AsBatchError(err)
	if !ok || !slices.Equal(failed.Indexes(), []int{2}) {
		t.Fatalf("error %v, want one that names input 2", err)
	}
}

func TestCachedTrailsAreUsedOnlyWhereNothingHappenedInBetween(t *testing.T) {
	r := newRig(t)
	r.process(asked("e-1", 0))
	r.process(thumb("f-1", 1, "down"))
	if r.store.loads != 1 {
		t.Fatalf("%d reads of the store, want 1: the second batch has the trail", r.store.loads)
	}
	// Another owner of the partition handles a record.
	other := *r
	other.restart()
	other.process(thumb("f-2", 2, "up"))
	r.offset = other.offset
	r.process(said("f-3", 3, &eventv1.Feedback{Comment: "good"}))
	got := r.stored(session)
	if len(got) != 1 || got[0].Polarity != "positive" || got[0].Comment != "good" {
		t.Errorf("stored %v, want the positive signal of the other owner, with the comment", got)
	}
}

// TestTwoOwnersAgreeOnRevisions lets a process that lost its partition go on
// for a while beside the new owner.
func TestTwoOwnersAgreeOnRevisions(t *testing.T) {
	r := newRig(t)
	r.process(asked("e-1", 0))
	zombie := *r
	zombie.restart()
	log := []*eventv1.Event{thumb("f-1", 1, "down"), thumb("f-2", 2, "up"), thumb("f-3", 3, "down")}
	zombie.process(log[0])
	zombie.process(log[1], log[2])
	r.process(log[0])
	r.process(log[1])
	r.process(log[2])
	r.process(thumb("f-4", 4, "up"))
	got := r.stored(session)
	if len(got) != 1 || got[0].Polarity != "positive" || !proto.Equal(got[0], r.published[got[0].SignalId]) {
		t.Errorf("stored %v\npublished %v, want both to be the last word", got, r.published)
	}
}

// TestAnyOrderGivesTheSameState sends random sessions in random order, some
// events more than once, in random batches, with crashes and restarts.
func TestAnyOrderGivesTheSameState(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			r := newRig(t)
			random := rand.New(rand.NewPCG(seed, 2))
			sessions := map[trail.Key][]*eventv1.Event{}
			var log []*eventv1.Event
			var distinct uint64
			for i := range 40 {
				key := trail.Key{Project: "p", Session: fmt.Sprintf("s-%d", i)}
				events := derivetest.Session(random, key.Project, key.Session)
				sessions[key] = events
				distinct += uint64(len(events))
				log = append(log, events...)
				for range random.IntN(5) {
					log = append(log, events[random.IntN(len(events))])
				}
			}
			random.Shuffle(len(log), func(i, j int) { log[i], log[j] = log[j], log[i] })
			for len(log) > 0 {
				batch := log[:min(len(log), 1+random.IntN(60))]
				switch random.IntN(6) {
				case 0:
					r.store.events = true
				case 1:
					r.store.signals = true
				case 2:
					r.restart()
				case 3: // published nothing, or stopped before the commit
					if _, err := r.attempt(batch[:1+random.IntN(len(batch))]...); err != nil {
						t.Fatal(err)
					}
				}
				if r.store.events || r.store.signals {
					_, err := r.attempt(batch...)
					if err != nil && !errors.Is(err, errLost) {
						t.Fatal(err)
					}
					r.store.events, r.store.signals = false, false
				}
				r.process(batch...)
				log = log[len(batch):]
			}
			rules, err := ProjectRules(projects.Defaults(), nil)("p")
			if err != nil {
				t.Fatal(err)
			}
			for key, events := range sessions {
				want := derive.Derive(events, rules)
				var stored []*signalv1.Signal
				for _, s := range r.stored(key) {
					if pub := r.published[s.SignalId]; !s.Waiting && !proto.Equal(pub, s) {
						t.Errorf("stored %v\npublished %v", s, pub)
					}
					if !s.Withdrawn {
						s.Revision = 0
						stored = append(stored, s)
					}
				}
				if !slices.EqualFunc(stored, want, func(a, b *signalv1.Signal) bool { return proto.Equal(a, b) }) {
					t.Errorf("session %s: stored %v\nwant %v", key.Session, stored, want)
				}
			}
			if n := r.count("SELECT count() FROM events"); n != distinct {
				t.Errorf("%d events in the view, want %d", n, distinct)
			}
			if n := r.count(`SELECT count() FROM (SELECT session_id FROM events GROUP BY session_id
				HAVING uniqExact(session_started_at) != 1 OR any(session_started_at) != min(occurred_at))`); n != 0 {
				t.Errorf("%d sessions whose rows name a wrong start", n)
			}
		})
	}
}
