// Package signals trains and measures the model of dissatisfaction, and reads the
// sessions that it is measured on.
package signals

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"

	"github.com/honeloop/hone/services/enricher/internal/derive"
)

// Session is one conversation, and what its person thought of the answers.
type Session struct {
	Person string
	Events []*eventv1.Event
	// Stars by interaction, 1 to 5; those without a rating are missing.
	Stars map[string]int
}

// IFLM reads the sessions of the IFLLM data set: of each query the first answer.
// The events are what an observer sees who is told no opinion: questions, answers,
// and the end of the session. Ratings are apart. Copies are left out: the study
// told people to copy a sentence.
func IFLM(dir string) ([]Session, error) {
	queries, err := readTable(filepath.Join(dir, "query_logs_table.csv"))
	if err != nil {
		return nil, err
	}
	sessions := map[string]*Session{}
	var order []string
	for i, q := range queries {
		id := q["user_id"] + "-" + q["task_id"]
		s := sessions[id]
		if s == nil {
			s = &Session{Person: q["user_id"], Stars: map[string]int{}}
			sessions[id] = s
			order = append(order, id)
		}
		at, err := time.Parse(time.DateTime, q["query_timestamp"])
		if err != nil { // some rows have 0000-00-00: keep their order
			at = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(i) * time.Minute)
		}
		e := event(id, "q-"+q["query_ID"], at)
		e.InteractionId = e.EventId
		e.Type, e.Payload = "interaction", &eventv1.Event_Interaction{Interaction: &eventv1.Interaction{
			Query: q["user_query"], Output: q["llm_response_1"], Model: q["llm_name_1"]}}
		s.Events = append(s.Events, e)
		if stars, err := strconv.ParseFloat(q["likert_1"], 64); err == nil {
			s.Stars[e.InteractionId] = int(stars)
		}
	}
	var out []Session
	for _, id := range order {
		s := sessions[id]
		e := event(id, "t-"+id, last(s).Add(30*time.Minute))
		e.Type, e.Payload = "timer", &eventv1.Event_Timer{Timer: &eventv1.Timer{Kind: derive.TimerSessionEnded}}
		s.Events = append(s.Events, e)
		out = append(out, *s)
	}
	return out, nil
}

func last(s *Session) time.Time {
	return slices.MaxFunc(s.Events, func(a, b *eventv1.Event) int { return a.OccurredAt.AsTime().Compare(b.OccurredAt.AsTime()) }).OccurredAt.AsTime()
}

func event(session, id string, at time.Time) *eventv1.Event {
	return &eventv1.Event{ProjectId: "p", SessionId: session, EventId: id, OccurredAt: timestamppb.New(at), ReceivedAt: timestamppb.New(at), Source: "import"}
}

func readTable(path string) ([]map[string]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open table: %w", err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(rows) == 0 {
		return nil, errors.New("read " + path + ": no rows")
	}
	var out []map[string]string
	for _, row := range rows[1:] {
		m := map[string]string{}
		for i, name := range rows[0] {
			m[name] = row[i]
		}
		out = append(out, m)
	}
	return out, nil
}

type message struct {
	ID      string `json:"message_id"`
	Text    string
	Role    string
	Rank    *int
	Replies []message
}

// OpenAssistant reads the message trees of OpenAssistant: each is a session along
// its longest branch, with the sibling answers beside, ranked by people.
func OpenAssistant(path string) ([]Session, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open trees: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 4<<20)
	var out []Session
	for lines.Scan() {
		var tree struct {
			ID     string `json:"message_tree_id"`
			Prompt message
		}
		if err := json.Unmarshal(lines.Bytes(), &tree); err != nil {
			return nil, fmt.Errorf("read %s, line %d: %w", path, len(out)+1, err)
		}
		s := Session{Person: tree.ID}
		at := time.Date(2023, 1, 1, 0, 0, 0, 0, time.UTC)
		for prompt := &tree.Prompt; prompt != nil; {
			var next *message
			best, deepest := "", 0
			for i := range prompt.Replies {
				answer := &prompt.Replies[i]
				e := event(tree.ID, answer.ID, at.Add(time.Duration(i)*time.Millisecond))
				e.InteractionId = answer.ID
				x := &eventv1.Interaction{Query: prompt.Text, Output: answer.Text}
				if i > 0 {
					x.AlternativeTo = prompt.Replies[0].ID
				}
				e.Type, e.Payload = "interaction", &eventv1.Event_Interaction{Interaction: x}
				s.Events = append(s.Events, e)
				if answer.Rank != nil && *answer.Rank == 0 {
					best = answer.ID
				}
				if d := depth(answer); d > deepest && len(answer.Replies) > 0 {
					next, deepest = &answer.Replies[0], d
				}
			}
			for i, answer := range prompt.Replies {
				if best == "" || answer.ID == best || answer.Rank == nil {
					continue
				}
				e := event(tree.ID, "p-"+answer.ID, at.Add(time.Second+time.Duration(i)*time.Millisecond))
				e.InteractionId = answer.ID
				e.Type, e.Payload = "feedback", &eventv1.Event_Feedback{Feedback: &eventv1.Feedback{PreferredInteractionId: best}}
				s.Events = append(s.Events, e)
			}
			at = at.Add(time.Minute)
			prompt = next
		}
		if len(s.Events) > 0 {
			out = append(out, s)
		}
	}
	return out, lines.Err()
}

func depth(m *message) int {
	d := 0
	for i := range m.Replies {
		d = max(d, depth(&m.Replies[i]))
	}
	return d + 1
}
