package protocol

import (
	"errors"
	"fmt"
	"slices"
)

// Phase is where an owner stands in the protocol.
type Phase uint8

const (
	Idle       Phase = iota // not owning; Acquire is next
	Fencing                 // the fence is mine; the old producer must be fenced next
	Locating                // the producer is mine; K must be read next
	Beginning               // first start: the genesis must be published
	Raising                 // the key generation must be raised
	Installing              // the genesis must be written to the fence
	Reapplying              // R lies in the journal below K: re-apply up to K
	Running                 // apply, publish, trim
	Stopped                 // a human must look
)

func (p Phase) String() string {
	return [...]string{"idle", "fencing", "locating", "beginning", "raising", "installing", "reapplying", "running", "stopped"}[p]
}

// Scan is what the journal partition said, from the fence's published record
// (inclusive; from the start when there is none) to its end.
type Scan struct {
	// FirstAt is the record at the offset the fence calls published. Nil when
	// nothing is there.
	FirstAt *Point
	Genesis *Record   // when the scan began at the start
	K       Published // the last committed record; zero Seq and Chain when none
	Empty   bool      // no committed record at all
	// R is where the fence's own point stands in the journal; Found says
	// whether it does.
	R     Published
	Found bool
}

// ErrLostJournal means: the record that the fence calls published is not in the
// journal. Kafka lost committed data, or the journal topic is another one.
var ErrLostJournal = errors.New("the journal record that was last published is gone: Kafka lost committed data, or the journal topic was recreated")

// ErrOtherBranch means: the state in Redis stands at a point that is neither in the
// journal nor continues it.
var ErrOtherBranch = errors.New("the state in Redis belongs to another branch of history than the journal")

// Machine is one owner of one partition. Its methods are the protocol's steps:
// each takes the result of the step that its phase names, and moves on. A step
// out of phase panics, because then the driver is wrong.
//
//	acquire → fence the old producer → locate K ─┬─ nothing anywhere ──────── begin → install
//	                                             ├─ no state, but a genesis ─ raise → install
//	                                             ├─ R in the journal ──────── re-apply up to K
//	                                             ├─ K is a parent in the outbox → publish the rest
//	                                             └─ else ──────────────────── stop
//
// The zero Machine is Idle.
type Machine struct {
	phase   Phase
	id      Identity
	fresh   bool // the acquiring script created the fence
	outbox  []*Entry
	stored  []uint64  // entries that the outbox in Redis still holds, ascending
	known   Published // newest point known to be committed; what the next apply trims to
	k       Published // K at the time of acquiring
	sent    int       // how many of outbox are in a transaction under way
	stopped error
}

// Phase is where the machine stands.
func (m *Machine) Phase() Phase { return m.phase }

// Identity is what scripts and reads must find.
func (m *Machine) Identity() Identity { return m.id }

// K is the last committed journal record as it was found when acquiring.
func (m *Machine) K() Published { return m.k }

// Err is why the machine is Stopped.
func (m *Machine) Err() error { return m.stopped }

func (m *Machine) must(p Phase, step string) {
	if m.phase != p {
		panic(fmt.Sprintf("protocol: %s while %s", step, m.phase))
	}
}

// Acquired takes the fence and the outbox that the acquiring script returned.
// Next, the previous owner's producer must be fenced: only then can its last
// transaction no longer commit.
func (m *Machine) Acquired(f *Fence, outbox []*Entry, fresh bool) {
	m.must(Idle, "acquired")
	slices.SortFunc(outbox, func(a, b *Entry) int {
		if a.Seq < b.Seq {
			return -1
		}
		return 1
	})
	*m = Machine{phase: Fencing, id: f.Identity, fresh: fresh, outbox: outbox, known: f.Published}
	for _, e := range outbox {
		m.stored = append(m.stored, e.Seq)
	}
}

// ProducerFenced notes: InitProducerID was answered; no transaction of an earlier
// owner is open any more.
func (m *Machine) ProducerFenced() {
	m.must(Fencing, "producer fenced")
	m.phase = Locating
}

// ScanFrom is where reading the journal must begin: at the published record,
// inclusive, or at the start when the state is not at any point.
func (m *Machine) ScanFrom() (offset int64, leaderEpoch int32, start bool) {
	if m.id.Loading {
		return 0, -1, true
	}
	return m.known.Offset, m.known.LeaderEpoch, false
}

