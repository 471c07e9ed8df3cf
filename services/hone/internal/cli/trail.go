package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
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
	search := newSearch()
	var full bool
	cmd := &cobra.Command{
		Use:   "trail [SESSION]",
		Short: "Show a session: what was said, what users made of it, and what followed",
		Long: `Show a session: each turn with what produced it, the feedback on it, the signals read from that with
their evidence, the decisions on those, and what came of them. What feedback is about is marked in the answer.

With --search or a condition it finds sessions instead.`,
		Example: `  hone trail s-1
  hone trail s-1 --full
  hone trail s-1 --json | jq .signals
  hone trail --search "worn shoes" --category outdated --since 90d`,
		Args: cobra.MaximumNArgs(1),
		RunE: g.connected(func(cmd *cobra.Command, args []string, conn *grpc.ClientConn) error {
			if len(args) == 0 {
				if !search.set(cmd) {
					return errors.New("want a session, or --search TEXT, or another condition (hone trail --help)")
				}
				return g.printSearch(cmd, conn, search)
			}
			if search.set(cmd) {
				return errors.New("conditions are for a search: leave out the session, or them")
			}
			t, err := wholeTrail(cmd.Context(), conn, args[0])
			if err != nil {
				return explain(err)
			}
			if g.json {
				return printMessage(cmd.OutOrStdout(), t)
			}
			printTrail(newPainter(cmd.OutOrStdout()), t, full)
			return nil
		}),
	}
	cmd.Flags().BoolVar(&full, "full", false, "print texts whole, and withdrawn signals and replaced decisions")
	search.flags(cmd)
	return cmd
}

// wholeTrail reads all pages of a session.
func wholeTrail(ctx context.Context, conn *grpc.ClientConn, session string) (*trailv1.Trail, error) {
	client := trailv1.NewTrailServiceClient(conn)
	var t *trailv1.Trail
	seen := map[string]bool{}
	req := &trailv1.GetSessionRequest{SessionId: session}
	for {
		resp, err := client.GetSession(ctx, req)
		if err != nil {
			return nil, err
		}
		page := resp.Trail
		if t == nil {
			t = page
			for _, s := range page.Signals {
				seen[s.SignalId] = true
			}
		} else {
			t.Events = append(t.Events, page.Events...)
			// An interaction of several events may be on two pages.
			fresh := map[string]bool{}
			for _, s := range page.Signals {
				if !seen[s.SignalId] {
					seen[s.SignalId], fresh[s.SignalId] = true, true
					t.Signals = append(t.Signals, s)
				}
			}
			for _, d := range page.Decisions {
				if fresh[d.SignalId] {
					t.Decisions = append(t.Decisions, d)
				}
			}
			for _, o := range page.Outcomes {
				if fresh[o.SignalId] {
					t.Outcomes = append(t.Outcomes, o)
				}
			}
		}
		if req.PageToken = resp.NextPageToken; req.PageToken == "" {
			return t, nil
		}
	}
}

// printTrail writes each turn with what belongs to it, then what is about the
// session as a whole.
func printTrail(p *painter, t *trailv1.Trail, full bool) {
	p.printf("%s  %s\n\n", p.bold("session "+clean(t.SessionId)), p.dim(joined(" · ", "project "+t.ProjectId, stamp(t.StartedAt)+" UTC",
		lasted(t), count(len(t.Events), "event"), count(len(t.Signals), "signal"), count(len(t.Decisions), "decision"))))

	v := &trailView{painter: p, full: full, about: map[string]*exchange{}, decisions: map[string][]*policyv1.Decision{}, outcomes: map[string][]*trailv1.Outcome{}}
	for _, e := range t.Events {
		v.of(e.InteractionId).add(e)
	}
	for _, s := range t.Signals {
		a := v.of(s.InteractionId)
		a.signals = append(a.signals, s)
	}
	for _, d := range t.Decisions {
		v.decisions[d.SignalId] = append(v.decisions[d.SignalId], d)
	}
	for _, o := range t.Outcomes {
		v.outcomes[o.SignalId] = append(v.outcomes[o.SignalId], o)
	}
	turn := 0
	for _, id := range v.order {
		if a := v.about[id]; len(a.turns) > 0 {
			turn++
			v.turn(turn, a)
			p.printf("\n")
		}
	}
	for _, id := range v.order {
		if a := v.about[id]; len(a.turns) == 0 {
			title := "about the session"
			if id != "" {
				title = "about " + clean(id) + ", which has not arrived"
			}
			p.printf("%s\n", p.bold(title))
			v.reactions(a)
			p.printf("\n")
		}
	}
}

