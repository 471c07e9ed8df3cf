// Package stats is the statistics of shares: intervals, tests, and changes over
// time. It is pure, and random in nothing: the same counts give the same answer.
package stats

import (
	"cmp"
	"math"
	"slices"
)

// z95 is the 97.5 % quantile of the standard normal distribution.
const z95 = 1.959963984540054

// Interval is a range of a share or of a difference of shares.
type Interval struct{ Low, High float64 }

// Wilson is the 95 % score interval of hits out of n, which need not be whole
// (Wilson 1927). Without any n it is [0, 1].
func Wilson(hits, n float64) Interval {
	if n <= 0 {
		return Interval{0, 1}
	}
	p := hits / n
	z2 := z95 * z95
	center := (p + z2/(2*n)) / (1 + z2/n)
	half := z95 / (1 + z2/n) * math.Sqrt(p*(1-p)/n+z2/(4*n*n))
	// At the ends rounding would leave 0 and 1 just outside.
	low, high := max(center-half, 0), min(center+half, 1)
	if hits <= 0 {
		low = 0
	}
	if hits >= n {
		high = 1
	}
	return Interval{low, high}
}

// Difference is the 95 % interval of b - a, two shares of na and nb: Newcombe's
// (1998, method 10), which joins the two Wilson intervals.
func Difference(hitsA, na, hitsB, nb float64) Interval {
	if na <= 0 || nb <= 0 {
		return Interval{-1, 1}
	}
	a, b := hitsA/na, hitsB/nb
	wa, wb := Wilson(hitsA, na), Wilson(hitsB, nb)
	return Interval{
		b - a - math.Hypot(b-wb.Low, wa.High-a),
		b - a + math.Hypot(wb.High-b, a-wa.Low),
	}
}

// Clusters are counts of units that come in clusters, such as the interactions
// of sessions: sums over the clusters of hits x and units n.
type Clusters struct {
	Clusters         float64
	X, N, XX, XN, NN float64
}

// Add is both together; a cluster must not be in both.
func (c Clusters) Add(o Clusters) Clusters {
	return Clusters{c.Clusters + o.Clusters, c.X + o.X, c.N + o.N, c.XX + o.XX, c.XN + o.XN, c.NN + o.NN}
}

// Effective is what N is worth, were the units independent: N divided by the
// design effect (Kish 1965), the ratio of the variance between clusters to that
// of N independent units. It is at most N; where all units are alike the
// variance says nothing, and it is the number of clusters with units weighed as
// if each cluster agreed (N²/ΣN²).
func (c Clusters) Effective() float64 {
	if c.N <= 0 {
		return 0
	}
	agreed := c.N * c.N / c.NN
	p := c.X / c.N
	independent := p * (1 - p) / c.N
	if c.Clusters < 2 || independent <= 0 {
		return min(agreed, c.N)
	}
	between := c.Clusters / (c.Clusters - 1) * (c.XX - 2*p*c.XN + p*p*c.NN) / (c.N * c.N)
	if between <= independent {
		return c.N
	}
	// Units of one cluster cannot be worth less than one unit.
	return max(c.N*independent/between, min(agreed, c.N))
}

// Stratum is a part of a whole, with the share of the whole that it is.
type Stratum struct {
	Weight float64
	Hits   float64
	N      float64 // effective
}

// PostStratified is the share where each stratum counts by its weight and not
// by how many of it answered, and the effective count behind it. Strata without
// any N are left out; coverage is the weight of the others. Without any, n is 0.
//
// The variance of a stratum is that of its share with one hit and one miss
// added, so that a small stratum in which all agree does not seem certain.
func PostStratified(strata []Stratum) (rate, n, coverage float64) {
	for _, s := range strata {
		if s.N > 0 {
			coverage += s.Weight
		}
	}
	if coverage <= 0 {
		return 0, 0, 0
	}
	var total, variance float64
	for _, s := range strata {
		if s.N <= 0 {
			continue
		}
		w := s.Weight / coverage
		rate += w * s.Hits / s.N
		total += s.N
		p := (s.Hits + 1) / (s.N + 2)
		variance += w * w * p * (1 - p) / s.N
	}
	p := (rate*total + 1) / (total + 2)
	return rate, min(p*(1-p)/variance, total), coverage
}

// FisherExact is the two-sided p-value of a and b hits out of na and nb: the
// chance, where the shares are equal and given all hits, of a table that is not
// more likely than this one.
func FisherExact(a, na, b, nb int64) float64 {
	if na <= 0 || nb <= 0 {
		return 1
	}
	h := hypergeometric{hits: a + b, misses: na + nb - a - b, draws: na}
	at := h.log(a)
	// A little room, or tables as likely as this one are lost to rounding.
	limit := at + 1e-7
	sum := 0.0
	low, high := h.support()
	mode := h.mode()
	// From the mode outwards, until terms no longer count.
	for _, step := range []int64{-1, 1} {
		k := mode
		if step > 0 {
			k++
		}
		for ; k >= low && k <= high; k += step {
			l := h.log(k)
			if l <= limit {
				sum += math.Exp(l)
			}
			if l < at-40 && l < -40 {
				break
			}
		}
	}
	return min(sum, 1)
}

// BenjaminiHochberg gives each p-value its q-value: the least false discovery
// rate at which it is a discovery (Benjamini and Hochberg 1995). It holds where
// tests are independent or depend on each other positively.
func BenjaminiHochberg(p []float64) []float64 {
	order := make([]int, len(p))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(p[i], p[j]) })
	q := make([]float64, len(p))
	least := 1.0
	for rank := len(order); rank > 0; rank-- {
		i := order[rank-1]
		least = min(least, p[i]*float64(len(p))/float64(rank))
		q[i] = least
	}
	return q
}

// hypergeometric is how many hits there are among draws from hits and misses.
type hypergeometric struct{ hits, misses, draws int64 }

func (h hypergeometric) support() (low, high int64) {
	return max(0, h.draws-h.misses), min(h.draws, h.hits)
}

func (h hypergeometric) mode() int64 {
	low, high := h.support()
	m := int64(float64(h.draws+1) * float64(h.hits+1) / float64(h.hits+h.misses+2))
	return min(max(m, low), high)
}

// log is the logarithm of the chance of k hits.
func (h hypergeometric) log(k int64) float64 {
	return choose(h.hits, k) + choose(h.misses, h.draws-k) - choose(h.hits+h.misses, h.draws)
}

// choose is the logarithm of the binomial coefficient.
func choose(n, k int64) float64 {
	a, _ := math.Lgamma(float64(n + 1))
	b, _ := math.Lgamma(float64(k + 1))
	c, _ := math.Lgamma(float64(n - k + 1))
	return a - b - c
}
