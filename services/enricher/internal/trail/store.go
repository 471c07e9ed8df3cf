package trail

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/ext"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"google.golang.org/protobuf/proto"

	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	policyv1 "github.com/honeloop/hone/proto/gen/go/hone/policy/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"
)

// Store is the trails in ClickHouse.
type Store struct {
	conn driver.Conn
	// RetentionDays of a project say after how many days its rows are deleted; 0
	// means never, and so does nil. It has to be safe for concurrent use.
	RetentionDays func(project string) int
}

// NewStore is the store behind conn. It keeps everything until RetentionDays
// says otherwise.
func NewStore(conn driver.Conn) *Store { return &Store{conn: conn} }

func (s *Store) days(project string) int {
	if s.RetentionDays == nil {
		return 0
	}
	return s.RetentionDays(project)
}

// loadChunk bounds the sessions of one query.
const loadChunk = 1000

// Load reads trails. Those of sessions that are not stored are empty.
func (s *Store) Load(ctx context.Context, keys []Key) (map[Key]*Trail, error) {
	trails := make(map[Key]*Trail, len(keys))
	for _, key := range keys {
		trails[key] = New()
	}
	for chunk := range slices.Chunk(keys, loadChunk) {
		if err := s.load(ctx, chunk, trails); err != nil {
			return nil, fmt.Errorf("load trails: %w", err)
		}
	}
	return trails, nil
}

// The trail is read without FINAL: to pick the newest rows here costs less than
// to merge the parts there.
const (
	selectEvents = `SELECT project_id, session_id, session_started_at, payload FROM events_log
WHERE (project_id, session_id) IN wanted`
	selectSignals = `SELECT project_id, session_id, payload FROM signals_log
WHERE (project_id, session_id) IN wanted`
	selectDecisions = `SELECT payload FROM decisions_log FINAL
WHERE project_id = ? AND session_id = ?`
)

func (s *Store) load(ctx context.Context, keys []Key, trails map[Key]*Trail) error {
	wanted, err := ext.NewTable("wanted", ext.Column("project_id", "String"), ext.Column("session_id", "String"))
	if err != nil {
		return err
	}
	for _, key := range keys {
		if err := wanted.Append(key.Project, key.Session); err != nil {
			return err
		}
	}
	// Partitions load beside one another; threads of one query cost a fifth more.
	ctx = clickhouse.Context(ctx, clickhouse.WithExternalTable(wanted), clickhouse.WithSettings(clickhouse.Settings{"max_threads": 1}))

	err = s.each(ctx, selectEvents, nil, func(rows driver.Rows) error {
		var key Key
		var startedAt time.Time
		var payload []byte
		if err := rows.Scan(&key.Project, &key.Session, &startedAt, &payload); err != nil {
			return err
		}
		e := &eventv1.Event{}
		if err := proto.Unmarshal(payload, e); err != nil {
			return fmt.Errorf("decode stored event: %w", err)
		}
		if t := trails[key]; t != nil {
			t.LoadEvent(e, startedAt)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	err = s.each(ctx, selectSignals, nil, func(rows driver.Rows) error {
		var key Key
		var payload []byte
		if err := rows.Scan(&key.Project, &key.Session, &payload); err != nil {
			return err
		}
		sig := &signalv1.Signal{}
		if err := proto.Unmarshal(payload, sig); err != nil {
			return fmt.Errorf("decode stored signal: %w", err)
		}
		if t := trails[key]; t != nil && t.Signal(sig.SignalId).GetRevision() < sig.Revision {
			t.SetSignal(sig)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read signals: %w", err)
	}
	return nil
}

// Decisions reads the decisions on the signals of a session, oldest first.
func (s *Store) Decisions(ctx context.Context, key Key) ([]*policyv1.Decision, error) {
	var out []*policyv1.Decision
	err := s.each(ctx, selectDecisions, []any{key.Project, key.Session}, func(rows driver.Rows) error {
		var payload []byte
		if err := rows.Scan(&payload); err != nil {
			return err
		}
		d := &policyv1.Decision{}
		if err := proto.Unmarshal(payload, d); err != nil {
			return fmt.Errorf("decode stored decision: %w", err)
		}
		out = append(out, d)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read decisions: %w", err)
	}
	slices.SortFunc(out, func(a, b *policyv1.Decision) int { return a.DecidedAt.AsTime().Compare(b.DecidedAt.AsTime()) })
	return out, nil
}

func (s *Store) each(ctx context.Context, query string, args []any, fn func(driver.Rows) error) error {
	rows, err := s.conn.Query(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := fn(rows); err != nil {
			return err
		}
	}
	return rows.Err()
}

// SaveEvents writes rows of events. nil means that they are stored.
func (s *Store) SaveEvents(ctx context.Context, rows []EventRow) error {
	encoded, err := s.eventRows(rows)
	if err != nil {
		return err
	}
	return eventsLog().Insert(ctx, s.conn, encoded)
}

// SaveSignals writes revisions of signals. nil means that they are stored.
func (s *Store) SaveSignals(ctx context.Context, signals []*signalv1.Signal) error {
	encoded, err := s.signalRows(signals)
	if err != nil {
		return err
	}
	return signalsLog().Insert(ctx, s.conn, encoded)
}
