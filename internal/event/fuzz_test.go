package event

import (
	"testing"
	"unicode/utf8"

	"github.com/vmihailenco/msgpack/v5"
)

// checkDecoded is what holds of any record: a refusal has a code that sends
// the record to the dead letters, and what is accepted is a valid event that
// survives every format.
func checkDecoded(t *testing.T, m *Message) {
	d := NewDecoder(Limits{})
	var ev Event
	if r := d.Decode(m, &ev); r != nil {
		if r.Code.Outcome() != DeadLetter || ev.Content != 0 {
			t.Fatalf("refused by %v with content %x", r, ev.Content)
		}
		return
	}
	switch {
	case ev.Content != ContentHash(&ev):
		t.Fatalf("content %x", ev.Content)
	case ev.ID == "" || ev.Source == "" || ev.Customer == "" || ev.BusinessID == "":
		t.Fatalf("an ID is missing: %+v", ev)
	case ev.HasAmount != (ev.Currency != ""):
		t.Fatalf("amount and currency do not go together: %+v", ev)
	case ev.Amount < 0 || ev.Amount > defaultMaxAmount || ev.Cost < 0 || ev.Base < 0:
		t.Fatalf("an amount is out of bounds: %+v", ev)
	case !utf8.ValidString(ev.ID + ev.Customer + ev.BusinessID + ev.OrderID + ev.Category + ev.Channel + ev.Reason):
		t.Fatalf("a string is not UTF-8: %+v", ev)
	}
	for _, f := range Formats {
		var again Event
		if r := d.Decode(message(t, &ev, f), &again); r != nil || again != ev {
			t.Fatalf("as %s: %v\n got %+v\nwant %+v", f, r, again, ev)
		}
	}
}

func FuzzDecodeBinaryJSON(f *testing.F) {
	for _, e := range Examples() {
		f.Add(message(f, &e, BinaryJSON).Value, uint8(e.Type))
	}
	f.Add([]byte(`{"order_id":"o\ud83d\ude00","amount_minor":-0,"currency":"JPY","fx_rate":"0.1","status":"voided","test":true,"x":[{}]}`), uint8(Purchase))
	f.Fuzz(func(t *testing.T, data []byte, typ uint8) {
		checkDecoded(t, record(string(data), "ce_type="+Type(typ).URI()))
	})
}

func FuzzDecodeMsgpack(f *testing.F) {
	for _, e := range Examples() {
		f.Add(message(f, &e, BinaryMsgpack).Value, uint8(e.Type))
	}
	f.Add([]byte{0xdf, 0xff, 0xff, 0xff, 0xff}, uint8(Purchase))
	f.Add([]byte{0x81, 0xa1, 'x', 0xc7, 1, 5, 0}, uint8(Cost))
	f.Fuzz(func(t *testing.T, data []byte, typ uint8) {
		m := record(string(data), "content-type=application/msgpack", "ce_type="+Type(typ).URI())
		checkDecoded(t, m)
		// What the scanner accepts, the library's own reader accepts.
		var s packScanner
		var v value
		if s.scan(data, 16, &v, nil) {
			s.rest.Reset(data)
			if err := msgpack.NewDecoder(&s.rest).Skip(); err != nil || s.rest.Len() != 0 {
				t.Fatalf("accepted, yet the library says %v with %d bytes left: %x", err, s.rest.Len(), data)
			}
		}
	})
}

func FuzzDecodeStructured(f *testing.F) {
	for _, e := range Examples() {
		f.Add(message(f, &e, StructuredJSON).Value)
		f.Add(message(f, &e, StructuredMsgpack).Value)
	}
	f.Add([]byte(`{"data_base64":"e30=","data":null,"specversion":"1.0"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		checkDecoded(t, &Message{
			Value:     data,
			Headers:   []Header{{"content-type", []byte(typeStructured)}},
			Timestamp: recordTime,
		})
	})
}
