package router

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/honeloop/hone/pkg/auth"
	"github.com/honeloop/hone/pkg/clickhouse"
	"github.com/honeloop/hone/pkg/ids"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	curationv1 "github.com/honeloop/hone/proto/gen/go/hone/curation/v1"
	policyv1 "github.com/honeloop/hone/proto/gen/go/hone/policy/v1"
)

// api implements PolicyService. It shows a caller its own project only.
type api struct {
	policyv1.UnimplementedPolicyServiceServer
	store    *store
	policies *policies
	append   func(ctx context.Context, recs ...stage.Record) error
	// caughtUp is nil once policies are what the log says.
	caughtUp func() error
	now      func() time.Time
	// Longest wait of a publication, for the log and until it is read back.
	publishTimeout time.Duration
	// Publications in flight; its capacity is the limit.
	publishing chan struct{}
	// Backtests at a time; its capacity is the limit.
	backtesting chan struct{}
}

// Limits of calls.
const (
	defaultListed   = 50
	maxListed       = 1000
	maxAuthor       = 256  // bytes
	maxNote         = 4096 // bytes
	defaultBacktest = 30 * 24 * time.Hour
	maxMinutes      = 10_000 // of work for a signal
)

// project is the caller's, once the log of policies was read.
func (a *api) project(ctx context.Context) (string, error) {
	project, err := auth.Project(ctx)
	if err != nil {
		return "", err
	}
	if err := a.caughtUp(); err != nil {
		return "", status.Error(codes.Unavailable, err.Error())
	}
	return project, nil
}

// GetPolicy returns a version of the project's policy.
func (a *api) GetPolicy(ctx context.Context, req *policyv1.GetPolicyRequest) (*policyv1.GetPolicyResponse, error) {
	project, err := a.project(ctx)
	if err != nil {
		return nil, err
	}
	policy, info := a.policies.current(project)
	if req.Number != nil && req.GetNumber() != info.GetNumber() {
		yaml, old, err := a.version(ctx, project, req.GetNumber())
		if err != nil {
			return nil, err
		}
		return &policyv1.GetPolicyResponse{PolicyVersion: old.GetPolicyVersion(), Yaml: yaml, Policy: old}, nil
	}
	return &policyv1.GetPolicyResponse{PolicyVersion: policy.Version(), Yaml: policy.Source(), Policy: info}, nil
}

// version reads the text of a version: of the routers' own where it is that.
func (a *api) version(ctx context.Context, project string, number uint32) (string, *policyv1.Policy, error) {
	if number == 0 {
		return a.policies.own.Source(), &policyv1.Policy{PolicyVersion: a.policies.own.Version(), RoutersOwn: true}, nil
	}
	rows, err := a.store.policyVersions(ctx, project, number, 1)
	if err != nil {
		return "", nil, status.Errorf(codes.Unavailable, "policies cannot be read now, try again: %v", err)
	}
	if len(rows) == 0 || rows[0].Number != number {
		return "", nil, status.Errorf(codes.NotFound, "number: the project has no version %d", number)
	}
	info := rows[0].info()
	if info.RoutersOwn {
		info.PolicyVersion = a.policies.own.Version()
		return a.policies.own.Source(), info, nil
	}
	return rows[0].YAML, info, nil
}

// ListPolicies returns the project's versions, newest first.
func (a *api) ListPolicies(ctx context.Context, req *policyv1.ListPoliciesRequest) (*policyv1.ListPoliciesResponse, error) {
	project, err := a.project(ctx)
	if err != nil {
		return nil, err
	}
	limit, err := listLimit(req.GetLimit())
	if err != nil {
		return nil, err
	}
	_, info := a.policies.current(project)
	out := &policyv1.ListPoliciesResponse{Policies: []*policyv1.Policy{info}}
	if info.GetNumber() > 1 && limit > 1 {
		rows, err := a.store.policyVersions(ctx, project, info.GetNumber()-1, limit-1)
		if err != nil {
			return nil, status.Errorf(codes.Unavailable, "policies cannot be read now, try again: %v", err)
		}
		for _, r := range rows {
			out.Policies = append(out.Policies, r.info())
		}
	}
	return out, nil
}

