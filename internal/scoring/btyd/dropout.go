package btyd

import (
	"fmt"
	"math"

	"github.com/tierstream/tierstream/internal/scoring/dmath"
)

// betaGeometric is what BG/NBD, MBG/NBD, BG/CNBD-k and MBG/CNBD-k share: all
// but the expected purchases.
//
// Between purchases lie k exponential stages of rate λ, so that the times are
// Erlang-k distributed; λ is gamma distributed over customers with shape r and
// rate alpha. At every repeat purchase, and with afterFirst at the first one
// too, a customer leaves with a probability π, which is beta (a, b) distributed.
//
// Let R = r + k·x be the shape of λ after x repeat purchases. Given one who did
// not leave at the last of them, the number of stages passed since is negative
// binomial with shape R and probability y = (T−t_x)/(alpha+T), and that no
// purchase was seen has the probability that it is below k,
//
//	H(T) = (1−y)^R · Σ_{j<k} (R)_j/j!·yʲ,
//
// for k = 1 the power alone. With n the chances to leave that were passed (x, or
// x+1 with afterFirst) and w = a/(b+n−1), the odds that the last chance was not
// passed (0 if there was none), the likelihood is
//
//	L = E(1−π)ⁿ · (r)_kx·alpha^r·(alpha+t_x)^−R · Π gapᵏ⁻¹/Γ(k)^x · (H + w),
//
// which for k = 1 is that of Fader, Hardie and Lee (eq. 7) and of Batislam et
// al.; for k > 1 it was derived here from the model of Platzer and Reutterer.
type betaGeometric struct {
	name              string
	k, r, alpha, a, b float64
	afterFirst        bool

	logAlpha  float64
	logFactor float64                // ln Γ(k)
	constants [tabulatedRank]float64 // constant by x
}

// tabulatedRank is the number of frequencies whose constants the constructor computes.
const tabulatedRank = 32

// maxShape bounds k: with k = 100 times are all but fixed.
const maxShape = 100

func newBetaGeometric(name string, k, r, alpha, a, b float64, afterFirst bool) (*betaGeometric, error) {
	if err := positive(name, "r", r, "alpha", alpha, "a", a, "b", b); err != nil {
		return nil, err
	}
	if !(k >= 1 && k <= maxShape) || k != math.Floor(k) {
		return nil, fmt.Errorf("%s: parameter k is %v: want a whole number, 1 to %d", name, k, maxShape)
	}
	p := &betaGeometric{name: name, k: k, r: r, alpha: alpha, a: a, b: b, afterFirst: afterFirst}
	p.logAlpha, p.logFactor = dmath.Log(alpha), dmath.Lgamma(k)
	for x := range p.constants {
		p.constants[x] = p.constant(float64(x))
	}
	return p, nil
}

// Name implements Model.
func (p *betaGeometric) Name() string { return p.name }

// Check implements Model.
func (p *betaGeometric) Check(h History) error { return h.Check() }

// constant is the part of the likelihood that depends on x alone.
func (p *betaGeometric) constant(x float64) float64 {
	n := x
	if p.afterFirst {
		n++
	}
	return p.logKept(n) + dmath.LogRising(p.r, float64(p.k*x)) + float64(p.r*p.logAlpha) - float64(x*p.logFactor)
}

// logKept is ln E(1−π)ⁿ.
func (p *betaGeometric) logKept(n float64) float64 {
	return dmath.LogRising(p.b, n) - dmath.LogRising(p.a+p.b, n)
}

// left is w.
func (p *betaGeometric) left(x float64) float64 {
	bx := p.b + x
	if !p.afterFirst {
		if x == 0 {
			return 0
		}
		bx--
	}
	return p.a / bx
}

// shape is R.
func (p *betaGeometric) shape(x float64) float64 { return p.r + float64(p.k*x) }

// logSilence is ln H(T).
func (p *betaGeometric) logSilence(x, tx, T float64) float64 {
	R := p.shape(x)
	u := float64(R * dmath.Log1p((T-tx)/(p.alpha+tx)))
	if p.k == 1 {
		return -u
	}
	const big = 1e200
	y := (T - tx) / (p.alpha + T)
	sum, term, shift := 1.0, 1.0, 0.0
	for j := 1.0; j < p.k; j++ {
		term = float64(term * float64((R+j-1)/j*y))
		sum += term
		if sum > big {
			sum, term, shift = sum/big, term/big, shift+float64(200*math.Ln10)
		}
	}
	return min(0, dmath.Log(sum)+shift-u)
}

// LogLikelihood implements Model.
func (p *betaGeometric) LogLikelihood(h History) float64 {
	x := h.Frequency
	var l float64
	if x < tabulatedRank {
		l = p.constants[int(x)]
	} else {
		l = p.constant(x)
	}
	if p.k != 1 {
		l += float64((p.k - 1) * h.LogGaps)
	}
	l -= float64(p.shape(x) * dmath.Log(p.alpha+h.AgeAtLast))
	silence, w := p.logSilence(x, h.AgeAtLast, h.Age), p.left(x)
	if w == 0 {
		return l + silence
	}
	return l + dmath.Log(w+dmath.Exp(silence))
}

// Alive implements Model: 1/(1 + w/H).
func (p *betaGeometric) Alive(h History) float64 {
	w := p.left(h.Frequency)
	if w == 0 {
		return 1
	}
	return 1 / (1 + float64(w*dmath.Exp(-p.logSilence(h.Frequency, h.AgeAtLast, h.Age))))
}

