package btyd

import (
	"fmt"
	"math"

	"github.com/tierstream/tierstream/internal/scoring/dmath"
)

// BGBB is a fitted BG/BB (Fader, Hardie, Shang 2010): at each of a number of
// opportunities a customer who is there buys with a probability that is beta
// distributed over customers (alpha, beta), after having left before it with a
// probability that is beta distributed too (gamma, delta).
//
// Of a History, Age is the number n of opportunities so far, AgeAtLast that of
// the last purchase, Frequency the purchases among them: whole numbers, the
// opportunity at which the customer came not counted. Times are opportunities;
// a part of one does not count. Alive is P(alive at opportunity n+1), as in the
// paper. What it costs grows with n − t_x, and with the horizon.
type BGBB struct {
	alpha, beta, gamma, delta float64
	logBeta                   float64 // ln B(alpha, beta)
}

// NewBGBB makes a BG/BB.
func NewBGBB(alpha, beta, gamma, delta float64) (*BGBB, error) {
	if err := positive("BG/BB", "alpha", alpha, "beta", beta, "gamma", gamma, "delta", delta); err != nil {
		return nil, err
	}
	return &BGBB{alpha: alpha, beta: beta, gamma: gamma, delta: delta, logBeta: dmath.LogBeta(alpha, beta)}, nil
}

// maxOpportunities bounds n, and horizons.
const maxOpportunities = 1_000_000

// Name implements Model.
func (p *BGBB) Name() string { return "BG/BB" }

// Check implements Model.
func (p *BGBB) Check(h History) error {
	if err := h.Check(); err != nil {
		return err
	}
	x, tx, n := h.Frequency, h.AgeAtLast, h.Age
	switch {
	case n != math.Floor(n) || n > maxOpportunities:
		return fmt.Errorf("n, the number of opportunities, is %v: want a whole number, 0 to %d", n, maxOpportunities)
	case tx != math.Floor(tx):
		return fmt.Errorf("t_x, the opportunity of the last purchase, is %v: want a whole number", tx)
	case x > tx:
		return fmt.Errorf("x is %v and t_x is %v: there cannot be more purchases than opportunities", x, tx)
	}
	return nil
}

// seen is, relative to the probability of the history if it had ended with the
// last purchase and the customer were there then: that she was there until n
// and bought no more, and that she left before and could not.
func (p *BGBB) seen(x, tx, n float64) (stayed, left float64) {
	stayed = 1
	for m := tx; m < n; m++ {
		left += float64(stayed * (p.gamma / (p.gamma + p.delta + m)))
		stayed = p.step(stayed, x, m)
	}
	return stayed, left
}

// step takes stayed from m to m+1.
func (p *BGBB) step(stayed, x, m float64) float64 {
	return float64(stayed * float64((p.beta+m-x)/(p.alpha+p.beta+m)*((p.delta+m)/(p.gamma+p.delta+m))))
}

// stays is the probability of being there at the next opportunity of one who
// is there at n.
func (p *BGBB) stays(n float64) float64 { return (p.delta + n) / (p.gamma + p.delta + n) }

// LogLikelihood implements Model (eq. 5): of a given sequence of purchases.
func (p *BGBB) LogLikelihood(h History) float64 {
	x, tx := h.Frequency, h.AgeAtLast
	stayed, left := p.seen(x, tx, h.Age)
	return dmath.LogBeta(p.alpha+x, p.beta+tx-x) - p.logBeta +
		dmath.LogRising(p.delta, tx) - dmath.LogRising(p.gamma+p.delta, tx) +
		dmath.Log(stayed+left)
}

// Alive implements Model (eq. 11): at the opportunity n+1.
func (p *BGBB) Alive(h History) float64 {
	stayed, left := p.seen(h.Frequency, h.AgeAtLast, h.Age)
	return float64(stayed / (stayed + left) * p.stays(h.Age))
}

// rate is the probability that one who is there buys.
func (p *BGBB) rate(h History) float64 { return (p.alpha + h.Frequency) / (p.alpha + p.beta + h.Age) }

// Expected implements Model (eq. 13, its sum before it was put into gamma
// functions: all its terms are positive, and gamma = 1 is nothing special).
func (p *BGBB) Expected(h History, t float64) float64 { return p.DERT(h, 0, min(t, maxOpportunities)) }

// NoPurchase implements Model: the likelihood at n+t, divided by that at n.
func (p *BGBB) NoPurchase(h History, t float64) float64 {
	stayed, left := p.seen(h.Frequency, h.AgeAtLast, h.Age)
	now := stayed + left
	if now == 0 {
		return 1
	}
	for m := h.Age; m+1 <= h.Age+min(t, maxOpportunities); m++ {
		left += float64(stayed * (p.gamma / (p.gamma + p.delta + m)))
		stayed = p.step(stayed, h.Frequency, m)
	}
	return min(1, (stayed+left)/now)
}

// Probability implements Model (eq. 8): n purchases at the first t opportunities.
func (p *BGBB) Probability(n int, t float64) float64 {
	x, last := float64(n), math.Floor(min(t, maxOpportunities))
	if n < 0 || x > last {
		return 0
	}
	// stayed: n purchases at the first m opportunities, and there at m.
	stayed := dmath.Exp(dmath.LogBeta(p.alpha+x, p.beta) - p.logBeta + dmath.LogRising(p.delta, x) - dmath.LogRising(p.gamma+p.delta, x))
	left := 0.0
	for m := x; m < last; m++ {
		left += float64(stayed * (p.gamma / (p.gamma + p.delta + m)))
		stayed = float64(p.step(stayed, x, m) * ((m + 1) / (m + 1 - x)))
	}
	return stayed + left
}

// DERT implements Model (eq. 14, with 1+d = exp(rate)): a purchase at the next
// opportunity is discounted by one.
func (p *BGBB) DERT(h History, rate, horizon float64) float64 {
	alive, n := p.Alive(h), h.Age
	factor := dmath.Exp(-rate)
	first := float64(float64(alive*p.rate(h)) * factor)
	if math.IsInf(horizon, 1) {
		return float64(first * gauss(p.delta+n+1, p.gamma+p.delta+n+1, factor, -dmath.Expm1(-rate)))
	}
	sum, term := 0.0, first
	for m := n + 1; m <= n+min(horizon, maxOpportunities); m++ {
		sum += term
		term = float64(term * float64(p.stays(m)*factor))
	}
	return sum
}

// AliveUntil implements Model: the first n ≥ t_x after which P(alive) is at
// most alive, +Inf beyond a million.
func (p *BGBB) AliveUntil(h History, alive float64) float64 {
	stayed, left := 1.0, 0.0
	for m := h.AgeAtLast; m <= maxOpportunities; m++ {
		if float64(stayed*p.stays(m)) <= float64(alive*(stayed+left)) {
			return m
		}
		left += float64(stayed * (p.gamma / (p.gamma + p.delta + m)))
		stayed = p.step(stayed, h.Frequency, m)
	}
	return math.Inf(1)
}
