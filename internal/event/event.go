// Package event owns the wire: the CloudEvents that come in, how they are
// decoded, validated and encoded, and the fixed list of codes by which bad
// input is refused. It does no I/O and knows nothing of the other rooms.
package event

// Type is one of the six event types, io.tierstream.<name>.v1.
type Type uint8

// The event types. The zero value is no type. The numbers are stored; never
// change them.
const (
	Purchase Type = 1 + iota
	Return
	Complaint
	Referral
	Feedback
	Cost
)

// Status of a complaint or a referral. The numbers are stored.
type Status uint8

const (
	NoStatus  Status = iota
	Opened           // complaint
	Resolved         // complaint
	Reopened         // complaint
	Rejected         // complaint
	Invited          // referral
	Converted        // referral
	Reversed         // referral
)

// Kind says which feedback, cost or return an event carries. The numbers are
// stored.
type Kind uint8

const (
	NoKind      Kind = iota
	NPS              // feedback
	CSAT             // feedback
	CES              // feedback
	Praise           // feedback, without a score
	Suggestion       // feedback, without a score
	Acquisition      // cost
	Service          // cost
	Marketing        // cost
	Sales            // cost
	Goods            // return, the default
	Cancelled        // return: the order was cancelled
	StoreCredit      // return
	Chargeback       // return
)

// Event is one decoded and valid event: the union of all six types, flat, so
// that decoding allocates nothing but its strings. Fields that a type does not
// have are zero. All money is int64 minor units of Currency, except Base.
type Event struct {
	Type     Type
	ID       string // unique within Source
	Source   string
	Customer string // the subject
	Time     int64  // event time, Unix milliseconds
	Trace    string // W3C traceparent, "" when absent

	// Content is a 64-bit hash (xxHash64) of type, customer, time and all data
	// fields in a fixed order, without ID and Source: two events with equal
	// Content say the same thing.
	Content uint64

	BusinessID string // order_id, return_id, complaint_id, referral_id, response_id or cost_id
	OrderID    string // of a return (required) or a complaint (optional)
	RefereeID  string // of a referral

	Amount    int64  // amount_minor, compensation_minor or value_minor
	HasAmount bool   // whether Amount was present (complaint and referral: optional)
	Currency  string // ISO 4217, upper case; "" when there is no amount

	Base      int64 // base_amount_minor, minor units of the base currency
	HasBase   bool
	FXRate    string // decimal string, base units per unit of Currency; "" when absent
	Cost      int64  // cost_minor of a purchase
	HasCost   bool
	Margin    int64 // margin_minor of a purchase; may be negative
	HasMargin bool

	Category string
	Channel  string
	Reason   string // of a return, free text

	Status   Status
	Kind     Kind
	Severity uint8 // complaint, 1 to 5 (worst)
	Score    int32 // feedback
	ScaleMax int32 // feedback; defaults: nps 10, csat 5, ces 7

	Test   bool // a test order
	Unpaid bool // purchase whose status is pending, failed or voided
}

// Header is one record header.
type Header struct {
	Key   string
	Value []byte
}

// Message is one Kafka record as far as this room needs it.
type Message struct {
	Key     []byte
	Value   []byte
	Headers []Header
	// Timestamp is the record's (log append) timestamp, Unix milliseconds.
	Timestamp int64
}
