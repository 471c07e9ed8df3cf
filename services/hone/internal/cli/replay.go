package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/honeloop/hone/pkg/stream"
)

// stages are what can be replayed; a stage's group is "hone-" and its name.
func stages() []string {
	return []string{"enricher", "embedder", "embedder-curation", "embedder-patches", "router", "curator", "curator-curation"}
}

// replayStalled is how long a replayed stage may do nothing before the command
// says so and ends.
const replayStalled = 2 * time.Minute

type stageReplay struct {
	Stage      string           `json:"stage"`
	Group      string           `json:"group"`
	Partitions []replayPosition `json:"partitions"`
	Records    int64            `json:"records"`
	Members    int              `json:"members"`
	Done       int64            `json:"done"`
	DryRun     bool             `json:"dry_run"`
	Seconds    float64          `json:"seconds"`
}

type replayPosition struct {
	Topic     string `json:"topic"`
	Partition int    `json:"partition"`
	From      int64  `json:"from"`
	To        int64  `json:"to"` // not included
}

func newReplayCommand(g *global) *cobra.Command {
	var name, fromTime, toTime, brokers string
	var from stream.RewindFrom
	var dryRun, yes bool
	cmd := &cobra.Command{
		Use: "replay", Short: "Run a stage over history again", Args: cobra.NoArgs,
		Long: `Run a stage over history again, from a time or an offset up to where it is, or to an end
of yours. The stage's consumer group is set back; its processes need not be stopped: they
leave the group for a moment, join again, and read from there. What is new waits behind
the history. With an end they leave it once more and go on where they were; some records
after the end may be read again by then. Without the command they read all of it.

Nothing is done twice: each stage does a thing once for each id and revision, and says
again downstream what it said before, with the same ids. Stages:

  enricher           reads hone.events again, announces the signals that are stored
  embedder           reads hone.signals again, announces each signal's case
  embedder-curation  reads hone.curation again, puts reviewers' answers into cases
  embedder-patches   reads hone.patches again, keeps the same prompt patches
  router             reads hone.cases again, announces the decisions that are stored
  curator            reads hone.route.* again, writes the same reviews, examples, patches
  curator-curation   reads hone.curation again, writes the same answers of reviewers

History reaches back as far as the topics keep it (7 days; hone.curation and
hone.patches for ever).`,
		Example: `  hone replay --stage enricher --from-time 2h --dry-run
  hone replay --stage embedder --from-time 2026-01-31T09:00:00Z
  hone replay --stage enricher --from-time 2026-01-30 --to-time 2026-01-31
  hone replay --stage router --from-offset 0 --yes
  hone replay --stage curator --topic hone.route.product --from-offset 120 --partition 2 --yes --json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !slices.Contains(stages(), name) {
				return fmt.Errorf("--stage %q: want one of %s", name, strings.Join(stages(), ", "))
			}
			if (fromTime == "") == (from.Offset < 0) {
				return errors.New("say where to begin: --from-time or --from-offset")
			}
			if fromTime != "" {
				var err error
				if from.Time, err = pastTime(fromTime, time.Now()); err != nil {
					return fmt.Errorf("--from-time: %w", err)
				}
			}
			if toTime != "" && from.EndOffset != 0 {
				return errors.New("say where to end once: --to-time or --to-offset")
			}
			if from.EndOffset < 0 || from.EndOffset > 0 && fromTime == "" && from.EndOffset <= from.Offset {
				return errors.New("--to-offset: want more than --from-offset")
			}
			if toTime != "" {
				var err error
				if from.EndTime, err = pastTime(toTime, time.Now()); err != nil {
					return fmt.Errorf("--to-time: %w", err)
				}
				if !from.EndTime.After(from.Time) {
					return errors.New("--to-time: want a time after --from-time")
				}
			}
			cfg, err := g.kafkaAt(brokers)
			if err != nil {
				return err
			}
			group := "hone-" + name
			plan, err := stream.PlanRewind(cmd.Context(), cfg, group, from)
			if err != nil {
				return err
			}
			result := stageReplay{Stage: name, Group: group, Partitions: []replayPosition{}, DryRun: dryRun}
			for _, p := range plan {
				result.Partitions = append(result.Partitions, replayPosition{p.Topic, p.Partition, p.To, p.End})
				result.Records += p.End - p.To
			}
			if !g.json {
				var rows [][]string
				for _, p := range result.Partitions {
					rows = append(rows, []string{p.Topic, fmt.Sprint(p.Partition), fmt.Sprint(p.From), fmt.Sprint(p.To), fmt.Sprint(p.To - p.From)})
				}
				if len(rows) > 0 {
					if err := table(cmd.OutOrStdout(), []string{"topic", "partition", "from", "to", "records"}, rows); err != nil {
						return err
					}
				}
			}
			if !dryRun && len(plan) > 0 {
				if err := confirm(cmd, yes, fmt.Sprintf("Have the %s read %s again?", name, count(int(result.Records), "record"))); err != nil {
					return err
				}
				progress := cmd.ErrOrStderr()
				if g.json {
					progress = io.Discard
				}
				err = result.run(cmd.Context(), cfg, plan, progress)
			}
			if g.json {
				return errors.Join(err, printJSON(cmd.OutOrStdout(), result))
			}
			if err != nil {
				return err
			}
			switch {
			case len(plan) == 0:
				fmt.Fprintf(cmd.OutOrStdout(), "nothing to read again: the %s has not read that far\n", name)
			case dryRun:
				fmt.Fprintf(cmd.OutOrStdout(), "the %s would read %s again\n", name, count(int(result.Records), "record"))
			case result.Members == 0:
				fmt.Fprintf(cmd.OutOrStdout(), "the %s does not run: it reads %s again when it starts\n", name, count(int(result.Records), "record"))
			default:
				fmt.Fprintf(cmd.OutOrStdout(), "the %s has read %s again, in %.1f s\n", name, count(int(result.Done), "record"), result.Seconds)
			}
			return nil
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&name, "stage", "", "stage to replay: "+strings.Join(stages(), ", "))
	fl.StringVar(&fromTime, "from-time", "", "from records of this time on: 2h ago, or 2026-01-31, or 2026-01-31T09:00:00Z")
	fl.Int64Var(&from.Offset, "from-offset", -1, "from this offset on, in each partition")
	fl.StringVar(&toTime, "to-time", "", "up to records of this time, not included (default: where the stage is)")
	fl.Int64Var(&from.EndOffset, "to-offset", 0, "up to this offset, not included, in each partition")
	fl.StringVar(&from.Topic, "topic", "", "only this one of the stage's topics")
	fl.IntVar(&from.Partition, "partition", -1, "only this partition")
	fl.StringVar(&brokers, "brokers", "", brokersUsage)
	fl.BoolVar(&dryRun, "dry-run", false, "only say what would be done")
	fl.BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// run sets the group back and waits until it is at the end of the plan, and sees
// to it that it goes on where it was.
func (r *stageReplay) run(ctx context.Context, cfg stream.Config, plan []stream.Position, progress io.Writer) (err error) {
	start := time.Now()
	defer func() { r.Seconds = time.Since(start).Seconds() }()
	early := slices.ContainsFunc(plan, func(p stream.Position) bool { return p.End < p.Committed })
	if early { // somebody must be there to reach the end
		n, err := stream.Members(ctx, cfg, r.Group)
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("the %s does not run: start it first, or leave the end out", r.Stage)
		}
	}
	if r.Members, err = stream.Rewind(ctx, cfg, r.Group, plan); err != nil || r.Members == 0 {
		return err
	}
	bar := newProgress(progress, int(r.Records), "replaying "+r.Stage)
	defer bar.Close()
	moved := time.Now()
	for {
		committed, err := stream.Committed(ctx, cfg, r.Group)
		if err == nil {
			var done int64
			for _, p := range plan {
				done += min(max(committed[p.Topic][p.Partition]-p.To, 0), p.End-p.To)
			}
			if done > r.Done {
				bar.Add(int(done - r.Done))
				r.Done, moved = done, time.Now()
			}
			if done == r.Records && early {
				return stream.Resume(ctx, cfg, r.Group, plan)
			}
			if done == r.Records {
				return nil
			}
		}
		if time.Since(moved) > replayStalled {
			err = errors.Join(err, fmt.Errorf("nothing was done for %s", replayStalled))
			return fmt.Errorf("the %s has done %d of %d and goes on when it can (see its log and /readyz): %w", r.Stage, r.Done, r.Records, err)
		}
		select {
		case <-time.After(200 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("the %s goes on by itself; it has done %d of %d: %w", r.Stage, r.Done, r.Records, ctx.Err())
		}
	}
}
