// Package api serves what the curator knows. Every call is about the project
// of the caller's key.
package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/honeloop/hone/pkg/auth"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	curationv1 "github.com/honeloop/hone/proto/gen/go/hone/curation/v1"
	"github.com/honeloop/hone/services/curator/internal/curation"
	"github.com/honeloop/hone/services/curator/internal/routed"
	"github.com/honeloop/hone/services/curator/internal/store"
)

// Limits of a request.
const (
	defaultLimit = 50
	maxLimit     = 1000
	// Bytes.
	maxAnswer   = 256 << 10
	maxRemark   = 16 << 10 // clarification and note
	maxReviewer = 256
)

// Appender makes records durable in the log; nil means that they are.
type Appender func(ctx context.Context, recs ...stage.Record) error

// Reviews is the ReviewService.
type Reviews struct {
	curationv1.UnimplementedReviewServiceServer
	Store  *store.Store
	Fold   *curation.Fold
	Append Appender
	// CaughtUp says whether the fold has read all that was in the log at the
	// start.
	CaughtUp func() error
	Now      func() time.Time
	// Longest wait of a decision, for the log and until it is read back.
	DecideTimeout time.Duration
	// Decisions in flight; its capacity is the limit.
	InFlight chan struct{}
}

// ListReviews implements the service.
func (r *Reviews) ListReviews(ctx context.Context, req *curationv1.ListReviewsRequest) (*curationv1.ListReviewsResponse, error) {
	project, err := auth.Project(ctx)
	if err != nil {
		return nil, err
	}
	limit, err := checkLimit(req.GetLimit())
	if err != nil {
		return nil, err
	}
	state := req.GetState()
	if state == "" {
		state = "open"
	}
	if !slices.Contains([]string{"open", "approved", "corrected", "dismissed", "withdrawn", "all"}, state) {
		return nil, status.Error(codes.InvalidArgument, "state: want open, approved, corrected, dismissed, withdrawn or all")
	}
	if err := r.CaughtUp(); err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	resp := &curationv1.ListReviewsResponse{}
	var after store.Cursor
	// The fold can be ahead of the store: what was just decided still comes as
	// open, and does not count.
	for {
		items, next, err := r.Store.ListReviews(ctx, project, state, after, limit-len(resp.Reviews))
		if err != nil {
			return nil, unavailable(err)
		}
		for _, item := range items {
			if review := r.complete(item); state == "all" || review.GetState() == state {
				resp.Reviews = append(resp.Reviews, review)
			}
		}
		if next == after || len(resp.Reviews) >= limit {
			return resp, nil
		}
		after = next
	}
}

// GetReview implements the service.
func (r *Reviews) GetReview(ctx context.Context, req *curationv1.GetReviewRequest) (*curationv1.GetReviewResponse, error) {
	project, err := auth.Project(ctx)
	if err != nil {
		return nil, err
	}
	item, err := r.find(ctx, project, req.GetReviewId())
	if err != nil {
		return nil, err
	}
	return &curationv1.GetReviewResponse{Review: r.complete(item)}, nil
}

// DecideReview implements the service.
func (r *Reviews) DecideReview(ctx context.Context, req *curationv1.DecideReviewRequest) (*curationv1.DecideReviewResponse, error) {
	key, ok := auth.FromContext(ctx)
	if !ok {
		return nil, status.Error(codes.Unauthenticated, auth.ErrUnknownKey.Error())
	}
	if err := checkDecision(req); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	select {
	case r.InFlight <- struct{}{}:
		defer func() { <-r.InFlight }()
	default:
		return nil, status.Errorf(codes.ResourceExhausted, "%d decisions are being made: try again in a second", cap(r.InFlight))
	}
	reviewer := req.GetReviewer()
	if reviewer == "" {
		reviewer = key.ID
	}
	ctx, cancel := context.WithTimeout(ctx, r.DecideTimeout)
	defer cancel()

	item, err := r.find(ctx, key.ProjectID, req.GetReviewId())
	if err != nil {
		return nil, err
	}
	event := curation.NewDecision(key.ProjectID, reviewer, req, item.Review, r.Now())
	stands, decided := r.stands(item)
	if !decided {
		if item.Withdrawn {
			return nil, status.Error(codes.FailedPrecondition, "the review is withdrawn: its signal was taken back or changed")
		}
		if req.GetVerdict() == curation.Approve && event.GetReviewDecided().GetAnswer() == "" {
			return nil, status.Error(codes.FailedPrecondition, "there is no answer to approve: the review has neither a correction nor an output")
		}
		if stands, err = r.decide(ctx, event); err != nil {
			return nil, err
		}
	}
	if stands.CurationID != event.GetCurationId() {
		return nil, status.Errorf(codes.AlreadyExists, "%s decided %q at %s: the first decision stands",
			stands.Reviewer, stands.Verdict, stands.DecidedAt.UTC().Format(time.RFC3339))
	}
	review := r.complete(item)
	if item.Decided == nil {
		review.Decided = event.GetReviewDecided()
		review.Decided.DecidedAt = timestamppb.New(stands.DecidedAt)
	}
	review.State = curation.State(stands.Verdict)
	return &curationv1.DecideReviewResponse{Review: review}, nil
}

