package collector

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc/codes"

	"github.com/honeloop/hone/pkg/auth"
	"github.com/honeloop/hone/pkg/events"
	"github.com/honeloop/hone/pkg/jsonpb"
	"github.com/honeloop/hone/services/collector/internal/apierr"
	"github.com/honeloop/hone/services/collector/internal/gateway"
	"github.com/honeloop/hone/services/collector/internal/otlp"
)

const eventsPath = "/v1/events"

// handler is the public HTTP port.
type handler struct {
	intake  *intake
	decoder *events.Decoder
	keys    *auth.Keys
	gateway *gateway.Gateway
	otlp    *otlp.Receiver
	openAPI []byte
	ready   func() error
	maxBody int
	bodies  *semaphore.Weighted // bytes of bodies that are being read
	unpackers
	buffers sync.Pool // of *[]byte
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	start := time.Now()
	sw := &statusWriter{ResponseWriter: w, status: http.StatusOK}
	route := "other"
	defer func() {
		if p := recover(); p != nil {
			if err, ok := p.(error); ok && errors.Is(err, http.ErrAbortHandler) {
				h.intake.metrics.request(r.Context(), route, 0, time.Since(start))
				panic(p)
			}
			// What was panicked with may hold users' text.
			h.intake.metrics.log.Error("panic in a request", "route", route, "type", fmt.Sprintf("%T", p), "stack", string(debug.Stack()))
			apierr.Errorf(codes.Internal, "internal error").Write(sw)
		}
		h.intake.metrics.request(r.Context(), route, sw.status, time.Since(start))
	}()
	switch r.URL.Path {
	case eventsPath:
		route = r.URL.Path
		h.serveEvents(sw, r)
	case otlp.TracesPath, otlp.LogsPath:
		route = r.URL.Path
		h.serveOTLP(sw, r)
	case "/healthz":
		route = r.URL.Path
		if get(sw, r) {
			apierr.WriteJSON(sw, http.StatusOK, map[string]string{"status": "ok"})
		}
	case "/readyz":
		route = r.URL.Path
		if get(sw, r) {
			h.serveReady(sw)
		}
	case "/openapi.json":
		route = r.URL.Path
		if get(sw, r) {
			sw.Header().Set("Content-Type", "application/json")
			_, _ = sw.Write(h.openAPI) // the caller has gone: nobody to tell
		}
	default:
		if rpc := h.gateway.Route(r); rpc != "" {
			route = rpc
		}
		h.gateway.ServeHTTP(sw, r)
	}
}

// statusWriter remembers the status. Unwrap lets http.ResponseController see
// through it.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func get(w http.ResponseWriter, r *http.Request) bool {
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		return true
	}
	notAllowed(w, r, "GET, HEAD")
	return false
}

func notAllowed(w http.ResponseWriter, r *http.Request, allow string) {
	w.Header().Set("Allow", allow)
	apierr.Errorf(codes.Unimplemented, "%s is not possible here, only %s", r.Method, allow).WithStatus(http.StatusMethodNotAllowed).Write(w)
}

func (h *handler) serveReady(w http.ResponseWriter) {
	if err := h.ready(); err != nil {
		apierr.Unavailable(err.Error(), retryAfter).Write(w)
		return
	}
	apierr.WriteJSON(w, http.StatusOK, map[string]string{"status": "ready"})
}

