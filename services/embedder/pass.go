package embedder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	curationv1 "github.com/honeloop/hone/proto/gen/go/hone/curation/v1"

	"github.com/honeloop/hone/pkg/embedding"
	"github.com/honeloop/hone/pkg/ids"
	"github.com/honeloop/hone/pkg/projects"
	"github.com/honeloop/hone/pkg/vector"
)

const (
	passAuthor   = "hone"
	maxPassCases = 5000 // cases of a project that a pass looks at, largest first
	maxDirty     = 10_000

	splitBelow     = 0.01 // how far below the merge threshold the parts of a mixture lie
	splitSample    = 300  // signals of a case that are compared with each other
	maxParts       = 20   // that leave a case in one pass
	otherCategory  = 0.05 // more similarity for a merge where no category is shared
	summarizedFrom = 3    // negative signals
	summaryTexts   = 3
	typicalTexts   = 50 // that are looked for

	// A case that people work on is split where it is two problems beyond doubt:
	// so many negative signals in each part, so far below the merge threshold,
	// and each part so much more alike within.
	inHandMin   = 4
	inHandBelow = 0.15
	inHandGap   = 0.12
)

// pass looks, from time to time, at the cases of projects that got signals:
// doubles are merged, mixtures split, and cases that grew get words from their
// most typical members. All it finds goes to hone.curation, with ids that
// follow from what it does, so that several embedders may find the same.
type pass struct {
	index    index
	publish  appender
	projects *projects.Projects
	merge    float64 // mean similarity between the members of doubles
	log      *slog.Logger
	now      func() time.Time
	turn     func() bool // whether its model is in use; nil for always
	titles   *titles     // nil for words that are members' own

	mu    sync.Mutex
	dirty map[string]bool
	seen  map[string]map[string]uint64 // versions of cases at the last pass, by project
}

func newPass(ix index, publish appender, settings *projects.Projects, merge float64, log *slog.Logger) *pass {
	return &pass{index: ix, publish: publish, projects: settings, merge: merge, log: log, now: time.Now,
		dirty: map[string]bool{}, seen: map[string]map[string]uint64{}}
}

// mark says that a project got signals.
func (p *pass) mark(project string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.dirty) < maxDirty { // the others are marked by their next signal
		p.dirty[project] = true
	}
}

// run passes until ctx ends.
func (p *pass) run(ctx context.Context, interval time.Duration) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		if p.turn != nil && !p.turn() {
			continue
		}
		p.mu.Lock()
		dirty := p.dirty
		p.dirty = map[string]bool{}
		p.mu.Unlock()
		for _, project := range slices.Sorted(maps.Keys(dirty)) {
			if _, err := p.project(ctx, project); err != nil && ctx.Err() == nil {
				p.log.WarnContext(ctx, "the pass over cases failed; it is tried again", "project", project, "error", err)
				p.mark(project)
			}
		}
	}
}

// group is a case as the pass sees it.
type group struct {
	shown     *casesv1.Case
	said      *casesv1.CaseCuration
	mean      []float32 // of its negative members
	negatives int
}

// project makes one pass over a project, and says how many events came of it.
func (p *pass) project(ctx context.Context, project string) (int, error) {
	settings := p.projects.Settings(project).Cases
	groups, err := p.groups(ctx, project)
	if err != nil {
		return 0, err
	}
	seen := p.seen[project]
	now := make(map[string]uint64, len(groups))
	var changed []*group
	for _, g := range groups {
		id := g.shown.GetCaseId()
		if now[id] = g.shown.GetVersion(); seen[id] != now[id] {
			changed = append(changed, g)
		}
	}
	busy := map[string]bool{} // cases with another place for their members after this pass
	events, due, err := p.look(ctx, project, changed, settings)
	if err != nil {
		return 0, err
	}
	for _, e := range events {
		if e.GetCaseSplit() != nil {
			busy[editedCase(e)] = true
		}
	}
	if settings.MergeDoubles {
		events = append(events, p.doubles(project, groups, changed, busy)...)
	}
	if err := p.append(ctx, events...); err != nil {
		return 0, err
	}
	n := len(events)
	// The model's words come last: nothing else waits for them.
	for i, d := range due {
		id := d.group.shown.GetCaseId()
		if busy[id] {
			continue // its members are not those that were looked at any more
		}
		e := d.own
		if i < titlesPerPass {
			if e, err = p.titled(ctx, project, d); err != nil {
				return 0, err
			}
		}
		if e == nil || e.GetCaseSummarized().GetBy() == medoidAuthor {
			delete(now, id) // asked again by the next pass
			p.mark(project)
		}
		if e != nil {
			if err := p.append(ctx, e); err != nil {
				return 0, err
			}
			n++
		}
	}
	if len(p.seen) >= maxDirty {
		clear(p.seen)
	}
	p.seen[project] = now
	if n > 0 {
		p.mark(project) // until nothing is found
	}
	return n, nil
}

