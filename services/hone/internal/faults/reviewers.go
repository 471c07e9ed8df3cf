package faults

import (
	"context"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	curationv1 "github.com/honeloop/hone/proto/gen/go/hone/curation/v1"
)

const (
	reviewersAtOnce = 4
	// One review in this many is left open, and of the others one in so many is
	// decided by two reviewers at the same time, who differ.
	leaveEvery, disputeEvery = 12, 8
	// Reviews in a list; the API's limit. Once so many are left open the reviewers
	// see no others, and have no more to do.
	listLimit = 1000
)

// reviewers decide what waits in the queue, as people do with `hone review`:
// what got no answer is sent again, as it was, until there is one.
type reviewers struct {
	seed  uint64
	least int
	p     *producer // whose connection, key and notes they use

	mu    sync.Mutex
	words map[string][]*word // by review, those that were sent
}

// word is what one reviewer said on a review, and what became of it.
type word struct {
	req *curationv1.DecideReviewRequest
	// What the answer said stands; nil where it was no acceptance.
	told *curationv1.ReviewDecided
	// The answer was another one: that somebody else had decided, or that the
	// signal was withdrawn.
	refused codes.Code
	// An attempt before got no answer, so that it may stand for all that.
	unsure bool
}

const viaReviews = "grpc, decisions on reviews"

// plan is what is said on a review, by seed: by nobody, by one or by two.
func (r *reviewers) plan(review string) []*word {
	h := fnv.New64a()
	_, _ = h.Write([]byte(review)) // it never fails
	rnd := rand.New(rand.NewPCG(r.seed, h.Sum64()))
	if rnd.IntN(leaveEvery) == 0 {
		return nil
	}
	names := []string{"ann", "bob"}
	if rnd.IntN(disputeEvery) > 0 {
		names = names[:1]
	}
	var out []*word
	for _, name := range names {
		req := &curationv1.DecideReviewRequest{ReviewId: review, Reviewer: name, Verdict: pick(rnd, "correct", "correct", "approve", "approve", "dismiss")}
		if req.Verdict == "correct" {
			req.Answer = fmt.Sprintf("Within %d days, says %s.", rnd.IntN(1_000_000), name)
		}
		if rnd.IntN(3) == 0 {
			req.Clarification, req.Note = fmt.Sprintf("They mean number %d.", rnd.IntN(1000)), "checked"
		}
		out = append(out, &word{req: req})
	}
	return out
}

// run decides until enough is closed and as many as there must be are decided, and
// then until each decision that was sent has an answer.
func (r *reviewers) run(ctx context.Context, enough <-chan struct{}) error {
	client := curationv1.NewReviewServiceClient(r.p.conn)
	for pause := time.Second; ; {
		select {
		case <-enough:
			if accepted, _ := r.counts(); accepted >= r.least {
				return nil
			}
			sleep(ctx, pause)
		case <-time.After(pause):
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		began := time.Now()
		var list *curationv1.ListReviewsResponse
		_, err := r.p.call(ctx, "grpc, lists of reviews", func(ctx context.Context) (err error) {
			list, err = client.ListReviews(ctx, &curationv1.ListReviewsRequest{Limit: listLimit})
			return err
		})
		if err != nil {
			return fmt.Errorf("list reviews: %w", err)
		}
		pause = min(max(time.Second, 10*time.Since(began)), 10*time.Second) // so that a long list costs little
		g, gctx := errgroup.WithContext(ctx)
		g.SetLimit(2 * reviewersAtOnce)
		for _, review := range list.GetReviews() {
			id := review.GetReviewId()
			r.mu.Lock()
			_, known := r.words[id]
			words := r.plan(id)
			if !known && len(words) > 0 {
				r.words[id] = words
			}
			r.mu.Unlock()
			if known {
				continue
			}
			for _, w := range words {
				g.Go(func() error { return r.say(gctx, client, w) })
			}
		}
		if err := g.Wait(); err != nil {
			return err
		}
	}
}

// say sends one decision until it has an answer. An error is one that a good
// decision must never get.
func (r *reviewers) say(ctx context.Context, client curationv1.ReviewServiceClient, w *word) error {
	backoff := 50 * time.Millisecond
	for ctx.Err() == nil {
		var resp *curationv1.DecideReviewResponse
		var code codes.Code
		wait, err := r.p.call(ctx, viaReviews, func(ctx context.Context) (err error) {
			resp, err = client.DecideReview(ctx, w.req)
			code = status.Code(err)
			return err
		})
		switch {
		case code == codes.OK, code == codes.AlreadyExists, code == codes.FailedPrecondition:
			r.mu.Lock()
			defer r.mu.Unlock()
			if w.told = resp.GetReview().GetDecided(); code != codes.OK {
				w.refused = code
			}
			return nil
		case err != nil:
			return fmt.Errorf("decide review %s: %w", w.req.GetReviewId(), err)
		}
		w.unsure = true
		sleep(ctx, max(wait, backoff))
		backoff = min(2*backoff, longestBackoff)
	}
	return context.Cause(ctx)
}

// counts says how many decisions were accepted, and how many were refused.
func (r *reviewers) counts() (accepted, refused int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, words := range r.words {
		for _, w := range words {
			if w.told != nil {
				accepted++
			} else if w.refused != codes.OK {
				refused++
			}
		}
	}
	return accepted, refused
}
