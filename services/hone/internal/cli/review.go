package cli

import (
	"fmt"
	"os"
	"os/user"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	curationv1 "github.com/honeloop/hone/proto/gen/go/hone/curation/v1"
)

func newReviewCommand(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "review",
		Short:   "The reviewer's queue",
		Example: "  hone review list\n  hone review show rv_…\n  hone review decide rv_… --correct \"Only unworn shoes, within 30 days.\"",
	}
	cmd.AddCommand(g.newReviewList(), g.newReviewShow(), g.newReviewDecide())
	return cmd
}

func (g *global) newReviewList() *cobra.Command {
	var state string
	var limit uint32
	cmd := &cobra.Command{
		Use: "list", Short: "List reviews, highest priority first, then oldest", Args: cobra.NoArgs,
		RunE: g.connected(func(cmd *cobra.Command, _ []string, conn *grpc.ClientConn) error {
			resp, err := curationv1.NewReviewServiceClient(conn).ListReviews(cmd.Context(), &curationv1.ListReviewsRequest{State: state, Limit: limit})
			if err != nil {
				return explain(err)
			}
			if g.json {
				return printMessage(cmd.OutOrStdout(), resp)
			}
			if len(resp.Reviews) == 0 {
				fmt.Fprintln(cmd.OutOrStdout(), "No reviews.")
				return nil
			}
			var rows [][]string
			for _, r := range resp.Reviews {
				s := r.GetSignal()
				rows = append(rows, []string{r.ReviewId, r.State, r.Priority, s.GetCategory(), s.GetSeverity(), stamp(s.GetOccurredAt()),
					oneLine(s.GetInteraction().GetQuery(), 40), oneLine(joined(" ", s.GetComment(), prefixed("→ ", s.GetCorrection())), 40)})
			}
			return table(cmd.OutOrStdout(), []string{"review", "state", "priority", "category", "severity", "when", "asked", "feedback"}, rows)
		}),
	}
	cmd.Flags().StringVar(&state, "state", "", "open (default), approved, corrected, dismissed, withdrawn or all")
	cmd.Flags().Uint32Var(&limit, "limit", 0, "most reviews to list (default 50)")
	return cmd
}

func (g *global) newReviewShow() *cobra.Command {
	return &cobra.Command{
		Use: "show REVIEW", Short: "Show one review", Args: cobra.ExactArgs(1),
		RunE: g.connected(func(cmd *cobra.Command, args []string, conn *grpc.ClientConn) error {
			resp, err := curationv1.NewReviewServiceClient(conn).GetReview(cmd.Context(), &curationv1.GetReviewRequest{ReviewId: args[0]})
			if err != nil {
				return explain(err)
			}
			return g.printReview(cmd, resp.Review)
		}),
	}
}

func (g *global) printReview(cmd *cobra.Command, r *curationv1.Review) error {
	if g.json {
		return printMessage(cmd.OutOrStdout(), r)
	}
	p := newPainter(cmd.OutOrStdout())
	s := r.GetSignal()
	p.printf("%s  %s\n", p.bold("review "+r.ReviewId), r.State)
	p.block(2, "priority", r.Priority)
	p.block(2, "reason", r.Reason)
	p.block(2, "case", joined("  ", r.CaseTitle, r.CaseId))
	p.block(2, "session", s.GetSessionId())
	p.block(2, "user", s.GetInteraction().GetQuery())
	p.block(2, "assistant", s.GetInteraction().GetOutput())
	p.block(2, "feedback", joined(" · ", s.GetPolarity(), s.GetCategory(), s.GetSeverity()))
	p.block(2, "comment", s.GetComment())
	p.block(2, "correction", s.GetCorrection())
	if d := r.GetDecided(); d != nil {
		p.block(2, "decided", joined(" · ", d.Verdict, "by "+d.Reviewer, stamp(d.DecidedAt)))
		p.block(2, "answer", d.Answer)
		p.block(2, "clarified", d.Clarification)
		p.block(2, "note", d.Note)
	}
	return nil
}

