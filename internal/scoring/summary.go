package scoring

// Summary is what the formulas need of one customer at one instant. It is
// plain data, made from the customer's facts (package customer) and the
// model's calendar; everything here is a pure function of it. Money is int64
// minor units of the base currency. Days are local dates of the model's zone
// as days since 1970-01-01.
type Summary struct {
	At      int64   // the instant, Unix milliseconds
	Today   int32   // local date of At
	DayPart float64 // elapsed part of the local day, [0, 1)

	// Bought: a purchase was counted at some time, returned since or not.
	// Active: at least one order is not fully returned.
	Bought, Active bool

	FirstDay, LastDay int32 // first and last purchase day not fully returned; valid if Active
	Days              int64 // distinct purchase days not fully returned
	// PreviousDay is the purchase day before LastDay. It is LastDay itself where
	// there is none, or where compaction left no trace of it.
	PreviousDay int32

	Orders      int64 // orders not fully returned, lifetime
	Net         int64 // net money, lifetime
	Largest     int64 // net money of the largest order
	LastOrderAt int64 // time of the latest order not fully returned, Unix ms

	WindowOrders int64 // orders in the model's window, less fully returned ones
	WindowNet    int64 // net money in the window
	YearOrders   int64 // the same for the last 365 days
	YearNet      int64

	// Margins, each split by how it is known: Known is the sum of stated
	// margins, Assumed the net money of orders without one (their margin is
	// margin_rate × Assumed, rounded once per sum, half-even).
	First, Cross, Repeat Margins // first order; later orders that bring a new category; other later orders
	Year                 Margins // orders of the last 365 days

	// The value model's sample: repeat purchase days (all but the first) with
	// positive net value, and their sum.
	ValueDays int64
	ValueSum  int64

	CAC          int64 // Σ acquisition costs
	CACKnown     bool  // at least one acquisition cost was recorded
	ServiceCost  int64
	SellingCost  int64 // marketing and sales
	Compensation int64

	ReferralValue      int64 // Σ value_minor of converted referrals that state one
	ReferralsUnvalued  int64 // converted referrals that state none
	ReferralsConverted int64

	Complaints           []ComplaintState // in no particular meaning of order, but a fixed one
	ComplaintsCompacted  int64            // further ones, too old for their state to be kept
	NPS, CSAT, CES       Response
	Praises, Suggestions int64

	Returns     int64 // accepted returns
	ReturnedNet int64 // money returned
}

// Margins is a sum of order margins, split by how they are known.
type Margins struct {
	Known   int64 // Σ stated margins, net of returns
	Assumed int64 // Σ net money of orders that state no margin
}

// ComplaintState is one complaint as of its latest status.
type ComplaintState struct {
	Opened   int64 // earliest event time of the complaint, Unix ms
	Changed  int64 // event time of its latest status, Unix ms
	Severity uint8 // 1 to 5, worst is 5
	Status   ComplaintStatus
}

// ComplaintStatus is where a complaint stands.
type ComplaintStatus uint8

const (
	ComplaintOpen ComplaintStatus = iota // opened or reopened
	ComplaintResolved
	ComplaintRejected
)

// Response is the last answer to one kind of survey.
type Response struct {
	Known    bool
	Score    int32
	ScaleMax int32
}
