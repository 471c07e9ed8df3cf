package stream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"golang.org/x/sync/semaphore"

	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/telemetry"
)

const (
	// recordOverhead is more than what Kafka's format adds to a record.
	recordOverhead = 32
	// partitionsTTL is how long a topic's number of partitions is believed.
	partitionsTTL = 10 * time.Second
	// probeFirst is the wait before the first probe of what is down, probeEvery the
	// longest one between probes.
	probeFirst, probeEvery = 50 * time.Millisecond, time.Second
)

// TooLargeError is a record that the publisher or the broker refuses for its
// size. It can never be published.
type TooLargeError struct {
	Topic string
	// Size is of key, value and headers. Limit is max_record_bytes, or 0 where
	// the broker refused.
	Size, Limit int
}

func (e *TooLargeError) Error() string {
	if e.Limit == 0 {
		return fmt.Sprintf("record for %s has %d bytes, more than the broker takes", e.Topic, e.Size)
	}
	return fmt.Sprintf("record for %s has %d bytes, the limit is %d", e.Topic, e.Size, e.Limit)
}

// Is makes it an ErrRefused.
func (e *TooLargeError) Is(target error) bool { return target == ErrRefused }

// PublishError says which records of a Publish failed, by index. The others
// are written.
type PublishError struct {
	Errs map[int]error
}

func (e *PublishError) Error() string {
	indexes := slices.Sorted(maps.Keys(e.Errs))
	return fmt.Sprintf("publish: %d records failed, the first one: %v", len(indexes), e.Errs[indexes[0]])
}

// Unwrap gives errors.Is and As every distinct cause.
func (e *PublishError) Unwrap() []error {
	var out []error
	for _, i := range slices.Sorted(maps.Keys(e.Errs)) {
		if err := e.Errs[i]; !slices.ContainsFunc(out, func(o error) bool { return o == err }) {
			out = append(out, err)
		}
	}
	return out
}

// Publisher writes records to Kafka by group commit: for each partition one
// produce request is out, and the records that come meanwhile share the next.
// A lone record is sent at once. Records with one key keep their order. It is
// safe for concurrent use.
type Publisher struct {
	cfg     Config
	client  *client
	bytes   *semaphore.Weighted
	metrics publisherMetrics
	// encoders are *batchEncoder that nobody uses.
	encoders sync.Pool

	// ending ends with Close.
	ending context.Context
	end    context.CancelFunc

	mu     sync.Mutex
	closed bool
	topics map[string]*topic
	down   error // why topics cannot be looked up; nil where they can
	work   sync.WaitGroup
}

type topic struct {
	name      string
	queues    []*queue // by partition
	count     int      // partitions that the topic has
	refreshed time.Time
	// refreshing is whether somebody asks for count.
	refreshing bool
}

// NewPublisher reads the files that cfg names, and does not connect yet.
func NewPublisher(cfg Config, tel *telemetry.Telemetry) (*Publisher, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("create publisher: %w", err)
	}
	metrics, err := newPublisherMetrics(tel.Meter)
	if err != nil {
		return nil, fmt.Errorf("create publisher: %w", err)
	}
	client, err := newClient(cfg)
	if err != nil {
		return nil, fmt.Errorf("create publisher: %w", err)
	}
	p := &Publisher{
		cfg:     cfg,
		client:  client,
		bytes:   semaphore.NewWeighted(int64(cfg.MaxInFlightBytes)),
		metrics: metrics,
		topics:  map[string]*topic{},
	}
	p.ending, p.end = context.WithCancel(context.Background())
	// The broker is told half of it, so that it gives up before we do.
	p.client.kafka.Timeout = cfg.PublishTimeout
	return p, nil
}

