package customer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/scoring"
)

// The stored form, version 1. Integers are in their narrowest form, except
// seq. "time*" and "day*" are absolute in a list's first entry and the
// difference from the entry before in the others (times unsigned: lists are
// sorted).
//
//	byte 0      version
//	byte 1      array of 4
//	bytes 2–10  seq, a nine-byte uint64
//	from 11     due; facts; standing
//
//	facts      [first, newest, min time, purchases, returns,
//	            seen, orders, waiting, complaints, referrals,
//	            nps, csat, ces, praises, suggestions, costs, old]
//	seen       [time*, hash, content]…, flat
//	orders     [[time*, day*, hash, content, category, amount, returned,
//	            margin or nil (, currency, base)]…]; the last two only in
//	            another currency than the base
//	waiting    [time*, hash, order, content, currency or nil, amount]…, flat
//	complaints [[key, time, hash, content, status, severity, opened
//	            (, paid time, paid hash, paid)]…]; the last three only if paid
//	referrals  [key, time, hash, content, status, value or nil]…, flat
//	answers    [] or [time, hash, score, scale]
//	costs      [acquisition or nil, service, marketing, selling]
//	old        [] or [orders, net, 3 × (known, assumed), first day, last day,
//	            days, last net, value days, value sum, last time, returned,
//	            categories, buckets, complaints, compensation, converted,
//	            unvalued, referral value]
//	categories [hash difference…]
//	buckets    [day*, orders, net, known, assumed]…, flat
//	standing   [tier, since, sequence, clock]
const (
	version1  = 1
	headBytes = 11 // version, array of 4, seq: what the digest leaves out, but for the version

	factsFields     = 17
	seenFields      = 3
	orderFields     = 8
	foreignFields   = 10
	waitingFields   = 6
	complaintFields = 7
	paidFields      = 10
	referralFields  = 6
	answerFields    = 4
	costsFields     = 4
	oldFields       = 23
	bucketFields    = 5
	standingFields  = 4
)

// What one entry takes at most. tooBig holds a record against these before it
// measures, and a test holds them against the encoder.
const (
	maxSeenBytes      = 9 + 9 + 5
	maxOrderBytes     = 1 + 9 + 5 + 9 + 5 + 5 + 9 + 9 + 9 + 4 + 9
	maxWaitingBytes   = 9 + 9 + 9 + 5 + 4 + 9
	maxComplaintBytes = 1 + 9 + 9 + 9 + 5 + 1 + 1 + 9 + 9 + 9 + 9
	maxReferralBytes  = 9 + 9 + 9 + 5 + 1 + 9
	maxBucketBytes    = 5 + 4*9
	maxCategoryBytes  = 5
	// maxFixedBytes is everything else: heads, envelope, standing, answers,
	// costs and the totals of Old.
	maxFixedBytes = 600
)

// ErrVersion is returned by Decode for a record written by a newer program (or
// by something else altogether).
var ErrVersion = errors.New("unknown version of the customer record")

