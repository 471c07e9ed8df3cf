package embedder

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	curationv1 "github.com/honeloop/hone/proto/gen/go/hone/curation/v1"

	"github.com/honeloop/hone/pkg/auth"
	"github.com/honeloop/hone/pkg/ids"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/vector"
)

const (
	maxList     = 1000
	defaultList = 50

	maxEditing = 32 // changes of cases at once
	maxSplit   = 5000
	// Bytes.
	maxCaseTitle  = 1 << 10
	maxCaseAnswer = 256 << 10
	maxCaseNote   = 16 << 10
	maxBy         = 256
)

// appender makes records durable in the log; nil means that they are.
type appender func(ctx context.Context, recs ...stage.Record) error

// caseAPI serves CaseService. A change is an event on hone.curation; it is
// answered when the stage on that topic, here or in another embedder, has
// applied it.
type caseAPI struct {
	casesv1.UnimplementedCaseServiceServer

	*api
	publish appender
	timeout time.Duration // of a change
	now     func() time.Time
	editing chan struct{}
}

func newCaseAPI(a *api, publish appender, timeout time.Duration) *caseAPI {
	return &caseAPI{api: a, publish: publish, timeout: timeout, now: time.Now, editing: make(chan struct{}, maxEditing)}
}

// GetCase reads a case.
func (a *caseAPI) GetCase(ctx context.Context, req *casesv1.GetCaseRequest) (*casesv1.GetCaseResponse, error) {
	project, err := auth.Project(ctx)
	if err != nil {
		return nil, err
	}
	if req.GetCaseId() == "" {
		return nil, invalid("case_id", "missing")
	}
	cases, err := a.readCases(ctx, project, []string{req.GetCaseId()})
	if err != nil {
		return nil, a.fail(ctx, "get case", err)
	}
	c := cases[req.GetCaseId()]
	if c == nil {
		return nil, status.Error(codes.NotFound, "no such case in this project")
	}
	return &casesv1.GetCaseResponse{Case: c}, nil
}

// ListCases reads cases, most negatives first. Withdrawn and merged ones only
// come when they are asked for.
func (a *caseAPI) ListCases(ctx context.Context, req *casesv1.ListCasesRequest) (*casesv1.ListCasesResponse, error) {
	project, err := auth.Project(ctx)
	if err != nil {
		return nil, err
	}
	states := append(saidStates(), stateRegressed)
	if s := req.GetState(); s != "" {
		all := append(states, stateWithdrawn, stateMerged)
		if !slices.Contains(all, s) {
			return nil, invalid("state", "want "+strings.Join(all, ", "))
		}
		states = []string{s}
	}
	if req.GetLimit() > maxList {
		return nil, invalid("limit", fmt.Sprintf("%d, want at most %d", req.GetLimit(), maxList))
	}
	limit := int(req.GetLimit())
	if limit == 0 {
		limit = defaultList
	}
	objects, err := a.index.List(ctx, vector.Cases, project, vector.ListQuery{
		Filter: vector.In("state", states...), SortBy: "negatives", Descending: true, Limit: limit,
	})
	if err != nil {
		return nil, a.fail(ctx, "list cases", err)
	}
	cases, err := a.decodeCases(ctx, project, objects)
	if err != nil {
		return nil, a.fail(ctx, "list cases", err)
	}
	return &casesv1.ListCasesResponse{Cases: cases}, nil
}

// decodeCases reads cases and puts in what people said, which another process
// may have written after the case.
func (a *api) decodeCases(ctx context.Context, project string, objects []vector.Object) ([]*casesv1.Case, error) {
	var cases []*casesv1.Case
	var names []string
	for _, o := range objects {
		c := &casesv1.Case{}
		if err := proto.Unmarshal(o.Payload, c); err != nil {
			return nil, fmt.Errorf("decode case %s: %w", o.ID, err)
		}
		cases, names = append(cases, c), append(names, c.GetCaseId())
	}
	curated, err := readCurated(ctx, a.index, project, names)
	if err != nil {
		return nil, err
	}
	for _, c := range cases {
		applyCuration(c, curated[c.GetCaseId()])
	}
	return cases, nil
}

