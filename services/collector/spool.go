package collector

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/honeloop/hone/pkg/spool"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/telemetry"
)

// SpoolConfig says what becomes of events while Kafka is away.
type SpoolConfig struct {
	// Whether they are kept on disk and accepted. Else they are refused.
	Enabled bool `yaml:"enabled" env:"ENABLED"`
	// Folder, of this collector alone, on a disk that outlives the process.
	Dir string `yaml:"dir" env:"DIR"`
	// Bytes on disk. Beyond them: 503.
	MaxBytes int64 `yaml:"max_bytes" env:"MAX_BYTES"`
	// How long Kafka may take before it counts as away. What it has taken by then
	// all the same comes twice, under the same ids.
	Patience time.Duration `yaml:"patience" env:"PATIENCE"`
}

// DefaultSpoolConfig is a spool that is off.
func DefaultSpoolConfig() SpoolConfig {
	return SpoolConfig{Dir: "spool", MaxBytes: 1 << 30, Patience: 30 * time.Millisecond}
}

// Validate joins all that is wrong.
func (c SpoolConfig) Validate() error {
	var errs []error
	if c.Enabled && c.Dir == "" {
		errs = append(errs, errors.New("dir: missing, want a folder"))
	}
	if c.MaxBytes < 1<<20 {
		errs = append(errs, errors.New("max_bytes: want at least 1048576"))
	}
	if c.Patience <= 0 {
		errs = append(errs, errors.New("patience: want more than 0"))
	}
	return errors.Join(errs...)
}

const (
	// drainBytes is what one publish of the drain takes from the spool.
	drainBytes = 1 << 20
	// drainWait bounds the wait between two tries.
	drainWait = 500 * time.Millisecond
)

// spooling is a Publisher that goes to the spool while Kafka is away. Once one
// event is in the spool, all that come after it go there too, until the spool is
// empty: so none overtakes another.
type spooling struct {
	kafka    Publisher
	spool    *spool.Spool
	refused  refusedFile
	patience time.Duration
	log      *slog.Logger
	metrics  spoolMetrics

	// Appends hold it shared, so that whoever holds it alone knows that the
	// spool is empty and stays so.
	mu   sync.RWMutex
	away atomic.Bool   // new events go to the spool
	wake chan struct{} // one place: away became true
}

func newSpooling(kafka Publisher, cfg SpoolConfig, tel *telemetry.Telemetry) (*spooling, error) {
	sp, err := spool.Open(spool.Options{Dir: cfg.Dir, MaxBytes: cfg.MaxBytes, SegmentBytes: min(16<<20, cfg.MaxBytes/4)})
	if err != nil {
		return nil, err
	}
	s := &spooling{kafka: kafka, spool: sp, refused: refusedFile{filepath.Join(cfg.Dir, "refused.jsonl"), cfg.MaxBytes}, patience: cfg.Patience, log: tel.Log, wake: make(chan struct{}, 1)}
	if s.metrics, err = newSpoolMetrics(tel.Meter, sp); err != nil {
		return nil, errors.Join(err, sp.Close())
	}
	for _, d := range sp.Damage() {
		s.log.Warn("the end of a spool file was cut off", "file", d)
	}
	if n := sp.Stats().Records; n > 0 {
		s.log.Info("the spool holds events of an earlier run", "events", n)
		s.goAway()
	}
	return s, nil
}

