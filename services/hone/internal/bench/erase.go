package bench

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/honeloop/hone/pkg/clickhouse/benchfill"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/vector"
	"github.com/honeloop/hone/services/hone/internal/endpoints"

	collectorv1 "github.com/honeloop/hone/proto/gen/go/hone/collector/v1"
	erasurev1 "github.com/honeloop/hone/proto/gen/go/hone/erasure/v1"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
)

// EraseOptions of the benchmark of erasures.
type EraseOptions struct {
	Events  int // of everybody else
	Own     int // of the user who is erased
	Queries []string
}

// EraseReport is what the benchmark of erasures saw.
type EraseReport struct {
	Filled  string  `json:"filled"`
	Own     int     `json:"own_events"`
	Seconds float64 `json:"seconds"` // from the request to the receipt
	// What the receipt said it waited for.
	Steps []EraseTime `json:"steps"`
	// Until the deleted rows were out of ClickHouse's files, after the receipt.
	PurgedSeconds float64      `json:"purged_seconds"`
	Yardsticks    []EraseTime  `json:"yardsticks"`
	Places        []ErasePlace `json:"places"`
	// What is wrong with the receipt; empty where it is true.
	Wrong []string `json:"wrong"`
}

// EraseTime is how long one thing took.
type EraseTime struct {
	What    string  `json:"what"`
	Seconds float64 `json:"seconds"`
}

// ErasePlace is one store, in the words of the receipt and as it is.
type ErasePlace struct {
	Place   string `json:"place"`
	Removed int    `json:"receipt_removed"`
	Left    int    `json:"receipt_left"`
	// What names the user or one of the sessions where nobody else is named, and,
	// afterwards, what has the user's words.
	Before int `json:"theirs_before"`
	After  int `json:"theirs_after"`
	Words  int `json:"with_their_words_after"`
}

const (
	leaver = "u-bench-leaver"
	// leaverWord is in all that the leaver asks, is answered and says.
	leaverWord = "wobbegong"
	perSession = 8
	// In each so many sessions somebody else has a say about one of the turns.
	sharedEvery = 5
	erasePoll   = 20 * time.Millisecond
	eraseWait   = 30 * time.Minute
	inWeaviate  = "weaviate"
)

// Erase fills a running Hone that is empty with a history of many users, and
// sends, through the whole pipeline, one user's events of the last twelve months
// and as many of others who asked the same. Then it erases that user over the API,
// and looks for what is left on its own account.
func Erase(ctx context.Context, e endpoints.Endpoints, conn *grpc.ClientConn, o EraseOptions, w io.Writer) (report EraseReport, err error) {
	if o.Events < benchfill.MinEvents || o.Own < perSession || len(o.Queries) == 0 {
		return report, fmt.Errorf("want at least %d events, %d of the user, and a query", benchfill.MinEvents, perSession)
	}
	b := &eraseBench{ch: benchfill.Client{URL: e.ClickHouseHTTP}, conn: conn, o: o, w: w}
	vcfg := vector.DefaultConfig()
	vcfg.URL, vcfg.GRPCAddr, vcfg.APIKey = e.Weaviate, e.WeaviateGRPC, e.WeaviateKey
	if b.index, err = vector.Open(vcfg); err != nil {
		return report, err
	}
	defer func() { err = errors.Join(err, b.index.Close()) }()
	// Months that are over, so that the clock of the enricher lets them rest.
	now := time.Now().UTC()
	lastMonth := time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC).AddDate(0, -1, 0)
	if report.Filled, err = b.ch.Fill(ctx, o.Events, lastMonth, w); err != nil {
		return report, err
	}
	fmt.Fprintf(w, "%s\nsending %d events of the user, and as many of others\n", report.Filled, o.Own)
	report.Own = o.Own
	if err := b.send(ctx, now); err != nil {
		return report, err
	}
	kafka := stream.DefaultConfig()
	kafka.Brokers = []string{e.Kafka}
	for _, r := range stream.Pipeline() {
		fmt.Fprintf(w, "waiting for %s\n", r.Group)
		if err := stream.AwaitPassed(ctx, kafka, r.Group, r.Topics...); err != nil {
			return report, err
		}
	}
	if err := b.merged(ctx); err != nil {
		return report, err
	}
	if err := b.tables(ctx); err != nil {
		return report, err
	}
	before, err := b.theirs(ctx)
	if err != nil {
		return report, err
	}

	fmt.Fprintln(w, "erasing the user")
	receipt, err := b.erase(ctx, &report)
	if err != nil {
		return report, err
	}
	began := time.Now()
	if err := b.merged(ctx); err != nil {
		return report, err
	}
	report.PurgedSeconds = time.Since(began).Seconds()
	fmt.Fprintln(w, "looking for what is left")
	after, err := b.theirs(ctx)
	if err != nil {
		return report, err
	}
	words, err := b.words(ctx)
	if err != nil {
		return report, err
	}
	report.Places, report.Wrong = compare(receipt, before, after, words, o.Own)
	return report, b.yardsticks(ctx, &report)
}

