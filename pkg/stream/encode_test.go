package stream

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go/protocol"

	"github.com/honeloop/hone/pkg/stage"
)

// kafka-go decodes, and so checks, what we encode.
func TestEncodedBatchIsWhatOthersRead(t *testing.T) {
	random := make([]byte, 200_000)
	for i := range random {
		random[i] = byte(rand.IntN(256))
	}
	at := time.UnixMilli(1_700_000_000_000)
	tests := map[string][]stage.Record{
		"one":          {{Key: []byte("k"), Value: []byte("v"), Time: at}},
		"nil or empty": {{Time: at}, {Key: []byte{}, Value: []byte{}, Time: at}},
		"headers": {{Value: []byte("v"), Time: at, Headers: []stage.Header{
			{Key: "a", Value: []byte("1")}, {Key: "", Value: []byte{}}, {Key: strings.Repeat("long", 50)}}}},
		"going back in time": {{Value: []byte("late"), Time: at}, {Value: []byte("early"), Time: at.Add(-time.Hour)}, {Value: []byte("later"), Time: at.Add(time.Hour)}},
		"many blocks":        {{Value: bytes.Repeat([]byte("word "), 100_000), Time: at}},
		"incompressible":     {{Value: random, Time: at}, {Value: random[:1000], Time: at}},
	}
	enc, err := newBatchEncoder()
	if err != nil {
		t.Fatal(err)
	}
	for name, recs := range tests {
		t.Run(name, func(t *testing.T) {
			// Two entries, as of two callers.
			var entries [2]entry
			for i := range recs {
				e := &entries[i*2/len(recs)]
				e.recs = append(e.recs, &recs[i])
			}
			b, err := enc.encode([]*entry{&entries[0], &entries[1]}, at)
			if err != nil {
				t.Fatal(err)
			}
			if got := int(binary.BigEndian.Uint32(b)) + 4; got != len(b) {
				t.Errorf("size says %d, have %d", got, len(b))
			}
			var set protocol.RecordSet
			if _, err := set.ReadFrom(bufio.NewReaderSize(bytes.NewReader(b), 1<<20)); err != nil {
				t.Fatal(err)
			}
			got, next, err := decode(set.Records, "", 0, 0)
			if err != nil || next != int64(len(recs)) {
				t.Fatalf("next %d, %v", next, err)
			}
			for i := range recs {
				want := recs[i]
				want.Offset = int64(i)
				if !got[i].Time.Equal(want.Time) {
					t.Errorf("record %d at %s, want %s", i, got[i].Time, want.Time)
				}
				got[i].Time = want.Time
				if !reflect.DeepEqual(got[i], want) {
					t.Errorf("record %d is %.200v, want %.200v", i, got[i], want)
				}
			}
		})
	}
}
