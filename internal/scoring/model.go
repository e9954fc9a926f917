package scoring

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"

	"github.com/tierstream/tierstream/internal/scoring/dmath"
)

// FormulasVersion is part of every model's hash: raise it when any formula,
// rounding or bit of package dmath changes, that is when a golden file does.
const FormulasVersion = 1

// A Model holds every value that decides an outcome, in the form the formulas
// use. It is immutable and safe for concurrent use. Parse or Default make one.
type Model struct {
	name, currency string
	calendar       *Calendar
	canonical      []byte
	hash           [32]byte

	windowDays      int
	years           int64
	typicalOrder    int64 // minor units
	typicalMargin   int64
	marginRate      decimal
	standardService int64 // minor units per order
	defaultCAC      int64
	npvFactor       float64 // Σ_{t=1..years} (retention/(1+discount))ᵗ
	basis           basis
	goodwill        float64 // mark-up on a lost customer's value

	recency    [4]int32 // days
	frequency  [4]int64 // orders
	monetary   [4]int64 // minor units; reached, not exceeded
	rfmWeights [3]decimal
	segments   [5][5]string // by R score − 1, second score − 1
	meanOfFM   bool         // the second score is the mean of F and M; false: F

	fitted       bool
	predictor    string
	purchases    purchaseModel
	spend        spendModel
	horizon      []float64 // ends of the discount periods, days
	discount     []float64 // factor of each
	meanDiscount float64   // mean of discount
	marginOf1    float64   // margin rate as float64

	clusters  *clustersDocument // nil: none
	markov    markovModel
	lifecycle lifecycleDocument

	neutral   float64
	points    [5]float64 // of an open complaint by severity − 1
	kept      float64
	decay     float64 // ln 2 per half-life, per millisecond
	fullCLV   int64   // minor units
	halfLife  float64 // days; what decay is made of
	highValue int64   // V*, minor units
	aliveFrom float64 // P(alive)

	contribution [4]int64 // weights of clv, cac, satisfaction, retention, 1/10,000
	measure      []measured
	enclosed     bool // Keeps applies: enclosable
	tiers        []Tier
}

// measured is one field of the measure.
type measured struct {
	field  field
	weight int64 // 1/10,000
}

// A Tier is one rank; its index in Tiers is the rank. Thresholds are scores in
// 1/10,000. The lowest tier takes everybody else: its thresholds are 0 and are
// not looked at.
type Tier struct {
	ID, Name     string
	Enter, Leave int64
}

// unit is one whole point of a score, part or weight, which are in 1/10,000.
const unit = 10_000

var (
	currencyForm = regexp.MustCompile(`^[A-Z]{3}$`)
	nameForm     = regexp.MustCompile(`^[^\pC\s](?:[^\pC]{0,62}[^\pC\s])?$`)
	idForm       = regexp.MustCompile(`^[a-z][a-z0-9_-]{0,31}$`)
)

// A check collects the first complaint.
type check struct{ err error }

func (c *check) that(ok bool, format string, args ...any) {
	if !ok && c.err == nil {
		c.err = fmt.Errorf(format, args...)
	}
}

func between[T int | int64 | float64 | decimal](c *check, key string, v, lo, hi T) {
	c.that(v >= lo && v <= hi, "%s is %v: want %v to %v", key, v, lo, hi)
}

func ascending[T int32 | int64 | decimal](c *check, key string, v []T) {
	c.that(len(v) == 4, "%s has %d cut points: want 4", key, len(v))
	for i, x := range v {
		c.that(x >= 0, "%s holds %v: want 0 or more", key, x)
		c.that(i == 0 || x > v[i-1], "%s %v: want cut points in ascending order", key, v)
	}
}

