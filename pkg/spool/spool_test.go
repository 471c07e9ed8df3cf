package spool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func open(t testing.TB, dir string, change func(*Options)) *Spool {
	t.Helper()
	o := Options{Dir: dir, MaxBytes: 1 << 20, SegmentBytes: 256}
	if change != nil {
		change(&o)
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // closed already, in some
	return s
}

func record(i int) Record {
	return Record{Time: time.Unix(int64(i), 7), Data: fmt.Appendf(nil, "record %d", i)}
}

func add(t testing.TB, s *Spool, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		if err := s.Append(t.Context(), record(i)); err != nil {
			t.Fatal(err)
		}
	}
}

// want reads everything, in parts, and drops it.
func want(t testing.TB, s *Spool, from, to int) {
	t.Helper()
	for i := from; i < to; {
		b, err := s.Read(100)
		if err != nil {
			t.Fatal(err)
		}
		if len(b.Records) == 0 {
			t.Fatalf("nothing there, want record %d", i)
		}
		for _, r := range b.Records {
			if w := record(i); !bytes.Equal(r.Data, w.Data) || !r.Time.Equal(w.Time) {
				t.Fatalf("got %q of %s, want %q", r.Data, r.Time, w.Data)
			}
			i++
		}
		if err := s.Drop(b); err != nil {
			t.Fatal(err)
		}
	}
	if b, err := s.Read(100); err != nil || len(b.Records) != 0 {
		t.Fatalf("got %d records more, %v", len(b.Records), err)
	}
}

func files(t testing.TB, dir string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*"+suffix))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestRecordsComeBackInOrderAndAreForgottenOnceDropped(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	add(t, s, 0, 100)
	if n := len(files(t, dir)); n < 5 {
		t.Errorf("%d segments", n)
	}
	if st := s.Stats(); st.Records != 100 || !st.Oldest.Equal(record(0).Time) || st.Bytes < 100*16 {
		t.Errorf("Stats = %+v", st)
	}
	want(t, s, 0, 100)
	add(t, s, 100, 105)
	want(t, s, 100, 105)
	// The writer may still have held the last segment: it goes with the next drop.
	if st := s.Stats(); st.Records != 0 || !st.Oldest.IsZero() || len(files(t, dir)) > 2 { // one is the spare
		t.Errorf("Stats = %+v, files %v", st, files(t, dir))
	}
}

func TestDroppingAnEmptyBatchForgetsNothing(t *testing.T) {
	s := open(t, t.TempDir(), nil)
	empty, err := s.Read(10)
	if err != nil {
		t.Fatal(err)
	}
	add(t, s, 0, 3)
	if err := s.Drop(empty); err != nil {
		t.Fatal(err)
	}
	want(t, s, 0, 3)
}

func TestReopenGoesOnWhereReadingStopped(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	add(t, s, 0, 50)
	b, err := s.Read(400)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Drop(b); err != nil {
		t.Fatal(err)
	}
	n := len(b.Records)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, nil)
	if st := s.Stats(); st.Records != int64(50-n) || !st.Oldest.Equal(record(n).Time) || len(s.Damage()) != 0 {
		t.Errorf("Stats = %+v, want %d records; damage %v", st, 50-n, s.Damage())
	}
	add(t, s, 50, 60)
	want(t, s, n, 60)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, nil)
	add(t, s, 60, 70)
	want(t, s, 60, 70)
}

// Creating a file takes long on a busy disk, and the first to meet an outage
// would wait for it.
func TestAppendWaitsForNoFileToBeCreated(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "spool")
	s := open(t, dir, nil)
	if err := os.Rename(dir, dir+"-away"); err != nil { // no file can be created now
		t.Fatal(err)
	}
	add(t, s, 0, 3)
	if err := os.Rename(dir+"-away", dir); err != nil {
		t.Fatal(err)
	}
	want(t, s, 0, 3)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, nil)
	add(t, s, 3, 50) // and where there is no spare, Append makes its file itself
	want(t, s, 3, 50)
	if err := s.Close(); err != nil || len(files(t, dir)) > 1 {
		t.Errorf("left over: %v, %v", files(t, dir), err)
	}
}

func TestTornTailIsCutAtTheLastWholeRecord(t *testing.T) {
	whole := appendRecord(nil, record(3))
	for cut := 1; cut < len(whole); cut += 3 {
		dir := t.TempDir()
		s := open(t, dir, func(o *Options) { o.SegmentBytes = 1 << 20 })
		add(t, s, 0, 3)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if cut%2 == 0 { // a crash leaves a spare
			if err := os.WriteFile(s.path(s.next), []byte(magic), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		f, err := os.OpenFile(files(t, dir)[0], os.O_APPEND|os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(whole[:cut]); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, dir, nil)
		if aside, _ := filepath.Glob(filepath.Join(dir, "*"+damaged)); len(s.Damage()) != 1 || aside != nil {
			t.Errorf("cut at %d: damage %v, set aside %v", cut, s.Damage(), aside)
		}
		add(t, s, 3, 5)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		s = open(t, dir, nil)
		want(t, s, 0, 5)
	}
}

func TestSegmentThatIsTornInItsMagicIsLeftOut(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	add(t, s, 0, 20)
	next := s.path(s.next)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(next, []byte("HON"), 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, nil)
	add(t, s, 20, 25)
	want(t, s, 0, 25)
}

func TestDamageInTheMiddleIsSetAside(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	add(t, s, 0, 30)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	first := files(t, dir)[0]
	data, err := os.ReadFile(first)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)-1] ^= 1 // in the last record of a segment that is full
	if err := os.WriteFile(first, data, 0o600); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, nil)
	if len(s.Damage()) != 1 || s.Stats().Records != 29 {
		t.Errorf("damage %v, %d records", s.Damage(), s.Stats().Records)
	}
	if kept, err := os.ReadFile(first + damaged); err != nil || !bytes.Equal(kept, data) {
		t.Errorf("not set aside: %v", err)
	}
}

