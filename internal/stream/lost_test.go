package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/state"
)

// stops waits until every partition that is asked about has stopped with a
// reason that contains the text, and readiness says so.
func (w *world) stops(i *instance, text string, partitions ...int32) {
	w.t.Helper()
	until(w.t, 30*time.Second, "waiting for the stop", func() (bool, string) {
		all := i.p.Stopped()
		for _, p := range partitions {
			if all[p] == nil || !strings.Contains(all[p].Error(), text) {
				return false, fmt.Sprintf("partition %d: %v (%v)", p, all[p], i.p.Ready())
			}
		}
		return true, ""
	})
	if err := i.p.Ready(); err == nil || !strings.Contains(err.Error(), text) {
		w.t.Errorf("ready says %v", err)
	}
}

// settledWorld has processed some events and is stopped, ready to be harmed.
func settledWorld(t *testing.T, n int64) (w *world, records int64) {
	t.Helper()
	w = fakeWorld(t)
	i := w.start()
	records = w.history(0, n)
	w.settled(records)
	if err := i.stop(); err != nil {
		t.Fatal(err)
	}
	return w, records
}

// What Kafka had committed is gone: nothing can be concluded, and every
// partition says so in one sentence.
func TestLostKafkaDataStops(t *testing.T) {
	recreate := func(w *world, topics ...string) {
		w.t.Helper()
		ctx := context.Background()
		adm := kadm.NewClient(w.client())
		if _, err := adm.DeleteTopics(ctx, topics...); err != nil {
			w.t.Fatal(err)
		}
		if err := CreateTopics(ctx, w.client(), w.cfg.Topics, testPartitions, 1, nil); err != nil {
			w.t.Fatal(err)
		}
	}
	all := []int32{0, 1, 2, 3}
	for _, c := range []struct {
		name    string
		running bool // harmed under a running, idle owner
		harm    func(w *world)
		want    string
		where   []int32
	}{
		{"the journal recreated", false, func(w *world) { recreate(w, w.cfg.Topics.Journal) }, "deleted and created again", all},
		{"the journal recreated under an owner", true, func(w *world) { recreate(w, w.cfg.Topics.Journal) }, "deleted and created again", all},
		{"an input recreated", true, func(w *world) { recreate(w, w.cfg.Topics.Inputs[1]) }, "Kafka lost records", all},
		{"the whole journal deleted", false, func(w *world) {
			w.deleteRecords(w.cfg.Topics.Journal, func(p int32) int64 { return w.endOf(w.cfg.Topics.Journal, p) })
		}, "the journal record that was last published is gone", all},
		{"the journal ends before what was published", false, func(w *world) {
			w.edit(2, "published_offset", 1_000_000)
		}, "the journal record that was last published is gone", []int32{2}},
		{"the published record is another", false, func(w *world) {
			w.edit(2, "published_chain", strings.Repeat("cd", 32))
		}, "the journal record that was last published is gone", []int32{2}},
		{"the journal gone while a rebuild is under way", false, func(w *world) {
			w.edit(1, "chain", "loading", "seq", 0, "published_offset", 1_000_000)
		}, "the journal record that was last published is gone", []int32{1}},
		{"an input ends before what was applied", false, func(w *world) {
			f := w.fence(3)
			w.edit(3, "next", fmt.Sprintf("%d/-1,%d/-1,%d/-1", f.State.Next[0].Next+5000, f.State.Next[1].Next, f.State.Next[2].Next))
		}, "does not hold offset", []int32{3}},
		{"records deleted before they were read", false, func(w *world) {
			w.history(600, 200)
			w.deleteRecords(w.cfg.Topics.Inputs[0], func(p int32) int64 { return w.endOf(w.cfg.Topics.Inputs[0], p) })
		}, "does not hold offset", all},
		{"records deleted before they were read, and Redis gone", false, func(w *world) {
			w.history(600, 200)
			w.deleteRecords(w.cfg.Topics.Inputs[0], func(p int32) int64 { return w.endOf(w.cfg.Topics.Inputs[0], p) })
			w.flush()
		}, "records were deleted before they were read", all},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := fakeWorld(t)
			i := w.start()
			n := w.history(0, 600)
			w.settled(n)
			if !c.running {
				if err := i.stop(); err != nil {
					t.Fatal(err)
				}
			}
			before := w.read(w.cfg.Topics.Changes)
			c.harm(w)
			if !c.running {
				// What the command refuses at start is another matter.
				i = w.start()
			}
			w.stops(i, c.want, c.where...)
			if after := w.read(w.cfg.Topics.Changes); len(after) != len(before) {
				t.Errorf("%d changes were published, %d before", len(after), len(before))
			}
		})
	}
}

