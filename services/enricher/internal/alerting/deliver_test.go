package alerting

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/honeloop/hone/pkg/alerts"
	"github.com/honeloop/hone/pkg/projects"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/telemetry"
)

// memory is a store in memory.
type memory struct {
	mu         sync.Mutex
	alerts     []*alerts.Alert
	deliveries []Delivery
	err        error
}

func (m *memory) SaveAlerts(_ context.Context, events []*alerts.Alert) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range events {
		if !slices.ContainsFunc(m.alerts, func(a *alerts.Alert) bool { return a.EventID() == e.EventID() }) {
			m.alerts = append(m.alerts, e)
		}
	}
	return m.err
}

func (m *memory) Delivered(_ context.Context, project, eventID string) (map[string]bool, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	urls := map[string]bool{}
	for _, d := range m.deliveries {
		if d.Delivered && d.Alert.ProjectID == project && d.Alert.EventID() == eventID {
			urls[d.URL] = true
		}
	}
	return urls, m.err
}

func (m *memory) SaveDelivery(_ context.Context, d Delivery) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.deliveries = append(m.deliveries, d)
	return m.err
}

func (m *memory) OpenTrends(_ context.Context, project string) (map[string]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	open := map[string]string{}
	for _, a := range m.alerts {
		switch {
		case a.ProjectID != project:
		case a.State == alerts.Open:
			open[a.Name] = a.AlertID
		default:
			delete(open, a.Name)
		}
	}
	return open, nil
}

// receiver is a webhook that answers with the given statuses in turn, the last
// one for ever.
type receiver struct {
	*httptest.Server
	mu       sync.Mutex
	statuses []int
	requests []*http.Request
	bodies   [][]byte
}

func newReceiver(t *testing.T, statuses ...int) *receiver {
	r := &receiver{statuses: statuses}
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			t.Error(err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.requests, r.bodies = append(r.requests, req), append(r.bodies, body)
		status := r.statuses[0]
		if len(r.statuses) > 1 {
			r.statuses = r.statuses[1:]
		}
		if status/100 == 3 {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(status)
	}))
	t.Cleanup(r.Close)
	return r
}

func (r *receiver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.requests)
}

func policyAlert(project, signal string) *alerts.Alert {
	return &alerts.Alert{ProjectID: project, AlertID: alerts.ID(project, signal), Name: "unsafe", State: alerts.Open, Summary: "Somebody says that an answer is unsafe.",
		At: time.Date(2026, 11, 24, 9, 30, 0, 0, time.UTC), Policy: &alerts.Policy{PolicyVersion: "pv", Rule: "unsafe", Reason: "It is.", DecisionID: "dc", SignalID: signal, SignalRevision: 1, SessionID: "s"}}
}

