package customer

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/scoring"
)

// history makes in-order events of one customer: bursts and gaps of purchases,
// same-day and same-millisecond orders, and returns of recent orders.
func history(rng *rand.Rand, n, lag int) []event.Event {
	type open struct {
		order string
		left  int64
	}
	var events []event.Event
	var recent []open
	t := start
	for i := range n {
		switch rng.IntN(6) {
		case 0:
		case 1:
			t += rng.Int64N(10 * day)
		default:
			t += rng.Int64N(12 * hour)
		}
		if len(recent) > lag {
			recent = recent[len(recent)-lag:]
		}
		if len(recent) > 0 && rng.IntN(5) == 0 {
			k := rng.IntN(len(recent))
			back := recent[k].left
			if rng.IntN(2) == 0 {
				back = 1 + rng.Int64N(back)
			}
			events = append(events, giveBack(fmt.Sprint("e", i), fmt.Sprint("r", i), recent[k].order, t, back))
			if recent[k].left -= back; recent[k].left == 0 {
				recent = append(recent[:k], recent[k+1:]...)
			}
			continue
		}
		ev := purchase(fmt.Sprint("e", i), fmt.Sprint("o", i), t, 1+rng.Int64N(20_000))
		if rng.IntN(10) > 0 {
			ev.Category = fmt.Sprint("category ", rng.IntN(maxCategories))
		}
		if rng.IntN(2) == 0 {
			ev.HasMargin, ev.Margin = true, rng.Int64N(9_000)-1_000
		}
		recent = append(recent, open{ev.BusinessID, ev.Amount})
		events = append(events, sealed(ev))
	}
	return events
}

// Compaction of in-order events loses detail, never a total: after each of
// thousands of events the summary is that of the whole list.
func TestCompactionKeepsEveryTotal(t *testing.T) {
	for _, c := range []struct {
		maxEvents, window, n int
		retention            int64
	}{
		{128, 365, 2000, 400 * day}, // by number and by retention
		{8, 30, 500, 400 * day},     // far more than fits: buckets carry the windows
		{64, 400, 700, 20 * day},    // a retention shorter than the windows
	} {
		t.Run(fmt.Sprintf("%d events in detail", c.maxEvents), func(t *testing.T) {
			p := testPolicy()
			p.MaxEvents, p.Retention, p.Grace = c.maxEvents, millis(c.retention), 0
			f := newFolder(t, p, c.window)
			events := history(rand.New(rand.NewPCG(1, uint64(c.n))), c.n, c.maxEvents/4)
			r := NewRecord()
			var accepted []event.Event
			compacted := false
			for i := range events {
				ev := &events[i]
				res := f.Apply(&r, ev)
				if res.Code == event.Waiting { // its order has been compacted: it would be an orphan
					if got := f.Expire(&r, r.Due); len(got) != 1 {
						t.Fatalf("event %s: expired %v", ev.ID, got)
					}
					continue
				}
				if res.Code != event.Applied {
					t.Fatalf("event %s: %v %s", ev.ID, res.Code, res.Field)
				}
				accepted = append(accepted, *ev)
				if n := len(r.Append(nil)); n > MaxStored {
					t.Fatalf("event %s: the record has %d bytes", ev.ID, n)
				}
				compacted = compacted || r.Facts.Old.Orders > 0
				if i%307 != 0 && i < len(events)-1 {
					continue
				}
				for _, at := range []int64{ev.Time, ev.Time + day, ev.Time + 200*day, ev.Time + 500*day} {
					var got scoring.Summary
					f.Summarize(&r, at, &got)
					if d := diff(got, naive(accepted, p, c.window, at)); d != "" {
						t.Fatalf("after event %s at %d: %s", ev.ID, at, d)
					}
				}
			}
			if !compacted || len(accepted) < len(events)*9/10 {
				t.Errorf("compacted %v, accepted %d of %d: the test shows too little", compacted, len(accepted), len(events))
			}
		})
	}
}

