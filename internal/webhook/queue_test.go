package webhook

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// memory is the topic of what is set aside, as far as a queue sees it. Writes
// take effect after a moment, in their order.
type memory struct {
	mu      sync.Mutex
	entries map[string]Entry
	writes  chan func()
}

func newMemory(t *testing.T) *memory {
	m := &memory{entries: map[string]Entry{}, writes: make(chan func(), 10_000)}
	go func() {
		for w := range m.writes {
			time.Sleep(time.Millisecond) // in virtual time
			w()
		}
	}()
	t.Cleanup(func() { close(m.writes) })
	return m
}

func (m *memory) put(e *Entry, then func(error)) {
	m.writes <- func() {
		m.mu.Lock()
		m.entries[e.key()] = *e
		m.mu.Unlock()
		then(nil)
	}
}

func (m *memory) remove(e *Entry, then func(error)) {
	k := e.key()
	m.writes <- func() {
		m.mu.Lock()
		delete(m.entries, k)
		m.mu.Unlock()
		then(nil)
	}
}

// in are the IDs of entries of a state, sorted.
func (m *memory) in(s State) (ids []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.entries {
		if e.State == s {
			ids = append(ids, e.id)
		}
	}
	slices.Sort(ids)
	return ids
}

// receiver is an endpoint in virtual time: it keeps what it was sent.
type receiver struct {
	mu       sync.Mutex
	tried    []string // IDs of all attempts
	times    []time.Time
	got      []string // IDs delivered
	sending  map[string]bool
	together int // customers at one time, at most
	answer   func(c *change) outcome
}

func (r *receiver) answerBy(answer func(c *change) outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answer = answer
}

func (r *receiver) attempt(_ context.Context, c *change) outcome {
	r.mu.Lock()
	if r.sending[c.customer] {
		panic("two requests for one customer at a time")
	}
	r.sending[c.customer] = true
	r.together = max(r.together, len(r.sending))
	r.tried, r.times = append(r.tried, c.id), append(r.times, time.Now())
	r.mu.Unlock()
	time.Sleep(10 * time.Millisecond)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.sending, c.customer)
	o := r.answer(c)
	if o.verdict == delivered {
		r.got = append(r.got, c.id)
	}
	return o
}

// pass lets virtual time pass and everything come to rest.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func ok(*change) outcome { return outcome{verdict: delivered, status: 200} }
func oops(*change) outcome {
	return outcome{verdict: failed, status: 500, reason: "500 Internal Server Error"}
}

// rig is a queue of partition 0 with its surroundings.
type rig struct {
	*queue
	memory   *memory
	receiver *receiver
	stopped  chan string
	offset   int64
}

func newRig(t *testing.T, answer func(*change) outcome) *rig {
	t.Helper()
	m, err := newMetrics()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{memory: newMemory(t), receiver: &receiver{sending: map[string]bool{}, answer: answer}, stopped: make(chan string, 1)}
	r.queue = (&queue{
		endpoint: "crm", concurrency: 4, schedule: Schedule, attempt: r.receiver.attempt,
		store: r.memory, metrics: m.endpoint("crm"), stopped: func(reason string) { r.stopped <- reason },
	}).init()
	r.open(t.Context(), 0, nil)
	return r
}

// offer gives the queue changes named like a1: customer and sequence.
func (r *rig) offer(ctx context.Context, names ...string) {
	for _, name := range names {
		r.queue.offer(ctx, 0, r.offset, named(name), false)
		r.offset++
	}
}

func named(name string) change {
	c := change{id: name, customer: name[:1], at: time.Now(), body: []byte(name)}
	_, _ = fmt.Sscan(name[1:], &c.sequence)
	return c
}

func TestDeliversACustomersChangesInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, ok)
		r.offer(t.Context(), "a1", "b1", "a2", "a3", "b2", "c1", "d1", "e1", "f1")
		pass(time.Second)
		if r.receiver.together != 4 {
			t.Errorf("%d customers at a time, want the 4 allowed", r.receiver.together)
		}
		ordered(t, r.receiver.got, 9)
		if next := r.committable()[0]; next != 9 {
			t.Errorf("offset %d may be committed, want 9", next)
		}
		if r.held != 0 {
			t.Errorf("%d bytes are held, want none", r.held)
		}
	})
}

