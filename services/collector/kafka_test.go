package collector

import (
	"context"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/honeloop/hone/pkg/auth"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/stream/streamtest"
	"github.com/honeloop/hone/pkg/telemetry"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
)

// startOnKafka runs a collector made by New, with kafka.
func startOnKafka(t *testing.T, kafka stream.Config, change ...func(*Config)) (send func(body string) *answerOf) {
	t.Helper()
	cfg := DefaultConfig()
	cfg.HTTPAddr, cfg.Server.GRPCAddr, cfg.Server.AdminAddr = freeAddr(t), freeAddr(t), freeAddr(t)
	cfg.Server.KeysFile = filepath.Join(t.TempDir(), "keys.yaml")
	cfg.Kafka = kafka
	for _, c := range change {
		c(&cfg)
	}
	key, secret, err := auth.Mint("p", auth.Secret)
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
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	eventually(t, "ready", func() bool { return s.Ready(ctx) == nil })
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	return func(body string) *answerOf {
		req, err := http.NewRequest(http.MethodPost, "http://"+cfg.HTTPAddr+"/v1/events", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+secret)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		raw, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return parse(resp.StatusCode, resp.Header, raw)
	}
}

func TestAcceptedEventsAreInKafka(t *testing.T) {
	broker := streamtest.StartBroker(t)
	send := startOnKafka(t, broker.Config())
	large := strings.Replace(good, `"thumb"`, `"comment":"`+strings.Repeat("x", 150_000)+`","thumb"`, 1)
	a := send(`{"events":[` + strings.Repeat(large+",", 30) + good + `]}`) // 4.5 MB: more than one produce request
	if a.status != http.StatusAccepted || a.Accepted != 31 {
		t.Fatalf("got %d %.300s", a.status, a.raw)
	}
	for i, rec := range broker.Read(t, stream.TopicEvents, 31) {
		e := new(eventv1.Event)
		if err := proto.Unmarshal(rec.Value, e); err != nil {
			t.Fatal(err)
		}
		if e.GetEventId() != a.Results[i].EventID || string(rec.Key) != "p/s-1" {
			t.Errorf("record %d: %s with key %s, want %s", i, e.GetEventId(), rec.Key, a.Results[i].EventID)
		}
	}
}

func TestWithoutKafkaTheAnswerIsQuick(t *testing.T) {
	cfg := stream.DefaultConfig()
	cfg.Brokers = []string{freeAddr(t)}
	send := startOnKafka(t, cfg)
	start := time.Now()
	send(good).wantError(t, 503, "unavailable", "", "could not be made durable")
	if took := time.Since(start); took > time.Second { // and not after publish_timeout
		t.Errorf("took %s", took)
	} else {
		t.Logf("refused after %s", took)
	}
}
