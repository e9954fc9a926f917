package scoring

import (
	"math"
	"time"

	"github.com/tierstream/tierstream/internal/scoring/dmath"
)

// Value classes: high or low current value v by likely or unlikely to be alive,
// p. V* and p* (½) are the model's. Tiers may not be called like them.
const (
	ClassGolden = "golden" // v ≥ V*, p ≥ p*
	ClassMeteor = "meteor" // v ≥ V*, p < p*
	ClassBrook  = "brook"  // 0 ≤ v < V*, p ≥ p*
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
	// Cluster is the nearest centroid of K-means, if the model has any.
	Cluster string `json:"cluster,omitempty"`
}

// CLVValues are the lifetime values, minor units.
// Total = First + Repeat + CrossSell + ServiceSaving + Referrals + Residual −
// StandardService − Selling − CAC, exactly, and = Historic + Referrals + Residual.
type CLVValues struct {
	Simple    int64 `json:"simple_minor"`
	Margin    int64 `json:"margin_minor"`
	Historic  int64 `json:"historic_minor"`
	NPV       int64 `json:"npv_minor"`
	Predicted int64 `json:"predicted_minor"`
	Total     int64 `json:"total_minor"`

	// Basis is what NPV, Predicted and Markov are told in: contribution, profit
	// or revenue. All else is contribution, or what its name says.
	Basis      string  `json:"basis"`
	Markov     int64   `json:"markov_minor"`
	MarkovLow  int64   `json:"markov_low_minor"`  // every chance to buy one standard error lower
	MarkovHigh int64   `json:"markov_high_minor"` // and higher
	Recency    int     `json:"recency_state"`     // of the Markov model, from 1; 0 is lost, or no order
	ToCAC      float64 `json:"ltv_to_cac"`        // (Total + CAC) : CAC; 0 without a recorded CAC

	First           int64 `json:"first_order_minor"`    // CLV1
	Repeat          int64 `json:"repeat_orders_minor"`  // CLV2
	CrossSell       int64 `json:"cross_sell_minor"`     // CLV3
	ServiceSaving   int64 `json:"service_saving_minor"` // CLV4
	Referrals       int64 `json:"referrals_minor"`      // CLV5
	Residual        int64 `json:"loyalty_minor"`        // CLV6: the predicted contribution
	StandardService int64 `json:"standard_service_minor"`
	Selling         int64 `json:"selling_minor"`
	CAC             int64 `json:"cac_minor"` // 0 when not known
	CACKnown        bool  `json:"cac_known"`

	// clv.parts: Parts = Basic + Added − Cost, Cost = Direct + Indirect.
	Parts    int64 `json:"parts_minor"`
	Basic    int64 `json:"basic_minor"` // average order × orders of the last 365 days × expected years
	Added    int64 `json:"added_minor"` // referrals + service saving (actual service and compensation are in it)
	Cost     int64 `json:"cost_minor"`
	Direct   int64 `json:"direct_cost_minor"`   // acquisition
	Indirect int64 `json:"indirect_cost_minor"` // marketing and sales
}

// ValueValues are past, present and future worth, minor units, and the class.
type ValueValues struct {
	Historical        int64  `json:"historical_minor"` // margin so far
	Current           int64  `json:"current_minor"`    // margin of the last 365 days
	Potential         int64  `json:"potential_minor"`  // CLV6 − current; may be negative
	Continuing        int64  `json:"continuing_minor"` // margin of orders after the first
	ContinuingPerBuy  int64  `json:"continuing_per_order_minor"`
	ContinuingExpects int64  `json:"continuing_expected_minor"` // expected purchases × expected value
	AtRisk            int64  `json:"at_risk_minor"`             // CLV6 × (1 + goodwill)
	Class             string `json:"class,omitempty"`           // empty before the first purchase
	Lifecycle         string `json:"lifecycle"`
	Health            string `json:"health"`
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

	// The next order is as likely to come before as after this, if they are still
	// a customer: days from now, and that local date. 0 and empty without an
	// active order, or if it is more than ten years away.
	NextOrderDays float64 `json:"next_order_days"`
	NextOrderOn   string  `json:"next_order_on,omitempty"`
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

	NPS   *int32   `json:"nps"`   // the last answer, 0 to 10; null: never asked
	CSAT  *float64 `json:"csat"`  // the last answer, scaled to 0 to 100
	CES   *float64 `json:"ces"`   // the same; high is easy
	Loyal *bool    `json:"loyal"` // would recommend: NPS of 9 or 10; null: never asked

	OldestOpen       float64 `json:"oldest_open_complaint_days"`
	Resolution       float64 `json:"mean_resolution_days"` // from opening to resolving, of resolved ones; 0 without any
	RepeatComplaints int     `json:"repeat_complaints"`    // beyond the first
	PerComplaint     int64   `json:"cost_per_complaint_minor"`
}

