package scoring

// Keeps reports whether it is certain, without the exact prediction, that
// m.Decide(tier, s, m.Measure(s).Score) is tier. False means: not certain,
// evaluate. It allocates nothing and costs a fraction of Measure.
//
// CLV6 is enclosed in closed form. Measures that cannot fall as CLV6 rises are
// evaluated at the two ends: the score lies between theirs, and so does the
// tier, because Decide from one tier cannot fall as the score rises.
func (m *Model) Keeps(tier int, s *Summary) bool {
	if !s.Bought || !s.Active {
		return m.Decide(tier, s, 0) == tier // whatever the score
	}
	if tier < 0 || tier >= len(m.tiers) || !m.enclosed {
		return false
	}
	var v figures
	m.record(s, &v)
	m.survive(s, &v)

	// Whoever is alive buys at a falling rate, so expected purchases of equal
	// periods fall, and so do discounts: the sum of their products is at least
	// that of the means (Chebyshev), and at most that with the first discount.
	// The slack is for rounding: expected loses some (a+b)/r ≤ 10⁶ units in the
	// last place, and a minor unit more covers the rounding of CLV6.
	const slack = 1e-6
	end := m.horizon[len(m.horizon)-1]
	high := m.worth(float64(m.purchases.atMost(v.x, v.age, end)*m.discount[0]), &v)
	high = float64(high*(1+slack)) + 1
	// Far beyond any customer, where the sums of a total could wrap and break
	// the order. Written so that NaN is beyond it too.
	const limit = 1 << 60
	if before := v.historic + v.referrals; !(high < limit && v.value >= 0) || max(before, v.cac) > limit || min(before, v.cac) < -limit {
		return false
	}
	if tier < len(m.tiers)-1 && m.decideAt(high, tier, s, &v) != tier {
		return false
	}
	if tier == 0 {
		return true
	}
	low := m.worth(float64(m.purchases.atLeast(v.x, v.age, end)*m.meanDiscount), &v)
	low = float64(low*(1-slack)) - 1
	return m.decideAt(low, tier, s, &v) == tier
}

// decideAt is the tier after tier if CLV6 were as given, minor units.
func (m *Model) decideAt(predicted float64, tier int, s *Summary, v *figures) int {
	v.setPredicted(roundFloat(predicted))
	var out Measure
	m.compose(s, v, &out)
	return m.Decide(tier, s, out.Score)
}

// enclosable tells whether Keeps may trust its bounds: the score cannot fall as
// CLV6 rises, because no field that rests on it has a negative weight.
func (m *Model) enclosable() bool {
	for _, f := range m.measure {
		switch f.field {
		case fieldContribution, fieldTotal:
			if f.weight < 0 {
				return false
			}
		case fieldPredicted:
			if f.weight < 0 || m.basis != basisContribution {
				return false // told in another money than CLV6
			}
		}
	}
	return true
}
