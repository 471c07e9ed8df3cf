package otlp

import (
	"encoding/hex"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	collectorlogs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"

	"github.com/honeloop/hone/pkg/events"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
)

const (
	traceID = "5b8aa5a2d2c872e8321cf37308d69df2"
	rootID  = "1111111111111111"
	callID1 = "2222222222222222"
	stepID  = "3333333333333333"
)

// Attributes in tests are pairs of a name and a value in OTLP's JSON.
func attrsJSON(pairs ...string) string {
	var out []string
	for i := 0; i < len(pairs); i += 2 {
		out = append(out, `{"key":`+quote(pairs[i])+`,"value":`+pairs[i+1]+`}`)
	}
	return "[" + strings.Join(out, ",") + "]"
}

func quote(s string) string {
	return text([]any{s})[1 : len(text([]any{s}))-1]
}
func str(s string) string     { return `{"stringValue":` + quote(s) + `}` }
func integer(s string) string { return `{"intValue":"` + s + `"}` }
func double(s string) string  { return `{"doubleValue":` + s + `}` }
func strs(list ...string) string {
	var out []string
	for _, s := range list {
		out = append(out, str(s))
	}
	return `{"arrayValue":{"values":[` + strings.Join(out, ",") + `]}}`
}

// spanJSON is a span of 1.5 s; more is added to its JSON.
func spanJSON(id, parent, name, attrs, more string) string {
	return `{"traceId":"` + traceID + `","spanId":"` + id + `","parentSpanId":"` + parent + `","name":"` + name +
		`","kind":3,"startTimeUnixNano":"1760000000000000000","endTimeUnixNano":"1760000001500000000","attributes":` + attrs + more + `}`
}

func tracesJSON(spans ...string) string {
	return `{"resourceSpans":[{"resource":{"attributes":` + attrsJSON("service.name", str("shop"), "deployment.environment.name", str("staging")) +
		`},"scopeSpans":[{"scope":{"name":"t"},"spans":[` + strings.Join(spans, ",") + `]}]}]}`
}

func logJSON(event, body, attrs string) string {
	return `{"timeUnixNano":"1760000001000000000","eventName":"` + event + `","traceId":"` + traceID + `","spanId":"` + callID1 + `","body":` + body + `,"attributes":` + attrs + `}`
}

func logsJSON(records ...string) string {
	return `{"resourceLogs":[{"resource":{"attributes":` + attrsJSON("service.name", str("shop"), "deployment.environment", str("staging")) +
		`},"scopeLogs":[{"logRecords":[` + strings.Join(records, ",") + `]}]}]}`
}

func mapTraces(t testing.TB, body string) *mapper {
	t.Helper()
	req := new(collectortrace.ExportTraceServiceRequest)
	if err := decodeJSON([]byte(body), req); err != nil {
		t.Fatal(err)
	}
	m := newMapper("p", events.DefaultLimits())
	m.traces(req)
	return m
}

func mapLogs(t testing.TB, body string) *mapper {
	t.Helper()
	req := new(collectorlogs.ExportLogsServiceRequest)
	if err := decodeJSON([]byte(body), req); err != nil {
		t.Fatal(err)
	}
	m := newMapper("p", events.DefaultLimits())
	m.logs(req)
	return m
}

func (m *mapper) only(t testing.TB) *eventv1.Event {
	t.Helper()
	if len(m.events) != 1 || len(m.rejected) != 0 {
		t.Fatalf("got %d events, rejected %v, want 1 event: %v", len(m.events), m.rejected, m.events)
	}
	return m.events[0]
}

func want(t testing.TB, got proto.Message, json string) {
	t.Helper()
	expected := got.ProtoReflect().New().Interface()
	if err := protojson.Unmarshal([]byte(json), expected); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(got, expected) {
		t.Errorf("got  %s\nwant %s", protojson.Format(got), protojson.Format(expected))
	}
}

const plainTurn = `"query":"Where is my order?","systemContext":"Be brief.","output":"It left the depot.","latencyMs":1500`

