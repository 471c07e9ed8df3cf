package shop

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"
)

// Hone is all that an application needs of Hone: two HTTP calls.
type Hone struct {
	URL  string // such as "http://127.0.0.1:8080"
	Key  string // a secret key, "hs_..."
	HTTP *http.Client
}

// Event is what happened, in the collector's JSON.
type Event struct {
	ID            string            `json:"event_id,omitempty"`
	Type          string            `json:"type"`
	SessionID     string            `json:"session_id"`
	InteractionID string            `json:"interaction_id,omitempty"`
	UserID        string            `json:"user_id,omitempty"`
	UserRole      string            `json:"user_role,omitempty"`
	Environment   string            `json:"environment,omitempty"`
	Tags          map[string]string `json:"tags,omitempty"`
	OccurredAt    time.Time         `json:"occurred_at,omitzero"`
	Interaction   *Interaction      `json:"interaction,omitempty"`
	Feedback      *Feedback         `json:"feedback,omitempty"`
	Behavior      *Behavior         `json:"behavior,omitempty"`
}

// Interaction is a turn.
type Interaction struct {
	Query         string      `json:"query"`
	SystemContext string      `json:"system_context,omitempty"`
	Retrieved     []Retrieved `json:"retrieved,omitempty"`
	Output        string      `json:"output"`
	Model         string      `json:"model,omitempty"`
	ModelVersion  string      `json:"model_version,omitempty"`
	PromptVersion string      `json:"prompt_version,omitempty"`
	LatencyMS     int         `json:"latency_ms,omitempty"`
	InputTokens   int         `json:"input_tokens,omitempty"`
	OutputTokens  int         `json:"output_tokens,omitempty"`
}

// Retrieved is a passage that the assistant looked up.
type Retrieved struct {
	Source string `json:"source"`
	Text   string `json:"text"`
}

// Feedback is what a customer says.
type Feedback struct {
	Thumb      string   `json:"thumb,omitempty"`
	Categories []string `json:"categories,omitempty"`
	Comment    string   `json:"comment,omitempty"`
	Correction string   `json:"correction,omitempty"`
}

// Behavior is what a customer does.
type Behavior struct {
	Kind string `json:"kind"`
	Text string `json:"text,omitempty"`
}

// Known is what Hone knows about a question.
type Known struct {
	Case struct {
		ID             string `json:"case_id"`
		Title          string `json:"title"`
		Negatives      int    `json:"negatives"`
		ApprovedAnswer string `json:"approved_answer"`
	} `json:"case"`
	Similarity float64 `json:"similarity"`
}

// Send sends events. It fails where any was refused.
func (h Hone) Send(ctx context.Context, events []Event) error {
	var answer struct {
		Rejected int             `json:"rejected"`
		Results  json.RawMessage `json:"results"`
	}
	if err := h.post(ctx, "/v1/events", map[string]any{"events": events}, &answer); err != nil {
		return err
	}
	if answer.Rejected > 0 {
		return fmt.Errorf("%d events were refused: %s", answer.Rejected, answer.Results)
	}
	return nil
}

// Recall asks what is known about a question.
func (h Hone) Recall(ctx context.Context, query string) ([]Known, error) {
	var answer struct {
		Guidance []Known `json:"guidance"`
	}
	err := h.post(ctx, "/v1/recall", map[string]any{"query": query}, &answer)
	return answer.Guidance, err
}

func (h Hone) post(ctx context.Context, path string, body, answer any) error {
	data, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL+path, bytes.NewReader(data))
	if err != nil {
		return fmt.Errorf("post %s: %w", path, err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+h.Key)
	resp, err := h.HTTP.Do(req)
	if err != nil {
		return fmt.Errorf("post %s: %w", path, err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return fmt.Errorf("post %s: %w", path, err)
	}
	if resp.StatusCode >= 300 {
		return fmt.Errorf("post %s: %s: %s", path, resp.Status, raw)
	}
	if err := json.Unmarshal(raw, answer); err != nil {
		return fmt.Errorf("post %s: decode answer: %w", path, err)
	}
	return nil
}
