package replay

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/stream"
)

// Mismatch says that log and journal do not lead to what the journal says.
type Mismatch struct {
	Partition int32
	Seq       uint64 // of the journal record
	Topic     string // the journal's
	Offset    int64  // of that record
	Text      string
}

func (e *Mismatch) Error() string {
	return fmt.Sprintf("partition %d: journal record %d (%s/%d@%d): %s", e.Partition, e.Seq, e.Topic, e.Partition, e.Offset, e.Text)
}

// Follower is an exact replay of one partition: it folds exactly the batches
// that the journal says, and compares each with what the journal says of it.
// It can go on while the partition does. It is not safe for concurrent use.
type Follower struct {
	pass
	source  Source
	topics  stream.Topics
	rules   *Rulebook
	inForce protocol.Hash // rules of engine

	genesis *protocol.Genesis
	next    int64                    // journal offset after the last record folded
	ends    []int64                  // of the inputs, as last asked
	ahead   map[uint64]protocol.Hash // chains of batches folded before the journal had them

	// Until, if set, ends the replay before the batch for which it says so.
	Until func(rec *protocol.Record) bool
	// Record, if set, is told of each journal record that was folded, with what
	// folding it gave (nil for a genesis).
	Record func(rec *protocol.Record, at protocol.Published, out *fold.Output) error
}

// Follow begins an exact replay of one partition of the namespace with these
// topics. Close it.
func Follow(ctx context.Context, s Source, namespace string, t stream.Topics, partition int32) (*Follower, error) {
	rules, err := ReadRules(ctx, s, t.Rules)
	if err != nil {
		return nil, err
	}
	return newFollower(s, namespace, t, partition, rules), nil
}

func newFollower(s Source, namespace string, t stream.Topics, partition int32, rules *Rulebook) *Follower {
	f := &Follower{source: s, topics: t, rules: rules, ahead: map[uint64]protocol.Hash{}}
	f.pass = pass{partition: partition, held: newHeld(), where: fold.Where{Namespace: namespace, Partition: partition, Mode: "replay"}}
	return f
}

var errUntil = errors.New("far enough")

// Close ends the reading.
func (f *Follower) Close() { f.close() }

// Point is the point of history that was reached.
func (f *Follower) Point() protocol.Point { return f.point }

// State is what the partition keeps beside its customers, at that point.
func (f *Follower) State() *protocol.State { return &f.state }

// Decisions is the digest of all decisions so far.
func (f *Follower) Decisions() protocol.Hash { return f.decisions }

// Value is a customer's stored record; nil when there is none.
func (f *Follower) Value(customer string) []byte { return f.held.values[customer].value }

// Customers is how many there are.
func (f *Follower) Customers() int { return len(f.held.values) }

// Values calls fn for every customer, in no order.
func (f *Follower) Values(fn func(customer string, value []byte)) {
	for id, s := range f.held.values {
		fn(id, s.value)
	}
}

// First is the first record of the journal's partition 0.
func First(ctx context.Context, s Source, journal string) (first *protocol.Record, err error) {
	n, err := s.Partitions(ctx, journal)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, fmt.Errorf("there is no topic %s: the namespace was never started, or this log has no journal", journal)
	}
	start, end, err := s.Span(ctx, journal, 0)
	if err != nil {
		return nil, err
	}
	enough := errors.New("enough")
	err = Each(ctx, s, journal, 0, start, end, func(r *kgo.Record) (err error) {
		if first, err = protocol.DecodeRecord(r.Value); err == nil && first.Origin() == nil {
			err = fmt.Errorf("it is batch %d and no genesis", first.Seq)
		}
		if err != nil {
			return fmt.Errorf("%s/0@%d: %w", journal, r.Offset, err)
		}
		return enough
	})
	if errors.Is(err, enough) {
		return first, nil
	}
	if err == nil {
		err = fmt.Errorf("%s/0 is empty: nothing was ever applied", journal)
	}
	return nil, err
}

