package stream

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
	"golang.org/x/sync/errgroup"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/state"
)

// worker owns one partition for as long as the consumer group lets it.
type worker struct {
	*Processor
	partition int32
	log       *slog.Logger
	store     Store
	journal   *journal
	drain     chan struct{} // closed: finish what is under way, then return
	status    *partitionStatus
}

// errDrained ends a session that was asked to finish.
var errDrained = errors.New("drained")

// errRejected: a script was refused, or a read found another fence.
var errRejected = errors.New("fenced: another owner has the partition, or Redis went back in time")

// run holds the partition until ctx ends or it is drained. Temporary trouble
// starts a new session, from step one of the protocol; what needs a human
// stops the partition and is said loudly, and the partition stays assigned.
func (w *worker) run(ctx context.Context) {
	backoff := 50 * time.Millisecond
	for ctx.Err() == nil {
		began := w.cfg.Now()
		err := w.session(ctx)
		var stop stopError
		switch {
		case ctx.Err() != nil || errors.Is(err, errDrained):
			w.status.set(statusReleased, nil)
			return
		case errors.As(err, &stop):
			w.log.Error("partition stopped: it needs attention and will not go on by itself", "reason", err)
			w.status.set(statusStopped, err)
			w.metrics.stops.Add(ctx, 1, w.status.attrs)
			select {
			case <-ctx.Done():
			case <-w.drain:
			}
			return
		}
		w.status.set(statusWaiting, err)
		w.metrics.sessions.Add(ctx, 1, w.status.attrs)
		if w.cfg.Now().Sub(began) > 10*time.Second {
			backoff = 50 * time.Millisecond
		}
		w.log.Warn("session ended, acquiring the partition anew", "reason", err, "in", backoff)
		if !w.pause(ctx, backoff) {
			return
		}
		backoff = min(2*backoff, 5*time.Second)
		if errors.Is(err, errRejected) && !w.group.stillMember(ctx, w.drain) {
			return
		}
	}
}

// pause waits; false when the worker is to end.
func (w *worker) pause(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
	case <-w.drain:
	}
	return false
}

// session is the protocol from acquiring the partition to losing it.
type session struct {
	*worker
	owner  protocol.Nonce
	engine *fold.Engine

	mu      sync.Mutex // guards machine; the apply loop and the publisher share it
	machine protocol.Machine
	more    chan struct{} // something to publish
	room    chan struct{} // something was published
	pending int           // bytes unpublished

	state   protocol.State
	flood   protocol.Flood
	genesis *protocol.Genesis
	gen     *protocol.Record
	genAt   protocol.Published
	where   fold.Where

	reader  *reader
	cache   *cache
	decoded struct { // of the batch under way, reused
		headers []event.Header
		records []fold.Record
		list    []*fold.Record
	}
	customers fold.Set // of the batch under way, reused
	nextDue   int64    // lower bound of the earliest due time in the due set
}

func (w *worker) session(parent context.Context) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	s := &session{worker: w, more: make(chan struct{}, 1), room: make(chan struct{}, 1), cache: newCache(w.cfg.CacheBytes), customers: fold.Set{}}
	if _, err := rand.Read(s.owner[:]); err != nil {
		return fmt.Errorf("choosing an owner: %w", err)
	}
	w.status.set(statusAcquiring, nil)

	// 1. Acquire: the fence first, then the producer, then K.
	f, outbox, fresh, err := w.store.Acquire(ctx, s.owner)
	if err != nil {
		return err
	}
	s.machine.Acquired(f, outbox, fresh)
	s.state, s.flood = f.State, f.Flood
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.renew(ctx) })
	g.Go(func() error {
		defer cancel(nil)
		return s.own(ctx, g, f)
	})
	err = g.Wait()
	if parent.Err() != nil {
		return parent.Err()
	}
	return err
}

// renew extends the lease, whatever the fold is doing.
func (s *session) renew(ctx context.Context) error {
	t := time.NewTicker(s.cfg.Lease / 3)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-t.C:
		}
		s.mu.Lock()
		id := s.machine.Identity()
		s.mu.Unlock()
		switch err := s.store.Renew(ctx, id); {
		case errors.Is(err, state.ErrFenced):
			s.mu.Lock()
			same := s.machine.Identity().Gen == id.Gen
			s.mu.Unlock()
			if same { // not merely raised meanwhile
				return errRejected
			}
		case err != nil && ctx.Err() == nil:
			// The apply script extends the lease too; if Redis stays away the
			// session ends there.
			s.log.Warn("lease not renewed", "reason", err)
		}
	}
}

