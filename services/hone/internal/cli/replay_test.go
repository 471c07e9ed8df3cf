package cli

import (
	"context"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/stream/streamtest"
)

func TestReplayRunsAStageAgain(t *testing.T) {
	b, dir := withBroker(t)
	if _, err := run(t, "replay", "--stage", "enricher", "--from-offset", "0", "--dir", dir); err == nil || !strings.Contains(err.Error(), "not read anything") {
		t.Errorf("replay of what never ran: %v", err)
	}
	var handled atomic.Int64
	runStage(t, b, "hone-enricher", stream.TopicEvents, func(_ context.Context, in []stage.Record) ([]stage.Record, error) {
		handled.Add(int64(len(in)))
		return nil, nil
	})
	for i := range 40 {
		b.Write(t, eventRecord(t, fmt.Sprint("e", i), fmt.Sprint("s", i%9)))
	}
	awaitCommitted(t, b, "hone-enricher", 40)

	var r stageReplay
	decode(t, mustRun(t, "replay", "--stage", "enricher", "--from-time", "1h", "--dry-run", "--json", "--dir", dir), &r)
	if r.Records != 40 || r.Done != 0 || len(r.Partitions) != 3 || !r.DryRun {
		t.Errorf("dry run: %+v", r)
	}
	if out := mustRun(t, "replay", "--stage", "enricher", "--from-time", "0s", "--yes", "--dir", dir); !strings.Contains(out, "nothing to read again") {
		t.Errorf("replay of nothing: %q", out)
	}
	if handled.Load() != 40 {
		t.Fatalf("%d handled before the replay", handled.Load())
	}
	out := mustRun(t, "replay", "--stage", "enricher", "--from-offset", "0", "--yes", "--brokers", b.Config().Brokers[0])
	if !strings.Contains(out, "has read 40 records again") || handled.Load() != 80 {
		t.Errorf("%d handled: %s", handled.Load(), out)
	}
	decode(t, mustRun(t, "replay", "--stage", "enricher", "--from-offset", "2", "--partition", "1", "--yes", "--json", "--dir", dir), &r)
	if r.Done != r.Records || len(r.Partitions) != 1 || r.Partitions[0].From != 2 || r.Members != 1 {
		t.Errorf("replay of one partition: %+v", r)
	}
	if got := handled.Load(); got != 80+r.Records {
		t.Errorf("%d handled, want %d", got, 80+r.Records)
	}

	decode(t, mustRun(t, "replay", "--stage", "enricher", "--from-offset", "1", "--to-offset", "3", "--yes", "--json", "--dir", dir), &r)
	if r.Records != 6 || r.Done != 6 || len(r.Partitions) != 3 || r.Partitions[0].To != 3 {
		t.Errorf("replay with an end: %+v", r)
	}
	awaitCommitted(t, b, "hone-enricher", 40)
	for _, tt := range []struct{ flags, want string }{
		{"--from-offset 3 --to-offset 3", "more than --from-offset"},
		{"--from-offset 0 --to-offset -1", "more than --from-offset"},
		{"--from-time 1h --to-time 2h", "after --from-time"},
		{"--from-time 1h --to-time 30m --to-offset 4", "say where to end once"},
	} {
		args := append([]string{"replay", "--stage", "enricher", "--dir", dir}, strings.Fields(tt.flags)...)
		if _, err := run(t, args...); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.flags, err)
		}
	}
}

func TestReplayOfAStageThatDoesNotRun(t *testing.T) {
	b, dir := withBroker(t)
	var handled atomic.Int64
	count := func(_ context.Context, in []stage.Record) ([]stage.Record, error) {
		handled.Add(int64(len(in)))
		return nil, nil
	}
	for i := range 10 {
		b.Write(t, eventRecord(t, fmt.Sprint("e", i), fmt.Sprint("s", i)))
	}
	t.Run("first run", func(t *testing.T) {
		runStage(t, b, "hone-enricher", stream.TopicEvents, count)
		awaitCommitted(t, b, "hone-enricher", 10)
	})
	if _, err := run(t, "replay", "--stage", "enricher", "--from-offset", "0", "--to-offset", "1", "--yes", "--dir", dir); err == nil || !strings.Contains(err.Error(), "start it first") {
		t.Errorf("replay with an end: %v", err)
	}
	awaitCommitted(t, b, "hone-enricher", 10)
	if out := mustRun(t, "replay", "--stage", "enricher", "--from-offset", "0", "--yes", "--dir", dir); !strings.Contains(out, "does not run: it reads 10 records again when it starts") {
		t.Errorf("replay says %q", out)
	}
	awaitCommitted(t, b, "hone-enricher", 0)
	runStage(t, b, "hone-enricher", stream.TopicEvents, count)
	awaitCommitted(t, b, "hone-enricher", 10)
	if handled.Load() != 20 {
		t.Errorf("%d handled, want each of 10 twice", handled.Load())
	}
}

// awaitCommitted waits until a group has committed so many records of hone.events.
func awaitCommitted(t *testing.T, b *streamtest.Broker, group string, want int64) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		offsets, err := stream.Committed(t.Context(), b.Config(), group)
		if err != nil {
			t.Fatal(err)
		}
		var n int64
		for _, o := range offsets[stream.TopicEvents] {
			n += o
		}
		if n == want {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d committed after 20 s, want %d", n, want)
		}
	}
}

func TestReplayRefusesWhatItCannotDo(t *testing.T) {
	for _, args := range [][]string{
		{"--from-offset", "0"},
		{"--stage", "collector", "--from-offset", "0"},
		{"--stage", "router"},
		{"--stage", "router", "--from-offset", "0", "--from-time", "1h"},
		{"--stage", "router", "--from-time", "soon"},
	} {
		if _, err := run(t, append([]string{"replay", "--brokers", "127.0.0.1:1"}, args...)...); err == nil {
			t.Errorf("%v: no error", args)
		}
	}
}
