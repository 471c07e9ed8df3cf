package faults

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Kinds of faults.
const (
	faultKill    = "kill"      // SIGKILL, and started again at once
	faultRefuse  = "refuse"    // SIGKILL, and connections refused for a while
	faultPause   = "pause"     // SIGSTOP, and SIGCONT after a while
	faultDisk    = "full disk" // of the collector's spool, while the broker is down
	atOnce       = 2           // faults at a time
	longestPause = 8 * time.Second
)

// fault is one step of a schedule.
type fault struct {
	after  time.Duration // the one before it began
	kind   string
	target string
	lasts  time.Duration
}

// kills says whether it takes a SIGKILL.
func (f fault) kills() bool { return f.kind != faultPause }

// plan is the schedule of a seed: faults until there are as many kills. gap is
// the mean time from one to the next. Every part has its turn before any has
// its second.
func plan(seed uint64, kills int, gap time.Duration, short bool, only []string) []fault {
	r := rand.New(rand.NewPCG(seed, 0xfa17))
	targets := append([]string{"broker", "clickhouse", "weaviate"}, services()...)
	if len(only) > 0 {
		targets = only
	}
	deck := func() func() string {
		var left []string
		return func() string {
			if len(left) == 0 {
				left = append(left, targets...)
				r.Shuffle(len(left), func(i, j int) { left[i], left[j] = left[j], left[i] })
			}
			next := left[0]
			left = left[1:]
			return next
		}
	}
	between := func(from, to time.Duration) time.Duration { return from + time.Duration(r.Int64N(int64(to-from))) }
	shrink := time.Duration(1)
	if short {
		shrink = 3
	}
	toKill, toPause := deck(), deck()
	var out []fault
	for n := 0; n < kills; {
		f := fault{after: between(gap/2, gap*3/2)}
		switch x := r.IntN(100); {
		case len(only) == 0 && (len(out) == 2 || x < 8): // at least one, early
			f.kind, f.target, f.lasts = faultDisk, "broker", between(4*time.Second, 10*time.Second)/shrink
		case x < 25:
			f.kind, f.target, f.lasts = faultPause, toPause(), between(time.Second, longestPause)
		case x < 40:
			f.kind, f.target, f.lasts = faultRefuse, toKill(), between(5*time.Second, 15*time.Second)/shrink
		default:
			f.kind, f.target = faultKill, toKill()
		}
		if f.kills() {
			n++
		}
		out = append(out, f)
	}
	return out
}

// chaos makes the faults of a schedule happen.
type chaos struct {
	sys *system
	log io.Writer // a line for each

	mu     sync.Mutex
	counts map[string]int // by kind
	byPart map[string]int // kills
}

// run returns once the last fault is over and every part runs.
func (c *chaos) run(ctx context.Context, plan []fault) error {
	slots := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	var mu sync.Mutex
	var errs []error
	for _, f := range plan {
		select {
		case <-time.After(f.after):
		case <-ctx.Done():
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
		}
		mu.Lock()
		failed := len(errs) > 0
		mu.Unlock()
		if failed || ctx.Err() != nil {
			break
		}
		wg.Go(func() {
			defer func() { <-slots }()
			if err := c.do(ctx, f); err != nil {
				mu.Lock()
				errs = append(errs, fmt.Errorf("%s %s: %w", f.kind, f.target, err))
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return errors.Join(append(errs, context.Cause(ctx))...)
}

func (c *chaos) do(ctx context.Context, f fault) (err error) {
	p := c.sys.byName[f.target]
	p.fault.Lock()
	defer p.fault.Unlock()
	begin := time.Now()
	defer func() {
		_, _ = fmt.Fprintf(c.log, "%s %s %s, for %s, all over after %s, error %v\n",
			begin.Format("15:04:05.000"), f.kind, f.target, f.lasts, time.Since(begin).Round(time.Millisecond), err)
	}()
	c.mu.Lock()
	c.counts[f.kind]++
	if f.kills() {
		c.byPart[f.target]++
	}
	c.mu.Unlock()

	if f.kind == faultPause {
		if err := p.signal(syscall.SIGSTOP); err != nil {
			return err
		}
		sleep(ctx, f.lasts)
		return p.signal(syscall.SIGCONT)
	}
	if f.kind == faultDisk {
		free, err := fillDisk(filepath.Join(c.sys.dir, "spool"), c.sys.fullDisk)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, free()) }()
	}
	if err := p.kill(); err != nil {
		return err
	}
	sleep(ctx, f.lasts)
	return p.up(ctx)
}

func (c *chaos) kills() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for _, k := range c.byPart {
		n += k
	}
	return n
}

// fillDisk writes until nothing more fits. Where the folder has no disk of its
// own it does nothing: the spool is kept small instead.
func fillDisk(dir string, own bool) (free func() error, err error) {
	if !own {
		return func() error { return nil }, nil
	}
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	block := make([]byte, 64<<10)
	for size := len(block); size > 0; {
		if _, err := f.Write(block[:size]); errors.Is(err, syscall.ENOSPC) {
			size /= 2
		} else if err != nil {
			return nil, errors.Join(err, f.Close(), os.Remove(path))
		}
	}
	return func() error { return os.Remove(path) }, f.Close()
}

func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
