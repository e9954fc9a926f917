// Package replay folds a log again, without touching what is live.
//
// An exact replay ([Follow]) folds exactly the batches that the journal says
// and must come to what the journal says of each: chain, digest, decisions. A
// canonical one needs the log alone: the same log gives the same records and
// decisions on every run, whatever the batch size, the number of workers and
// the machine.
//
// Sources are only read, without a consumer group. What a replay writes has
// names made from a [Name], which no live namespace can have.
package replay

import "sync/atomic"

// Progress is counted up while a replay runs, and may be read meanwhile.
type Progress struct {
	done, total atomic.Int64
}

func (p *Progress) add(n int64) {
	if p != nil {
		p.done.Add(n)
	}
}

// Records is how many records are folded, of how many there are about.
func (p *Progress) Records() (done, total int64) { return p.done.Load(), p.total.Load() }
