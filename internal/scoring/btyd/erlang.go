package btyd

import (
	"math"

	"github.com/tierstream/tierstream/internal/scoring/dmath"
)

// Erlang is a fitted BG/CNBD-k or MBG/CNBD-k (Platzer, Reutterer 2016): as the
// BG/NBD or MBG/NBD, but with k exponential stages between purchases, so that
// they come more regularly than at random. alpha is the rate of the stages' λ.
type Erlang struct{ betaGeometric }

// NewBGCNBD makes a BG/CNBD-k, for k = 1 a BG/NBD.
func NewBGCNBD(k, r, alpha, a, b float64) (Model, error) {
	if k == 1 {
		return orNil(NewBGNBD(r, alpha, a, b))
	}
	return orNil(newErlang("BG/CNBD", k, r, alpha, a, b, false))
}

// NewMBGCNBD makes an MBG/CNBD-k, for k = 1 an MBG/NBD.
func NewMBGCNBD(k, r, alpha, a, b float64) (Model, error) {
	if k == 1 {
		return orNil(NewMBGNBD(r, alpha, a, b))
	}
	return orNil(newErlang("MBG/CNBD", k, r, alpha, a, b, true))
}

func newErlang(name string, k, r, alpha, a, b float64, afterFirst bool) (*Erlang, error) {
	p, err := newBetaGeometric(name, k, r, alpha, a, b, afterFirst)
	if err != nil {
		return nil, err
	}
	return &Erlang{*p}, nil
}

// directTerms is how many purchases are summed one by one; beyond, the sum is
// an integral with its first correction, whose error falls with their fourth
// power.
const directTerms = 2048

// Expected implements Model. No closed form is published. Derived here: who is
// alive at T has passed j stages since the last purchase, 0 ≤ j < k, with
// probabilities in proportion to (R)_j/j!·yʲ; given j, λ is gamma distributed
// with shape R+j and rate alpha+T. The m-th purchase from now needs mk−j more
// stages, and m−1 chances to leave passed before it, so
//
//	E = P(alive) · Σ_j P(j) · Σ_{m≥1} (B)_{m−1}/(a+B)_{m−1} · I_z(mk−j, R+j),
//
// with z = t/(alpha+T+t), I the regularized incomplete beta function and B the
// second beta parameter of who is alive. All terms are positive, so nothing is
// lost; against 30-digit sums it is accurate to 1e-10.
func (p *Erlang) Expected(h History, t float64) float64 {
	alive := p.Alive(h)
	if alive == 0 || t == 0 {
		return 0
	}
	x, T := h.Frequency, h.Age
	R, y := p.shape(x), (T-h.AgeAtLast)/(p.alpha+T)
	z, rest := t/(p.alpha+T+t), (p.alpha+T)/(p.alpha+T+t)
	B := p.b + x
	if p.afterFirst {
		B++
	}
	var weight [maxShape]float64
	weight[0] = 1
	total, last := 1.0, 0
	for j := 1; j < int(p.k) && y > 0; j++ {
		i := float64(j)
		weight[j] = float64(weight[j-1] * float64((R+i-1)/i*y))
		total += weight[j]
		last = j
		if total > 1e200 {
			for i := range j + 1 {
				weight[i] /= 1e200
			}
			total /= 1e200
		}
	}
	sum := 0.0
	for j := 0; j <= last; j++ {
		if share := weight[j] / total; share > 0 {
			sum += float64(share * p.from(float64(j), R+float64(j), B, z, rest))
		}
	}
	return float64(alive * sum)
}

// from is the inner sum of Expected, over m, from j stages on.
func (p *Erlang) from(j, shape, B, z, y float64) float64 {
	reached := func(m float64) float64 {
		v, _ := tail(float64(m*p.k)-j, shape, z, y)
		return v
	}
	kept := func(m float64) float64 { // (B)_{m−1}/(a+B)_{m−1}
		return dmath.Exp(dmath.LogRising(B, m-1) - dmath.LogRising(p.a+B, m-1))
	}
	// How many terms matter: the first m beyond which nothing does, or the limit.
	first := reached(1)
	if first == 0 {
		return 0
	}
	matters := func(m float64) bool { return float64(m*reached(m)) > float64(1e-18*first) }
	top := 2.0
	for top < directTerms && matters(top) {
		top = float64(2 * top)
	}
	if top < directTerms {
		lo, hi := 1.0, top // matters at lo, not at hi
		for hi-lo > 1 {
			if m := float64(int((lo + hi) / 2)); matters(m) {
				lo = m
			} else {
				hi = m
			}
		}
		top = lo
	} else {
		top = directTerms
	}

	// From the top term down, P(N ≥ n−1) = P(N ≥ n) + P(N = n−1): all positive.
	n := float64(top*p.k) - j
	atLeast, equal := tail(n, shape, z, y)
	weight := kept(top)
	sum := float64(weight * atLeast)
	for m := top - 1; m >= 1; m-- {
		for range int(p.k) {
			equal = float64(equal * (n / float64((shape+n-1)*z)))
			n--
			atLeast += equal
		}
		weight = float64(weight * ((p.a + B + m - 1) / (B + m - 1)))
		sum += float64(weight * min(1, atLeast))
	}
	if top < directTerms {
		return sum
	}

	// Σ_{m>top} f(m) = ∫ f from top+½ on, + f′(top+½)/24 − …
	f := func(m float64) float64 { return float64(kept(m) * reached(m)) }
	sum += (f(top+1) - f(top)) / 24
	from := top + 0.5
	end := from
	for part := sum; part > float64(1e-17*sum) && end < 1e300; end = float64(end * 8) {
		lo, hi := dmath.Log(end), dmath.Log(float64(end*8))
		part = integrate(sum, func(u float64) float64 {
			m := dmath.Exp(u)
			return float64(m * f(m))
		}, lo, lo+float64(0.5*(hi-lo)), hi)
		sum += part
	}
	return sum
}

// DERT implements Model. A finite horizon costs hundreds of Expected.
func (p *Erlang) DERT(h History, rate, horizon float64) float64 {
	if math.IsInf(horizon, 1) {
		return p.residual(h, rate)
	}
	// The k stages make what is expected swing in time, the more so the larger k.
	return discounted(rate, horizon, min(2, 8/p.k), func(t float64) float64 { return p.Expected(h, t) })
}
