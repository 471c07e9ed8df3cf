package events

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/honeloop/hone/pkg/jsonpb"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
)

var now = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

func newDecoder(t testing.TB) *Decoder {
	t.Helper()
	d, err := NewDecoder(DefaultLimits())
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// sample has a field of every kind.
const sample = `{"events": [
 {"type": "interaction", "event_id": "01J", "session_id": "s-1", "interaction_id": "i-1", "user_id": "u-7",
  "occurred_at": "2026-11-24T09:30:00.25+01:00", "user_role": "customer", "environment": "production", "tags": {"plan": "pro", "a b": ""},
  "interaction": {"query": "Can I return \"worn\" sh\u00f6es? \ud83d\ude00", "system_context": "You are …", "output": "Yes, within 60 days.",
   "retrieved": [{"source": "faq/12", "text": "…", "score": 0.5}], "tools": [{"name": "search", "arguments": "{}", "latency_ms": 3}],
   "model": "m-large", "model_version": "2026-10-01", "prompt_version": "v14", "applied_patches": ["p-3f2a@2"],
   "latency_ms": 840, "input_tokens": 310.0, "output_tokens": 1.2e1, "finish_reason": null, "parameters": {"temperature": "0.2"}}},
 {"type": "feedback", "session_id": "s-1", "interaction_id": "i-1",
  "feedback": {"thumb": "down", "stars": 2, "score": 0.3, "min": -1, "max": 1, "categories": ["factually_incorrect"], "comment": "The policy changed in May.",
   "correction": "Only unworn shoes, within 30 days.",
   "edits": [{"kind": "replace", "start": 12, "end": 19, "quote": "60 days", "text": "30 days"}]}},
 {"type": "feedback", "session_id": "s-1", "interaction_id": "i-1", "feedback": {"retract": true}},
 {"type": "behavior", "session_id": "s-1", "interaction_id": "i-1", "behavior": {"kind": "custom", "name": "opened", "properties": {"page": "3"}}}
]}`

func TestDecodeReadsWhatProtoJSONReads(t *testing.T) {
	req, ferr := newDecoder(t).Decode([]byte(sample))
	if ferr != nil {
		t.Fatal(ferr)
	}
	if !req.Batch || len(req.Events) != 4 {
		t.Fatalf("batch %v with %d events, want a batch of 4", req.Batch, len(req.Events))
	}
	for i, e := range req.Events {
		if req.Errors[i] != nil {
			t.Fatalf("event %d: %v", i, req.Errors[i])
		}
		if err := Validate(e, now, DefaultLimits()); err != nil {
			t.Errorf("event %d: %v", i, err)
		}
		encoded, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		again, ferr := newDecoder(t).Decode(encoded)
		if ferr != nil || again.Errors[0] != nil {
			t.Fatalf("event %d: own JSON is refused: %v %v", i, ferr, again.Errors[0])
		}
		if !proto.Equal(again.Events[0], e) {
			t.Errorf("event %d changed on the way through JSON:\n%v\n%v", i, e, again.Events[0])
		}
	}
	x := req.Events[0].GetInteraction()
	if x.Query != `Can I return "worn" shöes? 😀` || x.InputTokens != 310 || x.OutputTokens != 12 {
		t.Errorf("read wrongly: %v", x)
	}
	if got := req.Events[0].OccurredAt.AsTime(); !got.Equal(time.Date(2026, 11, 24, 8, 30, 0, 250e6, time.UTC)) {
		t.Errorf("occurred_at is %v", got)
	}
}

func TestDecodeNamesTheMistake(t *testing.T) {
	event := func(rest string) string {
		return `{"type":"feedback","session_id":"s","interaction_id":"i",` + rest + `}`
	}
	long := strings.Repeat("x", 100)
	tests := map[string]struct {
		body, field, message string
		reason               jsonpb.Reason
	}{
		"empty":                   {"", "", "the body is empty", jsonpb.BrokenJSON},
		"only space":              {"  \n", "", "ends too early", jsonpb.BrokenJSON},
		"a word":                  {"hello", "", "broken JSON", jsonpb.BrokenJSON},
		"a list":                  {`[{}]`, "", "want one event as an object", jsonpb.WrongType},
		"a string":                {`"x"`, "", "want one event as an object", jsonpb.WrongType},
		"null":                    {`null`, "", "want one event as an object", jsonpb.WrongType},
		"two objects":             {event(`"feedback":{"thumb":"up"}`) + "{}", "", "something follows", jsonpb.BrokenJSON},
		"rubbish behind":          {event(`"feedback":{"thumb":"up"}`) + "}", "", "broken JSON", jsonpb.BrokenJSON},
		"no events":               {`{"events":[]}`, "events", "at least one", Missing},
		"events no list":          {`{"events":{}}`, "events", "want a list", jsonpb.WrongType},
		"beside events":           {`{"events":[{}],"key":1}`, "key", "nothing may stand beside", jsonpb.UnknownField},
		"event no object":         {`{"events":[5]}`, "events[0]", "want an object, got a number", jsonpb.WrongType},
		"truncated in batch":      {`{"events":[{},{"feedback":{"edits":[{},{"start":1`, "events[1].feedback.edits[1]", "ends too early", jsonpb.BrokenJSON},
		"misspelled":              {event(`"sesion_id":"s"`), "sesion_id", `did you mean "session_id"?`, jsonpb.UnknownField},
		"camel case":              {event(`"userRole":"s"`), "userRole", `did you mean "user_role"?`, jsonpb.UnknownField},
		"British":                 {event(`"behaviour":{}`), "behaviour", `did you mean "behavior"?`, jsonpb.UnknownField},
		"one level up":            {event(`"thumb":"up"`), "thumb", `did you mean "feedback.thumb"?`, jsonpb.UnknownField},
		"unlike anything":         {event(`"zzzzzzzzzz":1`), "zzzzzzzzzz", "there is no such field", jsonpb.UnknownField},
		"long name":               {event(`"` + long + `":1`), `["` + long[:64] + `…"]`, "there is no such field", jsonpb.UnknownField},
		"odd name":                {event(`"a.b":1`), `["a.b"]`, "there is no such field", jsonpb.UnknownField},
		"twice":                   {event(`"type":"x"`), "type", "twice", jsonpb.Duplicate},
		"two payloads":            {event(`"feedback":{},"behavior":{}`), "behavior", `only one of this and "feedback"`, jsonpb.Duplicate},
		"number for string":       {event(`"user_id":5`), "user_id", "want a string, got a number", jsonpb.WrongType},
		"string for number":       {event(`"feedback":{"stars":"5"}`), "feedback.stars", "want a whole number of at least 0, got a string", jsonpb.WrongType},
		"fraction":                {event(`"feedback":{"edits":[{"start":1.5}]}`), "feedback.edits[0].start", "want a whole number from 0 to 4294967295", jsonpb.OutOfRange},
		"negative":                {event(`"feedback":{"edits":[{},{"end":-1}]}`), "feedback.edits[1].end", "want a whole number", jsonpb.OutOfRange},
		"huge whole":              {event(`"feedback":{"stars":1e300}`), "feedback.stars", "want a whole number", jsonpb.OutOfRange},
		"huge":                    {event(`"feedback":{"score":1e400}`), "feedback.score", "fits 64 bits", jsonpb.OutOfRange},
		"object for bool":         {event(`"feedback":{"retract":{}}`), "feedback.retract", "want true or false, got an object", jsonpb.WrongType},
		"string for list":         {event(`"feedback":{"categories":"x"}`), "feedback.categories", "want a list, got a string", jsonpb.WrongType},
		"null in list":            {event(`"feedback":{"categories":["a",null]}`), "feedback.categories[1]", "want a string, got null", jsonpb.WrongType},
		"number in tags":          {event(`"tags":{"a":"b","plan":5}`), "tags.plan", "want a string, got a number", jsonpb.WrongType},
		"tag twice":               {event(`"tags":{"a.b":"b","a.b":"c"}`), `tags["a.b"]`, "twice", jsonpb.Duplicate},
		"list for tags":           {event(`"tags":[]`), `tags`, "want an object, got a list", jsonpb.WrongType},
		"bad time":                {event(`"occurred_at":"yesterday"`), "occurred_at", "RFC 3339", jsonpb.OutOfRange},
		"time without zone":       {event(`"occurred_at":"2026-11-24T09:30:00"`), "occurred_at", "RFC 3339", jsonpb.OutOfRange},
		"number for time":         {event(`"occurred_at":1732440000`), "occurred_at", "want a time such as", jsonpb.WrongType},
		"bad UTF-8":               {event("\"user_id\":\"a\xffb\""), "user_id", "UTF-8", jsonpb.BrokenJSON},
		"half a surrogate":        {event(`"user_id":"\ud800"`), "user_id", "surrogate", jsonpb.BrokenJSON},
		"control character":       {event("\"user_id\":\"a\nb\""), "user_id", "broken JSON", jsonpb.BrokenJSON},
		"broken in unknown field": {event(`"zzzzzzzzzzzz":[1,}`), "", "broken JSON", jsonpb.BrokenJSON},
		"NaN":                     {event(`"feedback":{"score":NaN}`), "feedback.score", "broken JSON", jsonpb.BrokenJSON},
		"deep":                    {event(`"zzzzzzzzzzzz":` + strings.Repeat("[", 20000)), "", "broken JSON", jsonpb.BrokenJSON},
		"many categories":         {event(`"feedback":{"categories":[` + strings.Repeat(`"",`, 300) + `""]}`), "feedback.categories", "at most 256 elements", jsonpb.TooMany},
		"many events":             {`{"events":[` + strings.Repeat(`{},`, 1000) + `{}]}`, "events", "at most 1000 events", jsonpb.TooMany},
	}
	d := newDecoder(t)
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			req, err := d.Decode([]byte(test.body))
			if err == nil {
				for i, e := range req.Errors {
					if e != nil {
						err = req.Path(i, e)
					}
				}
			}
			if err == nil {
				t.Fatal("accepted")
			}
			if err.Field != test.field || !strings.Contains(err.Message, test.message) || err.Reason != test.reason {
				t.Errorf("got %q: %q (%s), want %q: %q (%s)", err.Field, err.Message, err.Reason, test.field, test.message, test.reason)
			}
		})
	}
}

