package embedding_test

import (
	"cmp"
	"encoding/csv"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/honeloop/hone/pkg/embedding"
	"github.com/honeloop/hone/pkg/repotest"
)

// column reads a column of a CSV file of the shared data.
func column(b *testing.B, file, name string) []string {
	b.Helper()
	f, err := os.Open(repotest.SharedData(b, file))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		b.Fatalf("read %s: %v", file, err)
	}
	at := slices.Index(rows[0], name)
	if at < 0 {
		b.Fatalf("%s has no column %s", file, name)
	}
	var out []string
	for _, row := range rows[1:] {
		out = append(out, row[at])
	}
	return out
}

// BenchmarkEmbed measures texts per second of the provider, cache off, beside
// the bare model: the same runs with the word pieces made beforehand. The two
// take turns by 128 texts, so that other work on the machine meets both.
// of-bare compares times, cpu-of-bare the processor time, which a busy machine
// disturbs less. in-batches is the bare model in batches of 32 texts of equal length.
func BenchmarkEmbed(b *testing.B) {
	for _, part := range []struct {
		name, file, column, variant string
		texts                       int
	}{
		{"banking77/int8", "banking77/train.csv", "text", embedding.VariantInt8, 256},
		{"banking77/fp32", "banking77/train.csv", "text", embedding.VariantFP32, 256},
		{"iflm-queries/int8", "iflm/query_logs_table.csv", "user_query", embedding.VariantInt8, 256},
		{"iflm-answers/int8", "iflm/query_logs_table.csv", "llm_response_1", embedding.VariantInt8, 64},
	} {
		texts := column(b, part.file, part.column)
		random := rand.New(rand.NewPCG(1, 2))
		random.Shuffle(len(texts), func(i, j int) { texts[i], texts[j] = texts[j], texts[i] })
		b.Run(part.name, func(b *testing.B) { benchEmbed(b, texts[:part.texts], part.variant) })
	}
}

