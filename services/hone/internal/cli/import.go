package cli

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"time"

	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/honeloop/hone/services/hone/internal/importer"

	collectorv1 "github.com/honeloop/hone/proto/gen/go/hone/collector/v1"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
)

const (
	importBatch   = 200 // events in a request
	importWorkers = 4   // requests in flight; a session's events go through one worker, in order
	importErrors  = 20  // refused events that are shown by name
)

func newImportCommand(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "import FORMAT PATH",
		Short: "Send a history file to the collector",
		Long: `Send a history file to the collector. Ids depend on the file alone, so importing
again, or after an interruption, changes nothing that is there.

Formats:`,
		Example: `  hone import iflm ../shared/data/iflm
  hone import open-assistant ../shared/data/open-assistant/en_100_tree.jsonl
  hone import jsonl events.jsonl
  zcat events.jsonl.gz | hone import jsonl -`,
		Args: cobra.ExactArgs(2),
	}
	for _, f := range importer.Formats() {
		cmd.Long += fmt.Sprintf("\n  %-16s%s", f.Name, f.Want)
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		format, err := importer.FormatNamed(args[0])
		if err != nil {
			return err
		}
		conn, err := g.dial()
		if err != nil {
			return err
		}
		defer conn.Close()
		progress := cmd.ErrOrStderr()
		if g.json {
			progress = io.Discard
		}
		result, err := importHistory(cmd.Context(), collectorv1.NewCollectorServiceClient(conn), format, args[1], progress)
		if g.json {
			return errors.Join(err, printJSON(cmd.OutOrStdout(), result))
		}
		for _, r := range result.Errors {
			fmt.Fprintf(cmd.ErrOrStderr(), "refused %s: %s\n", r.Where, r.Error)
		}
		if hidden := result.Rejected - len(result.Errors); hidden > 0 {
			fmt.Fprintf(cmd.ErrOrStderr(), "refused %d more\n", hidden)
		}
		if err != nil {
			return err
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%d events accepted, %d refused, in %s (%.0f events/s)\n",
			result.Accepted, result.Rejected, (time.Duration(result.Seconds * float64(time.Second))).Round(10*time.Millisecond),
			float64(result.Accepted)/max(result.Seconds, 1e-9))
		if result.Rejected > 0 {
			return fmt.Errorf("%d events were refused: mend them and import the file again", result.Rejected)
		}
		return nil
	}
	return cmd
}

type importResult struct {
	Accepted int            `json:"accepted"`
	Rejected int            `json:"rejected"`
	Seconds  float64        `json:"seconds"`
	Errors   []importFailed `json:"errors,omitempty"`
}

type importFailed struct {
	Where string `json:"where"`
	Error string `json:"error"`
}

// importHistory sends a history. A refused event does not stop the others.
func importHistory(ctx context.Context, client collectorv1.CollectorServiceClient, format importer.Format, path string, progress io.Writer) (importResult, error) {
	items, total, err := format.Open(path)
	if err != nil {
		return importResult{}, err
	}
	bar := newProgress(progress, total, "importing")
	defer bar.Close()
	start := time.Now()

	type report struct {
		items   []importer.Item
		results []*collectorv1.EventResult
	}
	reports := make(chan report)
	g, gctx := errgroup.WithContext(ctx)
	workers := make([]chan importer.Item, importWorkers)
	for i := range workers {
		workers[i] = make(chan importer.Item, importBatch)
		g.Go(func() error {
			return sendBatches(gctx, workers[i], func(batch []importer.Item) error {
				results, err := sendWithRetry(gctx, client, batch)
				if err != nil {
					return err
				}
				select {
				case reports <- report{batch, results}:
					return nil
				case <-gctx.Done():
					return gctx.Err()
				}
			})
		})
	}
	g.Go(func() error {
		defer func() {
			for _, w := range workers {
				close(w)
			}
		}()
		for item, err := range items {
			if err != nil {
				return err
			}
			select {
			case workers[shard(item.Event.GetSessionId())] <- item:
			case <-gctx.Done():
				return gctx.Err()
			}
		}
		return nil
	})
	done := make(chan error, 1)
	go func() {
		done <- g.Wait()
		close(reports)
	}()

	var result importResult
	for r := range reports {
		for i, res := range r.results {
			if res.GetError() == nil {
				result.Accepted++
				continue
			}
			result.Rejected++
			if len(result.Errors) < importErrors {
				result.Errors = append(result.Errors, importFailed{r.items[i].Where, res.Error.Field + ": " + res.Error.Message})
			}
		}
		bar.Add(len(r.results))
	}
	result.Seconds = time.Since(start).Seconds()
	if err := <-done; err != nil {
		return result, fmt.Errorf("import stopped after %d events (run it again to go on): %w", result.Accepted, err)
	}
	return result, nil
}

func shard(session string) int {
	h := fnv.New32a()
	h.Write([]byte(session))
	return int(h.Sum32() % importWorkers)
}

func sendBatches(ctx context.Context, in <-chan importer.Item, send func([]importer.Item) error) error {
	var batch []importer.Item
	for {
		select {
		case item, ok := <-in:
			if !ok {
				if len(batch) == 0 {
					return nil
				}
				return send(batch)
			}
			if batch = append(batch, item); len(batch) < importBatch {
				continue
			}
			if err := send(batch); err != nil {
				return err
			}
			batch = nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// sendWithRetry sends until the collector answers, for at most a minute.
func sendWithRetry(ctx context.Context, client collectorv1.CollectorServiceClient, batch []importer.Item) ([]*collectorv1.EventResult, error) {
	req := &collectorv1.SendEventsRequest{Events: make([]*eventv1.Event, len(batch))}
	for i, item := range batch {
		req.Events[i] = item.Event
	}
	deadline := time.Now().Add(time.Minute)
	for wait := 100 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		resp, err := client.SendEvents(ctx, req)
		if err == nil {
			return resp.Results, nil
		}
		if code := status.Code(err); (code != codes.Unavailable && code != codes.ResourceExhausted) || time.Now().After(deadline) {
			return nil, fmt.Errorf("send events: %w", err)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// newProgress is a bar on a terminal, a line every few seconds elsewhere.
// total is 0 where it is not known.
func newProgress(w io.Writer, total int, what string) *progress {
	p := &progress{w: w, total: total, what: what, last: time.Now()}
	if isTerminal(w) {
		n := int64(total)
		if total == 0 {
			n = -1
		}
		p.bar = progressbar.NewOptions64(n, progressbar.OptionSetWriter(w), progressbar.OptionSetDescription(what),
			progressbar.OptionShowCount(), progressbar.OptionShowIts(), progressbar.OptionSetItsString("events"),
			progressbar.OptionThrottle(100*time.Millisecond), progressbar.OptionClearOnFinish())
	}
	return p
}

type progress struct {
	w     io.Writer
	bar   *progressbar.ProgressBar
	total int
	done  int
	what  string
	last  time.Time
}

func (p *progress) Add(n int) {
	p.done += n
	if p.bar != nil {
		_ = p.bar.Add(n) // only the terminal can fail here
		return
	}
	if time.Since(p.last) > 3*time.Second {
		p.last = time.Now()
		if p.total > 0 {
			fmt.Fprintf(p.w, "%s: %d of %d\n", p.what, p.done, p.total)
		} else {
			fmt.Fprintf(p.w, "%s: %d\n", p.what, p.done)
		}
	}
}

func (p *progress) Close() {
	if p.bar != nil {
		_ = p.bar.Finish() // only the terminal can fail here
	}
}
