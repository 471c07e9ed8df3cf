package embedder

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/honeloop/hone/pkg/vector"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"
)

// countReads counts the reads of members; those after the first failAfter fail.
func (h *harness) countReads(failAfter int) *int {
	n := new(int)
	h.index.Before = func(method, collection string) error {
		if method != "List" || collection != vector.Exchanges {
			return nil
		}
		if *n++; failAfter > 0 && *n > failAfter {
			return errors.New("too slow")
		}
		return nil
	}
	return n
}

func TestAFailedBatchReadsTheRestWhenItIsTriedAgain(t *testing.T) {
	h := newHarness(t)
	// Four cases that are too large to be read together.
	var in []*signalv1.Signal
	for place := range 4 {
		for i := range membersPerRead/2 + 1 {
			in = append(in, signal(fmt.Sprintf("s%d", place*10_000+i), negative, fmt.Sprint(place*90)))
		}
	}
	h.send(in...)
	h.restart()
	more := []*signalv1.Signal{signal("t1", negative, "0"), signal("t2", negative, "90"), signal("t3", negative, "180"), signal("t4", negative, "270")}
	h.countReads(3)
	if _, err := h.signals.Process(context.Background(), records(t, more...)); err == nil {
		t.Fatal("no error")
	}
	reads := h.countReads(0)
	h.send(more...)
	if *reads != 1 {
		t.Errorf("%d cases were read again, want the one that had failed", *reads)
	}
	h.index.Before = nil
	checkCounts(t, h)
}

func TestACachedCaseIsReadAgainOnlyWhereAnotherProcessWroteIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newHarness(t)
		h.send(signal("s1", negative, "0"))
		other := newHarness(t)
		other.index = h.index
		other.restart()

		reads := h.countReads(0)
		time.Sleep(2 * DefaultConfig().Cases.CacheTTL)
		h.send(signal("s2", negative, "0"))
		if *reads != 0 {
			t.Errorf("%d reads of a case that nobody else wrote", *reads)
		}
		other.send(signal("s3", negative, "0"))
		time.Sleep(2 * DefaultConfig().Cases.CacheTTL)
		*reads = 0
		h.send(signal("s4", negative, "0"))
		if *reads != 1 || h.stored(founded("s1")).GetNegatives() != 4 {
			t.Errorf("%d reads, case %v", *reads, h.stored(founded("s1")))
		}
	})
}
