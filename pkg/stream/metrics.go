package stream

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

var seconds = []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}

type publisherMetrics struct {
	records  metric.Int64Counter
	bytes    metric.Int64Counter
	failed   metric.Int64Counter
	duration metric.Float64Histogram
}

func newPublisherMetrics(m metric.Meter) (publisherMetrics, error) {
	var pm publisherMetrics
	var errs [4]error
	pm.records, errs[0] = m.Int64Counter("hone.publish.records", metric.WithDescription("Records that Kafka acknowledged, by topic."))
	pm.bytes, errs[1] = m.Int64Counter("hone.publish.bytes", metric.WithUnit("By"), metric.WithDescription("Their bytes, uncompressed."))
	pm.failed, errs[2] = m.Int64Counter("hone.publish.failures", metric.WithDescription("Produce requests that failed, retried or not, by topic."))
	pm.duration, errs[3] = m.Float64Histogram("hone.publish.request.duration", metric.WithUnit("s"),
		metric.WithExplicitBucketBoundaries(seconds...), metric.WithDescription("How long a produce request took, by topic."))
	return pm, errors.Join(errs[:]...)
}

func (m *publisherMetrics) produced(topic string, records, bytes int, took time.Duration, err error) {
	ctx := context.Background()
	attrs := metric.WithAttributeSet(attribute.NewSet(attribute.String("topic", topic)))
	if err != nil {
		m.failed.Add(ctx, 1, attrs)
		return
	}
	m.records.Add(ctx, int64(records), attrs)
	m.bytes.Add(ctx, int64(bytes), attrs)
	m.duration.Record(ctx, took.Seconds(), attrs)
}

type runnerMetrics struct {
	in, out, batches, retries, deadLetters, commits, lost metric.Int64Counter
	duration                                              metric.Float64Histogram
	lag                                                   metric.Int64ObservableGauge
}

func newRunnerMetrics(m metric.Meter) (runnerMetrics, error) {
	var rm runnerMetrics
	var errs []error
	counter := func(to *metric.Int64Counter, name, description string) {
		c, err := m.Int64Counter(name, metric.WithDescription(description))
		*to = c
		errs = append(errs, err)
	}
	counter(&rm.in, "hone.stage.records.in", "Records whose effect is durable, by stage and topic.")
	counter(&rm.out, "hone.stage.records.out", "Records that the stage caused, by stage.")
	counter(&rm.batches, "hone.stage.batches", "Batches done, by stage and topic.")
	counter(&rm.retries, "hone.stage.retries", "Attempts that failed and will be repeated, by stage, topic and step (process or publish).")
	counter(&rm.deadLetters, "hone.stage.dead_letters", "Records that went to the dead letter, by stage, topic and reason.")
	counter(&rm.commits, "hone.stage.commits", "Offset commits, by stage and result.")
	counter(&rm.lost, "hone.stage.records.lost", "Records that Kafka deleted before they were read, by stage and topic.")
	var err error
	rm.duration, err = m.Float64Histogram("hone.stage.process.duration", metric.WithUnit("s"),
		metric.WithExplicitBucketBoundaries(seconds...), metric.WithDescription("How long Process took for a batch, by stage and topic."))
	errs = append(errs, err)
	rm.lag, err = m.Int64ObservableGauge("hone.stage.lag", metric.WithDescription("Records that are not done yet, by stage, topic and partition."))
	errs = append(errs, err)
	return rm, errors.Join(errs...)
}
