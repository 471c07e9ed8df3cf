// Package streamtest runs a broker for tests: one in the process, or Apache
// Kafka.
package streamtest

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/telemetry"
)

// wait bounds what a test waits for.
const wait = 30 * time.Second

// Broker speaks Kafka's protocol on a local port and has all topics of the
// pipeline.
type Broker struct {
	// Cluster injects faults: see its ControlKey. It is nil on Apache Kafka.
	Cluster *kfake.Cluster

	opts  options
	kafka *apacheKafka
	cfg   stream.Config
	dir   string
	port  int
	gate  *gate
}

// User and Password log in to a broker with SASL.
const (
	User     = "hone"
	Password = "hone-secret"
)

// Option changes a Broker.
type Option func(*options)

type options struct {
	partitions int
	persistent bool
	inProcess  bool
	pausable   bool
	mechanism  string
	tls        bool
	clientCert bool
	kfake      []kfake.Opt
}

// Partitions is how many the topics keyed by session have. Default 3.
func Partitions(n int) Option { return func(o *options) { o.partitions = n } }

// Persistent keeps the data on disk, as Start after Stop needs.
func Persistent() Option { return func(o *options) { o.persistent = true } }

// Pausable lets the broker hang: see Pause.
func Pausable() Option { return func(o *options) { o.pausable = true } }

// InProcess is for tests that use Broker.Cluster: they run on the in-process
// broker also where the others run on Apache Kafka. There it is said in the
// output.
func InProcess() Option { return func(o *options) { o.inProcess = true } }

// SASL has clients log in, as User. The mechanism is one of stream's.
func SASL(mechanism string) Option { return func(o *options) { o.mechanism = mechanism } }

// TLS encrypts connections, with a certificate for ServerName and 127.0.0.1.
func TLS() Option { return func(o *options) { o.tls = true } }

// ClientCert encrypts connections and has clients show a certificate.
func ClientCert() Option { return func(o *options) { o.tls, o.clientCert = true, true } }

// StartBroker runs a broker until the test ends. Where the environment has
// HONE_TEST_KAFKA=real it is an Apache Kafka, which the tests of a process have
// one after the other.
func StartBroker(t testing.TB, opts ...Option) *Broker {
	t.Helper()
	o := options{partitions: 3}
	for _, opt := range opts {
		opt(&o)
	}
	b := &Broker{cfg: stream.DefaultConfig(), opts: o}
	switch {
	case !realKafka(t):
		b.startInProcess(t)
	case o.inProcess:
		sayInProcess(t)
		b.startInProcess(t)
	default:
		b.kafka = useKafka(t)
		if o.pausable {
			t.Cleanup(func() { b.Resume(t) })
		}
		b.secure(t, b.kafka.tls)
		b.cfg.Brokers = []string{b.kafka.addr(b.listener(t))}
	}
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	if err := stream.EnsureTopics(ctx, b.cfg, o.partitions, 1); err != nil {
		t.Fatal(err)
	}
	return b
}

// listener is the one of Apache Kafka that has what was asked for.
func (b *Broker) listener(t testing.TB) listener {
	t.Helper()
	switch o := b.opts; {
	case o.clientCert && o.mechanism != "":
		t.Fatal("Kafka has no listener with both client certificates and SASL")
		return ""
	case o.clientCert:
		return ssl
	case o.mechanism != "" && o.tls:
		return saslSSL
	case o.mechanism != "":
		return saslPlaintext
	case o.tls:
		t.Fatal("Kafka has no listener with TLS and without client certificates or SASL")
		return ""
	}
	return plaintext
}

// secure has the config log in and encrypt as was asked for.
func (b *Broker) secure(t testing.TB, certs *certificates) {
	t.Helper()
	if b.opts.mechanism != "" {
		b.cfg.SASL = stream.SASL{Mechanism: b.opts.mechanism, Username: User, Password: Password}
	}
	if !b.opts.tls {
		return
	}
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	b.cfg.TLS = stream.TLS{Enabled: true, CAFile: file("ca.pem", certs.ca)}
	if b.opts.clientCert {
		b.cfg.TLS.CertFile, b.cfg.TLS.KeyFile = file("client.pem", certs.clientCert), file("client-key.pem", certs.clientKey)
	}
}

