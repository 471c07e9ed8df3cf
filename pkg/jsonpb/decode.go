// Package jsonpb reads JSON into protobuf messages, strictly, and says exactly
// where the JSON is wrong.
//
// Names are the snake_case names of the .proto files. Unknown and repeated
// fields are errors. Whole numbers must be whole and in range, and are numbers,
// not strings. Times are RFC 3339. null is the same as leaving a field out, but
// is refused inside lists and maps.
package jsonpb

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"strconv"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Decoder reads messages of one type. It is safe for concurrent use.
type Decoder struct {
	root     *message
	maxItems int
	buffers  sync.Pool // of *[]byte, for encodings
	readers  sync.Pool // of *jsontext.Decoder
}

type message struct {
	fields map[string]*field
	list   []*field // by field.index
	names  []string
}

type field struct {
	name  string
	index int // below maxFields
	kind  kind
	isMap bool
	list  bool
	// The key of the field in protobuf's encoding.
	tag []byte
	// The key of the values in a map's entries.
	valueTag []byte
	// The message of a message field, or of a list's elements.
	message *message
	// The fields of the oneof that it belongs to, itself excepted, as a set of
	// indexes; 0 for none.
	others uint64
}

type kind uint8

const (
	kindString kind = iota
	kindBool
	kindInt32
	kindInt64
	kindUint32
	kindUint64
	kindFloat
	kindDouble
	kindTime
	kindMessage
)

var kindNames = [...]string{
	kindString: "a string", kindBool: "true or false",
	kindInt32: "a whole number", kindInt64: "a whole number", kindUint32: "a whole number of at least 0", kindUint64: "a whole number of at least 0",
	kindFloat: "a number", kindDouble: "a number", kindTime: `a time such as "2026-11-24T09:30:00Z"`, kindMessage: "an object",
}

// maxFields is what a set of fields holds.
const maxFields = 64

// maxBuffer is the largest buffer that is worth keeping.
const maxBuffer = 64 << 10

// New makes a decoder for a type of message. It refuses types with fields that
// it cannot read: enums, bytes, zigzag and fixed-size whole numbers, maps
// from anything but strings or to messages, and well-known types other than Timestamp. maxItems bounds the elements of a list and the
// entries of a map, so that a small input cannot become a large message.
func New(desc protoreflect.MessageDescriptor, maxItems int) (*Decoder, error) {
	root, err := newMessage(desc, map[protoreflect.FullName]*message{})
	if err != nil {
		return nil, err
	}
	return &Decoder{root: root, maxItems: maxItems}, nil
}

func newMessage(desc protoreflect.MessageDescriptor, known map[protoreflect.FullName]*message) (*message, error) {
	if m, ok := known[desc.FullName()]; ok {
		return m, nil
	}
	m := &message{fields: map[string]*field{}}
	known[desc.FullName()] = m
	fields := desc.Fields()
	if fields.Len() > maxFields {
		return nil, fmt.Errorf("%s has more than %d fields", desc.FullName(), maxFields)
	}
	for i := range fields.Len() {
		f, err := newField(fields.Get(i), known)
		if err != nil {
			return nil, err
		}
		m.fields[f.name] = f
		m.list = append(m.list, f)
		m.names = append(m.names, f.name)
	}
	return m, nil
}

