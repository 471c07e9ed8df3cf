package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/honeloop/hone/pkg/ids"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/telemetry"
	curationv1 "github.com/honeloop/hone/proto/gen/go/hone/curation/v1"
	policyv1 "github.com/honeloop/hone/proto/gen/go/hone/policy/v1"
)

func TestMain(m *testing.M) {
	Main()
	os.Exit(m.Run())
}

func TestAScheduleFollowsFromItsSeed(t *testing.T) {
	for seed := range uint64(20) {
		a, b := plan(seed, 12, time.Second, false, nil), plan(seed, 12, time.Second, false, nil)
		if !slices.Equal(a, b) {
			t.Fatalf("seed %d: two schedules", seed)
		}
		kills, disks, targets := 0, 0, map[string]bool{}
		for _, f := range a {
			if f.kills() {
				kills++
				targets[f.target] = true
			}
			if f.kind == faultDisk {
				disks++
			}
		}
		if kills != 12 || disks == 0 {
			t.Errorf("seed %d: %d kills and %d full disks, want 12 and at least 1", seed, kills, disks)
		}
	}
}

func TestALoadFollowsFromItsSeed(t *testing.T) {
	a := load{seed: 7, sessions: 200, start: time.Unix(1_800_000_000, 0)}
	seen := map[string]bool{}
	kinds := map[string]int{}
	for n := range a.sessions {
		one, two := a.session(n), a.session(n)
		if len(one) != perSession {
			t.Fatalf("session %d has %d events, want %d", n, len(one), perSession)
		}
		for i, e := range one {
			if !proto.Equal(e, two[i]) {
				t.Errorf("event %s is not always the same", e.EventId)
			}
			session, _, ok := a.parseEventID(e.EventId)
			if !ok || session != n || seen[e.EventId] {
				t.Errorf("id %s: session %d, %t, seen %t", e.EventId, session, ok, seen[e.EventId])
			}
			seen[e.EventId] = true
		}
		for _, s := range a.signals(n) {
			kinds[fmt.Sprint(s.kind, " ", s.polarity, " ", s.withdrawn)]++
		}
	}
	ways := map[string]int{}
	for n := range a.sessions {
		ways[a.protocol(n)]++
	}
	if len(ways) != 4 {
		t.Errorf("sessions are sent in %v, want 4 ways", ways)
	}
	for _, kind := range []string{"explicit negative false", "explicit positive false", "explicit  true", "preference negative false"} {
		if kinds[kind] == 0 {
			t.Errorf("no signal is %q: %v", kind, kinds)
		}
	}
	for _, id := range []string{"", "e-", "e-0000200-00", "e-0000001-20", "e-1-1", "e-0000001-01x", "x-0000001-01"} {
		if _, _, ok := a.parseEventID(id); ok {
			t.Errorf("%q is taken for an event of the load", id)
		}
	}
}

// A fault starts a part again, and is over; the part may end by itself later.
func TestAPartIsWatchedAfterItsFault(t *testing.T) {
	var ends []chan struct{}
	died := make(chan error, 1)
	p := &part{name: "p", living: t.Context(), died: func(_ *part, why error, _ bool) { died <- why }}
	p.start = func(context.Context) (*running, error) {
		done := make(chan struct{})
		ends = append(ends, done)
		return &running{done: done, why: func() error { return errors.New("aborted") }}, nil
	}
	ctx, over := context.WithCancel(t.Context())
	if err := p.up(ctx); err != nil {
		t.Fatal(err)
	}
	over()
	close(ends[0])
	select {
	case <-died:
	case <-time.After(10 * time.Second):
		t.Fatal("it ended, and nobody saw it")
	}
	p.fault.Lock() // until it is started again
	defer p.fault.Unlock()
	if len(ends) != 2 {
		t.Errorf("started %d times, want 2", len(ends))
	}
}

func reviewOf(signal string) string { return ids.Derive("rv", project, signal) }

