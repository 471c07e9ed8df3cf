package faults

import (
	"bytes"
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/honeloop/hone/pkg/ids"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	curationv1 "github.com/honeloop/hone/proto/gen/go/hone/curation/v1"
)

// says is what a decision says, in words that can be compared.
type says struct{ verdict, answer, clarification, note, reviewer string }

func saysOf(d *curationv1.ReviewDecided) says {
	return says{d.GetVerdict(), d.GetAnswer(), d.GetClarification(), d.GetNote(), d.GetReviewer()}
}

// asks says whether a decision is what a reviewer sent, on a signal of the load.
func (w *word) asks(s says, l load, h *held) bool {
	want := says{w.req.GetVerdict(), w.req.GetAnswer(), w.req.GetClarification(), w.req.GetNote(), w.req.GetReviewer()}
	if want.verdict == "approve" {
		// Of which revision depends on when it was decided.
		if h == nil || h.signal == nil || !slices.Contains(l.answers(h.signal), s.answer) {
			return false
		}
		want.answer = s.answer
	}
	return s == want
}

// answers are what an approval can approve: what the user corrected it to, at some
// time, or the output.
func (l load) answers(s *reading) []string {
	var session int
	if _, err := fmt.Sscanf(s.session, "s-%d", &session); err != nil {
		return nil
	}
	var out []string
	for _, e := range l.session(session) {
		if e.InteractionId != s.interaction {
			continue
		}
		if x := e.GetInteraction(); x != nil {
			out = append(out, x.GetOutput())
		} else if c := e.GetFeedback().GetCorrection(); c != "" {
			out = append(out, c)
		}
	}
	return out
}

// decided looks whether the first decision on each review in the log is the one
// that its reviewer was told stands, and whether others heard that it is not
// theirs. What stands is what later checks compare with.
func (j *judge) decided(ctx context.Context) error {
	v := j.check("decisions of reviewers")
	j.stands = map[string]*curationv1.CurationEvent{}
	j.signalOf = map[string]string{}
	for id := range j.holds {
		j.signalOf[ids.Derive("rv", project, id)] = id // as the curator derives it
	}
	err := stream.Scan(ctx, j.kafka, stream.TopicCuration, stream.ScanFrom{}, func(_ context.Context, r stage.Record) error {
		e := &curationv1.CurationEvent{}
		if err := proto.Unmarshal(r.Value, e); err != nil {
			j.find(v, different, fmt.Sprintf("%s/%d/%d", r.Topic, r.Partition, r.Offset), "cannot be read: %v", err)
			return nil
		}
		if review := e.GetReviewDecided().GetReviewId(); review != "" && j.stands[review] == nil {
			j.stands[review] = e
		}
		return nil
	})
	if err != nil {
		return err
	}
	v.Found = len(j.stands)
	for review, e := range j.stands {
		said := saysOf(e.GetReviewDecided())
		words := j.words[review]
		i := slices.IndexFunc(words, func(w *word) bool { return w.req.GetReviewer() == said.reviewer })
		switch {
		case i < 0:
			j.find(v, unknown, review, "nobody sent %+v", said)
		case !words[i].asks(said, j.load, j.holds[j.signalOf[review]]):
			j.find(v, different, review, "sent %v, and in the log is %+v", words[i].req, said)
		case words[i].told == nil && words[i].refused != codes.OK && !words[i].unsure:
			j.find(v, different, review, "%v got %s, and stands", words[i].req, words[i].refused)
		}
	}
	for review, words := range j.words {
		e := j.stands[review]
		accepted := 0
		for _, w := range words {
			switch {
			case w.told != nil:
				v.Expected++
				accepted++
				if e == nil {
					j.find(v, lost, review, "%v was accepted, and is not in the log", w.req)
				} else if said := saysOf(e.GetReviewDecided()); saysOf(w.told) != said {
					j.find(v, different, review, "its reviewer was told that %+v stands, and it is %+v", saysOf(w.told), said)
				}
			case w.refused == codes.AlreadyExists && (e == nil || e.GetReviewDecided().GetReviewer() == w.req.GetReviewer()):
				j.find(v, different, review, "%v was told that another decision stands, and there is none", w.req)
			}
		}
		if accepted > 1 {
			j.find(v, doubled, review, "%d reviewers were told that theirs stands", accepted)
		}
		if accepted == 0 && e != nil {
			v.Expected++ // an answer did not come, and then the signal was withdrawn
		}
	}
	return nil
}

