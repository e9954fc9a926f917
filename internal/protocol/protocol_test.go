package protocol

import (
	"errors"
	"reflect"
	"testing"
)

func testGenesis() *Record {
	return NewGenesis(Genesis{
		Incarnation: Nonce{1}, LiveSince: 99, Partitions: 4, ClusterID: "c", Topics: []string{"a", "b"},
		TopicIDs: []string{"x", "y", "z"}, Start: []Position{{3, -1}, {0, -1}},
	}, State{Rules: Hash{7}, Fold: 1, Counters: []int64{0, 0}})
}

// history is a journal of n batches on a genesis; variant makes another
// branch.
func history(n int, variant byte) (recs []*Record, entries []*Entry) {
	g := testGenesis()
	recs = append(recs, g)
	entries = append(entries, &Entry{Chain: g.Chain})
	for i := 1; i <= n; i++ {
		r := &Record{Kind: KindBatch, Seq: uint64(i), Epoch: 5, Owner: Nonce{9}, State: State{
			Clock: int64(i), Fold: 1, Next: []Position{{int64(3 + i), 2}, {0, -1}}, Counters: []int64{int64(i), 0},
			Sweep: Bound{int64(i), "c"}, Read: int64(i), Digest: [16]byte{byte(i), variant},
		}}
		r.Decisions = Hash{variant}
		r.Chain = NextChain(recs[i-1].Chain, r, r.Decisions)
		recs = append(recs, r)
		entries = append(entries, &Entry{Seq: r.Seq, Parent: recs[i-1].Chain, Chain: r.Chain, Journal: r.Encode()})
	}
	return recs, entries
}

func TestJournalRecordSurvivesEncoding(t *testing.T) {
	recs, _ := history(2, 0)
	g := *recs[0].Genesis
	g.Start = []Position{{3, -1}, {0, -1}} // a rebase does not know their leader epochs
	g.Adopted = true
	rb := *recs[2]
	rb.Kind, rb.Seq = KindRebase, 3
	rb.Rebase = &Rebase{Cause: RulesUnknown, Last: true, From: []int64{7, 0}, Based: true, Genesis: g}
	rb.Chain = NextChain(recs[2].Chain, &rb, rb.Decisions)
	for _, r := range append(recs, &rb) {
		got, err := DecodeRecord(r.Encode())
		if err != nil {
			t.Fatal(err)
		}
		if r.Kind == KindGenesis {
			got.Genesis.Start, r.Genesis.Start = nil, nil // compared below
		}
		if !reflect.DeepEqual(got, r) {
			t.Errorf("record %d:\n got %+v\nwant %+v", r.Seq, got, r)
		}
	}
	for i, r := range recs[1:] {
		got, err := DecodeRecord(r.Encode())
		if err != nil || !got.Continues(recs[i].Chain) || got.Continues(r.Chain) {
			t.Errorf("record %d continues %d: want that, and no other", r.Seq, i)
		}
		if got.State.Clock++; got.Continues(recs[i].Chain) {
			t.Errorf("record %d was rewritten, and still continues %d", r.Seq, i)
		}
	}
	for _, b := range [][]byte{nil, {9}, {1}, append(recs[1].Encode()[:20], 0)} {
		if _, err := DecodeRecord(b); err == nil {
			t.Errorf("decoding %x: no error", b)
		}
	}
}

