package search

import (
	"fmt"
	"slices"
	"strings"
)

// Result is what a search or a simulation found.
type Result struct {
	States int  // different worlds; of a simulation: seeds
	Steps  int  // moves made
	Depth  int  // moves on the longest of the shortest ways to a world
	Full   bool // everything within the bounds was searched

	Broken error    // the invariant that does not hold; nil when all do
	Trace  []string // the moves that lead there
}

// Search walks every schedule within the bounds, shortest first, and checks
// the invariants in every world and that each of them ends well. It gives up
// after max worlds; 0 for none.
func Search(cfg Config, max int) *Result {
	b := newBook(cfg.Mutation)
	r := &Result{Full: true}
	type way struct {
		from int32
		move move
	}
	ways := []way{{-1, move{}}}
	path := func(i int32) (ms []move) {
		for ; i > 0; i = ways[i].from {
			ms = append(ms, ways[i].move)
		}
		slices.Reverse(ms)
		return ms
	}
	found := func(err error, ms []move) *Result {
		r.Broken, r.States = err, len(ways)
		r.Trace = trace(cfg, ms)
		return r
	}
	seen, known := map[hash]struct{}{}, map[hash]struct{}{}
	type node struct {
		i int32
		w *world
	}
	level := []node{{0, newWorld(&cfg, b)}}
	var form []byte
	seen[hashOf(level[0].w.key(nil))] = struct{}{}
	var ms, solo []move
	var child, alone world
	for ; len(level) > 0; r.Depth++ {
		var deeper []node
		for k, n := range level {
			level[k].w = nil
			ms = n.w.moves(ms[:0])
			for _, m := range ms {
				r.Steps++
				if err := n.w.fork(&child).do(m); err != nil {
					return found(err, append(path(n.i), m))
				}
				form = child.key(form[:0])
				h := hashOf(form)
				if _, ok := seen[h]; ok {
					continue
				}
				seen[h] = struct{}{}
				i := int32(len(ways))
				ways = append(ways, way{n.i, m})
				deeper = append(deeper, node{i, child.fork(new(world))})
				for o := range cfg.Owners {
					solo = solo[:0]
					if err := child.fork(&alone).solo(int8(o), known, &solo); err != nil {
						return found(err, append(path(i), solo...))
					}
				}
			}
			if max > 0 && len(ways) >= max {
				r.Full = false
				deeper = nil
				break
			}
		}
		level = deeper
	}
	r.States = len(ways)
	return r
}

// trace is what happens in the moves ms, a numbered line for each.
func trace(cfg Config, ms []move) (lines []string) {
	w := newWorld(&cfg, newBook(cfg.Mutation))
	for i, m := range ms {
		before := w.fork(new(world))
		if m.kind == apply {
			before.now = w.now
		}
		err := w.do(m)
		line := fmt.Sprintf("%3d  %s", i+1, describe(before, w, m))
		if err != nil {
			line += "  ✗ " + err.Error()
		}
		lines = append(lines, line)
		if err != nil {
			break
		}
	}
	return lines
}

// describe says what move m did, which led from a to b.
func describe(a, b *world, m move) string {
	name := func(p point) string { return a.book.name(p) }
	who := string(rune('A' + m.who))
	o, after := &a.owners[m.who%maxOwners], &b.owners[m.who%maxOwners]
	end := ""
	if o.up && !after.up {
		end = "; refused, the session ends"
	} else if after.up && after.m.Phase() != o.m.Phase() {
		end = "; " + after.m.Phase().String()
	}
	var s string
	switch m.kind {
	case crash:
		return who + "'s session ends: killed, an answer lost, or in doubt"
	case acquire:
		f := b.redis
		return fmt.Sprintf("%s acquires: epoch %d, session %d, generation %d, R is %s, outbox %s", who, f.epoch, f.owner, f.gen, name(f.at), names(b, f.outbox))
	case fence:
		s = fmt.Sprintf("InitProducerID gives epoch %d", b.producer)
	case locate:
		s = fmt.Sprintf("reads the journal to its end: K is %s", name(a.last()))
	case begin:
		s = "sends a genesis to the journal"
	case raise:
		s = fmt.Sprintf("raises the key generation to %d", b.redis.gen)
	case fill:
		s = "gathers for a rebase"
	case visit:
		s = "runs the script of a rebase's batch"
	case install:
		s = "writes the genesis into the fence"
	case load:
		s = "reads the customers"
	case apply:
		if m.n == 0 {
			s = "sweeps, without an input, and runs the script"
			break
		}
		s = fmt.Sprintf("folds inputs [%d,%d) with clock %d and runs the script", o.next, o.next+m.n, m.arg)
	case reapply:
		s = "folds the next journal record again and runs the script"
	case reply:
		s = "gets the reply: at " + name(o.script.to)
	case retry:
		s = "gets no reply and runs the script once more"
	case finish:
		s = "runs the second half of the script"
	case send:
		s = fmt.Sprintf("sends %d batches to Kafka and asks to commit", m.n)
	case answer:
		s = "gets the coordinator's answer"
	case compare:
		s = "looks at fence and journal"
	case remove:
		s = fmt.Sprintf("deletes the keys of generation %d", o.old)
	case forget:
		s = "forgets its cache"
	case oversleep:
		s = "sleeps for longer than its lease"
	case renew:
		s = "wakes and renews its lease"
	case decide:
		return "Kafka commits " + names(a, a.txns[m.who].points)
	case expire:
		return "Kafka aborts " + names(a, a.txns[m.who].points)
	case mark:
		return "Kafka's markers are written; the journal ends with " + name(b.last())
	case lose:
		return fmt.Sprintf("REDIS GOES BACK: epoch %d, session %d, generation %d, R is %s", b.redis.epoch, b.redis.owner, b.redis.gen, name(b.redis.at))
	case damage:
		return "THE CUSTOMERS' KEYS are deleted"
	case retain:
		return fmt.Sprintf("RETENTION deletes the inputs before %d", m.n)
	case cut:
		return fmt.Sprintf("THE JOURNAL's records before %s are deleted", name(b.journal[m.n]))
	case shorten:
		return "KAFKA LOSES the journal after " + name(b.last())
	}
	if b.redis != a.redis {
		end += fmt.Sprintf(" [R is %s]", name(b.redis.at))
	}
	return who + " " + s + end
}

func names(w *world, ps []point) string {
	if len(ps) == 0 {
		return "empty"
	}
	var s []string
	for _, p := range ps {
		s = append(s, w.book.name(p))
	}
	return strings.Join(s, ", ")
}
