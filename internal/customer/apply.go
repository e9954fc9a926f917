package customer

import (
	"math/bits"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/tierstream/tierstream/internal/event"
)

// Result says what Apply made of an event.
type Result struct {
	// Code is Applied, Waiting, or why the event was not used.
	Code  event.Code
	Field string // the offending attribute or data field of a refused event

	Late    bool // used, but older than the customer's newest event
	Unusual bool // used, but the status does not follow the usual order

	// WaitingHash is the key of a return that now waits; valid if Code is
	// Waiting.
	WaitingHash uint64
	// Resolved lists the waiting returns that this event settled, in the order
	// in which they were settled. Nil when there are none.
	Resolved []Resolution
}

// Resolution is the end of one wait: Applied, OverReturn, CurrencyChanged, or
// OrphanReturn when compaction needed its place.
type Resolution struct {
	Hash  uint64 // the WaitingHash under which it began to wait
	Code  event.Code
	Field string
}

// Apply folds one valid event into r. It changes r's Facts and Due only, and
// nothing at all unless the code is Applied, Waiting or BusinessDuplicate (of
// which only the event ID is remembered, so that any order of delivery gives
// the same facts). Expire(r, ev.Time) must have been called before.
//
// A business duplicate of a complaint or referral event (same status and time
// under a new event ID) can be told only while the event that it repeats is
// the winner; later it is applied, without effect.
func (f *Folder) Apply(r *Record, ev *event.Event) Result {
	if code, field := f.admit(&r.Facts, ev); code != event.Applied {
		return Result{Code: code, Field: field}
	}
	a := application{Folder: f, Facts: &r.Facts, ev: ev, id: eventKey(ev), content: uint32(ev.Content)}
	if content, ok := a.known(a.id); ok {
		if content == a.content {
			return Result{Code: event.Duplicate, Field: "id"}
		}
		return Result{Code: event.IDConflict, Field: "id"}
	}
	newest := r.Facts.Newest
	var code event.Code
	var field string
	switch ev.Type {
	case event.Purchase:
		code, field = a.purchase()
	case event.Return:
		code, field = a.giveBack()
	case event.Complaint:
		code, field = a.complaint()
	case event.Referral:
		code, field = a.referral()
	case event.Feedback:
		code, field = a.feedback()
	case event.Cost:
		code, field = a.cost()
	default:
		code, field = event.UnknownType, "type"
	}
	a.Code, a.Field = code, field
	switch code {
	case event.Applied:
		if ev.Type != event.Purchase { // whose order remembers it
			a.remember(a.id)
		}
		a.extend(ev.Time)
	case event.Waiting:
		a.remember(a.id)
		a.WaitingHash = businessKey(event.Return, ev.BusinessID)
	case event.BusinessDuplicate:
		a.remember(a.id)
	default:
		return a.Result
	}
	if code != event.BusinessDuplicate {
		a.Late = ev.Time < newest
	}
	a.settle()
	r.Due = f.Due(r)
	return a.Result
}

// Due returns the earliest time at which a waiting return of r has waited too
// long, one millisecond after its deadline, or NeverDue.
func (f *Folder) Due(r *Record) int64 {
	if len(r.Facts.Waiting) == 0 {
		return NeverDue
	}
	return plus(plus(r.Facts.Waiting[0].Time, f.grace), 1)
}

// Expire removes the waiting returns whose deadline (event time plus grace) is
// earlier than before, and returns their keys in (time, hash) order: they are
// refused as orphan returns. They leave no trace, so that a repaired one can
// be sent again. A return may still be resolved by a purchase at its deadline
// itself. Expire(r, r.Due) therefore removes what is due, and Expire(r, e)
// before an event at e removes the same returns whether or not a timer fired
// at or before e.
func (f *Folder) Expire(r *Record, before int64) []uint64 {
	fs := &r.Facts
	n := 0
	for n < len(fs.Waiting) && plus(fs.Waiting[n].Time, f.grace) < before {
		n++
	}
	return f.Drop(r, n)
}

// Drop removes the n earliest waiting returns, as Expire does.
func (f *Folder) Drop(r *Record, n int) []uint64 {
	fs := &r.Facts
	if n <= 0 {
		return nil
	}
	hashes := make([]uint64, n)
	for i := range hashes {
		hashes[i] = fs.Waiting[i].Hash
		fs.forget(fs.Waiting[i].Time, fs.Waiting[i].Content)
	}
	fs.Waiting = slices.Delete(fs.Waiting, 0, n)
	r.Due = f.Due(r)
	return hashes
}

