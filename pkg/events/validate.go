package events

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/honeloop/hone/pkg/jsonpb"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
)

// The closed sets of an event's strings.
var (
	thumbs        = []string{"up", "down"}
	editKinds     = []string{"replace", "delete", "highlight", "tag"}
	behaviorKinds = []string{"copied", "regenerated", "stopped", "edited_prompt", "followed_up", "left", "asked_for_human", "custom"}
)

// Validate checks an event that came from outside, and returns the first
// mistake. now is the time that occurred_at is compared with.
func Validate(e *eventv1.Event, now time.Time, limits Limits) *FieldError {
	v := validator{limits: limits}
	v.event(e, now)
	return v.err
}

// validator keeps the first mistake.
type validator struct {
	limits Limits
	err    *FieldError
}

func (v *validator) fail(field string, reason jsonpb.Reason, format string, args ...any) {
	if v.err == nil {
		v.err = fail(field, reason, fmt.Sprintf(format, args...))
	}
}

// in runs check and puts name before the path of what it finds.
func (v *validator) in(name string, check func()) {
	if v.err != nil {
		return
	}
	if check(); v.err != nil {
		v.err.In(name)
	}
}

// each runs check for n elements and puts name and index before the path.
func (v *validator) each(name string, n int, check func(i int)) {
	if v.err == nil && n > v.limits.Items {
		v.fail(name, jsonpb.TooMany, "want at most %d elements, got %d", v.limits.Items, n)
	}
	for i := 0; i < n && v.err == nil; i++ {
		if check(i); v.err != nil {
			v.err.At(i).In(name)
		}
	}
}

func (v *validator) length(field, s string, limit int) {
	if len(s) > limit {
		v.fail(field, TooLong, "want at most %d bytes, got %d", limit, len(s))
	}
}

func (v *validator) text(field, s string) { v.length(field, s, v.limits.TextBytes) }

// label is a short name. Real ones hold line breaks at times, which do no harm.
func (v *validator) label(field, s string) {
	v.length(field, s, v.limits.LabelBytes)
	if strings.ContainsFunc(s, badInLabel) {
		v.fail(field, InvalidValue, "want no control characters")
	}
}

func badInLabel(r rune) bool {
	return unicode.IsControl(r) && r != '\t' && r != '\n' && r != '\r'
}

func (v *validator) id(field, s string) {
	v.length(field, s, v.limits.IDBytes)
	for _, r := range s {
		if r <= ' ' || r == 0x7f || r > 0x7f && (unicode.IsSpace(r) || unicode.IsControl(r)) {
			v.fail(field, InvalidValue, "want no spaces and no control characters in an id")
			return
		}
	}
}

func (v *validator) oneOf(field, s string, set []string) {
	if slices.Contains(set, s) {
		return
	}
	reason := InvalidValue
	if s == "" {
		reason = Missing
	}
	v.fail(field, reason, "want one of %q", set)
}

func (v *validator) required(field string, ok bool, why string) {
	if !ok {
		v.fail(field, Missing, "%s", why)
	}
}

func (v *validator) finite(field string, x *float64) {
	if x != nil && (math.IsNaN(*x) || math.IsInf(*x, 0)) {
		v.fail(field, jsonpb.OutOfRange, "want a finite number")
	}
}

func (v *validator) labels(field string, m map[string]string) {
	if len(m) == 0 || v.err != nil {
		return
	}
	if len(m) > v.limits.Items {
		v.fail(field, jsonpb.TooMany, "want at most %d entries, got %d", v.limits.Items, len(m))
		return
	}
	// The first mistake by key, so that the same event gets the same answer.
	var worst string
	for key, value := range m {
		if (key == "" || len(key) > v.limits.LabelBytes || len(value) > v.limits.LabelBytes || strings.ContainsFunc(key, badInLabel)) &&
			(v.err == nil || key < worst) {
			worst = key
			v.err = nil
			switch {
			case key == "":
				v.fail("", InvalidValue, "want a key that is not empty")
			case len(value) > v.limits.LabelBytes:
				v.length("", value, v.limits.LabelBytes)
			default:
				v.label("", key)
			}
		}
	}
	if v.err != nil {
		v.err.Key(worst).In(field)
	}
}

