package embedder

import (
	"context"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	recallv1 "github.com/honeloop/hone/proto/gen/go/hone/recall/v1"

	"github.com/honeloop/hone/pkg/embedded"
	"github.com/honeloop/hone/pkg/stream/streamtest"
)

func TestRecallWithoutKafkaAndWithoutWeaviate(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	w, err := embedded.StartWeaviate(ctx, embedded.WeaviateOptions{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_ = w.Stop(ctx) // it was killed
	})
	signalTo := func(s syscall.Signal) {
		t.Helper()
		if err := syscall.Kill(-w.PID(), s); err != nil {
			t.Fatal(err)
		}
	}
	const question = "Can I return worn shoes?"
	broker := streamtest.StartBroker(t)
	r := runWith(t, broker, w, func(cfg *Config) { cfg.Recall.Timeout = time.Second }, "p")
	r.sendRead(1, signal("s1", negative, question, of("p")))

	broker.Stop(t)
	for range 5 {
		if g := r.ask("p", question).GetGuidance(); len(g) != 1 {
			t.Fatalf("without Kafka: %v", g)
		}
	}

	fails := func(within time.Duration) {
		t.Helper()
		before := time.Now()
		_, err := r.recall.Recall(r.as("p"), &recallv1.RecallRequest{Query: question})
		if status.Code(err) != codes.Unavailable {
			t.Errorf("error %v, want UNAVAILABLE", err)
		}
		if took := time.Since(before); took > within {
			t.Errorf("failed after %s, want at most %s", took, within)
		}
	}
	const busy = 2 * time.Second // of a busy machine, beside the limit
	signalTo(syscall.SIGSTOP)
	var calls sync.WaitGroup
	for range 20 { // at once: each waits its second
		calls.Go(func() { fails(time.Second + busy) })
	}
	calls.Wait()
	var quick int
	for range 20 {
		before := time.Now()
		fails(time.Second + busy)
		if time.Since(before) < 500*time.Millisecond {
			quick++
		}
	}
	if quick < 15 { // the others tried Weaviate
		t.Errorf("%d of 20 calls failed without waiting for Weaviate", quick)
	}
	signalTo(syscall.SIGCONT)
	eventually(t, "Recall answers again", func() bool {
		resp, err := r.recall.Recall(r.as("p"), &recallv1.RecallRequest{Query: question})
		return err == nil && len(resp.GetGuidance()) == 1
	})
	signalTo(syscall.SIGKILL)
	<-w.Done()
	for range 10 {
		fails(time.Second + busy)
	}
}
