// Package sim makes believable customer traffic: a seeded generative model of
// people who arrive, buy, send back, complain, recommend and fall silent, and
// readers of the CDNOW and UCI files and of lines of JSON. It is pure: no I/O
// (but for reading those files), no clock, no goroutine. The same Config gives the same messages, byte for byte,
// on the same architecture (other architectures may round a sample differently
// in its last bit).
//
// Package produce, below this one, sends what this one makes.
package sim

import (
	"time"

	"github.com/tierstream/tierstream/internal/event"
)

// Topic is the class of topic a message belongs to. Each is written by another
// department, which is why events of one customer can overtake each other.
type Topic uint8

// The topics: the shop's, the service desk's and marketing's. The zero value is
// the shop's.
const (
	Purchases  Topic = iota // purchases, returns
	Complaints              // complaints, cancellations, feedback, service costs
	Referrals               // referrals, acquisition and marketing costs

	NumTopics int = iota
)

var topicNames = [NumTopics]string{"purchases", "complaints", "referrals"}

// String is the topic's default name.
func (t Topic) String() string { return topicNames[t] }

// Message is one record as the model wants it sent.
type Message struct {
	// Event is what is sent or, when Raw is set, the sound event that Raw was
	// made from (of a line of JSON: its ID and customer only). Its Content is
	// zero: that is the decoder's to fill in.
	Event event.Event

	// Raw holds bytes that no encoder would write, and those of a line of JSON;
	// nil for everything else.
	Raw *Raw

	Topic Topic

	// At is when the message reaches the log, Unix milliseconds.
	// It never goes back from one message to the next. It is the event's time,
	// but for purchases whose record is delayed and for bad times.
	At int64

	// Code is what a consumer must make of the message: Applied for a sound one,
	// else the code of the fault put into it. A purchase that reaches the log
	// after its time is tagged Late, which a consumer confirms only when it has
	// something newer of the customer; a cancellation that overtakes its order is
	// tagged Waiting.
	Code event.Code
}

// Raw is a record as it goes to the log. The model's are in binary mode with
// JSON data.
type Raw struct {
	Key     []byte
	Value   []byte
	Headers []event.Header
}

// Key is the record key: the customer, but for misrouted ones.
func (m *Message) Key() []byte {
	if m.Raw != nil {
		return m.Raw.Key
	}
	return []byte(m.Event.Customer)
}

const (
	day    = int64(24 * time.Hour / time.Millisecond)
	hour   = int64(time.Hour / time.Millisecond)
	minute = int64(time.Minute / time.Millisecond)
)
