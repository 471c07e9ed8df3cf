package collector

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
)

const (
	good = `{"type":"feedback","session_id":"s-1","interaction_id":"i-1","feedback":{"thumb":"down"}}`
	bad  = `{"type":"feedback","session_id":"s-1","interaction_id":"i-1","feedback":{"stars":9}}`
)

func TestOneEventIsAcceptedAndPublished(t *testing.T) {
	f := newFixture(t, nil)
	a := f.send(good)
	if a.status != http.StatusAccepted || a.Accepted != 1 || a.Rejected != 0 || len(a.Results) != 1 || !strings.HasPrefix(a.Results[0].EventID, "ev_") {
		t.Fatalf("got %d %s", a.status, a.raw)
	}
	rec := f.memory.recs[0]
	if rec.Topic != "hone.events" || string(rec.Key) != "p/s-1" || time.Since(rec.Time) > time.Minute {
		t.Errorf("wrong record: %+v", rec)
	}
	e := f.memory.events(t)[0]
	if e.EventId != a.Results[0].EventID || e.ProjectId != "p" || e.Source != "http" || e.ReceivedAt == nil || e.OccurredAt == nil {
		t.Errorf("not completed: %v", e)
	}
	if again := f.send(good); again.Results[0].EventID != e.EventId {
		t.Error("the same event got another id")
	}
}

func TestBadEventsLeaveGoodOnesAlone(t *testing.T) {
	f := newFixture(t, nil)
	a := f.send(`{"events":[` + good + `,` + bad + `,7,` + strings.Replace(good, "s-1", "s-2", 1) + `]}`)
	if a.status != http.StatusAccepted || a.Accepted != 2 || a.Rejected != 2 || len(a.Results) != 4 || a.Error != nil {
		t.Fatalf("got %d %s", a.status, a.raw)
	}
	if e := a.Results[1].Error; e == nil || e.Code != "invalid_argument" || e.Field != "events[1].feedback.stars" {
		t.Errorf("results[1] is %+v", a.Results[1])
	}
	if e := a.Results[2].Error; e == nil || e.Field != "events[2]" {
		t.Errorf("results[2] is %+v", a.Results[2])
	}
	if got := f.memory.events(t); len(got) != 2 || got[1].SessionId != "s-2" || a.Results[3].EventID != got[1].EventId {
		t.Errorf("published %v", got)
	}
}

func TestNothingAcceptedIsA4xx(t *testing.T) {
	f := newFixture(t, nil)
	f.send(bad).wantError(t, 400, "invalid_argument", "feedback.stars", "1 to 5")
	a := f.send(`{"events":[` + bad + `,` + `{}` + `]}`)
	a.wantError(t, 400, "invalid_argument", "events[0].feedback.stars", "none of the 2 events")
	if len(a.Results) != 2 || a.Results[1].Error.Field != "events[1].type" || a.Rejected != 2 {
		t.Errorf("got %s", a.raw)
	}
	f.send(`{"events":[`).wantError(t, 400, "invalid_argument", "events[0]", "ends too early")
	if len(f.memory.recs) != 0 {
		t.Error("something was published")
	}
}

func TestKeysAndOrigins(t *testing.T) {
	f := newFixture(t, nil)
	shop, evil := "https://shop.example", "https://shop.example.evil"
	publishable := "Bearer " + f.publishable
	f.send(good, "Authorization", "").wantError(t, 401, "unauthenticated", "", "missing or not known")
	f.send(good, "Authorization", "Bearer hs_wrong").wantError(t, 401, "unauthenticated", "", "missing or not known")
	f.send(good, "Authorization", publishable, "Origin", evil).wantError(t, 403, "permission_denied", "", "not for the origin")
	for name, a := range map[string]*answerOf{
		"secret":                     f.send(good),
		"publishable from a server":  f.send(good, "Authorization", publishable),
		"publishable from a browser": f.send(good, "Authorization", publishable, "Origin", shop),
		"sendBeacon":                 f.do("POST", "/v1/events?key="+f.publishable, strings.NewReader(good), "Content-Type", "text/plain;charset=UTF-8", "Origin", shop),
	} {
		if a.status != http.StatusAccepted {
			t.Errorf("%s: got %d %s", name, a.status, a.raw)
		}
	}
	f.do("POST", "/v1/events?key="+f.secret, strings.NewReader(good)).wantError(t, 403, "permission_denied", "", "may not stand in an address")
	f.send(strings.Replace(good, `{"type"`, `{"source":"import","type"`, 1), "Authorization", publishable).
		wantError(t, 400, "invalid_argument", "source", "leave it out")

	allowed := f.do("OPTIONS", "/v1/events", nil, "Authorization", "", "Origin", shop, "Access-Control-Request-Method", "POST")
	if allowed.status != 204 || allowed.header.Get("Access-Control-Allow-Origin") != shop || allowed.header.Get("Access-Control-Max-Age") == "" ||
		!strings.Contains(allowed.header.Get("Access-Control-Allow-Headers"), "authorization") || allowed.header.Get("Vary") != "Origin" {
		t.Errorf("preflight: %d %v", allowed.status, allowed.header)
	}
	if denied := f.do("OPTIONS", "/v1/events", nil, "Authorization", "", "Origin", evil); denied.header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("preflight allows a foreign origin: %v", denied.header)
	}
	if a := f.send(bad, "Origin", shop); a.header.Get("Access-Control-Allow-Origin") != shop {
		t.Error("a page of a listed origin cannot read the error")
	}
}

