// Command bench measures the collector beside a minimal handler.
//
// Each line is one server on a fresh embedded broker, with the load generator in
// the same process: all three share the machine, and "CPU us" is what all three take
// for one event, which other programs on the machine disturb less than the rest. The collector checks keys and
// events; the yardstick is net/http and franz-go and checks nothing. Both answer
// once Kafka has the event with acks=all.
package main

import (
	"cmp"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"slices"
	"time"

	"github.com/honeloop/hone/pkg/auth"
	"github.com/honeloop/hone/pkg/embedded"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/telemetry"
	"github.com/honeloop/hone/services/collector"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// load is one column of the table.
type load struct {
	connections, batch int
}

func (l load) String() string {
	if l.batch > 1 {
		return fmt.Sprintf("%d conns x %d", l.connections, l.batch)
	}
	return fmt.Sprintf("%d conns", l.connections)
}

func run() error {
	duration := flag.Duration("duration", 3*time.Second, "time of each measurement")
	rounds := flag.Int("rounds", 3, "measurements of each; the median counts")
	partitions := flag.Int("partitions", 3, "partitions of the topic")
	only := flag.String("only", "", "measure this server alone: hone, linger0 or linger5")
	conns := flag.Int("connections", 0, "measure this number of connections alone")
	batch := flag.Int("batch", 0, "with -connections: events of a request")
	profile := flag.String("cpuprofile", "", "write a CPU profile here")
	flag.Parse()
	if *profile != "" {
		f, err := os.Create(*profile)
		if err != nil {
			return err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return err
		}
		defer pprof.StopCPUProfile()
	}
	loads := []load{{1, 1}, {64, 1}, {256, 1}, {16, 100}}
	if *conns > 0 {
		loads = []load{{*conns, max(*batch, 1)}}
	}
	servers := []struct {
		name, what string
		start      func(ctx context.Context, broker, dir string) (*target, error)
	}{
		{"hone", "hone collector", startCollector},
		{"linger0", "net/http + franz-go, no linger", func(_ context.Context, broker, _ string) (*target, error) { return startYardstick(broker, 0) }},
		{"linger5", "net/http + franz-go, 5 ms linger", func(_ context.Context, broker, _ string) (*target, error) {
			return startYardstick(broker, 5*time.Millisecond)
		}},
	}
	fmt.Printf("1 KB JSON events, keep-alive, acks=all, %d partitions, %d CPUs shared by generator, server and broker; median of %d x %s\n\n",
		*partitions, runtime.NumCPU(), *rounds, *duration)
	fmt.Printf("%-14s %-34s %10s %10s %10s %8s %10s\n", "load", "server", "events/s", "p50 ms", "p99 ms", "hone is", "CPU us")
	for _, l := range loads {
		requests := makeRequests(l.batch)
		results := map[string][]result{}
		// In turns, so that what else the machine does hits all alike.
		for range *rounds {
			for _, s := range servers {
				if *only != "" && *only != s.name {
					continue
				}
				r, err := measure(s.start, requests, l, *partitions, *duration)
				if err != nil {
					return fmt.Errorf("%s, %s: %w", s.what, l, err)
				}
				results[s.name] = append(results[s.name], r)
			}
		}
		ours := median(results["hone"])
		for _, s := range servers {
			if len(results[s.name]) == 0 {
				continue
			}
			r, ratio := median(results[s.name]), ""
			if s.name != "hone" && ours.rate > 0 {
				ratio = fmt.Sprintf("%.2fx", ours.rate/r.rate)
			}
			fmt.Printf("%-14s %-34s %10.0f %10.2f %10.2f %8s %10.1f\n",
				l, s.what, r.rate, r.p50.Seconds()*1000, r.p99.Seconds()*1000, ratio, r.cpu.Seconds()*1e6)
		}
	}
	return nil
}

// result is what one measurement saw. rate is in events/s.
type result struct {
	rate     float64
	cpu      time.Duration // of generator, server and broker together, for one event
	p50, p99 time.Duration
}

func median(rs []result) result {
	if len(rs) == 0 {
		return result{}
	}
	slices.SortFunc(rs, func(a, b result) int { return cmp.Compare(a.rate, b.rate) })
	return rs[len(rs)/2]
}

// target is a server under load.
type target struct {
	addr, key string
	stop      func() error
}

func measure(start func(context.Context, string, string) (*target, error), requests requests, l load, partitions int, duration time.Duration) (result, error) {
	dir, err := os.MkdirTemp("", "hone-bench-*")
	if err != nil {
		return result{}, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	ctx := context.Background()
	broker, err := embedded.StartBroker(ctx, embedded.BrokerOptions{Dir: filepath.Join(dir, "kafka")})
	if err != nil {
		return result{}, err
	}
	defer func() { _ = broker.Stop(ctx) }() // its folder goes
	kafka := stream.DefaultConfig()
	kafka.Brokers = []string{broker.Addr}
	if err := stream.EnsureTopics(ctx, kafka, partitions, 1); err != nil {
		return result{}, err
	}
	t, err := start(ctx, broker.Addr, dir)
	if err != nil {
		return result{}, err
	}
	r, err := drive(t, requests, l, duration)
	if stopErr := t.stop(); err == nil {
		err = stopErr
	}
	runtime.GC()
	return r, err
}

func startCollector(ctx context.Context, broker, dir string) (*target, error) {
	cfg := collector.DefaultConfig()
	var httpPort, grpcPort, adminPort int
	if err := embedded.FreePorts(&httpPort, &grpcPort, &adminPort); err != nil {
		return nil, err
	}
	addr := func(port int) string { return fmt.Sprintf("127.0.0.1:%d", port) }
	cfg.HTTPAddr, cfg.Server.GRPCAddr, cfg.Server.AdminAddr = addr(httpPort), addr(grpcPort), addr(adminPort)
	cfg.Kafka.Brokers = []string{broker}
	cfg.Kafka.StallAfter = cfg.Kafka.PublishTimeout // a machine that is busy is slow, and not away
	cfg.Rate.Secret = 1e9                           // so that it is checked and never reached
	cfg.Server.KeysFile = filepath.Join(dir, "keys.yaml")
	key, secret, err := auth.Mint("bench", auth.Secret)
	if err != nil {
		return nil, err
	}
	if err := auth.WriteKeys(cfg.Server.KeysFile, []auth.Key{key}); err != nil {
		return nil, err
	}
	tel, err := telemetry.New(os.Stderr, slog.LevelWarn)
	if err != nil {
		return nil, err
	}
	s, err := collector.New(ctx, cfg, tel)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	return &target{addr: cfg.HTTPAddr, key: secret, stop: func() error {
		cancel()
		return <-done
	}}, nil
}
