package projects

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func write(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "projects.yaml")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReadRefusesWithTheKey(t *testing.T) {
	tests := []struct{ name, file, want string }{
		{"empty", "", "is empty"},
		{"unknown part", "default: {}", "default"},
		{"unknown section", "projects: {shop: {sinals: {}}}", "projects.shop"},
		{"no YAML", "projects: [", "yaml"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Read(write(t, tt.file))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestAProjectWithoutASectionHasTheDefaults(t *testing.T) {
	p, err := Read(write(t, "defaults: {}\nprojects: {shop: {}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if p.Settings("other") == nil || p.Settings("shop") == nil {
		t.Error("no settings")
	}
	if p, err = Read(""); err != nil || p.Settings("any") == nil {
		t.Errorf("without a file: %v", err)
	}
}
