package mapping

import (
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/interpreter"

	"github.com/tierstream/tierstream/internal/event"
)

// Mapper maps the records of one topic. It is not safe for concurrent use: it
// reuses its buffers.
type Mapper struct {
	topic   *compiledTopic
	schemas map[int]*Schema
	limits  event.Limits

	rule    *compiledRule    // of the last record
	absent  map[string]error // of the last record: parts that led to nothing
	buf     []byte
	message event.Message
}

// Mapper maps the records of a topic; nil when the topic is not mapped. Limits
// bound what is read, as they bound events.
func (m *Mapping) Mapper(topic string, l event.Limits) *Mapper {
	t := m.topics[topic]
	if t == nil {
		return nil
	}
	return &Mapper{topic: t, schemas: m.schemas, limits: l.WithDefaults(), absent: map[string]error{}}
}

// record is what expressions see of one record. It is a cel.Activation.
type record struct {
	topic             string
	partition, offset int64
	message           *event.Message
	value             any
	headers           map[string]string
}

// ResolveName implements cel.Activation.
func (r *record) ResolveName(name string) (any, bool) {
	switch name {
	case varValue:
		return r.value, true
	case varKey:
		return string(r.message.Key), true
	case varHeaders:
		if r.headers == nil {
			r.headers = make(map[string]string, len(r.message.Headers))
			for _, h := range r.message.Headers {
				r.headers[h.Key] = string(h.Value)
			}
		}
		return r.headers, true
	case varTimestamp:
		return time.UnixMilli(r.message.Timestamp).UTC(), true
	case varTopic:
		return r.topic, true
	case varPartition:
		return r.partition, true
	case varOffset:
		return r.offset, true
	}
	return nil, false
}

// Parent implements cel.Activation.
func (r *record) Parent() cel.Activation { return nil }

// Map makes of a record the CloudEvent that its topic's mapping says, in
// structured mode, for the decoder to judge. It is good until the next call.
// Otherwise it answers why the record is none:
//
//   - skipped, when a rule says so
//   - malformed, when the payload cannot be read, or a text is not UTF-8
//   - unknown_type, when no rule fits, or its schema is not known
//   - bad_time, bad_amount, bad_currency: what the conversions refuse
//   - wrong_type, when an expression fails otherwise
//
// An attribute or field whose expression leads to nothing is left out, which the
// decoder refuses where it is required. A tombstone is passed on as it is.
func (x *Mapper) Map(partition int32, offset int64, m *event.Message) (*event.Message, *event.Refusal) {
	clear(x.absent)
	x.rule = nil
	if m.Value == nil || len(m.Value) > x.limits.MaxBytes {
		x.message = event.Message{Key: m.Key, Value: m.Value, Timestamp: m.Timestamp}
		return &x.message, nil // the decoder refuses it
	}
	in := record{topic: x.topic.name, partition: int64(partition), offset: offset, message: m}
	var refusal *event.Refusal
	if in.value, refusal = x.payload(m.Value); refusal != nil {
		return nil, refusal
	}
	for _, r := range x.topic.rules {
		ok, refusal := r.applies(&in)
		switch {
		case refusal != nil:
			return nil, refusal
		case !ok:
			continue
		case r.skip:
			return nil, &event.Refusal{Code: event.Skipped}
		}
		x.rule = r
		return x.build(&in)
	}
	return nil, &event.Refusal{Code: event.UnknownType, Field: "type", Detail: "no event of the mapping of " + x.topic.name + " has a condition that holds"}
}

// payload decodes a record's value.
func (x *Mapper) payload(value []byte) (any, *event.Refusal) {
	id, framed := event.SchemaID(value)
	if !x.topic.registry {
		v, err := parseJSON(value, x.limits.MaxDepth)
		switch {
		case err == nil:
			return v, nil
		case framed:
			return nil, &event.Refusal{Code: event.Malformed, Detail: "it begins as a record of a schema registry does (schema " + strconv.Itoa(id) + "): say format: registry of " + x.topic.name + " in the mapping"}
		}
		return nil, &event.Refusal{Code: event.Malformed, Detail: err.Error()}
	}
	if !framed {
		return nil, &event.Refusal{Code: event.Malformed, Detail: "it does not begin with a zero byte and a schema ID, as the mapping says of " + x.topic.name}
	}
	s := x.schemas[id]
	if s == nil {
		return nil, &event.Refusal{Code: event.UnknownType, Field: "schema", Detail: "the registry had no schema " + strconv.Itoa(id) + "; register it, then re-drive"}
	}
	v, err := s.decode(value[5:], x.limits.MaxDepth)
	if err != nil {
		return nil, &event.Refusal{Code: event.Malformed, Detail: plain(err)}
	}
	return v, nil
}

