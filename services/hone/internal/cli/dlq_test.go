package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/stream/streamtest"
	"github.com/honeloop/hone/pkg/telemetry"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	"github.com/honeloop/hone/services/hone/internal/endpoints"
)

// withBroker is a broker and a directory by which commands find it.
func withBroker(t *testing.T) (b *streamtest.Broker, dir string) {
	t.Helper()
	b = streamtest.StartBroker(t)
	dir = t.TempDir()
	if err := endpoints.Write(dir, endpoints.Endpoints{Kafka: b.Config().Brokers[0]}); err != nil {
		t.Fatal(err)
	}
	return b, dir
}

// runStage runs a stage until the test ends.
func runStage(t *testing.T, b *streamtest.Broker, group, topic string, st stage.Func) {
	t.Helper()
	pub, err := stream.NewPublisher(b.Config(), telemetry.Discard())
	if err != nil {
		t.Fatal(err)
	}
	r, err := stream.NewRunner(stream.DefaultRunnerConfig(group, topic), b.Config(), st, pub, telemetry.Discard())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := errors.Join(<-done, pub.Close()); err != nil {
			t.Error(err)
		}
	})
}

func eventRecord(t *testing.T, id, session string) stage.Record {
	t.Helper()
	value, err := proto.Marshal(&eventv1.Event{EventId: id, SessionId: session})
	if err != nil {
		t.Fatal(err)
	}
	return stage.Record{Topic: stream.TopicEvents, Key: stream.SessionKey("shop", session), Value: value,
		Headers: []stage.Header{{Key: "traceparent", Value: []byte("00-abc")}}}
}

func lines(t *testing.T, out string) (all []map[string]any) {
	t.Helper()
	for dec := json.NewDecoder(strings.NewReader(out)); dec.More(); {
		var m map[string]any
		if err := dec.Decode(&m); err != nil {
			t.Fatalf("%v in %s", err, out)
		}
		all = append(all, m)
	}
	return all
}

