package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/honeloop/hone/pkg/embedded"
	"github.com/honeloop/hone/services/hone/internal/cli"
)

// childEnv says what this binary runs as, where it was started by a run.
const childEnv = "HONE_FAULTS_CHILD"

const (
	childHone   = "hone"   // arguments as those of hone
	childBroker = "broker" // arguments: folder, port
)

// Main must come first in main, and in TestMain of tests that call Run. Where
// the process is a child of a run, Main runs it and exits; else it returns.
func Main() {
	embedded.Main()
	kind := os.Getenv(childEnv)
	if kind == "" {
		return
	}
	go func() { // whoever started it is gone
		_, _ = io.Copy(io.Discard, os.Stdin) // its end is what counts, not how
		os.Exit(3)
	}()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := os.Unsetenv(childEnv)
	switch {
	case err != nil:
	case kind == childHone:
		err = cli.New().ExecuteContext(ctx)
	default:
		err = serveBroker(ctx, os.Args[1], os.Args[2])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, kind+":", err)
		os.Exit(1)
	}
	os.Exit(0)
}

func serveBroker(ctx context.Context, dir, port string) error {
	n, err := strconv.Atoi(port)
	if err != nil {
		return err
	}
	b, err := embedded.StartBroker(ctx, embedded.BrokerOptions{Dir: dir, Port: n})
	if err != nil {
		return err
	}
	<-ctx.Done()
	stopping, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return b.Stop(stopping)
}

// running is a process group.
type running struct {
	pid  int
	done <-chan struct{}
	why  func() error // once done
	stop func(context.Context) error
}

// part is one process that a run kills and starts again.
type part struct {
	name string
	// start returns once the process runs; for a store, once it answers.
	start func(context.Context) (*running, error)
	// died hears that it ended though nobody killed it. It is started again; failed
	// is set where that failed too.
	died func(p *part, why error, failed bool)
	// A service of Hone, which must never end by itself.
	service bool
	// As long as it is watched, which is longer than any fault.
	living context.Context

	fault sync.Mutex // one fault at a time

	mu      sync.Mutex
	now     *running
	killing bool
}

// startTries bounds how often a start is tried before the run fails.
const startTries = 5

func (p *part) up(ctx context.Context) error {
	var err error
	for range startTries {
		var r *running
		if r, err = p.start(ctx); err == nil {
			p.mu.Lock()
			p.now, p.killing = r, false
			p.mu.Unlock()
			go p.watch(p.living, r)
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(time.Second):
		}
	}
	return fmt.Errorf("start %s, tried %d times: %w", p.name, startTries, err)
}

// watch starts a process again that ended by itself, which is a fault of its own.
func (p *part) watch(ctx context.Context, r *running) {
	select {
	case <-ctx.Done():
		return
	case <-r.done:
	}
	p.fault.Lock()
	defer p.fault.Unlock()
	p.mu.Lock()
	ours := p.now != r || p.killing
	p.mu.Unlock()
	if ours || ctx.Err() != nil {
		return
	}
	p.died(p, r.why(), false)
	if err := p.up(ctx); err != nil && ctx.Err() == nil {
		p.died(p, err, true)
	}
}

func (p *part) signal(s syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := syscall.Kill(-p.now.pid, s); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("signal %s: %w", p.name, err)
	}
	return nil
}

// kill ends it with SIGKILL.
func (p *part) kill() error {
	p.mu.Lock()
	p.killing = true
	r := p.now
	p.mu.Unlock()
	if err := p.signal(syscall.SIGKILL); err != nil {
		return err
	}
	<-r.done
	return nil
}

