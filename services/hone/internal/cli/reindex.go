package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/honeloop/hone/pkg/config"
	"github.com/honeloop/hone/pkg/vector"
	"github.com/honeloop/hone/services/embedder"
	"github.com/honeloop/hone/services/hone/internal/endpoints"
)

// reindexTaken is how long an embedder may take to begin.
const reindexTaken = 20 * time.Second

func newReindexCommand(g *global) *cobra.Command {
	var file string
	var status, cancel, detach bool
	cmd := &cobra.Command{
		Use: "reindex", Short: "Change the embedding model beside the live index", Args: cobra.NoArgs,
		Long: `Change the embedding model beside the live index.

First give every embedder the new model as "embedding_next", beside "embedding", and
restart them. Then this command asks them to embed all signals and cases anew, into
collections of the new model. One embedder does it in the background; all of them write
into both meanwhile, and Recall answers from the old ones. When the new ones are complete,
all embedders switch, and the old ones are emptied. Cases stay what they are: their ids,
members and words do not change.

The command watches; it may be ended and called again. After a crash another embedder, or
the same one when it is back, goes on within a minute. The end takes three minutes more than the
embedding, in which writes in flight are waited for. At last make "embedding_next" the
"embedding".`,
		Example: `  HONE_EMBEDDER_EMBEDDING_NEXT_PROVIDER=openai … hone embedder --config hone.yaml
  hone reindex --config hone.yaml
  hone reindex --status --json
  hone reindex --cancel`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client, err := g.weaviate(file)
			if err != nil {
				return err
			}
			defer client.Close()
			ctx := cmd.Context()
			state, err := embedder.ReadReindex(ctx, client)
			if err != nil {
				return err
			}
			if status {
				return g.printReindex(cmd.OutOrStdout(), state)
			}
			if cancel {
				if err := embedder.CancelReindex(ctx, client); err != nil {
					return fmt.Errorf("cancel: %w", err)
				}
			} else if !state.Running() {
				if err := embedder.RequestReindex(ctx, client); err != nil {
					return err
				}
			}
			if detach {
				return nil
			}
			progress := cmd.ErrOrStderr()
			if g.json {
				progress = io.Discard
			}
			state, err = watchReindex(ctx, client, progress)
			if err != nil {
				return err
			}
			return g.printReindex(cmd.OutOrStdout(), state)
		},
	}
	fl := cmd.Flags()
	fl.StringVar(&file, "config", os.Getenv("HONE_CONFIG"), "configuration file, whose section \"embedder\" says where Weaviate is (HONE_CONFIG; else the Hone on --dir)")
	fl.BoolVar(&status, "status", false, "only say how far it has come")
	fl.BoolVar(&cancel, "cancel", false, "end it, before the switch")
	fl.BoolVar(&detach, "detach", false, "do not watch")
	cmd.MarkFlagsMutuallyExclusive("status", "cancel")
	return cmd
}

// weaviate is where a configuration file or the environment of an embedder says,
// or else that of the running Hone.
func (g *global) weaviate(file string) (*vector.Client, error) {
	if file != "" {
		cfg := embedder.DefaultConfig()
		if err := config.Load(&cfg, file, "embedder", envPrefix("embedder")); err != nil {
			return nil, err
		}
		return vector.Open(cfg.Weaviate)
	}
	cfg := vector.DefaultConfig()
	if err := config.Load(&cfg, "", "embedder", envPrefix("embedder")+"WEAVIATE_"); err != nil {
		return nil, err
	}
	if cfg == vector.DefaultConfig() {
		e, err := endpoints.Read(g.dir)
		if err != nil {
			return nil, err
		}
		cfg.URL, cfg.GRPCAddr, cfg.APIKey = e.Weaviate, e.WeaviateGRPC, e.WeaviateKey
	}
	return vector.Open(cfg)
}

// watchReindex returns when a reindex has ended.
func watchReindex(ctx context.Context, client *vector.Client, w io.Writer) (*embedder.Reindex, error) {
	var bar *progressbar.ProgressBar
	if isTerminal(w) {
		bar = progressbar.NewOptions(1000, progressbar.OptionSetWriter(w), progressbar.OptionSetPredictTime(false), progressbar.OptionClearOnFinish())
		defer func() { _ = bar.Finish() }() // only the terminal can fail here
	}
	start := time.Now()
	var said string
	var saidAt time.Time
	for {
		state, err := embedder.ReadReindex(ctx, client)
		switch {
		case err != nil && ctx.Err() == nil:
			if said == "" {
				return nil, err
			}
			if line := "Weaviate does not answer; looking again"; line != said { // it may be away for a moment
				fmt.Fprintln(w, line)
				said = line
			}
		case err == nil && !state.Running():
			return state, nil
		case err == nil && state.Phase == embedder.ReindexRequested && state.Owner == "" && time.Since(start) > reindexTaken:
			return nil, errors.Join(errors.New(`no embedder has begun: give all of them the new model as "embedding_next", another than `+
				`the index has, restart them, and try again`), embedder.CancelReindex(ctx, client))
		case err == nil:
			line := reindexLine(state)
			if bar != nil {
				bar.Describe(line)
				_ = bar.Set(int(1000 * state.Share)) // only the terminal can fail here
			} else if line != said && (time.Since(saidAt) > 3*time.Second || state.Error != "") {
				fmt.Fprintln(w, line)
				saidAt = time.Now()
			}
			said = line
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-ctx.Done():
			return nil, fmt.Errorf("the embedders go on by themselves; watch again with 'hone reindex': %w", ctx.Err())
		}
	}
}

func reindexLine(r *embedder.Reindex) string {
	if r.Error != "" {
		return r.Phase + " does not get on, and is tried again: " + r.Error
	}
	switch r.Phase {
	case embedder.ReindexCopying:
		return fmt.Sprintf("copying: %.0f %%, %s", 100*r.Share, count(int(r.Copied), "object"))
	case embedder.ReindexChecking:
		if r.Share == 0 {
			return "waiting for writes in flight"
		}
		return fmt.Sprintf("checking: %.0f %%, %s differed", 100*r.Share, count(int(r.Repaired), "object"))
	case embedder.ReindexSwitched:
		return "switched: waiting until every embedder has noticed"
	}
	return r.Phase
}

func (g *global) printReindex(w io.Writer, r *embedder.Reindex) error {
	if g.json {
		return printJSON(w, r)
	}
	var err error
	switch {
	case r == nil:
		_, err = fmt.Fprintln(w, "there was no reindex")
	case r.Phase == embedder.ReindexDone:
		_, err = fmt.Fprintf(w, "the index has %s\n%s embedded anew in %s, from %s\nmake \"embedding_next\" the \"embedding\" of the embedders\n",
			r.To, count(int(r.Copied+r.Repaired), "object"), r.Ended.Sub(r.Started).Round(time.Second), r.From)
	case r.Phase == embedder.ReindexCanceled:
		_, err = fmt.Fprintf(w, "the reindex is canceled; the index has %s\n", cmp.Or(r.From, "its model"))
	case r.From == "":
		_, err = fmt.Fprintln(w, reindexLine(r))
	default:
		_, err = fmt.Fprintf(w, "%s\nfrom %s\nto   %s\n", reindexLine(r), r.From, r.To)
	}
	return err
}
