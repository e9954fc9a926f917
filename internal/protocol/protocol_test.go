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
	for _, r := range recs {
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

func scanOf(recs []*Record, from, k int, r Point) Scan {
	s := Scan{Empty: true}
	for _, rec := range recs[from : k+1] {
		p := published(rec)
		if s.Empty {
			s.FirstAt = &p.Point
		}
		s.Empty = false
		if rec.Kind == KindGenesis {
			s.Genesis = rec
		}
		if p.Point == r {
			s.R, s.Found = p, true
		}
		s.K = p
	}
	return s
}

func TestRecoveryDecision(t *testing.T) {
	recs, es := history(6, 0)
	other, oes := history(6, 1)
	loading := Identity{Epoch: 3, Owner: Nonce{4}, Gen: 1, Loading: true}
	tests := []struct {
		name   string
		id     Identity
		pub    *Record // what the fence calls published
		outbox []*Entry
		fresh  bool
		scan   Scan
		want   Phase
		err    error
		unpub  int
	}{
		{"first start", loading, nil, nil, true, Scan{Empty: true}, Beginning, nil, 0},
		{"first start died before the genesis", loading, nil, nil, false, Scan{Empty: true}, Beginning, nil, 0},
		{"first start died after the genesis", loading, nil, nil, false, scanOf(recs, 0, 0, Point{}), Raising, nil, 0},
		{"Redis wiped", loading, nil, nil, true, scanOf(recs, 0, 4, Point{}), Installing, nil, 0},
		{"rebuild from a journal that is gone", Identity{Gen: 2, Loading: true}, nil, nil, false, Scan{Empty: true}, Stopped, ErrLostJournal, 0},
		{"in step", at(recs[4]), recs[4], nil, false, scanOf(recs, 4, 4, point(recs[4])), Running, nil, 0},
		{"published but not trimmed", at(recs[4]), recs[2], es[3:5], false, scanOf(recs, 2, 4, point(recs[4])), Running, nil, 0},
		{"applied and not published", at(recs[4]), recs[2], es[3:5], false, scanOf(recs, 2, 2, point(recs[4])), Running, nil, 2},
		{"a transaction committed some of the outbox", at(recs[5]), recs[2], es[3:6], false, scanOf(recs, 2, 4, point(recs[5])), Running, nil, 1},
		{"Redis lost a suffix", at(recs[3]), recs[2], es[3:4], false, scanOf(recs, 2, 6, point(recs[3])), Reapplying, nil, 0},
		{"another branch beyond K", at(other[5]), recs[0], oes[1:6], false, scanOf(recs, 0, 4, point(other[5])), Stopped, ErrOtherBranch, 0},
		{"K on another branch than the outbox", at(recs[4]), recs[2], es[3:5], false, func() Scan {
			s := scanOf(recs, 2, 2, Point{})
			s.K = published(other[3])
			return s
		}(), Stopped, ErrOtherBranch, 0},
		{"outbox with a hole", at(recs[5]), recs[2], []*Entry{es[3], es[5]}, false, scanOf(recs, 2, 2, point(recs[5])), Stopped, ErrOtherBranch, 0},
		{"published record gone", at(recs[4]), recs[4], nil, false, Scan{Empty: true}, Stopped, ErrLostJournal, 0},
		{"published record is another", at(recs[4]), recs[4], nil, false, func() Scan {
			p := point(other[4])
			return Scan{FirstAt: &p, K: published(other[4])}
		}(), Stopped, ErrLostJournal, 0},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			var pub Published
			if c.pub != nil {
				pub = published(c.pub)
			}
			m := acquired(c.id, pub, append([]*Entry(nil), c.outbox...), c.fresh)
			m.Located(c.scan)
			if m.Phase() != c.want {
				t.Fatalf("phase %s (%v), want %s", m.Phase(), m.Err(), c.want)
			}
			if !errors.Is(m.Err(), c.err) {
				t.Errorf("error %v, want %v", m.Err(), c.err)
			}
			if m.Phase() == Running && len(m.Unpublished()) != c.unpub {
				t.Errorf("%d to publish, want %d", len(m.Unpublished()), c.unpub)
			}
		})
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
