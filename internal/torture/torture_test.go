//go:build unix

package torture

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/rig"
	"github.com/tierstream/tierstream/internal/state"
	"github.com/tierstream/tierstream/internal/testenv"
)

var (
	duration  = flag.Duration("duration", 0, "go on breaking things for so long, but break each thing at least once")
	brokers   = flag.Int("brokers", 1, "brokers of the cluster; with three, leaders change and minorities die")
	rate      = flag.Int("rate", 200, "events a second")
	consumers = flag.Int("consumers", 3, "consumer processes")
	seed      = flag.Uint64("seed", 0, "draw the faults from this (0: TIERSTREAM_TEST_SEED, else the time)")
)

// patience is how long anything may take to go on after what was broken is
// whole again, on a machine that has other things to do.
const patience = 4 * time.Minute

// fault is one way to break something. It returns when the services are whole
// again; what the consumers make of it shows later.
type fault struct {
	name  string
	cards int // how often it lies in a deck
	do    func(r *run) string
	only  func() bool // nil: always
}

var faults = []fault{
	{name: "consumer killed", cards: 10, do: (*run).killConsumer},
	{name: "consumer paused beyond its session", cards: 1, do: (*run).pauseConsumer},
	{name: "consumer stopped in order", cards: 1, do: (*run).stopConsumer},
	{name: "Redis killed and restarted", cards: 1, do: (*run).killRedis},
	{name: "Redis restored from an older copy", cards: 1, do: (*run).restoreRedis},
	{name: "Redis restored to another branch", cards: 1, do: (*run).branchRedis},
	{name: "lagging replica promoted", cards: 1, do: (*run).promoteReplica},
	{name: "old primary back as primary", cards: 1, do: (*run).failBack},
	{name: "Redis wiped", cards: 1, do: (*run).wipeRedis},
	{name: "broker killed and restarted", cards: 1, do: (*run).killBroker},
	{name: "leaders moved", cards: 1, do: (*run).moveLeaders, only: func() bool { return *brokers > 1 }},
}

// run is one torture.
type run struct {
	t     *testing.T
	ctx   context.Context
	rng   *rand.Rand
	began time.Time

	w       *rig.World
	cluster *testenv.KafkaCluster
	fleet   *rig.Fleet
	paused  *rig.Consumer // nil: none
	looked  map[*rig.Consumer]int

	// The consumers and the world's own client reach the primary through proxy.
	primary, replica *testenv.RedisServer
	proxy            *testenv.Proxy
	copies           []redisCopy // oldest first
	branches         int         // partitions that were on another branch

	in      *input
	journal *follower
	heals   []heal
}

// redisCopy is Redis at some moment.
type redisCopy struct {
	dir string
	of  []*state.Sample // about what it holds
}

// heal is one recovery of everything that Redis had lost.
type heal struct {
	kind   string
	events int64
	took   time.Duration
}

// TestTorture breaks what a seed draws while events come in, lets it settle,
// and holds everything that was stored and published against log and journal.
func TestTorture(t *testing.T) {
	t.Parallel()
	r := start(t)
	counts := map[string]int{}
	for deck := 1; ; deck++ {
		for _, f := range r.deck() {
			happened := f.do(r)
			counts[f.name]++
			r.log("%s: %s", f.name, happened)
			r.interlude()
			if deck > 1 && time.Since(r.began) > *duration {
				break
			}
		}
		if time.Since(r.began) > *duration {
			break
		}
		r.log("end of deck %d", deck)
	}
	r.resume()
	r.log("settling")
	r.in.stop()
	r.w.Settled(5 * time.Minute)
	r.log("settled, checking as tierctl check --replay does")
	report := r.w.Verify(r.ctx)
	r.log("%v checked in %s: %d records, %d customers, %d changes, %d dead letters", report.Checked, report.Took.Round(time.Millisecond),
		report.Read, report.Customers, report.Changes, report.DeadLetters)
	if report.Corrections > 0 {
		t.Errorf("%d corrections, although no log was lost", report.Corrections)
	}
	r.w.Check() // a second reading of the log that shares nothing with the first but the fold

	t.Logf("%s, %d events, %d broker(s), %d consumers", time.Since(r.began).Round(time.Second), r.w.Sent, *brokers, *consumers)
	for _, f := range faults {
		if n := counts[f.name]; n > 0 {
			t.Logf("%5d × %s", n, f.name)
		} else if f.only == nil || f.only() {
			t.Errorf("never: %s", f.name)
		}
	}
	t.Logf("%5d partitions were found on another branch of history", r.branches)
	if *duration > 0 && r.branches == 0 {
		t.Error("no partition was ever on another branch: nothing was tested")
	}
	r.reportHeals()
}

