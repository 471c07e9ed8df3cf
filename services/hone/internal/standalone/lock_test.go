package standalone

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

func TestASecondHoneOnADirectoryIsToldOfTheFirst(t *testing.T) {
	dir := t.TempDir()
	first, err := lockDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	_, err = lockDir(dir)
	if err == nil || !strings.Contains(err.Error(), strconv.Itoa(os.Getpid())) || !strings.Contains(err.Error(), dir) {
		t.Errorf("second lock: %v, want an error with the directory and the process", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	again, err := lockDir(dir)
	if err != nil {
		t.Fatalf("lock of a directory whose Hone has ended: %v", err)
	}
	again.Close()
}
