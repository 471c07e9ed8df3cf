package embedder

import (
	"context"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	curationv1 "github.com/honeloop/hone/proto/gen/go/hone/curation/v1"

	"github.com/honeloop/hone/pkg/ids"
	"github.com/honeloop/hone/pkg/vector"
)

const maxApart = 100 // cases that a case is kept apart from

// editedCase is the case that an event changes; empty where it is of another
// kind.
func editedCase(e *curationv1.CurationEvent) string {
	switch p := e.GetPayload().(type) {
	case *curationv1.CurationEvent_CaseChanged:
		return p.CaseChanged.GetCaseId()
	case *curationv1.CurationEvent_CaseMerged:
		return p.CaseMerged.GetCaseId()
	case *curationv1.CurationEvent_CaseSplit:
		return p.CaseSplit.GetCaseId()
	case *curationv1.CurationEvent_CaseSummarized:
		return p.CaseSummarized.GetCaseId()
	case *curationv1.CurationEvent_CaseEditUndone:
		return p.CaseEditUndone.GetCaseId()
	}
	return ""
}

// editing is the work on one event.
type editing struct {
	*curation
	project string
	event   *curationv1.CurationEvent
	record  *casesv1.CaseEdit
	cases   map[string]*caseState // all that were looked at
	said    []*casesv1.CaseCuration
	moves   []move
	undone  *casesv1.CaseEdit // the record of what is taken back
}

// move takes those members of a case that pick says to another. What pick
// gives is the exchange's new history.
type move struct {
	from, to *caseState
	pick     func(*casesv1.Exchange) (moves []*casesv1.Move, ok bool)
}

// edit does an event about a case. First a record says what will be done; then
// come what is said about the cases, the exchanges that move, and the cases;
// at last the record says that it is done.
func (c *curation) edit(ctx context.Context, event *curationv1.CurationEvent) (outcome string, changed []*casesv1.Case, err error) {
	e := &editing{curation: c, project: event.GetProjectId(), event: event, cases: map[string]*caseState{}}
	if e.record, err = readEdit(ctx, c.store.index, e.project, event.GetCurationId()); err != nil {
		return "", nil, err
	}
	switch {
	case e.record == nil:
		e.record = &casesv1.CaseEdit{Event: event}
	case e.record.GetRefused() != "":
		return "repeated", nil, nil
	case e.record.GetApplied():
		changed, err := e.again(ctx)
		return "repeated", changed, err
	}
	refused, err := e.plan(ctx)
	if err != nil {
		return "", nil, err
	}
	if refused != "" {
		e.record = &casesv1.CaseEdit{Event: event, Refused: refused, Applied: true}
		e.store.put(e.cases)
		return "refused", nil, e.writeEdit(ctx, e.record)
	}
	if err := e.writeEdit(ctx, e.record); err != nil {
		return "", nil, err
	}
	for _, s := range e.said {
		s.LastEdit = event.GetCurationId()
	}
	if err := e.store.writeCurated(ctx, e.project, e.said...); err != nil {
		return "", nil, err
	}
	touched := map[string]bool{}
	for _, s := range e.said {
		e.cases[s.GetCaseId()].curated = s
		touched[s.GetCaseId()] = true
	}
	if err := e.move(ctx, touched); err != nil {
		return "", nil, err
	}
	for id := range touched {
		if state := e.cases[id]; state.shown != event.GetCurationId() && !state.changed {
			state.touch()
		}
	}
	if err := e.store.writeCases(ctx, e.project, e.cases, e.embedder.Model()); err != nil {
		return "", nil, err
	}
	if e.undone != nil {
		e.undone.UndoneBy = event.GetCurationId()
		if err := e.writeEdit(ctx, e.undone); err != nil {
			return "", nil, err
		}
	}
	e.record.Applied = true
	if err := e.writeEdit(ctx, e.record); err != nil {
		return "", nil, err
	}
	for _, s := range e.said {
		changed = append(changed, e.cases[s.GetCaseId()].snapshot())
	}
	e.store.put(e.cases)
	return "edited", changed, nil
}

// again gives the cases of an event that was applied before, as they stand.
func (e *editing) again(ctx context.Context) ([]*casesv1.Case, error) {
	names := []string{editedCase(e.event), e.event.GetCaseMerged().GetIntoCaseId(), e.event.GetCaseSplit().GetNewCaseId()}
	names = slices.DeleteFunc(names, func(id string) bool { return id == "" })
	cases, err := e.store.take(ctx, e.project, names)
	if err != nil {
		return nil, err
	}
	var out []*casesv1.Case
	for _, id := range names {
		if cases[id] != nil {
			out = append(out, cases[id].snapshot())
		}
	}
	e.store.put(cases)
	return out, nil
}

