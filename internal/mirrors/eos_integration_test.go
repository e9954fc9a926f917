//go:build unix

package mirrors

import (
	"fmt"
	"math/rand/v2"
	"syscall"
	"testing"
	"time"

	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/rig"
	"github.com/tierstream/tierstream/internal/testenv"
)

// TestEosIntegration mirrors Kafka Streams' EosIntegrationTest: on two
// partitions, a task fails with some records committed and others processed and
// not; an instance stalls until another has its partitions, and wakes; an
// instance is closed and started again. Kept, after each:
//
//   - read committed, there are exactly the records sent, each once and in order
//     per key, and fewer before the failed task's are taken up; what was not
//     committed is not seen
//   - the state holds the exact sums, although the failed task's records were
//     processed by two
//   - the stalled instance comes back without a duplicate
//
// One differs by design: there the store is rolled back to the commit, here it
// is ahead of it, and what was applied is published as it was decided. Its
// repartitioned topologies have no counterpart.
func TestEosIntegration(t *testing.T) {
	t.Parallel()
	w := oneInput(t, []string{testenv.SharedKafka(t).Addr()}, rig.Config{Partitions: 2, Model: ledgerModel()})
	l := newLedger(t, w)
	rng := rand.New(rand.NewPCG(rig.Seed(t), 6))
	args := []string{"--batch-records=5"}
	committed := func(n int) {
		t.Helper()
		w.Settled(time.Minute)
		if got := w.Count(w.Topics.Changes); got != n {
			t.Fatalf("%d records are committed, want %d", got, n)
		}
		noTransactionIsOpen(t, w)
		l.verify()
		l.state()
	}
	sent := 0
	purchase := func() (wait func()) {
		sent += 20
		return w.Send(l.purchases(rng, 20))
	}
	first := w.Start(args...)
	purchase()()
	committed(sent)

	// The task fails with records processed and not committed.
	for tries := 1; ; tries++ {
		wait := purchase()
		w.AfterApply()
		first.Kill()
		wait()
		if n := w.OpenBatches(); n > 0 {
			t.Logf("killed with %d batches that are not committed, at try %d", n, tries)
			break
		}
		if tries == 20 {
			t.Fatal("whenever the task was killed, everything processed was committed")
		}
		first = w.Start(args...)
		committed(sent)
	}
	if n := w.Count(w.Topics.Changes); n >= sent {
		t.Fatalf("%d of %d records are committed, although some are not", n, sent)
	}
	stalled := w.Start(args...)
	committed(sent)

	// Stalled with a partition of its own, in the midst of work.
	other := w.Start(args...)
	rig.Until(t, time.Minute, "waiting for each to own a partition", func() error {
		if a, b := stalled.Owned(), other.Owned(); len(a) != 1 || len(b) != 1 {
			return fmt.Errorf("%v and %v", a, b)
		}
		return nil
	})
	wait := purchase()
	w.AfterApply()
	stalled.Signal(syscall.SIGSTOP)
	wait()
	committed(sent)
	before, err := w.Fences()
	if err != nil {
		t.Fatal(err)
	}
	stalled.Signal(syscall.SIGCONT)
	rig.Until(t, time.Minute, "waiting for the stalled instance to own a partition again", func() error {
		now, err := w.Fences()
		if err != nil {
			return err
		}
		taken := func(p int32) bool { return now[p].Owner != before[p].Owner }
		if o := stalled.Owned(); len(o) != 1 || !taken(o[0]) {
			return fmt.Errorf("it owns %v", o)
		}
		return nil
	})
	wait = purchase()
	other.Stop()
	w.Start(args...)
	wait()
	committed(sent)
	ordered(t, w)
}

// ordered: no owner of a partition publishes after another has.
func ordered(t testing.TB, w *rig.World) {
	t.Helper()
	for p, records := range w.Read(w.Topics.Journal) {
		gone := map[protocol.Nonce]bool{}
		var last protocol.Nonce
		for _, r := range records {
			rec, err := protocol.DecodeRecord(r.Value)
			if err != nil {
				t.Fatal(err)
			}
			if rec.Owner != last && gone[rec.Owner] {
				t.Errorf("partition %d: batch %d is of an owner who had lost it", p, rec.Seq)
			}
			gone[rec.Owner], last = true, rec.Owner
		}
	}
}