// ordered checks that each customer's IDs ascend, without a double.
func ordered(t *testing.T, got []string, want int) {
	t.Helper()
	if len(got) != want {
		t.Errorf("%d changes were delivered, want %d: %q", len(got), want, got)
	}
	last := map[string]uint64{}
	for _, id := range got {
		if c := named(id); c.sequence <= last[c.customer] {
			t.Errorf("%s came after %d", id, last[c.customer])
		} else {
			last[c.customer] = c.sequence
		}
	}
}

// Ten attempts over three days, then parked with what stands behind; other
// customers go on, and offsets are committed all the while.
func TestRetriesFollowThePublishedSchedule(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *change) outcome {
			if c.customer == "a" {
				return oops(c)
			}
			return ok(c)
		})
		begin := time.Now()
		r.offer(t.Context(), "a1", "b1", "a2")
		pass(time.Second)
		r.offer(t.Context(), "a3", "b2")
		pass(time.Second)
		if got := r.receiver.got; !slices.Equal(got, []string{"b1", "b2"}) {
			t.Errorf("delivered are %q, want those of b", got)
		}
		if next := r.committable()[0]; next != 5 {
			t.Errorf("offset %d may be committed, want 5: what failed is set aside", next)
		}
		if waiting := r.memory.in(Waiting); !slices.Equal(waiting, []string{"a1", "a2", "a3"}) {
			t.Errorf("set aside are %q", waiting)
		}
		if n, oldest := r.status(); n != 3 || oldest.Sub(begin) > time.Second {
			t.Errorf("%d wait since %s", n, oldest)
		}
		pass(100 * time.Hour)
		var at []time.Time
		for i, id := range r.receiver.tried {
			if id == "a1" {
				at = append(at, r.receiver.times[i])
			}
		}
		if len(at) != len(Schedule)+1 {
			t.Fatalf("%d attempts, want %d", len(at), len(Schedule)+1)
		}
		for i, pause := range Schedule {
			if got := at[i+1].Sub(at[i]); got < pause*9/10 || got > pause*11/10+time.Second {
				t.Errorf("pause %d was %s, want %s within a tenth", i+1, got, pause)
			}
		}
		if parked := r.memory.in(Parked); !slices.Equal(parked, []string{"a1", "a2", "a3"}) {
			t.Errorf("parked are %q", parked)
		}
		if n, _ := r.status(); n != 0 || r.held != 0 {
			t.Errorf("%d still wait, %d bytes are held", n, r.held)
		}
		// What comes later is tried anew.
		r.receiver.answerBy(ok)
		r.offer(t.Context(), "a4")
		pass(time.Second)
		if got := r.receiver.got; got[len(got)-1] != "a4" {
			t.Errorf("delivered are %q", got)
		}
	})
}

// 429 concerns the endpoint, not the change: nothing is sent until the moment
// it names, no attempt is counted, nothing is set aside.
func TestRetryAfterHoldsTheWholeEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		r := newRig(t, func(c *change) outcome {
			if time.Since(begin) < time.Hour {
				return outcome{verdict: throttled, status: 429, busy: true, pause: 2 * time.Hour, reason: "429"}
			}
			return ok(c)
		})
		r.offer(t.Context(), "a1", "b1", "a2")
		pass(time.Minute)
		r.offer(t.Context(), "c1")
		first := len(r.receiver.tried)
		pass(time.Hour + 58*time.Minute)
		if n := len(r.receiver.tried); n != first || first > 2 {
			t.Errorf("%d attempts, %d before two hours were over", first, n)
		}
		pass(2 * time.Minute)
		ordered(t, r.receiver.got, 4)
		if aside := r.memory.in(Waiting); len(aside) != 0 {
			t.Errorf("set aside are %q", aside)
		}
		if next := r.committable()[0]; next != 4 {
			t.Errorf("offset %d may be committed, want 4", next)
		}
	})
}

