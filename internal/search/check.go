package search

import "slices"

// The invariants. Each is checked where a move could break it, so that it
// holds in every state: what Redis holds when it was written, what is
// published when a transaction became visible.

// checkState is I1: the customers are the pure fold of all that led to where
// the fence stands. It checks the digest in the journal record too.
func (w *world) checkState() error {
	r := w.redis
	if r.at == 0 {
		return nil
	}
	f := w.book.of(r.at)
	switch v := r.value(w.keys(r.gen)); {
	case v == 0 && w.damages > 0: // not noticed yet
		return nil
	case v != f.pure:
		return broken("I1", "the fence stands at %s, but the customers are not the fold of what led there", w.book.name(r.at))
	case f.digest != v:
		return broken("I1", "the digest of %s is not that of the customers", w.book.name(r.at))
	}
	return w.checkOrder()
}

// checkOrder: where Redis lost nothing and no rebuild is under way, its state
// continues what is published. Publishing never goes ahead of it, and nobody
// decides another history.
func (w *world) checkOrder() error {
	if r := w.redis; w.losses == 0 && w.damages == 0 && !w.journalLost && r.at != 0 && len(w.journal) > 0 && !w.book.leads(w.last(), r.at) {
		return broken("order", "%s is published, but Redis, which lost nothing, stands at %s, which does not follow from it", w.book.name(w.last()), w.book.name(r.at))
	}
	return nil
}

// checkPublished is I2: journal and outputs are one unbroken chain, each
// decision once. It looks at the last of each.
func (w *world) checkPublished() error {
	if w.journalLost {
		return nil
	}
	if err := w.follows("the journal", w.journal); err != nil {
		return err
	}
	if err := w.follows("the outputs", w.outputs); err != nil {
		return err
	}
	return w.checkOrder()
}

// follows says whether the last of list continues the one before it.
func (w *world) follows(what string, list []point) error {
	n := len(list)
	if n == 0 {
		return nil
	}
	f := w.book.of(list[n-1])
	switch {
	case n == 1 && f.parent == 0:
	case n == 1 || f.parent != list[n-2]:
		before := point(0)
		if n > 1 {
			before = list[n-2]
		}
		return broken("I2", "in %s %s comes after %s, but was decided after %s", what, w.book.name(list[n-1]), w.book.name(before), w.book.name(f.parent))
	case f.rebase == noRebase && w.book.of(list[n-2]).rebase == rebaseGoesOn:
		return broken("I2", "in %s %s comes after %s, which belongs to a rebase that is not done", what, w.book.name(list[n-1]), w.book.name(list[n-2]))
	case f.from != w.book.of(list[n-2]).to:
		return broken("I2", "in %s %s begins at input %d, the one before ended at %d", what, w.book.name(list[n-1]), f.from, w.book.of(list[n-2]).to)
	}
	return nil
}

// committed says whether p is committed, visible or not yet.
func (w *world) committed(p point) bool {
	return slices.Contains(w.journal, p) ||
		slices.ContainsFunc(w.txns, func(t txn) bool { return t.fate == commit && slices.Contains(t.points, p) })
}

// checkTrim: an outbox entry leaves Redis only when it is committed.
func (w *world) checkTrim(drop []uint64) error {
	if w.journalLost {
		return nil
	}
	for _, p := range w.redis.outbox {
		for _, n := range drop {
			if w.book.of(p).seq == n && !w.committed(p) {
				return broken("lost", "the decision %s leaves the outbox and is not committed", w.book.name(p))
			}
		}
	}
	return nil
}

// checkRaise: a generation is given up only when its state is neither
// published nor continues what is, or a decision would be lost that need not
// be. base is the generation that is kept for a rebase.
func (w *world) checkRaise(base int8) error {
	r := w.redis
	deleted := w.start > 0 && slices.Contains(w.journal[:w.start-1], r.at) // so that nothing shows what it belongs to
	if r.at != 0 && !r.open && base != r.gen && !deleted && !w.journalLost && w.damages == 0 && (w.committed(r.at) || w.book.leads(w.last(), r.at)) {
		return broken("lost", "the state at %s is given up, although it is on the line of %s, which is published", w.book.name(r.at), w.book.name(w.last()))
	}
	return nil
}

// checkBasis: a rebase begins from the customers of a published point, or from
// none.
func (w *world) checkBasis(v value) error {
	r := w.redis
	if v != w.book.of(r.basis).pure && w.damages == 0 || r.basis != 0 && !w.journalLost && !w.book.leads(r.basis, w.last()) {
		return broken("I1", "a rebase begins from customers that are not those of %s, or that point is not published", w.book.name(r.basis))
	}
	return nil
}

// checkRebase: history is cut only where it can no longer be repeated.
func (w *world) checkRebase() error {
	if w.inputs == 0 && w.start == 0 && !w.journalLost {
		return broken("lost", "a rebase, although nothing was deleted")
	}
	return nil
}

// checkDone is I3 and what else holds when nothing is left to do: all inputs
// are in the state, all decisions are published, and the last of them is
// where the state stands.
func (w *world) checkDone() error {
	switch {
	case w.journalLost:
	case w.book.of(w.last()).rebase == rebaseGoesOn:
		return broken("I3", "nothing is left to do, and a rebase is not done")
	case w.last() != w.redis.at:
		return broken("I3", "nothing is left to do: published is %s, applied is %s", w.book.name(w.last()), w.book.name(w.redis.at))
	case len(w.outputs) != len(w.journal):
		return broken("I3", "nothing is left to do: %d decisions in the outputs, %d in the journal", len(w.outputs), len(w.journal))
	}
	return nil
}
