package stream

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/protocol"
)

// reader reads partition p of all inputs by direct consumption, from given
// positions, and hands the records out merged by record timestamp. It never
// resets a position: a log that does not hold what it should is an error.
type reader struct {
	client    *kgo.Client
	admin     *kadm.Client
	topics    []string
	index     map[string]int
	partition int32
	max       int // bytes buffered per topic before its fetching pauses
	// behind: what is read was read before. That it is gone is not the end: a
	// rebase does without.
	behind bool

	queues  []queue
	end     []int64 // read-committed end offsets, as of the last look
	waiting time.Time
}

// queue is what is read of one topic and not yet taken.
type queue struct {
	records []*kgo.Record
	bytes   int // memory held by records
	// position is where reading stands: the offset after the last record or
	// control record that a poll returned.
	position int64
	epoch    int32
	paused   bool
}

func newReader(base []kgo.Opt, topics []string, p int32, from []protocol.Position, maxBytes int) (*reader, error) {
	r := &reader{topics: topics, partition: p, max: maxBytes, index: map[string]int{}, queues: make([]queue, len(topics))}
	at := map[string]map[int32]kgo.Offset{}
	for i, t := range topics {
		r.index[t] = i
		r.queues[i] = queue{position: from[i].Next, epoch: from[i].LeaderEpoch}
		o := kgo.NewOffset().At(from[i].Next)
		if from[i].LeaderEpoch >= 0 {
			o = o.WithEpoch(from[i].LeaderEpoch)
		}
		at[t] = map[int32]kgo.Offset{p: o}
	}
	cl, err := kgo.NewClient(append(base[:len(base):len(base)],
		kgo.ConsumePartitions(at),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // they move the position: without them "read to the end" could not be told
		kgo.FetchMaxWait(250*time.Millisecond),
		kgo.FetchMaxPartitionBytes(1<<20), // as sent, hence compressed: a multiple of it in memory
	)...)
	if err != nil {
		return nil, fmt.Errorf("opening the input reader: %w", err)
	}
	r.client, r.admin = cl, kadm.NewClient(cl)
	return r, nil
}

func (r *reader) close() { r.client.CloseAllowingRebalance() }

// poll takes what has arrived. With a deadline it waits for something to
// arrive until then; its passing is no error.
func (r *reader) poll(ctx context.Context, wait time.Duration) error {
	var fs kgo.Fetches
	if wait <= 0 {
		fs = r.client.PollRecords(nil, 0) //nolint:staticcheck // a nil context is how kgo is asked not to wait
	} else {
		c, cancel := context.WithTimeout(ctx, wait)
		fs = r.client.PollRecords(c, 0)
		cancel()
	}
	for _, e := range fs.Errors() {
		if errors.Is(e.Err, context.DeadlineExceeded) || errors.Is(e.Err, context.Canceled) {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			continue
		}
		return r.fetchError(e)
	}
	fs.EachPartition(func(ftp kgo.FetchTopicPartition) {
		i, ok := r.index[ftp.Topic]
		if !ok || ftp.Partition != r.partition {
			return
		}
		q := &r.queues[i]
		for _, rec := range ftp.Records {
			q.position, q.epoch = rec.Offset+1, rec.LeaderEpoch
			if rec.Attrs.IsControl() {
				continue
			}
			q.records = append(q.records, rec)
			q.bytes += held(rec)
		}
	})
	for i := range r.queues {
		q := &r.queues[i]
		switch tp := map[string][]int32{r.topics[i]: {r.partition}}; {
		case q.bytes > r.max && !q.paused:
			r.client.PauseFetchPartitions(tp)
			q.paused = true
		case q.bytes <= r.max/2 && q.paused:
			r.client.ResumeFetchPartitions(tp)
			q.paused = false
		}
	}
	return nil
}

// held is the memory that a buffered record takes, about: of small events the
// client's structures take more than the bytes that were sent.
func held(r *kgo.Record) int {
	const record, header = 200, 40 // kgo.Record with its pointer, kgo.RecordHeader
	return size(r) + record + header*len(r.Headers)
}

// size is what a record has on the wire, about.
func size(r *kgo.Record) int {
	n := len(r.Key) + len(r.Value) + 64
	for _, h := range r.Headers {
		n += len(h.Key) + len(h.Value)
	}
	return n
}

