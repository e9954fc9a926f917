package simulation

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/state"
)

// perSeed is how many faults a seed has.
const perSeed = 7

// outcome is what a seed came to.
type outcome struct {
	Seed     uint64
	Events   int
	Hits     []pair // faults that met their step
	Unmet    []pair // faults whose step did not come about
	Raised   int    // rebuilds on a new key generation
	Rejected int    // scripts refused
	Settled  time.Duration
	Virtual  time.Duration
	Result   uint64 // hash of what was published and stored
	Story    uint64 // hash of which fault met whom and when
	Failures []string
	Trace    []string `json:",omitempty"`
}

// simulate runs one seed in a bubble of its own.
func simulate(t *testing.T, seed uint64, plan func(*world) []*fault) (o *outcome) {
	synctest.Test(t, func(t *testing.T) {
		o = runSeed(t, seed, plan)
	})
	return o
}

// seedPlan draws the faults of a seed.
func seedPlan(w *world) []*fault {
	var fs []*fault
	for j, p := range pairs(w.seed) {
		fs = append(fs, newFault(w.rnd, p, j+1))
	}
	return fs
}

// pairs are what the faults of a seed are and where they happen.
func pairs(seed uint64) []pair {
	var ps []pair
	for j := range uint64(perSeed) {
		ps = append(ps, drawn(seed, j, perSeed))
	}
	if *faultFlag != "" {
		for _, p := range meaningful {
			if fmt.Sprintf("%s at %s", p.kind, p.step) == *faultFlag {
				ps[0] = p
				return ps
			}
		}
		panic("simulation: no such fault: " + *faultFlag)
	}
	return ps
}

// needsOld: AddPartitionsToTxn is a request only of brokers before Kafka 4.
func needsOld(seed uint64) bool {
	for _, p := range pairs(seed) {
		if p.step == addPartitions {
			return true
		}
	}
	return seed%4 == 0
}

func runSeed(t *testing.T, seed uint64, plan func(*world) []*fault) *outcome {
	w := newWorld(t, seed, needsOld(seed))
	o := &outcome{Seed: seed}
	w.tracef("seed %d: clock %s, batches of %d, cache of %d bytes", seed, w.cfg.Rules.Clock, w.cfg.BatchRecords, w.cfg.CacheBytes)
	for range 2 + w.rnd.IntN(2) {
		w.start()
	}
	feed := newFeeder(w)
	stop, fed := make(chan struct{}), make(chan struct{})
	go func() { defer close(fed); feed.run(stop) }()

	if plan != nil {
		for _, f := range plan(w) {
			time.Sleep(f.quiet)
			if !w.bring(f, feed) {
				o.Unmet = append(o.Unmet, f.pair)
			}
		}
	}
	w.heal()
	close(stop)
	<-fed
	o.Events = feed.count()
	healed := time.Now()
	fail := func(format string, args ...any) {
		o.Failures = append(o.Failures, fmt.Sprintf(format, args...))
	}
	if err := w.settle(feed); err != nil {
		fail("it did not settle: %v", err)
	}
	o.Settled = time.Since(healed)
	if len(o.Failures) == 0 && seed%3 == 0 {
		w.calm(feed, fail)
	}
	if len(o.Failures) == 0 && seed%25 == 7 {
		w.flood(feed, fail)
	}
	w.stop(fail)
	o.Result = w.verify(feed, fail)
	w.watch.mu.Lock()
	for _, v := range w.watch.violations {
		fail("I7: %s", v)
	}
	o.Raised, o.Rejected = w.watch.accepted[raise], w.watch.rejected
	w.watch.mu.Unlock()
	feed.close()
	w.client.Close()
	must(w.admin.Close())
	w.kafka.Close()
	w.redis.Close()
	time.Sleep(slowest) // requests that are under way still
	o.Hits, o.Story, o.Virtual = w.hits, hash(w.met), time.Since(w.began)
	if *storyFlag || len(o.Failures) > 0 {
		o.Trace = w.trace
	}
	return o
}

