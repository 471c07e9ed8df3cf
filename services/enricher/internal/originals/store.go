package originals

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/honeloop/hone/pkg/clickhouse"
	trailv1 "github.com/honeloop/hone/proto/gen/go/hone/trail/v1"

	"github.com/honeloop/hone/services/enricher/internal/redact"
	"github.com/honeloop/hone/services/enricher/internal/trail"
)

// Store keeps originals in ClickHouse.
type Store struct {
	conn          driver.Conn
	keys          Keys
	retentionDays func(project string) int
}

// NewStore is the store behind conn. retentionDays of a project say after how
// many days its originals are deleted; 0 means never.
func NewStore(conn driver.Conn, keys Keys, retentionDays func(project string) int) *Store {
	return &Store{conn, keys, retentionDays}
}

type row struct {
	redact.Original
	id, keyID, sealed string
	expiresOn         time.Time
}

func originalsLog() clickhouse.Table[row] {
	return clickhouse.Table[row]{Name: "originals_log", Columns: []clickhouse.Column[row]{
		clickhouse.Col("project_id", func(r row) string { return r.ProjectID }),
		clickhouse.Col("session_id", func(r row) string { return r.SessionID }),
		clickhouse.Col("placeholder", func(r row) string { return r.Placeholder }),
		clickhouse.Col("original_id", func(r row) string { return r.id }),
		clickhouse.Col("type", func(r row) string { return r.Type.String() }),
		clickhouse.Col("key_id", func(r row) string { return r.keyID }),
		clickhouse.Col("ciphertext", func(r row) string { return r.sealed }),
		clickhouse.Col("occurred_at", func(r row) time.Time { return r.At }),
		clickhouse.Col("expires_on", func(r row) time.Time { return r.expiresOn }),
	}}
}

// Save writes originals, encrypted. nil means that they are stored. The same
// again is the same row; of an original in several events the newest counts.
func (s *Store) Save(ctx context.Context, originals []redact.Original) error {
	type id struct {
		Place
		sealed string
	}
	at := map[id]int{}
	var rows []row
	for _, o := range originals {
		place := Place{o.ProjectID, o.SessionID, o.Placeholder}
		keyID, sealed, err := s.keys.Seal(place, o.Value)
		if err != nil {
			return fmt.Errorf("encrypt an original of project %s: %w", o.ProjectID, err)
		}
		o.Value = "" // it goes no further
		r := row{o, hex.EncodeToString(sealed[:12]), keyID, string(sealed), trail.ExpiresOn(o.At, s.retentionDays(o.ProjectID))}
		i, ok := at[id{place, r.sealed}]
		switch {
		case !ok:
			at[id{place, r.sealed}] = len(rows)
			rows = append(rows, r)
		case rows[i].At.Before(o.At):
			rows[i] = r
		}
	}
	return originalsLog().Insert(ctx, s.conn, rows)
}

// MaxPage is the most originals of a page.
const MaxPage = 1000

// ErrToken says that a page token is not one of ours.
var ErrToken = errors.New("page_token: not one that was given out with the page before")

// List is a page of a session's originals by placeholder, and the token of the
// next one. Those that cannot be read say why.
func (s *Store) List(ctx context.Context, project, session, token string, size int) ([]*trailv1.Original, string, error) {
	data, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return nil, "", ErrToken
	}
	placeholder, id, ok := strings.Cut(string(data), " ")
	if !ok && token != "" {
		return nil, "", ErrToken
	}
	rows, err := s.conn.Query(ctx, `SELECT placeholder, original_id, type, key_id, ciphertext, occurred_at FROM originals_log FINAL
WHERE project_id = {project:String} AND session_id = {session:String} AND (placeholder, original_id) > ({placeholder:String}, {id:String})
    AND expires_on > toDate(now('UTC'))
ORDER BY placeholder, original_id LIMIT {limit:UInt32}`,
		ch.Named("project", project), ch.Named("session", session), ch.Named("placeholder", placeholder), ch.Named("id", id), ch.Named("limit", size+1))
	if err != nil {
		return nil, "", fmt.Errorf("read originals: %w", err)
	}
	defer rows.Close()
	var out []*trailv1.Original
	next := ""
	for rows.Next() {
		o := &trailv1.Original{}
		var at time.Time
		var rowID, sealed string
		if err := rows.Scan(&o.Placeholder, &rowID, &o.Type, &o.KeyId, &sealed, &at); err != nil {
			return nil, "", fmt.Errorf("read originals: %w", err)
		}
		if len(out) == size {
			return out, next, nil
		}
		o.LastAt = timestamppb.New(at)
		if o.Value, err = s.keys.Open(Place{project, session, o.Placeholder}, o.KeyId, []byte(sealed)); err != nil {
			o.Error = err.Error()
		}
		out = append(out, o)
		next = base64.RawURLEncoding.EncodeToString([]byte(o.Placeholder + " " + rowID))
	}
	if err := rows.Err(); err != nil {
		return nil, "", fmt.Errorf("read originals: %w", err)
	}
	return out, "", nil
}