func TestModelCallsOfEveryConventionBecomeInteractions(t *testing.T) {
	tests := []struct {
		name, attrs, events string
		want                string // of the interaction
	}{
		{
			"OpenTelemetry, JSON in attributes",
			attrsJSON("gen_ai.operation.name", str("chat"), "gen_ai.provider.name", str("openai"),
				"gen_ai.request.model", str("gpt-4o"), "gen_ai.response.model", str("gpt-4o-2024-08-06"),
				"gen_ai.usage.input_tokens", integer("12"), "gen_ai.usage.output_tokens", integer("5"),
				"gen_ai.request.temperature", double("0.2"), "gen_ai.response.finish_reasons", strs("stop"),
				"gen_ai.system_instructions", str(`[{"type":"text","content":"Be brief."}]`),
				"gen_ai.input.messages", str(`[{"role":"user","parts":[{"type":"text","content":"Hi"}]},{"role":"assistant","parts":[{"type":"text","content":"Hello"}]},{"role":"user","parts":[{"type":"text","content":"Where is my order?"}]}]`),
				"gen_ai.output.messages", str(`[{"role":"assistant","parts":[{"type":"reasoning","content":"hm"},{"type":"text","content":"It left the depot."}],"finish_reason":"stop"}]`)),
			"",
			`{` + plainTurn + `,"model":"gpt-4o","modelVersion":"gpt-4o-2024-08-06","inputTokens":12,"outputTokens":5,"finishReason":"stop","parameters":{"temperature":"0.2"}}`,
		},
		{
			"OpenTelemetry, structures in attributes",
			attrsJSON("gen_ai.operation.name", str("chat"),
				"gen_ai.system_instructions", `{"arrayValue":{"values":[{"kvlistValue":{"values":`+attrsJSON("type", str("text"), "content", str("Be brief."))+`}}]}}`,
				"gen_ai.input.messages", `{"arrayValue":{"values":[{"kvlistValue":{"values":`+attrsJSON("role", str("user"), "parts", `{"arrayValue":{"values":[{"kvlistValue":{"values":`+attrsJSON("type", str("text"), "content", str("Where is my order?"))+`}}]}}`)+`}}]}}`,
				"gen_ai.output.messages", str(`[{"role":"assistant","parts":[{"type":"text","content":"It left the depot."}],"finish_reason":"length"}]`)),
			"",
			`{` + plainTurn + `,"finishReason":"length"}`,
		},
		{
			"OpenTelemetry of old, prompt and completion in span events",
			attrsJSON("gen_ai.system", str("openai"), "gen_ai.request.model", str("gpt-4"), "gen_ai.usage.prompt_tokens", integer("12"), "gen_ai.usage.completion_tokens", integer("5")),
			`,"events":[{"name":"gen_ai.content.prompt","attributes":` + attrsJSON("gen_ai.prompt", str(`[{"role":"system","content":"Be brief."},{"role":"user","content":"Where is my order?"}]`)) + `},
			{"name":"gen_ai.content.completion","attributes":` + attrsJSON("gen_ai.completion", str(`[{"role":"assistant","content":"It left the depot."}]`)) + `}]`,
			`{` + plainTurn + `,"model":"gpt-4","inputTokens":12,"outputTokens":5}`,
		},
		{
			"OpenTelemetry of old, a span event for each message",
			attrsJSON("gen_ai.system", str("openai"), "gen_ai.request.model", str("gpt-4")),
			`,"events":[{"name":"gen_ai.system.message","attributes":` + attrsJSON("content", str("Be brief.")) + `},
			{"name":"gen_ai.user.message","attributes":` + attrsJSON("gen_ai.event.content", str(`{"role":"user","content":"Where is my order?"}`)) + `},
			{"name":"gen_ai.choice","attributes":` + attrsJSON("gen_ai.event.content", str(`{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"It left the depot."}}`)) + `}]`,
			`{` + plainTurn + `,"model":"gpt-4","finishReason":"stop"}`,
		},
		{
			"OpenInference",
			attrsJSON("openinference.span.kind", str("LLM"), "llm.model_name", str("claude"), "llm.token_count.prompt", integer("12"), "llm.token_count.completion", integer("5"),
				"llm.invocation_parameters", str(`{"temperature":0.5,"tools":[{"a":1}]}`), "llm.prompt_template.version", str("v3"),
				"llm.input_messages.0.message.role", str("system"), "llm.input_messages.0.message.content", str("Be brief."),
				"llm.input_messages.1.message.role", str("user"),
				"llm.input_messages.1.message.contents.0.message_content.type", str("text"), "llm.input_messages.1.message.contents.0.message_content.text", str("Where is my order?"),
				"llm.input_messages.1.message.contents.1.message_content.type", str("image"),
				"llm.output_messages.0.message.role", str("assistant"), "llm.output_messages.0.message.content", str("It left the depot."),
				"input.value", str("ignored, since there are messages")),
			"",
			`{` + plainTurn + `,"model":"claude","inputTokens":12,"outputTokens":5,"promptVersion":"v3","parameters":{"temperature":"0.5"}}`,
		},
		{
			"OpenInference with values alone",
			attrsJSON("openinference.span.kind", str("LLM"), "input.value", str(`{"model":"m","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":[{"type":"text","text":"Where is my order?"}]}]}`),
				"output.value", str(`{"id":"x","choices":[{"index":0,"finish_reason":"stop","message":{"role":"assistant","content":"It left the depot."}}]}`)),
			"",
			`{` + plainTurn + `,"finishReason":"stop"}`,
		},
		{
			"Traceloop",
			attrsJSON("llm.request.type", str("chat"), "gen_ai.system", str("OpenAI"), "gen_ai.request.model", str("gpt-4"), "traceloop.prompt.version", integer("7"),
				"gen_ai.prompt.0.role", str("system"), "gen_ai.prompt.0.content", str("Be brief."), "gen_ai.prompt.10.role", str("user"), "gen_ai.prompt.10.content", str("Where is my order?"),
				"gen_ai.prompt.9.role", str("user"), "gen_ai.prompt.9.content", str("Hi"),
				"gen_ai.completion.0.role", str("assistant"), "gen_ai.completion.0.content", str("It left the depot."), "gen_ai.completion.0.finish_reason", str("stop")),
			"",
			`{` + plainTurn + `,"model":"gpt-4","finishReason":"stop","promptVersion":"7"}`,
		},
		{
			"LangSmith",
			attrsJSON("langsmith.span.kind", str("LLM"), "gen_ai.prompt", str(`{"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Where is my order?"}]}`),
				"gen_ai.completion", str(`{"messages":[{"role":"assistant","content":"It left the depot."}]}`)),
			"",
			`{` + plainTurn + `}`,
		},
		{
			"Vercel's AI SDK",
			attrsJSON("operation.name", str("ai.generateText.doGenerate"), "gen_ai.system", str("openai.chat"), "gen_ai.request.model", str("gpt-4"), "gen_ai.response.finish_reasons", strs("stop"),
				"ai.prompt.messages", str(`[{"role":"system","content":"Be brief."},{"role":"user","content":[{"type":"text","text":"Where is my order?"}]},
				{"role":"assistant","content":[{"type":"tool-call","toolCallId":"c1","toolName":"lookup","input":{"id":7}}]},
				{"role":"tool","content":[{"type":"tool-result","toolCallId":"c1","toolName":"lookup","output":{"type":"text","value":"found"}}]}]`),
				"ai.response.text", str("It left the depot.")),
			"",
			`{` + plainTurn + `,"model":"gpt-4","finishReason":"stop","tools":[{"name":"lookup","arguments":"{\"id\":7}","result":"{\"type\":\"text\",\"value\":\"found\"}"}]}`,
		},
		{
			"Pydantic AI's agent",
			attrsJSON("gen_ai.operation.name", str("invoke_agent"), "gen_ai.system_instructions", str(`[{"type":"text","content":"Be brief."}]`),
				"pydantic_ai.all_messages", str(`[{"role":"user","parts":[{"type":"text","content":"Where is my order?"}]},{"role":"assistant","parts":[{"type":"text","content":"It left the depot."}]}]`),
				"final_result", str("It left the depot.")),
			"",
			`{` + plainTurn + `}`,
		},
		{
			"Anthropic's parts",
			attrsJSON("gen_ai.provider.name", str("anthropic"), "gen_ai.input.messages", str(`[{"role":"user","content":"Where is my order?"},
				{"role":"assistant","content":[{"type":"tool_use","id":"c1","name":"lookup","input":{"id":7}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"c1","content":[{"type":"text","text":"found"}]}]}]`),
				"gen_ai.system_instructions", str("Be brief."), "gen_ai.output.messages", str(`{"role":"assistant","content":[{"type":"text","text":"It left the depot."}],"stop_reason":"end_turn"}`)),
			"",
			`{` + plainTurn + `,"finishReason":"end_turn","tools":[{"name":"lookup","arguments":"{\"id\":7}","result":"found"}]}`,
		},
		{
			"an agent's run",
			attrsJSON("gen_ai.operation.name", str("invoke_agent"), "gen_ai.agent.name", str("clerk"), "gen_ai.system_instructions", str("Be brief."),
				"gen_ai.input.messages", str("Where is my order?"), "gen_ai.output.messages", str("It left the depot.")),
			"",
			`{` + plainTurn + `}`,
		},
		{
			"without content",
			attrsJSON("gen_ai.operation.name", str("chat"), "gen_ai.provider.name", str("openai"), "gen_ai.request.model", str("gpt-4o"), "gen_ai.usage.input_tokens", integer("-3")),
			"",
			`{"model":"gpt-4o","latencyMs":1500}`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := mapTraces(t, tracesJSON(spanJSON(callID1, "", "chat", tt.attrs, tt.events))).only(t)
			want(t, e.GetInteraction(), tt.want)
			if e.SessionId != traceID || e.InteractionId != callID1 || e.Environment != "staging" || e.Tags["service.name"] != "shop" || e.OccurredAt.AsTime().UnixMilli() != 1760000001500 {
				t.Errorf("got %v", e)
			}
			if tt.name == "an agent's run" && e.Tags["gen_ai.agent.name"] != "clerk" {
				t.Errorf("got tags %v", e.Tags)
			}
		})
	}
}

