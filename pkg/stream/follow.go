package stream

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"

	"github.com/honeloop/hone/pkg/stage"
)

// FollowFrom is where Follow begins. The zero value is each partition's first
// record.
type FollowFrom struct {
	// Offsets is the first offset to read, by partition; a partition that is not
	// in it is read from its first record.
	Offsets map[int]int64
	// OnError, if any, hears of errors that Follow retries after.
	OnError func(error)
}

// FromStart begins with each partition's first record.
func FromStart() FollowFrom { return FollowFrom{} }

// FromOffsets begins at the given offsets.
func FromOffsets(offsets map[int]int64) FollowFrom { return FollowFrom{Offsets: offsets} }

// Follow reads every partition of a topic without a group and calls fn for each
// record, one at a time and in order within a partition. It calls caughtUp, if
// any, once: when fn has seen all that was there when Follow began. It waits for
// a topic that does not exist and for a broker that is gone, and returns nil
// when ctx ends, or fn's error.
func Follow(ctx context.Context, cfg Config, topic string, from FollowFrom, fn func(context.Context, stage.Record) error, caughtUp func()) error {
	done := func() error {
		if caughtUp != nil {
			caughtUp()
		}
		return nil
	}
	return followFrom(ctx, cfg, topic, fn, done, from.OnError, func(p int, first, _ int64) int64 {
		if at, ok := from.Offsets[p]; ok {
			return max(at, first)
		}
		return first
	})
}

// Tail calls fn for the last n records of a topic, by time, and then, where
// follow is set, for every new one until ctx ends. It holds up to n records of
// each partition.
func Tail(ctx context.Context, cfg Config, topic string, last int, follow bool, fn func(context.Context, stage.Record) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var held []stage.Record
	live := false
	collect := func(ctx context.Context, rec stage.Record) error {
		if live {
			return fn(ctx, rec)
		}
		held = append(held, rec)
		return nil
	}
	caughtUp := func() error {
		slices.SortStableFunc(held, func(a, b stage.Record) int { return a.Time.Compare(b.Time) })
		for _, rec := range held[max(0, len(held)-last):] {
			if err := fn(ctx, rec); err != nil {
				return fmt.Errorf("tail %s, partition %d, offset %d: %w", topic, rec.Partition, rec.Offset, err)
			}
		}
		held, live = nil, true
		if !follow {
			cancel()
		}
		return nil
	}
	return followFrom(ctx, cfg, topic, collect, caughtUp, nil, func(_ int, first, end int64) int64 {
		return max(first, end-int64(last))
	})
}

// partitionsInterval is how often a follower looks for new partitions.
const partitionsInterval = 30 * time.Second

func followFrom(ctx context.Context, cfg Config, topic string, fn func(context.Context, stage.Record) error, caughtUp func() error, onError func(error), start func(partition int, first, end int64) int64) error {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("follow %s: %w", topic, err)
	}
	c, err := newClient(cfg)
	if err != nil {
		return fmt.Errorf("follow %s: %w", topic, err)
	}
	defer c.close()
	failed := func(err error) {
		if onError != nil && ctx.Err() == nil {
			onError(err)
		}
	}

	var count int
	var first, end map[int]int64
	wait := backoff{min: 100 * time.Millisecond, max: 5 * time.Second}
	for {
		var err error
		if count, err = c.partitions(ctx, topic); err == nil {
			first, end, err = c.offsets(ctx, topic, sequence(0, count)...)
		}
		if err == nil {
			break
		}
		failed(err)
		if wait.sleep(ctx) != nil {
			return nil
		}
	}

	g, gctx := errgroup.WithContext(ctx)
	batches := make(chan fetched)
	read := func(p int, offset int64) {
		g.Go(func() error {
			r := &reader{client: c, topic: topic, partition: p, next: offset, maxBytes: defaultFetchBytes, maxWait: defaultFetchWait,
				onLost: func(from, to int64) {
					failed(fmt.Errorf("records %d to %d of %s, partition %d, are deleted", from, to-1, topic, p))
				}}
			wait := backoff{min: 100 * time.Millisecond, max: 5 * time.Second}
			for {
				got, err := r.fetch(gctx)
				if err != nil {
					failed(err)
					if wait.sleep(gctx) != nil {
						return nil
					}
					continue
				}
				wait.reset()
				if len(got.recs) == 0 {
					continue
				}
				select {
				case batches <- got:
				case <-gctx.Done():
					return nil
				}
			}
		})
	}
	behind := map[int]int64{} // partitions that have not reached their end of the start
	for p := range count {
		at := start(p, first[p], end[p])
		if at < end[p] {
			behind[p] = end[p]
		}
		read(p, at)
	}
	g.Go(func() error {
		if len(behind) == 0 {
			if err := caughtUp(); err != nil {
				return err
			}
		}
		more := time.NewTicker(partitionsInterval)
		defer more.Stop()
		for {
			select {
			case <-gctx.Done():
				return nil
			case <-more.C:
				n, err := c.partitions(gctx, topic)
				if err != nil {
					continue // the readers wait for the broker too
				}
				for ; count < n; count++ {
					read(count, kafka.FirstOffset)
				}
			case got := <-batches:
				for _, rec := range got.recs {
					if gctx.Err() != nil {
						return nil
					}
					if err := fn(gctx, rec); err != nil {
						return fmt.Errorf("follow %s, partition %d, offset %d: %w", topic, rec.Partition, rec.Offset, err)
					}
					if at, ok := behind[rec.Partition]; ok && rec.Offset+1 >= at {
						delete(behind, rec.Partition)
						if len(behind) == 0 {
							if err := caughtUp(); err != nil {
								return err
							}
						}
					}
				}
			}
		}
	})
	return g.Wait()
}

func sequence(from, to int) []int {
	out := make([]int, 0, to-from)
	for i := from; i < to; i++ {
		out = append(out, i)
	}
	return out
}
