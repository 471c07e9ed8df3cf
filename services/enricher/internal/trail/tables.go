package trail

import (
	"fmt"
	"math"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/honeloop/hone/pkg/clickhouse"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	signalv1 "github.com/honeloop/hone/proto/gen/go/hone/signal/v1"
)

// eventRow is a row of events_log.
type eventRow struct {
	event     *eventv1.Event
	startedAt time.Time
	expiresOn time.Time
	payload   []byte
}

// signalRow is a row of signals_log.
type signalRow struct {
	*signalv1.Signal
	expiresOn time.Time
	payload   []byte
}

// never is the last day that a Date column takes.
var never = time.Date(2149, 6, 6, 0, 0, 0, 0, time.UTC)

// ExpiresOn is the first day on which what happened at a time need not be kept
// any more; 0 days keep it for ever.
func ExpiresOn(at time.Time, days int) time.Time {
	if days == 0 {
		return never
	}
	day := at.UTC().Truncate(24*time.Hour).AddDate(0, 0, days+1)
	if day.After(never) {
		return never
	}
	return day
}

func (s *Store) eventRows(in []EventRow) ([]eventRow, error) {
	out := make([]eventRow, len(in))
	for i, r := range in {
		payload, err := proto.Marshal(r.Event)
		if err != nil {
			return nil, fmt.Errorf("encode event %s: %w", r.Event.EventId, err)
		}
		out[i] = eventRow{r.Event, r.SessionStartedAt, ExpiresOn(r.Event.OccurredAt.AsTime(), s.days(r.Event.ProjectId)), payload}
	}
	return out, nil
}

func (s *Store) signalRows(in []*signalv1.Signal) ([]signalRow, error) {
	out := make([]signalRow, len(in))
	for i, sig := range in {
		payload, err := proto.Marshal(sig)
		if err != nil {
			return nil, fmt.Errorf("encode signal %s: %w", sig.SignalId, err)
		}
		out[i] = signalRow{sig, ExpiresOn(sig.OccurredAt.AsTime(), s.days(sig.ProjectId)), payload}
	}
	return out, nil
}