func start(t *testing.T) *run {
	t.Helper()
	if *seed == 0 {
		*seed = rig.Seed(t)
	}
	r := &run{t: t, ctx: t.Context(), rng: rand.New(rand.NewPCG(*seed, 17)), looked: map[*rig.Consumer]int{}}
	r.cluster = testenv.Cluster(t, *brokers, testenv.KafkaOptions{Heap: "384m"})
	r.primary = rig.Redis(t, testenv.RedisOptions{AppendFsync: "everysec"})
	r.replica = rig.Redis(t, testenv.RedisOptions{AppendFsync: "everysec"})
	var err error
	if r.proxy, err = testenv.StartProxy(r.primary.Addr()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.proxy.Stop)
	r.w = rig.New(t, rig.Config{Brokers: r.cluster.Addrs(), Redis: r.proxy.Addr(), Replication: int16(*brokers)})
	r.fleet = &rig.Fleet{W: r.w, Args: []string{"--log-level=info", "--batch-records=1000"}}
	r.journal = follow(t, r.w)
	r.in = send(t, r.w, *rate, traffic(t, r.rng.Uint64()))
	r.began = time.Now()
	for range *consumers {
		r.fleet.Start()
	}
	r.progress(int64(*rate))
	return r
}

// deck is every fault as often as it has cards, shuffled: drawn without
// replacement, so that none is starved.
func (r *run) deck() (out []fault) {
	for _, f := range faults {
		if f.only != nil && !f.only() {
			continue
		}
		n := f.cards
		if *duration == 0 {
			n = min(n, 2)
		}
		for range n {
			out = append(out, f)
		}
	}
	r.rng.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	return out
}

// interlude is what lies between two faults: often nothing, so that the next
// meets the recovery from the last.
func (r *run) interlude() {
	for len(r.fleet.On) < *consumers {
		r.fleet.Start()
	}
	if r.rng.IntN(3) > 0 {
		r.progress(1 + r.rng.Int64N(int64(*rate)))
	}
	if r.paused != nil && r.rng.IntN(2) == 0 {
		r.resume()
	}
	if len(r.copies) == 0 || r.rng.IntN(8) == 0 {
		r.keepCopy()
	}
}

func (r *run) log(format string, args ...any) {
	r.t.Helper()
	at, _ := applied(r.w) // 0 while Redis does not say
	r.t.Logf("%6.1fs  applied %d, published %d  %s", time.Since(r.began).Seconds(), at, r.journal.published(), fmt.Sprintf(format, args...))
}

