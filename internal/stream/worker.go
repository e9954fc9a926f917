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
	"github.com/tierstream/tierstream/internal/view"
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
	condemned uint64 // key generation that misses keys, and must not be continued
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
		// Whatever the session ended by: a process that was paused may find its
		// connections closed before it finds a fence.
		if !w.group.stillMember(ctx, w.drain) {
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

	mu         sync.Mutex // guards machine; the apply loop and the publisher share it
	machine    protocol.Machine
	more       chan struct{}     // something to publish
	room       chan struct{}     // something was published
	pending    int               // bytes unpublished
	flights    map[uint64]flight // batches that are not yet published, by seq; those an earlier owner left are not among them
	publishing chan struct{}     // closed when the publisher has ended; nil before it began

	state   protocol.State
	flood   protocol.Flood
	genesis *protocol.Genesis
	where   fold.Where
	viewer  *view.Viewer // of customers' values
	viewed  *fold.Rules  // what viewer goes by

	// Of recovery.
	found    *located
	baseNext []protocol.Position // where the base of a rebase stands
	series   protocol.Rebase     // what the records of a rebase say
	floor    uint64              // see fold.RebaseInput
	litter   bool                // there may be abandoned key generations
	cursor   string              // see state.Store.Abandoned

	producerID          int64     // of the transactional producer
	hangingAt           time.Time // when it was looked for transactions that hang
	journalEnd          int64     // where an idle owner last saw the journal end
	clockShown, clockAt time.Time // the clock, and when it was compared with Redis'

	reader    *reader
	cache     *cache
	decoded   [2]decoded // of the batch under way and of the one read ahead, reused in turns
	ahead     chan ahead // the batch that is being read ahead; nil when none is
	customers fold.Set   // of the batch under way, reused
	nextDue   int64      // lower bound of the earliest due time in the due set
}

func (w *worker) session(parent context.Context) error {
	ctx, cancel := context.WithCancelCause(parent)
	defer cancel(nil)
	s := &session{worker: w, more: make(chan struct{}, 1), room: make(chan struct{}, 1), cache: newCache(w.cfg.CacheBytes), customers: fold.Set{}, flights: map[uint64]flight{}, litter: true, cursor: "0"}
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
	if f.Gen == w.condemned {
		s.machine.Condemn()
	}
	w.status.rebased(f.Rebased)
	s.state, s.flood = f.State, f.Flood
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return s.renew(ctx) })
	g.Go(func() error {
		defer cancel(nil)
		return s.own(ctx, g, f)
	})
	err = g.Wait()
	if errors.Is(err, state.ErrDamaged) {
		w.condemned = s.machine.Identity().Gen
	}
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
	if s.state.Fold > fold.Version {
		return stopf("the state was folded by fold version %d, this binary has %d", s.state.Fold, fold.Version)
	}
	s.place()
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

// place says whose outputs these are.
func (s *session) place() {
	s.where = fold.Where{
		Namespace: s.cfg.Namespace, Incarnation: s.genesis.Incarnation, LiveSince: s.genesis.LiveSince,
		Partition: s.partition, Partitions: s.partitions, Engine: s.cfg.Engine,
	}
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

// dueBelow reads who is to be swept below a bound: the first fold.MaxSweep of
// them; last is the last of them.
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
	if len(ids) == 0 {
		// Whoever was due first has been given a later time by an event.
		err = s.askDue(ctx)
	}
	return ids, last, err
}

// flight is what is remembered of a batch until it is published.
type flight struct {
	oldest time.Time         // when Kafka appended its first record; zero: it has none
	span   trace.SpanContext // of the batch; not sampled: it is not traced
}

// landing lets go of the batches that are about to be published.
func (s *session) landing(entries []*protocol.Entry) (flights []flight) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range entries {
		if f, ok := s.flights[e.Seq]; ok {
			flights = append(flights, f)
			delete(s.flights, e.Seq)
		}
	}
	return flights
}

