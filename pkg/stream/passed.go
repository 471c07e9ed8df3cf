package stream

import (
	"context"
	"fmt"
	"time"
)

// passedEvery is how often AwaitPassed looks.
const passedEvery = 200 * time.Millisecond

// AwaitPassed waits until a group has committed all that topics hold when it is
// called, so that their effect is durable and none of it comes again.
func AwaitPassed(ctx context.Context, cfg Config, group string, topics ...string) error {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("wait for group %s: %w", group, err)
	}
	c, err := newClient(cfg)
	if err != nil {
		return fmt.Errorf("wait for group %s: %w", group, err)
	}
	defer c.close()
	type place struct {
		topic     string
		partition int
	}
	want := map[place]int64{}
	for _, topic := range topics {
		count, err := c.partitions(ctx, topic)
		if err != nil {
			return fmt.Errorf("wait for group %s: %w", group, err)
		}
		first, end, err := c.offsets(ctx, topic, sequence(0, count)...)
		if err != nil {
			return fmt.Errorf("wait for group %s: %w", group, err)
		}
		for p, offset := range end {
			if offset > first[p] {
				want[place{topic, p}] = offset
			}
		}
	}
	for {
		committed, err := c.committed(ctx, group)
		if err != nil {
			return fmt.Errorf("wait for group %s: %w", group, err)
		}
		for p, offset := range want {
			if committed[p.topic][p.partition] >= offset {
				delete(want, p)
			}
		}
		if len(want) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for group %s: %w", group, ctx.Err())
		case <-time.After(passedEvery):
		}
	}
}
