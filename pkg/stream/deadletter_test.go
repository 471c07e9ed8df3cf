package stream

import (
	"encoding/binary"
	"reflect"
	"testing"
	"time"

	"github.com/honeloop/hone/pkg/stage"
)

// packHeaders and unpackHeaders are how a fuzzer sees headers: strings, each
// after its length in two bytes, keys and values in turn.
func packHeaders(headers []stage.Header) (out []byte) {
	for _, h := range headers {
		for _, s := range []string{h.Key, string(h.Value)} {
			out = append(binary.BigEndian.AppendUint16(out, uint16(len(s))), s...)
		}
	}
	return out
}

func unpackHeaders(b []byte) (out []stage.Header) {
	next := func() ([]byte, bool) {
		if len(b) < 2 {
			return nil, false
		}
		n := min(int(binary.BigEndian.Uint16(b)), len(b)-2)
		s := b[2 : 2+n]
		b = b[2+n:]
		return s, true
	}
	for {
		key, ok := next()
		if !ok {
			return out
		}
		value, ok := next()
		if !ok {
			return out
		}
		out = append(out, stage.Header{Key: string(key), Value: value})
	}
}

// What is parsed and written again is the same dead letter.
func FuzzParseDeadLetter(f *testing.F) {
	letter := DeadLetter{
		Record: stage.Record{
			Topic: TopicEvents, Partition: 2, Offset: 7, Key: []byte("p/s"), Value: []byte("{"),
			Headers: []stage.Header{{Key: "traceparent", Value: []byte("00-1")}},
		},
		Stage: "enricher", Attempts: 3, Cause: "not an event", FailedAt: time.Unix(1_700_000_000, 123),
	}
	once := letter.record()
	again := DeadLetter{Record: once, Stage: "embedder", FailedAt: letter.FailedAt}.record()
	f.Add(packHeaders(once.Headers), once.Value)
	f.Add(packHeaders(again.Headers), again.Value)
	f.Add(packHeaders(once.Headers[:6]), []byte(nil))
	f.Fuzz(func(t *testing.T, packed, value []byte) {
		rec := stage.Record{Topic: TopicDeadLetter, Value: value, Headers: unpackHeaders(packed)}
		d, err := ParseDeadLetter(rec)
		if err != nil {
			return
		}
		if len(d.Cause) > maxCause || d.FailedAt.UTC().Year() > 9999 || d.FailedAt.UTC().Year() < 0 {
			return // shortened when written, or no time that we write
		}
		got, err := ParseDeadLetter(d.record())
		if err != nil {
			t.Fatalf("parse what was written: %v", err)
		}
		if !got.FailedAt.Equal(d.FailedAt) {
			t.Errorf("failed at %s, want %s", got.FailedAt, d.FailedAt)
		}
		got.FailedAt = d.FailedAt
		if len(got.Record.Headers) == 0 && len(d.Record.Headers) == 0 {
			got.Record.Headers, d.Record.Headers = nil, nil
		}
		if !reflect.DeepEqual(got, d) {
			t.Errorf("got %+v, want %+v", got, d)
		}
	})
}
