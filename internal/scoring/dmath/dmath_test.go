package dmath

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math"
	"math/big"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// ulps returns |got − want| in units of want's last place.
func ulps(got, want float64) float64 {
	if got == want || got != got && want != want {
		return 0
	}
	u := math.Nextafter(math.Abs(want), math.Inf(1)) - math.Abs(want)
	return math.Abs(got-want) / u
}

// The standard library's functions are themselves within 1 ulp, so the bounds
// below are ours plus that one.
func TestAccuracyAgainstStandardLibrary(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	uniform := func(lo, hi float64) func() float64 { return func() float64 { return lo + r.Float64()*(hi-lo) } }
	magnitude := func(lo, hi float64) func() float64 {
		return func() float64 { return math.Exp(lo + r.Float64()*(hi-lo)) }
	}
	signed := func(f func() float64) func() float64 {
		return func() float64 {
			if r.Uint32()&1 == 0 {
				return -f()
			}
			return f()
		}
	}
	cases := []struct {
		name      string
		ours, std func(float64) float64
		next      func() float64
		tolerance float64 // ulp
	}{
		{"exp", Exp, math.Exp, uniform(-708, 709), 2},
		{"exp subnormal", Exp, math.Exp, uniform(-745, -708), 2},
		{"exp small", Exp, math.Exp, signed(magnitude(-40, 0)), 2},
		{"expm1", Expm1, math.Expm1, uniform(-40, 100), 3},
		{"expm1 near zero", Expm1, math.Expm1, uniform(-2, 2), 3},
		{"expm1 small", Expm1, math.Expm1, signed(magnitude(-40, 0)), 3},
		{"log", Log, math.Log, magnitude(-708, 709), 2},
		{"log near one", Log, math.Log, uniform(0.5, 2), 2},
		{"log1p", Log1p, math.Log1p, magnitude(-40, 40), 3},
		{"log1p negative", Log1p, math.Log1p, uniform(-1, 0), 3},
	}
	for _, c := range cases {
		var worst, at float64
		for range 200_000 {
			x := c.next()
			if d := ulps(c.ours(x), c.std(x)); d > worst {
				worst, at = d, x
			}
		}
		if worst > c.tolerance {
			t.Errorf("%s: %.3f ulp at %v (ours %v, standard %v)", c.name, worst, at, c.ours(at), c.std(at))
		}
	}
}

// bigExp is eˣ to 200 bits by the Taylor series on x/2⁶⁴, squared 64 times.
func bigExp(x *big.Float) *big.Float {
	const prec = 400
	r := new(big.Float).SetPrec(prec).SetMantExp(x, -64)
	sum := big.NewFloat(1).SetPrec(prec)
	term := big.NewFloat(1).SetPrec(prec)
	for k := 1; k < 20; k++ {
		term.Mul(term, r)
		term.Quo(term, big.NewFloat(float64(k)).SetPrec(prec))
		sum.Add(sum, term)
	}
	for range 64 {
		sum.Mul(sum, sum)
	}
	return sum
}

// bigLog inverts bigExp by Newton's method from the float64 logarithm.
func bigLog(x float64) *big.Float {
	const prec = 400
	y := big.NewFloat(math.Log(x)).SetPrec(prec)
	for range 4 {
		q := new(big.Float).SetPrec(prec).Quo(big.NewFloat(x).SetPrec(prec), bigExp(y))
		y.Add(y, q.Sub(q, big.NewFloat(1)))
	}
	return y
}

func TestAccuracyAgainstBigFloat(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 300 {
		x := math.Exp(r.Float64()*80 - 40)
		want, _ := bigLog(x).Float64()
		if d := ulps(Log(x), want); d > 1 {
			t.Errorf("Log(%v) is off by %.3f ulp", x, d)
		}
		e := r.Float64()*1400 - 700
		want, _ = bigExp(big.NewFloat(e)).Float64()
		if d := ulps(Exp(e), want); d > 1 {
			t.Errorf("Exp(%v) is off by %.3f ulp", e, d)
		}
		// Pow with y·ln x up to ±690, from large bases and from bases near 1.
		if r.Uint32()&1 == 0 {
			x = 1 + r.Float64()*1e-3
		}
		y := (r.Float64()*2 - 1) * 690 / math.Abs(math.Log(x))
		p := new(big.Float).SetPrec(400).Mul(big.NewFloat(y), bigLog(x))
		want, _ = bigExp(p).Float64()
		if rel := math.Abs(Pow(x, y)-want) / want; rel > 1e-14 {
			t.Errorf("Pow(%v, %v) is off by %.3g relative", x, y, rel)
		}
	}
}

