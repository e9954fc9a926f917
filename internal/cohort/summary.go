package cohort

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"
)

// Unit is in what times are given.
type Unit string

// The units. A week is seven days, in exact fractions.
const (
	Days  Unit = "day"
	Weeks Unit = "week"
)

// days is the length of the unit.
func (u Unit) days() float64 {
	if u == Weeks {
		return 7
	}
	return 1
}

// Period is within what purchases count once.
type Period string

// The periods. A calendar week is Monday to Sunday.
const (
	PerDay  Period = "day"
	PerWeek Period = "week"
)

// of is the number of the period that a day lies in.
func (p Period) of(day int32) int64 {
	if p == PerWeek {
		return int64(math.Floor(float64(day+3) / 7)) // 1970-01-01 was a Thursday
	}
	return int64(day)
}

// Cut says what of a log is summarised, and how time is measured. Days are
// days since 1970-01-01 and belong to what they end.
type Cut struct {
	// End is the end of observation; later purchases and returns are left out.
	End int32
	// Calibration ends the calibration, if Split: summaries are as of that day,
	// and what follows until End is the holdout. Only customers who had bought
	// by then are there.
	Split       bool
	Calibration int32

	Unit   Unit   // of t_x and T; "" is Days
	Period Period // "" is PerDay. PerWeek counts t_x and T in whole weeks: Unit must be Weeks
}

// Until is the cut of a whole log: the observation ends with the last purchase.
func (l *Log) Until() Cut { return Cut{End: l.Last} }

// Horizon is the length of the holdout, in units.
func (c *Cut) Horizon() float64 { return c.Span(c.Calibration, c.End) }

// SummaryEnd is the end of what is summarised.
func (c *Cut) SummaryEnd() int32 {
	if c.Split {
		return c.Calibration
	}
	return c.End
}

// Span is the time from one day to another, in units.
func (c *Cut) Span(from, to int32) float64 {
	if c.Period == PerWeek {
		return float64(c.Period.of(to) - c.Period.of(from))
	}
	return float64(to-from) / c.Unit.days()
}

// Summary is one customer's purchases in the terms of the models. A purchase is
// a period with at least one order that is not returned whole.
type Summary struct {
	Customer string

	X      int     // repeat purchases: all but the first
	TX     float64 // from the first to the last purchase, in units; 0 when X is 0
	T      float64 // from the first purchase to the end of what is summarised, in units
	Orders int     // orders not returned whole
	Net    int64   // their money
	First  int32   // day of the first purchase
	Last   int32

	// ValueDays is how many repeat purchases have a net value above zero,
	// ValueSum their value: a Gamma distribution knows no other. The first
	// purchase is left out.
	ValueDays int
	ValueSum  int64

	// Of the holdout: purchases in periods after that of the cut, and their net
	// value.
	Holdout      int
	HoldoutValue int64

	// Purchases are the days of all purchases, those of the holdout too, each the
	// first of its period. They draw histories.
	Purchases []int32
}

// MeanValue is the mean value of the repeat purchases that count as value, in
// minor units; 0 when there are none.
func (s *Summary) MeanValue() float64 {
	if s.ValueDays == 0 {
		return 0
	}
	return float64(s.ValueSum) / float64(s.ValueDays)
}

// Summaries are those of all customers who bought by the end of what is
// summarised, in the order of their IDs.
func (l *Log) Summaries(c Cut) ([]Summary, error) {
	switch {
	case c.Period == PerWeek && c.Unit != Weeks:
		return nil, errors.New("purchases that count per calendar week need times in weeks")
	case c.Split && c.Calibration >= c.End:
		return nil, fmt.Errorf("the calibration ends on %s: want a day before the end of observation, %s", Date(c.Calibration), Date(c.End))
	case c.SummaryEnd() < l.First:
		return nil, fmt.Errorf("nobody has bought by %s: the first purchase is of %s", Date(c.SummaryEnd()), Date(l.First))
	}
	var all []Summary
	for _, id := range slices.Sorted(maps.Keys(l.customers)) {
		if s, ok := l.customers[id].summary(&c); ok {
			s.Customer = id
			all = append(all, s)
		}
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("nobody has a purchase by %s that was not returned", Date(c.SummaryEnd()))
	}
	return all, nil
}

// purchase is what was bought in one period.
type purchase struct {
	first, last int32 // days
	orders      int
	net         int64
}

// purchases are the customer's by period, of the days up to end, less what was
// returned by then.
func (h *history) purchases(period Period, end int32) map[int64]purchase {
	all := map[int64]purchase{}
	for i := range h.orders {
		o := &h.orders[i]
		net, ok := o.net(end)
		if o.day > end || !ok {
			continue
		}
		p, there := all[period.of(o.day)]
		if !there {
			p.first, p.last = o.day, o.day
		}
		p.first, p.last = min(p.first, o.day), max(p.last, o.day)
		p.orders++
		p.net += net
		all[period.of(o.day)] = p
	}
	return all
}

// summary is the customer's; false when nothing was bought.
func (h *history) summary(c *Cut) (s Summary, ok bool) {
	bought := h.purchases(c.Period, c.SummaryEnd())
	if len(bought) == 0 {
		return s, false
	}
	periods := slices.Sorted(maps.Keys(bought))
	first, last := bought[periods[0]], bought[periods[len(periods)-1]]
	s = Summary{X: len(periods) - 1, First: first.first, Last: last.last}
	for i, at := range periods {
		p := bought[at]
		s.Orders += p.orders
		s.Net += p.net
		s.Purchases = append(s.Purchases, p.first)
		if i > 0 && p.net > 0 {
			s.ValueDays++
			s.ValueSum += p.net
		}
	}
	if s.X > 0 {
		s.TX = c.Span(first.first, last.first)
	}
	s.T = c.Span(s.First, c.SummaryEnd())
	if c.Split {
		later := h.purchases(c.Period, c.End)
		for _, at := range slices.Sorted(maps.Keys(later)) {
			if at > c.Period.of(c.Calibration) {
				s.Holdout++
				s.HoldoutValue += later[at].net
				s.Purchases = append(s.Purchases, later[at].first)
			}
		}
	}
	return s, true
}

// Date is a day as YYYY-MM-DD.
func Date(day int32) string { return time.Unix(int64(day)*86_400, 0).UTC().Format(time.DateOnly) }

// ParseDate reads a day.
func ParseDate(s string) (int32, error) {
	t, err := time.Parse(time.DateOnly, s)
	if err != nil {
		return 0, fmt.Errorf("date %q: want YYYY-MM-DD", s)
	}
	return int32(math.Floor(float64(t.Unix()) / 86_400)), nil
}
