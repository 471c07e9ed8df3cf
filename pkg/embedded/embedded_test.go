package embedded_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/honeloop/hone/pkg/embedded"
	"github.com/honeloop/hone/pkg/embedded/embeddedtest"
)

// parentEnv makes this test binary a program that starts all parts, prints
// their pids and addresses, and waits to be killed.
const parentEnv = "EMBEDDED_TEST_PARENT"

func TestMain(m *testing.M) {
	embedded.Main()
	if dir := os.Getenv(parentEnv); dir != "" {
		os.Exit(parent(dir))
	}
	os.Exit(embeddedtest.Run(m))
}

// part is what ClickHouse and Weaviate have in common.
type part interface {
	Done() <-chan struct{}
	Err() error
	Stop(ctx context.Context) error
}

func stop(t *testing.T, p interface{ Stop(context.Context) error }) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	start := time.Now()
	if err := p.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("%T stopped in %s", p, time.Since(start))
}

// query runs SQL over ClickHouse's HTTP port.
func query(t *testing.T, c *embedded.ClickHouse, sql string) string {
	t.Helper()
	return post(t, "http://"+c.HTTPAddr, sql)
}

func post(t *testing.T, url, body string) string {
	t.Helper()
	resp, err := http.Post(url, "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("POST %s: %s: %s", url, resp.Status, answer)
	}
	return strings.TrimSpace(string(answer))
}

func get(t *testing.T, url string) string {
	t.Helper()
	resp, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(answer)
}

