package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
)

func newCaseCommand(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "case",
		Short: "Known problems",
		Long: `Known problems: what people complained about, by meaning.

A change goes over the log, is made once, and can be taken back: 'hone case show' lists
the changes of a case, 'hone case undo' takes one back, also those of the periodic pass
that merges doubles and splits mixtures.`,
		Example: `  hone case list
  hone case solve cs_… --answer "Only unworn shoes, within 30 days."
  hone case merge cs_… --into cs_…
  hone case undo cs_…`,
	}
	cmd.AddCommand(g.newCaseList(), g.newCaseShow(), g.newCaseRename(), g.newCaseAssign(), g.newCaseState(), g.newCaseSolve(),
		g.newCaseMerge(), g.newCaseSplit(), g.newCaseUndo())
	return cmd
}

func (g *global) newCaseList() *cobra.Command {
	var state string
	var limit uint32
	cmd := &cobra.Command{
		Use: "list", Short: "List cases, those with the most complaints first", Args: cobra.NoArgs,
		Example: "  hone case list\n  hone case list --state solved --json",
		RunE: g.connected(func(cmd *cobra.Command, _ []string, conn *grpc.ClientConn) error {
			resp, err := casesv1.NewCaseServiceClient(conn).ListCases(cmd.Context(), &casesv1.ListCasesRequest{State: state, Limit: limit})
			if err != nil {
				return explain(err)
			}
			if g.json {
				return printMessage(cmd.OutOrStdout(), resp)
			}
			if len(resp.Cases) == 0 {
				fmt.Fprintln(cmd.OutOrStdout(), "No cases.")
				return nil
			}
			return table(cmd.OutOrStdout(), []string{"case", "state", "complaints", "users", "trend", "severity", "categories", "title"}, caseRows(resp.Cases))
		}),
	}
	cmd.Flags().StringVar(&state, "state", "", "new, triaged, in_progress, solved, regressed, muted, withdrawn or merged (default all but the last two)")
	cmd.Flags().Uint32Var(&limit, "limit", 0, "most cases to list (default 50)")
	return cmd
}

func (g *global) newCaseShow() *cobra.Command {
	return &cobra.Command{
		Use: "show CASE", Short: "Show a case and its changes", Args: cobra.ExactArgs(1),
		RunE: g.connected(func(cmd *cobra.Command, args []string, conn *grpc.ClientConn) error {
			client := casesv1.NewCaseServiceClient(conn)
			resp, err := client.GetCase(cmd.Context(), &casesv1.GetCaseRequest{CaseId: args[0]})
			if err != nil {
				return explain(err)
			}
			if g.json {
				return printMessage(cmd.OutOrStdout(), resp.Case)
			}
			edits, err := client.ListCaseEdits(cmd.Context(), &casesv1.ListCaseEditsRequest{CaseId: args[0]})
			if err != nil {
				return explain(err)
			}
			p := newPainter(cmd.OutOrStdout())
			printCase(p, resp.Case)
			for _, q := range resp.Case.Examples {
				p.block(6, "asked", q)
			}
			for _, e := range edits.Edits {
				p.block(6, "change", editText(e))
			}
			return nil
		}),
	}
}

func printCase(p *painter, c *casesv1.Case) {
	p.printf("%s  %s\n", p.bold(oneLine(c.Title, 100)), p.dim(c.CaseId))
	printCaseBody(p, c)
}

