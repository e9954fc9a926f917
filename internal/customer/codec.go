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

// The stored form, version 1: MessagePack behind a version byte. Integers are
// in their narrowest form, except seq. "day*" is absolute in a list's first
// entry and the difference from the entry before in the others; so is "time*",
// unsigned, because lists are sorted. Where "−" is written the difference is
// modulo 2⁶⁴, so that every pair of times has one.
//
//	byte 0      version
//	byte 1      array of 4
//	bytes 2–10  seq, a nine-byte uint64
//	from 11     due or nil (never); facts; standing
//
//	facts      [first, newest − first, newest − min time, purchases, returns,
//	            seen, orders, waiting, complaints, referrals,
//	            nps, csat, ces, praises, suggestions, costs, old]
//	seen       bin: packed, see below
//	orders     bin: packed, see below
//	waiting    [time*, hash, order, content, currency or nil, amount]…, flat
//	complaints [[key, time, hash, content, status, severity, opened
//	            (, paid time, paid hash, paid)]…]; the last three only if paid
//	referrals  [key, time, hash, content, status, value or nil]…, flat
//	answers    [] or [time, hash, score, scale]
//	costs      [acquisition or nil, service, marketing, selling]
//	old        [] or [orders, net, 3 × (known, assumed), first day, last day,
//	            days, last net, value days, value sum, last time, largest,
//	            returned, categories, buckets, complaints, compensation, converted,
//	            unvalued, referral value]
//	categories [hash difference…]
//	buckets    [day*, orders, net, known, assumed]…, flat
//	standing   [tier, since − first, sequence, clock − newest]
//
// Seen and orders are most of a record, and most of them are hashes. They are
// packed: their number as a varint, then each entry. Varints are those of
// encoding/binary in their narrowest form, signed ones in zig-zag; hashes and
// content are little-endian, 8 and 4 bytes. The time of the first entry is the
// difference from first.
//
//	seen   time − time before: varint; hash; content
//	order  flags: a byte; time − time before: varint; day − UTC day of time:
//	       signed; hash; content; event; amount: varint;
//	       by flag: 1 category (4 bytes), 2 returned: varint, 4 margin: signed,
//	       8 currency (3 letters) and base: varint
const (
	version1  = 1
	headBytes = 11 // version, array of 4, seq: what the digest leaves out, but for the version

	factsFields     = 17
	waitingFields   = 6
	complaintFields = 7
	paidFields      = 10
	referralFields  = 6
	answerFields    = 4
	costsFields     = 4
	oldFields       = 24
	bucketFields    = 5
	standingFields  = 4
)

// Flags of a packed order: what follows its amount.
const (
	flagCategory = 1 << iota // not 0
	flagReturned             // not 0
	flagMargin               // HasMargin
	flagForeign              // Currency is not the base currency
	flagsEnd
)

// What one entry takes at most. tooBig holds a record against these before it
// measures, and a test holds them against the encoder.
const (
	maxSeenBytes      = 10 + 8 + 4
	maxOrderBytes     = 1 + 10 + 5 + 8 + 4 + 8 + 4 + 8 + 8 + 8 + 3 + 8
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
	if r.Due == NeverDue {
		b = append(b, codeNil)
	} else {
		b = appendInt(b, r.Due)
	}

	b = appendArray(b, factsFields)
	b = appendInt(b, f.First)
	b = appendInt(b, f.Newest-f.First)
	b = appendInt(b, f.Newest-f.MinTime)
	b = appendInt(b, f.Purchases)
	b = appendInt(b, f.Returns)

	b = f.appendSeen(b)
	b = f.appendOrders(b)
	b = appendArray(b, waitingFields*len(f.Waiting))
	var before int64
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
	b = appendInt(b, r.Standing.Since-f.First)
	b = appendUint(b, r.Standing.Sequence)
	return appendInt(b, r.Standing.Clock-f.Newest)
}

func (fs *Facts) appendSeen(b []byte) []byte {
	b, at := openBin(b)
	b = binary.AppendUvarint(b, uint64(len(fs.Seen)))
	before := fs.First
	for i := range fs.Seen {
		s := &fs.Seen[i]
		b = binary.AppendUvarint(b, uint64(s.Time-before))
		before = s.Time
		b = binary.LittleEndian.AppendUint64(b, s.Hash)
		b = binary.LittleEndian.AppendUint32(b, s.Content)
	}
	return closeBin(b, at)
}

