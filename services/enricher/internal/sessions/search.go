package sessions

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"google.golang.org/protobuf/types/known/timestamppb"

	trailv1 "github.com/honeloop/hone/proto/gen/go/hone/trail/v1"
)

// MaxFound is the most sessions of one page of a search.
const MaxFound = 100

// maxSearchTime bounds a search; beyond it is an error. maxSearchMemory too.
const (
	maxSearchTime   = 15 * time.Second
	maxSearchMemory = 1 << 30
)

// Search is what to look for; what is empty is not looked for.
type Search struct {
	From, To                                     time.Time
	UserID, UserRole, Environment                string
	Model, ModelVersion, PromptVersion, Language string
	Category, Polarity, Text                     string
	Token                                        string
	Size                                         int
}

// matched is SQL: the text of an event in which the searched text was found.
const matched = `multiIf(positionCaseInsensitiveUTF8(query, {text:String}) > 0, query, positionCaseInsensitiveUTF8(output, {text:String}) > 0, output,
    positionCaseInsensitiveUTF8(comment, {text:String}) > 0, comment, positionCaseInsensitiveUTF8(correction, {text:String}) > 0, correction, '')`

// Search finds sessions, those with the newest match first, and the token of
// the next page. Names of columns are ours; all that is looked for goes as
// parameters.
func (s *Store) Search(ctx context.Context, project string, q Search) ([]*trailv1.SessionSummary, string, error) {
	after, has, err := parseToken(q.Token)
	if err != nil {
		return nil, "", err
	}
	args := []any{
		clickhouse.Named("project", project), clickhouse.Named("from_ms", q.From.UnixMilli()), clickhouse.Named("to_ms", q.To.UnixMilli()),
		clickhouse.Named("text", q.Text), clickhouse.Named("category", q.Category), clickhouse.Named("polarity", q.Polarity),
		clickhouse.Named("after_ms", after.ms), clickhouse.Named("after_id", after.id), clickhouse.Named("limit", q.Size+1),
	}
	where := []string{"project_id = {project:String}",
		"occurred_at >= fromUnixTimestamp64Milli({from_ms:Int64}, 'UTC')", "occurred_at < fromUnixTimestamp64Milli({to_ms:Int64}, 'UTC')"}
	of := ""
	for column, value := range map[string]string{
		"user_id": q.UserID, "user_role": q.UserRole, "environment": q.Environment, "model": q.Model, "model_version": q.ModelVersion,
		"prompt_version": q.PromptVersion, "language": q.Language,
	} {
		if value != "" {
			of += " AND " + column + " = {" + column + ":String}"
			args = append(args, clickhouse.Named(column, value))
		}
	}
	match := "''"
	if q.Text != "" {
		match = matched
		where = append(where, "match != ''")
	}
	switch {
	case of == "":
	case q.Text == "":
		where = append(where, "type = 'interaction'"+of)
	default:
		// The text may be in feedback on the interaction.
		where = append(where, `(session_id, interaction_id) IN (SELECT session_id, interaction_id FROM events_log
            WHERE project_id = {project:String} AND occurred_at >= fromUnixTimestamp64Milli({from_ms:Int64}, 'UTC') - INTERVAL 30 DAY
                AND occurred_at < fromUnixTimestamp64Milli({to_ms:Int64}, 'UTC') AND type = 'interaction'`+of+`)`)
	}
	if q.Category != "" || q.Polarity != "" {
		where = append(where, `session_id IN (SELECT session_id FROM signals
            WHERE project_id = {project:String} AND NOT waiting
                AND ({category:String} = '' OR has(categories, {category:String})) AND ({polarity:String} = '' OR polarity = {polarity:String}))`)
	}
	having := "true"
	if has {
		having = "(toUnixTimestamp64Milli(matched_at), session_id) < ({after_ms:Int64}, {after_id:String})"
	}
	ctx = clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{
		"max_execution_time": int(maxSearchTime.Seconds()), "max_memory_usage": maxSearchMemory,
	}))
	// Rows of an event that was written twice change nothing here.
	rows, err := s.conn.Query(ctx, `SELECT session_id, max(occurred_at) AS matched_at, argMax(`+match+` AS match, occurred_at)
FROM events_log WHERE `+strings.Join(where, " AND ")+`
GROUP BY session_id HAVING `+having+`
ORDER BY matched_at DESC, session_id DESC LIMIT {limit:UInt32}`, args...)
	if err != nil {
		return nil, "", fmt.Errorf("search sessions: %w", err)
	}
	defer rows.Close()
	var out []*trailv1.SessionSummary
	next := ""
	for rows.Next() {
		var id, text string
		var at time.Time
		if err := rows.Scan(&id, &at, &text); err != nil {
			return nil, "", fmt.Errorf("search sessions: %w", err)
		}
		if len(out) == q.Size {
			next = after.token()
			break
		}
		out = append(out, &trailv1.SessionSummary{SessionId: id, MatchedAt: timestamppb.New(at), Match: around(text, q.Text)})
		after = cursor{at.UnixMilli(), id}
	}
	if err := rows.Err(); err != nil {
		return nil, "", fmt.Errorf("search sessions: %w", err)
	}
	if len(out) == 0 {
		return nil, "", nil
	}
	if err := s.summarize(ctx, project, out); err != nil {
		return nil, "", fmt.Errorf("summarize sessions: %w", err)
	}
	return out, next, nil
}

