//go:build unix

package mirrors

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/tierstream/tierstream/internal/rig"
	"github.com/tierstream/tierstream/internal/testenv"
)

// TestEosTestDriver mirrors Kafka's streams_eos_test.py with its
// EosTestDriver: three processors on five partitions are added, closed and
// killed in turns, while a producer runs. Kept:
//
//   - all transactions are finished in the end
//   - what is read committed is the input, per partition and in order
//   - the running sum of a key, recomputed for each input, equals the output of
//     that input, one by one
//
// Its running minimum and its repartitioned counts have no counterpart: no
// output here depends on more than one key.
func TestEosTestDriver(t *testing.T) {
	t.Parallel()
	w := oneInput(t, []string{testenv.SharedKafka(t).Addr()}, rig.Config{Partitions: 5, Model: ledgerModel()})
	l := newLedger(t, w)
	rng := rand.New(rand.NewPCG(rig.Seed(t), 5))
	f := &rig.Fleet{W: w}
	// work sends some purchases and does the step in their midst.
	work := func(step func()) {
		t.Helper()
		begun := w.Sent
		wait := w.Send(l.purchases(rng, 200))
		w.Progress(begun + 1 + rng.Int64N(100))
		step()
		wait()
		w.Progress(w.Sent)
	}
	f.Start()
	// Rebalances: processors come and are closed.
	work(f.Start)
	work(f.Start)
	work(func() { f.On[0].Stop(); f.On = f.On[1:] })
	work(f.Start)
	// Failures: one dies, two, and all at once.
	work(func() { f.Kill(0); f.Start() })
	work(func() { f.Kill(0); f.Kill(0); f.Start(); f.Start() })
	work(func() {
		for len(f.On) > 0 {
			f.Kill(0)
		}
		f.Start()
		f.Start()
	})
	w.Settled(time.Minute)
	noTransactionIsOpen(t, w)
	l.verify()
	l.state()
}