// ListCaseEdits reads the changes of a case.
func (a *caseAPI) ListCaseEdits(ctx context.Context, req *casesv1.ListCaseEditsRequest) (*casesv1.ListCaseEditsResponse, error) {
	project, err := auth.Project(ctx)
	if err != nil {
		return nil, err
	}
	if req.GetCaseId() == "" {
		return nil, invalid("case_id", "missing")
	}
	if req.GetLimit() > maxList {
		return nil, invalid("limit", fmt.Sprintf("%d, want at most %d", req.GetLimit(), maxList))
	}
	edits, err := a.edits(ctx, project, req.GetCaseId(), int(cmp.Or(req.GetLimit(), defaultList)))
	if err != nil {
		return nil, a.fail(ctx, "list changes of a case", err)
	}
	return &casesv1.ListCaseEditsResponse{Edits: edits}, nil
}

func (a *caseAPI) edits(ctx context.Context, project, caseID string, limit int) ([]*casesv1.CaseEdit, error) {
	filter := vector.In("kind", "edit")
	filter.And = []*vector.Filter{vector.In("case_id", caseID)}
	objects, err := a.index.List(ctx, vector.Answers, project, vector.ListQuery{Filter: filter, SortBy: "at", Descending: true, Limit: limit})
	if err != nil {
		return nil, err
	}
	var edits []*casesv1.CaseEdit
	for _, o := range objects {
		e := &casesv1.CaseEdit{}
		if err := proto.Unmarshal(o.Payload, e); err != nil {
			return nil, fmt.Errorf("decode change %s: %w", o.ID, err)
		}
		edits = append(edits, e)
	}
	return edits, nil
}

// UpdateCase renames, assigns, or sets the state.
func (a *caseAPI) UpdateCase(ctx context.Context, req *casesv1.UpdateCaseRequest) (*casesv1.UpdateCaseResponse, error) {
	if err := firstOf(tooLong("title", req.GetTitle(), maxCaseTitle), tooLong("assignee", req.GetAssignee(), maxBy)); err != nil {
		return nil, err
	}
	if req.Title == nil && req.Assignee == nil && req.State == nil {
		return nil, invalid("title", "missing, as are assignee and state: one of them is required")
	}
	if req.State != nil && !slices.Contains(saidStates(), req.GetState()) {
		return nil, invalid("state", fmt.Sprintf("%q, want %s", req.GetState(), strings.Join(saidStates(), ", ")))
	}
	c, id, err := a.edit(ctx, change{"update case", req.GetCaseId(), req.GetNote(), req.GetBy()}, func(e *editor) (string, error) {
		c, said := e.shown, e.said
		if (req.Title == nil || req.GetTitle() == said.GetTitle()) && (req.Assignee == nil || req.GetAssignee() == c.GetAssignee()) &&
			(req.State == nil || req.GetState() == c.GetState()) {
			return "", nil
		}
		e.event.Payload = &curationv1.CurationEvent_CaseChanged{CaseChanged: &curationv1.CaseChanged{
			CaseId: c.GetCaseId(), Title: req.Title, Assignee: req.Assignee, State: req.State, Note: req.GetNote(), By: e.by,
		}}
		return c.GetCaseId(), nil
	})
	if err != nil {
		return nil, err
	}
	return &casesv1.UpdateCaseResponse{Case: c, CurationId: id}, nil
}

