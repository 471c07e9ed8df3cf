// Package bench measures a running Hone from outside, each figure beside a
// yardstick taken in the same run.
package bench

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/segmentio/kafka-go"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/honeloop/hone/pkg/clickhouse"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/telemetry"
	"github.com/honeloop/hone/services/hone/internal/endpoints"

	collectorv1 "github.com/honeloop/hone/proto/gen/go/hone/collector/v1"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	recallv1 "github.com/honeloop/hone/proto/gen/go/hone/recall/v1"
)

// Options of the import benchmark.
type Options struct {
	Events   int           // sent as fast as they are taken
	Rate     int           // events per second of the latency part
	Duration time.Duration // of the latency part
	Queries  []string      // what users ask; the more distinct, the better
	Seed     uint64
}

// Report is what the import benchmark saw. Latencies run from the collector's
// answer to the first Recall that knows the feedback.
type Report struct {
	Events            int     `json:"events"`
	AcceptedPerSecond float64 `json:"accepted_per_second"`
	EndToEndPerSecond float64 `json:"end_to_end_per_second"`
	YardstickName     string  `json:"yardstick_name"`
	YardstickPerSec   float64 `json:"yardstick_per_second"`
	Ratio             float64 `json:"ratio"`

	Rate      int     `json:"rate"`
	Samples   int     `json:"samples"`
	Missed    int     `json:"missed"`
	P50Millis float64 `json:"accepted_to_recallable_p50_ms"`
	P99Millis float64 `json:"accepted_to_recallable_p99_ms"`
	MaxMillis float64 `json:"accepted_to_recallable_max_ms"`
}

// feedbackEvery is how many events there are to one feedback.
const feedbackEvery = 10

// ReadQueries reads the first column of a CSV file with a heading.
func ReadQueries(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open queries: %w", err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		return nil, fmt.Errorf("read queries: %w", err)
	}
	if len(rows) < 2 {
		return nil, fmt.Errorf("read queries: %s has no rows", path)
	}
	var out []string
	for _, r := range rows[1:] {
		out = append(out, r[0])
	}
	return out, nil
}

// Import runs the benchmark against a running Hone and says what it does on w.
func Import(ctx context.Context, e endpoints.Endpoints, conn *grpc.ClientConn, o Options, w io.Writer) (Report, error) {
	run := &run{e: e, collector: collectorv1.NewCollectorServiceClient(conn), recall: recallv1.NewRecallServiceClient(conn),
		o: o, id: strconv.FormatInt(time.Now().UnixNano(), 36), random: rand.New(rand.NewPCG(o.Seed, 2)), w: w}
	report := Report{Events: o.Events, Rate: o.Rate, YardstickName: "kafka-go produce, kafka-go read and a columnar insert of the same events, one after the other"}
	if err := run.throughput(ctx, &report); err != nil {
		return report, err
	}
	if err := run.yardstick(ctx, &report); err != nil {
		return report, err
	}
	return report, run.latency(ctx, &report)
}

type run struct {
	e         endpoints.Endpoints
	collector collectorv1.CollectorServiceClient
	recall    recallv1.RecallServiceClient
	o         Options
	id        string
	random    *rand.Rand
	w         io.Writer
	events    []*eventv1.Event
}

// event makes the n-th event of a part: nine interactions, then a complaint
// about the last of them.
func (r *run) event(part string, n int, at time.Time) *eventv1.Event {
	session := fmt.Sprintf("bench-%s-%s-%d", r.id, part, n/feedbackEvery)
	turn := n % feedbackEvery
	e := &eventv1.Event{EventId: fmt.Sprintf("%s-%d", session, turn), SessionId: session, InteractionId: fmt.Sprintf("%s-i%d", session, min(turn, feedbackEvery-2)),
		UserId: "u-" + session, UserRole: "customer", Environment: "bench", OccurredAt: timestamppb.New(at)}
	if turn == feedbackEvery-1 {
		e.Type = "feedback"
		e.Payload = &eventv1.Event_Feedback{Feedback: &eventv1.Feedback{Thumb: "down", Categories: []string{"factually_incorrect"}, Comment: "This is not right, says " + session + "."}}
		return e
	}
	e.Type = "interaction"
	e.Payload = &eventv1.Event_Interaction{Interaction: &eventv1.Interaction{
		Query: r.o.Queries[r.random.IntN(len(r.o.Queries))], SystemContext: strings.Repeat("You are a helpful assistant of a bank. ", 8),
		Output: strings.Repeat("Please open the app and follow the steps. ", 10), Model: "m-bench", ModelVersion: "1", PromptVersion: "v1",
		LatencyMs: 700, InputTokens: 200, OutputTokens: 90}}
	return e
}

