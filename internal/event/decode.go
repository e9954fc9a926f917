package event

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strconv"
	"unicode"
	"unicode/utf8"
)

const specVersion = "1.0"

// maxID bounds the bytes of every ID, of the source, the category and the
// channel; maxReason those of a return's reason.
const (
	maxID     = 128
	maxReason = 1024
)

// Decoder turns records into events. One decoder serves one goroutine: it
// reuses its buffers. Of a record in binary mode with JSON data it allocates
// nothing but memory for the event's own strings, in blocks for many events.
type Decoder struct {
	limits  Limits
	skew    int64 // of limits, milliseconds
	strings internTable
	texts   textBlocks
	env     slots
	data    slots
	json    jsonScanner
	pack    packScanner
	base64  []byte
	refusal *Refusal // the first one of the current record
}

// NewDecoder makes a decoder. It takes the limits as they are; Validate is the
// caller's.
func NewDecoder(l Limits) *Decoder {
	l = l.WithDefaults()
	d := &Decoder{limits: l, skew: l.MaxSkew.Milliseconds()}
	d.data.find = findField
	d.env.find = findAttr
	d.env.inner, d.env.at = &d.data, attrData
	return d
}

// Decode reads the record m into ev. A nil answer means that ev is valid and
// complete. Otherwise the refusal is the first of this order, and ev holds
// what could be understood besides:
//
//  1. malformed, of the record as a whole: a tombstone, size, content type,
//     encoding, UTF-8, nesting, a name or header that occurs twice, another
//     specversion (missing_field if there is none)
//  2. type: missing_field, wrong_type, unknown_type, unsupported_version
//  3. id, then source: missing_field, wrong_type, bad_id
//  4. time: missing_field, wrong_type, bad_time, future_time
//  5. subject: missing_field, wrong_type, bad_id
//  6. data: missing_field, or wrong_type where it is no object
//  7. the fields of the data, in the order in which the type's method below
//     reads them. Within a field: missing_field, wrong_type, then its own code.
//
// A null counts as absent. Attributes and fields that the type does not know
// are skipped, after a check that they are well-formed. Strings that ev holds
// do not refer to m; they share memory with those of other events, so whoever
// keeps one for long clones it.
func (d *Decoder) Decode(m *Message, ev *Event) *Refusal {
	*ev = Event{}
	d.refusal = nil
	d.env.reset()
	d.open(m)
	d.envelope(m, ev)
	if d.refusal != nil {
		return d.refusal
	}
	switch v := d.env.value(attrData); v.kind {
	case isObject:
	case isAbsent:
		d.refuse(MissingField, "data", "")
		return d.refusal
	default:
		d.refuse(WrongType, "data", "an object is needed, not "+kindNames[v.kind])
		return d.refusal
	}
	switch ev.Type {
	case Purchase:
		d.purchase(ev)
	case Return:
		d.returned(ev)
	case Complaint:
		d.complaint(ev)
	case Referral:
		d.referral(ev)
	case Feedback:
		d.feedback(ev)
	case Cost:
		d.cost(ev)
	}
	ev.Test = d.truth(fieldTest)
	if d.refusal == nil {
		ev.Content = ContentHash(ev)
	}
	return d.refusal
}

// KeyMatches says whether the record's key is the event's customer, byte by
// byte. A record where it is not is misrouted.
func KeyMatches(m *Message, ev *Event) bool { return string(m.Key) == ev.Customer }

// refuse keeps the first refusal of a record. All that reads fields does
// nothing once there is one.
func (d *Decoder) refuse(code Code, field, detail string) {
	if d.refusal == nil {
		d.refusal = &Refusal{Code: code, Field: field, Detail: detail}
	}
}

