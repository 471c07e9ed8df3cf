package embedder

import (
	"cmp"
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"

	recallv1 "github.com/honeloop/hone/proto/gen/go/hone/recall/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"

	"github.com/honeloop/hone/services/embedder/internal/relevance"
)

const (
	maxTags     = 50
	maxMetadata = 256 // bytes of a name or a value

	// A field that differs makes a case count so much less in the order. It is
	// not left out: the same mistake may be in another version, too.
	differing = 0.5
)

// metadataOf is what is known of a signal's interaction, as the index has it: a
// URL's query, by the names of RecallMetadata's fields.
func metadataOf(s *signalv1.Signal) string {
	i := s.GetInteraction()
	v := url.Values{}
	set := func(name, value string) {
		if value != "" {
			v.Set(name, value)
		}
	}
	set("model", i.GetModel())
	set("model_version", i.GetModelVersion())
	set("prompt_version", i.GetPromptVersion())
	set("language", i.GetLanguage())
	set("environment", s.GetEnvironment())
	for name, value := range s.GetTags() {
		set("tags."+name, value)
	}
	return v.Encode()
}

// asked is a field of a request's metadata.
type asked struct{ name, value string }

func askedMetadata(m *recallv1.RecallMetadata) ([]asked, error) {
	var out []asked
	all := []asked{
		{"model", m.GetModel()}, {"model_version", m.GetModelVersion()}, {"prompt_version", m.GetPromptVersion()},
		{"environment", m.GetEnvironment()}, {"language", m.GetLanguage()},
	}
	if n := len(m.GetTags()); n > maxTags {
		return nil, invalid("metadata.tags", fmt.Sprintf("%d of them, want at most %d", n, maxTags))
	}
	for _, name := range slices.Sorted(maps.Keys(m.GetTags())) {
		if len(name) > maxMetadata {
			return nil, invalid("metadata.tags", fmt.Sprintf("a name of %d bytes, want at most %d", len(name), maxMetadata))
		}
		all = append(all, asked{"tags." + name, m.GetTags()[name]})
	}
	for _, a := range all {
		if len(a.value) > maxMetadata {
			return nil, invalid("metadata."+a.name, fmt.Sprintf("%d bytes, want at most %d", len(a.value), maxMetadata))
		}
		if a.value != "" {
			out = append(out, a)
		}
	}
	return out, nil
}

// seenWith is the metadata of negative signals near a query, by case. Another
// version that did well is none that has the problem.
type seenWith map[string][]url.Values

func (s seenWith) add(caseID, metadata string) {
	if v, err := url.ParseQuery(metadata); err == nil && len(v) > 0 {
		s[caseID] = append(s[caseID], v)
	}
}

// differs names what a case was seen with other values of alone. Where nothing
// is known nothing differs.
func (s seenWith) differs(caseID string, wanted []asked) []string {
	var out []string
	for _, w := range wanted {
		known, same := false, false
		for _, v := range s[caseID] {
			value := v.Get(w.name)
			known = known || value != ""
			same = same || strings.EqualFold(value, w.value)
		}
		if known && !same {
			out = append(out, w.name)
		}
	}
	return out
}

// prefer puts cases that were seen under other circumstances after those that
// are about as relevant.
func (s seenWith) prefer(ranked []relevance.Ranked, wanted []asked) {
	if len(wanted) == 0 {
		return
	}
	place := map[string]float64{}
	for _, r := range ranked {
		place[r.Case] = r.Relevance
		for range s.differs(r.Case, wanted) {
			place[r.Case] *= differing
		}
	}
	slices.SortStableFunc(ranked, func(a, b relevance.Ranked) int { return cmp.Compare(place[b.Case], place[a.Case]) })
}