const (
	selectSummaries = `SELECT session_id, min(occurred_at), max(occurred_at), uniqExact(event_id), uniqExactIf(interaction_id, type = 'interaction'),
    groupUniqArrayIf(5)(user_id, user_id != ''), groupUniqArrayIf(5)(toString(user_role), user_role != ''),
    groupUniqArrayIf(5)(toString(model), model != ''), groupUniqArrayIf(5)(toString(environment), environment != ''),
    argMinIf(query, (occurred_at, event_id), query != '')
FROM events_log WHERE project_id = {project:String} AND session_id IN {sessions:Array(String)}
GROUP BY session_id`
	selectOpinions = `SELECT session_id, countIf(polarity = 'positive'), countIf(polarity = 'negative'), countIf(polarity = 'neutral'),
    arraySort(groupUniqArrayArray(10)(categories))
FROM signals WHERE project_id = {project:String} AND session_id IN {sessions:Array(String)}
GROUP BY session_id`
)

func (s *Store) summarize(ctx context.Context, project string, out []*trailv1.SessionSummary) error {
	byID := map[string]*trailv1.SessionSummary{}
	var sessions []string
	for _, o := range out {
		byID[o.SessionId] = o
		sessions = append(sessions, o.SessionId)
	}
	args := []any{clickhouse.Named("project", project), clickhouse.Named("sessions", sessions)}
	rows, err := s.conn.Query(ctx, selectSummaries, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id, query string
		var first, last time.Time
		var events, interactions uint64
		var users, roles, models, environments []string
		if err := rows.Scan(&id, &first, &last, &events, &interactions, &users, &roles, &models, &environments, &query); err != nil {
			return err
		}
		o := byID[id]
		o.StartedAt, o.LastAt = timestamppb.New(first), timestamppb.New(last)
		o.Events, o.Interactions = uint32(events), uint32(interactions)
		o.UserIds, o.UserRoles, o.Models, o.Environments = users, roles, models, environments
		o.FirstQuery = shorten(query, maxSnippet)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	rows, err = s.conn.Query(ctx, selectOpinions, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var id string
		var positive, negative, neutral uint64
		var categories []string
		if err := rows.Scan(&id, &positive, &negative, &neutral, &categories); err != nil {
			return err
		}
		o := byID[id]
		o.Positive, o.Negative, o.Neutral, o.Categories = uint32(positive), uint32(negative), uint32(neutral), categories
	}
	return rows.Err()
}

const maxSnippet = 200

// around is at most maxSnippet characters of text with the part that was
// found.
func around(text, found string) string {
	r := []rune(text)
	if len(r) <= maxSnippet {
		return text
	}
	at := strings.Index(strings.ToLower(text), strings.ToLower(found))
	// Lower case may have other lengths; then the start must do.
	start := 0
	if at > 0 && at <= len(text) {
		start = min(max(len([]rune(text[:at]))-maxSnippet/4, 0), len(r)-maxSnippet+1)
	}
	if start == 0 {
		return shorten(text, maxSnippet)
	}
	return "…" + shorten(string(r[start:]), maxSnippet-1)
}