// append makes events durable.
func (p *pass) append(ctx context.Context, events ...*curationv1.CurationEvent) error {
	for _, e := range events {
		rec, err := curationRecord(e)
		if err != nil {
			return err
		}
		if err := p.publish(ctx, rec); err != nil {
			return fmt.Errorf("append what the pass found: %w", err)
		}
	}
	return nil
}

func (p *pass) event(project string, occurred time.Time, parts ...string) *curationv1.CurationEvent {
	return &curationv1.CurationEvent{
		ProjectId: project, OccurredAt: timestamppb.New(occurred),
		CurationId: ids.Derive("cu", append([]string{project, "pass"}, parts...)...),
	}
}

// groups reads the cases that stand for a problem.
func (p *pass) groups(ctx context.Context, project string) ([]*group, error) {
	objects, err := p.index.List(ctx, vector.Cases, project, vector.ListQuery{
		Filter: vector.In("state", stateNew, stateTriaged, stateInProgress, stateSolved, stateRegressed),
		SortBy: "negatives", Descending: true, Limit: maxPassCases,
	})
	if err != nil {
		return nil, fmt.Errorf("list cases: %w", err)
	}
	var groups []*group
	var names []string
	for _, o := range objects {
		c := &casesv1.Case{}
		if err := proto.Unmarshal(o.Payload, c); err != nil {
			return nil, fmt.Errorf("decode case %s: %w", o.ID, err)
		}
		groups, names = append(groups, &group{shown: c}), append(names, c.GetCaseId())
	}
	said, err := readCurated(ctx, p.index, project, names)
	if err != nil {
		return nil, err
	}
	for _, g := range groups {
		g.said = said[g.shown.GetCaseId()]
	}
	// Means of all are needed, members only of the changed ones: casesPerRead
	// cases at a time, so that few vectors are in memory.
	for chunk := range slices.Chunk(groups, casesPerRead) {
		members, err := p.members(ctx, project, chunk)
		if err != nil {
			return nil, err
		}
		for _, g := range chunk {
			own := members[g.shown.GetCaseId()]
			g.mean = meanOf(own)
			for _, m := range own {
				if m.negative {
					g.negatives++
				}
			}
			for i := range g.mean {
				g.mean[i] /= float32(g.negatives)
			}
		}
	}
	return slices.DeleteFunc(groups, func(g *group) bool { return g.negatives == 0 }), nil
}

// members reads the signals of cases, with their vectors.
func (p *pass) members(ctx context.Context, project string, groups []*group) (map[string][]placed, error) {
	var names []string
	for _, g := range groups {
		names = append(names, g.shown.GetCaseId())
	}
	objects, err := p.index.List(ctx, vector.Exchanges, project, vector.ListQuery{
		Filter: vector.In("case_id", names...), Limit: vector.MaxResults, Vectors: true,
	})
	if err != nil {
		return nil, fmt.Errorf("read members of cases: %w", err)
	}
	if len(objects) == vector.MaxResults && len(groups) > 1 {
		// Some may be missing: ask for half as many.
		out, err := p.members(ctx, project, groups[:len(groups)/2])
		if err != nil {
			return nil, err
		}
		more, err := p.members(ctx, project, groups[len(groups)/2:])
		maps.Copy(out, more)
		return out, err
	}
	out := map[string][]placed{}
	for _, o := range objects {
		e, err := decodeExchange(o)
		if err != nil {
			return nil, err
		}
		if m := placedOf(e, o.Vector); m.caseID != "" && len(m.vector) > 0 {
			out[m.caseID] = append(out[m.caseID], m)
		}
	}
	for _, own := range out {
		slices.SortFunc(own, func(a, b placed) int { return cmp.Compare(a.signalID, b.signalID) })
	}
	return out, nil
}

