// Package trail keeps the trails of sessions: in ClickHouse, and those in use in
// memory.
package trail

import (
	"maps"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"

	"github.com/honeloop/hone/services/enricher/internal/derive"
)

// Key names a session.
type Key struct{ Project, Session string }

// Trail is all of a session: its events, and the newest revision of each of
// its signals. It is not safe for concurrent use.
type Trail struct {
	events    map[string]*held
	signals   map[string]*signalv1.Signal
	about     map[string][]string // ids of signals by interaction
	startedAt time.Time
	bytes     int
	// session is the trail as signals are read from it, fresh the events that it
	// does not have yet; nil until it is asked for.
	session *derive.Session
	fresh   []*eventv1.Event
}

// held is an event and the start of the session that its stored row says; zero
// where it has no row.
type held struct {
	event       *eventv1.Event
	rowStartsAt time.Time
}

// New is an empty trail.
func New() *Trail {
	return &Trail{events: map[string]*held{}, signals: map[string]*signalv1.Signal{}, about: map[string][]string{}}
}

// messageBytes is about what a message and its places in the indexes cost in
// memory beyond its text, as `make bench-enrich` finds.
const messageBytes = 1400

// Bytes is about what the trail costs in memory.
func (t *Trail) Bytes() int { return t.bytes }

// Len is the number of events.
func (t *Trail) Len() int { return len(t.events) }

// Has says whether the trail holds an event.
func (t *Trail) Has(eventID string) bool { return t.events[eventID] != nil }

// Add adds an event that the trail does not hold.
func (t *Trail) Add(e *eventv1.Event) { t.add(e, time.Time{}) }

// LoadEvent adds an event from a row. Of several rows the one that names the
// earliest start is the newest.
func (t *Trail) LoadEvent(e *eventv1.Event, rowStartsAt time.Time) {
	h := t.events[e.EventId]
	switch {
	case h == nil:
		t.add(e, rowStartsAt)
	case rowStartsAt.Before(h.rowStartsAt):
		h.rowStartsAt = rowStartsAt
	}
	// The event that the session began with may have expired since.
	if rowStartsAt.Before(t.startedAt) {
		t.startedAt = rowStartsAt
	}
}

func (t *Trail) add(e *eventv1.Event, rowStartsAt time.Time) {
	t.events[e.EventId] = &held{e, rowStartsAt}
	t.bytes += proto.Size(e) + messageBytes
	if t.session != nil {
		t.fresh = append(t.fresh, e)
	}
	// In milliseconds, as the store keeps it.
	if at := e.OccurredAt.AsTime().Truncate(time.Millisecond); t.startedAt.IsZero() || at.Before(t.startedAt) {
		t.startedAt = at
	}
}

// Without is the trail without some of its events, and whether there were any.
// Its signals, and the start of the session, are as they were.
func (t *Trail) Without(gone func(*eventv1.Event) bool) (*Trail, bool) {
	out := New()
	for _, h := range t.events {
		if !gone(h.event) {
			out.LoadEvent(h.event, h.rowStartsAt)
		}
	}
	if len(out.events) == len(t.events) {
		return t, false
	}
	out.startedAt = t.startedAt
	for _, s := range t.signals {
		out.SetSignal(s)
	}
	return out, true
}

// Events are all events, in no order.
func (t *Trail) Events() []*eventv1.Event {
	out := make([]*eventv1.Event, 0, len(t.events))
	for _, h := range t.events {
		out = append(out, h.event)
	}
	return out
}

// Derive calls each for every interaction whose signals may have changed since
// the last call, in no order, with the signals that hold and the newest revisions
// that are stored. The first call, and one with other rules, is about all.
func (t *Trail) Derive(rules *derive.Rules, each func(holds, stored []*signalv1.Signal)) {
	if t.session == nil || t.session.Rules() != rules {
		t.session = derive.NewSession(rules)
		t.fresh = t.Events()
	}
	t.session.Add(t.fresh...)
	t.fresh = nil
	for _, id := range t.session.Touched() {
		var stored []*signalv1.Signal
		for _, id := range t.about[id] {
			stored = append(stored, t.signals[id])
		}
		each(t.session.Signals(id), stored)
	}
}

// Signal is the newest revision of a signal; nil where there is none.
func (t *Trail) Signal(id string) *signalv1.Signal { return t.signals[id] }

// Signals are the newest revisions of all, withdrawn ones included, by the time
// of their newest evidence, then by id.
func (t *Trail) Signals() []*signalv1.Signal {
	return slices.SortedFunc(maps.Values(t.signals), derive.Compare)
}

// SetSignal replaces a signal by a newer revision.
func (t *Trail) SetSignal(s *signalv1.Signal) {
	if old := t.signals[s.SignalId]; old != nil {
		t.bytes -= proto.Size(old) + messageBytes
	} else {
		t.about[s.InteractionId] = append(t.about[s.InteractionId], s.SignalId)
	}
	t.signals[s.SignalId] = s
	t.bytes += proto.Size(s) + messageBytes
}

// EventRow is a row of events_log.
type EventRow struct {
	Event            *eventv1.Event
	SessionStartedAt time.Time
}

// DueRows are the rows that the store lacks: those of new events, and, where an
// event moved the start of the session back, those of all. It takes them as
// written: drop the trail where the write fails.
func (t *Trail) DueRows() []EventRow {
	var due []EventRow
	for _, h := range t.events {
		if !h.rowStartsAt.Equal(t.startedAt) {
			h.rowStartsAt = t.startedAt
			due = append(due, EventRow{h.event, t.startedAt})
		}
	}
	return due
}
