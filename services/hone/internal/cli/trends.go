package cli

import (
	"fmt"
	"math"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	trendsv1 "github.com/honeloop/hone/proto/gen/go/hone/trends/v1"
)

func newTrendsCommand(g *global) *cobra.Command {
	req := &trendsv1.GetTrendsRequest{}
	var since, until string
	var points bool
	cmd := &cobra.Command{
		Use:   "trends",
		Short: "How satisfied users are, over time, and how sure that is",
		Long: `How satisfied users are, over time, and how sure that is.

  --metric   satisfaction (default), dissatisfaction, category:NAME, response, or implicit (people behaved as
             if the answer had failed)
  --by       user_role, environment, model, model_version, prompt_version, language or tag:NAME
  --reweight a dimension: who answers is not everybody, so its values count as often as among all interactions

Rates have 95 % intervals that know that the interactions of one session are alike. Changes are marked: of series
that never change, at most 1 in 100 has a mark.`,
		Example: `  hone trends --by model_version
  hone trends --metric category:outdated --by user_role --since 90d --bucket week
  hone trends --filter environment=production --reweight user_role --points
  hone trends compare --by model_version 2026-09 2026-10`,
		Args: cobra.NoArgs,
		RunE: g.connected(func(cmd *cobra.Command, _ []string, conn *grpc.ClientConn) (err error) {
			if req.From, req.To, err = between(since, until); err != nil {
				return err
			}
			resp, err := trendsv1.NewTrendServiceClient(conn).GetTrends(cmd.Context(), req)
			if err != nil {
				return explain(err)
			}
			if g.json {
				return printMessage(cmd.OutOrStdout(), resp)
			}
			return printTrends(newPainter(cmd.OutOrStdout()), resp, points)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&req.Metric, "metric", "", "what to count (default satisfaction)")
	f.StringVar(&req.By, "by", "", "one line for each value of this dimension")
	f.StringVar(&req.Bucket, "bucket", "", "hour, day, week or month (default what fits)")
	f.StringArrayVar(&req.Filter, "filter", nil, "only where dimension=value; may be repeated")
	f.StringVar(&req.ReweightBy, "reweight", "", "weigh the values of this dimension as they are among all interactions")
	f.Uint32VarP(&req.Limit, "number", "n", 0, "most values to tell apart (default 10)")
	f.BoolVar(&points, "points", false, "print each bucket")
	timeFlags(cmd, &since, &until)
	cmd.AddCommand(g.newTrendsCompare())
	return cmd
}

func printTrends(p *painter, resp *trendsv1.GetTrendsResponse, points bool) error {
	p.printf("%s  %s\n\n", p.bold(resp.Metric+prefixed(" by ", resp.By)), p.dim(fmt.Sprintf("%s to %s UTC, by %s", stamp(resp.From), stamp(resp.To), resp.Bucket)))
	if len(resp.Series) == 0 {
		p.printf("No interactions within this time (--since, --until; 30 days where nothing is said).\n")
		return nil
	}
	format := "2006-01-02"
	if resp.Bucket == "hour" {
		format = "2006-01-02 15:04"
	}
	trim(resp.Series)
	low, high := rangeOf(resp.Series)
	headings := []string{resp.By, "over time", "rate", "95 %", "hits", "of", "response", "interactions"}
	if resp.By == "" {
		headings[0] = "all"
	}
	weighted := resp.Series[0].Total.Coverage != nil
	if weighted {
		headings = append(headings, "coverage")
	}
	var rows [][]string
	for _, s := range resp.Series {
		row := append([]string{named(s.Value, resp.By), sparkline(s.Points, low, high, 40)}, rateCells(s.Total)...)
		if weighted {
			row = append(row, percent(s.Total.GetCoverage()))
		}
		rows = append(rows, row)
	}
	if err := table(p.w, headings, rows); err != nil {
		return err
	}
	if drawn := resp.Series[0].Points; len(drawn) > 0 {
		p.printf("%s\n", p.dim(fmt.Sprintf("From %s to %s, lines between %s and %s.", drawn[0].Start.AsTime().UTC().Format(format),
			drawn[len(drawn)-1].Start.AsTime().UTC().Format(format), percent(low), percent(high))))
	}
	for _, s := range resp.Series {
		for _, c := range s.Changes {
			p.printf("\n%s %s changed on %s from %s to %s (p %s).\n", p.bold("△"), p.bold(named(s.Value, resp.By)), c.At.AsTime().UTC().Format(format),
				spread(c.Before), spread(c.After), pValue(c.PValue))
		}
	}
	if !points {
		return nil
	}
	for _, s := range resp.Series {
		p.printf("\n%s\n", p.bold(named(s.Value, resp.By)))
		var rows [][]string
		for _, pt := range s.Points {
			if pt.Rate.Interactions == 0 {
				continue
			}
			note := ""
			if pt.Partial {
				note = "not over"
			}
			for _, c := range s.Changes {
				if c.At.AsTime().Equal(pt.Start.AsTime()) {
					note = "△"
				}
			}
			rows = append(rows, append(append([]string{pt.Start.AsTime().UTC().Format(format)}, rateCells(pt.Rate)...), note))
		}
		if err := table(p.w, []string{resp.Bucket, "rate", "95 %", "hits", "of", "response", "interactions", ""}, rows); err != nil {
			return err
		}
	}
	return nil
}

// named is a value of a dimension as people read it.
func named(value, by string) string {
	switch {
	case by == "":
		return "all"
	case value == "":
		return "(none)"
	}
	return oneLine(value, 30)
}

func rateCells(r *trendsv1.Rate) []string {
	rate, interval := "-", "-"
	if r.Value != nil {
		rate, interval = percent(*r.Value), percent(r.Low)+" to "+percent(r.High)
	}
	return []string{rate, interval, fmt.Sprint(r.Hits), fmt.Sprint(r.Count), percent(r.ResponseRate), fmt.Sprint(r.Interactions)}
}

func spread(r *trendsv1.Rate) string {
	return fmt.Sprintf("%s (%s to %s)", percent(r.GetValue()), percent(r.Low), percent(r.High))
}

func percent(share float64) string { return fmt.Sprintf("%.1f %%", 100*share) }

func pValue(p float64) string {
	if p < 0.001 {
		return "< 0.001"
	}
	return fmt.Sprintf("%.3f", p)
}

// rangeOf is the lowest and the highest rate of a bucket.
func rangeOf(series []*trendsv1.Series) (low, high float64) {
	low = 1
	for _, s := range series {
		for _, p := range s.Points {
			if p.Rate.Value != nil {
				low, high = min(low, *p.Rate.Value), max(high, *p.Rate.Value)
			}
		}
	}
	if low > high {
		return 0, 0
	}
	return low, high
}

// trim leaves out the buckets before the first interaction and after the last one
// of all series.
func trim(series []*trendsv1.Series) {
	first, last := math.MaxInt, -1
	for _, s := range series {
		for i, p := range s.Points {
			if p.Rate.Interactions > 0 {
				first, last = min(first, i), max(last, i)
			}
		}
	}
	for _, s := range series {
		if last >= 0 && last < len(s.Points) {
			s.Points = s.Points[first : last+1]
		}
	}
}

// sparkline draws rates between low and high, in at most width columns; buckets
// without a rate are spaces. Longer series are drawn in groups of buckets.
func sparkline(points []*trendsv1.Point, low, high float64, width int) string {
	const levels = "▁▂▃▄▅▆▇█"
	group := (len(points) + width - 1) / max(width, 1)
	var b strings.Builder
	for i := 0; i < len(points); i += group {
		var sum, n float64
		for _, p := range points[i:min(i+group, len(points))] {
			sum += p.Rate.GetValue() * p.Rate.EffectiveCount
			n += p.Rate.EffectiveCount
		}
		if n == 0 {
			b.WriteByte(' ')
			continue
		}
		level := 3
		if high > low {
			level = int(math.Round((sum/n - low) / (high - low) * 7))
		}
		b.WriteRune([]rune(levels)[min(max(level, 0), 7)])
	}
	return b.String()
}

func (g *global) newTrendsCompare() *cobra.Command {
	req := &trendsv1.CompareTrendsRequest{}
	var since, until string
	var fdr float64
	cmd := &cobra.Command{
		Use:   "compare A B",
		Short: "Compare two values of a dimension, over all and in slices",
		Long: `Compare two values of a dimension, such as two versions of a model, over all and within the values of other
dimensions. Whoever looks at many slices finds differences that are none: of the ones called so here, at most the
share --false-discoveries is expected to be accidents (Benjamini and Hochberg).`,
		Example: "  hone trends compare --by model_version 2026-09 2026-10\n  hone trends compare --by prompt_version v13 v14 --slice user_role --slice tag:plan --metric category:wrong_tone",
		Args:    cobra.ExactArgs(2),
		RunE: g.connected(func(cmd *cobra.Command, args []string, conn *grpc.ClientConn) (err error) {
			req.A, req.B = args[0], args[1]
			if cmd.Flags().Changed("false-discoveries") {
				req.FalseDiscoveryRate = &fdr
			}
			if req.From, req.To, err = between(since, until); err != nil {
				return err
			}
			resp, err := trendsv1.NewTrendServiceClient(conn).CompareTrends(cmd.Context(), req)
			if err != nil {
				return explain(err)
			}
			if g.json {
				return printMessage(cmd.OutOrStdout(), resp)
			}
			return printComparison(newPainter(cmd.OutOrStdout()), resp, req)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&req.By, "by", "model_version", "the dimension of A and B")
	f.StringVar(&req.Metric, "metric", "", "what to count (default satisfaction)")
	f.StringArrayVar(&req.Slices, "slice", nil, "dimension to look into; may be repeated (default user_role, environment, language, model, prompt_version)")
	f.StringArrayVar(&req.Filter, "filter", nil, "only where dimension=value; may be repeated")
	f.Float64Var(&fdr, "false-discoveries", 0.05, "expected share of accidents among the differences")
	timeFlags(cmd, &since, &until)
	return cmd
}

func printComparison(p *painter, resp *trendsv1.CompareTrendsResponse, req *trendsv1.CompareTrendsRequest) error {
	p.printf("%s  %s\n\n", p.bold(fmt.Sprintf("%s: %s %s (A) and %s (B)", resp.Metric, req.By, clean(req.A), clean(req.B))),
		p.dim(fmt.Sprintf("%s to %s UTC", stamp(resp.From), stamp(resp.To))))
	var rows [][]string
	differ := 0
	for _, c := range resp.Comparisons {
		slice := "all"
		if c.Dimension != "" {
			slice = c.Dimension + " " + named(c.Value, c.Dimension)
		}
		verdict := ""
		if c.Differs {
			verdict = "differs"
			differ++
		}
		difference, interval := "-", "-"
		if c.A.Value != nil && c.B.Value != nil {
			difference, interval = points(c.Difference), points(c.Low)+" to "+points(c.High)
		}
		rows = append(rows, []string{slice, side(c.A), side(c.B), difference, interval, pValue(c.PValue), pValue(c.QValue), percent(c.A.ResponseRate) + " / " + percent(c.B.ResponseRate), verdict})
	}
	if err := table(p.w, []string{"slice", "A", "B", "B - A", "95 %", "p", "q", "response A / B", ""}, rows); err != nil {
		return err
	}
	p.printf("\n%d of %s differ; of those, %s are expected to be accidents at most.", differ, count(len(resp.Comparisons), "comparison"), percent(resp.FalseDiscoveryRate))
	if resp.TooSmall > 0 {
		p.printf(" %s had fewer than 10 on a side and were not tested.", count(int(resp.TooSmall), "slice"))
	}
	p.printf("\n")
	return nil
}

func side(r *trendsv1.Rate) string {
	if r.Value == nil {
		return "-"
	}
	return fmt.Sprintf("%s of %d", percent(*r.Value), r.Count)
}

// points are percentage points.
func points(d float64) string { return fmt.Sprintf("%+.1f", 100*d) }

func newAlertsCommand(g *global) *cobra.Command {
	req := &trendsv1.ListAlertsRequest{}
	cmd := &cobra.Command{
		Use:   "alerts",
		Short: "Alerts on trends and of the policy, and whether webhooks took them",
		Long: `Alerts on trends and of the policy, newest first, and whether webhooks took them. What is watched and where
alerts are posted stands in the projects file, in the section alerts of a project.`,
		Example: "  hone alerts\n  hone alerts --state open --json",
		Args:    cobra.NoArgs,
		RunE: g.connected(func(cmd *cobra.Command, _ []string, conn *grpc.ClientConn) error {
			resp, err := trendsv1.NewTrendServiceClient(conn).ListAlerts(cmd.Context(), req)
			if err != nil {
				return explain(err)
			}
			if g.json {
				return printMessage(cmd.OutOrStdout(), resp)
			}
			p := newPainter(cmd.OutOrStdout())
			if len(resp.Alerts) == 0 {
				p.printf("No alerts.\n")
			}
			for _, a := range resp.Alerts {
				state := p.polarity("positive", a.State)
				if a.State == "open" {
					state = p.polarity("negative", a.State)
				}
				until := ""
				if a.ResolvedAt != nil {
					until = "to " + stamp(a.ResolvedAt)
				}
				p.printf("%s  %s  %s\n", state, p.bold(clean(a.Name)), p.dim(joined(" · ", a.Severity, a.Source, joined(" ", stamp(a.OpenedAt), until), a.AlertId)))
				for _, line := range wrap(clean(a.Summary), max(p.width-4, 24)) {
					p.printf("    %s\n", line)
				}
				for _, d := range a.Deliveries {
					result := "not taken"
					if d.Delivered {
						result = "taken"
					}
					p.printf("    %s\n", p.dim(clean(fmt.Sprintf("%s: %s by %s, %s, last answer %s", d.State, result, d.Url, count(int(d.Attempts), "attempt"), d.Answer))))
				}
			}
			return nil
		}),
	}
	cmd.Flags().StringVar(&req.State, "state", "", "open or resolved")
	cmd.Flags().Uint32VarP(&req.Limit, "number", "n", 0, "most alerts to list (default 50)")
	return cmd
}
