package embedder

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"

	"github.com/honeloop/hone/pkg/embedded/embeddedtest"
	"github.com/honeloop/hone/pkg/embedding"
	"github.com/honeloop/hone/pkg/projects"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/telemetry"
	"github.com/honeloop/hone/pkg/vector"
)

// pass makes one pass over project p with the harness's log, and says what
// came of it.
func (h *harness) pass(merge float64) (*pass, func() []string) {
	p := newPass(h.index, func(ctx context.Context, recs ...stage.Record) error {
		h.logged = append(h.logged, recs...)
		_, err := h.curation.Process(ctx, recs)
		return err
	}, projects.Defaults(), merge, telemetry.Discard().Log)
	p.now = func() time.Time { return start.Add(time.Hour) }
	return p, func() []string {
		h.t.Helper()
		from := len(h.logged)
		if _, err := p.project(context.Background(), "p"); err != nil {
			h.t.Fatal(err)
		}
		var out []string
		for _, r := range h.logged[from:] {
			e, err := decodeCuration(r.Value)
			if err != nil {
				h.t.Fatal(err)
			}
			out = append(out, fmt.Sprintf("%T", e.GetPayload())[len("*curationv1.CurationEvent_"):])
		}
		slices.Sort(out)
		return out
	}
}

func category(name string) func(*signalv1.Signal) {
	return func(s *signalv1.Signal) { s.Categories = []string{name} }
}

func TestThePassMergesDoubles(t *testing.T) {
	h := newHarness(t)
	// The founders are 44 degrees apart, the means of the cases 30.
	h.send(signal("s1", negative, "0"), signal("s2", negative, "44"), signal("s3", negative, "14"), signal("s4", negative, "31"), signal("s5", negative, "200"))
	p, once := h.pass(0.8)
	if got := once(); !slices.Equal(got, []string{"CaseMerged"}) {
		t.Fatalf("events: %v", got)
	}
	if a, b := h.stored(founded("s1")), h.stored(founded("s2")); a.GetNegatives() != 4 || b.GetMergedInto() != founded("s1") {
		t.Errorf("cases: %v, %v", a, b)
	}
	checkCounts(t, h)
	// Then the case has words; then there is nothing to do, here and elsewhere.
	if got := once(); !slices.Equal(got, []string{"CaseSummarized"}) {
		t.Errorf("second pass: %v", got)
	}
	if c := h.stored(founded("s1")); c.GetTitle() != "14" || c.GetSummary() != "14 / 31 / 44" {
		t.Errorf("title %q, summary %q", c.GetTitle(), c.GetSummary())
	}
	once()
	before := h.index.Snapshot()
	other, again := h.pass(0.8)
	_ = other
	if got := append(once(), again()...); len(got) != 0 || len(before) != len(h.index.Snapshot()) {
		t.Errorf("third pass: %v", got)
	}
	h.again()

	// What somebody takes back stays so.
	h.undo(founded("s2"), "")
	clear(p.seen)
	if got := once(); slices.Contains(got, "CaseMerged") {
		t.Errorf("after undo: %v", got)
	}
	if a := h.stored(founded("s2")); a.GetNegatives() != 2 {
		t.Errorf("after undo: %v", a)
	}
}

func TestThePassLeavesApart(t *testing.T) {
	tests := map[string]func(h *harness){
		"far cases": func(h *harness) { h.send(signal("s1", negative, "0"), signal("s2", negative, "90")) },
		"other categories": func(h *harness) {
			h.send(signal("s1", negative, "0", category("tone")), signal("s2", negative, "44", category("facts")))
		},
		"other answers": func(h *harness) {
			h.send(signal("s1", negative, "0"), signal("s2", negative, "42"))
			for i, s := range []string{"s1", "s2"} {
				if _, err := h.caseAPI().SolveCase(as("p"), &casesv1.SolveCaseRequest{CaseId: founded(s), Answer: fmt.Sprint("answer ", i)}); err != nil {
					h.t.Fatal(err)
				}
			}
		},
		"muted cases": func(h *harness) {
			h.send(signal("s1", negative, "0"), signal("s2", negative, "42"))
			muted := stateMuted
			h.update(founded("s1"), func(r *casesv1.UpdateCaseRequest) { r.State = &muted })
		},
	}
	for name, setup := range tests {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			setup(h)
			if _, once := h.pass(0.7); true {
				if got := once(); len(got) != 0 {
					t.Errorf("events: %v", got)
				}
			}
		})
	}
}

