// Package erase takes users and sessions out of the stores.
package erase

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"sync"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
)

// Kinds of what is erased.
const (
	User    = "user"
	Session = "session"
)

// Subjects are the hashes of who was erased: some 200 bytes of memory each. It is
// safe for concurrent use.
type Subjects struct {
	conn driver.Conn
	key  []byte

	mu       sync.RWMutex
	hashes   map[string]map[string]bool // by project
	erasures map[string]bool
	rows     uint64
	newest   time.Time
}

// NewSubjects knows nobody until it is refreshed. All enrichers need the same key.
func NewSubjects(conn driver.Conn, key string) *Subjects {
	return &Subjects{conn: conn, key: []byte(key)}
}

// hash stands for a user or session in the store.
func (s *Subjects) hash(project, kind, id string) string {
	h := hmac.New(sha256.New, s.key)
	fmt.Fprintf(h, "%d %s%s %s", len(project), project, kind, id)
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// Refresh reads what was added.
func (s *Subjects) Refresh(ctx context.Context) error {
	var rows uint64
	var newest time.Time
	if err := s.conn.QueryRow(ctx, "SELECT count(), max(created_at) FROM erased_subjects_log").Scan(&rows, &newest); err != nil {
		return fmt.Errorf("read who was erased: %w", err)
	}
	s.mu.RLock()
	same := s.hashes != nil && rows == s.rows && newest.Equal(s.newest)
	s.mu.RUnlock()
	if same {
		return nil
	}
	all, err := s.conn.Query(ctx, "SELECT project_id, subject, erasure_id FROM erased_subjects_log")
	if err != nil {
		return fmt.Errorf("read who was erased: %w", err)
	}
	defer all.Close()
	hashes, erasures := map[string]map[string]bool{}, map[string]bool{}
	for all.Next() {
		var project, hash, erasure string
		if err := all.Scan(&project, &hash, &erasure); err != nil {
			return fmt.Errorf("read who was erased: %w", err)
		}
		if hashes[project] == nil {
			hashes[project] = map[string]bool{}
		}
		hashes[project][hash], erasures[erasure] = true, true
	}
	if err := all.Err(); err != nil {
		return fmt.Errorf("read who was erased: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hashes, s.erasures, s.rows, s.newest = hashes, erasures, rows, newest
	return nil
}

// Learn reads the store where an erasure is not known. It was written there before
// anything named it.
func (s *Subjects) Learn(ctx context.Context, erasureID string) error {
	s.mu.RLock()
	known := s.erasures[erasureID]
	s.mu.RUnlock()
	if known {
		return nil
	}
	return s.Refresh(ctx)
}

// Any says whether anybody of a project was erased.
func (s *Subjects) Any(project string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return len(s.hashes[project]) > 0
}

// Is says whether a user or a session was erased.
func (s *Subjects) Is(project, session, user string) bool {
	s.mu.RLock()
	defer s.mu.RUnlock()
	of := s.hashes[project]
	if len(of) == 0 {
		return false
	}
	return of[s.hash(project, Session, session)] || user != "" && of[s.hash(project, User, user)]
}

// add makes subjects known to all enrichers: to this one at once, to the others
// when they refresh.
func (s *Subjects) add(ctx context.Context, project, erasure, kind string, subjects ...string) error {
	if len(subjects) == 0 {
		return nil
	}
	batch, err := s.conn.PrepareBatch(ctx, "INSERT INTO erased_subjects_log (project_id, subject, erasure_id, created_at)")
	if err != nil {
		return fmt.Errorf("write who is erased: %w", err)
	}
	defer batch.Close()
	now := time.Now()
	for _, subject := range subjects {
		if err := batch.Append(project, s.hash(project, kind, subject), erasure, now); err != nil {
			return fmt.Errorf("write who is erased: %w", err)
		}
	}
	if err := batch.Send(); err != nil {
		return fmt.Errorf("write who is erased: %w", err)
	}
	return s.Refresh(ctx)
}