// ValidatePolicy says what is wrong with a policy.
func (a *api) ValidatePolicy(ctx context.Context, req *policyv1.ValidatePolicyRequest) (*policyv1.ValidatePolicyResponse, error) {
	if _, err := auth.Project(ctx); err != nil {
		return nil, err
	}
	policy, err := CompilePolicy("yaml", []byte(req.GetYaml()))
	if wrong, ok := errors.AsType[*PolicyErrors](err); ok {
		out := &policyv1.ValidatePolicyResponse{}
		for _, e := range wrong.Errors {
			out.Errors = append(out.Errors, &policyv1.PolicyError{Line: uint32(e.Line), Column: uint32(e.Column), Message: e.Message})
		}
		return out, nil
	}
	if err != nil {
		return nil, status.Errorf(codes.Internal, "compile the policy: %v", err)
	}
	return &policyv1.ValidatePolicyResponse{PolicyVersion: policy.Version()}, nil
}

// PublishPolicy makes a policy the project's.
func (a *api) PublishPolicy(ctx context.Context, req *policyv1.PublishPolicyRequest) (*policyv1.PublishPolicyResponse, error) {
	project, err := a.project(ctx)
	if err != nil {
		return nil, err
	}
	policy, err := compileGiven(req.GetYaml())
	if err != nil {
		return nil, err
	}
	before, info := a.policies.current(project)
	if req.Replaces != nil && req.GetReplaces() != info.GetNumber() {
		return nil, status.Errorf(codes.Aborted, "replaces: version %d is in force by now, not %d: look at it, and publish again", info.GetNumber(), req.GetReplaces())
	}
	if before.Version() == policy.Version() && info.GetError() == "" && !info.GetRoutersOwn() {
		return &policyv1.PublishPolicyResponse{Policy: info, Unchanged: true}, nil
	}
	out, err := a.publish(ctx, project, &curationv1.PolicyPublished{Number: info.GetNumber() + 1, PolicyVersion: policy.Version(), Yaml: req.GetYaml(),
		Author: req.GetAuthor(), Note: req.GetNote()})
	if err != nil {
		return nil, err
	}
	return &policyv1.PublishPolicyResponse{Policy: out}, nil
}

