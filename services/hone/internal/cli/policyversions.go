package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	policyv1 "github.com/honeloop/hone/proto/gen/go/hone/policy/v1"
	"github.com/honeloop/hone/services/router"
)

func (g *global) newPolicyShow() *cobra.Command {
	return &cobra.Command{
		Use: "show [VERSION]", Short: "Print the policy in force, or an earlier version; 0 is the router's own", Args: cobra.MaximumNArgs(1),
		RunE: g.connected(func(cmd *cobra.Command, args []string, conn *grpc.ClientConn) error {
			req := &policyv1.GetPolicyRequest{}
			if len(args) > 0 {
				number, err := versionNumber(args[0])
				if err != nil {
					return err
				}
				req.Number = &number
			}
			resp, err := policyv1.NewPolicyServiceClient(conn).GetPolicy(cmd.Context(), req)
			if err != nil {
				return explain(err)
			}
			if g.json {
				return printMessage(cmd.OutOrStdout(), resp)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "# %s, %s\n%s", versionName(resp.GetPolicy()), resp.PolicyVersion, resp.Yaml)
			if e := resp.GetPolicy().GetError(); e != "" {
				fmt.Fprintf(cmd.ErrOrStderr(), "The router cannot use version %d, so this is the one before:\n%s\n", resp.GetPolicy().GetNumber(), e)
			}
			return nil
		}),
	}
}

func versionNumber(s string) (uint32, error) {
	n, err := strconv.ParseUint(strings.TrimPrefix(s, "v"), 10, 32)
	if err != nil {
		return 0, fmt.Errorf("version %q: want a number, such as 3; see 'hone policy history'", s)
	}
	return uint32(n), nil
}

// versionName is what people call a version.
func versionName(p *policyv1.Policy) string {
	if p.GetNumber() == 0 {
		return "the router's own policy"
	}
	return fmt.Sprintf("version %d", p.GetNumber())
}

// readPolicyFile reads a policy's text; - is the standard input.
func readPolicyFile(cmd *cobra.Command, name string) (string, error) {
	if name == "-" {
		data, err := io.ReadAll(cmd.InOrStdin())
		return string(data), err
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return "", fmt.Errorf("read the policy: %w", err)
	}
	return string(data), nil
}

// errInvalidPolicy ends a command whose output says what is wrong.
var errInvalidPolicy = errors.New("the policy is not valid")

// checkPolicy compiles a policy here, so that its errors carry the file's name.
func checkPolicy(cmd *cobra.Command, name, yaml string) (*router.Policy, error) {
	policy, err := router.CompilePolicy(name, []byte(yaml))
	if _, ok := errors.AsType[*router.PolicyErrors](err); ok {
		fmt.Fprintln(cmd.ErrOrStderr(), err)
		return nil, errInvalidPolicy
	}
	return policy, err
}

func newPolicyValidate(g *global) *cobra.Command {
	return &cobra.Command{
		Use: "validate FILE", Short: "Say what is wrong with a policy, by line and column", Args: cobra.ExactArgs(1),
		Long: "Say what is wrong with a policy, by line and column. It needs no running Hone. - reads the standard input.",
		RunE: func(cmd *cobra.Command, args []string) error {
			yaml, err := readPolicyFile(cmd, args[0])
			if err != nil {
				return err
			}
			if g.json {
				out := &policyv1.ValidatePolicyResponse{}
				policy, err := router.CompilePolicy(args[0], []byte(yaml))
				if wrong, ok := errors.AsType[*router.PolicyErrors](err); ok {
					for _, e := range wrong.Errors {
						out.Errors = append(out.Errors, &policyv1.PolicyError{Line: uint32(e.Line), Column: uint32(e.Column), Message: e.Message})
					}
					return errors.Join(printMessage(cmd.OutOrStdout(), out), errInvalidPolicy)
				}
				if err != nil {
					return err
				}
				out.PolicyVersion = policy.Version()
				return printMessage(cmd.OutOrStdout(), out)
			}
			policy, err := checkPolicy(cmd, args[0], yaml)
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s is valid: %s\n", args[0], policy.Version())
			return nil
		},
	}
}