// The chain covers everything but who wrote it and how the log is read.
func TestChainDependsOnContentAndNotOnOwner(t *testing.T) {
	recs, _ := history(1, 0)
	base := *recs[1]
	chain := func(f func(*Record)) Hash {
		r := base
		f(&r)
		return NextChain(recs[0].Chain, &r, Hash{})
	}
	same := chain(func(*Record) {})
	for name, f := range map[string]func(*Record){
		"epoch": func(r *Record) { r.Epoch = 77 }, "owner": func(r *Record) { r.Owner = Nonce{3} },
		"leader epoch": func(r *Record) { r.State.Next = []Position{{base.State.Next[0].Next, 40}, base.State.Next[1]} },
	} {
		if chain(f) != same {
			t.Errorf("%s is in the chain", name)
		}
	}
	for name, f := range map[string]func(*Record){
		"seq": func(r *Record) { r.Seq++ }, "clock": func(r *Record) { r.State.Clock++ },
		"rules": func(r *Record) { r.State.Rules[0]++ }, "fold": func(r *Record) { r.State.Fold++ },
		"next":     func(r *Record) { r.State.Next = []Position{{9, 2}, {0, -1}} },
		"sweep":    func(r *Record) { r.State.Sweep.Customer = "d" },
		"counters": func(r *Record) { r.State.Counters = []int64{5, 5} },
		"read":     func(r *Record) { r.State.Read++ }, "digest": func(r *Record) { r.State.Digest[3]++ },
		"rebase": func(r *Record) { r.Rebase = &Rebase{Cause: LogTruncated} },
	} {
		if chain(f) == same {
			t.Errorf("%s is not in the chain", name)
		}
	}
	if NextChain(recs[0].Chain, &base, Hash{1}) == same || NextChain(Hash{1}, &base, Hash{}) == same {
		t.Error("parent or decisions are not in the chain")
	}
}

func TestEntrySurvivesEncoding(t *testing.T) {
	_, es := history(1, 0)
	e := es[1]
	e.Messages = []Message{{Stream: DeadLetters, Key: []byte("k"), Value: []byte{0, 1, 2}, Headers: []MessageHeader{{Key: "h", Value: []byte("v")}}}}
	got, err := DecodeEntry(e.Encode())
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, e) {
		t.Errorf("got %+v\nwant %+v", got, e)
	}
}

func point(r *Record) Point { return Point{r.Seq, r.Chain} }

func published(r *Record) Published {
	return Published{Point: point(r), Offset: 10 * int64(r.Seq), LeaderEpoch: -1}
}

// acquired is a machine that has the fence at R = recs[r], published = recs[p],
// and the given outbox.
func acquired(id Identity, pub Published, outbox []*Entry, fresh bool) *Machine {
	m := new(Machine)
	m.Acquired(&Fence{Identity: id, Published: pub}, outbox, fresh)
	m.ProducerFenced()
	return m
}

func at(r *Record) Identity { return Identity{Epoch: 3, Owner: Nonce{4}, Gen: 1, Point: point(r)} }

// scanOf is what reading the journal recs[from..k] says; whole from the start.
func scanOf(recs []*Record, from, k int, r Point) Scan {
	s := Scan{Empty: true, Whole: from == 0}
	for _, rec := range recs[from : k+1] {
		p := published(rec)
		if s.Empty {
			s.FirstAt = &p.Point
		}
		if s.Empty && rec.Kind == KindGenesis {
			s.Genesis = rec
		}
		s.Empty = false
		s.Anchored = s.Anchored || rec.Origin() != nil
		if p.Point == r {
			s.R, s.Found = p, true
		}
		s.K = p
	}
	return s
}

// rescan is a whole scan of recs[..k] by an owner whose fence calls pub
// published.
func rescan(recs []*Record, pub *Record, k int, r Point) Scan {
	s := scanOf(recs, 0, k, r)
	s.FirstAt = nil
	if pub != nil {
		p := point(pub)
		s.FirstAt = &p
	}
	return s
}

// truncated is a whole scan of a journal whose first records were deleted.
func truncated(recs []*Record, from, k int, r Point) Scan {
	s := scanOf(recs, from, k, r)
	s.Start, s.Whole, s.Genesis = published(recs[from]).Offset, true, nil
	s.Blocked = JournalTruncated
	return s
}

func blocked(s Scan, c Cause) Scan {
	s.Blocked = c
	return s
}

func blockedR(s Scan, c Cause) Scan {
	s.BlockedR = c
	return s
}

