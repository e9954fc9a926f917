package fold

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/scoring"
)

// ChangeType is the CloudEvents type of a tier change.
const ChangeType = "io.tierstream.tier-change.v1"

// ChangeID is the deterministic ID of a customer's n-th change: whoever decides
// it again, gives it the same.
func ChangeID(namespace string, incarnation protocol.Nonce, customer string, sequence uint64) string {
	b := make([]byte, 0, 192)
	for _, s := range [...]string{namespace, string(incarnation[:]), customer} {
		b = binary.BigEndian.AppendUint64(b, uint64(len(s)))
		b = append(b, s...)
	}
	b = binary.BigEndian.AppendUint64(b, sequence)
	h := sha256.Sum256(b)
	return hex.EncodeToString(h[:16])
}

// Headers that are the same in every change.
var (
	specVersion = []byte("1.0")
	changeType  = []byte(ChangeType)
	jsonType    = []byte("application/json")
)

// change moves the customer to tier and composes the message. The decision is
// the payload without namespace, mode, decided_at, trace ID and engine: it is
// what the chain covers and what replays compare, so nothing else may enter
// b.decisions here.
func (b *batch) change(c *Customer, r *Record, at int64, tier int, m *scoring.Measure) {
	st := &c.Record.Standing
	prev := int(st.Tier)
	before := b.model.Measure(&b.before)
	reason := reasonOf(&r.Event)
	if prev >= 0 && b.model.Decide(prev, &b.before, before.Score) == tier {
		// The tier would have moved at this instant without the event, which
		// only made it known.
		reason = "time_decay"
	}
	direction := "assigned"
	switch {
	case prev >= 0 && tier > prev:
		direction = "up"
	case prev >= 0:
		direction = "down"
	}
	st.Sequence++
	st.Tier, st.Since = int8(tier), at

	j := append(b.scratch[:0], '{')
	j = j.text("customer_id", c.ID)
	j = j.int("sequence", int64(st.Sequence))
	j = j.tier("previous_tier", b.tierText, prev)
	j = j.tier("new_tier", b.tierText, tier)
	j = j.text("direction", direction)
	j = j.text("reason", reason)
	j = j.key("reason_text")
	j = b.explain(j, prev, tier, reason, before.Score, m.Score, &r.Event)
	j = j.text("measure", b.model.MeasureName())
	j = j.decimal("score_before", before.Score, b.before.Bought)
	j = j.decimal("score_after", m.Score, true)
	j = append(j.key("components"), '[')
	for i := range m.N {
		p := &m.Parts[i]
		if i > 0 {
			j = append(j, ',')
		}
		j = append(j, '{')
		j = j.text("name", p.Name)
		j = j.decimal("before", before.Parts[i].Value, b.before.Bought)
		j = j.decimal("after", p.Value, true)
		j = j.decimal("weight", p.Weight, true)
		j = strconv.AppendBool(j.key("known"), p.Known)
		j = append(j, '}')
	}
	j = append(j, ']')
	j = append(j.key("cause"), '{')
	j = j.text("event_id", r.Event.ID)
	j = j.text("source", r.Event.Source)
	j = j.text("type", r.Event.Type.URI())
	j = j.text("topic", b.rules.Topics[r.Topic])
	j = j.int("partition", int64(r.Partition))
	j = j.int("offset", r.Offset)
	cause := len(j) // the trace ID goes here in the payload
	j = append(j, '}')
	effective := appendTime(make([]byte, 0, 24), at)
	j = append(append(append(j.key("effective_at"), '"'), effective...), '"')
	next, hasNext := b.model.DistanceToNext(tier, m.Score)
	if hasNext {
		j = j.tier("next_tier", b.tierText, tier+1)
	} else {
		j = j.tier("next_tier", b.tierText, -1)
	}
	j = j.decimal("distance_to_next", next, hasNext)
	keep, hasKeep := b.model.DistanceToKeep(tier, m.Score)
	j = j.decimal("distance_to_keep", keep, hasKeep)
	j = append(j, b.rulesText...)
	b.scratch = j

	b.decide('c', uint64(len(j)))
	_, _ = b.decisions.Write(j) // a hash takes everything

	mode := b.where.Mode
	switch {
	case mode != "":
	case at < b.where.LiveSince:
		mode = "backfill"
	default:
		mode = "live"
	}
	p := append(b.payload[:0], j[:cause]...)
	if id := traceID(r.Event.Trace); id != "" {
		p = p.text("trace_id", id)
	}
	p = append(p, j[cause:]...)
	p = p.text("mode", mode)
	p = append(append(append(p.key("decided_at"), '"'), b.wallText...), '"')
	p = p.text("namespace", b.where.Namespace)
	p = p.text("engine", b.where.Engine)
	p = append(p, '}')
	b.payload = p

	headers := make([]protocol.MessageHeader, 3, 4)
	headers[0] = protocol.MessageHeader{Key: "ce_id", Value: []byte(ChangeID(b.where.Namespace, b.where.Incarnation, c.ID, st.Sequence))}
	headers[1] = protocol.MessageHeader{Key: "ce_time", Value: effective}
	headers[2] = protocol.MessageHeader{Key: "ce_customerseq", Value: paddedSequence(st.Sequence)}
	if r.Event.Trace != "" {
		headers = append(headers, protocol.MessageHeader{Key: "ce_traceparent", Value: []byte(r.Event.Trace)})
	}
	b.messages = append(b.messages, protocol.Message{Stream: protocol.Changes, Key: []byte(c.ID), Value: bytes.Clone(p), Headers: headers})
	b.out.Changes++
}

