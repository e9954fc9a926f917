package customer

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/scoring"
)

// After any history one more event moves the measure in the direction that it
// promises, at the instant of the event and at any later one: a complaint that is
// opened and a cost never raise it, a converted referral never lowers it. Only a
// first acquisition cost may raise it, because it replaces the assumed one.
func TestEventsMoveTheMeasureTheRightWay(t *testing.T) {
	model := scoring.Default()
	rapid.Check(t, func(t *rapid.T) {
		f, r := lived(t)
		at := r.Facts.Newest
		if at == NoTime {
			at = start
		}
		acquired := r.Facts.Costs.AcquisitionKnown
		later := at + rapid.Int64Range(0, 800*day).Draw(t, "later")
		score := func(when int64) int64 {
			var s scoring.Summary
			f.Summarize(r, when, &s)
			return model.Measure(&s).Score
		}
		before, beforeLater := score(at), score(later)

		ev := event.Event{ID: "one more", Time: at, BusinessID: "new"}
		amount := func() {
			ev.HasAmount, ev.Currency = true, rapid.SampledFrom([]string{"EUR", "USD"}).Draw(t, "currency")
			ev.Amount = rapid.Int64Range(0, 50_000).Draw(t, "amount")
		}
		lowers := true
		switch rapid.IntRange(0, 2).Draw(t, "what") {
		case 0:
			ev.Type, ev.Status, ev.Severity = event.Complaint, event.Opened, uint8(rapid.IntRange(1, 5).Draw(t, "severity"))
			if rapid.Bool().Draw(t, "compensated") {
				amount()
			}
		case 1:
			ev.Type, ev.Kind = event.Cost, event.Kind(rapid.IntRange(int(event.Acquisition), int(event.Sales)).Draw(t, "kind"))
			amount()
			if ev.Kind == event.Acquisition && !acquired {
				return
			}
		case 2:
			ev.Type, ev.Status, ev.RefereeID, lowers = event.Referral, event.Converted, "friend", false
			if rapid.Bool().Draw(t, "valued") {
				amount()
			}
		}
		ev = sealed(ev)
		if res := f.Apply(r, &ev); res.Code != event.Applied {
			t.Fatalf("%+v: %v %s", ev, res.Code, res.Field)
		}
		for _, c := range [][2]int64{{before, score(at)}, {beforeLater, score(later)}} {
			if lowers && c[1] > c[0] || !lowers && c[1] < c[0] {
				t.Fatalf("%v %v moves the measure from %d to %d", ev.Type, ev.Kind, c[0], c[1])
			}
		}
	})
}

// Whatever happens but orders and returns, P(alive) and the purchases to come
// fall with time. A return may raise them: an order less is a smaller surprise
// that none has come since.
func TestForecastNeverRisesWithoutAnOrder(t *testing.T) {
	model := scoring.Default()
	rapid.Check(t, func(t *rapid.T) {
		f, r := lived(t)
		at := r.Facts.Newest
		if at == NoTime {
			return
		}
		alive, purchases := 2.0, 1e300
		for i := range rapid.IntRange(2, 6).Draw(t, "moments") {
			at += rapid.Int64Range(0, 200*day).Draw(t, "silence")
			ev := event.Event{ID: string(rune('a' + i)), BusinessID: string(rune('a' + i)), Time: at}
			switch rapid.IntRange(0, 3).Draw(t, "what") {
			case 0:
				ev.Type, ev.Status, ev.Severity = event.Complaint, event.Opened, 3
			case 1:
				ev.Type, ev.Kind, ev.Score, ev.ScaleMax = event.Feedback, event.NPS, 10, 10
			case 2:
				ev.Type, ev.Status, ev.RefereeID = event.Referral, event.Converted, "friend"
			case 3:
				ev.Type, ev.Kind, ev.HasAmount, ev.Amount, ev.Currency = event.Cost, event.Service, true, 100, "EUR"
			}
			ev = sealed(ev)
			f.Expire(r, at)
			if res := f.Apply(r, &ev); res.Code != event.Applied {
				t.Fatalf("%+v: %v %s", ev, res.Code, res.Field)
			}
			var s scoring.Summary
			f.Summarize(r, at, &s)
			v := model.Values(&s).Forecast
			if v.Alive > alive || v.Purchases > purchases {
				t.Fatalf("P(alive) %v to %v, purchases %v to %v without an order", alive, v.Alive, purchases, v.Purchases)
			}
			alive, purchases = v.Alive, v.Purchases
		}
	})
}

// lived is a customer after a random history, and what folds them.
func lived(t *rapid.T) (*Folder, *Record) {
	f, err := NewFolder(testPolicy(), utc{}, 365)
	if err != nil {
		t.Fatal(err)
	}
	r := NewRecord()
	for _, ev := range population(t) {
		f.Apply(&r, &ev)
	}
	return f, &r
}
