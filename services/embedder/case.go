package embedder

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"

	"github.com/honeloop/hone/pkg/vector"
)

// Polarities and states, as in the schemas.
const (
	positive = "positive"
	negative = "negative"
	neutral  = "neutral"

	// What people say about a case.
	stateNew        = "new"
	stateTriaged    = "triaged"
	stateInProgress = "in_progress"
	stateSolved     = "solved"
	stateMuted      = "muted"
	// What follows from its signals.
	stateRegressed = "regressed"
	stateWithdrawn = "withdrawn"
	stateMerged    = "merged"
)

// saidStates are those that people choose from.
func saidStates() []string {
	return []string{stateNew, stateTriaged, stateInProgress, stateSolved, stateMuted}
}

// recallable says whether a case in a state is told at inference time.
func recallable(state string) bool {
	return state != stateMuted && state != stateWithdrawn && state != stateMerged
}

const (
	// A case is summed up from all its members, which one search of the index
	// must be able to return.
	maxMembers = vector.MaxResults

	maxQuery   = 2000 // code points of a query that are embedded and stored
	maxShort   = 280  // code points of a title, an example, a complaint
	maxNewest  = 5    // complaints, and examples, of a case
	maxCounted = 50   // categories, and model versions, that a case names
	maxDays    = 14   // days that a case counts
	maxMoves   = 10   // merges and splits that an exchange remembers
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
	r := &signalv1.Signal{
		SignalId: s.GetSignalId(), ProjectId: s.GetProjectId(), SessionId: s.GetSessionId(), InteractionId: s.GetInteractionId(),
		UserId: s.GetUserId(), Kind: s.GetKind(), Revision: s.GetRevision(), Withdrawn: s.GetWithdrawn(),
		Polarity: s.GetPolarity(), Category: s.GetCategory(), Categories: s.GetCategories(), Severity: s.GetSeverity(),
		Comment: shorten(s.GetComment(), maxShort), OccurredAt: s.GetOccurredAt(),
		Confidence: s.GetConfidence(), Dissatisfaction: s.Dissatisfaction, Environment: s.GetEnvironment(), Tags: s.GetTags(),
		Interaction: &eventv1.Interaction{
			Query: queryText(s), Model: s.GetInteraction().GetModel(), ModelVersion: s.GetInteraction().GetModelVersion(),
			PromptVersion: s.GetInteraction().GetPromptVersion(), Language: s.GetInteraction().GetLanguage(),
		},
	}
	if s.GetPolarity() == positive { // Recall may show it
		r.Interaction.Output = shorten(s.GetInteraction().GetOutput(), maxAnswer)
	}
	return r
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
	id, project string
	anchor      string    // the founder's query, kept when the founder leaves
	vector      []float32 // of anchor
	version     uint64
	members     map[string]member // by signal id
	counts      map[counted]int   // of members, so that a large case need not be counted anew
	first, last time.Time         // of negative members; as they last were where there are none
	curated     *casesv1.CaseCuration
	shown       string // the last edit that the stored case shows

	changed   bool
	stored    uint64 // stands for what the index had of it when it was read or written
	loadedAt  time.Time
	checkedAt time.Time // stored was so
}

// counted is something that members have in common.
type counted struct{ what, value string }

func newCase(id, project string) *caseState {
	now := time.Now()
	return &caseState{
		id: id, project: project, members: map[string]member{}, counts: map[counted]int{}, loadedAt: now, checkedAt: now,
	}
}

// alive says whether the case is a problem that somebody still reports.
func (c *caseState) alive() bool { return c.counts[counted{"polarity", negative}] > 0 }

// full says whether the case takes no more members.
func (c *caseState) full() bool { return len(c.members) >= maxMembers }

// mergedInto is the case that this one's signals went to; mostly empty.
func (c *caseState) mergedInto() string { return c.curated.GetMergedInto() }

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
	if m.polarity == negative {
		add("day", m.at.UTC().Format(time.DateOnly))
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
	out := &casesv1.Case{CaseId: c.id, ProjectId: c.project, Anchor: c.anchor, Version: c.version}
	categories, models, days := map[string]uint32{}, map[string]uint32{}, map[string]uint32{}
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
		case "day":
			days[k.value] = uint32(n)
		}
	}
	out.Categories, out.ModelVersions = most(categories), most(models)
	out.Trend = trend(days)
	out.Days = newestDays(days)

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
	applyCuration(out, c.curated)
	return out
}

// applyCuration puts what people said into a case, and sets its state.
func applyCuration(c *casesv1.Case, said *casesv1.CaseCuration) {
	c.Title = cmp.Or(said.GetTitle(), said.GetTypicalTitle(), shorten(c.GetAnchor(), maxShort))
	c.Summary, c.Assignee, c.MergedInto, c.LastEdit = said.GetSummary(), said.GetAssignee(), said.GetMergedInto(), said.GetLastEdit()
	c.ApprovedAnswer, c.Clarification, c.ApprovedBy, c.ApprovedAt, c.ReviewId = "", "", "", nil, ""
	if a := said.GetAnswer(); a != nil {
		c.ApprovedAt = a.GetOccurredAt()
		if d := a.GetReviewDecided(); d != nil {
			c.ApprovedAnswer, c.Clarification, c.ApprovedBy, c.ReviewId = d.GetAnswer(), d.GetClarification(), d.GetReviewer(), d.GetReviewId()
			c.ApprovedAt = cmp.Or(d.GetDecidedAt(), c.ApprovedAt)
		} else {
			d := a.GetCaseChanged()
			c.ApprovedAnswer, c.Clarification, c.ApprovedBy = d.GetAnswer(), d.GetClarification(), d.GetBy()
		}
	}
	c.State = cmp.Or(said.GetState(), stateNew)
	switch {
	case c.GetMergedInto() != "":
		c.State = stateMerged
	case c.GetNegatives() == 0:
		c.State = stateWithdrawn
	case c.State == stateSolved && c.GetLastSeen().AsTime().After(said.GetSolvedAt().AsTime()):
		c.State = stateRegressed
	}
}

// newestDays are the newest maxDays of days.
func newestDays(days map[string]uint32) map[string]uint32 {
	if len(days) <= maxDays {
		return days
	}
	out := map[string]uint32{}
	all := slices.Sorted(maps.Keys(days))
	for _, day := range all[len(all)-maxDays:] {
		out[day] = days[day]
	}
	return out
}

// trend compares the week up to the newest day with the week before.
func trend(days map[string]uint32) string {
	var newest time.Time
	at := make(map[time.Time]uint32, len(days))
	for day, n := range days {
		t, err := time.Parse(time.DateOnly, day)
		if err != nil {
			continue // not a year of four digits
		}
		at[t] = n
		if t.After(newest) {
			newest = t
		}
	}
	var recent, before uint32
	for i := range 7 {
		recent += at[newest.AddDate(0, 0, -i)]
		before += at[newest.AddDate(0, 0, -7-i)]
	}
	switch {
	case recent == 0:
		return ""
	case recent >= 3 && recent >= 2*before:
		return "rising"
	case before >= 2*recent:
		return "falling"
	}
	return "steady"
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
