package embedder

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	recallv1 "github.com/honeloop/hone/proto/gen/go/hone/recall/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"

	"github.com/honeloop/hone/pkg/embedded/embeddedtest"
	"github.com/honeloop/hone/pkg/embedding"
	"github.com/honeloop/hone/pkg/ids"
	"github.com/honeloop/hone/pkg/projects"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/telemetry"
	"github.com/honeloop/hone/pkg/vector"
	"github.com/honeloop/hone/pkg/vector/vectortest"
)

// changing is an embedder process with hash models of so many dimensions.
func changing(t *testing.T, ix backend, dimensions ...int) *spaces {
	t.Helper()
	s := unclaimed(t, ix, dimensions...)
	if err := s.claim(t.Context()); err != nil {
		t.Fatal(err)
	}
	return s
}

func unclaimed(t *testing.T, ix backend, dimensions ...int) *spaces {
	t.Helper()
	s := &spaces{backend: ix}
	for _, d := range dimensions {
		cfg := embedding.DefaultConfig()
		cfg.Provider, cfg.Dimensions = embedding.ProviderHash, d
		e, err := embedding.New(cfg, telemetry.Discard())
		if err != nil {
			t.Fatal(err)
		}
		p := s.add(cfg.Provider, e)
		if p.signals, p.curation, err = stages(p.index, e, DefaultConfig().Cases, 0.6, projects.Defaults(), telemetry.Discard()); err != nil {
			t.Fatal(err)
		}
		if p.recall, err = newAPI(p.index, e, projects.Defaults(), DefaultConfig().Recall, nil, telemetry.Discard().Log); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func (s *spaces) send(t *testing.T, in ...*signalv1.Signal) []*casesv1.CaseSignal {
	t.Helper()
	out, err := s.stage(func(p *part) stage.Stage { return p.signals }).Process(t.Context(), records(t, in...))
	if err != nil {
		t.Fatal(err)
	}
	return decodeOut(t, out)
}

// topic is the n-th of many signals, four of a problem.
func topic(project string, n int) *signalv1.Signal {
	digest := ids.Derive("", fmt.Sprint(n/4))
	return signal(fmt.Sprint("s", n), negative, fmt.Sprintf("%s %s %s", digest[1:8], digest[8:16], digest[16:24]), of(project))
}

func topics(project string, from, to int) []*signalv1.Signal {
	var in []*signalv1.Signal
	for n := from; n < to; n++ {
		in = append(in, topic(project, n))
	}
	return in
}

func phaseOf(t *testing.T, ix index) string {
	t.Helper()
	r, err := ReadReindex(t.Context(), ix)
	if err != nil {
		t.Fatal(err)
	}
	if r == nil {
		return ""
	}
	return r.Phase
}

// sameObjects says that the space that is read has what another one had before,
// with vectors of the model that it says.
func sameObjects(t *testing.T, s *spaces, before map[string]vector.Object, project string) {
	t.Helper()
	l, err := s.read(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p := s.partOf(l.space)
	now := dump(t, s.backend, l.Suffix)
	if len(now) != len(before) {
		t.Errorf("%d objects, %d before", len(now), len(before))
	}
	for name, was := range before {
		is := now[name]
		if string(is.Payload) != string(was.Payload) {
			t.Errorf("%s differs", name)
		}
		if (len(is.Vector) > 0) != (len(was.Vector) > 0) {
			t.Errorf("%s has a vector: %t", name, len(is.Vector) > 0)
		}
		if len(is.Vector) == 0 {
			continue
		}
		collection, _, _ := strings.Cut(name, "/")
		d, err := decodeObject(collection, is, "")
		if err != nil {
			t.Fatal(err)
		}
		want, err := p.embedder.Embed(t.Context(), []string{d.text})
		if err != nil || similarity(want[0], is.Vector) < 0.999 {
			t.Errorf("%s has another text's vector: %v", name, err)
		}
	}
	// What filters need is there.
	cases, err := p.index.List(t.Context(), vector.Cases, project, vector.ListQuery{
		Filter: vector.In("state", stateNew), SortBy: "negatives", Descending: true, Limit: 1000, Vectors: true})
	if err != nil || len(cases) == 0 {
		t.Errorf("%d cases, %v", len(cases), err)
	}
}

// dump is all of a space, by collection and id.
func dump(t *testing.T, ix backend, suffix string) map[string]vector.Object {
	t.Helper()
	all := map[string]vector.Object{}
	for _, c := range []string{vector.Exchanges, vector.Cases} {
		tenants, err := ix.Tenants(t.Context(), c+suffix)
		if err != nil {
			t.Fatal(err)
		}
		for _, tenant := range tenants {
			objects, err := ix.Walk(t.Context(), c+suffix, tenant, "", vector.MaxResults, true)
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range objects {
				all[c+"/"+o.ID] = o
			}
		}
	}
	return all
}

func (s *spaces) ask(t *testing.T, project, query string) *recallv1.RecallResponse {
	t.Helper()
	r := &recallServer{spaces: s}
	resp, err := r.Recall(as(project), &recallv1.RecallRequest{Query: query})
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func TestReindex(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ix := vectortest.NewFake()
		s := changing(t, ix, 512, 128)
		other := changing(t, ix, 512, 128) // another process
		const p = "p"
		s.send(t, topics(p, 0, 300)...)
		s.send(t, topics("other", 0, 20)...)
		s.send(t, revised(topic(p, 4), withdrawn), revised(topic(p, 5), withdrawn), revised(topic(p, 6), withdrawn), revised(topic(p, 7), withdrawn))
		if err := RequestReindex(t.Context(), ix); err != nil {
			t.Fatal(err)
		}
		if err := RequestReindex(t.Context(), ix); !errors.Is(err, ErrReindex) {
			t.Errorf("a second request: %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for _, one := range []*spaces{s, other} {
			go newReindexer(one, telemetry.Discard().Log).run(ctx)
			go func() { _ = one.follow(ctx) }()
		}

		// Signals come all the while; neither a place nor an answer depends on it.
		n := 300
		for phaseOf(t, ix) != ReindexSwitched {
			time.Sleep(700 * time.Millisecond)
			from := s
			if n%3 == 0 {
				from = other
			}
			from.send(t, topic(p, n), revised(topic(p, n-4), polarity(positive)))
			if l, _ := s.read(t.Context()); l.Dimensions == 512 && n == 310 {
				// A copy that crossed a write: the older object stays in the new space.
				id := ids.UUID(p, "s8")
				name := vector.Exchanges + l.Next.Suffix
				stale, err := ix.Get(t.Context(), name, p, []string{id}, true)
				if err != nil {
					t.Fatal(err)
				}
				o := stale[id]
				o.Payload = append(o.Payload[:0:0], o.Payload[:len(o.Payload)-1]...)
				if err := ix.Upsert(t.Context(), name, p, []vector.Object{o}); err != nil {
					t.Fatal(err)
				}
			}
			if n++; n > 2000 {
				t.Fatalf("no switch: %s", phaseOf(t, ix))
			}
			q := topic(p, 0).GetInteraction().GetQuery()
			if g := s.ask(t, p, q).GetGuidance(); len(g) == 0 || g[0].GetCase().GetCaseId() != ids.Derive("cs", p, "s0") {
				t.Fatalf("in phase %s: %v", phaseOf(t, ix), g)
			}
		}
		before := dump(t, ix, "")
		l, err := s.read(t.Context())
		if err != nil || l.Dimensions != 128 || l.Last == nil || l.Next != nil {
			t.Fatalf("layout %+v, %v", l, err)
		}
		sameObjects(t, s, before, p)
		if r, _ := ReadReindex(t.Context(), ix); r.Repaired == 0 || r.Copied < 300 || r.Round < 3 {
			t.Errorf("reindex = %+v", r)
		}
		// One embedder has noticed, the other has not.
		out := s.send(t, topic(p, n))
		if again := other.send(t, topic(p, n)); again[0].GetCase().GetCaseId() != out[0].GetCase().GetCaseId() {
			t.Errorf("%v, then %v", out, again)
		}
		time.Sleep(2 * settleTime)
		if phase := phaseOf(t, ix); phase != ReindexDone {
			t.Errorf("phase %s", phase)
		}
		if old := dump(t, ix, ""); len(old) != 0 {
			t.Errorf("%d objects in the old space", len(old))
		}
		g := other.ask(t, p, topic(p, 0).GetInteraction().GetQuery()).GetGuidance()
		if len(g) == 0 || g[0].GetCase().GetCaseId() != ids.Derive("cs", p, "s0") {
			t.Errorf("recall = %v", g)
		}
		if out := s.send(t, topic(p, 1000), topic(p, 1001)); out[1].GetCase().GetNegatives() != 2 {
			t.Errorf("out = %v", out)
		}

		// An embedder that has the new model alone, and one that lacks it.
		changing(t, ix, 128)
		if err := unclaimed(t, ix, 512).claim(t.Context()); !errors.Is(err, errOtherModel) || !strings.Contains(err.Error(), "128") {
			t.Errorf("claim = %v", err)
		}
	})
}

func TestReindexGoesOnAfterAKill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ix := vectortest.NewFake()
		s := changing(t, ix, 512, 128)
		s.send(t, topics("p", 0, 1000)...)
		if err := RequestReindex(t.Context(), ix); err != nil {
			t.Fatal(err)
		}
		var walked atomic.Int64
		for attempt := range 4 {
			ctx, cancel := context.WithCancel(t.Context())
			ix.Before = func(method, collection string) error {
				if method == "Walk" && collection == vector.Exchanges && walked.Add(1)%3 == 0 && attempt < 3 {
					cancel()
				}
				return nil
			}
			start := time.Now()
			go newReindexer(s, telemetry.Discard().Log).run(ctx)
			if attempt < 3 {
				<-ctx.Done()
				if attempt > 0 && time.Since(start) < leaseTime {
					t.Errorf("attempt %d began after %s", attempt, time.Since(start))
				}
				synctest.Wait()
				continue
			}
			for phaseOf(t, ix) != ReindexSwitched {
				time.Sleep(time.Second)
			}
			cancel()
			synctest.Wait()
		}
		// 11 pages, and one more for each kill at most; then again to compare.
		if n := walked.Load(); n > 11+3+11 {
			t.Errorf("%d pages were read", n)
		}
		ix.Before = nil
		sameObjects(t, s, dump(t, ix, ""), "p")
	})
}

