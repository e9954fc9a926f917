package stream

import (
	"fmt"
	"math"
	"testing"
	"time"

	"go.opentelemetry.io/otel"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// sums are the values of all instruments, over their attributes; of a
// histogram the number of observations.
func sums(t *testing.T, r sdkmetric.Reader) map[string]float64 {
	t.Helper()
	var rm metricdata.ResourceMetrics
	if err := r.Collect(t.Context(), &rm); err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, s := range rm.ScopeMetrics {
		for _, m := range s.Metrics {
			switch d := m.Data.(type) {
			case metricdata.Sum[int64]:
				for _, p := range d.DataPoints {
					all[m.Name] += float64(p.Value)
				}
			case metricdata.Gauge[int64]:
				for _, p := range d.DataPoints {
					all[m.Name] += float64(p.Value)
				}
			case metricdata.Gauge[float64]:
				for _, p := range d.DataPoints {
					all[m.Name] += p.Value
				}
			case metricdata.Histogram[float64]:
				for _, p := range d.DataPoints {
					all[m.Name] += float64(p.Count)
				}
			}
		}
	}
	return all
}

func TestMetricsOfADrainedBacklog(t *testing.T) {
	reader := sdkmetric.NewManualReader()
	before := otel.GetMeterProvider()
	otel.SetMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader)))
	t.Cleanup(func() { otel.SetMeterProvider(before) })

	w := fakeWorld(t)
	n := w.load(7, 500, 0)
	in := w.start()
	var m map[string]float64
	until(t, 30*time.Second, "everything is published", func() (bool, string) {
		m = sums(t, reader)
		return float64(in.p.Totals().Read) == float64(n) && m["tierstream.lag.age"] == 0 && m["tierstream.outbox.size"] == 0 && m["tierstream.publish.delay"] > 0, fmt.Sprint(m)
	})
	if m["tierstream.publish.delay"] > m["tierstream.batches"] {
		t.Errorf("%v delays of %v batches", m["tierstream.publish.delay"], m["tierstream.batches"])
	}
	if m["tierstream.timers.overdue"] != 0 {
		t.Errorf("all inputs are read, and timers are overdue by %v s", m["tierstream.timers.overdue"])
	}
}

func TestLagAgesWhileNothingMoves(t *testing.T) {
	st := newPartitionStatus(0)
	now := time.UnixMilli(1_000_000)
	if a := st.age(now); a != 0 {
		t.Errorf("nothing was read, the age is %v", a)
	}
	st.lagging(&reader{}, nil, &taken{oldest: now.UnixMilli()})
	if a := st.age(now.Add(time.Minute)); a != time.Minute {
		t.Errorf("the age is %v after a minute", a)
	}
	st.lagging(&reader{}, nil, &taken{oldest: math.MaxInt64})
	if a := st.age(now.Add(time.Hour)); a != 0 {
		t.Errorf("all is applied, the age is %v", a)
	}
	st.timers(5000, 3000)
	if st.overdue != 2*time.Second {
		t.Errorf("overdue by %v", st.overdue)
	}
	st.timers(5000, 5001)
	if st.overdue != 0 {
		t.Errorf("overdue by %v before it is due", st.overdue)
	}
}
