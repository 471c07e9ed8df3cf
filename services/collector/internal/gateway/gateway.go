// Package gateway passes calls on to the services that own them: REST calls by
// the google.api.http annotations of the schemas, and gRPC calls as they are.
//
// It adds nothing to a call. The owner checks the key again.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/honeloop/hone/services/collector/internal/apierr"

	casesv1 "github.com/honeloop/hone/proto/gen/go/hone/cases/v1"
	curationv1 "github.com/honeloop/hone/proto/gen/go/hone/curation/v1"
	erasurev1 "github.com/honeloop/hone/proto/gen/go/hone/erasure/v1"
	policyv1 "github.com/honeloop/hone/proto/gen/go/hone/policy/v1"
	recallv1 "github.com/honeloop/hone/proto/gen/go/hone/recall/v1"
	trailv1 "github.com/honeloop/hone/proto/gen/go/hone/trail/v1"
	trendsv1 "github.com/honeloop/hone/proto/gen/go/hone/trends/v1"
)

// Upstreams are the gRPC addresses of the services that own the other calls.
type Upstreams struct {
	Trail    string `yaml:"trail" env:"TRAIL"` // the enricher
	Embedder string `yaml:"embedder" env:"EMBEDDER"`
	Router   string `yaml:"router" env:"ROUTER"`
	Curator  string `yaml:"curator" env:"CURATOR"`
}

// DefaultUpstreams are the default ports on one machine.
func DefaultUpstreams() Upstreams {
	return Upstreams{Trail: "127.0.0.1:9091", Embedder: "127.0.0.1:9094", Router: "127.0.0.1:9095", Curator: "127.0.0.1:9096"}
}

// Validate joins all that is wrong.
func (u Upstreams) Validate() error {
	var errs []error
	for _, f := range []struct{ key, addr string }{{"trail", u.Trail}, {"embedder", u.Embedder}, {"router", u.Router}, {"curator", u.Curator}} {
		if f.addr == "" {
			errs = append(errs, fmt.Errorf("%s: missing, want host:port", f.key))
		}
	}
	return errors.Join(errs...)
}

// Config bounds what the gateway does.
type Config struct {
	Upstreams Upstreams
	// Longest time of a call, streams excepted.
	Timeout time.Duration
	// Longest time that a reader of a stream may take for one part.
	StreamWriteTimeout time.Duration
	// Bytes of a request, and of a message from an upstream.
	MaxBody, MaxMessage int
	// Calls at a time.
	MaxInFlight int
	// More options of the connections to the upstreams.
	Dial []grpc.DialOption
}

// Gateway is safe for concurrent use.
type Gateway struct {
	cfg      Config
	owners   []owner
	routes   []route
	inFlight chan struct{}
	close    func() error
}

// owner is a service and the protobuf package it owns.
type owner struct {
	name string
	pkg  protoreflect.FullName
	file protoreflect.FileDescriptor
	conn *grpc.ClientConn
}

// New connects to nothing yet. Close it.
func New(cfg Config) (*Gateway, error) {
	g := &Gateway{cfg: cfg, inFlight: make(chan struct{}, cfg.MaxInFlight)}
	g.close = sync.OnceValue(g.closeAll)
	conns := map[string]*grpc.ClientConn{}
	for _, o := range []struct {
		name, addr string
		file       protoreflect.FileDescriptor
	}{
		{"enricher", cfg.Upstreams.Trail, trailv1.File_hone_trail_v1_trail_proto},
		{"enricher", cfg.Upstreams.Trail, trendsv1.File_hone_trends_v1_trends_proto},
		{"enricher", cfg.Upstreams.Trail, erasurev1.File_hone_erasure_v1_erasure_proto},
		{"embedder", cfg.Upstreams.Embedder, recallv1.File_hone_recall_v1_recall_proto},
		{"embedder", cfg.Upstreams.Embedder, casesv1.File_hone_cases_v1_cases_proto},
		{"router", cfg.Upstreams.Router, policyv1.File_hone_policy_v1_policy_proto},
		{"curator", cfg.Upstreams.Curator, curationv1.File_hone_curation_v1_curation_proto},
	} {
		conn, ok := conns[o.addr]
		if !ok {
			var err error
			if conn, err = dial(o.addr, cfg.MaxMessage, cfg.Dial); err != nil {
				return nil, errors.Join(fmt.Errorf("prepare connection to %s: %w", o.name, err), g.Close())
			}
			conns[o.addr] = conn
		}
		g.owners = append(g.owners, owner{name: o.name, pkg: o.file.Package(), file: o.file, conn: conn})
	}
	routes, err := newRoutes(g.owners)
	if err != nil {
		return nil, errors.Join(err, g.Close())
	}
	g.routes = routes
	return g, nil
}

func dial(addr string, maxMessage int, more []grpc.DialOption) (*grpc.ClientConn, error) {
	return grpc.NewClient(addr, append([]grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
		// The defaults wait up to two minutes before they look again.
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 2 * time.Second},
			MinConnectTimeout: time.Second,
		}),
	}, more...)...)
}

// Close ends all connections. More than once is the same as once.
func (g *Gateway) Close() error { return g.close() }

func (g *Gateway) closeAll() error {
	var errs []error
	closed := map[*grpc.ClientConn]bool{}
	for _, o := range g.owners {
		if !closed[o.conn] {
			closed[o.conn] = true
			errs = append(errs, o.conn.Close())
		}
	}
	return errors.Join(errs...)
}

// ownerOf finds whose method "/package.Service/Method" is.
func (g *Gateway) ownerOf(method string) (owner, bool) {
	service, _, _ := strings.Cut(strings.TrimPrefix(method, "/"), "/")
	pkg := protoreflect.FullName(service).Parent()
	for _, o := range g.owners {
		if o.pkg == pkg {
			return o, true
		}
	}
	return owner{}, false
}

// failure is the caller's view of an error of a call to o.
func (o owner) failure(ctx context.Context, err error) *apierr.Error {
	e := apierr.FromStatus(err)
	// The text of a failed connection is about our network, not for callers.
	if e.Code == codes.Unavailable {
		if s := o.conn.GetState(); s == connectivity.TransientFailure || s == connectivity.Connecting || s == connectivity.Idle {
			e.Message = "the " + o.name + " cannot be reached: try again later"
		}
		if e.RetryAfter == 0 {
			e.RetryAfter = time.Second
		}
	}
	if e.Code == codes.DeadlineExceeded {
		e.Message = "the " + o.name + " took too long"
		e.RetryAfter = time.Second
	}
	if ctx.Err() != nil && errors.Is(context.Cause(ctx), context.Canceled) {
		e.Code = codes.Canceled
	}
	return e
}
