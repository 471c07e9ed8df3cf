package otlp

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"

	commonv1 "go.opentelemetry.io/proto/otlp/common/v1"
)

// attributes are those of a span, an event, a log record or a resource. Of a name
// that is there twice the last counts.
type attributes map[string]*commonv1.AnyValue

func newAttributes(list []*commonv1.KeyValue) attributes {
	a := make(attributes, len(list))
	for _, kv := range list {
		if kv.GetValue().GetValue() != nil {
			a[kv.GetKey()] = kv.GetValue()
		}
	}
	return a
}

// get is the first of names that is there and not empty.
func (a attributes) get(names []string) *commonv1.AnyValue {
	for _, name := range names {
		if v := a[name]; v != nil {
			if s, ok := v.GetValue().(*commonv1.AnyValue_StringValue); !ok || s.StringValue != "" {
				return v
			}
		}
	}
	return nil
}

func (a attributes) has(names []string) bool { return a.get(names) != nil }

// text is the first of names, as a text; lists and maps are JSON.
func (a attributes) text(names []string) string { return text(toAny(a.get(names))) }

// first is like text, but of a list it is the first element.
func (a attributes) first(names []string) string {
	v := toAny(a.get(names))
	if s, ok := v.(string); ok {
		v = fromJSON(s, v)
	}
	if list, ok := v.([]any); ok {
		if len(list) == 0 {
			return ""
		}
		v = list[0]
	}
	return text(v)
}

// texts is the first of names as a list of texts.
func (a attributes) texts(names []string) []string {
	v := toAny(a.get(names))
	list, ok := v.([]any)
	if !ok {
		if s := text(v); s != "" {
			return []string{s}
		}
		return nil
	}
	var out []string
	for _, e := range list {
		out = append(out, text(e))
	}
	return out
}

// number is the first of names, where it is a number.
func (a attributes) number(names []string) (float64, bool) { return number(toAny(a.get(names))) }

// count is the first of names, where it is a whole number that fits.
func (a attributes) count(names []string) uint32 {
	x, ok := a.number(names)
	if !ok || x < 0 || x > math.MaxUint32 {
		return 0
	}
	return uint32(x)
}

// list is a flattened list: of "name.0.a" and "name.1.a" it makes two maps with
// "a". Gaps are passed over.
func (a attributes) list(name string) []attributes {
	elements := map[int]attributes{}
	for key, v := range a {
		rest, ok := strings.CutPrefix(key, name)
		if !ok || len(rest) < 2 || rest[0] != '.' {
			continue
		}
		index, rest, ok := strings.Cut(rest[1:], ".")
		n, err := strconv.ParseUint(index, 10, 31)
		if !ok || err != nil {
			continue
		}
		if elements[int(n)] == nil {
			elements[int(n)] = attributes{}
		}
		elements[int(n)][rest] = v
	}
	out := make([]attributes, 0, len(elements))
	indices := make([]int, 0, len(elements))
	for n := range elements {
		indices = append(indices, n)
	}
	slices.Sort(indices)
	for _, n := range indices {
		out = append(out, elements[n])
	}
	return out
}

// toAny is v as encoding/json would have it, but for whole numbers, which are
// int64. A missing value is nil.
func toAny(v *commonv1.AnyValue) any {
	switch x := v.GetValue().(type) {
	case *commonv1.AnyValue_StringValue:
		return x.StringValue
	case *commonv1.AnyValue_BoolValue:
		return x.BoolValue
	case *commonv1.AnyValue_IntValue:
		return x.IntValue
	case *commonv1.AnyValue_DoubleValue:
		return x.DoubleValue
	case *commonv1.AnyValue_BytesValue:
		return base64.StdEncoding.EncodeToString(x.BytesValue)
	case *commonv1.AnyValue_ArrayValue:
		out := make([]any, 0, len(x.ArrayValue.GetValues()))
		for _, e := range x.ArrayValue.GetValues() {
			out = append(out, toAny(e))
		}
		return out
	case *commonv1.AnyValue_KvlistValue:
		out := make(map[string]any, len(x.KvlistValue.GetValues()))
		for _, kv := range x.KvlistValue.GetValues() {
			out[kv.GetKey()] = toAny(kv.GetValue())
		}
		return out
	}
	return nil
}

// text is v as a text: a string as it is, nothing for nil, and JSON else.
func text(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	case float64:
		return strconv.FormatFloat(v, 'g', -1, 64)
	}
	b, err := json.Marshal(v)
	if err != nil {
		return "" // a number that JSON has no form for
	}
	return string(b)
}

func number(v any) (float64, bool) {
	switch v := v.(type) {
	case float64:
		return v, !math.IsNaN(v) && !math.IsInf(v, 0)
	case int64:
		return float64(v), true
	case string:
		x, err := strconv.ParseFloat(v, 64)
		return x, err == nil && !math.IsNaN(x) && !math.IsInf(x, 0)
	}
	return 0, false
}

// maxJSON bounds what is read of one JSON text, in messages, parts and fields.
// An empty object takes 3 bytes in a text and 60 in memory.
const maxJSON = 50_000

// fromJSON is the list or object that s is in JSON; fallback where it is none, or
// one without end.
func fromJSON(s string, fallback any) any {
	s = strings.TrimSpace(s)
	if s == "" || s[0] != '[' && s[0] != '{' || nesting(s) > maxNesting {
		return fallback
	}
	if n, err := countJSON([]byte(s)); err != nil || n > maxJSON {
		return fallback
	}
	var v any
	if err := json.Unmarshal([]byte(s), &v); err != nil {
		return fallback // a text that begins like JSON
	}
	return v
}

// nesting is how deep the brackets of a JSON text go, at least.
func nesting(s string) int {
	depth, deepest := 0, 0
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case '[', '{':
			depth++
			deepest = max(deepest, depth)
		case ']', '}':
			depth--
		}
	}
	return deepest
}

// member is the first of keys that m has and that is not empty.
func member(m map[string]any, keys ...string) any {
	for _, key := range keys {
		if v := m[key]; v != nil && v != "" {
			return v
		}
	}
	return nil
}

// firstText is the first text that is not empty.
func firstText(texts ...string) string { return cmp.Or(texts...) }
