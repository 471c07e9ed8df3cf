package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	trailv1 "github.com/honeloop/hone/proto/gen/go/hone/trail/v1"
)

// search is what to look for, from flags.
type search struct {
	req          *trailv1.SearchSessionsRequest
	since, until string
}

func newSearch() *search { return &search{req: &trailv1.SearchSessionsRequest{}} }

func (s *search) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&s.req.Text, "search", "", "part of a query, an answer, a comment or a correction")
	f.StringVar(&s.req.UserId, "user", "", "user id")
	f.StringVar(&s.req.UserRole, "role", "", "role of the user")
	f.StringVar(&s.req.Environment, "environment", "", "where it ran, such as production")
	f.StringVar(&s.req.Model, "model", "", "model")
	f.StringVar(&s.req.ModelVersion, "model-version", "", "version of the model")
	f.StringVar(&s.req.PromptVersion, "prompt-version", "", "version of the prompt")
	f.StringVar(&s.req.Language, "language", "", "language of the query, such as en")
	f.StringVar(&s.req.Category, "category", "", "category of a signal, such as outdated")
	f.StringVar(&s.req.Polarity, "polarity", "", "positive, negative or neutral: of a signal")
	f.Uint32VarP(&s.req.PageSize, "number", "n", 20, "most sessions to list, at most 100")
	f.StringVar(&s.req.PageToken, "page", "", "the token that the page before ended with")
	timeFlags(cmd, &s.since, &s.until)
}

// timeFlags are the flags that read between fills in.
func timeFlags(cmd *cobra.Command, since, until *string) {
	cmd.Flags().StringVar(since, "since", "", "from this time on: 90d or 2h before now, or 2026-01-31, or 2026-01-31T09:00:00Z (default 30 days before the end)")
	cmd.Flags().StringVar(until, "until", "", "up to this time (default now)")
}

// set says whether any condition was given.
func (s *search) set(cmd *cobra.Command) bool {
	for _, name := range []string{"search", "user", "role", "environment", "model", "model-version", "prompt-version", "language", "category", "polarity", "since", "until", "number", "page"} {
		if cmd.Flags().Changed(name) {
			return true
		}
	}
	return false
}

// between reads two times; what is empty is nil.
func between(since, until string) (from, to *timestamppb.Timestamp, err error) {
	read := func(flag, s string) (*timestamppb.Timestamp, error) {
		if s == "" {
			return nil, nil
		}
		t, err := pastTime(s, time.Now())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", flag, err)
		}
		return timestamppb.New(t), nil
	}
	if from, err = read("--since", since); err != nil {
		return nil, nil, err
	}
	to, err = read("--until", until)
	return from, to, err
}

func (g *global) printSearch(cmd *cobra.Command, conn *grpc.ClientConn, s *search) error {
	var err error
	if s.req.From, s.req.To, err = between(s.since, s.until); err != nil {
		return err
	}
	resp, err := trailv1.NewTrailServiceClient(conn).SearchSessions(cmd.Context(), s.req)
	if err != nil {
		return explain(err)
	}
	if g.json {
		return printMessage(cmd.OutOrStdout(), resp)
	}
	p := newPainter(cmd.OutOrStdout())
	if len(resp.Sessions) == 0 {
		p.printf("No session matches within this time (--since, --until; 30 days where nothing is said).\n")
		return nil
	}
	for _, f := range resp.Sessions {
		opinions := joined(" ", some("+", f.Positive), some("−", f.Negative), some("±", f.Neutral))
		p.printf("%s  %s  %s\n", stamp(f.MatchedAt), p.bold(clean(f.SessionId)), joined(" · ", count(int(f.Interactions), "turn"), opinions, strings.Join(f.Categories, ", ")))
		p.note(4, clean(joined(" · ", strings.Join(f.UserRoles, ", "), strings.Join(f.UserIds, ", "), strings.Join(f.Models, ", "), strings.Join(f.Environments, ", "))))
		p.printf("    %s\n", oneLine(f.FirstQuery, p.width-4))
		if f.Match != "" && f.Match != f.FirstQuery {
			p.printf("    %s\n", p.highlight(oneLine(f.Match, p.width-4), s.req.Text))
		}
	}
	if resp.NextPageToken != "" {
		p.printf("\nThere are more: --page %s\n", resp.NextPageToken)
	}
	return nil
}

func some(sign string, n uint32) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("%s%d", sign, n)
}

// highlight makes the first place where found stands bold.
func (p *painter) highlight(line, found string) string {
	at := strings.Index(strings.ToLower(line), strings.ToLower(found))
	if found == "" || at < 0 || at+len(found) > len(line) || !strings.EqualFold(line[at:at+len(found)], found) {
		return line
	}
	return line[:at] + p.bold(line[at:at+len(found)]) + line[at+len(found):]
}
