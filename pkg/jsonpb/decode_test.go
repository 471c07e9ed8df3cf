package jsonpb

import (
	"strings"
	"testing"

	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
	"google.golang.org/protobuf/types/known/durationpb"
)

// every is a message with a field of every kind that can be read, and a list of
// each, named by the kind.
func every(t testing.TB) protoreflect.MessageDescriptor {
	t.Helper()
	m := &descriptorpb.DescriptorProto{Name: proto.String("Every")}
	number := int32(1)
	for name, kind := range map[string]descriptorpb.FieldDescriptorProto_Type{
		"int32": descriptorpb.FieldDescriptorProto_TYPE_INT32, "int64": descriptorpb.FieldDescriptorProto_TYPE_INT64,
		"uint32": descriptorpb.FieldDescriptorProto_TYPE_UINT32, "uint64": descriptorpb.FieldDescriptorProto_TYPE_UINT64,
		"float": descriptorpb.FieldDescriptorProto_TYPE_FLOAT, "double": descriptorpb.FieldDescriptorProto_TYPE_DOUBLE,
		"bool": descriptorpb.FieldDescriptorProto_TYPE_BOOL, "string": descriptorpb.FieldDescriptorProto_TYPE_STRING,
	} {
		for suffix, label := range map[string]descriptorpb.FieldDescriptorProto_Label{
			"": descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL, "_list": descriptorpb.FieldDescriptorProto_LABEL_REPEATED,
		} {
			m.Field = append(m.Field, &descriptorpb.FieldDescriptorProto{
				Name: proto.String(name + suffix), JsonName: proto.String(name + suffix), Number: proto.Int32(number), Type: &kind, Label: &label})
			number++
		}
		entry := strings.ToUpper(name[:1]) + name[1:] + "MapEntry"
		m.NestedType = append(m.NestedType, &descriptorpb.DescriptorProto{Name: &entry, Options: &descriptorpb.MessageOptions{MapEntry: proto.Bool(true)}, Field: []*descriptorpb.FieldDescriptorProto{
			{Name: proto.String("key"), JsonName: proto.String("key"), Number: proto.Int32(1), Type: descriptorpb.FieldDescriptorProto_TYPE_STRING.Enum(), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()},
			{Name: proto.String("value"), JsonName: proto.String("value"), Number: proto.Int32(2), Type: &kind, Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()},
		}})
		m.Field = append(m.Field, &descriptorpb.FieldDescriptorProto{Name: proto.String(name + "_map"), JsonName: proto.String(name + "_map"), Number: proto.Int32(number),
			Type: descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), TypeName: proto.String(".test.Every." + entry), Label: descriptorpb.FieldDescriptorProto_LABEL_REPEATED.Enum()})
		number++
	}
	m.Field = append(m.Field, &descriptorpb.FieldDescriptorProto{Name: proto.String("self"), JsonName: proto.String("self"), Number: proto.Int32(number),
		Type: descriptorpb.FieldDescriptorProto_TYPE_MESSAGE.Enum(), TypeName: proto.String(".test.Every"), Label: descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL.Enum()})
	file, err := protodesc.NewFile(&descriptorpb.FileDescriptorProto{Name: proto.String("every.proto"), Package: proto.String("test"),
		Syntax: proto.String("proto3"), MessageType: []*descriptorpb.DescriptorProto{m}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return file.Messages().Get(0)
}

func TestValuesAreReadAsProtoJSONReadsThem(t *testing.T) {
	desc := every(t)
	d, err := New(desc, 10)
	if err != nil {
		t.Fatal(err)
	}
	for _, in := range []string{
		`{}`,
		`{"self":{}}`,
		`{"self":{"self":{"string":"deep"},"bool":true},"string":"after"}`,
		`{"self":{"string":"` + strings.Repeat("long ", 5000) + `"}}`,
		`{"int32":-2147483648,"int64":-9007199254740993,"uint32":4294967295,"uint64":18446744073709551615}`,
		`{"int32":2147483647,"int64":9223372036854775807,"uint32":0,"uint64":0}`,
		`{"int32":-1.0,"int64":-2e3,"uint32":1e2,"uint64":5.0}`,
		`{"float":0.1,"double":-0.1,"bool":false,"string":"\u00e9\n\"\\"}`,
		`{"int32_list":[-1,0,1],"int64_list":[-1],"uint32_list":[1,2],"uint64_list":[],"float_list":[1.5,-0],"double_list":[1e-300],"bool_list":[true,false],"string_list":["","a"]}`,
		`{"string":null,"string_list":null,"self":null}`,
		`{"string_map":{"a":"b","":""},"double_map":{"a":0.5,"b":-2},"uint32_map":{"a":7},"int64_map":{"a":-1},"float_map":{"a":1.5},"bool_map":{"a":true,"b":false}}`,
	} {
		got, want := dynamicpb.NewMessage(desc), dynamicpb.NewMessage(desc)
		if err := protojson.Unmarshal([]byte(in), want); err != nil {
			t.Fatal(err)
		}
		if err := d.Unmarshal([]byte(in), got); err != nil {
			t.Errorf("%.100s: %v", in, err)
			continue
		}
		if !proto.Equal(got, want) {
			t.Errorf("%.100s: got %v, want %v", in, got, want)
		}
	}
}

func TestNumbersOutOfRangeAreRefused(t *testing.T) {
	desc := every(t)
	d, err := New(desc, 10)
	if err != nil {
		t.Fatal(err)
	}
	for _, in := range []string{
		`{"int32":2147483648}`, `{"int32":-2147483649}`, `{"int32":1.5}`, `{"int32":1e10}`,
		`{"int64":9223372036854775808}`, `{"int64":1e19}`, `{"uint32":-1}`, `{"uint32":4294967296}`, `{"uint32":4294967296.0}`,
		`{"uint64":-0.5}`, `{"uint64":18446744073709551616}`, `{"float":1e39}`, `{"double":1e309}`, `{"double":-1e309}`,
	} {
		m := dynamicpb.NewMessage(desc)
		err := d.Unmarshal([]byte(in), m)
		ferr, ok := err.(*FieldError)
		if !ok || ferr.Reason != OutOfRange || !strings.HasPrefix(in, `{"`+ferr.Field+`"`) {
			t.Errorf("%s: got %v", in, err)
		}
		if proto.Size(m) != 0 {
			t.Errorf("%s: the message was filled: %v", in, m)
		}
	}
}

func TestNewRefusesWhatItCannotRead(t *testing.T) {
	for want, m := range map[string]proto.Message{
		"bytes": &httpbody.HttpBody{},
		"enum":  &descriptorpb.FieldDescriptorProto{},
	} {
		if _, err := New(m.ProtoReflect().Descriptor(), 10); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error about %s", err, want)
		}
	}
	if _, err := New((&durationpb.Duration{}).ProtoReflect().Descriptor(), 10); err != nil {
		t.Errorf("a message of numbers: %v", err)
	}
}

func TestDistanceCountsTypos(t *testing.T) {
	for _, test := range []struct {
		a, b string
		want int
	}{
		{"", "", 0}, {"a", "", 1}, {"stars", "stras", 1}, {"sesion_id", "session_id", 1}, {"thumb", "thump", 1}, {"abc", "xyz", 3},
	} {
		if got := distance(test.a, test.b); got != test.want {
			t.Errorf("distance(%q, %q) = %d, want %d", test.a, test.b, got, test.want)
		}
	}
}
