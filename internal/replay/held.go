package replay

import (
	"bytes"
	"container/heap"
	"strings"

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
}

type stored struct {
	value []byte
	due   int64
}

func newHeld() *held {
	return &held{values: map[string]stored{}, waiting: map[fold.Waiting][]byte{}}
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
		h.values[id] = stored{bytes.Clone(p.Value), p.Due}
		if p.DueMoved && p.Due != state.NeverDue {
			heap.Push(&h.due, protocol.Bound{Due: p.Due, Customer: id})
		}
	}
	for k, v := range out.Wait {
		h.waiting[k] = v
	}
	for _, k := range out.Unwait {
		delete(h.waiting, k)
	}
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
