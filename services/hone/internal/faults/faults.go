// Package faults is the oracle: it runs all of Hone as processes of their own,
// sends it events over each of its protocols, kills, pauses and starves every part
// meanwhile, and judges in the end whether each accepted event has had its effect
// exactly once.
//
// Meanwhile reviewers decide what waits for them, cases are merged and split, and
// the policy holds some signals and takes few of others. All that is judged too;
// where that depends on what was known at the time, such as when a signal was let
// go, only what must hold whatever it was.
//
// The schedule of faults and the content of every event follow from the seed; what
// they meet does not, so a seed makes a finding likely, not certain. The disk that
// becomes full is that of the collector's spool.
package faults

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"

	"github.com/honeloop/hone/pkg/auth"
	"github.com/honeloop/hone/pkg/clickhouse"
	"github.com/honeloop/hone/pkg/stream"
)

// Options of a run.
type Options struct {
	Events int // rounded up to whole sessions
	Kills  int // SIGKILLs, at least
	// Gap is the mean time from one fault to the next.
	Gap time.Duration
	// Rate is the events sent a second; 0 for as many as are accepted.
	Rate int
	Seed uint64
	// Reviews are decided at least, if there are so many.
	Reviews int
	// Only, where it is not empty, names the parts that faults hit.
	Only []string
	// Short makes outages a third as long.
	Short bool
	// Outage, where it is not 0, is the one fault of the run: the broker is away for
	// so long, and the spool has room for all of it.
	Outage time.Duration
	// Dir is where everything is kept, logs included. It must be empty.
	Dir string
	// Progress is how often a line says how far it is.
	Progress time.Duration
	Out      io.Writer

	// tamper changes what the judge sees, for tests of the judge.
	tamper func(context.Context, *judge) error
}

// Report is what a run saw.
type Report struct {
	Accepted, Doubled, Retries int
	LoadTook, DrainTook        time.Duration
	Answers                    map[string]map[string]int // by protocol
	// Decisions of reviewers.
	Reviewed, ReviewsRefused int
	Changes                  map[string]int // what became of cases and held signals
	SlowestAnswer            time.Duration
	Faults, KillsByPart      map[string]int
	// Processes that ended though nobody killed them, and were started again.
	Deaths   []string
	Verdicts []*Verdict
	Findings []Finding
}

// Failed says whether anything is not as it must be.
func (r *Report) Failed() bool { return len(r.Findings) > 0 }

// drainStall is how long nothing may move before the rest counts as lost.
const drainStall = 3 * time.Minute

// stopTimeout bounds the clean stop of all parts.
const stopTimeout = 90 * time.Second

type run struct {
	Options
	load     load
	sys      *system
	producer *producer
	reviews  *reviewers
	chaos    *chaos
	begin    time.Time

	mu     sync.Mutex
	died   []Finding
	deaths []string
}

