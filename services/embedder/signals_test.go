package embedder

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"

	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"

	"github.com/honeloop/hone/pkg/ids"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/vector"
)

func TestSignalsJoinOrFoundCases(t *testing.T) {
	type placed struct {
		signal string // the case's founder; empty for no case
		counts string
	}
	tests := []struct {
		name string
		in   []*signalv1.Signal
		want []placed
	}{
		{"a negative signal founds", []*signalv1.Signal{signal("s1", negative, "0")}, []placed{{"s1", "new -1 +0"}}},
		{"a near one joins", []*signalv1.Signal{signal("s1", negative, "0"), signal("s2", negative, "30")},
			[]placed{{"s1", "new -1 +0"}, {"s1", "new -2 +0"}}},
		{"a far one founds its own", []*signalv1.Signal{signal("s1", negative, "0"), signal("s2", negative, "45")},
			[]placed{{"s1", "new -1 +0"}, {"s2", "new -1 +0"}}},
		{"the nearest case wins", []*signalv1.Signal{signal("s1", negative, "0"), signal("s2", negative, "50"), signal("s3", negative, "30")},
			[]placed{{"s1", "new -1 +0"}, {"s2", "new -1 +0"}, {"s2", "new -2 +0"}}},
		{"near is near the founder, not a member", []*signalv1.Signal{signal("s1", negative, "0"), signal("s2", negative, "40"), signal("s3", negative, "45")},
			[]placed{{"s1", "new -1 +0"}, {"s1", "new -2 +0"}, {"s3", "new -1 +0"}}},
		{"positive and neutral ones found none", []*signalv1.Signal{signal("s1", positive, "0"), signal("s2", neutral, "0")},
			[]placed{{"", "none"}, {"", "none"}}},
		{"a positive one joins", []*signalv1.Signal{signal("s1", negative, "0"), signal("s2", positive, "10"), signal("s3", positive, "60")},
			[]placed{{"s1", "new -1 +0"}, {"s1", "new -1 +1"}, {"", "none"}}},
		{"without a query there is no case", []*signalv1.Signal{signal("s1", negative, " "), signal("s2", negative, "", func(s *signalv1.Signal) { s.Interaction = nil })},
			[]placed{{"", "none"}, {"", "none"}}},
	}
	for _, tt := range tests {
		for _, size := range []int{len(tt.in), 1} {
			t.Run(fmt.Sprintf("%s, %d at once", tt.name, size), func(t *testing.T) {
				h := newHarness(t)
				var got []placed
				for batch := range slices.Chunk(tt.in, size) {
					for _, out := range h.send(batch...) {
						p := placed{counts: members(out.GetCase())}
						for _, s := range tt.in {
							if out.GetCase().GetCaseId() == founded(s.GetSignalId()) {
								p.signal = s.GetSignalId()
							}
						}
						if out.GetFounded() != (p.signal == out.GetSignal().GetSignalId()) {
							t.Errorf("%s: founded = %t", out.GetSignal().GetSignalId(), out.GetFounded())
						}
						got = append(got, p)
					}
				}
				if !slices.Equal(got, tt.want) {
					t.Errorf("got %v, want %v", got, tt.want)
				}
			})
		}
	}
}

func TestOutputIsTheWholeSignalWithItsCase(t *testing.T) {
	h := newHarness(t)
	one := signal("s1", negative, "0 degrees", func(s *signalv1.Signal) {
		s.Comment, s.Categories, s.Severity = "wrong", []string{"tone"}, "high"
	})
	two := signal("s2", negative, "30 degrees", func(s *signalv1.Signal) {
		s.Comment, s.Categories, s.UserId = "bad", []string{"tone", "length"}, "user-s1"
		s.Interaction.ModelVersion = "v2"
	})
	out := h.send(one, two)
	if len(out) != 2 || !proto.Equal(out[1].GetSignal(), two) {
		t.Fatalf("out = %v", out)
	}
	if s := out[1].GetSimilarity(); s < 0.866 || s > 0.8661 {
		t.Errorf("similarity = %g, want the cosine of 30 degrees", s)
	}
	want := &casesv1.Case{
		CaseId: founded("s1"), ProjectId: "p", Title: "0 degrees", Anchor: "0 degrees", State: "new", Version: 2,
		Categories: map[string]uint32{"tone": 2, "length": 1}, Negatives: 2, Users: 1, Sessions: 2, Severity: "high",
		FirstSeen: one.GetOccurredAt(), LastSeen: two.GetOccurredAt(),
		Complaints: []string{"bad", "wrong"}, Examples: []string{"30 degrees", "0 degrees"},
		ModelVersions: map[string]uint32{"v1": 1, "v2": 1}, Days: map[string]uint32{"2026-11-24": 2}, Trend: "steady",
	}
	if !proto.Equal(out[1].GetCase(), want) {
		t.Errorf("case = %v\nwant   %v", out[1].GetCase(), want)
	}
	if got := h.stored(founded("s1")); !proto.Equal(got, want) {
		t.Errorf("stored = %v\nwant     %v", got, want)
	}
}

