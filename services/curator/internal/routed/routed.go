// Package routed reads what the router writes on the hone.route.* topics.
package routed

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/honeloop/hone/pkg/clickhouse"
	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"
)

// The types of the CloudEvents.
const (
	TypeRouted    = "hone.route.v1"
	TypeWithdrawn = "hone.route.withdrawn.v1"
)

// PriorityNormal is between low and high; above high there is urgent.
const PriorityNormal = "normal"

// Event is one decision of the router for one route, or its withdrawal.
type Event struct {
	ProjectID  string
	DecisionID string
	SignalID   string
	// Revision of the signal: with a withdrawal, the one that withdrew.
	Revision uint32
	CaseID   string
	Route    string
	Reason   string
	// Normal in decisions from before there were priorities.
	Priority  string
	Withdrawn bool
	// The router's time.
	Time time.Time
	// Nil with a withdrawal.
	Signal *signalv1.Signal
	// Nil where the signal has no case, and with a withdrawal.
	Case *casesv1.Case
	// Parts of signal and case that were too large to come along, as paths such
	// as "signal.interaction".
	Omitted []string
}

type envelope struct {
	SpecVersion string    `json:"specversion"`
	Type        string    `json:"type"`
	Time        time.Time `json:"time"`
	Project     string    `json:"honeproject"`
	Data        struct {
		ProjectID      string          `json:"project_id"`
		DecisionID     string          `json:"decision_id"`
		SignalID       string          `json:"signal_id"`
		SignalRevision uint32          `json:"signal_revision"`
		CaseID         string          `json:"case_id"`
		Route          string          `json:"route"`
		Reason         string          `json:"reason"`
		Priority       string          `json:"priority"`
		Signal         json.RawMessage `json:"signal"`
		Case           json.RawMessage `json:"case"`
		Omitted        []string        `json:"omitted"`
	} `json:"data"`
}

// Parse reads a structured CloudEvent in JSON. An error means that the value
// can never be processed; it does not contain users' text.
func Parse(value []byte) (*Event, error) {
	var env envelope
	if err := json.Unmarshal(value, &env); err != nil {
		return nil, fmt.Errorf("parse CloudEvent: %w", err)
	}
	d := &env.Data
	e := &Event{
		ProjectID: d.ProjectID, DecisionID: d.DecisionID, SignalID: d.SignalID, Revision: d.SignalRevision,
		CaseID: d.CaseID, Route: d.Route, Reason: d.Reason, Priority: cmp.Or(d.Priority, PriorityNormal), Time: env.Time, Withdrawn: env.Type == TypeWithdrawn,
		Omitted: d.Omitted,
	}
	var errs []error
	if env.SpecVersion != "1.0" {
		errs = append(errs, fmt.Errorf("specversion: %q, want 1.0", env.SpecVersion))
	}
	if env.Type != TypeRouted && env.Type != TypeWithdrawn {
		errs = append(errs, fmt.Errorf("type: %q, want %s or %s", env.Type, TypeRouted, TypeWithdrawn))
	}
	if err := clickhouse.CheckTime(env.Time); err != nil {
		errs = append(errs, fmt.Errorf("time: %w", err))
	}
	if d.ProjectID == "" {
		errs = append(errs, errors.New("data.project_id: missing"))
	}
	if env.Project != "" && env.Project != d.ProjectID {
		errs = append(errs, errors.New("honeproject: not the project of data.project_id"))
	}
	if d.SignalID == "" {
		errs = append(errs, errors.New("data.signal_id: missing"))
	}
	if d.SignalRevision == 0 {
		errs = append(errs, errors.New("data.signal_revision: missing"))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("parse CloudEvent: %w", err)
	}
	if e.Withdrawn {
		return e, nil
	}
	if err := e.parseContent(d.Signal, d.Case); err != nil {
		return nil, fmt.Errorf("parse CloudEvent: %w", err)
	}
	return e, nil
}

func (e *Event) parseContent(signal, kase json.RawMessage) error {
	e.Signal = &signalv1.Signal{}
	if err := unmarshal(signal, e.Signal); err != nil {
		return fmt.Errorf("data.signal: %w", err)
	}
	if e.Signal.GetSignalId() != e.SignalID || e.Signal.GetProjectId() != e.ProjectID {
		return errors.New("data.signal: not the signal of data.signal_id and data.project_id")
	}
	if t := e.Signal.GetOccurredAt(); t != nil {
		if err := clickhouse.CheckTime(t.AsTime()); err != nil {
			return fmt.Errorf("data.signal.occurred_at: %w", err)
		}
	}
	if t := e.Signal.GetSessionStartedAt(); t != nil {
		if err := clickhouse.CheckTime(t.AsTime()); err != nil {
			return fmt.Errorf("data.signal.session_started_at: %w", err)
		}
	}
	if len(kase) == 0 || string(kase) == "null" {
		return nil
	}
	e.Case = &casesv1.Case{}
	if err := unmarshal(kase, e.Case); err != nil {
		return fmt.Errorf("data.case: %w", err)
	}
	return nil
}

// unmarshal drops protojson's own error, which can quote the value.
func unmarshal(data []byte, m proto.Message) error {
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(data, m); err != nil {
		return fmt.Errorf("not a %s as JSON", m.ProtoReflect().Descriptor().FullName())
	}
	return nil
}
