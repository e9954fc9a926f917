package btyd

import (
	"math"

	"github.com/tierstream/tierstream/internal/scoring/dmath"
)

// lanes is how many horizons one series serves.
const lanes = 4

// Kernel computes P(alive) and the expected purchases of an MBG/NBD or BG/NBD,
// for who evaluates many customers under one model, or keeps its parameters
// elsewhere. It checks nothing. What it returns is stored and compared, so its
// bits must not change without package scoring's FormulasVersion.
//
// The customer's data are x repeat purchases, tx from first to last, T of age.
type Kernel struct {
	R, Alpha, A, B float64
	AfterFirst     bool // drop-out possible after the first purchase: MBG/NBD

	// table holds, by x, the first growths of the series: most customers have
	// bought a few times, and computing them took a third of their prediction.
	// Empty until Tabulate.
	table [][]growths
}

// Tabulate makes a table of 80 KB, which serves Purchases of up to 31 repeat
// purchases: worth it for who predicts many customers, not for who fits.
func (p *Kernel) Tabulate() {
	p.table = make([][]growths, 32)
	for x := range p.table {
		c, q := p.parameters(float64(x))
		p.table[x] = make([]growths, 5)
		for i := range p.table[x] {
			p.grow(c, q, i, &p.table[x][i])
		}
	}
}

// Alive returns P(alive): MBG/NBD 1/(1 + a/(b+x)·((alpha+T)/(alpha+tx))^(r+x))
// (Batislam et al. 2007), BG/NBD the same with b+x−1, and 1 for x = 0 (Hardie,
// note 021). The power is taken in logarithms, so it overflows to a plain 0.
func (p *Kernel) Alive(x, tx, T float64) float64 {
	bx := p.B + x
	if !p.AfterFirst {
		if x == 0 {
			return 1
		}
		bx--
	}
	u := float64((p.R + x) * dmath.Log1p((T-tx)/(p.Alpha+tx)))
	return 1 / (1 + float64(p.A/bx*dmath.Exp(u)))
}

// Purchases fills out[i] with the purchases expected within horizon[i] after T,
// of a customer who is alive at T: E[X(T, T+t)]/P(alive). Horizons ascend. It is
// the fast way, for many horizons and parameters in common ranges: Expected says
// where it is used.
//
// Published (Fader et al. 2005 eq. 10; Batislam et al. 2007) it is
//
//	c/(a−1)·[1 − (1−z)^(r+x)·F(r+x, q'; c; z)],  z = t/(alpha+T+t),
//
// which is ∞·0 for large x and 0/0 at a = 1. Euler's transformation of F and
// the division of the series by e = a−1 give the form used here:
//
//	−c·expm1(eL)/e − exp(eL)·S,  L = ln(1−z),
//	S = Σ_{k≥1} (a)_{k−1} (q)_k / ((c+1)_{k−1} k!)·zᵏ
//
// with c = a+b+x, q = a+b−r (BG/NBD: both less 1). The terms of S share their
// coefficients between horizons.
func (p *Kernel) Purchases(x, T float64, horizon, out []float64) {
	e, base := p.A-1, p.Alpha+T
	c, q := p.parameters(x)
	// Four horizons at a time: what the model's default needs, and what fits
	// into registers. Unused lanes are z = 0, where S is 0.
	for len(horizon) > lanes {
		p.Purchases(x, T, horizon[:lanes], out)
		horizon, out = horizon[lanes:], out[lanes:]
	}
	var z, direct [lanes]float64
	for i, t := range horizon {
		z[i] = t / (base + t)
		if z[i] <= seriesLimit || p.R+x >= 20 {
			direct[i] = z[i]
		}
	}
	S := p.series(x, c, q, &direct)
	for i := range horizon {
		if z[i] != direct[i] {
			p.continued(x, c, q, z[i:len(horizon)], S[i:len(horizon)])
			break
		}
	}
	for i, t := range horizon {
		l := -dmath.Log1p(t / base)
		growth := -l
		shrink := 1.0
		if e != 0 {
			growth = -dmath.Expm1(float64(e*l)) / e
			shrink = dmath.Exp(float64(e * l))
		}
		out[i] = float64(c*growth) - float64(shrink*S[i])
	}
}

// AtLeast and AtMost enclose what Purchases computes, up to rounding, for t > 0,
// by one logarithm and one exponential each.
//
// Given the data and being alive at T, the rate λ ~ gamma(r+x, alpha+T) and the
// drop-out probability π ~ beta(a, B), B = b+x+1 (BG/NBD: b+x), are independent:
// the likelihood is λˣ·exp(−λT)·(1−π)ˣ⁺¹ (BG/NBD: (1−π)ˣ). Purchases go on at
// λ·exp(−λπs), s after T, so that
//
//	E[X | λ, π] = (1 − exp(−λπt))/π = ∫₀^λt exp(−πs) ds.
//
// This is convex in π, so by Jensen it is least with π = E π = a/(a+B); over λ
// it is then exact, E exp(−λπt) = (1 + πt/(alpha+T))^−(r+x).
func (p *Kernel) AtLeast(x, T, t float64) float64 {
	leave := p.A / p.weight(x)
	l := dmath.Log1p(float64(leave*t) / (p.Alpha + T))
	return -dmath.Expm1(-float64((p.R+x)*l)) / leave
}

