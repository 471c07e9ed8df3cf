package embedder

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"google.golang.org/protobuf/proto"

	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	recallv1 "github.com/honeloop/hone/proto/gen/go/hone/recall/v1"

	"github.com/honeloop/hone/pkg/ids"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/vector"
)

const (
	patchEvent     = "hone.patch.v1"
	patchActive    = "active"
	patchWithdrawn = "withdrawn"

	maxCasePatches = 20
	maxPatchText   = 16 << 10 // bytes

	// Kinds of objects in vector.Answers.
	kindCase      = "case"
	kindPatch     = "patch"
	kindPatchGone = "withdrawn_patch"
)

// patch is a prompt patch as an event on hone.patches tells of it.
type patch struct {
	ProjectID string `json:"project_id"`
	PatchID   string `json:"patch_id"`
	CaseID    string `json:"case_id,omitempty"`
	Version   uint32 `json:"version"`
	State     string `json:"state"`
	Text      string `json:"text,omitempty"`
}

// storedPatch is what the index has of it.
type storedPatch struct {
	patch
	// The case that has the signals of CaseID now, where that one was merged.
	In string `json:"in"`
}

// parsePatch reads a CloudEvent in structured JSON; deploy/schemas describes it.
func parsePatch(value []byte) (patch, error) {
	var e struct {
		SpecVersion string `json:"specversion"`
		Type        string `json:"type"`
		Project     string `json:"honeproject"`
		Data        patch  `json:"data"`
	}
	if err := json.Unmarshal(value, &e); err != nil {
		return patch{}, fmt.Errorf("decode patch event: %w", err)
	}
	p := e.Data
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	check(e.SpecVersion == "1.0", "specversion: %q, want 1.0", e.SpecVersion)
	check(e.Type == patchEvent, "type: %q, want %s", e.Type, patchEvent)
	check(p.ProjectID != "", "data.project_id: missing")
	check(e.Project == "" || e.Project == p.ProjectID, "honeproject: not the project of data.project_id")
	check(p.PatchID != "", "data.patch_id: missing")
	check(p.Version > 0, "data.version: missing, want 1 or more")
	switch p.State {
	case patchActive:
		check(p.CaseID != "", "data.case_id: missing")
		check(strings.TrimSpace(p.Text) != "", "data.text: missing")
		check(len(p.Text) <= maxPatchText, "data.text: %d bytes, want at most %d", len(p.Text), maxPatchText)
	case patchWithdrawn:
		p.Text = ""
	default:
		check(false, "data.state: %q, want %s or %s", p.State, patchActive, patchWithdrawn)
	}
	if err := errors.Join(errs...); err != nil {
		return patch{}, fmt.Errorf("patch event: %w", err)
	}
	return p, nil
}

// patches is the stage that keeps what hone.patches says, in the index beside
// what people said of the cases: Recall needs no Kafka, and reads both at once.
//
// The highest version of a patch holds, and of one version the last event.
type patches struct {
	store    *store
	outcomes metric.Int64Counter
}

// Process implements stage.Stage.
func (s *patches) Process(ctx context.Context, in []stage.Record) ([]stage.Record, error) {
	var failed *stage.BatchError
	for i, r := range in {
		p, err := parsePatch(r.Value)
		if err != nil {
			failed = failed.Fail(i, err)
			continue
		}
		outcome, err := s.apply(ctx, p)
		if errors.Is(err, errManyPatches) {
			failed = failed.Fail(i, err)
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("apply patch %s: %w", p.PatchID, err)
		}
		s.outcomes.Add(ctx, 1, metric.WithAttributes(attribute.String("outcome", outcome)))
	}
	return nil, failed.ErrorOrNil()
}

var errManyPatches = errors.New("too many active patches")

func (s *patches) apply(ctx context.Context, p patch) (outcome string, err error) {
	unlock, err := s.store.locks.lock(ctx, p.ProjectID)
	if err != nil {
		return "", err
	}
	defer unlock()
	id := patchUUID(p)
	stored, err := s.store.index.Get(ctx, vector.Answers, p.ProjectID, []string{id}, false)
	if err != nil {
		return "", fmt.Errorf("read patch: %w", err)
	}
	if o, ok := stored[id]; ok {
		last, err := decodePatch(o)
		if err != nil {
			return "", err
		}
		if p.Version < last.Version {
			return "outdated", nil
		}
	}
	now := storedPatch{patch: p}
	if p.State == patchActive {
		if now.In, err = s.store.whereNow(ctx, p.ProjectID, p.CaseID); err != nil {
			return "", err
		}
		others, err := s.store.patchesOf(ctx, p.ProjectID, []string{now.In})
		if err != nil {
			return "", err
		}
		others = slices.DeleteFunc(others, func(o storedPatch) bool { return o.PatchID == p.PatchID })
		if len(others) >= maxCasePatches {
			return "", fmt.Errorf("%w: case %s has %d, the most: withdraw one", errManyPatches, now.In, len(others))
		}
	}
	return p.State, s.store.writePatches(ctx, p.ProjectID, now)
}

