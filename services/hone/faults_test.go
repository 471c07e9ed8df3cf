package main

import (
	"bytes"
	"os"
	"testing"
	"time"

	"github.com/honeloop/hone/services/hone/internal/faults"
)

// A short version of make test-faults.
func TestNothingIsLostOrDoubledWhateverDies(t *testing.T) {
	dir := tempDir(t)
	var out bytes.Buffer
	report, err := faults.Run(t.Context(), faults.Options{
		Events: 4_000, Rate: 130, Kills: 9, Gap: 2500 * time.Millisecond, Short: true, Seed: uint64(time.Now().Unix()), Reviews: 20,
		Dir: dir, Progress: 10 * time.Second, Out: &out,
	})
	t.Log(out.String())
	if err == nil && !report.Failed() {
		return
	}
	// The folder goes with the test, so what is needed to find out goes into its log.
	t.Errorf("failed: %v", err)
	logs, _ := os.ReadDir(dir + "/logs") // only to help
	for _, log := range logs {
		text, _ := os.ReadFile(dir + "/logs/" + log.Name()) // only to help
		t.Logf("the end of %s:\n%s", log.Name(), text[max(0, len(text)-3000):])
	}
}
