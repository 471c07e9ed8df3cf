// Package spool keeps records on disk, in the order they came, until somebody
// else has them.
//
// It is a log of segment files. A record that Append has returned nil for
// survives a power failure. Readers take records from the front and drop them
// once they are safe elsewhere; a crash in between shows some again.
package spool

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Errors of Append, for errors.Is. Nothing was kept.
var (
	// ErrFull means that the bound on the spool's bytes is reached.
	ErrFull = errors.New("the spool is full")
	// ErrClosed means that the spool is closed.
	ErrClosed = errors.New("the spool is closed")
	// ErrTooLarge means that a record is over MaxRecord or empty.
	ErrTooLarge = errors.New("the record does not fit into the spool")
)

// MaxRecord bounds the data of one record, in bytes.
const MaxRecord = 8 << 20

// Options say where a spool is and how large it may be.
type Options struct {
	// Dir is created where it is missing. One process at a time may use it.
	Dir string
	// MaxBytes bounds the files, dropped records of the first segment included.
	MaxBytes int64
	// SegmentBytes is where a new file begins. Space comes back by whole files.
	SegmentBytes int64
}

// Record is what the spool keeps.
type Record struct {
	Time time.Time // when it came
	Data []byte
}

// Batch is records from the front.
type Batch struct {
	Records []Record
	end     position
}

// Stats is what a spool holds.
type Stats struct {
	Records int64
	Bytes   int64     // of the files
	Oldest  time.Time // of the record at the front; zero where there is none
}

// Spool is safe for concurrent use, but only one goroutine may Read and Drop.
type Spool struct {
	opts Options
	lock *os.File
	pos  *os.File // where front is remembered

	mu       sync.Mutex
	closed   bool
	segments []*segment // ascending; the last one is written to
	front    position
	records  int64
	bytes    int64 // of the segments, and of what is on its way into them
	damage   []string
	waiting  []*call
	working  bool
	idle     sync.Cond // a write ended, or working or preparing became false
	next     uint64    // id of the next segment
	// spare is an empty segment, durable already, so that an Append need not wait
	// for a file to be created. nil while it is being prepared, or where that failed.
	spare     *segment
	preparing bool

	sync func(*os.File) error // os.File.Sync, but in tests
}

type segment struct {
	id   uint64
	file *os.File
	size int64 // durable bytes
	last bool  // written to
}

// position is the place of a record: a segment and an offset in it.
type position struct {
	segment uint64
	offset  int64
}

// call is one Append that waits for its bytes to be durable.
type call struct {
	data    []byte
	records int64
	done    chan error
}

const (
	suffix  = ".spool"
	damaged = ".damaged"
)

// Open reads what is there. A torn record at the end is cut off; it was never
// promised. A segment that is damaged elsewhere is set aside under a name with
// ".damaged", and its records up to the damage are used: see Damage.
func Open(opts Options) (*Spool, error) {
	s := &Spool{opts: opts, next: 1, sync: (*os.File).Sync}
	s.idle.L = &s.mu
	if err := s.open(); err != nil {
		return nil, fmt.Errorf("open spool %s: %w", opts.Dir, errors.Join(err, s.closeFiles()))
	}
	return s, nil
}

