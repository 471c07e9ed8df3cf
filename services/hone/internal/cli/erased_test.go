package cli

import (
	"errors"
	"io"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"

	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"
)

type erasedUsers map[string]bool

func (e erasedUsers) Is(project, session, user string) bool {
	return project == "shop" && (e[user] || e[session])
}

func TestRecordsSayWhoseTheyAre(t *testing.T) {
	encoded := func(m proto.Message) []byte {
		value, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return value
	}
	signal := &signalv1.Signal{ProjectId: "shop", SessionId: "s-1", UserId: "u-1"}
	for name, tt := range map[string]struct {
		record stage.Record
		want   string
	}{
		"event":       {stage.Record{Topic: stream.TopicEvents, Value: encoded(&eventv1.Event{ProjectId: "shop", SessionId: "s-1", UserId: "u-1"})}, "u-1"},
		"signal":      {stage.Record{Topic: stream.TopicSignals, Value: encoded(signal)}, "u-1"},
		"case signal": {stage.Record{Topic: stream.TopicCases, Value: encoded(&casesv1.CaseSignal{Signal: signal})}, "u-1"},
		"route": {stage.Record{Topic: stream.TopicRouteProduct,
			Value: []byte(`{"honeproject": "shop", "honesession": "s-1", "data": {"signal": {"user_id": "u-1"}}}`)}, "u-1"},
		"withdrawn route":    {stage.Record{Topic: stream.TopicRouteProduct, Value: []byte(`{"honeproject": "shop", "honesession": "s-1", "data": {}}`)}, ""},
		"what is no event":   {stage.Record{Topic: stream.TopicEvents, Value: []byte{0xff, 0x00, 0xfe}}, ""},
		"event without user": {stage.Record{Topic: stream.TopicEvents, Value: encoded(&eventv1.Event{EventId: "e"})}, ""},
	} {
		tt.record.Key = stream.SessionKey("shop", "s-1")
		if project, session, user := whose(tt.record); project != "shop" || session != "s-1" || user != tt.want {
			t.Errorf("%s: project %q, session %q, user %q; want shop, s-1, %q", name, project, session, user, tt.want)
		}
	}
}

func TestDeadLettersOfErasedPeopleAreLeftOut(t *testing.T) {
	b, _ := withBroker(t)
	for _, of := range []struct{ user, session string }{{"u-1", "s-1"}, {"u-2", "s-1"}, {"u-3", "s-2"}, {"u-4", "s-gone"}} {
		value, err := proto.Marshal(&eventv1.Event{ProjectId: "shop", SessionId: of.session, UserId: of.user})
		if err != nil {
			t.Fatal(err)
		}
		b.Write(t, deadLetter(stream.TopicEvents, stream.SessionKey("shop", of.session), value))
	}
	from := letters{b.Config(), erasedUsers{"u-1": true, "s-gone": true}}
	var seen []int64
	out, err := (&letterFilter{}).scan(t.Context(), from, func(l letter) error {
		seen = append(seen, l.from.Offset)
		return nil
	})
	if err != nil || len(seen) != 2 || out.erased != 2 {
		t.Errorf("saw %v and left out %+v (%v), want two of each", seen, out, err)
	}
	if out, err = (&letterFilter{session: "s-2"}).scan(t.Context(), from, func(letter) error { return nil }); err != nil || out.erased != 0 {
		t.Errorf("left out %+v (%v) of a session where nobody was erased", out, err)
	}

	r := &replay{of: from, only: map[int64]bool{}, progress: io.Discard}
	if err := errors.Join(r.choose(t.Context()), r.publish(t.Context())); err != nil {
		t.Fatal(err)
	}
	if n := len(b.All(t, stream.TopicEvents)); n != 2 || r.result.Replayed != 2 || r.result.Erased != 2 {
		t.Errorf("%d events were published again, and the result is %+v; want two, and two left out", n, r.result)
	}
}

// deadLetter is one of the enricher.
func deadLetter(topic string, key, value []byte) stage.Record {
	letter := stage.Record{Topic: stream.TopicDeadLetter, Key: key, Value: value}
	for _, h := range [][2]string{{"hone-topic", topic}, {"hone-partition", "0"}, {"hone-offset", "1"}, {"hone-stage", "enricher"},
		{"hone-attempts", "1"}, {"hone-cause", "c"}, {"hone-failed-at", "2026-01-31T09:00:00Z"}} {
		letter.Headers = append(letter.Headers, stage.Header{Key: h[0], Value: []byte(h[1])})
	}
	return letter
}
