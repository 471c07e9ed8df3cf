package embedder

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"time"

	"github.com/google/uuid"

	"github.com/honeloop/hone/pkg/vector"
)

// The phases of a reindex.
const (
	ReindexRequested = "requested" // no embedder has taken it yet
	ReindexCopying   = "copying"   // everything is embedded anew
	ReindexChecking  = "checking"  // both spaces are compared
	ReindexSwitched  = "switched"  // the new space is read; the old one is written until all have noticed
	ReindexDone      = "done"
	ReindexCanceling = "canceling"
	ReindexCanceled  = "canceled"
)

const (
	walkObjects = 100
	// settleTime is longer than a write that began by an old layout may take.
	settleTime = layoutAge + writeTime + 28*time.Second
	// leaseTime is how long an embedder may not be heard of that does the work,
	// before another takes over.
	leaseTime = time.Minute
	// Differences may be writes in flight: they are looked at so often again.
	lookAgain      = 5
	lookAgainPause = 200 * time.Millisecond
)

// Reindex is how far a change of the embedding model has come. It stands in the
// index.
type Reindex struct {
	Phase string `json:"phase"`
	From  string `json:"from,omitempty"`
	To    string `json:"to,omitempty"`
	// Times that all has been walked through; the first one copies.
	Round int `json:"round,omitempty"`
	// Of this round, 0 to 1, by ids.
	Share    float64   `json:"share"`
	Copied   int64     `json:"copied"`   // objects, by the first round
	Compared int64     `json:"compared"` // objects, by the others
	Repaired int64     `json:"repaired"` // of those
	Started  time.Time `json:"started,omitzero"`
	Ended    time.Time `json:"ended,omitzero"`
	// Why it does not get on; the embedder tries again.
	Error string `json:"error,omitempty"`

	Target *space `json:"target,omitempty"`
	// The embedder that does the work, and a number that it counts up.
	Owner string `json:"owner,omitempty"`
	Beat  int64  `json:"beat"`
	// The place of the last object that is done.
	Collection string `json:"collection,omitempty"`
	Tenant     string `json:"tenant,omitempty"`
	After      string `json:"after,omitempty"`
}

// Running says whether embedders work on it.
func (r *Reindex) Running() bool {
	return r != nil && slices.Contains([]string{ReindexRequested, ReindexCopying, ReindexChecking, ReindexSwitched, ReindexCanceling}, r.Phase)
}

// ErrReindex says that a reindex is not in a phase for what was asked.
var ErrReindex = errors.New("not now")

// ReadReindex reads the last reindex of an index; nil where there was none.
func ReadReindex(ctx context.Context, ix index) (*Reindex, error) {
	r := &Reindex{}
	found, err := readRecord(ctx, ix, "reindex", r)
	if err != nil || !found {
		return nil, err
	}
	return r, nil
}

// RequestReindex asks the embedders for a reindex. ErrReindex means that one is
// running.
func RequestReindex(ctx context.Context, ix index) error {
	r, err := ReadReindex(ctx, ix)
	if err != nil {
		return err
	}
	if r.Running() {
		return fmt.Errorf("%w: a reindex is %s", ErrReindex, r.Phase)
	}
	return writeRecord(ctx, ix, "reindex", Reindex{Phase: ReindexRequested, Started: time.Now().UTC()})
}

// CancelReindex asks the embedders to end a reindex. ErrReindex means that none
// is running, or that it has switched already.
func CancelReindex(ctx context.Context, ix index) error {
	r, err := ReadReindex(ctx, ix)
	if err != nil {
		return err
	}
	switch {
	case !r.Running():
		return fmt.Errorf("%w: no reindex is running", ErrReindex)
	case r.Phase == ReindexSwitched:
		return fmt.Errorf("%w: the new model is in use", ErrReindex)
	}
	r.Phase = ReindexCanceling
	return writeRecord(ctx, ix, "reindex", r)
}

// reindexer does the work of a reindex, where no other embedder does. It copies
// every object into the new space, with a vector of the new model, while all
// embedders write into both. A live write and a copy may cross, and leave the
// older object in the new space. So everything is compared, some time after the
// last object was copied, and what differs is copied again; a whole round
// without differences is the end.
type reindexer struct {
	spaces *spaces
	log    *slog.Logger
	me     string
	settle time.Duration
	lease  time.Duration
	pause  time.Duration

	began time.Time // this round
	wrote time.Time // the last copy may have been that late
	other struct {  // the embedder that has the lease
		owner string
		beat  int64
		since time.Time
	}
}

