package mapping

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tierstream/tierstream/internal/event"
)

// shop is another company's shape: camel case, nested, decimal amounts, kinds
// of its own, and records that are no events.
const shop = `
topics:
  shop-orders:
    source: {const: /shop}
    subject: key
    id: value.eventId
    time: value.at
    events:
      - when: value.kind == 'ORDER_PAID'
        type: purchase
        data:
          order_id: value.order.number
          amount_minor: minor(value.order.total, value.order.currency)
          currency: value.order.currency
          category: value.order.?category
          channel: {const: web}
          test: value.order.?sandbox
      - when: value.kind == 'ORDER_REFUNDED'
        type: return
        data:
          return_id: value.eventId
          order_id: value.order.number
          amount_minor: minor(-value.order.total, value.order.currency)
          currency: value.order.currency
      - when: value.kind.startsWith('CART_')
        skip: true
`

func parse(t testing.TB, text string) *Mapping {
	t.Helper()
	m, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// now is the timestamp of all records here.
var now = time.Date(2026, time.March, 2, 10, 0, 0, 0, time.UTC).UnixMilli()

// judge maps and decodes, as the fold does.
func judge(x *Mapper, m *event.Message) (event.Event, *event.Refusal) {
	var ev event.Event
	mapped, refusal := x.Map(3, 17, m)
	if refusal == nil {
		if refusal = event.NewDecoder(event.Limits{}).Decode(mapped, &ev); refusal != nil {
			x.Explain(refusal)
		}
	}
	return ev, refusal
}

func TestMapsAnotherCompanysOrders(t *testing.T) {
	x := parse(t, shop).Mapper("shop-orders", event.Limits{})
	const order = `{"eventId":"e-1","kind":"KIND","at":"2026-03-02T09:30:00+01:00","order":{"number":"A-7","total":TOTAL,"currency":"EUR"MORE}}`
	fill := func(kind, total, more string) string {
		return strings.NewReplacer("KIND", kind, "TOTAL", total, "MORE", more).Replace(order)
	}
	want := event.Event{
		Type: event.Purchase, ID: "e-1", Source: "/shop", Customer: "c-1", Time: now - 90*60_000, BusinessID: "A-7",
		Amount: 4990, HasAmount: true, Currency: "EUR", Channel: "web",
	}
	categorised := want
	categorised.Category, categorised.Test = "shoes", true
	refund := event.Event{
		Type: event.Return, ID: "e-1", Source: "/shop", Customer: "c-1", Time: want.Time, BusinessID: "e-1", OrderID: "A-7",
		Amount: 500, HasAmount: true, Currency: "EUR", Kind: event.Goods,
	}
	for _, c := range []struct {
		name, value string
		want        event.Event
		code        event.Code
		field, says string
	}{
		{name: "a number", value: fill("ORDER_PAID", "49.90", ""), want: want},
		{name: "a text", value: fill("ORDER_PAID", `"49.9"`, ""), want: want},
		{name: "an exponent", value: fill("ORDER_PAID", "4.99e1", ""), want: want},
		{name: "optional fields", value: fill("ORDER_PAID", "49.90", `,"category":"shoes","sandbox":true`), want: categorised},
		{name: "nulls", value: fill("ORDER_PAID", "49.90", `,"category":null,"sandbox":null`), want: want},
		{name: "a refund", value: fill("ORDER_REFUNDED", "-5", ""), want: refund},
		{name: "skipped", value: fill("CART_LEFT", "1", ""), code: event.Skipped},
		{name: "no rule", value: fill("SHIPPED", "1", ""), code: event.UnknownType, field: "type", says: "shop-orders"},
		{name: "no kind", value: `{}`, code: event.UnknownType, field: "type"},
		{name: "inexact", value: fill("ORDER_PAID", "49.905", ""), code: event.BadAmount, field: "amount_minor", says: "49.905 EUR"},
		{name: "no number", value: fill("ORDER_PAID", `"49,90"`, ""), code: event.BadAmount, field: "amount_minor", says: `"49,90"`},
		{name: "negative", value: fill("ORDER_PAID", "-1", ""), code: event.NegativePurchase, field: "amount_minor", says: "minor(value.order.total"},
		{name: "no currency of this world", value: strings.Replace(fill("ORDER_PAID", "1", ""), "EUR", "EURO", 1), code: event.BadCurrency, field: "currency"},
		{name: "a required field is missing", value: strings.Replace(fill("ORDER_PAID", "1", ""), "number", "nr", 1), code: event.MissingField, field: "order_id", says: "value.order.number: there is nothing: no such key: number"},
		{name: "a required field is null", value: strings.Replace(fill("ORDER_PAID", "1", ""), `"A-7"`, "null", 1), code: event.MissingField, field: "order_id"},
		{name: "a number where a text must be", value: strings.Replace(fill("ORDER_PAID", "1", ""), `"A-7"`, "7", 1), code: event.WrongType, field: "order_id", says: "mapped from value.order.number"},
		{name: "no offset", value: strings.Replace(fill("ORDER_PAID", "1", ""), "+01:00", "", 1), code: event.BadTime, field: "time"},
		{name: "an object where a text must be", value: strings.Replace(fill("ORDER_PAID", "1", ""), `"A-7"`, "{}", 1), code: event.WrongType, field: "order_id"},
		{name: "no JSON", value: `{"eventId":`, code: event.Malformed},
		{name: "twice", value: `{"a":1,"a":2}`, code: event.Malformed, says: `"a" occurs twice`},
		{name: "two values", value: `{} {}`, code: event.Malformed},
		{name: "not UTF-8", value: "{\"a\":\"\xff\"}", code: event.Malformed},
		{name: "deep", value: strings.Repeat("[", 17) + strings.Repeat("]", 17), code: event.Malformed, says: "nested"},
		{name: "of a registry", value: "\x00\x00\x00\x00\x11rest", code: event.Malformed, says: "format: registry"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, r := judge(x, &event.Message{Key: []byte("c-1"), Value: []byte(c.value), Timestamp: now})
			if c.code == event.Applied {
				if r != nil {
					t.Fatal(r)
				}
				got.Content = 0
				if !reflect.DeepEqual(got, c.want) {
					t.Errorf("got  %+v\nwant %+v", got, c.want)
				}
				return
			}
			if r == nil || r.Code != c.code || r.Field != c.field || !strings.Contains(r.Detail, c.says) {
				t.Errorf("got %v, want %s %s: …%s…", r, c.code, c.field, c.says)
			}
		})
	}
}

