package produce

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// CopyConfig copies topics of one cluster to another, or to other names. From,
// To and Topics are required.
type CopyConfig struct {
	From []kgo.Opt // how to reach the source
	To   *kgo.Client

	// Topics maps source topics to destinations. To partitions by its own rule,
	// or keeps numbers with kgo.ManualPartitioner.
	Topics map[string]string

	KeepTimestamps bool // else, the time of sending; a topic with LogAppendTime sets its own in any case
	Follow         bool // go on at the end until ctx is done; else stop at the ends found at the beginning
	// After is what an earlier run has copied.
	After Checkpoint

	Pace     Pace // its speed is that of record timestamps
	Limit    int64
	Flush    time.Duration
	Progress *Progress
}

// lane is a source partition.
type lane struct {
	topic     string
	partition int32
}

// Copy sends the committed records of the source as they are: key, value and
// headers. Order is kept per source partition, and between partitions it is
// that of record timestamps, as far as they are read.
//
// What is under way when Copy is killed is copied again by the next run, unlike
// anything that its checkpoint covers. Records deleted at the source before
// they were copied are an error.
func Copy(ctx context.Context, cfg CopyConfig) error {
	if cfg.To == nil || len(cfg.Topics) == 0 {
		return errors.New("copying: no destination or no topics")
	}
	p := cfg.Progress
	if p == nil {
		p = new(Progress)
	}
	client, err := kgo.NewClient(append(slices.Clone(cfg.From),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.KeepControlRecords(), // a partition may end with one
		kgo.ConsumeResetOffset(kgo.NoResetOffset()),
	)...)
	if err != nil {
		return fmt.Errorf("connecting to the source: %w", err)
	}
	defer client.CloseAllowingRebalance()
	lanes, err := cfg.lanes(ctx, client)
	if err != nil {
		return err
	}
	p.mu.Lock()
	p.copied = map[lane]*prefix[int64]{}
	from := map[string]map[int32]kgo.Offset{}
	for _, l := range lanes {
		f := new(prefix[int64])
		f.reset(0, l.next)
		p.copied[l.lane] = f
		l.copied = f
		if from[l.topic] == nil {
			from[l.topic] = map[int32]kgo.Offset{}
		}
		from[l.topic][l.partition] = kgo.NewOffset().At(l.next)
	}
	p.mu.Unlock()
	client.AddConsumePartitions(from)
	return deliver(ctx, cfg.To, p, cfg.Pace, cfg.Limit, cfg.Flush, cfg.items(ctx, client, lanes))
}

// source is a lane while it is read.
type source struct {
	lane
	next, end int64 // to be fetched next, and where to stop
	queue     []*kgo.Record
	paused    bool
	copied    *prefix[int64]
}

// lanes finds the source's partitions, where each begins and ends.
func (cfg *CopyConfig) lanes(ctx context.Context, client *kgo.Client) ([]*source, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	admin := kadm.NewClient(client)
	topics := make([]string, 0, len(cfg.Topics))
	for t := range cfg.Topics {
		topics = append(topics, t)
	}
	starts, err := admin.ListStartOffsets(ctx, topics...)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("asking the source where topics begin: %w", err)
	}
	ends, err := admin.ListCommittedOffsets(ctx, topics...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("asking the source where topics end: %w", err)
	}
	var lanes []*source
	var errs []error
	ends.Each(func(end kadm.ListedOffset) {
		start, _ := starts.Lookup(end.Topic, end.Partition)
		l := &source{lane: lane{end.Topic, end.Partition}, next: start.Offset, end: end.Offset}
		if after, ok := cfg.After.Offsets[end.Topic][end.Partition]; ok {
			if l.next = after; after < start.Offset || after > end.Offset {
				errs = append(errs, fmt.Errorf("%s/%d: going on at offset %d, but the source holds %d to %d", end.Topic, end.Partition, after, start.Offset, end.Offset))
			}
		}
		lanes = append(lanes, l)
	})
	return lanes, errors.Join(errs...)
}

// fill and drained bound what is held of a source partition, in records.
const (
	fill    = 5_000
	drained = 1_000
	// quiet is how long a copy that follows waits for a slower partition.
	quiet = 100 * time.Millisecond
)

// items merges the partitions by record timestamp: one is taken when every
// other has one waiting or is read to its end.
func (cfg *CopyConfig) items(ctx context.Context, client *kgo.Client, lanes []*source) iter.Seq2[item, error] {
	byLane := map[lane]*source{}
	for _, l := range lanes {
		byLane[l.lane] = l
	}
	return func(yield func(item, error) bool) {
		for waited := false; ; {
			var first *source
			missing := false
			for _, l := range lanes {
				switch {
				case len(l.queue) == 0:
					missing = missing || cfg.Follow || l.next < l.end
				case first == nil || l.queue[0].Timestamp.Before(first.queue[0].Timestamp):
					first = l
				}
			}
			if first != nil && (!missing || waited) {
				r := first.queue[0]
				first.queue = first.queue[1:]
				if first.paused && len(first.queue) <= drained {
					client.ResumeFetchPartitions(map[string][]int32{first.topic: {first.partition}})
					first.paused = false
				}
				if !yield(cfg.item(first, r), nil) {
					return
				}
				continue
			}
			if first == nil && !missing {
				return
			}
			some, err := poll(ctx, client, byLane, cfg.Follow)
			if err != nil {
				if ctx.Err() == nil {
					yield(item{}, err)
				}
				return
			}
			waited = cfg.Follow && !some
		}
	}
}

// poll reads more; some says whether anything came. With bounded it gives up
// after quiet.
func poll(ctx context.Context, client *kgo.Client, lanes map[lane]*source, bounded bool) (some bool, err error) {
	polling := ctx
	if bounded {
		var cancel context.CancelFunc
		polling, cancel = context.WithTimeout(ctx, quiet)
		defer cancel()
	}
	fetches := client.PollFetches(polling)
	for _, e := range fetches.Errors() {
		if polling.Err() != nil && errors.Is(e.Err, polling.Err()) {
			if ctx.Err() != nil {
				return false, ctx.Err()
			}
			continue
		}
		return false, fmt.Errorf("reading %s/%d of the source: %w", e.Topic, e.Partition, e.Err)
	}
	fetches.EachRecord(func(r *kgo.Record) {
		some = true
		l := lanes[lane{r.Topic, r.Partition}]
		l.next = r.Offset + 1
		if !r.Attrs.IsControl() {
			l.queue = append(l.queue, r)
		}
	})
	for _, l := range lanes {
		if !l.paused && len(l.queue) > fill {
			client.PauseFetchPartitions(map[string][]int32{l.topic: {l.partition}})
			l.paused = true
		}
	}
	return some, nil
}

// item is a source record as it is sent.
func (cfg *CopyConfig) item(l *source, r *kgo.Record) item {
	out := &kgo.Record{Topic: cfg.Topics[r.Topic], Partition: r.Partition, Key: r.Key, Value: r.Value, Headers: r.Headers}
	if cfg.KeepTimestamps {
		out.Timestamp = r.Timestamp
	}
	// A clock that is ahead must not stop the copy until its time has come.
	at := min(r.Timestamp.UnixMilli(), time.Now().UnixMilli())
	return item{out, at, func() func() { return l.copied.add(r.Offset + 1) }}
}
