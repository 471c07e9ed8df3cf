package router

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"github.com/cloudevents/sdk-go/v2/event"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/honeloop/hone/pkg/alerts"
	"github.com/honeloop/hone/pkg/ids"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
)

// CloudEvents on the route topics. deploy/schemas describes them.
const (
	// EventRouted says that a signal goes this way.
	EventRouted = "hone.route.v1"
	// EventWithdrawn says that it no longer does.
	EventWithdrawn = "hone.route.withdrawn.v1"

	eventSource = "/hone/router"
)

// maxEvent bounds the JSON of an event in bytes: a record may have 1,000,000
// with its key and headers.
const maxEvent = 980_000

// RouteData is the data of an EventRouted.
type RouteData struct {
	ProjectID string `json:"project_id"`
	Route     string `json:"route"`
	Reason    string `json:"reason"`
	Rule      string `json:"rule"`
	// Empty in decisions from before there were priorities.
	Priority       string `json:"priority,omitempty"`
	PolicyVersion  string `json:"policy_version"`
	DecisionID     string `json:"decision_id"`
	SignalID       string `json:"signal_id"`
	SignalRevision uint32 `json:"signal_revision"`
	// Empty where the signal belongs to no case.
	CaseID string     `json:"case_id,omitempty"`
	Links  EventLinks `json:"links"`
	// Fields that were left out to keep the event small enough for Kafka, as
	// paths such as "signal.interaction.retrieved". The trail has them.
	Omitted []string `json:"omitted,omitempty"`
	// hone.signal.v1.Signal and hone.cases.v1.Case as JSON. The case is as it
	// stood when the event was written.
	Signal json.RawMessage `json:"signal,omitempty"`
	Case   json.RawMessage `json:"case,omitempty"`
}

// EventLinks are paths of the API.
type EventLinks struct {
	Trail string `json:"trail"`
	Case  string `json:"case,omitempty"`
}

// WithdrawnData is the data of an EventWithdrawn.
type WithdrawnData struct {
	ProjectID string `json:"project_id"`
	Route     string `json:"route"`
	Reason    string `json:"reason"`
	// The decision that no longer holds.
	DecisionID string `json:"decision_id"`
	SignalID   string `json:"signal_id"`
	// The revision that made it so.
	SignalRevision uint32     `json:"signal_revision"`
	Links          EventLinks `json:"links"`
}

// output is what one input causes.
type output struct {
	records []stage.Record
	// Fields that were left out of the events.
	omitted []string
	// Headers of each record.
	headers []stage.Header
}

// routed adds an event for each route of a decision.
func (o *output) routed(d *saved, cs *casesv1.CaseSignal) error {
	for _, route := range d.Routes {
		if route == RouteAlert {
			if err := o.alert(d, d, alerts.Open); err != nil {
				return err
			}
			continue
		}
		value, omitted, err := routedEvent(d, cs, route)
		if err != nil {
			return err
		}
		o.add(d, route, value)
		o.omitted = append(o.omitted, omitted...)
	}
	return nil
}

// withdrawn adds the event that takes a decision's route back. by is the
// decision that replaced it.
func (o *output) withdrawn(d, by *saved, route string) error {
	if route == RouteAlert {
		return o.alert(d, by, alerts.Resolved)
	}
	reason := "The signal changed, and the new decision no longer sends it here: " + by.Reason
	if by.Rule == RuleWithdrawn {
		reason = by.Reason
	}
	value, err := cloudEvent(d, by, EventWithdrawn, route, WithdrawnData{
		ProjectID: d.ProjectId, Route: route, Reason: reason, DecisionID: d.DecisionId, SignalID: d.SignalId,
		SignalRevision: by.SignalRevision, Links: links(d),
	})
	if err != nil {
		return err
	}
	o.add(d, route, value)
	return nil
}

// alert says that decision d alerts, or no longer does, by decision by. A
// signal alerts once for each rule, however often it changes.
func (o *output) alert(d, by *saved, state string) error {
	l := links(d)
	a := &alerts.Alert{
		ProjectID: d.ProjectId, AlertID: alerts.ID(d.ProjectId, d.SignalId, d.place(RouteAlert)), Name: d.Rule, State: state,
		Severity: d.row.Severity, Summary: by.Reason, At: by.GetDecidedAt().AsTime(),
		Policy: &alerts.Policy{PolicyVersion: d.PolicyVersion, Rule: d.Rule, Reason: d.Reason, DecisionID: d.DecisionId,
			SignalID: d.SignalId, SignalRevision: d.SignalRevision, SessionID: d.SessionId, CaseID: d.CaseId},
		Links: alerts.Links{Trail: l.Trail, Case: l.Case},
	}
	rec, err := a.Record()
	if err != nil {
		return err
	}
	rec.Headers = o.headers
	o.records = append(o.records, rec)
	return nil
}

// place is where a route of the decision shows: each rule has its own alert.
func (s *saved) place(route string) string {
	if route == RouteAlert {
		return RouteAlert + "/" + s.Rule
	}
	return route
}