// Run does all of it. An error means that it could not judge.
func Run(ctx context.Context, o Options) (report *Report, err error) {
	r := &run{Options: o, begin: time.Now()}
	r.load = load{seed: o.Seed, sessions: (o.Events + perSession - 1) / perSession, start: r.begin.Truncate(time.Second)}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Join(dir, "logs"), 0o700); err != nil {
		return nil, err
	}
	key, plain, err := auth.Mint(project, auth.Secret)
	if err != nil {
		return nil, err
	}
	keys := filepath.Join(dir, "keys.yaml")
	if err := auth.WriteKeys(keys, []auth.Key{key}); err != nil {
		return nil, err
	}
	// The judge knows what people say, not what may be read from what they do.
	projects := filepath.Join(dir, "projects.yaml")
	if err := os.WriteFile(projects, []byte("defaults: {signals: {findings: {reasked: 0, regenerated: 0}}}\n"), 0o600); err != nil {
		return nil, fmt.Errorf("write projects: %w", err)
	}
	rules, err := policy()
	if err != nil {
		return nil, err
	}
	policyFile := filepath.Join(dir, "policy.yaml")
	if err := os.WriteFile(policyFile, []byte(rules), 0o600); err != nil {
		return nil, fmt.Errorf("write policy: %w", err)
	}
	if r.sys, err = newSystem(dir, plain, keys, projects, policyFile, o.Outage == 0, r.sawDeath); err != nil {
		return nil, err
	}
	// Cases are kept too small, or made too large, so that there is work for the pass.
	r.sys.alike = []string{"CASES_JOIN_THRESHOLD=0.8"}
	if o.Seed%2 == 1 {
		r.sys.alike = []string{"CASES_JOIN_THRESHOLD=0.35", "CASES_MERGE_THRESHOLD=0.72"}
	}
	r.sys.pass = time.Minute
	if o.Short {
		r.sys.pass = 8 * time.Second
	}
	living, end := context.WithCancel(ctx) // of the watches over the parts
	defer end()
	defer func() {
		end()
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if stopErr := r.sys.stop(stopping); stopErr != nil {
			err = errors.Join(err, fmt.Errorf("stop: %w", stopErr))
		}
	}()
	r.say("seed %d: %d events, %d kills or more; everything is in %s", o.Seed, r.load.events(), o.Kills, dir)
	switch {
	case o.Outage > 0:
		r.say("the broker will be away for %s", o.Outage)
	case r.sys.fullDisk:
		r.say("the spool has a disk of its own, so that it can be full")
	default:
		r.say("no disk of its own for the spool here (that needs Linux and root): it is kept small instead")
	}
	if err := r.sys.start(living); err != nil {
		return nil, fmt.Errorf("start: %w", err)
	}
	r.say("all parts run")
	return r.judged(living)
}

func (r *run) say(format string, args ...any) {
	_, _ = fmt.Fprintf(r.Out, "%6s  %s\n", time.Since(r.begin).Round(time.Second), fmt.Sprintf(format, args...))
}

// sawDeath notes a process that ended though nobody killed it. ClickHouse may:
// its engine can abort when a client dies in the middle of an INSERT. What counts
// is that it is started again, and that nothing is lost.
func (r *run) sawDeath(p *part, why error, failed bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.deaths = append(r.deaths, fmt.Sprintf("%s: %v", p.name, why))
	if failed || p.service {
		r.died = append(r.died, Finding{Check: "processes", Kind: "died", ID: p.name, What: why.Error()})
	}
}

