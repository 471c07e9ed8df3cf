package embedder

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"

	"github.com/honeloop/hone/pkg/embedding"
	"github.com/honeloop/hone/pkg/ids"
	"github.com/honeloop/hone/pkg/projects"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/vector"
)

const (
	nearCandidates = 5 // cases that are looked at for a signal
	nearParallel   = 4 // searches of the index at once
)

// signals is the stage that gives each signal its case.
//
// A batch is done project by project: what the store knows of its signals is
// read, their queries are embedded, and then, under the project's lock, each
// signal is assigned in order. Exchanges are written before cases, since a case
// is summed up from its members' exchanges: after a crash between the two, the
// repeated signal finds its case older than its exchange says, and writes it.
type signals struct {
	store    *store
	embedder embedding.Embedder
	join     float64
	projects *projects.Projects
	mark     func(project string) // that it got signals; may be nil
	outcomes metric.Int64Counter
}

// task is one signal of a batch.
type task struct {
	signal *signalv1.Signal
	record stage.Record
	query  string
	sure   bool      // enough for a place
	vector []float32 // nil where the signal needs no place
	near   []string  // cases near it, most similar first
	looked bool      // near is set
	out    []*casesv1.CaseSignal
}

// Process implements stage.Stage.
func (s *signals) Process(ctx context.Context, in []stage.Record) ([]stage.Record, error) {
	var failed *stage.BatchError
	var tasks []*task
	byProject := map[string][]*task{}
	var order []string
	for i, r := range in {
		t := &task{signal: &signalv1.Signal{}, record: r}
		if err := t.decode(r.Value); err != nil {
			failed = failed.Fail(i, err)
			continue
		}
		project := t.signal.GetProjectId()
		t.sure = t.signal.GetConfidence() >= s.projects.Settings(project).Cases.MinConfidence
		if byProject[project] == nil {
			order = append(order, project)
		}
		byProject[project] = append(byProject[project], t)
		tasks = append(tasks, t)
	}

	stored := map[string]map[string]*casesv1.Exchange{} // by project, by signal
	for _, project := range order {
		known, err := s.readExchanges(ctx, project, byProject[project])
		if err != nil {
			return nil, err
		}
		stored[project] = known
	}
	if err := s.embed(ctx, tasks, stored); err != nil {
		return nil, err
	}
	for _, project := range order {
		if err := s.assign(ctx, project, byProject[project]); err != nil {
			return nil, err
		}
	}

	var out []stage.Record
	for _, t := range tasks {
		for _, message := range t.out {
			r, err := caseRecord(message, stream.SessionKey(t.signal.GetProjectId(), t.signal.GetSessionId()), t.record)
			if err != nil {
				return nil, err
			}
			out = append(out, r)
		}
	}
	return out, failed.ErrorOrNil()
}

func (t *task) decode(value []byte) error {
	if err := proto.Unmarshal(value, t.signal); err != nil {
		return fmt.Errorf("decode signal: %w", err)
	}
	s := t.signal
	switch {
	case s.GetProjectId() == "":
		return errors.New("signal without project_id")
	case s.GetSignalId() == "":
		return errors.New("signal without signal_id")
	case s.GetRevision() == 0:
		return errors.New("signal without revision")
	case s.GetPolarity() != positive && s.GetPolarity() != negative && s.GetPolarity() != neutral && !s.GetWithdrawn():
		return fmt.Errorf("signal with polarity %q, want positive, negative or neutral", s.GetPolarity())
	}
	t.query = queryText(s)
	return nil
}

func (s *signals) readExchanges(ctx context.Context, project string, tasks []*task) (map[string]*casesv1.Exchange, error) {
	var names []string
	for _, t := range tasks {
		names = append(names, t.signal.GetSignalId())
	}
	slices.Sort(names)
	objects, err := s.store.index.Get(ctx, vector.Exchanges, project, uuids(project, slices.Compact(names)), false)
	if err != nil {
		return nil, fmt.Errorf("read exchanges: %w", err)
	}
	known := make(map[string]*casesv1.Exchange, len(objects))
	for _, o := range objects {
		e, err := decodeExchange(o)
		if err != nil {
			return nil, err
		}
		known[e.GetPublished().GetSignal().GetSignalId()] = e
	}
	return known, nil
}