func TestDeadLettersAreListedShownAndReplayed(t *testing.T) {
	b, dir := withBroker(t)
	if out := mustRun(t, "dlq", "list", "--dir", dir); !strings.Contains(out, "No dead letters") {
		t.Errorf("an empty topic: %q", out)
	}
	var mu sync.Mutex
	broken := true
	var effects []stage.Record
	runStage(t, b, "hone-enricher", stream.TopicEvents, func(_ context.Context, in []stage.Record) ([]stage.Record, error) {
		mu.Lock()
		defer mu.Unlock()
		var failed *stage.BatchError
		for i, r := range in {
			if broken {
				failed = failed.Fail(i, errors.New("Policy of "+string(r.Key)+" is unknown"))
				continue
			}
			effects = append(effects, r)
		}
		return nil, failed.ErrorOrNil()
	})
	sent := []stage.Record{eventRecord(t, "e1", "a"), eventRecord(t, "e2", "b"), eventRecord(t, "e3", "a"),
		{Topic: stream.TopicEvents, Key: []byte("shop/c"), Value: []byte{0xff, 0x00, 0xfe}}}
	b.Write(t, sent...)
	b.Read(t, stream.TopicDeadLetter, 4)
	b.Write(t, stage.Record{Topic: stream.TopicDeadLetter, Value: []byte("written by hand")})

	for _, tt := range []struct {
		flags []string
		want  int
	}{
		{nil, 4}, {[]string{"--stage", "enricher"}, 4}, {[]string{"--stage", "router"}, 0},
		{[]string{"--topic", "hone.events"}, 4}, {[]string{"--topic", "hone.cases"}, 0},
		{[]string{"--cause", "policy OF shop/b"}, 1}, {[]string{"--session", "a"}, 2}, {[]string{"--key", "shop/a"}, 2},
		{[]string{"--key", "a"}, 0}, {[]string{"--since", "1h"}, 4}, {[]string{"--since", "0s"}, 0}, {[]string{"-n", "1"}, 1},
		{[]string{"--since", time.Now().Add(-time.Minute).UTC().Format(time.RFC3339), "--session", "b"}, 1},
	} {
		out := lines(t, mustRun(t, append([]string{"dlq", "list", "--dir", dir, "--json"}, tt.flags...)...))
		if len(out) != tt.want {
			t.Errorf("list %v: %d dead letters, want %d", tt.flags, len(out), tt.want)
		}
	}
	if _, err := run(t, "dlq", "list", "--dir", dir, "--since", "yesterday"); err == nil {
		t.Error("--since yesterday: no error")
	}

	// What is shown.
	for _, l := range lines(t, mustRun(t, "dlq", "list", "--dir", dir, "--json")) {
		offset, _ := json.Marshal(l["dead_letter"])
		plain := mustRun(t, "dlq", "show", string(offset), "--dir", dir)
		shown := lines(t, mustRun(t, "dlq", "show", string(offset), "--dir", dir, "--json"))[0]
		if !strings.Contains(plain, "is unknown") || shown["stage"] != "enricher" || shown["cause"] == "" {
			t.Errorf("show %s: %s", offset, plain)
		}
		if l["key"] == "shop/c" {
			if shown["decode_error"] == nil || !strings.Contains(plain, `"\xff\x00\xfe"`) {
				t.Errorf("show what cannot be decoded: %v\n%s", shown, plain)
			}
			continue
		}
		if decoded, ok := shown["decoded"].(map[string]any); !ok || decoded["session_id"] != strings.TrimPrefix(l["key"].(string), "shop/") {
			t.Errorf("show %s: decoded %v", offset, shown["decoded"])
		}
		if !strings.Contains(plain, "traceparent: 00-abc") || !strings.Contains(plain, `"session_id": "`) {
			t.Errorf("show %s: %s", offset, plain)
		}
	}
	for _, bad := range []string{"99", "-1", "x"} {
		if _, err := run(t, "dlq", "show", bad, "--dir", dir); err == nil {
			t.Errorf("show %s: no error", bad)
		}
	}

	// What is replayed.
	var result replayResult
	decode(t, mustRun(t, "dlq", "replay", "--dir", dir, "--dry-run", "--json"), &result)
	if result.Matched != 4 || result.Replayed != 0 || result.Unreadable != 1 || result.ByOrigin["enricher hone.events"] != 4 {
		t.Errorf("dry run: %+v", result)
	}
	if n := len(b.All(t, stream.TopicEvents)); n != 4 {
		t.Errorf("a dry run published: %d events", n)
	}
	mu.Lock()
	broken = false
	mu.Unlock()
	for range 2 {
		decode(t, mustRun(t, "dlq", "replay", "--dir", dir, "--yes", "--json"), &result)
		if result.Matched != 4 || result.Replayed != 4 {
			t.Errorf("replay: %+v", result)
		}
	}
	all := b.Read(t, stream.TopicEvents, 12)
	replays := 0
	for _, r := range all {
		i := slices.IndexFunc(sent, func(s stage.Record) bool { return bytes.Equal(s.Value, r.Value) })
		if i < 0 || !bytes.Equal(sent[i].Key, r.Key) {
			t.Fatalf("%d@%d is nothing that was sent", r.Partition, r.Offset)
		}
		if n := len(r.Headers); n > 0 && r.Headers[n-1].Key == stream.HeaderReplayOf {
			replays++
			if got, want := len(r.Headers)-1, len(sent[i].Headers); got != want {
				t.Errorf("%d of its own headers, want %d", got, want)
			}
		}
	}
	if replays != 8 {
		t.Errorf("%d records say that they are replays, want 8", replays)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		mu.Lock()
		n := len(effects)
		mu.Unlock()
		if n == 8 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the stage saw %d replays, want 8", n)
		}
	}

	one := lines(t, mustRun(t, "dlq", "list", "--dir", dir, "--session", "b", "--json"))[0]
	offset, _ := json.Marshal(one["dead_letter"])
	decode(t, mustRun(t, "dlq", "replay", string(offset), "--dir", dir, "--yes", "--json"), &result)
	if result.Matched != 1 {
		t.Errorf("replay of one: %+v", result)
	}
	if _, err := run(t, "dlq", "replay", string(offset), "99", "--dir", dir, "--yes"); err == nil {
		t.Error("replay of an offset that is not there: no error")
	}
}

func TestReplayAsks(t *testing.T) {
	b, dir := withBroker(t)
	b.Write(t, deadLetter(stream.TopicEvents, nil, []byte("v")))
	for answer, want := range map[string]int{"n\n": 0, "": 0, "Yes\n": 1} {
		cmd := New()
		var out bytes.Buffer
		cmd.SetOut(&out)
		cmd.SetErr(&out)
		cmd.SetIn(strings.NewReader(answer))
		cmd.SetArgs([]string{"dlq", "replay", "--dir", dir})
		err := cmd.ExecuteContext(t.Context())
		if (err == nil) != (want == 1) || !strings.Contains(out.String(), "Publish 1 dead letter again? [y/N]") {
			t.Errorf("answer %q: %v\n%s", answer, err, out.String())
		}
	}
	if n := len(b.All(t, stream.TopicEvents)); n != 1 {
		t.Errorf("%d events, want the one that was confirmed", n)
	}
}
