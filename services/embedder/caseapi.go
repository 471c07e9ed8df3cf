package embedder

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"

	"github.com/honeloop/hone/pkg/auth"
	"github.com/honeloop/hone/pkg/ids"
	"github.com/honeloop/hone/pkg/vector"
)

const (
	maxList     = 1000
	defaultList = 50
)

// GetCase reads a case.
func (a *api) GetCase(ctx context.Context, req *casesv1.GetCaseRequest) (*casesv1.GetCaseResponse, error) {
	project, err := auth.Project(ctx)
	if err != nil {
		return nil, err
	}
	if req.GetCaseId() == "" {
		return nil, invalid("case_id", "missing")
	}
	id := ids.UUID(project, req.GetCaseId())
	objects, err := a.index.Get(ctx, vector.Cases, project, []string{id}, false)
	if err != nil {
		return nil, a.fail(ctx, "get case", err)
	}
	o, ok := objects[id]
	if !ok {
		return nil, status.Error(codes.NotFound, "no such case in this project")
	}
	cases, err := a.decodeCases(ctx, project, []vector.Object{o})
	if err != nil {
		return nil, a.fail(ctx, "get case", err)
	}
	return &casesv1.GetCaseResponse{Case: cases[0]}, nil
}

// ListCases reads cases, most negatives first. Withdrawn ones only come when
// they are asked for.
func (a *api) ListCases(ctx context.Context, req *casesv1.ListCasesRequest) (*casesv1.ListCasesResponse, error) {
	project, err := auth.Project(ctx)
	if err != nil {
		return nil, err
	}
	states := []string{stateNew, stateSolved}
	switch s := req.GetState(); s {
	case "":
	case stateNew, stateSolved, stateWithdrawn:
		states = []string{s}
	default:
		return nil, invalid("state", "want new, solved or withdrawn")
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

// decodeCases reads cases and puts their answers in, which another process may
// have written after the case.
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
	answers, err := readAnswers(ctx, a.index, project, names)
	if err != nil {
		return nil, err
	}
	for _, c := range cases {
		applyAnswer(c, answers[c.GetCaseId()])
	}
	return cases, nil
}
