// Package derive reads signals from a trail. It is pure: no clock, no store, no
// memory. The same set of events gives the same signals in whatever order they
// came.
package derive

import (
	"cmp"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/honeloop/hone/pkg/events"
	"github.com/honeloop/hone/pkg/ids"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"
)

// Kinds of signals.
const (
	KindExplicit   = "explicit"
	KindPreference = "preference"
)

// Derive reads all signals from the events of one session, in the order of their
// time. Revisions are not set. Each event id stands in the trail once. The
// signals share messages with the events: change neither.
func Derive(trail []*eventv1.Event) []*signalv1.Signal {
	s := newSession(trail)
	var out []*signalv1.Signal
	for _, p := range s.people {
		if sig := s.explicit(p); sig != nil {
			out = append(out, sig)
		}
		if p.preferred != nil {
			out = append(out, s.preference(p))
		}
	}
	for _, sig := range out {
		fit(sig)
	}
	slices.SortFunc(out, Compare)
	return out
}

// Compare orders signals by the time of their newest evidence, then by id.
func Compare(a, b *signalv1.Signal) int {
	return cmp.Or(a.OccurredAt.AsTime().Compare(b.OccurredAt.AsTime()), cmp.Compare(a.SignalId, b.SignalId))
}

// InOrder sorts events by the time they happened, then by id.
func InOrder(events []*eventv1.Event) []*eventv1.Event {
	return slices.SortedFunc(slices.Values(events), func(a, b *eventv1.Event) int {
		return cmp.Or(a.OccurredAt.AsTime().Compare(b.OccurredAt.AsTime()), cmp.Compare(a.EventId, b.EventId))
	})
}

// session is a trail, indexed.
type session struct {
	project, id  string
	startedAt    *timestamppb.Timestamp
	interactions map[string]*turn
	people       []*person
}

// turn is an interaction that has arrived: its newest event (see overlay), and
// its position among the interactions.
type turn struct {
	event *eventv1.Event
	index uint32
}

// overlay is the newer of two events of one interaction. Where both came over
// OTLP they are its parts, the span and the log events of one model call: what
// the newer one leaves empty is as in the older.
func overlay(older, newer *eventv1.Event) *eventv1.Event {
	if older.Source != events.SourceOTLP || newer.Source != events.SourceOTLP {
		return newer
	}
	out, below := proto.CloneOf(newer), proto.CloneOf(older)
	fill(out.ProtoReflect(), below.ProtoReflect())
	fill(out.GetInteraction().ProtoReflect(), below.GetInteraction().ProtoReflect())
	if x := newer.GetInteraction(); x.GetOutput() != "" {
		out.GetInteraction().OutputRedactions = x.OutputRedactions // they are about this output
	}
	tags := below.Tags
	if tags == nil {
		return out
	}
	maps.Copy(tags, out.Tags)
	out.Tags = tags
	return out
}

// fill sets the fields of m that are empty as they are in from.
func fill(m, from protoreflect.Message) {
	from.Range(func(field protoreflect.FieldDescriptor, value protoreflect.Value) bool {
		if !m.Has(field) {
			m.Set(field, value)
		}
		return true
	})
}

// person is one user's word on one interaction.
type person struct {
	interaction, user string
	opinion           opinion
	preferred         *eventv1.Event
}