// untitled is a case that a model is to give words.
type untitled struct {
	group *group
	texts []string                  // its members' queries, most typical first
	own   *curationv1.CurationEvent // the words that it gets without the model; nil where it has such already
}

// look finds, in cases that changed, mixtures to split, and words. due are those
// whose words the model is to write.
func (p *pass) look(ctx context.Context, project string, changed []*group, settings projects.Cases) (events []*curationv1.CurationEvent, due []untitled, err error) {
	byModel := p.titles != nil && settings.ModelTitles
	wanted := slices.DeleteFunc(slices.Clone(changed), func(g *group) bool { return g.negatives < summarizedFrom })
	for chunk := range slices.Chunk(wanted, casesPerRead) {
		members, err := p.members(ctx, project, chunk)
		if err != nil {
			return nil, nil, err
		}
		for _, g := range chunk {
			own := members[g.shown.GetCaseId()]
			if settings.SplitMixtures && !slices.Contains(g.said.GetApart(), g.shown.GetCaseId()) {
				if apart := p.mixtures(project, g, own); len(apart) > 0 {
					events = append(events, apart...)
					continue
				}
			}
			texts := typical(g, own)
			var words *curationv1.CurationEvent
			if g.negatives >= 2*int(g.said.GetSummarized()) {
				words = p.summary(project, g, medoidAuthor, texts[0], strings.Join(texts[:min(summaryTexts, len(texts))], " / "))
			}
			switch {
			case byModel && (words != nil || cmp.Or(g.said.GetSummarizedBy(), medoidAuthor) == medoidAuthor):
				due = append(due, untitled{g, texts, words})
			case words != nil:
				events = append(events, words)
			}
		}
	}
	return events, due, nil
}

// mixtures splits off the parts of a case that are about something else. The
// part that has what the case is about stays.
func (p *pass) mixtures(project string, g *group, own []placed) []*curationv1.CurationEvent {
	own = slices.DeleteFunc(slices.Clone(own), func(m placed) bool { return !m.negative })
	inHand := g.said.GetTitle() != "" || g.said.GetAssignee() != "" || g.said.GetAnswer() != nil || !slices.Contains([]string{"", stateNew}, g.said.GetState())
	below := splitBelow
	if inHand {
		below = inHandBelow
	}
	all := parts(own, p.merge-below)
	stays := 0
	has := func(part []placed) bool {
		return slices.ContainsFunc(part, func(m placed) bool { return m.query == g.shown.GetAnchor() })
	}
	for i, part := range all[min(1, len(all)):] {
		if !has(all[stays]) && (has(part) || len(part) > len(all[stays])) {
			stays = i + 1
		}
	}
	var events []*curationv1.CurationEvent
	for i, leave := range all {
		if i == stays || inHand && !apartInHand(all[stays], leave) || len(events) == maxParts {
			continue
		}
		anchor := medoid(leave)
		var names []string
		for _, m := range leave[:min(len(leave), maxSplit)] {
			names = append(names, m.signalID)
		}
		slices.Sort(names)
		e := p.event(project, p.now(), append([]string{"split", g.shown.GetCaseId()}, names...)...)
		note := fmt.Sprintf("another problem: its signals are %.2f like the others", similarity(mean(leave), mean(all[stays])))
		e.Payload = splitEvent(project, e.GetCurationId(), g.shown.GetCaseId(), names, anchor.query, "", note, passAuthor)
		events = append(events, e)
	}
	return events
}

