package collector

import (
	"context"
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"

	"github.com/honeloop/hone/pkg/auth"
	"github.com/honeloop/hone/pkg/events"
	collectorv1 "github.com/honeloop/hone/proto/gen/go/hone/collector/v1"
	"github.com/honeloop/hone/services/collector/internal/apierr"
)

// grpcService is CollectorService. What is wrong with one event is in its
// result; a status is for the request as a whole.
type grpcService struct {
	collectorv1.UnimplementedCollectorServiceServer
	intake *intake
}

func (s *grpcService) SendEvents(ctx context.Context, in *collectorv1.SendEventsRequest) (*collectorv1.SendEventsResponse, error) {
	key, ok := auth.FromContext(ctx)
	if !ok {
		return nil, apierr.Errorf(codes.Unauthenticated, "%s", auth.ErrUnknownKey).GRPC()
	}
	n := len(in.GetEvents())
	if n == 0 || n > s.intake.limits.Batch {
		return nil, (&apierr.Error{Code: codes.InvalidArgument, Field: "events", Message: fmt.Sprintf("want 1 to %d events in one request, got %d", s.intake.limits.Batch, n)}).GRPC()
	}
	if !s.intake.enter() {
		return nil, errTooMany().GRPC()
	}
	defer s.intake.leave()
	req := &events.Request{Events: in.GetEvents(), Errors: make([]*events.FieldError, n), Batch: true}
	if md := metadata.ValueFromIncomingContext(ctx, "idempotency-key"); len(md) > 0 {
		if err := identify(req, key, md[0]); err != nil {
			s.intake.metrics.refused(ctx, string(events.TooLong), n)
			return nil, err.GRPC()
		}
	}
	results, accepted := s.intake.take(ctx, key, events.SourceGRPC, req)
	if accepted == 0 && allRetryable(results) {
		return nil, whole(req, results).GRPC()
	}
	out := &collectorv1.SendEventsResponse{Results: make([]*collectorv1.EventResult, n), Accepted: uint32(accepted), Rejected: uint32(n - accepted)}
	for i, r := range results {
		out.Results[i] = &collectorv1.EventResult{EventId: r.id}
		if r.err != nil {
			b := r.err.Body()
			out.Results[i].Error = &collectorv1.Error{Code: b.Code, Message: b.Message, Field: b.Field, RetryAfterS: b.RetryAfter}
		}
	}
	return out, nil
}

// allRetryable says whether none of the events is to blame for that nothing was
// accepted, so that clients which retry by status do.
func allRetryable(results []result) bool {
	return !slices.ContainsFunc(results, func(r result) bool { return r.err == nil || !retryable(r.err) })
}
