package stream

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/trace"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/protocol"
)

// transactionTimeout is how long a transaction may stay open. Fencing ends one
// at once, but a broker that has just come back takes its time to write the
// markers; one that is open for longer than this is a fault.
const transactionTimeout = 60 * time.Second

// patience is how long recovery waits for Kafka before it says so.
const patience = 5 * time.Second

func transactionalID(namespace string, p int32) string { return fmt.Sprintf("%s-%d", namespace, p) }

// producer is the one transactional producer of a partition. Whoever opens it
// last fences all before: their open transactions are aborted, and none of
// their later requests is accepted.
type producer struct {
	client    *kgo.Client
	id        int64 // producer ID
	tracer    trace.Tracer
	topics    Topics
	source    []byte // ce_source of its changes
	partition int32
	msgpack   bool // changes go out as MessagePack
	max       int  // largest message that the outputs surely accept, bytes

	// Memory of a transaction, used again by the next.
	records []kgo.Record
	headers []kgo.RecordHeader
	decided []protocol.MessageHeader
}

// openProducer opens the producer and forces its initialisation, which the
// client would otherwise put off to the first produce, too late to fence.
func openProducer(ctx context.Context, cfg *Config, p int32, maxMessage int32) (*producer, error) {
	murmur2, err := event.ParsePartitioner("murmur2")
	if err != nil {
		return nil, err
	}
	cl, err := kgo.NewClient(append(cfg.Kafka[:len(cfg.Kafka):len(cfg.Kafka)],
		kgo.TransactionalID(transactionalID(cfg.Namespace, p)),
		kgo.TransactionTimeout(transactionTimeout),
		kgo.RecordPartitioner(kgo.BasicConsistentPartitioner(func(topic string) func(*kgo.Record, int) int {
			if topic == cfg.Topics.Journal {
				return func(*kgo.Record, int) int { return int(p) }
			}
			return func(r *kgo.Record, n int) int {
				if r.Key == nil {
					return int(p) % n
				}
				return int(murmur2.Partition(r.Key, int32(n)))
			}
		})),
		kgo.ProducerLinger(0),
		// Snappy: its encoder is several times faster than that of LZ4.
		kgo.ProducerBatchCompression(kgo.SnappyCompression(), kgo.NoCompression()),
		kgo.ProducerBatchMaxBytes(maxMessage),
		kgo.MaxBufferedRecords(1<<20),
	)...)
	if err != nil {
		return nil, fmt.Errorf("opening the producer: %w", err)
	}
	began := time.Now()
	slow := time.AfterFunc(patience, func() {
		cfg.Log.Warn("still waiting for the previous producer to be fenced", "partition", p, "for", time.Since(began).Round(time.Second))
	})
	defer slow.Stop()
	id, _, err := cl.ProducerID(ctx)
	if err != nil {
		cl.Close()
		return nil, fmt.Errorf("fencing the previous producer: %w", err)
	}
	return &producer{client: cl, id: id, tracer: otel.Tracer(scope), topics: cfg.Topics, source: fold.Source(cfg.Namespace), partition: p, msgpack: cfg.MsgpackChanges, max: int(maxMessage)}, nil
}

func (p *producer) close() { p.client.Close() }

