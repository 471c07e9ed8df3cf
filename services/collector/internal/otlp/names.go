package otlp

import "slices"

// Every name of other people's conventions stands in this file. Where several
// names say the same, the first that is there counts, so the newest stands first.

// What tells the kind of a span.
var (
	operationNames = []string{"gen_ai.operation.name"}
	spanKindNames  = []string{"openinference.span.kind", "langsmith.span.kind", "traceloop.span.kind", "langfuse.observation.type", "gen_ai.span.kind"}
	requestTypes   = []string{"llm.request.type"}
	operationKinds = map[string]kind{
		"chat": inference, "text_completion": inference, "generate_content": inference, "completion": inference, "response": inference,
		"invoke_agent": agent, "invoke_workflow": agent,
		"execute_tool": tool,
		"retrieval":    retrieval,
	}
	// Lower case. A chain or a workflow holds others together and has no word of
	// its own.
	spanKinds = map[string]kind{
		"llm": inference, "generation": inference, "chat": inference, "completion": inference,
		"agent": agent, "tool": tool, "retriever": retrieval, "reranker": retrieval,
		"chain": other, "workflow": other, "task": other, "embedding": other, "guardrail": other, "evaluator": other, "prompt": other,
		"rerank": other, "parser": other, "span": unknown,
	}
	// A span without a kind that has one of these is a model call.
	inferenceMarks = []string{"gen_ai.request.model", "gen_ai.response.model", "gen_ai.response.id", "gen_ai.input.messages", "gen_ai.output.messages",
		"gen_ai.prompt", "gen_ai.completion", "llm.model_name", "llm.request.model_name", "llm.response.model_name"}
	toolMarks     = []string{"gen_ai.tool.name", "gen_ai.tool.call.id", "ai.toolCall.name"}
	genAIPrefixes = []string{"gen_ai.", "openinference.", "llm.", "traceloop."}
)

// Who, where, which.
var (
	sessionNames = []string{"gen_ai.conversation.id", "session.id", "langfuse.session.id", "gen_ai.session.id", "traceloop.association.properties.session_id",
		"traceloop.association.properties.thread_id", "langsmith.metadata.session_id", "langsmith.metadata.thread_id", "ai.telemetry.metadata.sessionId"}
	userNames = []string{"user.id", "enduser.id", "langfuse.user.id", "gen_ai.user.id", "gen_ai.request.user", "llm.user",
		"traceloop.association.properties.user_id", "langsmith.metadata.user_id", "ai.telemetry.metadata.userId"}
	roleNames        = []string{"hone.user_role", "user.roles", "enduser.role"}
	environmentNames = []string{"deployment.environment.name", "deployment.environment", "langfuse.environment"}
	responseIDNames  = []string{"gen_ai.response.id"}
	errorTypeNames   = []string{"error.type"}

	// Spans of the old conventions have the first and not the second.
	oldProvider, newProvider = "gen_ai.system", "gen_ai.provider.name"
)

// A span's or a resource's attributes that become tags, by the tag's name.
var (
	spanTags = map[string][]string{
		"gen_ai.provider.name":  {newProvider, oldProvider, "llm.provider", "llm.system"},
		"gen_ai.operation.name": {"gen_ai.operation.name", "llm.request.type"},
		"gen_ai.agent.name":     {"gen_ai.agent.name", "agent.name"},
		"error.type":            errorTypeNames,
	}
	resourceTags = map[string][]string{
		"service.name":    {"service.name"},
		"service.version": {"service.version"},
	}
)

// The names of tags that are Hone's own.
const (
	tagTrace, tagSpan, tagResponse = "trace_id", "span_id", "gen_ai.response.id"
	tagEvaluation, tagLabel        = "gen_ai.evaluation.name", "gen_ai.evaluation.score.label"
	tagAnnotator                   = "annotator_kind"
)

