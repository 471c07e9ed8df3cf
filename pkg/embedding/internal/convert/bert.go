// Package convert writes all-MiniLM-L6-v2 as ONNX graphs for ONNX Runtime.
package convert

import (
	"fmt"
	"math"
)

// The shape of all-MiniLM-L6-v2.
const (
	layers       = 6
	hidden       = 384
	heads        = 12
	intermediate = 1536
	positions    = 512
	vocabulary   = 30522
	// MaxTokens of one text: what the model was trained for.
	MaxTokens = 256

	microsoft = "com.microsoft"
)

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
	weights *tensors
	variant string
	err     error // the first; later steps do nothing
}

// Graph is the ONNX model of a variant, from a safetensors file. Its input
// "input_ids" is int32 of texts × tokens, all texts of equal length, so that it
// needs no mask; its output "embedding" is the mean over the tokens, float32
// of texts × 384, not yet of unit length. Equal input gives equal bytes.
func Graph(safetensors []byte, variant string) ([]byte, error) {
	if variant != FP32 && variant != Int8 {
		return nil, fmt.Errorf("convert model: no variant %q", variant)
	}
	weights, err := readTensors(safetensors)
	if err != nil {
		return nil, err
	}
	b := &builder{weights: weights, variant: variant}
	x := b.embed()
	for i := range layers {
		x = b.layer(i, x)
	}
	b.node("", "ReduceMean", []string{x}, []string{"embedding"}, intsAttr("axes", 1), intAttr("keepdims", 0))
	if b.err != nil {
		return nil, fmt.Errorf("convert model: %w", b.err)
	}
	return b.model("all-MiniLM-L6-v2-"+variant,
		valueInfo("input_ids", elemInt32, dim{name: "texts"}, dim{name: "tokens"}),
		valueInfo("embedding", elemFloat, dim{name: "texts"}, dim{size: hidden})), nil
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
	words := b.weight("embeddings.word_embeddings.weight", vocabulary, hidden)
	position := b.get("embeddings.position_embeddings.weight", positions, hidden)
	types := b.get("embeddings.token_type_embeddings.weight", 2, hidden)
	if b.err != nil {
		return ""
	}
	// Only the first MaxTokens positions are used, and every token is of type 0.
	position = position[:MaxTokens*hidden]
	for i := range position {
		position[i] += types[i%hidden]
	}
	b.node(microsoft, "EmbedLayerNormalization", []string{
		"input_ids", "", words, b.floats("positions", position, MaxTokens, hidden), "",
		b.weight("embeddings.LayerNorm.weight", hidden), b.weight("embeddings.LayerNorm.bias", hidden),
	}, []string{"x0", "unused_mask"}, floatAttr("epsilon", 1e-12))
	return "x0"
}

func (b *builder) layer(i int, x string) string {
	p := fmt.Sprintf("encoder.layer.%d.", i)
	mixed := b.attention(p, x)
	projected := b.linear(p+"attention.output.dense", mixed, hidden, hidden)
	x = b.addNorm(p+"attention.output", projected, x)
	wide := b.linear(p+"intermediate.dense", x, hidden, intermediate)
	b.node(microsoft, "BiasGelu", []string{wide, b.weight(p+"intermediate.dense.bias", intermediate)}, []string{p + "gelu"})
	narrow := b.linear(p+"output.dense", p+"gelu", intermediate, hidden)
	return b.addNorm(p+"output", narrow, x)
}

// addNorm is LayerNorm(projected + bias + residual).
func (b *builder) addNorm(prefix, projected, residual string) string {
	out := prefix + ".normed"
	b.node(microsoft, "SkipLayerNormalization", []string{
		projected, residual, b.weight(prefix+".LayerNorm.weight", hidden), b.weight(prefix+".LayerNorm.bias", hidden),
		b.weight(prefix+".dense.bias", hidden),
	}, []string{out}, floatAttr("epsilon", 1e-12))
	return out
}

// attention is self attention of all tokens to all tokens.
func (b *builder) attention(p, x string) string {
	// Query, key and value beside each other: one product instead of three.
	const width = 3 * hidden
	w := make([]float32, hidden*width) // input × output
	var bias []float32
	for j, name := range []string{"query", "key", "value"} {
		part := b.get(p+"attention.self."+name+".weight", hidden, hidden)
		bias = append(bias, b.get(p+"attention.self."+name+".bias", hidden)...)
		if b.err != nil {
			return ""
		}
		for o := range hidden {
			for in := range hidden {
				w[in*width+j*hidden+o] = part[o*hidden+in]
			}
		}
	}
	name, out := p+"attention.self", p+"attention.mixed"
	biasName := b.floats(name+".bias", bias, width)
	switch b.variant {
	case FP32:
		b.node(microsoft, "Attention", []string{x, b.floats(name+".weight", w, hidden, width), biasName}, []string{out}, intAttr("num_heads", heads))
	case Int8:
		q, scale, zero := b.quantized(name, w, hidden, width)
		b.node("", "DynamicQuantizeLinear", []string{x}, []string{name + ".xq", name + ".xs", name + ".xz"})
		b.node(microsoft, "QAttention", []string{name + ".xq", q, biasName, name + ".xs", scale, "", name + ".xz", zero}, []string{out}, intAttr("num_heads", heads))
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
