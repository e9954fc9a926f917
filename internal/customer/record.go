// Package customer owns the customer record: what it holds, how one event
// changes it, what the formulas read from it, and its stored form.
//
// Everything here is a pure function of its arguments: no I/O, no clock, no
// goroutine, no float and no map. Money is int64 minor units of the policy's
// base currency unless a field says otherwise; times are Unix milliseconds;
// days are local dates of the model's zone, as days since 1970-01-01.
//
// The promise of [Facts]: for events without conflicting IDs or contents that
// lie within one retention window of each other, with returns inside their
// grace, and number at most [Policy.MaxEvents], any permutation and any
// duplication of them gives the same bytes. Beyond these bounds the oldest
// detail is compacted into totals, and what is accepted depends on the order
// of arrival; a replay in the same order still repeats it exactly.
package customer

import (
	"math"

	"github.com/tierstream/tierstream/internal/scoring"
)

const (
	// NeverDue is the due time of a record that no passing of time can change.
	NeverDue int64 = math.MaxInt64
	// NoTime stands for "never yet" where a latest time is kept. It is below
	// every event time, so that max(NoTime, t) is t.
	NoTime int64 = math.MinInt64
	// NoTier is the tier of a customer to whom none was ever assigned.
	NoTier int8 = -1

	// MaxStored is the hard cap of a stored record in bytes. Folding keeps
	// below it by compacting the oldest detail.
	MaxStored = 16 << 10
)

// Record is all that is kept of one customer. Start from [NewRecord]: the zero
// Record would be due at once and hold tier 0.
type Record struct {
	Seq      uint64 // batch that last wrote the record; not part of the digest
	Due      int64  // earliest time at which time alone may change the record, or NeverDue
	Facts    Facts
	Standing Standing
}

// NewRecord is the record of a customer of whom nothing is known.
func NewRecord() Record {
	return Record{
		Due:      NeverDue,
		Facts:    Facts{First: math.MaxInt64, Newest: NoTime, MinTime: NoTime},
		Standing: Standing{Tier: NoTier, Clock: NoTime},
	}
}

// Reset makes r a new record and keeps the memory of its slices.
func (r *Record) Reset() {
	f := &r.Facts
	n := NewRecord()
	n.Facts.Seen = f.Seen[:0]
	n.Facts.Orders = f.Orders[:0]
	n.Facts.Waiting = f.Waiting[:0]
	n.Facts.Complaints = f.Complaints[:0]
	n.Facts.Referrals = f.Referrals[:0]
	n.Facts.Old.Categories = f.Old.Categories[:0]
	n.Facts.Old.Buckets = f.Old.Buckets[:0]
	*r = n
}

// Standing is where the customer stands among the tiers. It depends on the
// path taken, not only on the set of events. Folding never touches it.
type Standing struct {
	Tier     int8   // index of the rank, or NoTier
	Since    int64  // effective time of the last change; 0 while there was none
	Sequence uint64 // number of the last change; 0 while there was none
	Clock    int64  // customer clock: latest time of an evaluation; NoTime before the first
}

// Facts is what the accepted events say. A refused event leaves no trace in
// it, and neither does a waiting return that is refused in the end.
type Facts struct {
	First  int64 // earliest time of an applied event; math.MaxInt64 when none
	Newest int64 // latest time of an applied event; NoTime when none. Waiting returns do not count
	// MinTime is the earliest acceptable event time: Newest less the
	// retention, or more once compaction raised it. NoTime when none.
	MinTime int64

	Purchases int64 // purchases applied, returned since or not
	Returns   int64 // returns applied

	Seen    []Seen    // by (Time, Hash); but for the IDs that Orders hold
	Orders  []Order   // the ledger of recent orders, by (Time, Hash)
	Waiting []Waiting // returns whose order is not known yet, by (Time, Hash)

	Complaints []Complaint // by Key
	Referrals  []Referral  // by Key

	NPS, CSAT, CES       Answer
	Praises, Suggestions int64

	Costs Costs
	Old   Old
}