type eraseBench struct {
	ch    benchfill.Client
	index *vector.Client
	conn  *grpc.ClientConn
	o     EraseOptions
	w     io.Writer
	// by table, what finds the rows of the leaver.
	where map[string]string
	alone []string // sessions
}

// send writes the events of the leaver, and of others who asked the same, through
// the collector.
func (b *eraseBench) send(ctx context.Context, now time.Time) error {
	sender := &run{collector: collectorv1.NewCollectorServiceClient(b.conn)}
	var events []*eventv1.Event
	for n := range b.o.Own {
		session, turn := n/perSession, n%perSession
		// In every month, so that every partition has some.
		began := now.AddDate(0, 0, -1-session*29%360).Add(-time.Duration(session) * time.Minute)
		at := timestamppb.New(began.Add(time.Duration(turn) * time.Minute))
		query := b.o.Queries[n%len(b.o.Queries)]
		id := fmt.Sprint("leaver-", session)
		shared := session%sharedEvery == 0
		if turn == 0 && !shared {
			b.alone = append(b.alone, id)
		}
		events = append(events, eraseEvent(id, leaver, turn, query+" "+leaverWord, leaverWord, at),
			eraseEvent(fmt.Sprint("stayer-", session), fmt.Sprint("u-bench-stayer-", session), turn, query, "the stayer", at))
		if shared && turn == perSession-1 {
			events = append(events, &eventv1.Event{EventId: id + "-other", SessionId: id, InteractionId: id + "-i1", UserId: "u-bench-witness", Type: "feedback",
				OccurredAt: at, Payload: &eventv1.Event_Feedback{Feedback: &eventv1.Feedback{Thumb: "down", Comment: "I saw it, and it is wrong."}}})
		}
	}
	for part := range slices.Chunk(events, batch) {
		if err := sender.send(ctx, part); err != nil {
			return err
		}
	}
	return nil
}

// eraseEvent is one of eight of a session: four turns, three thumbs down, and then
// the user leaves.
func eraseEvent(session, user string, turn int, query, word string, at *timestamppb.Timestamp) *eventv1.Event {
	e := &eventv1.Event{EventId: fmt.Sprint(session, "-", turn), SessionId: session, InteractionId: fmt.Sprint(session, "-i", turn%4), UserId: user,
		UserRole: "customer", Environment: "bench", OccurredAt: at}
	switch {
	case turn < 4:
		e.Type = "interaction"
		e.Payload = &eventv1.Event_Interaction{Interaction: &eventv1.Interaction{Query: query, Output: strings.Repeat("Open the app and follow the steps. ", 10) + word,
			SystemContext: strings.Repeat("You are a helpful assistant of a bank. ", 8), Model: "m-bench", ModelVersion: "1", PromptVersion: "v1"}}
	case turn < 7:
		e.Type = "feedback"
		e.Payload = &eventv1.Event_Feedback{Feedback: &eventv1.Feedback{Thumb: "down", Categories: []string{"factually_incorrect"}, Comment: "This is not right, says " + word + ".",
			Correction: "Call the bank, says " + word + "."}}
	default:
		e.Type = "behavior"
		e.Payload = &eventv1.Event_Behavior{Behavior: &eventv1.Behavior{Kind: "left"}}
	}
	return e
}

