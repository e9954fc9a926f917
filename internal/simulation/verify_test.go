package simulation

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"maps"
	"math"
	"reflect"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/customer"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/state"
)

// kept is what Kafka holds of a topic, committed, by partition.
type kept map[int32][]*kgo.Record

// read returns all committed records of the topics, and checks that no
// transaction is left open in them.
func (w *world) read(topics []string, fail func(string, ...any)) map[string]kept {
	adm := kadm.NewClient(w.client)
	committed, err := adm.ListCommittedOffsets(w.ctx, topics...)
	must(err)
	written, err := adm.ListEndOffsets(w.ctx, topics...)
	must(err)
	at := map[string]map[int32]kgo.Offset{}
	all := map[string]kept{}
	left := 0
	committed.Each(func(o kadm.ListedOffset) {
		if all[o.Topic] == nil {
			all[o.Topic], at[o.Topic] = kept{}, map[int32]kgo.Offset{}
		}
		if e, _ := written.Lookup(o.Topic, o.Partition); e.Offset != o.Offset {
			fail("%s/%d: a transaction is open: committed up to %d, written up to %d", o.Topic, o.Partition, o.Offset, e.Offset)
		}
		if o.Offset > 0 {
			at[o.Topic][o.Partition] = kgo.NewOffset().At(0)
			left++
		}
	})
	cl := w.open(kgo.ConsumePartitions(at), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.ConsumeResetOffset(kgo.NoResetOffset()))
	defer cl.Close()
	for left > 0 {
		fs := cl.PollFetches(w.ctx)
		must(fs.Err())
		fs.EachRecord(func(r *kgo.Record) {
			if !r.Attrs.IsControl() {
				all[r.Topic][r.Partition] = append(all[r.Topic][r.Partition], r)
			}
			if o, _ := committed.Lookup(r.Topic, r.Partition); r.Offset == o.Offset-1 {
				left--
			}
		})
	}
	return all
}

// pass is what one reading of a partition's log and journal comes to: no
// Redis, no transactions, no faults.
type pass struct {
	customers fold.Set
	values    map[string][]byte
	waiting   map[fold.Waiting][]byte
	changes   []protocol.Message
	dead      []protocol.Message
	state     protocol.State
	point     protocol.Point
	genesis   *protocol.Genesis
}

// fold reads log and journal of partition p: every batch as the journal cuts
// it, every chain as the journal has it.
func (w *world) fold(p int32, all map[string]kept) (*pass, error) {
	s := &pass{customers: fold.Set{}, values: map[string][]byte{}, waiting: map[fold.Waiting][]byte{}}
	var (
		engine *fold.Engine
		taken  = make([]int, len(w.topics.Inputs))
		owners = map[protocol.Nonce]bool{}
		owner  protocol.Nonce
	)
	for i, raw := range all[w.topics.Journal][p] {
		rec, err := protocol.DecodeRecord(raw.Value)
		if err != nil {
			return nil, err
		}
		if rec.Owner != owner {
			// Two owners can decide a batch alike, by the log's clock; when Redis
			// has shown the branch of each, the first one's next batch may follow
			// the second one's.
			if owner = rec.Owner; owners[owner] && w.changes == 0 {
				return nil, fmt.Errorf("journal record %d is of an owner that had lost the partition before", rec.Seq)
			}
			owners[owner] = true
		}
		if i == 0 {
			if rec.Kind != protocol.KindGenesis {
				return nil, fmt.Errorf("the journal begins with a record of kind %d", rec.Kind)
			}
			s.genesis, s.state, s.point = rec.Genesis, rec.State, protocol.Point{Chain: rec.Chain}
			if engine, err = fold.NewEngine(w.cfg.Rules, fold.Where{
				Namespace: namespace, Incarnation: s.genesis.Incarnation, LiveSince: s.genesis.LiveSince,
				Partition: p, Partitions: s.genesis.Partitions, Engine: "pass",
			}, true); err != nil {
				return nil, err
			}
			continue
		}
		if rec.Kind != protocol.KindBatch || rec.Seq != s.point.Seq+1 {
			return nil, fmt.Errorf("the journal goes from %d to %d of kind %d", s.point.Seq, rec.Seq, rec.Kind)
		}
		in := &fold.Input{
			Parent: s.point, State: s.state, Clock: rec.State.Clock, Wall: rec.State.Clock,
			Bound: rec.State.Sweep, Sweep: s.due(rec.State.Sweep), Next: rec.State.Next,
			Records: w.next(p, all, taken, rec.State.Next), Customers: s.customers, Originals: s.waiting,
		}
		if len(in.Records) == 0 && len(in.Sweep) == 0 {
			return nil, fmt.Errorf("journal record %d does nothing", rec.Seq)
		}
		if err := s.apply(engine, in); err != nil {
			return nil, fmt.Errorf("journal record %d: %w", rec.Seq, err)
		}
		if s.point.Chain != rec.Chain {
			return nil, fmt.Errorf("journal record %d has chain %.8s, log and journal give %.8s", rec.Seq, rec.Chain, s.point.Chain)
		}
	}
	if s.genesis == nil {
		return nil, fmt.Errorf("the journal is empty")
	}
	return s, nil
}

