package check

import (
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/replay"
)

// journal reads the journal from where it was read to, to its end: it must be
// an unbroken chain from the genesis on, and every record must account for all
// that it says was read.
func (p *part) journal() error {
	start, end, err := p.source.Span(p.ctx, p.Topics.Journal, p.n)
	if err != nil {
		return err
	}
	if p.recent == nil {
		p.next = start
		p.recent, p.recentAt, p.owners = map[uint64]*protocol.Record{}, map[uint64]int64{}, map[protocol.Nonce]uint64{}
	}
	err = replay.Each(p.ctx, p.source, p.Topics.Journal, p.n, p.next, end, func(r *kgo.Record) error {
		rec, err := protocol.DecodeRecord(r.Value)
		if err != nil {
			p.violated(Violation{Invariant: "I1", Topic: p.journalName(), Offset: r.Offset, Text: err.Error()})
			return nil
		}
		p.Progress.Journal.Add(1)
		p.link(rec, r.Offset)
		if p.last = rec; rec.Seq >= min(p.fence.Seq, p.fence.Published.Seq) {
			p.recent[rec.Seq], p.recentAt[rec.Seq] = rec, r.Offset
		}
		p.lastAt = r.Offset
		return nil
	})
	p.next = max(p.next, end)
	if err == nil && p.last == nil {
		err = fmt.Errorf("%s holds no record", p.journalName())
	}
	return err
}

// link checks one journal record against the one before.
func (p *part) link(rec *protocol.Record, offset int64) {
	bad := func(format string, args ...any) { p.broken(rec, offset, format, args...) }
	before := p.last
	if rec.Owner.IsZero() {
		bad("it names no owner")
	} else if before == nil || rec.Owner != before.Owner {
		switch epoch, was := p.owners[rec.Owner]; {
		case was && epoch != rec.Epoch:
			bad("its owner has epoch %d, before it had %d", rec.Epoch, epoch)
		case was:
			// Another owner decided the batch before exactly as this one had, by
			// the log's or the events' clock, on a branch that Redis then left.
			p.note("partition %d: batch %d was decided by an owner before that of batch %d: Redis had gone back and came again to the branch where it was applied", p.n, rec.Seq, before.Seq)
		}
		p.owners[rec.Owner] = rec.Epoch
		if before != nil && rec.Epoch <= before.Epoch {
			p.note("partition %d: at batch %d the epoch went from %d to %d: Redis had lost its fence", p.n, rec.Seq, before.Epoch, rec.Epoch)
		}
	} else if rec.Epoch != before.Epoch {
		bad("the same owner has epoch %d, before it had %d", rec.Epoch, before.Epoch)
	}
	p.counts(rec, offset)
	if rec.Rebase != nil {
		if p.rebased == nil || before != nil && before.Rebase == nil {
			p.note("partition %d: rebased at batch %d (%s): what log and journal could not repeat was corrected; I6 begins after it", p.n, rec.Seq, rec.Rebase.Cause)
		}
		p.rebased, p.genesis = rec, &rec.Rebase.Genesis
	}
	if before == nil {
		if rec.Kind != protocol.KindGenesis && p.fence.Rebased.Seq == 0 {
			bad("the journal's first record is no genesis")
		} else if rec.Kind != protocol.KindGenesis {
			p.note("partition %d: the journal begins with batch %d at offset %d; what came before it is gone", p.n, rec.Seq, offset)
		} else if !rec.Continues(protocol.Hash{}) {
			bad("the genesis is not what it was: its chain is not that of its content")
		}
		return
	}
	a, b := &before.State, &rec.State
	switch {
	case rec.Kind == protocol.KindGenesis:
		bad("a second genesis")
	case rec.Seq != before.Seq+1:
		bad("it follows batch %d", before.Seq)
	case !rec.Continues(before.Chain):
		bad("its chain does not continue that of batch %d: one of the two is not what it was", before.Seq)
	case b.Clock < a.Clock:
		bad("its clock went back from %d to %d", a.Clock, b.Clock)
	case b.Sweep.Less(a.Sweep):
		bad("its sweep limit went back from %v to %v", a.Sweep, b.Sweep)
	case b.Read < a.Read:
		bad("%d records are read, before it were %d", b.Read, a.Read)
	case len(b.Next) != len(a.Next):
		bad("it has positions in %d topics, batch %d in %d", len(b.Next), before.Seq, len(a.Next))
	default:
		var offsets int64
		for i := range b.Next {
			if b.Next[i].Next < a.Next[i].Next {
				bad("%s goes back from offset %d to %d", p.topics[i], a.Next[i].Next, b.Next[i].Next)
				return
			}
			offsets += b.Next[i].Next - a.Next[i].Next
		}
		if n := b.Read - a.Read; n > offsets {
			p.violated(Violation{Invariant: "I4", Batch: rec.Seq, Topic: p.journalName(), Offset: offset, Text: fmt.Sprintf("it read %d records from %d offsets", n, offsets)})
		}
	}
}