func benchEmbed(b *testing.B, texts []string, name string) {
	const rounds = 3
	threads := embedding.DefaultConfig().Threads
	p := open(b, variant(name))
	bare := embedding.BareModel(p)
	embed := func(texts []string) {
		if _, err := p.Embed(b.Context(), texts); err != nil {
			b.Fatal(err)
		}
	}
	embed(texts[:16]) // warm
	var own, alone, batched spent
	for b.Loop() {
		for range rounds {
			for chunk := range slices.Chunk(texts, 128) {
				var runs, batches []run
				byLength := make(map[int][]int32)
				for _, text := range chunk {
					ids := bare.Tokens(text)
					runs = append(runs, run{ids, 1})
					byLength[len(ids)] = append(byLength[len(ids)], ids...)
				}
				for length, ids := range byLength {
					for batch := range slices.Chunk(ids, 32*length) {
						batches = append(batches, run{batch, len(batch) / length})
					}
				}
				longest := func(x, y run) int { return cmp.Compare(len(y.ids), len(x.ids)) }
				slices.SortFunc(runs, longest)
				slices.SortFunc(batches, longest)
				own.add(b, func() { embed(chunk) })
				alone.add(b, func() { runAll(b, bare, runs, threads) })
				batched.add(b, func() { runAll(b, bare, batches, threads) })
			}
		}
	}
	rate := func(s spent) float64 { return float64(len(texts)*rounds*b.N) / s.wall.Seconds() }
	var single []time.Duration
	for _, text := range texts {
		start := time.Now()
		embed([]string{text})
		single = append(single, time.Since(start))
	}
	slices.Sort(single)
	ms := func(share float64) float64 {
		return float64(single[int(share*float64(len(single)-1))].Microseconds()) / 1000
	}
	pieces := 0
	for _, text := range texts {
		pieces += len(bare.Tokens(text))
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(rate(own), "texts/s")
	b.ReportMetric(rate(alone), "bare-texts/s")
	b.ReportMetric(rate(batched), "in-batches-texts/s")
	b.ReportMetric(rate(own)/rate(alone), "of-bare")
	b.ReportMetric(alone.cpu.Seconds()/own.cpu.Seconds(), "cpu-of-bare")
	b.ReportMetric(batched.cpu.Seconds()/own.cpu.Seconds(), "cpu-of-batches")
	b.ReportMetric(ms(0.5), "p50-ms")
	b.ReportMetric(ms(0.99), "p99-ms")
	b.ReportMetric(float64(pieces)/float64(len(texts)), "pieces/text")
}

// spent is time that passed and time of the processors.
type spent struct{ wall, cpu time.Duration }

func (s *spent) add(b *testing.B, f func()) {
	cpu, start := processorTime(b), time.Now()
	f()
	s.wall += time.Since(start)
	s.cpu += processorTime(b) - cpu
}

func processorTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// run is the input of one run of the bare model.
type run struct {
	ids  []int32
	rows int
}

func runAll(b *testing.B, bare embedding.Bare, runs []run, workers int) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for {
				n := int(next.Add(1)) - 1
				if n >= len(runs) {
					return
				}
				if err := bare.Run(runs[n].ids, runs[n].rows); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// BenchmarkRecall measures quality on BANKING77: five examples of each intent
// are known, the rest is asked. It prints what thresholds of similarity would do.
func BenchmarkRecall(b *testing.B) {
	texts := column(b, "banking77/train.csv", "text")
	intents := column(b, "banking77/train.csv", "category")
	for name, change := range map[string]func(*embedding.Config){
		"hash": hash,
		"int8": variant(embedding.VariantInt8),
		"fp32": variant(embedding.VariantFP32),
	} {
		b.Run(name, func(b *testing.B) {
			p := open(b, change)
			for b.Loop() {
				var vectors [][]float32
				for chunk := range slices.Chunk(texts, 1000) {
					v, err := p.Embed(b.Context(), chunk)
					if err != nil {
						b.Fatal(err)
					}
					vectors = append(vectors, v...)
				}
				recall(b, vectors, intents)
			}
			b.ReportMetric(0, "ns/op")
		})
	}
}

// asked is one question and the nearest of the known ones.
type asked struct {
	similarity float64
	right      bool
}

func recall(b *testing.B, vectors [][]float32, intents []string) {
	const draws, shots = 3, 5
	var at1, at5, centroid, n float64
	var nearest []asked
	var same, other []float64
	for draw := range draws {
		random := rand.New(rand.NewPCG(uint64(draw), 7))
		known := make(map[string][]int)
		var questions []int
		for _, i := range random.Perm(len(vectors)) {
			if len(known[intents[i]]) < shots {
				known[intents[i]] = append(known[intents[i]], i)
			} else {
				questions = append(questions, i)
			}
		}
		var examples []int
		centers := make(map[string][]float32)
		for intent, members := range known {
			examples = append(examples, members...)
			centers[intent] = mean(vectors, members)
		}
		for _, q := range questions[:2500] {
			type hit struct {
				similarity float64
				example    int
			}
			var hits []hit
			for _, e := range examples {
				s := embedding.Similarity(vectors[q], vectors[e])
				hits = append(hits, hit{s, e})
				if intents[e] == intents[q] {
					same = append(same, s)
				} else if random.IntN(76) == 0 {
					other = append(other, s)
				}
			}
			slices.SortFunc(hits, func(x, y hit) int { return cmp.Compare(y.similarity, x.similarity) })
			right := intents[hits[0].example] == intents[q]
			nearest = append(nearest, asked{hits[0].similarity, right})
			n++
			at1 += one(right)
			at5 += one(slices.ContainsFunc(hits[:5], func(h hit) bool { return intents[h.example] == intents[q] }))
			best, bestIntent := -2.0, ""
			for intent, c := range centers {
				if s := embedding.Similarity(vectors[q], c); s > best {
					best, bestIntent = s, intent
				}
			}
			centroid += one(bestIntent == intents[q])
		}
	}
	b.ReportMetric(at1/n, "recall@1")
	b.ReportMetric(at5/n, "recall@5")
	b.ReportMetric(centroid/n, "centroid@1")
	var out strings.Builder
	fmt.Fprintf(&out, "similarity      p1    p5   p25   p50   p75   p95   p99\n")
	var rightOnes, wrongOnes []float64
	for _, a := range nearest {
		if a.right {
			rightOnes = append(rightOnes, a.similarity)
		} else {
			wrongOnes = append(wrongOnes, a.similarity)
		}
	}
	for _, row := range []struct {
		name string
		of   []float64
	}{{"same intent", same}, {"other intent", other}, {"nearest right", rightOnes}, {"nearest wrong", wrongOnes}} {
		slices.Sort(row.of)
		fmt.Fprintf(&out, "%-13s", row.name)
		for _, share := range []float64{.01, .05, .25, .5, .75, .95, .99} {
			fmt.Fprintf(&out, " %5.3f", row.of[int(share*float64(len(row.of)-1))])
		}
		fmt.Fprintln(&out)
	}
	fmt.Fprintf(&out, "threshold  nearest at or over  of these right  same pairs over  other pairs over\n")
	for t := 0.30; t < 0.96; t += 0.05 {
		var over, right float64
		for _, a := range nearest {
			if a.similarity >= t {
				over++
				right += one(a.right)
			}
		}
		fmt.Fprintf(&out, "%9.2f %19.3f %15.3f %16.3f %17.5f\n", t, over/n, right/math.Max(over, 1), shareOver(same, t), shareOver(other, t))
	}
	fmt.Printf("\n%s\n%s", b.Name(), &out) // b.Log stops after ten lines
}

func mean(vectors [][]float32, members []int) []float32 {
	sum := make([]float32, len(vectors[0]))
	for _, m := range members {
		for d, x := range vectors[m] {
			sum[d] += x
		}
	}
	length := math.Sqrt(embedding.Similarity(sum, sum))
	for d := range sum {
		sum[d] = float32(float64(sum[d]) / length)
	}
	return sum
}

func one(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// shareOver is the share of sorted values at or over t.
func shareOver(sorted []float64, t float64) float64 {
	at, _ := slices.BinarySearch(sorted, t)
	return 1 - float64(at)/float64(len(sorted))
}