func TestIDsComeFromTheConventions(t *testing.T) {
	content := []string{"gen_ai.input.messages", str("q"), "gen_ai.response.id", str("resp-1")}
	tests := []struct {
		name                       string
		attrs                      []string
		session, interaction, user string
	}{
		{"response and conversation", append(content, "gen_ai.provider.name", str("x"), "gen_ai.conversation.id", str("conv"), "user.id", str("u")), "conv", "resp-1", "u"},
		{"session.id", append(content, "session.id", str("s"), "enduser.id", str("u")), "s", "resp-1", "u"},
		{"Traceloop's", append(content, "traceloop.association.properties.session_id", str("s"), "traceloop.association.properties.user_id", str("u")), "s", "resp-1", "u"},
		{"LangSmith's", append(content, "langsmith.metadata.thread_id", str("s")), "s", "resp-1", ""},
		{"new, no content", []string{"gen_ai.provider.name", str("x"), "gen_ai.request.model", str("m"), "gen_ai.response.id", str("resp-1")}, traceID, "resp-1", ""},
		{"old, no content: its log events know the span alone", []string{"gen_ai.system", str("x"), "gen_ai.request.model", str("m"), "gen_ai.response.id", str("resp-1")}, traceID, callID1, ""},
		{"old, with content", append(content, "gen_ai.system", str("x")), traceID, "resp-1", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			e := mapTraces(t, tracesJSON(spanJSON(callID1, "", "chat", attrsJSON(tt.attrs...), ""))).only(t)
			if e.SessionId != tt.session || e.InteractionId != tt.interaction || e.UserId != tt.user {
				t.Errorf("got session %q, interaction %q, user %q", e.SessionId, e.InteractionId, e.UserId)
			}
			if e.InteractionId != "resp-1" && e.Tags["gen_ai.response.id"] != "resp-1" {
				t.Errorf("the response's id is not in the tags: %v", e.Tags)
			}
		})
	}
}