// down ends it in order.
func (p *part) down(ctx context.Context) error {
	p.mu.Lock()
	p.killing = true
	r := p.now
	p.mu.Unlock()
	if r == nil {
		return nil
	}
	if err := r.stop(ctx); err != nil {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	return nil
}

// child starts this binary again; what it prints is appended to a log.
func child(kind, log string, env []string, args ...string) (*running, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	out, err := os.OpenFile(log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	cmd := exec.Command(exe, args...)
	cmd.Env = append(append(os.Environ(), env...), childEnv+"="+kind)
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := cmd.StdinPipe() // open as long as this process lives
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	done := make(chan struct{})
	var ended error
	go func() {
		ended = cmd.Wait()
		_ = stdin.Close() // Wait has closed it
		close(done)
	}()
	r := &running{pid: cmd.Process.Pid, done: done}
	r.why = func() error {
		<-done
		text, _ := os.ReadFile(log) // only to help
		return fmt.Errorf("ended by itself: %v; the end of %s: %s", ended, log, text[max(0, len(text)-500):])
	}
	r.stop = func(ctx context.Context) error {
		_ = cmd.Process.Signal(syscall.SIGTERM) // an error means that it has ended
		select {
		case <-done:
			return ended
		case <-ctx.Done():
			_ = cmd.Process.Kill()
			<-done
			return errors.New("did not end in time and was killed")
		}
	}
	return r, nil
}

// system is all the parts.
type system struct {
	dir    string
	parts  []*part // in the order of their start
	byName map[string]*part

	web, collector, collectorAdmin, kafka, clickhouse, weaviate, weaviateGRPC string
	key                                                                       string
	unmount                                                                   func() error
	fullDisk                                                                  bool // the spool has a small disk of its own
	// How often the embedder looks for cases to merge and split, from its next start
	// on; 0 for never.
	pass time.Duration
	// How alike the signals of a case must be, as settings of the embedder.
	alike []string
}

// services in the order of their start.
func services() []string { return []string{"curator", "router", "embedder", "enricher", "collector"} }

// newSystem prepares all parts. A spool that is to be small can be full.
func newSystem(dir, key, keys, projects, policy string, smallSpool bool, died func(*part, error, bool)) (*system, error) {
	s := &system{dir: dir, key: key, byName: map[string]*part{}}
	var broker, chTCP, chHTTP, wv, wvGRPC, web int
	ports := []*int{&broker, &chTCP, &chHTTP, &wv, &wvGRPC, &web}
	grpc, admin := map[string]*int{}, map[string]*int{}
	for _, name := range services() {
		grpc[name], admin[name] = new(int), new(int)
		ports = append(ports, grpc[name], admin[name])
	}
	if err := embedded.FreePorts(ports...); err != nil {
		return nil, err
	}
	s.kafka, s.clickhouse, s.web = embedded.Loopback(broker), embedded.Loopback(chTCP), "http://"+embedded.Loopback(web)
	s.weaviate, s.weaviateGRPC = "http://"+embedded.Loopback(wv), embedded.Loopback(wvGRPC)
	s.collector, s.collectorAdmin = embedded.Loopback(*grpc["collector"]), "http://"+embedded.Loopback(*admin["collector"])

	spool := filepath.Join(dir, "spool")
	if err := os.MkdirAll(spool, 0o700); err != nil {
		return nil, err
	}
	spoolMax := 1 << 30
	s.unmount = func() error { return nil }
	if smallSpool {
		spoolMax = 64 << 20 // more than the disk has
		if s.unmount, s.fullDisk = mountSmall(spool); !s.fullDisk {
			spoolMax = 4 << 20
		}
	}

	add := func(name string, start func(context.Context) (*running, error)) {
		p := &part{name: name, start: start, died: died}
		s.parts, s.byName[name] = append(s.parts, p), p
	}
	log := func(name string) string { return filepath.Join(dir, "logs", name+".log") }
	add("broker", func(ctx context.Context) (*running, error) {
		r, err := child(childBroker, log("broker"), nil, filepath.Join(dir, "broker"), strconv.Itoa(broker))
		if err != nil {
			return nil, err
		}
		return r, r.await(ctx, func() error {
			conn, err := net.DialTimeout("tcp", s.kafka, time.Second)
			if err != nil {
				return err
			}
			return conn.Close()
		})
	})
	add("clickhouse", func(ctx context.Context) (*running, error) {
		c, err := embedded.StartClickHouse(ctx, embedded.ClickHouseOptions{Dir: filepath.Join(dir, "clickhouse"), TCPPort: chTCP, HTTPPort: chHTTP, Log: log("clickhouse")})
		if err != nil {
			return nil, err
		}
		return &running{pid: c.PID(), done: c.Done(), why: c.Err, stop: c.Stop}, nil
	})
	add("weaviate", func(ctx context.Context) (*running, error) {
		w, err := embedded.StartWeaviate(ctx, embedded.WeaviateOptions{Dir: filepath.Join(dir, "weaviate"), Port: wv, GRPCPort: wvGRPC, Log: log("weaviate")})
		if err != nil {
			return nil, err
		}
		return &running{pid: w.PID(), done: w.Done(), why: w.Err, stop: w.Stop}, nil
	})
	for _, name := range services() {
		env := s.env(name, "SERVER_KEYS_FILE="+keys, "SERVER_PROJECTS_FILE="+projects, "SERVER_GRPC_ADDR="+embedded.Loopback(*grpc[name]), "SERVER_ADMIN_ADDR="+embedded.Loopback(*admin[name]),
			"HTTP_ADDR="+embedded.Loopback(web), "EMBEDDING_PROVIDER=hash", "SPOOL_ENABLED=true", "SPOOL_DIR="+spool, "SPOOL_MAX_BYTES="+strconv.Itoa(spoolMax),
			"TIMERS_EVERY=0s", // the judge knows of no timers
			"POLICY_FILE="+policy,
			"UPSTREAMS_TRAIL="+embedded.Loopback(*grpc["enricher"]), "UPSTREAMS_EMBEDDER="+embedded.Loopback(*grpc["embedder"]),
			"UPSTREAMS_ROUTER="+embedded.Loopback(*grpc["router"]), "UPSTREAMS_CURATOR="+embedded.Loopback(*grpc["curator"]))
		add(name, func(context.Context) (*running, error) {
			return child(childHone, log(name), append(s.env(name, append(s.alike, "CASES_PASS_INTERVAL="+s.pass.String())...), env...), name)
		})
		s.byName[name].service = true
	}
	return s, nil
}

// env configures one section.
func (s *system) env(section string, more ...string) []string {
	var out []string
	for _, kv := range append(more, "KAFKA_BROKERS="+s.kafka, "CLICKHOUSE_ADDR="+s.clickhouse, "WEAVIATE_URL="+s.weaviate, "WEAVIATE_GRPC_ADDR="+s.weaviateGRPC) {
		out = append(out, "HONE_"+strings.ToUpper(section)+"_"+kv)
	}
	return out
}

// start starts the stores, migrates, and starts the services.
func (s *system) start(ctx context.Context) error {
	for _, p := range s.parts {
		if p.name == services()[0] {
			r, err := child(childHone, filepath.Join(s.dir, "logs", "migrate.log"), s.env("migrate"), "migrate")
			if err != nil {
				return err
			}
			<-r.done
			if err := r.stop(ctx); err != nil {
				return fmt.Errorf("migrate: %w", r.why())
			}
		}
		p.living = ctx
		if err := p.up(ctx); err != nil {
			return err
		}
	}
	deadline := time.Now().Add(time.Minute)
	for err := get(ctx, s.web+"/readyz", nil); err != nil; err = get(ctx, s.web+"/readyz", nil) {
		if time.Now().After(deadline) || ctx.Err() != nil {
			return fmt.Errorf("the collector is not ready: %w", err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return nil
}

// again stops a part in order and starts it again.
func (s *system) again(ctx context.Context, name string) error {
	p := s.byName[name]
	p.fault.Lock()
	defer p.fault.Unlock()
	stopping, cancel := context.WithTimeout(ctx, stopTimeout)
	defer cancel()
	if err := p.down(stopping); err != nil {
		return err
	}
	return p.up(ctx)
}

// stop ends all parts in order, services first. Each must end cleanly.
func (s *system) stop(ctx context.Context) error {
	var errs []error
	for i := len(s.parts) - 1; i >= 0; i-- {
		errs = append(errs, s.parts[i].down(ctx))
	}
	return errors.Join(append(errs, s.unmount())...)
}

// await polls ready until it succeeds or the process ends.
func (r *running) await(ctx context.Context, ready func() error) error {
	for {
		err := ready()
		if err == nil {
			return nil
		}
		select {
		case <-r.done:
			return r.why()
		case <-ctx.Done():
			return fmt.Errorf("not ready: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// get reads an answer of status 200 into body, which may be nil.
func get(ctx context.Context, url string, body *bytes.Buffer) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	if body == nil {
		return nil
	}
	_, err = io.Copy(body, resp.Body)
	return err
}