const batch = 500

func (r *run) throughput(ctx context.Context, report *Report) error {
	n := r.o.Events - r.o.Events%feedbackEvery
	at := time.Now().Add(-time.Duration(n) * time.Millisecond)
	for i := range n {
		r.events = append(r.events, r.event("a", i, at.Add(time.Duration(i)*time.Millisecond)))
	}
	fmt.Fprintf(r.w, "sending %d events, one in %d a feedback\n", n, feedbackEvery)
	start := time.Now()
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for part := range slices.Chunk(r.events, batch) {
		g.Go(func() error { return r.send(gctx, part) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	report.AcceptedPerSecond = float64(n) / time.Since(start).Seconds()

	last := ""
	for {
		events, err := r.count(ctx, "SELECT count() FROM hone.events WHERE startsWith(session_id, {prefix:String})")
		if err != nil {
			return err
		}
		// What users merely did may be a signal as well.
		decisions, err := r.count(ctx, "SELECT count() FROM hone.decisions WHERE signal_id IN (SELECT signal_id FROM hone.signals WHERE kind = 'explicit' AND startsWith(session_id, {prefix:String}))")
		if err != nil {
			return err
		}
		if line := fmt.Sprintf("  %d of %d events in ClickHouse, %d of %d complaints decided", events, n, decisions, n/feedbackEvery); line != last {
			fmt.Fprintln(r.w, line)
			last = line
		}
		if events == n && decisions == n/feedbackEvery {
			break
		}
		if time.Since(start) > 10*time.Minute {
			return errors.New("the pipeline did not finish within 10 minutes")
		}
		select {
		case <-time.After(250 * time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	report.EndToEndPerSecond = float64(n) / time.Since(start).Seconds()
	report.Events = n
	return nil
}

func (r *run) send(ctx context.Context, events []*eventv1.Event) error {
	resp, err := r.collector.SendEvents(ctx, &collectorv1.SendEventsRequest{Events: events})
	if err != nil {
		return fmt.Errorf("send events: %w", err)
	}
	for _, res := range resp.Results {
		if res.Error != nil {
			return fmt.Errorf("event refused: %s: %s", res.Error.Field, res.Error.Message)
		}
	}
	return nil
}

// count asks for the number of rows of the sessions of the first part.
func (r *run) count(ctx context.Context, query string) (int, error) {
	values := url.Values{"database": {"hone"}, "param_prefix": {"bench-" + r.id + "-a-"}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, r.e.ClickHouseHTTP+"/?"+values.Encode(), strings.NewReader(query))
	if err != nil {
		return 0, fmt.Errorf("count rows: %w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, fmt.Errorf("count rows: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return 0, fmt.Errorf("count rows: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return 0, fmt.Errorf("count rows: %s", body)
	}
	return strconv.Atoi(strings.TrimSpace(string(body)))
}

// yardstick moves the same events the shortest way from a producer through
// Kafka into one ClickHouse table.
func (r *run) yardstick(ctx context.Context, report *Report) error {
	topic := "bench.yardstick." + r.id
	admin := &kafka.Client{Addr: kafka.TCP(r.e.Kafka)}
	made, err := admin.CreateTopics(ctx, &kafka.CreateTopicsRequest{Topics: []kafka.TopicConfig{{Topic: topic, NumPartitions: 1, ReplicationFactor: 1}}})
	if err != nil {
		return fmt.Errorf("create topic: %w", err)
	}
	if err := made.Errors[topic]; err != nil {
		return fmt.Errorf("create topic: %w", err)
	}
	cfg := clickhouse.DefaultConfig()
	cfg.Addr = []string{r.e.ClickHouse}
	db, err := clickhouse.Open(cfg)
	if err != nil {
		return err
	}
	defer db.Close()
	table := "bench_yardstick_" + r.id
	if err := db.Exec(ctx, "CREATE TABLE "+table+" AS events_log"); err != nil {
		return fmt.Errorf("create table: %w", err)
	}
	defer db.Exec(context.WithoutCancel(ctx), "DROP TABLE "+table) //nolint:errcheck // a scratch table of a benchmark

	start := time.Now()
	kcfg := stream.DefaultConfig()
	kcfg.Brokers = []string{r.e.Kafka}
	publisher, err := stream.NewPublisher(kcfg, telemetry.Discard())
	if err != nil {
		return err
	}
	defer publisher.Close()
	for part := range slices.Chunk(r.events, batch) {
		recs := make([]stage.Record, len(part))
		for i, e := range part {
			value, err := proto.Marshal(e)
			if err != nil {
				return fmt.Errorf("encode event: %w", err)
			}
			recs[i] = stage.Record{Topic: topic, Key: stream.SessionKey("bench", e.SessionId), Value: value}
		}
		if err := publisher.Publish(ctx, recs...); err != nil {
			return fmt.Errorf("produce: %w", err)
		}
	}
	reader := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{r.e.Kafka}, Topic: topic, MaxWait: 100 * time.Millisecond, MaxBytes: 10 << 20})
	defer reader.Close()
	for read := 0; read < len(r.events); {
		rows, err := db.PrepareBatch(ctx, "INSERT INTO "+table+" (project_id, session_id, event_id, interaction_id, type, user_id, user_role, environment, occurred_at, received_at, query, system_context, output, model, model_version, prompt_version, payload)")
		if err != nil {
			return fmt.Errorf("prepare insert: %w", err)
		}
		for range min(5000, len(r.events)-read) {
			m, err := reader.ReadMessage(ctx)
			if err != nil {
				return fmt.Errorf("read: %w", err)
			}
			e := &eventv1.Event{}
			if err := proto.Unmarshal(m.Value, e); err != nil {
				return fmt.Errorf("decode event: %w", err)
			}
			i := e.GetInteraction()
			if err := rows.Append("bench", e.SessionId, e.EventId, e.InteractionId, e.Type, e.UserId, e.UserRole, e.Environment,
				e.OccurredAt.AsTime(), e.OccurredAt.AsTime(), i.GetQuery(), i.GetSystemContext(), i.GetOutput(), i.GetModel(), i.GetModelVersion(),
				i.GetPromptVersion(), string(m.Value)); err != nil {
				return fmt.Errorf("append row: %w", err)
			}
			read++
		}
		if err := rows.Send(); err != nil {
			return fmt.Errorf("insert: %w", err)
		}
	}
	report.YardstickPerSec = float64(len(r.events)) / time.Since(start).Seconds()
	report.Ratio = report.EndToEndPerSecond / report.YardstickPerSec
	return nil
}

const (
	recallPoll = 100 * time.Millisecond
	recallWait = 15 * time.Second // after which a sample counts as missed
	sampleRate = 5                // feedbacks per second that are asked about: to ask about all would be most of the load
)

// latency sends events one by one at a steady rate, and asks Recall about some
// of the feedback until its case shows the comment.
func (r *run) latency(ctx context.Context, report *Report) error {
	n := int(r.o.Duration.Seconds() * float64(r.o.Rate))
	fmt.Fprintf(r.w, "sending %d events at %d events/s\n", n, r.o.Rate)
	var mu sync.Mutex
	var took []time.Duration
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(256)
	ticker := time.NewTicker(time.Second / time.Duration(r.o.Rate))
	defer ticker.Stop()
	query := ""
	every := feedbackEvery * max(1, r.o.Rate/feedbackEvery/sampleRate)
	for i := range n {
		select {
		case <-ticker.C:
		case <-gctx.Done():
			return g.Wait()
		}
		e := r.event("b", i, time.Now())
		if q := e.GetInteraction().GetQuery(); q != "" {
			query = q
		}
		asked := query
		g.Go(func() error {
			if err := r.send(gctx, []*eventv1.Event{e}); err != nil {
				return err
			}
			if e.GetFeedback() == nil || i/feedbackEvery*feedbackEvery%every != 0 {
				return nil
			}
			accepted := time.Now()
			known, err := r.untilRecalled(gctx, asked, e.GetFeedback().Comment)
			mu.Lock()
			defer mu.Unlock()
			if known {
				took = append(took, time.Since(accepted))
			} else if err == nil {
				report.Missed++
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	slices.Sort(took)
	report.Samples = len(took) + report.Missed
	if len(took) == 0 {
		return errors.New("no feedback became recallable")
	}
	millis := func(q float64) float64 {
		return float64(took[min(int(q*float64(len(took))), len(took)-1)].Microseconds()) / 1000
	}
	report.P50Millis, report.P99Millis, report.MaxMillis = millis(0.5), millis(0.99), millis(1)
	return nil
}

func (r *run) untilRecalled(ctx context.Context, query, comment string) (bool, error) {
	deadline := time.Now().Add(recallWait)
	for time.Now().Before(deadline) {
		resp, err := r.recall.Recall(ctx, &recallv1.RecallRequest{Query: query, K: 5})
		if err != nil && status.Code(err) != codes.Unavailable { // too slow at this moment
			return false, fmt.Errorf("recall: %w", err)
		}
		for _, item := range resp.GetGuidance() {
			if slices.Contains(item.Case.Complaints, comment) {
				return true, nil
			}
		}
		select {
		case <-time.After(recallPoll):
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
	return false, nil
}
