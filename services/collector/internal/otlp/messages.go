package otlp

import (
	"slices"
	"strings"

	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
)

// message is one message to or from a model.
type message struct {
	role, finish string
	texts        []string
	calls        []call
	results      []call // of calls in messages before
}

func (m *message) text() string { return strings.Join(m.texts, "\n") }

func words(role, s string) message { return message{role: role, texts: []string{s}} }

// call is a call of a tool, its result, or both.
type call struct{ id, name, arguments, result string }

// messagesOf reads messages from a value in any of the shapes that conventions
// and makers of models have: a text, a list of messages, one message, a request,
// a response. Texts that are no JSON are one message of role.
func messagesOf(v any, role string) []message {
	switch v := v.(type) {
	case nil:
		return nil
	case string:
		if v == "" {
			return nil
		}
		parsed := fromJSON(v, nil)
		if messages := fromStructure(parsed, role); len(messages) > 0 {
			return messages
		}
		return []message{words(role, v)}
	default:
		if messages := fromStructure(v, role); len(messages) > 0 {
			return messages
		}
		if t := text(v); t != "" && t != "[]" && t != "{}" {
			return []message{words(role, t)}
		}
		return nil
	}
}

// fromStructure is empty where v has none of the known shapes.
func fromStructure(v any, role string) []message {
	switch v := v.(type) {
	case map[string]any:
		if list, ok := v["messages"].([]any); ok {
			var out []message
			if s := contentText(v["system"]); s != "" {
				out = append(out, words("system", s))
			}
			return append(out, fromStructure(list, role)...)
		}
		if choices, ok := v["choices"].([]any); ok {
			return fromStructure(choices, role)
		}
		if m, ok := one(v, role); ok {
			return []message{m}
		}
	case []any:
		var out []message
		parts := message{role: role}
		for _, e := range v {
			switch e := e.(type) {
			case string:
				out = append(out, words(role, e))
			case []any: // a batch: LangChain has one list per run
				out = append(out, fromStructure(e, role)...)
			case map[string]any:
				if m, ok := one(e, role); ok {
					out = append(out, m)
				} else {
					parts.part(e)
				}
			}
		}
		if !parts.empty() {
			out = append([]message{parts}, out...)
		}
		return out
	}
	return nil
}

// one reads an object that is a message, or that wraps one.
func one(m map[string]any, role string) (message, bool) {
	if inner, ok := m["message"].(map[string]any); ok { // of a choice
		out, ok := one(inner, role)
		out.finish = firstText(out.finish, text(member(m, "finish_reason", "stop_reason")))
		return out, ok
	}
	_, hasRole := m["role"].(string)
	_, hasParts := m["parts"].([]any)
	_, isPart := m["type"].(string)
	if !hasRole && !hasParts && (isPart || m["content"] == nil && m["tool_calls"] == nil) {
		return message{}, false
	}
	out := message{role: firstText(strings.ToLower(text(m["role"])), role), finish: text(member(m, "finish_reason", "stop_reason"))}
	if isTool(out.role) {
		if parts, ok := m["content"].([]any); ok {
			out.partsOf(parts)
			out.texts = nil
		}
		if _, inParts := m["parts"]; len(out.results) == 0 && !inParts {
			out.results = append(out.results, call{id: text(member(m, "tool_call_id", "id")), name: text(m["name"]), result: contentText(m["content"])})
		}
	} else if parts, ok := m["content"].([]any); ok {
		out.partsOf(parts)
	} else {
		out.add(contentText(m["content"]))
	}
	if parts, ok := m["parts"].([]any); ok {
		out.partsOf(parts)
	}
	if calls, ok := m["tool_calls"].([]any); ok {
		for _, c := range calls {
			if c, ok := c.(map[string]any); ok {
				out.call(c)
			}
		}
	}
	return out, true
}

func (m *message) empty() bool { return len(m.texts) == 0 && len(m.calls) == 0 && len(m.results) == 0 }

func (m *message) add(s string) {
	if s != "" {
		m.texts = append(m.texts, s)
	}
}

func (m *message) call(c map[string]any) {
	function, ok := c["function"].(map[string]any)
	if !ok {
		function = c
	}
	m.calls = append(m.calls, call{
		id: text(member(c, "id", "toolCallId", "call_id")), name: text(member(function, "name", "toolName")), arguments: text(member(function, "arguments", "input", "args")),
	})
}

