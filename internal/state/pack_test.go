package state

import (
	"bytes"
	"fmt"
	"reflect"
	"testing"

	"github.com/tierstream/tierstream/internal/protocol"
)

func packable(messages int) *protocol.Entry {
	e := &protocol.Entry{Seq: 7, Parent: protocol.Hash{1}, Chain: protocol.Hash{2}, Journal: []byte("journal")}
	for i := range messages {
		id := fmt.Sprintf("c%d", i)
		e.Messages = append(e.Messages, protocol.Message{
			Stream: protocol.Changes, Key: []byte(id), Value: fmt.Appendf(nil, `{"customer_id":%q,"sequence":%d,"direction":"up"}`, id, i%5),
			Headers: []protocol.MessageHeader{{Key: "ce_subject", Value: []byte(id)}},
		})
	}
	return e
}

// The buffers are used again for every batch, so what an earlier entry left in
// them must not show.
func TestPackedEntriesComeBackAsTheyWere(t *testing.T) {
	var p packBuffers
	for _, n := range []int{3000, 1, 40, 0, 3000} {
		e := packable(n)
		buf := p.pack(e)
		got, err := unpackEntry(bytes.Clone(buf))
		if err != nil {
			t.Fatal(err)
		}
		if got.Seq != e.Seq || got.Parent != e.Parent || got.Chain != e.Chain || !bytes.Equal(got.Journal, e.Journal) || len(got.Messages) != n {
			t.Fatalf("%d messages: got seq %d and %d messages", n, got.Seq, len(got.Messages))
		}
		if n > 0 && !reflect.DeepEqual(got.Messages, e.Messages) {
			t.Errorf("%d messages: they differ", n)
		}
		if raw := len(e.Encode()); n == 3000 && len(buf) > raw/4 {
			t.Errorf("%d bytes packed to %d", raw, len(buf))
		}
	}
}

func TestUnpackRefusesACutEntry(t *testing.T) {
	b := new(packBuffers).pack(packable(100))
	for n := range len(b) {
		if _, err := unpackEntry(b[:n]); err == nil {
			t.Fatalf("%d of %d bytes were taken for an entry", n, len(b))
		}
	}
}

func TestKeysOfABatchAreThoseOfItsCustomers(t *testing.T) {
	k := PartitionKeys("test", 3)
	puts := []Put{{Customer: "c1"}, {Customer: ""}, {Customer: "ça:{va}"}}
	keys := k.customers(12, puts)
	for i, p := range puts {
		if want := k.Customer(12, p.Customer); keys[i] != want {
			t.Errorf("customer %q: key %s, want %s", p.Customer, keys[i], want)
		}
	}
}
