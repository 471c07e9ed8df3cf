package trends

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/honeloop/hone/services/enricher/internal/trends/stats"
)

// Cell is what was counted of a bucket, a value and a stratum. Its clusters are
// sessions.
type Cell struct {
	Bucket         time.Time
	Value, Stratum string
	// All interactions, and those that somebody said something about.
	Interactions, Responses uint64
	stats.Clusters
}

// Limits of one query, beyond which it is an error that says so.
const (
	maxQueryTime   = 20 * time.Second
	maxQueryMemory = 2 << 30
	// maxQueries at a time; others wait.
	maxQueries = 4
)

// ErrTooLarge says that a query was given up, since it took too long or too
// much memory.
var ErrTooLarge = errors.New("too much to count")

// Store counts in ClickHouse.
type Store struct {
	conn  driver.Conn
	slots chan struct{}
}

// NewStore is the store behind conn.
func NewStore(conn driver.Conn) *Store {
	return &Store{conn: conn, slots: make(chan struct{}, maxQueries)}
}

// Cells counts. Cells without interactions are missing.
func (s *Store) Cells(ctx context.Context, q Query) ([]Cell, error) {
	cells, err := s.count(ctx, q, q.Stratum)
	if err != nil {
		return nil, err
	}
	return cells[0], nil
}

// count counts as Cells does, once for each of the dimensions that strata are
// values of, in one pass over the interactions.
func (s *Store) count(ctx context.Context, q Query, strata ...Dimension) (_ [][]Cell, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("count trends: %w", err)
		}
	}()
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	by := newCodes(q.By, q.Values)
	if len(q.Values) == 0 {
		if by, err = s.codes(ctx, q, by, q.By, q.Limit); err != nil {
			return nil, err
		}
	}
	within := make([]codes, len(strata))
	for i, d := range strata {
		if within[i], err = s.codes(ctx, q, by, d, maxStrata); err != nil {
			return nil, err
		}
	}
	text, params := q.sql(by, within)
	out := make([][]Cell, len(strata))
	err = s.query(ctx, text, params, func(rows driver.Rows) error {
		var c Cell
		var dimension uint32
		var value, stratum uint8
		err := rows.Scan(&dimension, &c.Bucket, &value, &stratum, &c.Interactions, &c.Responses,
			&c.Clusters.Clusters, &c.X, &c.N, &c.XX, &c.XN, &c.NN)
		if err != nil {
			return err
		}
		i := dimension - 1
		c.Value, c.Stratum = by.value(value), within[i].value(stratum)
		out[i] = append(out[i], c)
		return nil
	})
	return out, err
}

// codes finds the values of d that are told apart. Most dimensions have so few
// that all are, and need not be counted for that. A value that is first seen
// after this is among the others.
func (s *Store) codes(ctx context.Context, q Query, by codes, d Dimension, limit int) (codes, error) {
	if d == "" {
		return newCodes(d, []string{""}), nil
	}
	text, params := q.some(d, limit+1)
	values, err := s.strings(ctx, text, params)
	if err == nil && len(values) > limit {
		text, params = q.top(by, d, limit)
		values, err = s.strings(ctx, text, params)
	}
	return newCodes(d, values), err
}

func (s *Store) strings(ctx context.Context, text string, params parameters) ([]string, error) {
	var out []string
	err := s.query(ctx, text, params, func(rows driver.Rows) error {
		out = append(out, "")
		return rows.Scan(&out[len(out)-1])
	})
	return out, err
}

// query calls each for each row of an answer.
func (s *Store) query(ctx context.Context, text string, params parameters, each func(driver.Rows) error) error {
	var args []any
	for name, value := range params {
		args = append(args, clickhouse.Named(name, value))
	}
	ctx = clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{
		"max_execution_time": int(maxQueryTime.Seconds()),
		"max_memory_usage":   maxQueryMemory,
		// Beyond this, groups go to disk: slower, but not refused.
		"max_bytes_before_external_group_by": maxQueryMemory / 2,
	}))
	rows, err := s.conn.Query(ctx, text, args...)
	if err != nil {
		return Classify(err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := each(rows); err != nil {
			return err
		}
	}
	return Classify(rows.Err())
}

// Classify marks what ClickHouse gave up because of its limits.
func Classify(err error) error {
	const timeoutExceeded, tooSlow, memoryLimitExceeded = 159, 160, 241
	if e, ok := errors.AsType[*clickhouse.Exception](err); ok {
		switch e.Code {
		case timeoutExceeded, tooSlow, memoryLimitExceeded:
			return fmt.Errorf("%w: %w", ErrTooLarge, err)
		}
	}
	return err
}
