package embedder

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	recallv1 "github.com/honeloop/hone/proto/gen/go/hone/recall/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"

	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/vector"
)

// caseAPI is the service, over a log that is applied at once. Its clock goes on
// by a minute with each change, from an hour after start.
func (h *harness) caseAPI() *caseAPI {
	a := newCaseAPI(h.api(), func(ctx context.Context, recs ...stage.Record) error {
		h.logged = append(h.logged, recs...)
		_, err := h.curation.Process(ctx, recs)
		return err
	}, time.Second)
	a.now = func() time.Time { return start.Add(time.Hour + time.Duration(len(h.logged))*time.Minute) }
	return a
}

// again delivers all changes once more, to a new process, and expects nothing
// to change.
func (h *harness) again() {
	h.t.Helper()
	before := h.index.Snapshot()
	h.restart()
	if _, err := h.curation.Process(context.Background(), h.logged); err != nil {
		h.t.Fatal(err)
	}
	if !maps.Equal(before, h.index.Snapshot()) {
		h.t.Error("redelivery changed the store")
	}
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func (h *harness) update(id string, change func(*casesv1.UpdateCaseRequest)) *casesv1.UpdateCaseResponse {
	h.t.Helper()
	req := &casesv1.UpdateCaseRequest{CaseId: id, By: "ann"}
	change(req)
	return must[*casesv1.UpdateCaseResponse](h.t)(h.caseAPI().UpdateCase(as("p"), req))
}

func (h *harness) merge(from, into string) *casesv1.MergeCaseResponse {
	h.t.Helper()
	return must[*casesv1.MergeCaseResponse](h.t)(h.caseAPI().MergeCase(as("p"), &casesv1.MergeCaseRequest{CaseId: from, IntoCaseId: into}))
}

func (h *harness) undo(id, curationID string) *casesv1.Case {
	h.t.Helper()
	return must[*casesv1.UndoCaseEditResponse](h.t)(h.caseAPI().UndoCaseEdit(as("p"), &casesv1.UndoCaseEditRequest{CaseId: id, CurationId: curationID})).GetCase()
}

func TestPeopleNameAssignAndSetTheState(t *testing.T) {
	h := newHarness(t)
	h.send(signal("s1", negative, "0"))
	id := founded("s1")
	title, nobody, triaged := "Worn shoes", "", stateTriaged
	first := h.update(id, func(r *casesv1.UpdateCaseRequest) { r.Title, r.State = &title, &triaged })
	h.update(id, func(r *casesv1.UpdateCaseRequest) { ann := "ann"; r.Assignee = &ann })
	c := h.stored(id)
	if c.GetTitle() != title || c.GetState() != stateTriaged || c.GetAssignee() != "ann" || c.GetVersion() != 3 {
		t.Errorf("case = %v", c)
	}
	if again := h.update(id, func(r *casesv1.UpdateCaseRequest) { r.Title = &title }); again.GetCurationId() != "" || len(h.logged) != 2 {
		t.Errorf("the same title again: %v, %d events", again, len(h.logged))
	}
	// A signal that comes keeps it.
	if out := h.send(signal("s2", negative, "5")); out[0].GetCase().GetTitle() != title {
		t.Errorf("out = %v", out)
	}
	h.again()
	if c := h.undo(id, first.GetCurationId()); c.GetTitle() != "0" || c.GetState() != stateNew || c.GetAssignee() != "ann" {
		t.Errorf("after undo: %v", c)
	}
	h.update(id, func(r *casesv1.UpdateCaseRequest) { r.Assignee = &nobody })
	if c := h.undo(id, ""); c.GetAssignee() != "ann" {
		t.Errorf("after undoing the last: %v", c)
	}
	_, err := h.caseAPI().UndoCaseEdit(as("p"), &casesv1.UndoCaseEditRequest{CaseId: id, CurationId: first.GetCurationId()})
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "already undone") {
		t.Errorf("undone twice: %v", err)
	}
	edits := must[*casesv1.ListCaseEditsResponse](t)(h.caseAPI().ListCaseEdits(as("p"), &casesv1.ListCaseEditsRequest{CaseId: id})).GetEdits()
	if len(edits) != 6 || edits[5].GetUndoneBy() == "" || edits[5].GetEvent().GetCaseChanged().GetBy() != "ann" {
		t.Errorf("edits = %v", edits)
	}
	h.again()
}

