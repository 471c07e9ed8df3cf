package embedding

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"time"
)

// The providers.
const (
	ProviderMiniLM = "minilm"
	ProviderHash   = "hash"
	ProviderOpenAI = "openai"
)

// The variants of the minilm graph.
const (
	VariantInt8 = "int8"
	VariantFP32 = "fp32"
)

// Config chooses and sets up a provider.
type Config struct {
	// Provider is minilm, hash or openai.
	Provider string `yaml:"provider" env:"PROVIDER"`
	// CacheBytes bounds the cache of vectors by content; 0 turns it off.
	CacheBytes int64 `yaml:"cache_bytes" env:"CACHE_BYTES"`

	// ModelDir holds what hone-model wrote (minilm).
	ModelDir string `yaml:"model_dir" env:"MODEL_DIR"`
	// RuntimeLibrary is ONNX Runtime's shared library (minilm).
	RuntimeLibrary string `yaml:"runtime_library" env:"RUNTIME_LIBRARY"`
	// Variant is int8, small and fast, or fp32, exact (minilm).
	Variant string `yaml:"variant" env:"VARIANT"`
	// Threads is the number of texts that are computed at a time (minilm).
	Threads int `yaml:"threads" env:"THREADS"`

	// URL is the endpoint's base, such as https://api.example.com/v1 (openai).
	URL string `yaml:"url" env:"URL"`
	// Model is the model's name at the endpoint (openai).
	Model string `yaml:"model" env:"MODEL"`
	// APIKey is sent as a bearer token where it is set (openai).
	APIKey string `yaml:"api_key" env:"API_KEY"`
	// Dimensions is the length of a vector; 0 is the model's own (openai), or 512 (hash).
	Dimensions int `yaml:"dimensions" env:"DIMENSIONS"`
	// BatchTexts is the number of texts in one request (openai).
	BatchTexts int `yaml:"batch_texts" env:"BATCH_TEXTS"`
	// Timeout bounds one Embed call with its retries (openai).
	Timeout time.Duration `yaml:"timeout" env:"TIMEOUT"`
}

// DefaultConfig is the model in process, found where set-up leaves it.
func DefaultConfig() Config {
	cache := cacheDir()
	return Config{
		Provider:       ProviderMiniLM,
		CacheBytes:     32 << 20,
		ModelDir:       filepath.Join(cache, "model", "minilm"),
		RuntimeLibrary: filepath.Join(cache, "onnxruntime", libraryName()),
		Variant:        VariantInt8,
		Threads:        min(2, runtime.NumCPU()),
		BatchTexts:     128,
		Timeout:        30 * time.Second,
	}
}

// Validate joins an error for each key that cannot work.
func (c Config) Validate() error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.CacheBytes < 0 {
		bad("cache_bytes: must not be negative")
	}
	switch c.Provider {
	case ProviderHash:
		if c.Dimensions != 0 && (c.Dimensions < 64 || c.Dimensions > 4096) {
			bad("dimensions: %d, want 64 to 4096, or 0 for %d", c.Dimensions, hashDimensions)
		}
	case ProviderMiniLM:
		if c.ModelDir == "" {
			bad("model_dir: must be set")
		}
		if c.RuntimeLibrary == "" {
			bad("runtime_library: must be set")
		}
		if c.Variant != VariantInt8 && c.Variant != VariantFP32 {
			bad("variant: %q is not %s or %s", c.Variant, VariantInt8, VariantFP32)
		}
		if c.Threads < 1 || c.Threads > 256 {
			bad("threads: must be 1 to 256")
		}
	case ProviderOpenAI:
		if u, err := url.Parse(c.URL); err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
			// The URL is not repeated: it may hold a password.
			bad("url: must be an http or https URL")
		}
		if c.Model == "" {
			bad("model: must be set")
		}
		if c.Dimensions < 0 {
			bad("dimensions: must not be negative")
		}
		if c.BatchTexts < 1 || c.BatchTexts > 2048 {
			bad("batch_texts: must be 1 to 2048")
		}
		if c.Timeout <= 0 {
			bad("timeout: must be positive")
		}
	default:
		bad("provider: %q is not %s, %s or %s", c.Provider, ProviderMiniLM, ProviderHash, ProviderOpenAI)
	}
	return errors.Join(errs...)
}

// cacheDir is where set-up leaves the model: HONE_CACHE, or hone in the user's
// cache folder.
func cacheDir() string {
	if dir := os.Getenv("HONE_CACHE"); dir != "" {
		return dir
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		return filepath.Join(os.TempDir(), "hone") // no home: the error shows as a missing file
	}
	return filepath.Join(dir, "hone")
}

func libraryName() string {
	if runtime.GOOS == "darwin" {
		return "libonnxruntime.dylib"
	}
	return "libonnxruntime.so"
}
