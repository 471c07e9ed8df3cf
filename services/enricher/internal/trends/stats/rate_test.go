package stats

import (
	"math"
	"slices"
	"testing"
)

func near(t *testing.T, what string, got, want, by float64) {
	t.Helper()
	if math.IsNaN(got) || math.Abs(got-want) > by {
		t.Errorf("%s is %.6f, want %.6f", what, got, want)
	}
}

// Table I of Newcombe 1998, "Two-sided confidence intervals for the single
// proportion".
func TestWilsonHasThePublishedValues(t *testing.T) {
	for _, tt := range []struct{ hits, n, low, high float64 }{
		{81, 263, 0.2553, 0.3662}, {15, 148, 0.0624, 0.1605}, {0, 20, 0, 0.1611}, {1, 29, 0.0061, 0.1718},
		{20, 20, 0.8389, 1}, {0, 0, 0, 1},
	} {
		got := Wilson(tt.hits, tt.n)
		near(t, "low", got.Low, tt.low, 5e-5)
		near(t, "high", got.High, tt.high, 5e-5)
	}
}

// Table II of Newcombe 1998, "Interval estimation for the difference between
// independent proportions", method 10. There it is the first minus the second.
func TestDifferenceHasThePublishedValues(t *testing.T) {
	for _, tt := range []struct{ b, nb, a, na, low, high float64 }{
		{56, 70, 48, 80, 0.0524, 0.3339}, {9, 10, 3, 10, 0.1705, 0.8090}, {6, 7, 2, 7, 0.0582, 0.8062},
		{5, 56, 0, 29, -0.0381, 0.1926}, {0, 10, 0, 20, -0.1611, 0.2775}, {10, 10, 0, 20, 0.6791, 1}, {1, 0, 1, 9, -1, 1},
	} {
		got := Difference(tt.a, tt.na, tt.b, tt.nb)
		near(t, "low", got.Low, tt.low, 5e-5)
		near(t, "high", got.High, tt.high, 5e-5)
	}
}

func TestFisherExactHasThePublishedValues(t *testing.T) {
	for _, tt := range []struct {
		a, na, b, nb int64
		want         float64
	}{
		{3, 4, 1, 4, 0.485714},                                 // the lady tasting tea, two-sided
		{1, 12, 9, 12, 0.002759},                               // the example of Wikipedia
		{2, 12, 10, 12, 2 * 4501.0 / 2704156}, {0, 5, 0, 9, 1}, // by hand; all alike
		{10, 30, 10, 30, 1}, {0, 0, 3, 5, 1}, // nothing to compare
		{500_000, 1_000_000, 500_000, 1_000_000, 1},   // large counts
		{500_000, 1_000_000, 510_000, 1_000_000, 0.0}, // z = 14
	} {
		near(t, "p", FisherExact(tt.a, tt.na, tt.b, tt.nb), tt.want, 1e-5)
	}
}

// The example of Benjamini and Hochberg 1995: at 0.05 the first four are
// discoveries.
func TestBenjaminiHochbergOnTheirExample(t *testing.T) {
	p := []float64{0.0459, 0.0001, 0.0298, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0344, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1}
	q := BenjaminiHochberg(p)
	var found []float64
	for i := range p {
		if q[i] <= 0.05 {
			found = append(found, p[i])
		}
	}
	slices.Sort(found)
	if !slices.Equal(found, []float64{0.0001, 0.0004, 0.0019, 0.0095}) {
		t.Errorf("discoveries %v", found)
	}
	near(t, "q of the fourth", q[5], 0.0095*15/4, 1e-12)
	near(t, "q of the last", q[14], 1, 1e-12)
	if len(BenjaminiHochberg(nil)) != 0 {
		t.Error("q-values of nothing")
	}
}

func TestEffectiveCounts(t *testing.T) {
	var alone, pairs, mixed Clusters
	for i := range 100 {
		hit := float64(i % 4 / 3) // a quarter
		alone = alone.Add(Clusters{1, hit, 1, hit, hit, 1})
		pairs = pairs.Add(Clusters{1, 2 * hit, 2, 4 * hit, 4 * hit, 4}) // both of a pair say the same
		mixed = mixed.Add(Clusters{1, 1, 2, 1, 2, 4})                   // each pair disagrees
	}
	near(t, "single units", alone.Effective(), 100, 1.5)
	near(t, "pairs that agree", pairs.Effective(), 100, 1.5)
	near(t, "pairs that disagree", mixed.Effective(), 200, 0)
	near(t, "one cluster", Clusters{1, 3, 9, 9, 27, 81}.Effective(), 1, 1e-9)
	near(t, "all hits", Clusters{3, 12, 12, 48, 48, 48}.Effective(), 3, 1e-9)
	near(t, "nothing", Clusters{}.Effective(), 0, 0)
}

func TestPostStratified(t *testing.T) {
	// Experts answer five times as often as they ask, and like it.
	rate, n, coverage := PostStratified([]Stratum{{0.1, 45, 50}, {0.9, 25, 50}})
	near(t, "rate", rate, 0.1*0.9+0.9*0.5, 1e-12)
	near(t, "coverage", coverage, 1, 1e-12)
	if n >= 100 || n < 50 {
		t.Errorf("effective count %.1f, want weights to cost", n)
	}
	rate, n, coverage = PostStratified([]Stratum{{0.5, 30, 60}, {0.5, 20, 40}})
	near(t, "rate of equal strata", rate, 0.5, 1e-12)
	if n < 90 || n > 100 {
		t.Errorf("effective count %.1f of 100 answers whose weights are nearly right", n)
	}
	near(t, "coverage", coverage, 1, 1e-12)
	if _, n, coverage = PostStratified([]Stratum{{0.7, 0, 0}, {0.3, 3, 3}}); n > 3 || coverage != 0.3 {
		t.Errorf("effective count %.1f, coverage %.1f of a stratum of 3", n, coverage)
	}
	if _, n, coverage = PostStratified(nil); n != 0 || coverage != 0 {
		t.Error("something of nothing")
	}
}