func (w *world) endOf(topic string, p int32) int64 {
	w.t.Helper()
	ends, err := kadm.NewClient(w.client()).ListEndOffsets(context.Background(), topic)
	if err != nil {
		w.t.Fatal(err)
	}
	o, _ := ends.Lookup(topic, p)
	return o.Offset
}

// The rules topic lost the rules that decided what Redis lost: nothing repeats
// them. The facts are whole, so only those are corrected whom the rules of now
// put elsewhere.
func TestUnknownRulesAreRebased(t *testing.T) {
	w, n := settledWorld(t, 800)
	ctx := context.Background()
	adm := kadm.NewClient(w.client())
	if _, err := adm.DeleteTopics(ctx, w.cfg.Topics.Rules); err != nil {
		t.Fatal(err)
	}
	if err := CreateTopics(ctx, w.client(), w.cfg.Topics, testPartitions, 1, nil); err != nil {
		t.Fatal(err)
	}
	w.cfg.Rules.Policy.Grace -= time.Hour // other rules, and nobody's tier depends on it
	changes := w.changes()
	w.flush()
	i := w.start()
	w.running(i)
	w.settled(n)
	w.chains()
	sameChanges(t, w.changes(), changes)
	for p := range int32(testPartitions) {
		if f := w.fence(p); f.Rebased.Cause != protocol.RulesUnknown || f.Rebased.Open {
			t.Errorf("partition %d: %+v", p, f.Rebased)
		}
	}
	n += w.history(800, 200)
	w.settled(n)
	w.chains()
}

