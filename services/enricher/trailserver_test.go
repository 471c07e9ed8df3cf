package enricher

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"github.com/honeloop/hone/pkg/auth"
	"github.com/honeloop/hone/pkg/ids"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"
	trailv1 "github.com/honeloop/hone/proto/gen/go/hone/trail/v1"

	"github.com/honeloop/hone/services/enricher/internal/sessions"
	"github.com/honeloop/hone/services/enricher/internal/trail"
	"github.com/honeloop/hone/services/enricher/internal/trail/trailtest"
)

var testDay = time.Date(2026, 11, 24, 9, 30, 0, 0, time.UTC)

// asProject is the context of a caller with a key of the project.
func asProject(t *testing.T, project string) context.Context {
	t.Helper()
	return auth.WithKey(t.Context(), auth.Key{ProjectID: project})
}

func save(t *testing.T, conn driver.Conn, events []*eventv1.Event, signals []*signalv1.Signal) {
	t.Helper()
	store := trail.NewStore(conn)
	var rows []trail.EventRow
	for _, e := range events {
		rows = append(rows, trail.EventRow{Event: e, SessionStartedAt: testDay})
	}
	if err := store.SaveEvents(t.Context(), rows); err != nil {
		t.Fatal(err)
	}
	if err := store.SaveSignals(t.Context(), signals); err != nil {
		t.Fatal(err)
	}
}

// opinion is a signal about an interaction.
func opinion(e *eventv1.Event, polarity string, categories ...string) *signalv1.Signal {
	return &signalv1.Signal{SignalId: ids.Derive("sg", e.SessionId, e.InteractionId), ProjectId: e.ProjectId, SessionId: e.SessionId,
		InteractionId: e.InteractionId, Kind: "explicit", Revision: 1, Polarity: polarity, Categories: categories, OccurredAt: e.OccurredAt}
}

