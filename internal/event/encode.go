package event

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/vmihailenco/msgpack/v5"
)

// Format is how an event lies in a record: the CloudEvents mode, and the
// encoding of its data.
type Format uint8

const (
	BinaryJSON        Format = iota // attributes in ce_ headers, data as JSON
	BinaryMsgpack                   // attributes in ce_ headers, data as msgpack
	StructuredJSON                  // one JSON object, data within it
	StructuredMsgpack               // one JSON object, data as msgpack in data_base64
)

// Formats lists every format once.
var Formats = [...]Format{BinaryJSON, BinaryMsgpack, StructuredJSON, StructuredMsgpack}

var formatNames = [...]string{
	BinaryJSON:        "binary-json",
	BinaryMsgpack:     "binary-msgpack",
	StructuredJSON:    "structured-json",
	StructuredMsgpack: "structured-msgpack",
}

// String is the format's name in settings: "binary-json".
func (f Format) String() string {
	if int(f) < len(formatNames) {
		return formatNames[f]
	}
	return ""
}

// ParseFormat finds a format by its name.
func ParseFormat(name string) (Format, error) {
	for _, f := range Formats {
		if f.String() == name {
			return f, nil
		}
	}
	return 0, fmt.Errorf("choosing format %q: not one of %q", name, formatNames)
}

const (
	typeJSON       = "application/json"
	typeMsgpack    = "application/msgpack"
	typeStructured = "application/cloudevents+json"
)

// timeLayout is RFC 3339 in UTC to the millisecond, the resolution of Event.Time.
const timeLayout = "2006-01-02T15:04:05.000Z"

// Encode writes an event as the value and headers of a record; the record's
// key is the customer. A valid event decodes to itself. Values are written as
// they are, wrong ones too (a simulator sends those); only what has no form on
// the wire is an error: an unknown type or format, a status or kind that its
// type does not have.
func Encode(e *Event, f Format) (value []byte, headers []Header, err error) {
	fields, err := dataFields(e)
	if err != nil {
		return nil, nil, fmt.Errorf("encoding %s %s: %w", e.Type, e.ID, err)
	}
	at := time.UnixMilli(e.Time).UTC().Format(timeLayout)
	switch f {
	case BinaryJSON, BinaryMsgpack:
		mediaType := typeJSON
		if f == BinaryJSON {
			value = appendObject(make([]byte, 0, 256), fields)
		} else {
			mediaType = typeMsgpack
			if value, err = packMap(fields); err != nil {
				return nil, nil, fmt.Errorf("encoding %s %s: %w", e.Type, e.ID, err)
			}
		}
		headers = append(make([]Header, 0, 8), []Header{
			{"ce_specversion", []byte(specVersion)},
			{"ce_id", []byte(e.ID)},
			{"ce_source", []byte(e.Source)},
			{"ce_type", []byte(e.Type.URI())},
			{"ce_time", []byte(at)},
			{"ce_subject", []byte(e.Customer)},
			{"content-type", []byte(mediaType)},
		}...)
		if e.Trace != "" {
			headers = append(headers, Header{"ce_traceparent", []byte(e.Trace)})
		}
		return value, headers, nil

	case StructuredJSON, StructuredMsgpack:
		envelope := []dataField{
			textField("specversion", specVersion),
			textField("id", e.ID),
			textField("source", e.Source),
			textField("type", e.Type.URI()),
			textField("time", at),
			textField("subject", e.Customer),
		}
		if e.Trace != "" {
			envelope = append(envelope, textField("traceparent", e.Trace))
		}
		if f == StructuredJSON {
			envelope = append(envelope, textField("datacontenttype", typeJSON))
			value = appendObject(make([]byte, 0, 512), envelope)
			value = append(value[:len(value)-1], `,"data":`...)
			value = append(appendObject(value, fields), '}')
		} else {
			packed, err := packMap(fields)
			if err != nil {
				return nil, nil, fmt.Errorf("encoding %s %s: %w", e.Type, e.ID, err)
			}
			envelope = append(envelope,
				textField("datacontenttype", typeMsgpack),
				textField("data_base64", base64.StdEncoding.EncodeToString(packed)))
			value = appendObject(make([]byte, 0, 512), envelope)
		}
		return value, []Header{{"content-type", []byte(typeStructured)}}, nil
	}
	return nil, nil, fmt.Errorf("encoding %s %s: unknown format %d", e.Type, e.ID, f)
}

// dataField is one member of an event's data: a text, a number or a truth.
type dataField struct {
	name string
	kind valueKind // text, integer or boolean
	text string
	num  int64 // a boolean's 1 or 0
}

