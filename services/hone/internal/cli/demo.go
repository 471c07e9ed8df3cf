package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"github.com/honeloop/hone/examples/shop"
	"github.com/honeloop/hone/services/hone/internal/endpoints"

	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	curationv1 "github.com/honeloop/hone/proto/gen/go/hone/curation/v1"
)

const (
	demoQuestion   = "Is it okay to send back shoes that I wore for a few days?"
	demoCorrection = "You can return unworn shoes within 30 days of delivery. Worn shoes cannot be returned, unless they are faulty."
	demoReviewer   = "Ada of customer service"
	// demoWait bounds how long the pipeline may take to come to rest.
	demoWait = 2 * time.Minute
)

func newDemoCommand(g *global) *cobra.Command {
	var once bool
	var sessions int
	var seed uint64
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Run a small shop's assistant and its customers on the whole pipeline",
		Long: `Run a small shop's assistant, whose answers have scripted faults, and its customers on the
whole pipeline. It shows what came in, the cases that were found, where they were
routed, and the same question before and after a reviewer's correction. Then it
leaves Hone running to look around in, unless --once is given.

It starts anew in the folder "demo" of --dir each time.`,
		Example: "  hone demo\n  hone demo --once --sessions 1000",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if g.json {
				return errors.New("the demo is for people: --json is not for it")
			}
			dir := filepath.Join(g.dir, "demo")
			if err := os.RemoveAll(dir); err != nil {
				return fmt.Errorf("start anew: %w", err)
			}
			p := newPainter(cmd.OutOrStdout())
			p.printf("Starting Hone in %s\n\n", dir)
			h, err := startHone(cmd.Context(), dir, "auto", cmd.OutOrStdout())
			if err != nil {
				return err
			}
			d := &demo{p: p, dir: dir, e: h.Endpoints, hone: shop.Hone{URL: h.Endpoints.HTTP, Key: h.Endpoints.SecretKey, HTTP: http.DefaultClient}}
			err = d.run(cmd.Context(), sessions, seed, cmd.ErrOrStderr())
			if err != nil || once {
				return errors.Join(err, h.Stop())
			}
			printScreen(p, dir, h, 0)
			p.printf("  Look around:  export HONE_DIR=%s\n", dir)
			p.printf("                hone trail %s\n                hone case list\n                hone review list\n                hone dataset export --format dpo\n\n", d.sample)
			return waitAndStop(cmd.Context(), h, cmd.ErrOrStderr())
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "stop at the end")
	cmd.Flags().IntVar(&sessions, "sessions", 300, "how many sessions")
	cmd.Flags().Uint64Var(&seed, "seed", 1, "seed of the customers")
	return cmd
}

type demo struct {
	p      *painter
	dir    string
	e      endpoints.Endpoints
	hone   shop.Hone
	sample string // a session that is worth a look
}

func (d *demo) run(ctx context.Context, sessions int, seed uint64, progressTo io.Writer) error {
	d.title("1. Customers talk to the shop's assistant")
	bar := newProgress(progressTo, sessions, "sessions")
	done := 0
	sum, err := shop.Simulate(ctx, d.hone, shop.Options{Sessions: sessions, Seed: seed, End: time.Now(), Progress: func(n int) {
		bar.Add(n - done)
		done = n
	}})
	bar.Close()
	if err != nil {
		return err
	}
	sent := sum.Interactions + sum.Feedback + sum.Behaviors
	d.p.printf("%d sessions sent: %d questions with their answers, %d times explicit feedback, %d times something that customers did\n",
		sum.Sessions, sum.Interactions, sum.Feedback, sum.Behaviors)
	if err := d.settle(ctx, sent); err != nil {
		return err
	}
	if err := d.table(ctx, `SELECT polarity, category, count() AS signals, uniqExact(user_id) AS users, bar(signals, 0, 60, 24) AS " "
		FROM hone.signals GROUP BY polarity, category ORDER BY polarity, signals DESC`); err != nil {
		return err
	}
	conn, err := dial(d.e)
	if err != nil {
		return err
	}
	defer conn.Close()

	d.title("2. What they complain about, as cases")
	cases, err := casesv1.NewCaseServiceClient(conn).ListCases(ctx, &casesv1.ListCasesRequest{Limit: 12})
	if err != nil {
		return explain(err)
	}
	var rows [][]string
	for _, c := range cases.Cases {
		rows = append(rows, []string{oneLine(c.Title, 50), fmt.Sprint(c.Negatives), fmt.Sprint(c.Users), c.Severity, counts(c.Categories)})
	}
	if err := table(d.p.w, []string{"case", "complaints", "users", "severity", "categories"}, rows); err != nil {
		return err
	}

	d.title("3. Where they were routed, and by which rule of the policy")
	if err := d.table(ctx, `SELECT multiIf(hold_until > 0, 'held for now', empty(routes), 'nothing to do', arrayStringConcat(routes, ' + ')) AS route, rule, count() AS signals, bar(signals, 0, 80, 24) AS " "
		FROM hone.decisions WHERE NOT superseded GROUP BY route, rule ORDER BY route, signals DESC`); err != nil {
		return err
	}
	return d.correct(ctx, conn)
}

