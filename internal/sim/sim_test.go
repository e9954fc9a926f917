package sim

import (
	"fmt"
	"hash/fnv"
	"math"
	"testing"
	"time"

	"gonum.org/v1/gonum/mathext"

	"github.com/tierstream/tierstream/internal/event"
)

// small is a quick model with everything in it.
func small() Config {
	c := DefaultConfig()
	c.Customers, c.Span = 2_000, 60*24*time.Hour
	c.BadRate = 0.05
	return c
}

func start(t testing.TB, c Config) *Generator {
	t.Helper()
	g, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// bytesOf is a hash of the first n messages as they go to the log.
func bytesOf(t testing.TB, c Config, n int) uint64 {
	t.Helper()
	h := fnv.New64a()
	g := start(t, c)
	for i := range n {
		m, ok := g.Next()
		if !ok {
			t.Fatalf("the run ended after %d messages", i)
		}
		var value []byte
		var headers []event.Header
		if m.Raw != nil {
			value, headers = m.Raw.Value, m.Raw.Headers
		} else {
			var err error
			if value, headers, err = event.Encode(&m.Event, event.Formats[i%len(event.Formats)]); err != nil {
				t.Fatal(err)
			}
		}
		fmt.Fprintf(h, "%d %d %d %q %q", m.Topic, m.At, m.Code, m.Key(), value)
		for _, kv := range headers {
			fmt.Fprintf(h, " %s=%q", kv.Key, kv.Value)
		}
	}
	return h.Sum64()
}

func TestSameSeedGivesSameBytes(t *testing.T) {
	c := small()
	first := bytesOf(t, c, 3_000)
	if again := bytesOf(t, c, 3_000); again != first {
		t.Errorf("two runs of one seed differ: %x, %x", first, again)
	}
	c.Seed++
	if other := bytesOf(t, c, 3_000); other == first {
		t.Error("two seeds give the same bytes")
	}
}

func TestPrefixKeepsRunsApart(t *testing.T) {
	c := small()
	c.Prefix = "b-"
	g := start(t, c)
	for range 5_000 {
		m, _ := g.Next()
		for _, id := range []string{m.Event.ID, m.Event.Customer, m.Event.BusinessID} {
			if id[:2] != "b-" {
				t.Fatalf("%s has an ID without the prefix: %q", m.Event.Type, id)
			}
		}
	}
}

// The consequences an ordinary run must have, each in its order.
func TestStoryOfEveryOrderComplaintAndReferral(t *testing.T) {
	c := small()
	c.BadRate = 0
	c.DelayedShare = 0.02
	orders := map[string]int64{}                 // left of each order seen
	waiting := map[string]int64{}                // returned before the order was seen
	statuses := map[string]event.Status{}        // by complaint or referral
	follows := map[event.Status][]event.Status{} // what may stand before
	follows[event.Opened] = []event.Status{event.NoStatus}
	follows[event.Resolved] = []event.Status{event.Opened, event.Reopened}
	follows[event.Rejected] = []event.Status{event.Opened}
	follows[event.Reopened] = []event.Status{event.Resolved}
	follows[event.Invited] = []event.Status{event.NoStatus}
	follows[event.Converted] = []event.Status{event.Invited}
	follows[event.Reversed] = []event.Status{event.Converted}

	types := map[event.Type]int{}
	kinds := map[event.Kind]int{}
	seen := map[event.Status]int{}
	late, last := 0, int64(0)
	g := start(t, c)
	for m := range g.All() {
		if m.At >= c.Start.UnixMilli()+180*day {
			break
		}
		e := &m.Event
		if m.At < last {
			t.Fatalf("%s reaches the log %d ms before its predecessor", e.ID, last-m.At)
		}
		last = m.At
		if m.Code != event.Late && e.Time != m.At || e.Time > m.At {
			t.Fatalf("%s (%s) of %d is sent at %d", e.ID, m.Code, e.Time, m.At)
		}
		types[e.Type]++
		kinds[e.Kind]++
		switch e.Type {
		case event.Purchase:
			if _, twice := orders[e.BusinessID]; twice {
				t.Fatalf("order %s comes twice", e.BusinessID)
			}
			orders[e.BusinessID] = e.Amount - waiting[e.BusinessID]
			if m.Code == event.Late {
				late++
			}
			if e.Currency != c.Currency && e.FXRate == "" && !e.HasBase {
				t.Fatalf("order %s in %s has no rate", e.BusinessID, e.Currency)
			}
		case event.Return:
			left, known := orders[e.OrderID]
			if known != (m.Code == event.Applied) {
				t.Fatalf("return %s is tagged %s, order known: %v", e.BusinessID, m.Code, known)
			}
			if !known {
				waiting[e.OrderID] += e.Amount
				break
			}
			if e.Amount < 1 || e.Amount > left {
				t.Fatalf("return %s of %d, left are %d", e.BusinessID, e.Amount, left)
			}
			orders[e.OrderID] -= e.Amount
		case event.Complaint, event.Referral:
			before, ok := statuses[e.BusinessID], false
			for _, s := range follows[e.Status] {
				ok = ok || s == before
			}
			if !ok {
				t.Fatalf("%s %s goes from %q to %q", e.Type, e.BusinessID, before, e.Status)
			}
			statuses[e.BusinessID] = e.Status
			seen[e.Status]++
		}
	}
	for ty := event.Purchase; ty <= event.Cost; ty++ {
		if types[ty] == 0 {
			t.Errorf("no %s in half a year", ty)
		}
	}
	for s := event.Opened; s <= event.Reversed; s++ {
		if seen[s] == 0 {
			t.Errorf("no %s in half a year", s)
		}
	}
	for k := event.NPS; k <= event.Chargeback; k++ {
		if kinds[k] == 0 && k != event.Sales {
			t.Errorf("no %s in half a year", k)
		}
	}
	if late == 0 || len(waiting) == 0 {
		t.Errorf("%d delayed purchases, %d returns before theirs", late, len(waiting))
	}
}

// expectedRepeats is E[X(t)] of MBG/NBD (Batislam et al. 2007): repeat purchases
// within t days of the first are
//
//	b/(a-1) · (1 − (alpha/(alpha+t))^r · 2F1(r, b+1; a+b; t/(alpha+t)))
func expectedRepeats(c Config, t float64) float64 {
	z := t / (c.Alpha + t)
	f := mathext.Hypergeo(c.R, c.B+1, c.A+c.B, z)
	return c.B / (c.A - 1) * (1 - math.Pow(c.Alpha/(c.Alpha+t), c.R)*f)
}

func TestRatesAndValuesFollowTheModel(t *testing.T) {
	c := DefaultConfig()
	c.Customers, c.Span, c.Later = 12_000, 24*time.Hour, 0
	c.SeasonAmplitude, c.WeekendFactor = 0, 1
	c.ReferralShare, c.ForeignShare, c.DelayedShare = 0, 0, 0
	c.Q = 6 // a finite fourth moment, so that the mean settles

	const horizon = 180
	type history struct {
		first, value int64
		repeats      int
	}
	of := map[string]*history{}
	g := start(t, c)
	for m := range g.All() {
		if m.At >= c.Start.UnixMilli()+(horizon+1)*day {
			break
		}
		if m.Event.Type != event.Purchase {
			continue
		}
		h := of[m.Event.Customer]
		switch {
		case h == nil:
			of[m.Event.Customer] = &history{first: m.At, value: m.Event.Amount}
		case m.At <= h.first+horizon*day:
			h.repeats++
		}
	}
	n := float64(len(of))
	if d := math.Abs(n - c.Customers); d > 5*math.Sqrt(c.Customers) {
		t.Errorf("%v customers, want %v ± 5 standard deviations", n, c.Customers)
	}
	var sum, squares, value float64
	for _, h := range of {
		sum += float64(h.repeats)
		squares += float64(h.repeats * h.repeats)
		value += float64(h.value)
	}
	mean := sum / n
	se := math.Sqrt((squares/n - mean*mean) / n)
	if want := expectedRepeats(c, horizon); math.Abs(mean-want) > 4*se {
		t.Errorf("%.4f repeat purchases, the model says %.4f ± %.4f", mean, want, 4*se)
	}
	// A first order's coefficient of variation is 0.65: 2.5 % are 4.2 standard
	// errors.
	if mean, want := value/n, float64(c.TypicalOrder); math.Abs(mean/want-1) > 0.025 {
		t.Errorf("mean first order %.1f, want %.1f", mean, want)
	}
}

func TestSeasonKeepsTheYearlyMean(t *testing.T) {
	s := newSeason(0.3, 1.4)
	from := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli()
	var sum float64
	const days = 4*365 + 1
	for d := range int64(days) {
		f := s.at(from + d*day)
		if f > s.top || f <= 0 {
			t.Fatalf("day %d: factor %v is outside (0, %v]", d, f, s.top)
		}
		sum += f
	}
	if mean := sum / days; math.Abs(mean-1) > 0.002 {
		t.Errorf("mean factor %v, want 1", mean)
	}
	saturday := time.Date(2025, 11, 22, 9, 0, 0, 0, time.UTC).UnixMilli()
	if ratio := s.at(saturday) / s.at(saturday-day); math.Abs(ratio-1.4) > 0.01 {
		t.Errorf("a Saturday is %v times a Friday, want 1.4", ratio)
	}
}

func TestLiveFromGivesTheRate(t *testing.T) {
	c := small()
	c.BadRate = 0
	from := c.Start.Add(60 * 24 * time.Hour)
	live, err := c.LiveFrom(from, 5)
	if err != nil {
		t.Fatal(err)
	}
	since := from.UnixMilli()
	n := 0
	for m := range start(t, live).All() {
		if m.At > since+10*minute {
			break
		}
		if m.At > since {
			n++
		}
		if m.Event.Time > m.At {
			t.Fatalf("%s happens %d ms after it is sent", m.Event.ID, m.Event.Time-m.At)
		}
	}
	if n < 2_000 || n > 4_500 {
		t.Errorf("%d messages in ten minutes at 5 a second, want about 3000", n)
	}
}

func TestRunEndsWhenNobodyComesOrStays(t *testing.T) {
	c := DefaultConfig()
	c.Customers, c.Span, c.Later, c.ReferralShare = 20, time.Hour, 0, 0
	c.B = 0.001 // nearly everybody leaves after the first purchase
	g := start(t, c)
	n := 0
	for range g.All() {
		n++
	}
	if _, more := g.Next(); more || n < 20 {
		t.Errorf("%d messages, more: %v", n, more)
	}
}

func TestConfigIsRefusedByName(t *testing.T) {
	for name, change := range map[string]func(*Config){
		"customers": func(c *Config) { c.Customers = 0 },
		"alpha":     func(c *Config) { c.Alpha = math.NaN() },
		"q":         func(c *Config) { c.Q = 1 },
		"bad rate":  func(c *Config) { c.BadRate = 1.5 },
		"start":     func(c *Config) { c.Start = time.Time{} },
	} {
		c := DefaultConfig()
		change(&c)
		_, err := New(c)
		if want := "simulator setting " + name + ": "; err == nil || len(err.Error()) < len(want) || err.Error()[:len(want)] != want {
			t.Errorf("bad %s: got %v", name, err)
		}
	}
}
