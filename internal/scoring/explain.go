package scoring

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/tierstream/tierstream/internal/event"
)

// A Line explains one figure of Values, or a step towards one, as arithmetic.
//
// Numbers is Formula with the values put in, which anybody can evaluate: + - * /
// ^, comparisons that are 1 or 0, parentheses, exp, min, max, and CET(x, T, t),
// the sum of a series: the purchase days that somebody who is alive at age T is
// expected to have within t more days. Money is in major units.
type Line struct {
	Group   string `json:"group"`
	Figure  string `json:"figure,omitempty"` // its place in Values, such as clv.npv_minor; empty for a step
	Label   string `json:"label"`
	Formula string `json:"formula"`
	Numbers string `json:"numbers"`
	Value   string `json:"value"` // with its unit
	Source  string `json:"source"`
}

// Sources of formulas.
const (
	sourceDefinition = "docs/definitions.md"
	sourceNPV        = "Berger and Nasr 1998, case 1"
	sourceMBG        = "Batislam, Denizel, Filiztekin 2007"
	sourceBG         = "Fader, Hardie, Lee 2005, eq. 10; P(alive): Hardie, note 021"
	sourceSpend      = "Fader and Hardie 2013, note 025, eq. 5"
	sourceMarkov     = "Pfeifer and Carraway 2000"
	sourceClass      = "value × survival, docs/definitions.md"
)

// Explain is Values with the arithmetic behind each figure. Both come from one
// computation.
func (m *Model) Explain(s *Summary) (Values, []Line) {
	r := m.read(s)
	e := explainer{m: m, r: r, v: m.values(r)}
	e.exponent, _ = event.Exponent(m.currency)
	e.measure()
	e.rfm()
	e.forecast()
	e.lifetime()
	e.parts()
	e.markov()
	e.worth()
	e.experience()
	e.orders()
	return e.v, e.lines
}

type explainer struct {
	m        *Model
	r        *reading
	v        Values
	exponent int // of the currency
	group    string
	lines    []Line
}

// add explains a figure whose value has been put in words already.
func (e *explainer) add(figure, label, formula, numbers, value, source string) {
	e.lines = append(e.lines, Line{e.group, figure, label, formula, numbers, value, source})
}

func (e *explainer) money(figure, label string, minor int64, formula, numbers, source string) {
	e.add(figure, label, formula, numbers, event.FormatMoney(minor, e.m.currency), source)
}

func (e *explainer) number(figure, label string, value float64, unit, formula, numbers, source string) {
	e.add(figure, label, formula, numbers, strings.TrimSpace(plainNumber(value)+" "+unit), source)
}

// plainNumber writes a number with ten digits: enough for money, and for a
// person to read.
func plainNumber(v float64) string { return strconv.FormatFloat(v, 'g', 10, 64) }

// of puts numbers into a text, in the order of its %s: money (int64, minor units)
// in major units, all else as it is; negative ones in parentheses.
func (e *explainer) of(format string, values ...any) string {
	texts := make([]any, len(values))
	for i, v := range values {
		var s string
		switch v := v.(type) {
		case int64:
			s, _, _ = strings.Cut(event.FormatMoney(v, e.m.currency), " ")
		case float64:
			s = plainNumber(v)
		default:
			s = fmt.Sprint(v)
		}
		if strings.HasPrefix(s, "-") {
			s = "(" + s + ")"
		}
		texts[i] = s
	}
	return fmt.Sprintf(format, texts...)
}

// major is money that is not rounded, minor units, in major ones.
func (e *explainer) major(minor float64) float64 {
	for range e.exponent {
		minor /= 10
	}
	return minor
}

// joined writes a sum; "0" for an empty one.
func joined(terms []string) string {
	if len(terms) == 0 {
		return "0"
	}
	return strings.Join(terms, " + ")
}