// plan finds out what an event does. refused says why it does nothing.
func (e *editing) plan(ctx context.Context) (refused string, err error) {
	switch p := e.event.GetPayload().(type) {
	case *curationv1.CurationEvent_CaseChanged:
		return e.planChange(ctx, p.CaseChanged)
	case *curationv1.CurationEvent_CaseSummarized:
		return e.planSummary(ctx, p.CaseSummarized)
	case *curationv1.CurationEvent_CaseMerged:
		return e.planMerge(ctx, p.CaseMerged)
	case *curationv1.CurationEvent_CaseSplit:
		return e.planSplit(ctx, p.CaseSplit)
	case *curationv1.CurationEvent_CaseEditUndone:
		return e.planUndo(ctx, p.CaseEditUndone)
	}
	return "", fmt.Errorf("event %T does nothing to cases", e.event.GetPayload())
}

// one takes the case that is changed, which must stand for itself.
func (e *editing) one(ctx context.Context, id string) (c *caseState, refused string, err error) {
	target, err := e.follow(ctx, e.project, id, e.cases)
	switch {
	case err != nil:
		return nil, "", err
	case target == nil:
		return nil, fmt.Sprintf("no case %s in this project", id), nil
	case target.id != id:
		return nil, fmt.Sprintf("case %s was merged into %s: change that one, or undo the merge", id, target.id), nil
	}
	return target, "", nil
}

// says makes what is said about a case part of the plan. Where a crash left
// the event half applied, what its record has counts.
func (e *editing) says(c *caseState, change func(*casesv1.CaseCuration)) {
	if e.record.GetAfter() == nil {
		e.record.Before = curatedOf(c)
		e.record.After = curatedOf(c)
		change(e.record.After)
	}
	e.said = append(e.said, proto.CloneOf(e.record.GetAfter()))
}

func (e *editing) planChange(ctx context.Context, p *curationv1.CaseChanged) (string, error) {
	c, refused, err := e.one(ctx, p.GetCaseId())
	if c == nil {
		return refused, err
	}
	e.says(c, func(said *casesv1.CaseCuration) {
		if p.Title != nil {
			said.Title = p.GetTitle()
		}
		if p.Assignee != nil {
			said.Assignee = p.GetAssignee()
		}
		if p.State != nil {
			said.State, said.SolvedAt = p.GetState(), nil
			if p.GetState() == stateSolved {
				said.SolvedAt = e.event.GetOccurredAt()
			}
		}
		if p.GetAnswer() != "" || p.GetClarification() != "" {
			setAnswer(said, e.event)
		}
	})
	return "", nil
}

func (e *editing) planSummary(ctx context.Context, p *curationv1.CaseSummarized) (string, error) {
	c, refused, err := e.one(ctx, p.GetCaseId())
	if c == nil {
		return refused, err
	}
	e.says(c, func(said *casesv1.CaseCuration) {
		said.TypicalTitle, said.Summary = p.GetTitle(), p.GetSummary()
		said.Summarized, said.SummarizedBy = p.GetNegatives(), p.GetBy()
	})
	return "", nil
}

// planMerge makes all members of one case members of another. The one that
// stays takes over an answer where it has none. What people put together, the
// pass does not split.
func (e *editing) planMerge(ctx context.Context, p *curationv1.CaseMerged) (string, error) {
	into, err := e.follow(ctx, e.project, p.GetIntoCaseId(), e.cases)
	if err != nil {
		return "", err
	}
	from, err := e.follow(ctx, e.project, p.GetCaseId(), e.cases)
	if err != nil {
		return "", err
	}
	half := e.record.GetAfter() != nil // a crash left it half applied
	switch first := e.cases[p.GetCaseId()]; {
	case into == nil:
		return fmt.Sprintf("no case %s in this project", p.GetIntoCaseId()), nil
	case from == nil:
		return fmt.Sprintf("no case %s in this project", p.GetCaseId()), nil
	case half:
		from, into = first, e.cases[e.record.GetAfter().GetCaseId()]
	case from.id != p.GetCaseId():
		return fmt.Sprintf("case %s was already merged into %s", p.GetCaseId(), from.id), nil
	case from == into:
		return fmt.Sprintf("case %s was merged into %s: it cannot be merged into itself", p.GetIntoCaseId(), from.id), nil
	case len(from.members)+len(into.members) > maxMembers:
		return fmt.Sprintf("both have %d signals together, a case at most %d", len(from.members)+len(into.members), maxMembers), nil
	}
	e.says(into, func(said *casesv1.CaseCuration) {
		if said.GetAnswer() == nil && from.curated.GetAnswer() != nil {
			said.Answer, said.State, said.SolvedAt = from.curated.GetAnswer(), from.curated.GetState(), from.curated.GetSolvedAt()
		}
		if p.GetBy() != passAuthor || slices.Contains(from.curated.GetApart(), from.id) {
			apart(said, into.id)
		}
	})
	gone := curatedOf(from)
	gone.MergedInto, gone.MergedBy = into.id, e.event.GetCurationId()
	e.said = append(e.said, gone)
	e.moves = []move{{from, into, e.moved(from.id)}}
	return "", nil
}