// Publish writes the records and returns nil once Kafka has all of them on all
// in-sync replicas. It takes at most the configured time-out. A bare *TooLargeError,
// ErrOverloaded or ErrClosed comes before anything is written; else the error
// is a *PublishError, and where a record's cause is ErrUnavailable it may still
// have been written, unless it is an *UnavailableError. Nobody may change the
// records' bytes afterwards. Records without a traceparent header get that of
// ctx's span, if there is one.
func (p *Publisher) Publish(ctx context.Context, recs ...stage.Record) error {
	p.mu.Lock()
	closed := p.closed
	p.mu.Unlock()
	if closed {
		return ErrClosed
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.PublishTimeout)
	defer cancel()
	for i := range recs {
		if size, limit := recordSize(&recs[i]), p.maxRecord(recs[i].Topic); size > limit {
			return &TooLargeError{Topic: recs[i].Topic, Size: size, Limit: limit}
		}
	}
	recs = p.withTrace(ctx, recs)
	// A part is small enough to be let in at all, however much there is.
	for from := 0; from < len(recs); {
		to, bytes := from, 0
		for to < len(recs) {
			size := recordSize(&recs[to]) + recordOverhead
			if to > from && bytes+size > p.cfg.MaxInFlightBytes/2 {
				break
			}
			bytes += size
			to++
		}
		err := p.publishPart(ctx, recs, from, to, bytes)
		if err != nil && from == 0 && to == len(recs) {
			return err
		}
		if err != nil {
			// What comes after a part that failed is not tried, so that it
			// overtakes nothing.
			rest := &PublishError{Errs: map[int]error{}}
			if failed, ok := errors.AsType[*PublishError](err); ok {
				maps.Copy(rest.Errs, failed.Errs)
				err, from = failed.Unwrap()[0], to
			}
			for i := from; i < len(recs); i++ {
				rest.Errs[i] = fmt.Errorf("not tried after another record failed: %w", err)
			}
			return rest
		}
		from = to
	}
	return nil
}

// maxRecord leaves a dead letter room for a record of any other topic.
func (p *Publisher) maxRecord(topic string) int {
	if topic == TopicDeadLetter {
		return max(p.cfg.MaxRecordBytes, deadLetterMaxBytes)
	}
	return p.cfg.MaxRecordBytes
}

func (p *Publisher) publishPart(ctx context.Context, recs []stage.Record, from, to, size int) error {
	weight := int64(min(size, p.cfg.MaxInFlightBytes))
	if err := p.bytes.Acquire(ctx, weight); err != nil {
		return fmt.Errorf("publish: %w: %w", ErrOverloaded, err)
	}
	call := &call{done: make(chan struct{}), release: func() { p.bytes.Release(weight) }}
	call.open.Store(1)

	// Split by partition, and a partition's records where they fill a request.
	var single [1]*entry
	entries := single[:0]
	current := map[*queue]*entry{}
	for i := from; i < to; i++ {
		rec := &recs[i]
		q, err := p.queue(ctx, rec)
		if err != nil {
			call.fail([]int{i}, err)
			continue
		}
		size := recordSize(rec) + recordOverhead
		e := current[q]
		if e == nil || e.bytes+size > p.cfg.MaxBatchBytes {
			e = &entry{ctx: ctx, call: call, queue: q}
			current[q] = e
			entries = append(entries, e)
		}
		e.recs = append(e.recs, rec)
		e.indexes = append(e.indexes, i)
		e.bytes += size
	}
	call.open.Add(int32(len(entries)))
	for _, e := range entries {
		if !p.enqueue(e) {
			e.finish(ErrClosed)
		}
	}
	call.finish()

	select {
	case <-call.done:
		return call.err()
	case <-ctx.Done():
		// Some may be written by now, and the rest still.
		err := unavailable(fmt.Errorf("no answer in time: %w", ctx.Err()))
		errs := map[int]error{}
		for i := from; i < to; i++ {
			errs[i] = err
		}
		return &PublishError{Errs: errs}
	}
}

// Close waits for the requests that are out, and refuses new ones.
func (p *Publisher) Close() error {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.end()
	p.work.Wait()
	p.client.close()
	return nil
}