// trailView is a trail, sorted by interaction.
type trailView struct {
	*painter
	full      bool
	about     map[string]*exchange
	order     []string // interactions, as they first appear
	decisions map[string][]*policyv1.Decision
	outcomes  map[string][]*trailv1.Outcome
}

// exchange is what a session says about one interaction.
type exchange struct {
	turns     []*eventv1.Event // interactions: several where parts came apart
	reactions []*eventv1.Event
	signals   []*signalv1.Signal
}

func (v *trailView) of(interaction string) *exchange {
	a := v.about[interaction]
	if a == nil {
		a = &exchange{}
		v.about[interaction] = a
		v.order = append(v.order, interaction)
	}
	return a
}

func (a *exchange) add(e *eventv1.Event) {
	if e.GetInteraction() != nil {
		a.turns = append(a.turns, e)
	} else {
		a.reactions = append(a.reactions, e)
	}
}

// cut shortens a text unless all is asked for.
func (v *trailView) cut(s string, n int) string {
	if v.full {
		return s
	}
	if r := []rune(s); len(r) > n {
		return string(r[:n]) + "… (" + count(len(r)-n, "more character") + ", --full)"
	}
	return s
}

// cutLine is one line of a text unless all is asked for.
func (v *trailView) cutLine(s string, n int) string {
	if v.full {
		return s
	}
	return oneLine(s, n)
}

const trailIndent = 10

func (v *trailView) turn(turn int, a *exchange) {
	p := v.painter
	for n, e := range a.turns {
		i := e.GetInteraction()
		tokens := ""
		if i.InputTokens+i.OutputTokens > 0 {
			tokens = fmt.Sprintf("%d→%d tokens", i.InputTokens, i.OutputTokens)
		}
		latency := ""
		if i.LatencyMs > 0 {
			latency = fmt.Sprintf("%d ms", i.LatencyMs)
		}
		title := fmt.Sprintf("turn %d  %s", turn, clean(e.InteractionId))
		if n > 0 {
			title += ", another part of it"
		}
		p.printf("%s  %s\n", clock(e), p.bold(title))
		p.note(trailIndent, clean(joined(" · ", joined(" ", e.UserRole, e.UserId), e.Environment, i.Language, joined(" ", i.Model, i.ModelVersion),
			prefixed("prompt ", i.PromptVersion), prefixed("patches ", strings.Join(i.AppliedPatches, ", ")), latency, tokens,
			prefixed("ended by ", i.FinishReason), prefixed("instead of ", i.AlternativeTo), tags(e.Tags))))
		p.block(trailIndent, "system", v.cutLine(i.SystemContext, 240))
		for _, r := range i.Retrieved {
			score := ""
			if r.Score != nil {
				score = fmt.Sprintf("%.2f", *r.Score)
			}
			p.block(trailIndent, "retrieved", joined("  ", r.Source, score, v.cutLine(r.Text, 160)))
		}
		p.block(trailIndent, "user", v.cut(i.Query, 2000))
		for _, c := range i.Tools {
			p.block(trailIndent, "tool", joined("  ", c.Name+"("+v.cutLine(c.Arguments, 80)+")", prefixed("→ ", v.cutLine(c.Result, 80)), prefixed("error ", c.Error)))
		}
		marks := marksOf(a.signals)
		text, marked := mark(i.Output, marks)
		p.block(trailIndent, "assistant", v.cut(text, 2000))
		if marked {
			for k, m := range marks {
				p.block(trailIndent, superscript(k+1)+" "+m.Kind, joined(" → ", "“"+v.cutLine(m.Quote, 80)+"”", v.cutLine(m.Text+m.Tag, 160)))
			}
		}
	}
	v.reactions(a)
}

