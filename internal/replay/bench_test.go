package replay_test

import (
	"runtime"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/replay"
	"github.com/tierstream/tierstream/internal/replay/replaytest"
	"github.com/tierstream/tierstream/internal/sim"
	"github.com/tierstream/tierstream/internal/sim/produce"
)

// memoryLog is a log of one partition in memory, so that neither disk nor network
// is measured.
func memoryLog(b *testing.B, customers, events int) replay.Source {
	b.Helper()
	c := sim.DefaultConfig()
	c.Customers, c.Span, c.BadRate, c.Currency = float64(customers), 700*24*time.Hour, 0.01, "EUR"
	c.Start = time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	g, err := sim.New(c)
	if err != nil {
		b.Fatal(err)
	}
	s := replaytest.Memory{}
	for m := range g.All() {
		if events--; events < 0 {
			break
		}
		r, err := produce.Record(&m, produce.DefaultTopics, event.BinaryJSON)
		if err != nil {
			b.Fatal(err)
		}
		r.Timestamp = time.UnixMilli(m.At)
		r.Offset = int64(len(s[r.Topic]))
		s[r.Topic] = append(s[r.Topic], r)
	}
	return s
}

// Time per record, and the bytes per customer that a canonical replay holds.
func BenchmarkCanonical(b *testing.B) {
	const events = 200_000
	s := memoryLog(b, 20_000, events)
	cfg := replay.Config{Kind: replay.Canonical, Name: name(b, "replay-x"), Rules: replaytest.Rules(fold.ClockEvents)}
	var before, now runtime.MemStats
	held, customers := 0.0, int64(1)
	read := 0
	cfg.Source = replaytest.Altered{Source: s, Alter: func(_ string, _ int32, r *kgo.Record) []*kgo.Record {
		if read++; read == events-1 && held == 0 { // once, near the end
			b.StopTimer()
			runtime.GC()
			runtime.ReadMemStats(&now)
			held = float64(now.HeapAlloc) - float64(before.HeapAlloc)
			b.StartTimer()
		}
		return []*kgo.Record{r}
	}}
	runtime.GC()
	runtime.ReadMemStats(&before)
	for b.Loop() {
		read = 0
		r, err := replay.Run(b.Context(), cfg)
		if err != nil {
			b.Fatal(err)
		}
		customers = r.Customers
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/events, "ns/record")
	b.ReportMetric(held/float64(customers), "B/customer")
}