// queue is where a record goes, by the key's hash as the Java client does it.
func (p *Publisher) queue(ctx context.Context, rec *stage.Record) (*queue, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.topics[rec.Topic]
	if t == nil {
		if p.down != nil {
			return nil, p.down
		}
		p.mu.Unlock()
		n, err := p.lookUp(ctx, rec.Topic)
		p.mu.Lock()
		if err != nil {
			return nil, err
		}
		if t = p.topics[rec.Topic]; t == nil {
			t = &topic{name: rec.Topic, count: n, refreshed: time.Now()}
			p.topics[rec.Topic] = t
		}
	}
	if time.Since(t.refreshed) > partitionsTTL && !t.refreshing {
		// What was known is the best guess meanwhile. Whether the broker is there
		// shows when producing.
		t.refreshing = true
		p.background(func() { p.refreshTopic(t) })
	}
	for len(t.queues) < t.count {
		t.queues = append(t.queues, &queue{topic: t.name, partition: len(t.queues)})
	}
	if rec.Key == nil {
		return t.queues[rand.IntN(t.count)], nil
	}
	return t.queues[Partition(rec.Key, t.count)], nil
}

// Partition is where a key goes in a topic of n partitions: murmur2, as the
// Java client does it.
func Partition(key []byte, n int) int {
	return int(murmur2(key)&0x7fffffff) % n
}

func murmur2(data []byte) uint32 {
	const m, r = 0x5bd1e995, 24
	h := uint32(0x9747b28c) ^ uint32(len(data))
	for len(data) >= 4 {
		k := uint32(data[0]) | uint32(data[1])<<8 | uint32(data[2])<<16 | uint32(data[3])<<24
		k *= m
		k ^= k >> r
		h = h*m ^ k*m
		data = data[4:]
	}
	switch len(data) {
	case 3:
		h ^= uint32(data[2]) << 16
		fallthrough
	case 2:
		h ^= uint32(data[1]) << 8
		fallthrough
	case 1:
		h ^= uint32(data[0])
		h *= m
	}
	h ^= h >> 13
	h *= m
	return h ^ h>>15
}

// call is one part of a Publish.
type call struct {
	open    atomic.Int32 // entries that are not finished
	done    chan struct{}
	release func()

	mu   sync.Mutex
	errs map[int]error
}

func (c *call) fail(indexes []int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.errs == nil {
		c.errs = map[int]error{}
	}
	for _, i := range indexes {
		c.errs[i] = err
	}
}

func (c *call) finish() {
	if c.open.Add(-1) == 0 {
		c.release()
		close(c.done)
	}
}

func (c *call) err() error {
	if c.errs == nil {
		return nil
	}
	return &PublishError{Errs: c.errs}
}

// background runs fn until Close has waited for it. p.mu is held.
func (p *Publisher) background(fn func()) {
	if p.closed {
		return
	}
	p.work.Go(fn)
}

