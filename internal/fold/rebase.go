package fold

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/tierstream/tierstream/internal/customer"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/scoring"
)

// Repeats reports whether this binary folds batches of a fold version as they
// were folded.
func Repeats(version int) bool { return version == Version }

// Correction is the reason of a change that a rebase decides.
const Correction = "correction"

// LastChange is the last published change of a customer, as far as a rebase
// continues it.
type LastChange struct {
	Customer string
	Sequence uint64
	Since    int64 // effective time, Unix ms
	data     event.Message
}

// Published reads a record of the change topic; ok is false where it is not a
// change of this partition in this life of the namespace: topics may be
// shared, and an earlier namespace of the same name may have written there.
// adopted says that earlier changes have another incarnation. The record must
// not be changed as long as the result is used.
func (e *Engine) Published(m *event.Message, adopted bool) (c LastChange, ok bool, err error) {
	var id, source, effective, sequence string
	for _, h := range m.Headers {
		switch h.Key {
		case "ce_id":
			id = string(h.Value)
		case "ce_source":
			source = string(h.Value)
		case "ce_time":
			effective = string(h.Value)
		case "ce_customerseq":
			sequence = string(h.Value)
		}
	}
	if source != "/tierstream/"+e.where.Namespace {
		return c, false, nil
	}
	c.Customer, c.data = string(m.Key), *m
	if !e.anywhere && e.partitioner.Partition(m.Key, e.where.Partitions) != e.where.Partition {
		return c, false, nil
	}
	if c.Sequence, err = strconv.ParseUint(sequence, 10, 64); err != nil {
		return c, false, fmt.Errorf("its sequence: %w", err)
	}
	if !adopted && id != ChangeID(e.where.Namespace, e.where.Incarnation, c.Customer, c.Sequence) {
		return c, false, nil
	}
	t, err := time.Parse(time.RFC3339, effective)
	if err != nil {
		return c, false, fmt.Errorf("its effective time: %w", err)
	}
	c.Since = t.UnixMilli()
	if e.anywhere {
		var p changeData
		if err := p.read(m); err != nil {
			return c, false, err
		}
		if p.Cause.Partition != e.where.Partition {
			return c, false, nil
		}
	}
	return c, true, nil
}

// changeData is what continuing a change needs of its data.
type changeData struct {
	NewTier struct {
		ID   string `json:"id"`
		Rank int    `json:"rank"`
	} `json:"new_tier"`
	Cause struct {
		Partition int32 `json:"partition"`
	} `json:"cause"`
}

func (d *changeData) read(m *event.Message) error {
	for _, h := range m.Headers {
		if h.Key == "content-type" && string(h.Value) == MsgpackType {
			dec := msgpack.NewDecoder(bytes.NewReader(m.Value))
			dec.SetCustomStructTag("json")
			if err := dec.Decode(d); err != nil {
				return fmt.Errorf("its data: %w", err)
			}
			return nil
		}
	}
	if err := json.Unmarshal(m.Value, d); err != nil {
		return fmt.Errorf("its data: %w", err)
	}
	return nil
}

// Continue lets the customer's standing be that of the change. A tier that the
// model does not have any more is the one of its rank, or the highest.
func (e *Engine) Continue(c *Customer, ch *LastChange) error {
	var d changeData
	if err := d.read(&ch.data); err != nil {
		return err
	}
	tier := min(max(d.NewTier.Rank, 0), len(e.tiers)-1)
	for rank := range e.tiers {
		if e.tiers[rank].ID == d.NewTier.ID {
			tier = rank
		}
	}
	st := &c.Record.Standing
	if ch.Sequence < st.Sequence {
		return nil // what Redis has is published too
	}
	st.Tier, st.Since, st.Sequence, st.Clock = int8(tier), ch.Since, ch.Sequence, max(st.Clock, ch.Since)
	return nil
}

