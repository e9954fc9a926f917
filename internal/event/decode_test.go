package event

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vmihailenco/msgpack/v5"
	"pgregory.net/rapid"
)

// message is e as a record written at e's own time.
func message(t rapid.TB, e *Event, f Format) *Message {
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

func TestDecodeReadsEveryValidEventInEveryFormat(t *testing.T) {
	d := NewDecoder(Limits{})
	rapid.Check(t, func(t *rapid.T) {
		want := drawEvent(t)
		f := rapid.SampledFrom(Formats[:]).Draw(t, "format")
		m := message(t, &want, f)
		var got Event
		if r := d.Decode(m, &got); r != nil {
			t.Fatalf("refused: %v\n%s", r, m.Value)
		}
		// What an event holds must outlive the record and the next Decode.
		clear(m.Value)
		for _, h := range m.Headers {
			clear(h.Value)
		}
		var other Event
		d.Decode(message(t, &want, StructuredJSON), &other)
		if got != want {
			t.Fatalf("as %s:\n got %+v\nwant %+v", f, got, want)
		}
	})
}

// drawEvent draws any valid event.
func drawEvent(t *rapid.T) Event {
	texts := rapid.StringOfN(rapid.Rune(), 0, 40, maxID)
	id := texts.Filter(func(s string) bool { return idFault([]byte(s)) == "" })
	amount := rapid.Int64Range(0, defaultMaxAmount)
	e := Event{
		Type:       Type(rapid.IntRange(int(Purchase), int(Cost)).Draw(t, "type")),
		ID:         id.Draw(t, "id"),
		Source:     id.Draw(t, "source"),
		Customer:   id.Draw(t, "customer"),
		Time:       rapid.Int64Range(0, endOfTime-1).Draw(t, "time"),
		BusinessID: id.Draw(t, "business id"),
		Test:       rapid.Bool().Draw(t, "test"),
	}
	if rapid.Bool().Draw(t, "traced") {
		e.Trace = rapid.StringMatching(`00-[0-9a-f]{31}1-[0-9a-f]{15}1-0[01]`).Draw(t, "trace")
	}
	status := func(first, last Status) Status {
		return Status(rapid.IntRange(int(first), int(last)).Draw(t, "status"))
	}
	kind := func(first, last Kind) Kind {
		return Kind(rapid.IntRange(int(first), int(last)).Draw(t, "kind"))
	}
	money := func(lowest int64, need bool) {
		if e.HasAmount = need || rapid.Bool().Draw(t, "has amount"); e.HasAmount {
			e.Amount = max(lowest, amount.Draw(t, "amount"))
			e.Currency = rapid.SampledFrom(currencies).Draw(t, "currency").code
		}
	}
	perhaps := func(name string, amounts *rapid.Generator[int64]) (int64, bool) {
		if !rapid.Bool().Draw(t, "has "+name) {
			return 0, false
		}
		return amounts.Draw(t, name), true
	}
	switch e.Type {
	case Purchase:
		money(0, true)
		e.Base, e.HasBase = perhaps("base", amount)
		e.Cost, e.HasCost = perhaps("cost", amount)
		e.Margin, e.HasMargin = perhaps("margin", rapid.Int64Range(-defaultMaxAmount, defaultMaxAmount))
		e.FXRate = rapid.SampledFrom([]string{"", "1", "0.5", "1.0842", "0.00000000000000001", "999999999999999999"}).Draw(t, "rate")
		e.Category = texts.Draw(t, "category")
		e.Channel = texts.Draw(t, "channel")
		e.Unpaid = rapid.Bool().Draw(t, "unpaid")
	case Return:
		e.OrderID = id.Draw(t, "order")
		money(1, true)
		e.Kind = kind(Goods, Chargeback)
		e.Reason = rapid.StringOfN(rapid.Rune(), 0, 200, maxReason).Draw(t, "reason")
	case Complaint:
		e.Severity = uint8(rapid.IntRange(1, 5).Draw(t, "severity"))
		e.Status = status(Opened, Rejected)
		if rapid.Bool().Draw(t, "has order") {
			e.OrderID = id.Draw(t, "order")
		}
		money(0, false)
	case Referral:
		e.RefereeID = id.Filter(func(s string) bool { return s != e.Customer }).Draw(t, "referee")
		e.Status = status(Invited, Reversed)
		money(0, false)
	case Feedback:
		e.Kind = kind(NPS, Suggestion)
		switch e.Kind {
		case NPS:
			e.ScaleMax = 10
			e.Score = int32(rapid.IntRange(0, 10).Draw(t, "score"))
		case CSAT, CES:
			e.ScaleMax = int32(rapid.IntRange(2, 100).Draw(t, "scale"))
			e.Score = int32(rapid.IntRange(1, int(e.ScaleMax)).Draw(t, "score"))
		}
	case Cost:
		e.Kind = kind(Acquisition, Sales)
		money(0, true)
	}
	e.Content = ContentHash(&e)
	return e
}

// The record of the tests below, one attribute or field wrong at a time: a
// purchase in binary mode that would be accepted.
const goodData = `{"order_id":"o1","amount_minor":4990,"currency":"EUR"}`

var recordTime = time.Date(2026, 3, 2, 9, 30, 0, 0, time.UTC).UnixMilli()

func record(data string, changes ...string) *Message {
	m := &Message{Key: []byte("c1"), Value: []byte(data), Timestamp: recordTime}
	for _, h := range [][2]string{
		{"ce_specversion", "1.0"}, {"ce_id", "e1"}, {"ce_source", "/shop"}, {"ce_type", "io.tierstream.purchase.v1"},
		{"ce_time", "2026-03-02T10:30:00+01:00"}, {"ce_subject", "c1"}, {"content-type", "application/json"},
	} {
		m.Headers = append(m.Headers, Header{h[0], []byte(h[1])})
	}
	for _, change := range changes {
		key, v, set := strings.Cut(change, "=")
		m.Headers = slices.DeleteFunc(m.Headers, func(h Header) bool { return h.Key == key })
		if set {
			m.Headers = append(m.Headers, Header{key, []byte(v)})
		}
	}
	return m
}

func TestDecodeRefuses(t *testing.T) {
	purchase := func(change string) string {
		return strings.TrimSuffix(goodData, "}") + "," + change + "}"
	}
	typed := func(name string) string { return "ce_type=io.tierstream." + name + ".v1" }
	long := strings.Repeat("x", maxID+1)
	structured := "content-type=application/cloudevents+json"
	envelope := func(rest string) string {
		return `{"specversion":"1.0","id":"e1","source":"/s","type":"io.tierstream.purchase.v1",` +
			`"time":"2026-03-02T09:30:00Z","subject":"c1"` + rest + `}`
	}
	for _, c := range []struct {
		name  string
		m     *Message
		code  Code
		field string
	}{
		{"a tombstone", &Message{Headers: record("").Headers}, Malformed, ""},
		{"no bytes", record(""), Malformed, "data"},
		{"half a value", record(`{"order_id":`), Malformed, "data"},
		{"bytes after", record(goodData + "x"), Malformed, "data"},
		{"not UTF-8", record("{\"order_id\":\"\xff\"}"), Malformed, "data"},
		{"a name twice", record(purchase(`"order_id":"o2"`)), Malformed, "data"},
		{"an unknown name twice", record(purchase(`"x":1,"y":2,"x":3`)), Malformed, "data"},
		{"a name twice, once escaped", record(purchase(`"order\u005fid":"o2"`)), Malformed, "data"},
		{"a name twice far within", record(purchase(`"x":[{"y":{"a":1,"a":2}}]`)), Malformed, "data"},
		{"a lone surrogate", record(purchase(`"category":"\ud800"`)), Malformed, "data"},
		{"a deep skipped field", record(purchase(`"x":` + strings.Repeat("[", 16) + strings.Repeat("]", 16))), Malformed, "data"},
		{"too many bytes", record(purchase(`"x":"` + strings.Repeat("x", 1<<20) + `"`)), Malformed, ""},
		{"a long category", record(purchase(`"category":"` + long + `"`)), Malformed, "category"},
		{"a header twice", &Message{Value: []byte(goodData), Timestamp: recordTime,
			Headers: append(record("").Headers, Header{"ce_id", []byte("e2")})}, Malformed, "id"},
		{"a header that is not UTF-8", record(goodData, "ce_subject=\xff"), Malformed, "subject"},
		{"another encoding", record(goodData, "content-type=text/xml"), Malformed, "content-type"},
		{"a batch", record(`[]`, "content-type=application/cloudevents-batch+json"), Malformed, "content-type"},
		{"no CloudEvent", &Message{Value: []byte(goodData)}, MissingField, "specversion"},
		{"another CloudEvents version", record(goodData, "ce_specversion=0.3"), Malformed, "specversion"},
		{"JSON for msgpack", record(goodData, "content-type=application/msgpack"), Malformed, "data"},

		{"an envelope that is no object", record(`[]`, structured), Malformed, ""},
		{"an attribute twice", record(envelope(`,"id":"e2","data":`+goodData), structured), Malformed, ""},
		{"data twice over", record(envelope(`,"data":{},"data_base64":"e30="`), structured), Malformed, "data"},
		{"base64 that is a number", record(envelope(`,"data_base64":7`), structured), Malformed, "data_base64"},
		{"a content type that is a number", record(envelope(`,"datacontenttype":7,"data":{}`), structured), Malformed, "datacontenttype"},
		{"a content type twice", &Message{Value: []byte(goodData), Timestamp: recordTime,
			Headers: append(record("").Headers, Header{"content-type", []byte("application/json")})}, Malformed, "content-type"},
		{"not base64", record(envelope(`,"data_base64":"###"`), structured), Malformed, "data_base64"},
		{"msgpack outside of base64", record(envelope(`,"datacontenttype":"application/msgpack","data":{}`), structured), Malformed, "datacontenttype"},
		{"an attribute of a wrong type", record(`{"specversion":"1.0","type":7,"data":{}}`, structured), WrongType, "type"},
		{"no data", record(envelope(``), structured), MissingField, "data"},
		{"null data", record(envelope(`,"data":null`), structured), MissingField, "data"},
		{"data that is a string", record(envelope(`,"data":"x"`), structured), WrongType, "data"},

		{"no type", record(goodData, "ce_type"), MissingField, "type"},
		{"a foreign type", record(goodData, "ce_type=com.example.purchase.v1"), UnknownType, "type"},
		{"a type to come", record(goodData, typed("merge")), UnknownType, "type"},
		{"a type without version", record(goodData, "ce_type=io.tierstream.purchase"), UnknownType, "type"},
		{"a type with more", record(goodData, typed("purchase.recorded")), UnknownType, "type"},
		{"a newer version", record(goodData, "ce_type=io.tierstream.purchase.v2"), UnsupportedVersion, "type"},

		{"no id", record(goodData, "ce_id"), MissingField, "id"},
		{"an empty id", record(goodData, "ce_id="), BadID, "id"},
		{"an empty source", record(goodData, "ce_source="), BadID, "source"},
		{"nobody", record(goodData, "ce_subject=Anonymous"), BadID, "subject"},
		{"null as a word", record(goodData, "ce_subject=NULL"), BadID, "subject"},
		{"undefined", record(goodData, "ce_subject=undefined"), BadID, "subject"},
		{"outer space", record(goodData, "ce_subject=c1 "), BadID, "subject"},
		{"outer space beyond ASCII", record(goodData, "ce_subject=\u00a0c1"), BadID, "subject"},
		{"a control character", record(goodData, "ce_subject=c\x00"), BadID, "subject"},
		{"a control character beyond ASCII", record(goodData, "ce_subject=c\u0085c"), BadID, "subject"},
		{"a long subject", record(goodData, "ce_subject="+long), BadID, "subject"},
		{"an empty order", record(`{"order_id":""}`), BadID, "order_id"},

		{"no time", record(goodData, "ce_time"), MissingField, "time"},
		{"a time without offset", record(goodData, "ce_time=2026-03-02T09:30:00"), BadTime, "time"},
		{"a date", record(goodData, "ce_time=2026-03-02"), BadTime, "time"},
		{"before 1970", record(goodData, "ce_time=1969-12-31T23:59:59Z"), BadTime, "time"},
		{"ahead of its record", record(goodData, "ce_time=2026-03-02T09:35:00.001Z"), FutureTime, "time"},

		{"no amount", record(`{"order_id":"o1","currency":"EUR"}`), MissingField, "amount_minor"},
		{"a null amount", record(`{"order_id":"o1","amount_minor":null,"currency":"EUR"}`), MissingField, "amount_minor"},
		{"a string amount", record(`{"order_id":"o1","amount_minor":"4990"}`), WrongType, "amount_minor"},
		{"a numeric order", record(`{"order_id":17}`), WrongType, "order_id"},
		{"a fraction", record(`{"order_id":"o1","amount_minor":49.90}`), BadAmount, "amount_minor"},
		{"an exponent", record(`{"order_id":"o1","amount_minor":1e3}`), BadAmount, "amount_minor"},
		{"beyond int64", record(`{"order_id":"o1","amount_minor":9223372036854775808}`), BadAmount, "amount_minor"},
		{"above the cap", record(`{"order_id":"o1","amount_minor":1000000000001}`), BadAmount, "amount_minor"},
		{"a negative purchase", record(`{"order_id":"o1","amount_minor":-1}`), NegativePurchase, "amount_minor"},
		{"a lower case currency", record(`{"order_id":"o1","amount_minor":1,"currency":"eur"}`), BadCurrency, "currency"},
		{"no currency of any country", record(`{"order_id":"o1","amount_minor":1,"currency":"ABC"}`), BadCurrency, "currency"},
		{"gold", record(`{"order_id":"o1","amount_minor":1,"currency":"XAU"}`), BadCurrency, "currency"},
		{"a negative base amount", record(purchase(`"base_amount_minor":-1`)), BadAmount, "base_amount_minor"},
		{"a rate of zero", record(purchase(`"fx_rate":"0.0"`)), BadAmount, "fx_rate"},
		{"a rate with an exponent", record(purchase(`"fx_rate":"1e3"`)), BadAmount, "fx_rate"},
		{"a rate of 19 digits", record(purchase(`"fx_rate":"1.000000000000000001"`)), BadAmount, "fx_rate"},
		{"a rate as a number", record(purchase(`"fx_rate":1.5`)), WrongType, "fx_rate"},
		{"a negative cost", record(purchase(`"cost_minor":-1`)), BadCost, "cost_minor"},
		{"a margin below the cap", record(purchase(`"margin_minor":-1000000000001`)), BadAmount, "margin_minor"},
		{"an unknown status", record(purchase(`"status":"shipped"`)), BadStatus, "status"},
		{"test as a word", record(purchase(`"test":"yes"`)), WrongType, "test"},

		{"a return of nothing", record(`{"return_id":"r1","order_id":"o1","amount_minor":0,"currency":"EUR"}`, typed("return")), BadAmount, "amount_minor"},
		{"a negative return", record(`{"return_id":"r1","order_id":"o1","amount_minor":-5,"currency":"EUR"}`, typed("return")), BadAmount, "amount_minor"},
		{"a return of no order", record(`{"return_id":"r1","amount_minor":5,"currency":"EUR"}`, typed("return")), MissingField, "order_id"},
		{"a kind of no return", record(`{"return_id":"r1","order_id":"o1","amount_minor":5,"currency":"EUR","kind":"nps"}`, typed("return")), BadStatus, "kind"},
		{"severity 0", record(`{"complaint_id":"k1","severity":0,"status":"opened"}`, typed("complaint")), BadSeverity, "severity"},
		{"severity 257", record(`{"complaint_id":"k1","severity":257,"status":"opened"}`, typed("complaint")), BadSeverity, "severity"},
		{"half a severity", record(`{"complaint_id":"k1","severity":2.5,"status":"opened"}`, typed("complaint")), BadSeverity, "severity"},
		{"severity as a word", record(`{"complaint_id":"k1","severity":"high","status":"opened"}`, typed("complaint")), WrongType, "severity"},
		{"a referral's status", record(`{"complaint_id":"k1","severity":1,"status":"converted"}`, typed("complaint")), BadStatus, "status"},
		{"compensation in no currency", record(`{"complaint_id":"k1","severity":1,"status":"opened","compensation_minor":5}`, typed("complaint")), MissingField, "currency"},
		{"recommending oneself", record(`{"referral_id":"f1","referee_id":"c1","status":"invited"}`, typed("referral")), SelfReferral, "referee_id"},
		{"a negative value", record(`{"referral_id":"f1","referee_id":"c2","status":"invited","value_minor":-1}`, typed("referral")), BadAmount, "value_minor"},
		{"no score", record(`{"response_id":"s1","kind":"nps"}`, typed("feedback")), MissingField, "score"},
		{"NPS 11", record(`{"response_id":"s1","kind":"nps","score":11}`, typed("feedback")), BadScore, "score"},
		{"NPS -1", record(`{"response_id":"s1","kind":"nps","score":-1}`, typed("feedback")), BadScore, "score"},
		{"NPS of 100", record(`{"response_id":"s1","kind":"nps","score":9,"scale_max":100}`, typed("feedback")), BadScore, "scale_max"},
		{"CSAT 0", record(`{"response_id":"s1","kind":"csat","score":0}`, typed("feedback")), BadScore, "score"},
		{"CSAT 6 of 5", record(`{"response_id":"s1","kind":"csat","score":6}`, typed("feedback")), BadScore, "score"},
		{"CES of 1", record(`{"response_id":"s1","kind":"ces","score":1,"scale_max":1}`, typed("feedback")), BadScore, "scale_max"},
		{"CES of 2^32+7", record(`{"response_id":"s1","kind":"ces","score":1,"scale_max":4294967303}`, typed("feedback")), BadScore, "scale_max"},
		{"half a score", record(`{"response_id":"s1","kind":"csat","score":4.5}`, typed("feedback")), BadScore, "score"},
		{"an unknown feedback", record(`{"response_id":"s1","kind":"stars","score":4}`, typed("feedback")), BadStatus, "kind"},
		{"a negative expense", record(`{"cost_id":"a1","kind":"service","amount_minor":-1,"currency":"EUR"}`, typed("cost")), BadCost, "amount_minor"},
		{"no kind of cost", record(`{"cost_id":"a1","amount_minor":1,"currency":"EUR"}`, typed("cost")), MissingField, "kind"},
	} {
		var ev Event
		r := NewDecoder(Limits{}).Decode(c.m, &ev)
		if r == nil {
			t.Errorf("%s: accepted as %+v", c.name, ev)
		} else if r.Code != c.code || r.Field != c.field {
			t.Errorf("%s: refused by %v, want %s %s", c.name, r, c.code, c.field)
		}
		if ev.Content != 0 {
			t.Errorf("%s: a refused event has a content hash", c.name)
		}
	}
}

func TestDecodeAccepts(t *testing.T) {
	purchase := func(change string) string {
		return strings.TrimSuffix(goodData, "}") + "," + change + "}"
	}
	for _, c := range []struct {
		name  string
		m     *Message
		holds func(*Event) bool
	}{
		{"a free order", record(`{"order_id":"o1","amount_minor":0,"currency":"EUR"}`),
			func(e *Event) bool { return e.Amount == 0 && e.HasAmount }},
		{"an id of zeros", record(goodData, "ce_id=000"), func(e *Event) bool { return e.ID == "000" }},
		{"an id of 128 bytes", record(goodData, "ce_subject="+strings.Repeat("x", maxID)),
			func(e *Event) bool { return len(e.Customer) == maxID }},
		{"unknown fields", record(purchase(`"x":{"y":[1,2.5e-3,null,"\u00e9\ud83d\ude00"]},"tax_minor":-1`)),
			func(e *Event) bool { return e.Amount == 4990 }},
		{"fields of other types", record(purchase(`"severity":"high","referee_id":7`)),
			func(e *Event) bool { return e.Severity == 0 && e.RefereeID == "" }},
		{"optional nulls", record(purchase(`"cost_minor":null,"category":null,"status":null,"test":null,"fx_rate":null`)),
			func(e *Event) bool { return !e.HasCost && !e.Test && !e.Unpaid }},
		{"optional zeros", record(purchase(`"cost_minor":0,"margin_minor":-3,"base_amount_minor":0`)),
			func(e *Event) bool { return e.HasCost && e.Margin == -3 && e.HasBase }},
		{"paid", record(purchase(`"status":"paid"`)), func(e *Event) bool { return !e.Unpaid }},
		{"pending", record(purchase(`"status":"pending"`)), func(e *Event) bool { return e.Unpaid }},
		{"failed", record(purchase(`"status":"failed"`)), func(e *Event) bool { return e.Unpaid }},
		{"voided", record(purchase(`"status":"voided"`)), func(e *Event) bool { return e.Unpaid }},
		{"a test order", record(purchase(`"test":true`)), func(e *Event) bool { return e.Test }},
		{"an escaped text", record(purchase(`"category":"a\"\\\/\b\f\n\r\t\u00e9"`)),
			func(e *Event) bool { return e.Category == "a\"\\/\b\f\n\r\té" }},
		{"minus zero", record(`{"order_id":"o1","amount_minor":-0,"currency":"EUR"}`), func(e *Event) bool { return e.Amount == 0 }},
		{"no content type", record(goodData, "content-type"), func(e *Event) bool { return e.Amount == 4990 }},
		{"a parameter", record(goodData, "content-type=Application/JSON; charset=utf-8"), func(e *Event) bool { return e.Amount == 4990 }},
		{"a JSON dialect", record(goodData, "content-type=application/vnd.shop+json"), func(e *Event) bool { return e.Amount == 4990 }},
		{"a little ahead", record(goodData, "ce_time=2026-03-02T09:35:00Z"), func(e *Event) bool { return e.Time == recordTime+300_000 }},
		{"a microsecond", record(goodData, "ce_time=2026-03-02T09:30:00.001999Z"), func(e *Event) bool { return e.Time == recordTime+1 }},
		{"a trace", record(goodData, "ce_traceparent=00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
			func(e *Event) bool { return e.Trace != "" }},
		{"a trace as Kafka clients put it", record(goodData, "traceparent=00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
			func(e *Event) bool { return e.Trace != "" }},
		{"a broken trace", record(goodData, "ce_traceparent=00-00000000000000000000000000000000-00f067aa0ba902b7-01"),
			func(e *Event) bool { return e.Trace == "" }},
		{"JSON in base64", record(`{"specversion":"1.0","id":"e\u0031","source":"/s","type":"io.tierstream.purchase.v1",`+
			`"time":"2026-03-02T09:30:00Z","subject":"c\u0031","data":null,"data_base64":"`+
			base64.StdEncoding.EncodeToString([]byte(`{"order_id":"o\u0032","amount_minor":1,"currency":"EUR"}`))+`"}`,
			"content-type=application/cloudevents+json; charset=UTF-8"),
			func(e *Event) bool { return e.ID == "e1" && e.Customer == "c1" && e.BusinessID == "o2" }},
		{"a return of unstated kind", record(`{"return_id":"r1","order_id":"o1","amount_minor":1,"currency":"EUR"}`, "ce_type=io.tierstream.return.v1"),
			func(e *Event) bool { return e.Kind == Goods }},
		{"CSAT of 5", record(`{"response_id":"s1","kind":"csat","score":5}`, "ce_type=io.tierstream.feedback.v1"),
			func(e *Event) bool { return e.ScaleMax == 5 }},
		{"praise with a score nobody asked for", record(`{"response_id":"s1","kind":"praise","score":"!"}`, "ce_type=io.tierstream.feedback.v1"),
			func(e *Event) bool { return e.Kind == Praise && e.Score == 0 && e.ScaleMax == 0 }},
	} {
		var ev Event
		if r := NewDecoder(Limits{}).Decode(c.m, &ev); r != nil {
			t.Errorf("%s: refused: %v", c.name, r)
		} else if !c.holds(&ev) {
			t.Errorf("%s: decoded as %+v", c.name, ev)
		}
	}
}

func TestRefusalsComeInTheirDocumentedOrder(t *testing.T) {
	// Everything is wrong; each step repairs what is refused.
	headers := []string{"ce_specversion=1.0", "ce_type=x", "ce_id=", "ce_source=", "ce_time=x", "ce_subject="}
	data := `{`
	for _, step := range []struct {
		code   Code
		field  string
		repair func()
	}{
		{Malformed, "data", func() { data = `[]` }},
		{UnknownType, "type", func() { headers[1] = "ce_type=io.tierstream.purchase.v1" }},
		{BadID, "id", func() { headers[2] = "ce_id=e1" }},
		{BadID, "source", func() { headers[3] = "ce_source=/s" }},
		{BadTime, "time", func() { headers[4] = "ce_time=2027-01-01T00:00:00Z" }},
		{FutureTime, "time", func() { headers[4] = "ce_time=2026-03-02T09:30:00Z" }},
		{BadID, "subject", func() { headers[5] = "ce_subject=c1" }},
		{WrongType, "data", func() {
			data = `{"test":1,"status":"?","channel":1,"category":1,"margin_minor":"","cost_minor":-1,"fx_rate":"",` +
				`"base_amount_minor":-1,"currency":"","amount_minor":-1,"order_id":""}`
		}},
		{BadID, "order_id", func() { data = strings.Replace(data, `"order_id":""`, `"order_id":"o1"`, 1) }},
		{NegativePurchase, "amount_minor", func() { data = strings.Replace(data, `"amount_minor":-1`, `"amount_minor":1`, 1) }},
		{BadCurrency, "currency", func() { data = strings.Replace(data, `"currency":""`, `"currency":"EUR"`, 1) }},
		{BadAmount, "base_amount_minor", func() { data = strings.Replace(data, `"base_amount_minor":-1`, `"base_amount_minor":1`, 1) }},
		{BadAmount, "fx_rate", func() { data = strings.Replace(data, `"fx_rate":""`, `"fx_rate":"1"`, 1) }},
		{BadCost, "cost_minor", func() { data = strings.Replace(data, `"cost_minor":-1`, `"cost_minor":1`, 1) }},
		{WrongType, "margin_minor", func() { data = strings.Replace(data, `"margin_minor":""`, `"margin_minor":1`, 1) }},
		{WrongType, "category", func() { data = strings.Replace(data, `"category":1`, `"category":""`, 1) }},
		{WrongType, "channel", func() { data = strings.Replace(data, `"channel":1`, `"channel":""`, 1) }},
		{BadStatus, "status", func() { data = strings.Replace(data, `"status":"?"`, `"status":"paid"`, 1) }},
		{WrongType, "test", func() { data = strings.Replace(data, `"test":1`, `"test":false`, 1) }},
	} {
		var ev Event
		r := NewDecoder(Limits{}).Decode(record(data, headers...), &ev)
		if r == nil || r.Code != step.code || r.Field != step.field {
			t.Fatalf("refused by %v, want %s %s", r, step.code, step.field)
		}
		step.repair()
	}
	var ev Event
	if r := NewDecoder(Limits{}).Decode(record(data, headers...), &ev); r != nil {
		t.Fatalf("all repaired, refused by %v", r)
	}
}

func TestRefusedRecordStillSaysWhoseItIs(t *testing.T) {
	for name, m := range map[string]*Message{
		"bad data":     record(`{`),
		"unknown type": record(goodData, "ce_type=io.tierstream.merge.v1"),
		"bad id":       record(goodData, "ce_id="),
		"bad amount":   record(`{"order_id":"o1","amount_minor":"x"}`),
	} {
		var ev Event
		if r := NewDecoder(Limits{}).Decode(m, &ev); r == nil {
			t.Errorf("%s: accepted", name)
		}
		if ev.Customer != "c1" || ev.Time != recordTime || ev.Source != "/shop" || !KeyMatches(m, &ev) {
			t.Errorf("%s: understood only %+v", name, ev)
		}
	}
}

func TestHalfAnEnvelopeSaysNothing(t *testing.T) {
	var ev Event
	m := record(`{"specversion":"1.0","subject":"c1","id":"e1","id":"e2"}`, "content-type=application/cloudevents+json")
	if r := NewDecoder(Limits{}).Decode(m, &ev); r == nil || r.Code != Malformed || ev != (Event{}) {
		t.Errorf("%v, understood %+v", r, ev)
	}
}

func TestKeyMatchesOnlyTheSubject(t *testing.T) {
	for key, want := range map[string]bool{"c1": true, "C1": false, "c1 ": false, "": false, "c": false} {
		if got := KeyMatches(&Message{Key: []byte(key)}, &Event{Customer: "c1"}); got != want {
			t.Errorf("key %q: %t", key, got)
		}
	}
	if KeyMatches(&Message{}, &Event{Customer: "c1"}) {
		t.Error("a record without key matches")
	}
}

func TestLimitsAreKept(t *testing.T) {
	d := NewDecoder(Limits{MaxBytes: len(goodData), MaxDepth: 1, MaxAmount: 4990, MaxSkew: time.Nanosecond})
	var ev Event
	if r := d.Decode(record(goodData), &ev); r != nil {
		t.Errorf("at the limits: %v", r)
	}
	for name, c := range map[string]struct {
		m    *Message
		code Code
	}{
		"bytes":  {record(goodData + " "), Malformed},
		"depth":  {record(`{"x":[]}`), Malformed},
		"amount": {record(strings.Replace(goodData, "4990", "4991", 1)), BadAmount},
		"skew":   {record(goodData, "ce_time=2026-03-02T09:30:00.001Z"), FutureTime},
	} {
		if r := d.Decode(c.m, &ev); r == nil || r.Code != c.code {
			t.Errorf("%s: %v, want %s", name, r, c.code)
		}
	}
	for _, l := range []Limits{{MaxBytes: -1}, {MaxDepth: -1}, {MaxDepth: 1001}, {MaxAmount: -1}, {MaxSkew: -1}} {
		if l.Validate() == nil {
			t.Errorf("%+v is valid", l)
		}
	}
	if err := (Limits{}).Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
}

// A record may claim any length; only the bytes it has count.
func TestMsgpackLengthsAreNotBelieved(t *testing.T) {
	name := append([]byte{0x81, 0xa1}, 'x')
	for what, data := range map[string][]byte{
		"a map of 2^32-1":       {0xdf, 0xff, 0xff, 0xff, 0xff},
		"an array of 2^32-1":    append(bytes.Clone(name), 0xdd, 0xff, 0xff, 0xff, 0xff),
		"a string of 2^32-1":    append(bytes.Clone(name), 0xdb, 0xff, 0xff, 0xff, 0xff),
		"bytes of 2^32-1":       append(bytes.Clone(name), 0xc6, 0xff, 0xff, 0xff, 0xff),
		"an extension":          append(bytes.Clone(name), 0xc9, 0xff, 0xff, 0xff, 0xff, 1),
		"a name of 2^32-1":      {0x81, 0xdb, 0xff, 0xff, 0xff, 0xff},
		"a name that is a map":  {0x81, 0x80, 0x01},
		"the code of nothing":   append(bytes.Clone(name), 0xc1),
		"a name twice":          {0x82, 0xa1, 'x', 1, 0xa1, 'x', 2},
		"a string not of UTF-8": append(bytes.Clone(name), 0xa1, 0xff),
		"bytes after":           {0x80, 0x00},
		"deep nesting":          append(bytes.Clone(name), bytes.Repeat([]byte{0x91}, 100)...),
	} {
		m := record(string(data), "content-type=application/msgpack")
		d := NewDecoder(Limits{})
		var ev Event
		if r := d.Decode(m, &ev); r == nil || r.Code != Malformed {
			t.Errorf("%s: %v", what, r)
		}
		if n := testing.AllocsPerRun(10, func() { d.Decode(m, &ev) }); n > 20 {
			t.Errorf("%s: %v allocations", what, n)
		}
	}
}

func TestMsgpackNumbersOfEveryWidth(t *testing.T) {
	for _, want := range []int64{0, 127, 128, 255, 256, 65535, 65536, 1<<32 - 1, 1 << 32, defaultMaxAmount} {
		for name, v := range map[string]any{"int64": want, "uint64": uint64(want)} {
			data, err := msgpack.Marshal(map[string]any{"order_id": "o1", "amount_minor": v, "currency": "EUR",
				"margin_minor": -want, "extra": []any{time.Unix(0, 0), []byte("x"), 1.5}})
			if err != nil {
				t.Fatal(err)
			}
			var ev Event
			if r := NewDecoder(Limits{}).Decode(record(string(data), "content-type=application/x-msgpack"), &ev); r != nil {
				t.Errorf("%s %d: %v", name, want, r)
			} else if ev.Amount != want || ev.Margin != -want {
				t.Errorf("%s %d: decoded as %d, %d", name, want, ev.Amount, ev.Margin)
			}
		}
	}
	for _, v := range []any{1.0, float32(2), uint64(1 << 63)} {
		data, err := msgpack.Marshal(map[string]any{"order_id": "o1", "amount_minor": v, "currency": "EUR"})
		if err != nil {
			t.Fatal(err)
		}
		var ev Event
		if r := NewDecoder(Limits{}).Decode(record(string(data), "content-type=application/vnd.msgpack"), &ev); r == nil || r.Code != BadAmount {
			t.Errorf("%v: %v, want bad_amount", v, r)
		}
	}
}

func TestDecodeAllocatesOnlyTheEventsStrings(t *testing.T) {
	for _, e := range Examples() {
		want := 0.0
		for _, s := range []string{e.ID, e.Customer, e.Trace, e.BusinessID, e.OrderID, e.RefereeID, e.Reason} {
			if s != "" {
				want++
			}
		}
		for _, f := range Formats {
			d, m := NewDecoder(Limits{}), message(t, &e, f)
			var ev Event
			if got := testing.AllocsPerRun(100, func() { d.Decode(m, &ev) }); got > want {
				t.Errorf("%s as %s: %v allocations for %v strings", e.Type, f, got, want)
			}
		}
	}
}

func TestInternTableIsBounded(t *testing.T) {
	var table internTable
	for i := range 3 * maxInterned {
		s := fmt.Sprint(i)
		if got := table.intern([]byte(s)); got != s {
			t.Fatalf("%q came back as %q", s, got)
		}
		if len(table.known) > maxInterned {
			t.Fatalf("%d strings", len(table.known))
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

func BenchmarkContentHash(b *testing.B) {
	e := Examples()[0]
	b.ReportAllocs()
	for b.Loop() {
		ContentHash(&e)
	}
}

func BenchmarkEncodePurchase(b *testing.B) {
	e := Examples()[0]
	for _, f := range Formats {
		b.Run(f.String(), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, _, err := Encode(&e, f); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
