package embedder

import (
	"container/list"
	"context"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"

	"github.com/honeloop/hone/pkg/ids"
	"github.com/honeloop/hone/pkg/vector"
)

// index is the part of vector.Client that the embedder uses. What a write
// returned nil for is seen by every later read.
type index interface {
	Upsert(ctx context.Context, collection, project string, objects []vector.Object) error
	Get(ctx context.Context, collection, project string, objectIDs []string, vectors bool) (map[string]vector.Object, error)
	Near(ctx context.Context, collection, project string, q vector.NearQuery) ([]vector.Match, error)
	NearValues(ctx context.Context, collection, project string, q vector.NearQuery, properties ...string) ([]vector.ValueMatch, error)
	List(ctx context.Context, collection, project string, q vector.ListQuery) ([]vector.Object, error)
}

// store reads and writes cases and their members. A project's cases are
// changed only while its lock is held.
type store struct {
	index index
	cache *caseCache
	ttl   time.Duration // after which a cached case is compared with the stored one
	seed  maphash.Seed
	locks projectLocks
}

// readAgain is how many times its ttl a cached case may be old. Two processes
// that write a case at the same moment do not see each other's member.
const readAgain = 20

func newStore(ix index, cfg CasesConfig) *store {
	return &store{index: ix, cache: newCaseCache(cfg.CachedMembers, readAgain*cfg.CacheTTL), ttl: cfg.CacheTTL, seed: maphash.MakeSeed(), locks: newProjectLocks()}
}

// take gives the cases that exist, with their members and what people said of
// them, and gives up the cached ones: put returns them after a successful write, so an error
// leaves nothing stale.
func (s *store) take(ctx context.Context, project string, caseIDs []string) (map[string]*caseState, error) {
	// What people said is read each time, and first: another process may have
	// written it, and moved members before it did.
	curated, err := readCurated(ctx, s.index, project, caseIDs)
	if err != nil {
		return nil, err
	}
	cases := map[string]*caseState{}
	var missing []string
	for _, id := range caseIDs {
		if c := s.cache.take(project, id); c != nil && c.curated.GetLastEdit() == curated[id].GetLastEdit() {
			cases[id] = c
		} else {
			missing = append(missing, id)
		}
	}
	changed, err := s.check(ctx, project, cases)
	if err == nil {
		for _, id := range changed {
			delete(cases, id)
		}
		err = s.read(ctx, project, append(missing, changed...), cases)
	}
	for id, c := range cases {
		c.curated = curated[id]
	}
	if err != nil {
		// Members are many: what could be read is there when it is tried again.
		s.put(cases)
		return nil, err
	}
	return cases, nil
}

// check names the cases that another process has written since they were read,
// of those that were not looked at for a time.
func (s *store) check(ctx context.Context, project string, cases map[string]*caseState) (changed []string, err error) {
	var old []string
	for id, c := range cases {
		if time.Since(c.checkedAt) > s.ttl {
			old = append(old, id)
		}
	}
	if len(old) == 0 {
		return nil, nil
	}
	objects, err := s.index.Get(ctx, vector.Cases, project, uuids(project, old), false)
	if err != nil {
		return nil, fmt.Errorf("read cases: %w", err)
	}
	for _, id := range old {
		if o, ok := objects[ids.UUID(project, id)]; ok && s.sum(o.Payload) == cases[id].stored {
			cases[id].checkedAt = time.Now()
		} else {
			changed = append(changed, id)
		}
	}
	return changed, nil
}

// sum stands for what is stored of a case.
func (s *store) sum(payload []byte) uint64 { return maphash.Bytes(s.seed, payload) }

func (s *store) put(cases map[string]*caseState) {
	for _, c := range cases {
		s.cache.put(c)
	}
}

// read adds the cases that exist, each with all its members. After an error
// there are those of which all could be read.
func (s *store) read(ctx context.Context, project string, caseIDs []string, into map[string]*caseState) error {
	if len(caseIDs) == 0 {
		return nil
	}
	objects, err := s.index.Get(ctx, vector.Cases, project, uuids(project, caseIDs), true)
	if err != nil {
		return fmt.Errorf("read cases: %w", err)
	}
	found := map[string]*caseState{}
	sizes := map[string]int{} // about
	for _, o := range objects {
		var c casesv1.Case
		if err := proto.Unmarshal(o.Payload, &c); err != nil {
			return fmt.Errorf("decode case %s: %w", o.ID, err)
		}
		state := newCase(c.GetCaseId(), project)
		state.anchor, state.version, state.vector, state.shown = c.GetAnchor(), c.GetVersion(), o.Vector, c.GetLastEdit()
		state.stored = s.sum(o.Payload)
		state.saw(&c)
		found[state.id], sizes[state.id] = state, int(c.GetNegatives()+c.GetPositives())
	}
	for names := slices.Sorted(maps.Keys(found)); len(names) > 0; {
		n, members := 1, sizes[names[0]]
		for n < len(names) && n < casesPerRead && members+sizes[names[n]] <= membersPerRead {
			members += sizes[names[n]]
			n++
		}
		if err := s.readMembers(ctx, project, names[:n], found); err != nil {
			return err
		}
		for _, id := range names[:n] {
			into[id] = found[id]
		}
		names = names[n:]
	}
	return nil
}

