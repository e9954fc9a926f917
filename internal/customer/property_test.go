package customer

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/tierstream/tierstream/internal/event"
	"github.com/tierstream/tierstream/internal/scoring"
)

// The promise of Facts, with MaxEvents exactly the number of events: any
// permutation and any duplication gives the same bytes, and the summary is
// what the definitions say of these events.
func TestFactsAreAFunctionOfTheSetOfEvents(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := population(t)
		policy := testPolicy()
		policy.MaxEvents = max(len(all), 1)
		window := rapid.SampledFrom([]int{30, 365, 400}).Draw(t, "window")
		f, err := NewFolder(policy, utc{}, window)
		if err != nil {
			t.Fatal(err)
		}
		fold := func(events []event.Event) *Record {
			r := NewRecord()
			applied := map[string]bool{}
			for i := range events {
				ev := &events[i]
				if expired := f.Expire(&r, ev.Time); expired != nil {
					t.Fatalf("%d returns expired within their grace", len(expired))
				}
				before := stored(&r)
				res := f.Apply(&r, ev)
				switch res.Code {
				case event.Applied, event.Waiting, event.BusinessDuplicate:
				case event.Duplicate:
					if !applied[ev.ID] || stored(&r) != before {
						t.Fatalf("event %s: duplicate at first sight, or with a trace", ev.ID)
					}
				default:
					t.Fatalf("event %s: %v %s", ev.ID, res.Code, res.Field)
				}
				for _, done := range res.Resolved {
					if done.Code != event.Applied {
						t.Fatalf("event %s: a waiting return ended as %v", ev.ID, done.Code)
					}
				}
				applied[ev.ID] = true
			}
			return &r
		}
		inOrder := fold(all)

		shuffled := slices.Clone(all)
		for range rapid.IntRange(0, len(all)).Draw(t, "duplicates") {
			shuffled = append(shuffled, all[rapid.IntRange(0, len(all)-1).Draw(t, "duplicate")])
		}
		shuffled = rapid.Permutation(shuffled).Draw(t, "order")
		r := fold(shuffled)
		if stored(r) != stored(inOrder) {
			t.Fatalf("another order gives other facts:\n%+v\n%+v", r.Facts, inOrder.Facts)
		}

		var got scoring.Summary
		for _, at := range []int64{start + 400*day, start + rapid.Int64Range(0, 800*day).Draw(t, "at")} {
			f.Summarize(r, at, &got)
			if d := diff(got, naive(all, policy, window, at)); d != "" {
				t.Fatalf("summary at %d: %s", at, d)
			}
		}

		var back Record
		if err := Decode([]byte(stored(r)), &back); err != nil {
			t.Fatal(err)
		}
		if stored(&back) != stored(r) {
			t.Fatal("decoding and encoding again gives other bytes")
		}
	})
}
