package otlp

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The files are what instrumentations send; testdata/README.md says which.
func TestRealInstrumentationsAreUnderstood(t *testing.T) {
	const call = `"model":"gpt-4o","modelVersion":"gpt-4o-2024-08-06","inputTokens":12,"outputTokens":5,"finishReason":"stop","parameters":{"temperature":"0.2"}`
	const words = `"query":"Where is my order?","systemContext":"Be brief.","output":"It left the depot."`
	tests := []struct{ file, id, session, want string }{
		{"opentelemetry-openai-v2.traces.json", "span", "trace", `{` + call + `}`},
		{"opentelemetry-openai-v2.logs.json", "span", "trace", `{` + words + `,"finishReason":"stop"}`},
		{"opentelemetry-genai-openai.traces.json", "chatcmpl-123", "trace", `{` + call + `}`},
		{"opentelemetry-genai-openai.logs.json", "chatcmpl-123", "trace", `{` + words + `,` + call + `}`},
		{"traceloop-openai.traces.json", "chatcmpl-123", "trace", `{` + words + `,` + call + `}`},
		{"openinference-openai.traces.json", "span", "trace", `{` + words + `,"model":"gpt-4o-2024-08-06","inputTokens":12,"outputTokens":5,"finishReason":"stop","parameters":{"temperature":"0.2"}}`},
		{"openinference-langchain.traces.json", "span", "conv-1", `{"query":"Where is my order?","output":"It left the depot.",
			"systemContext":"Be brief. [Document(id='d1', metadata={'source': 'faq.md'}, page_content='Orders leave at noon.')] at the depot",
			"retrieved":[{"source":"faq.md","text":"Orders leave at noon."}],"tools":[{"name":"lookup","arguments":"7","result":"at the depot"}]}`},
	}
	seen := map[string]string{}
	for _, tt := range tests {
		t.Run(tt.file, func(t *testing.T) {
			body, err := os.ReadFile(filepath.Join("testdata", tt.file))
			if err != nil {
				t.Fatal(err)
			}
			maker, sig, _ := strings.Cut(tt.file, ".")
			mapped := mapTraces
			if sig == "logs.json" {
				mapped = mapLogs
			}
			e := mapped(t, string(body)).only(t)
			x := e.GetInteraction()
			if sig == "traces.json" && strings.Contains(tt.want, "gpt-4o") && x.LatencyMs == 0 {
				t.Error("no latency")
			}
			x.LatencyMs = 0
			for _, tool := range x.Tools {
				tool.LatencyMs = 0
			}
			want(t, x, tt.want)
			id, session := strings.NewReplacer("span", e.Tags["span_id"]).Replace(tt.id), strings.NewReplacer("trace", e.Tags["trace_id"]).Replace(tt.session)
			if e.InteractionId != id || e.SessionId != session || e.Tags["service.name"] != "shop" {
				t.Errorf("got %v", e)
			}
			if other, ok := seen[maker]; ok && other != e.InteractionId {
				t.Errorf("the span is %s and its log events are %s", other, e.InteractionId)
			}
			seen[maker] = e.InteractionId
		})
	}
}