func (b *Broker) startInProcess(t testing.TB) {
	t.Helper()
	if b.opts.mechanism != "" {
		b.opts.kfake = append(b.opts.kfake, kfake.EnableSASL(), kfake.Superuser(b.opts.mechanism, User, Password))
	}
	if b.opts.tls {
		certs, err := newCertificates()
		if err != nil {
			t.Fatal(err)
		}
		server, err := certs.server(b.opts.clientCert)
		if err != nil {
			t.Fatal(err)
		}
		b.opts.kfake = append(b.opts.kfake, kfake.TLS(server))
		b.secure(t, certs)
	} else {
		b.secure(t, nil)
	}
	if b.opts.persistent {
		b.dir = t.TempDir()
	}
	if b.opts.pausable {
		b.gate = newGate()
		b.opts.kfake = append(b.opts.kfake, kfake.ListenFn(b.gate.listen))
	}
	b.Start(t)
	t.Cleanup(func() {
		if b.gate != nil {
			b.gate.open() // or the broker would never end
		}
		b.Cluster.Close()
	})
}

// Stop is what a crash of the broker looks like to clients.
func (b *Broker) Stop(t testing.TB) {
	t.Helper()
	if b.kafka != nil {
		b.kafka.kill(t)
		return
	}
	b.Cluster.Close()
}

// Start runs a stopped broker again, on the same address.
func (b *Broker) Start(t testing.TB) {
	t.Helper()
	if b.kafka != nil {
		b.kafka.start(t)
		return
	}
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
	cluster, err := kfake.NewCluster(append(opts, b.opts.kfake...)...)
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

// Pause has a Pausable broker hang, as SIGSTOP does: connections stay and
// nothing is answered.
func (b *Broker) Pause(t testing.TB) {
	t.Helper()
	if b.kafka != nil {
		b.kafka.signal(t, syscall.SIGSTOP)
		return
	}
	b.gate.close()
}

// Resume ends a Pause. What was asked meanwhile is answered.
func (b *Broker) Resume(t testing.TB) {
	t.Helper()
	if b.kafka != nil {
		b.kafka.signal(t, syscall.SIGCONT)
		return
	}
	b.gate.open()
}

// Config reaches the broker.
func (b *Broker) Config() stream.Config { return b.cfg }

// CreateTopic makes a topic with settings of Kafka such as max.message.bytes.
func (b *Broker) CreateTopic(t testing.TB, topic string, partitions int, settings map[string]string) {
	t.Helper()
	req := kmsg.NewPtrCreateTopicsRequest()
	rt := kmsg.NewCreateTopicsRequestTopic()
	rt.Topic, rt.NumPartitions, rt.ReplicationFactor = topic, int32(partitions), 1
	for name, value := range settings {
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		c.Name, c.Value = name, kmsg.StringPtr(value)
		rt.Configs = append(rt.Configs, c)
	}
	req.Topics = append(req.Topics, rt)
	b.admin(t, func(ctx context.Context, cl *kgo.Client) error {
		res, err := req.RequestWith(ctx, cl)
		if err != nil {
			return err
		}
		if err := kerr.ErrorForCode(res.Topics[0].ErrorCode); err != nil {
			return err
		}
		for { // Kafka's brokers hear of it later
			meta := kmsg.NewPtrMetadataRequest()
			mt := kmsg.NewMetadataRequestTopic()
			mt.Topic = kmsg.StringPtr(topic)
			meta.Topics = append(meta.Topics, mt)
			res, err := meta.RequestWith(ctx, cl)
			if err != nil {
				return err
			}
			if res.Topics[0].ErrorCode == 0 && len(res.Topics[0].Partitions) == partitions {
				return nil
			}
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
}

// DeleteRecords deletes a partition's records before an offset, as retention
// does.
func (b *Broker) DeleteRecords(t testing.TB, topic string, partition int, before int64) {
	t.Helper()
	req := kmsg.NewPtrDeleteRecordsRequest()
	rt := kmsg.NewDeleteRecordsRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewDeleteRecordsRequestTopicPartition()
	rp.Partition, rp.Offset = int32(partition), before
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	b.admin(t, func(ctx context.Context, cl *kgo.Client) error {
		res, err := req.RequestWith(ctx, cl)
		if err != nil {
			return err
		}
		return kerr.ErrorForCode(res.Topics[0].Partitions[0].ErrorCode)
	})
}

// admin makes a request that stream has no need of.
func (b *Broker) admin(t testing.TB, request func(context.Context, *kgo.Client) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.cfg.Brokers...))
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	if err := request(ctx, cl); err != nil {
		t.Fatal(err)
	}
}

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
