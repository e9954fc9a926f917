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
	Locating                // the producer is mine; K must be read next, perhaps from a whole journal
	Beginning               // first start: the genesis must be published
	Raising                 // the key generation must be raised
	Installing              // the genesis must be written to the fence
	Reapplying              // R lies in the journal below K: re-apply up to K
	Loading                 // before a rebase: what is left must be gathered, publishing nothing
	Rebasing                // apply and publish the batches of a rebase
	Running                 // apply, publish, trim
	Stopped                 // a human must look
)

func (p Phase) String() string {
	return [...]string{
		"idle", "fencing", "locating", "beginning", "raising", "installing", "reapplying",
		"loading", "rebasing", "running", "stopped",
	}[p]
}

// Scan is what the journal partition said, from where [Machine.ScanFrom] asks
// to its end.
type Scan struct {
	// Start is the first offset that the partition holds. Above 0, its first
	// records were deleted.
	Start int64
	// Whole: the scan began there, and not at the published record.
	Whole bool
	// FirstAt is the record at the offset the fence calls published. Nil when
	// nothing is there.
	FirstAt *Point
	// Genesis is the first record of a whole scan, if it is one.
	Genesis *Record
	// Anchored: a genesis or a rebase record was met, so that the namespace's
	// origin is on record.
	Anchored bool
	K        Published // the last committed record; zero Seq and Chain when none
	Empty    bool      // no committed record at all
	// R is where the fence's own point stands in the journal; Found says
	// whether it does.
	R     Published
	Found bool
	// BlockedR is why the journal cannot be re-applied from R up to K, where
	// Found; NoCause when it can.
	BlockedR Cause
	// Blocked is why it cannot be from the genesis. Of a whole scan.
	Blocked Cause
}

// ErrLostJournal means: the record that the fence calls published is not in the
// journal. Kafka lost committed data, or the journal topic is another one.
var ErrLostJournal = errors.New("the journal record that was last published is gone: Kafka lost committed data, or the journal topic was recreated")

// ErrOtherLog means: state that was built from nothing by the journal came out
// with another chain than the journal's.
var ErrOtherLog = errors.New("the log or this binary is not what it was")

// Machine is one owner of one partition. Its methods are the protocol's steps:
// each takes the result of the step that its phase names, and moves on. A step
// out of phase panics, because then the driver is wrong.
//
//	acquire → fence the old producer → locate K ─┬─ nothing anywhere ──────── begin → install
//	                                             ├─ R in the journal ──────── re-apply up to K
//	                                             ├─ K is a parent in the outbox → publish the rest
//	                                             ├─ no state, but a genesis ─ install → re-apply up to K
//	                                             ├─ other state ───────────── raise → install → re-apply
//	                                             └─ re-applying cannot do ─── raise → load → rebase
//
// The zero Machine is Idle.
type Machine struct {
	phase   Phase
	id      Identity
	fresh   bool // the acquiring script created the fence
	whole   bool // K must be read from a whole journal
	clean   bool // the state was built from nothing by this owner
	anchor  bool // the origin is not on record any more
	outbox  []*Entry
	stored  []uint64  // entries that the outbox in Redis still holds, ascending
	known   Published // newest point known to be committed; what the next apply trims to
	k       Published // K at the time of acquiring
	sent    int       // how many of outbox are in a transaction under way
	base    uint64    // generation that an earlier owner's rebase began from
	unfit   Cause     // why the state found cannot be continued
	rebuild Rebuild
	stopped error
}

// Phase is where the machine stands.
func (m *Machine) Phase() Phase { return m.phase }

// Identity is what scripts and reads must find.
func (m *Machine) Identity() Identity { return m.id }

// K is the last committed journal record as it was found when acquiring.
func (m *Machine) K() Published { return m.k }

// Rebuild is what Located decided, when it found nothing to continue.
func (m *Machine) Rebuild() Rebuild { return m.rebuild }

// Err is why the machine is Stopped.
func (m *Machine) Err() error { return m.stopped }

func (m *Machine) must(step string, phases ...Phase) {
	if !slices.Contains(phases, m.phase) {
		panic(fmt.Sprintf("protocol: %s while %s", step, m.phase))
	}
}

