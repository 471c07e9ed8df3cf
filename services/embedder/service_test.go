package embedder

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	recallv1 "github.com/honeloop/hone/proto/gen/go/hone/recall/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"

	"github.com/honeloop/hone/pkg/auth"
	"github.com/honeloop/hone/pkg/embedded"
	"github.com/honeloop/hone/pkg/embedded/embeddedtest"
	"github.com/honeloop/hone/pkg/embedding"
	"github.com/honeloop/hone/pkg/projects"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/stream/streamtest"
	"github.com/honeloop/hone/pkg/telemetry"
	"github.com/honeloop/hone/pkg/vector"
)

func TestMain(m *testing.M) {
	embedded.Main()
	os.Exit(embeddedtest.Run(m))
}

// running is a service on real parts, with the hash embedder.
type running struct {
	t      *testing.T
	broker *streamtest.Broker
	conn   *grpc.ClientConn
	recall recallv1.RecallServiceClient
	cases  casesv1.CaseServiceClient
	keys   map[string]string // secret keys by project
	stop   func()
}

func weaviateConfig(w *embedded.Weaviate) vector.Config {
	cfg := vector.DefaultConfig()
	cfg.URL, cfg.GRPCAddr = w.URL, w.GRPCAddr
	return cfg
}

func run(t *testing.T, broker *streamtest.Broker, w *embedded.Weaviate, projects ...string) *running {
	t.Helper()
	return runWith(t, broker, w, func(*Config) {}, projects...)
}

func runWith(t *testing.T, broker *streamtest.Broker, w *embedded.Weaviate, change func(*Config), projects ...string) *running {
	t.Helper()
	index, err := vector.Open(weaviateConfig(w))
	if err != nil {
		t.Fatal(err)
	}
	defer index.Close()
	if err := index.EnsureSchema(t.Context()); err != nil {
		t.Fatal(err)
	}

	r := &running{t: t, broker: broker, keys: map[string]string{}}
	var stored []auth.Key
	for _, p := range projects {
		key, secret, err := auth.Mint(p, auth.Secret)
		if err != nil {
			t.Fatal(err)
		}
		stored, r.keys[p] = append(stored, key), secret
	}
	cfg := DefaultConfig()
	cfg.Server.KeysFile = filepath.Join(t.TempDir(), "keys.yaml")
	if err := auth.WriteKeys(cfg.Server.KeysFile, stored); err != nil {
		t.Fatal(err)
	}
	var grpcPort, adminPort int
	if err := embedded.FreePorts(&grpcPort, &adminPort); err != nil {
		t.Fatal(err)
	}
	cfg.Server.GRPCAddr = net.JoinHostPort("127.0.0.1", strconv.Itoa(grpcPort))
	cfg.Server.AdminAddr = net.JoinHostPort("127.0.0.1", strconv.Itoa(adminPort))
	cfg.Kafka, cfg.Weaviate = broker.Config(), weaviateConfig(w)
	cfg.Embedding.Provider = embedding.ProviderHash
	cfg.Recall.Timeout = 5 * time.Second // a busy machine must not fail the test
	change(&cfg)

	service, err := New(t.Context(), cfg, telemetry.Discard())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- service.Run(ctx) }()
	r.stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
		r.stop = func() {}
	}
	t.Cleanup(func() { r.stop() })
	eventually(t, "the service is ready", func() bool { return service.Ready(t.Context()) == nil })

	conn, err := grpc.NewClient(cfg.Server.GRPCAddr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	r.conn, r.recall, r.cases = conn, recallv1.NewRecallServiceClient(conn), casesv1.NewCaseServiceClient(conn)
	return r
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not so within 30 s: %s", what)
		}
	}
}

func (r *running) as(project string) context.Context {
	return metadata.AppendToOutgoingContext(r.t.Context(), "authorization", "Bearer "+r.keys[project])
}

func (r *running) ask(project, query string) *recallv1.RecallResponse {
	r.t.Helper()
	resp, err := r.recall.Recall(r.as(project), &recallv1.RecallRequest{Query: query})
	if err != nil {
		r.t.Fatal(err)
	}
	return resp
}

// sendRead writes signals and waits for n outputs in all.
func (r *running) sendRead(n int, in ...*signalv1.Signal) []*casesv1.CaseSignal {
	r.t.Helper()
	r.broker.Write(r.t, records(r.t, in...)...)
	return decodeOut(r.t, r.broker.Read(r.t, stream.TopicCases, n))
}

