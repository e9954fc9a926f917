package scoring

import (
	"fmt"
	"math/rand/v2"
	"testing"
)

// moves evaluates at an instant, from the facts as they are.
func moves(m *Model, tier int, s Summary, at int64) int {
	s.At = at
	s.Today, s.DayPart = m.calendar.Split(at)
	return m.Decide(tier, &s, m.Measure(&s).Score)
}

// eachStanding gives models and customers with the tier that they have; of
// measures that change at midnight, the part that does not.
func eachStanding(t *testing.T, r *rand.Rand, models, customers int, fn func(m *Model, s *Summary, tier int)) {
	t.Helper()
	for i := range models {
		m := anyModel(t, r)
		if i%4 == 0 { // another money, of which a purchase day may bring a loss
			m = edit(t, "measure: contribution", "measure: "+[]string{"{clv.predicted: 0.01, satisfaction: 1}", "{clv.predicted: -0.01, satisfaction: 1}"}[r.IntN(2)],
				"clv_basis: contribution", "clv_basis: "+[]string{"profit", "revenue"}[r.IntN(2)],
				"standard_service_cost_minor: 0", fmt.Sprintf("standard_service_cost_minor: %d", r.IntN(4000)))
		}
		if m.ByDay() {
			continue
		}
		for range customers {
			s := stretched(r)
			s.At = s.At/1000*1000 + r.Int64N(1000)
			s.Today, s.DayPart = m.calendar.Split(s.At)
			if score := m.Measure(&s).Score; r.IntN(2) == 0 { // thresholds near the score
				near := *m
				leave := score - int64(logUniform(r, 1, 50_000)) + 1
				near.tiers = []Tier{{}, {Leave: leave, Enter: max(leave+1, score-100) + int64(logUniform(r, 1, 50_000))}}
				fn(&near, &s, near.Decide(r.IntN(2), &s, score))
			} else {
				fn(m, &s, m.Decide(-1, &s, score))
			}
		}
	}
}

// TestNextMoveIsTheFirst: the tier moves in the second that NextMove says, and
// in none before: in no second next to it, and in none of many others.
func TestNextMoveIsTheFirst(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 7))
	const years = 12
	customers, moved, rose := 0, 0, 0
	eachStanding(t, r, 100, 30, func(m *Model, s *Summary, tier int) {
		until := s.At + years*365*msPerDay
		at, to, ok := m.NextMove(tier, s, until)
		customers++
		end := until
		if ok {
			moved++
			if to > tier {
				rose++
			}
			if at%1000 != 0 || at <= s.At || at > until || to == tier {
				t.Fatalf("%d to %d at %d, after %d", tier, to, at, s.At)
			}
			if got := moves(m, tier, *s, at); got != to {
				t.Fatalf("tier %d at %d: want %d", got, at, to)
			}
			end = at
		}
		before := func(x int64) {
			if x > s.At && x < end {
				if got := moves(m, tier, *s, x); got != tier {
					t.Fatalf("from tier %d at %d NextMove says %d (%v), but it is %d already at %d, %d s before\n%+v\n%s", tier, s.At, at, ok, got, x, (end-x)/1000, s, m.Canonical())
				}
			}
		}
		for i := range int64(20) {
			before((end/1000 - 1 - i) * 1000)
			before((s.At/1000 + 1 + i) * 1000)
		}
		for range 60 {
			before((s.At + r.Int64N(end-s.At)) / 1000 * 1000)
			before((end - int64(logUniform(r, 1000, float64(end-s.At)))) / 1000 * 1000)
		}
	})
	t.Logf("%d customers, %d move within %d years, %d of them up", customers, moved, years, rose)
	if moved < 200 || rose < 10 {
		t.Errorf("%d of %d customers move, %d up: too few to test anything", moved, customers, rose)
	}
}

// TestDueIsNoLaterThanTheMove, with the exact score and with what Keeps would
// know of it, and is not so early that it is of no use.
func TestDueIsNoLaterThanTheMove(t *testing.T) {
	r := rand.New(rand.NewPCG(8, 1))
	var n, never, neverMoves int
	var part float64
	eachStanding(t, r, 80, 40, func(m *Model, s *Summary, tier int) {
		var v figures
		m.evaluate(s, &v)
		score := m.Measure(s).Score
		at, _, ok := m.NextMove(tier, s, s.At+20*365*msPerDay)
		for _, slack := range []int64{0, 3, 3000} {
			due := m.Due(tier, s, score-slack, score+slack, v.predicted+slack)
			if ok && due > at {
				t.Fatalf("due %d ms after the move\ntier %d, score %d ± %d\n%+v\n%s", due-at, tier, score, slack, s, m.Canonical())
			}
			if due <= s.At {
				t.Fatalf("due at %d, evaluated at %d", due, s.At)
			}
			if slack == 0 {
				n++
				if !ok {
					neverMoves++
					if due == Never {
						never++
					}
				} else {
					part += float64(due-s.At) / float64(at-s.At)
				}
			}
		}
	})
	t.Logf("%d customers: of %d that do not move %d are never due; the others are due after %.0f %% of the time that they have", n, neverMoves, never, 100*part/float64(n-neverMoves))
}

func BenchmarkDue(b *testing.B) {
	m := Default()
	type standing struct {
		s                Summary
		tier             int
		score, predicted int64
		v                figures
	}
	var all []standing
	eachRandom(func(_ *rand.Rand, s Summary) {
		if !s.Active {
			return
		}
		var v figures
		m.evaluate(&s, &v)
		score := m.Measure(&s).Score
		all = append(all, standing{s, m.Decide(-1, &s, score), score, v.predicted, v})
	})
	b.Run("bound, beside an evaluation", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i = (i + 1) % len(all) {
			c := &all[i]
			m.due(c.tier, &c.s, &c.v, c.score, c.score, c.predicted)
		}
	})
	b.Run("bound", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i = (i + 1) % len(all) {
			c := &all[i]
			m.Due(c.tier, &c.s, c.score, c.score, c.predicted)
		}
	})
	b.Run("Measure", func(b *testing.B) {
		for i := 0; b.Loop(); i = (i + 1) % len(all) {
			m.Measure(&all[i].s)
		}
	})
	b.Run("exact", func(b *testing.B) {
		b.ReportAllocs()
		for i := 0; b.Loop(); i = (i + 1) % len(all) {
			c := &all[i]
			m.NextMove(c.tier, &c.s, c.s.At+10*365*msPerDay)
		}
	})
}