// Acquired takes the fence and the outbox that the acquiring script returned.
// Next, the previous owner's producer must be fenced: only then can its last
// transaction no longer commit.
func (m *Machine) Acquired(f *Fence, outbox []*Entry, fresh bool) {
	m.must("acquired", Idle)
	slices.SortFunc(outbox, func(a, b *Entry) int {
		if a.Seq < b.Seq {
			return -1
		}
		return 1
	})
	*m = Machine{phase: Fencing, id: f.Identity, fresh: fresh, outbox: outbox, known: f.Published, base: f.Base}
	for _, e := range outbox {
		m.stored = append(m.stored, e.Seq)
	}
	switch {
	case fresh:
		m.unfit = NoState
	case f.Loading:
		m.unfit = Abandoned
	case f.Damaged:
		m.unfit = WrongState
	case f.Rebased.Open:
		m.unfit = Interrupted
	}
	m.whole = m.unfit != NoCause
}

// Condemn says that the state is not what the fence says it is, although that
// does not show: keys of it were missed before. It must not be continued.
func (m *Machine) Condemn() {
	m.must("condemned", Fencing)
	if m.unfit == NoCause {
		m.unfit, m.whole = WrongState, true
	}
}

// ProducerFenced notes: InitProducerID was answered; no transaction of an earlier
// owner is open any more.
func (m *Machine) ProducerFenced() {
	m.must("producer fenced", Fencing)
	m.phase = Locating
}

// ScanFrom is where reading the journal must begin: at the published record,
// inclusive, or at the start of what the partition holds.
func (m *Machine) ScanFrom() (offset int64, leaderEpoch int32, start bool) {
	if m.whole {
		return 0, -1, true
	}
	return m.known.Offset, m.known.LeaderEpoch, false
}

// Known is the newest point known to be committed; the zero Chain when none.
func (m *Machine) Known() Published { return m.known }

// Located takes K and decides how to recover. Where the machine is Locating
// still, the journal must be read again, from its start.
func (m *Machine) Located(s Scan) {
	m.must("located", Locating)
	if m.whole && !s.Whole {
		panic("protocol: the journal must be read from its start")
	}
	m.k = s.K
	began := !m.known.Chain.IsZero() // some journal record was known to be committed
	switch {
	case began && m.known.Offset >= s.Start && (s.FirstAt == nil || *s.FirstAt != m.known.Point),
		began && s.K.Seq < m.known.Seq,
		// Nothing is published although something was: a rebuild had begun, or
		// all records were deleted.
		s.Empty && (began || !m.id.Loading || m.id.Seq > 0 || m.id.Gen > 1 || s.Start > 0):
		m.stop(ErrLostJournal)
		return
	case s.Empty:
		m.phase = Beginning
		return
	case s.Start > 0 && !s.Whole:
		m.whole = true // whether the origin is on record
		return
	case s.Whole && s.Start == 0 && s.Genesis == nil:
		m.stop(fmt.Errorf("%w: its first record is not a genesis", ErrLostJournal))
		return
	}
	if m.unfit == NoCause && m.proceed(s) {
		return
	}
	if !s.Whole {
		m.whole = true // is there a way from the genesis?
		return
	}
	m.rebuild = Rebuild{Cause: m.unfit, Blocked: s.Blocked}
	if s.Blocked != NoCause {
		m.rebuild.Base = m.base
	}
	switch {
	case !m.fresh:
		m.phase = Raising
	case s.Blocked != NoCause:
		m.phase = Loading
	default:
		m.phase = Installing
	}
}

// proceed finds how the state in Redis is continued; false when it is on
// another branch.
func (m *Machine) proceed(s Scan) bool {
	m.anchor = s.Start > 0 && !s.Anchored
	if s.Found {
		// All outbox entries up to R are committed; entries above R cannot be.
		m.outbox = nil
		m.known = s.R
		switch {
		case m.id.Point == s.K.Point:
			m.ready()
		case s.BlockedR != NoCause:
			m.rebuild = Rebuild{Blocked: s.BlockedR, Base: m.id.Gen}
			m.phase = Raising
		default:
			m.phase = Reapplying
		}
		return true
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
			m.ready()
			return true
		}
	}
	m.unfit = OtherBranch
	return false
}

// ready ends recovery.
func (m *Machine) ready() {
	m.phase = Running
	if m.anchor {
		// The state is whole, but nothing would say what it belongs to if Redis
		// lost it: a rebase of nobody puts the origin on record again.
		m.anchor, m.phase, m.rebuild = false, Rebasing, Rebuild{Blocked: JournalTruncated}
	}
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
	m.must("began", Beginning)
	m.k = k
	m.phase = Installing
}

