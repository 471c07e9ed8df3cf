package embedder

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"

	"github.com/honeloop/hone/pkg/embedding"
	"github.com/honeloop/hone/pkg/ids"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/vector"
)

const (
	// layoutAge is how old the layout may be that a write goes by.
	layoutAge    = 2 * time.Second
	layoutPause  = time.Second
	writeObjects = 200
	// writeTime bounds a write of so many objects into all spaces.
	writeTime = time.Minute
)

// indexProject is where the index keeps what it says of itself: not a name that
// a project can have.
const indexProject = "\x00index"

// errOtherModel says that the index has vectors of another model, which must
// not be compared with this embedder's.
var errOtherModel = errors.New("the index has vectors of another embedding model")

// errLayout says that this part's vectors are not there, or not any more: the
// next try finds the right part.
var errLayout = fmt.Errorf("%w: the index is changing its embedding model", vector.ErrUnavailable)

// space is the collections that hold the vectors of one model.
type space struct {
	Provider   string `json:"provider"`
	Model      string `json:"model"`
	Dimensions int    `json:"dimensions"`
	// What follows the names of the collections; empty for the first space of
	// an index.
	Suffix string `json:"suffix,omitempty"`
}

func (s space) same(o space) bool {
	return s.Provider == o.Provider && s.Model == o.Model && s.Dimensions == o.Dimensions
}

func (s space) String() string {
	return fmt.Sprintf("provider %s, model %s, %d dimensions", s.Provider, s.Model, s.Dimensions)
}

var notName = regexp.MustCompile(`[^0-9A-Za-z]+`)

// suffixOf names the collections of a model. The digest tells apart models whose
// names differ in signs alone.
func suffixOf(s space) string {
	name := notName.ReplaceAllString(s.Model, "_")
	digest := ids.Derive("", s.Provider, s.Model)[1:9]
	return fmt.Sprintf("_%s_%d_%s", name[:min(len(name), 80)], s.Dimensions, digest)
}

// layout is what the index says of its spaces. Embedders read one of them and
// write all.
type layout struct {
	space        // that is read
	Next  *space `json:"next,omitempty"` // that a reindex fills
	Last  *space `json:"last,omitempty"` // that was read until just now
}

// all are the spaces that are written.
func (l layout) all() []space {
	var all []space
	for _, s := range []*space{l.Next, l.Last, &l.space} {
		if s != nil {
			all = append(all, *s)
		}
	}
	return all
}

// backend is the part of vector.Client that changes of the model need.
type backend interface {
	index
	Walk(ctx context.Context, collection, tenant, after string, limit int, vectors bool) ([]vector.Object, error)
	Tenants(ctx context.Context, collection string) ([]string, error)
	EnsureSpace(ctx context.Context, suffix string) error
	EmptySpace(ctx context.Context, suffix string) error
}

// part is all that works with one model.
type part struct {
	space    space // without a suffix
	embedder embedding.Embedder
	index    index // the space of this part, and writes into the others

	signals  *signals
	curation *curation
	pass     *pass
	recall   *api
	cases    *caseAPI
}

// spaces follows the layout of the index, and says which part's turn it is.
type spaces struct {
	backend backend
	parts   []*part // of embedding, and of embedding_next where it is set

	mu     sync.Mutex
	layout *layout   // nil until it was read
	asOf   time.Time // when that began
}

// add makes a part, which has an index and nothing else yet.
func (s *spaces) add(provider string, e embedding.Embedder) *part {
	p := &part{space: space{Provider: provider}, embedder: e}
	p.index = &spaceIndex{spaces: s, part: p}
	s.parts = append(s.parts, p)
	return p
}

// claim reads the layout, and writes one for the first part where the index has
// none. errOtherModel means that no part can work with it.
func (s *spaces) claim(ctx context.Context) error {
	for _, p := range s.parts {
		if p.embedder.Dimensions() == 0 { // a remote model, which has not answered yet
			if err := embedding.Probe(ctx, p.embedder); err != nil {
				return err
			}
		}
		s.mu.Lock()
		p.space.Model, p.space.Dimensions = p.embedder.Model(), p.embedder.Dimensions()
		s.mu.Unlock()
	}
	switch l, err := s.read(ctx); {
	case err != nil:
		return err
	case l == nil:
		if err := s.write(ctx, layout{space: s.parts[0].space}); err != nil {
			return err
		}
	}
	_, err := s.turn(ctx)
	return err
}