func TestSessionAndUserComeFromTheSpansAbove(t *testing.T) {
	e := mapTraces(t, tracesJSON(
		spanJSON(callID1, stepID, "chat", attrsJSON("gen_ai.request.model", str("m")), ""),
		spanJSON(stepID, rootID, "POST /chat", attrsJSON("http.route", str("/chat")), ""),
		spanJSON(rootID, "", "root", attrsJSON("session.id", str("s"), "user.id", str("u"), "user.roles", strs("admin", "clerk")), ""),
	)).only(t)
	if e.SessionId != "s" || e.UserId != "u" || e.UserRole != "admin" {
		t.Errorf("got session %q, user %q, role %q", e.SessionId, e.UserId, e.UserRole)
	}
}

func at(span, start, end string) string {
	span = strings.Replace(span, "1760000000000000000", "17600000"+start+"00000000", 1)
	return strings.Replace(span, "1760000001500000000", "17600000"+end+"00000000", 1)
}

func TestToolsAndPassagesJoinTheirInteraction(t *testing.T) {
	call := func(id, parent string) string {
		return spanJSON(id, parent, "chat", attrsJSON("gen_ai.operation.name", str("chat"), "gen_ai.request.model", str("m"), "gen_ai.provider.name", str("x")), "")
	}
	toolSpan := func(parent string) string {
		return spanJSON(stepID, parent, "execute_tool lookup", attrsJSON("gen_ai.operation.name", str("execute_tool"), "gen_ai.tool.name", str("lookup"),
			"gen_ai.tool.call.id", str("c1"), "gen_ai.tool.call.arguments", str(`{"id":7}`), "gen_ai.tool.call.result", str("found")), `,"status":{"code":2,"message":"late"}`)
	}
	retriever := func(parent string) string {
		return spanJSON(stepID, parent, "search", attrsJSON("openinference.span.kind", str("RETRIEVER"),
			"retrieval.documents.0.document.id", str("d1"), "retrieval.documents.0.document.content", str("Orders leave at noon."), "retrieval.documents.0.document.score", double("0.9"),
			"retrieval.documents.1.document.id", integer("2"), "retrieval.documents.1.document.metadata", str(`{"source":"faq.md"}`)), "")
	}
	withTool := `{"model":"m","latencyMs":1500,"tools":[{"name":"lookup","arguments":"{\"id\":7}","result":"found","error":"late","latencyMs":1500}]}`
	withDocs := `{"model":"m","latencyMs":1500,"retrieved":[{"source":"d1","text":"Orders leave at noon.","score":0.9},{"source":"faq.md"}]}`
	tests := []struct {
		name  string
		spans []string
		want  string
		steps int
	}{
		{"a tool below the call", []string{toolSpan(callID1), call(callID1, "")}, withTool, 1},
		{"passages below the call", []string{call(callID1, ""), retriever(callID1)}, withDocs, 1},
		{"passages before the call, beside it", []string{at(retriever(rootID), "00", "01"), at(call(callID1, rootID), "02", "17")}, withDocs, 1},
		{"a tool after the call, beside it", []string{at(toolSpan(rootID), "20", "35"), at(call(callID1, rootID), "02", "17")}, withTool, 1},
		{"passages after the only call belong to a later one", []string{at(retriever(rootID), "20", "35"), at(call(callID1, rootID), "02", "17")}, `{"model":"m","latencyMs":1500}`, 0},
		{"OpenTelemetry's documents", []string{call(callID1, ""), spanJSON(stepID, callID1, "retrieval", attrsJSON("gen_ai.operation.name", str("retrieval"),
			"gen_ai.retrieval.documents", str(`[{"id":"d1","score":0.9,"content":"Orders leave at noon."},{"id":"faq.md"},{}]`)), "")}, withDocs, 1},
		{"a vector store's events", []string{call(callID1, ""), spanJSON(stepID, callID1, "pinecone.query", "[]", `,"events":[
			{"name":"db.query.result","attributes":`+attrsJSON("db.query.result.id", str("d1"), "db.query.result.document", str("Orders leave at noon."), "db.query.result.score", double("0.9"))+`},
			{"name":"db.query.result","attributes":`+attrsJSON("db.query.result.id", str("faq.md"))+`}]`)}, withDocs, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := mapTraces(t, tracesJSON(tt.spans...))
			e := m.only(t)
			want(t, e.GetInteraction(), strings.ReplaceAll(tt.want, `"latencyMs":1500`, `"latencyMs":`+text(int64(e.GetInteraction().LatencyMs))))
			steps, orphans := 0, 0
			for _, o := range m.outcomes {
				if o.what == asStep {
					steps++
				}
				if o.reason == orphanStep {
					orphans++
				}
			}
			if steps != tt.steps || steps+orphans != len(tt.spans)-1 {
				t.Errorf("got outcomes %v", m.outcomes)
			}
		})
	}
}

