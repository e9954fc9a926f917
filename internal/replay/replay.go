// Package replay folds a log again, without touching what is live.
//
// An exact replay ([Follow]) folds exactly the batches that the journal says
// and must come to what the journal says of each: chain, digest, decisions. A
// canonical one needs the log alone: the same log gives the same records and
// decisions on every run, whatever the batch size, the number of workers and
// the machine.
//
// Sources are only read, without a consumer group. What a replay writes has
// names made from a [Name], which no live namespace can have.
package replay

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/tierstream/tierstream/internal/customer"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/stream"
)

// Kind says what a replay goes by.
type Kind string

const (
	Exact     Kind = "exact"     // log and journal
	Canonical Kind = "canonical" // the log alone
)

// Config is one replay. Source, Kind, Name and Topics are required, and Rules
// of a canonical one.
type Config struct {
	Kind   Kind
	Name   Name
	Source Source
	Topics stream.Topics // of what is replayed, but for the inputs, which journal or rules name
	Rules  *fold.Rules   // of a canonical replay; the clock wall is read as log, see CanonicalRules
	Engine string        // build, named in outputs

	// From and To bound the range. An exact replay begins at the genesis, or
	// where it is resumed, and ends with the last batch that lies whole before To.
	From, To Edge

	Workers int                   // partitions at a time; 0: 1
	Chunk   int                   // records read ahead, and written to Redis at once; 0: 5,000
	Redis   redis.UniversalClient // keeps the state there, and resumes; nil: in memory
	Output  Output                // nil: nowhere. Run closes it

	// Values, if set, is called with every customer of each partition when that
	// is done, in no order, by one goroutine per partition.
	Values func(partition int32, customer string, value []byte) error

	Progress *Progress // counted up meanwhile; nil: nobody looks
}

// Edge is one end of a range; the zero Edge is the log's.
type Edge struct {
	// Time: the first record with a timestamp at or after it.
	Time time.Time
	// Offsets by topic and partition; others are the log's.
	Offsets map[string]map[int32]int64
}

func (e *Edge) zero() bool { return e.Time.IsZero() && len(e.Offsets) == 0 }

func (e *Edge) offset(ctx context.Context, s Source, topic string, partition int32, otherwise int64) (int64, error) {
	if !e.Time.IsZero() {
		return s.After(ctx, topic, partition, e.Time.UnixMilli())
	}
	if o, ok := e.Offsets[topic][partition]; ok {
		return o, nil
	}
	return otherwise, nil
}

// Progress is counted up while a replay runs, and may be read meanwhile.
type Progress struct {
	done, total atomic.Int64
}

func (p *Progress) add(n int64) {
	if p != nil {
		p.done.Add(n)
	}
}

// Records is how many records are folded, of how many offsets there are.
func (p *Progress) Records() (done, total int64) { return p.done.Load(), p.total.Load() }

// Report is what a replay came to.
type Report struct {
	Kind        Kind             `json:"kind"`
	Namespace   string           `json:"namespace"`
	Rules       string           `json:"rules,omitempty"` // hash, of a canonical replay
	Hash        string           `json:"hash"`            // of all partitions, see Sum
	Records     string           `json:"records_digest"`  // Σ of the partitions'
	Partitions  []Partition      `json:"partitions"`
	Read        int64            `json:"read"`
	Customers   int64            `json:"customers"`
	Changes     int64            `json:"changes"`
	DeadLetters int64            `json:"dead_letters"`
	Counts      map[string]int64 `json:"counts"` // records by code
	Resumed     bool             `json:"resumed,omitempty"`
	Took        time.Duration    `json:"took_ns"`
}

// Partition is what one partition came to.
type Partition struct {
	Partition   int32  `json:"partition"`
	Records     string `json:"records_digest"`   // Σ mod 2^128 over the customers, as in the journal
	Decisions   string `json:"decisions_digest"` // see AddDecision
	Seq         uint64 `json:"seq"`              // of an exact replay: the journal's last batch
	Chain       string `json:"chain,omitempty"`
	Read        int64  `json:"read"`
	Customers   int64  `json:"customers"`    // of those in memory, when resumed
	Changes     int64  `json:"changes"`      // decided in this run
	DeadLetters int64  `json:"dead_letters"` // decided in this run
	Next        []Next `json:"next"`
}

// Next is where reading an input ended.
type Next struct {
	Topic  string `json:"topic"`
	Offset int64  `json:"offset"`
}

