package check

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/zeebo/xxh3"

	"github.com/tierstream/tierstream/internal/customer"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/replay"
	"github.com/tierstream/tierstream/internal/state"
)

// part is one partition being checked.
type part struct {
	*run
	ctx   context.Context
	n     int32
	store *state.Store

	genesis *protocol.Genesis // the newest
	rebased *protocol.Record  // the newest rebase; nil: there is none

	// As of one instant: fence and outbox, and of every customer what entry
	// holds, by the hash of the ID.
	fence     *protocol.Fence
	outbox    []*protocol.Entry
	customers map[uint64]*entry
	digest    customer.Digest
	waiting   int64
	waits     map[string][]uint64 // the returns waiting, by customer
	due       map[string]int64    // due times, of those who may be swept before the snapshot is done
	moving    bool

	// Of the journal: where reading it stands, its newest record, and those from
	// the fence's point on.
	next        int64
	last        *protocol.Record
	lastAt      int64
	k           *protocol.Record // newest when the reading of the outputs began
	kAt         int64
	recent      map[uint64]*protocol.Record
	recentAt    map[uint64]int64
	owners      map[protocol.Nonce]uint64
	topics      []string
	unexplained bool // the records are not what they should be, and nobody knows whose

	dead     [event.NumCodes]int64 // in the topic
	decided  map[uint64]decided    // published changes by customer, if a replay is asked for
	disputed map[uint64]event.Code // customers with a dead letter that depends on the order of arrival
	replayed int64
}

// entry is what is kept per customer: 32 bytes, and 70 with the map around it,
// see BenchmarkCustomer.
type entry struct {
	term      customer.Digest // of the record; zero when there is none
	sequence  uint32          // of the record's last change
	published uint32          // last change in the topic
	tier      int8            // the record's
	rank      int8            // of the last change in the topic
	waiting   uint16          // returns waiting
	stored    bool
	told      bool // a violation of this customer's chain was noted
}

func key(id string) uint64 { return xxh3.HashString(id) }

func (p *part) violated(v Violation) {
	v.Partition = p.n
	p.run.violated(v)
}

// broken notes a violation of I1 at a journal record.
func (p *part) broken(rec *protocol.Record, offset int64, format string, args ...any) {
	p.violated(Violation{Invariant: "I1", Batch: rec.Seq, Topic: p.journalName(), Offset: offset, Text: fmt.Sprintf(format, args...)})
}

func (p *part) journalName() string { return fmt.Sprintf("%s/%d", p.Topics.Journal, p.n) }

