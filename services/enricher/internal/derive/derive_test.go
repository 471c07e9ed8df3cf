package derive

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/honeloop/hone/pkg/projects"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"

	"github.com/honeloop/hone/services/enricher/internal/derive/derivetest"
)

var start = time.Date(2026, 11, 24, 9, 30, 0, 0, time.UTC)

// event is an event of session s-1, the given seconds after its start.
func event(id string, second int, interaction string) *eventv1.Event {
	return &eventv1.Event{
		EventId: id, ProjectId: "p", SessionId: "s-1", InteractionId: interaction,
		OccurredAt: timestamppb.New(start.Add(time.Duration(second) * time.Second)),
	}
}

func said(id string, second int, interaction string, f *eventv1.Feedback) *eventv1.Event {
	e := event(id, second, interaction)
	e.Type, e.Payload = "feedback", &eventv1.Event_Feedback{Feedback: f}
	return e
}

func asked(id string, second int, interaction, output string) *eventv1.Event {
	e := event(id, second, interaction)
	e.Type, e.Payload = "interaction", &eventv1.Event_Interaction{Interaction: &eventv1.Interaction{
		Query: "Can I return worn shoes?", Output: output, Model: "m-large", ModelVersion: "2026-10-01",
	}}
	return e
}

type feedback = eventv1.Feedback