// next is what the journal's next batch read: everything up to its positions,
// by timestamp, ties by topic.
func (w *world) next(p int32, all map[string]kept, taken []int, upTo []protocol.Position) []*fold.Record {
	var out []*fold.Record
	for {
		var best *kgo.Record
		topic := -1
		for i, t := range w.topics.Inputs {
			records := all[t][p]
			if taken[i] < len(records) && records[taken[i]].Offset < upTo[i].Next && (best == nil || records[taken[i]].Timestamp.Before(best.Timestamp)) {
				best, topic = records[taken[i]], i
			}
		}
		if best == nil {
			return out
		}
		taken[topic]++
		r := &fold.Record{Topic: topic, Partition: p, Offset: best.Offset}
		r.Message = event.Message{Key: best.Key, Value: best.Value, Timestamp: best.Timestamp.UnixMilli()}
		for _, h := range best.Headers {
			r.Message.Headers = append(r.Message.Headers, event.Header{Key: h.Key, Value: h.Value})
		}
		out = append(out, r)
	}
}

// due are the customers due below the bound, in (due, customer) order.
func (s *pass) due(b protocol.Bound) []string {
	var below []protocol.Bound
	for id, c := range s.customers {
		if at := (protocol.Bound{Due: c.Record.Due, Customer: id}); s.values[id] != nil && c.Record.Due < math.MaxInt64 && at.Less(b) {
			below = append(below, at)
		}
	}
	slices.SortFunc(below, func(a, b protocol.Bound) int {
		if a.Less(b) {
			return -1
		}
		return 1
	})
	var ids []string
	for _, at := range below[:min(len(below), fold.MaxSweep)] {
		ids = append(ids, at.Customer)
	}
	return ids
}

func (s *pass) apply(e *fold.Engine, in *fold.Input) error {
	for _, r := range in.Records {
		if e.Decode(r); r.Refusal == nil && s.customers[r.Event.Customer] == nil {
			id := strings.Clone(r.Event.Customer)
			s.customers[id] = fold.NewCustomer(id)
		}
	}
	out, err := e.Fold(in)
	if err != nil {
		return err
	}
	out.Applied()
	for _, p := range out.Puts {
		s.values[p.Customer.ID] = slices.Clone(p.Value)
	}
	maps.Copy(s.waiting, out.Wait)
	for _, k := range out.Unwait {
		delete(s.waiting, k)
	}
	s.state, s.point = out.State, out.Entry.Point()
	for _, m := range out.Entry.Messages {
		if m.Headers = fold.Headers(namespace, &m); m.Stream == protocol.Changes {
			s.changes = append(s.changes, m)
		} else {
			s.dead = append(s.dead, m)
		}
	}
	return nil
}

