package scoring

import (
	"github.com/tierstream/tierstream/internal/scoring/dmath"
)

// field is something a measure can be made of.
type field uint8

const (
	fieldContribution field = iota
	fieldRFM
	fieldR
	fieldF
	fieldM
	fieldSatisfaction
	fieldRetention
	fieldSimple
	fieldMargin
	fieldHistoric
	fieldNPV
	fieldTotal
	fieldPredicted
	fieldCurrent
)

// fieldNames are the names by which models and explanations know them.
var fieldNames = [...]string{
	fieldContribution: "contribution",
	fieldRFM:          "rfm.weighted",
	fieldR:            "rfm.r",
	fieldF:            "rfm.f",
	fieldM:            "rfm.m",
	fieldSatisfaction: "satisfaction",
	fieldRetention:    "retention",
	fieldSimple:       "clv.simple",
	fieldMargin:       "clv.margin",
	fieldHistoric:     "clv.historic",
	fieldNPV:          "clv.npv",
	fieldTotal:        "clv.total",
	fieldPredicted:    "clv.predicted",
	fieldCurrent:      "value.current",
}

// A Measure is the score that decides the tier, with what it is made of:
// Score = Σ Weight × Value over Parts[:N], rounded once half-even, exactly.
type Measure struct {
	Score int64 // 1/10,000
	Parts [8]Part
	N     int // parts in use
}

// A Part of a measure. For the measure contribution these are its four parts,
// else the model's fields.
type Part struct {
	Name   string
	Value  int64 // 1/10,000 of a point, or of a minor unit
	Weight int64 // 1/10,000
	Known  bool  // false: Value is, or rests on, a neutral value taken for an unknown one
}

// Measure scores a customer. It allocates nothing. A customer without an
// active order has scores and P(alive) at their minimum; see Decide for the tier.
func (m *Model) Measure(s *Summary) Measure {
	var v figures
	m.evaluate(s, &v)
	var out Measure
	m.compose(s, &v, &out)
	return out
}

// compose makes the measure of figures.
func (m *Model) compose(s *Summary, v *figures, out *Measure) {
	if len(m.measure) == 1 && m.measure[0].field == fieldContribution && m.measure[0].weight == unit {
		out.N = 4
		m.contributionParts(v, &out.Parts)
	} else {
		out.N = len(m.measure)
		for i, f := range m.measure {
			value, known := m.field(f.field, s, v)
			out.Parts[i] = Part{fieldNames[f.field], value, f.weight, known}
		}
	}
	out.Score = weighted(out.Parts[:out.N])
}

// weighted is Σ weight × value, rounded half-even to 1/10,000. It cannot
// overflow: |value| ≤ 10¹⁸, |weight| ≤ 1, at most 8 parts.
func weighted(parts []Part) int64 {
	var whole, rest int64
	for _, p := range parts {
		whole += p.Value / unit * p.Weight
		rest += p.Value % unit * p.Weight
	}
	whole += rest / unit
	if rest %= unit; rest < 0 {
		whole, rest = whole-1, rest+unit
	}
	if 2*rest > unit || 2*rest == unit && whole%2 != 0 {
		whole++
	}
	return whole
}

// field returns one field's value in 1/10,000, and whether it rests on known data.
func (m *Model) field(f field, s *Summary, v *figures) (value int64, known bool) {
	points := func(score int) int64 { return int64(score) * unit }
	switch f {
	case fieldContribution:
		var parts [8]Part
		m.contributionParts(v, &parts)
		known = true
		for _, p := range parts[:4] {
			known = known && p.Known
		}
		return weighted(parts[:4]), known
	case fieldRFM:
		return m.rfm(s).weighted, s.Bought
	case fieldR:
		return points(m.rfm(s).r), s.Bought
	case fieldF:
		return points(m.rfm(s).f), s.Bought
	case fieldM:
		return points(m.rfm(s).m), s.Bought
	case fieldSatisfaction:
		return v.satisfaction, v.surveyed
	case fieldRetention:
		return v.retention, s.Bought
	case fieldSimple:
		return money(m.simple(s)), s.CACKnown
	case fieldMargin:
		return money(m.perYears(v.year)), true
	case fieldHistoric:
		return money(v.historic), s.CACKnown
	case fieldNPV:
		return money(m.npv(s, v)), s.CACKnown
	case fieldTotal:
		return money(v.total), s.CACKnown
	case fieldPredicted:
		return money(m.told(v)), true
	case fieldCurrent:
		return money(v.year), true
	}
	panic("scoring: field without a value")
}

