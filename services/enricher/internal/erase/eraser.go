package erase

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/honeloop/hone/pkg/events"
	"github.com/honeloop/hone/pkg/ids"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	erasurev1 "github.com/honeloop/hone/proto/gen/go/hone/erasure/v1"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"

	"github.com/honeloop/hone/services/enricher/internal/enrich"
	"github.com/honeloop/hone/services/enricher/internal/trail"
)

const (
	stateRunning = "running"
	stateDone    = "done"

	// RefreshEvery is how often an enricher reads who was erased.
	RefreshEvery = time.Second
	// lookEvery is how often one looks for erasures that nobody goes on with, and
	// abandoned after what time they are such.
	lookEvery = 10 * time.Second
	abandoned = 5 * time.Minute
)

// Passed waits until a consumer group has passed all that topics hold.
type Passed func(ctx context.Context, group string, topics ...string) error

// Eraser carries erasures out, one at a time:
//
//  1. the subject is written down, and what comes of it is refused;
//  2. a timer in each of its sessions has the stage take its events out, and
//     withdraw without content what rested on them;
//  3. the stages after it undo what they did, in the order of the log;
//  4. once they have, the rows are deleted, and looked for again.
//
// Each step may be repeated, so an erasure that was interrupted begins anew.
type Eraser struct {
	conn     driver.Conn
	store    *trail.Store
	subjects *Subjects
	publish  func(context.Context, ...stage.Record) error
	passed   Passed
	log      *slog.Logger
	wake     chan struct{}
	// settle is how long other enrichers may not know a new subject.
	settle time.Duration
	// purgeDue says that deleted rows may be in files, which are to be written anew:
	// also at the start, as one that stopped may have left some.
	purgeDue bool
}

// New makes an eraser. Run it.
func New(conn driver.Conn, subjects *Subjects, publish func(context.Context, ...stage.Record) error, passed Passed, log *slog.Logger) *Eraser {
	return &Eraser{conn: conn, store: trail.NewStore(conn), subjects: subjects, publish: publish, passed: passed, log: log,
		wake: make(chan struct{}, 1), settle: 3 * RefreshEvery, purgeDue: true}
}

// Run carries erasures out until ctx ends. One that fails is tried again.
func (e *Eraser) Run(ctx context.Context) {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	mine := map[string]bool{}
	for {
		if err := e.work(ctx, mine); err != nil && ctx.Err() == nil {
			e.log.Warn("an erasure did not come through; trying again", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-e.wake:
		}
	}
}

// KeepKnown refreshes who was erased until ctx ends.
func (e *Eraser) KeepKnown(ctx context.Context) {
	ticker := time.NewTicker(RefreshEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			if err := e.subjects.Refresh(ctx); err != nil && ctx.Err() == nil {
				e.log.Warn("cannot read who was erased; trying again", "error", err)
			}
		}
	}
}

// erasure is one that runs.
type erasure struct {
	project, subject string
	*erasurev1.Erasure
}

