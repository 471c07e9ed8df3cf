package embedding

import (
	"container/list"
	"context"
	"crypto/sha256"
	"fmt"
	"sync"

	"go.opentelemetry.io/otel/metric"

	"github.com/honeloop/hone/pkg/telemetry"
)

// entryOverhead is what a cached vector costs besides its numbers: key, list
// element, map slot and slice headers. Measured, rounded up.
const entryOverhead = 320

// Cached keeps vectors of a Provider by the text's content, least recently used
// out first. It holds digests, never text.
type Cached struct {
	next     Provider
	maxBytes int64
	hits     metric.Int64Counter
	misses   metric.Int64Counter

	mu      sync.Mutex
	bytes   int64
	entries map[[sha256.Size]byte]*list.Element
	recent  *list.List // of *cacheEntry, most recent first
}

type cacheEntry struct {
	key    [sha256.Size]byte
	vector []float32
}

// NewCached puts a cache of at most maxBytes in front of next.
func NewCached(next Provider, maxBytes int64, tel *telemetry.Telemetry) (*Cached, error) {
	hits, err := tel.Meter.Int64Counter("hone.embedding.cache.hits", metric.WithDescription("Texts whose vector was cached."))
	if err != nil {
		return nil, fmt.Errorf("create counter of cache hits: %w", err)
	}
	misses, err := tel.Meter.Int64Counter("hone.embedding.cache.misses", metric.WithDescription("Texts whose vector was computed."))
	if err != nil {
		return nil, fmt.Errorf("create counter of cache misses: %w", err)
	}
	return &Cached{
		next: next, maxBytes: maxBytes, hits: hits, misses: misses,
		entries: make(map[[sha256.Size]byte]*list.Element), recent: list.New(),
	}, nil
}

// Model names the vector space.
func (c *Cached) Model() string { return c.next.Model() }

// Dimensions is the length of a vector.
func (c *Cached) Dimensions() int { return c.next.Dimensions() }

// Close closes the provider behind the cache.
func (c *Cached) Close() error { return c.next.Close() }

// Embed implements Embedder. Texts that the call repeats are computed once.
func (c *Cached) Embed(ctx context.Context, texts []string) ([][]float32, error) {
	if err := checkLimits(texts); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("embed texts: %w", err)
	}
	out := make([][]float32, len(texts))
	var missing []string
	var keys [][sha256.Size]byte                 // of missing
	waiting := make(map[[sha256.Size]byte][]int) // places in out that want the key
	for i, text := range texts {
		key := sha256.Sum256([]byte(text))
		if places, ok := waiting[key]; ok {
			waiting[key] = append(places, i)
			continue
		}
		if out[i] = c.get(key); out[i] == nil {
			missing, keys = append(missing, text), append(keys, key)
			waiting[key] = []int{i}
		}
	}
	c.hits.Add(ctx, int64(len(texts)-len(missing)))
	if len(missing) == 0 {
		return out, nil
	}
	c.misses.Add(ctx, int64(len(missing)))
	vectors, err := c.next.Embed(ctx, missing)
	if err != nil {
		return nil, err
	}
	for i, v := range vectors {
		c.put(keys[i], v)
		for _, place := range waiting[keys[i]] {
			out[place] = append([]float32(nil), v...)
		}
	}
	return out, nil
}

// get is a copy of the vector, or nil.
func (c *Cached) get(key [sha256.Size]byte) []float32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.entries[key]
	if !ok {
		return nil
	}
	c.recent.MoveToFront(e)
	return append([]float32(nil), e.Value.(*cacheEntry).vector...)
}

func (c *Cached) put(key [sha256.Size]byte, v []float32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	size := int64(len(v)*4 + entryOverhead)
	if _, ok := c.entries[key]; ok || size > c.maxBytes {
		return
	}
	for c.bytes+size > c.maxBytes {
		oldest := c.recent.Remove(c.recent.Back()).(*cacheEntry)
		delete(c.entries, oldest.key)
		c.bytes -= int64(len(oldest.vector)*4 + entryOverhead)
	}
	c.entries[key] = c.recent.PushFront(&cacheEntry{key, v})
	c.bytes += size
}
