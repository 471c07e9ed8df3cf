// Package convert writes all-MiniLM-L6-v2 as ONNX graphs for ONNX Runtime.
package convert

import (
	"encoding/json"
	"fmt"
	"math"
)

// MaxTokens of one text: what the model was trained for.
const MaxTokens = 256

const microsoft = "com.microsoft"

// shape is the part of a BERT model's config.json that the graph depends on.
type shape struct {
	Layers       int     `json:"num_hidden_layers"`
	Hidden       int     `json:"hidden_size"`
	Heads        int     `json:"num_attention_heads"`
	Intermediate int     `json:"intermediate_size"`
	Positions    int     `json:"max_position_embeddings"`
	Types        int     `json:"type_vocab_size"`
	Vocabulary   int     `json:"vocab_size"`
	Epsilon      float32 `json:"layer_norm_eps"`
	Activation   string  `json:"hidden_act"`
}

func readShape(config []byte) (shape, error) {
	var s shape
	if err := json.Unmarshal(config, &s); err != nil {
		return shape{}, fmt.Errorf("read model configuration: %w", err)
	}
	if s.Activation != "gelu" {
		return shape{}, fmt.Errorf("read model configuration: activation %q is not gelu", s.Activation)
	}
	if min(s.Layers, s.Hidden, s.Heads, s.Intermediate, s.Types, s.Vocabulary) < 1 || s.Positions < MaxTokens || s.Hidden%s.Heads != 0 {
		return shape{}, fmt.Errorf("read model configuration: impossible sizes %+v", s)
	}
	return s, nil
}

// Variants of the graph.
const (
	// FP32 computes as the original does.
	FP32 = "fp32"
	// Int8 multiplies integers: weights of 7 bits with a scale per output, and
	// activations of 8 bits with a scale per product, found at run time. Texts
	// that share a run share that scale and so change each other's vectors: run
	// one text at a time.
	Int8 = "int8"
)

// builder adds the operators of one variant to a graph.
type builder struct {
	graph
	shape
	weights *tensors
	variant string
	err     error // the first; later steps do nothing
}

// Graph is the ONNX model of a variant, from a BERT model's config.json and its
// safetensors file. Its input
// "input_ids" is int32 of texts × tokens, all texts of equal length, so that it
// needs no mask; its output "embedding" is the mean over the tokens, float32
// of texts × b.Hidden size, not yet of unit length. Equal input gives equal bytes.
func Graph(config, safetensors []byte, variant string) ([]byte, error) {
	if variant != FP32 && variant != Int8 {
		return nil, fmt.Errorf("convert model: no variant %q", variant)
	}
	sizes, err := readShape(config)
	if err != nil {
		return nil, err
	}
	weights, err := readTensors(safetensors)
	if err != nil {
		return nil, err
	}
	b := &builder{shape: sizes, weights: weights, variant: variant}
	x := b.embed()
	for i := range b.Layers {
		x = b.layer(i, x)
	}
	b.node("", "ReduceMean", []string{x}, []string{"embedding"}, intsAttr("axes", 1), intAttr("keepdims", 0))
	if b.err != nil {
		return nil, fmt.Errorf("convert model: %w", b.err)
	}
	return b.model("all-MiniLM-L6-v2-"+variant,
		valueInfo("input_ids", elemInt32, dim{name: "texts"}, dim{name: "tokens"}),
		valueInfo("embedding", elemFloat, dim{name: "texts"}, dim{size: int64(b.Hidden)})), nil
}

func (b *builder) get(name string, shape ...int) []float32 {
	if b.err != nil {
		return nil
	}
	v, err := b.weights.get(name, shape...)
	b.err = err
	return v
}

// weight copies a weight into the graph under its own name.
func (b *builder) weight(name string, shape ...int) string {
	return b.floats(name, b.get(name, shape...), shape...)
}

func (b *builder) embed() string {
	words := b.weight("embeddings.word_embeddings.weight", b.Vocabulary, b.Hidden)
	position := b.get("embeddings.position_embeddings.weight", b.Positions, b.Hidden)
	types := b.get("embeddings.token_type_embeddings.weight", b.Types, b.Hidden)
	if b.err != nil {
		return ""
	}
	// Only the first MaxTokens positions are used, and every token is of type 0.
	position = position[:MaxTokens*b.Hidden]
	for i := range position {
		position[i] += types[i%b.Hidden]
	}
	b.node(microsoft, "EmbedLayerNormalization", []string{
		"input_ids", "", words, b.floats("positions", position, MaxTokens, b.Hidden), "",
		b.weight("embeddings.LayerNorm.weight", b.Hidden), b.weight("embeddings.LayerNorm.bias", b.Hidden),
	}, []string{"x0", "unused_mask"}, floatAttr("epsilon", b.Epsilon))
	return "x0"
}

