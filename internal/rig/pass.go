//go:build unix

package rig

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/check"
	"github.com/tierstream/tierstream/internal/customer"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/protocol"
)

// pass is what one reading of a partition's log and journal comes to: no
// Redis, no transactions, nobody killed.
type pass struct {
	namespace string
	customers fold.Set
	values    map[string][]byte // stored form of each customer
	waiting   map[fold.Waiting][]byte
	messages  []protocol.Message
	state     protocol.State
	point     protocol.Point
	genesis   *protocol.Genesis
}

// log is a partition as Kafka holds it.
type log struct {
	journal []*kgo.Record
	inputs  [][]*kgo.Record // by input topic
	rules   map[protocol.Hash]*fold.Rules
}

func (w *World) logs() []log {
	w.t.Helper()
	ls := make([]log, w.Config.Partitions)
	rules := map[protocol.Hash]*fold.Rules{}
	for _, records := range w.Read(w.Topics.Rules) {
		for _, r := range records {
			parsed, err := fold.ParseRules(r.Value)
			if err != nil {
				w.t.Fatal(err)
			}
			rules[sha256.Sum256(r.Value)] = parsed
		}
	}
	for p, records := range w.Read(w.Topics.Journal) {
		ls[p].journal, ls[p].rules = records, rules
	}
	for _, t := range w.Topics.Inputs {
		for p, records := range w.Read(t) {
			ls[p].inputs = append(ls[p].inputs, records)
		}
	}
	return ls
}

// fold reads the log as the journal says. At the journal's own batches (split
// 0) every chain must come out as it is in the journal; otherwise each batch is
// cut into pieces of that many records, and only the outcome is the same.
func (l *log) fold(ns string, partition int32, split int) (*pass, error) {
	s := &pass{namespace: ns, customers: fold.Set{}, values: map[string][]byte{}, waiting: map[fold.Waiting][]byte{}}
	var (
		engine *fold.Engine
		rules  protocol.Hash
		flood  protocol.Flood
		taken  = make([]int, len(l.inputs))
		owners = map[protocol.Nonce]bool{}
		owner  protocol.Nonce
	)
	for i, raw := range l.journal {
		rec, err := protocol.DecodeRecord(raw.Value)
		if err != nil {
			return nil, err
		}
		if rec.Owner != owner {
			if owner = rec.Owner; owners[owner] {
				return nil, fmt.Errorf("journal record %d is of an owner that had lost the partition before", rec.Seq)
			}
			owners[owner] = true
		}
		if (i == 0) != (rec.Kind == protocol.KindGenesis) {
			return nil, fmt.Errorf("journal record %d is of kind %d", i, rec.Kind)
		}
		if i == 0 {
			s.genesis, s.state = rec.Genesis, rec.State
			s.point = protocol.Point{Chain: rec.Chain}
			if want := protocol.NextChain(protocol.Hash{}, rec, protocol.Hash{}); want != rec.Chain {
				return nil, fmt.Errorf("genesis has chain %s, want %s", rec.Chain, want)
			}
			continue
		}
		if rec.Seq != s.point.Seq+1 && split == 0 {
			return nil, fmt.Errorf("journal goes from %d to %d", s.point.Seq, rec.Seq)
		}
		if engine == nil || rec.State.Rules != rules {
			rules = rec.State.Rules
			if l.rules[rules] == nil {
				return nil, fmt.Errorf("journal record %d names rules %s, which are not kept", rec.Seq, rules)
			}
			engine, err = fold.NewEngine(l.rules[rules], fold.Where{
				Namespace: ns, Incarnation: s.genesis.Incarnation, LiveSince: s.genesis.LiveSince,
				Partition: partition, Partitions: s.genesis.Partitions, Engine: "pass",
			}, true)
			if err != nil {
				return nil, err
			}
		}
		records := l.next(taken, rec.State.Next)
		if len(records) == 0 && len(s.due(rec.State.Sweep)) == 0 {
			return nil, fmt.Errorf("journal record %d does nothing", rec.Seq)
		}
		for first := true; first || len(records) > 0; first = false {
			n := len(records)
			if split > 0 {
				n = min(n, split)
			}
			in := &fold.Input{
				Parent: s.point, State: s.state, Flood: flood, Clock: rec.State.Clock, Wall: rec.State.Clock,
				Bound: rec.State.Sweep, Records: records[:n], Next: rec.State.Next,
				Customers: s.customers, Originals: s.waiting,
			}
			if first {
				in.Sweep = s.due(rec.State.Sweep)
			}
			records = records[n:]
			if err := s.apply(engine, in); err != nil {
				return nil, err
			}
			flood = protocol.Flood{}
		}
		if split == 0 && s.point.Chain != rec.Chain {
			return nil, fmt.Errorf("journal record %d has chain %s, the pass gives %s", rec.Seq, rec.Chain, s.point.Chain)
		}
	}
	return s, nil
}