// Raised takes the new key generation.
func (m *Machine) Raised(gen uint64) {
	m.must("raised", Raising)
	if gen <= m.id.Gen {
		panic("protocol: raised to a generation that is not new")
	}
	m.id.Gen, m.id.Point, m.id.Loading = gen, Point{}, true
	m.outbox, m.stored = nil, nil // the raising script deleted them
	m.phase = Installing
	if m.rebuild.Blocked != NoCause {
		m.phase = Loading
	}
}

// Installed notes: the fence stands at the genesis, which lies at offset g.
func (m *Machine) Installed(g Published) {
	m.must("installed", Installing)
	m.id.Point, m.id.Loading, m.clean = g.Point, false, true
	m.outbox, m.stored, m.known = nil, nil, g
	if g.Point == m.k.Point {
		m.phase = Running
	} else {
		m.phase = Reapplying
	}
}

// Filled notes: a step of gathering what a rebase needs is in Redis. Each step
// moves the identity, so that one that Redis lost is missed by the next.
func (m *Machine) Filled() {
	m.must("filled", Loading)
	m.id.Seq++
}

// Loaded notes: everything that is left is gathered.
func (m *Machine) Loaded() {
	m.must("loaded", Loading)
	m.phase = Rebasing
}

// Rebased notes: the last batch of the rebase is applied.
func (m *Machine) Rebased() {
	m.must("rebased", Rebasing)
	if m.id.Loading {
		panic("protocol: rebased without a batch")
	}
	m.phase = Running
}

// Trim is what the next script writes as published, and the outbox entries it
// drops because they are known to be committed.
func (m *Machine) Trim() (k Published, drop []uint64) {
	if m.id.Loading {
		return m.k, nil
	}
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
	m.must("re-applied", Reapplying)
	if at.Seq != m.id.Seq+1 {
		panic(fmt.Sprintf("protocol: re-applied %d after %d", at.Seq, m.id.Seq))
	}
	m.trimmed(dropped)
	m.id.Point = at.Point
	m.known = at
	if at.Point == m.k.Point {
		m.ready()
	} else if at.Seq >= m.k.Seq {
		m.stop(fmt.Errorf("%w: re-applying passed %d", ErrLostJournal, m.k.Seq))
	}
}

// Diverged notes: re-applying the next journal record did not give its chain.
// State that was found in Redis is to blame, and is built from nothing; state
// that was built from nothing is not.
func (m *Machine) Diverged(err error) {
	m.must("diverged", Reapplying)
	if m.clean {
		m.stop(fmt.Errorf("%w: %w", ErrOtherLog, err))
		return
	}
	m.unfit, m.whole, m.phase = WrongState, true, Locating
}

// Applied notes: the script accepted e (or it was already there), and dropped that
// many entries. The first batch of a rebase continues K.
func (m *Machine) Applied(e *Entry, dropped int) {
	m.must("applied", Running, Rebasing)
	parent := m.id.Point
	if m.id.Loading {
		parent, m.known = m.k.Point, m.k
	}
	if e.Seq != parent.Seq+1 || e.Parent != parent.Chain {
		panic(fmt.Sprintf("protocol: applied %d after %d", e.Seq, parent.Seq))
	}
	m.trimmed(dropped)
	m.id.Point, m.id.Loading = e.Point(), false
	m.outbox = append(m.outbox, e)
	m.stored = append(m.stored, e.Seq)
}

// Parent is the point that the next batch continues.
func (m *Machine) Parent() Point {
	if m.id.Loading {
		return m.k.Point
	}
	return m.id.Point
}

// Unpublished are the entries that no transaction has taken yet, in order.
func (m *Machine) Unpublished() []*Entry { return m.outbox[m.sent:] }

// Sending notes: the first n unpublished entries are in a transaction under way.
func (m *Machine) Sending(n int) {
	m.must("sending", Running, Rebasing)
	if m.sent != 0 || n <= 0 || n > len(m.outbox) {
		panic("protocol: one transaction at a time")
	}
	m.sent = n
}

// Committed notes: the transaction under way committed; its last journal record lies
// at k.
func (m *Machine) Committed(k Published) {
	m.must("committed", Running, Rebasing)
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
