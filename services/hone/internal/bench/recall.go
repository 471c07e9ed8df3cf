package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/honeloop/hone/pkg/embedding"
	"github.com/honeloop/hone/pkg/ids"
	"github.com/honeloop/hone/pkg/telemetry"
	"github.com/honeloop/hone/pkg/vector"
	"github.com/honeloop/hone/services/hone/internal/endpoints"
	"github.com/honeloop/hone/services/internal/cputime"

	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	recallv1 "github.com/honeloop/hone/proto/gen/go/hone/recall/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"
)

// RecallOptions of the benchmark of Recall.
type RecallOptions struct {
	Exchanges int
	Requests  int // of each kind and number of clients
	Clients   []int
	Queries   []string
	Seed      uint64
}

// RecallReport is what the benchmark of Recall saw.
type RecallReport struct {
	Exchanges       int          `json:"exchanges"`
	Cases           int          `json:"cases"`
	LoadedPerSecond float64      `json:"loaded_per_second"`
	WeaviateMB      float64      `json:"weaviate_mb"` // resident; 0 where the system does not say
	Rows            []RecallTime `json:"rows"`
}

// RecallTime is how long one kind of request took.
type RecallTime struct {
	What      string  `json:"what"`
	Clients   int     `json:"clients"`
	P50Millis float64 `json:"p50_ms"`
	P99Millis float64 `json:"p99_ms"`
	PerSecond float64 `json:"per_second"`
	Failed    int     `json:"failed"` // answered with UNAVAILABLE or 503 in time; not in the times
	// Of this process, in which Hone is, and of Weaviate, for each request: on a
	// busy machine it says more than the times. 0 where the system does not say.
	CPUMillis float64 `json:"cpu_ms"`
	// Times of the bare calls' p50, p99 and processor time.
	P50Ratio float64 `json:"p50_ratio"`
	P99Ratio float64 `json:"p99_ratio"`
	CPURatio float64 `json:"cpu_ratio"`
}

const (
	casesOfQueries = 2000 // cases at real questions; the exchanges are spread around them
	loaders        = 4
	round          = 64 // requests of a kind before the next kind has its turn
)

// errTooSlow says that Recall gave up at its limit of time.
var errTooSlow = errors.New("recall gave up")