func TestAWithdrawnCaseKeepsItsTimes(t *testing.T) {
	h := newHarness(t)
	one := signal("s1", negative, "0")
	h.send(one)
	h.restart()
	h.send(revised(one, withdrawn))
	c := h.stored(founded("s1"))
	if c.GetState() != stateWithdrawn || !proto.Equal(c.GetFirstSeen(), one.GetOccurredAt()) || !proto.Equal(c.GetLastSeen(), one.GetOccurredAt()) {
		t.Errorf("case = %v", c)
	}
}

func TestRedeliveryGivesTheSameOutputAndStore(t *testing.T) {
	in := []*signalv1.Signal{
		signal("s1", negative, "0"), signal("s2", negative, "30"), signal("s3", positive, "20"), signal("s4", negative, "90"),
		signal("s5", positive, "200"), signal("s6", negative, ""),
	}
	h := newHarness(t)
	first := h.send(in...)
	before, calls := h.index.Snapshot(), h.angles.calls.Load()
	for range 2 {
		again := h.send(in...)
		if !slices.EqualFunc(first, again, func(a, b *casesv1.CaseSignal) bool { return proto.Equal(a, b) }) {
			t.Errorf("redelivered: %v\nwant %v", again, first)
		}
		if !maps.Equal(before, h.index.Snapshot()) {
			t.Error("redelivery changed the store")
		}
		h.restart()
	}
	if h.angles.calls.Load() != calls {
		t.Error("redelivery embedded again")
	}
}

func TestRevisions(t *testing.T) {
	one, two := signal("s1", negative, "0"), signal("s2", negative, "10")
	flipped := revised(one, polarity(positive))
	tests := []struct {
		name  string
		in    []*signalv1.Signal
		last  string // what goes out for the last input: its case, and the one it left
		store string // case of s1, then of s2
	}{
		{"withdrawing the only one withdraws the case", []*signalv1.Signal{one, revised(one, withdrawn)},
			"[withdrawn -0 +0]", "withdrawn -0 +0, none"},
		{"flipping the only one withdraws the case", []*signalv1.Signal{one, flipped},
			"[none withdrawn -0 +0]", "withdrawn -0 +0, none"},
		{"flipping back founds it again", []*signalv1.Signal{one, flipped, revised(flipped, polarity(negative))},
			"[new -1 +0]", "new -1 +0, none"},
		{"a founder's withdrawal keeps the case", []*signalv1.Signal{one, two, revised(one, withdrawn)},
			"[new -1 +0]", "new -1 +0, none"},
		{"a founder's flip keeps the case, which it then speaks for", []*signalv1.Signal{one, two, flipped},
			"[new -1 +1]", "new -1 +1, none"},
		{"the last negative takes the positive ones' case along", []*signalv1.Signal{one, signal("s3", positive, "0"), revised(one, withdrawn)},
			"[withdrawn -0 +1]", "withdrawn -0 +1, none"},
		{"another comment stays", []*signalv1.Signal{one, two, revised(two, func(s *signalv1.Signal) { s.Comment = "no" })},
			"[new -2 +0]", "new -2 +0, none"},
		{"another query moves", []*signalv1.Signal{one, two, revised(two, query("90"))},
			"[new -1 +0 new -1 +0]", "new -1 +0, new -1 +0"},
		{"a founder with another query stays where others joined", []*signalv1.Signal{one, two, revised(one, query("90"))},
			"[new -2 +0]", "new -2 +0, none"},
		{"an older revision is ignored", []*signalv1.Signal{flipped, one}, "[]", "none, none"},
		{"withdrawn from the start", []*signalv1.Signal{revised(one, withdrawn)}, "[none]", "none, none"},
		{"withdrawn and back", []*signalv1.Signal{one, revised(one, withdrawn), revised(flipped, polarity(negative))},
			"[new -1 +0]", "new -1 +0, none"},
	}
	for _, tt := range tests {
		for _, size := range []int{len(tt.in), 1} {
			t.Run(fmt.Sprintf("%s, %d at once", tt.name, size), func(t *testing.T) {
				h := newHarness(t)
				last := tt.in[len(tt.in)-1]
				var got []string
				for batch := range slices.Chunk(tt.in, size) {
					left := false
					for _, out := range h.send(batch...) {
						if proto.Equal(out.GetSignal(), last) {
							got, left = append(got, members(out.GetCase())), true
						} else if out.GetSignal() == nil && left {
							got = append(got, members(out.GetCase()))
						}
					}
				}
				if fmt.Sprint(got) != tt.last {
					t.Errorf("out %v, want %v", got, tt.last)
				}
				if got := members(h.stored(founded("s1"))) + ", " + members(h.stored(founded("s2"))); got != tt.store {
					t.Errorf("stored %s, want %s", got, tt.store)
				}
			})
		}
	}
}

