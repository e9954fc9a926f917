package customer

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/scoring"
)

const (
	second = int64(1000)
	hour   = 3600 * second
	day    = 24 * hour
	// start is 2024-03-01T00:00:00Z.
	start = int64(1709251200000)
)

// utc is the calendar of the zone UTC.
type utc struct{}

func (utc) Day(ms int64) int32 { d, _ := utc{}.Split(ms); return d }

func (utc) Split(ms int64) (int32, float64) {
	d := ms / day
	if ms%day < 0 {
		d--
	}
	return int32(d), float64(ms-d*day) / float64(day)
}

func newFolder(t testing.TB, p Policy, window int) *Folder {
	t.Helper()
	f, err := NewFolder(p, utc{}, window)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// sealed sets the content hash, as decoding does.
func sealed(ev event.Event) event.Event {
	ev.Source, ev.Customer = "/test", "c1"
	ev.Content = event.ContentHash(&ev)
	return ev
}

func purchase(id, order string, t, amount int64) event.Event {
	return sealed(event.Event{Type: event.Purchase, ID: id, Time: t, BusinessID: order, Amount: amount, HasAmount: true, Currency: "EUR"})
}

func giveBack(id, ret, order string, t, amount int64) event.Event {
	return sealed(event.Event{Type: event.Return, ID: id, Time: t, BusinessID: ret, OrderID: order, Amount: amount, HasAmount: true, Currency: "EUR", Kind: event.Goods})
}

func complaint(id, key string, t int64, status event.Status, severity uint8) event.Event {
	return sealed(event.Event{Type: event.Complaint, ID: id, Time: t, BusinessID: key, Status: status, Severity: severity})
}

func referral(id, key string, t int64, status event.Status) event.Event {
	return sealed(event.Event{Type: event.Referral, ID: id, Time: t, BusinessID: key, RefereeID: "friend-" + key, Status: status})
}

func stored(r *Record) string { return string(r.Append(nil)) }

// wants applies ev and checks the code, the field and, for a refusal, that
// nothing changed.
func wants(t *testing.T, f *Folder, r *Record, ev event.Event, code event.Code, field string) Result {
	t.Helper()
	before := stored(r)
	res := f.Apply(r, &ev)
	if res.Code != code || res.Field != field {
		t.Errorf("event %s: %v %q, want %v %q", ev.ID, res.Code, res.Field, code, field)
	}
	switch res.Code {
	case event.Applied, event.Waiting, event.BusinessDuplicate:
	default:
		if stored(r) != before {
			t.Errorf("event %s: %v, yet the record changed", ev.ID, res.Code)
		}
	}
	return res
}

// naive computes a summary from a list of events by the definitions alone: no
// ledger, no buckets, no compaction. An event that repeats another under a new
// ID counts once; only where the greatest event ID wins does its ID matter.
func naive(all []event.Event, p Policy, window int, at int64) scoring.Summary {
	contents := map[uint64]bool{}
	var events []event.Event
	for _, ev := range all {
		if !contents[ev.Content] {
			contents[ev.Content] = true
			events = append(events, ev)
		}
	}
	cal := utc{}
	s := scoring.Summary{At: at}
	s.Today, s.DayPart = cal.Split(at)
	convert := func(amount int64, ev *event.Event) int64 {
		rate := ev.FXRate
		switch {
		case ev.Currency == p.Base:
			return amount
		case rate == "":
			rate, _ = p.rate(ev.Currency)
		}
		v, err := event.Convert(amount, ev.Currency, rate, p.Base)
		if err != nil {
			panic(err)
		}
		return v
	}
	// part returns n × a / b, half to even, in arithmetic of another kind than
	// the fold's: small numbers only.
	part := func(n, a, b int64) int64 {
		if n < 0 {
			panic("negative")
		}
		q, rest := n*a/b, n*a%b
		if 2*rest > b || 2*rest == b && q%2 == 1 {
			q++
		}
		return q
	}

	type line struct {
		ev       event.Event
		returned int64
	}
	var orders []line
	for _, ev := range events {
		if ev.Type == event.Purchase {
			orders = append(orders, line{ev: ev})
			s.Bought = true
		}
	}
	slices.SortFunc(orders, func(a, b line) int {
		return compare(a.ev.Time, businessKey(event.Purchase, a.ev.BusinessID), b.ev.Time, businessKey(event.Purchase, b.ev.BusinessID))
	})
	for _, ev := range events {
		if ev.Type != event.Return {
			continue
		}
		for i := range orders {
			if orders[i].ev.BusinessID == ev.OrderID {
				orders[i].returned += ev.Amount
				s.Returns++
			}
		}
	}
	categories := map[string]bool{}
	days := map[int32]int64{}
	for i := range orders {
		ev, returned := &orders[i].ev, orders[i].returned
		base := convert(ev.Amount, ev)
		if ev.Currency != p.Base && ev.HasBase {
			base = ev.Base
		}
		back := int64(0)
		if returned > 0 {
			back = part(base, returned, ev.Amount)
		}
		s.ReturnedNet += back
		if ev.Amount > 0 && returned == ev.Amount {
			continue
		}
		net := base - back
		var m scoring.Margins
		if !ev.HasMargin && !ev.HasCost {
			m.Assumed = net
		} else {
			stated := ev.Margin
			if !ev.HasMargin {
				stated = ev.Amount - ev.Cost
			}
			sign := int64(1)
			if stated < 0 {
				sign, stated = -1, -stated
			}
			if ev.Currency != p.Base && ev.HasBase {
				stated = part(stated, ev.Base, ev.Amount)
			} else {
				stated = convert(stated, ev)
			}
			if returned > 0 {
				stated -= part(stated, returned, ev.Amount)
			}
			m.Known = sign * stated
		}
		group := &s.Repeat
		if ev.Category != "" && !categories[ev.Category] {
			categories[ev.Category] = true
			group = &s.Cross
		}
		d := cal.Day(ev.Time)
		if !s.Active {
			group = &s.First
			s.Active, s.FirstDay = true, d
		}
		group.Known += m.Known
		group.Assumed += m.Assumed
		s.Orders++
		s.Net += net
		s.Largest = max(s.Largest, net)
		if s.Orders > 1 && d != s.LastDay {
			s.PreviousDay = s.LastDay
		}
		s.LastDay, s.LastOrderAt = d, ev.Time
		days[d] += net
		if age := s.Today - d; age >= 0 {
			if age < int32(window) {
				s.WindowOrders++
				s.WindowNet += net
			}
			if age < 365 {
				s.YearOrders++
				s.YearNet += net
				s.Year.Known += m.Known
				s.Year.Assumed += m.Assumed
			}
		}
	}
	s.Days = int64(len(days))
	if len(days) == 1 {
		s.PreviousDay = s.LastDay
	}
	for d, net := range days {
		if d != s.FirstDay && net > 0 {
			s.ValueDays++
			s.ValueSum += net
		}
	}

	for i := range events {
		ev := &events[i]
		switch ev.Kind {
		case event.Praise:
			s.Praises++
		case event.Suggestion:
			s.Suggestions++
		case event.Acquisition:
			s.CAC += convert(ev.Amount, ev)
			s.CACKnown = true
		case event.Service:
			s.ServiceCost += convert(ev.Amount, ev)
		case event.Marketing, event.Sales:
			s.SellingCost += convert(ev.Amount, ev)
		}
	}
	byTime := slices.Clone(all)
	slices.SortFunc(byTime, func(a, b event.Event) int { return compare(a.Time, eventKey(&a), b.Time, eventKey(&b)) })
	type state struct {
		first, last *event.Event
		paid        int64
	}
	complaints, referrals := map[string]*state{}, map[string]*state{}
	for i := range byTime {
		ev := &byTime[i]
		answer := scoring.Response{Known: true, Score: ev.Score, ScaleMax: ev.ScaleMax}
		switch ev.Kind {
		case event.NPS:
			s.NPS = answer
		case event.CSAT:
			s.CSAT = answer
		case event.CES:
			s.CES = answer
		}
		var of map[string]*state
		switch ev.Type {
		case event.Complaint:
			of = complaints
		case event.Referral:
			of = referrals
		default:
			continue
		}
		if of[ev.BusinessID] == nil {
			of[ev.BusinessID] = &state{first: ev}
		}
		st := of[ev.BusinessID]
		st.last = ev
		if ev.HasAmount {
			st.paid = convert(ev.Amount, ev)
		}
	}
	keys := make([]string, 0, len(complaints))
	for k := range complaints {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(a, b string) int {
		return compare(0, businessKey(event.Complaint, a), 0, businessKey(event.Complaint, b))
	})
	for _, k := range keys {
		st := complaints[k]
		s.Compensation += st.paid
		status := map[event.Status]scoring.ComplaintStatus{
			event.Opened: scoring.ComplaintOpen, event.Reopened: scoring.ComplaintOpen,
			event.Resolved: scoring.ComplaintResolved, event.Rejected: scoring.ComplaintRejected,
		}[st.last.Status]
		s.Complaints = append(s.Complaints, scoring.ComplaintState{Opened: st.first.Time, Changed: st.last.Time, Severity: st.last.Severity, Status: status})
	}
	for _, st := range referrals {
		if st.last.Status != event.Converted {
			continue
		}
		s.ReferralsConverted++
		if st.last.HasAmount {
			s.ReferralValue += convert(st.last.Amount, st.last)
		} else {
			s.ReferralsUnvalued++
		}
	}
	return s
}

// diff names the first difference of two summaries, "" when there is none.
func diff(got, want scoring.Summary) string {
	if !slices.Equal(got.Complaints, want.Complaints) {
		return fmt.Sprintf("complaints %+v, want %+v", got.Complaints, want.Complaints)
	}
	got.Complaints, want.Complaints = nil, nil
	if g, w := fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want); g != w {
		return "got  " + g + "\nwant " + w
	}
	return ""
}

