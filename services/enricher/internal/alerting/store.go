// Package alerting watches trends, and posts alerts to webhooks.
package alerting

import (
	"context"
	"fmt"
	"time"

	ch "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/honeloop/hone/pkg/alerts"
	"github.com/honeloop/hone/pkg/clickhouse"
	trendsv1 "github.com/honeloop/hone/proto/gen/go/hone/trends/v1"
)

// Store keeps alerts and what came of telling of them in ClickHouse.
type Store struct{ conn driver.Conn }

// NewStore is the store behind conn.
func NewStore(conn driver.Conn) *Store { return &Store{conn} }

func alertsLog() clickhouse.Table[*alerts.Alert] {
	type a = *alerts.Alert
	trend := func(get func(*alerts.Trend) string) func(a) string {
		return func(x a) string {
			if x.Trend == nil {
				return ""
			}
			return get(x.Trend)
		}
	}
	policy := func(get func(*alerts.Policy) string) func(a) string {
		return func(x a) string {
			if x.Policy == nil {
				return ""
			}
			return get(x.Policy)
		}
	}
	return clickhouse.Table[a]{Name: "alerts_log", Columns: []clickhouse.Column[a]{
		clickhouse.Col("project_id", func(x a) string { return x.ProjectID }),
		clickhouse.Col("alert_id", func(x a) string { return x.AlertID }),
		clickhouse.Col("state", func(x a) string { return x.State }),
		clickhouse.Col("event_id", a.EventID),
		clickhouse.Col("name", func(x a) string { return x.Name }),
		clickhouse.Col("source", func(x a) string {
			if x.Trend != nil {
				return "trend"
			}
			return "policy"
		}),
		clickhouse.Col("severity", func(x a) string { return x.Severity }),
		clickhouse.Col("summary", func(x a) string { return x.Summary }),
		clickhouse.Col("metric", trend(func(t *alerts.Trend) string { return t.Metric })),
		clickhouse.Col("value", func(x a) *float64 {
			if x.Trend == nil {
				return nil
			}
			return &x.Trend.Value
		}),
		clickhouse.Col("signal_id", policy(func(p *alerts.Policy) string { return p.SignalID })),
		clickhouse.Col("session_id", policy(func(p *alerts.Policy) string { return p.SessionID })),
		clickhouse.Col("occurred_at", func(x a) time.Time { return x.At }),
	}}
}

// Delivery is what came of telling one webhook.
type Delivery struct {
	Alert     *alerts.Alert
	URL       string // without query and user
	Delivered bool
	Attempts  int
	Answer    string
	At        time.Time
}

func deliveriesLog() clickhouse.Table[Delivery] {
	type d = Delivery
	return clickhouse.Table[d]{Name: "alert_deliveries_log", Columns: []clickhouse.Column[d]{
		clickhouse.Col("project_id", func(x d) string { return x.Alert.ProjectID }),
		clickhouse.Col("alert_id", func(x d) string { return x.Alert.AlertID }),
		clickhouse.Col("state", func(x d) string { return x.Alert.State }),
		clickhouse.Col("event_id", func(x d) string { return x.Alert.EventID() }),
		clickhouse.Col("url", func(x d) string { return x.URL }),
		clickhouse.Col("delivered", func(x d) bool { return x.Delivered }),
		clickhouse.Col("attempts", func(x d) uint32 { return uint32(x.Attempts) }),
		clickhouse.Col("answer", func(x d) string { return x.Answer }),
		clickhouse.Col("attempted_at", func(x d) time.Time { return x.At }),
	}}
}

// SaveAlerts writes events of alerts. nil means that they are stored.
func (s *Store) SaveAlerts(ctx context.Context, events []*alerts.Alert) error {
	return alertsLog().Insert(ctx, s.conn, events)
}

// SaveDelivery writes what came of telling a webhook.
func (s *Store) SaveDelivery(ctx context.Context, d Delivery) error {
	return deliveriesLog().Insert(ctx, s.conn, []Delivery{d})
}

