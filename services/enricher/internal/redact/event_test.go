package redact

import (
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/honeloop/hone/pkg/projects"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
)

var key = []byte("0123456789abcdef")

func TestSettingsNameTheTypes(t *testing.T) {
	var names []string
	for typ := range AllTypes.All() {
		names = append(names, typ.String())
	}
	slices.Sort(names)
	if want := slices.Sorted(maps.Keys(projects.PrivacyTypes())); !slices.Equal(names, want) {
		t.Errorf("types are %v, the settings have %v", names, want)
	}
}

// TestPlaceholdersAreStable pins that a value has one placeholder in a session,
// however it is written, and another in another session or under another key.
func TestPlaceholdersAreStable(t *testing.T) {
	s := NewSession(key, "p", "s")
	first := s.Placeholder(Card, "4111 1111 1111 1111")
	if again := s.Placeholder(Card, "4111-1111-1111-1111"); again != first {
		t.Errorf("got %s and %s for one card", first, again)
	}
	for name, other := range map[string]Session{
		"session": NewSession(key, "p", "s2"), "project": NewSession(key, "p2", "s"), "key": NewSession([]byte("another key, also long"), "p", "s"),
	} {
		if got := other.Placeholder(Card, "4111 1111 1111 1111"); got == first {
			t.Errorf("another %s gives the same placeholder %s", name, got)
		}
	}
}

func TestEvent(t *testing.T) {
	const mail = "jo@example.com"
	e := &eventv1.Event{ProjectId: "p", SessionId: "s", UserId: mail, Tags: map[string]string{"owner": mail, "plan": "pro"},
		Payload: &eventv1.Event_Interaction{Interaction: &eventv1.Interaction{
			Query: "I am " + mail, SystemContext: mail, Output: "Ü: " + mail + ", right?", Model: mail,
			Retrieved: []*eventv1.Retrieved{{Source: "crm/" + mail, Text: mail}},
			Tools:     []*eventv1.ToolCall{{Name: "mail", Arguments: `{"to":"` + mail + `"}`, Result: mail, Error: mail}},
		}}}
	again := proto.CloneOf(e)
	settings := projects.DefaultPrivacy()
	counts, originals := Event(e, key, settings)
	if originals != nil {
		t.Error("originals were kept, and nobody asked for them")
	}
	Event(again, key, settings)
	if !proto.Equal(e, again) {
		t.Error("the same event became two")
	}
	if counts[Email] != 9 {
		t.Errorf("counted %d, want 9", counts[Email])
	}
	placeholder := NewSession(key, "p", "s").Placeholder(Email, mail)
	x := e.GetInteraction()
	for name, got := range map[string]string{
		"query": x.Query, "system_context": x.SystemContext, "output": x.Output, "retrieved": x.Retrieved[0].Text, "source": x.Retrieved[0].Source,
		"arguments": x.Tools[0].Arguments, "result": x.Tools[0].Result, "error": x.Tools[0].Error, "tag": e.Tags["owner"],
	} {
		if strings.Contains(got, mail) || !strings.Contains(got, placeholder) {
			t.Errorf("%s is %q, want %s in it", name, got, placeholder)
		}
	}
	if e.UserId != mail || x.Model != mail || e.Tags["plan"] != "pro" {
		t.Error("user_id, model and tags that hold nothing must stay")
	}
	want := &eventv1.Redaction{Start: 3, End: 17, Length: uint32(len(placeholder)), Type: "email"}
	if len(x.OutputRedactions) != 1 || !proto.Equal(x.OutputRedactions[0], want) {
		t.Errorf("output_redactions are %v, want %v", x.OutputRedactions, want)
	}

	left := &eventv1.Event{Payload: &eventv1.Event_Feedback{Feedback: &eventv1.Feedback{Comment: mail, Correction: mail}}}
	settings.Leave = []string{"comment"}
	settings.Redact = map[string]bool{"email": true}
	if Event(left, key, settings); left.GetFeedback().Comment != mail || left.GetFeedback().Correction == mail {
		t.Errorf("got %v, want the comment left alone", left)
	}
	settings.Redact = map[string]bool{"email": false, "phone": true}
	if counts, _ := Event(left, key, settings); counts != (Counts{}) {
		t.Errorf("counted %v of types that are off", counts)
	}
}

func TestOriginalsAreKeptWhereAProjectSaysSo(t *testing.T) {
	const mail, again = "jo@example.com", "Jo@Example.com"
	at := time.Date(2026, 11, 24, 9, 30, 0, 0, time.UTC)
	e := &eventv1.Event{ProjectId: "p", SessionId: "s", OccurredAt: timestamppb.New(at),
		Payload: &eventv1.Event_Feedback{Feedback: &eventv1.Feedback{Comment: mail + ", I said " + mail, Correction: again}}}
	settings := projects.DefaultPrivacy()
	settings.KeepOriginals = true
	_, got := Event(e, key, settings)
	slices.SortFunc(got, func(a, b Original) int { return strings.Compare(b.Value, a.Value) })
	want := Original{ProjectID: "p", SessionID: "s", Placeholder: NewSession(key, "p", "s").Placeholder(Email, mail), Value: mail, Type: Email, At: at}
	other := want
	other.Value = again // written another way, under the same placeholder
	if !slices.Equal(got, []Original{want, other}) {
		t.Errorf("got %+v, want %+v", got, []Original{want, other})
	}
}

// TestTranslate follows a range from the text that came to the one that is left.
func TestTranslate(t *testing.T) {
	const text = "Write to jo@example.com or call +49 30 901820 now."
	left, replaced := NewSession(key, "p", "s").Text(text, SetOf(Email, Phone))
	var redactions []*eventv1.Redaction
	for _, r := range replaced {
		redactions = append(redactions, &eventv1.Redaction{Start: uint32(r.Start), End: uint32(r.End), Length: uint32(r.Length)})
	}
	mail, phone := left[strings.Index(left, "<E"):strings.Index(left, " or")], left[strings.Index(left, "<P"):strings.Index(left, " now")]
	for quote, want := range map[string]string{
		"Write": "Write", "to jo@example.com": "to " + mail, "jo@example.com": mail, "example.com or": mail + " or", "jo@": mail,
		"or call": "or call", "now.": "now.", "call +49": "call " + phone, text: left, "m or call +4": mail + " or call " + phone,
	} {
		from := strings.Index(text, quote)
		start, end := Translate(redactions, uint32(from), uint32(from+len(quote)))
		if got := left[start:end]; got != want {
			t.Errorf("%q became %q, want %q", quote, got, want)
		}
	}
	if start, end := Translate(redactions, 24, 24); start != end || left[start:start+2] != "or" {
		t.Errorf("an insertion moved to [%d, %d)", start, end)
	}
}

func TestSameText(t *testing.T) {
	for _, tt := range []struct {
		quote, covered string
		same           bool
	}{
		{"30 days", "30 days", true}, {"30 days", "60 days", false},
		{"to <EMAIL_0001>, yes", "to <EMAIL_0001>, yes", true},
		{"mail jo@ex", "mail <EMAIL_0001>", true}, {"send jo@ex", "mail <EMAIL_0001>", false},
		{"see <NAME_0001>", "see Ms Lopez", true}, {"a < b", "a > b", false},
	} {
		if got := SameText(tt.quote, tt.covered); got != tt.same {
			t.Errorf("%q and %q: %t", tt.quote, tt.covered, got)
		}
	}
}
