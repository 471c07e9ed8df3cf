// Package streamtest runs an in-process broker for tests.
package streamtest

import (
	"context"
	"net"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/telemetry"
)

// wait bounds what a test waits for.
const wait = 30 * time.Second

// Broker speaks Kafka's protocol on a local port and has all topics of the
// pipeline.
type Broker struct {
	// Cluster injects faults: see its ControlKey.
	Cluster *kfake.Cluster

	cfg   stream.Config
	dir   string
	port  int
	kfake []kfake.Opt
}

// Option changes a Broker.
type Option func(*options)

type options struct {
	partitions int
	persistent bool
	kfake      []kfake.Opt
}

// Partitions is how many the topics keyed by session have. Default 3.
func Partitions(n int) Option { return func(o *options) { o.partitions = n } }

// Persistent keeps the data on disk, as Start after Stop needs.
func Persistent() Option { return func(o *options) { o.persistent = true } }

// Kfake passes options on to the broker.
func Kfake(opts ...kfake.Opt) Option {
	return func(o *options) { o.kfake = append(o.kfake, opts...) }
}

// StartBroker runs a broker until the test ends.
func StartBroker(t testing.TB, opts ...Option) *Broker {
	t.Helper()
	o := options{partitions: 3}
	for _, opt := range opts {
		opt(&o)
	}
	b := &Broker{cfg: stream.DefaultConfig(), kfake: o.kfake}
	if o.persistent {
		b.dir = t.TempDir()
	}
	b.Start(t)
	t.Cleanup(func() { b.Cluster.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	if err := stream.EnsureTopics(ctx, b.cfg, o.partitions, 1); err != nil {
		t.Fatal(err)
	}
	return b
}

// Stop is what a crash of the broker looks like to clients.
func (b *Broker) Stop(testing.TB) { b.Cluster.Close() }

// Start runs a stopped broker again, on the same address.
func (b *Broker) Start(t testing.TB) {
	t.Helper()
	opts := []kfake.Opt{kfake.NumBrokers(1)}
	if b.dir != "" {
		opts = append(opts, kfake.DataDir(b.dir))
	}
	if b.port != 0 {
		if b.dir == "" {
			t.Fatal("start broker again: its data is gone; start it with streamtest.Persistent()")
		}
		opts = append(opts, kfake.Ports(b.port))
	}
	cluster, err := kfake.NewCluster(append(opts, b.kfake...)...)
	if err != nil {
		t.Fatalf("start broker: %v", err)
	}
	b.Cluster = cluster
	b.cfg.Brokers = cluster.ListenAddrs()
	if addr, err := net.ResolveTCPAddr("tcp", b.cfg.Brokers[0]); err != nil {
		t.Fatal(err)
	} else {
		b.port = addr.Port
	}
}

// Config reaches the broker.
func (b *Broker) Config() stream.Config { return b.cfg }

// Write publishes records and waits until the broker has them.
func (b *Broker) Write(t testing.TB, recs ...stage.Record) {
	t.Helper()
	pub, err := stream.NewPublisher(b.cfg, telemetry.Discard())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := pub.Close(); err != nil {
			t.Error(err)
		}
	}()
	if err := pub.Publish(context.Background(), recs...); err != nil {
		t.Fatal(err)
	}
}

// Read waits until a topic has n records and returns its first n, in order
// within a partition. It fails the test after 30 s.
func (b *Broker) Read(t testing.TB, topic string, n int) []stage.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	var out []stage.Record
	if n == 0 {
		return nil
	}
	err := stream.Follow(ctx, b.cfg, topic, stream.FromStart(), func(_ context.Context, rec stage.Record) error {
		if out = append(out, rec); len(out) >= n {
			cancel()
		}
		return nil
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < n {
		t.Fatalf("%s has %d records after %s, want %d", topic, len(out), wait, n)
	}
	return out
}

// All is what a topic has now, in order within a partition.
func (b *Broker) All(t testing.TB, topic string) []stage.Record {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	var out []stage.Record
	caughtUp := false
	err := stream.Follow(ctx, b.cfg, topic, stream.FromStart(), func(_ context.Context, rec stage.Record) error {
		out = append(out, rec)
		return nil
	}, func() { caughtUp = true; cancel() })
	if err != nil {
		t.Fatal(err)
	}
	if !caughtUp {
		t.Fatalf("%s cannot be read to its end within %s", topic, wait)
	}
	return out
}