// admit decides what needs no look at what the customer did before.
func (f *Folder) admit(fs *Facts, ev *event.Event) (event.Code, string) {
	if ev.Type == event.Purchase {
		switch {
		case ev.Test && f.policy.TestEvents == Ignore:
			return event.TestEvent, "test"
		case ev.Unpaid:
			return event.Unpaid, "status"
		case ev.Amount < 0:
			return event.NegativePurchase, "amount_minor"
		case ev.Amount == 0 && f.policy.ZeroOrders == Ignore:
			return event.ZeroPurchase, "amount_minor"
		}
	}
	switch {
	case ev.Time < fs.MinTime:
		return event.TooLate, "time"
	case ev.Amount < 0 || ev.Amount > f.policy.MaxAmount:
		return event.BadAmount, amountField(ev.Type)
	}
	return event.Applied, ""
}

// application is one event on its way into one customer's facts.
type application struct {
	*Folder
	*Facts
	Result
	ev      *event.Event
	id      uint64 // eventKey of ev, or what an order gave up for it
	content uint32
}

func (a *application) purchase() (event.Code, string) {
	ev := a.ev
	hash := businessKey(event.Purchase, ev.BusinessID)
	if o := a.order(hash); o != nil {
		code, field := a.repeated(o.Content, "order_id")
		if code == event.BusinessDuplicate && a.id < o.Event {
			o.Event, a.id = a.id, o.Event // the other one goes to Seen
		}
		return code, field
	}
	o := Order{
		Time:     ev.Time,
		Hash:     hash,
		Event:    a.id,
		Day:      a.calendar.Day(ev.Time),
		Content:  a.content,
		Category: categoryHash(ev.Category),
		Amount:   ev.Amount,
	}
	if ev.Currency != a.policy.Base {
		var ok bool
		if o.Currency, ok = currencyOf(ev.Currency); !ok {
			return event.BadCurrency, "currency"
		}
	}
	var code event.Code
	if o.Base, code = a.base(ev.Amount); code != event.Applied {
		return code, amountField(ev.Type)
	}
	margin, field := int64(0), ""
	switch {
	case ev.HasMargin:
		margin, field, o.HasMargin = ev.Margin, "margin_minor", true
	case ev.HasCost:
		field, o.HasMargin = "cost_minor", true
		if ev.Cost < -maxSum || ev.Cost > maxSum {
			return event.BadAmount, field
		}
		margin = ev.Amount - ev.Cost
	}
	if o.HasMargin {
		if o.Margin, code = a.marginBase(margin); code != event.Applied {
			return code, field
		}
	}
	if !a.fits(&o) {
		return event.BadAmount, amountField(ev.Type)
	}

	at, _ := slices.BinarySearchFunc(a.Orders, stamp{o.Time, o.Hash}, func(p Order, s stamp) int { return compare(p.Time, p.Hash, s.time, s.hash) })
	a.Orders = slices.Insert(a.Orders, at, o)
	a.Purchases++
	a.resolve(&a.Orders[at])
	return event.Applied, ""
}

// resolve settles the returns that waited for o, in (time, hash) order.
func (a *application) resolve(o *Order) {
	kept := a.Waiting[:0]
	for _, w := range a.Waiting {
		if w.Order != o.Hash {
			kept = append(kept, w)
			continue
		}
		code, field := o.take(w.Amount, w.Currency)
		if code == event.Applied {
			a.Returns++
			a.extend(w.Time)
		} else {
			a.forget(w.Time, w.Content)
		}
		a.Resolved = append(a.Resolved, Resolution{w.Hash, code, field})
	}
	a.Waiting = kept
}

func (a *application) giveBack() (event.Code, string) {
	ev := a.ev
	key := businessKey(event.Return, ev.BusinessID)
	if content, ok := a.known(key); ok {
		return a.repeated(content, "return_id")
	}
	if ev.Amount == 0 {
		return event.BadAmount, amountField(ev.Type)
	}
	var currency Currency
	if ev.Currency != a.policy.Base {
		var ok bool
		if currency, ok = currencyOf(ev.Currency); !ok {
			return event.BadCurrency, "currency"
		}
	}
	order := businessKey(event.Purchase, ev.OrderID)
	if o := a.order(order); o != nil {
		code, field := o.take(ev.Amount, currency)
		if code == event.Applied {
			a.remember(key)
			a.Returns++
		}
		return code, field
	}
	w := Waiting{Time: ev.Time, Hash: key, Order: order, Content: a.content, Currency: currency, Amount: ev.Amount}
	at, _ := slices.BinarySearchFunc(a.Waiting, stamp{w.Time, w.Hash}, func(v Waiting, s stamp) int { return compare(v.Time, v.Hash, s.time, s.hash) })
	a.Waiting = slices.Insert(a.Waiting, at, w)
	a.remember(key)
	return event.Waiting, ""
}

