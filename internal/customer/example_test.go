package customer_test

import (
	"fmt"
	"time"

	"github.com/tierstream/tierstream/internal/customer"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/scoring"
)

// utcDays is a calendar of the zone UTC for times after 1970.
type utcDays struct{}

func (utcDays) Day(ms int64) int32 { return int32(ms / 86_400_000) }

func (c utcDays) Split(ms int64) (int32, float64) {
	return c.Day(ms), float64(ms%86_400_000) / 86_400_000
}

// A return arrives before its order, waits, and is taken from the order when
// that comes.
func Example() {
	folder, err := customer.NewFolder(customer.DefaultPolicy("EUR"), utcDays{}, 365)
	if err != nil {
		fmt.Println(err)
		return
	}
	noon := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC).UnixMilli()
	record := customer.NewRecord()
	for _, ev := range []event.Event{
		{Type: event.Return, ID: "2", BusinessID: "r1", OrderID: "o1", Time: noon + 3_600_000, Amount: 990, Currency: "EUR"},
		{Type: event.Purchase, ID: "1", BusinessID: "o1", Time: noon, Amount: 4990, Currency: "EUR"},
		{Type: event.Purchase, ID: "1", BusinessID: "o1", Time: noon, Amount: 4990, Currency: "EUR"},
	} {
		ev.Source, ev.Customer, ev.HasAmount = "/shop", "c1", true
		ev.Content = event.ContentHash(&ev)
		folder.Expire(&record, ev.Time)
		result := folder.Apply(&record, &ev)
		fmt.Println(result.Code)
		for _, r := range result.Resolved {
			fmt.Println("the waiting return:", r.Code)
		}
	}
	var s scoring.Summary
	folder.Summarize(&record, noon+86_400_000, &s)
	fmt.Printf("%d order, net %s, %d return\n", s.Orders, event.FormatMoney(s.Net, "EUR"), s.Returns)

	stored := record.Append(nil)
	var back customer.Record
	fmt.Println("decoded:", customer.Decode(stored, &back) == nil)
	// Output:
	// waiting
	// applied
	// the waiting return: applied
	// duplicate
	// 1 order, net 40.00 EUR, 1 return
	// decoded: true
}
