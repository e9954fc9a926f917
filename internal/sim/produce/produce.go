// Package produce sends the simulator's messages to Kafka at a chosen pace.
//
// Delivery: every message is acknowledged or the run fails; with an idempotent
// client, the default of franz-go, none is written twice. Order is kept per
// partition. Messages are never sent before their own time has come.
package produce

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/sim"
)

// Topics names the topic of each class. Several classes may share a topic.
type Topics [sim.NumTopics]string

// DefaultTopics is one topic per class, named after it.
var DefaultTopics = Topics{"purchases", "complaints", "referrals"}

// RunConfig is one run. Client and Messages are required; the zero value of
// every other field is its default.
type RunConfig struct {
	// Client sends; its partitioner must be the consumer's. Run leaves it open.
	Client *kgo.Client

	Messages iter.Seq[sim.Message]
	Topics   Topics         // zero: DefaultTopics
	Formats  []event.Format // taken in turn; empty: binary mode with JSON

	Pace Pace

	// SkipUntil leaves out what reached the log up to this moment, for going on
	// where an earlier run of the same model stopped. Zero: nothing.
	SkipUntil time.Time
	// After leaves out as many messages as an earlier run of the same messages
	// says it has acknowledged. Another message in the last one's place is an
	// error before anything is sent.
	After Checkpoint
	Limit int64         // messages sent at most; 0: no limit
	Flush time.Duration // how long the last acknowledgements may take after a cancelled ctx; 0: 10 s

	Progress *Progress // counted up while running; nil: nobody looks
}

// Progress is read while a run counts it up.
type Progress struct {
	sent, acked, failed, reached atomic.Int64

	messages prefix[uint64] // marked by hashes
	mu       sync.Mutex
	copied   map[lane]*prefix[int64] // marked by the next offset
}

// Checkpoint says what an interrupted run need not send again. Cluster, From
// and Topics are for the caller to fill in.
func (p *Progress) Checkpoint() (c Checkpoint) {
	c.Next, c.Last = p.messages.reached()
	p.mu.Lock()
	defer p.mu.Unlock()
	for l, f := range p.copied {
		if c.Offsets == nil {
			c.Offsets = map[string]map[int32]int64{}
		}
		if c.Offsets[l.topic] == nil {
			c.Offsets[l.topic] = map[int32]int64{}
		}
		_, c.Offsets[l.topic][l.partition] = f.reached()
	}
	return c
}

// Stats is a look at a Progress.
type Stats struct {
	Sent, Acked, Failed int64
	Reached             time.Time // time of the last message sent; zero before the first
}

// Stats reads the counters, each for itself.
func (p *Progress) Stats() Stats {
	s := Stats{Sent: p.sent.Load(), Acked: p.acked.Load(), Failed: p.failed.Load()}
	if ms := p.reached.Load(); s.Sent > 0 {
		s.Reached = time.UnixMilli(ms).UTC()
	}
	return s
}

// Run sends the messages until they end, the limit is reached, ctx is done or
// one fails, and waits for all acknowledgements. A cancelled ctx is an ordinary
// end and no error, unless acknowledgements are then missing.
//
// Record timestamps are the time of sending: a broker would delete history that
// carried its own time as soon as it was older than the topic's retention.
func Run(ctx context.Context, cfg RunConfig) error {
	if cfg.Client == nil || cfg.Messages == nil {
		return errors.New("producing: no client or no messages")
	}
	if cfg.Topics == (Topics{}) {
		cfg.Topics = DefaultTopics
	}
	if len(cfg.Formats) == 0 {
		cfg.Formats = []event.Format{event.BinaryJSON}
	}
	p := cfg.Progress
	if p == nil {
		p = new(Progress)
	}
	p.messages.reset(cfg.After.Next, cfg.After.Last)
	return deliver(ctx, cfg.Client, p, cfg.Pace, cfg.Limit, cfg.Flush, cfg.items(p))
}

// items are the messages as records.
func (cfg *RunConfig) items(p *Progress) iter.Seq2[item, error] {
	skipUntil := cfg.SkipUntil.UnixMilli()
	return func(yield func(item, error) bool) {
		var n int64
		for m := range cfg.Messages {
			if !cfg.SkipUntil.IsZero() && m.At <= skipUntil {
				continue
			}
			if n++; n < cfg.After.Next {
				continue
			}
			record, err := Record(&m, cfg.Topics, cfg.Formats[(n-1)%int64(len(cfg.Formats))])
			if err != nil {
				yield(item{}, err)
				return
			}
			hash := fingerprint(record)
			if n == cfg.After.Next {
				if hash != cfg.After.Last {
					yield(item{}, fmt.Errorf("going on after message %d, event %s: it is not what was sent before: the checkpoint belongs to another input", n, m.Event.ID))
					return
				}
				continue
			}
			if !yield(item{record, m.At, func() func() { return p.messages.add(hash) }}, nil) {
				return
			}
		}
		if n < cfg.After.Next {
			yield(item{}, fmt.Errorf("going on after message %d: there are only %d: the checkpoint belongs to another input", cfg.After.Next, n))
		}
	}
}