// Append appends the stored form of r to b. It allocates only to grow b.
func (r *Record) Append(b []byte) []byte {
	f := &r.Facts
	b = append(b, version1, fixArray|4)
	b = appendUint64(b, r.Seq)
	b = appendInt(b, r.Due)

	b = appendArray(b, factsFields)
	b = appendInt(b, f.First)
	b = appendInt(b, f.Newest)
	b = appendInt(b, f.MinTime)
	b = appendInt(b, f.Purchases)
	b = appendInt(b, f.Returns)

	b = appendArray(b, seenFields*len(f.Seen))
	var before int64
	for i := range f.Seen {
		s := &f.Seen[i]
		b = appendTime(b, i, s.Time, before)
		before = s.Time
		b = appendUint(b, s.Hash)
		b = appendUint(b, uint64(s.Content))
	}
	b = appendArray(b, len(f.Orders))
	before = 0
	var day int32
	for i := range f.Orders {
		o := &f.Orders[i]
		foreign := o.Currency != Currency{}
		if foreign {
			b = appendArray(b, foreignFields)
		} else {
			b = appendArray(b, orderFields)
		}
		b = appendTime(b, i, o.Time, before)
		b = appendInt(b, int64(o.Day)-int64(day))
		before, day = o.Time, o.Day
		b = appendUint(b, o.Hash)
		b = appendUint(b, uint64(o.Content))
		b = appendUint(b, uint64(o.Category))
		b = appendInt(b, o.Amount)
		b = appendInt(b, o.Returned)
		if o.HasMargin {
			b = appendInt(b, o.Margin)
		} else {
			b = append(b, codeNil)
		}
		if foreign {
			b = appendCurrency(b, o.Currency)
			b = appendInt(b, o.Base)
		}
	}
	b = appendArray(b, waitingFields*len(f.Waiting))
	before = 0
	for i := range f.Waiting {
		w := &f.Waiting[i]
		b = appendTime(b, i, w.Time, before)
		before = w.Time
		b = appendUint(b, w.Hash)
		b = appendUint(b, w.Order)
		b = appendUint(b, uint64(w.Content))
		b = appendCurrency(b, w.Currency)
		b = appendInt(b, w.Amount)
	}
	b = appendArray(b, len(f.Complaints))
	for i := range f.Complaints {
		c := &f.Complaints[i]
		if c.Paid >= 0 {
			b = appendArray(b, paidFields)
		} else {
			b = appendArray(b, complaintFields)
		}
		b = appendUint(b, c.Key)
		b = appendInt(b, c.Time)
		b = appendUint(b, c.Hash)
		b = appendUint(b, uint64(c.Content))
		b = appendUint(b, uint64(c.Status))
		b = appendUint(b, uint64(c.Severity))
		b = appendInt(b, c.Opened)
		if c.Paid >= 0 {
			b = appendInt(b, c.PaidTime)
			b = appendUint(b, c.PaidHash)
			b = appendInt(b, c.Paid)
		}
	}
	b = appendArray(b, referralFields*len(f.Referrals))
	for i := range f.Referrals {
		c := &f.Referrals[i]
		b = appendUint(b, c.Key)
		b = appendInt(b, c.Time)
		b = appendUint(b, c.Hash)
		b = appendUint(b, uint64(c.Content))
		b = appendUint(b, uint64(c.Status))
		if c.Value >= 0 {
			b = appendInt(b, c.Value)
		} else {
			b = append(b, codeNil)
		}
	}
	b = f.NPS.append(b)
	b = f.CSAT.append(b)
	b = f.CES.append(b)
	b = appendInt(b, f.Praises)
	b = appendInt(b, f.Suggestions)

	b = appendArray(b, costsFields)
	if f.Costs.AcquisitionKnown {
		b = appendInt(b, f.Costs.Acquisition)
	} else {
		b = append(b, codeNil)
	}
	b = appendInt(b, f.Costs.Service)
	b = appendInt(b, f.Costs.Marketing)
	b = appendInt(b, f.Costs.Selling)

	b = f.Old.append(b)

	b = appendArray(b, standingFields)
	b = appendInt(b, int64(r.Standing.Tier))
	b = appendInt(b, r.Standing.Since)
	b = appendUint(b, r.Standing.Sequence)
	return appendInt(b, r.Standing.Clock)
}

// appendTime appends the time of entry i of a sorted list.
func appendTime(b []byte, i int, t, before int64) []byte {
	if i == 0 {
		return appendInt(b, t)
	}
	return appendUint(b, uint64(t)-uint64(before))
}

// appendCurrency appends three letters, or nil for the base currency.
func appendCurrency(b []byte, c Currency) []byte {
	if c == (Currency{}) {
		return append(b, codeNil)
	}
	return append(b, fixStr|3, c[0], c[1], c[2])
}

func (a *Answer) append(b []byte) []byte {
	if !a.Known {
		return appendArray(b, 0)
	}
	b = appendArray(b, answerFields)
	b = appendInt(b, a.Time)
	b = appendUint(b, a.Hash)
	b = appendInt(b, int64(a.Score))
	return appendInt(b, int64(a.ScaleMax))
}