// Gather folds records, which have their Customer, into facts alone: nothing
// is decided, refused or counted, because all of that was done and published
// before. What it returns has Puts, Wait and Unwait only.
func (e *Engine) Gather(records []*Record) *Output {
	out := &Output{Wait: map[Waiting][]byte{}}
	b := batch{Engine: e, out: out}
	e.arena = e.arena[:0]
	for _, r := range records {
		if r.Refusal != nil {
			continue
		}
		ev, c := &r.Event, r.Customer
		if c.Record.Due <= ev.Time {
			b.lose(c, b.folder.Expire(&c.Record, ev.Time))
		}
		res := b.folder.Apply(&c.Record, ev)
		for _, w := range res.Resolved {
			b.forget(Waiting{c.ID, w.Hash})
		}
		switch res.Code.Outcome() {
		case event.Held:
			b.wait(Waiting{c.ID, res.WaitingHash}, encodeOriginal(origin(r), &r.Message))
		case event.Used:
			st := &c.Record.Standing
			st.Clock = max(st.Clock, ev.Time)
		case event.Dropped:
			if res.Code != event.BusinessDuplicate {
				continue
			}
		default:
			continue
		}
		b.touch(c)
	}
	b.puts(0)
	return out
}

// lose drops waiting returns that are accounted for elsewhere.
func (b *batch) lose(c *Customer, hashes []uint64) {
	for _, h := range hashes {
		b.forget(Waiting{c.ID, h})
	}
	if len(hashes) > 0 {
		b.touch(c)
	}
}

// Keep makes an output of customers as they are, for Redis to hold until they
// are rebased.
func (e *Engine) Keep(customers []*Customer) *Output {
	b := batch{Engine: e, out: &Output{}}
	e.arena = e.arena[:0]
	for _, c := range customers {
		b.touch(c)
	}
	b.puts(0)
	return b.out
}

// RebaseInput is one batch of a rebase.
type RebaseInput struct {
	Parent protocol.Point
	State  protocol.State // before
	First  bool           // of the series: the digest begins at no customer
	Clock  int64
	Wall   int64
	Rebase protocol.Rebase

	Customers []*Customer // in order of their IDs, as gathered

	// Waiting is how many of the returns that waited before the rebase are not
	// accounted for yet. What is found to wait beyond that number is dropped: it
	// was accounted for before. What is not found at the End is lost.
	Waiting int64
	End     bool // no customers are left after these
	// Counted is the journal record that says how many waited: the origin of
	// dead letters of lost returns.
	Counted struct {
		Topic  string
		Offset int64
	}
	// Floor is what no published sequence has passed, where published changes
	// may be missing; else 0.
	Floor uint64
}

// maxLost is how many lost returns one batch books.
const maxLost = 1000

// Rebase decides one batch of a rebase, and says how many returns that waited
// are not accounted for after it. It is the series' last when the End is
// reached and none is. The customers are changed: when the output is not
// applied, they are worthless.
func (e *Engine) Rebase(in *RebaseInput) (out *Output, left int64, err error) {
	out = &Output{State: in.State}
	b := batch{Engine: e, out: out}
	e.arena = e.arena[:0]
	e.decisions.Reset()
	e.madeBy(in.Wall)
	s := &out.State
	if in.First {
		s.Digest = [16]byte{}
	}
	s.Clock, s.Rules, s.Fold = in.Clock, e.hash, Version
	var lost int64
	left = in.Waiting
	for _, c := range in.Customers {
		c.stored = false // for digest and due set
		r := &c.Record
		b.lose(c, b.folder.Expire(r, in.State.Sweep.Due))
		if over := int64(len(r.Facts.Waiting)) - left; over > 0 {
			b.lose(c, b.folder.Drop(r, int(over)))
		}
		left -= int64(len(r.Facts.Waiting))
		b.correct(c, in)
		b.touch(c)
	}
	if in.End {
		lost = min(left, maxLost)
		left -= lost
	}
	for range lost {
		b.lostReturn(in)
	}
	s.Counters = slices.Clone(in.State.Counters)
	if n := e.rules.Codes(); len(s.Counters) < n {
		s.Counters = append(s.Counters, make([]int64, n-len(s.Counters))...)
	}
	s.Counters[event.OrphanReturn] += lost
	s.Counters[event.Waiting] -= lost
	if s.Counters[event.Waiting] < 0 {
		return nil, 0, errors.New("more waiting returns lost than there were")
	}
	out.Flood = protocol.Flood{Read: s.Read, Counters: s.Counters} // a window begins

	b.puts(in.Parent.Seq + 1)
	out.Decisions = e.decisionsHash()
	rb := in.Rebase
	rb.Last = in.End && left == 0
	j := &protocol.Record{Kind: protocol.KindRebase, Seq: in.Parent.Seq + 1, Decisions: out.Decisions, State: *s, Rebase: &rb}
	j.Chain = protocol.NextChain(in.Parent.Chain, j, out.Decisions)
	out.Journal = j
	out.Entry = &protocol.Entry{Seq: j.Seq, Parent: in.Parent.Chain, Chain: j.Chain, Messages: b.messages}
	return out, left, nil
}

