package search

import (
	"hash/maphash"
)

// solo checks liveness: from w, with everybody but owner i gone and no further
// fault, a schedule leads to the end of the inputs with everything published.
// Sessions that ended begin anew, and every batch takes longer than a lease.
// Where Kafka lost data, a loud stop is an end too.
//
// It changes w. known are worlds that end well; path is given the moves made.
func (w *world) solo(i int8, known map[hash]struct{}, path *[]move) error {
	for j := range w.owners {
		if int8(j) != i && w.owners[j].up {
			*path = append(*path, move{crash, int8(j), 0, 0})
			w.end(&w.owners[j])
		}
	}
	w.kept, w.losses, w.pauses, w.timeouts, w.shortenings, w.truncations, w.sweeps = nil, int8(w.cfg.Losses), 0, 0, 0, 0, int8(w.cfg.Sweeps)
	var visited []hash
	var form []byte
	for range 200 {
		w.takes = 0
		form = w.key(form[:0])
		h := hashOf(form)
		_, ends := known[h]
		if !ends {
			visited = append(visited, h)
			m, ok := w.soloMove(i)
			if !ok {
				if err := w.checkDone(); err != nil {
					return err
				}
				ends = true
			} else {
				*path = append(*path, m)
				if m.kind == apply {
					w.tick()
				}
				if err := w.do(m); err != nil {
					return err
				}
				ends = w.stopped
			}
		}
		if ends {
			for _, h := range visited {
				known[h] = struct{}{}
			}
			return nil
		}
	}
	return broken("liveness", "200 moves without a fault lead to no end")
}

// soloMove is the next move of a schedule without faults in which only owner i
// acts; ok is false when nothing is left to do.
func (w *world) soloMove(i int8) (m move, ok bool) {
	for j := range w.txns {
		switch t := &w.txns[j]; {
		case t.fate == open && t.epoch == w.producer:
			return move{decide, int8(j), 0, 0}, true
		case t.fate == open:
			return move{expire, int8(j), 0, 0}, true
		case !t.visible:
			return move{mark, int8(j), 0, 0}, true
		}
	}
	o := &w.owners[i]
	if !o.up {
		return move{acquire, i, 0, 0}, true
	}
	for _, next := range w.ownerMoves(nil, i, o) {
		switch {
		case next.kind.fault(), next.kind == remove, next.arg != 0:
		case next.kind == compare && ok:
		default:
			m, ok = next, true // the last, which takes the most
		}
	}
	return m, ok
}

// hash tells worlds apart: 128 bits.
type hash [2]uint64

var hashSeeds = [2]maphash.Seed{maphash.MakeSeed(), maphash.MakeSeed()}

func hashOf(b []byte) hash {
	return hash{maphash.Bytes(hashSeeds[0], b), maphash.Bytes(hashSeeds[1], b)}
}