func TestAReindexIsCanceled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ix := vectortest.NewFake()
		s := changing(t, ix, 512, 128)
		s.send(t, topics("p", 0, 300)...)
		before := maps.Clone(dump(t, ix, ""))
		if err := CancelReindex(t.Context(), ix); !errors.Is(err, ErrReindex) {
			t.Errorf("nothing to cancel: %v", err)
		}
		if err := RequestReindex(t.Context(), ix); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go newReindexer(s, telemetry.Discard().Log).run(ctx)
		for phaseOf(t, ix) != ReindexChecking {
			time.Sleep(time.Second)
		}
		// An embedder that cannot write both writes neither, and still answers.
		alone := changing(t, ix, 512)
		_, err := alone.parts[0].signals.Process(t.Context(), records(t, topic("p", 1000)))
		if err == nil || !strings.Contains(err.Error(), "embedding_next") {
			t.Errorf("Process = %v", err)
		}
		if g := alone.ask(t, "p", topic("p", 0).GetInteraction().GetQuery()).GetGuidance(); len(g) == 0 {
			t.Error("no recall")
		}
		if err := CancelReindex(t.Context(), ix); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		l, err := s.read(t.Context())
		if err != nil || l.Next != nil || l.Dimensions != 512 || phaseOf(t, ix) != ReindexCanceled {
			t.Errorf("layout %+v, phase %s, %v", l, phaseOf(t, ix), err)
		}
		if left := dump(t, ix, suffixOf(s.parts[1].space)); len(left) != 0 {
			t.Errorf("%d objects are left", len(left))
		}
		sameObjects(t, s, before, "p")
		alone.send(t, topic("p", 1000))
	})
}

