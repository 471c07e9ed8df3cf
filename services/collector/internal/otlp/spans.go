package otlp

import (
	"cmp"
	"slices"
	"sort"
	"strings"

	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	tracev1 "go.opentelemetry.io/proto/otlp/trace/v1"

	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
)

// kind is what a span is.
type kind int

const (
	unknown   kind = iota
	other          // of GenAI, but no interaction and no part of one
	inference      // a model call
	agent          // an agent's run
	tool
	retrieval
)

// span is a span as it is mapped.
type span struct {
	*tracev1.Span
	place  *place
	attrs  attributes
	kind   kind
	record int
	parent *span
	who    *identity
	event  *eventv1.Event // the interaction, where it is one
	calls  map[string]int // places of its event's tools, by id of the call
	step   bool           // it became part of an interaction
	rated  bool           // feedback was made of what it carries
}

// maxAncestors bounds how far up a span is followed. A trace that goes deeper is
// more likely a circle.
const maxAncestors = 64

func (s *span) key() string { return string(s.GetTraceId()) + string(s.GetSpanId()) }

// upwards calls visit with the span and those above it until it returns true.
func (s *span) upwards(visit func(*span) bool) {
	for n := 0; s != nil && n < maxAncestors && !visit(s); n++ {
		s = s.parent
	}
}

// identity is whose and which session's a span is.
type identity struct{ session, user, role string }

func identityOf(a attributes) identity {
	return identity{session: a.text(sessionNames), user: a.text(userNames), role: a.first(roleNames)}
}

// identity is the span's own, and what it does not say, that of the spans above.
func (s *span) identity(depth int) identity {
	if s == nil || depth > maxAncestors {
		return identity{}
	}
	if s.who == nil {
		s.who = new(identity) // ends a circle
		own, up := identityOf(s.attrs), s.parent.identity(depth+1)
		*s.who = identity{firstText(own.session, up.session), firstText(own.user, up.user), firstText(own.role, up.role)}
	}
	return *s.who
}

// owner is the nearest interaction, from the span itself upwards.
func (s *span) owner() (out *span) {
	s.upwards(func(up *span) bool {
		if up.event != nil {
			out = up
		}
		return out != nil
	})
	return out
}

func (s *span) origin(part string) *origin {
	return &origin{
		place: s.place, attrs: s.attrs, trace: s.GetTraceId(), span: s.GetSpanId(), start: s.GetStartTimeUnixNano(), end: s.GetEndTimeUnixNano(), part: part,
		identity: s.identity(0),
	}
}

// traces maps the spans of a request.
func (m *mapper) traces(req *collectortrace.ExportTraceServiceRequest) {
	var spans []*span
	byKey := map[string]*span{}
	for _, rs := range req.GetResourceSpans() {
		var where *place
		for _, ss := range rs.GetScopeSpans() {
			for _, raw := range ss.GetSpans() {
				if where == nil {
					where = m.place(rs.GetResource())
				}
				s := &span{Span: raw, place: where, attrs: newAttributes(raw.GetAttributes()), record: m.record()}
				if byKey[s.key()] != nil && len(raw.GetSpanId()) > 0 {
					m.count(s.record, ignored, repeated) // its steps joined the first
					continue
				}
				s.kind = kindOf(s)
				spans = append(spans, s)
				byKey[s.key()] = s
			}
		}
	}
	// Steps join their interaction in the order in which they happened.
	slices.SortStableFunc(spans, func(a, b *span) int { return cmp.Compare(a.GetStartTimeUnixNano(), b.GetStartTimeUnixNano()) })
	byTrace := map[string][]*span{} // interactions, by start
	for _, s := range spans {
		if id := s.GetParentSpanId(); len(id) > 0 {
			s.parent = byKey[string(s.GetTraceId())+string(id)]
		}
	}
	for _, s := range spans {
		if s.kind != inference && s.kind != agent {
			continue
		}
		if len(s.GetTraceId()) != 16 || len(s.GetSpanId()) != 8 {
			m.reject(s.record, "a span needs a trace id of 16 bytes and a span id of 8")
			continue
		}
		o := s.origin("span")
		o.talk = talkOf(s.attrs)
		if o.talk.empty() {
			o.talk = talkOfEvents(s.GetEvents())
		}
		if s.kind == agent && o.talk.empty() {
			continue
		}
		s.event, s.calls = m.interaction(o)
		if s.GetStatus().GetCode() == tracev1.Status_STATUS_CODE_ERROR && !s.attrs.has(errorTypeNames) {
			s.event.Tags[errorTypeNames[0]] = "error"
		}
		byTrace[string(s.GetTraceId())] = append(byTrace[string(s.GetTraceId())], s)
	}
	for _, s := range spans {
		if s.kind == tool || s.kind == retrieval {
			s.join(byTrace[string(s.GetTraceId())])
		}
	}
	for _, s := range spans {
		if s.event != nil {
			m.emit(s.event, s.record)
		}
		m.ratingsOf(s)
		m.countSpan(s)
	}
}

