package standalone

import (
	"bytes"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/honeloop/hone/pkg/embedded"
	"github.com/honeloop/hone/services/hone/internal/endpoints"
)

func TestMain(m *testing.M) {
	embedded.Main()
	os.Exit(m.Run())
}

func start(t *testing.T, dir string) *Hone {
	t.Helper()
	var screen bytes.Buffer
	h, err := Start(t.Context(), Options{Dir: dir, Progress: &screen})
	if err != nil {
		t.Fatalf("%v\n%s", err, screen.String())
	}
	return h
}

func stop(t *testing.T, h *Hone) {
	t.Helper()
	begin := time.Now()
	if err := h.Stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("the stop took %s, want less than 10 s", took)
	}
}

func TestHoneStartsStopsAndStartsAgain(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, endpoints.FileName)
	h := start(t, dir)
	if !h.NewKeys {
		t.Error("the first start made no keys")
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("endpoints: %v, %v; want mode 0600", info, err)
	}
	first, err := endpoints.Read(dir)
	if err != nil || first != h.Endpoints {
		t.Errorf("endpoints %+v, %v; want %+v", first, err, h.Endpoints)
	}
	resp, err := http.Get(first.HTTP + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("/readyz: %s", resp.Status)
	}
	if _, err := Start(t.Context(), Options{Dir: dir}); err == nil || !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) {
		t.Errorf("a second Hone on the directory: %v, want an error with the first one's process", err)
	}
	if _, err := os.Stat(file); err != nil {
		t.Errorf("the refused second Hone took the endpoints away: %v", err)
	}
	stop(t, h)
	if _, err := os.Stat(file); !os.IsNotExist(err) {
		t.Errorf("after the stop the endpoints are still there: %v", err)
	}

	h = start(t, dir)
	defer stop(t, h)
	if h.NewKeys || h.Endpoints.SecretKey != first.SecretKey {
		t.Error("the second start made new keys")
	}
}

func TestATakenPortEndsTheStartAndIsNamed(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	port := lis.Addr().(*net.TCPAddr).Port
	for name, ports := range map[string]Ports{"http": {HTTP: port}, "kafka": {Kafka: port}} {
		_, err := Start(t.Context(), Options{Dir: t.TempDir(), Ports: ports})
		if err == nil || !strings.Contains(err.Error(), strconv.Itoa(port)) || !strings.Contains(err.Error(), "--ports auto") {
			t.Errorf("%s: %v, want an error that names port %d and --ports auto", name, err, port)
		}
	}
}