// An interaction.
var (
	modelNames         = []string{"gen_ai.request.model", "llm.request.model_name", "llm.model_name", "gen_ai.response.model", "llm.response.model_name"}
	modelVersionNames  = []string{"gen_ai.response.model", "llm.response.model_name"}
	promptVersionNames = []string{"hone.prompt_version", "gen_ai.prompt.version", "llm.prompt_template.version", "traceloop.prompt.version", "langfuse.observation.prompt.version"}
	patchesNames       = []string{"hone.applied_patches"}
	inputTokenNames    = []string{"gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens", "llm.token_count.prompt", "llm.usage.prompt_tokens"}
	outputTokenNames   = []string{"gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens", "llm.token_count.completion", "llm.usage.completion_tokens"}
	finishNames        = []string{"gen_ai.response.finish_reasons", "gen_ai.response.finish_reason", "gen_ai.response.stop_reason", "llm.finish_reason", "llm.response.finish_reason"}
	// By the name of the parameter.
	parameterNames = map[string][]string{
		"temperature":       {"gen_ai.request.temperature", "llm.request.temperature"},
		"top_p":             {"gen_ai.request.top_p", "llm.top_p", "llm.request.top_p"},
		"top_k":             {"gen_ai.request.top_k", "llm.top_k"},
		"max_tokens":        {"gen_ai.request.max_tokens", "gen_ai.request.max_completion_tokens", "llm.request.max_tokens"},
		"seed":              {"gen_ai.request.seed", "gen_ai.openai.request.seed"},
		"frequency_penalty": {"gen_ai.request.frequency_penalty", "llm.frequency_penalty"},
		"presence_penalty":  {"gen_ai.request.presence_penalty", "llm.presence_penalty"},
		"choice_count":      {"gen_ai.request.choice.count", "gen_ai.request.n"},
		"stop_sequences":    {"gen_ai.request.stop_sequences", "llm.chat.stop_sequences"},
		"reasoning_effort":  {"gen_ai.request.reasoning_effort", "llm.request.reasoning_effort"},
	}
	// A JSON object; of it only what parameterNames names is taken.
	parametersNames = []string{"llm.invocation_parameters"}

	// Values that are a JSON text, or a structure, of messages.
	systemNames = []string{"gen_ai.system_instructions", "gen_ai.system.instructions"}
	inputNames  = []string{"gen_ai.input.messages", "gen_ai.prompt", "ai.prompt.messages", "pydantic_ai.all_messages", "langfuse.observation.input", "input.value", "traceloop.entity.input"}
	outputNames = []string{"gen_ai.output.messages", "gen_ai.completion", "ai.response.text", "final_result", "langfuse.observation.output", "output.value", "traceloop.entity.output"}
	// Flattened lists of messages: the list's name, then its index.
	inputLists  = []string{"llm.input_messages", "gen_ai.prompt", "llm.prompts"}
	outputLists = []string{"llm.output_messages", "gen_ai.completion", "llm.completions"}

	// The parts of a message in a flattened list.
	messageRole    = []string{"message.role", "role"}
	messageContent = []string{"message.content", "content", "completion.text", "prompt.text"}
	messageParts   = "message.contents"
	partType       = []string{"message_content.type"}
	partText       = []string{"message_content.text"}
	messageFinish  = []string{"message.finish_reason", "finish_reason"}
	messageCalls   = []string{"message.tool_calls", "tool_calls"}
	callID         = []string{"tool_call.id", "id"}
	callName       = []string{"tool_call.function.name", "name", "function.name"}
	callArguments  = []string{"tool_call.function.arguments", "arguments", "function.arguments"}
	messageCallID  = []string{"message.tool_call_id", "tool_call_id"}
)

// Events of spans and of logs.
const (
	eventNameAttribute = "event.name"
	eventDetails       = "gen_ai.client.inference.operation.details"
	eventChoice        = "gen_ai.choice"
	eventEvaluation    = "gen_ai.evaluation.result"
	eventVectorResult  = "db.query.result"
)

var (
	// The role that the event's message has.
	messageEvents = map[string]string{
		"gen_ai.system.message": "system", "gen_ai.user.message": "user", "gen_ai.assistant.message": "assistant", "gen_ai.tool.message": "tool",
	}
	// Events with all messages of one side.
	promptEvents     = []string{"gen_ai.content.prompt"}
	completionEvents = []string{"gen_ai.content.completion"}
	promptEventNames = []string{"gen_ai.prompt", "gen_ai.event.content"}
	outputEventNames = []string{"gen_ai.completion", "gen_ai.event.content"}
	// Where a message event on a span has what a log event has in its body.
	eventBodyNames = []string{"gen_ai.event.content", "content", "message"}
)