func (m *mapper) countSpan(s *span) {
	switch {
	case s.event != nil:
		m.count(s.record, asInteraction, "")
	case s.step:
		m.count(s.record, asStep, "")
	case s.rated:
		m.count(s.record, asFeedback, "")
	case s.kind == tool || s.kind == retrieval:
		m.count(s.record, ignored, orphanStep)
	case s.kind != unknown:
		m.count(s.record, ignored, noContent)
	default:
		m.count(s.record, ignored, notGenAI)
	}
}

func kindOf(s *span) kind {
	a := s.attrs
	if op := a.text(operationNames); op != "" {
		if k, ok := operationKinds[op]; ok {
			return k
		}
		return other
	}
	for _, name := range spanKindNames {
		if k := spanKinds[strings.ToLower(a.text([]string{name}))]; k != unknown {
			return k
		}
	}
	if t := a.text(requestTypes); t != "" {
		if k := spanKinds[strings.ToLower(t)]; k != unknown {
			return k
		}
	}
	switch {
	case a.has(toolMarks):
		return tool
	case a.has(inferenceMarks):
		return inference
	}
	for _, e := range s.GetEvents() {
		switch name := e.GetName(); {
		case name == eventVectorResult:
			return retrieval
		case messageEvents[name] != "" || name == eventChoice || slices.Contains(promptEvents, name):
			return inference
		}
	}
	found := unknown
	for key := range a {
		for _, prefix := range genAIPrefixes {
			if strings.HasPrefix(key, prefix) {
				found = other
			}
		}
		for _, name := range documentLists {
			if strings.HasPrefix(key, name+".") {
				return retrieval
			}
		}
		for _, name := range append(slices.Clone(inputLists), outputLists...) {
			if strings.HasPrefix(key, name+".") {
				return inference
			}
		}
	}
	return found
}

// talkOfEvents reads the messages that stand in a span's events.
func talkOfEvents(list []*tracev1.Span_Event) conversation {
	var c conversation
	for _, e := range list {
		name := e.GetName()
		if slices.Contains(promptEvents, name) {
			c.input = append(c.input, messagesOf(toAny(newAttributes(e.GetAttributes()).get(promptEventNames)), "user")...)
		} else if slices.Contains(completionEvents, name) {
			c.output = append(c.output, messagesOf(toAny(newAttributes(e.GetAttributes()).get(outputEventNames)), "assistant")...)
		} else if name == eventDetails {
			c = talkOf(newAttributes(e.GetAttributes()))
		} else if messageEvents[name] != "" || name == eventChoice {
			c.event(name, nil, newAttributes(e.GetAttributes()))
		}
	}
	return c
}

// event adds what one message event says. The message is its body, or stands in
// its attributes.
func (c *conversation) event(name string, body any, a attributes) {
	role := firstText(messageEvents[name], "assistant")
	m := map[string]any{}
	switch b := body.(type) {
	case map[string]any:
		m = b
	case string:
		if parsed, ok := fromJSON(b, nil).(map[string]any); ok {
			m = parsed
		} else {
			m["content"] = b
		}
	}
	if len(m) == 0 {
		for _, key := range []string{"role", "content", "tool_calls", "id", "finish_reason", "name"} {
			if v := a[key]; v != nil {
				m[key] = structured(toAny(v))
			}
		}
		switch v := structured(toAny(a.get(eventBodyNames))).(type) {
		case map[string]any:
			m = v
		case string:
			m["content"] = v
		}
	}
	if _, ok := m["role"]; !ok {
		m["role"] = role
	}
	out, ok := one(m, role)
	if !ok {
		return
	}
	if name == eventChoice {
		c.output = append(c.output, out)
	} else {
		c.input = append(c.input, out)
	}
}

// structured is v, or what it is in JSON.
func structured(v any) any {
	if s, ok := v.(string); ok {
		return fromJSON(s, v)
	}
	return v
}

