// Package curator is the last step of the pipeline: review queue, datasets,
// patches.
package curator

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"golang.org/x/sync/errgroup"

	"github.com/honeloop/hone/pkg/auth"
	"github.com/honeloop/hone/pkg/clickhouse"
	"github.com/honeloop/hone/pkg/server"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/telemetry"
	curationv1 "github.com/honeloop/hone/proto/gen/go/hone/curation/v1"
	"github.com/honeloop/hone/services/curator/internal/api"
	"github.com/honeloop/hone/services/curator/internal/curation"
	"github.com/honeloop/hone/services/curator/internal/dataset"
	"github.com/honeloop/hone/services/curator/internal/materialize"
	"github.com/honeloop/hone/services/curator/internal/store"
)

// Service is a curator. Any number of them may run at the same time.
//
//	hone.route.* ──► routes ─────► ClickHouse ◄── decisions ◄── hone.curation
//	                                   │                          │      ▲
//	                                   └──────► API ◄── fold ◄────┘      │
//	                                             └───────────────────────┘
type Service struct {
	cfg      Config
	tel      *telemetry.Telemetry
	conn     driver.Conn
	pub      *stream.Publisher
	fold     *curation.Fold
	caughtUp atomic.Bool
	ignored  metric.Int64Counter
	runners  []*stream.Runner
	server   *server.Server
}

// New makes a curator. It connects to nothing yet.
func New(_ context.Context, cfg Config, tel *telemetry.Telemetry) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("create curator: %w", err)
	}
	tel = tel.Named("curator")
	m, err := newMetrics(tel.Meter)
	if err != nil {
		return nil, fmt.Errorf("create curator: %w", err)
	}
	keys, err := auth.ReadKeys(cfg.Server.KeysFile)
	if err != nil {
		return nil, fmt.Errorf("create curator: %w", err)
	}
	s := &Service{cfg: cfg, tel: tel, fold: curation.NewFold(cfg.MaxDecisions), ignored: m.ignored}
	if s.conn, err = clickhouse.Open(cfg.ClickHouse); err != nil {
		return nil, fmt.Errorf("create curator: %w", err)
	}
	if s.pub, err = stream.NewPublisher(cfg.Kafka, tel); err != nil {
		return nil, fmt.Errorf("create curator: %w", errors.Join(err, s.conn.Close()))
	}
	if err := s.wire(m, keys); err != nil {
		return nil, fmt.Errorf("create curator: %w", errors.Join(err, s.close()))
	}
	return s, nil
}

func (s *Service) wire(m *metrics, keys *auth.Keys) error {
	st := store.New(s.conn)
	write := func(ctx context.Context, b *store.Batch) error {
		if err := st.Write(ctx, b); err != nil {
			return err
		}
		m.written(ctx, b)
		return nil
	}
	for _, r := range []struct {
		cfg   stream.RunnerConfig
		stage stage.Stage
	}{
		{stream.DefaultRunnerConfig("hone-curator", stream.RouteTopics()...), &materialize.Routes{Write: write, NoTarget: m.noTargets}},
		{stream.DefaultRunnerConfig("hone-curator-curation", stream.TopicCuration), &materialize.Decisions{Write: write, Reviews: st.Reviews, NoTarget: m.noTargets}},
	} {
		runner, err := stream.NewRunner(r.cfg, s.cfg.Kafka, r.stage, s.pub, s.tel)
		if err != nil {
			return err
		}
		s.runners = append(s.runners, runner)
	}
	s.server = server.New(s.cfg.Server, keys, s.Ready, s.tel)
	curationv1.RegisterReviewServiceServer(s.server.GRPC(), &api.Reviews{Store: st, Fold: s.fold, Append: s.pub.Publish,
		CaughtUp: s.foldReady, Now: time.Now, DecideTimeout: s.cfg.DecideTimeout, InFlight: make(chan struct{}, s.cfg.MaxDeciding)})
	curationv1.RegisterDatasetServiceServer(s.server.GRPC(), &api.Datasets{Store: st, InFlight: make(chan struct{}, s.cfg.MaxExports),
		Exported: m.exported})
	curationv1.RegisterPatchServiceServer(s.server.GRPC(), &api.Patches{Store: st})
	return nil
}

