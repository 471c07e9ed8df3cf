package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/twmb/franz-go/pkg/kfake"
)

// BrokerOptions says where a broker keeps its data and listens.
type BrokerOptions struct {
	// Folder of the data; created where it is missing.
	Dir string
	// Port of the loopback interface; 0 picks a free one.
	Port int
	// SyncWrites makes every batch survive a power failure, at a cost. Without
	// it a batch survives the end of the process, as with Kafka's own default.
	SyncWrites bool
	// Log file of warnings, bounded to 20 MB. Empty means broker.log in Dir.
	Log string
}

// Broker is a broker in this process that speaks Kafka's protocol and keeps
// its topics, records and group offsets on disk. It is for one machine: one
// broker, no replication, a record limit of 1,048,588 bytes, and retention
// only where a topic sets it.
type Broker struct {
	// Addr is what clients bootstrap from.
	Addr string

	cluster *kfake.Cluster
	log     *LogFile
	stop    sync.Once
	done    chan struct{}
}

// StartBroker starts a broker with what Dir holds. It returns once it answers.
func StartBroker(ctx context.Context, o BrokerOptions) (*Broker, error) {
	for attempt := 1; ; attempt++ {
		b, err := startBroker(o)
		if err == nil {
			return b, nil
		}
		if o.Port != 0 || attempt == pickAttempts || !pickAgain(ctx, err) {
			return nil, fmt.Errorf("start broker: %w", err)
		}
	}
}

func startBroker(o BrokerOptions) (*Broker, error) {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("create data folder: %w", err)
	}
	path := o.Log
	if path == "" {
		path = filepath.Join(o.Dir, "broker.log")
	}
	if err := FreePorts(&o.Port); err != nil {
		return nil, err
	}
	log, err := OpenLogFile(path)
	if err != nil {
		return nil, err
	}
	opts := []kfake.Opt{
		kfake.ClusterID("hone"),
		kfake.Ports(o.Port), // one port, one broker
		kfake.DataDir(filepath.Join(o.Dir, "data")),
		kfake.WithLogger(kfake.BasicLogger(log, kfake.LogLevelWarn)),
	}
	if o.SyncWrites {
		opts = append(opts, kfake.SyncWrites())
	}
	cluster, err := kfake.NewCluster(opts...)
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	return &Broker{Addr: Loopback(o.Port), cluster: cluster, log: log, done: make(chan struct{})}, nil
}

// Done is closed when the broker has stopped.
func (b *Broker) Done() <-chan struct{} { return b.done }

// Stop closes the broker and saves its state. It waits until ctx ends.
func (b *Broker) Stop(ctx context.Context) error {
	go b.stop.Do(func() {
		defer close(b.done)
		b.cluster.Close()
		_ = b.log.Close() // nothing writes to it any more
	})
	select {
	case <-b.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop broker: %w", context.Cause(ctx))
	}
}
