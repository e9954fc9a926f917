package customer

import (
	"slices"
	"strings"
	"testing"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/scoring"
)

func TestPolicyDecidesWhatIsIgnored(t *testing.T) {
	p := DefaultPolicy("EUR")
	test := purchase("e1", "o1", start, 100)
	test.Test = true
	unpaid := purchase("e2", "o2", start, 100)
	unpaid.Unpaid = true
	free := purchase("e3", "o3", start, 0)

	f := newFolder(t, p, 365)
	r := NewRecord()
	wants(t, f, &r, test, event.TestEvent, "test")
	wants(t, f, &r, unpaid, event.Unpaid, "status")
	wants(t, f, &r, free, event.ZeroPurchase, "amount_minor")
	wants(t, f, &r, purchase("e4", "o4", start, -1), event.NegativePurchase, "amount_minor")
	wants(t, f, &r, purchase("e5", "o2", start, 100), event.Applied, "") // paid now

	p.ZeroOrders, p.TestEvents = Count, Count
	f = newFolder(t, p, 365)
	r = NewRecord()
	wants(t, f, &r, test, event.Applied, "")
	wants(t, f, &r, unpaid, event.Unpaid, "status")
	free.Time += day
	wants(t, f, &r, sealed(free), event.Applied, "")
	var s scoring.Summary
	f.Summarize(&r, start+2*day, &s)
	if s.Orders != 2 || s.Days != 2 || s.ValueDays != 0 || s.Net != 100 {
		t.Errorf("a counted free order must enter days and frequency but not the value model: %+v", s)
	}
}

func TestDuplicatesAndConflicts(t *testing.T) {
	f := newFolder(t, testPolicy(), 365)
	r := NewRecord()
	cost := event.Event{Type: event.Cost, ID: "x1", Time: start, BusinessID: "x", Kind: event.Service, Amount: 10, HasAmount: true, Currency: "EUR"}
	answer := event.Event{Type: event.Feedback, ID: "a1", Time: start, BusinessID: "a", Kind: event.NPS, Score: 9, ScaleMax: 10}
	invited := referral("f1", "f", start, event.Invited)
	for _, c := range []struct {
		ev     event.Event
		change func(*event.Event)
		field  string
	}{
		{purchase("e1", "o1", start, 100), func(ev *event.Event) { ev.Amount++ }, "order_id"},
		{giveBack("r1", "r", "o1", start, 10), func(ev *event.Event) { ev.Amount++ }, "return_id"},
		{giveBack("w1", "w", "unknown", start, 10), func(ev *event.Event) { ev.Amount++ }, "return_id"},
		{complaint("k1", "k", start, event.Opened, 2), func(ev *event.Event) { ev.Severity++ }, "complaint_id"},
		{invited, func(ev *event.Event) { ev.RefereeID = "another" }, "referral_id"},
		{sealed(answer), func(ev *event.Event) { ev.Score-- }, "response_id"},
		{sealed(cost), func(ev *event.Event) { ev.Amount++ }, "cost_id"},
	} {
		if res := f.Apply(&r, &c.ev); res.Code != event.Applied && res.Code != event.Waiting {
			t.Fatalf("event %s: %v", c.ev.ID, res.Code)
		}
		var before, after scoring.Summary
		f.Summarize(&r, start, &before)
		wants(t, f, &r, c.ev, event.Duplicate, "id")

		changed := c.ev
		c.change(&changed)
		wants(t, f, &r, sealed(changed), event.IDConflict, "id")
		changed.ID += "-new"
		wants(t, f, &r, sealed(changed), event.BusinessConflict, c.field)

		again := c.ev
		again.ID += "-again"
		wants(t, f, &r, again, event.BusinessDuplicate, "")
		wants(t, f, &r, again, event.Duplicate, "id") // the new ID is remembered
		f.Summarize(&r, start, &after)
		if d := diff(after, before); d != "" {
			t.Errorf("event %s: a duplicate changed the summary: %s", c.ev.ID, d)
		}
	}
	// IDs of different kinds, and of different sources, never meet.
	wants(t, f, &r, purchase("e9", "r", start, 100), event.Applied, "")
	other := purchase("e1", "o5", start, 100)
	other.Source = "/another"
	wants(t, f, &r, other, event.Applied, "")
}