// Run serves and consumes until ctx ends. The fold goes on until the last call
// was answered, as a decision waits for it.
func (s *Service) Run(ctx context.Context) error {
	foldCtx, stopFold := context.WithCancel(context.WithoutCancel(ctx))
	defer stopFold()
	g, gctx := errgroup.WithContext(ctx)
	drained := make(chan struct{})
	g.Go(func() error { defer stopFold(); return s.server.Run(gctx, drained) })
	g.Go(func() error {
		return stream.Follow(foldCtx, s.cfg.Kafka, stream.TopicCuration, stream.FromStart(), s.apply, func() { s.caughtUp.Store(true) })
	})
	g.Go(func() error {
		defer close(drained)
		if err := clickhouse.WaitForSchema(gctx, s.conn); err != nil {
			if gctx.Err() != nil {
				return nil // stopped while it waited
			}
			return err
		}
		stages, sctx := errgroup.WithContext(gctx)
		for _, r := range s.runners {
			stages.Go(func() error { return r.Run(sctx) })
		}
		return stages.Wait()
	})
	if err := errors.Join(g.Wait(), s.close()); err != nil {
		return fmt.Errorf("run curator: %w", err)
	}
	return nil
}

// apply takes the next record of hone.curation. What no reader can understand
// does not count here; the stage on the same topic makes it a dead letter.
func (s *Service) apply(ctx context.Context, rec stage.Record) error {
	event, err := curation.Parse(rec.Value)
	if err != nil {
		s.ignored.Add(ctx, 1)
		return nil
	}
	s.fold.Apply(event)
	return nil
}

func (s *Service) close() error {
	return errors.Join(s.pub.Close(), s.conn.Close())
}

// Ready is nil while the curator can do its work.
func (s *Service) Ready(ctx context.Context) error {
	errs := []error{s.foldReady()}
	if err := s.conn.Ping(ctx); err != nil {
		errs = append(errs, fmt.Errorf("clickhouse: %w", err))
	}
	for _, r := range s.runners {
		errs = append(errs, r.Ready(ctx))
	}
	return errors.Join(errs...)
}

var errCatchingUp = errors.New("the log of decisions is still being read: try again in a second")

func (s *Service) foldReady() error {
	if !s.caughtUp.Load() {
		return errCatchingUp
	}
	return nil
}

// metrics count work, not rows that stand: a redelivered record counts again.
type metrics struct {
	rows, noTarget, ignored, lines, leftOut metric.Int64Counter
}

func newMetrics(meter metric.Meter) (*metrics, error) {
	m := &metrics{}
	var errs []error
	counter := func(name, description string) metric.Int64Counter {
		c, err := meter.Int64Counter(name, metric.WithDescription(description))
		errs = append(errs, err)
		return c
	}
	m.rows = counter("hone.curator.rows", "Rows written, by kind.")
	m.noTarget = counter("hone.curator.no_target", "Signals on the fine-tune route, and answers of reviewers, that gave no example yet, by reason.")
	m.ignored = counter("hone.curator.fold.ignored", "Records on hone.curation that cannot be read.")
	m.lines = counter("hone.curator.export.rows", "Examples exported, by format.")
	m.leftOut = counter("hone.curator.export.left_out", "Examples left out of exports, by format and reason.")
	return m, errors.Join(errs...)
}

func (m *metrics) written(ctx context.Context, b *store.Batch) {
	for kind, n := range map[string]int{"review": len(b.Reviews), "review_withdrawal": len(b.Withdrawals), "review_decision": len(b.Decisions),
		"dataset_row": len(b.DatasetRows), "patch": len(b.Patches), "product_issue": len(b.Issues)} {
		if n > 0 {
			m.rows.Add(ctx, int64(n), metric.WithAttributes(attribute.String("kind", kind)))
		}
	}
}

func (m *metrics) noTargets(ctx context.Context, byReason map[string]int) {
	for reason, n := range byReason {
		m.noTarget.Add(ctx, int64(n), metric.WithAttributes(attribute.String("reason", reason)))
	}
}

func (m *metrics) exported(ctx context.Context, format string, c dataset.Counts) {
	f := attribute.String("format", format)
	m.lines.Add(ctx, int64(c.Rows), metric.WithAttributes(f))
	for reason, n := range map[string]int{"no_rejected": c.NoRejected, "superseded": c.Superseded} {
		if n > 0 {
			m.leftOut.Add(ctx, int64(n), metric.WithAttributes(f, attribute.String("reason", reason)))
		}
	}
}
