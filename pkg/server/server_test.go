package server_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/honeloop/hone/pkg/auth"
	"github.com/honeloop/hone/pkg/server"
	"github.com/honeloop/hone/pkg/telemetry"
)

// fixture is a server with one method, /test.T/Call, whose work the test gives.
type fixture struct {
	server *server.Server
	conn   *grpc.ClientConn
	admin  string
	secret string
	log    *buffer
	stop   context.CancelFunc
	done   chan error

	drained chan struct{} // the service's own work is done
}

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func freeAddr(t *testing.T) string {
	t.Helper()
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer lis.Close()
	return lis.Addr().String()
}

func start(t *testing.T, stopTimeout time.Duration, work func(context.Context) error) *fixture {
	t.Helper()
	key, secret, err := auth.Mint("p", auth.Secret)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := auth.NewKeys([]auth.Key{key})
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{log: &buffer{}, secret: secret, done: make(chan error, 1), drained: make(chan struct{}), admin: "http://" + freeAddr(t)}
	tel, err := telemetry.New(f.log, slog.LevelInfo)
	if err != nil {
		t.Fatal(err)
	}
	cfg := server.DefaultConfig(0, 0)
	cfg.GRPCAddr, cfg.AdminAddr, cfg.StopTimeout = freeAddr(t), strings.TrimPrefix(f.admin, "http://"), stopTimeout
	f.server = server.New(cfg, keys, nil, tel)
	call := func(_ any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor) (any, error) {
		req := &emptypb.Empty{}
		if err := decode(req); err != nil {
			return nil, err
		}
		handler := func(ctx context.Context, _ any) (any, error) { return &emptypb.Empty{}, work(ctx) }
		return interceptor(ctx, req, &grpc.UnaryServerInfo{FullMethod: "/test.T/Call"}, handler)
	}
	stream := func(_ any, ss grpc.ServerStream) error { return work(ss.Context()) }
	f.server.GRPC().RegisterService(&grpc.ServiceDesc{ServiceName: "test.T", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Call", Handler: call}},
		Streams: []grpc.StreamDesc{{StreamName: "Stream", Handler: stream, ServerStreams: true}}}, struct{}{})
	ctx, cancel := context.WithCancel(context.Background())
	f.stop = cancel
	go func() { f.done <- f.server.Run(ctx, f.drained) }()
	if f.conn, err = grpc.NewClient(cfg.GRPCAddr, grpc.WithTransportCredentials(insecure.NewCredentials())); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		f.conn.Close()
	})
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if code, _ := f.get(t, "/readyz"); code == http.StatusOK {
			return f
		}
		if time.Now().After(deadline) {
			t.Fatal("not ready")
		}
	}
}

func (f *fixture) call(ctx context.Context) error {
	ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+f.secret)
	return f.conn.Invoke(ctx, "/test.T/Call", &emptypb.Empty{}, &emptypb.Empty{}, grpc.WaitForReady(true))
}

// get is a status, 0 where nothing answers.
func (f *fixture) get(t *testing.T, path string) (int, string) {
	t.Helper()
	resp, err := http.Get(f.admin + path)
	if err != nil {
		return 0, ""
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, ""
	}
	return resp.StatusCode, string(body)
}

func TestStopLetsCallsFinish(t *testing.T) {
	inside, release := make(chan struct{}), make(chan struct{})
	f := start(t, 10*time.Second, func(context.Context) error {
		close(inside)
		<-release
		return nil
	})
	answered := make(chan error, 1)
	go func() { answered <- f.call(context.Background()) }()
	<-inside
	f.stop()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if code, body := f.get(t, "/readyz"); code == http.StatusServiceUnavailable && strings.Contains(body, "stopping") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("ready while it stops")
		}
	}
	if code, _ := f.get(t, "/healthz"); code != http.StatusOK {
		t.Errorf("healthz says %d while it stops", code)
	}
	close(release)
	if err := <-answered; err != nil {
		t.Errorf("the call in flight: %v", err)
	}
	time.Sleep(50 * time.Millisecond)
	if code, body := f.get(t, "/readyz"); code != http.StatusServiceUnavailable || !strings.Contains(body, "stopping") {
		t.Errorf("before the service has drained, readyz says %d %s", code, body)
	}
	close(f.drained)
	if err := <-f.done; err != nil {
		t.Errorf("Run: %v", err)
	}
}

func TestStopCutsWhatTakesTooLong(t *testing.T) {
	inside := make(chan struct{})
	f := start(t, 100*time.Millisecond, func(ctx context.Context) error {
		close(inside)
		<-ctx.Done()
		return ctx.Err()
	})
	answered := make(chan error, 1)
	go func() { answered <- f.call(context.Background()) }()
	<-inside
	began := time.Now()
	close(f.drained)
	f.stop()
	if err := <-f.done; err != nil {
		t.Errorf("Run: %v", err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("stopped after %s", took)
	}
	if err := <-answered; err == nil {
		t.Error("the call in flight was answered")
	}
	if !strings.Contains(f.log.String(), "cut off") {
		t.Errorf("logged %q", f.log.String())
	}
}

func TestPanicIsAnsweredAndCounted(t *testing.T) {
	f := start(t, time.Second, func(context.Context) error { panic("what a user wrote") })
	err := f.call(t.Context())
	if status.Code(err) != codes.Internal || strings.Contains(err.Error(), "user wrote") {
		t.Errorf("a unary call: %v", err)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+f.secret)
	stream, err := f.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/test.T/Stream")
	if err == nil {
		err = errors.Join(stream.SendMsg(&emptypb.Empty{}), stream.CloseSend())
	}
	if err == nil {
		err = stream.RecvMsg(&emptypb.Empty{})
	}
	if status.Code(err) != codes.Internal {
		t.Errorf("a stream: %v", err)
	}
	if log := f.log.String(); strings.Contains(log, "user wrote") || !strings.Contains(log, "server_test.go") {
		t.Errorf("want a stack and no text in the log: %s", log)
	}
	_, metrics := f.get(t, "/metrics")
	for _, want := range []string{`hone_grpc_panics_total{method="/test.T/Call"`, `hone_grpc_panics_total{method="/test.T/Stream"`, "go_goroutines"} {
		if !strings.Contains(metrics, want) {
			t.Errorf("no %s in the metrics", want)
		}
	}
}
