package collector

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/honeloop/hone/pkg/auth"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/telemetry"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
)

// memory is a Publisher that keeps what it gets.
type memory struct {
	mu   sync.Mutex
	recs []stage.Record
	// What Publish does instead; nil for keeping.
	do func(ctx context.Context, recs []stage.Record) error
}

func (m *memory) Publish(ctx context.Context, recs ...stage.Record) error {
	if m.do != nil {
		return m.do(ctx, recs)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.recs = append(m.recs, recs...)
	return nil
}

func (m *memory) Close() error { return nil }

func (m *memory) events(t testing.TB) []*eventv1.Event {
	t.Helper()
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []*eventv1.Event
	for _, rec := range m.recs {
		e := new(eventv1.Event)
		if err := proto.Unmarshal(rec.Value, e); err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}

// fixture is a collector with a publisher in memory.
type fixture struct {
	*Service
	memory      *memory
	keys        *auth.Keys
	secret      string // of project "p"
	publishable string // of project "p", for https://shop.example
}

func newFixture(t testing.TB, change func(*Config)) *fixture {
	t.Helper()
	cfg := DefaultConfig()
	cfg.Kafka.Brokers = []string{"127.0.0.1:1"}
	// Nobody listens there.
	cfg.Upstreams = Upstreams{Trail: "127.0.0.1:1", Embedder: "127.0.0.1:1", Router: "127.0.0.1:1", Curator: "127.0.0.1:1"}
	if change != nil {
		change(&cfg)
	}
	f := &fixture{memory: &memory{}}
	var keys []auth.Key
	for _, k := range []struct {
		kind   auth.Kind
		secret *string
	}{{auth.Secret, &f.secret}, {auth.Publishable, &f.publishable}} {
		key, secret, err := auth.Mint("p", k.kind)
		if err != nil {
			t.Fatal(err)
		}
		if k.kind == auth.Publishable {
			key.Origins = []string{"https://shop.example"}
		}
		*k.secret = secret
		keys = append(keys, key)
	}
	var err error
	if f.keys, err = auth.NewKeys(keys); err != nil {
		t.Fatal(err)
	}
	if f.Service, err = newService(cfg, f.keys, f.memory, f.memory, telemetry.Discard()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.gateway.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

// do sends a request to the handler, with the secret key unless a header or the
// path says otherwise.
func (f *fixture) do(method, path string, body io.Reader, header ...string) *answerOf {
	r := httptest.NewRequest(method, path, body)
	if !strings.Contains(path, "key=") {
		r.Header.Set("Authorization", "Bearer "+f.secret)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	f.handler.ServeHTTP(w, r)
	return parse(w.Code, w.Header(), w.Body.Bytes())
}

func (f *fixture) send(body string, header ...string) *answerOf {
	return f.do(http.MethodPost, "/v1/events", strings.NewReader(body), header...)
}

// answerOf is an answer of the HTTP port.
type answerOf struct {
	status int
	header http.Header
	raw    string
	broken error // of the JSON
	resultsBody
}

func parse(status int, header http.Header, body []byte) *answerOf {
	a := &answerOf{status: status, header: header, raw: string(body)}
	if strings.HasPrefix(header.Get("Content-Type"), "application/json") {
		dec := json.NewDecoder(bytes.NewReader(body))
		a.broken = dec.Decode(&a.resultsBody)
	}
	return a
}

// wantError checks that it is an error in the one shape.
func (a *answerOf) wantError(t testing.TB, status int, code, field, message string) {
	t.Helper()
	if a.status != status || a.broken != nil || a.Error == nil {
		t.Fatalf("got %d %s, want %d with an error", a.status, a.raw, status)
	}
	if a.Error.Code != code || a.Error.Field != field || !strings.Contains(a.Error.Message, message) {
		t.Errorf("got %s, want code %q, field %q, message with %q", a.raw, code, field, message)
	}
}

func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("timed out: %s", what)
		}
	}
}
