package embedder

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	curationv1 "github.com/honeloop/hone/proto/gen/go/hone/curation/v1"

	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
)

// decided is a decision on a review of the case that s1 founded, at a minute.
func decided(review, verdict, answer string, minute int, change ...func(*curationv1.ReviewDecided)) *curationv1.CurationEvent {
	at := timestamppb.New(start.Add(time.Duration(minute) * time.Minute))
	d := &curationv1.ReviewDecided{
		ReviewId: review, SignalId: "s1", CaseId: founded("s1"), Verdict: verdict, Answer: answer, Reviewer: "ann", DecidedAt: at,
	}
	for _, c := range change {
		c(d)
	}
	return &curationv1.CurationEvent{
		CurationId: fmt.Sprint("ce-", review, verdict, minute), ProjectId: "p", OccurredAt: at,
		Payload: &curationv1.CurationEvent_ReviewDecided{ReviewDecided: d},
	}
}

func eventRecord(t *testing.T, e *curationv1.CurationEvent) stage.Record {
	t.Helper()
	value, err := proto.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return stage.Record{Topic: stream.TopicCuration, Key: []byte(e.GetProjectId()), Value: value}
}

func (h *harness) decide(events ...*curationv1.CurationEvent) []*casesv1.CaseSignal {
	h.t.Helper()
	var in []stage.Record
	for _, e := range events {
		in = append(in, eventRecord(h.t, e))
	}
	out, err := h.curation.Process(context.Background(), in)
	if err != nil {
		h.t.Fatal(err)
	}
	return decodeOut(h.t, out)
}

func TestAnswers(t *testing.T) {
	tests := []struct {
		name   string
		events []*curationv1.CurationEvent
		want   string // the case's state and answer
		out    int
	}{
		{"approve", []*curationv1.CurationEvent{decided("r1", "approve", "yes", 1)}, "solved yes", 1},
		{"dismiss", []*curationv1.CurationEvent{decided("r1", "dismiss", "", 1)}, "new ", 0},
		{"the first word on a review counts", []*curationv1.CurationEvent{decided("r1", "correct", "yes", 1), decided("r1", "correct", "no", 2)}, "solved yes", 1},
		{"a dismissal is a first word", []*curationv1.CurationEvent{decided("r1", "dismiss", "", 1), decided("r1", "approve", "no", 2)}, "new ", 0},
		{"and so is one that another review replaced", []*curationv1.CurationEvent{decided("r1", "correct", "a", 1), decided("r2", "correct", "b", 2), decided("r1", "correct", "c", 3)}, "solved b", 2},
		{"the latest review counts", []*curationv1.CurationEvent{decided("r1", "correct", "a", 5), decided("r2", "correct", "b", 2)}, "solved a", 1},
		{"an unknown case is passed over", []*curationv1.CurationEvent{decided("r1", "approve", "yes", 1, func(d *curationv1.ReviewDecided) { d.CaseId = "cs_none" })}, "new ", 0},
		{"a signal without a case too", []*curationv1.CurationEvent{decided("r1", "approve", "yes", 1, func(d *curationv1.ReviewDecided) { d.CaseId = "" })}, "new ", 0},
		{"what is not a decision too", []*curationv1.CurationEvent{{CurationId: "x", ProjectId: "p"}}, "new ", 0},
	}
	for _, tt := range tests {
		for _, size := range []int{len(tt.events), 1} {
			t.Run(fmt.Sprintf("%s, %d at once", tt.name, size), func(t *testing.T) {
				h := newHarness(t)
				h.send(signal("s1", negative, "0"))
				var out []*casesv1.CaseSignal
				for batch := range slices.Chunk(tt.events, size) {
					out = append(out, h.decide(batch...)...)
				}
				c := h.stored(founded("s1"))
				if got := c.GetState() + " " + c.GetApprovedAnswer(); got != tt.want || len(out) != tt.out {
					t.Errorf("got %q and %d outputs, want %q and %d", got, len(out), tt.want, tt.out)
				}
				if len(out) > 0 && (out[len(out)-1].GetSignal() != nil || !proto.Equal(out[len(out)-1].GetCase(), c)) {
					t.Errorf("out = %v, stored %v", out, c)
				}
				before := h.index.Snapshot()
				h.restart()
				h.decide(tt.events...)
				if !maps.Equal(before, h.index.Snapshot()) {
					t.Error("redelivery changed the store")
				}
			})
		}
	}
}

func TestAnAnswerOutlivesItsSignals(t *testing.T) {
	h := newHarness(t)
	one := signal("s1", negative, "0")
	h.send(one)
	h.decide(decided("r1", "correct", "yes", 5, func(d *curationv1.ReviewDecided) { d.Clarification = "shoes" }))

	out := h.send(signal("s2", negative, "10"))
	c := out[0].GetCase()
	if c.GetState() != stateSolved || c.GetApprovedAnswer() != "yes" || c.GetClarification() != "shoes" || c.GetApprovedBy() != "ann" ||
		c.GetReviewId() != "r1" || !c.GetApprovedAt().AsTime().Equal(start.Add(5*time.Minute)) || c.GetNegatives() != 2 || c.GetVersion() != 3 {
		t.Errorf("case = %v", c)
	}
	h.send(revised(one, withdrawn), revised(signal("s2", negative, "10"), withdrawn))
	if c := h.stored(founded("s1")); c.GetState() != stateWithdrawn {
		t.Errorf("case = %v", c)
	}
	h.send(revised(revised(one)))
	if c := h.stored(founded("s1")); c.GetState() != stateSolved || c.GetApprovedAnswer() != "yes" {
		t.Errorf("case = %v", c)
	}
}

func TestACrashOfCurationIsMadeGood(t *testing.T) {
	events := []*curationv1.CurationEvent{
		decided("r1", "correct", "a", 1), decided("r2", "dismiss", "", 2), decided("r1", "correct", "b", 3), decided("r3", "approve", "c", 4),
	}
	clean := newHarness(t)
	clean.send(signal("s1", negative, "0"))
	clean.decide(events...)
	want := clean.stored(founded("s1"))
	for call := 1; ; call++ {
		h := newHarness(t)
		h.send(signal("s1", negative, "0"))
		n := 0
		h.index.Before = func(string, string) error {
			if n++; n == call {
				return errDown
			}
			return nil
		}
		var in []stage.Record
		for _, e := range events {
			in = append(in, eventRecord(t, e))
		}
		_, err := h.curation.Process(context.Background(), in)
		if err == nil {
			break
		}
		if !errors.Is(err, errDown) {
			t.Fatal(err)
		}
		h.restart()
		h.decide(events...)
		if got := h.stored(founded("s1")); !proto.Equal(got, want) {
			t.Errorf("after a crash at call %d: %v\nwant %v", call, got, want)
		}
	}
}

func TestWhatCannotBeADecisionIsNamed(t *testing.T) {
	h := newHarness(t)
	in := []stage.Record{
		{Value: []byte{0xff}},
		eventRecord(t, decided("r1", "maybe", "yes", 1)),
		eventRecord(t, decided("", "approve", "yes", 1)),
		eventRecord(t, decided("r1", "approve", "", 1)),
		eventRecord(t, &curationv1.CurationEvent{}),
		eventRecord(t, decided("r1", "dismiss", "", 1)),
	}
	_, err := h.curation.Process(context.Background(), in)
	if failed, ok := stage.AsBatchError(err); !ok || !slices.Equal(failed.Indexes(), []int{0, 1, 2, 3, 4}) {
		t.Errorf("err = %v", err)
	}
}
