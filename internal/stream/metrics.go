package stream

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/protocol"
)

// metrics are documented, each with what to do when it moves, in
// docs/metrics.md.
type metrics struct {
	records     metric.Int64Counter
	changes     metric.Int64Counter
	batches     metric.Int64Counter
	stageTime   metric.Float64Histogram
	rejections  metric.Int64Counter
	sessions    metric.Int64Counter
	stops       metric.Int64Counter
	aborts      metric.Int64Counter
	reapplied   metric.Int64Counter
	rebuilds    metric.Int64Counter
	markers     metric.Int64Counter
	rebases     metric.Int64Counter
	corrections metric.Int64Counter
	swept       metric.Int64Counter
	delay       metric.Float64Histogram

	stages map[string]metric.MeasurementOption
	codes  [event.NumCodes]attribute.KeyValue
	meter  metric.Meter
}

func newMetrics() (*metrics, error) {
	m := &metrics{meter: otel.Meter(scope), stages: map[string]metric.MeasurementOption{}}
	var errs []error
	counter := func(name, unit, text string) metric.Int64Counter {
		c, err := m.meter.Int64Counter(name, metric.WithUnit(unit), metric.WithDescription(text))
		errs = append(errs, err)
		return c
	}
	m.records = counter("tierstream.records", "{record}", "Records read, by what became of them.")
	m.changes = counter("tierstream.tier_changes", "{change}", "Tier changes decided.")
	m.batches = counter("tierstream.batches", "{batch}", "Batches applied.")
	m.rejections = counter("tierstream.fence.rejections", "{rejection}", "Scripts that the fence refused.")
	m.sessions = counter("tierstream.sessions.restarted", "{session}", "Sessions that ended and were begun anew.")
	m.stops = counter("tierstream.partition.stops", "{stop}", "Partitions that stopped and need attention.")
	m.aborts = counter("tierstream.transactions.failed", "{transaction}", "Transactions that did not surely commit.")
	m.reapplied = counter("tierstream.records.reapplied", "{record}", "Records re-applied silently after Redis lost state.")
	m.markers = counter("tierstream.markers", "{marker}", "Markers of decided transactions that Kafka had left out and the owner wrote.")
	m.rebuilds = counter("tierstream.rebuilds", "{rebuild}", "Rebuilds of a partition's state, by why it could not be continued.")
	m.rebases = counter("tierstream.rebases", "{rebase}", "Rebases: the journal could not be re-applied, by why.")
	m.corrections = counter("tierstream.corrections", "{change}", "Tier changes that a rebase decided, because what is left differs from what was published.")
	m.swept = counter("tierstream.timers.swept", "{customer}", "Customers evaluated because their due time had come.")
	seconds := func(name, text string, buckets ...float64) metric.Float64Histogram {
		h, err := m.meter.Float64Histogram(name, metric.WithUnit("s"), metric.WithDescription(text), metric.WithExplicitBucketBoundaries(buckets...))
		errs = append(errs, err)
		return h
	}
	m.stageTime = seconds("tierstream.stage.duration", "Time of one batch in each stage: read, decode, load, fold, apply, publish.",
		.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5)
	m.delay = seconds("tierstream.publish.delay", "From the oldest record of a batch, as Kafka appended it, to the commit of what the batch decided.",
		.01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60, 300, 1800, 3600)
	for _, s := range []string{"read", "decode", "load", "fold", "apply", "publish"} {
		m.stages[s] = metric.WithAttributeSet(attribute.NewSet(attribute.String("stage", s)))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	for i := range event.NumCodes {
		// Every code exists from the start, at zero.
		m.codes[i] = attribute.String("code", event.Code(i).String())
		m.records.Add(context.Background(), 0, metric.WithAttributes(m.codes[i]))
	}
	for _, c := range protocol.Causes() {
		if c < protocol.LogTruncated {
			m.rebuilds.Add(context.Background(), 0, causeOf(c))
		} else {
			m.rebases.Add(context.Background(), 0, causeOf(c))
		}
	}
	return m, nil
}

func causeOf(c protocol.Cause) metric.MeasurementOption {
	return metric.WithAttributes(attribute.String("cause", c.String()))
}

// zero makes a partition's counters exist from the moment it is assigned.
func (m *metrics) zero(attrs metric.MeasurementOption) {
	for _, c := range []metric.Int64Counter{m.changes, m.batches, m.rejections, m.sessions, m.stops, m.aborts, m.reapplied, m.corrections, m.swept} {
		c.Add(context.Background(), 0, attrs)
	}
}

// observe registers what is read from the partitions' status when asked.
func (m *metrics) observe(p *Processor) error {
	gauge := func(name, unit, text string) (metric.Int64ObservableGauge, error) {
		return m.meter.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(text))
	}
	lag, err1 := gauge("tierstream.lag.records", "{record}", "Records of the inputs not yet applied, at the last look.")
	bytes, err8 := gauge("tierstream.outbox.size", "By", "Bytes applied but not known to be published.")
	outbox, err2 := gauge("tierstream.outbox.batches", "{batch}", "Batches applied but not known to be published.")
	held, err3 := gauge("tierstream.returns.waiting", "{return}", "Returns that wait for their order.")
	run, err4 := gauge("tierstream.partition.running", "{partition}", "1 while the partition is owned and processed here.")
	cut, err5 := gauge("tierstream.partition.degraded", "{partition}", "1 when the log alone does not explain the partition's state, because it was rebased.")
	left, err6 := gauge("tierstream.rebuild.batches_left", "{batch}", "Batches to re-apply until the state is what was published.")
	seconds := func(name, text string) (metric.Float64ObservableGauge, error) {
		return m.meter.Float64ObservableGauge(name, metric.WithUnit("s"), metric.WithDescription(text))
	}
	skew, err7 := seconds("tierstream.clock.skew", "By how much this machine's clock is ahead of Redis'.")
	age, err9 := seconds("tierstream.lag.age", "Since Kafka appended the oldest record that is not yet applied; 0 when all are.")
	overdue, err10 := seconds("tierstream.timers.overdue", "By how much the partition's clock is past the earliest due time that is not yet swept.")
	if err := errors.Join(err1, err2, err3, err4, err5, err6, err7, err8, err9, err10); err != nil {
		return err
	}
	_, err := m.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, st := range p.status {
			st.mu.Lock()
			at := st.attrs.(metric.ObserveOption)
			o.ObserveInt64(lag, st.lag, at)
			o.ObserveInt64(bytes, int64(st.pending), at)
			o.ObserveFloat64(age, st.age(p.cfg.Now()).Seconds(), at)
			o.ObserveFloat64(overdue, st.overdue.Seconds(), at)
			o.ObserveInt64(outbox, int64(st.seq-min(st.seq, st.pubSeq)), at)
			if len(st.last.Counters) > int(event.Waiting) {
				o.ObserveInt64(held, st.last.Counters[event.Waiting], at)
			}
			var on int64
			if st.name == statusRunning {
				on = 1
			}
			o.ObserveInt64(run, on, at)
			on = 0
			if st.cut.Seq > 0 {
				on = 1
			}
			o.ObserveInt64(cut, on, at)
			o.ObserveInt64(left, int64(st.total-min(st.total, st.done)), at)
			st.mu.Unlock()
		}
		o.ObserveFloat64(skew, p.ahead.Seconds())
		return nil
	}, lag, age, overdue, bytes, outbox, held, run, cut, left, skew)
	return err
}

func (m *metrics) stage(ctx context.Context, name string, began time.Time) {
	m.stageTime.Record(ctx, time.Since(began).Seconds(), m.stages[name])
}

// published takes the times from Kafka's first record of each batch to now,
// when what it decided is committed.
func (m *metrics) published(ctx context.Context, now time.Time, flights []flight) {
	for _, f := range flights {
		if !f.oldest.IsZero() {
			m.delay.Record(ctx, now.Sub(f.oldest).Seconds())
		}
	}
}

func (m *metrics) batch(ctx context.Context, attrs metric.MeasurementOption, out *fold.Output) {
	m.batches.Add(ctx, 1, attrs)
	if out.Changes > 0 {
		m.changes.Add(ctx, int64(out.Changes), attrs)
	}
	for i, n := range out.Counts {
		if n > 0 {
			m.records.Add(ctx, n, metric.WithAttributes(m.codes[i]))
		}
	}
}
