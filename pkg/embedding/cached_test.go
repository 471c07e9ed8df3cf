package embedding

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"testing"

	"github.com/honeloop/hone/pkg/telemetry"
)

// counting is a provider that notes what it was asked.
type counting struct {
	*Hash
	asked []string
	err   error
}

func (c *counting) Embed(ctx context.Context, texts []string) ([][]float32, error) {
	c.asked = append(c.asked, texts...)
	if c.err != nil {
		return nil, c.err
	}
	return c.Hash.Embed(ctx, texts)
}

func newCounting(t *testing.T, vectors int) (*Cached, *counting) {
	t.Helper()
	next := &counting{Hash: NewHash()}
	cached, err := NewCached(next, int64(vectors*(hashDimensions*4+entryOverhead)), telemetry.Discard())
	if err != nil {
		t.Fatal(err)
	}
	return cached, next
}

func TestCacheAsksOnlyForWhatItLacks(t *testing.T) {
	cached, next := newCounting(t, 2)
	for _, step := range []struct {
		name        string
		texts, asks []string
	}{
		{"all new, one twice", []string{"a", "b", "a"}, []string{"a", "b"}},
		{"all known", []string{"b", "a"}, nil},
		{"least recently used goes", []string{"c"}, []string{"c"}}, // b is older than a
		{"kept", []string{"a"}, nil},
		{"gone", []string{"b"}, []string{"b"}},
	} {
		next.asked = nil
		got, err := cached.Embed(t.Context(), step.texts)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(next.asked, step.asks) {
			t.Errorf("%s: asked for %q, want %q", step.name, next.asked, step.asks)
		}
		for i, text := range step.texts {
			if !slices.Equal(got[i], hashText(text, hashDimensions)) {
				t.Errorf("%s: wrong vector for %q", step.name, text)
			}
		}
	}
}

func TestCacheStaysWithinItsBytes(t *testing.T) {
	cached, _ := newCounting(t, 10)
	for i := range 100 {
		if _, err := cached.Embed(t.Context(), []string{strconv.Itoa(i)}); err != nil {
			t.Fatal(err)
		}
		if cached.bytes > cached.maxBytes || len(cached.entries) != cached.recent.Len() {
			t.Fatalf("%d bytes of %d, %d entries, %d in the list", cached.bytes, cached.maxBytes, len(cached.entries), cached.recent.Len())
		}
	}
	if len(cached.entries) != 10 {
		t.Errorf("%d entries, want 10", len(cached.entries))
	}
}

func TestCacheKeepsNoFailure(t *testing.T) {
	cached, next := newCounting(t, 2)
	next.err = errors.New("broken")
	if _, err := cached.Embed(t.Context(), []string{"a"}); !errors.Is(err, next.err) {
		t.Fatalf("error %v", err)
	}
	next.err = nil
	if _, err := cached.Embed(t.Context(), []string{"a"}); err != nil || len(next.asked) != 2 {
		t.Errorf("error %v, asked %q", err, next.asked)
	}
}
