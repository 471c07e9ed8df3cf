package events

import (
	"fmt"

	"github.com/go-json-experiment/json/jsontext"

	"github.com/honeloop/hone/pkg/jsonpb"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
)

// Decoder reads requests that send events. It is safe for concurrent use.
type Decoder struct {
	event    *jsonpb.Decoder
	maxBatch int
}

// NewDecoder makes a decoder.
func NewDecoder(limits Limits) (*Decoder, error) {
	event, err := jsonpb.New((&eventv1.Event{}).ProtoReflect().Descriptor(), limits.Items)
	if err != nil {
		return nil, fmt.Errorf("prepare decoder of events: %w", err)
	}
	return &Decoder{event: event, maxBatch: limits.Batch}, nil
}

// Request is what one request sends: for each event either it or its mistake.
type Request struct {
	Events []*eventv1.Event // nil where the event has a mistake
	Errors []*FieldError    // with paths from the event
	// It was {"events":[…]} and not one event.
	Batch bool
}

// Path puts the place of event i before the path of its mistake.
func (r *Request) Path(i int, err *FieldError) *FieldError {
	if !r.Batch {
		return err
	}
	return err.At(i).In("events")
}

// Decode reads one event, or {"events":[…]}. The error says that the request as
// a whole cannot be read; mistakes inside an event are in Request.Errors.
func (d *Decoder) Decode(data []byte) (*Request, *FieldError) {
	dec := d.event.Reader(data)
	defer d.event.Release(dec)
	switch dec.PeekKind() {
	case '{':
	case 0:
		if len(data) == 0 {
			return nil, fail("", jsonpb.BrokenJSON, `the body is empty: want an event, or {"events":[…]}`)
		}
		_, err := dec.ReadToken()
		return nil, jsonpb.Broken(err)
	default:
		if err := dec.SkipValue(); err != nil {
			return nil, jsonpb.Broken(err)
		}
		return nil, fail("", jsonpb.WrongType, `want one event as an object, or {"events":[…]}`)
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, jsonpb.Broken(err)
	}
	if dec.PeekKind() == '"' {
		name, err := dec.ReadToken()
		if err != nil {
			return nil, jsonpb.Broken(err)
		}
		if name.String() == "events" {
			return d.batch(dec)
		}
	}
	d.event.Rewind(dec, data)
	return d.single(dec)
}

func (d *Decoder) single(dec *jsontext.Decoder) (*Request, *FieldError) {
	req := &Request{}
	if err := d.next(dec, req); err != nil {
		return nil, err
	}
	if err := jsonpb.End(dec); err != nil {
		return nil, err
	}
	return req, nil
}

func (d *Decoder) next(dec *jsontext.Decoder, req *Request) *FieldError {
	e := new(eventv1.Event)
	err := d.event.DecodeNext(dec, e)
	if err != nil {
		if err.Reason == jsonpb.BrokenJSON {
			return err
		}
		e = nil
	}
	req.Events = append(req.Events, e)
	req.Errors = append(req.Errors, err)
	return nil
}

// batch reads what follows {"events".
func (d *Decoder) batch(dec *jsontext.Decoder) (*Request, *FieldError) {
	req := &Request{Batch: true}
	if dec.PeekKind() != '[' {
		if err := dec.SkipValue(); err != nil {
			return nil, jsonpb.Broken(err).In("events")
		}
		return nil, fail("events", jsonpb.WrongType, "want a list of events")
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, jsonpb.Broken(err).In("events")
	}
	for dec.PeekKind() != ']' {
		if len(req.Events) >= d.maxBatch {
			return nil, fail("events", jsonpb.TooMany, fmt.Sprintf("want at most %d events in one request", d.maxBatch))
		}
		if err := d.next(dec, req); err != nil {
			return nil, req.Path(len(req.Events), err)
		}
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, jsonpb.Broken(err).In("events")
	}
	if dec.PeekKind() == '"' {
		name, err := dec.ReadToken()
		if err != nil {
			return nil, jsonpb.Broken(err)
		}
		return nil, fail("", jsonpb.UnknownField, `nothing may stand beside "events"`).Key(name.String())
	}
	if _, err := dec.ReadToken(); err != nil {
		return nil, jsonpb.Broken(err)
	}
	if err := jsonpb.End(dec); err != nil {
		return nil, err
	}
	if len(req.Events) == 0 {
		return nil, fail("events", Missing, "want at least one event")
	}
	return req, nil
}