// embed gives a vector to every task that may need a place, in one call.
func (s *signals) embed(ctx context.Context, tasks []*task, stored map[string]map[string]*casesv1.Exchange) error {
	at := map[string]int{}
	var texts []string
	var wanting []*task
	for _, t := range tasks {
		last := stored[t.signal.GetProjectId()][t.signal.GetSignalId()].GetPublished().GetSignal().GetRevision()
		if t.signal.GetRevision() <= last || t.signal.GetWithdrawn() || t.query == "" || !t.sure {
			continue
		}
		wanting = append(wanting, t)
		if _, ok := at[t.query]; !ok {
			at[t.query] = len(texts)
			texts = append(texts, t.query)
		}
	}
	if len(texts) == 0 {
		return nil
	}
	vectors, err := s.embedder.Embed(ctx, texts)
	if err != nil {
		return fmt.Errorf("embed queries: %w", err)
	}
	for _, t := range wanting {
		t.vector = vectors[at[t.query]]
	}
	return nil
}

// assignment is the work on one project's part of a batch.
type assignment struct {
	*signals
	project string
	known   map[string]*casesv1.Exchange // the newest of each signal
	cases   map[string]*caseState        // all that were looked at; nil where there is none
	opened  []*caseState                 // those that became alive in this batch, which the index does not find yet
	wrote   map[string]*task             // signals whose exchange changed
	order   []string                     // those signals, a case's founder before those who joined it
	counts  map[string]int64
	// What erased signals of the batch said, by the cases that may quote it.
	forgotten map[string]quotes
}

// assign places a project's signals, in order, and makes it durable.
func (s *signals) assign(ctx context.Context, project string, tasks []*task) error {
	a := &assignment{
		signals: s, project: project,
		cases: map[string]*caseState{}, wrote: map[string]*task{}, counts: map[string]int64{}, forgotten: map[string]quotes{},
	}
	unlock, err := s.store.locks.lock(ctx, project)
	if err != nil {
		return err
	}
	defer unlock()
	// What was read before the lock said what to embed. After a rebalance the
	// partition's former owner may have been at work until now.
	if a.known, err = s.readExchanges(ctx, project, tasks); err != nil {
		return err
	}
	if err := a.prepare(ctx, tasks); err != nil {
		// What was read is there when it is tried again.
		maps.DeleteFunc(a.cases, func(_ string, c *caseState) bool { return c == nil || c.changed })
		a.store.put(a.cases)
		return err
	}
	for _, t := range tasks {
		outcome, err := a.place(ctx, t)
		if err != nil {
			return fmt.Errorf("place signal %s: %w", t.signal.GetSignalId(), err)
		}
		a.counts[outcome]++
	}
	if err := a.forgetStored(ctx); err != nil {
		return err
	}
	if err := a.write(ctx); err != nil {
		return err
	}
	if s.mark != nil && len(a.wrote) > 0 {
		s.mark(project)
	}
	for outcome, n := range a.counts {
		s.outcomes.Add(ctx, n, metric.WithAttributes(attribute.String("outcome", outcome)))
	}
	return nil
}

// prepare reads the cases that the batch will look at, many at a time.
func (a *assignment) prepare(ctx context.Context, tasks []*task) error {
	var searching []*task
	var wanted []string
	var repeated []*casesv1.Exchange
	for _, t := range tasks {
		last := a.known[t.signal.GetSignalId()]
		if stored := last.GetPublished().GetSignal().GetRevision(); t.signal.GetRevision() <= stored {
			repeated = append(repeated, last)
			continue
		}
		if id := memberCase(last); id != "" {
			wanted = append(wanted, id)
		}
		if t.signal.GetErased() {
			wanted = append(wanted, quotedBy(t.signal, last)...)
		}
		if t.vector != nil && !stays(last, t) {
			searching = append(searching, t)
		}
	}
	if err := a.search(ctx, searching); err != nil {
		return err
	}
	for _, t := range searching {
		if len(t.near) > 0 {
			wanted = append(wanted, t.near[0])
		}
		if t.signal.GetPolarity() == negative {
			wanted = append(wanted, foundedBy(t.signal))
		}
	}
	if err := a.load(ctx, wanted); err != nil {
		return err
	}
	return a.repair(ctx, repeated)
}

