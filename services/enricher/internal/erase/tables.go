package erase

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/ext"

	"github.com/honeloop/hone/pkg/ids"

	"github.com/honeloop/hone/services/enricher/internal/trail"
)

const (
	// idsAtOnce bounds the ids of one statement.
	idsAtOnce = 2000
	// masksAtOnce bounds the texts of one statement.
	masksAtOnce = 200
	// longQuery is enough for statements of so many; ClickHouse's default is 256 KiB.
	longQuery = 16 << 20
	// trailsAtOnce bounds the trails in memory.
	trailsAtOnce = 100

	weaviate = "weaviate"
)

// scope is what belongs to a subject.
type scope struct {
	project, kind, subject string
	// sessions have events of the subject; in those that are alone, nobody else is
	// named.
	sessions, alone []string
	// signals are erased, cases are those that they may have been in, and queries
	// what the subject asked.
	signals, cases, reviews, queries []string
}

// column is what names the subject in tables that do.
func (s *scope) column() string {
	if s.kind == User {
		return "user_id"
	}
	return "session_id"
}

// rows are those of a table whose column has one of some ids.
type rows struct {
	table, column string
	ids           []string
	// outdated means only those that a newer version replaced.
	key, version string
}

// places are all that may have to go.
func (s *scope) places() []rows {
	out := []rows{{table: "events_log", column: s.column(), ids: []string{s.subject}}, {table: "events_log", column: "session_id", ids: s.alone}}
	if s.kind == Session {
		out = out[:1]
		out = append(out, rows{table: "shadow_decisions_log", column: "session_id", ids: []string{s.subject}},
			rows{table: "alerts_log", column: "session_id", ids: []string{s.subject}})
	}
	// They do not say whose they are: all of the sessions go.
	out = append(out, rows{table: "originals_log", column: "session_id", ids: s.sessions})
	for _, table := range []string{"signals_log", "decisions_log", "reviews_log", "dataset_rows_log", "patches_log", "product_issues_log"} {
		out = append(out, rows{table: table, column: s.column(), ids: []string{s.subject}}, rows{table: table, column: "signal_id", ids: s.signals})
	}
	for _, table := range []string{"shadow_decisions_log", "review_decisions_log", "alerts_log"} {
		out = append(out, rows{table: table, column: "signal_id", ids: s.signals})
	}
	return append(out,
		rows{table: "review_withdrawals_log", column: "review_id", ids: s.reviews},
		// What a case, or another's signal, said while the subject was in it.
		rows{table: "cases_log", column: "case_id", ids: s.cases, key: "case_id", version: "version"},
		rows{table: "signals_log", column: "session_id", ids: s.sessions, key: "signal_id", version: "revision"})
}

// byTable are the places of each table, and the tables in order.
func (s *scope) byTable() (tables []string, places map[string][]rows) {
	places = map[string][]rows{}
	for _, p := range s.places() {
		if places[p.table] == nil {
			tables = append(tables, p.table)
		}
		places[p.table] = append(places[p.table], p)
	}
	return tables, places
}

func (r rows) condition(project string, chunk []string) (string, []any) {
	where, args := "project_id = ? AND "+r.column+" IN (?)", []any{project, chunk}
	if r.version != "" {
		where += fmt.Sprintf(" AND (%s, %s) NOT IN (SELECT %[1]s, max(%[2]s) FROM %[3]s WHERE project_id = ? AND %[4]s IN (?) GROUP BY %[1]s)",
			r.key, r.version, r.table, r.column)
		args = append(args, project, chunk)
	}
	return where, args
}