// decoded is memory for the records of one batch.
type decoded struct {
	headers []event.Header
	records []fold.Record
	list    []*fold.Record
}

// decode makes the records of a batch what the fold reads. What it returns is
// valid until the next call but one.
func (s *session) decode(ctx context.Context, t *taken) []*fold.Record {
	if len(t.records) == 0 {
		return nil
	}
	began := time.Now()
	s.decoded[0], s.decoded[1] = s.decoded[1], s.decoded[0]
	d := &s.decoded[0]
	headers := 0
	for _, r := range t.records {
		headers += len(r.Headers)
	}
	d.headers = slices.Grow(d.headers[:0], headers)
	d.records = slices.Grow(d.records[:0], len(t.records))[:len(t.records)]
	d.list = slices.Grow(d.list[:0], len(t.records))
	for i, r := range t.records {
		from := len(d.headers)
		for _, h := range r.Headers {
			d.headers = append(d.headers, event.Header(h))
		}
		to := len(d.headers)
		d.records[i] = fold.Record{Topic: t.topic[i], Partition: r.Partition, Offset: r.Offset, Message: event.Message{
			Key: r.Key, Value: r.Value, Headers: d.headers[from:to:to], Timestamp: r.Timestamp.UnixMilli(),
		}}
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
	_, stage := s.stage(ctx, "fold")
	out, err := s.engine.Fold(in)
	stage.end(err)
	if errors.Is(err, fold.ErrFlood) {
		return nil, stopError{err}
	}
	if err != nil {
		return nil, stopf("folding batch %d: %w", in.Parent.Seq+1, err)
	}
	return out, nil
}

// find takes a customer from the cache, or makes a new one that is to be
// loaded.
func (s *session) find(set fold.Set, id string, missing *[]*fold.Customer) *fold.Customer {
	c := set[id]
	if c == nil {
		c = s.cache.lookup(id)
	}
	if c == nil {
		c = fold.NewCustomer(id)
		*missing = append(*missing, c)
	}
	set[id] = c
	return c
}

// load makes new customers what Redis holds of them.
func (s *session) load(ctx context.Context, customers []*fold.Customer) (err error) {
	if len(customers) == 0 {
		return nil
	}
	ctx, stage := s.stage(ctx, "load")
	defer func() { stage.end(err) }()
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
	return nil
}

// loadOriginals reads the waiting returns of the batch's customers.
func (s *session) loadOriginals(ctx context.Context, in *fold.Input) error {
	var keys []state.WaitingKey
	add := func(c *fold.Customer) { keys = append(keys, waitingOf(c)...) }
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
		if values[i] == nil {
			return fmt.Errorf("the original of waiting return %016x of customer %s: %w", k.Hash, k.Customer, state.ErrDamaged)
		}
		in.Originals[fold.Waiting{Customer: k.Customer, Hash: k.Hash}] = values[i]
	}
	return nil
}

