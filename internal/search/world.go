package search

import (
	"slices"

	"github.com/tierstream/tierstream/internal/protocol"
)

// maxOwners is how many sessions can be alive at once.
const maxOwners = 3

// world is one partition with everything that acts on it. It is small and
// plain, so that a search can hold millions. Slices and what pointers show
// are shared between worlds and never written.
type world struct {
	cfg  *Config
	book *book

	redis *store
	kept  []*store // what Redis held before: a loss brings one back

	inputs   int8    // the first input record that is still there
	start    int8    // the first journal record that is still there
	journal  []point // committed and visible, by offset
	outputs  []point // decisions that readers of the output topics have seen, in order
	txns     []txn
	producer int8 // the newest epoch of the one transactional ID

	owners [maxOwners]owner

	now                   int8 // in leases
	nonces, begun         int8 // handed out so far
	takes, losses, pauses int8 // so far, see Config
	sweeps                int8
	timeouts, shortenings int8
	truncations, damages  int8
	journalLost           bool // Kafka lost some of the journal
	stopped               bool // the last session that ended stopped: a human must look
}

// store is what Redis holds for the partition.
type store struct {
	exists    bool
	epoch     int8
	owner     int8 // its nonce
	gen       int8
	at        point // R; nowhere while loading
	step      int8  // of loading
	base      int8  // generation that a rebase begins from; 0 for none
	basis     point // where its state stands; the fence holds that point's offsets
	open      bool  // a rebase is not done
	lease     int8  // valid before this time
	published protocol.Published
	values    []value // by key generation
	outbox    []point
}

func (s *store) value(gen int8) value {
	if int(gen) < len(s.values) {
		return s.values[gen]
	}
	return 0
}

// with is the values with one of them changed.
func with(vs []value, gen int8, v value) []value {
	c := make([]value, max(len(vs), int(gen)+1))
	copy(c, vs)
	c[gen] = v
	return c
}

// fate is what becomes of a transaction.
type fate int8

const (
	open   fate = iota // the client has asked to commit; the coordinator has not decided
	commit             // decided; visible once the markers are written
	abort
)

// txn is a transaction from the request to end it.
type txn struct {
	epoch    int8
	points   []point // whose records and outputs are in it, in order
	last     point   // the session's name for the last of them
	base     int8    // journal offset of the first
	fate     fate
	visible  bool
	waiting  int8 // nonce of the session that waits for the answer; 0 for none
	unlogged bool // mutation: the journal record is not in it
	mute     bool // mutation: the outputs are not in it
}

// owner is one session: the protocol's machine, and what its driver, package
// stream, keeps beside it. The zero owner is a process without a session.
type owner struct {
	up        bool
	m         protocol.Machine
	nonce     int8
	epoch     int8  // of its producer; 0 for none
	first     point // the journal's first record
	at        point // where the machine stands
	k         point // the journal's last record when it was located
	next      int8  // input offset to read
	value     value // the customers as loaded or left by the last batch
	loaded    bool
	late      bool // it slept longer than its lease
	retried   bool
	script    *script        // the reply is awaited
	scan      *protocol.Scan // mutation: read before fencing
	condemned int8           // generation that misses customers, as this process found; outlives the session
	old       int8           // a generation to delete
	base      int8           // and one that may be deleted when the rebase is done
}

// script is one batch on its way into Redis.
type script struct {
	id     protocol.Identity
	to     point
	value  value
	outbox bool // with an outbox entry: its outputs are to be published
	known  protocol.Published
	drop   []uint64
	half   bool // mutation: the rest is written later
}

func newWorld(cfg *Config, b *book) *world {
	w := &world{cfg: cfg, book: b, redis: &store{}}
	w.kept = []*store{w.redis}
	return w
}

// fork makes c a copy of w that goes on by itself.
func (w *world) fork(c *world) *world {
	*c = *w
	for i := range c.owners[:w.cfg.Owners] {
		if c.owners[i].up {
			clip(&c.owners[i].m)
		}
	}
	return c
}

// add appends without writing into memory that another world shares.
func add[T any](s []T, x ...T) []T { return append(slices.Clip(s), x...) }

// last is the journal's last record; nowhere when it is empty.
func (w *world) last() point {
	if len(w.journal) == 0 {
		return 0
	}
	return w.journal[len(w.journal)-1]
}

// txnOf is the transaction that session o waits for.
func (w *world) txnOf(o *owner) *txn {
	for i := range w.txns {
		if w.txns[i].waiting == o.nonce {
			return &w.txns[i]
		}
	}
	return nil
}