func defaultRules(t testing.TB) *Rules {
	t.Helper()
	rules, err := NewRules(projects.DefaultSignals(), nil)
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

func deriveAll(t testing.TB, trail []*eventv1.Event) []*signalv1.Signal {
	t.Helper()
	return Derive(trail, defaultRules(t))
}

func TestDeriveExplicit(t *testing.T) {
	up, down := &feedback{Thumb: "up"}, &feedback{Thumb: "down"}
	tests := []struct {
		name string
		said []*feedback // one a second, on i-1
		want string      // polarity rating severity confidence categories comment|correction; empty for no signal
	}{
		{"thumb down", []*feedback{down}, "negative -1 medium 0.95 []  "},
		{"thumb up", []*feedback{up}, "positive 1 low 0.95 []  "},
		{"one star", []*feedback{{Stars: proto.Uint32(1)}}, "negative -1 medium 0.95 []  "},
		{"two stars", []*feedback{{Stars: proto.Uint32(2)}}, "negative -0.5 low 0.875 []  "},
		{"three stars", []*feedback{{Stars: proto.Uint32(3)}}, "neutral 0 low 0.6 []  "},
		{"five stars", []*feedback{{Stars: proto.Uint32(5)}}, "positive 1 low 0.95 []  "},
		{"score", []*feedback{{Score: proto.Float64(2.5), Min: proto.Float64(0), Max: proto.Float64(10)}}, "negative -0.5 low 0.875 []  "},
		{"middling score", []*feedback{{Score: proto.Float64(5), Min: proto.Float64(1), Max: proto.Float64(10)}}, "neutral -0.1111 low 0.6 []  "},
		{"category alone", []*feedback{{Categories: []string{"wrong_tone"}}}, "negative none low 0.9 [wrong_tone]  "},
		{"worst category counts", []*feedback{{Thumb: "down", Categories: []string{"wrong_tone", "unsafe"}}}, "negative -1 critical 0.99 [wrong_tone unsafe]  "},
		{"false fact", []*feedback{{Thumb: "down", Categories: []string{"factually_incorrect"}}}, "negative -1 high 0.99 [factually_incorrect]  "},
		{"category of the project", []*feedback{{Categories: []string{"house_style"}}}, "negative none medium 0.9 [house_style]  "},
		{"comment alone", []*feedback{{Comment: "hm"}}, "negative none low 0.5 [] hm "},
		{"correction alone", []*feedback{{Correction: "No."}}, "negative none medium 0.9 []  No."},
		{"praise with a correction", []*feedback{{Thumb: "up", Correction: "No."}}, "positive 1 low 0.7 []  No."},
		{"highlight alone", []*feedback{{Edits: []*eventv1.Edit{{Kind: "highlight", Start: 0, End: 3}}}}, "neutral none low 0.5 []  "},
		{"thumb, then category, then comment", []*feedback{down, {Categories: []string{"too_long"}}, {Comment: "why"}}, "negative -1 low 0.99 [too_long] why "},
		{"highlight, then thumb", []*feedback{{Edits: []*eventv1.Edit{{Kind: "highlight", Start: 0, End: 3}}}, down}, "negative -1 medium 0.95 []  "},
		{"comment, then thumb", []*feedback{{Comment: "Great"}, up}, "positive 1 low 0.95 [] Great "},
		{"later category replaces", []*feedback{{Categories: []string{"unsafe"}}, {Categories: []string{"too_long"}}}, "negative none low 0.9 [too_long]  "},
		{"flip clears", []*feedback{{Thumb: "down", Categories: []string{"wrong_tone"}, Comment: "bad"}, up}, "positive 1 low 0.95 []  "},
		{"flip twice", []*feedback{{Thumb: "down", Comment: "bad"}, up, down}, "negative -1 medium 0.95 []  "},
		{"same thumb again keeps", []*feedback{{Thumb: "down", Comment: "bad"}, down}, "negative -1 medium 0.95 [] bad "},
		{"stars flip a thumb", []*feedback{{Thumb: "down", Comment: "bad"}, {Stars: proto.Uint32(4)}}, "positive 0.5 low 0.875 []  "},
		{"stars beside a thumb", []*feedback{down, {Stars: proto.Uint32(2)}}, "negative -0.5 low 0.875 []  "},
		{"retracted", []*feedback{down, {Categories: []string{"unsafe"}}, {Retract: true}}, ""},
		{"retracted, then again", []*feedback{{Thumb: "down", Comment: "bad"}, {Retract: true}, down}, "negative -1 medium 0.95 []  "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			trail := []*eventv1.Event{asked("e-0", 0, "i-1", "Yes, within 60 days.")}
			for i, f := range tt.said {
				trail = append(trail, said(fmt.Sprintf("f-%d", i), 1+i, "i-1", f))
			}
			got := ""
			for _, s := range deriveAll(t, trail) {
				r := "none"
				if s.Rating != nil {
					r = fmt.Sprintf("%.4g", *s.Rating)
				}
				got += fmt.Sprintf("%s %s %s %g %v %s %s", s.Polarity, r, s.Severity, s.Confidence, s.Categories, s.Comment, s.Correction)
			}
			if got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}

func TestDeriveJoinsTheInteraction(t *testing.T) {
	first := asked("e-0", 0, "i-0", "Hello.")
	first.GetInteraction().Query = "Hi"
	a := asked("e-1", 10, "i-1", "Yes, within 60 days.")
	a.UserId, a.UserRole, a.Environment, a.Tags = "u-7", "customer", "production", map[string]string{"plan": "pro", "ui": "web"}
	f := said("f-1", 20, "i-1", &feedback{Thumb: "down", Categories: []string{"outdated"}})
	f.UserRole, f.Tags = "agent", map[string]string{"ui": "desk"}

	signals := deriveAll(t, []*eventv1.Event{f, a, first})
	if len(signals) != 1 {
		t.Fatalf("%d signals, want 1", len(signals))
	}
	want := &signalv1.Signal{
		SignalId: signals[0].SignalId, ProjectId: "p", SessionId: "s-1", InteractionId: "i-1", UserId: "u-7", Kind: "explicit",
		Polarity: "negative", Rating: proto.Float64(-1), Category: "outdated", Categories: []string{"outdated"},
		Severity: "high", Confidence: 0.99, Dissatisfaction: signals[0].Dissatisfaction,
		Rated: &signalv1.Rated{Scale: "thumb", Value: -1, Min: -1, Max: 1},
		Evidence: []*signalv1.Evidence{
			{EventId: "f-1", Kind: "thumb", Detail: "thumb down"},
			{EventId: "f-1", Kind: "category", Detail: "category outdated"},
		},
		UserRole: "agent", Environment: "production", Tags: map[string]string{"plan": "pro", "ui": "desk"},
		OccurredAt: f.OccurredAt, SessionStartedAt: first.OccurredAt, Turn: 1, Interaction: a.GetInteraction(),
	}
	if !proto.Equal(signals[0], want) {
		t.Errorf("got  %v\nwant %v", signals[0], want)
	}
	if d := signals[0].GetDissatisfaction(); d < 0.9 {
		t.Errorf("dissatisfaction %g of a bad answer", d)
	}
}

func TestPartsThatCameOverOTLPAreOneInteraction(t *testing.T) {
	part := func(id string, second int, source string, x *eventv1.Interaction, tags map[string]string) *eventv1.Event {
		e := event(id, second, "i-1")
		e.Type, e.Source, e.Tags, e.Payload = "interaction", source, tags, &eventv1.Event_Interaction{Interaction: x}
		return e
	}
	down := said("e-9", 9, "i-1", &feedback{Thumb: "down"})
	question := &eventv1.Interaction{Query: "q", SystemContext: "s", Retrieved: []*eventv1.Retrieved{{Source: "d"}}}
	call := &eventv1.Interaction{Model: "m", LatencyMs: 7, FinishReason: "stop"}
	for _, tt := range []struct {
		name, source string
		first        *eventv1.Interaction
		want         *eventv1.Interaction
	}{
		{"OTLP", "otlp", question, &eventv1.Interaction{Query: "q", SystemContext: "s", Retrieved: question.Retrieved, Model: "m", LatencyMs: 7, FinishReason: "stop"}},
		{"the newer part wins", "otlp", &eventv1.Interaction{Query: "q", Model: "old"}, &eventv1.Interaction{Query: "q", Model: "m", LatencyMs: 7, FinishReason: "stop"}},
		{"elsewhere the newer event is all there is", "http", question, call},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := part("e-1", 1, tt.source, tt.first, map[string]string{"a": "1", "b": "1"})
			b := part("e-2", 2, tt.source, call, map[string]string{"b": "2"})
			before := proto.CloneOf(a)
			got := deriveAll(t, []*eventv1.Event{b, down, a})
			if len(got) != 1 || !proto.Equal(got[0].Interaction, tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
			if tt.source == "otlp" && (got[0].Tags["a"] != "1" || got[0].Tags["b"] != "2") {
				t.Errorf("got tags %v", got[0].Tags)
			}
			if !proto.Equal(a, before) || a.GetInteraction().Model != tt.first.Model {
				t.Error("the trail was changed")
			}
		})
	}
}

func TestFeedbackWaitsForItsInteraction(t *testing.T) {
	f := said("f-1", 0, "i-1", &feedback{Thumb: "down"})
	early := deriveAll(t, []*eventv1.Event{f})
	if len(early) != 1 || !early[0].Waiting || early[0].Interaction != nil {
		t.Fatalf("before its interaction: %v, want one that waits", early)
	}
	late := deriveAll(t, []*eventv1.Event{f, asked("e-1", 3, "i-1", "Yes.")})
	if len(late) != 1 || late[0].Waiting || late[0].Interaction == nil || late[0].SignalId != early[0].SignalId {
		t.Fatalf("after: %v, want the same one with its interaction", late)
	}
}

func TestUsersHaveSignalsOfTheirOwn(t *testing.T) {
	trail := []*eventv1.Event{asked("e-1", 0, "i-1", "Yes.")}
	for i, user := range []string{"ann", "bob"} {
		f := said("f-"+user, 1+i, "i-1", &feedback{Thumb: []string{"up", "down"}[i]})
		f.UserId = user
		trail = append(trail, f)
	}
	signals := deriveAll(t, trail)
	if len(signals) != 2 || signals[0].Polarity != Positive || signals[1].Polarity != Negative {
		t.Errorf("got %v, want ann's yes and bob's no", signals)
	}
}

func TestPreference(t *testing.T) {
	a, b := asked("e-a", 0, "i-a", "A."), asked("e-b", 1, "i-b", "B.")
	bToA := said("f-1", 2, "i-a", &feedback{PreferredInteractionId: "i-b", Comment: "shorter"})
	aToB := said("f-2", 3, "i-b", &feedback{PreferredInteractionId: "i-a"})
	retract := said("f-3", 4, "i-a", &feedback{Retract: true})
	tests := []struct {
		name  string
		trail []*eventv1.Event
		want  string
	}{
		{"about the other answer", []*eventv1.Event{a, b, bToA}, `preference i-a "A." < i-b "B." negative shorter false`},
		{"changed mind", []*eventv1.Event{a, b, bToA, aToB}, `preference i-b "B." < i-a "A." negative  false`},
		{"retracted", []*eventv1.Event{a, b, bToA, retract}, ""},
		{"preferred answer missing", []*eventv1.Event{a, bToA}, `preference i-a "A." < i-b "" negative shorter true`},
		{"own answer missing", []*eventv1.Event{b, bToA}, `preference i-a "" < i-b "B." negative shorter true`},
		{"with a rating", []*eventv1.Event{a, b, said("f-1", 2, "i-a", &feedback{PreferredInteractionId: "i-b", Thumb: "down"})},
			`explicit i-a "A." <  "" negative  false; preference i-a "A." < i-b "B." negative  false`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var got []string
			for _, s := range deriveAll(t, tt.trail) {
				got = append(got, fmt.Sprintf("%s %s %q < %s %q %s %s %v", s.Kind, s.InteractionId, s.GetInteraction().GetOutput(),
					s.PreferredInteractionId, s.GetPreferred().GetOutput(), s.Polarity, s.Comment, s.Waiting))
			}
			slices.Sort(got)
			if g := strings.Join(got, "; "); g != tt.want {
				t.Errorf("got  %s\nwant %s", g, tt.want)
			}
		})
	}
}

func TestEditsAreCheckedAgainstTheOutput(t *testing.T) {
	// "日本" and the emoji are one code point each, however many bytes.
	const output = "日本 says 🙂 60 days"
	edits := []*eventv1.Edit{
		{Kind: "replace", Start: 10, End: 17, Quote: "60 days", Text: "30 days"},
		{Kind: "delete", Start: 8, End: 9, Quote: "🙂"},
		{Kind: "highlight", Start: 16, End: 18},
		{Kind: "tag", Start: 0, End: 2, Quote: "China", Tag: "place"},
		{Kind: "delete", Start: 5, End: 4},
		{Kind: "tag", Start: 0, End: 2, Tag: "place"},
	}
	trail := []*eventv1.Event{asked("e-1", 0, "i-1", output), said("f-1", 1, "i-1", &feedback{Thumb: "down", Edits: edits})}
	s := deriveAll(t, trail)[0]
	if s.Polarity != Negative || len(s.Edits) != 3 {
		t.Errorf("polarity %s with %d edits, want the rest of the feedback and the three edits that fit", s.Polarity, len(s.Edits))
	}
	var got []string
	for _, e := range s.Evidence[1:] {
		got = append(got, fmt.Sprintf("[%d,%d) %s", e.Start, e.End, e.Detail))
	}
	want := []string{
		`[10,17) replace with "30 days"`, `[8,9) delete`, `[0,2) tag "place"`,
		`[0,0) edits[2] does not count: highlight [16, 18) ends after the output, which has 17 characters`,
		`[0,0) edits[3] does not count: tag [0, 2) covers "日本", not the quoted "China"`,
		`[0,0) edits[4] does not count: delete [5, 4) ends before it starts`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

func TestALargeSignalIsShortenedAndSaysSo(t *testing.T) {
	a := asked("e-1", 0, "i-1", strings.Repeat("é", 200_000))
	i := a.GetInteraction()
	i.SystemContext = strings.Repeat("s", 400_000)
	i.Retrieved = []*eventv1.Retrieved{{Text: strings.Repeat("r", 100_000)}}
	f := said("f-1", 1, "i-1", &feedback{Correction: strings.Repeat("é", 240_000)})
	s := deriveAll(t, []*eventv1.Event{a, f})[0]
	if size := proto.Size(s); size > maxSignalBytes+1000 {
		t.Errorf("%d bytes, want at most about %d", size, maxSignalBytes)
	}
	if _, err := proto.Marshal(s); err != nil {
		t.Errorf("cut inside a character: %v", err)
	}
	last := s.Evidence[len(s.Evidence)-1]
	if !Shortened(s) || !strings.Contains(last.Detail, "texts cut to 80000 bytes") {
		t.Errorf("evidence %v does not say what was left out", last)
	}
	if len(i.SystemContext) != 400_000 || len(i.Retrieved) != 1 {
		t.Error("the trail's own interaction was changed")
	}
}

// TestOrderDoesNotMatter derives from random sessions in random orders.
func TestOrderDoesNotMatter(t *testing.T) {
	for seed := range uint64(300) {
		r := rand.New(rand.NewPCG(seed, 1))
		trail := derivetest.Session(r, "p", "s")
		want := deriveAll(t, trail)
		r.Shuffle(len(trail), func(i, j int) { trail[i], trail[j] = trail[j], trail[i] })
		rules := defaultRules(t)
		got := Derive(trail, rules)
		if !slices.EqualFunc(got, want, func(a, b *signalv1.Signal) bool { return proto.Equal(a, b) }) {
			t.Fatalf("seed %d: got %v\nwant %v", seed, got, want)
		}
	}
}

// TestASessionThatGrowsGivesTheSameSignals adds events one after the other, in
// order and not, and derives only what they touch.
func TestASessionThatGrowsGivesTheSameSignals(t *testing.T) {
	rules := defaultRules(t)
	for seed := range uint64(500) {
		r := rand.New(rand.NewPCG(seed, 2))
		trail := derivetest.Session(r, "p", "s")
		if seed%2 == 0 {
			trail = InOrder(trail)
		}
		s := NewSession(rules)
		have := map[string][]*signalv1.Signal{}
		for i, e := range trail {
			s.Add(e)
			for _, id := range s.Touched() {
				have[id] = s.Signals(id)
			}
			var got []*signalv1.Signal
			for _, signals := range have {
				got = append(got, signals...)
			}
			slices.SortFunc(got, Compare)
			want := Derive(trail[:i+1], rules)
			if !slices.EqualFunc(got, want, func(a, b *signalv1.Signal) bool { return proto.Equal(a, b) }) {
				t.Fatalf("seed %d, event %d: got %v\nwant %v", seed, i, got, want)
			}
		}
	}
}
