package enrich

import (
	"context"
	"errors"
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
			r.stage.opts.Redact = func(e *eventv1.Event) (redact.Counts, []redact.Original) {
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

// TestOriginalsAreKeptBeforeTheirEvents pins that no crash loses them, that those
// of refused events are not kept, and that a project that says nothing keeps none.
func TestOriginalsAreKeptBeforeTheirEvents(t *testing.T) {
	const mail = "jo@example.com"
	question := asked("e-1", 1)
	question.GetInteraction().Query = "I am " + mail
	for name, keep := range map[string]bool{"kept": true, "off": false} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			settings := projects.DefaultPrivacy()
			settings.KeepOriginals = keep
			r.stage.opts.MaxSessionEvents = 1
			r.stage.opts.Redact = func(e *eventv1.Event) (redact.Counts, []redact.Original) {
				return redact.Event(e, []byte("a key of some length"), settings)
			}
			var calls int
			var saved []redact.Original
			r.stage.opts.SaveOriginals = func(_ context.Context, originals []redact.Original) error {
				if calls++; calls == 1 {
					return errors.New("the store is away")
				}
				saved = append(saved, originals...)
				return nil
			}
			if _, err := r.attempt(question); (err != nil) != keep {
				t.Fatalf("the first attempt: %v", err)
			}
			if n := r.count("SELECT count() FROM events_log"); keep && n != 0 {
				t.Error("the event was stored without its original")
			}
			r.process(question)
			refused := asked("e-2", 2)
			refused.GetInteraction().Query = "And I am anna@example.com"
			if _, err := r.attempt(refused); err == nil {
				t.Fatal("the session took more events than one may have")
			}
			switch {
			case !keep && calls > 0:
				t.Error("originals were kept, and nobody asked for them")
			case keep && (len(saved) != 1 || saved[0].Value != mail):
				t.Errorf("kept %v, want the address once", saved)
			}
		})
	}
}
