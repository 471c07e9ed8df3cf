// Bench measures the enricher's stage on an embedded ClickHouse, beside a bare
// insert of the rows that the stage wrote. Run it with `make bench-enrich`.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"slices"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/honeloop/hone/pkg/clickhouse"
	"github.com/honeloop/hone/pkg/embedded"
	"github.com/honeloop/hone/pkg/embedding"
	"github.com/honeloop/hone/pkg/projects"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/telemetry"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"

	"github.com/honeloop/hone/services/enricher"
	"github.com/honeloop/hone/services/enricher/internal/derive"
	"github.com/honeloop/hone/services/enricher/internal/enrich"
	"github.com/honeloop/hone/services/enricher/internal/redact"
	"github.com/honeloop/hone/services/enricher/internal/trail"
	"github.com/honeloop/hone/services/internal/benchtext"
	"github.com/honeloop/hone/services/internal/cputime"
)

// perSession are the events of a session: four turns, a thumb and a behavior.
const perSession = 6

type options struct {
	stored, events, partitions int
	embedding                  string
	profile                    string
}

func main() {
	embedded.Main()
	var o options
	flag.IntVar(&o.stored, "stored", 100_000, "events in the store before sessions return")
	flag.IntVar(&o.events, "events", 60_000, "events of each measurement")
	flag.IntVar(&o.partitions, "partitions", 4, "batches at a time, in the stage and in the bare insert")
	flag.StringVar(&o.embedding, "embedding", enricher.DefaultConfig().Embedding.Provider, "what meaning is compared by, or none")
	flag.StringVar(&o.profile, "cpuprofile", "", "file for a CPU profile of the stage")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "bench-enrich:", err)
		os.Exit(1)
	}
}

// recorder keeps what the stage writes, batch by batch, for the bare insert.
type recorder struct {
	*trail.Store
	mu      sync.Mutex
	events  [][]trail.EventRow
	signals [][]*signalv1.Signal
	// What the batches waited for, together.
	loading, saving time.Duration
}

func (r *recorder) Load(ctx context.Context, keys []trail.Key) (map[trail.Key]*trail.Trail, error) {
	began := time.Now()
	out, err := r.Store.Load(ctx, keys)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.loading += time.Since(began)
	return out, err
}

func (r *recorder) SaveEvents(ctx context.Context, rows []trail.EventRow) error {
	began := time.Now()
	err := r.Store.SaveEvents(ctx, rows)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, rows)
	r.saving += time.Since(began)
	return err
}

func (r *recorder) SaveSignals(ctx context.Context, signals []*signalv1.Signal) error {
	began := time.Now()
	err := r.Store.SaveSignals(ctx, signals)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.signals = append(r.signals, signals)
	r.saving += time.Since(began)
	return err
}

// bare writes the recorded rows and nothing else.
func (r *recorder) bare(ctx context.Context, store *trail.Store, partitions int) (time.Duration, error) {
	began := time.Now()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(partitions)
	for _, rows := range r.events {
		g.Go(func() error { return store.SaveEvents(ctx, rows) })
	}
	for _, signals := range r.signals {
		g.Go(func() error { return store.SaveSignals(ctx, signals) })
	}
	err := g.Wait()
	return time.Since(began), err
}

