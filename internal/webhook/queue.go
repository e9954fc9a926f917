package webhook

import (
	"container/heap"
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// queue delivers one endpoint's changes: those of a customer one after the
// other in the order of their sequence, those of different customers beside
// each other. What fails, and what stands behind it, is set aside in Kafka, so
// that its offset can be committed; it stays in memory and is tried again.
type queue struct {
	endpoint    string
	concurrency int
	schedule    []time.Duration
	attempt     func(context.Context, *change) outcome
	store       store
	metrics     *endpointMetrics
	// stopped is called once when the endpoint answers 410; nothing is sent any
	// more then.
	stopped func(reason string)

	mu       sync.Mutex
	lanes    map[laneKey]*lane
	due      laneHeap // lanes with something to send that are not sending
	offsets  map[int32]*offsets
	closing  map[int32]bool // partitions that are being given up
	inFlight int
	held     int // bytes
	notUntil time.Time
	busy     int // answers in a row that the endpoint has too much to do
	failures int // in a row, of whomever
	off      bool
	timer    *time.Timer
	moved    chan struct{} // closed and replaced when an attempt ends
}

// store keeps what is set aside. Calls return at once; writes of one entry take
// effect in the order of the calls.
type store interface {
	put(e *Entry, then func(error))
	remove(e *Entry, then func(error))
}

// laneKey is a customer; a partition is part of it because it is handed over
// with everything in it.
type laneKey struct {
	partition int32
	customer  string
}

// lane is one customer's changes, by sequence.
type lane struct {
	laneKey
	waits   []*delivery
	sending bool
	failing bool // its first has failed and waits
	index   int  // in the heap; -1: not there
}

// delivery is one change on its way.
type delivery struct {
	Entry
	offset int64
	live   bool // its offset is not done with
	aside  bool // the topic of what is set aside has it, or will
}

// outage is how many failures in a row count as one: the next success makes
// everything due that failed meanwhile.
const outage = 5

// init makes the maps of a queue whose settings are given.
func (q *queue) init() *queue {
	q.lanes, q.offsets, q.closing, q.moved = map[laneKey]*lane{}, map[int32]*offsets{}, map[int32]bool{}, make(chan struct{})
	return q
}

// offsets follow what is done with in one partition, without a gap.
type offsets struct {
	pending []int64 // ascending
	done    map[int64]bool
	next    int64 // to be committed; 0: nothing yet
}

func (o *offsets) finish(offset int64) {
	o.done[offset] = true
	for len(o.pending) > 0 && o.done[o.pending[0]] {
		delete(o.done, o.pending[0])
		o.next = o.pending[0] + 1
		o.pending = o.pending[1:]
	}
}

// open begins with a partition and what is set aside of it.
func (q *queue) open(ctx context.Context, partition int32, entries []*Entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.closing, partition)
	q.offsets[partition] = &offsets{done: map[int64]bool{}}
	for _, e := range entries {
		q.insert(&delivery{Entry: *e, aside: true})
	}
	q.start(ctx)
}

// offer takes a change of an open partition; skip only counts its offset.
func (q *queue) offer(ctx context.Context, partition int32, offset int64, c change, skip bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	o := q.offsets[partition]
	if o == nil {
		return
	}
	o.pending = append(o.pending, offset)
	d := &delivery{Entry: Entry{Endpoint: q.endpoint, Partition: partition, change: c}, offset: offset, live: true}
	if skip || q.off || !q.insert(d) {
		if !q.off {
			o.finish(offset)
		}
		return
	}
	if l := q.lanes[laneKey{partition, c.customer}]; l.failing {
		q.setAside(d)
	}
	q.start(ctx)
}

// restore takes an entry that somebody else wrote, such as a replay.
func (q *queue) restore(ctx context.Context, e *Entry) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.offsets[e.Partition] == nil || q.closing[e.Partition] || q.off {
		return
	}
	q.insert(&delivery{Entry: *e, aside: true})
	q.start(ctx)
}

// insert puts a delivery in its place; false when the same is there already.
func (q *queue) insert(d *delivery) bool {
	k := laneKey{d.Partition, d.customer}
	l := q.lanes[k]
	if l == nil {
		l = &lane{laneKey: k, index: -1}
		q.lanes[k] = l
	}
	at := 0
	for ; at < len(l.waits); at++ {
		w := l.waits[at]
		if w.id == d.id {
			return false
		}
		if w.sequence > d.sequence && !(at == 0 && l.sending) {
			break
		}
	}
	l.waits = slices.Insert(l.waits, at, d)
	q.held += d.size()
	l.failing = l.waits[0].Attempts > 0
	q.enqueue(l)
	return true
}

