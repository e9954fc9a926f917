package event

import "time"

// Examples answers one valid event of every type, in the order of the types,
// for documents, command lines and tests. They tell one story: a customer
// buys, sends a part back, complains, recommends, answers a survey, and has
// cost something to win. Content is set.
func Examples() []Event {
	const (
		customer = "c-1042"
		source   = "/shop/eu"
		trace    = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	)
	at := func(day, hour int) int64 {
		return time.Date(2026, time.March, day, hour, 30, 0, 0, time.UTC).UnixMilli()
	}
	examples := []Event{{
		Type: Purchase, ID: "e-1", Source: source, Customer: customer, Time: at(2, 9), Trace: trace,
		BusinessID: "o-7001", Amount: 12_990, HasAmount: true, Currency: "EUR",
		Cost: 8_450, HasCost: true, Category: "shoes", Channel: "web",
	}, {
		Type: Return, ID: "e-2", Source: source, Customer: customer, Time: at(9, 14),
		BusinessID: "r-310", OrderID: "o-7001", Amount: 4_990, HasAmount: true, Currency: "EUR",
		Kind: Goods, Reason: "too small",
	}, {
		Type: Complaint, ID: "e-3", Source: "/support", Customer: customer, Time: at(10, 8),
		BusinessID: "k-77", OrderID: "o-7001", Severity: 3, Status: Resolved,
		Amount: 500, HasAmount: true, Currency: "EUR",
	}, {
		Type: Referral, ID: "e-4", Source: "/crm", Customer: customer, Time: at(20, 18),
		BusinessID: "f-15", RefereeID: "c-2088", Status: Converted,
		Amount: 1_500, HasAmount: true, Currency: "EUR",
	}, {
		Type: Feedback, ID: "e-5", Source: "/survey", Customer: customer, Time: at(21, 7),
		BusinessID: "s-901", Kind: NPS, Score: 9, ScaleMax: 10,
	}, {
		Type: Cost, ID: "e-6", Source: "/crm", Customer: customer, Time: at(1, 0),
		BusinessID: "a-42", Kind: Acquisition, Amount: 2_000, HasAmount: true, Currency: "EUR",
	}}
	for i := range examples {
		examples[i].Content = ContentHash(&examples[i])
	}
	return examples
}
