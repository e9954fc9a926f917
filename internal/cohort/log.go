package cohort

import (
	"cmp"
	"fmt"
	"io"
	"math/big"
	"slices"

	"github.com/zeebo/xxh3"

	"github.com/tierstream/tierstream/internal/event"
)

// A Log is the purchases of many customers by local day. Money is int64 minor
// units of one currency.
type Log struct {
	Options // completed by what was detected
	Counts  Counts

	// First and Last are the days of the first and the last purchase, as days
	// since 1970-01-01.
	First, Last int32

	days      func(ms int64) int32
	customers map[string]*history
	seen      map[xxh3.Uint128]uint64 // content by event ID
}

// Counts say what became of the rows that are no purchases, or are left out.
type Counts struct {
	Purchases  int64 // used
	Returns    int64 // used
	Duplicates int64 // the same event or order again, with the same content
	Zero       int64 // of no money, left out
	Ignored    int64 // test orders and unpaid ones
	Orphans    int64 // returns whose order is not in the log
	Bad        int64
}

// history is what one customer bought.
type history struct {
	orders  []order
	index   map[string]int // into orders by order ID, of formats that have IDs
	returns []returned     // until settle
}

type order struct {
	day      int32
	currency string
	content  uint64 // the event's content hash
	amount   int64  // in currency
	base     int64  // in the log's currency
	returns  []taken
}

type taken struct {
	day    int32
	amount int64 // in the order's currency
}

type returned struct {
	line, at  int64
	day       int32
	id, order string
	content   uint64
	currency  string
	amount    int64
}

// Read reads a whole log.
func Read(in io.Reader, o Options) (*Log, error) {
	l := &Log{customers: map[string]*history{}, seen: map[xxh3.Uint128]uint64{}}
	tell := o.Bad
	if tell != nil {
		o.Bad = func(line int64, err error) error {
			l.Counts.Bad++
			return tell(line, err)
		}
	}
	r, err := Open(in, o)
	if err != nil {
		return nil, err
	}
	l.days = r.Day
	bad := func(line int64, err error) error {
		if err == nil {
			return nil
		}
		return r.bad(line, err)
	}
	if err := r.Each(func(line int64, ev *event.Event) error { return bad(line, l.add(r, line, ev)) }); err != nil {
		return nil, err
	}
	l.Options = r.Options
	var faults []fault
	for _, h := range l.customers {
		faults = append(faults, l.settle(h)...)
	}
	slices.SortFunc(faults, func(a, b fault) int { return cmp.Compare(a.line, b.line) })
	for _, f := range faults {
		if err := r.bad(f.line, f.err); err != nil {
			return nil, err
		}
	}
	if l.Counts.Purchases == 0 {
		return nil, fmt.Errorf("the log has no purchases: %d duplicates, %d of zero money, %d tests or unpaid, %d bad", l.Counts.Duplicates, l.Counts.Zero, l.Counts.Ignored, l.Counts.Bad)
	}
	return l, nil
}

