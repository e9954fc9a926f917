//go:build unix

package e2e

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/customer"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/rig"
	"github.com/tierstream/tierstream/internal/testenv"
)

func (w *world) counters() (sum [event.NumCodes]int64) {
	w.t.Helper()
	fs, err := w.Fences()
	if err != nil {
		w.t.Fatal(err)
	}
	for _, f := range fs {
		for i, n := range f.State.Counters {
			sum[i] += n
		}
	}
	return sum
}

func (w *world) everybody() map[string][]byte {
	w.t.Helper()
	all := map[string][]byte{}
	for p := range int32(rig.Partitions) {
		maps.Copy(all, w.Records(p))
	}
	return all
}

// copies of records, as another send needs them.
func copies(records []*kgo.Record) []*kgo.Record {
	out := make([]*kgo.Record, len(records))
	for i, r := range records {
		out[i] = &kgo.Record{Topic: r.Topic, Key: r.Key, Value: r.Value, Headers: r.Headers}
	}
	return out
}

// TestDeliveredTwiceAndPermuted: a second delivery of the same events, in
// another order, moves nothing but the counters of duplicates; and a first
// delivery in another order gives the same facts.
func TestDeliveredTwiceAndPermuted(t *testing.T) {
	t.Parallel()
	const n = 1200
	rng := rand.New(rand.NewPCG(rig.Seed(t), 3))
	shuffled := func(rs []*kgo.Record) []*kgo.Record {
		c := copies(rs)
		rng.Shuffle(len(c), func(i, j int) { c[i], c[j] = c[j], c[i] })
		return c
	}

	w := newWorld(t, testenv.RedisOptions{})
	w.Start()
	events := w.Take(rig.Traffic(t, 40, 0), n)
	w.Send(copies(events))()
	w.Settled(60 * time.Second)
	first, before := w.everybody(), w.counters()
	changes := w.Count(w.Topics.Changes)
	dead := w.Count(w.Topics.DeadLetters)

	w.Send(shuffled(events))()
	w.Settled(60 * time.Second)
	second, after := w.everybody(), w.counters()
	if len(second) != len(first) {
		t.Errorf("%d customers after the second delivery, %d before", len(second), len(first))
	}
	for id, v := range first {
		if !bytes.Equal(rig.WithoutSeq(t, v), rig.WithoutSeq(t, second[id])) {
			t.Errorf("customer %s:\n got %x\nwant %x", id, second[id], v)
			break
		}
	}
	if got := w.Count(w.Topics.Changes); got != changes {
		t.Errorf("%d tier changes after the second delivery, %d before", got, changes)
	}
	repeated := int64(0)
	for i := range before {
		switch c := event.Code(i); {
		case before[i] == after[i]:
		case c == event.Duplicate, c.Outcome() == event.DeadLetter, c.Outcome() == event.Ignored:
			repeated += after[i] - before[i] // refused and ignored events are not remembered
		default:
			t.Errorf("%s: %d after the second delivery, %d before", c, after[i], before[i])
		}
	}
	if repeated != n {
		t.Errorf("%d of %d events of the second delivery are accounted for as repeated", repeated, n)
	}
	t.Logf("of %d events %d are duplicates the second time; %d dead letters", n, after[event.Duplicate]-before[event.Duplicate], dead)
	w.Check()

	// The other world gets them permuted from the start.
	t.Run("permuted", func(t *testing.T) {
		v := newWorld(t, testenv.RedisOptions{})
		v.Start()
		other := shuffled(events)
		for _, r := range other {
			r.Topic = v.Topics.Inputs[slices.Index(w.Topics.Inputs, r.Topic)]
		}
		v.Send(other)()
		v.Settled(60 * time.Second)
		permuted := v.everybody()
		facts := func(b []byte) []byte {
			r := customer.NewRecord()
			r.Facts = rig.Decoded(t, b).Facts
			return r.Append(nil)
		}
		bad := 0
		for id, b := range first {
			if p, ok := permuted[id]; !ok || !bytes.Equal(facts(b), facts(p)) {
				if bad++; bad < 3 {
					t.Errorf("customer %s:\npermuted %+v\nin order %+v", id, rig.Decoded(t, p).Facts, rig.Decoded(t, b).Facts)
				}
			}
		}
		if bad > 0 || len(permuted) != len(first) {
			t.Errorf("%d of %d customers differ; %d in order", bad, len(permuted), len(first))
		}
		if late := v.counters()[event.Late]; late < n/4 {
			t.Errorf("only %d late events: nothing was permuted", late)
		}
		v.Check()
	})
}

// TestBigRecordsPass: what fits into an input also fits into the dead letters,
// so that no single record can stop its partition.
func TestBigRecordsPass(t *testing.T) {
	t.Parallel()
	w := newWorld(t, testenv.RedisOptions{})
	w.Start()
	big := w.Open(kgo.ProducerBatchMaxBytes(64<<20), kgo.ProducerBatchCompression(kgo.ZstdCompression()), kgo.BrokerMaxWriteBytes(100<<20))
	random := make([]byte, 1<<20-300)
	for i, rng := 0, rand.New(rand.NewPCG(1, 1)); i < len(random); i++ {
		random[i] = byte(rng.Uint32())
	}
	in := w.Topics.Inputs[0]
	records := []*kgo.Record{
		{Topic: in, Key: []byte("random"), Value: random}, // as big as the topic takes
		{Topic: in, Key: []byte("zeros"), Value: make([]byte, 12<<20)},
		{Topic: in, Key: []byte("header"), Headers: []kgo.RecordHeader{{Key: "ce_id", Value: make([]byte, 12<<20)}}},
		{Topic: in, Key: []byte("name"), Headers: []kgo.RecordHeader{{Key: strings.Repeat("n", 12<<20)}}},
		{Topic: in, Key: make([]byte, 12<<20)},
		{Topic: in, Key: []byte("headers"), Headers: make([]kgo.RecordHeader, 400_000)},
		{Topic: in},
	}
	for _, r := range records {
		if err := big.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatalf("%.10s: %v", r.Key, err)
		}
		w.Sent++
	}
	w.Send(w.Take(rig.Traffic(t, 41, 0), 100))()
	w.Settled(60 * time.Second)
	codes := map[string]int{}
	for _, rs := range w.Read(w.Topics.DeadLetters) {
		for _, r := range rs {
			for _, h := range r.Headers {
				if h.Key == "tierstream-topic" && string(h.Value) == in {
					codes[in]++
				}
			}
		}
	}
	if codes[in] < len(records) {
		t.Errorf("%d dead letters, want at least %d", codes[in], len(records))
	}
}
