package webhook

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
)

// metrics are documented, each with what to do when it moves, in
// docs/webhooks.md.
type metrics struct {
	meter    metric.Meter
	changes  metric.Int64Counter
	attempts metric.Int64Counter
	duration metric.Float64Histogram
	delay    metric.Float64Histogram
	skipped  metric.Int64Counter
}

// What becomes of a change at an endpoint.
const (
	resultDelivered  = "delivered"
	resultFiltered   = "filtered"
	resultParked     = "parked"
	resultUnreadable = "unreadable"
)

func newMetrics() (*metrics, error) {
	m := &metrics{meter: otel.Meter("github.com/tierstream/tierstream")}
	var errs [5]error
	m.changes, errs[0] = m.meter.Int64Counter("tierstream.webhook.changes", metric.WithUnit("{change}"),
		metric.WithDescription("Tier changes, by what became of them at the endpoint."))
	m.attempts, errs[1] = m.meter.Int64Counter("tierstream.webhook.attempts", metric.WithUnit("{attempt}"),
		metric.WithDescription("Requests, by what the answer means."))
	m.duration, errs[2] = m.meter.Float64Histogram("tierstream.webhook.attempt.duration", metric.WithUnit("s"),
		metric.WithDescription("Time of one request."),
		metric.WithExplicitBucketBoundaries(.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20, 60))
	m.delay, errs[3] = m.meter.Float64Histogram("tierstream.webhook.delay", metric.WithUnit("s"),
		metric.WithDescription("Time from the publication of a change to its delivery."),
		metric.WithExplicitBucketBoundaries(.05, .1, .25, .5, 1, 2.5, 5, 10, 60, 600, 3600, 6*3600, 24*3600, 72*3600))
	m.skipped, errs[4] = m.meter.Int64Counter("tierstream.webhook.offsets.lost", metric.WithUnit("{gap}"),
		metric.WithDescription("Times that changes were deleted from the topic before they were read."))
	return m, errors.Join(errs[:]...)
}

// endpointMetrics are those of one endpoint, with its label.
type endpointMetrics struct {
	*metrics
	name attribute.KeyValue
	only metric.MeasurementOption
}

// endpoint makes an endpoint's counters exist, at zero.
func (m *metrics) endpoint(name string) *endpointMetrics {
	e := &endpointMetrics{metrics: m, name: attribute.String("endpoint", name)}
	e.only = metric.WithAttributes(e.name)
	ctx := context.Background()
	for _, result := range []string{resultDelivered, resultFiltered, resultParked, resultUnreadable} {
		m.changes.Add(ctx, 0, e.with("result", result))
	}
	for _, v := range verdictNames {
		m.attempts.Add(ctx, 0, e.with("outcome", v))
	}
	m.skipped.Add(ctx, 0, e.only)
	return e
}

func (e *endpointMetrics) with(key, value string) metric.MeasurementOption {
	return metric.WithAttributes(e.name, attribute.String(key, value))
}

func (e *endpointMetrics) attempted(ctx context.Context, o outcome, took time.Duration) {
	e.attempts.Add(ctx, 1, e.with("outcome", o.verdict.String()))
	e.duration.Record(ctx, took.Seconds(), e.only)
}

func (e *endpointMetrics) delivered(ctx context.Context, delay time.Duration) {
	e.changes.Add(ctx, 1, e.with("result", resultDelivered))
	e.delay.Record(ctx, max(delay, 0).Seconds(), e.only)
}

func (e *endpointMetrics) count(ctx context.Context, result string) {
	e.changes.Add(ctx, 1, e.with("result", result))
}

// observe registers what is read from the endpoints when asked.
func (m *metrics) observe(s *Sender) error {
	waiting, err1 := m.meter.Int64ObservableGauge("tierstream.webhook.waiting", metric.WithUnit("{change}"),
		metric.WithDescription("Changes that wait for another attempt, or behind one that does."))
	age, err2 := m.meter.Float64ObservableGauge("tierstream.webhook.waiting.age", metric.WithUnit("s"),
		metric.WithDescription("Time since the first attempt at what has waited longest."))
	disabled, err3 := m.meter.Int64ObservableGauge("tierstream.webhook.disabled", metric.WithUnit("{endpoint}"),
		metric.WithDescription("1 while the endpoint is disabled because it answered 410."))
	if err := errors.Join(err1, err2, err3); err != nil {
		return err
	}
	_, err := m.meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		for _, r := range s.runners {
			n, oldest := r.queueStatus()
			o.ObserveInt64(waiting, int64(n), metric.WithAttributes(r.metrics.name))
			seconds := 0.0
			if !oldest.IsZero() {
				seconds = time.Since(oldest).Seconds()
			}
			o.ObserveFloat64(age, seconds, metric.WithAttributes(r.metrics.name))
			var off int64
			if _, ok := s.aside.isDisabled(r.endpoint.Name); ok {
				off = 1
			}
			o.ObserveInt64(disabled, off, metric.WithAttributes(r.metrics.name))
		}
		return nil
	}, waiting, age, disabled)
	return err
}
