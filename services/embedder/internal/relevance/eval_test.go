package relevance

import (
	"cmp"
	"encoding/csv"
	"encoding/json"
	"flag"
	"fmt"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/honeloop/hone/pkg/embedding"
	"github.com/honeloop/hone/pkg/repotest"
	"github.com/honeloop/hone/pkg/telemetry"
)

var fit = flag.Bool("fit", false, "fit the weights on half of the intents, and write weights.json")

const (
	shots   = 5   // exchanges known of each intent
	unknown = 0.1 // share of intents of which nothing is known
	draws   = 5
	partly  = 750 // questions asked before, of BackgroundSize
)

// question is a text with what is known near it.
type question struct {
	neighbors []Neighbor // of the cases, MaxNeighbors of them
	founders  []Neighbor // the first exchange of every case
	around    Surroundings
	half      Surroundings // when less was asked before
	first     Surroundings // when nobody asked about the unknown intents before
	intent    string
	known     bool
}

// BenchmarkEval measures recall on BANKING77: five questions of each intent are
// a case's exchanges, a tenth of the intents is unknown, all other questions
// are asked. The weights were fitted on half of the intents; what is said of
// "new" counts only questions of the other half, which compete with all cases.
// The nearest exchanges are found exactly; in production Weaviate finds them.
func BenchmarkEval(b *testing.B) {
	texts, intents := banking(b)
	far := column(b, "iflm/query_logs_table.csv", "user_query")[:250]
	all := map[string]Weights{}
	if err := json.Unmarshal(weightsFile, &all); err != nil {
		b.Fatal(err)
	}
	for _, provider := range []string{embedding.ProviderMiniLM, embedding.ProviderHash} {
		cfg := embedding.DefaultConfig()
		cfg.Provider, cfg.CacheBytes = provider, 0
		e, err := embedding.New(cfg, telemetry.Discard())
		if err != nil {
			b.Fatal(err)
		}
		vectors, strangers := embed(b, e, texts), embed(b, e, far)
		if err := e.Close(); err != nil {
			b.Fatal(err)
		}
		if *fit {
			w := fitted(vectors, intents)
			if provider == embedding.ProviderHash {
				// What is around a query says nothing new by its spelling: AUROC near
				// stays 0.67, and far falls from 0.99 to 0.86.
				w.Around = AroundWeights{}
			}
			all[e.Model()] = w
		}
		report(e.Model(), all[e.Model()], vectors, strangers, intents)
	}
	b.ReportMetric(0, "ns/op")
	if *fit {
		data, err := json.MarshalIndent(all, "", "  ")
		if err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile("weights.json", append(data, '\n'), 0o644); err != nil {
			b.Fatal(err)
		}
	}
}

