package btyd

import (
	"math"

	"github.com/tierstream/tierstream/internal/scoring/dmath"
)

// gauss returns the hypergeometric function F(1, b; c; z) for b > 0, c > 1 and
// 0 ≤ z < 1, y being 1−z: by Gauss's continued fraction (DLMF 15.7.5) with
// Steed's algorithm, which takes about 18/√y steps, fewer where large b and c
// make the terms of the series fall fast; next to z = 1 by Euler's integral.
func gauss(b, c, z, y float64) float64 {
	if z == 0 {
		return 1
	}
	c--
	if y < 1e-4 {
		return euler(b, c, z, y)
	}
	// F = c/(t₀ − u₁z/(t₁ − u₂z/(t₂ − …))) with tₙ = c+n,
	// u₂ₙ₊₁ = (b+n)(c+n), u₂ₙ = n(c−b+n).
	d := 1 / c
	delta := 1.0
	sum := 1.0
	for n := 0.0; n < maxTerms; n++ {
		for odd := range 2 {
			u, t := float64((b+n)*(c+n)), c+float64(2*n)+1
			if odd == 1 {
				u, t = float64((n+1)*(c-b+n+1)), t+1
			}
			u = float64(float64(u*z) * d)
			d = 1 / (t - u)
			delta = float64(float64(u*d) * delta)
			sum += delta
			if small(delta, sum) {
				return sum
			}
		}
	}
	return sum
}

// euler returns F(1, b; c+1; z) as c·∫₀¹ sᶜ⁻¹·(y+zs)^−b ds (DLMF 15.6.1) over
// ln s, below which nothing but the power is left in closed form.
func euler(b, c, z, y float64) float64 {
	turn := dmath.Log(y / z) // where the two terms of the sum are equal
	lo := min(0, turn-40-dmath.Log1p(b))
	// The integrand's peak, and how wide it is.
	peak, steep := 0.0, math.Abs(c-float64(b*z))
	if b > c {
		peak = min(0, turn+dmath.Log(c/(b-c)))
		if peak < 0 {
			steep = math.Sqrt(float64(c * (1 - c/b)))
		}
	}
	width := min(1, 1/steep)
	points := [...]float64{lo, peak - float64(40*width), peak - float64(10*width), peak - float64(3*width), peak, peak + float64(3*width), peak + float64(10*width), peak + float64(40*width), 0}
	for i := range points {
		points[i] = min(max(points[i], lo), 0)
	}
	rest := dmath.Exp(float64(c*lo) - float64(b*dmath.Log(y)))
	return rest + integrate(rest, func(u float64) float64 {
		return float64(c * dmath.Exp(float64(c*u)-float64(b*dmath.Log(y+float64(z*dmath.Exp(u))))))
	}, points[:]...)
}

// excess returns eᵛ − 1 − v without cancellation.
func excess(v float64) float64 {
	if math.Abs(v) > 0.5 {
		return dmath.Expm1(v) - v
	}
	term := float64(0.5 * float64(v*v))
	sum := term
	for k := 3.0; !small(term, sum); k++ {
		term = float64(term * (v / k))
		sum += term
	}
	return sum
}

// tail returns P(N ≥ n) of a negative binomial N, and its P(N = n), for n > 0:
// N counts the arrivals of a Poisson process with a gamma distributed rate, r
// being its shape and z the probability t/(alpha+t). It is the regularized
// incomplete beta function I_z(n, r), where n need not be whole. y is 1−z.
func tail(n, r, z, y float64) (atLeast, equal float64) {
	if z == 0 {
		return 0, 0
	}
	term := dmath.Exp(dmath.LogBetaTerm(n, r, z, y))
	equal = term / n
	if float64(z*(n+r)) <= n { // n is not below the mean: what is asked is the smaller part
		return min(1, float64(equal*gauss(n+r, n+1, z, y))), equal
	}
	return max(0, 1-float64(term/r*gauss(n+r, r+1, y, z))), equal
}

// The nodes and weights of Gauss's quadrature with 16 points, on [−1, 1].
var legendre = [...][2]float64{
	{0.095012509837637440185, 0.18945061045506849629},
	{0.28160355077925891323, 0.18260341504492358887},
	{0.45801677765722738634, 0.16915651939500253819},
	{0.61787624440264374845, 0.14959598881657673208},
	{0.7554044083550030339, 0.12462897125553387205},
	{0.86563120238783174388, 0.09515851168249278481},
	{0.94457502307323257608, 0.062253523938647892863},
	{0.9894009349916499326, 0.027152459411754094852},
}

