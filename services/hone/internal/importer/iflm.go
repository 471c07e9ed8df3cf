package importer

import (
	"cmp"
	"encoding/csv"
	"errors"
	"fmt"
	"html"
	"io"
	"iter"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// openIFLM reads the IFLLM data set: each task of a worker is a session, each
// query one or two interactions (two answers side by side) with ratings from 1
// to 5 and a preference; the task adds the sentence that the worker copied and
// a free comment, which is about the last answer.
func openIFLM(dir string) (iter.Seq2[Item, error], int, error) {
	queries, err := readTable(filepath.Join(dir, "query_logs_table.csv"), "query_ID", "user_id", "task_id", "user_query",
		"llm_response_1", "llm_response_2", "llm_name_1", "llm_name_2", "likert_1", "likert_2", "preference", "query_timestamp")
	if err != nil {
		return nil, 0, err
	}
	tasks, err := readTable(filepath.Join(dir, "task_table.csv"), "user_id", "task_id", "copy_sentence", "feedback",
		"understand_before", "understand_after", "query_copy", "accuracy", "domain")
	if err != nil {
		return nil, 0, err
	}

	b := &iflmImport{sessions: map[string]*iflmSession{}}
	for _, q := range queries {
		if err := b.query(q); err != nil {
			return nil, 0, err
		}
	}
	for _, t := range tasks {
		b.task(t)
	}
	return each(b.items), len(b.items), nil
}

type iflmImport struct {
	items    []Item
	sessions map[string]*iflmSession
}

type iflmSession struct {
	last    time.Time
	answers []iflmAnswer
	tasks   int
}

type iflmAnswer struct{ id, query, output string }

func iflmSessionID(r row) string { return "iflm-" + r.get("user_id") + "-" + r.get("task_id") }

func (b *iflmImport) add(r row, id, interaction string, at time.Time, e *eventv1.Event) {
	e.EventId, e.SessionId, e.InteractionId, e.UserId = id, iflmSessionID(r), interaction, r.get("user_id")
	e.UserRole, e.Environment = "worker", "study"
	e.OccurredAt = timestamppb.New(at)
	if e.Tags == nil {
		e.Tags = map[string]string{}
	}
	e.Tags["origin"] = "iflm"
	b.items = append(b.items, Item{e, r.where})
}

func (b *iflmImport) query(r row) error {
	id := r.get("query_ID")
	n, err := strconv.Atoi(id)
	if err != nil {
		return fmt.Errorf("%s: query_ID %q is not a number", r.where, id)
	}
	tags := map[string]string{}
	at, err := time.Parse(time.DateTime, r.get("query_timestamp"))
	if err != nil { // some rows have 0000-00-00: keep their order
		at = time.Date(2025, time.January, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(n) * time.Minute)
		tags["time"] = "unknown"
	}
	session := b.sessions[iflmSessionID(r)]
	if session == nil {
		session = &iflmSession{}
		b.sessions[iflmSessionID(r)] = session
	}
	session.last = latest(session.last, at)

	first := "iflm-" + id + "-1"
	second := "iflm-" + id + "-2"
	if r.get("preference") == "0" || r.get("preference") == "0.0" {
		tags["preference"] = "tie"
	}
	answers := []struct{ id, output, model, likert, alternativeTo string }{
		{first, r.get("llm_response_1"), r.get("llm_name_1"), r.get("likert_1"), ""},
		{second, r.get("llm_response_2"), r.get("llm_name_2"), r.get("likert_2"), first},
	}
	if answers[1].output == "" {
		answers = answers[:1]
	}
	for i, a := range answers {
		turn := &eventv1.Interaction{Query: r.get("user_query"), Output: a.output, Model: a.model, AlternativeTo: a.alternativeTo}
		b.add(r, a.id, a.id, at.Add(time.Duration(i)*time.Millisecond),
			&eventv1.Event{Type: "interaction", Tags: maps.Clone(tags), Payload: &eventv1.Event_Interaction{Interaction: turn}})
		session.answers = append(session.answers, iflmAnswer{a.id, r.get("user_query"), a.output})
	}
	for i, a := range answers {
		if a.likert == "" {
			continue
		}
		score, err := strconv.ParseFloat(a.likert, 64)
		if err != nil || score < 1 || score > 5 || score != float64(int(score)) {
			return fmt.Errorf("%s: likert_%d %q is not 1 to 5", r.where, i+1, a.likert)
		}
		stars := uint32(score)
		b.feedback(r, "iflm-rating-"+id+"-"+strconv.Itoa(i+1), a.id, at.Add(time.Second), &eventv1.Feedback{Stars: &stars})
	}
	if len(answers) == 2 {
		switch r.get("preference") {
		case "1", "1.0":
			b.feedback(r, "iflm-preference-"+id, second, at.Add(2*time.Second), &eventv1.Feedback{PreferredInteractionId: first})
		case "2", "2.0":
			b.feedback(r, "iflm-preference-"+id, first, at.Add(2*time.Second), &eventv1.Feedback{PreferredInteractionId: second})
		}
	}
	return nil
}

func (b *iflmImport) feedback(r row, id, interaction string, at time.Time, f *eventv1.Feedback) {
	b.add(r, id, interaction, at, &eventv1.Event{Type: "feedback", Payload: &eventv1.Event_Feedback{Feedback: f}})
}

// task adds what a worker did at the end. Tasks whose queries are not in the
// log have no session and nothing to add to.
func (b *iflmImport) task(r row) {
	session := b.sessions[iflmSessionID(r)]
	if session == nil {
		return
	}
	session.tasks++
	suffix := r.get("user_id") + "-" + r.get("task_id")
	if session.tasks > 1 {
		suffix += "-" + strconv.Itoa(session.tasks)
	}
	at := session.last.Add(10 * time.Second)
	if copied := html.UnescapeString(r.get("copy_sentence")); copied != "" {
		b.add(r, "iflm-copy-"+suffix, session.copiedFrom(copied, r.get("query_copy")), at, &eventv1.Event{Type: "behavior",
			Payload: &eventv1.Event_Behavior{Behavior: &eventv1.Behavior{Kind: "copied", Text: copied}}})
	}
	if comment := html.UnescapeString(r.get("feedback")); comment != "" && len(session.answers) > 0 {
		b.feedback(r, "iflm-comment-"+suffix, session.answers[len(session.answers)-1].id, at.Add(time.Second),
			&eventv1.Feedback{Comment: comment})
	}
	properties := map[string]string{}
	for _, name := range []string{"understand_before", "understand_after", "accuracy", "domain"} {
		if v := r.get(name); v != "" {
			properties[name] = v
		}
	}
	b.add(r, "iflm-task-"+suffix, "", at.Add(2*time.Second), &eventv1.Event{Type: "behavior",
		Payload: &eventv1.Event_Behavior{Behavior: &eventv1.Behavior{Kind: "custom", Name: "task_finished", Properties: properties}}})
}

// copiedFrom finds the answer that a sentence was copied from: one that holds
// it, best to the query that the worker named; empty where none does.
func (s *iflmSession) copiedFrom(copied, query string) string {
	copied, query = plain(copied), plain(query)
	holds := func(a iflmAnswer) bool { return strings.Contains(plain(a.output), copied) }
	found := ""
	for _, a := range s.answers {
		if holds(a) && (found == "" || plain(a.query) == query) {
			found = a.id
		}
	}
	return found
}

// plain is text without entities, case and line breaks, to compare a copy with
// its source.
func plain(s string) string {
	return strings.ToLower(strings.Join(strings.Fields(html.UnescapeString(html.UnescapeString(s))), " "))
}

func latest(a, b time.Time) time.Time {
	return slices.MaxFunc([]time.Time{a, b}, time.Time.Compare)
}

type row struct {
	columns map[string]int
	fields  []string
	where   string
}

func (r row) get(column string) string { return r.fields[r.columns[column]] }

func readTable(path string, columns ...string) ([]row, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open history: %w", err)
	}
	defer f.Close()
	reader := csv.NewReader(f)
	header, err := reader.Read()
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	index := map[string]int{}
	for i, name := range header {
		index[name] = i
	}
	var missing []string
	for _, c := range columns {
		if _, ok := index[c]; !ok {
			missing = append(missing, c)
		}
	}
	if len(missing) > 0 {
		return nil, fmt.Errorf("read %s: columns are missing: %s", path, strings.Join(missing, ", "))
	}
	var rows []row
	for {
		fields, err := reader.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		n, _ := reader.FieldPos(0)
		rows = append(rows, row{index, fields, fmt.Sprintf("%s:%d", filepath.Base(path), n)})
	}
	if i, ok := index["query_ID"]; ok {
		slices.SortStableFunc(rows, func(a, b row) int {
			x, _ := strconv.Atoi(a.fields[i])
			y, _ := strconv.Atoi(b.fields[i])
			return cmp.Compare(x, y)
		})
	}
	return rows, nil
}