func compileGiven(yaml string) (*Policy, error) {
	policy, err := CompilePolicy("yaml", []byte(yaml))
	if _, ok := errors.AsType[*PolicyErrors](err); ok {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if err != nil {
		return nil, status.Errorf(codes.Internal, "compile the policy: %v", err)
	}
	return policy, nil
}

// RollbackPolicy publishes an earlier version again.
func (a *api) RollbackPolicy(ctx context.Context, req *policyv1.RollbackPolicyRequest) (*policyv1.RollbackPolicyResponse, error) {
	project, err := a.project(ctx)
	if err != nil {
		return nil, err
	}
	_, info := a.policies.current(project)
	if info.GetNumber() == 0 {
		return nil, status.Error(codes.FailedPrecondition, "the project has published no policy, so there is none to go back from")
	}
	number := info.GetNumber() - 1
	if req.Number != nil {
		number = req.GetNumber()
	}
	if number == info.GetNumber() {
		return nil, status.Errorf(codes.InvalidArgument, "number: version %d is in force already", number)
	}
	yaml, old, err := a.version(ctx, project, number)
	if err != nil {
		return nil, err
	}
	pub := &curationv1.PolicyPublished{Number: info.GetNumber() + 1, RollbackOf: number, Author: req.GetAuthor(), Note: req.GetNote()}
	if !old.GetRoutersOwn() {
		policy, err := compileGiven(yaml) // an older build may have accepted what this one does not
		if err != nil {
			return nil, err
		}
		pub.Yaml, pub.PolicyVersion = yaml, policy.Version()
	}
	out, err := a.publish(ctx, project, pub)
	if err != nil {
		return nil, err
	}
	return &policyv1.RollbackPolicyResponse{Policy: out}, nil
}

// publish appends a version and waits until it is read back.
func (a *api) publish(ctx context.Context, project string, pub *curationv1.PolicyPublished) (*policyv1.Policy, error) {
	if err := nameAuthor(ctx, &pub.Author, pub.Note); err != nil {
		return nil, err
	}
	select {
	case a.publishing <- struct{}{}:
		defer func() { <-a.publishing }()
	default:
		return nil, status.Errorf(codes.ResourceExhausted, "%d policies are being published: try again in a second", cap(a.publishing))
	}
	ctx, cancel := context.WithTimeout(ctx, a.publishTimeout)
	defer cancel()
	event := &curationv1.CurationEvent{
		CurationId: ids.Derive("cu", project, "policy", fmt.Sprint(pub.Number), pub.Yaml, pub.Author, pub.Note, fmt.Sprint(pub.RollbackOf)),
		ProjectId:  project,
		OccurredAt: timestamppb.New(a.now().UTC().Truncate(time.Millisecond)),
		Payload:    &curationv1.CurationEvent_PolicyPublished{PolicyPublished: pub},
	}
	won, stopWaiting, err := a.policies.await(project, pub.Number)
	if err != nil {
		return nil, status.Error(codes.Aborted, err.Error())
	}
	defer stopWaiting()
	if err := a.appendEvent(ctx, event); err != nil {
		return nil, err
	}
	select {
	case w := <-won:
		if w.curationID != event.CurationId {
			return nil, status.Error(codes.Aborted, errOvertaken.Error())
		}
		// So that the history has it at once. policyLog writes the same row in any
		// case, and the policy is in force already: no error of ours.
		_ = policiesTable().Insert(ctx, a.store.conn, []*policyRow{newPolicyRow(event, pub, w.offset)})
	case <-ctx.Done():
		return nil, status.Error(codes.DeadlineExceeded, "the policy is in the log but was not read back in time: publish it again, it counts once")
	}
	info := versionInfo(event, pub)
	if info.RoutersOwn {
		info.PolicyVersion = a.policies.own.Version()
	}
	return info, nil
}

// Explain returns the decisions on a signal, newest revision first.
func (a *api) Explain(ctx context.Context, req *policyv1.ExplainRequest) (*policyv1.ExplainResponse, error) {
	project, err := auth.Project(ctx)
	if err != nil {
		return nil, err
	}
	if req.GetSignalId() == "" {
		return nil, status.Error(codes.InvalidArgument, "signal_id: missing")
	}
	h, err := a.store.explain(ctx, project, req.GetSignalId())
	if err != nil {
		return nil, status.Errorf(codes.Unavailable, "decisions cannot be read now, try again: %v", err)
	}
	if len(h) == 0 {
		return nil, status.Errorf(codes.NotFound, "signal_id: there is no decision on %q", req.GetSignalId())
	}
	out := &policyv1.ExplainResponse{}
	for _, d := range slices.Backward(h) {
		out.Decisions = append(out.Decisions, d.Decision)
	}
	return out, nil
}

// Backtest runs a policy over decisions of the past. It writes nothing.
func (a *api) Backtest(req *policyv1.BacktestRequest, out grpc.ServerStreamingServer[httpbody.HttpBody]) error {
	ctx := out.Context()
	project, err := a.project(ctx)
	if err != nil {
		return err
	}
	select {
	case a.backtesting <- struct{}{}:
		defer func() { <-a.backtesting }()
	default:
		return status.Errorf(codes.ResourceExhausted, "%d backtests are running: try again later", cap(a.backtesting))
	}
	policy := a.policies.of(project)
	if req.GetYaml() != "" {
		if policy, err = compileGiven(req.GetYaml()); err != nil {
			return err
		}
	}
	until := a.now().UTC().Truncate(time.Millisecond)
	if req.Until != nil {
		until = req.GetUntil().AsTime()
	}
	since := until.Add(-defaultBacktest)
	if req.Since != nil {
		since = req.GetSince().AsTime()
	}
	if !since.Before(until) || clickhouse.CheckTime(since) != nil || clickhouse.CheckTime(until) != nil {
		return status.Errorf(codes.InvalidArgument, "since: %s, want a time before %s", since.Format(time.RFC3339), until.Format(time.RFC3339))
	}
	if err := checkMinutes(req.GetMinutes()); err != nil {
		return err
	}
	r := newReport(policy.Version(), since, until, req.GetMinutes())
	if err := backtestError(a.store.backtest(ctx, project, policy, r, progressTo(out))); err != nil {
		return err
	}
	return sendLine(out, &policyv1.BacktestResponse{Report: r.finish(policy)})
}

func backtestError(err error) error {
	if tooLong, ok := errors.AsType[*tooLongError](err); ok {
		return status.Error(codes.InvalidArgument, tooLong.Error())
	}
	if err != nil {
		return status.Errorf(codes.Unavailable, "decisions cannot be read now, try again: %v", err)
	}
	return nil
}

func checkMinutes(given map[string]float64) error {
	for route, minutes := range given {
		if !slices.Contains(allRoutes(), route) {
			return status.Errorf(codes.InvalidArgument, "minutes: route %q is not known%s", route, didYouMean(route, allRoutes()))
		}
		if !(minutes >= 0 && minutes <= maxMinutes) {
			return status.Errorf(codes.InvalidArgument, "minutes: %s: %v, want minutes from 0 to %d", route, minutes, maxMinutes)
		}
	}
	return nil
}

func progressTo(out grpc.ServerStreamingServer[httpbody.HttpBody]) func(done, total uint32) error {
	return func(done, total uint32) error {
		return sendLine(out, &policyv1.BacktestResponse{Progress: &policyv1.BacktestProgress{Done: done, Total: total}})
	}
}

// sendLine sends a message as a line of JSON, zeros too.
func sendLine(out grpc.ServerStreamingServer[httpbody.HttpBody], m *policyv1.BacktestResponse) error {
	data, err := protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}.Marshal(m)
	if err == nil {
		data, err = marshal(json.RawMessage(data))
	}
	if err != nil {
		return status.Errorf(codes.Internal, "encode the report: %v", err)
	}
	return out.Send(&httpbody.HttpBody{ContentType: "application/x-ndjson", Data: append(data, '\n')})
}