func (s *Spool) open() error {
	if s.opts.MaxBytes <= 0 || s.opts.SegmentBytes <= 0 {
		return errors.New("max bytes and segment bytes: want more than 0")
	}
	if err := os.MkdirAll(s.opts.Dir, 0o700); err != nil {
		return err
	}
	var err error
	if s.lock, err = os.OpenFile(filepath.Join(s.opts.Dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	if err := syscall.Flock(int(s.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("another process uses it: %w", err)
	}
	if s.pos, err = os.OpenFile(filepath.Join(s.opts.Dir, "position"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	front := readPosition(s.pos)
	entries, err := os.ReadDir(s.opts.Dir)
	if err != nil {
		return err
	}
	var ids []uint64
	for _, e := range entries {
		var id uint64
		if name, ok := strings.CutSuffix(e.Name(), suffix); ok && len(name) == 16 {
			if _, err := fmt.Sscanf(name, "%016x", &id); err == nil {
				ids = append(ids, id)
			}
		}
	}
	slices.Sort(ids)
	s.next = front.segment + 1 // ids are never used again
	for n := len(ids); n > 0; n-- {
		s.next = max(s.next, ids[n-1]+1)
		info, err := os.Stat(s.path(ids[n-1]))
		if err != nil {
			return err
		}
		if info.Size() > magicBytes {
			break
		}
		if err := os.Remove(s.path(ids[n-1])); err != nil { // it was a spare
			return err
		}
		ids = ids[:n-1]
	}
	for i, id := range ids {
		if err := s.load(id, front, i == len(ids)-1); err != nil {
			return err
		}
	}
	if err := s.trim(); err != nil {
		return err
	}
	s.prepare()
	return nil
}

// load opens a segment and counts what is still to be read of it.
func (s *Spool) load(id uint64, front position, last bool) error {
	path := s.path(id)
	if id < front.segment { // dropped, and a crash came before its removal
		return os.Remove(path)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0o600)
	if err != nil {
		return err
	}
	seg := &segment{id: id, file: f, last: last}
	s.segments = append(s.segments, seg)
	info, err := f.Stat()
	if err != nil {
		return err
	}
	from := int64(0)
	if id == front.segment {
		from = front.offset
	}
	records := int64(0)
	seg.size, err = scan(f, info.Size(), func(at int64, _ Record) bool {
		if at >= from {
			records++
		}
		return true
	})
	if err != nil {
		return err
	}
	if cut := info.Size() - seg.size; cut > 0 {
		if !last {
			if err := setAside(path); err != nil {
				return err
			}
		}
		s.damage = append(s.damage, fmt.Sprintf("%s: %d of %d bytes", filepath.Base(path), cut, info.Size()))
		if err := errors.Join(f.Truncate(seg.size), f.Sync()); err != nil {
			return err
		}
	}
	if seg.size == 0 { // a crash came before its first record
		s.segments = s.segments[:len(s.segments)-1]
		return errors.Join(f.Close(), os.Remove(path))
	}
	if len(s.segments) == 1 {
		s.front = position{id, min(max(from, magicBytes), seg.size)}
	}
	s.records += records
	s.bytes += seg.size
	return nil
}

// setAside keeps a copy of a damaged segment for people.
func setAside(path string) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	f, err := os.Create(path + damaged)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Sync(), f.Close())
}

// Damage is what Open cut off, for the log: the end of the last segment where a
// crash came while it was written, or whatever follows a damage.
func (s *Spool) Damage() []string { return s.damage }

// Append returns nil once the records are on disk, all of them, in this order.
// Calls at the same time share one write and one sync. Where ctx ends first, or
// the disk fails, they may be on disk or not.
func (s *Spool) Append(ctx context.Context, recs ...Record) error {
	c := &call{records: int64(len(recs)), done: make(chan error, 1)}
	size := 0
	for _, r := range recs {
		if len(r.Data) == 0 || len(r.Data) > MaxRecord {
			return fmt.Errorf("%w: %d bytes", ErrTooLarge, len(r.Data))
		}
		size += headerBytes + len(r.Data)
	}
	c.data = make([]byte, 0, size)
	for _, r := range recs {
		c.data = appendRecord(c.data, r)
	}
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	if s.bytes+int64(size)+magicBytes > s.opts.MaxBytes {
		s.mu.Unlock()
		return ErrFull
	}
	s.bytes += int64(size)
	s.waiting = append(s.waiting, c)
	start := !s.working
	s.working = true
	s.mu.Unlock()
	if start {
		go s.work()
	}
	select {
	case err := <-c.done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("append to spool: %w", context.Cause(ctx))
	}
}

// work writes while somebody waits.
func (s *Spool) work() {
	for {
		s.mu.Lock()
		calls := s.waiting
		s.waiting = nil
		if len(calls) == 0 {
			s.working = false
			s.idle.Broadcast()
			s.mu.Unlock()
			return
		}
		s.mu.Unlock()
		err := s.write(calls)
		for _, c := range calls {
			c.done <- err
		}
	}
}

// write makes calls durable. Only the worker calls it.
func (s *Spool) write(calls []*call) error {
	var data []byte
	var records int64
	for _, c := range calls {
		data = append(data, c.data...)
		records += c.records
	}
	seg, err := s.tail()
	if err == nil {
		if _, err = seg.file.WriteAt(data, seg.size); err == nil {
			err = s.sync(seg.file)
		}
		if err != nil {
			// What is behind size may be there after a crash. It must not stand
			// before what is written later.
			err = errors.Join(err, seg.file.Truncate(seg.size))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.idle.Broadcast()
	if err != nil {
		s.bytes -= int64(len(data))
		if seg != nil {
			seg.last = false // a disk that failed is not trusted with this file again
		}
		return fmt.Errorf("append to spool: %w", err)
	}
	seg.size += int64(len(data))
	s.records += records
	return nil
}

// tail is the segment to write to. Only the worker calls it.
func (s *Spool) tail() (*segment, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if n := len(s.segments); n > 0 {
		if seg := s.segments[n-1]; seg.last && seg.size < s.opts.SegmentBytes {
			return seg, nil
		}
		s.segments[n-1].last = false
	}
	for s.preparing {
		s.idle.Wait()
	}
	seg := s.spare
	if s.spare = nil; seg == nil {
		id := s.next
		s.next++
		s.mu.Unlock()
		var err error
		seg, err = s.create(id)
		s.mu.Lock()
		if err != nil {
			return nil, err
		}
	}
	if len(s.segments) == 0 {
		s.front = position{seg.id, magicBytes}
	}
	s.segments = append(s.segments, seg)
	s.bytes += magicBytes
	s.preparing = true
	go s.prepare()
	return seg, nil
}

// prepare sees to it that there is a spare. Where it cannot, tail tries again
// and says why.
func (s *Spool) prepare() {
	s.mu.Lock()
	id := s.next
	s.next++
	s.mu.Unlock()
	seg, err := s.create(id)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.spare = seg
	}
	s.preparing = false
	s.idle.Broadcast()
}

// create makes an empty segment that survives a power failure. On a busy disk it
// takes tens of milliseconds.
func (s *Spool) create(id uint64) (*segment, error) {
	f, err := os.OpenFile(s.path(id), os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = f.WriteString(magic)
	if err == nil {
		err = errors.Join(f.Sync(), syncDir(s.opts.Dir))
	}
	if err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(f.Name()))
	}
	return &segment{id: id, file: f, size: magicBytes, last: true}, nil
}

// Read gives records from the front, at least one where there is any, and more
// up to maxBytes of data. It gives the same ones again until they are dropped.
func (s *Spool) Read(maxBytes int) (Batch, error) {
	// Only the reader's own Drop closes files, and size only grows.
	s.mu.Lock()
	type part struct {
		file     *os.File
		id       uint64
		from, to int64
	}
	parts := make([]part, 0, len(s.segments))
	for i, seg := range s.segments {
		p := part{seg.file, seg.id, magicBytes, seg.size}
		if i == 0 {
			p.from = s.front.offset
		}
		parts = append(parts, p)
	}
	b := Batch{end: s.front}
	s.mu.Unlock()
	bytes := 0
	for _, p := range parts {
		for at := p.from; at < p.to; {
			rec, size, err := readRecord(p.file, at, p.to)
			if err != nil {
				return Batch{}, fmt.Errorf("read spool: %s at %d: %w", filepath.Base(p.file.Name()), at, err)
			}
			if len(b.Records) > 0 && bytes+len(rec.Data) > maxBytes {
				return b, nil
			}
			b.Records = append(b.Records, rec)
			bytes += len(rec.Data)
			at += size
			b.end = position{p.id, at}
		}
	}
	return b, nil
}

// Drop forgets the records of a batch that Read gave last.
func (s *Spool) Drop(b Batch) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	// The front of an empty batch may be behind: a writer came since it was read.
	if len(b.Records) > 0 {
		s.front = b.end
		s.records -= int64(len(b.Records))
	}
	return s.trim()
}

// trim removes segments that are read, and remembers the front. s.mu is held,
// but while opening.
func (s *Spool) trim() error {
	var errs []error
	for len(s.segments) > 0 {
		seg := s.segments[0]
		done := func() bool {
			return seg.id < s.front.segment || s.front.offset >= seg.size && s.front.segment == seg.id
		}
		// The worker may be writing to the last one: wait, and look again.
		for done() && len(s.segments) == 1 && s.working {
			s.idle.Wait()
		}
		if !done() {
			break
		}
		s.segments = s.segments[1:]
		s.bytes -= seg.size
		if len(s.segments) > 0 && s.front.segment < s.segments[0].id {
			s.front = position{s.segments[0].id, magicBytes}
		}
		errs = append(errs, seg.file.Close(), os.Remove(seg.file.Name()))
	}
	errs = append(errs, writePosition(s.pos, s.front))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("drop from spool: %w", err)
	}
	return nil
}

// Stats is what the spool holds now.
func (s *Spool) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{Records: s.records, Bytes: s.bytes}
	if s.records == 0 {
		return st
	}
	for i, seg := range s.segments {
		at := magicBytes
		if i == 0 {
			at = s.front.offset
		}
		if at < seg.size {
			if rec, _, err := readRecord(seg.file, at, seg.size); err == nil {
				st.Oldest = rec.Time
			}
			break
		}
	}
	return st
}