// snapshot reads the partition's customers as of one instant.
//
// They are read in pieces first. Whoever was touched meanwhile has a record in
// the inputs behind the fence's position, or was due: these are read again, in
// one atomic command with the fence and with whoever may be touched next.
func (p *part) snapshot() error {
	first, err := p.store.Sample(p.ctx, nil)
	if err != nil {
		return err
	}
	if first.Fence == nil {
		return errors.New("Redis holds no state of it: no consumer has run, or Redis was wiped and nobody has rebuilt it")
	}
	if _, _, is := first.Fence.Rebuilding(); is {
		return errRebuilding
	}
	if err := p.origin(); err != nil {
		return err
	}
	p.customers, p.waits, p.due = map[uint64]*entry{}, map[string][]uint64{}, map[string]int64{}
	gen := first.Fence.Gen
	suspects := map[string]bool{} // record and due set do not fit, perhaps because they were read one after the other
	err = p.store.EachSampled(p.ctx, gen, func(id string, s state.Sampled) error {
		if p.put(id, s) != "" {
			suspects[id] = true
		}
		p.Progress.Customers.Add(1)
		return nil
	})
	if err != nil {
		return err
	}
	from := first.Fence.State.Next
	margin := time.Minute
	for range 200 {
		s, err := p.store.Sample(p.ctx, nil)
		if err == nil && s.Fence != nil && s.Fence.Point == first.Fence.Point && len(suspects) == 0 {
			p.fence, p.outbox, p.due = s.Fence, s.Outbox, nil
			return p.originals(gen)
		}
		if err == nil && (s.Fence == nil || s.Fence.Gen != gen) {
			err = errors.New("its state was rebuilt meanwhile; try again")
		}
		if err != nil {
			return err
		}
		p.moving = p.moving || s.Fence.Point != first.Fence.Point
		touched := maps.Clone(suspects)
		// Whoever is due later is not swept while we look.
		horizon := s.Fence.State.Sweep.Due + margin.Milliseconds()
		for id, due := range p.due {
			if due <= horizon {
				touched[id] = true
			}
		}
		upTo, err := p.touched(from, s.Fence.State.Next, touched)
		if err != nil {
			return err
		}
		ids := slices.Collect(maps.Keys(touched))
		var at *protocol.Fence // before which nobody else was touched
		for n := 0; n == 0 || n < len(ids); n += state.MaxSample {
			some := ids[n:min(len(ids), n+state.MaxSample)]
			if s, err = p.store.Sample(p.ctx, some); err != nil {
				return err
			}
			if s.Fence == nil || s.Fence.Gen != gen {
				return errors.New("its state was rebuilt meanwhile; try again")
			}
			if at == nil {
				at = s.Fence
			}
			for i, id := range some {
				if delete(suspects, id); p.put(id, s.Customers[i]) != "" {
					suspects[id] = true
				}
			}
		}
		if len(ids) <= state.MaxSample && at.State.Sweep.Due <= horizon && !beyond(at.State.Next, upTo) {
			for i, id := range ids {
				if wrong := p.put(id, s.Customers[i]); wrong != "" {
					p.violated(Violation{Invariant: "I1", Customer: id, Offset: -1, Text: wrong})
				}
			}
			p.fence, p.outbox, p.due = at, s.Outbox, nil
			return p.originals(gen)
		}
		from = least(upTo, at.State.Next)
		margin = min(2*margin, 1000*24*time.Hour) // the clock may be that of the events
	}
	return ErrMoving
}

var errRebuilding = errors.New("its state is being rebuilt; try again when that is done")

// origin finds the genesis, which names the inputs: the journal's first record
// or, where that is gone, what the newest rebase says of it.
func (p *part) origin() error {
	start, end, err := p.source.Span(p.ctx, p.Topics.Journal, p.n)
	if err != nil {
		return err
	}
	enough := errors.New("enough")
	err = replay.Each(p.ctx, p.source, p.Topics.Journal, p.n, start, end, func(r *kgo.Record) error {
		rec, err := protocol.DecodeRecord(r.Value)
		if err != nil {
			return nil // noted when the journal is checked
		}
		if p.genesis = rec.Origin(); p.genesis == nil {
			return nil
		}
		return enough
	})
	if err != nil && !errors.Is(err, enough) {
		return err
	}
	if p.genesis == nil {
		return fmt.Errorf("Redis holds state, but %s holds no genesis: Kafka lost the journal, or its beginning", p.journalName())
	}
	p.topics = p.genesis.Topics
	return nil
}

