package embedder

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	trailv1 "github.com/honeloop/hone/proto/gen/go/hone/trail/v1"

	"github.com/honeloop/hone/pkg/vector"
)

const (
	sessionQueries = 5        // of a session that are looked at
	maxSessionID   = 512      // bytes
	maxTrail       = 16 << 20 // bytes of an answer
)

// sessionReader reads what a session's user asked before.
type sessionReader struct {
	trail    trailv1.TrailServiceClient
	timeout  time.Duration
	breaker  breaker // of the trail
	outcomes metric.Int64Counter
}

func newSessionReader(conn grpc.ClientConnInterface, timeout time.Duration, meter metric.Meter) (*sessionReader, error) {
	outcomes, err := meter.Int64Counter("hone.embedder.recall.session",
		metric.WithDescription("Recalls of few words with a session and no context, by what its trail gave."))
	if err != nil {
		return nil, fmt.Errorf("create counter of sessions: %w", err)
	}
	return &sessionReader{trail: trailv1.NewTrailServiceClient(conn), timeout: timeout, outcomes: outcomes}, nil
}

// before is what a query goes on from: the newest whole question of the session,
// and the few words after it. It is empty where the trail does not answer in
// time: the query then stands alone, as without a session. Whose session it
// may read is up to the trail, which gets the caller's own key.
func (s *sessionReader) before(ctx context.Context, session, query string) string {
	var trail *trailv1.Trail
	err := s.breaker.do(ctx, ctx, func() error {
		ctx, cancel := context.WithTimeout(ctx, s.timeout)
		defer cancel()
		if md, ok := metadata.FromIncomingContext(ctx); ok {
			ctx = metadata.NewOutgoingContext(ctx, metadata.MD{"authorization": md.Get("authorization")})
		}
		resp, err := s.trail.GetSession(ctx, &trailv1.GetSessionRequest{SessionId: session, PageSize: sessionQueries, NewestInteractions: true})
		switch status.Code(err) {
		case codes.OK:
			trail = resp.GetTrail()
		case codes.NotFound: // a new session
		default:
			return fmt.Errorf("%w: %w", vector.ErrUnavailable, err)
		}
		return nil
	})
	outcome := "found"
	before := earlier(trail, query)
	switch {
	case errors.Is(err, errOpen):
		outcome = "skipped"
	case err != nil:
		outcome = "failed"
	case before == "":
		outcome = "none"
	}
	s.outcomes.Add(ctx, 1, metric.WithAttributes(attribute.String("outcome", outcome)))
	return before
}

func earlier(trail *trailv1.Trail, query string) string {
	var said []string
	for _, e := range slices.Backward(trail.GetEvents()) {
		q := strings.TrimSpace(e.GetInteraction().GetQuery())
		if q == "" || len(said) == 0 && q == strings.TrimSpace(query) { // it is in the trail already
			continue
		}
		said = append(said, q)
		if !isFollowUp(q) {
			break
		}
	}
	slices.Reverse(said)
	return strings.Join(said, "\n")
}
