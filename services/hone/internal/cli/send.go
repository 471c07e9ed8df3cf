package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/honeloop/hone/services/hone/internal/endpoints"
)

func newSendCommand(g *global) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "send [FILE]",
		Short: "Send one event or a batch",
		Long: `Send one event, or {"events": [...]}, as JSON from a file or standard input, just as an
application would. The subcommands make an event from flags.`,
		Example: `  hone send interaction --session s-1 --interaction i-1 --query "Can I return worn shoes?" --output "Yes."
  hone send feedback --session s-1 --interaction i-1 --thumb down --category factually_incorrect \
      --comment "The policy changed." --correction "Only unworn shoes."
  hone send behavior --session s-1 --interaction i-1 --kind copied
  hone send events.json
  echo '{"type":"behavior", "session_id":"s-1", "behavior":{"kind":"left"}}' | hone send`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			in := cmd.InOrStdin()
			if len(args) == 1 && args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return fmt.Errorf("open events: %w", err)
				}
				defer f.Close()
				in = f
			}
			body, err := io.ReadAll(io.LimitReader(in, maxSend+1))
			if err != nil {
				return fmt.Errorf("read events: %w", err)
			}
			if len(body) > maxSend {
				return fmt.Errorf("more than %d bytes in one request: use 'hone import jsonl'", maxSend)
			}
			return g.send(cmd, body)
		},
	}
	cmd.AddCommand(g.newSendInteraction(), g.newSendFeedback(), g.newSendBehavior())
	return cmd
}

// maxSend bounds a request of `hone send`, in bytes.
const maxSend = 16 << 20

// about are the flags of every event.
type about struct {
	id, session, interaction, user, role, environment string
	tags                                              map[string]string
}

func (a *about) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&a.id, "id", "", "event id (derived from the content where missing)")
	f.StringVar(&a.session, "session", "", "session id")
	f.StringVar(&a.interaction, "interaction", "", "interaction id")
	f.StringVar(&a.user, "user", "", "user id")
	f.StringVar(&a.role, "role", "", "user role")
	f.StringVar(&a.environment, "environment", "", "environment, such as production")
	f.StringToStringVar(&a.tags, "tag", nil, "tag, as key=value (repeatable)")
	_ = cmd.MarkFlagRequired("session") // the flag exists
}

func (a *about) event(kind string, payload map[string]any) map[string]any {
	e := map[string]any{"type": kind, "session_id": a.session, kind: payload}
	for k, v := range map[string]string{"event_id": a.id, "interaction_id": a.interaction, "user_id": a.user,
		"user_role": a.role, "environment": a.environment} {
		if v != "" {
			e[k] = v
		}
	}
	if len(a.tags) > 0 {
		e["tags"] = a.tags
	}
	return e
}

func (g *global) sendEvent(cmd *cobra.Command, event map[string]any) error {
	body, err := json.Marshal(event)
	if err != nil {
		return fmt.Errorf("encode event: %w", err)
	}
	return g.send(cmd, body)
}

func (g *global) newSendInteraction() *cobra.Command {
	var a about
	text := map[string]*string{}
	var latency, in, out uint32
	cmd := &cobra.Command{Use: "interaction", Short: "Send a turn", Args: cobra.NoArgs}
	a.flags(cmd)
	for name, help := range map[string]string{"query": "what the user asked", "output": "what the model answered",
		"system-context": "the system prompt", "model": "model", "model-version": "model version", "prompt-version": "prompt version"} {
		text[name] = cmd.Flags().String(name, "", help)
	}
	cmd.Flags().Uint32Var(&latency, "latency-ms", 0, "latency in milliseconds")
	cmd.Flags().Uint32Var(&in, "input-tokens", 0, "input tokens")
	cmd.Flags().Uint32Var(&out, "output-tokens", 0, "output tokens")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		p := map[string]any{}
		for name, v := range text {
			if *v != "" {
				p[snake(name)] = *v
			}
		}
		for name, v := range map[string]uint32{"latency_ms": latency, "input_tokens": in, "output_tokens": out} {
			if v != 0 {
				p[name] = v
			}
		}
		return g.sendEvent(cmd, a.event("interaction", p))
	}
	return cmd
}

