// Package events says what an event may be, and reads events from JSON.
package events

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/honeloop/hone/pkg/ids"
	"github.com/honeloop/hone/pkg/jsonpb"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
)

// FieldError is a mistake in an event; see jsonpb.
type FieldError = jsonpb.FieldError

// The types of events.
const (
	TypeInteraction = "interaction"
	TypeFeedback    = "feedback"
	TypeBehavior    = "behavior"
	TypeTimer       = "timer" // written by the pipeline alone
)

// The ways an event can come.
const (
	SourceHTTP   = "http"
	SourceGRPC   = "grpc"
	SourceOTLP   = "otlp"
	SourceImport = "import"
)

// The reasons that validation gives, beside those of jsonpb.
const (
	Missing      jsonpb.Reason = "missing"
	InvalidValue jsonpb.Reason = "invalid_value"
	TooLong      jsonpb.Reason = "too_long"
	ClockSkew    jsonpb.Reason = "clock_skew"
	NotAllowed   jsonpb.Reason = "not_allowed"
	TooLarge     jsonpb.Reason = "too_large"
)

// Accept makes an event that came from outside one that may go to Kafka: it
// checks the event, gives it an id where it has none, and sets its project, its
// source and its times. source is the way it came; an event may say "import"
// itself. It returns the event's encoding.
//
// The id is derived from what the emitter wrote, before anything that depends on
// when or how it came, so that sending the same again makes the same id.
func Accept(e *eventv1.Event, project, source string, now time.Time, limits Limits) ([]byte, *FieldError) {
	if err := Validate(e, now, limits); err != nil {
		return nil, err
	}
	switch {
	case e.ProjectId != "" && e.ProjectId != project:
		return nil, fail("project_id", NotAllowed, "the key belongs to another project: leave this out")
	case e.ReceivedAt != nil:
		return nil, fail("received_at", NotAllowed, "the collector sets this: leave it out")
	case e.Source == SourceImport:
		source = SourceImport
	case e.Source != "":
		return nil, fail("source", NotAllowed, `the collector sets this: leave it out, or say "import"`)
	}
	e.ProjectId, e.Source = project, ""
	if e.EventId == "" {
		content, err := proto.MarshalOptions{Deterministic: true}.Marshal(e)
		if err != nil {
			return nil, fail("", InvalidValue, "the event cannot be encoded: "+err.Error())
		}
		e.EventId = ids.Derive("ev", project, string(content))
	}
	e.Source, e.ReceivedAt = source, timestamppb.New(now)
	if e.OccurredAt == nil {
		e.OccurredAt = e.ReceivedAt
	}
	value, err := proto.Marshal(e)
	if err != nil {
		return nil, fail("", InvalidValue, "the event cannot be encoded: "+err.Error())
	}
	if len(value) > limits.EventBytes {
		return nil, fail("", TooLarge, fmt.Sprintf("the event has %d bytes, want at most %d", len(value), limits.EventBytes))
	}
	return value, nil
}

func fail(field string, reason jsonpb.Reason, message string) *FieldError {
	return &FieldError{Field: field, Reason: reason, Message: message}
}
