package enricher

import (
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	policyv1 "github.com/honeloop/hone/proto/gen/go/hone/policy/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"
	trendsv1 "github.com/honeloop/hone/proto/gen/go/hone/trends/v1"

	"github.com/honeloop/hone/services/enricher/internal/trail/trailtest"
	"github.com/honeloop/hone/services/enricher/internal/trends"
)

// decisionHex is the payload of a decision on a signal in case c-1.
func decisionHex(signal string) string {
	data, err := proto.Marshal(&policyv1.Decision{DecisionId: "dc", SignalId: signal, CaseId: "c-1", Routes: []string{"human-review"}})
	if err != nil {
		panic(err)
	}
	return hex.EncodeToString(data)
}

// history is 20 days of 40 interactions of two versions. Experts are a quarter of
// the users, all of them answer, and a tenth is not content; every fourth of the
// others answers. From the tenth day on version 2 fails most others.
func history() (events []*eventv1.Event, signals []*signalv1.Signal) {
	start := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	for day := range 20 {
		for n := range 40 {
			version, expert := n%2+1, n/2%4 == 0
			role := "novice"
			if expert {
				role = "expert"
			}
			at := start.AddDate(0, 0, day).Add(time.Duration(n) * time.Minute)
			e := &eventv1.Event{EventId: "e", ProjectId: "p", SessionId: fmt.Sprintf("s-%d-%d", day, n), InteractionId: "i", Type: "interaction",
				OccurredAt: timestamppb.New(at), UserRole: role, Environment: "production", Tags: map[string]string{"plan": fmt.Sprint(n % 3)},
				Payload: &eventv1.Event_Interaction{Interaction: &eventv1.Interaction{Model: "m", ModelVersion: fmt.Sprint(version)}}}
			events = append(events, e)
			switch {
			case expert && (day+n)%10 == 0, !expert && n%8 >= 5 && version == 2 && day >= 10:
				signals = append(signals, opinion(e, "negative", "outdated"))
			case expert, !expert && n%8 >= 5:
				signals = append(signals, opinion(e, "positive"))
			}
		}
	}
	return events, signals
}

