package jsonpb

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// Reason says what kind of mistake a FieldError is about. The set is closed, so
// that it can label a metric.
type Reason string

// The reasons that this package gives.
const (
	BrokenJSON   Reason = "broken_json"
	WrongType    Reason = "wrong_type"
	OutOfRange   Reason = "out_of_range"
	UnknownField Reason = "unknown_field"
	Duplicate    Reason = "duplicate_field"
	TooMany      Reason = "too_many"
)

// FieldError is one mistake of whoever wrote the input.
type FieldError struct {
	// Path of the field from the top of the input, such as
	// "events[3].feedback.edits[0].start"; empty for the whole.
	Field   string
	Reason  Reason
	Message string
}

func (e *FieldError) Error() string {
	if e.Field == "" {
		return e.Message
	}
	return e.Field + ": " + e.Message
}

// In puts a field name before the path.
func (e *FieldError) In(name string) *FieldError {
	switch {
	case e.Field == "" || e.Field[0] == '[':
		e.Field = name + e.Field
	default:
		e.Field = name + "." + e.Field
	}
	return e
}

// At puts an index before the path.
func (e *FieldError) At(index int) *FieldError {
	return e.In("[" + strconv.Itoa(index) + "]")
}

// Key puts a map key, or another name that the input chose, before the path.
func (e *FieldError) Key(key string) *FieldError {
	if plainName(key) {
		return e.In(key)
	}
	return e.In("[" + strconv.Quote(shorten(key)) + "]")
}

// maxName is how many bytes of a name that the input chose an error repeats.
const maxName = 64

func plainName(s string) bool {
	if s == "" || len(s) > maxName {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-') {
			return false
		}
	}
	return true
}

func shorten(s string) string {
	if len(s) <= maxName {
		return s
	}
	s = s[:maxName]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s + "…"
}

// suggest is the name that was probably meant; empty where none is near.
func suggest(name string, names []string) string {
	if len(name) > maxName {
		return ""
	}
	plain := fold(name)
	best, bestDistance := "", 1+max(1, len(name)/3)
	for _, candidate := range names {
		if fold(candidate) == plain {
			return candidate
		}
		if d := distance(name, candidate); d < bestDistance {
			best, bestDistance = candidate, d
		}
	}
	return best
}

// fold makes camelCase, kebab-case and snake_case the same.
func fold(s string) string {
	return strings.ToLower(strings.NewReplacer("_", "", "-", "", " ", "").Replace(s))
}

// distance is the number of bytes to insert, delete, replace or swap with the
// next to get from a to b (optimal string alignment).
func distance(a, b string) int {
	var before []int
	prev := make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(prev[j]+1, row[j-1]+1, prev[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], before[j-2]+1)
			}
		}
		before, prev = prev, row
	}
	return prev[len(b)]
}
