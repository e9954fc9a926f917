//go:build unix

package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/state"
	"github.com/tierstream/tierstream/internal/testenv"
)

// fleet are the consumers of a world, of which some are dead.
type fleet struct {
	w    *world
	args []string
	on   []*consumer
}

func (f *fleet) start() { f.on = append(f.on, f.w.start(f.args...)) }

// owner is the consumer that says it owns a partition, else any.
func (f *fleet) owner(p int32) int {
	for i, c := range f.on {
		if slices.Contains(c.owned(), p) {
			return i
		}
	}
	return 0
}

func (f *fleet) kill(i int) {
	c := f.on[i]
	f.on = slices.Delete(f.on, i, i+1)
	c.kill()
}

// afterCommit waits until a batch is published that its owner cannot have
// trimmed yet, because that takes the next batch, and returns its partition.
func (w *world) afterCommit() int32 {
	w.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(w.kafka.Addr()), kgo.ConsumeTopics(w.topics.Journal),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtEnd()), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(50*time.Millisecond))
	if err != nil {
		w.t.Fatal(err)
	}
	defer cl.CloseAllowingRebalance()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	for {
		fs := cl.PollFetches(ctx)
		if err := fs.Err(); err != nil {
			w.t.Fatalf("watching the journal: %v", err)
		}
		if rs := fs.Records(); len(rs) > 0 {
			return rs[0].Partition
		}
	}
}

// afterApply waits until a batch is applied that is not published yet, and
// returns its partition.
func (w *world) afterApply() (at int32) {
	w.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	ctx := context.Background()
	before := make([]int64, partitions)
	for first := true; time.Now().Before(deadline); first = false {
		for p := range int32(partitions) {
			// Not HLEN: entries that are published and await their trim count too.
			seq, err := w.rdb.HGet(ctx, state.PartitionKeys(w.ns, p).Fence(), "seq").Int64()
			if err == nil && !first && seq > before[p] {
				return p
			}
			before[p] = seq
		}
	}
	w.t.Fatal("no batch was applied")
	return 0
}

// openBatches counts the outbox entries that are not published, over all partitions:
// what the next owners have to publish.
func (w *world) openBatches() int {
	n := 0
	fs, err := w.fences()
	if err != nil {
		w.t.Fatal(err)
	}
	last := map[int]uint64{}
	for p, records := range w.read(w.topics.Journal) {
		for _, r := range records {
			rec, err := protocol.DecodeRecord(r.Value)
			if err != nil {
				w.t.Fatal(err)
			}
			last[p] = rec.Seq
		}
		if fs[p] != nil && fs[p].Seq > last[p] {
			n += int(fs[p].Seq - last[p])
		}
	}
	return n
}

func seed(t testing.TB) uint64 {
	s := uint64(time.Now().UnixNano())
	if v := os.Getenv("TIERSTREAM_TEST_SEED"); v != "" {
		n, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			t.Fatalf("TIERSTREAM_TEST_SEED: %v", err)
		}
		s = n
	}
	t.Logf("seed %d (repeat with TIERSTREAM_TEST_SEED)", s)
	return s
}

func TestChainsSurviveKills(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(seed(t), 1))
	w := newWorld(t, testenv.RedisOptions{AppendFsync: "everysec"})
	f := &fleet{w: w}
	f.start()
	f.start()
	g := traffic(t, 1, 0.03)
	kills, unpublished, untrimmed := 0, 0, 0
	for round := range 8 {
		wait := w.send(w.take(g, 350+rng.IntN(200)))
		for len(f.on) < 3 {
			f.start()
		}
		n := 1 + round%2
		for range n {
			if len(f.on) == 0 {
				break
			}
			switch rng.IntN(3) {
			case 0:
				w.progress(w.sent + int64(rng.IntN(200)))
				f.kill(rng.IntN(len(f.on)))
			case 1:
				f.kill(f.owner(w.afterCommit()))
				untrimmed++
			default:
				f.kill(f.owner(w.afterApply()))
				unpublished += w.openBatches()
			}
			kills++
		}
		f.start()
		if round == 5 { // and one that leaves in order
			f.on[0].stop()
			f.on = f.on[1:]
		}
		wait()
		w.progress(w.sent)
	}
	w.settled(60 * time.Second)
	t.Logf("%d kills; %d after a commit; %d batches were left unpublished", kills, untrimmed, unpublished)
	if kills < 12 {
		t.Errorf("%d kills, want at least 12", kills)
	}
	w.check()
}

// TestWokenConsumerWritesNothing: a process that was halted for longer than
// its session does not know that it lost its partitions. Whatever it tries
// when it wakes is refused, and it takes nothing back.
func TestWokenConsumerWritesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testenv.RedisOptions{})
	g := traffic(t, 3, 0.03)
	sleeper := w.start()
	wait := w.send(w.take(g, 300))
	wait()
	w.settled(30 * time.Second)
	heir := w.start()
	until(t, 30*time.Second, "waiting for two consumers with partitions", func() error {
		if a, b := sleeper.owned(), heir.owned(); len(a) == 0 || len(a)+len(b) != partitions {
			return fmt.Errorf("%v and %v", a, b)
		}
		return nil
	})
	for range 2 {
		// Halted in the midst of work, transactions open.
		wait = w.send(w.take(g, 400))
		w.afterApply()
		owned := sleeper.owned()
		sleeper.signal(syscall.SIGSTOP)
		until(t, 60*time.Second, "waiting for the heir to have all partitions", func() error {
			if o := heir.owned(); len(o) != partitions {
				return fmt.Errorf("it has %v", o)
			}
			return nil
		})
		wait()
		w.settled(60 * time.Second)
		before, err := w.fences()
		if err != nil {
			t.Fatal(err)
		}
		mark := len(sleeper.output.String())
		wait = w.send(w.take(g, 200)) // there is something for it to steal
		sleeper.signal(syscall.SIGCONT)
		// Until it knows that its partitions are lost, it is no member and may
		// not become an owner. Once it knows, it may join again and be given some.
		until(t, 30*time.Second, "waiting for the woken consumer to notice", func() error {
			now, err := w.fences()
			if err != nil {
				t.Fatal(err)
			}
			said := sleeper.output.String()[mark:]
			noticed := strings.Count(said, "lost=true")
			for _, p := range owned {
				if f := now[p]; f.Epoch != before[p].Epoch || f.Owner != before[p].Owner {
					if noticed < len(owned) {
						t.Errorf("partition %d: epoch %d, was %d: the woken consumer took it back", p, f.Epoch, before[p].Epoch)
					}
				}
			}
			if noticed < len(owned) {
				return fmt.Errorf("it said:\n%s", said)
			}
			return nil
		})
		wait()
		w.settled(60 * time.Second)
		until(t, 30*time.Second, "waiting for both to own partitions again", func() error {
			if a, b := sleeper.owned(), heir.owned(); len(a) == 0 || len(a)+len(b) != partitions {
				return fmt.Errorf("%v and %v", a, b)
			}
			return nil
		})
	}
	w.check()
}
