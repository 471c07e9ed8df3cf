// Package importer turns history files into events.
//
// Ids and times depend on the files alone, so importing again changes nothing.
package importer

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/honeloop/hone/pkg/events"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
)

// Item is one event of a history, and where it stands in it.
type Item struct {
	Event *eventv1.Event
	Where string // such as "events.jsonl:12"
}

// Format reads one kind of history.
type Format struct {
	Name string
	// What the argument of the command is.
	Want string
	// Open reads the whole history lazily, in an order in which an interaction
	// comes before what is about it. The number of items is 0 where it is
	// not known beforehand. An error ends the sequence.
	Open func(path string) (items iter.Seq2[Item, error], total int, err error)
}

// Formats are all that there are.
func Formats() []Format {
	return []Format{
		{"iflm", "folder with query_logs_table.csv and task_table.csv", openIFLM},
		{"open-assistant", "file of message trees, a JSON object a line", openOpenAssistant},
		{"jsonl", "file of events in the emitter's JSON, one a line; - for standard input", openJSONL},
	}
}

// FormatNamed finds a format.
func FormatNamed(name string) (Format, error) {
	var names []string
	for _, f := range Formats() {
		if f.Name == name {
			return f, nil
		}
		names = append(names, f.Name)
	}
	return Format{}, fmt.Errorf("format %q is not known: want %s", name, strings.Join(names, ", "))
}

// maxLine bounds a line of a JSON Lines file, in bytes.
const maxLine = 4 << 20

func openJSONL(path string) (iter.Seq2[Item, error], int, error) {
	decoder, err := events.NewDecoder(events.DefaultLimits())
	if err != nil {
		return nil, 0, err
	}
	in := io.NopCloser(os.Stdin)
	name := "standard input"
	total := 0
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, 0, fmt.Errorf("open history: %w", err)
		}
		if total, err = countLines(f); err != nil {
			f.Close()
			return nil, 0, fmt.Errorf("read %s: %w", path, err)
		}
		in, name = f, filepath.Base(path)
	}
	return func(yield func(Item, error) bool) {
		defer in.Close()
		for n, line := range lines(in) {
			where := fmt.Sprintf("%s:%d", name, n)
			if line.err != nil {
				yield(Item{Where: where}, fmt.Errorf("%s: %w", where, line.err))
				return
			}
			if len(strings.TrimSpace(string(line.bytes))) == 0 {
				continue
			}
			request, fieldErr := decoder.Decode(line.bytes)
			if fieldErr != nil {
				yield(Item{Where: where}, fmt.Errorf("%s: not an event: %w", where, fieldErr))
				return
			}
			for i, event := range request.Events {
				if event == nil {
					yield(Item{Where: where}, fmt.Errorf("%s: %w", where, request.Path(i, request.Errors[i])))
					return
				}
				if !yield(Item{event, where}, nil) {
					return
				}
			}
		}
	}, total, nil
}

type line struct {
	bytes []byte
	err   error
}

// lines are the lines of r, numbered from 1.
func lines(r io.Reader) iter.Seq2[int, line] {
	return func(yield func(int, line) bool) {
		scanner := bufio.NewScanner(r)
		scanner.Buffer(make([]byte, 64<<10), maxLine)
		n := 0
		for scanner.Scan() {
			n++
			if !yield(n, line{bytes: scanner.Bytes()}) {
				return
			}
		}
		if err := scanner.Err(); err != nil {
			if errors.Is(err, bufio.ErrTooLong) {
				err = fmt.Errorf("line is longer than %d bytes", maxLine)
			}
			yield(n+1, line{err: err})
		}
	}
}

func countLines(f *os.File) (int, error) {
	n := 0
	for _, l := range lines(f) {
		if l.err != nil {
			return 0, l.err
		}
		if len(strings.TrimSpace(string(l.bytes))) > 0 {
			n++
		}
	}
	_, err := f.Seek(0, io.SeekStart)
	return n, err
}

// tree is a message of an Open Assistant export with its replies.
type tree struct {
	MessageID string `json:"message_id"`
	Text      string `json:"text"`
	Role      string `json:"role"`
	Lang      string `json:"lang"`
	ModelName string `json:"model_name"`
	Rank      *int   `json:"rank"`
	Replies   []tree `json:"replies"`
}

// openAssistantEpoch stands in for the times that the export leaves out.
var openAssistantEpoch = time.Date(2024, time.January, 6, 0, 0, 0, 0, time.UTC)

func openOpenAssistant(path string) (iter.Seq2[Item, error], int, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, fmt.Errorf("open history: %w", err)
	}
	defer f.Close()
	var items []Item
	for n, l := range lines(f) {
		where := fmt.Sprintf("%s:%d", filepath.Base(path), n)
		if l.err != nil {
			return nil, 0, fmt.Errorf("%s: %w", where, l.err)
		}
		var export struct {
			MessageTreeID string `json:"message_tree_id"`
			Prompt        tree   `json:"prompt"`
		}
		if err := json.Unmarshal(l.bytes, &export); err != nil {
			return nil, 0, fmt.Errorf("%s: not a message tree: %w", where, err)
		}
		if export.MessageTreeID == "" || export.Prompt.Text == "" {
			return nil, 0, fmt.Errorf("%s: not a message tree: message_tree_id or prompt.text is missing", where)
		}
		b := &treeImport{session: "oasst-" + export.MessageTreeID, where: where,
			clock: openAssistantEpoch.Add(time.Duration(n) * time.Hour)}
		b.prompt(export.Prompt)
		items = append(items, b.items...)
	}
	return each(items), len(items), nil
}

type treeImport struct {
	session, where string
	clock          time.Time
	items          []Item
}

func (b *treeImport) add(id, interaction string, e *eventv1.Event) {
	b.clock = b.clock.Add(time.Second)
	e.EventId, e.SessionId, e.InteractionId = id, b.session, interaction
	e.OccurredAt = timestamppb.New(b.clock)
	e.Tags = map[string]string{"origin": "open-assistant"}
	b.items = append(b.items, Item{e, b.where})
}

// prompt adds the answers to a prompter's message, best first; then for each
// other answer that the best was preferred to it.
func (b *treeImport) prompt(m tree) {
	answers := slices.Clone(m.Replies)
	slices.SortStableFunc(answers, func(x, y tree) int { return rank(x) - rank(y) })
	for i, a := range answers {
		turn := &eventv1.Interaction{Query: m.Text, Output: a.Text, Model: a.ModelName, Language: m.Lang}
		if i > 0 {
			turn.AlternativeTo = answers[0].MessageID
		}
		b.add(a.MessageID, a.MessageID, &eventv1.Event{Type: "interaction", Payload: &eventv1.Event_Interaction{Interaction: turn}})
	}
	for _, a := range answers[min(1, len(answers)):] {
		if a.Rank == nil || answers[0].Rank == nil {
			continue
		}
		b.add("rank-"+a.MessageID, a.MessageID, &eventv1.Event{Type: "feedback", Payload: &eventv1.Event_Feedback{
			Feedback: &eventv1.Feedback{PreferredInteractionId: answers[0].MessageID}}})
	}
	for _, a := range answers {
		for _, reply := range a.Replies {
			b.prompt(reply)
		}
	}
}

// rank orders answers; those that nobody ranked come last.
func rank(m tree) int {
	if m.Rank == nil {
		return 1 << 30
	}
	return *m.Rank
}

func each(items []Item) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		for _, it := range items {
			if !yield(it, nil) {
				return
			}
		}
	}
}