// randomSignals are revisions of some signals around a few angles, each
// signal's in order.
func randomSignals(rng *rand.Rand, n int) []*signalv1.Signal {
	newest := map[string]*signalv1.Signal{}
	var all []*signalv1.Signal
	for range n {
		id := fmt.Sprint("s", rng.IntN(n/3+1))
		change := func(s *signalv1.Signal) {
			s.Polarity = []string{negative, negative, negative, positive, neutral}[rng.IntN(5)]
			s.Withdrawn = rng.IntN(8) == 0
			s.Comment = fmt.Sprint("comment ", rng.IntN(9))
			s.Categories = []string{fmt.Sprint("category ", rng.IntN(3))}
			s.UserId = fmt.Sprint("user ", rng.IntN(4))
			if rng.IntN(5) == 0 {
				s.Interaction.Query = fmt.Sprint(rng.IntN(36) * 10)
			}
		}
		s := newest[id]
		if s == nil {
			s = signal(id, negative, fmt.Sprint(rng.IntN(36)*10), change)
		} else {
			s = revised(s, change)
		}
		newest[id] = s
		all = append(all, s)
	}
	return all
}

func TestBatchesDoNotMatter(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 1))
		in := randomSignals(rng, 60)
		var want map[string]string
		for i := range 4 {
			h := newHarness(t)
			var sizes []int
			for range i * 20 {
				sizes = append(sizes, rng.IntN(6))
			}
			for _, batch := range split(in, sizes...) {
				h.send(batch...)
				if rng.IntN(4) == 0 {
					h.restart()
				}
			}
			got := snapshotWithoutLeft(t, h)
			if want == nil {
				want = got
			}
			if !maps.Equal(got, want) {
				t.Fatalf("seed %d: another store with batches %v", seed, sizes)
			}
			checkCounts(t, h)
		}
	}
}

// snapshotWithoutLeft is the store without what depends on the batches: which
// of the cases on its way a signal left last.
func snapshotWithoutLeft(t *testing.T, h *harness) map[string]string {
	t.Helper()
	objects, err := h.index.List(context.Background(), vector.Exchanges, "p", vector.ListQuery{Limit: vector.MaxResults})
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for key, object := range h.index.Snapshot() {
		if !strings.HasPrefix(key, vector.Exchanges) {
			all[key] = object
		}
	}
	for _, o := range objects {
		e, err := decodeExchange(o)
		if err != nil {
			t.Fatal(err)
		}
		data, err := encode(e.GetPublished())
		if err != nil {
			t.Fatal(err)
		}
		all[o.ID] = string(data)
	}
	return all
}