// Times of shadows.
const (
	defaultShadow = 7 * 24 * time.Hour
	maxShadow     = 90 * 24 * time.Hour
)

// StartShadow lets a policy run beside the live one.
func (a *api) StartShadow(ctx context.Context, req *policyv1.StartShadowRequest) (*policyv1.StartShadowResponse, error) {
	project, err := a.project(ctx)
	if err != nil {
		return nil, err
	}
	policy, err := compileGiven(req.GetYaml())
	if err != nil {
		return nil, err
	}
	now := a.now().UTC().Truncate(time.Millisecond)
	if sh := a.policies.shadowOf(project); sh.runs(now) {
		return nil, status.Errorf(codes.FailedPrecondition, "shadow %s runs until %s: stop it first", sh.info.ShadowId, sh.info.GetEndsAt().AsTime().Format(time.RFC3339))
	}
	ends := now.Add(defaultShadow)
	if req.EndsAt != nil {
		ends = req.GetEndsAt().AsTime()
	}
	if !ends.After(now) || ends.After(now.Add(maxShadow)) {
		return nil, status.Errorf(codes.InvalidArgument, "ends_at: %s, want a time in the next 90 days", ends.Format(time.RFC3339))
	}
	id := ids.Derive("sh", project, req.GetYaml(), now.String())
	if err := a.shadowed(ctx, project, now, "start", newShadowed(project, req, policy, id, now, ends)); err != nil {
		return nil, err
	}
	return &policyv1.StartShadowResponse{Shadow: a.policies.shadowOf(project).at(now)}, nil
}

// StopShadow ends the shadow that runs.
func (a *api) StopShadow(ctx context.Context, req *policyv1.StopShadowRequest) (*policyv1.StopShadowResponse, error) {
	project, err := a.project(ctx)
	if err != nil {
		return nil, err
	}
	now := a.now().UTC().Truncate(time.Millisecond)
	sh := a.policies.shadowOf(project)
	if !sh.runs(now) {
		return nil, status.Error(codes.FailedPrecondition, "no shadow is running")
	}
	if err := a.shadowed(ctx, project, now, "stop", &curationv1.PolicyShadowed{ShadowId: sh.info.ShadowId, Author: req.GetAuthor(), Note: req.GetNote()}); err != nil {
		return nil, err
	}
	return &policyv1.StopShadowResponse{Shadow: a.policies.shadowOf(project).at(now)}, nil
}