func TestTooLateIsBelowTheRetention(t *testing.T) {
	f := newFolder(t, testPolicy(), 365)
	r := NewRecord()
	wants(t, f, &r, purchase("e1", "o1", start, 100), event.Applied, "")
	wants(t, f, &r, purchase("e2", "o2", start-400*day-1, 100), event.TooLate, "time")
	if res := wants(t, f, &r, purchase("e3", "o3", start-400*day, 100), event.Applied, ""); !res.Late {
		t.Error("an older event that was applied is not late")
	}
	if res := wants(t, f, &r, purchase("e4", "o4", start, 100), event.Applied, ""); res.Late {
		t.Error("an event as new as the newest is late")
	}
	if r.Facts.First != start-400*day || r.Facts.Newest != start || r.Facts.MinTime != start-400*day {
		t.Errorf("first %d, newest %d, floor %d", r.Facts.First, r.Facts.Newest, r.Facts.MinTime)
	}
}

func TestAmountsAndCurrencies(t *testing.T) {
	p := testPolicy()
	p.MaxAmount = 1_000_000
	f := newFolder(t, p, 365)
	usd := func(id string, change func(*event.Event)) event.Event {
		ev := purchase(id, "o-"+id, start, 10_000)
		ev.Currency = "USD"
		change(&ev)
		return sealed(ev)
	}
	for _, c := range []struct {
		ev           event.Event
		code         event.Code
		field        string
		base, margin int64
	}{
		{usd("policy", func(ev *event.Event) {}), event.Applied, "", 9173, 0},
		{usd("own rate", func(ev *event.Event) { ev.FXRate = "1.5"; ev.HasMargin, ev.Margin = true, -200 }), event.Applied, "", 15_000, -300},
		{usd("own base", func(ev *event.Event) { ev.HasBase, ev.Base = true, 8000; ev.HasCost, ev.Cost = true, 7500 }), event.Applied, "", 8000, 2000},
		{usd("base wins", func(ev *event.Event) { ev.HasBase, ev.Base, ev.FXRate = true, 8000, "1.5" }), event.Applied, "", 8000, 0},
		{usd("same currency", func(ev *event.Event) { ev.Currency = "EUR"; ev.HasBase, ev.Base = true, 8000 }), event.Applied, "", 10_000, 0},
		{usd("yen", func(ev *event.Event) { ev.Currency = "JPY" }), event.Applied, "", 6100, 0},
		{usd("unknown", func(ev *event.Event) { ev.Currency = "CHF" }), event.NoRate, "amount_minor", 0, 0},
		{usd("no currency", func(ev *event.Event) { ev.Currency = "" }), event.BadCurrency, "currency", 0, 0},
		{usd("too much", func(ev *event.Event) { ev.Amount = 1_000_001 }), event.BadAmount, "amount_minor", 0, 0},
		{usd("too much in base", func(ev *event.Event) { ev.FXRate = "101" }), event.BadAmount, "amount_minor", 0, 0},
		{usd("stated base too big", func(ev *event.Event) { ev.HasBase, ev.Base = true, 1<<62 }), event.BadAmount, "amount_minor", 0, 0},
		{usd("margin too big", func(ev *event.Event) { ev.HasMargin, ev.Margin = true, -1<<62 }), event.BadAmount, "margin_minor", 0, 0},
		{usd("cost too big", func(ev *event.Event) { ev.HasCost, ev.Cost = true, -1<<63 }), event.BadAmount, "cost_minor", 0, 0},
		{usd("scaled margin too big", func(ev *event.Event) {
			ev.Amount, ev.HasBase, ev.Base, ev.HasMargin, ev.Margin = 1, true, 1_000_000, true, -1<<63
		}), event.BadAmount, "margin_minor", 0, 0},
	} {
		r := NewRecord()
		wants(t, f, &r, c.ev, c.code, c.field)
		if c.code != event.Applied {
			continue
		}
		if o := r.Facts.Orders[0]; o.Base != c.base || o.Margin != c.margin || o.HasMargin != (c.ev.HasMargin || c.ev.HasCost) {
			t.Errorf("%s: base %d margin %d, want %d %d", c.ev.ID, o.Base, o.Margin, c.base, c.margin)
		}
	}
}

