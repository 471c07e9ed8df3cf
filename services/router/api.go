package router

import (
	"context"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/honeloop/hone/pkg/auth"
	policyv1 "github.com/honeloop/hone/proto/gen/go/hone/policy/v1"
)

// api implements PolicyService. It shows a caller its own project only.
type api struct {
	policyv1.UnimplementedPolicyServiceServer
	store  *store
	policy *Policy
}

// GetPolicy returns the policy in force, which is one for all projects.
func (a *api) GetPolicy(ctx context.Context, _ *policyv1.GetPolicyRequest) (*policyv1.GetPolicyResponse, error) {
	if _, err := auth.Project(ctx); err != nil {
		return nil, err
	}
	return &policyv1.GetPolicyResponse{PolicyVersion: a.policy.Version(), Yaml: a.policy.Source()}, nil
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
