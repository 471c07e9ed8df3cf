package dataset_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	curationv1 "github.com/honeloop/hone/proto/gen/go/hone/curation/v1"
	"github.com/honeloop/hone/services/curator/internal/dataset"
)

var rows = []*curationv1.DatasetRow{
	{RowId: "1", SignalId: "a", Source: "user-correction", SystemContext: "You help.", Query: "Return <worn> shoes?", Chosen: "No.", Rejected: "Yes."},
	{RowId: "2", SignalId: "b", Source: "user-correction", Query: "q2", Chosen: "user's", Rejected: "model's"},
	{RowId: "3", SignalId: "b", Source: "review", Query: "q2", Chosen: "reviewer's\nanswer", Rejected: "model's"},
	{RowId: "4", SignalId: "c", Source: "review", Query: "q3", Chosen: "approved as it was"},
}

func write(t *testing.T, w *dataset.Writer) string {
	t.Helper()
	var out strings.Builder
	w.Emit = func(lines []byte) error {
		if !strings.HasSuffix(string(lines), "\n") {
			t.Errorf("a chunk ends within a line: %q", lines)
		}
		out.Write(lines)
		return nil
	}
	for _, row := range rows {
		if err := w.Add(row); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestFormats(t *testing.T) {
	tests := map[string]struct {
		writer dataset.Writer
		counts dataset.Counts
	}{
		"sft": {dataset.Writer{Format: dataset.SFT, ChunkBytes: 1}, dataset.Counts{Rows: 3, Superseded: 1}},
		"dpo": {dataset.Writer{Format: dataset.DPO, ChunkBytes: 1 << 20}, dataset.Counts{Rows: 2, Superseded: 1, NoRejected: 1}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			want, err := os.ReadFile(filepath.Join("testdata", name+".jsonl"))
			if err != nil {
				t.Fatal(err)
			}
			if got := write(t, &test.writer); got != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", got, want)
			}
			if test.writer.Counts != test.counts {
				t.Errorf("counts: %+v, want %+v", test.writer.Counts, test.counts)
			}
		})
	}
}
