package search

import (
	"slices"

	"github.com/tierstream/tierstream/internal/protocol"
)

// mine is the part of the scripts' check that says who asks.
func (w *world) mine(id protocol.Identity) bool {
	r, m := w.redis, w.cfg.Mutation
	return r.exists && (m&NoEpoch != 0 || uint64(r.epoch) == id.Epoch) && (m&NoOwner != 0 || nonce(r.owner) == id.Owner) && uint64(r.gen) == id.Gen
}

// holds is the whole check: the five identities.
func (w *world) holds(id protocol.Identity) bool {
	return w.mine(id) && w.point() == id.Point && (w.redis.at == 0) == id.Loading
}

// point is R as the fence says it; while loading, Seq counts the steps.
func (w *world) point() protocol.Point {
	if w.redis.at == 0 {
		return protocol.Point{Seq: uint64(w.redis.step)}
	}
	return w.book.at(w.redis.at)
}

// over says that the lease is over, which every script that writes asks.
func (w *world) over() bool { return w.now >= w.redis.lease && w.cfg.Mutation&NoLease == 0 }

// keys is the generation that the keys of generation gen carry.
func (w *world) keys(gen int8) int8 {
	if w.cfg.Mutation&NoGeneration != 0 {
		return 0
	}
	return gen
}

// write makes n what Redis holds, for session o, and keeps it for a loss.
func (w *world) write(o *owner, n store) error {
	switch {
	case n.owner != o.nonce:
		return broken("I7", "a script of session %d was accepted, the latest acquirer on this branch is %d", o.nonce, n.owner)
	case o.late:
		return broken("I7", "a script of a session that overslept its lease was accepted")
	}
	w.put(&n)
	return w.checkState()
}

// put makes s what Redis holds, and keeps it for a loss.
func (w *world) put(s *store) {
	w.redis = s
	if int(w.losses) >= w.cfg.Losses {
		return
	}
	w.kept = add(w.kept, s)
	if k := w.cfg.Keep; k > 0 && len(w.kept) > k {
		w.kept = slices.Delete(slices.Clone(w.kept), 1, 2) // the first, empty one stays
	}
}

// tick lets a lease's time pass. Sessions that are awake renew theirs
// meanwhile, if it holds.
func (w *world) tick() {
	over := w.over()
	w.now++
	if over || w.cfg.Mutation&NoRenewal != 0 {
		return
	}
	for i := range w.owners[:w.cfg.Owners] {
		if o := &w.owners[i]; o.up && !o.late && w.mine(o.m.Identity()) {
			n := *w.redis
			n.lease = w.now + 1
			w.redis = &n
		}
	}
}

// acquire begins a session: the acquiring script, and the machine that takes its
// reply.
func (w *world) acquire(o *owner) {
	w.stopped = false
	w.takes++
	w.nonces++
	n := *w.redis
	fresh := !n.exists
	if fresh {
		n = store{exists: true, gen: 1}
	}
	n.epoch++
	n.owner, n.lease = w.nonces, w.now+1
	w.put(&n)
	f := protocol.Fence{
		Identity: protocol.Identity{
			Epoch: uint64(n.epoch), Owner: nonce(n.owner), Gen: uint64(n.gen), Point: w.point(), Loading: n.at == 0,
		},
		Published: n.published, Base: uint64(n.base), Rebased: protocol.Rebased{Open: n.open && w.cfg.Mutation&ForgetOpen == 0},
	}
	if n.at != 0 {
		f.State = w.book.of(n.at).record.State
	}
	var entries []*protocol.Entry
	for _, p := range n.outbox {
		entries = append(entries, w.book.of(p).entry)
	}
	condemned, cache, cached := o.condemned, o.value, o.loaded
	*o = owner{up: true, nonce: n.owner, at: n.at, next: w.book.of(n.at).to, value: cache, loaded: cached, condemned: condemned}
	o.m.Acquired(&f, entries, fresh)
	if condemned == n.gen {
		o.m.Condemn()
	}
}

// load reads the customers. A record that is missing although its due time is
// there condemns the generation: the process does not continue it.
func (w *world) load(o *owner) {
	if w.cfg.Mutation&UnfencedReads == 0 && !w.holds(o.m.Identity()) {
		w.end(o)
		return
	}
	v := w.redis.value(w.keys(int8(o.m.Identity().Gen)))
	if v == 0 && w.book.of(o.at).pure != 0 && w.damages > 0 {
		w.end(o)
		o.condemned = w.redis.gen
		return
	}
	o.value, o.loaded = v, true
}

