package event

// Code says what became of a record. Codes are stored by number in fence and
// journal counters: append only, never renumber.
type Code uint8

// Applied is the code of a record that was used. Each other code of the
// bad-input table stands here once, and Outcome below decides, once, what
// happens to a record that has it.
const (
	Applied Code = iota
	Malformed
	UnknownType
	UnsupportedVersion
	MissingField
	WrongType
	BadID
	Misrouted
	BadTime
	FutureTime
	Late // warning
	TooLate
	Duplicate
	IDConflict
	BusinessDuplicate
	BusinessConflict
	BadAmount
	NegativePurchase
	ZeroPurchase
	BadCurrency
	NoRate
	CurrencyChanged
	OrphanReturn
	OverReturn
	BadSeverity
	BadStatus
	BadScore
	BadCost
	UnusualTransition // warning
	SelfReferral
	TestEvent
	Unpaid
	Waiting // a return whose order is not known yet; a gauge
	Skipped // of mapped topics: left out by the mapping

	NumCodes int = iota
)

// Outcome is what happens to a record.
type Outcome uint8

const (
	Used       Outcome = iota // folded into its customer
	DeadLetter                // R: to the dead letters, with its code
	Dropped                   // D: a duplicate, counted
	Warned                    // W: used, and counted as a warning
	Ignored                   // I: left out by policy, counted
	Held                      // waiting for its order
)

var codes = [NumCodes]struct {
	name    string
	outcome Outcome
}{
	Applied:            {"applied", Used},
	Malformed:          {"malformed", DeadLetter},
	UnknownType:        {"unknown_type", DeadLetter},
	UnsupportedVersion: {"unsupported_version", DeadLetter},
	MissingField:       {"missing_field", DeadLetter},
	WrongType:          {"wrong_type", DeadLetter},
	BadID:              {"bad_id", DeadLetter},
	Misrouted:          {"misrouted", DeadLetter},
	BadTime:            {"bad_time", DeadLetter},
	FutureTime:         {"future_time", DeadLetter},
	Late:               {"late", Warned},
	TooLate:            {"too_late", DeadLetter},
	Duplicate:          {"duplicate", Dropped},
	IDConflict:         {"id_conflict", DeadLetter},
	BusinessDuplicate:  {"business_duplicate", Dropped},
	BusinessConflict:   {"business_conflict", DeadLetter},
	BadAmount:          {"bad_amount", DeadLetter},
	NegativePurchase:   {"negative_purchase", DeadLetter},
	ZeroPurchase:       {"zero_purchase", Ignored},
	BadCurrency:        {"bad_currency", DeadLetter},
	NoRate:             {"no_rate", DeadLetter},
	CurrencyChanged:    {"currency_changed", DeadLetter},
	OrphanReturn:       {"orphan_return", DeadLetter},
	OverReturn:         {"over_return", DeadLetter},
	BadSeverity:        {"bad_severity", DeadLetter},
	BadStatus:          {"bad_status", DeadLetter},
	BadScore:           {"bad_score", DeadLetter},
	BadCost:            {"bad_cost", DeadLetter},
	UnusualTransition:  {"unusual_transition", Warned},
	SelfReferral:       {"self_referral", DeadLetter},
	TestEvent:          {"test_event", Ignored},
	Unpaid:             {"unpaid", Ignored},
	Waiting:            {"waiting", Held},
	Skipped:            {"skipped", Ignored},
}

// String is the code as it stands in dead letters, metrics and documents.
func (c Code) String() string {
	if int(c) < NumCodes {
		return codes[c].name
	}
	return "unknown_code"
}

// Outcome is what happens to a record with this code.
func (c Code) Outcome() Outcome { return codes[c].outcome }

// Refusal says why a record is not used as it came. The code decides; Field
// and Detail are for people.
type Refusal struct {
	Code   Code
	Field  string // the offending attribute or data field, "" when it is the whole record
	Detail string // what was found, and a hint; not part of any digest
}

func (r *Refusal) Error() string {
	s := r.Code.String()
	if r.Field != "" {
		s += " " + r.Field
	}
	if r.Detail != "" {
		s += ": " + r.Detail
	}
	return s
}
