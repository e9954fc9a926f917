package sim

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/tierstream/tierstream/internal/event"
)

// Line is one record as a line of JSON: a sound event as a structured
// CloudEvent, any other record as it lies in the log.
type Line struct {
	Topic   string            `json:"topic,omitempty"`
	Key     string            `json:"key"`
	Expect  string            `json:"expect,omitempty"` // the code that a consumer must give it
	Event   json.RawMessage   `json:"event,omitempty"`
	Headers map[string]string `json:"headers,omitempty"`
	Value   string            `json:"value,omitempty"`
	Base64  []byte            `json:"value_base64,omitempty"` // a value that is not UTF-8
}

// Line is the message as a line, for a topic of this name.
func (m *Message) Line(topic string) (Line, error) {
	l := Line{Topic: topic, Key: string(m.Key()), Expect: m.Code.String()}
	if m.Raw == nil {
		value, _, err := event.Encode(&m.Event, event.StructuredJSON)
		l.Event = value
		return l, err
	}
	l.Headers = map[string]string{}
	for _, h := range m.Raw.Headers {
		l.Headers[h.Key] = string(h.Value)
	}
	if utf8.Valid(m.Raw.Value) {
		l.Value = string(m.Raw.Value)
	} else {
		l.Base64 = m.Raw.Value
	}
	return l, nil
}

// maxLine bounds a line: a record of 1 MiB as base64, and what is around it.
const maxLine = 2 << 20

// NDJSON reads records from lines of JSON, each either a [Line] or a structured
// CloudEvent alone, in the order of the file. They are sent as they stand; a
// line that is neither is an error, since it names no customer.
type NDJSON struct {
	// Topics are the names by which lines choose a class; a line of another
	// topic, or of none, goes by its event's type.
	Topics [NumTopics]string
	err    error
}

// Err is what ended the reading, nil at the end of the input.
func (n *NDJSON) Err() error { return n.err }

// All reads r; Err says afterwards how it ended.
func (n *NDJSON) All(r io.Reader) iter.Seq[Message] {
	return func(yield func(Message) bool) {
		now := time.Now().UnixMilli()
		lines := bufio.NewScanner(r)
		lines.Buffer(nil, maxLine)
		number := 0
		for lines.Scan() {
			number++
			text := bytes.TrimSpace(lines.Bytes())
			if len(text) == 0 {
				continue
			}
			m, err := n.message(text)
			if err != nil {
				n.err = fmt.Errorf("line %d: %w", number, err)
				return
			}
			m.At = min(m.At, now) // bad input may lie in the future
			if !yield(m) {
				return
			}
		}
		if err := lines.Err(); err != nil {
			n.err = fmt.Errorf("line %d: %w", number+1, err)
		}
	}
}

// attributes are those of an event that sending depends on. Wrong types are
// the consumer's to refuse, so they are no error here.
type attributes struct {
	SpecVersion, Type, ID, Subject, Time text
}

// text is a JSON string, and empty for anything else.
type text string

func (t *text) UnmarshalJSON(b []byte) error {
	var s string
	if json.Unmarshal(b, &s) == nil {
		*t = text(s)
	}
	return nil
}

func (n *NDJSON) message(line []byte) (Message, error) {
	var l Line
	var a attributes
	if err := json.Unmarshal(line, &a); err != nil {
		return Message{}, err
	}
	if a.SpecVersion != "" {
		l.Event, l.Key = slices.Clone(line), string(a.Subject)
	} else {
		if err := json.Unmarshal(line, &l); err != nil {
			return Message{}, err
		}
		switch {
		case l.Event != nil:
			if err := json.Unmarshal(l.Event, &a); err != nil {
				return Message{}, fmt.Errorf("event: %w", err)
			}
		case l.Headers != nil:
			a = attributes{Type: text(l.Headers["ce_type"]), ID: text(l.Headers["ce_id"]), Time: text(l.Headers["ce_time"])}
		default:
			return Message{}, fmt.Errorf("neither a CloudEvent nor a record with an event or headers: %.60s", line)
		}
	}

	raw := &Raw{Key: []byte(l.Key)}
	if l.Event != nil {
		raw.Value = l.Event
		raw.Headers = []event.Header{{Key: "content-type", Value: []byte("application/cloudevents+json")}}
	} else {
		raw.Value = l.Base64
		if l.Base64 == nil {
			raw.Value = []byte(l.Value)
		}
		for k, v := range l.Headers {
			raw.Headers = append(raw.Headers, event.Header{Key: k, Value: []byte(v)})
		}
		slices.SortFunc(raw.Headers, func(a, b event.Header) int { return bytes.Compare([]byte(a.Key), []byte(b.Key)) })
	}
	m := Message{Raw: raw, Topic: topicOf(string(a.Type))}
	m.Event.ID, m.Event.Customer = string(a.ID), l.Key
	if at := slices.Index(n.Topics[:], l.Topic); at >= 0 && l.Topic != "" {
		m.Topic = Topic(at)
	}
	if t, err := time.Parse(time.RFC3339, string(a.Time)); err == nil {
		m.At = t.UnixMilli()
	}
	return m, nil
}

// topicOf is the class of topic that usually carries a type; the shop's for
// what is none.
func topicOf(ceType string) Topic {
	name, _, _ := strings.Cut(strings.TrimPrefix(ceType, "io.tierstream."), ".")
	switch name {
	case event.Complaint.String(), event.Feedback.String():
		return Complaints
	case event.Referral.String(), event.Cost.String():
		return Referrals
	}
	return Purchases
}
