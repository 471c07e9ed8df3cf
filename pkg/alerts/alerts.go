// Package alerts is what travels on hone.alerts: CloudEvents in structured
// JSON that say that an alert opened or is resolved. deploy/schemas describes
// them for readers outside.
package alerts

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/honeloop/hone/pkg/ids"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
)

// EventType is the type of an alert's CloudEvent.
const EventType = "hone.alert.v1"

// Sources of alerts.
const (
	SourceTrend  = "/hone/enricher"
	SourcePolicy = "/hone/router"
)

// States of an alert.
const (
	Open     = "open"
	Resolved = "resolved"
)

// contentType of a record, in its header.
const contentType = "application/cloudevents+json"

// Alert is an alert as one event tells of it. It must not hold text of users:
// it goes to webhooks.
type Alert struct {
	ProjectID string `json:"project_id"`
	// The same from opening to resolution; see ID.
	AlertID string `json:"alert_id"`
	// Of the alert in the project's settings, or of the policy's rule.
	Name  string `json:"name"`
	State string `json:"state"`
	// "low", "medium", "high", "critical", or empty.
	Severity string `json:"severity,omitempty"`
	// What happened, in a sentence.
	Summary string `json:"summary"`
	// One of the two is set, by which the source goes.
	Trend  *Trend  `json:"trend,omitempty"`
	Policy *Policy `json:"policy,omitempty"`
	Links  Links   `json:"links"`

	// When it got into this state.
	At time.Time `json:"-"`
}

// Trend is what a trend's alert saw.
type Trend struct {
	// Such as "dissatisfaction" or "category:outdated".
	Metric string `json:"metric"`
	// Only interactions with these values of dimensions.
	Filter map[string]string `json:"filter,omitempty"`
	// Such as "above 0.2" or "change".
	Condition string `json:"condition"`
	// The rate in the window, and its 95 % interval.
	Value float64 `json:"value"`
	Low   float64 `json:"low"`
	High  float64 `json:"high"`
	// The rate before a change; nil for thresholds.
	Before *float64 `json:"before,omitempty"`
	// How many the rate is of.
	Count int64     `json:"count"`
	From  time.Time `json:"from"`
	To    time.Time `json:"to"`
}

// Policy is the decision that alerted.
type Policy struct {
	PolicyVersion  string `json:"policy_version"`
	Rule           string `json:"rule"`
	Reason         string `json:"reason"`
	DecisionID     string `json:"decision_id"`
	SignalID       string `json:"signal_id"`
	SignalRevision uint32 `json:"signal_revision"`
	SessionID      string `json:"session_id"`
	CaseID         string `json:"case_id,omitempty"`
}

// Links are paths of the API.
type Links struct {
	Trail string `json:"trail,omitempty"`
	Case  string `json:"case,omitempty"`
	Trend string `json:"trend,omitempty"`
}

// ID is the id of an alert: what it is about, such as the decision, or the
// name and the window in which it opened.
func ID(project string, about ...string) string {
	return ids.Derive("al", append([]string{project}, about...)...)
}

// EventID is the id of the alert's event, one for each state: an event that is
// published again has it again.
func (a *Alert) EventID() string { return ids.Derive("ae", a.ProjectID, a.AlertID, a.State) }

// Validate joins what is missing.
func (a *Alert) Validate() error {
	var errs []error
	check := func(ok bool, message string) {
		if !ok {
			errs = append(errs, errors.New(message))
		}
	}
	check(a.ProjectID != "", "project_id: missing")
	check(a.AlertID != "", "alert_id: missing")
	check(a.Name != "", "name: missing")
	check(a.State == Open || a.State == Resolved, "state: want open or resolved")
	check(a.Summary != "", "summary: missing")
	check((a.Trend == nil) != (a.Policy == nil), "trend, policy: want one of them")
	check(!a.At.IsZero(), "time: missing")
	return errors.Join(errs...)
}

// envelope is a CloudEvent in structured JSON. The alert is its data.
type envelope struct {
	SpecVersion     string          `json:"specversion"`
	ID              string          `json:"id"`
	Source          string          `json:"source"`
	Type            string          `json:"type"`
	Subject         string          `json:"subject"`
	Time            time.Time       `json:"time"`
	DataContentType string          `json:"datacontenttype"`
	Project         string          `json:"honeproject"`
	Data            json.RawMessage `json:"data"`
}

// Record is the alert's record on hone.alerts. Its key is the project: the
// alerts of one project are in order.
func (a *Alert) Record() (stage.Record, error) {
	if err := a.Validate(); err != nil {
		return stage.Record{}, fmt.Errorf("alert %s: %w", a.Name, err)
	}
	data, err := marshal(a)
	if err != nil {
		return stage.Record{}, fmt.Errorf("encode alert %s: %w", a.Name, err)
	}
	source := SourceTrend
	if a.Policy != nil {
		source = SourcePolicy
	}
	value, err := marshal(envelope{
		SpecVersion: "1.0", ID: a.EventID(), Source: source, Type: EventType, Subject: a.AlertID,
		Time: a.At.UTC(), DataContentType: "application/json", Project: a.ProjectID, Data: data,
	})
	if err != nil {
		return stage.Record{}, fmt.Errorf("encode alert %s: %w", a.Name, err)
	}
	return stage.Record{
		Topic: stream.TopicAlerts, Key: []byte(a.ProjectID), Value: value,
		Headers: []stage.Header{{Key: "content-type", Value: []byte(contentType)}},
	}, nil
}

// Parse reads the value of a record on hone.alerts.
func Parse(value []byte) (*Alert, error) {
	var e envelope
	if err := json.Unmarshal(value, &e); err != nil {
		return nil, fmt.Errorf("read alert: %w", err)
	}
	if e.Type != EventType {
		return nil, fmt.Errorf("read alert: type %q, want %s", e.Type, EventType)
	}
	a := &Alert{}
	if err := json.Unmarshal(e.Data, a); err != nil {
		return nil, fmt.Errorf("read alert: data: %w", err)
	}
	a.At = e.Time
	if err := a.Validate(); err != nil {
		return nil, fmt.Errorf("read alert: %w", err)
	}
	if e.ID != a.EventID() {
		return nil, fmt.Errorf("read alert: id %q, want that of its state, %s", e.ID, a.EventID())
	}
	return a, nil
}

// marshal is json.Marshal that leaves <, > and & readable.
func marshal(v any) ([]byte, error) {
	var buf bytes.Buffer
	enc := json.NewEncoder(&buf)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSpace(buf.Bytes()), nil
}
