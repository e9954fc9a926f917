package event

import (
	"bytes"
	"encoding/json"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

func TestEncodeRefusesWhatHasNoForm(t *testing.T) {
	for name, e := range map[string]Event{
		"no type":                 {},
		"a type to come":          {Type: 99},
		"a complaint's status":    {Type: Referral, Status: Resolved},
		"a status of a purchase":  {Type: Purchase, Status: Opened},
		"a cost's kind":           {Type: Feedback, Kind: Service},
		"a kind beyond the list":  {Type: Cost, Kind: 200},
		"a status beyond the end": {Type: Complaint, Status: 200},
	} {
		if value, _, err := Encode(&e, BinaryJSON); err == nil {
			t.Errorf("%s: %s", name, value)
		}
	}
	if value, _, err := Encode(&Examples()[0], Format(99)); err == nil {
		t.Errorf("format 99: %s", value)
	}
}

// A simulator sends what is wrong, too: it must arrive as it is.
func TestEncodeWritesWrongValues(t *testing.T) {
	e := Examples()[0]
	e.Amount = -1
	for _, f := range Formats {
		var ev Event
		if r := NewDecoder(Limits{}).Decode(message(t, &e, f), &ev); r == nil || r.Code != NegativePurchase {
			t.Errorf("as %s: %v", f, r)
		}
	}
}

func TestEncodedTextIsJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := string(rapid.SliceOf(rapid.Byte()).Draw(t, "bytes"))
		if rapid.Bool().Draw(t, "text") {
			s = rapid.String().Draw(t, "string")
		}
		var got string
		if err := json.Unmarshal(appendText(nil, s), &got); err != nil {
			t.Fatal(err)
		}
		if utf8.ValidString(s) && got != s {
			t.Fatalf("%q came back as %q", s, got)
		}
	})
}

func TestFormatsHaveNames(t *testing.T) {
	for _, f := range Formats {
		if got, err := ParseFormat(f.String()); err != nil || got != f {
			t.Errorf("%s: %d, %v", f, got, err)
		}
	}
	if f, err := ParseFormat(""); err == nil {
		t.Errorf("no name is %s", f)
	}
}

func TestEncodedHeadersAreTheKafkaBinding(t *testing.T) {
	m := message(t, &Examples()[0], BinaryMsgpack)
	want := []Header{
		{"ce_specversion", []byte("1.0")},
		{"ce_id", []byte("e-1")},
		{"ce_source", []byte("/shop/eu")},
		{"ce_type", []byte("io.tierstream.purchase.v1")},
		{"ce_time", []byte("2026-03-02T09:30:00.000Z")},
		{"ce_subject", []byte("c-1042")},
		{"content-type", []byte("application/msgpack")},
		{"ce_traceparent", []byte("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")},
	}
	if len(m.Headers) != len(want) {
		t.Fatalf("%d headers, want %d", len(m.Headers), len(want))
	}
	for i, h := range m.Headers {
		if h.Key != want[i].Key || !bytes.Equal(h.Value, want[i].Value) {
			t.Errorf("%s: %s, want %s: %s", h.Key, h.Value, want[i].Key, want[i].Value)
		}
	}
}
