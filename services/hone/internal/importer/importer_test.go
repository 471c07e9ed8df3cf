package importer

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/honeloop/hone/pkg/repotest"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	"google.golang.org/protobuf/proto"
)

func read(t *testing.T, format, path string) []*eventv1.Event {
	t.Helper()
	f, err := FormatNamed(format)
	if err != nil {
		t.Fatal(err)
	}
	items, total, err := f.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	var events []*eventv1.Event
	ids := map[string]bool{}
	interactions := map[string]bool{}
	for item, err := range items {
		if err != nil {
			t.Fatal(err)
		}
		e := item.Event
		if ids[e.EventId] {
			t.Fatalf("event id %s is used twice", e.EventId)
		}
		ids[e.EventId] = true
		if e.Type == "interaction" {
			interactions[e.SessionId+"/"+e.InteractionId] = true
		} else if e.InteractionId != "" && !interactions[e.SessionId+"/"+e.InteractionId] {
			t.Fatalf("%s: event %s comes before its interaction %s", item.Where, e.EventId, e.InteractionId)
		}
		events = append(events, e)
	}
	if total != len(events) {
		t.Errorf("total %d, want %d", total, len(events))
	}
	return events
}

func tally(events []*eventv1.Event) map[string]int {
	n := map[string]int{}
	for _, e := range events {
		n[e.Type]++
		f := e.GetFeedback()
		if f.GetStars() > 0 {
			n["stars"]++
		}
		if f.GetComment() != "" {
			n["comment"]++
		}
		if f.GetPreferredInteractionId() != "" {
			n["preference"]++
		}
		if e.GetBehavior().GetKind() == "copied" {
			n["copied"]++
			if e.InteractionId != "" {
				n["copied from a known answer"]++
			}
		}
	}
	return n
}

func TestIFLMBringsAllThatTheTablesHold(t *testing.T) {
	dir := filepath.Dir(repotest.SharedData(t, "iflm/query_logs_table.csv"))
	events := read(t, "iflm", dir)
	got := tally(events)
	for what, want := range map[string]int{
		"interaction": 1691 + 821, // every query, and its second answer where it has one
		"stars":       1645 + 787,
	} {
		if got[what] != want {
			t.Errorf("%s: %d, want %d", what, got[what], want)
		}
	}
	for what, atLeast := range map[string]int{"comment": 70, "preference": 600, "copied": 500, "copied from a known answer": 450} {
		if got[what] < atLeast {
			t.Errorf("%s: %d, want at least %d", what, got[what], atLeast)
		}
	}
	again := read(t, "iflm", dir)
	for i := range events {
		if !proto.Equal(events[i], again[i]) {
			t.Fatalf("event %d differs when it is read again", i)
		}
	}
}

func TestOpenAssistantKeepsEveryAnswerAndItsRank(t *testing.T) {
	got := tally(read(t, "open-assistant", repotest.SharedData(t, "open-assistant/en_100_tree.jsonl")))
	if got["interaction"] != 632+46 {
		t.Errorf("%d interactions, want one for each of 678 answers", got["interaction"])
	}
	if got["preference"] < 200 {
		t.Errorf("%d preferences, want at least 200", got["preference"])
	}
}

func TestJSONLinesNameTheLineThatIsWrong(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.jsonl")
	text := `{"type":"behavior","session_id":"s","behavior":{"kind":"left"}}` + "\n\n" + `{"type":"behavior","sesion_id":"s"}` + "\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	items, total, err := openJSONL(path)
	if err != nil || total != 2 {
		t.Fatalf("total %d, %v; want 2", total, err)
	}
	var events int
	var failed error
	for _, err := range items {
		if err != nil {
			failed = err
			break
		}
		events++
	}
	if events != 1 || failed == nil || !strings.Contains(failed.Error(), "events.jsonl:3") || !strings.Contains(failed.Error(), "sesion_id") {
		t.Errorf("%d events, error %v; want 1 and an error that names line 3 and the field", events, failed)
	}
}
