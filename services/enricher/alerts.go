package enricher

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"golang.org/x/sync/errgroup"

	"github.com/honeloop/hone/pkg/projects"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/telemetry"

	"github.com/honeloop/hone/services/enricher/internal/alerting"
	"github.com/honeloop/hone/services/enricher/internal/trends"
)

// AlertsGroup is the consumer group on hone.alerts that posts to webhooks.
const AlertsGroup = "hone-enricher-alerts"

// AlertsConfig bounds what is done about alerts. What alerts there are stands in
// the projects file.
type AlertsConfig struct {
	// Time between two looks at the trends that projects watch. All enrichers must
	// have the same.
	Interval time.Duration `yaml:"interval" env:"INTERVAL"`
	// How long a webhook that fails is tried before an alert goes to the dead
	// letter.
	RetryFor time.Duration `yaml:"retry_for" env:"RETRY_FOR"`
	// Longest time for one post.
	Timeout time.Duration `yaml:"timeout" env:"TIMEOUT"`
}

// DefaultAlertsConfig looks every minute.
func DefaultAlertsConfig() AlertsConfig {
	o := alerting.DefaultDeliverOptions()
	return AlertsConfig{Interval: time.Minute, RetryFor: o.RetryFor, Timeout: o.Timeout}
}

// Validate joins all that is wrong, each with its key.
func (c AlertsConfig) Validate() error {
	var errs []error
	if c.Interval < time.Second || c.Interval > time.Hour {
		errs = append(errs, errors.New("interval: want 1s to 1h"))
	}
	if c.RetryFor <= 0 || c.RetryFor > time.Hour {
		errs = append(errs, errors.New("retry_for: want over 0 and at most 1h"))
	}
	if c.Timeout <= 0 || c.Timeout > time.Minute {
		errs = append(errs, errors.New("timeout: want over 0 and at most 1m"))
	}
	return errors.Join(errs...)
}

// alertsPerBatch bounds the alerts that a webhook which fails keeps waiting.
const alertsPerBatch = 20

// alertWork evaluates trends and delivers alerts.
type alertWork struct {
	evaluator *alerting.Evaluator
	runner    *stream.Runner
}

func newAlertWork(cfg Config, conn driver.Conn, settings *projects.Projects, pub *stream.Publisher, tel *telemetry.Telemetry) (*alertWork, error) {
	store := alerting.NewStore(conn)
	evaluator, err := alerting.NewEvaluator(trends.NewStore(conn), store, pub, settings, cfg.Alerts.Interval, tel.Log, tel.Meter)
	if err != nil {
		return nil, fmt.Errorf("alerts: %w", err)
	}
	opts := alerting.DefaultDeliverOptions()
	opts.RetryFor, opts.Timeout = cfg.Alerts.RetryFor, cfg.Alerts.Timeout
	deliverer, err := alerting.NewDeliverer(store, settings.Settings, opts, tel.Meter)
	if err != nil {
		return nil, fmt.Errorf("alerts: %w", err)
	}
	rc := stream.DefaultRunnerConfig(AlertsGroup, stream.TopicAlerts)
	rc.MaxBatch = alertsPerBatch
	// The first alert for a webhook that is down takes all of retry_for, the
	// others one post to each webhook.
	rc.ProcessTimeout = cfg.Alerts.RetryFor + alertsPerBatch*projects.MaxWebhooks*cfg.Alerts.Timeout + time.Minute
	runner, err := stream.NewRunner(rc, cfg.Kafka, deliverer, pub, tel)
	if err != nil {
		return nil, fmt.Errorf("alerts: %w", err)
	}
	return &alertWork{evaluator, runner}, nil
}

// run works until ctx ends.
func (w *alertWork) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		w.evaluator.Run(ctx)
		return nil
	})
	g.Go(func() error { return w.runner.Run(ctx) })
	return g.Wait()
}
