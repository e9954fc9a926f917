package lint

import (
	"bytes"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"github.com/tierstream/tierstream/internal/customer"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/fold"
	"github.com/tierstream/tierstream/internal/scoring"
	"github.com/tierstream/tierstream/internal/sim"
)

const (
	day       = int64(24 * time.Hour / time.Millisecond)
	retention = 400 * day
	grace     = 7 * day
)

var begin = time.Date(2025, 6, 1, 12, 0, 0, 0, time.UTC).UnixMilli()

func testRules() *fold.Rules {
	m := scoring.Default()
	return &fold.Rules{Topics: []string{"events"}, Partitioner: "murmur2", Clock: fold.ClockEvents,
		Limits: event.Limits{}.WithDefaults(), Policy: customer.DefaultPolicy(m.Currency()), Model: m}
}

// message is an event as a record that is newer than all events here.
func message(t testing.TB, e *event.Event) event.Message {
	t.Helper()
	value, headers, err := event.Encode(e, event.BinaryJSON)
	if err != nil {
		t.Fatal(err)
	}
	return event.Message{Key: []byte(e.Customer), Value: value, Headers: headers, Timestamp: begin + 2000*day}
}

func newLinter(t testing.TB) *Linter {
	t.Helper()
	l, err := New(testRules(), -1, 0)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// outcome is what one order of arrival comes to: the code of each event, what
// was counted, and the customer's facts in their stored form.
type outcome struct {
	codes  []event.Code // by index of the event, not by arrival; a return that was refused in the end has that code
	counts [event.NumCodes]int64
	facts  []byte
	record *customer.Record
	waited bool // whether any return had to wait
}

func arrive(t *testing.T, l *Linter, events []event.Event, order []int) outcome {
	t.Helper()
	l.customers, l.originals, l.waiting = fold.Set{}, map[fold.Waiting][]byte{}, map[fold.Waiting]Verdict{}
	l.state.Counters = make([]int64, event.NumCodes)
	o := outcome{codes: make([]event.Code, len(events))}
	for _, i := range order {
		v, settled, err := l.Add(0, 0, int64(i), message(t, &events[i]))
		if err != nil {
			t.Fatal(err)
		}
		o.codes[i] = v.Code
		o.waited = o.waited || v.Code == event.Waiting
		for _, s := range settled {
			o.codes[s.Offset] = s.Code
		}
	}
	o.counts = l.Counts()
	if c := l.customers["c"]; c != nil {
		o.record = &c.Record
		r := customer.NewRecord()
		r.Facts = c.Record.Facts
		o.facts = r.Append(nil)
	}
	return o
}

// permutations calls f with every order of n things.
func permutations(n int, f func(order []int)) {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	var walk func(k int)
	walk = func(k int) {
		if k == n {
			f(order)
			return
		}
		for i := k; i < n; i++ {
			order[k], order[i] = order[i], order[k]
			walk(k + 1)
			order[k], order[i] = order[i], order[k]
		}
	}
	walk(0)
}

func purchase(id, order string, at int64) event.Event {
	return event.Event{Type: event.Purchase, ID: id, Source: "/s", Customer: "c", Time: begin + at,
		BusinessID: order, Amount: 10_000, HasAmount: true, Currency: "EUR"}
}

func giveBack(id, order string, at, amount int64) event.Event {
	return event.Event{Type: event.Return, ID: id, Source: "/s", Customer: "c", Time: begin + at,
		BusinessID: "r-" + id, OrderID: order, Amount: amount, HasAmount: true, Currency: "EUR", Kind: event.Goods}
}

func complaint(id string, at int64, status event.Status) event.Event {
	return event.Event{Type: event.Complaint, ID: id, Source: "/s", Customer: "c", Time: begin + at,
		BusinessID: "k", Severity: 3, Status: status}
}

// model is a second reading of the definitions, for the events used here: what
// each order of arrival must come to, written without the customer record.
type model struct {
	ids      map[string]string    // event ID → content
	orders   map[string]*[2]int64 // amount, returned
	business map[string]string
	waiting  map[int]event.Event
	newest   int64
	status   event.Status
	statusAt int64
	codes    []event.Code
	late     int64
	unusual  int64
}

func expected(events []event.Event, order []int) *model {
	m := &model{ids: map[string]string{}, orders: map[string]*[2]int64{}, business: map[string]string{}, waiting: map[int]event.Event{},
		newest: math.MinInt64, codes: make([]event.Code, len(events))}
	for _, i := range order {
		e := events[i]
		for j, w := range m.waiting { // evaluations due before the event come first
			if w.Time+grace < e.Time {
				m.codes[j] = event.OrphanReturn
				delete(m.ids, w.ID)
				delete(m.waiting, j)
			}
		}
		m.codes[i] = m.take(i, e, events)
	}
	return m
}

func (m *model) take(i int, e event.Event, events []event.Event) event.Code {
	content := fmt.Sprint(e.Type, e.Time, e.BusinessID, e.OrderID, e.Amount, e.Status)
	if m.newest != math.MinInt64 && e.Time < m.newest-retention {
		return event.TooLate
	}
	if was, ok := m.ids[e.ID]; ok {
		if was == content {
			return event.Duplicate
		}
		return event.IDConflict
	}
	accept := func() {
		m.ids[e.ID] = content
		if e.Time < m.newest {
			m.late++
		}
		m.newest = max(m.newest, e.Time)
	}
	switch e.Type {
	case event.Purchase:
		if was, ok := m.business[e.BusinessID]; ok {
			if was == content {
				m.ids[e.ID] = content
				return event.BusinessDuplicate
			}
			return event.BusinessConflict
		}
		accept()
		m.business[e.BusinessID] = content
		o := &[2]int64{e.Amount}
		m.orders[e.BusinessID] = o
		var held []int
		for j, w := range m.waiting {
			if w.OrderID == e.BusinessID {
				held = append(held, j)
			}
		}
		slices.SortFunc(held, func(a, b int) int { return int(events[a].Time - events[b].Time) })
		for _, j := range held {
			w := m.waiting[j]
			delete(m.waiting, j)
			if m.codes[j] = event.Applied; o[1]+w.Amount > o[0] {
				m.codes[j] = event.OverReturn
				delete(m.ids, w.ID)
				continue
			}
			o[1] += w.Amount
			m.newest = max(m.newest, w.Time)
		}
	case event.Return:
		o := m.orders[e.OrderID]
		if o == nil {
			m.ids[e.ID] = content
			m.waiting[i] = e
			if e.Time < m.newest {
				m.late++
			}
			return event.Waiting
		}
		if o[1]+e.Amount > o[0] {
			return event.OverReturn
		}
		o[1] += e.Amount
		accept()
	case event.Complaint:
		switch known := m.status != event.NoStatus; {
		case !known && e.Status != event.Opened:
			m.unusual++
		case known && e.Time > m.statusAt && !follows(m.status, e.Status):
			m.unusual++
		}
		if e.Time > m.statusAt || m.status == event.NoStatus {
			m.status, m.statusAt = e.Status, e.Time
		}
		accept()
	}
	return event.Applied
}

func follows(from, to event.Status) bool {
	switch to {
	case from: // said again, as with another severity
		return true
	case event.Resolved, event.Rejected:
		return from == event.Opened || from == event.Reopened
	case event.Reopened:
		return from == event.Resolved || from == event.Rejected
	}
	return false
}

// TestOrderOfArrival: every order of arrival of a few events gives each of
// them the outcome that the definitions say. Where no IDs or contents conflict
// and all is within one retention and within its grace, every order gives the
// same facts, byte for byte.
func TestOrderOfArrival(t *testing.T) {
	otherContent := purchase("e2", "o2", 1*day)
	otherContent.ID = "e1"
	otherOrder := purchase("e2", "o1", 0)
	otherOrder.Amount++
	for name, c := range map[string]struct {
		events []event.Event
		same   bool // whether every order gives the same facts
		met    []event.Code
	}{
		"late": {
			events: []event.Event{purchase("e1", "o1", 0), purchase("e2", "o2", 3*day), purchase("e3", "o3", 300*day), purchase("e4", "o4", 400*day), complaint("e5", 5*day, event.Opened)},
			same:   true, met: []event.Code{event.Late},
		},
		"too late": {
			events: []event.Event{purchase("e1", "o1", 0), purchase("e2", "o2", 399*day), purchase("e3", "o3", 401*day), purchase("e4", "o4", 802*day)},
			met:    []event.Code{event.TooLate, event.Late},
		},
		"duplicates": {
			events: []event.Event{purchase("e1", "o1", 0), purchase("e1", "o1", 0), purchase("e1", "o1", 0), purchase("e2", "o2", day), purchase("e2", "o2", day)},
			same:   true, met: []event.Code{event.Duplicate},
		},
		"an ID conflict": {
			events: []event.Event{purchase("e1", "o1", 0), otherContent, purchase("e3", "o3", 2*day), purchase("e1", "o1", 0)},
			met:    []event.Code{event.IDConflict, event.Duplicate},
		},
		"a business duplicate": {
			events: []event.Event{purchase("e1", "o1", 0), purchase("e2", "o1", 0), purchase("e3", "o1", 0), purchase("e2", "o1", 0), purchase("e4", "o4", day)},
			same:   true, met: []event.Code{event.BusinessDuplicate, event.Duplicate},
		},
		"a business conflict": {
			events: []event.Event{purchase("e1", "o1", 0), otherOrder, purchase("e3", "o1", 0), purchase("e4", "o4", day)},
			met:    []event.Code{event.BusinessConflict, event.BusinessDuplicate},
		},
		"returns within their grace": {
			events: []event.Event{purchase("e1", "o1", 0), giveBack("e2", "o1", day, 4_000), giveBack("e3", "o1", 2*day, 6_000), purchase("e4", "o4", 7*day), giveBack("e5", "o4", 7*day, 1)},
			same:   true, met: []event.Code{event.Waiting, event.Late},
		},
		"returns beyond their grace": {
			events: []event.Event{purchase("e1", "o1", 0), giveBack("e2", "o1", day, 4_000), purchase("e3", "o3", 8*day+1), purchase("e4", "o4", 8*day), complaint("e5", 20*day, event.Opened)},
			met:    []event.Code{event.OrphanReturn, event.Waiting},
		},
		"more than the order": {
			events: []event.Event{purchase("e1", "o1", 0), giveBack("e2", "o1", 1*day, 6_000), giveBack("e3", "o1", 2*day, 5_000), giveBack("e4", "o1", 3*day, 4_000)},
			met:    []event.Code{event.OverReturn, event.Waiting},
		},
		"an unusual transition": {
			events: []event.Event{complaint("e1", 0, event.Opened), complaint("e2", 1*day, event.Resolved), complaint("e3", 2*day, event.Reopened), complaint("e4", 3*day, event.Rejected), complaint("e5", 4*day, event.Resolved)},
			same:   true, met: []event.Code{event.UnusualTransition, event.Late},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var first outcome
			l := newLinter(t)
			met := map[event.Code]bool{}
			permutations(len(c.events), func(order []int) {
				if t.Failed() {
					return
				}
				got, want := arrive(t, l, c.events, order), expected(c.events, order)
				if !slices.Equal(got.codes, want.codes) {
					t.Errorf("in the order %v: %v, want %v", order, got.codes, want.codes)
				}
				if got.counts[event.Late] != want.late || got.counts[event.UnusualTransition] != want.unusual {
					t.Errorf("in the order %v: %d late, %d unusual, want %d and %d", order, got.counts[event.Late], got.counts[event.UnusualTransition], want.late, want.unusual)
				}
				sum := int64(0)
				for i, n := range got.counts {
					if met[event.Code(i)] = met[event.Code(i)] || n > 0; event.Code(i).Outcome() != event.Warned {
						sum += n
					}
				}
				for _, code := range got.codes {
					met[code] = true
				}
				met[event.Waiting] = met[event.Waiting] || got.waited
				if sum != int64(len(c.events)) {
					t.Errorf("in the order %v: %d of %d events are accounted for", order, sum, len(c.events))
				}
				if want.status != event.NoStatus && (len(got.record.Facts.Complaints) != 1 || got.record.Facts.Complaints[0].Status != uint8(want.status)) {
					t.Errorf("in the order %v: the complaint is %+v, want %s", order, got.record.Facts.Complaints, want.status)
				}
				if first.facts == nil {
					first = got
				} else if c.same && !bytes.Equal(got.facts, first.facts) {
					t.Errorf("in the order %v other facts than in the first:\n%x\n%x", order, got.facts, first.facts)
				}
			})
			for _, code := range c.met {
				if !met[code] {
					t.Errorf("%s was not met", code)
				}
			}
		})
	}
}