// Batches of an older fold version are rebased; a newer one is not ours to
// judge.
func TestFoldVersions(t *testing.T) {
	w, _ := settledWorld(t, 100)
	p, err := New(w.cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.rules.read(t.Context()); err != nil {
		t.Fatal(err)
	}
	b := newBlocked(&session{worker: &worker{Processor: p, log: w.cfg.Log}})
	rec := func(version int, rules protocol.Hash) *protocol.Record {
		return &protocol.Record{Kind: protocol.KindBatch, Seq: 4, State: protocol.State{Fold: version, Rules: rules}}
	}
	for _, c := range []struct {
		rec  *protocol.Record
		want protocol.Cause
	}{
		{rec(fold.Version, w.cfg.Rules.Hash()), protocol.NoCause},
		{rec(fold.Version-1, w.cfg.Rules.Hash()), protocol.FoldVersion},
		{rec(fold.Version, protocol.Hash{1}), protocol.RulesUnknown},
		{&protocol.Record{Kind: protocol.KindRebase, State: protocol.State{Fold: fold.Version}}, protocol.BehindRebase},
	} {
		b.all, b.sinceR = protocol.NoCause, protocol.NoCause
		if err := b.by(t.Context(), c.rec); err != nil || b.all != c.want || b.sinceR != c.want {
			t.Errorf("%+v: %s, %v, want %s", c.rec, b.all, err, c.want)
		}
	}
	var stop stopError
	if err := b.by(t.Context(), rec(fold.Version+1, w.cfg.Rules.Hash())); !errors.As(err, &stop) {
		t.Errorf("a newer version: %v", err)
	}
}

// A clock that is wrong decides nothing: the partition waits, says so, and
// goes on when the clock is right again.
func TestWrongClockHoldsThePartition(t *testing.T) {
	w := fakeWorld(t)
	w.cfg.Rules.Clock = fold.ClockWall
	var ahead atomic.Int64
	w.cfg.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	i := w.start()
	n := w.history(0, 100)
	w.settled(n)
	for _, jump := range []time.Duration{time.Hour, -time.Hour} {
		ahead.Store(int64(jump))
		n += w.history(n, 50)
		until(t, 20*time.Second, "waiting for the hold", func() (bool, string) {
			err := i.p.Ready()
			return err != nil && strings.Count(err.Error(), "differ by") == testPartitions+1, fmt.Sprint(err)
		})
		var clock int64
		for p := range int32(testPartitions) {
			clock = max(clock, w.fence(p).State.Clock)
		}
		if limit := time.Now().Add(time.Second).UnixMilli(); clock > limit {
			t.Fatalf("a batch was decided %d ms ahead", clock-limit)
		}
		ahead.Store(0)
		w.settled(n)
		until(t, 20*time.Second, "waiting for readiness", func() (bool, string) { err := i.p.Ready(); return err == nil, fmt.Sprint(err) })
	}
}

// A consumer sleeps through the loss of its partitions. Meanwhile Redis goes
// back to a copy of its own time, which names it still: Redis has lost the
// epoch of who came since. On waking, it writes nothing: in Redis because its
// lease is over by Redis' own clock, and nothing renews a lease that is over;
// in Kafka because its producer was fenced.
func TestPausedOwnerNamedByALostEpochWritesNothing(t *testing.T) {
	w, _ := settledWorld(t, 300)
	const lease = 300 * time.Millisecond
	ctx := t.Context()
	open := func() *state.Store { return state.NewStore(w.rdb, w.cfg.Namespace, 0, lease) }
	acquire := func(s *state.Store, owner byte) protocol.Identity {
		t.Helper()
		f, _, _, err := s.Acquire(ctx, protocol.Nonce{owner})
		if err != nil {
			t.Fatal(err)
		}
		return f.Identity
	}
	// The sleeper has the partition, and a producer with a transaction open.
	sleeper := open()
	id := acquire(sleeper, 1)
	cfg := w.cfg.withDefaults()
	old, err := openProducer(ctx, &cfg, 0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer old.close()
	if err := old.client.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	entry := &protocol.Entry{Seq: id.Seq + 1, Parent: id.Chain, Chain: protocol.Hash{7}, Journal: w.journalOf(0)[1].Encode()}
	if err := old.client.ProduceSync(ctx, &kgo.Record{Topic: w.cfg.Topics.Journal, Partition: 0, Value: entry.Journal}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	copied := w.copyRedis()

	// Its heir acquires: Redis first, then Kafka.
	heir := acquire(open(), 2)
	young, err := openProducer(ctx, &cfg, 0, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer young.close()
	// Redis forgets the heir.
	until(t, 5*time.Second, "waiting for the lease to be over by Redis' clock", func() (bool, string) {
		now, err := open().Time(ctx)
		return err == nil && now.UnixMilli() > w.fence(0).Lease, fmt.Sprint(now, err)
	})
	w.restoreRedis(copied)
	if err := sleeper.Compare(ctx, id); err != nil {
		t.Fatalf("the fence does not name the sleeper any more: %v", err)
	}

	// The sleeper wakes.
	before := w.copyRedis()
	f := w.fence(0)
	b := &state.Batch{
		Identity: id, Point: entry.Point(), State: &f.State, Flood: &f.Flood, Published: f.Published, Entry: entry,
		Customers: []state.Put{{Customer: "c", Value: []byte("v"), Due: 1, DueMoved: true}},
	}
	for range 2 { // also after the renewal, which its timer does first
		if a, err := sleeper.Apply(ctx, b); err != nil || a != protocol.Rejected {
			t.Errorf("apply: %d, %v", a, err)
		}
		if err := sleeper.Renew(ctx, id); !errors.Is(err, state.ErrFenced) {
			t.Errorf("renew: %v", err)
		}
	}
	if _, err := sleeper.Raise(ctx, id, 0, nil); !errors.Is(err, state.ErrFenced) {
		t.Errorf("raise: %v", err)
	}
	if after := w.copyRedis(); fmt.Sprint(after) != fmt.Sprint(before) {
		t.Error("the sleeper wrote to Redis")
	}
	journal := len(w.journalOf(0))
	if err := old.client.EndTransaction(ctx, kgo.TryCommit); err == nil {
		t.Error("the sleeper's transaction committed")
	}
	if _, err := old.publish(ctx, []*protocol.Entry{entry}); err == nil {
		t.Error("the sleeper published")
	}
	if n := len(w.journalOf(0)); n != journal {
		t.Errorf("the journal has %d records, had %d", n, journal)
	}
	if heir.Epoch != id.Epoch+1 {
		t.Errorf("epochs %d and %d", id.Epoch, heir.Epoch)
	}
}

// The same with whole consumers: the sleeper is held in the middle of a script
// for longer than its session.
func TestPausedConsumerWritesNothingThatCounts(t *testing.T) {
	w := fakeWorld(t)
	w.cfg.Lease = time.Second
	var hold sync.Once
	held, wake := make(chan struct{}), make(chan struct{})
	var woken atomic.Int64
	open := w.cfg.Store
	w.cfg.Store = func(p int32) Store {
		return &faulty{Store: open(p), before: func(step string) error {
			if p == 1 && step == "apply" {
				hold.Do(func() { close(held); <-wake; woken.Add(1) })
			}
			return nil
		}}
	}
	i := w.start()
	n := w.history(0, 600)
	<-held
	copied := w.copyRedis()
	sleeper := w.fence(1).Identity
	// Its heir takes the partition, and Redis forgets that it did. (The group
	// would give it away after the session timeout; the fence does not ask.)
	heir, _, _, err := w.store(1).Acquire(t.Context(), protocol.Nonce{9})
	if err != nil {
		t.Fatal(err)
	}
	cfg := w.cfg.withDefaults()
	p, err := openProducer(t.Context(), &cfg, 1, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	for k, v := range copied { // of partition 1 alone
		if strings.Contains(k, ":1}") {
			if m, ok := v.(map[string]string); ok {
				if strings.HasSuffix(k, ":fence") {
					m["lease"] = "1" // it overslept
				}
				w.rdb.HSet(context.Background(), k, m)
			}
		}
	}
	if f := w.fence(1); f.Identity != sleeper || heir.Epoch != sleeper.Epoch+1 {
		t.Fatalf("fence %+v, sleeper %+v, heir %+v", f.Identity, sleeper, heir.Identity)
	}
	close(wake)
	w.settled(n)
	if err := i.stop(); err != nil {
		t.Fatal(err)
	}
	if woken.Load() != 1 {
		t.Fatal("nobody slept")
	}
	w.changes()
	w.balanced()
}

// Who was about to recover publishes, late, what Redis then lost. The idle
// owner has nothing to write and its fence is as it was; the journal is not.
func TestIdleOwnerNoticesThatTheJournalWentOn(t *testing.T) {
	w := fakeWorld(t)
	i := w.start()
	n := w.history(0, 300)
	w.settled(n)
	w.running(i)
	entry := w.next(2)
	cfg := w.cfg.withDefaults()
	p, err := openProducer(t.Context(), &cfg, 2, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if _, err := p.publish(t.Context(), []*protocol.Entry{entry}); err != nil {
		t.Fatal(err)
	}
	until(t, 20*time.Second, "waiting for the batch to be re-applied", func() (bool, string) {
		g := w.fence(2)
		return g.Point == entry.Point(), fmt.Sprintf("at %d, want %d", g.Seq, entry.Seq)
	})
	w.settled(n)
}

// next is a batch without records that could follow what the partition holds.
func (w *world) next(p int32) *protocol.Entry {
	w.t.Helper()
	f := w.fence(p)
	e, err := fold.NewEngine(w.cfg.Rules, fold.Where{Namespace: w.cfg.Namespace, Incarnation: f.Incarnation, LiveSince: f.LiveSince, Partition: p, Partitions: testPartitions}, false)
	if err != nil {
		w.t.Fatal(err)
	}
	out, err := e.Fold(&fold.Input{Parent: f.Point, State: f.State, Flood: f.Flood, Clock: f.State.Clock, Bound: f.State.Sweep, Next: f.State.Next})
	if err != nil {
		w.t.Fatal(err)
	}
	out.Entry.Journal = out.Journal.Encode()
	return out.Entry
}

// TestHangingTransaction: a transaction that nobody ends stops the partition,
// and the message says whose it is.
func TestHangingTransaction(t *testing.T) {
	w := fakeWorld(t)
	i := w.start()
	w.settled(w.history(0, 100))
	if err := i.stop(); err != nil {
		t.Fatal(err)
	}
	other := w.hang(1)
	id, epoch, err := other.ProducerID(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	j := &journal{base: w.cfg.Kafka, admin: kadm.NewClient(w.client()), topic: w.cfg.Topics.Journal, partition: 1, log: slog.New(slog.DiscardHandler)}
	_, err = j.end(t.Context(), 100*time.Millisecond)
	want := fmt.Sprintf("producer %d of epoch %d has one open since offset ", id, epoch)
	if stop := (stopError{}); !errors.As(err, &stop) || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want a stop that says %q", err, want)
	}
}

// hang leaves a transaction open in a partition of the journal.
func (w *world) hang(p int32) *kgo.Client {
	w.t.Helper()
	other := w.client(kgo.TransactionalID("somebody else"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err := other.BeginTransaction(); err != nil {
		w.t.Fatal(err)
	}
	open := &kgo.Record{Topic: w.cfg.Topics.Journal, Partition: p, Value: []byte("never committed")}
	if err := other.ProduceSync(w.t.Context(), open).FirstErr(); err != nil {
		w.t.Fatal(err)
	}
	return other
}

// TestReleaseDoesNotWaitForTheJournal: whoever still waits for the journal's
// end gives the partition back at once; the group stands still until then.
func TestReleaseDoesNotWaitForTheJournal(t *testing.T) {
	w := fakeWorld(t)
	i := w.start()
	w.settled(w.history(0, 100))
	if err := i.stop(); err != nil {
		t.Fatal(err)
	}
	other := w.hang(0)
	epoch := w.fence(0).Epoch
	i = w.start()
	until(t, 20*time.Second, "waiting for the partitions", func() (bool, string) {
		err := i.p.Ready()
		return w.fence(0).Epoch > epoch && err != nil && strings.Count(err.Error(), "partition ") == 1, fmt.Sprint(err)
	})
	released := make(chan struct{})
	go func() { i.p.release([]int32{0}, true); close(released) }()
	select {
	case <-released:
	case <-time.After(transactionTimeout / 2):
		t.Error("the partition is not given back")
	}
	if err := other.EndTransaction(t.Context(), kgo.TryAbort); err != nil {
		t.Fatal(err)
	}
}
