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
	"sync/atomic"
	"time"

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
	Limit     int64         // messages sent at most; 0: no limit
	Flush     time.Duration // how long the last acknowledgements may take after a cancelled ctx; 0: 10 s

	Progress *Progress // counted up while running; nil: nobody looks
}

// Progress is read while a run counts it up.
type Progress struct {
	sent, acked, failed, reached atomic.Int64
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
	if err := cfg.Pace.Validate(); err != nil {
		return err
	}
	if cfg.Topics == (Topics{}) {
		cfg.Topics = DefaultTopics
	}
	if len(cfg.Formats) == 0 {
		cfg.Formats = []event.Format{event.BinaryJSON}
	}
	if cfg.Flush == 0 {
		cfg.Flush = 10 * time.Second
	}
	p := cfg.Progress
	if p == nil {
		p = new(Progress)
	}

	// What is in flight when ctx ends is still delivered, for a while.
	sending, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()
	defer context.AfterFunc(ctx, func() {
		t := time.AfterFunc(cfg.Flush, giveUp)
		context.AfterFunc(sending, func() { t.Stop() })
	})()

	// The first failure ends the run, also while it waits for its pace.
	run, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	var acked atomic.Int64
	acknowledge := func(r *kgo.Record, err error) {
		if err == nil {
			acked.Add(1)
			p.acked.Add(1)
			return
		}
		p.failed.Add(1)
		fail(fmt.Errorf("producing to %s: %w", r.Topic, err))
	}

	pacer := newPacer(cfg.Pace)
	skipUntil := cfg.SkipUntil.UnixMilli()
	var n int64
	for m := range cfg.Messages {
		if run.Err() != nil || cfg.Limit > 0 && n == cfg.Limit {
			break
		}
		if !cfg.SkipUntil.IsZero() && m.At <= skipUntil {
			continue
		}
		if !pacer.wait(run, m.At) {
			break
		}
		record, err := Record(&m, cfg.Topics, cfg.Formats[n%int64(len(cfg.Formats))])
		if err != nil {
			fail(err)
			break
		}
		n++
		p.sent.Add(1)
		p.reached.Store(m.At)
		// Blocks while the client's buffer is full.
		cfg.Client.Produce(sending, record, acknowledge)
	}

	// Flush is cut short only by sending, and then records are missing below.
	_ = cfg.Client.Flush(sending)
	if cause := context.Cause(run); cause != nil && !errors.Is(cause, context.Cause(ctx)) {
		return cause
	}
	if missing := n - acked.Load(); missing > 0 {
		return fmt.Errorf("waiting for acknowledgements: %d of %d records missing after %s", missing, n, cfg.Flush)
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
