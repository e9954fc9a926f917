package scoring

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

const testDay = 20_500

// sample is an ordinary customer: 6 orders on 5 days over 300 days.
func sample() Summary {
	return Summary{
		At: testDay*msPerDay + msPerDay/2, Today: testDay, DayPart: 0.5,
		Bought: true, Active: true, FirstDay: testDay - 330, LastDay: testDay - 30, Days: 5,
		Orders: 6, Net: 31_000, WindowOrders: 6, WindowNet: 31_000, YearOrders: 6, YearNet: 31_000,
		First: Margins{Assumed: 5_000}, Cross: Margins{Known: 1_800}, Repeat: Margins{Known: 1_200, Assumed: 16_001},
		Year: Margins{Known: 3_000, Assumed: 21_001}, ValueDays: 4, ValueSum: 26_000,
		CAC: 900, CACKnown: true, ServiceCost: 150, SellingCost: 120,
		ReferralsUnvalued: 1, ReferralsConverted: 1,
		Complaints: []ComplaintState{{Opened: (testDay - 90) * msPerDay, Severity: 3, Status: ComplaintResolved}},
		NPS:        Response{Known: true, Score: 9, ScaleMax: 10},
	}
}

// random is any customer, from one-time buyers to daily ones, some without
// costs, surveys or complaints.
func random(r *rand.Rand) Summary {
	coin := func() bool { return r.Uint32()&1 == 0 }
	age := r.Int32N(1 + 1500>>r.Int32N(8))
	days := 1 + r.Int64N(1+int64(age)>>r.Int32N(8))
	order := 100 + r.Int64N(20_000)
	s := Summary{
		At: testDay*msPerDay + r.Int64N(msPerDay), Today: testDay,
		Bought: true, Active: r.Int32N(20) > 0, FirstDay: testDay - age, LastDay: testDay - age, Days: days,
		Orders: days + r.Int64N(3), ServiceCost: r.Int64N(2000), SellingCost: r.Int64N(1000),
		Praises: r.Int64N(3), Returns: r.Int64N(2),
	}
	s.DayPart = float64(s.At%msPerDay) / msPerDay
	if days > 1 {
		s.LastDay += int32(days-1) + r.Int32N(age-int32(days-1)+1)
	}
	s.Net = s.Orders * order
	s.YearOrders = min(s.Orders, 1+r.Int64N(s.Orders))
	s.YearNet = s.YearOrders * order
	s.WindowOrders, s.WindowNet = s.YearOrders, s.YearNet
	s.First, s.Year = Margins{Assumed: order}, Margins{Assumed: s.YearNet}
	s.Repeat = Margins{Known: (s.Net - order) / 10, Assumed: (s.Net - order) / 2}
	s.ValueDays, s.ValueSum = days-1, (days-1)*order
	if s.CACKnown = coin(); s.CACKnown {
		s.CAC = r.Int64N(5000)
	}
	if coin() {
		s.NPS = Response{true, r.Int32N(11), 10}
	}
	if coin() {
		s.CSAT = Response{true, 1 + r.Int32N(5), 5}
	}
	if coin() {
		s.CES = Response{true, 1 + r.Int32N(7), 7}
	}
	for range r.Int32N(4) {
		s.Complaints = append(s.Complaints, ComplaintState{Opened: s.At - r.Int64N(400*msPerDay), Severity: uint8(1 + r.Int32N(5)), Status: ComplaintStatus(r.Int32N(3))})
	}
	if coin() {
		s.ReferralsConverted = r.Int64N(4)
		s.ReferralsUnvalued = s.ReferralsConverted
	}
	return s
}

// eachRandom calls f with 5,000 random customers.
func eachRandom(f func(r *rand.Rand, s Summary)) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 5_000 {
		f(r, random(r))
	}
}

