package embedder

import (
	"encoding/hex"
	"strings"
	"testing"

	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"
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