// Recall fills a running Hone that is empty, around real questions, and asks it
// other questions: by gRPC, by HTTP, and with the bare parts, an embedding and one
// search, in this process. The kinds take turns, so that whatever else the
// machine does meets all of them. Every question is asked once, so that no cache
// helps.
func Recall(ctx context.Context, e endpoints.Endpoints, conn *grpc.ClientConn, o RecallOptions, w io.Writer) (report RecallReport, err error) {
	vcfg := vector.DefaultConfig()
	vcfg.URL, vcfg.GRPCAddr, vcfg.APIKey = e.Weaviate, e.WeaviateGRPC, e.WeaviateKey
	index, err := vector.Open(vcfg)
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, index.Close()) }()
	ecfg := embedding.DefaultConfig()
	ecfg.CacheBytes = 0
	embedder, err := embedding.New(ecfg, telemetry.Discard())
	if err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, embedder.Close()) }()

	random := rand.New(rand.NewPCG(o.Seed, 3))
	queries := slices.Clone(o.Queries)
	random.Shuffle(len(queries), func(i, j int) { queries[i], queries[j] = queries[j], queries[i] })
	report.Cases = min(casesOfQueries, len(queries)/2)
	titles, questions := queries[:report.Cases], queries[report.Cases:]
	if report.Exchanges, report.LoadedPerSecond, err = load(ctx, index, embedder, titles, o.Exchanges, random, w); err != nil {
		return report, err
	}
	weaviate, err := weaviateProcess("--port=" + portOf(e.Weaviate))
	if err != nil {
		return report, err
	}
	if report.WeaviateMB, err = weaviate.residentMB(); err != nil {
		return report, err
	}

	recall := recallv1.NewRecallServiceClient(conn)
	kinds := []struct {
		what string
		do   func(ctx context.Context, q string) error
	}{
		{"bare embed + nearVector", func(ctx context.Context, q string) error {
			v, err := embedder.Embed(ctx, []string{q})
			if err != nil {
				return err
			}
			m, err := index.Near(ctx, vector.Exchanges, project, vector.NearQuery{Vector: v[0], Limit: 10, MinSimilarity: -1})
			if err == nil && len(m) == 0 {
				err = errors.New("nothing is near")
			}
			return err
		}},
		{"Recall, gRPC", func(ctx context.Context, q string) error {
			_, err := recall.Recall(ctx, &recallv1.RecallRequest{Query: q})
			if status.Code(err) == codes.Unavailable {
				return errTooSlow
			}
			return err
		}},
		{"Recall, HTTP", func(ctx context.Context, q string) error { return recallHTTP(ctx, e, q) }},
	}
	var asked atomic.Int64
	for _, clients := range o.Clients {
		took := make([][]time.Duration, len(kinds))
		spent := make([]time.Duration, len(kinds))
		used := make([]time.Duration, len(kinds)) // of the processors
		failed := make([]int, len(kinds))
		for done := 0; done < o.Requests; done += round * clients {
			for i, k := range kinds {
				times := make([]time.Duration, round*clients)
				var next atomic.Int64
				before, start := weaviate.cpu(), time.Now()
				g, gctx := errgroup.WithContext(ctx)
				for range clients {
					g.Go(func() error {
						for n := next.Add(1) - 1; n < int64(len(times)); n = next.Add(1) - 1 {
							q := questions[int(asked.Add(1))%len(questions)] + " " + strconv.FormatInt(asked.Load(), 36)
							begin := time.Now()
							err := k.do(gctx, q)
							if errors.Is(err, errTooSlow) {
								continue
							}
							if err != nil {
								return fmt.Errorf("%s: %w", k.what, err)
							}
							times[n] = time.Since(begin)
						}
						return nil
					})
				}
				if err := g.Wait(); err != nil {
					return report, err
				}
				used[i] += weaviate.cpu() - before
				answered := slices.DeleteFunc(times, func(d time.Duration) bool { return d == 0 })
				took[i], spent[i], failed[i] = append(took[i], answered...), spent[i]+time.Since(start), failed[i]+round*clients-len(answered)
			}
		}
		bare := RecallTime{}
		for i, k := range kinds {
			slices.Sort(took[i])
			row := RecallTime{What: k.what, Clients: clients, P50Millis: quantile(took[i], 0.5), P99Millis: quantile(took[i], 0.99),
				PerSecond: float64(len(took[i])) / spent[i].Seconds(), Failed: failed[i],
				CPUMillis: 1000 * used[i].Seconds() / float64(len(took[i])+failed[i])}
			if i == 0 {
				bare = row
			}
			row.P50Ratio, row.P99Ratio = row.P50Millis/bare.P50Millis, row.P99Millis/bare.P99Millis
			row.CPURatio = row.CPUMillis / bare.CPUMillis
			report.Rows = append(report.Rows, row)
		}
	}
	return report, nil
}

// project is that of the keys of a standalone Hone.
const project = "default"

// load writes cases at the titles' vectors, and n exchanges around them at a
// cosine of about 0.8, as a case's questions are.
func load(ctx context.Context, index *vector.Client, embedder embedding.Embedder, titles []string, n int, random *rand.Rand, w io.Writer) (int, float64, error) {
	centers, err := embedder.Embed(ctx, titles)
	if err != nil {
		return 0, 0, err
	}
	now := timestamppb.Now()
	var cases []vector.Object
	for i, title := range titles {
		c := &casesv1.Case{CaseId: fmt.Sprint("cs_bench_", i), ProjectId: project, Title: title, State: "new", Negatives: uint32(n / len(titles)),
			Categories: map[string]uint32{"factually_incorrect": 1}, Complaints: []string{"This is not right."}, FirstSeen: now, LastSeen: now}
		data, err := proto.Marshal(c)
		if err != nil {
			return 0, 0, fmt.Errorf("encode case: %w", err)
		}
		cases = append(cases, vector.Object{ID: ids.UUID(project, c.CaseId), Vector: centers[i], Payload: data,
			Properties: map[string]any{"case_id": c.CaseId, "state": c.State, "negatives": int(c.Negatives), "embedding_model": embedder.Model()}})
	}
	if err := index.Upsert(ctx, vector.Cases, project, cases); err != nil {
		return 0, 0, err
	}

	start := time.Now()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(loaders)
	const chunk = 200
	for from := 0; from < n && gctx.Err() == nil; from += chunk {
		seed := random.Uint64()
		g.Go(func() error {
			random := rand.New(rand.NewPCG(seed, uint64(from)))
			var objects []vector.Object
			for i := from; i < min(from+chunk, n); i++ {
				of := random.IntN(len(titles))
				o, err := exchange(i, of, titles[of], near(centers[of], 0.8, random), embedder.Model())
				if err != nil {
					return err
				}
				objects = append(objects, o)
			}
			return index.Upsert(gctx, vector.Exchanges, project, objects)
		})
		if from%100_000 == 0 && from > 0 {
			fmt.Fprintf(w, "  %d of %d exchanges, %.0f per second\n", from, n, float64(from)/time.Since(start).Seconds())
		}
	}
	if err := g.Wait(); err != nil {
		return 0, 0, err
	}
	return n, float64(n) / time.Since(start).Seconds(), nil
}