// scope finds what belongs to a subject.
func (e *Eraser) scope(ctx context.Context, project, kind, subject string) (*scope, error) {
	s := &scope{project: project, kind: kind, subject: subject}
	if kind == Session {
		s.sessions, s.alone = []string{subject}, []string{subject}
	} else if err := e.sessions(ctx, s); err != nil {
		return nil, fmt.Errorf("find sessions: %w", err)
	}
	for _, where := range []rows{{column: s.column(), ids: []string{subject}}, {column: "session_id", ids: s.alone}} {
		for chunk := range slices.Chunk(where.ids, idsAtOnce) {
			found, err := e.strings(ctx, "SELECT DISTINCT query FROM events_log WHERE project_id = ? AND type = 'interaction' AND query != '' AND "+where.column+" IN (?)", project, chunk)
			if err != nil {
				return nil, fmt.Errorf("read queries: %w", err)
			}
			s.queries = append(s.queries, found...)
		}
	}
	// Those of the subject; addErased adds the others that it has taken with it.
	found, err := e.strings(ctx, "SELECT DISTINCT signal_id FROM signals_log WHERE project_id = ? AND "+s.column()+" = ?", project, subject)
	if err != nil {
		return nil, fmt.Errorf("find signals: %w", err)
	}
	return s, e.addSignals(ctx, s, found)
}

// sessions finds those of a user, and in which nobody else is named.
func (e *Eraser) sessions(ctx context.Context, s *scope) error {
	found, err := e.conn.Query(ctx, `SELECT session_id, countIf(user_id NOT IN ('', ?)) = 0 FROM events_log WHERE project_id = ? AND session_id IN
(SELECT session_id FROM events_log WHERE project_id = ? AND user_id = ? UNION DISTINCT SELECT session_id FROM signals_log WHERE project_id = ? AND user_id = ?)
GROUP BY session_id`, s.subject, s.project, s.project, s.subject, s.project, s.subject)
	if err != nil {
		return err
	}
	defer found.Close()
	for found.Next() {
		var id string
		var alone uint8
		if err := found.Scan(&id, &alone); err != nil {
			return err
		}
		s.sessions = append(s.sessions, id)
		if alone == 1 {
			s.alone = append(s.alone, id)
		}
	}
	return found.Err()
}

// addErased adds the signals that were withdrawn because of it in some sessions.
func (e *Eraser) addErased(ctx context.Context, s *scope, sessions []string) error {
	var erased []string
	for chunk := range slices.Chunk(sessions, trailsAtOnce) {
		var keys []trail.Key
		for _, session := range chunk {
			keys = append(keys, trail.Key{Project: s.project, Session: session})
		}
		trails, err := e.store.Load(ctx, keys)
		if err != nil {
			return err
		}
		for _, t := range trails {
			for _, sig := range t.Signals() {
				if sig.Erased {
					erased = append(erased, sig.SignalId)
				}
			}
		}
	}
	s.sessions = sessions
	return e.addSignals(ctx, s, erased)
}

func (e *Eraser) addSignals(ctx context.Context, s *scope, signals []string) error {
	s.signals = slices.Compact(slices.Sorted(slices.Values(append(s.signals, signals...))))
	cases := map[string]bool{}
	reviews := map[string]bool{}
	for chunk := range slices.Chunk(s.signals, idsAtOnce) {
		for _, id := range chunk {
			cases[ids.Derive("cs", s.project, id)] = true
		}
		found, err := e.strings(ctx, "SELECT DISTINCT case_id FROM decisions_log WHERE project_id = ? AND signal_id IN (?) AND case_id != ''", s.project, chunk)
		if err != nil {
			return fmt.Errorf("find cases: %w", err)
		}
		for _, id := range found {
			cases[id] = true
		}
		if found, err = e.strings(ctx, "SELECT DISTINCT review_id FROM reviews_log WHERE project_id = ? AND signal_id IN (?)", s.project, chunk); err != nil {
			return fmt.Errorf("find reviews: %w", err)
		}
		for _, id := range found {
			reviews[id] = true
		}
	}
	s.cases, s.reviews = s.cases[:0], s.reviews[:0]
	for id := range cases {
		s.cases = append(s.cases, id)
	}
	for id := range reviews {
		s.reviews = append(s.reviews, id)
	}
	return nil
}