func record(t *testing.T, a *alerts.Alert) stage.Record {
	t.Helper()
	rec, err := a.Record()
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

// deliverer posts the alerts of each project to its URLs.
func deliverer(t *testing.T, store Deliveries, hooks map[string][]string) *Deliverer {
	t.Helper()
	secret := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(secret, []byte("whsec_"+base64.StdEncoding.EncodeToString([]byte("first"))+"\nsecond\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	settings := func(project string) *projects.Settings {
		s := projects.DefaultSettings()
		for _, u := range hooks[project] {
			s.Alerts.Webhooks = append(s.Alerts.Webhooks, projects.Webhook{URL: u, SecretFile: secret})
		}
		return &s
	}
	d, err := NewDeliverer(store, settings, DeliverOptions{Timeout: 5 * time.Second, RetryFor: 300 * time.Millisecond, RetryMin: time.Millisecond, RetryMax: 20 * time.Millisecond},
		telemetry.Discard().Meter)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestAnAlertIsPostedSignedAndOnce(t *testing.T) {
	hook, store := newReceiver(t, 500, 503, 204), &memory{}
	d := deliverer(t, store, map[string][]string{"p": {hook.URL + "/hook?token=secret"}})
	rec := record(t, policyAlert("p", "sg-1"))
	for range 2 { // the second one comes after a crash before the commit
		if _, err := d.Process(t.Context(), []stage.Record{rec}); err != nil {
			t.Fatal(err)
		}
	}
	if hook.count() != 3 {
		t.Fatalf("posted %d times, want twice in vain and once", hook.count())
	}
	req, body := hook.requests[2], hook.bodies[2]
	if string(body) != string(rec.Value) || req.Header.Get("Content-Type") != "application/cloudevents+json" || req.Header.Get("Webhook-Id") != policyAlert("p", "sg-1").EventID() {
		t.Errorf("posted %s with %v", body, req.Header)
	}
	at, err := strconv.ParseInt(req.Header.Get("Webhook-Timestamp"), 10, 64)
	if err != nil || time.Since(time.Unix(at, 0)) > time.Minute {
		t.Errorf("timestamp %d, %v", at, err)
	}
	var want []string
	for _, secret := range []string{"first", "second"} {
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte(req.Header.Get("Webhook-Id") + "." + req.Header.Get("Webhook-Timestamp") + "." + string(body)))
		want = append(want, "v1,"+base64.StdEncoding.EncodeToString(mac.Sum(nil)))
	}
	if got := req.Header.Get("Webhook-Signature"); got != strings.Join(want, " ") {
		t.Errorf("signature %s, want %s", got, want)
	}
	if len(store.deliveries) != 1 || !store.deliveries[0].Delivered || store.deliveries[0].Attempts != 3 || strings.Contains(store.deliveries[0].URL, "token") {
		t.Errorf("deliveries %+v", store.deliveries)
	}
}

// The example of the Standard Webhooks specification.
func TestSignatureOfTheStandard(t *testing.T) {
	secret, err := base64.StdEncoding.DecodeString("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	got := sign([][]byte{secret}, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", []byte(`{"test": 2432232314}`))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestWhatAWebhookDoesNotTakeGoesToTheDeadLetter(t *testing.T) {
	for _, tt := range []struct {
		name     string
		statuses []int
		posts    func(n int) bool
	}{
		{"gone for good", []int{404}, func(n int) bool { return n == 1 }},
		{"failing on", []int{500}, func(n int) bool { return n > 3 }},
		{"redirects are not followed", []int{302}, func(n int) bool { return n > 3 }},
		{"busy, then fine", []int{429, 200}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			hook, other, store := newReceiver(t, tt.statuses...), newReceiver(t, 200), &memory{}
			d := deliverer(t, store, map[string][]string{"p": {hook.URL}, "q": {other.URL}})
			_, err := d.Process(t.Context(), []stage.Record{record(t, policyAlert("p", "sg-1")), record(t, policyAlert("q", "sg-2"))})
			if other.count() != 1 {
				t.Errorf("the other project's webhook got %d", other.count())
			}
			if tt.posts == nil {
				if err != nil {
					t.Error(err)
				}
				return
			}
			batch, ok := stage.AsBatchError(err)
			if !ok || !slices.Equal(batch.Indexes(), []int{0}) || !tt.posts(hook.count()) {
				t.Fatalf("%v after %d posts, want the first one dead", err, hook.count())
			}
			if f, ok := errors.AsType[failed](batch.Cause(0)); !ok || f.Reason() != "webhook_failed" || strings.Contains(f.Error(), "secret") {
				t.Errorf("cause %v", batch.Cause(0))
			}

			before := hook.count()
			if _, err := d.Process(t.Context(), []stage.Record{record(t, policyAlert("p", "sg-3"))}); err == nil || hook.count() != before+1 {
				t.Errorf("%v after %d more posts, want one try of a webhook that is down", err, hook.count()-before)
			}
			hook.mu.Lock()
			hook.statuses = []int{200}
			hook.mu.Unlock()
			if _, err := d.Process(t.Context(), []stage.Record{record(t, policyAlert("p", "sg-1"))}); err != nil {
				t.Errorf("the dead letter, replayed: %v", err)
			}
		})
	}
}

func TestWhatIsNoAlertIsNamed(t *testing.T) {
	d := deliverer(t, &memory{}, nil)
	wrongKey := record(t, policyAlert("p", "sg-1"))
	wrongKey.Key = []byte("q")
	_, err := d.Process(t.Context(), []stage.Record{{Value: []byte("{}")}, record(t, policyAlert("p", "sg-1")), wrongKey})
	batch, ok := stage.AsBatchError(err)
	if !ok || !slices.Equal(batch.Indexes(), []int{0, 2}) {
		t.Errorf("%v, want the first and the last", err)
	}
}

func TestAStopIsNoFailure(t *testing.T) {
	hook, store := newReceiver(t, 500), &memory{}
	d := deliverer(t, store, map[string][]string{"p": {hook.URL}})
	d.opts.RetryFor = time.Minute
	ctx, stop := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, stop)
	_, err := d.Process(ctx, []stage.Record{record(t, policyAlert("p", "sg-1"))})
	if _, dead := stage.AsBatchError(err); err == nil || dead || len(store.deliveries) > 0 {
		t.Errorf("%v, deliveries %v: want it to be offered again", err, store.deliveries)
	}
	if _, err := deliverer(t, &memory{err: errors.New("away")}, nil).Process(t.Context(), []stage.Record{record(t, policyAlert("p", "sg-1"))}); err == nil {
		t.Error("a store that is away is no error")
	}
}

func TestASecretThatIsMissingIsAFailure(t *testing.T) {
	t.Setenv("HONE_TEST_EMPTY", "")
	for _, hook := range []projects.Webhook{{SecretEnv: "HONE_TEST_EMPTY"}, {SecretFile: filepath.Join(t.TempDir(), "none")}} {
		if _, err := secrets(hook); err == nil || !strings.Contains(err.Error(), "secret_") {
			t.Errorf("%+v: %v", hook, err)
		}
	}
	t.Setenv("HONE_TEST_BAD", "whsec_%")
	if _, err := secrets(projects.Webhook{SecretEnv: "HONE_TEST_BAD"}); err == nil {
		t.Error("bad base64 is taken")
	}
}