func run(ctx context.Context, o options) (err error) {
	if o.stored < perSession || o.events < 1 || o.partitions < 1 {
		return errors.New("want at least one session, one event and one partition")
	}
	dir, err := os.MkdirTemp("", "hone-bench-enrich-")
	if err != nil {
		return err
	}
	server, err := embedded.StartClickHouse(ctx, embedded.ClickHouseOptions{Dir: filepath.Join(dir, "clickhouse")})
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	defer func() { err = errors.Join(err, server.Stop(context.WithoutCancel(ctx)), os.RemoveAll(dir)) }()
	open := func(database string) (*trail.Store, error) {
		cfg := clickhouse.DefaultConfig()
		cfg.Addr, cfg.Database = []string{server.Addr}, database
		if err := clickhouse.Migrate(ctx, cfg); err != nil {
			return nil, err
		}
		conn, err := clickhouse.Open(cfg)
		return trail.NewStore(conn), err
	}
	store, err := open("hone")
	if err != nil {
		return err
	}
	other, err := open("bare")
	if err != nil {
		return err
	}
	cfg := enricher.DefaultConfig()
	settings := projects.Defaults()
	var meaning *enrich.Meaning
	if o.embedding != "none" {
		cfg.Embedding.Provider = o.embedding
		model, err := embedding.New(cfg.Embedding, telemetry.Discard())
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, model.Close()) }()
		meaning = enrich.NewMeaning(model)
	}
	rules := enrich.ProjectRules(settings, meaning)
	newStage := func(s enrich.Store) (*enrich.Stage, error) {
		return enrich.New(s, enrich.Options{
			Rules: rules, Meaning: meaning, CacheBytes: cfg.CacheBytes, MaxSessionEvents: cfg.MaxSessionEvents,
			Redact: func(e *eventv1.Event) (redact.Counts, []redact.Original) {
				return redact.Event(e, []byte("a key for the bench"), settings.Settings(e.ProjectId).Privacy)
			},
		}, telemetry.Discard().Meter)
	}
	fmt.Printf("batches of %d events, %d at a time; meaning by %s; %d of %d cores\n", cfg.MaxBatch, o.partitions, o.embedding, runtime.GOMAXPROCS(0), runtime.NumCPU())
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "sessions\tstored events\tevents/s\trows\tbare rows' events/s\tratio\tCPU/event\tbare CPU/event\tloading\tsaving\tcounted MB\theap MB\tlimit MB\t")
	one := func(name string, stored int, next func(i int) *eventv1.Event) error {
		rec := &recorder{Store: store}
		st, err := newStage(rec)
		if err != nil {
			return err
		}
		batches, err := batches(o, cfg.MaxBatch, next)
		if err != nil {
			return err
		}
		stop, err := profile(o.profile, name)
		if err != nil {
			return err
		}
		began, worked := time.Now(), cputime.Self()
		g, gctx := errgroup.WithContext(ctx)
		for _, partition := range batches {
			g.Go(func() error {
				for _, batch := range partition {
					if _, err := st.Process(gctx, batch); err != nil {
						return err
					}
				}
				return nil
			})
		}
		err = g.Wait()
		took, work := time.Since(began), cputime.Self()-worked
		if err := errors.Join(err, stop()); err != nil {
			return err
		}
		var n, rows int
		for _, partition := range batches {
			for _, batch := range partition {
				n += len(batch)
			}
		}
		for i := range rec.events {
			rows += len(rec.events[i])
		}
		for i := range rec.signals {
			rows += len(rec.signals[i])
		}
		share := func(d time.Duration) float64 { return 100 * d.Seconds() / took.Seconds() / float64(o.partitions) }
		worked = cputime.Self()
		bare, err := rec.bare(ctx, other, o.partitions)
		if err != nil {
			return err
		}
		bareWork := cputime.Self() - worked
		// What goes with the stage is its trails. The model's vectors, which have a
		// limit of their own, and the buffers of connections stay.
		rec.events, rec.signals = nil, nil
		counted, held := float64(st.CacheBytes())/1e6, heap()
		st = nil
		held -= heap()
		each := func(d time.Duration) time.Duration { return (d / time.Duration(n)).Round(time.Microsecond) }
		fmt.Fprintf(w, "%s\t%d\t%.0f\t%d\t%.0f\t%.2f\t%v\t%v\t%.0f %%\t%.0f %%\t%.0f\t%.0f\t%.0f\t\n", name, stored, float64(n)/took.Seconds(), rows, float64(n)/bare.Seconds(),
			bare.Seconds()/took.Seconds(), each(work), each(bareWork), share(rec.loading), share(rec.saving),
			counted, held, float64(cfg.CacheBytes)/1e6)
		return w.Flush()
	}
	if err := one("new", 0, func(i int) *eventv1.Event { return event("new", i/perSession, i%perSession) }); err != nil {
		return err
	}
	if err := fill(ctx, store, rules, o); err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(1, 2))
	// Two events more for sessions that are drawn at random, so that few are in the cache.
	var session int
	return one("returning", o.stored, func(i int) *eventv1.Event {
		if i%2 == 0 {
			session = r.IntN(o.stored / perSession)
		}
		return event("old", session, 10*(1+i)+[]int{0, 4}[i%2])
	})
}

