package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/telemetry"
)

// RunnerConfig says what a runner reads and within what bounds.
type RunnerConfig struct {
	Group  string
	Stage  string // in metrics, logs and dead letters
	Topics []string

	// MaxBatch and MaxBatchBytes bound what Process gets at once. A single
	// record may be larger.
	MaxBatch      int
	MaxBatchBytes int
	// FetchBytes bounds one fetch, compressed. Three of them may be held for a
	// partition: at work, waiting, on its way.
	FetchBytes int
	// FetchWait is how long a fetch waits for the first record.
	FetchWait time.Duration
	// ProcessTimeout bounds one call of Process.
	ProcessTimeout time.Duration
	// RetryMin and RetryMax bound the wait between attempts.
	RetryMin, RetryMax time.Duration
	// DrainTimeout is how long a batch in hand may go on after a rebalance
	// began or the runner was told to stop. It must be less than SessionTimeout,
	// or the group takes the runner for dead.
	DrainTimeout time.Duration
	// SessionTimeout is how long after a crash the group waits before it gives
	// the partitions to others.
	SessionTimeout time.Duration
	// A record is poison once it failed alone PoisonAttempts times in a row, over
	// PoisonAfter at least, while each time most of its neighbors succeeded. To take
	// longer than ProcessTimeout is to fail.
	// A batch that failed PoisonAttempts times is halved to find out.
	PoisonAttempts int
	PoisonAfter    time.Duration
	// StuckAfter is how long one batch, or fetching, may fail before Ready says
	// so.
	StuckAfter time.Duration
}

// DefaultRunnerConfig is for a group such as "hone-enricher", whose stage is
// then "enricher".
func DefaultRunnerConfig(group string, topics ...string) RunnerConfig {
	return RunnerConfig{
		Group:          group,
		Stage:          strings.TrimPrefix(group, "hone-"),
		Topics:         topics,
		MaxBatch:       500,
		MaxBatchBytes:  4 << 20,
		FetchBytes:     defaultFetchBytes,
		FetchWait:      defaultFetchWait,
		ProcessTimeout: 30 * time.Second,
		RetryMin:       100 * time.Millisecond,
		RetryMax:       10 * time.Second,
		DrainTimeout:   5 * time.Second,
		// The least that brokers allow by default.
		SessionTimeout: 6 * time.Second,
		PoisonAttempts: 5,
		PoisonAfter:    30 * time.Second,
		StuckAfter:     time.Minute,
	}
}

// Validate joins all that is wrong with c.
func (c RunnerConfig) Validate() error {
	var errs []error
	check := func(ok bool, message string) {
		if !ok {
			errs = append(errs, errors.New(message))
		}
	}
	check(c.Group != "", "group: is empty")
	check(c.Stage != "", "stage: is empty")
	check(len(c.Topics) > 0, "topics: is empty")
	check(c.MaxBatch > 0, "max_batch: must be positive")
	check(c.MaxBatchBytes > 0, "max_batch_bytes: must be positive")
	check(c.FetchBytes > 0, "fetch_bytes: must be positive")
	check(c.FetchWait > 0, "fetch_wait: must be positive")
	check(c.ProcessTimeout > 0, "process_timeout: must be positive")
	check(c.RetryMin > 0 && c.RetryMax >= c.RetryMin, "retry_min, retry_max: must be positive, min not over max")
	check(c.DrainTimeout > 0 && c.DrainTimeout < c.SessionTimeout, "drain_timeout: must be positive and less than session_timeout")
	check(c.PoisonAttempts > 0, "poison_attempts: must be positive")
	check(c.PoisonAfter > 0, "poison_after: must be positive")
	check(c.StuckAfter > 0, "stuck_after: must be positive")
	return errors.Join(errs...)
}

// Runner runs a stage as a member of a consumer group. For each partition that
// it is assigned it reads batches in order, calls the stage, publishes what it
// returned and the dead letters with acks=all, and only then commits, through
// the generation in which it read them.
//
// An error of the stage is repeated until it passes. Dead letters are what a
// BatchError names, inputs whose output Kafka will never take, and poison: an
// input that fails again and again while its neighbors succeed.
type Runner struct {
	cfg     RunnerConfig
	kafka   Config
	stage   stage.Stage
	pub     *Publisher
	log     *slog.Logger
	meter   metric.Meter
	tracer  trace.Tracer
	metrics runnerMetrics

	mu     sync.Mutex
	state  error // why the runner is not in the group; nil where it is
	active map[partitionID]*partition
}

