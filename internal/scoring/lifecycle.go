package scoring

import "github.com/tierstream/tierstream/internal/scoring/dmath"

// Stages of a customer. Every customer is in exactly one.
const (
	StageProspect    = "prospect"    // no purchase yet
	StageNew         = "new"         // first order at most new_days ago
	StageActive      = "active"      // none of the others
	StageLapsing     = "lapsing"     // no order for more than lapsing_days
	StageLapsed      = "lapsed"      // for lapsed_days or more, or every order returned
	StageReactivated = "reactivated" // the last order ended a silence of lapsed_days or more
)

// Health in three.
const (
	HealthValuable = "valuable" // likely to be a customer still, and not lapsing
	HealthAtRisk   = "at_risk"
	HealthInactive = "inactive" // prospects and lapsed customers
)

// stage is where in their life a customer is. Days are whole days since the
// local date of an order.
func (m *Model) stage(s *Summary) string {
	since := s.Today - s.LastDay
	switch l := &m.lifecycle; {
	case !s.Bought:
		return StageProspect
	case !s.Active || since >= l.Lapsed:
		return StageLapsed
	case since > l.Lapsing:
		return StageLapsing
	case s.LastDay-s.PreviousDay >= l.Lapsed:
		return StageReactivated
	case s.Today-s.FirstDay <= l.New:
		return StageNew
	}
	return StageActive
}

// health of a customer in a stage.
func (m *Model) health(stage string, alive float64) string {
	switch {
	case stage == StageProspect || stage == StageLapsed:
		return HealthInactive
	case stage == StageLapsing || alive < m.aliveFrom:
		return HealthAtRisk
	}
	return HealthValuable
}

// median is the time t, days, by which a customer who is alive at T has bought
// again with probability ½: who is alive and does not buy does not drop out
// either, so ((alpha+T)/(alpha+T+t))^(r+x) = ½. +Inf when it is beyond float64.
func (p *purchaseModel) median(x, T float64) float64 {
	return float64((p.alpha + T) * (dmath.Pow(2, 1/(p.r+x)) - 1))
}
