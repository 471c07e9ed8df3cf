package embedder

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	curationv1 "github.com/honeloop/hone/proto/gen/go/hone/curation/v1"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"

	"github.com/honeloop/hone/pkg/vector"
)

// Polarities and states, as in the schemas.
const (
	positive = "positive"
	negative = "negative"
	neutral  = "neutral"

	stateNew       = "new"
	stateSolved    = "solved"
	stateWithdrawn = "withdrawn"
)

const (
	// A case is summed up from all its members, which one search of the index
	// must be able to return.
	maxMembers = vector.MaxResults

	maxQuery   = 2000 // code points of a query that are embedded and stored
	maxShort   = 280  // code points of a title, an example, a complaint
	maxNewest  = 5    // complaints, and examples, of a case
	maxCounted = 50   // categories, and model versions, that a case names
)

// member is what a case knows of one of its signals.
type member struct {
	polarity, severity   string
	user, session, model string
	categories           []string
	at                   time.Time
	comment, query       string
}

func memberOf(s *signalv1.Signal) member {
	return member{
		polarity: s.GetPolarity(), severity: s.GetSeverity(),
		user: s.GetUserId(), session: s.GetSessionId(),
		model:      cmp.Or(s.GetInteraction().GetModelVersion(), s.GetInteraction().GetModel()),
		categories: s.GetCategories(),
		at:         s.GetOccurredAt().AsTime(),
		comment:    shorten(s.GetComment(), maxShort),
		query:      shorten(s.GetInteraction().GetQuery(), maxShort),
	}
}

// reduced is the part of a signal that is stored with its exchange: what its
// case is summed up from, and what says whether its text changed.
func reduced(s *signalv1.Signal) *signalv1.Signal {
	return &signalv1.Signal{
		SignalId: s.GetSignalId(), ProjectId: s.GetProjectId(), SessionId: s.GetSessionId(), InteractionId: s.GetInteractionId(),
		UserId: s.GetUserId(), Kind: s.GetKind(), Revision: s.GetRevision(), Withdrawn: s.GetWithdrawn(),
		Polarity: s.GetPolarity(), Category: s.GetCategory(), Categories: s.GetCategories(), Severity: s.GetSeverity(),
		Comment: shorten(s.GetComment(), maxShort), OccurredAt: s.GetOccurredAt(),
		Interaction: &eventv1.Interaction{
			Query: queryText(s), Model: s.GetInteraction().GetModel(), ModelVersion: s.GetInteraction().GetModelVersion(),
		},
	}
}

// queryText is what is embedded of a signal; empty where it has no query.
func queryText(s *signalv1.Signal) string {
	return shorten(strings.TrimSpace(s.GetInteraction().GetQuery()), maxQuery)
}

// shorten cuts text to at most limit code points, the last of which then is an
// ellipsis.
func shorten(text string, limit int) string {
	n := 0
	cut := 0
	for i := range text {
		if n == limit-1 {
			cut = i
		}
		if n++; n > limit {
			return strings.TrimSpace(text[:cut]) + "…"
		}
	}
	return text
}

// caseState is a case with all its members. What it shows is a pure function
// of the members, so that no count can drift.
type caseState struct {
	id, project, title string
	vector             []float32 // of the founder's query; kept when the founder leaves
	version            uint64
	members            map[string]member // by signal id
	counts             map[counted]int   // of members, so that a large case need not be counted anew
	first, last        time.Time         // of negative members; as they last were where there are none
	answer             *curationv1.CurationEvent
	shown              string // the review whose answer the stored case shows

	changed  bool
	loadedAt time.Time
}

// counted is something that members have in common.
type counted struct{ what, value string }

func newCase(id, project string) *caseState {
	return &caseState{
		id: id, project: project, members: map[string]member{}, counts: map[counted]int{}, loadedAt: time.Now(),
	}
}

// alive says whether the case is a problem that somebody still reports.
func (c *caseState) alive() bool { return c.counts[counted{"polarity", negative}] > 0 }

// full says whether the case takes no more members.
func (c *caseState) full() bool { return len(c.members) >= maxMembers }

func (c *caseState) set(signalID string, m member) {
	c.drop(signalID)
	c.members[signalID] = m
	c.count(m, 1)
}

func (c *caseState) drop(signalID string) {
	if old, ok := c.members[signalID]; ok {
		delete(c.members, signalID)
		c.count(old, -1)
	}
}

