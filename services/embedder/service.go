// Package embedder finds the case that each signal belongs to, and answers at
// inference time which known cases a query is near.
package embedder

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.opentelemetry.io/otel/metric"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	recallv1 "github.com/honeloop/hone/proto/gen/go/hone/recall/v1"

	"github.com/honeloop/hone/pkg/auth"
	"github.com/honeloop/hone/pkg/embedding"
	"github.com/honeloop/hone/pkg/projects"
	"github.com/honeloop/hone/pkg/server"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/telemetry"
	"github.com/honeloop/hone/pkg/vector"
)

// The consumer groups.
const (
	GroupSignals  = "hone-embedder"
	GroupCuration = "hone-embedder-curation"
	GroupPatches  = "hone-embedder-patches"
)

// Service is the embedder.
type Service struct {
	tel      *telemetry.Telemetry
	projects *projects.Projects
	reload   time.Duration // of the projects' settings
	interval time.Duration // of the pass; 0 for none
	weaviate *vector.Client
	models   []embedding.Provider
	spaces   *spaces
	titles   *titles // nil for none
	pub      *stream.Publisher
	trail    *grpc.ClientConn // nil for none
	sessions *sessionReader   // nil for none
	runners  []*stream.Runner
	server   *server.Server
}

// New makes the service. It reads the keys and loads the model, and connects
// to nothing yet.
//
//	hone.signals ──► signals ──┐                  ┌──► hone.cases
//	                           ├──► Weaviate ─────┤
//	hone.curation ─► curation ─┤        ▲         └──► hone.cases
//	hone.patches ──► patches ──┘        │
//	                                    │       enricher (trails of sessions)
//	                                    │          ▲
//	                gRPC ──► Recall, Embed, cases; changes of cases go to hone.curation
func New(_ context.Context, cfg Config, tel *telemetry.Telemetry) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	tel = tel.Named("embedder")
	keys, err := auth.ReadKeys(cfg.Server.KeysFile)
	if err != nil {
		return nil, err
	}
	settings, err := projects.Read(cfg.Server.ProjectsFile)
	if err != nil {
		return nil, err
	}
	s := &Service{tel: tel, projects: settings, reload: cfg.Server.FilesReload, interval: cfg.Cases.PassInterval}
	if s.weaviate, err = vector.Open(cfg.Weaviate); err != nil {
		return nil, err
	}
	if s.pub, err = stream.NewPublisher(cfg.Kafka, tel); err != nil {
		return nil, errors.Join(err, s.close())
	}
	if cfg.Recall.Trail != "" {
		if s.trail, err = grpc.NewClient(cfg.Recall.Trail, grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxTrail))); err != nil {
			return nil, errors.Join(fmt.Errorf("recall.trail: %w", err), s.close())
		}
		if s.sessions, err = newSessionReader(s.trail, cfg.Recall.SessionTimeout, tel.Meter); err != nil {
			return nil, errors.Join(err, s.close())
		}
	}
	s.spaces = &spaces{backend: s.weaviate}
	if s.titles, err = newTitles(cfg.Titles, tel); err != nil {
		return nil, errors.Join(err, s.close())
	}
	for _, model := range []embedding.Config{cfg.Embedding, cfg.EmbeddingNext} {
		if model.Provider == "" {
			continue
		}
		if err := s.addPart(model, cfg, tel); err != nil {
			return nil, errors.Join(err, s.close())
		}
	}
	patched, err := tel.Meter.Int64Counter("hone.embedder.patches", metric.WithDescription("Events about prompt patches by what came of them."))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("create counter of patches: %w", err), s.close())
	}
	for _, r := range []struct {
		group, topic string
		stage        stage.Stage
	}{
		{GroupSignals, stream.TopicSignals, s.spaces.stage(func(p *part) stage.Stage { return p.signals })},
		{GroupCuration, stream.TopicCuration, s.spaces.stage(func(p *part) stage.Stage { return p.curation })},
		{GroupPatches, stream.TopicPatches, s.spaces.stage(func(p *part) stage.Stage { return &patches{p.signals.store, patched} })},
	} {
		runner, err := stream.NewRunner(stream.DefaultRunnerConfig(r.group, r.topic), cfg.Kafka, r.stage, s.pub, tel)
		if err != nil {
			return nil, errors.Join(err, s.close())
		}
		s.runners = append(s.runners, runner)
	}
	s.server = server.New(cfg.Server, keys, s.Ready, tel)
	recallv1.RegisterRecallServiceServer(s.server.GRPC(), &recallServer{spaces: s.spaces})
	casesv1.RegisterCaseServiceServer(s.server.GRPC(), &caseServer{spaces: s.spaces})
	return s, nil
}