// bring arms a fault and sees to it that its step comes about.
func (w *world) bring(f *fault, feed *feeder) bool {
	switch f.step {
	case raise, abandoned: // after a rebuild that died before it could install
		w.provoked(pair{crashBefore, install}, feed)
	case forget: // after one that replaced customers
		w.provoked(pair{otherBranch, produceBatch}, feed)
	}
	w.arm(f)
	for range 4 {
		w.provoke(f.step, feed)
		select {
		case <-f.fired:
			return true
		case <-time.After(4 * time.Second):
		}
	}
	w.arm(nil)
	select {
	case <-f.fired:
		return true
	default:
	}
	w.tracef("%v: the step did not come about", f)
	return false
}

// provoked brings about another fault first.
func (w *world) provoked(p pair, feed *feeder) {
	f := &fault{pair: p, fired: make(chan struct{}), lasts: time.Second}
	w.bring(f, feed)
}

// provoke does what makes a rare step happen.
func (w *world) provoke(s step, feed *feeder) {
	switch s {
	case joinGroup, syncGroup, rulesRead, acquire, initProducerID, journalCommitted, journalUncommitted, journalFetch, dueRead, raise, load:
		is := w.running()
		if len(is) > 2 || len(is) > 0 && w.rnd.IntN(2) == 0 {
			// Somebody who owns something, so that it is acquired anew.
			at := w.rnd.IntN(len(is))
			for n := range is {
				if i := is[(at+n)%len(is)]; i.p.Totals().Partitions > 0 {
					at = (at + n) % len(is)
					break
				}
			}
			w.leave(is[at])
		}
		if len(is) < 4 {
			w.start()
		}
	case install:
		w.failover(uint64(w.rnd.IntN(4)), w.empty())
	case reapply, aim:
		w.setBack(2 + w.rnd.IntN(6))
		w.failover(uint64(w.rnd.IntN(4)), nil)
	case compare:
		feed.hush(3 * time.Second)
	}
}

// heal ends all faults.
func (w *world) heal() {
	w.arm(nil)
	time.Sleep(500 * time.Millisecond) // for what comes with a reply under way
	w.mu.Lock()
	w.healed = true
	w.mu.Unlock()
	for w.waiting() > 0 { // whoever crashed is replaced, pauses end, old primaries return
		time.Sleep(100 * time.Millisecond)
	}
	w.refuse("", 0)
	for _, h := range w.hosts() {
		h.mu.Lock()
		h.skew = 0
		h.mu.Unlock()
	}
	w.tracef("no more faults")
	for len(w.running()) < 2 {
		w.start()
	}
}

func (w *world) waiting() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pending
}

// stoppedByClock is what a partition says that was stopped by a clock which
// jumped; a human sets the clock and starts the instance again.
const stoppedByClock = "later than now by more than the allowed skew"

// settle waits until everything sent is applied, by instances that are ready.
func (w *world) settle(feed *feeder) error {
	const limit = 90 * time.Second
	var last error
	for began := time.Now(); time.Since(began) < limit; time.Sleep(250 * time.Millisecond) {
		if last = w.settledOnce(feed); last == nil {
			w.tracef("settled")
			return nil
		}
		for _, i := range w.running() {
			for p, err := range i.p.Stopped() {
				if !strings.Contains(err.Error(), stoppedByClock) {
					return fmt.Errorf("%s: partition %d stopped: %w", i.name, p, err)
				}
				w.tracef("%s: started again, its clock is right now", i.name)
				w.leave(i)
				w.start()
				break
			}
		}
	}
	for _, i := range w.running() {
		if err := i.p.Ready(); err != nil {
			last = errors.Join(last, fmt.Errorf("%s: %w", i.name, err))
		}
	}
	return last
}

