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
	"log/slog"
	"math"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/honeloop/hone/pkg/telemetry"
)

// roundTrip is a transport that is a function.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func openAIConfig() Config {
	cfg := DefaultConfig()
	cfg.Provider, cfg.URL, cfg.Model, cfg.APIKey, cfg.CacheBytes = ProviderOpenAI, "http://embeddings.test/v1/", "m", "sk-secret", 0
	return cfg
}

func newFake(t *testing.T, cfg Config, f roundTrip) *openAI {
	t.Helper()
	p, err := newOpenAI(cfg, telemetry.Discard())
	if err != nil {
		t.Fatal(err)
	}
	p.client.Transport = f
	return p
}

func answer(status int, body string, header ...string) *http.Response {
	rec := httptest.NewRecorder()
	for i := 0; i < len(header); i += 2 {
		rec.Header().Set(header[i], header[i+1])
	}
	rec.WriteHeader(status)
	rec.Body = bytes.NewBufferString(body)
	return rec.Result()
}

// hashed answers a request with hash vectors of some length, last text first.
func hashed(r *http.Request, floats bool) (*http.Response, error) {
	var in openAIRequest
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		return nil, err
	}
	type item struct {
		Index     int `json:"index"`
		Embedding any `json:"embedding"`
	}
	var data []item
	for i, text := range slices.Backward(in.Input) {
		if text == "" {
			return answer(400, `{"error":{"type":"invalid_request_error"}}`), nil
		}
		v := hashText(text, hashDimensions)
		raw := []byte{}
		for d := range v {
			v[d] *= 3
			raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v[d]))
		}
		if floats {
			data = append(data, item{i, v})
		} else {
			data = append(data, item{i, base64.StdEncoding.EncodeToString(raw)})
		}
	}
	body, err := json.Marshal(map[string]any{"object": "list", "data": data})
	return answer(200, string(body)), err
}

// HashedEndpoint lets the conformance suite run against a server.
func HashedEndpoint(t *testing.T, floats bool) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		resp, err := hashed(r, floats)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.WriteHeader(resp.StatusCode)
		if _, err := io.Copy(w, resp.Body); err != nil {
			t.Log(err) // the client may be gone
		}
	}))
	t.Cleanup(server.Close)
	return server.URL + "/v1"
}

func TestOpenAIRequest(t *testing.T) {
	cfg := openAIConfig()
	cfg.BatchTexts, cfg.Dimensions = 2, hashDimensions
	var sizes []int
	p := newFake(t, cfg, func(r *http.Request) (*http.Response, error) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return nil, err
		}
		if got := r.Method + " " + r.URL.String(); got != "POST http://embeddings.test/v1/embeddings" {
			t.Errorf("request %s", got)
		}
		if got := r.Header.Get("Authorization"); got != "Bearer sk-secret" {
			t.Errorf("authorization %q", got)
		}
		var in openAIRequest
		if err := json.Unmarshal(body, &in); err != nil {
			t.Error(err)
		}
		if in.Model != "m" || in.Dimensions != hashDimensions {
			t.Errorf("body %s", body)
		}
		sizes = append(sizes, len(in.Input))
		r.Body = io.NopCloser(bytes.NewReader(body))
		return hashed(r, false)
	})
	texts := []string{"a", "b", "c", strings.Repeat("d", maxRequestBytes), "e"}
	got, err := p.Embed(t.Context(), texts)
	if err != nil {
		t.Fatal(err)
	}
	for i, text := range texts {
		if Similarity(got[i], hashText(text, hashDimensions)) < 0.9999 {
			t.Errorf("text %d has another's vector", i)
		}
	}
	if want := []int{2, 1, 1, 1}; !slices.Equal(sizes, want) {
		t.Errorf("batches %v, want %v", sizes, want)
	}
	if p.Model() != "m/512" {
		t.Errorf("model %q", p.Model())
	}
}

func TestOpenAILearnsDimensions(t *testing.T) {
	p := newFake(t, openAIConfig(), func(r *http.Request) (*http.Response, error) { return hashed(r, true) })
	if p.Dimensions() != 0 {
		t.Errorf("%d dimensions before the first answer", p.Dimensions())
	}
	if err := Probe(t.Context(), p); err != nil || p.Dimensions() != hashDimensions {
		t.Errorf("error %v, %d dimensions", err, p.Dimensions())
	}
}

