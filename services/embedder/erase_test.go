package embedder

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"

	"github.com/honeloop/hone/pkg/projects"
	"github.com/honeloop/hone/pkg/telemetry"
	"github.com/honeloop/hone/pkg/vector"
	"github.com/honeloop/hone/pkg/vector/vectortest"
)

// TestAnErasedFounderGivesWay pins that nothing an erased person asked is left,
// that the case goes on by another member's query, and that an earlier revision
// which comes again brings nothing back.
func TestAnErasedFounderGivesWay(t *testing.T) {
	h := newHarness(t)
	first := signal("s1", negative, "200", func(s *signalv1.Signal) { s.Comment = "quokka" })
	h.send(first)
	h.send(signal("s2", negative, "210"))
	if got := members(h.stored(founded("s1"))); !strings.Contains(got, "2") {
		t.Fatalf("the case has %s, want both signals", got)
	}
	erased := &signalv1.Signal{SignalId: "s1", ProjectId: "p", SessionId: first.SessionId, Kind: "explicit", Polarity: negative,
		Revision: first.Revision + 1, Withdrawn: true, Erased: true, OccurredAt: first.OccurredAt}
	for range 2 { // the second time it is repeated
		out := h.send(erased)
		if len(out) == 0 || out[0].GetCase().GetTitle() != "210" {
			t.Errorf("published %v, want the case by the other query", out)
		}
	}
	h.send(first)
	for id, object := range h.index.Snapshot() {
		if strings.Contains(object, hex.EncodeToString([]byte("quokka"))) || strings.Contains(object, hex.EncodeToString([]byte("\x03200"))) {
			t.Errorf("%s still has what was erased: %q", id, object)
		}
	}
	if c := h.stored(founded("s1")); c.GetAnchor() != "210" || c.GetNegatives() != 1 || len(c.GetComplaints()) > 1 {
		t.Errorf("the case is %v, want it as the other member alone would have it", c)
	}
}

// TestAnErasureDuringAReindexReachesBothSpaces pins that what is embedded anew
// does not bring an erased person back, whichever comes first.
func TestAnErasureDuringAReindexReachesBothSpaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ix := vectortest.NewFake()
		s := changing(t, ix, 512, 128)
		const p = "p"
		leaver := func(n int) *signalv1.Signal {
			return revised(topic(p, n), func(s *signalv1.Signal) {
				s.UserId, s.Comment = "quokka", "quokka"
				s.Interaction.Query += " quokka"
			})
		}
		for n := 0; n < 300; n += 4 { // the leaver founds every case
			s.send(t, leaver(n), topic(p, n+1), topic(p, n+2), topic(p, n+3))
		}
		found := func(suffix string) (names []string) {
			for name, o := range dump(t, ix, suffix) {
				if bytes.Contains(o.Payload, []byte("quokka")) || o.Properties["user_id"] == "quokka" {
					names = append(names, name)
				}
			}
			return names
		}
		if len(found("")) == 0 {
			t.Fatal("the leaver is not there before, so that it shows nothing")
		}
		if err := RequestReindex(t.Context(), ix); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go newReindexer(s, telemetry.Discard().Log).run(ctx)
		go func() { _ = s.follow(ctx) }()
		phases := map[string]bool{}
		for n := 0; n < 300; n += 4 {
			if phase := phaseOf(t, ix); phase != ReindexDone {
				phases[phase] = true
				time.Sleep(200 * time.Millisecond)
			}
			old := leaver(n)
			s.send(t, &signalv1.Signal{SignalId: old.SignalId, ProjectId: p, SessionId: old.SessionId, Kind: old.Kind, Polarity: negative,
				Revision: old.Revision + 1, Withdrawn: true, Erased: true, OccurredAt: old.OccurredAt})
		}
		if !phases[ReindexCopying] {
			t.Errorf("erased in phases %v only, want some during the copy", phases)
		}
		for tries := 0; phaseOf(t, ix) != ReindexSwitched && phaseOf(t, ix) != ReindexDone; tries++ {
			if time.Sleep(time.Second); tries > 1000 {
				t.Fatalf("no switch: %s", phaseOf(t, ix))
			}
		}
		l, err := s.read(t.Context())
		if err != nil || l.Dimensions != 128 {
			t.Fatalf("layout %+v, %v", l, err)
		}
		for _, suffix := range []string{"", l.Suffix} {
			if names := found(suffix); len(names) > 0 {
				t.Errorf("the space %q still has %v", suffix, names)
			}
		}
		// A copy that is late, and a revision that comes again.
		s.send(t, leaver(0), leaver(40))
		if names := found(l.Suffix); len(names) > 0 {
			t.Errorf("an earlier revision brought back %v", names)
		}
		cancel()
	})
}

// listing counts the reads of lists.
type listing struct {
	*vectortest.Fake
	lists int
}

func (l *listing) List(ctx context.Context, collection, project string, q vector.ListQuery) ([]vector.Object, error) {
	l.lists++
	return l.Fake.List(ctx, collection, project, q)
}

// TestManyErasedSignalsReadTheirCaseOnce pins that a user who said much in a large
// case does not have it read for each signal.
func TestManyErasedSignalsReadTheirCaseOnce(t *testing.T) {
	h := newHarness(t)
	const n = 40
	var in, gone []*signalv1.Signal
	for i := range n {
		one := signal(fmt.Sprint("s", i), negative, fmt.Sprint(200+i%5, " quokka"))
		in = append(in, one, signal(fmt.Sprint("t", i), negative, fmt.Sprint(200+i%5)))
		gone = append(gone, &signalv1.Signal{SignalId: one.SignalId, ProjectId: "p", SessionId: one.SessionId, Kind: "explicit", Polarity: negative,
			Revision: 2, Withdrawn: true, Erased: true, OccurredAt: one.OccurredAt})
	}
	h.send(in...)
	counted := &listing{Fake: h.index}
	stage, _, err := stages(counted, h.angles, DefaultConfig().Cases, 0.75, projects.Defaults(), telemetry.Discard())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stage.Process(t.Context(), records(t, gone...)); err != nil {
		t.Fatal(err)
	}
	if counted.lists > n/4 {
		t.Errorf("%d lists were read for %d signals of one case", counted.lists, n)
	}
	for id, object := range h.index.Snapshot() {
		if strings.Contains(object, hex.EncodeToString([]byte("quokka"))) {
			t.Errorf("%s still has what was erased", id)
		}
	}
	if c := h.stored(founded("s0")); c.GetNegatives() != n || c.GetAnchor() == "" {
		t.Errorf("the case is %v, want it with the others' signals", c)
	}
}