// A sum that would pass 2^62 refuses the event that would make it.
func TestSumsNeverOverflow(t *testing.T) {
	p := testPolicy()
	p.MaxAmount, p.MaxEvents = maxAmount, 4
	f := newFolder(t, p, 365)
	for name, next := range map[string]func(i int64) event.Event{
		"purchases": func(i int64) event.Event { return purchase("", "", start+i*day, maxAmount) },
		"margins": func(i int64) event.Event {
			ev := purchase("", "", start+i*day, 1)
			ev.HasMargin, ev.Margin = true, -maxAmount
			return ev
		},
		"returned purchases": func(i int64) event.Event {
			if i%2 == 1 {
				return giveBack("", "", "o"+string(rune(i-1)), start+i*day, maxAmount)
			}
			return purchase("", "", start+i*day, maxAmount)
		},
		"costs": func(i int64) event.Event {
			return event.Event{Type: event.Cost, Time: start + i*day, Kind: event.Sales, Amount: maxAmount, HasAmount: true, Currency: "EUR"}
		},
		"compensations": func(i int64) event.Event {
			ev := complaint("", "", start+i*day, event.Opened, 1)
			ev.Amount, ev.HasAmount, ev.Currency = maxAmount, true, "EUR"
			return ev
		},
		"referral values": func(i int64) event.Event {
			ev := referral("", "", start+i*day, event.Converted)
			ev.Amount, ev.HasAmount, ev.Currency = maxAmount, true, "EUR"
			return ev
		},
	} {
		r := NewRecord()
		refused := event.Applied
		for i := int64(0); i < 2000; i++ {
			ev := next(i)
			ev.ID, ev.BusinessID = "e"+string(rune(i)), "o"+string(rune(i))
			ev = sealed(ev)
			if res := f.Apply(&r, &ev); res.Code.Outcome() == event.DeadLetter {
				refused = res.Code
				break
			}
		}
		if refused != event.BadAmount {
			t.Errorf("%s: 2000 amounts of 2^53 end with %v", name, refused)
		}
		var s scoring.Summary
		f.Summarize(&r, start, &s)
		for _, sum := range []int64{s.Net, s.ReturnedNet, s.SellingCost, s.Compensation, s.ReferralValue} {
			if sum < 0 || sum > maxSum {
				t.Errorf("%s: a sum of %d", name, sum)
			}
		}
	}
}

func TestReturnLowersItsOwnOrder(t *testing.T) {
	f := newFolder(t, testPolicy(), 365)
	r := NewRecord()
	first := purchase("e1", "o1", start, 300)
	first.Category, first.HasMargin, first.Margin = "books", true, 100
	second := purchase("e2", "o2", start+10*day, 500)
	second.Category = "shoes"
	third := purchase("e3", "o3", start+20*day, 700)
	third.Category = "books"
	for _, ev := range []event.Event{first, second, third} {
		wants(t, f, &r, sealed(ev), event.Applied, "")
	}
	check := func(what string, want scoring.Summary) {
		t.Helper()
		var s scoring.Summary
		f.Summarize(&r, start+30*day, &s)
		if s.Net != want.Net || s.Orders != want.Orders || s.Days != want.Days || s.FirstDay != want.FirstDay || s.LastDay != want.LastDay ||
			s.First != want.First || s.Cross != want.Cross || s.Repeat != want.Repeat || s.ReturnedNet != want.ReturnedNet || s.Returns != want.Returns {
			t.Errorf("%s: got %+v", what, s)
		}
	}
	today := utc{}.Day(start)
	m := func(known, assumed int64) scoring.Margins { return scoring.Margins{Known: known, Assumed: assumed} }
	check("three orders", scoring.Summary{Net: 1500, Orders: 3, Days: 3, FirstDay: today, LastDay: today + 20, First: m(100, 0), Cross: m(0, 500), Repeat: m(0, 700)})

	wants(t, f, &r, giveBack("r1", "r1", "o1", start+day, 50), event.Applied, "")
	// 100 × 50/300 = 16.67: 17 of the margin go.
	check("part of the first", scoring.Summary{Net: 1450, Orders: 3, Days: 3, FirstDay: today, LastDay: today + 20, First: m(83, 0), Cross: m(0, 500), Repeat: m(0, 700), ReturnedNet: 50, Returns: 1})

	wants(t, f, &r, giveBack("r2", "r2", "o1", start+2*day, 251), event.OverReturn, "amount_minor")
	wants(t, f, &r, giveBack("r2", "r2", "o1", start+2*day, 250), event.Applied, "")
	// The second order is the first now; the third brings books in.
	check("all of the first", scoring.Summary{Net: 1200, Orders: 2, Days: 2, FirstDay: today + 10, LastDay: today + 20, First: m(0, 500), Cross: m(0, 700), ReturnedNet: 300, Returns: 2})

	wants(t, f, &r, giveBack("r3", "r3", "o3", start+21*day, 700), event.Applied, "")
	check("all of the last", scoring.Summary{Net: 500, Orders: 1, Days: 1, FirstDay: today + 10, LastDay: today + 10, First: m(0, 500), ReturnedNet: 1000, Returns: 3})

	wants(t, f, &r, giveBack("r4", "r4", "o2", start+21*day, 500), event.Applied, "")
	var s scoring.Summary
	f.Summarize(&r, start+30*day, &s)
	if s.Active || !s.Bought || s.Net != 0 || s.ReturnedNet != 1500 {
		t.Errorf("all returned: %+v", s)
	}
}

