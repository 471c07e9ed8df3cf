package apierr

import (
	"errors"
	"net/http/httptest"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
)

func TestErrorsSurviveGRPC(t *testing.T) {
	want := Error{Code: codes.Unavailable, Message: "later", Field: "events[1]", RetryAfter: 1500 * time.Millisecond}
	if got := FromStatus(want.GRPC()); *got != want {
		t.Errorf("got %+v, want %+v", *got, want)
	}
	if got := FromStatus(errors.New("secret")); got.Code != codes.Internal || got.Message == "secret" {
		t.Errorf("an error that is no status: %+v", got)
	}
}

func TestErrorsHaveOneShape(t *testing.T) {
	for code, want := range map[codes.Code]struct {
		status int
		name   string
	}{
		codes.InvalidArgument: {400, "invalid_argument"}, codes.FailedPrecondition: {400, "failed_precondition"}, codes.Unauthenticated: {401, "unauthenticated"},
		codes.PermissionDenied: {403, "permission_denied"}, codes.NotFound: {404, "not_found"}, codes.AlreadyExists: {409, "already_exists"},
		codes.ResourceExhausted: {429, "resource_exhausted"}, codes.Canceled: {499, "canceled"}, codes.Internal: {500, "internal"},
		codes.Unimplemented: {501, "unimplemented"}, codes.Unavailable: {503, "unavailable"}, codes.DeadlineExceeded: {504, "deadline_exceeded"},
		codes.DataLoss: {500, "data_loss"},
	} {
		w := httptest.NewRecorder()
		(&Error{Code: code, Message: "m", Field: "f", RetryAfter: 1500 * time.Millisecond}).Write(w)
		body := `{"error":{"code":"` + want.name + `","message":"m","field":"f","retry_after_s":1.5}}`
		if w.Code != want.status || w.Body.String() != body || w.Header().Get("Retry-After") != "2" {
			t.Errorf("%s: got %d %s %v", code, w.Code, w.Body, w.Header())
		}
	}
}
