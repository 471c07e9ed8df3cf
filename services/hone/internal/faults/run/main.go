// Command run is make test-faults: see package faults.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/honeloop/hone/services/hone/internal/faults"
)

func main() {
	faults.Main()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx)
	if err != nil {
		fmt.Fprintln(os.Stderr, "test-faults:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	o := faults.Options{Reviews: 20, Progress: 10 * time.Second, Out: os.Stdout}
	size := flag.String("size", "", "full: 1,000,000 events and 200 kills; empty: about 15 minutes")
	events, kills := flag.Int("events", 0, "events instead of those of the size"), flag.Int("kills", 0, "kills instead of those of the size")
	rate, gap := flag.Int("rate", -1, "events a second instead of those of the size; 0 for no bound"), flag.Duration("gap", 0, "mean time between faults instead of that of the size")
	seed := flag.String("seed", "", "a number; empty for a random one")
	dir := flag.String("dir", "", "empty folder for everything; empty for a new one, which is removed after a run without findings")
	flag.BoolVar(&o.Short, "short", false, "outages of a third of the time")
	flag.DurationVar(&o.Outage, "outage", 0, "instead of all that: the broker alone is away, once, for so long; 1,000 events/s")
	only := flag.String("only", "", "parts that faults hit, such as broker,embedder; empty for all")
	flag.Parse()
	if *only != "" {
		o.Only = strings.Split(*only, ",")
	}
	switch {
	case o.Outage > 0: // and 10 s before and after it
		o.Gap, o.Rate = 10*time.Second, 1000
		o.Events = o.Rate * int((o.Outage+2*o.Gap)/time.Second)
	case *size == "":
		o.Events, o.Kills, o.Gap, o.Rate = 200_000, 45, 7*time.Second, 450
	case *size == "full":
		o.Events, o.Kills, o.Gap, o.Rate = 1_000_000, 200, 4*time.Second, 1000
	default:
		return fmt.Errorf("size %q: want full, or nothing", *size)
	}
	for _, f := range []struct{ to, from *int }{{&o.Events, events}, {&o.Kills, kills}} {
		if *f.from > 0 {
			*f.to = *f.from
		}
	}
	if *rate >= 0 {
		o.Rate = *rate
	}
	if *gap > 0 {
		o.Gap = *gap
	}
	o.Seed = uint64(rand.Uint32())
	if *seed != "" {
		if _, err := fmt.Sscan(*seed, &o.Seed); err != nil {
			return fmt.Errorf("seed %q: %w", *seed, err)
		}
	}
	o.Dir = *dir
	if o.Dir == "" {
		var err error
		if o.Dir, err = os.MkdirTemp("", "hone-faults-"); err != nil {
			return err
		}
	}
	report, err := faults.Run(ctx, o)
	if err != nil {
		return fmt.Errorf("%w (logs are in %s/logs)", err, o.Dir)
	}
	if report.Failed() {
		return errors.New("something is lost, doubled, unknown or different")
	}
	if *dir == "" {
		return os.RemoveAll(o.Dir)
	}
	return nil
}
