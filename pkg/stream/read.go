package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"

	"github.com/honeloop/hone/pkg/stage"
)

const (
	defaultFetchBytes = 1 << 20
	defaultFetchWait  = 500 * time.Millisecond
)

// reader fetches one partition from an offset on. It belongs to one goroutine.
type reader struct {
	client    *client
	topic     string
	partition int
	next      int64 // or kafka.FirstOffset
	maxBytes  int
	maxWait   time.Duration

	// onLost hears of records that Kafka deleted before they were read.
	onLost func(from, to int64)
}

// fetched is what one request brought, maybe nothing.
type fetched struct {
	recs []stage.Record
	// end is the offset after the partition's last record.
	end int64
}

// fetch waits up to maxWait for records. An error may pass.
func (r *reader) fetch(ctx context.Context) (fetched, error) {
	if r.next < 0 {
		first, _, err := r.client.offsets(ctx, r.topic, r.partition)
		if err != nil {
			r.client.refresh()
			return fetched{}, err
		}
		r.next = first[r.partition]
	}
	// A broker that does not answer must not hold the connection for ever.
	fetchCtx, cancel := context.WithTimeout(ctx, r.maxWait+10*time.Second)
	defer cancel()
	res, err := r.client.kafka.Fetch(fetchCtx, &kafka.FetchRequest{
		Topic: r.topic, Partition: r.partition, Offset: r.next,
		MinBytes: 1, MaxBytes: int64(r.maxBytes), MaxWait: r.maxWait,
	})
	if err == nil {
		err = res.Error
	}
	if errors.Is(err, kafka.OffsetOutOfRange) {
		return fetched{}, r.outOfRange(ctx)
	}
	if err != nil {
		r.client.refresh()
		return fetched{}, fmt.Errorf("fetch %s, partition %d: %w", r.topic, r.partition, unavailable(err))
	}
	recs, next, err := decode(res.Records, r.topic, r.partition, r.next)
	if err != nil {
		return fetched{}, fmt.Errorf("decode %s, partition %d, offset %d: %w", r.topic, r.partition, r.next, err)
	}
	r.next = next
	return fetched{recs: recs, end: res.HighWatermark}, nil
}

// outOfRange goes to the first record that is there: after retention deleted
// unread ones, or where the log was cut or made anew, in which case reading it
// again is safe and skipping is not.
func (r *reader) outOfRange(ctx context.Context) error {
	first, end, err := r.client.offsets(ctx, r.topic, r.partition)
	if err != nil {
		return err
	}
	from := r.next
	if from >= first[r.partition] && from <= end[r.partition] {
		return nil // a follower was behind
	}
	r.next = first[r.partition]
	if from < r.next && r.onLost != nil {
		r.onLost(from, r.next)
	}
	return fmt.Errorf("offset %d of %s, partition %d, is not there: going on from %d (end %d)",
		from, r.topic, r.partition, r.next, end[r.partition])
}

// decode copies the records from an offset on, and finds the next offset.
func decode(from kafka.RecordReader, topic string, partition int, next int64) ([]stage.Record, int64, error) {
	batches := []kafka.RecordReader{from}
	if stream, ok := from.(*protocol.RecordStream); ok {
		batches = stream.Records
	}
	var recs []stage.Record
	var slab slab
	for _, batch := range batches {
		_, control := batch.(*protocol.ControlBatch)
		for {
			rec, err := batch.ReadRecord()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, next, err
			}
			key, keyErr := slab.read(rec.Key)
			value, valueErr := slab.read(rec.Value)
			if err := errors.Join(keyErr, valueErr); err != nil {
				return nil, next, err
			}
			// A batch may begin before the offset that was asked for.
			if rec.Offset < next {
				continue
			}
			next = rec.Offset + 1
			if control {
				continue
			}
			out := stage.Record{Topic: topic, Partition: partition, Offset: rec.Offset, Key: key, Value: value, Time: rec.Time}
			if len(rec.Headers) > 0 {
				out.Headers = make([]stage.Header, len(rec.Headers))
				for i, h := range rec.Headers {
					out.Headers[i] = stage.Header(h)
				}
			}
			recs = append(recs, out)
		}
	}
	return recs, next, nil
}

// slab allocates for many records at once.
type slab struct{ free []byte }

func (s *slab) read(b kafka.Bytes) ([]byte, error) {
	if b == nil {
		return nil, nil
	}
	n := b.Len()
	if n == 0 {
		return []byte{}, b.Close() // not nil, which is another value to Kafka
	}
	if n > len(s.free) {
		s.free = make([]byte, max(n, 64<<10))
	}
	out := s.free[:n:n]
	s.free = s.free[n:]
	_, err := io.ReadFull(b, out)
	return out, errors.Join(err, b.Close())
}
