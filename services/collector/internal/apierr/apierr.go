// Package apierr is the one shape of errors on the HTTP port, and its way from
// and to gRPC.
package apierr

import (
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/honeloop/hone/pkg/jsonpb"
)

// Error is one error as the caller sees it.
type Error struct {
	// HTTP status; 0 means the one that belongs to Code.
	Status     int
	Code       codes.Code
	Message    string
	Field      string
	RetryAfter time.Duration // 0 where a retry is not worthwhile
}

// Errorf makes an error.
func Errorf(code codes.Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// WithStatus sets another HTTP status than the code's own.
func (e *Error) WithStatus(status int) *Error {
	e.Status = status
	return e
}

// Unavailable is the error for what may work a little later.
func Unavailable(message string, retryAfter time.Duration) *Error {
	return &Error{Code: codes.Unavailable, Message: message, RetryAfter: retryAfter}
}

// FromField is the caller's mistake.
func FromField(e *jsonpb.FieldError) *Error {
	return &Error{Code: codes.InvalidArgument, Message: e.Message, Field: e.Field}
}

// FromStatus is the error of a gRPC call. Errors that are no status are
// internal.
func FromStatus(err error) *Error {
	st, ok := status.FromError(err)
	if !ok {
		return Errorf(codes.Internal, "internal error")
	}
	e := &Error{Code: st.Code(), Message: st.Message()}
	for _, detail := range st.Details() {
		switch d := detail.(type) {
		case *errdetails.BadRequest:
			if v := d.GetFieldViolations(); len(v) > 0 {
				e.Field = v[0].GetField()
			}
		case *errdetails.RetryInfo:
			e.RetryAfter = d.GetRetryDelay().AsDuration()
		}
	}
	return e
}

// GRPC is the error as a gRPC status, with the field and the time to wait as
// details.
func (e *Error) GRPC() error {
	var details []protoadapt.MessageV1
	if e.Field != "" {
		details = append(details, &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: e.Field, Description: e.Message}}})
	}
	if e.RetryAfter > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)})
	}
	st := status.New(e.Code, e.Message)
	if detailed, err := st.WithDetails(details...); err == nil {
		st = detailed
	}
	return st.Err()
}

// HTTPStatus is the status that the error answers with.
func (e *Error) HTTPStatus() int {
	if e.Status != 0 {
		return e.Status
	}
	switch e.Code {
	case codes.InvalidArgument, codes.FailedPrecondition, codes.OutOfRange:
		return http.StatusBadRequest
	case codes.Unauthenticated:
		return http.StatusUnauthorized
	case codes.PermissionDenied:
		return http.StatusForbidden
	case codes.NotFound:
		return http.StatusNotFound
	case codes.AlreadyExists, codes.Aborted:
		return http.StatusConflict
	case codes.ResourceExhausted:
		return http.StatusTooManyRequests
	case codes.Canceled:
		return 499 // the caller has gone
	case codes.Unimplemented:
		return http.StatusNotImplemented
	case codes.Unavailable:
		return http.StatusServiceUnavailable
	case codes.DeadlineExceeded:
		return http.StatusGatewayTimeout
	default:
		return http.StatusInternalServerError
	}
}

// Name is a code as it stands in JSON, such as "invalid_argument".
func Name(code codes.Code) string {
	var b strings.Builder
	for i, r := range code.String() {
		if i > 0 && unicode.IsUpper(r) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// Body is the error as JSON has it.
type Body struct {
	Code       string  `json:"code"`
	Message    string  `json:"message"`
	Field      string  `json:"field,omitempty"`
	RetryAfter float64 `json:"retry_after_s,omitempty"`
}

// Body is e for JSON.
func (e *Error) Body() Body {
	return Body{Code: Name(e.Code), Message: e.Message, Field: e.Field, RetryAfter: e.RetryAfter.Seconds()}
}

// Write answers with the error.
func (e *Error) Write(w http.ResponseWriter) {
	e.WriteWith(w, struct {
		Error Body `json:"error"`
	}{e.Body()})
}

// WriteWith answers with the error's status and headers, and with body.
func (e *Error) WriteWith(w http.ResponseWriter, body any) {
	if e.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(e.RetryAfter.Seconds()))))
	}
	if e.Code == codes.Unauthenticated {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	WriteJSON(w, e.HTTPStatus(), body)
}

// WriteJSON answers with body, which must be a value that can be JSON.
func WriteJSON(w http.ResponseWriter, status int, body any) {
	data, err := json.Marshal(body)
	if err != nil {
		status, data = http.StatusInternalServerError, []byte(`{"error":{"code":"internal","message":"the answer cannot be encoded"}}`)
	}
	WriteRaw(w, status, data)
}

// WriteRaw answers with data, which is JSON already.
func WriteRaw(w http.ResponseWriter, status int, data []byte) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = w.Write(data) // the caller has gone: nobody to tell
}
