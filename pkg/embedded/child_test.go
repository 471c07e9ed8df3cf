package embedded

import (
	"path/filepath"
	"strings"
	"testing"
)

func TestAChildStartsNoChild(t *testing.T) {
	t.Setenv(childEnv, childClickHouse)
	_, err := startChild(childClickHouse, t.TempDir(), nil, []string{filepath.Join(t.TempDir(), "log")})
	if err == nil || !strings.Contains(err.Error(), "embedded.Main") {
		t.Errorf("error %v does not say what to call", err)
	}
}
