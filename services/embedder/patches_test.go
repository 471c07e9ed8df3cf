package embedder

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/santhosh-tekuri/jsonschema/v6"

	recallv1 "github.com/honeloop/hone/proto/gen/go/hone/recall/v1"

	"github.com/honeloop/hone/pkg/repotest"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/telemetry"
)

func patchRecord(t *testing.T, p patch) stage.Record {
	t.Helper()
	value, err := json.Marshal(map[string]any{
		"specversion": "1.0", "id": "pe_1", "source": "/hone/curator", "type": patchEvent, "subject": p.PatchID, "time": "2026-11-24T09:00:00Z",
		"datacontenttype": "application/json", "honeproject": p.ProjectID, "data": p,
	})
	if err != nil {
		t.Fatal(err)
	}
	return stage.Record{Topic: stream.TopicPatches, Key: []byte(p.ProjectID), Value: value}
}

func (h *harness) patched(all ...patch) error {
	h.t.Helper()
	counter, err := telemetry.Discard().Meter.Int64Counter("patches")
	if err != nil {
		h.t.Fatal(err)
	}
	var recs []stage.Record
	for _, p := range all {
		recs = append(recs, patchRecord(h.t, p))
	}
	_, err = (&patches{h.signals.store, counter}).Process(h.t.Context(), recs)
	return err
}

func patchOf(caseID string, version uint32, text string) patch {
	return patch{ProjectID: "p", PatchID: "pt_1", CaseID: caseID, Version: version, State: patchActive, Text: text}
}

// applying are the patches that a query is told of.
func (h *harness) applying(project, query string) string {
	h.t.Helper()
	r, err := h.api().Recall(as(project), &recallv1.RecallRequest{Query: query, K: 1})
	if err != nil {
		h.t.Fatal(err)
	}
	var out []string
	for _, g := range r.GetGuidance() {
		for _, p := range g.GetPatches() {
			out = append(out, fmt.Sprintf("%s@%d %s", p.GetPatchId(), p.GetVersion(), p.GetText()))
		}
	}
	if strings.Contains(r.GetPromptBlock(), "Be kind") {
		h.t.Errorf("an instruction is in the block of data:\n%s", r.GetPromptBlock())
	}
	return strings.Join(out, ", ")
}

func TestRecallListsTheActivePatchesOfACase(t *testing.T) {
	h := newHarness(t)
	h.send(signal("s1", negative, "0"), signal("s2", negative, "90"))
	first := patchOf(founded("s1"), 1, "Be kind")
	second := first
	second.PatchID, second.Text = "pt_2", "Be brief"
	gone := patchOf(founded("s1"), 2, "Be kind, again")
	gone.State = patchWithdrawn
	moved := patchOf(founded("s2"), 4, "Be kind there")
	foreign := patchOf(founded("s1"), 9, "Be kind elsewhere")
	foreign.ProjectID = "q"
	for _, step := range []struct {
		name      string
		patch     patch
		near, far string // of case s1, and of s2
	}{
		{"active", first, "pt_1@1 Be kind", ""},
		{"another one", second, "pt_1@1 Be kind, pt_2@1 Be brief", ""},
		{"another project's", foreign, "pt_1@1 Be kind, pt_2@1 Be brief", ""},
		{"withdrawn", gone, "pt_2@1 Be brief", ""},
		{"an older version comes late", first, "pt_2@1 Be brief", ""},
		{"a new version", patchOf(founded("s1"), 3, "Be kind now"), "pt_1@3 Be kind now, pt_2@1 Be brief", ""},
		{"for another case", moved, "pt_2@1 Be brief", "pt_1@4 Be kind there"},
		{"the same again", moved, "pt_2@1 Be brief", "pt_1@4 Be kind there"},
	} {
		if err := h.patched(step.patch); err != nil {
			t.Fatal(err)
		}
		h.restart() // what is known is in the index
		if near, far := h.applying("p", "0"), h.applying("p", "90"); near != step.near || far != step.far {
			t.Errorf("%s: %q and %q, want %q and %q", step.name, near, far, step.near, step.far)
		}
	}
}