func newField(fd protoreflect.FieldDescriptor, known map[protoreflect.FullName]*message) (*field, error) {
	f := &field{name: string(fd.Name()), index: fd.Index(), isMap: fd.IsMap(), list: fd.IsList()}
	if od := fd.ContainingOneof(); od != nil && !od.IsSynthetic() {
		for i := range od.Fields().Len() {
			f.others |= 1 << od.Fields().Get(i).Index()
		}
		f.others &^= 1 << f.index
	}
	value := fd
	if f.isMap {
		value = fd.MapValue()
		if fd.MapKey().Kind() != protoreflect.StringKind || value.Message() != nil {
			return nil, fmt.Errorf("%s: only maps from strings to strings, numbers or booleans can be read", fd.FullName())
		}
	}
	wire := protowire.VarintType
	switch value.Kind() {
	case protoreflect.StringKind:
		f.kind, wire = kindString, protowire.BytesType
	case protoreflect.BoolKind:
		f.kind = kindBool
	case protoreflect.Int32Kind:
		f.kind = kindInt32
	case protoreflect.Int64Kind:
		f.kind = kindInt64
	case protoreflect.Uint32Kind:
		f.kind = kindUint32
	case protoreflect.Uint64Kind:
		f.kind = kindUint64
	case protoreflect.FloatKind:
		f.kind, wire = kindFloat, protowire.Fixed32Type
	case protoreflect.DoubleKind:
		f.kind, wire = kindDouble, protowire.Fixed64Type
	case protoreflect.MessageKind:
		wire = protowire.BytesType
		name := value.Message().FullName()
		if name == "google.protobuf.Timestamp" {
			f.kind = kindTime
			break
		}
		if name.Parent() == "google.protobuf" {
			return nil, fmt.Errorf("%s: fields of type %s cannot be read", fd.FullName(), name)
		}
		f.kind = kindMessage
		sub, err := newMessage(value.Message(), known)
		if err != nil {
			return nil, err
		}
		f.message = sub
	default:
		return nil, fmt.Errorf("%s: fields of type %s cannot be read", fd.FullName(), value.Kind())
	}
	if f.isMap {
		f.valueTag = protowire.AppendTag(nil, 2, wire)
		wire = protowire.BytesType
	}
	f.tag = protowire.AppendTag(nil, fd.Number(), wire)
	return f, nil
}

// Reader reads the JSON tokens of data, for DecodeNext. Give it back with
// Release.
func (d *Decoder) Reader(data []byte) *jsontext.Decoder {
	dec, _ := d.readers.Get().(*jsontext.Decoder)
	if dec == nil {
		dec = new(jsontext.Decoder)
	}
	d.Rewind(dec, data)
	return dec
}

// Rewind makes dec, which came from Reader, read data from the start.
func (d *Decoder) Rewind(dec *jsontext.Decoder, data []byte) {
	// Repeated names are found by DecodeNext, which can name the field.
	dec.Reset(bytes.NewBuffer(data), jsontext.AllowDuplicateNames(true))
}

// Release ends the use of dec.
func (d *Decoder) Release(dec *jsontext.Decoder) {
	d.Rewind(dec, nil) // forget the data
	d.readers.Put(dec)
}

// Unmarshal reads data, one JSON object and nothing after it, into m. The
// error is a *FieldError.
func (d *Decoder) Unmarshal(data []byte, m proto.Message) error {
	dec := d.Reader(data)
	defer d.Release(dec)
	if err := d.DecodeNext(dec, m); err != nil {
		return err
	}
	if err := End(dec); err != nil {
		return err
	}
	return nil
}

// End checks that nothing follows the value that was read.
func End(dec *jsontext.Decoder) *FieldError {
	if _, err := dec.ReadToken(); err == nil {
		return &FieldError{Reason: BrokenJSON, Message: fmt.Sprintf("something follows the JSON object, at byte %d", dec.InputOffset())}
	} else if !errors.Is(err, io.EOF) {
		return Broken(err)
	}
	return nil
}

// DecodeNext reads the next object of dec into m, which then holds nothing else.
// After an error that is not BrokenJSON, dec stands behind that object, so that
// the next can be read.
//
// It writes protobuf's encoding and decodes that: setting fields by reflection
// takes twice the time.
func (d *Decoder) DecodeNext(dec *jsontext.Decoder, m proto.Message) *FieldError {
	depth := dec.StackDepth()
	buf, _ := d.buffers.Get().(*[]byte)
	if buf == nil {
		buf = new([]byte)
	}
	out, ferr := d.message(dec, d.root, (*buf)[:0])
	if *buf = out; cap(out) <= maxBuffer {
		defer d.buffers.Put(buf)
	}
	if ferr == nil {
		if err := proto.Unmarshal(out, m); err != nil {
			return &FieldError{Reason: BrokenJSON, Message: err.Error()}
		}
		return nil
	}
	if ferr.Reason == BrokenJSON {
		return ferr
	}
	for dec.StackDepth() > depth {
		if _, err := dec.ReadToken(); err != nil {
			return Broken(err)
		}
	}
	return ferr
}