// fetchError tells what must stop a partition from what passes.
func (r *reader) fetchError(e kgo.FetchError) error {
	var lost *kgo.ErrDataLoss
	switch {
	case errors.As(e.Err, &lost):
		return stopf("Kafka lost records of %s/%d: it was read up to offset %d and now ends at %d", lost.Topic, lost.Partition, lost.ConsumedTo, lost.ResetTo)
	case errors.Is(e.Err, kerr.OffsetOutOfRange) && r.behind:
		return fmt.Errorf("%s/%d at offset %d: %w", e.Topic, e.Partition, r.queues[r.index[e.Topic]].position, errDeleted)
	case errors.Is(e.Err, kerr.OffsetOutOfRange):
		return stopf("%s/%d does not hold offset %d any more (or not yet again): the log was truncated below what was applied, or deleted by retention before it was read", e.Topic, e.Partition, r.queues[r.index[e.Topic]].position)
	case errors.Is(e.Err, kerr.UnknownTopicOrPartition), errors.Is(e.Err, kerr.UnknownTopicID):
		return fmt.Errorf("reading %s/%d: the topic is gone: %w", e.Topic, e.Partition, e.Err)
	default:
		return fmt.Errorf("reading %s/%d: %w", e.Topic, e.Partition, e.Err)
	}
}

// look asks for the inputs' read-committed ends. Only a look taken after the
// last poll can tell that a topic is read to its end.
func (r *reader) look(ctx context.Context) error {
	ends, err := r.admin.ListCommittedOffsets(ctx, r.topics...)
	if err != nil {
		return fmt.Errorf("asking for the ends of the inputs: %w", err)
	}
	r.end = make([]int64, len(r.topics))
	for i, t := range r.topics {
		o, ok := ends.Lookup(t, r.partition)
		if !ok {
			return fmt.Errorf("asking for the end of %s/%d: no answer", t, r.partition)
		}
		if kerr.IsRetriable(o.Err) {
			r.end = nil // after an election: not known for a moment
			return nil
		}
		if o.Err != nil {
			return fmt.Errorf("asking for the end of %s/%d: %w", t, r.partition, o.Err)
		}
		if o.Offset < r.queues[i].position {
			return stopf("%s/%d ends at %d, but was read up to %d: Kafka lost records", t, r.partition, o.Offset, r.queues[i].position)
		}
		r.end[i] = o.Offset
	}
	return nil
}

// atEnd: nothing is buffered of topic i, and by the last look nothing is left.
func (r *reader) atEnd(i int) bool {
	return len(r.queues[i].records) == 0 && r.end != nil && r.queues[i].position >= r.end[i]
}

// taken is what one batch reads.
type taken struct {
	records []*kgo.Record // merged
	topic   []int         // of each record
	next    []protocol.Position
	// complete: every input is read to its end or has records waiting, so that
	// the sweep limit may move; oldest is the smallest timestamp of any record
	// not yet applied, this batch's included (math.MaxInt64 when there is none).
	complete bool
	oldest   int64
	// asOf is the time at which it was asked where the inputs end
	// (math.MaxInt64 when it was not).
	asOf int64
}

// take hands out the next batch: records in the order of their timestamps,
// ties by topic, never reordered within a topic. A record is taken only when
// every other input has a record waiting or is read to its end; an input that
// is neither holds the others up until mergeWait has passed. It returns
// without records after at most idle.
func (r *reader) take(ctx context.Context, next []protocol.Position, maxRecords, maxBytes int, idle, mergeWait time.Duration, now func() time.Time) (*taken, error) {
	wait := time.Duration(0)
	if r.buffered() == 0 {
		wait = idle
	}
	if err := r.poll(ctx, wait); err != nil {
		return nil, err
	}
	asOf := int64(math.MaxInt64)
	if len(r.topics) > 1 || r.buffered() == 0 {
		asOf = now().UnixMilli()
		// One question answers for all topics; a single busy topic needs none.
		if err := r.look(ctx); err != nil {
			return nil, err
		}
	}
	patient := r.waiting.IsZero() || now().Sub(r.waiting) < mergeWait
	counts := make([]int, len(r.queues))
	n, bytes := 0, 0
	blocked := false
	for n < maxRecords && bytes < maxBytes {
		best := -1
		for i := range r.queues {
			q := &r.queues[i]
			if counts[i] == len(q.records) {
				if patient && len(r.queues) > 1 && (r.end == nil || q.position < r.end[i]) {
					blocked = true // it may still hold an older record
				}
				continue
			}
			if best < 0 || q.records[counts[i]].Timestamp.Before(r.queues[best].records[counts[best]].Timestamp) {
				best = i
			}
		}
		if best < 0 || blocked {
			break
		}
		bytes += size(r.queues[best].records[counts[best]])
		counts[best]++
		n++
	}
	if n == 0 && blocked {
		if r.waiting.IsZero() {
			r.waiting = now()
		}
		// Do not spin: whatever is missing comes with the next fetch.
		if err := r.poll(ctx, min(mergeWait, 20*time.Millisecond)); err != nil {
			return nil, err
		}
	} else {
		r.waiting = time.Time{}
	}
	t := r.pop(counts, next)
	t.complete, t.oldest, t.asOf = true, math.MaxInt64, asOf
	for i := range r.queues {
		if counts[i] == 0 && !r.atEnd(i) && len(r.queues[i].records) == 0 {
			t.complete = false
		}
		if q := r.queues[i].records; len(q) > 0 {
			t.oldest = min(t.oldest, q[0].Timestamp.UnixMilli())
		}
	}
	for _, rec := range t.records {
		t.oldest = min(t.oldest, rec.Timestamp.UnixMilli())
	}
	return t, nil
}