func (o *output) add(d *saved, route string, value []byte) {
	o.records = append(o.records, stage.Record{
		Topic:   stream.RouteTopic(route),
		Key:     stream.SessionKey(d.ProjectId, d.SessionId),
		Value:   value,
		Headers: o.headers,
	})
}

// routedEvent makes an event of at most maxEvent bytes, and says what it had to
// leave out.
func routedEvent(d *saved, cs *casesv1.CaseSignal, route string) (value []byte, omitted []string, err error) {
	data := RouteData{
		ProjectID: d.ProjectId, Route: route, Reason: d.Reason, Rule: d.Rule, Priority: d.Priority, PolicyVersion: d.PolicyVersion,
		DecisionID: d.DecisionId, SignalID: d.SignalId, SignalRevision: d.SignalRevision, CaseID: d.CaseId,
		Links: links(d),
	}
	kept := &casesv1.CaseSignal{Signal: cs.GetSignal(), Case: cs.GetCase()}
	// What goes first is what a reader misses least. What is left are ids.
	drops := []string{
		"signal.interaction.retrieved", "signal.preferred.retrieved", "signal.interaction.tools", "signal.preferred.tools",
		"case.examples", "case.complaints", "signal.interaction.system_context", "signal.preferred.system_context",
		"signal.evidence", "case", "signal.interaction", "signal.preferred", "signal.tags", "signal.edits",
		"signal.categories", "signal.comment", "signal.correction",
	}
	for {
		if data.Signal, err = toJSON(kept.Signal, kept.Signal != nil); err != nil {
			return nil, nil, err
		}
		if data.Case, err = toJSON(kept.Case, kept.Case != nil); err != nil {
			return nil, nil, err
		}
		if value, err = cloudEvent(d, d, EventRouted, route, data); err != nil {
			return nil, nil, err
		}
		if len(value) <= maxEvent {
			return value, data.Omitted, nil
		}
		if len(data.Omitted) == 0 {
			kept = proto.CloneOf(kept) // the input is not ours to change
		}
		dropped := false
		for len(drops) > 0 && !dropped {
			if dropped = clearField(kept.ProtoReflect(), drops[0]); dropped {
				data.Omitted = append(data.Omitted, drops[0])
			}
			drops = drops[1:]
		}
		if !dropped {
			return nil, nil, fmt.Errorf("event of signal %s has %d bytes without its content, more than %d: its ids are too long", d.SignalId, len(value), maxEvent)
		}
	}
}

// cloudEvent is about decision d, caused by decision by.
func cloudEvent(d, by *saved, kind, route string, data any) ([]byte, error) {
	payload, err := marshal(data)
	if err != nil {
		return nil, err
	}
	e := event.New()
	e.SetID(ids.Derive("re", d.DecisionId, route, kind))
	e.SetSource(eventSource)
	e.SetType(kind)
	e.SetSubject(d.SignalId)
	e.SetTime(by.GetDecidedAt().AsTime())
	e.SetExtension("honeproject", d.ProjectId)
	e.SetExtension("honesession", d.SessionId)
	if err := e.SetData(event.ApplicationJSON, payload); err != nil {
		return nil, fmt.Errorf("encode event of signal %s: %w", d.SignalId, err)
	}
	e.DataBase64 = false // bytes are taken as they are, but for binary
	if err := e.Validate(); err != nil {
		return nil, fmt.Errorf("event of signal %s: %w", d.SignalId, err)
	}
	var buf bytes.Buffer
	if err := event.WriteJson(&e, &buf); err != nil {
		return nil, fmt.Errorf("encode event of signal %s: %w", d.SignalId, err)
	}
	return buf.Bytes(), nil
}

// eventHeaders are the headers of events that an input causes: its trace goes on.
func eventHeaders(in stage.Record) []stage.Header {
	out := []stage.Header{{Key: "content-type", Value: []byte(event.ApplicationCloudEventsJSON)}}
	for _, h := range in.Headers {
		if h.Key == "traceparent" || h.Key == "tracestate" {
			out = append(out, stage.Header{Key: h.Key, Value: bytes.Clone(h.Value)})
		}
	}
	return out
}

func links(d *saved) EventLinks {
	l := EventLinks{Trail: "/v1/sessions/" + url.PathEscape(d.SessionId)}
	if d.CaseId != "" {
		l.Case = "/v1/cases/" + url.PathEscape(d.CaseId)
	}
	return l
}

func toJSON(m proto.Message, set bool) (json.RawMessage, error) {
	if !set {
		return nil, nil
	}
	data, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode %T: %w", m, err)
	}
	return data, nil
}

// marshal is json.Marshal that leaves <, > and & readable. It also takes out
// the random spaces of protojson.
func marshal(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, fmt.Errorf("encode %T: %w", v, err)
	}
	return bytes.TrimSpace(buf.Bytes()), nil
}

// clearField clears a field of a message by its path. false means that there
// was nothing to clear.
func clearField(m protoreflect.Message, path string) bool {
	name, rest, deeper := strings.Cut(path, ".")
	fd := m.Descriptor().Fields().ByName(protoreflect.Name(name))
	if fd == nil || !m.Has(fd) {
		return false
	}
	if deeper {
		return clearField(m.Mutable(fd).Message(), rest)
	}
	m.Clear(fd)
	return true
}