// money is minor units in 1/10,000, held within ±10¹⁴ minor units.
func money(minor int64) int64 {
	const limit = 100_000_000_000_000
	return min(max(minor, -limit), limit) * unit
}

// contributionParts fills the four parts: each 0 to 100, rounded half-even to
// 1/10,000 from exact integers, except satisfaction and retention.
func (m *Model) contributionParts(v *figures, parts *[8]Part) {
	worth := v.total + v.cac // CAC has a part of its own
	clv := part(worth, m.fullCLV)
	cac := v.cac
	if !v.cacKnown {
		cac = m.defaultCAC
	}
	efficiency := int64(100 * unit)
	if cac > 0 {
		efficiency = part(worth-cac, 4*cac) // 1:1 is 0, 5:1 is full
	}
	w := &m.contribution
	parts[0] = Part{"clv", clv, w[0], v.active}
	parts[1] = Part{"cac", efficiency, w[1], v.cacKnown}
	parts[2] = Part{"satisfaction", v.satisfaction, w[2], v.surveyed}
	parts[3] = Part{"retention", v.retention, w[3], v.active}
}

// part is 100·clamp(v/full) in 1/10,000, for full > 0.
func part(v, full int64) int64 {
	switch {
	case v <= 0:
		return 0
	case v >= full:
		return 100 * unit
	}
	return mulDiv(v, 100*unit, full)
}

// figures are what measures and readers share, computed once per evaluation.
// Money is minor units.
type figures struct {
	active bool

	first, cross, repeat, year int64 // margins
	cac                        int64 // 0 when unknown
	cacKnown                   bool
	saving                     int64 // CLV4
	referrals                  int64 // CLV5
	predicted                  int64 // CLV6
	historic, total            int64

	x, tx, age     float64 // of the purchase model, days
	alive          float64 // P(alive)
	value          float64 // expected value of a purchase day, minor units
	purchases      float64 // expected within the horizon, undiscounted, times alive
	discounted     float64 // expected within the horizon if alive, each discounted
	retention      int64   // 100·P(alive), 1/10,000
	satisfaction   int64   // 1/10,000
	risk           float64 // complaint points
	surveyed       bool
	openComplaints int
}

func (m *Model) evaluate(s *Summary, v *figures) {
	var within [maxPeriods]float64
	m.forecast(s, v, &within)
}

// forecast is evaluate that also tells the purchase days expected, if alive, to
// the end of each discount period.
func (m *Model) forecast(s *Summary, v *figures, within *[maxPeriods]float64) {
	m.record(s, v)
	m.survive(s, v)
	v.setPredicted(m.predict(v, within))
}

// record fills what needs no prediction: all but the figures of survive,
// predict and setPredicted.
func (m *Model) record(s *Summary, v *figures) {
	v.active = s.Active
	v.first, v.cross, v.repeat, v.year = m.margin(s.First), m.margin(s.Cross), m.margin(s.Repeat), m.margin(s.Year)
	if v.cacKnown = s.CACKnown; v.cacKnown {
		v.cac = s.CAC
	}
	v.saving = m.standardService*s.Orders - s.ServiceCost - s.Compensation
	v.referrals = s.ReferralValue + m.defaultCAC*s.ReferralsUnvalued
	v.historic = v.first + v.cross + v.repeat - s.ServiceCost - s.SellingCost - s.Compensation - v.cac
	m.satisfy(s, v)
}

// setPredicted makes CLV6 what it is given, and the total with it. No other
// figure rests on CLV6.
func (v *figures) setPredicted(minor int64) {
	v.predicted = minor
	v.total = v.historic + v.referrals + minor
}

// margin of a group of orders: stated margins plus the assumed rate of the
// rest, rounded half-even once.
func (m *Model) margin(g Margins) int64 {
	return g.Known + mulDiv(int64(m.marginRate), g.Assumed, million)
}

// survive fills the purchase model's data, P(alive) and the spend model's
// expected value; all are 0 for a customer without an active order.
func (m *Model) survive(s *Summary, v *figures) {
	if !s.Active {
		return
	}
	v.x = float64(max(0, s.Days-1))
	v.tx = float64(s.LastDay - s.FirstDay)
	v.age = max(v.tx, float64(s.Today-s.FirstDay)+s.DayPart)
	v.alive = m.purchases.alive(v.x, v.tx, v.age)
	v.value = m.spend.expected(s.ValueDays, s.ValueSum)
	v.retention = roundFloat(float64(v.alive * (100 * unit)))
}