// Broken is the error for JSON that is not JSON.
func Broken(err error) *FieldError {
	e := &FieldError{Reason: BrokenJSON}
	syntax, ok := errors.AsType[*jsontext.SyntacticError](err)
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.EOF):
		e.Message = "the JSON ends too early"
	case ok && syntax.Err != nil:
		e.Message = "broken JSON: " + syntax.Err.Error()
	default:
		e.Message = "broken JSON: " + err.Error()
	}
	if ok {
		e.Message += fmt.Sprintf(", at byte %d", syntax.ByteOffset)
	}
	return e
}

func wrongType(dec *jsontext.Decoder, want string) *FieldError {
	var got string
	switch dec.PeekKind() {
	case 'n':
		got = "null"
	case 't', 'f':
		got = "true or false"
	case '"':
		got = "a string"
	case '0':
		got = "a number"
	case '{':
		got = "an object"
	case '[':
		got = "a list"
	}
	// Also finds out whether it is JSON at all.
	if err := dec.SkipValue(); err != nil {
		return Broken(err)
	}
	return &FieldError{Reason: WrongType, Message: "want " + want + ", got " + got}
}

// unquoted is the content of a JSON string. It may share raw's memory.
func unquoted(raw jsontext.Value) []byte {
	if inner := raw[1 : len(raw)-1]; bytes.IndexByte(inner, '\\') < 0 {
		return inner
	}
	out, _ := jsontext.AppendUnquote(nil, raw) // ReadValue has checked it
	return out
}

// message appends the fields of the next object.
func (d *Decoder) message(dec *jsontext.Decoder, msg *message, buf []byte) ([]byte, *FieldError) {
	if dec.PeekKind() != '{' {
		return buf, wrongType(dec, kindNames[kindMessage])
	}
	if _, err := dec.ReadToken(); err != nil {
		return buf, Broken(err)
	}
	var seen, set uint64 // sets of fields; null is seen and not set
	for {
		if dec.PeekKind() == '}' {
			if _, err := dec.ReadToken(); err != nil {
				return buf, Broken(err)
			}
			return buf, nil
		}
		raw, err := dec.ReadValue()
		if err != nil {
			return buf, Broken(err)
		}
		name := unquoted(raw)
		f, ok := msg.fields[string(name)]
		if !ok {
			return buf, msg.unknown(string(name))
		}
		if seen&(1<<f.index) != 0 {
			return buf, (&FieldError{Reason: Duplicate, Message: "the field is there twice"}).In(f.name)
		}
		seen |= 1 << f.index
		if dec.PeekKind() == 'n' {
			if _, err := dec.ReadToken(); err != nil {
				return buf, Broken(err).In(f.name)
			}
			continue
		}
		if both := set & f.others; both != 0 {
			other := msg.list[bits.TrailingZeros64(both)]
			return buf, (&FieldError{Reason: Duplicate, Message: fmt.Sprintf("there can be only one of this and %q", other.name)}).In(f.name)
		}
		set |= 1 << f.index
		var ferr *FieldError
		switch {
		case f.isMap:
			buf, ferr = d.mapOf(dec, f, buf)
		case f.list:
			buf, ferr = d.list(dec, f, buf)
		default:
			buf, ferr = d.value(dec, f, buf)
		}
		if ferr != nil {
			return buf, ferr.In(f.name)
		}
	}
}

