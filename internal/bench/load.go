package bench

import (
	"context"
	"fmt"
	"iter"
	"math"
	"math/rand/v2"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/scoring"
)

// Backlog is the events that all loops read: deterministic but for End.
type Backlog struct {
	Events    int64
	Customers int
	End       time.Time     // event time of the last event
	Span      time.Duration // over which the events are spread evenly
}

// The mix, in events of a thousand. The rest are purchases.
const (
	returnsShare    = 30
	complaintsShare = 20
	referralsShare  = 10
	feedbackShare   = 10
	costsShare      = 10
)

// firstID is added to the numbers in IDs, so that all have as many digits.
const firstID = 1e9

// All are the events in the order of their times, each with the index of its
// topic. The event is reused. Every event's customer is drawn uniformly, which
// is the hardest for whoever writes each customer once per batch.
func (b *Backlog) All() iter.Seq2[int, *event.Event] {
	return func(yield func(int, *event.Event) bool) {
		type memory struct {
			order     int64 // number of the last order, 0 when it is returned or there is none
			amount    int64
			complaint int64 // number of the open complaint, 0 when there is none
		}
		rng := rand.New(rand.NewPCG(1, 2))
		customers := make([]memory, b.Customers)
		currency := scoring.Default().Currency()
		typical := float64(scoring.Default().TypicalOrder())
		end, span := b.End.UnixMilli(), float64(b.Span.Milliseconds())
		id := func(letter string, n int64) string { return letter + strconv.FormatInt(firstID+n, 10) }
		var e event.Event
		for n := int64(1); n <= b.Events; n++ {
			c := rng.IntN(b.Customers)
			m := &customers[c]
			e = event.Event{
				ID: id("e", n), Source: "/bench", Customer: id("c", int64(c)),
				Time: end - int64(span*float64(b.Events-n)/float64(b.Events)),
			}
			topic := 0
			kind := rng.IntN(1000)
			lot := func(share int) bool { kind -= share; return kind < 0 }
			switch {
			case lot(returnsShare) && m.order > 0:
				e.Type, e.BusinessID, e.OrderID = event.Return, id("r", n), id("o", m.order)
				e.Amount, e.HasAmount, e.Currency = m.amount, true, currency
				if n%2 == 0 && m.amount > 1 {
					e.Amount /= 2
				}
				m.order = 0
			case kind >= 0 && lot(complaintsShare):
				topic = 1
				e.Type, e.Severity, e.Status = event.Complaint, uint8(1+n%5), event.Opened
				if m.complaint == 0 {
					m.complaint = n
					e.BusinessID = id("k", n)
				} else {
					e.BusinessID, e.Status, e.Severity = id("k", m.complaint), event.Resolved, uint8(1+m.complaint%5)
					m.complaint = 0
				}
			case kind >= 0 && lot(referralsShare):
				topic = 2
				e.Type, e.BusinessID, e.RefereeID, e.Status = event.Referral, id("f", n), id("n", n), event.Converted
			case kind >= 0 && lot(feedbackShare):
				topic = 1
				e.Type, e.BusinessID, e.Kind, e.Score, e.ScaleMax = event.Feedback, id("q", n), event.NPS, int32(n%11), 10
			case kind >= 0 && lot(costsShare):
				topic = 2
				e.Type, e.BusinessID, e.Kind = event.Cost, id("w", n), event.Acquisition
				e.Amount, e.HasAmount, e.Currency = int64(typical/4), true, currency
			default:
				e.Type, e.BusinessID = event.Purchase, id("o", n)
				// Log-normal around the typical order.
				e.Amount, e.HasAmount, e.Currency = 1+int64(typical*math.Exp(rng.NormFloat64()/2)), true, currency
				e.Category, e.Channel = categories[n%int64(len(categories))], "web"
				m.order, m.amount = n, e.Amount
			}
			if !yield(topic, &e) {
				return
			}
		}
	}
}

var categories = [...]string{"books", "music", "garden", "kitchen", "sports", "toys", "shoes"}

// loader opens a client that sends each record to its customer's partition.
func loader(brokers string, opts ...kgo.Opt) (*kgo.Client, error) {
	rule, err := event.ParsePartitioner("murmur2")
	if err != nil {
		return nil, err
	}
	return kgo.NewClient(append(opts,
		kgo.SeedBrokers(brokers),
		kgo.RecordPartitioner(kgo.BasicConsistentPartitioner(func(string) func(*kgo.Record, int) int {
			return func(r *kgo.Record, n int) int { return int(rule.Partition(r.Key, int32(n))) }
		})),
		kgo.ProducerBatchCompression(kgo.Lz4Compression()),
		kgo.MaxBufferedRecords(200_000),
	)...)
}

// Load sends the backlog, compressed with LZ4, each record keyed by its
// customer.
func (b *Backlog) Load(ctx context.Context, brokers string) error {
	cl, err := loader(brokers, kgo.ProducerLinger(20*time.Millisecond))
	if err != nil {
		return err
	}
	defer cl.Close()
	var (
		mu    sync.Mutex
		first error
	)
	acknowledge := func(r *kgo.Record, err error) {
		if err != nil {
			mu.Lock()
			defer mu.Unlock()
			if first == nil {
				first = fmt.Errorf("loading the backlog into %s: %w", r.Topic, err)
			}
		}
	}
	for topic, e := range b.All() {
		r, err := record(topic, e)
		if err != nil {
			return fmt.Errorf("loading the backlog: %w", err)
		}
		cl.Produce(ctx, r, acknowledge)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if err := cl.Flush(ctx); err != nil {
		return fmt.Errorf("loading the backlog: %w", err)
	}
	mu.Lock()
	defer mu.Unlock()
	return first
}
