package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	policyv1 "github.com/honeloop/hone/proto/gen/go/hone/policy/v1"
)

func (g *global) newPolicyBacktest() *cobra.Command {
	var since, until string
	var minutes map[string]string
	cmd := &cobra.Command{
		Use: "backtest [FILE]", Short: "Say what a policy would change, by running it over the decisions of the past", Args: cobra.MaximumNArgs(1),
		Long: `Say what a policy would change, by running it over the decisions of the past, with the facts that these
saw. Nothing is written. Without a file the policy in force is compared with what was decided.`,
		Example: "  hone policy backtest new.yaml --since 30d\n  hone policy backtest new.yaml --minutes human-review=6,product=15 --json | jq .changed",
		RunE: g.connected(func(cmd *cobra.Command, args []string, conn *grpc.ClientConn) error {
			req := &policyv1.BacktestRequest{}
			var err error
			if len(args) > 0 {
				if req.Yaml, err = readPolicyFile(cmd, args[0]); err != nil {
					return err
				}
				if _, err := checkPolicy(cmd, args[0], req.Yaml); err != nil {
					return err
				}
			}
			for name, value := range map[string]string{"since": since, "until": until} {
				if value == "" {
					continue
				}
				at, err := pastTime(inHours(value), time.Now())
				if err != nil {
					return fmt.Errorf("--%s: %w", name, err)
				}
				if name == "since" {
					req.Since = timestamppb.New(at)
				} else {
					req.Until = timestamppb.New(at)
				}
			}
			if req.Minutes, err = readMinutes(minutes); err != nil {
				return err
			}
			stream, err := policyv1.NewPolicyServiceClient(conn).Backtest(cmd.Context(), req)
			if err != nil {
				return explain(err)
			}
			last, err := lastLine(cmd, stream)
			if err != nil {
				return explain(err)
			}
			if g.json {
				return printWhole(cmd.OutOrStdout(), last.Report)
			}
			return printBacktest(cmd.OutOrStdout(), last.Report)
		}),
	}
	cmd.Flags().StringVar(&since, "since", "30d", "signals from this time on: 30d ago, or 2026-01-31, or 2026-01-31T09:00:00Z")
	cmd.Flags().StringVar(&until, "until", "", "signals before this time (default now)")
	cmd.Flags().StringToStringVar(&minutes, "minutes", nil, minutesUsage)
	return cmd
}

const minutesUsage = "minutes of work for a signal, by route (default human-review=4,product=10,prompt-patch=2,fine-tune=0.5,alert=5)"

func readMinutes(given map[string]string) (map[string]float64, error) {
	out := map[string]float64{}
	for route, v := range given {
		var err error
		if out[route], err = strconv.ParseFloat(v, 64); err != nil {
			return nil, fmt.Errorf("--minutes: %s=%s: want minutes, such as human-review=4", route, v)
		}
	}
	return out, nil
}

// printWhole prints a message as JSON, zeros too.
func printWhole(w io.Writer, m proto.Message) error {
	data, err := protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true, Multiline: true, Indent: "  "}.Marshal(m)
	if err != nil {
		return fmt.Errorf("print JSON: %w", err)
	}
	_, err = fmt.Fprintf(w, "%s\n", data)
	return err
}

