package ids

import "testing"

func TestDeriveKeepsPartsApart(t *testing.T) {
	seen := map[string][]string{}
	for _, parts := range [][]string{{"ab", "c"}, {"a", "bc"}, {"abc"}, {"abc", ""}, {"", "abc"}, {}} {
		id := Derive("x", parts...)
		if other, ok := seen[id]; ok {
			t.Errorf("Derive(%q) = Derive(%q) = %s", parts, other, id)
		}
		seen[id] = parts
	}
	if got := Derive("sg", "p", "s"); got != Derive("sg", "p", "s") || len(got) != len("sg_")+26 {
		t.Errorf("Derive = %q, want a stable id of 29 characters", got)
	}
}

func TestUUIDIsScopedByProject(t *testing.T) {
	if UUID("a", "x") == UUID("b", "x") {
		t.Error("two projects share a UUID")
	}
}