// correct evaluates the customer at their own clock, and publishes where that
// differs from what was published. Whose facts are whole is not corrected: the
// same instant gives the same tier.
func (b *batch) correct(c *Customer, in *RebaseInput) {
	st := &c.Record.Standing
	if st.Clock == customer.NoTime {
		return // never evaluated, nothing published
	}
	b.folder.Summarize(&c.Record, st.Clock, &b.after)
	if b.model.Keeps(int(st.Tier), &b.after) {
		return
	}
	m := b.model.Measure(&b.after)
	tier := b.model.Decide(int(st.Tier), &b.after, m.Score)
	if tier == int(st.Tier) {
		return
	}
	if st.Sequence == 0 {
		st.Sequence = in.Floor
	}
	b.correction(c, in, tier, &m)
}

// correction composes the change, as [batch.change] does; what the score was
// before is not known.
func (b *batch) correction(c *Customer, in *RebaseInput, tier int, m *scoring.Measure) {
	st := &c.Record.Standing
	prev, at := int(st.Tier), st.Clock
	direction := b.move(st, tier, at)

	j := make(object, 0, 2<<10)
	j = b.moved(j, c, prev, direction, Correction)
	j = j.add("what was published could not be repeated from the log (").add(in.Rebase.Cause.String()).add("): ")
	if b.after.Active {
		j = object(b.model.AppendScore(j.add(b.model.MeasureName()).add(" "), m.Score)).add(" gives ").add(b.tierNames[tier])
	} else {
		j = j.add("no order is known, hence ").add(b.tierNames[tier])
	}
	j = b.scores(j, &scoring.Measure{}, false, m)
	j = appendTime(j.add(`],"cause":{"due_at":"`), at)
	j = j.text(`","rebase":`, in.Rebase.Cause.String())
	j = j.int(`,"partition":`, int64(b.where.Partition))
	j = j.int(`,"seq":`, int64(in.Parent.Seq+1))
	j = appendTime(j.add(`},"effective_at":"`), at)
	j = b.made(b.decided(j, tier, m.Score), at)
	b.messages = append(b.messages, protocol.Message{
		Stream: protocol.Changes, Key: []byte(c.ID), Value: j,
		Headers: []protocol.MessageHeader{
			{Key: "ce_id", Value: []byte(ChangeID(b.where.Namespace, b.where.Incarnation, c.ID, st.Sequence))},
			{Key: "ce_time", Value: appendTime(nil, at)},
			{Key: "ce_customerseq", Value: appendPadded(nil, st.Sequence)},
		},
	})
	b.out.Changes++
}

// lostReturn makes a dead letter of a return of which only the count is left.
func (b *batch) lostReturn(in *RebaseInput) {
	b.out.Counts[event.OrphanReturn]++
	b.out.Counts[event.Waiting]--
	b.decide('l')
	var headers []protocol.MessageHeader
	add := func(k, v string) { headers = append(headers, protocol.MessageHeader{Key: k, Value: []byte(v)}) }
	add("tierstream-code", event.OrphanReturn.String())
	add("tierstream-field", "order_id")
	add("tierstream-detail", "a return that waited for its order was lost with its record ("+in.Rebase.Cause.String()+"); only its number is known")
	add("tierstream-topic", in.Counted.Topic)
	add("tierstream-partition", strconv.Itoa(int(b.where.Partition)))
	add("tierstream-offset", strconv.FormatInt(in.Counted.Offset, 10))
	add("tierstream-timestamp", strconv.FormatInt(in.Clock, 10))
	add("tierstream-namespace", b.where.Namespace)
	add("tierstream-engine", b.where.Engine)
	b.messages = append(b.messages, protocol.Message{Stream: protocol.DeadLetters, Headers: headers})
}