// next is what the journal's next batch read: everything up to its positions,
// by timestamp, ties by topic.
func (l *log) next(taken []int, upTo []protocol.Position) []*fold.Record {
	var out []*fold.Record
	for {
		best := -1
		for i, records := range l.inputs {
			if taken[i] == len(records) || records[taken[i]].Offset >= upTo[i].Next {
				continue
			}
			if best < 0 || records[taken[i]].Timestamp.Before(l.inputs[best][taken[best]].Timestamp) {
				best = i
			}
		}
		if best < 0 {
			return out
		}
		r := l.inputs[best][taken[best]]
		taken[best]++
		f := &fold.Record{Topic: best, Partition: r.Partition, Offset: r.Offset}
		f.Message = event.Message{Key: r.Key, Value: r.Value, Timestamp: r.Timestamp.UnixMilli()}
		for _, h := range r.Headers {
			f.Message.Headers = append(f.Message.Headers, event.Header{Key: h.Key, Value: h.Value})
		}
		out = append(out, f)
	}
}

// due are the customers due below the bound, in (due, customer) order, as many
// as one batch sweeps.
func (s *pass) due(b protocol.Bound) []string {
	var ids []string
	for id, c := range s.customers {
		if _, stored := s.values[id]; stored && c.Record.Due < math.MaxInt64 && (protocol.Bound{Due: c.Record.Due, Customer: id}).Less(b) {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b string) int {
		if (protocol.Bound{Due: s.customers[a].Record.Due, Customer: a}).Less(protocol.Bound{Due: s.customers[b].Record.Due, Customer: b}) {
			return -1
		}
		return 1
	})
	return ids[:min(len(ids), fold.MaxSweep)]
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
		m.Headers = fold.Headers(s.namespace, &m)
		s.messages = append(s.messages, m)
	}
	return nil
}

// Verify asks what `tierctl check --replay` asks, of a world that may be
// moving, and fails with what does not hold.
func (w *World) Verify(ctx context.Context) *check.Report {
	w.t.Helper()
	report, err := check.Run(ctx, check.Config{
		Namespace: w.Namespace, Topics: w.Topics, Redis: w.RDB, Replay: true,
		Kafka: []kgo.Opt{kgo.SeedBrokers(w.Config.Brokers...)},
	})
	if err != nil {
		w.t.Fatalf("checking: %v", err)
	}
	for _, v := range report.Violations {
		w.t.Errorf("does not hold: %s", v.String())
	}
	if !report.Holds {
		w.t.Errorf("%v do not hold: %v", report.Checked, report.Found)
	}
	return report
}

