package faults

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"google.golang.org/protobuf/proto"

	"github.com/honeloop/hone/pkg/ids"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	curationv1 "github.com/honeloop/hone/proto/gen/go/hone/curation/v1"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"
)

// Faults that a judge finds.
const (
	lost      = "lost"
	doubled   = "doubled"
	unknown   = "unknown"
	different = "different"
)

// Finding is one thing that is not as it must be.
type Finding struct {
	Check, Kind, ID, What string
}

// Verdict is one line of the table.
type Verdict struct {
	Check           string
	Expected, Found int
	By              map[string]int // findings by kind
}

// keptFindings bounds what is printed of each check.
const keptFindings = 20

type judge struct {
	load     load
	accepted *bitmap
	db       driver.Conn
	kafka    stream.Config
	weaviate string
	words    map[string][]*word // of reviewers

	verdicts []*Verdict
	findings []Finding
	// What holds, by signal; filled by trail, read by the later checks. Only
	// signals are held in memory, not events.
	holds map[string]*held
	// The decisions on reviews that hold, and the signals of all reviews; filled by
	// decided.
	stands map[string]*curationv1.CurationEvent
	// What became of cases and held signals, to be told; filled by passes and
	// heldSignals.
	changes  map[string]int
	signalOf map[string]string
}

// held is a signal as the trail has it, and what was decided on it.
type held struct {
	signal   *reading // nil where the load has no such signal
	revision uint32
	// The newest revision says that it does not hold.
	withdrawn bool
	decision  string
	routes    []string
	caseID    string
	negative  bool
}

func (j *judge) check(name string) *Verdict {
	v := &Verdict{Check: name, By: map[string]int{}}
	j.verdicts = append(j.verdicts, v)
	return v
}

func (j *judge) find(v *Verdict, kind, id, format string, args ...any) {
	v.By[kind]++
	if n := v.By[lost] + v.By[doubled] + v.By[unknown] + v.By[different]; n <= keptFindings {
		j.findings = append(j.findings, Finding{v.Check, kind, id, fmt.Sprintf(format, args...)})
	}
}

// judge compares everything with what was sent. An error means that it could
// not look.
func (j *judge) judge(ctx context.Context) error {
	j.holds, j.changes = map[string]*held{}, map[string]int{}
	for _, look := range []func(context.Context) error{j.events, j.signals, j.decisions, j.exchanges, j.routeTopics, j.tables, j.cases,
		j.heldSignals, j.limits, j.passes, j.decided, j.reviews, j.examples, j.answers, j.deadLetters} {
		if err := look(ctx); err != nil {
			return err
		}
	}
	return nil
}

// sessionsPerRead bounds what one query returns.
const sessionsPerRead = 5000

// bySessions calls read for one range of session ids after another. The first
// and the last are open, so that no id escapes.
func (j *judge) bySessions(read func(first, end int, where string) error) error {
	for first := 0; first < j.load.sessions; first += sessionsPerRead {
		end := min(first+sessionsPerRead, j.load.sessions)
		var where []string
		if first > 0 {
			where = append(where, fmt.Sprintf("session_id >= '%s'", sessionID(first)))
		}
		if end < j.load.sessions {
			where = append(where, fmt.Sprintf("session_id < '%s'", sessionID(end)))
		}
		if len(where) == 0 {
			where = []string{"1"}
		}
		if err := read(first, end, strings.Join(where, " AND ")); err != nil {
			return err
		}
	}
	return nil
}