// A tombstone, and what is too large, are the decoder's to refuse.
func TestTombstonesAreRefusedAsEverywhere(t *testing.T) {
	x := parse(t, shop).Mapper("shop-orders", event.Limits{})
	for _, value := range [][]byte{nil, []byte(strings.Repeat(" ", 1<<20+1))} {
		if _, r := judge(x, &event.Message{Key: []byte("c-1"), Value: value, Timestamp: now}); r == nil || r.Code != event.Malformed {
			t.Errorf("%d bytes: %v", len(value), r)
		}
	}
}

// What a mapping is comes out of its JSON again, to the byte, and does the same.
func TestJSONIsTheContent(t *testing.T) {
	m := parse(t, shop).With(&Schema{ID: 9, Type: JSON}, &Schema{ID: 2, Type: Avro, Text: `"string"`, References: []Reference{{"a.A", `"int"`}}})
	first, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var again Mapping
	if err := json.Unmarshal(first, &again); err != nil {
		t.Fatal(err)
	}
	second, err := json.Marshal(&again)
	if err != nil {
		t.Fatal(err)
	}
	if string(first) != string(second) {
		t.Errorf("first\n%s\nthen\n%s", first, second)
	}
	if s := again.Schemas(); len(s) != 2 || s[0].ID != 2 || s[1].ID != 9 || s[0].References[0].Text != `"int"` {
		t.Errorf("schemas %+v", s)
	}
	_, r := judge(again.Mapper("shop-orders", event.Limits{}), &event.Message{Key: []byte("c"), Value: []byte(`{"kind":"CART_X"}`)})
	if r == nil || r.Code != event.Skipped {
		t.Errorf("got %v", r)
	}
}

// Builds differ in what they print for the same record; decisions must not.
func TestErrorsReadTheSameInEveryBuild(t *testing.T) {
	for _, s := range []string{"proto: cannot parse", "proto:\u00a0cannot parse"} {
		if got := plain(errors.New(s)); got != "proto: cannot parse" {
			t.Errorf("%q", got)
		}
	}
}
