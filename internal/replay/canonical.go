package replay

import (
	"context"
	"fmt"

	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/protocol"
)

// CanonicalRules are the rules of a canonical replay of a namespace with these
// rules: without a journal nobody knows what a wall clock said, so the log's
// timestamps take its place.
func CanonicalRules(r *fold.Rules) *fold.Rules {
	c := *r
	if c.Clock == fold.ClockWall {
		c.Clock = fold.ClockLog
	}
	return &c
}

// canonical folds one partition of the log alone, up to the given offsets.
//
// Every record is a batch of its own, with a sweep before it, so that nothing
// depends on where batches end. chunk is only how many records are read ahead,
// and how many are written to Redis at once; after is called when so many are
// folded.
func (p *pass) canonical(ctx context.Context, upTo []int64, chunk int, after func() error) error {
	clock := p.engine.Rules().Clock
	for {
		rs, of, err := p.take(ctx, upTo, chunk)
		if err != nil {
			return err
		}
		if len(rs) == 0 {
			return nil
		}
		records := p.decode(rs, of)
		if err := p.fetch(ctx, records); err != nil {
			return err
		}
		for i, r := range records {
			now, limit := p.state.Clock, r.Message.Timestamp
			if clock == fold.ClockEvents {
				// The newest event time applied; this one may be older.
				now = max(now, p.state.Watermark)
				limit = now
				if r.Refusal == nil {
					limit = min(limit, r.Event.Time)
				}
			} else {
				now = max(now, limit)
			}
			bound := p.state.Sweep
			if b := (protocol.Bound{Due: limit + 1}); bound.Less(b) {
				bound = b
			}
			if err := p.sweep(now, bound); err != nil {
				return err
			}
			next := p.state.Next
			if i == 0 {
				next = append([]protocol.Position(nil), next...) // the state before may be kept
			}
			next[of[i]] = protocol.Position{Next: rs[i].Offset + 1, LeaderEpoch: rs[i].LeaderEpoch}
			out, err := p.fold(&fold.Input{Clock: now, Bound: bound, Records: []*fold.Record{r}, Next: next})
			if err == nil {
				err = p.settle(out)
			}
			if err != nil {
				return fmt.Errorf("partition %d: %s/%d@%d: %w", p.partition, p.inputs[of[i]].topic, p.partition, rs[i].Offset, err)
			}
		}
		p.progress.add(int64(len(rs)))
		if err := after(); err != nil {
			return err
		}
	}
}

// sweep evaluates everybody due below the bound, until nobody is whose due
// time still moves.
func (p *pass) sweep(clock int64, bound protocol.Bound) error {
	var last []protocol.Bound
	for {
		due := p.held.dueBelow(bound, fold.MaxSweep)
		if len(due) == 0 || same(due, last) {
			return nil
		}
		last = due
		in := &fold.Input{Clock: clock, Bound: bound}
		for _, d := range due {
			in.Sweep = append(in.Sweep, d.Customer)
		}
		out, err := p.fold(in)
		if err == nil {
			err = p.settle(out)
		}
		if err != nil {
			return fmt.Errorf("partition %d: sweeping: %w", p.partition, err)
		}
	}
}

func same(a, b []protocol.Bound) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// begin sets a canonical pass at the beginning of its range.
func (p *pass) begin(rules *fold.Rules, from []int64) {
	p.state = protocol.State{Rules: rules.Hash(), Fold: fold.Version, Counters: make([]int64, rules.Codes())}
	for _, o := range from {
		p.state.Next = append(p.state.Next, protocol.Position{Next: o, LeaderEpoch: -1})
	}
	copy(p.point.Chain[:], p.where.Incarnation[:]) // a genesis of its own
}