func (r *run) must(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// progress waits until so many further records are published.
func (r *run) progress(n int64) {
	r.t.Helper()
	want := r.journal.published() + n
	rig.Until(r.t, patience, fmt.Sprintf("waiting for %d more records to be published", n), func() error {
		r.alive()
		if at := r.journal.published(); at < want {
			return fmt.Errorf("%d of %d", at, want)
		}
		return nil
	})
}

// alive does what a supervisor would: a consumer that refused to start because
// a service was away is started again. One that ends otherwise, or stops a
// partition, fails the run.
func (r *run) alive() {
	r.t.Helper()
	for i, c := range r.fleet.On {
		out := c.Output.String()
		if strings.Contains(out[r.looked[c]:], "partition stopped: it needs attention") {
			r.t.Fatal("a partition has stopped")
		}
		r.looked[c] = len(out)
		switch {
		case !c.Ended():
		case strings.Contains(out, "partition assigned"):
			r.t.Fatal("a consumer ended by itself")
		default:
			r.fleet.On[i] = r.w.Start(r.fleet.Args...)
		}
	}
}

// moment waits for one of the moments at which something breaks: now, after
// some work, right after a batch was applied, or right after one was
// published. It returns the partition, -1 where it is any.
func (r *run) moment() (partition int32, when string) {
	switch r.rng.IntN(4) {
	case 0:
		return -1, "at once"
	case 1:
		n := 1 + r.rng.Int64N(int64(*rate)/2)
		r.progress(n)
		return -1, fmt.Sprintf("after %d more records", n)
	case 2:
		return r.afterApply(), "right after an apply"
	default:
		select {
		case <-r.journal.next():
		case <-time.After(patience):
			r.t.Fatalf("nothing was published for %s", patience)
		}
		r.journal.mu.Lock()
		defer r.journal.mu.Unlock()
		return r.journal.newest, "right after a commit"
	}
}

// afterApply waits until some partition's fence moves on.
func (r *run) afterApply() (partition int32) {
	var before []*protocol.Fence
	rig.Until(r.t, patience, "waiting for a batch to be applied", func() error {
		for {
			now, err := r.w.Fences()
			if err != nil {
				return err // Redis is away
			}
			for p, f := range now {
				if before != nil && before[p] != nil && f != nil && f.Seq > before[p].Seq {
					partition = int32(p)
					return nil
				}
			}
			if before == nil {
				before = now
				continue
			}
			before = now
			return rig.ErrNotYet
		}
	})
	return partition
}

// victim is a consumer: the owner of a partition, or any.
func (r *run) victim(partition int32) int {
	if partition < 0 {
		return r.rng.IntN(len(r.fleet.On))
	}
	return r.fleet.Owner(partition)
}

func (r *run) killConsumer() string {
	p, when := r.moment()
	i := r.victim(p)
	r.fleet.Kill(i)
	if r.rng.IntN(4) > 0 {
		r.fleet.Start()
	}
	return when
}

func (r *run) stopConsumer() string {
	p, when := r.moment()
	i := r.victim(p)
	c := r.fleet.On[i]
	r.fleet.On = slices.Delete(r.fleet.On, i, i+1)
	c.Stop()
	return when
}

// pauseConsumer halts an owner until others own all that it owned; it wakes
// then, or some faults later.
func (r *run) pauseConsumer() string {
	r.resume()
	var c *rig.Consumer
	var owned []int32
	rig.Until(r.t, patience, "waiting for a consumer with partitions", func() error {
		r.alive()
		c = r.fleet.On[r.rng.IntN(len(r.fleet.On))]
		if owned = c.Owned(); len(owned) == 0 {
			return rig.ErrNotYet
		}
		return nil
	})
	_, when := r.moment()
	owned = c.Owned() // it may have lost some while that was awaited
	c.Signal(syscall.SIGSTOP)
	r.fleet.On = slices.DeleteFunc(r.fleet.On, func(o *rig.Consumer) bool { return o == c })
	r.fleet.Start()
	r.paused = c
	rig.Until(r.t, patience, "waiting for others to own what a paused consumer owned", func() error {
		r.alive()
		var now []int32
		for _, o := range r.fleet.On {
			now = append(now, o.Owned()...)
		}
		for _, p := range owned {
			if !slices.Contains(now, p) {
				return fmt.Errorf("nobody owns partition %d", p)
			}
		}
		return nil
	})
	if r.rng.IntN(2) == 0 {
		r.resume()
	}
	return when
}

// resume wakes the paused consumer, if there is one, and lets another go in
// its place.
func (r *run) resume() {
	if r.paused == nil {
		return
	}
	r.paused.Signal(syscall.SIGCONT)
	r.fleet.On = append(r.fleet.On, r.paused)
	r.paused = nil
	r.fleet.Kill(0)
}

func (r *run) killRedis() string {
	_, when := r.moment()
	r.primary.Kill()
	lost := int64(0)
	if r.rng.IntN(2) == 0 {
		// With everysec, a loss of power takes what was not yet flushed.
		var err error
		lost, err = r.primary.LoseTail(r.rng.Int64N(32 << 10))
		r.must(err)
	}
	r.must(r.primary.Restart(r.ctx))
	return fmt.Sprintf("%s, %d bytes of its log lost", when, lost)
}

// backup copies Redis as it is now.
func (r *run) backup() redisCopy {
	r.t.Helper()
	c := redisCopy{dir: filepath.Join(r.t.TempDir(), "backup"), of: r.sample(r.primary)}
	r.must(r.primary.Backup(r.ctx, c.dir))
	return c
}

// keepCopy keeps a copy of Redis as it is now, and the last few before.
func (r *run) keepCopy() {
	r.copies = append(r.copies, r.backup())
	if len(r.copies) > 3 {
		r.copies = r.copies[1:]
	}
}

// older is one of the copies, the first of which is made now if need be.
func (r *run) older() redisCopy {
	if len(r.copies) == 0 {
		r.keepCopy()
		r.progress(int64(*rate))
	}
	return r.copies[r.rng.IntN(len(r.copies))]
}

// restore starts the primary on a copy, and says which partitions are then on
// another branch.
func (r *run) restore(c redisCopy) (strange []int) {
	strange = r.journal.strange(c.of)
	r.branches += len(strange)
	r.must(r.primary.Restore(r.ctx, c.dir))
	return strange
}

// restoreRedis goes back to a copy: every fence in it stands somewhere in the
// journal, unless Redis has been elsewhere since.
func (r *run) restoreRedis() string {
	c := r.older()
	_, when := r.moment()
	return fmt.Sprintf("%s, %d partitions on another branch", when, len(r.restore(c)))
}

// branchRedis lets Redis lose batches that were applied and never published,
// so that they are decided again and otherwise, and then returns it to the
// copy that has them: a branch of history that no journal knows.
func (r *run) branchRedis() string {
	strange, killed := r.toBranch(r.older())
	return fmt.Sprintf("%d partitions on it, after killing %d consumers%s", len(strange), killed, r.sometimes("another branch", strange))
}

// toBranch does so by way of an older copy, and says which partitions are on
// another branch.
func (r *run) toBranch(older redisCopy) (strange []int, killed int) {
	rig.Until(r.t, patience, "waiting for batches that are applied and not published", func() error {
		r.alive()
		if n := r.w.OpenBatches(); n < int(r.w.Config.Partitions) {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	killed = len(r.fleet.On)
	for len(r.fleet.On) > 0 {
		r.fleet.Kill(0)
	}
	branch := r.backup()
	r.restore(older)
	for range *consumers {
		r.fleet.Start()
	}
	r.progress(int64(*rate))
	return r.restore(branch), killed
}

// promoteReplica makes a replica that lags the primary. The old one is killed,
// or lives on with the connections that it has; later it follows the new one.
func (r *run) promoteReplica() string {
	when := r.promote()
	r.must(r.replica.Restart(r.ctx)) // the old primary, if it is dead
	r.must(r.replica.Follow(r.ctx, r.primary))
	return when
}

// promote swaps primary and replica. The new primary lacks the last records;
// the old one has them, and may be dead.
func (r *run) promote() string {
	r.must(r.replica.Follow(r.ctx, r.primary))
	r.must(r.replica.Lag(r.ctx))
	n := 1 + r.rng.Int64N(int64(*rate))
	r.progress(n)
	r.afterApply()
	how := "the old one killed"
	split := r.rng.IntN(2) == 0
	if split {
		how = "the old one cut off, but not from all clients"
	} else {
		r.primary.Kill()
	}
	r.must(r.replica.Promote(r.ctx))
	r.proxy.Point(r.replica.Addr(), !split)
	r.primary, r.replica = r.replica, r.primary
	r.progress(n)
	r.proxy.Cut()
	return fmt.Sprintf("%d records behind, %s", n, how)
}

// failBack promotes a lagging replica, and then the old primary comes back
// with all that it had and is the primary again.
func (r *run) failBack() string {
	how := r.promote()
	r.must(r.replica.Restart(r.ctx))
	strange := r.journal.strange(r.sample(r.replica))
	r.branches += len(strange)
	r.proxy.Point(r.replica.Addr(), true)
	r.primary, r.replica = r.replica, r.primary
	r.must(r.replica.Follow(r.ctx, r.primary))
	return fmt.Sprintf("%s; %d partitions on another branch", how, len(strange))
}

func (r *run) wipeRedis() string {
	_, when := r.moment()
	r.wipe()
	return when + r.sometimes("wiped", r.everyPartition())
}

func (r *run) wipe() {
	r.t.Helper()
	rig.Until(r.t, patience, "wiping Redis", func() error { return r.w.RDB.FlushAll(r.ctx).Err() })
}

func (r *run) everyPartition() (ps []int) {
	for p := range int(r.w.Config.Partitions) {
		ps = append(ps, p)
	}
	return ps
}

// sometimes waits for half of the losses until what was lost is there again.
// The others meet the next fault.
func (r *run) sometimes(kind string, lost []int) string {
	if len(lost) == 0 || r.rng.IntN(2) == 0 {
		return ""
	}
	h := r.heal(kind, lost)
	return fmt.Sprintf("; healed %d events in %.2fs", h.events, h.took.Seconds())
}

// heal waits until partitions that were lost hold again all that was published
// of them, and says how long it took.
func (r *run) heal(kind string, lost []int) heal {
	r.t.Helper()
	began, want := time.Now(), r.journal.reached()
	h := heal{kind: kind}
	for _, p := range lost {
		h.events += want[p]
	}
	rig.Until(r.t, patience, "waiting for Redis to hold everything again", func() error {
		r.alive()
		fences, err := r.w.Fences()
		if err != nil {
			return err
		}
		for _, p := range lost {
			if f := fences[p]; f == nil || f.Loading || f.State.Read < want[p] || !r.journal.has(p, f.Point) {
				return fmt.Errorf("partition %d is at %+v of %d", p, f, want[p])
			}
		}
		return nil
	})
	h.took = time.Since(began)
	r.heals = append(r.heals, h)
	return h
}

// reportHeals says how long healing takes, by what was lost. Of a short log the
// time is that of noticing: the largest one counts.
func (r *run) reportHeals() {
	largest := map[string]heal{}
	for _, h := range r.heals {
		if h.events > largest[h.kind].events {
			largest[h.kind] = h
		}
	}
	for kind, h := range largest {
		r.t.Logf("%s: %d events healed in %.2fs, %.1fs per million events", kind, h.events, h.took.Seconds(), h.took.Seconds()/float64(h.events)*1e6)
	}
}

// killBroker kills any one broker. If it is the only one, everything waits.
func (r *run) killBroker() string {
	_, when := r.moment()
	i := r.rng.IntN(len(r.cluster.Brokers))
	k := r.cluster.Brokers[i]
	k.Kill()
	if len(r.cluster.Brokers) > 2 && r.rng.IntN(2) == 0 {
		r.progress(int64(*rate)) // the others go on without it
	}
	r.must(k.Restart(r.ctx))
	return fmt.Sprintf("broker %d, %s", i+1, when)
}
