package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	policyv1 "github.com/honeloop/hone/proto/gen/go/hone/policy/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"
	trailv1 "github.com/honeloop/hone/proto/gen/go/hone/trail/v1"
	trendsv1 "github.com/honeloop/hone/proto/gen/go/hone/trends/v1"
)

func rates(values ...float64) []*trendsv1.Point {
	var out []*trendsv1.Point
	for i, v := range values {
		r := &trendsv1.Rate{}
		if v >= 0 {
			r = &trendsv1.Rate{Value: proto.Float64(v), EffectiveCount: 10, Interactions: 20}
		}
		out = append(out, &trendsv1.Point{Start: timestamppb.New(time.Date(2026, 11, 1+i, 0, 0, 0, 0, time.UTC)), Rate: r})
	}
	return out
}

func TestSparkline(t *testing.T) {
	for _, tt := range []struct {
		points    []*trendsv1.Point
		low, high float64
		width     int
		want      string
	}{
		{rates(0, 0.5, 1), 0, 1, 40, "▁▅█"},
		{rates(0.2, -1, 0.4), 0.2, 0.4, 40, "▁ █"},
		{rates(0.3, 0.3), 0.3, 0.3, 40, "▄▄"},
		{rates(0, 0, 1, 1), 0, 1, 2, "▁█"},
		{nil, 0, 0, 40, ""},
	} {
		if got := sparkline(tt.points, tt.low, tt.high, tt.width); got != tt.want {
			t.Errorf("%q, want %q", got, tt.want)
		}
	}
}

func TestTrendsBeginAndEndWithTheirInteractions(t *testing.T) {
	a, b := &trendsv1.Series{Points: rates(-1, -1, 0.5, -1)}, &trendsv1.Series{Points: rates(-1, 0.2, -1, -1)}
	trim([]*trendsv1.Series{a, b})
	if len(a.Points) != 2 || len(b.Points) != 2 || a.Points[1].Rate.Value == nil {
		t.Errorf("%v and %v", a.Points, b.Points)
	}
	var out bytes.Buffer
	resp := &trendsv1.GetTrendsResponse{Metric: "satisfaction", By: "model", Bucket: "day", Series: []*trendsv1.Series{{Value: "", Total: &trendsv1.Rate{Value: proto.Float64(0.5), Low: 0.4, High: 0.6, Hits: 5, Count: 10, Interactions: 40, ResponseRate: 0.25}, Points: rates(0.1, 0.9),
		Changes: []*trendsv1.ChangePoint{{At: timestamppb.New(time.Date(2026, 11, 2, 0, 0, 0, 0, time.UTC)), Before: &trendsv1.Rate{Value: proto.Float64(0.1)}, After: &trendsv1.Rate{Value: proto.Float64(0.9)}, PValue: 0.0001}}}}}
	if err := printTrends(newPainter(&out), resp, true); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"(none)", "50.0 %", "40.0 % to 60.0 %", "25.0 %", "▁█", "changed on 2026-11-02 from 10.0 %", "p < 0.001"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%s\nis without %q", out.String(), want)
		}
	}
}

