package events

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// Severities, rising.
const (
	SeverityLow      = "low"
	SeverityMedium   = "medium"
	SeverityHigh     = "high"
	SeverityCritical = "critical"
)

// Severities in order.
var severities = []string{SeverityLow, SeverityMedium, SeverityHigh, SeverityCritical}

// SeverityRank is the place of a severity, from 0; -1 where it is none.
func SeverityRank(severity string) int { return slices.Index(severities, severity) }

// Category says what is wrong with an answer.
type Category struct {
	Description string `yaml:"description"`
	// low, medium, high or critical; medium where it is missing.
	Severity string `yaml:"severity"`
	// Other names that emitters send for it.
	Aliases []string `yaml:"aliases"`
}

// BuiltInCategories are those that every project has.
func BuiltInCategories() map[string]Category {
	return map[string]Category{
		"factually_incorrect":  {"States something that is not so.", SeverityHigh, []string{"incorrect", "wrong", "wrong_facts", "inaccurate", "not_factual", "not_factually_correct", "hallucination"}},
		"outdated":             {"Was right once.", SeverityHigh, []string{"out_of_date", "stale"}},
		"unsafe":               {"Harmful, or invites harm.", SeverityCritical, []string{"harmful", "offensive", "dangerous", "toxic"}},
		"incomplete":           {"Leaves out something that was asked for.", SeverityMedium, []string{"missing_information", "not_complete"}},
		"misunderstood_intent": {"Answers another question than was meant.", SeverityMedium, []string{"misunderstood", "misunderstood_the_intent", "wrong_intent"}},
		"ignored_instruction":  {"Does not do as it was told.", SeverityMedium, []string{"ignored_instructions", "ignored_an_instruction", "didnt_follow_instructions", "did_not_follow_instructions", "didnt_fully_follow_instructions", "instructions_not_followed"}},
		"off_topic":            {"Is about something else.", SeverityMedium, []string{"irrelevant", "not_relevant"}},
		"refused":              {"Does not answer although it could.", SeverityMedium, []string{"refusal", "refused_when_it_shouldnt_have", "unhelpful_refusal"}},
		"product_problem":      {"The product or its interface is at fault, not the answer.", SeverityMedium, []string{"interface_problem", "ui_problem", "ui_bug", "product_bug", "bug", "product_or_interface_problem"}},
		"wrong_tone":           {"Says it in the wrong way.", SeverityLow, []string{"tone", "bad_tone", "dont_like_the_style"}},
		"formatting":           {"Is badly laid out.", SeverityLow, []string{"format", "bad_formatting", "wrong_format"}},
		"too_long":             {"Says too much.", SeverityLow, []string{"verbose", "too_verbose"}},
		"too_short":            {"Says too little.", SeverityLow, []string{"terse", "too_brief"}},
	}
}

// Taxonomy is the categories of a project. It is safe for concurrent use.
type Taxonomy struct {
	categories map[string]Category
	names      map[string]string // of each name and alias, in its form
}

// NewTaxonomy adds a project's categories to the built-in ones. One with a
// built-in name replaces what is set of it, and its aliases are added. An error
// names the category.
func NewTaxonomy(own map[string]Category) (*Taxonomy, error) {
	t := &Taxonomy{categories: BuiltInCategories(), names: map[string]string{}}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(own)) {
		c, have := own[name], t.categories[name]
		if form := CategoryForm(name); form != name {
			errs = append(errs, fmt.Errorf("%s: want the name as %q", name, form))
			continue
		}
		if c.Severity != "" && SeverityRank(c.Severity) < 0 {
			errs = append(errs, fmt.Errorf("%s: severity: want one of %q", name, severities))
		}
		c.Description = first(c.Description, have.Description)
		c.Severity = first(c.Severity, have.Severity, SeverityMedium)
		c.Aliases = slices.Concat(have.Aliases, c.Aliases)
		t.categories[name] = c
	}
	for name := range t.categories {
		t.names[name] = name
	}
	for _, name := range slices.Sorted(maps.Keys(t.categories)) {
		for _, alias := range t.categories[name].Aliases {
			form := CategoryForm(alias)
			if other, taken := t.names[form]; taken && other != name {
				errs = append(errs, fmt.Errorf("%s: alias %q: means %s already", name, alias, other))
				continue
			}
			t.names[form] = name
		}
	}
	return t, errors.Join(errs...)
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}

// Name is the category that a word means, and whether the taxonomy has it. Of
// one that it has not, the name is the word in its form.
func (t *Taxonomy) Name(word string) (string, bool) {
	form := CategoryForm(word)
	if name, ok := t.names[form]; ok {
		return name, true
	}
	return form, false
}

// Severity is that of a category by its name; medium where it is unknown.
func (t *Taxonomy) Severity(name string) string {
	return first(t.categories[name].Severity, SeverityMedium)
}

// Category is a category by its name.
func (t *Taxonomy) Category(name string) (Category, bool) {
	c, ok := t.categories[name]
	return c, ok
}

// Names are all categories, sorted.
func (t *Taxonomy) Names() []string { return slices.Sorted(maps.Keys(t.categories)) }

// CategoryForm is how the name of a category is written: lower case, letters and
// digits, with "_" between words. "Didn't follow" is "didnt_follow".
func CategoryForm(s string) string {
	var b strings.Builder
	gap := false
	for _, r := range norm.NFC.String(strings.ToLower(s)) {
		switch {
		case unicode.IsLetter(r) || unicode.IsNumber(r) || unicode.IsMark(r):
			if gap && b.Len() > 0 {
				b.WriteByte('_')
			}
			gap = false
			b.WriteRune(r)
		case r == '\'' || r == '’':
		default:
			gap = true
		}
	}
	if b.Len() == 0 {
		return strings.TrimSpace(s) // such as an emoji alone
	}
	return b.String()
}