func (fs *Facts) appendOrders(b []byte) []byte {
	b, at := openBin(b)
	b = binary.AppendUvarint(b, uint64(len(fs.Orders)))
	before := fs.First
	for i := range fs.Orders {
		o := &fs.Orders[i]
		var flags byte
		if o.Category != 0 {
			flags |= flagCategory
		}
		if o.Returned != 0 {
			flags |= flagReturned
		}
		if o.HasMargin {
			flags |= flagMargin
		}
		if o.Currency != (Currency{}) {
			flags |= flagForeign
		}
		b = append(b, flags)
		b = binary.AppendUvarint(b, uint64(o.Time-before))
		before = o.Time
		b = binary.AppendVarint(b, int64(o.Day)-utcDay(o.Time))
		b = binary.LittleEndian.AppendUint64(b, o.Hash)
		b = binary.LittleEndian.AppendUint32(b, o.Content)
		b = binary.LittleEndian.AppendUint64(b, o.Event)
		b = binary.AppendUvarint(b, uint64(o.Amount))
		if flags&flagCategory != 0 {
			b = binary.LittleEndian.AppendUint32(b, o.Category)
		}
		if flags&flagReturned != 0 {
			b = binary.AppendUvarint(b, uint64(o.Returned))
		}
		if flags&flagMargin != 0 {
			b = binary.AppendVarint(b, o.Margin)
		}
		if flags&flagForeign != 0 {
			b = append(b, o.Currency[:]...)
			b = binary.AppendUvarint(b, uint64(o.Base))
		}
	}
	return closeBin(b, at)
}

// utcDay is the date of t in UTC: a model's date differs from it by one at most.
func utcDay(t int64) int64 {
	const day = 24 * 60 * 60 * 1000
	d := t / day
	if t%day < 0 {
		d--
	}
	return d
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
	b = appendInt(b, o.Largest)
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
	if d.null() {
		r.Due = NeverDue
	} else if r.Due = d.int(); r.Due == NeverDue {
		d.fail(errWidth)
	}
	f := &r.Facts
	d.facts(f)

	d.exactly(standingFields)
	r.Standing.Tier = int8(d.within(math.MinInt8, math.MaxInt8))
	r.Standing.Since = f.First + d.int()
	r.Standing.Sequence = d.uint()
	r.Standing.Clock = f.Newest + d.int()
}

func (d *reader) facts(f *Facts) {
	d.exactly(factsFields)
	f.First = d.int()
	f.Newest = f.First + d.int()
	f.MinTime = f.Newest - d.int()
	f.Purchases = d.within(0, math.MaxInt64)
	f.Returns = d.within(0, math.MaxInt64)

	d.seen(f)
	d.orders(f)

	n := d.groups(waitingFields)
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

func (d *reader) seen(f *Facts) {
	const least = 1 + 8 + 4
	end := d.bin()
	n := d.packed(end, least)
	f.Seen = slices.Grow(f.Seen[:0], n)[:n]
	t, hash := f.First, uint64(0)
	for i := range f.Seen {
		s := &f.Seen[i]
		s.Time = t + int64(d.uvarint())
		s.Hash = d.fixed64()
		s.Content = d.fixed32()
		if i > 0 && !before(t, hash, s.Time, s.Hash) {
			d.fail(errOrder)
		}
		t, hash = s.Time, s.Hash
	}
	d.ends(end)
}

func (d *reader) orders(f *Facts) {
	const least = 1 + 1 + 1 + 8 + 4 + 8 + 1
	end := d.bin()
	n := d.packed(end, least)
	f.Orders = slices.Grow(f.Orders[:0], n)[:n]
	t, hash := f.First, uint64(0)
	for i := range f.Orders {
		o := &f.Orders[i]
		flags := d.byte()
		if flags >= flagsEnd {
			d.fail(errType)
		}
		*o = Order{Time: t + int64(d.uvarint())}
		day := d.varint() + utcDay(o.Time)
		if day < math.MinInt32 || day > math.MaxInt32 {
			d.fail(errRange)
		}
		o.Day = int32(day)
		o.Hash = d.fixed64()
		o.Content = d.fixed32()
		o.Event = d.fixed64()
		o.Amount = d.amount()
		if flags&flagCategory != 0 {
			if o.Category = d.fixed32(); o.Category == 0 {
				d.fail(errWidth)
			}
		}
		if flags&flagReturned != 0 {
			if o.Returned = d.amount(); o.Returned == 0 {
				d.fail(errWidth)
			} else if o.Returned > o.Amount {
				d.fail(errRange)
			}
		}
		if flags&flagMargin != 0 {
			o.HasMargin, o.Margin = true, d.varint()
			if o.Margin < -maxAmount || o.Margin > maxAmount {
				d.fail(errRange)
			}
		}
		o.Base = o.Amount
		if flags&flagForeign != 0 {
			if o.Currency = d.letters(); !o.Currency.letters() {
				d.fail(errType)
			}
			o.Base = d.amount()
		}
		if i > 0 && !before(t, hash, o.Time, o.Hash) {
			d.fail(errOrder)
		}
		t, hash = o.Time, o.Hash
	}
	d.ends(end)
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
	o.Largest = d.within(0, maxSum)
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