func TestPatchesFollowTheSignalsOfTheirCase(t *testing.T) {
	h := newHarness(t)
	h.send(signal("s1", negative, "0"), signal("s2", negative, "90"))
	if err := h.patched(patchOf(founded("s1"), 1, "Be kind")); err != nil {
		t.Fatal(err)
	}
	merge := h.merge(founded("s1"), founded("s2")).GetCurationId()
	if got := h.applying("p", "90"); got != "pt_1@1 Be kind" {
		t.Errorf("after the merge: %q", got)
	}
	later := patchOf(founded("s1"), 1, "Be kind, too")
	later.PatchID = "pt_2"
	if err := h.patched(later); err != nil {
		t.Fatal(err)
	}
	if got := h.applying("p", "0"); got != "pt_1@1 Be kind, pt_2@1 Be kind, too" {
		t.Errorf("a patch of a merged case: %q", got)
	}
	h.undo(founded("s2"), merge)
	if got, other := h.applying("p", "0"), h.applying("p", "90"); got != "pt_1@1 Be kind, pt_2@1 Be kind, too" || other != "" {
		t.Errorf("after the undo: %q and %q", got, other)
	}
	h.again()
}

// What readers outside are told of a patch event is what is read here.
func TestPatchEventsFitTheirSchema(t *testing.T) {
	schema, err := jsonschema.NewCompiler().Compile(filepath.Join(repotest.Root(t), "deploy", "schemas", patchEvent+".json"))
	if err != nil {
		t.Fatal(err)
	}
	gone := patch{ProjectID: "p", PatchID: "pt_1", Version: 2, State: patchWithdrawn}
	for name, p := range map[string]patch{
		"active": patchOf("cs_1", 1, "Be kind"), "withdrawn": gone, "no case": patchOf("", 1, "Be kind"), "no text": patchOf("cs_1", 1, ""),
		"no version": patchOf("cs_1", 0, "Be kind"), "no state": {ProjectID: "p", PatchID: "pt_1", CaseID: "cs_1", Version: 1, Text: "Be kind"},
	} {
		value := patchRecord(t, p).Value
		doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(value))
		if err != nil {
			t.Fatal(err)
		}
		fits := schema.Validate(doc) == nil
		if _, err := parsePatch(value); fits != (err == nil) || fits != (name == "active" || name == "withdrawn") {
			t.Errorf("%s: fits the schema: %t; read: %v", name, fits, err)
		}
	}
}

func TestPatchesAreChecked(t *testing.T) {
	h := newHarness(t)
	good := patchOf("cs_1", 1, "Be kind")
	for field, change := range map[string]func(*patch){
		"data.project_id": func(p *patch) { p.ProjectID = "" },
		"data.patch_id":   func(p *patch) { p.PatchID = "" },
		"data.case_id":    func(p *patch) { p.CaseID = "" },
		"data.version":    func(p *patch) { p.Version = 0 },
		"data.state":      func(p *patch) { p.State = "candidate" },
		"data.text":       func(p *patch) { p.Text = " " },
		"at most 16384":   func(p *patch) { p.Text = strings.Repeat("x", maxPatchText+1) },
	} {
		p := good
		change(&p)
		var failed *stage.BatchError
		if err := h.patched(good, p); !errors.As(err, &failed) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", field, err)
		}
	}
	for i := range maxCasePatches {
		p := good
		p.PatchID = fmt.Sprint("pt_more_", i)
		err := h.patched(p)
		if last := i == maxCasePatches-1; last != (err != nil) {
			t.Errorf("patch %d: %v", i+2, err)
		}
	}
	if _, err := parsePatch([]byte(`{"specversion":"1.0","type":"hone.route.v1","honeproject":"q","data":{"project_id":"p"}}`)); err == nil ||
		!strings.Contains(err.Error(), "type") || !strings.Contains(err.Error(), "honeproject") {
		t.Errorf("another event: %v", err)
	}
}
