package streamtest

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/honeloop/hone/pkg/stream"
)

// envKafka chooses the broker of StartBroker: "real" is Apache Kafka.
const envKafka = "HONE_TEST_KAFKA"

// startTimeout bounds one start of Kafka, which takes seconds where the machine
// is free.
const startTimeout = 90 * time.Second

// realKafka is whether tests run on Apache Kafka.
func realKafka(t testing.TB) bool {
	t.Helper()
	switch v := os.Getenv(envKafka); v {
	case "":
		return false
	case "real":
		return true
	default:
		t.Fatalf("%s is %q, want \"real\" or nothing", envKafka, v)
		return false
	}
}

// listener is a security protocol of Kafka.
type listener string

const (
	plaintext     listener = "PLAINTEXT"
	ssl           listener = "SSL" // asks for a client certificate
	saslPlaintext listener = "SASL_PLAINTEXT"
	saslSSL       listener = "SASL_SSL"
	controller    listener = "CONTROLLER"
)

var clientListeners = []listener{plaintext, ssl, saslPlaintext, saslSSL}

// apacheKafka is the one Kafka of a test process. Tests have it one after the
// other, each with its topics and groups made anew.
type apacheKafka struct {
	dir   string
	ports map[listener]int
	tls   *certificates

	process *exec.Cmd
	// alive is the shell's input: where it ends, also because the test process
	// did, the shell kills Kafka and removes its folder.
	alive *os.File
	inUse bool
}

var (
	theKafkaMu sync.Mutex
	theKafka   *apacheKafka
)

// useKafka gives a test the process's Kafka, running and empty, until it ends.
func useKafka(t testing.TB) *apacheKafka {
	t.Helper()
	theKafkaMu.Lock()
	defer theKafkaMu.Unlock()
	if theKafka == nil {
		k, err := newKafka()
		if err != nil {
			t.Fatalf("prepare Kafka: %v", err)
		}
		theKafka = k
	}
	k := theKafka
	if k.inUse {
		t.Fatal("another test of this process has Kafka: tests on it run one after the other")
	}
	k.inUse = true
	t.Cleanup(func() {
		theKafkaMu.Lock()
		defer theKafkaMu.Unlock()
		k.inUse = false
	})
	if k.process == nil {
		k.start(t)
	}
	if err := k.empty(); err != nil {
		t.Fatalf("empty Kafka: %v", err)
	}
	return k
}

func (k *apacheKafka) addr(l listener) string {
	return fmt.Sprintf("127.0.0.1:%d", k.ports[l])
}

// newKafka makes the folder and settings of a Kafka, and formats its storage.
func newKafka() (*apacheKafka, error) {
	dir, err := os.MkdirTemp("", "hone-kafka-")
	if err != nil {
		return nil, err
	}
	k := &apacheKafka{dir: dir, ports: map[listener]int{}}
	fail := func(err error) (*apacheKafka, error) { return nil, errors.Join(err, os.RemoveAll(dir)) }
	if k.tls, err = newCertificates(); err != nil {
		return fail(err)
	}
	// Held together, so that they differ.
	for _, l := range append(clientListeners[:len(clientListeners):len(clientListeners)], controller) {
		held, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return fail(err)
		}
		defer func() { _ = held.Close() }() // nothing was accepted
		k.ports[l] = held.Addr().(*net.TCPAddr).Port
	}
	for name, content := range map[string]string{
		"server.pem":        k.tls.serverKey + k.tls.serverCert,
		"ca.pem":            k.tls.ca,
		"server.properties": k.properties(),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			return fail(err)
		}
	}
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		return fail(err)
	}
	args := []string{"format", "--config", filepath.Join(dir, "server.properties"), "--cluster-id=" + base64.RawURLEncoding.EncodeToString(id)}
	for _, mechanism := range []string{stream.ScramSHA256, stream.ScramSHA512} {
		args = append(args, "--add-scram", fmt.Sprintf("%s=[name=%s,password=%s]", mechanism, User, Password))
	}
	java, err := javaCommand("kafka.tools.StorageTool", args...)
	if err != nil {
		return fail(err)
	}
	if out, err := exec.Command(java[0], java[1:]...).CombinedOutput(); err != nil {
		return fail(fmt.Errorf("format storage: %w\n%s", err, out))
	}
	return k, nil
}

