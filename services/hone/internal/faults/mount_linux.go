package faults

import (
	"fmt"
	"syscall"
)

// smallDisk is the size of the spool's own disk.
const smallDisk = "16m"

// mountSmall gives a folder a small disk of its own, which needs root.
func mountSmall(dir string) (unmount func() error, ok bool) {
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+smallDisk); err != nil {
		return func() error { return nil }, false
	}
	return func() error {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount %s: %w", dir, err)
		}
		return nil
	}, true
}
