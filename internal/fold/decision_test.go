package fold

import (
	"encoding/binary"
	"strconv"
	"testing"

	"github.com/zeebo/xxh3"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/protocol"
)

// What Decision cuts out of messages is what the chain covers: together the
// parts give the hash that the engine made while it decided.
func TestDecisionIsWhatTheChainCovers(t *testing.T) {
	p := newPartition(t, testRules())
	traced := purchase(t, "o2", "bob", day(2), 90_000)
	traced.Message.Headers = append(traced.Message.Headers, event.Header{Key: "traceparent", Value: []byte("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")})
	refused := purchase(t, "o3", "cy", day(2), 100)
	refused.Message.Headers = append(refused.Message.Headers, event.Header{Key: "tierstream-code", Value: []byte("the original's own")})
	refused.Message.Value = []byte("{")
	out := p.must(day(0), protocol.Bound{},
		purchase(t, "o1", `an"na,"mode":"`, day(0), 4_990), traced, refused,
		purchase(t, "o2", "bob", day(2), 1)) // conflicts
	if len(out.Entry.Messages) != 4 {
		t.Fatalf("%d messages", len(out.Entry.Messages))
	}
	h := xxh3.New()
	var number [10]byte
	uvarint := func(n uint64) { _, _ = h.Write(number[:binary.PutUvarint(number[:], n)]) }
	for _, m := range out.Entry.Messages {
		d := Decision(&m)
		if m.Stream == protocol.Changes {
			_, _ = h.Write([]byte{'c'})
			uvarint(uint64(len(d)))
			_, _ = h.Write(d)
			continue
		}
		var words []string
		for at := 1; at < len(d); {
			n, size := binary.Uvarint(d[at:])
			words = append(words, string(d[at+size:at+size+int(n)]))
			at += size + int(n)
		}
		code, topic, offset := event.Code(0), 0, 0
		for code.String() != words[0] {
			code++
		}
		for testRules().Topics[topic] != words[1] {
			topic++
		}
		offset, err := strconv.Atoi(words[2])
		if err != nil {
			t.Fatal(err)
		}
		_, _ = h.Write([]byte{'x'})
		uvarint(uint64(code))
		uvarint(uint64(topic))
		uvarint(uint64(offset))
	}
	sum := h.Sum128().Bytes()
	if got := [16]byte(out.Decisions[:16]); got != sum {
		t.Errorf("the parts give %x, the chain covers %x", sum, got)
	}
	for _, m := range []protocol.Message{{Value: []byte("{}")}, {Stream: protocol.DeadLetters}} {
		if d := Decision(&m); d != nil {
			t.Errorf("%+v has the decision %s", m, d)
		}
	}
}

func TestModeOfAReplay(t *testing.T) {
	p := newPartition(t, testRules())
	live := p.must(day(0), protocol.Bound{}, purchase(t, "o1", "anna", day(0), 4_990)).Entry.Messages[0]
	q := newPartition(t, testRules())
	q.engine.where.Mode = "replay"
	r := purchase(t, "o1", "anna", day(0), 4_990)
	r.Offset = offset - 1
	replayed := q.must(day(0), protocol.Bound{}, r).Entry.Messages[0]
	if string(Decision(&live)) != string(Decision(&replayed)) {
		t.Errorf("decided\n%s, live\n%s", Decision(&replayed), Decision(&live))
	}
	if m, err := Msgpack(replayed.Value); err != nil || string(replayed.Value) == string(live.Value) {
		t.Errorf("the mode does not show: %s (%x, %v)", replayed.Value, m, err)
	}
}