type partitionID struct {
	topic string
	id    int
}

// NewRunner does not connect yet.
func NewRunner(cfg RunnerConfig, kafka Config, st stage.Stage, pub *Publisher, tel *telemetry.Telemetry) (*Runner, error) {
	if err := errors.Join(cfg.Validate(), kafka.Validate()); err != nil {
		return nil, fmt.Errorf("create runner of %s: %w", cfg.Stage, err)
	}
	metrics, err := newRunnerMetrics(tel.Meter)
	if err != nil {
		return nil, fmt.Errorf("create runner of %s: %w", cfg.Stage, err)
	}
	return &Runner{
		cfg: cfg, kafka: kafka, stage: st, pub: pub,
		log:   tel.Log.With("stage", cfg.Stage, "group", cfg.Group),
		meter: tel.Meter, tracer: tel.Tracer, metrics: metrics,
		state:  errors.New("not started"),
		active: map[partitionID]*partition{},
	}, nil
}

// Ready is nil while the runner is a member of its group and no partition is
// stuck.
func (r *Runner) Ready(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.state != nil {
		return fmt.Errorf("stage %s: %w", r.cfg.Stage, r.state)
	}
	for id, p := range r.active {
		if since := p.busySince.Load(); since != 0 {
			if d := time.Since(time.Unix(0, since)); d > r.cfg.StuckAfter {
				return fmt.Errorf("stage %s: %s, partition %d, is stuck at offset %d for %s", r.cfg.Stage, id.topic, id.id, p.done.Load(), d.Round(time.Second))
			}
		}
		if since := p.failingSince.Load(); since != 0 {
			if d := time.Since(time.Unix(0, since)); d > r.cfg.StuckAfter {
				return fmt.Errorf("stage %s: %s, partition %d, cannot be read for %s", r.cfg.Stage, id.topic, id.id, d.Round(time.Second))
			}
		}
	}
	return nil
}

func (r *Runner) setState(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state = err
}

// Run works until ctx ends, finishes the batches in hand within DrainTimeout,
// commits them, leaves the group, and returns nil. It waits for topics that do
// not exist yet and for a broker that is gone.
func (r *Runner) Run(ctx context.Context) error {
	client, err := newClient(r.kafka)
	if err != nil {
		return fmt.Errorf("run stage %s: %w", r.cfg.Stage, err)
	}
	defer client.close()
	unregister, err := r.observeLag()
	if err != nil {
		return fmt.Errorf("run stage %s: %w", r.cfg.Stage, err)
	}
	defer unregister()
	defer r.setState(errors.New("stopped"))

	// Joining for a topic that does not exist would rejoin without end.
	wait := backoff{min: r.cfg.RetryMin, max: 2 * time.Second}
	for _, topic := range r.cfg.Topics {
		for {
			_, err := client.partitions(ctx, topic)
			if err == nil {
				break
			}
			r.setState(fmt.Errorf("waiting for topics: %w", err))
			if wait.sleep(ctx) != nil {
				return nil
			}
		}
	}

	r.setState(errors.New("joining the group"))
	conns := newConnTracker(r.kafka.DialTimeout)
	group, err := kafka.NewConsumerGroup(kafka.ConsumerGroupConfig{
		ID:      r.cfg.Group,
		Brokers: r.kafka.Brokers,
		Topics:  r.cfg.Topics,
		Dialer: &kafka.Dialer{
			ClientID: r.kafka.ClientID, Timeout: r.kafka.DialTimeout, DialFunc: conns.dial,
			TLS: client.transport.TLS, SASLMechanism: client.transport.SASL,
		},
		// A rebalance is noticed by the next heartbeat: the default of 3 s is
		// how long it would take at least.
		HeartbeatInterval: min(time.Second, r.cfg.SessionTimeout/3),
		SessionTimeout:    r.cfg.SessionTimeout,
		// Members may drain before they join again.
		RebalanceTimeout: r.cfg.SessionTimeout + r.cfg.DrainTimeout,
		// The default is 5 s, also after "coordinator not available" on a fresh
		// cluster.
		JoinGroupBackoff:      500 * time.Millisecond,
		WatchPartitionChanges: true,
		// Partitions that were never committed are read from their beginning.
		StartOffset: kafka.FirstOffset,
		Logger:      kafkaLogger{r.log, slog.LevelDebug}, // Next returns its errors
	})
	if err != nil {
		return fmt.Errorf("run stage %s: %w", r.cfg.Stage, err)
	}
	var logged time.Time
	for ctx.Err() == nil {
		gen, err := group.Next(ctx)
		if err != nil {
			if ctx.Err() == nil {
				if time.Since(logged) > 10*time.Second {
					logged = time.Now()
					r.log.Warn("cannot join the group, retrying", "error", err)
				}
				r.setState(fmt.Errorf("join group %s: %w", r.cfg.Group, err))
			}
			continue
		}
		r.setState(nil)
		began := time.Now()
		done := make(chan struct{})
		gen.Start(func(genCtx context.Context) {
			defer close(done)
			r.generation(genCtx, gen, client)
		})
		select {
		case <-done:
			// Generations that end at once must not spin.
			if time.Since(began) < 200*time.Millisecond {
				_ = (&backoff{min: 200 * time.Millisecond, max: 200 * time.Millisecond}).sleep(ctx)
			}
		case <-ctx.Done():
		}
	}

	// Closing ends the generation, which drains, and leaves the group. A join
	// that waits for others cannot be told to stop: cut its connection.
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		_ = group.Close() // it has no error to give
	}()
	grace := 2 * time.Second
	if r.assigned() > 0 {
		grace += r.cfg.DrainTimeout
	}
	select {
	case <-closed:
	case <-time.After(grace):
		r.log.Warn("leaving the group takes too long, cutting the connection", "waited", grace)
		conns.cut()
		select {
		case <-closed:
		case <-time.After(grace):
			return fmt.Errorf("run stage %s: a call of Process did not end with its context within %s", r.cfg.Stage, grace)
		}
	}
	return nil
}