// counts holds a journal record's counters against its records read.
func (p *part) counts(rec *protocol.Record, offset int64) {
	if n := accounted(rec.State.Counters); n != rec.State.Read {
		p.violated(Violation{Invariant: "I4", Batch: rec.Seq, Topic: p.journalName(), Offset: offset, Text: fmt.Sprintf("%d records read, %d accounted for", rec.State.Read, n)})
	}
}

// accounted sums what became of records; warnings are counted beside that.
func accounted(counters []int64) (n int64) {
	for i, v := range counters {
		if event.Code(i).Outcome() != event.Warned {
			n += v
		}
	}
	return n
}

// compare holds the fence against the journal, the outbox that leads from one
// to the other, and the customers against both.
func (p *part) compare() error {
	f := p.fence
	bad := func(seq uint64, format string, args ...any) {
		p.violated(Violation{Invariant: "I1", Batch: seq, Offset: -1, Text: fmt.Sprintf(format, args...)})
	}
	if f.Incarnation != p.genesis.Incarnation {
		bad(0, "the fence is of incarnation %s, the journal of %s", f.Incarnation, p.genesis.Incarnation)
	}
	// What the fence calls published is where it says.
	if rec := p.recent[f.Published.Seq]; rec == nil {
		bad(f.Published.Seq, "the fence calls this batch published, but it is not in %s", p.journalName())
	} else if rec.Chain != f.Published.Chain || p.recentAt[rec.Seq] != f.Published.Offset {
		bad(rec.Seq, "the fence calls this batch published at offset %d with chain %.12s; the journal has it at %d with %.12s", f.Published.Offset, f.Published.Chain, p.recentAt[rec.Seq], rec.Chain)
	}
	// From there to where the fence stands, the outbox has every batch.
	at := f.Published.Point
	applied := p.recent[f.Seq]
	for _, e := range p.outbox {
		rec, err := protocol.DecodeRecord(e.Journal)
		switch {
		case e.Seq <= f.Published.Seq:
			bad(e.Seq, "the outbox still holds this batch, although the fence calls %d published", f.Published.Seq)
			continue
		case e.Seq != at.Seq+1:
			bad(at.Seq+1, "the outbox lacks this batch: published is %d, the next entry is %d", at.Seq, e.Seq)
		case e.Parent != at.Chain:
			bad(e.Seq, "its outbox entry continues chain %.12s, batch %d has %.12s", e.Parent, at.Seq, at.Chain)
		}
		at = e.Point()
		switch {
		case err != nil:
			bad(e.Seq, "its outbox entry: %v", err)
			continue
		case rec.Seq != e.Seq || rec.Chain != e.Chain || !rec.Continues(e.Parent):
			bad(e.Seq, "the journal record in its outbox entry does not fit the entry")
		}
		if j := p.recent[e.Seq]; j != nil && j.Chain != e.Chain {
			bad(e.Seq, "its outbox entry has chain %.12s, %s@%d has %.12s", e.Chain, p.journalName(), p.recentAt[e.Seq], j.Chain)
		}
		if e.Seq == f.Seq && applied == nil {
			applied = rec
		}
	}
	if at != f.Point {
		bad(f.Seq, "the fence stands here with chain %.12s, but published and outbox lead to %d with %.12s", f.Chain, at.Seq, at.Chain)
	}
	if applied == nil {
		bad(f.Seq, "the fence stands here, but neither journal nor outbox has this batch")
	} else {
		p.sameState(applied)
	}
	if f.State.Digest != p.digest.Bytes() {
		p.unexplained = true // named by the replay that this asks for
	}
	for i, t := range p.topics {
		_, end, err := p.source.Span(p.ctx, t, p.n)
		if err != nil {
			return err
		}
		if i < len(f.State.Next) && f.State.Next[i].Next > end {
			bad(f.Seq, "%s/%d is applied up to offset %d, but ends at %d: Kafka lost records", t, p.n, f.State.Next[i].Next, end)
		}
	}
	// Accounts.
	four := func(format string, args ...any) {
		p.violated(Violation{Invariant: "I4", Batch: f.Seq, Offset: -1, Text: fmt.Sprintf(format, args...)})
	}
	if n := accounted(f.State.Counters); n != f.State.Read {
		four("the fence says %d records read, and accounts for %d", f.State.Read, n)
	}
	if n := counter(f.State.Counters, event.Waiting); n != p.waiting {
		four("the fence says %d returns wait, the customers' records have %d", n, p.waiting)
	}
	return nil
}