func (g *global) newReviewDecide() *cobra.Command {
	var approve, dismiss bool
	req := &curationv1.DecideReviewRequest{}
	cmd := &cobra.Command{
		Use:   "decide REVIEW",
		Short: "Decide a review",
		Long: `Decide a review. The first decision in the log stands.

  --approve   the answer that the user proposed, or else the model's own, is right
  --correct   this is the right answer
  --dismiss   there is no problem`,
		Example: `  hone review decide rv_… --correct "Only unworn shoes, within 30 days."
  hone review decide rv_… --approve --clarify "The user means shoes bought online."
  hone review decide rv_… --dismiss --note "spam"`,
		Args: cobra.ExactArgs(1),
		RunE: g.connected(func(cmd *cobra.Command, args []string, conn *grpc.ClientConn) error {
			req.ReviewId = args[0]
			switch {
			case approve:
				req.Verdict = "approve"
			case dismiss:
				req.Verdict = "dismiss"
			default:
				req.Verdict = "correct"
			}
			resp, err := curationv1.NewReviewServiceClient(conn).DecideReview(cmd.Context(), req)
			if err != nil {
				return explain(err)
			}
			return g.printReview(cmd, resp.Review)
		}),
	}
	f := cmd.Flags()
	f.BoolVar(&approve, "approve", false, "approve the proposed answer")
	f.StringVar(&req.Answer, "correct", "", "the right answer")
	f.BoolVar(&dismiss, "dismiss", false, "there is no problem")
	f.StringVar(&req.Clarification, "clarify", "", "what the assistant should have understood")
	f.StringVar(&req.Note, "note", "", "a note for the record")
	f.StringVar(&req.Reviewer, "reviewer", defaultReviewer(), "who decides")
	cmd.MarkFlagsOneRequired("approve", "correct", "dismiss")
	cmd.MarkFlagsMutuallyExclusive("approve", "correct", "dismiss")
	return cmd
}

func defaultReviewer() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return ""
}

func newDatasetCommand(g *global) *cobra.Command {
	cmd := &cobra.Command{Use: "dataset", Short: "What was learned, for training"}
	req := &curationv1.ExportDatasetRequest{}
	var out string
	export := &cobra.Command{
		Use:   "export",
		Short: "Write the dataset as JSON Lines",
		Long: `Write the dataset as JSON Lines, in the conversational formats that trainers such as TRL read:

  sft   {"messages": [system, user, assistant]}
  dpo   {"prompt": […], "chosen": […], "rejected": […]}; rows with nothing to prefer to are left out`,
		Example: "  hone dataset export --format sft --out train.jsonl\n  hone dataset export --format dpo | head -1 | jq .",
		Args:    cobra.NoArgs,
		RunE: g.connected(func(cmd *cobra.Command, _ []string, conn *grpc.ClientConn) error {
			dst := cmd.OutOrStdout()
			if out != "" && out != "-" {
				f, err := os.Create(out)
				if err != nil {
					return fmt.Errorf("create dataset: %w", err)
				}
				defer f.Close()
				dst = f
			}
			n, err := exportDataset(cmd.Context(), conn, req, dst)
			if err != nil {
				return explain(err)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%s\n", count(n, "row"))
			return nil
		}),
	}
	export.Flags().StringVar(&req.Format, "format", "sft", "sft or dpo")
	export.Flags().StringVar(&req.Source, "source", "", "only rows from user-correction, user-edit, preference or review")
	export.Flags().StringVar(&out, "out", "", "file (default standard output)")
	cmd.AddCommand(export)
	return cmd
}

func newPatchCommand(g *global) *cobra.Command {
	cmd := &cobra.Command{Use: "patch", Short: "Prompt patches"}
	var limit uint32
	list := &cobra.Command{
		Use: "list", Short: "List patches", Args: cobra.NoArgs,
		RunE: g.connected(func(cmd *cobra.Command, _ []string, conn *grpc.ClientConn) error {
			resp, err := curationv1.NewPatchServiceClient(conn).ListPatches(cmd.Context(), &curationv1.ListPatchesRequest{Limit: limit})
			if err != nil {
				return explain(err)
			}
			if g.json {
				return printMessage(cmd.OutOrStdout(), resp)
			}
			var rows [][]string
			for _, r := range resp.Patches {
				rows = append(rows, []string{r.PatchId, r.State, r.CaseId, r.GetCreatedAt().AsTime().Format(time.DateTime), oneLine(r.Text, 70)})
			}
			return table(cmd.OutOrStdout(), []string{"patch", "state", "case", "created", "text"}, rows)
		}),
	}
	list.Flags().Uint32Var(&limit, "limit", 0, "most patches to list (default 50)")
	cmd.AddCommand(list)
	return cmd
}