// planSplit makes some members of a case members of a new one. What people took
// apart, the pass does not merge, nor split once more.
func (e *editing) planSplit(ctx context.Context, p *curationv1.CaseSplit) (string, error) {
	from, refused, err := e.one(ctx, p.GetCaseId())
	if from == nil {
		return refused, err
	}
	byPeople := p.GetBy() != passAuthor
	wanted := map[string]bool{}
	for _, id := range p.GetSignalIds() {
		if _, ok := from.members[id]; ok {
			wanted[id] = true
		}
	}
	half := e.record.GetAfter() != nil
	switch {
	case p.GetNewCaseId() == "" || p.GetAnchor() == "":
		return "a split needs new_case_id and anchor", nil
	case len(wanted) == 0 && !half:
		return "none of the signals is in the case any more", nil
	case len(wanted) == len(from.members) && !half:
		return "all signals of the case would leave it", nil
	}
	taken, err := e.store.take(ctx, e.project, []string{p.GetNewCaseId()})
	if err != nil {
		return "", err
	}
	to := taken[p.GetNewCaseId()]
	if to == nil {
		to = newCase(p.GetNewCaseId(), e.project)
		vectors, err := e.embedder.Embed(ctx, []string{p.GetAnchor()})
		if err != nil {
			return "", fmt.Errorf("embed anchor: %w", err)
		}
		to.anchor, to.vector = p.GetAnchor(), vectors[0]
		// After a crash it has members, and no object of its own.
		if err := e.store.readMembers(ctx, e.project, []string{to.id}, map[string]*caseState{to.id: to}); err != nil {
			return "", err
		}
	}
	e.cases[to.id] = to
	e.says(to, func(said *casesv1.CaseCuration) {
		said.Title, said.Anchor = p.GetTitle(), p.GetAnchor()
		if byPeople {
			apart(said, from.id)
			apart(said, to.id)
		}
	})
	rest := curatedOf(from)
	if byPeople {
		apart(rest, to.id)
	}
	e.said = append(e.said, rest)
	add := e.moved(from.id)
	e.moves = []move{{from, to, func(x *casesv1.Exchange) ([]*casesv1.Move, bool) {
		moves, _ := add(x)
		return moves, wanted[x.GetPublished().GetSignal().GetSignalId()]
	}}}
	return "", nil
}

// planUndo takes an earlier event back.
func (e *editing) planUndo(ctx context.Context, p *curationv1.CaseEditUndone) (refused string, err error) {
	if e.undone, err = readEdit(ctx, e.store.index, e.project, p.GetUndoneId()); err != nil {
		return "", err
	}
	half := e.record.GetAfter() != nil
	switch {
	case e.undone == nil || e.undone.GetRefused() != "":
		return fmt.Sprintf("no change %s in this project", p.GetUndoneId()), nil
	case e.undone.GetUndoneBy() != "" && !half:
		return fmt.Sprintf("%s is already undone", p.GetUndoneId()), nil
	}
	switch u := e.undone.GetEvent().GetPayload().(type) {
	case *curationv1.CurationEvent_CaseChanged, *curationv1.CurationEvent_CaseSummarized:
		c, refused, err := e.one(ctx, editedCase(e.undone.GetEvent()))
		if c == nil {
			return refused, err
		}
		return e.restore(c, half), nil
	case *curationv1.CurationEvent_CaseMerged:
		return e.unmerge(ctx, u.CaseMerged, half)
	case *curationv1.CurationEvent_CaseSplit:
		return e.unsplit(ctx, u.CaseSplit)
	}
	return "an undo cannot be undone: make the change again", nil
}