// own does what owning the partition asks for, phase by phase.
func (s *session) own(ctx context.Context, g *errgroup.Group, f *protocol.Fence) error {
	p, err := openProducer(ctx, &s.cfg, s.partition, s.maxMessage)
	if err != nil {
		return err
	}
	defer p.close()
	s.machine.ProducerFenced()

	if s.gen, s.genAt, err = s.journal.genesis(ctx); err != nil {
		return err
	}
	if s.gen != nil {
		if err := s.checkGenesis(s.gen.Genesis, f); err != nil {
			return err
		}
		s.genesis = s.gen.Genesis
	}
	// 2. Recover.
	for {
		s.status.phase(s.machine.Phase())
		switch s.machine.Phase() {
		case protocol.Locating:
			var scan protocol.Scan
			if scan, err = s.journal.scan(ctx, &s.machine, transactionTimeout+30*time.Second); err == nil {
				s.machine.Located(scan)
			}
		case protocol.Beginning:
			err = s.begin(ctx, p)
		case protocol.Raising:
			err = s.raise(ctx)
		case protocol.Installing:
			err = s.install(ctx)
		case protocol.Reapplying:
			err = s.reapply(ctx)
		case protocol.Running:
			return s.live(ctx, g, p)
		case protocol.Stopped:
			return stopError{s.machine.Err()}
		default:
			panic("stream: unexpected phase " + s.machine.Phase().String())
		}
		if err != nil {
			return err
		}
	}
}

// checkGenesis compares what the journal's first record says with what is
// found now.
func (s *session) checkGenesis(g *protocol.Genesis, f *protocol.Fence) error {
	if err := s.continues(g); err != nil {
		return stopError{err}
	}
	if !f.Loading && f.Incarnation != g.Incarnation {
		return stopf("the state in Redis belongs to incarnation %s of this namespace, the journal to %s", f.Incarnation, g.Incarnation)
	}
	return nil
}

// begin creates the namespace's history in this partition: the genesis is
// committed in the journal before anything else exists.
func (s *session) begin(ctx context.Context, p *producer) error {
	starts, err := s.startOffsets(ctx, s.partition)
	if err != nil {
		return err
	}
	g := protocol.Genesis{
		Partitions: s.partitions, ClusterID: s.clusterID,
		Topics: s.cfg.Topics.Inputs, TopicIDs: s.topicIDs, Start: starts,
	}
	if _, err := rand.Read(g.Incarnation[:]); err != nil {
		return fmt.Errorf("choosing an incarnation: %w", err)
	}
	switch {
	case !s.cfg.LiveSince.IsZero():
		g.LiveSince = s.cfg.LiveSince.UnixMilli()
	case s.cfg.Rules.Clock != fold.ClockEvents:
		g.LiveSince = s.cfg.Now().UnixMilli()
	}
	r := protocol.NewGenesis(g, protocol.State{Rules: s.rulesHash, Fold: fold.Version, Next: starts, Counters: make([]int64, event.NumCodes)})
	r.Epoch, r.Owner = s.machine.Identity().Epoch, s.owner
	at, err := p.publish(ctx, []*protocol.Entry{{Seq: 0, Chain: r.Chain, Journal: r.Encode()}})
	if err != nil {
		return err
	}
	s.log.Info("namespace created in this partition", "incarnation", g.Incarnation)
	s.gen, s.genAt, s.genesis = r, at, &g
	s.machine.Began(at)
	return nil
}

func (s *session) raise(ctx context.Context) error {
	gen, err := s.store.Raise(ctx, s.machine.Identity(), 0, nil)
	if err != nil {
		return s.doubt(err)
	}
	s.mu.Lock()
	s.machine.Raised(gen)
	s.mu.Unlock()
	return nil
}

