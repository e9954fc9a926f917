package stream

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/view"
)

// TestValuesTopicHoldsEveryCustomer: read committed and the last of each key,
// customer-values is what Redis holds, also when sessions end between a script
// and its transaction.
func TestValuesTopicHoldsEveryCustomer(t *testing.T) {
	w := fakeWorld(t)
	w.cfg.Topics.Values, w.cfg.BatchRecords = "customer-values", 20
	if err := CreateTopics(t.Context(), w.client(), w.cfg.Topics, testPartitions, 1, nil); err != nil {
		t.Fatal(err)
	}
	var lost atomic.Int32
	w.faults(nil, func(_ int32, step string) error {
		if step == "apply" && lost.Add(1)%7 == 0 {
			return errKilled
		}
		return nil
	})
	w.start()
	w.settled(w.history(0, 600))
	if lost.Load() < 7 {
		t.Error("no session ended after an apply: nothing was tested")
	}

	last := map[string]*kgo.Record{}
	commits := map[string]map[uint64]int{} // documents of a customer by batch
	for _, r := range w.read(w.cfg.Topics.Values) {
		last[string(r.Key)] = r
		var v view.View
		if err := json.Unmarshal(r.Value, &v); err != nil {
			t.Fatal(err)
		}
		if commits[v.Customer] == nil {
			commits[v.Customer] = map[uint64]int{}
		}
		if commits[v.Customer][v.AsOf.Seq]++; commits[v.Customer][v.AsOf.Seq] > 1 {
			t.Errorf("%s is sent twice for batch %d", v.Customer, v.AsOf.Seq)
		}
	}
	if got, want := slices.Sorted(maps.Keys(last)), slices.Sorted(maps.Keys(w.records())); !slices.Equal(got, want) {
		t.Fatalf("%d customers have a value, %d are stored", len(got), len(want))
	}
	rules := w.cfg.Rules
	viewer, err := view.NewViewer(rules.Model, rules.Policy, rules.Topics)
	if err != nil {
		t.Fatal(err)
	}
	for id, r := range last {
		record, f, err := w.store(r.Partition).Read(context.Background(), id)
		if err != nil {
			t.Fatal(err)
		}
		want, err := viewer.View(id, r.Partition, record, f, time.Time{})
		if err != nil {
			t.Fatal(err)
		}
		var got view.View
		if err := json.Unmarshal(r.Value, &got); err != nil {
			t.Fatal(err)
		}
		if got.AsOf.Seq != want.AsOf.Written || !got.Published {
			t.Errorf("%s: as of batch %d, last written by %d", id, got.AsOf.Seq, want.AsOf.Written)
		}
		got.AsOf, got.Published = want.AsOf, want.Published
		g, _ := json.Marshal(got)
		wnt, _ := json.Marshal(want)
		if string(g) != string(wnt) {
			t.Errorf("%s is sent as\n%s, want\n%s", id, g, wnt)
		}
		if len(r.Headers) != 1 || r.Headers[0].Key != "content-type" {
			t.Errorf("headers %v", r.Headers)
		}
	}
}

// Of a customer whom several batches of one transaction write, only the last
// value is sent; and none where the topic was switched off since.
func TestAtMostOneValuePerCommit(t *testing.T) {
	w := fakeWorld(t)
	w.cfg.Topics.Values = "customer-values"
	if err := CreateTopics(t.Context(), w.client(), w.cfg.Topics, testPartitions, 1, nil); err != nil {
		t.Fatal(err)
	}
	entry := func(seq uint64, values ...string) *protocol.Entry {
		e := &protocol.Entry{Seq: seq, Journal: []byte("-")}
		for i := 0; i < len(values); i += 2 {
			e.Messages = append(e.Messages, protocol.Message{Stream: protocol.Values, Key: []byte(values[i]), Value: []byte(values[i+1])})
		}
		return e
	}
	for _, on := range []bool{true, false} {
		cfg := w.cfg.withDefaults()
		if !on {
			cfg.Topics.Values = ""
		}
		p, err := openProducer(t.Context(), &cfg, 0, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.publish(t.Context(), []*protocol.Entry{entry(1, "a", "a1", "b", "b1"), entry(2, "a", "a2"), entry(3, "c", "c3")}); err != nil {
			t.Fatal(err)
		}
		p.close()
	}
	var got []string
	for _, r := range w.read("customer-values") {
		got = append(got, string(r.Value))
	}
	if slices.Sort(got); !slices.Equal(got, []string{"a2", "b1", "c3"}) {
		t.Errorf("sent: %q", got)
	}
}
