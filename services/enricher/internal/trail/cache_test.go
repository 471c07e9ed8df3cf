package trail

import (
	"strings"
	"testing"

	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
)

func filled(bytes int) *Trail {
	t := New()
	t.Add(&eventv1.Event{EventId: "e", UserId: strings.Repeat("u", bytes), OccurredAt: timestamppb.Now()})
	return t
}

func key(session string) Key { return Key{"p", session} }

func TestCacheHoldsTheTrailsUsedLastWithinItsBytes(t *testing.T) {
	c := NewCache(7500)
	c.Begin(0, 0).End(1, map[Key]*Trail{key("a"): filled(300)})
	c.Begin(0, 1).End(2, map[Key]*Trail{key("b"): filled(300)})
	b := c.Begin(0, 2)
	a := b.Take(key("a"))
	if a == nil {
		t.Fatal("a is not held")
	}
	b.End(3, map[Key]*Trail{key("a"): a}) // used again: b is the oldest now
	c.Begin(1, 0).End(1, map[Key]*Trail{key("c"): filled(300), key("d"): filled(300), key("e"): filled(300)})
	c.Begin(1, 1).End(2, map[Key]*Trail{key("huge"): filled(7500)})
	if c.Bytes() > 7500 {
		t.Errorf("holds %d bytes, want at most 7500", c.Bytes())
	}
	b = c.Begin(0, 3)
	if b.Take(key("a")) == nil || b.Take(key("b")) != nil {
		t.Error("want a to be held and b to be out")
	}
	b = c.Begin(1, 2)
	if b.Take(key("huge")) != nil {
		t.Error("a trail as large as the cache is held")
	}
	for _, k := range []string{"c", "d", "e"} {
		if b.Take(key(k)) == nil {
			t.Errorf("%s is not held", k)
		}
	}
	if c.Bytes() != 0 {
		t.Errorf("holds %d bytes after all was taken", c.Bytes())
	}
}

func TestCacheDropsAPartitionThatWasElsewhere(t *testing.T) {
	c := NewCache(1 << 20)
	c.Begin(0, 10).End(20, map[Key]*Trail{key("a"): filled(1)})
	c.Begin(1, 10).End(20, map[Key]*Trail{key("b"): filled(1)})
	if c.Begin(0, 25).Take(key("a")) != nil {
		t.Error("a is held, though records 20 to 24 went by")
	}
	if c.Begin(1, 20).Take(key("b")) == nil {
		t.Error("b is not held, though its partition went on")
	}
}

func TestABatchLeftOverHasNoPartInTheCache(t *testing.T) {
	c := NewCache(1 << 20)
	c.Begin(0, 0).End(10, map[Key]*Trail{key("a"): filled(1), key("b"): filled(1)})
	old := c.Begin(0, 10)
	stale := old.Take(key("a"))
	now := c.Begin(0, 10)
	if old.Take(key("b")) != nil {
		t.Error("the old batch can still take")
	}
	old.End(15, map[Key]*Trail{key("a"): stale})
	if now.Take(key("a")) != nil {
		t.Error("the old batch has put a trail in")
	}
	now.End(12, nil)
	if c.Begin(0, 12).Take(key("b")) == nil {
		t.Error("the new batch lost its place")
	}
}
