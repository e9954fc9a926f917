package btyd

import (
	"math"

	"github.com/tierstream/tierstream/internal/scoring/dmath"
)

// ParetoNBD is a fitted Pareto/NBD (Schmittlein, Morrison, Colombo 1987):
// purchases come at a rate that is gamma distributed over customers (shape r,
// rate alpha), and customers leave, at any time, at a rate that is gamma
// distributed too (shape s, rate beta).
//
// With R = r+x and w = r+s+x, the likelihood is (Hardie, note 009, eq. 18)
//
//	L = (r)_x·alpha^r·beta^s·(alpha+T)^−R·(beta+T)^−s · (1 + Q),
//	Q = s·∫ ((alpha+T)/(alpha+τ))^R·((beta+T)/(beta+τ))^s/(beta+τ) dτ, t_x to T,
//
// Q being the odds of having left. The published form of the integral is a
// difference of two hypergeometric functions, A0. Euler's transformation takes
// the growing factors out of them:
//
//	Q = s/w·(eᴱ·φ(t_x) − φ(T)),  E = R·ln((alpha+T)/(alpha+t_x)) + s·ln((beta+T)/(beta+t_x)),
//	φ(t) = F(1, R; w+1; (alpha−beta)/(alpha+t))                              alpha ≥ beta
//	φ(t) = (alpha+t)/(beta+t)·F(1, s+1; w+1; (beta−alpha)/(beta+t))         alpha < beta
//
// so that no sum of logarithms of the size of R·ln T is left to cancel.
type ParetoNBD struct {
	r, alpha, s, beta float64

	constants  [tabulatedRank]float64 // ln (r)_x·alpha^r·beta^s
	logWeights float64                // r·ln alpha + s·ln beta
}

// NewParetoNBD makes a Pareto/NBD.
func NewParetoNBD(r, alpha, s, beta float64) (*ParetoNBD, error) {
	if err := positive("Pareto/NBD", "r", r, "alpha", alpha, "s", s, "beta", beta); err != nil {
		return nil, err
	}
	p := &ParetoNBD{r: r, alpha: alpha, s: s, beta: beta}
	p.logWeights = float64(r*dmath.Log(alpha)) + float64(s*dmath.Log(beta))
	for x := range p.constants {
		p.constants[x] = dmath.LogRising(r, float64(x)) + p.logWeights
	}
	return p, nil
}

// Name implements Model.
func (p *ParetoNBD) Name() string { return "Pareto/NBD" }

// Check implements Model.
func (p *ParetoNBD) Check(h History) error { return h.Check() }

// phi is φ(t).
func (p *ParetoNBD) phi(R, t float64) float64 {
	w := R + p.s
	if p.alpha < p.beta {
		y := (p.alpha + t) / (p.beta + t)
		return float64(y * gauss(p.s+1, w+1, (p.beta-p.alpha)/(p.beta+t), y))
	}
	return gauss(R, w+1, (p.alpha-p.beta)/(p.alpha+t), (p.beta+t)/(p.alpha+t))
}

// logOdds is ln(1 + Q).
func (p *ParetoNBD) logOdds(R, tx, T float64) float64 {
	d := T - tx
	if d == 0 {
		return 0
	}
	e := float64(R*dmath.Log1p(d/(p.alpha+tx))) + float64(p.s*dmath.Log1p(d/(p.beta+tx)))
	early, scale := p.phi(R, tx), p.s/(R+p.s)
	if e > 600 { // φ(T) ≤ 1/(1−z) no longer matters
		return e + dmath.Log(float64(scale*early))
	}
	q := float64(scale * (float64(dmath.Expm1(e)*early) + (early - p.phi(R, T))))
	return dmath.Log1p(max(0, q))
}

// LogLikelihood implements Model.
func (p *ParetoNBD) LogLikelihood(h History) float64 {
	x, R := h.Frequency, p.r+h.Frequency
	var l float64
	if x < tabulatedRank {
		l = p.constants[int(x)]
	} else {
		l = dmath.LogRising(p.r, x) + p.logWeights
	}
	l -= float64(R*dmath.Log(p.alpha+h.Age)) + float64(p.s*dmath.Log(p.beta+h.Age))
	return l + p.logOdds(R, h.AgeAtLast, h.Age)
}

// Alive implements Model: 1/(1+Q) (note 009, eq. 20).
func (p *ParetoNBD) Alive(h History) float64 {
	return dmath.Exp(-p.logOdds(p.r+h.Frequency, h.AgeAtLast, h.Age))
}

