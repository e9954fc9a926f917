package sim

import (
	"testing"

	"github.com/tierstream/tierstream/internal/event"
)

// byRecord is the codes that a record shows by itself. The others depend on
// policy or on what the customer's record holds: such a message decodes.
var byRecord = map[event.Code]bool{
	event.Malformed: true, event.UnknownType: true, event.UnsupportedVersion: true,
	event.MissingField: true, event.WrongType: true, event.BadID: true, event.Misrouted: true,
	event.BadTime: true, event.FutureTime: true, event.BadAmount: true,
	event.NegativePurchase: true, event.BadCurrency: true, event.BadSeverity: true,
	event.BadStatus: true, event.BadScore: true, event.BadCost: true, event.SelfReferral: true,
}

func TestDecoderAgreesWithEveryTag(t *testing.T) {
	c := small()
	c.BadRate = 0.5
	c.ForeignShare = 0.2
	d := event.NewDecoder(event.Limits{})
	sent := map[event.Code]int{}
	g := start(t, c)
	for i := range 15_000 {
		m, _ := g.Next()
		record := event.Message{Key: m.Key(), Timestamp: m.At}
		f := event.Formats[i%len(event.Formats)]
		if m.Raw != nil {
			record.Value, record.Headers = m.Raw.Value, m.Raw.Headers
		} else {
			var err error
			if record.Value, record.Headers, err = event.Encode(&m.Event, f); err != nil {
				t.Fatal(err)
			}
		}
		sent[m.Code]++

		var e event.Event
		refusal := d.Decode(&record, &e)
		if refusal == nil && !event.KeyMatches(&record, &e) {
			refusal = &event.Refusal{Code: event.Misrouted}
		}
		if byRecord[m.Code] {
			if refusal == nil || refusal.Code != m.Code {
				t.Fatalf("%s made from a %s: got %v\n%s %s %s", m.Code, m.Event.Type, refusal, record.Key, record.Headers, record.Value)
			}
			continue
		}
		if refusal != nil {
			t.Fatalf("%s, tagged %s, in %s: got %v\n%s", m.Event.Type, m.Code, f, refusal, record.Value)
		}
		e.Content = 0
		if e != m.Event {
			t.Fatalf("sent %+v\nread %+v", m.Event, e)
		}
	}
	for _, code := range append(Flaws(), event.Applied, event.Late, event.Waiting) {
		if sent[code] == 0 {
			t.Errorf("nothing bad by %s was made", code)
		}
	}
}

func TestFlawsCoverTheTable(t *testing.T) {
	made := map[event.Code]bool{
		event.Applied: true,
		event.Late:    true, // delayed purchases
		event.Waiting: true, // their cancellations
		event.Skipped: true, // of mapped topics only, see internal/mapping/mappingtest
	}
	for _, code := range Flaws() {
		made[code] = true
	}
	for code := event.Code(0); int(code) < event.NumCodes; code++ {
		if !made[code] {
			t.Errorf("no message is bad by %s", code)
		}
	}
}

// What repeats or contradicts must do so with something sent before.
func TestFlawsReferToWhatWasSent(t *testing.T) {
	c := small()
	c.BadRate = 0.5
	g := start(t, c)
	ids := map[string]event.Event{}
	orders := map[string]event.Event{}
	for range 15_000 {
		m, _ := g.Next()
		e := m.Event
		before, known := ids[e.ID]
		order := orders[e.OrderID]
		switch m.Code {
		case event.Applied, event.Late:
			if known {
				t.Fatalf("ID %s of a sound event comes twice", e.ID)
			}
			ids[e.ID] = e
			if e.Type == event.Purchase {
				orders[e.BusinessID] = e
			}
		case event.Duplicate:
			if before != e {
				t.Fatalf("duplicate %+v of %+v", e, before)
			}
		case event.IDConflict:
			if !known || before == e {
				t.Fatalf("conflict %+v with %+v", e, before)
			}
		case event.OverReturn:
			if e.Amount <= order.Amount || order.Amount == 0 || e.Currency != order.Currency {
				t.Fatalf("return %+v is not above %+v", e, order)
			}
		case event.CurrencyChanged:
			if order.Amount == 0 || e.Currency == order.Currency {
				t.Fatalf("return %+v is in the currency of %+v", e, order)
			}
		case event.OrphanReturn:
			if order.Amount != 0 {
				t.Fatalf("return %+v has an order", e)
			}
		case event.TooLate:
			if m.At-e.Time < 400*day {
				t.Fatalf("%+v is not too late", e)
			}
		}
	}
}