// decide appends a decision and returns the one that stands, which can be
// another one.
func (r *Reviews) decide(ctx context.Context, event *curationv1.CurationEvent) (curation.Decision, error) {
	value, err := proto.Marshal(event)
	if err != nil {
		return curation.Decision{}, status.Errorf(codes.Internal, "marshal the decision: %v", err)
	}
	rec := stage.Record{Topic: stream.TopicCuration, Key: curation.Key(event.GetProjectId()), Value: value, Time: event.GetOccurredAt().AsTime()}
	if err := r.Append(ctx, rec); err != nil {
		if _, tooLarge := errors.AsType[*stream.TooLargeError](err); tooLarge {
			return curation.Decision{}, status.Error(codes.InvalidArgument, "answer: too large for the log")
		}
		return curation.Decision{}, status.Errorf(codes.Unavailable, "append the decision: %v: send it again, it counts once", err)
	}
	stands, err := r.Fold.Wait(ctx, event.GetProjectId(), event.GetReviewDecided().GetReviewId())
	if err != nil {
		return curation.Decision{}, status.Errorf(codes.DeadlineExceeded,
			"the decision is in the log but was not read back: %v: send it again, it counts once", err)
	}
	return stands, nil
}

func checkDecision(req *curationv1.DecideReviewRequest) error {
	var errs []error
	if req.GetReviewId() == "" {
		errs = append(errs, errors.New("review_id: missing"))
	}
	if curation.State(req.GetVerdict()) == "" {
		errs = append(errs, errors.New("verdict: want approve, correct or dismiss"))
	}
	if req.GetVerdict() == curation.Correct && req.GetAnswer() == "" {
		errs = append(errs, errors.New("answer: required with verdict correct"))
	}
	if req.GetVerdict() != curation.Correct && req.GetAnswer() != "" {
		errs = append(errs, errors.New("answer: only with verdict correct; approve takes the answer that the user proposed, or else the model's"))
	}
	for _, f := range []struct {
		name, value string
		limit       int
	}{
		{"answer", req.GetAnswer(), maxAnswer}, {"clarification", req.GetClarification(), maxRemark},
		{"note", req.GetNote(), maxRemark}, {"reviewer", req.GetReviewer(), maxReviewer},
	} {
		if len(f.value) > f.limit {
			errs = append(errs, fmt.Errorf("%s: %d bytes, at most %d", f.name, len(f.value), f.limit))
		}
	}
	return errors.Join(errs...)
}

// find reads a review, once the fold can say whether it is decided.
func (r *Reviews) find(ctx context.Context, project, id string) (*store.ReviewItem, error) {
	if err := r.CaughtUp(); err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	items, err := r.Store.Reviews(ctx, project, []string{id})
	if err != nil {
		return nil, unavailable(err)
	}
	if items[id] == nil {
		return nil, status.Errorf(codes.NotFound, "no review %q in this project", id)
	}
	return items[id], nil
}

// stands is the decision that stands on a review. The store knows decisions
// that the fold forgot, the fold those that the store does not have yet.
func (r *Reviews) stands(item *store.ReviewItem) (curation.Decision, bool) {
	if d := item.Decided; d != nil {
		return curation.Decision{CurationID: item.CurationID, Verdict: d.GetVerdict(), Reviewer: d.GetReviewer(), DecidedAt: d.GetDecidedAt().AsTime()}, true
	}
	return r.Fold.Get(item.Review.GetProjectId(), item.Review.GetReviewId())
}

// complete is a review with its state. A decision that is not in the store yet
// comes without its words.
func (r *Reviews) complete(item *store.ReviewItem) *curationv1.Review {
	review := item.Review
	review.Priority = cmp.Or(review.GetPriority(), routed.PriorityNormal) // from before there were priorities
	stands, decided := r.stands(item)
	switch {
	case decided:
		review.State = curation.State(stands.Verdict)
		if review.Decided = item.Decided; review.Decided == nil {
			review.Decided = &curationv1.ReviewDecided{ReviewId: review.GetReviewId(), SignalId: review.GetSignal().GetSignalId(),
				CaseId: review.GetCaseId(), Verdict: stands.Verdict, Reviewer: stands.Reviewer, DecidedAt: timestamppb.New(stands.DecidedAt)}
		}
	case item.Withdrawn:
		review.State = "withdrawn"
	default:
		review.State = "open"
	}
	return review
}

func checkLimit(limit uint32) (int, error) {
	if limit > maxLimit {
		return 0, status.Errorf(codes.InvalidArgument, "limit: %d, at most %d", limit, maxLimit)
	}
	if limit == 0 {
		return defaultLimit, nil
	}
	return int(limit), nil
}

// unavailable is the answer where the store fails. Its error names no text of
// users.
func unavailable(err error) error {
	switch {
	case errors.Is(err, context.Canceled):
		return status.Error(codes.Canceled, "the call was canceled")
	case errors.Is(err, context.DeadlineExceeded):
		return status.Error(codes.DeadlineExceeded, "ClickHouse did not answer in time")
	}
	return status.Errorf(codes.Unavailable, "ask ClickHouse: %v", err)
}