// raise begins a generation that holds nothing.
func (w *world) raise(o *owner) error {
	id := o.m.Identity()
	if !w.holds(id) || w.over() {
		w.end(o)
		return nil
	}
	n := *w.redis
	o.old, o.base = n.gen, 0
	switch base := int8(o.m.Rebuild().Base); base {
	case 0:
		n.base, n.basis = 0, 0
	case n.gen:
		n.base, n.basis = base, n.at
		o.old, o.base = 0, base
		if w.cfg.Mutation&ForgetBase != 0 {
			o.old, o.base = base, 0
		}
	default: // an earlier owner's, which the fence knows
		o.base = base
	}
	if err := w.checkRaise(n.base); err != nil {
		return err
	}
	n.gen++
	n.at, n.step, n.outbox, n.open = 0, 0, nil, false
	o.at, o.next, o.loaded = 0, 0, false
	o.m.Raised(uint64(n.gen))
	return w.write(o, n)
}

// fill is one of the two steps that gather what a rebase needs: what the base
// holds, then what is left of the inputs since.
func (w *world) fill(o *owner) error {
	id := o.m.Identity()
	if !w.holds(id) || w.over() {
		w.end(o)
		return nil
	}
	n := *w.redis
	gen := w.keys(n.gen)
	from := w.book.of(n.basis).to
	if n.step == 0 {
		if n.base != 0 {
			n.values = with(n.values, gen, n.value(w.keys(n.base)))
		}
		if err := w.checkBasis(n.value(gen)); err != nil {
			return err
		}
	} else if from, to := max(from, w.inputs), w.book.of(o.k).to; from < to {
		n.values = with(n.values, gen, w.book.fold(n.value(gen), from, to, 0))
	}
	n.step++
	n.lease = w.now + 1
	o.m.Filled()
	if n.step == 2 {
		o.m.Loaded()
		o.next = w.book.of(o.k).to
	}
	return w.write(o, n)
}

// install writes the genesis into the fence.
func (w *world) install(o *owner) error {
	at := protocol.Published{Point: w.book.at(o.first), LeaderEpoch: -1}
	ok, err := w.script(o, &script{id: o.m.Identity(), to: o.first, known: at})
	if err != nil || !ok {
		return err
	}
	o.at, o.next, o.loaded = o.first, 0, false
	o.m.Installed(at)
	return nil
}

// script is the apply script: it tells whether the batch is in Redis now, and
// ends the session when it is not.
func (w *world) script(o *owner, s *script) (ok bool, err error) {
	r, b := w.redis, w.book
	switch {
	case !w.mine(s.id):
	case r.at != 0 && b.of(r.at).chain == b.of(s.to).chain:
		return true, nil
	case !w.holds(s.id):
	case w.over():
	default:
		if err := w.checkTrim(s.drop); err != nil {
			return false, err
		}
		n := *r
		if !s.outbox || w.cfg.Mutation&SplitScript == 0 {
			w.writeFence(&n, s)
		}
		if !s.outbox || w.cfg.Mutation&OffsetsFirst == 0 {
			w.writeCustomers(&n, s)
		}
		return true, w.write(o, n)
	}
	w.end(o)
	return false, nil
}

func (w *world) writeFence(n *store, s *script) {
	n.at, n.lease, n.published = s.to, w.now+1, s.known
	switch w.book.of(s.to).rebase {
	case rebaseGoesOn:
		n.open = true
	case rebaseEnds:
		n.open, n.base, n.basis = false, 0, 0
	}
	n.outbox = slices.DeleteFunc(slices.Clone(n.outbox), func(p point) bool { return slices.Contains(s.drop, w.book.of(p).seq) })
	if s.outbox {
		n.outbox = append(n.outbox, s.to)
	}
}

func (w *world) writeCustomers(n *store, s *script) {
	if w.book.of(s.to).seq > 0 { // a genesis has none
		n.values = with(n.values, w.keys(int8(s.id.Gen)), s.value)
	}
}

// run runs the script of o's batch.
func (w *world) run(o *owner) error {
	ok, err := w.script(o, o.script)
	if ok && o.script.outbox && w.cfg.Mutation&(SplitScript|OffsetsFirst) != 0 {
		s := *o.script
		s.half = true
		o.script = &s
	}
	return err
}

// finish writes the half that a split script left out.
func (w *world) finish(o *owner) error {
	s := *o.script
	s.half = false
	o.script = &s
	n := *w.redis
	if w.cfg.Mutation&SplitScript != 0 {
		w.writeFence(&n, &s)
	} else {
		w.writeCustomers(&n, &s)
	}
	return w.write(o, n)
}

// remove deletes what an old generation left.
func (w *world) remove(o *owner) error {
	gen := o.old
	o.old = 0
	fenced := w.holds(o.m.Identity()) && gen != w.redis.gen && (gen != w.redis.base || w.cfg.Mutation&ForgetBase != 0) && !w.over()
	if !fenced && w.cfg.Mutation&UnfencedDelete == 0 {
		return nil
	}
	n := *w.redis
	n.values = with(n.values, w.keys(gen), 0)
	if !fenced {
		w.put(&n)
		return w.checkState()
	}
	return w.write(o, n)
}
