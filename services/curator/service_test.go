package curator_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/honeloop/hone/pkg/auth"
	"github.com/honeloop/hone/pkg/clickhouse"
	"github.com/honeloop/hone/pkg/embedded"
	"github.com/honeloop/hone/pkg/embedded/embeddedtest"
	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/stream/streamtest"
	"github.com/honeloop/hone/pkg/telemetry"
	curationv1 "github.com/honeloop/hone/proto/gen/go/hone/curation/v1"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"
	"github.com/honeloop/hone/services/curator"
	"github.com/honeloop/hone/services/curator/internal/materialize"
	"github.com/honeloop/hone/services/curator/internal/store"
)

func TestMain(m *testing.M) {
	embedded.Main()
	os.Exit(embeddedtest.Run(m))
}

// bench is what curators under test share: broker, database, keys.
type bench struct {
	broker *streamtest.Broker
	cfg    curator.Config
	conn   driver.Conn
	// Secret keys by project.
	keys map[string]string
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{broker: streamtest.StartBroker(t), cfg: curator.DefaultConfig(), keys: map[string]string{}}
	b.cfg.Kafka = b.broker.Config()
	b.cfg.ClickHouse.Addr = []string{embeddedtest.ClickHouse(t).Addr}
	b.cfg.ClickHouse.Database = fmt.Sprintf("curator_%d", time.Now().UnixNano())
	if err := clickhouse.Migrate(t.Context(), b.cfg.ClickHouse); err != nil {
		t.Fatal(err)
	}
	var stored []auth.Key
	for _, project := range []string{"p", "q"} {
		key, secret, err := auth.Mint(project, auth.Secret)
		if err != nil {
			t.Fatal(err)
		}
		stored, b.keys[project] = append(stored, key), secret
	}
	b.cfg.Server.KeysFile = filepath.Join(t.TempDir(), "keys.yaml")
	if err := auth.WriteKeys(b.cfg.Server.KeysFile, stored); err != nil {
		t.Fatal(err)
	}
	var err error
	if b.conn, err = clickhouse.Open(b.cfg.ClickHouse); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

// client calls one curator.
type client struct {
	curationv1.ReviewServiceClient
	curationv1.DatasetServiceClient
	curationv1.PatchServiceClient
}

// start runs a curator until the test ends.
func (b *bench) start(t *testing.T) client {
	t.Helper()
	cfg := b.cfg
	cfg.Server.GRPCAddr, cfg.Server.AdminAddr = freeAddr(t), freeAddr(t)
	s, err := curator.New(t.Context(), cfg, telemetry.Discard())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	eventually(t, "the curator is ready", func() error { return s.Ready(t.Context()) })
	conn, err := grpc.NewClient(cfg.Server.GRPCAddr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return client{curationv1.NewReviewServiceClient(conn), curationv1.NewDatasetServiceClient(conn), curationv1.NewPatchServiceClient(conn)}
}

func freeAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

func (b *bench) as(t *testing.T, project string) context.Context {
	return metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+b.keys[project])
}

func (b *bench) count(t *testing.T, sql string) uint64 {
	t.Helper()
	var n uint64
	if err := b.conn.QueryRow(t.Context(), sql).Scan(&n); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
}

func eventually(t *testing.T, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// want is an error where two values differ.
func want[T comparable](what string, got, wanted T) error {
	if got != wanted {
		return fmt.Errorf("%s: got %v, want %v", what, got, wanted)
	}
	return nil
}

var began = time.Date(2026, 11, 24, 9, 30, 0, 0, time.UTC)

func signal(id string, revision uint32) *signalv1.Signal {
	return &signalv1.Signal{SignalId: id, ProjectId: "p", SessionId: "s-" + id, InteractionId: "i-" + id, UserId: "u", Kind: "explicit",
		Revision: revision, Polarity: "negative", Category: "factually_incorrect", Severity: "high", Comment: "It changed in May.",
		Correction: "Only unworn, within 30 days.", UserRole: "customer", Environment: "production",
		OccurredAt: timestamppb.New(began), SessionStartedAt: timestamppb.New(began.Add(-time.Minute)),
		Interaction: &eventv1.Interaction{Query: "Can I return worn shoes?", SystemContext: "You help in a shop.",
			Output: "Yes, within 60 days.", Model: "m-large", ModelVersion: "2026-10-01", PromptVersion: "v14"}}
}

// cloudEvent is a record as the router writes it.
func cloudEvent(t *testing.T, topic, kind string, data map[string]any) stage.Record {
	t.Helper()
	value, err := json.Marshal(map[string]any{"specversion": "1.0", "id": "re", "source": "/hone/router", "type": kind,
		"subject": data["signal_id"], "time": began, "datacontenttype": "application/json", "honeproject": data["project_id"], "data": data})
	if err != nil {
		t.Fatal(err)
	}
	return stage.Record{Topic: topic, Key: stream.SessionKey("p", fmt.Sprint("s-", data["signal_id"])), Value: value, Time: began}
}

func route(t *testing.T, topic string, s *signalv1.Signal) stage.Record {
	t.Helper()
	encoded, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return cloudEvent(t, topic, "hone.route.v1", map[string]any{"project_id": s.GetProjectId(), "decision_id": "dc", "signal_id": s.GetSignalId(),
		"signal_revision": s.GetRevision(), "case_id": "ca_1", "route": strings.TrimPrefix(topic, "hone.route."), "rule": "r", "reason": "a rule says so",
		"policy_version": "v", "signal": json.RawMessage(encoded), "case": map[string]any{"case_id": "ca_1", "title": "Returning worn shoes"}})
}

func withdraw(t *testing.T, topic, signalID string, revision uint32) stage.Record {
	t.Helper()
	return cloudEvent(t, topic, "hone.route.withdrawn.v1", map[string]any{"project_id": "p", "decision_id": "dc", "signal_id": signalID,
		"signal_revision": revision, "route": strings.TrimPrefix(topic, "hone.route."), "reason": "the user changed their mind"})
}

func open(ctx context.Context, c client) ([]string, error) {
	resp, err := c.ListReviews(ctx, &curationv1.ListReviewsRequest{})
	var ids []string
	for _, r := range resp.GetReviews() {
		ids = append(ids, r.GetReviewId())
	}
	return ids, err
}

// export is the lines of an export, and its trailer.
func export(ctx context.Context, c client, format, source string) ([]string, metadata.MD, error) {
	s, err := c.ExportDataset(ctx, &curationv1.ExportDatasetRequest{Format: format, Source: source})
	if err != nil {
		return nil, nil, err
	}
	var out strings.Builder
	for {
		chunk, err := s.Recv()
		if errors.Is(err, io.EOF) {
			return slices.Collect(strings.Lines(out.String())), s.Trailer(), nil
		}
		if err != nil {
			return nil, nil, err
		}
		out.Write(chunk.GetData())
	}
}

func TestFromRouteToDecisionToDataset(t *testing.T) {
	b := newBench(t)
	c, ctx := b.start(t), b.as(t, "p")
	s := signal("sg", 1)
	var recs []stage.Record
	for _, topic := range []string{stream.TopicRouteHumanReview, stream.TopicRouteFineTune, stream.TopicRoutePromptPatch, stream.TopicRouteProduct} {
		recs = append(recs, route(t, topic, s), route(t, topic, s)) // delivered twice
	}
	bad := recs[0]
	bad.Value = []byte("{")
	b.broker.Write(t, append(recs, bad)...)

	review := materialize.ReviewID("p", "sg")
	eventually(t, "the review is open", func() error {
		ids, err := open(ctx, c)
		return errors.Join(err, want("open", fmt.Sprint(ids), fmt.Sprint([]string{review})))
	})
	if dead, err := stream.ParseDeadLetter(b.broker.Read(t, stream.TopicDeadLetter, 1)[0]); err != nil || string(dead.Record.Value) != "{" {
		t.Errorf("dead letter: %+v, %v", dead, err)
	}
	eventually(t, "the rest is there once", func() error {
		patches, err := c.ListPatches(ctx, &curationv1.ListPatchesRequest{})
		lines, _, err2 := export(ctx, c, "dpo", "")
		return errors.Join(err, err2, want("patches", len(patches.GetPatches()), 1), want("rows", len(lines), 1),
			want("issues", b.count(t, "SELECT count() FROM product_issues WHERE environment = 'production' AND user_role = 'customer'"), 1))
	})

	req := &curationv1.DecideReviewRequest{ReviewId: review, Verdict: "correct", Answer: "Only unworn shoes.", Clarification: "Policy of May.", Reviewer: "ann"}
	decided, err := c.DecideReview(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	if r := decided.GetReview(); r.GetState() != "corrected" || r.GetDecided().GetAnswer() != "Only unworn shoes." || r.GetDecided().GetReviewer() != "ann" ||
		r.GetSignal().GetComment() == "" {
		t.Errorf("decided: %v", r)
	}
	if ids, err := open(ctx, c); err != nil || len(ids) != 0 {
		t.Errorf("open right after the decision: %v, %v, want none", ids, err)
	}
	if again, err := c.DecideReview(ctx, req); err != nil || !again.GetReview().GetDecided().GetDecidedAt().AsTime().Equal(decided.GetReview().GetDecided().GetDecidedAt().AsTime()) {
		t.Errorf("the same request again: %v, %v, want the same answer", again, err)
	}
	_, err = c.DecideReview(ctx, &curationv1.DecideReviewRequest{ReviewId: review, Verdict: "dismiss", Reviewer: "bob"})
	if status.Code(err) != codes.AlreadyExists || !strings.Contains(err.Error(), "ann") || !strings.Contains(err.Error(), "correct") {
		t.Errorf("another decision: %v, want that ann decided correct", err)
	}
	if n := len(b.broker.All(t, stream.TopicCuration)); n != 1 {
		t.Errorf("%d records in the log, want 1", n)
	}

	eventually(t, "the decision is in ClickHouse", func() error {
		return errors.Join(
			want("reviews", b.count(t, "SELECT count() FROM reviews WHERE state = 'corrected' AND answer = 'Only unworn shoes.' AND reviewer = 'ann'"), 1),
			want("rows", b.count(t, "SELECT count() FROM dataset_rows"), 2))
	})
	lines, trailer, err := export(ctx, c, "dpo", "")
	if err != nil || len(lines) != 1 || trailer.Get("hone-left-out-superseded")[0] != "1" {
		t.Fatalf("export: %q, %v, %v, want the reviewer's row alone", lines, trailer, err)
	}
	wantLine := `{"prompt":[{"role":"system","content":"You help in a shop."},{"role":"user","content":"Can I return worn shoes?"}],` +
		`"chosen":[{"role":"assistant","content":"Only unworn shoes."}],"rejected":[{"role":"assistant","content":"Yes, within 60 days."}]}` + "\n"
	if lines[0] != wantLine {
		t.Errorf("line:\n%s\nwant:\n%s", lines[0], wantLine)
	}
	if lines, _, err := export(ctx, c, "sft", "user-correction"); err != nil || len(lines) != 1 || !strings.Contains(lines[0], "Only unworn, within 30 days.") {
		t.Errorf("export of one source: %q, %v", lines, err)
	}
	got, err := c.GetReview(ctx, &curationv1.GetReviewRequest{ReviewId: review})
	if err != nil || got.GetReview().GetState() != "corrected" || got.GetReview().GetDecided().GetClarification() != "Policy of May." {
		t.Errorf("get: %v, %v", got, err)
	}

	t.Run("a new curator knows the decision", func(t *testing.T) {
		c := b.start(t)
		if _, err := c.DecideReview(b.as(t, "p"), &curationv1.DecideReviewRequest{ReviewId: review, Verdict: "dismiss"}); status.Code(err) != codes.AlreadyExists {
			t.Errorf("decide: %v, want AlreadyExists", err)
		}
	})
	t.Run("another project sees nothing", func(t *testing.T) {
		q := b.as(t, "q")
		ids, err := open(q, c)
		all, err2 := c.ListReviews(q, &curationv1.ListReviewsRequest{State: "all"})
		patches, err3 := c.ListPatches(q, &curationv1.ListPatchesRequest{})
		lines, _, err4 := export(q, c, "sft", "")
		if errors.Join(err, err2, err3, err4) != nil || len(ids)+len(all.GetReviews())+len(patches.GetPatches())+len(lines) != 0 {
			t.Errorf("got %v %v %v %v, %v", ids, all, patches, lines, errors.Join(err, err2, err3, err4))
		}
		_, err = c.GetReview(q, &curationv1.GetReviewRequest{ReviewId: review})
		_, err2 = c.DecideReview(q, &curationv1.DecideReviewRequest{ReviewId: review, Verdict: "approve"})
		if status.Code(err) != codes.NotFound || status.Code(err2) != codes.NotFound {
			t.Errorf("got %v and %v, want NotFound", err, err2)
		}
	})
	t.Run("requests are checked", func(t *testing.T) {
		for field, req := range map[string]*curationv1.DecideReviewRequest{
			"review_id":     {Verdict: "approve"},
			"verdict":       {ReviewId: review, Verdict: "maybe"},
			"answer: requi": {ReviewId: review, Verdict: "correct"},
			"answer: only":  {ReviewId: review, Verdict: "approve", Answer: "x"},
			"note":          {ReviewId: review, Verdict: "approve", Note: strings.Repeat("x", 17<<10)},
		} {
			if _, err := c.DecideReview(ctx, req); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), field) {
				t.Errorf("%s: %v", field, err)
			}
		}
		if _, err := c.ListReviews(ctx, &curationv1.ListReviewsRequest{State: "odd"}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("state: %v", err)
		}
		if _, err := c.ListReviews(ctx, &curationv1.ListReviewsRequest{Limit: 1001}); status.Code(err) != codes.InvalidArgument {
			t.Errorf("limit: %v", err)
		}
		if _, _, err := export(ctx, c, "xml", ""); status.Code(err) != codes.InvalidArgument {
			t.Errorf("format: %v", err)
		}
		if _, err := c.ListReviews(t.Context(), &curationv1.ListReviewsRequest{}); status.Code(err) != codes.Unauthenticated {
			t.Errorf("no key: %v", err)
		}
	})
}

// at gives a routed record a priority and a time.
func at(t *testing.T, rec stage.Record, priority string, when time.Time) stage.Record {
	t.Helper()
	var event map[string]any
	if err := json.Unmarshal(rec.Value, &event); err != nil {
		t.Fatal(err)
	}
	event["time"] = when
	if priority != "" {
		event["data"].(map[string]any)["priority"] = priority
	}
	var err error
	if rec.Value, err = json.Marshal(event); err != nil {
		t.Fatal(err)
	}
	return rec
}

func TestTheQueueIsByPriorityThenAge(t *testing.T) {
	b := newBench(t)
	c, ctx := b.start(t), b.as(t, "p")
	var recs []stage.Record
	var queue []string
	for i, priority := range []string{"urgent", "urgent", "high", "normal", "", "low"} { // as they are to come; none is normal
		id := fmt.Sprint("sg", i)
		when := began.Add(time.Duration(i) * time.Minute)
		if priority == "low" {
			when = began.Add(-time.Hour)
		}
		recs = append(recs, at(t, route(t, stream.TopicRouteHumanReview, signal(id, 1)), priority, when))
		queue = append(queue, materialize.ReviewID("p", id))
	}
	slices.Reverse(recs)
	b.broker.Write(t, recs...)
	eventually(t, "the reviews are in order", func() error {
		ids, err := open(ctx, c)
		return errors.Join(err, want("open", fmt.Sprint(ids), fmt.Sprint(queue)))
	})
	resp, err := c.ListReviews(ctx, &curationv1.ListReviewsRequest{Limit: 4})
	if err != nil || len(resp.GetReviews()) != 4 || resp.GetReviews()[3].GetReviewId() != queue[3] ||
		resp.GetReviews()[0].GetPriority() != "urgent" || resp.GetReviews()[3].GetPriority() != "normal" {
		t.Errorf("the first 4: %v, %v", resp, err)
	}
	// A page begins where the one before ended, also inside of a priority.
	st := store.New(b.conn)
	var paged []string
	var after store.Cursor
	for range 4 {
		items, next, err := st.ListReviews(ctx, "p", "open", after, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range items {
			paged = append(paged, item.Review.GetReviewId())
		}
		after = next
	}
	if !slices.Equal(paged, queue) {
		t.Errorf("pages of 2: %v, want %v", paged, queue)
	}
	// The view has the same order.
	if n := b.count(t, fmt.Sprintf("SELECT toUInt64(groupArray(review_id) = ['%s']) FROM (SELECT review_id FROM reviews ORDER BY turn, created_at)",
		strings.Join(queue, "', '"))); n != 1 {
		t.Error("the view reviews has another order")
	}
	// A later revision may have another priority.
	b.broker.Write(t, at(t, route(t, stream.TopicRouteHumanReview, signal("sg5", 2)), "urgent", began.Add(-time.Hour)))
	eventually(t, "it is first", func() error {
		ids, err := open(ctx, c)
		return errors.Join(err, want("open", fmt.Sprint(ids), fmt.Sprint(append(queue[5:], queue[:5]...))))
	})
}

func TestTwoCuratorsAgree(t *testing.T) {
	b := newBench(t)
	one, two, ctx := b.start(t), b.start(t), b.as(t, "p")
	const n = 12
	var recs []stage.Record
	for i := range n {
		recs = append(recs, route(t, stream.TopicRouteHumanReview, signal(fmt.Sprint("sg", i), 1)))
	}
	b.broker.Write(t, recs...)
	var ids []string
	eventually(t, "the reviews are open", func() error {
		var err error
		ids, err = open(ctx, one)
		return errors.Join(err, want("open", len(ids), n))
	})

	if !slices.IsSorted(ids) {
		t.Errorf("ids %v, want those of one time in order", ids)
	}
	if page, err := one.ListReviews(ctx, &curationv1.ListReviewsRequest{Limit: 5}); err != nil || len(page.GetReviews()) != 5 || page.GetReviews()[4].GetReviewId() != ids[4] {
		t.Errorf("the oldest 5: %v, %v", page, err)
	}

	answers := map[string]string{} // of each review, the one that was accepted
	for _, id := range ids {
		var mu sync.Mutex
		var wg sync.WaitGroup
		var refused []error
		for answer, c := range map[string]client{"one's": one, "two's": two} {
			wg.Go(func() {
				_, err := c.DecideReview(ctx, &curationv1.DecideReviewRequest{ReviewId: id, Verdict: "correct", Answer: answer, Reviewer: answer})
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					answers[id] += answer
				} else {
					refused = append(refused, err)
				}
			})
		}
		wg.Wait()
		if len(refused) != 1 || status.Code(refused[0]) != codes.AlreadyExists || !strings.Contains(refused[0].Error(), answers[id]) {
			t.Errorf("%s: accepted %q, refused %v, want one of each, naming the winner", id, answers[id], refused)
		}
	}
	eventually(t, "all decisions are in ClickHouse", func() error {
		return want("decided", b.count(t, "SELECT count() FROM reviews WHERE state = 'corrected'"), n)
	})
	for _, id := range ids {
		for name, c := range map[string]client{"one": one, "two": two} {
			got, err := c.GetReview(ctx, &curationv1.GetReviewRequest{ReviewId: id})
			if err != nil || got.GetReview().GetDecided().GetAnswer() != answers[id] {
				t.Errorf("%s says %v, %v, want %q", name, got.GetReview().GetDecided(), err, answers[id])
			}
		}
	}
	for _, id := range ids {
		sql := fmt.Sprintf("SELECT count() FROM dataset_rows WHERE review_id = '%s' AND chosen = '%s'", id, strings.ReplaceAll(answers[id], "'", "''"))
		eventually(t, "the row has the winner's answer", func() error { return want(id, b.count(t, sql), 1) })
	}
}

func TestWithdrawal(t *testing.T) {
	b := newBench(t)
	c, ctx := b.start(t), b.as(t, "p")
	b.broker.Write(t, route(t, stream.TopicRouteHumanReview, signal("kept", 1)), route(t, stream.TopicRouteHumanReview, signal("gone", 1)),
		route(t, stream.TopicRouteFineTune, signal("gone", 1)))
	kept, gone := materialize.ReviewID("p", "kept"), materialize.ReviewID("p", "gone")
	eventually(t, "all is there", func() error {
		ids, err := open(ctx, c)
		return errors.Join(err, want("open", len(ids), 2), want("rows", b.count(t, "SELECT count() FROM dataset_rows"), 1))
	})
	approved, err := c.DecideReview(ctx, &curationv1.DecideReviewRequest{ReviewId: kept, Verdict: "approve"})
	if err != nil || approved.GetReview().GetDecided().GetAnswer() != "Only unworn, within 30 days." || !strings.HasPrefix(approved.GetReview().GetDecided().GetReviewer(), "hs_") {
		t.Fatalf("approve: %v, %v, want the user's correction, decided by the key", approved, err)
	}
	eventually(t, "the decision is in ClickHouse", func() error {
		return want("rows", b.count(t, "SELECT count() FROM dataset_rows WHERE source = 'review'"), 1)
	})
	b.broker.Write(t, withdraw(t, stream.TopicRouteHumanReview, "kept", 2), withdraw(t, stream.TopicRouteHumanReview, "gone", 2),
		withdraw(t, stream.TopicRouteFineTune, "gone", 2))

	eventually(t, "what was not decided is gone, what was decided stays and says so", func() error {
		return errors.Join(
			want("gone", b.count(t, "SELECT count() FROM reviews WHERE state = 'withdrawn' AND withdrawn AND signal_id = 'gone'"), 1),
			want("kept", b.count(t, "SELECT count() FROM reviews WHERE state = 'approved' AND withdrawn AND signal_id = 'kept'"), 1),
			want("rows", b.count(t, "SELECT count() FROM dataset_rows"), 1),
			want("rows of reviews", b.count(t, "SELECT count() FROM dataset_rows WHERE source = 'review' AND review_withdrawn"), 1))
	})
	if _, err := c.DecideReview(ctx, &curationv1.DecideReviewRequest{ReviewId: gone, Verdict: "approve"}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("decide what is withdrawn: %v, want FailedPrecondition", err)
	}
	for state, id := range map[string]string{"withdrawn": gone, "approved": kept} {
		resp, err := c.ListReviews(ctx, &curationv1.ListReviewsRequest{State: state})
		if err != nil || len(resp.GetReviews()) != 1 || resp.GetReviews()[0].GetReviewId() != id || resp.GetReviews()[0].GetState() != state {
			t.Errorf("list %s: %v, %v", state, resp, err)
		}
	}

	b.broker.Write(t, route(t, stream.TopicRouteHumanReview, signal("gone", 3)))
	eventually(t, "a later revision opens it again", func() error {
		ids, err := open(ctx, c)
		return errors.Join(err, want("open", fmt.Sprint(ids), fmt.Sprint([]string{gone})))
	})
}

func TestADecisionIsRefusedWhileTheLogIsAway(t *testing.T) {
	b := newBench(t)
	b.cfg.Kafka.PublishTimeout = 200 * time.Millisecond
	c, ctx := b.start(t), b.as(t, "p")
	b.broker.Write(t, route(t, stream.TopicRouteHumanReview, signal("sg", 1)))
	eventually(t, "the review is open", func() error {
		ids, err := open(ctx, c)
		return errors.Join(err, want("open", len(ids), 1))
	})
	b.broker.Cluster.Close()
	_, err := c.DecideReview(ctx, &curationv1.DecideReviewRequest{ReviewId: materialize.ReviewID("p", "sg"), Verdict: "approve"})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("decide: %v, want Unavailable", err)
	}
	if ids, err := open(ctx, c); err != nil || len(ids) != 1 {
		t.Errorf("list: %v, %v, want the review, still open", ids, err)
	}
}

