package collector

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/honeloop/hone/pkg/auth"
	collectorv1 "github.com/honeloop/hone/proto/gen/go/hone/collector/v1"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
)

func TestKeysThatSendTooMuchGet429(t *testing.T) {
	f := newFixture(t, func(c *Config) {
		c.Limits.Batch = 10
		c.Rate = RateConfig{Secret: 2, Publishable: 4, Burst: time.Second}
	})
	now := time.Now()
	f.handler.intake.now = func() time.Time { return now }
	batch := func(n int) string { return `{"events":[` + strings.TrimSuffix(strings.Repeat(good+",", n), ",") + `]}` }
	if a := f.send(batch(9)); a.status != 202 {
		t.Fatalf("got %d %s", a.status, a.raw)
	}
	a := f.send(batch(4)) // one token is left, and three take 1.5 s
	a.wantError(t, 429, "resource_exhausted", "", "none of the 4 events")
	if a.header.Get("Retry-After") != "2" || a.Error.RetryAfter != 1.5 || len(a.Results) != 4 {
		t.Errorf("got %v %s", a.header, a.raw)
	}
	if a := f.send(good); a.status != 202 {
		t.Errorf("what is left is not given: %d %s", a.status, a.raw)
	}
	a = f.send(`{`) // refused before it is read
	a.wantError(t, 429, "resource_exhausted", "", "more events than it may")
	if a.header.Get("Retry-After") != "1" || a.Error.RetryAfter != 0.5 {
		t.Errorf("got %v %s", a.header, a.raw)
	}
	if a := f.send(good, "Authorization", "Bearer "+f.publishable); a.status != 202 {
		t.Errorf("another key: %d %s", a.status, a.raw)
	}
	now = now.Add(500 * time.Millisecond)
	if a := f.send(good); a.status != 202 {
		t.Errorf("after the wait: %d %s", a.status, a.raw)
	}
	now = now.Add(time.Hour)
	if a := f.send(batch(10)); a.status != 202 {
		t.Errorf("a whole batch: %d %s", a.status, a.raw)
	}

	key, err := f.keys.Authenticate(f.secret)
	if err != nil {
		t.Fatal(err)
	}
	g := &grpcService{intake: f.handler.intake}
	_, err = g.SendEvents(auth.WithKey(context.Background(), key), &collectorv1.SendEventsRequest{Events: []*eventv1.Event{{}}})
	if st := status.Convert(err); st.Code() != codes.ResourceExhausted || len(st.Details()) != 1 {
		t.Errorf("gRPC: %v", err)
	}
}

func TestLimiter(t *testing.T) {
	l := newLimiter(RateConfig{Secret: 10, Burst: time.Second}, 5)
	now := time.Now()
	key := auth.Key{Kind: auth.Secret, SHA256: "a"}
	own := auth.Key{Kind: auth.Secret, SHA256: "b", Rate: 100}
	for _, step := range []struct {
		name  string
		key   *auth.Key
		n     int
		after time.Duration
		want  time.Duration
	}{
		{"burst", &key, 10, 0, 0},
		{"empty", &key, 0, 0, 100 * time.Millisecond},
		{"one", &key, 1, 0, 100 * time.Millisecond},
		{"refused takes nothing", &key, 1, 100 * time.Millisecond, 0},
		{"more than fits", &key, 1000, 0, time.Second},
		{"more than fits, full", &key, 1000, time.Second, 0},
		{"in debt", &key, 1, time.Second, 98100 * time.Millisecond},
		{"own rate", &own, 100, 0, 0},
		{"own rate, empty", &own, 1, 0, 10 * time.Millisecond},
		{"no limit", &auth.Key{Kind: auth.Publishable, SHA256: "c"}, 1_000_000, 0, 0},
	} {
		now = now.Add(step.after)
		if got := l.wait(step.key, step.n, now); got.Round(time.Millisecond) != step.want {
			t.Errorf("%s: wait %s, want %s", step.name, got, step.want)
		}
	}
	own.Rate = 1000
	if got := l.wait(&own, 1, now); got != 0 {
		t.Errorf("a rate that grew: wait %s", got)
	}
	for i := range 3 * manyBuckets {
		k := auth.Key{Kind: auth.Secret, SHA256: string(rune('a'+i%26)) + time.Duration(i).String()}
		l.wait(&k, 1, now)
		now = now.Add(time.Millisecond)
	}
	if n := len(l.buckets); n > manyBuckets {
		t.Errorf("%d buckets", n)
	}
}