func (k *apacheKafka) properties() string {
	var listeners, advertised, protocols []string
	for _, l := range clientListeners {
		advertised = append(advertised, fmt.Sprintf("%s://%s", l, k.addr(l)))
		protocols = append(protocols, fmt.Sprintf("%s:%s", l, l))
	}
	listeners = append(advertised[:len(advertised):len(advertised)], fmt.Sprintf("%s://%s", controller, k.addr(controller)))
	protocols = append(protocols, "CONTROLLER:PLAINTEXT")
	lines := []string{
		"process.roles=broker,controller",
		"node.id=1",
		"controller.quorum.voters=1@" + k.addr(controller),
		"controller.listener.names=CONTROLLER",
		"inter.broker.listener.name=PLAINTEXT",
		"listeners=" + strings.Join(listeners, ","),
		"advertised.listeners=" + strings.Join(advertised, ","),
		"listener.security.protocol.map=" + strings.Join(protocols, ","),
		"log.dirs=" + filepath.Join(k.dir, "data"),
		"auto.create.topics.enable=false",
		"offsets.topic.replication.factor=1",
		"offsets.topic.num.partitions=1",
		"transaction.state.log.replication.factor=1",
		"transaction.state.log.min.isr=1",
		"share.coordinator.state.topic.replication.factor=1",
		"share.coordinator.state.topic.min.isr=1",
		// Tests join groups all the time.
		"group.initial.rebalance.delay.ms=0",
		// A killed broker comes back sooner than the default of 9 s.
		"broker.session.timeout.ms=3000",
		"broker.heartbeat.interval.ms=500",
		"log.cleaner.dedupe.buffer.size=4194304",
		"file.delete.delay.ms=1000",
		"num.network.threads=2",
		"num.io.threads=4",
		"ssl.keystore.type=PEM",
		"ssl.keystore.location=" + filepath.Join(k.dir, "server.pem"),
		"ssl.truststore.type=PEM",
		"ssl.truststore.location=" + filepath.Join(k.dir, "ca.pem"),
		"listener.name.ssl.ssl.client.auth=required",
		"sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
	}
	for _, l := range []listener{saslPlaintext, saslSSL} {
		prefix := "listener.name." + strings.ToLower(string(l)) + "."
		lines = append(lines,
			fmt.Sprintf("%splain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_%s=\"%s\";", prefix, User, Password),
			prefix+"scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;",
			prefix+"scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;",
		)
	}
	return strings.Join(lines, "\n") + "\n"
}

// javaCommand runs a class of Kafka's jars.
func javaCommand(class string, args ...string) ([]string, error) {
	java, err := exec.LookPath("java")
	if err != nil {
		return nil, errors.New("java is missing: install a Java runtime, 17 or newer")
	}
	jars := filepath.Join(cacheDir(), "kafka")
	if found, err := filepath.Glob(filepath.Join(jars, "kafka_*.jar")); err != nil || len(found) == 0 {
		return nil, fmt.Errorf("%s has no Kafka: run scripts/setup --kafka", jars)
	}
	return append([]string{java, "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
		"-cp", filepath.Join(jars, "*"), class}, args...), nil
}

// cacheDir is the rule of embedded.CacheDir, which this package cannot import.
func cacheDir() string {
	if dir := os.Getenv("HONE_CACHE"); dir != "" {
		return dir
	}
	dir, err := os.UserCacheDir()
	if err != nil {
		dir = os.TempDir()
	}
	return filepath.Join(dir, "hone")
}

// keeper runs Kafka and ends with its input: with a line, or without one, which
// is how the test process ends.
const keeper = `dir=$1; shift
"$@" </dev/null >>"$dir/log" 2>&1 &
pid=$!
echo $pid >"$dir/pid"
if read -r _; then keep=1; fi
kill -9 $pid 2>/dev/null
wait $pid 2>/dev/null
[ -n "$keep" ] || rm -rf "$dir"
`

