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
	at := time.Now()
	if c.At != "" {
		if at, err = parseInstant("at", c.At); err != nil {
			return err
		}
	}
	n := c.Partitions
	if n == 0 {
		if n, err = s.partitions(ctx); err != nil {
			return err
		}
	}
	rules, err := s.rulesInForce(nil)
	if err != nil {
		return err
	}
	p, err := s.findPartition(ctx, c.ID, rules, n)
	if err != nil {
		return err
	}
	if p == event.AnyPartition {
		return fmt.Errorf("customer %s: %w in namespace %s", c.ID, view.ErrUnknown, s.Namespace)
	}
	record, fence, err := s.store(p).Read(ctx, c.ID)
	if err != nil {
		return err
	}
	viewer, _, err := s.viewer(fence)
	if err != nil {
		return err
	}
	v, err := viewer.View(c.ID, p, record, fence, at)
	if errors.Is(err, view.ErrPast) && c.At == "" {
		// The newest event is ahead of this machine's clock, within the skew.
		v, err = viewer.View(c.ID, p, record, fence, time.Time{})
	}
	if err != nil {
		return fmt.Errorf("customer %s in namespace %s, partition %d: %w", c.ID, s.Namespace, p, err)
	}
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