func (r *run) judged(ctx context.Context) (*Report, error) {
	log, err := os.Create(filepath.Join(r.sys.dir, "logs", "faults.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	conn, err := dial(r.sys.collector)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	r.producer = newProducer(r.load, r.sys.web, conn, r.sys.key, r.Rate)
	r.reviews = &reviewers{seed: r.Seed, least: r.Reviews, p: r.producer, words: map[string][]*word{}}
	r.chaos = &chaos{sys: r.sys, log: log, counts: map[string]int{}, byPart: map[string]int{}}

	working, done := context.WithCancel(ctx)
	var progress sync.WaitGroup
	progress.Go(func() { r.progress(working) })
	g, gctx := errgroup.WithContext(ctx)
	var loadTook time.Duration
	g.Go(func() error {
		err := r.producer.run(gctx)
		loadTook = time.Since(r.producer.begin)
		return err
	})
	faults := plan(r.Seed, r.Kills, r.Gap, r.Short, r.Only)
	if r.Outage > 0 {
		faults = []fault{{after: r.Gap, kind: faultRefuse, target: "broker", lasts: r.Outage}}
	}
	g.Go(func() error { return r.chaos.run(gctx, faults) })
	enough := make(chan struct{})
	var reviewing errgroup.Group
	reviewing.Go(func() error { return r.reviews.run(working, enough) })
	err = g.Wait()
	close(enough)
	if err != nil {
		done()
	}
	err = errors.Join(err, reviewing.Wait())
	done()
	progress.Wait()
	if err != nil {
		return nil, err
	}
	drained := time.Now()
	r.say("%d events accepted in %s, %d faults are over; now everything drains", r.producer.accepted.count(), loadTook.Round(time.Second), r.faults())
	stalled := r.drain(ctx)
	if len(stalled) == 0 && ctx.Err() == nil {
		// Cases come to rest once nobody looks for more to merge and split.
		r.sys.pass = 0
		if err := r.sys.again(ctx, "embedder"); err != nil {
			return nil, err
		}
		stalled = r.drain(ctx)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	report := &Report{
		Accepted: r.producer.accepted.count(), Doubled: int(r.producer.doubled.Load()), Retries: int(r.producer.retries.Load()),
		LoadTook: loadTook, DrainTook: time.Since(drained), Answers: r.producer.answers.by, SlowestAnswer: r.producer.answers.slowest,
		Faults: r.chaos.counts, KillsByPart: r.chaos.byPart,
	}
	report.Reviewed, report.ReviewsRefused = r.reviews.counts()
	cfg := clickhouse.DefaultConfig()
	cfg.Addr, cfg.ReadTimeout = []string{r.sys.clickhouse}, 5*time.Minute
	db, err := clickhouse.Open(cfg)
	if err != nil {
		return nil, err
	}
	defer db.Close()
	j := &judge{load: r.load, accepted: r.producer.accepted, db: db, kafka: r.kafka(), weaviate: r.sys.weaviate, words: r.reviews.words}
	if r.tamper != nil {
		if err := r.tamper(ctx, j); err != nil {
			return nil, err
		}
	}
	r.say("the judge looks")
	if err := j.judge(ctx); err != nil {
		return nil, fmt.Errorf("judge: %w", err)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	report.Changes = j.changes
	report.Verdicts, report.Deaths = j.verdicts, r.deaths
	report.Findings = append(append(stalled, r.died...), j.findings...)
	r.print(report)
	return report, nil
}

func (r *run) kafka() stream.Config {
	cfg := stream.DefaultConfig()
	cfg.Brokers = []string{r.sys.kafka}
	return cfg
}

func (r *run) faults() int {
	r.chaos.mu.Lock()
	defer r.chaos.mu.Unlock()
	n := 0
	for _, k := range r.chaos.counts {
		n += k
	}
	return n
}

func (r *run) progress(ctx context.Context) {
	for {
		sleep(ctx, r.Progress)
		if ctx.Err() != nil {
			return
		}
		p := r.producer
		n := p.accepted.count()
		reviewed, _ := r.reviews.counts()
		r.say("%d of %d events accepted (%.0f/s), %d reviews decided, %d retries, %d faults, %d kills of %d", n, r.load.events(),
			float64(n)/time.Since(p.begin).Seconds(), reviewed, p.retries.Load(), r.faults(), r.chaos.kills(), r.Kills)
	}
}

// drain waits until nothing is on its way, as seen from the front: the spool,
// then each stage's lag. It returns a finding where nothing has moved for long.
func (r *run) drain(ctx context.Context) []Finding {
	said, moved, before := time.Now(), time.Now(), ""
	for ctx.Err() == nil {
		now, empty, err := r.underWay(ctx)
		if empty && err == nil {
			return nil
		}
		if err != nil {
			now = "cannot tell: " + err.Error()
		} else if now != before {
			moved, before = time.Now(), now
		}
		if time.Since(moved) > drainStall {
			return []Finding{{Check: "drain", Kind: "stalled", ID: "-", What: now}}
		}
		if time.Since(said) >= r.Progress {
			said = time.Now()
			r.say("draining: %s", now)
		}
		sleep(ctx, 500*time.Millisecond)
	}
	return nil
}

func (r *run) underWay(ctx context.Context) (says string, empty bool, err error) {
	spooled, err := r.spooled(ctx)
	if err != nil {
		return "", false, err
	}
	out, total := fmt.Sprintf("spool %d", spooled), int64(spooled)
	readers := append(stream.Pipeline(), stream.Reader{Group: "hone-embedder-curation", Topics: []string{stream.TopicCuration}},
		stream.Reader{Group: "hone-curator-curation", Topics: []string{stream.TopicCuration}})
	for _, g := range readers {
		lag, err := r.lag(ctx, g.Group, g.Topics)
		if err != nil {
			return "", false, err
		}
		total += lag
		out += fmt.Sprintf(", %s %d", strings.TrimPrefix(g.Group, "hone-"), lag)
	}
	return out, total == 0, nil
}

// lag is how many records a group has not committed.
func (r *run) lag(ctx context.Context, group string, topics []string) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	committed, err := stream.Committed(ctx, r.kafka(), group)
	if err != nil {
		return 0, err
	}
	transport := &kafka.Transport{}
	defer transport.CloseIdleConnections()
	client := &kafka.Client{Addr: kafka.TCP(r.sys.kafka), Transport: transport}
	meta, err := client.Metadata(ctx, &kafka.MetadataRequest{Topics: topics})
	if err != nil {
		return 0, err
	}
	ask := &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{}}
	for _, t := range meta.Topics {
		if t.Error != nil {
			return 0, t.Error
		}
		for _, p := range t.Partitions {
			ask.Topics[t.Name] = append(ask.Topics[t.Name], kafka.LastOffsetOf(p.ID))
		}
	}
	ends, err := client.ListOffsets(ctx, ask)
	if err != nil {
		return 0, err
	}
	var lag int64
	for topic, partitions := range ends.Topics {
		for _, p := range partitions {
			if p.Error != nil {
				return 0, p.Error
			}
			lag += max(0, p.LastOffset-committed[topic][p.Partition])
		}
	}
	return lag, nil
}

// spooled is the number of events in the collector's spool.
func (r *run) spooled(ctx context.Context) (int, error) {
	var body bytes.Buffer
	if err := get(ctx, r.sys.collectorAdmin+"/metrics", &body); err != nil {
		return 0, err
	}
	for line := range strings.Lines(body.String()) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), " "); ok && strings.HasPrefix(name, "hone_collector_spool_events") {
			n, err := strconv.ParseFloat(value, 64)
			return int(n), err
		}
	}
	return 0, errors.New("the collector's metrics lack hone_collector_spool_events")
}