// apartInHand says whether two parts of a case that people work on are two
// problems beyond doubt.
func apartInHand(stay, leave []placed) bool {
	return len(stay) >= inHandMin && len(leave) >= inHandMin &&
		min(within(stay), within(leave))-similarity(mean(stay), mean(leave)) >= inHandGap
}

// parts joins the two parts whose members are on average most alike, beginning
// with each member alone, as long as those are at least so alike: the order in
// which signals came has no effect. Of a large case a sample is compared; the
// others follow the part that is most like them.
func parts(own []placed, alike float64) [][]placed {
	sample := own[:min(len(own), splitSample)]
	all := make([][]placed, len(sample))
	sums := make([][]float64, len(sample)) // of similarities between the members of two parts
	for i, m := range sample {
		all[i], sums[i] = []placed{m}, make([]float64, len(sample))
		for j := range i {
			sums[i][j] = similarity(m.vector, sample[j].vector)
			sums[j][i] = sums[i][j]
		}
	}
	for {
		from, into, top := 0, 0, alike
		for i := range all {
			for j := range i {
				if near := sums[i][j] / float64(len(all[i])*len(all[j])); near >= top && (from == 0 || near > top) {
					from, into, top = i, j, near
				}
			}
		}
		if from == 0 {
			break
		}
		all[into] = append(all[into], all[from]...)
		for k := range all {
			sums[into][k] += sums[from][k]
			sums[k][into] = sums[into][k]
		}
		last := len(all) - 1
		all[from], sums[from] = all[last], sums[last]
		for k := range all {
			sums[k][from] = sums[k][last]
		}
		all, sums = all[:last], sums[:last]
	}
	if len(all) > 1 {
		means := make([][]float32, len(all))
		for i, part := range all {
			means[i] = mean(part)
		}
		for _, m := range own[len(sample):] {
			best := 0
			for i := range means {
				if similarity(m.vector, means[i]) > similarity(m.vector, means[best]) {
					best = i
				}
			}
			all[best] = append(all[best], m)
		}
	}
	return all
}

// typical are the queries of a case's negative members, each once, most typical
// first.
func typical(g *group, own []placed) []string {
	negatives := slices.DeleteFunc(slices.Clone(own), func(m placed) bool { return !m.negative })
	slices.SortStableFunc(negatives, func(a, b placed) int {
		return cmp.Compare(similarity(b.vector, g.mean), similarity(a.vector, g.mean))
	})
	var texts []string
	for _, m := range negatives {
		if q := shorten(strings.Join(strings.Fields(m.query), " "), maxShort); len(texts) < typicalTexts && !slices.Contains(texts, q) {
			texts = append(texts, q)
		}
	}
	return texts
}

// summary gives a case its words: of the most typical queries, the first as
// title; or those that a model wrote.
func (p *pass) summary(project string, g *group, by, title, summary string, seen ...string) *curationv1.CurationEvent {
	parts := []string{"summary", g.shown.GetCaseId(), fmt.Sprint(g.negatives), summary}
	if len(seen) > 0 {
		// A model may write other words the next time: what it saw tells requests apart.
		parts = append([]string{"summary", g.shown.GetCaseId(), fmt.Sprint(g.negatives), by}, seen...)
	}
	e := p.event(project, p.now(), parts...)
	e.Payload = &curationv1.CurationEvent_CaseSummarized{CaseSummarized: &curationv1.CaseSummarized{
		CaseId: g.shown.GetCaseId(), Title: title, Summary: summary, Negatives: uint32(g.negatives), By: by,
	}}
	return e
}

// titled asks the model for a case's words; where it has none to give, they are
// the members' own. The error is that of ctx.
func (p *pass) titled(ctx context.Context, project string, d untitled) (*curationv1.CurationEvent, error) {
	shown := titlesInput{Questions: d.texts[:min(p.titles.cfg.Members, len(d.texts))]}
	for i := range shown.Questions {
		shown.Questions[i] = oneLine(shown.Questions[i], maxShort)
	}
	for _, c := range d.group.shown.GetComplaints() {
		shown.Complaints = append(shown.Complaints, oneLine(c, maxShort))
	}
	id := d.group.shown.GetCaseId()
	title, summary, err := p.titles.write(ctx, project+"/"+id, shown)
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil:
		if r, ok := errors.AsType[refusal](err); ok && r != errTitlesWait && r != errTitlesLimit {
			p.log.WarnContext(ctx, "the model gave a case no title; it is asked again later", "project", project, "case", id, "reason", err.Error())
		}
		return d.own, nil
	}
	return p.summary(project, d.group, p.titles.author, title, summary, append(shown.Questions, shown.Complaints...)...), nil
}

