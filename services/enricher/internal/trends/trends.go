package trends

import (
	"cmp"
	"context"
	"math"
	"slices"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	trendsv1 "github.com/honeloop/hone/proto/gen/go/hone/trends/v1"

	"github.com/honeloop/hone/services/enricher/internal/trends/stats"
)

// falseAlarms is the share of series that never change in which a change is
// found.
const falseAlarms = 0.01

// Trends are the series of a query, largest first, Other last. now says which
// buckets are not over.
func (s *Store) Trends(ctx context.Context, q Query, now time.Time) ([]*trendsv1.Series, error) {
	starts, err := q.Bucket.Starts(q.From, q.To)
	if err != nil {
		return nil, err
	}
	cells, err := s.Cells(ctx, q)
	if err != nil {
		return nil, err
	}
	byValue := map[string][]Cell{}
	for _, c := range cells {
		byValue[c.Value] = append(byValue[c.Value], c)
	}
	var out []*trendsv1.Series
	for value, cells := range byValue {
		out = append(out, series(q, value, cells, starts, now))
	}
	slices.SortFunc(out, func(a, b *trendsv1.Series) int {
		return cmp.Or(
			cmp.Compare(last(a), last(b)),
			cmp.Compare(b.Total.Interactions, a.Total.Interactions),
			cmp.Compare(a.Value, b.Value))
	})
	return out, nil
}

// last orders Other behind what is told apart.
func last(s *trendsv1.Series) int {
	if s.Value == Other {
		return 1
	}
	return 0
}

func series(q Query, value string, cells []Cell, starts []time.Time, now time.Time) *trendsv1.Series {
	weighted := q.Stratum != ""
	byBucket := map[int64][]Cell{}
	for _, c := range cells {
		byBucket[c.Bucket.Unix()] = append(byBucket[c.Bucket.Unix()], c)
	}
	s := &trendsv1.Series{Value: value, Total: rate(cells, weighted)}
	// Changes are looked for in what is over. Counts are cut to what they are
	// worth, for the test takes units for independent.
	worth := 1.0
	if s.Total.Count > 0 {
		worth = s.Total.EffectiveCount / float64(s.Total.Count)
	}
	var buckets []stats.Bucket
	for _, start := range starts {
		p := &trendsv1.Point{Start: timestamppb.New(start), Rate: rate(byBucket[start.Unix()], weighted), Partial: q.Bucket.Next(start).After(now)}
		s.Points = append(s.Points, p)
		if p.Partial {
			continue
		}
		n := float64(p.Rate.Count) * worth
		if weighted {
			n = p.Rate.EffectiveCount
		}
		n = math.Round(n)
		buckets = append(buckets, stats.Bucket{Hits: int64(math.Round(p.Rate.GetValue() * n)), N: int64(n)})
	}
	changes := stats.Changes(buckets, falseAlarms)
	between := func(from, to int) *trendsv1.Rate {
		var part []Cell
		for _, start := range starts[from:to] {
			part = append(part, byBucket[start.Unix()]...)
		}
		return rate(part, weighted)
	}
	for i, c := range changes {
		from, to := 0, len(buckets)
		if i > 0 {
			from = changes[i-1].At
		}
		if i+1 < len(changes) {
			to = changes[i+1].At
		}
		s.Changes = append(s.Changes, &trendsv1.ChangePoint{
			At: timestamppb.New(starts[c.At]), Before: between(from, c.At), After: between(c.At, to), PValue: c.P,
		})
	}
	return s
}

// rate sums cells up, weighted by stratum or not.
func rate(cells []Cell, weighted bool) *trendsv1.Rate {
	var all stats.Clusters
	r := &trendsv1.Rate{}
	responses := uint64(0)
	for _, c := range cells {
		all = all.Add(c.Clusters)
		r.Interactions += c.Interactions
		responses += c.Responses
	}
	r.Hits, r.Count = uint64(all.X), uint64(all.N)
	if r.Interactions > 0 {
		r.ResponseRate = float64(responses) / float64(r.Interactions)
	}
	var value float64
	if weighted {
		var coverage float64
		value, r.EffectiveCount, coverage = stats.PostStratified(strata(cells, r.Interactions))
		r.Coverage = &coverage
	} else if all.N > 0 {
		value, r.EffectiveCount = all.X/all.N, all.Effective()
	}
	if r.EffectiveCount > 0 {
		r.Value = &value
	}
	i := stats.Wilson(value*r.EffectiveCount, r.EffectiveCount)
	r.Low, r.High = i.Low, i.High
	return r
}

