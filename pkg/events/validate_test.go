package events

import (
	"math"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
)

func TestAcceptNamesTheMistake(t *testing.T) {
	interaction := func(payload string) string {
		return `{"type":"interaction","session_id":"s","interaction_id":"i","interaction":` + payload + `}`
	}
	feedback := func(payload string) string {
		return `{"type":"feedback","session_id":"s","interaction_id":"i","feedback":` + payload + `}`
	}
	edit := func(payload string) string { return feedback(`{"edits":[` + payload + `]}`) }
	behavior := func(payload string) string {
		return `{"type":"behavior","session_id":"s","behavior":` + payload + `}`
	}
	long := strings.Repeat("x", 257)
	tests := map[string]struct{ event, field, message string }{
		"nothing":                   {`{}`, "type", `want "interaction"`},
		"unknown type":              {`{"type":"thumbs"}`, "type", `want "interaction"`},
		"timer":                     {`{"type":"timer","session_id":"s","timer":{"kind":"session_ended"}}`, "type", "only Hone itself"},
		"no session":                {`{"type":"behavior","behavior":{"kind":"left"}}`, "session_id", "missing"},
		"space in session":          {`{"type":"behavior","session_id":"a b","behavior":{"kind":"left"}}`, "session_id", "no spaces"},
		"control in session":        {`{"type":"behavior","session_id":"a\u0000","behavior":{"kind":"left"}}`, "session_id", "no control characters"},
		"long session":              {`{"type":"behavior","session_id":"` + long + `","behavior":{"kind":"left"}}`, "session_id", "at most 256 bytes, got 257"},
		"long event id":             {`{"type":"behavior","event_id":"` + long + `","session_id":"s","behavior":{"kind":"left"}}`, "event_id", "at most 256 bytes"},
		"no interaction id":         {`{"type":"feedback","session_id":"s","feedback":{"thumb":"up"}}`, "interaction_id", "missing"},
		"no payload":                {`{"type":"feedback","session_id":"s","interaction_id":"i"}`, "feedback", "so this is needed"},
		"null payload":              {feedback("null"), "feedback", "so this is needed"},
		"other payload":             {`{"type":"feedback","session_id":"s","interaction_id":"i","behavior":{"kind":"left"}}`, "behavior", `only "feedback" may be set`},
		"control in role":           {`{"type":"behavior","session_id":"s","user_role":"a\u0000b","behavior":{"kind":"left"}}`, "user_role", "no control characters"},
		"long tag":                  {`{"type":"behavior","session_id":"s","tags":{"a":"","b":"` + long + `"},"behavior":{"kind":"left"}}`, "tags.b", "at most 256 bytes"},
		"empty tag":                 {`{"type":"behavior","session_id":"s","tags":{"":"x"},"behavior":{"kind":"left"}}`, `tags[""]`, "not empty"},
		"other project":             {`{"type":"behavior","project_id":"q","session_id":"s","behavior":{"kind":"left"}}`, "project_id", "another project"},
		"received":                  {`{"type":"behavior","received_at":"2026-11-24T09:30:00Z","session_id":"s","behavior":{"kind":"left"}}`, "received_at", "leave it out"},
		"source":                    {`{"type":"behavior","source":"http","session_id":"s","behavior":{"kind":"left"}}`, "source", "leave it out"},
		"future":                    {`{"type":"behavior","occurred_at":"2026-11-24T12:05:01Z","session_id":"s","behavior":{"kind":"left"}}`, "occurred_at", "5m1s in the future"},
		"before 1970":               {`{"type":"behavior","occurred_at":"1969-12-31T23:59:59Z","session_id":"s","behavior":{"kind":"left"}}`, "occurred_at", "since 1970"},
		"empty interaction":         {interaction(`{}`), "interaction", "at least a query"},
		"empty passage":             {interaction(`{"query":"q","retrieved":[{"score":1}]}`), "interaction.retrieved[0]", "source or a text"},
		"nameless tool":             {interaction(`{"query":"q","tools":[{"name":"a"},{}]}`), "interaction.tools[1].name", "tool's name"},
		"patch without version":     {interaction(`{"query":"q","applied_patches":["p@1","p"]}`), "interaction.applied_patches[1]", "id@version"},
		"alternative to itself":     {interaction(`{"query":"q","alternative_to":"i"}`), "interaction.alternative_to", "itself"},
		"long text":                 {interaction(`{"output":"` + strings.Repeat("x", 200_001) + `"}`), "interaction.output", "at most 200000 bytes"},
		"large":                     {interaction(`{"query":"` + strings.Repeat("x", 180_000) + `","output":"` + strings.Repeat("x", 180_000) + `"}`), "", "the event has"},
		"empty feedback":            {feedback(`{}`), "feedback", "at least one of thumb"},
		"thumb":                     {feedback(`{"thumb":"sideways"}`), "feedback.thumb", `["up" "down"]`},
		"no star":                   {feedback(`{"stars":0}`), "feedback.stars", "1 to 5"},
		"six stars":                 {feedback(`{"stars":6}`), "feedback.stars", "1 to 5"},
		"score without range":       {feedback(`{"score":1}`), "feedback.min", "needs its range"},
		"score without max":         {feedback(`{"score":1,"min":0}`), "feedback.max", "needs its range"},
		"range without score":       {feedback(`{"min":1}`), "feedback.score", "missing"},
		"turned range":              {feedback(`{"score":1,"min":1,"max":1}`), "feedback.max", "more than min"},
		"endless range":             {feedback(`{"score":1,"min":-1.7e308,"max":1.7e308}`), "feedback.max", "finite width"},
		"score outside":             {feedback(`{"score":1.5,"min":0,"max":1}`), "feedback.score", "want 0 to 1"},
		"blank category":            {feedback(`{"categories":["a"," "]}`), "feedback.categories[1]", "not empty"},
		"retract with more":         {feedback(`{"retract":true,"comment":"x"}`), "feedback.retract", "stands alone"},
		"preferred itself":          {feedback(`{"preferred_interaction_id":"i"}`), "feedback.preferred_interaction_id", "another interaction"},
		"edit kind":                 {edit(`{"kind":"swap","start":0,"end":1}`), "feedback.edits[0].kind", "want one of"},
		"edit without kind":         {edit(`{"start":0,"end":1}`), "feedback.edits[0].kind", "want one of"},
		"empty range":               {edit(`{"kind":"delete","start":1,"end":1}`), "feedback.edits[0].end", "more than start"},
		"quote length":              {edit(`{"kind":"delete","start":0,"end":2,"quote":"é"}`), "feedback.edits[0].quote", "has 1 characters, but the range has 2"},
		"replace with nothing":      {edit(`{"kind":"replace","start":0,"end":1}`), "feedback.edits[0].text", `use "delete"`},
		"delete with text":          {edit(`{"kind":"delete","start":0,"end":1,"text":"x"}`), "feedback.edits[0].text", `only "replace"`},
		"tag without label":         {edit(`{"kind":"tag","start":0,"end":1}`), "feedback.edits[0].tag", "want the label"},
		"highlight with label":      {edit(`{"kind":"highlight","start":0,"end":1,"tag":"x"}`), "feedback.edits[0].tag", `only "tag"`},
		"behavior kind":             {behavior(`{"kind":"danced"}`), "behavior.kind", "want one of"},
		"custom without name":       {behavior(`{"kind":"custom"}`), "behavior.name", "needs a name"},
		"name without custom":       {behavior(`{"kind":"left","name":"x"}`), "behavior.name", `only "custom"`},
		"long property":             {behavior(`{"kind":"left","properties":{"a b":"` + long + `"}}`), `behavior.properties["a b"]`, "at most 256 bytes"},
		"empty property at the end": {behavior(`{"kind":"left","properties":{"a":"x","":"y"}}`), `behavior.properties[""]`, "not empty"},
	}
	d := newDecoder(t)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			req, err := d.Decode([]byte(test.event))
			if err == nil {
				err = req.Errors[0]
			}
			if err != nil {
				t.Fatalf("not decoded: %v", err)
			}
			_, err = Accept(req.Events[0], "p", SourceHTTP, now, DefaultLimits())
			if err == nil {
				t.Fatal("accepted")
			}
			if err.Field != test.field || !strings.Contains(err.Message, test.message) {
				t.Errorf("got %q: %q, want %q: %q", err.Field, err.Message, test.field, test.message)
			}
		})
	}
}

