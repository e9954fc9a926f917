package scoring

// Decide returns the tier after an evaluation that gave score, from the tier
// before it (−1: none yet). Nobody has a tier before the first counted
// purchase; whoever had one, but whose purchases are not known any more, has
// the lowest, as whoever has returned everything. Else a customer
// rises to the highest tier entered at score, and falls, one tier at a time,
// while score is below the tier's leave threshold.
func (m *Model) Decide(prev int, s *Summary, score int64) int {
	switch {
	case !s.Bought:
		return min(prev, 0)
	case !s.Active:
		return 0
	}
	tier := max(0, min(prev, len(m.tiers)-1))
	for next := len(m.tiers) - 1; next > tier; next-- {
		if m.tiers[next].Enter <= score {
			return next
		}
	}
	for tier > 0 && score < m.tiers[tier].Leave {
		tier--
	}
	return tier
}

// DistanceToNext is what score lacks to enter the tier above, 1/10,000; ok is
// false without a tier (−1) and in the highest one.
func (m *Model) DistanceToNext(tier int, score int64) (distance int64, ok bool) {
	if tier < 0 || tier >= len(m.tiers)-1 {
		return 0, false
	}
	return m.tiers[tier+1].Enter - score, true
}

// DistanceToKeep is what score may lose before the tier is left, 1/10,000: at 0
// it is still kept. ok is false without a tier (−1) and in the lowest one.
func (m *Model) DistanceToKeep(tier int, score int64) (distance int64, ok bool) {
	if tier <= 0 || tier >= len(m.tiers) {
		return 0, false
	}
	return score - m.tiers[tier].Leave, true
}