// each runs a query and calls row for every row.
func (j *judge) each(ctx context.Context, query string, row func(scan func(...any) error) error) error {
	rows, err := j.db.Query(ctx, query)
	if err != nil {
		return fmt.Errorf("query %q: %w", query, err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := row(rows.Scan); err != nil {
			return fmt.Errorf("query %q: %w", query, err)
		}
	}
	return rows.Err()
}

// events looks whether each accepted event is in the trail once, as it was sent.
func (j *judge) events(ctx context.Context) error {
	v := j.check("events in ClickHouse")
	v.Expected = j.accepted.count()
	err := j.bySessions(func(first, end int, where string) error {
		seen := newBitmap((end - first) * perSession)
		atSession, sent := -1, map[string]*eventv1.Event{}
		// The payload is in the log alone; the newest row is the one that the view
		// shows, and the view says that there is one.
		err := j.each(ctx, `SELECT v.project_id, v.session_id, v.event_id, l.payload FROM
			(SELECT project_id, session_id, event_id FROM events WHERE `+where+`) AS v
			LEFT JOIN (SELECT project_id, session_id, event_id, argMax(payload, revision) AS payload FROM events_log WHERE `+where+`
				GROUP BY project_id, session_id, event_id) AS l USING (project_id, session_id, event_id)
			ORDER BY v.session_id, v.event_id`,
			func(scan func(...any) error) error {
				var inProject, inSession, id, payload string
				if err := scan(&inProject, &inSession, &id, &payload); err != nil {
					return err
				}
				v.Found++
				var got eventv1.Event
				if err := proto.Unmarshal([]byte(payload), &got); err != nil {
					j.find(v, different, id, "payload cannot be read: %v", err)
					return nil
				}
				n, place, ok := j.load.placeOf(&got, id)
				if !ok || n < first || n >= end || !j.accepted.has(n*perSession+place) || inProject != project || inSession != sessionID(n) {
					j.find(v, unknown, id, "in project %q, session %q, and nobody saw it accepted", inProject, inSession)
					return nil
				}
				if seen.set((n-first)*perSession + place) {
					j.find(v, doubled, id, "%s is there twice", eventID(n, place))
				}
				if n != atSession {
					atSession = n
					clear(sent)
					for _, e := range j.load.session(n) {
						sent[e.EventId] = e
					}
				}
				want, have, source := sent[eventID(n, place)], &got, viaHTTP
				if j.load.spans(n) && got.GetInteraction() != nil {
					want, have, source = spoken(want), spoken(have), viaOTLP
				} else if j.load.protocol(n) == viaGRPC {
					source = viaGRPC
				}
				same, err := sameContent(want, have)
				if err != nil || !same {
					j.find(v, different, id, "payload is not as it was sent: %v, sent %v, error %v", have, want, err)
				}
				if got.ProjectId != project || got.Source != source || got.ReceivedAt == nil {
					j.find(v, different, id, "project %q, source %q, received at %v", got.ProjectId, got.Source, got.ReceivedAt)
				}
				return nil
			})
		if err != nil {
			return err
		}
		for n := first; n < end; n++ {
			for place := range perSession {
				if j.accepted.has(n*perSession+place) && !seen.has((n-first)*perSession+place) {
					j.find(v, lost, eventID(n, place), "accepted, and not in the trail")
				}
			}
		}
		return nil
	})
	return err
}

// signals looks whether each session gave its signals.
func (j *judge) signals(ctx context.Context) error {
	v := j.check("signals in ClickHouse")
	return j.bySessions(func(first, end int, where string) error {
		want := map[string]*reading{}
		for n := first; n < end; n++ {
			for _, s := range j.load.signals(n) {
				want[s.id] = &s
				if !s.withdrawn {
					v.Expected++
				}
			}
		}
		// Of what was withdrawn the log alone knows.
		err := j.each(ctx, "SELECT signal_id, max(revision), argMax(withdrawn, revision) FROM signals_log WHERE "+where+" GROUP BY signal_id",
			func(scan func(...any) error) error {
				var id string
				h := &held{}
				if err := scan(&id, &h.revision, &h.withdrawn); err != nil {
					return err
				}
				h.signal = want[id]
				j.holds[id] = h
				return nil
			})
		if err != nil {
			return err
		}
		seen := map[string]bool{}
		err = j.each(ctx, `SELECT signal_id, revision, session_id, interaction_id, kind, waiting, polarity, category, correction, comment, query
			FROM signals WHERE `+where,
			func(scan func(...any) error) error {
				var got reading
				var revision uint32
				var waiting bool
				if err := scan(&got.id, &revision, &got.session, &got.interaction, &got.kind, &waiting, &got.polarity, &got.category, &got.correction, &got.comment, &got.query); err != nil {
					return err
				}
				v.Found++
				w := want[got.id]
				switch {
				case w == nil:
					j.find(v, unknown, got.id, "%+v", got)
				case seen[got.id]:
					j.find(v, doubled, got.id, "the view shows it twice")
				case w.withdrawn:
					j.find(v, unknown, got.id, "it was taken back, and still holds: %+v", got)
				case waiting || got != *w:
					j.find(v, different, got.id, "waiting %t, %+v, want %+v", waiting, got, *w)
				case j.holds[got.id] == nil || j.holds[got.id].revision != revision:
					j.find(v, different, got.id, "the view shows revision %d, the log has %+v", revision, j.holds[got.id])
				}
				seen[got.id] = true
				if h := j.holds[got.id]; h != nil {
					h.negative = got.polarity == "negative"
				}
				return nil
			})
		for id, s := range want {
			if !s.withdrawn && !seen[id] {
				j.find(v, lost, id, "session %s, interaction %s, %s %s", s.session, s.interaction, s.kind, s.polarity)
			}
		}
		return err
	})
}

// decisions looks whether one decision holds for each signal, about its newest
// revision.
func (j *judge) decisions(ctx context.Context) error {
	v := j.check("decisions in ClickHouse")
	err := j.bySessions(func(first, end int, where string) error {
		return j.each(ctx, "SELECT signal_id, decision_id, signal_revision, routes, case_id, rule, hold_until FROM decisions WHERE NOT superseded AND "+where,
			func(scan func(...any) error) error {
				var id, decision, caseID, rule string
				var revision, until uint32
				var routes []string
				if err := scan(&id, &decision, &revision, &routes, &caseID, &rule, &until); err != nil {
					return err
				}
				v.Found++
				h := j.holds[id]
				switch {
				case h == nil || h.signal == nil:
					j.find(v, unknown, id, "decision %s by rule %s", decision, rule)
					return nil
				case h.decision != "":
					j.find(v, doubled, id, "decisions %s and %s both hold", h.decision, decision)
					return nil
				case revision != h.revision:
					j.find(v, different, id, "decision %s is about revision %d, the newest is %d", decision, revision, h.revision)
				case h.withdrawn && len(routes) > 0:
					j.find(v, different, id, "withdrawn, and decision %s routes it to %v", decision, routes)
				case !fits(h.signal, routes, until):
					j.find(v, different, id, "%+v by rule %s to %v, held until %d", *h.signal, rule, routes, until)
				}
				h.decision, h.routes, h.caseID = decision, routes, caseID
				return nil
			})
	})
	for id, h := range j.holds {
		if h.signal == nil || h.withdrawn && h.decision == "" {
			continue // not of the load, which signals has said; or withdrawn before anybody heard of it
		}
		v.Expected++
		if h.decision == "" {
			j.find(v, lost, id, "revision %d of %+v has no decision that holds", h.revision, *h.signal)
		}
	}
	return err
}

// fits says whether the policy can route a signal so, as far as that does not
// depend on its case, or on others.
func fits(s *reading, routes []string, until uint32) bool {
	if s.kind == "explicit" && s.polarity == "negative" && s.category == "outdated" {
		return until == 0 && slices.Equal(routes, []string{"human-review"}) || until == heldUntil && len(routes) == 0
	}
	switch {
	case until != 0:
		return false
	case s.withdrawn || s.polarity == "positive":
		return len(routes) == 0
	case s.kind == "preference":
		return slices.Equal(routes, []string{"fine-tune"})
	case s.category == "unsafe":
		return slices.Equal(routes, []string{"human-review"})
	case s.category == "product_problem":
		return slices.Equal(routes, []string{"product"})
	}
	return len(routes) > 0
}

// exchanges looks whether Weaviate has one for each signal, about its newest
// revision and in the case that was decided on.
func (j *judge) exchanges(ctx context.Context) error {
	v := j.check("exchanges in Weaviate")
	seen := map[string]bool{}
	err := j.objects(ctx, "HoneExchange", func(object string, properties, payload []byte) error {
		var p struct {
			SignalID  string `json:"signal_id"`
			CaseID    string `json:"case_id"`
			Withdrawn bool
		}
		if err := json.Unmarshal(properties, &p); err != nil {
			return fmt.Errorf("read exchange %s: %w", object, err)
		}
		v.Found++
		id := p.SignalID
		h := j.holds[id]
		if h == nil || h.signal == nil {
			j.find(v, unknown, id, "exchange %s", object)
			return nil
		}
		if seen[id] || object != ids.UUID(project, id) {
			j.find(v, doubled, id, "exchange %s", object)
		}
		seen[id] = true
		var e casesv1.Exchange
		if err := proto.Unmarshal(payload, &e); err != nil {
			j.find(v, different, id, "exchange %s cannot be read: %v", object, err)
			return nil
		}
		if s := e.GetPublished().GetSignal(); s.GetRevision() != h.revision || s.GetWithdrawn() != h.withdrawn || p.Withdrawn != h.withdrawn {
			j.find(v, different, id, "exchange has revision %d, withdrawn %t; the newest is %d, withdrawn %t", s.GetRevision(), s.GetWithdrawn(), h.revision, h.withdrawn)
		} else if !h.withdrawn && len(e.GetMoves()) > 0 {
			h.caseID = p.CaseID // moved there after the decision, by a merge or split
		} else if !h.withdrawn && p.CaseID != h.caseID {
			j.find(v, different, id, "exchange is in case %q, the decision says %q", p.CaseID, h.caseID)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for id, h := range j.holds {
		if h.signal == nil || h.withdrawn && !seen[id] {
			continue
		}
		v.Expected++
		if !seen[id] {
			j.find(v, lost, id, "%+v has no exchange", *h.signal)
		}
	}
	return nil
}

// routeTopics reads the route topics as a consumer does: by subject, the
// newest revision counts, and an id that comes again is the same event.
func (j *judge) routeTopics(ctx context.Context) error {
	for _, route := range []string{"prompt-patch", "fine-tune", "human-review", "product"} {
		v := j.check("events on " + stream.RouteTopic(route))
		type newest struct {
			revision     uint32
			id, decision string
			active       bool
		}
		subjects := map[string]newest{}
		err := stream.Scan(ctx, j.kafka, stream.RouteTopic(route), stream.ScanFrom{}, func(_ context.Context, r stage.Record) error {
			var e struct {
				ID, Type, Subject string
				Data              struct {
					Revision uint32 `json:"signal_revision"`
					Decision string `json:"decision_id"`
					Route    string
				}
			}
			if err := json.Unmarshal(r.Value, &e); err != nil {
				j.find(v, different, fmt.Sprintf("%s/%d/%d", r.Topic, r.Partition, r.Offset), "cannot be read: %v", err)
				return nil
			}
			n := newest{e.Data.Revision, e.ID, e.Data.Decision, e.Type == "hone.route.v1"}
			old, known := subjects[e.Subject]
			switch {
			case known && old.revision > n.revision:
			case known && old.revision == n.revision && old.id != n.id:
				j.find(v, doubled, e.Subject, "events %s and %s are both about revision %d", old.id, n.id, n.revision)
			default:
				subjects[e.Subject] = n
			}
			return nil
		})
		if err != nil {
			return err
		}
		for id, n := range subjects {
			if n.active {
				v.Found++
			}
			h := j.holds[id]
			switch {
			case h == nil || h.signal == nil:
				j.find(v, unknown, id, "event %s", n.id)
			case n.active && !slices.Contains(h.routes, route):
				j.find(v, different, id, "event %s of decision %s is not withdrawn, but decision %s says %v", n.id, n.decision, h.decision, h.routes)
			case n.active && (n.decision != h.decision || n.revision != h.revision):
				j.find(v, different, id, "event %s is of decision %s, revision %d; what holds is %s, revision %d", n.id, n.decision, n.revision, h.decision, h.revision)
			}
		}
		for id, h := range j.holds {
			if !slices.Contains(h.routes, route) {
				continue
			}
			v.Expected++
			if n, ok := subjects[id]; !ok || !n.active {
				j.find(v, lost, id, "decision %s routes it here, and the topic's newest is %+v", h.decision, n)
			}
		}
	}
	return nil
}

// tables looks whether what the curator keeps, but for reviews, is what was routed
// to it.
func (j *judge) tables(ctx context.Context) error {
	for _, t := range []struct{ name, where, route string }{
		{"dataset_rows", "source != 'review'", "fine-tune"},
		{"patches", "1", "prompt-patch"},
		{"product_issues", "1", "product"},
	} {
		v := j.check(t.name + " in ClickHouse")
		seen := map[string]bool{}
		err := j.each(ctx, "SELECT signal_id, decision_id FROM "+t.name+" WHERE "+t.where, func(scan func(...any) error) error {
			var id, decision string
			if err := scan(&id, &decision); err != nil {
				return err
			}
			v.Found++
			h := j.holds[id]
			switch {
			case h == nil || h.signal == nil:
				j.find(v, unknown, id, "of decision %s", decision)
			case seen[id]:
				j.find(v, doubled, id, "two rows")
			case !slices.Contains(h.routes, t.route):
				j.find(v, different, id, "of decision %s, but %s holds and says %v", decision, h.decision, h.routes)
			case decision != h.decision:
				j.find(v, different, id, "of decision %s, but %s holds", decision, h.decision)
			}
			seen[id] = true
			return nil
		})
		if err != nil {
			return err
		}
		for id, h := range j.holds {
			if h.signal == nil || !slices.Contains(h.routes, t.route) {
				continue
			}
			// An example needs an answer to learn.
			if t.name == "dataset_rows" && h.signal.correction == "" && h.signal.kind != "preference" {
				continue
			}
			v.Expected++
			if !seen[id] {
				j.find(v, lost, id, "decision %s routes it to %v", h.decision, h.routes)
			}
		}
	}
	return nil
}

// cases looks whether the newest snapshot of each case counts its members.
func (j *judge) cases(ctx context.Context) error {
	v := j.check("cases in ClickHouse")
	want := map[string]int{}
	for _, h := range j.holds {
		if h.caseID != "" && h.negative && !h.withdrawn {
			want[h.caseID]++
		}
	}
	v.Expected = len(want)
	seen := map[string]bool{}
	err := j.each(ctx, "SELECT case_id, negatives FROM cases WHERE state != 'merged' OR negatives > 0", func(scan func(...any) error) error {
		var id string
		var negatives uint32
		if err := scan(&id, &negatives); err != nil {
			return err
		}
		v.Found++
		switch {
		case seen[id]:
			j.find(v, doubled, id, "the view shows it twice")
		case want[id] == 0:
			j.find(v, unknown, id, "it counts %d negative signals, and none is in it", negatives)
		case want[id] != int(negatives):
			j.find(v, different, id, "it counts %d negative signals, and has %d", negatives, want[id])
		}
		seen[id] = true
		return nil
	})
	for id, n := range want {
		if !seen[id] {
			j.find(v, lost, id, "%d negative signals are in it", n)
		}
	}
	return err
}

// deadLetters looks whether there is any: no event of a load deserves it.
func (j *judge) deadLetters(ctx context.Context) error {
	v := j.check("dead letters")
	return stream.Scan(ctx, j.kafka, stream.TopicDeadLetter, stream.ScanFrom{}, func(_ context.Context, r stage.Record) error {
		v.Found++
		d, err := stream.ParseDeadLetter(r)
		if err != nil {
			j.find(v, unknown, fmt.Sprint(r.Offset), "%v", err)
			return nil
		}
		var s signalv1.Signal
		id := fmt.Sprintf("%s/%d/%d", d.Record.Topic, d.Record.Partition, d.Record.Offset)
		if d.Record.Topic == stream.TopicSignals && proto.Unmarshal(d.Record.Value, &s) == nil {
			id += " " + s.SignalId
		}
		j.find(v, unknown, id, "stage %s, after %d attempts: %s", d.Stage, d.Attempts, d.Cause)
		return nil
	})
}