func TestWorkedFigures(t *testing.T) {
	// Orders of 100.00, 5 a year, 3 years, CAC 200.00.
	m := Default()
	s := Summary{Bought: true, Active: true, Orders: 5, Net: 500_00, YearOrders: 5, YearNet: 500_00, CAC: 200_00, CACKnown: true, Days: 5}
	if got := m.Values(&s).CLV.Simple; got != 1300_00 {
		t.Errorf("clv.simple = %d, want 130000", got)
	}

	// P0 5000, C0 3000, R 2000, r 5.78 %, N 5, s 1.
	m = edit(t, "expected_years: 3", "expected_years: 5", "yearly_retention: 0.75", "yearly_retention: 1", "yearly_discount: 0.10", "yearly_discount: 0.0578")
	s = Summary{Bought: true, Active: true, First: Margins{Known: 5000_00}, CAC: 3000_00, CACKnown: true, Year: Margins{Known: 2000_00}, Days: 1}
	if got := m.Values(&s).CLV.NPV; got != 10_475_39 {
		t.Errorf("clv.npv = %d, want 1047539", got)
	}

	// Parts 80, 60, 90, 70 make 75.
	parts := []Part{{Value: 80 * unit, Weight: 4000}, {Value: 60 * unit, Weight: 3000}, {Value: 90 * unit, Weight: 2000}, {Value: 70 * unit, Weight: 1000}}
	if got := weighted(parts); got != 75*unit {
		t.Errorf("contribution = %d, want 750000", got)
	}

	// 3000 + 2000 + 1500 + 200 + 500 + 4200 − 900 − 100 − 1000 = 9400, all but
	// CLV6, which is what the model says.
	m = edit(t, "standard_service_cost_minor: 0", "standard_service_cost_minor: 300")
	s = Summary{Bought: true, Active: true, Orders: 3, Days: 1, First: Margins{Known: 3000}, Repeat: Margins{Known: 2000}, Cross: Margins{Known: 1500},
		ServiceCost: 700, ReferralValue: 500, SellingCost: 100, CAC: 1000, CACKnown: true}
	v := m.Values(&s).CLV
	if v.ServiceSaving != 200 || v.StandardService != 900 || v.Total-v.Predicted != 9400-4200 {
		t.Errorf("components %+v do not make 9400 − 4200 without CLV6", v)
	}
}

func TestPublishedFigures(t *testing.T) {
	// CDNOW, in weeks: P(alive) of a one-time buyer under MBG/NBD, and the ages
	// at which P(alive) of x = 7, t_x = 29.43 under BG/NBD crosses three bands.
	mbg := purchaseModel{r: .525, alpha: 6.183, a: .891, b: 1.614, afterFirst: true}
	approx(t, "P(alive) of a one-time buyer", mbg.alive(0, 0, 0), 0.644, 1e-3)
	bg := Model{purchases: purchaseModel{r: .243, alpha: 4.414, a: .793, b: 2.426}}
	for p, want := range map[float64]float64{0.9: 30.2148, 0.5: 42.4872, 0.2: 52.3806} {
		age := bg.AliveUntil(7, 29.43, p)
		approx(t, "age at crossing", age, want, 2e-6)
		approx(t, "P(alive) there", bg.purchases.alive(7, 29.43, age), p, 1e-12)
	}
	// Increasing frequency paradox, BTYD walkthrough: T 39, t_x 20, next 52 weeks.
	for x, want := range map[float64]float64{10: .347, 15: .043, 20: .0042, 25: .00036} {
		var out [1]float64
		bg.purchases.expected(x, 39, []float64{52}, out[:])
		approx(t, fmt.Sprintf("CET of x = %v", x), out[0]*bg.purchases.alive(x, 20, 39), want, 0.02)
	}
	if got := bg.AliveUntil(0, 0, 0.5); !math.IsInf(got, 1) {
		t.Errorf("a one-time buyer under BG/NBD dies at %v", got)
	}
	// Gamma-Gamma of CDNOW: population mean p·v/(q−1).
	gg := spendModel{6.25, 3.74, 15.44}
	approx(t, "mean value", gg.mean(), 35.218978, 1e-7)
	approx(t, "expected value without a sample", gg.expected(0, 0), gg.mean(), 1e-15)
	approx(t, "typical order", Default().spend.mean(), 5000, 1e-15)
}

func TestExtremesAreFinite(t *testing.T) {
	models := []*Model{Default(), edit(t, "a: 0.891", "a: 1"), edit(t, "mbg_nbd\n", "bg_nbd\n"), edit(t, "alpha_days: 43.28", "alpha_days: 0.1"), edit(t, "r: 0.525", "r: 10", "b: 1.614", "b: 0.001")}
	for i, m := range models {
		for _, days := range []int64{1, 2, 30, 1000, 100_000} {
			for _, span := range []int32{0, int32(days - 1), int32(days) + 100} {
				for _, since := range []int32{0, 1, 400, 100_000} {
					s := Summary{Bought: true, Active: true, Today: 300_000, FirstDay: 300_000 - since - span, LastDay: 300_000 - since, Days: days, Orders: days}
					var v figures
					m.evaluate(&s, &v)
					for name, x := range map[string]float64{"P(alive)": v.alive, "expected purchases": v.purchases, "value": v.value} {
						if math.IsNaN(x) || math.IsInf(x, 0) || x < 0 || name == "P(alive)" && x > 1 {
							t.Errorf("model %d, x = %d, t_x = %d, T = %d: %s = %v", i, days-1, span, span+since, name, x)
						}
					}
				}
			}
		}
	}
}

