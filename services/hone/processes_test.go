package main

import (
	"bytes"
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/honeloop/hone/pkg/auth"
	"github.com/honeloop/hone/pkg/embedded"
	"github.com/honeloop/hone/pkg/embedded/embeddedtest"
	"github.com/honeloop/hone/pkg/stream/streamtest"
	"github.com/honeloop/hone/services/hone/internal/endpoints"
)

// parts are what the services run on.
type parts struct {
	kafka                      string // host:port
	clickhouse, clickhouseHTTP string // host:port
	user, password             string // of ClickHouse
	weaviate                   string // base URL
	weaviateGRPC               string // host:port
}

// upProcesses migrates the parts and starts each service as a process of its
// own, configured by environment.
func upProcesses(t *testing.T, on parts) *program {
	t.Helper()
	dir := tempDir(t)
	services := []string{"curator", "router", "embedder", "enricher", "collector"}
	ports := make([]int, 1+2*len(services))
	wanted := make([]*int, len(ports))
	for i := range ports {
		wanted[i] = &ports[i]
	}
	if err := embedded.FreePorts(wanted...); err != nil {
		t.Fatal(err)
	}
	web := embedded.Loopback(ports[0])
	grpc, admin := map[string]string{}, map[string]string{}
	for i, name := range services {
		grpc[name], admin[name] = embedded.Loopback(ports[1+2*i]), embedded.Loopback(ports[2+2*i])
	}
	secret, plain, err := auth.Mint("default", auth.Secret)
	if err != nil {
		t.Fatal(err)
	}
	keys := filepath.Join(dir, "keys.yaml")
	if err := auth.WriteKeys(keys, []auth.Key{secret}); err != nil {
		t.Fatal(err)
	}
	userInfo := ""
	if on.user != "" {
		userInfo = on.user + ":" + on.password + "@"
	}
	p := &program{t: t, dir: dir, output: &bytes.Buffer{}, e: endpoints.Endpoints{
		HTTP: "http://" + web, GRPC: grpc["collector"], Kafka: on.kafka, ClickHouse: on.clickhouse,
		ClickHouseHTTP: "http://" + userInfo + on.clickhouseHTTP, Weaviate: on.weaviate, SecretKey: plain,
	}}
	if err := endpoints.Write(dir, p.e); err != nil {
		t.Fatal(err)
	}
	env := func(section string, more ...string) []string {
		out := append(os.Environ(), runMain+"=1")
		for _, kv := range append(more, "KAFKA_BROKERS="+on.kafka, "CLICKHOUSE_ADDR="+on.clickhouse, "CLICKHOUSE_USERNAME="+on.user,
			"CLICKHOUSE_PASSWORD="+on.password, "WEAVIATE_URL="+on.weaviate, "WEAVIATE_GRPC_ADDR="+on.weaviateGRPC, "SERVER_KEYS_FILE="+keys) {
			out = append(out, "HONE_"+strings.ToUpper(section)+"_"+kv)
		}
		return out
	}
	migrate := exec.Command(os.Args[0], "migrate")
	migrate.Env = env("migrate")
	if out, err := migrate.CombinedOutput(); err != nil {
		t.Fatalf("hone migrate: %v\n%s", err, out)
	}
	for _, name := range services {
		cmd := exec.Command(os.Args[0], name)
		cmd.Env = env(name, "SERVER_GRPC_ADDR="+grpc[name], "SERVER_ADMIN_ADDR="+admin[name], "HTTP_ADDR="+web,
			"UPSTREAMS_TRAIL="+grpc["enricher"], "UPSTREAMS_EMBEDDER="+grpc["embedder"], "UPSTREAMS_ROUTER="+grpc["router"], "UPSTREAMS_CURATOR="+grpc["curator"])
		log, err := os.Create(filepath.Join(dir, name+".log"))
		if err != nil {
			t.Fatal(err)
		}
		cmd.Stdout, cmd.Stderr = log, log
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			defer log.Close()
			_ = cmd.Process.Signal(os.Interrupt) // it may have ended
			if err := cmd.Wait(); err != nil {
				text, _ := os.ReadFile(log.Name()) // only to help
				t.Errorf("hone %s ended with %v\n%s", name, err, text[max(0, len(text)-4000):])
			}
		})
	}
	for _, name := range services {
		awaitReady(t, "http://"+admin[name]+"/readyz", filepath.Join(dir, name+".log"))
	}
	return p
}

func awaitReady(t *testing.T, url, log string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startWait)
	defer cancel()
	for httpGet(url) == "" {
		select {
		case <-ctx.Done():
			text, _ := os.ReadFile(log) // only to help
			t.Fatalf("%s is not ready\n%s", url, text)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// The services know nothing of the standalone mode: alone, on parts that others
// started, they do the same.
func TestServicesRunAsProcessesOfTheirOwn(t *testing.T) {
	clickhouse, weaviate := embeddedtest.ClickHouse(t), embeddedtest.Weaviate(t)
	broker := streamtest.StartBroker(t)
	p := upProcesses(t, parts{
		kafka: broker.Config().Brokers[0], clickhouse: clickhouse.Addr, clickhouseHTTP: clickhouse.HTTPAddr,
		weaviate: weaviate.URL, weaviateGRPC: weaviate.GRPCAddr,
	})
	feedbackLeadsToAnswers(t, p)
	if resp, err := http.Get(p.e.HTTP + "/openapi.json"); err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("openapi.json: %v %v", resp, err)
	}
}