// fill stores whole sessions with their signals, as the stage would have.
func fill(ctx context.Context, store *trail.Store, rules func(string) (*derive.Rules, error), o options) error {
	const sessions = 4000 // of one insert
	project, err := rules("bench")
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(2)
	for first := 0; first < o.stored/perSession; first += sessions {
		g.Go(func() error {
			var rows []trail.EventRow
			var signals []*signalv1.Signal
			for s := first; s < min(first+sessions, o.stored/perSession); s++ {
				var events []*eventv1.Event
				for i := range perSession {
					events = append(events, event("old", s, i))
				}
				for _, e := range events {
					rows = append(rows, trail.EventRow{Event: e, SessionStartedAt: events[0].OccurredAt.AsTime()})
				}
				for _, sig := range derive.Derive(events, project) {
					sig.Revision = perSession
					signals = append(signals, sig)
				}
			}
			return errors.Join(store.SaveEvents(ctx, rows), store.SaveSignals(ctx, signals))
		})
	}
	return g.Wait()
}

// batches are records of each partition, as the runner hands them over.
func batches(o options, size int, next func(i int) *eventv1.Event) (map[int][][]stage.Record, error) {
	records := map[int][]stage.Record{}
	for i := range o.events {
		e := next(i)
		value, err := proto.Marshal(e)
		if err != nil {
			return nil, err
		}
		key := stream.SessionKey(e.ProjectId, e.SessionId)
		p := int(crc32.ChecksumIEEE(key)) % o.partitions
		records[p] = append(records[p], stage.Record{Topic: stream.TopicEvents, Partition: p, Offset: int64(len(records[p])), Key: key, Value: value})
	}
	out := map[int][][]stage.Record{}
	for p, all := range records {
		out[p] = slices.Collect(slices.Chunk(all, size))
	}
	return out, nil
}

// event number i of a session: two turns, a thumb, a behavior, two turns, and
// so on. An interaction has about 1 KB.
func event(kind string, session, i int) *eventv1.Event {
	r := rand.New(rand.NewPCG(uint64(session), uint64(i)))
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(session)*time.Second + time.Duration(i)*30*time.Second)
	e := &eventv1.Event{
		EventId: fmt.Sprintf("e-%d-%d", session, i), ProjectId: "bench", SessionId: fmt.Sprintf("%s-%08x", kind, session),
		InteractionId: fmt.Sprintf("i-%d", i), UserId: fmt.Sprintf("u-%d", session%5000), UserRole: "customer", Environment: "production",
		Tags: map[string]string{"plan": "pro"}, OccurredAt: timestamppb.New(at), ReceivedAt: timestamppb.New(at), Source: "http",
	}
	switch i % 10 {
	case 4:
		e.Type, e.InteractionId = "feedback", fmt.Sprintf("i-%d", i-4)
		e.Payload = &eventv1.Event_Feedback{Feedback: &eventv1.Feedback{Thumb: "down", Categories: []string{"outdated"}, Comment: benchtext.Prose(r, 60)}}
	case 5:
		e.Type, e.InteractionId = "behavior", fmt.Sprintf("i-%d", i-2)
		e.Payload = &eventv1.Event_Behavior{Behavior: &eventv1.Behavior{Kind: "copied", Text: benchtext.Prose(r, 60)}}
	default:
		e.Type = "interaction"
		e.Payload = &eventv1.Event_Interaction{Interaction: &eventv1.Interaction{
			Query: benchtext.Prose(r, 80), SystemContext: "You are the assistant of a shop. " + benchtext.Prose(rand.New(rand.NewPCG(1, 1)), 250), Output: benchtext.Prose(r, 400),
			Retrieved: []*eventv1.Retrieved{{Source: "faq/12", Text: benchtext.Prose(r, 150)}}, Model: "m-large", ModelVersion: "2026-10-01", PromptVersion: "v14",
			LatencyMs: 840, InputTokens: 310, OutputTokens: 90, FinishReason: "stop", Language: "en",
		}}
	}
	return e
}

// profile begins a CPU profile; without a file it does nothing.
func profile(path, name string) (stop func() error, err error) {
	if path == "" {
		return func() error { return nil }, nil
	}
	f, err := os.Create(path + "." + name)
	if err != nil {
		return nil, err
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}, nil
}

// heap is what this process holds in memory, in MB.
func heap() float64 {
	// Pools are empty after the second collection.
	runtime.GC()
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc) / 1e6
}