func (e *explainer) measure() {
	e.group = "Score"
	m, r := e.m, e.r
	worth := r.total + r.cac
	cac, note := r.cac, ""
	if !r.cacKnown {
		cac, note = m.defaultCAC, " (assumed)"
	}
	if m.measures(fieldContribution) {
		var parts [8]Part
		m.contributionParts(&r.figures, &parts)
		points := func(i int) float64 { return float64(parts[i].Value) / unit }
		e.money("", "W, worth before acquisition", worth, "clv.total + CAC", e.of("%s + %s", r.total, r.cac), sourceDefinition)
		e.number("", "clv part", points(0), "", "100·clamp(W / full)", e.of("100 * min(max(%s / %s, 0), 1)", worth, m.fullCLV), sourceDefinition)
		if cac > 0 {
			e.number("", "cac part", points(1), "", "100·clamp((W/C − 1)/4), C = CAC"+note, e.of("100 * min(max((%s / %s - 1) / 4, 0), 1)", worth, cac), sourceDefinition)
		} else {
			e.number("", "cac part", points(1), "", "100 without a cost", "100", sourceDefinition)
		}
		e.number("", "satisfaction part", points(2), "", "satisfaction, see there", plainNumber(points(2)), sourceDefinition)
		e.number("", "retention part", points(3), "", "100·P(alive)", e.of("100 * %s", r.alive), sourceDefinition)
		if len(m.measure) > 1 || m.measure[0].weight != unit {
			var terms []string
			for i, p := range parts[:4] {
				terms = append(terms, e.of("%s * %s", float64(p.Weight)/unit, points(i)))
			}
			e.number("", "contribution", float64(weighted(parts[:4]))/unit, "", "Σ weight · part", joined(terms), sourceDefinition)
		}
	}
	var formulas, terms []string
	inMoney := m.countsMoney()
	for _, p := range r.measure.Parts[:r.measure.N] {
		formulas = append(formulas, plainNumber(float64(p.Weight)/unit)+" · "+p.Name)
		if inMoney {
			terms = append(terms, e.of("%s * %s", float64(p.Weight)/unit, p.Value/unit))
		} else {
			terms = append(terms, e.of("%s * %s", float64(p.Weight)/unit, float64(p.Value)/unit))
		}
	}
	formula := strings.Join(formulas, " + ")
	if score := r.measure.Score; inMoney {
		e.money("score", m.MeasureName(), mulDiv(score, 1, unit), formula, joined(terms), sourceDefinition)
	} else {
		e.number("score", m.MeasureName(), float64(score)/unit, "", formula, joined(terms), sourceDefinition)
	}
}

// measures tells whether the model's measure rests on a field.
func (m *Model) measures(f field) bool {
	for _, x := range m.measure {
		if x.field == f {
			return true
		}
	}
	return false
}

// countsMoney tells whether the score is an amount of money, in minor units.
func (m *Model) countsMoney() bool {
	for _, x := range m.measure {
		if x.field < fieldSimple {
			return false
		}
	}
	return true
}

func (e *explainer) rfm() {
	e.group = "RFM"
	m, r, s := e.m, e.r, e.r.s
	const source = "Hughes 1994; cut points of the model"
	if !s.Active {
		for _, name := range []string{"r", "f", "m"} {
			e.number("rfm."+name, strings.ToUpper(name), 1, "", "1 without an order", "1", source)
		}
		e.number("rfm.weighted", "weighted", 0, "", "0 without an order", "0", source)
		return
	}
	days, f, net := "5", "1", "1"
	for i := range 4 {
		days += fmt.Sprintf(" - (%d > %d)", r.rfm.days, m.recency[i])
		f += fmt.Sprintf(" + (%d > %d)", s.WindowOrders, m.frequency[i])
		net += e.of(" + (%s >= %s)", s.WindowNet, m.monetary[i])
	}
	e.number("rfm.days_since_last", "days since the last order", float64(r.rfm.days), "days", "today − last purchase day", e.of("%s - %s", s.Today, s.LastDay), source)
	e.number("rfm.r", "R", float64(r.rfm.r), "", "5 − cut points exceeded by the days", days, source)
	e.number("rfm.f", "F", float64(r.rfm.f), "", "1 + cut points exceeded by the orders in the window", f, source)
	e.number("rfm.m", "M", float64(r.rfm.m), "", "1 + cut points reached by the money in the window", net, source)
	w := &m.rfmWeights
	e.number("rfm.weighted", "weighted", float64(r.rfm.weighted)/unit, "", "100·Σ wᵢ(scoreᵢ − 1) / (4·Σ wᵢ)",
		fmt.Sprintf("100 * (%v * (%d - 1) + %v * (%d - 1) + %v * (%d - 1)) / (4 * (%v + %v + %v))", w[0], r.rfm.r, w[1], r.rfm.f, w[2], r.rfm.m, w[0], w[1], w[2]), source)
	second := fmt.Sprintf("F %d", r.rfm.f)
	if m.meanOfFM {
		second = fmt.Sprintf("(F %d + M %d)/2", r.rfm.f, r.rfm.m)
	}
	e.add("rfm.segment", "segment", "map of the model", fmt.Sprintf("R %d, %s", r.rfm.r, second), r.rfm.segment, source)
}

