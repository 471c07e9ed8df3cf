package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"time"
)

// childEnv names the child that a process is; unset in every other process.
// lockEnv is the file that the child locks for as long as it lives.
const (
	childEnv = "HONE_EMBEDDED_CHILD"
	lockEnv  = "HONE_EMBEDDED_LOCK"
)

const (
	childClickHouse = "clickhouse"
	childWatch      = "watch"
)

// Main must come first in main, and in TestMain of tests that start a child.
// Where the process is a child, Main runs it and exits; else it returns.
func Main() {
	name := os.Getenv(childEnv)
	if name == "" {
		return
	}
	// Whatever the child starts is no child of this kind.
	lock := os.Getenv(lockEnv)
	err := errors.Join(os.Unsetenv(childEnv), os.Unsetenv(lockEnv))
	if err == nil {
		err = awaitLock(lock, lockWait)
	}
	switch {
	case err != nil:
	case name == childClickHouse:
		err = serveClickHouse(os.Args[1], os.Args[2:])
	case name == childWatch:
		err = watch(os.Args[1], os.Args[2], os.Args[3:])
	default:
		err = fmt.Errorf("no child is named %q", name)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// lockWait bounds how long a child waits for the one before it, which a killed
// parent may have left to end by itself.
const lockWait = 20 * time.Second

// awaitLock locks a file until the process ends.
func awaitLock(path string, wait time.Duration) error {
	fd, err := syscall.Open(path, syscall.O_CREAT|syscall.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return fmt.Errorf("open lock %s: %w", path, err)
	}
	for deadline := time.Now().Add(wait); ; time.Sleep(20 * time.Millisecond) {
		err := syscall.Flock(fd, syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("another process has held %s for %s: %w", path, wait, err)
		}
	}
}

// child is a process that runs this binary again, as one of the names above.
type child struct {
	name  string
	cmd   *exec.Cmd
	stdin io.Closer
	logs  []string // files whose ends say why it failed
	done  chan struct{}
	err   error // once done is closed

	killed atomic.Pointer[string] // why killFor killed it
}

// startChild starts a child that has the folder dir to itself, and whose output
// goes to the file logs[0].
func startChild(name, dir string, env []string, logs []string, args ...string) (*child, error) {
	if self := os.Getenv(childEnv); self != "" {
		// Else each child would start one.
		return nil, fmt.Errorf("start %s: this process is the child %s and did not call embedded.Main first", name, self)
	}
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find own executable: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(logs[0]), 0o700); err != nil {
		return nil, fmt.Errorf("create log folder: %w", err)
	}
	// Truncated: this file holds only what one run says before its own log opens.
	out, err := os.OpenFile(logs[0], os.O_CREATE|os.O_WRONLY|os.O_APPEND|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open log of %s: %w", name, err)
	}
	defer out.Close()
	cmd := exec.Command(exe, args...)
	cmd.Env = append(append(os.Environ(), env...), childEnv+"="+name, lockEnv+"="+dir+".lock")
	cmd.Stdout, cmd.Stderr = out, out
	// A group of its own: a terminal's Ctrl-C must reach the parent only, which
	// then stops its children in order.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("open standard input of %s: %w", name, err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", name, err)
	}
	c := &child{name: name, cmd: cmd, stdin: stdin, logs: logs, done: make(chan struct{})}
	go func() {
		err := cmd.Wait()
		if err == nil {
			err = errors.New("exit status 0")
		}
		if why := c.killed.Load(); why != nil {
			err = fmt.Errorf("%s: %w", *why, err)
		}
		c.err = fmt.Errorf("process ended: %w%s", err, c.lastWords())
		close(c.done)
	}()
	return c, nil
}

// startTimeout bounds how long a child may take until it is ready; loading much
// data takes time.
const startTimeout = 2 * time.Minute

// awaitReady polls ready until it succeeds, the child ends, or ctx or
// startTimeout does.
func (c *child) awaitReady(ctx context.Context, ready func(context.Context) error) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, fmt.Errorf("%w after %s", context.DeadlineExceeded, startTimeout))
	defer cancel()
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	for {
		attempt, cancel := context.WithTimeout(ctx, time.Second)
		err := ready(attempt)
		cancel()
		if err == nil {
			return nil
		}
		select {
		case <-c.done:
			return c.err
		case <-ctx.Done():
			return fmt.Errorf("not ready in time: %w (last try: %w)", context.Cause(ctx), err)
		case <-tick.C:
		}
	}
}

// stop closes the child's standard input and waits for its end. It kills the
// child's whole group where ctx ends before that.
func (c *child) stop(ctx context.Context) error {
	if err := c.stdin.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("close standard input of %s: %w", c.name, err)
	}
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
	}
	if err := syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill %s: %w", c.name, err)
	}
	<-c.done
	return fmt.Errorf("stop %s: killed: %w", c.name, context.Cause(ctx))
}

// killFor kills the child's whole group. Its error will say why.
func (c *child) killFor(why string) {
	c.killed.Store(&why)
	_ = syscall.Kill(-c.cmd.Process.Pid, syscall.SIGKILL) // an error means that it has ended
}

// lastWords is the end of the child's logs, for an error.
func (c *child) lastWords() string {
	const limit = 2000 // bytes
	for _, path := range c.logs {
		data, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		if data = bytes.TrimSpace(data); len(data) > limit {
			data = data[len(data)-limit:]
			data = data[bytes.IndexByte(data, '\n')+1:]
		}
		if len(data) > 0 {
			return fmt.Sprintf("; the end of %s:\n%s", path, data)
		}
	}
	return ""
}

// watchStop is how long a watched program may take to end before it is killed.
const watchStop = 8 * time.Second

// watch runs a program that does not look at its standard input itself, writes
// its output to a bounded log, and stops it once standard input closes.
func watch(log, program string, args []string) (err error) {
	out, err := OpenLogFile(log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start program: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	closed := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // its end is what counts, not how
		close(closed)
	}()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT)

	select {
	case err := <-ended:
		return fmt.Errorf("%s ended by itself: %v", filepath.Base(program), err)
	case <-closed:
	case <-signals:
	}
	// An error means that it has ended, which the next step sees.
	_ = cmd.Process.Signal(syscall.SIGTERM)
	select {
	case err := <-ended:
		return err
	case <-time.After(watchStop):
		_ = cmd.Process.Kill()
		return fmt.Errorf("%s did not end within %s and was killed: %v", filepath.Base(program), watchStop, <-ended)
	}
}

// ended is why the child ended; nil while it runs.
func (c *child) ended() error {
	select {
	case <-c.done:
		return c.err
	default:
		return nil
	}
}