func (e *Eraser) work(ctx context.Context, mine map[string]bool) error {
	rows, err := e.conn.Query(ctx, "SELECT project_id, subject, revision, payload FROM erasures_log FINAL WHERE state = ? ORDER BY requested_at", stateRunning)
	if err != nil {
		return fmt.Errorf("read erasures: %w", err)
	}
	defer rows.Close()
	var due []*erasure
	for rows.Next() {
		one := &erasure{Erasure: &erasurev1.Erasure{}}
		var revision uint64
		var payload []byte
		if err := rows.Scan(&one.project, &one.subject, &revision, &payload); err != nil {
			return fmt.Errorf("read erasures: %w", err)
		}
		if err := proto.Unmarshal(payload, one.Erasure); err != nil {
			return fmt.Errorf("decode erasure: %w", err)
		}
		// Who took the request goes on at once, the others where that one is gone.
		if one.Step == "" || mine[one.ErasureId] || time.Since(time.Unix(0, int64(revision))) > abandoned {
			mine[one.ErasureId] = true
			due = append(due, one)
		}
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("read erasures: %w", err)
	}
	var errs []error
	for _, one := range due {
		e.purgeDue = true
		if err := e.erase(ctx, one); err != nil {
			errs = append(errs, fmt.Errorf("erasure %s: %w", one.ErasureId, err))
			continue
		}
		delete(mine, one.ErasureId)
	}
	if e.purgeDue {
		err := e.purge(ctx)
		e.purgeDue = err != nil
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Start begins an erasure, or goes on with it.
func (e *Eraser) Start(ctx context.Context, project, kind, subject string) (*erasurev1.Erasure, error) {
	id := "er-" + e.subjects.hash(project, kind, subject)
	found, err := e.Get(ctx, project, id)
	if err != nil || found.GetState() == stateRunning {
		return found, err
	}
	one := &erasure{project, subject, &erasurev1.Erasure{ErasureId: id, Kind: kind, RequestedAt: timestamppb.Now()}}
	if found != nil {
		one.Removed = found.Removed
	}
	if err := e.subjects.add(ctx, project, id, kind, subject); err != nil {
		return nil, err
	}
	if err := e.save(ctx, one, stateRunning, ""); err != nil {
		return nil, err
	}
	select {
	case e.wake <- struct{}{}:
	default:
	}
	return one.Erasure, nil
}

// Get reads a receipt; nil where there is none.
func (e *Eraser) Get(ctx context.Context, project, id string) (*erasurev1.Erasure, error) {
	rows, err := e.conn.Query(ctx, "SELECT payload FROM erasures_log FINAL WHERE project_id = ? AND erasure_id = ?", project, id)
	if err != nil {
		return nil, fmt.Errorf("read erasure: %w", err)
	}
	defer rows.Close()
	var out *erasurev1.Erasure
	for rows.Next() {
		var payload []byte
		if err := rows.Scan(&payload); err != nil {
			return nil, fmt.Errorf("read erasure: %w", err)
		}
		out = &erasurev1.Erasure{}
		if err := proto.Unmarshal(payload, out); err != nil {
			return nil, fmt.Errorf("decode erasure: %w", err)
		}
	}
	return out, rows.Err()
}

// Preview counts what an erasure would remove.
func (e *Eraser) Preview(ctx context.Context, project, kind, subject string) (*erasurev1.Erasure, error) {
	ctx = long(ctx)
	s, err := e.scope(ctx, project, kind, subject)
	if err != nil {
		return nil, err
	}
	counts, err := e.counts(ctx, s)
	if err != nil {
		return nil, err
	}
	return &erasurev1.Erasure{ErasureId: "er-" + e.subjects.hash(project, kind, subject), Kind: kind, Removed: removed(nil, counts), Kept: kept()}, nil
}

// long lets statements be as long as their ids make them.
func long(ctx context.Context) context.Context {
	return clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"max_query_size": longQuery}))
}

func (e *Eraser) save(ctx context.Context, one *erasure, state, step string) error {
	one.State, one.Step = state, step
	payload, err := proto.Marshal(one.Erasure)
	if err != nil {
		return fmt.Errorf("encode erasure: %w", err)
	}
	batch, err := e.conn.PrepareBatch(ctx, "INSERT INTO erasures_log (project_id, erasure_id, revision, kind, state, subject, requested_at, finished_at, removed, payload)")
	if err != nil {
		return fmt.Errorf("write erasure: %w", err)
	}
	defer batch.Close()
	var finished *time.Time
	subject := one.subject
	if state == stateDone {
		at := one.FinishedAt.AsTime()
		finished, subject = &at, ""
	}
	counts := map[string]uint64{}
	for _, r := range one.Removed {
		counts[r.Place] = r.Count
	}
	revision := uint64(time.Now().UnixNano())
	if err := batch.Append(one.project, one.ErasureId, revision, one.Kind, state, subject, one.RequestedAt.AsTime(), finished, counts, payload); err != nil {
		return fmt.Errorf("write erasure: %w", err)
	}
	if err := batch.Send(); err != nil {
		return fmt.Errorf("write erasure: %w", err)
	}
	if state != stateDone {
		return nil
	}
	// The earlier revisions say who it was.
	if err := e.conn.Exec(ctx, "DELETE FROM erasures_log WHERE project_id = ? AND erasure_id = ? AND revision < ?", one.project, one.ErasureId, revision); err != nil {
		return fmt.Errorf("delete earlier revisions of the erasure: %w", err)
	}
	return nil
}

