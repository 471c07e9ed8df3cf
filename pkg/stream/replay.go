package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/honeloop/hone/pkg/stage"
)

// HeaderReplayOf is on a record that was a dead letter and was published again.
// Its value says which, as "hone.dead-letter/partition/offset".
const HeaderReplayOf = "hone-replay-of"

// giveUpAfter is how long commands for people go on while Kafka fails.
const giveUpAfter = 30 * time.Second

// ScanFrom is where Scan begins.
type ScanFrom struct {
	// Since skips what was written before. Zero means everything.
	Since time.Time
	// Offsets, where it is not nil, gives the first offset by partition; other
	// partitions are not read.
	Offsets map[int]int64
}

// Scan calls fn for each record that a topic has when Scan begins, one at a
// time and in order within a partition. It ends at fn's error, and when Kafka
// has failed for 30 s.
func Scan(ctx context.Context, cfg Config, topic string, from ScanFrom, fn func(context.Context, stage.Record) error) error {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("scan %s: %w", topic, err)
	}
	c, err := newClient(cfg)
	if err != nil {
		return fmt.Errorf("scan %s: %w", topic, err)
	}
	defer c.close()
	count, err := c.partitions(ctx, topic)
	if err != nil {
		return fmt.Errorf("scan %s: %w", topic, err)
	}
	ids := sequence(0, count)
	first, end, err := c.offsets(ctx, topic, ids...)
	if err != nil {
		return fmt.Errorf("scan %s: %w", topic, err)
	}
	if !from.Since.IsZero() {
		if first, err = c.offsetsAt(ctx, topic, from.Since, end, ids...); err != nil {
			return fmt.Errorf("scan %s: %w", topic, err)
		}
	}
	for _, p := range ids {
		start := first[p]
		if from.Offsets != nil {
			at, ok := from.Offsets[p]
			if !ok {
				continue
			}
			start = max(start, at)
		}
		if err := c.scanPartition(ctx, topic, p, start, end[p], fn); err != nil {
			return fmt.Errorf("scan %s, partition %d: %w", topic, p, err)
		}
	}
	return nil
}

func (c *client) scanPartition(ctx context.Context, topic string, partition int, start, end int64, fn func(context.Context, stage.Record) error) error {
	r := &reader{client: c, topic: topic, partition: partition, next: start, maxBytes: defaultFetchBytes, maxWait: defaultFetchWait}
	wait := backoff{min: 100 * time.Millisecond, max: 2 * time.Second}
	good := time.Now()
	for r.next < end {
		got, err := r.fetch(ctx)
		if err != nil {
			if time.Since(good) > giveUpAfter || wait.sleep(ctx) != nil {
				return err
			}
			continue
		}
		good = time.Now()
		wait.reset()
		for _, rec := range got.recs {
			if rec.Offset >= end {
				break
			}
			if err := fn(ctx, rec); err != nil {
				return err
			}
		}
	}
	return nil
}

// offsetsAt are the offsets of the first records that were written at a time or
// after it; where a partition has none, its end.
func (c *client) offsetsAt(ctx context.Context, topic string, at time.Time, end map[int]int64, partitions ...int) (map[int]int64, error) {
	req := make([]kafka.OffsetRequest, 0, len(partitions))
	for _, p := range partitions {
		req = append(req, kafka.TimeOffsetOf(p, at))
	}
	res, err := c.kafka.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{topic: req}})
	if err != nil {
		return nil, fmt.Errorf("read offsets of %s at %s: %w", topic, at.Format(time.RFC3339), unavailable(err))
	}
	out := map[int]int64{}
	for _, p := range res.Topics[topic] {
		if p.Error != nil {
			return nil, fmt.Errorf("read offsets of %s, partition %d: %w", topic, p.Partition, unavailable(p.Error))
		}
		out[p.Partition] = end[p.Partition]
		for offset := range p.Offsets {
			if offset >= 0 {
				out[p.Partition] = min(offset, end[p.Partition])
			}
		}
	}
	return out, nil
}

// Replay is the record that was a dead letter, to be published again: the same
// topic, key, bytes and headers, and HeaderReplayOf. from is the record of
// hone.dead-letter that d was read from.
func (d DeadLetter) Replay(from stage.Record) (stage.Record, error) {
	if d.Record.Topic == TopicDeadLetter || !slices.Contains(Topics(), d.Record.Topic) {
		return stage.Record{}, fmt.Errorf("topic %q is none of the pipeline's", d.Record.Topic)
	}
	headers := slices.DeleteFunc(slices.Clone(d.Record.Headers), func(h stage.Header) bool { return h.Key == HeaderReplayOf })
	headers = append(headers, stage.Header{Key: HeaderReplayOf, Value: fmt.Appendf(nil, "%s/%d/%d", from.Topic, from.Partition, from.Offset)})
	return stage.Record{Topic: d.Record.Topic, Key: d.Record.Key, Value: d.Record.Value, Headers: headers}, nil
}