func (m *message) unknown(name string) *FieldError {
	e := &FieldError{Reason: UnknownField, Message: "there is no such field"}
	if s := suggest(name, m.names); s != "" {
		e.Message += fmt.Sprintf(": did you mean %q?", s)
	} else if s := m.inside(name); s != "" {
		e.Message += fmt.Sprintf(" here: did you mean %q?", s)
	}
	return e.Key(name)
}

// inside is the path of the field where a message of m has it; else empty.
func (m *message) inside(name string) string {
	for _, n := range m.names {
		f := m.fields[n]
		if f.message == nil || f.list {
			continue
		}
		if _, ok := f.message.fields[name]; ok {
			return n + "." + name
		}
	}
	return ""
}

// value appends one value with its tag.
func (d *Decoder) value(dec *jsontext.Decoder, f *field, buf []byte) ([]byte, *FieldError) {
	buf = append(buf, f.tag...)
	if f.kind != kindMessage {
		return scalar(dec, f.kind, buf)
	}
	start := len(buf)
	buf, ferr := d.message(dec, f.message, buf)
	if ferr != nil {
		return buf, ferr
	}
	return insertLength(buf, start), nil
}

// insertLength puts the length of buf[start:] before it.
func insertLength(buf []byte, start int) []byte {
	n := len(buf) - start
	size := protowire.SizeVarint(uint64(n))
	for range size {
		buf = append(buf, 0)
	}
	copy(buf[start+size:], buf[start:start+n])
	protowire.AppendVarint(buf[start:start], uint64(n))
	return buf
}

func (d *Decoder) list(dec *jsontext.Decoder, f *field, buf []byte) ([]byte, *FieldError) {
	if dec.PeekKind() != '[' {
		return buf, wrongType(dec, "a list")
	}
	if _, err := dec.ReadToken(); err != nil {
		return buf, Broken(err)
	}
	for i := 0; ; i++ {
		if dec.PeekKind() == ']' {
			if _, err := dec.ReadToken(); err != nil {
				return buf, Broken(err)
			}
			return buf, nil
		}
		if i >= d.maxItems {
			// What comes may not be JSON at all.
			if err := dec.SkipValue(); err != nil {
				return buf, Broken(err)
			}
			return buf, &FieldError{Reason: TooMany, Message: fmt.Sprintf("want at most %d elements", d.maxItems)}
		}
		var ferr *FieldError
		if buf, ferr = d.value(dec, f, buf); ferr != nil {
			return buf, ferr.At(i)
		}
	}
}

func (d *Decoder) mapOf(dec *jsontext.Decoder, f *field, buf []byte) ([]byte, *FieldError) {
	if dec.PeekKind() != '{' {
		return buf, wrongType(dec, "an object")
	}
	if _, err := dec.ReadToken(); err != nil {
		return buf, Broken(err)
	}
	keys := map[string]bool{}
	for {
		if dec.PeekKind() == '}' {
			if _, err := dec.ReadToken(); err != nil {
				return buf, Broken(err)
			}
			return buf, nil
		}
		raw, err := dec.ReadValue()
		if err != nil {
			return buf, Broken(err)
		}
		key := string(unquoted(raw))
		if keys[key] {
			return buf, (&FieldError{Reason: Duplicate, Message: "the key is there twice"}).Key(key)
		}
		if len(keys) >= d.maxItems {
			return buf, &FieldError{Reason: TooMany, Message: fmt.Sprintf("want at most %d entries", d.maxItems)}
		}
		keys[key] = true
		// An entry is a message with the key as field 1 and the value as field 2.
		buf = append(buf, f.tag...)
		start := len(buf)
		buf = protowire.AppendTag(buf, 1, protowire.BytesType)
		buf = protowire.AppendString(buf, key)
		buf = append(buf, f.valueTag...)
		var ferr *FieldError
		if buf, ferr = scalar(dec, f.kind, buf); ferr != nil {
			return buf, ferr.Key(key)
		}
		buf = insertLength(buf, start)
	}
}

