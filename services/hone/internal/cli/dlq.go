package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/honeloop/hone/pkg/config"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/telemetry"
)

func newDLQCommand(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use: "dlq", Short: "Dead letters: what no stage could process",
		Long: `Dead letters: records that a stage can never process, as they were, and why. They are
kept in the topic hone.dead-letter for as long as its retention says (7 days).

Those of erased users and sessions are there as long, and are neither shown nor replayed.`,
	}
	var brokers string
	var withErased bool
	cmd.PersistentFlags().StringVar(&brokers, "brokers", "", brokersUsage)
	cmd.PersistentFlags().BoolVar(&withErased, "with-erased", false, "also those of erased people; ClickHouse is not asked then")
	from := func(ctx context.Context) (letters, error) {
		cfg, err := g.kafkaAt(brokers)
		if err != nil || withErased {
			return letters{cfg, nobody{}}, err
		}
		gone, err := g.erasedAt(ctx, brokers)
		return letters{cfg, gone}, err
	}
	cmd.AddCommand(newDLQList(g, from), newDLQShow(g, from), newDLQReplay(g, from))
	return cmd
}

// letters are where dead letters are read, and whose are left out.
type letters struct {
	kafka  stream.Config
	erased erased
}

// from finds them.
type from func(context.Context) (letters, error)

const brokersUsage = "host:port of Kafka brokers, with commas between them; TLS and SASL come from HONE_KAFKA_* (default the broker of --dir)"

// kafkaAt is how commands reach named brokers, or else the one of --dir.
func (g *global) kafkaAt(brokers string) (stream.Config, error) {
	if brokers == "" {
		return g.kafka()
	}
	cfg := stream.DefaultConfig()
	cfg.Brokers = strings.Split(brokers, ",")
	return cfg, config.Load(&cfg, "", "", "HONE_KAFKA_")
}

// letter is a dead letter and the record that it was read from.
type letter struct {
	stream.DeadLetter
	from stage.Record
}

// letterFilter is which dead letters are meant.
type letterFilter struct {
	stage, topic, cause, key, session, since string

	from time.Time // since, once it was read
}

func (f *letterFilter) flags(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.stage, "stage", "", "of this stage, such as enricher")
	fl.StringVar(&f.topic, "topic", "", "of this topic, such as hone.events")
	fl.StringVar(&f.cause, "cause", "", "whose cause has this text, in upper or lower case")
	fl.StringVar(&f.key, "key", "", "with this record key: PROJECT/SESSION")
	fl.StringVar(&f.session, "session", "", "of this session, in any project")
	fl.StringVar(&f.since, "since", "", "from this time on: 2h ago, or 2026-01-31, or 2026-01-31T09:00:00Z")
}

func (f *letterFilter) matches(l letter) bool {
	_, session, _ := strings.Cut(string(l.Record.Key), "/")
	return (f.stage == "" || l.Stage == f.stage) &&
		(f.topic == "" || l.Record.Topic == f.topic) &&
		(f.cause == "" || strings.Contains(strings.ToLower(l.Cause), strings.ToLower(f.cause))) &&
		(f.key == "" || string(l.Record.Key) == f.key) &&
		(f.session == "" || session == f.session)
}