// take returns amount of the order, or says why not and changes nothing.
func (o *Order) take(amount int64, currency Currency) (event.Code, string) {
	if currency != o.Currency {
		return event.CurrencyChanged, "currency"
	}
	if amount > o.Amount-o.Returned {
		return event.OverReturn, amountField(event.Return)
	}
	o.Returned += amount
	return event.Applied, ""
}

func (a *application) complaint() (event.Code, string) {
	ev := a.ev
	paid := int64(-1)
	if ev.HasAmount {
		var code event.Code
		if paid, code = a.base(ev.Amount); code != event.Applied {
			return code, amountField(ev.Type)
		}
		if a.paid() > maxSum-paid {
			return event.BadAmount, amountField(ev.Type)
		}
	}
	key := businessKey(event.Complaint, ev.BusinessID)
	at, found := slices.BinarySearchFunc(a.Complaints, key, func(c Complaint, key uint64) int { return compare(0, c.Key, 0, key) })
	result := event.Applied
	if !found {
		a.Unusual = ev.Status != event.Opened
		a.Complaints = slices.Insert(a.Complaints, at, Complaint{Key: key, Time: NoTime, Opened: ev.Time, PaidTime: 0, Paid: -1})
	}
	c := &a.Complaints[at]
	if found && c.Time == ev.Time && c.Status == uint8(ev.Status) {
		if c.Content != a.content {
			return event.BusinessConflict, "complaint_id"
		}
		result = event.BusinessDuplicate
	}
	c.Opened = min(c.Opened, ev.Time)
	if before(c.Time, c.Hash, ev.Time, a.id) {
		a.Unusual = a.Unusual || found && !usual(event.Status(c.Status), ev.Status)
		c.Time, c.Hash, c.Content = ev.Time, a.id, a.content
		c.Status, c.Severity = uint8(ev.Status), ev.Severity
	}
	if paid >= 0 && (c.Paid < 0 || before(c.PaidTime, c.PaidHash, ev.Time, a.id)) {
		c.PaidTime, c.PaidHash, c.Paid = ev.Time, a.id, paid
	}
	return result, ""
}

func (a *application) referral() (event.Code, string) {
	ev := a.ev
	value := int64(-1)
	if ev.HasAmount {
		var code event.Code
		if value, code = a.base(ev.Amount); code != event.Applied {
			return code, amountField(ev.Type)
		}
		if a.referred() > maxSum-value {
			return event.BadAmount, amountField(ev.Type)
		}
	}
	key := businessKey(event.Referral, ev.BusinessID)
	at, found := slices.BinarySearchFunc(a.Referrals, key, func(c Referral, key uint64) int { return compare(0, c.Key, 0, key) })
	result := event.Applied
	if !found {
		a.Unusual = ev.Status != event.Invited
		a.Referrals = slices.Insert(a.Referrals, at, Referral{Key: key, Time: NoTime, Value: -1})
	}
	c := &a.Referrals[at]
	if found && c.Time == ev.Time && c.Status == uint8(ev.Status) {
		if c.Content != a.content {
			return event.BusinessConflict, "referral_id"
		}
		result = event.BusinessDuplicate
	}
	if before(c.Time, c.Hash, ev.Time, a.id) {
		a.Unusual = a.Unusual || found && !usual(event.Status(c.Status), ev.Status)
		*c = Referral{Key: key, Time: ev.Time, Hash: a.id, Content: a.content, Status: uint8(ev.Status), Value: value}
	}
	return result, ""
}

// usual reports whether a complaint or referral usually goes from one status
// to the other. Stating the same status again, as with another severity, is no
// transition.
func usual(from, to event.Status) bool {
	switch to {
	case from:
		return true
	case event.Resolved, event.Rejected:
		return from == event.Opened || from == event.Reopened
	case event.Reopened:
		return from == event.Resolved || from == event.Rejected
	case event.Converted:
		return from == event.Invited
	case event.Reversed:
		return from == event.Converted
	}
	return false
}