// exactly hands out the batch that ends at the given positions, as a journal
// record says it was.
func (r *reader) exactly(ctx context.Context, next, upTo []protocol.Position) (*taken, error) {
	counts := make([]int, len(r.queues))
	for {
		missing := false
		for i := range r.queues {
			q := &r.queues[i]
			for counts[i] < len(q.records) && q.records[counts[i]].Offset < upTo[i].Next {
				counts[i]++
			}
			if upTo[i].Next > next[i].Next && q.position < upTo[i].Next {
				missing = true
			}
		}
		if !missing {
			break
		}
		if err := r.poll(ctx, time.Second); err != nil {
			return nil, err
		}
		// What re-applying needs may exceed the buffer of another topic.
		for i := range r.queues {
			if q := &r.queues[i]; q.paused {
				r.client.ResumeFetchPartitions(map[string][]int32{r.topics[i]: {r.partition}})
				q.paused = false
			}
		}
	}
	t := r.pop(counts, next)
	for i := range upTo {
		if t.next[i].Next != upTo[i].Next {
			return nil, stopf("%s/%d holds no record at offset %d, which the journal says was applied: Kafka lost records, or compaction or deletion removed them", r.topics[i], r.partition, upTo[i].Next-1)
		}
	}
	return t, nil
}

// until hands out at most max records below the ends, in the order of their
// timestamps as take does; none when all are read.
func (r *reader) until(ctx context.Context, next, ends []protocol.Position, max int) (*taken, error) {
	short := func(i, n int) bool { return n == len(r.queues[i].records) && r.queues[i].position < ends[i].Next }
	for {
		missing := false
		for i := range r.queues {
			missing = missing || short(i, 0)
		}
		if !missing {
			break
		}
		if err := r.poll(ctx, time.Second); err != nil {
			return nil, err
		}
	}
	counts := make([]int, len(r.queues))
	for n := 0; n < max; n++ {
		best := -1
		for i := range r.queues {
			q := r.queues[i].records[counts[i]:]
			if len(q) == 0 && short(i, counts[i]) {
				return r.pop(counts, next), nil // an older record may come
			}
			if len(q) == 0 || q[0].Offset >= ends[i].Next {
				continue
			}
			if best < 0 || q[0].Timestamp.Before(r.queues[best].records[counts[best]].Timestamp) {
				best = i
			}
		}
		if best < 0 {
			break
		}
		counts[best]++
	}
	return r.pop(counts, next), nil
}

func (r *reader) buffered() int {
	n := 0
	for i := range r.queues {
		n += len(r.queues[i].records)
	}
	return n
}

// pop removes that many records from each queue and merges them. The order
// depends on the records alone, so that a re-apply of the same offsets gives
// the same.
func (r *reader) pop(counts []int, next []protocol.Position) *taken {
	t := &taken{next: append([]protocol.Position(nil), next...)}
	total := 0
	for _, c := range counts {
		total += c
	}
	t.records = make([]*kgo.Record, 0, total)
	t.topic = make([]int, 0, total)
	at := make([]int, len(counts))
	for range total {
		best := -1
		for i := range counts {
			if at[i] < counts[i] && (best < 0 || r.queues[i].records[at[i]].Timestamp.Before(r.queues[best].records[at[best]].Timestamp)) {
				best = i
			}
		}
		rec := r.queues[best].records[at[best]]
		at[best]++
		t.records = append(t.records, rec)
		t.topic = append(t.topic, best)
		t.next[best] = protocol.Position{Next: rec.Offset + 1, LeaderEpoch: rec.LeaderEpoch}
		r.queues[best].bytes -= held(rec)
	}
	for i, c := range counts {
		q := &r.queues[i]
		clear(q.records[:c])
		q.records = q.records[c:]
		if len(q.records) == 0 {
			q.records = nil
		}
	}
	return t
}