func report(model string, w Weights, vectors, strangers [][]float32, intents []string) {
	fmt.Printf("\n%s, weights %+v\nseed  what                           recall@1  recall@5   AUROC near  AUROC far   ECE first  ECE of five\n", model, w)
	var pooled, pooledNew, pooledFar []question
	names := distinct(intents)
	for seed := range uint64(draws) {
		qs, farQs := draw(seed, names, vectors, strangers, intents)
		pooled, pooledFar = append(pooled, qs...), append(pooledFar, farQs...)
		var fresh []question
		for _, q := range qs {
			if !ofTraining(q.intent) {
				fresh = append(fresh, q)
			}
		}
		pooledNew = append(pooledNew, fresh...)
		row(fmt.Sprint(seed), "all", qs, farQs, w)
		row(fmt.Sprint(seed), "new", fresh, farQs, w)
	}
	founders := slices.Clone(pooled)
	nearest := slices.Clone(pooled)
	for i := range pooled {
		founders[i].neighbors, founders[i].around = pooled[i].founders, Surroundings{}
		nearest[i].neighbors, nearest[i].around = best(pooled[i].neighbors), Surroundings{}
	}
	row("all", "nearest founder", founders, pooledFar, w)
	row("all", "nearest exchange", nearest, pooledFar, w)
	for _, what := range []struct {
		name string
		qs   []question
	}{{"this rule", pooled}, {"this rule, new", pooledNew}} {
		for _, asked := range []struct {
			name string
			of   func(question) Surroundings
		}{
			{"nothing asked", func(question) Surroundings { return Surroundings{} }},
			{fmt.Sprint(partly), func(q question) Surroundings { return q.half }},
			{fmt.Sprint(BackgroundSize), func(q question) Surroundings { return q.around }},
			{"unknown not", func(q question) Surroundings { return q.first }},
		} {
			with := func(in []question) []question {
				out := slices.Clone(in)
				for i := range out {
					out[i].around = asked.of(in[i])
				}
				return out
			}
			row("all", what.name+", "+asked.name, with(what.qs), with(pooledFar), w)
		}
	}

	fmt.Printf("reliability of the first, new: relevance, share right, questions\n")
	var bins [10]struct{ said, right, n float64 }
	for _, q := range pooledNew {
		_, cases := Rank(q.neighbors, q.around, w)
		bin := &bins[min(9, int(cases[0].Relevance*10))]
		bin.said += cases[0].Relevance
		bin.right += one(cases[0].Case == q.intent)
		bin.n++
	}
	for _, bin := range bins {
		if bin.n > 0 {
			fmt.Printf("  %.2f  %.2f  %5.0f\n", bin.said/bin.n, bin.right/bin.n, bin.n)
		}
	}
	fmt.Printf("min_relevance  known: not quiet, right one among three   quiet: near unknown, far unknown (new)\n")
	for _, threshold := range []float64{0.3, 0.5, 0.7, 0.75, 0.8, 0.9} {
		var n, spoke, right, unknowns, quiet, farQuiet float64
		for _, q := range pooledNew {
			known, cases := Rank(q.neighbors, q.around, w)
			spoken := known >= threshold
			if !q.known {
				unknowns++
				quiet += one(!spoken)
				continue
			}
			n++
			spoke += one(spoken)
			right += one(spoken && contains(cases[:min(3, len(cases))], q.intent))
		}
		for _, q := range pooledFar {
			known, _ := Rank(q.neighbors, q.around, w)
			farQuiet += one(known < threshold)
		}
		fmt.Printf("%13.2f %17.3f %23.3f %21.3f %13.3f\n", threshold, spoke/n, right/n, quiet/unknowns, farQuiet/float64(len(pooledFar)))
	}
}

func row(seed, what string, qs, far []question, w Weights) {
	var n, at1, at5 float64
	var in, near, off []float64
	var first, five calibration
	for _, q := range qs {
		known, cases := Rank(q.neighbors, q.around, w)
		for i, c := range cases[:min(5, len(cases))] {
			right := c.Case == q.intent
			five.add(c.Relevance, right)
			if i == 0 {
				first.add(c.Relevance, right)
			}
		}
		if !q.known {
			near = append(near, known)
			continue
		}
		in = append(in, known)
		n++
		at1 += one(cases[0].Case == q.intent)
		at5 += one(contains(cases[:min(5, len(cases))], q.intent))
	}
	for _, q := range far {
		known, _ := Rank(q.neighbors, q.around, w)
		off = append(off, known)
	}
	fmt.Printf("%4s  %-29s %9.3f %9.3f %12.3f %10.3f %11.3f %12.3f\n", seed, what, at1/n, at5/n, auroc(in, near), auroc(in, off), first.error(), five.error())
}