// read gives the layout as the index has it now; nil where it has none.
func (s *spaces) read(ctx context.Context) (*layout, error) {
	began := time.Now()
	var l layout
	found, err := readRecord(ctx, s.backend, "model", &l)
	if err != nil || !found {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !began.Before(s.asOf) {
		s.layout, s.asOf = &l, began
	}
	return &l, nil
}

func (s *spaces) write(ctx context.Context, l layout) error {
	if err := writeRecord(ctx, s.backend, "model", l); err != nil {
		return err
	}
	_, err := s.read(ctx)
	return err
}

// fresh is a layout that is at most layoutAge old.
func (s *spaces) fresh(ctx context.Context) (layout, error) {
	s.mu.Lock()
	l, age := s.layout, time.Since(s.asOf)
	s.mu.Unlock()
	if l != nil && age < layoutAge {
		return *l, nil
	}
	l, err := s.read(ctx)
	if err != nil {
		return layout{}, err
	}
	if l == nil {
		return layout{}, errLayout
	}
	return *l, nil
}

// seen is the layout as it was last seen.
func (s *spaces) seen() (layout, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.layout == nil {
		return layout{}, false
	}
	return *s.layout, true
}

func (s *spaces) partOf(sp space) *part {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.parts {
		if p.space.same(sp) {
			return p
		}
	}
	return nil
}

// turn is the part whose space is read.
func (s *spaces) turn(ctx context.Context) (*part, error) {
	l, err := s.fresh(ctx)
	if err != nil {
		return nil, err
	}
	p := s.partOf(l.space)
	if p == nil {
		return nil, fmt.Errorf("%w: %s; this one has %s: set it back, or set embedding_next and run `hone reindex`",
			errOtherModel, l.space, s.parts[0].space)
	}
	return p, nil
}

// last is like turn, without asking the index; nil before it was asked.
func (s *spaces) last() *part {
	l, ok := s.seen()
	if !ok {
		return nil
	}
	return s.partOf(l.space)
}

// follow looks at the layout until ctx ends, and fails with errOtherModel where
// it has become one that no part can work with.
func (s *spaces) follow(ctx context.Context) error {
	tick := time.NewTicker(layoutPause)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		// An index that does not answer shows with each use of it.
		if l, err := s.read(ctx); err == nil && l != nil && s.partOf(l.space) == nil {
			_, err := s.turn(ctx)
			return err
		}
	}
}

// stage is that of the part whose turn it is when a batch begins.
func (s *spaces) stage(of func(*part) stage.Stage) stage.Stage {
	return stage.Func(func(ctx context.Context, in []stage.Record) ([]stage.Record, error) {
		p, err := s.turn(ctx)
		if err != nil {
			return nil, err
		}
		return of(p).Process(ctx, in)
	})
}

// spaceIndex is the index as one part sees it: the names of the collections are
// those of its own space. Writes go to all spaces.
type spaceIndex struct {
	*spaces
	part *part
}

// own is the part's space in a layout.
func (x *spaceIndex) own(l layout) (space, bool) {
	for _, s := range l.all() {
		if x.partOf(s) == x.part {
			return s, true
		}
	}
	return space{}, false
}

func (x *spaceIndex) suffix(collection string) (string, error) {
	if collection == vector.Answers { // which has no vectors
		return "", nil
	}
	if l, ok := x.seen(); ok {
		if own, ok := x.own(l); ok {
			return own.Suffix, nil
		}
	}
	return "", errLayout
}

// Get implements index.
func (x *spaceIndex) Get(ctx context.Context, collection, project string, objectIDs []string, vectors bool) (map[string]vector.Object, error) {
	suffix, err := x.suffix(collection)
	if err != nil {
		return nil, err
	}
	return x.backend.Get(ctx, collection+suffix, project, objectIDs, vectors)
}

// Near implements index.
func (x *spaceIndex) Near(ctx context.Context, collection, project string, q vector.NearQuery) ([]vector.Match, error) {
	suffix, err := x.suffix(collection)
	if err != nil {
		return nil, err
	}
	return x.backend.Near(ctx, collection+suffix, project, q)
}

// NearValues implements index.
func (x *spaceIndex) NearValues(ctx context.Context, collection, project string, q vector.NearQuery, properties ...string) ([]vector.ValueMatch, error) {
	suffix, err := x.suffix(collection)
	if err != nil {
		return nil, err
	}
	return x.backend.NearValues(ctx, collection+suffix, project, q, properties...)
}

// List implements index.
func (x *spaceIndex) List(ctx context.Context, collection, project string, q vector.ListQuery) ([]vector.Object, error) {
	suffix, err := x.suffix(collection)
	if err != nil {
		return nil, err
	}
	return x.backend.List(ctx, collection+suffix, project, q)
}

