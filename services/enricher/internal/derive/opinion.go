package derive

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"

	"google.golang.org/protobuf/proto"

	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"

	"github.com/honeloop/hone/services/enricher/internal/redact"
)

// opinion is what one user's explicit feedback on one interaction amounts to
// (DECISIONS.md 3): for each dimension the event that said it last, nil where
// none did.
type opinion struct {
	rating                                                      *eventv1.Event // the newest of thumb, stars and score
	thumb, stars, score, categories, comment, correction, edits *eventv1.Event
}

// hear folds the next event in.
func (o *opinion) hear(e *eventv1.Event) {
	var said opinion
	f := e.GetFeedback()
	if f.Thumb != "" {
		said.thumb, said.rating = e, e
	}
	if f.Stars != nil {
		said.stars, said.rating = e, e
	}
	if f.Score != nil {
		said.score, said.rating = e, e
	}
	if len(f.Categories) > 0 {
		said.categories = e
	}
	// A comment beside a comparison explains the comparison.
	if f.Comment != "" && f.PreferredInteractionId == "" {
		said.comment = e
	}
	if f.Correction != "" {
		said.correction = e
	}
	if len(f.Edits) > 0 {
		said.edits = e
	}

	changedMind := o.rating != nil && said.rating != nil && o.polarity() != said.polarity()
	if f.Retract || changedMind {
		*o = opinion{}
	}
	for _, d := range []struct{ to, from **eventv1.Event }{
		{&o.rating, &said.rating}, {&o.thumb, &said.thumb}, {&o.stars, &said.stars}, {&o.score, &said.score},
		{&o.categories, &said.categories}, {&o.comment, &said.comment}, {&o.correction, &said.correction}, {&o.edits, &said.edits},
	} {
		if *d.from != nil {
			*d.to = *d.from
		}
	}
}

// events are those that still count, in order, each once.
func (o *opinion) events() []*eventv1.Event {
	var out []*eventv1.Event
	for _, e := range []*eventv1.Event{o.thumb, o.stars, o.score, o.categories, o.comment, o.correction, o.edits} {
		if e != nil && !slices.Contains(out, e) {
			out = append(out, e)
		}
	}
	return InOrder(out)
}

// evidence is what event e contributes.
func (o *opinion) evidence(e *eventv1.Event, about *eventv1.Interaction) []*signalv1.Evidence {
	f := e.GetFeedback()
	var out []*signalv1.Evidence
	add := func(kind, detail string) {
		out = append(out, &signalv1.Evidence{EventId: e.EventId, Kind: kind, Detail: detail})
	}
	if o.thumb == e {
		add("thumb", "thumb "+f.Thumb)
	}
	if o.stars == e {
		add("stars", fmt.Sprintf("%d of 5 stars", f.GetStars()))
	}
	if o.score == e {
		add("score", fmt.Sprintf("score %g from %g to %g", f.GetScore(), f.GetMin(), f.GetMax()))
	}
	if o.categories == e {
		for _, c := range f.Categories {
			add("category", "category "+c)
		}
	}
	if o.comment == e {
		add("comment", "wrote a comment")
	}
	if o.correction == e {
		add("correction", "gave a better answer")
	}
	if o.edits == e {
		if about == nil {
			add("edit", "marked the answer, which has not arrived")
			return out
		}
		fit, unfit := fittingEdits(e, about)
		for _, edit := range fit {
			out = append(out, &signalv1.Evidence{EventId: e.EventId, Kind: "edit", Detail: describe(edit), Start: edit.Start, End: edit.End})
		}
		for _, err := range unfit {
			add(EvidenceUnfitEdit, err.Error())
		}
	}
	return out
}

// EvidenceUnfitEdit is the kind of evidence that an edit did not fit its output.
const EvidenceUnfitEdit = "unfit_edit"

// fittingEdits are the edits of e that fit the output, each with the text that it
// covers as its quote, and why the others do not.
func fittingEdits(e *eventv1.Event, about *eventv1.Interaction) (fit []*eventv1.Edit, unfit []error) {
	edits := e.GetFeedback().GetEdits()
	if len(edits) == 0 {
		return nil, nil
	}
	chars := []rune(about.Output)
	for i, edit := range edits {
		edit, err := fitEdit(edit, chars, about.OutputRedactions)
		if err != nil {
			unfit = append(unfit, fmt.Errorf("edits[%d] does not count: %s [%d, %d) %w", i, edit.Kind, edit.Start, edit.End, err))
			continue
		}
		fit = append(fit, edit)
	}
	return fit, unfit
}

// fitEdit is an edit with its range in the output as it is here, where pieces
// may have been redacted. With an error it is the edit as it came.
func fitEdit(e *eventv1.Edit, output []rune, redactions []*eventv1.Redaction) (*eventv1.Edit, error) {
	switch {
	case e.Start > e.End:
		return e, fmt.Errorf("ends before it starts")
	case e.Start == e.End && e.Kind != "replace":
		return e, fmt.Errorf("covers no characters")
	}
	start, end := redact.Translate(redactions, e.Start, e.End)
	if int(end) > len(output) {
		return e, fmt.Errorf("ends after the output, which has %d characters%s", len(output), otherwise(e, output))
	}
	covered := string(output[start:end])
	if e.Quote != "" && !redact.SameText(e.Quote, covered) {
		return e, fmt.Errorf("covers %s, not the quoted %s%s", quoted(covered), quoted(e.Quote), otherwise(e, output))
	}
	e = proto.CloneOf(e)
	e.Start, e.End, e.Quote = start, end, covered
	return e, nil
}

// otherwise guesses how an emitter counted that counts wrong.
func otherwise(e *eventv1.Edit, output []rune) string {
	if e.Quote == "" {
		return ""
	}
	if units := utf16.Encode(output); int(e.End) <= len(units) && string(utf16.Decode(units[e.Start:e.End])) == e.Quote {
		return ": it counts UTF-16 units, want Unicode code points"
	}
	if text := string(output); int(e.End) <= len(text) && text[e.Start:e.End] == e.Quote {
		return ": it counts bytes, want Unicode code points"
	}
	if text := []rune(strings.ReplaceAll(string(output), "\r\n", "\n")); int(e.End) <= len(text) && string(text[e.Start:e.End]) == e.Quote {
		return ": the output has CRLF line ends, which count as two characters"
	}
	return ""
}

func describe(e *eventv1.Edit) string {
	switch {
	case e.Kind == "replace" && e.Start == e.End:
		return "insert " + quoted(e.Text)
	case e.Kind == "replace":
		return "replace with " + quoted(e.Text)
	case e.Kind == "tag":
		return "tag " + quoted(e.Tag)
	default:
		return e.Kind
	}
}
