// Package server serves a service's gRPC API and its operators' endpoints.
package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/honeloop/hone/pkg/auth"
	"github.com/honeloop/hone/pkg/telemetry"
)

// Config says where a service listens.
type Config struct {
	// GRPC address of the service's API.
	GRPCAddr string `yaml:"grpc_addr" env:"GRPC_ADDR"`
	// Address of /healthz, /readyz, /metrics and /debug/pprof. Keep it private.
	AdminAddr string `yaml:"admin_addr" env:"ADMIN_ADDR"`
	// Longest time that a stop waits for calls in flight.
	StopTimeout time.Duration `yaml:"stop_timeout" env:"STOP_TIMEOUT"`
	// File of hashed keys; `hone up` and `hone keys create` write it.
	KeysFile string `yaml:"keys_file" env:"KEYS_FILE"`
	// File of the projects' settings; without it each has the defaults.
	ProjectsFile string `yaml:"projects_file" env:"PROJECTS_FILE"`
	// How often to look whether these files have changed. A key that was removed
	// works for twice as long at most.
	FilesReload time.Duration `yaml:"files_reload" env:"FILES_RELOAD"`
}

// DefaultConfig listens on the given ports of every interface for gRPC, and of
// the loopback interface for admin.
func DefaultConfig(grpcPort, adminPort int) Config {
	return Config{
		GRPCAddr:    fmt.Sprintf(":%d", grpcPort),
		AdminAddr:   fmt.Sprintf("127.0.0.1:%d", adminPort),
		StopTimeout: 5 * time.Second,
		KeysFile:    "keys.yaml",
		FilesReload: time.Second,
	}
}

// Validate joins all that is wrong.
func (c Config) Validate() error {
	var errs []error
	if c.GRPCAddr == "" {
		errs = append(errs, errors.New("grpc_addr: missing, want host:port"))
	}
	if c.AdminAddr == "" {
		errs = append(errs, errors.New("admin_addr: missing, want host:port"))
	}
	if c.StopTimeout <= 0 {
		errs = append(errs, errors.New("stop_timeout: want more than 0"))
	}
	if c.KeysFile == "" {
		errs = append(errs, errors.New("keys_file: missing, want the path of a keys file"))
	}
	if c.FilesReload <= 0 {
		errs = append(errs, errors.New("files_reload: want more than 0"))
	}
	return errors.Join(errs...)
}

// maxMessage bounds a gRPC message, in bytes.
const maxMessage = 32 << 20

// Server is a gRPC server and an admin HTTP server with one lifetime.
type Server struct {
	cfg   Config
	grpc  *grpc.Server
	keys  *auth.Keys
	ready func(context.Context) error
	tel   *telemetry.Telemetry

	stopping atomic.Bool
}

// New makes a server. Register services on GRPC() before Run. ready says
// whether the service can do its work; nil means always.
func New(cfg Config, keys *auth.Keys, ready func(context.Context) error, tel *telemetry.Telemetry, opts ...grpc.ServerOption) *Server {
	p := newPanics(tel)
	opts = append([]grpc.ServerOption{
		grpc.ChainUnaryInterceptor(p.unary, keys.UnaryInterceptor()),
		grpc.ChainStreamInterceptor(p.stream, keys.StreamInterceptor()),
		grpc.MaxRecvMsgSize(maxMessage),
	}, opts...)
	opts = append(opts, traceServer(tel)...)
	return &Server{cfg: cfg, grpc: grpc.NewServer(opts...), keys: keys, ready: ready, tel: tel}
}

// GRPC is where services register.
func (s *Server) GRPC() *grpc.Server { return s.grpc }

// Run serves, and reads the keys again when their file changes, until ctx ends.
// Then it lets calls in flight finish within StopTimeout. The admin port stays
// until drained is closed, too, so that people see that the service is stopping
// and not gone; nil stands for nothing to wait for.
func (s *Server) Run(ctx context.Context, drained <-chan struct{}) error {
	grpcLis, err := net.Listen("tcp", s.cfg.GRPCAddr)
	if err != nil {
		return fmt.Errorf("listen for gRPC: %w", err)
	}
	adminLis, err := net.Listen("tcp", s.cfg.AdminAddr)
	if err != nil {
		grpcLis.Close()
		return fmt.Errorf("listen for admin: %w", err)
	}
	admin := &http.Server{Handler: s.adminHandler(), ReadHeaderTimeout: 5 * time.Second}

	g, gctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.grpc.Serve(grpcLis) })
	g.Go(func() error {
		s.keys.Watch(gctx, s.cfg.FilesReload, s.tel.Log)
		return nil
	})
	g.Go(func() error {
		if err := admin.Serve(adminLis); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	g.Go(func() error {
		<-gctx.Done()
		s.stopping.Store(true)
		timer := time.AfterFunc(s.cfg.StopTimeout, func() {
			s.tel.Log.Warn("calls in flight were cut off", "after", s.cfg.StopTimeout)
			s.grpc.Stop()
		})
		defer timer.Stop()
		s.grpc.GracefulStop()
		if drained != nil {
			<-drained
		}
		return admin.Close()
	})
	return g.Wait()
}

func (s *Server) adminHandler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", s.serveReady)
	mux.Handle("GET /metrics", promhttp.HandlerFor(s.tel.Registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

func (s *Server) serveReady(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
	defer cancel()
	if s.stopping.Load() {
		http.Error(w, "stopping", http.StatusServiceUnavailable)
		return
	}
	if s.ready != nil {
		if err := s.ready(ctx); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
	}
	fmt.Fprintln(w, "ready")
}
