package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/protocol"
)

type journalCmd struct {
	Partition int32 `help:"One partition only. Default: all, one after the other." default:"-1" placeholder:"N"`
	From      int64 `help:"First offset in the journal topic." placeholder:"OFFSET"`
	Follow    bool  `short:"f" help:"Go on with new batches until Ctrl-C, of all partitions at once."`
	JSON      bool  `name:"json" help:"One JSON object per batch."`
}

func (c *journalCmd) Help() string {
	return `Every applied batch of a partition leaves one record in the journal, in the transaction that publishes its outputs. A line says: partition@offset, batch, chain (the hash of all that led there), clock, next offset per input topic, what the batch counted, digest of the partition's customers.

  tierctl journal --partition 0
  tierctl journal --follow`
}

func (c *journalCmd) Run(ctx context.Context, conn *connection, t *terminal) error {
	s, err := conn.open(ctx, t, needKafka)
	if err != nil {
		return err
	}
	defer s.close()
	n, err := s.partitionsOf(ctx, s.topic.Journal)
	if err != nil {
		return err
	}
	if n == 0 {
		return s.notStarted()
	}
	partitions := []int32{c.Partition}
	switch {
	case c.Partition >= n:
		return fmt.Errorf("partition %d: the journal %s has %d", c.Partition, s.topic.Journal, n)
	case c.Partition < 0:
		partitions = partitions[:0]
		for p := range n {
			partitions = append(partitions, p)
		}
	}
	var mu sync.Mutex
	write := func(text string) error {
		mu.Lock()
		defer mu.Unlock()
		_, err := fmt.Fprintln(t.out, text)
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	if !c.Follow {
		g.SetLimit(1) // one after the other
	}
	for _, p := range partitions {
		g.Go(func() error { return c.read(ctx, s, p, write) })
	}
	err = g.Wait()
	if c.Follow && errors.Is(err, context.Canceled) {
		return nil // Ctrl-C
	}
	return err
}

// lookBehind is how many offsets before the first one asked for are read, to
// know what was counted before it: the batch before lies one back in the same
// transaction, or two back with that transaction's marker between.
const lookBehind = 2

func (c *journalCmd) read(ctx context.Context, s *site, p int32, write func(string) error) error {
	in, err := s.span(ctx, s.topic.Journal, p)
	if err != nil {
		return err
	}
	if c.From > in.End {
		return fmt.Errorf("--from %d: %s/%d ends at offset %d", c.From, s.topic.Journal, p, in.End)
	}
	end := in.Committed
	if c.Follow {
		end = forever
	}
	var topics []string
	if s.rules != nil {
		if r, err := s.rules.inForce(nil); err == nil && r != nil {
			topics = r.Topics
		}
	}
	var prev *protocol.Record
	return s.each(ctx, s.topic.Journal, p, max(in.Start, c.From-lookBehind), end, func(r *kgo.Record) error {
		rec, err := protocol.DecodeRecord(r.Value)
		if err != nil {
			return fmt.Errorf("%s/%d@%d: %w", r.Topic, p, r.Offset, err)
		}
		if g := rec.Origin(); g != nil {
			topics = g.Topics
		}
		if r.Offset >= c.From {
			l := newLine(r, rec, prev, topics)
			text := l.String()
			if c.JSON {
				b, err := json.Marshal(l)
				if err != nil {
					return err
				}
				text = string(b)
			}
			if err := write(text); err != nil {
				return err
			}
		}
		prev = rec
		return nil
	})
}

// line is one journal record as printed. Counters are what the batch counted;
// of a record whose predecessor was not read they are left out.
type line struct {
	Partition   int32            `json:"partition"`
	Offset      int64            `json:"offset"`
	Seq         uint64           `json:"seq"`
	Kind        string           `json:"kind"`
	Chain       string           `json:"chain"`
	Epoch       uint64           `json:"epoch"`
	Clock       time.Time        `json:"clock"`
	Rules       string           `json:"rules"`
	Next        map[string]int64 `json:"next"`
	Counters    map[string]int64 `json:"counters,omitempty"`
	Read        int64            `json:"read"` // records read so far
	Digest      string           `json:"digest"`
	Incarnation string           `json:"incarnation,omitempty"` // of a genesis
	LiveSince   time.Time        `json:"live_since,omitzero"`   // of a genesis
	Cause       string           `json:"cause,omitempty"`       // of a rebase
	Last        bool             `json:"last,omitempty"`        // of a rebase's batches

	next   string
	counts string
}

func newLine(r *kgo.Record, rec, prev *protocol.Record, topics []string) *line {
	l := &line{
		Partition: r.Partition, Offset: r.Offset, Seq: rec.Seq, Kind: "batch", Chain: rec.Chain.String(), Epoch: rec.Epoch,
		Clock: time.UnixMilli(rec.State.Clock).UTC(), Rules: rec.State.Rules.String(),
		Next: map[string]int64{}, Read: rec.State.Read, Digest: fmt.Sprintf("%x", rec.State.Digest),
	}
	if g := rec.Genesis; g != nil {
		l.Kind, l.Incarnation = "genesis", g.Incarnation.String()
		if g.LiveSince != 0 {
			l.LiveSince = time.UnixMilli(g.LiveSince).UTC()
		}
	}
	if rb := rec.Rebase; rb != nil {
		l.Kind, l.Cause, l.Last = "rebase", rb.Cause.String(), rb.Last
	}
	var next, counts []string
	for i, p := range rec.State.Next {
		name := fmt.Sprintf("input-%d", i)
		if i < len(topics) {
			name = topics[i]
		}
		l.Next[name] = p.Next
		next = append(next, fmt.Sprintf("%s %d", name, p.Next))
	}
	if prev != nil {
		l.Counters = map[string]int64{}
		for i, n := range difference(rec, prev) {
			if n != 0 {
				l.Counters[event.Code(i).String()] = n
				counts = append(counts, fmt.Sprintf("%s %+d", event.Code(i), n))
			}
		}
	}
	l.next, l.counts = strings.Join(next, ", "), strings.Join(counts, ", ")
	return l
}

func (l *line) String() string {
	s := fmt.Sprintf("%d@%d  %s %d  chain %.12s  clock %s  next %s", l.Partition, l.Offset, l.Kind, l.Seq, l.Chain, l.Clock.Format("2006-01-02T15:04:05.000Z"), l.next)
	if l.Cause != "" {
		s += "  because of " + l.Cause
	}
	if l.Kind == "genesis" {
		s += "  incarnation " + l.Incarnation
		if !l.LiveSince.IsZero() {
			s += "  live since " + l.LiveSince.Format(time.RFC3339)
		}
	}
	if l.counts != "" {
		s += "  " + l.counts
	}
	return s + fmt.Sprintf("  digest %.12s", l.Digest)
}