// SolveCase approves an answer.
func (a *caseAPI) SolveCase(ctx context.Context, req *casesv1.SolveCaseRequest) (*casesv1.SolveCaseResponse, error) {
	if err := firstOf(tooLong("answer", req.GetAnswer(), maxCaseAnswer), tooLong("clarification", req.GetClarification(), maxCaseNote)); err != nil {
		return nil, err
	}
	if req.GetAnswer() == "" && req.GetClarification() == "" {
		return nil, invalid("answer", "missing, as is clarification: one of them is required; to only set the state, update the case")
	}
	c, id, err := a.edit(ctx, change{"solve case", req.GetCaseId(), req.GetNote(), req.GetBy()}, func(e *editor) (string, error) {
		c := e.shown
		if c.GetState() == stateSolved && req.GetAnswer() == c.GetApprovedAnswer() && req.GetClarification() == c.GetClarification() {
			return "", nil
		}
		state := stateSolved
		e.event.Payload = &curationv1.CurationEvent_CaseChanged{CaseChanged: &curationv1.CaseChanged{
			CaseId: c.GetCaseId(), State: &state, Answer: req.GetAnswer(), Clarification: req.GetClarification(), Note: req.GetNote(), By: e.by,
		}}
		return c.GetCaseId(), nil
	})
	if err != nil {
		return nil, err
	}
	return &casesv1.SolveCaseResponse{Case: c, CurationId: id}, nil
}

// MergeCase moves a case's signals into another.
func (a *caseAPI) MergeCase(ctx context.Context, req *casesv1.MergeCaseRequest) (*casesv1.MergeCaseResponse, error) {
	if req.GetIntoCaseId() == "" {
		return nil, invalid("into_case_id", "missing")
	}
	if req.GetIntoCaseId() == req.GetCaseId() {
		return nil, invalid("into_case_id", "is the case itself")
	}
	c, id, err := a.edit(ctx, change{"merge case", req.GetCaseId(), req.GetNote(), req.GetBy()}, func(e *editor) (string, error) {
		if e.shown.GetMergedInto() == req.GetIntoCaseId() {
			e.result = req.GetIntoCaseId()
			return "", nil
		}
		e.event.Payload = &curationv1.CurationEvent_CaseMerged{CaseMerged: &curationv1.CaseMerged{
			CaseId: req.GetCaseId(), IntoCaseId: req.GetIntoCaseId(), Note: req.GetNote(), By: e.by,
		}}
		return req.GetIntoCaseId(), nil
	})
	if err != nil {
		return nil, err
	}
	return &casesv1.MergeCaseResponse{Case: c, CurationId: id}, nil
}

// SplitCase moves some of a case's signals into a new case.
func (a *caseAPI) SplitCase(ctx context.Context, req *casesv1.SplitCaseRequest) (*casesv1.SplitCaseResponse, error) {
	if n := len(req.GetSignalIds()); n == 0 || n > maxSplit {
		return nil, invalid("signal_ids", fmt.Sprintf("%d of them, want 1 to %d", n, maxSplit))
	}
	if err := tooLong("title", req.GetTitle(), maxCaseTitle); err != nil {
		return nil, err
	}
	c, id, err := a.edit(ctx, change{"split case", req.GetCaseId(), req.GetNote(), req.GetBy()}, func(e *editor) (string, error) {
		wanted := slices.Clone(req.GetSignalIds())
		slices.Sort(wanted)
		wanted = slices.Compact(wanted)
		members, err := readMembersOf(ctx, a.index, e.project, wanted)
		if err != nil {
			return "", err
		}
		if len(members) < len(wanted) {
			return "", invalid("signal_ids", fmt.Sprintf("%d of %d are not signals of this project", len(wanted)-len(members), len(wanted)))
		}
		for _, m := range members {
			if m.caseID != req.GetCaseId() {
				return "", invalid("signal_ids", fmt.Sprintf("signal %s is not in the case", m.signalID))
			}
		}
		anchor := medoid(members)
		if anchor == nil {
			return "", invalid("signal_ids", "none of them is negative: a case is a problem that somebody reports")
		}
		e.event.Payload = splitEvent(e.project, e.event.GetCurationId(), req.GetCaseId(), wanted, anchor.query, req.GetTitle(), req.GetNote(), e.by)
		return e.event.GetCaseSplit().GetNewCaseId(), nil
	})
	if err != nil {
		return nil, err
	}
	return &casesv1.SplitCaseResponse{Case: c, CurationId: id}, nil
}

