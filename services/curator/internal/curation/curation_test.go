package curation_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	curationv1 "github.com/honeloop/hone/proto/gen/go/hone/curation/v1"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"
	"github.com/honeloop/hone/services/curator/internal/curation"
)

var now = time.Date(2026, 11, 24, 9, 30, 0, 0, time.UTC)

func decided(project, review, verdict, id string) *curationv1.CurationEvent {
	return &curationv1.CurationEvent{CurationId: id, ProjectId: project, OccurredAt: timestamppb.New(now),
		Payload: &curationv1.CurationEvent_ReviewDecided{ReviewDecided: &curationv1.ReviewDecided{
			ReviewId: review, Verdict: verdict, Reviewer: "ann", DecidedAt: timestamppb.New(now)}}}
}

func TestTheFirstDecisionInTheLogStands(t *testing.T) {
	f := curation.NewFold(10)
	f.Apply(decided("p", "r1", "correct", "c1"))
	f.Apply(decided("p", "r1", "dismiss", "c2"))
	f.Apply(decided("q", "r1", "dismiss", "c3"))

	if d, ok := f.Get("p", "r1"); !ok || d.CurationID != "c1" || d.Verdict != "correct" || d.Reviewer != "ann" || !d.DecidedAt.Equal(now) {
		t.Errorf("p/r1: %+v, %v, want the first decision", d, ok)
	}
	if d, _ := f.Get("q", "r1"); d.CurationID != "c3" {
		t.Errorf("q/r1: %+v, want the project's own decision", d)
	}
	if _, ok := f.Get("p", "r2"); ok {
		t.Error("p/r2 is decided, want not")
	}
}

func TestTheFoldForgetsTheOldest(t *testing.T) {
	f := curation.NewFold(3)
	for i := range 8 {
		f.Apply(decided("p", fmt.Sprint("r", i), "dismiss", fmt.Sprint("c", i)))
	}
	for i := range 8 {
		if _, ok := f.Get("p", fmt.Sprint("r", i)); ok != (i >= 5) {
			t.Errorf("r%d known: %v, want only the newest 3", i, ok)
		}
	}
}

func TestWaitReturnsWhatStandsOnceItIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := curation.NewFold(10)
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				if d, err := f.Wait(t.Context(), "p", "r1"); err != nil || d.CurationID != "c1" {
					t.Errorf("got %+v, %v, want c1", d, err)
				}
			})
		}
		synctest.Wait()
		f.Apply(decided("p", "r1", "approve", "c1"))
		f.Apply(decided("p", "r1", "dismiss", "c2"))
		wg.Wait()
		if d, err := f.Wait(t.Context(), "p", "r1"); err != nil || d.CurationID != "c1" {
			t.Errorf("later: got %+v, %v, want c1", d, err)
		}
	})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := curation.NewFold(10)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := f.Wait(ctx, "p", "r1"); err == nil {
			t.Error("no error, want the deadline's")
		}
		f.Apply(decided("p", "r1", "approve", "c1")) // must not meet the one that left
	})
}

func TestARetriedRequestIsTheSameDecision(t *testing.T) {
	req := &curationv1.DecideReviewRequest{ReviewId: "r1", Verdict: "approve", Note: "n"}
	review := &curationv1.Review{CaseId: "ca", Signal: &signalv1.Signal{SignalId: "sg", Revision: 1,
		Interaction: &eventv1.Interaction{Output: "model's"}}}
	first := curation.NewDecision("p", "ann", req, review, now)
	if got := first.GetReviewDecided(); got.GetAnswer() != "model's" || got.GetSignalId() != "sg" || got.GetCaseId() != "ca" {
		t.Errorf("decision: %v", got)
	}
	review.Signal.Correction = "user's"
	again := curation.NewDecision("p", "ann", req, review, now.Add(time.Hour))
	if got := again.GetReviewDecided().GetAnswer(); got != "user's" {
		t.Errorf("answer: %q, want what the user proposed", got)
	}
	if first.GetCurationId() != again.GetCurationId() {
		t.Error("ids differ between retries")
	}
	for name, other := range map[string]*curationv1.CurationEvent{
		"project":  curation.NewDecision("q", "ann", req, review, now),
		"reviewer": curation.NewDecision("p", "bob", req, review, now),
		"note":     curation.NewDecision("p", "ann", &curationv1.DecideReviewRequest{ReviewId: "r1", Verdict: "approve"}, review, now),
		"verdict":  curation.NewDecision("p", "ann", &curationv1.DecideReviewRequest{ReviewId: "r1", Verdict: "dismiss", Note: "n"}, review, now),
	} {
		if other.GetCurationId() == first.GetCurationId() {
			t.Errorf("another %s gives the same id", name)
		}
	}
}

func TestParseRefusesWhatCannotCount(t *testing.T) {
	tests := map[string]func(*curationv1.CurationEvent){
		"no id":           func(e *curationv1.CurationEvent) { e.CurationId = "" },
		"no project":      func(e *curationv1.CurationEvent) { e.ProjectId = "" },
		"no payload":      func(e *curationv1.CurationEvent) { e.Payload = nil },
		"no review":       func(e *curationv1.CurationEvent) { e.GetReviewDecided().ReviewId = "" },
		"unknown verdict": func(e *curationv1.CurationEvent) { e.GetReviewDecided().Verdict = "maybe" },
		"absurd time":     func(e *curationv1.CurationEvent) { e.GetReviewDecided().DecidedAt.Seconds = 1 << 40 },
	}
	for name, change := range tests {
		t.Run(name, func(t *testing.T) {
			event := decided("p", "r", "approve", "c")
			change(event)
			value, err := proto.Marshal(event)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := curation.Parse(value); err == nil {
				t.Error("no error")
			}
		})
	}
	if _, err := curation.Parse([]byte("\xff\xff")); err == nil {
		t.Error("garbage: no error")
	}
	value, err := proto.Marshal(decided("p", "r", "approve", "c"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := curation.Parse(value); err != nil {
		t.Errorf("a good one: %v", err)
	}
}