// Close waits for what is being written.
func (s *Spool) Close() error {
	s.mu.Lock()
	s.closed = true
	for s.working || s.preparing {
		s.idle.Wait()
	}
	defer s.mu.Unlock()
	return s.closeFiles()
}

func (s *Spool) closeFiles() error {
	var errs []error
	for _, seg := range s.segments {
		errs = append(errs, seg.file.Close())
	}
	s.segments = nil
	if s.spare != nil {
		errs = append(errs, s.spare.file.Close(), os.Remove(s.spare.file.Name()))
		s.spare = nil
	}
	for _, f := range []*os.File{s.pos, s.lock} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	s.pos, s.lock = nil, nil
	return errors.Join(errs...)
}

func (s *Spool) path(id uint64) string {
	return filepath.Join(s.opts.Dir, fmt.Sprintf("%016x%s", id, suffix))
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// The position file is 20 bytes: segment, offset, checksum. It is not synced: a
// power failure may set it back, and then records are seen again.
func writePosition(f *os.File, p position) error {
	b := binary.LittleEndian.AppendUint64(nil, p.segment)
	b = binary.LittleEndian.AppendUint64(b, uint64(p.offset))
	b = binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli()))
	_, err := f.WriteAt(b, 0)
	return err
}

// readPosition is the front before all segments where the file says nothing.
func readPosition(f *os.File) position {
	var b [20]byte
	if n, _ := f.ReadAt(b[:], 0); n != len(b) || crc32.Checksum(b[:16], castagnoli()) != binary.LittleEndian.Uint32(b[16:]) {
		return position{}
	}
	return position{binary.LittleEndian.Uint64(b[:8]), int64(binary.LittleEndian.Uint64(b[8:]))}
}
