package derive

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/honeloop/hone/pkg/events"
	"github.com/honeloop/hone/pkg/projects"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
)

// Kinds of findings: what people do and write after an answer.
const (
	Reasked       = "reasked"         // asks the same again, in the same or other words
	Corrected     = "corrected"       // says in the next message that something is not so
	Rejected      = "rejected"        // says that it is no answer to the question
	Clarification = "clarification"   // does not understand the answer
	Approved      = "approved"        // thanks, approves
	Regenerated   = "regenerated"     // asks for another answer
	Stopped       = "stopped"         // stops the answer while it comes
	Copied        = "copied"          // copies the whole answer
	CopiedPart    = "copied_part"     // copies a part of it
	CopiedAndLeft = "copied_and_left" // copies, and asks nothing more
	EditedPrompt  = "edited_prompt"   // changes the question after the answer
	Left          = "left"            // leaves after the answer
	NoReaction    = "no_reaction"     // the session ends without any reaction
	GaveUp        = "gave_up"         // leaves after answers that failed
	AskedForHuman = "asked_for_human"
)

// Reaction is an answer and what came after it. Events are in order; nobody may
// change them.
type Reaction struct {
	// Answer is the interaction's event.
	Answer *eventv1.Event
	// Behaviors are what people did about it.
	Behaviors []*eventv1.Event
	// Next is the interaction that the person asked for next; nil where none, and
	// where the answer was replaced by another one first.
	Next *eventv1.Event
	// Replaced is another answer to the same question that came later.
	Replaced *eventv1.Event
	// Ended is the end of the session, where nothing was asked in between.
	Ended *eventv1.Event
	// Judged says that there is explicit feedback on the answer.
	Judged bool
	// Failed is how many answers in a row, right before this one, failed.
	Failed int
}

// same says whether two reactions are one: readers find the same in both.
func (r *Reaction) same(x *Reaction) bool {
	return r.Answer == x.Answer && slices.Equal(r.Behaviors, x.Behaviors) && r.Next == x.Next && r.Replaced == x.Replaced &&
		r.Ended == x.Ended && r.Judged == x.Judged && r.Failed == x.Failed
}

// Finding is something that a reaction shows.
type Finding struct {
	Kind string
	// Event shows it.
	Event *eventv1.Event
	// Clarity is how clearly it does, in (0, 1]. The project's confidence in the
	// kind is multiplied by it.
	Clarity float64
	// Detail says in words what was found.
	Detail string
	// The characters [Start, End) of the answer that it is about, in code points;
	// both 0 for the whole.
	Start, End uint32
}

// Reader finds something in a reaction, and may be called by several goroutines.
// It must be a pure function: one that asks a model whose answers vary has to
// put its answers into the trail as events, and read them from Behaviors.
type Reader interface {
	Read(*Reaction) []Finding
}

// ReaderFunc is a function as a Reader.
type ReaderFunc func(*Reaction) []Finding

// Read implements Reader.
func (f ReaderFunc) Read(r *Reaction) []Finding { return f(r) }

// Similarity says how alike two texts are in meaning, 0 to 1. It must be
// deterministic; it is asked about few pairs, and the same ones again.
type Similarity func(a, b string) float64

// Behavior kinds that say nothing about the answer.
func silent(b *eventv1.Behavior) bool { return b.Kind == "custom" || b.Kind == "followed_up" }

// readBehaviors finds what people did.
func readBehaviors(settings *projects.Signals) ReaderFunc {
	return func(r *Reaction) []Finding {
		var out []Finding
		add := func(kind string, e *eventv1.Event, clarity float64, detail string) {
			out = append(out, Finding{Kind: kind, Event: e, Clarity: clarity, Detail: detail})
		}
		reacted, copies, leaves := r.Judged, 0, r.Ended
		for _, e := range r.Behaviors {
			b := e.GetBehavior()
			reacted = reacted || !silent(b)
			switch b.Kind {
			case "copied":
				copies++
				out = append(out, copied(e, r.Answer.GetInteraction().GetOutput(), settings.CopiedWhole))
			case "regenerated":
				add(Regenerated, e, 1, "asked for another answer")
			case "stopped":
				add(Stopped, e, 1, "stopped the answer")
			case "edited_prompt":
				add(EditedPrompt, e, 1, "changed the question after the answer")
			case "asked_for_human":
				add(AskedForHuman, e, 1, "asked for a human")
			case "left":
				if r.Next == nil {
					add(Left, e, 1, "left after the answer")
					leaves = e
				}
			}
		}
		// Answers that stand side by side come at once.
		if x := r.Replaced; x != nil && !slices.ContainsFunc(out, func(f Finding) bool { return f.Kind == Regenerated }) &&
			x.OccurredAt.AsTime().Sub(r.Answer.OccurredAt.AsTime()).Seconds() >= 5 {
			add(Regenerated, x, 0.7, "another answer to the same question came later")
		}
		if leaves != nil && copies > 0 && r.Next == nil {
			for i, f := range out {
				if f.Kind == Copied || f.Kind == CopiedPart {
					out[i].Kind, out[i].Detail = CopiedAndLeft, f.Detail+", and asked nothing more"
				}
			}
		}
		if r.Ended != nil && !reacted {
			add(NoReaction, r.Ended, 1, "the session ended without any reaction")
		}
		return out
	}
}