func TestRecoveryDecision(t *testing.T) {
	recs, es := history(6, 0)
	other, oes := history(6, 1)
	loading := Identity{Epoch: 3, Owner: Nonce{4}, Gen: 1, Loading: true}
	rebuilding := Identity{Epoch: 3, Owner: Nonce{4}, Gen: 2, Loading: true}
	type found struct {
		id     Identity
		pub    *Record // what the fence calls published
		outbox []*Entry
		fresh  bool
		fence  Fence // further fields
	}
	tests := []struct {
		name    string
		found   found
		scan    []Scan // the first, and the second if the machine asks for the whole journal
		want    Phase
		err     error
		unpub   int
		rebuild Rebuild
	}{
		{"first start", found{id: loading, fresh: true}, []Scan{{Empty: true, Whole: true}}, Beginning, nil, 0, Rebuild{}},
		{"first start died before the genesis", found{id: loading}, []Scan{{Empty: true, Whole: true}}, Beginning, nil, 0, Rebuild{}},
		{"first start died after the genesis", found{id: loading}, []Scan{scanOf(recs, 0, 0, Point{})}, Raising, nil, 0, Rebuild{Cause: Abandoned}},
		{"Redis wiped", found{id: loading, fresh: true}, []Scan{scanOf(recs, 0, 4, Point{})}, Installing, nil, 0, Rebuild{Cause: NoState}},
		{"only the fence deleted, keys of its generation left", found{id: rebuilding, fresh: true}, []Scan{scanOf(recs, 0, 4, Point{})}, Installing, nil, 0, Rebuild{Cause: NoState}},
		{"Redis wiped, journal deleted", found{id: loading, fresh: true}, []Scan{{Empty: true, Whole: true, Start: 40}}, Stopped, ErrLostJournal, 0, Rebuild{}},
		{"keys without a fence, journal gone", found{id: rebuilding, fresh: true}, []Scan{{Empty: true, Whole: true}}, Stopped, ErrLostJournal, 0, Rebuild{}},
		{"rebuild from a journal that is gone", found{id: rebuilding}, []Scan{{Empty: true, Whole: true}}, Stopped, ErrLostJournal, 0, Rebuild{}},
		{"customers gathered, journal gone", found{id: Identity{Epoch: 3, Owner: Nonce{4}, Gen: 1, Point: Point{Seq: 2}, Loading: true}},
			[]Scan{{Empty: true, Whole: true}}, Stopped, ErrLostJournal, 0, Rebuild{}},
		{"rebuild abandoned", found{id: rebuilding, pub: recs[2]}, []Scan{rescan(recs, recs[2], 4, Point{})}, Raising, nil, 0, Rebuild{Cause: Abandoned}},
		{"rebuild abandoned, journal shortened", found{id: rebuilding, pub: recs[4]}, []Scan{rescan(recs, nil, 2, Point{})}, Stopped, ErrLostJournal, 0, Rebuild{}},
		{"in step", found{id: at(recs[4]), pub: recs[4]}, []Scan{scanOf(recs, 4, 4, point(recs[4]))}, Running, nil, 0, Rebuild{}},
		{"published but not trimmed", found{id: at(recs[4]), pub: recs[2], outbox: es[3:5]}, []Scan{scanOf(recs, 2, 4, point(recs[4]))}, Running, nil, 0, Rebuild{}},
		{"applied and not published", found{id: at(recs[4]), pub: recs[2], outbox: es[3:5]}, []Scan{scanOf(recs, 2, 2, point(recs[4]))}, Running, nil, 2, Rebuild{}},
		{"a transaction committed some of the outbox", found{id: at(recs[5]), pub: recs[2], outbox: es[3:6]}, []Scan{scanOf(recs, 2, 4, point(recs[5]))}, Running, nil, 1, Rebuild{}},
		{"Redis lost a suffix", found{id: at(recs[3]), pub: recs[2], outbox: es[3:4]}, []Scan{scanOf(recs, 2, 6, point(recs[3]))}, Reapplying, nil, 0, Rebuild{}},
		{"another branch beyond K", found{id: at(other[5]), pub: recs[0], outbox: oes[1:6]},
			[]Scan{scanOf(recs, 0, 4, point(other[5]))}, Raising, nil, 0, Rebuild{Cause: OtherBranch}},
		{"another branch, seen from its published record", found{id: at(other[5]), pub: recs[2], outbox: oes[3:6]},
			[]Scan{scanOf(recs, 2, 4, point(other[5])), rescan(recs, recs[2], 4, point(other[5]))}, Raising, nil, 0, Rebuild{Cause: OtherBranch}},
		{"K on another branch than the outbox", found{id: at(recs[4]), pub: recs[2], outbox: es[3:5]}, func() []Scan {
			s := scanOf(recs, 2, 2, Point{})
			s.K = published(other[3])
			w := rescan(recs, recs[2], 2, Point{})
			w.K = published(other[3])
			return []Scan{s, w}
		}(), Raising, nil, 0, Rebuild{Cause: OtherBranch}},
		{"outbox with a hole", found{id: at(recs[5]), pub: recs[2], outbox: []*Entry{es[3], es[5]}},
			[]Scan{scanOf(recs, 2, 2, point(recs[5])), rescan(recs, recs[2], 2, point(recs[5]))}, Raising, nil, 0, Rebuild{Cause: OtherBranch}},
		{"outbox deleted", found{id: at(recs[5]), pub: recs[2]},
			[]Scan{scanOf(recs, 2, 2, point(recs[5])), rescan(recs, recs[2], 2, point(recs[5]))}, Raising, nil, 0, Rebuild{Cause: OtherBranch}},
		{"damaged", found{id: at(recs[4]), fence: Fence{Damaged: true}}, []Scan{scanOf(recs, 0, 4, point(recs[4]))}, Raising, nil, 0, Rebuild{Cause: WrongState}},
		{"published record gone", found{id: at(recs[4]), pub: recs[4]}, []Scan{{Empty: true}}, Stopped, ErrLostJournal, 0, Rebuild{}},
		{"published record is another", found{id: at(recs[4]), pub: recs[4]}, func() []Scan {
			p := point(other[4])
			return []Scan{{FirstAt: &p, K: published(other[4])}}
		}(), Stopped, ErrLostJournal, 0, Rebuild{}},
		{"no genesis at the journal's start", found{id: loading, fresh: true}, func() []Scan {
			s := scanOf(recs, 2, 4, Point{})
			s.Whole = true
			return []Scan{s}
		}(), Stopped, ErrLostJournal, 0, Rebuild{}},

		{"Redis lost a suffix, the log begins beyond", found{id: at(recs[3]), pub: recs[2], outbox: es[3:4]},
			[]Scan{blockedR(scanOf(recs, 2, 6, point(recs[3])), LogTruncated)}, Raising, nil, 0, Rebuild{Blocked: LogTruncated, Base: 1}},
		{"Redis lost a suffix, the log begins beyond the genesis only", found{id: at(recs[3]), pub: recs[2], outbox: es[3:4]},
			[]Scan{blocked(scanOf(recs, 2, 6, point(recs[3])), LogTruncated)}, Reapplying, nil, 0, Rebuild{}},
		{"damaged, the log begins beyond the genesis", found{id: at(recs[4]), fence: Fence{Damaged: true}},
			[]Scan{blocked(scanOf(recs, 0, 4, point(recs[4])), LogTruncated)}, Raising, nil, 0, Rebuild{Cause: WrongState, Blocked: LogTruncated}},
		{"Redis wiped, the log begins beyond", found{id: loading, fresh: true},
			[]Scan{blocked(scanOf(recs, 0, 4, Point{}), LogTruncated)}, Loading, nil, 0, Rebuild{Cause: NoState, Blocked: LogTruncated}},
		{"another branch, rules gone", found{id: at(other[5]), pub: recs[2], outbox: oes[3:6]},
			[]Scan{scanOf(recs, 2, 4, point(other[5])), blocked(rescan(recs, recs[2], 4, point(other[5])), RulesUnknown)}, Raising, nil, 0, Rebuild{Cause: OtherBranch, Blocked: RulesUnknown}},
		{"rebase abandoned", found{id: rebuilding, pub: recs[2], fence: Fence{Base: 1}},
			[]Scan{blocked(rescan(recs, recs[2], 4, Point{}), LogTruncated)}, Raising, nil, 0, Rebuild{Cause: Abandoned, Blocked: LogTruncated, Base: 1}},
		{"rebase abandoned, and the log is back", found{id: rebuilding, pub: recs[2], fence: Fence{Base: 1}},
			[]Scan{rescan(recs, recs[2], 4, Point{})}, Raising, nil, 0, Rebuild{Cause: Abandoned}},
		{"rebase interrupted", found{id: at(recs[4]), pub: recs[2], outbox: es[3:5], fence: Fence{Base: 1, Rebased: Rebased{Seq: 4, Cause: LogTruncated, Open: true}}},
			[]Scan{blocked(rescan(recs, recs[2], 3, point(recs[4])), BehindRebase)}, Raising, nil, 0, Rebuild{Cause: Interrupted, Blocked: BehindRebase, Base: 1}},

		{"journal begins late, state whole", found{id: at(recs[4]), pub: recs[4]},
			[]Scan{{Start: 30, K: published(recs[4]), FirstAt: ptr(point(recs[4]))}, truncated(recs, 4, 4, point(recs[4]))}, Rebasing, nil, 0, Rebuild{Blocked: JournalTruncated}},
		{"journal begins late, outbox goes on", found{id: at(recs[5]), pub: recs[4], outbox: es[5:6]},
			[]Scan{truncated(recs, 4, 4, point(recs[5])), truncated(recs, 4, 4, point(recs[5]))}, Rebasing, nil, 1, Rebuild{Blocked: JournalTruncated}},
		{"journal begins late, R below K", found{id: at(recs[4]), pub: recs[4]},
			[]Scan{truncated(recs, 4, 6, point(recs[4])), truncated(recs, 4, 6, point(recs[4]))}, Reapplying, nil, 0, Rebuild{}},
		{"journal begins beyond R", found{id: at(recs[3]), pub: recs[2]},
			[]Scan{truncated(recs, 5, 6, point(recs[3])), truncated(recs, 5, 6, point(recs[3]))}, Raising, nil, 0, Rebuild{Cause: OtherBranch, Blocked: JournalTruncated}},
		{"journal begins late, Redis wiped", found{id: loading, fresh: true},
			[]Scan{truncated(recs, 4, 6, Point{})}, Loading, nil, 0, Rebuild{Cause: NoState, Blocked: JournalTruncated}},
		{"journal begins late, with a rebase on record", found{id: at(recs[4]), pub: recs[4]}, func() []Scan {
			s := truncated(recs, 4, 4, point(recs[4]))
			s.Anchored = true
			return []Scan{s}
		}(), Running, nil, 0, Rebuild{}},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			f := c.found.fence
			f.Identity = c.found.id
			if c.found.pub != nil {
				f.Published = published(c.found.pub)
			}
			m := new(Machine)
			m.Acquired(&f, append([]*Entry(nil), c.found.outbox...), c.found.fresh)
			m.ProducerFenced()
			n := 0
			for ; m.Phase() == Locating; n++ {
				if n == len(c.scan) {
					t.Fatalf("asks for a scan beyond %d", n)
				}
				s := c.scan[n]
				if _, _, whole := m.ScanFrom(); whole != s.Whole && n > 0 {
					t.Fatalf("scan %d: asks for the whole journal: %v", n, whole)
				}
				m.Located(s)
			}
			if m.Phase() != c.want {
				t.Fatalf("phase %s (%v), want %s", m.Phase(), m.Err(), c.want)
			}
			if !errors.Is(m.Err(), c.err) {
				t.Errorf("error %v, want %v", m.Err(), c.err)
			}
			if m.Rebuild() != c.rebuild {
				t.Errorf("rebuild %+v, want %+v", m.Rebuild(), c.rebuild)
			}
			if (m.Phase() == Running || m.Phase() == Rebasing) && len(m.Unpublished()) != c.unpub {
				t.Errorf("%d to publish, want %d", len(m.Unpublished()), c.unpub)
			}
		})
	}
}