func TestReturnUsesItsOrdersCurrency(t *testing.T) {
	f := newFolder(t, testPolicy(), 365)
	r := NewRecord()
	ev := purchase("e1", "o1", start, 999)
	ev.Currency, ev.FXRate = "USD", "0.5"
	wants(t, f, &r, sealed(ev), event.Applied, "") // 499.5, half to even: 500
	wants(t, f, &r, giveBack("r1", "r1", "o1", start, 333), event.CurrencyChanged, "currency")
	back := giveBack("r1", "r1", "o1", start, 333)
	back.Currency = "USD"
	wants(t, f, &r, sealed(back), event.Applied, "")
	var s scoring.Summary
	f.Summarize(&r, start, &s)
	if s.Net != 333 || s.ReturnedNet != 167 {
		t.Errorf("a third of 500 returned: net %d, returned %d", s.Net, s.ReturnedNet)
	}
	zero := back
	zero.ID, zero.BusinessID, zero.Amount = "r2", "r2", 0
	wants(t, f, &r, sealed(zero), event.BadAmount, "amount_minor")
}

func TestWaitingReturnsResolveWhenTheirOrderComes(t *testing.T) {
	p := DefaultPolicy("EUR")
	f := newFolder(t, p, 365)
	r := NewRecord()
	fits := giveBack("r1", "a", "o1", start+2*day, 60)
	over := giveBack("r2", "b", "o1", start+3*day, 60)
	foreign := giveBack("r3", "c", "o1", start+4*day, 10)
	foreign.Currency = "USD"
	other := giveBack("r4", "d", "o2", start+day, 10)
	for _, ev := range []event.Event{foreign, over, fits, other} {
		ev = sealed(ev)
		res := wants(t, f, &r, ev, event.Waiting, "")
		if res.WaitingHash != businessKey(event.Return, ev.BusinessID) {
			t.Errorf("event %s waits under another key", ev.ID)
		}
	}
	if want := start + day + 7*day + 1; r.Due != want {
		t.Errorf("due %d, want %d", r.Due, want)
	}
	if r.Facts.Newest != NoTime {
		t.Error("a waiting return must not count as an applied event")
	}
	res := wants(t, f, &r, purchase("e1", "o1", start, 100), event.Applied, "")
	want := []Resolution{
		{businessKey(event.Return, "a"), event.Applied, ""},
		{businessKey(event.Return, "b"), event.OverReturn, "amount_minor"},
		{businessKey(event.Return, "c"), event.CurrencyChanged, "currency"},
	}
	if !slices.Equal(res.Resolved, want) {
		t.Errorf("resolved %+v, want %+v", res.Resolved, want)
	}
	if len(r.Facts.Waiting) != 1 || r.Facts.Newest != start+2*day || r.Facts.Returns != 1 {
		t.Errorf("waiting %v, newest %d, returns %d", r.Facts.Waiting, r.Facts.Newest, r.Facts.Returns)
	}
	// The refused ones left no trace: repaired, they are accepted.
	over.Amount = 40
	wants(t, f, &r, sealed(over), event.Applied, "")
	wants(t, f, &r, fits, event.Duplicate, "id")
}

func TestWaitingReturnExpiresAfterItsDeadline(t *testing.T) {
	p := DefaultPolicy("EUR")
	f := newFolder(t, p, 365)
	deadline := start + p.Grace.Milliseconds()
	ret := giveBack("r1", "a", "o1", start, 60)
	setup := func() *Record {
		r := NewRecord()
		wants(t, f, &r, ret, event.Waiting, "")
		again := ret
		again.ID = "r1-again"
		wants(t, f, &r, again, event.BusinessDuplicate, "")
		return &r
	}
	r := setup()
	if got := f.Expire(r, deadline); got != nil {
		t.Errorf("expired %v before an event at the deadline itself", got)
	}
	if res := wants(t, f, r, purchase("e1", "o1", deadline, 100), event.Applied, ""); len(res.Resolved) != 1 || res.Resolved[0].Code != event.Applied {
		t.Errorf("the order came at the deadline, yet %+v", res.Resolved)
	}

	r = setup()
	if got := f.Expire(r, r.Due); !slices.Equal(got, []uint64{businessKey(event.Return, "a")}) {
		t.Errorf("expired at the due time: %v", got)
	}
	empty := NewRecord()
	if stored(r) != stored(&empty) {
		t.Errorf("an expired return left a trace: %+v", *r)
	}
	wants(t, f, r, ret, event.Waiting, "")
}