func TestWhatIsNoRequestIsRefused(t *testing.T) {
	f := newFixture(t, nil)
	if a := f.send(good, "Content-Type", "application/x-www-form-urlencoded"); a.status != 202 {
		t.Errorf("what curl -d sends: %d, want 202", a.status)
	}
	f.send(good, "Content-Type", "application/xml").wantError(t, 415, "invalid_argument", "", "want application/json")
	f.send(good, "Content-Type", "application/json; charset=latin1").wantError(t, 415, "invalid_argument", "", "UTF-8")
	f.send(good, "Content-Type", ";;").wantError(t, 415, "invalid_argument", "", "want application/json")
	f.send(good, "Content-Encoding", "br").wantError(t, 415, "invalid_argument", "", "want gzip, zstd or none")
	f.send(good, "Content-Encoding", "gzip, gzip").wantError(t, 415, "invalid_argument", "", "want gzip, zstd or none")
	a := f.do("GET", "/v1/events", nil)
	a.wantError(t, 405, "unimplemented", "", "POST")
	if a.header.Get("Allow") != "POST, OPTIONS" {
		t.Errorf("Allow is %q", a.header.Get("Allow"))
	}
	f.do("GET", "/", nil).wantError(t, 404, "not_found", "", "/openapi.json")
	f.do("POST", "/openapi.json", nil).wantError(t, 405, "unimplemented", "", "GET")
}

func TestOperationPaths(t *testing.T) {
	f := newFixture(t, nil)
	if a := f.do("GET", "/healthz", nil); a.status != 200 {
		t.Errorf("healthz: %d", a.status)
	}
	f.do("GET", "/readyz", nil).wantError(t, 503, "unavailable", "", "starting")
	f.serving.Store(true)
	if a := f.do("GET", "/readyz", nil); a.status != 200 {
		t.Errorf("readyz: %d", a.status)
	}
	f.draining.Store(true)
	f.do("GET", "/readyz", nil).wantError(t, 503, "unavailable", "", "stopping")
	if a := f.do("GET", "/openapi.json", nil); a.status != 200 || !json.Valid([]byte(a.raw)) {
		t.Errorf("openapi.json: %d", a.status)
	}
}

func TestKafkaAwayIs503(t *testing.T) {
	f := newFixture(t, nil)
	f.memory.do = func(context.Context, []stage.Record) error { return errors.New("dial 10.0.0.7: refused") }
	a := f.send(good)
	a.wantError(t, 503, "unavailable", "", "could not be made durable")
	if a.header.Get("Retry-After") != "1" || a.Error.RetryAfter != 1 {
		t.Errorf("no time to retry: %v %s", a.header, a.raw)
	}
	f.memory.do = func(context.Context, []stage.Record) error {
		return &stream.UnavailableError{RetryAfter: 2500 * time.Millisecond, Cause: errors.New("gone")}
	}
	if a := f.send(good); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") != "3" || a.Error.RetryAfter != 2.5 {
		t.Errorf("what the publisher knows is not said: %s", a.raw)
	}
	if strings.Contains(a.raw, "10.0.0.7") {
		t.Error("the answer shows the inside")
	}
	// A request that could be good the next time is not the caller's mistake.
	f.send(`{"events":[`+bad+`,`+good+`]}`).wantError(t, 503, "unavailable", "events[1]", "could not be made durable")
}