// verify checks a world that has settled and stopped, and gives a hash of what
// it came to.
func (w *world) verify(feed *feeder, fail func(string, ...any)) uint64 {
	all := w.read(append(slices.Clone(w.topics.Inputs), w.topics.Journal, w.topics.Changes, w.topics.DeadLetters), fail)
	result := fnv.New64a()
	var dead []protocol.Message
	read := int64(0)
	for p := range int32(partitions) {
		s, err := w.fold(p, all)
		if err != nil {
			fail("partition %d: %v", p, err)
			continue
		}
		dead = append(dead, s.dead...)
		read += s.state.Read
		w.verifyState(p, s, all, fail)
		published := all[w.topics.Changes][p]
		if len(published) != len(s.changes) {
			fail("partition %d: %d tier changes published, log and journal give %d", p, len(published), len(s.changes))
		}
		for i := range min(len(published), len(s.changes)) {
			got := asMessage(published[i], protocol.Changes)
			d := fold.Decision(&got)
			if d == nil || !bytes.Equal(got.Key, s.changes[i].Key) || !bytes.Equal(d, fold.Decision(&s.changes[i])) {
				fail("partition %d: tier change %d is\n%s\nlog and journal give\n%s", p, i, got.Value, s.changes[i].Value)
				break
			}
			_, _ = result.Write(d)
		}
		_, _ = result.Write(s.state.Digest[:])
	}
	if n := int64(feed.count()); read != n {
		fail("%d records were sent and committed, %d were read", n, read)
	}
	w.verifyDead(dead, all[w.topics.DeadLetters], fail)
	w.verifyChains(all[w.topics.Changes], fail)
	return result.Sum64()
}

// verifyState holds Redis against the pass (I1, I4).
func (w *world) verifyState(p int32, s *pass, all map[string]kept, fail func(string, ...any)) {
	store := state.NewStore(w.admin, namespace, p, lease)
	stored := map[string][]byte{}
	f, err := store.Each(w.ctx, func(id string, v []byte) error { stored[id] = v; return nil })
	if err != nil || f == nil {
		fail("partition %d: fence %v, %v", p, f, err)
		return
	}
	got, want := f.State, s.state
	for i := range want.Next {
		got.Next[i].LeaderEpoch, want.Next[i].LeaderEpoch = -1, -1 // it says how to read, not what happened
	}
	if f.Point != s.point || !reflect.DeepEqual(got, want) || f.Incarnation != s.genesis.Incarnation {
		fail("partition %d: the fence is at %d %.8s\n%+v\nlog and journal give %d %.8s\n%+v", p, f.Seq, f.Chain, f.State, s.point.Seq, s.point.Chain, s.state)
	}
	for i, t := range w.topics.Inputs {
		if rs := all[t][p]; len(rs) > 0 && f.State.Next[i].Next != rs[len(rs)-1].Offset+1 {
			fail("partition %d: %s is applied up to %d of %d", p, t, f.State.Next[i].Next, rs[len(rs)-1].Offset+1)
		}
	}
	var sum int64
	for i, n := range f.State.Counters {
		if event.Code(i).Outcome() != event.Warned {
			sum += n
		}
	}
	if sum != f.State.Read {
		fail("partition %d: %d records read, %d accounted for", p, f.State.Read, sum)
	}
	if len(stored) != len(s.values) {
		fail("partition %d: %d customers in Redis, log and journal give %d", p, len(stored), len(s.values))
	}
	var digest customer.Digest
	for id, v := range stored {
		hi, lo := customer.Sum(id, v)
		digest = digest.Add(customer.Digest{hi, lo})
		if !bytes.Equal(v, s.values[id]) {
			fail("partition %d: customer %s is\n%x\nlog and journal give\n%x", p, id, v, s.values[id])
			break
		}
	}
	if digest.Bytes() != f.State.Digest {
		fail("partition %d: the records add up to digest %x, the fence has %x", p, digest.Bytes(), f.State.Digest)
	}
	w.verifyDue(p, f.Gen, s, fail)
}

// verifyDue holds the due set and the waiting returns against the pass.
func (w *world) verifyDue(p int32, gen uint64, s *pass, fail func(string, ...any)) {
	keys := state.PartitionKeys(namespace, p)
	due, err := w.admin.ZRangeWithScores(context.Background(), keys.Due(gen), 0, -1).Result()
	if err != nil || len(due) != len(s.values) {
		fail("partition %d: the due set has %d customers of %d, %v", p, len(due), len(s.values), err)
	}
	for _, d := range due {
		want := math.Inf(1)
		if at := s.customers[d.Member.(string)].Record.Due; at != math.MaxInt64 {
			want = float64(at)
		}
		if d.Score != want {
			fail("partition %d: customer %s is due at %.0f, log and journal give %.0f", p, d.Member, d.Score, want)
		}
	}
	for k, v := range s.waiting {
		got, err := w.admin.Get(context.Background(), keys.Waiting(gen, state.WaitingKey{Customer: k.Customer, Hash: k.Hash})).Bytes()
		if err != nil || !bytes.Equal(got, v) {
			fail("partition %d: the waiting return %016x of customer %s is not what was held, %v", p, k.Hash, k.Customer, err)
		}
	}
}

