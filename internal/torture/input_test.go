//go:build unix

package torture

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/rig"
	"github.com/tierstream/tierstream/internal/scoring"
	"github.com/tierstream/tierstream/internal/sim"
)

// input sends believable traffic at a steady rate, whatever happens to the
// brokers meanwhile.
type input struct {
	t      testing.TB
	w      *rig.World
	gen    *sim.Generator
	quit   chan struct{}
	ended  chan struct{}
	acked  atomic.Int64
	failed atomic.Pointer[error]
}

// traffic is a generator of years of believable events, a fiftieth of them bad.
func traffic(t testing.TB, seed uint64) *sim.Generator {
	t.Helper()
	c := sim.DefaultConfig()
	c.Seed, c.Customers, c.BadRate = seed, 20_000, 0.02
	c.Start = time.Date(2015, 1, 1, 0, 0, 0, 0, time.UTC) // far enough from now not to reach it
	c.Currency = scoring.Default().Currency()
	g, err := sim.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// send starts to send so many events a second, on top of what the world has
// sent.
func send(t testing.TB, w *rig.World, perSecond int, g *sim.Generator) *input {
	t.Helper()
	s := &input{t: t, w: w, gen: g, quit: make(chan struct{}), ended: make(chan struct{})}
	s.acked.Store(w.Sent)
	go s.run(perSecond)
	t.Cleanup(s.stop)
	return s
}

func (s *input) run(perSecond int) {
	defer close(s.ended)
	const perTick = 50
	tick := time.NewTicker(time.Second / perTick)
	defer tick.Stop()
	for {
		select {
		case <-s.quit:
			return
		case <-tick.C:
		}
		for _, r := range s.w.Take(s.gen, perSecond/perTick) {
			// Blocks while too much is not acknowledged, for example without
			// brokers.
			s.w.Client.Produce(context.Background(), r, func(_ *kgo.Record, err error) {
				if err != nil {
					s.failed.CompareAndSwap(nil, &err)
				}
				s.acked.Add(1)
			})
		}
	}
}

// stop ends the input and tells the world how much there is.
func (s *input) stop() {
	select {
	case <-s.quit:
		return
	default:
	}
	close(s.quit)
	<-s.ended
	if err := s.w.Client.Flush(context.Background()); err != nil {
		s.t.Errorf("sending: %v", err)
	}
	if err := s.failed.Load(); err != nil {
		s.t.Errorf("sending: %v", *err)
	}
	s.w.Sent = s.acked.Load()
}

// applied is how many records are applied, as Redis says it now.
func applied(w *rig.World) (int64, error) {
	fs, err := w.Fences()
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, f := range fs {
		if f == nil || f.Loading {
			return 0, errors.New("a partition has no state")
		}
		sum += f.State.Read
	}
	return sum, nil
}
