package projects

import (
	"errors"
	"fmt"
	"maps"
	"slices"
)

// Privacy says which personal data the enricher takes out of what people and
// applications send, before anything else sees it.
type Privacy struct {
	// Types to replace by placeholders, by name; see PrivacyTypes.
	Redact map[string]bool `yaml:"redact"`
	// Fields that stay as they are; see PrivacyFields.
	Leave []string `yaml:"leave"`
	// Keep what each placeholder stands for, encrypted; the enricher needs a key
	// for it.
	KeepOriginals bool `yaml:"keep_originals"`
}

// PrivacyTypes are the types of personal data, and whether they are replaced
// where a project says nothing.
func PrivacyTypes() map[string]bool {
	return map[string]bool{
		"email": true, "phone": true, "card": true, "iban": true, "national_id": true, "ip": true, "secret": true, "credentials": true,
		"name": true, "address": true, "place": true,
		// These say little about who somebody is, and much about what went wrong.
		"url": false, "date": false, "country": false, "organization": false, "title": false, "age": false, "nationality": false,
	}
}

// PrivacyFields are the fields of events that are looked at.
func PrivacyFields() []string {
	return []string{"query", "system_context", "retrieved", "tools", "output", "parameters", "comment", "correction", "edits", "behavior", "tags"}
}

// DefaultPrivacy takes out what leads to a person, everywhere.
func DefaultPrivacy() Privacy {
	return Privacy{Redact: PrivacyTypes()}
}

// Validate joins all that is wrong, each with its key.
func (p Privacy) Validate() error {
	var errs []error
	known := PrivacyTypes()
	for _, name := range slices.Sorted(maps.Keys(p.Redact)) {
		if _, ok := known[name]; !ok {
			errs = append(errs, fmt.Errorf("redact.%s: want one of %q", name, slices.Sorted(maps.Keys(known))))
		}
	}
	for i, field := range p.Leave {
		if !slices.Contains(PrivacyFields(), field) {
			errs = append(errs, fmt.Errorf("leave[%d]: %q: want one of %q", i, field, PrivacyFields()))
		}
	}
	return errors.Join(errs...)
}
