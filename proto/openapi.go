// Package proto holds the generated OpenAPI document of the schemas.
package proto

import _ "embed"

// OpenAPI is the document as YAML. The collector completes it and serves it.
//
//go:embed gen/openapi/openapi.yaml
var OpenAPI []byte