func (r *Runner) assigned() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.active)
}

// generation works on the assigned partitions until ctx ends or the
// generation turns out to be lost.
func (r *Runner) generation(ctx context.Context, gen *kafka.Generation, client *client) {
	// stop ends fetching and retrying. work ends what is in hand.
	stop, cancelStop := context.WithCancel(ctx)
	defer cancelStop()
	work, cancelWork := context.WithCancel(context.Background())
	defer cancelWork()
	timer := make(chan struct{})
	go func() {
		defer close(timer)
		<-stop.Done()
		select {
		case <-time.After(r.cfg.DrainTimeout):
			cancelWork()
		case <-work.Done():
		}
	}()
	defer func() { cancelWork(); <-timer }()

	c := newCommitter(gen, func(err error) {
		// The group gave the partitions to others, or the coordinator is gone:
		// what is in hand cannot be committed any more.
		result := "failed"
		if err == nil {
			result = "ok"
		} else {
			r.log.Warn("cannot commit, giving up the generation", "generation", gen.ID, "error", err)
			cancelStop()
			cancelWork()
		}
		r.metrics.commits.Add(context.Background(), 1, metric.WithAttributes(
			attribute.String("stage", r.cfg.Stage), attribute.String("result", result)))
	})

	active := map[partitionID]*partition{}
	for topic, assignments := range gen.Assignments {
		for _, a := range assignments {
			id := partitionID{topic, a.ID}
			active[id] = newPartition(r, client, id, a.Offset)
		}
	}
	r.log.Info("joined the group", "generation", gen.ID, "partitions", len(active))
	r.mu.Lock()
	r.active = active
	r.mu.Unlock()

	var g errgroup.Group
	for _, p := range active {
		g.Go(func() error {
			p.run(stop, work, c)
			return nil
		})
	}
	if len(active) == 0 {
		<-stop.Done()
	}
	_ = g.Wait() // no partition returns an error
	c.close()
	r.mu.Lock()
	r.active = map[partitionID]*partition{}
	r.mu.Unlock()
}

// committer commits what partitions have done, one request at a time: what is
// done meanwhile goes with the next.
type committer struct {
	gen    *kafka.Generation
	result func(error)

	mu      sync.Mutex
	pending map[string]map[int]int64
	wake    chan struct{}
	done    chan struct{}
}