// checkCounts compares each stored case with a count of the exchanges.
func checkCounts(t *testing.T, h *harness) {
	t.Helper()
	ctx := context.Background()
	exchanges, err := h.index.List(ctx, vector.Exchanges, "p", vector.ListQuery{Limit: vector.MaxResults})
	if err != nil {
		t.Fatal(err)
	}
	type count struct{ negatives, positives uint32 }
	counts := map[string]count{}
	for _, o := range exchanges {
		e, err := decodeExchange(o)
		if err != nil {
			t.Fatal(err)
		}
		c := counts[memberCase(e)]
		switch e.GetPublished().GetSignal().GetPolarity() {
		case negative:
			c.negatives++
		case positive:
			c.positives++
		}
		counts[memberCase(e)] = c
	}
	cases, err := h.index.List(ctx, vector.Cases, "p", vector.ListQuery{Limit: vector.MaxResults})
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range cases {
		var c casesv1.Case
		if err := proto.Unmarshal(o.Payload, &c); err != nil {
			t.Fatal(err)
		}
		if got := (count{c.GetNegatives(), c.GetPositives()}); got != counts[c.GetCaseId()] {
			t.Errorf("case %s says %v, its exchanges %v", c.GetCaseId(), got, counts[c.GetCaseId()])
		}
	}
}

var errDown = errors.New("down")

func TestACrashAtAnyCallIsMadeGoodByRedelivery(t *testing.T) {
	for seed := range uint64(5) {
		in := randomSignals(rand.New(rand.NewPCG(seed, 2)), 40)
		batches := split(in, 8, 8, 8, 8)
		clean := newHarness(t)
		var want []*casesv1.CaseSignal
		for _, b := range batches {
			want = append(want, clean.send(b...)...)
		}
		crashes := 0
		for call := 1; ; call++ {
			h := newHarness(t)
			n := 0
			h.index.Before = func(string, string) error {
				if n++; n == call {
					return errDown
				}
				return nil
			}
			var got []*casesv1.CaseSignal
			crashed := false
			for _, b := range batches {
				out, err := h.signals.Process(context.Background(), records(t, b...))
				if errors.Is(err, errDown) {
					crashed = true
					h.restart()
					out, err = h.signals.Process(context.Background(), records(t, b...))
				}
				if err != nil {
					t.Fatal(err)
				}
				got = append(got, decodeOut(t, out)...)
			}
			if !crashed {
				break
			}
			crashes++
			if !maps.Equal(clean.index.Snapshot(), h.index.Snapshot()) {
				t.Fatalf("seed %d: a crash at call %d leaves another store", seed, call)
			}
			// Revisions that a later one of the batch replaced need no second word.
			if missing := without(want, got); len(missing) > 0 && !superseded(missing, batches) {
				t.Fatalf("seed %d: a crash at call %d loses %v", seed, call, missing)
			}
		}
		if crashes < 20 {
			t.Errorf("only %d crashes", crashes)
		}
	}
}

func without(all, some []*casesv1.CaseSignal) []*casesv1.CaseSignal {
	return slices.DeleteFunc(slices.Clone(all), func(a *casesv1.CaseSignal) bool {
		return slices.ContainsFunc(some, func(b *casesv1.CaseSignal) bool { return sameWord(a, b) })
	})
}

// sameWord says whether b says what a does. A withdrawn signal's case may be told as
// it stands later.
func sameWord(a, b *casesv1.CaseSignal) bool {
	if a.GetSignal().GetWithdrawn() && a.GetCase().GetCaseId() == b.GetCase().GetCaseId() && b.GetCase().GetVersion() >= a.GetCase().GetVersion() {
		return proto.Equal(a.GetSignal(), b.GetSignal())
	}
	return proto.Equal(a, b)
}

// superseded says whether each of some was replaced within its own batch.
func superseded(some []*casesv1.CaseSignal, batches [][]*signalv1.Signal) bool {
	for _, m := range some {
		if m.GetSignal() == nil {
			continue // a case on the way to another state
		}
		for _, b := range batches {
			newest := uint32(0)
			has := false
			for _, s := range b {
				if s.GetSignalId() == m.GetSignal().GetSignalId() {
					newest = max(newest, s.GetRevision())
					has = has || s.GetRevision() == m.GetSignal().GetRevision()
				}
			}
			if has && newest == m.GetSignal().GetRevision() {
				return false
			}
		}
	}
	return true
}

