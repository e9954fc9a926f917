package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/tierstream/tierstream/internal/customer"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/scoring"
)

// naive is what one writes first: for every event a GET, the same fold and
// score as the consumer's, and a SET. It may lose or repeat changes, and two
// owners would overwrite each other; none of that is paid for here.
func (w *work) naive(ctx context.Context, loops int) (*Result, error) {
	if err := w.createTopics(ctx); err != nil {
		return nil, err
	}
	var (
		left    atomic.Int64
		changes atomic.Int64
		r       = &Result{Events: w.Events}
		ls      = make([]*naiveLoop, loops)
	)
	left.Store(w.Events)
	for i := range ls {
		l, err := w.newNaiveLoop(i, loops)
		if err != nil {
			return nil, err
		}
		defer l.client.Close()
		l.left, l.changes = &left, &changes
		ls[i] = l
		if err := errors.Join(l.client.Ping(ctx), w.rdb.Ping(ctx).Err()); err != nil {
			return nil, fmt.Errorf("connecting: %w", err)
		}
	}
	m := w.start()
	g, gctx := errgroup.WithContext(ctx)
	for _, l := range ls {
		g.Go(func() error { return l.run(gctx) })
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	m.stop(r)
	r.Changes, r.Used = changes.Load(), w.Events
	return r, nil
}

type naiveLoop struct {
	client        *kgo.Client
	rdb           redis.UniversalClient
	topic, prefix string
	model         *scoring.Model
	folder        *customer.Folder
	decoder       *event.Decoder
	left, changes *atomic.Int64

	failed error
	mu     sync.Mutex
}

// newNaiveLoop reads every loops-th partition from the i-th on.
func (w *work) newNaiveLoop(i, loops int) (*naiveLoop, error) {
	rs := rules()
	at := map[string]map[int32]kgo.Offset{}
	for _, t := range inputs {
		at[t] = map[int32]kgo.Offset{}
		for p := int32(i); p < w.Partitions; p += int32(loops) {
			at[t][p] = kgo.NewOffset().AtStart()
		}
	}
	f, err := customer.NewFolder(rs.Policy, rs.Model.Calendar(), rs.Model.WindowDays())
	if err != nil {
		return nil, err
	}
	cl, err := w.client(kgo.ConsumePartitions(at), kgo.ProducerBatchCompression(kgo.Lz4Compression()), kgo.ProducerLinger(10*time.Millisecond))
	if err != nil {
		return nil, err
	}
	return &naiveLoop{
		client: cl, rdb: w.rdb, topic: w.topics().Changes, prefix: w.Namespace + ":",
		model: rs.Model, folder: f, decoder: event.NewDecoder(rs.Limits),
	}, nil
}

func (l *naiveLoop) run(ctx context.Context) error {
	var (
		rec     customer.Record
		ev      event.Event
		summary scoring.Summary
		headers []event.Header
		value   []byte
	)
	promise := func(r *kgo.Record, err error) {
		if err != nil {
			l.mu.Lock()
			l.failed = errors.Join(l.failed, fmt.Errorf("producing to %s: %w", r.Topic, err))
			l.mu.Unlock()
		}
	}
	for l.left.Load() > 0 {
		// A loop whose partitions are read to their end must notice that the
		// others have finished.
		c, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		fs := l.client.PollFetches(c)
		cancel()
		if err := fetchErrors(ctx, fs); err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		for it := fs.RecordIter(); !it.Done(); {
			r := it.Next()
			if l.left.Add(-1) < 0 {
				break
			}
			headers = headers[:0]
			for _, h := range r.Headers {
				headers = append(headers, event.Header(h))
			}
			msg := event.Message{Key: r.Key, Value: r.Value, Headers: headers, Timestamp: r.Timestamp.UnixMilli()}
			if refusal := l.decoder.Decode(&msg, &ev); refusal != nil {
				return fmt.Errorf("decoding %s/%d@%d: %s", r.Topic, r.Partition, r.Offset, refusal.Code)
			}
			key := l.prefix + ev.Customer
			stored, err := l.rdb.Get(ctx, key).Bytes()
			switch {
			case errors.Is(err, redis.Nil):
				rec.Reset()
			case err != nil:
				return fmt.Errorf("loading customer %s: %w", ev.Customer, err)
			default:
				if err := customer.Decode(stored, &rec); err != nil {
					return fmt.Errorf("loading customer %s: %w", ev.Customer, err)
				}
			}
			l.folder.Apply(&rec, &ev)
			st := &rec.Standing
			at := max(st.Clock, ev.Time)
			l.folder.Summarize(&rec, at, &summary)
			m := l.model.Measure(&summary)
			st.Clock = at
			prev := st.Tier
			tier := l.model.Decide(int(prev), &summary, m.Score)
			moved := tier != int(prev)
			if moved {
				st.Tier, st.Since = int8(tier), at
				st.Sequence++
			}
			value = rec.Append(value[:0])
			if err := l.rdb.Set(ctx, key, value, 0).Err(); err != nil {
				return fmt.Errorf("storing customer %s: %w", ev.Customer, err)
			}
			if moved {
				l.changes.Add(1)
				l.client.Produce(ctx, &kgo.Record{Topic: l.topic, Key: []byte(ev.Customer), Value: fmt.Appendf(nil,
					`{"customer_id":%q,"sequence":%d,"previous_tier":%d,"new_tier":%d,"score_after":%d,"cause":%q}`,
					ev.Customer, st.Sequence, prev, tier, m.Score, ev.ID)}, promise)
			}
		}
	}
	if err := l.client.Flush(ctx); err != nil {
		return fmt.Errorf("producing: %w", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}
