// Package enricher keeps the trail of every session and reads signals from it.
package enricher

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"golang.org/x/sync/errgroup"

	"github.com/honeloop/hone/pkg/auth"
	"github.com/honeloop/hone/pkg/clickhouse"
	"github.com/honeloop/hone/pkg/embedding"
	"github.com/honeloop/hone/pkg/projects"
	"github.com/honeloop/hone/pkg/server"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/telemetry"
	erasurev1 "github.com/honeloop/hone/proto/gen/go/hone/erasure/v1"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	trailv1 "github.com/honeloop/hone/proto/gen/go/hone/trail/v1"
	trendsv1 "github.com/honeloop/hone/proto/gen/go/hone/trends/v1"

	"github.com/honeloop/hone/services/enricher/internal/alerting"
	"github.com/honeloop/hone/services/enricher/internal/enrich"
	"github.com/honeloop/hone/services/enricher/internal/erase"
	"github.com/honeloop/hone/services/enricher/internal/originals"
	"github.com/honeloop/hone/services/enricher/internal/redact"
	"github.com/honeloop/hone/services/enricher/internal/sessions"
	"github.com/honeloop/hone/services/enricher/internal/timers"
	"github.com/honeloop/hone/services/enricher/internal/trail"
	"github.com/honeloop/hone/services/enricher/internal/trends"
)

// Group is the enricher's consumer group on hone.events.
const Group = "hone-enricher"

// Service is the enricher. Make it with New.
type Service struct {
	conn  driver.Conn
	model embedding.Provider
	// timers look at the store every so often.
	timers *timers.Timers
	every  time.Duration
	// projects are read again while it runs, every reload.
	projects *projects.Projects
	reload   time.Duration
	// erased is who was, and eraser goes on with it.
	erased *erase.Subjects
	eraser *erase.Eraser
	pub    *stream.Publisher
	runner *stream.Runner
	alerts *alertWork
	server *server.Server
	tel    *telemetry.Telemetry
}

