package collector

import (
	"bytes"
	"compress/gzip"
	"net/http"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/grpc/metadata"

	"github.com/honeloop/hone/pkg/auth"
	collectorv1 "github.com/honeloop/hone/proto/gen/go/hone/collector/v1"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
)

func packed(t testing.TB, encoding string, data []byte) string {
	t.Helper()
	var b bytes.Buffer
	if encoding == "gzip" {
		w := gzip.NewWriter(&b)
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return b.String()
	}
	w, err := zstd.NewWriter(&b, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestCompressedBodies(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.MaxBody, c.MaxBodies = 1<<20, 2<<20 })
	for _, encoding := range []string{"gzip", "zstd"} {
		t.Run(encoding, func(t *testing.T) {
			batch := []byte(`{"events":[` + strings.Repeat(good+",", 500) + good + `]}`)
			for range 3 { // the decoders are used again
				a := f.send(packed(t, encoding, batch), "Content-Encoding", strings.ToUpper(encoding))
				if a.status != http.StatusAccepted || a.Accepted != 501 {
					t.Fatalf("got %d %.300s", a.status, a.raw)
				}
			}
			whole := packed(t, encoding, batch)
			f.send(whole[:len(whole)/2], "Content-Encoding", encoding).wantError(t, 400, "invalid_argument", "", "the body is not "+encoding)
			f.send(good, "Content-Encoding", encoding).wantError(t, 400, "invalid_argument", "", "the body is not "+encoding)
			f.send("", "Content-Encoding", encoding)
			bomb := packed(t, encoding, bytes.Repeat([]byte(" "), 64<<20))
			if len(bomb) > 1<<17 {
				t.Fatalf("the bomb has %d bytes", len(bomb))
			}
			f.send(bomb, "Content-Encoding", encoding).wantError(t, 413, "invalid_argument", "", "at most 1048576 bytes")
			if a := f.send(packed(t, encoding, []byte(good)), "Content-Encoding", encoding); a.status != http.StatusAccepted {
				t.Errorf("after all that: %d %s", a.status, a.raw)
			}
			if !f.handler.bodies.TryAcquire(2 << 20) {
				t.Fatal("bodies were not given back")
			}
			f.handler.bodies.Release(2 << 20)
		})
	}
	huge := packed(t, "zstd", nil)
	huge = huge[:4] + "\x00\xa8" + huge[6:] // a window of 2 GiB
	f.send(huge, "Content-Encoding", "zstd").wantError(t, 400, "invalid_argument", "", "the body is not zstd")
}

func TestIdempotencyKey(t *testing.T) {
	f := newFixture(t, nil)
	ids := func(body string, header ...string) string {
		t.Helper()
		a := f.send(body, header...)
		if a.status != http.StatusAccepted {
			t.Fatalf("got %d %s", a.status, a.raw)
		}
		var out []string
		for _, r := range a.Results {
			out = append(out, r.EventID)
		}
		return strings.Join(out, " ")
	}
	twins := `{"events":[` + good + `,` + good + `]}`
	if got := strings.Fields(ids(twins)); got[0] != got[1] {
		t.Error("without a key the content is the event")
	}
	first := ids(twins, "Idempotency-Key", "k-1")
	if got := strings.Fields(first); got[0] == got[1] || !strings.HasPrefix(got[0], "ev_") {
		t.Errorf("twins of one request are one event: %v", got)
	}
	if ids(twins, "Idempotency-Key", "k-1") != first || ids(twins, "Idempotency-Key", `"k-1"`) != first {
		t.Error("the request sent again is another")
	}
	if ids(twins, "Idempotency-Key", "k-2") == first {
		t.Error("another key is the same request")
	}
	own := strings.Replace(good, `{"type"`, `{"event_id":"mine","type"`, 1)
	if got := ids(own, "Idempotency-Key", "k-1"); got != "mine" {
		t.Errorf("an event's own id became %s", got)
	}
	f.send(good, "Idempotency-Key", strings.Repeat("k", 256)).wantError(t, 400, "invalid_argument", "", "at most 255 bytes")
	if a := f.send(`{"events":[7,`+bad+`]}`, "Idempotency-Key", "k-1"); a.status != 400 {
		t.Errorf("got %d %s", a.status, a.raw)
	}

	key, err := f.keys.Authenticate(f.secret)
	if err != nil {
		t.Fatal(err)
	}
	ctx := metadata.NewIncomingContext(auth.WithKey(t.Context(), key), metadata.Pairs("idempotency-key", "k-1"))
	thumb := func() *eventv1.Event {
		return &eventv1.Event{Type: "feedback", SessionId: "s-1", InteractionId: "i-1", Payload: &eventv1.Event_Feedback{Feedback: &eventv1.Feedback{Thumb: "down"}}}
	}
	g := &grpcService{intake: f.handler.intake}
	res, err := g.SendEvents(ctx, &collectorv1.SendEventsRequest{Events: []*eventv1.Event{thumb(), thumb()}})
	if err != nil || res.Results[0].EventId+" "+res.Results[1].EventId != first {
		t.Errorf("gRPC: %v, %v, want %s", res, err, first)
	}
}
