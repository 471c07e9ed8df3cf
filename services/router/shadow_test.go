package router

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	policyv1 "github.com/honeloop/hone/proto/gen/go/hone/policy/v1"
)

// run starts a shadow on the bench.
func (b *bench) run(t *testing.T, source string) *shadow {
	t.Helper()
	policy := compile(t, source)
	sh := &shadow{&policyv1.Shadow{ShadowId: "sh_1", PolicyVersion: policy.Version(), Running: true,
		StartedAt: timestamppb.New(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)), EndsAt: timestamppb.New(time.Date(2027, 1, 1, 0, 0, 0, 0, time.UTC))}, policy}
	b.policies.shadows["default"] = sh
	return sh
}

func (b *bench) reportShadow(t *testing.T, sh *shadow) *policyv1.BacktestReport {
	t.Helper()
	since, until := sh.span(time.Now())
	r := newReport(sh.policy.Version(), since, until, nil)
	if err := b.store.reportShadow(t.Context(), "default", sh, r, func(_, _ uint32) error { return nil }); err != nil {
		t.Fatal(err)
	}
	return r.finish(sh.policy)
}

func TestAShadowDecidesAndRoutesNothing(t *testing.T) {
	b := newBench(t)
	b.policies.own = compile(t, routeAll("product"))
	wantStrings(t, "before the shadow", b.routes(t, many(100, 1, nil)...), "product hone.route.v1 1")
	sh := b.run(t, strings.Replace(one("true"), "    routes: [product]", "    limit: {count: 3, per: day}\n    routes: [human-review]", 1))
	var got []string
	for part := range slices.Chunk(many(0, 5, nil), 2) {
		got = append(got, b.routes(t, part...)...)
	}
	wantStrings(t, "events", got, slices.Repeat([]string{"product hone.route.v1 1"}, 5)...)
	check := func(signals, changed uint32, ways string) {
		t.Helper()
		r := b.reportShadow(t, sh)
		var after []string
		for _, c := range r.Changes {
			after = append(after, strings.Join(c.After, ","))
		}
		slices.Sort(after)
		if r.Signals != signals || r.Changed != changed || strings.Join(after, " ") != ways {
			t.Errorf("report %v, want %d signals, %d changed to %s", r, signals, changed, ways)
		}
	}
	check(5, 5, "human-review nothing")
	if n := b.count(t, "SELECT count() FROM shadow_decisions_log WHERE rule = 'a'"); n != 3 {
		t.Errorf("the shadow's limit let %d through, want 3", n)
	}
	// A replay decides nothing again, and a newer revision is compared once.
	b.routes(t, many(0, 5, nil)...)
	newer := many(4, 1, tone)
	newer[0].Signal.Revision = 2
	b.routes(t, newer...)
	check(5, 5, "human-review nothing")
}

func TestTheLivePolicyAsAShadowDiffersInNothing(t *testing.T) {
	b := newBench(t)
	b.policies.own = stateful(t)
	sh := b.run(t, b.policies.own.Source())
	for part := range slices.Chunk(manyKinds(60), 7) {
		b.routes(t, part...)
	}
	if r := b.reportShadow(t, sh); r.Signals < 40 || r.Changed != 0 || r.OtherRule != 0 {
		t.Errorf("the live policy as a shadow: %v", r)
	}
	// What has ended decides nothing.
	sh.info.Running = false
	b.routes(t, many(200, 3, nil)...)
	if n := b.count(t, "SELECT count() FROM shadow_decisions_log WHERE signal_id IN ('sg_200', 'sg_201')"); n != 0 {
		t.Errorf("an ended shadow decided %d signals", n)
	}
}

func TestShadowsOverTheAPI(t *testing.T) {
	s := newStack(t, "default", "other")
	client, stop := s.start(t)
	report := func(project string) (*policyv1.BacktestResponse, error) {
		stream, err := client.ReportShadow(s.as(t, project), &policyv1.ReportShadowRequest{})
		if err != nil {
			return nil, err
		}
		last := &policyv1.BacktestResponse{}
		for {
			body, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return last, nil
			}
			if err != nil {
				return nil, err
			}
			last = &policyv1.BacktestResponse{}
			if err := protojson.Unmarshal(body.Data, last); err != nil {
				t.Fatal(err)
			}
		}
	}
	if _, err := report("default"); status.Code(err) != codes.NotFound {
		t.Errorf("no shadow: %v", err)
	}
	if _, err := client.StartShadow(s.as(t, "default"), &policyv1.StartShadowRequest{Yaml: one("nope")}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a wrong policy: %v", err)
	}
	started, err := client.StartShadow(s.as(t, "default"), &policyv1.StartShadowRequest{Yaml: routeAll("product"), Note: "try"})
	if err != nil || !started.Shadow.Running || started.Shadow.Note != "try" {
		t.Fatalf("start: %v, %v", started, err)
	}
	if _, err := client.StartShadow(s.as(t, "default"), &policyv1.StartShadowRequest{Yaml: routeAll("alert")}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("a second one: %v", err)
	}
	// It goes on after a restart.
	stop()
	client, _ = s.start(t)
	s.broker.Write(t, input(many(0, 3, nil)...)...)
	s.broker.Write(t, input(in("other", "sg_9"))...)
	var last *policyv1.BacktestResponse
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if last, err = report("default"); err != nil {
			t.Fatal(err)
		}
		if last.GetReport().GetSignals() == 3 || time.Now().After(deadline) {
			break
		}
	}
	if last.GetReport().GetChanged() != 3 || last.GetShadow().GetShadowId() != started.Shadow.ShadowId {
		t.Errorf("report %v", last)
	}
	ended, err := client.StopShadow(s.as(t, "default"), &policyv1.StopShadowRequest{})
	if err != nil || ended.Shadow.Running {
		t.Errorf("stop: %v, %v", ended, err)
	}
	if last, err := report("default"); err != nil || last.GetShadow().GetRunning() || last.GetReport().GetSignals() != 3 {
		t.Errorf("after the end: %v, %v", last, err)
	}
	if _, err := report("other"); status.Code(err) != codes.NotFound {
		t.Errorf("another project: %v", err)
	}
	if _, err := client.StopShadow(s.as(t, "default"), &policyv1.StopShadowRequest{}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("stop again: %v", err)
	}
}
