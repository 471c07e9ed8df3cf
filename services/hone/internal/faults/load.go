package faults

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/honeloop/hone/pkg/ids"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
)

const (
	project = "default"
	// perSession is the number of events of one session, of which
	// feedbackPerSession are feedback.
	perSession         = 20
	feedbackPerSession = 2
)

// load is every event of a run. It holds none of them: each session is made
// anew from the seed whenever it is needed, so a million events cost no memory.
type load struct {
	seed     uint64
	sessions int
	start    time.Time // no event is later
}

func (l load) events() int { return l.sessions * perSession }

func (l load) random(session int, stream uint64) *rand.Rand {
	return rand.New(rand.NewPCG(l.seed, uint64(session)<<8|stream))
}

func sessionID(session int) string      { return fmt.Sprintf("s-%07d", session) }
func eventID(session, place int) string { return fmt.Sprintf("e-%07d-%02d", session, place) }

// parseEventID is the reverse of eventID; ok is false for ids of no event.
func (l load) parseEventID(id string) (session, place int, ok bool) {
	a, b, found := strings.Cut(strings.TrimPrefix(id, "e-"), "-")
	session, err1 := strconv.Atoi(a)
	place, err2 := strconv.Atoi(b)
	if !found || err1 != nil || err2 != nil || session < 0 || session >= l.sessions || place < 0 || place >= perSession {
		return 0, 0, false
	}
	return session, place, eventID(session, place) == id
}

// placeOf is the session and the place of an event as it is stored. What came as
// a span is known by what it is about, since its id is the collector's.
func (l load) placeOf(e *eventv1.Event, id string) (session, place int, ok bool) {
	if session, place, ok = l.parseEventID(id); ok {
		return session, place, !l.spans(session) || e.GetFeedback() != nil
	}
	if _, err := fmt.Sscanf(e.SessionId, "s-%d", &session); err != nil || session < 0 || session >= l.sessions || sessionID(session) != e.SessionId || !l.spans(session) {
		return 0, 0, false
	}
	if _, err := fmt.Sscanf(e.InteractionId, "t%d", &place); err != nil || place < 0 || place >= perSession-feedbackPerSession {
		return 0, 0, false
	}
	return session, place, turnID(place) == e.InteractionId && e.GetInteraction() != nil
}

// session is its events in the order in which they are sent, as the sender
// makes them: without project, source and time of arrival.
func (l load) session(n int) []*eventv1.Event {
	r := l.random(n, 1)
	user := fmt.Sprintf("u-%d", r.IntN(5000))
	// Over the last 40 days, so that events and sessions lie in two partitions.
	begin := l.start.Add(-time.Hour - time.Duration(r.Int64N(int64(40*24*time.Hour)))).Truncate(time.Millisecond)
	at := func(place int) *timestamppb.Timestamp {
		return timestamppb.New(begin.Add(time.Duration(place) * 7 * time.Second))
	}
	var out []*eventv1.Event
	const turns = perSession - feedbackPerSession
	first := r.IntN(1_000_000)
	for i := range turns {
		out = append(out, &eventv1.Event{
			EventId: eventID(n, i), Type: "interaction", SessionId: sessionID(n), InteractionId: turnID(i), UserId: user, UserRole: "customer",
			Environment: "production", Tags: map[string]string{"plan": pick(r, "free", "pro"), "run": strconv.FormatUint(l.seed, 10)}, OccurredAt: at(i),
			Payload: &eventv1.Event_Interaction{Interaction: interaction(r, first+i)},
		})
	}
	feedback := l.feedback(r)
	for i, f := range feedback {
		f.event = &eventv1.Event{
			EventId: eventID(n, turns+i), Type: "feedback", SessionId: sessionID(n), InteractionId: turnID(f.turn), UserId: user, UserRole: "customer",
			OccurredAt: at(turns + i), Payload: &eventv1.Event_Feedback{Feedback: f.feedback},
		}
		// One in five comes before anything it is about, the others after it.
		place := len(out)
		if f.early {
			place = 0
		}
		out = append(out[:place], append([]*eventv1.Event{f.event}, out[place:]...)...)
	}
	return out
}

func turnID(turn int) string { return fmt.Sprintf("t%02d", turn) }

type said struct {
	turn     int
	early    bool
	feedback *eventv1.Feedback
	event    *eventv1.Event
}

// feedback is what the user of a session says, in the order of its time.
func (l load) feedback(r *rand.Rand) []*said {
	turn := r.IntN(8)
	first := &said{turn: turn, early: r.IntN(5) == 0, feedback: complaint(r)}
	second := &said{turn: turn + 1 + r.IntN(8), early: r.IntN(5) == 0, feedback: complaint(r)}
	switch r.IntN(10) {
	case 0, 1: // changes their mind
		second.turn, second.feedback = turn, &eventv1.Feedback{Thumb: "up"}
		if r.IntN(2) == 0 {
			first.feedback, second.feedback = second.feedback, first.feedback
		}
	case 2: // takes it back
		second.turn, second.feedback = turn, &eventv1.Feedback{Retract: true}
	case 3: // prefers another answer
		second.feedback = &eventv1.Feedback{PreferredInteractionId: turnID(turn)}
	case 4, 5: // is content
		second.feedback = &eventv1.Feedback{Thumb: "up"}
	}
	return []*said{first, second}
}

