package stream

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/state"
)

// page is how many customers one step of a rebase handles.
func (s *session) page() int { return min(s.cfg.BatchRecords, 2000) }

// gather collects in the loading generation what is left of every customer:
// what Redis had, what was published last, what the log still has. Nothing is
// decided and nothing published. See ADR 14.
func (s *session) gather(ctx context.Context) error {
	began := s.cfg.Now()
	rb := s.machine.Rebuild()
	s.state = s.found.atK
	if err := s.sameCurrency(); err != nil {
		return err
	}
	s.place()
	if err := s.engineFor(ctx, s.inForce.now()); err != nil {
		return err
	}
	from := make([]protocol.Position, len(s.found.inputs))
	s.series = protocol.Rebase{Cause: rb.Blocked, Based: rb.Base > 0, Genesis: *s.genesis}
	for i, first := range s.found.inputs {
		start := s.genesis.Start[i].Next
		if rb.Base > 0 {
			start = s.baseNext[i].Next
		}
		from[i] = protocol.Position{Next: min(max(first, start), s.state.Next[i].Next), LeaderEpoch: -1}
		s.series.From = append(s.series.From, from[i].Next)
	}
	kept, err := s.gatherBase(ctx, rb.Base)
	if err != nil {
		return err
	}
	changes, err := s.gatherChanges(ctx)
	if err != nil {
		return err
	}
	records, err := s.gatherLog(ctx, from)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.machine.Loaded()
	s.mu.Unlock()
	took := s.cfg.Now().Sub(began)
	s.log.Info("gathered what is left", "kept", kept, "changes", changes, "records", records,
		"took", took.Round(time.Millisecond), "seconds_per_million", perMillion(took, kept+changes+records))
	return nil
}

// gatherBase copies the customers of a generation that is intact.
func (s *session) gatherBase(ctx context.Context, base uint64) (n int, err error) {
	for base > 0 {
		id := s.machine.Identity()
		ids, err := s.store.Members(ctx, id, base, n, s.page())
		if err != nil {
			return n, s.doubt(err)
		}
		if len(ids) == 0 {
			break
		}
		values, err := s.store.LoadFrom(ctx, id, base, ids)
		if err != nil {
			return n, s.doubt(err)
		}
		var page []*fold.Customer
		var waiting []state.WaitingKey
		for i, v := range values {
			if v == nil {
				continue // somebody deleted it
			}
			c, err := fold.StoredCustomer(ids[i], v)
			if err != nil {
				return n, stopf("loading: %w", err)
			}
			page = append(page, c)
			waiting = append(waiting, waitingOf(c)...)
		}
		out := s.engine.Keep(page)
		if len(waiting) > 0 {
			originals, err := s.store.LoadWaitingFrom(ctx, id, base, waiting)
			if err != nil {
				return n, s.doubt(err)
			}
			out.Wait = map[fold.Waiting][]byte{}
			for i, w := range waiting {
				if originals[i] != nil {
					out.Wait[fold.Waiting{Customer: w.Customer, Hash: w.Hash}] = originals[i]
				}
			}
		}
		if err := s.fill(ctx, out); err != nil {
			return n, err
		}
		n += len(ids)
		s.status.progress(uint64(n), 0, "customers kept")
	}
	return n, nil
}

func waitingOf(c *fold.Customer) []state.WaitingKey {
	var keys []state.WaitingKey
	for i := range c.Record.Facts.Waiting {
		keys = append(keys, state.WaitingKey{Customer: c.ID, Hash: c.Record.Facts.Waiting[i].Hash})
	}
	return keys
}