// Seen remembers one ID: of an event (source and ID), or of the business
// object of a return, a response or a cost. Orders, complaints and referrals
// are remembered by their own entries, and so is the event of an order: only
// those that repeat it under another event ID are here.
type Seen struct {
	Time    int64  // event time
	Hash    uint64 // of the ID, see eventKey and businessKey
	Content uint32 // low half of the event's content hash
}

// Order is one purchase in the ledger, with what was returned of it.
type Order struct {
	Time     int64
	Hash     uint64 // of the order ID
	Event    uint64 // event-ID hash; of several events that say the same, the least
	Amount   int64  // minor units of Currency
	Returned int64  // Σ returns, minor units of Currency, at most Amount
	Base     int64  // Amount in the base currency, before returns
	Margin   int64  // stated margin in the base currency, before returns; valid if HasMargin
	Day      int32
	Content  uint32   // low half of the purchase's content hash
	Category uint32   // hash of the category; 0 when it states none
	Currency Currency // zero: the base currency
	// HasMargin tells a stated margin from one that the model must assume.
	HasMargin bool
}

// Waiting is a return whose order is not known. It may be resolved up to and
// including its deadline, Time plus the policy's grace.
type Waiting struct {
	Time     int64
	Hash     uint64 // of the return ID: the key of its original bytes
	Order    uint64 // hash of the order ID
	Content  uint32
	Currency Currency // zero: the base currency
	Amount   int64    // minor units of Currency
}

// Complaint is one complaint: the state of its event with the greatest
// (time, event-ID hash).
type Complaint struct {
	Key      uint64 // hash of the complaint ID
	Time     int64  // of the winning event
	Hash     uint64 // event-ID hash of the winning event
	Content  uint32
	Status   uint8 // an event.Status
	Severity uint8 // 1 to 5
	Opened   int64 // earliest event time

	// The compensation of the latest event that states one, by the same rule.
	PaidTime int64
	PaidHash uint64
	Paid     int64 // base currency; -1 when no event states one
}

// Referral is one referral: the state of its event with the greatest
// (time, event-ID hash).
type Referral struct {
	Key     uint64 // hash of the referral ID
	Time    int64
	Hash    uint64
	Content uint32
	Status  uint8 // an event.Status
	Value   int64 // base currency; -1 when the winning event states none
}

// Answer is the last response to one kind of survey, by (Time, Hash).
type Answer struct {
	Known    bool
	Time     int64
	Hash     uint64 // event-ID hash
	Score    int32
	ScaleMax int32
}

// Costs are sums of cost events.
type Costs struct {
	Acquisition                 int64
	AcquisitionKnown            bool // at least one acquisition cost was recorded
	Service, Marketing, Selling int64
}

// Old is what is left of compacted detail. Nothing in it can change by a later
// event, except that a later order may fall on LastDay.
type Old struct {
	Totals
	Returned   int64    // money returned of compacted orders
	Categories []uint32 // of compacted orders, ascending, at most maxCategories
	// Buckets hold the days of compacted orders that a window still needs,
	// ascending by Day.
	Buckets []Bucket

	Complaints    int64 // compacted complaints
	Compensation  int64 // their compensation
	Converted     int64 // compacted referrals that were converted
	Unvalued      int64 // those of them that state no value
	ReferralValue int64 // the value of the others
}

// Totals sums orders that are not fully returned, taken in (time, hash) order.
type Totals struct {
	Orders               int64
	Net                  int64
	First, Cross, Repeat scoring.Margins // by the order's group
	FirstDay, LastDay    int32           // valid if Orders > 0
	Days                 int64           // distinct days
	LastNet              int64           // net money on LastDay
	ValueDays, ValueSum  int64           // days with positive net value, and their sum, without FirstDay and LastDay
	LastTime             int64           // of the latest order; valid if Orders > 0
	Largest              int64           // net money of the largest order
}

// Bucket is one day of compacted orders.
type Bucket struct {
	Day    int32
	Orders int64
	Net    int64
	Margin scoring.Margins
}

// Currency is an ISO 4217 code; the zero value is the base currency.
type Currency [3]byte