func of(project string) func(*signalv1.Signal) {
	return func(s *signalv1.Signal) { s.ProjectId, s.SessionId = project, "one session" }
}

func TestTheWayOfASignal(t *testing.T) {
	w := embeddedtest.Weaviate(t)
	broker := streamtest.StartBroker(t)
	const p, q = "way-p", "Way Q" // the second needs another tenant name
	r := run(t, broker, w, p, q)

	if resp := r.ask(p, "Can I return worn shoes?"); len(resp.GetGuidance()) != 0 {
		t.Errorf("a new project recalls %v", resp)
	}
	one := signal("s1", negative, "Can I return worn shoes?", of(p))
	two := signal("s2", negative, "Can I return my worn shoes?", of(p))
	far := signal("s3", negative, "How do I reset the password of my account?", of(p))
	out := r.sendRead(3, one, two, far)
	if c := out[1].GetCase(); c.GetNegatives() != 2 || c.GetTitle() != "Can I return worn shoes?" || !proto.Equal(out[1].GetSignal(), two) {
		t.Fatalf("out = %v", out)
	}
	if out[2].GetCase().GetCaseId() == out[0].GetCase().GetCaseId() {
		t.Errorf("a far query joined: %v", out[2])
	}

	// What was published is recallable, and only with the project's own key.
	resp := r.ask(p, "can I return worn shoes")
	if len(resp.GetGuidance()) != 1 || resp.GetGuidance()[0].GetCase().GetNegatives() != 2 || resp.GetPromptBlock() == "" {
		t.Errorf("recall = %v", resp)
	}
	if resp := r.ask(q, "Can I return worn shoes?"); len(resp.GetGuidance()) != 0 || resp.GetPromptBlock() != "" {
		t.Errorf("another project recalls %v", resp)
	}
	r.sendRead(4, signal("s9", negative, "Can I return worn shoes?", of(q)))
	if resp := r.ask(q, "Can I return worn shoes?"); len(resp.GetGuidance()) != 1 || resp.GetGuidance()[0].GetCase().GetProjectId() != q ||
		resp.GetGuidance()[0].GetCase().GetNegatives() != 1 {
		t.Errorf("another project recalls %v", resp)
	}

	// Redelivered, it is said again, word for word. Partitions are read in any
	// order, so what is said twice is looked for among all.
	all := r.sendRead(7, one, two, far)
	for _, m := range out {
		said := 0
		for _, a := range all {
			if proto.Equal(a, m) {
				said++
			}
		}
		if said != 2 {
			t.Errorf("said %d times, want twice: %v", said, m)
		}
	}

	// A reviewer's answer.
	e := decided("r1", "correct", "Only unworn shoes, within 30 days.", 5)
	e.ProjectId, e.GetReviewDecided().CaseId = p, out[0].GetCase().GetCaseId()
	broker.Write(t, eventRecord(t, e))
	eventually(t, "the answer is recalled", func() bool {
		g := r.ask(p, "Can I return worn shoes?").GetGuidance()
		return len(g) == 1 && g[0].GetCase().GetState() == stateSolved && g[0].GetCase().GetApprovedAnswer() == "Only unworn shoes, within 30 days."
	})
	if !slices.ContainsFunc(decodeOut(t, broker.Read(t, stream.TopicCases, 8)), func(m *casesv1.CaseSignal) bool {
		return m.GetSignal() == nil && m.GetCase().GetState() == stateSolved
	}) {
		t.Error("the solved case was not published")
	}

	// A person's change goes over the log, and is there when it is answered.
	title := "Worn shoes"
	renamed, err := r.cases.UpdateCase(r.as(p), &casesv1.UpdateCaseRequest{CaseId: out[0].GetCase().GetCaseId(), Title: &title})
	if err != nil || renamed.GetCase().GetTitle() != title || renamed.GetCurationId() == "" {
		t.Errorf("UpdateCase = %v, %v", renamed, err)
	}
	_, err = r.cases.UpdateCase(r.as(q), &casesv1.UpdateCaseRequest{CaseId: out[0].GetCase().GetCaseId(), Title: &title})
	if status.Code(err) != codes.NotFound {
		t.Errorf("another project's UpdateCase = %v", err)
	}
	merged, err := r.cases.MergeCase(r.as(p), &casesv1.MergeCaseRequest{CaseId: out[2].GetCase().GetCaseId(), IntoCaseId: out[0].GetCase().GetCaseId()})
	if err != nil || merged.GetCase().GetNegatives() != 3 {
		t.Errorf("MergeCase = %v, %v", merged, err)
	}
	if g := r.ask(p, "How do I reset the password of my account?").GetGuidance(); len(g) != 1 || g[0].GetCase().GetCaseId() != out[0].GetCase().GetCaseId() {
		t.Errorf("recall of a merged case = %v", g)
	}
	if _, err := r.cases.UndoCaseEdit(r.as(p), &casesv1.UndoCaseEditRequest{CaseId: out[2].GetCase().GetCaseId()}); err != nil {
		t.Errorf("UndoCaseEdit = %v", err)
	}
	broker.Read(t, stream.TopicCases, 13) // what changed is said

	// Flip one, withdraw the other: nothing is left.
	r.sendRead(15, revised(one, polarity(positive)), revised(two, withdrawn))
	eventually(t, "nothing is recalled", func() bool { return len(r.ask(p, "Can I return worn shoes?").GetGuidance()) == 0 })
	got, err := r.cases.GetCase(r.as(p), &casesv1.GetCaseRequest{CaseId: out[0].GetCase().GetCaseId()})
	if err != nil || got.GetCase().GetState() != stateWithdrawn || got.GetCase().GetNegatives() != 0 {
		t.Errorf("GetCase = %v, %v", got, err)
	}
	if _, err := r.cases.GetCase(r.as(q), &casesv1.GetCaseRequest{CaseId: out[0].GetCase().GetCaseId()}); status.Code(err) != codes.NotFound {
		t.Errorf("another project's GetCase = %v", err)
	}
	if l, err := r.cases.ListCases(r.as(p), &casesv1.ListCasesRequest{}); err != nil || len(l.GetCases()) != 1 {
		t.Errorf("ListCases = %v, %v", l, err)
	}
	if v, err := r.recall.Embed(r.as(p), &recallv1.EmbedRequest{Texts: []string{"a", "b"}}); err != nil || len(v.GetVectors()) != 2 || v.GetModel() == "" {
		t.Errorf("Embed = %v, %v", v, err)
	}

	// What cannot be processed goes to the dead letter, and the rest goes on.
	broker.Write(t, stage.Record{Topic: stream.TopicSignals, Key: []byte("x"), Value: []byte{0xff}})
	if dead := broker.Read(t, stream.TopicDeadLetter, 1); string(dead[0].Value) != "\xff" {
		t.Errorf("dead letter = %v", dead)
	}
}

