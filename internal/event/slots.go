package event

import (
	"bytes"
	"slices"
)

// valueKind is what a scanned value is, whichever encoding it came in.
type valueKind uint8

const (
	isAbsent  valueKind = iota
	isNull              // means absent
	isText              // in text
	isInteger           // in num
	isNumber            // any other number: a fraction, an exponent, beyond int64
	isBool              // in num, 0 or 1
	isObject            // a JSON object or msgpack map
	isOther             // an array, bytes, a msgpack extension
)

var kindNames = [...]string{
	isAbsent:  "nothing",
	isNull:    "null",
	isText:    "a string",
	isInteger: "an integer",
	isNumber:  "a number that is not an int64",
	isBool:    "a boolean",
	isObject:  "an object",
	isOther:   "an array or bytes",
}

// value is one scanned value. Its text lies in the record or in the scanner's
// buffers, and is good until the next Decode.
type value struct {
	kind valueKind
	text []byte
	num  int64
}

// maxSlots bounds the names of one object that a scanner keeps.
const maxSlots = 32

// slots receives the members of one object: those whose name it knows. It is
// reused without being cleared; seen says which values are of this record.
type slots struct {
	find  func(name []byte) (int, bool) // the slot of a known name
	inner *slots                        // receives the members of the object in slot innerAt, nil: nobody
	at    int                           // see inner
	seen  uint32
	vals  [maxSlots]value
}

func (s *slots) reset() {
	s.seen = 0
	if s.inner != nil {
		s.inner.reset()
	}
}

// claim is the slot's value to be filled, nil when it was claimed before.
func (s *slots) claim(slot int) *value {
	if s.seen&(1<<slot) != 0 {
		return nil
	}
	s.seen |= 1 << slot
	v := &s.vals[slot]
	*v = value{}
	return v
}

// value is what a slot holds; a null counts as absent.
func (s *slots) value(slot int) *value {
	if s.seen&(1<<slot) == 0 || s.vals[slot].kind == isNull {
		return &absent
	}
	return &s.vals[slot]
}

var absent value

// The slots of an event's attributes.
const (
	attrSpecVersion = iota
	attrType
	attrID
	attrSource
	attrTime
	attrSubject
	attrTrace
	attrContentType
	attrData
	attrDataBase64
	numAttrs
)

var attrNames = [numAttrs]string{
	"specversion", "type", "id", "source", "time", "subject",
	"traceparent", "datacontenttype", "data", "data_base64",
}

func findAttr(name []byte) (int, bool) {
	switch string(name) {
	case "specversion":
		return attrSpecVersion, true
	case "type":
		return attrType, true
	case "id":
		return attrID, true
	case "source":
		return attrSource, true
	case "time":
		return attrTime, true
	case "subject":
		return attrSubject, true
	case "traceparent":
		return attrTrace, true
	case "datacontenttype":
		return attrContentType, true
	case "data":
		return attrData, true
	case "data_base64":
		return attrDataBase64, true
	}
	return 0, false
}

// The slots of an event's data, of all types together.
const (
	fieldOrderID = iota
	fieldReturnID
	fieldComplaintID
	fieldReferralID
	fieldRefereeID
	fieldResponseID
	fieldCostID
	fieldAmount
	fieldCurrency
	fieldBase
	fieldFXRate
	fieldCost
	fieldMargin
	fieldCompensation
	fieldValue
	fieldCategory
	fieldChannel
	fieldReason
	fieldStatus
	fieldKind
	fieldSeverity
	fieldScore
	fieldScaleMax
	fieldTest
	numFields
)

var fieldNames = [numFields]string{
	"order_id", "return_id", "complaint_id", "referral_id", "referee_id", "response_id", "cost_id",
	"amount_minor", "currency", "base_amount_minor", "fx_rate", "cost_minor", "margin_minor",
	"compensation_minor", "value_minor", "category", "channel", "reason",
	"status", "kind", "severity", "score", "scale_max", "test",
}

func findField(name []byte) (int, bool) {
	switch string(name) {
	case "order_id":
		return fieldOrderID, true
	case "return_id":
		return fieldReturnID, true
	case "complaint_id":
		return fieldComplaintID, true
	case "referral_id":
		return fieldReferralID, true
	case "referee_id":
		return fieldRefereeID, true
	case "response_id":
		return fieldResponseID, true
	case "cost_id":
		return fieldCostID, true
	case "amount_minor":
		return fieldAmount, true
	case "currency":
		return fieldCurrency, true
	case "base_amount_minor":
		return fieldBase, true
	case "fx_rate":
		return fieldFXRate, true
	case "cost_minor":
		return fieldCost, true
	case "margin_minor":
		return fieldMargin, true
	case "compensation_minor":
		return fieldCompensation, true
	case "value_minor":
		return fieldValue, true
	case "category":
		return fieldCategory, true
	case "channel":
		return fieldChannel, true
	case "reason":
		return fieldReason, true
	case "status":
		return fieldStatus, true
	case "kind":
		return fieldKind, true
	case "severity":
		return fieldSeverity, true
	case "score":
		return fieldScore, true
	case "scale_max":
		return fieldScaleMax, true
	case "test":
		return fieldTest, true
	}
	return 0, false
}

// nameSet refuses an object that has one name twice. Scanners stack the names
// of the objects they are in: begin and end enclose one object.
type nameSet struct{ names [][]byte }

func (n *nameSet) begin() int      { return len(n.names) }
func (n *nameSet) add(name []byte) { n.names = append(n.names, name) }

// end forgets the object's names and answers one that occurred twice. It costs
// n·log n in the object's size.
func (n *nameSet) end(begin int) (twice []byte, found bool) {
	names := n.names[begin:]
	n.names = n.names[:begin]
	if len(names) > 16 {
		slices.SortFunc(names, bytes.Compare)
		for i := 1; i < len(names); i++ {
			if bytes.Equal(names[i-1], names[i]) {
				return names[i], true
			}
		}
		return nil, false
	}
	for i := range names {
		for j := range i {
			if bytes.Equal(names[i], names[j]) {
				return names[i], true
			}
		}
	}
	return nil, false
}
