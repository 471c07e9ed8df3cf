package config

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"
)

// File is a file whose content may change while a service runs.
type File struct {
	path string
	take func(data []byte) error
	info os.FileInfo // of what was taken last
}

// ReadFile hands the content of the file at path to take, and will again when it
// changes, in Watch. What take refuses must change nothing.
func ReadFile(path string, take func(data []byte) error) (*File, error) {
	f := &File{path: path, take: take}
	if err := f.read(); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *File) read() error {
	info, err := os.Stat(f.path)
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	data, err := os.ReadFile(f.path)
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	if len(data) == 0 { // somebody is writing it
		return fmt.Errorf("read %s: the file is empty", f.path)
	}
	if err := f.take(data); err != nil {
		return fmt.Errorf("read %s: %w", f.path, err)
	}
	f.info = info
	return nil
}

// Watch looks at the file at each interval until ctx ends, and takes what it
// says once it has changed and then stayed for an interval. A file that is
// missing or broken changes nothing and is logged when that begins. Only one
// Watch may run.
func (f *File) Watch(ctx context.Context, interval time.Duration, log *slog.Logger) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var last os.FileInfo
	broken := false
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		info, err := os.Stat(f.path)
		settled := err == nil && sameFile(info, last)
		last = info
		if err == nil && (!settled || sameFile(info, f.info)) {
			continue
		}
		if err == nil {
			err = f.read()
		}
		switch {
		case err == nil:
			log.Info("file read again", "path", f.path)
		case !broken:
			log.Error("a file that changed was not taken; what it said before holds on", "path", f.path, "error", err)
		}
		broken = err != nil
	}
}

func sameFile(a, b os.FileInfo) bool {
	return a != nil && b != nil && os.SameFile(a, b) && a.ModTime().Equal(b.ModTime()) && a.Size() == b.Size()
}