func (h *handler) serveEvents(w http.ResponseWriter, r *http.Request) {
	h.allowOrigin(w, r)
	switch r.Method {
	case http.MethodPost:
	case http.MethodOptions:
		h.preflight(w)
		return
	default:
		notAllowed(w, r, "POST, OPTIONS")
		return
	}
	if !h.intake.enter() {
		errTooMany().Write(w)
		return
	}
	defer h.intake.leave()
	key, err := h.authenticate(r)
	if err != nil {
		err.Write(w)
		return
	}
	if wait := h.intake.limiter.wait(&key, 0, h.intake.now()); wait > 0 {
		h.intake.metrics.refused(r.Context(), reasonRate, 1)
		errRate(wait).Write(w)
		return
	}
	encoding, err := encoding(r.Header)
	if err == nil {
		err = checkContentType(r)
	}
	if err != nil {
		w.Header().Set("Accept-Encoding", "gzip, zstd")
		err.Write(w)
		return
	}
	buf, _ := h.buffers.Get().(*[]byte)
	if buf == nil {
		buf = new([]byte)
	}
	body, release, err := h.readBody(w, r, (*buf)[:0])
	defer release()
	if err != nil {
		err.Write(w)
		return
	}
	if *buf = body; cap(body) <= 64<<10 { // a large buffer is not worth keeping
		defer h.buffers.Put(buf)
	}
	if encoding != "" {
		unpacked, release, err := h.unpackBody(r, encoding, body)
		defer release()
		if err != nil {
			err.Write(w)
			return
		}
		body = unpacked
	}
	req, ferr := h.decoder.Decode(body)
	if ferr != nil {
		h.intake.metrics.refused(r.Context(), string(ferr.Reason), 1)
		apierr.FromField(ferr).Write(w)
		return
	}
	if err := identify(req, key, r.Header.Get("Idempotency-Key")); err != nil {
		h.intake.metrics.refused(r.Context(), string(events.TooLong), len(req.Events))
		err.Write(w)
		return
	}
	results, accepted := h.intake.take(r.Context(), key, events.SourceHTTP, req)
	answer(w, req, results, accepted)
}

// resultBody is one result as JSON has it.
type resultBody struct {
	EventID string       `json:"event_id,omitempty"`
	Error   *apierr.Body `json:"error,omitempty"`
}

type resultsBody struct {
	Error    *apierr.Body `json:"error,omitempty"`
	Results  []resultBody `json:"results,omitempty"`
	Accepted int          `json:"accepted"`
	Rejected int          `json:"rejected"`
}

func answer(w http.ResponseWriter, req *events.Request, results []result, accepted int) {
	if accepted == 0 && !req.Batch {
		whole(req, results).Write(w)
		return
	}
	if accepted == len(results) {
		apierr.WriteRaw(w, http.StatusAccepted, appendAccepted(make([]byte, 0, 64+64*len(results)), results))
		return
	}
	body := resultsBody{Results: make([]resultBody, len(results)), Accepted: accepted, Rejected: len(results) - accepted}
	for i, r := range results {
		body.Results[i].EventID = r.id
		if r.err != nil {
			e := r.err.Body()
			body.Results[i].Error = &e
		}
	}
	if accepted == 0 {
		e := whole(req, results)
		b := e.Body()
		body.Error = &b
		e.WriteWith(w, body)
		return
	}
	apierr.WriteJSON(w, http.StatusAccepted, body)
}

// appendAccepted is the JSON of a resultsBody in which all is well. Almost every
// answer is one.
func appendAccepted(b []byte, results []result) []byte {
	b = append(b, `{"results":[`...)
	for i, r := range results {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, `{"event_id":`...)
		quoted, err := jsontext.AppendQuote(b, r.id)
		if err != nil { // ids are checked to be UTF-8
			quoted = append(b, `""`...)
		}
		b = append(quoted, '}')
	}
	b = append(b, `],"accepted":`...)
	b = strconv.AppendInt(b, int64(len(results)), 10)
	return append(b, `,"rejected":0}`...)
}

// authenticate finds the key: in the Authorization header, or in the query for
// navigator.sendBeacon, which cannot set headers.
func (h *handler) authenticate(r *http.Request) (auth.Key, *apierr.Error) {
	secret := auth.Bearer(r.Header.Get("Authorization"))
	fromQuery := secret == ""
	if fromQuery {
		secret = r.URL.Query().Get("key")
	}
	key, err := h.keys.Authenticate(secret)
	if err != nil {
		return auth.Key{}, apierr.Errorf(codes.Unauthenticated, "%s", err)
	}
	if key.Kind == auth.Secret {
		if fromQuery {
			return auth.Key{}, apierr.Errorf(codes.PermissionDenied, "a secret key may not stand in an address, where it is logged: send it as 'Authorization: Bearer <key>', and make a new one")
		}
		return key, nil
	}
	// Only browsers send an origin, and only for them does it mean anything.
	if origin := r.Header.Get("Origin"); origin != "" && !key.AllowsOrigin(origin) {
		return auth.Key{}, apierr.Errorf(codes.PermissionDenied, "the key is not for the origin %q: list it with the key", origin)
	}
	return key, nil
}

