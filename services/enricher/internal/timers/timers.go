// Package timers makes events of time that passed (DECISIONS.md 25): it looks at
// the store for feedback whose interaction does not come, and for sessions at
// rest.
package timers

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/honeloop/hone/pkg/events"
	"github.com/honeloop/hone/pkg/ids"
	"github.com/honeloop/hone/pkg/projects"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"

	"github.com/honeloop/hone/services/enricher/internal/derive"
	"github.com/honeloop/hone/services/enricher/internal/trail"
)

// Source is that of timers.
const Source = "enricher"

// Publish appends records, and returns nil when all are written.
type Publish func(context.Context, ...stage.Record) error

// Timers looks and appends. Make it with New.
type Timers struct {
	conn     driver.Conn
	store    *trail.Store
	settings *projects.Projects
	publish  Publish
	log      *slog.Logger
	counter  metric.Int64Counter
	// since is the time of arrival that the last look has seen; zero before the
	// first.
	since time.Time
}

// New makes timers.
func New(conn driver.Conn, settings *projects.Projects, publish Publish, log *slog.Logger, meter metric.Meter) (*Timers, error) {
	counter, err := meter.Int64Counter("hone.enricher.timers",
		metric.WithDescription("Events appended because time passed: wait_expired, session_ended."))
	if err != nil {
		return nil, fmt.Errorf("create metrics: %w", err)
	}
	return &Timers{conn: conn, store: trail.NewStore(conn), settings: settings, publish: publish, log: log, counter: counter}, nil
}

// Limits of a look. What is over them is for the next one.
const (
	maxEnds  = 5000
	maxWaits = 1000
	// waitsAtOnce bounds the trails in memory.
	waitsAtOnce = 50
	// firstLook is how far back the first look goes, beyond the time that sessions
	// rest.
	firstLook = 24 * time.Hour
)