// publish makes the entries' messages and journal records one committed fact,
// and says where the last journal record lies. After an error the outcome is
// not known: the producer must be closed, and K read anew.
//
// A dead letter that does not fit its topic goes without its value, see
// [producer.fit].
func (p *producer) publish(ctx context.Context, entries []*protocol.Entry) (_ protocol.Published, err error) {
	var sent sends
	defer func() {
		sent.end(err)
		if err == nil { // the client is done with them; what they point to need not stay
			clear(p.records)
			clear(p.headers)
			p.records, p.headers = p.records[:0], p.headers[:0]
		}
	}()
	if err := p.client.BeginTransaction(); err != nil {
		return protocol.Published{}, fmt.Errorf("beginning a transaction: %w", err)
	}
	var (
		mu   sync.Mutex
		bad  error
		last *kgo.Record
	)
	promise := func(r *kgo.Record, err error) {
		if err != nil {
			mu.Lock()
			bad = errors.Join(bad, fmt.Errorf("producing to %s: %w", r.Topic, err))
			mu.Unlock()
		}
	}
	n := 0
	for _, e := range entries {
		n += len(e.Messages) + 1
	}
	p.records = slices.Grow(p.records[:0], n) // does not move below: the client holds pointers
	record := func(r kgo.Record) *kgo.Record {
		p.records = append(p.records, r)
		return &p.records[len(p.records)-1]
	}
	var values map[string]*protocol.Entry
	if p.topics.Values != "" {
		values = newestValues(entries)
	}
	for _, e := range entries {
		for i := range e.Messages {
			m := &e.Messages[i]
			if m.Stream == protocol.Values && values[string(m.Key)] != e {
				continue // switched off meanwhile, or a later batch of this transaction has a newer one
			}
			r := record(kgo.Record{Key: m.Key, Value: m.Value, Headers: p.headersOf(m)})
			switch m.Stream {
			case protocol.Changes:
				r.Topic = p.topics.Changes
				if p.msgpack {
					if err := asMsgpack(r); err != nil {
						return protocol.Published{}, err
					}
				}
				sent.add(ctx, p.tracer, r)
			case protocol.DeadLetters:
				r.Topic = p.topics.DeadLetters
				p.fit(r)
			case protocol.Values:
				r.Topic = p.topics.Values
			}
			p.client.Produce(ctx, r, promise)
		}
		last = record(kgo.Record{Topic: p.topics.Journal, Partition: p.partition, Value: e.Journal})
		p.client.Produce(ctx, last, promise)
	}
	if err := p.client.Flush(ctx); err != nil {
		return protocol.Published{}, fmt.Errorf("flushing a transaction: %w", err)
	}
	mu.Lock()
	err = bad
	mu.Unlock()
	if err != nil {
		// The client would commit what did get through. Never.
		return protocol.Published{}, err
	}
	if err := p.client.EndTransaction(ctx, kgo.TryCommit); err != nil {
		return protocol.Published{}, fmt.Errorf("committing a transaction: %w", err)
	}
	return protocol.Published{Point: entries[len(entries)-1].Point(), Offset: last.Offset, LeaderEpoch: -1}, nil
}

// headersOf are a message's headers, with room for one more, in memory that is
// used again when the transaction has ended well.
func (p *producer) headersOf(m *protocol.Message) []kgo.RecordHeader {
	p.decided = fold.AppendHeaders(p.decided[:0], p.source, m)
	from := len(p.headers)
	for _, h := range p.decided {
		p.headers = append(p.headers, kgo.RecordHeader(h))
	}
	to := len(p.headers)
	p.headers = append(p.headers, kgo.RecordHeader{})
	return p.headers[from : to : to+1]
}

// fit leaves out of a dead letter what does not fit its topic: a record can be
// small in its topic, compressed, and large on its own, whether by its value,
// its headers or its key. What is left says where the original lies, and how
// many bytes were left out. Without this, one such record would stop its
// partition for ever.
func (p *producer) fit(r *kgo.Record) {
	omit := func(what string, bytes int) {
		r.Headers = append(r.Headers, kgo.RecordHeader{Key: "tierstream-" + what + "-omitted", Value: strconv.AppendInt(nil, int64(bytes), 10)})
	}
	tooBig := func() bool { return size(r)+10*len(r.Headers) > p.max-4<<10 } // two lengths per header
	if tooBig() {
		omit("value", len(r.Value))
		r.Value = nil
	}
	if tooBig() {
		// Ours begin with the code; the original's come before, and may have
		// any name.
		own := len(r.Headers) - 1
		for own > 0 && r.Headers[own].Key != "tierstream-code" {
			own--
		}
		bytes := 0
		for _, h := range r.Headers[:own] {
			bytes += len(h.Key) + len(h.Value)
		}
		r.Headers = r.Headers[own:]
		omit("headers", bytes)
	}
	if tooBig() {
		omit("key", len(r.Key))
		r.Key = nil
	}
}

// asMsgpack rewrites a change's data.
func asMsgpack(r *kgo.Record) (err error) {
	if r.Value, err = fold.Msgpack(r.Value); err != nil {
		return err
	}
	for i := range r.Headers {
		if r.Headers[i].Key == "content-type" {
			r.Headers[i].Value = []byte(fold.MsgpackType)
		}
	}
	return nil
}