// gatherChanges lets every customer stand where the last published change left
// them. Which partitions of the change topic hold them depends on whether its
// keys map as those of the inputs do.
func (s *session) gatherChanges(ctx context.Context) (n int, err error) {
	topic := s.cfg.Topics.Changes
	starts, err := s.admin.ListStartOffsets(ctx, topic)
	if err != nil {
		return 0, fmt.Errorf("asking for the start of %s: %w", topic, err)
	}
	// Not the committed ends: another partition's transaction may be open
	// before ours. Reading waits until it has ended.
	ends, err := s.admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return 0, fmt.Errorf("asking for the end of %s: %w", topic, err)
	}
	ranges := map[int32][2]int64{}
	own := s.cfg.Rules.Partitioner == "murmur2" && len(ends[topic]) == int(s.partitions)
	ends.Each(func(e kadm.ListedOffset) {
		first, ok := starts.Lookup(topic, e.Partition)
		if e.Err != nil || !ok || first.Err != nil {
			err = fmt.Errorf("asking for the range of %s/%d: %w", topic, e.Partition, e.Err)
		}
		if own && e.Partition != s.partition {
			return
		}
		ranges[e.Partition] = [2]int64{first.Offset, e.Offset}
		if first.Offset > 0 {
			s.floor = s.machine.K().Seq + uint64(s.found.atK.Read)
		}
	})
	if err != nil {
		return 0, err
	}
	page := map[string]*fold.LastChange{}
	flush := func() error {
		set := fold.Set{}
		var missing []*fold.Customer
		for id := range page {
			s.find(set, id, &missing)
		}
		if err := s.load(ctx, missing); err != nil {
			return err
		}
		list := make([]*fold.Customer, 0, len(page))
		for id, c := range set {
			if err := s.engine.Continue(c, page[id]); err != nil {
				return stopf("the last change of customer %s in %s: %w", id, topic, err)
			}
			list = append(list, c)
		}
		clear(page)
		return s.fill(ctx, s.engine.Keep(list))
	}
	err = readRanges(ctx, s.cfg.Kafka, topic, ranges, func(r *kgo.Record) error {
		m := event.Message{Key: r.Key, Value: r.Value}
		for _, h := range r.Headers {
			m.Headers = append(m.Headers, event.Header{Key: h.Key, Value: h.Value})
		}
		c, ok, err := s.engine.Published(&m, s.genesis.Adopted)
		if err != nil {
			return stopf("%s/%d@%d: %w", topic, r.Partition, r.Offset, err)
		}
		if !ok {
			return nil
		}
		n++
		page[c.Customer] = &c
		if len(page) < s.page() {
			return nil
		}
		s.status.progress(uint64(n), 0, "changes read")
		return flush()
	})
	if err == nil {
		err = flush()
	}
	return n, err
}

// gatherLog folds what the inputs still have, up to K's positions, into facts.
func (s *session) gatherLog(ctx context.Context, from []protocol.Position) (n int, err error) {
	r, err := newReader(s.cfg.Kafka, s.cfg.Topics.Inputs, s.partition, from, s.cfg.BufferBytes)
	if err != nil {
		return 0, err
	}
	r.behind = true
	defer r.close()
	for next := from; ; {
		t, err := r.until(ctx, next, s.state.Next, s.cfg.BatchRecords)
		if err != nil {
			return n, err
		}
		if len(t.records) == 0 {
			return n, nil
		}
		next = t.next
		if err := s.learn(ctx, t); err != nil {
			return n, err
		}
		records := s.decode(ctx, t)
		set := fold.Set{}
		var missing []*fold.Customer
		for _, r := range records {
			if r.Refusal == nil {
				r.Customer = s.find(set, r.Event.Customer, &missing)
			}
		}
		if err := s.load(ctx, missing); err != nil {
			return n, err
		}
		if err := s.fill(ctx, s.engine.Gather(records)); err != nil {
			return n, err
		}
		n += len(t.records)
		s.status.progress(uint64(n), 0, "records read")
		select {
		case <-s.drain:
			return n, errDrained
		default:
		}
	}
}

// fill writes one step of gathering.
func (s *session) fill(ctx context.Context, out *fold.Output) error {
	if len(out.Puts) == 0 {
		return nil
	}
	puts := make([]state.Put, len(out.Puts))
	for i := range out.Puts {
		puts[i] = state.Put{Customer: out.Puts[i].Customer.ID, Value: out.Puts[i].Value}
	}
	var wait []state.WaitingValue
	for w, v := range out.Wait {
		wait = append(wait, state.WaitingValue{WaitingKey: state.WaitingKey{Customer: w.Customer, Hash: w.Hash}, Record: v})
	}
	var unwait []state.WaitingKey
	for _, w := range out.Unwait {
		unwait = append(unwait, state.WaitingKey{Customer: w.Customer, Hash: w.Hash})
	}
	id := s.machine.Identity()
	a, err := s.store.Fill(ctx, id, puts, wait, unwait)
	if err != nil && state.IsTemporary(err) && ctx.Err() == nil {
		a, err = s.store.Fill(ctx, id, puts, wait, unwait) // the reply may be lost although the script ran
	}
	switch {
	case err != nil:
		return err
	case a == protocol.Rejected:
		return errRejected
	}
	s.mu.Lock()
	s.machine.Filled()
	s.mu.Unlock()
	out.Applied()
	for i := range out.Puts {
		s.cache.put(out.Puts[i].Customer, len(out.Puts[i].Value))
	}
	s.cache.trim()
	return nil
}

