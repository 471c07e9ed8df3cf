// Package repotest finds files of the checkout for tests.
package repotest

import (
	"os"
	"path/filepath"
	"testing"
)

// Root is the top folder of the checkout.
func Root(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.work")); err == nil {
			return dir
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			t.Fatal("no go.work above the test: run it from a checkout")
		}
		dir = parent
	}
}

// SharedData is a file of the data that lies beside the checkout. It fails the
// test where the file is missing.
func SharedData(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(Root(t), "..", "shared", "data", filepath.FromSlash(name))
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("test data is missing: want %s in ../shared/data beside the checkout: %v", name, err)
	}
	return path
}