func (g *global) newPolicyApply() *cobra.Command {
	var note, author string
	var dryRun bool
	cmd := &cobra.Command{
		Use: "apply FILE", Short: "Make a policy the project's, at once and without a restart", Args: cobra.ExactArgs(1),
		Long: `Make a policy the project's, at once and without a restart. What is decided stays decided. - reads the
standard input. 'hone policy rollback' takes it back.`,
		RunE: g.connected(func(cmd *cobra.Command, args []string, conn *grpc.ClientConn) error {
			yaml, err := readPolicyFile(cmd, args[0])
			if err != nil {
				return err
			}
			if _, err := checkPolicy(cmd, args[0], yaml); err != nil {
				return err
			}
			client := policyv1.NewPolicyServiceClient(conn)
			before, err := client.GetPolicy(cmd.Context(), &policyv1.GetPolicyRequest{})
			if err != nil {
				return explain(err)
			}
			if !g.json || dryRun {
				printDiff(newPainter(cmd.OutOrStdout()), before.Yaml, yaml)
			}
			if dryRun {
				return nil
			}
			number := before.GetPolicy().GetNumber()
			resp, err := client.PublishPolicy(cmd.Context(), &policyv1.PublishPolicyRequest{Yaml: yaml, Replaces: &number, Author: author, Note: note})
			if err != nil {
				return explain(err)
			}
			if g.json {
				return printMessage(cmd.OutOrStdout(), resp)
			}
			if resp.Unchanged {
				fmt.Fprintf(cmd.OutOrStdout(), "Nothing to do: %s says the same.\n", versionName(resp.Policy))
				return nil
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Version %d is in force (%s). Back: hone policy rollback %d\n", resp.Policy.Number, resp.Policy.PolicyVersion, number)
			return nil
		}),
	}
	cmd.Flags().StringVar(&note, "note", "", "why, for the history")
	cmd.Flags().StringVar(&author, "author", defaultReviewer(), "who publishes")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "show what would change and stop")
	return cmd
}

func (g *global) newPolicyRollback() *cobra.Command {
	req := &policyv1.RollbackPolicyRequest{}
	cmd := &cobra.Command{
		Use: "rollback [VERSION]", Short: "Publish an earlier version again; without a number, the one before", Args: cobra.MaximumNArgs(1),
		Long: "Publish an earlier version again; without a number, the one before. 0 goes back to the router's own policy.",
		RunE: g.connected(func(cmd *cobra.Command, args []string, conn *grpc.ClientConn) error {
			if len(args) > 0 {
				number, err := versionNumber(args[0])
				if err != nil {
					return err
				}
				req.Number = &number
			}
			resp, err := policyv1.NewPolicyServiceClient(conn).RollbackPolicy(cmd.Context(), req)
			if err != nil {
				return explain(err)
			}
			if g.json {
				return printMessage(cmd.OutOrStdout(), resp)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "Version %d is in force: %s again (%s).\n", resp.Policy.Number,
				versionName(&policyv1.Policy{Number: resp.Policy.RollbackOf}), resp.Policy.PolicyVersion)
			return nil
		}),
	}
	cmd.Flags().StringVar(&req.Note, "note", "", "why, for the history")
	cmd.Flags().StringVar(&req.Author, "author", defaultReviewer(), "who does it")
	return cmd
}

func (g *global) newPolicyHistory() *cobra.Command {
	req := &policyv1.ListPoliciesRequest{}
	cmd := &cobra.Command{
		Use: "history", Short: "List the project's versions, newest first", Args: cobra.NoArgs,
		RunE: g.connected(func(cmd *cobra.Command, _ []string, conn *grpc.ClientConn) error {
			resp, err := policyv1.NewPolicyServiceClient(conn).ListPolicies(cmd.Context(), req)
			if err != nil {
				return explain(err)
			}
			if g.json {
				return printMessage(cmd.OutOrStdout(), resp)
			}
			var rows [][]string
			for i, v := range resp.Policies {
				state := ""
				if i == 0 {
					state = "in force"
				}
				if v.Error != "" {
					state = "cannot be used here: " + oneLine(v.Error, 60)
				}
				what := prefixed("rollback of ", strings.TrimPrefix(strconv.Itoa(int(v.RollbackOf)), "0"))
				if v.RoutersOwn {
					what = "the router's own policy"
				}
				rows = append(rows, []string{strconv.Itoa(int(v.Number)), v.PolicyVersion, stamp(v.PublishedAt), v.Author, joined("; ", state, what, oneLine(v.Note, 60))})
			}
			return table(cmd.OutOrStdout(), []string{"version", "policy", "published", "by", "notes"}, rows)
		}),
	}
	cmd.Flags().Uint32Var(&req.Limit, "limit", 0, "most versions to list (default 50)")
	return cmd
}

