// Package embeddedtest starts embedded parts for tests.
//
// A package that uses it begins its tests with
//
//	func TestMain(m *testing.M) { embedded.Main(); os.Exit(embeddedtest.Run(m)) }
package embeddedtest

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/honeloop/hone/pkg/embedded"
)

// Limits of a start and a stop, for a busy machine.
const (
	startTimeout = 90 * time.Second
	stopTimeout  = 20 * time.Second
)

// shared are the parts of this test process. A test process is one program
// with one TestMain, so this is package state, against the habit.
var shared struct {
	sync.Mutex
	dir        string
	clickhouse *embedded.ClickHouse
	weaviate   *embedded.Weaviate
}

// Run runs the tests, stops what they started and returns the exit code. In a
// child that a part runs in it does the child's work.
func Run(m *testing.M) int {
	embedded.Main()
	code := m.Run()
	if err := stop(); err != nil {
		fmt.Fprintln(os.Stderr, "stop embedded parts:", err)
		return max(code, 1)
	}
	return code
}

func stop() error {
	shared.Lock()
	defer shared.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if shared.clickhouse != nil {
		if err := shared.clickhouse.Stop(ctx); err != nil {
			return err
		}
	}
	if shared.weaviate != nil {
		if err := shared.weaviate.Stop(ctx); err != nil {
			return err
		}
	}
	return os.RemoveAll(shared.dir) // nothing where dir is empty
}

// ClickHouse is the server of this test process, empty at first. Tests share
// it: each uses a database of its own.
func ClickHouse(t testing.TB) *embedded.ClickHouse {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.clickhouse == nil {
		ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
		defer cancel()
		c, err := embedded.StartClickHouse(ctx, embedded.ClickHouseOptions{Dir: folder(t, "clickhouse")})
		if err != nil {
			t.Fatal(err)
		}
		shared.clickhouse = c
	}
	return shared.clickhouse
}

// Weaviate is the server of this test process, empty at first and without a
// key. Tests share it: each uses tenants or classes of its own.
func Weaviate(t testing.TB) *embedded.Weaviate {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.weaviate == nil {
		ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
		defer cancel()
		w, err := embedded.StartWeaviate(ctx, embedded.WeaviateOptions{Dir: folder(t, "weaviate")})
		if err != nil {
			t.Fatal(err)
		}
		shared.weaviate = w
	}
	return shared.weaviate
}

// folder is a folder that lives as long as the process. Call it with the lock.
func folder(t testing.TB, name string) string {
	t.Helper()
	if shared.dir == "" {
		dir, err := os.MkdirTemp("", "hone-test-")
		if err != nil {
			t.Fatal(err)
		}
		shared.dir = dir
	}
	return filepath.Join(shared.dir, name)
}