// draw makes the questions of one seed; strangers are of another domain. Half
// of the questions, without what they are about, are what was asked before; the
// others are asked now.
func draw(seed uint64, names []string, vectors, strangers [][]float32, intents []string) (asked, far []question) {
	random := rand.New(rand.NewPCG(seed, 6))
	names, all := slices.Clone(names), len(distinct(intents))
	random.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
	left := names[:int(math.Round(unknown*float64(len(names))))]
	count := map[string]int{}
	var examples, questions []int
	for _, i := range random.Perm(len(vectors)) {
		switch intent := intents[i]; {
		case !slices.Contains(names, intent):
		case !slices.Contains(left, intent) && count[intent] < shots:
			count[intent]++
			examples = append(examples, i)
		default:
			questions = append(questions, i)
		}
	}
	ask := func(v []float32, intent string, known bool) question {
		q := question{intent: intent, known: known}
		founded := map[string]bool{}
		for _, e := range examples {
			n := Neighbor{intents[e], embedding.Similarity(v, vectors[e])}
			q.neighbors = append(q.neighbors, n)
			if !founded[n.Case] {
				founded[n.Case] = true
				q.founders = append(q.founders, n)
			}
		}
		slices.SortFunc(q.neighbors, func(a, b Neighbor) int { return cmp.Compare(b.Similarity, a.Similarity) })
		q.neighbors = q.neighbors[:min(MaxNeighbors, len(q.neighbors))]
		return q
	}
	before := questions[:len(questions)/2]
	questions = questions[len(before):]
	size := BackgroundSize * len(names) / all
	background := func(n int, of func(intent string) bool) *Background {
		b := NewBackground(size)
		for _, i := range before {
			if len(b.asked) < n && of(intents[i]) {
				b.Add(time.Time{}, vectors[i], ask(vectors[i], intents[i], false).neighbors)
			}
		}
		for range b.asked {
			q := b.Stalest()
			b.Renew(q, ask(q.Vector(), "", false).neighbors)
		}
		return b
	}
	any := func(string) bool { return true }
	full := background(size, any)
	var less, first *Background // are of no use to the fit
	if strangers != nil {
		less = background(partly*size/BackgroundSize, any)
		first = background(size, func(intent string) bool { return !slices.Contains(left, intent) })
	}
	look := func(v []float32, intent string, known bool) question {
		q := ask(v, intent, known)
		q.around = full.Around(v, q.neighbors)
		if strangers != nil {
			q.half, q.first = less.Around(v, q.neighbors), first.Around(v, q.neighbors)
		}
		return q
	}
	for _, i := range questions[:min(1500, len(questions))] {
		asked = append(asked, look(vectors[i], intents[i], !slices.Contains(left, intents[i])))
	}
	for _, v := range strangers {
		far = append(far, look(v, "", false))
	}
	return asked, far
}

// best keeps the nearest exchange of each case.
func best(sorted []Neighbor) []Neighbor {
	var out []Neighbor
	for _, n := range sorted {
		if !slices.ContainsFunc(out, func(o Neighbor) bool { return o.Case == n.Case }) {
			out = append(out, n)
		}
	}
	return out
}

// fitted are the weights of greatest likelihood on half of the intents, of
// which a tenth is unknown in each draw.
func fitted(vectors [][]float32, intents []string) Weights {
	names := slices.DeleteFunc(distinct(intents), func(n string) bool { return !ofTraining(n) })
	var qs []question
	for seed := range uint64(10) {
		drawn, _ := draw(1000+seed, names, vectors, nil, intents)
		qs = append(qs, drawn...)
	}
	w := Weights{Slope: 1, Sharpness: 20}
	var alone, around []example
	var crowds []float64
	for _, q := range qs {
		best := q.neighbors[0].Similarity
		alone = append(alone, example{[]float64{best}, q.known})
		around = append(around, example{[]float64{q.around.Contrast, best, q.around.Crowd}, q.known})
		crowds = append(crowds, q.around.Crowd)
	}
	bias, weights := logistic(alone)
	w.Bias, w.Slope = bias, weights[0]
	bias, weights = logistic(around)
	slices.Sort(crowds)
	near := crowds[len(crowds)/20]
	w.Around = AroundWeights{Bias: bias, Contrast: weights[0], Similarity: weights[1], Crowd: weights[2], Far: 0.6 * near, Near: near}
	bestLikelihood := math.Inf(-1)
	for sharpness := 2.0; sharpness <= 60; sharpness += 0.5 {
		var likelihood float64
		for _, q := range qs {
			if !q.known {
				continue
			}
			known, cases := Rank(q.neighbors, Surroundings{}, Weights{Bias: w.Bias, Slope: w.Slope, Sharpness: sharpness})
			share := 1e-6 // of a case that is not among the neighbors
			for _, c := range cases {
				if c.Case == q.intent {
					share = max(share, c.Relevance/known)
				}
			}
			likelihood += math.Log(share)
		}
		if likelihood > bestLikelihood {
			bestLikelihood, w.Sharpness = likelihood, sharpness
		}
	}
	a := w.Around
	return Weights{round(w.Bias), round(w.Slope), w.Sharpness,
		AroundWeights{round(a.Bias), round(a.Contrast), round(a.Similarity), round(a.Crowd), round(a.Far), round(a.Near)}}
}

