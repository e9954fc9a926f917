package btyd

import (
	"math"

	"github.com/tierstream/tierstream/internal/scoring/dmath"
)

// NBD is a fitted NBD (Ehrenberg 1959): purchases come at a rate that is gamma
// distributed over customers (shape r, rate alpha), and nobody leaves.
type NBD struct {
	r, alpha  float64
	constants [tabulatedRank]float64 // ln (r)_x·alpha^r
	logWeight float64                // r·ln alpha
}

// NewNBD makes an NBD.
func NewNBD(r, alpha float64) (*NBD, error) {
	if err := positive("NBD", "r", r, "alpha", alpha); err != nil {
		return nil, err
	}
	p := &NBD{r: r, alpha: alpha, logWeight: float64(r * dmath.Log(alpha))}
	for x := range p.constants {
		p.constants[x] = dmath.LogRising(r, float64(x)) + p.logWeight
	}
	return p, nil
}

// Name implements Model.
func (p *NBD) Name() string { return "NBD" }

// Check implements Model.
func (p *NBD) Check(h History) error { return h.Check() }

// LogLikelihood implements Model: ln (r)_x·alpha^r·(alpha+T)^−(r+x).
func (p *NBD) LogLikelihood(h History) float64 {
	x := h.Frequency
	var l float64
	if x < tabulatedRank {
		l = p.constants[int(x)]
	} else {
		l = dmath.LogRising(p.r, x) + p.logWeight
	}
	return l - float64((p.r+x)*dmath.Log(p.alpha+h.Age))
}

// Alive implements Model: it is 1.
func (p *NBD) Alive(History) float64 { return 1 }

// Expected implements Model: (r+x)/(alpha+T)·t.
func (p *NBD) Expected(h History, t float64) float64 {
	return float64((p.r + h.Frequency) / (p.alpha + h.Age) * t)
}

// NoPurchase implements Model: ((alpha+T)/(alpha+T+t))^(r+x).
func (p *NBD) NoPurchase(h History, t float64) float64 {
	return dmath.Exp(-float64((p.r + h.Frequency) * dmath.Log1p(t/(p.alpha+h.Age))))
}

// Probability implements Model: the negative binomial.
func (p *NBD) Probability(n int, t float64) float64 {
	if n < 0 {
		return 0
	}
	if n == 0 {
		return p.NoPurchase(History{}, t)
	}
	_, equal := tail(float64(n), p.r, t/(p.alpha+t), p.alpha/(p.alpha+t))
	return equal
}

// DERT implements Model: (r+x)/(alpha+T)·(1 − exp(−rate·horizon))/rate.
func (p *NBD) DERT(h History, rate, horizon float64) float64 {
	return float64((p.r + h.Frequency) / (p.alpha + h.Age) * (-dmath.Expm1(-float64(rate*horizon)) / rate))
}

// AliveUntil implements Model: +Inf.
func (p *NBD) AliveUntil(History, float64) float64 { return math.Inf(1) }