// enqueue puts a lane where its first delivery belongs.
func (q *queue) enqueue(l *lane) {
	switch {
	case l.sending || len(l.waits) == 0 || q.closing[l.partition]:
		if l.index >= 0 {
			heap.Remove(&q.due, l.index)
		}
	case l.index >= 0:
		heap.Fix(&q.due, l.index)
	default:
		heap.Push(&q.due, l)
	}
	if len(l.waits) == 0 {
		delete(q.lanes, l.laneKey)
	}
}

// start sends what is due, as far as it may.
func (q *queue) start(ctx context.Context) {
	now := time.Now()
	limit := q.concurrency
	if q.busy > 0 {
		limit = 1 // which shows whether it is over
	}
	for !q.off && q.inFlight < limit && len(q.due) > 0 {
		l := q.due[0]
		at := l.waits[0].Next
		if q.notUntil.After(at) {
			at = q.notUntil
		}
		if at.After(now) {
			q.wake(ctx, at.Sub(now))
			return
		}
		l.sending = true
		q.enqueue(l)
		q.inFlight++
		d := l.waits[0]
		go func() {
			began := time.Now()
			o := q.attempt(ctx, &d.change)
			q.metrics.attempted(ctx, o, time.Since(began))
			q.finish(ctx, l, d, o)
		}()
	}
}

// wake looks again after a pause.
func (q *queue) wake(ctx context.Context, pause time.Duration) {
	if q.timer != nil {
		q.timer.Stop()
	}
	q.timer = time.AfterFunc(pause, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if ctx.Err() == nil {
			q.start(ctx)
		}
	})
}

// finish is told what came of an attempt at a lane's first delivery.
func (q *queue) finish(ctx context.Context, l *lane, d *delivery, o outcome) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.inFlight--
	l.sending = false
	defer func() {
		q.signal()
		q.start(ctx)
	}()
	if q.lanes[l.laneKey] != l || ctx.Err() != nil && o.verdict != delivered {
		return // lost, or cut off by our own end
	}
	now := time.Now()
	if d.First.IsZero() {
		d.First = now
	}
	switch o.verdict {
	case delivered:
		q.succeeded(ctx, l, d, now)
	case gone:
		if !q.off {
			q.off = true
			go q.stopped(o.reason)
		}
		q.enqueue(l)
		return
	case throttled:
		d.Reason = o.reason
		if now.Sub(d.First) > span(q.schedule) {
			q.park(ctx, l)
		}
	case failed:
		q.failures++
		d.Reason = o.reason
		d.Attempts++
		if d.Attempts > len(q.schedule) {
			q.park(ctx, l)
			break
		}
		d.Next = now.Add(max(jittered(q.schedule[d.Attempts-1]), o.pause))
		l.failing = true
		for _, w := range l.waits {
			if w == d || !w.aside {
				q.setAside(w)
			}
		}
	}
	if o.busy {
		q.busy++
		pause := o.pause
		if pause == 0 {
			pause = jittered(min(throttleMin<<min(q.busy-1, 10), throttleMax))
		}
		if until := now.Add(pause); until.After(q.notUntil) {
			q.notUntil = until
		}
	} else {
		q.busy = 0
	}
	q.enqueue(l)
}

// succeeded removes the first delivery of a lane.
func (q *queue) succeeded(ctx context.Context, l *lane, d *delivery, now time.Time) {
	q.metrics.delivered(ctx, now.Sub(d.at))
	l.waits = slices.DeleteFunc(l.waits, func(w *delivery) bool { return w == d })
	l.failing = len(l.waits) > 0 && l.waits[0].Attempts > 0
	q.held -= d.size()
	if d.aside {
		q.store.remove(&d.Entry, func(error) {}) // else it is sent again one day
	}
	q.done(d)
	if q.failures >= outage {
		// It is back: what failed meanwhile need not wait for its hour. Spread, so
		// that it is not felled again.
		for _, other := range q.lanes {
			soon := now.Add(rand.N(throttleMin))
			if len(other.waits) > 0 && !other.sending && other.waits[0].Next.After(soon) {
				other.waits[0].Next = soon
			}
		}
		heap.Init(&q.due)
	}
	q.failures = 0
}