// open finds the attributes and the data, in whichever mode the record is.
func (d *Decoder) open(m *Message) {
	mediaType, twice := contentType(m.Headers)
	structured := isStructured(mediaType)
	if !structured {
		d.binaryHeaders(m.Headers)
	}
	switch {
	case twice:
		d.refuse(Malformed, "content-type", "the header occurs twice")
	case m.Value == nil:
		d.refuse(Malformed, "", "a tombstone: the record has no value")
	case len(m.Value) > d.limits.MaxBytes:
		d.refuse(Malformed, "", fmt.Sprintf("%d bytes, the limit is %d", len(m.Value), d.limits.MaxBytes))
	case structured:
		if !equalFold(bare(mediaType), typeStructured) {
			d.refuse(Malformed, "content-type", quoted(mediaType)+": of structured mode only "+typeStructured+" is read")
			break
		}
		var whole value
		if !d.json.scan(m.Value, d.limits.MaxDepth, &whole, &d.env) {
			d.env.reset() // half an envelope says nothing
			d.malformedJSON("", m.Value)
			break
		}
		if whole.kind != isObject {
			d.refuse(Malformed, "", "an event is needed, not "+kindNames[whole.kind])
			break
		}
		d.structuredData()
	default:
		d.payload(mediaType, m.Value)
	}
	switch v := d.env.value(attrSpecVersion); {
	case d.refusal != nil:
	case v.kind == isAbsent:
		d.refuse(MissingField, "specversion", "the record is not a CloudEvent")
	case v.kind != isText || string(v.text) != specVersion:
		d.refuse(Malformed, "specversion", "only "+specVersion+" is read")
	}
}

// binaryHeaders takes the attributes of binary mode from the ce_ headers.
func (d *Decoder) binaryHeaders(headers []Header) {
	for i := range headers {
		h := &headers[i]
		slot := 0
		switch h.Key {
		case "ce_specversion":
			slot = attrSpecVersion
		case "ce_id":
			slot = attrID
		case "ce_source":
			slot = attrSource
		case "ce_type":
			slot = attrType
		case "ce_time":
			slot = attrTime
		case "ce_subject":
			slot = attrSubject
		case "ce_traceparent":
			slot = attrTrace
		default:
			continue
		}
		if slot != attrTrace && !validUTF8(h.Value) {
			d.refuse(Malformed, attrNames[slot], "the header is not UTF-8")
			continue
		}
		v := d.env.claim(slot)
		if v == nil {
			d.refuse(Malformed, attrNames[slot], "the header occurs twice")
			continue
		}
		if v.kind, v.text = isText, h.Value; h.Value == nil {
			v.kind = isNull
		}
	}
}

// payload scans data that lies in bytes of its own.
func (d *Decoder) payload(mediaType, data []byte) {
	v := d.env.claim(attrData)
	if v == nil {
		d.refuse(Malformed, "data", "data and data_base64 are both there")
		return
	}
	switch {
	case isJSON(mediaType):
		if !d.json.scan(data, d.limits.MaxDepth, v, &d.data) {
			d.malformedJSON("data", data)
		}
	case isMsgpack(mediaType):
		if !d.pack.scan(data, d.limits.MaxDepth, v, &d.data) {
			d.refuse(Malformed, "data", "msgpack byte "+strconv.Itoa(d.pack.pos())+": "+d.pack.fault)
		}
	default:
		detail := quoted(mediaType) + ": neither JSON nor msgpack"
		if _, ok := SchemaID(data); ok {
			detail += "; a topic of a schema registry needs a mapping with format registry"
		}
		d.refuse(Malformed, "content-type", detail)
	}
}

func (d *Decoder) malformedJSON(field string, value []byte) {
	if id, ok := SchemaID(value); ok {
		d.refuse(Malformed, field, fmt.Sprintf("it begins as a record of a schema registry does (schema %d): its topic needs a mapping with format registry", id))
		return
	}
	d.refuse(Malformed, field, "JSON byte "+strconv.Itoa(d.json.pos)+": "+d.json.fault)
}

// SchemaID is the ID that a value in the wire format of Confluent's serializers
// begins with: a zero byte, then four bytes, big-endian. No JSON begins so, and
// no msgpack map.
func SchemaID(value []byte) (id int, ok bool) {
	if len(value) < 5 || value[0] != 0 {
		return 0, false
	}
	return int(binary.BigEndian.Uint32(value[1:])), true
}