// Located takes K and decides how to recover.
func (m *Machine) Located(s Scan) {
	m.must(Locating, "located")
	m.k = s.K
	if m.id.Loading {
		switch {
		case s.Empty && !m.fresh && m.id.Gen > 1:
			// A rebuild had begun from a journal that is now empty.
			m.stop(ErrLostJournal)
		case s.Empty:
			m.phase = Beginning
		case s.Genesis == nil:
			m.stop(fmt.Errorf("%w: its first record is not a genesis", ErrLostJournal))
		case m.fresh:
			m.phase = Installing
		default:
			m.phase = Raising
		}
		return
	}
	if s.FirstAt == nil || *s.FirstAt != m.known.Point {
		m.stop(ErrLostJournal)
		return
	}
	if s.Found {
		// All outbox entries up to R are committed; entries above R cannot be.
		m.outbox = nil
		m.known = s.R
		if m.id.Point == s.K.Point {
			m.phase = Running
		} else {
			m.phase = Reapplying
		}
		return
	}
	// Parent of any entry, not only of the oldest: a transaction may have
	// committed a prefix of the outbox before the last owner went.
	for i, e := range m.outbox {
		if e.Parent == s.K.Chain && e.Seq == s.K.Seq+1 {
			if !contiguous(m.outbox[i:], m.id.Point) {
				break
			}
			m.outbox = m.outbox[i:]
			m.known = s.K
			m.phase = Running
			return
		}
	}
	m.stop(fmt.Errorf("%w: applied is %d %.8s, published is %d %.8s", ErrOtherBranch, m.id.Seq, m.id.Chain, s.K.Seq, s.K.Chain))
}

// contiguous reports whether entries lead, one after another, to r.
func contiguous(entries []*Entry, r Point) bool {
	for i, e := range entries {
		if i > 0 && (e.Seq != entries[i-1].Seq+1 || e.Parent != entries[i-1].Chain) {
			return false
		}
	}
	return entries[len(entries)-1].Point() == r
}

// Began notes: the genesis is committed in the journal, at the given place.
func (m *Machine) Began(k Published) {
	m.must(Beginning, "began")
	m.k = k
	m.phase = Installing
}

// Raised takes the new key generation.
func (m *Machine) Raised(gen uint64) {
	m.must(Raising, "raised")
	if gen <= m.id.Gen {
		panic("protocol: raised to a generation that is not new")
	}
	m.id.Gen, m.id.Point, m.id.Loading = gen, Point{}, true
	m.outbox, m.stored = nil, nil // the raising script deleted them
	m.phase = Installing
}

// Installed notes: the fence stands at the genesis, which lies at offset g.
func (m *Machine) Installed(g Published) {
	m.must(Installing, "installed")
	m.id.Point, m.id.Loading = g.Point, false
	m.outbox, m.stored, m.known = nil, nil, g
	if g.Point == m.k.Point {
		m.phase = Running
	} else {
		m.phase = Reapplying
	}
}

// Trim is what the next script writes as published, and the outbox entries it
// drops because they are known to be committed.
func (m *Machine) Trim() (k Published, drop []uint64) {
	for _, seq := range m.stored {
		if seq <= m.known.Seq {
			drop = append(drop, seq)
		}
	}
	return m.known, drop
}

// trimmed takes the number of entries that an accepted script dropped.
func (m *Machine) trimmed(dropped int) { m.stored = m.stored[dropped:] }

// Reapplied notes: the next journal record, lying at at, was re-applied without
// publishing, by a script that dropped that many entries. The caller has
// compared the chain it computed with the journal's.
func (m *Machine) Reapplied(at Published, dropped int) {
	m.must(Reapplying, "re-applied")
	if at.Seq != m.id.Seq+1 {
		panic(fmt.Sprintf("protocol: re-applied %d after %d", at.Seq, m.id.Seq))
	}
	m.trimmed(dropped)
	m.id.Point = at.Point
	m.known = at
	if at.Point == m.k.Point {
		m.phase = Running
	} else if at.Seq >= m.k.Seq {
		m.stop(fmt.Errorf("%w: re-applying passed %d", ErrOtherBranch, m.k.Seq))
	}
}

// Applied notes: the script accepted e (or it was already there), and dropped that
// many entries.
func (m *Machine) Applied(e *Entry, dropped int) {
	m.must(Running, "applied")
	if e.Seq != m.id.Seq+1 || e.Parent != m.id.Chain {
		panic(fmt.Sprintf("protocol: applied %d after %d", e.Seq, m.id.Seq))
	}
	m.trimmed(dropped)
	m.id.Point = e.Point()
	m.outbox = append(m.outbox, e)
	m.stored = append(m.stored, e.Seq)
}

// Unpublished are the entries that no transaction has taken yet, in order.
func (m *Machine) Unpublished() []*Entry { return m.outbox[m.sent:] }

// Sending notes: the first n unpublished entries are in a transaction under way.
func (m *Machine) Sending(n int) {
	m.must(Running, "sending")
	if m.sent != 0 || n <= 0 || n > len(m.outbox) {
		panic("protocol: one transaction at a time")
	}
	m.sent = n
}

// Committed notes: the transaction under way committed; its last journal record lies
// at k.
func (m *Machine) Committed(k Published) {
	m.must(Running, "committed")
	if m.sent == 0 || m.outbox[m.sent-1].Point() != k.Point {
		panic("protocol: committed what was not sent")
	}
	m.outbox = append([]*Entry(nil), m.outbox[m.sent:]...)
	m.sent = 0
	m.known = k
}

func (m *Machine) stop(err error) {
	m.phase, m.stopped = Stopped, err
}
