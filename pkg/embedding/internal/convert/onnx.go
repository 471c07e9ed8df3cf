package convert

import (
	"encoding/binary"
	"math"

	"google.golang.org/protobuf/encoding/protowire"
)

// ONNX element types and attribute types of onnx.proto.
const (
	elemFloat = 1
	elemInt8  = 3
	elemInt32 = 6

	attrFloat = 1
	attrInt   = 2
	attrInts  = 7
)

// graph collects nodes and weights and writes them as an ONNX model.
type graph struct {
	nodes        []byte
	initializers []byte
}

// attr is one encoded AttributeProto.
type attr []byte

func field(b []byte, num protowire.Number, msg []byte) []byte {
	b = protowire.AppendTag(b, num, protowire.BytesType)
	return protowire.AppendBytes(b, msg)
}

func fieldString(b []byte, num protowire.Number, s string) []byte {
	b = protowire.AppendTag(b, num, protowire.BytesType)
	return protowire.AppendString(b, s)
}

func fieldInt(b []byte, num protowire.Number, v int64) []byte {
	b = protowire.AppendTag(b, num, protowire.VarintType)
	return protowire.AppendVarint(b, uint64(v))
}

func intAttr(name string, v int64) attr {
	return fieldInt(fieldInt(fieldString(nil, 1, name), 3, v), 20, attrInt)
}

func intsAttr(name string, vs ...int64) attr {
	b := fieldString(nil, 1, name)
	for _, v := range vs {
		b = fieldInt(b, 8, v)
	}
	return fieldInt(b, 20, attrInts)
}

func floatAttr(name string, v float32) attr {
	b := protowire.AppendTag(fieldString(nil, 1, name), 2, protowire.Fixed32Type)
	return fieldInt(protowire.AppendFixed32(b, math.Float32bits(v)), 20, attrFloat)
}

// node appends an operator. An empty domain is ONNX's own.
func (g *graph) node(domain, op string, inputs, outputs []string, attrs ...attr) {
	var b []byte
	for _, in := range inputs {
		b = fieldString(b, 1, in)
	}
	for _, out := range outputs {
		b = fieldString(b, 2, out)
	}
	b = fieldString(b, 3, outputs[0])
	b = fieldString(b, 4, op)
	for _, a := range attrs {
		b = field(b, 5, a)
	}
	b = fieldString(b, 7, domain)
	g.nodes = field(g.nodes, 1, b)
}

func (g *graph) initializer(name string, elem int64, raw []byte, dims ...int) string {
	var b []byte
	for _, d := range dims {
		b = fieldInt(b, 1, int64(d))
	}
	b = fieldInt(b, 2, elem)
	b = fieldString(b, 8, name)
	b = field(b, 9, raw)
	g.initializers = field(g.initializers, 5, b)
	return name
}

func (g *graph) floats(name string, v []float32, dims ...int) string {
	raw := make([]byte, 0, len(v)*4)
	for _, x := range v {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(x))
	}
	return g.initializer(name, elemFloat, raw, dims...)
}

// dim is a size, or a name where the size is free.
type dim struct {
	size int64
	name string
}

func valueInfo(name string, elem int64, dims ...dim) []byte {
	var shape []byte
	for _, d := range dims {
		if d.name != "" {
			shape = field(shape, 1, fieldString(nil, 2, d.name))
		} else {
			shape = field(shape, 1, fieldInt(nil, 1, d.size))
		}
	}
	tensor := field(fieldInt(nil, 1, elem), 2, shape)
	return field(fieldString(nil, 1, name), 2, field(nil, 1, tensor))
}

// model is the encoded ModelProto.
func (g *graph) model(name string, input, output []byte) []byte {
	body := make([]byte, 0, len(g.nodes)+len(g.initializers)+1024)
	body = append(body, g.nodes...)
	body = fieldString(body, 2, name)
	body = append(body, g.initializers...)
	body = field(body, 11, input)
	body = field(body, 12, output)

	b := fieldInt(nil, 1, 8) // IR version 8
	b = fieldString(b, 2, "hone-model")
	b = field(b, 7, body)
	b = field(b, 8, fieldInt(fieldString(nil, 1, ""), 2, 17))
	return field(b, 8, fieldInt(fieldString(nil, 1, "com.microsoft"), 2, 1))
}
