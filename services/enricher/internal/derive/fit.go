package derive

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"google.golang.org/protobuf/proto"

	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"
)

const (
	// maxSignalBytes keeps a signal, and what later stages add to it, under
	// Kafka's limit of 1 MB. Two answers and a correction can be more.
	maxSignalBytes = 600_000
	// cutBytes is what is left of a long text when a signal is cut.
	cutBytes = 80_000
)

const evidenceShortened = "shortened"

// Shortened says whether something was left out of a signal to make it fit.
func Shortened(s *signalv1.Signal) bool { return HasEvidence(s, evidenceShortened) }

// HasEvidence says whether a signal has evidence of a kind.
func HasEvidence(s *signalv1.Signal, kind string) bool {
	return slices.ContainsFunc(s.Evidence, func(e *signalv1.Evidence) bool { return e.Kind == kind })
}

// fit shortens a signal that is too large, and says so in its evidence. The
// trail still has all.
func fit(s *signalv1.Signal) {
	if proto.Size(s) <= maxSignalBytes {
		return
	}
	// The messages are the trail's own: copy before changing.
	s.Interaction = cloneInteraction(s.Interaction)
	s.Preferred = cloneInteraction(s.Preferred)
	answers := slices.DeleteFunc([]*eventv1.Interaction{s.Interaction, s.Preferred}, func(i *eventv1.Interaction) bool { return i == nil })
	var left []string
	steps := []struct {
		what string
		do   func()
	}{
		{"retrieved passages and tool calls left out", func() {
			for _, i := range answers {
				i.Retrieved, i.Tools = nil, nil
			}
		}},
		{"system context left out", func() {
			for _, i := range answers {
				i.SystemContext = ""
			}
		}},
		{"edits and changes left out", func() { s.Edits, s.Changes = nil, nil }},
		{fmt.Sprintf("texts cut to %d bytes", cutBytes), func() {
			for _, i := range answers {
				i.Query, i.Output = cut(i.Query), cut(i.Output)
			}
			s.Comment, s.Correction = cut(s.Comment), cut(s.Correction)
		}},
	}
	for _, step := range steps {
		step.do()
		left = append(left, step.what)
		if proto.Size(s) <= maxSignalBytes {
			break
		}
	}
	s.Evidence = append(s.Evidence, &signalv1.Evidence{Kind: evidenceShortened, Detail: "too large to pass on whole: " + strings.Join(left, ", ")})
}

func cloneInteraction(i *eventv1.Interaction) *eventv1.Interaction {
	if i == nil {
		return nil
	}
	return proto.CloneOf(i)
}

// cut keeps at most cutBytes, in whole characters.
func cut(s string) string { return cutTo(s, cutBytes) }

func cutTo(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

// quoted is text in evidence: its beginning, in quotes.
func quoted(s string) string {
	const most = 200
	if len(s) > most {
		return fmt.Sprintf("%q...", cutTo(s, most))
	}
	return fmt.Sprintf("%q", s)
}
