package otlp

import (
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	collectorlogs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
)

// An empty span takes 2 bytes in a body and 250 in memory, so the messages in a
// body are counted before it is read: spans, attributes, values.
const (
	maxElements    = 500_000
	maxAllElements = 2 * maxElements // of all requests being read
	maxNesting     = 64
)

var (
	errTooManyElements = fmt.Errorf("the body has more than %d spans, attributes and values: send less in one request", maxElements)
	errBroken          = errors.New("the body is no OTLP message in protobuf")
	errNesting         = fmt.Errorf("the body is nested deeper than %d levels", maxNesting)
)

// countProto counts the messages in b, which should be an md.
func countProto(b []byte, md protoreflect.MessageDescriptor) (int, error) {
	n := 0
	err := countFields(b, md, &n, 0)
	return n, err
}

func countFields(b []byte, md protoreflect.MessageDescriptor, n *int, depth int) error {
	if depth > maxNesting {
		return errNesting
	}
	for len(b) > 0 {
		num, typ, size := protowire.ConsumeTag(b)
		if size < 0 {
			return errBroken
		}
		b = b[size:]
		size = protowire.ConsumeFieldValue(num, typ, b)
		if size < 0 {
			return errBroken
		}
		if fd := md.Fields().ByNumber(num); fd != nil && typ == protowire.BytesType && (fd.Message() != nil || fd.IsList()) {
			if *n++; *n > maxElements {
				return errTooManyElements
			}
			if fd.Message() != nil {
				v, _ := protowire.ConsumeBytes(b)
				if err := countFields(v, fd.Message(), n, depth+1); err != nil {
					return err
				}
			}
		}
		b = b[size:]
	}
	return nil
}

// countJSON counts what may become a message or an element of a list. An
// attribute has two messages, and two braces and two commas.
func countJSON(b []byte) (int, error) {
	n := 0
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			for i++; i < len(b) && b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
		case '{', ',':
			if n++; n > 2*maxElements {
				return n, errTooManyElements
			}
		}
	}
	return n / 2, nil
}

// decodeProto reads a body in protobuf. The elements in it have been counted.
func decodeProto(b []byte, m proto.Message) error {
	err := proto.UnmarshalOptions{DiscardUnknown: true, RecursionLimit: maxNesting}.Unmarshal(b, m)
	if err != nil {
		return errBroken // the cause may quote what was sent
	}
	return nil
}

// decodeJSON reads a body in OTLP's JSON. That is protobuf's JSON, but for ids,
// which are in hexadecimal.
func decodeJSON(b []byte, m proto.Message) error {
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true, RecursionLimit: maxNesting}).Unmarshal(b, m); err != nil {
		return errors.New("the body is no OTLP message in JSON")
	}
	switch m := m.(type) {
	case *collectortrace.ExportTraceServiceRequest:
		return fixTraceIDs(m)
	case *collectorlogs.ExportLogsServiceRequest:
		return fixLogIDs(m)
	}
	return nil
}

func fixTraceIDs(m *collectortrace.ExportTraceServiceRequest) error {
	for i, rs := range m.GetResourceSpans() {
		for j, ss := range rs.GetScopeSpans() {
			for k, s := range ss.GetSpans() {
				err := errors.Join(fixID("traceId", &s.TraceId, 16), fixID("spanId", &s.SpanId, 8), fixID("parentSpanId", &s.ParentSpanId, 8))
				for _, l := range s.GetLinks() {
					err = errors.Join(err, fixID("links.traceId", &l.TraceId, 16), fixID("links.spanId", &l.SpanId, 8))
				}
				if err != nil {
					return fmt.Errorf("resourceSpans[%d].scopeSpans[%d].spans[%d]: %w", i, j, k, err)
				}
			}
		}
	}
	return nil
}

func fixLogIDs(m *collectorlogs.ExportLogsServiceRequest) error {
	for i, rl := range m.GetResourceLogs() {
		for j, sl := range rl.GetScopeLogs() {
			for k, l := range sl.GetLogRecords() {
				if err := errors.Join(fixID("traceId", &l.TraceId, 16), fixID("spanId", &l.SpanId, 8)); err != nil {
					return fmt.Errorf("resourceLogs[%d].scopeLogs[%d].logRecords[%d]: %w", i, j, k, err)
				}
			}
		}
	}
	return nil
}

// fixID undoes what protojson did: it took an id for base64, of which
// hexadecimal digits are a part, so encoding it again gives the digits as they
// came. size is in bytes.
func fixID(field string, id *[]byte, size int) error {
	if len(*id) == 0 {
		return nil
	}
	digits := base64.RawStdEncoding.EncodeToString(*id)
	raw, err := hex.DecodeString(digits)
	if err != nil || len(raw) != size {
		return fmt.Errorf("%s: want %d hexadecimal digits", field, 2*size)
	}
	*id = raw
	return nil
}