func (o *Old) append(b []byte) []byte {
	if o.empty() {
		return appendArray(b, 0)
	}
	b = appendArray(b, oldFields)
	b = appendInt(b, o.Orders)
	b = appendInt(b, o.Net)
	for _, m := range [...]*scoring.Margins{&o.First, &o.Cross, &o.Repeat} {
		b = appendInt(b, m.Known)
		b = appendInt(b, m.Assumed)
	}
	b = appendInt(b, int64(o.FirstDay))
	b = appendInt(b, int64(o.LastDay))
	b = appendInt(b, o.Days)
	b = appendInt(b, o.LastNet)
	b = appendInt(b, o.ValueDays)
	b = appendInt(b, o.ValueSum)
	b = appendInt(b, o.LastTime)
	b = appendInt(b, o.Returned)
	b = appendArray(b, len(o.Categories))
	var category uint32
	for _, c := range o.Categories {
		b = appendUint(b, uint64(c-category))
		category = c
	}
	b = appendArray(b, bucketFields*len(o.Buckets))
	var day int32
	for i := range o.Buckets {
		k := &o.Buckets[i]
		b = appendInt(b, int64(k.Day)-int64(day))
		day = k.Day
		b = appendInt(b, k.Orders)
		b = appendInt(b, k.Net)
		b = appendInt(b, k.Margin.Known)
		b = appendInt(b, k.Margin.Assumed)
	}
	b = appendInt(b, o.Complaints)
	b = appendInt(b, o.Compensation)
	b = appendInt(b, o.Converted)
	b = appendInt(b, o.Unvalued)
	return appendInt(b, o.ReferralValue)
}

// empty reports whether nothing was compacted yet.
func (o *Old) empty() bool {
	return o.Totals == Totals{} && o.Returned == 0 && len(o.Categories) == 0 && len(o.Buckets) == 0 &&
		o.Complaints == 0 && o.Compensation == 0 && o.Converted == 0 && o.Unvalued == 0 && o.ReferralValue == 0
}

// Decode reads the stored form b into r, reusing the memory of r's slices. It
// accepts exactly what Append writes: encoding r again gives b. On an error r
// holds nothing of use. An unknown version is ErrVersion.
func Decode(b []byte, r *Record) error {
	if len(b) == 0 {
		return fmt.Errorf("decoding customer record: %w", errTruncated)
	}
	if b[0] != version1 {
		return fmt.Errorf("decoding customer record: version %d: %w", b[0], ErrVersion)
	}
	d := reader{b: b, i: 1}
	d.record(r)
	if d.err == nil && d.i != len(b) {
		d.fail(errTrailing)
	}
	if d.err != nil {
		return fmt.Errorf("decoding customer record: %w", d.err)
	}
	return nil
}

func (d *reader) record(r *Record) {
	d.exactly(4)
	if d.err != nil {
		return
	}
	if len(d.b) < headBytes || d.b[d.i] != codeUint64 {
		d.fail(errType)
		return
	}
	r.Seq = binary.BigEndian.Uint64(d.b[d.i+1:])
	d.i = headBytes
	r.Due = d.int()
	d.facts(&r.Facts)

	d.exactly(standingFields)
	r.Standing.Tier = int8(d.within(math.MinInt8, math.MaxInt8))
	r.Standing.Since = d.int()
	r.Standing.Sequence = d.uint()
	r.Standing.Clock = d.int()
}

