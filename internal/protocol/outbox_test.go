package protocol

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/vmihailenco/msgpack/v5"
)

// Entries are written by hand and read by the library: every width must be the
// library's own.
func TestEntryIsWrittenAsTheLibraryDoes(t *testing.T) {
	long := func(n int) []byte { return bytes.Repeat([]byte{7}, n) }
	var many []Message
	for _, n := range []int{0, 1, 31, 32, math.MaxUint8, math.MaxUint8 + 1, math.MaxUint16, math.MaxUint16 + 1} {
		many = append(many,
			Message{Stream: DeadLetters, Key: long(n), Value: nil, Headers: []MessageHeader{{Key: strings.Repeat("k", n), Value: long(n)}, {Key: "nil"}}},
			Message{Value: long(n), Headers: make([]MessageHeader, min(n, 300))})
	}
	for _, seq := range []uint64{0, 127, 128, 255, 256, 65535, 65536, math.MaxUint32, math.MaxUint32 + 1, math.MaxUint64} {
		for _, ms := range [][]Message{nil, many[:1], many} {
			e := &Entry{Seq: seq, Parent: Hash{1}, Chain: Hash{2}, Journal: long(300), Messages: ms}
			var want bytes.Buffer
			enc := msgpack.NewEncoder(&want)
			enc.UseArrayEncodedStructs(true)
			enc.UseCompactInts(true)
			w := wireEntry{Seq: e.Seq, Parent: e.Parent[:], Chain: e.Chain[:], Journal: e.Journal, Messages: e.Messages}
			if w.Messages == nil {
				w.Messages = []Message{}
			}
			for i := range w.Messages {
				if w.Messages[i].Headers == nil {
					w.Messages[i].Headers = []MessageHeader{}
				}
			}
			if err := enc.Encode(&w); err != nil {
				t.Fatal(err)
			}
			if got := e.Encode(); !bytes.Equal(got, want.Bytes()) {
				t.Fatalf("seq %d, %d messages: %d bytes, the library writes %d others", seq, len(ms), len(got), want.Len())
			}
		}
	}
}
