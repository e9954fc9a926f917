package fold

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"
	"unicode/utf8"

	"github.com/tierstream/tierstream/internal/customer"
	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/scoring"
)

// ChangeType is the CloudEvents type of a tier change.
const ChangeType = "io.tierstream.tier-change.v1"

// ChangeID is the deterministic ID of a customer's n-th change: whoever decides
// it again, gives it the same.
func ChangeID(namespace string, incarnation protocol.Nonce, customer string, sequence uint64) string {
	return string(appendChangeID(nil, namespace, incarnation, customer, sequence))
}

func appendChangeID(dst []byte, namespace string, incarnation protocol.Nonce, customer string, sequence uint64) []byte {
	b := make([]byte, 0, 256)
	for _, s := range [...]string{namespace, string(incarnation[:]), customer} {
		b = binary.BigEndian.AppendUint64(b, uint64(len(s)))
		b = append(b, s...)
	}
	b = binary.BigEndian.AppendUint64(b, sequence)
	h := sha256.Sum256(b)
	return hex.AppendEncode(dst, h[:16])
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
	direction := b.move(st, tier, at)

	// All bytes of the message lie in text, behind those of the messages before.
	const spare = 4 << 10 // nearly every change fits; append moves the others
	if cap(b.text)-len(b.text) < spare {
		b.text = make([]byte, 0, 16*spare)
	}
	j := object(b.text[len(b.text):])
	j = b.moved(j, c, prev, direction, reason)
	j = b.explain(j, prev, tier, reason, before.Score, m.Score, &r.Event)
	j = b.scores(j, &before, b.before.Bought, m)
	j = j.text(`],"cause":{"event_id":`, r.Event.ID)
	j = j.text(`,"source":`, r.Event.Source)
	j = j.add(`,"type":"`).add(r.Event.Type.URI())
	j = j.text(`","topic":`, b.rules.Topics[r.Topic])
	j = j.int(`,"partition":`, int64(r.Partition))
	j = j.int(`,"offset":`, r.Offset)
	cause := len(j) // the trace ID goes here in the payload
	j = j.add(`},"effective_at":"`)
	effective := len(j)
	j = appendTime(j, at)
	effectiveEnd := len(j)
	j = b.decided(j, tier, m.Score)

	if id := traceID(r.Event.Trace); id != "" {
		trace := object(nil).text(`,"trace_id":`, id)
		j = slices.Insert(j, cause, trace...)
		effective, effectiveEnd = effective+len(trace), effectiveEnd+len(trace)
	}
	j = b.made(j, at)

	value := len(j)
	j = appendChangeID(j, b.where.Namespace, b.where.Incarnation, c.ID, st.Sequence)
	id := len(j)
	j = appendPadded(j, st.Sequence)
	sequence := len(j)
	j = j.add(r.Event.Trace)
	trace := len(j)
	j = j.add(c.ID)
	key := len(j)
	if len(b.text)+len(j) <= cap(b.text) {
		b.text = b.text[:len(b.text)+len(j)]
	}

	if len(b.headers) < 4 {
		b.headers = make([]protocol.MessageHeader, 1024)
	}
	headers := b.headers[:3:4]
	b.headers = b.headers[4:]
	headers[0] = protocol.MessageHeader{Key: "ce_id", Value: j[value:id:id]}
	headers[1] = protocol.MessageHeader{Key: "ce_time", Value: j[effective:effectiveEnd:effectiveEnd]}
	headers[2] = protocol.MessageHeader{Key: "ce_customerseq", Value: j[id:sequence:sequence]}
	if r.Event.Trace != "" {
		headers = append(headers, protocol.MessageHeader{Key: "ce_traceparent", Value: j[sequence:trace:trace]})
	}
	b.messages = append(b.messages, protocol.Message{Stream: protocol.Changes, Key: j[trace:key:key], Value: j[:value:value], Headers: headers})
	b.out.Changes++
}

// move lets a customer have another tier since at, and says which way it went.
func (b *batch) move(st *customer.Standing, tier int, at int64) (direction string) {
	direction = "assigned"
	switch prev := int(st.Tier); {
	case prev >= 0 && tier > prev:
		direction = "up"
	case prev >= 0:
		direction = "down"
	}
	st.Sequence++
	st.Tier, st.Since = int8(tier), at
	return direction
}

// moved begins the payload of a change, up to where its reason is put in words.
func (b *batch) moved(j object, c *Customer, prev int, direction, reason string) object {
	st := &c.Record.Standing
	j = j.text(`{"customer_id":`, c.ID)
	j = j.int(`,"sequence":`, int64(st.Sequence))
	j = j.tier(`,"previous_tier":`, b.tierText, prev)
	j = j.tier(`,"new_tier":`, b.tierText, int(st.Tier))
	return j.add(`,"direction":"`).add(direction).add(`","reason":"`).add(reason).add(`","reason_text":"`)
}