// Run looks every so often until ctx ends. A look that fails is logged, and its
// work is left to the next one.
func (t *Timers) Run(ctx context.Context, every time.Duration) {
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	for {
		if err := t.Look(ctx, time.Now()); err != nil && ctx.Err() == nil {
			t.log.Warn("cannot look for waits and sessions that ended; trying again", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// Look appends what is due now.
func (t *Timers) Look(ctx context.Context, now time.Time) error {
	if err := t.waits(ctx, now); err != nil {
		return fmt.Errorf("look for waits: %w", err)
	}
	if err := t.ends(ctx, now); err != nil {
		return fmt.Errorf("look for sessions at rest: %w", err)
	}
	return nil
}

// The newest revision of a signal counts; the log is read, not the view, since
// few signals wait.
const selectWaiting = `SELECT project_id, session_id FROM
(SELECT project_id, session_id, signal_id, argMax(waiting AND NOT withdrawn, revision) AS waits FROM signals_log
	WHERE signal_id IN (SELECT signal_id FROM signals_log WHERE waiting) GROUP BY project_id, session_id, signal_id)
WHERE waits GROUP BY project_id, session_id ORDER BY cityHash64(project_id, session_id, ?) LIMIT ?`

func (t *Timers) waits(ctx context.Context, now time.Time) error {
	// In another order every time, so that those that wait for ever hide none.
	rows, err := t.conn.Query(ctx, selectWaiting, now.Unix(), maxWaits)
	if err != nil {
		return err
	}
	defer rows.Close()
	var keys []trail.Key
	for rows.Next() {
		var key trail.Key
		if err := rows.Scan(&key.Project, &key.Session); err != nil {
			return err
		}
		if t.settings.Settings(key.Project).Signals.WaitFor > 0 {
			keys = append(keys, key)
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for chunk := range slices.Chunk(keys, waitsAtOnce) {
		trails, err := t.store.Load(ctx, chunk)
		if err != nil {
			return err
		}
		var due []*eventv1.Event
		for _, key := range chunk {
			due = append(due, expired(key, trails[key], t.settings.Settings(key.Project).Signals.WaitFor, now)...)
		}
		if err := t.append(ctx, due); err != nil {
			return err
		}
	}
	return nil
}

// expired are the ends of waits that are due in a trail.
func expired(key trail.Key, t *trail.Trail, wait time.Duration, now time.Time) []*eventv1.Event {
	missing := map[string]time.Time{} // interactions by the first arrival of what waits for them
	arrived := map[string]bool{}
	for _, e := range t.Events() {
		if e.GetInteraction() != nil {
			arrived[e.InteractionId] = true
		}
	}
	await := func(interaction string, e *eventv1.Event) {
		if at, waits := missing[interaction]; !arrived[interaction] && (!waits || e.ReceivedAt.AsTime().Before(at)) {
			missing[interaction] = e.ReceivedAt.AsTime()
		}
	}
	waiting := slices.DeleteFunc(t.Signals(), func(s *signalv1.Signal) bool { return !s.Waiting || s.Withdrawn })
	for _, e := range t.Events() {
		for _, s := range waiting {
			if e.Type != events.TypeTimer && s.InteractionId == e.InteractionId {
				await(s.InteractionId, e)
				if p := e.GetFeedback().GetPreferredInteractionId(); p != "" && p == s.PreferredInteractionId {
					await(p, e)
				}
			}
		}
	}
	var out []*eventv1.Event
	for interaction, since := range missing {
		if now.Sub(since) < wait {
			continue
		}
		e := timer(key, derive.TimerWaitExpired, interaction, since.Add(wait))
		e.InteractionId = interaction
		if !t.Has(e.EventId) {
			out = append(out, e)
		}
	}
	return derive.InOrder(out)
}

// Sessions of which something arrived since, with their last event, and the ends
// that were announced. Events of erased users and timers do not count.
const selectResting = `SELECT project_id, session_id, argMaxIf(event_id, (occurred_at, event_id), type != 'timer') AS last,
	maxIf(occurred_at, type != 'timer') AS last_at, maxIf(received_at, type != 'timer') AS arrived, groupUniqArrayIf(event_id, timer = 'session_ended') AS ends
FROM events_log
WHERE (project_id, session_id) IN (SELECT project_id, session_id FROM events_log WHERE received_at >= ? AND type != 'timer')
GROUP BY project_id, session_id
HAVING arrived >= ? AND arrived < ?
ORDER BY arrived LIMIT ?`

func (t *Timers) ends(ctx context.Context, now time.Time) error {
	shortest, longest := t.rests()
	if shortest == 0 {
		return nil
	}
	from := t.since.Add(-longest)
	if t.since.IsZero() {
		from = now.Add(-longest - firstLook)
	}
	rows, err := t.conn.Query(ctx, selectResting, from, from, now.Add(-shortest), maxEnds)
	if err != nil {
		return err
	}
	defer rows.Close()
	var due []*eventv1.Event
	seen, newest := 0, time.Time{}
	for rows.Next() {
		var key trail.Key
		var last string
		var lastAt, arrived time.Time
		var ends []string
		if err := rows.Scan(&key.Project, &key.Session, &last, &lastAt, &arrived, &ends); err != nil {
			return err
		}
		seen++
		newest = arrived
		rest := t.settings.Settings(key.Project).Signals.SessionEnds
		if rest == 0 || now.Sub(arrived) < rest {
			continue
		}
		if e := timer(key, derive.TimerSessionEnded, last, lastAt.Add(rest)); !slices.Contains(ends, e.EventId) {
			due = append(due, e)
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if err := t.append(ctx, due); err != nil {
		return err
	}
	if seen < maxEnds {
		t.since = now
	} else { // the next look goes on where this one stopped
		t.since = newest.Add(longest)
	}
	return nil
}

// rests are the shortest and the longest time that a project lets sessions rest;
// 0 where none has an end.
func (t *Timers) rests() (shortest, longest time.Duration) {
	for _, project := range append(t.settings.Names(), "") {
		rest := t.settings.Settings(project).Signals.SessionEnds
		if rest > 0 && (shortest == 0 || rest < shortest) {
			shortest = rest
		}
		longest = max(longest, rest)
	}
	return shortest, longest
}

// timer is the event that says once that time passed for a subject.
func timer(key trail.Key, kind, subject string, at time.Time) *eventv1.Event {
	when := timestamppb.New(at)
	return &eventv1.Event{
		EventId:   ids.Derive("tm", key.Project, key.Session, kind, subject),
		ProjectId: key.Project, SessionId: key.Session, Type: events.TypeTimer, Source: Source,
		OccurredAt: when, ReceivedAt: when,
		Payload: &eventv1.Event_Timer{Timer: &eventv1.Timer{Kind: kind, Subject: subject}},
	}
}

func (t *Timers) append(ctx context.Context, due []*eventv1.Event) error {
	var records []stage.Record
	for _, e := range due {
		value, err := proto.Marshal(e)
		if err != nil {
			return fmt.Errorf("encode timer: %w", err)
		}
		records = append(records, stage.Record{Topic: stream.TopicEvents, Key: stream.SessionKey(e.ProjectId, e.SessionId), Value: value})
	}
	if len(records) == 0 {
		return nil
	}
	if err := t.publish(ctx, records...); err != nil {
		return fmt.Errorf("append %d timers: %w", len(records), err)
	}
	for _, e := range due {
		t.counter.Add(ctx, 1, metric.WithAttributes(attribute.String("kind", e.GetTimer().Kind)))
	}
	return nil
}