func TestARestartOfWeaviateKeepsTheData(t *testing.T) {
	opts := embedded.WeaviateOptions{Dir: t.TempDir()}
	if err := embedded.FreePorts(&opts.Port, &opts.GRPCPort); err != nil {
		t.Fatal(err)
	}
	startWeaviate := func() *embedded.Weaviate {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
		defer cancel()
		w, err := embedded.StartWeaviate(ctx, opts)
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	stopWeaviate := func(w *embedded.Weaviate) {
		t.Helper()
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := w.Stop(ctx); err != nil {
			t.Error(err)
		}
	}
	w := startWeaviate()
	broker := streamtest.StartBroker(t)
	r := run(t, broker, w, "p")
	one := signal("s1", negative, "Can I return worn shoes?", of("p"))
	r.sendRead(1, one)

	stopWeaviate(w)
	// Recall says so, quickly, and the signal waits.
	before := time.Now()
	if _, err := r.recall.Recall(r.as("p"), &recallv1.RecallRequest{Query: "worn shoes"}); status.Code(err) != codes.Unavailable || time.Since(before) > 6*time.Second {
		t.Errorf("Recall = %v after %s", err, time.Since(before))
	}
	broker.Write(t, records(t, signal("s2", negative, "Can I return worn shoes?", of("p")))...)

	w = startWeaviate()
	defer func() { r.stop(); stopWeaviate(w) }()
	out := r.sendRead(2)
	if c := out[1].GetCase(); c.GetCaseId() != out[0].GetCase().GetCaseId() || c.GetNegatives() != 2 {
		t.Errorf("out = %v", out)
	}
	if g := r.ask("p", "Can I return worn shoes?").GetGuidance(); len(g) != 1 || g[0].GetCase().GetNegatives() != 2 {
		t.Errorf("recall = %v", g)
	}
}

// BenchmarkSignals places signals of 300 problems in batches, on a real
// Weaviate with the hash embedder. signals/s is what an import gets.
func BenchmarkSignals(b *testing.B) {
	w := embeddedtest.Weaviate(b)
	index, err := vector.Open(weaviateConfig(w))
	if err != nil {
		b.Fatal(err)
	}
	defer index.Close()
	if err := index.EnsureSchema(b.Context()); err != nil {
		b.Fatal(err)
	}
	st, _, err := stages(index, embedding.NewHash(), DefaultConfig().Cases, 0.6, projects.Defaults(), telemetry.Discard())
	if err != nil {
		b.Fatal(err)
	}
	for _, size := range []int{20, 500} {
		b.Run(fmt.Sprint("batch=", size), func(b *testing.B) {
			project := fmt.Sprintf("bench-%d-%d", size, time.Now().UnixNano())
			n := 0
			for b.Loop() {
				var in []stage.Record
				for range size {
					n++
					s := signal(fmt.Sprint("s", n), negative, fmt.Sprintf("question %d about topic %d of item %d", n%7, n*7919%300, n*104729%300),
						func(s *signalv1.Signal) { s.ProjectId = project })
					value, err := proto.Marshal(s)
					if err != nil {
						b.Fatal(err)
					}
					in = append(in, stage.Record{Value: value})
				}
				if _, err := st.Process(b.Context(), in); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "signals/s")
		})
	}
}

// BenchmarkRecall asks a project of 5,000 cases, with random vectors of 384
// numbers, one call at a time, beside the bare search in it.
func BenchmarkRecall(b *testing.B) {
	w := embeddedtest.Weaviate(b)
	index, err := vector.Open(weaviateConfig(w))
	if err != nil {
		b.Fatal(err)
	}
	defer index.Close()
	if err := index.EnsureSchema(b.Context()); err != nil {
		b.Fatal(err)
	}
	const project = "bench-recall"
	random := randomVectors{rand.New(rand.NewPCG(1, 1))}
	var objects []vector.Object
	for i := range 5000 {
		v, _ := random.Embed(b.Context(), []string{""})
		o, err := caseObject(&casesv1.Case{CaseId: fmt.Sprint("cs_", i), ProjectId: project, Title: "a question", Negatives: 1, State: stateNew}, "random")
		if err != nil {
			b.Fatal(err)
		}
		o.Vector = v[0]
		objects = append(objects, o)
	}
	if err := index.Upsert(b.Context(), vector.Cases, project, objects); err != nil {
		b.Fatal(err)
	}
	a, err := newAPI(index, random, projects.Defaults(), DefaultConfig().Recall, nil, telemetry.Discard().Log)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("recall", func(b *testing.B) {
		for b.Loop() {
			if r, err := a.Recall(as(project), &recallv1.RecallRequest{Query: "q"}); err != nil || len(r.GetGuidance()) != 3 {
				b.Fatal(r, err)
			}
		}
	})
	b.Run("search", func(b *testing.B) {
		for b.Loop() {
			v, _ := random.Embed(b.Context(), []string{""})
			if m, err := index.Near(b.Context(), vector.Cases, project, vector.NearQuery{Vector: v[0], Limit: 3, MinSimilarity: -1}); err != nil || len(m) != 3 {
				b.Fatal(m, err)
			}
		}
	})
}

// randomVectors embeds without looking; one caller at a time.
type randomVectors struct{ rng *rand.Rand }

func (randomVectors) Model() string   { return "random" }
func (randomVectors) Dimensions() int { return 384 }
func (r randomVectors) Embed(_ context.Context, texts []string) ([][]float32, error) {
	out := make([][]float32, len(texts))
	for i := range out {
		var sum float64
		for range r.Dimensions() {
			x := r.rng.NormFloat64()
			out[i], sum = append(out[i], float32(x)), sum+x*x
		}
		for j := range out[i] {
			out[i][j] /= float32(math.Sqrt(sum))
		}
	}
	return out, nil
}
