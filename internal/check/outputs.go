package check

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/vmihailenco/msgpack/v5"
	"github.com/zeebo/xxh3"

	"github.com/tierstream/tierstream/internal/customer"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/replay"
)

// change is what of a tier change is checked here.
type change struct {
	Customer string `json:"customer_id"`
	Sequence uint64 `json:"sequence"`
	Previous *tier  `json:"previous_tier"`
	New      *tier  `json:"new_tier"`
	Reason   string `json:"reason"`
	Cause    struct {
		Topic     string `json:"topic"`
		Partition int32  `json:"partition"`
		Offset    int64  `json:"offset"`
	} `json:"cause"`
}

type tier struct {
	ID   string `json:"id"`
	Rank int8   `json:"rank"`
}

func (t *tier) String() string {
	if t == nil {
		return "no tier"
	}
	return t.ID
}

func (t *tier) rank() int8 {
	if t == nil {
		return customer.NoTier
	}
	return t.Rank
}

// decodeChange reads a change's data, JSON or MessagePack.
func decodeChange(value []byte, packed bool) (*change, error) {
	var c change
	if packed {
		d := msgpack.NewDecoder(bytes.NewReader(value))
		d.SetCustomStructTag("json")
		return &c, d.Decode(&c)
	}
	return &c, json.Unmarshal(value, &c)
}

func header(r *kgo.Record, name string) string {
	for i := len(r.Headers) - 1; i >= 0; i-- { // ours come last
		if r.Headers[i].Key == name {
			return string(r.Headers[i].Value)
		}
	}
	return ""
}

// rules learns how keys map to partitions.
func (c *run) rules(ctx context.Context) error {
	book, err := replay.ReadRules(ctx, c.source, c.Topics.Rules)
	if err != nil {
		return err
	}
	r, err := book.Lookup(c.parts[0].fence.State.Rules)
	if err != nil {
		c.note("the rules in force cannot be read (%v): customers are looked for in all partitions", err)
		return nil
	}
	if c.rule, err = event.ParsePartitioner(r.Partitioner); err != nil {
		return err
	}
	return nil
}

// home is the partition that a customer belongs to; nil when nobody knows.
func (c *run) home(id string, ch *change) *part {
	if c.rule != nil {
		if p := c.rule.Partition([]byte(id), int32(len(c.parts))); p != event.AnyPartition {
			return c.parts[p]
		}
	}
	for _, p := range c.parts {
		if p.customers[key(id)] != nil {
			return p
		}
	}
	if n := ch.Cause.Partition; ch.Cause.Topic != "" && n >= 0 && int(n) < len(c.parts) {
		return c.parts[n]
	}
	return nil
}