// testPolicy is the default policy with a rate for USD, and for JPY, whose
// minor unit is another.
func testPolicy() Policy {
	p := DefaultPolicy("EUR")
	p.Grace = p.Retention
	p.ZeroOrders = Count
	p.Rates = []Rate{{"JPY", "0.0061"}, {"USD", "0.9173"}}
	return p
}

// population draws events of one customer that lie within the bounds of the
// promise of Facts: all six types, no conflicts, within one retention window,
// business duplicates under new IDs.
func population(t *rapid.T) []event.Event {
	var unique []event.Event
	number := func(label string, low, high int) int { return rapid.IntRange(low, high).Draw(t, label) }
	span := rapid.SampledFrom([]int64{3, 5 * second, 3 * day, 400 * day}).Draw(t, "span")
	when := func() int64 { return start + rapid.Int64Range(0, span).Draw(t, "time") }
	// price puts an amount in one of three currencies on an event.
	price := func(ev *event.Event, low int) {
		ev.HasAmount = true
		ev.Amount = int64(number("amount", low, 20_000))
		ev.Currency = rapid.SampledFrom([]string{"EUR", "EUR", "USD", "JPY"}).Draw(t, "currency")
		if ev.Currency != "EUR" && number("own rate", 0, 2) == 0 {
			ev.FXRate = "1.25"
		}
	}
	add := func(ev event.Event) {
		ev.ID = fmt.Sprintf("e%d", len(unique))
		unique = append(unique, sealed(ev))
	}
	returns := 0
	for o := range number("orders", 0, 8) {
		ev := event.Event{Type: event.Purchase, Time: when(), BusinessID: fmt.Sprintf("o%d", o)}
		price(&ev, 0)
		if ev.Currency == "USD" && ev.FXRate == "" && ev.Amount > 0 && number("own base", 0, 2) == 0 {
			ev.HasBase, ev.Base = true, int64(number("base", 0, 20_000))
		}
		switch number("margin", 0, 3) {
		case 0:
			ev.HasMargin, ev.Margin = true, int64(number("margin", -5_000, 20_000))
		case 1:
			ev.HasCost, ev.Cost = true, int64(number("cost", 0, 25_000))
		}
		ev.Category = rapid.SampledFrom([]string{"", "books", "shoes", "tools"}).Draw(t, "category")
		add(ev)
		left := ev.Amount
		for left > 0 && number("return", 0, 2) == 0 {
			back := left
			if number("partial", 0, 2) > 0 {
				back = rapid.Int64Range(1, left).Draw(t, "returned")
			}
			left -= back
			add(event.Event{Type: event.Return, Time: when(), BusinessID: fmt.Sprintf("r%d", returns), OrderID: ev.BusinessID, Amount: back, HasAmount: true, Currency: ev.Currency, Kind: event.Goods})
			returns++
		}
	}
	for range number("waiting", 0, 2) {
		add(event.Event{Type: event.Return, Time: when(), BusinessID: fmt.Sprintf("r%d", returns), OrderID: "unknown", Amount: 5, HasAmount: true, Currency: "USD", Kind: event.Goods})
		returns++
	}
	type stated struct {
		key    string
		status event.Status
		time   int64
	}
	used := map[stated]bool{}
	for range number("complaint events", 0, 6) {
		ev := event.Event{Type: event.Complaint, Time: when(), BusinessID: fmt.Sprintf("k%d", number("complaint", 0, 2)),
			Status: event.Status(number("status", int(event.Opened), int(event.Rejected))), Severity: uint8(number("severity", 1, 5))}
		if number("paid", 0, 1) == 0 {
			price(&ev, 0)
		}
		if k := (stated{ev.BusinessID, ev.Status, ev.Time}); !used[k] {
			used[k] = true
			add(ev)
		}
	}
	for range number("referral events", 0, 5) {
		ev := event.Event{Type: event.Referral, Time: when(), BusinessID: fmt.Sprintf("f%d", number("referral", 0, 2)), RefereeID: "c2",
			Status: event.Status(number("status", int(event.Invited), int(event.Reversed)))}
		if number("valued", 0, 1) == 0 {
			price(&ev, 0)
		}
		if k := (stated{ev.BusinessID, ev.Status, ev.Time}); !used[k] {
			used[k] = true
			add(ev)
		}
	}
	for i := range number("responses", 0, 5) {
		ev := event.Event{Type: event.Feedback, Time: when(), BusinessID: fmt.Sprintf("p%d", i), Kind: event.Kind(number("kind", int(event.NPS), int(event.Suggestion)))}
		if ev.Kind <= event.CES {
			ev.Score, ev.ScaleMax = int32(number("score", 0, 10)), 10
		}
		add(ev)
	}
	for i := range number("costs", 0, 3) {
		ev := event.Event{Type: event.Cost, Time: when(), BusinessID: fmt.Sprintf("x%d", i), Kind: event.Kind(number("kind", int(event.Acquisition), int(event.Sales)))}
		price(&ev, 0)
		add(ev)
	}
	all := slices.Clone(unique)
	for i := range unique {
		if number("again", 0, 4) == 0 {
			ev := unique[i]
			ev.ID = "again-" + ev.ID
			all = append(all, ev)
		}
	}
	return all
}

// millis turns a number of milliseconds into a duration.
func millis(n int64) time.Duration { return time.Duration(n) * time.Millisecond }
