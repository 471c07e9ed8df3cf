package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/telemetry"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
)

// TestErasedPeopleAreGone erases a user who founded a case that another person
// joined, and looks for what the user said in every table and in Weaviate; then a
// session of the other person.
func TestErasedPeopleAreGone(t *testing.T) {
	dir := tempDir(t)
	if err := os.WriteFile(filepath.Join(dir, "projects.yaml"), []byte("defaults: {privacy: {keep_originals: true}}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p := up(t, dir)
	send := func(body string) {
		t.Helper()
		if code, answer := p.post("/v1/events", body); code != http.StatusAccepted || answer["rejected"] != 0.0 {
			t.Fatalf("%d %v, want all accepted", code, answer)
		}
	}
	send(`{"events": [
		{"type": "interaction", "session_id": "s-1", "interaction_id": "i-1", "user_id": "u-ada",
		 "interaction": {"query": "Can I return worn xylophone shoes?", "output": "Yes, by zanzibar. We write to ada@xylophone.example."}},
		{"type": "feedback", "session_id": "s-1", "interaction_id": "i-1", "user_id": "u-ada",
		 "feedback": {"thumb": "down", "categories": ["factually_incorrect"], "comment": "The quokka changed.", "correction": "Only wombat shoes."}}]}`)
	p.until("the founder's review", func() bool { return p.number("SELECT count() FROM hone.reviews") == 1 })
	send(`{"events": [
		{"type": "interaction", "session_id": "s-2", "interaction_id": "i-2", "user_id": "u-bob",
		 "interaction": {"query": "Can I return worn shoes please?", "output": "Yes, within 60 days."}},
		{"type": "feedback", "session_id": "s-2", "interaction_id": "i-2", "user_id": "u-bob",
		 "feedback": {"thumb": "down", "categories": ["factually_incorrect"], "comment": "It changed in May, write to bob@shop.example.", "correction": "Only unworn."}},
		{"type": "feedback", "session_id": "s-1", "interaction_id": "i-1", "user_id": "u-bob", "feedback": {"thumb": "down", "comment": "Also wrong."}}]}`)
	p.until("the others' reviews", func() bool { return p.number("SELECT count() FROM hone.reviews") == 3 })
	words := []string{"u-ada", "xylophone", "zanzibar", "quokka", "wombat"}
	if found := p.findWords(words); len(found) == 0 {
		t.Fatal("nothing was found before the erasure, so that it shows nothing")
	}

	if out := p.must("originals", "s-1"); !strings.Contains(out, "ada@xylophone.example") {
		t.Errorf("the originals of s-1 before: %s", out)
	}
	for user, session := range map[string]string{"u-ada": "s-8", "u-bob": "s-9"} {
		p.deadLetter(session, user)
	}
	if out := p.must("dlq", "list", "--json"); strings.Count(out, "\n") != 2 {
		t.Errorf("dead letters before: %s", out)
	}
	for _, key := range []string{p.e.PublishableKey, ""} {
		want := map[bool]int{true: http.StatusUnauthorized, false: http.StatusForbidden}[key == ""]
		for _, body := range []string{`{"user_id": "u-ada"}`, `{"user_id": "u-ada", "dry_run": true}`} {
			if code := p.postAs(key, "/v1/erasures", body); code != want {
				t.Errorf("key %q may erase: %d, want %d", key, code, want)
			}
		}
	}

	removed := p.erase("--user", "u-ada")
	if removed["events_log"] != "2" || removed["weaviate"] != "2" || removed["originals_log"] != "1" {
		t.Errorf("removed %v, want two events, her signal and the one on her turn in Weaviate, and an original", removed)
	}
	if out := p.must("originals", "s-1"); !strings.Contains(out, "No original") {
		t.Errorf("the originals of s-1 after: %s", out)
	}
	if out := p.must("originals", "s-2"); !strings.Contains(out, "bob@shop.example") {
		t.Errorf("the originals of another person: %s", out)
	}
	if out := p.must("dlq", "list", "--json"); strings.Count(out, "\n") != 1 || !strings.Contains(out, "/s-9") {
		t.Errorf("dead letters after: %s, want the other person's", out)
	}
	send(`{"events": [{"type": "feedback", "session_id": "s-1", "interaction_id": "i-1", "user_id": "u-ada", "feedback": {"thumb": "down", "comment": "A late quokka."}},
		{"type": "feedback", "session_id": "s-2", "interaction_id": "i-2", "user_id": "u-bob", "feedback": {"thumb": "down", "comment": "Still wrong."}}]}`)
	p.until("what another person said later", func() bool { return p.number("SELECT count() FROM hone.events WHERE comment = 'Still wrong.'") == 1 })
	for _, found := range p.findWords(words) {
		t.Error(found)
	}
	if n := p.number("SELECT count() FROM hone.cases WHERE title = 'Can I return worn shoes please?' AND users = 1"); n != 1 {
		t.Errorf("%d cases have the title and the user that are left, want 1:\n%s", n, p.must("case", "list"))
	}
	if n := p.number("SELECT count() FROM hone.reviews WHERE user_id = 'u-bob' AND state = 'open'"); n != 1 {
		t.Errorf("%d open reviews of the other person, want 1", n)
	}

	if removed := p.erase("--session", "s-2"); removed["events_log"] != "3" || removed["originals_log"] != "1" {
		t.Errorf("removed %v of the session, want its three events and its original", removed)
	}
	send(`{"events": [{"type": "feedback", "session_id": "s-2", "interaction_id": "i-2", "user_id": "u-eve", "feedback": {"thumb": "down", "comment": "A late one."}},
		{"type": "feedback", "session_id": "s-3", "interaction_id": "i-3", "user_id": "u-bob", "feedback": {"thumb": "down", "comment": "Not right either."}}]}`)
	p.until("what the person said in another session", func() bool {
		return p.number("SELECT count() FROM hone.events WHERE comment = 'Not right either.'") == 1
	})
	for _, found := range p.findWords([]string{"s-2", "bob@", "May", "unworn", "A late one"}) {
		t.Error(found)
	}
	if n := p.number("SELECT count() FROM hone.events WHERE user_id = 'u-bob'"); n != 2 {
		t.Errorf("%d events of the person in other sessions, want 2", n)
	}
	if n := p.number("SELECT count() FROM hone.erasures WHERE state = 'done'"); n != 2 {
		t.Errorf("%d receipts, want 2", n)
	}
}

// erase erases a subject and says how many rows went, by place.
func (p *program) erase(subject ...string) map[string]string {
	p.t.Helper()
	var receipt struct {
		State   string
		Removed []struct {
			Place string
			Count json.Number
			Left  json.Number
		}
	}
	if err := json.Unmarshal([]byte(p.must(append([]string{"erase", "--yes", "--json"}, subject...)...)), &receipt); err != nil {
		p.t.Fatal(err)
	}
	if receipt.State != "done" {
		p.t.Errorf("the receipt says %q, want done", receipt.State)
	}
	removed := map[string]string{}
	for _, r := range receipt.Removed {
		removed[r.Place] = r.Count.String()
		if r.Left != "" && r.Left != "0" {
			p.t.Errorf("%s rows of %s are left", r.Left, r.Place)
		}
	}
	return removed
}

// postAs sends JSON with a key and returns the status.
func (p *program) postAs(key, path, body string) int {
	p.t.Helper()
	req, err := http.NewRequest(http.MethodPost, p.e.HTTP+path, strings.NewReader(body))
	if err != nil {
		p.t.Fatal(err)
	}
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := resp.Body.Close(); err != nil {
		p.t.Fatal(err)
	}
	return resp.StatusCode
}

// deadLetter writes one of an event that the enricher could not process.
func (p *program) deadLetter(session, user string) {
	p.t.Helper()
	value, err := proto.Marshal(&eventv1.Event{EventId: "dead-" + user, ProjectId: "default", SessionId: session, UserId: user})
	if err != nil {
		p.t.Fatal(err)
	}
	letter := stage.Record{Topic: stream.TopicDeadLetter, Key: stream.SessionKey("default", session), Value: value}
	for _, h := range [][2]string{{"hone-topic", stream.TopicEvents}, {"hone-partition", "0"}, {"hone-offset", "0"}, {"hone-stage", "enricher"},
		{"hone-attempts", "1"}, {"hone-cause", "a test"}, {"hone-failed-at", time.Now().UTC().Format(time.RFC3339Nano)}} {
		letter.Headers = append(letter.Headers, stage.Header{Key: h[0], Value: []byte(h[1])})
	}
	cfg := stream.DefaultConfig()
	cfg.Brokers = []string{p.e.Kafka}
	pub, err := stream.NewPublisher(cfg, telemetry.Discard())
	if err != nil {
		p.t.Fatal(err)
	}
	if err := errors.Join(pub.Publish(p.t.Context(), letter), pub.Close()); err != nil {
		p.t.Fatal(err)
	}
}

// findWords says where some words are, in ClickHouse and in Weaviate.
func (p *program) findWords(words []string) (found []string) {
	p.t.Helper()
	for _, table := range strings.Fields(p.must("sql", "--format", "TSV", "SELECT name FROM system.tables WHERE database = 'hone' AND engine LIKE '%MergeTree'")) {
		out := p.must("sql", "--format", "TSV", "SELECT DISTINCT arrayJoin(arrayFilter(w -> position(toString(tuple(*)), w) > 0, ['"+strings.Join(words, "','")+"'])) FROM hone."+table)
		for _, word := range strings.Fields(out) {
			found = append(found, table+" has "+word)
		}
	}
	for _, class := range []string{"HoneExchange", "HoneCase", "HoneAnswer"} {
		req, err := http.NewRequest(http.MethodGet, p.e.Weaviate+"/v1/objects?limit=100&tenant=p-default&class="+class, nil)
		if err != nil {
			p.t.Fatal(err)
		}
		if p.e.WeaviateKey != "" {
			req.Header.Set("Authorization", "Bearer "+p.e.WeaviateKey)
		}
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			p.t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		if err := resp.Body.Close(); err != nil {
			p.t.Fatal(err)
		}
		if err != nil {
			p.t.Fatal(err)
		}
		var answer struct {
			Objects []struct{ Properties struct{ Payload string } }
		}
		if err := json.Unmarshal(body, &answer); err != nil {
			p.t.Fatal(err)
		}
		for _, o := range answer.Objects {
			payload, err := base64.StdEncoding.DecodeString(o.Properties.Payload)
			if err != nil {
				p.t.Fatal(err)
			}
			body = append(body, payload...)
		}
		for _, word := range words {
			if bytes.Contains(body, []byte(word)) {
				found = append(found, class+" has "+word)
			}
		}
	}
	return found
}
