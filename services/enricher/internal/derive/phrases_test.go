package derive

import (
	"slices"
	"strings"
	"testing"
)

// A book finds what a search for each phrase finds, in the same order.
func TestPhraseBookFindsWhatSearchFinds(t *testing.T) {
	search := func(all []phrase, text string) (out []phrase) {
		for _, p := range all {
			if len(out) > 0 && out[len(out)-1].kind == p.kind {
				continue
			}
			if strings.HasPrefix(text, p.words) || !p.atStart && strings.Contains(text, p.words) {
				out = append(out, p)
			}
		}
		return out
	}
	all := allPhrases()
	book := newPhraseBook(all)
	texts := []string{"", " ", "...", "thanks", "No, thanks but that's wrong: I asked for a human agent", "wrong", "it is wrong, not what I asked"}
	for i, p := range all {
		other := all[(i*37+11)%len(all)].words
		texts = append(texts, p.words, "well "+p.words, p.words+other, "x"+p.words+"and"+other+"y", strings.TrimSpace(p.words)+"s")
	}
	for _, text := range texts {
		text = plain(text)
		if got, want := book.find(text), search(all, text); !slices.Equal(got, want) {
			t.Errorf("find(%q) = %v, want %v", text, got, want)
		}
	}
}