// An endpoint that never has time is given up like one that fails.
func TestThrottledForTooLongIsParked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(*change) outcome {
			return outcome{verdict: throttled, status: 429, busy: true, pause: 24 * time.Hour, reason: "429 Too Many Requests"}
		})
		r.offer(t.Context(), "a1")
		pass(90 * time.Hour)
		if parked := r.memory.in(Parked); len(parked) != 0 {
			t.Errorf("parked are %q already", parked)
		}
		pass(24 * time.Hour)
		if parked := r.memory.in(Parked); !slices.Equal(parked, []string{"a1"}) {
			t.Errorf("parked are %q, want a1", parked)
		}
	})
}

// 502 without Retry-After: pauses of the endpoint that double, one request at a
// time until it is over.
func TestBusyEndpointIsLeftAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(*change) outcome {
			return outcome{verdict: failed, status: 502, busy: true, reason: "502 Bad Gateway"}
		})
		for i := range 20 {
			r.offer(t.Context(), fmt.Sprintf("%c1", 'a'+i))
		}
		pass(time.Hour)
		// Alone, twenty customers would have made sixty attempts.
		times := r.receiver.times
		if n := len(times); n < 10 || n > 25 {
			t.Errorf("%d attempts in an hour", n)
		}
		for i := 8; i < len(times); i++ {
			if pause := times[i].Sub(times[i-1]); pause < time.Minute || pause > throttleMax*12/10 {
				t.Errorf("attempt %d came after %s", i, pause)
			}
		}
		r.receiver.answerBy(ok)
		pass(3 * time.Hour)
		ordered(t, r.receiver.got, 20)
	})
}

func TestGoneStopsTheEndpoint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *change) outcome {
			if c.id == "a2" {
				return outcome{verdict: gone, status: 410, reason: "410 Gone"}
			}
			return ok(c)
		})
		r.offer(t.Context(), "a1")
		pass(time.Second)
		r.offer(t.Context(), "a2", "a3")
		pass(time.Second)
		r.offer(t.Context(), "b1")
		pass(100 * time.Hour)
		if reason := <-r.stopped; reason != "410 Gone" {
			t.Errorf("stopped for %q", reason)
		}
		if got := r.receiver.tried; !slices.Equal(got, []string{"a1", "a2"}) {
			t.Errorf("tried are %q", got)
		}
		if next := r.committable()[0]; next != 1 {
			t.Errorf("offset %d may be committed, want 1: the rest comes when it is enabled", next)
		}
	})
}

// Everybody failed for hours. The first success shows that it is over: nobody
// waits for their hour.
func TestRecoveryIsNoticedAtTheFirstSuccess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, oops)
		for i := range 10 {
			r.offer(t.Context(), fmt.Sprintf("%c1", 'a'+i), fmt.Sprintf("%c2", 'a'+i))
		}
		pass(10 * time.Hour) // their next attempts are at 17 hours and a half
		r.receiver.answerBy(ok)
		r.offer(t.Context(), "z1")
		pass(10 * time.Second)
		ordered(t, r.receiver.got, 21)
		if left := r.memory.in(Waiting); len(left) != 0 {
			t.Errorf("still set aside are %q", left)
		}
	})
}

// Beyond the bound of memory nothing more is asked for until there is room.
func TestRoomWaitsForTheBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, oops)
		if !r.room(t.Context(), 1) {
			t.Error("there is room at the beginning")
		}
		r.offer(t.Context(), "a1", "b1")
		limit := 2 * overhead
		got := make(chan bool, 1)
		go func() { got <- r.room(t.Context(), limit) }()
		pass(time.Hour)
		select {
		case <-got:
			t.Error("there is room while two changes are held")
		default:
		}
		r.receiver.answerBy(ok)
		pass(3 * time.Hour)
		if !<-got {
			t.Error("there is no room when they are delivered")
		}
	})
}

