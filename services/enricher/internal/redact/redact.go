package redact

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// Find returns the spans of the wanted types, in order; none overlaps another.
func Find(text string, want Types) []Span { return model().Find(text, want) }

// Find is Find with this tagger.
func (m *Tagger) Find(text string, want Types) []Span {
	s := scanner{text: text}
	s.scan()
	spans := s.spans
	if want&byWords != 0 && (s.capitals || s.numerals) {
		spans = m.tag(&s, spans)
		slices.SortFunc(spans, func(a, b Span) int { return a.Start - b.Start })
	}
	return slices.DeleteFunc(spans, func(sp Span) bool { return !want.Has(sp.Type) })
}

// Session makes placeholders for one session.
type Session struct {
	key              []byte
	project, session string
}

// NewSession makes the placeholders of a session. key is secret: who has it can
// try out what a placeholder stands for.
func NewSession(key []byte, project, session string) Session {
	return Session{key, project, session}
}

// Placeholder is what stands for a value: the same for the same value in the
// whole session, in whatever order its events come. Of ten values of one type
// two get the same number in one session of 200.
func (s Session) Placeholder(t Type, value string) string {
	h := hmac.New(sha256.New, s.key)
	for _, part := range []string{s.project, s.session, t.String(), normalize(t, value)} {
		var n [4]byte
		binary.BigEndian.PutUint32(n[:], uint32(len(part)))
		h.Write(n[:])
		h.Write([]byte(part))
	}
	n := binary.BigEndian.Uint32(h.Sum(nil))
	return fmt.Sprintf("<%s_%04d>", strings.ToUpper(t.String()), n%10_000)
}

// normalize makes one of the ways to write a value.
func normalize(t Type, value string) string {
	switch t {
	case Phone, Card:
		return digits(value)
	case IBAN, NationalID:
		return strings.ToUpper(strings.NewReplacer(" ", "", "-", "", ".", "").Replace(value))
	case Secret, Credentials, URL:
		return value
	}
	return strings.ToLower(strings.Join(strings.Fields(value), " "))
}

// Replaced is a span that was replaced, in code points of the text that came,
// and the code points of what stands there now.
type Replaced struct {
	Start, End, Length int
	Type               Type
	Placeholder, Value string
}

// Text replaces what it finds. The text comes back as it is where there is
// nothing.
func (s Session) Text(text string, want Types) (string, []Replaced) {
	spans := Find(text, want)
	if len(spans) == 0 {
		return text, nil
	}
	var b strings.Builder
	var out []Replaced
	at, chars := 0, 0
	for _, sp := range spans {
		b.WriteString(text[at:sp.Start])
		chars += utf8.RuneCountInString(text[at:sp.Start])
		value := text[sp.Start:sp.End]
		placeholder := s.Placeholder(sp.Type, value)
		b.WriteString(placeholder)
		n := utf8.RuneCountInString(value)
		out = append(out, Replaced{Start: chars, End: chars + n, Length: len(placeholder), Type: sp.Type, Placeholder: placeholder, Value: value})
		chars += n
		at = sp.End
	}
	b.WriteString(text[at:])
	return b.String(), out
}