func (g *global) newPolicyShadow() *cobra.Command {
	cmd := &cobra.Command{
		Use: "shadow", Short: "Let a policy run beside the live one for a time, and see what it would do",
		Example: "  hone policy shadow start new.yaml --for 7d\n  hone policy shadow report\n  hone policy shadow stop",
	}
	printShadow := func(cmd *cobra.Command, s *policyv1.Shadow) {
		state := "ended " + stamp(s.EndsAt)
		if s.Running {
			state = "runs until " + stamp(s.EndsAt)
		}
		p := newPainter(cmd.OutOrStdout())
		p.printf("%s  %s\n", p.bold("shadow "+s.PolicyVersion), joined(" · ", state, prefixed("since ", stamp(s.StartedAt)), prefixed("by ", oneLine(s.Author, 40)), oneLine(s.Note, 60)))
	}
	start := &policyv1.StartShadowRequest{}
	var long string
	startCmd := &cobra.Command{
		Use: "start FILE", Short: "Start a shadow; it decides signals as they come, and routes none", Args: cobra.ExactArgs(1),
		RunE: g.connected(func(cmd *cobra.Command, args []string, conn *grpc.ClientConn) error {
			var err error
			if start.Yaml, err = readPolicyFile(cmd, args[0]); err != nil {
				return err
			}
			if _, err := checkPolicy(cmd, args[0], start.Yaml); err != nil {
				return err
			}
			d, err := time.ParseDuration(inHours(long))
			if err != nil || d <= 0 {
				return fmt.Errorf("--for: %q, want a time such as 7d or 12h", long)
			}
			start.EndsAt = timestamppb.New(time.Now().Add(d))
			resp, err := policyv1.NewPolicyServiceClient(conn).StartShadow(cmd.Context(), start)
			if err != nil {
				return explain(err)
			}
			if g.json {
				return printMessage(cmd.OutOrStdout(), resp.Shadow)
			}
			printShadow(cmd, resp.Shadow)
			return nil
		}),
	}
	startCmd.Flags().StringVar(&long, "for", "7d", "how long it runs, such as 7d or 12h; at most 90d")
	startCmd.Flags().StringVar(&start.Note, "note", "", "why")
	startCmd.Flags().StringVar(&start.Author, "author", defaultReviewer(), "who starts it")

	stop := &policyv1.StopShadowRequest{}
	stopCmd := &cobra.Command{
		Use: "stop", Short: "End the shadow that runs; its report stays", Args: cobra.NoArgs,
		RunE: g.connected(func(cmd *cobra.Command, _ []string, conn *grpc.ClientConn) error {
			resp, err := policyv1.NewPolicyServiceClient(conn).StopShadow(cmd.Context(), stop)
			if err != nil {
				return explain(err)
			}
			if g.json {
				return printMessage(cmd.OutOrStdout(), resp.Shadow)
			}
			printShadow(cmd, resp.Shadow)
			return nil
		}),
	}
	stopCmd.Flags().StringVar(&stop.Author, "author", defaultReviewer(), "who ends it")

	var minutes map[string]string
	reportCmd := &cobra.Command{
		Use: "report", Short: "Compare what the latest shadow decided with what was decided", Args: cobra.NoArgs,
		RunE: g.connected(func(cmd *cobra.Command, _ []string, conn *grpc.ClientConn) error {
			given, err := readMinutes(minutes)
			if err != nil {
				return err
			}
			stream, err := policyv1.NewPolicyServiceClient(conn).ReportShadow(cmd.Context(), &policyv1.ReportShadowRequest{Minutes: given})
			if err != nil {
				return explain(err)
			}
			last, err := lastLine(cmd, stream)
			if err != nil {
				return explain(err)
			}
			if g.json {
				return printWhole(cmd.OutOrStdout(), last)
			}
			printShadow(cmd, last.Shadow)
			return printBacktest(cmd.OutOrStdout(), last.Report)
		}),
	}
	reportCmd.Flags().StringToStringVar(&minutes, "minutes", nil, minutesUsage)
	cmd.AddCommand(startCmd, reportCmd, stopCmd)
	return cmd
}

// inHours is a duration such as 30d in hours; anything else stays.
func inHours(s string) string {
	if days, err := strconv.ParseUint(strings.TrimSuffix(s, "d"), 10, 16); err == nil && strings.HasSuffix(s, "d") {
		return fmt.Sprintf("%dh", days*24)
	}
	return s
}

// lastLine shows progress on a terminal, and returns the line with the report.
func lastLine(cmd *cobra.Command, stream grpc.ServerStreamingClient[httpbody.HttpBody]) (*policyv1.BacktestResponse, error) {
	show := isTerminal(cmd.ErrOrStderr())
	for {
		body, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil, errors.New("the backtest ended without a report")
		}
		if err != nil {
			return nil, err
		}
		line := &policyv1.BacktestResponse{}
		if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(bytes.TrimSpace(body.GetData()), line); err != nil {
			return nil, fmt.Errorf("read the report: %w", err)
		}
		if p := line.GetProgress(); p != nil && show {
			fmt.Fprintf(cmd.ErrOrStderr(), "\r\x1b[K%d of %d decisions", p.Done, p.Total)
		}
		if line.GetReport() != nil {
			if show {
				fmt.Fprint(cmd.ErrOrStderr(), "\r\x1b[K")
			}
			return line, nil
		}
	}
}

