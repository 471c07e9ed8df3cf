package otlp

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/honeloop/hone/pkg/auth"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
)

// BenchmarkExport reads, maps and encodes what an exporter sends at a time: 512
// spans, of which every fourth is a model call and every fourth a tool.
func BenchmarkExport(b *testing.B) {
	var spans []string
	for i := range 512 {
		id := fmt.Sprintf("%016x", i+1)
		attrs := attrsJSON("http.route", str("/chat"), "http.method", str("POST"))
		switch i % 4 {
		case 0:
			attrs = attrsJSON("gen_ai.operation.name", str("chat"), "gen_ai.provider.name", str("openai"), "gen_ai.request.model", str("m"), "gen_ai.response.id", str(id), "session.id", str("s"+id),
				"gen_ai.input.messages", str(`[{"role":"system","parts":[{"type":"text","content":"Be brief."}]},{"role":"user","parts":[{"type":"text","content":"Where is my order?"}]}]`),
				"gen_ai.output.messages", str(`[{"role":"assistant","parts":[{"type":"text","content":"It left the depot."}],"finish_reason":"stop"}]`))
		case 1:
			attrs = attrsJSON("gen_ai.operation.name", str("execute_tool"), "gen_ai.tool.name", str("lookup"), "gen_ai.tool.call.result", str("found"))
		}
		spans = append(spans, spanJSON(id, fmt.Sprintf("%016x", i), "span", attrs, ""))
	}
	sig := traceSignal()
	req := sig.request()
	if err := decodeJSON([]byte(tracesJSON(spans...)), req); err != nil {
		b.Fatal(err)
	}
	body, err := proto.Marshal(req)
	if err != nil {
		b.Fatal(err)
	}
	events := 0
	r := accepting(b, func(*eventv1.Event, []byte) { events++ })
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.export(b.Context(), auth.Key{ProjectID: "p"}, sig, body, false); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(512*b.N)/b.Elapsed().Seconds(), "spans/s")
	b.ReportMetric(float64(events)/b.Elapsed().Seconds(), "events/s")
}
