package enricher

import (
	"context"
	"log/slog"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/honeloop/hone/pkg/auth"
	trailv1 "github.com/honeloop/hone/proto/gen/go/hone/trail/v1"

	"github.com/honeloop/hone/services/enricher/internal/derive"
	"github.com/honeloop/hone/services/enricher/internal/trail"
)

// trailServer answers from the store: what the stage has written is seen at
// once.
type trailServer struct {
	trailv1.UnimplementedTrailServiceServer
	store *trail.Store
	log   *slog.Logger
}

// GetSession implements TrailService.
func (s *trailServer) GetSession(ctx context.Context, req *trailv1.GetSessionRequest) (*trailv1.GetSessionResponse, error) {
	project, err := auth.Project(ctx)
	if err != nil {
		return nil, err
	}
	if req.SessionId == "" {
		return nil, status.Error(codes.InvalidArgument, "session_id: missing")
	}
	key := trail.Key{Project: project, Session: req.SessionId}
	trails, err := s.store.Load(ctx, []trail.Key{key})
	if err != nil {
		return nil, s.unavailable(ctx, err)
	}
	t := trails[key]
	if t.Len() == 0 {
		return nil, status.Errorf(codes.NotFound, "no event of session %q is in this project's trail: check the id, or wait a moment if it was just sent", req.SessionId)
	}
	decisions, err := s.store.Decisions(ctx, key)
	if err != nil {
		return nil, s.unavailable(ctx, err)
	}
	events := derive.InOrder(t.Events())
	return &trailv1.GetSessionResponse{Trail: &trailv1.Trail{
		ProjectId: project,
		SessionId: req.SessionId,
		StartedAt: events[0].OccurredAt,
		LastAt:    events[len(events)-1].OccurredAt,
		Events:    events,
		Signals:   t.Signals(),
		Decisions: decisions,
	}}, nil
}

// unavailable hides the store's error from the caller and shows it to the
// operator.
func (s *trailServer) unavailable(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return status.FromContextError(ctx.Err()).Err()
	}
	s.log.Error("trail could not be read", "error", err)
	return status.Error(codes.Unavailable, "the trail cannot be read right now: try again in a moment")
}
