package alerting

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/url"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/honeloop/hone/pkg/alerts"
	"github.com/honeloop/hone/pkg/projects"
	"github.com/honeloop/hone/pkg/stage"

	"github.com/honeloop/hone/services/enricher/internal/trends"
	"github.com/honeloop/hone/services/enricher/internal/trends/stats"
)

// A change is looked for in the hours since the start of the day a week ago,
// against the two weeks before.
const (
	changeSpan     = 7 * 24 * time.Hour
	changeBaseline = 14 * 24 * time.Hour
	// changeThreshold is the evidence that makes an alert: without a change it is
	// reached once in this many hours at most, on average: 30 days.
	changeThreshold = 30 * 24
	// changeOver is the evidence below which it is over.
	changeOver = 2.0
	// looks are how often a threshold is looked at within its "for".
	looks = 5
)

// Counter counts trends.
type Counter interface {
	Cells(ctx context.Context, q trends.Query) ([]trends.Cell, error)
}

// States knows which alerts are open, and keeps events.
type States interface {
	OpenTrends(ctx context.Context, project string) (map[string]string, error)
	SaveAlerts(ctx context.Context, events []*alerts.Alert) error
}

// Publisher publishes with acks=all.
type Publisher interface {
	Publish(ctx context.Context, recs ...stage.Record) error
}

// Evaluator looks at the trends that projects watch, every interval, and
// publishes what opens or is resolved. What it says depends on the store and on
// the time, cut to the interval: several evaluators say the same, with the same
// ids. It remembers nothing.
type Evaluator struct {
	counter  Counter
	states   States
	pub      Publisher
	projects *projects.Projects
	interval time.Duration
	log      *slog.Logger
	events   metric.Int64Counter
}

// NewEvaluator makes one.
func NewEvaluator(counter Counter, states States, pub Publisher, p *projects.Projects, interval time.Duration, log *slog.Logger, meter metric.Meter) (*Evaluator, error) {
	events, err := meter.Int64Counter("hone.alerts.evaluations", metric.WithDescription("looks at watched trends, by result"))
	if err != nil {
		return nil, fmt.Errorf("create metric: %w", err)
	}
	return &Evaluator{counter, states, pub, p, interval, log, events}, nil
}

// Run evaluates until ctx ends. What fails is logged, counted, and looked at
// again at the next time.
func (e *Evaluator) Run(ctx context.Context) {
	tick := time.NewTicker(e.interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			for _, project := range e.projects.Names() {
				if err := e.Evaluate(ctx, project, now); err != nil && ctx.Err() == nil {
					e.log.Error("alerts could not be evaluated", "project", project, "error", err)
				}
			}
		}
	}
}

// Evaluate looks at what one project watches.
func (e *Evaluator) Evaluate(ctx context.Context, project string, now time.Time) error {
	watches := e.projects.Settings(project).Alerts.Watch
	if len(watches) == 0 {
		return nil
	}
	now = now.UTC().Truncate(e.interval)
	open, err := e.states.OpenTrends(ctx, project)
	if err != nil {
		return err
	}
	var errs []error
	for _, w := range watches {
		result, err := e.watch(ctx, project, w.WithDefaults(), open[w.Name], now)
		if err != nil {
			result = "failed"
			errs = append(errs, fmt.Errorf("watch %s: %w", w.Name, err))
		}
		e.events.Add(ctx, 1, metric.WithAttributes(attribute.String("result", result)))
	}
	return errors.Join(errs...)
}

// verdict is what a look at a trend says.
type verdict int

const (
	unknown verdict = iota // too few to say
	holds
	over
)

func (e *Evaluator) watch(ctx context.Context, project string, w projects.Watch, open string, now time.Time) (string, error) {
	look := e.threshold
	if w.Change != "" {
		look = e.change
	}
	says, trend, err := look(ctx, project, w, now)
	if err != nil {
		return "", err
	}
	a := &alerts.Alert{ProjectID: project, AlertID: open, Name: w.Name, Severity: w.Severity, Trend: trend, At: now,
		Links: alerts.Links{Trend: trendLink(w)}}
	switch {
	case says == holds && open == "":
		a.State, a.AlertID = alerts.Open, alerts.ID(project, "trend", w.Name, now.Format(time.RFC3339))
		a.Summary = fmt.Sprintf("%s is %s (95 %% interval %s to %s, of %d), %s.", subject(w), percent(trend.Value), percent(trend.Low), percent(trend.High), trend.Count, reason(w, trend))
	case says == over && open != "":
		a.State = alerts.Resolved
		a.Summary = fmt.Sprintf("%s is %s again (of %d).", subject(w), percent(trend.Value), trend.Count)
	case says == unknown:
		return "unknown", nil
	default:
		return "unchanged", nil
	}
	rec, err := a.Record()
	if err != nil {
		return "", err
	}
	if err := e.pub.Publish(ctx, rec); err != nil {
		return "", err
	}
	// The deliverer stores it too; stored here, the next look knows of it.
	if err := e.states.SaveAlerts(ctx, []*alerts.Alert{a}); err != nil {
		return "", err
	}
	return a.State, nil
}