// lookUp finds how many partitions a topic has that was not seen yet.
func (p *Publisher) lookUp(ctx context.Context, name string) (int, error) {
	look, cancel := context.WithTimeout(ctx, p.cfg.StallAfter)
	defer cancel()
	n, err := p.client.partitions(look, name)
	if err == nil || ctx.Err() != nil || answered(err) {
		return n, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.down == nil {
		p.down = &UnavailableError{RetryAfter: probeEvery, Cause: err}
		p.background(func() {
			p.probe(func(ctx context.Context) error {
				if _, err := p.client.partitions(ctx, name); err != nil && !answered(err) {
					return err
				}
				return nil
			}, func() bool { return false })
			p.mu.Lock()
			defer p.mu.Unlock()
			p.down = nil
		})
	}
	return 0, err
}

func (p *Publisher) refreshTopic(t *topic) {
	ctx, cancel := context.WithTimeout(p.ending, p.cfg.PublishTimeout)
	defer cancel()
	n, err := p.client.partitions(ctx, t.name)
	p.mu.Lock()
	defer p.mu.Unlock()
	t.refreshing = false
	if err == nil {
		t.count = n
	}
	// After an error, too: each record would ask again.
	t.refreshed = time.Now()
}

// answered is whether an error is a broker's own.
func answered(err error) bool {
	_, ok := errors.AsType[kafka.Error](err)
	return ok
}

// probe waits until try succeeds or done says that there is no need, or for
// Close.
func (p *Publisher) probe(try func(context.Context) error, done func() bool) {
	wait := backoff{min: probeFirst, max: probeEvery}
	for wait.sleep(p.ending) == nil && !done() {
		ctx, cancel := context.WithTimeout(p.ending, p.cfg.StallAfter)
		err := try(ctx)
		cancel()
		if err == nil {
			return
		}
		p.client.refresh()
	}
}

// entry is what one call has for one partition.
type entry struct {
	ctx     context.Context
	call    *call
	queue   *queue
	recs    []*stage.Record
	indexes []int // of recs in the call's records
	bytes   int

	finished atomic.Bool
}

// finish counts the first time. Where a request stalls, its result comes too
// late.
func (e *entry) finish(err error) {
	if !e.finished.CompareAndSwap(false, true) {
		return
	}
	if err != nil {
		e.call.fail(e.indexes, err)
	}
	e.call.finish()
}

// queue holds what waits for a partition. Its worker runs while there is
// something to send.
type queue struct {
	topic     string
	partition int

	mu      sync.Mutex
	waiting []*entry
	working bool
	// down is why nobody is let in; nil where they are.
	down error
	// requests counts what was sent; out is whether the last one still is.
	requests int
	out      bool
}

// enqueue is false where the publisher is closed. It ends the entry at once
// where the partition is known to be down.
func (p *Publisher) enqueue(e *entry) bool {
	q := e.queue
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return false
	}
	q.mu.Lock()
	down := q.down
	if down == nil {
		q.waiting = append(q.waiting, e)
		if !q.working {
			q.working = true
			p.background(func() { p.run(q) })
		}
	}
	q.mu.Unlock()
	p.mu.Unlock()
	if down != nil {
		e.finish(down)
	}
	return true
}

// fall has a partition down: those who wait for it are told, and nobody is let
// in until a probe finds it up. It is false, and does nothing, where stalled is
// a request that has ended meanwhile; 0 stands for no request.
func (p *Publisher) fall(q *queue, cause error, stalled int) bool {
	p.mu.Lock()
	q.mu.Lock()
	if stalled != 0 && (stalled != q.requests || !q.out) {
		q.mu.Unlock()
		p.mu.Unlock()
		return false
	}
	start := q.down == nil
	if start {
		q.down = &UnavailableError{RetryAfter: probeEvery, Cause: cause}
	}
	down, waiting := q.down, q.waiting
	q.waiting = nil
	q.mu.Unlock()
	if start {
		p.background(func() {
			p.probe(func(ctx context.Context) error {
				q.mu.Lock()
				out := q.out
				q.mu.Unlock()
				if out {
					return cause // its end says more
				}
				_, _, err := p.client.offsets(ctx, q.topic, q.partition)
				return err
			}, q.isUp)
			q.rise()
		})
	}
	p.mu.Unlock()
	for _, e := range waiting {
		e.finish(down)
	}
	return true
}

// rise lets callers in again.
func (q *queue) rise() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.down = nil
}

// begin numbers a request that is sent.
func (q *queue) begin() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.requests++
	q.out = true
	return q.requests
}

func (q *queue) ended() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.out = false
}

func (q *queue) isUp() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.down == nil
}

func (p *Publisher) run(q *queue) {
	for {
		batch := q.take(p.cfg.MaxBatchBytes)
		if batch == nil {
			return
		}
		p.send(q, batch)
	}
}

// take removes what fits into one request. nil ends the worker.
func (q *queue) take(maxBytes int) []*entry {
	q.mu.Lock()
	defer q.mu.Unlock()
	n, bytes := 0, 0
	for n < len(q.waiting) && (n == 0 || bytes+q.waiting[n].bytes <= maxBytes) {
		bytes += q.waiting[n].bytes
		n++
	}
	if n == 0 {
		q.working = false
		q.waiting = nil
		return nil
	}
	batch := q.waiting[:n:n]
	q.waiting = q.waiting[n:]
	return batch
}