func TestASpanThatIsTwiceInARequestCountsOnce(t *testing.T) {
	call := spanJSON(callID1, "", "chat", attrsJSON("gen_ai.operation.name", str("chat"), "gen_ai.request.model", str("m")), "")
	step := spanJSON(stepID, callID1, "lookup", attrsJSON("gen_ai.operation.name", str("execute_tool"), "gen_ai.tool.name", str("lookup")), "")
	m := mapTraces(t, tracesJSON(call, step, call, step))
	want(t, m.only(t).GetInteraction(), `{"model":"m","latencyMs":1500,"tools":[{"name":"lookup","latencyMs":1500}]}`)
	for i, o := range []outcome{{asInteraction, ""}, {asStep, ""}, {ignored, repeated}, {ignored, repeated}} {
		if m.outcomes[i] != o {
			t.Errorf("span %d: %v, want %v", i, m.outcomes[i], o)
		}
	}
}

func TestToolsInMessagesAreOfTheLastTurnAndJoinTheirSpan(t *testing.T) {
	attrs := attrsJSON("gen_ai.operation.name", str("chat"), "gen_ai.provider.name", str("x"),
		"gen_ai.input.messages", str(`[
		{"role":"user","parts":[{"type":"text","content":"Hi"}]},
		{"role":"assistant","parts":[{"type":"tool_call","id":"c0","name":"old","arguments":{}}]},
		{"role":"user","parts":[{"type":"text","content":"Weather?"}]},
		{"role":"assistant","parts":[{"type":"tool_call","id":"c1","name":"weather","arguments":{"city":"Paris"}}]},
		{"role":"tool","parts":[{"type":"tool_call_response","id":"c1","response":"rain"}]}]`),
		"gen_ai.output.messages", str(`[{"role":"assistant","parts":[{"type":"text","content":"It rains."},{"type":"tool_call","id":"c2","name":"notify","arguments":"{}"}],"finish_reason":"tool_call"}]`))
	m := mapTraces(t, tracesJSON(spanJSON(callID1, "", "chat", attrs, ""),
		spanJSON(stepID, callID1, "execute_tool", attrsJSON("gen_ai.operation.name", str("execute_tool"), "gen_ai.tool.name", str("weather"), "gen_ai.tool.call.id", str("c1")), "")))
	want(t, m.only(t).GetInteraction(), `{"query":"Weather?","output":"It rains.","finishReason":"tool_call","latencyMs":1500,"tools":[
		{"name":"weather","arguments":"{\"city\":\"Paris\"}","result":"rain","latencyMs":1500},{"name":"notify","arguments":"{}"}]}`)
}

func TestOpenAIsToolMessagesAreRead(t *testing.T) {
	attrs := attrsJSON("gen_ai.provider.name", str("x"), "gen_ai.prompt", str(`[{"role":"user","content":"Weather?"},
		{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"weather","arguments":"{\"city\":\"Paris\"}"}}]},
		{"role":"tool","tool_call_id":"c1","content":"rain"}]`), "gen_ai.completion", str("It rains."))
	want(t, mapTraces(t, tracesJSON(spanJSON(callID1, "", "chat", attrs, ""))).only(t).GetInteraction(),
		`{"query":"Weather?","output":"It rains.","latencyMs":1500,"tools":[{"name":"weather","arguments":"{\"city\":\"Paris\"}","result":"rain"}]}`)
}

