package stream

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/protocol"
)

// journal reads one partition of the journal topic.
type journal struct {
	base      []kgo.Opt // of the clients that read it
	admin     *kadm.Client
	topic     string
	partition int32
	log       *slog.Logger
}

// end is where the journal partition ends. The read-committed and the
// read-uncommitted end must agree: as long as they do not, a transaction is
// open and what is published is not known.
func (j *journal) end(ctx context.Context, wait time.Duration) (int64, error) {
	began := time.Now()
	deadline, said := began.Add(wait), began
	for {
		committed, err := j.admin.ListCommittedOffsets(ctx, j.topic)
		if err != nil {
			return 0, fmt.Errorf("asking for the journal's end: %w", err)
		}
		all, err := j.admin.ListEndOffsets(ctx, j.topic)
		if err != nil {
			return 0, fmt.Errorf("asking for the journal's end: %w", err)
		}
		c, ok1 := committed.Lookup(j.topic, j.partition)
		a, ok2 := all.Lookup(j.topic, j.partition)
		if !ok1 || !ok2 {
			return 0, fmt.Errorf("asking for the end of %s/%d: no answer", j.topic, j.partition)
		}
		// After an election the new leader does not know its end for a moment.
		again := kerr.IsRetriable(c.Err) || kerr.IsRetriable(a.Err)
		err = errors.Join(c.Err, a.Err)
		switch {
		case err != nil && (!again || time.Now().After(deadline)):
			return 0, fmt.Errorf("asking for the end of %s/%d: %w", j.topic, j.partition, err)
		case err == nil && c.Offset == a.Offset:
			return c.Offset, nil
		case err == nil && time.Now().After(deadline):
			return 0, stopf("a transaction in %s/%d does not end (committed up to %d, written up to %d), although its producer was fenced%s: docs/exactly-once.md says what to do",
				j.topic, j.partition, c.Offset, a.Offset, j.open(ctx))
		}
		if time.Since(said) > patience {
			said = time.Now()
			j.log.Warn("still waiting for the end of the journal to be known", "for", time.Since(began).Round(time.Second),
				"committed", c.Offset, "written", a.Offset, "reason", err)
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// open names the transactions that are open in the partition, as its leader
// lists them (KIP-664).
func (j *journal) open(ctx context.Context) (list string) {
	ps, err := j.admin.DescribeProducers(ctx, kadm.TopicsSet{j.topic: {j.partition: {}}})
	if err != nil {
		return fmt.Sprintf(" (its broker does not say whose: %v)", err)
	}
	for _, p := range ps.SortedProducers() {
		if p.CurrentTxnStartOffset >= 0 {
			list += fmt.Sprintf("; producer %d of epoch %d has one open since offset %d", p.ProducerID, p.ProducerEpoch, p.CurrentTxnStartOffset)
		}
	}
	return list
}

// start is the first offset that the journal partition holds.
func (j *journal) start(ctx context.Context) (int64, error) {
	l, err := j.admin.ListStartOffsets(ctx, j.topic)
	if err != nil {
		return 0, fmt.Errorf("asking for the journal's start: %w", err)
	}
	o, ok := l.Lookup(j.topic, j.partition)
	if !ok || o.Err != nil {
		return 0, fmt.Errorf("asking for the start of %s/%d: %w", j.topic, j.partition, o.Err)
	}
	return o.Offset, nil
}

// each reads the committed records from offset to end, control records kept so
// that the end is reached even when the last records are markers. fn may
// return errEnough.
func (j *journal) each(ctx context.Context, from int64, epoch int32, end int64, fn func(rec *protocol.Record, at protocol.Published) error) error {
	if from >= end {
		return nil
	}
	o := kgo.NewOffset().At(from)
	if epoch >= 0 {
		o = o.WithEpoch(epoch)
	}
	cl, err := kgo.NewClient(append(j.base[:len(j.base):len(j.base)],
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{j.topic: {j.partition: o}}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(),
		kgo.FetchMaxWait(250*time.Millisecond),
	)...)
	if err != nil {
		return fmt.Errorf("opening the journal: %w", err)
	}
	defer cl.CloseAllowingRebalance()
	for position := from; position < end; {
		fs := cl.PollRecords(ctx, 1000)
		for _, e := range fs.Errors() {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			r := reader{index: map[string]int{j.topic: 0}, queues: []queue{{position: position}}}
			return fmt.Errorf("the journal: %w", r.fetchError(e))
		}
		for it := fs.RecordIter(); !it.Done(); {
			rec := it.Next()
			position = rec.Offset + 1
			if rec.Attrs.IsControl() || rec.Offset >= end {
				continue
			}
			jr, err := protocol.DecodeRecord(rec.Value)
			if err != nil {
				return stopf("%s/%d@%d: %w", j.topic, j.partition, rec.Offset, err)
			}
			at := protocol.Published{Point: protocol.Point{Seq: jr.Seq, Chain: jr.Chain}, Offset: rec.Offset, LeaderEpoch: rec.LeaderEpoch}
			if err := fn(jr, at); err != nil {
				if errors.Is(err, errEnough) {
					return nil
				}
				return err
			}
		}
	}
	return nil
}

var errEnough = errors.New("enough")

// first reads the journal's first record, which is the genesis unless records
// were deleted.
func (j *journal) first(ctx context.Context, end int64) (g *protocol.Record, at protocol.Published, err error) {
	start, err := j.start(ctx)
	if err != nil {
		return nil, at, err
	}
	err = j.each(ctx, start, -1, end, func(rec *protocol.Record, p protocol.Published) error {
		g, at = rec, p
		return errEnough
	})
	switch {
	case err != nil:
		return nil, at, err
	case g == nil:
		return nil, at, nil
	case g.Kind != protocol.KindGenesis && start == 0:
		return nil, at, stopf("%s/%d: the first record is no genesis: the topic is not this namespace's journal", j.topic, j.partition)
	}
	return g, at, nil
}