func (e *explainer) forecast() {
	e.group = "Purchases to come"
	m, r, s, k := e.m, e.r, e.r.s, &e.m.purchases
	f := &e.v.Forecast
	source := sourceMBG
	if !k.afterFirst {
		source = sourceBG
	}
	if !s.Active {
		e.number("forecast.p_alive", "P(alive)", 0, "", "0 without an order", "0", source)
		return
	}
	e.number("forecast.frequency", "x, repeat purchase days", r.x, "", "purchase days − 1", fmt.Sprintf("%d - 1", s.Days), source)
	e.number("forecast.age_at_last", "t_x, age at the last one", r.tx, "days", "last − first purchase day", e.of("%s - %s", s.LastDay, s.FirstDay), source)
	e.number("forecast.age", "T, age", r.age, "days", "max(t_x, today − first purchase day + part of today)", e.of("max(%s, %s - %s + %s)", r.tx, s.Today, s.FirstDay, s.DayPart), source)
	switch {
	case !k.afterFirst && r.x == 0:
		e.number("forecast.p_alive", "P(alive)", r.alive, "", "1: nobody leaves before the second order", "1", source)
	default:
		b, formula := k.b, "1/(1 + a/(b+x)·((α+T)/(α+t_x))^(r+x))"
		if !k.afterFirst {
			b, formula = k.b-1, "1/(1 + a/(b−1+x)·((α+T)/(α+t_x))^(r+x))"
		}
		e.number("forecast.p_alive", "P(alive)", r.alive, "", formula,
			e.of("1 / (1 + %s / (%s + %s) * ((%s + %s) / (%s + %s)) ^ (%s + %s))", k.a, b, r.x, k.alpha, r.age, k.alpha, r.tx, k.r, r.x), source)
	}
	e.number("forecast.churn_risk", "churn risk", f.ChurnRisk, "", "1 − P(alive)", e.of("1 - %s", r.alive), sourceDefinition)
	n := len(m.horizon)
	const series = "(a+b+x)/(a−1)·[1 − ((α+T)/(α+T+t))^(r+x)·₂F₁(r+x, b+x+1; a+b+x; t/(α+T+t))]"
	formula := series
	if !k.afterFirst {
		formula = "(a+b+x−1)/(a−1)·[1 − ((α+T)/(α+T+t))^(r+x)·₂F₁(r+x, b+x; a+b+x−1; t/(α+T+t))]"
	}
	var terms []string
	before := 0.0
	for i, t := range m.horizon {
		e.number("", fmt.Sprintf("E%d, within %g days if alive", i+1, t), r.within[i], "purchase days", formula, e.of("CET(%s, %s, %s)", r.x, r.age, t), source)
		terms = append(terms, e.of("(%s - %s) * %s", r.within[i], before, m.discount[i]))
		before = r.within[i]
	}
	e.number("forecast.expected_purchases", "expected purchases", r.purchases, "purchase days", "last E · P(alive)", e.of("%s * %s", r.within[n-1], r.alive), source)
	e.number("", "D, discounted, if alive", r.discounted, "purchase days", "Σ (Eᵢ − Eᵢ₋₁)·(1 + discount)^−middle of period i, years", joined(terms), sourceDefinition)
	p := &m.spend
	e.money("forecast.expected_value_minor", "V, value of a purchase day", f.MeanValue, "p·(v + Σ value) / (p·n + q − 1)",
		e.of("%s * (%s + %s) / (%s * %s + %s - 1)", p.p, e.major(p.v), s.ValueSum, p.p, float64(s.ValueDays), p.q), sourceSpend)
	e.number("forecast.p_order_30d", "P(order within 30 days)", f.Order30, "", "P(alive)·(1 − ((α+T)/(α+T+30))^(r+x))",
		e.of("%s * (1 - ((%s + %s) / (%s + %s + 30)) ^ (%s + %s))", r.alive, k.alpha, r.age, k.alpha, r.age, k.r, r.x), "Hardie, note 039")
	e.money("forecast.expected_sales_90d_minor", "expected sales of 90 days", f.Sales90, "CET(90 d)·P(alive)·V",
		e.of("CET(%s, %s, 90) * %s * %s", r.x, r.age, r.alive, e.major(r.value)), source)
	if f.NextOrderOn != "" {
		e.number("forecast.next_order_days", "next order, median if alive", f.NextOrderDays, "days", "(α+T)·(2^(1/(r+x)) − 1)",
			e.of("(%s + %s) * (2 ^ (1 / (%s + %s)) - 1)", k.alpha, r.age, k.r, r.x), sourceDefinition)
	}
}