// scores ends the words and writes both scores with their parts, the first one
// only where it is known. What follows begins behind the last part.
func (b *batch) scores(j object, before *scoring.Measure, known bool, after *scoring.Measure) object {
	j = j.add(b.measureText)
	j = j.decimal(`","score_before":`, before.Score, known)
	j = j.decimal(`,"score_after":`, after.Score, true)
	j = j.add(`,"components":[`)
	for i := range after.N {
		j = j.decimal(b.partText[i].before, before.Parts[i].Value, known)
		j = j.decimal(`,"after":`, after.Parts[i].Value, true)
		j = strconv.AppendBool(j.add(b.partText[i].known), after.Parts[i].Known)
		j = append(j, '}')
	}
	return j
}

// decided writes behind effective_at what else belongs to the decision, and
// hashes it: what is written later is not part of it.
func (b *batch) decided(j object, tier int, score int64) object {
	next, hasNext := b.model.DistanceToNext(tier, score)
	above := -1
	if hasNext {
		above = tier + 1
	}
	j = j.tier(`","next_tier":`, b.tierText, above)
	j = j.decimal(`,"distance_to_next":`, next, hasNext)
	keep, hasKeep := b.model.DistanceToKeep(tier, score)
	j = j.decimal(`,"distance_to_keep":`, keep, hasKeep)
	j = j.add(b.rulesText)
	b.decide('c', uint64(len(j)))
	_, _ = b.decisions.Write(j) // a hash takes everything
	return j
}

// made ends the payload: in which mode, when and by whom the change was made.
func (b *batch) made(j object, at int64) object {
	mode := b.where.Mode
	switch {
	case mode != "":
	case at < b.where.LiveSince:
		mode = "backfill"
	default:
		mode = "live"
	}
	return append(j.text(`,"mode":`, mode), b.madeText...)
}

// Headers are all headers of a message of the namespace: those decided with
// it, and those that every change has.
func Headers(namespace string, m *protocol.Message) []protocol.MessageHeader {
	return AppendHeaders(nil, Source(namespace), m)
}

// Source is the ce_source of a namespace's changes.
func Source(namespace string) []byte { return []byte("/tierstream/" + namespace) }

// AppendHeaders appends what [Headers] says, for a namespace's [Source].
func AppendHeaders(hs []protocol.MessageHeader, source []byte, m *protocol.Message) []protocol.MessageHeader {
	switch m.Stream {
	case protocol.Values:
		hs = append(hs, protocol.MessageHeader{Key: "content-type", Value: jsonType})
	case protocol.Changes:
		hs = append(hs,
			protocol.MessageHeader{Key: "ce_specversion", Value: specVersion},
			protocol.MessageHeader{Key: "ce_source", Value: source},
			protocol.MessageHeader{Key: "ce_type", Value: changeType},
			protocol.MessageHeader{Key: "ce_subject", Value: m.Key},
			protocol.MessageHeader{Key: "content-type", Value: jsonType})
	}
	return append(hs, m.Headers...)
}

