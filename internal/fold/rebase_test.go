package fold

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/tierstream/tierstream/internal/customer"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/protocol"
)

// gathered is what a rebase has gathered: customers by ID, and the originals
// of their waiting returns.
type gathered struct {
	t         testing.TB
	engine    *Engine
	customers Set
	waits     map[Waiting][]byte
}

func gather(t testing.TB, r *Rules, recs []*Record, changes []protocol.Message) *gathered {
	t.Helper()
	e, err := NewEngine(r, Where{Namespace: "test", Partitions: 1, Engine: "test engine", LiveSince: day(40)}, false)
	if err != nil {
		t.Fatal(err)
	}
	g := &gathered{t: t, engine: e, customers: Set{}, waits: map[Waiting][]byte{}}
	for i := range changes {
		ch, ok, err := e.Published(asRecord(&changes[i]), false)
		if err != nil || !ok {
			t.Fatalf("change %d: %v, %v", i, ok, err)
		}
		if err := e.Continue(g.find(ch.Customer), &ch); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range recs {
		c := *r
		if e.Decode(&c) {
			c.Customer = g.find(c.Event.Customer)
		}
		out := e.Gather([]*Record{&c})
		maps.Copy(g.waits, out.Wait)
		for _, w := range out.Unwait {
			delete(g.waits, w)
		}
		out.Applied()
	}
	return g
}

func (g *gathered) find(id string) *Customer {
	if g.customers[id] == nil {
		g.customers[id] = NewCustomer(id)
	}
	return g.customers[id]
}

// asRecord is a change as its topic holds it.
func asRecord(m *protocol.Message) *event.Message {
	r := &event.Message{Key: m.Key, Value: m.Value}
	for _, h := range Headers("test", m) {
		r.Headers = append(r.Headers, event.Header{Key: h.Key, Value: h.Value})
	}
	return r
}

// rebase visits everybody in batches of n, and returns the outputs' messages,
// the records, and the state after.
func (g *gathered) rebase(at protocol.State, parent protocol.Point, n int, floor uint64) (ms []protocol.Message, stored map[string][]byte, s protocol.State) {
	g.t.Helper()
	ids := slices.Sorted(maps.Keys(g.customers))
	left := at.Counters[event.Waiting]
	stored = map[string][]byte{}
	s = at
	for first, last := true, false; !last; first = false {
		m := min(n, len(ids))
		in := &RebaseInput{Parent: parent, State: s, First: first, Clock: at.Clock, Rebase: protocol.Rebase{Cause: protocol.LogTruncated}, Waiting: left, Floor: floor, End: m == len(ids)}
		for _, id := range ids[:m] {
			in.Customers = append(in.Customers, g.customers[id])
		}
		ids = ids[m:]
		var out *Output
		var err error
		if out, left, err = g.engine.Rebase(in); err != nil {
			g.t.Fatal(err)
		}
		if !out.Journal.Continues(parent.Chain) || out.Journal.Kind != protocol.KindRebase || out.Journal.Seq != parent.Seq+1 {
			g.t.Fatalf("journal record %+v", out.Journal)
		}
		for _, p := range out.Puts {
			stored[p.Customer.ID] = bytes.Clone(p.Value)
			if !p.DueMoved {
				g.t.Errorf("customer %s stays pending", p.Customer.ID)
			}
		}
		for _, w := range out.Unwait {
			delete(g.waits, w)
		}
		ms, s, parent, last = append(ms, out.Entry.Messages...), out.State, out.Entry.Point(), out.Journal.Rebase.Last
	}
	return ms, stored, s
}

func sumOf(stored map[string][]byte) [16]byte {
	var d customer.Digest
	for id, v := range stored {
		d = d.Add(digestTerm(id, v))
	}
	return d.Bytes()
}

// accounted checks I4 of a state, and that as many returns wait as it counts.
func (g *gathered) accounted(s protocol.State) {
	g.t.Helper()
	var sum int64
	for i, n := range s.Counters {
		if event.Code(i).Outcome() != event.Warned {
			sum += n
		}
	}
	if sum != s.Read {
		g.t.Errorf("%d records read, %d accounted for", s.Read, sum)
	}
	waiting := 0
	for _, c := range g.customers {
		waiting += len(c.Record.Facts.Waiting)
	}
	if int64(waiting) != s.Counters[event.Waiting] || len(g.waits) != waiting {
		g.t.Errorf("%d returns wait, counted %d, with %d originals", waiting, s.Counters[event.Waiting], len(g.waits))
	}
}

func history(t testing.TB) (p *partition, recs []*Record) {
	t.Helper()
	p = newPartition(t, testRules())
	for d := range 60 {
		for c := range 12 {
			if (d+c)%5 == 0 {
				recs = append(recs, purchase(t, fmt.Sprintf("o%d-%d", c, d), fmt.Sprintf("c%02d", c), day(d+10), int64(1000*(1+c))))
			}
			if (d+c)%17 == 3 {
				recs = append(recs, refund(t, fmt.Sprintf("r%d-%d", c, d), fmt.Sprintf("o%d-%d", c, (d+c)/5*5-c), fmt.Sprintf("c%02d", c), day(d+10), 500))
			}
		}
	}
	recs = append(recs, refund(t, "rw", "o-unknown", "c03", day(69), 500))
	for i, r := range recs {
		r.Offset = int64(i)
	}
	for i := 0; i < len(recs); i += 20 {
		p.must(day(10)+int64(i), protocol.Bound{}, recs[i:min(i+20, len(recs))]...)
	}
	return p, recs
}

// Whose facts and published changes are whole comes out as they were, byte for
// byte, and is not corrected.
func TestRebaseOfWholeFactsCorrectsNobody(t *testing.T) {
	p, recs := history(t)
	for _, n := range []int{1, 5, 100} {
		g := gather(t, testRules(), recs, p.of(protocol.Changes))
		ms, stored, s := g.rebase(p.state, p.point, n, 0)
		if len(ms) != 0 {
			t.Fatalf("by %d: %d messages", n, len(ms))
		}
		if s.Digest != p.digest() || sumOf(stored) != s.Digest || len(stored) != len(p.stored) {
			t.Errorf("by %d: digest %x of %d customers, want %x of %d", n, s.Digest, len(stored), p.digest(), len(p.stored))
		}
		g.accounted(s)
		if s.Read != p.state.Read || s.Counters[event.Waiting] != 1 {
			t.Errorf("by %d: state %+v", n, s)
		}
	}
}

// Whose facts are gone goes on after the last published change, once: a second
// rebase that knows of the corrections has nothing to add.
func TestRebaseContinuesPublishedChains(t *testing.T) {
	p, recs := history(t)
	published := p.of(protocol.Changes)
	last := map[string]customer.Standing{}
	for id, v := range p.stored {
		var r customer.Record
		if err := customer.Decode(v, &r); err != nil {
			t.Fatal(err)
		}
		last[id] = r.Standing
	}
	var left []*Record // of half of the customers nothing is left, of the others the end
	for _, r := range recs[len(recs)*3/4:] {
		if string(r.Message.Key) >= "c06" {
			left = append(left, r)
		}
	}
	g := gather(t, testRules(), left, published)
	ms, stored, s := g.rebase(p.state, p.point, 5, 0)
	if len(ms) == 0 {
		t.Fatal("nobody is corrected")
	}
	g.accounted(s)
	if sumOf(stored) != s.Digest {
		t.Error("the digest is not that of the records")
	}
	lowest := 0
	for i := range ms {
		if ms[i].Stream != protocol.Changes {
			continue
		}
		var c struct {
			Customer string `json:"customer_id"`
			Sequence uint64
			Previous struct{ Rank int8 } `json:"previous_tier"`
			New      struct{ Rank int8 } `json:"new_tier"`
			Reason   string
			Before   *float64 `json:"score_before"`
			Cause    struct {
				Rebase string
				Seq    uint64
			}
		}
		if err := json.Unmarshal(ms[i].Value, &c); err != nil {
			t.Fatalf("%s: %v", ms[i].Value, err)
		}
		st := last[c.Customer]
		if c.Sequence != st.Sequence+1 || c.Previous.Rank != st.Tier || c.New.Rank == st.Tier || c.Reason != Correction || c.Cause.Rebase != "log_truncated" || c.Before != nil {
			t.Errorf("correction %+v after %+v", c, st)
		}
		if c.Customer < "c06" {
			if lowest++; c.New.Rank != 0 {
				t.Errorf("customer %s has no facts, and rank %d", c.Customer, c.New.Rank)
			}
		}
	}
	if lowest == 0 {
		t.Error("nobody without facts was corrected")
	}
	var corrections []protocol.Message
	for _, m := range ms {
		if m.Stream == protocol.Changes {
			corrections = append(corrections, m)
		}
	}
	again, _, _ := gather(t, testRules(), left, append(published, corrections...)).rebase(s, p.point, 7, 0)
	for _, m := range again {
		if m.Stream == protocol.Changes {
			t.Errorf("corrected again: %s", m.Value)
		}
	}
	// And life goes on from there, also for those of whom nothing is known.
	q := &partition{t: t, engine: g.engine, point: protocol.Point{Seq: 9}, state: s, stored: stored, waits: g.waits}
	q.must(s.Clock, protocol.Bound{}, purchase(t, "new", "c00", day(80), 900_000), record(t, 1, event.Event{
		Type: event.Complaint, ID: "e-k", Source: "/test", Customer: "c01", Time: day(80), BusinessID: "k", Severity: 5, Status: event.Opened,
	}))
	for _, m := range q.of(protocol.Changes) {
		if string(m.Key) == "c01" {
			t.Errorf("a complaint of somebody without purchases: %s", m.Value)
		}
	}
}

// As many returns wait after a rebase as waited before, or less.
func TestRebaseAccountsForWaitingReturns(t *testing.T) {
	p, recs := history(t)
	changes := p.of(protocol.Changes)
	only := func(keep func(r *Record) bool) (left []*Record) {
		for _, r := range recs {
			if keep(r) {
				left = append(left, r)
			}
		}
		return left
	}
	for name, c := range map[string]struct {
		left    []*Record
		waiting int64 // of those that wait at K
		lost    int64
	}{
		"orders are gone, so more seem to wait": {only(func(r *Record) bool { return r.Event.Type == event.Return || r.Event.Customer >= "c06" }), 1, 0},
		"the waiting return is gone":            {only(func(r *Record) bool { return r.Offset < 20 }), 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			g := gather(t, testRules(), c.left, changes)
			found := 0
			for _, x := range g.customers {
				found += len(x.Record.Facts.Waiting)
			}
			if (found > 1) != (c.lost == 0) || found > 0 && c.lost > 0 {
				t.Fatalf("%d returns seem to wait: no test of this", found)
			}
			ms, _, s := g.rebase(p.state, p.point, 4, 0)
			g.accounted(s)
			var lost int64
			for _, m := range ms {
				if m.Stream == protocol.DeadLetters {
					lost++
				}
			}
			if s.Counters[event.Waiting] != c.waiting || lost != c.lost || s.Counters[event.OrphanReturn] != p.state.Counters[event.OrphanReturn]+c.lost {
				t.Errorf("%d wait, %d lost; want %d, %d", s.Counters[event.Waiting], lost, c.waiting, c.lost)
			}
		})
	}
}

