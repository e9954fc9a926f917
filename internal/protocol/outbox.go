package protocol

import (
	"encoding/binary"
	"fmt"

	"github.com/vmihailenco/msgpack/v5"
)

// Stream names an output, so that an outbox entry does not depend on how
// topics are called.
type Stream uint8

const (
	Changes     Stream = iota // tier changes
	DeadLetters               // refused records
	Values                    // customers' whole values, optional
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

// Encode is the entry as Redis holds it.
func (e *Entry) Encode() []byte { return e.Append(make([]byte, 0, e.Size()+64)) }

// Append appends what Encode returns, wireEntry in MessagePack: by hand, because
// an entry holds thousands of messages.
func (e *Entry) Append(b []byte) []byte {
	b = append(b, 0x95) // array of 5
	b = appendUint(b, e.Seq)
	b = appendBytes(b, e.Parent[:])
	b = appendBytes(b, e.Chain[:])
	b = appendBytes(b, e.Journal)
	b = appendArray(b, len(e.Messages))
	for i := range e.Messages {
		m := &e.Messages[i]
		b = append(b, 0x94, byte(m.Stream)) // array of 4; streams are small numbers
		b = appendBytes(b, m.Key)
		b = appendBytes(b, m.Value)
		b = appendArray(b, len(m.Headers))
		for j := range m.Headers {
			h := &m.Headers[j]
			b = append(b, 0x92) // array of 2
			b = appendString(b, h.Key)
			b = appendBytes(b, h.Value)
		}
	}
	return b
}

// The MessagePack forms of an entry, each as the library writes it.

func appendUint(b []byte, n uint64) []byte {
	switch {
	case n < 1<<7:
		return append(b, byte(n))
	case n < 1<<8:
		return append(b, 0xcc, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, 0xcd), uint16(n))
	case n < 1<<32:
		return binary.BigEndian.AppendUint32(append(b, 0xce), uint32(n))
	}
	return binary.BigEndian.AppendUint64(append(b, 0xcf), n)
}

func appendArray(b []byte, n int) []byte {
	switch {
	case n < 1<<4:
		return append(b, 0x90|byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, 0xdc), uint16(n))
	}
	return binary.BigEndian.AppendUint32(append(b, 0xdd), uint32(n))
}

func appendString(b []byte, s string) []byte {
	if n := len(s); n < 1<<5 {
		b = append(b, 0xa0|byte(n))
	} else {
		b = appendLength(b, 0xd9, n)
	}
	return append(b, s...)
}

func appendBytes(b, v []byte) []byte {
	if v == nil {
		return append(b, 0xc0)
	}
	return append(appendLength(b, 0xc4, len(v)), v...)
}

// appendLength appends the head of a string or of bytes, whose code is one more
// for each width of the length.
func appendLength(b []byte, code byte, n int) []byte {
	switch {
	case n < 1<<8:
		return append(b, code, byte(n))
	case n < 1<<16:
		return binary.BigEndian.AppendUint16(append(b, code+1), uint16(n))
	}
	return binary.BigEndian.AppendUint32(append(b, code+2), uint32(n))
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
