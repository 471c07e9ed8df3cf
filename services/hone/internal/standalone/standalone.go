// Package standalone runs all of Hone on one machine: broker, ClickHouse and
// Weaviate, and the five services in this process.
package standalone

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/honeloop/hone/pkg/config"
	"github.com/honeloop/hone/pkg/embedded"
	"github.com/honeloop/hone/pkg/telemetry"
	"github.com/honeloop/hone/services/collector"
	"github.com/honeloop/hone/services/curator"
	"github.com/honeloop/hone/services/embedder"
	"github.com/honeloop/hone/services/enricher"
	"github.com/honeloop/hone/services/hone/internal/endpoints"
	"github.com/honeloop/hone/services/hone/internal/migrate"
	"github.com/honeloop/hone/services/router"
)

// Options of a standalone Hone.
type Options struct {
	Dir   string // of all data; created where it is missing
	Ports Ports
	// Gets a line for each part that became ready, died or was restarted. Nil
	// means nobody looks.
	Progress io.Writer
}

// Ports of the loopback interface; 0 picks a free one. The collector's listen
// on all interfaces.
type Ports struct {
	HTTP, GRPC, Kafka, ClickHouse, ClickHouseHTTP, Weaviate, WeaviateGRPC int
}

// DefaultPorts are the usual ones of each part.
func DefaultPorts() Ports {
	return Ports{HTTP: 8080, GRPC: 9090, Kafka: 9092, ClickHouse: 9000, ClickHouseHTTP: 8123, Weaviate: 8081, WeaviateGRPC: 50051}
}

// partitions is the number of partitions of each topic that is keyed by
// session (DECISIONS.md 35).
const partitions = 1

// stopTimeout bounds a stop.
const stopTimeout = 9 * time.Second

// Hone is a running standalone Hone.
type Hone struct {
	Endpoints endpoints.Endpoints
	// NewKeys says that the project and its keys were made by this start.
	NewKeys bool

	dir      string
	progress *printer
	log      *embedded.LogFile
	tel      *telemetry.Telemetry
	lock     *os.File
	broker   *embedded.Broker
	children []*supervised
	services []*running
	failed   chan error // the first service that ended by itself
}

// Start starts everything in order and returns when all of it is ready. What
// it started is stopped where it fails.
func Start(ctx context.Context, o Options) (_ *Hone, err error) {
	if err := os.MkdirAll(filepath.Join(o.Dir, "logs"), 0o700); err != nil {
		return nil, fmt.Errorf("create %s: %w", o.Dir, err)
	}
	h := &Hone{dir: o.Dir, progress: &printer{w: o.Progress}, failed: make(chan error, 1)}
	defer func() {
		if taken, ok := errors.AsType[*embedded.PortTakenError](err); ok {
			err = fmt.Errorf("%w; stop what uses port %d, or pick free ports with --ports auto", err, taken.Port)
		}
		if err != nil {
			err = errors.Join(err, h.stop())
		}
	}()
	if h.lock, err = lockDir(o.Dir); err != nil {
		return nil, err
	}
	if err := endpoints.Remove(o.Dir); err != nil { // left by a crash
		return nil, err
	}
	// All at once and before anything starts: a taken port is found at once, and
	// no two parts pick the same.
	p := &o.Ports
	if err := embedded.FreePorts(&p.HTTP, &p.GRPC, &p.Kafka, &p.ClickHouse, &p.ClickHouseHTTP, &p.Weaviate, &p.WeaviateGRPC); err != nil {
		return nil, err
	}
	if h.log, err = embedded.OpenLogFile(filepath.Join(o.Dir, "logs", "hone.log")); err != nil {
		return nil, err
	}
	tel, err := telemetry.New(h.log, slog.LevelInfo)
	if err != nil {
		return nil, err
	}
	h.tel = tel
	h.progress.logTo(tel.Log)
	creds, made, err := loadCredentials(o.Dir)
	if err != nil {
		return nil, err
	}
	if err := ensureProjects(o.Dir); err != nil {
		return nil, err
	}
	h.NewKeys = made

	cfg := newConfigs(o.Dir, creds)
	if err := h.startParts(ctx, o, creds, cfg); err != nil {
		return nil, err
	}
	// For its models, above all.
	if err := config.Load(&cfg.embedder, "", "embedder", "HONE_EMBEDDER_"); err != nil {
		return nil, err
	}
	if err := h.step("schema", func() error { return migrate.Run(ctx, cfg.migrate) }); err != nil {
		return nil, err
	}
	if err := cfg.listen(o.Ports); err != nil {
		return nil, err
	}
	// In the order in which data comes back: who is asked starts before who asks.
	for _, s := range []struct {
		name string
		make func(tel *telemetry.Telemetry) (service, error)
	}{
		{"curator", func(tel *telemetry.Telemetry) (service, error) { return curator.New(ctx, cfg.curator, tel) }},
		{"router", func(tel *telemetry.Telemetry) (service, error) { return router.New(ctx, cfg.router, tel) }},
		{"embedder", func(tel *telemetry.Telemetry) (service, error) { return embedder.New(ctx, cfg.embedder, tel) }},
		{"enricher", func(tel *telemetry.Telemetry) (service, error) { return enricher.New(ctx, cfg.enricher, tel) }},
		{"collector", func(tel *telemetry.Telemetry) (service, error) { return collector.New(ctx, cfg.collector, tel) }},
	} {
		svc, err := s.make(tel.Named(s.name))
		if err != nil {
			return nil, fmt.Errorf("start %s: %w", s.name, err)
		}
		h.services = append(h.services, h.run(s.name, svc))
	}
	for _, s := range h.services {
		if err := h.step(s.name, func() error { return s.awaitReady(ctx) }); err != nil {
			return nil, err
		}
	}
	h.Endpoints = cfg.endpoints(creds)
	return h, endpoints.Write(o.Dir, h.Endpoints)
}