// restore gives a case what was said of it before the undone event, as far as
// the event changed it.
func (e *editing) restore(c *caseState, half bool) (refused string) {
	before, after := e.undone.GetBefore(), e.undone.GetAfter()
	now := curatedOf(c)
	if !half && (changed(before.GetTitle(), after.GetTitle(), now.GetTitle()) ||
		changed(before.GetAssignee(), after.GetAssignee(), now.GetAssignee()) ||
		changed(before.GetState(), after.GetState(), now.GetState()) ||
		changed(before.GetAnswer().GetCurationId(), after.GetAnswer().GetCurationId(), now.GetAnswer().GetCurationId())) {
		return fmt.Sprintf("case %s was changed again since: undo %s first", c.id, now.GetLastEdit())
	}
	e.says(c, func(said *casesv1.CaseCuration) {
		back(&said.Title, before.GetTitle(), after.GetTitle())
		back(&said.Assignee, before.GetAssignee(), after.GetAssignee())
		back(&said.TypicalTitle, before.GetTypicalTitle(), after.GetTypicalTitle())
		back(&said.Summary, before.GetSummary(), after.GetSummary())
		if before.GetState() != after.GetState() || !proto.Equal(before.GetSolvedAt(), after.GetSolvedAt()) {
			said.State, said.SolvedAt = before.GetState(), before.GetSolvedAt()
		}
		if !proto.Equal(before.GetAnswer(), after.GetAnswer()) {
			said.Answer = before.GetAnswer()
		}
	})
	return ""
}

// changed says whether an event changed a value, and somebody else did since.
func changed(before, after, now string) bool { return before != after && now != after }

func back(value *string, before, after string) {
	if before != after {
		*value = before
	}
}

// unmerge gives a merged case back the signals that it had, and those that
// came near it since. The pass does not merge the two again.
func (e *editing) unmerge(ctx context.Context, p *curationv1.CaseMerged, half bool) (string, error) {
	into, err := e.follow(ctx, e.project, e.undone.GetAfter().GetCaseId(), e.cases)
	if err != nil || into == nil {
		return "the case is gone", err
	}
	if _, err := e.follow(ctx, e.project, p.GetCaseId(), e.cases); err != nil {
		return "", err
	}
	from := e.cases[p.GetCaseId()]
	if !half && from.curated.GetMergedBy() != editID(e.undone) {
		return fmt.Sprintf("case %s is not merged by it any more", from.id), nil
	}
	if into.id != e.undone.GetAfter().GetCaseId() {
		return fmt.Sprintf("case %s was merged into %s since: undo that first", e.undone.GetAfter().GetCaseId(), into.id), nil
	}
	if refused := e.restore(into, half); refused != "" {
		return refused, nil
	}
	whole := e.said[len(e.said)-1]
	if !slices.Contains(e.undone.GetBefore().GetApart(), into.id) {
		whole.Apart = slices.DeleteFunc(whole.Apart, func(id string) bool { return id == into.id }) // the pass may split it again
	}
	apart(whole, from.id)
	free := curatedOf(from)
	free.MergedInto, free.MergedBy = "", ""
	apart(free, into.id)
	e.said = append(e.said, free)
	e.moves = []move{{into, from, e.movedBack(from.id)}}
	return "", nil
}

// unsplit merges the new case of a split back into the old one, with what came
// to it since. A case that is apart from itself is not split by the pass again.
func (e *editing) unsplit(ctx context.Context, p *curationv1.CaseSplit) (string, error) {
	to, refused, err := e.one(ctx, p.GetCaseId())
	if to == nil {
		return refused, err
	}
	taken, err := e.store.take(ctx, e.project, []string{p.GetNewCaseId()})
	if err != nil {
		return "", err
	}
	from := taken[p.GetNewCaseId()]
	if from == nil {
		return fmt.Sprintf("no case %s in this project", p.GetNewCaseId()), nil
	}
	e.cases[from.id] = from
	if into := from.mergedInto(); into != "" && from.curated.GetMergedBy() != e.event.GetCurationId() {
		return fmt.Sprintf("case %s was merged into %s since: undo that first", from.id, into), nil
	}
	e.says(to, func(said *casesv1.CaseCuration) { apart(said, to.id) })
	gone := curatedOf(from)
	gone.MergedInto, gone.MergedBy = to.id, e.event.GetCurationId()
	e.said = append(e.said, gone)
	back, add := e.movedBack(to.id), e.moved(from.id)
	e.moves = []move{{from, to, func(x *casesv1.Exchange) ([]*casesv1.Move, bool) {
		if moves, ok := back(x); ok {
			return moves, true
		}
		return add(x)
	}}}
	return "", nil
}

func editID(r *casesv1.CaseEdit) string { return r.GetEvent().GetCurationId() }