func (e *explainer) lifetime() {
	e.group = "Lifetime value"
	m, r, s, c := e.m, e.r, e.r.s, &e.v.CLV
	group := func(figure, label string, value int64, g Margins) {
		e.money(figure, label, value, "stated margins + margin rate · net of the others", e.of("%s + %s * %s", g.Known, m.marginRate, g.Assumed), sourceDefinition)
	}
	group("clv.first_order_minor", "CLV1, first order", c.First, s.First)
	group("clv.repeat_orders_minor", "CLV2, later orders", c.Repeat, s.Repeat)
	group("clv.cross_sell_minor", "CLV3, orders of a new category", c.CrossSell, s.Cross)
	group("value.current_minor", "A, margin of the last 365 days", r.year, s.Year)
	e.money("clv.service_saving_minor", "CLV4, service saved", c.ServiceSaving, "standard service · orders − service − compensation",
		e.of("%s * %s - %s - %s", m.standardService, float64(s.Orders), s.ServiceCost, s.Compensation), sourceDefinition)
	e.money("clv.referrals_minor", "CLV5, referrals", c.Referrals, "stated values + assumed CAC · the others", e.of("%s + %s * %s", s.ReferralValue, m.defaultCAC, float64(s.ReferralsUnvalued)), sourceDefinition)
	e.money("clv.loyalty_minor", "CLV6, predicted contribution", c.Residual, "D · P(alive) · V · margin rate",
		e.of("%s * %s * %s * %s", r.discounted, r.alive, e.major(r.value), m.marginRate), sourceDefinition)
	e.money("clv.standard_service_minor", "standard service", c.StandardService, "standard service · orders", e.of("%s * %s", m.standardService, float64(s.Orders)), sourceDefinition)
	e.money("clv.total_minor", "clv.total", c.Total, "CLV1 + CLV2 + CLV3 + CLV4 + CLV5 + CLV6 − standard service − marketing and sales − CAC",
		e.of("%s + %s + %s + %s + %s + %s - %s - %s - %s", c.First, c.Repeat, c.CrossSell, c.ServiceSaving, c.Referrals, c.Residual, c.StandardService, c.Selling, c.CAC), sourceDefinition)
	e.money("clv.historic_minor", "clv.historic", c.Historic, "CLV1 + CLV2 + CLV3 − service − marketing and sales − compensation − CAC",
		e.of("%s + %s + %s - %s - %s - %s - %s", c.First, c.Repeat, c.CrossSell, s.ServiceCost, s.SellingCost, s.Compensation, c.CAC), sourceDefinition)
	if s.Orders > 0 {
		e.money("clv.simple_minor", "clv.simple", c.Simple, "net / orders · orders of the last 365 days · years − CAC",
			e.of("%s / %s * %s * %s - %s", s.Net, float64(s.Orders), float64(s.YearOrders), float64(m.years), c.CAC), sourceDefinition)
	} else {
		e.money("clv.simple_minor", "clv.simple", c.Simple, "0 − CAC without orders", e.of("0 - %s", c.CAC), sourceDefinition)
	}
	e.money("clv.margin_minor", "clv.margin", c.Margin, "A · years", e.of("%s * %s", r.year, float64(m.years)), sourceDefinition)
	e.money("clv.npv_minor", "clv.npv, "+c.Basis, c.NPV, "P0 − C0 + R·Σ_{t=1..N} sᵗ/(1+r)ᵗ; P0, R: first order and last 365 days", e.of("%s - %s + %s * %s", r.firstly, c.CAC, r.yearly, m.npvFactor), sourceNPV)
	e.money("clv.predicted_minor", "clv.predicted, "+c.Basis, c.Predicted, "D · P(alive) · what a purchase day brings",
		e.of("%s * %s * %s", r.discounted, r.alive, e.major(m.perDay(&r.figures))), sourceDefinition)
	if r.cac > 0 {
		e.number("clv.ltv_to_cac", "LTV : CAC", c.ToCAC, "", "(clv.total + CAC) / CAC", e.of("(%s + %s) / %s", c.Total, c.CAC, c.CAC), sourceDefinition)
	}
}