// pastTime reads a time, or how long ago it was.
func pastTime(s string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(s); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.ParseUint(days, 10, 16); err == nil {
			return now.AddDate(0, 0, -int(n)), nil
		}
	}
	for _, layout := range []string{time.RFC3339, time.DateTime, time.DateOnly} {
		if t, err := time.Parse(layout, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time: want one such as 2h or 30d (ago), 2026-01-31, or 2026-01-31T09:00:00Z", s)
}

// leftOut counts what a scan passed over.
type leftOut struct {
	unreadable int // records that are no dead letters
	erased     int // of those that are meant
}

func (n leftOut) warn(w io.Writer) {
	if n.unreadable > 0 {
		fmt.Fprintf(w, "%s on %s cannot be read as dead letters and were left out\n", count(n.unreadable, "record"), stream.TopicDeadLetter)
	}
	if n.erased > 0 {
		fmt.Fprintf(w, "%s of erased people left out\n", count(n.erased, "dead letter"))
	}
}

// scan calls fn for each dead letter that is meant, oldest first.
func (f *letterFilter) scan(ctx context.Context, of letters, fn func(letter) error) (out leftOut, err error) {
	if f.since != "" && f.from.IsZero() {
		if f.from, err = pastTime(f.since, time.Now()); err != nil {
			return out, fmt.Errorf("--since: %w", err)
		}
	}
	err = stream.Scan(ctx, of.kafka, stream.TopicDeadLetter, stream.ScanFrom{Since: f.from}, func(_ context.Context, r stage.Record) error {
		parsed, err := stream.ParseDeadLetter(r)
		if err != nil {
			out.unreadable++
			return nil
		}
		l := letter{parsed, r}
		if !f.matches(l) {
			return nil
		}
		if of.erased.Is(whose(l.Record)) {
			out.erased++
			return nil
		}
		return fn(l)
	})
	return out, err
}

func (l letter) json() map[string]any {
	return map[string]any{"dead_letter": l.from.Offset, "stage": l.Stage, "topic": l.Record.Topic, "partition": l.Record.Partition,
		"offset": l.Record.Offset, "key": string(l.Record.Key), "value": l.Record.Value, "attempts": l.Attempts,
		"cause": l.Cause, "failed_at": l.FailedAt.UTC()}
}

// origin is where a dead letter was read by its stage.
func (l letter) origin() string {
	return fmt.Sprintf("%s[%d]@%d", l.Record.Topic, l.Record.Partition, l.Record.Offset)
}

func newDLQList(g *global, find from) *cobra.Command {
	var f letterFilter
	var last int
	cmd := &cobra.Command{
		Use: "list", Short: "List the newest dead letters", Args: cobra.NoArgs,
		Example: `  hone dlq list
  hone dlq list --stage router --since 2h
  hone dlq list --cause "not an event" -n 1000 --json | jq .cause`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if last < 1 {
				return errors.New("-n: want at least 1")
			}
			of, err := find(cmd.Context())
			if err != nil {
				return err
			}
			var newest []letter
			total := 0
			out, err := f.scan(cmd.Context(), of, func(l letter) error {
				total++
				if newest = append(newest, l); len(newest) > 2*last {
					newest = append(newest[:0:0], newest[len(newest)-last:]...)
				}
				return nil
			})
			if err != nil {
				return err
			}
			out.warn(cmd.ErrOrStderr())
			newest = newest[max(0, len(newest)-last):]
			if g.json {
				for _, l := range newest {
					if err := printLine(cmd.OutOrStdout(), l.json()); err != nil {
						return err
					}
				}
				return nil
			}
			if total == 0 {
				fmt.Fprintln(cmd.OutOrStdout(), "No dead letters.")
				return nil
			}
			var rows [][]string
			for _, l := range newest {
				rows = append(rows, []string{fmt.Sprint(l.from.Offset), l.FailedAt.UTC().Format(time.DateTime), oneLine(l.Stage, 30),
					oneLine(l.origin(), 60), fmt.Sprint(l.Attempts), oneLine(l.Cause, 90)})
			}
			if err := table(cmd.OutOrStdout(), []string{"offset", "when", "stage", "record", "attempts", "cause"}, rows); err != nil {
				return err
			}
			if total > len(newest) {
				fmt.Fprintf(cmd.ErrOrStderr(), "%d older ones: see more with -n\n", total-len(newest))
			}
			return nil
		},
	}
	f.flags(cmd)
	cmd.Flags().IntVarP(&last, "number", "n", 50, "how many")
	return cmd
}

func newDLQShow(g *global, find from) *cobra.Command {
	var partition int
	cmd := &cobra.Command{
		Use: "show OFFSET", Short: "Show all of a dead letter", Args: cobra.ExactArgs(1),
		Long:    `Show all of a dead letter: where it comes from, why it failed, its headers and its value. OFFSET is in the first column of 'hone dlq list'.`,
		Example: "  hone dlq show 17\n  hone dlq show 17 --json",
		RunE: func(cmd *cobra.Command, args []string) error {
			offset, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil || offset < 0 {
				return fmt.Errorf("offset %q: want a number from 'hone dlq list'", args[0])
			}
			of, err := find(cmd.Context())
			if err != nil {
				return err
			}
			found := errors.New("found")
			var record stage.Record
			err = stream.Scan(cmd.Context(), of.kafka, stream.TopicDeadLetter, stream.ScanFrom{Offsets: map[int]int64{partition: offset}},
				func(_ context.Context, r stage.Record) error {
					record = r
					return found
				})
			if err != nil && !errors.Is(err, found) {
				return err
			}
			if err == nil || record.Offset != offset {
				return fmt.Errorf("no dead letter at offset %d: 'hone dlq list' has those that are there", offset)
			}
			parsed, err := stream.ParseDeadLetter(record)
			if err != nil {
				return err
			}
			if of.erased.Is(whose(parsed.Record)) {
				return fmt.Errorf("the dead letter at offset %d is of an erased user or session", offset)
			}
			return g.showLetter(cmd.OutOrStdout(), letter{parsed, record})
		},
	}
	cmd.Flags().IntVar(&partition, "partition", 0, "partition of hone.dead-letter, where it has several")
	return cmd
}