func TestKafkaThatTakesAPartAcceptsThatPart(t *testing.T) {
	f := newFixture(t, nil)
	f.memory.do = func(_ context.Context, recs []stage.Record) error {
		if len(recs) != 3 {
			return fmt.Errorf("%d records", len(recs))
		}
		return &stream.PublishError{Errs: map[int]error{1: errors.New("gone"), 2: &stream.TooLargeError{Size: 2_000_000}}}
	}
	a := f.send(`{"events":[` + bad + `,` + good + `,` + good + `,` + good + `]}`)
	if a.status != 202 || a.Accepted != 1 || a.Rejected != 3 {
		t.Fatalf("got %d %s", a.status, a.raw)
	}
	if a.Results[1].EventID == "" || a.Results[2].Error.Code != "unavailable" || a.Results[2].Error.Field != "events[2]" || a.Results[2].EventID != "" ||
		a.Results[3].Error.Code != "invalid_argument" {
		t.Errorf("got %s", a.raw)
	}
}

func TestPublishHasADeadline(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.PublishTimeout = 20 * time.Millisecond })
	f.memory.do = func(ctx context.Context, _ []stage.Record) error {
		<-ctx.Done()
		return ctx.Err()
	}
	f.send(good).wantError(t, 503, "unavailable", "", "could not be made durable")
}

func TestRequestsInFlightAreBounded(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.MaxInFlight = 2 })
	entered, leave := make(chan struct{}), make(chan struct{})
	f.memory.do = func(context.Context, []stage.Record) error {
		entered <- struct{}{}
		<-leave
		return nil
	}
	done := make(chan int)
	for range 2 {
		go func() { done <- f.send(good).status }()
		<-entered
	}
	a := f.send(good)
	a.wantError(t, 503, "unavailable", "", "too many requests")
	if a.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	close(leave)
	for range 2 {
		if status := <-done; status != 202 {
			t.Errorf("got %d", status)
		}
	}
}

func TestBodiesTogetherAreBounded(t *testing.T) {
	f := newFixture(t, func(c *Config) { c.MaxBody, c.MaxBodies = 1<<20, 1<<20 })
	if !f.handler.bodies.TryAcquire(1 << 20) {
		t.Fatal("the bodies are not free")
	}
	f.send(good).wantError(t, 503, "unavailable", "", "too many requests")
	f.handler.bodies.Release(1 << 20)
	for range 100 {
		f.send("x")
	}
	if !f.handler.bodies.TryAcquire(1 << 20) {
		t.Error("bodies were not given back")
	}
}

func TestPanicsAreAnswered(t *testing.T) {
	f := newFixture(t, nil)
	f.memory.do = func(context.Context, []stage.Record) error { panic("boom") }
	f.send(good).wantError(t, 500, "internal", "", "internal error")
	f.memory.do = nil
	if a := f.send(good); a.status != 202 {
		t.Errorf("got %d afterwards", a.status)
	}
}

func TestEveryEventIsCounted(t *testing.T) {
	f := newFixture(t, nil)
	f.send(`{"events":[` + good + `,` + good + `,` + bad + `,{"x":1}]}`)
	f.send(`{`)
	f.do("GET", "/v1/cases", nil)
	f.do("GET", "/nothing", nil)
	families, err := f.tel.Registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				if !strings.HasPrefix(l.GetName(), "otel_") {
					labels = append(labels, l.GetName()+"="+l.GetValue())
				}
			}
			got[family.GetName()+"{"+strings.Join(labels, ",")+"}"] = m.GetCounter().GetValue()
		}
	}
	for name, want := range map[string]float64{
		"hone_collector_events_total{outcome=accepted,reason=}":                              2,
		"hone_collector_events_total{outcome=rejected,reason=out_of_range}":                  1,
		"hone_collector_events_total{outcome=rejected,reason=unknown_field}":                 1,
		"hone_collector_events_total{outcome=rejected,reason=broken_json}":                   1,
		"hone_collector_requests_total{code=202,route=/v1/events}":                           1,
		"hone_collector_requests_total{code=400,route=/v1/events}":                           1,
		"hone_collector_requests_total{code=503,route=/hone.cases.v1.CaseService/ListCases}": 1,
		"hone_collector_requests_total{code=404,route=other}":                                1,
	} {
		if got[name] != want {
			t.Errorf("%s is %v, want %v", name, got[name], want)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
}
