package gateway

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec that Codec falls back to
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// frame is a message that is passed on unread.
type frame struct{ data []byte }

// Codec is protobuf's codec, which also takes frames. The gRPC server must be
// forced to use it.
func Codec() encoding.CodecV2 { return codec{encoding.GetCodecV2("proto")} }

type codec struct{ encoding.CodecV2 }

func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if f, ok := v.(*frame); ok {
		return mem.BufferSlice{mem.SliceBuffer(f.data)}, nil
	}
	return c.CodecV2.Marshal(v)
}

func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	if f, ok := v.(*frame); ok {
		f.data = data.Materialize()
		return nil
	}
	return c.CodecV2.Unmarshal(data, v)
}

// ServeGRPC answers calls of services that the collector does not have: it
// passes them on to the owner. It is a grpc.UnknownServiceHandler.
func (g *Gateway) ServeGRPC(_ any, caller grpc.ServerStream) error {
	method, _ := grpc.MethodFromServerStream(caller)
	owner, ok := g.ownerOf(method)
	if !ok {
		return status.Errorf(codes.Unimplemented, "there is no method %s", method)
	}
	select {
	case g.inFlight <- struct{}{}:
		defer func() { <-g.inFlight }()
	default:
		return status.Error(codes.Unavailable, "too many calls at a time: try again later")
	}
	ctx, cancel := context.WithCancel(caller.Context())
	defer cancel()
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		md = md.Copy()
		for _, own := range []string{":authority", "content-type", "user-agent"} {
			delete(md, own)
		}
		ctx = metadata.NewOutgoingContext(ctx, md)
	}
	upstream, err := owner.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method, grpc.ForceCodecV2(Codec()))
	if err != nil {
		return owner.failure(ctx, err).GRPC()
	}
	// Ends when the caller has sent all or this function has returned.
	go func() {
		for {
			f := new(frame)
			if err := caller.RecvMsg(f); err != nil {
				if errors.Is(err, io.EOF) {
					_ = upstream.CloseSend() // its error comes from RecvMsg below
				} else {
					cancel()
				}
				return
			}
			if err := upstream.SendMsg(f); err != nil {
				return // its reason comes from RecvMsg below
			}
		}
	}()
	for started := false; ; started = true {
		f := new(frame)
		err := upstream.RecvMsg(f)
		if !started {
			if header, herr := upstream.Header(); herr == nil && len(header) > 0 {
				delete(header, "content-type")
				if err := caller.SetHeader(header); err != nil {
					return err
				}
			}
		}
		if err != nil {
			caller.SetTrailer(upstream.Trailer())
			if errors.Is(err, io.EOF) {
				return nil
			}
			if e := owner.failure(ctx, err); e.Code == codes.Unavailable {
				return e.GRPC()
			}
			return err
		}
		if err := caller.SendMsg(f); err != nil {
			return err
		}
	}
}