// write makes a batch the state. entry is nil when its outputs are published
// already.
func (s *session) write(ctx context.Context, out *fold.Output, entry *protocol.Entry, k protocol.Published, drop []uint64) (err error) {
	ctx, stage := s.stage(ctx, "apply")
	defer func() { stage.end(err) }()
	b := &state.Batch{
		Identity: s.machine.Identity(), Point: out.Entry.Point(), State: &out.State, Flood: &out.Flood,
		Published: k, Drop: drop, Entry: entry, Customers: make([]state.Put, len(out.Puts)),
	}
	if rb := out.Journal.Rebase; rb != nil {
		b.Genesis, b.Rebased = &rb.Genesis, &protocol.Rebased{Seq: out.Journal.Seq, Cause: rb.Cause, Open: !rb.Last}
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
	if err := s.sameCurrency(); err != nil {
		return err
	}
	if err := s.engineFor(ctx, s.inForce.now()); err != nil {
		return err
	}
	s.publish(ctx, g, p)
	s.mu.Lock() // a rebase has the publisher running
	k, r := s.machine.Known(), s.machine.Identity()
	s.mu.Unlock()
	s.status.restored(s.state, r.Seq, k.Seq)
	s.status.set(statusRunning, nil)
	err := s.apply(ctx)
	var stop stopError
	switch {
	case errors.As(err, &stop) && errors.Is(s.store.Compare(ctx, s.machine.Identity()), state.ErrFenced):
		// Who is not the owner any more, or whose Redis went back, is not to
		// judge.
		return fmt.Errorf("%w (and: %w)", errRejected, errors.New(err.Error()))
	case errors.Is(err, errDrained):
		// Let the publisher finish, so that the next owner finds nothing to do.
		deadline := time.After(s.cfg.Lease / 2)
		for s.unpublished() > 0 {
			select {
			case <-s.room:
			case <-s.publishing:
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

// sameCurrency refuses rules of another base currency than the state's.
func (s *session) sameCurrency() error {
	if base := s.rules.currency(s.state.Rules); base != "" && base != s.cfg.Rules.Policy.Base {
		return stopf("the records are kept in %s, but the model's currency is %s: amounts of two currencies are never added; start a new namespace for the new currency", base, s.cfg.Rules.Policy.Base)
	}
	return nil
}

// publish begins to publish whatever is applied, beginning with what was left.
func (s *session) publish(ctx context.Context, g *errgroup.Group, p *producer) {
	if s.publishing != nil {
		return
	}
	s.publishing = make(chan struct{})
	s.mu.Lock()
	for _, e := range s.machine.Unpublished() {
		s.pending += e.Size()
	}
	s.status.unpublished(s.pending)
	n := len(s.machine.Unpublished())
	s.mu.Unlock()
	if n > 0 {
		s.log.Info("publishing what was applied but not published", "batches", n)
		s.signal(s.more)
	}
	g.Go(func() error {
		defer close(s.publishing)
		return s.publisher(ctx, p)
	})
}

// roomToApply waits until the unpublished outbox is within its bound.
func (s *session) roomToApply(ctx context.Context) error {
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
	return nil
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

// batch is what one turn of the loop reads.
type batch struct {
	*taken
	wall    time.Time
	records []*fold.Record

	took, decoded time.Time // when it was read, and when it was decoded
}

// ahead is a batch that was read ahead, or why it could not be.
type ahead struct {
	batch *batch
	err   error
}

// read takes and decodes the next batch after the given positions, and reads
// its clock.
func (s *session) read(ctx context.Context, after []protocol.Position) (*batch, error) {
	const idle = 100 * time.Millisecond
	began := time.Now()
	t, err := s.reader.take(ctx, after, s.cfg.BatchRecords, s.cfg.BatchBytes, idle, s.cfg.MergeWait, s.cfg.Now)
	if err != nil {
		return nil, err
	}
	if len(t.records) > 0 {
		s.metrics.stage(ctx, "read", began)
	}
	now, err := s.wall(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.learn(ctx, t); err != nil {
		return nil, err
	}
	b := &batch{taken: t, wall: now, took: time.Now()}
	b.records, b.decoded = s.decode(ctx, t), time.Now()
	return b, nil
}

// readAhead begins to read the batch after the one that is being applied,
// whose script runs meanwhile. Nothing of it depends on the state: not what is
// taken, and not how it is decoded.
func (s *session) readAhead(ctx context.Context, after []protocol.Position) {
	c := make(chan ahead, 1)
	s.ahead = c
	go func() {
		b, err := s.read(ctx, after)
		c <- ahead{b, err}
	}()
}

// next is the batch that was read ahead, or else read now.
func (s *session) next(ctx context.Context) (*batch, error) {
	if s.ahead == nil {
		return s.read(ctx, s.state.Next)
	}
	a := <-s.ahead
	s.ahead = nil
	return a.batch, a.err
}

// apply is the loop: read, fold, write.
func (s *session) apply(parent context.Context) error {
	ctx, cancel := context.WithCancel(parent)
	defer func() { // the reader is closed after this
		cancel()
		if s.ahead != nil {
			<-s.ahead
			s.ahead = nil
		}
	}()
	compared := s.cfg.Now()
	for {
		if err := s.roomToApply(ctx); err != nil {
			return err
		}
		if err := s.tidy(ctx); err != nil {
			return err
		}
		b, err := s.next(ctx)
		if err != nil {
			return err
		}
		s.status.lagging(s.reader, s.state.Next, b.taken)
		in := &fold.Input{Wall: b.wall.UnixMilli(), Records: b.records}
		if err := s.clock(in, b.taken); err != nil {
			return err
		}
		if err := s.sweep(ctx, in, b.taken); err != nil {
			return err
		}
		s.status.timers(in.Clock, s.nextDue)
		if len(in.Records) == 0 && len(in.Sweep) == 0 {
			if now := s.cfg.Now(); now.Sub(compared) >= time.Second {
				// An idle owner writes nothing, so it would not notice that Redis
				// or Kafka went back in time.
				compared = now
				if err := s.store.Compare(ctx, s.machine.Identity()); err != nil {
					return s.doubt(err)
				}
				if err := s.watch(ctx); err != nil {
					return err
				}
			}
			continue
		}
		if err := s.applyBatch(ctx, in, b); err != nil {
			return err
		}
	}
}

// applyBatch folds one batch, makes it the state, and hands it to the
// publisher.
func (s *session) applyBatch(ctx context.Context, in *fold.Input, b *batch) (err error) {
	tctx, traced := s.traceBatch(ctx, b)
	defer func() { traced.end(err) }()
	out, err := s.foldBatch(tctx, in, b.next)
	if err != nil {
		return err
	}
	if len(b.taken.records) > 0 {
		s.readAhead(ctx, b.next)
	}
	traced.span.SetAttributes(attribute.Int("tierstream.changes", out.Changes), attribute.Int64("tierstream.seq", int64(out.Entry.Seq)))
	if f := (flight{span: traced.span.SpanContext()}); len(b.taken.records) > 0 || f.span.IsSampled() {
		if len(b.taken.records) > 0 {
			f.oldest = b.taken.records[0].Timestamp
		}
		s.mu.Lock()
		s.flights[out.Entry.Seq] = f
		s.mu.Unlock()
	}
	if err := s.applied(tctx, out); err != nil {
		return err
	}
	if len(in.Sweep) > 0 {
		s.metrics.swept.Add(ctx, int64(len(in.Sweep)), s.status.attrs)
		if err := s.askDue(tctx); err != nil {
			return err
		}
	}
	s.metrics.batch(tctx, s.status.attrs, out)
	return nil
}

// applied makes a batch the state, and hands it to the publisher.
func (s *session) applied(ctx context.Context, out *fold.Output) error {
	if err := s.values(out); err != nil {
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
	s.status.unpublished(s.pending)
	s.mu.Unlock()
	s.signal(s.more)
	s.settle(out)
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
		if s.cfg.Rules.Clock == fold.ClockWall {
			limit = min(limit, t.asOf) // what arrived since is not read
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
		flights := s.landing(entries)
		tctx, span := s.traceTransaction(ctx, flights)
		k, err := p.publish(tctx, entries)
		endSpan(span, err)
		if err != nil {
			s.metrics.aborts.Add(ctx, 1, s.status.attrs)
			return err
		}
		s.metrics.stage(ctx, "publish", began)
		s.metrics.published(ctx, s.cfg.Now(), flights)
		s.mu.Lock()
		s.machine.Committed(k)
		for _, e := range entries {
			s.pending -= e.Size()
		}
		s.status.unpublished(s.pending)
		s.mu.Unlock()
		s.status.published(k)
		s.signal(s.room)
	}
}
