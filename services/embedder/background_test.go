package embedder

import (
	"context"
	"fmt"
	"testing"
	"time"

	recallv1 "github.com/honeloop/hone/proto/gen/go/hone/recall/v1"

	"github.com/honeloop/hone/pkg/vector"
	"github.com/honeloop/hone/services/embedder/internal/relevance"
)

func TestWhatAProjectAskedStaysItsOwn(t *testing.T) {
	h := newHarness(t)
	h.send(signal("s1", negative, "0"))
	a := h.api()
	for i := range 3 {
		if _, err := a.Recall(as("p"), &recallv1.RecallRequest{Query: fmt.Sprint(i)}); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	if a.backgrounds.get(now, "p").Stalest() == nil || a.backgrounds.get(now, "q").Stalest() != nil {
		t.Error("queries of p are not in p alone")
	}
	off := newBackgrounds(false)
	if off.get(now, "p") != nil {
		t.Error("a background although it is off")
	}
}

func TestBackgroundsOfProjectsAreBounded(t *testing.T) {
	b, now := newBackgrounds(true), time.Unix(0, 0)
	for i := range maxBackgrounds {
		b.get(now.Add(time.Duration(i)*time.Second), fmt.Sprint(i))
	}
	first := b.get(now.Add(time.Hour), "0")
	b.get(now.Add(time.Hour), "another")
	if len(b.of) != maxBackgrounds || b.of["1"] != nil || b.of["0"].Background != first {
		t.Errorf("%d projects; want the one that asked longest ago to go", len(b.of))
	}
	turns := map[string]bool{}
	for range 4 {
		turns[b.next(now.Add(time.Hour)).project] = true
	}
	if len(turns) != 2 || !turns["0"] || !turns["another"] {
		t.Errorf("turns %v, want those that ask", turns)
	}
	if p := b.next(now.Add(3 * time.Hour)); p != nil {
		t.Errorf("%s has a turn, though nobody asks", p.project)
	}
}

// nearCounted counts searches of exchanges.
type nearCounted struct {
	index
	searches int
	err      error
}

func (n *nearCounted) NearValues(ctx context.Context, collection, project string, q vector.NearQuery, properties ...string) ([]vector.ValueMatch, error) {
	if collection == vector.Exchanges {
		n.searches++
	}
	if n.err != nil {
		return nil, n.err
	}
	return n.index.NearValues(ctx, collection, project, q, properties...)
}

func TestBackgroundsAreRenewed(t *testing.T) {
	h := newHarness(t)
	a := h.api()
	counted := &nearCounted{index: h.index}
	a.index = counted
	if err := a.renewOne(context.Background()); err != nil || counted.searches != 0 {
		t.Errorf("nothing asked: %d searches, %v", counted.searches, err)
	}
	a.backgrounds.get(time.Now(), "p").Add(time.Now(), []float32{1, 0}, []relevance.Neighbor{{Case: "c", Similarity: 0.5}})
	if err := a.renewOne(context.Background()); err != nil || counted.searches != 1 {
		t.Errorf("one asked: %d searches, %v", counted.searches, err)
	}
	counted.err = vector.ErrUnavailable
	if err := a.renewOne(context.Background()); err == nil {
		t.Error("Weaviate is away, and no error")
	}
}
