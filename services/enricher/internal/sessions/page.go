// Package sessions reads sessions for people: page by page with all that came of
// them, and by search.
package sessions

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/honeloop/hone/pkg/ids"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	policyv1 "github.com/honeloop/hone/proto/gen/go/hone/policy/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"
	trailv1 "github.com/honeloop/hone/proto/gen/go/hone/trail/v1"
)

// Limits of an answer.
const (
	MaxPage = 1000 // events
	// pageBytes of events end a page. What belongs to them comes on top.
	pageBytes = 16 << 20
	maxDetail = 500 // characters of an outcome
)

var (
	// ErrNotFound says that the session has no event.
	ErrNotFound = errors.New("no such session")
	// ErrToken says that a page token is not one of ours.
	ErrToken = errors.New("page_token: not one that was given out with the page before")
)

// Store reads from ClickHouse.
type Store struct{ conn driver.Conn }

// NewStore is the store behind conn.
func NewStore(conn driver.Conn) *Store { return &Store{conn} }

// cursor is a place in a list by time and id. The zero value is its start.
type cursor struct {
	ms int64
	id string
}

func (c cursor) token() string {
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(c.ms, 10) + " " + c.id))
}

func parseToken(token string) (c cursor, ok bool, err error) {
	if token == "" {
		return cursor{}, false, nil
	}
	data, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return cursor{}, false, ErrToken
	}
	ms, id, _ := strings.Cut(string(data), " ")
	if c.ms, err = strconv.ParseInt(ms, 10, 64); err != nil {
		return cursor{}, false, ErrToken
	}
	c.id = id
	return c, true, nil
}

// The base tables are read without FINAL, by key, and the newest row of each id
// is picked here: that costs less than to merge parts.
const (
	selectBounds = `SELECT uniqExact(event_id), min(occurred_at), max(occurred_at) FROM events_log
WHERE project_id = {project:String} AND session_id = {session:String}`
	selectEvents = `SELECT occurred_at, event_id, payload FROM events_log
WHERE project_id = {project:String} AND session_id = {session:String}
    AND (toUnixTimestamp64Milli(occurred_at), event_id) > ({after_ms:Int64}, {after_id:String})
ORDER BY occurred_at, event_id LIMIT 1 BY event_id LIMIT {limit:UInt32}`
	selectNewest = `SELECT payload FROM events_log
WHERE project_id = {project:String} AND session_id = {session:String} AND type = 'interaction'
ORDER BY occurred_at DESC, event_id DESC LIMIT 1 BY event_id LIMIT {limit:UInt32}`
	selectSignals = `SELECT payload FROM
(
    SELECT waiting, interaction_id, payload FROM signals_log
    WHERE project_id = {project:String} AND session_id = {session:String}
    ORDER BY signal_id, revision DESC LIMIT 1 BY signal_id
)
WHERE interaction_id IN {interactions:Array(String)} OR ({last:Bool} AND (waiting OR interaction_id NOT IN (
    SELECT interaction_id FROM events_log WHERE project_id = {project:String} AND session_id = {session:String} AND type = 'interaction')))`
	selectDecisions = `SELECT payload FROM decisions_log
WHERE project_id = {project:String} AND session_id = {session:String} AND signal_id IN {signals:Array(String)}
ORDER BY decision_id, superseded_by DESC LIMIT 1 BY decision_id`
)

// Page is a page of a session, and the token of the next one.
func (s *Store) Page(ctx context.Context, project, session, token string, size int) (*trailv1.Trail, string, error) {
	after, has, err := parseToken(token)
	if err != nil {
		return nil, "", err
	}
	if !has {
		after.ms = -1
	}
	t := &trailv1.Trail{ProjectId: project, SessionId: session}
	key := []any{clickhouse.Named("project", project), clickhouse.Named("session", session)}
	var total uint64
	var startedAt, lastAt time.Time
	if err := s.conn.QueryRow(ctx, selectBounds, key...).Scan(&total, &startedAt, &lastAt); err != nil {
		return nil, "", fmt.Errorf("read session: %w", err)
	}
	if total == 0 {
		return nil, "", ErrNotFound
	}
	t.TotalEvents, t.StartedAt, t.LastAt = uint32(total), timestamppb.New(startedAt), timestamppb.New(lastAt)

	next, err := s.events(ctx, t, after, size, key)
	if err != nil {
		return nil, "", fmt.Errorf("read events: %w", err)
	}
	if err := s.consequences(ctx, t, next == "", key); err != nil {
		return nil, "", err
	}
	return t, next, nil
}

