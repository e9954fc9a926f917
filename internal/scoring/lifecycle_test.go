package scoring

import (
	"math/rand/v2"
	"testing"
)

func TestStages(t *testing.T) {
	m := Default() // new 90, lapsing 180, lapsed 365
	const today = testDay
	on := func(first, previous, last int32) Summary {
		return Summary{Bought: true, Active: true, Today: today, FirstDay: today - first, PreviousDay: today - previous, LastDay: today - last}
	}
	for name, c := range map[string]struct {
		s    Summary
		want string
	}{
		"nothing":                     {Summary{}, StageProspect},
		"all returned":                {Summary{Bought: true}, StageLapsed},
		"first order":                 {on(0, 0, 0), StageNew},
		"first order 90 days ago":     {on(90, 90, 90), StageNew},
		"first order 91 days ago":     {on(91, 91, 91), StageActive},
		"bought again":                {on(300, 100, 10), StageActive},
		"silent for 180 days":         {on(400, 300, 180), StageActive},
		"silent for 181 days":         {on(400, 300, 181), StageLapsing},
		"silent for 364 days":         {on(800, 600, 364), StageLapsing},
		"silent for 365 days":         {on(800, 600, 365), StageLapsed},
		"back after 365 days":         {on(800, 365, 0), StageReactivated},
		"back after 364 days":         {on(800, 364, 0), StageActive},
		"back, then silent again":     {on(900, 600, 200), StageLapsing},
		"back, and bought once again": {on(900, 30, 0), StageActive},
	} {
		if got := m.stage(&c.s); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
	}
}

func TestHealthIsTotal(t *testing.T) {
	m := Default()
	for _, stage := range []string{StageProspect, StageNew, StageActive, StageLapsing, StageLapsed, StageReactivated} {
		for _, alive := range []float64{0, 0.4999, 0.5, 1} {
			want := HealthValuable
			switch {
			case stage == StageProspect, stage == StageLapsed:
				want = HealthInactive
			case stage == StageLapsing, alive < 0.5:
				want = HealthAtRisk
			}
			if got := m.health(stage, alive); got != want {
				t.Errorf("%s with P(alive) %v is %s, want %s", stage, alive, got, want)
			}
		}
	}
}

// Who is alive buys with probability ½ until the median, by the model's own
// probability of an order.
func TestMedianOfTheNextOrder(t *testing.T) {
	m := Default()
	eachRandom(func(_ *rand.Rand, s Summary) {
		if !s.Active {
			return
		}
		var v figures
		m.evaluate(&s, &v)
		days := m.purchases.median(v.x, v.age)
		approx(t, "P(order until the median)", 1-m.purchases.rest(v.x, v.age, days, 1), 0.5, 1e-12)
		if f := m.Values(&s).Forecast; days <= longest && f.NextOrderDays != days || (f.NextOrderOn == "") != (days > longest) {
			t.Fatalf("next order in %v days, on %q; the median is %v", f.NextOrderDays, f.NextOrderOn, days)
		}
	})
}
