package stream_test

import (
	"context"
	"testing"

	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/stream/streamtest"
)

// forward sends every input on to hone.signals as it is.
func forward(_ context.Context, in []stage.Record) ([]stage.Record, error) {
	out := make([]stage.Record, len(in))
	for i, rec := range in {
		out[i] = stage.Record{Topic: stream.TopicSignals, Key: rec.Key, Value: rec.Value, Headers: rec.Headers}
	}
	return out, nil
}

func TestRunnerKeepsOrderPerKey(t *testing.T) {
	b := streamtest.StartBroker(t)
	cfg := runnerConfig(stream.TopicEvents)
	cfg.MaxBatch = 7
	r, _ := startRunner(t, cfg, b.Config(), stage.Func(forward))
	const keys, each = 10, 50
	for n := range each {
		var recs []stage.Record
		for k := range keys {
			recs = append(recs, event(string(rune('a'+k)), n))
		}
		b.Write(t, recs...)
	}
	next := map[string]int{}
	for _, rec := range b.Read(t, stream.TopicSignals, keys*each) {
		key := string(rec.Key)
		if want := string(event(key, next[key]).Value); string(rec.Value) != want {
			t.Fatalf("got %s, want %s", rec.Value, want)
		}
		next[key]++
	}
	if err := r.Ready(context.Background()); err != nil {
		t.Errorf("Ready: %v", err)
	}
}