// panel is the integral of f from lo to hi by 16 points: exact for polynomials
// of degree 31.
func panel(lo, hi float64, f func(float64) float64) float64 {
	middle, half := float64(0.5*(lo+hi)), float64(0.5*(hi-lo))
	sum := 0.0
	for _, p := range legendre {
		d := float64(half * p[0])
		sum += float64(p[1] * (f(middle-d) + f(middle+d)))
	}
	return float64(half * sum)
}

// accuracy is how far a panel may differ from its two halves, relative to the
// whole; the halves, which are taken, are better by many digits. Less would
// chase the rounding of f.
const accuracy = 1e-11

// mostHalvings bounds what a function without 11 digits can cost.
const mostHalvings = 12

// refine returns the integral from lo to hi, whose panel is known, by halving
// panels until halves and whole agree.
func refine(lo, hi, whole, scale float64, depth int, f func(float64) float64) float64 {
	middle := float64(0.5 * (lo + hi))
	left, right := panel(lo, middle, f), panel(middle, hi, f)
	sum := left + right
	if depth == 0 || math.Abs(sum-whole) <= float64(accuracy*max(scale, sum)) {
		return sum
	}
	scale = max(scale, sum)
	return refine(lo, middle, left, scale, depth-1, f) + refine(middle, hi, right, scale, depth-1, f)
}

// integrate returns the integral of f ≥ 0 between the first and the last of at
// most 17 points, which ascend. The points between say where f has its features: it must
// be smooth on the scale of a panel or be seen by 16 points on it. It is a part
// of a sum of at least scale.
func integrate(scale float64, f func(float64) float64, points ...float64) float64 {
	var panels [16]float64
	for i := range len(points) - 1 {
		panels[i] = panel(points[i], points[i+1], f)
		scale += panels[i]
	}
	sum := 0.0
	for i := range len(points) - 1 {
		if points[i] < points[i+1] {
			sum += refine(points[i], points[i+1], panels[i], scale, mostHalvings, f)
		}
	}
	return sum
}

// downward returns ∫₀ᵗ f(s) ds for f ≥ 0 by panels in ln s, from t down, until
// they no longer matter and s < settled, below which s·f(s) falls with s. Where
// f is analytic on the half-plane Re s > 0 and of the size that it has on the
// real axis, panels of width 2 err by less than 1e-15 of f.
func downward(t, settled, width float64, f func(float64) float64) float64 {
	sum := 0.0
	for top := dmath.Log(t); ; top -= width {
		part := panel(top-width, top, func(u float64) float64 {
			s := dmath.Exp(u)
			return float64(s * f(s))
		})
		sum += part
		if dmath.Exp(top) < settled && part <= float64(1e-16*sum) || top < -700 {
			return sum
		}
	}
}

// discounted returns ∫₀ᵗ exp(−rate·s) dE(s) for the expected purchases E of a
// model, by parts: exp(−rate·t)·E(t) + rate·∫₀ᵗ exp(−rate·s)·E(s) ds. t may be
// +Inf. Beyond rate·s = 45 nothing is left. width is that of downward's panels.
func discounted(rate, t, width float64, expected func(float64) float64) float64 {
	if t == 0 {
		return 0
	}
	end := min(t, 45/rate)
	sum := float64(rate * downward(end, 1/rate, width, func(s float64) float64 {
		return float64(dmath.Exp(-float64(rate*s)) * expected(s))
	}))
	if t <= end {
		sum += float64(dmath.Exp(-float64(rate*t)) * expected(t))
	}
	return sum
}

// bisect returns the least T in [lo, hi] at which below holds: it must not hold
// anywhere before, and must hold at hi.
func bisect(lo, hi float64, below func(float64) bool) float64 {
	for {
		middle := lo + float64(0.5*(hi-lo))
		if middle <= lo || middle >= hi {
			return hi
		}
		if below(middle) {
			hi = middle
		} else {
			lo = middle
		}
	}
}

// growing returns a time at which below holds, found by doubling the distance from
// lo: +Inf if there is none in range.
func growing(lo, scale float64, below func(float64) bool) float64 {
	for d := scale; ; d = float64(2 * d) {
		if T := lo + d; T > 1e300 || below(T) {
			if T > 1e300 {
				return math.Inf(1)
			}
			return T
		}
	}
}

// CLV is the discounted value of the next months: the sum over months i from 1
// of value·E(month i)/(1+monthlyDiscount)^i, in value's unit, where E(month i)
// are the purchases that the model expects in ((i−1)·unitsPerMonth,
// i·unitsPerMonth] from now.
func CLV(m Model, h History, value float64, months int, unitsPerMonth, monthlyDiscount float64) float64 {
	sum, before := 0.0, 0.0
	for i := 1; i <= months; i++ {
		e := m.Expected(h, float64(float64(i)*unitsPerMonth))
		sum += float64((e - before) * dmath.Pow(1+monthlyDiscount, -float64(i)))
		before = e
	}
	return float64(value * sum)
}