// structuredData opens the data of an envelope that is scanned already.
func (d *Decoder) structuredData() {
	var mediaType []byte
	switch v := d.env.value(attrContentType); v.kind {
	case isAbsent:
	case isText:
		mediaType = v.text
	default:
		d.refuse(Malformed, "datacontenttype", "a string is needed, not "+kindNames[v.kind])
		return
	}
	v := d.env.value(attrDataBase64)
	if v.kind == isAbsent {
		if d.env.value(attrData).kind != isAbsent && !isJSON(mediaType) {
			d.refuse(Malformed, "datacontenttype", quoted(mediaType)+": only JSON lies in data, other types in data_base64")
		}
		return
	}
	if v.kind != isText {
		d.refuse(Malformed, "data_base64", "a string is needed, not "+kindNames[v.kind])
		return
	}
	if d.env.value(attrData).kind == isAbsent {
		d.env.seen &^= 1 << attrData // a null beside data_base64
	}
	var err error
	if d.base64, err = base64.StdEncoding.Strict().AppendDecode(d.base64[:0], v.text); err != nil {
		d.refuse(Malformed, "data_base64", "not base64")
		return
	}
	// The scan overwrites buffers that hold the envelope's escaped strings:
	// give the data a scanner's buffers of its own.
	d.json.scratch = d.json.scratch[len(d.json.scratch):]
	d.payload(mediaType, d.base64)
}

// envelope reads the attributes. Unlike the readers of data it goes on after a
// refusal, so that a refused record still says whose it is.
func (d *Decoder) envelope(m *Message, ev *Event) {
	if v := d.attr(attrType); v != nil {
		ev.Type = d.eventType(v.text)
	}
	if v := d.attr(attrID); v != nil && d.checkID("id", v.text) {
		ev.ID = d.texts.text(v.text)
	}
	if v := d.attr(attrSource); v != nil && d.checkID("source", v.text) {
		ev.Source = d.strings.intern(v.text)
	}
	if v := d.attr(attrTime); v != nil {
		at, ok := parseTime(v.text)
		if !ok {
			d.refuse(BadTime, "time", quoted(v.text)+": RFC 3339 with an offset is needed, from 1970 to 2262")
		} else {
			ev.Time = at
			if at-d.skew > m.Timestamp {
				d.refuse(FutureTime, "time", fmt.Sprintf("%d ms after the record's timestamp, %d allowed", at-m.Timestamp, d.skew))
			}
		}
	}
	if v := d.attr(attrSubject); v != nil && d.checkID("subject", v.text) {
		ev.Customer = d.texts.text(v.text)
	}
	trace := d.env.value(attrTrace).text
	if len(trace) == 0 {
		for i := range m.Headers {
			if m.Headers[i].Key == "traceparent" {
				trace = m.Headers[i].Value
			}
		}
	}
	if isTraceparent(trace) {
		ev.Trace = d.texts.text(trace)
	}
}

// attr is a required attribute, nil when it is absent or no string.
func (d *Decoder) attr(slot int) *value {
	v := d.env.value(slot)
	switch v.kind {
	case isText:
		return v
	case isAbsent:
		d.refuse(MissingField, attrNames[slot], "")
	default:
		d.refuse(WrongType, attrNames[slot], "a string is needed, not "+kindNames[v.kind])
	}
	return nil
}

// eventType reads io.tierstream.<name>.v<version>.
func (d *Decoder) eventType(uri []byte) Type {
	if rest, ok := bytes.CutPrefix(uri, []byte(typePrefix)); ok {
		if dot := bytes.IndexByte(rest, '.'); dot >= 0 {
			name, version := rest[:dot], rest[dot:]
			if t, ok := findType(name); ok {
				if string(version) == typeVersion {
					return t
				}
				if len(version) > 2 && version[1] == 'v' && allDigits(string(version[2:])) {
					d.refuse(UnsupportedVersion, "type", quoted(uri)+": only "+t.URI()+" is read")
					return 0
				}
			}
		}
	}
	d.refuse(UnknownType, "type", quoted(uri))
	return 0
}

func (d *Decoder) purchase(ev *Event) {
	ev.BusinessID = d.id(fieldOrderID, required)
	ev.Amount, ev.HasAmount = d.money(fieldAmount, required, NegativePurchase)
	ev.Currency = d.currency()
	ev.Base, ev.HasBase = d.money(fieldBase, optional, BadAmount)
	ev.FXRate = d.rate()
	ev.Cost, ev.HasCost = d.money(fieldCost, optional, BadCost)
	ev.Margin, ev.HasMargin = d.money(fieldMargin, optional, Applied)
	ev.Category = d.label(fieldCategory)
	ev.Channel = d.label(fieldChannel)
	if v := d.field(fieldStatus, isText, optional); v != nil {
		switch string(v.text) {
		case "paid":
		case "pending", "failed", "voided":
			ev.Unpaid = true
		default:
			d.refuse(BadStatus, "status", quoted(v.text)+": paid, pending, failed or voided is needed")
		}
	}
}