// sameState holds the fence's state against that of its journal record.
func (p *part) sameState(rec *protocol.Record) {
	f, a, b := p.fence, &p.fence.State, &rec.State
	differs := func(invariant, what string, got, want any) {
		if got != want {
			p.violated(Violation{Invariant: invariant, Batch: rec.Seq, Offset: -1, Text: fmt.Sprintf("the fence says %s %v, the journal record %v", what, got, want)})
		}
	}
	differs("I1", "chain", f.Chain.String(), rec.Chain.String())
	differs("I1", "clock", a.Clock, b.Clock)
	differs("I1", "watermark", a.Watermark, b.Watermark)
	differs("I1", "rules", a.Rules.String(), b.Rules.String())
	differs("I1", "fold version", a.Fold, b.Fold)
	differs("I1", "sweep limit", a.Sweep, b.Sweep)
	differs("I1", "digest", fmt.Sprintf("%x", a.Digest), fmt.Sprintf("%x", b.Digest))
	differs("I4", "records read", a.Read, b.Read)
	if !slices.EqualFunc(a.Next, b.Next, func(x, y protocol.Position) bool { return x.Next == y.Next }) {
		differs("I1", "positions", fmt.Sprint(a.Next), fmt.Sprint(b.Next))
	}
	for i := range max(len(a.Counters), len(b.Counters)) {
		c := event.Code(i)
		differs("I4", c.String(), counter(a.Counters, c), counter(b.Counters, c))
	}
}

func counter(counters []int64, c event.Code) int64 {
	if int(c) < len(counters) {
		return counters[c]
	}
	return 0
}

func (p *part) summary() Partition {
	s := Partition{
		Partition: p.n, Applied: p.fence.Seq, Published: p.last.Seq, Customers: int64(len(p.customers)),
		Digest: fmt.Sprintf("%x", p.fence.State.Digest), Read: p.fence.State.Read, Moving: p.moving, Replayed: p.replayed,
	}
	for i, t := range p.topics {
		if _, end, err := p.source.Span(p.ctx, t, p.n); err == nil && i < len(p.fence.State.Next) {
			s.Behind += max(0, end-p.fence.State.Next[i].Next)
		}
	}
	return s
}
