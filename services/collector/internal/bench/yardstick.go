package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/honeloop/hone/pkg/stream"
)

// startYardstick is the least that takes events over HTTP and answers once
// Kafka has them: no key, no check of the event, no result for each.
func startYardstick(broker string, linger time.Duration) (*target, error) {
	client, err := kgo.NewClient(
		kgo.SeedBrokers(broker),
		kgo.DefaultProduceTopic(stream.TopicEvents),
		kgo.RequiredAcks(kgo.AllISRAcks()),
		kgo.ProducerLinger(linger),
	)
	if err != nil {
		return nil, err
	}
	var n atomic.Uint64
	record := func(value []byte) *kgo.Record {
		// Keys spread over the partitions as sessions do.
		i := n.Add(1)
		return &kgo.Record{Key: []byte{byte(i), byte(i >> 8)}, Value: value}
	}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			http.Error(w, "read", http.StatusBadRequest)
			return
		}
		records := []*kgo.Record{record(body)}
		if r.URL.Path == "/batch" {
			var batch struct{ Events []json.RawMessage }
			if err := json.Unmarshal(body, &batch); err != nil {
				http.Error(w, "parse", http.StatusBadRequest)
				return
			}
			records = records[:0]
			for _, e := range batch.Events {
				records = append(records, record(e))
			}
		}
		if err := produce(r.Context(), client, records); err != nil {
			http.Error(w, "kafka", http.StatusServiceUnavailable)
			return
		}
		w.WriteHeader(http.StatusAccepted)
		_, _ = io.WriteString(w, `{"accepted":1}`)
	})
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		client.Close()
		return nil, err
	}
	server := &http.Server{Handler: handler, ReadHeaderTimeout: 5 * time.Second}
	done := make(chan error, 1)
	go func() { done <- server.Serve(lis) }()
	return &target{addr: lis.Addr().String(), stop: func() error {
		err := server.Close()
		if served := <-done; !errors.Is(served, http.ErrServerClosed) {
			err = errors.Join(err, served)
		}
		client.Close()
		return err
	}}, nil
}

func produce(ctx context.Context, client *kgo.Client, records []*kgo.Record) error {
	var wg sync.WaitGroup
	var failed atomic.Pointer[error]
	wg.Add(len(records))
	for _, r := range records {
		client.Produce(ctx, r, func(_ *kgo.Record, err error) {
			if err != nil {
				failed.Store(&err)
			}
			wg.Done()
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}
