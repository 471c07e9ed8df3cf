package embedded

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// WeaviateOptions says where a Weaviate server keeps its data and listens.
type WeaviateOptions struct {
	// Folder of the data; created where it is missing.
	Dir string
	// Ports; 0 picks a free one. Weaviate serves gRPC on every interface.
	Port, GRPCPort int
	// APIKey that callers must send. Empty means that everybody may do everything.
	APIKey string
	// Log file, bounded to 20 MB. Empty means weaviate.log in Dir.
	Log string
}

// Weaviate is a running server in a child process.
type Weaviate struct {
	// URL of the REST API, and address of the gRPC API.
	URL, GRPCAddr string
	child         *child
}

// StartWeaviate starts a server and returns once it is ready.
func StartWeaviate(ctx context.Context, o WeaviateOptions) (*Weaviate, error) {
	// The cluster's ports are always picked, so any start may lose one.
	for attempt := 1; ; attempt++ {
		w, err := startWeaviate(ctx, o)
		if err == nil {
			return w, nil
		}
		if attempt == pickAttempts || !pickAgain(ctx, err) {
			return nil, fmt.Errorf("start Weaviate: %w", err)
		}
	}
}

func startWeaviate(ctx context.Context, o WeaviateOptions) (*Weaviate, error) {
	bin := filepath.Join(CacheDir(), "bin", "weaviate-server")
	if err := cached(bin); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(o.Dir)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create data folder: %w", err)
	}
	log := o.Log
	if log == "" {
		log = filepath.Join(dir, "weaviate.log")
	}
	var gossip, data, raft, raftRPC int
	if err := FreePorts(&o.Port, &o.GRPCPort, &gossip, &data, &raft, &raftRPC); err != nil {
		return nil, err
	}
	env := []string{
		"PERSISTENCE_DATA_PATH=" + dir,
		"DEFAULT_VECTORIZER_MODULE=none",
		"ENABLE_MODULES=",
		"DISABLE_TELEMETRY=true",
		"LOG_LEVEL=warning",
		"GO_PROFILING_DISABLE=true", // it would listen on port 6060
		"PROMETHEUS_MONITORING_ENABLED=false",
		fmt.Sprintf("GRPC_PORT=%d", o.GRPCPort),
		// A cluster of one, on ports of its own so that several can run.
		"CLUSTER_HOSTNAME=node1",
		"CLUSTER_BIND_ADDR=127.0.0.1",
		"CLUSTER_ADVERTISE_ADDR=127.0.0.1",
		fmt.Sprintf("CLUSTER_GOSSIP_BIND_PORT=%d", gossip),
		fmt.Sprintf("CLUSTER_ADVERTISE_PORT=%d", gossip),
		fmt.Sprintf("CLUSTER_DATA_BIND_PORT=%d", data),
		fmt.Sprintf("RAFT_PORT=%d", raft),
		fmt.Sprintf("RAFT_INTERNAL_RPC_PORT=%d", raftRPC),
		"RAFT_BOOTSTRAP_EXPECT=1",
		"RAFT_TIMEOUTS_MULTIPLIER=1", // the default, 5, is for networks: it makes a start 4 s longer
	}
	if o.APIKey == "" {
		env = append(env, "AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED=true")
	} else {
		env = append(env,
			"AUTHENTICATION_ANONYMOUS_ACCESS_ENABLED=false",
			"AUTHENTICATION_APIKEY_ENABLED=true",
			"AUTHENTICATION_APIKEY_ALLOWED_KEYS="+o.APIKey,
			"AUTHENTICATION_APIKEY_USERS=hone",
			// The nodes' own API listens on every interface too.
			"CLUSTER_BASIC_AUTH_USERNAME=hone",
			"CLUSTER_BASIC_AUTH_PASSWORD="+o.APIKey,
		)
	}
	child, err := startChild(childWatch, dir, env, []string{log + ".start", log},
		log, bin, "--scheme=http", "--host=127.0.0.1", fmt.Sprintf("--port=%d", o.Port))
	if err != nil {
		return nil, err
	}
	w := &Weaviate{URL: "http://" + Loopback(o.Port), GRPCAddr: Loopback(o.GRPCPort), child: child}
	ready := func(ctx context.Context) error { return getOK(ctx, w.URL+"/v1/.well-known/ready") }
	if err := child.awaitReady(ctx, ready); err != nil {
		return nil, errors.Join(err, stopNow(child))
	}
	return w, nil
}

// Done is closed when the process has ended, whether by Stop or by itself.
func (w *Weaviate) Done() <-chan struct{} { return w.child.done }

// Err is why the process ended; nil while it runs.
func (w *Weaviate) Err() error { return w.child.ended() }

// PID is the process's id, and that of its process group.
func (w *Weaviate) PID() int { return w.child.cmd.Process.Pid }

// Stop ends the server cleanly, or by force when ctx ends before that.
func (w *Weaviate) Stop(ctx context.Context) error { return w.child.stop(ctx) }