// complaint is negative feedback.
func complaint(r *rand.Rand) *eventv1.Feedback {
	f := &eventv1.Feedback{Thumb: "down", Comment: fmt.Sprintf("That is wrong, <see> \"%d\" – 😕.", r.IntN(1_000_000))}
	f.Categories = []string{pick(r, "unsafe", "product_problem", "wrong_tone", "factually_incorrect", "outdated", "incomplete")}
	if r.IntN(3) == 0 {
		f.Correction = fmt.Sprintf("It takes %d days.", r.IntN(1_000_000))
	}
	return f
}

// interaction is a turn. Turns with numbers next to each other ask about other
// things, so that no question looks like the one before it asked again.
func interaction(r *rand.Rand, number int) *eventv1.Interaction {
	score := r.Float64()
	next := func(from ...string) string { return from[number%len(from)] }
	return &eventv1.Interaction{
		Query: fmt.Sprintf("%s %s the %s %s?", pick(r, "How do I", "Can I", "Why can't I", "When may I"),
			next("return", "repair", "insure", "wash", "sell", "cancel", "renew", "track", "move", "paint", "rent", "exchange"),
			next("red", "old", "second", "broken", "worn", "gifted", "leased", "unopened", "blue", "spare"),
			next("shoes", "bicycle", "subscription", "parcel", "tent", "invoice", "phone", "carpet", "kettle", "window", "voucher", "boat", "ladder", "lamp", "router", "account")),
		SystemContext: "You help customers of a shop.\n\tBe brief.",
		Output:        strings.Repeat(fmt.Sprintf("Answer %d: \"yes\", within 60 days — naïve, 東京, 😀.\n", r.IntN(1_000_000)), 1+r.IntN(4)),
		Retrieved:     []*eventv1.Retrieved{{Source: "kb/" + strconv.Itoa(r.IntN(100)), Text: "Returns are free.", Score: &score}},
		Tools:         []*eventv1.ToolCall{{Name: "orders", Arguments: `{"id":7}`, Result: "[]", LatencyMs: r.Uint32N(500)}},
		Model:         "m", ModelVersion: pick(r, "m-1", "m-2"), PromptVersion: "p-3",
		LatencyMs: r.Uint32N(5000), InputTokens: r.Uint32N(900), OutputTokens: r.Uint32N(300), FinishReason: "stop", Language: "en",
	}
}

func pick(r *rand.Rand, from ...string) string { return from[r.IntN(len(from))] }

// reading is a signal that the pipeline must read from a session.
type reading struct {
	id, session, interaction, kind string
	// The events take it back: it must not hold, wherever it may have been seen.
	withdrawn                               bool
	polarity, category, correction, comment string
	query                                   string
}

// signals are those of a session, by a model of their own: what each user said
// last on each turn counts, and a change of mind clears what was said before.
func (l load) signals(n int) []reading {
	var out []reading
	about := map[string]int{}
	events := l.session(n)
	queries := map[string]string{}
	byPlace := make([]*eventv1.Event, perSession)
	for _, e := range events {
		if i := e.GetInteraction(); i != nil {
			queries[e.InteractionId] = i.Query
		}
		_, place, _ := l.parseEventID(e.EventId)
		byPlace[place] = e
	}
	for _, e := range byPlace[perSession-feedbackPerSession:] {
		f := e.GetFeedback()
		kind := "explicit"
		if f.PreferredInteractionId != "" {
			kind = "preference"
		}
		id := ids.Derive("sg", project, e.SessionId, e.InteractionId, kind, e.UserId)
		i, known := about[id]
		if !known {
			i = len(out)
			about[id] = i
			out = append(out, reading{})
		}
		s := reading{id: id, session: e.SessionId, interaction: e.InteractionId, kind: kind, query: queries[e.InteractionId], withdrawn: f.Retract}
		switch {
		case kind == "preference" || f.Thumb == "down":
			s.polarity = "negative"
		case f.Thumb == "up":
			s.polarity = "positive"
		}
		if len(f.Categories) > 0 {
			s.category = f.Categories[0]
		}
		s.correction, s.comment = f.Correction, f.Comment
		out[i] = s // no user says the same twice here, so the last word is all of it
	}
	return out
}

// sameContent compares events without what the collector adds, byte for byte.
func sameContent(a, b *eventv1.Event) (bool, error) {
	x, err1 := content(a)
	y, err2 := content(b)
	return bytes.Equal(x, y), errors.Join(err1, err2)
}

// content is an event without what the collector adds, byte for byte.
func content(e *eventv1.Event) ([]byte, error) {
	e = proto.CloneOf(e)
	e.ProjectId, e.Source, e.ReceivedAt = "", "", nil
	return proto.MarshalOptions{Deterministic: true}.Marshal(e)
}