// touched adds the customers of the records from the given positions on to
// somewhat beyond now, and says how far it looked.
func (p *part) touched(from, now []protocol.Position, ids map[string]bool) ([]protocol.Position, error) {
	const ahead = 1000
	upTo := slices.Clone(now)
	for i, t := range p.topics {
		_, end, err := p.source.Span(p.ctx, t, p.n)
		if err != nil {
			return nil, err
		}
		upTo[i].Next = max(now[i].Next, min(end, now[i].Next+ahead))
		err = replay.Each(p.ctx, p.source, t, p.n, from[i].Next, min(end, upTo[i].Next), func(r *kgo.Record) error {
			ids[string(r.Key)] = true // a record whose key is not the customer is refused
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return upTo, nil
}

func beyond(next, upTo []protocol.Position) bool {
	for i := range next {
		if next[i].Next > upTo[i].Next {
			return true
		}
	}
	return false
}

func least(a, b []protocol.Position) []protocol.Position {
	c := slices.Clone(a)
	for i := range c {
		c[i].Next = min(c[i].Next, b[i].Next)
	}
	return c
}

// put takes one customer as Redis holds it, in place of what was known, and
// says what is wrong with it by itself.
func (p *part) put(id string, s state.Sampled) string {
	k := key(id)
	e := p.customers[k]
	if e == nil {
		if s.Value == nil && !s.Indexed {
			return ""
		}
		e = &entry{tier: customer.NoTier, rank: customer.NoTier}
		p.customers[k] = e
	}
	p.digest = p.digest.Sub(e.term)
	p.waiting -= int64(e.waiting)
	delete(p.waits, id)
	delete(p.due, id)
	*e = entry{tier: customer.NoTier, rank: customer.NoTier}
	if s.Value == nil {
		return "the due set names this customer, but there is no record"
	}
	hi, lo := customer.Sum(id, s.Value)
	e.term, e.stored = customer.Digest{hi, lo}, true
	p.digest = p.digest.Add(e.term)
	r := customer.NewRecord()
	if err := customer.Decode(s.Value, &r); err != nil {
		return fmt.Sprintf("the record is not one: %v", err)
	}
	if len(r.Facts.Waiting) > 0 {
		hashes := make([]uint64, len(r.Facts.Waiting))
		for i := range hashes {
			hashes[i] = r.Facts.Waiting[i].Hash
		}
		p.waits[strings.Clone(id)] = hashes
	}
	if r.Due != customer.NeverDue {
		p.due[strings.Clone(id)] = r.Due
	}
	e.sequence, e.tier, e.waiting = uint32(r.Standing.Sequence), r.Standing.Tier, uint16(len(r.Facts.Waiting))
	p.waiting += int64(e.waiting)
	switch {
	case !s.Indexed:
		return "the due set does not name this customer"
	case s.Due != r.Due:
		return fmt.Sprintf("the record is due at %d, the due set says %d", r.Due, s.Due)
	}
	return ""
}

// originals looks for the original records of the returns that wait.
func (p *part) originals(gen uint64) error {
	for id, hashes := range p.waits {
		missing, err := p.missing(gen, id, hashes)
		if err == nil && len(missing) > 0 {
			// It may have been resolved meanwhile.
			var s *state.Sample
			if s, err = p.store.Sample(p.ctx, []string{id}); err != nil {
				return err
			}
			r := customer.NewRecord()
			if s.Customers == nil || s.Customers[0].Value == nil || customer.Decode(s.Customers[0].Value, &r) != nil {
				continue // noted elsewhere
			}
			var still []uint64
			for i := range r.Facts.Waiting {
				if slices.Contains(missing, r.Facts.Waiting[i].Hash) {
					still = append(still, r.Facts.Waiting[i].Hash)
				}
			}
			if missing, err = p.missing(gen, id, still); err == nil {
				for _, h := range missing {
					p.violated(Violation{Invariant: "I1", Customer: id, Offset: -1, Text: fmt.Sprintf("a return waits (%016x), but its original record is gone", h)})
				}
			}
		}
		if err != nil {
			return err
		}
	}
	p.waits = nil
	return nil
}

func (p *part) missing(gen uint64, id string, hashes []uint64) (missing []uint64, err error) {
	ws := make([]state.WaitingKey, len(hashes))
	for i, h := range hashes {
		ws[i] = state.WaitingKey{Customer: id, Hash: h}
	}
	values, err := p.store.Originals(p.ctx, gen, ws)
	if err != nil {
		return nil, err
	}
	for i, v := range values {
		if v == nil {
			missing = append(missing, hashes[i])
		}
	}
	return missing, nil
}
