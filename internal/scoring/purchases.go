package scoring

import (
	"github.com/tierstream/tierstream/internal/scoring/btyd"
	"github.com/tierstream/tierstream/internal/scoring/dmath"
)

// maxPeriods bounds Model's discount_periods, so that a forecast needs no heap.
const maxPeriods = 12

// purchaseModel is a fitted MBG/NBD or BG/NBD: purchases come at a rate that
// is gamma distributed over customers (shape r, rate alpha in days), and after
// a purchase a customer drops out with a probability that is beta distributed
// (a, b). In the MBG/NBD (Batislam, Denizel, Filiztekin 2007) the first
// purchase can be the last one too; in the BG/NBD (Fader, Hardie, Lee 2005)
// it cannot.
//
// The customer's data are x repeat purchase days, tx days from first to last,
// T days of age. Package btyd computes.
type purchaseModel struct {
	r, alpha, a, b float64
	afterFirst     bool // drop-out possible after the first purchase: MBG/NBD

	tabulated *btyd.Kernel // nil until tabulate
}

// kernel is what computes for these parameters.
func (p *purchaseModel) kernel() btyd.Kernel {
	if p.tabulated != nil {
		return *p.tabulated
	}
	return btyd.Kernel{R: p.r, Alpha: p.alpha, A: p.a, B: p.b, AfterFirst: p.afterFirst}
}

// tabulate makes expected faster; the parameters must not change any more.
func (p *purchaseModel) tabulate() {
	k := p.kernel()
	k.Tabulate()
	p.tabulated = &k
}

// alive returns P(alive).
func (p *purchaseModel) alive(x, tx, T float64) float64 {
	k := p.kernel()
	return k.Alive(x, tx, T)
}

// expected fills out[i] with the purchase days expected within horizon[i] days
// after T, of a customer who is alive at T: E[X(T, T+t)]/P(alive). Horizons
// ascend.
func (p *purchaseModel) expected(x, T float64, horizon, out []float64) {
	k := p.kernel()
	k.Purchases(x, T, horizon, out)
}

// atLeast and atMost enclose what expected computes, up to rounding, for t > 0,
// by one logarithm and one exponential each.
func (p *purchaseModel) atLeast(x, T, t float64) float64 {
	k := p.kernel()
	return k.AtLeast(x, T, t)
}

func (p *purchaseModel) atMost(x, T, t float64) float64 {
	k := p.kernel()
	return k.AtMost(x, T, t)
}

// rest returns P(no purchase within t days after T) of a customer with P(alive)
// p: 1 − p·(1 − ((alpha+T)/(alpha+T+t))^(r+x)), because whoever is alive and
// does not buy within t has not dropped out either.
func (p *purchaseModel) rest(x, T, t, alive float64) float64 {
	return 1 + float64(alive*dmath.Expm1(float64(-(p.r+x)*dmath.Log1p(t/(p.alpha+T)))))
}

// spendModel is the Gamma-Gamma model of the value of a purchase day (Fader and
// Hardie 2013, note 025, eq. 5): p and q without unit, v in minor units.
type spendModel struct{ p, q, v float64 }

// mean is the population's, p·v/(q−1).
func (s *spendModel) mean() float64 { return float64(s.p*s.v) / (s.q - 1) }

// expected returns E[M | n days worth sum in all] = p(v + sum)/(p·n + q − 1):
// the population mean for n = 0. Minor units.
func (s *spendModel) expected(n, sum int64) float64 {
	return btyd.ExpectedValue(s.p, s.q, s.v, float64(n), float64(sum))
}