// scalar appends the next value without its tag.
func scalar(dec *jsontext.Decoder, k kind, buf []byte) ([]byte, *FieldError) {
	got := dec.PeekKind()
	var ok bool
	switch k {
	case kindString, kindTime:
		ok = got == '"'
	case kindBool:
		ok = got == 't' || got == 'f'
	default:
		ok = got == '0'
	}
	if !ok {
		return buf, wrongType(dec, kindNames[k])
	}
	raw, err := dec.ReadValue()
	if err != nil {
		return buf, Broken(err)
	}
	switch k {
	case kindString:
		return protowire.AppendBytes(buf, unquoted(raw)), nil
	case kindTime:
		return timestamp(string(unquoted(raw)), buf)
	case kindBool:
		return protowire.AppendVarint(buf, protowire.EncodeBool(got == 't')), nil
	case kindInt32:
		n, ferr := signed(raw, 32)
		return protowire.AppendVarint(buf, uint64(n)), ferr
	case kindInt64:
		n, ferr := signed(raw, 64)
		return protowire.AppendVarint(buf, uint64(n)), ferr
	case kindUint32:
		n, ferr := unsigned(raw, 32)
		return protowire.AppendVarint(buf, n), ferr
	case kindUint64:
		n, ferr := unsigned(raw, 64)
		return protowire.AppendVarint(buf, n), ferr
	case kindFloat:
		x, err := strconv.ParseFloat(string(raw), 32)
		if err != nil {
			return buf, outOfRange("a number that fits 32 bits")
		}
		return protowire.AppendFixed32(buf, math.Float32bits(float32(x))), nil
	default:
		x, err := strconv.ParseFloat(string(raw), 64)
		if err != nil {
			return buf, outOfRange("a number that fits 64 bits")
		}
		return protowire.AppendFixed64(buf, math.Float64bits(x)), nil
	}
}

func outOfRange(want string) *FieldError {
	return &FieldError{Reason: OutOfRange, Message: "want " + want}
}

func unsigned(raw jsontext.Value, bits int) (uint64, *FieldError) {
	if n, err := strconv.ParseUint(string(raw), 10, bits); err == nil {
		return n, nil
	}
	if x, ok := whole(raw); ok && x >= 0 && x < math.Ldexp(1, min(bits, 53)) {
		return uint64(x), nil
	}
	return 0, outOfRange(fmt.Sprintf("a whole number from 0 to %d", uint64(math.MaxUint64)>>(64-bits)))
}

func signed(raw jsontext.Value, bits int) (int64, *FieldError) {
	if n, err := strconv.ParseInt(string(raw), 10, bits); err == nil {
		return n, nil
	}
	if x, ok := whole(raw); ok && math.Abs(x) < math.Ldexp(1, min(bits-1, 53)) {
		return int64(x), nil
	}
	limit := int64(math.MaxInt64) >> (64 - bits)
	return 0, outOfRange(fmt.Sprintf("a whole number from %d to %d", -limit-1, limit))
}

// whole reads numbers such as 1.0 and 2e3, which some languages write.
func whole(raw jsontext.Value) (float64, bool) {
	x, err := strconv.ParseFloat(string(raw), 64)
	return x, err == nil && x == math.Trunc(x)
}

func timestamp(s string, buf []byte) ([]byte, *FieldError) {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return buf, &FieldError{Reason: OutOfRange, Message: "want " + kindNames[kindTime] + " (RFC 3339, with a zone)"}
	}
	ts := timestamppb.New(t)
	if err := ts.CheckValid(); err != nil {
		return buf, outOfRange("a time from the year 1 to the year 9999")
	}
	start := len(buf)
	buf = protowire.AppendTag(buf, 1, protowire.VarintType)
	buf = protowire.AppendVarint(buf, uint64(ts.GetSeconds()))
	buf = protowire.AppendTag(buf, 2, protowire.VarintType)
	buf = protowire.AppendVarint(buf, uint64(ts.GetNanos()))
	return insertLength(buf, start), nil
}