// UndoCaseEdit takes a change back.
func (a *caseAPI) UndoCaseEdit(ctx context.Context, req *casesv1.UndoCaseEditRequest) (*casesv1.UndoCaseEditResponse, error) {
	c, id, err := a.edit(ctx, change{"undo", req.GetCaseId(), req.GetNote(), req.GetBy()}, func(e *editor) (string, error) {
		undone := req.GetCurationId()
		if undone == "" {
			edits, err := a.edits(ctx, e.project, req.GetCaseId(), maxList)
			if err != nil {
				return "", err
			}
			for _, x := range edits {
				if x.GetRefused() == "" && x.GetUndoneBy() == "" && x.GetEvent().GetCaseEditUndone() == nil {
					undone = editID(x)
					break
				}
			}
			if undone == "" {
				return "", status.Error(codes.FailedPrecondition, "nothing to undo: nobody changed the case, or all is undone")
			}
		}
		e.event.Payload = &curationv1.CurationEvent_CaseEditUndone{CaseEditUndone: &curationv1.CaseEditUndone{
			CaseId: req.GetCaseId(), UndoneId: undone, Note: req.GetNote(), By: e.by,
		}}
		return req.GetCaseId(), nil
	})
	if err != nil {
		return nil, err
	}
	return &casesv1.UndoCaseEditResponse{Case: c, CurationId: id}, nil
}

// change is what all changes have in common.
type change struct{ what, caseID, note, by string }

// editor makes the event of a change.
type editor struct {
	project, by string
	shown       *casesv1.Case
	said        *casesv1.CaseCuration
	event       *curationv1.CurationEvent
	result      string // the case to answer where nothing is to be done; shown by default
}

// edit appends an event and waits until it is applied. fill makes its payload,
// and names the case to answer; an empty name says that all is so already.
func (a *caseAPI) edit(ctx context.Context, ch change, fill func(*editor) (string, error)) (*casesv1.Case, string, error) {
	key, ok := auth.FromContext(ctx)
	if !ok {
		return nil, "", status.Error(codes.Unauthenticated, auth.ErrUnknownKey.Error())
	}
	if ch.caseID == "" {
		return nil, "", invalid("case_id", "missing")
	}
	if err := firstOf(tooLong("note", ch.note, maxCaseNote), tooLong("by", ch.by, maxBy)); err != nil {
		return nil, "", err
	}
	select {
	case a.editing <- struct{}{}:
		defer func() { <-a.editing }()
	default:
		return nil, "", status.Errorf(codes.ResourceExhausted, "%d cases are being changed: try again in a second", maxEditing)
	}
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()

	cases, err := a.readCases(ctx, key.ProjectID, []string{ch.caseID})
	if err != nil {
		return nil, "", a.fail(ctx, ch.what, err)
	}
	said, err := readCurated(ctx, a.index, key.ProjectID, []string{ch.caseID})
	if err != nil {
		return nil, "", a.fail(ctx, ch.what, err)
	}
	e := &editor{project: key.ProjectID, by: cmp.Or(ch.by, key.ID), shown: cases[ch.caseID], said: said[ch.caseID], result: ch.caseID}
	if e.shown == nil {
		return nil, "", status.Error(codes.NotFound, "no such case in this project")
	}
	now := a.now()
	e.event = &curationv1.CurationEvent{ProjectId: key.ProjectID, OccurredAt: timestamppb.New(now)}
	// One change by one person at one time: the log has no other order for two.
	e.event.CurationId = ids.Derive("cu", key.ProjectID, ch.what, ch.caseID, e.by, ch.note, strconv.FormatInt(now.UnixNano(), 10))
	answer, err := fill(e)
	if err != nil {
		if status.Code(err) != codes.Unknown {
			return nil, "", err
		}
		return nil, "", a.fail(ctx, ch.what, err)
	}
	curationID := ""
	if answer != "" {
		if err := a.append(ctx, e.event); err != nil {
			return nil, "", err
		}
		e.result, curationID = answer, e.event.GetCurationId()
	}
	if cases, err = a.readCases(ctx, key.ProjectID, []string{e.result}); err != nil {
		return nil, "", a.fail(ctx, ch.what, err)
	}
	return cases[e.result], curationID, nil
}