func (d *Decoder) returned(ev *Event) {
	ev.BusinessID = d.id(fieldReturnID, required)
	ev.OrderID = d.id(fieldOrderID, required)
	ev.Amount, ev.HasAmount = d.money(fieldAmount, required, BadAmount)
	if ev.HasAmount && ev.Amount == 0 {
		d.refuse(BadAmount, "amount_minor", "a return of nothing")
	}
	ev.Currency = d.currency()
	if ev.Kind = Goods; d.data.value(fieldKind).kind != isAbsent {
		ev.Kind = d.kind(Return)
	}
	ev.Reason = d.texts.text(d.limited(fieldReason, maxReason))
}

func (d *Decoder) complaint(ev *Event) {
	ev.BusinessID = d.id(fieldComplaintID, required)
	if v, ok := d.integer(fieldSeverity, required, BadSeverity); ok {
		if v < 1 || v > 5 {
			d.refuse(BadSeverity, "severity", strconv.FormatInt(v, 10)+": 1 to 5 is needed")
		} else {
			ev.Severity = uint8(v)
		}
	}
	ev.Status = d.status(Complaint)
	ev.OrderID = d.id(fieldOrderID, optional)
	if ev.Amount, ev.HasAmount = d.money(fieldCompensation, optional, BadAmount); ev.HasAmount {
		ev.Currency = d.currency()
	}
}

func (d *Decoder) referral(ev *Event) {
	ev.BusinessID = d.id(fieldReferralID, required)
	ev.RefereeID = d.id(fieldRefereeID, required)
	if ev.RefereeID != "" && ev.RefereeID == ev.Customer {
		d.refuse(SelfReferral, "referee_id", "the referee is the subject")
	}
	ev.Status = d.status(Referral)
	if ev.Amount, ev.HasAmount = d.money(fieldValue, optional, BadAmount); ev.HasAmount {
		ev.Currency = d.currency()
	}
}

// feedback reads the scale before the score that depends on it.
func (d *Decoder) feedback(ev *Event) {
	ev.BusinessID = d.id(fieldResponseID, required)
	ev.Kind = d.kind(Feedback)
	if !ev.Kind.scored() {
		return
	}
	lowest, scale := int64(1), int64(ev.Kind.defaultScale())
	if v, ok := d.integer(fieldScaleMax, optional, BadScore); ok {
		scale = v
	}
	switch {
	case ev.Kind == NPS:
		if lowest = 0; scale != 10 {
			d.refuse(BadScore, "scale_max", strconv.FormatInt(scale, 10)+": 10 is needed")
		}
	case scale < 2 || scale > 100:
		d.refuse(BadScore, "scale_max", strconv.FormatInt(scale, 10)+": 2 to 100 is needed")
	}
	if v, ok := d.integer(fieldScore, required, BadScore); ok {
		if v < lowest || v > scale {
			d.refuse(BadScore, "score", fmt.Sprintf("%d: %d to %d is needed", v, lowest, scale))
			return
		}
		ev.Score, ev.ScaleMax = int32(v), int32(scale)
	}
}

func (d *Decoder) cost(ev *Event) {
	ev.BusinessID = d.id(fieldCostID, required)
	ev.Kind = d.kind(Cost)
	ev.Amount, ev.HasAmount = d.money(fieldAmount, required, BadCost)
	ev.Currency = d.currency()
}

// required and optional say what the absence of a field means.
const (
	optional = false
	required = true
)

// field is a field of the wanted kind; nil when it is absent, when it is of
// another kind, and after a refusal.
func (d *Decoder) field(slot int, wanted valueKind, need bool) *value {
	if d.refusal != nil {
		return nil
	}
	v := d.data.value(slot)
	switch {
	case v.kind == wanted:
		return v
	case v.kind != isAbsent:
		d.refuse(WrongType, fieldNames[slot], kindNames[wanted]+" is needed, not "+kindNames[v.kind])
	case need:
		d.refuse(MissingField, fieldNames[slot], "")
	}
	return nil
}

