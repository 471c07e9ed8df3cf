package embedded

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"github.com/ebitengine/purego"
)

//go:embed clickhouse.xml
var clickHouseConfig []byte

// ClickHouseOptions says where a ClickHouse server keeps its data and listens.
type ClickHouseOptions struct {
	// Folder of the data; created where it is missing.
	Dir string
	// Ports of the loopback interface; 0 picks a free one.
	TCPPort, HTTPPort int
	// Log file, bounded to 20 MB. Empty means clickhouse.log in Dir.
	Log string
}

// ClickHouse is a running server: ClickHouse's own engine in a child process.
// Its user `default` has no password; it listens on the loopback interface.
type ClickHouse struct {
	// Addr is the address of the native protocol, HTTPAddr that of HTTP.
	Addr, HTTPAddr string
	child          *child
	stopping       atomic.Bool
}

// pickAttempts bounds how often a start picks ports anew, when a port that was
// free is not any more.
const pickAttempts = 3

// StartClickHouse starts a server and returns once it answers.
func StartClickHouse(ctx context.Context, o ClickHouseOptions) (*ClickHouse, error) {
	picks := o.TCPPort == 0 || o.HTTPPort == 0
	for attempt := 1; ; attempt++ {
		c, err := startClickHouse(ctx, o)
		if err == nil {
			return c, nil
		}
		if !picks || attempt == pickAttempts || !pickAgain(ctx, err) {
			return nil, fmt.Errorf("start ClickHouse: %w", err)
		}
	}
}

// pickAgain says whether other ports may help after err.
func pickAgain(ctx context.Context, err error) bool {
	_, taken := errors.AsType[*PortTakenError](err) // a wanted one, not a picked one
	return ctx.Err() == nil && !taken && !errors.Is(err, ErrNotSetUp)
}

func startClickHouse(ctx context.Context, o ClickHouseOptions) (*ClickHouse, error) {
	lib := SharedLibrary("clickhouse", "libchdb")
	if err := cached(lib); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create data folder: %w", err)
	}
	config := filepath.Join(dir, "config.xml")
	if err := os.WriteFile(config, clickHouseConfig, 0o600); err != nil {
		return nil, fmt.Errorf("write configuration: %w", err)
	}
	log := o.Log
	if log == "" {
		log = filepath.Join(dir, "clickhouse.log")
	}
	if log, err = filepath.Abs(log); err != nil {
		return nil, err
	}
	if err := FreePorts(&o.TCPPort, &o.HTTPPort); err != nil {
		return nil, err
	}

	child, err := startChild(childClickHouse, dir, nil, []string{log + ".start", log},
		lib, "clickhouse",
		"--config-file="+config,
		"--path="+dir,
		"--logger.log="+log,
		"--log-level=warning",
		"--listen_host=127.0.0.1",
		fmt.Sprintf("--tcp_port=%d", o.TCPPort),
		fmt.Sprintf("--http_port=%d", o.HTTPPort),
		// The last query lasts as long as standard input does.
		"--query=SYSTEM START LISTEN TCP; SYSTEM START LISTEN HTTP; SELECT count() FROM file('-', 'LineAsString')",
	)
	if err != nil {
		return nil, err
	}
	c := &ClickHouse{Addr: Loopback(o.TCPPort), HTTPAddr: Loopback(o.HTTPPort), child: child}
	if err := child.awaitReady(ctx, c.ping); err != nil {
		return nil, errors.Join(err, stopNow(child))
	}
	go c.watch()
	return c, nil
}

// After refusals in a row, watchEvery apart, a server counts as dead.
const (
	watchEvery = time.Second
	refusals   = 3
)

// watch kills a server that no longer listens. After a fatal error, such as a
// client that dies in the middle of an INSERT, the engine closes its ports but
// the process stays, and nobody would start it again. A server that is busy or
// paused still accepts connections.
func (c *ClickHouse) watch() {
	for refused := 0; refused < refusals; {
		select {
		case <-c.child.done:
			return
		case <-time.After(watchEvery):
		}
		conn, err := net.DialTimeout("tcp", c.Addr, watchEvery)
		switch {
		case err == nil:
			refused = 0
			_ = conn.Close() // nothing was sent
		case errors.Is(err, syscall.ECONNREFUSED):
			refused++
		}
	}
	if !c.stopping.Load() { // else it ends by itself, and Stop sees to that
		c.child.killFor("it no longer listens on " + c.Addr)
	}
}

// stopNow stops a child that did not become ready.
func stopNow(c *child) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return c.stop(ctx)
}

// ping asks both protocols' ports. HTTP starts to listen last.
func (c *ClickHouse) ping(ctx context.Context) error {
	if err := getOK(ctx, "http://"+c.HTTPAddr+"/ping"); err != nil {
		return err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", c.Addr)
	if err != nil {
		return err
	}
	return conn.Close()
}

func getOK(ctx context.Context, url string) error {
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
	return nil
}

// Done is closed when the process has ended, whether by Stop or by itself.
func (c *ClickHouse) Done() <-chan struct{} { return c.child.done }

// Err is why the process ended; nil while it runs.
func (c *ClickHouse) Err() error { return c.child.ended() }

// PID is the process's id, and that of its process group.
func (c *ClickHouse) PID() int { return c.child.cmd.Process.Pid }

// Stop ends the server cleanly, or by force when ctx ends before that.
func (c *ClickHouse) Stop(ctx context.Context) error {
	c.stopping.Store(true)
	return c.child.stop(ctx)
}

// serveClickHouse runs in the child: it loads the engine and serves until
// standard input closes.
func serveClickHouse(lib string, args []string) error {
	handle, err := purego.Dlopen(lib, purego.RTLD_NOW|purego.RTLD_GLOBAL)
	if err != nil {
		return fmt.Errorf("load %s: %w", lib, err)
	}
	var cmdline func(argc int32, argv unsafe.Pointer) uintptr
	purego.RegisterLibFunc(&cmdline, handle, "chdb_query_cmdline")

	argv := make([]*byte, len(args)+1) // ends with a nil, as C's argv does
	var pinned runtime.Pinner
	defer pinned.Unpin()
	for i, arg := range args {
		argv[i] = &append([]byte(arg), 0)[0]
		pinned.Pin(argv[i])
	}
	pinned.Pin(&argv[0])
	// It prints its own errors; what it returns says nothing about them.
	cmdline(int32(len(args)), unsafe.Pointer(&argv[0]))
	return nil
}