func newCommitter(gen *kafka.Generation, result func(error)) *committer {
	c := &committer{gen: gen, result: result, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go func() {
		defer close(c.done)
		for range c.wake {
			if !c.commit() {
				return
			}
		}
		c.commit()
	}()
	return c
}

// mark has everything before an offset of a partition committed.
func (c *committer) mark(id partitionID, next int64) {
	c.mu.Lock()
	if c.pending == nil {
		c.pending = map[string]map[int]int64{}
	}
	if c.pending[id.topic] == nil {
		c.pending[id.topic] = map[int]int64{}
	}
	c.pending[id.topic][id.id] = next
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *committer) commit() bool {
	c.mu.Lock()
	offsets := c.pending
	c.pending = nil
	c.mu.Unlock()
	if len(offsets) == 0 {
		return true
	}
	err := c.gen.CommitOffsets(offsets)
	c.result(err)
	return err == nil
}

// close commits the rest, unless a commit has failed. Nobody may mark any more.
func (c *committer) close() {
	close(c.wake)
	<-c.done
}

// partition is one assigned partition during one generation.
type partition struct {
	r      *Runner
	id     partitionID
	reader *reader
	attrs  metric.MeasurementOption
	commit *committer

	// Of the goroutine that works on batches: what is read and not done, with
	// the batch in hand first; what comes next; some that were done.
	waiting []stage.Record
	ahead   chan fetched
	good    []stage.Record
	// span is of the last attempt, for what it causes.
	span trace.SpanContext

	end          atomic.Int64 // offset after the last record that the broker has
	done         atomic.Int64 // offset after the last record that is done
	busySince    atomic.Int64 // Unix nanoseconds since which the batch is in hand; 0 = none
	failingSince atomic.Int64 // Unix nanoseconds since which fetching fails; 0 = it does not
}

func newPartition(r *Runner, c *client, id partitionID, offset int64) *partition {
	p := &partition{r: r, id: id, attrs: metric.WithAttributeSet(attribute.NewSet(
		attribute.String("stage", r.cfg.Stage), attribute.String("topic", id.topic)))}
	p.reader = &reader{
		client: c, topic: id.topic, partition: id.id, next: offset,
		maxBytes: r.cfg.FetchBytes, maxWait: r.cfg.FetchWait,
		onLost: func(from, to int64) {
			r.metrics.lost.Add(context.Background(), to-from, p.attrs)
			r.log.Error("records were deleted before they were read", "topic", id.topic, "partition", id.id, "from", from, "to", to)
		},
	}
	p.done.Store(max(offset, 0))
	return p
}

// run works until stop ends.
func (p *partition) run(stop, work context.Context, c *committer) {
	p.commit, p.ahead = c, make(chan fetched, 1)
	var fetching sync.WaitGroup
	fetching.Go(func() { p.fetch(stop, p.ahead) })
	defer fetching.Wait()

	for {
		if len(p.waiting) == 0 {
			select {
			case <-stop.Done():
				return
			case got := <-p.ahead:
				p.waiting = got.recs
			}
		}
		// Small fetches that came meanwhile make one batch.
		p.waitFor(p.r.cfg.MaxBatch)
		if stop.Err() != nil {
			return
		}
		n := p.r.batchLen(p.waiting)
		p.busySince.Store(time.Now().UnixNano())
		ok := p.handle(stop, work, p.waiting[:n:n])
		p.busySince.Store(0)
		if !ok {
			return
		}
		p.waiting = p.waiting[n:]
	}
}

// waitFor adds what is fetched already, until n records wait.
func (p *partition) waitFor(n int) {
	for len(p.waiting) < n {
		select {
		case got := <-p.ahead:
			p.waiting = append(p.waiting, got.recs...)
			continue
		default:
		}
		return
	}
}

// advance has the records before next committed.
func (p *partition) advance(next int64) {
	p.done.Store(next)
	p.commit.mark(p.id, next)
	p.busySince.Store(time.Now().UnixNano())
}

// batchLen is how many of the records make the next batch.
func (r *Runner) batchLen(recs []stage.Record) int {
	n, bytes := 0, 0
	for n < min(len(recs), r.cfg.MaxBatch) {
		bytes += recordSize(&recs[n])
		if n > 0 && bytes > r.cfg.MaxBatchBytes {
			break
		}
		n++
	}
	return n
}

func (p *partition) fetch(stop context.Context, to chan<- fetched) {
	wait := backoff{min: p.r.cfg.RetryMin, max: p.r.cfg.RetryMax}
	for {
		got, err := p.reader.fetch(stop)
		if stop.Err() != nil {
			return
		}
		if err != nil {
			p.failingSince.CompareAndSwap(0, time.Now().UnixNano())
			p.r.log.Warn("cannot read, retrying", "topic", p.id.topic, "partition", p.id.id, "error", err)
			if wait.sleep(stop) != nil {
				return
			}
			continue
		}
		wait.reset()
		p.failingSince.Store(0)
		p.end.Store(got.end)
		if len(got.recs) == 0 {
			continue
		}
		select {
		case to <- got:
		case <-stop.Done():
			return
		}
	}
}

// handle brings a batch to its end: processed, and its outputs and dead letters
// published. It is false where the generation ended before.
func (p *partition) handle(stop, work context.Context, in []stage.Record) bool {
	return p.try(stop, work, in, 0, p.r.cfg.PoisonAttempts)
}

// try is handle after some attempts. halveAfter is how many failures, in a row,
// that may be a record's fault have the batch halved.
func (p *partition) try(stop, work context.Context, in []stage.Record, attempts, halveAfter int) bool {
	wait := backoff{min: p.r.cfg.RetryMin, max: p.r.cfg.RetryMax}
	var suspect suspect
	for attempt := attempts + 1; ; attempt++ {
		out, dead, err := p.attempt(work, in)
		if err == nil {
			return p.publish(stop, work, in, out, dead, attempt)
		}
		p.retrying("process", attempt, in, err)
		if work.Err() != nil {
			return false
		}
		switch {
		case worldly(err) && !tooSlow(err), len(in) == 1 && !p.neighborsSucceed(stop, work, in[0]):
			suspect.clear()
		default:
			suspect.failed()
		}
		switch {
		case len(in) > 1 && suspect.failures >= halveAfter:
			half := len(in) / 2
			return p.try(stop, work, in[:half], attempt, 1) && p.try(stop, work, in[half:], attempt, 1)
		case len(in) == 1 && suspect.failures >= p.r.cfg.PoisonAttempts && time.Since(suspect.since) >= p.r.cfg.PoisonAfter:
			cause := poison{fmt.Errorf("failed alone %d times in %s while its neighbors succeeded: %w",
				suspect.failures, time.Since(suspect.since).Round(time.Millisecond), err)}
			return p.publish(stop, work, in, nil, map[int]error{0: cause}, attempt)
		}
		if wait.sleep(stop) != nil || work.Err() != nil {
			return false
		}
	}
}

func (p *partition) retrying(step string, attempt int, in []stage.Record, err error) {
	p.r.metrics.retries.Add(context.Background(), 1, p.attrs, metric.WithAttributes(attribute.String("step", step)))
	ctx := trace.ContextWithSpanContext(context.Background(), p.span)
	p.r.log.WarnContext(ctx, "batch failed, retrying", "step", step, "topic", p.id.topic, "partition", p.id.id,
		"offset", in[0].Offset, "records", len(in), "attempt", attempt, "error", err)
}

// attempt calls the stage once. Its error is transient.
func (p *partition) attempt(work context.Context, in []stage.Record) (out []stage.Record, dead map[int]error, err error) {
	ctx, cancel := context.WithTimeout(work, p.r.cfg.ProcessTimeout)
	defer cancel()
	ctx, span := p.start(ctx, in)
	p.span = span.SpanContext()
	defer func() { end(span, dead, err) }()
	start := time.Now()
	out, err = p.process(ctx, in)
	p.r.metrics.duration.Record(context.Background(), time.Since(start).Seconds(), p.attrs)
	if err == nil {
		return out, nil, nil
	}
	// A call that was told to stop does not know what can never succeed.
	if cause := ctx.Err(); cause != nil {
		err = fmt.Errorf("%w: %w", cause, err)
		if work.Err() == nil {
			err = tookTooLong{fmt.Errorf("not done after %s: %w", p.r.cfg.ProcessTimeout, err)}
		}
		return nil, nil, err
	}
	batchErr, ok := stage.AsBatchError(err)
	if !ok {
		return nil, nil, err
	}
	dead = map[int]error{}
	for _, i := range batchErr.Indexes() {
		cause := batchErr.Cause(i)
		if i < 0 || i >= len(in) {
			return nil, nil, fmt.Errorf("stage named input %d of %d: %w", i, len(in), err)
		}
		if errors.Is(cause, context.Canceled) || errors.Is(cause, context.DeadlineExceeded) {
			return nil, nil, err
		}
		dead[i] = cause
	}
	return out, dead, nil
}

// process turns a panic into an error.
func (p *partition) process(ctx context.Context, in []stage.Record) (out []stage.Record, err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("stage panicked: %v", v)
			p.r.log.Error("stage panicked", "topic", p.id.topic, "partition", p.id.id, "offset", in[0].Offset,
				"panic", fmt.Sprint(v), "stack", string(debug.Stack()))
		}
	}()
	return p.r.stage.Process(ctx, in)
}

