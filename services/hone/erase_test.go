package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestErasedPeopleAreGone erases a user who founded a case that another person
// joined, and looks for what the user said in every table and in Weaviate.
func TestErasedPeopleAreGone(t *testing.T) {
	p := up(t, tempDir(t))
	send := func(body string) {
		t.Helper()
		if code, answer := p.post("/v1/events", body); code != http.StatusAccepted || answer["rejected"] != 0.0 {
			t.Fatalf("%d %v, want all accepted", code, answer)
		}
	}
	send(`{"events": [
		{"type": "interaction", "session_id": "s-1", "interaction_id": "i-1", "user_id": "u-ada",
		 "interaction": {"query": "Can I return worn xylophone shoes?", "output": "Yes, by zanzibar."}},
		{"type": "feedback", "session_id": "s-1", "interaction_id": "i-1", "user_id": "u-ada",
		 "feedback": {"thumb": "down", "categories": ["factually_incorrect"], "comment": "The quokka changed.", "correction": "Only wombat shoes."}}]}`)
	p.until("the founder's review", func() bool { return p.number("SELECT count() FROM hone.reviews") == 1 })
	send(`{"events": [
		{"type": "interaction", "session_id": "s-2", "interaction_id": "i-2", "user_id": "u-bob",
		 "interaction": {"query": "Can I return worn shoes please?", "output": "Yes, within 60 days."}},
		{"type": "feedback", "session_id": "s-2", "interaction_id": "i-2", "user_id": "u-bob",
		 "feedback": {"thumb": "down", "categories": ["factually_incorrect"], "comment": "It changed in May.", "correction": "Only unworn."}},
		{"type": "feedback", "session_id": "s-1", "interaction_id": "i-1", "user_id": "u-bob", "feedback": {"thumb": "down", "comment": "Also wrong."}}]}`)
	p.until("the others' reviews", func() bool { return p.number("SELECT count() FROM hone.reviews") == 3 })
	words := []string{"u-ada", "xylophone", "zanzibar", "quokka", "wombat"}
	if found := p.findWords(words); len(found) == 0 {
		t.Fatal("nothing was found before the erasure, so that it shows nothing")
	}

	var receipt struct {
		State   string
		Removed []struct {
			Place string
			Count json.Number
			Left  json.Number
		}
	}
	if err := json.Unmarshal([]byte(p.must("erase", "--user", "u-ada", "--yes", "--json")), &receipt); err != nil {
		t.Fatal(err)
	}
	if receipt.State != "done" {
		t.Errorf("the receipt says %q, want done", receipt.State)
	}
	removed := map[string]string{}
	for _, r := range receipt.Removed {
		removed[r.Place] = r.Count.String()
		if r.Left != "" && r.Left != "0" {
			t.Errorf("%s rows of %s are left", r.Left, r.Place)
		}
	}
	if removed["events_log"] != "2" || removed["weaviate"] != "2" {
		t.Errorf("removed %v, want two events, and her signal and the one on her turn in Weaviate", removed)
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
	if n := p.number("SELECT count() FROM hone.erasures WHERE state = 'done'"); n != 1 {
		t.Errorf("%d receipts, want 1", n)
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
