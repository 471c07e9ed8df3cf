// Package fastpath serves the one request that a collector gets all day without
// net/http, which takes twice the CPU time for it.
//
// A request is plain if it is a POST to one path over HTTP/1.1, has a
// Content-Length and nothing else that says where its body ends, and is small.
// Whatever is different in the least goes to net/http with all that was read, and
// its connection stays there. So odd requests are read by one parser alone, and
// FuzzParse holds plain ones to what net/http reads.
package fastpath

import (
	"bytes"
	"context"
	"errors"
	"log"
	"net"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpguts"
)

// Server serves plain requests itself and hands the other connections on.
type Server struct {
	line    string // of a plain request
	path    *url.URL
	handler http.Handler
	rest    *http.Server
	handed  *handed

	mu       sync.Mutex
	listener net.Listener
	conns    map[*conn]struct{}
	closing  atomic.Bool
	serving  sync.WaitGroup // of conns
}

// New makes a server that gives plain requests for path to handler, and all
// else to rest, whose time-outs for headers, writing and idleness must be set and
// count for both. handler must not keep a request
// after it returned. Its requests' contexts do not end when the caller goes away.
func New(path string, handler http.Handler, rest *http.Server) *Server {
	return &Server{
		line:    "POST " + path + " HTTP/1.1\r\n",
		path:    &url.URL{Path: path},
		handler: handler,
		rest:    rest,
		handed:  &handed{conns: make(chan net.Conn), closed: make(chan struct{})},
		conns:   map[*conn]struct{}{},
	}
}

// Serve takes connections until Shutdown or Close, and then returns
// http.ErrServerClosed at once. It may be called once.
func (s *Server) Serve(lis net.Listener) error {
	s.handed.addr = lis.Addr()
	s.mu.Lock()
	s.listener = lis
	s.mu.Unlock()
	if s.closing.Load() {
		_ = lis.Close() // nothing was taken from it
		return http.ErrServerClosed
	}
	ended := make(chan error, 1)
	go func() { ended <- s.rest.Serve(s.handed) }()
	err := s.accept(lis)
	if s.closing.Load() {
		_ = <-ended // that its listener is closed
		return http.ErrServerClosed
	}
	return errors.Join(err, s.Close(), <-ended)
}

func (s *Server) accept(lis net.Listener) error {
	const shortest, longest = 5 * time.Millisecond, time.Second
	wait := shortest
	for {
		nc, err := lis.Accept()
		if err != nil {
			// Too many open files, say: some will be closed. net/http does the same.
			if temporary, ok := errors.AsType[net.Error](err); ok && temporary.Temporary() && !s.closing.Load() { //nolint:staticcheck // there is no other way to tell
				time.Sleep(wait)
				wait = min(2*wait, longest)
				continue
			}
			return err
		}
		wait = shortest
		c := &conn{Conn: nc, server: s, remote: nc.RemoteAddr().String()}
		s.mu.Lock()
		if s.closing.Load() {
			s.mu.Unlock()
			_ = nc.Close() // nothing was read from it
			return http.ErrServerClosed
		}
		s.conns[c] = struct{}{}
		s.serving.Add(1)
		s.mu.Unlock()
		go c.serve()
	}
}