func ptr[T any](v T) *T { return &v }

// State that cannot be continued is built again in a new generation; the
// genesis sets the point, and K ends it.
func TestRaisedGenerationIsReappliedUpToK(t *testing.T) {
	recs, _ := history(3, 0)
	other, oes := history(4, 1)
	m := acquired(at(other[4]), published(recs[1]), oes[2:5], false)
	m.Located(scanOf(recs, 1, 3, point(other[4])))
	m.Located(rescan(recs, recs[1], 3, point(other[4])))
	m.Raised(2)
	if id := m.Identity(); id.Gen != 2 || !id.Loading || id.Point != (Point{}) || m.Phase() != Installing {
		t.Fatalf("raised to %+v, %s", id, m.Phase())
	}
	if n := len(m.Unpublished()); n != 0 {
		t.Fatalf("%d entries of the other branch are left", n)
	}
	m.Installed(published(recs[0]))
	for i := 1; i <= 3; i++ {
		m.Reapplied(published(recs[i]), 0)
	}
	if m.Phase() != Running || m.Identity().Point != point(recs[3]) {
		t.Fatalf("phase %s at %v", m.Phase(), m.Identity().Point)
	}
}

// A chain that differs condemns state that was found; state that was built
// from nothing speaks against the log.
func TestDivergedStateIsRebuiltOnce(t *testing.T) {
	recs, _ := history(4, 0)
	m := acquired(at(recs[2]), published(recs[2]), nil, false)
	m.Located(scanOf(recs, 2, 4, point(recs[2])))
	m.Reapplied(published(recs[3]), 0)
	m.Diverged(errors.New("other"))
	if _, _, whole := m.ScanFrom(); m.Phase() != Locating || !whole {
		t.Fatalf("phase %s, whole %v", m.Phase(), whole)
	}
	m.Located(rescan(recs, recs[3], 4, point(recs[3])))
	if m.Phase() != Raising || m.Rebuild() != (Rebuild{Cause: WrongState}) {
		t.Fatalf("phase %s, %+v", m.Phase(), m.Rebuild())
	}
	m.Raised(2)
	m.Installed(published(recs[0]))
	m.Reapplied(published(recs[1]), 0)
	m.Diverged(errors.New("other"))
	if m.Phase() != Stopped || !errors.Is(m.Err(), ErrOtherLog) {
		t.Fatalf("phase %s: %v", m.Phase(), m.Err())
	}
}

