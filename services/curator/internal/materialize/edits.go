package materialize

import (
	"errors"
	"slices"
	"strings"

	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
)

// applyEdits applies "replace" and "delete" to a text. changed says whether
// there were any. It fails where ranges overlap, lie outside, or do not cover
// their quote.
func applyEdits(text string, edits []*eventv1.Edit) (edited string, changed bool, err error) {
	var todo []*eventv1.Edit
	for _, e := range edits {
		if e.GetKind() == "replace" || e.GetKind() == "delete" {
			todo = append(todo, e)
		}
	}
	if len(todo) == 0 {
		return text, false, nil
	}
	slices.SortStableFunc(todo, func(a, b *eventv1.Edit) int { return int(a.GetStart()) - int(b.GetStart()) })
	runes := []rune(text)
	var out strings.Builder
	at := 0
	for _, e := range todo {
		start, end := int(e.GetStart()), int(e.GetEnd())
		if start < at || end < start || end > len(runes) {
			return "", false, errors.New("ranges overlap or lie outside of the text")
		}
		if e.GetQuote() != "" && string(runes[start:end]) != e.GetQuote() {
			return "", false, errors.New("a quote is not what its range covers")
		}
		out.WriteString(string(runes[at:start]))
		if e.GetKind() == "replace" {
			out.WriteString(e.GetText())
		}
		at = end
	}
	out.WriteString(string(runes[at:]))
	edited = out.String()
	return edited, edited != text, nil
}
