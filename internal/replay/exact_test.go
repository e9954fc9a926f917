package replay_test

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/replay"
	"github.com/tierstream/tierstream/internal/replay/replaytest"
)

// lived is a world in which a consumer worked, was restarted and lost its Redis
// on the way.
func lived(t *testing.T, clock fold.ClockSource) *replaytest.World {
	t.Helper()
	w := replaytest.New(t, clock)
	w.Send(1, 0, 600, 0.1)
	stop := w.Start()
	w.Settle()
	stop()
	w.Send(1, 600, 900, 0.1)
	stop = w.Start()
	w.Settle()
	w.Mini.FlushAll()
	w.Send(1, 900, 1500, 0.1)
	w.Settle()
	stop()
	return w
}

func kafka(t *testing.T, w *replaytest.World) *replay.Kafka {
	t.Helper()
	k, err := replay.NewKafka(w.Config.Kafka)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.Close)
	return k
}

// An exact replay of a run with restarts and a wiped Redis comes to the very
// bytes that the run left.
func TestExactReplayEqualsTheRun(t *testing.T) {
	for _, clock := range []fold.ClockSource{fold.ClockEvents, fold.ClockWall} {
		t.Run(string(clock), func(t *testing.T) {
			w := lived(t, clock)
			s := kafka(t, w)
			customers, changes, batches := 0, 0, uint64(0)
			for p := range int32(replaytest.Partitions) {
				f, err := replay.Follow(t.Context(), s, "live", w.Config.Topics, p)
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				_, end, err := s.Span(t.Context(), w.Config.Topics.Journal, p)
				if err != nil {
					t.Fatal(err)
				}
				if err := f.To(t.Context(), end); err != nil {
					t.Fatal(err)
				}
				got := 0
				fence, err := w.Store(p).Each(t.Context(), func(id string, value []byte) error {
					got++
					if !bytes.Equal(f.Value(id), value) {
						t.Errorf("customer %s: Redis has\n%x, the replay\n%x", id, value, f.Value(id))
					}
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
				if got != f.Customers() || fence.Point != f.Point() || fence.State.Digest != f.State().Digest {
					t.Errorf("partition %d: Redis has %d customers at %d, the replay %d at %d", p, got, fence.Seq, f.Customers(), f.Point().Seq)
				}
				customers, batches = customers+got, batches+fence.Seq
				for q := range int32(replaytest.Partitions) {
					if q == p {
						changes += len(w.Read(w.Config.Topics.Changes, q))
					}
				}
			}
			if customers < 100 || changes < 100 || batches < 20 {
				t.Errorf("only %d customers, %d changes, %d batches", customers, changes, batches)
			}
		})
	}
}

func all(ctx context.Context, s replay.Source, w *replaytest.World) error {
	for p := range int32(replaytest.Partitions) {
		f, err := replay.Follow(ctx, s, "live", w.Config.Topics, p)
		if err != nil {
			return err
		}
		_, end, err := s.Span(ctx, w.Config.Topics.Journal, p)
		if err == nil {
			err = f.To(ctx, end)
		}
		f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

var _ = strings.Contains