func (g *global) showLetter(w io.Writer, l letter) error {
	value, decodeErr := readable(l.Record)
	if g.json {
		out := l.json()
		headers := make([]map[string]any, 0, len(l.Record.Headers))
		for _, h := range l.Record.Headers {
			headers = append(headers, map[string]any{"key": h.Key, "value": string(h.Value)})
		}
		out["headers"] = headers
		if decodeErr != nil {
			out["decode_error"] = decodeErr.Error()
		} else {
			out["decoded"] = value
		}
		return printJSON(w, out)
	}
	p := newPainter(w)
	p.block(0, "record", l.origin())
	p.block(0, "stage", l.Stage)
	p.block(0, "failed", l.FailedAt.UTC().Format(time.RFC3339)+", attempt "+fmt.Sprint(l.Attempts))
	p.block(0, "cause", l.Cause)
	p.block(0, "key", string(l.Record.Key))
	for _, h := range l.Record.Headers {
		p.block(0, "header", h.Key+": "+text(h.Value))
	}
	p.block(0, "value", fmt.Sprintf("%d bytes", len(l.Record.Value)))
	if decodeErr != nil {
		p.printf("%s\n%s\n", p.dim("It cannot be decoded: "+clean(decodeErr.Error())), clean(text(l.Record.Value)))
		return nil
	}
	var indented bytes.Buffer
	if err := json.Indent(&indented, value, "", "  "); err != nil {
		return fmt.Errorf("print dead letter: %w", err)
	}
	p.printf("%s\n", clean(indented.String()))
	return nil
}

// text is b as text, quoted where it is none.
func text(b []byte) string {
	if utf8.Valid(b) {
		return string(b)
	}
	return strconv.Quote(string(b))
}

// printLine prints a value as one line of JSON.
func printLine(w io.Writer, v any) error {
	line, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("print JSON: %w", err)
	}
	_, err = fmt.Fprintf(w, "%s\n", line)
	return err
}

// A publish of replayed records holds at most these.
const (
	replayBatch      = 500
	replayBatchBytes = 4 << 20
)

type replayResult struct {
	Matched    int            `json:"matched"`
	Replayed   int            `json:"replayed"`
	Refused    int            `json:"refused"`
	Unreadable int            `json:"unreadable"`
	Erased     int            `json:"erased"` // left out
	ByOrigin   map[string]int `json:"by_stage_and_topic"`
	DryRun     bool           `json:"dry_run"`
}

