package stream

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"
)

// Topics of the pipeline.
const (
	TopicEvents           = "hone.events"
	TopicSignals          = "hone.signals"
	TopicCases            = "hone.cases"
	TopicRoutePromptPatch = "hone.route.prompt-patch"
	TopicRouteFineTune    = "hone.route.fine-tune"
	TopicRouteHumanReview = "hone.route.human-review"
	TopicRouteProduct     = "hone.route.product"
	TopicPatches          = "hone.patches"
	TopicCuration         = "hone.curation"
	TopicAlerts           = "hone.alerts"
	TopicDeadLetter       = "hone.dead-letter"
)

// deadLetterMaxBytes leaves room for a record that its own topic just took and
// the headers of a dead letter.
const deadLetterMaxBytes = 8 << 20

// RouteTopic is the topic of a route, such as "prompt-patch".
func RouteTopic(route string) string { return "hone.route." + route }

// RouteTopics are the topics of all routes.
func RouteTopics() []string {
	return []string{TopicRoutePromptPatch, TopicRouteFineTune, TopicRouteHumanReview, TopicRouteProduct}
}

// Reader is a consumer group and what it reads.
type Reader struct {
	Group  string
	Topics []string
}

// Pipeline is the way from an event to what its routes lead to: each group reads
// what the one before it writes.
func Pipeline() []Reader {
	return []Reader{
		{"hone-enricher", []string{TopicEvents}},
		{"hone-embedder", []string{TopicSignals}},
		{"hone-router", []string{TopicCases}},
		{"hone-curator", RouteTopics()},
	}
}

// SessionKey is the key of records about a session: one session's records are
// in one partition, in order.
func SessionKey(project, session string) []byte {
	return []byte(project + "/" + session)
}

// Topics are all topics of the pipeline.
func Topics() []string {
	topics := append([]string{TopicEvents, TopicSignals, TopicCases}, RouteTopics()...)
	return append(topics, TopicPatches, TopicCuration, TopicAlerts, TopicDeadLetter)
}

// EnsureTopics creates the topics that are missing and leaves the others as
// they are. Topics keyed by session get the given partitions. The curation and
// patch logs have one, since their readers fold them in one order, and are kept
// for ever; the dead letter has one. It waits for the broker, and until the
// topics are there, for as long as ctx lets it.
func EnsureTopics(ctx context.Context, cfg Config, partitions, replication int) error {
	if partitions < 1 || replication < 1 {
		return fmt.Errorf("create topics: partitions (%d) and replication (%d) must be at least 1", partitions, replication)
	}
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("create topics: %w", err)
	}
	c, err := newClient(cfg)
	if err != nil {
		return fmt.Errorf("create topics: %w", err)
	}
	defer c.close()
	var topics []kafka.TopicConfig
	for _, name := range Topics() {
		topics = append(topics, topicConfig(name, partitions, replication, cfg.Retention))
	}
	wait := backoff{min: 100 * time.Millisecond, max: 2 * time.Second}
	for {
		err := c.createTopics(ctx, topics)
		if err == nil {
			return c.awaitTopics(ctx, Topics()...)
		}
		if !errors.Is(err, ErrUnavailable) || wait.sleep(ctx) != nil {
			return err
		}
		c.refresh()
	}
}

func (c *client) createTopics(ctx context.Context, topics []kafka.TopicConfig) error {
	// Asked first, since it says why a broker cannot be reached.
	if _, err := c.kafka.Metadata(ctx, &kafka.MetadataRequest{}); err != nil {
		return fmt.Errorf("create topics: %w", unavailable(err))
	}
	res, err := c.kafka.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: topics})
	if err != nil {
		return fmt.Errorf("create topics: %w", unavailable(err))
	}
	var errs []error
	for name, err := range res.Errors {
		var code kafka.Error
		switch {
		case err == nil, errors.Is(err, kafka.TopicAlreadyExists):
			continue
		case errors.As(err, &code) && (code.Temporary() || code == kafka.InvalidReplicationFactor):
			err = unavailable(err) // or not enough brokers have registered yet
		}
		errs = append(errs, fmt.Errorf("create topic %s: %w", name, err))
	}
	return errors.Join(errs...)
}

func topicConfig(name string, partitions, replication int, retention time.Duration) kafka.TopicConfig {
	entries := map[string]string{"retention.ms": strconv.FormatInt(retention.Milliseconds(), 10)}
	switch name {
	case TopicCuration, TopicPatches:
		partitions = 1
		entries["retention.ms"] = "-1"
	case TopicDeadLetter:
		partitions = 1
		entries["max.message.bytes"] = strconv.Itoa(deadLetterMaxBytes)
	}
	t := kafka.TopicConfig{Topic: name, NumPartitions: partitions, ReplicationFactor: replication}
	for k, v := range entries {
		t.ConfigEntries = append(t.ConfigEntries, kafka.ConfigEntry{ConfigName: k, ConfigValue: v})
	}
	return t
}
