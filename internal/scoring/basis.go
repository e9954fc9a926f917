package scoring

// basis is what money clv.npv, clv.predicted and clv.markov are told in. The
// parts of clv.total are margins whatever it is, or they would not add up.
type basis uint8

const (
	basisContribution basis = iota // margin
	basisProfit                    // margin less the standard service cost of each order
	basisRevenue                   // net money
)

var basisNames = [...]string{basisContribution: "contribution", basisProfit: "profit", basisRevenue: "revenue"}

// flows are P0 and R of clv.npv by the model's basis, minor units. The revenue
// of the first order is that of the first purchase day: all that is not in
// ValueSum.
func (m *Model) flows(s *Summary, v *figures) (first, year int64) {
	switch m.basis {
	case basisRevenue:
		return s.Net - s.ValueSum, s.YearNet
	case basisProfit:
		return v.first - m.standardService*min(1, s.Orders), v.year - m.standardService*s.YearOrders
	}
	return v.first, v.year
}

// told is clv.predicted by the model's basis, minor units: CLV6 is always the
// contribution.
func (m *Model) told(v *figures) int64 {
	if m.basis == basisContribution {
		return v.predicted
	}
	return roundFloat(float64(float64(v.discounted*v.alive) * m.perDay(v)))
}

// perDay is what a purchase day brings by the model's basis, minor units, not
// rounded.
func (m *Model) perDay(v *figures) float64 {
	switch m.basis {
	case basisRevenue:
		return v.value
	case basisProfit:
		return float64(v.value*m.marginOf1) - float64(m.standardService)
	}
	return float64(v.value * m.marginOf1)
}
