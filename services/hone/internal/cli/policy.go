package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	curationv1 "github.com/honeloop/hone/proto/gen/go/hone/curation/v1"
	policyv1 "github.com/honeloop/hone/proto/gen/go/hone/policy/v1"
)

func newPolicyCommand(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use: "policy", Short: "What is done with signals, and why",
		Example: "  hone policy show > mine.yaml\n  hone policy validate mine.yaml\n  hone policy diff mine.yaml\n  hone policy apply mine.yaml --note \"tone to patches\"\n  hone policy rollback",
	}
	why := &cobra.Command{
		Use: "explain SIGNAL", Short: "Say what was decided on a signal, by which rule, and why", Args: cobra.ExactArgs(1),
		RunE: g.connected(func(cmd *cobra.Command, args []string, conn *grpc.ClientConn) error {
			resp, err := policyv1.NewPolicyServiceClient(conn).Explain(cmd.Context(), &policyv1.ExplainRequest{SignalId: args[0]})
			if err != nil {
				return explain(err)
			}
			if g.json {
				return printMessage(cmd.OutOrStdout(), resp)
			}
			p := newPainter(cmd.OutOrStdout())
			for _, d := range resp.Decisions {
				p.printf("%s  %s\n", p.bold(fmt.Sprintf("revision %d → %s", d.SignalRevision, goesTo(d))), p.dim(d.DecisionId))
				p.block(2, "rule", joined(" · ", d.Rule, prefixed("priority ", d.Priority), prefixed("policy ", d.PolicyVersion)))
				p.block(2, "reason", d.Reason)
				p.block(2, "decided", joined(" · ", stamp(d.DecidedAt), superseded(d)))
				p.block(2, "case", d.CaseId)
				for i, r := range d.Rules {
					label := ""
					if i == 0 {
						label = "rules"
					}
					p.block(2, label, ruleLine(r))
				}
				printFacts(p, 2, d.Facts)
			}
			return nil
		}),
	}
	cmd.AddCommand(g.newPolicyShow(), newPolicyValidate(g), g.newPolicyDiff(), g.newPolicyApply(), g.newPolicyHistory(), g.newPolicyRollback(), g.newPolicyBacktest(), g.newPolicyHeld(), g.newPolicyShadow(), why)
	return cmd
}

// goesTo says where a decision sends its signal.
func goesTo(d *policyv1.Decision) string {
	if d.HoldUntil > 0 {
		return fmt.Sprintf("held until its case has %d, then %s", d.HoldUntil, strings.Join(d.HeldRoutes, ", "))
	}
	return orNothing(strings.Join(d.Routes, ", "))
}

// superseded says what replaced a decision.
func superseded(d *policyv1.Decision) string {
	if !d.Superseded {
		return "in force"
	}
	return fmt.Sprintf("replaced by revision %d", d.SupersededBy)
}

// ruleLine is what one rule said.
func ruleLine(r *policyv1.RuleResult) string {
	mark := map[string]string{"matched": "✓", "not matched": "·"}[r.Result]
	if mark == "" {
		mark = "!"
	}
	line := mark + " " + r.Rule
	if r.Result != "not matched" {
		line += ": " + r.Result
	}
	if r.Taken != nil {
		line += fmt.Sprintf(", %d taken before in the period", r.GetTaken())
	}
	return line + prefixed(": ", r.Error)
}

func orNothing(routes string) string {
	if routes == "" {
		return "nothing to do"
	}
	return routes
}

// explain is a gRPC error as a sentence.
func explain(err error) error {
	s, ok := status.FromError(err)
	if !ok {
		return err
	}
	switch s.Code() {
	case codes.Unavailable:
		return fmt.Errorf("no answer: %s. Is 'hone up' still running? See 'hone doctor'", s.Message())
	case codes.NotFound, codes.InvalidArgument, codes.AlreadyExists, codes.FailedPrecondition, codes.Aborted:
		return errors.New(s.Message())
	}
	return fmt.Errorf("%s: %s", s.Code(), s.Message())
}

// exportDataset copies the stream to w and counts its lines.
func exportDataset(ctx context.Context, conn *grpc.ClientConn, req *curationv1.ExportDatasetRequest, w io.Writer) (int, error) {
	stream, err := curationv1.NewDatasetServiceClient(conn).ExportDataset(ctx, req)
	if err != nil {
		return 0, err
	}
	rows := 0
	for {
		chunk, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return rows, nil
		}
		if err != nil {
			return rows, err
		}
		rows += strings.Count(string(chunk.Data), "\n")
		if _, err := w.Write(chunk.Data); err != nil {
			return rows, fmt.Errorf("write dataset: %w", err)
		}
	}
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