// doubles merges pairs of cases of which each is the other's nearest, and
// whose members are on average as alike as those of one case. A case takes part
// in one change of a pass.
func (p *pass) doubles(project string, groups, changed []*group, busy map[string]bool) []*curationv1.CurationEvent {
	nearest := func(g *group) (*group, float64) {
		var best *group
		var top float64
		for _, o := range groups {
			if o == g || !mergeable(g, o) {
				continue
			}
			near := similarity(g.mean, o.mean)
			if !shareCategory(g.shown, o.shown) {
				near -= otherCategory
			}
			if best == nil || near > top {
				best, top = o, near
			}
		}
		return best, top
	}
	type pair struct {
		from, into *group
		near       float64
	}
	var pairs []pair
	for _, g := range changed {
		o, near := nearest(g)
		if o == nil || near < p.merge {
			continue
		}
		if back, _ := nearest(o); back != g {
			continue
		}
		from, into := g, o
		if larger(g, o) {
			from, into = o, g
		}
		pairs = append(pairs, pair{from, into, near})
	}
	slices.SortFunc(pairs, func(a, b pair) int {
		return cmp.Or(cmp.Compare(b.near, a.near), cmp.Compare(a.from.shown.GetCaseId(), b.from.shown.GetCaseId()))
	})
	var events []*curationv1.CurationEvent
	for _, m := range pairs {
		from, into := m.from.shown.GetCaseId(), m.into.shown.GetCaseId()
		if busy[from] || busy[into] {
			continue
		}
		busy[from], busy[into] = true, true
		e := p.event(project, p.now(), "merge", from, into)
		e.Payload = &curationv1.CurationEvent_CaseMerged{CaseMerged: &curationv1.CaseMerged{
			CaseId: from, IntoCaseId: into, By: passAuthor,
			Note: fmt.Sprintf("the same problem: their signals are %.2f alike", m.near),
		}}
		events = append(events, e)
	}
	return events
}

// mergeable says whether nobody keeps two cases apart: by undoing their merge,
// or by giving each another answer.
func mergeable(a, b *group) bool {
	if slices.Contains(a.said.GetApart(), b.shown.GetCaseId()) || slices.Contains(b.said.GetApart(), a.shown.GetCaseId()) {
		return false
	}
	return a.said.GetAnswer() == nil || b.said.GetAnswer() == nil || a.shown.GetApprovedAnswer() == b.shown.GetApprovedAnswer()
}

// shareCategory is also true where one has none.
func shareCategory(a, b *casesv1.Case) bool {
	if len(a.GetCategories()) == 0 || len(b.GetCategories()) == 0 {
		return true
	}
	for name := range a.GetCategories() {
		if _, ok := b.GetCategories()[name]; ok {
			return true
		}
	}
	return false
}

// larger says which of two cases stays: the one with more negative signals, or
// else the older one.
func larger(a, b *group) bool {
	return cmp.Or(cmp.Compare(a.negatives, b.negatives), b.shown.GetFirstSeen().AsTime().Compare(a.shown.GetFirstSeen().AsTime()),
		cmp.Compare(b.shown.GetCaseId(), a.shown.GetCaseId())) > 0
}

func mean(members []placed) []float32 {
	m := make([]float32, len(members[0].vector))
	for _, one := range members {
		for i, x := range one.vector {
			m[i] += x / float32(len(members))
		}
	}
	return m
}

// within is the mean similarity of two different members.
func within(members []placed) float64 {
	m, n := mean(members), float64(len(members))
	return (embedding.Similarity(m, m)*n - 1) / (n - 1)
}
