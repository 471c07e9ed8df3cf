package cli

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	policyv1 "github.com/honeloop/hone/proto/gen/go/hone/policy/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"
	trailv1 "github.com/honeloop/hone/proto/gen/go/hone/trail/v1"
)

func newTrailCommand(g *global) *cobra.Command {
	return &cobra.Command{
		Use:     "trail SESSION",
		Short:   "Show a session: what was said, what users made of it, and what followed",
		Example: "  hone trail s-1\n  hone trail s-1 --json | jq .signals",
		Args:    cobra.ExactArgs(1),
		RunE: g.connected(func(cmd *cobra.Command, args []string, conn *grpc.ClientConn) error {
			resp, err := trailv1.NewTrailServiceClient(conn).GetSession(cmd.Context(), &trailv1.GetSessionRequest{SessionId: args[0]})
			if err != nil {
				return explain(err)
			}
			if g.json {
				return printMessage(cmd.OutOrStdout(), resp.Trail)
			}
			printTrail(newPainter(cmd.OutOrStdout()), resp.Trail)
			return nil
		}),
	}
}

// printTrail writes each turn with what belongs to it, then what is about the
// session as a whole.
func printTrail(p *painter, t *trailv1.Trail) {
	p.printf("%s  %s\n\n", p.bold("session "+clean(t.SessionId)), p.dim(joined(" · ", "project "+t.ProjectId, stamp(t.StartedAt)+" UTC",
		count(len(t.Events), "event"), count(len(t.Signals), "signal"), count(len(t.Decisions), "decision"))))

	decisions := map[string][]*policyv1.Decision{}
	for _, d := range t.Decisions {
		decisions[d.SignalId] = append(decisions[d.SignalId], d)
	}
	shown := map[string]bool{}
	turn := 0
	for _, e := range t.Events {
		if e.GetInteraction() == nil {
			continue
		}
		turn++
		shown[e.InteractionId] = true
		printTurn(p, turn, e)
		printAbout(p, t, e.InteractionId, decisions)
		p.printf("\n")
	}
	for _, e := range t.Events {
		if !shown[e.InteractionId] {
			shown[e.InteractionId] = true
			title := "about the session"
			if e.InteractionId != "" {
				title = "about " + clean(e.InteractionId) + ", which has not arrived"
			}
			p.printf("%s\n", p.bold(title))
			printAbout(p, t, e.InteractionId, decisions)
			p.printf("\n")
		}
	}
}

const trailIndent = 10

func printTurn(p *painter, turn int, e *eventv1.Event) {
	i := e.GetInteraction()
	tokens := ""
	if i.InputTokens+i.OutputTokens > 0 {
		tokens = fmt.Sprintf("%d→%d tokens", i.InputTokens, i.OutputTokens)
	}
	latency := ""
	if i.LatencyMs > 0 {
		latency = fmt.Sprintf("%d ms", i.LatencyMs)
	}
	p.printf("%s  %s  %s\n", clock(e), p.bold(fmt.Sprintf("turn %d  %s", turn, clean(e.InteractionId))),
		p.dim(clean(joined(" · ", joined(" ", e.UserRole, e.UserId), e.Environment, joined(" ", i.Model, i.ModelVersion),
			prefixed("prompt ", i.PromptVersion), prefixed("patches ", strings.Join(i.AppliedPatches, ", ")), latency, tokens,
			prefixed("instead of ", i.AlternativeTo)))))
	p.block(trailIndent, "system", oneLine(i.SystemContext, 240))
	p.block(trailIndent, "user", i.Query)
	for _, r := range i.Retrieved {
		p.block(trailIndent, "retrieved", joined("  ", r.Source, oneLine(r.Text, 160)))
	}
	for _, c := range i.Tools {
		p.block(trailIndent, "tool", joined("  ", c.Name+"("+oneLine(c.Arguments, 80)+")", prefixed("→ ", oneLine(c.Result, 80)), prefixed("error ", c.Error)))
	}
	p.block(trailIndent, "assistant", i.Output)
}