// repair writes again the cases that are older than what the exchanges of
// repeated signals say: a crash kept them from being written.
func (a *assignment) repair(ctx context.Context, repeated []*casesv1.Exchange) error {
	said := map[string]*casesv1.Case{}
	for _, e := range repeated {
		for _, c := range append([]*casesv1.Case{e.GetPublished().GetCase()}, e.GetLeft()...) {
			if c.GetVersion() > said[c.GetCaseId()].GetVersion() {
				said[c.GetCaseId()] = c
			}
		}
	}
	stored, err := a.store.versions(ctx, a.project, slices.Collect(maps.Keys(said)))
	if err != nil {
		return err
	}
	for id, c := range said {
		if stored[id] >= c.GetVersion() {
			continue
		}
		state, err := a.load1(ctx, id)
		if err != nil {
			return err
		}
		if state == nil {
			state = newCase(id, a.project)
			a.cases[id] = state
			if err := a.store.readMembers(ctx, a.project, []string{id}, a.cases); err != nil {
				return err
			}
		}
		if len(state.vector) == 0 && c.GetAnchor() != "" {
			// It was being founded.
			vectors, err := a.embedder.Embed(ctx, []string{c.GetAnchor()})
			if err != nil {
				return fmt.Errorf("embed anchor: %w", err)
			}
			state.anchor, state.vector = c.GetAnchor(), vectors[0]
		}
		state.saw(c)
		state.version = max(state.version, c.GetVersion())
		state.changed = true
		a.counts["repaired"]++
	}
	return nil
}

