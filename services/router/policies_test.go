package router

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/honeloop/hone/pkg/auth"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/stream/streamtest"
	"github.com/honeloop/hone/pkg/telemetry"
	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	curationv1 "github.com/honeloop/hone/proto/gen/go/hone/curation/v1"
	policyv1 "github.com/honeloop/hone/proto/gen/go/hone/policy/v1"
)

// stack is Kafka, ClickHouse, and routers with a client each.
type stack struct {
	cfg     Config
	broker  *streamtest.Broker
	secrets map[string]string // by project
}

func newStack(t *testing.T, projects ...string) *stack {
	t.Helper()
	s := &stack{cfg: DefaultConfig(), broker: streamtest.StartBroker(t), secrets: map[string]string{}}
	s.cfg.Server.KeysFile = filepath.Join(t.TempDir(), "keys.yaml")
	s.cfg.Kafka, s.cfg.ClickHouse = s.broker.Config(), database(t)
	var keys []auth.Key
	for _, project := range projects {
		key, secret, err := auth.Mint(project, auth.Secret)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key)
		s.secrets[project] = secret
	}
	if err := auth.WriteKeys(s.cfg.Server.KeysFile, keys); err != nil {
		t.Fatal(err)
	}
	return s
}

// start runs a router until the test ends, or stop is called.
func (s *stack) start(t *testing.T) (client policyv1.PolicyServiceClient, stop func()) {
	t.Helper()
	cfg := s.cfg
	cfg.Server.GRPCAddr, cfg.Server.AdminAddr = freeAddr(t), freeAddr(t)
	service, err := New(t.Context(), cfg, telemetry.Discard())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- service.Run(ctx) }()
	conn, err := grpc.NewClient(cfg.Server.GRPCAddr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	for deadline := time.Now().Add(time.Minute); service.Ready(t.Context()) != nil; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("not ready:", service.Ready(t.Context()))
		}
	}
	return policyv1.NewPolicyServiceClient(conn), stop
}

func (s *stack) as(t *testing.T, project string) context.Context {
	return metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+s.secrets[project])
}

// routeAll is a policy that sends everything one way.
func routeAll(route string) string {
	return strings.Replace(one("true"), "product", route, 1)
}

func in(project, signal string) *casesv1.CaseSignal {
	return with(complaint(1), func(cs *casesv1.CaseSignal) {
		cs.Signal.ProjectId, cs.Case.ProjectId, cs.Signal.SignalId = project, project, signal
	})
}

func TestEachProjectHasItsPolicyWithoutARestart(t *testing.T) {
	s := newStack(t, "p", "q")
	client, stop := s.start(t)
	decided := func(project, signal string) (rule string, routes []string) {
		t.Helper()
		s.broker.Write(t, input(in(project, signal))...)
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
			resp, err := client.Explain(s.as(t, project), &policyv1.ExplainRequest{SignalId: signal})
			if err == nil {
				return resp.Decisions[0].Rule, resp.Decisions[0].Routes
			}
			if time.Now().After(deadline) {
				t.Fatal(err)
			}
		}
	}
	publish := func(project string, req *policyv1.PublishPolicyRequest) *policyv1.PublishPolicyResponse {
		t.Helper()
		resp, err := client.PublishPolicy(s.as(t, project), req)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	if rule, _ := decided("p", "a"); rule != "knowledge-gap-corrected" {
		t.Errorf("before: rule %s, want the router's own policy", rule)
	}
	first := publish("p", &policyv1.PublishPolicyRequest{Yaml: routeAll("product"), Note: "try", Replaces: ptr(uint32(0))})
	if first.Policy.Number != 1 || first.Policy.Author == "" || first.Policy.PublishedAt == nil {
		t.Errorf("published %v", first)
	}
	if _, routes := decided("p", "b"); !slices.Equal(routes, []string{RouteProduct}) {
		t.Errorf("p: routes %v, want the published policy's", routes)
	}
	if rule, _ := decided("q", "b"); rule != "knowledge-gap-corrected" {
		t.Errorf("q: rule %s, want the router's own policy", rule)
	}
	if again := publish("p", &policyv1.PublishPolicyRequest{Yaml: "# the same\n" + routeAll("product")}); !again.Unchanged || again.Policy.Number != 1 {
		t.Errorf("the same again: %v, want nothing published", again)
	}
	publish("p", &policyv1.PublishPolicyRequest{Yaml: routeAll("fine-tune"), Author: "ann"})
	publish("q", &policyv1.PublishPolicyRequest{Yaml: routeAll("human-review")})

	// What is wrong changes nothing.
	for name, tt := range map[string]struct {
		req  *policyv1.PublishPolicyRequest
		code codes.Code
		want string
	}{
		"misspelt": {&policyv1.PublishPolicyRequest{Yaml: one("case.negativs > 1")}, codes.InvalidArgument, `yaml:4:15: rule "a": undefined field 'negativs': did you mean "negatives"?`},
		"too late": {&policyv1.PublishPolicyRequest{Yaml: one("false"), Replaces: ptr(uint32(1))}, codes.Aborted, "version 2 is in force"},
		"author":   {&policyv1.PublishPolicyRequest{Yaml: one("false"), Author: strings.Repeat("a", 1000)}, codes.InvalidArgument, "author"},
	} {
		if _, err := client.PublishPolicy(s.as(t, "p"), tt.req); status.Code(err) != tt.code || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %v: %s", name, err, tt.code, tt.want)
		}
	}
	if v, err := client.ValidatePolicy(s.as(t, "p"), &policyv1.ValidatePolicyRequest{Yaml: one("nope")}); err != nil || len(v.Errors) != 1 || v.Errors[0].Line != 4 || v.PolicyVersion != "" {
		t.Errorf("validate: %v, %v", v, err)
	}
	if _, routes := decided("p", "c"); !slices.Equal(routes, []string{RouteFineTune}) {
		t.Errorf("version 2: %v", routes)
	}

	// Back to 1, which is the one before, then to the router's own.
	back, err := client.RollbackPolicy(s.as(t, "p"), &policyv1.RollbackPolicyRequest{})
	if err != nil || back.Policy.Number != 3 || back.Policy.RollbackOf != 1 {
		t.Fatalf("rollback: %v, %v", back, err)
	}
	if _, routes := decided("p", "d"); !slices.Equal(routes, []string{RouteProduct}) {
		t.Errorf("rolled back: %v", routes)
	}
	if _, err := client.RollbackPolicy(s.as(t, "p"), &policyv1.RollbackPolicyRequest{Number: ptr(uint32(9))}); status.Code(err) != codes.NotFound {
		t.Errorf("unknown version: %v", err)
	}
	if back, err := client.RollbackPolicy(s.as(t, "p"), &policyv1.RollbackPolicyRequest{Number: ptr(uint32(0))}); err != nil || back.Policy.Number != 4 || !back.Policy.RoutersOwn {
		t.Errorf("to the router's own: %v, %v", back, err)
	}
	if rule, _ := decided("p", "e"); rule != "knowledge-gap-corrected" {
		t.Errorf("router's own: rule %s", rule)
	}

	// A router that starts anew reads the log before it decides; the history is in ClickHouse.
	stop()
	client, _ = s.start(t)
	if _, routes := decided("q", "f"); !slices.Equal(routes, []string{RouteHumanReview}) {
		t.Errorf("after a restart, q: %v", routes)
	}
	var list *policyv1.ListPoliciesResponse
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if list, err = client.ListPolicies(s.as(t, "p"), &policyv1.ListPoliciesRequest{}); err != nil {
			t.Fatal(err)
		}
		if len(list.Policies) == 4 || time.Now().After(deadline) {
			break
		}
	}
	var numbers []uint32
	for _, v := range list.Policies {
		numbers = append(numbers, v.Number)
	}
	if !slices.Equal(numbers, []uint32{4, 3, 2, 1}) || list.Policies[2].Author != "ann" || list.Policies[3].Note != "try" {
		t.Errorf("history %v", list.Policies)
	}
	got, err := client.GetPolicy(s.as(t, "p"), &policyv1.GetPolicyRequest{Number: ptr(uint32(2))})
	if err != nil || got.Yaml != routeAll("fine-tune") || got.PolicyVersion != list.Policies[2].PolicyVersion {
		t.Errorf("version 2: %v, %v", got, err)
	}
	if _, err := client.GetPolicy(s.as(t, "q"), &policyv1.GetPolicyRequest{Number: ptr(uint32(2))}); status.Code(err) != codes.NotFound {
		t.Errorf("another project's version: %v", err)
	}
}