func TestWhatIsNotGenAIIsIgnoredAndCounted(t *testing.T) {
	m := mapTraces(t, tracesJSON(
		spanJSON(rootID, "", "GET /", attrsJSON("http.route", str("/")), ""),
		spanJSON(callID1, rootID, "embeddings", attrsJSON("gen_ai.operation.name", str("embeddings"), "gen_ai.request.model", str("e")), ""),
		spanJSON(stepID, rootID, "chain", attrsJSON("openinference.span.kind", str("CHAIN"), "input.value", str("q"), "output.value", str("a")), ""),
		`{"name":"a span without ids"}`,
	))
	if len(m.events) != 0 || len(m.rejected) != 0 {
		t.Fatalf("got events %v, rejected %v", m.events, m.rejected)
	}
	got := map[outcome]int{}
	for _, o := range m.outcomes {
		got[o]++
	}
	if got[outcome{ignored, notGenAI}] != 2 || got[outcome{ignored, noContent}] != 2 {
		t.Errorf("got %v", got)
	}
	m = mapLogs(t, logsJSON(logJSON("", str("user logged in"), "[]"), logJSON("gen_ai.choice", `{"kvlistValue":{"values":`+attrsJSON("index", integer("0"), "finish_reason", str("stop"))+`}}`, "[]")))
	if len(m.events) != 0 || len(m.rejected) != 0 || m.outcomes[0].reason != notGenAI || m.outcomes[1].reason != noContent {
		t.Errorf("got events %v, rejected %v, outcomes %v", m.events, m.rejected, m.outcomes)
	}
}

func TestLogEventsOfOneCallBecomeOneInteraction(t *testing.T) {
	body := func(pairs ...string) string { return `{"kvlistValue":{"values":` + attrsJSON(pairs...) + `}}` }
	m := mapLogs(t, logsJSON(
		logJSON("gen_ai.system.message", body("content", str("Be brief.")), attrsJSON("gen_ai.system", str("openai"))),
		logJSON("gen_ai.user.message", body("content", str("Where is my order?"), "role", str("user")), "[]"),
		logJSON("", body("index", integer("0"), "finish_reason", str("stop"), "message", body("role", str("assistant"), "content", str("It left the depot."))), attrsJSON("event.name", str("gen_ai.choice"))),
	))
	e := m.only(t)
	want(t, e.GetInteraction(), `{"query":"Where is my order?","systemContext":"Be brief.","output":"It left the depot.","finishReason":"stop"}`)
	if e.InteractionId != callID1 || e.SessionId != traceID || e.Tags["gen_ai.provider.name"] != "openai" || len(m.records[0]) != 3 {
		t.Errorf("got %v of records %v", e, m.records)
	}
}

func TestDetailsEventBecomesAnInteraction(t *testing.T) {
	e := mapLogs(t, logsJSON(logJSON(eventDetails, `{}`, attrsJSON("gen_ai.response.id", str("resp-1"), "gen_ai.conversation.id", str("conv"), "gen_ai.request.model", str("m"),
		"gen_ai.input.messages", str(`[{"role":"user","parts":[{"type":"text","content":"q"}]}]`), "gen_ai.output.messages", str(`[{"role":"assistant","parts":[{"type":"text","content":"a"}]}]`))))).only(t)
	want(t, e.GetInteraction(), `{"query":"q","output":"a","model":"m"}`)
	if e.InteractionId != "resp-1" || e.SessionId != "conv" {
		t.Errorf("got %v", e)
	}
}

func TestEvaluationsAndAnnotationsBecomeFeedback(t *testing.T) {
	evaluation := func(pairs ...string) string {
		return `,"events":[{"name":"gen_ai.evaluation.result","timeUnixNano":"1760000002000000000","attributes":` + attrsJSON(pairs...) + `}]`
	}
	tests := []struct {
		name, events string
		attrs        []string
		want         string
	}{
		{"a label", evaluation("gen_ai.evaluation.name", str("Relevance"), "gen_ai.evaluation.score.value", double("4"), "gen_ai.evaluation.score.label", str("not relevant"), "gen_ai.evaluation.explanation", str("Off topic.")), nil,
			`{"thumb":"down","categories":["Relevance"],"comment":"Off topic."}`},
		{"a score", evaluation("gen_ai.evaluation.name", str("Relevance"), "gen_ai.evaluation.score.value", double("0.75")), nil, `{"score":0.75,"min":0,"max":1}`},
		{"a low score", evaluation("gen_ai.evaluation.name", str("Relevance"), "gen_ai.evaluation.score.value", integer("0")), nil, `{"score":0,"min":0,"max":1,"categories":["Relevance"]}`},
		{"a score with its range", evaluation("gen_ai.evaluation.name", str("Relevance"), "gen_ai.evaluation.score.value", double("4"), "hone.evaluation.score.min", integer("1"), "hone.evaluation.score.max", integer("5")), nil, `{"score":4,"min":1,"max":5}`},
		{"a score of something bad", evaluation("gen_ai.evaluation.name", str("Hallucination"), "gen_ai.evaluation.score.value", double("1")), nil, `{"score":0,"min":0,"max":1,"categories":["Hallucination"]}`},
		{"a label of something bad", evaluation("gen_ai.evaluation.name", str("toxicity"), "gen_ai.evaluation.score.label", str("no")), nil, `{"thumb":"up"}`},
		{"OpenInference annotation", "", []string{"annotations.0.annotation.name", str("hallucination"), "annotations.0.annotation.score", integer("1"), "annotations.0.annotation.label", str("hallucinated"),
			"annotations.0.annotation.explanation", str("Not in the sources."), "annotations.0.annotation.annotator_kind", str("LLM")}, `{"thumb":"down","categories":["hallucination"],"comment":"Not in the sources."}`},
		{"OpenInference evaluation", "", []string{"evaluations.0.evaluation.name", str("correctness"), "evaluations.0.evaluation.label", str("correct")}, `{"thumb":"up"}`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			attrs := append([]string{"gen_ai.operation.name", str("chat"), "gen_ai.provider.name", str("x"), "gen_ai.response.id", str("resp-1"), "session.id", str("s"), "gen_ai.request.model", str("m"), "user.id", str("u")}, tt.attrs...)
			m := mapTraces(t, tracesJSON(spanJSON(callID1, "", "chat", attrsJSON(attrs...), tt.events)))
			if len(m.events) != 2 || len(m.rejected) != 0 {
				t.Fatalf("got %v, rejected %v, want an interaction and its feedback", m.events, m.rejected)
			}
			e := m.events[1]
			want(t, e.GetFeedback(), tt.want)
			if e.InteractionId != "resp-1" || e.SessionId != "s" || !strings.HasPrefix(e.UserId, "evaluation:") || e.Tags["gen_ai.evaluation.name"] == "" {
				t.Errorf("got %v", e)
			}
		})
	}
}

