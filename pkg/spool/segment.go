package spool

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"
)

// A segment is the magic, then records. A record is
//
//	4 bytes  length of the data
//	4 bytes  CRC-32C of all the rest, the length included
//	8 bytes  time in Unix nanoseconds
//	         data
//
// all numbers little-endian.
const (
	magic       = "HONESPL1"
	magicBytes  = int64(len(magic))
	headerBytes = 16
)

var errTorn = errors.New("the record is not whole")

func castagnoli() *crc32.Table { return crc32.MakeTable(crc32.Castagnoli) }

func appendRecord(b []byte, r Record) []byte {
	start := len(b)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(r.Data)))
	b = append(b, 0, 0, 0, 0)
	b = binary.LittleEndian.AppendUint64(b, uint64(r.Time.UnixNano()))
	b = append(b, r.Data...)
	binary.LittleEndian.PutUint32(b[start+4:], checksum(b[start:]))
	return b
}

// checksum of a whole record, but for the place of the checksum.
func checksum(rec []byte) uint32 {
	sum := crc32.Checksum(rec[:4], castagnoli())
	return crc32.Update(sum, castagnoli(), rec[8:])
}

// readRecord reads the record at a place of a segment of end bytes. size is
// with its header. errTorn says that there is no whole record.
func readRecord(r io.ReaderAt, at, end int64) (rec Record, size int64, err error) {
	var header [headerBytes]byte
	if at+headerBytes > end {
		return Record{}, 0, errTorn
	}
	if _, err := r.ReadAt(header[:], at); err != nil {
		return Record{}, 0, readError(err)
	}
	length := int64(binary.LittleEndian.Uint32(header[:]))
	if length == 0 || length > MaxRecord || at+headerBytes+length > end {
		return Record{}, 0, errTorn
	}
	whole := make([]byte, headerBytes+length)
	if _, err := r.ReadAt(whole, at); err != nil {
		return Record{}, 0, readError(err)
	}
	if checksum(whole) != binary.LittleEndian.Uint32(whole[4:]) {
		return Record{}, 0, errTorn
	}
	return Record{
		Time: time.Unix(0, int64(binary.LittleEndian.Uint64(whole[8:]))),
		Data: whole[headerBytes:],
	}, headerBytes + length, nil
}

func readError(err error) error {
	if errors.Is(err, io.EOF) {
		return errTorn // the file is shorter than it says
	}
	return fmt.Errorf("read segment: %w", err)
}

// scan calls each with the whole records from the start on, and returns where
// they end: 0 where not even the magic is whole. each ends it with false.
func scan(r io.ReaderAt, end int64, each func(at int64, rec Record) bool) (int64, error) {
	var m [magicBytes]byte
	if end < magicBytes {
		return 0, nil
	}
	if _, err := r.ReadAt(m[:], 0); err != nil {
		if err = readError(err); errors.Is(err, errTorn) {
			return 0, nil
		}
		return 0, err
	}
	if string(m[:]) != magic {
		return 0, nil
	}
	at := magicBytes
	for at < end {
		rec, size, err := readRecord(r, at, end)
		if errors.Is(err, errTorn) {
			return at, nil
		}
		if err != nil {
			return 0, err
		}
		if !each(at, rec) {
			return at, nil
		}
		at += size
	}
	return at, nil
}