// join makes a tool or a retrieval part of its interaction. interactions are
// those of its trace, by start.
func (s *span) join(interactions []*span) {
	target := s.owner()
	if target == nil {
		next := sort.Search(len(interactions), func(i int) bool { return interactions[i].GetStartTimeUnixNano() >= s.GetEndTimeUnixNano() })
		switch {
		case next < len(interactions):
			target = interactions[next]
		case s.kind == tool && next > 0 && interactions[next-1].GetStartTimeUnixNano() <= s.GetStartTimeUnixNano():
			target = interactions[next-1]
		default:
			return
		}
	}
	x := target.event.GetInteraction()
	if s.kind == retrieval {
		documents := s.documents()
		x.Retrieved = append(x.Retrieved, documents...)
		s.step = len(documents) > 0
		return
	}
	t := &eventv1.ToolCall{
		Name:      firstText(s.attrs.text(toolNames), s.GetName()),
		Arguments: s.attrs.text(toolArguments),
		Result:    s.attrs.text(toolResults),
		LatencyMs: milliseconds(s.GetStartTimeUnixNano(), s.GetEndTimeUnixNano()),
	}
	if s.GetStatus().GetCode() == tracev1.Status_STATUS_CODE_ERROR {
		t.Error = firstText(s.GetStatus().GetMessage(), s.attrs.text(errorTypeNames), "error")
	}
	s.step = true
	id := s.attrs.text(toolCallIDs)
	if i, ok := target.calls[id]; ok && id != "" {
		known := x.Tools[i]
		known.Arguments = firstText(known.Arguments, t.Arguments)
		known.Result = firstText(known.Result, t.Result)
		known.Error, known.LatencyMs = t.Error, t.LatencyMs
		return
	}
	if id != "" {
		target.calls[id] = len(x.Tools)
	}
	x.Tools = append(x.Tools, t)
}

// documents are the passages that a retrieval found.
func (s *span) documents() []*eventv1.Retrieved {
	var out []*eventv1.Retrieved
	add := func(source, body string, score any) {
		if source == "" && body == "" {
			return
		}
		r := &eventv1.Retrieved{Source: source, Text: body}
		if x, ok := number(score); ok {
			r.Score = &x
		}
		out = append(out, r)
	}
	source := func(metadata any, id string) string {
		if m, ok := structured(metadata).(map[string]any); ok {
			return firstText(text(member(m, metadataSourceKeys...)), id)
		}
		return id
	}
	for _, name := range documentLists {
		for _, d := range s.attrs.list(name) {
			add(source(toAny(d.get(documentMetadata)), d.text(documentID)), d.text(documentContent), toAny(d.get(documentScore)))
		}
		if len(out) > 0 {
			return out
		}
	}
	if list, ok := structured(toAny(s.attrs.get(documentsNames))).([]any); ok {
		for _, d := range list {
			switch d := d.(type) {
			case string:
				add("", d, nil)
			case map[string]any:
				add(source(d["metadata"], text(member(d, documentIDKeys...))), text(member(d, documentContentKeys...)), d["score"])
			}
		}
	}
	for _, e := range s.GetEvents() {
		if e.GetName() == eventVectorResult {
			d := newAttributes(e.GetAttributes())
			add(source(toAny(d.get(vectorMetadata)), d.text(vectorID)), d.text(vectorContent), toAny(d.get(vectorScore)))
		}
	}
	return out
}

// ratingsOf makes feedback of the evaluations and annotations that a span
// carries.
func (m *mapper) ratingsOf(s *span) {
	rate := func(r rating) {
		if r.failed() {
			return
		}
		s.rated = true
		target := s.owner()
		r.target = r.response
		session := ""
		if target != nil {
			r.target, session = target.event.InteractionId, target.event.SessionId
		}
		if r.target == "" {
			m.reject(s.record, "an evaluation must stand on the span of the model call, or on one below it in the same request, or have gen_ai.response.id")
			return
		}
		o := s.origin(r.part())
		o.end = firstTime(r.time, o.end)
		e, why := m.feedback(o, &r)
		if why != "" {
			m.reject(s.record, why)
			return
		}
		e.SessionId = firstText(session, e.SessionId)
		m.emit(e, s.record)
	}
	for _, e := range s.GetEvents() {
		if e.GetName() == eventEvaluation {
			rate(evaluationOf(newAttributes(e.GetAttributes()), e.GetTimeUnixNano()))
		}
	}
	for _, l := range annotationLists {
		for _, a := range s.attrs.list(l.name) {
			rate(annotationOf(a, l.field))
		}
	}
}

func firstTime(times ...uint64) uint64 { return cmp.Or(times...) }
