package search

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"github.com/tierstream/tierstream/internal/protocol"
)

// Simulate takes one random way through the world from a seed, within bounds
// that are drawn from those of cfg, and then lets every session end its work
// without faults. The same seed takes the same way on every machine.
func Simulate(cfg Config, seed uint64, seen *Coverage) *Result {
	w := newWalk(cfg, newBook(cfg.Mutation), seed)
	w.take(seen)
	return &Result{States: 1, Steps: len(w.made), Depth: len(w.made), Full: true, Broken: w.broken, Trace: trace(w.cfg, w.made)}
}

// Simulations takes the seeds from first on, n of them, and ends with the
// first that breaks an invariant. States counts the seeds.
func Simulations(cfg Config, first uint64, n int, seen *Coverage) *Result {
	b := newBook(cfg.Mutation)
	r := &Result{Full: true}
	for seed := first; seed < first+uint64(n); seed++ {
		if len(b.facts) > 1<<15 { // a book has numbers for twice as many points
			b = newBook(cfg.Mutation)
		}
		w := newWalk(cfg, b, seed)
		w.take(seen)
		r.States++
		r.Steps += len(w.made)
		r.Depth = max(r.Depth, len(w.made))
		if w.broken != nil {
			r.Broken, r.Trace, r.Full = w.broken, trace(w.cfg, w.made), false
			break
		}
	}
	return r
}

// maxMoves is how long a way may be; most end for want of acquisitions.
const maxMoves = 500

// walk is one random way.
type walk struct {
	cfg       Config
	world     *world
	rng       *rand.Rand
	faults    int // of 100 moves
	takeovers int // of 100 moves, while another session is alive
	made      []move
	broken    error
}

func newWalk(cfg Config, b *book, seed uint64) *walk {
	w := &walk{cfg: cfg, rng: rand.New(rand.NewPCG(seed, 0))}
	// Some seeds see a fault with every other move, some hardly any; in some,
	// processes wait for a free partition, in others they fight for it.
	w.faults = []int{2, 5, 10, 20, 40}[w.rng.IntN(5)]
	w.takeovers = []int{0, 1, 5, 30}[w.rng.IntN(4)]
	c := &w.cfg
	c.Inputs = 1 + w.rng.IntN(c.Inputs)
	for _, bound := range []*int{&c.Losses, &c.Damages, &c.Pauses, &c.Timeouts, &c.Truncations, &c.Sweeps} {
		*bound = w.rng.IntN(*bound + 1)
	}
	if w.rng.IntN(4) > 0 { // what Kafka has lost cannot be checked any more
		c.Shortenings = 0
	}
	w.world = newWorld(c, b)
	return w
}

// take makes moves until there are none, or many enough, and then asks each
// session to come to an end.
func (w *walk) take(seen *Coverage) {
	var ms []move
	for len(w.made) < maxMoves && w.broken == nil {
		if ms = w.world.moves(ms[:0]); len(ms) == 0 {
			break
		}
		m := w.choose(ms)
		if seen != nil {
			seen.count(w.world, m)
		}
		w.made = append(w.made, m)
		w.broken = w.world.do(m)
	}
	for i := range w.cfg.Owners {
		if w.broken != nil {
			return
		}
		var alone world
		path := slices.Clip(w.made)
		if w.broken = w.world.fork(&alone).solo(int8(i), map[hash]struct{}{}, &path); w.broken != nil {
			w.made = path
		}
	}
}

// choose is one of ms: a fault, a takeover, or work.
func (w *walk) choose(ms []move) move {
	alive := 0
	for i := range w.world.owners[:w.cfg.Owners] {
		if w.world.owners[i].up {
			alive++
		}
	}
	want := func(m move) bool { return !m.kind.fault() && (m.kind != acquire || alive == 0) }
	switch dice := w.rng.IntN(100); {
	case dice < w.faults:
		want = func(m move) bool { return m.kind.fault() }
	case dice < w.faults+w.takeovers:
		want = func(m move) bool { return m.kind == acquire }
	}
	n := 0
	for _, m := range ms {
		if want(m) {
			n++
		}
	}
	if n == 0 {
		return ms[w.rng.IntN(len(ms))]
	}
	n = w.rng.IntN(n)
	for _, m := range ms {
		if want(m) {
			if n == 0 {
				return m
			}
			n--
		}
	}
	panic("search: unreachable")
}

// Coverage counts, by fault and by the phase of the session that it met, how
// often it happened. A session that is taken over is met by an acquire.
type Coverage [numKinds][protocol.Stopped]int

func (c *Coverage) count(w *world, m move) {
	if !m.kind.fault() && m.kind != acquire {
		return
	}
	for i := range w.owners[:w.cfg.Owners] {
		o := &w.owners[i]
		switch m.kind {
		case crash, retry, oversleep, forget:
			if int(m.who) != i {
				continue
			}
		case expire:
			if w.txns[m.who].waiting != o.nonce {
				continue
			}
		}
		if o.up {
			c[m.kind][o.m.Phase()]++
		}
	}
}

// possible says whether fault k can meet phase p.
func possible(k kind, p protocol.Phase) bool {
	switch k {
	case retry: // of the apply script
		return p == protocol.Reapplying || p == protocol.Rebasing || p == protocol.Running
	case expire: // of a transaction under way
		return p == protocol.Beginning || p == protocol.Rebasing || p == protocol.Running
	case forget: // of a cache in use
		return p == protocol.Running
	case retain, cut, damage: // of something that is there
		return p != protocol.Beginning && (k != damage || p != protocol.Installing)
	}
	return k.fault() || k == acquire
}

// table is c in Markdown.
func (c *Coverage) table() string {
	var b strings.Builder
	line, rule := "\n| Fault |", "\n| --- |"
	for p := protocol.Fencing; p < protocol.Stopped; p++ {
		line += " " + p.String() + " |"
		rule += " ---: |"
	}
	b.WriteString(line + rule)
	for k := range numKinds {
		if !k.fault() && k != acquire {
			continue
		}
		fmt.Fprintf(&b, "\n| %s |", k)
		for p := protocol.Fencing; p < protocol.Stopped; p++ {
			if possible(k, p) {
				fmt.Fprintf(&b, " %d |", c[k][p])
			} else {
				b.WriteString(" – |")
			}
		}
	}
	return b.String()
}

// missing are the pairs that happened fewer than n times.
func (c *Coverage) missing(n int) (pairs []string) {
	for k := range numKinds {
		for p := protocol.Fencing; p < protocol.Stopped; p++ {
			if possible(k, p) && c[k][p] < n {
				pairs = append(pairs, fmt.Sprintf("%s while %s", k, p))
			}
		}
	}
	return pairs
}