// With no event P(alive) and the expected purchases fall strictly as T grows,
// and with them clv.predicted never rises.
func TestForecastFallsWithAge(t *testing.T) {
	for _, predictor := range []string{"mbg_nbd\n", "bg_nbd\n"} {
		m := edit(t, "mbg_nbd\n", predictor)
		eachRandom(func(r *rand.Rand, s Summary) {
			if !s.Active || s.Days < 2 {
				return
			}
			var now, later figures
			m.evaluate(&s, &now)
			s.Today += 1 + r.Int32N(60)
			m.evaluate(&s, &later)
			if later.predicted > now.predicted || now.alive > 1e-300 && (later.alive >= now.alive || later.purchases >= now.purchases) {
				t.Fatalf("%s rises with age: P(alive) %v to %v, purchases %v to %v, predicted %d to %d: %+v",
					predictor, now.alive, later.alive, now.purchases, later.purchases, now.predicted, later.predicted, s)
			}
		})
	}
}

func TestComplaintsAndCostsNeverRaise(t *testing.T) {
	m := Default()
	eachRandom(func(r *rand.Rand, s Summary) {
		before := m.Measure(&s).Score
		worse := map[string]func(*Summary){
			"complaint": func(s *Summary) {
				s.Complaints = append(slices.Clone(s.Complaints), ComplaintState{Opened: s.At, Severity: uint8(1 + r.Int32N(5)), Status: ComplaintOpen})
			},
			"service":      func(s *Summary) { s.ServiceCost += r.Int64N(5000) },
			"selling":      func(s *Summary) { s.SellingCost += r.Int64N(5000) },
			"compensation": func(s *Summary) { s.Compensation += r.Int64N(5000) },
			"acquisition": func(s *Summary) {
				if s.CACKnown { // the first one replaces the assumed cost
					s.CAC += r.Int64N(5000)
				}
			},
		}
		for what, change := range worse {
			changed := s
			change(&changed)
			if after := m.Measure(&changed).Score; after > before {
				t.Fatalf("%s raises the measure from %d to %d: %+v", what, before, after, s)
			}
		}
	})
}

func TestReferralsNeverLower(t *testing.T) {
	m := Default()
	eachRandom(func(r *rand.Rand, s Summary) {
		before := m.Measure(&s).Score
		s.ReferralsConverted++
		if r.Uint32()&1 == 0 {
			s.ReferralsUnvalued++
		} else {
			s.ReferralValue += r.Int64N(5000)
		}
		if after := m.Measure(&s).Score; after < before {
			t.Fatalf("a referral lowers the measure from %d to %d: %+v", before, after, s)
		}
	})
}

func TestComponentsExplainTheTotal(t *testing.T) {
	m := edit(t, "standard_service_cost_minor: 0", "standard_service_cost_minor: 250")
	eachRandom(func(_ *rand.Rand, s Summary) {
		v := m.Values(&s)
		c := v.CLV
		if c.Total != c.Historic+c.Referrals+c.Predicted ||
			c.Total != c.First+c.Repeat+c.CrossSell+c.ServiceSaving+c.Referrals+c.Predicted-c.StandardService-c.Selling-c.CAC {
			t.Fatalf("components do not add up: %+v", c)
		}
		measure := m.Measure(&s)
		if got := float64(measure.Score) / unit; got != v.Score || got < 0 || got > 100 {
			t.Fatalf("score %v, in values %v: want the same, 0 to 100", got, v.Score)
		}
	})
}

func TestRFMScores(t *testing.T) {
	m := Default()
	for _, c := range []struct {
		days    int32
		orders  int64
		net     int64
		r, f, m int
	}{
		{0, 1, 4_999, 5, 1, 1}, {30, 1, 5_000, 5, 1, 2}, {31, 2, 9_999, 4, 2, 2}, {60, 3, 10_000, 4, 3, 3}, {61, 4, 19_999, 3, 3, 3},
		{90, 5, 20_000, 3, 4, 4}, {91, 8, 39_999, 2, 4, 4}, {180, 9, 40_000, 2, 5, 5}, {181, 0, 0, 1, 1, 1},
	} {
		s := Summary{Bought: true, Active: true, Today: testDay, LastDay: testDay - c.days, WindowOrders: c.orders, WindowNet: c.net}
		got := m.rfm(&s)
		if got.r != c.r || got.f != c.f || got.m != c.m {
			t.Errorf("R %d days, F %d, M %d scores %d%d%d, want %d%d%d", c.days, c.orders, c.net, got.r, got.f, got.m, c.r, c.f, c.m)
		}
		if want := int64(math.RoundToEven(float64(c.r+c.f+c.m-3) / 12 * 100 * unit)); got.weighted != want {
			t.Errorf("rfm.weighted of %d%d%d = %d, want %d", c.r, c.f, c.m, got.weighted, want)
		}
	}
}

