package customer

import (
	"slices"
	"sync"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/scoring"
)

// settle brings the facts back within their bounds after a change: what the
// retention no longer covers is compacted, then the oldest detail while there
// are more than MaxEvents events or the record is too big. An event may leave
// two IDs.
func (a *application) settle() {
	n := a.policy.MaxEvents
	if a.Newest != NoTime {
		a.compact(minus(a.Newest, a.retention))
	}
	for len(a.Seen)+len(a.Orders) > 2*n { // every order holds an ID, too
		a.compact(plus(a.oldestID(), 1))
	}
	for len(a.Orders) > n {
		a.compact(plus(a.Orders[0].Time, 1))
	}
	for len(a.Complaints) > n {
		a.dropComplaint(oldest(a.Complaints, complaintAge))
	}
	for len(a.Referrals) > n {
		a.dropReferral(oldest(a.Referrals, referralAge))
	}
	for a.tooBig() && a.compactOldest() {
	}
}

// compactOldest compacts what is oldest of all, of whatever kind, and
// reports whether there was anything.
func (a *application) compactOldest() bool {
	t := a.oldestID()
	complaint, referral := oldest(a.Complaints, complaintAge), oldest(a.Referrals, referralAge)
	switch {
	case complaint >= 0 && a.Complaints[complaint].Time <= t && (referral < 0 || a.Complaints[complaint].Time <= a.Referrals[referral].Time):
		a.dropComplaint(complaint)
	case referral >= 0 && a.Referrals[referral].Time <= t:
		a.dropReferral(referral)
	case len(a.Seen) > 0 || len(a.Orders) > 0:
		a.compact(plus(t, 1))
	default:
		return false
	}
	return true
}

// oldestID is the earliest time of Seen and the ledger, or NeverDue.
func (fs *Facts) oldestID() int64 {
	t := NeverDue
	if len(fs.Seen) > 0 {
		t = min(t, fs.Seen[0].Time)
	}
	if len(fs.Orders) > 0 {
		t = min(t, fs.Orders[0].Time)
	}
	return t
}

// compact raises MinTime to at least t and moves everything earlier out of
// Seen, the ledger and the waiting returns.
func (a *application) compact(t int64) {
	if t <= a.MinTime {
		return
	}
	a.MinTime = t
	n := 0
	for n < len(a.Seen) && a.Seen[n].Time < t {
		n++
	}
	a.Seen = slices.Delete(a.Seen, 0, n)

	for n = 0; n < len(a.Waiting) && a.Waiting[n].Time < t; n++ {
		a.Resolved = append(a.Resolved, Resolution{a.Waiting[n].Hash, event.OrphanReturn, "order_id"})
	}
	a.Waiting = slices.Delete(a.Waiting, 0, n)

	for n = 0; n < len(a.Orders) && a.Orders[n].Time < t; n++ {
	}
	if n == 0 && len(a.Old.Buckets) == 0 {
		return
	}
	first := a.calendar.Day(a.Newest) - a.keep + 1 // earliest day that a window can still count
	for i := range a.Orders[:n] {
		a.Old.put(&a.Orders[i], first)
	}
	a.Orders = slices.Delete(a.Orders, 0, n)

	for n = 0; n < len(a.Old.Buckets) && a.Old.Buckets[n].Day < first; n++ {
	}
	a.Old.Buckets = slices.Delete(a.Old.Buckets, 0, n)
}

// put adds an order that is later than all that were added before. Days before
// first need no bucket.
func (old *Old) put(o *Order, first int32) {
	net, returned := o.net()
	old.Returned += returned
	if o.void() {
		return
	}
	margin := o.margin(net)
	old.Categories = old.add(o, net, margin, old.Categories)
	if o.Day < first {
		return
	}
	n := len(old.Buckets)
	if n == 0 || old.Buckets[n-1].Day < o.Day {
		old.Buckets = append(old.Buckets, Bucket{Day: o.Day})
		n++
	}
	b := &old.Buckets[n-1]
	b.Orders++
	b.Net += net
	b.Margin.Known += margin.Known
	b.Margin.Assumed += margin.Assumed
}

