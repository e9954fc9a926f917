package stream

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/scoring"
)

func queued(stamps ...int64) (q queue) {
	for i, ms := range stamps {
		q.records = append(q.records, &kgo.Record{Offset: int64(i), Timestamp: time.UnixMilli(ms)})
	}
	q.position = int64(len(stamps))
	return q
}

func TestPopMergesByTimestampWithoutReorderingATopic(t *testing.T) {
	r := &reader{topics: []string{"a", "b"}, queues: []queue{queued(5, 3, 9), queued(3, 5, 5, 8)}}
	got := r.pop([]int{3, 3}, make([]protocol.Position, 2))
	var order []string
	for i, rec := range got.records {
		order = append(order, fmt.Sprint(r.topics[got.topic[i]], rec.Offset))
	}
	// a1 (timestamp 3) stays behind a0 (5); ties go to the first topic.
	if want := []string{"b0", "a0", "a1", "b1", "b2", "a2"}; !slices.Equal(order, want) {
		t.Errorf("order %v, want %v", order, want)
	}
	if got.next[0].Next != 3 || got.next[1].Next != 3 || len(r.queues[0].records) != 0 || len(r.queues[1].records) != 1 {
		t.Errorf("next %v, left %d and %d", got.next, len(r.queues[0].records), len(r.queues[1].records))
	}
}

// The order of a batch depends on its records alone, not on how they arrived:
// a re-apply, which has all of them at once, must find the same.
func TestOrderOfABatchDoesNotDependOnArrival(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var stamps [2][]int64
		for i := range stamps {
			for range rnd.IntN(20) {
				stamps[i] = append(stamps[i], rnd.Int64N(30))
			}
		}
		counts := []int{len(stamps[0]), len(stamps[1])}
		seq := func(r *reader) (s []string) {
			t := r.pop(counts, make([]protocol.Position, 2))
			for i, rec := range t.records {
				s = append(s, fmt.Sprint(t.topic[i], "/", rec.Offset))
			}
			return s
		}
		whole := seq(&reader{topics: []string{"a", "b"}, queues: []queue{queued(stamps[0]...), queued(stamps[1]...)}})
		longer := seq(&reader{topics: []string{"a", "b"}, queues: []queue{queued(append(slices.Clone(stamps[0]), 1, 2)...), queued(append(slices.Clone(stamps[1]), 0)...)}})
		if !slices.Equal(whole, longer) {
			t.Fatalf("%v\n%v\nfor %v", whole, longer, stamps)
		}
	}
}

