package embedding

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/metric"

	"github.com/honeloop/hone/pkg/telemetry"
)

// Limits of one request to an endpoint.
const (
	maxRequestBytes  = 512 << 10 // of text; a longer text goes alone
	maxResponseBytes = 64 << 20
	firstBackoff     = 200 * time.Millisecond
	maxBackoff       = 5 * time.Second
)

// ErrRejected says that the endpoint refused the input, so that trying again
// does not help.
var ErrRejected = errors.New("embedding endpoint refused the input")

// openAI asks an OpenAI-compatible endpoint.
type openAI struct {
	cfg        Config
	endpoint   string
	client     *http.Client
	dimensions atomic.Int64
	retries    metric.Int64Counter
	tel        *telemetry.Telemetry
}

func newOpenAI(cfg Config, tel *telemetry.Telemetry) (*openAI, error) {
	retries, err := tel.Meter.Int64Counter("hone.embedding.retries", metric.WithDescription("Requests to the embeddings endpoint that were sent again."))
	if err != nil {
		return nil, fmt.Errorf("create counter of retries: %w", err)
	}
	p := &openAI{
		cfg: cfg, endpoint: strings.TrimRight(cfg.URL, "/") + "/embeddings",
		client: &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone()}, retries: retries, tel: tel,
	}
	p.dimensions.Store(int64(cfg.Dimensions))
	return p, nil
}

// Model names the vector space.
func (p *openAI) Model() string {
	if p.cfg.Dimensions > 0 {
		return fmt.Sprintf("%s/%d", p.cfg.Model, p.cfg.Dimensions)
	}
	return p.cfg.Model
}

// Dimensions is the length of a vector, 0 before the first answer.
func (p *openAI) Dimensions() int { return int(p.dimensions.Load()) }

// Close drops idle connections.
func (p *openAI) Close() error {
	p.client.CloseIdleConnections()
	return nil
}

// Embed implements Embedder. It sends one batch at a time and tries again, up to
// the timeout, what failed for now.
func (p *openAI) Embed(ctx context.Context, texts []string) ([][]float32, error) {
	if err := checkLimits(texts); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, p.cfg.Timeout)
	defer cancel()
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("embed texts: %w", err)
	}
	out := make([][]float32, 0, len(texts))
	for len(out) < len(texts) {
		batch := p.batch(texts[len(out):])
		vectors, err := p.retry(ctx, batch)
		if err != nil {
			return nil, fmt.Errorf("embed texts %d to %d at the endpoint: %w", len(out), len(out)+len(batch)-1, err)
		}
		out = append(out, vectors...)
	}
	return out, nil
}

// batch is the texts that fit into one request, at least one.
func (p *openAI) batch(texts []string) []string {
	n, size := 0, 0
	for n < len(texts) && n < p.cfg.BatchTexts {
		size += len(texts[n])
		if n > 0 && size > maxRequestBytes {
			break
		}
		n++
	}
	return texts[:n]
}

// temporary is a failure that may pass, after a wait if the endpoint named one.
type temporary struct {
	error
	after time.Duration
}

func (e temporary) Unwrap() error { return e.error }

func (p *openAI) retry(ctx context.Context, texts []string) ([][]float32, error) {
	for backoff := firstBackoff; ; backoff = min(2*backoff, maxBackoff) {
		vectors, err := p.request(ctx, texts)
		var passing temporary
		if err == nil || !errors.As(err, &passing) {
			return vectors, err
		}
		wait := max(passing.after, backoff/2+rand.N(backoff))
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= wait {
			return nil, fmt.Errorf("no time left to try again in %s: %w", wait.Round(time.Millisecond), err)
		}
		p.retries.Add(ctx, 1)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil, fmt.Errorf("wait to try again: %w", errors.Join(ctx.Err(), err))
		}
	}
}

type openAIRequest struct {
	Model          string   `json:"model"`
	Input          []string `json:"input"`
	Dimensions     int      `json:"dimensions,omitempty"`
	EncodingFormat string   `json:"encoding_format"`
}

type openAIResponse struct {
	Data []struct {
		Index     *int            `json:"index"`
		Embedding json.RawMessage `json:"embedding"`
	} `json:"data"`
}

