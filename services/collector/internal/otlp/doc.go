// Package otlp takes OpenTelemetry traces and logs over OTLP, HTTP and gRPC, and
// makes Hone's events of what they say about generative AI.
//
// # What becomes what
//
// A span of a model call becomes an interaction. So does the span of an agent's
// run where it has the run's messages. Old log or span events that hold messages
// (gen_ai.user.message, gen_ai.choice, gen_ai.content.prompt, …), and
// gen_ai.client.inference.operation.details, become interactions too; those of one
// span in one request become one. Results of evaluations
// (gen_ai.evaluation.result) and OpenInference annotations become feedback. All
// else is ignored and counted; plain spans are no error.
//
// names.go has every name that is read, of the OpenTelemetry conventions old and
// new, OpenInference, Traceloop, LangSmith, Langfuse, Vercel's AI SDK and Pydantic
// AI.
//
// # Ids
//
//   - interaction_id is gen_ai.response.id, else the span's id. A span of the old
//     conventions without messages goes by the span's id in any case: its messages
//     come as log events, which know only that.
//   - session_id is the conversation's id, on the span or on the nearest span above
//     it in the same request, else the trace's id.
//   - event_id is derived from the project, the trace's and the span's id, and for
//     log events from their content, so an export that is sent again counts once.
//
// # Tools and passages
//
// The span of a tool or a retrieval joins the nearest interaction above it. Where
// there is none above it, it joins the next interaction of its trace that starts
// when it has ended; a tool else joins the last one before it. All this happens
// within one request, since the collector keeps nothing between requests: in
// another request than its answer, a tool or a passage is counted as ignored
// (orphan_step). Exporters send spans in batches as they end, and inner ones end
// first, so a batch that holds a whole turn keeps all of it. Tools whose calls and
// results stand in the messages themselves are never lost.
//
// # Two events of one interaction
//
// Where the span and the log events of one call come apart, both become an event
// with the same interaction_id. The enricher lays events of source "otlp" over each
// other: what the later one leaves empty stays as the earlier one has it.
//
// # Evaluations
//
// A label that says good or bad (pass, incorrect, …) becomes a thumb. Else a score
// counts, from 0 to 1 unless hone.evaluation.score.min and .max give its range;
// it is turned round where the name is of something bad (hallucination, toxicity,
// …). Where neither says which way it points, the result is refused, with the
// reason in the partial success. A bad result has its name as its category. The
// user is "evaluation:<name>", so that each evaluator is heard on its own.
package otlp