// number is the answer of a query that gives one.
func (b *eraseBench) number(ctx context.Context, query string, params map[string]string) (int, error) {
	answer, _, err := b.ch.Ask(ctx, query, params)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(answer))
}

// merged waits until ClickHouse neither merges nor mutates, and no file has rows
// that were deleted.
func (b *eraseBench) merged(ctx context.Context) error {
	for deadline := time.Now().Add(eraseWait); ; {
		n, err := b.number(ctx, `SELECT (SELECT count() FROM system.mutations WHERE NOT is_done) + (SELECT count() FROM system.merges)
			+ (SELECT count() FROM system.parts WHERE active AND has_lightweight_delete)`, nil)
		if err != nil || n == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("%d merges and mutations still run after %s", n, eraseWait)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// tables finds how the leaver is named in each table.
func (b *eraseBench) tables(ctx context.Context) error {
	answer, _, err := b.ch.Ask(ctx, `SELECT table, countIf(name = 'user_id'), countIf(name = 'session_id') FROM system.columns
		WHERE database = 'hone' AND table IN (SELECT name FROM system.tables WHERE database = 'hone' AND engine LIKE '%MergeTree') GROUP BY table ORDER BY table FORMAT TSV`, nil)
	if err != nil {
		return err
	}
	b.where = map[string]string{}
	for line := range strings.Lines(answer) {
		var table string
		var user, session int
		if _, err := fmt.Sscan(line, &table, &user, &session); err != nil {
			return fmt.Errorf("read tables: %w", err)
		}
		// Of a session with others in it, what does not name the leaver may stay.
		where := []string{"0"}
		if user > 0 {
			where = append(where, "user_id = {leaver:String}")
		}
		if session > 0 {
			where = append(where, "session_id IN {alone:Array(String)}")
		}
		b.where[table] = strings.Join(where, " OR ")
	}
	return nil
}

// theirs counts what is the leaver's, by place.
func (b *eraseBench) theirs(ctx context.Context) (map[string]int, error) {
	out := map[string]int{}
	params := map[string]string{"leaver": leaver, "alone": "['" + strings.Join(b.alone, "','") + "']"}
	for table, where := range b.where {
		n, err := b.number(ctx, "SELECT count() FROM "+table+" WHERE "+where, params)
		if err != nil {
			return nil, err
		}
		out[table] = n
	}
	objects, err := b.index.List(ctx, vector.Exchanges, project, vector.ListQuery{Filter: vector.In("user_id", leaver), Limit: vector.MaxResults})
	if err != nil {
		return nil, fmt.Errorf("read Weaviate: %w", err)
	}
	out[inWeaviate] = len(objects)
	return out, nil
}

// words counts what has the leaver's words, by place.
func (b *eraseBench) words(ctx context.Context) (map[string]int, error) {
	out := map[string]int{}
	for table := range b.where {
		n, err := b.number(ctx, "SELECT count() FROM "+table+" WHERE position(toString(tuple(*)), {word:String}) > 0", map[string]string{"word": leaverWord})
		if err != nil {
			return nil, err
		}
		out[table] = n
	}
	for _, collection := range []string{vector.Exchanges, vector.Cases, vector.Answers} {
		objects, err := b.index.List(ctx, collection, project, vector.ListQuery{Limit: vector.MaxResults})
		if err != nil {
			return nil, fmt.Errorf("read Weaviate: %w", err)
		}
		if len(objects) == vector.MaxResults {
			return nil, fmt.Errorf("more than %d objects of %s: too many to look at", vector.MaxResults, collection)
		}
		for _, o := range objects {
			if bytes.Contains(o.Payload, []byte(leaverWord)) {
				out[inWeaviate]++
			}
		}
	}
	return out, nil
}

// erase erases the leaver, and notes how long each step takes.
func (b *eraseBench) erase(ctx context.Context, report *EraseReport) (*erasurev1.Erasure, error) {
	client := erasurev1.NewErasureServiceClient(b.conn)
	began := time.Now()
	resp, err := client.Erase(ctx, &erasurev1.EraseRequest{UserId: leaver})
	if err != nil {
		return nil, fmt.Errorf("erase: %w", err)
	}
	receipt, since := resp.Erasure, began
	step := "until the request is taken"
	for {
		if receipt.Step != step {
			report.Steps = append(report.Steps, EraseTime{cmp.Or(step, "until it begins"), time.Since(since).Seconds()})
			step, since = receipt.Step, time.Now()
		}
		if receipt.State == "done" {
			report.Seconds = time.Since(began).Seconds()
			return receipt, nil
		}
		if time.Since(began) > eraseWait {
			return nil, fmt.Errorf("the erasure is not done after %s: it waits %s", eraseWait, receipt.Step)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(erasePoll):
		}
		got, err := client.GetErasure(ctx, &erasurev1.GetErasureRequest{ErasureId: receipt.ErasureId})
		if err != nil {
			return nil, fmt.Errorf("read the receipt: %w", err)
		}
		receipt = got.Erasure
	}
}

// compare puts the receipt beside what was found.
func compare(receipt *erasurev1.Erasure, before, after, words map[string]int, own int) (places []ErasePlace, wrong []string) {
	said := map[string]*erasurev1.Removed{}
	for _, r := range receipt.Removed {
		said[r.Place] = r
	}
	for place := range before {
		r := said[place]
		p := ErasePlace{Place: place, Removed: int(r.GetCount()), Left: int(r.GetLeft()), Before: before[place], After: after[place], Words: words[place]}
		if p == (ErasePlace{Place: place}) {
			continue
		}
		places = append(places, p)
		if p.Left > 0 || p.After > 0 || p.Words > 0 {
			wrong = append(wrong, place+" still has something of the user")
		}
		// It counts more where it also takes what others said about the user's turns.
		if p.Removed < p.Before {
			wrong = append(wrong, fmt.Sprintf("the receipt says %d of %s, and there were %d", p.Removed, place, p.Before))
		}
	}
	if n := before["events_log"]; n < own {
		wrong = append(wrong, fmt.Sprintf("%d of the user's %d events were stored", n, own))
	}
	slices.SortFunc(places, func(a, b ErasePlace) int { return strings.Compare(a.Place, b.Place) })
	slices.Sort(wrong)
	return places, wrong
}

// yardsticks do the bare part of it for other users.
func (b *eraseBench) yardsticks(ctx context.Context, report *EraseReport) error {
	for _, y := range []struct{ what, query string }{
		{"read another user's rows of events_log, without an index", "SELECT count() FROM events_log WHERE project_id = 'default' AND user_id = 'u-17' SETTINGS use_skip_indexes = 0"},
		{"a bare DELETE FROM events_log of another user", "DELETE FROM events_log WHERE project_id = 'default' AND user_id = 'u-17'"},
		{"a bare ALTER TABLE events_log DELETE of a third", "ALTER TABLE events_log DELETE WHERE project_id = 'default' AND user_id = 'u-18' SETTINGS mutations_sync = 2"},
	} {
		fmt.Fprintln(b.w, y.what)
		_, cost, err := b.ch.Ask(ctx, y.query, nil)
		if err != nil {
			return err
		}
		report.Yardsticks = append(report.Yardsticks, EraseTime{y.what, cost.Took.Seconds()})
	}
	return nil
}