// send produces a batch and tells its callers.
func (p *Publisher) send(q *queue, batch []*entry) {
	// Nobody waits for these any more, and they are not written yet.
	live := batch[:0:0]
	for _, e := range batch {
		if err := e.ctx.Err(); err != nil {
			e.finish(unavailable(fmt.Errorf("waited too long: %w", err)))
			continue
		}
		live = append(live, e)
	}
	if len(live) == 0 {
		return
	}
	err := p.produce(q, live)
	switch {
	case errors.Is(err, ErrUnavailable):
		p.fall(q, err, 0)
	case !q.isUp():
		q.rise() // it was slow
	}
	if errors.Is(err, ErrRefused) && len(live) > 1 {
		// Of several callers' records only some may be at fault.
		p.send(q, live[:len(live)/2])
		p.send(q, live[len(live)/2:])
		return
	}
	if errors.Is(err, kafka.MessageSizeTooLarge) {
		largest := 0
		for _, r := range live[0].recs {
			largest = max(largest, recordSize(r))
		}
		err = &TooLargeError{Topic: q.topic, Size: largest}
	}
	for _, e := range live {
		e.finish(err)
	}
}

// produce sends a batch, again where that can help, until the time-out. A
// broker that is gone ends it at once.
func (p *Publisher) produce(q *queue, batch []*entry) error {
	ctx, cancel := context.WithTimeout(context.Background(), p.cfg.PublishTimeout)
	defer cancel()
	records, size := 0, 0
	for _, e := range batch {
		records += len(e.recs)
		size += e.bytes
	}
	start := time.Now()
	enc, _ := p.encoders.Get().(*batchEncoder)
	if enc == nil {
		var err error
		if enc, err = newBatchEncoder(); err != nil {
			return err
		}
	}
	encoded, err := enc.encode(batch, start)
	if err != nil {
		return fmt.Errorf("produce to %s, partition %d: %w", q.topic, q.partition, err)
	}
	request := q.begin()
	defer q.ended()
	stall := time.AfterFunc(p.cfg.StallAfter, func() {
		err := unavailable(fmt.Errorf("produce to %s, partition %d: no answer for %s", q.topic, q.partition, p.cfg.StallAfter))
		if p.fall(q, err, request) {
			for _, e := range batch {
				e.finish(err)
			}
		}
	})
	defer stall.Stop()
	wait := backoff{min: 20 * time.Millisecond, max: 500 * time.Millisecond}
	for attempt := 1; ; attempt++ {
		res, err := p.client.kafka.RawProduce(ctx, &kafka.RawProduceRequest{
			Topic:     q.topic,
			Partition: q.partition,
			// The zero value asks for no answer at all.
			RequiredAcks: kafka.RequireAll,
			RawRecords:   protocol.RawRecordSet{Reader: bytes.NewReader(encoded)},
		})
		if err == nil {
			err = res.Error
		}
		p.metrics.produced(q.topic, records, size, time.Since(start), err)
		start = time.Now()
		if answered(err) {
			stall.Reset(p.cfg.StallAfter)
		}
		if err == nil {
			// After an error the transport may still be reading it.
			if attempt == 1 && cap(enc.out) <= encoderKeepsCap {
				p.encoders.Put(enc)
			}
			return nil
		}
		err = fmt.Errorf("produce to %s, partition %d: %w", q.topic, q.partition, err)
		var dial *net.OpError
		switch {
		case refuses(err):
			return fmt.Errorf("%w: %w", ErrRefused, err)
		case errors.As(err, &dial) && dial.Op == "dial", ctx.Err() != nil:
			p.client.refresh()
			return unavailable(err)
		}
		// A connection that broke while idle, a leader that moved, a topic that
		// is new: look at the cluster again and retry. That may write a record
		// twice, never in another order, since nothing overtakes this batch.
		p.client.refresh()
		if _, metaErr := p.client.partitions(ctx, q.topic); metaErr != nil {
			return fmt.Errorf("%w (after: %v)", metaErr, err)
		}
		if code := kafka.Error(0); attempt == 1 && !errors.As(err, &code) {
			continue // the connection alone was at fault
		}
		if wait.sleep(ctx) != nil {
			return unavailable(err)
		}
	}
}

func recordSize(r *stage.Record) int {
	n := len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		n += len(h.Key) + len(h.Value)
	}
	return n
}
