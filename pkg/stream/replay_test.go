package stream_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/stream/streamtest"
)

func TestScanEndsWhereTheTopicEnded(t *testing.T) {
	b := streamtest.StartBroker(t)
	for i := range 20 {
		b.Write(t, event(fmt.Sprint("k", i%5), i))
	}
	var got []string
	grown := false
	err := stream.Scan(t.Context(), b.Config(), stream.TopicEvents, stream.ScanFrom{}, func(_ context.Context, r stage.Record) error {
		if !grown {
			grown = true
			b.Write(t, event("k0", 100), event("k1", 101), event("k2", 102))
		}
		got = append(got, string(r.Value))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 20 || slices.Contains(got, "k0-100") {
		t.Errorf("read %d records, want the 20 that were there: %v", len(got), got)
	}

	time.Sleep(5 * time.Millisecond) // records know their time in milliseconds
	at := time.Now()
	time.Sleep(5 * time.Millisecond)
	b.Write(t, event("k3", 200))
	got = nil
	err = stream.Scan(t.Context(), b.Config(), stream.TopicEvents, stream.ScanFrom{Since: at}, func(_ context.Context, r stage.Record) error {
		got = append(got, string(r.Value))
		return nil
	})
	if err != nil || !slices.Equal(got, []string{"k3-200"}) {
		t.Errorf("since the last: %v, %v", got, err)
	}

	want := errors.New("enough")
	err = stream.Scan(t.Context(), b.Config(), stream.TopicEvents, stream.ScanFrom{}, func(context.Context, stage.Record) error { return want })
	if !errors.Is(err, want) {
		t.Errorf("error of the callback: %v", err)
	}
	n := 0
	err = stream.Scan(t.Context(), b.Config(), stream.TopicEvents, stream.ScanFrom{Offsets: map[int]int64{1: 2}}, func(_ context.Context, r stage.Record) error {
		n++
		if r.Partition != 1 || r.Offset < 2 {
			t.Errorf("read %d@%d", r.Partition, r.Offset)
		}
		return nil
	})
	if err != nil || n == 0 {
		t.Errorf("one partition: %d records, %v", n, err)
	}
}

func TestDeadLetterReplaysAsItWas(t *testing.T) {
	letter := stream.DeadLetter{Record: stage.Record{
		Topic: stream.TopicEvents, Partition: 2, Offset: 9, Key: []byte("p/s"), Value: []byte{0, 1, 0xff},
		Headers: []stage.Header{{Key: "traceparent", Value: []byte("00-1")}, {Key: stream.HeaderReplayOf, Value: []byte("old")}, {Key: "x", Value: nil}},
	}}
	got, err := letter.Replay(stage.Record{Topic: stream.TopicDeadLetter, Partition: 0, Offset: 17})
	if err != nil {
		t.Fatal(err)
	}
	want := "{hone.events 0 0 p/s [0 1 255] [traceparent=00-1 x= hone-replay-of=hone.dead-letter/0/17]}"
	var headers []string
	for _, h := range got.Headers {
		headers = append(headers, h.Key+"="+string(h.Value))
	}
	if s := fmt.Sprintf("{%s %d %d %s %v %v}", got.Topic, got.Partition, got.Offset, got.Key, got.Value, headers); s != want {
		t.Errorf("replays as\n%s, want\n%s", s, want)
	}
	for _, topic := range []string{"", "other", stream.TopicDeadLetter} {
		letter.Record.Topic = topic
		if _, err := letter.Replay(stage.Record{}); err == nil {
			t.Errorf("topic %q: no error", topic)
		}
	}
}

// seen is a stage that keeps what it was given.
type seen struct {
	gate chan struct{} // nil lets everything through

	mu   sync.Mutex
	recs []stage.Record
}

func (s *seen) Process(_ context.Context, in []stage.Record) ([]stage.Record, error) {
	if s.gate != nil {
		<-s.gate
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recs = append(s.recs, in...)
	return nil, nil
}

func (s *seen) count(value string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for _, r := range s.recs {
		if string(r.Value) == value {
			n++
		}
	}
	return n
}

func (s *seen) len() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.recs)
}

func TestRewindAWorkingGroup(t *testing.T) {
	b := streamtest.StartBroker(t)
	cfg := runnerConfig(stream.TopicEvents)
	if _, err := stream.PlanRewind(t.Context(), b.Config(), cfg.Group, stream.RewindFrom{Partition: -1}); err == nil || !strings.Contains(err.Error(), "not read anything") {
		t.Errorf("plan for a group that never was: %v", err)
	}
	st := &seen{}
	startRunner(t, cfg, b.Config(), st)
	for i := range 30 {
		b.Write(t, event(fmt.Sprint("k", i%7), i))
	}
	eventually(t, "everything is read", func() bool { return st.len() == 30 })
	at := time.Now()
	time.Sleep(5 * time.Millisecond)
	b.Write(t, event("k1", 98), event("k2", 99))
	eventually(t, "everything is committed", func() bool {
		offsets, err := stream.Committed(t.Context(), b.Config(), cfg.Group)
		if err != nil {
			t.Fatal(err)
		}
		n := int64(0)
		for _, o := range offsets[stream.TopicEvents] {
			n += o
		}
		return n == 32
	})

	plan, err := stream.PlanRewind(t.Context(), b.Config(), cfg.Group, stream.RewindFrom{Time: at, Partition: -1})
	if err != nil {
		t.Fatal(err)
	}
	if n := records(plan); n != 2 {
		t.Fatalf("plan since a time: %+v, want 2 records", plan)
	}
	if members, err := stream.Rewind(t.Context(), b.Config(), cfg.Group, plan); err != nil || members != 1 {
		t.Fatal(members, err)
	}
	eventually(t, "the two are read again", func() bool { return st.count("k1-98") == 2 && st.count("k2-99") == 2 })

	if plan, err = stream.PlanRewind(t.Context(), b.Config(), cfg.Group, stream.RewindFrom{Partition: -1}); err != nil {
		t.Fatal(err)
	}
	if n := records(plan); n != 32 {
		t.Fatalf("plan from the beginning: %+v, want 32 records", plan)
	}
	if members, err := stream.Rewind(t.Context(), b.Config(), cfg.Group, plan); err != nil || members != 1 {
		t.Fatal(members, err)
	}
	eventually(t, "all is read again", func() bool { return st.count("k0-0") == 2 && st.count("k1-98") == 3 })
	b.Write(t, event("k1", 300))
	eventually(t, "the runner goes on", func() bool { return st.count("k1-300") == 1 })

	plan, err = stream.PlanRewind(t.Context(), b.Config(), cfg.Group, stream.RewindFrom{Offset: 1 << 40, Partition: -1})
	if err != nil || len(plan) != 0 {
		t.Errorf("plan beyond the end: %+v, %v; a rewind must not skip", plan, err)
	}
	plan, err = stream.PlanRewind(t.Context(), b.Config(), cfg.Group, stream.RewindFrom{Topic: stream.TopicSignals, Partition: -1})
	if err != nil || len(plan) != 0 {
		t.Errorf("plan of another topic: %+v, %v", plan, err)
	}
}

func records(plan []stream.Position) (n int64) {
	for _, p := range plan {
		n += p.End - p.To
	}
	return n
}

// groupAt is the sum of what a group has committed of hone.events.
func groupAt(t *testing.T, kafka stream.Config, group string) (n int64) {
	t.Helper()
	offsets, err := stream.Committed(t.Context(), kafka, group)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range offsets[stream.TopicEvents] {
		n += o
	}
	return n
}

func TestARewindEndsWhereItIsToldTo(t *testing.T) {
	b := streamtest.StartBroker(t)
	cfg := runnerConfig(stream.TopicEvents)
	st := &seen{gate: make(chan struct{}, 1<<20)}
	for range 30 {
		st.gate <- struct{}{} // the first reading takes so many batches at most
	}
	startRunner(t, cfg, b.Config(), st)
	var at time.Time
	for i := range 30 {
		if i == 20 {
			time.Sleep(5 * time.Millisecond)
			at = time.Now()
		}
		b.Write(t, event("k", i)) // one partition
	}
	eventually(t, "everything is committed", func() bool { return groupAt(t, b.Config(), cfg.Group) == 30 })
	for len(st.gate) > 0 {
		<-st.gate
	}

	for _, from := range []stream.RewindFrom{{Offset: 15, EndOffset: 20, Partition: -1}, {Offset: 15, EndTime: at, Partition: -1}} {
		plan, err := stream.PlanRewind(t.Context(), b.Config(), cfg.Group, from)
		if err != nil || len(plan) != 1 || plan[0].To != 15 || plan[0].End != 20 || plan[0].Committed != 30 {
			t.Errorf("plan of %+v: %+v, %v", from, plan, err)
		}
	}
	for _, from := range []stream.RewindFrom{{Offset: 20, EndOffset: 20, Partition: -1}, {Time: at, EndTime: at, Partition: -1}} {
		if plan, err := stream.PlanRewind(t.Context(), b.Config(), cfg.Group, from); err != nil || len(plan) != 0 {
			t.Errorf("plan of nothing: %+v, %v", plan, err)
		}
	}
	if n, err := stream.Members(t.Context(), b.Config(), cfg.Group); err != nil || n != 1 {
		t.Errorf("%d members, %v", n, err)
	}

	plan, err := stream.PlanRewind(t.Context(), b.Config(), cfg.Group, stream.RewindFrom{EndOffset: 1, Partition: -1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Rewind(t.Context(), b.Config(), cfg.Group, plan); err != nil {
		t.Fatal(err)
	}
	if n := groupAt(t, b.Config(), cfg.Group); n != 0 {
		t.Fatalf("at %d after the rewind", n)
	}
	if err := stream.Resume(t.Context(), b.Config(), cfg.Group, plan); err != nil {
		t.Fatal(err)
	}
	if n := groupAt(t, b.Config(), cfg.Group); n != 30 {
		t.Errorf("at %d after resuming, want 30", n)
	}
	close(st.gate)
	b.Write(t, event("k", 30))
	eventually(t, "the runner goes on", func() bool { return groupAt(t, b.Config(), cfg.Group) == 31 && st.count("k-30") > 0 })
	if err := stream.Resume(t.Context(), b.Config(), cfg.Group, plan); err != nil {
		t.Fatal(err)
	}
	if n := groupAt(t, b.Config(), cfg.Group); n != 31 {
		t.Errorf("resuming again set it back to %d", n)
	}
}