// Shutdown stops listening, closes idle connections, and waits for the requests
// in flight until ctx ends.
func (s *Server) Shutdown(ctx context.Context) error {
	s.close(false)
	err := s.rest.Shutdown(ctx)
	done := make(chan struct{})
	go func() {
		s.serving.Wait()
		close(done)
	}()
	select {
	case <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Close stops listening and closes all connections.
func (s *Server) Close() error {
	s.close(true)
	return s.rest.Close()
}

func (s *Server) close(busy bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing.Store(true)
	if s.listener != nil {
		_ = s.listener.Close() // accept sees it
	}
	for c := range s.conns {
		if busy || c.state.CompareAndSwap(idle, closed) {
			_ = c.Conn.Close() // its goroutine sees it
		}
	}
}

// handed is the listener that net/http has.
type handed struct {
	addr   net.Addr
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (h *handed) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

func (h *handed) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

func (h *handed) Addr() net.Addr { return h.addr }

// begun is a connection of which something was read already.
type begun struct {
	net.Conn
	data []byte
}

func (b *begun) Read(p []byte) (int, error) {
	if len(b.data) > 0 {
		n := copy(p, b.data)
		if b.data = b.data[n:]; len(b.data) == 0 {
			b.data = nil
		}
		return n, nil
	}
	return b.Conn.Read(p)
}

// The states of a connection.
const (
	idle   int32 = iota // nothing of a request has come
	busy                // something has
	closed              // it was closed while idle
)

type conn struct {
	net.Conn
	server *Server
	state  atomic.Int32
	remote string
	data   []byte // what was read and not served
	// The deadlines that are set.
	readBy, writeBy time.Time

	head     head
	body     body
	response response
	out      []byte
}

func (s *Server) log(format string, args ...any) {
	if s.rest.ErrorLog != nil {
		s.rest.ErrorLog.Printf(format, args...)
		return
	}
	log.Printf(format, args...)
}

func (c *conn) serve() {
	s := c.server
	defer func() {
		if c.Conn != nil {
			_ = c.Close() // the caller sees that it is closed
		}
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
		s.serving.Done()
	}()
	defer func() {
		if p := recover(); p != nil && p != http.ErrAbortHandler {
			s.log("panic of type %T while a plain request was served\n%s", p, debug.Stack())
		}
	}()
	c.data = make([]byte, 0, 4<<10) // as net/http has
	for {
		switch c.read() {
		case plain:
			if !c.answer() {
				return
			}
		case other:
			c.handOn()
			return
		default:
			return
		}
	}
}

// read waits for the next request. more means that none comes.
func (c *conn) read() verdict {
	c.head.reset()
	for started := false; ; {
		if len(c.data) > 0 {
			if !started && !c.state.CompareAndSwap(idle, busy) {
				return more // closed by Shutdown
			}
			if v := c.head.parse(c.server.line, c.data); v != more {
				return v
			}
		}
		if !c.wait(&started) {
			return more
		}
		if len(c.data) == cap(c.data) {
			c.data = append(c.data, 0)[:len(c.data)]
		}
		n, err := c.Conn.Read(c.data[len(c.data):cap(c.data)])
		c.data = c.data[:len(c.data)+n]
		if err != nil && n == 0 {
			if len(c.data) > 0 && !errors.Is(err, net.ErrClosed) {
				return other // net/http knows what to say
			}
			return more
		}
	}
}

// wait sets the time until which something must come. started is whether it was
// set for the rest of a request already.
func (c *conn) wait(started *bool) bool {
	if *started {
		return true
	}
	now := time.Now()
	if len(c.data) > 0 {
		*started = true
		c.readBy = time.Time{} // the next one sets its own
		return c.SetReadDeadline(now.Add(c.server.rest.ReadHeaderTimeout)) == nil
	}
	if c.server.closing.Load() {
		return false
	}
	// A second sooner or later does not matter, and setting it costs.
	if by := now.Add(c.server.rest.IdleTimeout); by.Sub(c.readBy) > time.Second {
		c.readBy = by
		return c.SetReadDeadline(by) == nil
	}
	return true
}

// answer serves the request that was read. It is false where the connection
// ends.
func (c *conn) answer() bool {
	s := c.server
	size := c.head.size + c.head.body
	c.body.Reset(c.data[c.head.size:size])
	c.response = response{header: c.response.header, body: c.response.body[:0]}
	if c.response.header == nil {
		c.response.header = http.Header{}
	}
	clear(c.response.header)
	s.handler.ServeHTTP(&c.response, &http.Request{
		Method: http.MethodPost, URL: s.path, RequestURI: s.path.Path, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: c.head.header, Host: c.head.host, Body: &c.body, ContentLength: int64(c.head.body), RemoteAddr: c.remote,
	})
	last := s.closing.Load() || httpguts.HeaderValuesContainsToken(c.response.header["Connection"], "close")
	now := time.Now()
	c.out = c.response.append(c.out[:0], now, last)
	if timeout := s.rest.WriteTimeout; c.writeBy.Sub(now) < timeout {
		c.writeBy = now.Add(2 * timeout)
		if c.SetWriteDeadline(c.writeBy) != nil {
			return false
		}
	}
	if _, err := c.Write(c.out); err != nil || last {
		return false
	}
	c.data = c.data[:copy(c.data, c.data[size:])]
	if cap(c.out) > maxRequest {
		c.out, c.response.body = nil, nil
	}
	if len(c.data) == 0 && cap(c.data) > 4<<10 {
		c.data = make([]byte, 0, 4<<10)
	}
	// Shutdown may have begun in between: wait looks again.
	c.state.Store(idle)
	return true
}

// handOn gives the connection to net/http.
func (c *conn) handOn() {
	if c.SetDeadline(time.Time{}) != nil {
		return
	}
	select {
	case c.server.handed.conns <- &begun{Conn: c.Conn, data: c.data}:
		c.Conn = nil
	case <-c.server.handed.closed:
	}
}

// body is a request's, in memory.
type body struct{ bytes.Reader }

func (*body) Close() error { return nil }

// response is kept until the handler is done: what it says is small.
type response struct {
	header http.Header
	status int
	body   []byte
}

func (r *response) Header() http.Header { return r.header }

func (r *response) WriteHeader(status int) {
	if r.status == 0 {
		r.status = status
	}
}

func (r *response) Write(b []byte) (int, error) {
	r.WriteHeader(http.StatusOK)
	r.body = append(r.body, b...)
	return len(b), nil
}

// append appends the whole answer. last says that the connection ends with it.
func (r *response) append(b []byte, now time.Time, last bool) []byte {
	r.WriteHeader(http.StatusOK)
	b = append(b, "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(r.status), 10)
	b = append(b, ' ')
	b = append(b, http.StatusText(r.status)...)
	b = append(b, "\r\nDate: "...)
	b = now.UTC().AppendFormat(b, http.TimeFormat)
	for name, values := range r.header {
		for _, v := range values {
			if name == "Connection" || name == "Content-Length" || !httpguts.ValidHeaderFieldValue(v) {
				continue
			}
			b = append(b, "\r\n"...)
			b = append(b, name...)
			b = append(b, ": "...)
			b = append(b, v...)
		}
	}
	if last {
		b = append(b, "\r\nConnection: close"...)
	}
	b = append(b, "\r\nContent-Length: "...)
	b = strconv.AppendInt(b, int64(len(r.body)), 10)
	b = append(b, "\r\n\r\n"...)
	return append(b, r.body...)
}
