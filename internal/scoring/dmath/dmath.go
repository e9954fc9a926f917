// Package dmath holds the elementary functions of the scoring path. They give
// the same bits on every machine: the standard library's do not, because it
// picks assembly by architecture and by CPU feature, and because a compiler
// may fuse x*y + z into one rounding, even across statements. Here every product
// stands in an explicit float64 conversion, which the language defines as a
// rounding.
//
// All functions are total, pure and allocate nothing. Accuracy, as tested:
// Exp and Log 1 ulp, Expm1, Log1p and Lgamma 2 ulp, Pow 1e-14 relative.
package dmath

import "math"

// The constants, the argument reduction and the two minimax polynomials (exp
// and log) are those of FreeBSD's msun (e_exp.c, e_log.c), which came with
// this notice:
//
// ====================================================
// Copyright (C) 1993 by Sun Microsystems, Inc. All rights reserved.
//
// Developed at SunPro, a Sun Microsystems, Inc. business.
// Permission to use, copy, modify, and distribute this
// software is freely granted, provided that this notice
// is preserved.
// ====================================================
const (
	ln2Hi = 6.93147180369123816490e-01 // 3fe62e42fee00000: times a small integer it is exact
	ln2Lo = 1.90821492927058770002e-10 // 3dea39ef35793c76
	log2e = 1.44269504088896338700e+00

	expOverflow  = 7.09782712893383973096e+02 // above it exp is +Inf
	expUnderflow = -7.45133219101941108420e+02

	p1 = 1.66666666666666657415e-01
	p2 = -2.77777777770155933842e-03
	p3 = 6.61375632143793436117e-05
	p4 = -1.65339022054652515390e-06
	p5 = 4.13813679705723846039e-08

	l1 = 6.666666666666735130e-01
	l2 = 3.999999999940941908e-01
	l3 = 2.857142874366239149e-01
	l4 = 2.222219843214978396e-01
	l5 = 1.818357216161805012e-01
	l6 = 1.531383769920937332e-01
	l7 = 1.479819860511658591e-01
)

// reduce writes x as k·ln 2 + (hi − lo) with |hi − lo| ≤ ln(2)/2, for |x| < 2000.
func reduce(x float64) (hi, lo float64, k int) {
	half := 0.5
	if x < 0 {
		half = -0.5
	}
	k = int(float64(log2e*x) + half)
	return x - float64(float64(k)*ln2Hi), float64(float64(k) * ln2Lo), k
}

// reduced returns exp(hi − lo) − 1 for a reduced argument: r + r·c/(2 − c)
// with c the minimax form of r − r·(coth(r/2) − 2/r).
func reduced(hi, lo float64) float64 {
	r := hi - lo
	t := float64(r * r)
	c := r - float64(t*(p1+float64(t*(p2+float64(t*(p3+float64(t*(p4+float64(t*p5)))))))))
	return hi - (lo - float64(r*c)/(2-c))
}

// scale returns y·2ᵏ for y in [½, 2) and |k| ≤ 1100, rounded once.
func scale(y float64, k int) float64 {
	switch {
	case k > 1023:
		return float64(y * 2 * math.Float64frombits(uint64(1023+k-1)<<52))
	case k < -1021:
		return float64(float64(y*math.Float64frombits(uint64(1023+k+60)<<52)) * (1.0 / (1 << 60)))
	}
	return float64(y * math.Float64frombits(uint64(1023+k)<<52))
}

// Exp returns eˣ. Exp(NaN) is NaN; it is +Inf above 709.78 and 0 below −745.13.
func Exp(x float64) float64 {
	switch {
	case x != x:
		return x
	case x > expOverflow:
		return math.Inf(1)
	case x < expUnderflow:
		return 0
	}
	hi, lo, k := reduce(x)
	return scale(1+reduced(hi, lo), k)
}

// Expm1 returns eˣ − 1, accurate for small x too.
func Expm1(x float64) float64 {
	switch {
	case x != x:
		return x
	case x > expOverflow:
		return math.Inf(1)
	case x < -40: // e⁻⁴⁰ is below half an ulp of 1
		return -1
	case -1e-17 < x && x < 1e-17: // also keeps −0
		return x
	}
	hi, lo, k := reduce(x)
	y := reduced(hi, lo)
	switch {
	case k == 0:
		return y
	case k > 60: // the 1 is below half an ulp
		return scale(1+y, k)
	}
	two := math.Float64frombits(uint64(1023+k) << 52)
	return (two - 1) + float64(two*y)
}