// A topic without buffered records holds the others up until it is read to its
// end. Control records and aborted transactions at its end count as read.
func TestMergeWaitsForATopicThatMayHoldOlderRecords(t *testing.T) {
	w := fakeWorld(t)
	ctx := t.Context()
	in := w.cfg.Topics.Inputs
	tx := w.client(kgo.TransactionalID("input-producer"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	plain := w.client(kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err := tx.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := tx.ProduceSync(ctx, &kgo.Record{Topic: in[1], Value: []byte("aborted")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if err := plain.ProduceSync(ctx, &kgo.Record{Topic: in[0], Value: []byte("one")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	r, err := newReader(w.cfg.Kafka, in, 0, make([]protocol.Position, len(in)), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	take := func() *taken {
		t.Helper()
		got, err := r.take(ctx, make([]protocol.Position, len(in)), 100, 1<<20, 50*time.Millisecond, time.Hour, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	// The open transaction does not hold up: read-committed ends before it.
	var got *taken
	until(t, 10*time.Second, "reading beside an open transaction", func() (bool, string) {
		got = take()
		return len(got.records) == 1, "nothing"
	})
	if !got.complete {
		t.Error("inputs that are read to their committed ends are not called complete")
	}
	if err := tx.EndTransaction(ctx, kgo.TryAbort); err != nil {
		t.Fatal(err)
	}
	until(t, 10*time.Second, "passing the aborted transaction", func() (bool, string) {
		got = take()
		return r.queues[1].position == 2 && r.atEnd(1), fmt.Sprintf("position %d, end %v", r.queues[1].position, r.end)
	})
	if len(got.records) != 0 {
		t.Errorf("aborted records came through: %v", got.records)
	}
}

// wallWorld runs on the wall clock, with a short grace.
func wallWorld(t *testing.T) *world {
	w := fakeWorld(t)
	r := *w.cfg.Rules
	r.Clock = fold.ClockWall
	r.Policy.Grace = time.Second
	w.cfg.Rules = &r
	return w
}

// A return without its order is refused when its grace ends although nothing
// else happens, and a rebuild from nothing repeats that sweep.
func TestGraceEndsWithoutAnotherEvent(t *testing.T) {
	w := wallWorld(t)
	i := w.start()
	now := time.Now().UnixMilli()
	send := func(topic string, ev event.Event) {
		t.Helper()
		ev.Source, ev.Time, ev.HasAmount, ev.Currency = "test", now, true, "EUR"
		v, hs, err := event.Encode(&ev, event.BinaryJSON)
		if err != nil {
			t.Fatal(err)
		}
		r := &kgo.Record{Topic: topic, Key: []byte(ev.Customer), Value: v}
		for _, h := range hs {
			r.Headers = append(r.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
		}
		if err := w.client(kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil))).ProduceSync(context.Background(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	in := w.cfg.Topics.Inputs
	send(in[0], event.Event{Type: event.Purchase, ID: "e1", Customer: "c", BusinessID: "o1", Amount: 500})
	send(in[1], event.Event{Type: event.Return, ID: "e2", Customer: "c", BusinessID: "r1", OrderID: "nowhere", Amount: 100, Kind: event.Goods})
	send(in[1], event.Event{Type: event.Return, ID: "e3", Customer: "d", BusinessID: "r2", OrderID: "nowhere", Amount: 100, Kind: event.Goods})
	until(t, 20*time.Second, "waiting for the returns to be refused", func() (bool, string) {
		n := 0
		for p := range int32(testPartitions) {
			f, err := w.store(p).Fence(context.Background())
			if err != nil || f == nil || f.Loading {
				return false, "no fence"
			}
			if len(f.State.Counters) > int(event.Waiting) {
				n += int(f.State.Counters[event.OrphanReturn])
			}
		}
		return n == 2, fmt.Sprintf("%d refused", n)
	})
	w.settled(3)
	if c := w.balanced(); c[event.Waiting] != 0 || c[event.Applied] != 1 {
		t.Errorf("counts %v", c)
	}
	dead := w.read(w.cfg.Topics.DeadLetters)
	if len(dead) != 2 {
		t.Fatalf("%d dead letters", len(dead))
	}
	if keys, _ := w.rdb.Keys(context.Background(), "*:w:*").Result(); len(keys) != 0 {
		t.Errorf("originals are left: %v", keys)
	}
	before := w.records()
	if err := i.stop(); err != nil {
		t.Fatal(err)
	}
	w.flush()
	w.start()
	w.settled(3)
	sameRecords(t, w.records(), before)
	if again := w.read(w.cfg.Topics.DeadLetters); len(again) != 2 {
		t.Errorf("%d dead letters after the rebuild", len(again))
	}
}

// A record that compresses well enough for its topic, but is too large on its
// own, must not stop its partition.
func TestOversizedDeadLetterGoesWithoutItsValue(t *testing.T) {
	w := fakeWorld(t)
	big := make([]byte, 3<<20)
	cl := w.client(kgo.ProducerBatchMaxBytes(4<<20), kgo.ProducerBatchCompression(kgo.ZstdCompression()), kgo.RecordPartitioner(kgo.StickyKeyPartitioner(nil)))
	if err := cl.ProduceSync(t.Context(), &kgo.Record{Topic: w.cfg.Topics.Inputs[0], Key: []byte("c"), Value: big}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	w.start()
	w.settled(1)
	dead := w.read(w.cfg.Topics.DeadLetters)
	if len(dead) != 1 || len(dead[0].Value) != 0 {
		t.Fatalf("dead letters %v", dead)
	}
	omitted := ""
	for _, h := range dead[0].Headers {
		if h.Key == "tierstream-value-omitted" {
			omitted = string(h.Value)
		}
	}
	if omitted != fmt.Sprint(len(big)) {
		t.Errorf("omitted %q", omitted)
	}
}

// A model of another currency would add amounts of two currencies.
func TestAnotherBaseCurrencyStopsThePartition(t *testing.T) {
	w := fakeWorld(t)
	i := w.start()
	n := w.load(3, 200, 0)
	w.settled(n)
	if err := i.stop(); err != nil {
		t.Fatal(err)
	}
	yaml, err := scoring.Init(scoring.InitOptions{Currency: "USD", TypicalOrderMinor: 5000})
	if err != nil {
		t.Fatal(err)
	}
	r := *w.cfg.Rules
	if r.Model, err = scoring.Parse(yaml); err != nil {
		t.Fatal(err)
	}
	r.Policy.Base = "USD"
	w.cfg.Rules = &r
	i = w.start()
	until(t, 20*time.Second, "waiting for all partitions to stop", func() (bool, string) {
		stopped := i.p.Stopped()
		for _, err := range stopped {
			if !strings.Contains(err.Error(), "kept in EUR") {
				t.Fatal(err)
			}
		}
		return len(stopped) == testPartitions, fmt.Sprint(stopped)
	})
}