// Whoever trusts the judge wants to know that it sees each kind of damage.
func TestTheJudgeSeesDamage(t *testing.T) {
	var out bytes.Buffer
	var want []Finding
	damage := func(check, kind, id string) { want = append(want, Finding{Check: check, Kind: kind, ID: id}) }
	tamper := func(ctx context.Context, j *judge) error {
		var errs []error
		sql := func(query string) {
			if err := j.db.Exec(ctx, query); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", query, err))
			}
		}
		const events, signals, decisions = "events in ClickHouse", "signals in ClickHouse", "decisions in ClickHouse"
		sent := func(via string, place int) string {
			for n := range j.load.sessions {
				if j.load.protocol(n) == via {
					return eventID(n, place)
				}
			}
			errs = append(errs, fmt.Errorf("no session is sent over %s", via))
			return ""
		}
		id := sent(viaHTTP, 3)
		sql("ALTER TABLE events_log DELETE WHERE event_id = '" + id + "' SETTINGS mutations_sync = 2")
		damage(events, lost, id)
		sql("INSERT INTO events_log SELECT * REPLACE ('e-9999999-00' AS event_id) FROM (SELECT * FROM events_log WHERE event_id = '" + sent(viaHTTP, 4) + "')")
		damage(events, unknown, "e-9999999-00")
		id = sent(viaHTTP, 5)
		sql("INSERT INTO events_log SELECT * REPLACE (occurred_at + INTERVAL 3 MONTH AS occurred_at) FROM events_log WHERE event_id = '" + id + "'")
		damage(events, doubled, id)
		id = sent(viaGRPC, 6)
		sql("INSERT INTO events_log SELECT * REPLACE (revision + 1 AS revision, concat(payload, unhex('2a0178')) AS payload) FROM events_log WHERE event_id = '" + id + "'")
		damage(events, different, id)

		// Spans, which are known by their session and turn.
		turn := func(via string, place int) string {
			return "session_id = 's-" + sent(via, 0)[2:9] + "' AND interaction_id = '" + turnID(place) + "' AND type = 'interaction'"
		}
		sql("ALTER TABLE events_log DELETE WHERE " + turn(viaOTLP, 3) + " SETTINGS mutations_sync = 2")
		damage(events, lost, sent(viaOTLP, 3))
		sql("INSERT INTO events_log SELECT * REPLACE ('ev_x' AS event_id) FROM (SELECT * FROM events_log WHERE " + turn(viaOTLP, 4) + ")")
		damage(events, doubled, "ev_x")
		sql("INSERT INTO events_log SELECT * REPLACE ('ev_y' AS event_id, revision + 1 AS revision, concat(payload, unhex('420178')) AS payload) FROM events_log WHERE " + turn(viaOTLPGRPC, 5))
		damage(events, different, "ev_y")

		// Signals that hold, one for each damage.
		var hold []reading
		for n := range j.load.sessions {
			for _, s := range j.load.signals(n) {
				if s.kind == "explicit" && s.category == "unsafe" {
					hold = append(hold, s)
				}
			}
		}
		sql("ALTER TABLE signals_log DELETE WHERE signal_id = '" + hold[0].id + "' SETTINGS mutations_sync = 2")
		damage(signals, lost, hold[0].id)
		sql("INSERT INTO signals_log SELECT * REPLACE ('sg_x' AS signal_id) FROM (SELECT * FROM signals_log WHERE signal_id = '" + hold[1].id + "')")
		damage(signals, unknown, "sg_x")
		sql("INSERT INTO decisions_log SELECT * REPLACE ('dc_x' AS decision_id) FROM decisions_log WHERE signal_id = '" + hold[1].id + "' AND superseded_by = 0")
		damage(decisions, doubled, hold[1].id)
		sql("ALTER TABLE decisions_log DELETE WHERE signal_id = '" + hold[2].id + "' SETTINGS mutations_sync = 2")
		damage(decisions, lost, hold[2].id)
		sql("ALTER TABLE reviews_log DELETE WHERE signal_id = '" + hold[3].id + "' SETTINGS mutations_sync = 2")
		check := "open reviews in ClickHouse"
		if slices.ContainsFunc(j.words[reviewOf(hold[3].id)], func(w *word) bool { return w.told != nil }) {
			check = "closed reviews in ClickHouse"
		}
		damage(check, lost, hold[3].id)

		gone := func(class, id string) {
			req, err := http.NewRequestWithContext(ctx, http.MethodDelete, j.weaviate+"/v1/objects/"+class+"/"+ids.UUID(project, id)+"?tenant=p-"+project, nil)
			if err != nil {
				errs = append(errs, err)
				return
			}
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				errs = append(errs, err)
				return
			}
			errs = append(errs, resp.Body.Close())
		}
		gone("HoneExchange", hold[4].id)
		damage("exchanges in Weaviate", lost, hold[4].id)

		// Decisions of reviewers that gave an answer, on other signals.
		var said []*word
		signalOf := map[string]string{}
		for n := range j.load.sessions {
			for _, s := range j.load.signals(n) {
				words := j.words[reviewOf(s.id)]
				if len(words) == 1 && words[0].told.GetVerdict() == "correct" && !slices.Contains(hold[:6], s) {
					said = append(said, words[0])
					signalOf[reviewOf(s.id)] = s.id
				}
			}
		}
		if len(said) < 7 {
			return fmt.Errorf("only %d decisions to damage", len(said))
		}
		const words, examples, reviewed = "decisions of reviewers", "answers of reviewers in dataset_rows", "decisions of reviewers in Weaviate"
		review := func(i int) string { return said[i].req.ReviewId }
		said[0].req.Answer += "x"
		damage(words, different, review(0))
		j.words[review(1)] = append(j.words[review(1)], said[1])
		damage(words, doubled, review(1))
		j.words["rv_x"] = []*word{said[1]}
		damage(words, lost, "rv_x")
		sql("ALTER TABLE review_decisions_log DELETE WHERE review_id = '" + review(2) + "' SETTINGS mutations_sync = 2")
		damage("closed reviews in ClickHouse", different, signalOf[review(2)])
		sql("ALTER TABLE dataset_rows_log DELETE WHERE review_id = '" + review(3) + "' SETTINGS mutations_sync = 2")
		damage(examples, lost, review(3))
		sql("ALTER TABLE dataset_rows_log UPDATE chosen = 'x' WHERE review_id = '" + review(4) + "' SETTINGS mutations_sync = 2")
		damage(examples, different, review(4))
		gone("HoneAnswer", review(5))
		damage(reviewed, lost, review(5))
		sql("ALTER TABLE cases_log UPDATE payload = '' WHERE case_id = '" + said[6].told.CaseId + "' SETTINGS mutations_sync = 2")
		damage("answers of cases in ClickHouse", lost, said[6].told.CaseId)

		// Decisions of the rule that holds, and more than the rule with a limit may take.
		var held []*policyv1.Decision
		errs = append(errs, j.each(ctx, "SELECT payload FROM decisions_log FINAL WHERE superseded_by = 0 AND rule = '"+ruleHeld+"'", func(scan func(...any) error) error {
			var payload string
			d := &policyv1.Decision{}
			if err := scan(&payload); err != nil {
				return err
			}
			held = append(held, d)
			return proto.Unmarshal([]byte(payload), d)
		}))
		var large, day string
		errs = append(errs, j.db.QueryRow(ctx, "SELECT case_id FROM cases WHERE negatives >= 3 LIMIT 1").Scan(&large),
			j.db.QueryRow(ctx, "SELECT toString(toDate(max(occurred_at))) FROM decisions_log").Scan(&day))
		if len(held) < 3 {
			return fmt.Errorf("only %d decisions by the rule that holds", len(held))
		}
		for i, change := range []func(*policyv1.Decision){
			func(d *policyv1.Decision) { d.ReleasedFrom = "dc_none" },
			func(d *policyv1.Decision) {
				d.HoldUntil, d.Routes, d.CaseId, d.ReleasedFrom = heldUntil, nil, large, ""
			},
			func(d *policyv1.Decision) {
				d.HoldUntil, d.Routes, d.ReleasedFrom = heldUntil, []string{"human-review"}, ""
			},
		} {
			change(held[i])
			payload, err := proto.Marshal(held[i])
			if err != nil {
				return err
			}
			sql(fmt.Sprintf("ALTER TABLE decisions_log UPDATE payload = unhex('%x') WHERE decision_id = '%s' SETTINGS mutations_sync = 2", payload, held[i].DecisionId))
			damage("held and released signals", []string{unknown, lost, different}[i], held[i].SignalId)
		}
		sql("INSERT INTO decisions_log SELECT * REPLACE (concat('sg_', toString(rowNumberInAllBlocks())) AS signal_id, '" + ruleLimited + "' AS rule, 1 AS superseded_by, " +
			"(SELECT max(occurred_at) FROM decisions_log) AS occurred_at) FROM decisions_log LIMIT 20")
		damage("days of the rule with a limit", different, day)

		tel, err := telemetry.New(os.Stderr, 0)
		if err != nil {
			return err
		}
		defer tel.Close()
		pub, err := stream.NewPublisher(j.kafka, tel)
		if err != nil {
			return err
		}
		defer pub.Close()
		value, err := proto.Marshal(&curationv1.CurationEvent{CurationId: "cu_y", ProjectId: project, OccurredAt: timestamppb.Now(),
			Payload: &curationv1.CurationEvent_ReviewDecided{ReviewDecided: &curationv1.ReviewDecided{ReviewId: "rv_y", Verdict: "dismiss", DecidedAt: timestamppb.Now()}}})
		if err != nil {
			return err
		}
		// Of another project, so that this one's cases do not hear of it.
		other, err := proto.Marshal(&curationv1.CurationEvent{CurationId: "cu_z", ProjectId: "other", OccurredAt: timestamppb.Now(),
			Payload: &curationv1.CurationEvent_CaseSummarized{CaseSummarized: &curationv1.CaseSummarized{CaseId: "cs_z", Title: "z"}}})
		if err != nil {
			return err
		}
		// First, since the curator makes dead letters of what comes next.
		errs = append(errs, pub.Publish(ctx, stage.Record{Topic: stream.TopicDeadLetter, Value: []byte("x")}))
		damage("dead letters", unknown, "0")
		const topic = "events on " + stream.TopicRouteHumanReview
		event := func(id, subject, kind string, revision int) stage.Record {
			return stage.Record{Topic: stream.TopicRouteHumanReview, Key: []byte("default/x"), Value: fmt.Appendf(nil,
				`{"id":%q,"type":%q,"subject":%q,"data":{"signal_revision":%d}}`, id, kind, subject, revision)}
		}
		errs = append(errs, pub.Publish(ctx, event("re_x", "sg_y", "hone.route.v1", 1), event("re_y", hold[5].id, "hone.route.withdrawn.v1", 1000)))
		damage(topic, unknown, "sg_y")
		damage(topic, lost, hold[5].id)
		errs = append(errs, pub.Publish(ctx, stage.Record{Topic: stream.TopicCuration, Key: []byte(project), Value: value}))
		damage(words, unknown, "rv_y")
		errs = append(errs, pub.Publish(ctx, stage.Record{Topic: stream.TopicCuration, Key: []byte("other"), Value: other}))
		damage("merges, splits and words of cases", lost, "cu_z")
		for _, err := range errs {
			if err != nil {
				return err
			}
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	report, err := Run(ctx, Options{Events: 2000, Kills: 1, Gap: time.Second, Only: []string{"router"}, Short: true, Seed: 3, Reviews: 30, Dir: t.TempDir(), Progress: 10 * time.Second, Out: &out, tamper: tamper})
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, w := range want {
		if !slices.ContainsFunc(report.Findings, func(f Finding) bool { return f.Check == w.Check && f.Kind == w.Kind && f.ID == w.ID }) {
			t.Errorf("the judge does not see that %s is %s in %s", w.ID, w.Kind, w.Check)
		}
	}
	if t.Failed() {
		t.Log(out.String())
	}
}
