package main

import (
	"context"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"

	"github.com/honeloop/hone/pkg/clickhouse/benchfill"

	"github.com/honeloop/hone/services/enricher/internal/trends"
)

type trendQuestion struct {
	name string
	ask  func(context.Context) error
}

// trendQuestions are about the last days: of a dimension with few values, one
// with more than are told apart, re-weighted, and a comparison in five slices.
func trendQuestions(store *trends.Store, days int) []trendQuestion {
	now := time.Now().UTC()
	from := now.AddDate(0, 0, -days)
	trend := func(metric trends.Metric, by, stratum trends.Dimension) func(context.Context) error {
		return func(ctx context.Context) error {
			_, err := store.Trends(ctx, trends.Query{Project: "default", Metric: metric, Bucket: trends.Fitting(now.Sub(from)),
				From: from, To: now, By: by, Stratum: stratum, Limit: 10}, now)
			return err
		}
	}
	return []trendQuestion{
		{"trend by model_version", trend(trends.Satisfaction, "model_version", "")},
		{"trend by prompt_version", trend("category:outdated", "prompt_version", "")},
		{"trend of responses by tag:plan", trend(trends.Response, "tag:plan", "")},
		{"trend re-weighted by language", trend(trends.Satisfaction, "", "language")},
		{"comparison of two prompt versions", func(ctx context.Context) error {
			_, _, err := store.Compare(ctx, trends.Query{Project: "default", Metric: trends.Satisfaction, By: "prompt_version", From: from, To: now},
				"v1", "v2", []trends.Dimension{"user_role", "environment", "language", "model", "model_version"}, 0.05)
			return err
		}},
	}
}

// costOf is what ask costs, in all its queries together.
func costOf(ctx context.Context, ask func(context.Context) error) (benchfill.Cost, error) {
	var cost benchfill.Cost
	ctx = ch.Context(ctx,
		ch.WithProgress(func(p *ch.Progress) { cost.Rows, cost.Bytes = cost.Rows+p.Rows, cost.Bytes+p.Bytes }),
		ch.WithProfileEvents(func(events []ch.ProfileEvent) {
			for _, e := range events {
				if e.Name == "MemoryTrackerPeakUsage" {
					cost.Memory = max(cost.Memory, uint64(e.Value))
				}
			}
		}))
	began := time.Now()
	err := ask(ctx)
	cost.Took = time.Since(began)
	return cost, err
}