// shadowed appends an event about a shadow and waits until it is read back.
func (a *api) shadowed(ctx context.Context, project string, now time.Time, what string, sh *curationv1.PolicyShadowed) error {
	if err := nameAuthor(ctx, &sh.Author, sh.Note); err != nil {
		return err
	}
	event := &curationv1.CurationEvent{CurationId: ids.Derive("cu", project, what, sh.ShadowId), ProjectId: project, OccurredAt: timestamppb.New(now),
		Payload: &curationv1.CurationEvent_PolicyShadowed{PolicyShadowed: sh}}
	heard, cancelHearing := a.policies.hear(event.CurationId)
	defer cancelHearing()
	ctx, cancel := context.WithTimeout(ctx, a.publishTimeout)
	defer cancel()
	if err := a.appendEvent(ctx, event); err != nil {
		return err
	}
	select {
	case <-heard:
		return nil
	case <-ctx.Done():
		return status.Error(codes.DeadlineExceeded, "the shadow is in the log but was not read back in time: look at its report in a moment")
	}
}

// ReportShadow compares what the latest shadow decided with what was decided.
func (a *api) ReportShadow(req *policyv1.ReportShadowRequest, out grpc.ServerStreamingServer[httpbody.HttpBody]) error {
	ctx := out.Context()
	project, err := a.project(ctx)
	if err != nil {
		return err
	}
	if err := checkMinutes(req.GetMinutes()); err != nil {
		return err
	}
	sh := a.policies.shadowOf(project)
	if sh == nil || sh.policy == nil {
		return status.Error(codes.NotFound, "the project has had no shadow, or none that this router can read")
	}
	select {
	case a.backtesting <- struct{}{}:
		defer func() { <-a.backtesting }()
	default:
		return status.Errorf(codes.ResourceExhausted, "%d backtests are running: try again later", cap(a.backtesting))
	}
	now := a.now().UTC().Truncate(time.Millisecond)
	since, until := sh.span(now)
	r := newReport(sh.policy.Version(), since, until, req.GetMinutes())
	if err := backtestError(a.store.reportShadow(ctx, project, sh, r, progressTo(out))); err != nil {
		return err
	}
	return sendLine(out, &policyv1.BacktestResponse{Report: r.finish(sh.policy), Shadow: sh.at(now)})
}

// nameAuthor checks who did something and why; the key's id where nobody is named.
func nameAuthor(ctx context.Context, author *string, note string) error {
	if len(*author) > maxAuthor || len(note) > maxNote {
		return status.Errorf(codes.InvalidArgument, "author, note: at most %d and %d bytes", maxAuthor, maxNote)
	}
	if key, ok := auth.FromContext(ctx); ok && *author == "" {
		*author = key.ID
	}
	return nil
}

// appendEvent writes to hone.curation.
func (a *api) appendEvent(ctx context.Context, event *curationv1.CurationEvent) error {
	value, err := proto.Marshal(event)
	if err != nil {
		return status.Errorf(codes.InvalidArgument, "yaml, author, note: %v", err)
	}
	rec := stage.Record{Topic: stream.TopicCuration, Key: []byte(event.GetProjectId()), Value: value, Time: event.GetOccurredAt().AsTime()}
	if err := a.append(ctx, rec); err != nil {
		return status.Errorf(codes.Unavailable, "append to the log: %v: do it again, it counts once", err)
	}
	return nil
}

// ListHeld returns signals that are held, oldest first.
func (a *api) ListHeld(ctx context.Context, req *policyv1.ListHeldRequest) (*policyv1.ListHeldResponse, error) {
	project, err := auth.Project(ctx)
	if err != nil {
		return nil, err
	}
	limit, err := listLimit(req.GetLimit())
	if err != nil {
		return nil, err
	}
	decisions, err := a.store.held(ctx, project, req.GetCaseId(), limit)
	if err != nil {
		return nil, status.Errorf(codes.Unavailable, "decisions cannot be read now, try again: %v", err)
	}
	return &policyv1.ListHeldResponse{Decisions: decisions}, nil
}

func listLimit(limit uint32) (int, error) {
	if limit > maxListed {
		return 0, status.Errorf(codes.InvalidArgument, "limit: %d, at most %d", limit, maxListed)
	}
	if limit == 0 {
		return defaultListed, nil
	}
	return int(limit), nil
}