// Upsert implements index.
func (x *spaceIndex) Upsert(ctx context.Context, collection, project string, objects []vector.Object) error {
	if collection == vector.Answers {
		return x.backend.Upsert(ctx, collection, project, objects)
	}
	for chunk := range slices.Chunk(objects, writeObjects) {
		if err := x.upsert(ctx, collection, project, chunk); err != nil {
			return err
		}
	}
	return nil
}

// upsert writes into the other spaces first. After a crash the batch is
// repeated, and finds in its own space what it has to do again.
func (x *spaceIndex) upsert(ctx context.Context, collection, project string, objects []vector.Object) error {
	ctx, cancel := context.WithTimeout(ctx, writeTime)
	defer cancel()
	l, err := x.fresh(ctx)
	if err != nil {
		return err
	}
	own, ok := x.own(l)
	if !ok {
		return errLayout
	}
	for _, s := range l.all() {
		if s == own {
			continue
		}
		p := x.partOf(s)
		if p == nil {
			return fmt.Errorf("the index is changing its embedding model, and this embedder lacks one of the two (%s): "+
				"set embedding_next, or end it with `hone reindex --cancel`", s)
		}
		copies, err := p.embed(ctx, collection, objects)
		if err != nil {
			return err
		}
		if err := x.backend.Upsert(ctx, collection+s.Suffix, project, copies); err != nil {
			return err
		}
	}
	return x.backend.Upsert(ctx, collection+own.Suffix, project, objects)
}

// embed gives copies of objects vectors of this part's model, where they have
// one.
func (p *part) embed(ctx context.Context, collection string, objects []vector.Object) ([]vector.Object, error) {
	out := slices.Clone(objects)
	var texts []string
	var at []int
	for i := range out {
		out[i].Properties = maps.Clone(out[i].Properties)
		out[i].Properties["embedding_model"] = p.embedder.Model()
		if len(out[i].Vector) == 0 {
			continue
		}
		d, err := decodeObject(collection, out[i], "")
		if err != nil {
			return nil, err
		}
		if out[i].Vector = nil; d.text == "" {
			continue // it was erased
		}
		texts, at = append(texts, d.text), append(at, i)
	}
	if len(texts) == 0 {
		return out, nil
	}
	vectors, err := p.embedder.Embed(ctx, texts)
	if err != nil {
		return nil, fmt.Errorf("embed for another model: %w", err)
	}
	for i, v := range vectors {
		out[at[i]].Vector = v
	}
	return out, nil
}

// decoded is an exchange or a case that was read from the index.
type decoded struct {
	object        vector.Object // with its properties, as for a write
	text, project string        // what its vector is made of; whose it is
}

func decodeObject(collection string, read vector.Object, model string) (d decoded, err error) {
	if collection == vector.Cases {
		c := &casesv1.Case{}
		if err := proto.Unmarshal(read.Payload, c); err != nil {
			return d, fmt.Errorf("decode case %s: %w", read.ID, err)
		}
		d.text, d.project = c.GetAnchor(), c.GetProjectId()
		d.object, err = caseObject(c, model)
	} else {
		e, err := decodeExchange(read)
		if err != nil {
			return d, err
		}
		s := e.GetPublished().GetSignal()
		d.text, d.project = s.GetInteraction().GetQuery(), s.GetProjectId()
		if d.object, err = exchangeObject(d.project, e, nil, model); err != nil {
			return d, err
		}
	}
	d.object.Payload, d.object.Vector = read.Payload, read.Vector
	return d, err
}

// readRecord reads what the index says of itself under a name.
func readRecord(ctx context.Context, ix index, name string, into any) (found bool, err error) {
	id := ids.UUID(indexProject, name)
	stored, err := ix.Get(ctx, vector.Answers, indexProject, []string{id}, false)
	if err != nil {
		return false, fmt.Errorf("read the %s of the index: %w", name, err)
	}
	o, ok := stored[id]
	if !ok {
		return false, nil
	}
	if err := json.Unmarshal(o.Payload, into); err != nil {
		return false, fmt.Errorf("decode the %s of the index: %w", name, err)
	}
	return true, nil
}

func writeRecord(ctx context.Context, ix index, name string, record any) error {
	data, err := json.Marshal(record)
	if err != nil {
		return fmt.Errorf("encode the %s of the index: %w", name, err)
	}
	o := vector.Object{ID: ids.UUID(indexProject, name), Payload: data, Properties: map[string]any{"kind": name}}
	if err := ix.Upsert(ctx, vector.Answers, indexProject, []vector.Object{o}); err != nil {
		return fmt.Errorf("write the %s of the index: %w", name, err)
	}
	return nil
}
