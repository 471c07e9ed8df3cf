package enricher

import (
	"context"
	"log/slog"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/honeloop/hone/pkg/auth"
	erasurev1 "github.com/honeloop/hone/proto/gen/go/hone/erasure/v1"

	"github.com/honeloop/hone/services/enricher/internal/erase"
)

// erasureServer takes requests to erase.
type erasureServer struct {
	erasurev1.UnimplementedErasureServiceServer
	eraser *erase.Eraser
	log    *slog.Logger
}

// Erase implements ErasureService.
func (s *erasureServer) Erase(ctx context.Context, req *erasurev1.EraseRequest) (*erasurev1.EraseResponse, error) {
	project, err := auth.Project(ctx)
	if err != nil {
		return nil, err
	}
	kind, subject := erase.User, req.UserId
	if req.SessionId != "" {
		kind, subject = erase.Session, req.SessionId
	}
	if (req.UserId == "") == (req.SessionId == "") {
		return nil, status.Error(codes.InvalidArgument, "user_id: want either it or session_id")
	}
	do := s.eraser.Start
	if req.DryRun {
		do = s.eraser.Preview
	}
	out, err := do(ctx, project, kind, subject)
	if err != nil {
		return nil, s.failed(ctx, err)
	}
	return &erasurev1.EraseResponse{Erasure: out}, nil
}

// GetErasure implements ErasureService.
func (s *erasureServer) GetErasure(ctx context.Context, req *erasurev1.GetErasureRequest) (*erasurev1.GetErasureResponse, error) {
	project, err := auth.Project(ctx)
	if err != nil {
		return nil, err
	}
	out, err := s.eraser.Get(ctx, project, req.ErasureId)
	if err != nil {
		return nil, s.failed(ctx, err)
	}
	if out == nil {
		return nil, status.Errorf(codes.NotFound, "erasure_id: there is no erasure %q", req.ErasureId)
	}
	return &erasurev1.GetErasureResponse{Erasure: out}, nil
}

func (s *erasureServer) failed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	s.log.Error("an erasure could not be taken or read", "error", err)
	return status.Error(codes.Unavailable, "erasures cannot be taken or read right now: try again in a moment")
}
