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

// Service is a router. Any number of them may run at the same time, under the
// same policy.
//
//	hone.cases ──► router ──► ClickHouse (decisions, cases) ──► API
//	                 └──────► hone.route.*
type Service struct {
	tel    *telemetry.Telemetry
	conn   driver.Conn
	pub    *stream.Publisher
	runner *stream.Runner
	server *server.Server
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
	s := &Service{tel: tel}
	if s.conn, err = clickhouse.Open(cfg.ClickHouse); err != nil {
		return nil, err
	}
	if s.pub, err = stream.NewPublisher(cfg.Kafka, tel); err != nil {
		return nil, errors.Join(err, s.conn.Close())
	}
	st := &store{conn: s.conn}
	rt, err := newRouter(st, policy, time.Now, tel)
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	if s.runner, err = stream.NewRunner(stream.DefaultRunnerConfig("hone-router", stream.TopicCases), cfg.Kafka, rt, s.pub, tel); err != nil {
		return nil, errors.Join(err, s.close())
	}
	s.server = server.New(cfg.Server, keys, s.Ready, tel)
	policyv1.RegisterPolicyServiceServer(s.server.GRPC(), &api{store: st, policy: policy})
	tel.Log.Info("policy compiled", "policy_version", policy.Version(), "rules", len(policy.rules), "file", cfg.PolicyFile)
	return s, nil
}

// Run serves and consumes until ctx ends.
func (s *Service) Run(ctx context.Context) error {
	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.server.Run(gctx) })
	g.Go(func() error {
		if err := clickhouse.WaitForSchema(gctx, s.conn); err != nil {
			if gctx.Err() != nil {
				return nil // stopped while it waited
			}
			return err
		}
		return s.runner.Run(gctx)
	})
	if err := errors.Join(g.Wait(), s.close()); err != nil {
		return fmt.Errorf("run router: %w", err)
	}
	return nil
}

func (s *Service) close() error { return errors.Join(s.pub.Close(), s.conn.Close()) }

// Ready is nil while the router can do its work.
func (s *Service) Ready(ctx context.Context) error {
	var errs []error
	if err := s.conn.Ping(ctx); err != nil {
		errs = append(errs, fmt.Errorf("clickhouse: %w", err))
	}
	return errors.Join(append(errs, s.runner.Ready(ctx))...)
}
