package openapi

import (
	"encoding/json"
	"strings"
	"testing"

	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	"google.golang.org/protobuf/reflect/protoreflect"
)

func document(t *testing.T) map[string]any {
	t.Helper()
	data, err := Document()
	if err != nil {
		t.Fatal(err)
	}
	var doc map[string]any
	if err := json.Unmarshal(data, &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

func at(doc any, path ...string) any {
	for _, p := range path {
		m, _ := doc.(map[string]any)
		doc = m[p]
	}
	return doc
}

func TestEveryReferenceHasItsTarget(t *testing.T) {
	doc := document(t)
	n := 0
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if ref, ok := v["$ref"].(string); ok {
				n++
				if at(doc, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...) == nil {
					t.Errorf("%s leads nowhere", ref)
				}
			}
			for _, x := range v {
				walk(x)
			}
		case []any:
			for _, x := range v {
				walk(x)
			}
		}
	}
	walk(doc)
	if n < 50 {
		t.Errorf("only %d references", n)
	}
}

func TestOperationsAreComplete(t *testing.T) {
	doc := document(t)
	operations := 0
	eachOperation(doc, func(path string, op map[string]any) {
		operations++
		if strings.Contains(path, "*") {
			t.Errorf("%s is no path", path)
		}
		for i, part := range strings.Split(path, "{") {
			if i == 0 {
				continue
			}
			name, _, _ := strings.Cut(part, "}")
			parameters, _ := json.Marshal(op["parameters"])
			if !strings.Contains(string(parameters), `"`+name+`"`) {
				t.Errorf("%s does not declare %s", path, name)
			}
		}
		_, hasDefault := at(op, "responses").(map[string]any)["default"]
		if security, ok := op["security"].([]any); !(ok && len(security) == 0) && !hasDefault {
			t.Errorf("%s says nothing about errors", path)
		}
	})
	if operations < 14 {
		t.Errorf("only %d operations", operations)
	}
	if at(doc, "paths", "/v1/events", "post", "responses", "200") != nil || at(doc, "paths", "/v1/events", "post", "responses", "202") == nil {
		t.Error("events are answered with 202")
	}
}

// An emitter's event has the same fields in the schemas and in the document.
func TestEventInputsHaveTheFieldsOfTheSchemas(t *testing.T) {
	doc := document(t)
	same := func(schema string, md protoreflect.MessageDescriptor, without ...string) {
		t.Helper()
		properties, _ := at(doc, "components", "schemas", schema, "properties").(map[string]any)
		want := map[string]bool{}
		for i := range md.Fields().Len() {
			want[string(md.Fields().Get(i).Name())] = true
		}
		for _, w := range without {
			delete(want, w)
		}
		for name := range want {
			if properties[name] == nil {
				t.Errorf("%s lacks %s", schema, name)
			}
		}
		for name := range properties {
			if !want[name] {
				t.Errorf("%s has %s, which the schemas have not", schema, name)
			}
		}
	}
	event := (&eventv1.Event{}).ProtoReflect().Descriptor()
	same("InteractionEvent", event, "project_id", "received_at", "feedback", "behavior", "timer")
	same("FeedbackEvent", event, "project_id", "received_at", "interaction", "behavior", "timer")
	same("BehaviorEvent", event, "project_id", "received_at", "interaction", "feedback", "timer")
	same("InteractionInput", (&eventv1.Interaction{}).ProtoReflect().Descriptor(), "output_redactions")
	same("FeedbackInput", (&eventv1.Feedback{}).ProtoReflect().Descriptor())
	same("BehaviorInput", (&eventv1.Behavior{}).ProtoReflect().Descriptor())
	same("Edit", (&eventv1.Edit{}).ProtoReflect().Descriptor())
}
