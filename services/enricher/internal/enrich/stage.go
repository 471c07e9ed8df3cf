// Package enrich is the enricher's stage: events in, trail and signals out.
package enrich

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"google.golang.org/protobuf/proto"

	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"

	"github.com/honeloop/hone/services/enricher/internal/derive"
	"github.com/honeloop/hone/services/enricher/internal/redact"
	"github.com/honeloop/hone/services/enricher/internal/trail"
)

// Store keeps trails. Its writes may be repeated: the same row is one row.
type Store interface {
	// Load reads trails; those of unknown sessions are empty.
	Load(ctx context.Context, keys []trail.Key) (map[trail.Key]*trail.Trail, error)
	SaveEvents(ctx context.Context, rows []trail.EventRow) error
	SaveSignals(ctx context.Context, signals []*signalv1.Signal) error
}

// Options are the limits of a Stage.
type Options struct {
	// CacheBytes is about the memory for trails of open sessions.
	CacheBytes int
	// MaxSessionEvents bounds a session. What is over it goes to the dead letter.
	MaxSessionEvents int
	// Rules are those of a project. The same ones mean that nothing changed.
	Rules func(project string) (*derive.Rules, error)
	// Meaning is what the rules compare texts by; nil where they do not.
	Meaning *Meaning
	// Redact takes personal data out of an event, before anything else sees it; nil
	// where none is.
	Redact func(*eventv1.Event) (redact.Counts, []redact.Original)
	// SaveOriginals keeps what was replaced, where Redact says so. It may be given
	// the same again.
	SaveOriginals func(context.Context, []redact.Original) error
	// Erased knows who was erased; nil where nobody ever is.
	Erased Erased
}

// Erased knows who was erased.
type Erased interface {
	// Learn reads until the erasure is known. After an error nothing may count.
	Learn(ctx context.Context, erasureID string) error
	// Any says whether anybody of a project was erased.
	Any(project string) bool
	// Is says whether an event of this session and user is one that was erased.
	Is(project, session, user string) bool
}

// Stage is stage.Stage on hone.events.
//
// For each session that a batch touches it takes the whole trail, derives all
// signals anew, and writes and passes on those that changed. Events are written
// before signals, so that a batch which comes again finds its events in the
// store: then it passes on the session's signals again, as they are stored
// (DECISIONS.md 4).
type Stage struct {
	store   Store
	opts    Options
	cache   *trail.Cache
	metrics metrics
}

type metrics struct {
	events, signals, redactions, findings metric.Int64Counter
}

// New makes the stage.
func New(store Store, opts Options, meter metric.Meter) (*Stage, error) {
	s := &Stage{store: store, opts: opts, cache: trail.NewCache(opts.CacheBytes)}
	var errs [5]error
	s.metrics.events, errs[0] = meter.Int64Counter("hone.enricher.events",
		metric.WithDescription("Events by what became of them: new, duplicate (held already), refused (dead letter), erased (of a user or session that was erased: dropped)."))
	s.metrics.signals, errs[1] = meter.Int64Counter("hone.enricher.signals",
		metric.WithDescription("Revisions of signals written, by what they are: holds, waiting, withdrawn, shortened (too large to pass on whole), unknown_category (not in the taxonomy), unfit_edit (an edit does not fit the output), expired (went on without its interaction)."))
	s.metrics.findings, errs[4] = meter.Int64Counter("hone.enricher.findings",
		metric.WithDescription("Implicit findings in revisions of signals written, by kind."))
	s.metrics.redactions, errs[3] = meter.Int64Counter("hone.enricher.redactions",
		metric.WithDescription("Pieces of personal data that a placeholder replaced, by type."))
	_, errs[2] = meter.Int64ObservableGauge("hone.enricher.cache.size", metric.WithUnit("By"),
		metric.WithDescription("About the memory that cached trails take."),
		metric.WithInt64Callback(func(_ context.Context, o metric.Int64Observer) error {
			o.Observe(s.cache.Bytes())
			return nil
		}))
	if err := errors.Join(errs[:]...); err != nil {
		return nil, fmt.Errorf("create metrics: %w", err)
	}
	return s, nil
}

// CacheBytes is about what the cached trails take.
func (s *Stage) CacheBytes() int64 { return s.cache.Bytes() }

