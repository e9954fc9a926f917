package scoring

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

// logUniform is between lo and hi, evenly by its logarithm.
func logUniform(r *rand.Rand, lo, hi float64) float64 {
	return min(max(lo*math.Exp(r.Float64()*math.Log(hi/lo)), lo), hi)
}

// anyPurchases is a purchase model of all that validation allows, often with
// parameters as companies have them, and often with a = 1 or close to it.
func anyPurchases(r *rand.Rand) purchaseModel {
	p := purchaseModel{r: logUniform(r, 0.05, 5), alpha: logUniform(r, 1, 300), a: logUniform(r, 0.05, 20), b: logUniform(r, 0.1, 50)}
	if r.IntN(4) == 0 {
		p = purchaseModel{r: logUniform(r, 0.001, 10), alpha: logUniform(r, 0.1, 100_000), a: logUniform(r, 0.001, 500), b: logUniform(r, 0.001, 500)}
	}
	switch r.IntN(8) {
	case 0:
		p.a = 1
	case 1:
		p.a = 1 + (r.Float64()-0.5)*logUniform(r, 1e-12, 1e-2)
	}
	p.afterFirst = r.IntN(2) == 0
	return p
}

// The closed forms enclose what expected computes, but for its rounding, and
// come close to it where drop-out or the horizon matters little.
func TestExpectedPurchasesAreEnclosed(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 9))
	var below, above, n float64
	for n < 20_000 {
		p := anyPurchases(r)
		x, T, h := 0.0, logUniform(r, 0.01, 5001)-0.01, logUniform(r, 1, 3650)
		if r.IntN(4) == 0 {
			T = 0
		}
		if !computable(p.a, p.alpha, h) {
			continue
		}
		n++
		if r.IntN(3) > 0 {
			x = math.Floor(logUniform(r, 1, 10_001))
		}
		var out [1]float64
		p.expected(x, T, []float64{h}, out[:])
		low, high, undropped := p.atLeast(x, T, h), p.atMost(x, T, h), (p.r+x)*h/(p.alpha+T)
		rounding := 1e-14 * (p.a + p.b + x) / (p.r + x) * out[0]
		rounding += 1e-13 * out[0]
		if !(low <= out[0]+rounding && out[0] <= high+rounding && high <= undropped*(1+1e-13)) {
			t.Fatalf("%+v, x = %v, T = %v, t = %v: %v is not within %v to %v, at most %v", p, x, T, h, out[0], low, high, undropped)
		}
		below, above = below+low/out[0], above+high/out[0]
	}
	t.Logf("on average at least %.3f and at most %.3f of what is expected", below/n, above/n)
}

// anyModel is the default with other predictions, measures and tiers.
func anyModel(t *testing.T, r *rand.Rand) *Model {
	p, horizon := anyPurchases(r), 1+r.IntN(3650)
	for !computable(p.a, p.alpha, float64(horizon)) {
		p = anyPurchases(r)
	}
	predictor := "bg_nbd\n"
	if p.afterFirst {
		predictor = "mbg_nbd\n"
	}
	measure := []string{
		"contribution", "contribution", "contribution", "clv.total", "retention",
		"{contribution: 0.6, rfm.weighted: 0.4, clv.predicted: 0.0005}", "{contribution: 0.7, rfm.r: -1}", "{contribution: 1, clv.predicted: -0.001}",
	}[r.IntN(8)]
	value := func(key string, v float64) string { return fmt.Sprintf("%s: %v\n", key, v) }
	pairs := []string{
		"mbg_nbd\n", predictor, "  r: 0.525\n", "  " + value("r", p.r), "alpha_days: 43.28\n", value("alpha_days", p.alpha),
		"  a: 0.891\n", "  " + value("a", p.a), "  b: 1.614\n", "  " + value("b", p.b), "measure: contribution", "measure: " + measure,
		"horizon_days: 365", fmt.Sprintf("horizon_days: %d", horizon), "discount_periods: 4", fmt.Sprintf("discount_periods: %d", 1+r.IntN(maxPeriods)),
		"yearly_discount: 0.10\n  discount_periods", fmt.Sprintf("yearly_discount: %.2f\n  discount_periods", 2*r.Float64()*r.Float64()),
	}
	return edit(t, pairs...)
}