// publish writes what a batch caused until Kafka has it.
func (p *partition) publish(stop, work context.Context, in, out []stage.Record, dead map[int]error, attempt int) bool {
	handOn(in, out)
	recs := out
	now := time.Now()
	traced := trace.ContextWithSpanContext(work, p.span)
	for _, i := range sortedKeys(dead) {
		letter := DeadLetter{Record: in[i], Stage: p.r.cfg.Stage, Attempts: attempt, Cause: dead[i].Error(), FailedAt: now}
		recs = append(recs[:len(recs):len(recs)], letter.record())
	}
	wait := backoff{min: p.r.cfg.RetryMin, max: p.r.cfg.RetryMax}
	for try := 1; len(recs) > 0; try++ {
		err := p.r.pub.Publish(traced, recs...)
		if err == nil {
			break
		}
		if errors.Is(err, ErrRefused) && (len(in) > 1 || len(out) > 0) {
			return p.isolate(stop, work, in, err, attempt)
		}
		p.retrying("publish", try, in, err)
		if wait.sleep(stop) != nil || work.Err() != nil {
			return false
		}
	}
	ctx := context.Background()
	p.r.metrics.batches.Add(ctx, 1, p.attrs)
	p.r.metrics.in.Add(ctx, int64(len(in)), p.attrs)
	p.r.metrics.out.Add(ctx, int64(len(out)), p.attrs)
	for i, cause := range dead {
		p.r.metrics.deadLetters.Add(ctx, 1, p.attrs, metric.WithAttributes(attribute.String("reason", reason(cause))))
		p.r.log.Warn("record went to the dead letter", "topic", p.id.topic, "partition", p.id.id, "offset", in[i].Offset, "reason", reason(cause))
	}
	p.remember(in, dead)
	p.advance(in[len(in)-1].Offset + 1)
	return true
}

