package embedder

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"

	"github.com/honeloop/hone/pkg/ids"
	"github.com/honeloop/hone/pkg/projects"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/telemetry"
	"github.com/honeloop/hone/pkg/vector"
	"github.com/honeloop/hone/pkg/vector/vectortest"
)

// angles embeds a text that begins with a number as the unit vector at that
// many degrees. The cosine of 40 degrees is 0.77, that of 45 is 0.71.
type angles struct{ calls atomic.Int64 }

func (*angles) Model() string   { return "angles" }
func (*angles) Dimensions() int { return 2 }
func (a *angles) Embed(_ context.Context, texts []string) ([][]float32, error) {
	a.calls.Add(1)
	var out [][]float32
	for _, t := range texts {
		var degrees float64
		if _, err := fmt.Sscanf(t, "%f", &degrees); err != nil {
			return nil, fmt.Errorf("text %q has no angle", t)
		}
		sin, cos := math.Sincos(degrees * math.Pi / 180)
		out = append(out, []float32{float32(cos), float32(sin)})
	}
	return out, nil
}

// harness is both stages on an index in memory.
type harness struct {
	t        *testing.T
	index    *vectortest.Fake
	angles   *angles
	signals  *signals
	curation *curation
	logged   []stage.Record // changes that caseAPI made
}

func newHarness(t *testing.T) *harness {
	h := &harness{t: t, index: vectortest.NewFake(), angles: &angles{}}
	h.restart()
	return h
}

// restart forgets all that is in memory.
func (h *harness) restart() {
	cfg := DefaultConfig().Cases
	s, c, err := stages(h.index, h.angles, cfg, 0.75, projects.Defaults(), telemetry.Discard())
	if err != nil {
		h.t.Fatal(err)
	}
	h.signals, h.curation = s, c
}

func (h *harness) send(in ...*signalv1.Signal) []*casesv1.CaseSignal {
	h.t.Helper()
	out, err := h.signals.Process(context.Background(), records(h.t, in...))
	if err != nil {
		h.t.Fatal(err)
	}
	return decodeOut(h.t, out)
}

func records(t *testing.T, in ...*signalv1.Signal) []stage.Record {
	t.Helper()
	var recs []stage.Record
	for _, s := range in {
		value, err := proto.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		recs = append(recs, stage.Record{Topic: stream.TopicSignals, Key: stream.SessionKey(s.GetProjectId(), s.GetSessionId()), Value: value})
	}
	return recs
}

func decodeOut(t *testing.T, out []stage.Record) []*casesv1.CaseSignal {
	t.Helper()
	var messages []*casesv1.CaseSignal
	for _, r := range out {
		if r.Topic != stream.TopicCases {
			t.Errorf("output on %s", r.Topic)
		}
		m := &casesv1.CaseSignal{}
		if err := proto.Unmarshal(r.Value, m); err != nil {
			t.Fatal(err)
		}
		messages = append(messages, m)
	}
	return messages
}

// stored is a case as the index has it; nil where there is none.
func (h *harness) stored(id string) *casesv1.Case {
	h.t.Helper()
	objects, err := h.index.Get(context.Background(), vector.Cases, "p", uuids("p", []string{id}), true)
	if err != nil {
		h.t.Fatal(err)
	}
	o, ok := objects[ids.UUID("p", id)]
	if !ok {
		return nil
	}
	c := &casesv1.Case{}
	if err := proto.Unmarshal(o.Payload, c); err != nil {
		h.t.Fatal(err)
	}
	if found := len(o.Vector) > 0; found != (c.GetState() != stateWithdrawn) {
		h.t.Errorf("case %s: state %s, has a vector: %t", id, c.GetState(), found)
	}
	return c
}

var start = time.Date(2026, 11, 24, 9, 0, 0, 0, time.UTC)

// signal is revision 1 of a signal of project p. The minute of its time is the
// number in its id.
func signal(id, polarity, query string, change ...func(*signalv1.Signal)) *signalv1.Signal {
	var n int
	if _, err := fmt.Sscanf(strings.TrimLeft(id, "abcdefghijklmnopqrstuvwxyz"), "%d", &n); err != nil {
		n = 0
	}
	s := &signalv1.Signal{
		SignalId: id, ProjectId: "p", SessionId: "session-" + id, UserId: "user-" + id, Kind: "explicit", Revision: 1,
		Polarity: polarity, Confidence: 0.9, Severity: "medium", OccurredAt: timestamppb.New(start.Add(time.Duration(n) * time.Minute)),
		Interaction: &eventv1.Interaction{Query: query, Output: "an answer", ModelVersion: "v1"},
	}
	for _, c := range change {
		c(s)
	}
	return s
}

func revised(s *signalv1.Signal, change ...func(*signalv1.Signal)) *signalv1.Signal {
	s = proto.CloneOf(s)
	s.Revision++
	for _, c := range change {
		c(s)
	}
	return s
}

func withdrawn(s *signalv1.Signal) { s.Withdrawn = true }

func polarity(p string) func(*signalv1.Signal) {
	return func(s *signalv1.Signal) { s.Polarity = p }
}

func query(q string) func(*signalv1.Signal) {
	return func(s *signalv1.Signal) { s.Interaction.Query = q }
}

// founded is the id of the case that a signal of project p founds.
func founded(signalID string) string { return ids.Derive("cs", "p", signalID) }

// members counts what a case says of its members.
func members(c *casesv1.Case) string {
	if c == nil {
		return "none"
	}
	return fmt.Sprintf("%s -%d +%d", c.GetState(), c.GetNegatives(), c.GetPositives())
}

func split[T any](in []T, sizes ...int) [][]T {
	var out [][]T
	for _, n := range sizes {
		n = min(n, len(in))
		out, in = append(out, in[:n]), in[n:]
	}
	if len(in) > 0 {
		out = append(out, in)
	}
	return slices.DeleteFunc(out, func(b []T) bool { return len(b) == 0 })
}