func TestGetSessionPagesThroughAllOfALongSession(t *testing.T) {
	conn := trailtest.Conn(t)
	server := &trailServer{store: sessions.NewStore(conn)}
	const turns = 1250
	var events []*eventv1.Event
	var signals []*signalv1.Signal
	for i := range turns {
		// Several in one millisecond, so that ids decide.
		at := timestamppb.New(testDay.Add(time.Duration(i/3) * time.Millisecond))
		e := &eventv1.Event{EventId: fmt.Sprintf("e-%05d", i), ProjectId: "p", SessionId: "long", InteractionId: fmt.Sprintf("i-%05d", i), Type: "interaction", OccurredAt: at,
			Payload: &eventv1.Event_Interaction{Interaction: &eventv1.Interaction{Query: "?", Output: "!"}}}
		events = append(events, e)
		if i%100 == 0 {
			signals = append(signals, opinion(e, "negative"))
		}
	}
	signals[0].Withdrawn = true
	early := opinion(&eventv1.Event{ProjectId: "p", SessionId: "long", InteractionId: "missing", OccurredAt: events[0].OccurredAt}, "negative")
	early.Waiting = true
	gone := opinion(&eventv1.Event{ProjectId: "p", SessionId: "long", InteractionId: "never came", OccurredAt: events[0].OccurredAt}, "negative")
	save(t, conn, events, append(signals, early, gone))
	save(t, conn, events[:100], nil) // written again
	for _, insert := range []string{
		`INSERT INTO decisions_log (project_id, session_id, signal_id, decision_id, case_id, decided_at, payload) VALUES ('p', 'long', '` + signals[3].SignalId + `', 'dc', 'c-1', now(), unhex('` + decisionHex(signals[3].SignalId) + `'))`,
		`INSERT INTO cases_log (project_id, case_id, title, state) VALUES ('p', 'c-1', 'What?', 'new')`,
		`INSERT INTO reviews_log (project_id, review_id, signal_id, revision, created_at) VALUES ('p', '` + ids.Derive("rv", "p", signals[3].SignalId) + `', '` + signals[3].SignalId + `', 1, now())`,
	} {
		if err := conn.Exec(t.Context(), insert); err != nil {
			t.Fatal(err)
		}
	}

	var got []string
	var found []string
	var outcomes []string
	token := ""
	pages := 0
	for {
		pages++
		resp, err := server.GetSession(asProject(t, "p"), &trailv1.GetSessionRequest{SessionId: "long", PageSize: 400, PageToken: token})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range resp.Trail.Events {
			got = append(got, e.EventId)
		}
		for _, s := range resp.Trail.Signals {
			found = append(found, s.InteractionId)
		}
		for _, o := range resp.Trail.Outcomes {
			outcomes = append(outcomes, o.Kind+" "+o.State+" "+o.SignalId)
		}
		if resp.Trail.TotalEvents != turns {
			t.Errorf("%d events in all, want %d", resp.Trail.TotalEvents, turns)
		}
		if token = resp.NextPageToken; token == "" {
			break
		}
	}
	var want []string
	for _, e := range events {
		want = append(want, e.EventId)
	}
	if pages != 4 || !slices.Equal(got, want) {
		t.Errorf("%d events on %d pages, want each of %d once, in order, on 4", len(got), pages, turns)
	}
	if len(found) != len(signals)+2 || !slices.Contains(found, "missing") || !slices.Contains(found, "never came") {
		t.Errorf("signals about %v", found)
	}
	if want := []string{"case new " + signals[3].SignalId, "review open " + signals[3].SignalId}; !slices.Equal(outcomes, want) {
		t.Errorf("outcomes %v, want %v", outcomes, want)
	}

	newest, err := server.GetSession(asProject(t, "p"), &trailv1.GetSessionRequest{SessionId: "long", PageSize: 2, NewestInteractions: true})
	if err != nil || len(newest.Trail.Signals) > 0 || newest.NextPageToken != "" || len(newest.Trail.Events) != 2 ||
		newest.Trail.Events[0].EventId != want[turns-2] || newest.Trail.Events[1].EventId != want[turns-1] {
		t.Errorf("newest interactions: %v, %v", newest, err)
	}
	for _, newest := range []bool{false, true} {
		req := &trailv1.GetSessionRequest{SessionId: "long", NewestInteractions: newest}
		if _, err := server.GetSession(asProject(t, "other"), req); status.Code(err) != codes.NotFound {
			t.Errorf("another project, newest %t: %v", newest, err)
		}
	}
	for field, req := range map[string]*trailv1.GetSessionRequest{
		"session_id": {}, "page_size": {SessionId: "long", PageSize: 1001}, "page_token": {SessionId: "long", PageToken: "?"},
	} {
		if _, err := server.GetSession(asProject(t, "p"), req); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), field) {
			t.Errorf("a bad %s: %v", field, err)
		}
	}
}