func printBacktest(w io.Writer, r *policyv1.BacktestReport) error {
	p := newPainter(w)
	p.printf("%s  %s to %s\n", p.bold(count(int(r.Signals), "signal")), stamp(r.Since), stamp(r.Until))
	p.printf("%s another way, %d the same way by another rule", p.bold(fmt.Sprintf("%d go", r.Changed)), r.OtherRule)
	if r.Withdrawn > 0 {
		p.printf("; %d more are withdrawn", r.Withdrawn)
	}
	p.printf("\n\n")
	counts := func(heading string, list []*policyv1.BacktestCount) error {
		if len(list) == 0 {
			return nil
		}
		var rows [][]string
		for _, c := range list {
			rows = append(rows, []string{c.Name, fmt.Sprint(c.Before), fmt.Sprint(c.After), fmt.Sprintf("%+d", int64(c.After)-int64(c.Before))})
		}
		if err := table(w, []string{heading, "before", "after", "change"}, rows); err != nil {
			return err
		}
		p.printf("\n")
		return nil
	}
	if err := errors.Join(counts("route", r.Routes), counts("rule", r.Rules), counts("reviews on", newestDays(r.Reviews))); err != nil {
		return err
	}
	p.printf("%s  %.1f hours before, %.1f after  %s\n\n", p.bold("Work"), r.GetCost().GetHoursBefore(), r.GetCost().GetHoursAfter(), p.dim(minutesOf(r.GetCost())))
	for _, c := range r.Changes {
		way := fmt.Sprintf("%s → %s", orNothing(strings.Join(c.Before, ", ")), orNothing(strings.Join(c.After, ", ")))
		if c.PriorityAfter != "" {
			way += fmt.Sprintf("  (priority %s → %s)", c.PriorityBefore, c.PriorityAfter)
		}
		p.printf("%s  %s\n", p.bold(count(int(c.Signals), "signal")), way)
		for _, e := range c.Examples {
			p.printf("  %s  %s → %s  %s\n", e.SignalId, e.RuleBefore, e.RuleAfter, p.dim("session "+oneLine(e.SessionId, 40)))
		}
	}
	for _, n := range r.Notes {
		p.block(0, "note", n)
	}
	return nil
}

// newestDays are the days that fit on a screen.
func newestDays(days []*policyv1.BacktestCount) []*policyv1.BacktestCount {
	const most = 14
	return days[max(0, len(days)-most):]
}

func minutesOf(c *policyv1.BacktestCost) string {
	var parts []string
	for _, route := range sortedKeys(c.GetMinutes()) {
		parts = append(parts, fmt.Sprintf("%s %g", route, c.GetMinutes()[route]))
	}
	return "minutes for a signal: " + strings.Join(parts, ", ")
}

// printFacts writes the facts of a decision, a group a line.
func printFacts(p *painter, indent int, facts string) {
	var groups map[string]json.RawMessage
	if json.Unmarshal([]byte(facts), &groups) != nil {
		p.block(indent, "facts", facts)
		return
	}
	label := "facts"
	for _, name := range sortedKeys(groups) {
		var fields map[string]json.RawMessage
		var parts []string
		if json.Unmarshal(groups[name], &fields) != nil {
			parts = append(parts, string(groups[name]))
		}
		for _, field := range sortedKeys(fields) {
			switch value := string(fields[field]); value {
			case `""`, "0", "false", "[]", "{}", "null":
			default:
				parts = append(parts, field+" "+strings.Trim(value, `"`))
			}
		}
		if len(parts) > 0 {
			p.block(indent, label, name+": "+strings.Join(parts, ", "))
			label = ""
		}
	}
}
