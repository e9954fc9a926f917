package search

import (
	"encoding/binary"
	"fmt"

	"github.com/tierstream/tierstream/internal/protocol"
)

// point is one point of a partition's history, by its number in a book. The
// zero point is nowhere: before any genesis.
type point uint16

// value is what a partition's customers amount to, by its number in a book:
// all that was folded, in order. Two values are equal when the same batches
// were folded on the same beginning. Zero is no customer at all.
type value uint16

// batch is what makes a point out of its parent: the input records [from, to),
// the batch's one clock reading, and the value that its record's digest is of.
// A genesis has no parent; begun tells one from another. A batch of a rebase
// reads no input: its digest says what the customers are from here on.
type batch struct {
	parent   point
	from, to int8
	clock    int8
	digest   value
	begun    int8
	rebase   rebase
}

// rebase says whether a batch belongs to a rebase, and whether it is its last.
type rebase int8

const (
	noRebase rebase = iota
	rebaseGoesOn
	rebaseEnds
)

// folded is one step of the fold.
type folded struct {
	on       value
	from, to int8
	clock    int8
}

// fact is what a book knows of a point.
type fact struct {
	batch
	seq   uint64
	chain protocol.Hash
	pure  value // the pure fold of all that led here
	root  point // the genesis of this history
	// record is the journal record, without epoch and owner; entry what the
	// outbox holds. The entry's Journal bytes are only the point's number:
	// nothing but the world reads them.
	record *protocol.Record
	entry  *protocol.Entry
}

// book numbers the points and values that a search meets, so that a state of
// the world is small. What a point is, is fixed when it is first met; so any
// number of states share a book.
type book struct {
	facts    []fact
	points   map[batch]point
	values   map[folded]value
	blind    bool // mutation: a chain that tells the number alone
	timeless bool // mutation: a journal record without the clock
}

func newBook(m Mutation) *book {
	return &book{facts: make([]fact, 1), points: map[batch]point{}, values: map[folded]value{}, blind: m&NoChain != 0, timeless: m&NoClock != 0}
}

func (b *book) of(p point) *fact { return &b.facts[p] }

// at is the point as the protocol sees it.
func (b *book) at(p point) protocol.Point {
	if p == 0 {
		return protocol.Point{}
	}
	f := &b.facts[p]
	return protocol.Point{Seq: f.seq, Chain: f.chain}
}

// fold is the abstract fold: what comes out depends on every argument.
func (b *book) fold(on value, from, to, clock int8) value {
	k := folded{on, from, to, clock}
	v, ok := b.values[k]
	if !ok {
		v = value(len(b.values) + 1)
		b.values[k] = v
	}
	return v
}

// point finds or makes a point. Its chain is the protocol's own, over a record
// that holds what the batch holds.
func (b *book) point(n batch) point {
	p, ok := b.points[n]
	if ok {
		return p
	}
	p = point(len(b.facts))
	if p == 0 {
		panic("search: more points of history than numbers")
	}
	f := fact{batch: n, root: p}
	state := protocol.State{Clock: int64(n.clock), Next: []protocol.Position{{Next: int64(n.to), LeaderEpoch: -1}}, Digest: digest(n.digest)}
	if b.timeless {
		state.Clock = 0
	}
	var parent protocol.Hash
	if n.parent == 0 {
		f.record = protocol.NewGenesis(protocol.Genesis{Incarnation: nonce(n.begun), Partitions: 1, Start: state.Next}, state)
		f.chain = f.record.Chain
	} else {
		up := b.of(n.parent)
		parent = up.chain
		f.seq, f.root = up.seq+1, up.root
		f.pure = n.digest
		f.record = &protocol.Record{Kind: protocol.KindBatch, Seq: f.seq, State: state}
		if n.rebase == noRebase {
			f.pure = b.fold(up.pure, n.from, n.to, n.clock)
		} else {
			f.record.Kind = protocol.KindRebase
			f.record.Rebase = &protocol.Rebase{Cause: protocol.LogTruncated, Last: n.rebase == rebaseEnds, Genesis: *b.of(f.root).record.Genesis}
		}
		f.chain = protocol.NextChain(parent, f.record, protocol.Hash{})
	}
	if b.blind {
		f.chain = protocol.Hash{1, byte(f.seq)}
	}
	f.record.Chain = f.chain
	f.entry = &protocol.Entry{Seq: f.seq, Parent: parent, Chain: f.chain, Journal: binary.BigEndian.AppendUint16(nil, uint16(p))}
	b.points[n] = p
	b.facts = append(b.facts, f)
	return p
}

// pointOf is the point that an outbox entry leads to.
func pointOf(e *protocol.Entry) point { return point(binary.BigEndian.Uint16(e.Journal)) }

// leads reports whether history goes from a to z: a is z or before it.
func (b *book) leads(a, z point) bool {
	for ; z != 0; z = b.of(z).parent {
		if z == a {
			return true
		}
	}
	return false
}

// name is the point as a trace shows it.
func (b *book) name(p point) string {
	if p == 0 {
		return "nowhere"
	}
	f := b.of(p)
	return fmt.Sprintf("%d·%x", f.seq, f.chain[:2])
}

func digest(v value) (d [16]byte) {
	binary.BigEndian.PutUint16(d[:], uint16(v))
	return d
}

func nonce(n int8) protocol.Nonce { return protocol.Nonce{byte(n)} }