// OrderValues describe the orders. Ratios are 0 where their denominator is.
type OrderValues struct {
	Orders        int64   `json:"orders"`
	Net           int64   `json:"net_minor"`
	Average       int64   `json:"average_minor"`
	Largest       int64   `json:"largest_minor"`
	CustomerDays  int32   `json:"customer_days"` // since the first order; 0 without one
	PurchaseDays  int64   `json:"purchase_days"`
	PurchaseCycle float64 `json:"purchase_cycle_days"` // mean days between purchase days
	MarginRate    float64 `json:"gross_margin_rate"`
	Returns       int64   `json:"returns"`
	Returned      int64   `json:"returned_minor"`
	ReturnRatio   float64 `json:"return_ratio"` // money returned / money bought
}

// reading is what Values shows and Explain explains: the same figures, computed
// once.
type reading struct {
	figures
	s       *Summary
	measure Measure
	rfm     rfm
	within  [maxPeriods]float64 // purchase days expected to the end of each discount period, if alive
	soon    [2]float64          // and within 30 and 90 days
	firstly int64               // P0 of clv.npv
	yearly  int64               // R of clv.npv
	nc      float64             // what a period with a purchase brings in the Markov model, minor units
}

func (m *Model) read(s *Summary) *reading {
	r := &reading{s: s, rfm: m.rfm(s)}
	m.forecast(s, &r.figures, &r.within)
	m.compose(s, &r.figures, &r.measure)
	r.firstly, r.yearly = m.flows(s, &r.figures)
	if s.Active {
		r.nc = float64(m.perDay(&r.figures) * m.markov.perBuy)
		m.purchases.expected(r.x, r.age, []float64{30, 90}, r.soon[:])
	}
	return r
}

// Values computes everything for reading. Its score and parts are Measure's.
func (m *Model) Values(s *Summary) Values { return m.values(m.read(s)) }