// allowOrigin lets a page of a listed origin read the answer. Which key it is
// that lists the origin is checked by authenticate; a preflight has no key.
func (h *handler) allowOrigin(w http.ResponseWriter, r *http.Request) {
	w.Header().Add("Vary", "Origin")
	origin := r.Header.Get("Origin")
	if origin == "" || !h.keys.AllowsOrigin(origin) {
		return
	}
	w.Header().Set("Access-Control-Allow-Origin", origin)
	w.Header().Set("Access-Control-Expose-Headers", "Retry-After")
}

func (h *handler) preflight(w http.ResponseWriter) {
	header := w.Header()
	header.Set("Allow", "POST, OPTIONS")
	if header.Get("Access-Control-Allow-Origin") != "" {
		header.Set("Access-Control-Allow-Methods", "POST")
		header.Set("Access-Control-Allow-Headers", "authorization, content-encoding, content-type, idempotency-key, traceparent, tracestate")
		header.Set("Access-Control-Max-Age", "7200") // the longest that browsers keep
	}
	w.WriteHeader(http.StatusNoContent)
}

func checkContentType(r *http.Request) *apierr.Error {
	ct := r.Header.Get("Content-Type")
	if ct == "" || ct == "application/json" {
		return nil
	}
	media, params, err := mime.ParseMediaType(ct)
	// The form type is what curl -d says where nobody tells it better.
	known := media == "application/json" || media == "text/plain" || media == "application/x-www-form-urlencoded"
	if charset := params["charset"]; err != nil || !known || charset != "" && !strings.EqualFold(charset, "utf-8") {
		return apierr.Errorf(codes.InvalidArgument, "Content-Type %q is not supported: want application/json, or text/plain for sendBeacon, in UTF-8", ct).WithStatus(http.StatusUnsupportedMediaType)
	}
	return nil
}

func (h *handler) tooLarge(r *http.Request) *apierr.Error {
	h.intake.metrics.refused(r.Context(), string(events.TooLarge), 1)
	return apierr.Errorf(codes.InvalidArgument, "the body is too large: want at most %d bytes, so send less in one request", h.maxBody).WithStatus(http.StatusRequestEntityTooLarge)
}

// readBody reads the body into buf, which grows as bytes come and not as a
// header promises. All bodies together are bounded. release always must be
// called.
func (h *handler) readBody(w http.ResponseWriter, r *http.Request, buf []byte) (body []byte, release func(), failed *apierr.Error) {
	taken := int64(0)
	release = func() { h.bodies.Release(taken) }
	if r.ContentLength > int64(h.maxBody) {
		w.Header().Set("Connection", "close")
		return nil, release, h.tooLarge(r)
	}
	src := http.MaxBytesReader(w, r.Body, int64(h.maxBody))
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		if more := int64(cap(buf)) - taken; more > 0 {
			if !h.bodies.TryAcquire(more) {
				return nil, release, errTooMany()
			}
			taken += more
		}
		n, err := src.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		switch {
		case errors.Is(err, io.EOF):
			return buf, release, nil
		case err != nil:
			if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
				return nil, release, h.tooLarge(r)
			}
			h.intake.metrics.refused(r.Context(), string(jsonpb.BrokenJSON), 1)
			w.Header().Set("Connection", "close")
			return nil, release, apierr.Errorf(codes.InvalidArgument, "the body ended before it was whole").WithStatus(http.StatusBadRequest)
		}
	}
}
