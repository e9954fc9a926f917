package event

import "testing"

// decodeOK decodes an encoded event as of its own time.
func message(t testing.TB, e *Event, f Format) *Message {
	t.Helper()
	value, headers, err := Encode(e, f)
	if err != nil {
		t.Fatal(err)
	}
	return &Message{Key: []byte(e.Customer), Value: value, Headers: headers, Timestamp: e.Time}
}

func TestDecodeReadsWhatEncodeWrites(t *testing.T) {
	d := NewDecoder(Limits{})
	for _, want := range Examples() {
		for _, f := range Formats {
			m := message(t, &want, f)
			var got Event
			if r := d.Decode(m, &got); r != nil {
				t.Errorf("%s as %s: refused: %v", want.Type, f, r)
			} else if got != want {
				t.Errorf("%s as %s:\n got %+v\nwant %+v", want.Type, f, got, want)
			}
			if !KeyMatches(m, &got) {
				t.Errorf("%s as %s: the key does not match", want.Type, f)
			}
		}
	}
}

func BenchmarkDecodePurchase(b *testing.B) {
	e := Examples()[0]
	for _, f := range Formats {
		b.Run(f.String(), func(b *testing.B) {
			m := message(b, &e, f)
			d := NewDecoder(Limits{})
			b.SetBytes(int64(len(m.Value)))
			b.ReportAllocs()
			for b.Loop() {
				var ev Event
				if r := d.Decode(m, &ev); r != nil {
					b.Fatal(r)
				}
			}
		})
	}
}