// copied says what of an answer was copied.
func copied(e *eventv1.Event, output string, whole float64) Finding {
	text := strings.TrimSpace(e.GetBehavior().Text)
	f := Finding{Kind: Copied, Event: e, Clarity: 1, Detail: "copied the answer"}
	if text == "" {
		f.Clarity, f.Detail = 0.7, "copied, and what is not known"
		return f
	}
	part := 1.0
	if n := len(output); n > 0 {
		part = math.Min(1, float64(len(text))/float64(n))
	}
	if part >= whole {
		return f
	}
	f.Kind, f.Detail = CopiedPart, fmt.Sprintf("copied %.0f %% of the answer", 100*part)
	if at := strings.Index(output, text); at >= 0 {
		f.Start = uint32(utf8.RuneCountInString(output[:at]))
		f.End = f.Start + uint32(utf8.RuneCountInString(text))
	}
	return f
}

// readNext finds what the next message says about the answer.
func readNext(settings *projects.Signals, meaning Similarity) ReaderFunc {
	phrases := newPhraseBook(allPhrases())
	return func(r *Reaction) []Finding {
		if r.Next == nil {
			return nil
		}
		message := r.Next.GetInteraction().GetQuery()
		text := plain(cutTo(message, maxCompareBytes))
		if strings.TrimSpace(text) == "" {
			return nil
		}
		var out []Finding
		negative := false
		for _, p := range phrases.find(cutTo(text, saidBytes)) {
			clarity := p.clarity
			if p.kind == Approved {
				switch {
				case negative: // "thanks, but that is not what I asked"
					continue
				case strings.Contains(text, " but ") || strings.Contains(text, " however ") || strings.HasPrefix(text, " no thank"):
					clarity *= 0.3
				case strings.Count(text, " ") > 13: // and something else
					clarity *= 0.7
				}
			}
			negative = negative || p.kind != Approved
			out = append(out, Finding{Kind: p.kind, Event: r.Next, Clarity: clarity, Detail: fmt.Sprintf("the next message says %q", strings.TrimSpace(p.words))})
		}
		if clarity, detail := reasked(plain(cutTo(r.Answer.GetInteraction().GetQuery(), maxCompareBytes)), text, settings, meaning); clarity > 0 {
			out = append(out, Finding{Kind: Reasked, Event: r.Next, Clarity: clarity, Detail: detail})
		}
		return out
	}
}

// maxCompareBytes is how much of a message is compared.
const maxCompareBytes = 2000

// reasked says how clearly b asks the same as a, both plain. That the topic goes
// on is not enough: a question that changes one thing for another is a new one,
// unless the two mean the same.
func reasked(a, b string, settings *projects.Signals, meaning Similarity) (float64, string) {
	if strings.TrimSpace(a) == "" {
		return 0, ""
	}
	if a == b {
		return 1, "asked the same again"
	}
	x, y := content(a), content(b)
	shared, onlyX, onlyY := overlap(x, y)
	if shared >= settings.ReaskedWords && min(len(x), len(y)) >= 2 && (onlyX == 0 || onlyY == 0) {
		return shared, fmt.Sprintf("asked again in other words, %.0f %% of them the same", 100*shared)
	}
	// A model is asked only where words suggest it.
	if shared < 0.2 || meaning == nil {
		return 0, ""
	}
	if m := meaning(strings.TrimSpace(a), strings.TrimSpace(b)); m >= settings.ReaskedMeaning {
		return m * 0.9, fmt.Sprintf("asked again in other words, with a meaning %.2f alike", m)
	}
	return 0, ""
}

// gaveUp finds that somebody left after failures. It looks at what the other
// readers found.
func gaveUp(r *Reaction, found []Finding, after int) []Finding {
	if r.Failed < after || r.Next != nil {
		return nil
	}
	for _, f := range found {
		if f.Kind == Left || f.Kind == AskedForHuman {
			return []Finding{{Kind: GaveUp, Event: f.Event, Clarity: 1, Detail: fmt.Sprintf("gave up after %d answers that failed", r.Failed)}}
		}
	}
	if r.Ended != nil {
		return []Finding{{Kind: GaveUp, Event: r.Ended, Clarity: 0.8, Detail: fmt.Sprintf("the session ended after %d answers that failed", r.Failed)}}
	}
	return nil
}

// failed says whether findings show that an answer failed.
func failed(found []Finding) bool {
	return slices.ContainsFunc(found, func(f Finding) bool {
		switch f.Kind {
		case Reasked, Corrected, Rejected, Regenerated:
			return true
		}
		return false
	})
}

// strongest keeps of each kind the clearest finding, by kind.
func strongest(found []Finding) []Finding {
	slices.SortStableFunc(found, func(a, b Finding) int { return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(b.Clarity, a.Clarity)) })
	return slices.CompactFunc(found, func(a, b Finding) bool { return a.Kind == b.Kind })
}

// sameRun says whether next is another step of the run of an agent that answered
// the question of e: models are called several times for one question.
func sameRun(e, next *eventv1.Event) bool {
	if e.Source != events.SourceOTLP || next.Source != events.SourceOTLP || e.GetInteraction().GetQuery() != next.GetInteraction().GetQuery() {
		return false
	}
	const operation = "gen_ai.operation.name"
	switch e.GetInteraction().FinishReason {
	case "tool_calls", "tool_call", "tool_use", "function_call":
		return true
	}
	return e.Tags[operation] != next.Tags[operation] || e.Tags[operation] == "invoke_agent"
}

// alternatives says whether two interactions answer the same question.
func alternatives(a, b *eventv1.Event) bool {
	x, y := a.GetInteraction().GetAlternativeTo(), b.GetInteraction().GetAlternativeTo()
	return y != "" && (y == a.InteractionId || y == x) || x != "" && x == b.InteractionId
}