// install lets the fence stand at the genesis.
func (s *session) install(ctx context.Context) error {
	s.state = s.gen.State
	s.flood = protocol.Flood{}
	a, err := s.store.Apply(ctx, &state.Batch{
		Identity: s.machine.Identity(), Point: s.genAt.Point, State: &s.state, Flood: &s.flood,
		Genesis: s.genesis, Published: s.genAt,
	})
	if err != nil {
		return err
	}
	if a == protocol.Rejected {
		return errRejected
	}
	s.mu.Lock()
	s.machine.Installed(s.genAt)
	s.mu.Unlock()
	return nil
}

func (s *session) doubt(err error) error {
	if errors.Is(err, state.ErrFenced) {
		return errRejected
	}
	return err
}

// open prepares what folding needs, from where the fence stands.
func (s *session) open(ctx context.Context) error {
	if s.reader != nil {
		return nil
	}
	if s.state.Fold != fold.Version {
		return stopf("the state was folded by fold version %d, this binary has %d", s.state.Fold, fold.Version)
	}
	s.where = fold.Where{
		Namespace: s.cfg.Namespace, Incarnation: s.genesis.Incarnation, LiveSince: s.genesis.LiveSince,
		Partition: s.partition, Partitions: s.partitions, Engine: s.cfg.Engine,
	}
	r, err := newReader(s.cfg.Kafka, s.cfg.Topics.Inputs, s.partition, s.state.Next, s.cfg.BufferBytes)
	if err != nil {
		return err
	}
	s.reader = r
	if err := s.askDue(ctx); err != nil {
		r.close()
		s.reader = nil
		return err
	}
	return nil
}

// engineFor gives the engine of a rule set.
func (s *session) engineFor(ctx context.Context, h protocol.Hash) error {
	rules, err := s.rules.lookup(ctx, h)
	if err != nil {
		return err
	}
	s.engine, err = fold.NewEngine(rules, s.where, s.cfg.AllowRejects)
	if err != nil {
		return stopf("rules %s: %w", h, err)
	}
	return nil
}

// askDue learns the earliest due time.
func (s *session) askDue(ctx context.Context) error {
	due, err := s.store.Due(ctx, s.machine.Identity(), math.MaxInt64-1, 1)
	if err != nil {
		return s.doubt(err)
	}
	s.nextDue = state.NeverDue
	if len(due) > 0 {
		s.nextDue = due[0].Due
	}
	return nil
}

// reapply brings the state from R up to K as the journal says, publishing
// nothing; every chain must come out as it is in the journal.
func (s *session) reapply(ctx context.Context) error {
	if err := s.open(ctx); err != nil {
		return err
	}
	defer func() { s.reader.close(); s.reader = nil }()
	k := s.machine.K()
	from, _ := s.machine.Trim()
	began, records := s.cfg.Now(), 0
	s.log.Info("re-applying from the journal, publishing nothing", "from", from.Seq, "to", k.Seq)
	var rules protocol.Hash
	err := s.journal.each(ctx, from.Offset, from.LeaderEpoch, k.Offset+1, func(rec *protocol.Record, at protocol.Published) error {
		if at.Seq <= from.Seq {
			return nil
		}
		if at.Seq != s.machine.Identity().Seq+1 {
			return stopf("the journal goes from %d to %d: Kafka lost data", s.machine.Identity().Seq, at.Seq)
		}
		if rec.State.Fold != fold.Version {
			return stopf("journal record %d was folded by version %d, this binary has %d", rec.Seq, rec.State.Fold, fold.Version)
		}
		if s.engine == nil || rec.State.Rules != rules {
			if err := s.engineFor(ctx, rec.State.Rules); err != nil {
				return err
			}
			rules = rec.State.Rules
		}
		t, err := s.reader.exactly(ctx, s.state.Next, rec.State.Next)
		if err != nil {
			return err
		}
		in := &fold.Input{Clock: rec.State.Clock, Wall: rec.State.Clock, Bound: rec.State.Sweep}
		if in.Sweep, _, err = s.dueBelow(ctx, rec.State.Sweep); err != nil {
			return err
		}
		in.Records = s.decode(ctx, t)
		out, err := s.foldBatch(ctx, in, t.next)
		if err != nil {
			return err
		}
		if out.Journal.Chain != rec.Chain {
			s.machine.Diverged(fmt.Errorf("re-applying journal record %d gives chain %.12s, the journal has %.12s", rec.Seq, out.Journal.Chain, rec.Chain))
			return errEnough
		}
		_, drop := s.machine.Trim()
		if err := s.write(ctx, out, nil, at, drop); err != nil {
			return err
		}
		s.mu.Lock()
		s.machine.Reapplied(at, len(drop))
		s.mu.Unlock()
		s.settle(out)
		if len(in.Sweep) > 0 {
			if err := s.askDue(ctx); err != nil {
				return err
			}
		}
		records += len(t.records)
		s.metrics.reapplied.Add(ctx, int64(len(t.records)), s.status.attrs)
		select {
		case <-s.drain:
			return errDrained
		default:
			return nil
		}
	})
	if err != nil {
		return err
	}
	switch s.engine = nil; s.machine.Phase() {
	case protocol.Reapplying:
		return stopf("the journal ends before %d", k.Seq)
	case protocol.Locating, protocol.Stopped:
		s.cache = newCache(s.cfg.CacheBytes)
		return nil // what was found is not what it should be
	}
	s.log.Info("re-applied", "records", records, "took", s.cfg.Now().Sub(began).Round(time.Millisecond))
	return nil
}

