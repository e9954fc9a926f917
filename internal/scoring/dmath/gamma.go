package dmath

import "math"

// The approximations of Lgamma below 8 and the one of Stirling's remainder are
// those of FreeBSD's msun (e_lgamma_r.c), which came with the notice that stands
// in dmath.go.
var (
	lgamA = [...]float64{
		7.72156649015328655494e-02, 3.22467033424113591611e-01, 6.73523010531292681824e-02, 2.05808084325167332806e-02,
		7.38555086081402883957e-03, 2.89051383673415629091e-03, 1.19270763183362067845e-03, 5.10069792153511336608e-04,
		2.20862790713908385557e-04, 1.08011567247583939954e-04, 2.52144565451257326939e-05, 4.48640949618915160150e-05,
	}
	lgamR = [...]float64{
		1.0, 1.39200533467621045958e+00, 7.21935547567138069525e-01, 1.71933865632803078993e-01,
		1.86459191715652901344e-02, 7.77942496381893596434e-04, 7.32668430744625636189e-06,
	}
	lgamS = [...]float64{
		-7.72156649015328655494e-02, 2.14982415960608852501e-01, 3.25778796408930981787e-01, 1.46350472652464452805e-01,
		2.66422703033638609560e-02, 1.84028451407337715652e-03, 3.19475326584100867617e-05,
	}
	lgamT = [...]float64{
		4.83836122723810047042e-01, -1.47587722994593911752e-01, 6.46249402391333854778e-02, -3.27885410759859649565e-02,
		1.79706750811820387126e-02, -1.03142241298341437450e-02, 6.10053870246291332635e-03, -3.68452016781138256760e-03,
		2.25964780900612472250e-03, -1.40346469989232843813e-03, 8.81081882437654011382e-04, -5.38595305356740546715e-04,
		3.15632070903625950361e-04, -3.12754168375120860518e-04, 3.35529192635519073543e-04,
	}
	lgamU = [...]float64{
		-7.72156649015328655494e-02, 6.32827064025093366517e-01, 1.45492250137234768737e+00,
		9.77717527963372745603e-01, 2.28963728064692451092e-01, 1.33810918536787660377e-02,
	}
	lgamV = [...]float64{
		1.0, 2.45597793713041134822e+00, 2.12848976379893395361e+00,
		7.69285150456672783825e-01, 1.04222645593369134254e-01, 3.21709242282423911810e-03,
	}
	lgamW = [...]float64{ // without its first, (ln 2π − 1)/2
		8.33333333333329678849e-02, -2.77777777728775536470e-03, 7.93650558643019558500e-04,
		-5.95187557450339963135e-04, 8.36339918996282139126e-04, -1.63092934096575273989e-03,
	}
)

const (
	lgamMin   = 1.461632144968362245        // where ln Γ is least
	lgamTc    = 1.46163214496836224576e+00  // the same, as the polynomial T has it
	lgamTf    = -1.21486290535849611461e-01 // ln Γ there
	lgamTt    = -3.63867699703950536541e-18 // −(the tail of lgamTf)
	halfLn2Pi = 9.18938533204672741780e-01
)

// horner returns c[0] + y·(c[1] + y·(…)).
func horner(y float64, c []float64) float64 {
	s := c[len(c)-1]
	for i := len(c) - 2; i >= 0; i-- {
		s = c[i] + float64(y*s)
	}
	return s
}

// stride is horner over every n-th coefficient, from the first on.
func stride(y float64, c []float64, first, n int) float64 {
	last := first
	for last+n < len(c) {
		last += n
	}
	s := c[last]
	for i := last - n; i >= first; i -= n {
		s = c[i] + float64(y*s)
	}
	return s
}

// Lgamma returns ln Γ(x) for x > 0: +Inf at 0 and +Inf, NaN below 0. Its error
// is at most 2 units of 2⁻⁵² of its value, also next to its zeros 1 and 2.
func Lgamma(x float64) float64 {
	switch {
	case x != x || x < 0:
		return math.NaN()
	case x == 0 || x > math.MaxFloat64:
		return math.Inf(1)
	case x < 1.0/(1<<53)/(1<<17):
		return -Log(x)
	case x == 1 || x == 2:
		return 0
	case x < 2:
		return lgammaBelow2(x)
	case x < 8:
		n := int(x)
		y := x - float64(n)
		l := float64(0.5*y) + float64(y*horner(y, lgamS[:]))/horner(y, lgamR[:])
		if n == 2 {
			return l
		}
		z := 1.0
		for i := 2; i < n; i++ { // ln Γ(1+s) = ln s + ln Γ(s)
			z = float64(z * (y + float64(i)))
		}
		return l + Log(z)
	case x < 1<<58:
		return float64((x-0.5)*(Log(x)-1)) + (halfLn2Pi - 0.5) + stirling(x)
	}
	return float64(x * (Log(x) - 1))
}

