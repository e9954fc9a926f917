package scoring

import (
	"math"

	"github.com/tierstream/tierstream/internal/scoring/dmath"
)

// Value classes: high or low current value by likely or unlikely to be alive.
// Tiers may not be called like them.
const (
	ClassGolden = "golden" // v ≥ V*, p ≥ ½
	ClassMeteor = "meteor" // v ≥ V*, p < ½
	ClassBrook  = "brook"  // 0 ≤ v < V*, p ≥ ½
	ClassBurden = "burden" // the rest; v < 0 always
)

var classNames = [...]string{ClassGolden, ClassMeteor, ClassBrook, ClassBurden}

// Values is everything a reader may want of one customer at one instant. Money
// is minor units; scores and parts are 0 to 100 as decimal numbers.
type Values struct {
	Score float64      `json:"score"`
	Parts []ValuesPart `json:"parts"`

	RFM        RFMValues        `json:"rfm"`
	CLV        CLVValues        `json:"clv"`
	Value      ValueValues      `json:"value"`
	Forecast   ForecastValues   `json:"forecast"`
	Experience ExperienceValues `json:"experience"`
	Orders     OrderValues      `json:"orders"`
}

// ValuesPart is one part of the score.
type ValuesPart struct {
	Name   string  `json:"name"`
	Value  float64 `json:"value"`
	Weight float64 `json:"weight"`
	Known  bool    `json:"known"`
}

// RFMValues are raw values and scores. Without an active order Segment is
// empty and Days is 0.
type RFMValues struct {
	Days     int32   `json:"days_since_last"`
	Orders   int64   `json:"orders"`
	Net      int64   `json:"net_minor"`
	R        int     `json:"r"`
	F        int     `json:"f"`
	M        int     `json:"m"`
	Weighted float64 `json:"weighted"`
	Segment  string  `json:"segment,omitempty"`
}

// CLVValues are the lifetime values, minor units.
// Total = First + Repeat + CrossSell + ServiceSaving + Referrals + Predicted −
// StandardService − Selling − CAC, exactly, and = Historic + Referrals + Predicted.
type CLVValues struct {
	Simple    int64 `json:"simple_minor"`
	Margin    int64 `json:"margin_minor"`
	Historic  int64 `json:"historic_minor"`
	NPV       int64 `json:"npv_minor"`
	Predicted int64 `json:"predicted_minor"` // CLV6
	Total     int64 `json:"total_minor"`

	First           int64 `json:"first_order_minor"`    // CLV1
	Repeat          int64 `json:"repeat_orders_minor"`  // CLV2
	CrossSell       int64 `json:"cross_sell_minor"`     // CLV3
	ServiceSaving   int64 `json:"service_saving_minor"` // CLV4
	Referrals       int64 `json:"referrals_minor"`      // CLV5
	StandardService int64 `json:"standard_service_minor"`
	Selling         int64 `json:"selling_minor"`
	CAC             int64 `json:"cac_minor"` // 0 when not known
	CACKnown        bool  `json:"cac_known"`

	// clv.parts: basic + added − cost.
	Basic int64 `json:"basic_minor"` // average order × orders of the last 365 days × expected years
	Added int64 `json:"added_minor"` // referrals + service saving (service and compensation are in it)
	Cost  int64 `json:"cost_minor"`  // acquisition, marketing and sales
}

// ValueValues are past, present and future worth, minor units, and the class.
type ValueValues struct {
	Historical        int64  `json:"historical_minor"` // margin so far
	Current           int64  `json:"current_minor"`    // margin of the last 365 days
	Potential         int64  `json:"potential_minor"`  // predicted − current; may be negative
	Continuing        int64  `json:"continuing_minor"` // margin of orders after the first
	ContinuingPerBuy  int64  `json:"continuing_per_order_minor"`
	ContinuingExpects int64  `json:"continuing_expected_minor"` // expected purchases × expected value
	AtRisk            int64  `json:"at_risk_minor"`             // predicted × 1.15
	Class             string `json:"class,omitempty"`           // empty before the first purchase
}