func (d *reader) facts(f *Facts) {
	d.exactly(factsFields)
	f.First = d.int()
	f.Newest = d.int()
	f.MinTime = d.int()
	f.Purchases = d.within(0, math.MaxInt64)
	f.Returns = d.within(0, math.MaxInt64)

	n := d.groups(seenFields)
	f.Seen = slices.Grow(f.Seen[:0], n)[:n]
	for i := range f.Seen {
		s := &f.Seen[i]
		if i == 0 {
			s.Time = d.int()
		} else {
			s.Time = d.later(f.Seen[i-1].Time)
		}
		s.Hash = d.uint()
		s.Content = d.hash32()
		if i > 0 && !before(f.Seen[i-1].Time, f.Seen[i-1].Hash, s.Time, s.Hash) {
			d.fail(errOrder)
		}
	}
	d.orders(f)

	n = d.groups(waitingFields)
	f.Waiting = slices.Grow(f.Waiting[:0], n)[:n]
	for i := range f.Waiting {
		w := &f.Waiting[i]
		if i == 0 {
			w.Time = d.int()
		} else {
			w.Time = d.later(f.Waiting[i-1].Time)
		}
		w.Hash = d.uint()
		w.Order = d.uint()
		w.Content = d.hash32()
		w.Currency = d.currency()
		w.Amount = d.within(0, maxAmount)
		if i > 0 && !before(f.Waiting[i-1].Time, f.Waiting[i-1].Hash, w.Time, w.Hash) {
			d.fail(errOrder)
		}
	}

	n = d.array()
	f.Complaints = slices.Grow(f.Complaints[:0], n)[:n]
	for i := range f.Complaints {
		c := &f.Complaints[i]
		fields := d.array()
		c.Key = d.uint()
		c.Time = d.int()
		c.Hash = d.uint()
		c.Content = d.hash32()
		c.Status = uint8(d.within(0, maxStatus))
		c.Severity = uint8(d.within(0, maxSeverity))
		c.Opened = d.int()
		c.PaidTime, c.PaidHash, c.Paid = 0, 0, -1
		switch fields {
		case complaintFields:
		case paidFields:
			c.PaidTime = d.int()
			c.PaidHash = d.uint()
			c.Paid = d.within(0, maxAmount)
		default:
			d.fail(errLength)
		}
		if i > 0 && f.Complaints[i-1].Key >= c.Key {
			d.fail(errOrder)
		}
	}

	n = d.groups(referralFields)
	f.Referrals = slices.Grow(f.Referrals[:0], n)[:n]
	for i := range f.Referrals {
		c := &f.Referrals[i]
		c.Key = d.uint()
		c.Time = d.int()
		c.Hash = d.uint()
		c.Content = d.hash32()
		c.Status = uint8(d.within(0, maxStatus))
		if d.null() {
			c.Value = -1
		} else {
			c.Value = d.within(0, maxAmount)
		}
		if i > 0 && f.Referrals[i-1].Key >= c.Key {
			d.fail(errOrder)
		}
	}

	d.answer(&f.NPS)
	d.answer(&f.CSAT)
	d.answer(&f.CES)
	f.Praises = d.within(0, math.MaxInt64)
	f.Suggestions = d.within(0, math.MaxInt64)

	d.exactly(costsFields)
	f.Costs = Costs{AcquisitionKnown: !d.null()}
	if f.Costs.AcquisitionKnown {
		f.Costs.Acquisition = d.within(0, maxSum)
	}
	f.Costs.Service = d.within(0, maxSum)
	f.Costs.Marketing = d.within(0, maxSum)
	f.Costs.Selling = d.within(0, maxSum)

	d.old(&f.Old)
}

func (d *reader) orders(f *Facts) {
	n := d.array()
	f.Orders = slices.Grow(f.Orders[:0], n)[:n]
	for i := range f.Orders {
		o := &f.Orders[i]
		fields := d.array()
		if i == 0 {
			o.Time, o.Day = d.int(), d.day()
		} else {
			o.Time, o.Day = d.later(f.Orders[i-1].Time), d.dayAfter(f.Orders[i-1].Day)
		}
		o.Hash = d.uint()
		o.Content = d.hash32()
		o.Category = d.hash32()
		o.Amount = d.within(0, maxAmount)
		o.Returned = d.within(0, o.Amount)
		o.HasMargin, o.Margin = !d.null(), 0
		if o.HasMargin {
			o.Margin = d.within(-maxAmount, maxAmount)
		}
		switch fields {
		case orderFields:
			o.Currency, o.Base = Currency{}, o.Amount
		case foreignFields:
			o.Currency = d.currency()
			o.Base = d.within(0, maxAmount)
			if o.Currency == (Currency{}) {
				d.fail(errType)
			}
		default:
			d.fail(errLength)
		}
		if i > 0 && !before(f.Orders[i-1].Time, f.Orders[i-1].Hash, o.Time, o.Hash) {
			d.fail(errOrder)
		}
	}
}

