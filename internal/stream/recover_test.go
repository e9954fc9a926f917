package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/tierstream/tierstream/internal/customer"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/sim"
	"github.com/tierstream/tierstream/internal/sim/produce"
	"github.com/tierstream/tierstream/internal/state"
)

// image is everything Redis holds.
type image map[string]any

func (w *world) copyRedis() image {
	w.t.Helper()
	ctx := context.Background()
	keys, err := w.rdb.Keys(ctx, "*").Result()
	if err != nil {
		w.t.Fatal(err)
	}
	im := image{}
	for _, k := range keys {
		switch kind := w.rdb.Type(ctx, k).Val(); kind {
		case "string":
			im[k] = w.rdb.Get(ctx, k).Val()
		case "hash":
			im[k] = w.rdb.HGetAll(ctx, k).Val()
		case "zset":
			im[k] = w.rdb.ZRangeWithScores(ctx, k, 0, -1).Val()
		case "set":
			im[k] = w.rdb.SMembers(ctx, k).Val()
		default:
			w.t.Fatalf("key %s is a %s", k, kind)
		}
	}
	return im
}

// restoreRedis makes Redis hold what it held.
func (w *world) restoreRedis(im image) {
	w.t.Helper()
	w.flush()
	ctx := context.Background()
	for k, v := range im {
		var err error
		switch v := v.(type) {
		case string:
			err = w.rdb.Set(ctx, k, v, 0).Err()
		case map[string]string:
			err = w.rdb.HSet(ctx, k, v).Err()
		case []redis.Z:
			err = w.rdb.ZAdd(ctx, k, v...).Err()
		case []string:
			err = w.rdb.SAdd(ctx, k, v).Err()
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
}

// faulty is a Store that can be told to fail, or to do something first.
type faulty struct {
	Store
	before func(step string) error
	after  func(step string) error
}

func (f *faulty) do(step string, act func() error) error {
	if f.before != nil {
		if err := f.before(step); err != nil {
			return err
		}
	}
	if err := act(); err != nil {
		return err
	}
	if f.after != nil {
		return f.after(step)
	}
	return nil
}

func (f *faulty) Apply(ctx context.Context, b *state.Batch) (a protocol.Answer, err error) {
	step := "apply"
	switch {
	case b.Rebased != nil:
		step = "rebase"
	case b.Genesis != nil:
		step = "install"
	case b.Entry == nil:
		step = "re-apply"
	}
	err = f.do(step, func() error { a, err = f.Store.Apply(ctx, b); return err })
	return a, err
}

func (f *faulty) Fill(ctx context.Context, id protocol.Identity, c []state.Put, w []state.WaitingValue, u []state.WaitingKey) (a protocol.Answer, err error) {
	err = f.do("fill", func() error { a, err = f.Store.Fill(ctx, id, c, w, u); return err })
	return a, err
}

func (f *faulty) Raise(ctx context.Context, id protocol.Identity, base uint64, next []protocol.Position) (gen uint64, err error) {
	err = f.do("raise", func() error { gen, err = f.Store.Raise(ctx, id, base, next); return err })
	return gen, err
}

func (f *faulty) Aim(ctx context.Context, id protocol.Identity, target uint64) error {
	return f.do("aim", func() error { return f.Store.Aim(ctx, id, target) })
}

// errKilled ends a session as a crash would: what was done stays.
var errKilled = errors.New("killed by the test")

// faults lets every store of the world pass through one.
func (w *world) faults(before, after func(p int32, step string) error) {
	open := w.cfg.Store
	w.cfg.Store = func(p int32) Store {
		f := &faulty{Store: open(p)}
		if before != nil {
			f.before = func(step string) error { return before(p, step) }
		}
		if after != nil {
			f.after = func(step string) error { return after(p, step) }
		}
		return f
	}
}

// history loads the first n of a fixed sequence of events, or those after the
// first skip.
func (w *world) history(skip, n int64) int64 {
	w.t.Helper()
	c := sim.DefaultConfig()
	c.Seed, c.Customers, c.Span, c.BadRate = 7, 300, 200*24*time.Hour, 0.03
	c.Start = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)
	c.Currency = w.cfg.Rules.Model.Currency()
	g, err := sim.New(c)
	if err != nil {
		w.t.Fatal(err)
	}
	all := func(yield func(sim.Message) bool) {
		i := int64(0)
		for m := range g.All() {
			if i++; i <= skip {
				continue
			}
			if !yield(m) {
				return
			}
		}
	}
	return w.send(produce.RunConfig{Messages: all, Limit: n, Formats: event.Formats[:], Pace: produce.Pace{Rate: 4000}})
}

func (w *world) fence(p int32) *protocol.Fence {
	w.t.Helper()
	f, err := w.store(p).Fence(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	return f
}

// edit changes fields of a partition's fence, as somebody with a command line
// could.
func (w *world) edit(p int32, values ...any) {
	w.t.Helper()
	if err := w.rdb.HSet(context.Background(), state.PartitionKeys(w.cfg.Namespace, p).Fence(), values...).Err(); err != nil {
		w.t.Fatal(err)
	}
}

// deleteRecords deletes a topic's records below the given offsets, by
// partition.
func (w *world) deleteRecords(topic string, below func(p int32) int64) {
	w.t.Helper()
	var os kadm.Offsets
	for p := range int32(testPartitions) {
		if n := below(p); n > 0 {
			os.Add(kadm.Offset{Topic: topic, Partition: p, At: n})
		}
	}
	rs, err := kadm.NewClient(w.client()).DeleteRecords(context.Background(), os)
	if err == nil {
		err = rs.Error()
	}
	if err != nil {
		w.t.Fatal(err)
	}
}

// sameChanges compares what consumers have seen.
func sameChanges(t *testing.T, got, want map[string][]change) {
	t.Helper()
	if len(got) != len(want) {
		t.Errorf("%d customers have changes, want %d", len(got), len(want))
	}
	for id := range want {
		if !slices.EqualFunc(got[id], want[id], func(a, b change) bool { return a.ID == b.ID && a.Sequence == b.Sequence && a.Reason == b.Reason }) {
			t.Fatalf("customer %s: changes\n got %+v\nwant %+v", id, got[id], want[id])
		}
	}
}

// running waits until the instance runs all partitions.
func (w *world) running(i *instance) {
	w.t.Helper()
	until(w.t, 30*time.Second, "waiting for all partitions to run", func() (bool, string) {
		return i.p.Totals().Running == testPartitions, fmt.Sprint(i.p.Ready())
	})
}

// byteEqual compares records with their seq.
func byteEqual(t *testing.T, got, want map[string][]byte) {
	t.Helper()
	for id := range want {
		if string(got[id]) != string(want[id]) {
			t.Fatalf("customer %s: record\n got %.300x\nwant %.300x", id, got[id], want[id])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d customers, want %d", len(got), len(want))
	}
}

// tidied waits until only the fences' own generations are left.
func (w *world) tidied() {
	w.t.Helper()
	until(w.t, 20*time.Second, "waiting for old generations to be deleted", func() (bool, string) {
		keys, err := w.rdb.Keys(context.Background(), "*:g*:*").Result()
		if err != nil {
			return false, err.Error()
		}
		for p := range int32(testPartitions) {
			base, _, _ := strings.Cut(state.PartitionKeys(w.cfg.Namespace, p).Fence(), "fence")
			own := fmt.Sprintf("%sg%d:", base, w.fence(p).Gen)
			for _, k := range keys {
				if strings.HasPrefix(k, base+"g") && !strings.HasPrefix(k, own) && k != base+"gens" {
					return false, fmt.Sprintf("%s is left, the fence has %s", k, own)
				}
			}
		}
		return true, ""
	})
}

// A point that is neither in the journal nor continued by it: Redis comes back
// as it was on a branch that another owner never saw. It heals by itself:
// nothing decided, lost or doubled, and every byte as before.
func TestAnotherBranchHeals(t *testing.T) {
	w := fakeWorld(t)
	i := w.start()
	n := w.history(0, 1500)
	w.settled(n)
	picture := w.copyRedis()
	n += w.history(1500, 1500)
	w.settled(n)
	if err := i.stop(); err != nil {
		t.Fatal(err)
	}
	want, changes := w.records(), w.changes()

	// Back to the picture, one batch further on a branch that nobody published.
	w.restoreRedis(picture)
	const branched = 3
	for p := range int32(branched) {
		f, keys := w.fence(p), state.PartitionKeys(w.cfg.Namespace, p)
		var chain protocol.Hash
		chain[0] = 0xee
		w.edit(p, "seq", f.Seq+1, "chain", chain.String(), "digest", strings.Repeat("ab", 16))
		e := &protocol.Entry{Seq: f.Seq + 1, Parent: f.Chain, Chain: chain, Journal: []byte("never published")}
		ctx := context.Background()
		if err := w.rdb.HSet(ctx, keys.Outbox(), f.Seq+1, e.Encode()).Err(); err != nil {
			t.Fatal(err)
		}
		ids := w.rdb.ZRange(ctx, keys.Due(f.Gen), 0, -1).Val()
		for j := range ids[1:] { // what the branch did to its customers
			v := w.rdb.Get(ctx, keys.Customer(f.Gen, ids[j])).Val()
			w.rdb.Set(ctx, keys.Customer(f.Gen, ids[j+1]), v, 0)
		}
	}
	began := time.Now()
	i = w.start()
	w.running(i)
	w.settled(n)
	t.Logf("%d partitions healed %d records in %s (%.1f s per million)", branched, n, time.Since(began).Round(time.Millisecond), time.Since(began).Seconds()*1e6/float64(n))
	byteEqual(t, w.records(), want)
	sameChanges(t, w.changes(), changes)
	w.balanced()
	raised := 0
	for p := range int32(testPartitions) {
		if f := w.fence(p); f.Gen > 1 {
			raised++
		}
	}
	if raised != branched {
		t.Errorf("%d partitions were on another branch, %d were raised", branched, raised)
	}
	until(t, 10*time.Second, "waiting for readiness", func() (bool, string) { err := i.p.Ready(); return err == nil, fmt.Sprint(err) })
	if d := i.p.Degraded(); len(d) > 0 {
		t.Errorf("healed, but degraded: %v", d)
	}
	w.tidied()
	// And it goes on.
	m := w.history(3000, 300)
	w.settled(n + m)
	w.changes()
}

// What recovery meets in Redis, and is to come out byte-equal with nothing
// published twice.
func TestWrongStateHeals(t *testing.T) {
	w := fakeWorld(t)
	i := w.start()
	n := w.history(0, 800)
	w.settled(n)
	if err := i.stop(); err != nil {
		t.Fatal(err)
	}
	early := w.copyRedis()
	i = w.start()
	n += w.history(800, 800)
	w.settled(n)
	if err := i.stop(); err != nil {
		t.Fatal(err)
	}
	late, want, changes := w.copyRedis(), w.records(), w.changes()
	ctx := context.Background()
	keys := func(p int32) state.Keys { return state.PartitionKeys(w.cfg.Namespace, p) }
	for _, c := range []struct {
		name  string
		from  image
		spoil func()
	}{
		{"a re-apply that gives another chain", early, func() {
			// Every customer of partition 0 is somebody else.
			ids := w.rdb.ZRange(ctx, keys(0).Due(1), 0, -1).Val()
			values := make([]any, 0, 2*len(ids))
			for j, id := range ids {
				values = append(values, keys(0).Customer(1, id), w.rdb.Get(ctx, keys(0).Customer(1, ids[(j+1)%len(ids)])).Val())
			}
			w.rdb.MSet(ctx, values...)
		}},
		{"only the fence deleted", late, func() { w.rdb.Del(ctx, keys(0).Fence(), keys(1).Fence()) }},
		{"the fence and the list of generations deleted", early, func() { w.rdb.Del(ctx, keys(0).Fence(), keys(0).Generations()) }},
		{"fields of the fence deleted", late, func() {
			w.rdb.HDel(ctx, keys(0).Fence(), "next", "counters")
			w.rdb.HDel(ctx, keys(1).Fence(), "published_chain")
			w.rdb.HSet(ctx, keys(2).Fence(), "digest", "?")
		}},
		{"a due set deleted", late, func() { w.rdb.Del(ctx, keys(2).Due(1)) }},
		{"half of the customers deleted, a suffix lost", early, func() {
			for _, p := range []int32{0, 3} {
				ids := w.rdb.ZRange(ctx, keys(p).Due(1), 0, -1).Val()
				for _, id := range ids[:len(ids)/2] {
					w.rdb.Del(ctx, keys(p).Customer(1, id))
				}
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.t = t
			w.restoreRedis(c.from)
			c.spoil()
			i := w.start()
			w.running(i)
			w.settled(n)
			byteEqual(t, w.records(), want)
			sameChanges(t, w.changes(), changes)
			w.balanced()
			w.tidied()
			if err := i.stop(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// Whatever a rebuild is interrupted by, the next owner begins it again, and it
// comes out the same.
func TestRebuildInterruptedAnywhere(t *testing.T) {
	w := fakeWorld(t)
	i := w.start()
	n := w.history(0, 600)
	w.settled(n)
	if err := i.stop(); err != nil {
		t.Fatal(err)
	}
	want, changes := w.records(), w.changes()
	for p := range int32(testPartitions) {
		w.edit(p, "chain", strings.Repeat("ee", 32))
	}
	// Each step fails once before it is done, and once after.
	type at struct {
		p          int32
		step, when string
	}
	var hit atomic.Int64
	left := map[at]int{}
	for p := range int32(testPartitions) {
		for _, step := range []string{"aim", "raise", "install", "re-apply"} {
			left[at{p, step, "before"}], left[at{p, step, "after"}] = 1, 1
		}
	}
	lock := make(chan struct{}, 1)
	fail := func(when string) func(p int32, step string) error {
		return func(p int32, step string) error {
			lock <- struct{}{}
			defer func() { <-lock }()
			if k := (at{p, step, when}); left[k] > 0 {
				left[k]--
				hit.Add(1)
				return errKilled
			}
			return nil
		}
	}
	w.faults(fail("before"), fail("after"))
	w.running(w.start())
	w.settled(n)
	byteEqual(t, w.records(), want)
	sameChanges(t, w.changes(), changes)
	w.tidied()
	if hit.Load() < 20 {
		t.Errorf("only %d failures", hit.Load())
	}
}

// chains checks what must hold after a rebase: the changes of each customer
// form a chain, and its end is where the record stands. It returns who was
// corrected.
func (w *world) chains() map[string][]change {
	w.t.Helper()
	changes := w.changes()
	corrected := map[string][]change{}
	for id, l := range changes {
		for _, c := range l {
			if c.Reason == fold.Correction {
				corrected[id] = append(corrected[id], c)
			}
		}
	}
	tiers := w.cfg.Rules.Model.Tiers()
	for id, v := range w.records() {
		var r customer.Record
		if err := customer.Decode(v, &r); err != nil {
			w.t.Fatal(err)
		}
		l := changes[id]
		switch {
		case int(r.Standing.Sequence) != len(l):
			w.t.Errorf("customer %s: %d changes published, the record has %d", id, len(l), r.Standing.Sequence)
		case len(l) > 0 && l[len(l)-1].New.ID != tiers[r.Standing.Tier].ID:
			w.t.Errorf("customer %s: the last change says %s, the record %s", id, l[len(l)-1].New.ID, tiers[r.Standing.Tier].ID)
		}
	}
	w.balanced()
	return corrected
}

// letters counts dead letters by code.
func (w *world) letters() map[string]int64 {
	got := map[string]int64{}
	for _, r := range w.read(w.cfg.Topics.DeadLetters) {
		for _, h := range r.Headers {
			if h.Key == "tierstream-code" {
				got[string(h.Value)]++
			}
		}
	}
	return got
}

// The log begins beyond what a rebuild needs. What is left is folded, every
// customer's chain goes on after the last published change, and it is said
// loudly. Interrupted at every step, nothing is doubled.
func TestTruncatedLogIsRebased(t *testing.T) {
	for _, interrupted := range []bool{false, true} {
		t.Run(fmt.Sprintf("interrupted %v", interrupted), func(t *testing.T) {
			w := fakeWorld(t)
			i := w.start()
			n := w.history(0, 1200)
			w.settled(n)
			half := map[string]map[int32]int64{}
			for j, topic := range w.cfg.Topics.Inputs {
				half[topic] = map[int32]int64{}
				for p := range int32(testPartitions) {
					half[topic][p] = w.fence(p).State.Next[j].Next
				}
			}
			n += w.history(1200, 800)
			w.settled(n)
			if err := i.stop(); err != nil {
				t.Fatal(err)
			}
			before, beforeLetters := w.changes(), w.letters()
			k := map[int32]uint64{}
			for p := range int32(testPartitions) {
				k[p] = w.fence(p).Seq
			}
			for topic, below := range half {
				w.deleteRecords(topic, func(p int32) int64 { return below[p] })
			}
			w.flush()
			if interrupted {
				w.cfg.BatchRecords = 40 // several batches of a rebase
				seen := map[string]int{}
				lock := make(chan struct{}, 1)
				fail := func(p int32, step string) error {
					lock <- struct{}{}
					defer func() { <-lock }()
					key := fmt.Sprint(p, step)
					seen[key]++
					if n := seen[key]; n == 1 || n == 4 {
						return errKilled
					}
					return nil
				}
				w.faults(nil, fail)
			}
			i = w.start()
			w.running(i)
			w.settled(n)
			corrected := w.chains()
			if len(corrected) == 0 {
				t.Error("nobody was corrected, although half of the log is gone")
			}
			for id, l := range corrected {
				if l[0].Sequence != len(before[id])+1 {
					t.Errorf("customer %s: corrected by change %d after %d", id, l[0].Sequence, len(before[id]))
				}
			}
			after := w.changes()
			for id := range before {
				if len(after[id]) < len(before[id]) {
					t.Errorf("customer %s: %d changes, were %d", id, len(after[id]), len(before[id]))
				}
			}
			for p := range int32(testPartitions) {
				f := w.fence(p)
				if f.Rebased.Cause != protocol.LogTruncated || f.Rebased.Open || f.Rebased.Seq <= k[p] || f.Base != 0 {
					t.Errorf("partition %d: K was %d, rebased %+v, base %d", p, k[p], f.Rebased, f.Base)
				}
			}
			if d := i.p.Degraded(); len(d) != testPartitions || !strings.Contains(d[0], "log_truncated") {
				t.Errorf("degraded: %v", d)
			}
			counts := w.balanced()
			letters := w.letters()
			for c, n := range counts {
				if code := event.Code(c); code.Outcome() == event.DeadLetter && letters[code.String()] != n {
					t.Errorf("%s: %d dead letters, counted %d; were %d", code, letters[code.String()], n, beforeLetters[code.String()])
				}
			}
			w.tidied()

			// Life goes on, and a suffix lost behind the rebase is re-applied.
			im := w.copyRedis()
			n += w.history(2000, 400)
			w.settled(n)
			if err := i.stop(); err != nil {
				t.Fatal(err)
			}
			want := w.records()
			total := len(w.chains())
			w.restoreRedis(im)
			i = w.start()
			w.running(i)
			w.settled(n)
			byteEqual(t, w.records(), want)
			if again := len(w.chains()); again != total {
				t.Errorf("%d customers corrected, %d before the suffix was lost", again, total)
			}
			// Redis wiped once more: a rebase cannot be re-applied. A second one
			// emits only what still differs, which is nothing.
			if err := i.stop(); err != nil {
				t.Fatal(err)
			}
			changes := w.changes()
			w.flush()
			w.running(w.start())
			w.settled(n)
			w.chains()
			if !interrupted {
				sameChanges(t, w.changes(), changes)
			}
		})
	}
}

// Redis comes back from an old copy, and the log does not reach back to it:
// what the copy knew is kept.
func TestRebaseBeginsFromAnIntactState(t *testing.T) {
	for _, interrupted := range []bool{false, true} {
		t.Run(fmt.Sprintf("interrupted %v", interrupted), func(t *testing.T) {
			w := fakeWorld(t)
			i := w.start()
			n := w.history(0, 1200)
			w.settled(n)
			im := w.copyRedis()
			n += w.history(1200, 300)
			w.settled(n)
			gap := map[int32][]protocol.Position{}
			for p := range int32(testPartitions) {
				gap[p] = w.fence(p).State.Next
			}
			n += w.history(1500, 500)
			w.settled(n)
			if err := i.stop(); err != nil {
				t.Fatal(err)
			}
			for j, topic := range w.cfg.Topics.Inputs {
				w.deleteRecords(topic, func(p int32) int64 { return gap[p][j].Next })
			}
			whole := w.records()
			w.restoreRedis(im)
			if interrupted {
				w.cfg.BatchRecords = 40
				var steps atomic.Int64
				w.faults(nil, func(_ int32, step string) error {
					if n := steps.Add(1); n%5 == 0 && n < 60 {
						return errKilled
					}
					return nil
				})
			}
			w.running(w.start())
			w.settled(n)
			w.chains()
			// Nobody of the copy is lost, and who had no event in the gap is as if
			// nothing had happened.
			got := w.records()
			same := 0
			for id, v := range whole {
				if g := got[id]; len(g) > 11 && string(g[11:]) == string(v[11:]) {
					same++
				}
			}
			if len(got) < len(whole)*9/10 || same < len(whole)/3 {
				t.Errorf("of %d customers %d are left, %d of them as they were", len(whole), len(got), same)
			}
			w.tidied()
			var rec *protocol.Record
			for p := range int32(testPartitions) {
				for _, r := range w.journalOf(p) {
					if r.Rebase != nil {
						rec = r
					}
				}
			}
			if rec == nil || !rec.Rebase.Based || rec.Rebase.Cause != protocol.LogTruncated {
				t.Errorf("the last rebase says %+v", rec)
			}
		})
	}
}

// journalOf reads all records of a journal partition.
func (w *world) journalOf(p int32) (all []*protocol.Record) {
	w.t.Helper()
	j := &journal{base: w.cfg.Kafka, admin: kadm.NewClient(w.client()), topic: w.cfg.Topics.Journal, partition: p, log: slog.New(slog.DiscardHandler)}
	ctx := context.Background()
	end, err := j.end(ctx, 5*time.Second)
	if err != nil {
		w.t.Fatal(err)
	}
	first, err := j.start(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := j.each(ctx, first, -1, end, func(r *protocol.Record, _ protocol.Published) error { all = append(all, r); return nil }); err != nil {
		w.t.Fatal(err)
	}
	return all
}

// lastOffset is where the last journal record of a partition lies.
func (w *world) lastOffset(p int32) int64 {
	w.t.Helper()
	j := &journal{base: w.cfg.Kafka, admin: kadm.NewClient(w.client()), topic: w.cfg.Topics.Journal, partition: p, log: slog.New(slog.DiscardHandler)}
	k, err := lastJournal(j)
	if err != nil {
		w.t.Fatal(err)
	}
	return k.Offset
}

// The journal lost its first records. State that is whole goes on, and what it
// belongs to is put on record again; state that is gone is rebased.
func TestTruncatedJournal(t *testing.T) {
	w := fakeWorld(t)
	i := w.start()
	n := w.history(0, 800)
	w.settled(n)
	incarnation := w.fence(0).Incarnation
	// Under a running, idle owner.
	w.deleteRecords(w.cfg.Topics.Journal, w.lastOffset)
	until(t, 30*time.Second, "waiting for the journal to be anchored", func() (bool, string) {
		for p := range int32(testPartitions) {
			if f := w.fence(p); f.Rebased.Seq == 0 || f.Rebased.Open {
				return false, fmt.Sprintf("partition %d: %+v", p, f.Rebased)
			}
		}
		return true, ""
	})
	if len(w.chains()) > 0 {
		t.Error("somebody was corrected, although the state was whole")
	}
	for p := range int32(testPartitions) {
		rs := w.journalOf(p)
		last := rs[len(rs)-1]
		if last.Rebase == nil || !last.Rebase.Last || last.Rebase.Cause != protocol.JournalTruncated || last.Rebase.Genesis.Incarnation != w.fence(p).Incarnation {
			t.Errorf("partition %d: the journal ends with %+v", p, last)
		}
	}
	n += w.history(800, 200)
	w.settled(n)
	if err := i.stop(); err != nil {
		t.Fatal(err)
	}
	// Redis gone as well: the log is whole, so nobody differs.
	changes := w.changes()
	w.flush()
	i = w.start()
	w.running(i)
	w.settled(n)
	w.chains()
	sameChanges(t, w.changes(), changes)
	if got := w.fence(0).Incarnation; got != incarnation {
		t.Errorf("incarnation %s, was %s", got, incarnation)
	}
	if err := i.stop(); err != nil {
		t.Fatal(err)
	}
	// And with it everything that knew the namespace's origin.
	i = w.start()
	n += w.history(1000, 200)
	w.settled(n)
	if err := i.stop(); err != nil {
		t.Fatal(err)
	}
	changes = w.changes()
	w.deleteRecords(w.cfg.Topics.Journal, w.lastOffset)
	w.flush()
	w.running(w.start())
	w.settled(n)
	w.chains()
	sameChanges(t, w.changes(), changes)
	if got := w.fence(0); got.Incarnation == incarnation || got.Genesis == nil || !got.Genesis.Adopted {
		t.Errorf("incarnation %s, genesis %+v", got.Incarnation, got.Genesis)
	}
	// Changes of both incarnations are one chain, also for the next rebase.
	n += w.history(1200, 300)
	w.settled(n)
	w.flush()
	w.settled(n)
	w.chains()
}