// To folds the journal's records up to, and without, the one at offset end.
func (f *Follower) To(ctx context.Context, end int64) error {
	start, _, err := f.source.Span(ctx, f.topics.Journal, f.partition)
	if err != nil {
		return err
	}
	if f.genesis == nil && start > 0 {
		return fmt.Errorf("%s/%d begins at offset %d: its first records were deleted, so nothing can be repeated from it", f.topics.Journal, f.partition, start)
	}
	err = Each(ctx, f.source, f.topics.Journal, f.partition, f.next, end, func(r *kgo.Record) error {
		rec, err := protocol.DecodeRecord(r.Value)
		if err != nil {
			return fmt.Errorf("%s/%d@%d: %w", f.topics.Journal, f.partition, r.Offset, err)
		}
		at := protocol.Published{Point: protocol.Point{Seq: rec.Seq, Chain: rec.Chain}, Offset: r.Offset, LeaderEpoch: r.LeaderEpoch}
		if err := f.record(ctx, rec, at); err != nil {
			return err
		}
		f.next = r.Offset + 1
		return nil
	})
	if errors.Is(err, errUntil) {
		return nil
	}
	f.next = max(f.next, end)
	return err
}

// Ahead folds a batch that is applied but not published yet, from its outbox
// entry. The journal must have the same later.
func (f *Follower) Ahead(ctx context.Context, e *protocol.Entry) error {
	rec, err := protocol.DecodeRecord(e.Journal)
	if err != nil {
		return fmt.Errorf("outbox entry %d: %w", e.Seq, err)
	}
	if err := f.record(ctx, rec, protocol.Published{Point: e.Point(), Offset: -1}); err != nil {
		return err
	}
	f.ahead[e.Seq] = e.Chain
	return nil
}

func (f *Follower) mismatch(rec *protocol.Record, at protocol.Published, format string, args ...any) error {
	return &Mismatch{Partition: f.partition, Seq: rec.Seq, Topic: f.topics.Journal, Offset: at.Offset, Text: fmt.Sprintf(format, args...)}
}

// record folds what one journal record says.
func (f *Follower) record(ctx context.Context, rec *protocol.Record, at protocol.Published) error {
	bad := func(format string, args ...any) error { return f.mismatch(rec, at, format, args...) }
	if f.genesis == nil {
		if rec.Kind != protocol.KindGenesis {
			return bad("the first record of the journal is no genesis: its beginning is gone, so nothing can be repeated from it")
		}
		if !rec.Continues(protocol.Hash{}) {
			return bad("the genesis is not what it was: its chain is not that of its content")
		}
		f.genesis = rec.Genesis
		if !f.resumed {
			f.state, f.point = rec.State, at.Point
		}
		f.where.Incarnation, f.where.LiveSince, f.where.Partitions = rec.Genesis.Incarnation, rec.Genesis.LiveSince, rec.Genesis.Partitions
		f.ends = make([]int64, len(rec.Genesis.Topics))
		to := make([]int64, len(rec.Genesis.Topics))
		for i := range to {
			to[i] = Forever
		}
		if err := f.open(f.source, rec.Genesis.Topics, to); err != nil {
			return err
		}
		if f.Record != nil {
			return f.Record(rec, at, nil)
		}
		return nil
	}
	if f.resumed && rec.Seq <= f.point.Seq {
		if rec.Seq == f.point.Seq && rec.Chain != f.point.Chain {
			return bad("the replay in Redis stands at this batch with chain %.12s: the journal is not what it was", f.point.Chain)
		}
		return nil
	}
	if f.Until != nil && f.Until(rec) {
		return errUntil
	}
	if chain, ok := f.ahead[rec.Seq]; ok {
		if delete(f.ahead, rec.Seq); chain != rec.Chain {
			return bad("the outbox had another batch in this place, with chain %.12s", chain)
		}
		return nil
	}
	switch {
	case rec.Rebase != nil:
		return bad("it is a rebase (%s): what it wrote is not in the log, so nothing from here on can be repeated; every batch before it came out as the journal says", rec.Rebase.Cause)
	case rec.Kind != protocol.KindBatch:
		return bad("a record of kind %d, which this binary cannot repeat", rec.Kind)
	case rec.Seq != f.point.Seq+1:
		return bad("it follows %d: records are missing, or Kafka lost them", f.point.Seq)
	case !rec.Continues(f.point.Chain):
		return bad("its chain does not continue that of record %d: this record, or one before, is not what it was", f.point.Seq)
	case rec.State.Fold != fold.Version:
		return bad("it was folded by fold version %d, this binary has %d", rec.State.Fold, fold.Version)
	case len(rec.State.Next) != len(f.inputs):
		return bad("it has positions in %d topics, the genesis in %d", len(rec.State.Next), len(f.inputs))
	}
	if f.engine == nil || rec.State.Rules != f.inForce {
		rules, err := f.rules.Lookup(rec.State.Rules)
		if err != nil {
			return bad("it names %v", err)
		}
		if f.engine, err = fold.NewEngine(rules, f.where, true); err != nil {
			return bad("rules %.12s: %v", rec.State.Rules, err)
		}
		f.inForce = rec.State.Rules
	}
	rs, of, err := f.exactly(ctx, rec, at)
	if err != nil {
		return err
	}
	in := &fold.Input{Clock: rec.State.Clock, Bound: rec.State.Sweep, Records: f.decode(rs, of), Next: rec.State.Next}
	if err := f.fetch(ctx, in.Records); err != nil {
		return err
	}
	for _, d := range f.held.dueBelow(rec.State.Sweep, fold.MaxSweep) {
		in.Sweep = append(in.Sweep, d.Customer)
	}
	before := f.state.Next
	out, err := f.fold(in)
	if err != nil {
		return bad("folding it: %v", err)
	}
	if out.Journal.Chain != rec.Chain {
		return bad("%s; it read %s", differences(rec, out), ranges(f.genesis.Topics, f.partition, before, rec.State.Next))
	}
	if err := f.settle(out); err != nil {
		return err
	}
	f.progress.add(int64(len(rs)))
	if f.Record != nil {
		return f.Record(rec, at, out)
	}
	return nil
}

