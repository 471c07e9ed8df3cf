package enrich

import (
	"bytes"
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/proto"

	"github.com/honeloop/hone/pkg/clickhouse"
	"github.com/honeloop/hone/pkg/events"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"

	"github.com/honeloop/hone/services/enricher/internal/redact"
)

// unlimited leaves sizes to the collector, whose limits are configured there.
var unlimited = events.Limits{
	Batch: math.MaxInt, EventBytes: math.MaxInt, IDBytes: math.MaxInt, LabelBytes: math.MaxInt,
	TextBytes: math.MaxInt, Items: math.MaxInt, ClockSkew: math.MaxInt64,
}

// arrived is an event and the index of its record in the batch.
type arrived struct {
	*eventv1.Event
	index     int
	originals []redact.Original
}

// decodeAll reads the events of a batch, and takes personal data out of them.
func (s *Stage) decodeAll(in []stage.Record, n *counts, fail func(index int, err error)) []arrived {
	out := make([]arrived, 0, len(in))
	for i, rec := range in {
		e, err := decode(rec)
		if err != nil {
			fail(i, err)
			continue
		}
		var originals []redact.Original
		if s.opts.Redact != nil {
			var found redact.Counts
			found, originals = s.opts.Redact(e)
			for t, k := range found {
				n.redactions[t] += k
			}
		}
		out = append(out, arrived{e, i, originals})
	}
	return out
}

// decode reads an event from a record of hone.events. An error means that the
// record can never be processed.
func decode(rec stage.Record) (*eventv1.Event, error) {
	e := &eventv1.Event{}
	if err := proto.Unmarshal(rec.Value, e); err != nil {
		return nil, fmt.Errorf("decode event: %w", err)
	}
	switch {
	case e.ProjectId == "":
		return nil, errors.New("event without project_id")
	case e.EventId == "":
		return nil, errors.New("event without event_id")
	case e.OccurredAt == nil:
		return nil, errors.New("event without occurred_at")
	case !bytes.Equal(rec.Key, stream.SessionKey(e.ProjectId, e.SessionId)):
		// It may be in another session's partition, which somebody else writes.
		return nil, errors.New("record key is not project and session of the event")
	}
	if e.Type == events.TypeTimer {
		if e.GetTimer() == nil || e.SessionId == "" {
			return nil, errors.New("timer without its payload or session")
		}
	} else if err := events.Validate(e, e.OccurredAt.AsTime(), unlimited); err != nil {
		return nil, fmt.Errorf("invalid event: %w", err)
	}
	if err := errors.Join(clickhouse.CheckTime(e.OccurredAt.AsTime()), clickhouse.CheckTime(e.ReceivedAt.AsTime())); err != nil {
		return nil, fmt.Errorf("invalid event: %w", err)
	}
	return e, nil
}