func (e *explainer) parts() {
	e.group = "Basic, added, cost"
	c, s := &e.v.CLV, e.r.s
	const source = "the field's basic value + added value − cost, docs/definitions.md"
	if s.Orders > 0 {
		e.money("clv.basic_minor", "basic", c.Basic, "net / orders · orders of the last 365 days · years",
			e.of("%s / %s * %s * %s", s.Net, float64(s.Orders), float64(s.YearOrders), float64(e.m.years)), source)
	}
	e.money("clv.added_minor", "added", c.Added, "CLV5 + CLV4", e.of("%s + %s", c.Referrals, c.ServiceSaving), source)
	e.money("clv.cost_minor", "cost", c.Cost, "direct (acquisition) + indirect (marketing and sales)", e.of("%s + %s", c.Direct, c.Indirect), source)
	e.money("clv.parts_minor", "clv.parts", c.Parts, "basic + added − cost", e.of("%s + %s - %s", c.Basic, c.Added, c.Cost), source)
}

func (e *explainer) markov() {
	e.group = "Markov chain of recency states"
	r, c, k := e.r, &e.v.CLV, &e.m.markov
	if c.Recency == 0 {
		e.money("clv.markov_minor", "clv.markov", c.Markov, "0: no order, or beyond the last state", "0", sourceMarkov)
		return
	}
	if since := r.age - r.tx; since < float64(k.period*float64(len(k.p))) {
		e.add("clv.recency_state", "state", "1 + whole periods since the last order", fmt.Sprintf("%s days in periods of %g", plainNumber(since), k.period), strconv.Itoa(c.Recency), sourceMarkov)
	}
	for i, n := range k.counts {
		e.number("", fmt.Sprintf("p%d, chance to buy in state %d", i+1, i+1), k.p[i], fmt.Sprintf("± %.6f", k.se[i]), "buys / exposures ± √(p(1−p)/exposures)", fmt.Sprintf("%d / %d", n.Buys, n.Exposures), sourceMarkov)
	}
	e.number("", "NC, a period with a purchase, "+c.Basis, e.major(r.nc), e.m.currency, "what a purchase day brings · purchase days per buy", e.of("%s * %s", e.major(e.m.perDay(&r.figures)), k.perBuy), sourceMarkov)
	for _, x := range []struct {
		figure, label string
		of            []prospects
		value         int64
	}{
		{"clv.markov_minor", "clv.markov", k.at, c.Markov},
		{"clv.markov_low_minor", "at p − 1 standard error", k.low, c.MarkovLow},
		{"clv.markov_high_minor", "at p + 1 standard error", k.high, c.MarkovHigh},
	} {
		v := x.of[c.Recency-1]
		e.money(x.figure, x.label, x.value, "NC · B − M · K: Σ_{t=1..N} (1+d)⁻ᵗPᵗR, B buys and K contacts discounted", e.of("%s * %s - %s * %s", e.major(r.nc), v.buys, k.contact, v.contacts), sourceMarkov)
	}
}

func (e *explainer) worth() {
	e.group = "Past, present, future"
	m, r, s, w := e.m, e.r, e.r.s, &e.v.Value
	e.money("value.historical_minor", "historical", w.Historical, "CLV1 + CLV2 + CLV3", e.of("%s + %s + %s", r.first, r.repeat, r.cross), sourceDefinition)
	e.money("value.potential_minor", "potential", w.Potential, "CLV6 − A", e.of("%s - %s", r.predicted, r.year), sourceDefinition)
	e.money("value.continuing_minor", "continuing", w.Continuing, "CLV2 + CLV3", e.of("%s + %s", r.repeat, r.cross), sourceDefinition)
	if s.Orders > 1 {
		e.money("value.continuing_per_order_minor", "continuing, per repeat order", w.ContinuingPerBuy, "continuing / (orders − 1)", e.of("%s / (%s - 1)", w.Continuing, float64(s.Orders)), sourceDefinition)
	}
	e.money("value.continuing_expected_minor", "continuing, expected", w.ContinuingExpects, "expected purchases · V", e.of("%s * %s", r.purchases, e.major(r.value)), sourceDefinition)
	e.money("value.at_risk_minor", "at risk", w.AtRisk, "CLV6 · (1 + goodwill)", e.of("%s * (1 + %s)", r.predicted, m.goodwill), sourceDefinition)
	if w.Class != "" {
		e.add("value.class", "value class", "A ≥ V*, P(alive) ≥ p*", e.of("%s >= %s, %s >= %s", r.year, m.highValue, r.alive, m.aliveFrom), w.Class, sourceClass)
	}
	if s.Active {
		e.add("value.lifecycle", "lifecycle", "days since the first and the last order, and between the last two",
			fmt.Sprintf("%d, %d, %d; new to %d, lapsing after %d, lapsed from %d", s.Today-s.FirstDay, s.Today-s.LastDay, s.LastDay-s.PreviousDay, m.lifecycle.New, m.lifecycle.Lapsing, m.lifecycle.Lapsed), w.Lifecycle, sourceDefinition)
	} else {
		e.add("value.lifecycle", "lifecycle", "no order that is not returned", fmt.Sprintf("bought: %v", s.Bought), w.Lifecycle, sourceDefinition)
	}
	e.add("value.health", "health", "by lifecycle and P(alive) ≥ p*", w.Lifecycle+e.of(", %s >= %s", r.alive, m.aliveFrom), w.Health, sourceDefinition)
}