// A partition that is given up: what is under way ends, nothing more begins,
// and the next owner finds what is set aside.
func TestHandover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *change) outcome {
			if c.id == "a1" {
				return oops(c)
			}
			return ok(c)
		})
		r.offer(t.Context(), "a1", "a2")
		pass(time.Second)
		r.offer(t.Context(), "b1", "b2", "c1")
		r.quiesce(t.Context(), []int32{0})
		tried := len(r.receiver.tried)
		if !slices.Contains(r.receiver.got, "b1") || slices.Contains(r.receiver.got, "b2") {
			t.Errorf("delivered are %q: want what was under way and no more", r.receiver.got)
		}
		if next := r.committable()[0]; next != 3 { // a1, a2 set aside, b1 delivered
			t.Errorf("offset %d may be committed, want 3", next)
		}
		r.drop([]int32{0})
		pass(time.Hour)
		if len(r.receiver.tried) != tried || r.held != 0 {
			t.Errorf("%d attempts after it was given up, %d bytes held", len(r.receiver.tried)-tried, r.held)
		}

		// The next owner reads from offset 3, and what is set aside.
		next := newRig(t, ok)
		next.drop([]int32{0})
		var entries []*Entry
		for _, e := range r.memory.entries {
			entries = append(entries, &e)
		}
		next.open(t.Context(), 0, entries)
		next.offset = 3
		next.offer(t.Context(), "b2", "c1", "a3")
		pass(time.Hour)
		for _, id := range []string{"a1", "a2", "a3", "b2", "c1"} {
			if !slices.Contains(next.receiver.got, id) {
				t.Errorf("%s was not delivered: %q", id, next.receiver.got)
			}
		}
		ordered(t, next.receiver.got, 5)
	})
}

// A replay tells its entries one by one; the older comes before the newer also
// when that one waits for its hour.
func TestReplayedChangesComeInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, func(c *change) outcome {
			if c.id == "a5" && time.Since(r0) < time.Minute {
				return oops(c)
			}
			return ok(c)
		})
		r.offer(t.Context(), "a5")
		pass(time.Second)
		for _, name := range []string{"a1", "a3", "a2"} {
			r.restore(t.Context(), &Entry{Endpoint: "crm", State: Waiting, change: named(name)})
		}
		pass(time.Hour)
		ordered(t, r.receiver.got, 4)
	})
}

// r0 is when virtual time begins (testing/synctest).
var r0 = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// Re-read after a crash, a change that stands aside is not sent on its own.
func TestReadAgainWhatIsSetAside(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRig(t, ok)
		e := Entry{Endpoint: "crm", State: Waiting, Attempts: 2, Next: time.Now().Add(time.Hour), change: named("a1")}
		r.restore(t.Context(), &e)
		r.offer(t.Context(), "a1", "a2")
		pass(time.Minute)
		if len(r.receiver.tried) != 0 {
			t.Errorf("tried are %q before it is due", r.receiver.tried)
		}
		if next := r.committable()[0]; next != 2 {
			t.Errorf("offset %d may be committed, want 2: both are set aside", next)
		}
		pass(2 * time.Hour)
		ordered(t, r.receiver.got, 2)
	})
}

// Whatever fails whenever, in the end every customer has everything once and in
// order, or it is parked.
func TestChanceChangesNothing(t *testing.T) {
	for seed := range uint64(30) {
		synctest.Test(t, func(t *testing.T) {
			chance, luck := rand.New(rand.NewPCG(seed, 0)), rand.New(rand.NewPCG(seed, 1))
			r := newRig(t, nil)
			r.receiver.answer = func(c *change) outcome {
				switch luck.IntN(6) {
				case 0:
					return oops(c)
				case 1:
					return outcome{verdict: failed, busy: true, status: 504}
				case 2:
					return outcome{verdict: throttled, busy: true, status: 429, pause: time.Duration(luck.IntN(1000)) * time.Second}
				}
				return ok(c)
			}
			sequence := map[byte]int{}
			const n = 400
			for range n {
				c := byte('a' + chance.IntN(12))
				sequence[c]++
				r.offer(t.Context(), fmt.Sprintf("%c%d", c, sequence[c]))
				if chance.IntN(10) == 0 {
					pass(time.Duration(chance.IntN(600)) * time.Second)
				}
			}
			pass(1000 * time.Hour)
			ordered(t, r.receiver.got, n-len(r.memory.in(Parked)))
			if next := r.committable()[0]; next != n {
				t.Errorf("seed %d: offset %d may be committed, want %d", seed, next, n)
			}
			if waiting := r.memory.in(Waiting); len(waiting) > 0 || r.held != 0 || len(r.lanes) != 0 || len(r.offsets[0].done) != 0 {
				t.Errorf("seed %d: left over are %s, %d bytes, %d lanes", seed, strings.Join(waiting, " "), r.held, len(r.lanes))
			}
		})
	}
}
