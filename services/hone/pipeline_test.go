package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/honeloop/hone/pkg/embedded/embeddedtest"
	"github.com/honeloop/hone/pkg/repotest"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/services/hone/internal/endpoints"
	"github.com/honeloop/hone/services/hone/internal/faults"
)

// runMain makes the test binary behave as hone, so that the tests start the
// real program, and can kill it.
const runMain = "HONE_TEST_RUN_MAIN"

func TestMain(m *testing.M) {
	faults.Main() // and embedded.Main
	if os.Getenv(runMain) != "" {
		main()
		return
	}
	os.Exit(embeddedtest.Run(m))
}

// program is a running `hone up`.
type program struct {
	t      *testing.T
	dir    string
	e      endpoints.Endpoints
	cmd    *exec.Cmd
	output *bytes.Buffer
	done   chan error
}

const startWait = 2 * time.Minute // also on a busy machine

func up(t *testing.T, dir string) *program {
	t.Helper()
	p := &program{t: t, dir: dir, output: &bytes.Buffer{}, done: make(chan error, 1)}
	p.cmd = exec.Command(os.Args[0], "up", "--dir", dir, "--ports", "auto")
	p.cmd.Env = append(os.Environ(), runMain+"=1")
	p.cmd.Stdout, p.cmd.Stderr = p.output, p.output
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.done <- p.cmd.Wait() }()
	t.Cleanup(p.kill)
	deadline := time.Now().Add(startWait)
	for {
		e, err := endpoints.Read(dir)
		// What a killed one left is of another process.
		if err == nil && strings.Contains(httpGet(e.HTTP+"/readyz"), "ready") {
			p.e = e
			return p
		}
		select {
		case err := <-p.done:
			p.done <- err
			t.Fatalf("hone up ended: %v\n%s", err, p.output)
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			p.kill()
			t.Fatalf("hone up is not ready after %s\n%s", startWait, p.output)
		}
	}
}

// tempDir is removed once the children of a killed program have let go of it.
func tempDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hone-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		deadline := time.Now().Add(20 * time.Second)
		for err := os.RemoveAll(dir); err != nil; err = os.RemoveAll(dir) {
			if time.Now().After(deadline) {
				t.Errorf("remove %s: %v", dir, err)
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
	return dir
}

func httpGet(url string) string {
	resp, err := http.Get(url)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return ""
	}
	return string(body)
}

func (p *program) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	p.wait()
}

func (p *program) wait() error {
	err := <-p.done
	p.done <- err
	return err
}

// stop stops it as Ctrl-C does.
func (p *program) stop() {
	p.t.Helper()
	start := time.Now()
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		p.t.Fatal(err)
	}
	if err := p.wait(); err != nil {
		p.t.Fatalf("hone up ended with %v\n%s", err, p.output)
	}
	p.t.Logf("stopped after %s", time.Since(start))
}

// hone runs a command against it.
func (p *program) hone(args ...string) (string, error) {
	cmd := exec.Command(os.Args[0], append(args, "--dir", p.dir)...)
	cmd.Env = append(os.Environ(), runMain+"=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("hone %s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return string(out), err
}

func (p *program) must(args ...string) string {
	p.t.Helper()
	out, err := p.hone(args...)
	if err != nil {
		p.t.Fatal(err)
	}
	return out
}

// number is the answer of a query that gives one.
func (p *program) number(query string) int {
	p.t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(p.must("sql", "--format", "TSV", query)))
	if err != nil {
		p.t.Fatal(err)
	}
	return n
}

// post sends JSON and returns the status and the answer.
func (p *program) post(path, body string) (int, map[string]any) {
	p.t.Helper()
	req, err := http.NewRequest(http.MethodPost, p.e.HTTP+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+p.e.SecretKey)
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer map[string]any
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		p.t.Fatal(err)
	}
	return resp.StatusCode, answer
}

