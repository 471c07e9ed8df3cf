package stream

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/honeloop/hone/pkg/stage"
)

// Headers that a dead letter has before the record's own ones.
const (
	headerTopic     = "hone-topic"
	headerPartition = "hone-partition"
	headerOffset    = "hone-offset"
	headerStage     = "hone-stage"
	headerAttempts  = "hone-attempts"
	headerCause     = "hone-cause"
	headerFailedAt  = "hone-failed-at"

	// maxCause bounds the cause that travels with a dead letter, in bytes.
	maxCause = 4096
)

// DeadLetter is a record that a stage cannot process, as it was, and why.
type DeadLetter struct {
	// Record has the original topic, partition, offset, key, value and headers.
	// Its time is that of the dead letter.
	Record   stage.Record
	Stage    string
	Attempts int
	Cause    string
	FailedAt time.Time
}

// record is what goes to the dead letter topic.
func (d DeadLetter) record() stage.Record {
	cause := d.Cause
	if len(cause) > maxCause {
		cause = fmt.Sprintf("%s … (%d bytes more)", strings.ToValidUTF8(cause[:maxCause], ""), len(cause)-maxCause)
	}
	header := func(k, v string) stage.Header { return stage.Header{Key: k, Value: []byte(v)} }
	headers := []stage.Header{
		header(headerTopic, d.Record.Topic),
		header(headerPartition, strconv.Itoa(d.Record.Partition)),
		header(headerOffset, strconv.FormatInt(d.Record.Offset, 10)),
		header(headerStage, d.Stage),
		header(headerAttempts, strconv.Itoa(d.Attempts)),
		header(headerCause, cause),
		header(headerFailedAt, d.FailedAt.UTC().Format(time.RFC3339Nano)),
	}
	return stage.Record{
		Topic:   TopicDeadLetter,
		Key:     d.Record.Key,
		Value:   d.Record.Value,
		Headers: append(headers, d.Record.Headers...),
	}
}

// ParseDeadLetter reads a record of hone.dead-letter.
func ParseDeadLetter(rec stage.Record) (DeadLetter, error) {
	names := []string{headerTopic, headerPartition, headerOffset, headerStage, headerAttempts, headerCause, headerFailedAt}
	if len(rec.Headers) < len(names) {
		return DeadLetter{}, fmt.Errorf("parse dead letter: %d headers, want at least %d", len(rec.Headers), len(names))
	}
	// They come first and in order: a record that failed once more has them
	// again among its own.
	values := make([]string, len(names))
	for i, name := range names {
		if rec.Headers[i].Key != name {
			return DeadLetter{}, fmt.Errorf("parse dead letter: header %d is %q, want %q", i, rec.Headers[i].Key, name)
		}
		values[i] = string(rec.Headers[i].Value)
	}
	partition, err1 := strconv.Atoi(values[1])
	offset, err2 := strconv.ParseInt(values[2], 10, 64)
	attempts, err3 := strconv.Atoi(values[4])
	failedAt, err4 := time.Parse(time.RFC3339Nano, values[6])
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		return DeadLetter{}, fmt.Errorf("parse dead letter: %w", err)
	}
	return DeadLetter{
		Record: stage.Record{
			Topic: values[0], Partition: partition, Offset: offset,
			Key: rec.Key, Value: rec.Value, Headers: rec.Headers[len(names):], Time: rec.Time,
		},
		Stage: values[3], Attempts: attempts, Cause: values[5], FailedAt: failedAt,
	}, nil
}