func (a *application) feedback() (event.Code, string) {
	ev := a.ev
	var last *Answer
	var count *int64
	switch ev.Kind {
	case event.NPS:
		last = &a.NPS
	case event.CSAT:
		last = &a.CSAT
	case event.CES:
		last = &a.CES
	case event.Praise:
		count = &a.Praises
	case event.Suggestion:
		count = &a.Suggestions
	default:
		return event.BadScore, "kind"
	}
	key := businessKey(event.Feedback, ev.BusinessID)
	if content, ok := a.known(key); ok {
		code, field := a.repeated(content, "response_id")
		if code == event.BusinessDuplicate && last != nil {
			last.put(ev, a.id) // the greatest event ID wins, whichever came first
		}
		return code, field
	}
	a.remember(key)
	if count != nil {
		*count++
	} else {
		last.put(ev, a.id)
	}
	return event.Applied, ""
}

// put takes a response if it is later than the one that is there.
func (l *Answer) put(ev *event.Event, id uint64) {
	if !l.Known || before(l.Time, l.Hash, ev.Time, id) {
		*l = Answer{Known: true, Time: ev.Time, Hash: id, Score: ev.Score, ScaleMax: ev.ScaleMax}
	}
}

func (a *application) cost() (event.Code, string) {
	ev := a.ev
	key := businessKey(event.Cost, ev.BusinessID)
	if content, ok := a.known(key); ok {
		return a.repeated(content, "cost_id")
	}
	var sum *int64
	switch ev.Kind {
	case event.Acquisition:
		sum = &a.Costs.Acquisition
	case event.Service:
		sum = &a.Costs.Service
	case event.Marketing:
		sum = &a.Costs.Marketing
	case event.Sales:
		sum = &a.Costs.Selling
	default:
		return event.BadCost, "kind"
	}
	amount, code := a.base(ev.Amount)
	if code != event.Applied {
		return code, amountField(ev.Type)
	}
	if *sum > maxSum-amount {
		return event.BadAmount, amountField(ev.Type)
	}
	a.remember(key)
	*sum += amount
	if ev.Kind == event.Acquisition {
		a.Costs.AcquisitionKnown = true
	}
	return event.Applied, ""
}

// repeated judges an event whose business ID is known with content.
func (a *application) repeated(content uint32, field string) (event.Code, string) {
	if content == a.content {
		return event.BusinessDuplicate, ""
	}
	return event.BusinessConflict, field
}

// base converts an amount of the event to the base currency, by the event's
// own conversion, else by the policy's rate. Only a purchase states its total
// in the base currency.
func (a *application) base(amount int64) (int64, event.Code) {
	ev := a.ev
	if ev.Currency == a.policy.Base {
		return amount, event.Applied
	}
	if ev.HasBase {
		if ev.Base < 0 || ev.Base > a.policy.MaxAmount {
			return 0, event.BadAmount
		}
		return ev.Base, event.Applied
	}
	converted, code := a.convert(amount)
	if code == event.Applied && converted > a.policy.MaxAmount {
		return 0, event.BadAmount
	}
	return converted, code
}

// marginBase converts the margin of a purchase in proportion to its amount,
// so that it uses the order's own rate.
func (a *application) marginBase(margin int64) (int64, event.Code) {
	ev := a.ev
	var converted int64
	code := event.Applied
	switch {
	case ev.Currency == a.policy.Base:
		converted = margin
	case ev.HasBase && ev.Amount > 0:
		if hi, _ := bits.Mul64(magnitude(margin), uint64(ev.Base)); hi >= uint64(ev.Amount) {
			return 0, event.BadAmount
		}
		converted = share(margin, ev.Base, ev.Amount)
	default:
		converted, code = a.convert(margin)
	}
	if code == event.Applied && magnitude(converted) > uint64(a.policy.MaxAmount) {
		return 0, event.BadAmount
	}
	return converted, code
}

// convert applies the event's rate, else the policy's.
func (a *application) convert(amount int64) (int64, event.Code) {
	rate := a.ev.FXRate
	if rate == "" {
		var ok bool
		if rate, ok = a.policy.rate(a.ev.Currency); !ok {
			return 0, event.NoRate
		}
	}
	converted, err := event.Convert(amount, a.ev.Currency, rate, a.policy.Base)
	if err != nil {
		return 0, event.BadAmount // rates are checked before; what is left is overflow
	}
	return converted, event.Applied
}

