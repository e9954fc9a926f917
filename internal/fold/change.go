package fold

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/protocol"
	"github.com/tierstream/tierstream/internal/scoring"
)

// ChangeType is the CloudEvents type of a tier change.
const ChangeType = "io.tierstream.tier-change.v1"

// ChangeID is the deterministic ID of a customer's n-th change: whoever decides
// it again, gives it the same.
func ChangeID(namespace string, incarnation protocol.Nonce, customer string, sequence uint64) string {
	h := sha256.New()
	var n [8]byte
	for _, s := range []string{namespace, string(incarnation[:]), customer} {
		binary.BigEndian.PutUint64(n[:], uint64(len(s)))
		h.Write(n[:])
		h.Write([]byte(s))
	}
	binary.BigEndian.PutUint64(n[:], sequence)
	h.Write(n[:])
	return hex.EncodeToString(h.Sum(nil)[:16])
}

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

	j := make(object, 0, 1024)
	j = append(j, '{')
	j = j.text("customer_id", c.ID)
	j = j.raw("sequence", strconv.FormatUint(st.Sequence, 10))
	j = j.tier("previous_tier", b.tiers, prev)
	j = j.tier("new_tier", b.tiers, tier)
	j = j.text("direction", direction)
	j = j.text("reason", reason)
	j = j.text("reason_text", b.explain(prev, tier, reason, before.Score, m.Score, at, &r.Event))
	j = j.text("measure", b.model.MeasureName())
	if b.before.Bought {
		j = j.raw("score_before", decimal(before.Score))
	} else {
		j = j.raw("score_before", "null")
	}
	j = j.raw("score_after", decimal(m.Score))
	j = append(j, `,"components":[`...)
	for i := range m.N {
		p := &m.Parts[i]
		if i > 0 {
			j = append(j, ',')
		}
		j = append(j, '{')
		j = j.text("name", p.Name)
		if b.before.Bought {
			j = j.raw("before", decimal(before.Parts[i].Value))
		} else {
			j = j.raw("before", "null")
		}
		j = j.raw("after", decimal(p.Value))
		j = j.raw("weight", decimal(p.Weight))
		j = j.raw("known", strconv.FormatBool(p.Known))
		j = append(j, '}')
	}
	j = append(j, "],"...)
	j = append(j, `"cause":{`...)
	j = j.text("event_id", r.Event.ID)
	j = j.text("source", r.Event.Source)
	j = j.text("type", r.Event.Type.URI())
	j = j.text("topic", b.rules.Topics[r.Topic])
	j = j.raw("partition", strconv.Itoa(int(r.Partition)))
	j = j.raw("offset", strconv.FormatInt(r.Offset, 10))
	cause := len(j) // the trace ID goes here in the payload
	j = append(j, '}')
	j = j.text("effective_at", formatTime(at))
	if d, ok := b.model.DistanceToNext(tier, m.Score); ok {
		j = j.tier("next_tier", b.tiers, tier+1)
		j = j.raw("distance_to_next", decimal(d))
	} else {
		j = j.raw("next_tier", "null")
		j = j.raw("distance_to_next", "null")
	}
	if d, ok := b.model.DistanceToKeep(tier, m.Score); ok {
		j = j.raw("distance_to_keep", decimal(d))
	} else {
		j = j.raw("distance_to_keep", "null")
	}
	j = j.raw("pending", "null") // grace and notices come with time-driven evaluations
	j = j.text("model_version", b.model.Name())
	j = j.text("config_hash", b.modelHash)

	b.decisions = append(b.decisions, 'c')
	b.decisions = binary.AppendUvarint(b.decisions, uint64(len(j)))
	b.decisions = append(b.decisions, j...)

	mode := "live"
	if at < b.where.LiveSince {
		mode = "backfill"
	}
	p := make(object, 0, len(j)+300)
	p = append(p, j[:cause]...)
	if id := traceID(r.Event.Trace); id != "" {
		p = p.text("trace_id", id)
	}
	p = append(p, j[cause:]...)
	p = p.text("mode", mode)
	p = p.text("decided_at", formatTime(b.in.Wall))
	p = p.text("namespace", b.where.Namespace)
	p = p.text("engine", b.where.Engine)
	p = append(p, '}')

	seq := fmt.Sprintf("%020d", st.Sequence)
	headers := []protocol.MessageHeader{
		{Key: "ce_specversion", Value: []byte("1.0")},
		{Key: "ce_id", Value: []byte(ChangeID(b.where.Namespace, b.where.Incarnation, c.ID, st.Sequence))},
		{Key: "ce_source", Value: []byte("/tierstream/" + b.where.Namespace)},
		{Key: "ce_type", Value: []byte(ChangeType)},
		{Key: "ce_subject", Value: []byte(c.ID)},
		{Key: "ce_time", Value: []byte(formatTime(at))},
		{Key: "ce_customerseq", Value: []byte(seq)},
		{Key: "content-type", Value: []byte("application/json")},
	}
	if r.Event.Trace != "" {
		headers = append(headers, protocol.MessageHeader{Key: "ce_traceparent", Value: []byte(r.Event.Trace)})
	}
	b.messages = append(b.messages, protocol.Message{Stream: protocol.Changes, Key: []byte(c.ID), Value: p, Headers: headers})
	b.out.Changes++
}

