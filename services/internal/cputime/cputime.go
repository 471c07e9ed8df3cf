// Package cputime is the yardstick of benchmarks on machines that others use
// too: the time that a process has worked.
package cputime

import (
	"syscall"
	"time"
)

// Self is what this process has used, its children not counted; 0 where the
// system does not say.
func Self() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