// stretched is a customer with any history: up to 10⁴ purchase days, up to 5000
// days old, and rarely with money at the ends of int64.
func stretched(r *rand.Rand) Summary {
	s := random(r)
	switch r.IntN(3) {
	case 0:
		s.Days = 1 + int64(logUniform(r, 1, 10_001))
		s.ValueDays, s.ValueSum = s.Days-1, (s.Days-1)*(100+r.Int64N(20_000))
		fallthrough
	case 1:
		age := r.Int32N(5001)
		s.FirstDay = s.Today - age
		s.LastDay = s.FirstDay + r.Int32N(age+1)
	}
	if r.IntN(50) == 0 {
		for _, money := range []*int64{&s.ValueSum, &s.Repeat.Known, &s.CAC, &s.ServiceCost, &s.ReferralValue} {
			if r.IntN(2) == 0 {
				*money = int64(r.Uint64()) >> r.IntN(20)
			}
		}
	}
	s.Bought = s.Active || r.IntN(2) == 0
	return s
}

// What is said to keep its tier keeps it by the exact measure.
func TestKeepsIsCertain(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 4))
	cases, kept, stayed := 0, 0, 0
	for range 160 {
		m := anyModel(t, r)
		for range 40 {
			s := stretched(r)
			score := m.Measure(&s).Score
			for tier := -1; tier <= len(m.tiers); tier++ {
				stays, keeps := m.Decide(tier, &s, score) == tier, m.Keeps(tier, &s)
				if keeps && !stays {
					t.Fatalf("tier %d is said to be kept at score %d, and becomes %d: %+v\n%s", tier, score, m.Decide(tier, &s, score), s, m.Canonical())
				}
				cases++
				if stays {
					stayed++
				}
				if keeps {
					kept++
				}
			}
		}
	}
	t.Logf("%d cases, %d stay, of which %d are certain", cases, stayed, kept)
	if kept*10 < stayed*4 {
		t.Errorf("certain in %d of %d cases that stay: want two fifths", kept, stayed)
	}
}

// Thresholds moved next to the score, on either side, are where a bound that is
// too tight would show.
func TestKeepsIsCertainNextToThresholds(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	for range 60 {
		m := *anyModel(t, r)
		for range 40 {
			s := stretched(r)
			score := m.Measure(&s).Score
			for _, d := range []int64{-3, -1, 0, 1, 3} {
				m.tiers = []Tier{{}, {Leave: score + d - 1, Enter: score + d}}
				for tier := range 2 {
					if got := m.Decide(tier, &s, score); got != tier && m.Keeps(tier, &s) {
						t.Fatalf("tier %d is said to be kept at score %d, %d from its threshold: %+v\n%s", tier, score, d, s, m.Canonical())
					}
				}
			}
		}
	}
}

// The share of evaluations that it spares: customers whose tier was decided
// some days ago, and who have bought since or not.
func TestKeepsSparesMostEvaluations(t *testing.T) {
	for name, m := range map[string]*Model{
		"mbg_nbd": Default(), "bg_nbd": edit(t, "mbg_nbd\n", "bg_nbd\n"), "a=1": edit(t, "a: 0.891", "a: 1"), "a=2": edit(t, "a: 0.891", "a: 2"),
		"weighted": edit(t, "measure: contribution", "measure: {contribution: 0.6, rfm.weighted: 0.4}"),
	} {
		var kept, stayed [4]int
		var keptAll, stayedAll int
		eachRandom(func(r *rand.Rand, s Summary) {
			if !s.Active {
				return
			}
			tier := m.Decide(-1, &s, m.Measure(&s).Score)
			later := r.Int32N(20)
			s.Today, s.At = s.Today+later, s.At+int64(later)*msPerDay
			if r.IntN(2) == 0 {
				s.LastDay, s.Days, s.Orders = s.Today, s.Days+1, s.Orders+1
				s.Repeat.Assumed, s.ValueDays, s.ValueSum = s.Repeat.Assumed+5000, s.ValueDays+1, s.ValueSum+5000
			}
			if m.Decide(tier, &s, m.Measure(&s).Score) != tier {
				return
			}
			stayed[tier]++
			stayedAll++
			if m.Keeps(tier, &s) {
				kept[tier]++
				keptAll++
			}
		})
		t.Logf("%s: certain in %.1f %% of %d that stay; by tier %v of %v", name, 100*float64(keptAll)/float64(stayedAll), stayedAll, kept, stayed)
		if keptAll*10 < stayedAll*4 {
			t.Errorf("%s: certain in %d of %d that stay: want two fifths", name, keptAll, stayedAll)
		}
	}
}

