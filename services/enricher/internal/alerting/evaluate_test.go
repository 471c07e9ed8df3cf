package alerting

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/honeloop/hone/pkg/alerts"
	"github.com/honeloop/hone/pkg/projects"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/telemetry"

	"github.com/honeloop/hone/services/enricher/internal/trends"
	"github.com/honeloop/hone/services/enricher/internal/trends/stats"
)

// world has 100 interactions an hour, all in sessions of their own, of which
// bad(hour) are bad.
type world struct{ bad func(hour time.Time) int }

func (w world) Cells(_ context.Context, q trends.Query) ([]trends.Cell, error) {
	var out []trends.Cell
	for h := trends.Hour.Start(q.From); h.Before(q.To); h = h.Add(time.Hour) {
		x := float64(w.bad(h))
		c := trends.Cell{Bucket: q.Bucket.Start(h), Clusters: stats.Clusters{Clusters: 100, X: x, N: 100, XX: x, XN: x, NN: 100}}
		if n := len(out); n > 0 && out[n-1].Bucket.Equal(c.Bucket) {
			out[n-1].Clusters = out[n-1].Add(c.Clusters)
		} else {
			out = append(out, c)
		}
	}
	return out, nil
}

type published struct{ alerts []*alerts.Alert }

func (p *published) Publish(_ context.Context, recs ...stage.Record) error {
	for _, r := range recs {
		a, err := alerts.Parse(r.Value)
		if err != nil {
			return err
		}
		p.alerts = append(p.alerts, a)
	}
	return nil
}

func evaluator(t *testing.T, counter Counter, states States, pub Publisher, watch string) *Evaluator {
	t.Helper()
	path := filepath.Join(t.TempDir(), "projects.yaml")
	if err := os.WriteFile(path, []byte("projects: {p: {alerts: {watch: ["+watch+"]}}}"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err := projects.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	tel := telemetry.Discard()
	e, err := NewEvaluator(counter, states, pub, p, time.Minute, tel.Log, tel.Meter)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

var start = time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)

func TestAThresholdOpensOnceAndIsResolved(t *testing.T) {
	store, pub := &memory{}, &published{}
	bad := world{func(h time.Time) int {
		if h.Hour() >= 4 && h.Hour() < 8 {
			return 40
		}
		return 10
	}}
	watch := `{name: unhappy, metric: dissatisfaction, filter: {environment: production}, above: 0.3, severity: high}`
	e, other := evaluator(t, bad, store, pub, watch), evaluator(t, bad, &memory{}, pub, watch)
	for h := range 12 {
		if err := e.Evaluate(t.Context(), "p", start.Add(time.Duration(h)*time.Hour+12*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	if len(pub.alerts) != 2 {
		t.Fatalf("%d alerts, want it open and resolved", len(pub.alerts))
	}
	open, resolved := pub.alerts[0], pub.alerts[1]
	if open.State != alerts.Open || resolved.State != alerts.Resolved || open.AlertID != resolved.AlertID || !open.At.Equal(start.Add(5*time.Hour)) || !resolved.At.Equal(start.Add(9*time.Hour)) {
		t.Errorf("open %+v, resolved %+v", open, resolved)
	}
	if want := "dissatisfaction of environment production is 40.0 % (95 % interval 30.9 % to 49.8 %, of 100), above 30.0 %."; open.Summary != want {
		t.Errorf("says %q, want %q", open.Summary, want)
	}
	// Another enricher, a few seconds later.
	if err := other.Evaluate(t.Context(), "p", start.Add(5*time.Hour+40*time.Second)); err != nil {
		t.Fatal(err)
	}
	if again := pub.alerts[2]; again.EventID() != open.EventID() {
		t.Errorf("another evaluator says %+v, want the same event", again)
	}
}

func TestAThresholdHasToHoldForItsTime(t *testing.T) {
	store, pub := &memory{}, &published{}
	bad := world{func(h time.Time) int {
		if h.Hour() == 2 || h.Hour() >= 10 && h.Hour() < 20 {
			return 60
		}
		return 10
	}}
	e := evaluator(t, bad, store, pub, `{name: n, metric: dissatisfaction, above: 0.3, for: 4h}`)
	for h := range 24 {
		if err := e.Evaluate(t.Context(), "p", start.Add(time.Duration(h)*time.Hour)); err != nil {
			t.Fatal(err)
		}
	}
	if len(pub.alerts) != 1 || !pub.alerts[0].At.Equal(start.Add(15*time.Hour)) {
		t.Errorf("alerts %+v, want one four hours after the first hour that was bad", pub.alerts)
	}
}

func TestFewSayNothing(t *testing.T) {
	pub := &published{}
	e := evaluator(t, world{func(time.Time) int { return 90 }}, &memory{}, pub, `{name: n, metric: dissatisfaction, above: 0.3, min_count: 101}`)
	if err := e.Evaluate(t.Context(), "p", start); err != nil || len(pub.alerts) > 0 {
		t.Errorf("%v, %v", pub.alerts, err)
	}
}

func TestAChangeOpensSoonAndBecomesNormal(t *testing.T) {
	for _, direction := range []string{"rise", "fall"} {
		t.Run(direction, func(t *testing.T) {
			store, pub := &memory{}, &published{}
			from := start.Add(10 * time.Hour)
			bad := world{func(h time.Time) int {
				base, late := 10+h.Hour()%3, 25
				if direction == "fall" {
					base, late = 60+h.Hour()%3, 40
				}
				if h.Before(from) {
					return base
				}
				return late
			}}
			e := evaluator(t, bad, store, pub, `{name: n, metric: dissatisfaction, change: `+direction+`}`)
			for h := -100; h < 40*24; h += 4 {
				if err := e.Evaluate(t.Context(), "p", start.Add(time.Duration(h)*time.Hour)); err != nil {
					t.Fatal(err)
				}
			}
			var states []string
			for _, a := range pub.alerts {
				states = append(states, a.State)
			}
			if !slices.Equal(states, []string{alerts.Open, alerts.Resolved}) {
				t.Fatalf("alerts %v", states)
			}
			a := pub.alerts[0]
			if late := a.At.Sub(from); late <= 0 || late > 12*time.Hour {
				t.Errorf("opened %s after the change", late)
			}
			if off := a.Trend.From.Sub(from).Abs(); off > 2*time.Hour || a.Trend.Before == nil {
				t.Errorf("says that it began %s off", off)
			}
		})
	}
}
