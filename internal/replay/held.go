package replay

import (
	"bytes"
	"container/heap"
	"context"
	"fmt"
	"math"
	"strings"

	"github.com/tierstream/tierstream/internal/customer"
	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/state"
)

// held is the state of one partition in memory. Customers are kept as stored
// bytes, which take a third of what decoded records take, so that memory
// follows the customers of the partitions under way and not the log.
type held struct {
	values  map[string]stored
	waiting map[fold.Waiting][]byte
	due     dueHeap

	// Where the state is in Redis: what was written since the last flush.
	remote *remote
	dirty  map[string]before
	unwait map[fold.Waiting]bool
}

type stored struct {
	value []byte // nil: Redis has none
	due   int64
}

// before is what Redis holds of a customer.
type before struct {
	there bool
	due   int64
}

func newHeld() *held {
	return &held{values: map[string]stored{}, waiting: map[fold.Waiting][]byte{}, dirty: map[string]before{}, unwait: map[fold.Waiting]bool{}}
}

// customer decodes one; of whom nothing is known, a new one.
func (h *held) customer(id string) (*fold.Customer, error) {
	if s, ok := h.values[id]; ok && s.value != nil {
		return fold.StoredCustomer(id, s.value)
	}
	return fold.NewCustomer(strings.Clone(id)), nil // the ID lies in the record's memory
}

// apply takes what a batch leads to.
func (h *held) apply(out *fold.Output) {
	for i := range out.Puts {
		p := &out.Puts[i]
		id := p.Customer.ID
		if _, ok := h.dirty[id]; !ok && h.remote != nil {
			old := h.values[id]
			h.dirty[id] = before{old.value != nil, old.due}
		}
		h.values[id] = stored{bytes.Clone(p.Value), p.Due}
		if p.DueMoved && p.Due != state.NeverDue {
			heap.Push(&h.due, protocol.Bound{Due: p.Due, Customer: id})
		}
	}
	for k, v := range out.Wait {
		h.waiting[k] = v
		delete(h.unwait, k)
	}
	for _, k := range out.Unwait {
		delete(h.waiting, k)
		if h.remote != nil {
			h.unwait[k] = true
		}
	}
}

// fetch loads customers from Redis who are not in memory yet.
func (h *held) fetch(ctx context.Context, ids []string) error {
	if h.remote == nil {
		return nil
	}
	var missing []string
	for _, id := range ids {
		if _, ok := h.values[id]; !ok {
			id = strings.Clone(id)
			h.values[id] = stored{due: state.NeverDue}
			missing = append(missing, id)
		}
	}
	values, err := h.remote.store.Load(ctx, h.remote.id, missing)
	if err != nil {
		return err
	}
	var waits []state.WaitingKey
	for i, v := range values {
		if v == nil {
			continue
		}
		r := customer.NewRecord()
		if err := customer.Decode(v, &r); err != nil {
			return fmt.Errorf("customer %s: %w", missing[i], err)
		}
		h.values[missing[i]] = stored{v, r.Due}
		if r.Due != state.NeverDue {
			heap.Push(&h.due, protocol.Bound{Due: r.Due, Customer: missing[i]})
		}
		for _, w := range r.Facts.Waiting {
			waits = append(waits, state.WaitingKey{Customer: missing[i], Hash: w.Hash})
		}
	}
	originals, err := h.remote.store.LoadWaiting(ctx, h.remote.id, waits)
	if err != nil {
		return err
	}
	for i, w := range waits {
		h.waiting[fold.Waiting{Customer: w.Customer, Hash: w.Hash}] = originals[i]
	}
	return nil
}

// resume loads everybody for whom something is due, ever.
func (h *held) resume(ctx context.Context) error {
	due, err := h.remote.store.Due(ctx, h.remote.id, state.NeverDue-1, math.MaxInt32)
	if err != nil {
		return err
	}
	ids := make([]string, len(due))
	for i, d := range due {
		ids[i] = d.Customer
	}
	return h.fetch(ctx, ids)
}

// changed is what was written since the last flush.
func (h *held) changed(b *state.Batch) {
	for id, old := range h.dirty {
		s := h.values[id]
		b.Customers = append(b.Customers, state.Put{Customer: id, Value: s.value, Due: s.due, DueMoved: !old.there || old.due != s.due})
		r := customer.NewRecord()
		if customer.Decode(s.value, &r) == nil {
			for _, w := range r.Facts.Waiting {
				k := fold.Waiting{Customer: id, Hash: w.Hash}
				b.Wait = append(b.Wait, state.WaitingValue{WaitingKey: state.WaitingKey{Customer: id, Hash: w.Hash}, Record: h.waiting[k]})
			}
		}
	}
	for k := range h.unwait {
		b.Unwait = append(b.Unwait, state.WaitingKey{Customer: k.Customer, Hash: k.Hash})
	}
	clear(h.dirty)
	clear(h.unwait)
}

// dueBelow lists the first n customers due below a bound, in (due, customer)
// order. They stay in the set.
func (h *held) dueBelow(b protocol.Bound, n int) (due []protocol.Bound) {
	for len(h.due) > 0 && h.due[0].Less(b) && len(due) < n {
		// An entry counts only while the customer's due time is still its own;
		// one that came back to an earlier due time has two.
		d := heap.Pop(&h.due).(protocol.Bound)
		if h.values[d.Customer].due == d.Due && (len(due) == 0 || due[len(due)-1] != d) {
			due = append(due, d)
		}
	}
	for _, d := range due {
		heap.Push(&h.due, d)
	}
	return due
}

// dueHeap has an entry for every due time that a customer has or had.
type dueHeap []protocol.Bound

func (h dueHeap) Len() int           { return len(h) }
func (h dueHeap) Less(i, j int) bool { return h[i].Less(h[j]) }
func (h dueHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *dueHeap) Push(x any)        { *h = append(*h, x.(protocol.Bound)) }
func (h *dueHeap) Pop() any {
	last := len(*h) - 1
	d := (*h)[last]
	(*h)[last] = protocol.Bound{}
	*h = (*h)[:last]
	return d
}

// size is how many customers have a record.
func (h *held) size() (n int64) {
	for _, s := range h.values {
		if s.value != nil {
			n++
		}
	}
	return n
}