// editText is a change in words.
func editText(e *casesv1.CaseEdit) string {
	var what, by, note string
	switch v := e.GetEvent(); {
	case v.GetCaseChanged() != nil:
		c := v.GetCaseChanged()
		var parts []string
		if c.Title != nil {
			parts = append(parts, fmt.Sprintf("named %q", c.GetTitle()))
		}
		if c.Assignee != nil {
			parts = append(parts, "assigned to "+orNobody(c.GetAssignee()))
		}
		if c.GetAnswer() != "" || c.GetClarification() != "" {
			parts = append(parts, "answered")
		}
		if c.State != nil {
			parts = append(parts, "made "+c.GetState())
		}
		what, by, note = strings.Join(parts, ", "), c.GetBy(), c.GetNote()
	case v.GetCaseMerged() != nil:
		c := v.GetCaseMerged()
		what, by, note = fmt.Sprintf("merged into %s, %s", c.GetIntoCaseId(), count(int(e.GetMoved()), "signal")), c.GetBy(), c.GetNote()
	case v.GetCaseSplit() != nil:
		c := v.GetCaseSplit()
		what, by, note = fmt.Sprintf("%s split off as %s", count(int(e.GetMoved()), "signal"), c.GetNewCaseId()), c.GetBy(), c.GetNote()
	case v.GetCaseSummarized() != nil:
		what, by = "summed up", v.GetCaseSummarized().GetBy()
	case v.GetCaseEditUndone() != nil:
		c := v.GetCaseEditUndone()
		what, by, note = "took back "+c.GetUndoneId(), c.GetBy(), c.GetNote()
	}
	return joined(" · ", stamp(e.GetEvent().GetOccurredAt()), what, prefixed("by ", by), note, prefixed("refused: ", e.GetRefused()),
		prefixed("taken back by ", e.GetUndoneBy()), e.GetEvent().GetCurationId())
}

func orNobody(name string) string {
	if name == "" {
		return "nobody"
	}
	return name
}

// changed prints what a change came to.
func (g *global) changed(cmd *cobra.Command, c *casesv1.Case, curationID string) error {
	if g.json {
		return printMessage(cmd.OutOrStdout(), c)
	}
	p := newPainter(cmd.OutOrStdout())
	printCase(p, c)
	if curationID == "" {
		p.printf("Nothing had to be changed.\n")
	} else {
		p.block(6, "change", curationID)
	}
	return nil
}

// said are the flags of every change.
func said(cmd *cobra.Command, by, note *string) {
	cmd.Flags().StringVar(by, "by", defaultReviewer(), "who changes it")
	cmd.Flags().StringVar(note, "note", "", "a note for the record")
}

// newCaseUpdate is a command that sets one thing by its second argument.
func (g *global) newCaseUpdate(use, short string, args cobra.PositionalArgs, set func(*casesv1.UpdateCaseRequest, string)) *cobra.Command {
	req := &casesv1.UpdateCaseRequest{}
	cmd := &cobra.Command{
		Use: use, Short: short, Args: args,
		RunE: g.connected(func(cmd *cobra.Command, args []string, conn *grpc.ClientConn) error {
			req.CaseId = args[0]
			set(req, strings.Join(args[1:], " "))
			resp, err := casesv1.NewCaseServiceClient(conn).UpdateCase(cmd.Context(), req)
			if err != nil {
				return explain(err)
			}
			return g.changed(cmd, resp.Case, resp.CurationId)
		}),
	}
	said(cmd, &req.By, &req.Note)
	return cmd
}

func (g *global) newCaseRename() *cobra.Command {
	return g.newCaseUpdate("rename CASE [TITLE]", "Give a case a title; none gives it back its own words", cobra.MinimumNArgs(1),
		func(r *casesv1.UpdateCaseRequest, title string) { r.Title = &title })
}

func (g *global) newCaseAssign() *cobra.Command {
	return g.newCaseUpdate("assign CASE [PERSON]", "Say who works on a case; none for nobody", cobra.RangeArgs(1, 2),
		func(r *casesv1.UpdateCaseRequest, person string) { r.Assignee = &person })
}

func (g *global) newCaseState() *cobra.Command {
	return g.newCaseUpdate("state CASE STATE", "Set the state: new, triaged, in_progress, solved or muted", cobra.ExactArgs(2),
		func(r *casesv1.UpdateCaseRequest, state string) { r.State = &state })
}

