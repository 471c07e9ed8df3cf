package telemetry_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/honeloop/hone/pkg/repotest"
)

// TestReadmeListsEveryMetric keeps names stable: who changes one must say so.
func TestReadmeListsEveryMetric(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	listed := map[string]bool{}
	for _, m := range regexp.MustCompile("`(hone_[a-z_]+)`").FindAllStringSubmatch(string(readme), -1) {
		listed[m[1]] = false
	}
	// An instrument's name is followed by an option or a description.
	instrument := regexp.MustCompile(`"(hone(?:\.[a-z_]+){2,})",\s*(?:metric\.|"[A-Z])`)
	root := repotest.Root(t)
	for _, module := range []string{"pkg", "services"} {
		err := filepath.WalkDir(filepath.Join(root, module), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			source, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			for _, m := range instrument.FindAllSubmatch(source, -1) {
				name := strings.ReplaceAll(string(m[1]), ".", "_")
				found := false
				for _, suffix := range []string{"", "_total", "_seconds", "_bytes", "_bytes_total"} {
					if _, ok := listed[name+suffix]; ok {
						listed[name+suffix], found = true, true
					}
				}
				if !found {
					t.Errorf("pkg/telemetry/README.md does not list %s, of %s", m[1], path)
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, exists := range listed {
		if !exists {
			t.Errorf("pkg/telemetry/README.md lists %s, which nothing counts", name)
		}
	}
}
