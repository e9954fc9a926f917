package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/state"
)

// valueBytes is the size of the bare loop's values: that of a customer with
// some ten orders.
const valueBytes = 400

// bare is the protocol alone, as fast as it can be: the same scripts, journal
// records and transactions as the consumer's, a partition by a goroutine that
// applies and one that publishes, but neither decoding, loading, folding,
// encoding, merging, nor tier changes.
func (w *work) bare(ctx context.Context) (*Result, error) {
	if err := w.createTopics(ctx); err != nil {
		return nil, err
	}
	var left, batches atomic.Int64
	left.Store(w.Events)
	ps := make([]*barePartition, w.Partitions)
	for i := range ps {
		p, err := w.newBarePartition(ctx, int32(i))
		if err != nil {
			return nil, err
		}
		defer p.reader.CloseAllowingRebalance()
		defer p.producer.Close()
		p.left, p.batches = &left, &batches
		ps[i] = p
	}
	m := w.start()
	// Reading ends when all partitions together have read everything.
	reading, read := context.WithCancel(ctx)
	defer read()
	g, gctx := errgroup.WithContext(ctx)
	for _, p := range ps {
		p.reading, p.read = reading, read
		g.Go(func() error { return p.apply(gctx) })
		g.Go(func() error { return p.publish(gctx) })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	r := &Result{Events: w.Events, Batches: batches.Load(), Used: w.Events}
	m.stop(r)
	if n := left.Load(); n != 0 {
		return nil, fmt.Errorf("bare: %d events of %d left", n, w.Events)
	}
	return r, nil
}

type barePartition struct {
	n        int32
	store    *state.Store
	reader   *kgo.Client
	producer *kgo.Client
	journal  string
	id       protocol.Identity
	state    protocol.State
	genesis  protocol.Published

	entries   chan *protocol.Entry
	published atomic.Pointer[protocol.Published]

	reading       context.Context
	read          func()
	left, batches *atomic.Int64
}

func (w *work) newBarePartition(ctx context.Context, n int32) (*barePartition, error) {
	p := &barePartition{n: n, store: w.store(n), journal: w.topics().Journal, entries: make(chan *protocol.Entry, 1024)}
	at := map[string]map[int32]kgo.Offset{}
	for _, t := range inputs {
		at[t] = map[int32]kgo.Offset{n: kgo.NewOffset().AtStart()}
	}
	var err error
	if p.reader, err = w.client(kgo.ConsumePartitions(at), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.FetchMaxWait(250*time.Millisecond), kgo.FetchMaxPartitionBytes(4<<20)); err != nil {
		return nil, err
	}
	if p.producer, err = w.client(kgo.TransactionalID(fmt.Sprintf("%s-%d", w.Namespace, n)), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.ProducerLinger(0), kgo.ProducerBatchCompression(kgo.Lz4Compression())); err != nil {
		return nil, err
	}
	if _, _, err := p.producer.ProducerID(ctx); err != nil {
		return nil, fmt.Errorf("opening a producer: %w", err)
	}
	f, _, _, err := p.store.Acquire(ctx, protocol.Nonce{1, byte(n)})
	if err != nil {
		return nil, err
	}
	p.id = f.Identity
	p.state = protocol.State{Next: make([]protocol.Position, len(inputs)), Counters: make([]int64, event.NumCodes)}
	g := protocol.NewGenesis(protocol.Genesis{Topics: inputs, Start: p.state.Next}, p.state)
	p.genesis.Point = protocol.Point{Chain: g.Chain}
	a, err := p.store.Apply(ctx, &state.Batch{
		Identity: p.id, Point: p.genesis.Point, State: &p.state, Flood: &protocol.Flood{}, Genesis: g.Genesis, Published: p.genesis,
	})
	if err != nil {
		return nil, err
	}
	if a != protocol.Accepted {
		return nil, errors.New("bare: the genesis was refused")
	}
	p.id.Point, p.id.Loading = p.genesis.Point, false
	p.published.Store(&p.genesis)
	return p, p.reader.Ping(ctx)
}

// apply writes one batch after the other.
func (p *barePartition) apply(ctx context.Context) error {
	defer close(p.entries)
	var (
		value   [valueBytes]byte
		known   = map[string]bool{} // customers in the due set
		batch   = map[string]bool{}
		puts    []state.Put
		flood   protocol.Flood
		trimmed uint64
		index   = map[string]int{}
	)
	for i, t := range inputs {
		index[t] = i
	}
	for i := range value {
		value[i] = byte(i)
	}
	for {
		fs := p.reader.PollRecords(p.reading, batchRecords)
		if p.reading.Err() != nil {
			return ctx.Err()
		}
		if err := fetchErrors(ctx, fs); err != nil {
			return err
		}
		s := p.state
		s.Next = append([]protocol.Position(nil), s.Next...)
		clear(batch)
		puts = puts[:0]
		n := int64(0)
		for it := fs.RecordIter(); !it.Done(); n++ {
			r := it.Next()
			s.Next[index[r.Topic]] = protocol.Position{Next: r.Offset + 1, LeaderEpoch: r.LeaderEpoch}
			if batch[string(r.Key)] {
				continue
			}
			id := string(r.Key)
			batch[id] = true
			puts = append(puts, state.Put{Customer: id, Value: value[:], Due: state.NeverDue, DueMoved: !known[id]})
			known[id] = true
		}
		s.Read += n
		j := &protocol.Record{Kind: protocol.KindBatch, Seq: p.id.Seq + 1, Epoch: p.id.Epoch, Owner: p.id.Owner, State: s}
		j.Chain = protocol.NextChain(p.id.Chain, j, protocol.Hash{})
		e := &protocol.Entry{Seq: j.Seq, Parent: p.id.Chain, Chain: j.Chain, Journal: j.Encode()}
		k := p.published.Load()
		b := &state.Batch{Identity: p.id, Point: e.Point(), State: &s, Flood: &flood, Published: *k, Entry: e, Customers: puts}
		for trimmed < k.Seq {
			trimmed++
			b.Drop = append(b.Drop, trimmed)
		}
		a, err := p.store.Apply(ctx, b)
		if err != nil {
			return err
		}
		if a != protocol.Accepted {
			return fmt.Errorf("bare: batch %d of partition %d was refused", e.Seq, p.n)
		}
		p.state, p.id.Point = s, e.Point()
		p.batches.Add(1)
		p.entries <- e
		if p.left.Add(-n) <= 0 {
			p.read()
		}
	}
}

// publish commits what is applied, several batches in one transaction while it
// is behind.
func (p *barePartition) publish(ctx context.Context) error {
	for e := range p.entries {
		if err := p.producer.BeginTransaction(); err != nil {
			return err
		}
		var (
			mu  sync.Mutex
			bad error
		)
		promise := func(_ *kgo.Record, err error) {
			mu.Lock()
			bad = errors.Join(bad, err)
			mu.Unlock()
		}
		send := func(e *protocol.Entry) *kgo.Record {
			r := &kgo.Record{Topic: p.journal, Partition: p.n, Value: e.Journal}
			p.producer.Produce(ctx, r, promise)
			return r
		}
		r := send(e)
	more:
		for {
			select {
			case next, ok := <-p.entries:
				if !ok {
					break more
				}
				e, r = next, send(next)
			default:
				break more
			}
		}
		if err := p.producer.Flush(ctx); err != nil {
			return fmt.Errorf("flushing a transaction: %w", err)
		}
		mu.Lock()
		err := bad
		mu.Unlock()
		if err != nil {
			return fmt.Errorf("producing: %w", err)
		}
		if err := p.producer.EndTransaction(ctx, kgo.TryCommit); err != nil {
			return fmt.Errorf("committing a transaction: %w", err)
		}
		p.published.Store(&protocol.Published{Point: e.Point(), Offset: r.Offset, LeaderEpoch: -1})
	}
	return nil
}
