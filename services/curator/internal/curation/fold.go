package curation

import (
	"context"
	"sync"
	"time"

	curationv1 "github.com/honeloop/hone/proto/gen/go/hone/curation/v1"
)

// Decision is what the fold keeps of a decision: about 300 bytes with its
// share of the maps. The words of the reviewer are not kept.
type Decision struct {
	CurationID string
	Verdict    string
	Reviewer   string
	DecidedAt  time.Time
}

type reviewKey struct{ project, review string }

// Fold knows the newest decisions in the log. It is safe for concurrent use;
// Apply is called by one reader per partition.
//
// It keeps at most its limit of decisions and forgets the oldest first. What
// it forgot is in ClickHouse, unless that is behind by more than the limit.
type Fold struct {
	limit int

	mu        sync.Mutex
	decisions map[reviewKey]Decision
	order     []reviewKey // ring of the keys of decisions, oldest at next once full
	next      int
	waiting   map[reviewKey]*waiters
}

// waiters wait for one review. done is closed when its decision came.
type waiters struct {
	count    int
	done     chan struct{}
	decision Decision
}

// NewFold makes a fold that keeps up to limit decisions.
func NewFold(limit int) *Fold {
	return &Fold{limit: limit, decisions: map[reviewKey]Decision{}, waiting: map[reviewKey]*waiters{}}
}

// Apply takes the next event of the log. It does nothing with a decision on a
// review that has one.
func (f *Fold) Apply(event *curationv1.CurationEvent) {
	decided := event.GetReviewDecided()
	if decided == nil {
		return
	}
	key := reviewKey{event.GetProjectId(), decided.GetReviewId()}
	f.mu.Lock()
	defer f.mu.Unlock()
	d, ok := f.decisions[key]
	if !ok {
		d = Decision{event.GetCurationId(), decided.GetVerdict(), decided.GetReviewer(), decided.GetDecidedAt().AsTime()}
		f.keep(key, d)
	}
	if w := f.waiting[key]; w != nil {
		w.decision = d
		close(w.done)
		delete(f.waiting, key)
	}
}

func (f *Fold) keep(key reviewKey, d Decision) {
	f.decisions[key] = d
	if len(f.order) < f.limit {
		f.order = append(f.order, key)
		return
	}
	delete(f.decisions, f.order[f.next])
	f.order[f.next] = key
	f.next = (f.next + 1) % f.limit
}

// Get is the decision that stands on a review, as far as the log was read.
func (f *Fold) Get(project, review string) (Decision, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	d, ok := f.decisions[reviewKey{project, review}]
	return d, ok
}

// Wait returns the decision that stands on a review, once the log was read as
// far as there is one, or the error of ctx.
func (f *Fold) Wait(ctx context.Context, project, review string) (Decision, error) {
	key := reviewKey{project, review}
	f.mu.Lock()
	if d, ok := f.decisions[key]; ok {
		f.mu.Unlock()
		return d, nil
	}
	w := f.waiting[key]
	if w == nil {
		w = &waiters{done: make(chan struct{})}
		f.waiting[key] = w
	}
	w.count++
	f.mu.Unlock()

	select {
	case <-w.done:
		return w.decision, nil
	case <-ctx.Done():
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if w.count--; w.count == 0 && f.waiting[key] == w {
		delete(f.waiting, key)
	}
	return Decision{}, context.Cause(ctx)
}
