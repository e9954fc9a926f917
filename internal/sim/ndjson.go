package sim

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"maps"
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

// NDJSON reads records from lines of JSON, each a [Line], a line of a dumped log
// (`tierctl replay dump`: headers as a list, with the record's timestamp) or a
// structured CloudEvent alone. They are sent as they stand; a line that is none
// of these is an error, since it names no customer.
type NDJSON struct {
	// Topics are the names by which lines choose a class; a line of another
	// topic, or of none, goes by its event's type.
	Topics [NumTopics]string
	err    error
}

// Err is what ended the reading, nil at the end of the input.
func (n *NDJSON) Err() error { return n.err }

// All merges readers by the time of what comes next in each (of a record its
// timestamp, else its event's time), keeping the order of each. Err says
// afterwards how it ended.
func (n *NDJSON) All(readers ...io.Reader) iter.Seq[Message] {
	if len(readers) == 1 {
		return n.one(readers[0])
	}
	return func(yield func(Message) bool) {
		type source struct {
			next func() (Message, bool)
			head Message
		}
		var sources []*source
		for _, r := range readers {
			next, stop := iter.Pull(n.one(r))
			defer stop()
			if m, ok := next(); ok {
				sources = append(sources, &source{next, m})
			}
		}
		for n.err == nil && len(sources) > 0 {
			first := 0
			for i, s := range sources {
				if s.head.At < sources[first].head.At {
					first = i
				}
			}
			s := sources[first]
			if !yield(s.head) {
				return
			}
			var ok bool
			if s.head, ok = s.next(); !ok {
				sources = slices.Delete(sources, first, first+1)
			}
		}
	}
}

// one reads one reader.
func (n *NDJSON) one(r io.Reader) iter.Seq[Message] {
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
			m, err := n.Message(text)
			if err != nil {
				n.err = fmt.Errorf("%sline %d: %w", name(r), number, err)
				return
			}
			m.At = min(m.At, now) // bad input may lie in the future
			if !yield(m) {
				return
			}
		}
		if err := lines.Err(); err != nil {
			n.err = fmt.Errorf("%sline %d: %w", name(r), number+1, err)
		}
	}
}

// name says which file it is, for errors.
func name(r io.Reader) string {
	if f, ok := r.(interface{ Name() string }); ok {
		return f.Name() + " "
	}
	return ""
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

// recordLine is any line that is not a CloudEvent alone.
type recordLine struct {
	Topic       string          `json:"topic"`
	Timestamp   int64           `json:"timestamp"` // Unix ms; 0: not said
	Key         string          `json:"key"`
	KeyBase64   []byte          `json:"key_base64"`
	Event       json.RawMessage `json:"event"`
	Headers     headers         `json:"headers"`
	Value       *string         `json:"value"`
	ValueBase64 []byte          `json:"value_base64"`
}

// headers are an object of texts, or a list of keys and values.
type headers []event.Header

func (h *headers) UnmarshalJSON(b []byte) error {
	if b[0] == '[' {
		var list []struct {
			Key    string
			Value  *string
			Base64 []byte `json:"value_base64"`
		}
		if err := json.Unmarshal(b, &list); err != nil {
			return err
		}
		*h = headers{}
		for _, x := range list {
			v := x.Base64
			if x.Value != nil {
				v = []byte(*x.Value)
			}
			*h = append(*h, event.Header{Key: x.Key, Value: v})
		}
		return nil
	}
	var object map[string]string
	if err := json.Unmarshal(b, &object); err != nil {
		return err
	}
	*h = headers{}
	for _, k := range slices.Sorted(maps.Keys(object)) {
		*h = append(*h, event.Header{Key: k, Value: []byte(object[k])})
	}
	return nil
}

func (h headers) text(key string) text {
	for _, x := range h {
		if x.Key == key {
			return text(x.Value)
		}
	}
	return ""
}

// Message reads one line.
func (n *NDJSON) Message(line []byte) (Message, error) {
	var l recordLine
	var a attributes
	if err := json.Unmarshal(line, &a); err != nil {
		return Message{}, err
	}
	if a.SpecVersion != "" {
		l.Event, l.Key = slices.Clone(line), string(a.Subject)
	} else {
		a = attributes{}
		if err := json.Unmarshal(line, &l); err != nil {
			return Message{}, err
		}
		switch structured := strings.HasPrefix(string(l.Headers.text("content-type")), "application/cloudevents+json"); {
		case l.Event != nil:
			if err := json.Unmarshal(l.Event, &a); err != nil {
				return Message{}, fmt.Errorf("event: %w", err)
			}
		case structured && l.Value != nil:
			_ = json.Unmarshal([]byte(*l.Value), &a) // what is broken goes where purchases go
		case l.Headers != nil || l.Timestamp != 0:
			a = attributes{Type: l.Headers.text("ce_type"), ID: l.Headers.text("ce_id"), Time: l.Headers.text("ce_time")}
		default:
			return Message{}, fmt.Errorf("neither a CloudEvent nor a record with an event or headers: %.60s", line)
		}
	}

	raw := &Raw{Key: []byte(l.Key), Value: l.ValueBase64, Headers: l.Headers}
	if l.KeyBase64 != nil {
		raw.Key = l.KeyBase64
	}
	if l.Event != nil {
		raw.Value = l.Event
		raw.Headers = []event.Header{{Key: "content-type", Value: []byte("application/cloudevents+json")}}
	} else if l.Value != nil {
		raw.Value = []byte(*l.Value)
	}
	m := Message{Raw: raw, Topic: topicOf(string(a.Type)), At: l.Timestamp}
	m.Event.ID, m.Event.Customer = string(a.ID), string(raw.Key)
	if at := slices.Index(n.Topics[:], l.Topic); at >= 0 && l.Topic != "" {
		m.Topic = Topic(at)
	}
	if t, err := time.Parse(time.RFC3339, string(a.Time)); err == nil && m.At == 0 {
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