// dueBelow reads who is to be swept below a bound: the first fold.MaxSweep of
// them. full says that there may be more; last is the last of them.
func (s *session) dueBelow(ctx context.Context, bound protocol.Bound) (ids []string, last state.DueEntry, err error) {
	if s.nextDue > bound.Due {
		return nil, last, nil
	}
	due, err := s.store.Due(ctx, s.machine.Identity(), bound.Due, fold.MaxSweep)
	if err != nil {
		return nil, last, s.doubt(err)
	}
	for _, d := range due {
		if (protocol.Bound{Due: d.Due, Customer: d.Customer}).Less(bound) {
			ids = append(ids, d.Customer)
			last = d
		}
	}
	return ids, last, nil
}

// decode makes the records of a batch what the fold reads. What it returns is
// valid until the next call.
func (s *session) decode(ctx context.Context, t *taken) []*fold.Record {
	if len(t.records) == 0 {
		return nil
	}
	began := time.Now()
	d := &s.decoded
	d.headers, d.list = d.headers[:0], d.list[:0]
	d.records = slices.Grow(d.records[:0], len(t.records))[:len(t.records)]
	for _, r := range t.records { // at once, because the records point into it
		for _, h := range r.Headers {
			d.headers = append(d.headers, event.Header{Key: h.Key, Value: h.Value})
		}
	}
	at := 0
	for i, r := range t.records {
		n := len(r.Headers)
		d.records[i] = fold.Record{Topic: t.topic[i], Partition: r.Partition, Offset: r.Offset, Message: event.Message{
			Key: r.Key, Value: r.Value, Headers: d.headers[at : at+n : at+n], Timestamp: r.Timestamp.UnixMilli(),
		}}
		at += n
		s.engine.Decode(&d.records[i])
		d.list = append(d.list, &d.records[i])
	}
	s.metrics.stage(ctx, "decode", began)
	return d.list
}

// foldBatch loads the batch's customers and folds.
func (s *session) foldBatch(ctx context.Context, in *fold.Input, next []protocol.Position) (*fold.Output, error) {
	in.Parent, in.State, in.Flood, in.Next = s.machine.Identity().Point, s.state, s.flood, next
	clear(s.customers)
	in.Customers = s.customers // those of the sweep, and those that are loaded
	var missing []*fold.Customer
	find := func(id string) *fold.Customer {
		c := s.cache.lookup(id)
		if c == nil {
			c = in.Customers[id]
		}
		if c == nil {
			c = fold.NewCustomer(id)
			in.Customers[c.ID] = c
			missing = append(missing, c)
		}
		return c
	}
	for _, id := range in.Sweep {
		in.Customers[id] = find(id)
	}
	for _, r := range in.Records {
		if r.Refusal == nil {
			r.Customer = find(r.Event.Customer)
		}
	}
	if err := s.load(ctx, missing); err != nil {
		return nil, err
	}
	if err := s.loadOriginals(ctx, in); err != nil {
		return nil, err
	}
	began := time.Now()
	out, err := s.engine.Fold(in)
	if errors.Is(err, fold.ErrFlood) {
		return nil, stopError{err}
	}
	if err != nil {
		return nil, stopf("folding batch %d: %w", in.Parent.Seq+1, err)
	}
	s.metrics.stage(ctx, "fold", began)
	return out, nil
}