func TestNothingIsNotApproved(t *testing.T) {
	b := newBench(t)
	c, ctx := b.start(t), b.as(t, "p")
	s := signal("sg", 1)
	s.Correction, s.Interaction = "", nil
	b.broker.Write(t, route(t, stream.TopicRouteHumanReview, s))
	eventually(t, "the review is open", func() error {
		ids, err := open(ctx, c)
		return errors.Join(err, want("open", len(ids), 1))
	})
	id := materialize.ReviewID("p", "sg")
	if _, err := c.DecideReview(ctx, &curationv1.DecideReviewRequest{ReviewId: id, Verdict: "approve"}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("approve: %v, want FailedPrecondition", err)
	}
	if _, err := c.DecideReview(ctx, &curationv1.DecideReviewRequest{ReviewId: id, Verdict: "correct", Answer: "a"}); err != nil {
		t.Errorf("correct: %v", err)
	}
}

func TestRecordsInAnyOrderEndTheSame(t *testing.T) {
	b := newBench(t)
	st := store.New(b.conn)
	noTarget := map[string]int{}
	routes := &materialize.Routes{Write: st.Write, NoTarget: func(_ context.Context, by map[string]int) {
		for why, n := range by {
			noTarget[why] += n
		}
	}}
	// Revision 1 has a correction, 2 is withdrawn, 3 has another, 4 has none.
	last := func(revision uint32, id string) *signalv1.Signal {
		s := signal(id, revision)
		s.Correction = map[uint32]string{1: "first", 3: "third"}[revision]
		return s
	}
	for i, order := range [][]uint32{{1, 2, 3}, {3, 2, 1}, {2, 1, 3, 1}, {3, 3, 1, 2}, {2, 3, 1, 2, 2}} {
		id := fmt.Sprint("sg", i)
		for _, revision := range order {
			rec := withdraw(t, stream.TopicRouteFineTune, id, 2)
			if revision != 2 {
				rec = route(t, stream.TopicRouteFineTune, last(revision, id))
			}
			review := rec
			review.Topic = stream.TopicRouteHumanReview
			if _, err := routes.Process(t.Context(), []stage.Record{rec, review}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n := b.count(t, "SELECT count() FROM dataset_rows WHERE chosen = 'third'"); n != 5 || b.count(t, "SELECT count() FROM dataset_rows") != 5 {
		t.Errorf("%d rows of revision 3, want 5 and no others", n)
	}
	if n := b.count(t, "SELECT count() FROM reviews WHERE state = 'open' AND revision = 3"); n != 5 {
		t.Errorf("%d open reviews, want 5", n)
	}
	if _, err := routes.Process(t.Context(), []stage.Record{route(t, stream.TopicRouteFineTune, last(4, "sg0"))}); err != nil {
		t.Fatal(err)
	}
	if n := b.count(t, "SELECT count() FROM dataset_rows WHERE signal_id = 'sg0'"); n != 0 || noTarget[materialize.NoCorrection] != 1 {
		t.Errorf("%d rows, counted %v: want the row gone and the reason counted", n, noTarget)
	}
}

func TestDecisionsThatComeAgainChangeNothing(t *testing.T) {
	b := newBench(t)
	st := store.New(b.conn)
	routes := &materialize.Routes{Write: st.Write, NoTarget: func(context.Context, map[string]int) {}}
	if _, err := routes.Process(t.Context(), []stage.Record{route(t, stream.TopicRouteHumanReview, signal("sg", 1))}); err != nil {
		t.Fatal(err)
	}
	decisions := &materialize.Decisions{Write: st.Write, Reviews: st.Reviews, NoTarget: func(context.Context, map[string]int) {}}
	log := []stage.Record{
		decision(t, 0, materialize.ReviewID("p", "sg"), "dismiss", ""),
		decision(t, 1, materialize.ReviewID("p", "sg"), "correct", "too late"),
		decision(t, 2, "rv_unknown", "dismiss", ""),
	}
	for _, batch := range [][]stage.Record{log, log[1:], log[:1], log} {
		_, err := decisions.Process(t.Context(), batch)
		failed, ok := stage.AsBatchError(err)
		switch {
		case len(batch) == 1 && err != nil:
			t.Fatal(err)
		case len(batch) > 1 && (!ok || fmt.Sprint(failed.Indexes()) != fmt.Sprint([]int{len(batch) - 1})):
			t.Fatalf("error %v, want the unknown review's alone", err)
		}
	}
	if n := b.count(t, "SELECT count() FROM reviews WHERE state = 'dismissed'"); n != 1 {
		t.Errorf("%d dismissed reviews, want 1", n)
	}
	if n := b.count(t, "SELECT count() FROM dataset_rows"); n != 0 {
		t.Errorf("%d rows, want none: the first decision was to dismiss", n)
	}
}

func TestEveryColumnHasAComment(t *testing.T) {
	b := newBench(t)
	tables := "('reviews', 'dataset_rows', 'patches', 'product_issues', 'reviews_log', 'review_withdrawals_log', 'review_decisions_log', 'dataset_rows_log', 'patches_log', 'product_issues_log')"
	if n := b.count(t, "SELECT uniqExact(table) FROM system.columns WHERE database = currentDatabase() AND table IN "+tables); n != 10 {
		t.Errorf("%d tables and views, want 10", n)
	}
	if n := b.count(t, "SELECT count() FROM system.columns WHERE database = currentDatabase() AND comment = '' AND table IN "+tables); n != 0 {
		t.Errorf("%d columns without a comment", n)
	}
}
