package convert

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"slices"
)

// tensors are the weights of a safetensors file, decoded on demand.
type tensors struct {
	index map[string]tensorInfo
	data  []byte
}

type tensorInfo struct {
	DType   string `json:"dtype"`
	Shape   []int  `json:"shape"`
	Offsets [2]int `json:"data_offsets"`
}

func readTensors(file []byte) (*tensors, error) {
	if len(file) < 8 {
		return nil, fmt.Errorf("read safetensors: only %d bytes", len(file))
	}
	size := binary.LittleEndian.Uint64(file)
	if size > uint64(len(file)-8) {
		return nil, fmt.Errorf("read safetensors: header of %d bytes in a file of %d", size, len(file))
	}
	var index map[string]json.RawMessage
	if err := json.Unmarshal(file[8:8+size], &index); err != nil {
		return nil, fmt.Errorf("read safetensors header: %w", err)
	}
	t := &tensors{index: make(map[string]tensorInfo), data: file[8+size:]}
	for name, raw := range index {
		if name == "__metadata__" {
			continue
		}
		var info tensorInfo
		if err := json.Unmarshal(raw, &info); err != nil {
			return nil, fmt.Errorf("read safetensors entry %s: %w", name, err)
		}
		t.index[name] = info
	}
	return t, nil
}

// get is the float32 tensor name, which must have the shape.
func (t *tensors) get(name string, shape ...int) ([]float32, error) {
	info, ok := t.index[name]
	if !ok {
		return nil, fmt.Errorf("weight %s: missing", name)
	}
	n := 1
	for _, d := range shape {
		n *= d
	}
	start, end := info.Offsets[0], info.Offsets[1]
	if info.DType != "F32" || !slices.Equal(info.Shape, shape) || start < 0 || end > len(t.data) || end-start != n*4 {
		return nil, fmt.Errorf("weight %s: is %s %v in bytes %d to %d, want F32 %v", name, info.DType, info.Shape, start, end, shape)
	}
	out := make([]float32, n)
	for i := range out {
		out[i] = math.Float32frombits(binary.LittleEndian.Uint32(t.data[start+i*4:]))
	}
	return out, nil
}