func (e *explainer) experience() {
	e.group = "Satisfaction"
	m, r, s, x := e.m, e.r, e.r.s, &e.v.Experience
	var answers, points []string
	if s.NPS.Known {
		answers = append(answers, fmt.Sprintf("min(max(10 * %d, 0), 100)", s.NPS.Score))
	}
	for _, a := range [2]Response{s.CSAT, s.CES} {
		if a.Known && a.ScaleMax > 1 {
			answers = append(answers, fmt.Sprintf("min(max(100 * (%d - 1) / (%d - 1), 0), 100)", a.Score, a.ScaleMax))
		}
	}
	mean, formula := plainNumber(m.neutral), "neutral value (no survey answered)"
	if len(answers) > 0 {
		mean, formula = fmt.Sprintf("(%s) / %d", joined(answers), len(answers)), "mean of NPS·10, scaled CSAT and CES"
	}
	for i := range s.Complaints {
		c := &s.Complaints[i]
		if c.Status == ComplaintRejected || c.Severity < 1 || c.Severity > 5 {
			continue
		}
		kept := 1.0
		if c.Status == ComplaintResolved {
			kept = m.kept
		}
		points = append(points, e.of("%s * %s * 0.5 ^ (%s / %s)", m.points[c.Severity-1], kept, float64(max(0, s.At-c.Opened))/msPerDay, m.halfLife))
	}
	e.number("experience.complaint_points", "complaint points", r.risk, "", "Σ points of the severity · kept · ½^(days / half-life)", joined(points), sourceDefinition)
	e.number("experience.satisfaction", "satisfaction", x.Satisfaction, "", "clamp("+formula+" − complaint points)", e.of("min(max("+mean+" - %s, 0), 100)", r.risk), sourceDefinition)
	if s.Orders > 0 {
		e.number("experience.complaint_ratio", "complaint ratio", x.ComplaintRatio, "", "complaints / orders", fmt.Sprintf("%d / %d", x.Complaints, s.Orders), sourceDefinition)
	}
	if x.Complaints > 0 {
		e.money("experience.cost_per_complaint_minor", "cost per complaint", x.PerComplaint, "(service + compensation) / complaints", e.of("(%s + %s) / %s", s.ServiceCost, s.Compensation, float64(x.Complaints)), sourceDefinition)
	}
}

func (e *explainer) orders() {
	e.group = "Orders"
	r, s, o := e.r, e.r.s, &e.v.Orders
	if s.Orders > 0 {
		e.money("orders.average_minor", "average order", o.Average, "net / orders", e.of("%s / %s", s.Net, float64(s.Orders)), sourceDefinition)
	}
	if s.Active {
		e.number("orders.customer_days", "days as a customer", float64(o.CustomerDays), "days", "today − first purchase day", e.of("%s - %s", s.Today, s.FirstDay), sourceDefinition)
	}
	if r.x > 0 {
		e.number("orders.purchase_cycle_days", "purchase cycle", o.PurchaseCycle, "days", "t_x / x", e.of("%s / %s", r.tx, r.x), sourceDefinition)
	}
	if s.Net != 0 {
		e.number("orders.gross_margin_rate", "gross margin rate", o.MarginRate, "", "(CLV1 + CLV2 + CLV3) / net", e.of("%s / %s", e.v.Value.Historical, s.Net), sourceDefinition)
	}
	if s.Net+s.ReturnedNet != 0 {
		e.number("orders.return_ratio", "return ratio", o.ReturnRatio, "", "returned / (net + returned)", e.of("%s / (%s + %s)", s.ReturnedNet, s.Net, s.ReturnedNet), sourceDefinition)
	}
}
