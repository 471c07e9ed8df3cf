package collector

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/honeloop/hone/pkg/stage"
)

// refusedFile keeps events that were accepted and that Kafka then refused for
// good, for people to look at: a line of JSON for each.
type refusedFile struct {
	path     string
	maxBytes int64 // beyond them no more fit in
}

// refusedLine is one line. Bytes are in base64.
type refusedLine struct {
	Time  time.Time `json:"time"` // of the record
	Topic string    `json:"topic"`
	Key   string    `json:"key"`
	Cause string    `json:"cause"`
	Value []byte    `json:"value"` // as it would have been in Kafka
}

// add returns nil once the record is on disk. A crash may make it come twice.
func (r refusedFile) add(rec *stage.Record, cause error) (err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("set aside a refused event: %w", err)
		}
	}()
	line, err := json.Marshal(refusedLine{rec.Time.UTC(), rec.Topic, string(rec.Key), cause.Error(), rec.Value})
	if err != nil {
		return err
	}
	f, err := os.OpenFile(r.path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size()+int64(len(line)) > r.maxBytes {
		return fmt.Errorf("%s is full: move it away", r.path)
	}
	if _, err := f.Write(append(line, '\n')); err != nil {
		return errors.Join(err, f.Truncate(info.Size()))
	}
	return f.Sync()
}