// The cap holds for the worst that events can do: every number at its widest,
// every optional field present, more entries of every kind than are kept.
func TestNoRecordPassesTheCap(t *testing.T) {
	p := testPolicy()
	p.MaxAmount = maxAmount
	f := newFolder(t, p, maxWindowDays)
	const big = int64(1) << 40 // nine bytes, and far from the bound of sums
	for name, kinds := range map[string][]event.Type{
		"purchases":  {event.Purchase},
		"returns":    {event.Return},
		"complaints": {event.Complaint},
		"referrals":  {event.Referral},
		"all":        {event.Purchase, event.Purchase, event.Complaint, event.Referral, event.Return, event.Feedback, event.Cost},
		"in turn":    nil,
	} {
		for _, step := range []int64{1, 17 * hour} {
			r := NewRecord()
			r.Seq, r.Standing = 1<<63, Standing{-128, NoTime, 1 << 63, NoTime}
			most, orders := 0, int64(0)
			var buf []byte
			for i := int64(0); i < 650; i++ {
				id := fmt.Sprint(i)
				ev := event.Event{ID: id, BusinessID: id, Time: -start + i*step, Amount: big + i, HasAmount: true, Currency: "USD", FXRate: "1.5"}
				if kinds == nil {
					ev.Type = event.Type(1 + i/250%6)
				} else {
					ev.Type = kinds[i%int64(len(kinds))]
				}
				switch ev.Type {
				case event.Purchase:
					orders++
					ev.Category = "category " + id
					if orders%2 == 0 {
						ev.HasMargin, ev.Margin = true, -big
					}
				case event.Return:
					ev.OrderID = "unknown " + id
				case event.Complaint:
					ev.Status, ev.Severity = event.Opened, 5
				case event.Referral:
					ev.Status = event.Converted
				case event.Feedback:
					ev.Kind, ev.Score, ev.ScaleMax = event.Kind(1+i%5), -1<<31, 1<<31-1
				case event.Cost:
					ev.Kind = event.Kind(int64(event.Acquisition) + i%4)
				}
				ev = sealed(ev)
				switch res := f.Apply(&r, &ev); res.Code {
				case event.Applied, event.Waiting:
				default:
					t.Fatalf("%s: event %d: %v %s", name, i, res.Code, res.Field)
				}
				buf = r.Append(buf[:0])
				most = max(most, len(buf))
			}
			if most > MaxStored {
				t.Errorf("%s every %d ms: %d bytes", name, step, most)
			}
			var back Record
			if err := Decode(r.Append(nil), &back); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	// What no compaction removes: a bucket for every day of the longest window
	// and every category.
	if n := maxFixedBytes + maxCategories*maxCategoryBytes + maxWindowDays*(1+3+3*9); n > MaxStored {
		t.Errorf("what cannot be compacted may take %d bytes", n)
	}
	// And the promise: MaxEvents events, whatever they are, need no compaction.
	const perEvent = maxSeenBytes + max(maxOrderBytes, maxComplaintBytes, maxReferralBytes, maxSeenBytes+maxWaitingBytes)
	if n := maxFixedBytes + maxEvents*perEvent; n > MaxStored {
		t.Errorf("%d events may take %d bytes", maxEvents, n)
	}
}

// Compaction refuses what came too early for the detail that is left, and ends
// the wait of a return that it no longer holds.
func TestCompactionRaisesTheFloor(t *testing.T) {
	p := testPolicy()
	p.MaxEvents = 2
	f := newFolder(t, p, 365)
	r := NewRecord()
	wants(t, f, &r, giveBack("r1", "r1", "unknown", start, 5), event.Waiting, "")
	wants(t, f, &r, purchase("e1", "o1", start+day, 100), event.Applied, "")
	wants(t, f, &r, purchase("e2", "o2", start+2*day, 100), event.Applied, "")
	res := wants(t, f, &r, purchase("e3", "o3", start+3*day, 100), event.Applied, "")
	if len(res.Resolved) != 1 || res.Resolved[0] != (Resolution{businessKey(event.Return, "r1"), event.OrphanReturn, "order_id"}) {
		t.Errorf("resolved %+v", res.Resolved)
	}
	if r.Due != NeverDue || r.Facts.MinTime != start+day+1 || len(r.Facts.Orders) != 2 {
		t.Errorf("due %d, floor %d, %d orders", r.Due, r.Facts.MinTime, len(r.Facts.Orders))
	}
	wants(t, f, &r, purchase("e4", "o4", start+day, 100), event.TooLate, "time")
	wants(t, f, &r, purchase("e1", "o1", start+day, 100), event.TooLate, "time")
	// A later order on the last compacted day joins it.
	wants(t, f, &r, purchase("e5", "o5", start+day+1, 50), event.Applied, "")
	var s scoring.Summary
	f.Summarize(&r, start+3*day, &s)
	if s.Orders != 4 || s.Days != 3 || s.Net != 350 || s.WindowOrders != 4 || s.ValueDays != 2 || s.ValueSum != 200 {
		t.Errorf("summary %+v", s)
	}
}

// A compacted day keeps its bucket exactly as long as a window counts it.
func TestBucketsLastAsLongAsTheWindow(t *testing.T) {
	p := testPolicy()
	p.MaxEvents = 1
	f := newFolder(t, p, 365)
	r := NewRecord()
	for _, step := range []struct {
		days    int64
		buckets int
		window  int64
	}{{0, 0, 1}, {1, 1, 2}, {364, 2, 3}, {365, 2, 3}, {366, 2, 3}} {
		id := fmt.Sprint(step.days)
		wants(t, f, &r, purchase(id, id, start+step.days*day, 100), event.Applied, "")
		var s scoring.Summary
		f.Summarize(&r, start+step.days*day, &s)
		if len(r.Facts.Old.Buckets) != step.buckets || s.WindowOrders != step.window || s.YearNet != 100*step.window {
			t.Errorf("day %d: %d buckets, %d orders in the window, %d money in the year", step.days, len(r.Facts.Old.Buckets), s.WindowOrders, s.YearNet)
		}
	}
}