// fits reports whether every sum that o may enter, now or when it is
// compacted, stays within maxSum.
func (fs *Facts) fits(o *Order) bool {
	t := &fs.Old.Totals
	money := uint64(t.Net) + uint64(fs.Old.Returned) + uint64(o.Base)
	margins := magnitude(t.First.Known) + magnitude(t.Cross.Known) + magnitude(t.Repeat.Known) + magnitude(o.Margin)
	for i := range fs.Orders {
		money += uint64(fs.Orders[i].Base)
		margins += magnitude(fs.Orders[i].Margin)
	}
	return money <= maxSum && margins <= maxSum
}

// paid is Σ compensation.
func (fs *Facts) paid() int64 {
	sum := fs.Old.Compensation
	for i := range fs.Complaints {
		sum += max(fs.Complaints[i].Paid, 0)
	}
	return sum
}

// referred is Σ value of referrals, whatever their status.
func (fs *Facts) referred() int64 {
	sum := fs.Old.ReferralValue
	for i := range fs.Referrals {
		sum += max(fs.Referrals[i].Value, 0)
	}
	return sum
}

// extend makes First and Newest include an applied event's time.
func (fs *Facts) extend(t int64) {
	fs.First = min(fs.First, t)
	fs.Newest = max(fs.Newest, t)
}

// known finds a remembered ID, whatever its time, and what came under it.
// Linear: the lists are short, and a conflicting event may state another time.
func (fs *Facts) known(hash uint64) (content uint32, ok bool) {
	for i := range fs.Seen {
		if fs.Seen[i].Hash == hash {
			return fs.Seen[i].Content, true
		}
	}
	for i := range fs.Orders {
		if fs.Orders[i].Event == hash {
			return fs.Orders[i].Content, true
		}
	}
	return 0, false
}

// order finds an order in the ledger.
func (fs *Facts) order(hash uint64) *Order {
	for i := range fs.Orders {
		if fs.Orders[i].Hash == hash {
			return &fs.Orders[i]
		}
	}
	return nil
}

// remember puts an ID of the event into Seen.
func (a *application) remember(hash uint64) {
	s := Seen{Time: a.ev.Time, Hash: hash, Content: a.content}
	at, _ := slices.BinarySearchFunc(a.Seen, s, func(p, s Seen) int { return compare(p.Time, p.Hash, s.Time, s.Hash) })
	a.Seen = slices.Insert(a.Seen, at, s)
}

// forget removes all IDs under which an event of this time and content came.
func (fs *Facts) forget(t int64, content uint32) {
	fs.Seen = slices.DeleteFunc(fs.Seen, func(s Seen) bool { return s.Time == t && s.Content == content })
}

// stamp is what sorted lists are sorted by.
type stamp struct {
	time int64
	hash uint64
}

// compare orders by (time, hash).
func compare(t int64, h uint64, u int64, k uint64) int {
	switch {
	case t == u && h == k:
		return 0
	case before(t, h, u, k):
		return -1
	}
	return 1
}

// eventKey is the hash by which an event ID is remembered. IDs hold no
// control characters, so the zero byte parts source and ID.
func eventKey(ev *event.Event) uint64 {
	var buf [2 + 2*128]byte // IDs from the wire fit
	b := append(append(buf[:0], 0), ev.Source...)
	b = append(append(b, 0), ev.ID...)
	return xxhash.Sum64(b)
}

// businessKey is the hash of a business ID. The type parts the kinds of IDs
// from one another and from event IDs, whose first byte is zero.
func businessKey(t event.Type, id string) uint64 {
	var buf [1 + 128]byte
	return xxhash.Sum64(append(append(buf[:0], byte(t)), id...))
}

// categoryHash is 0 for no category only.
func categoryHash(category string) uint32 {
	if category == "" {
		return 0
	}
	return max(uint32(xxhash.Sum64String(category)), 1)
}

// amountField is the name of a type's amount on the wire.
func amountField(t event.Type) string {
	switch t {
	case event.Complaint:
		return "compensation_minor"
	case event.Referral:
		return "value_minor"
	}
	return "amount_minor"
}

func magnitude(n int64) uint64 {
	if n < 0 {
		return -uint64(n)
	}
	return uint64(n)
}

// share returns n × part / whole, rounded half to even; exact in between.
// part is not negative, whole is positive, and the result must fit.
func share(n, part, whole int64) int64 {
	hi, lo := bits.Mul64(magnitude(n), uint64(part))
	q, rest := bits.Div64(hi, lo, uint64(whole))
	if twice := 2 * rest; twice > uint64(whole) || twice == uint64(whole) && q&1 == 1 {
		q++
	}
	if n < 0 {
		return -int64(q)
	}
	return int64(q)
}
