package search

import (
	"slices"

	"github.com/tierstream/tierstream/internal/protocol"
)

// own is transaction i in memory of this world alone.
func (w *world) own(i int) *txn {
	w.txns = slices.Clone(w.txns)
	return &w.txns[i]
}

// fence makes o's producer the only one.
func (w *world) fence(o *owner) error {
	if w.cfg.Mutation&LazyProducer == 0 {
		w.initProducer(o)
	}
	o.m.ProducerFenced()
	return w.settle()
}

// initProducer makes o's producer the only one that the coordinator obeys, and
// aborts what is open.
func (w *world) initProducer(o *owner) {
	w.producer++
	o.epoch = w.producer
	w.txns = slices.Clone(w.txns)
	for i := range w.txns {
		if w.txns[i].fate == open {
			w.txns[i].fate = abort
		}
	}
}

// begin sends the genesis of a new history.
func (w *world) begin(o *owner) error {
	w.begun++
	o.first = w.book.point(batch{begun: w.begun})
	return w.request(o, txn{points: []point{o.first}})
}

// send puts o's first n unpublished entries into a transaction. wrong says how a
// mutation goes about it.
func (w *world) send(o *owner, n int, wrong int8) error {
	es := o.m.Unpublished()[:n]
	o.m.Sending(n)
	t := txn{points: make([]point, n)}
	for i, e := range es {
		t.points[i] = pointOf(e)
	}
	switch {
	case wrong == 0:
	case w.cfg.Mutation&PartialCommit != 0:
		t.unlogged, t.mute = wrong == 1, wrong == 2
	case w.cfg.Mutation&Recompute != 0: // at another time
		t.last = t.points[n-1]
		for i, p := range t.points {
			n := w.book.of(p).batch
			if i > 0 {
				n.parent = t.points[i-1]
			}
			n.clock ^= 1
			n.digest = w.book.fold(w.book.of(n.parent).pure, n.from, n.to, n.clock)
			t.points[i] = w.book.point(n)
		}
	}
	return w.request(o, t)
}

// request produces a transaction's records and asks to commit it. It ends the
// session when the producer is fenced.
func (w *world) request(o *owner, t txn) error {
	if o.epoch == 0 { // mutation: only now
		w.initProducer(o)
	}
	if o.epoch != w.producer {
		w.end(o)
		return nil
	}
	t.epoch, t.base, t.waiting = o.epoch, int8(len(w.journal)), o.nonce
	if t.last == 0 {
		t.last = t.points[len(t.points)-1]
	}
	w.txns = add(w.txns, t)
	return nil
}

// settle writes the markers of decided transactions where they come at once.
func (w *world) settle() error {
	if w.cfg.Markers {
		return nil
	}
	for i := 0; i < len(w.txns); i++ {
		if t := &w.txns[i]; t.fate != open && !t.visible {
			n := len(w.txns)
			if err := w.show(w.own(i)); err != nil {
				return err
			}
			if len(w.txns) < n {
				i--
			}
		}
	}
	return nil
}

// show makes a decided transaction visible.
func (w *world) show(t *txn) error {
	t.visible = true
	points, fate := t.points, t.fate
	unlogged, mute := t.unlogged, t.mute
	w.tidy()
	if fate == abort {
		return nil
	}
	for _, p := range points {
		if !unlogged {
			w.journal = add(w.journal, p)
		}
		if !mute {
			w.outputs = add(w.outputs, p)
		}
		if err := w.checkPublished(); err != nil {
			return err
		}
	}
	return nil
}

// tidy forgets transactions that are over and that nobody waits for.
func (w *world) tidy() {
	w.txns = slices.DeleteFunc(slices.Clone(w.txns), func(t txn) bool { return t.visible && t.waiting == 0 })
}

// answer tells the session what became of its transaction.
func (w *world) answer(o *owner) error {
	t := *w.txnOf(o)
	w.txns = slices.Clone(w.txns)
	w.txnOf(o).waiting = 0
	w.tidy()
	if t.fate == abort {
		w.end(o)
		return nil
	}
	at := protocol.Published{Point: w.book.at(t.last), Offset: int64(t.base) + int64(len(t.points)) - 1, LeaderEpoch: -1}
	if o.m.Phase() == protocol.Beginning {
		o.m.Began(at)
		return nil
	}
	if w.cfg.Mutation&PublishFirst != 0 {
		if ok, err := w.script(o, o.script); err != nil || !ok {
			return err
		}
		if err := w.replied(o); err != nil {
			return err
		}
		o.m.Sending(len(o.m.Unpublished()))
	}
	o.m.Committed(at)
	return nil
}

// pending says whether a transaction of o's producer is not over: the
// coordinator takes one after another.
func (w *world) pending(o *owner) bool {
	return slices.ContainsFunc(w.txns, func(t txn) bool { return t.epoch == o.epoch })
}

// overtaken says whether o, which has nothing to publish, finds records in the
// journal that are not its own.
func (w *world) overtaken(o *owner) bool {
	return w.cfg.Mutation&NoLook == 0 && len(o.m.Unpublished()) == 0 && w.txnOf(o) == nil && w.ended() && w.book.at(w.last()) != o.m.Known().Point
}

// ended says whether the journal's read-committed and read-uncommitted ends
// agree.
func (w *world) ended() bool {
	return !slices.ContainsFunc(w.txns, func(t txn) bool { return !t.visible })
}