func TestASolvedCaseReopensWithFreshNegatives(t *testing.T) {
	h := newHarness(t)
	h.send(signal("s1", negative, "0"))
	id := founded("s1")
	solved := must[*casesv1.SolveCaseResponse](t)(h.caseAPI().SolveCase(as("p"), &casesv1.SolveCaseRequest{CaseId: id, Answer: "30 days", By: "ann"})).GetCase()
	if solved.GetState() != stateSolved || solved.GetApprovedAnswer() != "30 days" || solved.GetApprovedBy() != "ann" {
		t.Errorf("solved: %v", solved)
	}
	// It was given before, and comes late.
	if out := h.send(signal("s2", negative, "5")); out[0].GetCase().GetState() != stateSolved {
		t.Errorf("late: %v", out)
	}
	if out := h.send(signal("s100", positive, "5")); out[0].GetCase().GetState() != stateSolved {
		t.Errorf("positive: %v", out)
	}
	if out := h.send(signal("s90", negative, "5")); out[0].GetCase().GetState() != stateRegressed || out[0].GetCase().GetApprovedAnswer() != "30 days" {
		t.Errorf("fresh: %v", out)
	}
	list := must[*casesv1.ListCasesResponse](t)(h.caseAPI().ListCases(as("p"), &casesv1.ListCasesRequest{State: stateRegressed}))
	if len(list.GetCases()) != 1 {
		t.Errorf("regressed: %v", list)
	}
	if out := h.send(revised(signal("s90", negative, "5"), withdrawn)); out[0].GetCase().GetState() != stateSolved {
		t.Errorf("withdrawn: %v", out)
	}
}

func TestAMutedCaseTakesSignalsAndIsNotRecalled(t *testing.T) {
	h := newHarness(t)
	h.send(signal("s1", negative, "0"))
	muted := stateMuted
	h.update(founded("s1"), func(r *casesv1.UpdateCaseRequest) { r.State = &muted })
	if out := h.send(signal("s2", negative, "5")); out[0].GetCase().GetCaseId() != founded("s1") || out[0].GetCase().GetState() != stateMuted {
		t.Errorf("out = %v", out)
	}
	if r := must[*recallv1.RecallResponse](t)(h.api().Recall(as("p"), &recallv1.RecallRequest{Query: "0"})); len(r.GetGuidance()) != 0 {
		t.Errorf("recalled: %v", r)
	}
}