// correct asks a question, has a reviewer correct its case, and asks again.
func (d *demo) correct(ctx context.Context, conn *grpc.ClientConn) error {
	d.title("4. A question before and after a reviewer's correction")
	before, err := d.ask(ctx)
	if err != nil {
		return err
	}
	if len(before) == 0 {
		return errors.New("the question's case was not found")
	}
	caseID := before[0].Case.ID
	reviews := curationv1.NewReviewServiceClient(conn)
	open, err := reviews.ListReviews(ctx, &curationv1.ListReviewsRequest{Limit: 1000})
	if err != nil {
		return explain(err)
	}
	for _, r := range open.Reviews {
		if r.CaseId != caseID {
			continue
		}
		d.sample = r.Signal.GetSessionId()
		d.p.printf("\n%s takes the review of this case that a customer's comment brought:\n", demoReviewer)
		d.p.block(2, "asked", r.Signal.GetInteraction().GetQuery())
		d.p.block(2, "answered", r.Signal.GetInteraction().GetOutput())
		d.p.block(2, "comment", r.Signal.GetComment())
		d.p.block(2, "corrects to", demoCorrection)
		if _, err := reviews.DecideReview(ctx, &curationv1.DecideReviewRequest{ReviewId: r.ReviewId, Verdict: "correct", Answer: demoCorrection, Reviewer: demoReviewer}); err != nil {
			return explain(err)
		}
		if err := d.untilApproved(ctx); err != nil {
			return err
		}
		d.p.printf("\n")
		_, err := d.ask(ctx)
		return err
	}
	return fmt.Errorf("no open review is about case %s", caseID)
}

// ask shows what the assistant answers, and what Hone told it.
func (d *demo) ask(ctx context.Context) ([]shop.Known, error) {
	known, err := d.hone.Recall(ctx, demoQuestion)
	if err != nil {
		return nil, err
	}
	answer, helped, err := shop.Assistant{Hone: d.hone}.Answer(ctx, demoQuestion)
	if err != nil {
		return nil, err
	}
	d.p.block(2, "customer", demoQuestion)
	for _, k := range known[:min(1, len(known))] {
		d.p.block(2, "hone knows", fmt.Sprintf("%q: %s, similarity %.2f, %s", k.Case.Title, count(k.Case.Negatives, "complaint"), k.Similarity,
			map[bool]string{true: "with an approved answer", false: "no approved answer yet"}[k.Case.ApprovedAnswer != ""]))
	}
	mark := d.p.polarity("negative", "✗ ")
	if helped {
		mark = d.p.polarity("positive", "✓ ")
	}
	d.p.printf("  %s%s%s\n", d.p.dim(fmt.Sprintf("%-12s", "assistant")), mark, answer)
	return known, nil
}

func (d *demo) untilApproved(ctx context.Context) error {
	return d.until(ctx, "the reviewer's answer to be recallable", func() (bool, error) {
		known, err := d.hone.Recall(ctx, demoQuestion)
		return len(known) > 0 && known[0].Case.ApprovedAnswer != "", err
	})
}

// settle waits until every event is in ClickHouse, and a decision on every
// signal as it stands.
func (d *demo) settle(ctx context.Context, events int) error {
	start := time.Now()
	err := d.until(ctx, "the pipeline to come to rest", func() (bool, error) {
		var out bytes.Buffer
		if err := queryClickHouse(ctx, d.e, `SELECT (SELECT count() FROM hone.events WHERE type != 'timer') AS events,
			(SELECT count() FROM hone.signals AS s LEFT ANTI JOIN hone.decisions AS d ON s.signal_id = d.signal_id AND s.revision = d.signal_revision) AS undecided`, nil, "JSONEachRow", &out); err != nil {
			return false, err
		}
		var got struct{ Events, Undecided json.Number }
		if err := json.Unmarshal(out.Bytes(), &got); err != nil {
			return false, fmt.Errorf("count: %w", err)
		}
		return got.Events.String() == fmt.Sprint(events) && got.Undecided.String() == "0", nil
	})
	if err == nil {
		d.p.printf("all of it was read, judged, and decided %s after the last was sent:\n\n", time.Since(start).Round(10*time.Millisecond))
	}
	return err
}

func (d *demo) until(ctx context.Context, what string, ok func() (bool, error)) error {
	ctx, cancel := context.WithTimeoutCause(ctx, demoWait, fmt.Errorf("waited %s for %s: see %s", demoWait, what, filepath.Join(d.dir, "logs")))
	defer cancel()
	for {
		done, err := ok()
		if err != nil || done {
			return err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (d *demo) table(ctx context.Context, query string) error {
	format := "PrettyCompactNoEscapes"
	if d.p.color {
		format = "PrettyCompact"
	}
	return queryClickHouse(ctx, d.e, query, nil, format, d.p.w)
}

func (d *demo) title(s string) {
	d.p.printf("\n%s\n%s\n\n", d.p.bold(s), d.p.dim(strings.Repeat("─", len([]rune(s)))))
}
