package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/cli"
	"github.com/compose-spec/compose-go/v2/types"

	"github.com/honeloop/hone/pkg/config"
	"github.com/honeloop/hone/pkg/repotest"
	"github.com/honeloop/hone/services/collector"
	"github.com/honeloop/hone/services/curator"
	"github.com/honeloop/hone/services/embedder"
	"github.com/honeloop/hone/services/enricher"
	"github.com/honeloop/hone/services/hone/internal/migrate"
	"github.com/honeloop/hone/services/router"
)

func loadCompose(t *testing.T) *types.Project {
	t.Helper()
	options, err := cli.NewProjectOptions([]string{filepath.Join(repotest.Root(t), "docker-compose.yml")}, cli.WithName("hone"))
	if err != nil {
		t.Fatal(err)
	}
	project, err := options.LoadProject(context.Background())
	if err != nil {
		t.Fatalf("docker-compose.yml: %v", err)
	}
	return project
}

// What the file says by environment is what the services read: a variable that
// is misspelled would leave a default that points at this machine.
func TestComposeConfiguresEveryService(t *testing.T) {
	project := loadCompose(t)
	col, enr, emb, rou, cur, mig := collector.DefaultConfig(), enricher.DefaultConfig(), embedder.DefaultConfig(), router.DefaultConfig(), curator.DefaultConfig(), migrate.DefaultConfig()
	for name, cfg := range map[string]config.Validator{"collector": &col, "enricher": &enr, "embedder": &emb, "router": &rou, "curator": &cur, "migrate": &mig} {
		service, err := project.GetService(name)
		if err != nil {
			t.Fatal(err)
		}
		if want := []string{name}; !slices.Equal(service.Command, want) {
			t.Errorf("%s: command %v, want %v", name, service.Command, want)
		}
		prefix := "HONE_" + strings.ToUpper(name) + "_"
		for key, value := range service.Environment {
			if !strings.HasPrefix(key, prefix) {
				t.Errorf("%s: variable %s has not the prefix %s", name, key, prefix)
			}
			t.Setenv(key, *value)
		}
		if err := config.Load(cfg, "", name, prefix); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if name != "migrate" && (service.HealthCheck == nil || !slices.Contains(service.HealthCheck.Test, "health")) {
			t.Errorf("%s: no health check", name)
		}
	}
	for what, got := range map[string]string{
		"collector's broker": col.Kafka.Brokers[0], "enricher's broker": enr.Kafka.Brokers[0], "embedder's broker": emb.Kafka.Brokers[0],
		"router's broker": rou.Kafka.Brokers[0], "curator's broker": cur.Kafka.Brokers[0], "migrate's broker": mig.Kafka.Brokers[0],
		"enricher's ClickHouse": enr.ClickHouse.Addr[0], "router's ClickHouse": rou.ClickHouse.Addr[0], "curator's ClickHouse": cur.ClickHouse.Addr[0],
		"migrate's ClickHouse": mig.ClickHouse.Addr[0], "embedder's Weaviate": emb.Weaviate.GRPCAddr, "migrate's Weaviate": mig.Weaviate.GRPCAddr,
		"trail": col.Upstreams.Trail, "recall": col.Upstreams.Embedder, "policy": col.Upstreams.Router, "reviews": col.Upstreams.Curator,
	} {
		host, _, ok := strings.Cut(got, ":")
		if _, err := project.GetService(host); err != nil || !ok {
			t.Errorf("%s is %q, want a service of the file", what, got)
		}
	}
}

func TestComposeKeepsData(t *testing.T) {
	project := loadCompose(t)
	for name, path := range map[string]string{"kafka": "/var/lib/kafka/data", "clickhouse": "/var/lib/clickhouse", "weaviate": "/var/lib/weaviate"} {
		service, err := project.GetService(name)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(service.Volumes, func(v types.ServiceVolumeConfig) bool { return v.Type == "volume" && v.Target == path }) {
			t.Errorf("%s has no volume at %s", name, path)
		}
		if service.HealthCheck == nil {
			t.Errorf("%s has no health check", name)
		}
	}
	if _, err := os.Stat(filepath.Join(repotest.Root(t), "deploy", "Dockerfile")); err != nil {
		t.Error(err)
	}
}
