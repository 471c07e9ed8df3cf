package embedder

import (
	"context"
	"os"
	"path/filepath"
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
	const question = "return worn shoes?" // so few words that a session is looked at
	broker := streamtest.StartBroker(t)
	enricher := &trails{}
	enricher.wait.Store(int64(time.Minute)) // it hangs, all the time
	r := runWith(t, broker, w, func(cfg *Config) {
		cfg.Recall.Timeout, cfg.Recall.Trail = time.Second, enricher.serve(t)
		cfg.Server.ProjectsFile = filepath.Join(t.TempDir(), "projects.yaml")
		if err := os.WriteFile(cfg.Server.ProjectsFile, []byte("defaults: {recall: {positives: 5}}"), 0o600); err != nil {
			t.Fatal(err)
		}
	}, "p")
	out := r.sendRead(2, signal("s1", negative, question, of("p")), signal("s2", positive, question, of("p")))
	broker.Write(t, patchRecord(t, patchOf(out[0].GetCase().GetCaseId(), 1, "Be kind")))
	ask := func() (*recallv1.RecallResponse, error) {
		return r.recall.Recall(r.as("p"), &recallv1.RecallRequest{
			Query: question, SessionId: "a session", Metadata: &recallv1.RecallMetadata{ModelVersion: "v2", Tags: map[string]string{"plan": "pro"}},
		})
	}
	complete := func() bool {
		resp, err := ask()
		g := resp.GetGuidance()
		return err == nil && len(g) == 1 && len(g[0].GetPatches()) == 1 && len(g[0].GetDiffers()) == 1 && len(resp.GetPositives()) == 1
	}
	eventually(t, "all is known", complete)

	broker.Stop(t)
	for range 5 {
		if !complete() {
			resp, err := ask()
			t.Fatalf("without Kafka: %v, %v", resp, err)
		}
	}

	fails := func(within time.Duration) {
		t.Helper()
		before := time.Now()
		_, err := ask()
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
	eventually(t, "Recall answers again", complete)
	signalTo(syscall.SIGKILL)
	<-w.Done()
	for range 10 {
		fails(time.Second + busy)
	}
}