// reviews looks whether each signal that is routed to review has an open one, and
// each that was decided the verdict that stands.
func (j *judge) reviews(ctx context.Context) error {
	open, closed := j.check("open reviews in ClickHouse"), j.check("closed reviews in ClickHouse")
	seen := map[string]bool{}
	err := j.each(ctx, "SELECT review_id, signal_id, decision_id, state, withdrawn, verdict, answer, clarification, note, reviewer FROM reviews",
		func(scan func(...any) error) error {
			var review, signal, decision, state string
			var withdrawn bool
			var got says
			if err := scan(&review, &signal, &decision, &state, &withdrawn, &got.verdict, &got.answer, &got.clarification, &got.note, &got.reviewer); err != nil {
				return err
			}
			v, h, e := open, j.holds[signal], j.stands[review]
			if e != nil {
				v = closed
			}
			if state != "withdrawn" {
				v.Found++
			}
			if h == nil || h.signal == nil || j.signalOf[review] != signal {
				j.find(v, unknown, signal, "review %s, %s, of decision %s", review, state, decision)
				return nil
			}
			routed := slices.Contains(h.routes, "human-review")
			want := "withdrawn"
			switch {
			case e != nil:
				want = map[string]string{"approve": "approved", "correct": "corrected", "dismiss": "dismissed"}[e.GetReviewDecided().GetVerdict()]
			case routed:
				want = "open"
			}
			switch {
			case seen[review]:
				j.find(v, doubled, signal, "review %s is there twice", review)
			case state != want || withdrawn == routed:
				j.find(v, different, signal, "review %s is %s, withdrawn %t; want %s; decision %s holds and says %v", review, state, withdrawn, want, h.decision, h.routes)
			case routed && decision != h.decision:
				j.find(v, different, signal, "review %s is of decision %s, but %s holds", review, decision, h.decision)
			case got != saysOf(e.GetReviewDecided()):
				j.find(v, different, signal, "review %s says %+v, the log %+v", review, got, saysOf(e.GetReviewDecided()))
			}
			seen[review] = true
			return nil
		})
	for review, signal := range j.signalOf {
		h, v := j.holds[signal], open
		switch {
		case j.stands[review] != nil:
			v = closed
		case h.signal == nil || !slices.Contains(h.routes, "human-review"):
			continue
		}
		v.Expected++
		if !seen[review] {
			j.find(v, lost, signal, "review %s; decision %s routes it to %v", review, h.decision, h.routes)
		}
	}
	return err
}

// examples looks whether each answer of a reviewer is an example for training,
// beside the question that it is for.
func (j *judge) examples(ctx context.Context) error {
	v := j.check("answers of reviewers in dataset_rows")
	seen := map[string]bool{}
	err := j.each(ctx, "SELECT review_id, signal_id, query, chosen, rejected FROM dataset_rows WHERE source = 'review'", func(scan func(...any) error) error {
		var review, signal, query, chosen, rejected string
		if err := scan(&review, &signal, &query, &chosen, &rejected); err != nil {
			return err
		}
		v.Found++
		d, h := j.stands[review].GetReviewDecided(), j.holds[signal]
		switch {
		case d == nil || d.GetVerdict() == "dismiss" || h == nil || h.signal == nil || j.signalOf[review] != signal:
			j.find(v, unknown, review, "signal %s: %q", signal, chosen)
		case seen[review]:
			j.find(v, doubled, review, "two rows")
		case chosen != d.GetAnswer() || query != h.signal.query || chosen == rejected || rejected != "" && !slices.Contains(j.load.answers(h.signal), rejected):
			j.find(v, different, review, "to %q the answer is %q, not %q; the decision has %q, the question is %q", query, chosen, rejected, d.GetAnswer(), h.signal.query)
		}
		seen[review] = true
		return nil
	})
	for review, e := range j.stands {
		if e.GetReviewDecided().GetVerdict() == "dismiss" {
			continue
		}
		v.Expected++
		if !seen[review] {
			j.find(v, lost, review, "%+v has no example", saysOf(e.GetReviewDecided()))
		}
	}
	return err
}

// answers looks whether Weaviate has each decision that stands, and whether the
// cases have the answers: of several the latest, but where cases were merged any,
// since the one that stays keeps its own.
func (j *judge) answers(ctx context.Context) error {
	v := j.check("decisions of reviewers in Weaviate")
	if len(j.stands) == 0 {
		return j.caseAnswers(ctx) // the tenant comes with the first
	}
	seen := map[string]bool{}
	err := j.answersOf(ctx, "review", func(id string, payload []byte) error {
		v.Found++
		e := &curationv1.CurationEvent{}
		if err := proto.Unmarshal(payload, e); err != nil {
			j.find(v, different, id, "cannot be read: %v", err)
			return nil
		}
		review := e.GetReviewDecided().GetReviewId()
		switch stands := j.stands[review]; {
		case stands == nil:
			j.find(v, unknown, review, "%v", e)
		case seen[review]:
			j.find(v, doubled, review, "object %s", id)
		case !proto.Equal(stands, e):
			j.find(v, different, review, "%v, and what stands is %v", e, stands)
		}
		seen[review] = true
		return nil
	})
	if err != nil {
		return err
	}
	for review, e := range j.stands {
		v.Expected++
		if !seen[review] {
			j.find(v, lost, review, "%+v", saysOf(e.GetReviewDecided()))
		}
	}
	return j.caseAnswers(ctx)
}