// verifyDead compares dead letters as a multiset: a misrouted one lies in
// another partition than its original.
func (w *world) verifyDead(want []protocol.Message, published kept, fail func(string, ...any)) {
	count := map[[32]byte]int{}
	sum := func(m *protocol.Message) [32]byte {
		h := sha256.New()
		fmt.Fprintf(h, "%q %q", m.Key, m.Value)
		for _, x := range m.Headers {
			if x.Key != "tierstream-engine" {
				fmt.Fprintf(h, " %s=%q", x.Key, x.Value)
			}
		}
		return [32]byte(h.Sum(nil))
	}
	n := 0
	for _, rs := range published {
		for _, r := range rs {
			m := asMessage(r, protocol.DeadLetters)
			count[sum(&m)]++
			n++
		}
	}
	for i := range want {
		count[sum(&want[i])]--
	}
	missing, extra := 0, 0
	for _, c := range count {
		missing += max(0, -c)
		extra += max(0, c)
	}
	if missing+extra > 0 {
		fail("%d dead letters: %d are missing, %d are too many", n, missing, extra)
	}
}

// verifyChains checks what a reader relies on, without any of the fold (I2,
// I3).
func (w *world) verifyChains(published kept, fail func(string, ...any)) {
	type tier struct {
		ID string `json:"id"`
	}
	type change struct {
		Customer string `json:"customer_id"`
		Sequence int    `json:"sequence"`
		Previous *tier  `json:"previous_tier"`
		New      tier   `json:"new_tier"`
	}
	ids := map[string]bool{}
	last := map[string]change{}
	for p := range int32(partitions) {
		for _, r := range published[p] {
			var c change
			if err := json.Unmarshal(r.Value, &c); err != nil {
				fail("tier change %s: %v", r.Value, err)
				return
			}
			for _, h := range r.Headers {
				if h.Key == "ce_id" {
					if ids[string(h.Value)] {
						fail("I2: change %s is there twice", h.Value)
					}
					ids[string(h.Value)] = true
				}
			}
			before, any := last[c.Customer]
			if c.Sequence != before.Sequence+1 {
				fail("I2: customer %s: sequence %d after %d", c.Customer, c.Sequence, before.Sequence)
			}
			if any != (c.Previous != nil) || any && c.Previous.ID != before.New.ID {
				fail("I2: customer %s: change %d does not begin where the one before ended", c.Customer, c.Sequence)
			}
			last[c.Customer] = c
		}
	}
	if len(last) == 0 {
		fail("there are no tier changes: nothing was checked")
	}
	tiers := w.cfg.Rules.Model.Tiers()
	for p := range int32(partitions) {
		_, err := state.NewStore(w.admin, namespace, p, lease).Each(w.ctx, func(id string, v []byte) error {
			r := customer.NewRecord()
			if err := customer.Decode(v, &r); err != nil {
				return err
			}
			c, published := last[id]
			switch {
			case published != (r.Standing.Tier >= 0), r.Standing.Sequence != uint64(c.Sequence):
				fail("I3: customer %s: the record has change %d, published is %d", id, r.Standing.Sequence, c.Sequence)
			case published && tiers[r.Standing.Tier].ID != c.New.ID:
				fail("I3: customer %s: the record has tier %s, published is %s", id, tiers[r.Standing.Tier].ID, c.New.ID)
			}
			delete(last, id)
			return nil
		})
		if err != nil {
			fail("partition %d: %v", p, err)
		}
	}
	for id := range last {
		fail("I3: customer %s has tier changes but no record", id)
	}
}

func asMessage(r *kgo.Record, s protocol.Stream) protocol.Message {
	m := protocol.Message{Stream: s, Key: r.Key, Value: r.Value}
	for _, h := range r.Headers {
		m.Headers = append(m.Headers, protocol.MessageHeader{Key: h.Key, Value: h.Value})
	}
	return m
}
