package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"

	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	curationv1 "github.com/honeloop/hone/proto/gen/go/hone/curation/v1"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"
)

func newTopicCommand(g *global) *cobra.Command {
	cmd := &cobra.Command{Use: "topic", Short: "Read Kafka topics"}
	var last int
	var follow bool
	tail := &cobra.Command{
		Use:   "tail TOPIC",
		Short: "Print the newest records of a topic as JSON",
		Example: `  hone topic tail hone.route.human-review
  hone topic tail hone.signals -n 100 --follow`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := g.kafka()
			if err != nil {
				return err
			}
			err = stream.Tail(cmd.Context(), cfg, args[0], last, follow, func(_ context.Context, r stage.Record) error {
				return g.printRecord(cmd.OutOrStdout(), r)
			})
			if follow && errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		},
	}
	tail.Flags().IntVarP(&last, "number", "n", 10, "how many records of each partition")
	tail.Flags().BoolVarP(&follow, "follow", "f", false, "wait for more")
	cmd.AddCommand(tail)
	return cmd
}

// readable is a record's value as JSON.
func readable(r stage.Record) (json.RawMessage, error) {
	var m proto.Message
	switch r.Topic {
	case stream.TopicEvents:
		m = &eventv1.Event{}
	case stream.TopicSignals:
		m = &signalv1.Signal{}
	case stream.TopicCases:
		m = &casesv1.CaseSignal{}
	case stream.TopicCuration:
		m = &curationv1.CurationEvent{}
	default:
		if !json.Valid(r.Value) {
			return json.Marshal(string(r.Value))
		}
		return r.Value, nil
	}
	if err := proto.Unmarshal(r.Value, m); err != nil {
		return nil, fmt.Errorf("decode record %d of %s, partition %d: %w", r.Offset, r.Topic, r.Partition, err)
	}
	return protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
}

func (g *global) printRecord(w io.Writer, r stage.Record) error {
	value, err := readable(r)
	if err != nil {
		return err
	}
	if g.json {
		line, err := json.Marshal(map[string]any{"topic": r.Topic, "partition": r.Partition, "offset": r.Offset,
			"time": r.Time.UTC(), "key": string(r.Key), "value": value})
		if err != nil {
			return fmt.Errorf("print record: %w", err)
		}
		_, err = fmt.Fprintf(w, "%s\n", line)
		return err
	}
	p := newPainter(w)
	p.printf("%s\n", p.dim(fmt.Sprintf("%s  %s[%d]@%d  key %s", r.Time.UTC().Format(time.DateTime), r.Topic, r.Partition, r.Offset, clean(string(r.Key)))))
	var indented strings.Builder
	enc := json.NewEncoder(&indented)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(value); err != nil {
		return fmt.Errorf("print record: %w", err)
	}
	p.printf("%s", clean(indented.String()))
	return nil
}