// split writes x > 0, finite, as 2ᵏ·m with m in [√½, √2).
func split(x float64) (m float64, k int) {
	const rootHalf = 0x3fe6a09e667f3bcd // bits of √½
	if x < 0x1p-1022 {
		x = float64(x * 0x1p54)
		k = -54
	}
	ix := math.Float64bits(x)
	d := int64(ix - rootHalf)
	return math.Float64frombits(ix - uint64(d)&(0xfff<<52)), k + int(d>>52)
}

// tail returns ln(1+f)/s − 2 for s = f/(2+f), |s| ≤ 0.1716.
func tail(s float64) float64 {
	s2 := float64(s * s)
	s4 := float64(s2 * s2)
	t1 := float64(s2 * (l1 + float64(s4*(l3+float64(s4*(l5+float64(s4*l7)))))))
	t2 := float64(s4 * (l2 + float64(s4*(l4+float64(s4*l6)))))
	return t1 + t2
}

// log1pk returns k·ln 2 + ln(1+f) + c for 1+f in [√½, √2) and a small c.
func log1pk(f, c, k float64) float64 {
	s := f / (2 + f)
	hfsq := float64(0.5 * f * f)
	lo := float64(s*(hfsq+tail(s))) + (float64(k*ln2Lo) + c)
	return float64(k*ln2Hi) - ((hfsq - lo) - f)
}

// Log returns the natural logarithm: −Inf at 0, NaN below.
func Log(x float64) float64 {
	switch {
	case x != x || x > math.MaxFloat64:
		return x
	case x < 0:
		return math.NaN()
	case x == 0:
		return math.Inf(-1)
	}
	m, k := split(x)
	return log1pk(m-1, 0, float64(k))
}

// Log1p returns ln(1+x), accurate for small x too: −Inf at −1, NaN below.
func Log1p(x float64) float64 {
	switch {
	case -0.29 < x && x < 0.41: // 1+x needs no reduction, and x is exact
		if x == 0 {
			return x // keeps −0
		}
		return log1pk(x, 0, 0)
	case x != x || x > math.MaxFloat64:
		return x
	case x < -1:
		return math.NaN()
	case x == -1:
		return math.Inf(-1)
	}
	// u = 1+x is rounded; c makes good the part that was lost.
	u := 1 + x
	c := x - (u - 1)
	if x > 1 {
		c = 1 - (u - x)
	}
	m, k := split(u)
	return log1pk(m-1, c/u, float64(k))
}

// product returns a·b as an unevaluated sum of two float64 (Dekker 1971,
// with Veltkamp's splitting), for |a|, |b| < 2⁹⁹⁰.
func product(a, b float64) (p, e float64) {
	const splitter = 1<<27 + 1
	p = float64(a * b)
	t := float64(splitter * a)
	ah := t - (t - a)
	al := a - ah
	t = float64(splitter * b)
	bh := t - (t - b)
	bl := b - bh
	e = ((float64(ah*bh) - p) + float64(ah*bl) + float64(al*bh)) + float64(al*bl)
	return p, e
}

// logPair returns ln x as hi + lo with a relative error below 2⁻⁵⁸, for finite
// x > 0: ln x = k·ln 2 + 2s + s·tail(s), where only 2s needs the second word.
func logPair(x float64) (hi, lo float64) {
	m, ki := split(x)
	k := float64(ki)
	f := m - 1 // exact
	d := 2 + f
	dl := f - (d - 2)
	s := f / d
	p, e := product(s, d)
	sl := ((f - p) - e - float64(s*dl)) / d
	a, b := float64(k*ln2Hi), float64(2*s)
	hi = a + b
	bb := hi - a
	lo = (a - (hi - bb)) + (b - bb)
	lo += float64(2*sl) + (float64(s*tail(s)) + float64(k*ln2Lo))
	sum := hi + lo
	return sum, lo - (sum - hi)
}

// Pow returns xʸ for x ≥ 0; NaN for x < 0. Pow(x, 0) and Pow(1, y) are 1. The
// logarithm carries two words, so that a large exponent costs no accuracy.
func Pow(x, y float64) float64 {
	switch {
	case y == 0 || x == 1:
		return 1
	case x != x || y != y || x < 0:
		return math.NaN()
	case x == 0 || x > math.MaxFloat64:
		if (x == 0) == (y > 0) {
			return 0
		}
		return math.Inf(1)
	}
	hi, lo := logPair(x)
	if v := float64(y * hi); v > 710 {
		return math.Inf(1)
	} else if v < -746 {
		return 0
	}
	p, e := product(y, hi)
	e += float64(y * lo)
	r := Exp(p)
	return r + float64(r*e)
}
