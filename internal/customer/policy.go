package customer

import (
	"errors"
	"fmt"
	"math"
	"sort"
	"time"

	"github.com/tierstream/tierstream/internal/event"
)

const (
	maxAmount = 1 << 53 // largest MaxAmount: exact in JSON, and 512 of them fit maxSum
	maxSum    = 1 << 62 // bound of every sum, so that adding one more amount cannot overflow
	maxEvents = 128     // largest MaxEvents: so many events of any kind stay below MaxStored

	yearDays      = 365 // the year of the annual measures
	maxWindowDays = 400 // day buckets of so many days stay below MaxStored
	maxCategories = 32  // remembered categories of compacted orders
)

// Choice is what to do with events that a company may or may not want.
type Choice string

// The choices.
const (
	Ignore Choice = "ignore" // leave out and count as ignored
	Count  Choice = "count"  // treat as any other
)

// Policy holds the settings that decide what becomes of an event. They are
// part of the rules, which are hashed in their JSON form. An unpaid purchase is
// always ignored, so that the paid one that follows is accepted.
type Policy struct {
	Base      string        `json:"base"`         // ISO 4217 code of the base currency; no default
	MaxEvents int           `json:"max_events"`   // events kept in detail, 1 to 128
	Retention time.Duration `json:"retention_ns"` // how far behind a customer's newest event another may be; whole milliseconds
	Grace     time.Duration `json:"grace_ns"`     // how long after its own time a return may wait for its order; whole milliseconds, at most Retention
	// MaxAmount is the sanity cap of a single amount, in minor units of its
	// own and of the base currency.
	MaxAmount  int64  `json:"max_amount"`
	ZeroOrders Choice `json:"zero_orders"` // free orders: counted, they enter days and frequency, never the value model
	TestEvents Choice `json:"test_events"`
	Rates      []Rate `json:"rates,omitempty"` // by Currency; for amounts that state no conversion of their own
}

// Rate converts one currency to the base currency.
type Rate struct {
	Currency string `json:"currency"` // ISO 4217
	Rate     string `json:"rate"`     // decimal: base units per unit of Currency
}

// DefaultPolicy returns the defaults for a base currency.
func DefaultPolicy(base string) Policy {
	return Policy{
		Base:       base,
		MaxEvents:  128,
		Retention:  400 * 24 * time.Hour,
		Grace:      7 * 24 * time.Hour,
		MaxAmount:  1e12,
		ZeroOrders: Ignore,
		TestEvents: Ignore,
	}
}

// Validate reports everything that is wrong with p.
func (p *Policy) Validate() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if _, ok := event.Exponent(p.Base); !ok {
		wrong("base currency %q: not an ISO 4217 code", p.Base)
	}
	if p.MaxEvents < 1 || p.MaxEvents > maxEvents {
		wrong("max_events %d: not within 1 and %d", p.MaxEvents, maxEvents)
	}
	if p.Retention <= 0 || p.Retention%time.Millisecond != 0 {
		wrong("retention %v: not a positive number of milliseconds", p.Retention)
	}
	if p.Grace < 0 || p.Grace%time.Millisecond != 0 || p.Grace > p.Retention {
		wrong("grace %v: not a number of milliseconds within 0 and the retention", p.Grace)
	}
	if p.MaxAmount < 1 || p.MaxAmount > maxAmount {
		wrong("max_amount %d: not within 1 and %d", p.MaxAmount, int64(maxAmount))
	}
	for _, c := range [...]struct {
		name   string
		choice Choice
	}{{"zero_orders", p.ZeroOrders}, {"test_events", p.TestEvents}} {
		if c.choice != Ignore && c.choice != Count {
			wrong("%s %q: neither %q nor %q", c.name, c.choice, Ignore, Count)
		}
	}
	for i, r := range p.Rates {
		if r.Currency == p.Base {
			wrong("rate for %q: the base currency needs none", r.Currency)
			continue
		}
		if i > 0 && p.Rates[i-1].Currency >= r.Currency {
			wrong("rate for %q: rates are not in strict order of their currencies", r.Currency)
		}
		if _, err := event.Convert(1, r.Currency, r.Rate, p.Base); err != nil {
			wrong("rate for %q: %w", r.Currency, err)
		}
	}
	return errors.Join(errs...)
}

// rate returns the policy's rate for a currency.
func (p *Policy) rate(currency string) (string, bool) {
	i := sort.Search(len(p.Rates), func(i int) bool { return p.Rates[i].Currency >= currency })
	if i < len(p.Rates) && p.Rates[i].Currency == currency {
		return p.Rates[i].Rate, true
	}
	return "", false
}

func currencyOf(s string) (c Currency, ok bool) {
	if len(s) != 3 {
		return c, false
	}
	copy(c[:], s)
	return c, c.letters()
}

// Calendar tells the local date of an instant. Day must never decrease as ms
// grows: where a clock goes back over midnight, the repeated hour belongs to
// the later date.
type Calendar interface {
	// Day returns the local date of ms as days since 1970-01-01.
	Day(ms int64) int32
	// Split returns Day(ms) and the elapsed part of that local day, in [0, 1).
	Split(ms int64) (day int32, part float64)
}

// Folder folds events into records under one policy. It is immutable and safe
// for concurrent use, if its calendar is.
type Folder struct {
	policy    Policy
	calendar  Calendar
	retention int64 // milliseconds
	grace     int64 // milliseconds
	window    int32 // days
	keep      int32 // days for which a compacted day keeps its bucket
}

// NewFolder makes a Folder. window is the model's window in days, 1 to 400:
// day d counts at date today iff 0 ≤ today − d < window.
func NewFolder(p Policy, c Calendar, window int) (*Folder, error) {
	if err := p.Validate(); err != nil {
		return nil, fmt.Errorf("checking customer policy: %w", err)
	}
	if window < 1 || window > maxWindowDays {
		return nil, fmt.Errorf("checking window of %d days: not within 1 and %d", window, maxWindowDays)
	}
	p.Rates = append([]Rate(nil), p.Rates...)
	return &Folder{
		policy:    p,
		calendar:  c,
		retention: p.Retention.Milliseconds(),
		grace:     p.Grace.Milliseconds(),
		window:    int32(window),
		keep:      int32(max(window, yearDays)),
	}, nil
}

// plus adds a positive span to a time without overflow.
func plus(t, span int64) int64 {
	if t > math.MaxInt64-span {
		return math.MaxInt64
	}
	return t + span
}

// minus subtracts a positive span from a time without overflow.
func minus(t, span int64) int64 {
	if t < math.MinInt64+span {
		return math.MinInt64
	}
	return t - span
}