func (g *global) newPolicyDiff() *cobra.Command {
	return &cobra.Command{
		Use: "diff FILE | VERSION [FILE | VERSION]", Short: "Compare a file or a version with the policy in force, or two of them", Args: cobra.RangeArgs(1, 2),
		Example: "  hone policy diff mine.yaml\n  hone policy diff 3 4",
		RunE: g.connected(func(cmd *cobra.Command, args []string, conn *grpc.ClientConn) error {
			client := policyv1.NewPolicyServiceClient(conn)
			read := func(arg string) (string, error) {
				if number, err := versionNumber(arg); err == nil {
					resp, err := client.GetPolicy(cmd.Context(), &policyv1.GetPolicyRequest{Number: &number})
					if err != nil {
						return "", explain(err)
					}
					return resp.Yaml, nil
				}
				return readPolicyFile(cmd, arg)
			}
			inForce, err := client.GetPolicy(cmd.Context(), &policyv1.GetPolicyRequest{})
			if err != nil {
				return explain(err)
			}
			from, to := inForce.Yaml, ""
			if len(args) == 2 {
				if from, err = read(args[0]); err != nil {
					return err
				}
			}
			if to, err = read(args[len(args)-1]); err != nil {
				return err
			}
			printDiff(newPainter(cmd.OutOrStdout()), from, to)
			return nil
		}),
	}
}

// printDiff writes what changes from one text to the other, with the lines
// around it.
func printDiff(p *painter, from, to string) {
	const around = 2
	lines := diffLines(strings.Split(strings.TrimSuffix(from, "\n"), "\n"), strings.Split(strings.TrimSuffix(to, "\n"), "\n"))
	near := func(i int) bool {
		for _, l := range lines[max(0, i-around):min(len(lines), i+around+1)] {
			if l[0] != ' ' {
				return true
			}
		}
		return false
	}
	shown, last := 0, -1
	for i, l := range lines {
		if !near(i) {
			continue
		}
		if last >= 0 && i > last+1 {
			p.printf("%s\n", p.dim("  …"))
		}
		last = i
		shown++
		text := clean(l)
		switch l[0] {
		case '-':
			text = p.polarity("negative", text)
		case '+':
			text = p.polarity("positive", text)
		}
		p.printf("%s\n", text)
	}
	if shown == 0 {
		p.printf("No difference.\n")
	}
}

// diffLines is a shortest edit of a to b: lines that begin with "  ", "- " or
// "+ ". It takes time and memory by the product of what differs.
func diffLines(a, b []string) []string {
	var head, tail []string
	for len(a) > 0 && len(b) > 0 && a[0] == b[0] {
		head, a, b = append(head, "  "+a[0]), a[1:], b[1:]
	}
	for len(a) > 0 && len(b) > 0 && a[len(a)-1] == b[len(b)-1] {
		tail, a, b = append(tail, "  "+a[len(a)-1]), a[:len(a)-1], b[:len(b)-1]
	}
	// common[i][j] is the length of the longest common part of a[i:] and b[j:].
	common := make([][]int32, len(a)+1)
	for i := range common {
		common[i] = make([]int32, len(b)+1)
	}
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i] == b[j] {
				common[i][j] = common[i+1][j+1] + 1
			} else {
				common[i][j] = max(common[i+1][j], common[i][j+1])
			}
		}
	}
	out := head
	for i, j := 0, 0; i < len(a) || j < len(b); {
		switch {
		case i < len(a) && j < len(b) && a[i] == b[j]:
			out = append(out, "  "+a[i])
			i, j = i+1, j+1
		case j == len(b) || i < len(a) && common[i+1][j] >= common[i][j+1]:
			out = append(out, "- "+a[i])
			i++
		default:
			out = append(out, "+ "+b[j])
			j++
		}
	}
	for i := len(tail) - 1; i >= 0; i-- {
		out = append(out, tail[i])
	}
	return out
}

func (g *global) newPolicyHeld() *cobra.Command {
	req := &policyv1.ListHeldRequest{}
	cmd := &cobra.Command{
		Use: "held", Short: "List signals that wait until their case has more signals, oldest first", Args: cobra.NoArgs,
		RunE: g.connected(func(cmd *cobra.Command, _ []string, conn *grpc.ClientConn) error {
			resp, err := policyv1.NewPolicyServiceClient(conn).ListHeld(cmd.Context(), req)
			if err != nil {
				return explain(err)
			}
			if g.json {
				return printMessage(cmd.OutOrStdout(), resp)
			}
			if len(resp.Decisions) == 0 {
				fmt.Fprintln(cmd.OutOrStdout(), "Nothing is held.")
				return nil
			}
			var rows [][]string
			for _, d := range resp.Decisions {
				rows = append(rows, []string{d.SignalId, d.CaseId, strconv.Itoa(int(d.HoldUntil)), d.Rule, strings.Join(d.HeldRoutes, ", "), stamp(d.DecidedAt)})
			}
			return table(cmd.OutOrStdout(), []string{"signal", "case", "until", "rule", "then", "since"}, rows)
		}),
	}
	cmd.Flags().StringVar(&req.CaseId, "case", "", "only those that wait for this case")
	cmd.Flags().Uint32Var(&req.Limit, "limit", 0, "most signals to list (default 50)")
	return cmd
}