func apart(said *casesv1.CaseCuration, from string) {
	if !slices.Contains(said.GetApart(), from) {
		said.Apart = append(said.Apart, from)
		said.Apart = said.Apart[max(0, len(said.Apart)-maxApart):]
	}
}

// moved picks every exchange.
func (e *editing) moved(from string) func(*casesv1.Exchange) ([]*casesv1.Move, bool) {
	return func(x *casesv1.Exchange) ([]*casesv1.Move, bool) {
		return appendMove(x.GetMoves(), &casesv1.Move{CurationId: e.event.GetCurationId(), FromCaseId: from}), true
	}
}

// movedBack picks those that the undone event moved last, out of a case.
func (e *editing) movedBack(to string) func(*casesv1.Exchange) ([]*casesv1.Move, bool) {
	return func(x *casesv1.Exchange) ([]*casesv1.Move, bool) {
		n := len(x.GetMoves())
		if n == 0 || x.GetMoves()[n-1].GetCurationId() != editID(e.undone) || x.GetMoves()[n-1].GetFromCaseId() != to {
			return nil, false
		}
		return x.GetMoves()[:n-1], true
	}
}

// move does the planned moves: the members in the index, as the cases then
// stand.
func (e *editing) move(ctx context.Context, touched map[string]bool) error {
	for _, m := range e.moves {
		objects, err := e.store.index.List(ctx, vector.Exchanges, e.project, vector.ListQuery{
			Filter: vector.In("case_id", m.from.id), Limit: vector.MaxResults, Vectors: true,
		})
		if err != nil {
			return fmt.Errorf("read members of case %s: %w", m.from.id, err)
		}
		type moving struct {
			exchange *casesv1.Exchange
			vector   []float32
		}
		var all []moving
		for _, o := range objects {
			x, err := decodeExchange(o)
			if err != nil {
				return err
			}
			moves, ok := m.pick(x)
			if memberCase(x) != m.from.id || !ok {
				continue
			}
			s := x.GetPublished().GetSignal()
			m.from.drop(s.GetSignalId())
			m.to.set(s.GetSignalId(), memberOf(s))
			x.Moves = moves
			all = append(all, moving{x, o.Vector})
		}
		for _, c := range []*caseState{m.from, m.to} {
			if len(all) > 0 || touched[c.id] && c.shown != e.event.GetCurationId() {
				c.touch()
			}
		}
		from, to := m.from.snapshot(), m.to.snapshot()
		var moved []vector.Object
		for _, one := range all {
			p := one.exchange.GetPublished()
			p.Case, p.Similarity = to, similarity(one.vector, m.to.vector)
			p.Founded = m.to.id == foundedBy(p.GetSignal())
			one.exchange.Left = []*casesv1.Case{from}
			o, err := exchangeObject(e.project, one.exchange, one.vector, e.embedder.Model())
			if err != nil {
				return err
			}
			moved = append(moved, o)
		}
		if err := e.store.index.Upsert(ctx, vector.Exchanges, e.project, moved); err != nil {
			return fmt.Errorf("move members of case %s: %w", m.from.id, err)
		}
		e.record.Moved += uint32(len(moved))
	}
	return nil
}

func readEdit(ctx context.Context, ix index, project, curationID string) (*casesv1.CaseEdit, error) {
	id := ids.UUID(project, curationID)
	objects, err := ix.Get(ctx, vector.Answers, project, []string{id}, false)
	if err != nil {
		return nil, fmt.Errorf("read change %s: %w", curationID, err)
	}
	o, ok := objects[id]
	if !ok {
		return nil, nil
	}
	r := &casesv1.CaseEdit{}
	if err := proto.Unmarshal(o.Payload, r); err != nil {
		return nil, fmt.Errorf("decode change %s: %w", curationID, err)
	}
	return r, nil
}

func (e *editing) writeEdit(ctx context.Context, r *casesv1.CaseEdit) error {
	return e.store.writeEdit(ctx, e.project, r)
}

func (s *store) writeEdit(ctx context.Context, project string, r *casesv1.CaseEdit) error {
	data, err := encode(r)
	if err != nil {
		return fmt.Errorf("encode change %s: %w", editID(r), err)
	}
	o := vector.Object{ID: ids.UUID(project, editID(r)), Payload: data, Properties: map[string]any{
		"case_id": editedCase(r.GetEvent()), "kind": "edit", "at": r.GetEvent().GetOccurredAt().AsTime().Truncate(time.Microsecond),
	}}
	if err := s.index.Upsert(ctx, vector.Answers, project, []vector.Object{o}); err != nil {
		return fmt.Errorf("write change %s: %w", editID(r), err)
	}
	return nil
}
