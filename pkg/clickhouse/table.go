package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// Table says how values of T become rows.
type Table[T any] struct {
	Name    string
	Columns []Column[T]
}

// Column is one column of a Table. Make it with Col.
type Column[T any] struct {
	Name   string
	append func(rows []T, to driver.BatchColumn) error
}

// Col is the column of that name. V is the Go type that clickhouse-go wants for
// the column's type, such as string, time.Time, []string, map[string]string, or
// *float64 for Nullable(Float64).
func Col[T, V any](name string, get func(row T) V) Column[T] {
	return Column[T]{name, func(rows []T, to driver.BatchColumn) error {
		values := make([]V, len(rows))
		for i, row := range rows {
			values[i] = get(row)
		}
		return to.Append(values)
	}}
}

// Insert writes rows in one INSERT, column by column. nil means that the server
// has stored them all. After an error some may be stored (a part per
// partition), and after a cancelled context even all: write the same rows
// again.
func (t Table[T]) Insert(ctx context.Context, conn driver.Conn, rows []T) error {
	if len(rows) == 0 {
		return nil
	}
	names := make([]string, len(t.Columns))
	for i, c := range t.Columns {
		names[i] = c.Name
	}
	batch, err := conn.PrepareBatch(ctx, "INSERT INTO "+t.Name+" ("+strings.Join(names, ", ")+")")
	if err != nil {
		return fmt.Errorf("insert into %s: %w", t.Name, err)
	}
	for i, c := range t.Columns {
		if err := c.append(rows, batch.Column(i)); err != nil {
			// A batch that failed once is spoilt: give its connection back.
			return fmt.Errorf("insert into %s: column %s: %w", t.Name, c.Name, errors.Join(err, batch.Abort()))
		}
	}
	if err := batch.Send(); err != nil {
		return fmt.Errorf("insert into %s: %w", t.Name, err)
	}
	return nil
}

// The times that a DateTime64 column of the schema takes.
var (
	minTime = time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC)
	maxTime = time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)
)

// CheckTime says whether a time can be stored: from 1970 to 2199. Check before
// Insert, which would store another time.
func CheckTime(t time.Time) error {
	if t.Before(minTime) || !t.Before(maxTime) {
		return fmt.Errorf("time %s: want one from 1970 to 2199", t.Format(time.RFC3339))
	}
	return nil
}