func TestAcceptRefusesWhatOnlyProtobufCanSay(t *testing.T) {
	nan := math.NaN()
	for name, e := range map[string]*eventv1.Event{
		"feedback.score":                 {Type: "feedback", SessionId: "s", InteractionId: "i", Payload: &eventv1.Event_Feedback{Feedback: &eventv1.Feedback{Score: &nan, Min: proto.Float64(0), Max: proto.Float64(1)}}},
		"interaction.retrieved[0].score": {Type: "interaction", SessionId: "s", InteractionId: "i", Payload: &eventv1.Event_Interaction{Interaction: &eventv1.Interaction{Retrieved: []*eventv1.Retrieved{{Text: "x", Score: &nan}}}}},
		"occurred_at":                    {Type: "behavior", SessionId: "s", OccurredAt: &timestamppb.Timestamp{Nanos: -1}, Payload: &eventv1.Event_Behavior{Behavior: &eventv1.Behavior{Kind: "left"}}},
		"feedback":                       {Type: "feedback", SessionId: "s", InteractionId: "i", Payload: &eventv1.Event_Feedback{}},
		"interaction.applied_patches":    {Type: "interaction", SessionId: "s", InteractionId: "i", Payload: &eventv1.Event_Interaction{Interaction: &eventv1.Interaction{AppliedPatches: make([]string, 300)}}},
	} {
		if _, err := Accept(e, "p", SourceGRPC, now, DefaultLimits()); err == nil || err.Field != name {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestTheSameEventGetsTheSameID(t *testing.T) {
	event := func() *eventv1.Event {
		return &eventv1.Event{Type: "behavior", SessionId: "s", Tags: map[string]string{"a": "1", "b": "2", "c": "3"},
			Payload: &eventv1.Event_Behavior{Behavior: &eventv1.Behavior{Kind: "left"}}}
	}
	accept := func(e *eventv1.Event, project, source string, at time.Time) *eventv1.Event {
		t.Helper()
		value, err := Accept(e, project, source, at, DefaultLimits())
		if err != nil {
			t.Fatal(err)
		}
		stored := new(eventv1.Event)
		if err := proto.Unmarshal(value, stored); err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(stored, e) {
			t.Fatalf("the encoding differs from the event: %v, %v", stored, e)
		}
		return e
	}
	first := accept(event(), "p", SourceHTTP, now)
	if first.EventId == "" || first.ProjectId != "p" || first.Source != SourceHTTP || !first.ReceivedAt.AsTime().Equal(now) || !first.OccurredAt.AsTime().Equal(now) {
		t.Fatalf("not completed: %v", first)
	}
	named := event()
	named.ProjectId, named.Source = "p", SourceImport
	for name, again := range map[string]*eventv1.Event{
		"later":              accept(event(), "p", SourceHTTP, now.Add(time.Hour)),
		"another way":        accept(event(), "p", SourceGRPC, now),
		"with what is known": accept(named, "p", SourceHTTP, now),
	} {
		if again.EventId != first.EventId {
			t.Errorf("%s: %s, want %s", name, again.EventId, first.EventId)
		}
	}
	if named.Source != SourceImport {
		t.Errorf("source is %q, want import", named.Source)
	}
	changed := event()
	changed.Tags["a"] = "2"
	if accept(changed, "p", SourceHTTP, now).EventId == first.EventId {
		t.Error("another content has the same id")
	}
	if accept(event(), "q", SourceHTTP, now).EventId == first.EventId {
		t.Error("another project has the same id")
	}
	own := event()
	own.EventId, own.OccurredAt = "mine", timestamppb.New(now.Add(-time.Hour))
	if accept(own, "p", SourceHTTP, now); own.EventId != "mine" || !own.OccurredAt.AsTime().Equal(now.Add(-time.Hour)) {
		t.Errorf("what the emitter said was changed: %v", own)
	}
}

func TestLimitsNameTheirKeys(t *testing.T) {
	if err := DefaultLimits().Validate(); err != nil {
		t.Fatal(err)
	}
	err := Limits{ClockSkew: -1}.Validate()
	for _, key := range []string{"batch", "event_bytes", "id_bytes", "label_bytes", "text_bytes", "items", "clock_skew"} {
		if err == nil || !strings.Contains(err.Error(), key+":") {
			t.Errorf("%v does not name %s", err, key)
		}
	}
}
