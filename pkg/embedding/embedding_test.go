package embedding_test

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/honeloop/hone/pkg/embedding"
	"github.com/honeloop/hone/pkg/embedding/embeddingtest"
	"github.com/honeloop/hone/pkg/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open makes a provider without a cache, and closes it after the test.
func open(t testing.TB, change func(*embedding.Config)) embedding.Provider {
	t.Helper()
	cfg := embedding.DefaultConfig()
	cfg.CacheBytes = 0
	change(&cfg)
	p, err := embedding.New(cfg, telemetry.Discard())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func variant(name string) func(*embedding.Config) {
	return func(c *embedding.Config) { c.Variant = name }
}

func hash(c *embedding.Config) { c.Provider = embedding.ProviderHash }

func endpoint(url string) func(*embedding.Config) {
	return func(c *embedding.Config) { c.Provider, c.URL, c.Model = embedding.ProviderOpenAI, url, "hashed" }
}

func TestProvidersConform(t *testing.T) {
	for name, change := range map[string]func(*embedding.Config){
		"hash":                         hash,
		"int8":                         variant(embedding.VariantInt8),
		"fp32":                         variant(embedding.VariantFP32),
		"cached":                       func(c *embedding.Config) { hash(c); c.CacheBytes = 1 << 20 },
		"cached, room for two vectors": func(c *embedding.Config) { hash(c); c.CacheBytes = 5000 },
		"openai, base64":               endpoint(embedding.HashedEndpoint(t, false)),
		"openai, floats":               endpoint(embedding.HashedEndpoint(t, true)),
	} {
		t.Run(name, func(t *testing.T) { embeddingtest.Run(t, open(t, change)) })
	}
}

func TestMiniLMEqualsReference(t *testing.T) {
	data, err := os.ReadFile("testdata/reference.json")
	if err != nil {
		t.Fatal(err)
	}
	var rows []struct {
		Text   string `json:"text"`
		Vector string `json:"vector"`
	}
	if err := json.Unmarshal(data, &rows); err != nil {
		t.Fatal(err)
	}
	var texts []string
	for _, r := range rows {
		texts = append(texts, r.Text)
	}
	for _, tt := range []struct {
		variant         string
		minimum, atMean float64
	}{
		{embedding.VariantFP32, 0.99999, 0.99999},
		{embedding.VariantInt8, 0.97, 0.985},
	} {
		t.Run(tt.variant, func(t *testing.T) {
			got, err := open(t, variant(tt.variant)).Embed(t.Context(), texts)
			if err != nil {
				t.Fatal(err)
			}
			sum := 0.0
			for i, r := range rows {
				raw, err := base64.StdEncoding.DecodeString(r.Vector)
				if err != nil {
					t.Fatal(err)
				}
				want := make([]float32, len(raw)/4)
				for d := range want {
					want[d] = math.Float32frombits(binary.LittleEndian.Uint32(raw[d*4:]))
				}
				cosine := embedding.Similarity(got[i], want)
				if sum += cosine; cosine < tt.minimum {
					t.Errorf("text %d: cosine to the reference %.5f, want at least %v", i, cosine, tt.minimum)
				}
			}
			mean := sum / float64(len(rows))
			t.Logf("mean cosine to the reference %.6f", mean)
			if mean < tt.atMean {
				t.Errorf("mean cosine to the reference %.5f, want at least %v", mean, tt.atMean)
			}
		})
	}
}

func TestHashIsPinned(t *testing.T) {
	// Stored vectors must stay comparable: a change needs a new model name.
	got, err := open(t, hash).Embed(t.Context(), []string{"Where is my Päckchen?"})
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for i, x := range got[0] {
		sum += float64(x) * float64(i)
	}
	if want := 143.97166833; math.Abs(sum-want) > 1e-6 {
		t.Errorf("fingerprint %v, want %v", sum, want)
	}
}

func TestMissingFileIsNamedWithTheRemedy(t *testing.T) {
	dir := t.TempDir()
	for name, change := range map[string]func(*embedding.Config){
		"libonnx-none.so": func(c *embedding.Config) { c.RuntimeLibrary = filepath.Join(dir, "libonnx-none.so") },
		"int8.onnx":       func(c *embedding.Config) { c.ModelDir = dir },
	} {
		cfg := embedding.DefaultConfig()
		change(&cfg)
		_, err := embedding.New(cfg, telemetry.Discard())
		if err == nil || !strings.Contains(err.Error(), filepath.Join(dir, name)) || !strings.Contains(err.Error(), "make setup") {
			t.Errorf("error %v, want %s and make setup", err, name)
		}
	}
}

func TestBrokenFileIsAnError(t *testing.T) {
	dir := t.TempDir()
	broken := filepath.Join(dir, "broken")
	for _, name := range []string{"broken", "int8.onnx", "vocab.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("[CLS]\n[SEP]\n[UNK]\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, change := range map[string]func(*embedding.Config){
		"library": func(c *embedding.Config) { c.RuntimeLibrary = broken },
		"model":   func(c *embedding.Config) { c.ModelDir = dir },
	} {
		cfg := embedding.DefaultConfig()
		change(&cfg)
		if _, err := embedding.New(cfg, telemetry.Discard()); err == nil || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: error %v, want one that names the file", name, err)
		}
	}
}

func TestClosedProviderFails(t *testing.T) {
	p := open(t, variant(embedding.VariantInt8))
	for range 2 {
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.Embed(t.Context(), []string{"late"}); err == nil {
		t.Error("no error after Close")
	}
}

func TestConfigNamesEachKey(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  embedding.Config
		want []string
	}{
		{"provider", embedding.Config{Provider: "word2vec", CacheBytes: -1}, []string{"provider", "cache_bytes"}},
		{"minilm", embedding.Config{Provider: "minilm"}, []string{"model_dir", "runtime_library", "variant", "threads"}},
		{"openai", embedding.Config{Provider: "openai", URL: "ftp://user:secret@x", Dimensions: -1}, []string{"url", "model", "dimensions", "batch_texts", "timeout"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.cfg.Validate()
			for _, key := range tt.want {
				if err == nil || !strings.Contains(err.Error(), key+":") {
					t.Errorf("error %v does not name %s", err, key)
				}
			}
			if err != nil && strings.Contains(err.Error(), "secret") {
				t.Errorf("error %v shows the password", err)
			}
		})
	}
	if err := embedding.DefaultConfig().Validate(); err != nil {
		t.Errorf("the default is invalid: %v", err)
	}
}

func TestTruncatedTextsAreCounted(t *testing.T) {
	tel, err := telemetry.New(io.Discard, slog.LevelError)
	if err != nil {
		t.Fatal(err)
	}
	cfg := embedding.DefaultConfig()
	p, err := embedding.New(cfg, tel)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	}()
	fits := strings.TrimSpace(strings.Repeat("word ", 254))
	got, err := p.Embed(t.Context(), []string{fits, fits + " more", fits + " and more"})
	if err != nil {
		t.Fatal(err)
	}
	if s := embedding.Similarity(got[0], got[1]); s < 0.9999 {
		t.Errorf("the part left out changed the vector: similarity %v", s)
	}
	if n := counter(t, tel, "hone_embedding_truncated_total"); n != 2 {
		t.Errorf("%v texts counted, want 2", n)
	}
	if n := counter(t, tel, "hone_embedding_cache_misses_total"); n != 3 {
		t.Errorf("%v misses counted, want 3", n)
	}
}

func counter(t *testing.T, tel *telemetry.Telemetry, name string) float64 {
	t.Helper()
	families, err := tel.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == name {
			return f.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

func TestCancelStopsALargeCall(t *testing.T) {
	p := open(t, variant(embedding.VariantInt8))
	texts := slices.Repeat([]string{strings.Repeat("many words to read ", 60)}, embedding.MaxTexts)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if _, err := p.Embed(ctx, texts); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	// All texts would take minutes.
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("stopped after %v", took)
	}
}

func TestCloseWaitsForRunningTexts(t *testing.T) {
	p := open(t, variant(embedding.VariantInt8))
	var group sync.WaitGroup
	started := make(chan struct{}, 4)
	for range 4 {
		group.Go(func() {
			for {
				_, err := p.Embed(t.Context(), []string{"still at work"})
				if err != nil {
					if !strings.Contains(err.Error(), "closed") {
						t.Errorf("error %v", err)
					}
					return
				}
				select {
				case started <- struct{}{}:
				default:
				}
			}
		})
	}
	<-started
	if err := p.Close(); err != nil {
		t.Error(err)
	}
	group.Wait()
}
