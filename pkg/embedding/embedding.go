// Package embedding turns texts into unit vectors whose dot product says how
// alike the texts are in meaning.
//
// Providers: "minilm" runs all-MiniLM-L6-v2 in process, "hash" hashes character
// n-grams and needs no files, "openai" asks an OpenAI-compatible endpoint.
package embedding

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"

	"github.com/honeloop/hone/pkg/telemetry"
)

// Limits of one Embed call. A call over them fails with ErrTooLarge before any
// work is done.
const (
	// MaxTexts is the number of texts in one call.
	MaxTexts = 4096
	// MaxTextBytes is the length of one text.
	MaxTextBytes = 1 << 20
	// MaxCallBytes is the length of all texts of one call.
	MaxCallBytes = 32 << 20
)

// ErrTooLarge says that a call is over a limit of this package. Trying again
// does not help.
var ErrTooLarge = errors.New("embedding input too large")

// Embedder turns texts into vectors.
//
// Embed returns one vector of length 1 per text, in the order of the texts.
// The caller owns the vectors. Equal texts give equal vectors up to rounding:
// the texts that share a call move a value by less than 1e-3. A text without a
// word gets a vector too. On an error there are no vectors. Embed is safe for
// concurrent use and stops soon after ctx ends.
//
// Model names the vector space: vectors of different models must never be
// compared, so store the name beside the vectors.
//
// Dimensions is the length of a vector; 0 as long as a remote provider has not
// told it (see Probe).
type Embedder interface {
	Embed(ctx context.Context, texts []string) ([][]float32, error)
	Model() string
	Dimensions() int
}

// Provider is an Embedder that holds resources. After Close, Embed fails.
type Provider interface {
	Embedder
	io.Closer
}

// New makes the provider that cfg names, with a cache in front of it unless
// CacheBytes is 0. The minilm provider loads its model here and fails with the
// name of the file that is missing; the openai provider does not connect yet.
func New(cfg Config, tel *telemetry.Telemetry) (Provider, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	var p Provider
	var err error
	switch cfg.Provider {
	case ProviderHash:
		p = &Hash{cmp.Or(cfg.Dimensions, hashDimensions)}
	case ProviderMiniLM:
		p, err = newMiniLM(cfg, tel)
	case ProviderOpenAI:
		p, err = newOpenAI(cfg, tel)
	}
	if err != nil {
		return nil, err
	}
	if cfg.CacheBytes == 0 {
		return p, nil
	}
	return NewCached(p, cfg.CacheBytes, tel)
}

// Probe embeds a word, so that a wrong address, key or model shows at once and
// Dimensions is known.
func Probe(ctx context.Context, e Embedder) error {
	if _, err := e.Embed(ctx, []string{"probe"}); err != nil {
		return fmt.Errorf("probe embedding model %s: %w", e.Model(), err)
	}
	return nil
}

// Similarity is the cosine of two unit vectors of equal length, -1 to 1.
func Similarity(a, b []float32) float64 {
	var s float64
	for i, x := range a {
		s += float64(x) * float64(b[i])
	}
	return s
}

// checkLimits refuses a call that is over the limits of this package.
func checkLimits(texts []string) error {
	if len(texts) > MaxTexts {
		return fmt.Errorf("%w: %d texts in one call, limit %d", ErrTooLarge, len(texts), MaxTexts)
	}
	total := 0
	for i, t := range texts {
		if len(t) > MaxTextBytes {
			return fmt.Errorf("%w: text %d has %d bytes, limit %d", ErrTooLarge, i, len(t), MaxTextBytes)
		}
		total += len(t)
	}
	if total > MaxCallBytes {
		return fmt.Errorf("%w: %d bytes in one call, limit %d", ErrTooLarge, total, MaxCallBytes)
	}
	return nil
}

// Normalize scales v to length 1. It reports false where v has no direction.
func Normalize(v []float32) bool {
	var sum float64
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	if sum == 0 || math.IsNaN(sum) || math.IsInf(sum, 0) {
		return false
	}
	scale := 1 / math.Sqrt(sum)
	for i := range v {
		v[i] = float32(float64(v[i]) * scale)
	}
	return true
}
