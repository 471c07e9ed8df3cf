// Package clickhouse opens, migrates and writes the analytic store.
package clickhouse

import (
	"errors"
	"fmt"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// Config says where ClickHouse is.
type Config struct {
	// Addresses of the native protocol, host:port; the first that answers is used.
	Addr     []string `yaml:"addr" env:"ADDR"`
	Database string   `yaml:"database" env:"DATABASE"`
	Username string   `yaml:"username" env:"USERNAME"`
	Password string   `yaml:"password" env:"PASSWORD"`
	// Longest time to connect, and longest time without a byte from the server.
	DialTimeout time.Duration `yaml:"dial_timeout" env:"DIAL_TIMEOUT"`
	ReadTimeout time.Duration `yaml:"read_timeout" env:"READ_TIMEOUT"`
	// Most connections at a time. Each insert and each query holds one.
	MaxConns int `yaml:"max_conns" env:"MAX_CONNS"`
}

// DefaultConfig is database "hone" on this machine.
func DefaultConfig() Config {
	return Config{
		Addr:        []string{"127.0.0.1:9000"},
		Database:    "hone",
		Username:    "default",
		DialTimeout: 5 * time.Second,
		ReadTimeout: 2 * time.Minute,
		MaxConns:    16,
	}
}

// Validate joins all that is wrong.
func (c Config) Validate() error {
	var errs []error
	if len(c.Addr) == 0 {
		errs = append(errs, errors.New("addr: missing, want host:port of the native protocol"))
	}
	if !plainName(c.Database) {
		errs = append(errs, fmt.Errorf("database: %q, want letters, digits and _", c.Database))
	}
	if c.Username == "" {
		errs = append(errs, errors.New("username: missing"))
	}
	if c.DialTimeout <= 0 {
		errs = append(errs, errors.New("dial_timeout: want more than 0"))
	}
	if c.ReadTimeout <= 0 {
		errs = append(errs, errors.New("read_timeout: want more than 0"))
	}
	if c.MaxConns < 1 {
		errs = append(errs, errors.New("max_conns: want at least 1"))
	}
	return errors.Join(errs...)
}

// plainName says whether a name needs no quoting in SQL.
func plainName(s string) bool {
	for i, r := range s {
		letter := r == '_' || 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return s != ""
}

// Open makes a pool of connections. It connects to nothing yet: the first use
// does, and fails where the server or the database is not there.
func Open(cfg Config) (driver.Conn, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("open clickhouse: %w", err)
	}
	conn, err := clickhouse.Open(cfg.options())
	if err != nil {
		return nil, fmt.Errorf("open clickhouse: %w", err)
	}
	return conn, nil
}

func (c Config) options() *clickhouse.Options {
	return &clickhouse.Options{
		Addr: c.Addr,
		Auth: clickhouse.Auth{Database: c.Database, Username: c.Username, Password: c.Password},
		Settings: clickhouse.Settings{
			// An asynchronous insert may answer before its rows are on disk. Ours are
			// already batched, and what follows an answer relies on the rows.
			"async_insert": 0,
			// An import of old history writes into many months at once.
			"max_partitions_per_insert_block": 1200,
		},
		// Text compresses well, and LZ4 costs next to nothing.
		Compression:  &clickhouse.Compression{Method: clickhouse.CompressionLZ4},
		DialTimeout:  c.DialTimeout,
		ReadTimeout:  c.ReadTimeout,
		MaxOpenConns: c.MaxConns,
		MaxIdleConns: c.MaxConns,
		// Connections move to another address after a while, so that load spreads
		// again after one was away.
		ConnMaxLifetime: time.Hour,
	}
}
