package stream

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"
)

// connTracker dials for a consumer group, and can cut what it dialled: the
// group's own calls cannot be cancelled.
type connTracker struct {
	dialer net.Dialer

	mu    sync.Mutex
	off   bool
	conns map[*trackedConn]struct{}
}

type trackedConn struct {
	net.Conn
	tracker *connTracker
}

func newConnTracker(timeout time.Duration) *connTracker {
	return &connTracker{dialer: net.Dialer{Timeout: timeout}, conns: map[*trackedConn]struct{}{}}
}

func (t *connTracker) dial(ctx context.Context, network, address string) (net.Conn, error) {
	t.mu.Lock()
	off := t.off
	t.mu.Unlock()
	if off {
		return nil, net.ErrClosed
	}
	conn, err := t.dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, err
	}
	c := &trackedConn{Conn: conn, tracker: t}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.off {
		_ = conn.Close() // nothing was written to it
		return nil, net.ErrClosed
	}
	t.conns[c] = struct{}{}
	return c, nil
}

// cut closes all connections and refuses new ones.
func (t *connTracker) cut() {
	t.mu.Lock()
	t.off = true
	conns := t.conns
	t.conns = map[*trackedConn]struct{}{}
	t.mu.Unlock()
	for c := range conns {
		_ = c.Conn.Close() // its user sees the error
	}
}

func (c *trackedConn) Close() error {
	c.tracker.mu.Lock()
	delete(c.tracker.conns, c)
	c.tracker.mu.Unlock()
	return c.Conn.Close()
}

// kafkaLogger passes kafka-go's messages on.
type kafkaLogger struct {
	log   *slog.Logger
	level slog.Level
}

func (l kafkaLogger) Printf(format string, args ...any) {
	if l.log.Enabled(context.Background(), l.level) {
		l.log.Log(context.Background(), l.level, "kafka: "+fmt.Sprintf(format, args...))
	}
}