// Check holds what was stored and published against passes over log and
// journal. It wants a settled world.
func (w *World) Check() {
	w.t.Helper()
	logs := w.logs()
	fences, err := w.Fences()
	if err != nil {
		w.t.Fatal(err)
	}
	published := w.Read(w.Topics.Changes)
	var dead []protocol.Message
	total := 0
	for p := range w.Config.Partitions {
		whole, err := logs[p].fold(w.Namespace, p, 0)
		if err != nil {
			w.t.Errorf("partition %d: %v", p, err)
			continue
		}
		f := fences[p]
		if f.Point != whole.point || f.State.Digest != whole.state.Digest || f.State.Read != whole.state.Read ||
			!slices.Equal(f.State.Counters, whole.state.Counters) || f.Incarnation != whole.genesis.Incarnation {
			w.t.Errorf("partition %d: fence\n%+v\nbut log and journal give\n%+v", p, f.State, whole.state)
		}
		// Everything that Kafka holds was read, and is accounted for.
		for i, records := range logs[p].inputs {
			if n := int64(len(records)); f.State.Next[i].Next != n {
				w.t.Errorf("partition %d: %s is applied up to %d of %d", p, w.Topics.Inputs[i], f.State.Next[i].Next, n)
			}
		}
		var sum int64
		for i, n := range f.State.Counters {
			if event.Code(i).Outcome() != event.Warned {
				sum += n
			}
		}
		if sum != f.State.Read {
			w.t.Errorf("partition %d: %d records read, %d accounted for", p, f.State.Read, sum)
		}
		stored := w.Records(p)
		w.sameRecords(p, stored, whole.values, false)
		pieces, err := logs[p].fold(w.Namespace, p, 1)
		if err != nil {
			w.t.Errorf("partition %d, record by record: %v", p, err)
			continue
		}
		w.sameRecords(p, stored, pieces.values, true)

		var changes []protocol.Message
		for _, m := range whole.messages {
			if m.Stream == protocol.Changes {
				changes = append(changes, m)
			} else {
				dead = append(dead, m)
			}
		}
		total += len(changes)
		if len(changes) != len(published[p]) {
			w.t.Errorf("partition %d: %d tier changes published, the pass gives %d", p, len(published[p]), len(changes))
		}
		for i := range min(len(changes), len(published[p])) {
			if got, want := asDecided(asMessage(published[p][i])), asDecided(changes[i]); got != want {
				w.t.Errorf("partition %d: tier change %d is\n%s\nthe pass gives\n%s", p, i, got, want)
				break
			}
		}
	}
	if total == 0 {
		w.t.Error("no tier changes: nothing was checked")
	}
	w.sameDead(dead)
	w.chains(published)
}

// sameRecords compares stored records, but for the seq of the last write where
// the batches differ.
func (w *World) sameRecords(p int32, got, want map[string][]byte, butSeq bool) {
	w.t.Helper()
	if len(got) != len(want) {
		w.t.Errorf("partition %d: %d customers, the pass gives %d", p, len(got), len(want))
	}
	for id, v := range want {
		g := got[id]
		if butSeq {
			g, v = WithoutSeq(w.t, g), WithoutSeq(w.t, v)
		}
		if !bytes.Equal(g, v) {
			w.t.Errorf("partition %d, customer %s:\n got %.300x…\nwant %.300x…", p, id, g, v)
			return
		}
	}
}

// WithoutSeq is a stored record but for the seq of its last write, which depends
// on where batches end.
func WithoutSeq(t testing.TB, v []byte) []byte {
	t.Helper()
	r := Decoded(t, v)
	r.Seq = 0
	return r.Append(nil)
}

// Decoded is a stored record.
func Decoded(t testing.TB, v []byte) *customer.Record {
	t.Helper()
	r := customer.NewRecord()
	if err := customer.Decode(v, &r); err != nil {
		t.Fatal(err)
	}
	return &r
}

// sameDead compares the dead letters as sets: a misrouted one lies in another
// partition than its original.
func (w *World) sameDead(want []protocol.Message) {
	w.t.Helper()
	got := map[string]int{}
	n := 0
	for _, records := range w.Read(w.Topics.DeadLetters) {
		for _, r := range records {
			got[asDecided(asMessage(r))]++
			n++
		}
	}
	for _, m := range want {
		got[asDecided(m)]--
	}
	bad := 0
	for m, n := range got {
		if n != 0 && bad < 3 {
			w.t.Errorf("dead letter %+d times beyond the pass:\n%.600s", n, m)
			bad++
		}
	}
	if n != len(want) {
		w.t.Errorf("%d dead letters, the pass gives %d", n, len(want))
	}
}