// appendPadded appends a sequence that compares as text: 20 digits.
func appendPadded(b []byte, n uint64) []byte {
	b = append(b, "00000000000000000000"...)
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

// explain appends one line for a person, and no quote around it: the inside of
// a JSON string.
func (b *batch) explain(t object, prev, tier int, reason string, before, after int64, ev *event.Event) object {
	if reason == "time_decay" {
		t = t.add("the time passed until this ")
	}
	t = t.add(ev.Type.String())
	switch {
	case reason == "time_decay":
	case ev.HasAmount && ev.Amount != 0 && ev.Currency != "":
		t = event.AppendMoney(t.add(" of "), ev.Amount, ev.Currency)
	case ev.Type == event.Complaint:
		t = strconv.AppendUint(t.add(" of severity "), uint64(ev.Severity), 10)
	}
	t = t.add(": ")
	to := b.tierNames[tier]
	if prev >= 0 && !b.after.Active {
		return t.add("no order is left that is not returned, hence ").add(to)
	}
	t = t.add(b.model.MeasureName()).add(" ")
	if prev >= 0 {
		t = object(b.model.AppendScore(t, before)).add(" → ")
	}
	t = b.model.AppendScore(t, after)
	switch {
	case prev < 0:
		t = t.add(" gives ").add(to).add(" (from ")
		t = object(b.model.AppendScore(t, b.tiers[tier].Enter)).add(")")
	case tier > prev:
		t = t.add(" reaches ").add(to).add(" (from ")
		t = object(b.model.AppendScore(t, b.tiers[tier].Enter)).add(")")
	default:
		t = t.add(" leaves ").add(b.tierNames[prev]).add(" (below ")
		t = object(b.model.AppendScore(t, b.tiers[prev].Leave)).add(") for ").add(to)
	}
	return t
}

// constants writes once what stands in every change.
func (e *Engine) constants() {
	for rank, t := range e.tiers {
		o := object(nil).text(`{"id":`, t.ID)
		o = o.int(`,"rank":`, int64(rank))
		o = o.text(`,"name":`, t.Name)
		e.tierText = append(e.tierText, string(o.add("}")))
		name := object(nil).text("", t.Name)
		e.tierNames = append(e.tierNames, string(name[1:len(name)-1]))
	}
	e.measureText = string(object(nil).add(`","measure":"`).add(e.model.MeasureName()))
	m := e.model.Measure(&scoring.Summary{}) // the same parts whoever it is
	for i := range m.N {
		begin := `{"name":`
		if i > 0 {
			begin = `,{"name":`
		}
		before := object(nil).text(begin, m.Parts[i].Name).add(`,"before":`)
		known := object(nil).decimal(`,"weight":`, m.Parts[i].Weight, true).add(`,"known":`)
		e.partText[i].before, e.partText[i].known = string(before), string(known)
	}
	// Grace and notices come with evaluations that time drives.
	e.rulesText = string(object(`,"pending":null`).text(`,"model_version":`, e.model.Name()).text(`,"config_hash":`, e.modelHash))
}

// madeBy writes what stands at the end of every change of a batch: what is not
// part of the decision, but for the mode.
func (e *Engine) madeBy(wall int64) {
	j := appendTime(object(e.madeText[:0]).add(`,"decided_at":"`), wall)
	j = object(j).text(`","namespace":`, e.where.Namespace)
	e.madeText = object(j).text(`,"engine":`, e.where.Engine).add("}")
}

// object is a JSON object being written. Whatever its methods append begins
// with a fragment that ends in a member's name and colon.
type object []byte

func (o object) add(fragment string) object { return append(o, fragment...) }

func (o object) text(name, v string) object { return appendText(o.add(name), v) }

func (o object) int(name string, v int64) object { return strconv.AppendInt(o.add(name), v, 10) }

// decimal writes a number of 1/10,000ths, or null.
func (o object) decimal(name string, v int64, valid bool) object {
	if !valid {
		return o.add(name).add("null")
	}
	return appendDecimal(o.add(name), v)
}

func (o object) tier(name string, tiers []string, rank int) object {
	if rank < 0 {
		return o.add(name).add("null")
	}
	return o.add(name).add(tiers[rank])
}

// plain marks the ASCII characters that stand for themselves in a JSON string.
var plain = func() (marks [256]bool) {
	for c := byte(0x20); c < 0x7f; c++ {
		marks[c] = c != '"' && c != '\\' && c != '<' && c != '>' && c != '&'
	}
	return marks
}()

// appendText appends a JSON string.
func appendText(o object, s string) object {
	valid := false
	for i := range len(s) {
		if plain[s[i]] {
			continue
		}
		if s[i] >= utf8.RuneSelf && (valid || utf8.ValidString(s)) {
			valid = true
			continue
		}
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

// appendTime appends RFC 3339 in UTC with milliseconds, as the layout
// "2006-01-02T15:04:05.000Z" does, which takes five times as long.
func appendTime(b []byte, ms int64) []byte {
	t := time.UnixMilli(ms).UTC()
	year, month, day := t.Date()
	if year < 0 || year > 9999 {
		return t.AppendFormat(b, "2006-01-02T15:04:05.000Z")
	}
	hour, minute, second := t.Clock()
	two := func(n int) { b = append(b, byte('0'+n/10), byte('0'+n%10)) }
	two(year / 100)
	two(year % 100)
	b = append(b, '-')
	two(int(month))
	b = append(b, '-')
	two(day)
	b = append(b, 'T')
	two(hour)
	b = append(b, ':')
	two(minute)
	b = append(b, ':')
	two(second)
	n := t.Nanosecond() / 1e6
	return append(b, '.', byte('0'+n/100), byte('0'+n/10%10), byte('0'+n%10), 'Z')
}

// traceID is the trace ID inside a W3C traceparent, "" when it has none.
func traceID(parent string) string {
	if len(parent) < 36 || parent[2] != '-' || parent[35] != '-' {
		return ""
	}
	return parent[3:35]
}