// append makes an event durable and waits for what comes of it.
func (a *caseAPI) append(ctx context.Context, event *curationv1.CurationEvent) error {
	rec, err := curationRecord(event)
	if err != nil {
		return status.Error(codes.Internal, err.Error())
	}
	if err := a.publish(ctx, rec); err != nil {
		if _, tooLarge := errors.AsType[*stream.TooLargeError](err); tooLarge {
			return status.Error(codes.InvalidArgument, "the change is too large for the log")
		}
		return status.Errorf(codes.Unavailable, "append the change: %v: try again", err)
	}
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 100*time.Millisecond) {
		edit, err := readEdit(ctx, a.index, event.GetProjectId(), event.GetCurationId())
		switch {
		case err == nil && edit.GetApplied():
			if edit.GetRefused() != "" {
				return status.Error(codes.FailedPrecondition, edit.GetRefused())
			}
			return nil
		case err != nil && ctx.Err() == nil:
			return a.fail(ctx, "wait for the change", err)
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return status.Errorf(codes.DeadlineExceeded, "the change is in the log as %s and will be made, but is not yet: look again with 'hone case show'",
				event.GetCurationId())
		}
	}
}

func curationRecord(event *curationv1.CurationEvent) (stage.Record, error) {
	value, err := encode(event)
	if err != nil {
		return stage.Record{}, fmt.Errorf("encode curation event: %w", err)
	}
	return stage.Record{Topic: stream.TopicCuration, Key: []byte(event.GetProjectId()), Value: value, Time: event.GetOccurredAt().AsTime()}, nil
}

// firstOf keeps the first error whole, with its status.
func firstOf(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func tooLong(field, value string, limit int) error {
	if len(value) <= limit {
		return nil
	}
	return invalid(field, fmt.Sprintf("%d bytes, want at most %d", len(value), limit))
}

// followMerged puts in the place of each merged case the one that has its
// signals now.
func (a *api) followMerged(ctx context.Context, project string, cases []*casesv1.Case) error {
	for {
		var wanted []string
		for _, c := range cases {
			if c.GetMergedInto() != "" {
				wanted = append(wanted, c.GetMergedInto())
			}
		}
		if len(wanted) == 0 {
			return nil
		}
		targets, err := a.readCases(ctx, project, wanted)
		if err != nil {
			return err
		}
		for i, c := range cases {
			if into := c.GetMergedInto(); into != "" {
				if cases[i] = targets[into]; cases[i] == nil {
					return fmt.Errorf("case %s was merged into %s, which is not there", c.GetCaseId(), into)
				}
			}
		}
	}
}

func (a *api) readCases(ctx context.Context, project string, caseIDs []string) (map[string]*casesv1.Case, error) {
	objects, err := a.index.Get(ctx, vector.Cases, project, uuids(project, caseIDs), false)
	if err != nil {
		return nil, fmt.Errorf("read cases: %w", err)
	}
	cases, err := a.decodeCases(ctx, project, slices.Collect(maps.Values(objects)))
	if err != nil {
		return nil, err
	}
	out := make(map[string]*casesv1.Case, len(cases))
	for _, c := range cases {
		out[c.GetCaseId()] = c
	}
	return out, nil
}
