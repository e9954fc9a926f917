package simulation

import (
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/sim"
	"github.com/tierstream/tierstream/internal/sim/produce"
)

// minEvents is how many records a seed sends at least.
const minEvents = 500

// feeder sends believable traffic, made worse: bad, late, duplicated and
// reordered records, in bursts and silences, some in transactions of which
// some are aborted.
type feeder struct {
	w      *world
	rnd    *rand.Rand
	gen    *sim.Generator
	plain  *kgo.Client
	txn    *kgo.Client
	past   []*kgo.Record // some of those sent
	held   []*kgo.Record // overtaken by those that follow
	format int

	mu    sync.Mutex
	quiet time.Time // nothing is sent before
	last  map[string]map[int32]int64
	sent  int // not aborted
}

func newFeeder(w *world) *feeder {
	rnd := rand.New(rand.NewPCG(w.seed, 2))
	c := sim.DefaultConfig()
	c.Seed, c.Customers, c.Span, c.Later = w.seed, 60+float64(rnd.IntN(120)), 200*24*time.Hour, 0.3
	c.BadRate, c.DelayedShare, c.ReturnShare, c.CancelShare = 0.08, 0.05, 0.15, 0.05
	// The virtual clock begins with the year 2000: nothing is from the future.
	c.Start = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)
	c.Currency = w.cfg.Rules.Model.Currency()
	gen, err := sim.New(c)
	must(err)
	rule, err := event.ParsePartitioner("murmur2")
	must(err)
	part, err := produce.Partitioner(rule)
	must(err)
	opts := []kgo.Opt{kgo.RecordPartitioner(part), kgo.ProducerLinger(0), kgo.ProducerBatchCompression(kgo.NoCompression())}
	return &feeder{
		w: w, rnd: rnd, gen: gen, last: map[string]map[int32]int64{},
		plain: w.open(opts...), txn: w.open(append(opts, kgo.TransactionalID("feeder"))...),
	}
}

func (f *feeder) close() { f.plain.Close(); f.txn.Close() }

// next is the next record to send.
func (f *feeder) next() *kgo.Record {
	switch n := f.rnd.IntN(100); {
	case n < 4 && len(f.past) > 0: // a duplicate
		r := f.past[f.rnd.IntN(len(f.past))]
		return &kgo.Record{Topic: r.Topic, Key: r.Key, Value: r.Value, Headers: r.Headers}
	case n < 15 && len(f.held) > 0:
		r := f.held[0]
		f.held = f.held[1:]
		return r
	}
	m, ok := f.gen.Next()
	if !ok {
		panic("simulation: the generator has ended")
	}
	in := f.w.topics.Inputs
	r, err := produce.Record(&m, produce.Topics{in[0], in[1], in[2]}, event.Formats[f.format%len(event.Formats)])
	must(err)
	f.format++
	if f.rnd.IntN(100) < 8 {
		f.held = append(f.held, r)
		return f.next()
	}
	if len(f.past) < 100 {
		f.past = append(f.past, r)
	} else {
		f.past[f.rnd.IntN(len(f.past))] = r
	}
	return r
}

// hush keeps the inputs quiet for a while.
func (f *feeder) hush(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.quiet = time.Now().Add(d)
}

// run sends until stop is closed and enough is sent.
func (f *feeder) run(stop <-chan struct{}) {
	for {
		pause := time.Duration(20+f.rnd.IntN(250)) * time.Millisecond
		if f.rnd.IntN(25) == 0 {
			pause = 1500 * time.Millisecond
		}
		f.mu.Lock()
		pause = max(pause, time.Until(f.quiet))
		f.mu.Unlock()
		select {
		case <-stop:
			if f.count() >= minEvents {
				return
			}
			pause = min(pause, 50*time.Millisecond)
		default:
		}
		time.Sleep(pause)
		f.burst(1 + f.rnd.IntN(18))
	}
}

// burst sends n records at once.
func (f *feeder) burst(n int) {
	rs := make([]*kgo.Record, n)
	for i := range rs {
		rs[i] = f.next()
	}
	f.send(rs)
}

// nonsense sends n records of which half are refused.
func (f *feeder) nonsense(n int) {
	rs := make([]*kgo.Record, n)
	for i := range rs {
		if rs[i] = f.next(); i%2 == 0 {
			rs[i].Value = []byte("{")
		}
	}
	f.sendPlain(rs)
}

// send sends records, some of them in a transaction, which may be aborted.
func (f *feeder) send(rs []*kgo.Record) {
	switch f.rnd.IntN(12) {
	case 0:
		must(f.txn.BeginTransaction())
		must(f.txn.ProduceSync(f.w.ctx, rs...).FirstErr())
		must(f.txn.EndTransaction(f.w.ctx, kgo.TryAbort))
	case 1:
		must(f.txn.BeginTransaction())
		must(f.txn.ProduceSync(f.w.ctx, rs...).FirstErr())
		must(f.txn.EndTransaction(f.w.ctx, kgo.TryCommit))
		f.committed(rs)
	default:
		f.sendPlain(rs)
	}
}

func (f *feeder) sendPlain(rs []*kgo.Record) {
	must(f.plain.ProduceSync(f.w.ctx, rs...).FirstErr())
	f.committed(rs)
}

// committed notes how far the inputs must be applied.
func (f *feeder) committed(rs []*kgo.Record) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sent += len(rs)
	for _, r := range rs {
		m := f.last[r.Topic]
		if m == nil {
			m = map[int32]int64{}
			f.last[r.Topic] = m
		}
		m[r.Partition] = max(m[r.Partition], r.Offset+1)
	}
}

func (f *feeder) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.sent
}
