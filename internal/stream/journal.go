package stream

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/protocol"
)

// journal reads one partition of the journal topic.
type journal struct {
	base      []kgo.Opt // of the clients that read it
	admin     *kadm.Client
	topic     string
	partition int32
}

// end is where the journal partition ends. The read-committed and the
// read-uncommitted end must agree: as long as they do not, a transaction is
// open and what is published is not known.
func (j *journal) end(ctx context.Context, wait time.Duration) (int64, error) {
	deadline := time.Now().Add(wait)
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
		if err := errors.Join(c.Err, a.Err); err != nil {
			return 0, fmt.Errorf("asking for the end of %s/%d: %w", j.topic, j.partition, err)
		}
		if c.Offset == a.Offset {
			return c.Offset, nil
		}
		if time.Now().After(deadline) {
			return 0, stopf("a transaction in %s/%d does not end (committed up to %d, written up to %d), although its producer was fenced", j.topic, j.partition, c.Offset, a.Offset)
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
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

// scan reads the journal as protocol.Scan wants it, looking for the point r.
func (j *journal) scan(ctx context.Context, m *protocol.Machine, wait time.Duration) (s protocol.Scan, err error) {
	end, err := j.end(ctx, wait)
	if err != nil {
		return s, err
	}
	from, epoch, begin := m.ScanFrom()
	if s.Start, err = j.start(ctx); err != nil {
		return s, err
	}
	if begin && s.Start > 0 {
		return s, stopf("the journal %s/%d begins at offset %d: its first records were deleted, so the state cannot be rebuilt from it", j.topic, j.partition, s.Start)
	}
	s.K.LeaderEpoch, s.Empty, s.Whole = -1, true, begin
	if !begin && from >= end {
		return s, nil // the published record is gone; the machine says what that means
	}
	published := m.Known()
	err = j.each(ctx, from, epoch, end, func(rec *protocol.Record, at protocol.Published) error {
		if at.Offset == published.Offset {
			s.FirstAt = &at.Point
		}
		if s.Empty && rec.Kind == protocol.KindGenesis {
			s.Genesis = rec
		}
		s.Empty = false
		s.Anchored = s.Anchored || rec.Origin() != nil
		if at.Point == m.Identity().Point && !m.Identity().Loading {
			s.R, s.Found = at, true
		}
		s.K = at
		return nil
	})
	return s, err
}

// genesis reads the journal's first record; nil when the journal is empty.
func (j *journal) genesis(ctx context.Context) (g *protocol.Record, at protocol.Published, err error) {
	ends, err := j.admin.ListCommittedOffsets(ctx, j.topic)
	if err != nil {
		return nil, at, fmt.Errorf("reading the genesis: %w", err)
	}
	o, ok := ends.Lookup(j.topic, j.partition)
	if !ok || o.Err != nil {
		return nil, at, fmt.Errorf("reading the genesis of %s/%d: %w", j.topic, j.partition, o.Err)
	}
	err = j.each(ctx, 0, -1, o.Offset, func(rec *protocol.Record, p protocol.Published) error {
		g, at = rec, p
		return errEnough
	})
	if err != nil {
		return nil, at, err
	}
	if g != nil && g.Kind != protocol.KindGenesis {
		return nil, at, stopf("%s/%d: the first record is no genesis: the topic is not this namespace's journal", j.topic, j.partition)
	}
	return g, at, nil
}
