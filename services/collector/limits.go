package collector

import (
	"errors"
	"math"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/honeloop/hone/pkg/auth"
	"github.com/honeloop/hone/services/collector/internal/apierr"
)

// RateConfig bounds what one key may send to one collector, in events a second.
// A key's own rate in the keys file goes before it. 0 is no bound.
type RateConfig struct {
	// Of a publishable key, which every visitor of a page has.
	Publishable float64 `yaml:"publishable" env:"PUBLISHABLE"`
	// Of a secret key.
	Secret float64 `yaml:"secret" env:"SECRET"`
	// How long a key must have been silent to send that much at once. A whole
	// batch can always be sent at once.
	Burst time.Duration `yaml:"burst" env:"BURST"`
}

// DefaultRateConfig stops floods, and nothing that a collector could take.
func DefaultRateConfig() RateConfig {
	return RateConfig{Publishable: 5_000, Secret: 100_000, Burst: 2 * time.Second}
}

// Validate joins all that is wrong.
func (c RateConfig) Validate() error {
	var errs []error
	if c.Publishable < 0 || math.IsNaN(c.Publishable) {
		errs = append(errs, errors.New("publishable: want at least 0"))
	}
	if c.Secret < 0 || math.IsNaN(c.Secret) {
		errs = append(errs, errors.New("secret: want at least 0"))
	}
	if c.Burst <= 0 {
		errs = append(errs, errors.New("burst: want more than 0"))
	}
	return errors.Join(errs...)
}

// limiter has a bucket of tokens for each key, one token for an event.
type limiter struct {
	cfg   RateConfig
	batch float64 // tokens that every bucket has room for

	mu      sync.Mutex
	buckets map[string]*bucket // by the key's hash
}

type bucket struct {
	tokens, capacity, rate float64
	at                     time.Time // when tokens was right
}

// manyBuckets is where those are looked for that may go.
const manyBuckets = 4096

func newLimiter(cfg RateConfig, batch int) *limiter {
	return &limiter{cfg: cfg, batch: float64(batch), buckets: map[string]*bucket{}}
}

// wait takes n tokens of a key and returns 0, or takes none and returns how long
// it takes until there are as many. With n = 0 it says whether there is any.
func (l *limiter) wait(key *auth.Key, n int, now time.Time) time.Duration {
	rate := key.Rate
	if rate == 0 {
		if rate = l.cfg.Secret; key.Kind != auth.Secret {
			rate = l.cfg.Publishable
		}
		if rate == 0 {
			return 0
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.buckets[key.SHA256]
	if b == nil || b.rate != rate { // a key's rate can change with the keys file
		l.makeRoom(now)
		b = &bucket{rate: rate, capacity: max(rate*l.cfg.Burst.Seconds(), l.batch), at: now}
		b.tokens = b.capacity
		l.buckets[key.SHA256] = b
	}
	b.fill(now)
	need := max(float64(n), 1)
	// A request larger than a batch, such as OTLP's, may use a full bucket up.
	if missing := min(need, b.capacity) - b.tokens; missing > 0 {
		return time.Duration(math.Ceil(missing / rate * float64(time.Second)))
	}
	b.tokens -= float64(n)
	return 0
}

func (b *bucket) fill(now time.Time) {
	if passed := now.Sub(b.at).Seconds(); passed > 0 {
		b.tokens = min(b.capacity, b.tokens+passed*b.rate)
		b.at = now
	}
}

// makeRoom forgets full buckets, which are as good as none.
func (l *limiter) makeRoom(now time.Time) {
	if len(l.buckets) < manyBuckets {
		return
	}
	for hash, b := range l.buckets {
		if b.fill(now); b.tokens >= b.capacity {
			delete(l.buckets, hash)
		}
	}
}

func errRate(wait time.Duration) *apierr.Error {
	e := apierr.Errorf(codes.ResourceExhausted, "the key sends more events than it may: send less in a second")
	e.RetryAfter = max(wait.Round(time.Millisecond), time.Millisecond)
	return e
}
