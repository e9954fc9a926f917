package event

// typePrefix and typeVersion enclose a type's name in the CloudEvents
// attribute "type".
const (
	typePrefix  = "io.tierstream."
	typeVersion = ".v1"
)

var typeNames = [...]string{
	Purchase:  "purchase",
	Return:    "return",
	Complaint: "complaint",
	Referral:  "referral",
	Feedback:  "feedback",
	Cost:      "cost",
}

// String is the short name of the type: "purchase". The zero type has none.
func (t Type) String() string {
	if int(t) < len(typeNames) {
		return typeNames[t]
	}
	return ""
}

// URI is the CloudEvents type: "io.tierstream.purchase.v1".
func (t Type) URI() string {
	if int(t) < len(typeURIs) {
		return typeURIs[t]
	}
	return typePrefix + t.String() + typeVersion
}

var typeURIs = func() (uris [len(typeNames)]string) {
	for t := range uris {
		uris[t] = typePrefix + Type(t).String() + typeVersion
	}
	return uris
}()

// ParseType finds a type by its short name.
func ParseType(name string) (Type, bool) { return findType(name) }

func findType[T string | []byte](name T) (Type, bool) {
	for t := Purchase; t <= Cost; t++ {
		if string(name) == typeNames[t] {
			return t, true
		}
	}
	return 0, false
}

var statuses = [...]struct {
	name string
	of   Type
}{
	Opened:    {"opened", Complaint},
	Resolved:  {"resolved", Complaint},
	Reopened:  {"reopened", Complaint},
	Rejected:  {"rejected", Complaint},
	Invited:   {"invited", Referral},
	Converted: {"converted", Referral},
	Reversed:  {"reversed", Referral},
}

// String is the status as it stands in data; "" for none.
func (s Status) String() string {
	if int(s) < len(statuses) {
		return statuses[s].name
	}
	return ""
}

// ParseStatus finds a status that events of type t can have.
func ParseStatus(t Type, name string) (Status, bool) { return findStatus(t, name) }

func findStatus[T string | []byte](t Type, name T) (Status, bool) {
	for s := Opened; s <= Reversed; s++ {
		if statuses[s].of == t && string(name) == statuses[s].name {
			return s, true
		}
	}
	return NoStatus, false
}

var kinds = [...]struct {
	name string
	of   Type
}{
	NPS:         {"nps", Feedback},
	CSAT:        {"csat", Feedback},
	CES:         {"ces", Feedback},
	Praise:      {"praise", Feedback},
	Suggestion:  {"suggestion", Feedback},
	Acquisition: {"acquisition", Cost},
	Service:     {"service", Cost},
	Marketing:   {"marketing", Cost},
	Sales:       {"sales", Cost},
	Goods:       {"goods", Return},
	Cancelled:   {"cancelled", Return},
	StoreCredit: {"store_credit", Return},
	Chargeback:  {"chargeback", Return},
}

// String is the kind as it stands in data; "" for none.
func (k Kind) String() string {
	if int(k) < len(kinds) {
		return kinds[k].name
	}
	return ""
}

// ParseKind finds a kind that events of type t can have.
func ParseKind(t Type, name string) (Kind, bool) { return findKind(t, name) }

func findKind[T string | []byte](t Type, name T) (Kind, bool) {
	for k := NPS; k <= Chargeback; k++ {
		if kinds[k].of == t && string(name) == kinds[k].name {
			return k, true
		}
	}
	return NoKind, false
}

// scored says whether feedback of this kind carries a score.
func (k Kind) scored() bool { return k == NPS || k == CSAT || k == CES }

// defaultScale is the highest score of a kind unless scale_max says otherwise;
// 0 for kinds without a score.
func (k Kind) defaultScale() int32 {
	switch k {
	case NPS:
		return 10
	case CSAT:
		return 5
	case CES:
		return 7
	}
	return 0
}