// exactly takes the records of the batch that ends at the record's positions.
func (f *Follower) exactly(ctx context.Context, rec *protocol.Record, at protocol.Published) ([]*kgo.Record, []int, error) {
	next := rec.State.Next
	upTo := make([]int64, len(next))
	for i, in := range f.inputs {
		upTo[i] = next[i].Next
		if f.state.Next[i].Next > next[i].Next {
			return nil, nil, f.mismatch(rec, at, "%s goes back from offset %d to %d", in.topic, f.state.Next[i].Next, next[i].Next)
		}
		if next[i].Next <= f.ends[i] {
			continue
		}
		// A cursor would wait for ever for what Kafka lost.
		_, end, err := f.source.Span(ctx, in.topic, f.partition)
		if err != nil {
			return nil, nil, err
		}
		if f.ends[i] = end; next[i].Next > end {
			return nil, nil, f.mismatch(rec, at, "%s/%d ends at offset %d, but was applied up to %d: Kafka lost records", in.topic, f.partition, end, next[i].Next)
		}
	}
	rs, of, err := f.take(ctx, upTo, math.MaxInt)
	if err != nil {
		return nil, nil, err
	}
	for i, in := range f.inputs {
		if in.next != upTo[i] {
			return nil, nil, f.mismatch(rec, at, "%s/%d holds no record at offset %d, which was applied: Kafka lost it, or deletion or compaction removed it", in.topic, f.partition, upTo[i]-1)
		}
	}
	return rs, of, nil
}

// differences says how what folding gave differs from the journal.
func differences(rec *protocol.Record, out *fold.Output) string {
	var d []string
	say := func(what string, got, want any) {
		if got != want {
			d = append(d, fmt.Sprintf("%s %v, the journal says %v", what, got, want))
		}
	}
	for i := range max(len(rec.State.Counters), len(out.State.Counters)) {
		at := func(s []int64) int64 {
			if i < len(s) {
				return s[i]
			}
			return 0
		}
		say(event.Code(i).String(), at(out.State.Counters), at(rec.State.Counters))
	}
	say("records read", out.State.Read, rec.State.Read)
	say("watermark", out.State.Watermark, rec.State.Watermark)
	say("decisions", fmt.Sprintf("%.12s", out.Decisions), fmt.Sprintf("%.12s", rec.Decisions))
	say("digest of the customers", fmt.Sprintf("%x", out.State.Digest[:6]), fmt.Sprintf("%x", rec.State.Digest[:6]))
	return "repeating it gives " + strings.Join(d, "; ") + ": the log, the rules or this binary is not what it was"
}