// key appends a form of w that is equal for worlds that go on equally: names
// are replaced by where they occur first, processes are put in order, and what
// can no longer matter is left out.
func (w *world) key(b []byte) []byte {
	names := make([]int8, 0, 64) // nonces, in order of appearance in Redis
	name := func(n int8) byte {
		return byte(slices.Index(names, n))
	}
	keep := func(s *store) {
		if !slices.Contains(names, s.owner) {
			names = append(names, s.owner)
		}
		b = append(b, flags(s.exists, s.lease > w.now), byte(s.epoch), name(s.owner), byte(s.gen), byte(s.at), byte(s.at>>8), byte(s.step), byte(s.base), byte(s.basis), byte(s.basis>>8), flags(s.open),
			byte(s.published.Seq), byte(s.published.Offset), byte(len(s.values)), byte(len(s.outbox)))
		b = append(b, s.published.Chain[:8]...)
		b = appendNumbers(b, s.values)
		b = appendNumbers(b, s.outbox)
	}
	keep(w.redis)
	if int(w.losses) < w.cfg.Losses {
		for _, s := range w.kept {
			keep(s)
		}
	}
	b = append(b, byte(w.inputs), byte(w.start), byte(len(w.journal)), byte(len(w.outputs)))
	b = appendNumbers(b, w.journal)
	if !slices.Equal(w.journal, w.outputs) {
		b = appendNumbers(b, w.outputs)
	}
	b = append(b, byte(w.takes), byte(w.sweeps), byte(w.losses), byte(w.pauses), byte(w.timeouts), byte(w.shortenings), byte(w.truncations), byte(w.damages), byte(w.begun), flags(w.journalLost))
	for i := range w.txns {
		if w.txns[i].waiting == 0 {
			b = w.txns[i].append(b, w.producer)
		}
	}
	var forms [maxOwners][]byte
	from := len(b)
	for i := range w.owners[:w.cfg.Owners] {
		at := len(b)
		b = w.appendOwner(b, &w.owners[i], name)
		forms[i] = b[at:len(b):len(b)]
	}
	if n := w.cfg.Owners; n > 1 {
		slices.SortFunc(forms[:n], slices.Compare)
		sorted := make([]byte, 0, 1024)
		for _, f := range forms[:n] {
			sorted = append(sorted, f...)
		}
		b = append(b[:from], sorted...)
	}
	return b
}

func (w *world) appendOwner(b []byte, o *owner, name func(int8) byte) []byte {
	if !o.up { // what is left of it; much with a mutation
		return append(b, 0, flags(o.loaded), byte(o.condemned), byte(o.value), byte(o.value>>8))
	}
	b = append(b, flags(true, o.epoch == w.producer, o.epoch == 0, o.loaded, o.late, o.retried, o.script != nil), name(o.nonce),
		byte(o.first), byte(o.first>>8), byte(o.at), byte(o.at>>8), byte(o.next), byte(o.value), byte(o.value>>8), byte(o.k), byte(o.k>>8), byte(o.old), byte(o.base), byte(o.condemned), flags(o.scan != nil))
	b = appendMachine(b, &o.m)
	if s := o.script; s != nil {
		b = append(b, flags(s.outbox, s.half), byte(s.to), byte(s.to>>8), byte(s.value), byte(s.value>>8), byte(s.known.Offset), byte(len(s.drop)))
		b = append(b, s.known.Chain[:8]...)
		for _, n := range s.drop {
			b = append(b, byte(n))
		}
	}
	if o.scan != nil {
		b = append(b, flags(o.scan.Found, o.scan.Empty))
		b = append(b, o.scan.K.Chain[:8]...)
	}
	if t := w.txnOf(o); t != nil {
		b = t.append(b, w.producer)
	}
	return b
}

func (t *txn) append(b []byte, producer int8) []byte {
	b = append(b, byte(t.fate), byte(t.base), flags(t.epoch == producer, t.visible, t.unlogged, t.mute), byte(len(t.points)))
	return appendNumbers(b, t.points)
}

func appendNumbers[T ~uint16](b []byte, s []T) []byte {
	for _, x := range s {
		b = append(b, byte(x), byte(x>>8))
	}
	return b
}

func flags(fs ...bool) (b byte) {
	for i, f := range fs {
		if f {
			b |= 1 << i
		}
	}
	return b
}
