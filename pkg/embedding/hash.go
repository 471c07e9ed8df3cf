package embedding

import (
	"context"
	"fmt"
	"math"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/cespare/xxhash/v2"
	"golang.org/x/text/unicode/norm"
)

const hashDimensions = 512

// Hash embeds by signed feature hashing of words, word pairs and character
// 3- to 5-grams. It knows spelling, not meaning, and needs no files.
type Hash struct{ dimensions int }

// NewHash makes a Hash of 512 dimensions.
func NewHash() *Hash { return &Hash{hashDimensions} }

// Model names the vector space.
func (h *Hash) Model() string { return fmt.Sprintf("hash-ngram-%d-v1", h.dimensions) }

// Dimensions is the length of a vector.
func (h *Hash) Dimensions() int { return h.dimensions }

// Close does nothing.
func (*Hash) Close() error { return nil }

// Embed implements Embedder.
func (h *Hash) Embed(ctx context.Context, texts []string) ([][]float32, error) {
	if err := checkLimits(texts); err != nil {
		return nil, err
	}
	out := make([][]float32, len(texts))
	for i, text := range texts {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("embed texts: %w", err)
		}
		out[i] = hashText(text, h.dimensions)
	}
	return out, nil
}

func hashText(text string, dimensions int) []float32 {
	words := hashWords(text)
	counts := make(map[uint64]float64, 3*len(text))
	var buffer []byte
	count := func(feature ...string) {
		buffer = buffer[:0]
		for _, part := range feature {
			buffer = append(buffer, part...)
		}
		counts[xxhash.Sum64(buffer)]++
	}
	for i, word := range words {
		count("w", word)
		if i > 0 {
			count("b", words[i-1], " ", word)
		}
		padded := "<" + word + ">"
		for n := 3; n <= 5; n++ {
			grams(padded, n, func(gram string) { count("c", gram) })
		}
	}
	v := make([]float32, dimensions)
	sums := make([]float64, dimensions)
	for h, n := range counts {
		// A word said ten times is not ten times as important. Rounded, so that
		// the sum is exact in any order.
		x := math.Round(1024 * (1 + math.Log(n)))
		if h>>63 == 1 {
			x = -x
		}
		sums[h%uint64(dimensions)] += x
	}
	for i, s := range sums {
		v[i] = float32(s)
	}
	if !Normalize(v) {
		// No word, or all features cancel out: a direction of its own.
		clear(v)
		v[0] = 1
	}
	return v
}

// hashWords are the runs of letters and digits, lower case, without accents.
func hashWords(text string) []string {
	var b strings.Builder
	b.Grow(len(text))
	for _, r := range norm.NFD.String(text) {
		switch {
		case unicode.Is(unicode.Mn, r) || r == '\'':
		case unicode.IsLetter(r) || unicode.IsNumber(r):
			b.WriteRune(unicode.ToLower(r))
		default:
			b.WriteByte(' ')
		}
	}
	return strings.Fields(b.String())
}

// grams calls fn for each run of n characters of s.
func grams(s string, n int, fn func(string)) {
	if utf8.RuneCountInString(s) < n {
		return
	}
	start, end := 0, 0
	for range n {
		_, size := utf8.DecodeRuneInString(s[end:])
		end += size
	}
	for {
		fn(s[start:end])
		if end == len(s) {
			return
		}
		_, size := utf8.DecodeRuneInString(s[start:])
		start += size
		_, size = utf8.DecodeRuneInString(s[end:])
		end += size
	}
}