func (s *spooling) goAway() {
	if s.away.CompareAndSwap(false, true) {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// Publish returns nil once each record is in Kafka or in the spool.
func (s *spooling) Publish(ctx context.Context, recs ...stage.Record) error {
	if s.away.Load() {
		if in, err := s.append(ctx, recs, false); in {
			return err
		}
	}
	direct, cancel := context.WithTimeout(ctx, s.patience)
	err := s.kafka.Publish(direct, recs...)
	cancel()
	if err == nil || ctx.Err() != nil || !isAway(err) {
		return err
	}
	partly, ok := errors.AsType[*stream.PublishError](err)
	if !ok {
		_, err := s.append(ctx, recs, true)
		return err
	}
	// Those that Kafka has not are spooled, but for what it will never take.
	var rest []stage.Record
	var places []int
	out := &stream.PublishError{Errs: map[int]error{}}
	for i := range recs {
		switch cause := partly.Errs[i]; {
		case cause == nil:
		case isAway(cause):
			rest = append(rest, recs[i])
			places = append(places, i)
		default:
			out.Errs[i] = cause
		}
	}
	if len(rest) > 0 {
		if _, err := s.append(ctx, rest, true); err != nil {
			for _, i := range places {
				out.Errs[i] = err
			}
		}
	}
	if len(out.Errs) == 0 {
		return nil
	}
	return out
}

// isAway says whether an error is Kafka's absence and not the records' fault.
func isAway(err error) bool {
	return errors.Is(err, stream.ErrUnavailable) || errors.Is(err, stream.ErrOverloaded) || errors.Is(err, context.DeadlineExceeded)
}

// append puts records into the spool. in is false where Kafka has come back
// meanwhile and force is.
func (s *spooling) append(ctx context.Context, recs []stage.Record, force bool) (in bool, err error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if force {
		s.goAway()
	} else if !s.away.Load() {
		return false, nil
	}
	entries := make([]spool.Record, len(recs))
	for i := range recs {
		entries[i] = spool.Record{Time: recs[i].Time, Data: encodeSpooled(&recs[i])}
	}
	if err := s.spool.Append(ctx, entries...); err != nil {
		return true, err
	}
	s.metrics.spooled.Add(ctx, int64(len(recs)))
	return true, nil
}

// run drains the spool whenever there is something in it.
func (s *spooling) run(ctx context.Context) {
	var logged time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.wake:
		}
		start := time.Now()
		quiet := start.Sub(logged) < 10*time.Second // where the disk fails too, this comes with every request
		if !quiet {
			logged = start
			s.log.Warn("Kafka is away: events go to the spool")
		}
		if drained := s.drain(ctx); ctx.Err() == nil && !quiet {
			s.log.Info("Kafka is back and the spool is empty", "events", drained, "after", time.Since(start))
		}
	}
}

// drain publishes from the spool until it is empty, and then lets events past it
// again.
func (s *spooling) drain(ctx context.Context) (drained int) {
	const shortest = 10 * time.Millisecond
	var batch spool.Batch
	var todo []stage.Record // of batch
	wait, logged := shortest, time.Time{}
	for ctx.Err() == nil {
		err := s.drainSome(ctx, &batch, &todo)
		switch {
		case err == nil && len(batch.Records) > 0:
			drained += len(batch.Records)
			wait = shortest
			continue
		case err == nil && s.comeBack():
			return drained
		case err == nil:
			continue
		case time.Since(logged) > 10*time.Second && ctx.Err() == nil:
			logged = time.Now()
			st := s.spool.Stats()
			s.log.Warn("the spool cannot be drained yet", "events", st.Records, "bytes", st.Bytes, "oldest", st.Oldest, "error", err)
		}
		timer := time.NewTimer(wait/2 + rand.N(wait/2+1))
		select {
		case <-ctx.Done():
			timer.Stop()
		case <-timer.C:
		}
		wait = min(2*wait, drainWait)
	}
	return drained
}

// drainSome publishes what is at the front, or of it what the last try left.
func (s *spooling) drainSome(ctx context.Context, batch *spool.Batch, todo *[]stage.Record) (err error) {
	if len(*todo) == 0 {
		if *batch, err = s.spool.Read(drainBytes); err != nil || len(batch.Records) == 0 {
			return err
		}
		recs := make([]stage.Record, len(batch.Records))
		for i, e := range batch.Records {
			if recs[i], err = decodeSpooled(e); err != nil {
				return err
			}
		}
		*todo = recs
	}
	if *todo, err = s.publish(ctx, *todo); err != nil {
		return err
	}
	return s.spool.Drop(*batch)
}

// publish returns those records that are still to be published, and why. It sets
// aside what Kafka refuses for good.
func (s *spooling) publish(ctx context.Context, recs []stage.Record) ([]stage.Record, error) {
	err := s.kafka.Publish(ctx, recs...)
	if err == nil {
		s.metrics.drained.Add(ctx, int64(len(recs)))
		return nil, nil
	}
	rest := recs
	if partly, ok := errors.AsType[*stream.PublishError](err); ok {
		rest = nil
		for i, rec := range recs {
			if partly.Errs[i] != nil {
				rest = append(rest, rec)
			}
		}
		s.metrics.drained.Add(ctx, int64(len(recs)-len(rest)))
	}
	if !errors.Is(err, stream.ErrRefused) {
		return rest, err
	}
	// Only one that is refused alone is itself at fault.
	for ; len(rest) > 0; rest = rest[1:] {
		switch err := s.kafka.Publish(ctx, rest[0]); {
		case err == nil:
			s.metrics.drained.Add(ctx, 1)
		case !errors.Is(err, stream.ErrRefused):
			return rest, err
		default:
			if err := s.refused.add(&rest[0], err); err != nil {
				return rest, err
			}
			s.metrics.refused.Add(ctx, 1)
			s.log.Error("Kafka refuses an event of the spool for good: it is set aside", "file", s.refused.path, "error", err)
		}
	}
	return nil, nil
}

