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
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// Decoder reads messages of one type. It is safe for concurrent use.
type Decoder struct {
	root     *message
	maxItems int
}

type message struct {
	desc   protoreflect.MessageDescriptor
	fields map[string]*field
	names  []string
}

type field struct {
	desc  protoreflect.FieldDescriptor
	name  string
	index int // in message.fields, for finding repeated fields
	kind  kind
	// The message of a message field, or of a list's elements.
	message *message
	// The oneof that it belongs to; nil for none.
	oneof protoreflect.OneofDescriptor
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

// maxFields is what a set of seen fields holds.
const maxFields = 64

// New makes a decoder for a type of message. It refuses types with fields that
// it cannot read: enums, bytes, maps of anything but strings, and well-known
// types other than Timestamp. maxItems bounds the elements of a list and the
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
	m := &message{desc: desc, fields: map[string]*field{}}
	known[desc.FullName()] = m
	fields := desc.Fields()
	if fields.Len() > maxFields {
		return nil, fmt.Errorf("%s has more than %d fields", desc.FullName(), maxFields)
	}
	for i := range fields.Len() {
		fd := fields.Get(i)
		f := &field{desc: fd, name: string(fd.Name()), index: i}
		if od := fd.ContainingOneof(); od != nil && !od.IsSynthetic() {
			f.oneof = od
		}
		value := fd
		if fd.IsMap() {
			value = fd.MapValue()
			if fd.MapKey().Kind() != protoreflect.StringKind || value.Kind() != protoreflect.StringKind {
				return nil, fmt.Errorf("%s: only maps from string to string can be read", fd.FullName())
			}
		}
		switch value.Kind() {
		case protoreflect.StringKind:
			f.kind = kindString
		case protoreflect.BoolKind:
			f.kind = kindBool
		case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
			f.kind = kindInt32
		case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
			f.kind = kindInt64
		case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
			f.kind = kindUint32
		case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
			f.kind = kindUint64
		case protoreflect.FloatKind:
			f.kind = kindFloat
		case protoreflect.DoubleKind:
			f.kind = kindDouble
		case protoreflect.MessageKind:
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
		m.fields[f.name] = f
		m.names = append(m.names, f.name)
	}
	return m, nil
}

// Reader reads JSON tokens, for DecodeNext.
func (d *Decoder) Reader(data []byte) *jsontext.Decoder {
	// Repeated names are found by DecodeNext, which can name the field.
	return jsontext.NewDecoder(bytes.NewBuffer(data), jsontext.AllowDuplicateNames(true))
}

// Unmarshal reads data, one JSON object and nothing after it, into m. The
// error is a *FieldError.
func (d *Decoder) Unmarshal(data []byte, m proto.Message) error {
	dec := d.Reader(data)
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

// DecodeNext reads the next object of dec into m. After an error that is not
// BrokenJSON, dec stands behind that object, so that the next can be read; m is
// then half filled.
func (d *Decoder) DecodeNext(dec *jsontext.Decoder, m proto.Message) *FieldError {
	depth := dec.StackDepth()
	ferr := d.message(dec, d.root, m.ProtoReflect())
	if ferr == nil || ferr.Reason == BrokenJSON {
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

func (d *Decoder) message(dec *jsontext.Decoder, msg *message, m protoreflect.Message) *FieldError {
	if dec.PeekKind() != '{' {
		return wrongType(dec, kindNames[kindMessage])
	}
	if _, err := dec.ReadToken(); err != nil {
		return Broken(err)
	}
	var seen uint64
	for {
		k := dec.PeekKind()
		if k == '}' {
			if _, err := dec.ReadToken(); err != nil {
				return Broken(err)
			}
			return nil
		}
		raw, err := dec.ReadValue()
		if err != nil {
			return Broken(err)
		}
		name := unquoted(raw)
		f, ok := msg.fields[string(name)]
		if !ok {
			return msg.unknown(string(name))
		}
		if seen&(1<<f.index) != 0 {
			return (&FieldError{Reason: Duplicate, Message: "the field is there twice"}).In(f.name)
		}
		seen |= 1 << f.index
		if ferr := d.field(dec, f, m); ferr != nil {
			return ferr.In(f.name)
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
		if f.message == nil || f.desc.IsList() {
			continue
		}
		if _, ok := f.message.fields[name]; ok {
			return n + "." + name
		}
	}
	return ""
}

func (d *Decoder) field(dec *jsontext.Decoder, f *field, m protoreflect.Message) *FieldError {
	if dec.PeekKind() == 'n' {
		if _, err := dec.ReadToken(); err != nil {
			return Broken(err)
		}
		return nil
	}
	switch {
	case f.desc.IsMap():
		return d.stringMap(dec, f, m)
	case f.desc.IsList():
		return d.list(dec, f, m)
	}
	if f.oneof != nil {
		if other := m.WhichOneof(f.oneof); other != nil {
			return &FieldError{Reason: Duplicate, Message: fmt.Sprintf("there can be only one of this and %q", other.Name())}
		}
	}
	if f.kind == kindMessage {
		return d.message(dec, f.message, m.Mutable(f.desc).Message())
	}
	v, ferr := scalar(dec, f.kind)
	if ferr != nil {
		return ferr
	}
	m.Set(f.desc, v)
	return nil
}

func (d *Decoder) list(dec *jsontext.Decoder, f *field, m protoreflect.Message) *FieldError {
	if dec.PeekKind() != '[' {
		return wrongType(dec, "a list")
	}
	if _, err := dec.ReadToken(); err != nil {
		return Broken(err)
	}
	list := m.Mutable(f.desc).List()
	for i := 0; ; i++ {
		if dec.PeekKind() == ']' {
			if _, err := dec.ReadToken(); err != nil {
				return Broken(err)
			}
			return nil
		}
		if i >= d.maxItems {
			// What comes may not be JSON at all.
			if err := dec.SkipValue(); err != nil {
				return Broken(err)
			}
			return &FieldError{Reason: TooMany, Message: fmt.Sprintf("want at most %d elements", d.maxItems)}
		}
		if f.kind == kindMessage {
			if ferr := d.message(dec, f.message, list.AppendMutable().Message()); ferr != nil {
				return ferr.At(i)
			}
			continue
		}
		v, ferr := scalar(dec, f.kind)
		if ferr != nil {
			return ferr.At(i)
		}
		list.Append(v)
	}
}

func (d *Decoder) stringMap(dec *jsontext.Decoder, f *field, m protoreflect.Message) *FieldError {
	if dec.PeekKind() != '{' {
		return wrongType(dec, "an object")
	}
	if _, err := dec.ReadToken(); err != nil {
		return Broken(err)
	}
	entries := m.Mutable(f.desc).Map()
	for {
		if dec.PeekKind() == '}' {
			if _, err := dec.ReadToken(); err != nil {
				return Broken(err)
			}
			return nil
		}
		raw, err := dec.ReadValue()
		if err != nil {
			return Broken(err)
		}
		name := string(unquoted(raw))
		key := protoreflect.ValueOfString(name).MapKey()
		if entries.Has(key) {
			return (&FieldError{Reason: Duplicate, Message: "the key is there twice"}).Key(name)
		}
		if entries.Len() >= d.maxItems {
			return &FieldError{Reason: TooMany, Message: fmt.Sprintf("want at most %d entries", d.maxItems)}
		}
		v, ferr := scalar(dec, kindString)
		if ferr != nil {
			return ferr.Key(name)
		}
		entries.Set(key, v)
	}
}

func scalar(dec *jsontext.Decoder, k kind) (protoreflect.Value, *FieldError) {
	var want jsontext.Kind
	switch got := dec.PeekKind(); k {
	case kindString, kindTime:
		want = '"'
	case kindBool:
		want = got
		if got != 't' && got != 'f' {
			want = 't'
		}
	default:
		want = '0'
	}
	if dec.PeekKind() != want {
		return protoreflect.Value{}, wrongType(dec, kindNames[k])
	}
	raw, err := dec.ReadValue()
	if err != nil {
		return protoreflect.Value{}, Broken(err)
	}
	switch k {
	case kindString:
		return protoreflect.ValueOfString(string(unquoted(raw))), nil
	case kindTime:
		return timestamp(string(unquoted(raw)))
	case kindBool:
		return protoreflect.ValueOfBool(want == 't'), nil
	case kindInt32:
		n, ferr := signed(raw, 32)
		return protoreflect.ValueOfInt32(int32(n)), ferr
	case kindInt64:
		n, ferr := signed(raw, 64)
		return protoreflect.ValueOfInt64(n), ferr
	case kindUint32:
		n, ferr := unsigned(raw, 32)
		return protoreflect.ValueOfUint32(uint32(n)), ferr
	case kindUint64:
		n, ferr := unsigned(raw, 64)
		return protoreflect.ValueOfUint64(n), ferr
	case kindFloat:
		n, err := strconv.ParseFloat(string(raw), 32)
		if err != nil {
			return protoreflect.Value{}, outOfRange("a number that fits 32 bits")
		}
		return protoreflect.ValueOfFloat32(float32(n)), nil
	default:
		n, err := strconv.ParseFloat(string(raw), 64)
		if err != nil {
			return protoreflect.Value{}, outOfRange("a number that fits 64 bits")
		}
		return protoreflect.ValueOfFloat64(n), nil
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

func timestamp(s string) (protoreflect.Value, *FieldError) {
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return protoreflect.Value{}, &FieldError{Reason: OutOfRange, Message: "want " + kindNames[kindTime] + " (RFC 3339, with a zone)"}
	}
	ts := timestamppb.New(t)
	if err := ts.CheckValid(); err != nil {
		return protoreflect.Value{}, outOfRange("a time from the year 1 to the year 9999")
	}
	return protoreflect.ValueOfMessage(ts.ProtoReflect()), nil
}
