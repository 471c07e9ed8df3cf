// Package shop is a small shop's assistant with scripted faults, its customers,
// and all the code that an application needs to use Hone.
package shop

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"
)

// Options of a simulation.
type Options struct {
	Sessions int
	Seed     uint64
	End      time.Time          // sessions are spread over the 14 days before
	Progress func(sessions int) // called after each session sent
}

// Summary says what was sent.
type Summary struct {
	Sessions     int
	Interactions int
	Feedback     int
	Behaviors    int
}

const (
	days      = 14
	batchSize = 20 // sessions in a request
)

// Simulate sends the sessions of customers who ask, and react as people do:
// most say nothing, some rate, a few explain or correct.
func Simulate(ctx context.Context, hone Hone, o Options) (Summary, error) {
	random := rand.New(rand.NewPCG(o.Seed, 1))
	var sum Summary
	var batch []Event
	for i := range o.Sessions {
		start := o.End.Add(-days * 24 * time.Hour * time.Duration(o.Sessions-i) / time.Duration(o.Sessions))
		batch = append(batch, session(random, i, start, &sum)...)
		if (i+1)%batchSize == 0 || i+1 == o.Sessions {
			if err := hone.Send(ctx, batch); err != nil {
				return sum, fmt.Errorf("send sessions: %w", err)
			}
			batch = batch[:0]
			if o.Progress != nil {
				o.Progress(i + 1)
			}
		}
	}
	return sum, nil
}

func session(random *rand.Rand, n int, at time.Time, sum *Summary) []Event {
	all := topics()
	sum.Sessions++
	id := fmt.Sprintf("shop-%04d", n)
	release, prompt := "2026-09-01", "v13"
	if n%2 == 1 {
		release, prompt = "2026-10-01", "v14"
	}
	var events []Event
	add := func(kind, interaction string, e Event) {
		e.ID = fmt.Sprintf("%s-%d", id, len(events))
		e.Type, e.SessionID, e.InteractionID = kind, id, interaction
		e.UserID = fmt.Sprintf("customer-%d", n%120)
		e.UserRole = "customer"
		if n%10 == 0 {
			e.UserRole = "shop assistant"
		}
		e.Environment = "production"
		e.Tags = map[string]string{"channel": []string{"web", "app"}[n%2]}
		e.OccurredAt = at.UTC().Truncate(time.Millisecond)
		events = append(events, e)
		at = at.Add(time.Duration(5+random.IntN(40)) * time.Second)
	}
	for turn := range 1 + random.IntN(3) {
		t := all[random.IntN(len(all))]
		interaction := fmt.Sprintf("%s-turn-%d", id, turn+1)
		question := t.questions[random.IntN(len(t.questions))]
		call := &Interaction{Query: question, SystemContext: systemContext, Output: t.answer, Model: "larkfield-chat", ModelVersion: release,
			PromptVersion: prompt, LatencyMS: 400 + random.IntN(900), InputTokens: 60 + len(question)/4, OutputTokens: len(t.answer) / 4}
		if t.source != "" {
			call.Retrieved = []Retrieved{{Source: "faq", Text: t.source}}
		}
		add("interaction", interaction, Event{Interaction: call})
		sum.Interactions++

		switch chance := random.Float64(); {
		case t.fault != nil && chance < 0.45:
			f := &Feedback{Thumb: "down"}
			if random.Float64() < 0.85 {
				f.Categories = []string{t.fault.category}
			}
			if random.Float64() < 0.6 {
				f.Comment = t.fault.comments[random.IntN(len(t.fault.comments))]
			}
			if t.fault.truth != "" && random.Float64() < 0.25 {
				f.Correction = t.fault.truth
			}
			add("feedback", interaction, Event{Feedback: f})
			sum.Feedback++
		case t.fault != nil && chance < 0.60:
			add("behavior", interaction, Event{Behavior: &Behavior{Kind: []string{"regenerated", "stopped", "left"}[random.IntN(3)]}})
			sum.Behaviors++
			return events
		case t.fault == nil && chance < 0.30:
			add("feedback", interaction, Event{Feedback: &Feedback{Thumb: "up", Comment: t.thanks[random.IntN(len(t.thanks))]}})
			sum.Feedback++
		case t.fault == nil && chance < 0.45:
			add("behavior", interaction, Event{Behavior: &Behavior{Kind: "copied", Text: t.answer}})
			sum.Behaviors++
		}
	}
	return events
}