func (j *judge) caseAnswers(ctx context.Context) error {
	v := j.check("answers of cases in ClickHouse")
	cases, err := j.snapshots(ctx)
	if err != nil {
		return err
	}
	// The case where what was said about one is now.
	root := func(id string) string {
		for n := 0; cases[id].GetMergedInto() != "" && n < len(cases); n++ {
			id = cases[id].GetMergedInto()
		}
		return id
	}
	merged := map[string]bool{}
	for id, c := range cases {
		if c.GetMergedInto() != "" {
			merged[root(id)] = true
		}
	}
	said := map[string][]*curationv1.CurationEvent{}
	for _, e := range j.stands {
		if d := e.GetReviewDecided(); d.GetVerdict() != "dismiss" && d.GetCaseId() != "" {
			said[root(d.GetCaseId())] = append(said[root(d.GetCaseId())], e)
		}
	}
	v.Expected = len(said)
	for id, c := range cases {
		if c.GetMergedInto() != "" || c.GetReviewId() == "" {
			continue
		}
		v.Found++
		all := said[id]
		i := slices.IndexFunc(all, func(e *curationv1.CurationEvent) bool { return e.GetReviewDecided().GetReviewId() == c.GetReviewId() })
		latest := func() *curationv1.CurationEvent {
			return slices.MaxFunc(all, func(a, b *curationv1.CurationEvent) int {
				return cmp.Or(a.GetOccurredAt().AsTime().Compare(b.GetOccurredAt().AsTime()), cmp.Compare(a.GetCurationId(), b.GetCurationId()))
			})
		}
		switch {
		case i < 0:
			j.find(v, unknown, id, "its answer %q is of review %s", c.GetApprovedAnswer(), c.GetReviewId())
		case all[i].GetReviewDecided().GetAnswer() != c.GetApprovedAnswer():
			j.find(v, different, id, "its answer is %q, that of review %s is %q", c.GetApprovedAnswer(), c.GetReviewId(), all[i].GetReviewDecided().GetAnswer())
		case !merged[id] && latest() != all[i]:
			j.find(v, different, id, "its answer is that of review %s, and the latest is %v", c.GetReviewId(), latest())
		}
	}
	for id, all := range said {
		if cases[id].GetReviewId() == "" {
			j.find(v, lost, id, "%d answers, such as %v; the case is %v", len(all), all[0], cases[id])
		}
	}
	return nil
}

// snapshots are the newest of all cases, those included that have no signals any
// more.
func (j *judge) snapshots(ctx context.Context) (map[string]*casesv1.Case, error) {
	out := map[string]*casesv1.Case{}
	err := j.each(ctx, "SELECT payload FROM cases_log FINAL", func(scan func(...any) error) error {
		var payload string
		c := &casesv1.Case{}
		if err := scan(&payload); err != nil {
			return err
		}
		if err := proto.Unmarshal([]byte(payload), c); err != nil {
			return fmt.Errorf("read a case: %w", err)
		}
		out[c.GetCaseId()] = c
		return nil
	})
	return out, err
}

// objects calls each for every object of a class.
func (j *judge) objects(ctx context.Context, class string, each func(id string, properties, payload []byte) error) error {
	for after := ""; ; {
		q := url.Values{"class": {class}, "tenant": {"p-" + project}, "limit": {"500"}, "after": {after}}
		var body bytes.Buffer
		if err := get(ctx, j.weaviate+"/v1/objects?"+q.Encode(), &body); err != nil {
			return fmt.Errorf("list objects of %s: %w", class, err)
		}
		var page struct {
			Objects []struct {
				ID         string
				Properties json.RawMessage
			}
		}
		if err := json.Unmarshal(body.Bytes(), &page); err != nil {
			return fmt.Errorf("list objects of %s: %w", class, err)
		}
		if len(page.Objects) == 0 {
			return nil
		}
		for _, o := range page.Objects {
			after = o.ID
			var p struct{ Payload string }
			if err := json.Unmarshal(o.Properties, &p); err != nil {
				return fmt.Errorf("read object %s: %w", o.ID, err)
			}
			payload, err := base64.StdEncoding.DecodeString(p.Payload)
			if err != nil {
				payload = nil // which nobody can read either
			}
			if err := each(o.ID, o.Properties, payload); err != nil {
				return err
			}
		}
	}
}

// answersOf calls each for every object of one kind of what people, and the pass,
// said about cases.
func (j *judge) answersOf(ctx context.Context, kind string, each func(id string, payload []byte) error) error {
	return j.objects(ctx, "HoneAnswer", func(id string, properties, payload []byte) error {
		var p struct{ Kind string }
		if err := json.Unmarshal(properties, &p); err != nil {
			return fmt.Errorf("read object %s: %w", id, err)
		}
		if p.Kind != kind {
			return nil
		}
		return each(id, payload)
	})
}
