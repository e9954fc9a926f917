//go:build unix

package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/rig"
	"github.com/tierstream/tierstream/internal/testenv"
)

func TestChainsSurviveKills(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testenv.RedisOptions{AppendFsync: "everysec"})
	surviveKills(w, &rig.Fleet{W: w.World}, 8)
}

// surviveKills sends traffic in rounds, in each of which one or two consumers
// are killed at chosen moments, and compares what came of it with a second
// reading.
func surviveKills(w *world, f *rig.Fleet, rounds int) {
	t := w.t
	rng := rand.New(rand.NewPCG(rig.Seed(t), 1))
	f.Start()
	f.Start()
	g := rig.Traffic(t, 1, 0.03)
	kills, unpublished, untrimmed := 0, 0, 0
	for round := range rounds {
		var waits []func()
		for len(f.On) < 3 {
			f.Start()
		}
		n := 1 + round%2
		for range n {
			if len(f.On) == 0 {
				break
			}
			// For each its own: of what came before, all may be applied already.
			waits = append(waits, w.Send(w.Take(g, 200+rng.IntN(150))))
			switch rng.IntN(3) {
			case 0:
				w.Progress(w.Sent + int64(rng.IntN(200)))
				f.Kill(rng.IntN(len(f.On)))
			case 1:
				f.Kill(f.Owner(w.AfterCommit()))
				untrimmed++
			default:
				f.Kill(f.Owner(w.AfterApply()))
				unpublished += w.OpenBatches()
			}
			kills++
		}
		f.Start()
		if round == rounds/2+1 { // and one that leaves in order
			f.On[0].Stop()
			f.On = f.On[1:]
		}
		for _, wait := range waits {
			wait()
		}
		w.Progress(w.Sent)
	}
	w.Settled(60 * time.Second)
	t.Logf("%d kills; %d after a commit; %d batches were left unpublished", kills, untrimmed, unpublished)
	if want := rounds / 2 * 3; kills < want {
		t.Errorf("%d kills, want at least %d", kills, want)
	}
	w.Check()
}

