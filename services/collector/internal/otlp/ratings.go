package otlp

import (
	"slices"
	"strconv"
	"strings"

	"github.com/honeloop/hone/pkg/events"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
)

// rating is the result of an evaluation, or an annotation.
type rating struct {
	name, label, explanation string
	score, min, max          *float64
	errorType                string
	annotator, identifier    string
	time                     uint64 // Unix nanoseconds, 0 is unknown
	response                 string // gen_ai.response.id of what was rated
	target                   string // interaction_id of it
}

func evaluationOf(a attributes, time uint64) rating {
	return rating{
		name: a.text(evaluationName), label: a.text(evaluationLabel), explanation: a.text(evaluationExplanation), errorType: a.text(errorTypeNames),
		score: optional(a, evaluationScore), min: optional(a, scoreMin), max: optional(a, scoreMax), response: a.text(responseIDNames), time: time,
	}
}

func annotationOf(a attributes, prefix string) rating {
	get := func(field string) string { return a.text([]string{prefix + field}) }
	return rating{
		name: get("name"), label: get("label"), explanation: get("explanation"), score: optional(a, []string{prefix + "score"}),
		min: optional(a, scoreMin), max: optional(a, scoreMax), annotator: get("annotator_kind"), identifier: get("identifier"),
	}
}

func optional(a attributes, names []string) *float64 {
	if x, ok := a.number(names); ok {
		return &x
	}
	return nil
}

// failed says that the evaluation itself went wrong, so that there is no result.
func (r *rating) failed() bool { return r.errorType != "" && r.score == nil && r.label == "" }

// part tells the ratings of one span from each other.
func (r *rating) part() string {
	return strings.Join([]string{"rating", r.name, r.identifier, r.label, r.scoreText(), r.response, strconv.FormatUint(r.time, 10)}, "\x00")
}

func (r *rating) scoreText() string {
	if r.score == nil {
		return ""
	}
	return strconv.FormatFloat(*r.score, 'g', -1, 64)
}

// feedback makes feedback of a rating, or says why not.
func (m *mapper) feedback(o *origin, r *rating) (*eventv1.Event, string) {
	if r.name == "" {
		return nil, "an evaluation needs a name"
	}
	e := m.event(o, events.TypeFeedback)
	f := &eventv1.Feedback{Comment: r.explanation}
	bad := slices.Contains(badThings, plain(r.name))
	negative := false
	switch thumb := r.thumb(bad); {
	case thumb != "":
		f.Thumb, negative = thumb, thumb == "down"
	case r.score == nil:
		return nil, "evaluation " + strconv.Quote(m.clip(r.name)) + ": neither its label nor a score says whether the answer is good"
	default:
		low, high := 0.0, 1.0
		if r.min != nil && r.max != nil {
			low, high = *r.min, *r.max
		}
		score := *r.score
		if low >= high || score < low || score > high {
			return nil, "evaluation " + strconv.Quote(m.clip(r.name)) + ": a score outside 0 to 1 needs hone.evaluation.score.min and .max, or a label such as pass or fail"
		}
		if bad {
			score = min(max(low+high-score, low), high)
		}
		f.Score, f.Min, f.Max = &score, &low, &high
		negative = (score-low)/(high-low) < 0.4
	}
	if negative {
		f.Categories = []string{r.name}
	}
	e.UserId = "evaluation:" + r.name
	if r.identifier != "" {
		e.UserId += ":" + r.identifier
	}
	e.UserRole = ""
	e.InteractionId = r.target
	for tag, s := range map[string]string{tagEvaluation: r.name, tagLabel: r.label, evaluationScore[0]: r.scoreText(), tagAnnotator: r.annotator} {
		if s != "" {
			e.Tags[tag] = m.clip(s)
		}
	}
	e.Payload = &eventv1.Event_Feedback{Feedback: f}
	return e, ""
}

// thumb is what the label says of the answer; empty where that is not known. bad
// says that the evaluation is of something bad.
func (r *rating) thumb(bad bool) string {
	label := plain(r.label)
	if bad {
		switch {
		case slices.Contains(yesLabels, label):
			return "down"
		case slices.Contains(noLabels, label):
			return "up"
		}
	}
	switch {
	case label == "":
		return ""
	case slices.Contains(goodLabels, label):
		return "up"
	case slices.Contains(badLabels, label):
		return "down"
	}
	return ""
}

func plain(s string) string {
	return strings.NewReplacer(" ", "_", "-", "_").Replace(strings.ToLower(strings.TrimSpace(s)))
}