func TestValueClassIsTotal(t *testing.T) {
	m := Default() // V* is 6000
	for _, c := range []struct {
		value int64
		alive float64
		want  string
	}{
		{6000, 0.5, ClassGolden}, {6000, 0.4999, ClassMeteor}, {5999, 0.5, ClassBrook}, {0, 1, ClassBrook},
		{5999, 0.4999, ClassBurden}, {-1, 1, ClassBurden}, {-1, 0, ClassBurden}, {0, 0, ClassBurden},
	} {
		if got := m.class(c.value, c.alive); got != c.want {
			t.Errorf("class(%d, %v) = %s, want %s", c.value, c.alive, got, c.want)
		}
	}
}

func TestSatisfaction(t *testing.T) {
	m := Default()
	half := int64(90 * msPerDay)
	at := sample().At
	for name, c := range map[string]struct {
		s    Summary
		want float64
	}{
		"neutral":             {Summary{}, 80},
		"nps 9":               {Summary{NPS: Response{true, 9, 10}}, 90},
		"csat 1 of 5":         {Summary{CSAT: Response{true, 1, 5}}, 0},
		"csat 5, ces 4":       {Summary{CSAT: Response{true, 5, 5}, CES: Response{true, 4, 7}}, 75},
		"open, severity 5":    {Summary{At: at, Complaints: []ComplaintState{{Opened: at, Severity: 5, Status: ComplaintOpen}}}, 40},
		"half faded":          {Summary{At: at, Complaints: []ComplaintState{{Opened: at - half, Severity: 5, Status: ComplaintOpen}}}, 60},
		"resolved":            {Summary{At: at, Complaints: []ComplaintState{{Opened: at, Severity: 5, Status: ComplaintResolved}}}, 64},
		"rejected":            {Summary{At: at, Complaints: []ComplaintState{{Opened: at, Severity: 5, Status: ComplaintRejected}}}, 80},
		"opened in future":    {Summary{At: at, Complaints: []ComplaintState{{Opened: at + half, Severity: 1, Status: ComplaintOpen}}}, 78},
		"never below nothing": {Summary{At: at, Complaints: []ComplaintState{{Opened: at, Severity: 5, Status: ComplaintOpen}, {Opened: at, Severity: 5, Status: ComplaintOpen}, {Opened: at, Severity: 5, Status: ComplaintOpen}}}, 0},
	} {
		var v figures
		m.satisfy(&c.s, &v)
		if v.satisfaction != int64(c.want*unit) {
			t.Errorf("%s: satisfaction %d, want %v", name, v.satisfaction, c.want)
		}
	}
}

func TestUnknownPartsTakeNeutralValues(t *testing.T) {
	m := Default()
	s := Summary{Bought: true, Active: true, Today: testDay, FirstDay: testDay, LastDay: testDay, Days: 1, Orders: 1, Net: 5000, First: Margins{Assumed: 5000}}
	p := m.Measure(&s).Parts
	if p[1].Known || p[2].Known || !p[0].Known || !p[3].Known {
		t.Errorf("known flags of %+v: want only clv and retention", p[:4])
	}
	if p[2].Value != 80*unit {
		t.Errorf("satisfaction %d, want 80", p[2].Value)
	}
	s.CACKnown, s.CAC = true, m.defaultCAC
	if known := m.Measure(&s).Parts[1]; known.Value != p[1].Value || !known.Known {
		t.Errorf("CAC part with the default cost recorded is %+v, with none %+v", known, p[1])
	}
	s.CAC = 0
	if got := m.Measure(&s).Parts[1].Value; got != 100*unit {
		t.Errorf("CAC part without cost is %d, want 100", got)
	}
}

