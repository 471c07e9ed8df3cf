package embedder

import (
	"context"
	"fmt"
	"maps"
	"slices"

	"google.golang.org/protobuf/proto"

	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"

	"github.com/honeloop/hone/pkg/ids"
	"github.com/honeloop/hone/pkg/vector"
)

// forget takes what an erased signal said out of the cases that it was in: the
// query that stands for a case gives way to another member's, and what was written
// from the members goes. What people said in their own words stays. It returns the
// cases that changed.
//
// What is stored of that elsewhere waits for forgetStored.
func (a *assignment) forget(ctx context.Context, s *signalv1.Signal, last *casesv1.Exchange) ([]*caseState, error) {
	from := quotedBy(s, last)
	var said quotes
	if b := last.GetPublished().GetSignal(); b != nil {
		said = quotes{b.GetInteraction().GetQuery(), shorten(b.GetInteraction().GetQuery(), maxShort), b.GetComment()}
	}
	var touched []*caseState
	for _, id := range from {
		c, err := a.load1(ctx, id)
		if err != nil {
			return nil, err
		}
		if c == nil {
			continue
		}
		c.drop(s.GetSignalId())
		if err := a.replaceAnchor(ctx, c, said); err != nil {
			return nil, err
		}
		if c.curated != nil {
			c.curated = proto.CloneOf(c.curated)
			c.curated.TypicalTitle, c.curated.Summary, c.curated.Summarized = "", "", 0
			if said.has(c.curated.Anchor) {
				c.curated.Anchor = c.anchor
			}
			if err := a.store.writeCurated(ctx, a.project, c.curated); err != nil {
				return nil, err
			}
		}
		c.touch()
		touched = append(touched, c)
	}
	for _, id := range from {
		a.forgotten[id] = append(a.forgotten[id], said...)
	}
	for id, e := range a.known {
		if a.wrote[id] != nil && said.in(e.GetPublished().GetCase()) {
			e.Published.Case = withoutTexts(e.Published.Case)
		}
	}
	return touched, nil
}

// quotedBy are the cases that a signal may have left words in.
func quotedBy(s *signalv1.Signal, last *casesv1.Exchange) []string {
	from := []string{foundedBy(s)}
	if id := last.GetPublished().GetCase().GetCaseId(); id != "" {
		from = append(from, id)
	}
	for _, m := range last.GetMoves() {
		from = append(from, m.GetFromCaseId())
	}
	slices.Sort(from)
	return slices.Compact(from)
}

// forgetStored takes what the batch's erased signals said out of changes of their
// cases and out of other members. It reads each case once, and so many at a time
// that one list has all of them.
func (a *assignment) forgetStored(ctx context.Context) error {
	for names := slices.Sorted(maps.Keys(a.forgotten)); len(names) > 0; {
		n, members := 0, 0
		for n < len(names) && n < casesPerRead {
			c := a.cases[names[n]]
			if c != nil && n > 0 && members+len(c.members) > membersPerRead {
				break
			}
			if c != nil {
				members += len(c.members)
			}
			n++
		}
		var said quotes
		for _, id := range names[:n] {
			said = append(said, a.forgotten[id]...)
		}
		if err := a.forgetEdits(ctx, names[:n], said); err != nil {
			return err
		}
		if err := a.forgetSnapshots(ctx, names[:n]); err != nil {
			return err
		}
		names = names[n:]
	}
	return nil
}

// quotes are the texts of an erased signal.
type quotes []string

func (q quotes) has(text string) bool { return text != "" && slices.Contains(q, text) }

func (q quotes) in(c *casesv1.Case) bool {
	return q.has(c.GetAnchor()) || q.has(c.GetTitle()) || c.GetSummary() != "" ||
		slices.ContainsFunc(c.GetExamples(), q.has) || slices.ContainsFunc(c.GetComplaints(), q.has)
}

// replaceAnchor takes the newest query of the other members. One who asked the
// same stands for it as well.
func (a *assignment) replaceAnchor(ctx context.Context, c *caseState, gone quotes) error {
	if !gone.has(c.anchor) {
		return nil
	}
	var best said
	for id, m := range c.members {
		if m.polarity != negative || m.query == "" {
			continue
		}
		if gone.has(m.query) {
			return nil
		}
		if one := (said{m.query, m.at, id}); best.text == "" || later(one, best) < 0 {
			best = one
		}
	}
	c.anchor, c.vector = best.text, nil
	if into := a.resolve(c); best.text == "" && into != nil && into != c {
		c.vector = into.vector // it still leads there
	}
	if best.text == "" {
		return nil
	}
	vectors, err := a.embedder.Embed(ctx, []string{best.text})
	if err != nil {
		return fmt.Errorf("embed anchor: %w", err)
	}
	c.vector = vectors[0]
	return nil
}