func (k *apacheKafka) start(t testing.TB) {
	t.Helper()
	java, err := javaCommand("kafka.Kafka", filepath.Join(k.dir, "server.properties"))
	if err != nil {
		t.Fatalf("start Kafka: %v", err)
	}
	input, alive, err := os.Pipe()
	if err != nil {
		t.Fatalf("start Kafka: %v", err)
	}
	cmd := exec.Command("sh", append([]string{"-c", keeper, "sh", k.dir}, java...)...)
	cmd.Stdin = input
	err = cmd.Start()
	if err := errors.Join(err, input.Close()); err != nil {
		t.Fatalf("start Kafka: %v", err)
	}
	k.process, k.alive = cmd, alive
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	client, done := k.client()
	defer done()
	for {
		res, err := client.Metadata(ctx, &kafka.MetadataRequest{})
		if err == nil && len(res.Brokers) > 0 {
			return
		}
		if ctx.Err() != nil {
			log, readErr := os.ReadFile(filepath.Join(k.dir, "log"))
			t.Fatalf("Kafka does not answer within %s: %v\n%s", startTimeout, errors.Join(err, readErr), log[max(0, len(log)-4000):])
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func (k *apacheKafka) signal(t testing.TB, sig syscall.Signal) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(k.dir, "pid"))
	if err != nil {
		t.Fatalf("signal Kafka: %v", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		t.Fatalf("signal Kafka: %v", err)
	}
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatalf("signal Kafka: %v", err)
	}
}

// kill ends Kafka with SIGKILL; its data stays.
func (k *apacheKafka) kill(t testing.TB) {
	t.Helper()
	if k.process == nil {
		return
	}
	_, err := io.WriteString(k.alive, "stop\n")
	if err := errors.Join(err, k.process.Wait(), k.alive.Close()); err != nil {
		t.Fatalf("stop Kafka: %v", err)
	}
	k.process, k.alive = nil, nil
}

func (k *apacheKafka) client() (c *kafka.Client, done func()) {
	transport := &kafka.Transport{MetadataTTL: 100 * time.Millisecond, DialTimeout: time.Second}
	return &kafka.Client{Addr: kafka.TCP(k.addr(plaintext)), Transport: transport, Timeout: 10 * time.Second}, transport.CloseIdleConnections
}

// empty deletes all groups and topics, and waits until they are gone and there
// is a coordinator for groups, which a new Kafka makes when it is first asked.
func (k *apacheKafka) empty() error {
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	cl, err := kgo.NewClient(kgo.SeedBrokers(k.addr(plaintext)), kgo.MetadataMinAge(50*time.Millisecond))
	if err != nil {
		return err
	}
	defer cl.Close()
	for {
		left, err := deleteAll(ctx, cl)
		if err == nil && left == 0 {
			req := kmsg.NewPtrOffsetFetchRequest()
			req.Group = "streamtest"
			var res *kmsg.OffsetFetchResponse
			if res, err = req.RequestWith(ctx, cl); err == nil {
				err = kerr.ErrorForCode(res.ErrorCode)
			}
			if err == nil {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not within %s, %d topics and groups are left: %w", wait, left, errors.Join(err, ctx.Err()))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// deleteAll returns how many topics and groups there were.
func deleteAll(ctx context.Context, cl *kgo.Client) (int, error) {
	var errs []error
	groups, err := kmsg.NewPtrListGroupsRequest().RequestWith(ctx, cl)
	if err != nil {
		return 0, fmt.Errorf("list groups: %w", err)
	}
	count := len(groups.Groups)
	if count > 0 {
		req := kmsg.NewPtrDeleteGroupsRequest()
		for _, g := range groups.Groups {
			req.Groups = append(req.Groups, g.Group)
		}
		res, err := req.RequestWith(ctx, cl)
		if err != nil {
			return count, fmt.Errorf("delete groups: %w", err)
		}
		for _, g := range res.Groups {
			if err := kerr.ErrorForCode(g.ErrorCode); err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
				errs = append(errs, fmt.Errorf("delete group %s: %w", g.Group, err))
			}
		}
	}
	meta := kmsg.NewPtrMetadataRequest()
	meta.Topics = nil // all of them
	topics, err := meta.RequestWith(ctx, cl)
	if err != nil {
		return count, fmt.Errorf("list topics: %w", err)
	}
	req := kmsg.NewPtrDeleteTopicsRequest()
	for _, topic := range topics.Topics {
		if topic.Topic != nil && !strings.HasPrefix(*topic.Topic, "__") {
			t := kmsg.NewDeleteTopicsRequestTopic()
			t.Topic = topic.Topic
			req.Topics = append(req.Topics, t)
			req.TopicNames = append(req.TopicNames, *topic.Topic)
		}
	}
	count += len(req.Topics)
	if len(req.Topics) > 0 {
		res, err := req.RequestWith(ctx, cl)
		if err != nil {
			return count, fmt.Errorf("delete topics: %w", err)
		}
		for _, topic := range res.Topics {
			if err := kerr.ErrorForCode(topic.ErrorCode); err != nil && !errors.Is(err, kerr.UnknownTopicOrPartition) {
				errs = append(errs, fmt.Errorf("delete topic: %w", err))
			}
		}
	}
	return count, errors.Join(errs...)
}

// sayInProcess lists a test that stays on the in-process broker.
func sayInProcess(t testing.TB) {
	t.Helper()
	fmt.Fprintf(os.Stderr, "streamtest: %s runs on the in-process broker also here: it injects faults\n", t.Name())
}