func (v *validator) event(e *eventv1.Event, now time.Time) {
	switch e.Type {
	case TypeInteraction, TypeFeedback, TypeBehavior:
	case "":
		v.fail("type", Missing, "want %q, %q or %q", TypeInteraction, TypeFeedback, TypeBehavior)
	case TypeTimer:
		v.fail("type", NotAllowed, "only Hone itself sends timers")
	default:
		v.fail("type", InvalidValue, "want %q, %q or %q", TypeInteraction, TypeFeedback, TypeBehavior)
	}
	v.id("event_id", e.EventId)
	v.required("session_id", e.SessionId != "", "which conversation it belongs to is missing")
	v.id("session_id", e.SessionId)
	v.required("interaction_id", e.InteractionId != "" || e.Type == TypeBehavior, "which turn it is about is missing")
	v.id("interaction_id", e.InteractionId)
	v.label("user_id", e.UserId)
	v.label("user_role", e.UserRole)
	v.label("environment", e.Environment)
	v.labels("tags", e.Tags)
	v.time("occurred_at", e.OccurredAt, now)
	v.payload(e)
}

func (v *validator) time(field string, ts *timestamppb.Timestamp, now time.Time) {
	if ts == nil {
		return
	}
	switch {
	case ts.CheckValid() != nil || ts.Seconds < 0:
		v.fail(field, jsonpb.OutOfRange, "want a time since 1970")
	case ts.AsTime().Sub(now) > v.limits.ClockSkew:
		v.fail(field, ClockSkew, "lies %s in the future, want at most %s: set the emitter's clock", ts.AsTime().Sub(now).Round(time.Second), v.limits.ClockSkew)
	}
}

func (v *validator) payload(e *eventv1.Event) {
	var has string
	switch p := e.Payload.(type) {
	case *eventv1.Event_Interaction:
		if p.Interaction != nil {
			has = TypeInteraction
		}
	case *eventv1.Event_Feedback:
		if p.Feedback != nil {
			has = TypeFeedback
		}
	case *eventv1.Event_Behavior:
		if p.Behavior != nil {
			has = TypeBehavior
		}
	case *eventv1.Event_Timer:
		has = TypeTimer
	}
	if has == "" {
		v.fail(e.Type, Missing, "the type is %q, so this is needed", e.Type)
	} else if has != e.Type {
		v.fail(has, NotAllowed, "the type is %q, so only %q may be set", e.Type, e.Type)
	}
	switch e.Type {
	case TypeInteraction:
		v.in("interaction", func() { v.interaction(e.GetInteraction(), e.InteractionId) })
	case TypeFeedback:
		v.in("feedback", func() { v.feedback(e.GetFeedback(), e.InteractionId) })
	case TypeBehavior:
		v.in("behavior", func() { v.behavior(e.GetBehavior()) })
	}
}

func (v *validator) interaction(x *eventv1.Interaction, id string) {
	empty := true
	for _, s := range []struct{ name, value string }{
		{"query", x.Query}, {"system_context", x.SystemContext}, {"output", x.Output},
	} {
		v.text(s.name, s.value)
		empty = empty && s.value == ""
	}
	v.each("retrieved", len(x.Retrieved), func(i int) {
		r := x.Retrieved[i]
		v.text("source", r.Source)
		v.text("text", r.Text)
		v.finite("score", r.Score)
		v.required("", r.Source != "" || r.Text != "", "want a source or a text")
	})
	v.each("tools", len(x.Tools), func(i int) {
		t := x.Tools[i]
		v.required("name", t.Name != "", "want the tool's name")
		v.label("name", t.Name)
		v.text("arguments", t.Arguments)
		v.text("result", t.Result)
		v.text("error", t.Error)
	})
	v.label("model", x.Model)
	v.label("model_version", x.ModelVersion)
	v.label("prompt_version", x.PromptVersion)
	v.each("applied_patches", len(x.AppliedPatches), func(i int) {
		id, version, ok := strings.Cut(x.AppliedPatches[i], "@")
		if !ok || id == "" || version == "" {
			v.fail("", InvalidValue, `want "id@version"`)
		}
		v.id("", x.AppliedPatches[i])
	})
	v.label("finish_reason", x.FinishReason)
	v.label("language", x.Language)
	v.id("alternative_to", x.AlternativeTo)
	if x.AlternativeTo != "" && x.AlternativeTo == id {
		v.fail("alternative_to", InvalidValue, "an interaction is no alternative to itself")
	}
	v.labels("parameters", x.Parameters)
	if len(x.OutputRedactions) > 0 {
		v.fail("output_redactions", NotAllowed, "the enricher sets this: leave it out")
	}
	v.required("", !empty || x.Model != "" || len(x.Retrieved) > 0 || len(x.Tools) > 0, "want at least a query, an output or a model")
}

