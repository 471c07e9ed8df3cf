package enrich

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/telemetry"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"

	"github.com/honeloop/hone/services/enricher/internal/trail/trailtest"
)

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
