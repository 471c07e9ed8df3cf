package cli

import (
	"slices"
	"strings"
	"testing"
)

func TestDiffLines(t *testing.T) {
	for _, tt := range []struct{ a, b, want string }{
		{"a b c", "a b c", "  a|  b|  c"},
		{"a b c", "a x c", "  a|- b|+ x|  c"},
		{"a", "a b", "  a|+ b"},
		{"a b c d", "b d e", "- a|  b|- c|  d|+ e"},
		{"", "x", "+ x"},
	} {
		got := diffLines(strings.Fields(tt.a), strings.Fields(tt.b))
		if want := strings.Split(tt.want, "|"); !slices.Equal(got, want) {
			t.Errorf("%q to %q: %q, want %q", tt.a, tt.b, got, want)
		}
	}
}
