package customer

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/tierstream/tierstream/internal/scoring"
)

// measuredBy is the default model with another measure and one threshold.
func measuredBy(t *rapid.T, measure string, enter, leave float64) *scoring.Model {
	b, err := os.ReadFile("../scoring/default.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text, _, found := strings.Cut(string(b), "\ntiers:")
	if !found || !strings.Contains(text, "\nmeasure: contribution") {
		t.Fatal("the default model does not look as this test thinks")
	}
	text = strings.Replace(text, "\nmeasure: contribution", "\nmeasure: "+measure, 1)
	m, err := scoring.Parse(fmt.Appendf(nil, "%s\ntiers:\n  - {id: low, name: Low}\n  - {id: high, name: High, enter: %.4f, leave: %.4f}\n", text, enter, leave))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestNextMoveOfARecord: no evaluation before it gives another tier, midnights
// above all, and the lower bound is not above it.
func TestNextMoveOfARecord(t *testing.T) {
	var customers, moved int
	rapid.Check(t, func(t *rapid.T) {
		measure := rapid.SampledFrom([]string{"contribution", "rfm.weighted", "{contribution: 0.6, rfm.weighted: 0.4}", "{rfm.f: -1, rfm.m: 1, rfm.r: 1, satisfaction: 0.05}", "{retention: 0.1, rfm.r: -1}"}).Draw(t, "measure")
		m := measuredBy(t, measure, 2, 1)
		f, err := NewFolder(testPolicy(), m.Calendar(), m.WindowDays())
		if err != nil {
			t.Fatal(err)
		}
		r := NewRecord()
		for _, ev := range population(t) {
			f.Expire(&r, ev.Time)
			f.Apply(&r, &ev)
		}
		from := max(r.Facts.Newest, start) + rapid.Int64Range(0, 100*day).Draw(t, "from")
		until := from + 500*day
		var s scoring.Summary
		f.Summarize(&r, from, &s)
		now := float64(m.Measure(&s).Score) / 10_000
		leave := now - rapid.Float64Range(-0.01, 4).Draw(t, "leave")
		m = measuredBy(t, measure, leave+rapid.Float64Range(0.001, 6).Draw(t, "enter"), leave)
		decide := func(tier int, at int64) int {
			var s scoring.Summary
			f.Summarize(&r, at, &s)
			return m.Decide(tier, &s, m.Measure(&s).Score)
		}
		tier := decide(-1, from)
		if tier < 0 {
			return
		}
		at, to, ok := f.NextMove(&r, m, tier, from, until)
		customers++
		end := until
		if ok {
			moved++
			if got := decide(tier, at); got != to || to == tier || at <= from || at > until || at%1000 != 0 {
				t.Fatalf("from %d at %d to %d at %d, where it is %d", tier, from, to, at, got)
			}
			end = at
		}
		f.Summarize(&r, from, &s)
		score := m.Measure(&s).Score
		if due := f.MoveDue(&r, m, tier, &s, score, score, m.Values(&s).CLV.Predicted); due <= from || ok && due > at {
			t.Fatalf("due at %d, from %d, moves at %d", due, from, at)
		}
		before := func(x int64) {
			if x = x / 1000 * 1000; x > from && x < end {
				if got := decide(tier, x); got != tier {
					t.Fatalf("from %d at %d NextMove says %d (%v), but it is %d at %d already", tier, from, at, ok, got, x)
				}
			}
		}
		for midnight := from/day*day + day; midnight < end; midnight += day {
			before(midnight)
			before(midnight - 1000)
		}
		for i := range int64(5) {
			before(end - 1 - i*1000)
		}
	})
	t.Logf("%d customers, %d move", customers, moved)
	if moved*10 < customers {
		t.Error("too few move to test anything")
	}
}
