package stream

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
)

// Errors of Kafka, for errors.Is.
var (
	// ErrUnavailable means that Kafka cannot be reached or cannot do what was
	// asked now. Where it comes from Publish, the records may or may not have
	// been written.
	ErrUnavailable = errors.New("kafka is unavailable")
	// ErrRefused means that Kafka will never take the record as it is. It was
	// not written.
	ErrRefused = errors.New("kafka refuses the record")
	// ErrOverloaded means that too many bytes were already in flight. Nothing
	// was written.
	ErrOverloaded = errors.New("too many bytes are waiting for kafka")
	// ErrClosed means that the publisher is closed. Nothing was written.
	ErrClosed = errors.New("publisher is closed")
)

// UnavailableError is an ErrUnavailable that was found earlier: it comes at
// once, and nothing was written. Somebody tries Kafka meanwhile.
type UnavailableError struct {
	// RetryAfter is how long until trying again may help.
	RetryAfter time.Duration
	// Cause is what was found.
	Cause error
}

func (e *UnavailableError) Error() string { return e.Cause.Error() }

// Is makes it an ErrUnavailable.
func (e *UnavailableError) Is(target error) bool { return target == ErrUnavailable }

// Unwrap is the cause.
func (e *UnavailableError) Unwrap() error { return e.Cause }

func unavailable(err error) error { return fmt.Errorf("%w: %w", ErrUnavailable, err) }

// refuses says whether an error is about the records and not about the cluster,
// nor about rights that an operator can still give.
func refuses(err error) bool {
	var code kafka.Error
	if !errors.As(err, &code) {
		return false
	}
	switch code {
	case kafka.MessageSizeTooLarge, kafka.RecordListTooLarge, kafka.InvalidTopic,
		kafka.InvalidTimestamp, kafka.PolicyViolation, kafka.InvalidRecord:
		return true
	}
	return false
}

// client is kafka-go's client and the transport that it owns.
type client struct {
	kafka     *kafka.Client
	transport *kafka.Transport

	mu        sync.Mutex
	refreshed time.Time
}

// newClient reads the files that cfg names, and does not connect yet.
func newClient(cfg Config) (*client, error) {
	tlsConfig, mechanism, err := cfg.security()
	if err != nil {
		return nil, err
	}
	t := &kafka.Transport{
		Dial:        (&net.Dialer{Timeout: cfg.DialTimeout}).DialContext,
		DialTimeout: cfg.DialTimeout,
		ClientID:    cfg.ClientID,
		TLS:         tlsConfig,
		SASL:        mechanism,
		// The transport looks at the cluster again after a random part of this,
		// also after an error. The default (6 s) is how long a broker that is
		// back would go unnoticed.
		MetadataTTL: 2 * time.Second,
	}
	return &client{kafka: &kafka.Client{Addr: kafka.TCP(cfg.Brokers...), Transport: t}, transport: t}, nil
}

func (c *client) close() { c.transport.CloseIdleConnections() }

// refresh makes the next request ask for the cluster's metadata anew, at most
// ten times a second. The transport has no other way to forget what it knows.
func (c *client) refresh() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := time.Now(); now.Sub(c.refreshed) > 100*time.Millisecond {
		c.refreshed = now
		c.transport.CloseIdleConnections()
	}
}

// partitions is how many partitions a topic has. Its error is an
// ErrUnavailable.
func (c *client) partitions(ctx context.Context, topic string) (int, error) {
	res, err := c.kafka.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
	if err == nil {
		if t := res.Topics[0]; t.Error != nil {
			err = t.Error
		} else if len(t.Partitions) == 0 {
			err = kafka.LeaderNotAvailable
		} else {
			return len(t.Partitions), nil
		}
	}
	c.refresh()
	return 0, fmt.Errorf("read partitions of %s: %w", topic, unavailable(err))
}

// awaitTopics waits until the topics exist.
func (c *client) awaitTopics(ctx context.Context, topics ...string) error {
	for _, topic := range topics {
		wait := backoff{min: 50 * time.Millisecond, max: 2 * time.Second}
		for {
			_, err := c.partitions(ctx, topic)
			if err == nil {
				break
			}
			if wait.sleep(ctx) != nil {
				return fmt.Errorf("wait for topic %s: %w", topic, err)
			}
		}
	}
	return nil
}

// offsets are the first offset of each partition and the one after its last.
func (c *client) offsets(ctx context.Context, topic string, partitions ...int) (first, end map[int]int64, err error) {
	req := make([]kafka.OffsetRequest, 0, 2*len(partitions))
	for _, p := range partitions {
		req = append(req, kafka.FirstOffsetOf(p), kafka.LastOffsetOf(p))
	}
	res, err := c.kafka.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{topic: req}})
	if err != nil {
		return nil, nil, fmt.Errorf("read offsets of %s: %w", topic, unavailable(err))
	}
	first, end = map[int]int64{}, map[int]int64{}
	for _, p := range res.Topics[topic] {
		if p.Error != nil {
			return nil, nil, fmt.Errorf("read offsets of %s, partition %d: %w", topic, p.Partition, unavailable(p.Error))
		}
		first[p.Partition], end[p.Partition] = p.FirstOffset, p.LastOffset
	}
	for _, p := range partitions {
		if _, ok := end[p]; !ok {
			return nil, nil, fmt.Errorf("read offsets of %s, partition %d: %w", topic, p, unavailable(kafka.LeaderNotAvailable))
		}
	}
	return first, end, nil
}

// backoff waits longer each time, up to max, less up to half of it at random.
type backoff struct {
	min, max time.Duration
	next     time.Duration
}

// sleep returns ctx's error where it ended first.
func (b *backoff) sleep(ctx context.Context) error {
	b.next = min(max(2*b.next, b.min), b.max)
	timer := time.NewTimer(b.next/2 + rand.N(b.next/2+1))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}

func (b *backoff) reset() { b.next = 0 }
