package contract

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/tierstream/tierstream/internal/event"
)

// letterPrefix begins the names of all headers that a dead letter adds.
const letterPrefix = "tierstream-"

// DeadLetter is a refused record with the reason.
type DeadLetter struct {
	Code      string // of the bad-input table; a later version may have others
	Field     string // offending attribute or field, "" when it is the whole record
	Detail    string
	Topic     string // origin, as the next four
	Partition int32
	Offset    int64
	Timestamp time.Time
	Namespace string
	Engine    string

	// Original is the record as it came. What was too large to repeat is nil in
	// it and named in Omitted, with its length in bytes.
	Original event.Message
	Omitted  map[string]int64 // of value, headers and key
}

// Origin is where the record came from: "purchases/3@1020".
func (l *DeadLetter) Origin() string {
	return fmt.Sprintf("%s/%d@%d", l.Topic, l.Partition, l.Offset)
}

// ReadDeadLetter takes a dead letter apart. The message is that of the dead
// letters' topic; its headers from tierstream-code on are ours, those before
// it the original's, whatever their names are.
func ReadDeadLetter(m *event.Message) (*DeadLetter, error) {
	own := len(m.Headers)
	for i := len(m.Headers) - 1; i >= 0 && strings.HasPrefix(m.Headers[i].Key, letterPrefix); i-- {
		if own = i; m.Headers[i].Key == letterPrefix+"code" {
			break
		}
	}
	l := &DeadLetter{Original: event.Message{Key: m.Key, Value: m.Value, Headers: m.Headers[:own:own]}, Omitted: map[string]int64{}}
	number := func(s string, bits int) (n int64, err error) { return strconv.ParseInt(s, 10, bits) }
	for _, h := range m.Headers[own:] {
		name, v := strings.TrimPrefix(h.Key, letterPrefix), string(h.Value)
		var n int64
		var err error
		switch name {
		case "code":
			l.Code = v
		case "field":
			l.Field = v
		case "detail":
			l.Detail = v
		case "topic":
			l.Topic = v
		case "partition":
			n, err = number(v, 32)
			l.Partition = int32(n)
		case "offset":
			l.Offset, err = number(v, 64)
		case "timestamp":
			l.Original.Timestamp, err = number(v, 64)
			l.Timestamp = time.UnixMilli(l.Original.Timestamp).UTC()
		case "namespace":
			l.Namespace = v
		case "engine":
			l.Engine = v
		default:
			if what, ok := strings.CutSuffix(name, "-omitted"); ok {
				l.Omitted[what], err = number(v, 64)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("reading a dead letter: header %s: %w", h.Key, err)
		}
	}
	if l.Code == "" || l.Topic == "" {
		return nil, fmt.Errorf("reading a dead letter: it has no %scode and %stopic: is this the topic of the dead letters?", letterPrefix, letterPrefix)
	}
	return l, nil
}