// load makes new customers what Redis holds of them.
func (s *session) load(ctx context.Context, customers []*fold.Customer) error {
	if len(customers) == 0 {
		return nil
	}
	began := time.Now()
	ids := make([]string, len(customers))
	for i, c := range customers {
		ids[i] = c.ID
	}
	values, err := s.store.Load(ctx, s.machine.Identity(), ids)
	if err != nil {
		return s.doubt(err)
	}
	for i, c := range customers {
		if values[i] == nil {
			continue
		}
		stored, err := fold.StoredCustomer(c.ID, values[i])
		if err != nil {
			return stopf("loading: %w", err)
		}
		*c = *stored
	}
	s.metrics.stage(ctx, "load", began)
	return nil
}

// loadOriginals reads the waiting returns of the batch's customers.
func (s *session) loadOriginals(ctx context.Context, in *fold.Input) error {
	var keys []state.WaitingKey
	add := func(c *fold.Customer) {
		for i := range c.Record.Facts.Waiting {
			keys = append(keys, state.WaitingKey{Customer: c.ID, Hash: c.Record.Facts.Waiting[i].Hash})
		}
	}
	for _, id := range in.Sweep {
		add(in.Customers[id])
	}
	for _, r := range in.Records {
		if r.Customer != nil {
			add(r.Customer) // some of them twice
		}
	}
	if len(keys) == 0 {
		return nil
	}
	values, err := s.store.LoadWaiting(ctx, s.machine.Identity(), keys)
	if err != nil {
		return s.doubt(err)
	}
	in.Originals = make(map[fold.Waiting][]byte, len(keys))
	for i, k := range keys {
		in.Originals[fold.Waiting{Customer: k.Customer, Hash: k.Hash}] = values[i]
	}
	return nil
}

// write makes a batch the state. entry is nil when its outputs are published
// already.
func (s *session) write(ctx context.Context, out *fold.Output, entry *protocol.Entry, k protocol.Published, drop []uint64) error {
	began := time.Now()
	b := &state.Batch{
		Identity: s.machine.Identity(), Point: out.Entry.Point(), State: &out.State, Flood: &out.Flood,
		Published: k, Drop: drop, Entry: entry, Customers: make([]state.Put, len(out.Puts)),
	}
	for i := range out.Puts {
		p := &out.Puts[i]
		b.Customers[i] = state.Put{Customer: p.Customer.ID, Value: p.Value, Due: p.Due, DueMoved: p.DueMoved}
	}
	for w, v := range out.Wait {
		b.Wait = append(b.Wait, state.WaitingValue{WaitingKey: state.WaitingKey{Customer: w.Customer, Hash: w.Hash}, Record: v})
	}
	for _, w := range out.Unwait {
		b.Unwait = append(b.Unwait, state.WaitingKey{Customer: w.Customer, Hash: w.Hash})
	}
	a, err := s.store.Apply(ctx, b)
	if err != nil && state.IsTemporary(err) && ctx.Err() == nil {
		// The reply may be lost although the script ran. Ask once more: the
		// script knows its own batch.
		a, err = s.store.Apply(ctx, b)
	}
	switch {
	case err != nil:
		return err
	case a == protocol.Rejected:
		s.metrics.rejections.Add(ctx, 1, s.status.attrs)
		return errRejected
	}
	s.metrics.stage(ctx, "apply", began)
	return nil
}

// settle takes an accepted batch as the new state.
func (s *session) settle(out *fold.Output) {
	s.state, s.flood = out.State, out.Flood
	out.Applied()
	for i := range out.Puts {
		p := &out.Puts[i]
		s.cache.put(p.Customer, len(p.Value))
		if p.Due < s.nextDue {
			s.nextDue = p.Due
		}
	}
	s.cache.trim()
	s.status.applied(out)
}

