package router

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/ext"
	"golang.org/x/sync/errgroup"

	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"
)

// The windows of counted facts. They are counted in full hours, so that a case
// with very many signals is read as a few hundred numbers.
const (
	dayWindow  = 24 * time.Hour
	weekWindow = 7 * 24 * time.Hour
)

// What signals are counted by.
const (
	byCase    = "case_id"
	byUser    = "user_id"
	bySession = "session_id"
)

// countKey is what some signals have in common.
type countKey struct{ project, by, id string }

// tally counts current decisions by the hour of their signals.
type tally map[time.Time]*hourly

type hourly struct{ negatives, all int64 }

// since is what is counted in the window that ends with the hour of at.
func (t tally) since(at time.Time, window time.Duration) (out hourly) {
	end := at.UTC().Truncate(time.Hour)
	for hour, n := range t {
		if hour.After(end.Add(-window)) && !hour.After(end) {
			out.negatives += n.negatives
			out.all += n.all
		}
	}
	return out
}

func (t tally) add(at time.Time, polarity string, n int64) {
	hour := at.UTC().Truncate(time.Hour)
	if t[hour] == nil {
		t[hour] = &hourly{}
	}
	t[hour].all += n
	if polarity == "negative" {
		t[hour].negatives += n
	}
}

// limitKey is a period of a rule with a limit.
type limitKey struct {
	project, rule string
	start         time.Time
}

// counts are what the decisions before say, for the signals of a batch. It
// goes on counting while the batch is decided.
type counts struct {
	tallies map[countKey]tally
	taken   map[limitKey]int64
	// shadowTaken is taken of the shadows.
	shadowTaken map[limitKey]map[string]bool
}

func countKeys(s *signalv1.Signal, caseID string) []countKey {
	keys := []countKey{{s.GetProjectId(), bySession, s.GetSessionId()}}
	if caseID != "" {
		keys = append(keys, countKey{s.GetProjectId(), byCase, caseID})
	}
	if s.GetUserId() != "" {
		keys = append(keys, countKey{s.GetProjectId(), byUser, s.GetUserId()})
	}
	return keys
}

// fill adds the counted facts of a signal that is not counted yet.
func (c *counts) fill(f *Facts, s *signalv1.Signal, caseID string) {
	at := s.GetOccurredAt().AsTime()
	one := hourly{all: 1}
	if s.GetPolarity() == "negative" {
		one.negatives = 1
	}
	in := func(by, id string, window time.Duration) hourly {
		n := c.tallies[countKey{s.GetProjectId(), by, id}].since(at, window)
		return hourly{n.negatives + one.negatives, n.all + one.all}
	}
	f.Session.Negatives = in(bySession, s.GetSessionId(), sessionWindow).negatives
	if caseID != "" {
		f.Case.Negatives24h = in(byCase, caseID, dayWindow).negatives
		f.Case.Negatives7d = in(byCase, caseID, weekWindow).negatives
	}
	if s.GetUserId() != "" {
		week := in(byUser, s.GetUserId(), weekWindow)
		f.User.Negatives24h = in(byUser, s.GetUserId(), dayWindow).negatives
		f.User.Negatives7d, f.User.Signals7d = week.negatives, week.all
	}
}

// sessionWindow is longer than any conversation.
const sessionWindow = 100 * 365 * 24 * time.Hour

// count takes a decision into account: n is 1, or -1 where another one
// replaces it.
func (c *counts) count(d *saved, n int64) {
	for _, k := range []countKey{
		{d.ProjectId, bySession, d.SessionId}, {d.ProjectId, byCase, d.CaseId}, {d.ProjectId, byUser, d.row.UserID},
	} {
		if t := c.tallies[k]; t != nil && d.Rule != RuleWithdrawn {
			t.add(d.GetOccurredAt().AsTime(), d.row.Polarity, n)
		}
	}
}

// situation is that of a signal whose decisions so far are h.
func (c *counts) situation(s *signalv1.Signal, h history, policy *Policy) Situation {
	return Situation{ProjectID: s.GetProjectId(), SignalID: s.GetSignalId(), Taken: func(name string) int64 {
		start := policy.limitOf(name).start(s.GetOccurredAt().AsTime())
		n := c.taken[limitKey{s.GetProjectId(), name, start}]
		if h.took(name, start, policy.limitOf(name)) {
			n-- // a signal counts once, whatever its revision
		}
		return n
	}}
}

// took says whether a rule took an earlier revision in the same period.
func (h history) took(rule string, start time.Time, l limit) bool {
	return slices.ContainsFunc(h, func(d *saved) bool {
		return d.Rule == rule && l.start(d.GetOccurredAt().AsTime()).Equal(start)
	})
}

// take notes that a rule took a signal.
func (c *counts) take(d *saved, h history, policy *Policy) {
	l := policy.limitOf(d.Rule)
	if l.count == 0 {
		return
	}
	start := l.start(d.GetOccurredAt().AsTime())
	if !h.took(d.Rule, start, l) {
		c.taken[limitKey{d.ProjectId, d.Rule, start}]++
	}
}

func (p *Policy) limitOf(rule string) limit {
	for i := range p.rules {
		if p.rules[i].name == rule {
			return p.rules[i].limit
		}
	}
	return limit{}
}

