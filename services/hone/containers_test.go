//go:build containers

package main

import (
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/testcontainers/testcontainers-go"
	"github.com/testcontainers/testcontainers-go/wait"

	"github.com/honeloop/hone/pkg/embedded"
)

// TestContainersCarryThePipeline runs the tests of the pipeline against the
// images of docker-compose.yml, with the five services as processes of their
// own.
func TestContainersCarryThePipeline(t *testing.T) {
	p := upContainers(t)
	feedbackLeadsToAnswers(t, p)
}

func TestContainersTakeARealHistory(t *testing.T) {
	importedHistoryIsAllInTheTrail(t, upContainers(t))
}

// image runs a service's image of docker-compose.yml with its environment, and
// the given ports of the container on free ports of this machine.
func image(t *testing.T, name string, env map[string]string, ready wait.Strategy, ports map[string]int) {
	t.Helper()
	service, err := loadCompose(t).GetService(name)
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for k, v := range service.Environment {
		all[k] = *v
	}
	maps.Copy(all, env)
	var exposed []string
	for port, host := range ports {
		exposed = append(exposed, fmt.Sprintf("127.0.0.1:%d:%s", host, port))
	}
	c, err := testcontainers.Run(t.Context(), service.Image,
		testcontainers.WithEnv(all),
		testcontainers.WithExposedPorts(exposed...),
		testcontainers.WithWaitStrategyAndDeadline(3*time.Minute, ready))
	testcontainers.CleanupContainer(t, c)
	if err != nil {
		t.Fatalf("run %s: %v", service.Image, err)
	}
}

func upContainers(t *testing.T) *program {
	t.Helper()
	var kafka, native, http, weaviate, grpc int
	if err := embedded.FreePorts(&kafka, &native, &http, &weaviate, &grpc); err != nil {
		t.Fatal(err)
	}
	image(t, "kafka", map[string]string{"KAFKA_ADVERTISED_LISTENERS": "PLAINTEXT://" + embedded.Loopback(kafka), "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093"},
		wait.ForLog("Kafka Server started"), map[string]int{"9092/tcp": kafka})
	image(t, "clickhouse", nil, wait.ForHTTP("/ping").WithPort("8123/tcp"), map[string]int{"9000/tcp": native, "8123/tcp": http})
	image(t, "weaviate", nil, wait.ForHTTP("/v1/.well-known/ready").WithPort("8080/tcp"), map[string]int{"8080/tcp": weaviate, "50051/tcp": grpc})
	return upProcesses(t, parts{
		kafka: embedded.Loopback(kafka), clickhouse: embedded.Loopback(native), clickhouseHTTP: embedded.Loopback(http), user: "hone", password: "hone",
		weaviate: "http://" + embedded.Loopback(weaviate), weaviateGRPC: embedded.Loopback(grpc),
	})
}
