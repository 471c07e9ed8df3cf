package enricher

import (
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/honeloop/hone/pkg/clickhouse"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"

	"github.com/honeloop/hone/services/enricher/internal/trail"
	"github.com/honeloop/hone/services/enricher/internal/trail/trailtest"
)

// TestViewsFilterByMonth pins that a filter on the time of a view reads only
// the months that it is about.
func TestViewsFilterByMonth(t *testing.T) {
	conn, err := clickhouse.Open(trailtest.Config(t))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var rows []trail.EventRow
	for month := range 6 {
		e := event("e", "s", 0, &eventv1.Interaction{Query: "?"})
		at := time.Date(2026, time.Month(1+month), 15, 0, 0, 0, 0, time.UTC)
		e.OccurredAt = timestamppb.New(at)
		rows = append(rows, trail.EventRow{Event: e, SessionStartedAt: at})
	}
	if err := trail.NewStore(conn).SaveEvents(t.Context(), rows); err != nil {
		t.Fatal(err)
	}
	var parts uint64
	err = conn.QueryRow(t.Context(), `SELECT toUInt64(extract(arrayStringConcat(groupArray(explain), ' '), 'Parts: (\\d+)/6'))
		FROM (EXPLAIN indexes = 1 SELECT count() FROM events WHERE occurred_at >= '2026-06-01')`).Scan(&parts)
	if err != nil || parts != 1 {
		t.Errorf("reads %d of 6 months, %v; want 1", parts, err)
	}
}