func (g *global) newCaseSolve() *cobra.Command {
	req := &casesv1.SolveCaseRequest{}
	cmd := &cobra.Command{
		Use: "solve CASE", Short: "Approve the answer of a case", Args: cobra.ExactArgs(1),
		Long: `Approve the answer of a case. It is recalled from then on. A complaint that is given later
than that opens the case again, as regressed.`,
		RunE: g.connected(func(cmd *cobra.Command, args []string, conn *grpc.ClientConn) error {
			req.CaseId = args[0]
			resp, err := casesv1.NewCaseServiceClient(conn).SolveCase(cmd.Context(), req)
			if err != nil {
				return explain(err)
			}
			return g.changed(cmd, resp.Case, resp.CurationId)
		}),
	}
	cmd.Flags().StringVar(&req.Answer, "answer", "", "the right answer")
	cmd.Flags().StringVar(&req.Clarification, "clarify", "", "what the assistant should have understood")
	cmd.MarkFlagsOneRequired("answer", "clarify")
	said(cmd, &req.By, &req.Note)
	return cmd
}

func (g *global) newCaseMerge() *cobra.Command {
	req := &casesv1.MergeCaseRequest{}
	cmd := &cobra.Command{
		Use: "merge CASE --into CASE", Short: "Move all signals of a case into another", Args: cobra.ExactArgs(1),
		RunE: g.connected(func(cmd *cobra.Command, args []string, conn *grpc.ClientConn) error {
			req.CaseId = args[0]
			resp, err := casesv1.NewCaseServiceClient(conn).MergeCase(cmd.Context(), req)
			if err != nil {
				return explain(err)
			}
			return g.changed(cmd, resp.Case, resp.CurationId)
		}),
	}
	cmd.Flags().StringVar(&req.IntoCaseId, "into", "", "the case that stays")
	if err := cmd.MarkFlagRequired("into"); err != nil {
		panic(err) // the flag is defined above
	}
	said(cmd, &req.By, &req.Note)
	return cmd
}

func (g *global) newCaseSplit() *cobra.Command {
	req := &casesv1.SplitCaseRequest{}
	cmd := &cobra.Command{
		Use: "split CASE SIGNAL…", Short: "Move some signals of a case into a new one", Args: cobra.MinimumNArgs(2),
		RunE: g.connected(func(cmd *cobra.Command, args []string, conn *grpc.ClientConn) error {
			req.CaseId, req.SignalIds = args[0], args[1:]
			resp, err := casesv1.NewCaseServiceClient(conn).SplitCase(cmd.Context(), req)
			if err != nil {
				return explain(err)
			}
			return g.changed(cmd, resp.Case, resp.CurationId)
		}),
	}
	cmd.Flags().StringVar(&req.Title, "title", "", "title of the new case")
	said(cmd, &req.By, &req.Note)
	return cmd
}

func (g *global) newCaseUndo() *cobra.Command {
	req := &casesv1.UndoCaseEditRequest{}
	cmd := &cobra.Command{
		Use: "undo CASE [CHANGE]", Short: "Take back a change of a case: the last, or the one named", Args: cobra.RangeArgs(1, 2),
		RunE: g.connected(func(cmd *cobra.Command, args []string, conn *grpc.ClientConn) error {
			req.CaseId = args[0]
			if len(args) > 1 {
				req.CurationId = args[1]
			}
			resp, err := casesv1.NewCaseServiceClient(conn).UndoCaseEdit(cmd.Context(), req)
			if err != nil {
				return explain(err)
			}
			return g.changed(cmd, resp.Case, resp.CurationId)
		}),
	}
	said(cmd, &req.By, &req.Note)
	return cmd
}

func caseRows(cases []*casesv1.Case) [][]string {
	var rows [][]string
	for _, c := range cases {
		rows = append(rows, []string{c.CaseId, c.State, fmt.Sprint(c.Negatives), fmt.Sprint(c.Users), c.Trend, c.Severity, counts(c.Categories), oneLine(c.Title, 48)})
	}
	return rows
}