// live applies and publishes until the partition goes.
func (s *session) live(ctx context.Context, g *errgroup.Group, p *producer) error {
	if err := s.open(ctx); err != nil {
		return err
	}
	defer s.reader.close()
	if base := s.rules.currency(s.state.Rules); base != "" && base != s.cfg.Rules.Policy.Base {
		return stopf("the records are kept in %s, but the model's currency is %s: amounts of two currencies are never added; start a new namespace for the new currency", base, s.cfg.Rules.Policy.Base)
	}
	if err := s.engineFor(ctx, s.rulesHash); err != nil {
		return err
	}
	s.mu.Lock()
	for _, e := range s.machine.Unpublished() {
		s.pending += e.Size()
	}
	n := len(s.machine.Unpublished())
	s.mu.Unlock()
	if n > 0 {
		s.log.Info("publishing what was applied but not published", "batches", n)
		s.signal(s.more)
	}
	k, _ := s.machine.Trim()
	s.status.restored(s.state, s.machine.Identity().Seq, k.Seq)
	s.status.set(statusRunning, nil)
	publisher := make(chan struct{})
	g.Go(func() error {
		defer close(publisher)
		return s.publisher(ctx, p)
	})
	err := s.apply(ctx)
	if errors.Is(err, errDrained) {
		// Let the publisher finish, so that the next owner finds nothing to do.
		deadline := time.After(s.cfg.Lease / 2)
		for s.unpublished() > 0 {
			select {
			case <-s.room:
			case <-publisher:
				return err
			case <-deadline:
				return err
			case <-ctx.Done():
				return err
			}
		}
	}
	return err
}

func (s *session) unpublished() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pending
}

