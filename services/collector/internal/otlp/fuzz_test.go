package otlp

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"go.opentelemetry.io/otel/metric/noop"
	"golang.org/x/sync/semaphore"
	"google.golang.org/protobuf/proto"

	"github.com/honeloop/hone/pkg/auth"
	"github.com/honeloop/hone/pkg/events"
	"github.com/honeloop/hone/pkg/jsonpb"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	"github.com/honeloop/hone/services/collector/internal/apierr"
)

// accepting is a receiver that accepts what pkg/events does, at a time after all
// that tests send.
func accepting(t testing.TB, keep func(*eventv1.Event, []byte)) *Receiver {
	t.Helper()
	limits := events.DefaultLimits()
	r, err := New(Options{
		Take: func(_ context.Context, key auth.Key, list []*eventv1.Event) []*apierr.Error {
			errs := make([]*apierr.Error, len(list))
			for i, e := range list {
				value, ferr := events.Accept(e, key.ProjectID, events.SourceOTLP, time.Unix(4e9, 0), limits)
				if ferr != nil {
					errs[i] = apierr.FromField((*jsonpb.FieldError)(ferr))
					continue
				}
				keep(e, value)
			}
			return errs
		},
		Enter: func() bool { return true }, Leave: func() {},
		Limits: limits, MaxBody: 1 << 20, Bodies: semaphore.NewWeighted(64 << 20), Meter: noop.NewMeterProvider().Meter(""),
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// FuzzOTLP sends bodies as traces and as logs, in protobuf and in JSON. None may
// panic; what is accepted must be readable; and the same body must make the same
// events again.
func FuzzOTLP(f *testing.F) {
	seeds := []string{
		tracesJSON(spanJSON(callID1, rootID, "chat", attrsJSON("gen_ai.request.model", str("m"), "gen_ai.input.messages", str(`[{"role":"user","parts":[{"type":"text","content":"q"},{"type":"tool_call","id":"c","name":"n","arguments":{}}]}]`),
			"llm.input_messages.0.message.tool_calls.0.tool_call.function.name", str("n"), "annotations.0.annotation.name", str("x"), "annotations.0.annotation.score", double("1")),
			`,"events":[{"name":"gen_ai.choice","attributes":`+attrsJSON("gen_ai.event.content", str(`{"message":{"content":[{"type":"text","text":"a"}]}}`))+`},{"name":"db.query.result","attributes":[]}]`),
			spanJSON(stepID, callID1, "t", attrsJSON("gen_ai.operation.name", str("execute_tool"), "gen_ai.tool.call.id", str("c")), "")),
		logsJSON(logJSON("gen_ai.choice", `{"kvlistValue":{"values":`+attrsJSON("message", str("a"))+`}}`, "[]"),
			logJSON(eventEvaluation, `{}`, attrsJSON("gen_ai.evaluation.name", str("x"), "gen_ai.evaluation.score.label", str("pass")))),
		`{}`, ``, `{"resourceSpans":[null]}`,
	}
	files, err := filepath.Glob("testdata/*.json")
	if err != nil || len(files) == 0 {
		f.Fatalf("no files in testdata: %v", err)
	}
	for _, file := range files {
		body, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		seeds = append(seeds, string(body))
	}
	for _, body := range seeds {
		for _, sig := range []signal{traceSignal(), logSignal()} {
			f.Add([]byte(body))
			req := sig.request()
			if decodeJSON([]byte(body), req) == nil {
				if b, err := proto.Marshal(req); err == nil {
					f.Add(b)
				}
			}
		}
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		for _, sig := range []signal{traceSignal(), logSignal()} {
			for _, json := range []bool{false, true} {
				var runs [2]map[string]bool
				for i := range runs {
					runs[i] = map[string]bool{}
					r := accepting(t, func(e *eventv1.Event, value []byte) {
						if err := proto.Unmarshal(value, new(eventv1.Event)); err != nil {
							t.Fatalf("an accepted event cannot be read: %v", err)
						}
						runs[i][e.EventId+" "+e.SessionId+" "+e.InteractionId] = true
					})
					answer, err := r.export(t.Context(), auth.Key{ProjectID: "p"}, sig, body, json)
					if (answer == nil) == (err == nil) {
						t.Fatalf("got answer %v and error %v", answer, err)
					}
				}
				if len(runs[0]) != len(runs[1]) {
					t.Fatalf("got %v, then %v", runs[0], runs[1])
				}
				for id := range runs[0] {
					if !runs[1][id] {
						t.Fatalf("got %v, then %v", runs[0], runs[1])
					}
				}
			}
		}
	})
}