func (m *message) partsOf(parts []any) {
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			m.add(p)
		case map[string]any:
			m.part(p)
		}
	}
}

// part adds one part of a message. Parts that are no text and no tool, such as
// pictures and reasoning, have no place in an interaction.
func (m *message) part(p map[string]any) {
	switch text(p["type"]) {
	case "", "text", "input_text", "output_text":
		m.add(contentText(member(p, "content", "text")))
	case "tool_call", "tool_use", "function_call", "tool-call":
		m.call(p)
	case "tool_call_response", "tool_result", "function_call_output", "tool-result":
		m.results = append(m.results, call{
			id: text(member(p, "id", "tool_use_id", "call_id", "toolCallId")), name: text(member(p, "name", "toolName")), result: contentText(member(p, "response", "result", "content", "output")),
		})
	}
}

// contentText is the text of a content: a text, or parts of which some are.
func contentText(v any) string {
	switch v := v.(type) {
	case []any:
		var m message
		m.partsOf(v)
		if len(m.texts) > 0 || len(v) == 0 {
			return m.text()
		}
	case map[string]any:
		if s, ok := member(v, "text", "content").(string); ok {
			return s
		}
	}
	return text(v)
}

// flattened reads messages from a flattened list of attributes.
func flattened(list []attributes, role string) []message {
	var out []message
	for _, a := range list {
		m := message{role: firstText(strings.ToLower(a.text(messageRole)), role), finish: a.text(messageFinish)}
		content := contentText(fromJSON(a.text(messageContent), a.text(messageContent)))
		for _, p := range a.list(messageParts) {
			if t := p.text(partType); t == "" || t == "text" {
				m.add(p.text(partText))
			}
		}
		if isTool(m.role) {
			m.results = append(m.results, call{id: a.text(messageCallID), result: firstText(content, m.text())})
			m.texts = nil
		} else if len(m.texts) == 0 {
			m.add(content)
		}
		for _, name := range messageCalls {
			for _, c := range a.list(name) {
				m.calls = append(m.calls, call{id: c.text(callID), name: c.text(callName), arguments: c.text(callArguments)})
			}
		}
		out = append(out, m)
	}
	return out
}

// conversation is what a model was sent and what it said.
type conversation struct{ system, input, output []message }

func (c *conversation) empty() bool {
	said := func(messages []message) bool {
		return slices.ContainsFunc(messages, func(m message) bool { return !m.empty() })
	}
	return !said(c.system) && !said(c.input) && !said(c.output)
}

// fill writes the conversation's last turn: what the user said last, all system
// texts, the tools called since the user spoke, and the first of the answers. It
// returns the places in x.Tools by the ids of the calls.
func (c *conversation) fill(x *eventv1.Interaction) map[string]int {
	last := -1
	var system []string
	for _, m := range c.system {
		if len(m.texts) > 0 {
			system = append(system, m.text())
		}
	}
	for i, m := range c.input {
		switch {
		case len(m.texts) == 0:
		case isUser(m.role):
			last = i
		case isSystem(m.role):
			system = append(system, m.text())
		}
	}
	x.SystemContext = strings.Join(system, "\n\n")
	if last >= 0 {
		x.Query = c.input[last].text()
	}
	places := map[string]int{}
	tools := func(m message) {
		for _, t := range m.calls {
			if t.name == "" {
				continue
			}
			if t.id != "" {
				places[t.id] = len(x.Tools)
			}
			x.Tools = append(x.Tools, &eventv1.ToolCall{Name: t.name, Arguments: t.arguments})
		}
		for _, t := range m.results {
			if i, ok := places[t.id]; ok {
				x.Tools[i].Result = t.result
			} else if t.name != "" {
				x.Tools = append(x.Tools, &eventv1.ToolCall{Name: t.name, Result: t.result})
			}
		}
	}
	for _, m := range c.input[last+1:] {
		tools(m)
	}
	for _, m := range c.output {
		if x.Output == "" && len(m.texts) > 0 {
			x.Output = m.text()
		}
		x.FinishReason = firstText(x.FinishReason, m.finish)
		tools(m)
	}
	return places
}