// counts reads what is to be known of the decisions before, for new revisions.
func (s *store) counts(ctx context.Context, news []*casesv1.CaseSignal, policies map[string]*Policy) (*counts, error) {
	c := &counts{tallies: map[countKey]tally{}, taken: map[limitKey]int64{}, shadowTaken: map[limitKey]map[string]bool{}}
	if len(news) == 0 {
		return c, nil
	}
	first, last := news[0].Signal.GetOccurredAt().AsTime(), news[0].Signal.GetOccurredAt().AsTime()
	periods := map[limitKey]limit{}
	for _, cs := range news {
		at := cs.Signal.GetOccurredAt().AsTime()
		if at.Before(first) {
			first = at
		}
		if at.After(last) {
			last = at
		}
		for _, k := range countKeys(cs.Signal, cs.GetCase().GetCaseId()) {
			c.tallies[k] = tally{}
		}
		if policy := policies[cs.Signal.GetProjectId()]; policy != nil {
			for i := range policy.rules {
				if r := &policy.rules[i]; r.limit.count > 0 {
					periods[limitKey{cs.Signal.GetProjectId(), r.name, r.limit.start(at)}] = r.limit
				}
			}
		}
	}
	g, gctx := errgroup.WithContext(ctx)
	for _, by := range []string{byCase, byUser, bySession} {
		from := first.Add(-weekWindow - time.Hour)
		if by == bySession {
			from = time.UnixMilli(0)
		}
		g.Go(func() error { return s.tally(gctx, by, from, last, c.tallies) })
	}
	if len(periods) > 0 {
		g.Go(func() error { return s.taken(gctx, periods, c.taken) })
	}
	return c, g.Wait()
}

// tally counts the current decisions on signals that have something in common
// with others, by hour.
func (s *store) tally(ctx context.Context, by string, from, to time.Time, into map[countKey]tally) error {
	wanted, err := ext.NewTable("wanted", ext.Column("project_id", "String"), ext.Column("id", "String"))
	if err != nil {
		return fmt.Errorf("count decisions: %w", err)
	}
	n := 0
	for k := range into {
		if k.by != by {
			continue
		}
		n++
		if err := wanted.Append(k.project, k.id); err != nil {
			return fmt.Errorf("count decisions: %w", err)
		}
	}
	if n == 0 {
		return nil
	}
	rows, err := s.conn.Query(ch.Context(ctx, ch.WithExternalTable(wanted)), `SELECT toString(project_id), `+by+`, toStartOfHour(occurred_at) AS hour,
			countIf(polarity = 'negative'), count()
		FROM decisions_log FINAL
		WHERE (project_id, `+by+`) IN (SELECT project_id, id FROM wanted) AND occurred_at >= ? AND occurred_at <= ?
			AND superseded_by = 0 AND rule != ?
		GROUP BY project_id, `+by+`, hour
		SETTINGS do_not_merge_across_partitions_select_final = 1`, from, to.Add(time.Hour), RuleWithdrawn)
	if err != nil {
		return fmt.Errorf("count decisions: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		k := countKey{by: by}
		var hour time.Time
		var negatives, all uint64
		if err := rows.Scan(&k.project, &k.id, &hour, &negatives, &all); err != nil {
			return fmt.Errorf("count decisions: %w", err)
		}
		if t := into[k]; t != nil {
			t[hour.UTC()] = &hourly{int64(negatives), int64(all)}
		}
	}
	return rows.Err()
}

// taken counts the signals that rules took in periods.
func (s *store) taken(ctx context.Context, periods map[limitKey]limit, into map[limitKey]int64) error {
	keys := slices.SortedFunc(maps.Keys(periods), func(a, b limitKey) int { return a.start.Compare(b.start) })
	wanted, err := ext.NewTable("wanted", ext.Column("n", "UInt32"), ext.Column("project_id", "String"), ext.Column("rule", "String"),
		ext.Column("from", "DateTime64(3, 'UTC')"), ext.Column("to", "DateTime64(3, 'UTC')"))
	if err != nil {
		return fmt.Errorf("count limits: %w", err)
	}
	last := keys[0].start
	for i, k := range keys {
		end := k.start.Add(periodOf(periods[k]))
		if end.After(last) {
			last = end
		}
		if err := wanted.Append(uint32(i), k.project, k.rule, k.start, end); err != nil {
			return fmt.Errorf("count limits: %w", err)
		}
	}
	rows, err := s.conn.Query(ch.Context(ctx, ch.WithExternalTable(wanted)), `SELECT w.n, uniqExact(d.signal_id)
		FROM (SELECT toString(project_id) AS project_id, toString(rule) AS rule, occurred_at, signal_id FROM decisions_log
			WHERE (project_id, rule) IN (SELECT project_id, rule FROM wanted) AND occurred_at >= ? AND occurred_at < ?) AS d
		INNER JOIN wanted AS w ON d.project_id = w.project_id AND d.rule = w.rule
		WHERE d.occurred_at >= w.from AND d.occurred_at < w.to GROUP BY w.n`, keys[0].start, last)
	if err != nil {
		return fmt.Errorf("count limits: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var i uint32
		var n uint64
		if err := rows.Scan(&i, &n); err != nil {
			return fmt.Errorf("count limits: %w", err)
		}
		into[keys[i]] = int64(n)
	}
	return rows.Err()
}

func periodOf(l limit) time.Duration { return periods()[l.per] }

// ofAll are the policies of a batch: each project's is the same for
// all of its signals.
func (p *policies) ofAll(news []*casesv1.CaseSignal) map[string]*Policy {
	out := map[string]*Policy{}
	for _, cs := range news {
		if project := cs.Signal.GetProjectId(); out[project] == nil {
			out[project] = p.of(project)
		}
	}
	return out
}