// startParts starts what the services need, the stores at once.
func (h *Hone) startParts(ctx context.Context, o Options, creds credentials, cfg *configs) error {
	data := func(name string) string { return filepath.Join(o.Dir, name) }
	logs := func(name string) string { return filepath.Join(o.Dir, "logs", name+".log") }
	// The broker alone: others pick ports of their own, which must not be its.
	err := h.step("broker", func() (err error) {
		h.broker, err = embedded.StartBroker(ctx, embedded.BrokerOptions{
			Dir: data("kafka"), Port: o.Ports.Kafka, Log: logs("kafka"),
			SyncWrites: true, // no replica: what a 202 promises is on this disk or nowhere
		})
		if err == nil {
			cfg.broker(h.broker.Addr)
		}
		return err
	})
	if err != nil {
		return err
	}
	var g errgroup.Group
	clickhouse := newSupervised("clickhouse", h.progress)
	weaviate := newSupervised("weaviate", h.progress)
	h.children = []*supervised{clickhouse, weaviate}
	g.Go(func() error {
		return h.step("clickhouse", func() error {
			options := embedded.ClickHouseOptions{Dir: data("clickhouse"), TCPPort: o.Ports.ClickHouse, HTTPPort: o.Ports.ClickHouseHTTP, Log: logs("clickhouse")}
			return clickhouse.start(ctx, func(ctx context.Context) (part, error) {
				c, err := embedded.StartClickHouse(ctx, options)
				if err != nil {
					return nil, err
				}
				cfg.clickhouse(c.Addr, c.HTTPAddr)
				return c, nil
			})
		})
	})
	g.Go(func() error {
		return h.step("weaviate", func() error {
			options := embedded.WeaviateOptions{Dir: data("weaviate"), Port: o.Ports.Weaviate, GRPCPort: o.Ports.WeaviateGRPC, APIKey: creds.WeaviateKey, Log: logs("weaviate")}
			return weaviate.start(ctx, func(ctx context.Context) (part, error) {
				w, err := embedded.StartWeaviate(ctx, options)
				if err != nil {
					return nil, err
				}
				cfg.weaviate(w.URL, w.GRPCAddr)
				return w, nil
			})
		})
	})
	return g.Wait()
}

// step does one step of the start and says how long it took.
func (h *Hone) step(name string, do func() error) error {
	start := time.Now()
	if err := do(); err != nil {
		return fmt.Errorf("start %s: %w", name, err)
	}
	h.progress.printf("%-10s ready after %s\n", name, time.Since(start).Round(10*time.Millisecond))
	return nil
}

// Wait blocks until ctx ends or a service ends by itself, which is an error.
func (h *Hone) Wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case err := <-h.failed:
		return err
	}
}

// Stop stops everything in the order of the data, so that what was accepted
// comes as far as it can, within 10 s.
func (h *Hone) Stop() error { return h.stop() }

func (h *Hone) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	var errs []error
	if h.lock != nil {
		errs = append(errs, endpoints.Remove(h.dir))
	}
	// The collector first: nothing new comes in. The others drain together.
	for i := len(h.services) - 1; i >= 0; i-- {
		h.services[i].cancel()
		if h.services[i].name == "collector" {
			errs = append(errs, h.services[i].wait(ctx))
		}
	}
	for _, s := range h.services {
		errs = append(errs, s.wait(ctx))
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	collect := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		errs = append(errs, err)
	}
	for _, c := range h.children {
		wg.Go(func() { collect(c.stop(ctx)) })
	}
	wg.Wait()
	if h.broker != nil {
		errs = append(errs, h.broker.Stop(ctx))
	}
	if h.tel != nil {
		h.tel.Close()
	}
	if h.log != nil {
		errs = append(errs, h.log.Close())
	}
	if h.lock != nil {
		errs = append(errs, h.lock.Close())
	}
	return errors.Join(errs...)
}

type printer struct {
	mu  sync.Mutex
	w   io.Writer
	log *slog.Logger // of hone.log, once it is open
}

func (p *printer) logTo(log *slog.Logger) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.log = log
}

// warnf writes a line to who looks, and to the log for who looks later.
func (p *printer) warnf(format string, args ...any) {
	p.printf(format+"\n", args...)
	p.mu.Lock()
	log := p.log
	p.mu.Unlock()
	if log != nil {
		log.Warn(fmt.Sprintf(format, args...))
	}
}

func (p *printer) printf(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.w != nil {
		fmt.Fprintf(p.w, format, args...)
	}
}