func (v *validator) feedback(f *eventv1.Feedback, id string) {
	said := f.Thumb != "" || f.Stars != nil || f.Score != nil || f.Min != nil || f.Max != nil || len(f.Categories) > 0 ||
		f.Comment != "" || f.Correction != "" || len(f.Edits) > 0 || f.PreferredInteractionId != ""
	if f.Retract && said {
		v.fail("retract", NotAllowed, "retract stands alone: send what else there is as feedback of its own")
	}
	v.required("", said || f.Retract, "want at least one of thumb, stars, score, categories, comment, correction, edits, retract, preferred_interaction_id")
	if f.Thumb != "" {
		v.oneOf("thumb", f.Thumb, thumbs)
	}
	if f.Stars != nil && (*f.Stars < 1 || *f.Stars > 5) {
		v.fail("stars", jsonpb.OutOfRange, "want 1 to 5")
	}
	v.score(f)
	v.each("categories", len(f.Categories), func(i int) {
		v.required("", strings.TrimSpace(f.Categories[i]) != "", "want a category that is not empty")
		v.label("", f.Categories[i])
	})
	v.text("comment", f.Comment)
	v.text("correction", f.Correction)
	v.each("edits", len(f.Edits), func(i int) { v.edit(f.Edits[i]) })
	v.id("preferred_interaction_id", f.PreferredInteractionId)
	if f.PreferredInteractionId != "" && f.PreferredInteractionId == id {
		v.fail("preferred_interaction_id", InvalidValue, "want another interaction than interaction_id")
	}
}

func (v *validator) score(f *eventv1.Feedback) {
	v.finite("score", f.Score)
	v.finite("min", f.Min)
	v.finite("max", f.Max)
	if f.Score == nil {
		v.required("score", f.Min == nil && f.Max == nil, "min and max are the range of a score, which is missing")
		return
	}
	v.required("min", f.Min != nil, "a score needs its range")
	v.required("max", f.Max != nil, "a score needs its range")
	if v.err != nil {
		return
	}
	switch {
	case *f.Min >= *f.Max:
		v.fail("max", jsonpb.OutOfRange, "want more than min")
	case math.IsInf(*f.Max-*f.Min, 0):
		v.fail("max", jsonpb.OutOfRange, "want a range of finite width")
	case *f.Score < *f.Min || *f.Score > *f.Max:
		v.fail("score", jsonpb.OutOfRange, "want %g to %g (min to max)", *f.Min, *f.Max)
	}
}

func (v *validator) edit(e *eventv1.Edit) {
	v.oneOf("kind", e.Kind, editKinds)
	if e.Start >= e.End {
		v.fail("end", jsonpb.OutOfRange, "want more than start: a range is [start, end)")
	}
	v.text("quote", e.Quote)
	if n := utf8.RuneCountInString(e.Quote); e.Quote != "" && uint32(n) != e.End-e.Start {
		v.fail("quote", InvalidValue, "has %d characters, but the range has %d: count Unicode code points", n, e.End-e.Start)
	}
	v.text("text", e.Text)
	if e.Kind == "replace" {
		v.required("text", e.Text != "", `want what replaces the range; to remove it use "delete"`)
	} else if e.Text != "" {
		v.fail("text", NotAllowed, `only "replace" has a text`)
	}
	if e.Kind == "tag" {
		v.required("tag", e.Tag != "", "want the label")
	} else if e.Tag != "" {
		v.fail("tag", NotAllowed, `only "tag" has a tag`)
	}
	v.label("tag", e.Tag)
}

func (v *validator) behavior(b *eventv1.Behavior) {
	v.oneOf("kind", b.Kind, behaviorKinds)
	if b.Kind == "custom" {
		v.required("name", b.Name != "", "a custom behavior needs a name")
	} else if b.Name != "" {
		v.fail("name", NotAllowed, `only "custom" has a name`)
	}
	v.label("name", b.Name)
	v.text("text", b.Text)
	v.labels("properties", b.Properties)
}