func TestComplaintIsItsLatestEvent(t *testing.T) {
	f := newFolder(t, testPolicy(), 365)
	r := NewRecord()
	unusual := func(ev event.Event, want bool) {
		t.Helper()
		if res := wants(t, f, &r, ev, event.Applied, ""); res.Unusual != want {
			t.Errorf("event %s: unusual %v, want %v", ev.ID, res.Unusual, want)
		}
	}
	paid := complaint("k3", "k", start+2*day, event.Resolved, 4)
	paid.HasAmount, paid.Amount, paid.Currency = true, 2000, "USD"
	unusual(complaint("k1", "k", start, event.Opened, 2), false)
	unusual(complaint("k2", "k", start+day, event.Opened, 4), false) // graver now
	unusual(sealed(paid), false)
	unusual(complaint("k4", "k", start+3*day, event.Rejected, 4), true)
	unusual(complaint("k5", "k", start+4*day, event.Reopened, 5), false)
	unusual(complaint("k6", "k", start-day, event.Rejected, 1), false) // late: the winner stays
	unusual(complaint("k7", "another", start, event.Resolved, 1), true)
	var s scoring.Summary
	f.Summarize(&r, start+5*day, &s)
	want := []scoring.ComplaintState{{Opened: start - day, Changed: start + 4*day, Severity: 5, Status: scoring.ComplaintOpen}, {Opened: start, Changed: start, Severity: 1, Status: scoring.ComplaintResolved}}
	slices.SortFunc(s.Complaints, func(a, b scoring.ComplaintState) int { return int(b.Severity) - int(a.Severity) })
	if !slices.Equal(s.Complaints, want) || s.Compensation != 1835 {
		t.Errorf("complaints %+v, compensation %d", s.Complaints, s.Compensation)
	}
}

func TestReferralIsItsLatestEvent(t *testing.T) {
	f := newFolder(t, testPolicy(), 365)
	r := NewRecord()
	converted := referral("f2", "f", start+day, event.Converted)
	converted.HasAmount, converted.Amount, converted.Currency = true, 700, "EUR"
	steps := []struct {
		ev                         event.Event
		unusual                    bool
		converted, unvalued, value int64
	}{
		{referral("f1", "f", start, event.Invited), false, 0, 0, 0},
		{sealed(converted), false, 1, 0, 700},
		{referral("g1", "g", start, event.Converted), true, 2, 1, 700},
		{referral("f3", "f", start+2*day, event.Reversed), false, 1, 1, 0},
		{referral("g2", "g", start+day, event.Invited), true, 0, 0, 0},
	}
	for _, step := range steps {
		if res := wants(t, f, &r, step.ev, event.Applied, ""); res.Unusual != step.unusual {
			t.Errorf("event %s: unusual %v", step.ev.ID, res.Unusual)
		}
		var s scoring.Summary
		f.Summarize(&r, start+3*day, &s)
		if s.ReferralsConverted != step.converted || s.ReferralsUnvalued != step.unvalued || s.ReferralValue != step.value {
			t.Errorf("after %s: %d converted, %d without a value, worth %d", step.ev.ID, s.ReferralsConverted, s.ReferralsUnvalued, s.ReferralValue)
		}
	}
}

func TestPolicyValidateNamesEveryFault(t *testing.T) {
	p := Policy{Base: "Euro", MaxEvents: 200, Retention: 1, Grace: -1, ZeroOrders: "maybe", Rates: []Rate{{"USD", "1"}, {"JPY", "one"}, {"Euro", "1"}}}
	err := p.Validate()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, part := range []string{"base currency", "max_events", "retention", "grace", "max_amount", "zero_orders", "test_events", "strict order", "needs none"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("no word of %s in: %v", part, err)
		}
	}
	p = DefaultPolicy("EUR")
	if err := p.Validate(); err != nil {
		t.Errorf("the default policy: %v", err)
	}
	p.Rates = []Rate{{"USD", "one"}}
	if err := p.Validate(); err == nil || !strings.Contains(err.Error(), `rate "one"`) {
		t.Errorf("a rate that is no number: %v", err)
	}
	for _, window := range []int{0, 401} {
		if _, err := NewFolder(p, utc{}, window); err == nil {
			t.Errorf("a window of %d days is accepted", window)
		}
	}
}