// New reads the keys and makes the clients. It connects to nothing yet.
func New(_ context.Context, cfg Config, tel *telemetry.Telemetry) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("create enricher: %w", err)
	}
	tel = tel.Named("enricher")
	keys, err := auth.ReadKeys(cfg.Server.KeysFile)
	if err != nil {
		return nil, fmt.Errorf("create enricher: %w", err)
	}
	originalsKeys, err := originals.NewKeys(cfg.OriginalsKey, cfg.OriginalsOldKeys)
	if err != nil {
		return nil, fmt.Errorf("create enricher: %w", err)
	}
	settings, err := projects.ReadChecked(cfg.Server.ProjectsFile, func(s projects.Settings) error {
		if s.Privacy.KeepOriginals && !originalsKeys.CanKeep() {
			return originals.ErrNoKey
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("create enricher: %w", err)
	}
	conn, err := clickhouse.Open(cfg.ClickHouse)
	if err != nil {
		return nil, fmt.Errorf("create enricher: %w", err)
	}
	store := trail.NewStore(conn)
	store.RetentionDays = func(project string) int { return settings.Settings(project).Retention.Days }
	kept := originals.NewStore(conn, originalsKeys, store.RetentionDays)
	model, err := embedding.New(cfg.Embedding, tel)
	if err != nil {
		return nil, fmt.Errorf("create enricher: %w", errors.Join(err, conn.Close()))
	}
	erased := erase.NewSubjects(conn, cfg.PrivacyKey)
	meaning := enrich.NewMeaning(model)
	st, err := enrich.New(store, enrich.Options{
		Rules: enrich.ProjectRules(settings, meaning), Meaning: meaning, Erased: erased,
		CacheBytes: cfg.CacheBytes, MaxSessionEvents: cfg.MaxSessionEvents,
		Redact: func(e *eventv1.Event) (redact.Counts, []redact.Original) {
			return redact.Event(e, []byte(cfg.PrivacyKey), settings.Settings(e.ProjectId).Privacy)
		},
		SaveOriginals: kept.Save,
	}, tel.Meter)
	if err != nil {
		return nil, fmt.Errorf("create enricher: %w", errors.Join(err, conn.Close()))
	}
	pub, err := stream.NewPublisher(cfg.Kafka, tel)
	if err != nil {
		return nil, fmt.Errorf("create enricher: %w", errors.Join(err, conn.Close()))
	}
	clock, err := timers.New(conn, settings, pub.Publish, tel.Log, tel.Meter)
	if err != nil {
		return nil, fmt.Errorf("create enricher: %w", errors.Join(err, pub.Close(), conn.Close()))
	}
	rc := stream.DefaultRunnerConfig(Group, stream.TopicEvents)
	// Each batch costs an insert, and an insert a part: larger ones are cheaper.
	rc.MaxBatch = cfg.MaxBatch
	runner, err := stream.NewRunner(rc, cfg.Kafka, st, pub, tel)
	if err != nil {
		return nil, fmt.Errorf("create enricher: %w", errors.Join(err, pub.Close(), conn.Close()))
	}
	alerts, err := newAlertWork(cfg, conn, settings, pub, tel)
	if err != nil {
		return nil, fmt.Errorf("create enricher: %w", errors.Join(err, pub.Close(), conn.Close()))
	}
	eraser := erase.New(conn, erased, pub.Publish, func(ctx context.Context, group string, topics ...string) error {
		return stream.AwaitPassed(ctx, cfg.Kafka, group, topics...)
	}, tel.Log)
	s := &Service{erased: erased, eraser: eraser, alerts: alerts, conn: conn, model: model, timers: clock, every: cfg.TimersEvery, projects: settings, reload: cfg.Server.FilesReload, pub: pub, runner: runner, tel: tel}
	s.server = server.New(cfg.Server, keys, s.Ready, tel)
	trailv1.RegisterTrailServiceServer(s.server.GRPC(), &trailServer{store: sessions.NewStore(conn), originals: kept, log: tel.Log})
	erasurev1.RegisterErasureServiceServer(s.server.GRPC(), &erasureServer{eraser: eraser, log: tel.Log})
	trendsv1.RegisterTrendServiceServer(s.server.GRPC(), &trendServer{store: trends.NewStore(conn), alerts: alerting.NewStore(conn), log: tel.Log})
	return s, nil
}

// Run works until ctx ends: it serves the trail, waits for the schema, then
// reads events. It returns nil after a stop.
func (s *Service) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	drained := make(chan struct{})
	g.Go(func() error { return s.server.Run(ctx, drained) })
	g.Go(func() error {
		s.projects.Watch(ctx, s.reload, s.tel.Log)
		return nil
	})
	g.Go(func() error {
		defer close(drained)
		s.tel.Log.Info("waiting for the schema of ClickHouse")
		if err := clickhouse.WaitForSchema(ctx, s.conn); err != nil {
			if ctx.Err() != nil {
				return nil // told to stop while it waited
			}
			return err
		}
		if err := s.learnErased(ctx); err != nil {
			return nil // told to stop
		}
		stages, ctx := errgroup.WithContext(ctx)
		stages.Go(func() error { s.eraser.KeepKnown(ctx); return nil })
		stages.Go(func() error { s.eraser.Run(ctx); return nil })
		stages.Go(func() error { return s.alerts.run(ctx) })
		if s.every > 0 {
			stages.Go(func() error {
				s.timers.Run(ctx, s.every)
				return nil
			})
		}
		stages.Go(func() error { return s.runner.Run(ctx) })
		return stages.Wait()
	})
	err := g.Wait()
	if err := errors.Join(err, s.pub.Close(), s.model.Close(), s.conn.Close()); err != nil {
		return fmt.Errorf("enricher: %w", err)
	}
	return nil
}

// learnErased reads who was erased, before any event is. It fails only when ctx
// ends.
func (s *Service) learnErased(ctx context.Context) error {
	for {
		err := s.erased.Refresh(ctx)
		if err == nil {
			return nil
		}
		s.tel.Log.Warn("cannot read who was erased; trying again", "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(erase.RefreshEvery):
		}
	}
}

// Ready is nil while the trail can be read and events are being handled.
func (s *Service) Ready(ctx context.Context) error {
	return errors.Join(clickhouse.CheckSchema(ctx, s.conn), s.runner.Ready(ctx), s.alerts.runner.Ready(ctx))
}