func TestSpecialValues(t *testing.T) {
	inf, nan := math.Inf(1), math.NaN()
	cases := []struct {
		name      string
		got, want float64
	}{
		{"Exp(0)", Exp(0), 1}, {"Exp(Inf)", Exp(inf), inf}, {"Exp(-Inf)", Exp(-inf), 0}, {"Exp(NaN)", Exp(nan), nan},
		{"Exp(710)", Exp(710), inf}, {"Exp(-746)", Exp(-746), 0}, {"Exp(-745)", Exp(-745), 5e-324},
		{"Expm1(0)", Expm1(0), 0}, {"Expm1(-Inf)", Expm1(-inf), -1}, {"Expm1(Inf)", Expm1(inf), inf}, {"Expm1(NaN)", Expm1(nan), nan},
		{"Expm1(1e-300)", Expm1(1e-300), 1e-300},
		{"Log(5e-324)", Log(5e-324), -744.4400719213812}, {"Log(1)", Log(1), 0}, {"Log(0)", Log(0), -inf}, {"Log(-1)", Log(-1), nan}, {"Log(Inf)", Log(inf), inf}, {"Log(NaN)", Log(nan), nan},
		{"Log1p(0)", Log1p(0), 0}, {"Log1p(-1)", Log1p(-1), -inf}, {"Log1p(-2)", Log1p(-2), nan}, {"Log1p(Inf)", Log1p(inf), inf},
		{"Log1p(NaN)", Log1p(nan), nan}, {"Log1p(1e-300)", Log1p(1e-300), 1e-300},
		{"Pow(0, 2)", Pow(0, 2), 0}, {"Pow(0, -2)", Pow(0, -2), inf}, {"Pow(Inf, 2)", Pow(inf, 2), inf}, {"Pow(Inf, -2)", Pow(inf, -2), 0},
		{"Pow(2, 10)", Pow(2, 10), 1024}, {"Pow(4, 0.5)", Pow(4, 0.5), 2}, {"Pow(-1, 2)", Pow(-1, 2), nan}, {"Pow(5, 0)", Pow(5, 0), 1},
		{"Pow(1, Inf)", Pow(1, inf), 1}, {"Pow(2, 5000)", Pow(2, 5000), inf}, {"Pow(2, -5000)", Pow(2, -5000), 0},
		{"Pow(2, Inf)", Pow(2, inf), inf}, {"Pow(NaN, 1)", Pow(nan, 1), nan},
	}
	for _, c := range cases {
		if c.got != c.want && (c.got == c.got || c.want == c.want) {
			t.Errorf("%s = %v, want %v", c.name, c.got, c.want)
		}
	}
}

// TestBitsAreFixed holds every function to the bits it had when it was
// written: 100,000 points hashed. A change of one bit changes tiers somewhere,
// so a new hash here needs a new formulas version in package scoring.
func TestBitsAreFixed(t *testing.T) {
	const want = "c18f642c435c2df7d7f105862fb3bdde64c9cad173faab0bba3c3201a7acf47d"
	r := rand.New(rand.NewPCG(5, 6))
	h := sha256.New()
	var b [8]byte
	add := func(v float64) {
		binary.LittleEndian.PutUint64(b[:], math.Float64bits(v))
		h.Write(b[:])
	}
	for range 20_000 {
		u := r.Float64()
		x := math.Ldexp(1+r.Float64(), int(r.Int32N(60))-30)
		add(Exp(u*1400 - 700))
		add(Expm1(u*4 - 2))
		add(Log(x))
		add(Log1p(x - 0.5*u))
		add(Pow(x, u*40-20))
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		t.Errorf("hash of 100,000 values is %s, want %s", got, want)
	}
}

func TestBitsAreFixedWithoutFMA(t *testing.T) {
	if os.Getenv("DMATH_CHILD") != "" {
		t.Skip("this is the child")
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestBitsAreFixed$", "-test.v")
	cmd.Env = append(os.Environ(), "DMATH_CHILD=1", "GODEBUG=cpu.fma=off")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestBitsAreFixed") {
		t.Errorf("with cpu.fma=off: %v\n%s", err, out)
	}
}

func BenchmarkExp(b *testing.B)   { bench(b, func(x float64) float64 { return Exp(x) }) }
func BenchmarkExpm1(b *testing.B) { bench(b, func(x float64) float64 { return Expm1(x) }) }
func BenchmarkLog(b *testing.B)   { bench(b, func(x float64) float64 { return Log(x) }) }
func BenchmarkLog1p(b *testing.B) { bench(b, func(x float64) float64 { return Log1p(x) }) }
func BenchmarkPow(b *testing.B)   { bench(b, func(x float64) float64 { return Pow(x, 7.3) }) }

var sink float64

func bench(b *testing.B, f func(float64) float64) {
	var xs [256]float64
	for i := range xs {
		xs[i] = 0.1 + float64(i)*0.37
	}
	i := 0
	for b.Loop() {
		sink = f(xs[i&255])
		i++
	}
}