// search finds the cases near each task, once for equal queries.
func (a *assignment) search(ctx context.Context, tasks []*task) error {
	at := map[string]int{}
	var distinct []*task
	for _, t := range tasks {
		if _, ok := at[t.query]; !ok {
			at[t.query] = len(distinct)
			distinct = append(distinct, t)
		}
	}
	results := make([][]string, len(distinct))
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(nearParallel)
	for i, t := range distinct {
		g.Go(func() error {
			matches, err := a.store.index.Near(gctx, vector.Cases, a.project, vector.NearQuery{
				// Slightly less, since the similarity is computed anew below.
				Vector: t.vector, Limit: nearCandidates, MinSimilarity: a.join - 1e-3,
			})
			if err != nil {
				return fmt.Errorf("search cases: %w", err)
			}
			for _, m := range matches {
				var c casesv1.Case
				if err := proto.Unmarshal(m.Payload, &c); err != nil {
					return fmt.Errorf("decode case %s: %w", m.ID, err)
				}
				results[i] = append(results[i], c.GetCaseId())
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	for _, t := range tasks {
		t.near, t.looked = results[at[t.query]], true
	}
	return nil
}

// load brings cases into a.cases, and those that they were merged into.
func (a *assignment) load(ctx context.Context, caseIDs []string) error {
	var missing, merged []string
	for _, id := range caseIDs {
		if _, ok := a.cases[id]; !ok {
			a.cases[id] = nil // asked for once
			missing = append(missing, id)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	cases, err := a.store.take(ctx, a.project, missing)
	if err != nil {
		return err
	}
	for _, id := range missing {
		if a.cases[id] = cases[id]; cases[id] != nil && cases[id].mergedInto() != "" {
			merged = append(merged, cases[id].mergedInto())
		}
	}
	return a.load(ctx, merged)
}

// resolve is the case that stands for c: itself, unless it was merged.
func (a *assignment) resolve(c *caseState) *caseState {
	for c != nil && c.mergedInto() != "" {
		c = a.cases[c.mergedInto()]
	}
	return c
}

func (a *assignment) load1(ctx context.Context, id string) (*caseState, error) {
	if err := a.load(ctx, []string{id}); err != nil {
		return nil, err
	}
	return a.cases[id], nil
}

// place gives one signal its case, and says what came of it.
//
// A negative signal joins the nearest case, or founds one; the others join the
// nearest case, or none. Which is not sure enough has none. Whose polarity and
// query did not change stays where it is.
func (a *assignment) place(ctx context.Context, t *task) (outcome string, err error) {
	s := t.signal
	last := a.known[s.GetSignalId()]
	switch stored := last.GetPublished().GetSignal().GetRevision(); {
	case s.GetRevision() < stored:
		return "outdated", nil
	case s.GetRevision() == stored:
		if last, err = a.current(ctx, last); err != nil {
			return "", err
		}
		t.publish(last)
		return "repeated", nil
	}

	var old *caseState
	if id := memberCase(last); id != "" {
		if old, err = a.load1(ctx, id); err != nil {
			return "", err
		}
	}
	target := a.resolve(old)
	moves := last.GetMoves()
	if target == nil || !target.alive() || !stays(last, t) {
		if old != nil {
			old.drop(s.GetSignalId())
		}
		var via *caseState
		if target, via, outcome, err = a.choose(ctx, t); err != nil {
			return "", err
		}
		moves = appendMove(nil, a.movesVia(via)...)
	} else {
		outcome = "stayed"
		if target != old { // a merge of another process did not see it
			old.drop(s.GetSignalId())
			moves = appendMove(moves, a.movesVia(old)...)
		}
	}

	var forgot []*caseState
	if s.GetErased() {
		if forgot, err = a.forget(ctx, s, last); err != nil {
			return "", err
		}
		outcome = "erased"
	}
	message := &casesv1.CaseSignal{Signal: s}
	var left []*casesv1.Case
	if target != nil {
		target.set(s.GetSignalId(), memberOf(s))
		target.touch()
		message.Case = target.snapshot()
		message.Similarity = similarity(t.vector, target.vector)
		message.Founded = target.id == foundedBy(s)
	}
	if old != nil && old != target {
		old.touch()
		if s.GetWithdrawn() {
			message.Case = old.snapshot()
		} else {
			left = append(left, old.snapshot())
		}
	}
	for _, c := range forgot {
		if c != old {
			left = append(left, c.snapshot())
		}
	}
	if a.wrote[s.GetSignalId()] != nil {
		// What an earlier revision of this batch left is stored nowhere else.
		left = append(left, last.GetLeft()...)
		if p := last.GetPublished(); p.GetSignal().GetWithdrawn() && p.GetCase() != nil {
			left = append(left, p.GetCase())
		}
		left = newestOf(left, message.GetCase().GetCaseId())
	}
	exchange := &casesv1.Exchange{Published: message, Left: left, Moves: moves}
	t.publish(exchange)
	a.known[s.GetSignalId()] = &casesv1.Exchange{
		Published: &casesv1.CaseSignal{Signal: reduced(s), Case: message.Case, Similarity: message.Similarity, Founded: message.Founded},
		Left:      left, Moves: moves,
	}
	if s.GetErased() {
		a.known[s.GetSignalId()] = erasedExchange(s, message.Case, left)
	}
	if a.wrote[s.GetSignalId()] == nil {
		a.order = append(a.order, s.GetSignalId())
	}
	a.wrote[s.GetSignalId()] = t
	return outcome, nil
}

// current has the cases that a signal left as they stand now: their words are not
// kept with it, so that those of other people can be erased.
func (a *assignment) current(ctx context.Context, e *casesv1.Exchange) (*casesv1.Exchange, error) {
	e = proto.CloneOf(e)
	cases := slices.Clone(e.GetLeft())
	if e.GetPublished().GetSignal().GetWithdrawn() && e.GetPublished().GetCase() != nil {
		cases = append(cases, e.GetPublished().GetCase())
	}
	for _, c := range cases {
		state, err := a.load1(ctx, c.GetCaseId())
		if err != nil {
			return nil, err
		}
		if state != nil {
			proto.Reset(c)
			proto.Merge(c, state.snapshot())
		}
	}
	return e, nil
}

// publish sets what goes out for a signal: itself with its case, and the case
// that it left.
func (t *task) publish(e *casesv1.Exchange) {
	p := e.GetPublished()
	t.out = []*casesv1.CaseSignal{{Signal: t.signal, Case: p.GetCase(), Similarity: p.GetSimilarity(), Founded: p.GetFounded()}}
	for _, left := range e.GetLeft() {
		t.out = append(t.out, &casesv1.CaseSignal{Case: left})
	}
}

// newestOf keeps the newest snapshot of each case but one.
func newestOf(cases []*casesv1.Case, but string) []*casesv1.Case {
	var out []*casesv1.Case
	for _, c := range cases {
		i := slices.IndexFunc(out, func(o *casesv1.Case) bool { return o.GetCaseId() == c.GetCaseId() })
		switch {
		case c.GetCaseId() == but:
		case i < 0:
			out = append(out, c)
		case c.GetVersion() > out[i].GetVersion():
			out[i] = c
		}
	}
	return out
}

// choose finds the case that a signal joins; nil for none. It may be a new one.
// via is the merged case that led to it, if any did.
func (a *assignment) choose(ctx context.Context, t *task) (c, via *caseState, outcome string, err error) {
	if t.signal.GetWithdrawn() {
		return nil, nil, "withdrawn", nil
	}
	if t.query != "" && !t.sure {
		return nil, nil, "unsure", nil
	}
	if t.vector == nil {
		return nil, nil, "no_query", nil
	}
	best, via, full, err := a.nearest(ctx, t)
	if err != nil {
		return nil, nil, "", err
	}
	if best != nil {
		return best, via, "joined", nil
	}
	if t.signal.GetPolarity() != negative {
		return nil, nil, "apart", nil
	}

	id := foundedBy(t.signal)
	if c, err = a.load1(ctx, id); err != nil {
		return nil, nil, "", err
	}
	if target := a.resolve(c); target != nil && target.alive() {
		// It founded this case before, with another query, and others joined:
		// the case keeps its meaning and its founder.
		if target != c {
			via = c
		}
		return target, via, "joined", nil
	}
	if c != nil && c.mergedInto() != "" {
		// The case that it went to is withdrawn, and this id means that one.
		target := a.resolve(c)
		if target == nil {
			return nil, nil, "", fmt.Errorf("case %s was merged into %s, which is not there", c.id, c.mergedInto())
		}
		a.opened = append(a.opened, target)
		return target, c, "joined", nil
	}
	if c == nil {
		c = newCase(id, a.project)
		a.cases[id] = c
	}
	c.anchor, c.vector = t.query, t.vector
	a.opened = append(a.opened, c)
	if full {
		return c, nil, "founded_beside_full", nil
	}
	return c, nil, "founded", nil
}

// nearest is the most similar case that takes the signal; nil where none is
// near enough. full says that a full one was passed over. A merged case speaks
// for the one that it went to, which via then names.
func (a *assignment) nearest(ctx context.Context, t *task) (best, via *caseState, full bool, err error) {
	if !t.looked {
		if err := a.search(ctx, []*task{t}); err != nil {
			return nil, nil, false, err
		}
	}
	candidates := slices.Clone(a.opened)
	for _, id := range t.near {
		c, err := a.load1(ctx, id)
		if err != nil {
			return nil, nil, false, err
		}
		target := a.resolve(c)
		if target == nil || !target.alive() {
			continue
		}
		candidates = append(candidates, c)
		if !target.full() {
			break // the others are farther
		}
	}
	var top float64
	for _, c := range candidates {
		target := a.resolve(c)
		if target == nil || !target.alive() {
			continue
		}
		switch near := similarity(t.vector, c.vector); {
		case near < a.join:
		case target.full():
			full = true
		case best == nil, near > top, near == top && target.id < best.id:
			best, via, top = target, nil, near
			if c != target {
				via = c
			}
		}
	}
	return best, via, full, nil
}

// movesVia remembers the merges that led a signal from a case to another, so
// that undoing them takes the signal along.
func (a *assignment) movesVia(c *caseState) []*casesv1.Move {
	var moves []*casesv1.Move
	for ; c != nil && c.mergedInto() != ""; c = a.cases[c.mergedInto()] {
		moves = append(moves, &casesv1.Move{CurationId: c.curated.GetMergedBy(), FromCaseId: c.id})
	}
	return moves
}

func appendMove(moves []*casesv1.Move, more ...*casesv1.Move) []*casesv1.Move {
	moves = append(slices.Clone(moves), more...)
	return moves[max(0, len(moves)-maxMoves):]
}

// write makes exchanges, then cases, durable.
func (a *assignment) write(ctx context.Context) error {
	var objects []vector.Object
	for _, id := range a.order {
		e, t := a.known[id], a.wrote[id]
		o, err := exchangeObject(a.project, e, t.vector, a.embedder.Model())
		if err != nil {
			return err
		}
		objects = append(objects, o)
	}
	if err := a.store.index.Upsert(ctx, vector.Exchanges, a.project, objects); err != nil {
		return fmt.Errorf("write exchanges: %w", err)
	}
	if err := a.checkErased(ctx); err != nil {
		return err
	}
	maps.DeleteFunc(a.cases, func(_ string, c *caseState) bool { return c == nil })
	if err := a.store.writeCases(ctx, a.project, a.cases, a.embedder.Model()); err != nil {
		return err
	}
	a.store.put(a.cases)
	return nil
}

func exchangeObject(project string, e *casesv1.Exchange, v []float32, model string) (vector.Object, error) {
	s := e.GetPublished().GetSignal()
	kept := proto.CloneOf(e)
	for i, c := range kept.GetLeft() {
		kept.Left[i] = withoutTexts(c)
	}
	if s.GetWithdrawn() {
		kept.Published.Case = withoutTexts(kept.Published.Case)
	}
	data, err := encode(kept)
	if err != nil {
		return vector.Object{}, fmt.Errorf("encode exchange %s: %w", s.GetSignalId(), err)
	}
	return vector.Object{
		ID: ids.UUID(project, s.GetSignalId()), Vector: v, Payload: data,
		Properties: map[string]any{
			"signal_id": s.GetSignalId(), "case_id": memberCase(e), "session_id": s.GetSessionId(), "user_id": s.GetUserId(),
			"polarity": s.GetPolarity(), "withdrawn": s.GetWithdrawn(), "occurred_at": s.GetOccurredAt().AsTime(),
			"embedding_model": model, "metadata": metadataOf(s),
		},
	}, nil
}

// foundedBy is the id of the case that a signal founds, if it founds one.
func foundedBy(s *signalv1.Signal) string {
	return ids.Derive("cs", s.GetProjectId(), s.GetSignalId())
}

// stays says whether a new revision changes nothing that places a signal.
func stays(last *casesv1.Exchange, t *task) bool {
	before := last.GetPublished().GetSignal()
	return memberCase(last) != "" && !t.signal.GetWithdrawn() && t.sure &&
		(before.GetPolarity() == negative) == (t.signal.GetPolarity() == negative) &&
		before.GetInteraction().GetQuery() == t.query
}

// similarity is the cosine of two vectors, 0 where one is missing.
func similarity(a, b []float32) float64 {
	if len(a) == 0 || len(a) != len(b) {
		return 0
	}
	return embedding.Similarity(a, b)
}

// caseRecord is a record of hone.cases.
func caseRecord(m *casesv1.CaseSignal, key []byte, cause stage.Record) (stage.Record, error) {
	value, err := encode(m)
	if err != nil {
		return stage.Record{}, fmt.Errorf("encode case signal: %w", err)
	}
	r := stage.Record{Topic: stream.TopicCases, Key: key, Value: value}
	for _, h := range cause.Headers {
		if h.Key == "traceparent" || h.Key == "tracestate" {
			r.Headers = append(r.Headers, stage.Header{Key: h.Key, Value: slices.Clone(h.Value)})
		}
	}
	return r, nil
}