func (s *session) signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// apply is the loop: take, fold, write.
func (s *session) apply(ctx context.Context) error {
	const idle = 100 * time.Millisecond
	compared := s.cfg.Now()
	for {
		select {
		case <-s.drain:
			return errDrained
		case <-ctx.Done():
			return ctx.Err()
		default:
		}
		for s.unpublished() > s.cfg.OutboxBytes {
			select {
			case <-s.room:
			case <-s.drain:
				return errDrained
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		began := time.Now()
		t, err := s.reader.take(ctx, s.state.Next, s.cfg.BatchRecords, s.cfg.BatchBytes, idle, s.cfg.MergeWait, s.cfg.Now)
		if err != nil {
			return err
		}
		if len(t.records) > 0 {
			s.metrics.stage(ctx, "read", began)
		}
		in := &fold.Input{Wall: s.cfg.Now().UnixMilli()}
		if err := s.clock(in, t); err != nil {
			return err
		}
		in.Records = s.decode(ctx, t)
		if err := s.sweep(ctx, in, t); err != nil {
			return err
		}
		if len(t.records) == 0 && len(in.Sweep) == 0 {
			if now := s.cfg.Now(); now.Sub(compared) >= time.Second {
				// An idle owner writes nothing, so it would not notice that Redis
				// went back in time.
				compared = now
				if err := s.store.Compare(ctx, s.machine.Identity()); err != nil {
					return s.doubt(err)
				}
			}
			s.status.lagging(s.reader, s.state.Next)
			continue
		}
		if err := s.applyBatch(ctx, in, t); err != nil {
			return err
		}
		s.status.lagging(s.reader, s.state.Next)
	}
}

// applyBatch folds one batch, makes it the state, and hands it to the
// publisher.
func (s *session) applyBatch(ctx context.Context, in *fold.Input, t *taken) (err error) {
	ctx, span := tracer.Start(ctx, "tierstream.batch", trace.WithSpanKind(trace.SpanKindConsumer))
	defer func() { endSpan(span, err) }()
	linkProducers(span, in.Records)
	out, err := s.foldBatch(ctx, in, t.next)
	if err != nil {
		return err
	}
	out.Journal.Epoch, out.Journal.Owner = s.machine.Identity().Epoch, s.owner
	out.Entry.Journal = out.Journal.Encode()
	s.mu.Lock()
	k, drop := s.machine.Trim()
	s.mu.Unlock()
	if err := s.write(ctx, out, out.Entry, k, drop); err != nil {
		return err
	}
	s.mu.Lock()
	s.machine.Applied(out.Entry, len(drop))
	s.pending += out.Entry.Size()
	s.mu.Unlock()
	s.signal(s.more)
	s.settle(out)
	if len(in.Sweep) > 0 {
		if err := s.askDue(ctx); err != nil {
			return err
		}
	}
	s.metrics.batch(ctx, s.status.attrs, out)
	span.SetAttributes(attribute.Int("partition", int(s.partition)), attribute.Int("records", len(t.records)),
		attribute.Int("changes", out.Changes), attribute.Int64("seq", int64(out.Entry.Seq)))
	return nil
}

// clock reads the batch's one clock. It never goes back.
func (s *session) clock(in *fold.Input, t *taken) error {
	in.Clock = s.state.Clock
	switch s.cfg.Rules.Clock {
	case fold.ClockWall:
		in.Clock = max(in.Clock, in.Wall)
	case fold.ClockLog:
		if len(t.records) > 0 {
			in.Clock = max(in.Clock, t.records[0].Timestamp.UnixMilli())
		}
	case fold.ClockEvents:
		in.Clock = max(in.Clock, s.state.Watermark)
	}
	// Producers may set timestamps where the topic lets them. One from the
	// future would hold up the merge and the sweep for as long.
	for _, r := range t.records {
		if ms := r.Timestamp.UnixMilli(); ms > in.Wall+s.cfg.Rules.Limits.MaxSkew.Milliseconds() {
			return stopf("%s/%d@%d has the log timestamp %s, which is later than now by more than the allowed skew: set message.timestamp.type=LogAppendTime on the topic, or the producer's clock", r.Topic, r.Partition, r.Offset, r.Timestamp.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

// sweep decides how far this batch sweeps, and whom. The limit never runs
// ahead of what has been read, so that nobody is judged by a deadline while
// the event that would have met it is still in the backlog.
//
// Whatever is below the bound is swept in every batch, also where the bound
// stays: a late event can make somebody due in the past, and a re-apply finds
// him there.
func (s *session) sweep(ctx context.Context, in *fold.Input, t *taken) (err error) {
	in.Bound = s.state.Sweep
	if t.complete {
		limit := in.Clock
		if s.cfg.Rules.Clock == fold.ClockEvents {
			// The clock is the newest event time already applied; what is not
			// applied yet may be older.
			for _, r := range in.Records {
				if r.Refusal == nil {
					limit = min(limit, r.Event.Time)
				}
			}
		} else {
			limit = min(limit, t.oldest)
		}
		if b := (protocol.Bound{Due: limit + 1}); in.Bound.Less(b) {
			in.Bound = b
		}
	}
	var last state.DueEntry
	in.Sweep, last, err = s.dueBelow(ctx, in.Bound)
	if len(in.Sweep) == fold.MaxSweep {
		// Not all of them: the bound goes no further than they do.
		if b := protocol.After(last.Due, last.Customer); s.state.Sweep.Less(b) {
			in.Bound = b
		} else {
			in.Bound = s.state.Sweep
		}
	}
	return err
}

// publisher publishes whatever is applied, several batches in one transaction
// while it is behind; the next batch is applied meanwhile.
func (s *session) publisher(ctx context.Context, p *producer) error {
	const maxBatches, maxBytes = 64, 4 << 20
	for {
		s.mu.Lock()
		entries := s.machine.Unpublished()
		n, bytes := 0, 0
		for n < len(entries) && n < maxBatches && bytes < maxBytes {
			bytes += entries[n].Size()
			n++
		}
		entries = entries[:n]
		if n > 0 {
			s.machine.Sending(n)
		}
		s.mu.Unlock()
		if n == 0 {
			select {
			case <-ctx.Done():
				return nil
			case <-s.more:
			}
			continue
		}
		began := time.Now()
		tctx, span := tracer.Start(ctx, "tierstream.publish", trace.WithSpanKind(trace.SpanKindProducer),
			trace.WithAttributes(attribute.Int("partition", int(s.partition)), attribute.Int("batches", n)))
		k, err := p.publish(tctx, entries)
		endSpan(span, err)
		if err != nil {
			s.metrics.aborts.Add(ctx, 1, s.status.attrs)
			return err
		}
		s.metrics.stage(ctx, "publish", began)
		s.mu.Lock()
		s.machine.Committed(k)
		for _, e := range entries {
			s.pending -= e.Size()
		}
		s.mu.Unlock()
		s.status.published(k)
		s.signal(s.room)
	}
}
