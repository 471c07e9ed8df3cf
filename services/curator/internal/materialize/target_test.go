package materialize

import (
	"strings"
	"testing"

	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"
	"github.com/honeloop/hone/services/curator/internal/routed"
)

func edit(kind string, start, end uint32, quote, text string) *eventv1.Edit {
	return &eventv1.Edit{Kind: kind, Start: start, End: end, Quote: quote, Text: text}
}

func TestFindTarget(t *testing.T) {
	const output = "Ja, 60 Täge lang."
	tests := map[string]struct {
		signal   *signalv1.Signal
		want     target
		noTarget string
	}{
		"correction": {&signalv1.Signal{Correction: "No."}, target{SourceCorrection, "No."}, ""},
		"preference": {&signalv1.Signal{Kind: "preference", Preferred: &eventv1.Interaction{Output: "other"}, Correction: "c"},
			target{SourcePreference, "other"}, ""},
		"edits in code points, in any order": {&signalv1.Signal{Edits: []*eventv1.Edit{
			edit("delete", 11, 16, " lang", ""), edit("highlight", 0, 5, "", ""), edit("replace", 4, 11, "60 Täge", "30 Tage")}},
			target{SourceEdit, "Ja, 30 Tage."}, ""},
		"correction over edits": {&signalv1.Signal{Correction: "c", Edits: []*eventv1.Edit{edit("delete", 0, 3, "", "")}},
			target{SourceCorrection, "c"}, ""},
		"nothing said":          {&signalv1.Signal{Comment: "bad"}, target{}, NoCorrection},
		"only marks":            {&signalv1.Signal{Edits: []*eventv1.Edit{edit("tag", 0, 3, "", "")}}, target{}, NoCorrection},
		"edits of no effect":    {&signalv1.Signal{Edits: []*eventv1.Edit{edit("replace", 0, 2, "", "Ja")}}, target{}, NoCorrection},
		"everything deleted":    {&signalv1.Signal{Edits: []*eventv1.Edit{edit("delete", 0, 17, "", "")}}, target{}, NoCorrection},
		"overlapping edits":     {&signalv1.Signal{Edits: []*eventv1.Edit{edit("delete", 0, 5, "", ""), edit("delete", 4, 6, "", "")}}, target{}, BadEdits},
		"edits beyond the end":  {&signalv1.Signal{Edits: []*eventv1.Edit{edit("delete", 10, 99, "", "")}}, target{}, BadEdits},
		"edits of another text": {&signalv1.Signal{Edits: []*eventv1.Edit{edit("delete", 0, 2, "No", "")}}, target{}, BadEdits},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			test.signal.Interaction = &eventv1.Interaction{Output: output}
			got, noTarget := findTarget(test.signal, nil)
			if got != test.want || noTarget != test.noTarget {
				t.Errorf("got %+v, %q, want %+v, %q", got, noTarget, test.want, test.noTarget)
			}
		})
	}
	if _, why := findTarget(&signalv1.Signal{Correction: "c"}, nil); why != NoInteraction {
		t.Errorf("without interaction: %q", why)
	}
	whole := &signalv1.Signal{Correction: "c", Interaction: &eventv1.Interaction{Output: output}}
	if _, why := findTarget(whole, []string{"case.examples", "signal.interaction.system_context"}); why != TooLarge {
		t.Errorf("without its system context: %q", why)
	}
	if _, why := findTarget(whole, []string{"signal.interaction.retrieved"}); why != "" {
		t.Errorf("without retrieved passages: %q", why)
	}
}

func TestPatchTextIsMadeOfWhatIsThere(t *testing.T) {
	got := patchText(&routed.Event{Case: &casesv1.Case{Title: "Worn\n shoes"}, Signal: &signalv1.Signal{
		Category: "factually_incorrect", Comment: strings.Repeat("x", 600)}})
	want := "When asked about: Worn shoes\nKnown problem: factually incorrect\nWhat a user said: " + strings.Repeat("x", 499) + "…"
	if got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}

func TestVersionsOrderWhatTheRouterSaid(t *testing.T) {
	order := []*routed.Event{{Revision: 1}, {Revision: 1, Withdrawn: true}, {Revision: 2}, {Revision: 2, Withdrawn: true}, {Revision: 3}}
	for i := range order[1:] {
		if version(order[i]) >= version(order[i+1]) {
			t.Errorf("%+v does not come before %+v", order[i], order[i+1])
		}
	}
	if priority(7) <= priority(8) {
		t.Error("an earlier decision does not win over a later one")
	}
}