func TestManyLostReturnsAreBookedInPieces(t *testing.T) {
	g := gather(t, testRules(), nil, nil)
	s := protocol.State{Next: make([]protocol.Position, 2), Counters: make([]int64, event.NumCodes), Read: 2*maxLost + 1}
	s.Counters[event.Waiting] = 2*maxLost + 1
	ms, _, after := g.rebase(s, protocol.Point{}, 5, 0)
	if len(ms) != 2*maxLost+1 {
		t.Errorf("%d dead letters", len(ms))
	}
	g.accounted(after)
}

// Where published changes may be missing, a sequence goes on above all that
// may have been.
func TestRebaseFloor(t *testing.T) {
	_, recs := history(t)
	g := gather(t, testRules(), recs, nil)
	ms, _, _ := g.rebase(protocol.State{Next: make([]protocol.Position, 2), Counters: make([]int64, event.NumCodes)}, protocol.Point{}, 100, 5000)
	for _, m := range ms {
		var c struct{ Sequence uint64 }
		if err := json.Unmarshal(m.Value, &c); err != nil || m.Stream == protocol.Changes && c.Sequence != 5001 {
			t.Fatalf("sequence %d, %v", c.Sequence, err)
		}
	}
}

// The change topic may be shared, may hold an earlier life of the namespace,
// and may be MessagePack.
func TestPublishedChangesAreTold(t *testing.T) {
	p, _ := history(t)
	m := p.of(protocol.Changes)[0]
	e := p.engine
	want, ok, err := e.Published(asRecord(&m), false)
	if !ok || err != nil || want.Sequence != 1 || want.Customer != string(m.Key) {
		t.Fatalf("%+v, %v, %v", want, ok, err)
	}
	packed := asRecord(&m)
	if packed.Value, err = Msgpack(m.Value); err != nil {
		t.Fatal(err)
	}
	for i := range packed.Headers {
		if packed.Headers[i].Key == "content-type" {
			packed.Headers[i].Value = []byte(MsgpackType)
		}
	}
	a, b := NewCustomer(want.Customer), NewCustomer(want.Customer)
	got, ok, err := e.Published(packed, false)
	if !ok || err != nil {
		t.Fatal(ok, err)
	}
	if err := e.Continue(a, &want); err != nil {
		t.Fatal(err)
	}
	if err := e.Continue(b, &got); err != nil {
		t.Fatal(err)
	}
	if a.Record.Standing != b.Record.Standing || a.Record.Standing.Tier < 0 {
		t.Errorf("standing %+v by JSON, %+v by MessagePack", a.Record.Standing, b.Record.Standing)
	}
	header := func(key, value string) *event.Message {
		r := asRecord(&m)
		for i := range r.Headers {
			if r.Headers[i].Key == key {
				r.Headers[i].Value = []byte(value)
			}
		}
		return r
	}
	if _, ok, err := e.Published(header("ce_source", "/tierstream/other"), false); ok || err != nil {
		t.Errorf("another namespace's: %v, %v", ok, err)
	}
	if _, ok, err := e.Published(header("ce_id", "0123"), false); ok || err != nil {
		t.Errorf("another incarnation's: %v, %v", ok, err)
	}
	if _, ok, err := e.Published(header("ce_id", "0123"), true); !ok || err != nil {
		t.Errorf("another incarnation's, adopted: %v, %v", ok, err)
	}
	if _, _, err := e.Published(header("ce_customerseq", "x"), false); err == nil {
		t.Error("a sequence that is none")
	}
	// With explicit partitioning only the change itself says where it is from.
	r := testRules()
	r.Partitioner = "explicit"
	for partition, want := range map[int32]bool{0: true, 1: false} {
		x, err := NewEngine(r, Where{Namespace: "test", Partitions: 2, Partition: partition}, false)
		if err != nil {
			t.Fatal(err)
		}
		if _, ok, err := x.Published(asRecord(&m), false); ok != want || err != nil {
			t.Errorf("partition %d: %v, %v", partition, ok, err)
		}
	}
}
