package collector

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/honeloop/hone/pkg/telemetry"
)

// metrics counts what the collector accepts and refuses.
type metrics struct {
	log      *slog.Logger
	events   metric.Int64Counter
	requests metric.Int64Counter
	duration metric.Float64Histogram
	ok       metric.AddOption
	// Options of a route and a status, made once: key routeStatus, value
	// requestOptions. There are as many as routes and statuses.
	options sync.Map
	// When a failed publish was last logged, in Unix nanoseconds: under load
	// there may be thousands in a second, and the counter has them all.
	logged atomic.Int64
}

func newMetrics(tel *telemetry.Telemetry) (*metrics, error) {
	m := &metrics{log: tel.Log, ok: metric.WithAttributeSet(attribute.NewSet(attribute.String("outcome", "accepted"), attribute.String("reason", "")))}
	var errs [3]error
	m.events, errs[0] = tel.Meter.Int64Counter("hone.collector.events",
		metric.WithDescription("Events by outcome (accepted, rejected) and, where rejected, reason."))
	m.requests, errs[1] = tel.Meter.Int64Counter("hone.collector.requests",
		metric.WithDescription("HTTP requests by route and status code."))
	m.duration, errs[2] = tel.Meter.Float64Histogram("hone.collector.request.duration",
		metric.WithDescription("Time from the request to the answer, by route."), metric.WithUnit("s"),
		metric.WithExplicitBucketBoundaries(.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10))
	return m, errors.Join(errs[:]...)
}

func (m *metrics) accepted(ctx context.Context, n int) {
	if n > 0 {
		m.events.Add(ctx, int64(n), m.ok)
	}
}

func (m *metrics) refused(ctx context.Context, reason string, n int) {
	m.events.Add(ctx, int64(n), metric.WithAttributes(attribute.String("outcome", "rejected"), attribute.String("reason", reason)))
}

type routeStatus struct {
	route  string
	status int
}

type requestOptions struct {
	add    []metric.AddOption
	record []metric.RecordOption
}

func (m *metrics) request(ctx context.Context, route string, status int, took time.Duration) {
	key := routeStatus{route, status}
	cached, ok := m.options.Load(key)
	if !ok {
		byRoute := attribute.String("route", route)
		cached, _ = m.options.LoadOrStore(key, requestOptions{
			add:    []metric.AddOption{metric.WithAttributeSet(attribute.NewSet(byRoute, attribute.String("code", strconv.Itoa(status))))},
			record: []metric.RecordOption{metric.WithAttributeSet(attribute.NewSet(byRoute))},
		})
	}
	if o, ok := cached.(requestOptions); ok {
		m.requests.Add(ctx, 1, o.add...)
		m.duration.Record(ctx, took.Seconds(), o.record...)
	}
}

func (m *metrics) publishFailed(cause error) {
	now, last := time.Now().UnixNano(), m.logged.Load()
	if now-last < int64(time.Second) || !m.logged.CompareAndSwap(last, now) {
		return
	}
	m.log.Warn("events refused: Kafka has not taken them", "error", cause)
}
