package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	recallv1 "github.com/honeloop/hone/proto/gen/go/hone/recall/v1"
)

func newRecallCommand(g *global) *cobra.Command {
	var k uint32
	var minSimilarity, minRelevance float64
	var maxTokens uint32
	var before, session string
	metadata := &recallv1.RecallMetadata{}
	cmd := &cobra.Command{
		Use:   "recall TEXT",
		Short: "Ask what is known about a question, as an application would before it answers",
		Example: `  hone recall "Can I send back shoes I have worn?"` + "\n" + `  hone recall -k 5 --json "Where is my parcel?"` + "\n" +
			`  hone recall --session s-42 --model-version 2026-10 --tag plan=pro "and for shoes?"`,
		Args: cobra.MinimumNArgs(1),
		RunE: g.connected(func(cmd *cobra.Command, args []string, conn *grpc.ClientConn) error {
			req := &recallv1.RecallRequest{Query: strings.Join(args, " "), K: k, MaxTokens: maxTokens, Context: before, SessionId: session, Metadata: metadata}
			if cmd.Flags().Changed("min-relevance") {
				req.MinRelevance = &minRelevance
			}
			if cmd.Flags().Changed("min-similarity") {
				req.MinSimilarity = &minSimilarity
			}
			resp, err := recallv1.NewRecallServiceClient(conn).Recall(cmd.Context(), req)
			if err != nil {
				return explain(err)
			}
			if g.json {
				return printMessage(cmd.OutOrStdout(), resp)
			}
			printRecall(newPainter(cmd.OutOrStdout()), resp)
			return nil
		}),
	}
	cmd.Flags().Uint32VarP(&k, "k", "k", 0, "most cases to return (default 3)")
	cmd.Flags().Float64Var(&minRelevance, "min-relevance", 0, "probability that the question is about a known problem below which nothing is returned (default the project's, 0.75)")
	cmd.Flags().Float64Var(&minSimilarity, "min-similarity", 0, "cosine similarity below which a case is not returned")
	cmd.Flags().Uint32Var(&maxTokens, "max-tokens", 0, "most tokens of the prompt block (in --json)")
	cmd.Flags().StringVar(&before, "context", "", "what the user asked before, for a question of at most three words that goes on from it")
	cmd.Flags().StringVar(&session, "session", "", "session of the question, whose earlier questions stand for --context")
	for _, f := range []struct {
		to         *string
		name, what string
	}{
		{&metadata.Model, "model", "model"}, {&metadata.ModelVersion, "model-version", "version of the model"},
		{&metadata.PromptVersion, "prompt-version", "version of the prompt"}, {&metadata.Environment, "environment", "environment"},
		{&metadata.Language, "language", "language of the question"},
	} {
		cmd.Flags().StringVar(f.to, f.name, "", f.what+"; what was seen only with another one comes later")
	}
	cmd.Flags().StringToStringVar(&metadata.Tags, "tag", nil, "tag, as name=value; the same")
	return cmd
}

func printRecall(p *painter, resp *recallv1.RecallResponse) {
	if resp.SessionContext != "" {
		p.printf("%s\n", p.dim("after: "+oneLine(resp.SessionContext, p.width-8)))
	}
	if len(resp.Guidance) == 0 {
		p.printf("Nothing like it is known (%.0f %%).\n", 100*resp.Known)
		return
	}
	for _, item := range resp.Guidance {
		p.printf("%s  %s\n", p.bold(fmt.Sprintf("%3.0f %%  %s", 100*item.Relevance, oneLine(item.Case.Title, p.width-8))),
			p.dim(fmt.Sprintf("%s  similarity %.2f", item.Case.CaseId, item.Similarity)))
		printCaseBody(p, item.Case)
		p.block(6, "differs", prefixed("seen only with another ", strings.Join(item.Differs, ", ")))
		for _, patch := range item.Patches {
			p.block(6, "patch", fmt.Sprintf("%s@%d  %s", patch.PatchId, patch.Version, patch.Text))
		}
	}
	for _, a := range resp.Positives {
		p.printf("%s  %s\n", p.bold(oneLine("approved  "+a.Query, p.width-8)), p.dim(fmt.Sprintf("%s  similarity %.2f", a.CaseId, a.Similarity)))
		p.block(6, "answer", a.Answer)
	}
}

func printCaseBody(p *painter, c *casesv1.Case) {
	p.block(6, "state", joined(" · ", c.State, prefixed("severity ", c.Severity), count(int(c.Negatives), "complaint"),
		count(int(c.Users), "user"), c.Trend, "last seen "+stamp(c.LastSeen)))
	p.block(6, "assigned", c.Assignee)
	p.block(6, "merged", prefixed("into ", c.MergedInto))
	p.block(6, "summary", c.Summary)
	p.block(6, "categories", counts(c.Categories))
	for _, complaint := range c.Complaints {
		p.block(6, "complaint", complaint)
	}
	p.block(6, "answer", joined("  ", c.ApprovedAnswer, prefixed("— approved by ", c.ApprovedBy)))
	p.block(6, "clarified", c.Clarification)
}

// counts is a map of counts in words, in the order of the names.
func counts(m map[string]uint32) string {
	var parts []string
	for _, k := range sortedKeys(m) {
		parts = append(parts, fmt.Sprintf("%s %d", k, m[k]))
	}
	return strings.Join(parts, ", ")
}