func TestDecodeKeepsGoodEventsBesideBadOnes(t *testing.T) {
	body := `{"events":[{"type":"x","oops":[{"a":[1,2]},3]},{"session_id":"good"},7,{"feedback":{"edits":[{"start":"x","end":3}]}},{"session_id":"also"}]}`
	req, err := newDecoder(t).Decode([]byte(body))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for i, e := range req.Events {
		if req.Errors[i] != nil {
			got = append(got, req.Path(i, req.Errors[i]).Field)
			continue
		}
		got = append(got, e.SessionId)
	}
	want := "[events[0].oops good events[2] events[3].feedback.edits[0].start also]"
	if fmt.Sprint(got) != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

// FuzzDecodeEvent: what is accepted survives its own JSON, and nothing panics.
func FuzzDecodeEvent(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte(`{"type":"feedback","session_id":"s","interaction_id":"i","feedback":{"stars":5}}`))
	f.Add([]byte(`{"events":[{"tags":{"a":"\ud800"}},null,{"x":[[[]]]}]}`))
	d := newDecoder(f)
	f.Fuzz(func(t *testing.T, data []byte) {
		original := bytes.Clone(data)
		req, ferr := d.Decode(data)
		if !bytes.Equal(original, data) {
			t.Fatal("the input was changed")
		}
		if ferr != nil {
			if ferr.Message == "" || ferr.Reason == "" {
				t.Fatalf("an error without a message or a reason: %#v", ferr)
			}
			return
		}
		for i, e := range req.Events {
			if req.Errors[i] != nil {
				continue
			}
			if _, ferr := Accept(proto.CloneOf(e), "p", SourceHTTP, now, DefaultLimits()); ferr != nil {
				continue
			}
			encoded, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(e)
			if err != nil {
				t.Fatal(err)
			}
			again, ferr := d.Decode(encoded)
			if ferr != nil || again.Errors[0] != nil {
				t.Fatalf("own JSON is refused: %v %v\n%s", ferr, again.Errors[0], encoded)
			}
			if !proto.Equal(again.Events[0], e) {
				t.Fatalf("changed on the way through JSON:\n%v\n%v", e, again.Events[0])
			}
		}
	})
}