// AtMost is the upper bound: write π = g/(g+h) with independent g ~ gamma(a), h ~ gamma(B). g+h is
// independent of π and has mean w = a+B, so E[g/w | π] = π, and by Jensen
//
//	E exp(−πs) ≤ E exp(−gs/w) = (1 + s/w)^−a.
//
// Integrated to λt this is concave in λ, so by Jensen again it is greatest with
// λ = E λ = (r+x)/(alpha+T): w·((1 + λt/w)^(1−a) − 1)/(1−a), a logarithm for
// a = 1. It is below λt, what would be bought without dropping out.
func (p *Kernel) AtMost(x, T, t float64) float64 {
	w := p.weight(x)
	l := dmath.Log1p(float64((p.R+x)*t) / float64((p.Alpha+T)*w))
	e := 1 - p.A
	if e == 0 {
		return float64(w * l)
	}
	return float64(w*dmath.Expm1(float64(e*l))) / e
}

// weight is a+B, the sum of the beta parameters of the drop-out probability of
// who has bought x times again and is alive.
func (p *Kernel) weight(x float64) float64 {
	if p.AfterFirst {
		x++
	}
	return p.A + p.B + x
}

const (
	// The series needs about 34/−ln z terms: 330 at the limit. Above it, it is
	// continued, unless r+x makes its coefficients fall fast by themselves.
	seriesLimit = 0.9
	// Terms below this part of the sum end a series. What is left out is at
	// most ten times as much at the limit.
	negligible = 3e-16
	// A backstop for parameters at the bounds of validation; the sums end long
	// before it.
	maxTerms = 200_000
)

// growths are what successive terms of the series grow by, but for z.
type growths [64]float64

// grow fills g with the n-th growths.
func (p *Kernel) grow(c, q float64, n int, g *growths) {
	for i := range g {
		k := float64(n*len(g) + i + 1)
		g[i] = float64((p.A+k-1)*(q+k)) / float64((c+k)*(k+1))
	}
}

// parameters are c and q of the series.
func (p *Kernel) parameters(x float64) (c, q float64) {
	c, q = p.A+p.B+x, p.A+p.B-p.R
	if !p.AfterFirst {
		c, q = c-1, q-1
	}
	return c, q
}

// series sums S at each z; z ascends, but for zeros. c and q are the parameters
// of x.
func (p *Kernel) series(x, c, q float64, z *[lanes]float64) [lanes]float64 {
	z0, z1, z2, z3 := z[0], z[1], z[2], z[3]
	t0, t1, t2, t3 := float64(q*z0), float64(q*z1), float64(q*z2), float64(q*z3) // terms
	s0, s1, s2, s3 := t0, t1, t2, t3
	var row []growths
	if x < float64(len(p.table)) {
		row = p.table[int(x)]
	}
	var further growths
	for n := 0; n*len(further) < maxTerms; n++ {
		block := &further
		if n < len(row) {
			block = &row[n]
		} else {
			p.grow(c, q, n, block)
		}
		for _, growth := range block {
			t0 = float64(t0 * float64(growth*z0))
			t1 = float64(t1 * float64(growth*z1))
			t2 = float64(t2 * float64(growth*z2))
			t3 = float64(t3 * float64(growth*z3))
			s0 += t0
			s1 += t1
			s2 += t2
			s3 += t3
			if small(t3, s3) && small(t2, s2) && small(t1, s1) && small(t0, s0) {
				return [lanes]float64{s0, s1, s2, s3}
			}
		}
	}
	return [lanes]float64{s0, s1, s2, s3}
}

// small tells whether a term no longer matters to its sum.
func small(term, sum float64) bool { return math.Abs(term) <= negligible*math.Abs(sum) }

// continued computes S for z above seriesLimit by analytic continuation: value
// and slope at 3/4 by the series, then Taylor steps towards 1 that halve the
// distance. S solves the hypergeometric equation
//
//	z(1−z)S″ + (c − (e+q+1)z)S′ − eqS = cq,
//
// whose Taylor coefficients about z₀ follow a recurrence of two terms. Steps
// are also bounded by z₀/c, so that the equation's other solution, z^(1−c),
// cannot amplify rounding.
func (p *Kernel) continued(x, c, q float64, z, S []float64) {
	e := p.A - 1
	at := 0.75
	value, slope := p.series(x, c, q, &[lanes]float64{at})[0], p.slope(c, q, at)
	for i, target := range z {
		for at != target {
			d := min(target-at, float64(0.5*(1-at)), 4*at/(1+c))
			next := at + d
			if next >= target || d < 1e-15 {
				next = target
				d = target - at
			}
			// f0, f1, f2 are fₖ, fₖ₊₁, fₖ₊₂ of S(at+δ) = Σ fₖδᵏ.
			f0, f1, power := value, slope, d
			value += float64(slope * d)
			lead := float64(at * (1 - at))
			bend := c - float64((e+q+1)*at)
			source := float64(c * q)
			for k := 0.0; k < maxTerms; k++ {
				f2 := (source + float64(float64((k+e)*(k+q))*f0) - float64((k+1)*float64(float64(k*(1-float64(2*at)))+bend)*f1)) /
					float64(lead*float64((k+2)*(k+1)))
				source = 0
				slope += float64((k + 2) * float64(f2*power))
				power = float64(power * d)
				term := float64(f2 * power)
				value += term
				f0, f1 = f1, f2
				if k > 2 && small(term, value) {
					break
				}
			}
			at = next
		}
		S[i] = value
	}
}

// slope sums dS/dz at z.
func (p *Kernel) slope(c, q, z float64) float64 {
	term, sum := q, q
	for k := 1.0; k < maxTerms; k++ {
		term = float64(term * float64(float64((p.A+k-1)*(q+k))/float64((c+k)*k)*z))
		sum += term
		if small(term, sum) {
			break
		}
	}
	return sum
}