// TestWokenConsumerWritesNothing: a process that was halted for longer than
// its session does not know that it lost its partitions. Whatever it tries
// when it wakes is refused, and it takes nothing back.
func TestWokenConsumerWritesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testenv.RedisOptions{})
	g := rig.Traffic(t, 3, 0.03)
	sleeper := w.Start()
	wait := w.Send(w.Take(g, 300))
	wait()
	w.Settled(30 * time.Second)
	heir := w.Start()
	rig.Until(t, 30*time.Second, "waiting for two consumers with partitions", func() error {
		if a, b := sleeper.Owned(), heir.Owned(); len(a) == 0 || len(a)+len(b) != rig.Partitions {
			return fmt.Errorf("%v and %v", a, b)
		}
		return nil
	})
	for range 2 {
		// Halted in the midst of work, transactions open.
		wait = w.Send(w.Take(g, 400))
		w.AfterApply()
		owned := sleeper.Owned()
		sleeper.Signal(syscall.SIGSTOP)
		rig.Until(t, 60*time.Second, "waiting for the heir to have all partitions", func() error {
			if o := heir.Owned(); len(o) != rig.Partitions {
				return fmt.Errorf("it has %v", o)
			}
			return nil
		})
		wait()
		w.Settled(60 * time.Second)
		before, err := w.Fences()
		if err != nil {
			t.Fatal(err)
		}
		mark := len(sleeper.Output.String())
		wait = w.Send(w.Take(g, 200)) // there is something for it to steal
		sleeper.Signal(syscall.SIGCONT)
		// Until it knows that its partitions are lost, it is no member and may
		// not become an owner. Once it knows, it may join again and be given some.
		rig.Until(t, 30*time.Second, "waiting for the woken consumer to notice", func() error {
			now, err := w.Fences()
			if err != nil {
				t.Fatal(err)
			}
			said := sleeper.Output.String()[mark:]
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
		w.Settled(60 * time.Second)
		rig.Until(t, 30*time.Second, "waiting for both to own partitions again", func() error {
			if a, b := sleeper.Owned(), heir.Owned(); len(a) == 0 || len(a)+len(b) != rig.Partitions {
				return fmt.Errorf("%v and %v", a, b)
			}
			return nil
		})
	}
	w.Check()
}

// TestWokenConsumerIsNotLedByAFence: Redis lost what the new owner had written
// with the epoch that names it, so that the fence is again the one that the
// woken process remembers. It still writes nothing, in Redis because its lease
// is over and a lease that is over is not renewed, in Kafka because its
// producer is fenced; and it waits for the group before it acquires.
func TestWokenConsumerIsNotLedByAFence(t *testing.T) {
	t.Parallel()
	w := newWorldOn(t, testenv.Kafka(t, testenv.KafkaOptions{}), testenv.RedisOptions{AppendFsync: "everysec"})
	g := rig.Traffic(t, 31, 0.03)
	sleeper := w.Start()
	w.Send(w.Take(g, 300))()
	w.Settled(30 * time.Second)
	wait := w.Send(w.Take(g, 400))
	w.AfterApply()
	sleeper.Signal(syscall.SIGSTOP)
	backup := filepath.Join(t.TempDir(), "backup")
	if err := w.redis.Backup(t.Context(), backup); err != nil {
		t.Fatal(err)
	}
	fences := func() []*protocol.Fence {
		t.Helper()
		fs, err := w.Fences()
		if err != nil {
			t.Fatal(err)
		}
		return fs
	}
	slept := fences()

	heir := w.Start()
	wait()
	w.Settled(60 * time.Second)
	heir.Signal(syscall.SIGSTOP)
	if err := w.redis.Restore(t.Context(), backup); err != nil {
		t.Fatal(err)
	}
	before := fences()
	for p, f := range before {
		if f.Owner != slept[p].Owner {
			t.Fatalf("partition %d: the restored fence names another owner than the sleeper", p)
		}
	}

	// Not to be told by the group, at first.
	if err := w.kafka.Pause(); err != nil {
		t.Fatal(err)
	}
	sleeper.Signal(syscall.SIGCONT)
	unchanged := func() {
		t.Helper()
		for p, f := range fences() {
			if f.Identity != before[p].Identity || f.Lease != before[p].Lease {
				t.Fatalf("partition %d: the woken consumer made\n%+v of\n%+v", p, f, before[p])
			}
		}
	}
	rig.Until(t, 30*time.Second, "waiting for the woken consumer to try", func() error {
		unchanged()
		if n := w.scripts(); n < rig.Partitions {
			return fmt.Errorf("it ran %d scripts", n)
		}
		return nil
	})
	if err := w.kafka.Resume(); err != nil {
		t.Fatal(err)
	}
	rig.Until(t, 30*time.Second, "waiting for the woken consumer to notice", func() error {
		unchanged()
		if n := strings.Count(sleeper.Output.String(), "lost=true"); n < rig.Partitions {
			return fmt.Errorf("%d of %d partitions", n, rig.Partitions)
		}
		return nil
	})

	heir.Signal(syscall.SIGCONT)
	w.Send(w.Take(g, 200))()
	w.Settled(60 * time.Second)
	w.Check() // no record of the sleeper's in the journal after one of the heir's, but by a new owner
}

// scripts is how many scripts Redis has run since it started.
func (w *world) scripts() (n int) {
	w.t.Helper()
	stats, err := w.RDB.Info(context.Background(), "commandstats").Result()
	if err != nil {
		w.t.Fatal(err)
	}
	for line := range strings.Lines(stats) {
		var calls, usec, rejected, failed int
		var perCall float64
		for _, name := range []string{"eval", "evalsha"} {
			// A script that the server does not know is a failed evalsha.
			if _, err := fmt.Sscanf(line, "cmdstat_"+name+":calls=%d,usec=%d,usec_per_call=%g,rejected_calls=%d,failed_calls=%d",
				&calls, &usec, &perCall, &rejected, &failed); err == nil {
				n += calls - failed
			}
		}
	}
	return n
}