// build validates a document and makes its model.
func build(d document) (*Model, error) {
	const maxMoney = 1_000_000_000_000
	c := &check{}
	c.that(nameForm.MatchString(d.Name), "name is %q: want 1 to 64 printable characters", d.Name)
	c.that(currencyForm.MatchString(d.Currency), "currency is %q: want an ISO 4217 code such as EUR", d.Currency)
	between(c, "typical_order_minor", d.TypicalOrder, 1, maxMoney)
	between(c, "margin_rate", d.MarginRate, 0, million)
	between(c, "window_days", d.WindowDays, 1, 365)
	between(c, "expected_years", d.ExpectedYears, 1, 50)
	between(c, "standard_service_cost_minor", d.StandardServiceCost, 0, maxMoney)
	told := slices.Index(basisNames[:], d.Basis)
	c.that(told >= 0, "clv_basis is %q: want %s", d.Basis, strings.Join(basisNames[:], ", "))
	between(c, "goodwill", d.Goodwill, 0, 100*million)
	between(c, "npv.yearly_retention", d.NPV.Retention, 0, million)
	between(c, "npv.yearly_discount", d.NPV.Discount, 0, 10*million)

	ascending(c, "rfm.recency_days", d.RFM.RecencyDays)
	ascending(c, "rfm.frequency_orders", d.RFM.FrequencyOrders)
	ascending(c, "rfm.monetary_orders", d.RFM.MonetaryOrders)
	for _, m := range d.RFM.MonetaryOrders {
		between(c, "rfm.monetary_orders", m, 0, 1_000_000*million)
	}
	w := d.RFM.Weights
	for _, v := range []decimal{w.Recency, w.Frequency, w.Monetary} {
		between(c, "rfm.weights", v, 0, 1000*million)
	}
	c.that(w.Recency+w.Frequency+w.Monetary > 0, "rfm.weights are all 0: want one above")

	p := d.Prediction
	c.that(p.Predictor == "mbg_nbd" || p.Predictor == "bg_nbd", "prediction.predictor is %q: want mbg_nbd or bg_nbd", p.Predictor)
	between(c, "prediction.r", p.R, 0.001, 10) // above 10 the series of S loses digits
	between(c, "prediction.alpha_days", p.Alpha, 0.1, 100_000)
	between(c, "prediction.a", p.A, 0.001, 1000)
	between(c, "prediction.b", p.B, 0.001, 1000)
	c.that(p.A+p.B <= 1000, "prediction.a + prediction.b is %v: want at most 1000, beyond it customers never leave", p.A+p.B)
	between(c, "prediction.horizon_days", p.Horizon, 1, 3650)
	c.that(c.err != nil || computable(p.A, p.Alpha, float64(p.Horizon)),
		"prediction: a %v, alpha_days %v and horizon_days %v cannot be computed: want (a − 1)·ln(1 + horizon_days/alpha_days) at most 30", p.A, p.Alpha, p.Horizon)
	between(c, "prediction.yearly_discount", p.Discount, 0, 10*million)
	between(c, "prediction.discount_periods", p.Periods, 1, maxPeriods)
	between(c, "prediction.spend.p", p.Spend.P, 0.001, 10_000)
	between(c, "prediction.spend.q", p.Spend.Q, 1.001, 10_000)
	if p.Spend.V != nil {
		between(c, "prediction.spend.v_minor", *p.Spend.V, 0.001, 1e15)
	}

	d.Markov.validate(c)
	between(c, "lifecycle.new_days", int64(d.Lifecycle.New), 1, 36_500)
	between(c, "lifecycle.lapsing_days", int64(d.Lifecycle.Lapsing), 1, 36_500)
	between(c, "lifecycle.lapsed_days", int64(d.Lifecycle.Lapsed), int64(d.Lifecycle.Lapsing)+1, 36_501)

	between(c, "satisfaction.neutral", d.Satisfaction.Neutral, 0, 100*million)
	c.that(len(d.Satisfaction.Points) == 5, "satisfaction.complaint_points has %d values: want 5, for severity 1 to 5", len(d.Satisfaction.Points))
	for i, v := range d.Satisfaction.Points {
		between(c, "satisfaction.complaint_points", v, 0, 100*million)
		c.that(i == 0 || v >= d.Satisfaction.Points[i-1], "satisfaction.complaint_points: want no fewer points for a worse severity")
	}
	between(c, "satisfaction.half_life_days", d.Satisfaction.HalfLife, million/100, 36_500*million)
	between(c, "satisfaction.kept_when_resolved", d.Satisfaction.Kept, 0, million)
	cw := d.Contribution.Weights
	weights := [4]decimal{cw.CLV, cw.CAC, cw.Satisfaction, cw.Retention}
	sum := decimal(0)
	for _, v := range weights {
		between(c, "contribution.weights", v, 0, million)
		c.that(v%100 == 0, "contribution.weights hold %v: want at most 4 decimals", v)
		sum += v
	}
	c.that(sum == million, "contribution.weights sum to %v: want 1", sum)
	between(c, "contribution.clv_full_margins", d.Contribution.FullMargins, million/1000, 1_000_000*million)
	between(c, "value_class.high_from_margins", d.ValueClass.HighFromMargins, 0, 1_000_000*million)
	between(c, "value_class.alive_from", d.ValueClass.AliveFrom, 0, million)
	if d.Clusters != nil {
		d.Clusters.validate(c)
	}
	d.RFM.setMap(c)
	if c.err != nil {
		return nil, c.err
	}

	m := &Model{
		name: d.Name, currency: d.Currency,
		windowDays: d.WindowDays, years: int64(d.ExpectedYears),
		typicalOrder: d.TypicalOrder, marginRate: d.MarginRate, standardService: d.StandardServiceCost,
		recency: [4]int32(d.RFM.RecencyDays), frequency: [4]int64(d.RFM.FrequencyOrders),
		rfmWeights: [3]decimal{w.Recency, w.Frequency, w.Monetary}, meanOfFM: d.RFM.Axis == axisMean,
		basis: basis(told), goodwill: d.Goodwill.float(), lifecycle: d.Lifecycle, aliveFrom: d.ValueClass.AliveFrom.float(),
		fitted: p.Fitted, predictor: p.Predictor, marginOf1: d.MarginRate.float(),
		purchases: purchaseModel{r: p.R, alpha: p.Alpha, a: p.A, b: p.B, afterFirst: p.Predictor == "mbg_nbd"},
		neutral:   d.Satisfaction.Neutral.float(), kept: d.Satisfaction.Kept.float(),
		decay: math.Ln2 / float64(d.Satisfaction.HalfLife.float()*msPerDay), halfLife: d.Satisfaction.HalfLife.float(),
	}
	m.clusters = d.Clusters
	m.markov = d.Markov.model(p.Discount.float())
	m.purchases.tabulate()
	var err error
	if m.calendar, err = NewCalendar(d.Zone); err != nil {
		return nil, fmt.Errorf("zone: %w", err)
	}
	m.typicalMargin = max(1, mulDiv(int64(d.MarginRate), d.TypicalOrder, million))
	if d.DefaultCAC == nil {
		d.DefaultCAC = &m.typicalMargin
	}
	m.defaultCAC = *d.DefaultCAC
	between(c, "default_cac_minor", m.defaultCAC, 0, maxMoney)
	if p.Spend.V == nil {
		v := float64(float64(d.TypicalOrder)*(p.Spend.Q-1)) / p.Spend.P
		d.Prediction.Spend.V = &v
	}
	m.spend = spendModel{p: p.Spend.P, q: p.Spend.Q, v: *d.Prediction.Spend.V}

	growth := d.NPV.Retention.float() / (1 + d.NPV.Discount.float())
	for power, t := growth, int64(0); t < m.years; t++ {
		m.npvFactor += power
		power = float64(power * growth)
	}
	for i := range p.Periods {
		length := float64(p.Horizon) / float64(p.Periods)
		m.horizon = append(m.horizon, float64(float64(i+1)*length))
		middle := float64((float64(i)+0.5)*length) / 365
		m.discount = append(m.discount, dmath.Pow(1+p.Discount.float(), -middle))
		m.meanDiscount += m.discount[i] / float64(p.Periods)
	}
	for i, v := range d.RFM.MonetaryOrders {
		m.monetary[i] = mulDiv(int64(v), d.TypicalOrder, million)
	}
	for i, v := range d.Satisfaction.Points {
		m.points[i] = v.float()
	}
	for i, v := range weights {
		m.contribution[i] = int64(v) / 100
	}
	m.fullCLV = max(1, mulDiv(int64(d.Contribution.FullMargins), m.typicalMargin, million))
	m.highValue = mulDiv(int64(d.ValueClass.HighFromMargins), m.typicalMargin, million)

	m.setSegments(c, d.RFM.Segments)
	m.setMeasure(c, d.Measure)
	m.setTiers(c, d.Tiers)
	if c.err != nil {
		return nil, c.err
	}
	m.enclosed = m.enclosable()
	if m.canonical, err = json.Marshal(d); err != nil {
		return nil, fmt.Errorf("encoding canonical form: %w", err)
	}
	h := sha256.New()
	h.Write([]byte("tierstream model\n"))
	h.Write(binary.BigEndian.AppendUint32(nil, FormulasVersion))
	zones := zoneDataHash()
	h.Write(zones[:])
	h.Write(m.canonical)
	h.Sum(m.hash[:0])
	return m, nil
}