// Newest are the newest interactions of a session, oldest first, and nothing
// that came of them.
func (s *Store) Newest(ctx context.Context, project, session string, size int) (*trailv1.Trail, error) {
	t := &trailv1.Trail{ProjectId: project, SessionId: session}
	err := each(ctx, s.conn, selectNewest, func() *eventv1.Event { return &eventv1.Event{} }, &t.Events,
		clickhouse.Named("project", project), clickhouse.Named("session", session), clickhouse.Named("limit", size))
	if err != nil {
		return nil, fmt.Errorf("read interactions: %w", err)
	}
	if len(t.Events) == 0 {
		return nil, ErrNotFound
	}
	slices.Reverse(t.Events)
	return t, nil
}

// events fills a page.
func (s *Store) events(ctx context.Context, t *trailv1.Trail, after cursor, size int, key []any) (next string, err error) {
	args := append(slices.Clone(key), clickhouse.Named("after_ms", after.ms), clickhouse.Named("after_id", after.id), clickhouse.Named("limit", size+1))
	rows, err := s.conn.Query(ctx, selectEvents, args...)
	if err != nil {
		return "", err
	}
	defer rows.Close()
	bytes := 0
	for rows.Next() {
		var at time.Time
		var id string
		var payload []byte
		if err := rows.Scan(&at, &id, &payload); err != nil {
			return "", err
		}
		if bytes += len(payload); len(t.Events) == size || len(t.Events) > 0 && bytes > pageBytes {
			return after.token(), nil
		}
		e := &eventv1.Event{}
		if err := proto.Unmarshal(payload, e); err != nil {
			return "", fmt.Errorf("decode stored event %s: %w", id, err)
		}
		t.Events = append(t.Events, e)
		after = cursor{at.UnixMilli(), id}
	}
	return "", rows.Err()
}

// consequences are the signals about the page's interactions, and what came of
// them.
func (s *Store) consequences(ctx context.Context, t *trailv1.Trail, last bool, key []any) error {
	interactions := []string{}
	for _, e := range t.Events {
		if e.GetInteraction() != nil {
			interactions = append(interactions, e.InteractionId)
		}
	}
	err := each(ctx, s.conn, selectSignals, func() *signalv1.Signal { return &signalv1.Signal{} }, &t.Signals,
		append(slices.Clone(key), clickhouse.Named("interactions", interactions), clickhouse.Named("last", last))...)
	if err != nil {
		return fmt.Errorf("read signals: %w", err)
	}
	slices.SortFunc(t.Signals, func(a, b *signalv1.Signal) int {
		if c := a.OccurredAt.AsTime().Compare(b.OccurredAt.AsTime()); c != 0 {
			return c
		}
		return strings.Compare(a.SignalId, b.SignalId)
	})
	if len(t.Signals) == 0 {
		return nil
	}
	var signals, reviews []string
	for _, sig := range t.Signals {
		signals = append(signals, sig.SignalId)
		reviews = append(reviews, ids.Derive("rv", t.ProjectId, sig.SignalId))
	}
	key = append(slices.Clone(key), clickhouse.Named("signals", signals))
	err = each(ctx, s.conn, selectDecisions, func() *policyv1.Decision { return &policyv1.Decision{} }, &t.Decisions, key...)
	if err != nil {
		return fmt.Errorf("read decisions: %w", err)
	}
	slices.SortFunc(t.Decisions, func(a, b *policyv1.Decision) int {
		if c := a.DecidedAt.AsTime().Compare(b.DecidedAt.AsTime()); c != 0 {
			return c
		}
		return strings.Compare(a.DecisionId, b.DecisionId)
	})
	cases := map[string]string{}
	for _, d := range t.Decisions {
		if d.CaseId != "" && !d.Superseded {
			cases[d.CaseId] = d.SignalId
		}
	}
	for _, o := range outcomes {
		if err := s.outcomes(ctx, t, o, append(slices.Clone(key), clickhouse.Named("reviews", reviews), clickhouse.Named("cases", keys(cases)))); err != nil {
			return fmt.Errorf("read %s: %w", o.kind, err)
		}
	}
	for _, o := range t.Outcomes {
		if o.Kind == "case" {
			o.SignalId = cases[o.Id]
		}
	}
	return nil
}