func (e *Eraser) erase(ctx context.Context, one *erasure) error {
	ctx = long(ctx)
	if err := e.save(ctx, one, stateRunning, "until every enricher knows"); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(e.settle):
	}
	touched, err := e.takeOut(ctx, one)
	if err != nil {
		return err
	}
	for _, r := range stream.Pipeline()[1:] { // takeOut has waited for the enricher
		if err := e.save(ctx, one, stateRunning, "until "+r.Group+" has undone its part"); err != nil {
			return err
		}
		if err := e.passed(ctx, r.Group, r.Topics...); err != nil {
			return err
		}
	}
	s, err := e.scope(ctx, one.project, one.Kind, one.subject)
	if err != nil {
		return err
	}
	if err := e.addErased(ctx, s, touched); err != nil {
		return err
	}
	counts, err := e.counts(ctx, s)
	if err != nil {
		return err
	}
	one.Removed = removed(one.Removed, counts)
	if err := e.remove(ctx, s, func(step string) error { return e.save(ctx, one, stateRunning, step) }); err != nil {
		return err
	}
	left, err := e.counts(ctx, s)
	if err != nil {
		return err
	}
	for _, r := range one.Removed {
		if r.Place != weaviate {
			r.Left = left[r.Place]
		}
	}
	for place, n := range left {
		if place != weaviate && n > 0 {
			return fmt.Errorf("%d rows of %s are still there", n, place)
		}
	}
	one.FinishedAt, one.Kept = timestamppb.Now(), kept()
	return e.save(ctx, one, stateDone, "")
}

// takeOut has the stage take the subject's events out of its sessions, until there
// is no session that it has not seen.
func (e *Eraser) takeOut(ctx context.Context, one *erasure) ([]string, error) {
	seen := map[string]bool{}
	for {
		s, err := e.scope(ctx, one.project, one.Kind, one.subject)
		if err != nil {
			return nil, err
		}
		// What comes later to a session that nobody else was in is refused, too.
		if one.Kind == User {
			if err := e.subjects.add(ctx, one.project, one.ErasureId, Session, s.alone...); err != nil {
				return nil, err
			}
		}
		var news []stage.Record
		for _, session := range s.sessions {
			if seen[session] {
				continue
			}
			seen[session] = true
			rec, err := timer(one, session)
			if err != nil {
				return nil, err
			}
			news = append(news, rec)
		}
		if len(news) == 0 {
			return slices.Sorted(maps.Keys(seen)), nil
		}
		if err := e.publish(ctx, news...); err != nil {
			return nil, fmt.Errorf("append to sessions: %w", err)
		}
		if err := e.save(ctx, one, stateRunning, "until the events are taken out of their sessions"); err != nil {
			return nil, err
		}
		if err := e.passed(ctx, "hone-enricher", stream.TopicEvents); err != nil {
			return nil, err
		}
	}
}

func timer(one *erasure, session string) (stage.Record, error) {
	at := one.RequestedAt
	value, err := proto.Marshal(&eventv1.Event{
		EventId:   ids.Derive("tm", one.project, session, enrich.TimerErased, one.ErasureId),
		ProjectId: one.project, SessionId: session, Type: events.TypeTimer, Source: "enricher", OccurredAt: at, ReceivedAt: at,
		Payload: &eventv1.Event_Timer{Timer: &eventv1.Timer{Kind: enrich.TimerErased, Subject: one.ErasureId}},
	})
	if err != nil {
		return stage.Record{}, fmt.Errorf("encode timer: %w", err)
	}
	return stage.Record{Topic: stream.TopicEvents, Key: stream.SessionKey(one.project, session), Value: value}, nil
}

// removed lists counts by place. Those of a try before stay where they are higher:
// it was interrupted after it had deleted.
func removed(before []*erasurev1.Removed, counts map[string]uint64) []*erasurev1.Removed {
	counts = maps.Clone(counts)
	for _, r := range before {
		counts[r.Place] = max(counts[r.Place], r.Count)
	}
	var out []*erasurev1.Removed
	for place, n := range counts {
		if n > 0 {
			out = append(out, &erasurev1.Removed{Place: place, Count: n})
		}
	}
	slices.SortFunc(out, func(a, b *erasurev1.Removed) int { return cmp.Compare(a.Place, b.Place) })
	return out
}

// kept is what an erasure does not reach.
func kept() []string {
	return []string{
		"Kafka: records are as they came until the retention of their topic ends (hone.events and dead letters: 7 days by default). Replaying hone.events brings nothing back, and hone dlq leaves out the dead letters of who was erased.",
		"hone.curation, which is kept for ever, and what it says of cases: answers, titles and notes that reviewers wrote or approved.",
		"Files of ClickHouse until their next merge, which has been asked for, and backups.",
		"What others wrote, and rows whose source did not name the user.",
	}
}
