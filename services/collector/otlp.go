package collector

import (
	"context"
	"net/http"

	"go.opentelemetry.io/otel/metric"

	"github.com/honeloop/hone/pkg/auth"
	"github.com/honeloop/hone/pkg/events"
	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
	"github.com/honeloop/hone/services/collector/internal/apierr"
	"github.com/honeloop/hone/services/collector/internal/otlp"
)

// newOTLP makes the handler's receiver of OTLP. It shares the handler's keys,
// limits and path to Kafka.
func newOTLP(h *handler, meter metric.Meter) (*otlp.Receiver, error) {
	return otlp.New(otlp.Options{
		Take: func(ctx context.Context, key auth.Key, list []*eventv1.Event) []*apierr.Error {
			req := &events.Request{Events: list, Errors: make([]*events.FieldError, len(list))}
			results, _ := h.intake.take(ctx, key, events.SourceOTLP, req)
			errs := make([]*apierr.Error, len(results))
			for i, r := range results {
				errs[i] = r.err
			}
			return errs
		},
		Authenticate: h.authenticate,
		ReadBody:     h.otlpBody,
		Enter:        h.intake.enter,
		Leave:        h.intake.leave,
		Limits:       h.intake.limits,
		MaxBody:      h.maxBody,
		Bodies:       h.bodies,
		Meter:        meter,
	})
}

// otlpBody reads a body and unpacks it.
func (h *handler) otlpBody(w http.ResponseWriter, r *http.Request) (body []byte, release func(), failed *apierr.Error) {
	encoding, failed := encoding(r.Header)
	if failed != nil {
		w.Header().Set("Accept-Encoding", "gzip, zstd")
		return nil, func() {}, failed
	}
	packed, releasePacked, failed := h.readBody(w, r, nil)
	if failed != nil || encoding == "" {
		return packed, releasePacked, failed
	}
	body, releaseBody, failed := h.unpackBody(r, encoding, packed)
	return body, func() { releasePacked(); releaseBody() }, failed
}

// serveOTLP answers OTLP over HTTP, also from browsers.
func (h *handler) serveOTLP(w http.ResponseWriter, r *http.Request) {
	h.allowOrigin(w, r)
	if r.Method == http.MethodOptions {
		h.preflight(w)
		return
	}
	h.otlp.ServeHTTP(w, r)
}