// add takes the next order in (time, hash) order that is not fully returned,
// with its net money and margin. categories are those of the orders so far,
// ascending; add returns them with o's. Once there are maxCategories of them,
// an order of any other category counts as a repeat.
func (t *Totals) add(o *Order, net int64, margin scoring.Margins, categories []uint32) []uint32 {
	group := &t.Repeat
	if o.Category != 0 {
		at := 0 // most customers know few categories: a scan beats a search
		for at < len(categories) && categories[at] < o.Category {
			at++
		}
		known := at < len(categories) && categories[at] == o.Category
		if !known && len(categories) < maxCategories {
			categories = append(categories, 0)
			copy(categories[at+1:], categories[at:])
			categories[at] = o.Category
			group = &t.Cross
		}
	}
	if t.Orders == 0 {
		group = &t.First
	}
	group.Known += margin.Known
	group.Assumed += margin.Assumed

	switch {
	case t.Orders == 0:
		t.FirstDay, t.LastDay, t.Days = o.Day, o.Day, 1
	case o.Day != t.LastDay:
		t.close()
		t.LastDay, t.LastNet = o.Day, 0
		t.Days++
	}
	t.LastNet += net
	t.Orders++
	t.Net += net
	t.Largest = max(t.Largest, net)
	t.LastTime = o.Time
	return categories
}

// close takes LastDay, which no more orders can join, into the value days. The
// first day is no repeat day.
func (t *Totals) close() {
	if t.Orders > 0 && t.LastDay != t.FirstDay && t.LastNet > 0 {
		t.ValueDays++
		t.ValueSum += t.LastNet
	}
}

// void reports whether the order is fully returned: then it counts nowhere. A
// free order never is.
func (o *Order) void() bool { return o.Returned > 0 && o.Returned == o.Amount }

// net returns the order's money in the base currency: what is left of it, and
// what was returned. The returned part is one rounding of the order's total,
// so a full return takes everything.
func (o *Order) net() (net, returned int64) {
	if o.Returned == 0 {
		return o.Base, 0
	}
	returned = share(o.Base, o.Returned, o.Amount)
	return o.Base - returned, returned
}

// margin returns the order's contribution to a sum of margins. A stated
// margin falls in proportion to what was returned.
func (o *Order) margin(net int64) scoring.Margins {
	switch {
	case !o.HasMargin:
		return scoring.Margins{Assumed: net}
	case o.Returned == 0:
		return scoring.Margins{Known: o.Margin}
	}
	return scoring.Margins{Known: o.Margin - share(o.Margin, o.Returned, o.Amount)}
}

func complaintAge(c *Complaint) (int64, uint64) { return c.Time, c.Hash }
func referralAge(c *Referral) (int64, uint64)   { return c.Time, c.Hash }

// oldest returns the index of the entry with the smallest (time, hash), or −1.
func oldest[T any](entries []T, age func(*T) (int64, uint64)) int {
	least := -1
	var t int64
	var h uint64
	for i := range entries {
		if u, k := age(&entries[i]); least < 0 || before(u, k, t, h) {
			least, t, h = i, u, k
		}
	}
	return least
}

func (a *application) dropComplaint(i int) {
	a.Old.Complaints++
	a.Old.Compensation += max(a.Complaints[i].Paid, 0)
	a.Complaints = slices.Delete(a.Complaints, i, i+1)
}

func (a *application) dropReferral(i int) {
	if c := &a.Referrals[i]; event.Status(c.Status) == event.Converted {
		a.Old.Converted++
		if c.Value < 0 {
			a.Old.Unvalued++
		} else {
			a.Old.ReferralValue += c.Value
		}
	}
	a.Referrals = slices.Delete(a.Referrals, i, i+1)
}

var scratch = sync.Pool{New: func() any { return new([]byte) }}

// tooBig reports whether the stored form would pass MaxStored. A sum of upper
// bounds answers for nearly every record; the others are measured.
func (fs *Facts) tooBig() bool {
	bound := maxFixedBytes +
		len(fs.Seen)*maxSeenBytes +
		len(fs.Orders)*maxOrderBytes +
		len(fs.Waiting)*maxWaitingBytes +
		len(fs.Complaints)*maxComplaintBytes +
		len(fs.Referrals)*maxReferralBytes +
		len(fs.Old.Categories)*maxCategoryBytes +
		len(fs.Old.Buckets)*maxBucketBytes
	if bound <= MaxStored {
		return false
	}
	// The envelope is not known here: take it at its widest.
	r := Record{Due: NoTime, Facts: *fs, Standing: Standing{Since: NoTime, Sequence: 1 << 63, Clock: NoTime, Tier: -128}}
	p := scratch.Get().(*[]byte)
	*p = r.Append((*p)[:0])
	n := len(*p)
	scratch.Put(p)
	return n > MaxStored
}