func TestTrends(t *testing.T) {
	conn := trailtest.Conn(t)
	server := &trendServer{store: trends.NewStore(conn)}
	events, signals := history()
	save(t, conn, events, signals)
	save(t, conn, events[:40], signals[:10]) // written again
	waiting := opinion(&eventv1.Event{ProjectId: "p", SessionId: "s-0-1", InteractionId: "i-x", OccurredAt: events[0].OccurredAt}, "negative")
	waiting.Waiting = true
	save(t, conn, nil, []*signalv1.Signal{waiting})
	ctx := asProject(t, "p")
	from, to := timestamppb.New(time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)), timestamppb.New(time.Date(2026, 11, 21, 0, 0, 0, 0, time.UTC))

	t.Run("over time by version", func(t *testing.T) {
		resp, err := server.GetTrends(ctx, &trendsv1.GetTrendsRequest{By: "model_version", From: from, To: to})
		if err != nil {
			t.Fatal(err)
		}
		if resp.Metric != "satisfaction" || resp.Bucket != "day" || len(resp.Series) != 2 {
			t.Fatalf("%s by %s: %d series", resp.Metric, resp.Bucket, len(resp.Series))
		}
		for _, s := range resp.Series {
			if s.Total.Interactions != 400 || len(s.Points) != 20 || s.Points[3].Rate.Interactions != 20 || s.Points[19].Partial {
				t.Errorf("version %s: %v", s.Value, s.Total)
			}
			if v := s.Total.GetValue(); v < s.Total.Low || v > s.Total.High || s.Total.High-s.Total.Low > 0.2 {
				t.Errorf("version %s: %.3f [%.3f, %.3f]", s.Value, v, s.Total.Low, s.Total.High)
			}
		}
		two := resp.Series[1]
		if len(resp.Series[0].Changes) != 0 || len(two.Changes) != 1 {
			t.Fatalf("changes %v and %v, want one in version 2", resp.Series[0].Changes, two.Changes)
		}
		c := two.Changes[0]
		if !c.At.AsTime().Equal(time.Date(2026, 11, 11, 0, 0, 0, 0, time.UTC)) || c.Before.GetValue() < 0.9 || c.After.GetValue() > 0.5 {
			t.Errorf("change %v", c)
		}
	})

	t.Run("who answers is not everybody", func(t *testing.T) {
		req := &trendsv1.GetTrendsRequest{From: from, To: to, Filter: []string{"model_version=2"}}
		plain, err := server.GetTrends(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		req.ReweightBy = "user_role"
		weighted, err := server.GetTrends(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		p, w := plain.Series[0].Total, weighted.Series[0].Total
		// A quarter of experts at 9 of 10, three quarters of novices at 1 of 2.
		if math.Abs(w.GetValue()-(0.25*0.9+0.75*0.5)) > 0.03 || p.GetValue() < w.GetValue()+0.03 || w.GetCoverage() != 1 || w.EffectiveCount > p.EffectiveCount {
			t.Errorf("plain %v, weighted %v", p, w)
		}
		if p.ResponseRate >= 1 || p.ResponseRate != w.ResponseRate || p.Count != w.Count {
			t.Errorf("response rates %.3f and %.3f of %d and %d", p.ResponseRate, w.ResponseRate, p.Count, w.Count)
		}
	})

	t.Run("metrics", func(t *testing.T) {
		responses := float64(len(signals))
		bad := 0.0
		for _, s := range signals {
			if s.Polarity == "negative" {
				bad++
			}
		}
		for metric, want := range map[string]float64{
			"dissatisfaction": bad / responses, "satisfaction": 1 - bad/responses, "category:outdated": bad / responses,
			"category:other": 0, "response": responses / 800, "implicit": 0,
		} {
			resp, err := server.GetTrends(ctx, &trendsv1.GetTrendsRequest{Metric: metric, From: from, To: to})
			if err != nil {
				t.Fatal(err)
			}
			if got := resp.Series[0].Total.GetValue(); math.Abs(got-want) > 1e-9 {
				t.Errorf("%s is %.4f, want %.4f", metric, got, want)
			}
		}
	})

	t.Run("the rest is other", func(t *testing.T) {
		resp, err := server.GetTrends(ctx, &trendsv1.GetTrendsRequest{By: "tag:plan", From: from, To: to, Limit: 1, Bucket: "week"})
		if err != nil {
			t.Fatal(err)
		}
		if len(resp.Series) != 2 || resp.Series[1].Value != trends.Other || resp.Series[0].Total.Interactions+resp.Series[1].Total.Interactions != 800 || len(resp.Series[0].Points) != 4 {
			t.Errorf("series %v", resp.Series)
		}
	})

	t.Run("comparison", func(t *testing.T) {
		resp, err := server.CompareTrends(ctx, &trendsv1.CompareTrendsRequest{By: "model_version", A: "1", B: "2", From: from, To: to,
			Slices: []string{"user_role", "environment", "tag:plan", "tag:none"}})
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, c := range resp.Comparisons {
			got = append(got, fmt.Sprintf("%s=%s %v", c.Dimension, c.Value, c.Differs))
			if c.Difference < c.Low || c.Difference > c.High || c.QValue < c.PValue {
				t.Errorf("%v", c)
			}
		}
		if got[0] != "= true" || !slices.Contains(got, "user_role=novice true") || !slices.Contains(got, "user_role=expert false") || resp.Comparisons[0].Difference > -0.1 {
			t.Errorf("comparisons %q", got)
		}
	})

	t.Run("another project sees nothing", func(t *testing.T) {
		resp, err := server.GetTrends(asProject(t, "other"), &trendsv1.GetTrendsRequest{From: from, To: to})
		if err != nil || len(resp.Series) != 0 {
			t.Errorf("%v, %v", resp, err)
		}
	})

	t.Run("what is wrong is named", func(t *testing.T) {
		for field, req := range map[string]*trendsv1.GetTrendsRequest{
			"metric": {Metric: "joy"}, "by": {By: "user_id; DROP"}, "bucket": {Bucket: "minute"}, "filter[0]": {Filter: []string{"model"}},
			"reweight_by": {ReweightBy: "x"}, "limit": {Limit: 51}, "from": {From: to, To: from},
			"hour": {Bucket: "hour", From: timestamppb.New(testDay.AddDate(-1, 0, 0)), To: to},
		} {
			if _, err := server.GetTrends(ctx, req); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), field) {
				t.Errorf("a bad %s: %v", field, err)
			}
		}
		for field, req := range map[string]*trendsv1.CompareTrendsRequest{
			"by": {A: "1", B: "2"}, "a, b": {By: "model"}, "slices[0]": {By: "model", A: "1", B: "2", Slices: []string{"x"}},
			"false_discovery_rate": {By: "model", A: "1", B: "2", FalseDiscoveryRate: proto.Float64(0.9)},
		} {
			if _, err := server.CompareTrends(ctx, req); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), field) {
				t.Errorf("a bad %s: %v", field, err)
			}
		}
	})
}