func TestCondemnedStateIsNotContinued(t *testing.T) {
	recs, _ := history(4, 0)
	m := new(Machine)
	m.Acquired(&Fence{Identity: at(recs[4]), Published: published(recs[4])}, nil, false)
	m.Condemn()
	m.ProducerFenced()
	m.Located(rescan(recs, recs[4], 4, point(recs[4])))
	if m.Phase() != Raising || m.Rebuild().Cause != WrongState {
		t.Fatalf("phase %s, %+v", m.Phase(), m.Rebuild())
	}
}

// A rebase gathers what is left in steps that stand at no point of history,
// and goes on from K in batches that are published as any others.
func TestRebaseContinuesK(t *testing.T) {
	recs, _ := history(4, 0)
	m := acquired(Identity{Epoch: 1, Gen: 1, Loading: true}, Published{}, nil, true)
	m.Located(blocked(scanOf(recs, 0, 4, Point{}), LogTruncated))
	m.Filled()
	m.Filled()
	if id := m.Identity(); !id.Loading || id.Seq != 2 {
		t.Fatalf("after two steps: %+v", id)
	}
	m.Loaded()
	if m.Parent() != point(recs[4]) {
		t.Fatalf("continues %v", m.Parent())
	}
	var es []*Entry
	parent := recs[4].Chain
	for seq := uint64(5); seq <= 6; seq++ {
		e := &Entry{Seq: seq, Parent: parent, Chain: Hash{byte(seq)}}
		if k, drop := m.Trim(); k.Seq != 4 || drop != nil {
			t.Fatalf("batch %d writes %d as published and drops %v", seq, k.Seq, drop)
		}
		m.Applied(e, 0)
		es, parent = append(es, e), e.Chain
	}
	m.Sending(2)
	m.Rebased()
	m.Committed(Published{Point: es[1].Point(), Offset: 70})
	if m.Phase() != Running || m.Identity().Point != es[1].Point() || m.Identity().Loading {
		t.Fatalf("phase %s at %+v", m.Phase(), m.Identity())
	}
}