// integer is a number in integer form that fits int64; other numbers are
// refused with code.
func (d *Decoder) integer(slot int, need bool, code Code) (int64, bool) {
	if d.refusal == nil && d.data.value(slot).kind == isNumber {
		d.refuse(code, fieldNames[slot], "an integer without fraction or exponent, within int64, is needed")
	}
	v := d.field(slot, isInteger, need)
	if v == nil {
		return 0, false
	}
	return v.num, true
}

// money is an amount in minor units. below is the code of a negative one;
// Applied allows it.
func (d *Decoder) money(slot int, need bool, below Code) (int64, bool) {
	v, ok := d.integer(slot, need, BadAmount)
	switch {
	case !ok:
		return 0, false
	case v < 0 && below != Applied:
		detail := strconv.FormatInt(v, 10) + " is negative"
		if below == NegativePurchase {
			detail += ": send a return"
		}
		d.refuse(below, fieldNames[slot], detail)
		return 0, false
	case v > d.limits.MaxAmount || v < -d.limits.MaxAmount:
		d.refuse(BadAmount, fieldNames[slot], fmt.Sprintf("%d: the limit is %d", v, d.limits.MaxAmount))
		return 0, false
	}
	return v, true
}

func (d *Decoder) currency() string {
	v := d.field(fieldCurrency, isText, required)
	if v == nil {
		return ""
	}
	c, ok := findCurrency(v.text)
	if !ok {
		d.refuse(BadCurrency, "currency", quoted(v.text)+": an active ISO 4217 code in upper case is needed")
	}
	return c.code
}

func (d *Decoder) rate() string {
	v := d.field(fieldFXRate, isText, optional)
	if v == nil {
		return ""
	}
	if _, _, ok := parseRate(v.text); !ok {
		d.refuse(BadAmount, "fx_rate", quoted(v.text)+": a positive decimal of at most "+strconv.Itoa(maxRateDigits)+" digits is needed")
		return ""
	}
	return d.strings.intern(v.text)
}

func (d *Decoder) id(slot int, need bool) string {
	v := d.field(slot, isText, need)
	if v == nil || !d.checkID(fieldNames[slot], v.text) {
		return ""
	}
	return d.texts.text(v.text)
}

// label is an optional short text that many events share; "" means absent.
func (d *Decoder) label(slot int) string { return d.strings.intern(d.limited(slot, maxID)) }

func (d *Decoder) limited(slot, limit int) []byte {
	v := d.field(slot, isText, optional)
	if v == nil {
		return nil
	}
	if len(v.text) > limit {
		d.refuse(Malformed, fieldNames[slot], fmt.Sprintf("%d bytes, the limit is %d", len(v.text), limit))
		return nil
	}
	return v.text
}

// status is a required status of the type; others are bad_status.
func (d *Decoder) status(t Type) Status {
	v := d.field(fieldStatus, isText, required)
	if v == nil {
		return NoStatus
	}
	s, ok := findStatus(t, v.text)
	if !ok {
		d.refuse(BadStatus, "status", quoted(v.text)+": no status of a "+t.String())
	}
	return s
}

// kind is a required kind of the type; others are bad_status, too.
func (d *Decoder) kind(t Type) Kind {
	v := d.field(fieldKind, isText, required)
	if v == nil {
		return NoKind
	}
	k, ok := findKind(t, v.text)
	if !ok {
		d.refuse(BadStatus, "kind", quoted(v.text)+": no kind of a "+t.String())
	}
	return k
}

func (d *Decoder) truth(slot int) bool {
	v := d.field(slot, isBool, optional)
	return v != nil && v.num != 0
}

// checkID refuses what cannot be somebody's ID: nothing, more than maxID
// bytes, control characters, outer spaces, and the words programs write where
// they have none.
func (d *Decoder) checkID(name string, id []byte) bool {
	fault := idFault(id)
	if fault != "" {
		d.refuse(BadID, name, quoted(id)+": "+fault)
	}
	return fault == ""
}

