package search

import (
	"errors"
	"fmt"

	"github.com/tierstream/tierstream/internal/protocol"
)

// locate reads the journal and lets the machine decide how to recover.
func (w *world) locate(o *owner) error {
	if o.m.Phase() == protocol.Fencing { // mutation: too early
		s := w.scan(&o.m)
		o.scan = &s
		o.read(w)
		return nil
	}
	b := w.book
	s := w.scan(&o.m)
	if o.scan != nil {
		s, o.scan = *o.scan, nil
	} else {
		o.read(w)
	}
	if id := o.m.Identity(); !id.Loading && o.first != 0 && b.of(o.first).root != b.of(o.at).root {
		return w.stop(o, errors.New("the state in Redis belongs to another incarnation than the journal"))
	}
	known := o.m.Known()
	o.m.Located(s)
	if o.m.Phase() == protocol.Stopped {
		return w.stop(o, o.m.Err())
	}
	if !known.Chain.IsZero() && known.Offset >= int64(w.start) && (int(known.Offset) >= len(w.journal) || b.at(w.journal[known.Offset]) != known.Point) {
		return broken("stop", "recovery goes on, although the record that was last published is gone")
	}
	if w.cfg.Mutation&Rewind != 0 && o.m.Phase() == protocol.Running {
		o.next = b.of(w.last()).to
	}
	return nil
}

// read notes the journal's first and last record.
func (o *owner) read(w *world) {
	o.k = w.last()
	if len(w.journal) > int(w.start) {
		o.first = w.journal[w.start]
	}
}

// scan is what package stream reads from the journal, to its end.
func (w *world) scan(m *protocol.Machine) protocol.Scan {
	from, _, start := m.ScanFrom()
	s := protocol.Scan{K: protocol.Published{LeaderEpoch: -1}, Empty: true, Whole: start}
	id, known := m.Identity(), m.Known()
	s.Start = int64(w.start)
	for i := max(from, s.Start); i < int64(len(w.journal)); i++ {
		f := w.book.of(w.journal[i])
		at := protocol.Published{Point: protocol.Point{Seq: f.seq, Chain: f.chain}, Offset: i, LeaderEpoch: -1}
		if s.Empty && !id.Loading && f.seq == id.Seq+1 && f.record.Continues(id.Chain) { // it begins just behind R
			s.R, s.Found = protocol.Published{Point: id.Point, Offset: s.Start - 1, LeaderEpoch: -1}, true
		}
		if i == known.Offset {
			s.FirstAt = &at.Point
		}
		if s.Empty && f.record.Kind == protocol.KindGenesis {
			s.Genesis = f.record
		}
		s.Empty = false
		s.Anchored = s.Anchored || f.record.Origin() != nil
		if at.Point == id.Point && !id.Loading {
			s.R, s.Found = at, true
			s.BlockedR = protocol.NoCause // only what comes after matters
		} else if f.record.Kind == protocol.KindRebase {
			s.Blocked, s.BlockedR = protocol.BehindRebase, protocol.BehindRebase
		} else if f.from < w.inputs && f.to > f.from {
			s.Blocked, s.BlockedR = protocol.LogTruncated, protocol.LogTruncated
		}
		s.K = at
	}
	if s.Start > 0 {
		s.Blocked = protocol.JournalTruncated
	}
	return s
}

// reapply folds the next journal record again.
func (w *world) reapply(o *owner, clock int8) error {
	b := w.book
	known, drop := o.m.Trim()
	offset := known.Offset + 1
	if offset >= int64(len(w.journal)) {
		return w.stop(o, errors.New("the journal ends before K"))
	}
	p := w.journal[offset]
	rec := b.of(p)
	if offset < int64(w.start) || rec.from < w.inputs && rec.from < rec.to {
		w.end(o) // it was deleted meanwhile
		return nil
	}
	if rec.seq != o.m.Identity().Seq+1 {
		return w.stop(o, errors.New("the journal has a hole"))
	}
	if w.cfg.Mutation&NoClock == 0 {
		clock = rec.clock
	}
	to, v := w.next(o, rec.to, clock)
	if b.of(to).chain != rec.chain {
		o.m.Diverged(fmt.Errorf("re-applying gives %s, the journal has %s", b.name(to), b.name(p)))
		o.loaded = false
		if o.m.Phase() == protocol.Stopped {
			return w.stop(o, o.m.Err())
		}
		return nil
	}
	o.script = &script{
		id: o.m.Identity(), to: to, value: v, drop: drop,
		known: protocol.Published{Point: b.at(p), Offset: offset, LeaderEpoch: -1},
	}
	return w.run(o)
}

// next folds the records up to to: the point it leads to and the customers
// after it.
func (w *world) next(o *owner, to, clock int8) (point, value) {
	v := w.book.fold(o.value, o.next, to, clock)
	d := v
	if w.cfg.Mutation&NoDigest != 0 {
		d = w.book.of(o.at).digest
	}
	return w.book.point(batch{parent: o.at, from: o.next, to: to, clock: clock, digest: d}), v
}

// apply folds the next n records, or sweeps, and runs the script.
func (w *world) apply(o *owner, n, clock int8) error {
	if n == 0 {
		w.sweeps++
	} else if o.next < w.inputs {
		if w.last() == o.k {
			return w.stop(o, errors.New("the inputs begin beyond what is applied"))
		}
		w.end(o) // others went on: this session is not the owner any more, or Redis went back
		return nil
	}
	known, drop := o.m.Trim()
	to, v := w.next(o, o.next+n, clock)
	if t := w.txnOf(o); t != nil && w.cfg.Mutation&TrimEarly != 0 {
		for _, p := range t.points {
			drop = append(drop, w.book.of(p).seq)
		}
	}
	o.script = &script{id: o.m.Identity(), to: to, value: v, outbox: true, known: known, drop: drop}
	if w.cfg.Mutation&PublishFirst != 0 {
		return w.request(o, txn{points: []point{to}})
	}
	return w.run(o)
}

// rebase writes one of the batches of a rebase: two when customers were
// gathered, else one that only says where the history comes from.
func (w *world) rebase(o *owner) error {
	known, drop := o.m.Trim()
	n := batch{parent: o.at, from: o.next, to: o.next, rebase: rebaseEnds}
	if o.m.Identity().Loading {
		n.parent, n.rebase = o.k, rebaseGoesOn
		if err := w.checkRebase(); err != nil {
			return err
		}
	}
	v := w.book.fold(o.value, n.from, n.to, int8(n.rebase))
	n.digest = v
	o.script = &script{id: o.m.Identity(), to: w.book.point(n), value: v, outbox: true, known: known, drop: drop}
	return w.run(o)
}

// replied takes an accepted batch as the new state.
func (w *world) replied(o *owner) error {
	s := o.script
	o.script, o.retried = nil, false
	o.at, o.next, o.value, o.loaded = s.to, w.book.of(s.to).to, s.value, true
	if s.outbox {
		o.m.Applied(w.book.of(s.to).entry, len(s.drop))
		if w.book.of(s.to).rebase == rebaseEnds {
			o.m.Rebased()
			o.old, o.base = o.base, 0
		}
		return nil
	}
	o.m.Reapplied(s.known, len(s.drop))
	if o.m.Phase() == protocol.Stopped {
		return w.stop(o, o.m.Err())
	}
	return nil
}
