//go:build unix

package mirrors

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/rig"
	"github.com/tierstream/tierstream/internal/testenv"
)

func TestMain(m *testing.M) { testenv.Main(m, rig.RemoveBinary) }

// The suites mirrored here check one output per input. A tier change is one
// when every purchase moves the tier: the measure is the sum of a customer's
// margins, and each margin is at least as wide as a tier.
const (
	tiers = 31
	width = 1000 // of a tier, minor units
	// perCustomer purchases of at most one and a half widths stay within the
	// tiers.
	perCustomer = 20
)

// ledgerModel is the model that makes every purchase a change.
func ledgerModel() string {
	var b strings.Builder
	b.WriteString("name: ledger\ncurrency: EUR\ntypical_order_minor: 5000\nmeasure: value.current\ntiers:\n  - {id: t0, name: T0}\n")
	for i := 1; i <= tiers; i++ {
		fmt.Fprintf(&b, "  - {id: t%d, name: T%d, enter: %d, leave: %d}\n", i, i, i*width, i*width-1)
	}
	return b.String()
}

// ledger makes purchases and knows what must come of each.
type ledger struct {
	t     testing.TB
	w     *rig.World
	start time.Time
	n     int
	sums  map[string]int64
	seqs  map[string]int
	want  map[string]output // by event ID
}

// output is what one purchase must lead to.
type output struct {
	customer string
	sequence int
	sum      int64 // of the customer's margins, this one included
}

func newLedger(t testing.TB, w *rig.World) *ledger {
	return &ledger{t: t, w: w, start: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		sums: map[string]int64{}, seqs: map[string]int{}, want: map[string]output{}}
}

// purchase is the next purchase, of the given margin, as a record for the
// world's only input.
func (l *ledger) purchase(customer string, margin int64) *kgo.Record {
	l.t.Helper()
	l.n++
	l.sums[customer] += margin
	l.seqs[customer]++
	id := fmt.Sprintf("e%d", l.n)
	l.want[id] = output{customer, l.seqs[customer], l.sums[customer]}
	e := event.Event{
		Type: event.Purchase, ID: id, Source: "mirrors", Customer: customer,
		Time: l.start.Add(time.Duration(l.n) * time.Second).UnixMilli(), BusinessID: "o" + id,
		Amount: 2 * margin, HasAmount: true, Currency: "EUR", Margin: margin, HasMargin: true,
	}
	value, headers, err := event.Encode(&e, event.BinaryJSON)
	if err != nil {
		l.t.Fatal(err)
	}
	r := &kgo.Record{Topic: l.w.Topics.Inputs[0], Key: []byte(customer), Value: value}
	for _, h := range headers {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
	}
	return r
}

// purchases are the next n purchases of customers who come and go, drawn from
// rng.
func (l *ledger) purchases(rng *rand.Rand, n int) (out []*kgo.Record) {
	l.t.Helper()
	for len(out) < n {
		// Of those around now, any who may still buy.
		customer := fmt.Sprintf("c%d", l.n/(perCustomer/2)+rng.IntN(50))
		if l.seqs[customer] < perCustomer {
			out = append(out, l.purchase(customer, width+rng.Int64N(width/2)))
		}
	}
	return out
}

// change is what the checks read of a tier change.
type change struct {
	Customer string  `json:"customer_id"`
	Sequence int     `json:"sequence"`
	After    float64 `json:"score_after"`
	Cause    struct {
		ID     string `json:"event_id"`
		Offset int64  `json:"offset"`
	} `json:"cause"`
}

// verify reads the committed changes, which must be one for each purchase sent
// so far and in the order of the purchases: per partition, the n-th output is
// that of the n-th input. So a duplicate, a gap or a swap anywhere fails.
func (l *ledger) verify() {
	l.t.Helper()
	total := 0
	for p, records := range l.w.Read(l.w.Topics.Changes) {
		for i, r := range records {
			var c change
			if err := json.Unmarshal(r.Value, &c); err != nil {
				l.t.Fatalf("%s: %v", r.Value, err)
			}
			got := output{c.Customer, c.Sequence, int64(c.After)}
			if want := l.want[c.Cause.ID]; got != want || c.Cause.Offset != int64(i) {
				l.t.Fatalf("partition %d: output %d is of input %d, %+v, want %+v", p, i, c.Cause.Offset, got, want)
			}
		}
		total += len(records)
	}
	if total != len(l.want) {
		l.t.Errorf("%d outputs of %d inputs", total, len(l.want))
	}
}

// state checks what is stored: each customer's sum, and nobody else.
func (l *ledger) state() {
	l.t.Helper()
	customers := 0
	for p := range l.w.Config.Partitions {
		for id, v := range l.w.Records(p) {
			customers++
			var sum int64
			for _, o := range rig.Decoded(l.t, v).Facts.Orders {
				sum += o.Margin
			}
			if sum != l.sums[id] {
				l.t.Errorf("customer %s has the sum %d, want %d", id, sum, l.sums[id])
			}
		}
	}
	if customers != len(l.sums) {
		l.t.Errorf("%d customers are stored, want %d", customers, len(l.sums))
	}
}

// noTransactionIsOpen: what readers of committed records see is all there is.
func noTransactionIsOpen(t testing.TB, w *rig.World) {
	t.Helper()
	for _, topic := range []string{w.Topics.Changes, w.Topics.DeadLetters, w.Topics.Journal} {
		committed, err := w.Admin.ListCommittedOffsets(t.Context(), topic)
		if err != nil {
			t.Fatal(err)
		}
		all, err := w.Admin.ListEndOffsets(t.Context(), topic)
		if err != nil {
			t.Fatal(err)
		}
		for p, end := range all[topic] {
			if c := committed[topic][p]; c.Offset != end.Offset {
				t.Errorf("%s/%d: committed up to %d, written up to %d", topic, p, c.Offset, end.Offset)
			}
		}
	}
}

// oneInput is a world with a single input topic.
func oneInput(t testing.TB, brokers []string, c rig.Config) *rig.World {
	t.Helper()
	c.Brokers, c.Redis = brokers, rig.Redis(t, testenv.RedisOptions{AppendFsync: "everysec"}).Addr()
	if c.Namespace == "" {
		c.Namespace = strings.TrimRight(testenv.Prefix(t), "-")
	}
	c.Inputs = []string{c.Namespace + "-in"}
	return rig.New(t, c)
}