// versions are those of the cases that exist, as they are stored.
func (s *store) versions(ctx context.Context, project string, caseIDs []string) (map[string]uint64, error) {
	if len(caseIDs) == 0 {
		return nil, nil
	}
	objects, err := s.index.Get(ctx, vector.Cases, project, uuids(project, caseIDs), false)
	if err != nil {
		return nil, fmt.Errorf("read cases: %w", err)
	}
	versions := map[string]uint64{}
	for _, o := range objects {
		var c casesv1.Case
		if err := proto.Unmarshal(o.Payload, &c); err != nil {
			return nil, fmt.Errorf("decode case %s: %w", o.ID, err)
		}
		versions[c.GetCaseId()] = c.GetVersion()
	}
	return versions, nil
}

// What is asked for at once. A case says how many members it has, but for the
// neutral ones.
const (
	casesPerRead   = 50
	membersPerRead = 2000
)

func (s *store) readMembers(ctx context.Context, project string, caseIDs []string, into map[string]*caseState) error {
	for len(caseIDs) > 0 {
		n := min(casesPerRead, len(caseIDs))
		objects, err := s.index.List(ctx, vector.Exchanges, project, vector.ListQuery{
			Filter: vector.In("case_id", caseIDs[:n]...), Limit: vector.MaxResults,
		})
		if err != nil {
			return fmt.Errorf("read members of cases: %w", err)
		}
		if len(objects) == vector.MaxResults && n > 1 {
			// Some may be missing: ask for each case by itself.
			for _, id := range caseIDs[:n] {
				if err := s.readMembers(ctx, project, []string{id}, into); err != nil {
					return err
				}
			}
			caseIDs = caseIDs[n:]
			continue
		}
		for _, o := range objects {
			e, err := decodeExchange(o)
			if err != nil {
				return err
			}
			if c := into[memberCase(e)]; c != nil {
				c.set(e.GetPublished().GetSignal().GetSignalId(), memberOf(e.GetPublished().GetSignal()))
				// After a crash the case may be older than its members.
				c.version = max(c.version, e.GetPublished().GetCase().GetVersion())
			}
		}
		caseIDs = caseIDs[n:]
	}
	return nil
}

// writeCases stores cases as they stand. One without negative signals keeps no
// vector, so that nothing finds it; a merged one does, and leads to the other.
func (s *store) writeCases(ctx context.Context, project string, cases map[string]*caseState, model string) error {
	var objects []vector.Object
	written := map[*caseState]uint64{}
	for _, c := range cases {
		if !c.changed {
			continue
		}
		snapshot := c.snapshot()
		o, err := caseObject(snapshot, model)
		if err != nil {
			return err
		}
		written[c] = s.sum(o.Payload)
		if c.alive() || c.mergedInto() != "" {
			o.Vector = c.vector
		}
		objects = append(objects, o)
	}
	if err := s.index.Upsert(ctx, vector.Cases, project, objects); err != nil {
		return fmt.Errorf("write cases: %w", err)
	}
	for c, sum := range written {
		c.changed, c.shown, c.stored, c.checkedAt = false, c.curated.GetLastEdit(), sum, time.Now()
	}
	return nil
}

func caseObject(c *casesv1.Case, model string) (vector.Object, error) {
	data, err := encode(c)
	if err != nil {
		return vector.Object{}, fmt.Errorf("encode case %s: %w", c.GetCaseId(), err)
	}
	return vector.Object{
		ID: ids.UUID(c.GetProjectId(), c.GetCaseId()), Payload: data,
		Properties: map[string]any{
			"case_id": c.GetCaseId(), "state": c.GetState(), "severity": c.GetSeverity(),
			"negatives": int(c.GetNegatives()), "last_seen": c.GetLastSeen().AsTime(), "embedding_model": model,
		},
	}, nil
}

