// Package derivetest makes sessions for tests.
package derivetest

import (
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
)

// Session is a random session of up to thirty events: some interactions, and
// feedback, behaviors and timers about them, some of which are missing.
// Times collide now and then.
func Session(r *rand.Rand, project, id string) []*eventv1.Event {
	start := time.Date(2026, 10, 31, 23, 59, 55, 0, time.UTC) // a month ends in the middle
	interaction := func() string { return fmt.Sprintf("i-%d", r.IntN(6)) }
	var out []*eventv1.Event
	for i := range 1 + r.IntN(30) {
		e := &eventv1.Event{
			EventId: fmt.Sprintf("e-%02d", i), ProjectId: project, SessionId: id, InteractionId: interaction(),
			UserId:     []string{"", "ann"}[r.IntN(2)],
			OccurredAt: timestamppb.New(start.Add(time.Duration(r.IntN(12)) * 900 * time.Millisecond)),
			ReceivedAt: timestamppb.New(start.Add(time.Minute)),
			Source:     "http",
		}
		switch r.IntN(6) {
		case 0, 1:
			e.Type = "interaction"
			e.Payload = &eventv1.Event_Interaction{Interaction: &eventv1.Interaction{
				Query:         []string{"How long may I keep worn shoes?", "How long may I keep shoes?", "That is not what I asked.", "Thanks!", "Where is my order?"}[r.IntN(5)],
				AlternativeTo: alternative(r, e.InteractionId), Output: fmt.Sprintf("Answer %d.", r.IntN(3)), Model: "m", ModelVersion: fmt.Sprint(r.IntN(2)),
			}}
			e.Environment, e.Tags = "test", map[string]string{"n": fmt.Sprint(i)}
		case 2, 3, 4:
			e.Type = "feedback"
			e.Payload = &eventv1.Event_Feedback{Feedback: said(r, e.InteractionId)}
		default:
			e.Type = "behavior"
			kinds := []string{"copied", "regenerated", "stopped", "left", "edited_prompt", "followed_up"}
			e.Payload = &eventv1.Event_Behavior{Behavior: &eventv1.Behavior{Kind: kinds[r.IntN(len(kinds))]}}
			switch r.IntN(4) {
			case 0:
				e.InteractionId = ""
			case 1:
				e.Type = "timer"
				e.Payload = &eventv1.Event_Timer{Timer: &eventv1.Timer{Kind: "session_ended"}}
			case 2:
				e.Type = "timer"
				e.Payload = &eventv1.Event_Timer{Timer: &eventv1.Timer{Kind: "wait_expired", Subject: e.InteractionId}}
			}
		}
		out = append(out, e)
	}
	return out
}

func alternative(r *rand.Rand, to string) string {
	id := fmt.Sprintf("i-%d", r.IntN(12))
	if id == to || id > "i-6" {
		return ""
	}
	return id
}

func said(r *rand.Rand, about string) *eventv1.Feedback {
	f := &eventv1.Feedback{}
	switch r.IntN(9) {
	case 0, 1:
		f.Thumb = "up"
	case 2, 3:
		f.Thumb = "down"
		f.Categories = []string{"wrong_tone"}
	case 4:
		f.Stars = proto.Uint32(1 + uint32(r.IntN(5)))
	case 5:
		f.Edits = []*eventv1.Edit{{Kind: "delete", Start: 0, End: 6 + uint32(r.IntN(8))}}
	case 6:
		f.Retract = true
	case 7:
		f.Comment = fmt.Sprintf("comment %d", r.IntN(100))
	default:
		if f.PreferredInteractionId = fmt.Sprintf("i-%d", r.IntN(4)); f.PreferredInteractionId == about {
			f.PreferredInteractionId = "i-9"
		}
	}
	return f
}