// eventsLog says how an event becomes a row. Getters of protobuf messages
// answer zero where the message is of another type.
func eventsLog() clickhouse.Table[eventRow] {
	event := func(get func(*eventv1.Event) string) func(eventRow) string {
		return func(r eventRow) string { return get(r.event) }
	}
	interaction := func(get func(*eventv1.Interaction) string) func(eventRow) string {
		return func(r eventRow) string { return get(r.event.GetInteraction()) }
	}
	number := func(get func(*eventv1.Interaction) uint32) func(eventRow) uint32 {
		return func(r eventRow) uint32 { return get(r.event.GetInteraction()) }
	}
	feedback := func(get func(*eventv1.Feedback) string) func(eventRow) string {
		return func(r eventRow) string { return get(r.event.GetFeedback()) }
	}
	behavior := func(get func(*eventv1.Behavior) string) func(eventRow) string {
		return func(r eventRow) string { return get(r.event.GetBehavior()) }
	}
	return clickhouse.Table[eventRow]{Name: "events_log", Columns: []clickhouse.Column[eventRow]{
		clickhouse.Col("project_id", event((*eventv1.Event).GetProjectId)),
		clickhouse.Col("session_id", event((*eventv1.Event).GetSessionId)),
		clickhouse.Col("event_id", event((*eventv1.Event).GetEventId)),
		clickhouse.Col("interaction_id", event((*eventv1.Event).GetInteractionId)),
		clickhouse.Col("type", event((*eventv1.Event).GetType)),
		clickhouse.Col("user_id", event((*eventv1.Event).GetUserId)),
		clickhouse.Col("user_role", event((*eventv1.Event).GetUserRole)),
		clickhouse.Col("environment", event((*eventv1.Event).GetEnvironment)),
		clickhouse.Col("tags", func(r eventRow) map[string]string { return r.event.Tags }),
		clickhouse.Col("occurred_at", func(r eventRow) time.Time { return r.event.OccurredAt.AsTime() }),
		clickhouse.Col("received_at", func(r eventRow) time.Time { return r.event.ReceivedAt.AsTime() }),
		clickhouse.Col("session_started_at", func(r eventRow) time.Time { return r.startedAt }),
		clickhouse.Col("source", event((*eventv1.Event).GetSource)),
		clickhouse.Col("query", interaction((*eventv1.Interaction).GetQuery)),
		clickhouse.Col("system_context", interaction((*eventv1.Interaction).GetSystemContext)),
		clickhouse.Col("output", interaction((*eventv1.Interaction).GetOutput)),
		clickhouse.Col("model", interaction((*eventv1.Interaction).GetModel)),
		clickhouse.Col("model_version", interaction((*eventv1.Interaction).GetModelVersion)),
		clickhouse.Col("prompt_version", interaction((*eventv1.Interaction).GetPromptVersion)),
		clickhouse.Col("applied_patches", func(r eventRow) []string { return r.event.GetInteraction().GetAppliedPatches() }),
		clickhouse.Col("retrieved_sources", func(r eventRow) []string { return sources(r.event.GetInteraction()) }),
		clickhouse.Col("tools", func(r eventRow) []string { return tools(r.event.GetInteraction()) }),
		clickhouse.Col("tool_errors", func(r eventRow) uint32 { return toolErrors(r.event.GetInteraction()) }),
		clickhouse.Col("latency_ms", number((*eventv1.Interaction).GetLatencyMs)),
		clickhouse.Col("input_tokens", number((*eventv1.Interaction).GetInputTokens)),
		clickhouse.Col("output_tokens", number((*eventv1.Interaction).GetOutputTokens)),
		clickhouse.Col("finish_reason", interaction((*eventv1.Interaction).GetFinishReason)),
		clickhouse.Col("language", interaction((*eventv1.Interaction).GetLanguage)),
		clickhouse.Col("alternative_to", interaction((*eventv1.Interaction).GetAlternativeTo)),
		clickhouse.Col("thumb", feedback((*eventv1.Feedback).GetThumb)),
		clickhouse.Col("stars", func(r eventRow) uint8 { return uint8(r.event.GetFeedback().GetStars()) }),
		clickhouse.Col("score", func(r eventRow) *float64 { return score(r).Score }),
		clickhouse.Col("score_min", func(r eventRow) *float64 { return score(r).Min }),
		clickhouse.Col("score_max", func(r eventRow) *float64 { return score(r).Max }),
		clickhouse.Col("categories", func(r eventRow) []string { return r.event.GetFeedback().GetCategories() }),
		clickhouse.Col("comment", feedback((*eventv1.Feedback).GetComment)),
		clickhouse.Col("correction", feedback((*eventv1.Feedback).GetCorrection)),
		clickhouse.Col("edits", func(r eventRow) uint32 { return uint32(len(r.event.GetFeedback().GetEdits())) }),
		clickhouse.Col("retract", func(r eventRow) bool { return r.event.GetFeedback().GetRetract() }),
		clickhouse.Col("preferred_interaction_id", feedback((*eventv1.Feedback).GetPreferredInteractionId)),
		clickhouse.Col("behavior", behavior((*eventv1.Behavior).GetKind)),
		clickhouse.Col("behavior_name", behavior((*eventv1.Behavior).GetName)),
		clickhouse.Col("behavior_text", behavior((*eventv1.Behavior).GetText)),
		clickhouse.Col("timer", func(r eventRow) string { return r.event.GetTimer().GetKind() }),
		clickhouse.Col("revision", func(r eventRow) uint64 { return math.MaxInt64 - uint64(r.startedAt.UnixMilli()) }),
		clickhouse.Col("expires_on", func(r eventRow) time.Time { return r.expiresOn }),
		clickhouse.Col("payload", func(r eventRow) []byte { return r.payload }),
	}}
}

func sources(in *eventv1.Interaction) []string {
	var out []string
	for _, p := range in.GetRetrieved() {
		out = append(out, p.Source)
	}
	return out
}

func tools(in *eventv1.Interaction) []string {
	var out []string
	for _, t := range in.GetTools() {
		out = append(out, t.Name)
	}
	return out
}

func toolErrors(in *eventv1.Interaction) (n uint32) {
	for _, t := range in.GetTools() {
		if t.Error != "" {
			n++
		}
	}
	return n
}

func score(r eventRow) *eventv1.Feedback {
	if f := r.event.GetFeedback(); f != nil {
		return f
	}
	return &eventv1.Feedback{}
}