// An index of before there were spaces says its model alone.
func TestAnIndexHasOneModel(t *testing.T) {
	ix := vectortest.NewFake()
	if err := writeRecord(t.Context(), ix, "model", map[string]any{"provider": "hash", "model": "hash-ngram-512-v1", "dimensions": 512}); err != nil {
		t.Fatal(err)
	}
	s := changing(t, ix, 512)
	if l, ok := s.seen(); !ok || l.Suffix != "" {
		t.Errorf("layout %+v", l)
	}
	ix.Before = func(string, string) error { return errDown }
	if err := unclaimed(t, ix, 512).claim(t.Context()); !errors.Is(err, errDown) {
		t.Errorf("index away: %v", err)
	}
}

func TestReindexOnWeaviate(t *testing.T) {
	w := embeddedtest.Weaviate(t)
	open := func() *vector.Client {
		client, err := vector.Open(weaviateConfig(w))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		return client
	}
	client := open()
	if err := client.EnsureSchema(t.Context()); err != nil {
		t.Fatal(err)
	}
	const p, q = "reindex-p", "Reindex Q"
	s := changing(t, client, 512, 128)
	first, _ := s.seen()
	s.send(t, topics(p, 0, 400)...)
	s.send(t, topics(q, 0, 30)...)
	if err := RequestReindex(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	// The first process is killed in the middle; the second goes on.
	n := 400
	for attempt := range 2 {
		s := changing(t, open(), 512, 128)
		r := newReindexer(s, telemetry.Discard().Log)
		r.settle, r.lease, r.pause = time.Second, 500*time.Millisecond, 20*time.Millisecond
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); r.run(ctx) }()
		eventually(t, "it is in the middle, or done", func() bool {
			s.send(t, topic(p, n), topic(q, n))
			n++
			state, err := ReadReindex(t.Context(), client)
			if err != nil {
				t.Fatal(err)
			}
			return attempt == 0 && state.Copied >= 100 || state.Phase == ReindexSwitched
		})
		if attempt == 1 {
			before := dump(t, client, first.Suffix)
			sameObjects(t, s, before, p)
			sameObjects(t, s, before, q)
			eventually(t, "the old space is empty", func() bool { return phaseOf(t, client) == ReindexDone })
			if left := dump(t, client, first.Suffix); len(left) != 0 {
				t.Errorf("%d objects are left", len(left))
			}
		}
		cancel()
		<-done
	}
	state, err := ReadReindex(t.Context(), client)
	if err != nil || state.Copied > 1000 {
		t.Errorf("reindex = %+v, %v", state, err)
	}
	last := changing(t, open(), 128)
	g := last.ask(t, q, topic(q, 0).GetInteraction().GetQuery()).GetGuidance()
	if len(g) == 0 || g[0].GetCase().GetCaseId() != ids.Derive("cs", q, "s0") || g[0].GetCase().GetNegatives() != 4 {
		t.Errorf("recall = %v", g)
	}

	// And back again, for the other tests.
	back := changing(t, client, 128, 512)
	if err := RequestReindex(t.Context(), client); err != nil {
		t.Fatal(err)
	}
	r := newReindexer(back, telemetry.Discard().Log)
	r.settle, r.pause = time.Second, 20*time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); r.run(ctx) }()
	eventually(t, "it is back", func() bool { return phaseOf(t, client) == ReindexDone })
	cancel()
	<-done
	if l, err := back.read(t.Context()); err != nil || l.Dimensions != 512 || l.Suffix == "" {
		t.Errorf("layout %+v, %v", l, err)
	}
}
