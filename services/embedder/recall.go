package embedder

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	recallv1 "github.com/honeloop/hone/proto/gen/go/hone/recall/v1"

	"github.com/honeloop/hone/pkg/auth"
	"github.com/honeloop/hone/pkg/embedding"
	"github.com/honeloop/hone/pkg/vector"
)

const (
	maxQueryBytes = 32 << 10 // of a Recall
	maxRecall     = 20
	defaultRecall = 3
	maxEmbed      = 256
)

// api serves RecallService. Whose data it reads comes from the
// key alone.
type api struct {
	recallv1.UnimplementedRecallServiceServer

	index     index
	embedder  embedding.Embedder
	threshold float64
	cfg       RecallConfig
	slots     chan struct{}
	log       *slog.Logger
}

func newAPI(ix index, e embedding.Embedder, threshold float64, cfg RecallConfig, log *slog.Logger) *api {
	return &api{index: ix, embedder: e, threshold: threshold, cfg: cfg, slots: make(chan struct{}, cfg.Concurrency), log: log}
}

// Recall finds the cases that a query is near.
func (a *api) Recall(ctx context.Context, req *recallv1.RecallRequest) (*recallv1.RecallResponse, error) {
	project, err := auth.Project(ctx)
	if err != nil {
		return nil, err
	}
	q, err := a.recallQuery(req)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, a.cfg.Timeout)
	defer cancel()
	leave, err := a.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	guidance, err := a.recall(ctx, project, shorten(req.GetQuery(), maxQuery), q)
	if err != nil {
		return nil, a.fail(ctx, "recall", err)
	}
	return &recallv1.RecallResponse{Guidance: guidance, PromptBlock: promptBlock(guidance, a.cfg.PromptBytes)}, nil
}

func (a *api) recallQuery(req *recallv1.RecallRequest) (vector.NearQuery, error) {
	q := vector.NearQuery{Limit: int(req.GetK()), MinSimilarity: a.threshold}
	switch {
	case req.GetQuery() == "":
		return q, invalid("query", "missing")
	case len(req.GetQuery()) > maxQueryBytes:
		return q, invalid("query", fmt.Sprintf("%d bytes, want at most %d", len(req.GetQuery()), maxQueryBytes))
	case req.GetK() > maxRecall:
		return q, invalid("k", fmt.Sprintf("%d, want at most %d", req.GetK(), maxRecall))
	}
	if q.Limit == 0 {
		q.Limit = defaultRecall
	}
	if req.MinSimilarity != nil {
		q.MinSimilarity = req.GetMinSimilarity()
		if !(q.MinSimilarity >= -1 && q.MinSimilarity <= 1) {
			return q, invalid("min_similarity", "want -1 to 1")
		}
	}
	return q, nil
}

func (a *api) recall(ctx context.Context, project, query string, q vector.NearQuery) ([]*recallv1.Guidance, error) {
	vectors, err := a.embedder.Embed(ctx, []string{query})
	if err != nil {
		return nil, fmt.Errorf("embed query: %w", err)
	}
	q.Vector = vectors[0]
	matches, err := a.index.Near(ctx, vector.Cases, project, q)
	if err != nil {
		return nil, err
	}
	var objects []vector.Object
	for _, m := range matches {
		objects = append(objects, m.Object)
	}
	cases, err := a.decodeCases(ctx, project, objects)
	if err != nil {
		return nil, err
	}
	if err := a.followMerged(ctx, project, cases); err != nil {
		return nil, err
	}
	var guidance []*recallv1.Guidance
	told := map[string]bool{}
	for i, m := range matches {
		if id := cases[i].GetCaseId(); recallable(cases[i].GetState()) && !told[id] {
			told[id] = true
			guidance = append(guidance, &recallv1.Guidance{Case: cases[i], Similarity: m.Similarity})
		}
	}
	return guidance, nil
}

// Embed gives the vectors of texts.
func (a *api) Embed(ctx context.Context, req *recallv1.EmbedRequest) (*recallv1.EmbedResponse, error) {
	if _, err := auth.Project(ctx); err != nil {
		return nil, err
	}
	if n := len(req.GetTexts()); n == 0 || n > maxEmbed {
		return nil, invalid("texts", fmt.Sprintf("%d of them, want 1 to %d", n, maxEmbed))
	}
	leave, err := a.enter(ctx)
	if err != nil {
		return nil, err
	}
	defer leave()
	vectors, err := a.embedder.Embed(ctx, req.GetTexts())
	if errors.Is(err, embedding.ErrTooLarge) {
		return nil, invalid("texts", err.Error())
	}
	if err != nil {
		return nil, a.fail(ctx, "embed", err)
	}
	resp := &recallv1.EmbedResponse{Model: a.embedder.Model()}
	for _, v := range vectors {
		resp.Vectors = append(resp.Vectors, &recallv1.Vector{Values: v})
	}
	return resp, nil
}

// enter waits for a free slot, at most the Recall timeout.
func (a *api) enter(ctx context.Context) (leave func(), err error) {
	timer := time.NewTimer(a.cfg.Timeout)
	defer timer.Stop()
	select {
	case a.slots <- struct{}{}:
		return func() { <-a.slots }, nil
	case <-timer.C:
	case <-ctx.Done():
	}
	return nil, status.Error(codes.ResourceExhausted, "too many calls at once: try again")
}

// fail makes an error a status. What the caller can do nothing about is
// logged, not told.
func (a *api) fail(ctx context.Context, what string, err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, what+": canceled")
	case errors.Is(err, vector.ErrUnavailable), errors.Is(err, context.DeadlineExceeded):
		a.log.WarnContext(ctx, "call failed", "call", what, "error", err)
		return status.Error(codes.Unavailable, what+": the semantic index does not answer: try again")
	}
	a.log.ErrorContext(ctx, "call failed", "call", what, "error", err)
	return status.Error(codes.Internal, what+": internal error")
}

func invalid(field, message string) error {
	s := status.New(codes.InvalidArgument, field+": "+message)
	detailed, err := s.WithDetails(&errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{
		{Field: field, Description: message},
	}})
	if err != nil {
		return s.Err()
	}
	return detailed.Err()
}