func TestAMergedCaseLeadsToTheOther(t *testing.T) {
	h := newHarness(t)
	h.send(signal("s1", negative, "0"), signal("s2", negative, "60"), signal("s3", negative, "65"))
	one, two := founded("s1"), founded("s2")
	must[*casesv1.SolveCaseResponse](t)(h.caseAPI().SolveCase(as("p"), &casesv1.SolveCaseRequest{CaseId: two, Answer: "yes"}))
	m := h.merge(two, one)
	if c := m.GetCase(); c.GetCaseId() != one || c.GetNegatives() != 3 || c.GetTitle() != "0" || c.GetApprovedAnswer() != "yes" || c.GetState() != stateSolved {
		t.Errorf("merged: %v", c)
	}
	if c := h.stored(two); c.GetState() != stateMerged || c.GetMergedInto() != one || c.GetNegatives() != 0 {
		t.Errorf("the other: %v", c)
	}
	checkCounts(t, h)
	h.again()
	// 100 degrees are far from 0, and near 60.
	if out := h.send(signal("s4", negative, "100")); out[0].GetCase().GetCaseId() != one || out[0].GetCase().GetNegatives() != 4 || out[0].GetFounded() {
		t.Errorf("near the merged one: %v", out)
	}
	r := must[*recallv1.RecallResponse](t)(h.api().Recall(as("p"), &recallv1.RecallRequest{Query: "40"}))
	if len(r.GetGuidance()) != 1 || r.GetGuidance()[0].GetCase().GetCaseId() != one {
		t.Errorf("recalled: %v", r)
	}
	if out := h.send(revised(signal("s2", negative, "60"), func(s *signalv1.Signal) { s.Comment = "no" })); out[0].GetCase().GetCaseId() != one {
		t.Errorf("a revision of a moved signal: %v", out)
	}

	h.undo(two, m.GetCurationId())
	if a, b := h.stored(one), h.stored(two); a.GetNegatives() != 1 || b.GetNegatives() != 3 || b.GetState() != stateSolved || a.GetState() != stateNew || a.GetApprovedAnswer() != "" {
		t.Errorf("after undo: %v, %v", a, b)
	}
	checkCounts(t, h)
	h.again()
	if out := h.send(signal("s5", negative, "100")); out[0].GetCase().GetCaseId() != two {
		t.Errorf("after undo: %v", out)
	}
}

