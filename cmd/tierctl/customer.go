package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/view"
)

type customerCmd struct {
	ID         string `arg:"" help:"Customer ID."`
	At         string `help:"Evaluate at this time (a date or RFC 3339) instead of now; not before the customer's newest event." placeholder:"TIME"`
	JSON       bool   `name:"json" help:"Print the whole value document; money in minor units."`
	Partitions int32  `help:"Number of partitions. Default: the journal topic's." placeholder:"N"`
}

func (c *customerCmd) Help() string {
	return `Shows the tier as it was decided last, what it is now, why the score is what it is, and how far the neighbouring tiers are.

  tierctl customer me
  tierctl customer me --at 2027-01-01     what silence until then would do
  tierctl customer me --json`
}

func (c *customerCmd) Run(ctx context.Context, conn *connection, t *terminal) error {
	s, err := conn.open(ctx, t, needRedis|useKafka)
	if err != nil {
		return err
	}
	defer s.close()
	found, err := s.look(ctx, c.ID, c.At, c.Partitions)
	if err != nil {
		return err
	}
	v, p, fence := found.view, found.partition, found.fence
	if s.kafka != nil && !v.Published {
		k, err := s.publishedSeq(ctx, p, fence)
		if err != nil {
			return err
		}
		v.PublishedUpTo(k)
	}
	if !c.JSON {
		return v.Card(t.out)
	}
	e := json.NewEncoder(t.out)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// found is a customer who was looked for.
type found struct {
	partition int32
	record    []byte
	fence     *protocol.Fence
	viewer    *view.Viewer
	view      *view.View
	at        time.Time // at which the view was asked for
}

// look reads a customer and evaluates them at an instant (a date or RFC 3339,
// empty: now), in a namespace of so many partitions (0: the journal topic's).
func (s *site) look(ctx context.Context, id, instant string, partitions int32) (*found, error) {
	f := &found{at: time.Now()}
	var err error
	if instant != "" {
		if f.at, err = parseInstant("at", instant); err != nil {
			return nil, err
		}
	}
	if partitions == 0 {
		if partitions, err = s.partitions(ctx); err != nil {
			return nil, err
		}
	}
	rules, err := s.rulesInForce(nil)
	if err != nil {
		return nil, err
	}
	if f.partition, err = s.findPartition(ctx, id, rules, partitions); err != nil {
		return nil, err
	}
	if f.partition == event.AnyPartition {
		return nil, fmt.Errorf("customer %s: %w in namespace %s", id, view.ErrUnknown, s.Namespace)
	}
	if f.record, f.fence, err = s.store(f.partition).Read(ctx, id); err != nil {
		return nil, err
	}
	if f.viewer, _, err = s.viewer(f.fence); err != nil {
		return nil, err
	}
	f.view, err = f.viewer.View(id, f.partition, f.record, f.fence, f.at)
	if errors.Is(err, view.ErrPast) && instant == "" {
		// The newest event is ahead of this machine's clock, within the skew.
		f.at = time.Time{}
		f.view, err = f.viewer.View(id, f.partition, f.record, f.fence, f.at)
	}
	if err != nil {
		return nil, fmt.Errorf("customer %s in namespace %s, partition %d: %w", id, s.Namespace, f.partition, err)
	}
	return f, nil
}

// publishedSeq is the batch up to which a partition is committed in Kafka. The
// fence itself learns of a commit with the next batch only.
func (s *site) publishedSeq(ctx context.Context, p int32, f *protocol.Fence) (uint64, error) {
	in, err := s.span(ctx, s.topic.Journal, p)
	if err != nil {
		return 0, err
	}
	seq := f.Published.Seq
	err = s.each(ctx, s.topic.Journal, p, f.Published.Offset, in.Committed, func(r *kgo.Record) error {
		rec, err := protocol.DecodeRecord(r.Value)
		if err != nil {
			return fmt.Errorf("%s/%d@%d: %w", r.Topic, p, r.Offset, err)
		}
		seq = rec.Seq
		return nil
	})
	return seq, err
}
