package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	erasurev1 "github.com/honeloop/hone/proto/gen/go/hone/erasure/v1"
)

func newEraseCommand(g *global) *cobra.Command {
	req := &erasurev1.EraseRequest{}
	var yes bool
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "erase", Short: "Take a user, or a session, out of all stores",
		Long: `Take a user, or a session, out of all stores, and print the receipt: what was removed where,
after reading back that it is gone. Events of it that come later are refused and counted.

Where a session has several users, only the events of this one go, and the signals that rest
on them: also what others said about this user's turns, as that quotes them.`,
		Example: `  hone erase --user u-7 --dry-run
  hone erase --user u-7 --yes --json
  hone erase --session s-1`,
		Args: cobra.NoArgs,
		RunE: g.connected(func(cmd *cobra.Command, _ []string, conn *grpc.ClientConn) error {
			if (req.UserId == "") == (req.SessionId == "") {
				return errors.New("want one of --user and --session")
			}
			if !req.DryRun {
				who := "user " + req.UserId
				if req.SessionId != "" {
					who = "session " + req.SessionId
				}
				if err := confirm(cmd, yes, "Erase "+clean(who)+" for ever?"); err != nil {
					return err
				}
			}
			client := erasurev1.NewErasureServiceClient(conn)
			resp, err := client.Erase(cmd.Context(), req)
			if err != nil {
				return explain(err)
			}
			e := resp.Erasure
			deadline := time.Now().Add(wait)
			for step := ""; !req.DryRun && e.State != "done"; {
				if e.Step != step && e.Step != "" && !g.json {
					step = e.Step
					fmt.Fprintf(cmd.ErrOrStderr(), "waiting %s\n", step)
				}
				if time.Now().After(deadline) {
					return fmt.Errorf("erasure %s still runs after %s, waiting %s: run the command again to see how it ends", e.ErasureId, wait, e.Step)
				}
				select {
				case <-cmd.Context().Done():
					return cmd.Context().Err()
				case <-time.After(500 * time.Millisecond):
				}
				got, err := client.GetErasure(cmd.Context(), &erasurev1.GetErasureRequest{ErasureId: e.ErasureId})
				if err != nil {
					return explain(err)
				}
				e = got.Erasure
			}
			if g.json {
				return printMessage(cmd.OutOrStdout(), e)
			}
			return printErasure(newPainter(cmd.OutOrStdout()), e, req.DryRun)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&req.UserId, "user", "", "id of the user")
	f.StringVar(&req.SessionId, "session", "", "id of the session")
	f.BoolVar(&req.DryRun, "dry-run", false, "only count")
	f.BoolVar(&yes, "yes", false, "do not ask")
	f.DurationVar(&wait, "wait", 10*time.Minute, "how long to wait for the receipt; the erasure goes on without")
	return cmd
}

func printErasure(p *painter, e *erasurev1.Erasure, dryRun bool) error {
	if dryRun {
		p.printf("Would be removed, with what rests on it:\n\n")
	} else {
		p.printf("%s  erased, and read back at %s\n\n", p.bold(e.ErasureId), e.FinishedAt.AsTime().UTC().Format(time.RFC3339))
	}
	var rows [][]string
	for _, r := range e.Removed {
		row := []string{r.Place, fmt.Sprint(r.Count)}
		if !dryRun {
			row = append(row, fmt.Sprint(r.Left))
		}
		rows = append(rows, row)
	}
	headings := []string{"place", "rows", "left"}
	if dryRun {
		headings = headings[:2]
	}
	if len(rows) == 0 {
		p.printf("Nothing was found.\n")
	} else if err := table(p.w, headings, rows); err != nil {
		return err
	}
	p.printf("\nNot reached:\n")
	for _, k := range e.Kept {
		p.printf("  - %s\n", k)
	}
	return nil
}
