package derive

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/honeloop/hone/pkg/projects"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"
)

func question(id string, second int, query, output string) *eventv1.Event {
	e := asked("e-"+id, second, id, output)
	e.GetInteraction().Query = query
	return e
}

func behavior(id string, second int, interaction, kind, text string) *eventv1.Event {
	e := event(id, second, interaction)
	e.Type, e.Payload = "behavior", &eventv1.Event_Behavior{Behavior: &eventv1.Behavior{Kind: kind, Text: text}}
	return e
}

func timer(id string, second int, kind, subject string) *eventv1.Event {
	e := event(id, second, "")
	e.Type, e.Payload = "timer", &eventv1.Event_Timer{Timer: &eventv1.Timer{Kind: kind, Subject: subject}}
	return e
}

// found lists the findings of a trail as "interaction:kind", sorted.
func found(signals []*signalv1.Signal) string {
	var out []string
	for _, s := range signals {
		if s.Kind != KindImplicit {
			continue
		}
		for _, e := range s.Evidence {
			out = append(out, s.InteractionId+":"+e.Kind)
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

func TestTheNextMessageSaysWhatItThinksOfTheAnswer(t *testing.T) {
	const first = "Can I return worn shoes?"
	for next, want := range map[string]string{
		// The same again.
		"Can I return worn shoes?":                  Reasked,
		"can i return WORN shoes":                   Reasked,
		"Can I return shoes that I have worn?":      Reasked,
		"Can worn shoes be returned, can I return?": Reasked,
		// The topic goes on.
		"How long may I keep them?":                     "",
		"Can I return a jacket?":                        "",
		"What do worn shoes cost to repair?":            "",
		"Who pays for the parcel?":                      "",
		"What was wrong with the old policy?":           "",
		"Is the human foot the reason shoes wear out?":  "",
		"Which greatest shoes do thankful people like?": "",
		// It says so.
		"That's not what I asked.":                    Rejected,
		"You didn’t answer my question":               Rejected,
		"Das war nicht meine Frage!":                  Rejected,
		"Ce n'est pas ce que j'ai demandé.":           Rejected,
		"Eso no es lo que pedí":                       Rejected,
		"That doesn't work.":                          Rejected,
		"No, it is 30 days.":                          Corrected,
		"That's wrong. The policy changed in May.":    Corrected,
		"I meant boots":                               Corrected,
		"Das stimmt nicht":                            Corrected,
		"What do you mean by unworn?":                 Clarification,
		"I don't understand":                          Clarification,
		"Thanks!":                                     Approved,
		"Perfect, that helped. Where do I send them?": Approved,
		"Vielen Dank":                                 Approved,
		"Thanks, but that is not what I asked":        Rejected,
		"I want to talk to a human":                   AskedForHuman,
		"Human please":                                AskedForHuman,
		"Ich möchte mit einem Mitarbeiter sprechen":   AskedForHuman,
		"":  "",
		"👍": "",
	} {
		t.Run(next, func(t *testing.T) {
			got := found(deriveAll(t, []*eventv1.Event{question("i-1", 0, first, "Yes."), question("i-2", 60, next, "Well.")}))
			if want != "" {
				want = "i-1:" + want
			}
			if got != want {
				t.Errorf("found %q, want %q", got, want)
			}
		})
	}
}

func TestMeaningFindsWhatWordsDoNot(t *testing.T) {
	trail := []*eventv1.Event{question("i-1", 0, "How do I send worn shoes back?", "No."), question("i-2", 60, "Returning used shoes, how does it go?", "No.")}
	for alike, want := range map[float64]string{0.9: "i-1:reasked", 0.8: ""} {
		rules, err := NewRules(projects.DefaultSignals(), func(_, _ string) float64 { return alike })
		if err != nil {
			t.Fatal(err)
		}
		if got := found(Derive(trail, rules)); got != want {
			t.Errorf("%g alike: found %q, want %q", alike, got, want)
		}
	}
}

func TestWhatPeopleDo(t *testing.T) {
	const answer = "You may return unworn shoes within thirty days. Worn ones cannot be sent back."
	first, ended := question("i-1", 0, "Can I return worn shoes?", answer), timer("t", 2000, TimerSessionEnded, "e-i-1")
	other := func(id string, second int) *eventv1.Event {
		return question(id, second, "Where is my order?", "On its way.")
	}
	beside := func(second int) *eventv1.Event {
		e := question("i-2", second, "Can I return worn shoes?", "No.")
		e.GetInteraction().AlternativeTo = "i-1"
		return e
	}
	step := func(id string, second int, finish string) *eventv1.Event {
		e := question(id, second, "Can I return worn shoes?", "No.")
		e.Source, e.GetInteraction().FinishReason = "otlp", finish
		return e
	}
	tests := []struct {
		name  string
		trail []*eventv1.Event
		want  string
	}{
		{"nothing", []*eventv1.Event{first}, ""},
		{"regenerated", []*eventv1.Event{first, behavior("b", 9, "i-1", "regenerated", "")}, "i-1:regenerated"},
		{"another answer later", []*eventv1.Event{first, beside(30)}, "i-1:regenerated"},
		{"two answers side by side", []*eventv1.Event{first, beside(0)}, ""},
		{"stopped", []*eventv1.Event{first, behavior("b", 9, "i-1", "stopped", "")}, "i-1:stopped"},
		{"edited the prompt", []*eventv1.Event{first, behavior("b", 9, "i-1", "edited_prompt", "")}, "i-1:edited_prompt"},
		{"copied", []*eventv1.Event{first, behavior("b", 9, "i-1", "copied", answer)}, "i-1:copied"},
		{"copied a part", []*eventv1.Event{first, behavior("b", 9, "i-1", "copied", "within thirty days")}, "i-1:copied_part"},
		{"copied, then asked on", []*eventv1.Event{first, behavior("b", 9, "i-1", "copied", answer), other("i-2", 20)}, "i-1:copied"},
		{"copied and left", []*eventv1.Event{first, behavior("b", 9, "i-1", "copied", ""), ended}, "i-1:copied_and_left"},
		{"left", []*eventv1.Event{first, behavior("b", 9, "", "left", "")}, "i-1:left"},
		{"left, and came back", []*eventv1.Event{first, behavior("b", 9, "", "left", ""), other("i-2", 20)}, ""},
		{"no reaction", []*eventv1.Event{first, ended}, "i-1:no_reaction"},
		{"judged, then the end", []*eventv1.Event{first, said("f", 3, "i-1", &feedback{Thumb: "up"}), ended}, ""},
		{"asked for a human", []*eventv1.Event{first, behavior("b", 9, "i-1", "asked_for_human", "")}, "i-1:asked_for_human"},
		{"of its own", []*eventv1.Event{first, behavior("b", 9, "i-1", "custom", "")}, ""},
		{"gave up", []*eventv1.Event{first, step("i-2", 10, "stop"), step("i-3", 20, "stop"), behavior("b", 30, "", "left", "")},
			"i-1:reasked i-2:reasked i-3:gave_up i-3:left"},
		{"steps of an agent's run", []*eventv1.Event{step("i-1", 1, "tool_calls"), step("i-2", 2, "tool_calls"), step("i-3", 3, "stop"),
			question("i-4", 9, "That is wrong", "Oh.")}, "i-3:corrected"},
		{"the same question twice over OTLP", []*eventv1.Event{step("i-1", 1, "stop"), step("i-2", 20, "stop")}, "i-1:reasked"},
		{"about the last of two answers", []*eventv1.Event{first, beside(0), question("i-3", 60, "That is wrong", "Oh.")}, "i-2:corrected"},
		{"about the preferred of two answers", []*eventv1.Event{first, beside(0),
			said("f", 30, "i-2", &feedback{PreferredInteractionId: "i-1"}), question("i-3", 60, "That is wrong", "Oh.")}, "i-1:corrected"},
		{"before its answer", []*eventv1.Event{behavior("b", 9, "i-1", "stopped", "")}, "i-1:stopped"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := found(deriveAll(t, tt.trail)); got != tt.want {
				t.Errorf("found %q, want %q", got, tt.want)
			}
		})
	}
}

func TestAPartThatWasCopiedIsARange(t *testing.T) {
	s := deriveAll(t, []*eventv1.Event{question("i-1", 0, "q", "日本 🙂 within thirty days, unworn, in the box"), behavior("b", 9, "i-1", "copied", "within thirty days")})[0]
	if e := s.Evidence[0]; e.Start != 5 || e.End != 23 || e.Confidence <= 0 || e.EventId != "b" {
		t.Errorf("evidence %v, want [5, 23)", e)
	}
}

func TestSettingsChangeWhatCounts(t *testing.T) {
	trail := []*eventv1.Event{question("i-1", 0, "q", "a"), behavior("b", 9, "i-1", "stopped", "")}
	settings := projects.DefaultSignals()
	settings.Findings["stopped"] = 0
	settings.Weights = map[string]float64{"stopped": 9}
	off, err := NewRules(settings, nil)
	if err != nil {
		t.Fatal(err)
	}
	if s := Derive(trail, off); len(s) != 0 {
		t.Errorf("a finding of no confidence made %v", s)
	}
	settings.Findings["stopped"] = 1
	heavy, err := NewRules(settings, nil)
	if err != nil {
		t.Fatal(err)
	}
	if s := Derive(trail, heavy)[0]; s.Polarity != Negative || s.GetDissatisfaction() < 0.9 || s.Confidence != s.GetDissatisfaction() || s.Evidence[0].Weight != 9 {
		t.Errorf("a finding that weighs much made %v", s)
	}
}

// TestAReaderCanBeAdded is how a model or a judge comes in.
func TestAReaderCanBeAdded(t *testing.T) {
	rules, err := NewRules(projects.DefaultSignals(), nil, ReaderFunc(func(r *Reaction) []Finding {
		return []Finding{{Kind: Rejected, Event: r.Answer, Clarity: 1, Detail: "a judge says so"}}
	}))
	if err != nil {
		t.Fatal(err)
	}
	if got := found(Derive([]*eventv1.Event{question("i-1", 0, "q", "a")}, rules)); got != "i-1:rejected" {
		t.Errorf("found %q", got)
	}
}

func TestAWaitEnds(t *testing.T) {
	down, stop := said("f-1", 0, "i-1", &feedback{Thumb: "down"}), behavior("b", 1, "i-1", "stopped", "")
	trail := []*eventv1.Event{down, stop, timer("t", 99, TimerWaitExpired, "i-1")}
	for _, s := range deriveAll(t, trail[:2]) {
		if !s.Waiting || s.Dissatisfaction != nil || HasEvidence(s, TimerWaitExpired) {
			t.Errorf("%v, want it to wait", s)
		}
	}
	gone := deriveAll(t, trail)
	for _, s := range gone {
		if s.Waiting || !HasEvidence(s, TimerWaitExpired) || s.Interaction != nil {
			t.Errorf("%v, want it to go on without", s)
		}
	}
	if len(gone) != 2 {
		t.Errorf("%d signals, want 2", len(gone))
	}
	for _, s := range deriveAll(t, append(trail, question("i-1", 200, "q", "a"))) {
		if s.Interaction == nil || HasEvidence(s, TimerWaitExpired) || s.Dissatisfaction == nil {
			t.Errorf("%v, want it whole after all", s)
		}
	}
}

func TestCategoriesAreOfTheTaxonomy(t *testing.T) {
	s := deriveAll(t, []*eventv1.Event{question("i-1", 0, "q", "a"), said("f", 1, "i-1", &feedback{Categories: []string{"Wrong Tone", "House style!", "tone"}})})[0]
	if !slices.Equal(s.Categories, []string{"wrong_tone", "house_style"}) || !slices.Equal(s.UnknownCategories, []string{"house_style"}) || s.Category != "wrong_tone" {
		t.Errorf("categories %v, of which unknown %v", s.Categories, s.UnknownCategories)
	}
}

func TestRatingsKeepTheirScale(t *testing.T) {
	s := deriveAll(t, []*eventv1.Event{question("i-1", 0, "q", "a"),
		said("f", 1, "i-1", &feedback{Score: proto.Float64(2.5), Min: proto.Float64(0), Max: proto.Float64(10)})})[0]
	if want := (&signalv1.Rated{Scale: "score", Value: 2.5, Min: 0, Max: 10}); !proto.Equal(s.Rated, want) || s.GetRating() != -0.5 {
		t.Errorf("rating %v of %v, want -0.5 of %v", s.GetRating(), s.Rated, want)
	}
}

func TestChangesOfACorrection(t *testing.T) {
	tests := []struct{ output, correction, want string }{
		{"Yes, within 60 days.", "Yes, within 30 days.", `[12,14) "60" -> "30"`},
		{"Yes.", "Yes.", ""},
		{"Yes, within 60 days.", "Only unworn shoes, within 60 days", `[0,3) "Yes" -> "Only unworn shoes"; [19,20) "." -> ""`},
		{"", "No.", `[0,0) "" -> "No."`},
		{"Within days.", "Within 30 days.", `[6,6) "" -> "30"`},
		{"a\r\nb c", "a\nb d", `[5,6) "c" -> "d"`},
		{"cafe\u0301 noir", "café noir", "[0,5) \"cafe\u0301\" -> \"café\""},
		{"👩‍🚀 flies", "👩‍🚒 flies", `[0,3) "👩‍🚀" -> "👩‍🚒"`},
		{"日本は", "日中は", `[1,2) "本" -> "中"`},
	}
	for _, tt := range tests {
		got, ok := changes(tt.output, tt.correction)
		var s []string
		for _, c := range got {
			s = append(s, fmt.Sprintf("[%d,%d) \"%s\" -> \"%s\"", c.Start, c.End, c.Deleted, c.Inserted))
		}
		if g := strings.Join(s, "; "); g != tt.want || !ok {
			t.Errorf("%q to %q: %s, want %s", tt.output, tt.correction, g, tt.want)
		}
	}
	if _, ok := changes(strings.Repeat("a b ", 3000), strings.Repeat("c d ", 3000)); ok {
		t.Error("texts without bound were compared")
	}
}

func TestEditsSayHowTheyWereCountedWrong(t *testing.T) {
	tests := []struct {
		name, output string
		edit         *eventv1.Edit
		want         string
	}{
		{"combining mark", "cafe\u0301 noir", &eventv1.Edit{Kind: "highlight", Start: 0, End: 5, Quote: "cafe\u0301"}, ""},
		{"joined emoji", "👩‍🚀 flies", &eventv1.Edit{Kind: "highlight", Start: 4, End: 9, Quote: "flies"}, ""},
		{"CRLF", "a\r\nbc", &eventv1.Edit{Kind: "highlight", Start: 3, End: 5, Quote: "bc"}, ""},
		{"UTF-16", "🙂🙂 60 days", &eventv1.Edit{Kind: "highlight", Start: 5, End: 7, Quote: "60"}, "UTF-16"},
		{"bytes", "日本 60 days", &eventv1.Edit{Kind: "highlight", Start: 7, End: 9, Quote: "60"}, "bytes"},
		{"LF in place of CRLF", "a\r\nbc d", &eventv1.Edit{Kind: "highlight", Start: 2, End: 4, Quote: "bc"}, "CRLF"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := deriveAll(t, []*eventv1.Event{question("i-1", 0, "q", tt.output), said("f", 1, "i-1", &feedback{Thumb: "down", Edits: []*eventv1.Edit{tt.edit}})})[0]
			last := s.Evidence[len(s.Evidence)-1]
			if tt.want == "" && (len(s.Edits) != 1 || s.Edits[0].Quote != tt.edit.Quote) || tt.want != "" && (last.Kind != EvidenceUnfitEdit || !strings.Contains(last.Detail, tt.want)) {
				t.Errorf("edits %v, evidence %v; want %q", s.Edits, last, tt.want)
			}
		})
	}
}
