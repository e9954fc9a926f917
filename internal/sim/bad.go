package sim

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/tierstream/tierstream/internal/event"
)

// flaw is one way to be bad. Each makes a message out of a sound one that was
// just sent, so that what it repeats or contradicts is known to the consumer.
type flaw struct {
	code event.Code
	on   []event.Type // events it can be made from; nil for all

	// One of both: event changes an event that still has a form on the wire, raw
	// changes the bytes of one.
	event func(g *Generator, e *event.Event)
	raw   func(g *Generator, w *wire)

	// again leaves it to event which IDs of the sound message are kept; otherwise
	// the bad one has its own.
	again bool
}

// tooLate is how much older than a customer's newest event a too late one is:
// well beyond the 400 days that a consumer remembers.
const tooLate = 500 * day

var flaws = []flaw{
	// Told by the record alone.
	{code: event.Malformed, raw: func(g *Generator, w *wire) {
		switch g.rng.IntN(3) {
		case 0:
			w.value = w.value[:len(w.value)/2]
		case 1:
			w.value = []byte("<event/>")
		default:
			w.value = bytes.Replace(w.value, []byte(`_id":"`), []byte("_id\":\"\xff"), 1)
		}
	}},
	{code: event.UnknownType, raw: func(g *Generator, w *wire) {
		w.header("ce_type", "io.tierstream.subscription.v1")
	}},
	{code: event.UnsupportedVersion, raw: func(g *Generator, w *wire) {
		w.header("ce_type", strings.TrimSuffix(w.event.Type.URI(), ".v1")+".v9")
	}},
	{code: event.MissingField, raw: func(g *Generator, w *wire) {
		w.edit(func(data map[string]any) { delete(data, businessField[w.event.Type]) })
	}},
	{code: event.WrongType, raw: func(g *Generator, w *wire) {
		w.edit(func(data map[string]any) { data[businessField[w.event.Type]] = 4711 })
	}},
	{code: event.WrongType, on: []event.Type{event.Purchase, event.Return}, raw: func(g *Generator, w *wire) {
		w.edit(func(data map[string]any) { data["amount_minor"] = "4990" })
	}},
	{code: event.BadID, raw: func(g *Generator, w *wire) {
		switch g.rng.IntN(3) {
		case 0:
			w.header("ce_id", " "+w.event.ID+" ")
		case 1:
			w.header("ce_subject", "anonymous")
			w.key = []byte("anonymous")
		default:
			w.edit(func(data map[string]any) {
				data[businessField[w.event.Type]] = strings.Repeat("9", 129)
			})
		}
	}},
	{code: event.Misrouted, raw: func(g *Generator, w *wire) {
		w.key = append(w.key, "-other"...)
	}},
	{code: event.BadTime, raw: func(g *Generator, w *wire) {
		w.header("ce_time", pick(g, []string{"2025-01-01T12:00:00", "2025-01-01 12:00", "yesterday"}))
	}},
	{code: event.FutureTime, event: func(g *Generator, e *event.Event) {
		e.Time += 30 * 365 * day // beyond the time of sending whatever the start was
	}},
	{code: event.BadAmount, on: []event.Type{event.Purchase, event.Return}, raw: func(g *Generator, w *wire) {
		w.edit(func(data map[string]any) { data["amount_minor"] = json.Number("49.90") })
	}},
	{code: event.BadAmount, on: []event.Type{event.Return}, event: func(g *Generator, e *event.Event) {
		e.Amount = 0
	}},
	{code: event.NegativePurchase, on: []event.Type{event.Purchase}, event: func(g *Generator, e *event.Event) {
		withoutMargin(e)
		e.Amount = -e.Amount
	}},
	{code: event.ZeroPurchase, on: []event.Type{event.Purchase}, event: func(g *Generator, e *event.Event) {
		withoutMargin(e)
		e.Amount = 0
	}},
	{code: event.BadCurrency, on: []event.Type{event.Purchase, event.Return, event.Cost}, event: func(g *Generator, e *event.Event) {
		e.Currency = pick(g, []string{"EURO", "QQQ", "€"})
	}},
	{code: event.BadSeverity, on: []event.Type{event.Complaint}, event: func(g *Generator, e *event.Event) {
		e.Severity = pick(g, []uint8{0, 6, 9})
	}},
	{code: event.BadStatus, on: []event.Type{event.Complaint, event.Referral}, raw: func(g *Generator, w *wire) {
		w.edit(func(data map[string]any) { data["status"] = "escalated" })
	}},
	{code: event.BadScore, on: []event.Type{event.Feedback}, event: func(g *Generator, e *event.Event) {
		e.Kind, e.Score, e.ScaleMax = event.NPS, 42, 10
	}},
	{code: event.BadCost, on: []event.Type{event.Cost}, event: func(g *Generator, e *event.Event) {
		e.Amount = -e.Amount
	}},
	{code: event.SelfReferral, on: []event.Type{event.Referral}, event: func(g *Generator, e *event.Event) {
		e.RefereeID = e.Customer
	}},

	// Told by policy.
	{code: event.TestEvent, on: []event.Type{event.Purchase}, event: func(g *Generator, e *event.Event) {
		e.Test = true
	}},
	{code: event.Unpaid, on: []event.Type{event.Purchase}, event: func(g *Generator, e *event.Event) {
		e.Unpaid = true
	}},
	{code: event.NoRate, on: []event.Type{event.Purchase}, event: func(g *Generator, e *event.Event) {
		withoutMargin(e)
		e.Currency, e.FXRate, e.Base, e.HasBase = otherThan("JPY", "KRW", g.cfg.Currency), "", 0, false
	}},

	// Told by what the customer's record holds.
	{code: event.TooLate, event: func(g *Generator, e *event.Event) { e.Time -= tooLate }},
	{code: event.Duplicate, again: true, event: func(*Generator, *event.Event) {}},
	{code: event.IDConflict, again: true, event: func(g *Generator, e *event.Event) {
		e.BusinessID = g.id("y", &g.others)
	}},
	{code: event.BusinessDuplicate, again: true, on: []event.Type{event.Purchase, event.Return}, event: func(g *Generator, e *event.Event) {
		e.ID = g.id("e", &g.events)
	}},
	{code: event.BusinessConflict, again: true, on: []event.Type{event.Purchase}, event: func(g *Generator, e *event.Event) {
		e.ID = g.id("e", &g.events)
		e.Amount++
	}},
	{code: event.CurrencyChanged, again: true, on: []event.Type{event.Purchase}, event: func(g *Generator, e *event.Event) {
		g.returnAll(e)
		e.Currency = otherThan("SEK", "NOK", e.Currency)
	}},
	{code: event.OverReturn, again: true, on: []event.Type{event.Purchase}, event: func(g *Generator, e *event.Event) {
		g.returnAll(e)
		e.Amount++
	}},
	{code: event.OrphanReturn, again: true, on: []event.Type{event.Purchase}, event: func(g *Generator, e *event.Event) {
		g.returnAll(e)
		e.OrderID = g.id("y", &g.others)
	}},
	{code: event.UnusualTransition, on: []event.Type{event.Complaint}, event: func(g *Generator, e *event.Event) {
		e.Status = event.Resolved // of a complaint that was never opened
	}},
}

