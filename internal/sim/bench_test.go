package sim

import (
	"testing"

	"github.com/tierstream/tierstream/internal/event"
)

// BenchmarkGenerate makes and encodes events with 200,000 customers, as a
// preload does.
func BenchmarkGenerate(b *testing.B) {
	c := DefaultConfig()
	c.Customers = 200_000
	g := start(b, c)
	b.ReportAllocs()
	for b.Loop() {
		m, _ := g.Next()
		if _, _, err := event.Encode(&m.Event, event.BinaryJSON); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}

// BenchmarkNext makes events without encoding them.
func BenchmarkNext(b *testing.B) {
	c := DefaultConfig()
	c.Customers = 200_000
	g := start(b, c)
	b.ReportAllocs()
	for b.Loop() {
		g.Next()
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