// touched is a session of a batch.
type touched struct {
	key   trail.Key
	trail *trail.Trail
	// again says that the batch brought an event which was held already.
	again bool
	// erase says that what was erased has to be taken out.
	erase bool
	// originals are of the events that are new.
	originals []redact.Original
	// headers are those of the newest record, for its trace.
	headers []stage.Header
}

// Process implements stage.Stage.
func (s *Stage) Process(ctx context.Context, in []stage.Record) ([]stage.Record, error) {
	if len(in) == 0 {
		return nil, nil
	}
	batch := s.cache.Begin(in[0].Partition, in[0].Offset)
	var counts counts
	sessions, failed, err := s.gather(ctx, batch, in, &counts)
	if err != nil {
		return nil, err
	}
	var rows []trail.EventRow
	var originals []redact.Original
	var changed, publish []*signalv1.Signal
	headers := map[trail.Key][]stage.Header{}
	for _, t := range sessions {
		rows = append(rows, t.trail.DueRows()...)
		originals = append(originals, t.originals...)
		rules, err := s.opts.Rules(t.key.Project)
		if err != nil {
			return nil, fmt.Errorf("rules of project %s: %w", t.key.Project, err)
		}
		news := revise(t.trail, rules)
		if t.erase {
			news = append(news, blank(t.trail, rules)...)
		}
		changed = append(changed, news...)
		if t.again {
			publish = append(publish, t.trail.Signals()...)
		} else {
			publish = append(publish, news...)
		}
		headers[t.key] = t.headers
	}
	if err := s.opts.Meaning.Err(); err != nil {
		return nil, fmt.Errorf("compare meanings: %w", err)
	}
	// Before the events: one that is stored is not new when it comes again.
	if len(originals) > 0 {
		if err := s.opts.SaveOriginals(ctx, originals); err != nil {
			return nil, fmt.Errorf("save originals: %w", err)
		}
	}
	// From here on the trails claim to be written. They are not in the cache, so
	// an error forgets them.
	if err := s.store.SaveEvents(ctx, rows); err != nil {
		return nil, fmt.Errorf("save events: %w", err)
	}
	if err := s.store.SaveSignals(ctx, changed); err != nil {
		return nil, fmt.Errorf("save signals: %w", err)
	}
	out, err := records(publish, headers)
	if err != nil {
		return nil, err
	}
	trails := make(map[trail.Key]*trail.Trail, len(sessions))
	for _, t := range sessions {
		trails[t.key] = t.trail
	}
	batch.End(in[len(in)-1].Offset+1, trails)
	s.count(ctx, counts, changed)
	return out, failed.ErrorOrNil()
}

// gather decodes the batch and adds its events to the trails of their sessions,
// which come in the order of their first event.
func (s *Stage) gather(ctx context.Context, batch *trail.Batch, in []stage.Record, n *counts) ([]*touched, *stage.BatchError, error) {
	var failed *stage.BatchError
	var sessions []*touched
	var missing []trail.Key
	byKey := map[trail.Key]*touched{}
	events := s.decodeAll(in, n, func(i int, err error) { failed = failed.Fail(i, err) })
	events, erasing, err := s.dropErased(ctx, events, n)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range events {
		key := trail.Key{Project: e.ProjectId, Session: e.SessionId}
		if byKey[key] != nil {
			continue
		}
		t := &touched{key: key, trail: batch.Take(key)}
		if t.trail == nil {
			missing = append(missing, key)
		}
		byKey[key] = t
		sessions = append(sessions, t)
	}
	if len(missing) > 0 {
		loaded, err := s.store.Load(ctx, missing)
		if err != nil {
			return nil, nil, err
		}
		for key, t := range loaded {
			byKey[key].trail = t
		}
	}
	for _, t := range sessions {
		t.erase = erasing[t.key]
		s.takeOut(t)
	}
	type id struct {
		trail.Key
		event string
	}
	added := map[id]bool{}
	for _, e := range events {
		t := byKey[trail.Key{Project: e.ProjectId, Session: e.SessionId}]
		t.headers = in[e.index].Headers
		id := id{t.key, e.EventId}
		switch {
		case e.GetTimer().GetKind() == TimerErased:
			t.again = true
		case added[id]:
			n.duplicate++
		case t.trail.Has(e.EventId):
			n.duplicate++
			t.again = true
		case t.trail.Len() >= s.opts.MaxSessionEvents:
			failed = failed.Fail(e.index, fmt.Errorf("the session has %d events, the most that one may have", s.opts.MaxSessionEvents))
		default:
			t.trail.Add(e.Event)
			t.originals = append(t.originals, e.originals...)
			added[id] = true
			n.new++
		}
	}
	if failed != nil {
		n.refused = int64(len(failed.Indexes()))
	}
	return sessions, failed, nil
}