// TestOfTwoWhoPublishOneIsRefused has two routers publish at the same time.
func TestOfTwoWhoPublishOneIsRefused(t *testing.T) {
	s := newStack(t, "p")
	one, _ := s.start(t)
	two, _ := s.start(t)
	var wins, refusals atomic.Int32
	var wg sync.WaitGroup
	for i := range 10 {
		client := one
		if i%2 == 1 {
			client = two
		}
		wg.Go(func() {
			_, err := client.PublishPolicy(s.as(t, "p"), &policyv1.PublishPolicyRequest{Yaml: routeAll("product"), Note: fmt.Sprint(i), Replaces: ptr(uint32(0))})
			switch status.Code(err) {
			case codes.OK:
				wins.Add(1)
			case codes.Aborted:
				refusals.Add(1)
			default:
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if wins.Load() != 1 || refusals.Load() != 9 {
		t.Errorf("%d published and %d refused, want 1 and 9", wins.Load(), refusals.Load())
	}
}

func TestTheFirstWithTheNextNumberCounts(t *testing.T) {
	var refused []string
	p := newPolicies(defaultPolicy(t), func(project string, number uint32, _ error) { refused = append(refused, fmt.Sprint(project, number)) })
	send := func(project string, number uint32, yaml string) {
		t.Helper()
		event := &curationv1.CurationEvent{CurationId: fmt.Sprint(number, yaml), ProjectId: project,
			Payload: &curationv1.CurationEvent_PolicyPublished{PolicyPublished: &curationv1.PolicyPublished{Number: number, Yaml: yaml}}}
		value, err := proto.Marshal(event)
		if err != nil {
			t.Fatal(err)
		}
		if err := p.follow(t.Context(), stage.Record{Topic: stream.TopicCuration, Value: value}); err != nil {
			t.Fatal(err)
		}
	}
	source := func(project string) string { return p.of(project).Source() }
	send("p", 2, one("2 < 1")) // no first one
	if source("p") != defaultPolicy(t).Source() {
		t.Error("a gap counted")
	}
	send("p", 1, one("true"))
	send("p", 1, one("false"))
	if source("p") != one("true") {
		t.Error("the second one counted")
	}
	send("p", 2, "of: the future")
	if _, info := p.current("p"); source("p") != one("true") || info.Number != 2 || info.Error == "" || !slices.Equal(refused, []string{"p2"}) {
		t.Errorf("a policy that cannot be used: %v, refused %v", info, refused)
	}
	send("p", 3, one("3 > 1"))
	if source("p") != one("3 > 1") || source("q") != defaultPolicy(t).Source() {
		t.Error("the next one does not count, or counts for another project")
	}
	if err := p.follow(t.Context(), stage.Record{Value: []byte("\xff")}); err != nil {
		t.Errorf("garbage: %v", err)
	}
}