func (c *caseState) count(m member, by int) {
	add := func(what, value string) {
		if value == "" {
			return
		}
		key := counted{what, value}
		if c.counts[key] += by; c.counts[key] == 0 {
			delete(c.counts, key)
		}
	}
	add("polarity", m.polarity)
	add("severity", m.severity)
	add("user", m.user)
	add("session", m.session)
	add("model", m.model)
	for _, category := range m.categories {
		add("category", category)
	}
}

// touch makes the next snapshot a newer one.
func (c *caseState) touch() {
	c.version++
	c.changed = true
}

// saw takes the times of a stored case.
func (c *caseState) saw(stored *casesv1.Case) {
	if stored.GetFirstSeen() != nil {
		c.first, c.last = stored.GetFirstSeen().AsTime(), stored.GetLastSeen().AsTime()
	}
}

// snapshot is the case as it stands.
func (c *caseState) snapshot() *casesv1.Case {
	out := &casesv1.Case{CaseId: c.id, ProjectId: c.project, Title: c.title, Version: c.version, State: stateNew}
	categories, models := map[string]uint32{}, map[string]uint32{}
	for k, n := range c.counts {
		switch k.what {
		case "polarity":
			switch k.value {
			case negative:
				out.Negatives = uint32(n)
			case positive:
				out.Positives = uint32(n)
			}
		case "severity":
			if severities[k.value] > severities[out.Severity] {
				out.Severity = k.value
			}
		case "user":
			out.Users++
		case "session":
			out.Sessions++
		case "model":
			models[k.value] = uint32(n)
		case "category":
			categories[k.value] = uint32(n)
		}
	}
	out.Categories, out.ModelVersions = most(categories), most(models)

	var complaints, examples newest
	if c.alive() {
		c.first, c.last = time.Time{}, time.Time{}
	}
	for id, m := range c.members {
		if m.polarity != negative {
			continue
		}
		complaints.add(m.comment, m.at, id)
		examples.add(m.query, m.at, id)
		if c.first.IsZero() || m.at.Before(c.first) {
			c.first = m.at
		}
		if c.last.IsZero() || m.at.After(c.last) {
			c.last = m.at
		}
	}
	out.Complaints, out.Examples = complaints.texts(), examples.texts()
	if !c.first.IsZero() {
		out.FirstSeen, out.LastSeen = timestamppb.New(c.first), timestamppb.New(c.last)
	}
	applyAnswer(out, c.answer)
	return out
}

// applyAnswer puts what a reviewer approved into a case, and sets its state.
func applyAnswer(c *casesv1.Case, answer *curationv1.CurationEvent) {
	if d := answer.GetReviewDecided(); d != nil {
		c.State = stateSolved
		c.ApprovedAnswer, c.Clarification = d.GetAnswer(), d.GetClarification()
		c.ApprovedBy, c.ReviewId = d.GetReviewer(), d.GetReviewId()
		c.ApprovedAt = d.GetDecidedAt()
		if c.ApprovedAt == nil {
			c.ApprovedAt = answer.GetOccurredAt()
		}
	}
	if c.GetNegatives() == 0 {
		c.State = stateWithdrawn
	}
}

var severities = map[string]int{"low": 1, "medium": 2, "high": 3, "critical": 4}

// most keeps the largest counts, maxCounted of them.
func most(counts map[string]uint32) map[string]uint32 {
	if len(counts) <= maxCounted {
		return counts
	}
	keys := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	for _, k := range keys[maxCounted:] {
		delete(counts, k)
	}
	return counts
}

// newest keeps the maxNewest texts that were said last, each once.
type newest []said

type said struct {
	text string
	at   time.Time
	id   string
}

func later(a, b said) int { return cmp.Or(b.at.Compare(a.at), cmp.Compare(a.id, b.id)) }

func (n *newest) add(text string, at time.Time, id string) {
	if text == "" {
		return
	}
	s := said{text, at, id}
	if len(*n) == maxNewest && later(s, (*n)[maxNewest-1]) > 0 {
		return
	}
	if i := slices.IndexFunc(*n, func(o said) bool { return o.text == text }); i >= 0 {
		if later(s, (*n)[i]) >= 0 {
			return
		}
		*n = slices.Delete(*n, i, i+1)
	}
	i, _ := slices.BinarySearchFunc(*n, s, later)
	if i < maxNewest {
		*n = slices.Insert(*n, i, s)
		*n = (*n)[:min(len(*n), maxNewest)]
	}
}

func (n newest) texts() []string {
	var texts []string
	for _, s := range n {
		texts = append(texts, s.text)
	}
	return texts
}
