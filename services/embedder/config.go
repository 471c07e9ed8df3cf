package embedder

import (
	"errors"
	"fmt"
	"time"

	"github.com/honeloop/hone/pkg/config"
	"github.com/honeloop/hone/pkg/embedding"
	"github.com/honeloop/hone/pkg/server"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/vector"
)

// Config is the embedder's configuration.
type Config struct {
	Server    server.Config    `yaml:"server" envPrefix:"SERVER_"`
	Kafka     stream.Config    `yaml:"kafka" envPrefix:"KAFKA_"`
	Weaviate  vector.Config    `yaml:"weaviate" envPrefix:"WEAVIATE_"`
	Embedding embedding.Config `yaml:"embedding" envPrefix:"EMBEDDING_"`
	// EmbeddingNext is the model that `hone reindex` changes to; none where it
	// has no provider.
	EmbeddingNext embedding.Config `yaml:"embedding_next" envPrefix:"EMBEDDING_NEXT_"`
	Cases         CasesConfig      `yaml:"cases" envPrefix:"CASES_"`
	Titles        TitlesConfig     `yaml:"titles" envPrefix:"TITLES_"`
	Recall        RecallConfig     `yaml:"recall" envPrefix:"RECALL_"`
}

// CasesConfig says when a signal belongs to a case.
type CasesConfig struct {
	// Cosine similarity to a case's founder from which a signal joins it. 0
	// means the default of the embedding provider.
	JoinThreshold float64 `yaml:"join_threshold" env:"JOIN_THRESHOLD"`
	// Mean similarity between the signals of two cases from which the periodic
	// pass merges them. 0 means the default of the embedding provider.
	MergeThreshold float64 `yaml:"merge_threshold" env:"MERGE_THRESHOLD"`
	// How often cases that changed are looked at for doubles and mixtures; 0 for
	// never.
	PassInterval time.Duration `yaml:"pass_interval" env:"PASS_INTERVAL"`
	// Members, over all cases, that are kept in memory; about 1 KB each.
	CachedMembers int `yaml:"cached_members" env:"CACHED_MEMBERS"`
	// How long a case is kept before it is compared with the stored one: how late
	// a change by another embedder process is seen in a case's counts.
	CacheTTL time.Duration `yaml:"cache_ttl" env:"CACHE_TTL"`
	// Longest time that a person's change of a case waits until it is applied.
	EditTimeout time.Duration `yaml:"edit_timeout" env:"EDIT_TIMEOUT"`
}

// RecallConfig says what Recall answers.
type RecallConfig struct {
	// Longest time of one Recall.
	Timeout time.Duration `yaml:"timeout" env:"TIMEOUT"`
	// Calls of Recall and Embed that work at once; the others wait, at most
	// Timeout.
	Concurrency int `yaml:"concurrency" env:"CONCURRENCY"`
	// Longest prompt block, in bytes.
	PromptBytes int `yaml:"prompt_bytes" env:"PROMPT_BYTES"`
	// gRPC address of the enricher, whose trails say what a session's user asked
	// before; empty for not looking.
	Trail string `yaml:"trail" env:"TRAIL"`
	// Longest time of one look, of the Timeout.
	SessionTimeout time.Duration `yaml:"session_timeout" env:"SESSION_TIMEOUT"`
	// Whether a query is also judged by the queries asked before, of which 1,000
	// for each project stay in memory, as vectors.
	Background bool `yaml:"background" env:"BACKGROUND"`
}

// DefaultConfig listens on ports 9094 and 9194.
func DefaultConfig() Config {
	next := embedding.DefaultConfig()
	next.Provider = ""
	return Config{
		Server:    server.DefaultConfig(9094, 9194),
		Kafka:     stream.DefaultConfig(),
		Weaviate:  vector.DefaultConfig(),
		Embedding: embedding.DefaultConfig(), EmbeddingNext: next,
		Cases:  CasesConfig{CachedMembers: 100_000, CacheTTL: 30 * time.Second, EditTimeout: 10 * time.Second, PassInterval: 10 * time.Minute},
		Titles: DefaultTitlesConfig(),
		Recall: RecallConfig{Timeout: time.Second, Concurrency: 64, PromptBytes: 4000,
			Trail: "127.0.0.1:9091", SessionTimeout: 100 * time.Millisecond, Background: true},
	}
}

// Validate joins all that is wrong.
func (c Config) Validate() error {
	errs := []error{
		config.In("server", c.Server.Validate()),
		config.In("kafka", c.Kafka.Validate()),
		config.In("weaviate", c.Weaviate.Validate()),
		config.In("embedding", c.Embedding.Validate()),
	}
	errs = append(errs, config.In("titles", c.Titles.Validate()))
	if c.EmbeddingNext.Provider != "" {
		errs = append(errs, config.In("embedding_next", c.EmbeddingNext.Validate()))
	}
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if c.Cases.JoinThreshold < 0 || c.Cases.JoinThreshold > 1 {
		bad("cases.join_threshold: %g, want 0 to 1", c.Cases.JoinThreshold)
	}
	if c.Cases.MergeThreshold < 0 || c.Cases.MergeThreshold > 1 {
		bad("cases.merge_threshold: %g, want 0 to 1", c.Cases.MergeThreshold)
	}
	if c.Cases.PassInterval < 0 {
		bad("cases.pass_interval: want 0 or more")
	}
	if c.Cases.CachedMembers < 0 {
		bad("cases.cached_members: %d, want 0 or more", c.Cases.CachedMembers)
	}
	if c.Cases.CacheTTL <= 0 {
		bad("cases.cache_ttl: want more than 0")
	}
	if c.Cases.EditTimeout <= 0 {
		bad("cases.edit_timeout: want more than 0")
	}
	if c.Recall.Timeout <= 0 {
		bad("recall.timeout: want more than 0")
	}
	if c.Recall.Concurrency < 1 {
		bad("recall.concurrency: %d, want 1 or more", c.Recall.Concurrency)
	}
	if c.Recall.PromptBytes < 500 {
		bad("recall.prompt_bytes: %d, want 500 or more", c.Recall.PromptBytes)
	}
	if c.Recall.SessionTimeout <= 0 {
		bad("recall.session_timeout: want more than 0")
	}
	return errors.Join(errs...)
}

// joinThreshold fills in what is not configured. Cosines of different models
// are not comparable.
func (c Config) joinThreshold(provider string) float64 {
	switch {
	case c.Cases.JoinThreshold > 0:
		return c.Cases.JoinThreshold
	case provider == embedding.ProviderHash:
		return 0.60
	}
	return 0.70
}

// mergeThreshold is the same for the pass (DECISIONS.md 32, 39).
func (c Config) mergeThreshold(provider string) float64 {
	switch {
	case c.Cases.MergeThreshold > 0:
		return c.Cases.MergeThreshold
	case provider == embedding.ProviderHash:
		return 0.51
	}
	return 0.67
}