// oneKB is one interaction of about 1 KB.
func oneKB() []byte {
	return fmt.Appendf(nil, `{"type":"interaction","event_id":"01J0000000000000000000000","session_id":"s-1","interaction_id":"i-1","user_id":"u-7","occurred_at":"2026-11-24T09:30:00Z","user_role":"customer","environment":"production","tags":{"plan":"pro"},"interaction":{"query":"Can I return worn shoes?","system_context":%q,"output":%q,"retrieved":[{"source":"faq/12","text":"Shoes may be returned."}],"model":"m-large","model_version":"2026-10-01","prompt_version":"v14","applied_patches":["p-3f2a@2"],"latency_ms":840,"input_tokens":310,"output_tokens":12}}`,
		strings.Repeat("You are a helpful assistant. ", 10), strings.Repeat("Yes, within 60 days. ", 9))
}

func BenchmarkDecode(b *testing.B) {
	body := oneKB()
	d := newDecoder(b)
	b.Run("hone", func(b *testing.B) {
		b.SetBytes(int64(len(body)))
		b.ReportAllocs()
		for b.Loop() {
			if req, err := d.Decode(body); err != nil || req.Errors[0] != nil {
				b.Fatal(err, req.Errors[0])
			}
		}
	})
	b.Run("protojson", func(b *testing.B) {
		b.SetBytes(int64(len(body)))
		b.ReportAllocs()
		for b.Loop() {
			if err := protojson.Unmarshal(body, new(eventv1.Event)); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkAccept(b *testing.B) {
	req, err := newDecoder(b).Decode(oneKB())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		e := req.Events[0]
		e.Source, e.ReceivedAt = "", nil
		if _, err := Accept(e, "p", SourceHTTP, now, DefaultLimits()); err != nil {
			b.Fatal(err)
		}
	}
}