func TestFullSpoolRefusesAndTakesAgainOnceDropped(t *testing.T) {
	s := open(t, t.TempDir(), func(o *Options) { o.MaxBytes = 1000 })
	n := 0
	var err error
	for ; err == nil; n++ {
		err = s.Append(t.Context(), record(n))
	}
	n--
	if !errors.Is(err, ErrFull) || s.Stats().Bytes > 1000 {
		t.Fatalf("got %v with %d bytes", err, s.Stats().Bytes)
	}
	want(t, s, 0, n)
	add(t, s, n, n+5)
	want(t, s, n, n+5)
}

func TestManyAtATimeShareASync(t *testing.T) {
	s := open(t, t.TempDir(), func(o *Options) { o.SegmentBytes = 1 << 16 })
	var syncs atomic.Int64
	s.sync = func(f *os.File) error {
		syncs.Add(1)
		time.Sleep(time.Millisecond)
		return f.Sync()
	}
	var wg sync.WaitGroup
	for w := range 20 {
		wg.Go(func() {
			for i := range 20 {
				if err := s.Append(t.Context(), Record{Time: time.Now(), Data: []byte{byte(w), byte(i)}}, Record{Time: time.Now(), Data: []byte{byte(w), byte(i), 1}}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	next := map[byte]byte{}
	pair := false
	for n := 0; n < 800; {
		b, err := s.Read(10)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range b.Records {
			if i := r.Data[1]; i != next[r.Data[0]] || pair != (len(r.Data) == 3) {
				t.Fatalf("got %v after %d, %v", r.Data, next[r.Data[0]], pair)
			}
			if pair = !pair; !pair {
				next[r.Data[0]]++
			}
		}
		n += len(b.Records)
		if err := s.Drop(b); err != nil {
			t.Fatal(err)
		}
	}
	wg.Wait()
	if n := syncs.Load(); n > 300 {
		t.Errorf("%d syncs for 400 calls", n)
	}
}

func TestDiskThatFailsKeepsWhatItHas(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	add(t, s, 0, 3)
	broken := errors.New("no space left")
	s.sync = func(*os.File) error { return broken }
	if err := s.Append(t.Context(), record(99)); !errors.Is(err, broken) {
		t.Fatalf("got %v", err)
	}
	before := s.Stats()
	s.sync = (*os.File).Sync
	add(t, s, 3, 6)
	if before.Records != 3 {
		t.Errorf("Stats = %+v", before)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, nil)
	want(t, s, 0, 6)
}

func TestWhatCannotBeKeptIsRefused(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, nil)
	for _, data := range [][]byte{nil, make([]byte, MaxRecord+1)} {
		if err := s.Append(t.Context(), Record{Data: data}); !errors.Is(err, ErrTooLarge) {
			t.Errorf("%d bytes: %v", len(data), err)
		}
	}
	if _, err := Open(Options{Dir: dir, MaxBytes: 1, SegmentBytes: 1}); err == nil {
		t.Error("two spools in one folder")
	}
	if _, err := Open(Options{Dir: t.TempDir()}); err == nil {
		t.Error("no bound")
	}
	release := make(chan struct{})
	s.sync = func(*os.File) error { <-release; return nil }
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Append(ctx, record(1)); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(release)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Append(t.Context(), record(1)); !errors.Is(err, ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

// FuzzSegment: whatever stands in a segment, reading it neither fails nor makes
// records up, and what is whole at its start is found.
func FuzzSegment(f *testing.F) {
	good := appendRecord(appendRecord([]byte(magic), record(1)), record(2))
	f.Add(good, 3)
	f.Add(good[:len(good)-3], 20)
	f.Add([]byte(magic+"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0)
	f.Fuzz(func(t *testing.T, data []byte, flip int) {
		var again []byte
		read := func(data []byte) (out []byte) {
			out = []byte(magic)
			end, err := scan(bytes.NewReader(data), int64(len(data)), func(_ int64, r Record) bool {
				out = appendRecord(out, r)
				return true
			})
			if err != nil || end > int64(len(data)) {
				t.Fatalf("ends at %d of %d: %v", end, len(data), err)
			}
			if end > 0 && !bytes.Equal(out, data[:end]) {
				t.Fatal("records were made up")
			}
			return out
		}
		again = read(data)
		// A bit that is not as it was written is never believed.
		if n := len(again); n > int(magicBytes) && flip >= 0 {
			broken := bytes.Clone(again)
			broken[flip%n] ^= 1
			if got := read(broken); len(got) >= n {
				t.Fatal("a damaged segment was read to its end")
			}
		}
	})
}

func BenchmarkAppend(b *testing.B) {
	s := open(b, b.TempDir(), func(o *Options) { o.MaxBytes, o.SegmentBytes = 8<<30, 64<<20 })
	data := make([]byte, 1000)
	b.SetBytes(1000)
	b.SetParallelism(32)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := s.Append(b.Context(), Record{Time: time.Now(), Data: data}); err != nil {
				b.Error(err)
			}
		}
	})
}
