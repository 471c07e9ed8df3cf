package collector

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/honeloop/hone/pkg/spool"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/stream/streamtest"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
)

func withSpool(dir string) func(*Config) {
	return func(c *Config) { c.Spool.Enabled, c.Spool.Dir, c.Spool.MaxBytes = true, dir, 1<<20 }
}

// numbered is an event that says which of its session's it is.
func numbered(session string, n int) string {
	return strings.NewReplacer("s-1", session, "i-1", fmt.Sprintf("i-%d", n)).Replace(good)
}

// wantOrder checks that each session's events came in order, without a gap.
func wantOrder(t testing.TB, events []*eventv1.Event, each int) (doubles int) {
	t.Helper()
	next := map[string]int{}
	seen := map[string]bool{}
	for _, e := range events {
		if seen[e.EventId] {
			doubles++
			continue
		}
		seen[e.EventId] = true
		if want := fmt.Sprintf("i-%d", next[e.SessionId]); e.InteractionId != want {
			t.Fatalf("session %s: got %s, want %s", e.SessionId, e.InteractionId, want)
		}
		next[e.SessionId]++
	}
	for session, n := range next {
		if n != each {
			t.Errorf("session %s has %d events, want %d", session, n, each)
		}
	}
	return doubles
}

func TestSpooledEventsAreDrainedBeforeNewOnesPass(t *testing.T) {
	f, stop := run(t, withSpool(t.TempDir()))
	var away atomic.Bool
	gate := make(chan struct{})
	away.Store(true)
	keep := &memory{}
	f.memory.do = func(ctx context.Context, recs []stage.Record) error {
		if away.Load() {
			return fmt.Errorf("%w: gone", stream.ErrUnavailable)
		}
		<-gate
		return keep.Publish(ctx, recs...)
	}
	for i := range 50 {
		if a := f.send(numbered("a", i)); a.status != http.StatusAccepted {
			t.Fatalf("Kafka is away: got %d %s", a.status, a.raw)
		}
	}
	if st := f.Service.spool.spool.Stats(); st.Records != 50 || st.Oldest.IsZero() {
		t.Errorf("Stats = %+v", st)
	}
	away.Store(false) // it is back, and slow
	for i := 50; i < 60; i++ {
		if a := f.send(numbered("a", i)); a.status != http.StatusAccepted {
			t.Fatalf("while draining: got %d %s", a.status, a.raw)
		}
	}
	close(gate)
	eventually(t, "the spool is empty", func() bool { return !f.Service.spool.away.Load() })
	for i := 60; i < 70; i++ {
		f.send(numbered("a", i))
	}
	if doubles := wantOrder(t, keep.events(t), 70); doubles > 0 {
		t.Errorf("%d doubles", doubles)
	}
	if st := f.Service.spool.spool.Stats(); st.Records != 0 || st.Bytes != 0 {
		t.Errorf("Stats = %+v", st)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestSpoolSurvivesTheProcess(t *testing.T) {
	dir := t.TempDir()
	f := newFixture(t, withSpool(dir))
	f.memory.do = func(context.Context, []stage.Record) error { return stream.ErrUnavailable }
	for i := range 20 {
		if a := f.send(numbered("a", i)); a.status != http.StatusAccepted {
			t.Fatalf("got %d %s", a.status, a.raw)
		}
	}
	// What SIGKILL leaves: files, the last of them torn by a write that nobody
	// has an answer to.
	killed := t.TempDir()
	if err := os.CopyFS(killed, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	if err := f.Service.spool.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := filepath.Glob(filepath.Join(killed, "*.spool"))
	if err != nil || len(names) == 0 { // the second one is the spare
		t.Fatal(names, err)
	}
	file, err := os.OpenFile(names[0], os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteString("half a record"); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	again, stop := run(t, withSpool(killed))
	eventually(t, "the spool is empty", func() bool { return !again.Service.spool.away.Load() })
	if a := again.send(numbered("a", 20)); a.status != http.StatusAccepted {
		t.Fatalf("got %d %s", a.status, a.raw)
	}
	wantOrder(t, again.memory.events(t), 21)
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestFullSpoolIs503(t *testing.T) {
	f := newFixture(t, withSpool(t.TempDir()))
	defer func() {
		if err := f.Service.spool.Close(); err != nil {
			t.Error(err)
		}
	}()
	f.memory.do = func(context.Context, []stage.Record) error { return stream.ErrUnavailable }
	large := strings.Replace(good, `"thumb"`, `"comment":"`+strings.Repeat("x", 90_000)+`","thumb"`, 1)
	accepted := 0
	for range 20 {
		start := time.Now()
		a := f.send(large)
		if a.status == http.StatusAccepted {
			accepted++
			continue
		}
		a.wantError(t, 503, "unavailable", "", "could not be made durable")
		if a.header.Get("Retry-After") != "5" || a.Error.RetryAfter != 5 || time.Since(start) > time.Second {
			t.Errorf("after %s: %v %s", time.Since(start), a.header, a.raw)
		}
	}
	if accepted != 11 {
		t.Errorf("%d events of 90 KB fit into 1 MiB", accepted)
	}
}

func TestOnlyWhatKafkaHasNotIsSpooled(t *testing.T) {
	f := newFixture(t, withSpool(t.TempDir()))
	defer func() {
		if err := f.Service.spool.Close(); err != nil {
			t.Error(err)
		}
	}()
	f.memory.do = func(context.Context, []stage.Record) error {
		return &stream.PublishError{Errs: map[int]error{1: stream.ErrUnavailable, 2: &stream.TooLargeError{Size: 2_000_000}}}
	}
	a := f.send(`{"events":[` + numbered("a", 0) + `,` + numbered("a", 1) + `,` + numbered("a", 2) + `]}`)
	if a.status != 202 || a.Accepted != 2 || a.Results[2].Error.Code != "invalid_argument" {
		t.Fatalf("got %d %s", a.status, a.raw)
	}
	batch, err := f.Service.spool.spool.Read(1 << 20)
	if err != nil || len(batch.Records) != 1 {
		t.Fatalf("%d spooled, %v", len(batch.Records), err)
	}
	rec, err := decodeSpooled(batch.Records[0])
	if err != nil {
		t.Fatal(err)
	}
	e := new(eventv1.Event)
	if err := proto.Unmarshal(rec.Value, e); err != nil || e.InteractionId != "i-1" || rec.Topic != stream.TopicEvents || string(rec.Key) != "p/a" {
		t.Errorf("got %+v, %v, %v", rec, e, err)
	}
}

func TestWhatIsNotKafkasAbsenceIsNotSpooled(t *testing.T) {
	f := newFixture(t, withSpool(t.TempDir()))
	defer func() {
		if err := f.Service.spool.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, err := range []error{stream.ErrClosed, &stream.TooLargeError{Size: 2_000_000}, errors.New("other")} {
		f.memory.do = func(context.Context, []stage.Record) error { return err }
		if a := f.send(good); a.status == http.StatusAccepted {
			t.Errorf("%v: got %s", err, a.raw)
		}
	}
	if st := f.Service.spool.spool.Stats(); st.Records != 0 {
		t.Errorf("%d spooled", st.Records)
	}
	// A Kafka that hangs is away, too, soon enough for an answer within 50 ms.
	f.memory.do = func(ctx context.Context, _ []stage.Record) error {
		if by, ok := ctx.Deadline(); !ok || time.Until(by) > 40*time.Millisecond {
			t.Errorf("Kafka may take until %s", by)
		}
		<-ctx.Done()
		return ctx.Err()
	}
	if a := f.send(good); a.status != http.StatusAccepted {
		t.Errorf("got %d %s", a.status, a.raw)
	}
}

// Only what is refused when it is alone is at fault: the publisher gives what
// comes after it the same cause.
func TestAnEventThatKafkaRefusesForGoodIsSetAside(t *testing.T) {
	dir := t.TempDir()
	f, stop := run(t, withSpool(dir))
	var away atomic.Bool
	away.Store(true)
	keep := &memory{}
	f.memory.do = func(ctx context.Context, recs []stage.Record) error {
		if away.Load() {
			return fmt.Errorf("%w: gone", stream.ErrUnavailable)
		}
		failed := &stream.PublishError{Errs: map[int]error{}}
		for i, rec := range recs {
			if len(failed.Errs) > 0 || bytes.Contains(rec.Value, []byte("i-3")) {
				failed.Errs[i] = fmt.Errorf("%w: broker's word", stream.ErrRefused)
			} else if err := keep.Publish(ctx, rec); err != nil {
				return err
			}
		}
		if len(failed.Errs) > 0 {
			return failed
		}
		return nil
	}
	for i := range 6 {
		if a := f.send(numbered("a", i)); a.status != http.StatusAccepted {
			t.Fatalf("got %d %s", a.status, a.raw)
		}
	}
	away.Store(false)
	eventually(t, "the spool is empty", func() bool { return !f.Service.spool.away.Load() })
	var got []string
	for _, e := range keep.events(t) {
		got = append(got, e.InteractionId)
	}
	if want := []string{"i-0", "i-1", "i-2", "i-4", "i-5"}; !slices.Equal(got, want) {
		t.Errorf("published %v, want %v", got, want)
	}
	data, err := os.ReadFile(filepath.Join(dir, "refused.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	var line refusedLine
	if err := json.Unmarshal(data, &line); err != nil { // and nothing else
		t.Fatal(err)
	}
	e := new(eventv1.Event)
	if err := proto.Unmarshal(line.Value, e); err != nil || e.InteractionId != "i-3" || line.Key != "p/a" || line.Topic != stream.TopicEvents || !strings.Contains(line.Cause, "broker's word") || line.Time.IsZero() {
		t.Errorf("set aside: %+v, %v, %v", line, e, err)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

func TestAFullFileOfRefusedEventsTakesNoMore(t *testing.T) {
	r := refusedFile{filepath.Join(t.TempDir(), "refused.jsonl"), 250}
	rec := &stage.Record{Topic: "t", Key: []byte("k"), Value: []byte("v")}
	if err := r.add(rec, stream.ErrRefused); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(r.add(rec, stream.ErrRefused), r.add(rec, stream.ErrRefused)); err == nil || !strings.Contains(err.Error(), "full") {
		t.Errorf("got %v", err)
	}
}

func TestBrokerKilledUnderLoadLosesNothing(t *testing.T) {
	broker := streamtest.StartBroker(t, streamtest.Persistent())
	send := startOnKafka(t, broker.Config(), withSpool(t.TempDir()))
	const sessions = 16
	var sent [sessions]int
	type answer struct {
		sent time.Time
		took time.Duration
	}
	var answers [sessions][]answer
	end := make(chan struct{})
	var wg sync.WaitGroup
	for s := range sessions {
		wg.Go(func() {
			for {
				select {
				case <-end:
					return
				case <-time.After(5 * time.Millisecond):
				}
				start := time.Now()
				a := send(numbered(fmt.Sprintf("s%d", s), sent[s]))
				answers[s] = append(answers[s], answer{start, time.Since(start)})
				if a.status != http.StatusAccepted {
					t.Errorf("got %d %s", a.status, a.raw)
					return
				}
				sent[s]++
			}
		})
	}
	time.Sleep(time.Second)
	stopped := time.Now()
	broker.Stop(t)
	time.Sleep(2 * time.Second)
	broker.Start(t)
	time.Sleep(500 * time.Millisecond)
	close(end)
	wg.Wait()
	total := 0
	for _, n := range sent {
		total += n
	}
	var events []*eventv1.Event
	eventually(t, "all are in Kafka", func() bool {
		events = nil
		seen := map[string]bool{}
		for _, rec := range broker.All(t, stream.TopicEvents) {
			e := new(eventv1.Event)
			if err := proto.Unmarshal(rec.Value, e); err != nil {
				t.Fatal(err)
			}
			events = append(events, e)
			seen[e.EventId] = true
		}
		return len(seen) >= total
	})
	next := map[string]int{}
	seen := map[string]bool{}
	for _, e := range events {
		if seen[e.EventId] {
			continue // written, but the broker went before it said so
		}
		seen[e.EventId] = true
		if want := fmt.Sprintf("i-%d", next[e.SessionId]); e.InteractionId != want {
			t.Fatalf("session %s: got %s, want %s", e.SessionId, e.InteractionId, want)
		}
		next[e.SessionId]++
	}
	for s := range sessions {
		if got := next[fmt.Sprintf("s%d", s)]; got != sent[s] {
			t.Errorf("session s%d has %d events, want %d", s, got, sent[s])
		}
	}
	var well, away []time.Duration
	for _, a := range slices.Concat(answers[:]...) {
		if a.sent.Add(a.took).Before(stopped) {
			well = append(well, a.took)
		} else {
			away = append(away, a.took)
		}
	}
	slices.Sort(well)
	slices.Sort(away)
	t.Logf("%d events, %d of them twice in the log", total, len(events)-len(seen))
	for name, d := range map[string][]time.Duration{"before the kill": well, "from the kill on": away} {
		t.Logf("answers %s: p50 %s, p99 %s, longest %s", name, d[len(d)/2], d[len(d)*99/100], d[len(d)-1])
	}
}

// FuzzSpooledRecord: what cannot be read is an error, and what can be is written
// as it was read.
func FuzzSpooledRecord(f *testing.F) {
	f.Add(encodeSpooled(&stage.Record{Topic: "t", Key: []byte("k"), Value: []byte("v"), Headers: []stage.Header{{Key: "traceparent", Value: []byte("00")}}}))
	f.Add([]byte{0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, data []byte) {
		rec, err := decodeSpooled(spool.Record{Data: data})
		if err != nil {
			return
		}
		again, err := decodeSpooled(spool.Record{Data: encodeSpooled(&rec)})
		if err != nil || again.Topic != rec.Topic || !bytes.Equal(again.Key, rec.Key) || !bytes.Equal(again.Value, rec.Value) || len(again.Headers) != len(rec.Headers) {
			t.Fatalf("%+v became %+v, %v", rec, again, err)
		}
	})
}
