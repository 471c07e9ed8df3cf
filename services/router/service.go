// Package router decides what is done with each signal, by a policy that people
// can read, and says so on the route topics.
package router

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"golang.org/x/sync/errgroup"

	"github.com/honeloop/hone/pkg/auth"
	"github.com/honeloop/hone/pkg/clickhouse"
	"github.com/honeloop/hone/pkg/server"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/telemetry"
	policyv1 "github.com/honeloop/hone/proto/gen/go/hone/policy/v1"
)

//go:embed default_policy.yaml
var defaultPolicyYAML []byte

// DefaultPolicy is the policy that holds where no other is configured.
func DefaultPolicy() (*Policy, error) { return CompilePolicy("default_policy.yaml", defaultPolicyYAML) }

// ReadPolicy compiles the policy file at path; no path means the default.
func ReadPolicy(path string) (*Policy, error) {
	if path == "" {
		return DefaultPolicy()
	}
	source, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read policy: %w", err)
	}
	return CompilePolicy(path, source)
}

// Service is a router. Any number of them may run at the same time, with the
// same policy file.
//
//	hone.cases ────► router ──► ClickHouse (decisions, cases) ──► API
//	                 ▲    └───► hone.route.*                       │
//	              policies                                        │
//	                 ▲                                            │
//	           hone.curation ◄────────────────────────────────────┘
type Service struct {
	cfg      Config
	tel      *telemetry.Telemetry
	conn     driver.Conn
	pub      *stream.Publisher
	policies *policies
	caughtUp chan struct{} // closed when policies are what the log says
	runners  []*stream.Runner
	server   *server.Server
}

// New makes a router. It connects to nothing yet.
func New(_ context.Context, cfg Config, tel *telemetry.Telemetry) (*Service, error) {
	s, err := newService(cfg, tel.Named("router"))
	if err != nil {
		return nil, fmt.Errorf("create router: %w", err)
	}
	return s, nil
}

func newService(cfg Config, tel *telemetry.Telemetry) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	policy, err := ReadPolicy(cfg.PolicyFile)
	if err != nil {
		return nil, err
	}
	keys, err := auth.ReadKeys(cfg.Server.KeysFile)
	if err != nil {
		return nil, err
	}
	s := &Service{cfg: cfg, tel: tel, caughtUp: make(chan struct{})}
	s.policies = newPolicies(policy, func(project string, number uint32, err error) {
		tel.Log.Error("a published policy cannot be used by this build, so the one before stays in force here",
			"project", project, "number", number, "error", err)
	})
	if s.conn, err = clickhouse.Open(cfg.ClickHouse); err != nil {
		return nil, err
	}
	if s.pub, err = stream.NewPublisher(cfg.Kafka, tel); err != nil {
		return nil, errors.Join(err, s.conn.Close())
	}
	st := &store{conn: s.conn}
	rt, err := newRouter(st, s.policies, time.Now, tel)
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	for _, r := range []struct {
		cfg   stream.RunnerConfig
		stage stage.Stage
	}{
		{stream.DefaultRunnerConfig("hone-router", stream.TopicCases), rt},
		{stream.DefaultRunnerConfig("hone-router-curation", stream.TopicCuration), &policyLog{st}},
	} {
		runner, err := stream.NewRunner(r.cfg, cfg.Kafka, r.stage, s.pub, tel)
		if err != nil {
			return nil, errors.Join(err, s.close())
		}
		s.runners = append(s.runners, runner)
	}
	s.server = server.New(cfg.Server, keys, s.Ready, tel)
	policyv1.RegisterPolicyServiceServer(s.server.GRPC(), &api{store: st, policies: s.policies, append: s.pub.Publish, caughtUp: s.policiesReady,
		now: time.Now, publishTimeout: cfg.PublishTimeout, publishing: make(chan struct{}, maxPublishing), backtesting: make(chan struct{}, maxBacktests)})
	tel.Log.Info("policy compiled", "policy_version", policy.Version(), "rules", len(policy.rules), "file", cfg.PolicyFile)
	return s, nil
}

// What is done at a time. A backtest keeps a core busy.
const (
	maxPublishing = 16
	maxBacktests  = 2
)

// Run serves and consumes until ctx ends. The policies go on being followed
// until the last call was answered, as a publication waits for them.
func (s *Service) Run(ctx context.Context) error {
	followCtx, stopFollowing := context.WithCancel(context.WithoutCancel(ctx))
	defer stopFollowing()
	g, gctx := errgroup.WithContext(ctx)
	drained := make(chan struct{})
	g.Go(func() error { defer stopFollowing(); return s.server.Run(gctx, drained) })
	g.Go(func() error {
		return stream.Follow(followCtx, s.cfg.Kafka, stream.TopicCuration, stream.FromStart(), s.policies.follow, func() { close(s.caughtUp) })
	})
	g.Go(func() error {
		defer close(drained)
		if err := clickhouse.WaitForSchema(gctx, s.conn); err != nil {
			if gctx.Err() != nil {
				return nil // stopped while it waited
			}
			return err
		}
		// Nothing is decided before each project's policy is known.
		select {
		case <-s.caughtUp:
		case <-gctx.Done():
			return nil
		}
		stages, sctx := errgroup.WithContext(gctx)
		for _, r := range s.runners {
			stages.Go(func() error { return r.Run(sctx) })
		}
		return stages.Wait()
	})
	if err := errors.Join(g.Wait(), s.close()); err != nil {
		return fmt.Errorf("run router: %w", err)
	}
	return nil
}

func (s *Service) policiesReady() error {
	select {
	case <-s.caughtUp:
		return nil
	default:
		return errors.New("the log of policies is still being read: try again in a second")
	}
}

func (s *Service) close() error { return errors.Join(s.pub.Close(), s.conn.Close()) }

// Ready is nil while the router can do its work.
func (s *Service) Ready(ctx context.Context) error {
	errs := []error{s.policiesReady()}
	if err := s.conn.Ping(ctx); err != nil {
		errs = append(errs, fmt.Errorf("clickhouse: %w", err))
	}
	for _, r := range s.runners {
		errs = append(errs, r.Ready(ctx))
	}
	return errors.Join(errs...)
}