// predict fills the expected purchases, after survive, and returns CLV6; both
// are 0 for a customer without an active order.
func (m *Model) predict(v *figures, within *[maxPeriods]float64) int64 {
	if !v.active {
		return 0
	}
	n := len(m.horizon)
	m.purchases.expected(v.x, v.age, m.horizon, within[:n])
	var discounted, before float64
	for i, e := range within[:n] {
		discounted += float64((e - before) * m.discount[i])
		before = e
	}
	v.purchases, v.discounted = float64(before*v.alive), discounted
	return roundFloat(m.worth(discounted, v))
}

// worth is the margin of so many purchase days of a customer who is alive,
// before rounding. Minor units.
func (m *Model) worth(purchases float64, v *figures) float64 {
	return float64(float64(float64(purchases*v.alive)*v.value) * m.marginOf1)
}

// satisfy fills satisfaction: the mean of the surveys answered (else the
// neutral value) less complaint points, 0 to 100.
func (m *Model) satisfy(s *Summary, v *figures) {
	var sum, n float64
	if s.NPS.Known {
		sum += clamp(float64(10 * float64(s.NPS.Score)))
		n++
	}
	for _, r := range [2]*Response{&s.CSAT, &s.CES} { // by pointer: no copies, and on the stack
		if r.Known && r.ScaleMax > 1 {
			sum += scale(r)
			n++
		}
	}
	mean := m.neutral
	if v.surveyed = n > 0; v.surveyed {
		mean = sum / n
	}
	for i := range s.Complaints {
		c := &s.Complaints[i]
		if c.Status == ComplaintRejected || c.Severity < 1 || c.Severity > 5 {
			continue
		}
		points := m.points[c.Severity-1]
		if c.Status == ComplaintResolved {
			points = float64(points * m.kept)
		} else {
			v.openComplaints++
		}
		age := float64(max(0, s.At-c.Opened))
		v.risk += float64(points * dmath.Exp(-float64(m.decay*age)))
	}
	v.satisfaction = roundFloat(float64(clamp(mean-v.risk) * unit))
}

// scale is an answer on a scale from 1 as 0 to 100; the scale has two steps or more.
func scale(r *Response) float64 { return clamp(100 * float64(r.Score-1) / float64(r.ScaleMax-1)) }

// clamp holds a score to 0 to 100.
func clamp(v float64) float64 { return min(max(v, 0), 100) }

// simple is clv.simple: average order × orders of the last 365 days × years −
// CAC (0 when unknown); the product is rounded half-even once.
func (m *Model) simple(s *Summary) int64 { return m.basic(s) - m.knownCAC(s) }

func (m *Model) basic(s *Summary) int64 {
	if s.Orders <= 0 {
		return 0
	}
	return mulDiv(s.Net, s.YearOrders*m.years, s.Orders)
}

func (m *Model) knownCAC(s *Summary) int64 {
	if !s.CACKnown {
		return 0
	}
	return s.CAC
}

// perYears is clv.margin: a year's margin times the expected years.
func (m *Model) perYears(year int64) int64 { return year * m.years }

// npv is clv.npv: (P0 − C0) + R·Σ (s/(1+r))ᵗ, the sum rounded half-even once.
func (m *Model) npv(s *Summary, v *figures) int64 {
	first, year := m.flows(s, v)
	return first - v.cac + roundFloat(float64(float64(year)*m.npvFactor))
}

// rfm is a customer's RFM: raw values, scores 1 to 5, and the weighted score.
type rfm struct {
	days     int32 // R: since the last purchase day not fully returned
	r, f, m  int
	segment  string
	weighted int64 // 1/10,000
}

// rfm scores by the model's cut points. Without an active order all scores are
// 1 and there is no segment.
func (m *Model) rfm(s *Summary) rfm {
	if !s.Active {
		return rfm{r: 1, f: 1, m: 1}
	}
	out := rfm{days: s.Today - s.LastDay, r: 5, f: 1, m: 1}
	for i := range 4 {
		if m.recency[i] < out.days {
			out.r--
		}
		if m.frequency[i] < s.WindowOrders {
			out.f++
		}
		if m.monetary[i] <= s.WindowNet {
			out.m++
		}
	}
	out.segment = m.segment(out.r, out.f, out.m)
	w := &m.rfmWeights
	sum := int64(w[0])*int64(out.r-1) + int64(w[1])*int64(out.f-1) + int64(w[2])*int64(out.m-1)
	out.weighted = mulDiv(sum, 100*unit, 4*int64(w[0]+w[1]+w[2]))
	return out
}