func idFault(id []byte) string {
	if len(id) == 0 {
		return "empty"
	}
	if len(id) > maxID {
		return "longer than " + strconv.Itoa(maxID) + " bytes"
	}
	ascii := true
	for _, c := range id {
		if c < ' ' || c == 0x7f {
			return "has a control character"
		}
		if c >= utf8.RuneSelf {
			ascii = false
		}
	}
	if ascii {
		if id[0] == ' ' || id[len(id)-1] == ' ' {
			return "has outer spaces"
		}
	} else {
		if bytes.ContainsFunc(id, unicode.IsControl) {
			return "has a control character"
		}
		if len(bytes.TrimSpace(id)) != len(id) {
			return "has outer spaces"
		}
	}
	if equalFold(id, "null") || equalFold(id, "undefined") || equalFold(id, "anonymous") {
		return "a word for nobody"
	}
	return ""
}

// validUTF8 spares the usual header the general test.
func validUTF8(b []byte) bool {
	for _, c := range b {
		if c >= utf8.RuneSelf {
			return utf8.Valid(b)
		}
	}
	return true
}

// contentType is the media type as it stands in the header, nil when there is none.
func contentType(headers []Header) (mediaType []byte, twice bool) {
	found := false
	for i := range headers {
		if headers[i].Key == "content-type" {
			twice = found
			found = true
			mediaType = headers[i].Value
		}
	}
	return mediaType, twice
}

// bare is a media type without parameters and outer spaces.
func bare(mediaType []byte) []byte {
	if i := bytes.IndexByte(mediaType, ';'); i >= 0 {
		mediaType = mediaType[:i]
	}
	return bytes.TrimSpace(mediaType)
}

// isStructured says whether the whole event lies in the value. Batches count
// as such, to be refused by name.
func isStructured(mediaType []byte) bool {
	const prefix = "application/cloudevents"
	return len(mediaType) >= len(prefix) && equalFold(mediaType[:len(prefix)], prefix)
}

// isJSON is true of application/json, of anything ending in +json, and of no
// media type at all.
func isJSON(mediaType []byte) bool {
	const suffix = "+json"
	if string(mediaType) == typeJSON { // as nearly all records have it
		return true
	}
	m := bare(mediaType)
	return len(m) == 0 || equalFold(m, typeJSON) ||
		len(m) > len(suffix) && equalFold(m[len(m)-len(suffix):], suffix)
}

func isMsgpack(mediaType []byte) bool {
	m := bare(mediaType)
	return equalFold(m, typeMsgpack) || equalFold(m, "application/x-msgpack") || equalFold(m, "application/vnd.msgpack")
}

// equalFold compares ASCII without regard to case; lower is in lower case.
func equalFold(b []byte, lower string) bool {
	if len(b) != len(lower) {
		return false
	}
	for i, c := range b {
		if c >= 'A' && c <= 'Z' {
			c |= 0x20
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// isTraceparent accepts W3C Trace Context: version-trace-parent-flags in lower
// case hex, neither ID all zeros. Anything else is treated as absent, as that
// recommendation says.
func isTraceparent(b []byte) bool {
	if len(b) != 55 || b[2] != '-' || b[35] != '-' || b[52] != '-' {
		return false
	}
	version, trace, parent, flags := hexKind(b[:2]), hexKind(b[3:35]), hexKind(b[36:52]), hexKind(b[53:])
	return (version|trace|parent|flags)&notHex == 0 && trace&parent&someBits != 0 && string(b[:2]) != "ff"
}

// Of a byte as a lower case hex digit: which it is.
const (
	someBits = 1 + iota // a digit other than 0
	notHex              // none
)

var hexKinds = func() (kinds [256]uint8) {
	for i := range kinds {
		switch c := byte(i); {
		case c >= '1' && c <= '9' || c >= 'a' && c <= 'f':
			kinds[i] = someBits
		case c != '0':
			kinds[i] = notHex
		}
	}
	return kinds
}()

// hexKind joins the kinds of all bytes.
func hexKind(b []byte) (kinds uint8) {
	for _, c := range b {
		kinds |= hexKinds[c]
	}
	return kinds
}

// quoted shows what was found to a person, shortened.
func quoted(b []byte) string {
	const most = 48
	if len(b) > most {
		return strconv.Quote(string(b[:most])) + "…"
	}
	return strconv.Quote(string(b))
}
