package server

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/honeloop/hone/pkg/telemetry"
)

// panics keeps a panic in one call from ending the process.
type panics struct {
	log   *slog.Logger
	count metric.Int64Counter
}

func newPanics(tel *telemetry.Telemetry) *panics {
	count, err := tel.Meter.Int64Counter("hone.grpc.panics", metric.WithDescription("Calls that panicked and were answered INTERNAL, by method."))
	if err != nil {
		tel.Log.Error("cannot count panics", "error", err) // the counter counts nothing then
	}
	return &panics{log: tel.Log, count: count}
}

func (p *panics) recovered(ctx context.Context, method string, v any) error {
	p.count.Add(ctx, 1, metric.WithAttributes(attribute.String("method", method)))
	// The value may hold what a user wrote.
	p.log.ErrorContext(ctx, "call panicked", "method", method, "type", fmt.Sprintf("%T", v), "stack", string(debug.Stack()))
	p.log.DebugContext(ctx, "call panicked", "method", method, "panic", fmt.Sprint(v))
	return status.Error(codes.Internal, "an error of the server: its log says which")
}

func (p *panics) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (resp any, err error) {
	defer func() {
		if v := recover(); v != nil {
			resp, err = nil, p.recovered(ctx, info.FullMethod, v)
		}
	}()
	return next(ctx, req)
}

func (p *panics) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = p.recovered(ss.Context(), info.FullMethod, v)
		}
	}()
	return next(srv, ss)
}
