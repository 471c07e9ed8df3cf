package redact

import (
	"strings"
	"testing"
)

// mark shows spans in a text as ⟦type|…⟧.
func mark(text string, spans []Span) string {
	var b strings.Builder
	at := 0
	for _, s := range spans {
		b.WriteString(text[at:s.Start] + "⟦" + s.Type.String() + "|" + text[s.Start:s.End] + "⟧")
		at = s.End
	}
	return b.String() + text[at:]
}

// unmark is the inverse of mark.
func unmark(t *testing.T, marked string) (string, []Span) {
	t.Helper()
	var b strings.Builder
	var spans []Span
	for {
		before, rest, found := strings.Cut(marked, "⟦")
		b.WriteString(before)
		if !found {
			return b.String(), spans
		}
		inside, after, _ := strings.Cut(rest, "⟧")
		name, value, _ := strings.Cut(inside, "|")
		typ, ok := TypeOf(name)
		if !ok {
			t.Fatalf("unknown type %q", name)
		}
		spans = append(spans, Span{b.Len(), b.Len() + len(value), typ})
		b.WriteString(value)
		marked = after
	}
}
