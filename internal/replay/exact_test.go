package replay_test

import (
	"bytes"
	"errors"
	"regexp"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/protocol"
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

// followed is a partition, repeated to the end of its journal.
func followed(t *testing.T, w *replaytest.World, s *replay.Kafka, p int32) *replay.Follower {
	t.Helper()
	f, err := replay.Follow(t.Context(), s, "live", w.Config.Topics, p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	_, end, err := s.Span(t.Context(), w.Config.Topics.Journal, p)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.To(t.Context(), end); err != nil {
		t.Fatal(err)
	}
	return f
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
				f := followed(t, w, s, p)
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

// Whatever was changed since the run is found, and said with partition, batch
// and offset.
func TestExactReplayFindsWhatWasChanged(t *testing.T) {
	w := lived(t, fold.ClockEvents)
	s := kafka(t, w)
	topics := w.Config.Topics
	journal := func(edit func(*protocol.Record)) func(*kgo.Record) []*kgo.Record {
		return func(r *kgo.Record) []*kgo.Record {
			rec, err := protocol.DecodeRecord(r.Value)
			if err != nil {
				t.Error(err)
				return nil
			}
			edit(rec)
			c := *r
			c.Value = rec.Encode()
			return []*kgo.Record{&c}
		}
	}
	of := func(topic string) func(string, int32, *kgo.Record) bool {
		return func(t string, _ int32, _ *kgo.Record) bool { return t == topic }
	}
	drop := func(*kgo.Record) []*kgo.Record { return nil }
	for _, c := range []struct {
		name  string
		alter replaytest.Alter
		want  string
	}{
		{"an event", replaytest.Once(func(topic string, _ int32, r *kgo.Record) bool {
			return topic == "purchases" && bytes.Contains(r.Value, []byte(`"amount_minor":`))
		}, 10, func(r *kgo.Record) []*kgo.Record {
			c := *r
			c.Value = bytes.Replace(r.Value, []byte(`"amount_minor":`), []byte(`"amount_minor":1`), 1)
			return []*kgo.Record{&c}
		}), `^partition 0: journal record \d+ \(live-journal/0@\d+\): repeating it gives .*digest of the customers [0-9a-f]{12}, the journal says [0-9a-f]{12}: .* it read .*purchases/0@\d+–\d+`},
		{"a record is gone", replaytest.Once(of("complaints"), 2, drop), `^partition 0: journal record \d+ .*(holds no record at offset|repeating it gives)`},
		{"the positions of a batch", replaytest.Once(of(topics.Journal), 3, journal(func(r *protocol.Record) { r.State.Next[0].Next++ })),
			`^partition 0: journal record 2 \(live-journal/0@\d+\): its chain does not continue that of record 1`},
		{"a batch is gone", replaytest.Once(of(topics.Journal), 3, drop), `^partition 0: journal record 3 \(live-journal/0@\d+\): it follows 1`},
		{"the genesis", replaytest.Once(of(topics.Journal), 0, journal(func(r *protocol.Record) { r.Genesis.LiveSince++ })),
			`^partition 0: journal record 0 \(live-journal/0@0\): the genesis is not what it was`},
		{"the rules", replaytest.Once(of(topics.Rules), 0, func(r *kgo.Record) []*kgo.Record {
			c := *r
			c.Value = bytes.Replace(r.Value, []byte("2592000000000000"), []byte("2592000000000001"), 1) // the grace
			return []*kgo.Record{&c}
		}), `^partition 0: journal record 1 \(live-journal/0@\d+\): it names rules [0-9a-f]{12}, which live-rules does not hold`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := replay.Run(t.Context(), replay.Config{
				Kind: replay.Exact, Name: name(t, "replay-x"), Source: replaytest.Altered{Source: s, Alter: c.alter}, Topics: topics,
			})
			var m *replay.Mismatch
			if !errors.As(err, &m) || !regexp.MustCompile(c.want).MatchString(err.Error()) {
				t.Errorf("%v, want %s", err, c.want)
			}
		})
	}
}
