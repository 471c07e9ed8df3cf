package otlp

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	_ "google.golang.org/grpc/encoding/gzip" // exporters compress
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/honeloop/hone/pkg/auth"
	"github.com/honeloop/hone/services/collector/internal/apierr"
)

// The methods of OTLP over gRPC.
const (
	TracesMethod = "/opentelemetry.proto.collector.trace.v1.TraceService/Export"
	LogsMethod   = "/opentelemetry.proto.collector.logs.v1.LogsService/Export"
)

// Register adds the trace and the logs service to a server. The server's
// interceptors authenticate; its codec must be protobuf's.
//
// The services are not those of the generated code, which read a message whole
// before anybody can see how much there is in it.
func (r *Receiver) Register(server grpc.ServiceRegistrar) {
	for _, s := range []struct {
		service, method string
		signal          signal
	}{
		{"opentelemetry.proto.collector.trace.v1.TraceService", TracesMethod, traceSignal()},
		{"opentelemetry.proto.collector.logs.v1.LogsService", LogsMethod, logSignal()},
	} {
		server.RegisterService(&grpc.ServiceDesc{
			ServiceName: s.service,
			HandlerType: (*any)(nil),
			Methods: []grpc.MethodDesc{{MethodName: "Export", Handler: func(_ any, ctx context.Context, read func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
				// An empty message keeps all fields as they came.
				raw := new(emptypb.Empty)
				if err := read(raw); err != nil {
					return nil, apierr.Errorf(codes.InvalidArgument, "%s", errBroken).GRPC()
				}
				handle := func(ctx context.Context, _ any) (any, error) {
					return r.exportGRPC(ctx, s.signal, raw.ProtoReflect().GetUnknown())
				}
				if interceptor == nil {
					return handle(ctx, raw)
				}
				return interceptor(ctx, raw, &grpc.UnaryServerInfo{Server: r, FullMethod: s.method}, handle)
			}}},
		}, r)
	}
}

func (r *Receiver) exportGRPC(ctx context.Context, sig signal, body []byte) (any, error) {
	key, ok := auth.FromContext(ctx)
	if !ok {
		return nil, apierr.Errorf(codes.Unauthenticated, "%s", auth.ErrUnknownKey).GRPC()
	}
	if !r.opts.Enter() {
		return nil, errTooMany().GRPC()
	}
	defer r.opts.Leave()
	if len(body) > r.opts.MaxBody {
		r.count(ctx, sig, outcome{rejected, "body"}, 1)
		return nil, apierr.Errorf(codes.InvalidArgument, "the message is too large: want at most %d bytes, so send less in one request", r.opts.MaxBody).GRPC()
	}
	if !r.opts.Bodies.TryAcquire(int64(len(body))) {
		return nil, errTooMany().GRPC()
	}
	defer r.opts.Bodies.Release(int64(len(body)))
	answer, err := r.export(ctx, key, sig, body, false)
	if err != nil {
		return nil, err.GRPC()
	}
	return answer, nil
}
