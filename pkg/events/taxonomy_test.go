package events

import (
	"strings"
	"testing"
)

func TestTaxonomyKnowsNamesAndAliases(t *testing.T) {
	tax, err := NewTaxonomy(map[string]Category{
		"house_style": {Description: "Breaks the style guide.", Severity: "low", Aliases: []string{"Off brand"}},
		"outdated":    {Severity: "critical", Aliases: []string{"old policy"}},
	})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		word, name, severity string
		known                bool
	}{
		{"factually_incorrect", "factually_incorrect", "high", true},
		{"Factually incorrect", "factually_incorrect", "high", true},
		{"  WRONG-tone ", "wrong_tone", "low", true},
		{"Didn’t fully follow instructions", "ignored_instruction", "medium", true},
		{"off brand", "house_style", "low", true},
		{"Old Policy", "outdated", "critical", true},
		{"stale", "outdated", "critical", true},
		{"Zu höflich!", "zu_höflich", "medium", false},
		{"👎", "👎", "medium", false},
	}
	for _, tt := range tests {
		name, known := tax.Name(tt.word)
		if name != tt.name || known != tt.known || tax.Severity(name) != tt.severity {
			t.Errorf("%q: %s, %t, %s; want %s, %t, %s", tt.word, name, known, tax.Severity(name), tt.name, tt.known, tt.severity)
		}
	}
	if c, _ := tax.Category("outdated"); c.Description == "" {
		t.Error("a category that a project changes lost its description")
	}
}

func TestTaxonomyRefusesWithTheName(t *testing.T) {
	for _, tt := range []struct {
		own  map[string]Category
		want string
	}{
		{map[string]Category{"House Style": {}}, `House Style: want the name as "house_style"`},
		{map[string]Category{"house_style": {Severity: "fatal"}}, "house_style: severity"},
		{map[string]Category{"house_style": {Aliases: []string{"Verbose"}}}, `already`},
	} {
		if _, err := NewTaxonomy(tt.own); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v: %v, want an error with %q", tt.own, err, tt.want)
		}
	}
}