// ForecastValues come from the purchase and spend models. Times are days.
type ForecastValues struct {
	Predictor    string  `json:"predictor"`
	Fitted       bool    `json:"fitted"`
	Frequency    int64   `json:"frequency"`   // x
	AgeAtLast    float64 `json:"age_at_last"` // t_x
	Age          float64 `json:"age"`         // T
	Alive        float64 `json:"p_alive"`
	ChurnRisk    float64 `json:"churn_risk"`
	Purchases    float64 `json:"expected_purchases"`         // within the horizon
	MeanValue    int64   `json:"expected_value_minor"`       // of a purchase day
	Sales90      int64   `json:"expected_sales_90d_minor"`   // purchases of 90 days × value
	Order30      float64 `json:"p_order_30d"`                // P(at least one purchase in 30 days)
	NewCustomers float64 `json:"new_customer_purchases_365"` // E[X(365 days)] of a customer about to start, for comparison
}

// ExperienceValues are satisfaction and what makes it.
type ExperienceValues struct {
	Satisfaction    float64 `json:"satisfaction"`
	Surveyed        bool    `json:"surveyed"` // false: the neutral value was taken
	ComplaintPoints float64 `json:"complaint_points"`
	OpenComplaints  int     `json:"open_complaints"`
	Complaints      int     `json:"complaints"`
	ComplaintRatio  float64 `json:"complaint_ratio"` // complaints / orders; 0 without orders
	Praises         int64   `json:"praises"`
	Suggestions     int64   `json:"suggestions"`
	Referrals       int64   `json:"referrals_converted"`
}

// OrderValues describe the orders. Ratios are 0 where their denominator is.
type OrderValues struct {
	Orders        int64   `json:"orders"`
	Net           int64   `json:"net_minor"`
	Average       int64   `json:"average_minor"`
	PurchaseDays  int64   `json:"purchase_days"`
	PurchaseCycle float64 `json:"purchase_cycle_days"` // mean days between purchase days
	MarginRate    float64 `json:"gross_margin_rate"`
	Returns       int64   `json:"returns"`
	Returned      int64   `json:"returned_minor"`
	ReturnRatio   float64 `json:"return_ratio"` // money returned / money bought
}

// goodwill is the mark-up on a lost customer's value.
const goodwill = 0.15

