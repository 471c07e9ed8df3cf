package redact

import (
	"slices"
	"time"

	"github.com/honeloop/hone/pkg/projects"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
)

// Counts are how many spans of each type were replaced.
type Counts [numTypes]int

// Original is what a placeholder stands for. It must not be stored or logged as
// it is.
type Original struct {
	ProjectID, SessionID string
	Placeholder, Value   string
	Type                 Type
	At                   time.Time // of the event
}

// Event takes personal data out of an event, and changes nothing else. What an
// event becomes depends on it, the key and the settings alone, never on other
// events. Ids, user_id, roles, names of models and tools stay: they are the
// emitter's, and a user_id is its pseudonym for a person. It returns originals,
// each once, where the settings say that they are kept.
func Event(e *eventv1.Event, key []byte, settings projects.Privacy) (Counts, []Original) {
	r := redaction{session: NewSession(key, e.ProjectId, e.SessionId), leave: settings.Leave}
	if settings.KeepOriginals {
		r.originals = map[replacedBy]Type{}
	}
	for name, on := range settings.Redact {
		if t, known := TypeOf(name); known && on {
			r.want |= SetOf(t)
		}
	}
	if r.want == 0 {
		return r.counts, nil
	}
	r.values("tags", e.Tags)
	if x := e.GetInteraction(); x != nil {
		r.text("query", &x.Query)
		r.text("system_context", &x.SystemContext)
		for _, p := range x.Retrieved {
			r.text("retrieved", &p.Text)
			r.form("retrieved", &p.Source)
		}
		for _, t := range x.Tools {
			r.text("tools", &t.Arguments)
			r.text("tools", &t.Result)
			r.text("tools", &t.Error)
		}
		r.values("parameters", x.Parameters)
		x.OutputRedactions = nil
		for _, s := range r.text("output", &x.Output) {
			x.OutputRedactions = append(x.OutputRedactions, &eventv1.Redaction{
				Start: uint32(s.Start), End: uint32(s.End), Length: uint32(s.Length), Type: s.Type.String(),
			})
		}
	}
	if f := e.GetFeedback(); f != nil {
		r.text("comment", &f.Comment)
		r.text("correction", &f.Correction)
		for _, edit := range f.Edits {
			r.text("edits", &edit.Quote)
			r.text("edits", &edit.Text)
			r.form("edits", &edit.Tag)
		}
	}
	if b := e.GetBehavior(); b != nil {
		r.text("behavior", &b.Text)
		r.values("behavior", b.Properties)
	}
	var originals []Original
	for o, t := range r.originals {
		originals = append(originals, Original{ProjectID: e.ProjectId, SessionID: e.SessionId,
			Placeholder: o.placeholder, Value: o.value, Type: t, At: e.OccurredAt.AsTime()})
	}
	return r.counts, originals
}

type redaction struct {
	session Session
	want    Types
	leave   []string
	counts  Counts
	// originals are what is to be kept; nil where nothing is.
	originals map[replacedBy]Type
}

type replacedBy struct{ placeholder, value string }

// byForm are the types that need no words around them: labels and values of an
// application are no sentences.
var byForm = SetOf(Email, Phone, Card, IBAN, NationalID, IP, Secret, Credentials, URL)

func (r *redaction) text(field string, s *string) []Replaced { return r.replace(field, s, r.want) }

func (r *redaction) form(field string, s *string) { r.replace(field, s, r.want&byForm) }

func (r *redaction) values(field string, m map[string]string) {
	for key, value := range m {
		if r.form(field, &value); value != m[key] {
			m[key] = value
		}
	}
}

func (r *redaction) replace(field string, s *string, want Types) []Replaced {
	if *s == "" || want == 0 || slices.Contains(r.leave, field) {
		return nil
	}
	text, replaced := r.session.Text(*s, want)
	*s = text
	for _, x := range replaced {
		r.counts[x.Type]++
		if r.originals != nil {
			r.originals[replacedBy{x.Placeholder, x.Value}] = x.Type
		}
	}
	return replaced
}

// Translate finds the code points [start, end) of the text that came in the
// text that is left. A range that touches a placeholder takes in all of it.
func Translate(redactions []*eventv1.Redaction, start, end uint32) (uint32, uint32) {
	from, to := int64(start), int64(end)
	for _, r := range redactions {
		grown := int64(r.Length) - int64(r.End-r.Start)
		switch {
		case start >= r.End:
			from += grown
		case start > r.Start:
			from -= int64(start - r.Start)
		}
		switch {
		case end >= r.End:
			to += grown
		case end > r.Start:
			to += int64(r.Start) + int64(r.Length) - int64(end)
		}
	}
	return uint32(from), uint32(to)
}

// SameText says whether a quote covers a text, of which both may have been
// redacted: what stands before the first and behind the last placeholder of
// either is compared.
func SameText(quote, covered string) bool {
	if quote == covered {
		return true
	}
	q, c := placeholders(quote), placeholders(covered)
	if len(q)+len(c) == 0 {
		return false
	}
	ends := func(s string, p []Span) (head, tail string) {
		if len(p) == 0 {
			return s, s
		}
		return s[:p[0].Start], s[p[len(p)-1].End:]
	}
	qHead, qTail := ends(quote, q)
	cHead, cTail := ends(covered, c)
	n, m := min(len(qHead), len(cHead)), min(len(qTail), len(cTail))
	return qHead[:n] == cHead[:n] && qTail[len(qTail)-m:] == cTail[len(cTail)-m:]
}

// placeholders are those in a text.
func placeholders(text string) []Span {
	var out []Span
	for i := range len(text) {
		if text[i] == '<' {
			if end := placeholderEnd(text, i); end > 0 {
				out = append(out, Span{Start: i, End: end})
			}
		}
	}
	return out
}
