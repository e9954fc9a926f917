package btyd

import (
	"math"

	"github.com/tierstream/tierstream/internal/scoring/dmath"
)

// BetaGeometric is a fitted MBG/NBD or BG/NBD: purchases come at a rate that
// is gamma distributed over customers (shape r, rate alpha), and after
// a purchase a customer drops out with a probability that is beta distributed
// (a, b). In the MBG/NBD (Batislam, Denizel, Filiztekin 2007) the first
// purchase can be the last one too; in the BG/NBD (Fader, Hardie, Lee 2005)
// it cannot.
type BetaGeometric struct {
	betaGeometric
	kernel Kernel
}

// NewBGNBD makes a BG/NBD.
func NewBGNBD(r, alpha, a, b float64) (*BetaGeometric, error) {
	p, err := newBetaGeometric("BG/NBD", 1, r, alpha, a, b, false)
	if err != nil {
		return nil, err
	}
	return &BetaGeometric{*p, Kernel{R: r, Alpha: alpha, A: a, B: b, AfterFirst: p.afterFirst}}, nil
}

// NewMBGNBD makes an MBG/NBD.
func NewMBGNBD(r, alpha, a, b float64) (*BetaGeometric, error) {
	p, err := newBetaGeometric("MBG/NBD", 1, r, alpha, a, b, true)
	if err != nil {
		return nil, err
	}
	return &BetaGeometric{*p, Kernel{R: r, Alpha: alpha, A: a, B: b, AfterFirst: p.afterFirst}}, nil
}

// Alive implements Model.
func (p *BetaGeometric) Alive(h History) float64 {
	return p.kernel.Alive(h.Frequency, h.AgeAtLast, h.Age)
}

// Expected implements Model.
func (p *BetaGeometric) Expected(h History, t float64) float64 {
	alive := p.Alive(h)
	if alive == 0 || t == 0 {
		return 0
	}
	x, T := h.Frequency, h.Age
	if !p.conditioned(x, T, t) {
		return float64(alive * p.averaged(x, T, t))
	}
	var out [1]float64
	horizon := [1]float64{t}
	p.kernel.Purchases(x, T, horizon[:], out[:])
	return float64(alive * out[0])
}

// conditioned tells whether Kernel.Purchases is accurate to 1e-11 there, and fast: its
// difference loses about (a+b+x)/(r+x), its series alternates where q is
// negative, its powers must not overflow, and its continuation needs c/4 steps.
func (p *BetaGeometric) conditioned(x, T, t float64) bool {
	c, q := p.kernel.parameters(x)
	z := t / (p.alpha + T + t)
	return c <= float64(1e4*(p.r+x)) && q >= -8 &&
		math.Abs(p.a-1)*dmath.Log1p(t/(p.alpha+T)) <= 30 &&
		(z <= seriesLimit || c <= 50)
}

// averaged is what Kernel.Purchases computes, for one horizon and all parameters:
// given the drop-out probability π, a customer who is alive buys
// (1 − (1+πτ)^−(r+x))/π times, τ = t/(alpha+T), and π ~ beta(a, B). It is
// integrated over ln(π/(1−π)); where π or 1−π is too small to matter beside 1,
// in closed form.
func (p *BetaGeometric) averaged(x, T, t float64) float64 {
	const tiny = 1e-17
	R, tau := p.r+x, t/(p.alpha+T)
	B := p.kernel.weight(x) - p.a
	logB := dmath.LogBeta(p.a, B)
	given := func(pi float64) float64 {
		return -dmath.Expm1(-float64(R*dmath.Log1p(float64(pi*tau)))) / pi
	}
	integrand := func(u float64) float64 {
		// ln π and ln(1−π), each without cancellation.
		lp, lq := -dmath.Log1p(dmath.Exp(-u)), -dmath.Log1p(dmath.Exp(u))
		return float64(dmath.Exp(float64(p.a*lp)+float64(B*lq)-logB) * given(dmath.Exp(lp)))
	}
	lo := dmath.Log(tiny / (1 + B + float64((R+1)*tau)))
	hi := -dmath.Log(tiny / (1 + p.a))
	ends := float64(dmath.Exp(float64(p.a*lo)-logB)/p.a*float64(R*tau)) + float64(dmath.Exp(-float64(B*hi)-logB)/B*given(1))
	middle, width := dmath.Log(p.a/B), math.Sqrt(1/p.a+1/B)
	points := [...]float64{
		lo, middle - float64(30*width), middle - float64(10*width), middle - float64(3*width), middle,
		middle + float64(3*width), middle + float64(10*width), middle + float64(30*width), hi,
	}
	for i := range points {
		points[i] = min(max(points[i], lo), hi)
	}
	return ends + integrate(ends, integrand, points[:]...)
}

// DERT implements Model.
func (p *BetaGeometric) DERT(h History, rate, horizon float64) float64 {
	if math.IsInf(horizon, 1) {
		return p.residual(h, rate)
	}
	return discounted(rate, horizon, 2, func(t float64) float64 { return p.Expected(h, t) })
}