func strata(cells []Cell, interactions uint64) []stats.Stratum {
	type part struct {
		stats.Clusters
		interactions uint64
	}
	parts := map[string]*part{}
	var order []string
	for _, c := range cells {
		p := parts[c.Stratum]
		if p == nil {
			p = &part{}
			parts[c.Stratum] = p
			order = append(order, c.Stratum)
		}
		p.Clusters = p.Add(c.Clusters)
		p.interactions += c.Interactions
	}
	var out []stats.Stratum
	for _, name := range order {
		p := parts[name]
		n := p.Effective()
		s := stats.Stratum{Weight: float64(p.interactions) / float64(interactions), N: n}
		if n > 0 {
			s.Hits = p.X / p.N * n
		}
		out = append(out, s)
	}
	return out
}

// minCompared is how many each side of a comparison must have to be tested.
const minCompared = 10

// Compare compares two values of q.By: over all, and within each value of each
// of the dimensions within, where it is not the whole again. It also says how
// many slices were too small to be tested. The comparison over all is always
// there.
func (s *Store) Compare(ctx context.Context, q Query, a, b string, within []Dimension, fdr float64) ([]*trendsv1.Comparison, uint32, error) {
	q.Bucket, q.Values, q.Limit = Whole, []string{a, b}, 2
	var out []*trendsv1.Comparison
	small := uint32(0)
	dimensions := append([]Dimension{""}, within...)
	counted, err := s.count(ctx, q, dimensions...)
	if err != nil {
		return nil, 0, err
	}
	for i, d := range dimensions {
		values := map[string][2][]Cell{}
		if d == "" {
			values[""] = [2][]Cell{}
		}
		for _, c := range counted[i] {
			if c.Stratum == Other {
				continue
			}
			sides := values[c.Stratum]
			if c.Value == a {
				sides[0] = append(sides[0], c)
			} else {
				sides[1] = append(sides[1], c)
			}
			values[c.Stratum] = sides
		}
		for value, sides := range values {
			ra, rb := rate(sides[0], false), rate(sides[1], false)
			switch {
			case d == "":
			case ra.Count == out[0].A.Count && rb.Count == out[0].B.Count:
				continue // all have this value, so it is the whole again
			case ra.Count < minCompared || rb.Count < minCompared:
				small++
				continue
			}
			out = append(out, compare(d, value, ra, rb))
		}
	}
	p := make([]float64, len(out))
	for i, c := range out {
		p[i] = c.PValue
	}
	for i, q := range stats.BenjaminiHochberg(p) {
		out[i].QValue, out[i].Differs = q, q <= fdr
	}
	slices.SortFunc(out, func(x, y *trendsv1.Comparison) int {
		return cmp.Or(
			cmp.Compare(min(len(x.Dimension), 1), min(len(y.Dimension), 1)),
			cmp.Compare(x.QValue, y.QValue), cmp.Compare(x.PValue, y.PValue),
			cmp.Compare(x.Dimension, y.Dimension), cmp.Compare(x.Value, y.Value))
	})
	return out, small, nil
}

func compare(d Dimension, value string, a, b *trendsv1.Rate) *trendsv1.Comparison {
	na, nb := math.Round(a.EffectiveCount), math.Round(b.EffectiveCount)
	ha, hb := math.Round(a.GetValue()*na), math.Round(b.GetValue()*nb)
	i := stats.Difference(a.GetValue()*a.EffectiveCount, a.EffectiveCount, b.GetValue()*b.EffectiveCount, b.EffectiveCount)
	return &trendsv1.Comparison{
		Dimension: string(d), Value: value, A: a, B: b,
		Difference: b.GetValue() - a.GetValue(), Low: i.Low, High: i.High,
		PValue: stats.FisherExact(int64(ha), int64(na), int64(hb), int64(nb)),
	}
}
