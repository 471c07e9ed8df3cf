package enrich

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/honeloop/hone/pkg/projects"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"

	"github.com/honeloop/hone/services/enricher/internal/redact"
)

// TestPersonalDataIsGoneBeforeAnythingIsKept pins that neither the store nor what
// is passed on holds it, in whatever order events come, and that an edit still
// marks what it marked.
func TestPersonalDataIsGoneBeforeAnythingIsKept(t *testing.T) {
	const mail, output = "jo@example.com", "Write to jo@example.com within 60 days."
	question := asked("e-1", 1)
	question.GetInteraction().Query, question.GetInteraction().Output = "Where do I, "+mail+", write to?", output
	start := uint32(strings.Index(output, "60 days"))
	correction := said("f-1", 2, &eventv1.Feedback{Comment: mail + " is wrong", Correction: "Write to " + mail, Edits: []*eventv1.Edit{
		{Kind: "replace", Start: start, End: start + 7, Quote: "60 days", Text: "30 days"},
	}})
	for name, events := range map[string][]*eventv1.Event{"in order": {question, correction}, "feedback first": {correction, question}} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.stage.opts.Redact = func(e *eventv1.Event) redact.Counts {
				return redact.Event(e, []byte("a key of some length"), projects.DefaultPrivacy())
			}
			for _, e := range events {
				r.process(e)
			}
			for _, table := range []string{"events_log", "signals_log"} {
				if n := r.count("SELECT count() FROM " + table + " WHERE position(toString(tuple(*)), '" + mail + "') > 0"); n > 0 {
					t.Errorf("%d rows of %s hold %s", n, table, mail)
				}
			}
			var seen bool
			for _, sig := range r.published {
				value, err := proto.Marshal(sig)
				if err != nil {
					t.Fatal(err)
				}
				if strings.Contains(string(value), mail) {
					t.Errorf("published %v", sig)
				}
				for _, e := range sig.Edits {
					seen = true
					if got := sig.Interaction.Output[e.Start:e.End]; got != "60 days" {
						t.Errorf("the edit marks %q in %q", got, sig.Interaction.Output)
					}
				}
			}
			if !seen {
				t.Error("no signal has the edit")
			}
		})
	}
}