// addPart makes all that works with one model.
func (s *Service) addPart(model embedding.Config, cfg Config, tel *telemetry.Telemetry) error {
	e, err := embedding.New(model, tel)
	if err != nil {
		return err
	}
	s.models = append(s.models, e)
	p := s.spaces.add(model.Provider, e)
	if p.signals, p.curation, err = stages(p.index, e, cfg.Cases, cfg.joinThreshold(model.Provider), s.projects, tel); err != nil {
		return err
	}
	// During a change of the model both parts may have a batch of a project.
	p.signals.store.locks = s.spaces.parts[0].signals.store.locks
	p.pass = newPass(p.index, s.pub.Publish, s.projects, cfg.mergeThreshold(model.Provider), tel.Log)
	p.pass.titles = s.titles
	p.pass.turn = func() bool { return s.spaces.last() == p }
	p.signals.mark = func(project string) {
		for _, p := range s.spaces.parts {
			p.pass.mark(project)
		}
	}
	if p.recall, err = newAPI(p.index, e, s.projects, cfg.Recall, s.sessions, tel.Log); err != nil {
		return err
	}
	p.cases = newCaseAPI(p.recall, s.pub.Publish, cfg.Cases.EditTimeout)
	return nil
}

// stages are the two that change cases. They share a store, so that one case
// is changed by one of them at a time.
func stages(ix index, e embedding.Embedder, cfg CasesConfig, join float64, settings *projects.Projects, tel *telemetry.Telemetry) (*signals, *curation, error) {
	placed, err := tel.Meter.Int64Counter("hone.embedder.signals", metric.WithDescription("Signals by what came of them."))
	if err != nil {
		return nil, nil, fmt.Errorf("create counter of signals: %w", err)
	}
	reviewed, err := tel.Meter.Int64Counter("hone.embedder.curation", metric.WithDescription("Curation events by what came of them."))
	if err != nil {
		return nil, nil, fmt.Errorf("create counter of curation events: %w", err)
	}
	st := newStore(ix, cfg)
	return &signals{store: st, embedder: e, join: join, projects: settings, outcomes: placed},
		&curation{store: st, embedder: e, outcomes: reviewed}, nil
}

// Run serves at once, and consumes as soon as Weaviate has its schema, until
// ctx ends.
func (s *Service) Run(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	drained := make(chan struct{})
	g.Go(func() error { return s.server.Run(gctx, drained) })
	g.Go(func() error { s.projects.Watch(gctx, s.reload, s.tel.Log); return nil })
	g.Go(func() error {
		defer close(drained)
		if err := s.awaitIndex(gctx); errors.Is(err, errOtherModel) {
			return err
		} else if err != nil {
			return nil // told to stop before
		}
		stages, sctx := errgroup.WithContext(gctx)
		for _, r := range s.runners {
			stages.Go(func() error { return r.Run(sctx) })
		}
		stages.Go(func() error { return s.spaces.follow(sctx) })
		stages.Go(func() error { newReindexer(s.spaces, s.tel.Log).run(sctx); return nil })
		for _, p := range s.spaces.parts {
			stages.Go(func() error { p.recall.renewBackgrounds(sctx); return nil })
		}
		if s.interval > 0 {
			for _, p := range s.spaces.parts {
				stages.Go(func() error { p.pass.run(sctx, s.interval); return nil })
			}
		}
		return stages.Wait()
	})
	return errors.Join(g.Wait(), s.close())
}

// awaitIndex returns when Weaviate is there, with its schema and vectors of a
// model of this embedder; or with errOtherModel; or when ctx ends.
func (s *Service) awaitIndex(ctx context.Context) error {
	const pause, repeat = 200 * time.Millisecond, 10 * time.Second
	var logged time.Time
	for {
		err := s.weaviate.Ready(ctx)
		if err == nil {
			err = s.spaces.claim(ctx)
		}
		if err == nil || errors.Is(err, errOtherModel) {
			return err
		}
		if time.Since(logged) > repeat {
			s.tel.Log.Info("waiting for weaviate", "error", err)
			logged = time.Now()
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Ready says whether signals are consumed and Recall can answer.
func (s *Service) Ready(ctx context.Context) error {
	errs := []error{s.weaviate.Ready(ctx)}
	for _, r := range s.runners {
		errs = append(errs, r.Ready(ctx))
	}
	return errors.Join(errs...)
}

func (s *Service) close() error {
	var errs []error
	if s.pub != nil {
		errs = append(errs, s.pub.Close())
	}
	if s.trail != nil {
		errs = append(errs, s.trail.Close())
	}
	for _, m := range s.models {
		errs = append(errs, m.Close())
	}
	if s.weaviate != nil {
		errs = append(errs, s.weaviate.Close())
	}
	return errors.Join(errs...)
}
