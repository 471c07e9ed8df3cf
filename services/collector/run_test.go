package collector

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/honeloop/hone/pkg/auth"
	"github.com/honeloop/hone/pkg/config"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/telemetry"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func freeAddr(t *testing.T) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	return lis.Addr().String()
}

// run starts a collector on free ports. stop ends it and gives Run's error.
func run(t *testing.T, change func(*Config)) (f *fixture, stop func() error) {
	t.Helper()
	f = newFixture(t, func(c *Config) {
		c.HTTPAddr, c.Server.GRPCAddr, c.Server.AdminAddr = freeAddr(t), freeAddr(t), freeAddr(t)
		if change != nil {
			change(c)
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f.Run(ctx) }()
	eventually(t, "ready", func() bool { return f.Ready(ctx) == nil })
	return f, func() error {
		cancel()
		return <-done
	}
}

func TestStopLetsRequestsInFlightFinish(t *testing.T) {
	f, stop := run(t, func(c *Config) { c.DrainDelay = 200 * time.Millisecond })
	entered, leave := make(chan struct{}), make(chan struct{})
	f.memory.do = func(context.Context, []stage.Record) error {
		close(entered)
		<-leave
		return nil
	}
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	do := func(method, path, body string) (int, error) {
		req, err := http.NewRequest(method, "http://"+f.cfg.HTTPAddr+path, strings.NewReader(body))
		if err != nil {
			return 0, err
		}
		req.Header.Set("Authorization", "Bearer "+f.secret)
		resp, err := client.Do(req)
		if err != nil {
			return 0, err
		}
		defer resp.Body.Close()
		_, err = io.Copy(io.Discard, resp.Body)
		return resp.StatusCode, err
	}
	answered := make(chan string, 1)
	go func() {
		status, err := do("POST", "/v1/events", good)
		answered <- fmt.Sprint(status, err)
	}()
	<-entered
	stopped := make(chan error, 1)
	go func() { stopped <- stop() }()
	// Readiness goes while requests are still taken.
	eventually(t, "readiness goes", func() bool { return f.Ready(context.Background()) != nil })
	if status, err := do("GET", "/readyz", ""); status != 503 || err != nil {
		t.Errorf("readyz while draining: %d, %v", status, err)
	}
	time.Sleep(f.cfg.DrainDelay + 100*time.Millisecond)
	resp, err := http.Get("http://" + f.cfg.Server.AdminAddr + "/readyz") // gRPC has stopped
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != 503 {
		t.Errorf("admin readyz says %d while a request is in flight", resp.StatusCode)
	}
	if err := resp.Body.Close(); err != nil {
		t.Error(err)
	}
	close(leave)
	if got := <-answered; got != "202 <nil>" {
		t.Errorf("the request in flight got %s", got)
	}
	if err := <-stopped; err != nil {
		t.Errorf("Run: %v", err)
	}
	if _, err := do("GET", "/healthz", ""); err == nil {
		t.Error("still listening")
	}
}

func TestStopDoesNotWaitForEver(t *testing.T) {
	f, stop := run(t, func(c *Config) { c.Server.StopTimeout = 100 * time.Millisecond })
	entered := make(chan struct{})
	leave := make(chan struct{})
	defer close(leave)
	f.memory.do = func(context.Context, []stage.Record) error {
		close(entered)
		<-leave
		return nil
	}
	go func() {
		req, err := http.NewRequest("POST", "http://"+f.cfg.HTTPAddr+"/v1/events", strings.NewReader(good))
		if err != nil {
			return
		}
		req.Header.Set("Authorization", "Bearer "+f.secret)
		if resp, err := http.DefaultClient.Do(req); err == nil {
			resp.Body.Close()
		}
	}()
	<-entered
	start := time.Now()
	if err := stop(); err != nil {
		t.Errorf("Run: %v", err)
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestSlowRequestsAreCutOff(t *testing.T) {
	f, stop := run(t, func(c *Config) {
		c.ReadHeaderTimeout, c.ReadTimeout = 100*time.Millisecond, 200*time.Millisecond
	})
	defer func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	}()
	for name, start := range map[string]string{
		"headers": "POST /v1/events HTTP/1.1\r\nHost: x\r\n",
		"body":    "POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + f.secret + "\r\nContent-Length: 1000000\r\n\r\n{",
	} {
		conn, err := net.Dial("tcp", f.cfg.HTTPAddr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, start); err != nil {
			t.Fatal(err)
		}
		if err := conn.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(conn)
		if err != nil {
			t.Errorf("%s: not cut off: %v", name, err)
		}
		if name == "body" && !bytes.Contains(answer, []byte("400 Bad Request")) {
			t.Errorf("%s: got %q", name, answer)
		}
	}
	if !f.handler.bodies.TryAcquire(int64(f.cfg.MaxBodies)) {
		t.Error("bodies were not given back")
	}
}

func TestTakenPortIsAnError(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	for name, change := range map[string]func(*Config){
		"HTTP": func(c *Config) { c.HTTPAddr = lis.Addr().String() },
		"gRPC": func(c *Config) { c.Server.GRPCAddr = lis.Addr().String() },
	} {
		f := newFixture(t, func(c *Config) {
			c.HTTPAddr, c.Server.GRPCAddr, c.Server.AdminAddr = freeAddr(t), freeAddr(t), freeAddr(t)
			change(c)
		})
		if err := f.Run(context.Background()); err == nil || !strings.Contains(err.Error(), "listen for "+name) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestNewReadsConfigAndKeys(t *testing.T) {
	cfg := DefaultConfig()
	t.Setenv("HONE_COLLECTOR_KAFKA_BROKERS", "a:1,b:2")
	t.Setenv("HONE_COLLECTOR_UPSTREAMS_ROUTER", "router:9095")
	t.Setenv("HONE_COLLECTOR_LIMITS_CLOCK_SKEW", "1m")
	t.Setenv("HONE_COLLECTOR_SERVER_KEYS_FILE", filepath.Join(t.TempDir(), "keys.yaml"))
	if err := config.Load(&cfg, "", "collector", "HONE_COLLECTOR_"); err != nil {
		t.Fatal(err)
	}
	if len(cfg.Kafka.Brokers) != 2 || cfg.Upstreams.Router != "router:9095" || cfg.Limits.ClockSkew != time.Minute {
		t.Errorf("got %+v", cfg)
	}
	if _, err := New(t.Context(), cfg, telemetry.Discard()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without a keys file: %v", err)
	}
	key, _, err := auth.Mint("p", auth.Secret)
	if err != nil {
		t.Fatal(err)
	}
	if err := auth.WriteKeys(cfg.Server.KeysFile, []auth.Key{key}); err != nil {
		t.Fatal(err)
	}
	s, err := New(t.Context(), cfg, telemetry.Discard())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.gateway.Close(); err != nil {
		t.Error(err)
	}
	if err := s.closer.Close(); err != nil {
		t.Error(err)
	}
}

func TestConfigErrorsNameTheirKeys(t *testing.T) {
	err := Config{DrainDelay: -1}.Validate()
	for _, key := range []string{
		"http_addr", "server.grpc_addr", "kafka.brokers", "upstreams.router", "limits.batch", "max_body", "max_bodies", "max_in_flight", "publish_timeout",
		"gateway_timeout", "read_header_timeout", "read_timeout", "write_timeout", "idle_timeout", "drain_delay",
	} {
		if err == nil || !strings.Contains(err.Error(), key+":") {
			t.Errorf("%v does not name %s", err, key)
		}
	}
}

// Many clients, Python's among them, send all of a body before they read.
func TestAClientThatSendsFirstAndReadsLaterSeesTheAnswer(t *testing.T) {
	f, stop := run(t, nil)
	conn, err := net.Dial("tcp", f.cfg.HTTPAddr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const size = 50 << 20
	if _, err := fmt.Fprintf(conn, "POST /v1/events HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n", f.secret, size); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(conn, &endless{size}); err != nil {
		t.Fatalf("the collector does not take the body that it refuses: %v", err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("status %d, want 413", resp.StatusCode)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}