// Entries are dropped from Redis only once they are known to be committed, and
// only by an accepted script.
func TestTrimFollowsCommits(t *testing.T) {
	recs, es := history(4, 0)
	m := acquired(at(recs[1]), published(recs[0]), es[1:2], false)
	m.Located(scanOf(recs, 0, 0, Point{}))
	drop := func() []uint64 { _, d := m.Trim(); return d }
	if d := drop(); len(d) != 0 {
		t.Fatalf("drops %v before anything is committed", d)
	}
	m.Sending(1)
	m.Applied(es[2], 0) // applied while the first is being published
	if d := drop(); len(d) != 0 {
		t.Fatalf("drops %v while the transaction is under way", d)
	}
	m.Committed(published(recs[1]))
	k, d := m.Trim()
	if k != published(recs[1]) || !reflect.DeepEqual(d, []uint64{1}) {
		t.Fatalf("trim %v %v", k, d)
	}
	m.Applied(es[3], len(d))
	if d := drop(); len(d) != 0 {
		t.Fatalf("drops %v again", d)
	}
	if n := len(m.Unpublished()); n != 2 {
		t.Fatalf("%d to publish, want 2", n)
	}
}

func TestReapplyEndsAtK(t *testing.T) {
	recs, _ := history(3, 0)
	m := acquired(Identity{Epoch: 1, Gen: 1, Loading: true}, Published{}, nil, true)
	m.Located(scanOf(recs, 0, 3, Point{}))
	m.Installed(published(recs[0]))
	for i := 1; i <= 3; i++ {
		if m.Phase() != Reapplying {
			t.Fatalf("phase %s before %d", m.Phase(), i)
		}
		m.Reapplied(published(recs[i]), 0)
	}
	if m.Phase() != Running || m.Identity().Point != point(recs[3]) {
		t.Fatalf("phase %s at %v", m.Phase(), m.Identity().Point)
	}
	if k, _ := m.Trim(); k != published(recs[3]) {
		t.Errorf("published %v, want %v", k, published(recs[3]))
	}
}

func TestStepsOutOfPhasePanic(t *testing.T) {
	_, es := history(1, 0)
	for name, f := range map[string]func(*Machine){
		"apply before acquiring": func(m *Machine) { m.Applied(es[1], 0) },
		"locate before fencing":  func(m *Machine) { m.Acquired(&Fence{}, nil, false); m.Located(Scan{}) },
		"commit without sending": func(m *Machine) { m.Committed(Published{}) },
		"rebase without loading": func(m *Machine) { m.Rebased() },
		"a partial scan where the whole is asked for": func(m *Machine) {
			m.Acquired(&Fence{}, nil, true)
			m.ProducerFenced()
			m.Located(Scan{})
		},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s: no panic", name)
				}
			}()
			f(new(Machine))
		}()
	}
}

func TestCausesAreNamed(t *testing.T) {
	for _, c := range Causes() {
		if got, err := ParseCause(c.String()); err != nil || got != c || c.String() == "" {
			t.Errorf("cause %d is %q, which reads as %d, %v", uint8(c), c, got, err)
		}
	}
	if _, err := ParseCause("x"); err == nil {
		t.Error("any text is a cause")
	}
}