// Sum is the hash of a whole replay: SHA-256 over one line per partition, in
// their order: number, digest of the records, digest of the decisions, parted
// by spaces, each line ended by a line feed.
func Sum(ps []Partition) string {
	h := sha256.New()
	for _, p := range ps {
		fmt.Fprintf(h, "%d %s %s\n", p.Partition, p.Records, p.Decisions)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// Run replays a log. It writes nothing but under the replay's own name.
func Run(ctx context.Context, cfg Config) (_ *Report, err error) {
	began := time.Now()
	if cfg.Output != nil {
		defer func() {
			if e := cfg.Output.Close(); err == nil {
				err = e
			}
		}()
	}
	if cfg.Name.text == "" {
		return nil, errors.New("a replay needs a namespace of its own")
	}
	if cfg.Workers == 0 {
		cfg.Workers = 1
	}
	if cfg.Chunk == 0 {
		cfg.Chunk = 5000
	}
	if cfg.Progress == nil {
		cfg.Progress = &Progress{}
	}
	if err := cfg.Name.free(ctx, cfg.Source); err != nil {
		return nil, err
	}
	r := &Report{Kind: cfg.Kind, Namespace: cfg.Name.text, Counts: map[string]int64{}}
	var inputs []string
	var book *Rulebook
	switch cfg.Kind {
	case Canonical:
		if cfg.Rules == nil {
			return nil, errors.New("a canonical replay needs rules")
		}
		cfg.Rules = CanonicalRules(cfg.Rules)
		inputs, r.Rules = cfg.Rules.Topics, cfg.Rules.Hash().String()
	case Exact:
		if !cfg.From.zero() {
			return nil, errors.New("an exact replay begins at the genesis: what came before another beginning is not known; give only an end, or replay canonically")
		}
		if book, err = ReadRules(ctx, cfg.Source, cfg.Topics.Rules); err != nil {
			return nil, err
		}
		first, err := First(ctx, cfg.Source, cfg.Topics.Journal)
		if err != nil {
			return nil, err
		}
		inputs = first.Origin().Topics
	default:
		return nil, fmt.Errorf("a replay of kind %q: want exact or canonical", cfg.Kind)
	}
	n := int32(0)
	for i, t := range inputs {
		m, err := cfg.Source.Partitions(ctx, t)
		switch {
		case err != nil:
			return nil, err
		case m == 0:
			return nil, fmt.Errorf("there is no topic %s", t)
		case i > 0 && m != n:
			return nil, fmt.Errorf("input topics must be co-partitioned: %s has %d partitions, %s has %d", inputs[0], n, t, m)
		}
		n = m
	}
	if n == 0 {
		return nil, errors.New("no input topics are named")
	}

	r.Partitions = make([]Partition, n)
	passes := make([]*pass, n)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(cfg.Workers)
	for p := range n {
		g.Go(func() (err error) {
			if err := ctx.Err(); err != nil {
				return err
			}
			one := &single{Config: &cfg, n: p, partitions: n, inputs: inputs, book: book}
			passes[p], err = one.run(ctx)
			if err != nil {
				return err
			}
			r.Partitions[p] = passes[p].summary(inputs)
			for id, v := range passes[p].held.values {
				if cfg.Values != nil && v.value != nil {
					if err := cfg.Values(p, id, v.value); err != nil {
						return err
					}
				}
			}
			passes[p].held = nil // the next partition needs the memory
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	var records customer.Digest
	for i, p := range r.Partitions {
		s := &passes[i].state
		records = records.Add(customer.Digest{binary.BigEndian.Uint64(s.Digest[:8]), binary.BigEndian.Uint64(s.Digest[8:])})
		r.Read, r.Customers, r.Changes, r.DeadLetters = r.Read+p.Read, r.Customers+p.Customers, r.Changes+p.Changes, r.DeadLetters+p.DeadLetters
		r.Resumed = r.Resumed || passes[i].resumed
		for c, n := range s.Counters {
			if n != 0 {
				r.Counts[event.Code(c).String()] += n
			}
		}
	}
	r.Records, r.Hash, r.Took = fmt.Sprintf("%x", records.Bytes()), Sum(r.Partitions), time.Since(began)
	return r, nil
}

func (p *pass) summary(topics []string) Partition {
	s := Partition{
		Partition: p.partition, Records: fmt.Sprintf("%x", p.state.Digest), Decisions: p.decisions.String(), Seq: p.point.Seq, Chain: p.point.Chain.String(),
		Read: p.state.Read, Customers: p.held.size(), Changes: p.changes, DeadLetters: p.deadLetters,
	}
	for i, t := range topics {
		if i < len(p.state.Next) {
			s.Next = append(s.Next, Next{t, p.state.Next[i].Next})
		}
	}
	return s
}

// single is one partition of a replay.
type single struct {
	*Config
	n, partitions int32
	inputs        []string
	book          *Rulebook
}

func (o *single) run(ctx context.Context) (*pass, error) {
	from, to := make([]int64, len(o.inputs)), make([]int64, len(o.inputs))
	for i, t := range o.inputs {
		start, end, err := o.Source.Span(ctx, t, o.n)
		if err == nil {
			if from[i], err = o.From.offset(ctx, o.Source, t, o.n, start); err == nil {
				to[i], err = o.To.offset(ctx, o.Source, t, o.n, end)
			}
		}
		switch {
		case err != nil:
			return nil, err
		case from[i] < start:
			return nil, fmt.Errorf("%s/%d begins at offset %d: %d is gone", t, o.n, start, from[i])
		case to[i] > end:
			return nil, fmt.Errorf("%s/%d ends at offset %d, before %d", t, o.n, end, to[i])
		}
		from[i] = min(from[i], to[i])
		o.Progress.total.Add(to[i] - from[i])
	}
	var f *Follower
	var p *pass
	if o.Kind == Exact {
		f = newFollower(o.Source, o.Name.text, o.Topics, o.n, o.book)
		p = &f.pass
	} else {
		p = &pass{partition: o.n, held: newHeld(), where: fold.Where{Namespace: o.Name.text, Partition: o.n, Partitions: o.partitions, Mode: "replay"}}
	}
	defer p.close()
	p.where.Engine, p.progress = o.Engine, o.Progress
	parameters := fmt.Sprint(o.Kind, " ", o.Topics.Journal)
	if o.Kind == Canonical {
		parameters = fmt.Sprint(o.Kind, " ", o.Rules.Hash(), " ", from)
	}
	p.where.Incarnation = o.Name.incarnation(parameters)
	if o.Kind == Canonical {
		p.begin(o.Rules, from)
	}
	if o.Redis != nil {
		var owner protocol.Nonce
		if _, err := rand.Read(owner[:]); err != nil {
			return nil, fmt.Errorf("choosing an owner: %w", err)
		}
		remote, fence, err := openRemote(ctx, o.Redis, o.Name, o.n, p.where.Incarnation, owner)
		if err != nil {
			return nil, err
		}
		p.held.remote = remote
		if fence != nil {
			p.resume(fence)
			if err := p.held.resume(ctx); err != nil {
				return nil, err
			}
			o.Progress.add(fence.State.Read)
		}
	}
	if o.Output != nil {
		var err error
		if p.emit, p.flush, err = o.Output.Open(ctx, o.n); err != nil {
			return nil, err
		}
	}
	if f != nil {
		return p, o.exact(ctx, f, to)
	}
	for i := range to {
		to[i] = max(to[i], p.state.Next[i].Next) // resumed beyond
	}
	var err error
	if p.engine, err = fold.NewEngine(o.Rules, p.where, true); err != nil {
		return nil, err
	}
	if err := p.open(o.Source, o.inputs, to); err != nil {
		return nil, err
	}
	if err := p.save(ctx, 0); err != nil {
		return nil, err
	}
	return p, p.canonical(ctx, to, o.Chunk, func() error { return p.save(ctx, 0) })
}

// exact follows the journal to its end, or to the last batch before the given
// offsets.
func (o *single) exact(ctx context.Context, f *Follower, to []int64) error {
	_, end, err := o.Source.Span(ctx, o.Topics.Journal, o.n)
	if err != nil {
		return err
	}
	if end == 0 {
		return fmt.Errorf("%s/%d is empty: nothing was ever applied", o.Topics.Journal, o.n)
	}
	if !o.To.zero() {
		f.Until = func(rec *protocol.Record) bool {
			return beyond(rec.State.Next, to)
		}
	}
	var at, saved int64
	f.Record = func(rec *protocol.Record, p protocol.Published, _ *fold.Output) error {
		at = p.Offset
		if rec.State.Read-saved < int64(o.Chunk) && rec.Genesis == nil {
			return nil
		}
		saved = rec.State.Read
		return f.save(ctx, at)
	}
	if err := f.To(ctx, end); err != nil {
		return err
	}
	return f.save(ctx, at)
}

func beyond(next []protocol.Position, to []int64) bool {
	for i := range next {
		if i < len(to) && next[i].Next > to[i] {
			return true
		}
	}
	return false
}
