// Package derive reads signals from a trail. It is pure: no clock, no store, no
// memory. The same set of events gives the same signals in whatever order they
// came.
package derive

import (
	"cmp"
	"fmt"
	"maps"
	"math"
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
	KindImplicit   = "implicit"
)

// Derive reads all signals from the events of one session, in the order of their
// time. Revisions are not set. Each event id stands in the trail once. The
// signals share messages with the events: change neither.
func Derive(trail []*eventv1.Event, rules *Rules) []*signalv1.Signal {
	s := NewSession(rules)
	s.Add(trail...)
	var out []*signalv1.Signal
	for _, id := range s.Touched() {
		out = append(out, s.Signals(id)...)
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
	return slices.SortedFunc(slices.Values(events), compareEvents)
}

func compareEvents(a, b *eventv1.Event) int {
	return cmp.Or(a.OccurredAt.AsTime().Compare(b.OccurredAt.AsTime()), cmp.Compare(a.EventId, b.EventId))
}

// Session is a trail, indexed, that events can be added to. It knows which
// interactions they touch, so that the signals of the others need not be derived
// again. It is not safe for concurrent use.
type Session struct {
	rules       *Rules
	project, id string
	startedAt   *timestamppb.Timestamp
	events      []*eventv1.Event // in order
	turns       []*about         // interactions that have arrived, in order
	abouts      map[string]*about
	touched     map[string]bool
}

// about is all that is known about one interaction.
type about struct {
	id string
	// event is its newest event (see overlay), nil while it is missing; index its
	// position among the interactions.
	event *eventv1.Event
	index int
	// people are those who gave feedback, in order.
	people    []*person
	behaviors []*eventv1.Event
	// ended is the end of the session that was the next thing to happen.
	ended *eventv1.Event
	// expired says that nobody waits for the interaction any more.
	expired bool
	// comparedWith are the interactions that it was preferred to at some time.
	comparedWith []*about
	// read is the reaction that was read last, and what was found in it.
	read  *Reaction
	found []Finding
}

// person is one user's word on one interaction.
type person struct {
	user      string
	opinion   opinion
	preferred *eventv1.Event
}

// An interaction's signals depend on the interactions near it alone: on
// lookAhead that follow, for the next message and the answers that replace it,
// and on lookBack before, for failures in a row.
const (
	lookAhead = 4
	lookBack  = 3
)

// NewSession is a session without events.
func NewSession(rules *Rules) *Session {
	return &Session{rules: rules, abouts: map[string]*about{}, touched: map[string]bool{}}
}

// Rules are those that it was made with.
func (s *Session) Rules() *Rules { return s.rules }

// Add adds events that it does not have. Those that come in order cost little;
// one that belongs before others makes it begin anew.
func (s *Session) Add(events ...*eventv1.Event) {
	events = InOrder(events)
	if n := len(s.events); n > 0 && len(events) > 0 && compareEvents(events[0], s.events[n-1]) < 0 {
		events = InOrder(slices.Concat(s.events, events))
		*s = *NewSession(s.rules)
	}
	for _, e := range events {
		s.add(e)
	}
}

// Touched are the interactions whose signals may have changed since it was asked
// last, in no order.
func (s *Session) Touched() []string {
	out := slices.Collect(maps.Keys(s.touched))
	clear(s.touched)
	return out
}

func (s *Session) about(id string) *about {
	a := s.abouts[id]
	if a == nil {
		a = &about{id: id}
		s.abouts[id] = a
	}
	return a
}

func (s *Session) touch(a *about) {
	s.touched[a.id] = true
	if a.event == nil {
		return
	}
	for i := max(0, a.index-lookAhead-lookBack); i <= min(len(s.turns)-1, a.index+lookBack); i++ {
		s.touched[s.turns[i].id] = true
	}
}

// add adds the event that comes last.
func (s *Session) add(e *eventv1.Event) {
	s.events = append(s.events, e)
	if s.startedAt == nil {
		s.project, s.id, s.startedAt = e.ProjectId, e.SessionId, e.OccurredAt
	}
	last := func() *about {
		if len(s.turns) == 0 {
			return nil
		}
		return s.turns[len(s.turns)-1]
	}
	switch {
	case e.GetInteraction() != nil:
		a := s.about(e.InteractionId)
		if a.event != nil {
			a.event = overlay(a.event, e)
		} else {
			a.event, a.index = e, len(s.turns)
			s.turns = append(s.turns, a)
		}
		s.touch(a)
		for _, other := range a.comparedWith {
			s.touch(other)
		}
	case e.GetFeedback() != nil:
		s.hear(e)
	case e.GetBehavior() != nil:
		a := last()
		if e.InteractionId != "" {
			a = s.about(e.InteractionId)
		}
		if a == nil {
			return // about a session that has not begun
		}
		a.behaviors = append(a.behaviors, e)
		s.touch(a)
	case e.GetTimer().GetKind() == TimerSessionEnded:
		if a := last(); a != nil && a.ended == nil {
			a.ended = e
			s.touch(a)
		}
	case e.GetTimer().GetKind() == TimerWaitExpired:
		a := s.about(e.GetTimer().Subject)
		a.expired = true
		s.touch(a)
		for _, other := range a.comparedWith {
			s.touch(other)
		}
	}
}

// Kinds of timers.
const (
	TimerSessionEnded = "session_ended"
	TimerWaitExpired  = "wait_expired"
)

func (s *Session) hear(e *eventv1.Event) {
	a, f := s.about(e.InteractionId), e.GetFeedback()
	s.touch(a)
	p := a.person(e.UserId)
	if p == nil {
		p = &person{user: e.UserId}
		a.people = append(a.people, p)
	}
	p.opinion.hear(e)
	if f.Retract {
		p.prefer(s, nil)
	}
	if f.PreferredInteractionId == "" {
		return
	}
	p.prefer(s, e)
	other := s.about(f.PreferredInteractionId)
	if !slices.Contains(other.comparedWith, a) {
		other.comparedWith = append(other.comparedWith, a)
	}
	// Who now prefers b to a no longer prefers a to b.
	if q := other.person(e.UserId); q != nil && q.preferred.GetFeedback().GetPreferredInteractionId() == e.InteractionId {
		q.prefer(s, nil)
	}
	s.touch(other)
}

func (a *about) person(user string) *person {
	for _, p := range a.people {
		if p.user == user {
			return p
		}
	}
	return nil
}

func (p *person) prefer(s *Session, e *eventv1.Event) {
	if old := p.preferred.GetFeedback().GetPreferredInteractionId(); old != "" {
		s.touch(s.about(old))
	}
	p.preferred = e
}

// preferredTo says whether somebody prefers a to another answer.
func (a *about) preferredTo(others ...*about) bool {
	for _, other := range others {
		for _, p := range other.people {
			if p.preferred.GetFeedback().GetPreferredInteractionId() == a.id {
				return true
			}
		}
	}
	return false
}

// Signals derives the signals about one interaction.
func (s *Session) Signals(interaction string) []*signalv1.Signal {
	a := s.abouts[interaction]
	if a == nil {
		return nil
	}
	var out []*signalv1.Signal
	for _, p := range a.people {
		if sig := s.explicit(a, p); sig != nil {
			out = append(out, sig)
		}
		if p.preferred != nil {
			out = append(out, s.preference(a, p))
		}
	}
	features := map[string]float64{}
	if sig := s.implicit(a, features); sig != nil {
		out = append(out, sig)
	}
	if len(out) == 0 {
		return nil
	}
	if a.event != nil {
		s.judge(a, out, features)
	}
	for _, sig := range out {
		fit(sig)
	}
	slices.SortFunc(out, Compare)
	return out
}

// reaction is what came after an answer that has arrived.
func (s *Session) reaction(a *about) *Reaction {
	r := &Reaction{Answer: a.event, Behaviors: a.behaviors, Ended: a.ended}
	for _, p := range a.people {
		r.Judged = r.Judged || p.preferred != nil || len(p.opinion.events()) > 0
	}
	var beside []*about // answers to the same question, or steps of the same run
	for i := max(0, a.index-lookBack); i < a.index; i++ {
		if s.turns[i].beside(a) {
			beside = append(beside, s.turns[i])
		}
	}
	var next *about
	for i := a.index + 1; i < len(s.turns) && i <= a.index+lookAhead; i++ {
		t := s.turns[i]
		if a.beside(t) {
			r.Replaced = t.event
		} else if !sameRun(a.event, t.event) {
			next = t
			break
		}
		beside = append(beside, t)
	}
	if next == nil || a.ended != nil {
		return r
	}
	// The next message is about the answer that was preferred, else the last.
	switch later := next.index > a.index+1; {
	case slices.ContainsFunc(beside, func(b *about) bool { return b.preferredTo(a) }):
	case later && !a.preferredTo(beside...):
	default:
		r.Next = next.event
	}
	return r
}

// beside says whether two interactions answer the same question: their events
// say so, or somebody compared them.
func (a *about) beside(b *about) bool {
	return alternatives(a.event, b.event) || slices.Contains(a.comparedWith, b) || slices.Contains(b.comparedWith, a)
}

// find reads the findings of a reaction to a. Readers are pure: a reaction that
// did not change since is not read again.
func (s *Session) find(a *about, r *Reaction) []Finding {
	if a.read == nil || !a.read.same(r) {
		var found []Finding
		for _, reader := range s.rules.readers {
			found = append(found, reader.Read(r)...)
		}
		a.found = slices.DeleteFunc(found, func(f Finding) bool { return s.rules.settings.Findings[f.Kind]*f.Clarity <= 0 })
		a.read = &Reaction{}
		*a.read = *r
	}
	return slices.Clone(a.found)
}

// implicit is the signal of what people did and wrote after an answer; nil where
// there is nothing. It sets the features that it found.
func (s *Session) implicit(a *about, features map[string]float64) *signalv1.Signal {
	r := &Reaction{Answer: &eventv1.Event{}, Behaviors: a.behaviors}
	if a.event != nil {
		r = s.reaction(a)
	}
	found := s.find(a, r)
	// Only who leaves can have given up: look back where it matters.
	if a.event != nil && r.Next == nil {
		for i := a.index - 1; i >= max(0, a.index-lookBack) && failed(s.find(s.turns[i], s.reaction(s.turns[i]))); i-- {
			r.Failed++
		}
		found = append(found, gaveUp(r, found, s.rules.settings.GaveUpAfter)...)
	}
	found = strongest(found)
	if a.event != nil {
		s.rules.context(r, features)
	}
	if len(found) == 0 {
		return nil
	}
	var did []*eventv1.Event // in order; not the next message, which is another interaction
	for _, f := range found {
		if f.Event.GetBehavior() != nil && !slices.Contains(did, f.Event) {
			did = append(did, f.Event)
		}
	}
	sig := s.signal(KindImplicit, a, "", InOrder(did))
	if sig.UserId == "" && len(did) > 0 {
		sig.UserId = did[0].UserId
	}
	sig.OccurredAt = found[0].Event.OccurredAt
	for _, f := range found {
		confidence := round(s.rules.settings.Findings[f.Kind]*f.Clarity, 1000)
		features[f.Kind] = confidence
		sig.Evidence = append(sig.Evidence, &signalv1.Evidence{
			EventId: f.Event.EventId, Kind: f.Kind, Detail: f.Detail, Start: f.Start, End: f.End,
			Confidence: confidence, Weight: round(confidence*s.rules.weight(f.Kind), 1000),
		})
		if f.Event.OccurredAt.AsTime().After(sig.OccurredAt.AsTime()) {
			sig.OccurredAt = f.Event.OccurredAt
		}
	}
	slices.SortStableFunc(sig.Evidence, func(a, b *signalv1.Evidence) int {
		return cmp.Or(cmp.Compare(math.Abs(b.Weight), math.Abs(a.Weight)), cmp.Compare(a.Kind, b.Kind))
	})
	sig.Polarity, sig.Confidence, sig.Severity = Neutral, confidenceNeutral, SeverityLow
	if sig.Waiting || a.event == nil {
		sig.Evidence = s.withExpiry(sig.Evidence, a)
	}
	return sig
}

// Features are what the model sees of an interaction beside explicit feedback.
func (s *Session) Features(interaction string) map[string]float64 {
	features := map[string]float64{}
	if a := s.abouts[interaction]; a != nil {
		s.implicit(a, features)
	}
	return features
}

// judge sets the dissatisfaction on all signals of an interaction, and the
// polarity of the implicit one by it.
func (s *Session) judge(a *about, signals []*signalv1.Signal, features map[string]float64) {
	var ratings, sum float64
	for _, p := range a.people {
		if p.opinion.rating != nil {
			ratings++
			sum += rating(p.opinion.rating.GetFeedback())
		}
		if p.opinion.faults() {
			features[FeatureFault] = 1
		}
		if p.opinion.rating == nil && p.opinion.comment != nil {
			features[FeatureComment] = 1
		}
		if p.preferred != nil {
			features[FeatureBeaten] = 1
		}
	}
	if ratings > 0 {
		features[FeatureRating] = -sum / ratings
	}
	if features[FeatureBeaten] == 0 && a.preferredTo(a.comparedWith...) {
		features[FeatureBeaten] = -1
	}
	p := s.rules.probability(features)
	// A hundredth is as much as anybody can say, and lesser changes make no revision.
	p = round(p, 100)
	for _, sig := range signals {
		sig.Dissatisfaction = proto.Float64(p)
		if sig.Kind != KindImplicit {
			continue
		}
		points := 0.0
		for _, e := range sig.Evidence {
			points += e.Weight
		}
		switch {
		case p >= s.rules.settings.NegativeFrom && points > 0:
			sig.Polarity, sig.Confidence = Negative, p
		case p <= s.rules.settings.PositiveTo && points < 0:
			sig.Polarity, sig.Confidence = Positive, round(1-p, 100)
		}
		if sig.Polarity == Negative && slices.ContainsFunc(sig.Evidence, func(e *signalv1.Evidence) bool {
			return e.Kind == GaveUp || e.Kind == AskedForHuman || e.Kind == Rejected
		}) {
			sig.Severity = SeverityMedium
		}
	}
}

func round(x, to float64) float64 { return math.Round(x*to) / to }

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

// signal begins a signal about a that rests on events, in order.
func (s *Session) signal(kind string, a *about, user string, events []*eventv1.Event) *signalv1.Signal {
	sig := &signalv1.Signal{
		SignalId:         ids.Derive("sg", s.project, s.id, a.id, kind, user),
		ProjectId:        s.project,
		SessionId:        s.id,
		InteractionId:    a.id,
		UserId:           user,
		Kind:             kind,
		SessionStartedAt: s.startedAt,
	}
	if len(events) > 0 {
		sig.OccurredAt = events[len(events)-1].OccurredAt
	}
	if a.event != nil {
		sig.Interaction = a.event.GetInteraction()
		sig.Turn = uint32(a.index)
		sig.UserId = cmp.Or(sig.UserId, a.event.UserId)
		events = slices.Concat([]*eventv1.Event{a.event}, events)
	} else {
		sig.Waiting = !a.expired
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

func (s *Session) explicit(a *about, p *person) *signalv1.Signal {
	o := p.opinion
	events := o.events()
	if len(events) == 0 {
		return nil
	}
	sig := s.signal(KindExplicit, a, p.user, events)
	for _, word := range o.categories.GetFeedback().GetCategories() {
		name, known := s.rules.taxonomy.Name(word)
		if slices.Contains(sig.Categories, name) {
			continue
		}
		sig.Categories = append(sig.Categories, name)
		if !known {
			sig.UnknownCategories = append(sig.UnknownCategories, name)
		}
	}
	if len(sig.Categories) > 0 {
		sig.Category = sig.Categories[0]
	}
	sig.Comment = o.comment.GetFeedback().GetComment()
	sig.Correction = o.correction.GetFeedback().GetCorrection()
	compared := true
	if sig.Interaction != nil {
		sig.Edits, _ = fittingEdits(o.edits, sig.Interaction)
		if sig.Correction != "" {
			sig.Changes, compared = changes(sig.Interaction.Output, sig.Correction)
		}
	} else {
		sig.Edits = o.edits.GetFeedback().GetEdits()
	}
	sig.Polarity = o.polarity()
	if o.rating != nil {
		f := o.rating.GetFeedback()
		r := rating(f)
		sig.Rating, sig.Rated = &r, rated(f)
	}
	sig.Severity = s.rules.severity(sig)
	sig.Confidence = o.confidence()
	for _, e := range events {
		sig.Evidence = append(sig.Evidence, o.evidence(e, sig.Interaction)...)
	}
	if !compared {
		sig.Evidence = append(sig.Evidence, &signalv1.Evidence{EventId: o.correction.EventId, Kind: "correction",
			Detail: fmt.Sprintf("not compared with the answer: more than %d pairs of words", maxCompared)})
	}
	sig.Evidence = s.withExpiry(sig.Evidence, a)
	return sig
}

// withExpiry adds that a signal went on without the interaction.
func (s *Session) withExpiry(evidence []*signalv1.Evidence, missing *about) []*signalv1.Evidence {
	if missing.event != nil || !missing.expired {
		return evidence
	}
	return append(evidence, &signalv1.Evidence{Kind: TimerWaitExpired, Detail: "interaction " + missing.id + " did not come in time"})
}

// preference is a signal about the answer that was not preferred.
func (s *Session) preference(a *about, p *person) *signalv1.Signal {
	f := p.preferred.GetFeedback()
	sig := s.signal(KindPreference, a, p.user, []*eventv1.Event{p.preferred})
	sig.Polarity = Negative
	sig.Severity = SeverityLow
	sig.Confidence = confidencePreference
	sig.Comment = f.Comment
	sig.PreferredInteractionId = f.PreferredInteractionId
	other := s.about(f.PreferredInteractionId)
	if other.event != nil {
		sig.Preferred = other.event.GetInteraction()
	} else if !other.expired {
		sig.Waiting = true
	}
	sig.Evidence = []*signalv1.Evidence{{
		EventId: p.preferred.EventId,
		Kind:    "preference",
		Detail:  "preferred " + f.PreferredInteractionId + " to this answer",
	}}
	sig.Evidence = s.withExpiry(s.withExpiry(sig.Evidence, a), other)
	return sig
}
