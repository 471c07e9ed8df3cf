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
	select {
	case s.slots <- struct{}{}:
		defer func() { <-s.slots }()
	case <-ctx.Done():
		return nil, fmt.Errorf("count trends: %w", ctx.Err())
	}
	text, params := q.sql()
	var args []any
	for name, value := range params {
		args = append(args, clickhouse.Named(name, value))
	}
	ctx = clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{
		"max_execution_time": int(maxQueryTime.Seconds()),
		"max_memory_usage":   maxQueryMemory,
	}))
	rows, err := s.conn.Query(ctx, text, args...)
	if err != nil {
		return nil, fmt.Errorf("count trends: %w", Classify(err))
	}
	defer rows.Close()
	var out []Cell
	for rows.Next() {
		var c Cell
		if err := rows.Scan(&c.Bucket, &c.Value, &c.Stratum, &c.Interactions, &c.Responses,
			&c.Clusters.Clusters, &c.X, &c.N, &c.XX, &c.XN, &c.NN); err != nil {
			return nil, fmt.Errorf("count trends: %w", err)
		}
		out = append(out, c)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("count trends: %w", Classify(err))
	}
	return out, nil
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