func printAbout(p *painter, t *trailv1.Trail, interaction string, decisions map[string][]*policyv1.Decision) {
	output := []rune("")
	for _, e := range t.Events {
		if e.InteractionId == interaction && e.GetInteraction() != nil {
			output = []rune(e.GetInteraction().Output)
		}
	}
	for _, e := range t.Events {
		if e.InteractionId != interaction || e.GetInteraction() != nil {
			continue
		}
		p.printf("%s  %s\n", clock(e), joined("  ", p.bold(e.Type), clean(describe(e))))
		f := e.GetFeedback()
		p.block(trailIndent, "comment", f.GetComment())
		p.block(trailIndent, "correction", f.GetCorrection())
		for _, edit := range f.GetEdits() {
			p.block(trailIndent, edit.Kind, joined(" → ", "“"+span(output, edit)+"”", edit.Text+edit.Tag))
		}
		p.block(trailIndent, "text", oneLine(e.GetBehavior().GetText(), 240))
	}
	for _, s := range t.Signals {
		if s.InteractionId == interaction {
			printSignal(p, s, decisions[s.SignalId])
		}
	}
}

func printSignal(p *painter, s *signalv1.Signal, decisions []*policyv1.Decision) {
	state := ""
	switch {
	case s.Withdrawn:
		state = "withdrawn"
	case s.Waiting:
		state = "waiting for its interaction"
	}
	p.printf("          %s  %s  %s\n", p.polarity(s.Polarity, "● "+s.Polarity),
		joined(" · ", s.Kind, strings.Join(s.Categories, ", "), prefixed("severity ", s.Severity), fmt.Sprintf("confidence %.2f", s.Confidence), state),
		p.dim(fmt.Sprintf("%s revision %d", s.SignalId, s.Revision)))
	var because []string
	for _, e := range s.Evidence {
		because = append(because, e.Detail)
	}
	p.block(trailIndent+2, "because", strings.Join(because, "; "))
	for _, d := range decisions {
		routes := strings.Join(d.Routes, ", ")
		if routes == "" {
			routes = "nothing to do"
		}
		label := "→ " + routes
		if d.Superseded {
			label += " (replaced)"
		}
		p.printf("            %s  %s\n", p.bold(label), p.dim(joined(" · ", "rule "+d.Rule, prefixed("case ", d.CaseId), d.PolicyVersion)))
		p.block(trailIndent+2, "reason", d.Reason)
	}
}

// describe says in a line what an event other than an interaction says.
func describe(e *eventv1.Event) string {
	switch {
	case e.GetFeedback() != nil:
		f := e.GetFeedback()
		parts := []string{prefixed("thumb ", f.Thumb)}
		if f.Stars != nil {
			parts = append(parts, strings.Repeat("★", int(min(*f.Stars, 5)))+strings.Repeat("☆", 5-int(min(*f.Stars, 5))))
		}
		if f.Score != nil {
			parts = append(parts, fmt.Sprintf("score %g of %g to %g", f.GetScore(), f.GetMin(), f.GetMax()))
		}
		parts = append(parts, strings.Join(f.Categories, ", "), prefixed("preferred ", f.PreferredInteractionId))
		if f.Retract {
			parts = append(parts, "withdrawn")
		}
		return joined(" · ", append(parts, joined(" ", e.UserRole, e.UserId))...)
	case e.GetBehavior() != nil:
		b := e.GetBehavior()
		parts := []string{joined(" ", b.Kind, b.Name)}
		for _, k := range sortedKeys(b.Properties) {
			parts = append(parts, k+"="+b.Properties[k])
		}
		return joined(" · ", append(parts, joined(" ", e.UserRole, e.UserId))...)
	case e.GetTimer() != nil:
		return joined(" ", e.GetTimer().Kind, e.GetTimer().Subject)
	}
	return ""
}

// span is the text that an edit is about.
func span(output []rune, e *eventv1.Edit) string {
	if e.Quote != "" {
		return e.Quote
	}
	if e.Start < e.End && int(e.End) <= len(output) {
		return string(output[e.Start:e.End])
	}
	return fmt.Sprintf("characters %d to %d", e.Start, e.End)
}

func clock(e *eventv1.Event) string { return e.GetOccurredAt().AsTime().UTC().Format(time.TimeOnly) }

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}