// businessField is where a type's own ID stands in its data.
var businessField = [...]string{
	event.Purchase:  "order_id",
	event.Return:    "return_id",
	event.Complaint: "complaint_id",
	event.Referral:  "referral_id",
	event.Feedback:  "response_id",
	event.Cost:      "cost_id",
}

// flawsOf lists, by type, the flaws an event of that type can be given.
var flawsOf = func() (of [event.Cost + 1][]*flaw) {
	for i := range flaws {
		f := &flaws[i]
		for t := event.Purchase; t <= event.Cost; t++ {
			fits := f.on == nil
			for _, on := range f.on {
				fits = fits || on == t
			}
			if fits {
				of[t] = append(of[t], f)
			}
		}
	}
	return of
}()

// Flaws lists the codes that bad messages are made for, each once.
func Flaws() []event.Code {
	var codes []event.Code
	var seen [event.NumCodes]bool
	for _, f := range flaws {
		if !seen[f.code] {
			seen[f.code] = true
			codes = append(codes, f.code)
		}
	}
	return codes
}

// spoil sends a bad message made from a sound one.
func (g *Generator) spoil(sound *Message) {
	f := pick(g, flawsOf[sound.Event.Type])
	m := *sound
	m.Code = f.code
	if !f.again {
		m.Event.ID = g.id("e", &g.events)
		m.Event.BusinessID = g.id("y", &g.others)
	}
	if f.event != nil {
		f.event(g, &m.Event)
	} else {
		w := newWire(&m.Event)
		f.raw(g, w)
		m.Raw = &Raw{Key: w.key, Value: w.value, Headers: w.headers}
	}
	g.out = append(g.out, m)
}

// returnAll makes of e, a copy of a purchase, the return of that whole order.
func (g *Generator) returnAll(e *event.Event) {
	*e = event.Event{
		Type:       event.Return,
		ID:         g.id("e", &g.events),
		Source:     e.Source,
		Customer:   e.Customer,
		Time:       e.Time,
		BusinessID: g.id("r", &g.others),
		OrderID:    e.BusinessID,
		Amount:     e.Amount,
		HasAmount:  true,
		Currency:   e.Currency,
		Kind:       event.Goods,
	}
}

func withoutMargin(e *event.Event) {
	e.Cost, e.HasCost, e.Margin, e.HasMargin = 0, false, 0, false
}

// otherThan is a, or b when a is the currency to avoid.
func otherThan(a, b, avoid string) string {
	if a == avoid {
		return b
	}
	return a
}

// wire is a record in binary mode with JSON data, to be damaged.
type wire struct {
	event   *event.Event
	key     []byte
	value   []byte
	headers []event.Header
}

// newWire panics when a sound event cannot be encoded: a mistake in this
// package.
func newWire(e *event.Event) *wire {
	value, headers, err := event.Encode(e, event.BinaryJSON)
	if err != nil {
		panic(fmt.Sprintf("sim: %v", err))
	}
	return &wire{event: e, key: []byte(e.Customer), value: value, headers: headers}
}

func (w *wire) header(name, value string) {
	for i := range w.headers {
		if w.headers[i].Key == name {
			w.headers[i].Value = []byte(value)
			return
		}
	}
	panic("sim: no header " + name)
}

func (w *wire) edit(change func(data map[string]any)) {
	d := json.NewDecoder(bytes.NewReader(w.value))
	d.UseNumber()
	var data map[string]any
	if err := d.Decode(&data); err != nil {
		panic(fmt.Sprintf("sim: reading own event: %v", err))
	}
	change(data)
	value, err := json.Marshal(data)
	if err != nil {
		panic(fmt.Sprintf("sim: writing own event: %v", err))
	}
	w.value = value
}
