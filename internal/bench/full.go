package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/pprof"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/sdk/metric"
	"golang.org/x/sync/errgroup"

	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/stream"
)

// full runs the consumer until the journal says that everything is applied and
// published, and then verifies what it left.
func (w *work) full(ctx context.Context) (_ *Result, err error) {
	otel.SetMeterProvider(metric.NewMeterProvider(metric.WithReader(metric.NewManualReader())))
	p, err := stream.New(stream.Config{
		Namespace: w.Namespace, Topics: w.topics(), Rules: rules(), Engine: "bench",
		Lease: lease, BatchRecords: batchRecords, CacheBytes: w.CacheMB << 20,
		Kafka: w.kafka, Log: logger(),
		Store: func(n int32) stream.Store { return w.store(n) },
	})
	if err != nil {
		return nil, err
	}
	if err := w.createTopics(ctx); err != nil {
		return nil, err
	}
	watch, err := w.newWatcher()
	if err != nil {
		return nil, err
	}
	defer watch.client.Close()

	running, stop := context.WithCancel(ctx)
	defer stop()
	g, gctx := errgroup.WithContext(running)
	g.Go(func() error { return p.Run(gctx) })
	g.Go(func() error { return watch.run(gctx) })

	if w.Profile != "" {
		f, err := os.Create(w.Profile)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		if err := pprof.StartCPUProfile(f); err != nil {
			return nil, err
		}
		defer pprof.StopCPUProfile()
	}
	r := &Result{Events: w.Events}
	fail := func(err error) (*Result, error) {
		stop()
		return nil, errors.Join(err, g.Wait())
	}
	look := time.NewTicker(2 * time.Millisecond)
	defer look.Stop()
	var (
		m       *meter
		sampled time.Time
	)
	for done := false; !done; {
		select {
		case <-gctx.Done():
			return fail(ctx.Err())
		case <-watch.complete:
			done = true
		case <-look.C:
		}
		if m == nil && p.Totals().Running > 0 {
			m = w.start()
		}
		for n, err := range p.Stopped() {
			return fail(fmt.Errorf("partition %d stopped: %w", n, err))
		}
		if w.Sample > 0 && (done || time.Since(sampled) >= w.Sample) {
			sampled = time.Now()
			r.Samples = append(r.Samples, sample(watch.read.Load()))
		}
	}
	if m == nil {
		return fail(errors.New("everything was processed before any partition was seen running"))
	}
	m.stop(r)
	if w.Profile != "" {
		pprof.StopCPUProfile()
	}
	stop()
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return r, w.verify(ctx, watch.last, r)
}

// watcher follows the committed journal.
type watcher struct {
	client   *kgo.Client
	want     int64
	read     atomic.Int64 // records applied and published, over all partitions
	complete chan struct{}

	last []*protocol.Record // by partition; run's until it has returned
}

func (w *work) newWatcher() (*watcher, error) {
	cl, err := w.client(
		kgo.ConsumeTopics(w.topics().Journal), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.FetchMaxWait(500*time.Millisecond))
	if err != nil {
		return nil, err
	}
	return &watcher{client: cl, want: w.Events, complete: make(chan struct{}), last: make([]*protocol.Record, w.Partitions)}, nil
}

// run ends when the journal has come to as many records as were expected.
func (w *watcher) run(ctx context.Context) error {
	for {
		fs := w.client.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err := fetchErrors(ctx, fs); err != nil {
			return err
		}
		for it := fs.RecordIter(); !it.Done(); {
			rec := it.Next()
			j, err := protocol.DecodeRecord(rec.Value)
			if err != nil {
				return err
			}
			if l := w.last[rec.Partition]; l != nil && j.Seq != l.Seq+1 {
				return fmt.Errorf("the journal of partition %d goes from %d to %d", rec.Partition, l.Seq, j.Seq)
			}
			w.last[rec.Partition] = j
		}
		var sum int64
		for _, j := range w.last {
			if j != nil {
				sum += j.State.Read
			}
		}
		w.read.Store(sum)
		if sum > w.want {
			return fmt.Errorf("%d records read of %d", sum, w.want)
		}
		if sum == w.want {
			close(w.complete)
			return nil
		}
	}
}