// calm: without faults, an owner that idles longer than its lease keeps it, and
// no script is refused.
func (w *world) calm(feed *feeder, fail func(string, ...any)) {
	// Redis may have been set back just before, to an earlier owner of the same
	// point. An owner that idles finds out within a second, and acquires anew.
	time.Sleep(2 * lease)
	if err := w.settle(feed); err != nil {
		fail("it did not stay settled: %v", err)
	}
	before := w.watch.refused()
	time.Sleep(2 * lease)
	for range 3 {
		feed.burst(10)
	}
	if err := w.settle(feed); err != nil {
		fail("it did not settle a second time: %v", err)
	}
	if n := w.watch.refused() - before; n > 0 {
		fail("%d scripts were refused although nothing went wrong", n)
	}
}

// flood: a flood of refused records stops its partition before the batch that
// trips is applied, also after a restart, until somebody allows it.
func (w *world) flood(feed *feeder, fail func(string, ...any)) {
	w.tracef("a flood of bad records")
	const limit = 30 * time.Second
	feed.nonsense(3000)
	tripped := func() bool {
		for _, i := range w.running() {
			for _, err := range i.p.Stopped() {
				if errors.Is(err, fold.ErrFlood) {
					return true
				}
			}
		}
		return false
	}
	for range 2 {
		for began := time.Now(); !tripped(); time.Sleep(100 * time.Millisecond) {
			if time.Since(began) > limit {
				fail("a flood of refused records stopped nobody")
				return
			}
		}
		w.mu.Lock()
		w.cfg.AllowRejects = w.floods // the second time
		w.floods = true
		w.mu.Unlock()
		for _, i := range w.running() {
			w.leave(i)
			<-i.done
		}
		w.start()
		w.start()
	}
	if err := w.settle(feed); err != nil {
		fail("it did not settle after the flood was allowed: %v", err)
	}
}

// settledOnce: everything that was sent is applied, and everything that was
// applied is published. A stop in good order publishes for half a lease only,
// which may not be enough where transactions take long.
func (w *world) settledOnce(feed *feeder) (err error) {
	feed.mu.Lock()
	defer feed.mu.Unlock()
	var applied [partitions]protocol.Point
	for p := range int32(partitions) {
		f, err := state.NewStore(w.admin, namespace, p, lease).Fence(w.ctx)
		if err != nil || f == nil || f.Loading {
			return fmt.Errorf("partition %d: fence %+v, %w", p, f, err)
		}
		for i, t := range w.topics.Inputs {
			if want := feed.last[t][p]; f.State.Next[i].Next < want {
				return fmt.Errorf("partition %d: %s is applied up to %d of %d", p, t, f.State.Next[i].Next, want)
			}
		}
		applied[p] = f.Point
	}
	for _, i := range w.running() {
		if err := i.p.Ready(); err != nil {
			return fmt.Errorf("%s: %w", i.name, err)
		}
	}
	journal := w.read([]string{w.topics.Journal}, func(format string, args ...any) { err = fmt.Errorf(format, args...) })[w.topics.Journal]
	for p := range int32(partitions) {
		if err != nil {
			return err
		}
		var last *protocol.Record
		if n := len(journal[p]); n > 0 {
			last, err = protocol.DecodeRecord(journal[p][n-1].Value)
		}
		if err == nil && (last == nil || applied[p] != protocol.Point{Seq: last.Seq, Chain: last.Chain}) {
			err = fmt.Errorf("partition %d: not all that is applied is published", p)
		}
	}
	return err
}

// stop ends all instances in good order, and waits for what is left of the
// crashed ones.
func (w *world) stop(fail func(string, ...any)) {
	w.mu.Lock()
	w.over = true
	w.mu.Unlock()
	for _, i := range w.running() {
		owns := i.p.Totals().Partitions > 0 // else it may have met a fault while it was starting
		i.cancel()
		<-i.done
		if owns && i.err != nil && !errors.Is(i.err, context.Canceled) { // while it was starting
			fail("%s did not stop cleanly: %v", i.name, i.err)
		}
	}
	w.ending.Wait()
}
