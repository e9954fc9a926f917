package search

import (
	"fmt"
	"slices"

	"github.com/tierstream/tierstream/internal/protocol"
)

// kind is what one move of the world does. Each is atomic, and each is one
// thing that the driver, Redis or Kafka does in one piece; anything else may
// happen between any two.
type kind int8

const (
	crash     kind = iota // a session ends: killed, a reply or an answer lost, any doubt
	acquire               // the acquiring script
	fence                 // InitProducerID
	locate                // the journal is read to its end
	begin                 // the genesis is sent to the journal
	raise                 // the raising script
	fill                  // one step of gathering what a rebase needs
	visit                 // one batch of a rebase
	install               // the script that writes the genesis
	load                  // customers are read
	apply                 // a batch is folded and its script runs; n records, arg is the clock
	reapply               // the next journal record is folded again and its script runs
	reply                 // the script's reply arrives
	retry                 // it was lost: the script runs once more
	finish                // mutation: the second half of a script
	send                  // the first n unpublished entries go to Kafka, with the request to commit
	answer                // the coordinator's answer arrives
	compare               // an idle owner sees another fence, or that the journal went on without it
	remove                // keys of an old generation are deleted
	forget                // the cache drops the customers
	decide                // the coordinator commits what it was asked to
	expire                // it aborts a transaction that took too long
	mark                  // a decided transaction's markers are written
	lose                  // Redis goes back to its n-th earlier state
	damage                // the customers' keys are deleted, and the fence is not
	shorten               // Kafka loses all of the journal but n records
	retain                // retention deletes the inputs before n
	cut                   // the journal's records before n are deleted
	oversleep             // a session sleeps for longer than its lease
	renew                 // it wakes, and renews its lease before anything else
	numKinds
)

var kindNames = [numKinds]string{
	"crash", "acquire", "fence", "locate", "begin", "raise", "fill", "visit", "install", "load", "apply", "reapply", "reply", "retry", "finish",
	"send", "answer", "compare", "remove", "forget", "decide", "expire", "mark", "lose", "damage", "shorten", "retain", "cut", "oversleep", "renew",
}

func (k kind) String() string { return kindNames[k] }

// fault says whether a move of this kind is something going wrong.
func (k kind) fault() bool {
	switch k {
	case crash, retry, expire, lose, damage, shorten, retain, cut, oversleep, forget:
		return true
	}
	return false
}

// move is one move: who is the owner or, for decide, expire and mark, the
// transaction.
type move struct {
	kind
	who, n, arg int8
}

// moves appends all that can happen next.
func (w *world) moves(ms []move) []move {
	c := w.cfg
	for i := range w.txns {
		t := &w.txns[i]
		switch {
		case t.fate == open && t.epoch == w.producer:
			ms = append(ms, move{decide, int8(i), 0, 0})
			if int(w.timeouts) < c.Timeouts {
				ms = append(ms, move{expire, int8(i), 0, 0})
			}
		case t.fate != open && !t.visible:
			ms = append(ms, move{mark, int8(i), 0, 0})
		}
	}
	if int(w.losses) < c.Losses {
		for n, s := range w.kept {
			if s != w.redis {
				ms = append(ms, move{lose, 0, int8(n), 0})
			}
		}
	}
	if int(w.damages) < c.Damages && w.redis.value(w.keys(w.redis.gen)) != 0 {
		ms = append(ms, move{damage, 0, 0, 0})
	}
	if int(w.shortenings) < c.Shortenings && w.ended() {
		for n := int(w.start); n < len(w.journal); n++ {
			ms = append(ms, move{shorten, 0, int8(n), 0})
		}
	}
	if int(w.truncations) < c.Truncations && len(w.journal) > 0 {
		for n := w.inputs + 1; n <= w.book.of(w.last()).to; n++ {
			ms = append(ms, move{retain, 0, n, 0})
		}
		for n := int(w.start) + 1; n < len(w.journal); n++ {
			ms = append(ms, move{cut, 0, int8(n), 0})
		}
	}
	down := false
	for i := range w.owners[:c.Owners] {
		who := int8(i)
		o := &w.owners[i]
		if !o.up {
			blank := o.condemned == 0 && !o.loaded // one that remembers nothing is like another
			if int(w.takes) < c.Takes && !(blank && down) {
				ms = append(ms, move{acquire, who, 0, 0})
			}
			down = down || blank
			continue
		}
		ms = append(ms, move{crash, who, 0, 0})
		if int(w.pauses) < c.Pauses && !o.late {
			ms = append(ms, move{oversleep, who, 0, 0})
		}
		if o.late {
			ms = append(ms, move{renew, who, 0, 0})
		}
		ms = w.ownerMoves(ms, who, o)
	}
	return ms
}

