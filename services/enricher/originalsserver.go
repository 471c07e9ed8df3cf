package enricher

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/honeloop/hone/pkg/auth"
	trailv1 "github.com/honeloop/hone/proto/gen/go/hone/trail/v1"

	"github.com/honeloop/hone/services/enricher/internal/originals"
)

// ListOriginals implements TrailService.
func (s *trailServer) ListOriginals(ctx context.Context, req *trailv1.ListOriginalsRequest) (*trailv1.ListOriginalsResponse, error) {
	project, err := auth.Project(ctx)
	if err != nil {
		return nil, err
	}
	key, _ := auth.FromContext(ctx)
	if key.Kind != auth.Secret { // the server refused it already
		return nil, status.Error(codes.PermissionDenied, "originals are read with a secret key (hs_...)")
	}
	if req.SessionId == "" {
		return nil, status.Error(codes.InvalidArgument, "session_id: missing")
	}
	size, err := pageSize(req.PageSize, originals.MaxPage, originals.MaxPage)
	if err != nil {
		return nil, err
	}
	page, next, err := s.originals.List(ctx, project, req.SessionId, req.PageToken, size)
	if errors.Is(err, originals.ErrToken) {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if err != nil {
		return nil, s.failed(ctx, err)
	}
	s.log.Info("originals were read", "project", project, "session", req.SessionId, "key", key.ID, "count", len(page))
	return &trailv1.ListOriginalsResponse{Originals: page, NextPageToken: next}, nil
}