func (e *Eraser) strings(ctx context.Context, query string, args ...any) ([]string, error) {
	found, err := e.conn.Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer found.Close()
	var out []string
	for found.Next() {
		var s string
		if err := found.Scan(&s); err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, found.Err()
}

// counts are the rows that are there, by table: all revisions, each row once for
// each of its names. In Weaviate the embedder replaces what it has of each signal,
// and has read it back when it has passed it.
func (e *Eraser) counts(ctx context.Context, s *scope) (map[string]uint64, error) {
	out := map[string]uint64{}
	tables, places := s.byTable()
	for _, table := range tables {
		var n uint64
		if err := e.eachChunk(s, places[table], func(_ rows, where string, args []any) error {
			var one uint64
			if err := e.conn.QueryRow(ctx, "SELECT count() FROM "+table+" WHERE "+where, args...).Scan(&one); err != nil {
				return fmt.Errorf("count rows of %s: %w", table, err)
			}
			n += one
			return nil
		}); err != nil {
			return nil, err
		}
		out[table] = n
	}
	out[weaviate] = uint64(len(s.signals))
	return out, nil
}

// eachChunk calls fn for the conditions of some places, each row of which is in
// one of them only.
func (e *Eraser) eachChunk(s *scope, places []rows, fn func(rows, string, []any) error) error {
	not, notArgs := "", []any(nil)
	for _, p := range places {
		for chunk := range slices.Chunk(p.ids, idsAtOnce) {
			where, args := p.condition(s.project, chunk)
			if err := fn(p, where+not, append(args, notArgs...)); err != nil {
				return err
			}
		}
		if len(p.ids) == 1 { // the subject's own column
			not, notArgs = " AND "+p.column+" != ?", []any{p.ids[0]}
		}
	}
	return nil
}

// remove deletes the rows, and what others' rows quote. It tells each step. Each
// table gets one mutation, as that goes through all of its parts.
func (e *Eraser) remove(ctx context.Context, s *scope, tell func(step string) error) error {
	if err := tell("until others' titles are masked"); err != nil {
		return err
	}
	e.haltPurge(ctx)
	if err := e.mask(ctx, s); err != nil {
		return err
	}
	tables, places := s.byTable()
	for _, table := range tables {
		for n := 0; ; n++ {
			where, args := anyOf(s.project, places[table], n)
			if where == "" {
				break
			}
			var found uint64
			if err := e.conn.QueryRow(ctx, "SELECT count() FROM "+table+" WHERE "+where, args...).Scan(&found); err != nil {
				return fmt.Errorf("count rows of %s: %w", table, err)
			}
			if found == 0 {
				continue
			}
			if err := tell("until rows of " + table + " are deleted"); err != nil {
				return err
			}
			if err := e.conn.Exec(ctx, "DELETE FROM "+table+" WHERE "+where, args...); err != nil {
				return fmt.Errorf("delete rows of %s: %w", table, err)
			}
		}
	}
	return nil
}

// anyOf is the condition of the n-th ids of each of some places; empty where none
// has so many.
func anyOf(project string, places []rows, n int) (where string, args []any) {
	var wheres []string
	for _, p := range places {
		from := n * idsAtOnce
		if from >= len(p.ids) {
			continue
		}
		one, with := p.condition(project, p.ids[from:min(from+idsAtOnce, len(p.ids))])
		wheres, args = append(wheres, "("+one+")"), append(args, with...)
	}
	return strings.Join(wheres, " OR "), args
}

// purge asks that deleted rows are taken out of the files of all tables, in the
// background.
func (e *Eraser) purge(ctx context.Context) error {
	tables, err := e.strings(ctx, "SELECT DISTINCT table FROM system.parts WHERE database = currentDatabase() AND active AND has_lightweight_delete")
	if err != nil {
		return fmt.Errorf("find files with deleted rows: %w", err)
	}
	for _, table := range tables {
		if err := e.conn.Exec(ctx, "ALTER TABLE "+table+" APPLY DELETED MASK SETTINGS mutations_sync = 0"); err != nil {
			return fmt.Errorf("take deleted rows out of the files of %s: %w", table, err)
		}
	}
	return nil
}

// haltPurge stops what an earlier purge still does: mutations take turns, and it
// writes every file with a deleted row anew, which takes long. purge has to follow.
func (e *Eraser) haltPurge(ctx context.Context) {
	if err := e.conn.Exec(ctx, "KILL MUTATION WHERE database = currentDatabase() AND NOT is_done AND command LIKE '%APPLY DELETED MASK%'"); err != nil && ctx.Err() == nil {
		e.log.Warn("an erasure waits until the files of an earlier one are written", "error", err)
	}
}

// quoted is how much of a query a title or text has at least before it is cut.
const quoted = 100

// mask puts asterisks in place of the subject's queries where rows about other
// people's signals quote them as the title of their case. Their length stays, as
// the stored messages need it. Who asked the same keeps it.
func (e *Eraser) mask(ctx context.Context, s *scope) error {
	// Rows that go anyway need none.
	gone, err := ext.NewTable("gone", ext.Column("signal_id", "String"))
	if err != nil {
		return fmt.Errorf("mask titles: %w", err)
	}
	for _, id := range s.signals {
		if err := gone.Append(id); err != nil {
			return fmt.Errorf("mask titles: %w", err)
		}
	}
	others := clickhouse.Context(ctx, clickhouse.WithExternalTable(gone))
	for _, in := range []struct{ table, column string }{{"reviews_log", "case_title"}, {"product_issues_log", "title"}, {"patches_log", "text"}} {
		for chunk := range slices.Chunk(s.cases, idsAtOnce) {
			texts, err := e.strings(others, "SELECT DISTINCT "+in.column+" FROM "+in.table+" WHERE project_id = ? AND case_id IN (?) AND "+
				s.column()+" != ? AND signal_id NOT IN gone", s.project, chunk, s.subject)
			if err != nil {
				return fmt.Errorf("read %s of %s: %w", in.column, in.table, err)
			}
			texts = slices.DeleteFunc(texts, func(text string) bool { return quoteIn(text, s.queries) == "" })
			for some := range slices.Chunk(texts, masksAtOnce) {
				if err := e.maskTexts(ctx, s, in.table, in.column, chunk, some); err != nil {
					return fmt.Errorf("mask %s of %s: %w", in.column, in.table, err)
				}
			}
		}
	}
	return nil
}

// maskTexts masks what some texts quote, in one mutation.
func (e *Eraser) maskTexts(ctx context.Context, s *scope, table, column string, cases, texts []string) error {
	var quotes, stars []string
	for _, text := range texts {
		quote := quoteIn(text, s.queries)
		quotes, stars = append(quotes, quote), append(stars, strings.Repeat("*", len(quote)))
	}
	// In the words of SQL: what a row's text quotes, and what comes in its place.
	// Other rows have neither; they are written as they are.
	quote, star := "transform("+column+", ?, ?, '-')", "transform("+column+", ?, ?, '-')"
	set := column + " = replaceAll(" + column + ", " + quote + ", " + star + ")"
	args := []any{texts, quotes, texts, stars}
	where := " WHERE project_id = ? AND case_id IN (?) AND " + column + " IN (?)"
	if table == "product_issues_log" {
		where += " AND query != " + quote
	} else {
		set += ", payload = replaceAll(payload, " + quote + ", " + star + ")"
		args = append(args, texts, quotes, texts, stars)
		where += " AND countSubstrings(payload, " + quote + ") = 1"
	}
	args = append(args, s.project, cases, texts, texts, quotes)
	return e.conn.Exec(ctx, "ALTER TABLE "+table+" UPDATE "+set+where+" SETTINGS mutations_sync = 2", args...)
}

// quoteIn is the part of a title, or of the subject that a patch is about, that
// is one of the queries, whole or cut.
func quoteIn(text string, queries []string) string {
	subject, _, _ := strings.Cut(strings.TrimPrefix(text, "When asked about: "), "\n")
	cut := strings.TrimSuffix(subject, "…")
	for _, q := range queries {
		for _, form := range []string{strings.TrimSpace(q), strings.Join(strings.Fields(q), " ")} {
			if cut != "" && (cut == form || cut != subject && len(cut) >= quoted && strings.HasPrefix(form, cut)) {
				return cut
			}
		}
	}
	return ""
}