// Headers are all headers of a message of the namespace: those decided with
// it, and those that every change has.
func Headers(namespace string, m *protocol.Message) []protocol.MessageHeader {
	if m.Stream != protocol.Changes {
		return m.Headers
	}
	return append([]protocol.MessageHeader{
		{Key: "ce_specversion", Value: specVersion},
		{Key: "ce_source", Value: []byte("/tierstream/" + namespace)},
		{Key: "ce_type", Value: changeType},
		{Key: "ce_subject", Value: m.Key},
		{Key: "content-type", Value: jsonType},
	}, m.Headers...)
}

// paddedSequence is a sequence that compares as text: 20 digits.
func paddedSequence(n uint64) []byte {
	b := []byte("00000000000000000000")
	for i := len(b) - 1; n > 0; i-- {
		b[i] += byte(n % 10)
		n /= 10
	}
	return b
}

func reasonOf(ev *event.Event) string {
	if ev.Type == event.Complaint && (ev.Status == event.Resolved || ev.Status == event.Rejected) {
		return "complaint_resolved"
	}
	return ev.Type.String()
}

// explain appends one line for a person, as a JSON string.
func (b *batch) explain(j object, prev, tier int, reason string, before, after int64, ev *event.Event) object {
	t := b.line[:0]
	if reason == "time_decay" {
		t = append(t, "the time passed until this "...)
	}
	t = append(t, ev.Type.String()...)
	switch {
	case reason == "time_decay":
	case ev.HasAmount && ev.Amount != 0 && ev.Currency != "":
		t = append(append(t, " of "...), event.FormatMoney(ev.Amount, ev.Currency)...)
	case ev.Type == event.Complaint:
		t = strconv.AppendUint(append(t, " of severity "...), uint64(ev.Severity), 10)
	}
	t = append(t, ": "...)
	to := &b.tiers[tier]
	if prev >= 0 && !b.after.Active {
		t = append(t, "no order is left that is not returned, hence "...)
		t = append(t, to.Name...)
	} else {
		t = append(append(t, b.model.MeasureName()...), ' ')
		if prev >= 0 {
			t = append(appendShort(t, before), " → "...)
		}
		t = appendShort(t, after)
		switch {
		case prev < 0:
			t = append(append(t, " gives "...), to.Name...)
			t = append(appendShort(append(t, " (from "...), to.Enter), ')')
		case tier > prev:
			t = append(append(t, " reaches "...), to.Name...)
			t = append(appendShort(append(t, " (from "...), to.Enter), ')')
		default:
			from := &b.tiers[prev]
			t = append(append(t, " leaves "...), from.Name...)
			t = append(appendShort(append(t, " (below "...), from.Leave), ") for "...)
			t = append(t, to.Name...)
		}
	}
	b.line = t
	return appendText(j, string(t))
}

// object is a JSON object being written.
type object []byte

func (o object) key(k string) object {
	if c := o[len(o)-1]; c != '{' && c != ',' {
		o = append(o, ',')
	}
	o = append(o, '"')
	o = append(o, k...)
	return append(o, '"', ':')
}

func (o object) text(k, v string) object { return appendText(o.key(k), v) }

func (o object) int(k string, v int64) object { return strconv.AppendInt(o.key(k), v, 10) }

// decimal writes a number of 1/10,000ths, or null.
func (o object) decimal(k string, v int64, valid bool) object {
	if !valid {
		return append(o.key(k), "null"...)
	}
	return appendDecimal(o.key(k), v)
}

func (o object) tier(k string, tiers []string, rank int) object {
	if rank < 0 {
		return append(o.key(k), "null"...)
	}
	return append(o.key(k), tiers[rank]...)
}

// appendText appends a JSON string.
func appendText(o object, s string) object {
	plain, ascii := true, true
	for i := range len(s) {
		c := s[i]
		plain = plain && c >= 0x20 && c != '"' && c != '\\' && c != 0x7f && c != '<' && c != '>' && c != '&'
		ascii = ascii && c < 0x80
	}
	if !plain || !ascii && !utf8.ValidString(s) {
		q, err := json.Marshal(s)
		if err != nil {
			panic(fmt.Sprintf("encoding a string: %v", err)) // strings cannot fail
		}
		return append(o, q...)
	}
	o = append(o, '"')
	o = append(o, s...)
	return append(o, '"')
}

// appendDecimal writes 1/10,000ths without trailing zeros.
func appendDecimal(b []byte, v int64) []byte {
	if v < 0 {
		b, v = append(b, '-'), -v
	}
	b = strconv.AppendInt(b, v/10_000, 10)
	f := v % 10_000
	if f == 0 {
		return b
	}
	b = append(b, '.', byte('0'+f/1000), byte('0'+f/100%10), byte('0'+f/10%10), byte('0'+f%10))
	for b[len(b)-1] == '0' {
		b = b[:len(b)-1]
	}
	return b
}

// appendShort writes a score for a person, with one decimal, rounded.
func appendShort(b []byte, v int64) []byte {
	if v < 0 {
		b, v = append(b, '-'), -v
	}
	v = (v + 500) / 1000
	return append(strconv.AppendInt(b, v/10, 10), '.', byte('0'+v%10))
}

func appendTime(b []byte, ms int64) []byte {
	return time.UnixMilli(ms).UTC().AppendFormat(b, "2006-01-02T15:04:05.000Z07:00")
}

// traceID is the trace ID inside a W3C traceparent, "" when it has none.
func traceID(parent string) string {
	if len(parent) < 36 || parent[2] != '-' || parent[35] != '-' {
		return ""
	}
	return parent[3:35]
}
