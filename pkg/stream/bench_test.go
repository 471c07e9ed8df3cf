package stream_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"github.com/honeloop/hone/pkg/stage"
	"github.com/honeloop/hone/pkg/stream"
	"github.com/honeloop/hone/pkg/stream/streamtest"
)

// benchEvent is about 1 KB of JSON that compresses as events do.
func benchEvent(i int) stage.Record {
	session := fmt.Sprintf("session-%06d", i%997)
	value := fmt.Appendf(nil, `{"type":"interaction","event_id":"e-%09d","session_id":"%s","occurred_at":"2026-11-24T09:30:00.%06dZ","interaction":{"query":"`, i, session, i%1e6)
	for n := uint32(i); len(value) < 1000; {
		n = n*1664525 + 1013904223
		value = fmt.Appendf(value, "word%d ", n>>20)
	}
	return stage.Record{Topic: stream.TopicEvents, Key: stream.SessionKey("default", session), Value: append(value, `"}}`...)}
}

// BenchmarkRunner compares the runner with a stage that does nothing to
// kafka-go's Reader, without commits, on the same 1 KB records, turn and turn
// about. It reports the median of each and their ratio.
func BenchmarkRunner(b *testing.B) {
	const records = 200_000
	for _, partitions := range []int{1, 3} {
		b.Run(fmt.Sprintf("partitions=%d", partitions), func(b *testing.B) {
			broker := streamtest.StartBroker(b, streamtest.Partitions(partitions))
			for i := 0; i < records; i += 5000 {
				recs := make([]stage.Record, 5000)
				for j := range recs {
					recs[j] = benchEvent(i + j)
				}
				broker.Write(b, recs...)
			}
			var ours, theirs []float64
			for i := 0; b.Loop(); i++ {
				theirs = append(theirs, records/readBare(b, broker, partitions, records).Seconds())
				ours = append(ours, records/runNoop(b, broker, fmt.Sprint("bench-", i), records).Seconds())
			}
			slices.Sort(ours)
			slices.Sort(theirs)
			runner, reader := ours[len(ours)/2], theirs[len(theirs)/2]
			b.ReportMetric(runner, "runner-records/s")
			b.ReportMetric(reader, "reader-records/s")
			b.ReportMetric(runner/reader, "ratio")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// readBare is how long kafka-go's Readers take for n records of all partitions,
// from the first record on.
func readBare(b *testing.B, broker *streamtest.Broker, partitions, n int) time.Duration {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var read atomic.Int64
	var first sync.Once
	var start time.Time
	var wg sync.WaitGroup
	for p := range partitions {
		wg.Go(func() {
			r := kafka.NewReader(kafka.ReaderConfig{
				Brokers: broker.Config().Brokers, Topic: stream.TopicEvents, Partition: p,
				MinBytes: 1, MaxBytes: 1 << 20, MaxWait: 100 * time.Millisecond,
			})
			defer func() {
				if err := r.Close(); err != nil {
					b.Error(err)
				}
			}()
			for {
				_, err := r.ReadMessage(ctx)
				if err != nil {
					return
				}
				first.Do(func() { start = time.Now() })
				if read.Add(1) == int64(n) {
					cancel()
				}
			}
		})
	}
	<-ctx.Done()
	took := time.Since(start)
	wg.Wait()
	return took
}

// runNoop is how long a runner takes for n records, from the first one until
// the last batch is processed.
func runNoop(b *testing.B, broker *streamtest.Broker, group string, n int) time.Duration {
	cfg := stream.DefaultRunnerConfig(group, stream.TopicEvents)
	cfg.FetchWait = 100 * time.Millisecond
	var read atomic.Int64
	var first sync.Once
	var start time.Time
	done := make(chan struct{})
	_, stop := startRunner(b, cfg, broker.Config(), stage.Func(func(_ context.Context, in []stage.Record) ([]stage.Record, error) {
		first.Do(func() { start = time.Now() })
		if read.Add(int64(len(in))) == int64(n) {
			close(done)
		}
		return nil, nil
	}))
	<-done
	took := time.Since(start)
	stop()
	return took
}

// BenchmarkPublisher measures acknowledged records of concurrent callers, one
// record each, and a lone caller's time.
func BenchmarkPublisher(b *testing.B) {
	for _, callers := range []int{1, 64, 256} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			broker := streamtest.StartBroker(b)
			pub := newPublisher(b, broker.Config())
			rec := make([]stage.Record, 1000)
			for i := range rec {
				rec[i] = benchEvent(i)
			}
			if err := pub.Publish(context.Background(), rec[0]); err != nil {
				b.Fatal(err)
			}
			var next atomic.Int64
			times := make([][]time.Duration, callers)
			b.ResetTimer()
			var wg sync.WaitGroup
			for c := range callers {
				wg.Go(func() {
					for {
						i := next.Add(1)
						if i > int64(b.N) {
							return
						}
						start := time.Now()
						if err := pub.Publish(context.Background(), rec[i%1000]); err != nil {
							b.Error(err)
							return
						}
						times[c] = append(times[c], time.Since(start))
					}
				})
			}
			wg.Wait()
			b.StopTimer()
			all := slices.Concat(times...)
			slices.Sort(all)
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "records/s")
			b.ReportMetric(float64(all[len(all)/2].Microseconds()), "p50-µs")
			b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "p99-µs")
		})
	}
}

// BenchmarkPublisherBatch publishes 500 records at once, as a stage does.
func BenchmarkPublisherBatch(b *testing.B) {
	broker := streamtest.StartBroker(b)
	pub := newPublisher(b, broker.Config())
	recs := make([]stage.Record, 500)
	for i := range recs {
		recs[i] = benchEvent(i)
	}
	for b.Loop() {
		if err := pub.Publish(context.Background(), recs...); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N*len(recs))/b.Elapsed().Seconds(), "records/s")
}
