package stats

import (
	"math"
	"math/rand/v2"
)

// Bucket is one piece of a series: hits out of n.
type Bucket struct{ Hits, N int64 }

func sum(series []Bucket) (b Bucket) {
	for _, s := range series {
		b.Hits += s.Hits
		b.N += s.N
	}
	return b
}

// Change is where a series changed.
type Change struct {
	// Index of the first bucket after the change.
	At int
	P  float64
}

const (
	// minSide is how many units each side of a change has at least.
	minSide = 10
	// trials of the test, at most.
	trials = 999
	// maxChanges bounds the changes of a series.
	maxChanges = 20
)

// Changes finds where the share of a series changes. Of series that never
// change, at most alpha have any: the largest likelihood ratio of one change is
// compared with that of series whose hits are dealt out anew among all units,
// which is exact for units that are independent and alike. Where there is one,
// both its sides are searched (binary segmentation, Vostrikova 1981). They are
// in the order of the series.
func Changes(series []Bucket, alpha float64) []Change {
	var out []Change
	find(series, 0, alpha, &out)
	return out
}

func find(series []Bucket, from int, alpha float64, out *[]Change) {
	if len(*out) >= maxChanges {
		return
	}
	at, ratio := bestSplit(series)
	if at == 0 {
		return
	}
	p := splitP(series, ratio, alpha)
	if p > alpha {
		return
	}
	find(series[:at], from, alpha, out)
	*out = append(*out, Change{At: from + at, P: p})
	find(series[at:], from+at, alpha, out)
}

// bestSplit is where the likelihood of two shares exceeds that of one most, and
// by how much its logarithm does. 0 means nowhere.
func bestSplit(series []Bucket) (at int, ratio float64) {
	all := sum(series)
	one := logLikelihood(all)
	var left Bucket
	for i := 1; i < len(series); i++ {
		left.Hits += series[i-1].Hits
		left.N += series[i-1].N
		right := Bucket{all.Hits - left.Hits, all.N - left.N}
		// A bucket of nothing moves nothing: the change is before the next one.
		if left.N < minSide || right.N < minSide || series[i].N == 0 {
			continue
		}
		if r := logLikelihood(left) + logLikelihood(right) - one; r > ratio+1e-9 {
			at, ratio = i, r
		}
	}
	return at, ratio
}

// logLikelihood of hits out of n at their own share.
func logLikelihood(b Bucket) float64 {
	if b.Hits <= 0 || b.Hits >= b.N {
		return 0
	}
	h, m, n := float64(b.Hits), float64(b.N-b.Hits), float64(b.N)
	return h*math.Log(h/n) + m*math.Log(m/n)
}

// splitP is the chance of a ratio like this in a series that does not change.
// It stops early once that chance is over alpha for sure.
func splitP(series []Bucket, ratio, alpha float64) float64 {
	all := sum(series)
	// The series seeds its own test, so that it always has one answer.
	rng := rand.New(rand.NewPCG(uint64(all.Hits), uint64(all.N)<<20|uint64(len(series))))
	dealt := make([]Bucket, len(series))
	exceed := 0
	for trial := 1; trial <= trials; trial++ {
		left := hypergeometric{hits: all.Hits, misses: all.N - all.Hits}
		for i, b := range series {
			left.draws = b.N
			k := left.draw(rng)
			left.hits -= k
			left.misses -= b.N - k
			dealt[i] = Bucket{k, b.N}
		}
		if _, r := bestSplit(dealt); r >= ratio-1e-9 {
			exceed++
		}
		if float64(exceed) > alpha*(trials+1) {
			return float64(exceed+1) / float64(trial+1)
		}
	}
	return float64(exceed+1) / (trials + 1)
}

// draw is one draw, by inversion from the mode outwards: about as many steps as
// the standard deviation.
func (h hypergeometric) draw(rng *rand.Rand) int64 {
	low, high := h.support()
	if low == high {
		return low
	}
	mode := h.mode()
	u := rng.Float64()
	p := math.Exp(h.log(mode))
	if u -= p; u <= 0 {
		return mode
	}
	down, up := mode, mode
	pDown, pUp := p, p
	for down > low || up < high {
		if up < high {
			k := float64(up)
			pUp *= (float64(h.hits) - k) * (float64(h.draws) - k) / ((k + 1) * (float64(h.misses) - float64(h.draws) + k + 1))
			up++
			if u -= pUp; u <= 0 {
				return up
			}
		}
		if down > low {
			k := float64(down)
			pDown *= k * (float64(h.misses) - float64(h.draws) + k) / ((float64(h.hits) - k + 1) * (float64(h.draws) - k + 1))
			down--
			if u -= pDown; u <= 0 {
				return down
			}
		}
		if pUp < 1e-18 && pDown < 1e-18 {
			break // rounding left a crumb of u
		}
	}
	return mode
}

// detectOdds are the odds ratios of a rise that a Detector bets on, each with an
// equal part of its money.
var detectOdds = [...]float64{1.2, 1.5, 2, 3, 5}

// Detector watches a share for a rise above a baseline, bucket by bucket, and
// may be looked at after each: it is an e-detector (Shin, Ramdas and Rinaldo
// 2022), of CUSUM type, that bets on rises by likelihood ratios. While the share
// is at or below the baseline, the mean time to an alarm at threshold c is at
// least c buckets. It watches for a fall where hits and misses are swapped.
type Detector struct {
	baseline float64
	// Money of each bet.
	money [len(detectOdds)]float64
	// Start is the bucket, by count from 0, at which the largest bet began.
	starts [len(detectOdds)]int
	seen   int
}

// NewDetector watches for a rise above baseline, within (0, 1).
func NewDetector(baseline float64) *Detector {
	return &Detector{baseline: min(max(baseline, 1e-6), 1-1e-6)}
}

// Observe takes the next bucket and returns the evidence for a rise, to be
// compared with a threshold, and the bucket in which it probably began.
func (d *Detector) Observe(b Bucket) (evidence float64, began int) {
	best := 0.0
	for i, odds := range detectOdds {
		p := odds * d.baseline / (1 - d.baseline + odds*d.baseline)
		ratio := float64(b.Hits)*math.Log(p/d.baseline) + float64(b.N-b.Hits)*math.Log((1-p)/(1-d.baseline))
		if d.money[i] <= 1 {
			d.money[i] = 1
			d.starts[i] = d.seen
		}
		// Kept finite: a long rise has no need of more.
		d.money[i] = math.Exp(min(math.Log(d.money[i])+ratio, 600))
		evidence += d.money[i] / float64(len(detectOdds))
		if d.money[i] > best {
			best, began = d.money[i], d.starts[i]
		}
	}
	d.seen++
	return evidence, began
}
