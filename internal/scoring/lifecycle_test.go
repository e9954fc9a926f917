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

func TestAnswersAndComplaints(t *testing.T) {
	m := Default()
	at := int64(testDay * msPerDay)
	s := Summary{
		At: at, Bought: true, Active: true, Orders: 4, ServiceCost: 1_000, Compensation: 502, ComplaintsCompacted: 1,
		NPS: Response{true, 9, 10}, CSAT: Response{true, 4, 5}, CES: Response{true, 4, 7},
		Complaints: []ComplaintState{
			{Opened: at - 10*msPerDay, Changed: at - 4*msPerDay, Severity: 2, Status: ComplaintResolved},
			{Opened: at - 3*msPerDay, Changed: at - 1*msPerDay, Severity: 2, Status: ComplaintResolved},
			{Opened: at - 9*msPerDay, Changed: at - 1*msPerDay, Severity: 1, Status: ComplaintOpen},
			{Opened: at - 2*msPerDay, Changed: at - 2*msPerDay, Severity: 1, Status: ComplaintOpen},
			{Opened: at - 90*msPerDay, Changed: at - 1*msPerDay, Severity: 5, Status: ComplaintRejected},
		},
	}
	x := m.Values(&s).Experience
	if *x.NPS != 9 || *x.CSAT != 75 || *x.CES != 50 || !*x.Loyal {
		t.Errorf("answers %d, %v, %v, loyal %v: want 9, 75, 50, true", *x.NPS, *x.CSAT, *x.CES, *x.Loyal)
	}
	if x.Complaints != 6 || x.RepeatComplaints != 5 || x.OpenComplaints != 2 || x.ComplaintRatio != 1.5 || x.PerComplaint != 250 {
		t.Errorf("complaints %+v", x)
	}
	approx(t, "oldest open complaint", x.OldestOpen, 9, 1e-12)
	approx(t, "mean time to resolution", x.Resolution, 4, 1e-12)
	s.NPS.Score = 8
	if loyal := m.Values(&s).Experience.Loyal; *loyal {
		t.Error("a passive would recommend")
	}
	if x := m.Values(&Summary{}).Experience; x.NPS != nil || x.CSAT != nil || x.CES != nil || x.Loyal != nil || x.RepeatComplaints != 0 {
		t.Errorf("nobody was asked: %+v", x)
	}
}