func newDLQReplay(g *global, find from) *cobra.Command {
	var f letterFilter
	var dryRun, yes bool
	cmd := &cobra.Command{
		Use: "replay [OFFSET...]", Short: "Publish dead letters again where they came from",
		Long: `Publish dead letters again: the original bytes, key and headers on the original topic,
with one header more, ` + stream.HeaderReplayOf + `. Do it after the cause is mended; what fails again
becomes a dead letter again. All dead letters are meant, or those at the OFFSETs of
'hone dlq list', or those that the flags choose.

Events keep their ids, and every stage does a thing once for each id, so replaying twice,
or what has meanwhile come through, changes nothing. Dead letters stay where they are.`,
		Example: `  hone dlq replay --stage enricher --dry-run
  hone dlq replay 17 18
  hone dlq replay --cause "unknown policy" --since 24h --yes --json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			only := map[int64]bool{}
			for _, a := range args {
				offset, err := strconv.ParseInt(a, 10, 64)
				if err != nil || offset < 0 {
					return fmt.Errorf("offset %q: want a number from 'hone dlq list'", a)
				}
				only[offset] = true
			}
			of, err := find(cmd.Context())
			if err != nil {
				return err
			}
			progress := cmd.ErrOrStderr()
			if g.json {
				progress = io.Discard
			}
			r := &replay{of: of, filter: f, only: only, progress: progress}
			if err := r.choose(cmd.Context()); err != nil {
				return err
			}
			r.result.DryRun = dryRun
			r.out.warn(progress)
			if !g.json {
				for _, origin := range slices.Sorted(maps.Keys(r.result.ByOrigin)) {
					fmt.Fprintf(cmd.OutOrStdout(), "%6d  %s\n", r.result.ByOrigin[origin], clean(origin))
				}
			}
			if !dryRun && r.result.Matched > 0 {
				if err := confirm(cmd, yes, fmt.Sprintf("Publish %s again?", count(r.result.Matched, "dead letter"))); err != nil {
					return err
				}
				err = r.publish(cmd.Context())
			}
			if g.json {
				return errors.Join(err, printJSON(cmd.OutOrStdout(), r.result))
			}
			if err != nil {
				return err
			}
			if dryRun {
				fmt.Fprintf(cmd.OutOrStdout(), "%s would be published again\n", count(r.result.Matched, "dead letter"))
			} else {
				fmt.Fprintf(cmd.OutOrStdout(), "%s published again\n", count(r.result.Replayed, "dead letter"))
			}
			return nil
		},
	}
	f.flags(cmd)
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "only say what would be done")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// replay publishes dead letters again. It chooses first, so that what it does is
// what was confirmed.
type replay struct {
	of       letters
	filter   letterFilter
	only     map[int64]bool // offsets; empty means all
	progress io.Writer

	chosen map[[2]int64]bool // partition and offset
	out    leftOut
	result replayResult
}

func (r *replay) choose(ctx context.Context) (err error) {
	r.chosen = map[[2]int64]bool{}
	r.result.ByOrigin = map[string]int{}
	found := map[int64]bool{}
	r.out, err = r.filter.scan(ctx, r.of, func(l letter) error {
		if len(r.only) > 0 && !r.only[l.from.Offset] {
			return nil
		}
		found[l.from.Offset] = true
		r.chosen[[2]int64{int64(l.from.Partition), l.from.Offset}] = true
		r.result.Matched++
		r.result.ByOrigin[l.Stage+" "+l.Record.Topic]++
		return nil
	})
	if err != nil {
		return err
	}
	r.result.Unreadable, r.result.Erased = r.out.unreadable, r.out.erased
	for _, offset := range slices.Sorted(maps.Keys(r.only)) {
		if !found[offset] {
			return fmt.Errorf("no dead letter at offset %d is meant by the flags: 'hone dlq list' has those that are there", offset)
		}
	}
	return nil
}

func (r *replay) publish(ctx context.Context) error {
	tel, err := telemetry.New(r.progress, slog.LevelWarn)
	if err != nil {
		return err
	}
	pub, err := stream.NewPublisher(r.of.kafka, tel)
	if err != nil {
		return err
	}
	bar := newProgress(r.progress, r.result.Matched, "replaying")
	var batch []stage.Record
	bytes := 0
	flush := func() error {
		if len(batch) == 0 {
			return nil
		}
		if err := pub.Publish(ctx, batch...); err != nil {
			return fmt.Errorf("publish again: %w", err)
		}
		r.result.Replayed += len(batch)
		bar.Add(len(batch))
		batch, bytes = nil, 0
		return nil
	}
	_, err = r.filter.scan(ctx, r.of, func(l letter) error {
		if !r.chosen[[2]int64{int64(l.from.Partition), l.from.Offset}] {
			return nil
		}
		rec, err := l.Replay(l.from)
		if err != nil {
			r.result.Refused++
			fmt.Fprintf(r.progress, "left out the dead letter at offset %d: %s\n", l.from.Offset, clean(err.Error()))
			return nil
		}
		batch = append(batch, rec)
		if bytes += len(rec.Value); len(batch) < replayBatch && bytes < replayBatchBytes {
			return nil
		}
		return flush()
	})
	if err == nil {
		err = flush()
	}
	bar.Close()
	if err = errors.Join(err, pub.Close()); err != nil {
		return fmt.Errorf("replay stopped after %d of %d (run it again, nothing is done twice): %w", r.result.Replayed, r.result.Matched, err)
	}
	if r.result.Refused > 0 {
		return fmt.Errorf("%s cannot be published again", count(r.result.Refused, "dead letter"))
	}
	return nil
}

// confirm asks a person.
func confirm(cmd *cobra.Command, yes bool, question string) error {
	if yes {
		return nil
	}
	if f, ok := cmd.InOrStdin().(*os.File); ok && !term.IsTerminal(int(f.Fd())) {
		return errors.New("nobody can be asked here: say --yes, or look with --dry-run")
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s [y/N] ", question)
	answer, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read the answer: %w", err)
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return errors.New("nothing was done")
	}
	return nil
}