// revise derives the signals of a trail anew and returns those that differ from
// the newest revisions, which it replaces.
func revise(t *trail.Trail, rules *derive.Rules) []*signalv1.Signal {
	var out []*signalv1.Signal
	set := func(next, old *signalv1.Signal) {
		// The number of events that the reading rests on. Whoever handles the same log
		// gives the same content the same number, even if two do at once, and later
		// content a higher one (DECISIONS.md 7).
		next.Revision = max(uint32(t.Len()), old.GetRevision()+1)
		t.SetSignal(next)
		out = append(out, next)
	}
	t.Derive(rules, func(signals, stored []*signalv1.Signal) {
		holds := map[string]bool{}
		for _, sig := range signals {
			holds[sig.SignalId] = true
			old := t.Signal(sig.SignalId)
			if sig.Revision = old.GetRevision(); !proto.Equal(sig, old) {
				set(sig, old)
			}
		}
		for _, old := range stored {
			if !holds[old.SignalId] && !old.Withdrawn {
				gone := proto.CloneOf(old)
				gone.Withdrawn = true
				set(gone, old)
			}
		}
	})
	slices.SortFunc(out, derive.Compare)
	return out
}

// records are the signals as records of hone.signals. A waiting signal is not
// passed on, and neither is its withdrawal.
func records(signals []*signalv1.Signal, headers map[trail.Key][]stage.Header) ([]stage.Record, error) {
	var out []stage.Record
	for _, sig := range signals {
		if sig.Waiting {
			continue
		}
		value, err := proto.Marshal(sig)
		if err != nil {
			return nil, fmt.Errorf("encode signal %s: %w", sig.SignalId, err)
		}
		out = append(out, stage.Record{
			Topic:   stream.TopicSignals,
			Key:     stream.SessionKey(sig.ProjectId, sig.SessionId),
			Value:   value,
			Headers: headers[trail.Key{Project: sig.ProjectId, Session: sig.SessionId}],
		})
	}
	return out, nil
}

type counts struct {
	new, duplicate, refused, erased int64
	redactions                      redact.Counts
}

func (s *Stage) count(ctx context.Context, n counts, changed []*signalv1.Signal) {
	add := func(c metric.Int64Counter, n int64, result string) {
		if n > 0 {
			c.Add(ctx, n, metric.WithAttributes(attribute.String("result", result)))
		}
	}
	add(s.metrics.events, n.new, "new")
	add(s.metrics.events, n.duplicate, "duplicate")
	add(s.metrics.events, n.refused, "refused")
	add(s.metrics.events, n.erased, "erased")
	for t, n := range n.redactions {
		if n > 0 {
			s.metrics.redactions.Add(ctx, int64(n), metric.WithAttributes(attribute.String("type", redact.Type(t).String())))
		}
	}
	results, findings := map[string]int64{}, map[string]int64{}
	for _, sig := range changed {
		switch {
		case sig.Withdrawn:
			results["withdrawn"]++
		case sig.Waiting:
			results["waiting"]++
		default:
			results["holds"]++
		}
		for result, is := range map[string]bool{
			"shortened": derive.Shortened(sig), "unknown_category": len(sig.UnknownCategories) > 0,
			"unfit_edit": derive.HasEvidence(sig, derive.EvidenceUnfitEdit), "expired": derive.HasEvidence(sig, derive.TimerWaitExpired),
		} {
			if is {
				results[result]++
			}
		}
		if sig.Kind == derive.KindImplicit && !sig.Withdrawn {
			for _, e := range sig.Evidence {
				findings[e.Kind]++
			}
		}
	}
	for kind, n := range findings {
		s.metrics.findings.Add(ctx, n, metric.WithAttributes(attribute.String("kind", kind)))
	}
	for result, n := range results {
		add(s.metrics.signals, n, result)
	}
}