// Expected implements Model (note 009, eq. 41):
// P(alive)·(r+x)(beta+T)/(alpha+T)·(1 − ((beta+T)/(beta+T+t))^(s−1))/(s−1),
// a logarithm at s = 1.
func (p *ParetoNBD) Expected(h History, t float64) float64 {
	l := dmath.Log1p(t / (p.beta + h.Age))
	if e := p.s - 1; e != 0 {
		l = -dmath.Expm1(-float64(e*l)) / e
	}
	return float64(p.Alive(h) * float64((p.r+h.Frequency)*((p.beta+h.Age)/(p.alpha+h.Age))) * l)
}

// NoPurchase implements Model: the likelihood at Age+t, divided by that at Age.
func (p *ParetoNBD) NoPurchase(h History, t float64) float64 {
	R := p.r + h.Frequency
	l := -float64(R*dmath.Log1p(t/(p.alpha+h.Age))) - float64(p.s*dmath.Log1p(t/(p.beta+h.Age)))
	l += p.logOdds(R, h.AgeAtLast, h.Age+t) - p.logOdds(R, h.AgeAtLast, h.Age)
	return dmath.Exp(min(0, l))
}

// Probability implements Model: n purchases within t of a customer who stays
// that long, plus the integral over the time of leaving, τ, before it.
func (p *ParetoNBD) Probability(n int, t float64) float64 {
	if n < 0 {
		return 0
	}
	if t == 0 {
		if n == 0 {
			return 1
		}
		return 0
	}
	x := float64(n)
	// ln of the negative binomial probability of n purchases within τ, and of
	// the customer's being there at τ.
	logRank := dmath.LogRising(p.r, x) - dmath.Lgamma(x+1)
	log := func(tau float64) float64 {
		l := logRank - float64(p.r*dmath.Log1p(tau/p.alpha)) - float64(p.s*dmath.Log1p(tau/p.beta))
		if n > 0 {
			l -= float64(x * dmath.Log1p(p.alpha/tau))
		}
		return l
	}
	stays := dmath.Exp(log(t))
	// In ln τ, from where the density of leaving no longer matters. For n > 0
	// the integrand grows with τ like τⁿ⁺¹ at first, and falls like τ^−(r+s) in
	// the end.
	top := dmath.Log(t)
	lo := min(top, dmath.Log(min(p.alpha, p.beta))) - 45
	scale := dmath.Log(float64(p.alpha * (x + 1)))
	points := [...]float64{lo, scale - 20, scale - 8, scale - 3, scale - 1, scale, scale + 1, scale + 3, scale + 8, scale + 20, top}
	for i := range points {
		points[i] = min(max(points[i], lo), top)
	}
	left := integrate(stays, func(u float64) float64 {
		tau := dmath.Exp(u)
		return float64(dmath.Exp(log(tau)) * (p.s * float64(tau/(p.beta+tau))))
	}, points[:]...)
	return stays + left
}

// DERT implements Model: the rate of purchases now, P(alive)·(r+x)/(alpha+T),
// times ∫ exp(−rate·t)·((beta+T)/(beta+T+t))^s dt. Without end, that is
// (beta+T)·U(1, 2−s, rate·(beta+T)) with Tricomi's function, by Kummer's
// transformation the published (beta+T)·(rate·(beta+T))^(s−1)·U(s, s, …) (Fader,
// Hardie, Lee 2005b; note 009 has the same integral without discount). It is
// integrated instead of taken from series of U, whose two terms cancel where
// rate·beta is large.
func (p *ParetoNBD) DERT(h History, rate, horizon float64) float64 {
	if horizon == 0 {
		return 0
	}
	now := p.beta + h.Age
	stays := downward(min(horizon, 45/rate), 1/rate, 2, func(t float64) float64 {
		return dmath.Exp(-float64(rate*t) - float64(p.s*dmath.Log1p(t/now)))
	})
	return float64(p.Alive(h) * ((p.r + h.Frequency) / (p.alpha + h.Age)) * stays)
}

// AliveUntil implements Model, by bisection: P(alive) falls with T.
func (p *ParetoNBD) AliveUntil(h History, alive float64) float64 {
	R, tx, limit := p.r+h.Frequency, h.AgeAtLast, -dmath.Log(alive)
	below := func(T float64) bool { return p.logOdds(R, tx, T) >= limit }
	end := growing(tx, min(p.alpha, p.beta)+tx, below)
	if math.IsInf(end, 1) {
		return end
	}
	return bisect(tx, end, below)
}