func newReindexer(s *spaces, log *slog.Logger) *reindexer {
	return &reindexer{spaces: s, log: log, me: uuid.NewString(), settle: settleTime, lease: leaseTime, pause: layoutPause}
}

// errLost says that the work was canceled, or is another's.
var errLost = errors.New("the reindex was canceled, or another embedder does it")

// run works until ctx ends.
func (r *reindexer) run(ctx context.Context) {
	for {
		select {
		case <-time.After(r.pause):
		case <-ctx.Done():
			return
		}
		state, err := r.take(ctx)
		if err == nil && state != nil {
			err = r.step(ctx, state)
		}
		if err == nil || errors.Is(err, errLost) || ctx.Err() != nil {
			continue
		}
		r.log.WarnContext(ctx, "the reindex does not get on; it is tried again", "error", err)
		if state != nil {
			state.Error = err.Error()
			if err := r.save(ctx, state); err != nil {
				r.log.WarnContext(ctx, "the reindex cannot say so", "error", err)
			}
		}
	}
}

// take gives the work that this embedder has to do; nil for none.
func (r *reindexer) take(ctx context.Context) (*Reindex, error) {
	state, err := ReadReindex(ctx, r.spaces.backend)
	if err != nil || !state.Running() {
		return nil, err
	}
	if state.Owner == r.me {
		return state, nil
	}
	if state.Phase != ReindexCanceling && !r.able(state) {
		return nil, nil
	}
	if state.Owner != r.other.owner || state.Beat != r.other.beat {
		r.other.owner, r.other.beat, r.other.since = state.Owner, state.Beat, time.Now()
	}
	if state.Owner != "" && time.Since(r.other.since) < r.lease {
		return nil, nil
	}
	state.Owner = r.me
	state.Beat++
	if err := writeRecord(ctx, r.spaces.backend, "reindex", state); err != nil {
		return nil, err
	}
	// Of several that take it at once, the last one has it.
	select {
	case <-time.After(r.pause):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if state, err = ReadReindex(ctx, r.spaces.backend); err != nil || state.Owner != r.me {
		return nil, err
	}
	r.wrote = time.Now()
	if state.Phase == ReindexChecking {
		// Its former owner may have written something that it did not count.
		state.restart()
	}
	r.log.InfoContext(ctx, "this embedder does the reindex", "phase", state.Phase, "to", state.To)
	return state, nil
}

func (r *Reindex) restart() {
	r.Collection, r.Tenant, r.After, r.Share = "", "", "", 0
}

// able says whether this embedder has the models that the work needs.
func (r *reindexer) able(state *Reindex) bool {
	if state.Target != nil {
		return r.spaces.partOf(*state.Target) != nil
	}
	l, ok := r.spaces.seen()
	return ok && len(r.spaces.parts) > 1 && r.spaces.partOf(l.space) != nil && r.spaces.partOf(l.space) != r.spaces.parts[1]
}

// save says how far the work has come, unless it was taken away.
func (r *reindexer) save(ctx context.Context, state *Reindex) error {
	now, err := ReadReindex(ctx, r.spaces.backend)
	if err != nil {
		return err
	}
	if now == nil || now.Owner != r.me || now.Phase == ReindexCanceling && state.Phase != ReindexCanceled && state.Phase != ReindexSwitched {
		return errLost
	}
	state.Beat++
	return writeRecord(ctx, r.spaces.backend, "reindex", state)
}

// step does one phase.
func (r *reindexer) step(ctx context.Context, state *Reindex) error {
	state.Error = ""
	switch state.Phase {
	case ReindexRequested:
		return r.begin(ctx, state)
	case ReindexCopying, ReindexChecking:
		return r.round(ctx, state)
	case ReindexSwitched:
		return r.finish(ctx, state)
	}
	return r.cancel(ctx, state)
}

// begin has all embedders write into the new space.
func (r *reindexer) begin(ctx context.Context, state *Reindex) error {
	l, err := r.spaces.fresh(ctx)
	if err != nil {
		return err
	}
	target := r.spaces.parts[1].space
	target.Suffix = suffixOf(target)
	if target.Suffix == l.Suffix {
		return fmt.Errorf("the index has model %s already", target.Model)
	}
	if err := r.spaces.backend.EnsureSpace(ctx, target.Suffix); err != nil {
		return err
	}
	// What an earlier one left.
	if err := r.spaces.backend.EmptySpace(ctx, target.Suffix); err != nil {
		return err
	}
	l.Next = &target
	if err := r.spaces.write(ctx, l); err != nil {
		return err
	}
	state.Phase, state.From, state.To, state.Target, state.Round = ReindexCopying, l.space.String(), target.String(), &target, 1
	r.log.InfoContext(ctx, "reindex begins", "from", state.From, "to", state.To)
	return r.save(ctx, state)
}

// round walks through all objects once, and switches after one in which nothing
// had to be copied.
func (r *reindexer) round(ctx context.Context, state *Reindex) error {
	l, err := r.spaces.read(ctx)
	if err != nil {
		return err
	}
	switch {
	case l != nil && l.same(*state.Target): // a crash was just after the switch
		state.Phase, state.Share = ReindexSwitched, 1
		return r.save(ctx, state)
	case l == nil || l.Next == nil:
		return errors.New("the index does not say which space is filled: cancel the reindex and begin anew")
	case state.Round > 1 && state.Collection == "":
		if err := r.quiet(ctx, state); err != nil {
			return err
		}
		r.began = time.Now()
	}
	collections := []string{vector.Exchanges, vector.Cases}
	for i, c := range collections {
		if at := slices.Index(collections, state.Collection); at > i {
			continue
		}
		if err := r.walk(ctx, state, l.space, c, float64(i)/float64(len(collections)), 1/float64(len(collections))); err != nil {
			return err
		}
	}
	if state.Round > 1 && r.began.After(r.wrote) {
		return r.change(ctx, state, *l)
	}
	r.log.InfoContext(ctx, "a round of the reindex is done", "round", state.Round, "copied", state.Copied, "repaired", state.Repaired)
	state.Phase, state.Round = ReindexChecking, state.Round+1
	state.restart()
	return r.save(ctx, state)
}

// quiet waits until the last copy cannot have crossed a write that is still in
// flight.
func (r *reindexer) quiet(ctx context.Context, state *Reindex) error {
	for time.Since(r.wrote) < r.settle {
		if err := r.save(ctx, state); err != nil {
			return err
		}
		select {
		case <-time.After(min(r.pause, r.settle)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// walk goes through a collection. Its part of the round begins at base.
func (r *reindexer) walk(ctx context.Context, state *Reindex, from space, collection string, base, part float64) error {
	tenants, err := r.spaces.backend.Tenants(ctx, collection+from.Suffix)
	if err != nil {
		return err
	}
	for i, tenant := range tenants {
		after := ""
		if state.Collection == collection {
			if tenant < state.Tenant {
				continue
			}
			if tenant == state.Tenant {
				after = state.After
			}
		}
		for {
			began := time.Now()
			page, err := r.spaces.backend.Walk(ctx, collection+from.Suffix, tenant, after, walkObjects, state.Round == 1)
			if err != nil {
				return err
			}
			if len(page) > 0 {
				if err := r.page(ctx, state, from, collection, page); err != nil {
					return err
				}
				after = page[len(page)-1].ID
			}
			last := len(page) < walkObjects
			position := 1.0
			if !last {
				position = positionOf(after)
			}
			state.Collection, state.Tenant, state.After = collection, tenant, after
			state.Share = base + part*(float64(i)+position)/float64(len(tenants))
			if err := r.save(ctx, state); err != nil {
				return err
			}
			if last {
				break
			}
			// Half of the time is left to signals and recalls.
			select {
			case <-time.After(time.Since(began)):
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	state.Collection = collection
	return nil
}

// positionOf says where an id stands among all: they are spread evenly.
func positionOf(id string) float64 {
	n, err := strconv.ParseUint(id[:min(8, len(id))], 16, 32)
	if err != nil {
		return 0
	}
	return float64(n) / (1 << 32)
}

// page copies some objects, or those of them that differ.
func (r *reindexer) page(ctx context.Context, state *Reindex, from space, collection string, page []vector.Object) error {
	first, err := decodeObject(collection, page[0], "")
	if err != nil {
		return err
	}
	project := first.project
	if state.Round == 1 {
		if err := r.copy(ctx, state, collection, project, page); err != nil {
			return err
		}
		state.Copied += int64(len(page))
		return nil
	}
	state.Compared += int64(len(page))
	var differ []vector.Object
	for range lookAgain {
		if differ, err = r.differing(ctx, state, collection, project, page); err != nil || len(differ) == 0 {
			return err
		}
		// They may be written just now. Read anew, the older one first.
		select {
		case <-time.After(lookAgainPause):
		case <-ctx.Done():
			return ctx.Err()
		}
		var names []string
		for _, o := range differ {
			names = append(names, o.ID)
		}
		stored, err := r.spaces.backend.Get(ctx, collection+from.Suffix, project, names, true)
		if err != nil {
			return err
		}
		page = nil
		for _, id := range names {
			if o, ok := stored[id]; ok {
				page = append(page, o)
			}
		}
	}
	if differ, err = r.differing(ctx, state, collection, project, page); err != nil || len(differ) == 0 {
		return err
	}
	state.Repaired += int64(len(differ))
	return r.copy(ctx, state, collection, project, differ)
}

func (r *reindexer) differing(ctx context.Context, state *Reindex, collection, project string, page []vector.Object) ([]vector.Object, error) {
	var names []string
	for _, o := range page {
		names = append(names, o.ID)
	}
	there, err := r.spaces.backend.Get(ctx, collection+state.Target.Suffix, project, names, false)
	if err != nil {
		return nil, err
	}
	var differ []vector.Object
	for _, o := range page {
		if t, ok := there[o.ID]; !ok || !bytes.Equal(t.Payload, o.Payload) {
			differ = append(differ, o)
		}
	}
	return differ, nil
}

// copy writes objects into the new space, with vectors of the new model.
func (r *reindexer) copy(ctx context.Context, state *Reindex, collection, project string, page []vector.Object) error {
	p := r.spaces.partOf(*state.Target)
	var objects []vector.Object
	for _, read := range page {
		d, err := decodeObject(collection, read, p.space.Model)
		if err != nil {
			return err
		}
		objects = append(objects, d.object)
	}
	objects, err := p.embed(ctx, collection, objects)
	if err != nil {
		return err
	}
	err = r.spaces.backend.Upsert(ctx, collection+state.Target.Suffix, project, objects)
	r.wrote = time.Now() // also after an error: some may be written
	return err
}

// change has all embedders read the new space.
func (r *reindexer) change(ctx context.Context, state *Reindex, l layout) error {
	if err := r.save(ctx, state); err != nil { // a last look at whether it was canceled
		return err
	}
	old := l.space
	if err := r.spaces.write(ctx, layout{space: *l.Next, Last: &old}); err != nil {
		return err
	}
	r.log.InfoContext(ctx, "the index has switched to another embedding model", "from", state.From, "to", state.To)
	r.wrote = time.Now()
	state.Phase, state.Share = ReindexSwitched, 1
	return r.save(ctx, state)
}

// finish empties the old space, when every embedder has noticed the switch.
func (r *reindexer) finish(ctx context.Context, state *Reindex) error {
	if err := r.quiet(ctx, state); err != nil {
		return err
	}
	l, err := r.spaces.read(ctx)
	if err != nil {
		return err
	}
	if l != nil && l.Last != nil {
		old := *l.Last
		l.Last = nil
		if err := r.spaces.write(ctx, *l); err != nil {
			return err
		}
		if err := r.spaces.backend.EmptySpace(ctx, old.Suffix); err != nil {
			return err
		}
	}
	state.Phase, state.Ended = ReindexDone, time.Now().UTC()
	return r.save(ctx, state)
}

// cancel leaves the new space alone, and empties it.
func (r *reindexer) cancel(ctx context.Context, state *Reindex) error {
	l, err := r.spaces.read(ctx)
	if err != nil {
		return err
	}
	if l != nil && state.Target != nil && l.same(*state.Target) { // too late
		state.Phase = ReindexSwitched
		return r.save(ctx, state)
	}
	if l != nil && l.Next != nil {
		suffix := l.Next.Suffix
		l.Next = nil
		if err := r.spaces.write(ctx, *l); err != nil {
			return err
		}
		if err := r.spaces.backend.EmptySpace(ctx, suffix); err != nil {
			return err
		}
	}
	state.Phase, state.Ended = ReindexCanceled, time.Now().UTC()
	return r.save(ctx, state)
}
