// Package openapi completes the generated OpenAPI document with what the
// schemas cannot say: keys, errors, and what the collector checks in an event.
package openapi

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"strings"

	"go.yaml.in/yaml/v3"

	honeproto "github.com/honeloop/hone/proto"
)

// overlay is merged over the generated document (RFC 7386).
//
//go:embed overlay.yaml
var overlay []byte

// Document is the document as JSON.
func Document() ([]byte, error) {
	var doc, over map[string]any
	if err := yaml.Unmarshal(honeproto.OpenAPI, &doc); err != nil {
		return nil, fmt.Errorf("read generated OpenAPI document: %w", err)
	}
	if err := yaml.Unmarshal(overlay, &over); err != nil {
		return nil, fmt.Errorf("read OpenAPI overlay: %w", err)
	}
	doc, _ = merge(doc, over).(map[string]any)
	eachOperation(doc, func(path string, operation map[string]any) {
		responses, _ := operation["responses"].(map[string]any)
		if responses == nil || strings.HasPrefix(path, "/healthz") || strings.HasPrefix(path, "/openapi") {
			return
		}
		if _, ok := responses["default"]; !ok {
			responses["default"] = map[string]any{"$ref": "#/components/responses/Error"}
		}
	})
	data, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("encode OpenAPI document: %w", err)
	}
	return data, nil
}

func eachOperation(doc map[string]any, fn func(path string, operation map[string]any)) {
	paths, _ := doc["paths"].(map[string]any)
	for path, item := range paths {
		operations, _ := item.(map[string]any)
		for _, operation := range operations {
			if op, ok := operation.(map[string]any); ok {
				fn(path, op)
			}
		}
	}
}

// merge applies a JSON merge patch.
func merge(target, patch any) any {
	p, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	t, ok := target.(map[string]any)
	if !ok {
		t = map[string]any{}
	}
	for k, v := range p {
		if v == nil {
			delete(t, k)
			continue
		}
		t[k] = merge(t[k], v)
	}
	return t
}
