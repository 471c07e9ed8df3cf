package otlp

import (
	"cmp"
	"encoding/hex"
	"slices"

	"google.golang.org/protobuf/proto"

	collectorlogs "go.opentelemetry.io/proto/otlp/collector/logs/v1"
	logsv1 "go.opentelemetry.io/proto/otlp/logs/v1"

	"github.com/honeloop/hone/pkg/ids"
)

// record is a log record as it is mapped.
type record struct {
	*logsv1.LogRecord
	place  *place
	attrs  attributes
	name   string
	number int
}

func (r *record) time() uint64 { return firstTime(r.GetTimeUnixNano(), r.GetObservedTimeUnixNano()) }

// part tells log records of one span from each other, by all that they say.
func (r *record) part() (string, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(r.LogRecord)
	return string(b), err
}

// logs maps the log records of a request.
func (m *mapper) logs(req *collectorlogs.ExportLogsServiceRequest) {
	groups := map[string][]*record{} // message events, by their span
	var order []string
	for _, rl := range req.GetResourceLogs() {
		var where *place
		for _, sl := range rl.GetScopeLogs() {
			for _, raw := range sl.GetLogRecords() {
				if where == nil {
					where = m.place(rl.GetResource())
				}
				r := &record{LogRecord: raw, place: where, attrs: newAttributes(raw.GetAttributes()), number: m.record()}
				r.name = firstText(raw.GetEventName(), r.attrs.text([]string{eventNameAttribute}))
				switch {
				case r.name == eventEvaluation:
					m.rate(r)
				case r.name == eventDetails:
					m.talk([]*record{r}, talkOf(r.attrs))
				case messageEvents[r.name] != "" || r.name == eventChoice:
					key := string(raw.GetTraceId()) + string(raw.GetSpanId())
					if groups[key] == nil {
						order = append(order, key)
					}
					groups[key] = append(groups[key], r)
				default:
					m.count(r.number, ignored, notGenAI)
				}
			}
		}
	}
	for _, key := range order {
		records := groups[key]
		slices.SortStableFunc(records, func(a, b *record) int { return cmp.Compare(a.time(), b.time()) })
		var c conversation
		for _, r := range records {
			c.event(r.name, toAny(r.GetBody()), r.attrs)
		}
		m.talk(records, c)
	}
}

// talk makes one interaction of the log records of one model call.
func (m *mapper) talk(records []*record, c conversation) {
	last := records[len(records)-1]
	attrs := attributes{}
	var parts []string
	for _, r := range records {
		for name, v := range r.attrs {
			attrs[name] = v
		}
		part, err := r.part()
		if err != nil {
			m.reject(r.number, "a log record cannot be encoded")
			return
		}
		parts = append(parts, part)
	}
	o := &origin{place: last.place, attrs: attrs, trace: last.GetTraceId(), span: last.GetSpanId(), end: last.time(), part: ids.Derive("log", parts...), identity: identityOf(attrs), talk: c}
	if c.empty() && (last.name != eventDetails || !attrs.has(inferenceMarks)) {
		for _, r := range records {
			m.count(r.number, ignored, noContent)
		}
		return
	}
	e, _ := m.interaction(o)
	if e.InteractionId == "" {
		for _, r := range records {
			m.reject(r.number, "a GenAI event needs the ids of a span, or gen_ai.response.id")
		}
		return
	}
	numbers := make([]int, 0, len(records))
	for _, r := range records {
		m.count(r.number, asInteraction, "")
		numbers = append(numbers, r.number)
	}
	m.emit(e, numbers...)
}

// rate makes feedback of a log record.
func (m *mapper) rate(r *record) {
	rating := evaluationOf(r.attrs, r.time())
	if rating.failed() {
		m.count(r.number, ignored, failedRating)
		return
	}
	rating.target = firstText(rating.response, hex.EncodeToString(r.GetSpanId()))
	if rating.target == "" {
		m.reject(r.number, "an evaluation needs the ids of the span that it is about, or gen_ai.response.id")
		return
	}
	part, err := r.part()
	if err != nil {
		m.reject(r.number, "a log record cannot be encoded")
		return
	}
	o := &origin{place: r.place, attrs: r.attrs, trace: r.GetTraceId(), span: r.GetSpanId(), end: r.time(), part: ids.Derive("log", part), identity: identityOf(r.attrs)}
	e, why := m.feedback(o, &rating)
	if why != "" {
		m.reject(r.number, why)
		return
	}
	e.SessionId = firstText(e.SessionId, e.InteractionId)
	m.count(r.number, asFeedback, "")
	m.emit(e, r.number)
}
