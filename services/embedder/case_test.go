package embedder

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"
)

func TestShortenCountsCodePoints(t *testing.T) {
	tests := []struct{ in, want string }{
		{"", ""}, {"abcde", "abcde"}, {"abcdef", "abcd…"}, {"äöüßé", "äöüßé"}, {"äöüßéx", "äöüß…"}, {"abc   def", "abc…"},
	}
	for _, tt := range tests {
		if got := shorten(tt.in, 5); got != tt.want || utf8.RuneCountInString(got) > 5 {
			t.Errorf("shorten(%q) = %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestNewestIsTheSameInAnyOrder(t *testing.T) {
	var all []said
	for i := range 30 {
		all = append(all, said{fmt.Sprint("text ", i%12), start.Add(time.Duration(i%7) * time.Minute), fmt.Sprint("s", i)})
	}
	var want []string
	for seed := range uint64(50) {
		rand.New(rand.NewPCG(seed, 3)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		var n newest
		for _, s := range all {
			n.add(s.text, s.at, s.id)
		}
		if want == nil {
			want = n.texts()
		}
		if got := n.texts(); !slices.Equal(got, want) || len(got) != maxNewest {
			t.Fatalf("got %v, want %v", got, want)
		}
	}
}

func TestMostKeepsTheLargest(t *testing.T) {
	counts := map[string]uint32{}
	for i := range 80 {
		counts[fmt.Sprint(i)] = uint32(i)
	}
	if got := most(counts); len(got) != maxCounted || got["79"] != 79 || got["30"] != 30 {
		t.Errorf("most = %v", got)
	}
}

func TestCacheIsBoundedInMembersAndTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newCaseCache(10, time.Minute)
		add := func(id string, n int) {
			c := newCase(id, "p")
			for i := range n {
				c.set(fmt.Sprint(i), member{})
			}
			k.put(c)
		}
		add("a", 3)
		add("b", 3)
		add("c", 3) // 12 in all: a goes
		if k.take("p", "a") != nil || k.size != 8 {
			t.Errorf("size = %d", k.size)
		}
		if k.take("q", "b") != nil || k.take("p", "b") == nil || k.take("p", "b") != nil || k.size != 4 {
			t.Errorf("take does not take; size = %d", k.size)
		}
		add("huge", 20)
		if k.take("p", "huge") != nil || k.size != 0 || len(k.entries) != 0 {
			t.Errorf("size = %d", k.size)
		}
		add("d", 1)
		time.Sleep(61 * time.Second)
		if k.take("p", "d") != nil || k.size != 0 {
			t.Error("an old case came from the cache")
		}
	})
}

func TestConfigNamesWhatIsWrong(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Kafka.Brokers = []string{"127.0.0.1:9092"}
	if err := cfg.Validate(); err != nil {
		t.Error(err)
	}
	cfg.Server.GRPCAddr, cfg.Weaviate.URL, cfg.Embedding.Provider = "", "", "none"
	cfg.Cases = CasesConfig{JoinThreshold: 2, CachedMembers: -1}
	cfg.Recall = RecallConfig{}
	err := cfg.Validate()
	for _, key := range []string{
		"server.grpc_addr", "weaviate.url", "embedding.provider", "cases.join_threshold", "cases.cached_members", "cases.cache_ttl",
		"recall.timeout", "recall.concurrency", "recall.prompt_bytes",
	} {
		if err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("Validate does not name %s: %v", key, err)
		}
	}
}
