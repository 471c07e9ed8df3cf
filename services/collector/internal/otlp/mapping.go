package otlp

import (
	"encoding/hex"
	"math"
	"strings"

	"google.golang.org/protobuf/types/known/timestamppb"

	resourcev1 "go.opentelemetry.io/proto/otlp/resource/v1"

	"github.com/honeloop/hone/pkg/events"
	"github.com/honeloop/hone/pkg/ids"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
)

// What became of a span or a log record.
const (
	asInteraction = "interaction"
	asFeedback    = "feedback"
	asStep        = "step" // a tool or passages of an interaction
	ignored       = "ignored"
	rejected      = "rejected"
)

// Why it was ignored.
const (
	notGenAI     = "not_genai"
	noContent    = "no_content"  // of GenAI, but nothing that an event could hold
	orphanStep   = "orphan_step" // its interaction is not in the request
	failedRating = "failed_evaluation"
	repeated     = "repeated" // the request has the span already
)

// outcome is what a record is counted as.
type outcome struct{ what, reason string }

// mapper makes events of one request.
type mapper struct {
	project string
	limits  events.Limits

	events   []*eventv1.Event
	records  [][]int // of events: the numbers of the spans or log records it is of
	seen     map[string]bool
	outcomes []outcome      // by number of the record
	rejected map[int]string // the first reason, by number of the record
}

func newMapper(project string, limits events.Limits) *mapper {
	return &mapper{project: project, limits: limits, seen: map[string]bool{}, rejected: map[int]string{}}
}

// emit adds an event, unless the request has it already.
func (m *mapper) emit(e *eventv1.Event, records ...int) {
	if m.seen[e.EventId] {
		return
	}
	m.seen[e.EventId] = true
	m.events = append(m.events, e)
	m.records = append(m.records, records)
}

// record is the number of the next span or log record.
func (m *mapper) record() int {
	m.outcomes = append(m.outcomes, outcome{})
	return len(m.outcomes) - 1
}

func (m *mapper) count(record int, what, reason string) {
	m.outcomes[record] = outcome{what, reason}
}

// reject refuses a record of GenAI. The first reason is kept.
func (m *mapper) reject(record int, why string) {
	if _, ok := m.rejected[record]; !ok {
		m.rejected[record] = why
	}
}

// place is what is said of all spans or records of a resource.
type place struct {
	environment string
	tags        map[string]string
}

func (m *mapper) place(r *resourcev1.Resource) *place {
	a := newAttributes(r.GetAttributes())
	return &place{environment: a.text(environmentNames), tags: m.tags(a, resourceTags)}
}

// tags are attributes as tags. They are for search: one that is too long is cut.
func (m *mapper) tags(a attributes, names map[string][]string) map[string]string {
	out := make(map[string]string, len(names)+4)
	for tag, from := range names {
		if s := a.text(from); s != "" {
			out[tag] = m.clip(s)
		}
	}
	return out
}

func (m *mapper) clip(s string) string {
	if len(s) > m.limits.LabelBytes {
		return strings.ToValidUTF8(s[:m.limits.LabelBytes], "")
	}
	return s
}

// origin is where an event comes from: a span, or log records of one.
type origin struct {
	place       *place
	attrs       attributes
	trace, span []byte
	start, end  uint64 // in Unix nanoseconds; 0 is unknown
	part        string // which of the span's events it is
	identity
	talk conversation // of an interaction
}

// event is what all events have.
func (m *mapper) event(o *origin, kind string) *eventv1.Event {
	trace, span := hex.EncodeToString(o.trace), hex.EncodeToString(o.span)
	e := &eventv1.Event{
		EventId:     ids.Derive("ev", m.project, events.SourceOTLP, trace, span, o.part),
		Type:        kind,
		SessionId:   firstText(o.session, trace),
		UserId:      o.user,
		UserRole:    o.role,
		Environment: firstText(o.attrs.text(environmentNames), o.place.environment),
		Tags:        m.tags(o.attrs, spanTags),
		OccurredAt:  timestamp(o.end),
	}
	for tag, s := range o.place.tags {
		e.Tags[tag] = s
	}
	if trace != "" {
		e.Tags[tagTrace] = trace
	}
	if span != "" {
		e.Tags[tagSpan] = span
	}
	return e
}

func timestamp(nanos uint64) *timestamppb.Timestamp {
	if nanos == 0 {
		return nil
	}
	return &timestamppb.Timestamp{Seconds: int64(nanos / 1e9), Nanos: int32(nanos % 1e9)}
}

// interaction makes an interaction of a model call or an agent's run.
func (m *mapper) interaction(o *origin) (e *eventv1.Event, calls map[string]int) {
	e = m.event(o, events.TypeInteraction)
	x := &eventv1.Interaction{
		Model:          o.attrs.text(modelNames),
		ModelVersion:   o.attrs.text(modelVersionNames),
		PromptVersion:  o.attrs.text(promptVersionNames),
		AppliedPatches: o.attrs.texts(patchesNames),
		InputTokens:    o.attrs.count(inputTokenNames),
		OutputTokens:   o.attrs.count(outputTokenNames),
		LatencyMs:      milliseconds(o.start, o.end),
		Parameters:     m.parameters(o.attrs),
	}
	calls = o.talk.fill(x)
	x.FinishReason = firstText(o.attrs.first(finishNames), x.FinishReason)
	e.Payload = &eventv1.Event_Interaction{Interaction: x}
	response := o.attrs.text(responseIDNames)
	e.InteractionId = firstText(response, hex.EncodeToString(o.span))
	if len(o.span) > 0 && o.talk.empty() && o.attrs[oldProvider] != nil && o.attrs[newProvider] == nil {
		e.InteractionId = hex.EncodeToString(o.span)
	}
	if response != "" && response != e.InteractionId {
		e.Tags[tagResponse] = m.clip(response)
	}
	e.SessionId = firstText(e.SessionId, e.InteractionId)
	return e, calls
}

func milliseconds(start, end uint64) uint32 {
	if start == 0 || end <= start {
		return 0
	}
	return uint32(min((end-start)/1e6, math.MaxUint32))
}

func (m *mapper) parameters(a attributes) map[string]string {
	out := m.tags(a, parameterNames)
	if all, ok := fromJSON(a.text(parametersNames), nil).(map[string]any); ok {
		for name := range parameterNames {
			if s := text(all[name]); s != "" && out[name] == "" {
				out[name] = m.clip(s)
			}
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// talkOf reads the messages that stand in attributes. Those that are made for it
// count before values of unknown shape.
func talkOf(a attributes) conversation {
	return conversation{
		system: messagesOf(toAny(a.get(systemNames)), "system"),
		input:  sideOf(a, inputNames, inputLists, "user"),
		output: sideOf(a, outputNames, outputLists, "assistant"),
	}
}

func sideOf(a attributes, names, lists []string, role string) []message {
	if out := messagesOf(toAny(a.get(names[:1])), role); len(out) > 0 {
		return out
	}
	for _, name := range lists {
		if out := flattened(a.list(name), role); len(out) > 0 {
			return out
		}
	}
	for _, name := range names[1:] {
		if out := messagesOf(toAny(a[name]), role); len(out) > 0 {
			return out
		}
	}
	return nil
}
