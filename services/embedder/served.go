package embedder

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	recallv1 "github.com/honeloop/hone/proto/gen/go/hone/recall/v1"
)

// recallServer and caseServer pass each call to the part whose turn it is.
type recallServer struct {
	recallv1.UnimplementedRecallServiceServer
	spaces *spaces
}

type caseServer struct {
	casesv1.UnimplementedCaseServiceServer
	spaces *spaces
}

// serve calls a method of the part whose turn it is.
func serve[S, Req, Resp any](ctx context.Context, s *spaces, of func(*part) S, method func(S, context.Context, Req) (Resp, error), req Req) (Resp, error) {
	p := s.last()
	if p == nil {
		var none Resp
		return none, status.Error(codes.Unavailable, "the semantic index does not answer: try again")
	}
	return method(of(p), ctx, req)
}

func (p *part) recallAPI() *api   { return p.recall }
func (p *part) caseAPI() *caseAPI { return p.cases }

// Recall implements recallv1.RecallServiceServer.
func (s *recallServer) Recall(ctx context.Context, req *recallv1.RecallRequest) (*recallv1.RecallResponse, error) {
	return serve(ctx, s.spaces, (*part).recallAPI, (*api).Recall, req)
}

// Embed implements recallv1.RecallServiceServer.
func (s *recallServer) Embed(ctx context.Context, req *recallv1.EmbedRequest) (*recallv1.EmbedResponse, error) {
	return serve(ctx, s.spaces, (*part).recallAPI, (*api).Embed, req)
}

// GetCase implements casesv1.CaseServiceServer.
func (s *caseServer) GetCase(ctx context.Context, req *casesv1.GetCaseRequest) (*casesv1.GetCaseResponse, error) {
	return serve(ctx, s.spaces, (*part).caseAPI, (*caseAPI).GetCase, req)
}

// ListCases implements casesv1.CaseServiceServer.
func (s *caseServer) ListCases(ctx context.Context, req *casesv1.ListCasesRequest) (*casesv1.ListCasesResponse, error) {
	return serve(ctx, s.spaces, (*part).caseAPI, (*caseAPI).ListCases, req)
}

// ListCaseEdits implements casesv1.CaseServiceServer.
func (s *caseServer) ListCaseEdits(ctx context.Context, req *casesv1.ListCaseEditsRequest) (*casesv1.ListCaseEditsResponse, error) {
	return serve(ctx, s.spaces, (*part).caseAPI, (*caseAPI).ListCaseEdits, req)
}

// UpdateCase implements casesv1.CaseServiceServer.
func (s *caseServer) UpdateCase(ctx context.Context, req *casesv1.UpdateCaseRequest) (*casesv1.UpdateCaseResponse, error) {
	return serve(ctx, s.spaces, (*part).caseAPI, (*caseAPI).UpdateCase, req)
}

// SolveCase implements casesv1.CaseServiceServer.
func (s *caseServer) SolveCase(ctx context.Context, req *casesv1.SolveCaseRequest) (*casesv1.SolveCaseResponse, error) {
	return serve(ctx, s.spaces, (*part).caseAPI, (*caseAPI).SolveCase, req)
}

// MergeCase implements casesv1.CaseServiceServer.
func (s *caseServer) MergeCase(ctx context.Context, req *casesv1.MergeCaseRequest) (*casesv1.MergeCaseResponse, error) {
	return serve(ctx, s.spaces, (*part).caseAPI, (*caseAPI).MergeCase, req)
}

// SplitCase implements casesv1.CaseServiceServer.
func (s *caseServer) SplitCase(ctx context.Context, req *casesv1.SplitCaseRequest) (*casesv1.SplitCaseResponse, error) {
	return serve(ctx, s.spaces, (*part).caseAPI, (*caseAPI).SplitCase, req)
}

// UndoCaseEdit implements casesv1.CaseServiceServer.
func (s *caseServer) UndoCaseEdit(ctx context.Context, req *casesv1.UndoCaseEditRequest) (*casesv1.UndoCaseEditResponse, error) {
	return serve(ctx, s.spaces, (*part).caseAPI, (*caseAPI).UndoCaseEdit, req)
}
