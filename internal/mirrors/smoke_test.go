//go:build unix

package mirrors

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/customer"
	"github.com/tierstream/tierstream/internal/rig"
	"github.com/tierstream/tierstream/internal/testenv"
)

// TestSmokeTestDriver mirrors Kafka Streams' SmokeTestDriver: every key gets
// each value of a range of its own once, shuffled within a window of ten, while
// processors are bounced. Kept, of the final state of every key against closed
// forms:
//
//   - count, sum, minimum, maximum and average of the values, which are the
//     margins of a customer's orders here
//   - the difference of minimum and maximum, which says that the range is whole
//   - the number of keys
//   - neither more nor less was processed than was generated
//
// Its suppressed windows have no counterpart; what is published once per key at
// the end is the last change, whose score is the sum.
func TestSmokeTestDriver(t *testing.T) {
	t.Parallel()
	const keys = 60
	w := oneInput(t, []string{testenv.SharedKafka(t).Addr()}, rig.Config{Model: ledgerModel()})
	l := newLedger(t, w)
	rng := rand.New(rand.NewPCG(rig.Seed(t), 7))
	f := &rig.Fleet{W: w}
	f.Start()
	f.Start()

	// Key k has the values from lowest(k) on, perCustomer of them.
	lowest := func(k int) int64 { return int64(width + 3*k) }
	type value struct {
		key int
		n   int64
	}
	var all []value
	for n := range int64(perCustomer) {
		for k := range keys {
			all = append(all, value{k, lowest(k) + n})
		}
	}
	for at := range all {
		other := at + rng.IntN(min(10, len(all)-at))
		all[at], all[other] = all[other], all[at]
	}
	var records []*kgo.Record
	for _, v := range all {
		records = append(records, l.purchase(fmt.Sprintf("key%d", v.key), v.n))
	}
	for third := range 3 {
		part := len(records) / 3
		wait := w.Send(records[third*part : (third+1)*part])
		w.Progress(w.Sent + int64(part)/2)
		f.Start()
		f.Kill(0)
		wait()
	}
	w.Settled(time.Minute)
	fences, err := w.Fences()
	if err != nil {
		t.Fatal(err)
	}
	var processed int64
	for _, f := range fences {
		processed += f.State.Read
	}
	if processed != int64(len(all)) {
		t.Errorf("%d were processed of %d generated", processed, len(all))
	}

	last := map[string]change{}
	for _, records := range w.Read(w.Topics.Changes) {
		for _, r := range records {
			var c change
			if err := json.Unmarshal(r.Value, &c); err != nil {
				t.Fatal(err)
			}
			last[c.Customer] = c
		}
	}
	stored := map[string]*customer.Record{}
	for p := range w.Config.Partitions {
		for id, v := range w.Records(p) {
			stored[id] = rig.Decoded(t, v)
		}
	}
	if len(stored) != keys || len(last) != keys {
		t.Fatalf("%d keys are stored, %d published, want %d", len(stored), len(last), keys)
	}
	for k := range keys {
		id := fmt.Sprintf("key%d", k)
		lo := lowest(k)
		hi := lo + perCustomer - 1
		want := aggregate{count: perCustomer, sum: (lo + hi) * perCustomer / 2, min: lo, max: hi}
		if got := aggregated(stored[id]); got != want {
			t.Errorf("%s: %+v, want %+v", id, got, want)
		}
		if c := last[id]; c.Sequence != perCustomer || int64(c.After) != want.sum {
			t.Errorf("%s: the last change is %+v, want number %d with %d", id, c, perCustomer, want.sum)
		}
	}
	l.verify()
}

type aggregate struct{ count, sum, min, max int64 }

// aggregated is what a record says of its orders' margins. The average and the
// difference follow from it.
func aggregated(r *customer.Record) aggregate {
	var a aggregate
	for i, o := range r.Facts.Orders {
		if i == 0 {
			a.min, a.max = o.Margin, o.Margin
		}
		a.count++
		a.sum += o.Margin
		a.min, a.max = min(a.min, o.Margin), max(a.max, o.Margin)
	}
	return a
}