func exchange(i, of int, query string, v []float32, model string) (vector.Object, error) {
	id := fmt.Sprint("sg_bench_", i)
	e := &casesv1.Exchange{Published: &casesv1.CaseSignal{
		Signal: &signalv1.Signal{SignalId: id, ProjectId: project, Polarity: "negative", Revision: 1, Interaction: &eventv1.Interaction{Query: query}},
		Case:   &casesv1.Case{CaseId: fmt.Sprint("cs_bench_", of), ProjectId: project, Title: query},
	}}
	data, err := proto.Marshal(e)
	if err != nil {
		return vector.Object{}, fmt.Errorf("encode exchange: %w", err)
	}
	return vector.Object{ID: ids.UUID(project, id), Vector: v, Payload: data, Properties: map[string]any{
		"signal_id": id, "case_id": e.Published.Case.CaseId, "session_id": fmt.Sprint("s-", i), "user_id": fmt.Sprint("u-", i),
		"polarity": "negative", "withdrawn": false, "occurred_at": time.Now(), "embedding_model": model,
	}}, nil
}

// near is a unit vector at a cosine to v.
func near(v []float32, cosine float64, random *rand.Rand) []float32 {
	noise := make([]float64, len(v))
	var along, length float64
	for i := range noise {
		noise[i] = random.NormFloat64()
		along += noise[i] * float64(v[i])
	}
	for i := range noise { // at a right angle to v
		noise[i] -= along * float64(v[i])
		length += noise[i] * noise[i]
	}
	scale := math.Sqrt((1 - cosine*cosine) / length)
	out := make([]float32, len(v))
	for i := range out {
		out[i] = float32(cosine*float64(v[i]) + scale*noise[i])
	}
	return out
}

func recallHTTP(ctx context.Context, e endpoints.Endpoints, query string) error {
	body, err := protojson.Marshal(&recallv1.RecallRequest{Query: query})
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.HTTP+"/v1/recall", bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+e.SecretKey)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode == http.StatusServiceUnavailable {
		return errTooSlow
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", resp.Status, answer)
	}
	return nil
}

func quantile(sorted []time.Duration, q float64) float64 {
	if len(sorted) == 0 {
		return math.NaN()
	}
	return float64(sorted[min(int(q*float64(len(sorted))), len(sorted)-1)].Microseconds()) / 1000
}

func portOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Port()
}

// process is another one on this machine; empty where /proc does not say.
type process string

// weaviateProcess is the Weaviate with an argument.
func weaviateProcess(argument string) (process, error) {
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return "", fmt.Errorf("find weaviate: %w", err)
	}
	for _, f := range files {
		line, err := os.ReadFile(f)
		if err != nil { // it ended meanwhile
			continue
		}
		words := strings.Split(string(line), "\x00")
		if filepath.Base(words[0]) == "weaviate-server" && slices.Contains(words, argument) {
			return process(filepath.Dir(f)), nil
		}
	}
	return "", nil
}

func (p process) residentMB() (float64, error) {
	if p == "" {
		return 0, nil
	}
	status, err := os.ReadFile(filepath.Join(string(p), "status"))
	if err != nil {
		return 0, fmt.Errorf("read memory of weaviate: %w", err)
	}
	for l := range strings.Lines(string(status)) {
		var kb float64
		if _, err := fmt.Sscanf(l, "VmRSS: %f kB", &kb); err == nil {
			return kb / 1024, nil
		}
	}
	return 0, nil
}

// cpu is the processor time that it and this process have used; 0 where the
// system does not say.
func (p process) cpu() time.Duration {
	stat, err := os.ReadFile(filepath.Join(string(p), "stat"))
	if p == "" || err != nil {
		return 0
	}
	_, fields, _ := strings.Cut(string(stat), ") ") // behind the name
	used := cputime.Self()
	for i, f := range strings.Fields(fields) {
		if i == 11 || i == 12 { // user and system time
			ticks, _ := strconv.ParseInt(f, 10, 64) // a number, as the kernel wrote it
			used += time.Duration(ticks) * tick
		}
	}
	return used
}

// tick is the unit of these times on Linux.
const tick = 10 * time.Millisecond