// rebase visits every gathered customer once, in batches that are applied and
// published as any others.
func (s *session) rebase(ctx context.Context, g *errgroup.Group, p *producer) error {
	began := s.cfg.Now()
	left := int64(0) // of the returns that waited at K
	if !s.machine.Identity().Loading {
		// Nobody is gathered: the batch puts the origin on record again.
		s.place()
		s.series = protocol.Rebase{Cause: s.machine.Rebuild().Blocked, Based: true, Genesis: *s.genesis}
		for _, n := range s.state.Next {
			s.series.From = append(s.series.From, n.Next)
		}
		s.announce(ctx)
	} else if n := s.state.Counters; len(n) > int(event.Waiting) {
		left = n[event.Waiting]
	}
	if err := s.engineFor(ctx, s.inForce.now()); err != nil {
		return err
	}
	s.publish(ctx, g, p)
	customers, corrected := 0, 0
	for last := false; !last; {
		if err := s.roomToApply(ctx); err != nil {
			return err
		}
		in, err := s.rebaseBatch(ctx, left)
		if err != nil {
			return err
		}
		var out *fold.Output
		if out, left, err = s.engine.Rebase(in); err != nil {
			return stopf("rebasing batch %d: %w", in.Parent.Seq+1, err)
		}
		last = out.Journal.Rebase.Last
		if err := s.applied(ctx, out); err != nil {
			return err
		}
		customers, corrected = customers+len(in.Customers), corrected+out.Changes
		s.metrics.corrections.Add(ctx, int64(out.Changes), s.status.attrs)
		s.status.progress(uint64(customers), 0, "customers rebased")
	}
	s.mu.Lock()
	s.machine.Rebased()
	s.mu.Unlock()
	s.engine = nil
	s.status.rebased(protocol.Rebased{Seq: s.machine.Identity().Seq, Cause: s.series.Cause})
	s.log.Error("rebased: the log alone does not explain the state before this point",
		"reason", s.series.Cause, "seq", s.machine.Identity().Seq, "customers", customers, "corrected", corrected, "took", s.cfg.Now().Sub(began).Round(time.Millisecond))
	return nil
}

// rebaseBatch takes the next customers that are left.
func (s *session) rebaseBatch(ctx context.Context, left int64) (*fold.RebaseInput, error) {
	id := s.machine.Identity()
	page := s.page()
	due, err := s.store.Due(ctx, id, state.Pending, page+1)
	if err != nil {
		return nil, s.doubt(err)
	}
	wall, err := s.wall(ctx)
	if err != nil {
		return nil, err
	}
	now := wall.UnixMilli()
	in := &fold.RebaseInput{
		Parent: s.machine.Parent(), State: s.state, First: id.Loading, Clock: s.state.Clock, Wall: now,
		Rebase: s.series, Waiting: left, Floor: s.floor, End: len(due) <= page,
	}
	in.Counted.Topic, in.Counted.Offset = s.cfg.Topics.Journal, s.machine.K().Offset
	if s.cfg.Rules.Clock == fold.ClockWall {
		in.Clock = max(in.Clock, now)
	}
	set := fold.Set{}
	var missing []*fold.Customer
	for _, d := range due[:min(len(due), page)] {
		in.Customers = append(in.Customers, s.find(set, d.Customer, &missing))
	}
	return in, s.load(ctx, missing)
}

// readRanges reads offsets [from, to) of a topic's partitions, committed
// records only. It waits for transactions that are open in them.
func readRanges(ctx context.Context, base []kgo.Opt, topic string, ranges map[int32][2]int64, fn func(*kgo.Record) error) error {
	at := map[int32]kgo.Offset{}
	for p, r := range ranges {
		if r[0] < r[1] {
			at[p] = kgo.NewOffset().At(r[0])
		}
	}
	if len(at) == 0 {
		return nil
	}
	cl, err := kgo.NewClient(append(base[:len(base):len(base)],
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: at}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(),
		kgo.FetchMaxWait(250*time.Millisecond),
	)...)
	if err != nil {
		return fmt.Errorf("opening %s: %w", topic, err)
	}
	defer cl.CloseAllowingRebalance()
	moved := time.Now()
	for len(at) > 0 {
		c, cancel := context.WithTimeout(ctx, time.Second)
		fs := cl.PollRecords(c, 5000)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		for _, e := range fs.Errors() {
			if c.Err() == nil {
				return fmt.Errorf("reading %s/%d: %w", e.Topic, e.Partition, e.Err)
			}
		}
		for it := fs.RecordIter(); !it.Done(); {
			r := it.Next()
			moved = time.Now()
			end := ranges[r.Partition][1]
			if r.Offset+1 >= end {
				delete(at, r.Partition)
			}
			if r.Attrs.IsControl() || r.Offset >= end {
				continue
			}
			if err := fn(r); err != nil {
				return err
			}
		}
		if time.Since(moved) > transactionTimeout+30*time.Second {
			return fmt.Errorf("reading %s: a transaction does not end", topic)
		}
	}
	return nil
}