func TestMarks(t *testing.T) {
	edit := func(start, end uint32) *eventv1.Edit { return &eventv1.Edit{Start: start, End: end} }
	for _, tt := range []struct {
		name   string
		ranges []*eventv1.Edit
		want   string
		plain  bool
	}{
		{"two", []*eventv1.Edit{edit(0, 2), edit(3, 5)}, "⟦né⟧¹ ⟦wé⟧²", false},
		{"nested", []*eventv1.Edit{edit(0, 5), edit(3, 5)}, "⟦né ⟦wé⟧¹⟧²", false},
		{"none", nil, "né wé", true},
		{"outside", []*eventv1.Edit{edit(4, 9)}, "né wé", true},
	} {
		text, marked := mark("né wé", tt.ranges)
		if marked == tt.plain {
			t.Errorf("%s: marked %v", tt.name, marked)
		}
		p := &painter{width: 80}
		if got, deep := p.marks(text, 0); got != tt.want || deep != 0 {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	if text, _ := mark("a\uE000b", nil); strings.ContainsRune(text, '\uE000') {
		t.Error("a text brings marks of its own")
	}
	p := &painter{width: 80, color: true}
	first, deep := p.marks("a "+string(markStart)+"b", 0)
	second, end := p.marks("c"+string(markEnd)+" d", deep)
	if first != "a \x1b[4mb\x1b[24m" || second != "\x1b[4mc\x1b[24m d" || end != 0 {
		t.Errorf("over two lines: %q, %q", first, second)
	}
}

func TestATrailIsAPleasureToRead(t *testing.T) {
	at := timestamppb.New(time.Date(2026, 11, 24, 9, 30, 0, 0, time.UTC))
	trail := &trailv1.Trail{ProjectId: "p", SessionId: "s-1", StartedAt: at, LastAt: at,
		Events: []*eventv1.Event{
			{EventId: "e", Type: "interaction", InteractionId: "i-1", OccurredAt: at, UserRole: "customer", Payload: &eventv1.Event_Interaction{Interaction: &eventv1.Interaction{
				Query: "Can I return worn shoes?", SystemContext: "You are …", Output: "Yes, within 60 days." + strings.Repeat(" Long.", 500), Model: "m", ModelVersion: "1", PromptVersion: "v14", AppliedPatches: []string{"p-1@2"}}}},
			{EventId: "f", Type: "feedback", InteractionId: "i-1", OccurredAt: at, Payload: &eventv1.Event_Feedback{Feedback: &eventv1.Feedback{Thumb: "down", Comment: "No\x1b[31m."}}},
			{EventId: "g", Type: "feedback", InteractionId: "i-2", OccurredAt: at, Payload: &eventv1.Event_Feedback{Feedback: &eventv1.Feedback{Thumb: "up"}}},
		},
		Signals: []*signalv1.Signal{
			{SignalId: "sg-1", InteractionId: "i-1", Kind: "explicit", Polarity: "negative", Evidence: []*signalv1.Evidence{{Detail: "thumb down"}},
				Edits: []*eventv1.Edit{{Kind: "replace", Start: 12, End: 19, Quote: "60 days", Text: "30 days"}}},
			{SignalId: "sg-0", InteractionId: "i-1", Kind: "explicit", Polarity: "positive", Withdrawn: true},
		},
		Decisions: []*policyv1.Decision{{SignalId: "sg-1", Rule: "gap", Routes: []string{"human-review"}, Reason: "It was wrong."}},
		Outcomes:  []*trailv1.Outcome{{Kind: "review", Id: "rv-1", SignalId: "sg-1", State: "corrected", Detail: "Only unworn.", By: "ann"}},
	}
	var out bytes.Buffer
	printTrail(newPainter(&out), trail, false)
	short := out.String()
	for _, want := range []string{"turn 1  i-1", "patches p-1@2", "⟦60 days⟧¹", "¹ replace", "“60 days” → 30 days", "thumb down", "→ human-review", "corrected · Only unworn. · by ann", "(1023 more characters,", "about i-2, which has not arrived"} {
		if !strings.Contains(short, want) {
			t.Errorf("%s\nis without %q", short, want)
		}
	}
	if strings.Contains(short, "\x1b") || strings.Contains(short, "withdrawn") {
		t.Errorf("%s\nhas colors, or what was withdrawn", short)
	}
	for _, line := range strings.Split(short, "\n") {
		if n := len([]rune(line)); n > 100+4 {
			t.Errorf("a line of %d: %s", n, line)
		}
	}
	out.Reset()
	printTrail(newPainter(&out), trail, true)
	if !strings.Contains(out.String(), "withdrawn") || strings.Contains(out.String(), "--full") {
		t.Error("--full leaves something out")
	}
}

func TestPastTimeTakesDays(t *testing.T) {
	now := time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)
	if got, err := pastTime("30d", now); err != nil || !got.Equal(now.AddDate(0, 0, -30)) {
		t.Errorf("%s, %v", got, err)
	}
	if _, err := pastTime("-3d", now); err == nil {
		t.Error("a time to come is taken")
	}
}