// comeBack lets events past the spool where it is empty.
func (s *spooling) comeBack() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	batch, err := s.spool.Read(1)
	if err != nil || len(batch.Records) > 0 {
		return false
	}
	if err := s.spool.Drop(batch); err != nil { // it removes the last file
		s.log.Warn("an empty spool file stays", "error", err)
	}
	s.away.Store(false)
	return true
}

func (s *spooling) Close() error {
	return errors.Join(s.metrics.registration.Unregister(), s.spool.Close())
}

type spoolMetrics struct {
	spooled, drained, refused metric.Int64Counter
	registration              metric.Registration
}

func newSpoolMetrics(meter metric.Meter, sp *spool.Spool) (m spoolMetrics, err error) {
	var errs [6]error
	m.spooled, errs[0] = meter.Int64Counter("hone.collector.spool.spooled", metric.WithDescription("Events put into the spool."))
	m.drained, errs[1] = meter.Int64Counter("hone.collector.spool.drained", metric.WithDescription("Events published from the spool."))
	m.refused, errs[5] = meter.Int64Counter("hone.collector.spool.refused", metric.WithDescription("Events of the spool that Kafka refused for good, set aside in refused.jsonl."))
	events, err := meter.Int64ObservableGauge("hone.collector.spool.events", metric.WithDescription("Events in the spool."))
	errs[2] = err
	bytes, err := meter.Int64ObservableGauge("hone.collector.spool.size", metric.WithDescription("Bytes of the spool's files."), metric.WithUnit("By"))
	errs[3] = err
	oldest, err := meter.Float64ObservableGauge("hone.collector.spool.oldest.age", metric.WithDescription("Age of the oldest event in the spool; 0 where it is empty."), metric.WithUnit("s"))
	errs[4] = err
	if err := errors.Join(errs[:]...); err != nil {
		return m, err
	}
	m.registration, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		st := sp.Stats()
		age := 0.0
		if !st.Oldest.IsZero() {
			age = max(time.Since(st.Oldest).Seconds(), 0)
		}
		o.ObserveInt64(events, st.Records)
		o.ObserveInt64(bytes, st.Bytes)
		o.ObserveFloat64(oldest, age)
		return nil
	}, events, bytes, oldest)
	return m, err
}

// encodeSpooled is a record without its time: topic, key, the number of headers
// and their keys and values, each with its length before it; then the value.
func encodeSpooled(r *stage.Record) []byte {
	size := 64 + len(r.Topic) + len(r.Key) + len(r.Value)
	for _, h := range r.Headers {
		size += 20 + len(h.Key) + len(h.Value)
	}
	b := make([]byte, 0, size)
	b = appendPart(b, r.Topic)
	b = appendPart(b, r.Key)
	b = binary.AppendUvarint(b, uint64(len(r.Headers)))
	for _, h := range r.Headers {
		b = appendPart(b, h.Key)
		b = appendPart(b, h.Value)
	}
	return append(b, r.Value...)
}

func appendPart[T string | []byte](b []byte, part T) []byte {
	b = binary.AppendUvarint(b, uint64(len(part)))
	return append(b, part...)
}

var errSpooled = errors.New("a record in the spool cannot be read: it was written by another version")

func decodeSpooled(e spool.Record) (stage.Record, error) {
	b := e.Data
	ok := true
	number := func() uint64 {
		n, size := binary.Uvarint(b)
		if size <= 0 {
			ok = false
			return 0
		}
		b = b[size:]
		return n
	}
	part := func() []byte {
		n := number()
		if n > uint64(len(b)) {
			ok = false
		}
		if !ok {
			return nil
		}
		out := b[:n:n]
		b = b[n:]
		return out
	}
	r := stage.Record{Time: e.Time}
	r.Topic = string(part())
	r.Key = part()
	for n := number(); ok && n > 0; n-- {
		r.Headers = append(r.Headers, stage.Header{Key: string(part()), Value: part()})
	}
	if !ok {
		return stage.Record{}, fmt.Errorf("%w: %d bytes", errSpooled, len(e.Data))
	}
	r.Value = b
	return r, nil
}