// threshold holds where the rate is beyond it in each of the windows that end at
// looks times within For, and is over where it is in none.
func (e *Evaluator) threshold(ctx context.Context, project string, w projects.Watch, now time.Time) (verdict, *alerts.Trend, error) {
	ends := []time.Time{now}
	for i := 1; w.For > 0 && i < looks; i++ {
		ends = append(ends, now.Add(-w.For*time.Duration(i)/(looks-1)))
	}
	var last *alerts.Trend
	for i, end := range ends {
		all, err := e.sum(ctx, query(project, w, trends.Whole, end.Add(-w.Window), end))
		if err != nil {
			return unknown, nil, err
		}
		if all.N < float64(w.MinCount) || all.N == 0 {
			return unknown, nil, nil
		}
		rate := all.X / all.N
		beyond := w.Above != nil && rate > *w.Above || w.Below != nil && rate < *w.Below
		if i == 0 {
			last = found(w, all, end.Add(-w.Window), end)
		}
		if i > 0 && beyond != (verdictOf(last, w) == holds) {
			return unknown, nil, nil
		}
	}
	return verdictOf(last, w), last, nil
}

func verdictOf(t *alerts.Trend, w projects.Watch) verdict {
	if w.Above != nil && t.Value > *w.Above || w.Below != nil && t.Value < *w.Below {
		return holds
	}
	return over
}

// change asks a detector that may be looked at after every hour. Its baseline is
// the bound of the rate before that is nearest to the change, since that rate is
// itself only known so well.
func (e *Evaluator) change(ctx context.Context, project string, w projects.Watch, now time.Time) (verdict, *alerts.Trend, error) {
	start := trends.Day.Start(now.Add(-changeSpan))
	end := trends.Hour.Start(now)
	before, err := e.sum(ctx, query(project, w, trends.Whole, start.Add(-changeBaseline), start))
	if err != nil {
		return unknown, nil, err
	}
	if before.N < float64(w.MinCount) || before.N == 0 {
		return unknown, nil, nil
	}
	cells, err := e.counter.Cells(ctx, query(project, w, trends.Hour, start, end))
	if err != nil {
		return unknown, nil, err
	}
	var after stats.Clusters
	for _, c := range cells {
		after = after.Add(c.Clusters)
	}
	if after.N == 0 {
		return unknown, nil, nil
	}
	n := before.Effective()
	bounds := stats.Wilson(before.X/before.N*n, n)
	fall := w.Change == "fall"
	baseline := bounds.High
	if fall {
		baseline = 1 - bounds.Low
	}
	worth := after.Effective() / after.N
	detector := stats.NewDetector(baseline)
	var evidence float64
	var began int
	for _, c := range cells {
		b := stats.Bucket{N: int64(math.Round(c.N * worth))}
		b.Hits = min(int64(math.Round(c.X*worth)), b.N)
		if fall {
			b.Hits = b.N - b.Hits
		}
		evidence, began = detector.Observe(b)
	}
	switch {
	case evidence >= changeThreshold:
	case evidence < changeOver:
		began = 0
	default:
		return unknown, nil, nil
	}
	var since stats.Clusters
	for _, c := range cells[began:] {
		since = since.Add(c.Clusters)
	}
	t := found(w, since, cells[began].Bucket, end)
	rate := before.X / before.N
	t.Before = &rate
	if evidence >= changeThreshold {
		return holds, t, nil
	}
	return over, t, nil
}

func (e *Evaluator) sum(ctx context.Context, q trends.Query) (all stats.Clusters, err error) {
	cells, err := e.counter.Cells(ctx, q)
	for _, c := range cells {
		all = all.Add(c.Clusters)
	}
	return all, err
}

func query(project string, w projects.Watch, bucket trends.Bucket, from, to time.Time) trends.Query {
	q := trends.Query{Project: project, Metric: trends.Metric(w.Metric), Bucket: bucket, From: from, To: to}
	for _, name := range filters(w) {
		q.Filter = append(q.Filter, trends.Condition{Dimension: trends.Dimension(name), Value: w.Filter[name]})
	}
	return q
}

func filters(w projects.Watch) []string {
	var names []string
	for name := range w.Filter {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

func found(w projects.Watch, c stats.Clusters, from, to time.Time) *alerts.Trend {
	t := &alerts.Trend{Metric: w.Metric, Filter: w.Filter, Condition: condition(w), Count: int64(c.N), From: from, To: to, High: 1}
	if c.N > 0 {
		n := c.Effective()
		i := stats.Wilson(c.X/c.N*n, n)
		t.Value, t.Low, t.High = c.X/c.N, i.Low, i.High
	}
	return t
}

func condition(w projects.Watch) string {
	switch {
	case w.Above != nil:
		return fmt.Sprintf("above %g", *w.Above)
	case w.Below != nil:
		return fmt.Sprintf("below %g", *w.Below)
	}
	return w.Change
}

func reason(w projects.Watch, t *alerts.Trend) string {
	switch {
	case w.Above != nil:
		return "above " + percent(*w.Above)
	case w.Below != nil:
		return "below " + percent(*w.Below)
	}
	return fmt.Sprintf("a %s from %s that began about %s UTC", w.Change, percent(*t.Before), t.From.Format("2006-01-02 15:04"))
}

func subject(w projects.Watch) string {
	s := w.Metric
	var parts []string
	for _, name := range filters(w) {
		parts = append(parts, name+" "+w.Filter[name])
	}
	if len(parts) > 0 {
		s += " of " + strings.Join(parts, ", ")
	}
	return s
}

func percent(share float64) string { return fmt.Sprintf("%.1f %%", 100*share) }

func trendLink(w projects.Watch) string {
	q := url.Values{"metric": {w.Metric}}
	for _, name := range filters(w) {
		q.Add("filter", name+"="+w.Filter[name])
	}
	return "/v1/trends?" + q.Encode()
}
