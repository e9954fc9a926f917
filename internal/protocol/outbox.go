package protocol

import (
	"fmt"

	"github.com/vmihailenco/msgpack/v5"
)

// Stream names an output, so that an outbox entry does not depend on how
// topics are called.
type Stream uint8

const (
	Changes     Stream = iota // tier changes
	DeadLetters               // refused records
)

// Message is one output record as decided, ready to be produced.
type Message struct {
	Stream  Stream
	Key     []byte
	Value   []byte
	Headers []MessageHeader
}

// MessageHeader is one header of an output record.
type MessageHeader struct {
	Key   string
	Value []byte
}

// Entry is one batch that is applied but not yet known to be published. It
// holds everything that publishing needs, so that nothing is ever decided
// twice.
type Entry struct {
	Seq      uint64
	Parent   Hash // the chain before
	Chain    Hash // the chain after
	Journal  []byte
	Messages []Message
}

// Point is the point of history the entry leads to.
func (e *Entry) Point() Point { return Point{e.Seq, e.Chain} }

// Size is the entry's approximate size in bytes, for bounds.
func (e *Entry) Size() int {
	n := len(e.Journal) + 100
	for i := range e.Messages {
		m := &e.Messages[i]
		n += len(m.Key) + len(m.Value) + 16
		for _, h := range m.Headers {
			n += len(h.Key) + len(h.Value) + 8
		}
	}
	return n
}

type wireEntry struct {
	Seq      uint64
	Parent   []byte
	Chain    []byte
	Journal  []byte
	Messages []Message
}

// Encode is the entry as Redis holds it.
func (e *Entry) Encode() []byte {
	return marshal(&wireEntry{Seq: e.Seq, Parent: e.Parent[:], Chain: e.Chain[:], Journal: e.Journal, Messages: e.Messages})
}

// DecodeEntry reads what Encode wrote.
func DecodeEntry(b []byte) (*Entry, error) {
	var w wireEntry
	if err := msgpack.Unmarshal(b, &w); err != nil {
		return nil, fmt.Errorf("decoding outbox entry: %w", err)
	}
	e := &Entry{Seq: w.Seq, Journal: w.Journal, Messages: w.Messages}
	if !fill(e.Parent[:], w.Parent) || !fill(e.Chain[:], w.Chain) {
		return nil, fmt.Errorf("decoding outbox entry %d: a chain has the wrong length", w.Seq)
	}
	return e, nil
}
