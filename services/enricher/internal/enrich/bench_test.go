package enrich

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/honeloop/hone/pkg/embedding"
	"github.com/honeloop/hone/pkg/projects"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/telemetry"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"

	"github.com/honeloop/hone/services/enricher/internal/trail"
	"github.com/honeloop/hone/services/enricher/internal/trail/trailtest"
)

// BenchmarkProcess handles batches of 2,000 events of about 1 KB, six to a
// session, one of them a thumb. One op is one batch. "insert" writes the rows of
// such a batch alone, as the yardstick.
func BenchmarkProcess(b *testing.B) {
	const batch, perSession = 2000, 6
	text := strings.Repeat("A word of the answer. ", 36)
	events := func(n int) []*eventv1.Event {
		var out []*eventv1.Event
		for i := range batch {
			number := n*batch + i
			e := event(fmt.Sprint("e-", number), i)
			e.SessionId = fmt.Sprint("s-", number/perSession)
			e.InteractionId = fmt.Sprint("i-", number/2)
			e.OccurredAt = timestamppb.New(start.Add(1))
			if number%perSession == perSession-1 {
				e.Type, e.Payload = "feedback", &eventv1.Event_Feedback{Feedback: &eventv1.Feedback{Thumb: "down"}}
			} else {
				e.Type, e.Payload = "interaction", &eventv1.Event_Interaction{Interaction: &eventv1.Interaction{Query: fmt.Sprint("Question ", number), Output: text, Model: "m"}}
			}
			out = append(out, e)
		}
		return out
	}
	b.Run("insert", func(b *testing.B) {
		store := trail.NewStore(trailtest.Conn(b))
		for n := 0; b.Loop(); n++ {
			b.StopTimer()
			var rows []trail.EventRow
			for _, e := range events(n) {
				rows = append(rows, trail.EventRow{Event: e, SessionStartedAt: e.OccurredAt.AsTime()})
			}
			b.StartTimer()
			if err := store.SaveEvents(b.Context(), rows); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(batch*b.N)/b.Elapsed().Seconds(), "events/s")
	})
	b.Run("stage", func(b *testing.B) {
		model, err := embedding.NewCached(embedding.NewHash(), 32<<20, telemetry.Discard())
		if err != nil {
			b.Fatal(err)
		}
		meaning := NewMeaning(model)
		st, err := New(trail.NewStore(trailtest.Conn(b)), Options{CacheBytes: 64 << 20, MaxSessionEvents: 1000, Rules: ProjectRules(projects.Defaults(), meaning), Meaning: meaning}, telemetry.Discard().Meter)
		if err != nil {
			b.Fatal(err)
		}
		var offset int64
		for n := 0; b.Loop(); n++ {
			b.StopTimer()
			var recs []stage.Record
			for _, e := range events(n) {
				value, err := proto.Marshal(e)
				if err != nil {
					b.Fatal(err)
				}
				recs = append(recs, stage.Record{Offset: offset, Key: stream.SessionKey(e.ProjectId, e.SessionId), Value: value})
				offset++
			}
			b.StartTimer()
			if _, err := st.Process(b.Context(), recs); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(batch*b.N)/b.Elapsed().Seconds(), "events/s")
	})
}

// BenchmarkLongSession adds one turn, and a thumb on the one before, to a session
// of that many turns, in batches of one event, without a database. One op is one
// such pair; "bytes" is what the trail takes in the cache.
func BenchmarkLongSession(b *testing.B) {
	for _, turns := range []int{100, 1000, 10_000} {
		b.Run(fmt.Sprint(turns), func(b *testing.B) {
			rules, meaning := realRules(b)
			st, err := New(trailtest.NewMemory(), Options{CacheBytes: 64 << 20, MaxSessionEvents: 1 << 20, Rules: rules, Meaning: meaning}, telemetry.Discard().Meter)
			if err != nil {
				b.Fatal(err)
			}
			var offset int64
			send := func(events ...*eventv1.Event) {
				var recs []stage.Record
				for _, e := range events {
					e.SessionId = "long"
					value, err := proto.Marshal(e)
					if err != nil {
						b.Fatal(err)
					}
					recs = append(recs, stage.Record{Offset: offset, Key: stream.SessionKey("p", "long"), Value: value})
					offset++
				}
				if _, err := st.Process(b.Context(), recs); err != nil {
					b.Fatal(err)
				}
			}
			pair := func(n int) (turn, thumb *eventv1.Event) {
				turn = event(fmt.Sprint("e-", n), 2*n)
				turn.InteractionId = fmt.Sprint("i-", n)
				turn.Type, turn.Payload = "interaction", &eventv1.Event_Interaction{Interaction: &eventv1.Interaction{
					Query: fmt.Sprintf("What about thing %d of the %d?", n, n*7), Output: strings.Repeat("A word of the answer. ", 30)}}
				thumb = event(fmt.Sprint("f-", n), 2*n+1)
				thumb.InteractionId = turn.InteractionId
				thumb.Type, thumb.Payload = "feedback", &eventv1.Event_Feedback{Feedback: &eventv1.Feedback{Thumb: "down"}}
				return turn, thumb
			}
			for n := range turns {
				turn, thumb := pair(n)
				if n%10 == 0 {
					send(turn, thumb)
				} else {
					send(turn)
				}
			}
			n := turns
			for b.Loop() {
				turn, thumb := pair(n)
				send(turn)
				send(thumb)
				n++
			}
			b.ReportMetric(float64(st.cache.Bytes()), "bytes")
		})
	}
}