// fingerprint is a hash of a record's key and value.
func fingerprint(r *kgo.Record) uint64 {
	var d xxhash.Digest
	d.Reset()
	_, _ = d.Write(r.Key)
	_, _ = d.Write(r.Value)
	return d.Sum64()
}

// item is one record on its way.
type item struct {
	record *kgo.Record
	at     int64         // its own time, Unix milliseconds
	track  func() func() // called when it is sent, and what it returns when it is acknowledged
}

// deliver sends the items until they end, the limit is reached, ctx is done or
// one fails, and waits for all acknowledgements, see [Run].
func deliver(ctx context.Context, client *kgo.Client, p *Progress, pace Pace, limit int64, flush time.Duration, items iter.Seq2[item, error]) error {
	if err := pace.Validate(); err != nil {
		return err
	}
	if flush == 0 {
		flush = 10 * time.Second
	}

	// What is in flight when ctx ends is still delivered, for a while.
	sending, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()
	defer context.AfterFunc(ctx, func() {
		t := time.AfterFunc(flush, giveUp)
		context.AfterFunc(sending, func() { t.Stop() })
	})()

	// The first failure ends the run, also while it waits for its pace.
	run, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var acked atomic.Int64

	pacer := newPacer(pace)
	var n int64
	for it, err := range items {
		if run.Err() != nil || limit > 0 && n == limit {
			break
		}
		if err != nil {
			fail(err)
			break
		}
		if !pacer.wait(run, it.at) {
			break
		}
		n++
		p.sent.Add(1)
		p.reached.Store(it.at)
		done := it.track()
		// Blocks while the client's buffer is full.
		client.Produce(sending, it.record, func(r *kgo.Record, err error) {
			if err == nil {
				done()
				acked.Add(1)
				p.acked.Add(1)
				return
			}
			p.failed.Add(1)
			fail(fmt.Errorf("producing to %s: %w", r.Topic, err))
		})
	}

	// Flush is cut short only by sending, and then records are missing below.
	_ = client.Flush(sending)
	if cause := context.Cause(run); cause != nil && !errors.Is(cause, context.Cause(ctx)) {
		return cause
	}
	if missing := n - acked.Load(); missing > 0 {
		return fmt.Errorf("waiting for acknowledgements: %d of %d records missing after %s", missing, n, flush)
	}
	return nil
}

// Record is a message as a Kafka record, without a timestamp: the client sets
// the time of sending.
func Record(m *sim.Message, topics Topics, f event.Format) (*kgo.Record, error) {
	r := &kgo.Record{Topic: topics[m.Topic], Key: m.Key()}
	var headers []event.Header
	if m.Raw != nil {
		r.Value, headers = m.Raw.Value, m.Raw.Headers
	} else {
		var err error
		if r.Value, headers, err = event.Encode(&m.Event, f); err != nil {
			return nil, err
		}
	}
	r.Headers = make([]kgo.RecordHeader, len(headers))
	for i, h := range headers {
		r.Headers[i] = kgo.RecordHeader{Key: h.Key, Value: h.Value}
	}
	return r, nil
}

// Partitioner makes the client choose partitions by the rule. The rule
// "explicit" chooses none and is an error.
func Partitioner(rule event.Partitioner) (kgo.Partitioner, error) {
	if rule.Partition([]byte("c"), 1) == event.AnyPartition {
		return nil, fmt.Errorf("choosing partitioner %q: it leaves the partition to the producer, which needs a rule", rule.Name())
	}
	return kgo.BasicConsistentPartitioner(func(string) func(*kgo.Record, int) int {
		return func(r *kgo.Record, n int) int { return int(rule.Partition(r.Key, int32(n))) }
	}), nil
}

// LiveConfig is a run that tells the history of the model first and then lives
// on in real time.
type LiveConfig struct {
	Client *kgo.Client

	// Sim is the model; its Warp is set here. History reaches from Sim.Start to
	// From; from From on the model is sped up or slowed down to about LiveRate.
	Sim  sim.Config
	From time.Time // zero: now

	// To repeat a run byte for byte, give the same Sim, From and LiveRate. To go on
	// with one after a restart, give SkipUntil besides, a little before the newest
	// event in the topics: what is then sent again is a plain duplicate. To start
	// another one into the same topics, give another Sim.Prefix.
	LiveRate    float64 // messages per second of wall time
	CatchUpRate float64 // messages per second until wall time is reached; 0: as fast as possible

	Topics    Topics
	Formats   []event.Format
	SkipUntil time.Time
	Limit     int64
	Progress  *Progress
}

// RunLive catches up with wall time and stays there until ctx is done.
func RunLive(ctx context.Context, cfg LiveConfig) error {
	if cfg.From.IsZero() {
		cfg.From = time.Now()
	}
	model, err := cfg.Sim.LiveFrom(cfg.From, cfg.LiveRate)
	if err != nil {
		return err
	}
	g, err := sim.New(model)
	if err != nil {
		return err
	}
	return Run(ctx, RunConfig{
		Client:    cfg.Client,
		Messages:  g.All(),
		Topics:    cfg.Topics,
		Formats:   cfg.Formats,
		Pace:      Pace{Rate: cfg.CatchUpRate},
		SkipUntil: cfg.SkipUntil,
		Limit:     cfg.Limit,
		Progress:  cfg.Progress,
	})
}