func TestClickHouseKeepsDataAcrossARestart(t *testing.T) {
	o := embedded.ClickHouseOptions{Dir: t.TempDir()}
	c, err := embedded.StartClickHouse(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	query(t, c, "CREATE DATABASE hone")
	query(t, c, "CREATE TABLE hone.t (id UInt64, text String) ENGINE = ReplacingMergeTree ORDER BY id")
	query(t, c, "INSERT INTO hone.t SELECT number, toString(number) FROM numbers(1000)")
	stop(t, c)

	c, err = embedded.StartClickHouse(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, c)
	if got := query(t, c, "SELECT count() FROM hone.t"); got != "1000" {
		t.Errorf("after a restart the table has %s rows, want 1000", got)
	}
}

// The engine can close its ports and yet not end.
func TestAClickHouseThatNoLongerListensCountsAsDead(t *testing.T) {
	c, err := embedded.StartClickHouse(t.Context(), embedded.ClickHouseOptions{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, c)
	query(t, c, "SYSTEM STOP LISTEN TCP")
	select {
	case <-c.Done():
	case <-time.After(20 * time.Second):
		t.Fatal("it refuses connections, and still counts as running")
	}
	if err := c.Err(); err == nil || !strings.Contains(err.Error(), "no longer listens on "+c.Addr) {
		t.Errorf("error %v, want one that says that it no longer listens", err)
	}
}

func TestClickHouseRefusesAQueryAboveItsMemory(t *testing.T) {
	c := embeddedtest.ClickHouse(t)
	got := query(t, c, "SELECT value FROM system.server_settings WHERE name = 'max_server_memory_usage'")
	if got != "4000000000" {
		t.Errorf("max_server_memory_usage = %s: the configuration file was not read", got)
	}
	if embeddedtest.ClickHouse(t) != c {
		t.Error("two servers in one test process")
	}
}

func TestWeaviateKeepsDataAcrossARestartOnOtherPorts(t *testing.T) {
	o := embedded.WeaviateOptions{Dir: t.TempDir()}
	w, err := embedded.StartWeaviate(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	post(t, w.URL+"/v1/schema", `{"class":"Case","vectorizer":"none"}`)
	post(t, w.URL+"/v1/objects", `{"class":"Case","id":"8d1a7c0e-3c5e-4c5a-9a3e-0d6a4c1f0001","properties":{"title":"shoes"},"vector":[0.6,0.8]}`)
	stop(t, w)

	w, err = embedded.StartWeaviate(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, w)
	if got := get(t, w.URL+"/v1/objects/Case/8d1a7c0e-3c5e-4c5a-9a3e-0d6a4c1f0001?include=vector"); !strings.Contains(got, "shoes") {
		t.Errorf("after a restart the object is %s", got)
	}
}

func TestWeaviateRefusesCallersWithoutItsKey(t *testing.T) {
	w, err := embedded.StartWeaviate(t.Context(), embedded.WeaviateOptions{Dir: t.TempDir(), APIKey: "a-key"})
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, w)
	for key, want := range map[string]int{"": 401, "other": 401, "a-key": 200} {
		req, err := http.NewRequest(http.MethodGet, w.URL+"/v1/schema", nil)
		if err != nil {
			t.Fatal(err)
		}
		if key != "" {
			req.Header.Set("Authorization", "Bearer "+key)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("with key %q: %s, want %d", key, resp.Status, want)
		}
	}
}

func TestBrokerKeepsRecordsAcrossARestart(t *testing.T) {
	o := embedded.BrokerOptions{Dir: t.TempDir()}
	b, err := embedded.StartBroker(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	client := &kafka.Client{Addr: kafka.TCP(b.Addr), Timeout: 5 * time.Second}
	created, err := client.CreateTopics(t.Context(), &kafka.CreateTopicsRequest{
		Topics: []kafka.TopicConfig{{Topic: "t", NumPartitions: 1, ReplicationFactor: 1}},
	})
	if err != nil || created.Errors["t"] != nil {
		t.Fatal(err, created)
	}
	w := &kafka.Writer{Addr: kafka.TCP(b.Addr), Topic: "t", RequiredAcks: kafka.RequireAll, BatchTimeout: time.Millisecond}
	if err := w.WriteMessages(t.Context(), kafka.Message{Value: []byte("kept")}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	stop(t, b)
	stop(t, b) // again does no harm

	b, err = embedded.StartBroker(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	defer stop(t, b)
	r := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{b.Addr}, Topic: "t", MaxWait: 100 * time.Millisecond})
	defer r.Close()
	m, err := r.ReadMessage(t.Context())
	if err != nil || string(m.Value) != "kept" {
		t.Errorf("after a restart: %q, %v", m.Value, err)
	}
}

func TestATakenPortIsNamed(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	port := lis.Addr().(*net.TCPAddr).Port
	dir := t.TempDir()
	for name, start := range map[string]func() error{
		"clickhouse": func() error {
			_, err := embedded.StartClickHouse(t.Context(), embedded.ClickHouseOptions{Dir: dir, TCPPort: port})
			return err
		},
		"weaviate": func() error {
			_, err := embedded.StartWeaviate(t.Context(), embedded.WeaviateOptions{Dir: dir, GRPCPort: port})
			return err
		},
		"broker": func() error {
			_, err := embedded.StartBroker(t.Context(), embedded.BrokerOptions{Dir: dir, Port: port})
			return err
		},
	} {
		err := start()
		if taken, ok := errors.AsType[*embedded.PortTakenError](err); !ok || taken.Port != port {
			t.Errorf("%s: %v, want a PortTakenError of %d", name, err, port)
		}
	}
}

func TestAMissingPartSaysHowToGetIt(t *testing.T) {
	t.Setenv("HONE_CACHE", t.TempDir())
	_, err := embedded.StartClickHouse(t.Context(), embedded.ClickHouseOptions{Dir: t.TempDir()})
	if !errors.Is(err, embedded.ErrNotSetUp) || !strings.Contains(err.Error(), "make setup") {
		t.Errorf("ClickHouse: %v", err)
	}
	_, err = embedded.StartWeaviate(t.Context(), embedded.WeaviateOptions{Dir: t.TempDir()})
	if !errors.Is(err, embedded.ErrNotSetUp) {
		t.Errorf("Weaviate: %v", err)
	}
}

func TestAFailedStartShowsTheReason(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "status"), 0o700); err != nil {
		t.Fatal(err)
	}
	_, err := embedded.StartClickHouse(t.Context(), embedded.ClickHouseOptions{Dir: dir})
	if err == nil || !strings.Contains(err.Error(), "CANNOT_OPEN_FILE") {
		t.Errorf("a folder that ClickHouse cannot use: %v, want ClickHouse's own words", err)
	}
}

// A killed parent leaves children that still write their last data.
func TestAStartWaitsForTheChildBefore(t *testing.T) {
	dir := t.TempDir()
	before, err := embedded.StartClickHouse(t.Context(), embedded.ClickHouseOptions{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		time.Sleep(time.Second)
		stop(t, before)
	}()
	after, err := embedded.StartClickHouse(t.Context(), embedded.ClickHouseOptions{Dir: dir})
	<-stopped
	if err != nil {
		t.Fatal(err)
	}
	stop(t, after)
}

// parent is the program that TestNothingOutlivesAKilledParent kills.
func parent(dir string) int {
	ctx := context.Background()
	c, err := embedded.StartClickHouse(ctx, embedded.ClickHouseOptions{Dir: dir + "/c"})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	w, err := embedded.StartWeaviate(ctx, embedded.WeaviateOptions{Dir: dir + "/w"})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	fmt.Println(c.HTTPAddr, strings.TrimPrefix(w.URL, "http://"))
	select {}
}

func TestNothingOutlivesAKilledParent(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), parentEnv+"="+t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	addrs := strings.Fields(line)
	if len(addrs) != 2 {
		t.Fatalf("parent said %q", line)
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // says "killed"
	for _, addr := range addrs {
		deadline := time.Now().Add(15 * time.Second)
		for {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				break
			}
			conn.Close()
			if time.Now().After(deadline) {
				t.Fatalf("%s still listens after its parent was killed", addr)
			}
			time.Sleep(50 * time.Millisecond)
		}
	}
}

var _ = []part{(*embedded.ClickHouse)(nil), (*embedded.Weaviate)(nil)}