// signalsLog says how a signal becomes a row.
func signalsLog() clickhouse.Table[signalRow] {
	interaction := func(get func(*eventv1.Interaction) string) func(signalRow) string {
		return func(s signalRow) string { return get(s.Interaction) }
	}
	number := func(get func(*eventv1.Interaction) uint32) func(signalRow) uint32 {
		return func(s signalRow) uint32 { return get(s.Interaction) }
	}
	return clickhouse.Table[signalRow]{Name: "signals_log", Columns: []clickhouse.Column[signalRow]{
		clickhouse.Col("project_id", signalRow.GetProjectId),
		clickhouse.Col("session_id", signalRow.GetSessionId),
		clickhouse.Col("signal_id", signalRow.GetSignalId),
		clickhouse.Col("revision", signalRow.GetRevision),
		clickhouse.Col("interaction_id", signalRow.GetInteractionId),
		clickhouse.Col("user_id", signalRow.GetUserId),
		clickhouse.Col("kind", signalRow.GetKind),
		clickhouse.Col("withdrawn", signalRow.GetWithdrawn),
		clickhouse.Col("waiting", signalRow.GetWaiting),
		clickhouse.Col("polarity", signalRow.GetPolarity),
		clickhouse.Col("rating", func(s signalRow) *float64 { return s.Rating }),
		clickhouse.Col("category", signalRow.GetCategory),
		clickhouse.Col("categories", signalRow.GetCategories),
		clickhouse.Col("severity", signalRow.GetSeverity),
		clickhouse.Col("confidence", signalRow.GetConfidence),
		clickhouse.Col("dissatisfaction", func(s signalRow) *float64 { return s.Dissatisfaction }),
		clickhouse.Col("rating_scale", func(s signalRow) string { return s.GetRated().GetScale() }),
		clickhouse.Col("rating_value", func(s signalRow) *float64 {
			if s.Rated == nil {
				return nil
			}
			return &s.Rated.Value
		}),
		clickhouse.Col("unknown_categories", signalRow.GetUnknownCategories),
		clickhouse.Col("evidence", func(s signalRow) []string {
			var out []string
			for _, e := range s.Evidence {
				out = append(out, e.Detail)
			}
			return out
		}),
		clickhouse.Col("evidence_kinds", func(s signalRow) []string {
			var out []string
			for _, e := range s.Evidence {
				out = append(out, e.Kind)
			}
			return out
		}),
		clickhouse.Col("comment", signalRow.GetComment),
		clickhouse.Col("correction", signalRow.GetCorrection),
		clickhouse.Col("edits", func(s signalRow) uint32 { return uint32(len(s.Edits)) }),
		clickhouse.Col("preferred_interaction_id", signalRow.GetPreferredInteractionId),
		clickhouse.Col("user_role", signalRow.GetUserRole),
		clickhouse.Col("environment", signalRow.GetEnvironment),
		clickhouse.Col("tags", signalRow.GetTags),
		clickhouse.Col("turn", signalRow.GetTurn),
		clickhouse.Col("query", interaction((*eventv1.Interaction).GetQuery)),
		clickhouse.Col("output", interaction((*eventv1.Interaction).GetOutput)),
		clickhouse.Col("model", interaction((*eventv1.Interaction).GetModel)),
		clickhouse.Col("model_version", interaction((*eventv1.Interaction).GetModelVersion)),
		clickhouse.Col("prompt_version", interaction((*eventv1.Interaction).GetPromptVersion)),
		clickhouse.Col("applied_patches", func(s signalRow) []string { return s.GetInteraction().GetAppliedPatches() }),
		clickhouse.Col("language", interaction((*eventv1.Interaction).GetLanguage)),
		clickhouse.Col("latency_ms", number((*eventv1.Interaction).GetLatencyMs)),
		clickhouse.Col("input_tokens", number((*eventv1.Interaction).GetInputTokens)),
		clickhouse.Col("output_tokens", number((*eventv1.Interaction).GetOutputTokens)),
		clickhouse.Col("finish_reason", interaction((*eventv1.Interaction).GetFinishReason)),
		clickhouse.Col("alternative_to", interaction((*eventv1.Interaction).GetAlternativeTo)),
		clickhouse.Col("retrieved_sources", func(s signalRow) []string { return sources(s.Interaction) }),
		clickhouse.Col("tools", func(s signalRow) []string { return tools(s.Interaction) }),
		clickhouse.Col("occurred_at", func(s signalRow) time.Time { return s.OccurredAt.AsTime() }),
		clickhouse.Col("session_started_at", func(s signalRow) time.Time { return s.SessionStartedAt.AsTime() }),
		clickhouse.Col("expires_on", func(s signalRow) time.Time { return s.expiresOn }),
		clickhouse.Col("payload", func(s signalRow) []byte { return s.payload }),
	}}
}