func tags(m map[string]string) string {
	var out []string
	for _, k := range sortedKeys(m) {
		out = append(out, k+"="+m[k])
	}
	return strings.Join(out, " ")
}

// lasted says how long a session was.
func lasted(t *trailv1.Trail) string {
	d := t.LastAt.AsTime().Sub(t.StartedAt.AsTime()).Round(time.Second)
	if d <= 0 {
		return ""
	}
	return "over " + d.String()
}

// marksOf are the ranges of the answer that signals are about, by place.
func marksOf(signals []*signalv1.Signal) []*eventv1.Edit {
	var out []*eventv1.Edit
	for _, s := range signals {
		if !s.Withdrawn {
			out = append(out, s.Edits...)
		}
	}
	slices.SortStableFunc(out, func(a, b *eventv1.Edit) int { return cmp.Or(cmp.Compare(a.Start, b.Start), cmp.Compare(a.End, b.End)) })
	return out
}

func (v *trailView) reactions(a *exchange) {
	p := v.painter
	for _, e := range a.reactions {
		p.printf("%s  %s\n", clock(e), joined("  ", p.bold(e.Type), clean(describe(e))))
		f := e.GetFeedback()
		p.block(trailIndent, "comment", v.cut(f.GetComment(), 1000))
		p.block(trailIndent, "correction", v.cut(f.GetCorrection(), 1000))
		if e.GetFeedback() != nil && len(a.turns) == 0 {
			for _, edit := range f.GetEdits() {
				p.block(trailIndent, edit.Kind, joined(" → ", "“"+span(edit)+"”", edit.Text+edit.Tag))
			}
		}
		p.block(trailIndent, "text", v.cutLine(e.GetBehavior().GetText(), 240))
	}
	for _, s := range a.signals {
		if v.full || !s.Withdrawn {
			v.signal(s)
		}
	}
}

func (v *trailView) signal(s *signalv1.Signal) {
	p := v.painter
	state := ""
	switch {
	case s.Withdrawn:
		state = "withdrawn"
	case s.Waiting:
		state = "waiting for its interaction"
	}
	p.printf("          %s  %s\n", p.polarity(s.Polarity, "● "+s.Polarity),
		joined(" · ", s.Kind, strings.Join(s.Categories, ", "), prefixed("severity ", s.Severity), fmt.Sprintf("confidence %.2f", s.Confidence), state))
	p.note(trailIndent+2, fmt.Sprintf("%s revision %d", s.SignalId, s.Revision))
	for i, e := range s.Evidence {
		label := ""
		if i == 0 {
			label = "because"
		}
		sure := ""
		if e.Confidence > 0 {
			sure = fmt.Sprintf("(%.2f)", e.Confidence)
		}
		p.block(trailIndent+2, label, joined(" ", e.Detail, sure))
	}
	for _, d := range v.decisions[s.SignalId] {
		if d.Superseded && !v.full {
			continue
		}
		routes := strings.Join(d.Routes, ", ")
		if routes == "" {
			routes = "nothing to do"
		}
		label := "→ " + routes
		if d.Superseded {
			label += " (replaced)"
		}
		p.printf("            %s  %s\n", p.bold(label), p.dim("rule "+d.Rule))
		p.block(trailIndent+2, "reason", d.Reason)
		if v.full {
			p.note(trailIndent+2, joined(" · ", d.DecisionId, d.PolicyVersion, prefixed("case ", d.CaseId)))
		}
	}
	for _, o := range v.outcomes[s.SignalId] {
		kind := strings.ReplaceAll(strings.TrimPrefix(o.Kind, "product_"), "_", " ")
		p.block(trailIndent+2, kind, joined(" · ", p.bold(o.State), v.cutLine(o.Detail, 160), prefixed("by ", o.By), o.Id))
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

// span is the text that an edit is about, or where it is.
func span(e *eventv1.Edit) string {
	if e.Quote != "" {
		return e.Quote
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
