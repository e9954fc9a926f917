package mapping

import (
	"encoding/binary"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"cel.dev/cel-go/common/types"
	"pgregory.net/rapid"

	"github.com/tierstream/tierstream/internal/event"
)

// A decimal is what math/big makes of its text, whatever its form, and comes out
// of its own text again.
func TestDecimalsAreExact(t *testing.T) {
	text := rapid.StringMatching(`-?[0-9]{1,20}(\.[0-9]{1,12})?([eE][+-]?[0-9])?`)
	rapid.Check(t, func(t *rapid.T) {
		a, b := text.Draw(t, "a"), text.Draw(t, "b")
		x, y := mustDecimal(t, a), mustDecimal(t, b)
		want := func(what string, got any, of *big.Rat) {
			d, ok := got.(*decimal)
			if !ok {
				t.Fatalf("%s of %s and %s is %v", what, a, b, got)
			}
			r, ok := new(big.Rat).SetString(d.text())
			if !ok || r.Cmp(of) != 0 {
				t.Errorf("%s of %s and %s is %s, want %s", what, a, b, d.text(), of.RatString())
			}
		}
		p, _ := new(big.Rat).SetString(a)
		q, _ := new(big.Rat).SetString(b)
		want("the value", x, p)
		want("the sum", x.Add(y), new(big.Rat).Add(p, q))
		want("the difference", x.Subtract(y), new(big.Rat).Sub(p, q))
		want("the negative", x.Negate(), new(big.Rat).Neg(p))
		if product, ok := x.Multiply(y).(*decimal); ok { // else too long
			want("the product", product, new(big.Rat).Mul(p, q))
		}
		if got := x.Compare(y); got != types.Int(p.Cmp(q)) {
			t.Errorf("%s compared with %s: %v", a, b, got)
		}
		if r, err := rational(p); err != nil || r.at(max(r.scale, x.scale)).Cmp(x.at(max(r.scale, x.scale))) != 0 {
			t.Errorf("%s as a fraction: %v %v", a, r, err)
		}
	})
}

func mustDecimal(t rapid.TB, text string) *decimal {
	d, err := parseDecimal(text)
	if err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return d
}

// Minor units are exact: an amount that is written with the currency's decimals
// comes out, one with a digit more is refused.
func TestMinorUnitsAreExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		currency := rapid.SampledFrom([]string{"EUR", "JPY", "KWD", "CLF"}).Draw(t, "currency")
		n := rapid.Int64Range(-1e15, 1e15).Draw(t, "minor")
		text, _, _ := strings.Cut(event.FormatMoney(n, currency), " ")
		for _, amount := range []string{text, text + strings.Repeat("0", rapid.IntRange(0, 9).Draw(t, "zeros"))} {
			if !strings.Contains(amount, ".") {
				amount = text // zeros would be another number
			}
			if got := minor(types.String(amount), types.String(currency)); got != types.Int(n) {
				t.Errorf("minor(%s, %s) is %v, want %d", amount, currency, got, n)
			}
		}
		if !strings.Contains(text, ".") {
			text += "."
		}
		finer := fmt.Sprintf("%s%d", text, rapid.IntRange(1, 9).Draw(t, "more"))
		r, ok := minor(types.String(finer), types.String(currency)).Value().(*event.Refusal)
		if !ok || r.Code != event.BadAmount {
			t.Errorf("minor(%s, %s) is %v", finer, currency, r)
		}
	})
	for _, c := range []struct {
		amount any
		code   event.Code
	}{
		{"1,50", event.BadAmount}, {"", event.BadAmount}, {"1.", event.BadAmount}, {".5", event.BadAmount}, {"0x10", event.BadAmount},
		{"9223372036854775808", event.BadAmount}, {strings.Repeat("9", 61), event.BadAmount}, {"1e99", event.BadAmount}, {true, event.BadAmount},
		{4.99, event.BadAmount}, // binary
	} {
		r, ok := minor(types.DefaultTypeAdapter.NativeToValue(c.amount), types.String("EUR")).Value().(*event.Refusal)
		if !ok || r.Code != c.code {
			t.Errorf("minor(%v) is %v, want %s", c.amount, r, c.code)
		}
	}
}

// Whatever the bytes are, the mapper answers an event for the decoder or a
// refusal, never a failure of its own, and always the same.
func FuzzMap(f *testing.F) {
	frame := func(id uint32, payload string) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{0}, id), payload...)
	}
	f.Add([]byte(`{"eventId":"e","kind":"ORDER_PAID","at":"2026-03-02T09:30:00Z","order":{"number":"1","total":4.5,"currency":"EUR"}}`))
	f.Add(frame(1, "\x02a\x02b"))
	f.Add(frame(2, "\x00\x0a\x01a"))
	f.Add(frame(3, `{"id":"a"}`))
	m := parse(f, strings.TrimRight(shop, "\n")+`
  framed:
    format: registry
    events:
      - type: cost
        id: value.id
        source: topic
        time: timestamp
        subject: key
        data:
          cost_id: value.id
          kind: {const: sales}
          amount_minor: minor(value.n, 'EUR')
          currency: {const: EUR}
schemas:
  - {id: 1, type: AVRO, schema: '{"type":"record","name":"r","fields":[{"name":"id","type":"string"},{"name":"n","type":[{"type":"bytes","logicalType":"decimal","precision":9,"scale":2},"string","double"]}]}'}
  - {id: 2, type: PROTOBUF, schema: 'syntax = "proto3"; message M { string id = 1; uint64 n = 2; M m = 3; map<string, M> k = 4; }'}
  - {id: 3, type: JSON}
`)
	for _, s := range m.Schemas() {
		if err := s.Check(); err != nil {
			f.Fatal(err)
		}
	}
	orders, framed := m.Mapper("shop-orders", event.Limits{}), m.Mapper("framed", event.Limits{})
	f.Fuzz(func(t *testing.T, value []byte) {
		for _, x := range []*Mapper{orders, framed} {
			first, r1 := judge(x, &event.Message{Key: []byte("c"), Value: value, Timestamp: now})
			again, r2 := judge(x, &event.Message{Key: []byte("c"), Value: value, Timestamp: now})
			if first != again || (r1 == nil) != (r2 == nil) || r1 != nil && r1.Code != r2.Code {
				t.Fatalf("%q: %+v %v, then %+v %v", value, first, r1, again, r2)
			}
		}
	})
}