func TestEvaluationsWithoutDirectionOrTargetAreRejected(t *testing.T) {
	evaluation := func(pairs ...string) *mapper {
		return mapLogs(t, logsJSON(logJSON(eventEvaluation, `{}`, attrsJSON(pairs...))))
	}
	for _, tt := range []struct {
		name string
		m    *mapper
		want string
	}{
		{"no range", evaluation("gen_ai.evaluation.name", str("Relevance"), "gen_ai.evaluation.score.value", double("4")), "hone.evaluation.score.min"},
		{"nothing said", evaluation("gen_ai.evaluation.name", str("Relevance"), "gen_ai.evaluation.explanation", str("Well.")), "whether the answer is good"},
		{"no name", evaluation("gen_ai.evaluation.score.value", double("1")), "a name"},
		{"no target", mapLogs(t, strings.ReplaceAll(logsJSON(logJSON(eventEvaluation, `{}`, attrsJSON("gen_ai.evaluation.name", str("x"), "gen_ai.evaluation.score.value", double("1")))), callID1, "")), "the ids of the span"},
		{"on a plain span", mapTraces(t, tracesJSON(spanJSON(rootID, "", "GET /", attrsJSON("annotations.0.annotation.name", str("x"), "annotations.0.annotation.score", double("1")), ""))), "on the span of the model call"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if len(tt.m.events) != 0 || !strings.Contains(tt.m.rejected[0], tt.want) {
				t.Errorf("got events %v, rejected %v, want %q", tt.m.events, tt.m.rejected, tt.want)
			}
		})
	}
	e := evaluation("gen_ai.evaluation.name", str("Relevance"), "gen_ai.evaluation.score.value", double("0.9")).only(t)
	if e.InteractionId != callID1 || e.SessionId != traceID {
		t.Errorf("got %v, want feedback on the span", e)
	}
	m := evaluation("gen_ai.evaluation.name", str("Relevance"), "error.type", str("timeout"))
	if len(m.events)+len(m.rejected) != 0 || m.outcomes[0].reason != failedRating {
		t.Errorf("a failed evaluation made %v, %v", m.events, m.rejected)
	}
}

func TestAnExportSentAgainHasTheSameIDs(t *testing.T) {
	traces := tracesJSON(spanJSON(callID1, "", "chat", attrsJSON("gen_ai.request.model", str("m"), "annotations.0.annotation.name", str("x"), "annotations.0.annotation.score", double("1")), ""))
	logs := logsJSON(logJSON("gen_ai.user.message", str("a"), "[]"))
	other := logsJSON(logJSON("gen_ai.user.message", str("b"), "[]"))
	idsOf := func(ms ...*mapper) (out []string) {
		for _, m := range ms {
			for _, e := range m.events {
				out = append(out, e.EventId)
			}
		}
		return out
	}
	first, again := idsOf(mapTraces(t, traces), mapLogs(t, logs)), idsOf(mapTraces(t, traces), mapLogs(t, logs))
	if len(first) != 3 || strings.Join(first, " ") != strings.Join(again, " ") {
		t.Errorf("got %v, then %v", first, again)
	}
	if id := idsOf(mapLogs(t, other))[0]; id == first[2] {
		t.Error("another message of the same span has the same id")
	}
	if twice := mapLogs(t, logsJSON(logJSON(eventDetails, `{}`, attrsJSON("gen_ai.prompt", str("q"))), logJSON(eventDetails, `{}`, attrsJSON("gen_ai.prompt", str("q"))))); len(twice.events) != 1 {
		t.Errorf("the same record twice in a request made %d events", len(twice.events))
	}
}