func patchUUID(p patch) string { return ids.UUID(p.ProjectID, "patch/"+p.PatchID) }

func decodePatch(o vector.Object) (storedPatch, error) {
	var p storedPatch
	if err := json.Unmarshal(o.Payload, &p); err != nil {
		return p, fmt.Errorf("decode patch %s: %w", o.ID, err)
	}
	return p, nil
}

func (s *store) writePatches(ctx context.Context, project string, all ...storedPatch) error {
	var objects []vector.Object
	for _, p := range all {
		data, err := json.Marshal(p)
		if err != nil {
			return fmt.Errorf("encode patch %s: %w", p.PatchID, err)
		}
		kind := kindPatch
		if p.State != patchActive {
			kind = kindPatchGone
		}
		objects = append(objects, vector.Object{ID: patchUUID(p.patch), Payload: data, Properties: map[string]any{"case_id": p.In, "kind": kind}})
	}
	if err := s.index.Upsert(ctx, vector.Answers, project, objects); err != nil {
		return fmt.Errorf("write patches: %w", err)
	}
	return nil
}

// patchesOf are the active patches of cases.
func (s *store) patchesOf(ctx context.Context, project string, caseIDs []string) ([]storedPatch, error) {
	filter := vector.In("case_id", caseIDs...)
	filter.And = []*vector.Filter{vector.In("kind", kindPatch)}
	objects, err := s.index.List(ctx, vector.Answers, project, vector.ListQuery{Filter: filter, Limit: vector.MaxResults})
	if err != nil {
		return nil, fmt.Errorf("read patches: %w", err)
	}
	var out []storedPatch
	for _, o := range objects {
		p, err := decodePatch(o)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// whereNow is the case that has a case's signals: itself, unless it was merged.
func (s *store) whereNow(ctx context.Context, project, caseID string) (string, error) {
	for {
		said, err := readCurated(ctx, s.index, project, []string{caseID})
		if err != nil || said[caseID].GetMergedInto() == "" {
			return caseID, err
		}
		caseID = said[caseID].GetMergedInto()
	}
}

// movePatches brings patches to where the signals of their cases went, after a
// merge or the undoing of one changed these cases.
func (s *store) movePatches(ctx context.Context, project string, changed []*casesv1.Case) error {
	var caseIDs []string
	for _, c := range changed {
		caseIDs = append(caseIDs, c.GetCaseId())
	}
	if len(caseIDs) == 0 {
		return nil
	}
	all, err := s.patchesOf(ctx, project, caseIDs)
	if err != nil || len(all) == 0 {
		return err
	}
	for i, p := range all {
		if all[i].In, err = s.whereNow(ctx, project, p.CaseID); err != nil {
			return err
		}
	}
	return s.writePatches(ctx, project, all...)
}

// said is what people said of a case.
type saidOf struct {
	curation *casesv1.CaseCuration // nil for nothing
	patches  []*recallv1.GuidancePatch
}

// readSaid reads curations and active patches of cases, in one call.
func readSaid(ctx context.Context, ix index, project string, caseIDs []string) (map[string]saidOf, error) {
	if len(caseIDs) == 0 {
		return nil, nil
	}
	filter := vector.In("case_id", caseIDs...)
	filter.And = []*vector.Filter{vector.In("kind", kindCase, kindPatch)}
	objects, err := ix.List(ctx, vector.Answers, project, vector.ListQuery{Filter: filter, Limit: vector.MaxResults})
	if err != nil {
		return nil, fmt.Errorf("read what was said about cases: %w", err)
	}
	byUUID := map[string]string{}
	for _, id := range caseIDs {
		byUUID[ids.UUID(project, id)] = id
	}
	out := map[string]saidOf{}
	for _, o := range objects {
		if id, ok := byUUID[o.ID]; ok {
			c := &casesv1.CaseCuration{}
			if err := proto.Unmarshal(o.Payload, c); err != nil {
				return nil, fmt.Errorf("decode what was said about case %s: %w", id, err)
			}
			said := out[id]
			said.curation = c
			out[id] = said
			continue
		}
		p, err := decodePatch(o)
		if err != nil {
			return nil, err
		}
		said := out[p.In]
		said.patches = append(said.patches, &recallv1.GuidancePatch{PatchId: p.PatchID, Version: p.Version, Text: p.Text})
		out[p.In] = said
	}
	for _, id := range slices.Collect(maps.Keys(out)) {
		slices.SortFunc(out[id].patches, func(a, b *recallv1.GuidancePatch) int { return cmp.Compare(a.PatchId, b.PatchId) })
	}
	return out, nil
}