func textField(name, s string) dataField      { return dataField{name: name, kind: isText, text: s} }
func intField(name string, v int64) dataField { return dataField{name: name, kind: isInteger, num: v} }

// dataFields lists the members of an event's data in the order of its schema,
// leaving out what is absent.
func dataFields(e *Event) ([]dataField, error) {
	fields := make([]dataField, 0, 12) // a purchase has 11 at most
	text := func(name, s string) {
		if s != "" {
			fields = append(fields, textField(name, s))
		}
	}
	must := func(name, s string) { fields = append(fields, textField(name, s)) }
	number := func(name string, v int64, has bool) {
		if has {
			fields = append(fields, intField(name, v))
		}
	}
	if e.Status != NoStatus && (int(e.Status) >= len(statuses) || statuses[e.Status].of != e.Type) {
		return nil, fmt.Errorf("status %d is none of its type", e.Status)
	}
	if e.Kind != NoKind && (int(e.Kind) >= len(kinds) || kinds[e.Kind].of != e.Type) {
		return nil, fmt.Errorf("kind %d is none of its type", e.Kind)
	}

	switch e.Type {
	case Purchase:
		must("order_id", e.BusinessID)
		number("amount_minor", e.Amount, true)
		must("currency", e.Currency)
		number("base_amount_minor", e.Base, e.HasBase)
		text("fx_rate", e.FXRate)
		number("cost_minor", e.Cost, e.HasCost)
		number("margin_minor", e.Margin, e.HasMargin)
		text("category", e.Category)
		text("channel", e.Channel)
		if e.Unpaid {
			must("status", "pending") // failed and voided decode to the same
		}
	case Return:
		must("return_id", e.BusinessID)
		must("order_id", e.OrderID)
		number("amount_minor", e.Amount, true)
		must("currency", e.Currency)
		text("kind", e.Kind.String())
		text("reason", e.Reason)
	case Complaint:
		must("complaint_id", e.BusinessID)
		number("severity", int64(e.Severity), true)
		must("status", e.Status.String())
		text("order_id", e.OrderID)
		number("compensation_minor", e.Amount, e.HasAmount)
		text("currency", e.Currency)
	case Referral:
		must("referral_id", e.BusinessID)
		must("referee_id", e.RefereeID)
		must("status", e.Status.String())
		number("value_minor", e.Amount, e.HasAmount)
		text("currency", e.Currency)
	case Feedback:
		must("response_id", e.BusinessID)
		must("kind", e.Kind.String())
		number("score", int64(e.Score), e.Kind.scored())
		number("scale_max", int64(e.ScaleMax), e.ScaleMax != 0)
	case Cost:
		must("cost_id", e.BusinessID)
		must("kind", e.Kind.String())
		number("amount_minor", e.Amount, true)
		must("currency", e.Currency)
	default:
		return nil, fmt.Errorf("unknown type %d", e.Type)
	}
	if e.Test {
		fields = append(fields, dataField{name: "test", kind: isBool, num: 1})
	}
	return fields, nil
}

func appendObject(b []byte, fields []dataField) []byte {
	b = append(b, '{')
	for i, f := range fields {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(appendText(b, f.name), ':')
		switch f.kind {
		case isText:
			b = appendText(b, f.text)
		case isInteger:
			b = strconv.AppendInt(b, f.num, 10)
		case isBool:
			b = strconv.AppendBool(b, f.num != 0)
		}
	}
	return append(b, '}')
}

// appendText writes a JSON string. Bytes that are not UTF-8 become U+FFFD:
// JSON has no form for them.
func appendText(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := 0; i < len(s); {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
			i++
		case c < 0x20 || c == 0x7f:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&15])
			i++
		case c < utf8.RuneSelf:
			b = append(b, c)
			i++
		default:
			r, n := utf8.DecodeRuneInString(s[i:])
			b = utf8.AppendRune(b, r)
			i += n
		}
	}
	return append(b, '"')
}

func packMap(fields []dataField) ([]byte, error) {
	var buf bytes.Buffer
	enc := msgpack.NewEncoder(&buf)
	if err := enc.EncodeMapLen(len(fields)); err != nil {
		return nil, err
	}
	for _, f := range fields {
		if err := enc.EncodeString(f.name); err != nil {
			return nil, err
		}
		var err error
		switch f.kind {
		case isText:
			err = enc.EncodeString(f.text)
		case isInteger:
			err = enc.EncodeInt(f.num)
		case isBool:
			err = enc.EncodeBool(f.num != 0)
		}
		if err != nil {
			return nil, err
		}
	}
	return buf.Bytes(), nil
}