// NoPurchase implements Model: the likelihood at Age+t, divided by that at Age.
func (p *betaGeometric) NoPurchase(h History, t float64) float64 {
	now := p.logSilence(h.Frequency, h.AgeAtLast, h.Age)
	stays := dmath.Exp(p.logSilence(h.Frequency, h.AgeAtLast, h.Age+t) - now)
	w := p.left(h.Frequency)
	if w == 0 {
		return min(1, stays)
	}
	odds := float64(w * dmath.Exp(-now))
	if math.IsInf(odds, 1) {
		return 1
	}
	return min(1, (odds+stays)/(1+odds))
}

// Probability implements Model: either n purchases fell into t and none of n
// chances to leave was taken, or at least n did and the last chance was
// (Fader, Hardie, Lee 2005 eq. 8; for k > 1 in stages).
func (p *betaGeometric) Probability(n int, t float64) float64 {
	if n < 0 {
		return 0
	}
	z, y := t/(p.alpha+t), p.alpha/(p.alpha+t)
	x := float64(n)
	passed := x
	if p.afterFirst {
		passed++
	}
	// P(N = stage) for the stages of the n-th gap, P(N ≥ its first).
	atLeast, exactly, first := 1.0, 0.0, 0.0
	if n == 0 {
		exactly, first = dmath.Exp(float64(p.r*dmath.Log1p(-z))), 1
	} else {
		atLeast, _ = tail(float64(p.k*x), p.r, z, y)
	}
	for i := first; i < p.k; i++ {
		_, equal := tail(float64(p.k*x)+i, p.r, z, y)
		exactly += equal
	}
	if passed == 0 {
		return exactly
	}
	kept := dmath.Exp(p.logKept(passed - 1))
	q := p.a / (p.a + p.b + passed - 1) // P(leaves at this chance | passed the others)
	return float64(kept * (float64(q*atLeast) + float64((1-q)*exactly)))
}

// AliveUntil implements Model. For k = 1 it is
// (alpha+t_x)·[((1−p)/p)·(b+n−1)/a]^(1/(r+x)) − alpha, at least t_x.
func (p *betaGeometric) AliveUntil(h History, alive float64) float64 {
	x, tx := h.Frequency, h.AgeAtLast
	bx := p.b + x
	if !p.afterFirst {
		if x == 0 {
			return math.Inf(1)
		}
		bx--
	}
	if p.k == 1 {
		odds := float64((1-alive)/alive) * bx / p.a
		return max(tx, float64((p.alpha+tx)*dmath.Pow(odds, 1/(p.r+x)))-p.alpha)
	}
	limit := dmath.Log(p.a/bx) + dmath.Log(alive) - dmath.Log1p(-alive)
	below := func(T float64) bool { return p.logSilence(x, tx, T) <= limit }
	if below(tx) {
		return tx
	}
	return bisect(tx, growing(tx, p.alpha+tx, below), below)
}

// residual is DERT without end. Given λ and π, and j stages passed since the
// last purchase, the m-th purchase from now comes with (1−π)^(m−1) and counts
// φ^(mk−j), φ = λ/(λ+rate); summed over m and over π,
//
//	DERT = P(alive) · E[ Σ_j (λs)ʲ/j!·φ^(k−j) / Σ_j (λs)ʲ/j! · F(1, B; a+B; φᵏ) ],  s = T−t_x,
//
// over the λ of who has bought x times and not since. It is integrated over
// v = ln(λ·(alpha+T)/R). (For k = 1: Fader, Hardie, Lee's definition of DERT
// with the BG/NBD's own probabilities; no closed form is published.)
func (p *betaGeometric) residual(h History, rate float64) float64 {
	alive := p.Alive(h)
	if alive == 0 {
		return 0
	}
	x, s, age := h.Frequency, h.Age-h.AgeAtLast, p.alpha+h.Age
	R, B := p.shape(x), p.b+x
	if p.afterFirst {
		B++
	}
	last := p.k - 1 // the greatest j
	if s == 0 {
		last = 0
	}
	// ln of the normalized gamma density of shape R at its mean, and of Σ_j.
	constant := float64(R*(dmath.Log(R)-1)) - dmath.Lgamma(R)
	if R >= 8 {
		constant = dmath.LogGammaPeak(R)
	}
	constant -= p.logSilence(x, h.AgeAtLast, h.Age) + float64(R*dmath.Log1p(s/(p.alpha+h.AgeAtLast)))
	integrand := func(v float64) float64 {
		lambda := float64(R / age * dmath.Exp(v))
		l := constant - float64(R*excess(v))
		logPhi := -dmath.Log1p(rate / lambda)
		sum := dmath.Exp(l + float64(p.k*logPhi))
		for j := 1.0; j <= last; j++ {
			l += dmath.Log(float64(lambda*s) / j)
			sum += dmath.Exp(l + float64((p.k-j)*logPhi))
		}
		phi, rest := dmath.Exp(float64(p.k*logPhi)), -dmath.Expm1(float64(p.k*logPhi))
		return float64(sum * (1 + float64(B/(p.a+B)*phi*gauss(B+1, p.a+B+1, phi, rest))))
	}
	width := 1 / math.Sqrt(R)
	lo := max(-45/R-float64(10*width), min(0, dmath.Log(float64(rate*age)/R))-45-float64(10*width))
	hi := dmath.Log1p((last + 60 + float64(12*math.Sqrt(R+last))) / R)
	points := [...]float64{
		lo, -float64(40 * width), -float64(10 * width), -float64(4 * width), -float64(1.5 * width), 0,
		float64(1.5 * width), float64(4 * width), float64(10 * width), hi,
	}
	for i := range points {
		points[i] = min(max(points[i], lo), hi)
	}
	return float64(alive * integrate(0, integrand, points[:]...))
}