func TestEveryEventIsAcceptable(t *testing.T) {
	long := strings.Repeat("é", 300)
	m := mapTraces(t, tracesJSON(spanJSON(callID1, "", "chat", attrsJSON("gen_ai.request.model", str("m"), "error.type", str(long), "gen_ai.request.stop_sequences", strs(long)), "")))
	e := m.only(t)
	if err := events.Validate(e, e.OccurredAt.AsTime(), events.DefaultLimits()); err != nil {
		t.Errorf("tags and parameters that are too long: %v", err)
	}
}

func TestIDsInJSONAreHexadecimal(t *testing.T) {
	for _, tt := range []struct{ name, body string }{
		{"base64", `{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"W4qlotLIcugyHPNzCNad8g=="}]}]}]}`},
		{"short", `{"resourceSpans":[{"scopeSpans":[{"spans":[{"traceId":"` + traceID[:31] + `"}]}]}]}`},
		{"not digits", `{"resourceSpans":[{"scopeSpans":[{"spans":[{"spanId":"zzzzzzzzzzzzzzzz"}]}]}]}`},
		{"a link", `{"resourceSpans":[{"scopeSpans":[{"spans":[{"links":[{"spanId":"22"}]}]}]}]}`},
	} {
		if err := decodeJSON([]byte(tt.body), new(collectortrace.ExportTraceServiceRequest)); err == nil {
			t.Errorf("%s: accepted", tt.name)
		}
	}
	req := new(collectortrace.ExportTraceServiceRequest)
	body := tracesJSON(spanJSON(strings.ToUpper("abcdefabcdefabcd"), "", "x", "[]", `,"links":[{"traceId":"`+traceID+`"}],"unknownField":{"a":1}`))
	if err := decodeJSON([]byte(body), req); err != nil {
		t.Fatal(err)
	}
	s := req.ResourceSpans[0].ScopeSpans[0].Spans[0]
	if hex.EncodeToString(s.TraceId) != traceID || hex.EncodeToString(s.SpanId) != "abcdefabcdefabcd" || hex.EncodeToString(s.Links[0].TraceId) != traceID || s.Kind != 3 {
		t.Errorf("got %v", s)
	}
}

func TestBodiesThatGrowInMemoryAreRefused(t *testing.T) {
	req := new(collectortrace.ExportTraceServiceRequest)
	spans := strings.Repeat("\x12\x00", maxElements+1)
	wrap := func(tag byte, inner string) string {
		n := len(inner)
		out := []byte{tag}
		for ; n >= 0x80; n >>= 7 {
			out = append(out, byte(n)|0x80)
		}
		return string(append(out, byte(n))) + inner
	}
	if _, err := countProto([]byte(wrap(0x0a, wrap(0x12, spans))), req.ProtoReflect().Descriptor()); err != errTooManyElements {
		t.Errorf("protobuf: got %v", err)
	}
	if _, err := countJSON([]byte(tracesJSON(strings.Repeat("{},", maxElements) + "{}"))); err != errTooManyElements {
		t.Errorf("JSON: got %v", err)
	}
	if n, err := countJSON([]byte(`{"a":"{{{{,,,,\"{{{{"}`)); n > 1 || err != nil {
		t.Errorf("braces in a text count: %d, %v", n, err)
	}
	deep := ""
	for range maxNesting {
		deep = wrap(0x2a, wrap(0x0a, deep)) // an array in an array
	}
	if _, err := countProto([]byte(wrap(0x0a, wrap(0x0a, wrap(0x0a, wrap(0x12, deep))))), req.ProtoReflect().Descriptor()); err != errNesting {
		t.Errorf("nesting: got %v", err)
	}
}

func TestTracesWithoutEndOrWithCirclesAreMapped(t *testing.T) {
	ring := tracesJSON(
		spanJSON(rootID, callID1, "chat", attrsJSON("gen_ai.request.model", str("m")), ""),
		spanJSON(callID1, rootID, "x", attrsJSON("session.id", str("s")), ""),
		spanJSON(stepID, stepID, "tool", attrsJSON("gen_ai.tool.name", str("t")), ""))
	if e := mapTraces(t, ring).events; len(e) != 1 || e[0].SessionId != "s" {
		t.Errorf("a circle: got %v", e)
	}
	m := mapTraces(t, tracesJSON(spanJSON(callID1, "", "chat", attrsJSON("gen_ai.request.model", str("m"), "gen_ai.input.messages", str("["+strings.Repeat("{},", 3*maxJSON)+"{}]")), "")))
	if err := events.Validate(m.events[0], m.events[0].OccurredAt.AsTime(), events.DefaultLimits()); err == nil || err.Field != "interaction.query" {
		t.Errorf("JSON without end: got %v, want it refused as a text that is too long", err)
	}
}
