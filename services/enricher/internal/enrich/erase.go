package enrich

import (
	"context"
	"slices"

	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"

	"github.com/honeloop/hone/services/enricher/internal/derive"
	"github.com/honeloop/hone/services/enricher/internal/trail"
)

// TimerErased is the kind of the timer that has erased events taken out of a
// session, in the order of the session's events and by its only writer. It is not
// stored.
const TimerErased = "erased"

// dropErased leaves out the events of erased users and sessions, and says from
// which sessions stored ones are to be taken out.
func (s *Stage) dropErased(ctx context.Context, events []arrived, n *counts) ([]arrived, map[trail.Key]bool, error) {
	if s.opts.Erased == nil {
		return events, nil, nil
	}
	erasing := map[trail.Key]bool{}
	for _, e := range events {
		if e.GetTimer().GetKind() == TimerErased {
			if err := s.opts.Erased.Learn(ctx, e.GetTimer().Subject); err != nil {
				return nil, nil, err
			}
			erasing[trail.Key{Project: e.ProjectId, Session: e.SessionId}] = true
		}
	}
	events = slices.DeleteFunc(events, func(e arrived) bool {
		gone := e.GetTimer().GetKind() != TimerErased && s.isErased(e.Event)
		if gone {
			n.erased++
		}
		return gone
	})
	return events, erasing, nil
}

func (s *Stage) isErased(e *eventv1.Event) bool {
	return s.opts.Erased.Is(e.ProjectId, e.SessionId, e.UserId)
}

// takeOut leaves erased events out of a trail. They are in the store for a while
// after they were taken out.
func (s *Stage) takeOut(t *touched) {
	if s.opts.Erased == nil || !s.opts.Erased.Any(t.key.Project) {
		return
	}
	var found bool
	if t.trail, found = t.trail.Without(s.isErased); found {
		t.erase = true
	}
}

// blank withdraws, without content, what the trail no longer gives, and what lost
// its interaction: it quotes that. A signal that waits then is derived again when
// the session goes on.
func blank(t *trail.Trail, rules *derive.Rules) []*signalv1.Signal {
	holds := map[string]bool{}
	for _, sig := range derive.Derive(t.Events(), rules) {
		holds[sig.SignalId] = !sig.Waiting
	}
	var out []*signalv1.Signal
	for _, old := range t.Signals() {
		if holds[old.SignalId] || old.Erased {
			continue
		}
		gone := &signalv1.Signal{
			SignalId: old.SignalId, ProjectId: old.ProjectId, SessionId: old.SessionId, InteractionId: old.InteractionId,
			Kind: old.Kind, Polarity: old.Polarity, Severity: old.Severity,
			OccurredAt: old.OccurredAt, SessionStartedAt: old.SessionStartedAt,
			Revision: old.Revision + 1, Withdrawn: true, Erased: true,
		}
		t.SetSignal(gone)
		out = append(out, gone)
	}
	return out
}
