// Package embeddingtest holds the tests that every embedding provider passes.
package embeddingtest

import (
	"context"
	"errors"
	"math"
	"strings"
	"sync"
	"testing"

	"github.com/honeloop/hone/pkg/embedding"
)

// tolerance is how far a component may move with the texts of the same call.
const tolerance = 1e-3

// Run checks that e keeps the promises of embedding.Embedder.
func Run(t *testing.T, e embedding.Embedder) {
	texts := []string{
		"My card has not arrived yet.",
		"The card I ordered still hasn't arrived",
		"How do I change my PIN?",
		"",
		" \t\n",
		"…!?",
		"Größe, naïve café, 東京, Привет, 👩‍🚀, İstanbul",
		"bro\xffken \xf0\x9f utf-8",
		strings.Repeat("supercalifragilistic", 50),
		strings.Repeat("a long text about refunds and delivery ", 2000),
		"x",
		"My card has not arrived yet.",
	}
	all := embed(t, e, texts...)

	t.Run("names its vector space", func(t *testing.T) {
		if e.Model() == "" || e.Dimensions() <= 0 {
			t.Errorf("model %q of %d dimensions", e.Model(), e.Dimensions())
		}
	})
	t.Run("vectors have length 1", func(t *testing.T) {
		for i, v := range all {
			if len(v) != e.Dimensions() {
				t.Errorf("text %d: %d numbers, want %d", i, len(v), e.Dimensions())
			}
			if n := embedding.Similarity(v, v); math.Abs(n-1) > 1e-5 || math.IsNaN(n) {
				t.Errorf("text %d: squared length %v", i, n)
			}
		}
	})
	t.Run("one text at a time gives the same", func(t *testing.T) {
		for i, text := range texts {
			same(t, i, embed(t, e, text)[0], all[i])
		}
	})
	t.Run("order follows the texts", func(t *testing.T) {
		reversed := make([]string, len(texts))
		for i, text := range texts {
			reversed[len(texts)-1-i] = text
		}
		for i, v := range embed(t, e, reversed...) {
			same(t, i, v, all[len(texts)-1-i])
		}
	})
	t.Run("like texts are nearer", func(t *testing.T) {
		near, far := embedding.Similarity(all[0], all[1]), embedding.Similarity(all[0], all[2])
		if near <= far {
			t.Errorf("similarity to a paraphrase %.3f, to another question %.3f", near, far)
		}
	})
	t.Run("the caller owns the vectors", func(t *testing.T) {
		clear(embed(t, e, texts[0])[0])
		same(t, 0, embed(t, e, texts[0])[0], all[0])
	})
	t.Run("no texts", func(t *testing.T) {
		if got := embed(t, e); len(got) != 0 {
			t.Errorf("%d vectors", len(got))
		}
	})
	t.Run("concurrent calls", func(t *testing.T) {
		var wg sync.WaitGroup
		for n := range 8 {
			wg.Go(func() {
				for i := range texts {
					i = (i + n) % len(texts)
					got, err := e.Embed(context.Background(), []string{texts[i], texts[0]})
					if err != nil {
						t.Errorf("embed: %v", err)
						return
					}
					same(t, i, got[0], all[i])
					same(t, 0, got[1], all[0])
				}
			})
		}
		wg.Wait()
	})
	t.Run("a canceled call fails with its context's error", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		if got, err := e.Embed(ctx, []string{"never seen before"}); !errors.Is(err, context.Canceled) || got != nil {
			t.Errorf("got %d vectors, error %v", len(got), err)
		}
	})
	t.Run("over a limit", func(t *testing.T) {
		for name, texts := range map[string][]string{
			"texts": make([]string, embedding.MaxTexts+1),
			"text":  {strings.Repeat("x", embedding.MaxTextBytes+1)},
		} {
			if got, err := e.Embed(context.Background(), texts); !errors.Is(err, embedding.ErrTooLarge) || got != nil {
				t.Errorf("%s: got %d vectors, error %v", name, len(got), err)
			}
		}
	})
}

func embed(t *testing.T, e embedding.Embedder, texts ...string) [][]float32 {
	t.Helper()
	got, err := e.Embed(t.Context(), texts)
	if err != nil {
		t.Fatalf("embed: %v", err)
	}
	if len(got) != len(texts) {
		t.Fatalf("%d vectors for %d texts", len(got), len(texts))
	}
	return got
}

func same(t *testing.T, i int, got, want []float32) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("text %d: %d numbers, want %d", i, len(got), len(want))
		return
	}
	for d := range got {
		if math.Abs(float64(got[d]-want[d])) > tolerance {
			t.Errorf("text %d: component %d is %v, want %v", i, d, got[d], want[d])
			return
		}
	}
}