func TestThePassSplitsMixtures(t *testing.T) {
	h := newHarness(t)
	var in []*signalv1.Signal
	for i, angle := range []int{0, 3, -3, 38, 40, -40} { // all near the founder, and three problems
		in = append(in, signal(fmt.Sprint("s", i+1), negative, fmt.Sprint(angle)))
	}
	h.send(in...)
	if c := h.stored(founded("s1")); c.GetNegatives() != 6 {
		t.Fatalf("case = %v", c)
	}
	p, once := h.pass(0.9)
	if got := once(); !slices.Equal(got, []string{"CaseSplit", "CaseSplit"}) || !p.dirty["p"] {
		t.Fatalf("events: %v, to be gone on with: %v", got, p.dirty)
	}
	if a := h.stored(founded("s1")); a.GetNegatives() != 3 || !slices.Contains(a.GetExamples(), "0") {
		t.Errorf("what stays: %v", a)
	}
	checkCounts(t, h)
	h.again()
	edits, err := h.caseAPI().ListCaseEdits(as("p"), &casesv1.ListCaseEditsRequest{CaseId: founded("s1")})
	if err != nil || len(edits.GetEdits()) != 2 {
		t.Fatalf("edits = %v, %v", edits, err)
	}
	left := map[string]uint32{}
	for _, e := range edits.GetEdits() {
		s := e.GetEvent().GetCaseSplit()
		if !strings.Contains(s.GetNote(), "another problem") {
			t.Errorf("note %q", s.GetNote())
		}
		left[s.GetAnchor()] = h.stored(s.GetNewCaseId()).GetNegatives()
	}
	if !maps.Equal(left, map[string]uint32{"38": 2, "-40": 1}) {
		t.Errorf("what left: %v", left)
	}
	once() // words
	if got := once(); len(got) != 0 {
		t.Errorf("then: %v", got)
	}
	// What somebody takes back stays so.
	for _, e := range edits.GetEdits() {
		h.undo(founded("s1"), editID(e))
	}
	h.send(signal("s20", negative, "38"))
	clear(p.seen)
	if got := once(); slices.Contains(got, "CaseSplit") {
		t.Errorf("after undo: %v", got)
	}
	if a := h.stored(founded("s1")); a.GetNegatives() != 7 {
		t.Errorf("after undo: %v", a)
	}
}

func TestThePassSplitsWhatPeopleWorkOnOnlyBeyondDoubt(t *testing.T) {
	for name, tt := range map[string]struct {
		angles []int
		want   []string
	}{
		"a few others": {[]int{0, 3, -3, 38, 40, -40}, nil},
		"two problems": {[]int{0, -38, 38, -39, 39, -40, 40, -37, 37}, []string{"CaseSplit"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHarness(t)
			for i, angle := range tt.angles {
				h.send(signal(fmt.Sprint("s", i+1), negative, fmt.Sprint(angle)))
			}
			triaged := stateTriaged
			h.update(founded("s1"), func(r *casesv1.UpdateCaseRequest) { r.State = &triaged })
			_, once := h.pass(0.9)
			got := slices.DeleteFunc(once(), func(e string) bool { return e == "CaseSummarized" })
			if !slices.Equal(got, tt.want) {
				t.Errorf("events: %v, want %v", got, tt.want)
			}
		})
	}
}

// What people put together or took apart, by hand, is theirs.
func TestThePassLeavesMergesAndSplitsOfPeople(t *testing.T) {
	t.Run("merge", func(t *testing.T) {
		h := newHarness(t)
		for i, angle := range []int{0, 1, 2, 3, 90, 91, 92, 93} { // different words for one thing
			h.send(signal(fmt.Sprint("s", i+1), negative, fmt.Sprint(angle)))
		}
		h.merge(founded("s5"), founded("s1"))
		p, once := h.pass(0.9)
		if got := once(); slices.Contains(got, "CaseSplit") {
			t.Errorf("events: %v", got)
		}
		// Without the merge, the case is the pass's again.
		h.undo(founded("s5"), "")
		h.send(signal("s9", negative, "40"), signal("s10", negative, "40"), signal("s11", negative, "41"))
		clear(p.seen)
		if got := once(); !slices.Contains(got, "CaseSplit") {
			t.Errorf("after undo: %v", got)
		}
	})
	t.Run("split", func(t *testing.T) {
		h := newHarness(t)
		for i, angle := range []int{0, 1, 2, 3, 4} {
			h.send(signal(fmt.Sprint("s", i+1), negative, fmt.Sprint(angle)))
		}
		if _, err := h.caseAPI().SplitCase(as("p"), &casesv1.SplitCaseRequest{CaseId: founded("s1"), SignalIds: []string{"s4", "s5"}}); err != nil {
			t.Fatal(err)
		}
		_, once := h.pass(0.9)
		if got := once(); slices.Contains(got, "CaseMerged") {
			t.Errorf("events: %v", got)
		}
	})
}