func asMessage(r *kgo.Record) protocol.Message {
	m := protocol.Message{Key: r.Key, Value: r.Value}
	for _, h := range r.Headers {
		m.Headers = append(m.Headers, protocol.MessageHeader{Key: h.Key, Value: h.Value})
	}
	return m
}

// notDecided are the parts of an output that say when and by which build it was
// made, which a second reading cannot repeat.
var notDecided = regexp.MustCompile(`"(decided_at|engine)":"[^"]*",?`)

func asDecided(m protocol.Message) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q\n%s\n", m.Key, notDecided.ReplaceAll(m.Value, nil))
	for _, h := range m.Headers {
		if h.Key != "tierstream-engine" {
			fmt.Fprintf(&b, "%s: %s\n", h.Key, h.Value)
		}
	}
	return b.String()
}

// change is what a reader of the tier changes sees.
type change struct {
	Customer string    `json:"customer_id"`
	Sequence int       `json:"sequence"`
	Previous *tierName `json:"previous_tier"`
	New      tierName  `json:"new_tier"`
}

type tierName struct{ ID string }

// chains checks what a reader relies on, without any of the fold: sequences
// without gaps, each change from the tier of the one before, no ID twice, and
// the record in Redis in the tier of the last.
func (w *World) chains(published [][]*kgo.Record) {
	w.t.Helper()
	ids := map[string]bool{}
	last := map[string]change{}
	for _, records := range published {
		for _, r := range records {
			var c change
			if err := json.Unmarshal(r.Value, &c); err != nil {
				w.t.Fatalf("tier change %s: %v", r.Value, err)
			}
			for _, h := range r.Headers {
				if h.Key == "ce_id" {
					if ids[string(h.Value)] {
						w.t.Errorf("change %s twice", h.Value)
					}
					ids[string(h.Value)] = true
				}
			}
			before, any := last[c.Customer]
			if c.Sequence != before.Sequence+1 {
				w.t.Errorf("customer %s: sequence %d after %d", c.Customer, c.Sequence, before.Sequence)
			}
			if any != (c.Previous != nil) || any && c.Previous.ID != before.New.ID {
				w.t.Errorf("customer %s: change %d does not begin where the one before ended", c.Customer, c.Sequence)
			}
			last[c.Customer] = c
		}
	}
	for p := range w.Config.Partitions {
		f, err := w.Store(p).Fence(context.Background())
		if err != nil {
			w.t.Fatal(err)
		}
		tiers := w.rules(f.State.Rules).Model.Tiers()
		for id, v := range w.Records(p) {
			c, published := last[id]
			st := Decoded(w.t, v).Standing
			switch {
			case published != (st.Tier >= 0), st.Sequence != uint64(c.Sequence):
				w.t.Errorf("customer %s: the record has change %d, published is %d", id, st.Sequence, c.Sequence)
			case published && tiers[st.Tier].ID != c.New.ID:
				w.t.Errorf("customer %s: the record has tier %s, published is %s", id, tiers[st.Tier].ID, c.New.ID)
			}
			delete(last, id)
		}
	}
	for id := range last {
		w.t.Errorf("customer %s has tier changes but no record", id)
	}
}

func (w *World) rules(h protocol.Hash) *fold.Rules {
	w.t.Helper()
	for _, records := range w.Read(w.Topics.Rules) {
		for _, r := range records {
			if sha256.Sum256(r.Value) == h {
				parsed, err := fold.ParseRules(r.Value)
				if err != nil {
					w.t.Fatal(err)
				}
				return parsed
			}
		}
	}
	w.t.Fatalf("rules %s are not kept", h)
	return nil
}
