package otlp

import (
	"math"
	"mime"
	"net/http"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/honeloop/hone/services/collector/internal/apierr"
)

// The paths of OTLP over HTTP.
const (
	TracesPath = "/v1/traces"
	LogsPath   = "/v1/logs"
)

const (
	mediaProto = "application/x-protobuf"
	mediaJSON  = "application/json"
)

// ServeHTTP answers an export to TracesPath or LogsPath. The answer has the
// request's content type; an error is a google.rpc.Status in it.
func (r *Receiver) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	sig := traceSignal()
	if req.URL.Path == LogsPath {
		sig = logSignal()
	}
	media, params, err := mime.ParseMediaType(req.Header.Get("Content-Type"))
	charset := params["charset"]
	known := err == nil && (media == mediaProto || media == mediaJSON && (charset == "" || strings.EqualFold(charset, "utf-8")))
	if !known {
		media = mediaJSON // whoever sent it can read that best
	}
	fail := func(e *apierr.Error) { writeError(w, media, e) }
	switch {
	case req.Method != http.MethodPost:
		w.Header().Set("Allow", "POST")
		fail(apierr.Errorf(codes.Unimplemented, "%s is not possible here, only POST", req.Method).WithStatus(http.StatusMethodNotAllowed))
		return
	case !known:
		fail(apierr.Errorf(codes.InvalidArgument, "Content-Type %q is not supported: want %s or %s", req.Header.Get("Content-Type"), mediaProto, mediaJSON).WithStatus(http.StatusUnsupportedMediaType))
		return
	case !r.opts.Enter():
		fail(errTooMany())
		return
	}
	defer r.opts.Leave()
	key, aerr := r.opts.Authenticate(req)
	if aerr != nil {
		fail(aerr)
		return
	}
	body, release, aerr := r.opts.ReadBody(w, req)
	defer release()
	if aerr != nil {
		r.count(req.Context(), sig, outcome{rejected, "body"}, 1)
		fail(aerr)
		return
	}
	answer, aerr := r.export(req.Context(), key, sig, body, media == mediaJSON)
	if aerr != nil {
		fail(aerr)
		return
	}
	write(w, media, http.StatusOK, answer)
}

func writeError(w http.ResponseWriter, media string, e *apierr.Error) {
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(e.RetryAfter.Seconds()))))
	}
	if e.Code == codes.Unauthenticated {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	write(w, media, e.HTTPStatus(), status.Convert(e.GRPC()).Proto())
}

func write(w http.ResponseWriter, media string, code int, m proto.Message) {
	encode := proto.Marshal
	if media == mediaJSON {
		encode = protojson.Marshal
	}
	body, err := encode(m)
	if err != nil {
		code, body = http.StatusInternalServerError, nil
	}
	h := w.Header()
	h.Set("Content-Type", media)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	_, _ = w.Write(body) // the caller has gone: nobody to tell
}