func TestThePassComesToTheSameCasesInAnyOrder(t *testing.T) {
	problems := [][]int{{-4, -2, 0, 2, 4}, {36, 38, 40, 42, 44}, {76, 78, 80, 82, 84}} // a founder at 40 takes from all three
	for seed := range uint64(20) {
		h := newHarness(t)
		all := slices.Concat(problems...)
		rand.New(rand.NewPCG(seed, 0)).Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		p, once := h.pass(0.9)
		for i, angle := range all {
			h.send(signal(fmt.Sprint("s", 100+angle), negative, fmt.Sprint(angle)))
			if i%4 == 0 {
				once()
			}
		}
		for n := 1; n > 0; n = len(once()) {
			delete(p.dirty, "p")
		}
		if p.dirty["p"] {
			t.Errorf("seed %d: nothing is found, and it goes on", seed)
		}
		var names []string
		for _, angle := range all {
			names = append(names, fmt.Sprint("s", 100+angle))
		}
		members, err := readMembersOf(t.Context(), h.index, "p", names)
		if err != nil {
			t.Fatal(err)
		}
		in, cases := map[string]string{}, map[string]bool{}
		for _, m := range members {
			in[m.signalID], cases[m.caseID] = m.caseID, true
		}
		for _, angles := range problems {
			for _, angle := range angles[1:] {
				if a, b := fmt.Sprint("s", 100+angles[0]), fmt.Sprint("s", 100+angle); in[a] != in[b] {
					t.Errorf("seed %d, order %v: %s and %s are in two cases", seed, all, a, b)
				}
			}
		}
		if len(cases) != len(problems) {
			t.Errorf("seed %d, order %v: %d cases", seed, all, len(cases))
		}
		checkCounts(t, h)
	}
}

func TestPartsOfALargeCaseAreOfOneKind(t *testing.T) {
	var own []placed
	for i := range 3 * splitSample {
		angle := 10*(i%3/2) + i%2*90 // 0, 90, 10, 90, 0, 100: two directions
		vectors, err := (&angles{}).Embed(t.Context(), []string{fmt.Sprint(angle)})
		if err != nil {
			t.Fatal(err)
		}
		own = append(own, placed{signalID: fmt.Sprintf("s%04d", i), query: fmt.Sprint(angle), negative: true, vector: vectors[0]})
	}
	all := parts(own, 0.8)
	if len(all) != 2 || len(all[0])+len(all[1]) != len(own) {
		t.Fatalf("%d parts", len(all))
	}
	for _, part := range all {
		if within(part) < 0.98 {
			t.Errorf("a part of %d is %.2f alike", len(part), within(part))
		}
	}
	if got := parts(nil, 0.8); len(got) != 0 {
		t.Errorf("parts of nothing: %v", got)
	}
}

func TestThePassOnWeaviate(t *testing.T) {
	w := embeddedtest.Weaviate(t)
	client, err := vector.Open(weaviateConfig(w))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	if err := client.EnsureSchema(t.Context()); err != nil {
		t.Fatal(err)
	}
	const project = "pass"
	hash := embedding.NewHash()
	s, c, err := stages(client, hash, DefaultConfig().Cases, 0.95, projects.Defaults(), telemetry.Discard())
	if err != nil {
		t.Fatal(err)
	}
	var in []*signalv1.Signal
	for i, q := range []string{"Can I return worn shoes?", "Can I return my worn shoes?", "can I return the worn shoes", "How do I reset my password?"} {
		in = append(in, signal(fmt.Sprint("s", i+1), negative, q, of(project)))
	}
	if _, err := s.Process(t.Context(), records(t, in...)); err != nil {
		t.Fatal(err)
	}
	p := newPass(client, func(ctx context.Context, recs ...stage.Record) error {
		_, err := c.Process(ctx, recs)
		return err
	}, projects.Defaults(), 0.6, telemetry.Discard().Log)
	for range 4 {
		if _, err := p.project(t.Context(), project); err != nil {
			t.Fatal(err)
		}
	}
	groups, err := p.groups(t.Context(), project)
	if err != nil {
		t.Fatal(err)
	}
	if len(groups) != 2 || groups[0].negatives != 3 || groups[0].shown.GetSummary() == "" || groups[1].shown.GetTitle() != "How do I reset my password?" {
		for _, g := range groups {
			t.Logf("%v", g.shown)
		}
		t.Errorf("%d cases, want the shoes and the password", len(groups))
	}
}
