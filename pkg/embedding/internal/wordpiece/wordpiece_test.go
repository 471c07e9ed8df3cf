package wordpiece

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"
)

const small = "[PAD]\n[UNK]\n[CLS]\n[SEP]\nun\n##aff\n##able\n##a\nthe\n,\n京\nthea\n"

func TestEncode(t *testing.T) {
	tokenizer, err := New(strings.NewReader(small))
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, text string
		limit      int
		want       []int32
		truncated  bool
	}{
		{"empty", "", 9, []int32{2, 3}, false},
		{"longest piece first", "unaffable", 9, []int32{2, 4, 5, 6, 3}, false},
		{"no way back from the longest", "theaff", 9, []int32{2, 1, 3}, false},
		{"unknown word is one piece", "the unaffx", 9, []int32{2, 8, 1, 3}, false},
		{"punctuation stands alone", "the,the", 9, []int32{2, 8, 9, 8, 3}, false},
		{"case and accents", "THÉ", 9, []int32{2, 8, 3}, false},
		{"ideographs stand alone", "the京the", 9, []int32{2, 8, 10, 8, 3}, false},
		{"control characters vanish", "t\x00h\x0be\u200d", 9, []int32{2, 8, 3}, false},
		{"special pieces are text", "[CLS]", 9, []int32{2, 1, 1, 1, 3}, false},
		{"just fits", "the the", 4, []int32{2, 8, 8, 3}, false},
		{"one too many", "the the the", 4, []int32{2, 8, 8, 3}, true},
		{"cut within a word", "unaffable", 4, []int32{2, 4, 5, 3}, true},
		{"word of 101 characters", strings.Repeat("u", 101), 9, []int32{2, 1, 3}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, truncated := tokenizer.Encode(tt.text, tt.limit)
			if !slices.Equal(got, tt.want) || truncated != tt.truncated {
				t.Errorf("got %v, %v; want %v, %v", got, truncated, tt.want, tt.truncated)
			}
		})
	}
}

func TestVocabularyWithoutSpecialPieces(t *testing.T) {
	if _, err := New(strings.NewReader("[CLS]\n[SEP]\n")); err == nil || !strings.Contains(err.Error(), "[UNK]") {
		t.Errorf("error %v, want one that names [UNK]", err)
	}
}

// The real vocabulary is set-up's; the ids are by the reference tokenizer.
func TestEncodeEqualsReference(t *testing.T) {
	path := os.Getenv("HONE_CACHE")
	if path == "" {
		dir, err := os.UserCacheDir()
		if err != nil {
			t.Fatal(err)
		}
		path = dir + "/hone"
	}
	file, err := os.Open(path + "/model/minilm/vocab.txt")
	if err != nil {
		t.Fatalf("%v: run `make setup`", err)
	}
	defer func() { _ = file.Close() }()
	tokenizer, err := New(file)
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile("../../testdata/reference.json")
	if err != nil {
		t.Fatal(err)
	}
	var rows []struct {
		Text string  `json:"text"`
		IDs  []int32 `json:"ids"`
	}
	if err := json.Unmarshal(data, &rows); err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		if got, _ := tokenizer.Encode(r.Text, 256); !slices.Equal(got, r.IDs) {
			t.Errorf("%q:\n got %v\nwant %v", r.Text, got, r.IDs)
		}
	}
}
