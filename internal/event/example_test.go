package event_test

import (
	"fmt"
	"time"

	"github.com/tierstream/tierstream/internal/event"
)

// show sends an example through the wire and prints its data and what a
// decoder makes of it.
func show(t event.Type) {
	e := event.Examples()[t-event.Purchase]
	value, headers, err := event.Encode(&e, event.BinaryJSON)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(string(value))
	var got event.Event
	m := event.Message{Key: []byte(e.Customer), Value: value, Headers: headers, Timestamp: e.Time}
	if r := event.NewDecoder(event.Limits{}).Decode(&m, &got); r != nil {
		fmt.Println(r)
		return
	}
	fmt.Println(time.UnixMilli(got.Time).UTC().Format(time.DateOnly), got.Type, got.BusinessID, "of", got.Customer)
	if got.HasAmount {
		fmt.Println(event.FormatMoney(got.Amount, got.Currency))
	}
}

func Example_purchase() {
	show(event.Purchase)
	// Output:
	// {"order_id":"o-7001","amount_minor":12990,"currency":"EUR","cost_minor":8450,"category":"shoes","channel":"web"}
	// 2026-03-02 purchase o-7001 of c-1042
	// 129.90 EUR
}

func Example_return() {
	show(event.Return)
	// Output:
	// {"return_id":"r-310","order_id":"o-7001","amount_minor":4990,"currency":"EUR","kind":"goods","reason":"too small"}
	// 2026-03-09 return r-310 of c-1042
	// 49.90 EUR
}

func Example_complaint() {
	show(event.Complaint)
	// Output:
	// {"complaint_id":"k-77","severity":3,"status":"resolved","order_id":"o-7001","compensation_minor":500,"currency":"EUR"}
	// 2026-03-10 complaint k-77 of c-1042
	// 5.00 EUR
}

func Example_referral() {
	show(event.Referral)
	// Output:
	// {"referral_id":"f-15","referee_id":"c-2088","status":"converted","value_minor":1500,"currency":"EUR"}
	// 2026-03-20 referral f-15 of c-1042
	// 15.00 EUR
}

func Example_feedback() {
	show(event.Feedback)
	// Output:
	// {"response_id":"s-901","kind":"nps","score":9,"scale_max":10}
	// 2026-03-21 feedback s-901 of c-1042
}

func Example_cost() {
	show(event.Cost)
	// Output:
	// {"cost_id":"a-42","kind":"acquisition","amount_minor":2000,"currency":"EUR"}
	// 2026-03-01 cost a-42 of c-1042
	// 20.00 EUR
}

// A wrong record is refused by one code, and still says whose it is.
func ExampleDecoder_Decode() {
	e := event.Examples()[0]
	e.Amount = -4990
	value, headers, err := event.Encode(&e, event.StructuredJSON)
	if err != nil {
		fmt.Println(err)
		return
	}
	var got event.Event
	r := event.NewDecoder(event.Limits{}).Decode(&event.Message{Value: value, Headers: headers, Timestamp: e.Time}, &got)
	fmt.Println(r)
	fmt.Println(r.Code.Outcome() == event.DeadLetter, got.Customer)
	// Output:
	// negative_purchase amount_minor: -4990 is negative: send a return
	// true c-1042
}

func ExampleConvert() {
	minor, err := event.Convert(4990, "USD", "0.9224", "EUR")
	fmt.Println(event.FormatMoney(minor, "EUR"), err)
	// Output:
	// 46.03 EUR <nil>
}

func ExampleParsePartitioner() {
	p, err := event.ParsePartitioner("murmur2")
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(p.Name(), p.Partition([]byte("c-1042"), 12))
	// Output:
	// murmur2 3
}