// Position is where a group is in one partition.
type Position struct {
	Topic     string
	Partition int
	Committed int64 // offset of the record that it reads next
	// To is where it is to go back to. It is not after Committed.
	To int64
	// End is after the last record that it is to read again: Committed, but where
	// the rewind has an end of its own.
	End int64
}

// RewindFrom is the record from which a group is to read again: the first one
// at or after Time, or else the one at Offset. What is deleted is left out.
type RewindFrom struct {
	Time   time.Time
	Offset int64
	// Where it ends: before the first record at or after EndTime, or else before
	// the one at EndOffset. Zero means where the group is.
	EndTime   time.Time
	EndOffset int64
	// Topic and Partition narrow it; "" and -1 mean all.
	Topic     string
	Partition int
}

// PlanRewind says where a group is and where it would go back to. Partitions
// that it has not read as far are left out: a rewind skips nothing.
func PlanRewind(ctx context.Context, cfg Config, group string, from RewindFrom) ([]Position, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("plan rewind: %w", err)
	}
	c, err := newClient(cfg)
	if err != nil {
		return nil, fmt.Errorf("plan rewind: %w", err)
	}
	defer c.close()
	committed, err := c.committed(ctx, group)
	if err != nil {
		return nil, fmt.Errorf("plan rewind: %w", err)
	}
	if len(committed) == 0 {
		return nil, fmt.Errorf("plan rewind: group %s has not read anything yet", group)
	}
	var out []Position
	for topic, partitions := range committed {
		if from.Topic != "" && from.Topic != topic {
			continue
		}
		var ids []int
		for p := range partitions {
			if from.Partition < 0 || from.Partition == p {
				ids = append(ids, p)
			}
		}
		if len(ids) == 0 {
			continue
		}
		first, end, err := c.offsets(ctx, topic, ids...)
		if err != nil {
			return nil, fmt.Errorf("plan rewind: %w", err)
		}
		var at, endAt map[int]int64
		if !from.Time.IsZero() {
			if at, err = c.offsetsAt(ctx, topic, from.Time, end, ids...); err != nil {
				return nil, fmt.Errorf("plan rewind: %w", err)
			}
		}
		if !from.EndTime.IsZero() {
			if endAt, err = c.offsetsAt(ctx, topic, from.EndTime, end, ids...); err != nil {
				return nil, fmt.Errorf("plan rewind: %w", err)
			}
		}
		for _, p := range ids {
			pos := Position{Topic: topic, Partition: p, Committed: partitions[p], To: from.Offset, End: partitions[p]}
			if at != nil {
				pos.To = at[p]
			}
			switch {
			case endAt != nil:
				pos.End = min(pos.End, endAt[p])
			case from.EndOffset > 0:
				pos.End = min(pos.End, from.EndOffset)
			}
			if pos.To = max(pos.To, first[p]); pos.To < pos.End {
				out = append(out, pos)
			}
		}
	}
	slices.SortFunc(out, func(a, b Position) int {
		if a.Topic != b.Topic {
			return strings.Compare(a.Topic, b.Topic)
		}
		return a.Partition - b.Partition
	})
	return out, nil
}

// Rewind has a group read again from each position's To. Kafka lets nobody move
// a group that is at work, so its members are put out, which to them is a
// rebalance: batches in hand are read again, and the members join anew within
// seconds. It returns how many members the group had. It gives up after 30 s;
// then nothing has changed.
func Rewind(ctx context.Context, cfg Config, group string, to []Position) (members int, err error) {
	topics := map[string][]kafka.OffsetCommit{}
	for _, p := range to {
		topics[p.Topic] = append(topics[p.Topic], kafka.OffsetCommit{Partition: p.Partition, Offset: p.To})
	}
	err = patiently(ctx, cfg, "rewind "+group, func(c *client) error {
		n, err := c.move(ctx, group, topics)
		members = max(members, n)
		return err
	})
	return members, err
}