// outcomes are read by one query each: id, signal, state, detail, by, at.
var outcomes = []struct{ kind, query string }{
	{"case", `SELECT case_id, '', state, title, approved_by, last_seen FROM cases
WHERE project_id = {project:String} AND case_id IN {cases:Array(String)} ORDER BY last_seen, case_id`},
	{"review", `SELECT r.review_id, r.signal_id,
    multiIf(d.verdict = 'approve', 'approved', d.verdict = 'correct', 'corrected', d.verdict = 'dismiss', 'dismissed',
        w.revision >= r.revision, 'withdrawn', 'open'),
    d.answer, d.reviewer, if(d.verdict = '', r.created_at, d.decided_at)
FROM (SELECT * FROM reviews_log FINAL WHERE project_id = {project:String} AND review_id IN {reviews:Array(String)}) AS r
LEFT JOIN (SELECT * FROM review_withdrawals_log FINAL WHERE project_id = {project:String} AND review_id IN {reviews:Array(String)}) AS w ON w.review_id = r.review_id
LEFT JOIN (SELECT * FROM review_decisions_log FINAL WHERE project_id = {project:String} AND review_id IN {reviews:Array(String)}) AS d ON d.review_id = r.review_id
ORDER BY r.created_at, r.review_id`},
	{"dataset_row", `SELECT row_id, signal_id, '', source, '', occurred_at FROM dataset_rows
WHERE project_id = {project:String} AND signal_id IN {signals:Array(String)} ORDER BY occurred_at, row_id`},
	{"patch", `SELECT patch_id, signal_id, state, text, '', created_at FROM patches
WHERE project_id = {project:String} AND signal_id IN {signals:Array(String)} ORDER BY created_at, patch_id`},
	{"product_issue", `SELECT issue_id, signal_id, '', title, '', created_at FROM product_issues
WHERE project_id = {project:String} AND signal_id IN {signals:Array(String)} ORDER BY created_at, issue_id`},
}

func (s *Store) outcomes(ctx context.Context, t *trailv1.Trail, o struct{ kind, query string }, args []any) error {
	rows, err := s.conn.Query(ctx, o.query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		out := &trailv1.Outcome{Kind: o.kind}
		var at time.Time
		if err := rows.Scan(&out.Id, &out.SignalId, &out.State, &out.Detail, &out.By, &at); err != nil {
			return err
		}
		out.Detail = shorten(out.Detail, maxDetail)
		out.At = timestamppb.New(at)
		t.Outcomes = append(t.Outcomes, out)
	}
	return rows.Err()
}

// each appends the messages of a query's rows, which are one payload.
func each[M proto.Message](ctx context.Context, conn driver.Conn, query string, empty func() M, out *[]M, args ...any) error {
	rows, err := conn.Query(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var payload []byte
		if err := rows.Scan(&payload); err != nil {
			return err
		}
		m := empty()
		if err := proto.Unmarshal(payload, m); err != nil {
			return fmt.Errorf("decode stored %T: %w", m, err)
		}
		*out = append(*out, m)
	}
	return rows.Err()
}

func keys(m map[string]string) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}

// shorten cuts s to n characters.
func shorten(s string, n int) string {
	if len(s) <= n {
		return s
	}
	if r := []rune(s); len(r) > n {
		return string(r[:n-1]) + "…"
	}
	return s
}