// computable tells whether float64 holds the sums of CET. It no longer does,
// for a customer just begun, from about 60 on: nearly everybody leaves at once,
// and the horizon is hundreds of purchases long. Times are days.
func computable(a, alpha, horizon float64) bool {
	return float64((a-1)*dmath.Log1p(horizon/alpha)) <= 30
}

func (m *Model) setMeasure(c *check, d measureDocument) {
	c.that(len(d) >= 1 && len(d) <= len(Measure{}.Parts), "measure has %d fields: want 1 to %d", len(d), len(Measure{}.Parts))
	for i, f := range d {
		which := slices.Index(fieldNames[:], f.Field)
		c.that(which >= 0, "measure: no field %q: want one of %s", f.Field, strings.Join(fieldNames[:], ", "))
		c.that(i == 0 || d[i-1].Field != f.Field, "measure: %s stands there twice", f.Field)
		between(c, "measure."+f.Field, f.Weight, -million, million)
		c.that(f.Weight%100 == 0, "measure.%s is %v: want at most 4 decimals", f.Field, f.Weight)
		m.measure = append(m.measure, measured{field(which), int64(f.Weight) / 100})
	}
}

func (m *Model) setTiers(c *check, tiers []tierDocument) {
	c.that(len(tiers) >= 2 && len(tiers) <= 32, "tiers: %d: want 2 to 32", len(tiers))
	seen := map[string]bool{}
	for _, class := range classNames {
		seen[class] = true
	}
	for i, t := range tiers {
		tier := Tier{ID: t.ID, Name: t.Name}
		c.that(idForm.MatchString(t.ID), "tiers: id %q: want a-z, 0-9, _ and -", t.ID)
		c.that(nameForm.MatchString(t.Name), "tiers: %s: name is %q: want 1 to 64 printable characters", t.ID, t.Name)
		for n, word := range []string{t.ID, strings.ToLower(t.Name)} {
			if n == 1 && word == t.ID {
				continue // a tier may be named as its id
			}
			c.that(!seen[word], "tiers: %q is another tier or a value class: want a word of its own", word)
			seen[word] = true
		}
		if i == 0 {
			c.that(t.Enter == nil && t.Leave == nil, "tiers: %s is the lowest and takes everybody else: want neither enter nor leave", t.ID)
			m.tiers = append(m.tiers, tier)
			continue
		}
		c.that(t.Enter != nil && t.Leave != nil, "tiers: %s: want enter and leave", t.ID)
		if c.err != nil {
			return
		}
		const limit = 100_000_000_000 * decimal(million)
		between(c, "tiers: "+t.ID+": enter", *t.Enter, -limit, limit)
		between(c, "tiers: "+t.ID+": leave", *t.Leave, -limit, limit)
		c.that(*t.Enter%100 == 0 && *t.Leave%100 == 0, "tiers: %s: want at most 4 decimals", t.ID)
		tier.Enter, tier.Leave = int64(*t.Enter)/100, int64(*t.Leave)/100
		c.that(tier.Leave < tier.Enter, "tiers: %s: leave is %v: want below enter, %v", t.ID, *t.Leave, *t.Enter)
		if i > 1 {
			c.that(tier.Enter > m.tiers[i-1].Enter && tier.Leave > m.tiers[i-1].Leave,
				"tiers: %s: want enter and leave above those of %s, the tier below", t.ID, m.tiers[i-1].ID)
		}
		m.tiers = append(m.tiers, tier)
	}
}

// Hash identifies the model: SHA-256 over FormulasVersion, the zone data and
// the canonical form.
func (m *Model) Hash() [32]byte { return m.hash }

// Name is the version's name.
func (m *Model) Name() string { return m.name }

// Currency is the base currency, ISO 4217.
func (m *Model) Currency() string { return m.currency }

// Calendar maps instants to the model's local dates.
func (m *Model) Calendar() *Calendar { return m.calendar }

// WindowDays is the length of the window of F and M.
func (m *Model) WindowDays() int { return m.windowDays }

// Fitted tells whether the prediction's parameters come from the company's own data.
func (m *Model) Fitted() bool { return m.fitted }

// TypicalOrder is what a usual order is worth, minor units.
func (m *Model) TypicalOrder() int64 { return m.typicalOrder }

// Tiers returns the tiers by rank, lowest first. The slice is the model's: do not
// write to it.
func (m *Model) Tiers() []Tier { return m.tiers }