func (m *Model) values(v *reading) Values {
	s, r := v.s, &v.rfm
	out := Values{Score: float64(v.measure.Score) / unit}
	for _, p := range v.measure.Parts[:v.measure.N] {
		out.Parts = append(out.Parts, ValuesPart{p.Name, float64(p.Value) / unit, float64(p.Weight) / unit, p.Known})
	}
	out.RFM = RFMValues{r.days, s.WindowOrders, s.WindowNet, r.r, r.f, r.m, float64(r.weighted) / unit, r.segment, m.cluster(s)}

	margins := v.first + v.cross + v.repeat
	out.CLV = CLVValues{
		Simple: m.simple(s), Margin: m.perYears(v.year), Historic: v.historic, NPV: m.npv(s, &v.figures),
		Predicted: m.told(&v.figures), Total: v.total, Basis: basisNames[m.basis],
		First: v.first, Repeat: v.repeat, CrossSell: v.cross, ServiceSaving: v.saving, Referrals: v.referrals, Residual: v.predicted,
		StandardService: m.standardService * s.Orders, Selling: s.SellingCost, CAC: v.cac, CACKnown: v.cacKnown,
		Basic: m.basic(s), Added: v.referrals + v.saving, Cost: v.cac + s.SellingCost, Direct: v.cac, Indirect: s.SellingCost,
	}
	c := &out.CLV
	c.Parts = c.Basic + c.Added - c.Cost
	if v.cac > 0 {
		c.ToCAC = LTVToCAC(float64(v.total+v.cac), float64(v.cac))
	}
	if s.Active {
		k := &m.markov
		c.Recency = k.state(v.age - v.tx)
		c.Markov, c.MarkovLow, c.MarkovHigh = k.worth(k.at, c.Recency, v.nc), k.worth(k.low, c.Recency, v.nc), k.worth(k.high, c.Recency, v.nc)
	}

	out.Value = ValueValues{
		Historical: margins, Current: v.year, Potential: v.predicted - v.year,
		Continuing:        v.cross + v.repeat,
		ContinuingExpects: roundFloat(float64(v.purchases * v.value)),
		AtRisk:            roundFloat(LossValue(float64(v.predicted), 0, m.goodwill)),
		Lifecycle:         m.stage(s),
	}
	out.Value.Health = m.health(out.Value.Lifecycle, v.alive)
	if s.Orders > 1 {
		out.Value.ContinuingPerBuy = mulDiv(out.Value.Continuing, 1, s.Orders-1)
	}
	if s.Bought {
		out.Value.Class = m.class(v.year, v.alive)
	}

	out.Forecast = ForecastValues{
		Predictor: m.predictor, Fitted: m.fitted, AgeAtLast: v.tx, Age: v.age, Frequency: int64(v.x),
		Alive: v.alive, ChurnRisk: 1 - v.alive, Purchases: v.purchases, MeanValue: roundFloat(v.value),
		NewCustomers: m.NewCustomerPurchases(365),
	}
	if s.Active {
		f := &out.Forecast
		f.Sales90 = roundFloat(float64(float64(v.soon[1]*v.alive) * v.value))
		f.Order30 = 1 - m.purchases.rest(v.x, v.age, 30, v.alive)
		if days := m.purchases.median(v.x, v.age); days <= longest {
			f.NextOrderDays = days
			f.NextOrderOn = date(s.Today + int32(s.DayPart+days))
		}
	}

	m.experience(v, &out.Experience)
	out.Orders = OrderValues{
		Orders: s.Orders, Net: s.Net, Largest: s.Largest, PurchaseDays: s.Days, MarginRate: ratio(margins, s.Net),
		Returns: s.Returns, Returned: s.ReturnedNet, ReturnRatio: ratio(s.ReturnedNet, s.Net+s.ReturnedNet),
	}
	if s.Active {
		out.Orders.CustomerDays = s.Today - s.FirstDay
	}
	if s.Orders > 0 {
		out.Orders.Average = mulDiv(s.Net, 1, s.Orders)
	}
	if v.x > 0 {
		out.Orders.PurchaseCycle = v.tx / v.x
	}
	return out
}

func (m *Model) experience(v *reading, out *ExperienceValues) {
	s := v.s
	all := int64(len(s.Complaints)) + s.ComplaintsCompacted
	*out = ExperienceValues{
		Satisfaction: float64(v.satisfaction) / unit, Surveyed: v.surveyed, ComplaintPoints: v.risk,
		OpenComplaints: v.openComplaints, Complaints: int(all), ComplaintRatio: ratio(all, s.Orders),
		Praises: s.Praises, Suggestions: s.Suggestions, Referrals: s.ReferralsConverted,
		CSAT: s.CSAT.scaled(), CES: s.CES.scaled(), RepeatComplaints: int(max(0, all-1)),
	}
	if s.NPS.Known {
		score, loyal := s.NPS.Score, s.NPS.Score >= 9
		out.NPS, out.Loyal = &score, &loyal
	}
	if all > 0 {
		out.PerComplaint = mulDiv(s.ServiceCost+s.Compensation, 1, all)
	}
	var took float64
	resolved := 0
	for i := range s.Complaints {
		switch c := &s.Complaints[i]; c.Status {
		case ComplaintOpen:
			out.OldestOpen = max(out.OldestOpen, float64(s.At-c.Opened)/msPerDay)
		case ComplaintResolved:
			took += float64(c.Changed-c.Opened) / msPerDay
			resolved++
		}
	}
	if resolved > 0 {
		out.Resolution = took / float64(resolved)
	}
}

// scaled is an answer on a scale from 1, as 0 to 100; nil when there is none.
func (r *Response) scaled() *float64 {
	if !r.Known || r.ScaleMax <= 1 {
		return nil
	}
	v := scale(r)
	return &v
}

// longest is how far ahead a date is told, days.
const longest = 3650

// date is a day number as a date: 2026-01-31.
func date(day int32) string { return time.Unix(int64(day)*86_400, 0).UTC().Format(time.DateOnly) }

func ratio(a, b int64) float64 {
	if b == 0 {
		return 0
	}
	return float64(a) / float64(b)
}

// class is the value class: every (current value, P(alive)) has exactly one.
func (m *Model) class(value int64, alive float64) string {
	switch high, likely := value >= m.highValue && value >= 0, alive >= m.aliveFrom; {
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
