// Package protocol is the exactly-once protocol as plain values and pure
// steps: who owns a partition, which point of history its state stands at,
// what recovery must do, and how points of history are chained. It has no I/O,
// no clock and no goroutine, so that it can be searched exhaustively; package
// stream drives it.
//
// Two points matter. R, "applied", is where the state in Redis stands: the
// fence's sequence and chain. K, "published", is the last journal record that
// is committed in Kafka. A Redis script moves state and R together; a Kafka
// transaction moves outputs and K together. Whatever fails between the two,
// R and K and the outbox say what to do next.
package protocol

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// Hash is a SHA-256 value: a chain, the hash of a rule set.
type Hash [sha256.Size]byte

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// IsZero reports whether h is unset.
func (h Hash) IsZero() bool { return h == Hash{} }

// ParseHash reads the form that String writes.
func ParseHash(s string) (h Hash, err error) {
	if len(s) != 2*len(h) {
		return h, fmt.Errorf("hash %q: want %d hex digits", s, 2*len(h))
	}
	_, err = hex.Decode(h[:], []byte(s))
	return h, err
}

// Nonce is a random name: of one acquisition of a partition (its owner), or of
// one life of a namespace (its incarnation).
type Nonce [16]byte

func (n Nonce) String() string { return hex.EncodeToString(n[:]) }

// IsZero reports whether n is unset.
func (n Nonce) IsZero() bool { return n == Nonce{} }

// Point is one point of a partition's history. The sequence alone does not
// identify it: after a lost suffix another owner can write the same number
// with another content. The chain does.
type Point struct {
	Seq   uint64
	Chain Hash
}

// Identity is what every script and every read that feeds the fold must find
// in the fence, or its effect is refused and its values are thrown away.
type Identity struct {
	Epoch uint64 // one more at every acquisition
	Owner Nonce  // random, per acquisition: an epoch can be lost with a suffix
	Gen   uint64 // key generation; raised to abandon all keys of a branch
	Point        // R
	// Loading: the generation's state is being built and stands at no point of
	// history yet. Chain is zero, and Seq counts the steps of building it.
	Loading bool
}

// Published is K as the fence knows it: the newest journal record known to be
// committed, and where it lies.
type Published struct {
	Point
	Offset      int64 // in the journal partition
	LeaderEpoch int32 // of that record; -1 unknown
}

// Position is the next offset to read of one input topic.
type Position struct {
	Next        int64
	LeaderEpoch int32 // of the last record read; -1 unknown
}

// Bound is an exclusive upper bound in (due, customer) order: entries below it
// have been swept. It never goes back.
type Bound struct {
	Due      int64 // Unix milliseconds
	Customer string
}

// Less orders bounds, and due entries against bounds.
func (b Bound) Less(c Bound) bool {
	return b.Due < c.Due || b.Due == c.Due && b.Customer < c.Customer
}

// After is the least bound above the entry (due, customer).
func After(due int64, customer string) Bound { return Bound{due, customer + "\x00"} }
