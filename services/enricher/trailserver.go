package enricher

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"
	"unicode/utf8"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/honeloop/hone/pkg/auth"
	trailv1 "github.com/honeloop/hone/proto/gen/go/hone/trail/v1"

	"github.com/honeloop/hone/services/enricher/internal/originals"
	"github.com/honeloop/hone/services/enricher/internal/sessions"
	"github.com/honeloop/hone/services/enricher/internal/trends"
)

// trailServer answers from the store: what the stage has written is seen at
// once.
type trailServer struct {
	trailv1.UnimplementedTrailServiceServer
	store     *sessions.Store
	originals *originals.Store
	log       *slog.Logger
}

const (
	defaultFound = 20
	maxText      = 200 // characters
)

// GetSession implements TrailService.
func (s *trailServer) GetSession(ctx context.Context, req *trailv1.GetSessionRequest) (*trailv1.GetSessionResponse, error) {
	project, err := auth.Project(ctx)
	if err != nil {
		return nil, err
	}
	if req.SessionId == "" {
		return nil, status.Error(codes.InvalidArgument, "session_id: missing")
	}
	size, err := pageSize(req.PageSize, sessions.MaxPage, sessions.MaxPage)
	if err != nil {
		return nil, err
	}
	var page *trailv1.Trail
	var next string
	if req.NewestInteractions {
		page, err = s.store.Newest(ctx, project, req.SessionId, size)
	} else {
		page, next, err = s.store.Page(ctx, project, req.SessionId, req.PageToken, size)
	}
	if errors.Is(err, sessions.ErrNotFound) {
		return nil, status.Errorf(codes.NotFound, "no event of session %q is in this project's trail: check the id, or wait a moment if it was just sent", req.SessionId)
	}
	if err != nil {
		return nil, s.failed(ctx, err)
	}
	return &trailv1.GetSessionResponse{Trail: page, NextPageToken: next}, nil
}

// SearchSessions implements TrailService.
func (s *trailServer) SearchSessions(ctx context.Context, req *trailv1.SearchSessionsRequest) (*trailv1.SearchSessionsResponse, error) {
	project, err := auth.Project(ctx)
	if err != nil {
		return nil, err
	}
	from, to, err := span(req.From, req.To, time.Now())
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if !slices.Contains([]string{"", "positive", "negative", "neutral"}, req.Polarity) {
		return nil, status.Errorf(codes.InvalidArgument, "polarity: %q, want positive, negative or neutral", req.Polarity)
	}
	if n := utf8.RuneCountInString(req.Text); n > maxText {
		return nil, status.Errorf(codes.InvalidArgument, "text: %d characters, want at most %d", n, maxText)
	}
	size, err := pageSize(req.PageSize, defaultFound, sessions.MaxFound)
	if err != nil {
		return nil, err
	}
	found, next, err := s.store.Search(ctx, project, sessions.Search{
		From: from, To: to, UserID: req.UserId, UserRole: req.UserRole, Environment: req.Environment, Model: req.Model,
		ModelVersion: req.ModelVersion, PromptVersion: req.PromptVersion, Language: req.Language, Category: req.Category,
		Polarity: req.Polarity, Text: req.Text, Token: req.PageToken, Size: size,
	})
	if err != nil {
		return nil, s.failed(ctx, err)
	}
	return &trailv1.SearchSessionsResponse{Sessions: found, NextPageToken: next}, nil
}

func pageSize(asked uint32, missing, most int) (int, error) {
	switch {
	case asked == 0:
		return missing, nil
	case int64(asked) > int64(most):
		return 0, status.Error(codes.InvalidArgument, fmt.Sprintf("page_size: %d, want at most %d", asked, most))
	}
	return int(asked), nil
}

// failed hides the store's error from the caller and shows it to the operator.
func (s *trailServer) failed(ctx context.Context, err error) error {
	switch {
	case ctx.Err() != nil:
		return status.FromContextError(ctx.Err()).Err()
	case errors.Is(err, sessions.ErrToken):
		return status.Error(codes.InvalidArgument, sessions.ErrToken.Error())
	case errors.Is(trends.Classify(err), trends.ErrTooLarge):
		return status.Error(codes.ResourceExhausted, "too much to read within the limits: take a shorter time, or more conditions")
	}
	s.log.Error("trail could not be read", "error", err)
	return status.Error(codes.Unavailable, "the trail cannot be read right now: try again in a moment")
}
