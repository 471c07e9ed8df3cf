package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/honeloop/hone/services/internal/benchtext"
	"github.com/honeloop/hone/services/internal/cputime"
)

const warmUp = 500 * time.Millisecond

// requests are bodies to send, ready made.
type requests struct {
	bodies [][]byte
	batch  int
}

func event(r *rand.Rand) []byte {
	type object = map[string]any
	id := func(prefix string) string { return prefix + strconv.FormatUint(r.Uint64(), 36) }
	data, err := json.Marshal(object{
		"type": "interaction", "event_id": id("e-"), "session_id": id("s-"), "interaction_id": id("i-"), "user_id": id("u-"),
		"occurred_at": time.Now().UTC().Format(time.RFC3339Nano), "user_role": "customer", "environment": "production",
		"interaction": object{
			"query": benchtext.Prose(r, 100), "system_context": benchtext.Prose(r, 200), "output": benchtext.Prose(r, 300), "model": "m-large", "model_version": "2026-10-01",
			"prompt_version": "v14", "latency_ms": r.IntN(2000), "input_tokens": r.IntN(500), "output_tokens": r.IntN(90),
		},
	})
	if err != nil {
		panic(err) // made of strings and numbers
	}
	return data
}

func makeRequests(batch int) requests {
	r := rand.New(rand.NewPCG(1, 2))
	reqs := requests{batch: batch}
	for range max(4096/batch, 64) {
		if batch == 1 {
			reqs.bodies = append(reqs.bodies, event(r))
			continue
		}
		events := make([][]byte, batch)
		for i := range events {
			events[i] = event(r)
		}
		reqs.bodies = append(reqs.bodies, slices.Concat([]byte(`{"events":[`), bytes.Join(events, []byte(",")), []byte(`]}`)))
	}
	return reqs
}

// drive sends requests over l.connections connections, each one after another.
func drive(t *target, reqs requests, l load, duration time.Duration) (result, error) {
	path := "/v1/events"
	if t.key == "" && l.batch > 1 {
		path = "/batch"
	}
	var wires [][]byte
	for _, body := range reqs.bodies {
		head := fmt.Sprintf("POST %s HTTP/1.1\r\nHost: bench\r\nContent-Type: application/json\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n", path, t.key, len(body))
		wires = append(wires, append([]byte(head), body...))
	}
	start := time.Now().Add(warmUp)
	end := start.Add(duration)
	before := cputime.Self()
	took := make([][]time.Duration, l.connections)
	errs := make([]error, l.connections)
	var wg sync.WaitGroup
	for c := range l.connections {
		wg.Go(func() { took[c], errs[c] = one(t.addr, wires, c*len(wires)/l.connections, start, end) })
	}
	wg.Wait()
	if i := slices.IndexFunc(errs, func(err error) bool { return err != nil }); i >= 0 {
		return result{}, errs[i] // the others are alike
	}
	spent := cputime.Self() - before
	all := slices.Concat(took...)
	if len(all) == 0 {
		return result{}, errors.New("no answer within the time")
	}
	slices.Sort(all)
	total := float64(len(all)*reqs.batch) * (duration + warmUp).Seconds() / duration.Seconds()
	return result{
		cpu:  time.Duration(float64(spent) / total),
		rate: float64(len(all)*reqs.batch) / duration.Seconds(),
		p50:  all[len(all)/2], p99: all[len(all)*99/100],
	}, nil
}

// one is the times of the requests of one connection that ended after start.
func one(addr string, wires [][]byte, next int, start, end time.Time) ([]time.Duration, error) {
	conn, err := dial(addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	in := bufio.NewReaderSize(conn, 8<<10)
	var took []time.Duration
	for {
		sent := time.Now()
		if _, err := conn.Write(wires[next%len(wires)]); err != nil {
			return nil, err
		}
		next++
		if err := accepted(in); err != nil {
			return nil, err
		}
		now := time.Now()
		if now.After(end) {
			return took, nil
		}
		if now.After(start) {
			took = append(took, now.Sub(sent))
		}
	}
}

// dial waits for a server that is starting.
func dial(addr string) (net.Conn, error) {
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		conn, err := net.Dial("tcp", addr)
		if err == nil || time.Now().After(deadline) {
			return conn, err
		}
	}
}

// accepted reads one answer, with as little work as can be.
func accepted(in *bufio.Reader) error {
	line, err := in.ReadSlice('\n')
	if err != nil {
		return err
	}
	if !bytes.HasPrefix(line, []byte("HTTP/1.1 202 ")) {
		rest := string(line)
		resp, err := http.ReadResponse(bufio.NewReader(io.MultiReader(strings.NewReader(rest), in)), nil)
		if err != nil {
			return fmt.Errorf("answer %q", rest)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<10))
		return errors.Join(fmt.Errorf("answer %s: %s", resp.Status, body), err)
	}
	length, chunked := 0, false
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		if len(line) <= 2 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(":"))
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return err
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			chunked = true
		}
	}
	for chunked {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		n, err := strconv.ParseInt(string(bytes.TrimSpace(line)), 16, 32)
		if err != nil {
			return err
		}
		if _, err := in.Discard(int(n) + 2); err != nil {
			return err
		}
		if n == 0 {
			return nil
		}
	}
	_, err = in.Discard(length)
	return err
}
