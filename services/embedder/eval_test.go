package embedder

import (
	"context"
	"encoding/csv"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"text/tabwriter"

	"google.golang.org/protobuf/types/known/timestamppb"

	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"

	"github.com/honeloop/hone/pkg/embedding"
	"github.com/honeloop/hone/pkg/projects"
	"github.com/honeloop/hone/pkg/repotest"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/telemetry"
	"github.com/honeloop/hone/pkg/vector"
	"github.com/honeloop/hone/pkg/vector/vectortest"
)

// BenchmarkEvalCases streams complaints about questions of BANKING77 through
// the stages, in random orders, and compares the cases with the intents: as
// they are founded, and with a pass after every 500 signals. The index is exact
// and in memory.
func BenchmarkEvalCases(b *testing.B) {
	const signals, orders, every = 2000, 10, 500
	f, err := os.Open(repotest.SharedData(b, "banking77/train.csv"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		b.Fatal(err)
	}
	rows = rows[1:]
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%d signals of BANKING77, seeds 1 to %d; mean (least to most)\nembedder\tpass\tV-measure\thomogeneity\tcompleteness\tpurity\tcases\tof one signal\n", signals, orders)
	for _, provider := range []string{embedding.ProviderHash, embedding.ProviderMiniLM} {
		cfg := DefaultConfig()
		cfg.Embedding.Provider = provider
		e, err := embedding.New(cfg.Embedding, telemetry.Discard())
		if err != nil {
			b.Fatal(err)
		}
		for _, passes := range []bool{false, true} {
			var all []quality
			for seed := range uint64(orders) {
				order := rand.New(rand.NewPCG(seed+1, 0)).Perm(len(rows))[:signals]
				all = append(all, evalCases(b, cfg, e, rows, order, passes, every))
			}
			fmt.Fprintf(w, "%s\t%t", provider, passes)
			for _, get := range []func(quality) float64{
				func(q quality) float64 { return q.v }, func(q quality) float64 { return q.homogeneity },
				func(q quality) float64 { return q.completeness }, func(q quality) float64 { return q.purity },
			} {
				mean, least, most := spread(all, get)
				fmt.Fprintf(w, "\t%.3f (%.3f to %.3f)", mean, least, most)
			}
			for _, get := range []func(quality) float64{
				func(q quality) float64 { return q.cases }, func(q quality) float64 { return q.single },
			} {
				mean, least, most := spread(all, get)
				fmt.Fprintf(w, "\t%.0f (%.0f to %.0f)", mean, least, most)
			}
			fmt.Fprintln(w)
		}
		if err := e.Close(); err != nil {
			b.Fatal(err)
		}
	}
	fmt.Fprintln(w, "77 intents; all apart has purity 1, all together completeness 1")
	if err := w.Flush(); err != nil {
		b.Fatal(err)
	}
}

func evalCases(b *testing.B, cfg Config, e embedding.Embedder, rows [][]string, order []int, passes bool, every int) quality {
	ctx := context.Background()
	ix := vectortest.NewFake()
	s, c, err := stages(ix, e, cfg.Cases, cfg.joinThreshold(cfg.Embedding.Provider), projects.Defaults(), telemetry.Discard())
	if err != nil {
		b.Fatal(err)
	}
	p := newPass(ix, func(ctx context.Context, recs ...stage.Record) error {
		_, err := c.Process(ctx, recs)
		return err
	}, projects.Defaults(), cfg.mergeThreshold(cfg.Embedding.Provider), telemetry.Discard().Log)
	intents := map[string]string{}
	for part := range slices.Chunk(order, every) {
		for batch := range slices.Chunk(part, 100) {
			var in []stage.Record
			for _, i := range batch {
				id := fmt.Sprint("s", i)
				intents[id] = rows[i][1]
				value, err := encode(&signalv1.Signal{
					SignalId: id, ProjectId: "p", SessionId: id, Revision: 1, Polarity: negative, Confidence: 0.9,
					OccurredAt: timestamppb.New(start), Interaction: &eventv1.Interaction{Query: rows[i][0]},
				})
				if err != nil {
					b.Fatal(err)
				}
				in = append(in, stage.Record{Value: value})
			}
			if _, err := s.Process(ctx, in); err != nil {
				b.Fatal(err)
			}
		}
		for range 20 { // it goes on while it finds something
			if !passes {
				break
			}
			if n, err := p.project(ctx, "p"); err != nil {
				b.Fatal(err)
			} else if n == 0 {
				break
			}
		}
	}
	objects, err := ix.List(ctx, vector.Exchanges, "p", vector.ListQuery{Limit: vector.MaxResults})
	if err != nil {
		b.Fatal(err)
	}
	in := map[string]string{}
	for _, o := range objects {
		var x *casesv1.Exchange
		if x, err = decodeExchange(o); err != nil {
			b.Fatal(err)
		}
		in[x.GetPublished().GetSignal().GetSignalId()] = memberCase(x)
	}
	return qualityOf(in, intents)
}

// quality of clusters against classes, by Rosenberg and Hirschberg (2007).
type quality struct{ v, homogeneity, completeness, purity, cases, single float64 }

func qualityOf(clusters, classes map[string]string) quality {
	n := float64(len(clusters))
	k, c := map[string]float64{}, map[string]float64{}
	both := map[[2]string]float64{}
	for id, cluster := range clusters {
		k[cluster]++
		c[classes[id]]++
		both[[2]string{cluster, classes[id]}]++
	}
	entropy := func(counts map[string]float64) (h float64) {
		for _, x := range counts {
			h -= x / n * math.Log(x/n)
		}
		return h
	}
	var cGivenK, kGivenC float64
	most := map[string]float64{}
	for pair, x := range both {
		cGivenK -= x / n * math.Log(x/k[pair[0]])
		kGivenC -= x / n * math.Log(x/c[pair[1]])
		most[pair[0]] = max(most[pair[0]], x)
	}
	q := quality{homogeneity: 1, completeness: 1, cases: float64(len(k))}
	if h := entropy(c); h > 0 {
		q.homogeneity = 1 - cGivenK/h
	}
	if h := entropy(k); h > 0 {
		q.completeness = 1 - kGivenC/h
	}
	if sum := q.homogeneity + q.completeness; sum > 0 {
		q.v = 2 * q.homogeneity * q.completeness / sum
	}
	for x := range maps.Values(most) {
		q.purity += x / n
	}
	for _, x := range k {
		if x == 1 {
			q.single++
		}
	}
	return q
}

func spread(all []quality, get func(quality) float64) (mean, least, most float64) {
	least, most = math.Inf(1), math.Inf(-1)
	for _, q := range all {
		x := get(q)
		mean += x / float64(len(all))
		least, most = min(least, x), max(most, x)
	}
	return mean, least, most
}

func TestQualityOfClusters(t *testing.T) {
	classes := map[string]string{"1": "a", "2": "a", "3": "b", "4": "b"}
	for name, tt := range map[string]struct {
		clusters map[string]string
		want     quality
	}{
		"the classes":  {map[string]string{"1": "x", "2": "x", "3": "y", "4": "y"}, quality{1, 1, 1, 1, 2, 0}},
		"all apart":    {map[string]string{"1": "w", "2": "x", "3": "y", "4": "z"}, quality{2. / 3, 1, 0.5, 1, 4, 4}},
		"all together": {map[string]string{"1": "x", "2": "x", "3": "x", "4": "x"}, quality{0, 0, 1, 0.5, 1, 0}},
	} {
		got := qualityOf(tt.clusters, classes)
		for i, pair := range [][2]float64{{got.v, tt.want.v}, {got.homogeneity, tt.want.homogeneity}, {got.completeness, tt.want.completeness},
			{got.purity, tt.want.purity}, {got.cases, tt.want.cases}, {got.single, tt.want.single}} {
			if math.Abs(pair[0]-pair[1]) > 1e-9 {
				t.Errorf("%s: figure %d is %g, want %g", name, i, pair[0], pair[1])
			}
		}
	}
}