func TestOpenAITriesAgain(t *testing.T) {
	ok := `{"data":[{"index":0,"embedding":[3,4]}]}`
	for _, tt := range []struct {
		name      string
		first     func() (*http.Response, error)
		wantCalls int
		atLeast   time.Duration
		atMost    time.Duration
		wantErr   string
	}{
		{"429 with seconds", func() (*http.Response, error) { return answer(429, "", "Retry-After", "7"), nil }, 2, 7 * time.Second, 7 * time.Second, ""},
		{"503 with a date", func() (*http.Response, error) {
			return answer(503, "", "Retry-After", time.Now().Add(9*time.Second).UTC().Format(http.TimeFormat)), nil
		}, 2, 8 * time.Second, 9 * time.Second, ""},
		{"500", func() (*http.Response, error) { return answer(500, "oops"), nil }, 2, firstBackoff / 2, 2 * firstBackoff, ""},
		{"no connection", func() (*http.Response, error) { return nil, errors.New("refused") }, 2, firstBackoff / 2, 2 * firstBackoff, ""},
		{"longer than there is time", func() (*http.Response, error) { return answer(429, "", "Retry-After", "3600"), nil }, 1, 0, 0, "no time left"},
		{"401", func() (*http.Response, error) {
			return answer(401, `{"error":{"type":"auth","code":"bad_key","message":"sk-secret"}}`), nil
		}, 1, 0, 0, "401"},
		{"400", func() (*http.Response, error) {
			return answer(400, `{"error":{"type":"invalid_request_error","message":"the user's words"}}`), nil
		}, 1, 0, 0, ErrRejected.Error()},
		{"no JSON", func() (*http.Response, error) { return answer(200, "<html>"), nil }, 1, 0, 0, "decode answer"},
		{"too few", func() (*http.Response, error) { return answer(200, `{"data":[]}`), nil }, 1, 0, 0, "0 vectors for 1 texts"},
		{"no index", func() (*http.Response, error) { return answer(200, `{"data":[{"embedding":[1]}]}`), nil }, 1, 0, 0, "no index"},
		{"index too high", func() (*http.Response, error) { return answer(200, `{"data":[{"index":1,"embedding":[1]}]}`), nil }, 1, 0, 0, "no index"},
		{"all zero", func() (*http.Response, error) { return answer(200, `{"data":[{"index":0,"embedding":[0,0]}]}`), nil }, 1, 0, 0, "no direction"},
		{"empty", func() (*http.Response, error) { return answer(200, `{"data":[{"index":0,"embedding":[]}]}`), nil }, 1, 0, 0, "empty"},
		{"odd base64", func() (*http.Response, error) { return answer(200, `{"data":[{"index":0,"embedding":"AAA="}]}`), nil }, 1, 0, 0, "no float32s"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				calls := 0
				p := newFake(t, openAIConfig(), func(*http.Request) (*http.Response, error) {
					if calls++; calls == 1 {
						return tt.first()
					}
					return answer(200, ok), nil
				})
				start := time.Now()
				got, err := p.Embed(t.Context(), []string{"a"})
				if took := time.Since(start); took < tt.atLeast || took > tt.atMost {
					t.Errorf("took %v, want %v to %v", took, tt.atLeast, tt.atMost)
				}
				if calls != tt.wantCalls {
					t.Errorf("%d requests, want %d", calls, tt.wantCalls)
				}
				if tt.wantErr != "" {
					if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
						t.Fatalf("error %v, want %q", err, tt.wantErr)
					}
					if strings.Contains(err.Error(), "sk-secret") || strings.Contains(err.Error(), "words") {
						t.Errorf("error %v repeats what must stay private", err)
					}
					return
				}
				if err != nil || !slices.Equal(got[0], []float32{0.6, 0.8}) {
					t.Errorf("got %v, %v", got, err)
				}
			})
		})
	}
}

func TestOpenAIGivesUpInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		cfg := openAIConfig()
		calls := 0
		p := newFake(t, cfg, func(*http.Request) (*http.Response, error) { calls++; return answer(503, ""), nil })
		start := time.Now()
		_, err := p.Embed(t.Context(), []string{"a"})
		if took := time.Since(start); err == nil || took > cfg.Timeout || calls < 5 || calls > 20 {
			t.Errorf("error %v after %v and %d requests", err, took, calls)
		}
	})
}

func TestOpenAIStopsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newFake(t, openAIConfig(), func(r *http.Request) (*http.Response, error) {
			<-r.Context().Done()
			return nil, r.Context().Err()
		})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start := time.Now()
		if _, err := p.Embed(ctx, []string{"a"}); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("error %v after %v", err, time.Since(start))
		}
	})
}

func TestOpenAIDimensionsMustNotChange(t *testing.T) {
	n := 1
	p := newFake(t, openAIConfig(), func(*http.Request) (*http.Response, error) {
		n++
		return answer(200, fmt.Sprintf(`{"data":[{"index":0,"embedding":[1%s]}]}`, strings.Repeat(",1", n))), nil
	})
	if err := Probe(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	if err := Probe(t.Context(), p); err == nil || !strings.Contains(err.Error(), "dimensions") {
		t.Errorf("error %v", err)
	}
}

func TestOpenAIKeepsUserTextOutOfTheLog(t *testing.T) {
	var log bytes.Buffer
	tel, err := telemetry.New(&log, slog.LevelInfo)
	if err != nil {
		t.Fatal(err)
	}
	p, err := newOpenAI(openAIConfig(), tel)
	if err != nil {
		t.Fatal(err)
	}
	p.client.Transport = roundTrip(func(*http.Request) (*http.Response, error) {
		return answer(400, `{"error":{"type":"x","message":"the user's words"}}`), nil
	})
	if _, err := p.Embed(t.Context(), []string{"the user's words"}); err == nil {
		t.Error("no error")
	}
	if log.Len() > 0 {
		t.Errorf("logged %s", &log)
	}
}
