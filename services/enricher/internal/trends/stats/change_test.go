package stats

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

// draw is a series of shares, each with n units.
func draw(rng *rand.Rand, n int64, shares ...float64) []Bucket {
	out := make([]Bucket, len(shares))
	for i, p := range shares {
		out[i].N = n
		for range n {
			if rng.Float64() < p {
				out[i].Hits++
			}
		}
	}
	return out
}

func constant(p float64, length int) []float64 { return slices.Repeat([]float64{p}, length) }

func TestSeriesThatDoNotChangeHaveChangesAsRarelyAsStated(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	const series, alpha = 400, 0.05
	for _, tt := range []struct {
		name string
		n    int64
		p    float64
	}{{"few", 3, 0.2}, {"many", 60, 0.5}, {"rare", 40, 0.02}} {
		found := 0
		for range series {
			if len(Changes(draw(rng, tt.n, constant(tt.p, 30)...), alpha)) > 0 {
				found++
			}
		}
		// Three standard deviations over alpha.
		if limit := series*alpha + 3*math.Sqrt(series*alpha*(1-alpha)); float64(found) > limit {
			t.Errorf("%s: %d of %d have a change, want at most %.0f", tt.name, found, series, limit)
		}
	}
}

func TestChangesAreFoundWhereTheyAre(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 20 {
		series := draw(rng, 100, slices.Concat(constant(0.1, 20), constant(0.4, 15), constant(0.15, 20))...)
		got := Changes(series, 0.01)
		var at []int
		for _, c := range got {
			at = append(at, c.At)
		}
		if len(at) < 2 || at[0] < 19 || at[0] > 21 || at[len(at)-1] < 34 || at[len(at)-1] > 36 || len(at) > 3 {
			t.Errorf("changes at %v, want 20 and 35", at)
		}
	}
}

func TestChangesOfLittle(t *testing.T) {
	for name, series := range map[string][]Bucket{
		"nothing": nil, "one": {{5, 9}}, "empty buckets": {{0, 0}, {0, 0}}, "too few": {{9, 9}, {0, 9}}, "all hits": {{50, 50}, {50, 50}},
	} {
		if got := Changes(series, 0.01); len(got) > 0 {
			t.Errorf("%s: %v", name, got)
		}
	}
	series := []Bucket{{0, 60}, {0, 0}, {0, 0}, {30, 60}}
	a, b := Changes(series, 0.01), Changes(series, 0.01)
	if len(a) != 1 || a[0].At != 3 || !slices.Equal(a, b) {
		t.Errorf("%v and %v, want one change at 3, twice", a, b)
	}
}

func TestHypergeometricDraws(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for _, h := range []hypergeometric{{5, 7, 6}, {300, 20_000, 900}, {1, 1, 1}, {0, 9, 4}, {9, 0, 4}} {
		const draws = 20_000
		var sum float64
		counts := map[int64]int{}
		for range draws {
			k := h.draw(rng)
			sum += float64(k)
			counts[k]++
		}
		n := float64(h.hits + h.misses)
		mean := float64(h.draws) * float64(h.hits) / n
		sd := math.Sqrt(mean * float64(h.misses) / n * (n - float64(h.draws)) / max(n-1, 1))
		near(t, "mean", sum/draws, mean, 4*sd/math.Sqrt(draws)+1e-12)
		for k, c := range counts {
			p := math.Exp(h.log(k))
			near(t, "frequency", float64(c)/draws, p, 5*math.Sqrt(p/draws))
		}
	}
}

func TestDetectorAlarmsAsRarelyAsStated(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	const threshold, runs, limit = 50, 200, 1000
	for _, n := range []int64{1, 20} {
		total := 0
		for range runs {
			d := NewDetector(0.2)
			for steps := 1; ; steps++ {
				if e, _ := d.Observe(draw(rng, n, 0.2)[0]); e >= threshold || steps == limit {
					total += steps
					break
				}
			}
		}
		if mean := float64(total) / runs; mean < threshold {
			t.Errorf("buckets of %d: %.0f buckets to a false alarm on average, want at least %d", n, mean, threshold)
		}
	}
}

func TestDetectorSeesARiseSoon(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	for range 50 {
		d := NewDetector(0.1)
		for i, b := range draw(rng, 50, slices.Concat(constant(0.1, 40), constant(0.25, 40))...) {
			evidence, began := d.Observe(b)
			if evidence < 720 {
				continue
			}
			if i < 40 {
				t.Errorf("alarm at %d, before the rise", i)
			}
			if i > 50 || began < 30 {
				t.Errorf("alarm at %d for a rise that began at %d, want it soon after 40", i, began)
			}
			break
		}
	}
}