func TestMergesInAChain(t *testing.T) {
	h := newHarness(t)
	h.send(signal("s1", negative, "0"), signal("s2", negative, "60"), signal("s3", negative, "120"))
	one, two, three := founded("s1"), founded("s2"), founded("s3")
	first := h.merge(three, two)
	h.merge(two, one)
	if out := h.send(signal("s4", negative, "130")); out[0].GetCase().GetCaseId() != one || out[0].GetCase().GetNegatives() != 4 {
		t.Errorf("out = %v", out)
	}
	for name, req := range map[string]*casesv1.MergeCaseRequest{
		"into itself by a way around": {CaseId: one, IntoCaseId: three},
		"one that is merged already":  {CaseId: two, IntoCaseId: three},
	} {
		if _, err := h.caseAPI().MergeCase(as("p"), req); status.Code(err) != codes.FailedPrecondition {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := h.caseAPI().UndoCaseEdit(as("p"), &casesv1.UndoCaseEditRequest{CaseId: three, CurationId: first.GetCurationId()})
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "undo that first") {
		t.Errorf("undo out of order: %v", err)
	}
	h.undo(two, "")
	h.undo(three, "")
	if a, b, c := members(h.stored(one)), members(h.stored(two)), members(h.stored(three)); a != "new -1 +0" || b != "new -1 +0" || c != "new -2 +0" {
		t.Errorf("after both undos: %s, %s, %s", a, b, c)
	}
	checkCounts(t, h)
}

func TestSplitAndUndo(t *testing.T) {
	h := newHarness(t)
	h.send(signal("s1", negative, "0"), signal("s2", negative, "30"), signal("s3", negative, "35"), signal("s4", negative, "40"), signal("s5", positive, "36"))
	one := founded("s1")
	split := must[*casesv1.SplitCaseResponse](t)(h.caseAPI().SplitCase(as("p"), &casesv1.SplitCaseRequest{
		CaseId: one, SignalIds: []string{"s4", "s2", "s3", "s5"}, Title: "Another"}))
	c := split.GetCase()
	if c.GetNegatives() != 3 || c.GetPositives() != 1 || c.GetTitle() != "Another" || c.GetAnchor() != "35" || c.GetCaseId() == one {
		t.Errorf("split: %v", c)
	}
	if a := members(h.stored(one)); a != "new -1 +0" {
		t.Errorf("the old one: %s", a)
	}
	checkCounts(t, h)
	h.again()
	if out := h.send(signal("s6", negative, "50")); out[0].GetCase().GetCaseId() != c.GetCaseId() {
		t.Errorf("near the new one: %v", out)
	}
	h.undo(one, split.GetCurationId())
	if a, b := h.stored(one), h.stored(c.GetCaseId()); members(a) != "new -5 +1" || b.GetState() != stateMerged || b.GetMergedInto() != one {
		t.Errorf("after undo: %v, %v", a, b)
	}
	checkCounts(t, h)
	h.again()

	for name, req := range map[string]*casesv1.SplitCaseRequest{
		"none":     {CaseId: one},
		"unknown":  {CaseId: one, SignalIds: []string{"s99"}},
		"no case":  {CaseId: founded("s9"), SignalIds: []string{"s1"}},
		"all":      {CaseId: one, SignalIds: []string{"s1", "s2", "s3", "s4", "s5", "s6"}},
		"positive": {CaseId: one, SignalIds: []string{"s5"}},
	} {
		if _, err := h.caseAPI().SplitCase(as("p"), req); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestAnotherProjectChangesNothing(t *testing.T) {
	h := newHarness(t)
	h.send(signal("s1", negative, "0"), signal("s2", negative, "90"))
	title := "mine"
	_, err := h.caseAPI().UpdateCase(as("q"), &casesv1.UpdateCaseRequest{CaseId: founded("s1"), Title: &title})
	if status.Code(err) != codes.NotFound || len(h.logged) != 0 {
		t.Errorf("%v, %d events", err, len(h.logged))
	}
}

func TestACrashOfAnEditIsMadeGood(t *testing.T) {
	setup := func(t *testing.T) *harness {
		h := newHarness(t)
		h.send(signal("s1", negative, "0"), signal("s2", negative, "60"), signal("s3", negative, "65"), signal("s4", negative, "80"))
		return h
	}
	// What people do, once without a crash.
	clean := setup(t)
	title := "Name"
	clean.update(founded("s1"), func(r *casesv1.UpdateCaseRequest) { r.Title = &title })
	m := clean.merge(founded("s2"), founded("s1"))
	must[*casesv1.SplitCaseResponse](t)(clean.caseAPI().SplitCase(as("p"), &casesv1.SplitCaseRequest{CaseId: founded("s1"), SignalIds: []string{"s4"}}))
	clean.undo(founded("s2"), m.GetCurationId())
	clean.undo(founded("s1"), "")
	want := state(t, clean)

	for call := 1; ; call++ {
		h := setup(t)
		n := 0
		h.index.Before = func(string, string) error {
			if n++; n == call {
				return errDown
			}
			return nil
		}
		var err error
		for _, r := range clean.logged {
			if _, failed := h.curation.Process(context.Background(), []stage.Record{r}); failed != nil {
				if err = failed; !errors.Is(err, errDown) {
					t.Fatal(err)
				}
				h.restart()
				if _, err := h.curation.Process(context.Background(), []stage.Record{r}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err == nil {
			break
		}
		if got := state(t, h); !maps.Equal(got, want) {
			t.Fatalf("after a crash at call %d:\n%v\nwant\n%v", call, got, want)
		}
		checkCounts(t, h)
	}
}

// state is which signals are in which case, and what cases show, without
// versions: a repeated step makes one more.
func state(t *testing.T, h *harness) map[string]string {
	t.Helper()
	out := map[string]string{}
	ctx := context.Background()
	for _, o := range must[[]vector.Object](t)(h.index.List(ctx, vector.Exchanges, "p", vector.ListQuery{Limit: vector.MaxResults})) {
		e := must[*casesv1.Exchange](t)(decodeExchange(o))
		out[e.GetPublished().GetSignal().GetSignalId()] = fmt.Sprint(memberCase(e), len(e.GetMoves()))
	}
	for _, o := range must[[]vector.Object](t)(h.index.List(ctx, vector.Cases, "p", vector.ListQuery{Limit: vector.MaxResults})) {
		c := &casesv1.Case{}
		if err := proto.Unmarshal(o.Payload, c); err != nil {
			t.Fatal(err)
		}
		c.Version = 0
		out[c.GetCaseId()] = string(must[[]byte](t)(encode(c)))
	}
	return out
}
