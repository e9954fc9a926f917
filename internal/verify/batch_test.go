package verify

import (
	"cmp"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/cespare/xxhash/v2"

	"github.com/tierstream/tierstream/internal/cohort"
	"github.com/tierstream/tierstream/internal/customer"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/scoring"
	"github.com/tierstream/tierstream/internal/testenv"
)

// dataSets are the public logs, with what is known of each from its publishers.
var dataSets = []struct {
	name, file        string
	read              cohort.Options
	currency          string
	events, customers int // 0: see the test of that log
	// forgetting is how many customers send something back that lies beyond
	// what a record remembers: the consumer refuses that return.
	forgetting int
}{
	{name: "cdnow sample", file: "cdnow/CDNOW_sample.txt", read: cohort.Options{CountZero: true}, currency: "USD", events: 6_919, customers: 2_357},
	{name: "cdnow master", file: "cdnow/CDNOW_master.txt", read: cohort.Options{CountZero: true}, currency: "USD", events: 69_659, customers: 23_570},
	{name: "grocery", file: "grocery/grocery_elog.csv", currency: "EUR", events: 10_483, customers: 1_525},
	{name: "online retail", file: "online_retail/online_retail.csv.gz", currency: "GBP", forgetting: 1},
	{name: "rfm orders", file: "rfm_orders/rfm_data_orders.csv", currency: "EUR", events: 4_906, customers: 995},
	{name: "apparel", file: "apparel_sim/apparel_trans.csv", read: cohort.Options{CustomerColumn: "id"}, currency: "EUR", events: 3_187, customers: 600},
	{name: "example", file: "example_transactions/example_transactions.csv", read: cohort.Options{CustomerColumn: "id"}, currency: "EUR", events: 15_273, customers: 5_000},
}