// Resume ends a rewind early: the group goes on from each position's Committed,
// which it has read once. A partition that is there already stays where it is.
// It is a rebalance as Rewind is.
func Resume(ctx context.Context, cfg Config, group string, from []Position) error {
	return patiently(ctx, cfg, "resume "+group, func(c *client) error {
		committed, err := c.committed(ctx, group)
		if err != nil {
			return err
		}
		topics := map[string][]kafka.OffsetCommit{}
		for _, p := range from {
			if committed[p.Topic][p.Partition] < p.Committed {
				topics[p.Topic] = append(topics[p.Topic], kafka.OffsetCommit{Partition: p.Partition, Offset: p.Committed})
			}
		}
		if len(topics) == 0 {
			return nil
		}
		_, err = c.move(ctx, group, topics)
		return err
	})
}

// Members is how many members a group has.
func Members(ctx context.Context, cfg Config, group string) (n int, err error) {
	err = patiently(ctx, cfg, "read members of "+group, func(c *client) error {
		members, err := c.members(ctx, group)
		n = len(members)
		return err
	})
	return n, err
}

// patiently tries for 30 s.
func patiently(ctx context.Context, cfg Config, what string, try func(*client) error) error {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	c, err := newClient(cfg)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	defer c.close()
	wait := backoff{min: 20 * time.Millisecond, max: 500 * time.Millisecond}
	for began := time.Now(); ; {
		err := try(c)
		if err == nil {
			return nil
		}
		if time.Since(began) > giveUpAfter || wait.sleep(ctx) != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
}

// move puts the members of a group out and commits offsets in its name.
func (c *client) move(ctx context.Context, group string, topics map[string][]kafka.OffsetCommit) (int, error) {
	members, err := c.members(ctx, group)
	if err != nil {
		return 0, err
	}
	// One by one: brokers before 2.4 take one at a time.
	for _, m := range members {
		res, err := c.kafka.LeaveGroup(ctx, &kafka.LeaveGroupRequest{GroupID: group, Members: []kafka.LeaveGroupRequestMember{{ID: m}}})
		if err != nil {
			return len(members), fmt.Errorf("put out a member: %w", err)
		}
		if err := res.Error; err != nil && !errors.Is(err, kafka.UnknownMemberId) {
			return len(members), fmt.Errorf("put out a member: %w", err)
		}
	}
	// The broker takes this of an empty group only.
	res, err := c.kafka.OffsetCommit(ctx, &kafka.OffsetCommitRequest{GroupID: group, GenerationID: -1, Topics: topics})
	if err != nil {
		return len(members), fmt.Errorf("commit: %w", err)
	}
	var errs []error
	for topic, partitions := range res.Topics {
		for _, p := range partitions {
			if p.Error != nil {
				errs = append(errs, fmt.Errorf("commit %s, partition %d: %w", topic, p.Partition, p.Error))
			}
		}
	}
	return len(members), errors.Join(errs...)
}

func (c *client) members(ctx context.Context, group string) ([]string, error) {
	res, err := c.kafka.DescribeGroups(ctx, &kafka.DescribeGroupsRequest{GroupIDs: []string{group}})
	if err != nil {
		return nil, fmt.Errorf("describe group: %w", err)
	}
	var out []string
	for _, g := range res.Groups {
		// Kafka 4 says so of a group without members that it has not loaded.
		if g.Error != nil && !errors.Is(g.Error, kafka.GroupIdNotFound) {
			return nil, fmt.Errorf("describe group: %w", g.Error)
		}
		for _, m := range g.Members {
			out = append(out, m.MemberID)
		}
	}
	return out, nil
}

// Committed is what a group reads next, by topic and partition. It has what the
// group has committed once.
func Committed(ctx context.Context, cfg Config, group string) (map[string]map[int]int64, error) {
	if err := cfg.Validate(); err != nil {
		return nil, fmt.Errorf("read offsets of %s: %w", group, err)
	}
	c, err := newClient(cfg)
	if err != nil {
		return nil, fmt.Errorf("read offsets of %s: %w", group, err)
	}
	defer c.close()
	return c.committed(ctx, group)
}

func (c *client) committed(ctx context.Context, group string) (map[string]map[int]int64, error) {
	res, err := c.kafka.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: group})
	if err == nil {
		err = res.Error
	}
	if errors.Is(err, kafka.GroupIdNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read offsets of group %s: %w", group, unavailable(err))
	}
	out := map[string]map[int]int64{}
	for topic, partitions := range res.Topics {
		for _, p := range partitions {
			if p.Error != nil {
				return nil, fmt.Errorf("read offsets of group %s: %s, partition %d: %w", group, topic, p.Partition, unavailable(p.Error))
			}
			if p.CommittedOffset < 0 {
				continue
			}
			if out[topic] == nil {
				out[topic] = map[int]int64{}
			}
			out[topic][p.Partition] = p.CommittedOffset
		}
	}
	return out, nil
}
