package standalone

import (
	"fmt"
	"path/filepath"
	"strconv"
	"sync"

	"github.com/honeloop/hone/pkg/clickhouse"
	"github.com/honeloop/hone/pkg/embedded"
	"github.com/honeloop/hone/pkg/server"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/vector"
	"github.com/honeloop/hone/services/collector"
	"github.com/honeloop/hone/services/curator"
	"github.com/honeloop/hone/services/embedder"
	"github.com/honeloop/hone/services/enricher"
	"github.com/honeloop/hone/services/hone/internal/endpoints"
	"github.com/honeloop/hone/services/hone/internal/migrate"
	"github.com/honeloop/hone/services/router"
)

// configs are the services' configurations, filled as addresses become known.
type configs struct {
	collector collector.Config
	enricher  enricher.Config
	embedder  embedder.Config
	router    router.Config
	curator   curator.Config
	migrate   migrate.Config

	mu sync.Mutex
	e  endpoints.Endpoints
}

func newConfigs(dir string, creds credentials) *configs {
	c := &configs{
		collector: collector.DefaultConfig(),
		enricher:  enricher.DefaultConfig(),
		embedder:  embedder.DefaultConfig(),
		router:    router.DefaultConfig(),
		curator:   curator.DefaultConfig(),
		migrate:   migrate.DefaultConfig(),
	}
	c.migrate.Partitions = partitions
	c.collector.Spool.Enabled = true
	c.collector.Spool.Dir = filepath.Join(dir, "spool")
	for _, s := range c.servers() {
		s.KeysFile = filepath.Join(dir, keysFile)
		s.ProjectsFile = filepath.Join(dir, projectsFile)
	}
	for _, w := range c.vectors() {
		w.APIKey = creds.WeaviateKey
	}
	c.enricher.PrivacyKey = creds.PrivacyKey
	c.enricher.OriginalsKey = creds.OriginalsKey
	return c
}

func (c *configs) servers() []*server.Config {
	return []*server.Config{&c.collector.Server, &c.enricher.Server, &c.embedder.Server, &c.router.Server, &c.curator.Server}
}

func (c *configs) kafkas() []*stream.Config {
	return []*stream.Config{&c.collector.Kafka, &c.enricher.Kafka, &c.embedder.Kafka, &c.router.Kafka, &c.curator.Kafka, &c.migrate.Kafka}
}

func (c *configs) clickhouses() []*clickhouse.Config {
	return []*clickhouse.Config{&c.enricher.ClickHouse, &c.router.ClickHouse, &c.curator.ClickHouse, &c.migrate.ClickHouse}
}

func (c *configs) vectors() []*vector.Config {
	return []*vector.Config{&c.embedder.Weaviate, &c.migrate.Weaviate}
}

func (c *configs) broker(addr string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.e.Kafka = addr
	for _, k := range c.kafkas() {
		k.Brokers = []string{addr}
	}
}

// clickhouse and weaviate are called again when a part was restarted, on the
// same addresses.
func (c *configs) clickhouse(addr, http string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.e.ClickHouse, c.e.ClickHouseHTTP = addr, "http://"+http
	for _, k := range c.clickhouses() {
		k.Addr = []string{addr}
	}
}

func (c *configs) weaviate(url, grpc string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.e.Weaviate, c.e.WeaviateGRPC = url, grpc
	for _, w := range c.vectors() {
		w.URL, w.GRPCAddr = url, grpc
	}
}

// listen gives the services their addresses.
func (c *configs) listen(ports Ports) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	inner := make([]int, 9) // gRPC of four services, admin of five
	want := []*int{&ports.HTTP, &ports.GRPC}
	for i := range inner {
		want = append(want, &inner[i])
	}
	if err := embedded.FreePorts(want...); err != nil {
		return err
	}
	c.collector.HTTPAddr = ":" + strconv.Itoa(ports.HTTP)
	c.collector.Server.GRPCAddr = ":" + strconv.Itoa(ports.GRPC)
	for i, s := range c.servers() {
		s.AdminAddr = embedded.Loopback(inner[i])
		if i > 0 {
			s.GRPCAddr = embedded.Loopback(inner[4+i])
		}
	}
	c.collector.Upstreams.Trail = c.enricher.Server.GRPCAddr
	c.collector.Upstreams.Embedder = c.embedder.Server.GRPCAddr
	c.collector.Upstreams.Router = c.router.Server.GRPCAddr
	c.collector.Upstreams.Curator = c.curator.Server.GRPCAddr
	c.embedder.Recall.Trail = c.enricher.Server.GRPCAddr
	c.e.HTTP = fmt.Sprintf("http://127.0.0.1:%d", ports.HTTP)
	c.e.GRPC = embedded.Loopback(ports.GRPC)
	return nil
}

func (c *configs) endpoints(creds credentials) endpoints.Endpoints {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.e.PublishableKey, c.e.SecretKey, c.e.WeaviateKey = creds.PublishableKey, creds.SecretKey, creds.WeaviateKey
	return c.e
}