// readCurated reads what people said about cases, where they said anything.
func readCurated(ctx context.Context, ix index, project string, caseIDs []string) (map[string]*casesv1.CaseCuration, error) {
	if len(caseIDs) == 0 {
		return nil, nil
	}
	objects, err := ix.Get(ctx, vector.Answers, project, uuids(project, caseIDs), false)
	if err != nil {
		return nil, fmt.Errorf("read what was said about cases: %w", err)
	}
	curated := map[string]*casesv1.CaseCuration{}
	for _, id := range caseIDs {
		o, ok := objects[ids.UUID(project, id)]
		if !ok {
			continue
		}
		c := &casesv1.CaseCuration{}
		if err := proto.Unmarshal(o.Payload, c); err != nil {
			return nil, fmt.Errorf("decode what was said about case %s: %w", id, err)
		}
		curated[id] = c
	}
	return curated, nil
}

func (s *store) writeCurated(ctx context.Context, project string, curated ...*casesv1.CaseCuration) error {
	var objects []vector.Object
	for _, c := range curated {
		data, err := encode(c)
		if err != nil {
			return fmt.Errorf("encode what was said about case %s: %w", c.GetCaseId(), err)
		}
		objects = append(objects, vector.Object{ID: ids.UUID(project, c.GetCaseId()), Payload: data, Properties: map[string]any{
			"case_id": c.GetCaseId(), "kind": "case",
		}})
	}
	if err := s.index.Upsert(ctx, vector.Answers, project, objects); err != nil {
		return fmt.Errorf("write what was said about cases: %w", err)
	}
	return nil
}

func decodeExchange(o vector.Object) (*casesv1.Exchange, error) {
	var e casesv1.Exchange
	if err := proto.Unmarshal(o.Payload, &e); err != nil {
		return nil, fmt.Errorf("decode exchange %s: %w", o.ID, err)
	}
	return &e, nil
}

// memberCase is the case that a stored signal belongs to; empty for none. A
// withdrawn one names the case that it left.
func memberCase(e *casesv1.Exchange) string {
	if e.GetPublished().GetSignal().GetWithdrawn() {
		return ""
	}
	return e.GetPublished().GetCase().GetCaseId()
}

// encode is deterministic, so that the same result is the same bytes.
func encode(m proto.Message) ([]byte, error) {
	return proto.MarshalOptions{Deterministic: true}.Marshal(m)
}

func uuids(project string, names []string) []string {
	out := make([]string, 0, len(names))
	for _, n := range names {
		out = append(out, ids.UUID(project, n))
	}
	return out
}

// projectLocks lets one goroutine at a time change a project's cases. A few
// projects share a lock.
type projectLocks struct {
	seed  maphash.Seed
	locks [64]chan struct{}
}

func newProjectLocks() projectLocks {
	l := projectLocks{seed: maphash.MakeSeed()}
	for i := range l.locks {
		l.locks[i] = make(chan struct{}, 1)
	}
	return l
}

func (l *projectLocks) lock(ctx context.Context, project string) (unlock func(), err error) {
	c := l.locks[maphash.String(l.seed, project)%uint64(len(l.locks))]
	select {
	case c <- struct{}{}:
		return func() { <-c }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait for project: %w", ctx.Err())
	}
}

// caseCache keeps cases, least recently used out first, up to a number of
// members, for a time.
type caseCache struct {
	limit int
	ttl   time.Duration

	mu      sync.Mutex
	size    int
	entries map[string]*list.Element
	recent  *list.List // of *caseState, most recent first
}

func newCaseCache(limit int, ttl time.Duration) *caseCache {
	return &caseCache{limit: limit, ttl: ttl, entries: map[string]*list.Element{}, recent: list.New()}
}

// weight counts a case's vector and texts as one member.
func weight(c *caseState) int { return len(c.members) + 1 }

func (k *caseCache) take(project, id string) *caseState {
	k.mu.Lock()
	defer k.mu.Unlock()
	e, ok := k.entries[project+"\x00"+id]
	if !ok {
		return nil
	}
	c := k.remove(e)
	if time.Since(c.loadedAt) > k.ttl {
		return nil
	}
	return c
}

func (k *caseCache) put(c *caseState) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if e, ok := k.entries[c.project+"\x00"+c.id]; ok {
		k.remove(e)
	}
	k.entries[c.project+"\x00"+c.id] = k.recent.PushFront(c)
	k.size += weight(c)
	for k.size > k.limit && k.recent.Len() > 0 {
		k.remove(k.recent.Back())
	}
}

func (k *caseCache) remove(e *list.Element) *caseState {
	c := k.recent.Remove(e).(*caseState)
	delete(k.entries, c.project+"\x00"+c.id)
	k.size -= weight(c)
	return c
}
