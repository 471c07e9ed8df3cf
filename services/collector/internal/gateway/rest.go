package gateway

import (
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/genproto/googleapis/api/httpbody"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/honeloop/hone/pkg/jsonpb"
	"github.com/honeloop/hone/services/collector/internal/apierr"
)

// forwarded are the headers that an owner gets.
var forwarded = []string{"Authorization", "Traceparent", "Tracestate"}

// Route is the RPC that a request is for, as a label; empty for none.
func (g *Gateway) Route(r *http.Request) string {
	route, _, _ := g.find(r.Method, r.URL.EscapedPath())
	if route == nil {
		return ""
	}
	return route.rpc
}

// ServeHTTP answers REST calls.
func (g *Gateway) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if e := g.serve(w, r); e != nil {
		e.Write(w)
	}
}

func (g *Gateway) serve(w http.ResponseWriter, r *http.Request) *apierr.Error {
	route, groups, allowed := g.find(r.Method, r.URL.EscapedPath())
	switch {
	case route == nil && len(allowed) > 0:
		w.Header().Set("Allow", strings.Join(allowed, ", "))
		return apierr.Errorf(codes.Unimplemented, "%s is not possible here, only %s", r.Method, strings.Join(allowed, ", ")).WithStatus(http.StatusMethodNotAllowed)
	case route == nil:
		return apierr.Errorf(codes.NotFound, "there is no such path: /openapi.json lists all")
	}
	select {
	case g.inFlight <- struct{}{}:
		defer func() { <-g.inFlight }()
	default:
		return apierr.Unavailable("too many calls at a time: try again later", time.Second)
	}
	query, perr := url.ParseQuery(r.URL.RawQuery)
	if perr != nil {
		return apierr.Errorf(codes.InvalidArgument, "the query is broken: %v", perr)
	}
	body, err := g.readBody(w, r)
	if err != nil {
		return err
	}
	in, ferr := route.request(groups, query, body)
	if ferr != nil {
		return apierr.FromField(ferr)
	}
	var pairs []string
	for _, name := range forwarded {
		if v := r.Header.Get(name); v != "" {
			pairs = append(pairs, strings.ToLower(name), v)
		}
	}
	ctx := metadata.NewOutgoingContext(r.Context(), metadata.Pairs(pairs...))
	if route.stream {
		return g.stream(ctx, w, route, in)
	}
	ctx, cancel := context.WithTimeout(ctx, g.cfg.Timeout)
	defer cancel()
	out := route.out.New().Interface()
	if err := route.owner.conn.Invoke(ctx, route.rpc, in, out); err != nil {
		return route.owner.failure(ctx, err)
	}
	return writeMessage(w, route, out)
}

func (g *Gateway) readBody(w http.ResponseWriter, r *http.Request) ([]byte, *apierr.Error) {
	if r.Body == nil || r.Body == http.NoBody {
		return nil, nil
	}
	if r.ContentLength > int64(g.cfg.MaxBody) {
		return nil, tooLarge(g.cfg.MaxBody)
	}
	if ct := r.Header.Get("Content-Type"); ct != "" {
		// The form type is what curl -d says where nobody tells it better.
		if media, _, err := mime.ParseMediaType(ct); err != nil || media != "application/json" && media != "application/x-www-form-urlencoded" {
			return nil, apierr.Errorf(codes.InvalidArgument, "want Content-Type application/json").WithStatus(http.StatusUnsupportedMediaType)
		}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, int64(g.cfg.MaxBody)))
	if err != nil {
		if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
			return nil, tooLarge(g.cfg.MaxBody)
		}
		return nil, apierr.Errorf(codes.InvalidArgument, "the body ends too early").WithStatus(http.StatusBadRequest)
	}
	return body, nil
}

func tooLarge(limit int) *apierr.Error {
	return apierr.Errorf(codes.InvalidArgument, "the body is too large: want at most %d bytes", limit).WithStatus(http.StatusRequestEntityTooLarge)
}

func asFieldError(err error) *jsonpb.FieldError {
	if e, ok := errors.AsType[*jsonpb.FieldError](err); ok {
		return e
	}
	return &jsonpb.FieldError{Reason: jsonpb.BrokenJSON, Message: err.Error()}
}

// writeMessage answers with a message as JSON: set fields only, but the lists of
// the answer itself always, so that "none" reads as [].
func writeMessage(w http.ResponseWriter, route *route, out proto.Message) *apierr.Error {
	data, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(out)
	if err != nil {
		return apierr.Errorf(codes.Internal, "the answer cannot be encoded")
	}
	value := jsontext.Value(data)
	if err := value.Compact(); err != nil { // protojson's spaces differ from build to build
		return apierr.Errorf(codes.Internal, "the answer cannot be encoded")
	}
	for _, fd := range route.emptyLists {
		if out.ProtoReflect().Has(fd) {
			continue
		}
		value = value[:len(value)-1]
		if len(value) > 1 {
			value = append(value, ',')
		}
		value = append(value, `"`+string(fd.Name())+`":[]}`...)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	_, _ = w.Write(value) // the caller has gone: nobody to tell
	return nil
}

// stream passes a stream of bodies on. An error after the first byte aborts the
// connection, so that a caller cannot take half a stream for the whole.
func (g *Gateway) stream(ctx context.Context, w http.ResponseWriter, route *route, in proto.Message) *apierr.Error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := route.owner.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, route.rpc)
	if err != nil {
		return route.owner.failure(ctx, err)
	}
	if err := stream.SendMsg(in); err != nil && !errors.Is(err, io.EOF) { // after io.EOF RecvMsg has the reason
		return route.owner.failure(ctx, err)
	}
	if err := stream.CloseSend(); err != nil {
		return route.owner.failure(ctx, err)
	}
	rc := http.NewResponseController(w)
	for started := false; ; started = true {
		part := new(httpbody.HttpBody)
		err := stream.RecvMsg(part)
		// Writers that know no deadlines, as in tests, go without.
		_ = rc.SetWriteDeadline(time.Now().Add(g.cfg.StreamWriteTimeout))
		switch {
		case errors.Is(err, io.EOF):
			if !started {
				w.Header().Set("Content-Type", "application/x-ndjson")
				w.WriteHeader(http.StatusOK)
			}
			return nil
		case err != nil && !started:
			return route.owner.failure(ctx, err)
		case err != nil:
			panic(http.ErrAbortHandler)
		}
		if !started {
			w.Header().Set("Content-Type", part.GetContentType())
			w.Header().Set("X-Content-Type-Options", "nosniff")
		}
		if _, err := w.Write(part.GetData()); err != nil {
			panic(http.ErrAbortHandler)
		}
		if err := rc.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
			panic(http.ErrAbortHandler)
		}
	}
}
