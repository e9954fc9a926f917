package protocol

import (
	"bytes"
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

// Message is one output record as decided. Headers that every message of its
// stream has are added when it is produced, see package fold: an outbox holds
// thousands of messages.
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

// Encode is the entry as Redis holds it: wireEntry, written field by field
// because an entry holds thousands of messages.
func (e *Entry) Encode() []byte {
	var buf bytes.Buffer
	buf.Grow(e.Size() + 64)
	enc := msgpack.NewEncoder(&buf)
	var errs error // nothing can fail, as a buffer takes everything
	must := func(err error) {
		if err != nil {
			errs = err
		}
	}
	must(enc.EncodeArrayLen(5))
	must(enc.EncodeUint(e.Seq))
	must(enc.EncodeBytes(e.Parent[:]))
	must(enc.EncodeBytes(e.Chain[:]))
	must(enc.EncodeBytes(e.Journal))
	must(enc.EncodeArrayLen(len(e.Messages)))
	for i := range e.Messages {
		m := &e.Messages[i]
		must(enc.EncodeArrayLen(4))
		must(enc.EncodeUint(uint64(m.Stream)))
		must(enc.EncodeBytes(m.Key))
		must(enc.EncodeBytes(m.Value))
		must(enc.EncodeArrayLen(len(m.Headers)))
		for _, h := range m.Headers {
			must(enc.EncodeArrayLen(2))
			must(enc.EncodeString(h.Key))
			must(enc.EncodeBytes(h.Value))
		}
	}
	if errs != nil {
		panic(fmt.Sprintf("encoding outbox entry %d: %v", e.Seq, errs))
	}
	return buf.Bytes()
}

// DecodeEntry reads what Encode wrote.
func DecodeEntry(b []byte) (*Entry, error) {
	var w wireEntry
	if err := msgpack.Unmarshal(b, &w); err != nil {
		return nil, fmt.Errorf("decoding outbox entry: %w", err)
	}
	e := &Entry{Seq: w.Seq, Journal: w.Journal}
	if len(w.Messages) > 0 {
		e.Messages = w.Messages
	}
	if !fill(e.Parent[:], w.Parent) || !fill(e.Chain[:], w.Chain) {
		return nil, fmt.Errorf("decoding outbox entry %d: a chain has the wrong length", w.Seq)
	}
	return e, nil
}