// outputs reads what is published: tier changes and dead letters.
func (c *run) outputs(ctx context.Context) error {
	for _, p := range c.parts { // what is committed up to here must be in the topics
		p.k, p.kAt = p.last, p.lastAt
	}
	source := "/tierstream/" + c.Namespace
	err := c.each(ctx, c.Topics.Changes, func(r *kgo.Record) error {
		if header(r, "ce_source") == source {
			c.change(r)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return c.each(ctx, c.Topics.DeadLetters, func(r *kgo.Record) error {
		if header(r, "tierstream-namespace") == c.Namespace {
			c.deadLetter(r)
		}
		return nil
	})
}

// each reads a whole topic, partition by partition.
func (c *run) each(ctx context.Context, topic string, fn func(*kgo.Record) error) error {
	n, err := c.source.Partitions(ctx, topic)
	if err != nil {
		return err
	}
	if n == 0 {
		return fmt.Errorf("there is no topic %s", topic)
	}
	for p := range n {
		start, end, err := c.source.Span(ctx, topic, p)
		if err != nil {
			return err
		}
		if start > 0 && !slices.ContainsFunc(c.parts, func(p *part) bool { return p.rebased != nil }) {
			return fmt.Errorf("%s/%d begins at offset %d: what was published before is gone, so that no chain can be followed from its beginning", topic, p, start)
		}
		if start > 0 {
			c.note("%s/%d begins at offset %d: chains are followed from there", topic, p, start)
			c.cut = true
		}
		err = replay.Each(ctx, c.source, topic, p, start, end, func(r *kgo.Record) error {
			c.Progress.Outputs.Add(1)
			return fn(r)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// change checks one tier change against the one before it of the same
// customer, and against the record that is at this change.
func (c *run) change(r *kgo.Record) {
	c.report.Changes++
	at := fmt.Sprintf("%s/%d", r.Topic, r.Partition)
	ch, err := decodeChange(r.Value, header(r, "content-type") == fold.MsgpackType)
	if err != nil {
		c.violated(Violation{Invariant: "I2", Partition: -1, Customer: string(r.Key), Topic: at, Offset: r.Offset, Text: fmt.Sprintf("the change cannot be read: %v", err)})
		return
	}
	p := c.home(ch.Customer, ch)
	bad := func(invariant, format string, args ...any) {
		v := Violation{Invariant: invariant, Partition: -1, Customer: ch.Customer, Sequence: ch.Sequence, Topic: at, Offset: r.Offset, Text: fmt.Sprintf(format, args...)}
		if p != nil {
			v.Partition = p.n
		}
		c.violated(v)
	}
	if p == nil {
		bad("I2", "the customer is in no partition")
		return
	}
	if ch.Reason == "correction" {
		if c.report.Corrections++; len(c.report.Corrected) < 1000 {
			c.report.Corrected = append(c.report.Corrected, Correction{Customer: ch.Customer, Sequence: ch.Sequence, Topic: at, Offset: r.Offset, Previous: ch.Previous.String(), New: ch.New.String()})
		}
	}
	e := p.customers[key(ch.Customer)]
	if e == nil {
		e = &entry{tier: customer.NoTier, rank: customer.NoTier}
		p.customers[key(ch.Customer)] = e
	}
	if !e.stored && !e.told && p.covers(ch) {
		e.told = true
		bad("I3", "Redis holds no record of the customer")
	}
	switch {
	case ch.New == nil:
		bad("I2", "it has no new tier")
		return
	case string(r.Key) != ch.Customer:
		bad("I2", "its key is %q", r.Key)
	case ch.Sequence == uint64(e.published):
		bad("I2", "it is there twice")
		return
	case ch.Sequence < uint64(e.published):
		bad("I2", "it comes after change %d", e.published)
		return
	case e.published == 0 && c.cut:
		// What came before it is gone.
	case ch.Sequence > uint64(e.published)+1:
		bad("I2", "changes %d to %d are missing before it", e.published+1, ch.Sequence-1)
	case ch.Previous.rank() != e.rank:
		bad("I2", "it begins at %s (rank %d), change %d ended at rank %d", ch.Previous, ch.Previous.rank(), e.published, e.rank)
	}
	if id := header(r, "ce_id"); id != fold.ChangeID(c.Namespace, p.genesis.Incarnation, ch.Customer, ch.Sequence) && !p.genesis.Adopted {
		bad("I2", "its ID %s is not the one of this change in this incarnation", id)
	}
	if s := header(r, "ce_customerseq"); strings.TrimLeft(s, "0") != strconv.FormatUint(ch.Sequence, 10) {
		bad("I2", "its header ce_customerseq says %q", s)
	}
	e.published, e.rank = uint32(ch.Sequence), ch.New.Rank
	if d := fold.Decision(message(r, protocol.Changes)); d != nil && c.Replay {
		p.decided[xxh3.Hash(r.Key)] = p.decided[xxh3.Hash(r.Key)].plus(d)
	} else if c.Replay {
		c.packed = true
	}
	if e.stored && e.sequence == e.published && e.tier != e.rank {
		bad("I3", "it ends at %s (rank %d), the record after it has rank %d", ch.New, e.rank, e.tier)
	}
}

// covers reports whether the fence stands behind what caused the change.
func (p *part) covers(ch *change) bool {
	for i, t := range p.topics {
		if t == ch.Cause.Topic && i < len(p.fence.State.Next) {
			return ch.Cause.Partition == p.n && ch.Cause.Offset < p.fence.State.Next[i].Next
		}
	}
	return false
}

// deadLetter counts one, by the partition and the code that it names.
func (c *run) deadLetter(r *kgo.Record) {
	c.report.DeadLetters++
	n, err := strconv.Atoi(header(r, "tierstream-partition"))
	name := header(r, "tierstream-code")
	for i := range event.NumCodes {
		if event.Code(i).String() == name && event.Code(i).Outcome() == event.DeadLetter && err == nil && n >= 0 && n < len(c.parts) {
			c.parts[n].dead[i]++
			if orderly[event.Code(i)] {
				c.parts[n].disputed[xxh3.Hash(r.Key)] = event.Code(i)
			}
			return
		}
	}
	c.violated(Violation{Invariant: "I4", Partition: -1, Topic: fmt.Sprintf("%s/%d", r.Topic, r.Partition), Offset: r.Offset, Text: fmt.Sprintf("a dead letter of partition %q with code %q", header(r, "tierstream-partition"), name)})
}

// account holds what was published against what records and journal say, when
// both are read.
func (p *part) account() error {
	// Decided but not yet published, as of the snapshot.
	pending := map[uint64]*change{}
	for _, e := range p.outbox {
		if e.Seq <= p.k.Seq {
			continue
		}
		for i := range e.Messages {
			if m := &e.Messages[i]; m.Stream == protocol.Changes {
				if ch, err := decodeChange(m.Value, false); err == nil && ch.New != nil {
					pending[key(ch.Customer)] = ch
				}
			}
		}
	}
	// Published dead letters are between what the journal counted before they
	// were read and after: the same, when nobody was refused meanwhile.
	before := p.k.State.Counters
	if err := p.journal(); err != nil {
		return err
	}
	for i, n := range p.dead {
		c := event.Code(i)
		if c.Outcome() != event.DeadLetter {
			continue
		}
		low, high := counter(before, c), counter(p.last.State.Counters, c)
		if n >= low && n <= high {
			continue
		}
		p.unexplained = true
		p.violated(Violation{Invariant: "I4", Batch: p.k.Seq, Offset: -1, Text: fmt.Sprintf("%d records were refused as %s, %s holds %d of them", low, c, p.Topics.DeadLetters, n)})
	}
	var lost []uint64
	for k, e := range p.customers {
		if !e.stored || e.sequence == e.published {
			continue
		}
		if ch := pending[k]; e.sequence > e.published && ch != nil && uint64(e.sequence) == ch.Sequence {
			if ch.New.Rank != e.tier {
				p.violated(Violation{Invariant: "I3", Customer: ch.Customer, Sequence: ch.Sequence, Offset: -1, Text: fmt.Sprintf("its last change, in the outbox, ends at %s (rank %d), the record has rank %d", ch.New, ch.New.Rank, e.tier)})
			}
			continue
		}
		if e.published > e.sequence && p.last.Seq > p.fence.Seq {
			continue // published after the snapshot
		}
		lost = append(lost, k)
	}
	return p.name(lost)
}

// name notes customers whose record and published changes do not meet. Their
// IDs are read again: in between they were hashes.
func (p *part) name(lost []uint64) error {
	if len(lost) == 0 {
		return nil
	}
	wanted := make(map[uint64]bool, len(lost))
	for _, k := range lost {
		wanted[k] = true
	}
	_, err := p.store.Each(p.ctx, func(id string, _ []byte) error {
		if k := key(id); wanted[k] {
			delete(wanted, k)
			e := p.customers[k]
			p.violated(Violation{Invariant: "I3", Customer: id, Sequence: uint64(max(e.sequence, e.published)), Offset: -1,
				Text: fmt.Sprintf("the record is at change %d (rank %d), the last one published is %d (rank %d)", e.sequence, e.tier, e.published, e.rank)})
		}
		return nil
	})
	return err
}