// plain is an error's text without what package protobuf puts in so that
// nobody relies on it: in some builds its errors have a no-break space. A
// refusal's text is part of what a batch decides, and another build must decide
// the same.
func plain(err error) string { return strings.ReplaceAll(err.Error(), "\u00a0", " ") }

// applies evaluates a rule's condition. One that asks for a field that is not
// there does not hold.
func (r *compiledRule) applies(in *record) (bool, *event.Refusal) {
	if r.when == nil {
		return true, nil
	}
	v, err := r.when.evaluate(in)
	if errors.Is(err, errAbsent) {
		return false, nil
	}
	if err != nil {
		return false, failed("when", r.when, err)
	}
	b, ok := v.(types.Bool)
	if !ok {
		return false, failed("when", r.when, errors.New("it is no condition, but "+v.Type().TypeName()))
	}
	return bool(b), nil
}

// build writes the event.
func (x *Mapper) build(in *record) (*event.Message, *event.Refusal) {
	x.buf = append(x.buf[:0], `{"specversion":"1.0","type":"`...)
	x.buf = append(append(x.buf, x.rule.uri...), '"')
	if refusal := x.parts(in, x.rule.attrs, false); refusal != nil {
		return nil, refusal
	}
	x.buf = append(x.buf, `,"data":{`...)
	if refusal := x.parts(in, x.rule.data, true); refusal != nil {
		return nil, refusal
	}
	x.buf = append(x.buf, "}}"...)
	m := in.message
	x.message = event.Message{Key: m.Key, Value: x.buf, Timestamp: m.Timestamp, Headers: append(x.message.Headers[:0], structured)}
	for _, h := range m.Headers {
		if h.Key == "traceparent" {
			x.message.Headers = append(x.message.Headers, h)
		}
	}
	return &x.message, nil
}

var structured = event.Header{Key: "content-type", Value: []byte("application/cloudevents+json")}

// parts writes attributes or fields.
func (x *Mapper) parts(in *record, parts []part, first bool) *event.Refusal {
	for _, p := range parts {
		v, err := p.from.evaluate(in)
		if errors.Is(err, errAbsent) {
			x.absent[p.name] = err
			continue
		}
		if err != nil {
			return failed(p.name, p.from, err)
		}
		if !first {
			x.buf = append(x.buf, ',')
		}
		first = false
		x.buf = append(append(append(x.buf, '"'), p.name...), `":`...)
		if x.buf, err = appendValue(x.buf, v); err != nil {
			return failed(p.name, p.from, err)
		}
	}
	return nil
}

var errKind = errors.New("it is no text, number or boolean")

// appendValue writes a value as JSON. What has another form in events (a fraction
// where an integer is needed) is left to the decoder.
func appendValue(b []byte, v ref.Val) ([]byte, error) {
	switch v := v.(type) {
	case types.String:
		if !utf8.ValidString(string(v)) {
			return nil, errUTF8
		}
		text, err := json.Marshal(string(v))
		return append(b, text...), err
	case types.Int:
		return strconv.AppendInt(b, int64(v), 10), nil
	case types.Uint:
		return strconv.AppendUint(b, uint64(v), 10), nil
	case types.Bool:
		return strconv.AppendBool(b, bool(v)), nil
	case *decimal:
		return append(b, v.text()...), nil
	case types.Double:
		if f := float64(v); !math.IsNaN(f) && !math.IsInf(f, 0) {
			return strconv.AppendFloat(b, f, 'g', -1, 64), nil
		}
	case types.Timestamp:
		text, err := json.Marshal(v.Time.UTC().Format(time.RFC3339Nano))
		return append(b, text...), err
	}
	return nil, errKind
}

// failed is why an expression has no value.
func failed(field string, p *program, err error) *event.Refusal {
	var chosen *event.Refusal
	if errors.As(err, &chosen) {
		r := *chosen
		if r.Field == "" {
			r.Field = field
		}
		r.Detail = p.source + ": " + r.Detail
		return &r
	}
	r := &event.Refusal{Code: event.WrongType, Field: field, Detail: p.source + ": " + err.Error()}
	var stopped interpreter.EvalCancelledError
	switch {
	case errors.As(err, &stopped), errors.Is(err, errUTF8):
		r.Code = event.Malformed
	case field == "time":
		r.Code = event.BadTime
	}
	return r
}

// Explain says in the detail of a decoder's refusal where the last record's
// value came from.
func (x *Mapper) Explain(r *event.Refusal) {
	if x.rule == nil {
		return
	}
	for _, parts := range [][]part{x.rule.attrs, x.rule.data} {
		for _, p := range parts {
			if p.name != r.Field {
				continue
			}
			if err := x.absent[p.name]; err != nil {
				r.Detail = p.from.source + ": " + err.Error()
				return
			}
			if r.Detail != "" {
				r.Detail += " "
			}
			r.Detail += "(mapped from " + p.from.source + ")"
		}
	}
}