func TestDecide(t *testing.T) {
	m := Default()
	on := &Summary{Bought: true, Active: true}
	for _, c := range []struct {
		s     *Summary
		prev  int
		score float64
		want  int
	}{
		{&Summary{}, -1, 100, -1}, {on, -1, 0, 0}, {on, -1, 39.9999, 0}, {on, -1, 40, 1}, {on, -1, 100, 3},
		{on, 0, 60, 2}, {on, 2, 56, 2}, {on, 2, 55.9999, 1}, {on, 3, 58, 2}, {on, 3, 35.9999, 0}, {on, 3, 36, 1},
		{on, 1, 79.9999, 2}, {on, 3, 76, 3}, {on, 9, 76, 3}, {&Summary{Bought: true}, 3, 100, 0}, {&Summary{Bought: true}, -1, 100, 0},
	} {
		if got := m.Decide(c.prev, c.s, int64(math.Round(c.score*unit))); got != c.want {
			t.Errorf("Decide(%d, %+v, %v) = %d, want %d", c.prev, c.s.Active, c.score, got, c.want)
		}
	}
	if d, ok := m.DistanceToNext(1, 55*unit); d != 5*unit || !ok {
		t.Errorf("DistanceToNext = %d, %v", d, ok)
	}
	if _, ok := m.DistanceToNext(3, 0); ok {
		t.Error("the highest tier has a next one")
	}
	if d, ok := m.DistanceToKeep(2, 57*unit); d != unit || !ok {
		t.Errorf("DistanceToKeep = %d, %v", d, ok)
	}
	if _, ok := m.DistanceToKeep(0, 0); ok {
		t.Error("the lowest tier can be left")
	}
}

// Deciding again at the same score changes nothing.
func TestDecideRests(t *testing.T) {
	m := Default()
	on := &Summary{Bought: true, Active: true}
	for prev := -1; prev < 4; prev++ {
		for score := int64(0); score <= 100*unit; score += unit / 4 {
			tier := m.Decide(prev, on, score)
			if again := m.Decide(tier, on, score); again != tier {
				t.Fatalf("from %d at %d: %d, then %d", prev, score, tier, again)
			}
			if d, ok := m.DistanceToKeep(tier, score); ok && d < 0 {
				t.Fatalf("from %d at %d: rests in %d below its leave threshold", prev, score, tier)
			}
		}
	}
}

func TestMeasureAllocatesNothing(t *testing.T) {
	s := sample()
	for _, m := range []*Model{Default(), edit(t, "measure: contribution", "measure: {contribution: 0.5, rfm.weighted: 0.3, clv.total: 0.0001}")} {
		if n := testing.AllocsPerRun(100, func() { m.Measure(&s) }); n != 0 {
			t.Errorf("Measure allocates %v times", n)
		}
	}
}

func TestWeightedMeasure(t *testing.T) {
	s := sample()
	v := Default().Values(&s)
	m := edit(t, "measure: contribution", "measure: {contribution: 0.5, rfm.weighted: 0.25, clv.total: 0.001}")
	want := 0.5*v.Score + 0.25*v.RFM.Weighted + 0.001*float64(v.CLV.Total)
	if got := float64(m.Measure(&s).Score) / unit; math.Abs(got-want) > 0.51/unit {
		t.Errorf("weighted measure is %v, want %v", got, want)
	}
	for _, name := range fieldNames {
		m := edit(t, "measure: contribution", "measure: "+name)
		if got := m.Measure(&s); got.Score == 0 || got.N == 0 {
			t.Errorf("%s of the sample is %+v, want a score", name, got)
		}
	}
}

func TestMulDivRoundsHalfEven(t *testing.T) {
	for _, c := range [][4]int64{
		{5, 1, 2, 2}, {7, 1, 2, 4}, {-5, 1, 2, -2}, {-7, 1, 2, -4}, {3, 1, 2, 2}, {1, 1, 3, 0}, {2, 1, 3, 1}, {300_000, 16_001, million, 4800},
		{math.MaxInt64, math.MaxInt64, math.MaxInt64, math.MaxInt64}, {math.MinInt64, 1, 1, math.MinInt64 + 0}, {math.MaxInt64, 3, 2, math.MaxInt64},
	} {
		if got := mulDiv(c[0], c[1], c[2]); got != c[3] {
			t.Errorf("%d·%d/%d = %d, want %d", c[0], c[1], c[2], got, c[3])
		}
	}
}

// BenchmarkValues is what a reader costs: everything, and everything explained.
func BenchmarkValues(b *testing.B) {
	m, s := Default(), sample()
	b.Run("values", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			m.Values(&s)
		}
	})
	b.Run("explained", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			m.Explain(&s)
		}
	})
}

func BenchmarkMeasure(b *testing.B) {
	m := Default()
	for _, age := range []int32{0, 30, 330} {
		s := sample()
		s.FirstDay = s.Today - age
		if s.LastDay < s.FirstDay {
			s.LastDay, s.Days, s.ValueDays, s.ValueSum = s.FirstDay, 1, 0, 0
		}
		b.Run(fmt.Sprintf("age=%d", age), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				m.Measure(&s)
			}
		})
	}
}
