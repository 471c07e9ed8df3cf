// Package dataset writes examples in the formats of trainers.
//
// The formats are those of TRL, conversational: "sft" is {"messages": […]},
// "dpo" is {"prompt": […], "chosen": […], "rejected": […]}, one example a line.
package dataset

import (
	"bytes"
	"encoding/json"
	"fmt"

	curationv1 "github.com/honeloop/hone/proto/gen/go/hone/curation/v1"
)

// Formats.
const (
	SFT = "sft"
	DPO = "dpo"
)

type message struct {
	Role    string `json:"role"`
	Content string `json:"content"`
}

type sft struct {
	Messages []message `json:"messages"`
}

type dpo struct {
	Prompt   []message `json:"prompt"`
	Chosen   []message `json:"chosen"`
	Rejected []message `json:"rejected"`
}

// Counts say what became of the examples.
type Counts struct {
	Rows int
	// Left out of "dpo": nothing to prefer the answer to.
	NoRejected int
	// Left out: a reviewer gave the answer for the same signal.
	Superseded int
}

// Writer turns examples into JSON Lines. Examples of one signal come one after
// another. Where a reviewer gave the answer for a signal, what the user said
// about it is left out, unless All is set.
type Writer struct {
	Format string
	// All keeps what reviewers replaced.
	All bool
	// Emit gets whole lines, each with its newline, once there are at least
	// ChunkBytes of them. It must not keep the bytes.
	Emit       func(lines []byte) error
	ChunkBytes int

	Counts Counts

	buf     bytes.Buffer
	held    []*curationv1.DatasetRow // of one signal
	encoder *json.Encoder
}

// ReviewSource is the source of reviewers' examples.
const ReviewSource = "review"

// Add takes the next example.
func (w *Writer) Add(row *curationv1.DatasetRow) error {
	if len(w.held) > 0 && w.held[0].GetSignalId() != row.GetSignalId() {
		if err := w.release(); err != nil {
			return err
		}
	}
	w.held = append(w.held, row)
	return nil
}

// Close writes what is left.
func (w *Writer) Close() error {
	if err := w.release(); err != nil {
		return err
	}
	return w.flush()
}

// release writes the examples of one signal.
func (w *Writer) release() error {
	reviewed := false
	for _, row := range w.held {
		reviewed = reviewed || row.GetSource() == ReviewSource
	}
	for _, row := range w.held {
		if reviewed && !w.All && row.GetSource() != ReviewSource {
			w.Counts.Superseded++
			continue
		}
		if err := w.write(row); err != nil {
			return err
		}
	}
	clear(w.held)
	w.held = w.held[:0]
	return nil
}

func (w *Writer) write(row *curationv1.DatasetRow) error {
	if w.encoder == nil {
		w.encoder = json.NewEncoder(&w.buf)
		w.encoder.SetEscapeHTML(false)
	}
	line, ok := example(w.Format, row)
	if !ok {
		w.Counts.NoRejected++
		return nil
	}
	if err := w.encoder.Encode(line); err != nil {
		return fmt.Errorf("encode example %s: %w", row.GetRowId(), err)
	}
	w.Counts.Rows++
	if w.buf.Len() < w.ChunkBytes {
		return nil
	}
	return w.flush()
}

func (w *Writer) flush() error {
	if w.buf.Len() == 0 {
		return nil
	}
	defer w.buf.Reset()
	return w.Emit(w.buf.Bytes())
}

func example(format string, row *curationv1.DatasetRow) (line any, ok bool) {
	var prompt []message
	if row.GetSystemContext() != "" {
		prompt = append(prompt, message{"system", row.GetSystemContext()})
	}
	prompt = append(prompt, message{"user", row.GetQuery()})
	chosen := message{"assistant", row.GetChosen()}
	if format == SFT {
		return sft{append(prompt, chosen)}, true
	}
	if row.GetRejected() == "" {
		return nil, false
	}
	return dpo{prompt, []message{chosen}, []message{{"assistant", row.GetRejected()}}}, true
}