// example is what is seen of a question, and whether it is about a known problem.
type example struct {
	seen  []float64
	known bool
}

// logistic is the bias and the weights of greatest likelihood.
func logistic(examples []example) (bias float64, weights []float64) {
	n := len(examples[0].seen) + 1
	w := make([]float64, n)
	for range 30 { // Newton's method
		h := make([][]float64, n) // and the gradient behind it
		for i := range h {
			h[i] = make([]float64, n+1)
		}
		for _, e := range examples {
			x := append([]float64{1}, e.seen...)
			var odds float64
			for i := range x {
				odds += w[i] * x[i]
			}
			p := sigmoid(odds)
			for i := range x {
				for j := range x {
					h[i][j] += p * (1 - p) * x[i] * x[j]
				}
				h[i][n] += (one(e.known) - p) * x[i]
			}
		}
		for i, step := range solved(h) {
			w[i] += step
		}
	}
	return w[0], w[1:]
}

// solved is the solution of linear equations, by elimination; each row ends
// with its right side.
func solved(rows [][]float64) []float64 {
	n := len(rows)
	for i := range n {
		for j := range n {
			if j == i {
				continue
			}
			f := rows[j][i] / rows[i][i]
			for k := i; k <= n; k++ {
				rows[j][k] -= f * rows[i][k]
			}
		}
	}
	x := make([]float64, n)
	for i := range n {
		x[i] = rows[i][n] / rows[i][i]
	}
	return x
}

func round(x float64) float64 { return math.Round(100*x) / 100 }

// ofTraining is a fixed half of the intents.
func ofTraining(intent string) bool {
	h := fnv.New32a()
	_, _ = h.Write([]byte(intent)) // never fails
	return h.Sum32()%2 == 0
}

// calibration compares what was said with what was so, in ten bins.
type calibration struct{ said, so, n [10]float64 }

func (c *calibration) add(p float64, right bool) {
	bin := min(9, int(p*10))
	c.said[bin] += p
	c.so[bin] += one(right)
	c.n[bin]++
}

// error is the expected calibration error.
func (c *calibration) error() float64 {
	var sum, n float64
	for i := range c.n {
		sum += math.Abs(c.said[i] - c.so[i])
		n += c.n[i]
	}
	return sum / n
}

// auroc is the probability that a known question has a higher value than an
// unknown one.
func auroc(known, unknown []float64) float64 {
	slices.Sort(unknown)
	var sum float64
	for _, v := range known {
		below, _ := slices.BinarySearch(unknown, v)
		through, _ := slices.BinarySearchFunc(unknown, v, func(e, v float64) int {
			if e <= v {
				return -1
			}
			return 1
		})
		sum += float64(below+through) / 2
	}
	return sum / float64(len(known)) / float64(len(unknown))
}

func contains(cases []Ranked, name string) bool {
	return slices.ContainsFunc(cases, func(c Ranked) bool { return c.Case == name })
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func distinct(in []string) []string {
	out := slices.Clone(in)
	slices.Sort(out)
	return slices.Compact(out)
}

func embed(b *testing.B, e embedding.Embedder, texts []string) [][]float32 {
	b.Helper()
	var out [][]float32
	for chunk := range slices.Chunk(texts, 1000) {
		v, err := e.Embed(b.Context(), chunk)
		if err != nil {
			b.Fatal(err)
		}
		out = append(out, v...)
	}
	return out
}

func banking(b *testing.B) (texts, intents []string) {
	return column(b, "banking77/train.csv", "text"), column(b, "banking77/train.csv", "category")
}

// column reads a column of a CSV file of the shared data.
func column(b *testing.B, file, name string) []string {
	b.Helper()
	f, err := os.Open(repotest.SharedData(b, file))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = f.Close() }() // only read
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		b.Fatalf("read %s: %v", file, err)
	}
	at := slices.Index(rows[0], name)
	if at < 0 {
		b.Fatalf("%s has no column %s", file, name)
	}
	var out []string
	for _, r := range rows[1:] {
		out = append(out, r[at])
	}
	return out
}