func TestKeepsWithoutScore(t *testing.T) {
	m := Default()
	bought := sample()
	bought.Active = false
	on := sample()
	for _, c := range []struct {
		s    *Summary
		tier int
		want bool
	}{
		{&Summary{}, -1, true}, {&Summary{}, 0, true}, {&Summary{}, 2, false}, {&bought, -1, false}, {&bought, 0, true}, {&bought, 2, false},
		{&on, -1, false}, {&on, 4, false}, {&on, 3, true}, {&on, 0, false},
	} {
		if got := m.Keeps(c.tier, c.s); got != c.want {
			t.Errorf("Keeps(%d), bought %v, active %v = %v, want %v", c.tier, c.s.Bought, c.s.Active, got, c.want)
		}
	}
	// The thresholds are such that the tier would be certain if the weight were 0.
	for measure, want := range map[string]bool{
		"{retention: 1, clv.predicted: 0}": true, "{retention: 1, clv.predicted: -0.0001}": false, "{clv.historic: -1, clv.predicted: 0.0001}": true,
		"{retention: 1, clv.total: -0.0001}": false, "{retention: 1, contribution: -0.0001}": false,
	} {
		m := *edit(t, "measure: contribution", "measure: "+measure)
		m.tiers = []Tier{{}, {Enter: math.MaxInt64, Leave: math.MaxInt64 - 1}}
		if got := m.Keeps(0, &on); got != want {
			t.Errorf("Keeps by %s = %v, want %v", measure, got, want)
		}
	}
}

func TestKeepsAllocatesNothing(t *testing.T) {
	s := sample()
	for _, m := range []*Model{Default(), edit(t, "measure: contribution", "measure: {contribution: 0.5, rfm.weighted: 0.3}")} {
		if n := testing.AllocsPerRun(100, func() { m.Keeps(1, &s) }); n != 0 {
			t.Errorf("Keeps allocates %v times", n)
		}
	}
}

// A mixed population, by Measure and by Keeps; Measure follows where Keeps is
// not certain.
func BenchmarkEvaluation(b *testing.B) {
	m := Default()
	var customers []Summary
	var tiers []int
	eachRandom(func(_ *rand.Rand, s Summary) {
		if s.Active {
			customers, tiers = append(customers, s), append(tiers, m.Decide(-1, &s, m.Measure(&s).Score))
		}
	})
	run := func(name string, evaluate func(tier int, s *Summary)) {
		b.Run(name, func(b *testing.B) {
			for i := 0; b.Loop(); i = (i + 1) % len(customers) {
				evaluate(tiers[i], &customers[i])
			}
		})
	}
	run("Measure", func(_ int, s *Summary) { m.Measure(s) })
	run("Keeps", func(tier int, s *Summary) { m.Keeps(tier, s) })
	run("KeepsElseMeasure", func(tier int, s *Summary) {
		if !m.Keeps(tier, s) {
			m.Measure(s)
		}
	})
}

// BenchmarkKeeps against BenchmarkMeasure, with the same customers.
func BenchmarkKeeps(b *testing.B) {
	m := Default()
	for _, age := range []int32{0, 30, 330} {
		s := sample()
		s.FirstDay = s.Today - age
		if s.LastDay < s.FirstDay {
			s.LastDay, s.Days, s.ValueDays, s.ValueSum = s.FirstDay, 1, 0, 0
		}
		tier := m.Decide(-1, &s, m.Measure(&s).Score)
		b.Run(fmt.Sprintf("age=%d", age), func(b *testing.B) {
			b.ReportAllocs()
			kept := 0.0
			for b.Loop() {
				if m.Keeps(tier, &s) {
					kept = 1
				}
			}
			b.ReportMetric(kept, "certain")
		})
	}
}