func (r *run) print(rep *Report) {
	w := tabwriter.NewWriter(r.Out, 2, 0, 2, ' ', tabwriter.AlignRight)
	line := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format+"\n", args...) }
	line("\nseed %d: %d events accepted in %s (%.0f/s), %d of them sent twice on purpose, %d retries; drained in %s", r.Seed, rep.Accepted,
		rep.LoadTook.Round(time.Second), float64(rep.Accepted)/rep.LoadTook.Seconds(), rep.Doubled, rep.Retries, rep.DrainTook.Round(time.Second))
	for _, via := range slices.Sorted(maps.Keys(rep.Answers)) {
		line("answers over %s: %s", via, counts(rep.Answers[via]))
	}
	line("reviewers: %d decisions accepted, %d refused for another one or since the signal was withdrawn", rep.Reviewed, rep.ReviewsRefused)
	line("cases: %s", counts(rep.Changes))
	line("slowest answer: %s", rep.SlowestAnswer.Round(time.Millisecond))
	line("faults: %s", counts(rep.Faults))
	line("kills: %d (%s)", r.chaos.kills(), counts(rep.KillsByPart))
	for _, d := range rep.Deaths {
		line("ended by itself, and was started again: %s", firstLine(d))
	}
	line("\ncheck\texpected\tfound\tlost\tdoubled\tunknown\tdifferent\t")
	for _, v := range rep.Verdicts {
		line("%s\t%d\t%d\t%d\t%d\t%d\t%d\t", v.Check, v.Expected, v.Found, v.By[lost], v.By[doubled], v.By[unknown], v.By[different])
	}
	_ = w.Flush()
	if !rep.Failed() {
		_, _ = fmt.Fprintf(r.Out, "\nNothing is lost, doubled, unknown or different.\n")
		return
	}
	_, _ = fmt.Fprintf(r.Out, "\nNot as it must be (at most %d of each check); logs are in %s:\n", keptFindings, filepath.Join(r.sys.dir, "logs"))
	for _, f := range rep.Findings {
		_, _ = fmt.Fprintf(r.Out, "  %s: %s: %s: %s\n", f.Check, f.Kind, f.ID, f.What)
	}
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return strings.TrimSuffix(line, ":")
}

func counts(m map[string]int) string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(m)) {
		out = append(out, fmt.Sprintf("%s %d", k, m[k]))
	}
	return strings.Join(out, ", ")
}