// add takes one event. An error says why it cannot be used.
func (l *Log) add(r *Reader, line int64, ev *event.Event) error {
	if r.Format == NDJSON {
		switch again, err := l.again(ev); {
		case err != nil:
			return err
		case again:
			l.Counts.Duplicates++
			return nil
		}
	}
	if r.Currency == "" {
		r.Currency = ev.Currency
	}
	h := l.customers[ev.Customer]
	if h == nil {
		h = &history{}
	}
	day := l.days(ev.Time)
	if ev.Type == event.Return {
		h.returns = append(h.returns, returned{line, ev.Time, day, ev.BusinessID, ev.OrderID, ev.Content, ev.Currency, ev.Amount})
		l.customers[ev.Customer] = h
		return nil
	}
	switch {
	case ev.Test || ev.Unpaid:
		l.Counts.Ignored++
		return nil
	case ev.Amount == 0 && !r.CountZero:
		l.Counts.Zero++
		return nil
	}
	o := order{day: day, currency: ev.Currency, content: ev.Content, amount: ev.Amount, base: ev.Amount}
	if o.currency != r.Currency {
		var err error
		switch {
		case ev.HasBase:
			o.base = ev.Base
		case ev.FXRate != "":
			o.base, err = event.Convert(ev.Amount, ev.Currency, ev.FXRate, r.Currency)
		default:
			err = fmt.Errorf("an amount in %s, where the log is in %s: want base_amount_minor or fx_rate", ev.Currency, r.Currency)
		}
		if err != nil {
			return err
		}
	}
	if r.Format == NDJSON || r.Format == UCI { // the others have no order IDs
		if at, ok := h.index[ev.BusinessID]; ok {
			if h.orders[at].content != o.content {
				return fmt.Errorf("order %s again, with another content", ev.BusinessID)
			}
			l.Counts.Duplicates++
			return nil
		}
		if h.index == nil {
			h.index = map[string]int{}
		}
		h.index[ev.BusinessID] = len(h.orders)
	}
	h.orders = append(h.orders, o)
	l.customers[ev.Customer] = h
	if l.Counts.Purchases == 0 {
		l.First, l.Last = day, day
	}
	l.First, l.Last = min(l.First, day), max(l.Last, day)
	l.Counts.Purchases++
	return nil
}

// again reports whether an event came before, with the same content.
func (l *Log) again(ev *event.Event) (bool, error) {
	id := xxh3.HashString128(fmt.Sprintf("%d %s%s", len(ev.Source), ev.Source, ev.ID))
	content, known := l.seen[id]
	if known && content != ev.Content {
		return false, fmt.Errorf("event %s of %s again, with another content", ev.ID, ev.Source)
	}
	l.seen[id] = ev.Content
	return known, nil
}

// fault is a row that cannot be used.
type fault struct {
	line int64
	err  error
}

// settle takes a customer's returns from their orders, in the order of their
// times, and returns those that cannot be.
func (l *Log) settle(h *history) (faults []fault) {
	slices.SortFunc(h.returns, func(a, b returned) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.id, b.id)) })
	done := map[string]uint64{} // content by return ID
	for _, r := range h.returns {
		wrong := func(format string, args ...any) {
			faults = append(faults, fault{r.line, fmt.Errorf("return %s: %w", r.id, fmt.Errorf(format, args...))})
		}
		if content, twice := done[r.id]; twice {
			if content != r.content {
				wrong("again, with another content")
			} else {
				l.Counts.Duplicates++
			}
			continue
		}
		at, ok := h.index[r.order]
		if !ok {
			l.Counts.Orphans++
			continue
		}
		o := &h.orders[at]
		left := o.amount
		for _, t := range o.returns {
			left -= t.amount
		}
		switch {
		case r.currency != o.currency:
			wrong("it is in %s, its order %s in %s", r.currency, r.order, o.currency)
		case r.amount > left:
			wrong("the returns of order %s add up to more than its amount", r.order)
		default:
			done[r.id] = r.content
			o.returns = append(o.returns, taken{r.day, r.amount})
			l.Counts.Returns++
		}
	}
	h.returns, h.index = nil, nil
	return faults
}

// net is what is left of the order at the end of a day; false when it was
// returned whole. A return takes its share of the order's base amount, half to
// even, so that a whole return takes everything.
func (o *order) net(day int32) (net int64, ok bool) {
	var returned int64
	for _, t := range o.returns {
		if t.day <= day {
			returned += t.amount
		}
	}
	switch {
	case returned == 0:
		return o.base, true
	case returned == o.amount:
		return 0, false
	}
	n := new(big.Int).Mul(big.NewInt(o.base), big.NewInt(returned))
	q, rest := n.QuoRem(n, big.NewInt(o.amount), new(big.Int))
	if c := rest.Lsh(rest, 1).Cmp(big.NewInt(o.amount)); c > 0 || c == 0 && q.Bit(0) == 1 {
		q.Add(q, big.NewInt(1))
	}
	return o.base - q.Int64(), true
}
