package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/protocol"
)

// errEnough ends a reading early, as asked.
var errEnough = errors.New("enough")

// forever is an end that is never reached.
const forever = int64(1<<63 - 1)

// each reads the committed records of one partition from an offset up to end,
// and waits for what is not committed yet. It returns when end is reached, fn
// returns an error (nil for errEnough), or ctx ends.
//
// Control records are kept and skipped here, so that end is also reached when
// the last records before it are transaction markers.
func (s *site) each(ctx context.Context, topic string, partition int32, from, end int64, fn func(*kgo.Record) error) error {
	if from >= end {
		return nil
	}
	cl, err := kgo.NewClient(append(s.base[:len(s.base):len(s.base)],
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().At(from)}}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(),
		kgo.FetchMaxWait(250*time.Millisecond),
	)...)
	if err != nil {
		return fmt.Errorf("reading %s/%d: %w", topic, partition, err)
	}
	defer cl.CloseAllowingRebalance()
	for position := from; position < end; {
		fs := cl.PollFetches(ctx)
		if err := ctx.Err(); err != nil {
			return err
		}
		for _, e := range fs.Errors() {
			return fmt.Errorf("reading %s/%d from offset %d: %w", topic, partition, position, e.Err)
		}
		for it := fs.RecordIter(); !it.Done(); {
			r := it.Next()
			position = r.Offset + 1
			if r.Attrs.IsControl() || r.Offset >= end {
				continue
			}
			if err := fn(r); err != nil {
				if errors.Is(err, errEnough) {
					return nil
				}
				return err
			}
		}
	}
	return nil
}

// span is what a partition holds: offsets from Start up to Committed can be
// read at once, those up to End when their transactions have ended.
type span struct{ Start, Committed, End int64 }

// span asks where a partition starts and ends.
func (s *site) span(ctx context.Context, topic string, partition int32) (span, error) {
	starts, err := s.admin.ListStartOffsets(ctx, topic)
	if err != nil {
		return span{}, fmt.Errorf("asking for the start of %s: %w", topic, err)
	}
	ends, err := s.admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return span{}, fmt.Errorf("asking for the end of %s: %w", topic, err)
	}
	stable, err := s.admin.ListCommittedOffsets(ctx, topic)
	if err != nil {
		return span{}, fmt.Errorf("asking for the committed end of %s: %w", topic, err)
	}
	a, ok1 := starts.Lookup(topic, partition)
	b, ok2 := ends.Lookup(topic, partition)
	c, ok3 := stable.Lookup(topic, partition)
	switch {
	case !ok1 || !ok2 || !ok3 || errors.Is(a.Err, kerr.UnknownTopicOrPartition):
		return span{}, fmt.Errorf("Kafka has no partition %d of topic %s", partition, topic)
	case a.Err != nil || b.Err != nil || c.Err != nil:
		return span{}, fmt.Errorf("asking for the offsets of %s/%d: %w", topic, partition, errors.Join(a.Err, b.Err, c.Err))
	}
	return span{a.Offset, c.Offset, b.Offset}, nil
}

// partitionsOf is how many partitions a topic has; 0 when it does not exist.
// It lists all topics, because the client asks for a while after a named one
// that is missing.
func (s *site) partitionsOf(ctx context.Context, topic string) (int32, error) {
	all, err := s.admin.ListTopics(ctx)
	if err != nil {
		return 0, fmt.Errorf("asking Kafka for its topics: %w", err)
	}
	d := all[topic]
	if d.Err != nil {
		return 0, fmt.Errorf("asking Kafka for topic %s: %w", topic, d.Err)
	}
	return int32(len(d.Partitions)), nil
}

// rulesTopic is what the rules topic of a namespace holds.
type rulesTopic struct {
	name   string
	hashes []protocol.Hash // by offset, oldest first
	raw    map[protocol.Hash][]byte
	at     map[protocol.Hash]time.Time
}

// readRules reads the rules topic; a missing one is empty.
func (s *site) readRules(ctx context.Context) (*rulesTopic, error) {
	t := &rulesTopic{name: s.topic.Rules, raw: map[protocol.Hash][]byte{}, at: map[protocol.Hash]time.Time{}}
	n, err := s.partitionsOf(ctx, t.name)
	if err != nil {
		return nil, err
	}
	for p := range n {
		in, err := s.span(ctx, t.name, p)
		if err != nil {
			return nil, err
		}
		err = s.each(ctx, t.name, p, in.Start, in.End, func(r *kgo.Record) error {
			h := protocol.Hash(sha256.Sum256(r.Value))
			if h.String() != string(r.Key) { // the key is checked, not believed
				return nil
			}
			if t.raw[h] == nil {
				t.hashes = append(t.hashes, h)
			}
			t.raw[h], t.at[h] = r.Value, r.Timestamp
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return t, nil
}

// inForce are the rules that f names, or the newest when f is nil or names
// none; nil when the topic holds none at all.
func (t *rulesTopic) inForce(f *protocol.Fence) (*fold.Rules, error) {
	if len(t.hashes) == 0 {
		return nil, nil
	}
	h := t.hashes[len(t.hashes)-1]
	if f != nil && t.raw[f.State.Rules] != nil {
		h = f.State.Rules
	}
	r, err := fold.ParseRules(t.raw[h])
	if err != nil {
		return nil, fmt.Errorf("rules %.12s of topic %s: %w", h, t.name, err)
	}
	return r.WithLearned(maps.Values(t.raw)), nil
}