func TestProjectsAreApart(t *testing.T) {
	h := newHarness(t)
	other := signal("s2", negative, "0", func(s *signalv1.Signal) { s.ProjectId = "q" })
	out := h.send(signal("s1", negative, "0"), other, signal("s3", negative, "0"))
	if got := out[1].GetCase(); got.GetCaseId() != ids.Derive("cs", "q", "s2") || got.GetNegatives() != 1 {
		t.Errorf("q: %v", got)
	}
	if got := out[2].GetCase(); got.GetCaseId() != founded("s1") || got.GetNegatives() != 2 {
		t.Errorf("p: %v", got)
	}
}

func TestWhatCannotBeASignalIsNamed(t *testing.T) {
	h := newHarness(t)
	in := records(t, signal("s1", negative, "0"), signal("", negative, "0"), signal("s3", "angry", "0"),
		signal("s4", negative, "0", func(s *signalv1.Signal) { s.ProjectId = "" }), signal("s5", negative, "0", func(s *signalv1.Signal) { s.Revision = 0 }))
	in = append(in, stage.Record{Value: []byte{0xff}}, records(t, signal("s6", negative, "10"))[0])
	out, err := h.signals.Process(context.Background(), in)
	failed, ok := stage.AsBatchError(err)
	if !ok || !slices.Equal(failed.Indexes(), []int{1, 2, 3, 4, 5}) {
		t.Errorf("err = %v", err)
	}
	if got := decodeOut(t, out); len(got) != 2 || got[1].GetCase().GetNegatives() != 2 {
		t.Errorf("out = %v", got)
	}
}

func TestTraceContextTravels(t *testing.T) {
	h := newHarness(t)
	in := records(t, signal("s1", negative, "0"))
	in[0].Headers = []stage.Header{{Key: "traceparent", Value: []byte("00-1-2-01")}, {Key: "other", Value: []byte("x")}}
	out, err := h.signals.Process(context.Background(), in)
	if err != nil || len(out) != 1 || len(out[0].Headers) != 1 || out[0].Headers[0].Key != "traceparent" {
		t.Errorf("out = %+v, %v", out, err)
	}
}

func TestAFullCaseTakesNoMore(t *testing.T) {
	h := newHarness(t)
	h.send(signal("s1", negative, "0"))
	cases, err := h.signals.store.take(context.Background(), "p", []string{founded("s1")})
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxMembers {
		cases[founded("s1")].set(fmt.Sprint("m", i), member{polarity: negative})
	}
	h.signals.store.cache.limit = 2 * maxMembers
	h.signals.store.put(cases)
	if out := h.send(signal("s2", negative, "0"), signal("s3", negative, "0")); out[0].GetCase().GetCaseId() != founded("s2") || out[1].GetCase().GetCaseId() != founded("s2") {
		t.Errorf("out = %v", out)
	}
}

// Partitions are processed at the same time, and reviews beside them.
func TestPartitionsAndReviewsAtOnce(t *testing.T) {
	h := newHarness(t)
	h.send(signal("s1", negative, "0"))
	var g errgroup.Group
	for partition := range 4 {
		g.Go(func() error {
			for batch := range 10 {
				var in []*signalv1.Signal
				for i := range 5 {
					in = append(in, signal(fmt.Sprintf("s%d", 100+partition*50+batch*5+i), negative, fmt.Sprint(i*5)))
				}
				if _, err := h.signals.Process(context.Background(), records(t, in...)); err != nil {
					return err
				}
			}
			return nil
		})
	}
	g.Go(func() error {
		for i := range 10 {
			_, err := h.curation.Process(context.Background(), []stage.Record{eventRecord(t, decided(fmt.Sprint("r", i), "correct", fmt.Sprint("answer ", i), i))})
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	if c := h.stored(founded("s1")); c.GetNegatives() != 201 || c.GetApprovedAnswer() != "answer 9" || c.GetVersion() != 211 {
		t.Errorf("case = %v", c)
	}
	checkCounts(t, h)
}