// forgetEdits takes titles and summaries of the members' words out of what is
// kept of changes.
func (a *assignment) forgetEdits(ctx context.Context, caseIDs []string, said quotes) error {
	objects, err := a.store.index.List(ctx, vector.Answers, a.project, vector.ListQuery{Filter: vector.In("case_id", caseIDs...), Limit: vector.MaxResults})
	if err != nil {
		return fmt.Errorf("read changes of cases: %w", err)
	}
	for _, o := range objects {
		r := &casesv1.CaseEdit{}
		if err := proto.Unmarshal(o.Payload, r); err != nil || o.ID != ids.UUID(a.project, editID(r)) {
			continue // what is said about a case, or a review
		}
		for _, half := range []*casesv1.CaseCuration{r.GetBefore(), r.GetAfter()} {
			if half == nil {
				continue
			}
			half.TypicalTitle, half.Summary = "", ""
			if said.has(half.Anchor) {
				half.Anchor = ""
			}
		}
		if p := r.GetEvent().GetCaseSummarized(); p != nil {
			p.Title, p.Summary = "", ""
		}
		if p := r.GetEvent().GetCaseSplit(); p != nil && said.has(p.Anchor) {
			p.Anchor = ""
		}
		if err := a.store.writeEdit(ctx, a.project, r); err != nil {
			return err
		}
	}
	return nil
}

// forgetSnapshots takes the texts out of what the other members of cases remember
// of them as they stood. A later version of the case has been published by then.
func (a *assignment) forgetSnapshots(ctx context.Context, caseIDs []string) error {
	objects, err := a.store.index.List(ctx, vector.Exchanges, a.project, vector.ListQuery{
		Filter: vector.In("case_id", caseIDs...), Limit: vector.MaxResults, Vectors: true})
	if err != nil {
		return fmt.Errorf("read members of cases: %w", err)
	}
	var out []vector.Object
	for _, o := range objects {
		e, err := decodeExchange(o)
		if err != nil {
			return err
		}
		id := e.GetPublished().GetSignal().GetSignalId()
		if a.wrote[id] != nil || !a.forgotten[memberCase(e)].in(e.GetPublished().GetCase()) {
			continue
		}
		e.Published.Case = withoutTexts(e.Published.Case)
		if known := a.known[id]; known != nil {
			known.Published.Case = e.Published.Case
		}
		changed, err := exchangeObject(a.project, e, o.Vector, a.embedder.Model())
		if err != nil {
			return err
		}
		out = append(out, changed)
	}
	if err := a.store.index.Upsert(ctx, vector.Exchanges, a.project, out); err != nil {
		return fmt.Errorf("write members of cases: %w", err)
	}
	return nil
}

// erasedExchange is what is left of an erased signal: its id and revision, which
// keep an earlier revision that comes again from being taken for a new signal.
func erasedExchange(s *signalv1.Signal, c *casesv1.Case, left []*casesv1.Case) *casesv1.Exchange {
	return &casesv1.Exchange{Left: left, Published: &casesv1.CaseSignal{Case: c, Signal: &signalv1.Signal{
		SignalId: s.GetSignalId(), ProjectId: s.GetProjectId(), Revision: s.GetRevision(), Withdrawn: true, Erased: true}}}
}

// checkErased reads erased exchanges back.
func (a *assignment) checkErased(ctx context.Context) error {
	var erased []string
	for id, t := range a.wrote {
		if t.signal.GetErased() {
			erased = append(erased, id)
		}
	}
	if len(erased) == 0 {
		return nil
	}
	objects, err := a.store.index.Get(ctx, vector.Exchanges, a.project, uuids(a.project, erased), true)
	if err != nil {
		return fmt.Errorf("read erased exchanges back: %w", err)
	}
	for _, id := range erased {
		o, ok := objects[ids.UUID(a.project, id)]
		e, err := decodeExchange(o)
		if err != nil {
			return err
		}
		if !ok || !e.GetPublished().GetSignal().GetErased() || len(o.Vector) > 0 {
			return fmt.Errorf("the exchange of erased signal %s is still there", id)
		}
	}
	return nil
}

// withoutTexts is a case without what its members said.
func withoutTexts(c *casesv1.Case) *casesv1.Case {
	if c == nil {
		return nil
	}
	c = proto.CloneOf(c)
	c.Title, c.Summary, c.Complaints, c.Examples, c.Anchor = "", "", nil, nil, ""
	return c
}