// isolate finds the input whose output Kafka will never take, and makes it a
// dead letter.
func (p *partition) isolate(stop, work context.Context, in []stage.Record, err error, attempt int) bool {
	if len(in) == 1 {
		return p.publish(stop, work, in, nil, map[int]error{0: outputRefused{err}}, attempt)
	}
	half := len(in) / 2
	return p.handle(stop, work, in[:half]) && p.handle(stop, work, in[half:])
}

// outputRefused is the cause of a dead letter that isolate makes.
type outputRefused struct{ error }

func (e outputRefused) Unwrap() error  { return e.error }
func (e outputRefused) Reason() string { return "output_refused" }

// reason is a cause's class for metrics: what its Reason method says, which
// must be one of few, or "rejected".
func reason(cause error) string {
	if r, ok := errors.AsType[interface {
		error
		Reason() string
	}](cause); ok {
		return r.Reason()
	}
	return "rejected"
}

func sortedKeys(m map[int]error) []int {
	keys := make([]int, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// observeLag reports lag until the returned func is called.
func (r *Runner) observeLag() (func(), error) {
	reg, err := r.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		for id, p := range r.active {
			o.ObserveInt64(r.metrics.lag, max(0, p.end.Load()-p.done.Load()), metric.WithAttributes(
				attribute.String("stage", r.cfg.Stage), attribute.String("topic", id.topic), attribute.Int("partition", id.id)))
		}
		return nil
	}, r.metrics.lag)
	if err != nil {
		return nil, fmt.Errorf("observe lag: %w", err)
	}
	return func() {
		if err := reg.Unregister(); err != nil {
			r.log.Error("cannot stop observing lag", "error", err)
		}
	}, nil
}