func lgammaBelow2(x float64) float64 {
	l := 0.0
	s := x // in [0.9, 2), by ln Γ(x) = ln Γ(x+1) − ln x
	if x <= 0.9 {
		l = -Log(x)
		s = x + 1
	}
	switch {
	case s >= lgamMin+0.27:
		y := 2 - x
		if x <= 0.9 {
			y = 1 - x
		}
		z := float64(y * y)
		p := float64(y*stride(z, lgamA[:], 0, 2)) + float64(z*stride(z, lgamA[:], 1, 2))
		return l + (p - float64(0.5*y))
	case s >= lgamMin-0.23: // math.Lgamma has 0.27 here, and 80 ulp of error next to 1.2
		y := x - lgamTc
		if x <= 0.9 {
			y = x - (lgamTc - 1)
		}
		z := float64(y * y)
		w := float64(z * y)
		p := float64(z*stride(w, lgamT[:], 0, 3)) -
			(lgamTt - float64(w*(stride(w, lgamT[:], 1, 3)+float64(y*stride(w, lgamT[:], 2, 3)))))
		return l + (lgamTf + p)
	}
	y := x - 1
	if x <= 0.9 {
		y = x
	}
	return l + (float64(y*horner(y, lgamU[:]))/horner(y, lgamV[:]) - float64(0.5*y))
}

// stirling returns ln Γ(x) − (x − ½)·ln x + x − ½·ln 2π for x ≥ 8, with an
// error below 1e-18.
func stirling(x float64) float64 {
	z := 1 / x
	return float64(z * horner(float64(z*z), lgamW[:]))
}

// LogGammaPeak returns ln xˣe⁻ˣ/Γ(x) for x ≥ 8, what the gamma density of shape x
// has at its mean, in ln of the variable. Nothing of the size of ln Γ(x) is subtracted.
func LogGammaPeak(x float64) float64 {
	return float64(0.5*Log(x)) - halfLn2Pi - stirling(x)
}

// LogRising returns ln Γ(x+n)/Γ(x), the logarithm of x(x+1)…(x+n−1), for x > 0
// and n ≥ 0, which need not be whole. From x = 8 on, nothing of the size of
// ln Γ(x) is subtracted; the error is then a few ulp of n·ln(x+n).
func LogRising(x, n float64) float64 {
	if x < 8 {
		return Lgamma(x+n) - Lgamma(x)
	}
	return float64((x-0.5)*Log1p(n/x)) + float64(n*(Log(x+n)-1)) + (stirling(x+n) - stirling(x))
}

// LogBeta returns ln B(a, b) for a, b > 0; a large one costs the other no digits.
func LogBeta(a, b float64) float64 {
	a, b = min(a, b), max(a, b)
	return Lgamma(a) - LogRising(b, a)
}

// devTerm returns x·ln(x/m) + m − x, the deviance of a Poisson count x from its
// mean m, without cancellation near x = m (Loader 2000, bd0).
func devTerm(x, m float64) float64 {
	d := x - m
	if math.Abs(d) >= 0.1*(x+m) {
		return float64(x*Log(x/m)) + m - x
	}
	v := d / (x + m)
	s := float64(d * v)
	term := float64(float64(2*x) * v)
	v = float64(v * v)
	for k := 3.0; ; k += 2 {
		term = float64(term * v)
		next := s + term/k
		if next == s {
			return s
		}
		s = next
	}
}

// LogBetaTerm returns ln of xᵃ(1−x)ᵇ/B(a, b) for a, b > 0 and 0 < x < 1, y being
// 1−x. Where a and b are large it is computed from how far x lies from its mean
// a/(a+b), so that nothing of the size of a·ln x is subtracted (Loader 2000);
// what is left is (a+b)·2⁻⁵² where x+y is not quite 1.
func LogBetaTerm(a, b, x, y float64) float64 {
	if min(a, b) < 8 {
		return float64(a*logOf(x, y)) + float64(b*logOf(y, x)) - LogBeta(a, b)
	}
	n := a + b
	return float64(0.5*Log(float64(a/n*b))) - halfLn2Pi + (stirling(n) - stirling(a) - stirling(b)) -
		devTerm(a, float64(n*x)) - devTerm(b, float64(n*y))
}

// logOf returns ln y for y = 1 − x.
func logOf(y, x float64) float64 {
	if x < 0.5 {
		return Log1p(-x)
	}
	return Log(y)
}