// Tools and passages.
var (
	toolNames     = []string{"gen_ai.tool.name", "ai.toolCall.name", "tool.name", "traceloop.entity.name"}
	toolCallIDs   = []string{"gen_ai.tool.call.id", "ai.toolCall.id", "tool_call.id", "tool.id"}
	toolArguments = []string{"gen_ai.tool.call.arguments", "gen_ai.tool.arguments", "ai.toolCall.args", "tool_arguments", "tool_call.function.arguments", "tool.parameters", "input.value",
		"traceloop.entity.input", "langfuse.observation.input"}
	toolResults = []string{"gen_ai.tool.call.result", "gen_ai.tool.result", "ai.toolCall.result", "tool_response", "output.value", "traceloop.entity.output", "langfuse.observation.output"}

	documentsNames   = []string{"gen_ai.retrieval.documents"}
	documentLists    = []string{"reranker.output_documents", "retrieval.documents"}
	documentID       = []string{"document.id"}
	documentContent  = []string{"document.content"}
	documentScore    = []string{"document.score"}
	documentMetadata = []string{"document.metadata"}
	// Keys of a document in a structure, or of its metadata.
	documentIDKeys      = []string{"id", "document_id", "source", "url", "title"}
	documentContentKeys = []string{"content", "text", "page_content"}
	metadataSourceKeys  = []string{"source", "url", "uri", "title"}

	vectorID       = []string{"db.query.result.id"}
	vectorContent  = []string{"db.query.result.document"}
	vectorScore    = []string{"db.query.result.score"}
	vectorMetadata = []string{"db.query.result.metadata"}
)

// Evaluations and annotations.
var (
	evaluationName        = []string{"gen_ai.evaluation.name"}
	evaluationLabel       = []string{"gen_ai.evaluation.score.label"}
	evaluationScore       = []string{"gen_ai.evaluation.score.value"}
	evaluationExplanation = []string{"gen_ai.evaluation.explanation"}
	scoreMin              = []string{"hone.evaluation.score.min"}
	scoreMax              = []string{"hone.evaluation.score.max"}

	annotationLists = []struct{ name, field string }{{"annotations", "annotation."}, {"evaluations", "evaluation."}}

	// What a label or a name says, in lower case, with "_" for spaces and hyphens.
	goodLabels = []string{"pass", "passed", "correct", "relevant", "good", "yes", "true", "positive", "factual", "faithful", "grounded", "helpful",
		"accurate", "safe", "non_toxic", "not_hallucinated", "thumbs_up", "thumb_up", "up", "like", "acceptable", "success"}
	badLabels = []string{"fail", "failed", "incorrect", "not_relevant", "irrelevant", "unrelated", "bad", "no", "false", "negative", "hallucinated",
		"hallucination", "unfaithful", "ungrounded", "not_grounded", "unhelpful", "inaccurate", "unsafe", "toxic", "thumbs_down", "thumb_down",
		"down", "dislike", "unacceptable", "failure", "wrong"}
	// Evaluations of something bad: there "yes" and a high score are bad.
	badThings = []string{"hallucination", "hallucinations", "toxicity", "bias", "harm", "harmfulness", "harmful", "violence", "hate", "hate_unfairness",
		"self_harm", "sexual", "profanity", "frustration", "user_frustration", "jailbreak", "prompt_injection", "pii", "error", "refusal"}
	// These speak of the metric itself and not of the answer.
	yesLabels = []string{"yes", "true", "positive"}
	noLabels  = []string{"no", "false", "negative"}
)

func isUser(role string) bool   { return slices.Contains([]string{"user", "human"}, role) }
func isSystem(role string) bool { return slices.Contains([]string{"system", "developer"}, role) }
func isTool(role string) bool   { return slices.Contains([]string{"tool", "function"}, role) }
