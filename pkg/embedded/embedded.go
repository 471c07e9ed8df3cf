// Package embedded runs the parts that Hone stands on, on one machine and
// without containers: a broker that speaks Kafka's protocol, ClickHouse and
// Weaviate. `hone up` and tests use it; services know nothing of it.
//
// ClickHouse and Weaviate are child processes. A child ends when its standard
// input closes, so it ends with its parent, however the parent ends.
package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
)

// CacheDir is where scripts/setup puts what Hone downloads or builds once:
// HONE_CACHE, or "hone" in the user's cache directory.
func CacheDir() string {
	if dir := os.Getenv("HONE_CACHE"); dir != "" {
		return dir
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		// No home directory: a stable place that setup would name too.
		dir = os.TempDir()
	}
	return filepath.Join(dir, "hone")
}

// SharedLibrary is the path of a shared library in the cache, such as
// clickhouse/libchdb.so.
func SharedLibrary(part, name string) string {
	ext := ".so"
	if runtime.GOOS == "darwin" {
		ext = ".dylib"
	}
	return filepath.Join(CacheDir(), part, name+ext)
}

// ErrNotSetUp means that a file of the cache is missing.
var ErrNotSetUp = errors.New("run scripts/setup (make setup)")

func cached(path string) error {
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s is missing: %w", path, ErrNotSetUp)
	}
	if err != nil {
		return fmt.Errorf("look for %s: %w", path, err)
	}
	return nil
}

// PortTakenError says that a wanted port is in use.
type PortTakenError struct {
	Port int
	Err  error
}

func (e *PortTakenError) Error() string {
	return fmt.Sprintf("port %d is taken: %v", e.Port, e.Err)
}

func (e *PortTakenError) Unwrap() error { return e.Err }

// Picked ports lie below those that systems give to outgoing connections, from
// 32768 on: one of those could take a port before its server, or the server's
// next start, does.
const (
	firstPick = 10_240
	endPick   = 32_768
)

// FreePorts replaces every zero of ports by a free port of the loopback
// interface, and returns a *PortTakenError where another one is not free. A
// picked port can be lost before it is used; callers that pick try again.
func FreePorts(ports ...*int) error {
	// All are held until the last is found, so that no two are the same.
	var held []net.Listener
	defer func() {
		for _, lis := range held {
			lis.Close()
		}
	}()
	listen := func(port int) error {
		lis, err := net.Listen("tcp", Loopback(port))
		if err == nil {
			held = append(held, lis)
		}
		return err
	}
	// The wanted ones first: a pick must not take one of them.
	for _, p := range ports {
		if *p != 0 {
			if err := listen(*p); err != nil {
				return &PortTakenError{Port: *p, Err: err}
			}
		}
	}
	const attempts = 100
	for _, p := range ports {
		for attempt := 1; *p == 0; attempt++ {
			port := firstPick + rand.IntN(endPick-firstPick)
			err := listen(port)
			if err == nil {
				*p = port
			} else if attempt == attempts {
				return fmt.Errorf("find a free port: %w", err)
			}
		}
	}
	return nil
}

// Loopback is the address of a port of the loopback interface.
func Loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