func (d *reader) answer(a *Answer) {
	*a = Answer{}
	switch d.array() {
	case 0:
	case answerFields:
		a.Known = true
		a.Time = d.int()
		a.Hash = d.uint()
		a.Score = int32(d.within(math.MinInt32, math.MaxInt32))
		a.ScaleMax = int32(d.within(math.MinInt32, math.MaxInt32))
	default:
		d.fail(errLength)
	}
}

func (d *reader) old(o *Old) {
	*o = Old{Categories: o.Categories[:0], Buckets: o.Buckets[:0]}
	switch d.array() {
	case 0:
		return
	case oldFields:
	default:
		d.fail(errLength)
		return
	}
	o.Orders = d.within(0, math.MaxInt64)
	o.Net = d.within(0, maxSum)
	for _, m := range [...]*scoring.Margins{&o.First, &o.Cross, &o.Repeat} {
		m.Known = d.within(-maxSum, maxSum)
		m.Assumed = d.within(0, maxSum)
	}
	o.FirstDay = d.day()
	o.LastDay = d.day()
	o.Days = d.within(0, math.MaxInt64)
	o.LastNet = d.within(0, maxSum)
	o.ValueDays = d.within(0, math.MaxInt64)
	o.ValueSum = d.within(0, maxSum)
	o.LastTime = d.int()
	o.Returned = d.within(0, maxSum)

	n := d.array()
	if n > maxCategories {
		d.fail(errLength)
		n = 0
	}
	o.Categories = slices.Grow(o.Categories, n)[:n]
	var category uint64
	for i := range o.Categories {
		difference := d.uint()
		if difference == 0 || difference > math.MaxUint32-category {
			d.fail(errOrder)
			difference = 0
		}
		category += difference
		o.Categories[i] = uint32(category)
	}

	n = d.groups(bucketFields)
	o.Buckets = slices.Grow(o.Buckets, n)[:n]
	for i := range o.Buckets {
		k := &o.Buckets[i]
		if i == 0 {
			k.Day = d.day()
		} else {
			k.Day = d.dayAfter(o.Buckets[i-1].Day)
		}
		k.Orders = d.within(1, math.MaxInt64)
		k.Net = d.within(0, maxSum)
		k.Margin.Known = d.within(-maxSum, maxSum)
		k.Margin.Assumed = d.within(0, maxSum)
		if i > 0 && o.Buckets[i-1].Day >= k.Day {
			d.fail(errOrder)
		}
	}

	o.Complaints = d.within(0, math.MaxInt64)
	o.Compensation = d.within(0, maxSum)
	o.Converted = d.within(0, math.MaxInt64)
	o.Unvalued = d.within(0, math.MaxInt64)
	o.ReferralValue = d.within(0, maxSum)
	if d.err == nil && o.empty() {
		d.fail(errLength) // its form is the empty array
	}
}

// later reads the distance to a time at or after before.
func (d *reader) later(before int64) int64 {
	distance := d.uint()
	if distance > uint64(math.MaxInt64)-uint64(before) {
		d.fail(errRange)
		return before
	}
	return int64(uint64(before) + distance)
}

// dayAfter reads the difference from the day before it in a list.
func (d *reader) dayAfter(before int32) int32 {
	day := int64(before) + d.within(-math.MaxUint32, math.MaxUint32)
	if day < math.MinInt32 || day > math.MaxInt32 {
		d.fail(errRange)
		return before
	}
	return int32(day)
}

// currency reads three capital letters, or nil for the base currency.
func (d *reader) currency() (c Currency) {
	if d.null() {
		return c
	}
	if len(d.b)-d.i < 4 {
		d.fail(errTruncated)
		return c
	}
	if d.b[d.i] != fixStr|3 || copy(c[:], d.b[d.i+1:]) != 3 || !c.letters() {
		d.fail(errType)
		return Currency{}
	}
	d.i += 4
	return c
}

// letters reports whether c is three capital letters.
func (c Currency) letters() bool {
	for _, l := range c {
		if l < 'A' || l > 'Z' {
			return false
		}
	}
	return true
}

// before reports whether (t, h) stands before (u, k).
func before(t int64, h uint64, u int64, k uint64) bool {
	return t < u || t == u && h < k
}

const (
	maxStatus   = int64(event.Reversed)
	maxSeverity = 5
)