func reasonOf(ev *event.Event) string {
	if ev.Type == event.Complaint && (ev.Status == event.Resolved || ev.Status == event.Rejected) {
		return "complaint_resolved"
	}
	return ev.Type.String()
}

// explain is one line for a person.
func (b *batch) explain(prev, tier int, reason string, before, after, at int64, ev *event.Event) string {
	what := ev.Type.String()
	switch {
	case reason == "time_decay":
		what = "the time passed until this " + what
	case ev.HasAmount && ev.Amount != 0 && ev.Currency != "":
		what += " of " + event.FormatMoney(ev.Amount, ev.Currency)
	case ev.Type == event.Complaint:
		what += " of severity " + strconv.Itoa(int(ev.Severity))
	}
	name := b.model.MeasureName()
	to := &b.tiers[tier]
	if prev < 0 {
		return fmt.Sprintf("%s: %s %s gives %s (from %s)", what, name, short(after), to.Name, short(to.Enter))
	}
	if tier > prev {
		return fmt.Sprintf("%s: %s %s → %s reaches %s (from %s)", what, name, short(before), short(after), to.Name, short(to.Enter))
	}
	if !b.after.Active {
		return fmt.Sprintf("%s: no order is left that is not returned, hence %s", what, to.Name)
	}
	from := &b.tiers[prev]
	return fmt.Sprintf("%s: %s %s → %s leaves %s (below %s) for %s", what, name, short(before), short(after), from.Name, short(from.Leave), to.Name)
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

func (o object) raw(k, v string) object { return append(o.key(k), v...) }

func (o object) text(k, v string) object { return appendText(o.key(k), v) }

func (o object) tier(k string, tiers []scoring.Tier, rank int) object {
	if rank < 0 {
		return o.raw(k, "null")
	}
	o = append(o.key(k), '{')
	o = o.text("id", tiers[rank].ID)
	o = o.raw("rank", strconv.Itoa(rank))
	o = o.text("name", tiers[rank].Name)
	return append(o, '}')
}

// appendText appends a JSON string.
func appendText(o object, s string) object {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c == '"' || c == '\\' || c >= 0x7f {
			q, err := json.Marshal(s)
			if err != nil {
				panic(fmt.Sprintf("encoding a string: %v", err)) // strings cannot fail
			}
			return append(o, q...)
		}
	}
	o = append(o, '"')
	o = append(o, s...)
	return append(o, '"')
}

// decimal writes 1/10,000ths without trailing zeros.
func decimal(v int64) string {
	b := strconv.AppendInt(nil, v/10_000, 10)
	if v < 0 && v > -10_000 {
		b = []byte("-0")
	}
	f := v % 10_000
	if f < 0 {
		f = -f
	}
	if f != 0 {
		d := strconv.AppendInt(nil, 10_000+f, 10)[1:]
		for d[len(d)-1] == '0' {
			d = d[:len(d)-1]
		}
		b = append(append(b, '.'), d...)
	}
	return string(b)
}

// short is a score for a person, with one decimal.
func short(v int64) string { return strconv.FormatFloat(float64(v)/10_000, 'f', 1, 64) }

func formatTime(ms int64) string {
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z07:00")
}

// traceID is the trace ID inside a W3C traceparent, "" when it has none.
func traceID(parent string) string {
	if len(parent) < 36 || parent[2] != '-' || parent[35] != '-' {
		return ""
	}
	return parent[3:35]
}