func newSession(trail []*eventv1.Event) *session {
	s := &session{interactions: map[string]*turn{}}
	type about struct{ interaction, user string }
	people := map[about]*person{}
	for _, e := range InOrder(trail) {
		if s.startedAt == nil {
			s.project, s.id, s.startedAt = e.ProjectId, e.SessionId, e.OccurredAt
		}
		switch {
		case e.GetInteraction() != nil:
			if t := s.interactions[e.InteractionId]; t != nil {
				t.event = overlay(t.event, e)
				continue
			}
			s.interactions[e.InteractionId] = &turn{event: e, index: uint32(len(s.interactions))}
		case e.GetFeedback() != nil:
			key := about{e.InteractionId, e.UserId}
			p := people[key]
			if p == nil {
				p = &person{interaction: key.interaction, user: key.user}
				people[key] = p
				s.people = append(s.people, p)
			}
			f := e.GetFeedback()
			p.opinion.hear(e)
			if f.Retract {
				p.preferred = nil
			}
			if f.PreferredInteractionId == "" {
				continue
			}
			p.preferred = e
			// Who now prefers b to a no longer prefers a to b.
			if other := people[about{f.PreferredInteractionId, e.UserId}]; other != nil &&
				other.preferred.GetFeedback().GetPreferredInteractionId() == e.InteractionId {
				other.preferred = nil
			}
		}
		// Behaviors and timers are in the trail; no signal is read from them yet.
	}
	return s
}

// signal begins a signal of p that rests on events, in order, of which there
// is at least one.
func (s *session) signal(kind string, p *person, events []*eventv1.Event) *signalv1.Signal {
	newest := events[len(events)-1]
	sig := &signalv1.Signal{
		SignalId:         ids.Derive("sg", s.project, s.id, p.interaction, kind, p.user),
		ProjectId:        s.project,
		SessionId:        s.id,
		InteractionId:    p.interaction,
		UserId:           p.user,
		Kind:             kind,
		OccurredAt:       newest.OccurredAt,
		SessionStartedAt: s.startedAt,
	}
	if t := s.interactions[p.interaction]; t != nil {
		sig.Interaction = t.event.GetInteraction()
		sig.Turn = t.index
		sig.UserId = cmp.Or(sig.UserId, t.event.UserId)
		events = slices.Concat([]*eventv1.Event{t.event}, events)
	} else {
		sig.Waiting = true
	}
	for _, e := range events {
		sig.UserRole = cmp.Or(e.UserRole, sig.UserRole)
		sig.Environment = cmp.Or(e.Environment, sig.Environment)
		if len(e.Tags) > 0 && sig.Tags == nil {
			sig.Tags = map[string]string{}
		}
		maps.Copy(sig.Tags, e.Tags)
	}
	return sig
}

func (s *session) explicit(p *person) *signalv1.Signal {
	o := p.opinion
	events := o.events()
	if len(events) == 0 {
		return nil
	}
	sig := s.signal(KindExplicit, p, events)
	sig.Categories = o.categories.GetFeedback().GetCategories()
	if len(sig.Categories) > 0 {
		sig.Category = sig.Categories[0]
	}
	sig.Comment = o.comment.GetFeedback().GetComment()
	sig.Correction = o.correction.GetFeedback().GetCorrection()
	if sig.Interaction != nil {
		sig.Edits, _ = fittingEdits(o.edits, sig.Interaction)
	} else {
		sig.Edits = o.edits.GetFeedback().GetEdits()
	}
	sig.Polarity = o.polarity()
	if o.rating != nil {
		r := rating(o.rating.GetFeedback())
		sig.Rating = &r
	}
	sig.Severity = severity(sig)
	sig.Confidence = o.confidence()
	for _, e := range events {
		sig.Evidence = append(sig.Evidence, o.evidence(e, sig.Interaction)...)
	}
	return sig
}

// preference is a signal about the answer that was not preferred.
func (s *session) preference(p *person) *signalv1.Signal {
	f := p.preferred.GetFeedback()
	sig := s.signal(KindPreference, p, []*eventv1.Event{p.preferred})
	sig.Polarity = Negative
	sig.Severity = SeverityLow
	sig.Confidence = confidencePreference
	sig.Comment = f.Comment
	sig.PreferredInteractionId = f.PreferredInteractionId
	if t := s.interactions[f.PreferredInteractionId]; t != nil {
		sig.Preferred = t.event.GetInteraction()
	} else {
		sig.Waiting = true
	}
	sig.Evidence = []*signalv1.Evidence{{
		EventId: p.preferred.EventId,
		Kind:    "preference",
		Detail:  "preferred " + f.PreferredInteractionId + " to this answer",
	}}
	return sig
}