// Delivered says which webhooks took an event already.
func (s *Store) Delivered(ctx context.Context, project, eventID string) (map[string]bool, error) {
	rows, err := s.conn.Query(ctx, `SELECT DISTINCT url FROM alert_deliveries_log
WHERE project_id = {project:String} AND event_id = {event:String} AND delivered`, ch.Named("project", project), ch.Named("event", eventID))
	if err != nil {
		return nil, fmt.Errorf("read deliveries: %w", err)
	}
	defer rows.Close()
	urls := map[string]bool{}
	for rows.Next() {
		var url string
		if err := rows.Scan(&url); err != nil {
			return nil, fmt.Errorf("read deliveries: %w", err)
		}
		urls[url] = true
	}
	return urls, rows.Err()
}

// OpenTrends are the open alerts on a project's trends, by name.
func (s *Store) OpenTrends(ctx context.Context, project string) (map[string]string, error) {
	rows, err := s.conn.Query(ctx, `SELECT name, max(alert_id) FROM alerts
WHERE project_id = {project:String} AND source = 'trend' AND state = 'open' GROUP BY name`, ch.Named("project", project))
	if err != nil {
		return nil, fmt.Errorf("read open alerts: %w", err)
	}
	defer rows.Close()
	open := map[string]string{}
	for rows.Next() {
		var name, id string
		if err := rows.Scan(&name, &id); err != nil {
			return nil, fmt.Errorf("read open alerts: %w", err)
		}
		open[name] = id
	}
	return open, rows.Err()
}

// List is a project's alerts in a state, or in any where it is empty, those
// that opened last first, with their deliveries.
func (s *Store) List(ctx context.Context, project, state string, limit int) ([]*trendsv1.Alert, error) {
	rows, err := s.conn.Query(ctx, `SELECT alert_id, name, source, state, severity, summary, opened_at, resolved_at FROM alerts
WHERE project_id = {project:String} AND ({state:String} = '' OR state = {state:String})
ORDER BY opened_at DESC, alert_id LIMIT {limit:UInt32}`, ch.Named("project", project), ch.Named("state", state), ch.Named("limit", limit))
	if err != nil {
		return nil, fmt.Errorf("list alerts: %w", err)
	}
	defer rows.Close()
	var out []*trendsv1.Alert
	ids := []string{}
	byID := map[string]*trendsv1.Alert{}
	for rows.Next() {
		a := &trendsv1.Alert{}
		var opened time.Time
		var resolved *time.Time
		if err := rows.Scan(&a.AlertId, &a.Name, &a.Source, &a.State, &a.Severity, &a.Summary, &opened, &resolved); err != nil {
			return nil, fmt.Errorf("list alerts: %w", err)
		}
		a.OpenedAt = timestamppb.New(opened)
		if resolved != nil {
			a.ResolvedAt = timestamppb.New(*resolved)
		}
		out, ids, byID[a.AlertId] = append(out, a), append(ids, a.AlertId), a
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("list alerts: %w", err)
	}
	rows, err = s.conn.Query(ctx, `SELECT alert_id, state, url, delivered, attempts, answer, attempted_at FROM alert_deliveries
WHERE project_id = {project:String} AND alert_id IN {ids:Array(String)} ORDER BY attempted_at, url`, ch.Named("project", project), ch.Named("ids", ids))
	if err != nil {
		return nil, fmt.Errorf("list deliveries: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		d := &trendsv1.Delivery{}
		var id string
		var at time.Time
		if err := rows.Scan(&id, &d.State, &d.Url, &d.Delivered, &d.Attempts, &d.Answer, &at); err != nil {
			return nil, fmt.Errorf("list deliveries: %w", err)
		}
		d.At = timestamppb.New(at)
		if a := byID[id]; a != nil {
			a.Deliveries = append(a.Deliveries, d)
		}
	}
	return out, rows.Err()
}