// done is done with a live delivery's offset.
func (q *queue) done(d *delivery) {
	if d.live {
		d.live = false
		if o := q.offsets[d.Partition]; o != nil {
			o.finish(d.offset)
		}
	}
}

// setAside writes a delivery; then its offset is done with.
func (q *queue) setAside(d *delivery) {
	d.aside = true
	d.State = Waiting
	e := d.Entry
	o := q.offsets[d.Partition]
	q.store.put(&e, q.written(d, o))
}

// written is what follows a write: the offset is done with, if the partition
// is still the same one.
func (q *queue) written(d *delivery, o *offsets) func(error) {
	return func(err error) {
		q.mu.Lock()
		defer q.mu.Unlock()
		if err == nil && q.offsets[d.Partition] == o {
			q.done(d)
		}
	}
}

// park gives up a lane's first delivery and all that stands behind it.
func (q *queue) park(ctx context.Context, l *lane) {
	for _, d := range l.waits {
		q.metrics.count(ctx, resultParked)
		q.held -= d.size()
		d.State = Parked
		d.Next = time.Time{}
		if d.Reason == "" {
			d.Reason = "stands behind another that was given up"
		}
		e := d.Entry
		q.store.put(&e, q.written(d, q.offsets[d.Partition]))
	}
	l.waits, l.failing = nil, false
}

// committable are the offsets to commit, by partition.
func (q *queue) committable() map[int32]int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	next := map[int32]int64{}
	for p, o := range q.offsets {
		if o.next > 0 {
			next[p] = o.next
		}
	}
	return next
}

// room waits until fewer than limit bytes are held.
func (q *queue) room(ctx context.Context, limit int) bool {
	for {
		q.mu.Lock()
		free, moved := q.held < limit && !q.off, q.moved
		q.mu.Unlock()
		if free {
			return true
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return false
		}
	}
}

// quiesce begins nothing more of the partitions and waits for what is under
// way. The lanes are dropped then; drop is the end of them.
func (q *queue) quiesce(ctx context.Context, partitions []int32) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, p := range partitions {
		q.closing[p] = true
	}
	for _, l := range q.lanes {
		if q.closing[l.partition] && l.index >= 0 {
			heap.Remove(&q.due, l.index)
		}
	}
	for {
		sending := false
		for _, l := range q.lanes {
			sending = sending || l.sending && q.closing[l.partition]
		}
		if !sending {
			return
		}
		moved := q.moved
		q.mu.Unlock()
		select {
		case <-moved:
		case <-ctx.Done():
			q.mu.Lock()
			return
		}
		q.mu.Lock()
	}
}

// drop forgets partitions: somebody else has them.
func (q *queue) drop(partitions []int32) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, p := range partitions {
		delete(q.offsets, p)
		delete(q.closing, p)
	}
	for k, l := range q.lanes {
		if q.offsets[k.partition] == nil {
			if l.index >= 0 {
				heap.Remove(&q.due, l.index)
			}
			for _, d := range l.waits {
				q.held -= d.size()
			}
			delete(q.lanes, k)
		}
	}
	q.signal()
}

// signal wakes whoever waits for something to move.
func (q *queue) signal() {
	close(q.moved)
	q.moved = make(chan struct{})
}

// status is a look at what waits.
func (q *queue) status() (waiting int, oldest time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, l := range q.lanes {
		if !l.failing {
			continue
		}
		waiting += len(l.waits)
		if first := l.waits[0].First; oldest.IsZero() || first.Before(oldest) {
			oldest = first
		}
	}
	return waiting, oldest
}

// laneHeap has the lane that is due first on top.
type laneHeap []*lane

func (h laneHeap) Len() int           { return len(h) }
func (h laneHeap) Less(i, j int) bool { return h[i].waits[0].Next.Before(h[j].waits[0].Next) }
func (h laneHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i]; h[i].index, h[j].index = i, j }
func (h *laneHeap) Push(x any)        { l := x.(*lane); l.index = len(*h); *h = append(*h, l) }
func (h *laneHeap) Pop() any {
	old := *h
	l := old[len(old)-1]
	*h = old[:len(old)-1]
	l.index = -1
	return l
}