// TestSimulatorsExpectations: the simulator shares no code with the fold and
// says of every message what must become of it.
func TestSimulatorsExpectations(t *testing.T) {
	c := sim.DefaultConfig()
	c.Seed, c.Customers, c.Span, c.BadRate = 7, 400, 300*24*time.Hour, 0.15
	c.Start, c.Currency = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC), scoring.Default().Currency()
	g, err := sim.New(c)
	if err != nil {
		t.Fatal(err)
	}
	l := newLinter(t)
	const n = 6000
	want, got := make([]event.Code, 0, n), make([]event.Code, n)
	for i := range int64(n) {
		s, ok := g.Next()
		if !ok {
			t.Fatalf("only %d messages", i)
		}
		m := event.Message{Key: s.Key(), Timestamp: s.At}
		if s.Raw != nil {
			m.Value, m.Headers = s.Raw.Value, s.Raw.Headers
		} else if m.Value, m.Headers, err = event.Encode(&s.Event, event.Formats[i%int64(len(event.Formats))]); err != nil {
			t.Fatal(err)
		}
		v, settled, err := l.Add(0, 0, i, m)
		if err != nil {
			t.Fatal(err)
		}
		if got[i] = v.Code; slices.Contains(v.Warnings, s.Code) {
			got[i] = s.Code // counted besides
		}
		for _, s := range settled {
			got[s.Offset] = s.Code
		}
		switch want = append(want, s.Code); s.Code {
		case event.Late: // sent later than it happened, not always after a newer event
			want[i] = event.Applied
		case event.Waiting: // ahead of its order, which comes
			if want[i] = event.Applied; v.Code != event.Waiting {
				t.Errorf("message %d is %s, and should wait", i, v.Code)
			}
		}
	}
	settled, err := l.Finish(math.MaxInt64 - 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range settled {
		got[s.Offset] = s.Code
	}
	codes := map[event.Code]int{}
	for i := range got {
		if codes[want[i]]++; got[i] != want[i] {
			t.Errorf("message %d is %s, the simulator says %s", i, got[i], want[i])
		}
	}
	if len(codes) < 25 {
		t.Errorf("only %d codes were met: %v", len(codes), codes)
	}
	if l.Counts()[event.Waiting] != 0 {
		t.Errorf("%d still wait", l.Counts()[event.Waiting])
	}
}
