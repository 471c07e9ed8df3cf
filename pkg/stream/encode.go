package stream

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/pierrec/lz4/v4"
	"github.com/segmentio/kafka-go"

	"github.com/honeloop/hone/pkg/stage"
)

// Kafka's record batch, version 2, and the size that goes before it in a
// produce request. Offsets are from the size on.
const (
	sizeLen         = 4
	offLength       = sizeLen + 8
	offCRC          = sizeLen + 17
	offAttributes   = sizeLen + 21
	batchHeader     = sizeLen + 61
	attributeLZ4    = int16(kafka.Lz4)
	encoderKeepsCap = 2 << 20
)

// batchEncoder writes record batches. kafka-go's own encoder compresses in
// blocks of 4 MiB, for which every writer and every reader allocates as much; a
// frame made of 64 KiB blocks spares both. It is used by one goroutine at a
// time.
type batchEncoder struct {
	castagnoli *crc32.Table
	lz4        *lz4.Writer
	records    []byte
	out        appender
}

func newBatchEncoder() (*batchEncoder, error) {
	w := lz4.NewWriter(nil)
	// The batch has a checksum of its own.
	if err := w.Apply(lz4.BlockSizeOption(lz4.Block64Kb), lz4.ChecksumOption(false)); err != nil {
		return nil, fmt.Errorf("create lz4 writer: %w", err)
	}
	return &batchEncoder{castagnoli: crc32.MakeTable(crc32.Castagnoli), lz4: w}, nil
}

// encode is valid until the next call. A record without a time gets now.
func (e *batchEncoder) encode(batch []*entry, now time.Time) ([]byte, error) {
	e.records = e.records[:0]
	count := 0
	var first, last int64
	for _, entry := range batch {
		for _, rec := range entry.recs {
			at := now.UnixMilli()
			if !rec.Time.IsZero() {
				at = rec.Time.UnixMilli()
			}
			if count == 0 {
				first, last = at, at
			}
			last = max(last, at)
			e.appendRecord(rec, at-first, int64(count))
			count++
		}
	}

	var zero [batchHeader]byte
	e.out = append(e.out[:0], zero[:]...)
	attributes := attributeLZ4
	e.lz4.Reset(&e.out)
	if _, err := e.lz4.Write(e.records); err != nil {
		return nil, fmt.Errorf("compress records: %w", err)
	}
	if err := e.lz4.Close(); err != nil {
		return nil, fmt.Errorf("compress records: %w", err)
	}
	if len(e.out)-batchHeader >= len(e.records) {
		attributes = 0
		e.out = append(e.out[:batchHeader], e.records...)
	}

	b := e.out
	put16, put32, put64 := binary.BigEndian.PutUint16, binary.BigEndian.PutUint32, binary.BigEndian.PutUint64
	put32(b, uint32(len(b)-sizeLen))
	put32(b[offLength:], uint32(len(b)-offLength-4))
	put32(b[offLength+4:], ^uint32(0)) // the leader's epoch: unknown
	b[sizeLen+16] = 2                  // version
	put16(b[offAttributes:], uint16(attributes))
	put32(b[sizeLen+23:], uint32(count-1))
	put64(b[sizeLen+27:], uint64(first))
	put64(b[sizeLen+35:], uint64(last))
	put64(b[sizeLen+43:], ^uint64(0)) // no producer id,
	put16(b[sizeLen+51:], ^uint16(0)) // no epoch,
	put32(b[sizeLen+53:], ^uint32(0)) // no sequence: not an idempotent producer
	put32(b[sizeLen+57:], uint32(count))
	put32(b[offCRC:], crc32.Checksum(b[offAttributes:], e.castagnoli))
	return b, nil
}

func (e *batchEncoder) appendRecord(rec *stage.Record, timeDelta, offsetDelta int64) {
	n := 1 + varintLen(timeDelta) + varintLen(offsetDelta) + bytesLen(rec.Key) + bytesLen(rec.Value) + varintLen(int64(len(rec.Headers)))
	for _, h := range rec.Headers {
		n += varintLen(int64(len(h.Key))) + len(h.Key) + bytesLen(h.Value)
	}
	b := binary.AppendVarint(e.records, int64(n))
	b = append(b, 0) // attributes, of which there are none
	b = binary.AppendVarint(b, timeDelta)
	b = binary.AppendVarint(b, offsetDelta)
	b = appendBytes(b, rec.Key)
	b = appendBytes(b, rec.Value)
	b = binary.AppendVarint(b, int64(len(rec.Headers)))
	for _, h := range rec.Headers {
		b = binary.AppendVarint(b, int64(len(h.Key)))
		b = append(b, h.Key...)
		b = appendBytes(b, h.Value)
	}
	e.records = b
}

func appendBytes(to, b []byte) []byte {
	if b == nil {
		return binary.AppendVarint(to, -1)
	}
	return append(binary.AppendVarint(to, int64(len(b))), b...)
}

func bytesLen(b []byte) int {
	if b == nil {
		return varintLen(-1)
	}
	return varintLen(int64(len(b))) + len(b)
}

func varintLen(v int64) int {
	n := 1
	for u := uint64(v<<1) ^ uint64(v>>63); u >= 0x80; u >>= 7 {
		n++
	}
	return n
}

// appender is an io.Writer.
type appender []byte

func (a *appender) Write(b []byte) (int, error) {
	*a = append(*a, b...)
	return len(b), nil
}
