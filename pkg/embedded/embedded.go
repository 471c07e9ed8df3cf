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

// FreePorts replaces every zero of ports by a free port of the loopback
// interface, and finds a *PortTakenError where another one is not free. A free
// port can be lost before it is used; callers that pick try again.
func FreePorts(ports ...*int) error {
	// All are held until the last is found, so that no two are the same.
	for _, p := range ports {
		lis, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(*p)))
		if err != nil {
			return &PortTakenError{Port: *p, Err: err}
		}
		defer lis.Close()
		*p = lis.Addr().(*net.TCPAddr).Port
	}
	return nil
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