// Values computes everything for reading. Its score and parts are Measure's.
func (m *Model) Values(s *Summary) Values {
	var v figures
	m.evaluate(s, &v)
	measure, r := m.Measure(s), m.rfm(s)
	out := Values{Score: float64(measure.Score) / unit}
	for _, p := range measure.Parts[:measure.N] {
		out.Parts = append(out.Parts, ValuesPart{p.Name, float64(p.Value) / unit, float64(p.Weight) / unit, p.Known})
	}
	out.RFM = RFMValues{r.days, s.WindowOrders, s.WindowNet, r.r, r.f, r.m, float64(r.weighted) / unit, r.segment}

	margins := v.first + v.cross + v.repeat
	out.CLV = CLVValues{
		Simple: m.simple(s), Margin: m.perYears(v.year), Historic: v.historic, NPV: m.npv(&v),
		Predicted: v.predicted, Total: v.total,
		First: v.first, Repeat: v.repeat, CrossSell: v.cross, ServiceSaving: v.saving, Referrals: v.referrals,
		StandardService: m.standardService * s.Orders, Selling: s.SellingCost, CAC: v.cac, CACKnown: v.cacKnown,
		Basic: m.basic(s), Added: v.referrals + v.saving, Cost: v.cac + s.SellingCost,
	}
	out.Value = ValueValues{
		Historical: margins, Current: v.year, Potential: v.predicted - v.year,
		Continuing:        v.cross + v.repeat,
		ContinuingExpects: roundFloat(float64(v.purchases * v.value)),
		AtRisk:            roundFloat(LossValue(float64(v.predicted), 0, goodwill)),
	}
	if s.Orders > 1 {
		out.Value.ContinuingPerBuy = mulDiv(out.Value.Continuing, 1, s.Orders-1)
	}
	if s.Bought {
		out.Value.Class = m.class(v.year, v.alive)
	}

	horizon := [2]float64{30, 90}
	var within [2]float64
	out.Forecast = ForecastValues{
		Predictor: m.predictor, Fitted: m.fitted, AgeAtLast: v.tx, Age: v.age, Frequency: int64(v.x),
		Alive: v.alive, ChurnRisk: 1 - v.alive, Purchases: v.purchases, MeanValue: roundFloat(v.value),
		NewCustomers: m.NewCustomerPurchases(365),
	}
	if s.Active {
		m.purchases.expected(v.x, v.age, horizon[:], within[:])
		out.Forecast.Sales90 = roundFloat(float64(float64(within[1]*v.alive) * v.value))
		out.Forecast.Order30 = 1 - m.purchases.rest(v.x, v.age, 30, v.alive)
	}

	out.Experience = ExperienceValues{
		Satisfaction: float64(v.satisfaction) / unit, Surveyed: v.surveyed, ComplaintPoints: v.risk,
		OpenComplaints: v.openComplaints, Complaints: len(s.Complaints), ComplaintRatio: ratio(int64(len(s.Complaints)), s.Orders),
		Praises: s.Praises, Suggestions: s.Suggestions, Referrals: s.ReferralsConverted,
	}
	out.Orders = OrderValues{
		Orders: s.Orders, Net: s.Net, PurchaseDays: s.Days, MarginRate: ratio(margins, s.Net),
		Returns: s.Returns, Returned: s.ReturnedNet, ReturnRatio: ratio(s.ReturnedNet, s.Net+s.ReturnedNet),
	}
	if s.Orders > 0 {
		out.Orders.Average = mulDiv(s.Net, 1, s.Orders)
	}
	if v.x > 0 {
		out.Orders.PurchaseCycle = v.tx / v.x
	}
	return out
}

func ratio(a, b int64) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}

// class is the value class: every (current value, P(alive)) has exactly one.
func (m *Model) class(value int64, alive float64) string {
	switch high, likely := value >= m.highValue && value >= 0, alive >= 0.5; {
	case high && likely:
		return ClassGolden
	case high:
		return ClassMeteor
	case likely && value >= 0:
		return ClassBrook
	}
	return ClassBurden
}

// NewCustomerPurchases is E[X(t)], the repeat purchase days expected in the
// first t days of a customer of whom nothing is known yet.
func (m *Model) NewCustomerPurchases(t float64) float64 {
	var out [1]float64
	m.purchases.expected(0, 0, []float64{max(0, t)}, out[:])
	return float64(out[0] * m.purchases.alive(0, 0, 0))
}

// AliveUntil is the age T, in days, at which P(alive) of a customer with x
// repeat purchase days, the last at age tx, falls to p if nothing happens:
// (alpha+tx)·[((1−p)/p)·(b+x)/a]^(1/(r+x)) − alpha (BG/NBD: b+x−1), at least
// tx. +Inf where P(alive) never falls that far.
func (m *Model) AliveUntil(x, tx, p float64) float64 {
	k := &m.purchases
	bx := k.b + x
	if !k.afterFirst {
		if x == 0 {
			return math.Inf(1)
		}
		bx--
	}
	odds := float64((1-p)/p) * bx / k.a
	return max(tx, float64((k.alpha+tx)*dmath.Pow(odds, 1/(k.r+x)))-k.alpha)
}

// LossValue is what a lost customer costs: (a + b)(1 + x) for values a and b
// and the goodwill mark-up x. Minor units, not rounded.
func LossValue(a, b, x float64) float64 { return float64((a + b) * (1 + x)) }