func (b *builder) layer(i int, x string) string {
	p := fmt.Sprintf("encoder.layer.%d.", i)
	mixed := b.attention(p, x)
	projected := b.linear(p+"attention.output.dense", mixed, b.Hidden, b.Hidden)
	x = b.addNorm(p+"attention.output", projected, x)
	wide := b.linear(p+"intermediate.dense", x, b.Hidden, b.Intermediate)
	b.node(microsoft, "BiasGelu", []string{wide, b.weight(p+"intermediate.dense.bias", b.Intermediate)}, []string{p + "gelu"})
	narrow := b.linear(p+"output.dense", p+"gelu", b.Intermediate, b.Hidden)
	return b.addNorm(p+"output", narrow, x)
}

// addNorm is LayerNorm(projected + bias + residual).
func (b *builder) addNorm(prefix, projected, residual string) string {
	out := prefix + ".normed"
	b.node(microsoft, "SkipLayerNormalization", []string{
		projected, residual, b.weight(prefix+".LayerNorm.weight", b.Hidden), b.weight(prefix+".LayerNorm.bias", b.Hidden),
		b.weight(prefix+".dense.bias", b.Hidden),
	}, []string{out}, floatAttr("epsilon", b.Epsilon))
	return out
}

// attention is self attention of all tokens to all tokens.
func (b *builder) attention(p, x string) string {
	// Query, key and value beside each other: one product instead of three.
	width := 3 * b.Hidden
	w := make([]float32, b.Hidden*width) // input × output
	var bias []float32
	for j, name := range []string{"query", "key", "value"} {
		part := b.get(p+"attention.self."+name+".weight", b.Hidden, b.Hidden)
		bias = append(bias, b.get(p+"attention.self."+name+".bias", b.Hidden)...)
		if b.err != nil {
			return ""
		}
		for o := range b.Hidden {
			for in := range b.Hidden {
				w[in*width+j*b.Hidden+o] = part[o*b.Hidden+in]
			}
		}
	}
	name, out := p+"attention.self", p+"attention.mixed"
	biasName := b.floats(name+".bias", bias, width)
	switch b.variant {
	case FP32:
		b.node(microsoft, "Attention", []string{x, b.floats(name+".weight", w, b.Hidden, width), biasName}, []string{out}, intAttr("num_heads", int64(b.Heads)))
	case Int8:
		q, scale, zero := b.quantized(name, w, b.Hidden, width)
		b.node("", "DynamicQuantizeLinear", []string{x}, []string{name + ".xq", name + ".xs", name + ".xz"})
		b.node(microsoft, "QAttention", []string{name + ".xq", q, biasName, name + ".xs", scale, "", name + ".xz", zero}, []string{out}, intAttr("num_heads", int64(b.Heads)))
	}
	return out
}

// linear is x times the transposed weight, without the bias.
func (b *builder) linear(name, x string, in, out int) string {
	stored := b.get(name+".weight", out, in)
	if b.err != nil {
		return ""
	}
	w := make([]float32, in*out)
	for o := range out {
		for i := range in {
			w[i*out+o] = stored[o*in+i]
		}
	}
	y := name + ".product"
	switch b.variant {
	case FP32:
		b.node("", "MatMul", []string{x, b.floats(name+".weight", w, in, out)}, []string{y})
	case Int8:
		q, scale, zero := b.quantized(name, w, in, out)
		b.node(microsoft, "DynamicQuantizeMatMul", []string{x, q, scale, zero}, []string{y})
	}
	return y
}

// quantized stores w, input × output, as integers of 7 bits with a scale per
// output. 8 bits would overflow the 16 bit sums of processors without VNNI.
func (b *builder) quantized(name string, w []float32, in, out int) (weight, scale, zero string) {
	q := make([]byte, in*out)
	scales := make([]float32, out)
	for o := range out {
		var top float64
		for i := range in {
			top = max(top, math.Abs(float64(w[i*out+o])))
		}
		s := top / 63
		scales[o] = float32(s)
		for i := range in {
			if s != 0 {
				q[i*out+o] = byte(int8(math.RoundToEven(float64(w[i*out+o]) / s)))
			}
		}
	}
	return b.initializer(name+".weight", elemInt8, q, in, out), b.floats(name+".scale", scales, out),
		b.initializer(name+".zero", elemInt8, make([]byte, out), out)
}
