package clickhouse

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/pressly/goose/v3"
)

// The schema, one file per step: NNNNN_name.sql, up only. A file that was
// released is never changed. Names stand without a database, so that the
// configured one is used.
//
//go:embed schema/*.sql
var schema embed.FS

// Migrate creates the database where it is missing and brings its schema up to
// this build's. It may be called again at any time, but not twice at once.
func Migrate(ctx context.Context, cfg Config) error {
	newest, err := schemaVersion()
	if err != nil {
		return fmt.Errorf("migrate clickhouse: %w", err)
	}
	return migrateTo(ctx, cfg, newest)
}

func migrateTo(ctx context.Context, cfg Config, version int64) error {
	if err := createDatabase(ctx, cfg); err != nil {
		return fmt.Errorf("migrate clickhouse: %w", err)
	}
	files, err := fs.Sub(schema, "schema")
	if err != nil {
		return fmt.Errorf("migrate clickhouse: %w", err)
	}
	opt := cfg.options()
	db := clickhouse.OpenDB(opt)
	defer db.Close()
	provider, err := goose.NewProvider(goose.DialectClickHouse, db, files)
	if err != nil {
		return fmt.Errorf("migrate clickhouse: read schema: %w", err)
	}
	if _, err := provider.UpTo(ctx, version); err != nil {
		return fmt.Errorf("migrate clickhouse: %w", err)
	}
	return nil
}

func createDatabase(ctx context.Context, cfg Config) error {
	opt := cfg.options()
	opt.Auth.Database = "default" // one cannot connect to a database that is not there
	conn, err := clickhouse.Open(opt)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.Exec(ctx, "CREATE DATABASE IF NOT EXISTS "+cfg.Database); err != nil {
		return fmt.Errorf("create database %s: %w", cfg.Database, err)
	}
	return nil
}

// schemaVersion is the newest step that this build knows.
func schemaVersion() (int64, error) {
	versions, err := schemaVersions()
	if err != nil {
		return 0, err
	}
	return slices.Max(versions), nil
}

func schemaVersions() ([]int64, error) {
	entries, err := schema.ReadDir("schema")
	if err != nil {
		return nil, err
	}
	var out []int64
	for _, e := range entries {
		number, _, _ := strings.Cut(e.Name(), "_")
		v, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("schema/%s: want a number before the first _: %w", e.Name(), err)
		}
		out = append(out, v)
	}
	return out, nil
}

// CheckSchema is nil where the schema is at least what this build needs.
func CheckSchema(ctx context.Context, conn driver.Conn) error {
	want, err := schemaVersion()
	if err != nil {
		return fmt.Errorf("check schema: %w", err)
	}
	var have int64
	if err := conn.QueryRow(ctx, "SELECT max(version_id) FROM goose_db_version WHERE is_applied = 1").Scan(&have); err != nil {
		return fmt.Errorf("check schema: %w", err)
	}
	if have < want {
		return fmt.Errorf("check schema: it is at version %d, this build needs %d: run `hone migrate`", have, want)
	}
	return nil
}

// schemaPoll is the time between two looks at the schema.
const schemaPoll = 250 * time.Millisecond

// WaitForSchema returns once CheckSchema is content, or when ctx ends with
// what it still waited for. A server that is away is waited for.
func WaitForSchema(ctx context.Context, conn driver.Conn) error {
	tick := time.NewTicker(schemaPoll)
	defer tick.Stop()
	var last error
	for {
		err := CheckSchema(ctx, conn)
		if err == nil {
			return nil
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for schema: %w", errors.Join(context.Cause(ctx), last))
		case <-tick.C:
		}
	}
}
