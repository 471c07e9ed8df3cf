package faults

import (
	"context"
	"math/rand/v2"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	eventv1 "github.com/honeloop/hone/proto/gen/go/hone/event/v1"
)

const (
	senders = 12
	// Sessions that a sender sends at a time, mixed.
	mixedSessions = 5
	// One event in this many is sent once more, later.
	duplicateEvery = 50
	sendTimeout    = 15 * time.Second
	longestBackoff = 2 * time.Second
)

// producer sends a load as a good client does: what was not accepted is sent
// again, under the same id, until it is.
type producer struct {
	load     load
	url, key string
	rate     int // events a second; 0 for as many as are taken
	client   *http.Client
	conn     *grpc.ClientConn

	nextSessions atomic.Int64
	accepted     *bitmap
	sent         atomic.Int64 // accepted, deliberate repetitions included
	doubled      atomic.Int64 // deliberate repetitions
	retries      atomic.Int64
	begin        time.Time
	pace         struct {
		sync.Mutex
		next time.Time
	}
	answers struct {
		sync.Mutex
		by      map[string]map[string]int // by protocol: "202", "503", "no connection"
		slowest time.Duration             // of an answer
	}
}

// bitmap says which events were accepted.
type bitmap struct {
	mu   sync.Mutex
	bits []uint64
	n    int
}

func newBitmap(n int) *bitmap { return &bitmap{bits: make([]uint64, (n+63)/64)} }

// set returns whether it was set before.
func (b *bitmap) set(i int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.bits[i/64]&(1<<(i%64)) != 0
	if !old {
		b.bits[i/64] |= 1 << (i % 64)
		b.n++
	}
	return old
}

func (b *bitmap) has(i int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.bits[i/64]&(1<<(i%64)) != 0
}

func (b *bitmap) count() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.n
}

func newProducer(l load, url string, conn *grpc.ClientConn, key string, rate int) *producer {
	p := &producer{load: l, url: url, conn: conn, key: key, rate: rate, accepted: newBitmap(l.events()), begin: time.Now(),
		client: &http.Client{Timeout: sendTimeout, Transport: &http.Transport{MaxIdleConnsPerHost: senders, MaxConnsPerHost: 2 * senders}}}
	p.answers.by = map[string]map[string]int{}
	p.pace.next = p.begin
	return p
}

func (p *producer) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for range senders {
		g.Go(func() error {
			for {
				first := int(p.nextSessions.Add(mixedSessions)) - mixedSessions
				if first >= p.load.sessions {
					return nil
				}
				if err := p.sessions(ctx, first, min(first+mixedSessions, p.load.sessions)); err != nil {
					return err
				}
			}
		})
	}
	return g.Wait()
}

// sessions sends some sessions at a time, each in its order.
func (p *producer) sessions(ctx context.Context, from, to int) error {
	r := p.load.random(from, 2)
	var queues [][]*eventv1.Event
	for n := from; n < to; n++ {
		queues = append(queues, p.load.session(n))
	}
	var all, again []*eventv1.Event
	for len(queues) > 0 {
		i := r.IntN(len(queues))
		e := queues[i][0]
		all = append(all, e)
		if r.IntN(duplicateEvery) == 0 {
			again = append(again, e)
		}
		if queues[i] = queues[i][1:]; len(queues[i]) == 0 {
			queues = append(queues[:i], queues[i+1:]...)
		}
	}
	p.doubled.Add(int64(len(again)))
	all = append(all, again...)
	for len(all) > 0 {
		via, n := p.load.part(p.load.protocol(from), all, min(len(all), []int{1, 10, 40, 100}[r.IntN(4)]))
		if err := p.wait(ctx, n); err != nil {
			return err
		}
		if err := p.send(ctx, r, via, all[:n]); err != nil {
			return err
		}
		all = all[n:]
	}
	return nil
}

// wait keeps the rate.
func (p *producer) wait(ctx context.Context, n int) error {
	if p.rate == 0 {
		return ctx.Err()
	}
	p.pace.Lock()
	at := p.pace.next
	if now := time.Now(); at.Before(now.Add(-5 * time.Second)) {
		at = now.Add(-5 * time.Second) // what an outage cost is made good for 5 s
	}
	p.pace.next = at.Add(time.Duration(n) * time.Second / time.Duration(p.rate))
	p.pace.Unlock()
	sleep(ctx, time.Until(at))
	return ctx.Err()
}

func (p *producer) send(ctx context.Context, r *rand.Rand, via string, events []*eventv1.Event) error {
	backoff := 50 * time.Millisecond
	for len(events) > 0 {
		results, wait, err := p.offer(ctx, via, events)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			return err
		}
		var left []*eventv1.Event
		for i, e := range events {
			if results == nil || !results[i] {
				left = append(left, e)
				continue
			}
			session, place, _ := p.load.parseEventID(e.EventId)
			p.accepted.set(session*perSession + place)
			p.sent.Add(1)
		}
		if events = left; len(left) == 0 {
			return nil
		}
		p.retries.Add(int64(len(left)))
		if wait == 0 {
			wait = backoff + time.Duration(r.Int64N(int64(backoff)))
			backoff = min(2*backoff, longestBackoff)
		}
		sleep(ctx, min(wait, longestBackoff))
	}
	return nil
}

// note counts an answer. took is 0 where there was none.
func (p *producer) note(via, answer string, took time.Duration) {
	p.answers.Lock()
	defer p.answers.Unlock()
	if p.answers.by[via] == nil {
		p.answers.by[via] = map[string]int{}
	}
	p.answers.by[via][answer]++
	p.answers.slowest = max(p.answers.slowest, took)
}