func TestSearchSessions(t *testing.T) {
	conn := trailtest.Conn(t)
	server := &trailServer{store: sessions.NewStore(conn)}
	var events []*eventv1.Event
	var signals []*signalv1.Signal
	for i, q := range []string{"Can I return worn SHOES?", "Where is my parcel?", "It's 100% 'quoted' \\ {text:String}"} {
		at := timestamppb.New(testDay.Add(time.Duration(i) * time.Hour))
		e := &eventv1.Event{EventId: "e", ProjectId: "p", SessionId: fmt.Sprintf("s-%d", i), InteractionId: "i", Type: "interaction", OccurredAt: at,
			UserId: fmt.Sprintf("u-%d", i), UserRole: "customer", Environment: "production",
			Payload: &eventv1.Event_Interaction{Interaction: &eventv1.Interaction{Query: q, Output: strings.Repeat("Long. ", 60) + "Yes.", Model: "m", ModelVersion: fmt.Sprint(i % 2)}}}
		f := &eventv1.Event{EventId: "f", ProjectId: "p", SessionId: e.SessionId, InteractionId: "i", Type: "feedback", OccurredAt: at,
			Payload: &eventv1.Event_Feedback{Feedback: &eventv1.Feedback{Thumb: "down", Comment: fmt.Sprintf("comment %d", i)}}}
		events = append(events, e, f)
		signals = append(signals, opinion(e, "negative", []string{"outdated", "wrong_tone", "outdated"}[i]))
	}
	save(t, conn, events, signals)

	from, to := timestamppb.New(testDay.Add(-time.Hour)), timestamppb.New(testDay.Add(24*time.Hour))
	for _, tt := range []struct {
		name string
		req  *trailv1.SearchSessionsRequest
		want string
	}{
		{"all, newest first", &trailv1.SearchSessionsRequest{}, "s-2 s-1 s-0"},
		{"user", &trailv1.SearchSessionsRequest{UserId: "u-1"}, "s-1"},
		{"role and version", &trailv1.SearchSessionsRequest{UserRole: "customer", ModelVersion: "0"}, "s-2 s-0"},
		{"category", &trailv1.SearchSessionsRequest{Category: "outdated", Model: "m"}, "s-2 s-0"},
		{"polarity", &trailv1.SearchSessionsRequest{Polarity: "positive"}, ""},
		{"text in another case", &trailv1.SearchSessionsRequest{Text: "worn shoes"}, "s-0"},
		{"text of feedback, of an interaction", &trailv1.SearchSessionsRequest{Text: "comment", ModelVersion: "1"}, "s-1"},
		{"text is data", &trailv1.SearchSessionsRequest{Text: `100% 'quoted' \ {text:String}`}, "s-2"},
		{"text is no pattern", &trailv1.SearchSessionsRequest{Text: "%"}, "s-2"},
		{"no such role", &trailv1.SearchSessionsRequest{UserRole: "' OR 1 = 1 --"}, ""},
		{"time", &trailv1.SearchSessionsRequest{From: timestamppb.New(testDay.Add(time.Hour)), To: timestamppb.New(testDay.Add(2 * time.Hour))}, "s-1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.req.From == nil {
				tt.req.From, tt.req.To = from, to
			}
			resp, err := server.SearchSessions(asProject(t, "p"), tt.req)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, s := range resp.Sessions {
				got = append(got, s.SessionId)
			}
			if strings.Join(got, " ") != tt.want {
				t.Errorf("found %v, want %s", got, tt.want)
			}
		})
	}

	var got []string
	req := &trailv1.SearchSessionsRequest{From: from, To: to, Text: "yes.", PageSize: 2}
	for {
		resp, err := server.SearchSessions(asProject(t, "p"), req)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range resp.Sessions {
			got = append(got, s.SessionId)
			if s.Events != 2 || s.Interactions != 1 || s.Negative != 1 || len(s.Categories) != 1 || s.FirstQuery == "" || !strings.HasSuffix(s.Match, "Yes.") || len(s.UserIds) != 1 {
				t.Errorf("summary %v", s)
			}
		}
		if req.PageToken = resp.NextPageToken; req.PageToken == "" {
			break
		}
	}
	if strings.Join(got, " ") != "s-2 s-1 s-0" {
		t.Errorf("pages have %v", got)
	}
	if resp, err := server.SearchSessions(asProject(t, "other"), &trailv1.SearchSessionsRequest{From: from, To: to}); err != nil || len(resp.Sessions) != 0 {
		t.Errorf("another project sees %v, %v", resp, err)
	}
	for field, bad := range map[string]*trailv1.SearchSessionsRequest{
		"polarity": {Polarity: "bad"}, "text": {Text: strings.Repeat("x", 201)}, "from": {From: to, To: from}, "page_size": {PageSize: 101}, "page_token": {PageToken: "!"},
	} {
		if _, err := server.SearchSessions(asProject(t, "p"), bad); status.Code(err) != codes.InvalidArgument || !strings.Contains(err.Error(), field) {
			t.Errorf("a bad %s: %v", field, err)
		}
	}
}
