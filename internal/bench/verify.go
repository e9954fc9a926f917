package bench

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/customer"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/protocol"
)

// verify checks what the full job left in Redis and Kafka against the last
// journal record of each partition.
func (w *work) verify(ctx context.Context, last []*protocol.Record, r *Result) error {
	var read int64
	for p, j := range last {
		if j == nil {
			return fmt.Errorf("verifying partition %d: no journal", p)
		}
		r.Batches += int64(j.Seq)
		read += j.State.Read
		if err := w.verifyPartition(ctx, int32(p), j, r); err != nil {
			return fmt.Errorf("verifying partition %d: %w", p, err)
		}
	}
	if read != w.Events {
		return fmt.Errorf("verifying: %d records read, %d were sent", read, w.Events)
	}
	changes, err := w.verifyChanges(ctx)
	if err != nil {
		return fmt.Errorf("verifying tier changes: %w", err)
	}
	r.Changes = changes
	r.Verified = []string{
		fmt.Sprintf("records read = events sent (%d)", read),
		"applied + duplicate + ignored + waiting + dead letters = records read, in every partition",
		"journal end = fence (sequence and chain), in every partition",
		fmt.Sprintf("digest of the %d stored customers = digest in the journal", r.Customers),
		fmt.Sprintf("the %d committed tier changes are numbered without gap or repetition per customer", changes),
	}
	return nil
}

func (w *work) verifyPartition(ctx context.Context, p int32, j *protocol.Record, r *Result) error {
	s := w.store(p)
	var sum customer.Digest
	f, err := s.Each(ctx, func(id string, value []byte) error {
		hi, lo := customer.Sum(id, value)
		sum = sum.Add(customer.Digest{hi, lo})
		r.Customers++
		return nil
	})
	switch {
	case err != nil:
		return err
	case f == nil:
		return errors.New("no fence")
	case f.Seq != j.Seq || f.Chain != j.Chain:
		return fmt.Errorf("the fence stands at %d, the journal ends at %d", f.Seq, j.Seq)
	case sum.Bytes() != j.State.Digest || f.State.Digest != j.State.Digest:
		return errors.New("the digest of the stored customers is not the journal's")
	}
	var counted int64
	for i, n := range f.State.Counters {
		switch event.Code(i).Outcome() {
		case event.Warned: // counted beside the outcome
		case event.Used:
			r.Used += n
			counted += n
		default:
			counted += n
		}
	}
	if counted != f.State.Read {
		return fmt.Errorf("%d records read, %d accounted for", f.State.Read, counted)
	}
	return nil
}

// verifyChanges reads the committed tier changes to their end: each customer's
// are numbered 1, 2, 3, …
func (w *work) verifyChanges(ctx context.Context) (n int64, err error) {
	cl, err := w.client(
		kgo.ConsumeTopics(w.topics().Changes), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(), kgo.FetchMaxWait(100*time.Millisecond))
	if err != nil {
		return 0, err
	}
	defer cl.Close()
	ends, err := kadm.NewClient(cl).ListCommittedOffsets(ctx, w.topics().Changes)
	if err != nil {
		return 0, fmt.Errorf("asking for their end: %w", err)
	}
	left := map[int32]int64{} // offset after the last one, of partitions not yet read to their end
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			left[o.Partition] = o.Offset
		}
	})
	seen := map[string]uint64{}
	for len(left) > 0 {
		fs := cl.PollFetches(ctx)
		if err := fetchErrors(ctx, fs); err != nil {
			return 0, err
		}
		for it := fs.RecordIter(); !it.Done(); {
			rec := it.Next()
			if rec.Offset+1 >= left[rec.Partition] {
				delete(left, rec.Partition)
			}
			if rec.Attrs.IsControl() {
				continue
			}
			n++
			for _, h := range rec.Headers {
				if h.Key != "ce_customerseq" {
					continue
				}
				seq, err := strconv.ParseUint(string(h.Value), 10, 64)
				if err != nil {
					return 0, err
				}
				if id := string(rec.Key); seq != seen[id]+1 {
					return 0, fmt.Errorf("customer %s: %d after %d", id, seq, seen[id])
				}
				seen[string(rec.Key)] = seq
			}
		}
	}
	if len(seen) == 0 {
		return 0, errors.New("there are none")
	}
	return n, nil
}