// ownerMoves appends what session o may do next, as package stream drives the
// machine.
func (w *world) ownerMoves(ms []move, who int8, o *owner) []move {
	one := func(k kind) []move { return append(ms, move{k, who, 0, 0}) }
	c := w.cfg
	if o.old > 0 {
		ms = one(remove)
	}
	switch o.m.Phase() {
	case protocol.Fencing:
		if c.Mutation&LocateFirst != 0 && o.scan == nil {
			return one(locate)
		}
		return one(fence)
	case protocol.Locating:
		if o.scan != nil || w.ended() || c.Mutation&IgnoreOpen != 0 {
			return one(locate)
		}
		return ms
	case protocol.Beginning:
		if t := w.txnOf(o); t == nil {
			return one(begin)
		} else if t.fate != open {
			return one(answer)
		}
		return ms
	case protocol.Raising:
		return one(raise)
	case protocol.Installing:
		return one(install)
	case protocol.Loading:
		return one(fill)
	}
	// Re-applying, rebasing or running.
	switch {
	case o.script != nil && o.script.half:
		ms = one(finish)
	case o.script != nil:
		if c.Mutation&PublishFirst == 0 {
			ms = one(reply)
			if c.Retries && !o.retried {
				ms = one(retry)
			}
		}
	case !o.loaded:
		if o.m.Phase() != protocol.Running || int(o.next) < c.Inputs || int(w.sweeps) < c.Sweeps {
			ms = one(load)
		}
	case o.m.Phase() == protocol.Reapplying:
		ms = one(reapply)
		if c.Mutation&NoClock != 0 {
			ms = append(ms, move{reapply, who, 0, 1})
		}
	case o.m.Phase() == protocol.Rebasing:
		ms = one(visit)
	default:
		if c.Mutation&PublishFirst != 0 && w.pending(o) {
			break
		}
		if int(w.sweeps) < c.Sweeps {
			ms = one(apply)
		}
		for n := 1; n <= c.MaxBatch && int(o.next)+n <= c.Inputs; n++ {
			ms = append(ms, move{apply, who, int8(n), 0})
			if n == 1 { // two contents of the same length are enough
				ms = append(ms, move{apply, who, 1, 1})
			}
		}
		if c.Reloads {
			ms = one(forget)
		}
	}
	if o.m.Phase() == protocol.Reapplying {
		return ms
	}
	if o.script == nil && (!w.holds(o.m.Identity()) || w.overtaken(o)) {
		ms = one(compare)
	}
	if t := w.txnOf(o); t != nil {
		if t.fate != open {
			ms = one(answer)
		}
		return ms
	}
	if !w.pending(o) {
		for n := range o.m.Unpublished() {
			ms = append(ms, move{send, who, int8(n + 1), 0})
			if c.Mutation&(PartialCommit|Recompute) != 0 {
				ms = append(ms, move{send, who, int8(n + 1), 1}, move{send, who, int8(n + 1), 2}) // done wrongly
			}
		}
	}
	return ms
}

// errBroken is what do returns when an invariant does not hold.
type errBroken struct{ invariant, what string }

func (e *errBroken) Error() string { return e.invariant + ": " + e.what }

func broken(invariant, format string, args ...any) error {
	return &errBroken{invariant, fmt.Sprintf(format, args...)}
}

// do makes a move. An error says which invariant it broke.
func (w *world) do(m move) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = broken("panic", "%v", r)
		}
	}()
	switch m.kind {
	case decide:
		w.own(int(m.who)).fate = commit
		return w.settle()
	case expire:
		w.timeouts++
		w.own(int(m.who)).fate = abort
		return w.settle()
	case mark:
		return w.show(w.own(int(m.who)))
	case lose:
		w.losses++
		w.redis = w.kept[m.n]
		if !w.cfg.Failback {
			w.kept = w.kept[:m.n+1]
		}
		return nil
	case damage:
		w.damages++
		n := *w.redis
		n.values = with(n.values, w.keys(n.gen), 0)
		w.put(&n)
		return nil
	case shorten:
		w.shortenings++
		w.journalLost = true
		w.journal = w.journal[:m.n:m.n]
		return nil
	case retain:
		w.truncations++
		w.inputs = m.n
		return nil
	case cut:
		w.truncations++
		w.start = m.n
		return nil
	}
	o := &w.owners[m.who]
	switch m.kind {
	case crash:
		w.end(o)
		o.condemned = 0
	case acquire:
		w.acquire(o)
	case fence:
		return w.fence(o)
	case locate:
		return w.locate(o)
	case begin:
		return w.begin(o)
	case raise:
		return w.raise(o)
	case fill:
		return w.fill(o)
	case visit:
		return w.rebase(o)
	case install:
		return w.install(o)
	case load:
		w.load(o)
	case forget:
		o.loaded = false
	case apply:
		return w.apply(o, m.n, m.arg)
	case reapply:
		return w.reapply(o, m.arg)
	case reply:
		return w.replied(o)
	case retry:
		o.retried = true
		return w.run(o)
	case finish:
		return w.finish(o)
	case send:
		return w.send(o, int(m.n), m.arg)
	case answer:
		return w.answer(o)
	case compare:
		w.end(o)
	case remove:
		return w.remove(o)
	case oversleep:
		w.pauses++
		o.late = true
		w.tick()
	case renew:
		if !w.mine(o.m.Identity()) || w.over() && w.cfg.Mutation&LateRenewal == 0 {
			w.end(o)
			return nil
		}
		n := *w.redis
		n.lease = w.now + 1
		w.redis = &n
	default:
		panic("search: no such move")
	}
	return nil
}

// end ends a session.
func (w *world) end(o *owner) {
	if w.txnOf(o) != nil {
		w.txns = slices.Clone(w.txns)
		w.txnOf(o).waiting = 0
		w.tidy()
	}
	after := owner{condemned: o.condemned}
	if w.cfg.Mutation&KeepCache != 0 {
		after.value, after.loaded = o.value, o.loaded
	}
	*o = after
}

// stop is what the driver does when a human must look. Nothing but Kafka
// having lost data may lead there.
func (w *world) stop(o *owner, why error) error {
	if !w.journalLost {
		return broken("stop", "%v, although Kafka lost nothing", why)
	}
	w.end(o)
	w.stopped = true
	return nil
}
