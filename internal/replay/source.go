package replay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
)

// Source is where a log is read from. It is only ever read.
type Source interface {
	// Partitions is how many partitions a topic has, 0 when there is no such
	// topic.
	Partitions(ctx context.Context, topic string) (int32, error)
	// Span says which offsets of a partition can be read: from start up to the
	// end of what is committed.
	Span(ctx context.Context, topic string, partition int32) (start, end int64, err error)
	// After is the first offset whose record has a timestamp of at least ms
	// (Unix), or the end.
	After(ctx context.Context, topic string, partition int32, ms int64) (int64, error)
	// Open reads the committed records from one offset up to, and without,
	// another.
	Open(topic string, partition int32, from, to int64) (Cursor, error)
}

// Cursor hands out the records of one partition in order. Next returns io.EOF
// after the last.
type Cursor interface {
	Next(ctx context.Context) (*kgo.Record, error)
	Close()
}

// Forever is an end that no cursor reaches.
const Forever = int64(math.MaxInt64)

// Kafka is a log in Kafka. Nothing of it writes, joins a group or commits an
// offset.
type Kafka struct {
	base  []kgo.Opt
	admin *kadm.Client
}

// NewKafka reads from the cluster that the options name. Close it.
func NewKafka(base []kgo.Opt) (*Kafka, error) {
	cl, err := kgo.NewClient(base...)
	if err != nil {
		return nil, fmt.Errorf("opening a Kafka client: %w", err)
	}
	return &Kafka{base, kadm.NewClient(cl)}, nil
}

// Close ends the connections. Cursors have their own.
func (k *Kafka) Close() { k.admin.Close() }

// Partitions implements Source. It lists all topics, because the client asks
// for a while after a named one that is missing.
func (k *Kafka) Partitions(ctx context.Context, topic string) (int32, error) {
	all, err := k.admin.ListTopics(ctx)
	if err != nil {
		return 0, fmt.Errorf("asking Kafka for its topics: %w", err)
	}
	d := all[topic]
	if d.Err != nil {
		return 0, fmt.Errorf("asking Kafka for topic %s: %w", topic, d.Err)
	}
	return int32(len(d.Partitions)), nil
}

// Span implements Source.
func (k *Kafka) Span(ctx context.Context, topic string, partition int32) (start, end int64, err error) {
	starts, err := k.admin.ListStartOffsets(ctx, topic)
	if err != nil {
		return 0, 0, fmt.Errorf("asking for the start of %s: %w", topic, err)
	}
	ends, err := k.admin.ListCommittedOffsets(ctx, topic)
	if err != nil {
		return 0, 0, fmt.Errorf("asking for the end of %s: %w", topic, err)
	}
	if start, err = listed(starts, topic, partition); err == nil {
		end, err = listed(ends, topic, partition)
	}
	return start, end, err
}

// After implements Source.
func (k *Kafka) After(ctx context.Context, topic string, partition int32, ms int64) (int64, error) {
	l, err := k.admin.ListOffsetsAfterMilli(ctx, ms, topic)
	if err != nil {
		return 0, fmt.Errorf("asking %s for the offset at %s: %w", topic, time.UnixMilli(ms).UTC().Format(time.RFC3339), err)
	}
	o, err := listed(l, topic, partition)
	if err != nil {
		return 0, err
	}
	_, end, err := k.Span(ctx, topic, partition)
	return min(o, end), err
}

func listed(l kadm.ListedOffsets, topic string, partition int32) (int64, error) {
	o, ok := l.Lookup(topic, partition)
	switch {
	case !ok || errors.Is(o.Err, kerr.UnknownTopicOrPartition):
		return 0, fmt.Errorf("Kafka has no partition %d of topic %s", partition, topic)
	case o.Err != nil:
		return 0, fmt.Errorf("asking for offsets of %s/%d: %w", topic, partition, o.Err)
	}
	return o.Offset, nil
}

// Open implements Source. A cursor has a client of its own, so that no topic
// waits while another's records are buffered.
func (k *Kafka) Open(topic string, partition int32, from, to int64) (Cursor, error) {
	if from >= to {
		return ended{}, nil
	}
	cl, err := kgo.NewClient(append(k.base[:len(k.base):len(k.base)],
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(from)}}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // they move the position: the last ones before an end may be markers
		kgo.FetchMaxWait(250*time.Millisecond),
		kgo.FetchMaxPartitionBytes(2<<20),
	)...)
	if err != nil {
		return nil, fmt.Errorf("reading %s/%d: %w", topic, partition, err)
	}
	return &kafkaCursor{client: cl, topic: topic, partition: partition, position: from, to: to}, nil
}

type kafkaCursor struct {
	client       *kgo.Client
	topic        string
	partition    int32
	position, to int64
	polled       []*kgo.Record
}

func (c *kafkaCursor) Close() { c.client.CloseAllowingRebalance() }

func (c *kafkaCursor) Next(ctx context.Context) (*kgo.Record, error) {
	for {
		for i, r := range c.polled {
			c.position = r.Offset + 1
			if r.Offset >= c.to {
				break
			}
			if !r.Attrs.IsControl() {
				c.polled = c.polled[i+1:]
				return r, nil
			}
		}
		c.polled = nil
		if c.position >= c.to {
			return nil, io.EOF
		}
		fs := c.client.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		for _, e := range fs.Errors() {
			if errors.Is(e.Err, kerr.OffsetOutOfRange) {
				return nil, fmt.Errorf("%s/%d does not hold offset %d: deleted by retention, or lost", c.topic, c.partition, c.position)
			}
			return nil, fmt.Errorf("reading %s/%d from offset %d: %w", c.topic, c.partition, c.position, e.Err)
		}
		c.polled = fs.Records()
	}
}

// ended is a cursor with nothing in it.
type ended struct{}

func (ended) Next(context.Context) (*kgo.Record, error) { return nil, io.EOF }
func (ended) Close()                                    {}

// Each calls fn for all records of a partition from one offset up to another.
func Each(ctx context.Context, s Source, topic string, partition int32, from, to int64, fn func(*kgo.Record) error) error {
	c, err := s.Open(topic, partition, from, to)
	if err != nil {
		return err
	}
	defer c.Close()
	for {
		r, err := c.Next(ctx)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil {
			err = fn(r)
		}
		if err != nil {
			return err
		}
	}
}