// until waits for a condition that the pipeline brings about.
func (p *program) until(what string, ok func() bool) {
	p.t.Helper()
	deadline := time.Now().Add(3 * time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			log, _ := os.ReadFile(filepath.Join(p.dir, "logs", "hone.log")) // only to help
			p.t.Fatalf("waited 3 minutes for %s\n%s\n%s", what, p.output, log[max(0, len(log)-4000):])
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func iflm(t *testing.T) string {
	return filepath.Dir(repotest.SharedData(t, "iflm/query_logs_table.csv"))
}

// state is what the import of a history has caused.
type state struct {
	Events, Waiting, Decisions, Exchanges int
	// Signals that hold, and signals whose newest event on a route topic is not a
	// withdrawal, sorted.
	Signals []string
	Routed  map[string][]string
}

// settled waits until an import's effects are complete, and reads them.
func (p *program) settled(events int) state {
	p.t.Helper()
	p.until(fmt.Sprintf("%d events in ClickHouse", events), func() bool { return p.number("SELECT count() FROM hone.events") >= events })
	p.until("a decision for the newest revision of each signal", func() bool {
		return p.number(`SELECT count() FROM hone.signals AS s LEFT ANTI JOIN hone.decisions AS d
			ON s.signal_id = d.signal_id AND s.revision = d.signal_revision WHERE NOT s.waiting`) == 0
	})
	// The route topics are written after the decisions: wait until they rest.
	var last state
	p.until("the effects to be complete", func() bool {
		s := state{
			Events:    p.number("SELECT count() FROM hone.events"),
			Waiting:   p.number("SELECT count() FROM hone.signals WHERE waiting"),
			Decisions: p.number("SELECT uniqExact(signal_id) FROM hone.decisions"),
			Exchanges: p.exchanges(),
			Signals:   strings.Fields(p.must("sql", "--format", "TSV", "SELECT signal_id FROM hone.signals ORDER BY signal_id")),
			Routed:    p.routed(),
		}
		rests := len(s.Signals) > 0 && s.Exchanges == len(s.Signals)-s.Waiting && fmt.Sprint(s) == fmt.Sprint(last)
		last = s
		if !rests {
			time.Sleep(2 * time.Second)
		}
		return rests
	})
	return last
}

// exchanges is the number of exchanges in Weaviate.
func (p *program) exchanges() int {
	p.t.Helper()
	body := `{"query":"{Aggregate{HoneExchange(tenant:\"p-default\"){meta{count}}}}"}`
	req, err := http.NewRequest(http.MethodPost, p.e.Weaviate+"/v1/graphql", strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if p.e.WeaviateKey != "" {
		req.Header.Set("Authorization", "Bearer "+p.e.WeaviateKey)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	defer resp.Body.Close()
	var answer struct {
		Data struct {
			Aggregate struct {
				HoneExchange []struct{ Meta struct{ Count int } }
			}
		}
		Errors any
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		p.t.Fatal(err)
	}
	if strings.Contains(fmt.Sprint(answer.Errors), "tenant not found") {
		return 0 // nothing was written yet
	}
	if answer.Errors != nil || len(answer.Data.Aggregate.HoneExchange) != 1 {
		p.t.Fatalf("count exchanges: %+v", answer)
	}
	return answer.Data.Aggregate.HoneExchange[0].Meta.Count
}

// routed reads the route topics as a consumer does: by subject, the newest
// revision counts, and a repeated id is the same event.
func (p *program) routed() map[string][]string {
	p.t.Helper()
	type newest struct {
		revision int
		active   bool
	}
	cfg := stream.DefaultConfig()
	cfg.Brokers = []string{p.e.Kafka}
	out := map[string][]string{}
	for _, topic := range []string{stream.TopicRouteFineTune, stream.TopicRouteHumanReview, stream.TopicRouteProduct, stream.TopicRoutePromptPatch} {
		subjects := map[string]newest{}
		err := stream.Tail(context.Background(), cfg, topic, 1_000_000, false, func(_ context.Context, r stage.Record) error {
			var e struct {
				Type, Subject string
				Data          struct {
					Revision int `json:"signal_revision"`
				}
			}
			if err := json.Unmarshal(r.Value, &e); err != nil {
				return err
			}
			if e.Data.Revision >= subjects[e.Subject].revision {
				subjects[e.Subject] = newest{e.Data.Revision, e.Type == "hone.route.v1"}
			}
			return nil
		})
		if err != nil {
			p.t.Fatal(err)
		}
		maps.DeleteFunc(subjects, func(_ string, n newest) bool { return !n.active })
		out[topic] = slices.Sorted(maps.Keys(subjects))
	}
	return out
}

func TestImportedHistoryIsAllInTheTrail(t *testing.T) {
	dir := tempDir(t)
	p := up(t, dir)
	want := importedHistoryIsAllInTheTrail(t, p)

	p.stop()
	p = up(t, dir)
	if got := p.settled(want.Events); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("a restart changed the state: %s", difference(want, got))
	}
	p.stop()
	crashSafety(t, want)
}

func importedHistoryIsAllInTheTrail(t *testing.T, p *program) state {
	var first struct{ Accepted, Rejected int }
	if err := json.Unmarshal([]byte(p.must("import", "iflm", iflm(t), "--json")), &first); err != nil || first.Rejected > 0 {
		t.Fatalf("import: %+v, %v", first, err)
	}
	want := p.settled(first.Accepted)
	for query, n := range map[string]int{
		"SELECT count() FROM hone.events":                                                                 first.Accepted,
		"SELECT count() FROM hone.events WHERE type = 'interaction'":                                      1691 + 821,
		"SELECT count() FROM hone.events WHERE stars > 0":                                                 1645 + 787,
		"SELECT uniqExact(session_id) FROM hone.events":                                                   512,
		"SELECT count() FROM hone.signals WHERE waiting":                                                  0,
		"SELECT count() FROM hone.signals AS s LEFT ANTI JOIN hone.decisions AS d USING (signal_id)":      0,
		"SELECT count() FROM hone.signals WHERE kind = 'explicit' AND interaction_id NOT LIKE 'iflm-%-%'": 0,
	} {
		if got := p.number(query); got != n {
			t.Errorf("%s: %d, want %d", query, got, n)
		}
	}
	if want.Exchanges != len(want.Signals) {
		t.Errorf("%d exchanges in Weaviate for %d signals", want.Exchanges, len(want.Signals))
	}
	if dead := p.must("dlq", "list"); !strings.Contains(dead, "No dead letters") {
		t.Errorf("dead letters:\n%s", dead)
	}

	p.must("import", "iflm", iflm(t))
	if got := p.settled(first.Accepted); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("importing again changed the state: %s", difference(want, got))
	}
	return want
}

// crashSafety kills the program twice in the middle of an import. In the end
// all is as after a clean one.
func crashSafety(t *testing.T, want state) {
	dir := tempDir(t)
	for _, after := range []int{800, 3000} {
		p := up(t, dir)
		go func() { _, _ = p.hone("import", "iflm", iflm(t)) }() // it fails when the program is killed
		p.until("the import to be half done", func() bool {
			out, err := p.hone("sql", "--format", "TSV", "SELECT count() FROM hone.events_log")
			n, _ := strconv.Atoi(strings.TrimSpace(out))
			return err == nil && n >= after
		})
		if err := p.cmd.Process.Signal(syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		_ = p.wait() // it was killed
	}
	p := up(t, dir)
	p.must("import", "iflm", iflm(t))
	defer p.stop()
	if got := p.settled(want.Events); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("after crashes the state is another: %s", difference(want, got))
	}
}

func difference(want, got state) string {
	var b strings.Builder
	fmt.Fprintf(&b, "events %d and %d, waiting %d and %d, decisions %d and %d, exchanges %d and %d, signals %d and %d",
		want.Events, got.Events, want.Waiting, got.Waiting, want.Decisions, got.Decisions, want.Exchanges, got.Exchanges, len(want.Signals), len(got.Signals))
	for topic := range want.Routed {
		fmt.Fprintf(&b, ", %s %d and %d", topic, len(want.Routed[topic]), len(got.Routed[topic]))
	}
	return b.String()
}

func TestFeedbackLeadsToAnswers(t *testing.T) {
	feedbackLeadsToAnswers(t, up(t, tempDir(t)))
}

func feedbackLeadsToAnswers(t *testing.T, p *program) {
	code, answer := p.post("/v1/events", `{"events": [
		{"type": "interaction", "session_id": "s-1", "interaction_id": "i-1", "user_id": "u-7",
		 "interaction": {"query": "Can I return worn shoes?", "output": "Yes, within 60 days."}},
		{"type": "feedback", "session_id": "s-1", "interaction_id": "i-1", "user_id": "u-7",
		 "feedback": {"thumb": "down", "categories": ["factually_incorrect"], "comment": "It changed in May.", "correction": "Only unworn shoes."}},
		{"type": "feedback", "session_id": "s-1", "feedback": {"thumb": "sideways"}}]}`)
	if code != http.StatusAccepted || answer["accepted"] != 2.0 || answer["rejected"] != 1.0 {
		t.Fatalf("%d %v, want 202, two accepted and one refused", code, answer)
	}
	p.until("the decision", func() bool { return p.number("SELECT count() FROM hone.decisions") == 1 })
	trail := p.must("trail", "s-1")
	for _, want := range []string{"Can I return worn shoes?", "thumb down", "factually_incorrect", "It changed in May.", "Only unworn shoes.", "human-review", "knowledge-gap-corrected"} {
		if !strings.Contains(trail, want) {
			t.Errorf("the trail lacks %q:\n%s", want, trail)
		}
	}

	recall := func() (int, string) {
		code, answer := p.post("/v1/recall", `{"query": "Is it okay to send back shoes I have worn?"}`)
		text, err := json.Marshal(answer)
		if err != nil {
			t.Fatal(err)
		}
		return code, string(text)
	}
	if code, text := recall(); code != http.StatusOK || !strings.Contains(text, "Can I return worn shoes?") || strings.Contains(text, "approved_answer") {
		t.Errorf("recall before the review: %d %s", code, text)
	}
	var queue struct {
		Reviews []struct {
			ID string `json:"review_id"`
		}
	}
	p.until("the review", func() bool {
		if err := json.Unmarshal([]byte(p.must("review", "list", "--json")), &queue); err != nil {
			t.Fatal(err)
		}
		return len(queue.Reviews) == 1
	})
	p.must("review", "decide", queue.Reviews[0].ID, "--correct", "Only unworn shoes, within 30 days.", "--reviewer", "ada")
	if _, err := p.hone("review", "decide", queue.Reviews[0].ID, "--dismiss", "--reviewer", "bob"); err == nil || !strings.Contains(err.Error(), "ada") {
		t.Errorf("a second decision: %v, want an error that names who decided", err)
	}
	p.until("the approved answer", func() bool {
		_, text := recall()
		return strings.Contains(text, "Only unworn shoes, within 30 days.")
	})
	p.until("the training rows", func() bool {
		dpo := p.must("dataset", "export", "--format", "dpo")
		return strings.Contains(dpo, `"content":"Only unworn shoes, within 30 days."`) && strings.Contains(dpo, `"content":"Yes, within 60 days."`)
	})
	p.until("the solved case in ClickHouse", func() bool { return p.number("SELECT count() FROM hone.cases WHERE state = 'solved'") == 1 })
	if text := p.must("topic", "tail", stream.TopicRouteHumanReview); !strings.Contains(text, `"specversion": "1.0"`) || !strings.Contains(text, "It changed in May.") {
		t.Errorf("the route topic:\n%s", text)
	}
}

func TestEarlyDoubledAndFlippedFeedbackIsOnePositiveSignal(t *testing.T) {
	p := up(t, tempDir(t))
	send := func(event string) {
		t.Helper()
		if code, answer := p.post("/v1/events", event); code != http.StatusAccepted {
			t.Fatalf("%d %v", code, answer)
		}
	}
	down := `{"type": "feedback", "event_id": "f-1", "session_id": "s", "interaction_id": "i", "user_id": "u", "feedback": {"thumb": "down", "categories": ["unsafe"], "comment": "No!"}}`
	send(down)
	p.until("the waiting signal", func() bool { return p.number("SELECT count() FROM hone.signals WHERE waiting") == 1 })
	time.Sleep(3 * time.Second)
	send(down)
	send(`{"type": "interaction", "session_id": "s", "interaction_id": "i", "user_id": "u", "interaction": {"query": "How do I dry boots?", "output": "On a heater."}}`)
	p.until("the review of the first feedback", func() bool { return p.number("SELECT count() FROM hone.reviews WHERE state = 'open'") == 1 })
	send(`{"type": "feedback", "event_id": "f-2", "session_id": "s", "interaction_id": "i", "user_id": "u", "feedback": {"thumb": "up"}}`)
	p.until("the flipped signal", func() bool {
		return p.number("SELECT count() FROM hone.decisions AS d JOIN hone.signals AS s ON d.signal_id = s.signal_id AND d.signal_revision = s.revision WHERE s.polarity = 'positive'") == 1
	})
	p.until("the review to be withdrawn", func() bool { return p.number("SELECT count() FROM hone.reviews WHERE state = 'open'") == 0 })
	for query, want := range map[string]int{
		"SELECT count() FROM hone.signals":                                               1,
		"SELECT count() FROM hone.signals WHERE polarity = 'positive' AND category = ''": 1,
		"SELECT count() FROM hone.signals WHERE waiting":                                 0,
		"SELECT count() FROM hone.cases":                                                 0,
		"SELECT count() FROM hone.decisions WHERE NOT superseded":                        1,
	} {
		if got := p.number(query); got != want {
			t.Errorf("%s: %d, want %d", query, got, want)
		}
	}
	for topic, subjects := range p.routed() {
		if len(subjects) > 0 {
			t.Errorf("%s still has %v", topic, subjects)
		}
	}
	if _, answer := p.post("/v1/recall", `{"query": "How do I dry boots?"}`); len(answer["guidance"].([]any)) > 0 {
		t.Errorf("recall still knows %v", answer["guidance"])
	}
}

func TestASecondHoneOnOneDirectoryIsRefused(t *testing.T) {
	p := up(t, tempDir(t))
	_, err := p.hone("up", "--ports", "auto")
	if err == nil || !strings.Contains(err.Error(), "another Hone runs on "+p.dir) || !strings.Contains(err.Error(), strconv.Itoa(p.cmd.Process.Pid)) {
		t.Errorf("error %v, want one that names the directory and the process", err)
	}
	if httpGet(p.e.HTTP+"/readyz") == "" {
		t.Error("the first does not answer any more")
	}
}

func TestADeadChildIsStartedAgain(t *testing.T) {
	p := up(t, tempDir(t))
	pids, err := exec.Command("pgrep", "-P", strconv.Itoa(p.cmd.Process.Pid)).Output()
	if err != nil {
		t.Fatalf("list children with pgrep: %v", err)
	}
	for _, pid := range strings.Fields(string(pids)) {
		n, err := strconv.Atoi(pid)
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(n, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	p.until("ClickHouse to be back", func() bool {
		_, err := p.hone("sql", "SELECT 1")
		return err == nil
	})
	p.until("Weaviate to be back", func() bool {
		resp, err := http.Get(p.e.Weaviate + "/v1/.well-known/ready") // its answer has no body
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK
	})
	code, answer := p.post("/v1/events", `{"type": "interaction", "session_id": "s", "interaction_id": "i", "interaction": {"query": "q", "output": "o"}}`)
	if code != http.StatusAccepted {
		t.Fatalf("%d %v", code, answer)
	}
	p.until("the event to arrive", func() bool {
		out, err := p.hone("sql", "--format", "TSV", "SELECT count() FROM hone.events")
		return err == nil && strings.TrimSpace(out) == "1"
	})
}