// openData opens a data set, or skips the test and says which one is missing.
func openData(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.Open(filepath.Join(testenv.DataDir(t), filepath.FromSlash(name)))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skipf("no data set %s: %v", name, err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// TestIncrementalEqualsBatch streams every data set through the customer
// record, event by event, and compares each customer after each event with a
// second reading of the rules: sums over plain maps, from all the events so far.
// In the end measure and all values must be equal too, to the bit, and the
// summaries of package cohort, a third reading, must say the same.
func TestIncrementalEqualsBatch(t *testing.T) {
	for _, d := range dataSets {
		t.Run(d.name, func(t *testing.T) {
			reader, err := cohort.Open(openData(t, d.file), d.read)
			if err != nil {
				t.Fatal(err)
			}
			var events []event.Event
			if err := reader.Each(func(_ int64, ev *event.Event) error {
				events = append(events, *ev)
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			slices.SortStableFunc(events, func(a, b event.Event) int { return cmp.Compare(a.Time, b.Time) })
			if d.events > 0 && len(events) != d.events {
				t.Fatalf("%d events, want %d", len(events), d.events)
			}

			model := modelFor(t, d.currency, reader.Zone)
			policy := customer.DefaultPolicy(d.currency)
			if reader.CountZero {
				policy.ZeroOrders = customer.Count
			}
			folder, err := customer.NewFolder(policy, model.Calendar(), model.WindowDays())
			if err != nil {
				t.Fatal(err)
			}
			records := map[string]*customer.Record{}
			histories := map[string]*plain{}
			forgot := map[string]bool{}
			var streamed, batch scoring.Summary
			wrong := 0
			for i := range events {
				ev := &events[i]
				ev.Content = event.ContentHash(ev)
				r, h := records[ev.Customer], histories[ev.Customer]
				if r == nil {
					fresh := customer.NewRecord()
					r, h = &fresh, &plain{bought: map[string]*plainOrder{}}
					records[ev.Customer], histories[ev.Customer] = r, h
				}
				folder.Expire(r, ev.Time)
				switch code := folder.Apply(r, ev).Code; code {
				case event.Applied:
					h.add(ev, model.Calendar().Day(ev.Time))
				case event.Waiting:
					// A return of an order that is not in the log, or that lies
					// beyond the record's memory: it will be refused.
					if h.bought[ev.OrderID] != nil {
						forgot[ev.Customer] = true
					}
				case event.ZeroPurchase:
					if ev.Amount != 0 {
						t.Fatalf("%s is %v", ev.ID, code)
					}
				default:
					t.Fatalf("%s is %v", ev.ID, code)
				}
				folder.Summarize(r, ev.Time, &streamed)
				h.summarize(ev.Time, model, &batch)
				if !equal(&streamed, &batch) {
					if wrong++; wrong <= 5 {
						t.Errorf("customer %s after %s:\nstreamed %+v\nbatch    %+v", ev.Customer, ev.ID, streamed, batch)
					}
				}
			}
			if d.customers > 0 && len(records) != d.customers {
				t.Errorf("%d customers, want %d", len(records), d.customers)
			}
			if len(forgot) != d.forgetting {
				t.Errorf("%d customers send back what their record forgot, want %d: %v", len(forgot), d.forgetting, forgot)
			}

			log, err := cohort.Read(openData(t, d.file), d.read)
			if err != nil {
				t.Fatal(err)
			}
			summaries, err := log.Summaries(log.Until())
			if err != nil {
				t.Fatal(err)
			}
			rows := map[string]cohort.Summary{}
			for _, s := range summaries {
				rows[s.Customer] = s
			}
			at := model.Calendar().Start(log.Last)
			active := 0
			for id, r := range records {
				folder.Expire(r, at)
				folder.Summarize(r, at, &streamed)
				histories[id].summarize(at, model, &batch)
				if got, want := model.Values(&streamed), model.Values(&batch); !equal(&streamed, &batch) || !reflect.DeepEqual(got, want) || model.Measure(&streamed) != model.Measure(&batch) {
					t.Errorf("customer %s in the end:\nstreamed %+v\nbatch    %+v", id, got, want)
				}
				row, ok := rows[id]
				if streamed.Active {
					active++
				}
				if forgot[id] {
					continue // the log knows a return that the record refused
				}
				got := inTerms(id, &streamed)
				row.Purchases = nil
				if ok != streamed.Active || ok && !reflect.DeepEqual(row, got) {
					t.Errorf("customer %s in terms of the models:\nstreamed %+v\nbatch    %+v", id, got, row)
				}
			}
			if active != len(rows) {
				t.Errorf("%d customers are active, %d summarised", active, len(rows))
			}
		})
	}
}

// modelFor is the default model in a currency and zone.
func modelFor(t *testing.T, currency, zone string) *scoring.Model {
	t.Helper()
	b, err := scoring.Init(scoring.InitOptions{Currency: currency, Zone: zone, TypicalOrderMinor: 3500})
	if err != nil {
		t.Fatal(err)
	}
	m, err := scoring.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// inTerms is a record's summary in the terms of the models.
func inTerms(id string, s *scoring.Summary) cohort.Summary {
	return cohort.Summary{
		Customer: id, X: int(s.Days) - 1, TX: float64(s.LastDay - s.FirstDay), T: float64(s.Today-s.FirstDay) + s.DayPart,
		Orders: int(s.Orders), Net: s.Net, First: s.FirstDay, Last: s.LastDay,
		ValueDays: int(s.ValueDays), ValueSum: s.ValueSum,
	}
}

// equal compares summaries; no complaints are no complaints.
func equal(a, b *scoring.Summary) bool {
	x, y := *a, *b
	x.Complaints, y.Complaints = nil, nil
	return reflect.DeepEqual(x, y)
}

// plain is what one customer bought and sent back, as events say it.
type plain struct {
	orders  []*plainOrder
	bought  map[string]*plainOrder // by order ID
	returns int64
}

type plainOrder struct {
	at             int64
	day            int32
	tie            uint64
	paid, returned int64
}

func (h *plain) add(ev *event.Event, day int32) {
	if ev.Type == event.Return {
		h.bought[ev.OrderID].returned += ev.Amount
		h.returns++
		return
	}
	o := &plainOrder{at: ev.Time, day: day, tie: xxhash.Sum64(append([]byte{1}, ev.BusinessID...)), paid: ev.Amount}
	h.orders = append(h.orders, o)
	h.bought[ev.BusinessID] = o
}

// summarize is the batch computation: definitions.md 2 and 3, scoring.md 1.
func (h *plain) summarize(at int64, m *scoring.Model, s *scoring.Summary) {
	*s = scoring.Summary{At: at, Bought: len(h.orders) > 0, Returns: h.returns}
	s.Today, s.DayPart = m.Calendar().Split(at)
	net := map[int32]int64{} // by day with an order that is not returned whole
	var first *plainOrder
	for _, o := range h.orders {
		s.ReturnedNet += o.returned
		if o.returned > 0 && o.returned == o.paid {
			continue
		}
		left := o.paid - o.returned
		s.Largest = max(s.Largest, left)
		net[o.day] += left
		s.Orders++
		s.Net += left
		s.LastOrderAt = max(s.LastOrderAt, o.at)
		if first == nil || o.at < first.at || o.at == first.at && o.tie < first.tie {
			first = o
		}
		age := int(s.Today - o.day)
		if age < m.WindowDays() {
			s.WindowOrders++
			s.WindowNet += left
		}
		if age < 365 {
			s.YearOrders++
			s.YearNet += left
			s.Year.Assumed += left
		}
	}
	if first == nil {
		return
	}
	s.Active, s.Days = true, int64(len(net))
	s.First.Assumed = first.paid - first.returned
	s.Repeat.Assumed = s.Net - s.First.Assumed
	s.FirstDay, s.LastDay = s.Today, first.day
	for day := range net {
		s.FirstDay, s.LastDay = min(s.FirstDay, day), max(s.LastDay, day)
	}
	s.PreviousDay = s.LastDay
	for day := range net {
		if day < s.LastDay && (s.PreviousDay == s.LastDay || day > s.PreviousDay) {
			s.PreviousDay = day
		}
	}
	for day, left := range net {
		if day != s.FirstDay && left > 0 {
			s.ValueDays++
			s.ValueSum += left
		}
	}
}
