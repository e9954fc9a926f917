package btyd

import (
	"fmt"
	"math"

	"github.com/tierstream/tierstream/internal/scoring/dmath"
)

// GammaGamma is a fitted Gamma-Gamma model of what a purchase is worth (Fader,
// Hardie 2013, note 025): values of a customer's purchases are gamma distributed
// with shape p, and their rate is gamma distributed over customers with shape q
// and rate v. v is in the unit of values; p and q have none. Values are taken to
// be independent of how often somebody buys.
type GammaGamma struct {
	p, q, v   float64
	logGammaQ float64 // ln Γ(q)
}

// NewGammaGamma makes a Gamma-Gamma model. For q ≤ 1 the population has no mean.
func NewGammaGamma(p, q, v float64) (*GammaGamma, error) {
	if err := positive("Gamma-Gamma", "p", p, "q", q, "v", v); err != nil {
		return nil, err
	}
	return &GammaGamma{p: p, q: q, v: v, logGammaQ: dmath.Lgamma(q)}, nil
}

// CheckValue says why the model has no answer for x purchases with mean value m.
func (g *GammaGamma) CheckValue(x, m float64) error {
	switch {
	case !(x >= 0 && x <= maxFrequency):
		return fmt.Errorf("x is %v: want 0 to %v", x, maxFrequency)
	case x > 0 && !(m > 0 && m <= 1e15):
		return fmt.Errorf("mean_value is %v: want above 0, to 1e15", m)
	case x == 0 && !(m >= 0 && m <= 1e15):
		return fmt.Errorf("mean_value is %v: want 0 to 1e15", m)
	}
	return nil
}

// LogLikelihood is ln of the density of the mean value m of x purchases (eq. 1a),
// 0 for x = 0: who bought nothing says nothing about values.
func (g *GammaGamma) LogLikelihood(x, m float64) float64 {
	if x == 0 {
		return 0
	}
	px, sum := float64(g.p*x), float64(x*m)
	return dmath.LogRising(px, g.q) - g.logGammaQ - dmath.Log(m) -
		float64(px*dmath.Log1p(g.v/sum)) - float64(g.q*dmath.Log1p(sum/g.v))
}

// Mean is the population's, p·v/(q−1): +Inf for q ≤ 1.
func (g *GammaGamma) Mean() float64 {
	if g.q <= 1 {
		return math.Inf(1)
	}
	return float64(g.p*g.v) / (g.q - 1)
}

// Expected returns E[M | n purchases worth sum in all]: the population mean for
// n = 0, and +Inf where there is none.
func (g *GammaGamma) Expected(n, sum float64) float64 {
	if float64(g.p*n)+g.q-1 <= 0 {
		return math.Inf(1)
	}
	return ExpectedValue(g.p, g.q, g.v, n, sum)
}

// ExpectedValue returns E[M | n purchases worth sum in all] = p(v + sum)/(p·n + q − 1)
// (eq. 5), for p·n + q > 1. As Kernel, it is for who keeps parameters elsewhere.
func ExpectedValue(p, q, v, n, sum float64) float64 {
	return float64(p*(v+sum)) / (float64(p*n) + q - 1)
}
