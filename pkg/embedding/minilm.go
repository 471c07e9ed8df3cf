package embedding

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"

	"go.opentelemetry.io/otel/metric"
	"golang.org/x/sync/errgroup"

	"github.com/honeloop/hone/pkg/embedding/internal/convert"
	"github.com/honeloop/hone/pkg/embedding/internal/ort"
	"github.com/honeloop/hone/pkg/embedding/internal/wordpiece"
	"github.com/honeloop/hone/pkg/telemetry"
)

const miniLMDimensions = 384

// miniLM runs all-MiniLM-L6-v2 in this process.
//
// Each text is a run of its own, on one thread; as many run at a time as there
// are slots. Batches would be a fifth faster, but with int8 the texts of a batch
// change each other's vectors, by up to 0.03 in a component: then a redelivered
// signal could join another case than at first.
type miniLM struct {
	session   *ort.Session
	tokens    *wordpiece.Tokenizer
	variant   string
	slots     chan struct{} // waiting senders are served in turn, so a small call gets between the texts of a large one
	truncated metric.Int64Counter
}

func newMiniLM(cfg Config, tel *telemetry.Telemetry) (*miniLM, error) {
	graph := filepath.Join(cfg.ModelDir, convert.GraphFile(cfg.Variant))
	vocabulary := filepath.Join(cfg.ModelDir, convert.VocabularyFile)
	for _, file := range []string{cfg.RuntimeLibrary, graph, vocabulary} {
		if _, err := os.Stat(file); err != nil {
			return nil, fmt.Errorf("find a file of the embedding model: %w; `make setup` fetches it", err)
		}
	}
	truncated, err := tel.Meter.Int64Counter("hone.embedding.truncated",
		metric.WithDescription("Texts of which only the first 256 word pieces were embedded."))
	if err != nil {
		return nil, fmt.Errorf("create counter of truncated texts: %w", err)
	}
	file, err := os.Open(vocabulary)
	if err != nil {
		return nil, fmt.Errorf("open vocabulary: %w", err)
	}
	defer func() { _ = file.Close() }() // only read
	tokens, err := wordpiece.New(file)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", vocabulary, err)
	}
	session, err := ort.Open(cfg.RuntimeLibrary, graph)
	if err != nil {
		return nil, err
	}
	return &miniLM{
		session: session, tokens: tokens, variant: cfg.Variant, truncated: truncated,
		slots: make(chan struct{}, cfg.Threads),
	}, nil
}

// Model names the vector space.
func (m *miniLM) Model() string { return "all-MiniLM-L6-v2/" + m.variant }

// Dimensions is the length of a vector.
func (m *miniLM) Dimensions() int { return miniLMDimensions }

// Close waits for the texts that are being embedded and frees the model.
func (m *miniLM) Close() error { return m.session.Close() }

// Embed implements Embedder. It looks at ctx before each text.
func (m *miniLM) Embed(ctx context.Context, texts []string) ([][]float32, error) {
	if err := checkLimits(texts); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("embed texts: %w", err)
	}
	order := make([]int, len(texts))
	for i := range order {
		order[i] = i
	}
	// Long texts first, so that no thread is left with one at the end.
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(len(texts[b]), len(texts[a])) })

	out := make([][]float32, len(texts))
	var next atomic.Int64
	group, ctx := errgroup.WithContext(ctx)
	for range min(cap(m.slots), len(texts)) {
		group.Go(func() error {
			for {
				n := int(next.Add(1)) - 1
				if n >= len(order) {
					return nil
				}
				v, err := m.embed(ctx, texts[order[n]])
				if err != nil {
					return err
				}
				out[order[n]] = v
			}
		})
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("embed texts: %w", err)
	}
	return out, nil
}

func (m *miniLM) embed(ctx context.Context, text string) ([]float32, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case m.slots <- struct{}{}:
		defer func() { <-m.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	ids, truncated := m.tokens.Encode(text, convert.MaxTokens)
	if truncated {
		m.truncated.Add(ctx, 1)
	}
	v := make([]float32, miniLMDimensions)
	if err := m.session.Run(ids, 1, v); err != nil {
		return nil, err
	}
	if !Normalize(v) {
		return nil, fmt.Errorf("model %s gave a vector without a direction", m.Model())
	}
	return v, nil
}
