// Package collector is the front door: it authenticates, checks, makes durable
// and only then answers. It also is the gateway to the other services.
package collector

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc"

	"github.com/honeloop/hone/pkg/auth"
	"github.com/honeloop/hone/pkg/events"
	"github.com/honeloop/hone/pkg/server"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/telemetry"
	collectorv1 "github.com/honeloop/hone/proto/gen/go/hone/collector/v1"
	"github.com/honeloop/hone/services/collector/internal/gateway"
	"github.com/honeloop/hone/services/collector/internal/openapi"
)

// maxMessage bounds a gRPC message from an upstream, in bytes. It is what
// pkg/server lets in.
const maxMessage = 32 << 20

// Service is one collector.
type Service struct {
	cfg      Config
	tel      *telemetry.Telemetry
	server   *server.Server
	handler  *handler
	gateway  *gateway.Gateway
	closer   io.Closer // the publisher
	spool    *spooling // nil where it is off
	draining atomic.Bool
	serving  atomic.Bool
}

// New reads the keys and connects to nothing yet. Run must be called, or what
// New has opened stays open.
func New(_ context.Context, cfg Config, tel *telemetry.Telemetry) (*Service, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("create collector: %w", err)
	}
	keys, err := auth.ReadKeys(cfg.Server.KeysFile)
	if err != nil {
		return nil, fmt.Errorf("create collector: %w", err)
	}
	publisher, err := stream.NewPublisher(cfg.Kafka, tel)
	if err != nil {
		return nil, fmt.Errorf("create collector: %w", err)
	}
	s, err := newService(cfg, keys, publisher, publisher, tel)
	if err != nil {
		return nil, fmt.Errorf("create collector: %w", errors.Join(err, publisher.Close()))
	}
	return s, nil
}

func newService(cfg Config, keys *auth.Keys, publisher Publisher, closer io.Closer, tel *telemetry.Telemetry) (*Service, error) {
	m, err := newMetrics(tel)
	if err != nil {
		return nil, err
	}
	decoder, err := events.NewDecoder(cfg.Limits)
	if err != nil {
		return nil, err
	}
	document, err := openapi.Document()
	if err != nil {
		return nil, err
	}
	gw, err := gateway.New(gateway.Config{
		Upstreams: cfg.Upstreams, Timeout: cfg.GatewayTimeout, StreamWriteTimeout: cfg.WriteTimeout,
		MaxBody: cfg.MaxBody, MaxMessage: maxMessage, MaxInFlight: cfg.MaxInFlight, Dial: server.TraceClient(tel),
	})
	if err != nil {
		return nil, err
	}
	s := &Service{cfg: cfg, tel: tel, gateway: gw, closer: closer}
	if cfg.Spool.Enabled {
		if s.spool, err = newSpooling(publisher, cfg.Spool, tel); err != nil {
			return nil, errors.Join(err, gw.Close())
		}
		publisher = s.spool
	}
	in := &intake{
		publisher: publisher, limits: cfg.Limits, timeout: cfg.PublishTimeout,
		inFlight: make(chan struct{}, cfg.MaxInFlight), limiter: newLimiter(cfg.Rate, cfg.Limits.Batch), metrics: m, now: time.Now,
	}
	if s.spool == nil && in.timeout >= cfg.Kafka.PublishTimeout {
		in.timeout = 0
	}
	s.handler = &handler{
		intake: in, decoder: decoder, keys: keys, gateway: gw, openAPI: document, ready: s.readiness,
		maxBody: cfg.MaxBody, bodies: semaphore.NewWeighted(int64(cfg.MaxBodies)), unpackers: newUnpackers(),
	}
	if s.handler.otlp, err = newOTLP(s.handler, tel.Meter); err != nil {
		return nil, err
	}
	s.server = server.New(cfg.Server, keys, s.Ready, tel,
		grpc.ForceServerCodecV2(gateway.Codec()), grpc.UnknownServiceHandler(gw.ServeGRPC))
	collectorv1.RegisterCollectorServiceServer(s.server.GRPC(), &grpcService{intake: in})
	s.handler.otlp.Register(s.server.GRPC())
	return s, nil
}

// Ready is nil while the collector takes requests. Kafka being away does not
// change it: then requests get a 503 that says so, which no other collector
// could do better.
func (s *Service) Ready(context.Context) error { return s.readiness() }

func (s *Service) readiness() error {
	switch {
	case s.draining.Load():
		return errors.New("the collector is stopping")
	case !s.serving.Load():
		return errors.New("the collector is starting")
	}
	return nil
}

// Run serves until ctx ends. Then readiness goes, DrainDelay passes, and
// requests and calls in flight finish within the server's StopTimeout.
func (s *Service) Run(ctx context.Context) (err error) {
	defer func() {
		if s.spool != nil {
			err = errors.Join(err, s.spool.Close())
		}
		err = errors.Join(err, s.gateway.Close(), s.closer.Close())
	}()
	lis, err := net.Listen("tcp", s.cfg.HTTPAddr)
	if err != nil {
		return fmt.Errorf("listen for HTTP: %w", err)
	}
	public := &http.Server{
		Handler:           server.TraceHTTP(drain(s.handler), s.tel),
		ReadHeaderTimeout: s.cfg.ReadHeaderTimeout,
		ReadTimeout:       s.cfg.ReadTimeout,
		WriteTimeout:      s.cfg.ReadTimeout + s.cfg.WriteTimeout, // it counts from the headers on
		IdleTimeout:       s.cfg.IdleTimeout,
		MaxHeaderBytes:    64 << 10,
	}
	s.serving.Store(true)
	defer s.draining.Store(true)

	g, gctx := errgroup.WithContext(ctx)
	// The gRPC server stops at the same time as the HTTP server, so that both
	// together take one StopTimeout.
	grpcCtx, stopGRPC := context.WithCancel(context.WithoutCancel(ctx))
	drainCtx, stopDraining := context.WithCancel(context.WithoutCancel(ctx))
	answered := make(chan struct{})
	g.Go(func() error {
		defer stopDraining()
		defer close(answered)
		<-gctx.Done()
		s.draining.Store(true)
		time.Sleep(s.cfg.DrainDelay)
		stopGRPC()
		stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), s.cfg.Server.StopTimeout)
		defer cancel()
		if err := public.Shutdown(stopCtx); err != nil {
			s.tel.Log.Warn("requests in flight were cut off", "after", s.cfg.Server.StopTimeout)
			return public.Close()
		}
		return nil
	})
	g.Go(func() error { return s.server.Run(grpcCtx, answered) })
	if s.spool != nil {
		g.Go(func() error {
			s.spool.run(drainCtx)
			return nil
		})
	}
	g.Go(func() error {
		if err := public.Serve(lis); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("serve HTTP: %w", err)
		}
		return nil
	})
	return g.Wait()
}