func (p *openAI) request(ctx context.Context, texts []string) ([][]float32, error) {
	input := make([]string, len(texts))
	for i, t := range texts {
		if input[i] = t; t == "" {
			input[i] = " " // endpoints refuse an empty text
		}
	}
	// A quarter of the size of decimal numbers; those are understood as well.
	body, err := json.Marshal(openAIRequest{p.cfg.Model, input, p.cfg.Dimensions, "base64"})
	if err != nil {
		return nil, fmt.Errorf("encode request: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, p.endpoint, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("create request: %w", err)
	}
	req.Header.Set("Content-Type", "application/json")
	if p.cfg.APIKey != "" {
		req.Header.Set("Authorization", "Bearer "+p.cfg.APIKey)
	}
	resp, err := p.client.Do(req)
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("send request: %w", ctx.Err())
		}
		return nil, temporary{error: fmt.Errorf("send request: %w", err)}
	}
	defer func() { _ = resp.Body.Close() }() // only read
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxResponseBytes+1))
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("read answer: %w", ctx.Err())
		}
		return nil, temporary{error: fmt.Errorf("read answer: %w", err)}
	}
	if resp.StatusCode != http.StatusOK {
		return nil, p.refusal(ctx, resp, answer)
	}
	if len(answer) > maxResponseBytes {
		return nil, fmt.Errorf("read answer: over %d bytes", maxResponseBytes)
	}
	return p.vectors(answer, len(texts))
}

// refusal is the error of an answer that is not 200. What the endpoint says in
// words may repeat the user's text, so it is only logged for debugging.
func (p *openAI) refusal(ctx context.Context, resp *http.Response, answer []byte) error {
	var said struct {
		Error struct {
			Type string `json:"type"`
			Code any    `json:"code"`
		} `json:"error"`
	}
	err := fmt.Errorf("endpoint answered %s", resp.Status)
	if json.Unmarshal(answer, &said) == nil && said.Error.Type != "" {
		err = fmt.Errorf("endpoint answered %s: type %s, code %v", resp.Status, said.Error.Type, said.Error.Code)
	}
	p.tel.Log.DebugContext(ctx, "embedding endpoint refused", "status", resp.StatusCode, "answer", string(answer[:min(len(answer), 2000)]))
	switch code := resp.StatusCode; {
	case code == http.StatusTooManyRequests || code == http.StatusRequestTimeout || code >= 500:
		return temporary{err, retryAfter(resp.Header.Get("Retry-After"), time.Now())}
	case code == http.StatusBadRequest || code == http.StatusRequestEntityTooLarge || code == http.StatusUnprocessableEntity:
		return fmt.Errorf("%w: %w", ErrRejected, err)
	default:
		return err
	}
}

// retryAfter reads seconds or a date; 0 where there is neither.
func retryAfter(header string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseFloat(header, 64); err == nil && seconds > 0 && seconds < 1e6 {
		return time.Duration(seconds * float64(time.Second))
	}
	if at, err := http.ParseTime(header); err == nil {
		return max(0, at.Sub(now))
	}
	return 0
}

// vectors reads an answer for n texts, in the order of the texts.
func (p *openAI) vectors(answer []byte, n int) ([][]float32, error) {
	var resp openAIResponse
	if err := json.Unmarshal(answer, &resp); err != nil {
		return nil, fmt.Errorf("decode answer: %w", err)
	}
	if len(resp.Data) != n {
		return nil, fmt.Errorf("decode answer: %d vectors for %d texts", len(resp.Data), n)
	}
	out := make([][]float32, n)
	for i, d := range resp.Data {
		if d.Index == nil || *d.Index < 0 || *d.Index >= n || out[*d.Index] != nil {
			return nil, fmt.Errorf("decode answer: vector %d has no index of its own from 0 to %d", i, n-1)
		}
		v, err := decodeVector(d.Embedding)
		if err != nil {
			return nil, fmt.Errorf("decode answer: vector %d: %w", i, err)
		}
		if !p.dimensions.CompareAndSwap(0, int64(len(v))) && p.Dimensions() != len(v) {
			return nil, fmt.Errorf("decode answer: vector %d has %d dimensions, want %d", i, len(v), p.Dimensions())
		}
		if !Normalize(v) {
			return nil, fmt.Errorf("decode answer: vector %d has no direction", i)
		}
		out[*d.Index] = v
	}
	return out, nil
}

// decodeVector reads an array of numbers, or base64 of little-endian float32.
func decodeVector(raw json.RawMessage) ([]float32, error) {
	var v []float32
	if !bytes.HasPrefix(raw, []byte(`"`)) {
		if err := json.Unmarshal(raw, &v); err != nil {
			return nil, fmt.Errorf("decode numbers: %w", err)
		}
	} else {
		var text string
		if err := json.Unmarshal(raw, &text); err != nil {
			return nil, fmt.Errorf("decode base64: %w", err)
		}
		data, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			return nil, fmt.Errorf("decode base64: %w", err)
		}
		if len(data)%4 != 0 {
			return nil, fmt.Errorf("decode base64: %d bytes are no float32s", len(data))
		}
		v = make([]float32, len(data)/4)
		for i := range v {
			v[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[i*4:]))
		}
	}
	if len(v) == 0 {
		return nil, errors.New("it is empty")
	}
	return v, nil
}