func (g *global) newSendFeedback() *cobra.Command {
	var a about
	var thumb, comment, correction, preferred string
	var categories []string
	var stars uint32
	var retract bool
	cmd := &cobra.Command{Use: "feedback", Short: "Send what a user said about a turn", Args: cobra.NoArgs}
	a.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&thumb, "thumb", "", "up or down")
	f.Uint32Var(&stars, "stars", 0, "1 to 5")
	f.StringSliceVar(&categories, "category", nil, "category, such as factually_incorrect (repeatable)")
	f.StringVar(&comment, "comment", "", "comment")
	f.StringVar(&correction, "correction", "", "a better answer")
	f.StringVar(&preferred, "preferred", "", "id of the interaction that the user preferred")
	f.BoolVar(&retract, "retract", false, "withdraw earlier feedback")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		p := map[string]any{}
		for name, v := range map[string]string{"thumb": thumb, "comment": comment, "correction": correction, "preferred_interaction_id": preferred} {
			if v != "" {
				p[name] = v
			}
		}
		if stars != 0 {
			p["stars"] = stars
		}
		if len(categories) > 0 {
			p["categories"] = categories
		}
		if retract {
			p["retract"] = true
		}
		return g.sendEvent(cmd, a.event("feedback", p))
	}
	return cmd
}

func (g *global) newSendBehavior() *cobra.Command {
	var a about
	var kind, name, text string
	cmd := &cobra.Command{Use: "behavior", Short: "Send what a user did", Args: cobra.NoArgs}
	a.flags(cmd)
	cmd.Flags().StringVar(&kind, "kind", "", "copied, regenerated, stopped, edited_prompt, followed_up, left, asked_for_human or custom")
	cmd.Flags().StringVar(&name, "name", "", "name of a custom behavior")
	cmd.Flags().StringVar(&text, "text", "", "what was copied, or the edited prompt")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		p := map[string]any{"kind": kind}
		if name != "" {
			p["name"] = name
		}
		if text != "" {
			p["text"] = text
		}
		return g.sendEvent(cmd, a.event("behavior", p))
	}
	return cmd
}

func snake(flag string) string {
	return string(bytes.ReplaceAll([]byte(flag), []byte("-"), []byte("_")))
}

type apiError struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Field   string `json:"field"`
}

func (e apiError) String() string {
	if e.Field != "" {
		return e.Field + ": " + e.Message
	}
	return e.Message
}

type sendAnswer struct {
	Results []struct {
		EventID string    `json:"event_id"`
		Error   *apiError `json:"error"`
	} `json:"results"`
	Accepted int       `json:"accepted"`
	Rejected int       `json:"rejected"`
	Error    *apiError `json:"error"`
}

func (g *global) send(cmd *cobra.Command, body []byte) error {
	e, err := endpoints.Read(g.dir)
	if err != nil {
		return err
	}
	raw, code, err := post(cmd.Context(), e, "/v1/events", body)
	if err != nil {
		return err
	}
	var answer sendAnswer
	if err := json.Unmarshal(raw, &answer); err != nil {
		return fmt.Errorf("the collector answered %d with what is not JSON: %w", code, err)
	}
	if g.json {
		if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%s\n", bytes.TrimSpace(raw)); err != nil {
			return err
		}
	} else {
		for i, r := range answer.Results {
			if r.Error != nil {
				fmt.Fprintf(cmd.OutOrStdout(), "refused   event %d: %s\n", i, r.Error)
			} else {
				fmt.Fprintf(cmd.OutOrStdout(), "accepted  %s\n", r.EventID)
			}
		}
	}
	if answer.Error != nil {
		return fmt.Errorf("refused (%s): %s", strconv.Itoa(code), answer.Error)
	}
	if answer.Rejected > 0 {
		return fmt.Errorf("%d of %d events were refused", answer.Rejected, answer.Rejected+answer.Accepted)
	}
	return nil
}

// post sends JSON with the secret key. It returns the body and the status of
// any answer.
func post(ctx context.Context, e endpoints.Endpoints, path string, body []byte) ([]byte, int, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, e.HTTP+path, bytes.NewReader(body))
	if err != nil {
		return nil, 0, fmt.Errorf("send to %s: %w", path, err)
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Authorization", "Bearer "+e.SecretKey)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, 0, fmt.Errorf("send to %s: %w", path, err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, 64<<20))
	if err != nil {
		return nil, 0, fmt.Errorf("read answer of %s: %w", path, err)
	}
	return raw, resp.StatusCode, nil
}
