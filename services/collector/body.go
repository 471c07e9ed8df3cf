package collector

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strconv"
	"strings"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sync/semaphore"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/honeloop/hone/pkg/auth"
	"github.com/honeloop/hone/pkg/events"
	"github.com/honeloop/hone/pkg/ids"
	"github.com/honeloop/hone/services/collector/internal/apierr"
)

// maxZstdWindow bounds the memory of one zstd decoder, in bytes. It is what
// RFC 9659 lets HTTP use.
const maxZstdWindow = 8 << 20

var errBodyTooLarge = errors.New("the body is too large")

// unpackers decompress bodies that are whole in memory already, so that a slow
// caller keeps none of them busy. There are as many as processors.
type unpackers chan *unpacker

// unpacker keeps the decoders that it made.
type unpacker struct {
	gzip *gzip.Reader
	zstd *zstd.Decoder
}

func newUnpackers() unpackers {
	u := make(unpackers, runtime.GOMAXPROCS(0))
	for range cap(u) {
		u <- &unpacker{}
	}
	return u
}

// encoding of a request's body: "gzip", "zstd", or empty.
func encoding(h http.Header) (string, *apierr.Error) {
	values := h.Values("Content-Encoding")
	switch e := strings.ToLower(strings.Join(values, ",")); e {
	case "", "identity":
		return "", nil
	case "gzip", "x-gzip":
		return "gzip", nil
	case "zstd":
		return e, nil
	default:
		return "", apierr.Errorf(codes.InvalidArgument, "Content-Encoding %q is not supported: want gzip, zstd or none", e).WithStatus(http.StatusUnsupportedMediaType)
	}
}

// unpack decompresses a body of at most limit bytes. What it takes of bodies is
// in taken, also with an error.
func (u unpackers) unpack(ctx context.Context, encoding string, packed []byte, limit int, bodies *semaphore.Weighted) (body []byte, taken int64, err error) {
	var one *unpacker
	select {
	case one = <-u:
		defer func() { u <- one }()
	case <-ctx.Done():
		return nil, 0, context.Cause(ctx)
	}
	src, err := one.reader(encoding, packed)
	if err != nil {
		return nil, 0, err
	}
	buf := make([]byte, 0, min(4*len(packed)+512, limit))
	for {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		if more := int64(cap(buf)) - taken; more > 0 {
			if !bodies.TryAcquire(more) {
				return nil, taken, errBodiesFull
			}
			taken += more
		}
		n, err := src.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if len(buf) > limit {
			return nil, taken, errBodyTooLarge
		}
		if errors.Is(err, io.EOF) {
			return buf, taken, nil
		}
		if err != nil {
			return nil, taken, err
		}
	}
}

var errBodiesFull = errors.New("too many bodies at a time")

func (u *unpacker) reader(encoding string, packed []byte) (io.Reader, error) {
	src := bytes.NewReader(packed)
	if encoding == "gzip" {
		if u.gzip == nil {
			u.gzip = new(gzip.Reader)
		}
		return u.gzip, u.gzip.Reset(src)
	}
	if u.zstd == nil {
		var err error
		// One at a time needs no goroutines, which somebody would have to stop.
		if u.zstd, err = zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true), zstd.WithDecoderMaxWindow(maxZstdWindow)); err != nil {
			return nil, err
		}
	}
	return u.zstd, u.zstd.Reset(src)
}

// maxIdempotencyKey bounds an Idempotency-Key, in bytes.
const maxIdempotencyKey = 255

// identify gives events that have no id one of the request's Idempotency-Key,
// their place and their content. The same request sent again makes the same
// ids, and the same content under another key is another event.
func identify(req *events.Request, key auth.Key, idempotency string) *apierr.Error {
	if n := len(idempotency); n >= 2 && idempotency[0] == '"' && idempotency[n-1] == '"' {
		idempotency = idempotency[1 : n-1] // as a structured field has it
	}
	if idempotency == "" {
		return nil
	}
	if len(idempotency) > maxIdempotencyKey {
		return apierr.Errorf(codes.InvalidArgument, "Idempotency-Key: want at most %d bytes, got %d", maxIdempotencyKey, len(idempotency))
	}
	for i, e := range req.Events {
		if req.Errors[i] != nil || e.GetEventId() != "" || e == nil {
			continue
		}
		content, err := proto.MarshalOptions{Deterministic: true}.Marshal(e)
		if err != nil {
			return apierr.Errorf(codes.InvalidArgument, "the event cannot be encoded")
		}
		e.EventId = ids.Derive("ev", key.ProjectID, "idempotency-key", idempotency, strconv.Itoa(i), string(content))
	}
	return nil
}

// unpackBody is what a compressed body holds.
func (h *handler) unpackBody(r *http.Request, encoding string, packed []byte) (body []byte, release func(), failed *apierr.Error) {
	body, taken, err := h.unpackers.unpack(r.Context(), encoding, packed, h.maxBody, h.bodies)
	release = func() { h.bodies.Release(taken) }
	switch {
	case err == nil:
		return body, release, nil
	case errors.Is(err, errBodyTooLarge):
		return nil, release, h.tooLarge(r)
	case errors.Is(err, errBodiesFull), r.Context().Err() != nil:
		return nil, release, errTooMany()
	default:
		h.intake.metrics.refused(r.Context(), reasonUnpack, 1)
		return nil, release, apierr.Errorf(codes.InvalidArgument, "%s", fmt.Sprintf("the body is not %s, as Content-Encoding says", encoding))
	}
}

// reasonUnpack is why a body is refused that cannot be decompressed.
const reasonUnpack = "broken_encoding"
