package state

import (
	"bytes"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/tierstream/tierstream/internal/protocol"
)

// A sample is fence, outbox and customers of one instant, without owning.
func TestSampleIsWhatIsThere(t *testing.T) {
	everywhere(t, func(t *testing.T, rdb redis.UniversalClient) {
		s, id := started(t, rdb, testLease)
		if o, err := NewStore(rdb, "test", 9, testLease).Sample(t.Context(), []string{"a"}); err != nil || o.Fence != nil {
			t.Fatalf("a partition never started: %+v, %v", o, err)
		}
		b := batch(id, 2, Put{Customer: "a b", Value: []byte{0, 1, 255}, Due: 42, DueMoved: true}, Put{Customer: "z", Value: []byte("z"), Due: NeverDue, DueMoved: true})
		b.Wait = []WaitingValue{{WaitingKey{"z", 7}, []byte("original")}}
		id = apply(t, s, b)
		o, err := s.Sample(t.Context(), []string{"z", "nobody", "a b"})
		if err != nil {
			t.Fatal(err)
		}
		if o.Fence.Identity != id || len(o.Outbox) != 1 || o.Outbox[0].Seq != id.Seq {
			t.Errorf("fence %+v, outbox %+v", o.Fence, o.Outbox)
		}
		want := []Sampled{{[]byte("z"), true, NeverDue}, {}, {[]byte{0, 1, 255}, true, 42}}
		for i, c := range o.Customers {
			if !bytes.Equal(c.Value, want[i].Value) || c.Indexed != want[i].Indexed || c.Due != want[i].Due {
				t.Errorf("customer %d: %+v, want %+v", i, c, want[i])
			}
		}
		n := 0
		err = s.EachSampled(t.Context(), id.Gen, func(who string, c Sampled) error {
			n++
			w := want[0]
			if who == "a b" {
				w = want[2]
			}
			if !bytes.Equal(c.Value, w.Value) || !c.Indexed || c.Due != w.Due {
				t.Errorf("%s: %+v, want %+v", who, c, w)
			}
			return nil
		})
		if err != nil || n != 2 {
			t.Errorf("%d customers, %v", n, err)
		}
		originals, err := s.Originals(t.Context(), id.Gen, []WaitingKey{{"z", 8}, {"z", 7}})
		if err != nil || originals[0] != nil || string(originals[1]) != "original" {
			t.Errorf("originals %q, %v", originals, err)
		}
		if _, err := s.Sample(t.Context(), make([]string, MaxSample+1)); err == nil {
			t.Error("too many customers at once are read")
		}
		// An entry under another number is somebody else's doing.
		if err := rdb.HSet(t.Context(), s.keys.Outbox(), "99", (&protocol.Entry{Seq: 5}).Encode()).Err(); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Sample(t.Context(), nil); err == nil {
			t.Error("entry 5 under 99 is taken")
		}
	})
}
