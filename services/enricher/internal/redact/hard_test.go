package redact

import (
	"os"
	"strings"
	"testing"
)

// TestHardNegatives pins that nothing is found in code, logs and identifiers,
// whatever the types. Years, weekdays and dates are what they are, so Date and
// URL are left out.
func TestHardNegatives(t *testing.T) {
	for _, text := range hardNegatives(t) {
		if got := Find(text, AllTypes&^SetOf(Date, URL)); len(got) > 0 {
			t.Errorf("found %s", mark(text, got))
		}
	}
}

// hardNegatives are texts, parted by lines of four dashes.
func hardNegatives(t testing.TB) []string {
	t.Helper()
	data, err := os.ReadFile("testdata/hard_negatives.txt")
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(strings.TrimSpace(string(data)), "\n----\n")
}
